// N-gram overlap: against counting with strings, on random texts written in every possible way and
// with planted stretches; what a word is; examples; and the items of files.
#include "tasks/common/overlap.h"
#include "tasks/common/records.h"

#include "core/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define OK(expr)                                                                                   \
    do {                                                                                           \
        if (expr)                                                                                  \
            fail_msg("%s: %s", #expr, pb_error_message());                                         \
    } while (0)

// ---------------------------------------------------------------- against strings

enum { WORDS = 9, SPELLINGS = 3, MAX_WORDS = 30, N_DOCS = 40, N_ITEMS = 60 };

// Composed and decomposed, a ligature, a soft hyphen, other scripts.
static const char *const spelling[WORDS][SPELLINGS] = {
    {"the", "The", "THE"},
    {"caf\u00e9", "CAF\u00c9", "cafe\u0301"},
    {"\ufb01ne", "fine", "F\u00adINE"},
    {"stra\u00dfe", "STRASSE", "Strasse"},
    {"42", "42", "\u0664\u0662"}, // the last one is another word, see number_of
    {"\u03c3\u03b1\u03c2", "\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c3"},
    {"\u043b\u0435\u0441", "\u041b\u0435\u0441", "\u041b\u0415\u0421"},
    {"s", "S", "s"},
    {"x1", "X1", "x1"},
};
static const char *const gaps[] = {" ",   "  ", "\n",       ", ",     "--",       "\t",
                                   "\"(", "'",  "\u2019",   "\u00a0", " \u2014 ", ". ",
                                   "_",   "/",  "\u200b. ", "\xff",   "\xc3 ",    " \xe2\x82 "};

// Words of a text as letters, for strstr: a word is one byte.
typedef struct phrase {
    char w[MAX_WORDS + 1];
    char text[MAX_WORDS * 24];
} phrase;

static void say(phrase *p, pb_rng *r, size_t n)
{
    size_t at = 0;
    *p = (phrase){.w = ""};
    for (size_t i = 0; i < n; i++) {
        size_t w = pb_rng_below(r, WORDS), s = pb_rng_below(r, SPELLINGS);
        // Arabic digits are not decomposed into European ones.
        p->w[i] = (char)('a' + w + (w == 4 && s == 2 ? WORDS : 0));
        at += (size_t)sprintf(p->text + at, "%s%s", gaps[pb_rng_below(r, sizeof gaps / 8)],
                              spelling[w][s]);
    }
}

static bool in_training(const phrase *doc, const char *w, size_t n)
{
    char needle[MAX_WORDS + 1];
    memcpy(needle, w, n);
    needle[n] = 0;
    for (size_t i = 0; i < N_DOCS; i++)
        if (strstr(doc[i].w, needle))
            return true;
    return false;
}

// Counts a kind of texts of a set the slow way.
static pb_overlap_count naive(const phrase *doc, phrase (*item)[2], size_t n_items, size_t n,
                              size_t least, bool whole)
{
    static char seen[N_ITEMS * 2 * MAX_WORDS][MAX_WORDS + 1];
    size_t n_seen = 0;
    pb_overlap_count c = {0};
    for (size_t i = 0; i < n_items; i++) {
        bool with = false;
        for (size_t t = 0; t < 2; t++) {
            size_t len = strlen(item[i][t].w), size = whole ? len : n;
            if (whole ? len < least || len >= n : len < n)
                continue;
            c.texts++;
            for (size_t k = 0; k + size <= len; k++) {
                bool new = true, found = in_training(doc, item[i][t].w + k, size);
                char gram[MAX_WORDS + 1] = "";
                memcpy(gram, item[i][t].w + k, size);
                for (size_t s = 0; s < n_seen && new; s++)
                    new = strcmp(seen[s], gram);
                if (new) {
                    strcpy(seen[n_seen++], gram);
                    c.distinct++;
                    c.found += found;
                }
                with = with || found;
            }
        }
        c.items_with += with;
    }
    return c;
}

static void same_count(const pb_overlap_count *got, const pb_overlap_count *want)
{
    assert_int_equal(got->texts, want->texts);
    assert_int_equal(got->distinct, want->distinct);
    assert_int_equal(got->found, want->found);
    assert_int_equal(got->items_with, want->items_with);
}

static void test_naive(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{1, 1}, {2, 1}, {3, 3}, {4, 2}, {13, 4}};
    static phrase doc[N_DOCS], item[3][N_ITEMS][2];
    pb_rng r = pb_rng_make(7, PB_STREAM_TEST, 0);
    size_t some[2] = {0, 0}, not_all[2] = {0, 0};
    for (size_t i = 0; i < N_DOCS; i++)
        say(&doc[i], &r, pb_rng_below(&r, MAX_WORDS + 1));
    for (size_t s = 0; s < 3; s++)
        for (size_t i = 0; i < N_ITEMS; i++)
            for (size_t t = 0; t < 2; t++) {
                say(&item[s][i][t], &r, pb_rng_below(&r, MAX_WORDS + 1));
                if (pb_rng_below(&r, 4) == 0) // planted; the last set shares with the first, too
                    item[s][i][t] = s == 2 ? item[0][i][t] : doc[pb_rng_below(&r, N_DOCS)];
                else if (pb_rng_below(&r, 3) == 0)
                    say(&item[s][i][t], &r, pb_rng_below(&r, 4));
            }
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = sizes[k][0], least = sizes[k][1];
        pb_overlap *o;
        OK(pb_overlap_new(&o, n, least));
        for (size_t s = 0; s < 3; s++) {
            OK(pb_overlap_set(o, s ? "b" : "a"));
            for (size_t i = 0; i < N_ITEMS; i++) {
                OK(pb_overlap_item(o));
                for (size_t t = 0; t < 2; t++)
                    OK(pb_overlap_text(o, item[s][i][t].text, strlen(item[s][i][t].text)));
            }
        }
        OK(pb_overlap_ready(o));
        size_t words = 0;
        for (size_t i = 0; i < N_DOCS; i++) {
            pb_overlap_scan(o, doc[i].text, strlen(doc[i].text));
            words += strlen(doc[i].w);
        }
        assert_int_equal(pb_overlap_scanned(o), words);
        assert_int_equal(pb_overlap_sets(o), 3);
        for (size_t s = 0; s < 3; s++) {
            pb_overlap_result got;
            OK(pb_overlap_result_of(o, s, 5, &got));
            assert_string_equal(got.name, s ? "b" : "a");
            assert_int_equal(got.items, N_ITEMS);
            pb_overlap_count grams = naive(doc, item[s], N_ITEMS, n, least, false);
            pb_overlap_count wholes = naive(doc, item[s], N_ITEMS, n, least, true);
            same_count(&got.grams, &grams);
            same_count(&got.wholes, &wholes);
            some[0] += grams.found;
            some[1] += wholes.found;
            not_all[0] += grams.found < grams.distinct;
            not_all[1] += wholes.found < wholes.distinct;
            size_t shorts = 0, tiny = 0;
            for (size_t i = 0; i < N_ITEMS; i++) {
                size_t a = strlen(item[s][i][0].w), b = strlen(item[s][i][1].w);
                shorts += a < n && b < n;
                tiny += (a < least) + (b < least);
            }
            assert_int_equal(got.short_items, shorts);
            assert_int_equal(got.too_short, tiny);
            pb_overlap_result_free(&got);
        }
        pb_overlap_free(o);
    }
    assert_true(some[0] > 100 && some[1] > 50 && not_all[0] && not_all[1]);
}

