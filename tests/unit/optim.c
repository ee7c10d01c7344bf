// AdamW against the algorithm as published, schedules at their ends, gradient norm and clipping.
#include "train/optim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PLAIN, NO_DECAY, FROZEN, THETA, FAST, LARGE, N_SPECS };

// A layout with every flag that the optimizer looks at, and one matrix that takes several threads.
typedef struct fixture {
    pb_layout layout;
    pb_params p;
    real *m, *v;
} fixture;

static void make(fixture *f)
{
    *f = (fixture){0};
    static const unsigned flags[N_SPECS] = {0, PB_NO_DECAY, PB_FROZEN, PB_THETA, 0, 0};
    static const size_t rows[N_SPECS] = {3, 1, 2, 1, 2, 150}, cols[N_SPECS] = {5, 7, 3, 6, 9, 223};
    for (int i = 0; i < N_SPECS; i++) {
        pb_spec *s =
            pb_layout_add(&f->layout, 0, i, "x", rows[i], cols[i], PB_INIT_ZERO, 0, flags[i]);
        if (i == FAST)
            s->lr_scale = 16;
    }
    assert_int_equal(pb_layout_finish(&f->layout, 1), PB_OK);
    size_t n = f->layout.size;
    f->p = (pb_params){&f->layout, NULL, malloc(n * sizeof(real)), malloc(n * sizeof(real))};
    f->m = calloc(n, sizeof(real));
    f->v = calloc(n, sizeof(real));
    pb_rng r = pb_rng_make(1, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < n; i++) {
        f->p.v[i] = (real)pb_rng_normal(&r);
        f->p.d[i] = (real)pb_rng_normal(&r);
    }
}

static void drop(fixture *f)
{
    pb_layout_free(&f->layout);
    free(f->p.v), free(f->p.d), free(f->m), free(f->v);
}

static void adamw(void **state)
{
    (void)state;
    const pb_adamw o = {0.9, 0.98, 1e-6, 0.05};
    fixture f;
    make(&f);
    size_t n = f.layout.size;
    double *w = malloc(n * sizeof *w), *m = calloc(n, sizeof *m), *v = calloc(n, sizeof *v);
    real *start = malloc(n * sizeof *start);
    memcpy(start, f.p.v, n * sizeof *start);
    for (size_t i = 0; i < n; i++)
        w[i] = (double)f.p.v[i];
    pb_rng r = pb_rng_make(2, PB_STREAM_TEST, 0);
    for (size_t t = 1; t <= 12; t++) {
        double lr = 0.01 * (double)t;
        for (size_t i = 0; i < n; i++)
            f.p.d[i] = (real)(pb_rng_normal(&r) * (i % 5 ? 1 : 1e-4));
        // Loshchilov & Hutter, algorithm 2, with the decay multiplied by the rate as in PyTorch.
        for (int k = 0; k < N_SPECS; k++) {
            const pb_spec *s = &f.layout.spec[k];
            if (k == FROZEN || k == THETA)
                continue;
            double rate = lr * s->lr_scale, decay = k == NO_DECAY ? 0 : o.weight_decay;
            for (size_t i = s->offset; i < s->offset + s->rows * s->cols; i++) {
                double g = (double)f.p.d[i];
                m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
                v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
                double mh = m[i] / (1 - pow(o.beta1, (double)t));
                double vh = v[i] / (1 - pow(o.beta2, (double)t));
                w[i] -= rate * (mh / (sqrt(vh) + o.eps) + decay * w[i]);
            }
        }
        pb_adamw_step(&f.p, f.m, f.v, &o, lr, t, false);
        for (int k = 0; k < N_SPECS; k++) {
            const pb_spec *s = &f.layout.spec[k];
            for (size_t i = s->offset; i < s->offset + s->rows * s->cols; i++) {
                double want = k == FROZEN || k == THETA ? (double)start[i] : w[i];
                double tol = sizeof(real) == 8 ? 1e-13 : 3e-6;
                if (!(fabs((double)f.p.v[i] - want) <= tol * (1 + fabs(want))))
                    fail_msg("step %zu, matrix %d: %.9g, not %.9g", t, k, (double)f.p.v[i], want);
            }
        }
    }
    // The second level moves what the first left alone, and nothing else.
    real *was = malloc(n * sizeof *was);
    memcpy(was, f.p.v, n * sizeof *was);
    pb_adamw_step(&f.p, f.m, f.v, &o, 0.01, 1, true);
    for (int k = 0; k < N_SPECS; k++)
        for (size_t i = 0; i < f.layout.spec[k].rows * f.layout.spec[k].cols; i++) {
            size_t at = f.layout.spec[k].offset + i;
            assert_int_equal(f.p.v[at] != was[at], k == THETA);
        }
    free(w), free(m), free(v), free(start), free(was);
    drop(&f);
}

