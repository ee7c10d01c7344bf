// Evaluation does not depend on the batch: generated texts and every metric's statistics are the
// same bits for any number of requests at once and for fewer examples, greedy, with beams and in
// ranking.
#include "serve/evaluate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != PB_OK)                                                                       \
            fail_msg("%s: %s", #expr, pb_error_message());                                         \
    } while (0)

enum { N = 6 };
static pb_model *model;
static pb_adapter *adapter;

static int set_up(void **state)
{
    (void)state;
    const pb_method *m = pb_method_find("pedro");
    void *options;
    OK(pb_model_open(&model, PB_SOURCE_DIR "/paper/backbone-bytes", &(pb_model_args){0}));
    OK(pb_options_new(&options, m));
    OK(pb_adapter_new(&adapter, m, options, &model->config, false));
    OK(pb_adapter_init(adapter, model, 1, 0, NULL, NULL, NULL));
    for (size_t k = 0; k < adapter->layout.n; k++) {
        const pb_spec *s = &adapter->layout.spec[k];
        pb_rng r = pb_rng_make(50, PB_STREAM_TEST, (uint32_t)k);
        for (size_t i = 0; i < s->rows * s->cols; i++)
            adapter->params.v[s->offset + i] += (real)(0.02 * pb_rng_normal(&r));
    }
    OK(pb_adapter_serve(adapter, model));
    free(options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pb_adapter_free(adapter);
    pb_model_close(model);
    return 0;
}

// The first b->n items of a are those of b.
static void same(const pb_eval_result *a, const pb_eval_result *b)
{
    assert_int_equal(a->n_scores, b->n_scores);
    for (size_t k = 0; k < a->n_scores; k++) {
        const pb_eval_score *x = &a->scores[k], *y = &b->scores[k];
        assert_ptr_equal(x->measure, y->measure);
        // NIST and CIDEr rest on all references of the set.
        bool of_set = !strcmp(x->measure->name, "nist") || !strcmp(x->measure->name, "cider");
        if (a->n == b->n || !of_set)
            assert_memory_equal(x->items, y->items, b->n * x->measure->width * sizeof *x->items);
    }
    for (size_t i = 0; a->output && i < b->n; i++)
        assert_string_equal(a->output[i], b->output[i]);
}

static void compare(const char *task, pb_decoding decoding)
{
    static const struct {
        size_t requests, limit;
    } ways[] = {{1, 0}, {4, 0}, {0, 2}};
    pb_dataset *d;
    pb_task_args args = {.seed = 1, .limit = {20, 10, N}};
    const pb_task *t = pb_task_find(task);
    OK(pb_task_load(&d, task, &args));
    pb_eval_result all, some;
    pb_eval_options how = {.decoding = decoding};
    OK(pb_evaluate(&all, model, adapter, t, d, PB_TEST, &how));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        how.requests = ways[i].requests;
        how.limit = ways[i].limit;
        OK(pb_evaluate(&some, model, adapter, t, d, PB_TEST, &how));
        same(&all, &some);
        pb_eval_result_free(&some);
    }
    pb_eval_result_free(&all);
    pb_dataset_free(d);
}

static void test_greedy(void **state)
{
    (void)state;
    compare("restaurant", PB_GREEDY);
}

static void test_beams(void **state)
{
    (void)state;
    compare("restaurant", (pb_decoding){3, 0.8, 4});
}

static void test_ranking(void **state)
{
    (void)state;
    compare("yesno", PB_GREEDY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_greedy), cmocka_unit_test(test_beams),
                                       cmocka_unit_test(test_ranking)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
