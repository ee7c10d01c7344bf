// E2E NLG (Novikova, Dusek and Rieser 2017): a restaurant's slots -> a description.
//
// Reads train, dev and test from DIR/e2e or from DIR itself, under either naming:
//   train.tsv, dev.csv, test.csv                           lines mr<TAB>ref for train
//   trainset.csv, devset.csv, testset_w_refs.csv           as published
// CSV files are RFC 4180 with the header mr,ref. Each train row is an example; the dev and test
// rows of one meaning representation (MR) are one example with several references.
//
// Train and test are made to look alike:
// - MR slots are written in the order and spelling of the published files: "customerrating" becomes
//   "customer rating", a value's "£ 20 - 25" becomes "£20-25"; slots are joined by ", ". An unknown
//   or repeated slot is an error.
// - Train references of the .tsv file are tokenised; they are joined again: no space before
//   . , ; : ! ? ) and 's 't 're 'll 've 'm 'd, none after £ $ and (, none around a hyphen unless it
//   is a dash (next word a function word such as "a" or "it"), and free-standing quotes are
//   attached in turn to the next and the previous word.
// - White space in all references is reduced to single spaces.
// The splits share no MR in the published files; the check of every task reports one that does.
//
// A limit takes a fixed random sample (the files are sorted by MR), the same for every seed.
#include "tasks/task.h"

#include "core/file.h"
#include "tasks/common/rows.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *p;
    size_t n;
} span;

typedef struct row {
    const char *mr, *ref; // owned by the dataset
    size_t index;         // position in the file
} row;

typedef struct table {
    row *rows;
    size_t n, cap;
} table;

enum { MAX_MR = 512, MAX_REF = 4096, MAX_PATH = 4096 };

// The order of the published files; [1] is the spelling of the tokenised ones.
static const char *const slots[][2] = {
    {"name", "name"},
    {"eatType", "eattype"},
    {"food", "food"},
    {"priceRange", "pricerange"},
    {"customer rating", "customerrating"},
    {"area", "area"},
    {"familyFriendly", "familyfriendly"},
    {"near", "near"},
};
enum { N_SLOTS = sizeof slots / sizeof *slots };

static bool is(span s, const char *text)
{
    return s.n == strlen(text) && !memcmp(s.p, text, s.n);
}

