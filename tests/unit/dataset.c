// The checks that every task passes, on tasks that break one rule each. This program brings its own
// registry, so it includes the file under test instead of taking it from the library.
#include "tasks/common/dataset.c"

#include <setjmp.h>
#include <cmocka.h>

typedef struct bad {
    pb_task_kind kind;
    const char *says; // part of the message; NULL: no failure
    size_t n;
    pb_split split[3];
    pb_example e[3];
} bad;

static const char *const yes_no[] = {" yes", " no"}, *const yes_yes[] = {" yes", " yes"};
static const char *const yes_empty[] = {" yes", ""};
static const char *const refs[] = {"a", "b"}, *const empty_ref[] = {"a", ""};
#define RANK(p, r, c, n, l)                                                                        \
    {                                                                                              \
        .prompt = p, .response = r, .candidates = c, .n_candidates = n, .label = l                 \
    }
#define WRITE(p, r, list, n)                                                                       \
    {                                                                                              \
        .prompt = p, .response = r, .references = list, .n_references = n                          \
    }

static const bad cases[] = {
    {PB_RANK, NULL, 2, {0, 2}, {RANK("p", " no", yes_no, 2, 1), RANK("q", " yes", yes_no, 2, 0)}},
    {PB_GENERATE, NULL, 2, {0, 2}, {WRITE("p", "a", refs, 2), WRITE("q", "b", refs, 2)}},
    {PB_GENERATE, NULL, 2, {0, 0}, {WRITE("p", "a", refs, 2), WRITE("p", "b", refs, 2)}},
    {PB_RANK, "no examples", 0, {0}, {RANK("p", " no", yes_no, 2, 1)}},
    {PB_RANK, "prompt is empty", 1, {0}, {RANK("", " no", yes_no, 2, 1)}},
    {PB_GENERATE, "response is empty", 1, {0}, {WRITE("p", "", refs, 2)}},
    {PB_RANK, "label 2", 1, {0}, {RANK("p", " no", yes_no, 2, 2)}},
    {PB_RANK, "1 candidates", 1, {0}, {RANK("p", " yes", yes_no, 1, 0)}},
    {PB_RANK, "not the right candidate \" yes\"", 1, {0}, {RANK("p", " no", yes_no, 2, 0)}},
    {PB_RANK, "twice", 1, {0}, {RANK("p", " yes", yes_yes, 2, 0)}},
    {PB_RANK, "candidate 1 is empty", 1, {0}, {RANK("p", " yes", yes_empty, 2, 0)}},
    {PB_GENERATE, "reference 1 is empty", 1, {0}, {WRITE("p", "a", empty_ref, 2)}},
    {PB_GENERATE, "not among the 2 references", 1, {0}, {WRITE("p", "c", refs, 2)}},
    {PB_GENERATE, "not among the 0 references", 1, {0}, {WRITE("p", "a", NULL, 0)}},
    {PB_GENERATE, "2 candidates", 1, {0}, {RANK("p", " yes", yes_no, 2, 0)}},
    {PB_GENERATE, "NULL", 1, {0}, {WRITE(NULL, "a", refs, 2)}},
    {PB_GENERATE, "split 3", 1, {3}, {WRITE("p", "a", refs, 2)}},
    {PB_GENERATE,
     "example 0 of train is also example 1 of test: \"twin\"",
     3,
     {0, 2, 2},
     {WRITE("twin", "a", refs, 2), WRITE("p", "a", refs, 2), WRITE("twin", "b", refs, 2)}},
    {PB_GENERATE,
     "in spite of the limit 1",
     2,
     {1, 1},
     {WRITE("p", "a", refs, 2), WRITE("q", "a", refs, 2)}},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static const bad *current;

static pb_err load_case(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    (void)task, (void)args;
    for (size_t i = 0; i < current->n; i++)
        PB_TRY(pb_dataset_add(d, current->split[i], &current->e[i]));
    return PB_OK;
}

static const pb_task rank_task = {
    .name = "rank", .kind = PB_RANK, .metric = "accuracy", .load = load_case};
static const pb_task write_task = {
    .name = "write", .kind = PB_GENERATE, .metric = "bleu", .load = load_case};
const pb_task *const pb_tasks[] = {&rank_task, &write_task, NULL};

static void test_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        pb_dataset *d;
        pb_task_args args = {.limit = {0, 1, 0}};
        current = &cases[i];
        pb_err err = pb_task_load(&d, current->kind == PB_RANK ? "rank" : "write", &args);
        if (!current->says != !err || (err && !strstr(pb_error_message(), current->says)))
            fail_msg("case %zu: %s, %s", i, pb_error_name(err), pb_error_message());
        assert_true(!err == !!d);
        pb_dataset_free(d);
    }
}

// Many strings, one of them longer than a block: all stay where and what they are.
static void test_storage(void **state)
{
    (void)state;
    enum { N = 5000 };
    pb_dataset *d;
    char *huge = malloc(3 * BLOCK), hash[2][65];
    memset(huge, 'x', 3 * BLOCK - 1);
    huge[3 * BLOCK - 1] = 0;
    assert_int_equal(pb_dataset_new(&d), PB_OK);
    for (size_t i = 0; i < N; i++) {
        const char *text = pb_dataset_text(d, "reference %zu", i);
        const char *const list[] = {text, "other"};
        pb_example e = {.prompt = i == N / 2 ? huge : pb_dataset_text(d, "prompt %zu", i),
                        .response = text,
                        .references = list,
                        .n_references = 2};
        assert_int_equal(pb_dataset_add(d, PB_VALID, &e), PB_OK);
    }
    pb_dataset_hash(d, hash[0]);
    assert_int_equal(pb_dataset_count(d, PB_VALID), N);
    assert_int_equal(pb_dataset_count(d, PB_TRAIN), 0);
    assert_null(pb_dataset_at(d, PB_TRAIN, 0));
    for (size_t i = 0; i < N; i++) {
        const pb_example *e = pb_dataset_at(d, PB_VALID, i);
        char want[64];
        snprintf(want, sizeof want, "reference %zu", i);
        assert_string_equal(e->references[0], want);
        assert_string_equal(e->references[1], "other");
        if (i == N / 2)
            assert_string_equal(e->prompt, huge);
    }
    // The hash sees where strings end and to which split they belong.
    pb_example ab = {.prompt = "a", .response = "bc"};
    assert_int_equal(pb_dataset_add(d, PB_TEST, &ab), PB_OK);
    pb_dataset_hash(d, hash[1]);
    assert_string_not_equal(hash[0], hash[1]);
    pb_dataset_free(d);
    free(huge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_storage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
