// Fits: the conditions that a least-squares solution without negative coefficients must meet;
// known coefficients found again, in both forms; and what is drawn from the ratios.
#include "core/nnls.h"
#include "serve/cost_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tiny.h"

enum { ROWS = 60, COLS = 12 };

// min |A x - b|, x >= 0: the gradient is 0 where x > 0 and not below 0 elsewhere (Karush, Kuhn,
// Tucker), which for this problem means that nothing is better.
static void check_solution(double (*A)[COLS], const double *b, size_t n)
{
    double G[COLS * COLS] = {0}, h[COLS] = {0}, x[COLS], size = 0;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < n; i++) {
            h[i] += A[r][i] * b[r];
            for (size_t j = 0; j < n; j++)
                G[i * n + j] += A[r][i] * A[r][j];
        }
    pb_nnls(x, G, h, n);
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs(h[i]));
    for (size_t i = 0; i < n; i++) {
        double gradient = -h[i];
        for (size_t j = 0; j < n; j++)
            gradient += G[i * n + j] * x[j];
        assert_true(x[i] >= 0 && isfinite(x[i]));
        if (!(gradient > -1e-8 * size) || (x[i] > 0 && !(fabs(gradient) < 1e-8 * size)))
            fail_msg("column %zu of %zu: x = %g, gradient %g", i, n, x[i], gradient);
    }
}

static void test_nnls(void **state)
{
    (void)state;
    double A[ROWS][COLS], b[ROWS];
    pb_rng r = pb_rng_make(2, PB_STREAM_TEST, 0);
    for (size_t trial = 0; trial < 400; trial++) {
        size_t n = 1 + trial % COLS;
        double mean = trial % 3 ? 1 : 0;
        for (size_t i = 0; i < ROWS; i++) {
            for (size_t j = 0; j < COLS; j++)
                A[i][j] = mean + pb_rng_normal(&r);
            if (trial % 5 == 1 && n > 3) { // dependent columns, and one of zeros
                A[i][1] = A[i][0] + 2 * A[i][2];
                A[i][3] = 0;
            }
            b[i] = mean + pb_rng_normal(&r);
            for (size_t j = 0; j < n && trial % 2; j++)
                b[i] += ((double)j - 2) * A[i][j];
        }
        check_solution(A, b, n);
    }
}

// ---------------------------------------------------------------- the model

enum { SAMPLES = 3000 };
static pb_cost_sample samples[SAMPLES];

static const pb_cost_sizes sizes = {60e6, 9e6, 3456, 14e6, 18e6, 6912};
#define SHARED                                                                                     \
    [PB_COST_STEP] = 150e-6, [PB_COST_WAKE] = 300e-6, [PB_COST_WEIGHTS] = 1 / 50e9,                \
    [PB_COST_ROWS] = 1 / 90e9, [PB_COST_ATTEND] = 9e-6, [PB_COST_SEGMENTS] = 2e-6,                 \
    [PB_COST_KV] = 1 / 2e9, [PB_COST_PAIRS] = 1 / 4e9, [PB_COST_HEADS] = 20e-6,                    \
    [PB_COST_HEAD_WEIGHTS] = 1 / 50e9, [PB_COST_LOGITS] = 1 / 80e9, [PB_COST_SCHEDULE] = 5e-6,     \
    [PB_COST_CHOICE] = 1 / 900e9
static double truth[2][PB_COST_TERMS] = {
    {SHARED, [PB_COST_TENANTS] = 4e-6, [PB_COST_ADAPTERS] = 1 / 3e9,
     [PB_COST_ADAPTER_ROWS] = 1 / 25e9},
    {SHARED, [PB_COST_PREFIX] = 1 / 60e9, [PB_COST_ADAPTED] = 10e-6, [PB_COST_TENANTS] = 1e-6}};

// A step of the cost model, by its parts: what a part takes, all others cost nothing.
static double part_of(const pb_cost_model *m, size_t group, const double *x, int part)
{
    double own[PB_COST_TERMS];
    for (int t = 0; t < PB_COST_TERMS; t++)
        own[t] = pb_cost_kinds[t].part == (pb_cost_part)part ? x[t] : 0;
    return pb_cost_seconds(m, group, own, &PB_SAME_MACHINE, NULL);
}