static bool is_one_of(span s, const char *const *list)
{
    while (*list && !is(s, *list))
        list++;
    return *list;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static span trim(span s)
{
    while (s.n && is_space(*s.p))
        s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

// Takes the next word off the front of *rest; an empty span at the end.
static span next_word(span *rest)
{
    *rest = trim(*rest);
    span w = {rest->p, 0};
    while (w.n < rest->n && !is_space(rest->p[w.n]))
        w.n++;
    rest->p += w.n;
    rest->n -= w.n;
    return w;
}

// UTF-8 without control characters (white space apart) and without surrogates or over-long forms.
static bool is_text(span s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
    while (p < end) {
        unsigned c = *p++;
        if (c < 0x80) {
            if (c == 0x7f || (c < 0x20 && !is_space((char)c)))
                return false;
            continue;
        }
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - p < more)
            return false;
        unsigned code = c & (0x3fu >> more);
        for (int i = 0; i < more; i++, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            code = code << 6 | (*p & 0x3f);
        }
        static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
    }
    return true;
}

// Text under construction; what does not fit is noticed by the caller through `full`.
typedef struct buffer {
    char *p;
    size_t n, size;
    bool full;
} buffer;

static void put(buffer *b, const char *p, size_t n)
{
    if (n >= b->size - b->n) {
        b->full = true;
        return;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

static void put_text(buffer *b, const char *s)
{
    put(b, s, strlen(s));
}

static void put_words(buffer *b, span s)
{
    bool first = true;
    for (span w = next_word(&s); w.n; w = next_word(&s)) {
        if (!first)
            put_text(b, " ");
        put(b, w.p, w.n);
        first = false;
    }
}

// "more than £ 30" -> "more than £30", "£ 20 - 25" -> "£20-25"
static void put_value(buffer *b, span s)
{
    bool glue = true;
    for (span w = next_word(&s); w.n; w = next_word(&s)) {
        bool hyphen = is(w, "-");
        if (!glue && !hyphen)
            put_text(b, " ");
        put(b, w.p, w.n);
        glue = hyphen || is(w, "£");
    }
}

static void detokenise(buffer *b, span s)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ll", "'ve", "'m", "'d", NULL};
    static const char *const openers[] = {"£", "$", "(", NULL};
    // A hyphen in front of these is a dash between two parts of a sentence.
    static const char *const after_dash[] = {"a",  "an",  "the", "it",    "is",      "in",  "and",
                                             "of", "but", "you", "which", "located", "not", NULL};
    bool glue = true, open = false;
    for (span w = next_word(&s), next; w.n; w = next) {
        next = next_word(&s);
        bool glue_next = is_one_of(w, openers);
        if (is(w, "'") && (is(next, "s") || is(next, "t"))) {
            glue = glue_next = true;
        } else if (is(w, "'")) {
            glue = glue || open;
            glue_next = !open;
            open = !open;
        } else if (is(w, "-")) {
            bool dash = !next.n || is_one_of(next, after_dash);
            glue = glue || !dash;
            glue_next = !dash;
        } else if (is_one_of(w, endings) || strchr(".,;:!?)", *w.p)) {
            glue = true;
        } else if (w.n > 1 && *w.p == '\'') {
            open = true;
        }
        // "20- 25" and "20- £ 25"
        if (w.n > 1 && w.p[w.n - 1] == '-' && next.n &&
            (is(next, "£") || (*next.p >= '0' && *next.p <= '9')))
            glue_next = true;
        if (w.n > 1 && w.p[w.n - 1] == '\'')
            open = false;
        if (!glue)
            put_text(b, " ");
        put(b, w.p, w.n);
        glue = glue_next;
    }
}

// name[Blue Spice], area[riverside]: the slots in their order, spelled as published.
static pb_err normalise_mr(buffer *out, span mr)
{
    span value[N_SLOTS] = {{0}};
    for (span rest = trim(mr); rest.n;) {
        const char *open = memchr(rest.p, '[', rest.n);
        const char *close = open ? memchr(open, ']', rest.n - (size_t)(open - rest.p)) : NULL;
        if (!close)
            return pb_fail(PB_INPUT, "slots look like area[riverside]",
                           "\"%.*s\" is not a slot with a value in brackets", (int)rest.n, rest.p);
        span key = trim((span){rest.p, (size_t)(open - rest.p)});
        size_t i = 0;
        while (i < N_SLOTS && !is(key, slots[i][0]) && !is(key, slots[i][1]))
            i++;
        if (i == N_SLOTS)
            return pb_fail(PB_INPUT,
                           "known: name, eatType, food, priceRange, customer rating, "
                           "area, familyFriendly, near",
                           "unknown slot \"%.*s\"", (int)key.n, key.p);
        if (value[i].p)
            return pb_fail(PB_INPUT, NULL, "the slot %s occurs twice", slots[i][0]);
        value[i] = trim((span){open + 1, (size_t)(close - open - 1)});
        if (!value[i].n)
            return pb_fail(PB_INPUT, NULL, "the slot %s has no value", slots[i][0]);
        rest = trim((span){close + 1, rest.n - (size_t)(close + 1 - rest.p)});
        if (rest.n && *rest.p != ',')
            return pb_fail(PB_INPUT, "slots are separated by commas",
                           "\"%.*s\" follows the slot %s", (int)rest.n, rest.p, slots[i][0]);
        if (rest.n)
            rest = trim((span){rest.p + 1, rest.n - 1});
    }
    for (size_t i = 0; i < N_SLOTS; i++) {
        if (!value[i].p)
            continue;
        if (out->n)
            put_text(out, ", ");
        put_text(out, slots[i][0]);
        put_text(out, "[");
        put_value(out, value[i]);
        put_text(out, "]");
    }
    return out->n ? PB_OK : pb_fail(PB_INPUT, NULL, "the meaning representation is empty");
}

static pb_err add_row(table *t, pb_dataset *d, span mr, span ref, bool tokenised)
{
    char mr_text[MAX_MR] = "", ref_text[MAX_REF] = "";
    buffer m = {.p = mr_text, .size = sizeof mr_text};
    buffer f = {.p = ref_text, .size = sizeof ref_text};
    if (!is_text(mr) || !is_text(ref))
        return pb_fail(PB_INPUT, NULL, "the line is not UTF-8 text");
    PB_TRY(normalise_mr(&m, mr));
    if (tokenised)
        detokenise(&f, ref);
    else
        put_words(&f, ref);
    if (m.full || f.full)
        return pb_fail(PB_INPUT, NULL, "the line is too long (limits: mr %d, ref %d bytes)",
                       MAX_MR - 1, MAX_REF - 1);
    if (!f.n)
        return pb_fail(PB_INPUT, NULL, "the reference is empty");
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 4096;
        row *rows = realloc(t->rows, cap * sizeof *rows);
        if (!rows)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu rows", cap);
        t->rows = rows;
        t->cap = cap;
    }
    row r = {pb_dataset_text(d, "%s\n", mr_text), pb_dataset_text(d, "%s", ref_text), t->n};
    if (!r.mr || !r.ref)
        return pb_fail(PB_MEMORY, NULL, "no memory for row %zu", t->n);
    t->rows[t->n++] = r;
    return PB_OK;
}

static pb_err read_tsv(table *t, pb_dataset *d, span s, size_t *line)
{
    for (*line = 1; s.n; ++*line) {
        const char *end = memchr(s.p, '\n', s.n);
        span l = {s.p, end ? (size_t)(end - s.p) : s.n};
        size_t used = l.n + (end != NULL);
        s = (span){s.p + used, s.n - used};
        const char *tab = memchr(l.p, '\t', l.n);
        if (!tab)
            return pb_fail(PB_INPUT, NULL, "no tab between mr and ref");
        size_t at = (size_t)(tab - l.p);
        span ref = {tab + 1, l.n - at - 1};
        if (memchr(ref.p, '\t', ref.n))
            return pb_fail(PB_INPUT, NULL, "more than two columns");
        PB_TRY(add_row(t, d, (span){l.p, at}, ref, true));
    }
    return PB_OK;
}

static pb_err read_csv(table *t, pb_dataset *d, span s, size_t *line)
{
    pb_csv c;
    bool more = true;
    pb_err err = pb_csv_open(&c, s.p, s.n);
    for (bool header = true; !err && more; header = false) {
        err = pb_csv_next(&c, &more);
        *line = c.line;
        if (err || !more)
            break;
        if (c.n_fields < 2)
            PB_GO(pb_fail(PB_INPUT, "the columns are mr,ref", "only one column"));
        if (c.n_fields > 2)
            PB_GO(pb_fail(PB_INPUT, NULL, "more than two columns"));
        span mr = {c.field[0], c.len[0]}, ref = {c.field[1], c.len[1]};
        if (!header)
            PB_GO(add_row(t, d, mr, ref, false));
        else if (!is(trim(mr), "mr") || !is(trim(ref), "ref"))
            PB_GO(pb_fail(PB_INPUT, "the file with references is needed",
                          "the header is not mr,ref"));
    }
done:
    pb_csv_close(&c);
    return err;
}

static pb_err read_table(table *t, pb_dataset *d, const char *path)
{
    pb_file f;
    PB_TRY(pb_file_map(&f, path));
    span s = {(const char *)f.data, f.size};
    size_t n = strlen(path), line = 0;
    bool tsv = n > 4 && !strcmp(path + n - 4, ".tsv");
    pb_err err = tsv ? read_tsv(t, d, s, &line) : read_csv(t, d, s, &line);
    pb_file_unmap(&f);
    if (err)
        return pb_context(err, "%s, line %zu", path, line);
    return t->n ? PB_OK : pb_fail(PB_INPUT, NULL, "%s has no rows", path);
}

#define ORIGINALS "https://github.com/tuetschek/e2e-dataset"

static pb_err find_file(char path[MAX_PATH], const char *data, const char *const names[2])
{
    static const char *const folders[] = {"/e2e", ""};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 2; j++) {
            PB_TRY(pb_path(path, MAX_PATH, "%s%s/%s", data, folders[i], names[j]));
            if (pb_exists(path))
                return PB_OK;
        }
    return pb_fail(PB_INPUT, "the originals are published at " ORIGINALS,
                   "neither %s nor %s is in %s or %s/e2e", names[0], names[1], data, data);
}

