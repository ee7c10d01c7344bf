// `pedrobench overlap`: how much of the evaluation data is in a training text.
#include "cli/common/common.h"
#include "cli/common/pretraining.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "tasks/common/overlap.h"
#include "tasks/common/plaintext.h"
#include "tasks/common/records.h"
#include "tasks/task.h"
#include "train/data.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 256, LEAST = 4 };

typedef struct list {
    const char *item[MAX_LIST];
    size_t n;
} list;

struct args {
    json_t *recipe; // what of it is given as options
    const char *file, *data;
    list tasks, evals;
    size_t seed[MAX_LIST], n_seeds, n, least, show, limit;
    double fail_above;
    bool header, json;
};

static const struct argp_option opts[] = {
    {NULL, 0, NULL, 0, "The training text, as for `pretrain`:", 1},
    {"text", 't', "FILE", 0, "Plain text; several may be given", 1},
    {"mark", 'k', "TEXT", 0, "What separates documents in them (default: a blank line)", 1},
    {"bytes", 'b', "N", 0, "Bytes of generated text (default 3M without --text, else 0)", 1},
    {"seed", 'S', "N", 0, "Its seed (default 1)", 1},
    {"recipe", 'r', "FILE", 0,
     "Take all these from a recipe; options given beside it come on top. Files that a model "
     "folder's recipe.json names must be those it was trained on, by their SHA-256",
     1},
    {NULL, 0, NULL, 0, "The evaluation data:", 2},
    {"task", 'T', "NAME", 0,
     "Validation and test examples of a task; several may be given (default: every task there is "
     "data for; \"none\" for no task)",
     2},
    {"task-seed", 's', "N", 0, "Seed of generated tasks; several are pooled (default 1)", 2},
    {"limit", 'L', "N", 0, "Examples per split (default: the task's own number)", 2},
    {"data", 'd', "DIR", 0, "Folder with the original files of data sets", 2},
    {"eval", 'e', "PATH", 0,
     "A file, or a folder of them, in which every line (.txt, .jsonl, .tsv), record (.csv) or "
     "object (.json) is an item; several may be given",
     2},
    {"header", 'H', 0, 0, "The first line of .csv and .tsv files names the columns", 2},
    {NULL, 0, NULL, 0, "The comparison:", 3},
    {"n", 'n', "N", 0, "Words of an n-gram (default 13; 8 finds looser overlap)", 3},
    {"least", 'm', "N", 0, "Words of the shortest text that is looked for whole (default 4)", 3},
    {"show", 'x', "K", 0, "Overlapping items to show of each set, longest first (default 2)", 3},
    {"fail-above", 'f', "SHARE", 0,
     "Exit with 1 when more than this share (0..1) of a set's n-grams, or of its short texts, is "
     "in the training text",
     3},
    {"json", 'j', 0, 0, "Print JSON", 3},
    {"quiet", 'q', 0, 0, "No progress", 3},
    {0}};

static void size_option(struct argp_state *state, const char *arg, const char *what, size_t *out)
{
    if (pb_parse_size(arg, what, out))
        pb_usage_error(state);
}

static void recipe_size(struct argp_state *state, const char *key, const char *arg)
{
    struct args *a = state->input;
    size_t v;
    size_option(state, arg, key, &v);
    json_object_set_new(a->recipe, key, json_integer((json_int_t)v));
}

