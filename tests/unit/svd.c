// The largest singular values and vectors: known ones come back, and what they leave is as small as
// it can be.
#include "tensor/svd.h"

#include "core/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static double dot(const real *a, const real *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void near(double x, double want, double tol)
{
    if (!(fabs(x - want) <= tol))
        fail_msg("%.9g, not %.9g", x, want);
}

// w = sum_k value_k a_k b_k^T with a, b from columns of the cosine transform, which are
// orthonormal.
static double basis(size_t n, size_t k, size_t i)
{
    return sqrt((k ? 2.0 : 1.0) / (double)n) *
           cos(3.14159265358979323846 * (double)k * ((double)i + 0.5) / (double)n);
}

static void known(void **state)
{
    static const struct {
        size_t out, in, r;
        double falloff;
    } cases[] = {{90, 70, 5, 0.8}, {33, 61, 33, 0.9}, {1, 7, 1, 1}, {130, 300, 8, 0.93}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t out = cases[c].out, in = cases[c].in, r = cases[c].r, least = out < in ? out : in;
        real *w = calloc(out * in, sizeof *w), *u = malloc(r * out * sizeof *u);
        real *s = malloc(r * sizeof *s), *v = malloc(r * in * sizeof *v);
        for (size_t k = 0; k < least; k++)
            for (size_t i = 0; i < out; i++)
                for (size_t j = 0; j < in; j++)
                    w[i * in + j] += (real)(3 * pow(cases[c].falloff, (double)k) *
                                            basis(out, k, i) * basis(in, k, j));
        assert_int_equal(pb_svd_top(u, s, v, w, out, in, r, 7), PB_OK);
        for (size_t k = 0; k < r; k++) {
            near((double)s[k], 3 * pow(cases[c].falloff, (double)k), 1e-4);
            for (size_t j = 0; j <= k; j++) {
                near(dot(u + k * out, u + j * out, out), j == k, 1e-4);
                near(dot(v + k * in, v + j * in, in), j == k, 1e-3);
            }
            double a = 0, b = 0; // up to a common sign
            for (size_t i = 0; i < out; i++)
                a += (double)u[k * out + i] * basis(out, k, i);
            for (size_t j = 0; j < in; j++)
                b += (double)v[k * in + j] * basis(in, k, j);
            near(a * b, 1, 1e-3);
        }
        free(w), free(u), free(s), free(v);
    }
}

// A matrix of lower rank than asked for.
static void deficient(void **state)
{
    enum { N = 24, R = 5 };
    real w[N * N], u[R * N], s[R], v[R * N];
    (void)state;
    for (size_t i = 0; i < N * N; i++)
        w[i] = (real)(basis(N, 1, i / N) * basis(N, 2, i % N));
    assert_int_equal(pb_svd_top(u, s, v, w, N, N, R, 7), PB_OK);
    near((double)s[0], 1, 1e-5);
    for (size_t k = 1; k < R; k++)
        near((double)s[k], 0, 1e-5);
    for (size_t i = 0; i < R * N; i++)
        assert_true(isfinite(u[i]) && isfinite(v[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known), cmocka_unit_test(deficient)};
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
