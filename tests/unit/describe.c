// Tasks from descriptions: every format, templates, splits, what is left out and counted, and what
// is refused, with the file and the line. Files are written here; the suite's own descriptions are
// read too, and with the originals at hand, their data (tests/oracle/test_tasks.py reads it again).
#include "tasks/common/describe.h"

#include "core/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/pb_describe_XXXXXX";
static const char *const names[] = {"t.json", "a.jsonl", "a.json", "a.csv",
                                    "a.tsv",  "b1.csv",  "b2.csv", "a.txt"};
enum { N_NAMES = sizeof names / sizeof *names };

static int make_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static void remove_files(void)
{
    char path[256];
    for (size_t i = 0; i < N_NAMES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
}

static int remove_folder(void **state)
{
    (void)state;
    remove_files();
    return rmdir(folder);
}

static void put(const char *name, const char *text, size_t n) // n 0: up to its zero
{
    char path[256];
    n = n ? n : strlen(text);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

// A description with the given keys behind what all need.
static pb_err describe(pb_task **t, const char *keys)
{
    char text[4096];
    snprintf(text, sizeof text,
             "{\"doc\":\"d\",\"source\":\"s\",\"licence\":\"l\",\"version\":\"1\",%s}", keys);
    return pb_describe(t, text, strlen(text), "t", folder);
}

#define WRITE "\"kind\":\"generate\",\"metric\":\"exact_match\","
#define RANK  "\"kind\":\"rank\",\"metric\":\"accuracy\","

typedef struct got {
    pb_task *t;
    pb_dataset *d;
} got;

static pb_err try_load(got *g, const char *keys, const char *name, const char *rows, size_t n,
                       pb_task_args args)
{
    *g = (got){0};
    if (name)
        put(name, rows, n);
    pb_err err = describe(&g->t, keys);
    if (!err)
        err = pb_dataset_new(&g->d);
    if (!err)
        err = g->t->load(g->d, g->t, &args);
    return err;
}

static void release(got *g)
{
    pb_dataset_free(g->d);
    pb_describe_free(g->t);
}

static got load(const char *keys, const char *name, const char *rows)
{
    got g;
    if (try_load(&g, keys, name, rows, 0, (pb_task_args){0}))
        fail_msg("%s: %s", keys, pb_error_message());
    return g;
}

static const pb_example *at(const got *g, pb_split s, size_t i)
{
    const pb_example *e = pb_dataset_at(g->d, s, i);
    assert_non_null(e);
    return e;
}

// The same two rows in every format.
static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *name, *keys, *rows;
    } cases[] = {
        {"a.jsonl", "",
         "{\"q\":\" one, \\\"1\\\" \",\"a\":1}\n\n{\"q\":\"two\\n2\",\"a\":true}\r\n"},
        {"a.json", "", "[{\"q\":\"one, \\\"1\\\"\",\"a\":1},{\"q\":\"two\\n2\",\"a\":true}]"},
        {"a.json", "\"rows\":\"x.y\",",
         "{\"x\":[{\"q\":\"one, "
         "\\\"1\\\"\",\"y\":[{\"a\":1}]},{\"q\":\"no\",\"y\":[{\"q\":\"two\\n2\","
         "\"a\":true}]},{\"y\":[]}]}"},
        {"a.csv", "", "\xef\xbb\xbfq,a\r\n\"one, \"\"1\"\"\", 1 \r\n\r\n\"two\n2\",true"},
        {"a.csv", "\"columns\":[\"q\",\"a\"],", "\"one, \"\"1\"\"\",1\n\"two\n2\",true\n"},
        {"a.txt", "\"format\":\"csv\",", "a,q\n1,\"one, \"\"1\"\"\"\ntrue,\"two\n2\"\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char keys[512];
        snprintf(keys, sizeof keys,
                 WRITE "%s\"train\":\"%s\",\"prompt\":\"{{{q}}}\",\"response\":\"<{a}>\"",
                 cases[i].keys, cases[i].name);
        got g = load(keys, cases[i].name, cases[i].rows);
        assert_int_equal(pb_dataset_count(g.d, PB_TRAIN), 2);
        assert_string_equal(at(&g, PB_TRAIN, 0)->prompt, "{one, \"1\"}");
        assert_string_equal(at(&g, PB_TRAIN, 0)->response, "<1>");
        assert_string_equal(at(&g, PB_TRAIN, 1)->prompt, "{two\n2}");
        assert_string_equal(at(&g, PB_TRAIN, 1)->response, "<true>");
        release(&g);
    }
    got g = load(WRITE "\"test\":\"a.tsv\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.tsv",
                 "q\ta\n\"one\", 1\t2.5\r\n");
    assert_string_equal(at(&g, PB_TEST, 0)->prompt, "\"one\", 1");
    assert_string_equal(at(&g, PB_TEST, 0)->response, "2.5");
    release(&g);
}

// Lists of references, alternatives of prompts, parts taken out of a field, files by wildcard.
static void test_templates(void **state)
{
    (void)state;
    got g = load(WRITE "\"train\":\"a.jsonl\",\"skip\":[\"empty response\"],"
                       "\"prompt\":[\"{q} ({in})\",\"{q}\"],\"response\":\"{r.t}.\"",
                 "a.jsonl",
                 "{\"q\":\"a\",\"in\":\"x\",\"r\":[{\"t\":\"1\"},{\"t\":\"2\"},{\"t\":\"1\"}]}\n"
                 "{\"q\":\"b\",\"in\":\" \",\"r\":{\"t\":3}}\n{\"q\":\"c\",\"r\":[]}\n"
                 "{\"in\":\"no q\"}\n{\"q\":\"d\",\"r\":[{\"t\":null},{\"t\":\"4\"}]}\n");
    assert_int_equal(pb_dataset_count(g.d, PB_TRAIN), 3);
    assert_string_equal(at(&g, PB_TRAIN, 0)->prompt, "a (x)");
    assert_int_equal(at(&g, PB_TRAIN, 0)->n_references, 2);
    assert_string_equal(at(&g, PB_TRAIN, 0)->references[1], "2.");
    assert_string_equal(at(&g, PB_TRAIN, 1)->prompt, "b");
    assert_string_equal(at(&g, PB_TRAIN, 2)->response, "4.");
    assert_string_equal(pb_dataset_note_at(g.d, 0), "train: 2 rows left out: empty response");
    assert_null(pb_dataset_note_at(g.d, 1));
    release(&g);

    // Rows that a pattern names: left out, whatever else is wrong with them.
    g = load(WRITE "\"train\":\"a.csv\",\"prompt\":\"{q}\",\"response\":\"{a}\",\"leave_out\":"
                   "{\"field\":\"a\",\"pattern\":\"^$|bad\",\"why\":\"damaged\"}",
             "a.csv", "q,a\nx,\ny,ok\nz,a bad one\n");
    assert_int_equal(pb_dataset_count(g.d, PB_TRAIN), 1);
    assert_string_equal(at(&g, PB_TRAIN, 0)->prompt, "y");
    assert_string_equal(pb_dataset_note_at(g.d, 0), "train: 2 rows left out: damaged");
    release(&g);

    put("b2.csv", "q,x.y,l\nQ2: s or tt or u,4,C\n", 0);
    g = load(RANK
             "\"test\":\"b*.csv\",\"extract\":{\"field\":\"q\",\"pattern\":"
             "\"^(?<n>..): (?<a>.*?) or (?<b>.*?)(?: or (?<c>.*))?$\"},\"prompt\":\"{n}{x.y}:\","
             "\"candidates\":[\" {a}\",\" {b}\",\" {c}\"],\"label\":\"{l}\","
             "\"labels\":[\"A\",\"B\",\"C\"]",
             "b1.csv", "q,x.y,l\nQ1: p or q,3,B\n");
    assert_int_equal(pb_dataset_count(g.d, PB_TEST), 2);
    assert_string_equal(at(&g, PB_TEST, 0)->prompt, "Q13:");
    assert_int_equal(at(&g, PB_TEST, 0)->n_candidates, 2);
    assert_string_equal(at(&g, PB_TEST, 0)->response, " q");
    assert_string_equal(at(&g, PB_TEST, 1)->prompt, "Q24:");
    assert_string_equal(at(&g, PB_TEST, 1)->candidates[1], " tt");
    assert_int_equal(at(&g, PB_TEST, 1)->label, 2);
    release(&g);

    // The form of the ARC originals: candidates and labels from a list.
    g = load(RANK "\"test\":\"a.jsonl\",\"prompt\":\"{q.s}\",\"candidates\":[\" {q.c.t}\"],"
                  "\"labels\":[\"{q.c.l}\"],\"label\":\"{k}\"",
             "a.jsonl",
             "{\"q\":{\"s\":\"?\",\"c\":[{\"t\":\"x\",\"l\":\"1\"},{\"t\":\"y\",\"l\":\"2\"}]},"
             "\"k\":2}\n");
    assert_string_equal(at(&g, PB_TEST, 0)->response, " y");
    release(&g);
}

// Shares do not tear apart what belongs together; shared prompts, groups and limits.
static void test_splits(void **state)
{
    (void)state;
    enum { ROWS = 600 };
    static char rows[64 * ROWS];
    size_t n = 0, count[PB_N_SPLITS], total = 0;
    for (int i = 0; i < ROWS; i++)
        n += (size_t)sprintf(rows + n, "{\"k\":\"text %d\",\"q\":\"q%d\",\"a\":%d}\n", i / 3, i, i);
    static const char keys[] =
        WRITE "\"split_by\":\"{k}\",\"prompt\":\"{k} {q}\",\"response\":\"{a}\","
              "\"train\":{\"file\":\"a.jsonl\",\"share\":[0,0.8]},"
              "\"valid\":{\"file\":\"a.jsonl\",\"share\":[0.8,0.9]},"
              "\"test\":{\"file\":\"a.jsonl\",\"share\":[0.9,1],\"prompt\":\"{k}, {q}\"}";
    got g = load(keys, "a.jsonl", rows), some;
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        total += count[s] = pb_dataset_count(g.d, s);
        assert_int_equal(count[s] % 3, 0); // the three of a text stay together
    }
    assert_int_equal(total, ROWS);
    assert_in_range(count[PB_TRAIN], 430, 530);
    assert_in_range(count[PB_TEST], 30, 100);
    assert_non_null(strchr(at(&g, PB_TEST, 0)->prompt, ','));
    size_t head = 0;
    pb_task_args args = {.limit = {50, 0, 7}, .seed = 5};
    assert_int_equal(try_load(&some, keys, NULL, NULL, 0, args), PB_OK);
    assert_int_equal(pb_dataset_count(some.d, PB_TRAIN), 50);
    assert_int_equal(pb_dataset_count(some.d, PB_VALID), count[PB_VALID]);
    assert_int_equal(pb_dataset_count(some.d, PB_TEST), 7);
    for (size_t i = 0; i < 50; i++)
        head += !strcmp(at(&g, PB_TRAIN, i)->prompt, at(&some, PB_TRAIN, i)->prompt);
    assert_in_range(head, 0, 20); // a sample, not the beginning
    release(&some);
    release(&g);

    put("b1.csv", "q,a\nx,1\ny,2\nx,3\nz,4\n", 0);
    put("b2.csv", "q,a\ny,5\nw,6\ny,7\ny,5\nz,8\n", 0);
    g = load(WRITE "\"train\":\"a.csv\",\"valid\":\"b1.csv\",\"test\":\"b2.csv\",\"group\":true,"
                   "\"drop_shared\":true,\"prompt\":\"{q}\",\"response\":\"{a}\"",
             "a.csv", "q,a\nx,0\nv,1\nv,2\ny,3\n");
    assert_int_equal(pb_dataset_count(g.d, PB_TRAIN), 2); // both of v: rows of train stay apart
    assert_int_equal(pb_dataset_count(g.d, PB_VALID), 1);
    assert_int_equal(at(&g, PB_VALID, 0)->n_references, 2);
    assert_string_equal(at(&g, PB_VALID, 0)->references[1], "3");
    assert_int_equal(pb_dataset_count(g.d, PB_TEST), 3);
    assert_string_equal(at(&g, PB_TEST, 0)->prompt, "y");
    assert_int_equal(at(&g, PB_TEST, 0)->n_references, 2);
    assert_string_equal(pb_dataset_note_at(g.d, 0),
                        "train: 2 rows left out: their prompt is in valid or test");
    assert_string_equal(pb_dataset_note_at(g.d, 1),
                        "valid: 2 rows left out: their prompt is in test");
    assert_string_equal(pb_dataset_note_at(g.d, 2),
                        "valid: 1 rows are further references of another");
    assert_string_equal(pb_dataset_note_at(g.d, 3),
                        "test: 2 rows are further references of another");
    release(&g);
}