// ---------------------------------------------------------------- words and examples

static pb_overlap_result compare(const char *train, const char *eval, size_t n, size_t least)
{
    pb_overlap *o;
    pb_overlap_result r;
    OK(pb_overlap_new(&o, n, least));
    OK(pb_overlap_set(o, "set"));
    OK(pb_overlap_item(o));
    OK(pb_overlap_text(o, eval, strlen(eval)));
    OK(pb_overlap_ready(o));
    pb_overlap_scan(o, train, strlen(train));
    OK(pb_overlap_result_of(o, 0, 3, &r));
    r.name = NULL;
    pb_overlap_free(o);
    return r;
}

static bool found(const char *train, const char *eval)
{
    pb_overlap_result r = compare(train, eval, 13, 1);
    bool yes = r.wholes.found == 1 && r.wholes.texts == 1;
    pb_overlap_result_free(&r);
    return yes;
}

static void test_words(void **state)
{
    (void)state;
    assert_true(found("So it\u2019s over.", "IT'S OVER"));
    assert_true(found("so it 's over", "it's over"));
    assert_true(found("a well-known\nman", "Well known (man)"));
    assert_true(found("\ufeffcaf\u00e9 noir", "CAFE\u0301 noir"));
    assert_true(found("\uff28\uff29 x\u00b2", "hi X2"));
    assert_true(found("2,500 men", "2 500 Men"));
    assert_true(found("x \u6771\u4eac y", "\u6771\u4eac"));
    assert_false(found("cafes", "cafe"));
    assert_false(found("cafe", "cafes"));
    assert_false(found("caf\u00e9", "cafe"));
    assert_false(found("one three two", "one two three"));
    assert_false(found("onetwo", "one two"));
    assert_false(found("one", "one one"));
    assert_true(found("a\xff"
                      "b",
                      "a b"));
    assert_false(found("... !", "?"));
    assert_false(found("", "word"));
}

