// Metrics against values from the literature, from other implementations and by hand.
//
// `unit_metrics --bleu FILE` prints the statistics of every line of a file, hypothesis<TAB>
// reference<TAB>reference..., and then corpus BLEU: plain, smoothed, with case, with case smoothed.
// tests/oracle/test_bleu.py compares them with an implementation of its own.
//
// `unit_metrics --items FILE` does the same for other metrics: FILE is a JSON object with "items"
// ([[hypothesis, reference, ...], ...]), "metrics" (names) and, for execution, "database", "table"
// and "columns"; the answer is {NAME: {"score": x, "items": [...]}}. tests/oracle/test_metrics.py
// asks.
#include "tasks/metrics/metrics.h"
#include "tasks/metrics/ptb.h"

#include "core/file.h"
#include "core/json.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_REFS = 8 };

typedef struct item {
    const char *hyp, *ref[MAX_REFS];
} item;

static double bleu(const item *items, size_t n, pb_bleu_opts opts, double *stats)
{
    const char *hyp[8];
    const char *const *refs[8];
    size_t n_refs[8];
    double out = -1;
    for (size_t i = 0; i < n; i++) {
        hyp[i] = items[i].hyp;
        refs[i] = items[i].ref;
        for (n_refs[i] = 0; items[i].ref[n_refs[i]];)
            n_refs[i]++;
    }
    assert_int_equal(pb_bleu(&out, stats, hyp, refs, n_refs, n, &opts), PB_OK);
    return out;
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12))
        fail_msg("%.17g instead of %.17g", got, want);
}

static void test_tokens(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {" \t\n ", ""},
        {"Hello, world.", "hello , world ."},
        {"£20-25, it's 3.50 or 1,000.", "£20 - 25 , it's 3.50 or 1,000 ."},
        {"family-friendly (kids)", "family-friendly ( kids )"},
        {"a..b ... c,,d", "a . . b . . . c , , d"},
        {"5. .5 5.a a.5", "5 . . 5 5 . a a . 5"},
        {"line-\nend and\nnext", "lineend and next"},
        {"&quot;a&quot; &amp;lt; <skipped>b", "\" a \" < b"},
        {"Caf\xc3\xa9,caf\xc3\xa9 'x'", "caf\xc3\xa9 , caf\xc3\xa9 'x'"},
        {"3--4 a--b", "3 - -4 a--b"},
        {"a/b:c;d|e~f_g`h", "a / b : c ; d | e ~ f _ g ` h"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *got;
        assert_int_equal(pb_bleu_tokens(&got, pairs[i][0], false), PB_OK);
        assert_string_equal(got, pairs[i][1]);
        free(got);
    }
    char *got;
    assert_int_equal(pb_bleu_tokens(&got, "Blue Spice", true), PB_OK);
    assert_string_equal(got, "Blue Spice");
    free(got);
}

// The examples of Papineni et al. 2002 with letters for words, and the values that other
// implementations document for them.
static void test_published(void **state)
{
    (void)state;
    const item both[] = {
        {"a b c d e f g h i j k l m j n o j p",
         {"a b c d e f i h i j k q r s t n", "a b j u v g w j k x l y z j A o j t",
          "a b j B d C j D l e s j E o j p"}},
        {"a b c d e a f g h i j", {"a f g h i j e a b c d"}},
    };
    near(bleu(both, 1, (pb_bleu_opts){.case_sensitive = true}, NULL), 0.5045666840058485);
    near(bleu(both, 2, (pb_bleu_opts){.case_sensitive = true}, NULL), 0.5920778868801042);

    // A word repeated is matched as often as the best single reference has it: 2 of 7.
    double stats[PB_BLEU_STATS];
    const item the = {"t t t t t t t", {"t a b c t d", "e f t a b c"}};
    near(bleu(&the, 1, (pb_bleu_opts){0}, stats), 0);
    static const double want[PB_BLEU_STATS] = {2, 0, 0, 0, 7, 6, 5, 4, 7, 6};
    assert_memory_equal(stats, want, sizeof want);
}