#define TWO "\"train\":\"a.csv\",\"prompt\":\"{q}\",\"response\":\"{a}\""
#define CHOOSE                                                                                     \
    "\"train\":\"a.csv\",\"prompt\":\"{q}\",\"candidates\":[\"{x}\",\"{y}\"],\"label\":\"{l}\""

static void test_rows_refused(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *name, *rows, *says, *hint;
        size_t n;
    } cases[] = {
        {WRITE TWO, "a.csv", "q,a\nx,1\n\"y\n2\",2\nz\n",
         "a.csv, line 5: 1 fields, but there are 2", "", 0},
        {WRITE TWO, "a.csv", "q,a\nx,1\n\"open,2\n\n", "a.csv, line 3: a quoted field is never",
         "cut", 0},
        {WRITE TWO, "a.csv", "q,a\nx\"y,1\n", "line 2: a quotation mark inside", "", 0},
        {WRITE TWO, "a.csv", "q,q\nx,1\n", "line 1: two columns are called \"q\"", "", 0},
        {WRITE TWO, "a.csv", "q,b\nx,1\n", "line 2: there is no field \"a\"", "q b", 0},
        {WRITE TWO, "a.csv", "q,a\nx, \n", "line 2: the field \"a\" of the response is empty",
         "skip", 0},
        {WRITE TWO, "a.csv", "q,a\n\xff,1\n", "line 2: a field is not UTF-8", "", 0},
        {WRITE TWO, "a.csv", "q,a\nx\0y,1\n", "line 2: a field is not UTF-8", "", 10},
        {WRITE TWO, NULL, NULL, "a.csv: No such file", "", 0},
        {WRITE "\"train\":\"c*.csv\",\"prompt\":\"{q}\",\"response\":\"{a}\"", NULL, NULL,
         "no file fits", "", 0},
        {WRITE "\"train\":\"a.txt\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.txt", "x",
         "the format \"txt\" is unknown", "jsonl", 0},
        {WRITE "\"train\":\"a.tsv\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.tsv",
         "q\ta\nx\t1\ny\t2\t3\n", "a.tsv, line 3: 3 fields", "", 0},
        {WRITE "\"train\":\"a.jsonl\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.jsonl",
         "{\"q\":1,\"a\":2}\n{\"q\":\n", "a.jsonl, line 2: JSON", "", 0},
        {WRITE "\"train\":\"a.jsonl\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.jsonl", "[1]\n",
         "line 1: the line is not a JSON object", "", 0},
        {WRITE "\"train\":\"a.jsonl\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.jsonl",
         "{\"q\":[1,2],\"a\":2}\n", "line 1: \"{q}\" is a list of 2", "", 0},
        {WRITE "\"train\":\"a.jsonl\",\"prompt\":\"p\",\"response\":\"{a}{b}\"", "a.jsonl",
         "{\"a\":[1,2],\"b\":[1,2,3]}\n", "line 1: \"b\" has 3 values, an earlier list has 2", "",
         0},
        {WRITE "\"train\":\"a.json\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "a.json",
         "{\"data\":[]}", "there is no array", "rows", 0},
        {WRITE "\"train\":\"a.json\",\"rows\":\"x.y\",\"prompt\":\"{q}\",\"response\":\"{a}\"",
         "a.json", "{\"x\":[{\"z\":1}]}", "there is no \"y\"", "rows", 0},
        {WRITE "\"train\":\"a.json\",\"rows\":\"x\",\"prompt\":\"{q}\",\"response\":\"{a}\"",
         "a.json", "{\"x\":[{\"q\":1,\"a\":2},{\"q\":1}]}",
         "a.json, row 2: there is no field \"a\"", "", 0},
        {RANK CHOOSE, "a.csv", "q,x,y,l\n?,a,b,0\n?,a,b,2\n",
         "a.csv, line 3: the label \"2\" is unknown", "labels are 0 1", 0},
        {RANK CHOOSE ",\"labels\":[\"no\",\"yes\"]", "a.csv", "q,x,y,l\n?,a,b,maybe\n",
         "line 2: the label \"maybe\" is unknown", "labels are \"no\" \"yes\"", 0},
        {RANK CHOOSE, "a.csv", "q,x,y,l\n?,a,a,0\n", "line 2: two candidates are equal", "skip", 0},
        {RANK CHOOSE, "a.csv", "q,x,y,l\n?,a,,0\n", "line 2: the field \"y\" is empty", "", 0},
        {RANK CHOOSE, "a.csv", "q,y,l\n?,a,0\n", "line 2: there is no field \"x\"", "", 0},
        {RANK CHOOSE, "a.csv", "q,x,y,l\n?,a,b,\n", "line 2: the label \"l\" is empty", "", 0},
        {WRITE TWO ",\"extract\":{\"field\":\"q\",\"pattern\":\"^(?<z>[0-9]+)$\"}", "a.csv",
         "q,a\n12,1\nx,2\n", "line 3: \"q\" is not in the form expected: \"x\"", "extract", 0},
        {WRITE TWO ",\"extract\":{\"field\":\"z\",\"pattern\":\"x\"}", "a.csv", "q,a\n12,1\n",
         "there is no field \"z\"", "q a", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        got g;
        remove_files();
        pb_err err = try_load(&g, cases[i].keys, cases[i].name, cases[i].rows, cases[i].n,
                              (pb_task_args){0});
        if ((err != PB_INPUT && err != PB_IO) || !strstr(pb_error_message(), cases[i].says) ||
            !strstr(pb_error_hint(), cases[i].hint))
            fail_msg("case %zu: %s: %s (%s)", i, pb_error_name(err), pb_error_message(),
                     pb_error_hint());
        release(&g);
    }
}