static void test_planted(void **state)
{
    (void)state;
    static const char text[] =
        "It was -- as I said -- the best\nof times; it was the worst of times "
        "(or not), sir.";
    static const char other[] = "Well. IT WAS AS I SAID THE BEST OF TIMES IT WAS THE WORST in "
                                "days \u2018or not\u2019 Sir";
    pb_overlap_result r = compare(text, other, 13, 4);
    assert_int_equal(r.grams.distinct, 19 - 13 + 1);
    assert_int_equal(r.grams.found, 1);
    assert_int_equal(r.n_examples, 1);
    assert_int_equal(r.example[0].n_words, 13);
    assert_int_equal(r.example[0].times, 1);
    assert_string_equal(r.example[0].words, "IT WAS AS I SAID THE BEST OF TIMES IT WAS THE WORST");
    pb_overlap_result_free(&r);
}

// Longest first, one per item, the rarest n-gram's count, documents apart.
static void test_examples(void **state)
{
    (void)state;
    static const char *const items[] = {"a b c d", "c d e f",     "q a b c d e f q b c d e f",
                                        "z z z",   "b c d\te, f", "a b c d e f g"};
    enum { N = sizeof items / sizeof *items };
    static const char *const docs[] = {"a b c d e f", "b c d", "g", "f g", "c d e f", "d e"};
    pb_overlap *o;
    pb_overlap_result r;
    OK(pb_overlap_new(&o, 3, 3));
    OK(pb_overlap_set(o, "set"));
    for (size_t i = 0; i < N; i++) {
        OK(pb_overlap_item(o));
        OK(pb_overlap_text(o, items[i], strlen(items[i])));
    }
    OK(pb_overlap_ready(o));
    for (size_t i = 0; i < 6; i++)
        pb_overlap_scan(o, docs[i], strlen(docs[i]));
    OK(pb_overlap_result_of(o, 0, 2, &r));
    assert_int_equal(r.n_examples, 2);
    assert_int_equal(r.example[0].item, 2); // item 5 has the same stretch
    assert_string_equal(r.example[0].words, "a b c d e f");
    assert_int_equal(r.example[0].n_words, 6);
    assert_int_equal(r.example[0].times, 1);
    assert_int_equal(r.example[1].item, 4);
    assert_string_equal(r.example[1].words, "b c d e, f");
    assert_int_equal(r.example[1].times, 2);
    assert_int_equal(r.grams.items_with, 5);
    pb_overlap_result_free(&r);
    OK(pb_overlap_result_of(o, 0, 0, &r));
    assert_int_equal(r.n_examples, 0);
    pb_overlap_result_free(&r);
    pb_overlap_free(o);
}

// A whole text at a document's beginning, where longer ones cannot be.
static void test_times(void **state)
{
    (void)state;
    static const char *const items[] = {"a b", "a b c d", "x y z"};
    pb_overlap *o;
    pb_overlap_result r;
    OK(pb_overlap_new(&o, 5, 1));
    OK(pb_overlap_set(o, "set"));
    for (size_t i = 0; i < 3; i++) {
        OK(pb_overlap_item(o));
        OK(pb_overlap_text(o, items[i], strlen(items[i])));
    }
    OK(pb_overlap_ready(o));
    pb_overlap_scan(o, "a b", 3);
    pb_overlap_scan(o, "a b c d a b", 11);
    OK(pb_overlap_result_of(o, 0, 3, &r));
    assert_int_equal(r.n_examples, 2);
    assert_int_equal(r.example[0].times, 1);
    assert_int_equal(r.example[1].times, 3);
    pb_overlap_result_free(&r);
    pb_overlap_free(o);
}

