// AdaLoRA's part in training: the regulariser's gradient against differences of its formula, and
// which triplets are left against a second implementation of importance and budget.
#include "core/threads.h"
#include "train/trainer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tiny.h"

enum { STEPS = 20, FIRST = 4, LAST = 14, R = 4, TARGET = 2, LINEARS = 4 };

static pb_adapter *adapter(void)
{
    static const char *const set[] = {"targets", "q,down", "init_r", "4",      "target_r", "2",
                                      "tinit",   "0.2",    "tfinal", "0.3",    "every",    "2",
                                      "orth",    "0.7",    "beta1",  "0.8125", "beta2",    "0.75"};
    const pb_method *m = pb_method_find("adalora");
    pb_adapter *a;
    void *o;
    OK(pb_options_new(&o, m));
    for (size_t i = 0; i < sizeof set / sizeof *set; i += 2)
        OK(pb_options_set(m, o, set[i], set[i + 1]));
    OK(pb_adapter_new(&a, m, o, &pb_tinies[0].config, true));
    free(o);
    assert_int_equal(a->layout.n, 3 * LINEARS);
    return a;
}

static void randomise(real *v, size_t n, uint32_t which)
{
    pb_rng r = pb_rng_make(9, PB_STREAM_TEST, which);
    for (size_t i = 0; i < n; i++)
        v[i] = (real)pb_rng_normal(&r);
}

static bool is(const pb_spec *s, const char *name)
{
    return strstr(s->name, name) != NULL;
}

static double regulariser(const pb_adapter *a)
{
    double sum = 0, n = 0;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        const real *m = a->params.v + s->offset;
        double square = 0;
        if (is(s, "lora_E"))
            continue;
        for (size_t j = 0; j < s->rows; j++)
            for (size_t k = 0; k < s->rows; k++) {
                double dot = j == k ? -1 : 0;
                for (size_t c = 0; c < s->cols; c++)
                    dot += m[j * s->cols + c] * m[k * s->cols + c];
                square += dot * dot;
            }
        sum += sqrt(square);
        n++;
    }
    return 0.7 * sum / n;
}

static void gradient(void **state)
{
    pb_adapter *a = adapter();
    size_t n = a->layout.size;
    real *v = a->params.v, *d = a->params.d, *u = malloc(n * sizeof *u);
    (void)state;
    randomise(v, n, 1);
    randomise(d, n, 2);
    randomise(u, n, 3);
    double before = 0, after = 0, h = 1e-6, side[2];
    for (size_t i = 0; i < n; i++)
        before += d[i] * u[i];
    OK(a->method->gradient(&a->params, &(pb_train_args){.step = 1, .steps = STEPS}));
    for (size_t i = 0; i < n; i++)
        after += d[i] * u[i];
    for (int q = 0; q < 2; q++) {
        for (size_t i = 0; i < n; i++)
            v[i] += (q ? 2 * h : -h) * u[i];
        side[q] = regulariser(a);
    }
    double want = (side[1] - side[0]) / (2 * h);
    if (!(fabs(after - before - want) <= 1e-7 * fabs(want)))
        fail_msg("the gradient says %.10g, differences say %.10g", after - before, want);
    free(u);
    pb_adapter_free(a);
}