static void test_descriptions_refused(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *says;
    } cases[] = {
        {WRITE TWO ",\"promt\":\"x\"", "unknown key \"promt\""},
        {WRITE "\"prompt\":\"{q}\",\"response\":\"{a}\"", "no \"train\", \"valid\" or \"test\""},
        {WRITE "\"train\":\"a.csv\",\"response\":\"{a}\"", "\"prompt\" must be"},
        {WRITE "\"train\":\"a.csv\",\"prompt\":\"{q}\"", "\"response\" must be"},
        {WRITE "\"train\":\"a.csv\",\"prompt\":\"{q\",\"response\":\"{a}\"",
         "breaks off at \"{q\""},
        {WRITE "\"train\":\"a.csv\",\"prompt\":\"q}\",\"response\":\"{a}\"", "breaks off at \"}\""},
        {WRITE "\"train\":\"a.csv\",\"prompt\":\"{}\",\"response\":\"{a}\"",
         "breaks off at \"{}\""},
        {WRITE "\"train\":\"a.csv\",\"prompt\":[],\"response\":\"{a}\"", "\"prompt\" must be"},
        {WRITE "\"train\":\"a.csv\",\"prompt\":[1],\"response\":\"{a}\"", "not a text"},
        {WRITE "\"train\":\"\",\"prompt\":\"{q}\",\"response\":\"{a}\"", "\"file\" is empty"},
        {WRITE "\"train\":1,\"prompt\":\"{q}\",\"response\":\"{a}\"", "train: a file with keys"},
        {WRITE "\"train\":{\"file\":\"a.csv\",\"shar\":1},\"prompt\":\"q\",\"response\":\"a\"",
         "unknown key \"shar\""},
        {WRITE "\"train\":{\"file\":\"a.csv\",\"share\":[0.5,0.2]},\"prompt\":\"q\","
               "\"response\":\"a\"",
         "train: \"share\" must be two numbers"},
        {WRITE TWO ",\"extract\":{\"field\":\"q\",\"pattern\":\"(\"}", "a pattern, at character 1"},
        {WRITE TWO ",\"leave_out\":{\"field\":\"q\",\"pattern\":\"x\"}", "\"why\" is missing"},
        {WRITE TWO ",\"columns\":[1]", "\"columns\" must be"},
        {WRITE TWO ",\"skip\":[\"bad rows\"]", "\"skip\" knows"},
        {WRITE TWO ",\"label\":\"x\"", "belong to a task that ranks"},
        {WRITE TWO ",\"split_by\":1", "\"split_by\" must be a text"},
        {WRITE TWO ",\"max_new\":0", "\"max_new\" is 0"},
        {RANK TWO, "\"response\" belongs to a task that generates"},
        {RANK "\"train\":\"a.csv\",\"prompt\":\"{q}\",\"label\":\"{l}\"", "\"candidates\" must be"},
        {RANK "\"train\":\"a.csv\",\"prompt\":\"{q}\",\"candidates\":[\"a\",\"b\"]",
         "\"label\" is missing"},
        {RANK CHOOSE ",\"group\":true", "\"group\" is for"},
        {"\"kind\":\"sort\",\"metric\":\"bleu\"," CHOOSE, "the kind \"sort\" is unknown"},
        {"\"kind\":\"rank\"," CHOOSE, "\"metric\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_task *t;
        pb_err err = describe(&t, cases[i].keys);
        if ((err != PB_INPUT && err != PB_USAGE) || t || !strstr(pb_error_message(), cases[i].says))
            fail_msg("case %zu: %s: %s", i, pb_error_name(err), pb_error_message());
    }
}