static void make_samples(bool max, double noise)
{
    pb_rng r = pb_rng_make(7, PB_STREAM_TEST, 0);
    pb_cost_model m = {.c = truth, .n_groups = 2};
    for (int part = 0; part < PB_COST_PARTS; part++)
        m.max[part] = max;
    for (size_t i = 0; i < SAMPLES; i++) {
        pb_work w = {.decode = pb_rng_below(&r, 17)};
        w.prefill = pb_rng_below(&r, 3) ? 0 : 1 + pb_rng_below(&r, 200);
        w.prefill += !w.prefill && !w.decode;
        w.n_out = w.decode + (w.prefill && pb_rng_below(&r, 2));
        w.batch.n_seg = w.decode + (w.prefill > 0) * (1 + pb_rng_below(&r, 3));
        w.tenants = w.decode ? 1 + pb_rng_below(&r, w.decode) : 1;
        w.adapter_bytes = w.tenants * (100000 + 300000 * pb_rng_below(&r, 2));
        w.keys = w.decode * (20 + pb_rng_below(&r, 100)) + w.prefill;
        w.pairs = w.keys + w.prefill * w.prefill / 2;
        pb_cost_sample *s = &samples[i];
        double idle = i % 8 ? 0.1e-3 : 5e-3;
        *s = (pb_cost_sample){.group = pb_rng_below(&r, 2)};
        pb_cost_terms(s->x, &sizes, &w, idle);
        double slower = exp(noise * pb_rng_normal(&r));
        for (int part = 0; part < PB_COST_PARTS; part++)
            s->seconds += s->part[part] = slower * part_of(&m, s->group, s->x, part);
    }
}

static void test_fit(void **state)
{
    (void)state;
    for (int max = 0; max < 2; max++) {
        pb_cost_model m;
        make_samples(max, 0);
        OK(pb_cost_fit(&m, samples, SAMPLES, 2, 50e9));
        assert_true(m.fitted.median < 1e-4 && m.held.p90 < 1e-3);
        assert_true(m.held.n == SAMPLES / 5 && m.fitted.n == SAMPLES - SAMPLES / 5);
        assert_true(m.max[PB_COST_BACKBONE] == max);
        for (size_t g = 0; g < 2; g++)
            for (int t = 0; t < PB_COST_TERMS && !max; t++) {
                double c = m.c[g][t], want = truth[g][t];
                if (!(fabs(c - want) <= 0.01 * want + 1e-13))
                    fail_msg("%s of group %zu: %g, not %g", pb_cost_kinds[t].name, g, c, want);
            }
        pb_cost_free(&m);
        make_samples(max, 0.1);
        OK(pb_cost_fit(&m, samples, SAMPLES, 2, 50e9));
        // |exp(0.1 Z) - 1| has the median 0.067.
        assert_true(m.held.median > 0.055 && m.held.median < 0.08);
        pb_cost_free(&m);
    }
}

// The data cannot tell the weights from a step's fixed time; the bandwidth does.
static void test_bandwidth(void **state)
{
    (void)state;
    static const double bandwidths[] = {50e9, 100e9, 0};
    double fixed = truth[0][PB_COST_STEP] + sizes.weights * truth[0][PB_COST_WEIGHTS];
    make_samples(false, 0);
    for (size_t i = 0; i < 3; i++) {
        pb_cost_model m;
        OK(pb_cost_fit(&m, samples, SAMPLES, 2, bandwidths[i]));
        double weights = m.c[0][PB_COST_WEIGHTS], step = m.c[0][PB_COST_STEP];
        if (bandwidths[i] > 0)
            assert_true(fabs(weights * bandwidths[i] - 1) < 0.02);
        else
            assert_true(weights < 1e-5 * truth[0][PB_COST_WEIGHTS]);
        assert_true(fabs((step + sizes.weights * weights) / fixed - 1) < 0.01);
        pb_cost_free(&m);
    }
}

static void test_machines(void **state)
{
    (void)state;
    double by[PB_RESOURCES], x[PB_COST_TERMS];
    pb_cost_model m = {.c = truth, .n_groups = 2};
    pb_work w = {.batch = {.n_seg = 8},
                 .decode = 8,
                 .n_out = 8,
                 .tenants = 4,
                 .adapter_bytes = 1000,
                 .keys = 99};
    pb_cost_terms(x, &sizes, &w, 0);
    double same = pb_cost_seconds(&m, 0, x, &PB_SAME_MACHINE, by);
    assert_true(fabs(by[0] + by[1] + by[2] - same) < 1e-12);
    double other = pb_cost_seconds(&m, 0, x, &(pb_machine){1, 4, 2}, NULL);
    assert_true(fabs(other - (by[0] + by[1] / 4 + by[2] / 2)) < 1e-12);
    m.max[PB_COST_HEAD] = true;
    double weights = x[PB_COST_HEAD_WEIGHTS] * truth[0][PB_COST_HEAD_WEIGHTS];
    double logits = x[PB_COST_LOGITS] * truth[0][PB_COST_LOGITS];
    assert_true(fabs(pb_cost_seconds(&m, 0, x, &PB_SAME_MACHINE, NULL) - same +
                     fmin(weights, logits)) < 1e-12);
}