static void is(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want) + 1e-15))
        fail_msg("%.15g, not %.15g", got, want);
}

static void schedules(void **state)
{
    (void)state;
    const double lr = 0.3, floor = 0.1;
    static const pb_schedule all[] = {PB_CONSTANT, PB_LINEAR, PB_COSINE};
    for (int i = 0; i < 3; i++) {
        // Warm-up ends at the peak, which follows without a jump.
        is(pb_schedule_at(all[i], lr, 0, 4, 20, floor), lr / 4);
        is(pb_schedule_at(all[i], lr, 3, 4, 20, floor), lr);
        is(pb_schedule_at(all[i], lr, 4, 4, 20, floor), lr);
        is(pb_schedule_at(all[i], lr, 0, 0, 20, floor), lr);
        is(pb_schedule_at(all[i], lr, 20, 4, 20, floor), i ? lr * floor : lr);
        is(pb_schedule_at(all[i], lr, 12, 4, 20, floor), i ? lr * (1 + floor) / 2 : lr);
        double before = lr;
        for (size_t s = 4; s < 20; s++) {
            double now = pb_schedule_at(all[i], lr, s, 4, 20, floor);
            assert_true(now <= before && now >= lr * floor * (1 - 1e-12));
            before = now;
        }
        // More warm-up than steps, and steps past the end, are finite and in range.
        for (size_t s = 0; s < 30; s++) {
            double now = pb_schedule_at(all[i], lr, s, 10, 6, floor);
            assert_true(now >= 0 && now <= lr * (1 + 1e-12));
        }
        assert_true(pb_schedule_at(all[i], lr, 25, 4, 20, floor) <= lr);
    }
    is(pb_schedule_at(PB_LINEAR, lr, 19, 4, 20, 0), lr / 16);
    is(pb_schedule_at(PB_COSINE, lr, 8, 4, 20, 0), lr * 0.5 * (1 + cos(3.141592653589793 / 4)));
}

static void norm_and_clip(void **state)
{
    (void)state;
    for (int theta = 0; theta < 2; theta++) {
        fixture f;
        make(&f);
        real *was = malloc(f.layout.size * sizeof *was);
        memcpy(was, f.p.d, f.layout.size * sizeof *was);
        double sum = 0;
        for (int k = 0; k < N_SPECS; k++) {
            const pb_spec *s = &f.layout.spec[k];
            if (k != FROZEN && (k == THETA) == theta)
                for (size_t i = s->offset; i < s->offset + s->rows * s->cols; i++)
                    sum += (double)was[i] * (double)was[i];
        }
        double norm = pb_grad_norm(&f.p, theta);
        assert_true(fabs(norm - sqrt(sum)) <= 1e-12 * norm);
        pb_grad_scale(&f.p, 2.5 / norm, theta);
        assert_true(fabs(pb_grad_norm(&f.p, theta) - 2.5) <= 1e-6);
        for (int k = 0; k < N_SPECS; k++) {
            const pb_spec *s = &f.layout.spec[k];
            for (size_t i = s->offset; i < s->offset + s->rows * s->cols; i++) {
                bool mine = k != FROZEN && (k == THETA) == theta;
                double want = (double)was[i] * (mine ? 2.5 / norm : 1);
                assert_true(fabs((double)f.p.d[i] - want) <= 3e-7 * fabs(want));
            }
        }
        f.p.d[f.layout.spec[theta ? THETA : LARGE].offset] = (real)NAN;
        assert_true(isnan(pb_grad_norm(&f.p, theta)));
        free(was);
        drop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw),
        cmocka_unit_test(schedules),
        cmocka_unit_test(norm_and_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