// A description by its path, through the checks of every task.
static void test_path(void **state)
{
    (void)state;
    static const char text[] =
        "{\"doc\":\"d\",\"source\":\"s\",\"licence\":\"l\",\"version\":\"1\"," WRITE
        "\"train\":\"a.csv\",\"test\":\"a.csv\",\"prompt\":\"{q}\","
        "\"response\":\"{a}\"}";
    char path[256], odd[256];
    pb_dataset *d;
    const pb_task *t, *again;
    pb_task_args args = {.seed = 1};
    remove_files();
    snprintf(path, sizeof path, "%s/t.json", folder);
    snprintf(odd, sizeof odd, "%s/a b.json", folder);
    assert_int_equal(pb_task_open(&t, path), PB_IO);
    put("t.json", text, 0);
    put("a.csv", "q,a\nx,1\n", 0);
    assert_int_equal(pb_task_open(&t, path), PB_OK);
    assert_int_equal(pb_task_open(&again, path), PB_OK);
    assert_ptr_equal(t, again);
    assert_string_equal(t->name, "t");
    assert_true(pb_task_found(t, NULL));
    assert_int_equal(pb_task_load(&d, path, &args), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "example 0 of train is also example 0 of test"));
    assert_int_equal(pb_task_open(&t, odd), PB_INPUT);
    assert_int_equal(pb_task_open(&t, "/nowhere/sql.json"), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "a task \"sql\" already"));
}