// Sensitivity and uncertainty of every value, by name of its place.
static void allocation(void **state)
{
    pb_adapter *a = adapter();
    size_t n = a->layout.size, all = LINEARS * R, least = LINEARS * TARGET;
    real *v = a->params.v, *d = a->params.d, *own = calloc(2 * n, sizeof *own);
    double *S = calloc(n, sizeof *S), *U = calloc(n, sizeof *U);
    (void)state;
    for (size_t t = 1; t <= STEPS; t++) {
        bool kept[LINEARS * R];
        double score[LINEARS * R] = {0};
        randomise(v, n, 100 + (uint32_t)t);
        randomise(d, n, 200 + (uint32_t)t);
        for (size_t i = 0; t < LAST && i < a->layout.n; i++)
            for (size_t k = 0; k < a->layout.spec[i].rows * a->layout.spec[i].cols; k++) {
                size_t at = a->layout.spec[i].offset + k;
                double I = fabs(v[at] * d[at]);
                S[at] = 0.8125 * S[at] + 0.1875 * I;
                U[at] = 0.75 * U[at] + 0.25 * fabs(I - S[at]);
            }
        size_t place = 0; // specs come as A, E, B of one linear after the other
        for (size_t i = 0; i < a->layout.n; i++) {
            const pb_spec *s = &a->layout.spec[i];
            bool E = is(s, "lora_E");
            for (size_t k = 0; k < s->rows * s->cols; k++) {
                size_t at = s->offset + k, j = E ? k : k / s->cols;
                score[place + j] += S[at] * U[at] / (E ? 1 : (double)s->cols);
            }
            place += is(s, "lora_B") ? R : 0;
        }
        double left = 1 - ((double)t - FIRST) / (LAST - FIRST);
        size_t budget =
            t < LAST ? least + (size_t)((double)(all - least) * left * left * left) : least;
        bool masked = t >= LAST || (t > FIRST && t % 2 == 0);
        for (size_t x = 0; x < all; x++) {
            size_t better = 0;
            for (size_t y = 0; y < all; y++)
                better += score[y] > score[x];
            kept[x] = !masked || better < budget;
        }
        OK(a->method->updated(&a->params,
                              &(pb_train_args){.step = t, .steps = STEPS, .statistics = own}));
        place = 0;
        for (size_t i = 0; i < a->layout.n; i++) {
            const pb_spec *s = &a->layout.spec[i];
            for (size_t k = 0; is(s, "lora_E") && k < R; k++, place++)
                if ((v[s->offset + k] != 0) != kept[place])
                    fail_msg("step %zu: triplet %zu %s", t, place,
                             kept[place] ? "is pruned" : "stays");
        }
        assert_int_equal(place, all);
    }
    free(own), free(S), free(U);
    pb_adapter_free(a);
}

// What training ends with is within the budget, though validations before were better: what is
// validated has other responses, so that its loss rises.
static void budget(void **state)
{
    enum { N = 12, LENGTH = 9 };
    static int32_t tokens[N * LENGTH], other[N * LENGTH];
    static pb_seq seq[N];
    const pb_seqs data = {
        .tokens = tokens, .n_tokens = N * LENGTH, .seq = seq, .n = N, .longest = LENGTH};
    pb_seqs valid = data;
    valid.tokens = other;
    (void)state;
    pb_model *m = tiny_open(0, &(pb_model_args){0});
    pb_adapter *a = adapter();
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < N; i++) {
        seq[i] = (pb_seq){i * LENGTH, LENGTH, 3};
        for (size_t k = 0; k < LENGTH; k++) {
            tokens[i * LENGTH + k] = (int32_t)(k < 3 ? pb_rng_below(&r, 40) : 5 + k);
            other[i * LENGTH + k] = k < 3 ? tokens[i * LENGTH + k] : (int32_t)(30 - k);
        }
    }
    OK(pb_adapter_init(a, m, 5, 0, NULL, NULL, NULL));
    pb_train_options o;
    pb_train_result out;
    pb_train_defaults(&o);
    o.steps = STEPS;
    o.batch = 4;
    o.eval_every = 1;
    o.patience = 3;
    o.warmup = 0;
    o.lr = 0.05;
    OK(pb_train(m, a, &data, &valid, &o, NULL, &out));
    size_t kept = 0;
    for (size_t i = 0; i < a->layout.n; i++)
        for (size_t k = 0; is(&a->layout.spec[i], "lora_E") && k < R; k++)
            kept += a->params.v[a->layout.spec[i].offset + k] != 0;
    assert_int_equal(kept, LINEARS * TARGET);
    assert_true(out.best_step >= LAST);
    pb_adapter_free(a);
    pb_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradient), cmocka_unit_test(allocation),
                                       cmocka_unit_test(budget)};
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove) ? 1 : 0;
}