static void test_by_hand(void **state)
{
    (void)state;
    double stats[2 * PB_BLEU_STATS];
    pb_bleu_opts plain = {0}, smooth = {.smooth = true};

    // Perfect; 1 also with only a longer and a shorter reference beside the equal one.
    near(bleu(&(item){"a b c d e", {"x", "A b c D e", "a b c d e f"}}, 1, plain, NULL), 1);
    near(bleu(&(item){"a b c d", {"A b c d"}}, 1, (pb_bleu_opts){.case_sensitive = true}, NULL), 0);

    // p = 4/5, 3/4, 2/3, 1/2, no penalty: (1/5)^(1/4).
    near(bleu(&(item){"a b c d x", {"a b c d e"}}, 1, plain, NULL), pow(0.2, 0.25));
    // Short: all match, 5 of 10 tokens: exp(1 - 10/5).
    near(bleu(&(item){"a b c d e", {"a b c d e f g h i j"}}, 1, plain, NULL), exp(-1));
    // Of two equally close lengths the shorter counts: no penalty here.
    near(bleu(&(item){"a b c d e", {"a b c d e f", "a b c d"}}, 1, plain, stats), 1);
    near(stats[9], 4);

    // Corpus sums, not a mean: matches 5+0, 4+0, 3+0, 2+0 of 9, 7, 5, 3.
    item two[] = {{"a b c d e", {"a b c d e"}}, {"p q r s", {"u v w x"}}};
    near(bleu(two, 2, plain, stats), pow(5. / 9 * 4 / 7 * 3 / 5 * 2 / 3, 0.25));
    near(stats[PB_BLEU_STATS], 0);
    double sum[PB_BLEU_STATS];
    for (size_t k = 0; k < PB_BLEU_STATS; k++)
        sum[k] = stats[k] + stats[PB_BLEU_STATS + k];
    near(pb_bleu_score(sum, NULL), bleu(two, 2, plain, NULL));

    // Nothing matches, nothing there, too short for 4-grams.
    near(bleu(&(item){"a b c d", {"e f g h"}}, 1, plain, NULL), 0);
    near(bleu(&(item){"", {"e f g h"}}, 1, plain, stats), 0);
    near(stats[8], 0);
    near(stats[9], 4);
    near(bleu(&(item){"", {"e f g h"}}, 1, smooth, NULL), 0);
    near(bleu(&(item){"", {""}}, 1, plain, NULL), 0);
    near(bleu(&(item){"a b c", {"a b c"}}, 1, plain, NULL), 0);

    // Smoothed: two words of four, one pair; no triple counts 1/2 of 2, no quadruple 1/4 of 1.
    near(bleu(&(item){"a b x y", {"a b c d"}}, 1, smooth, NULL),
         pow(2. / 4 * 1 / 3 * 0.5 / 2 * 0.25 / 1, 0.25));
    near(bleu(&(item){"a b c", {"a b c"}}, 1, smooth, NULL), 1);

    double out;
    const char *hyp[] = {"a"};
    const char *const *refs[] = {hyp};
    size_t none = 0;
    assert_int_equal(pb_bleu(&out, NULL, hyp, refs, &none, 1, NULL), PB_INPUT);
    assert_int_equal(pb_bleu(&out, NULL, hyp, refs, &none, 0, NULL), PB_INPUT);
}

