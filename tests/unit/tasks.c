// Generated tasks: identity (golden hashes), splits disjoint by meaning for several seeds, balance,
// answers that are right, lengths that fit the tiny backbone, limits. And the plain text.
#include "tasks/task.h"

#include "core/hash.h"
#include "tasks/common/generate.h"
#include "tasks/common/plaintext.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEEDS = 4 };

// The hash of seed 1. A change here means other text: raise the task's version with it.
static const struct {
    const char *task, *hash;
} golden[] = {
    {"restaurant", "910b6287e97d87e293d33e000c64d30ec2c9976134266898cb04253e12d64841"},
    {"yesno", "e6b8832b2f2ffbc40a0be06669e6102e2499620c2cf3907273d45060d6060a1c"},
    {"sql", "dd17e11ca5fd42cfc72c5a6fa7f76fc0303d037d9915dff681d5296557283797"},
};
enum { N_TASKS = sizeof golden / sizeof *golden };

static pb_dataset *load_with(const char *task, pb_task_args args)
{
    pb_dataset *d;
    if (pb_task_load(&d, task, &args))
        fail_msg("%s: %s", task, pb_error_message());
    return d;
}

static pb_dataset *load(const char *task, uint64_t seed)
{
    return load_with(task, (pb_task_args){.seed = seed});
}

static void test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TASKS; i++) {
        char hash[3][PB_HASH_LEN];
        for (size_t k = 0; k < 3; k++) {
            pb_dataset *d = load(golden[i].task, k == 2 ? 2 : 1);
            pb_dataset_hash(d, hash[k]);
            pb_dataset_free(d);
        }
        assert_string_equal(hash[0], golden[i].hash);
        assert_string_equal(hash[0], hash[1]);
        assert_string_not_equal(hash[0], hash[2]);
    }
}

// What splits must not share, apart from the prompt: the question, the query, the slots.
static const char *meaning(const char *task, const pb_example *e)
{
    if (!strcmp(task, "yesno"))
        return strstr(e->prompt, "Did ");
    return !strcmp(task, "sql") ? e->response : e->prompt;
}

typedef struct use {
    const char *meaning;
    pb_split split;
} use;

static int by_meaning(const void *a, const void *b)
{
    return strcmp(((const use *)a)->meaning, ((const use *)b)->meaning);
}

// Pooled over seeds: the training set of one seed must not hold the test set of another.
static void test_disjoint(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_TASKS; t++) {
        pb_dataset *d[SEEDS];
        static use all[SEEDS * 4000];
        size_t n = 0;
        for (size_t k = 0; k < SEEDS; k++) {
            d[k] = load(golden[t].task, k);
            for (pb_split s = 0; s < PB_N_SPLITS; s++)
                for (size_t i = 0; i < pb_dataset_count(d[k], s); i++)
                    all[n++] = (use){meaning(golden[t].task, pb_dataset_at(d[k], s, i)), s};
        }
        qsort(all, n, sizeof *all, by_meaning);
        for (size_t i = 1; i < n; i++)
            if (!by_meaning(&all[i - 1], &all[i]) && all[i - 1].split != all[i].split)
                fail_msg("%s: \"%s\" is in two splits", golden[t].task, all[i].meaning);
        for (size_t k = 0; k < SEEDS; k++)
            pb_dataset_free(d[k]);
    }
}

static void test_shape(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_TASKS; t++) {
        const pb_task *task = pb_task_find(golden[t].task);
        for (size_t k = 0; k < SEEDS; k++) {
            pb_dataset *d = load(task->name, k);
            for (pb_split s = 0; s < PB_N_SPLITS; s++) {
                assert_int_equal(pb_dataset_count(d, s), task->sizes[s]);
                for (size_t i = 0; i < task->sizes[s]; i++) {
                    const pb_example *e = pb_dataset_at(d, s, i);
                    size_t p = strlen(e->prompt);
                    assert_in_range(p, 35, 120);
                    for (size_t j = 0; j < e->n_references; j++) {
                        assert_in_range(strlen(e->references[j]), 1, task->max_new);
                        // With BOS and EOS inside a context of 256 bytes, and some to spare.
                        assert_in_range(p + strlen(e->references[j]), 1, 230);
                    }
                }
            }
            pb_dataset_free(d);
        }
    }
}