static void push(struct argp_state *state, list *l, const char *arg)
{
    if (l->n == MAX_LIST)
        argp_error(state, "more than %d of one option", MAX_LIST);
    l->item[l->n++] = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 't':
        if (!json_object_get(a->recipe, "text"))
            json_object_set_new(a->recipe, "text", json_array());
        json_array_append_new(json_object_get(a->recipe, "text"), json_string(arg));
        break;
    case 'k':
        json_object_set_new(a->recipe, "mark", json_string(arg));
        break;
    case 'b':
        recipe_size(state, "bytes", arg);
        break;
    case 'S':
        recipe_size(state, "seed", arg);
        break;
    case 'r':
        a->file = arg;
        break;
    case 'T':
        push(state, &a->tasks, arg);
        break;
    case 's':
        if (a->n_seeds == MAX_LIST)
            argp_error(state, "more than %d task seeds", MAX_LIST);
        size_option(state, arg, "--task-seed", &a->seed[a->n_seeds++]);
        break;
    case 'L':
        size_option(state, arg, "--limit", &a->limit);
        break;
    case 'd':
        a->data = arg;
        break;
    case 'e':
        push(state, &a->evals, arg);
        break;
    case 'H':
        a->header = true;
        break;
    case 'n':
        size_option(state, arg, "--n", &a->n);
        break;
    case 'm':
        size_option(state, arg, "--least", &a->least);
        if (!a->least)
            argp_error(state, "--least 0 is no text");
        break;
    case 'x':
        size_option(state, arg, "--show", &a->show);
        break;
    case 'f':
        if (pb_parse_real(arg, "--fail-above", 0, 1, &a->fail_above))
            pb_usage_error(state);
        break;
    case 'j':
        a->json = true;
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    NULL,
    "Looks for evaluation data in a training text, by n-grams of words: in lower case, without "
    "punctuation. Texts too short for one n-gram are looked for whole.\v"
    "Examples:\n"
    "  pedrobench overlap --bytes 3M\n"
    "  pedrobench overlap --recipe backbone/recipe.json --fail-above 0\n"
    "  pedrobench overlap --text a.txt --mark '<|endoftext|>' --n 8 --task e2e --data DATA\n"
    "  pedrobench overlap --text a.txt --task none --eval DATA/gsm8k/test.jsonl --eval DATA/bbh",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- evaluation data

static pb_err add_text(void *self, const char *text, size_t len)
{
    return pb_overlap_text(self, text, len);
}

static pb_err add_item(void *self)
{
    return pb_overlap_item(self);
}

static pb_err add_string(pb_overlap *o, const char *s)
{
    return pb_overlap_text(o, s, strlen(s));
}

// The prompt with its response, as the model is tested on it, and every part alone: a reference in
// the training text would be as bad. Candidates are shared by all examples and say nothing.
static pb_err add_example(pb_overlap *o, const pb_example *e)
{
    char *both;
    if (asprintf(&both, "%s%s", e->prompt, e->response) < 0)
        return pb_fail(PB_MEMORY, NULL, "no memory for an example");
    pb_err err = pb_overlap_item(o);
    if (!err)
        err = add_string(o, both);
    free(both);
    PB_TRY(err);
    PB_TRY(add_string(o, e->prompt));
    for (size_t i = 0; i < e->n_references; i++)
        PB_TRY(add_string(o, e->references[i]));
    return PB_OK;
}

static pb_err add_task(pb_overlap *o, const struct args *a, const char *name)
{
    static const char *const split_name[] = {[PB_VALID] = "valid", [PB_TEST] = "test"};
    const pb_task *task = pb_task_find(name);
    for (pb_split s = PB_VALID; s <= PB_TEST; s++) {
        char label[128];
        PB_TRY(pb_path(label, sizeof label, "%s %s", name, split_name[s]));
        PB_TRY(pb_overlap_set(o, label));
        // The files of a task that reads some are the same for every seed.
        for (size_t k = 0; k < (task && task->needs_data ? 1 : a->n_seeds); k++) {
            pb_dataset *d;
            pb_task_args args = {
                .data = a->data,
                .seed = a->seed[k],
                .limit = {[PB_TRAIN] = 1, [PB_VALID] = a->limit, [PB_TEST] = a->limit}};
            PB_TRY(pb_task_load(&d, name, &args));
            pb_err err = PB_OK;
            for (size_t i = 0; i < pb_dataset_count(d, s) && !err; i++)
                err = add_example(o, pb_dataset_at(d, s, i));
            pb_dataset_free(d);
            PB_TRY(err);
        }
    }
    return PB_OK;
}

static int is_data(const struct dirent *e)
{
    return pb_records_known(e->d_name);
}

// A name that says where a file is without saying on whose machine: its last two parts.
static const char *short_name(const char *path)
{
    const char *s = path + strlen(path);
    for (int parts = 0; s > path; s--)
        if (s[-1] == '/' && *s && ++parts == 2)
            break;
    return s;
}

static pb_err add_path(pb_overlap *o, const struct args *a, const char *path)
{
    pb_records_to to = {o, add_item, add_text};
    PB_TRY(pb_overlap_set(o, short_name(path)));
    if (!pb_is_dir(path))
        return pb_records_read(path, a->header, &to);
    struct dirent **names;
    int n = scandir(path, &names, is_data, alphasort);
    if (n < 0)
        return pb_fail(PB_IO, NULL, "cannot list %s: %m", path);
    pb_err err = n ? PB_OK
                   : pb_fail(PB_INPUT, "known are .txt, .json, .jsonl, .csv and .tsv",
                             "the folder %s has no evaluation data", path);
    for (int i = 0; i < n; i++) {
        char file[4096];
        if (!err)
            err = pb_path(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (!err)
            err = pb_records_read(file, a->header, &to);
        free(names[i]);
    }
    free(names);
    return err;
}

static pb_err add_evaluation(pb_overlap *o, const struct args *a)
{
    if (!a->tasks.n)
        for (size_t i = 0; pb_task_at(i); i++)
            if (!pb_task_at(i)->needs_data || a->data)
                PB_TRY(add_task(o, a, pb_task_at(i)->name));
    for (size_t i = 0; i < a->tasks.n; i++)
        if (strcmp(a->tasks.item[i], "none"))
            PB_TRY(add_task(o, a, a->tasks.item[i]));
    for (size_t i = 0; i < a->evals.n; i++)
        PB_TRY(add_path(o, a, a->evals.item[i]));
    return pb_overlap_sets(o) ? PB_OK
                              : pb_fail(PB_USAGE, "give --task or --eval",
                                        "there is no evaluation data to look for");
}

// ---------------------------------------------------------------- training text

typedef struct source {
    const char *name, *text, *mark;
    size_t size;
    char sha256[PB_HASH_LEN];
} source;

static pb_err scan(pb_overlap *o, const source *s, json_t *sources)
{
    pb_progress bar;
    char label[96];
    const char *document;
    pb_err err = PB_OK;
    size_t documents = 0, before = pb_overlap_scanned(o);
    snprintf(label, sizeof label, "reading %.70s", s->name);
    pb_progress_begin(&bar, label, 0, (int64_t)s->size);
    for (size_t i = 0, len; pb_next_document(s->text, s->size, s->mark, &i, &document, &len);) {
        pb_overlap_scan(o, document, len);
        documents++;
        pb_progress_update(&bar, (int64_t)i, NULL);
        if (pb_interrupted()) {
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted while reading %s", s->name);
            break;
        }
    }
    pb_progress_end(&bar, NULL);
    json_array_append_new(sources, json_pack("{s:s, s:I, s:s, s:I, s:I}", "name", s->name, "bytes",
                                             (json_int_t)s->size, "sha256", s->sha256, "documents",
                                             (json_int_t)documents, "words",
                                             (json_int_t)(pb_overlap_scanned(o) - before)));
    return err;
}

// The result of a recipe says what it was trained on: other files would prove nothing.
static pb_err check_source(const source *s, const json_t *trained_on)
{
    size_t i;
    json_t *one;
    const char *name, *sha;
    json_array_foreach(trained_on, i, one)
    {
        PB_TRY(pb_json_str(one, "name", &name));
        PB_TRY(pb_json_str(one, "sha256", &sha));
        if (!strcmp(name, s->name) && !strcmp(sha, s->sha256))
            return PB_OK;
    }
    return pb_fail(PB_INPUT, "give the right files with --text",
                   "the recipe's model was trained on another text: %s has the SHA-256 %.16s...",
                   s->name, s->sha256);
}

static pb_err read_source(pb_overlap *o, source *s, const json_t *trained_on, json_t *sources)
{
    pb_sha256(s->sha256, s->text, s->size);
    if (trained_on)
        PB_TRY(check_source(s, trained_on));
    return scan(o, s, sources);
}

static pb_err read_training(pb_overlap *o, const struct args *a, json_t *sources)
{
    pb_err err = PB_OK;
    json_t *given = NULL, *j = pb_pretraining_defaults();
    char *made = NULL;
    pb_file f = {0};
    const json_t *trained_on = NULL, *text;
    const char *mark;
    int64_t bytes, seed;
    if (a->file) {
        PB_GO(pb_json_load(&given, a->file));
        json_object_update_existing(j, given);
        trained_on = json_object_get(json_object_get(given, "result"), "sources");
        if (trained_on && !json_is_array(trained_on))
            PB_GO(pb_fail(PB_INPUT, NULL, "%s: \"sources\" must be a list", a->file));
    }
    json_object_update(j, a->recipe);
    text = json_object_get(j, "text");
    if (!json_is_array(text))
        PB_GO(pb_fail(PB_INPUT, NULL, "\"text\" must be a list of files"));
    if (json_is_null(json_object_get(j, "bytes")))
        json_object_set_new(j, "bytes", json_integer(json_array_size(text) ? 0 : 3000000));
    PB_GO(pb_json_str(j, "mark", &mark));
    PB_GO(pb_json_int(j, "bytes", &bytes, 0, (int64_t)1 << 32));
    PB_GO(pb_json_int(j, "seed", &seed, 1, INT64_MAX));
    if (!*mark)
        PB_GO(pb_fail(PB_INPUT, "e.g. a blank line", "\"mark\" between documents is empty"));
    for (size_t i = 0; i < json_array_size(text); i++) {
        const char *path = json_string_value(json_array_get(text, i));
        if (!path)
            PB_GO(pb_fail(PB_INPUT, NULL, "\"text\" must be a list of files"));
        PB_GO(pb_file_map(&f, path));
        const char *slash = strrchr(path, '/');
        source s = {.name = slash ? slash + 1 : path,
                    .text = (const char *)f.data,
                    .mark = mark,
                    .size = f.size};
        PB_GO(read_source(o, &s, trained_on, sources));
        pb_file_unmap(&f);
        f = (pb_file){0};
    }
    if (bytes) {
        PB_GO(pb_plaintext((uint64_t)seed, (size_t)bytes, &made));
        source s = {.name = "generated", .text = made, .mark = "\n\n", .size = strlen(made)};
        PB_GO(read_source(o, &s, trained_on, sources));
    }
    if (!pb_overlap_scanned(o))
        err = pb_fail(PB_INPUT, "give --text, --bytes or --recipe", "the training text is empty");
done:
    pb_file_unmap(&f);
    free(made);
    json_decref(given);
    json_decref(j);
    return err;
}

// ---------------------------------------------------------------- the report

static double share(const pb_overlap_count *c)
{
    return c->distinct ? (double)c->found / (double)c->distinct : 0;
}

static json_t *count_json(const pb_overlap_count *c)
{
    return json_pack("{s:I, s:I, s:I, s:f, s:I}", "texts", (json_int_t)c->texts, "distinct",
                     (json_int_t)c->distinct, "found", (json_int_t)c->found, "share", share(c),
                     "items_with", (json_int_t)c->items_with);
}

static json_t *result_json(const pb_overlap_result *r)
{
    json_t *examples = json_array();
    for (size_t i = 0; i < r->n_examples; i++) {
        const pb_overlap_example *x = &r->example[i];
        json_t *words = json_string(x->words); // NULL when a file was not UTF-8
        json_array_append_new(examples,
                              json_pack("{s:I, s:I, s:I, s:o}", "item", (json_int_t)x->item + 1,
                                        "words", (json_int_t)x->n_words, "times",
                                        (json_int_t)x->times, "text", words ? words : json_null()));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "name", r->name, "items",
                     (json_int_t)r->items, "short_items", (json_int_t)r->short_items,
                     "texts_too_short", (json_int_t)r->too_short, "ngrams", count_json(&r->grams),
                     "whole_texts", count_json(&r->wholes), "examples", examples);
}

static void print_share(const pb_overlap_count *c)
{
    char text[16] = "-";
    if (c->distinct && !c->found)
        strcpy(text, "0");
    else if (c->distinct)
        snprintf(text, sizeof text, "%.3g%%", 100 * share(c));
    printf(" %9zu %8zu %8s %6zu", c->distinct, c->found, text, c->items_with);
}

static void print_head(const struct args *a, const json_t *sources, int width)
{
    size_t i;
    json_t *s;
    char grams[48], wholes[80];
    json_array_foreach(sources, i, s)
        printf("training text: %s, %lld bytes, %lld documents, %lld words, SHA-256 %.16s\n",
               json_string_value(json_object_get(s, "name")),
               (long long)json_integer_value(json_object_get(s, "bytes")),
               (long long)json_integer_value(json_object_get(s, "documents")),
               (long long)json_integer_value(json_object_get(s, "words")),
               json_string_value(json_object_get(s, "sha256")));
    snprintf(grams, sizeof grams, "%zu-grams of words", a->n);
    if (a->least < a->n)
        snprintf(wholes, sizeof wholes, "texts of %zu-%zu words, whole", a->least, a->n - 1);
    else
        strcpy(wholes, "no texts, whole");
    printf("\n%-*s %7s  | %-33s  | %-33s\n", width, "", "", grams, wholes);
    printf("%-*s %7s  |%10s %8s %8s %6s  |%10s %8s %8s %6s %10s\n", width, "evaluation data",
           "items", "distinct", "found", "share", "items", "distinct", "found", "share", "items",
           "too short");
}

// So much of an example as fits beside the others; --json has all of it.
static int shown(const char *s)
{
    enum { MOST = 200 };
    int n = (int)strnlen(s, MOST);
    if (s[n])
        while (n && (s[n] & 0xc0) == 0x80) // no cut inside a character
            n--;
    return n;
}

static void print_result(const pb_overlap_result *r, int width)
{
    printf("%-*s %7zu  |", width, r->name, r->items);
    print_share(&r->grams);
    printf("  |");
    print_share(&r->wholes);
    printf(" %10zu\n", r->too_short);
    for (size_t i = 0; i < r->n_examples; i++) {
        const pb_overlap_example *x = &r->example[i];
        int n = shown(x->words);
        printf("  item %zu, %zu words, %zu time%s: \"%.*s%s\"\n", x->item + 1, x->n_words, x->times,
               x->times == 1 ? "" : "s", n, x->words, x->words[n] ? "..." : "");
    }
}

static pb_err report(const pb_overlap *o, const struct args *a, json_t *sources)
{
    pb_err err = PB_OK;
    pb_overlap_result r = {0};
    json_t *all = json_array();
    size_t sets = pb_overlap_sets(o), too_much = 0;
    char worst[160] = "";
    int width = 15;
    for (size_t i = 0; i < sets; i++) {
        PB_GO(pb_overlap_result_of(o, i, 0, &r));
        int n = (int)strlen(r.name);
        width = n > width ? n : width;
        pb_overlap_result_free(&r);
    }
    if (!a->json)
        print_head(a, sources, width);
    for (size_t i = 0; i < sets; i++) {
        PB_GO(pb_overlap_result_of(o, i, a->show, &r));
        if (a->json)
            json_array_append_new(all, result_json(&r));
        else
            print_result(&r, width);
        double most = share(&r.grams) > share(&r.wholes) ? share(&r.grams) : share(&r.wholes);
        if (most > a->fail_above && !too_much++)
            snprintf(worst, sizeof worst, "%.3g%% of %.100s", 100 * most, r.name);
        pb_overlap_result_free(&r);
    }
    if (a->json) {
        json_t *j = json_pack("{s:I, s:I, s:O, s:O}", "n", (json_int_t)a->n, "least",
                              (json_int_t)a->least, "training", sources, "evaluation", all);
        json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(j);
    }
    if (too_much)
        err = pb_fail(PB_INPUT, "--show K shows them",
                      "%zu of %zu sets overlap too much; the first: %s is in the training text, "
                      "allowed are %g%%",
                      too_much, sets, worst, 100 * a->fail_above);
done:
    pb_overlap_result_free(&r);
    json_decref(all);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.recipe = json_object(), .n = 13, .show = 2, .fail_above = 1};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    if (!a.n_seeds)
        a.seed[a.n_seeds++] = 1;
    if (!a.least)
        a.least = a.n && a.n < LEAST ? a.n : LEAST;
    pb_err err = PB_OK;
    pb_overlap *o = NULL;
    json_t *sources = json_array();
    PB_GO(pb_overlap_new(&o, a.n, a.least));
    PB_GO(add_evaluation(o, &a));
    PB_GO(pb_overlap_ready(o));
    PB_GO(read_training(o, &a, sources));
    err = report(o, &a, sources);
done:
    pb_overlap_free(o);
    json_decref(sources);
    json_decref(a.recipe);
    return err;
}

PB_COMMAND(overlap) = {"overlap", "look for evaluation data in a training text", 42, run};