static void test_exact(void **state)
{
    (void)state;
    static const struct {
        const char *hyp, *ref;
        bool same;
    } cases[] = {
        {"a b", "a b", true}, {"  a \t b\n", "a b", true},
        {"ab", "a b", false}, {"a b", "ab", false},
        {"a", "a b", false},  {"a b", "a", false},
        {"", " ", true},      {"", "a", false},
        {"A", "a", false},    {"a b c", "a c", false},
        {"a ", "a", true},    {"a  b", "a b ", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *hyp[] = {cases[i].hyp, "z"}, *ref[] = {"other", cases[i].ref}, *z[] = {"y"};
        const char *const *refs[] = {ref, z};
        double out, items[2];
        assert_int_equal(pb_exact_match(&out, items, hyp, refs, (size_t[]){2, 1}, 2), PB_OK);
        near(out, cases[i].same ? 0.5 : 0);
        near(items[0], cases[i].same);
        near(items[1], 0);
    }
    double out, items[4];
    assert_int_equal(pb_accuracy(&out, items, (size_t[]){0, 1, 1, 2}, (size_t[]){0, 1, 0, 2}, 4),
                     PB_OK);
    near(out, 0.75);
    near(items[2], 0);
    assert_int_equal(pb_accuracy(&out, NULL, NULL, NULL, 0), PB_INPUT);
    assert_int_equal(pb_exact_match(&out, NULL, NULL, NULL, NULL, 0), PB_INPUT);
}

// One item with references against a metric of one number.
static double one(const char *metric, const char *hyp, const char *const *ref, size_t n)
{
    const char *const *refs[] = {ref};
    pb_outputs o = {&hyp, refs, &n, NULL, 1};
    double x = -1;
    assert_int_equal(pb_measure_items(pb_measure_find(metric), &x, &o), PB_OK);
    return x;
}

// Expected numbers: the evaluation script of SQuAD v1.1 as MRQA's official_eval.py has it, run on
// these inputs.
static void test_squad(void **state)
{
    (void)state;
    static const struct {
        const char *hyp, *ref[3];
        double em, f1;
    } cases[] = {
        {"The Denver Broncos!", {"Denver Broncos", "the broncos"}, 1, 1},
        {"denver", {"Denver Broncos"}, 0, 2. / 3},
        {"a cat and a dog", {"cat, dog", "bird"}, 0, 0.8},
        {"Super Bowl L, L", {"Super Bowl L"}, 0, 6. / 7},
        {"u.s.", {"US"}, 1, 1},
        {"the", {"an"}, 1, 0},
        {"", {"x"}, 0, 0},
        {"Caf\xc3\x89", {"caf\xc3\xa9"}, 1, 1},
        {"24\xe2\x80\x93"
         "10",
         {"24-10"},
         0,
         0},
        {"one one two", {"one two two"}, 0, 2. / 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = cases[i].ref[1] ? 2 : 1;
        near(one("squad_em", cases[i].hyp, cases[i].ref, n), cases[i].em);
        near(one("squad_f1", cases[i].hyp, cases[i].ref, n), cases[i].f1);
    }
    char *text;
    assert_int_equal(pb_squad_normalise(&text, " The  quick,\tbrown-fox\xa0 (an a) \xc2\xa0x"),
                     PB_OK);
    assert_string_equal(text, "quick brownfox\xef\xbf\xbd x");
    free(text);
}

// Expected numbers: lm-evaluation-harness's filters and exact match, run on these inputs.
static void test_gsm8k(void **state)
{
    (void)state;
    static const struct {
        const char *hyp, *ref;
        bool strict, flexible;
    } cases[] = {
        {"48/2 = 24\n#### 72", "x\n#### 72", true, true},
        {"The answer is 72.", "x\n#### 72", false, true},
        {"#### 72.", "x\n#### 72", true, true},
        {"#### $72", "x\n#### 72", false, true},
        {"#### 1,080 and 3 more", "#### 1080", true, false},
        {"#### 5 #### 6", "#### 5", true, false},
        {"#### 6\n#### 5", "#### 5", false, true},
        {"####5", "#### 5", false, true},
        {"#### -5", "#### 5", false, false},
        {"#### -5", "#### -5", true, true},
        {"it costs $7.50 .", "#### 7.50", false, true},
        {"...", "#### 5", false, false},
        {"", "#### 5", false, false},
        {"2-3", "#### 3", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        near(one("gsm8k_strict", cases[i].hyp, &cases[i].ref, 1), cases[i].strict);
        near(one("gsm8k_flexible", cases[i].hyp, &cases[i].ref, 1), cases[i].flexible);
    }
}

// What Stanford's PTBTokenizer of CoreNLP 3.4.1 (-lowerCase) and coco-caption's list of punctuation
// make of these lines.
static void test_ptb(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"Hello, it's a kid-friendly (cheap) pub. \"Yes\" don't.",
         "hello it 's a kid-friendly -lrb- cheap -rrb- pub yes do n't"},
        {"Second \xc2\xa3"
         "20-25 5-star caf\xc3\xa9 line.",
         "second # 20-25 5-star caf\xc3\xa9 line"},
        {"driving/racing at 1:00 ... 3.50, 1,000 --", "driving/racing at 1:00 3.50 1,000"},
        {"St. John's, Holobyte, Inc., that 's why", "st. john 's holobyte inc. that 's why"},
        {"d'oeuvre o'clock they'll cannot", "d'oeuvre o'clock they 'll can not"},
        {"rated T. It was rated E.", "rated t it was rated e."},
        {"Rouge.6 at '09 O.K. Does", "rouge .6 at '09 o.k. does"},
        {"[a] {b} 5 + 3 & 1/2", "-lsb- a -rsb- -lcb- b -rcb- 5 + 3 & 1/2"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *got;
        assert_int_equal(pb_ptb_tokens(&got, pairs[i][0]), PB_OK);
        assert_string_equal(got, pairs[i][1]);
        free(got);
    }
}

// Expected numbers: the E2E challenge's scripts (mteval-v13a-sig.pl, four digits; coco-caption's
// ROUGE-L and CIDEr behind the tokenizer above), run on these inputs.
static void test_prose(void **state)
{
    (void)state;
    static const char *const hyp[] = {"The Mill is a cheap, family-friendly pub near the river.",
                                      "It doesn't serve wine (or beer).",
                                      "Meals cost \302\24320-25 in the city centre.", ""};
    static const char *const a[] = {"The Mill is a family-friendly pub by the river; it's cheap.",
                                    "Near the river there is a cheap pub called The Mill."};
    static const char *const b[] = {"They don't serve wine.", "No wine is served there!",
                                    "It doesn't sell beer or wine."};
    static const char *const c[] = {"In the city centre, meals are \xc2\xa3"
                                    "20-25."};
    static const char *const d[] = {"A 5-star caf\xc3\xa9."};
    static const char *const *const refs[] = {a, b, c, d};
    static const size_t n_refs[] = {2, 3, 1, 1};
    static const double rouge[] = {0.7155425219941348, 0.524731182795699, 0.5, 0};
    static const double cider[] = {3.9476548367190203, 1.7545535886854668, 4.917077175697865, 0};
    const pb_outputs o = {hyp, refs, n_refs, NULL, 4};
    double items[4], stats[4 * PB_NIST_STATS], bleu_stats[4 * PB_BLEU_STATS];
    const pb_measure *m = pb_measure_find("nist");
    assert_int_equal(pb_measure_items(m, stats, &o), PB_OK);
    assert_true(fabs(pb_measure_score(m, stats, 4) - 4.5620) <= 0.00005);
    m = pb_measure_find("bleu");
    assert_int_equal(pb_measure_items(m, bleu_stats, &o), PB_OK);
    assert_true(fabs(pb_measure_score(m, bleu_stats, 4) - 0.2761) <= 0.00005);
    assert_int_equal(pb_rouge_l(items, &o), PB_OK);
    for (int i = 0; i < 4; i++)
        near(items[i], rouge[i]);
    assert_int_equal(pb_cider(items, &o), PB_OK);
    for (int i = 0; i < 4; i++)
        near(items[i], cider[i]);
}

static void test_wikisql(void **state)
{
    (void)state;
    static const struct {
        const char *hyp, *ref;
        bool same;
    } cases[] = {
        {"SELECT A FROM table", "SELECT A FROM table", true},
        {"select a from t;", "SELECT A FROM table", true},
        {"SELECT MAX A FROM table", "SELECT A FROM table", false},
        {"SELECT MAX FROM table", "SELECT MAX FROM table", true},
        {"SELECT FROM FROM table", "SELECT FROM FROM table", true},
        {"SELECT A FROM table WHERE B = \"x\" AND C > \"2\"",
         "SELECT A FROM table WHERE C > \"2\" AND B = \"X\"", true},
        {"SELECT A FROM table WHERE B = \"x\" AND B = \"x\"", "SELECT A FROM table WHERE B = \"x\"",
         true},
        {"SELECT A FROM table WHERE B = \"x\"", "SELECT A FROM table WHERE B = \"x\" AND C = \"1\"",
         false},
        {"SELECT A FROM table WHERE B < \"2\"", "SELECT A FROM table WHERE B > \"2\"", false},
        {"SELECT A FROM table WHERE B = 'this AND that'",
         "SELECT A FROM table WHERE B = \"this AND that\"", true},
        {"SELECT A FROM table WHERE B = 13' 5\"", "SELECT A FROM table WHERE B = \"13' 5\"\"",
         true},
        {"SELECT A FROM table WHERE NO. IN SET = x", "SELECT A FROM table WHERE No.inset = \"X\"",
         true},
        {"SELECT A FROM table WHERE", "SELECT A FROM table", false},
        {"SELECT A FROM table WHERE B = \"x", "SELECT A FROM table WHERE B = \"x\"", false},
        {"SELECT A FROM table WHERE B = \"x\" AND", "SELECT A FROM table WHERE B = \"x\"", false},
        {"A FROM table", "SELECT A FROM table", false},
        {"SELECT A", "SELECT A FROM table", false},
        {"SELECT A FROM table WHERE B = \"\"And so\"\"", "SELECT A FROM t WHERE B = \"\"And so\"\"",
         true},
        {"no  query", "no query", true},
        {"SELECT A FROM table", "no query", false},
        {"", "SELECT A FROM table", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        near(one("wikisql_logical_form", cases[i].hyp, &cases[i].ref, 1), cases[i].same);
    const char *hyp = "SELECT A FROM table", *const * refs[] = {&hyp};
    pb_outputs o = {&hyp, refs, &(size_t){1}, NULL, 1};
    assert_false(pb_wikisql_has_tables(&o));
}

static void test_measures(void **state)
{
    (void)state;
    assert_null(pb_measure_find("f2"));
    assert_int_equal(pb_measure_check("squad_f1", PB_GENERATE), PB_OK);
    assert_int_equal(pb_measure_check("squad_f1", PB_RANK), PB_INPUT);
    assert_int_equal(pb_measure_check("accuracy_norm", PB_RANK), PB_OK);
    assert_int_equal(pb_measure_check("perplexity", PB_GENERATE), PB_OK);
    assert_int_equal(pb_measure_check("f2", PB_GENERATE), PB_INPUT);
    assert_non_null(strstr(pb_error_hint(), "gsm8k_strict"));
    for (const pb_measure *m = pb_measures; m->name; m++) {
        assert_true(m->width >= 1 && m->width <= PB_MOST_STATS && m->scale > 0);
        assert_int_equal(pb_measure_width(m->array), m->width);
        assert_ptr_equal(pb_measure_find(m->name), m);
    }
    // Two items: 3 nats over 2 tokens and 4 bytes, 1 nat over 2 tokens and 4 bytes; 1 hit.
    const double v[] = {3, 2, 4, 1, 1, 2, 4, 0};
    near(pb_measure_score(pb_measure_find("loss"), v, 2), 1);
    near(pb_measure_score(pb_measure_find("perplexity"), v, 2), exp(1));
    near(pb_measure_score(pb_measure_find("bits_per_byte"), v, 2), 0.5 / log(2));
    near(pb_measure_score(pb_measure_find("token_accuracy"), v, 2), 0.25);
    assert_int_equal(pb_candidate_length("  caf\xc3\xa9 au lait"), 12);
    const char *hyp = "x", *const * refs[] = {NULL};
    pb_outputs none = {&hyp, refs, &(size_t){0}, NULL, 1};
    double x;
    assert_int_equal(pb_measure_items(pb_measure_find("squad_f1"), &x, &none), PB_INPUT);
}

static int print_bleu(const char *path)
{
    pb_file f;
    if (pb_file_map(&f, path)) {
        fprintf(stderr, "%s\n", pb_error_message());
        return 1;
    }
    size_t n = 0, fields = 1;
    for (size_t i = 0; i < f.size; i++) {
        n += f.data[i] == '\n';
        fields += f.data[i] == '\n' || f.data[i] == '\t';
    }
    char *text = malloc(f.size + 1);
    const char **field = malloc(fields * sizeof *field), **hyp = malloc((n + 1) * sizeof *hyp);
    const char *const **refs = malloc((n + 1) * sizeof *refs);
    size_t *n_refs = malloc((n + 1) * sizeof *n_refs);
    double *stats = malloc((n + 1) * PB_BLEU_STATS * sizeof *stats), out[4];
    memcpy(text, f.data, f.size);
    text[f.size] = 0;
    size_t used = 0, at = 0;
    for (size_t i = 0; i < n; i++) {
        hyp[i] = text + at;
        refs[i] = field + used;
        n_refs[i] = 0;
        for (; text[at] != '\n'; at++)
            if (text[at] == '\t') {
                text[at] = 0;
                field[used++] = text + at + 1;
                n_refs[i]++;
            }
        text[at++] = 0;
    }
    int bad = 0;
    for (int k = 0; k < 4 && !bad; k++) {
        pb_bleu_opts opts = {.case_sensitive = k / 2, .smooth = k % 2};
        bad = pb_bleu(&out[k], k ? NULL : stats, hyp, refs, n_refs, n, &opts);
    }
    for (size_t i = 0; i < n && !bad; i++)
        for (size_t k = 0; k < PB_BLEU_STATS; k++)
            printf("%.0f%c", stats[i * PB_BLEU_STATS + k], k + 1 < PB_BLEU_STATS ? ' ' : '\n');
    if (bad)
        fprintf(stderr, "%s\n", pb_error_message());
    else
        printf("%.17g %.17g %.17g %.17g\n", out[0], out[1], out[2], out[3]);
    free(text);
    free(field);
    free(hyp);
    free(refs);
    free(n_refs);
    free(stats);
    pb_file_unmap(&f);
    return bad != 0;
}

static size_t strings(const char **out, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_string_value(json_array_get(list, i));
    return json_array_size(list);
}

static pb_err print_items(const char *path)
{
    json_t *file, *out = json_object();
    PB_TRY(pb_json_load(&file, path));
    const json_t *items = json_object_get(file, "items");
    const json_t *wanted = json_object_get(file, "metrics");
    enum { MOST = 20000, MOST_TEXTS = 400000 };
    static const char *text[MOST_TEXTS], *hyp[MOST], *column[64];
    static const char *const *refs[MOST];
    static const pb_sql_table *tables[MOST];
    static size_t n_refs[MOST];
    size_t n = json_array_size(items), used = 0;
    pb_sql_table table = {.database = json_string_value(json_object_get(file, "database")),
                          .name = json_string_value(json_object_get(file, "table")),
                          .column = column,
                          .n_columns = strings(column, json_object_get(file, "columns"))};
    for (size_t i = 0; i < n; i++) {
        size_t k = strings(text + used, json_array_get(items, i));
        hyp[i] = text[used];
        refs[i] = text + used + 1;
        n_refs[i] = k - 1;
        tables[i] = &table;
        used += k;
    }
    pb_outputs o = {hyp, refs, n_refs, table.database ? tables : NULL, n};
    pb_err err = PB_OK;
    for (size_t i = 0; i < json_array_size(wanted) && !err; i++) {
        const pb_measure *m = pb_measure_find(json_string_value(json_array_get(wanted, i)));
        double *v = m ? calloc(n * m->width, sizeof *v) : NULL;
        err = v ? pb_measure_items(m, v, &o) : PB_INPUT;
        json_t *list = json_array();
        for (size_t k = 0; !err && k < n * m->width; k++)
            json_array_append_new(list, json_real(v[k]));
        if (!err)
            json_object_set_new(
                out, m->name,
                json_pack("{s:f, s:o}", "score", pb_measure_score(m, v, n), "items", list));
        free(v);
    }
    if (!err)
        json_dumpf(out, stdout, JSON_REAL_PRECISION(17));
    json_decref(out);
    json_decref(file);
    return err;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--items")) {
        pb_err err = print_items(argv[2]);
        if (err)
            fprintf(stderr, "%s\n", pb_error_message());
        return err != PB_OK;
    }
    if (argc == 3 && !strcmp(argv[1], "--bleu"))
        return print_bleu(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),  cmocka_unit_test(test_published),
        cmocka_unit_test(test_by_hand), cmocka_unit_test(test_exact),
        cmocka_unit_test(test_squad),   cmocka_unit_test(test_gsm8k),
        cmocka_unit_test(test_ptb),     cmocka_unit_test(test_prose),
        cmocka_unit_test(test_wikisql), cmocka_unit_test(test_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