static void test_limits(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_TASKS; t++) {
        pb_task_args args = {.seed = 1, .limit = {7, 4, 6}};
        pb_dataset *all = load(golden[t].task, 1), *some = load_with(golden[t].task, args);
        for (pb_split s = 0; s < PB_N_SPLITS; s++) {
            assert_int_equal(pb_dataset_count(some, s), args.limit[s]);
            for (size_t i = 0; i < args.limit[s]; i++)
                assert_string_equal(pb_dataset_at(some, s, i)->prompt,
                                    pb_dataset_at(all, s, i)->prompt);
            assert_null(pb_dataset_at(some, s, args.limit[s]));
        }
        pb_dataset_free(all);
        pb_dataset_free(some);
    }
    pb_dataset *d;
    pb_task_args greedy = {.seed = 1, .limit = {0, 0, 100000}};
    assert_int_equal(pb_task_load(&d, "sql", &greedy), PB_INPUT);
    assert_null(d);
    assert_non_null(strstr(pb_error_message(), "100000"));
}

static bool kind_word(const char *w)
{
    static const char *const kind[] = {"great", "lovely", "fine", "wonderful", "perfect", "superb"};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++)
        if (!strcmp(kind[i], w))
            return true;
    return false;
}

// Questions carry no information: each has as many yes as no, and so has the whole; so does the
// asked person's place in the passage. And the answer is what that person said.
static void test_yesno(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        pb_dataset *d = load("yesno", seed);
        for (pb_split s = 0; s < PB_N_SPLITS; s++) {
            size_t n = pb_dataset_count(d, s), yes = 0, best = 0, first_fact = 0;
            for (size_t i = 0; i < n; i++) {
                const pb_example *e = pb_dataset_at(d, s, i);
                const char *q = strstr(e->prompt, "Did ");
                char name[32], thing[32], said[128], word[32];
                assert_int_equal(sscanf(q, "Did %31s like the %31[a-z]?", name, thing), 2);
                snprintf(said, sizeof said, "%s said that the %s was ", name, thing);
                const char *at = strstr(e->prompt, said);
                assert_non_null(at);
                assert_int_equal(sscanf(at + strlen(said), "%31[a-z].", word), 1);
                assert_int_equal(e->label, kind_word(word) ? 0 : 1);
                yes += e->label == 0;
                first_fact += (at == e->prompt) == (e->label == 0);
                // The best guess from the question alone, counted at its first example.
                size_t count[2] = {0, 0};
                bool first = true;
                for (size_t j = 0; j < n; j++) {
                    const pb_example *o = pb_dataset_at(d, s, j);
                    if (strcmp(strstr(o->prompt, "Did "), q))
                        continue;
                    first = first && j >= i;
                    count[o->label]++;
                }
                if (first)
                    best += count[0] > count[1] ? count[0] : count[1];
            }
            assert_int_equal(2 * yes, n);
            assert_int_equal(2 * best, n);
            assert_int_equal(2 * first_fact, n);
        }
        pb_dataset_free(d);
    }
}

// Every reference says the name and the food; references of one example differ.
static void test_restaurant(void **state)
{
    (void)state;
    pb_dataset *d = load("restaurant", 1);
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        for (size_t i = 0; i < pb_dataset_count(d, s); i++) {
            const pb_example *e = pb_dataset_at(d, s, i);
            char name[64], food[32] = "";
            assert_int_equal(sscanf(e->prompt, "name: %63[^;\n]", name), 1);
            const char *f = strstr(e->prompt, "food: ");
            if (f)
                sscanf(f, "food: %31[^;\n]", food);
            assert_in_range(e->n_references, 3, 6);
            for (size_t j = 0; j < e->n_references; j++) {
                const char *r = e->references[j];
                if (!strstr(r, name) || !strstr(r, food) || strstr(r, "  "))
                    fail_msg("%s -> %s", e->prompt, r);
                for (size_t k = 0; k < j; k++)
                    assert_string_not_equal(r, e->references[k]);
            }
        }
    pb_dataset_free(d);
}

