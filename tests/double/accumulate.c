// Gradients of a step in several batches, of unequal numbers of tokens, are those of one batch of
// all sequences, up to rounding.
#include "core/threads.h"
#include "train/trainer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tiny.h"

enum { N = 12, LONG = 40 };

static void examples(pb_seqs *s, size_t vocab)
{
    pb_rng r = pb_rng_make(8, PB_STREAM_TEST, 0);
    *s = (pb_seqs){.n = N, .longest = LONG};
    s->seq = malloc(N * sizeof *s->seq);
    s->tokens = malloc(N * LONG * sizeof *s->tokens);
    for (size_t i = 0; i < N; i++) {
        size_t n = 4 + pb_rng_below(&r, LONG - 3);
        s->seq[i] = (pb_seq){s->n_tokens, (uint32_t)n, (uint32_t)(1 + pb_rng_below(&r, n - 1))};
        for (size_t k = 0; k < n; k++)
            s->tokens[s->n_tokens++] = (int32_t)pb_rng_below(&r, vocab);
    }
}

// One step over all sequences; its gradients stay.
static pb_adapter *step(const pb_model *m, const char *method, size_t accumulate, double *loss)
{
    const pb_method *of = pb_method_find(method);
    pb_adapter *a;
    pb_seqs data;
    pb_train_options o;
    pb_train_result out;
    void *options;
    OK(pb_options_new(&options, of));
    if (!strcmp(method, "pedro")) // its second level would take half of the sequences
        OK(pb_options_assign(of, options, "theta_lr=0"));
    OK(pb_adapter_new(&a, of, options, &m->config, true));
    OK(pb_adapter_init(a, m, 7, 0, NULL, NULL, NULL));
    free(options);
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 1);
    fill(a->params.v, a->layout.size, 0, 0.3, &r);
    examples(&data, m->config.vocab);
    pb_train_defaults(&o);
    o.steps = 1;
    o.batch = N / accumulate;
    o.accumulate = accumulate;
    o.clip = 0;
    o.warmup = 0;
    OK(pb_train((pb_model *)m, a, &data, NULL, &o, NULL, &out));
    *loss = out.last_loss;
    pb_seqs_free(&data);
    return a;
}

static void test_accumulate(void **state)
{
    (void)state;
    static const char *const methods[] = {"lora", "pedro"};
    pb_model *m = tiny_open(0, &(pb_model_args){0});
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        double whole, loss;
        pb_adapter *a = step(m, methods[i], 1, &whole);
        for (size_t M = 2; M <= N; M *= M == 2 ? 2 : 3) {
            pb_adapter *b = step(m, methods[i], M, &loss);
            double norm = 0, off = 0;
            for (size_t k = 0; k < a->layout.size; k++) {
                norm += a->params.d[k] * a->params.d[k];
                off += (a->params.d[k] - b->params.d[k]) * (a->params.d[k] - b->params.d[k]);
            }
            assert_true(norm > 0 && sqrt(off) <= 1e-12 * sqrt(norm));
            assert_true(fabs(loss - whole) <= 1e-12 * whole);
            pb_adapter_free(b);
        }
        pb_adapter_free(a);
    }
    pb_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_accumulate)};
    OK(pb_threads_set(1));
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove);
}