// What is drawn for a prediction has the distribution of the ratios near it, and slow times follow
// slow times.
static void test_draws(void **state)
{
    (void)state;
    make_samples(false, 0);
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 1);
    double z = 0;
    for (size_t i = 0; i < SAMPLES; i++) { // short steps vary more
        z = 0.95 * z + sqrt(1 - 0.95 * 0.95) * pb_rng_normal(&r);
        double slower = exp((samples[i].seconds < 3e-3 ? 0.3 : 0.05) * z);
        samples[i].seconds *= slower;
        for (int part = 0; part < PB_COST_PARTS; part++)
            samples[i].part[part] *= slower;
    }
    pb_cost_model m;
    OK(pb_cost_fit(&m, samples, SAMPLES, 2, 50e9));
    static const double at[] = {2e-3, 1.0};
    for (int k = 0; k < 2; k++) {
        double sum = 0, square = 0, next = 0, before = 0, n = 20000;
        pb_cost_run run = {0};
        for (size_t i = 0; i < (size_t)n; i++) {
            double v = log(pb_cost_draw(&m, 0, at[k], &run, &r));
            sum += v / n;
            square += v * v / n;
            next += v * before / n;
            before = v;
        }
        double var = square - sum * sum, sd = sqrt(var), correlation = (next - sum * sum) / var;
        assert_true(k ? sd > 0.03 && sd < 0.08 : sd > 0.2 && sd < 0.4);
        assert_true(correlation > 0.8 && correlation < 0.97);
    }
    pb_cost_run run = {0};
    assert_true(pb_cost_draw(&m, 1, 0, &run, &r) > 0 && pb_cost_draw(&m, 1, 1e9, &run, &r) > 0);
    pb_cost_free(&m);
}

// Slow minutes are the machine's, whatever was measured in them; those of loads stay with loads.
static void test_slow_minutes(void **state)
{
    (void)state;
    for (int loads = 0; loads < 2; loads++) {
        make_samples(false, 0);
        for (size_t i = 0; i < SAMPLES; i++) {
            samples[i].loads = loads && samples[i].group;
            if (samples[i].group && i % 400 < 200) {
                samples[i].seconds *= 3;
                for (int part = 0; part < PB_COST_PARTS; part++)
                    samples[i].part[part] *= 3;
            }
        }
        pb_cost_model m;
        OK(pb_cost_fit(&m, samples, SAMPLES, 2, 50e9));
        assert_true(!m.loads[0] && m.loads[1] == loads);
        size_t equal = 0;
        pb_cost_run run[2] = {{0}};
        pb_rng r[2] = {pb_rng_make(3, PB_STREAM_TEST, 1), pb_rng_make(3, PB_STREAM_TEST, 1)};
        for (int i = 0; i < 1000; i++) {
            double a = pb_cost_draw(&m, 0, 2e-3, &run[0], &r[0]);
            equal += a == pb_cost_draw(&m, 1, 2e-3, &run[1], &r[1]);
        }
        assert_true(loads ? equal < 500 : equal == 1000);
        pb_cost_free(&m);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    pb_cost_model m;
    make_samples(false, 0);
    assert_int_equal(pb_cost_fit(&m, samples, 50, 2, 0), PB_INPUT);
    assert_int_equal(pb_cost_fit(&m, samples, SAMPLES, PB_COST_GROUPS + 1, 0), PB_INPUT);
    samples[77].seconds = 0;
    assert_int_equal(pb_cost_fit(&m, samples, SAMPLES, 2, 0), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "step 77"));
    pb_cost_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nnls),      cmocka_unit_test(test_fit),
        cmocka_unit_test(test_bandwidth), cmocka_unit_test(test_machines),
        cmocka_unit_test(test_draws),     cmocka_unit_test(test_slow_minutes),
        cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