// Tables and columns of the query are those of the prompt, and values are copied from it.
static void test_sql(void **state)
{
    (void)state;
    pb_dataset *d = load("sql", 1);
    for (size_t i = 0; i < pb_dataset_count(d, PB_TRAIN); i++) {
        const pb_example *e = pb_dataset_at(d, PB_TRAIN, i);
        char what[32], table[32], where[32], op, value[32], column[40];
        char listed[64], in_prompt[40], header[120];
        assert_int_equal(sscanf(e->response, "SELECT %31s FROM %31s WHERE %31s %c %31s", what,
                                table, where, &op, value),
                         5);
        assert_int_equal(sscanf(e->prompt, "table %31[a-z]: %63[^.].", in_prompt, listed), 2);
        assert_string_equal(table, in_prompt);
        snprintf(header, sizeof header, ", %s,", listed);
        snprintf(column, sizeof column, " %s,", where);
        assert_non_null(strstr(header, column));
        char *inner = strchr(what, '(') ? strtok(strchr(what, '(') + 1, ")") : what;
        snprintf(column, sizeof column, " %s,", inner);
        assert_true(*inner == '*' || strstr(header, column));
        char *word = strtok(value, "'");
        assert_non_null(strstr(e->prompt, word));
        assert_int_equal(op == '=', word != value);
    }
    pb_dataset_free(d);
}

static void test_refusals(void **state)
{
    (void)state;
    pb_dataset *d;
    pb_task_args args = {.seed = 1};
    assert_int_equal(pb_task_load(&d, "sqll", &args), PB_USAGE);
    assert_non_null(strstr(pb_error_message(), "sqll"));
    assert_non_null(strstr(pb_error_hint(), "restaurant"));
    assert_int_equal(pb_task_load(&d, "e2e", &args), PB_USAGE);
    assert_non_null(strstr(pb_error_hint(), "--data"));
    assert_non_null(strstr(pb_error_hint(), "https://"));
}

// Documents are plain ASCII, end with an empty line and hold nothing that a task asks or answers.
static void test_plaintext(void **state)
{
    (void)state;
    char *text, *shorter, *other, hash[PB_HASH_LEN];
    assert_int_equal(pb_plaintext(1, 400000, &text), PB_OK);
    assert_int_equal(pb_plaintext(1, 1000, &shorter), PB_OK);
    assert_int_equal(pb_plaintext(2, 1000, &other), PB_OK);
    size_t n = strlen(text);
    assert_in_range(n, 400000, 400320);
    assert_memory_equal(text, shorter, strlen(shorter));
    assert_memory_not_equal(text, other, 200);
    pb_sha256(hash, text, n);
    assert_string_equal(hash, "6f0bac19c96510813b17a0956035caae247993aaaa8b12beffd602c272a02c53");

    size_t documents = 0;
    for (char *p = text; *p; documents++) {
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_in_range(end - p, 40, 300);
        for (; p < end; p++)
            assert_true(*p == '\n' || (*p >= ' ' && *p <= '~' && !strchr("$[]|^", *p)));
        p += 2;
    }
    print_message("%zu documents in %zu bytes\n", documents, n);

    for (size_t t = 0; t < N_TASKS; t++) {
        pb_task_args args = {.seed = 1, .limit = {100, 10, 50}};
        pb_dataset *d = load_with(golden[t].task, args);
        for (pb_split s = 0; s < PB_N_SPLITS; s++)
            for (size_t i = 0; i < pb_dataset_count(d, s); i++) {
                const pb_example *e = pb_dataset_at(d, s, i);
                assert_null(strstr(text, meaning(golden[t].task, e)));
                for (size_t j = 0; j < e->n_references; j++)
                    if (strstr(text, e->references[j]))
                        fail_msg("the plain text has the reference %s", e->references[j]);
            }
        pb_dataset_free(d);
    }
    free(text);
    free(shorter);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_disjoint),
        cmocka_unit_test(test_shape),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_yesno),     cmocka_unit_test(test_restaurant),
        cmocka_unit_test(test_sql),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_plaintext),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