// Examples are ranges of rows: one row each in train, the rows of one MR elsewhere.
typedef struct range {
    size_t first, n;
} range;

static int by_mr(const void *a, const void *b)
{
    const row *x = a, *y = b;
    int c = strcmp(x->mr, y->mr);
    return c ? c : (x->index > y->index) - (x->index < y->index);
}

static pb_err add_split(pb_dataset *d, pb_split split, const table *t, size_t limit)
{
    pb_err err = PB_OK;
    range *ranges = malloc(t->n * sizeof *ranges);
    size_t *order = malloc(t->n * sizeof *order);
    const char **refs = malloc(t->n * sizeof *refs);
    size_t n = 0;
    if (!ranges || !order || !refs)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu rows", t->n));
    for (size_t i = 0; i < t->n; i++) {
        refs[i] = t->rows[i].ref;
        if (split != PB_TRAIN && i && !strcmp(t->rows[i].mr, t->rows[i - 1].mr)) {
            ranges[n - 1].n++;
        } else {
            order[n] = n;
            ranges[n++] = (range){i, 1};
        }
    }
    if (limit && limit < n) {
        pb_rng r = pb_rng_make(0, PB_STREAM_TASK, split);
        pb_rng_shuffle(&r, order, n);
        n = limit;
    }
    for (size_t i = 0; i < n; i++) {
        range g = ranges[order[i]];
        pb_example e = {.prompt = t->rows[g.first].mr,
                        .response = refs[g.first],
                        .references = refs + g.first,
                        .n_references = g.n};
        PB_GO(pb_dataset_add(d, split, &e));
    }
done:
    free(ranges);
    free(order);
    free(refs);
    return err;
}

static pb_err load_split(pb_dataset *d, pb_split split, const char *data, size_t limit)
{
    static const char *const names[PB_N_SPLITS][2] = {{"train.tsv", "trainset.csv"},
                                                      {"dev.csv", "devset.csv"},
                                                      {"test.csv", "testset_w_refs.csv"}};
    char path[MAX_PATH];
    PB_TRY(find_file(path, data, names[split]));
    table t = {0};
    pb_err err = read_table(&t, d, path);
    if (!err && split != PB_TRAIN)
        qsort(t.rows, t.n, sizeof *t.rows, by_mr);
    if (!err)
        err = add_split(d, split, &t, limit);
    free(t.rows);
    return err;
}

static pb_err load(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        PB_TRY(load_split(d, s, args->data, args->limit[s] ? args->limit[s] : task->sizes[s]));
    return PB_OK;
}

PB_TASK(e2e) = {
    .name = "e2e",
    .doc = "E2E NLG: a restaurant's slots -> a description",
    .source = ORIGINALS,
    .licence = "CC BY-SA 4.0",
    .version = "1",
    .kind = PB_GENERATE,
    .metric = "bleu",
    .needs_data = true,
    .folder = "e2e",
    .max_new = 400,
    .load = load,
};
