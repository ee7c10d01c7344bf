// Source: Halko, Martinsson & Tropp 2011, SIAM Review 53(2), algorithms 4.4 and 5.1: an orthonormal
// basis q of what powers of w w^T make of random vectors, then the decomposition of the small
// matrix q w, here through the eigenvectors of (q w)(q w)^T by Jacobi's rotations. Products are in
// `real`, through BLIS; what is as small as the basis is in double.
#include "tensor/svd.h"

#include "core/rng.h"
#include "core/threads.h"
#include "tensor/gemm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA = 10, PASSES = 16, SWEEPS = 60 };

// Makes the rows of q(l,n) orthonormal, twice over, so that rounding does not remain. A row that is
// a combination of those before it becomes zero.
static void orthonormal(real *q, size_t l, size_t n)
{
    for (size_t i = 0; i < l; i++) {
        real *x = q + i * n;
        double before = 0, norm = 0;
        for (size_t k = 0; k < n; k++)
            before += (double)x[k] * (double)x[k];
        for (int pass = 0; pass < 2; pass++)
            for (size_t j = 0; j < i; j++) {
                double dot = 0;
                for (size_t k = 0; k < n; k++)
                    dot += (double)x[k] * (double)q[j * n + k];
                for (size_t k = 0; k < n; k++)
                    x[k] -= (real)(dot * (double)q[j * n + k]);
            }
        for (size_t k = 0; k < n; k++)
            norm += (double)x[k] * (double)x[k];
        double by = norm > 1e-10 * before ? 1 / sqrt(norm) : 0;
        for (size_t k = 0; k < n; k++)
            x[k] = (real)(by * (double)x[k]);
    }
}

// g(n,n) symmetric becomes diagonal; the columns of e(n,n) are its eigenvectors. Source: Golub &
// Van Loan, Matrix Computations, 8.5 (cyclic Jacobi).
static void eigen(double *g, double *e, size_t n)
{
    for (size_t i = 0; i < n * n; i++)
        e[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, all = 0;
        for (size_t i = 0; i < n * n; i++) {
            all += g[i] * g[i];
            off += i % (n + 1) ? g[i] * g[i] : 0;
        }
        if (!(off > 1e-30 * all))
            return;
        for (size_t p = 0; p < n; p++)
            for (size_t q = p + 1; q < n; q++) {
                if (g[p * n + q] == 0)
                    continue;
                double tau = (g[q * n + q] - g[p * n + p]) / (2 * g[p * n + q]);
                double t = (tau < 0 ? -1 : 1) / (fabs(tau) + sqrt(1 + tau * tau));
                double c = 1 / sqrt(1 + t * t), s = t * c;
                for (size_t k = 0; k < n; k++) { // columns, of g and of e
                    double a = g[k * n + p], b = g[k * n + q];
                    g[k * n + p] = c * a - s * b;
                    g[k * n + q] = s * a + c * b;
                    a = e[k * n + p], b = e[k * n + q];
                    e[k * n + p] = c * a - s * b;
                    e[k * n + q] = s * a + c * b;
                }
                for (size_t k = 0; k < n; k++) { // rows
                    double a = g[p * n + k], b = g[q * n + k];
                    g[p * n + k] = c * a - s * b;
                    g[q * n + k] = s * a + c * b;
                }
            }
    }
}

// to(n) = by * sum_i e[i * l + k] * rows(l,n)[i]
static void combine(real *to, const double *e, size_t k, const real *rows, size_t l, size_t n,
                    double by)
{
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t i = 0; i < l; i++)
            sum += e[i * l + k] * (double)rows[i * n + j];
        to[j] = (real)(by * sum);
    }
}

pb_err pb_svd_top(real *u, real *s, real *v, const real *w, size_t out, size_t in, size_t r,
                  uint64_t seed)
{
    size_t least = out < in ? out : in, l = r + EXTRA < least ? r + EXTRA : least;
    int threads = pb_threads();
    real *q = malloc(l * out * sizeof *q), *t = malloc(l * in * sizeof *t);
    double *g = malloc(2 * l * l * sizeof *g), *e = g + l * l;
    pb_err err = PB_OK;
    if (!q || !t || !g)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu singular vectors", l));
    pb_rng rng = pb_rng_make(seed, PB_STREAM_INIT, UINT32_MAX);
    for (size_t i = 0; i < l * in; i++)
        t[i] = (real)pb_rng_normal(&rng);
    for (int pass = 0; pass < PASSES; pass++) {
        pb_gemm(false, true, l, out, in, 1, t, in, w, in, 0, q, out, threads); // q = t w^T
        orthonormal(q, l, out);
        pb_gemm(false, false, l, in, out, 1, q, out, w, in, 0, t, in, threads); // t = q w
        if (pass + 1 < PASSES)
            orthonormal(t, l, in);
    }
    for (size_t i = 0; i < l; i++)
        for (size_t j = 0; j < l; j++) {
            double dot = 0;
            for (size_t k = 0; k < in; k++)
                dot += (double)t[i * in + k] * (double)t[j * in + k];
            g[i * l + j] = dot;
        }
    eigen(g, e, l);
    for (size_t k = 0; k < r; k++) {
        size_t top = 0;
        for (size_t i = 1; i < l; i++)
            top = g[i * (l + 1)] > g[top * (l + 1)] ? i : top;
        double value = sqrt(fmax(g[top * (l + 1)], 0));
        s[k] = (real)value;
        combine(u + k * out, e, top, q, l, out, 1);
        combine(v + k * in, e, top, t, l, in, value > 0 ? 1 / value : 0);
        g[top * (l + 1)] = -1;
    }
done:
    free(q);
    free(t);
    free(g);
    return err;
}