// What comes with the suite is well formed, says where its data is from, and asks for it.
static void test_suite(void **state)
{
    (void)state;
    char *all[256];
    size_t n, described = 0;
    assert_int_equal(pb_task_names(all, 256, &n), PB_OK);
    assert_in_range(n, 20, 255);
    for (size_t i = 0; i < n; i++) {
        const pb_task *t;
        pb_dataset *d;
        if (pb_task_open(&t, all[i]))
            fail_msg("%s: %s", all[i], pb_error_message());
        assert_string_equal(t->name, all[i]);
        assert_true(i == 0 || strcmp(all[i - 1], all[i]) < 0);
        if (t->description) {
            described++;
            assert_non_null(t->content);
            assert_int_equal(strlen(t->content), 64);
            assert_non_null(strstr(t->source, "https://"));
            assert_true(t->needs_data && !pb_task_found(t, NULL) && !pb_task_found(t, folder));
            pb_task_args args = {.data = folder};
            assert_int_equal(pb_task_load(&d, all[i], &args), PB_INPUT);
            assert_non_null(strstr(pb_error_hint(), "https://"));
            args.data = NULL;
            assert_int_equal(pb_task_load(&d, all[i], &args), PB_USAGE);
        }
    }
    assert_int_equal(described, 16);
    for (size_t i = 0; i < n; i++)
        free(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_rows_refused),
        cmocka_unit_test(test_descriptions_refused),
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_suite),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