static void test_refusals(void **state)
{
    (void)state;
    pb_overlap *o;
    assert_int_equal(pb_overlap_new(&o, 0, 1), PB_USAGE);
    assert_int_equal(pb_overlap_new(&o, PB_OVERLAP_MAX_N + 1, 1), PB_USAGE);
    assert_int_equal(pb_overlap_new(&o, 13, 0), PB_USAGE);
    assert_int_equal(pb_overlap_new(&o, 13, 14), PB_USAGE);
    assert_null(o);
    OK(pb_overlap_new(&o, PB_OVERLAP_MAX_N, PB_OVERLAP_MAX_N));
    assert_int_equal(pb_overlap_text(o, "x", 1), PB_INTERNAL);
    OK(pb_overlap_set(o, "set"));
    assert_int_equal(pb_overlap_text(o, "x", 1), PB_INTERNAL);
    pb_overlap_free(o);
}

// ---------------------------------------------------------------- files

typedef struct log {
    char text[2000];
    size_t n;
} log;

static pb_err log_item(void *self)
{
    log *l = self;
    l->n += (size_t)sprintf(l->text + l->n, "#");
    return PB_OK;
}

static pb_err log_text(void *self, const char *text, size_t len)
{
    log *l = self;
    l->n += (size_t)sprintf(l->text + l->n, "<%.*s>", (int)len, text);
    return PB_OK;
}

static pb_err records(log *l, const char *name, const char *content, bool header)
{
    char folder[] = "/tmp/pb-records-XXXXXX", path[128];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(content, f) >= 0 && !fclose(f));
    *l = (log){.n = 0};
    pb_records_to to = {l, log_item, log_text};
    pb_err err = pb_records_read(path, header, &to);
    unlink(path);
    rmdir(folder);
    return err;
}

static void test_records(void **state)
{
    (void)state;
    static const struct {
        const char *name, *content, *items;
        bool header;
    } good[] = {
        {"a.txt", "one two\n\n  \r\nthree\r\nfour", "#<one two>#<three>#<four>", false},
        {"a.list", "one\n", "#<one>", true},
        {"a.tsv", "q\tl\na \"b\"\t1\nc\t\n", "#<q><l>#<a \"b\"><1>#<c><>", false},
        {"a.tsv", "q\tl\na\t1", "#<a><1>", true},
        {"a.csv", "mr,ref\n\"a, \"\"b\"\"\nc\",d\r\n\ne\"f,", "#<a, \"b\"\nc><d>#<e\"f><>", true},
        {"a.CSV", "a,b", "#<a><b>", false},
        {"a.csv", "", "", true},
        {"a.jsonl", "{\"q\": \"x\", \"n\": 1, \"t\": [\"y\", {\"z\": \"w\"}]}\n\n[\"v\"]\n",
         "#<x><y><w>#<v>", false},
        {"a.json",
         "{\"canary\": \"k\", \"data\": [{\"c\": \"x\", \"qas\": [{\"q\": \"y\", \"a\": [\"u\", "
         "{\"t\": \"w\"}]}]}, {\"n\": 1}]}",
         "#<k>#<x>#<y><u>#<w>", false},
        {"a.json", "[\"x\", [\"y\"], {\"a\": \"z\"}]", "#<x>#<y>#<z>", false},
    };
    log l;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (records(&l, good[i].name, good[i].content, good[i].header))
            fail_msg("%s %zu: %s", good[i].name, i, pb_error_message());
        assert_string_equal(l.text, good[i].items);
    }
    assert_int_equal(records(&l, "a.csv", "a,b\n\"c\nd,e\n", false), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "a.csv, line 2: "));
    assert_int_equal(records(&l, "a.jsonl", "{}\n\n{\"a\": }\n", false), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "a.jsonl, line 3: "));
    assert_int_equal(records(&l, "a.json", "{", false), PB_INPUT);
    assert_true(pb_records_known("x/a.JSON") && pb_records_known("a.txt"));
    assert_false(pb_records_known(".json") || pb_records_known("a.md"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive),   cmocka_unit_test(test_words),
        cmocka_unit_test(test_planted), cmocka_unit_test(test_examples),
        cmocka_unit_test(test_times),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
