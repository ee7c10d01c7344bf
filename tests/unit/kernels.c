// The kernels of every instruction set this machine has, against plain loops in double: odd sizes,
// strides, and the promise that a row's result does not depend on the rows around it.
#include "core/rng.h"
#include "tensor/kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const pb_kernels *k; // the set under test
static pb_rng rng;

// A matrix with stride and a guard after every row: what a kernel must not touch.
typedef struct mat {
    real *v;
    size_t rows, cols, ld;
} mat;

#define GUARD ((real)-77.25)

static mat make(size_t rows, size_t cols, size_t gap)
{
    mat m = {NULL, rows, cols, cols + gap};
    m.v = malloc((rows * m.ld + 1) * sizeof *m.v);
    assert_non_null(m.v);
    for (size_t i = 0; i < rows * m.ld + 1; i++)
        m.v[i] = i % m.ld < cols && i < rows * m.ld ? (real)pb_rng_normal(&rng) : GUARD;
    return m;
}

static mat copy(mat m)
{
    mat c = m;
    c.v = malloc((m.rows * m.ld + 1) * sizeof *c.v);
    assert_non_null(c.v);
    memcpy(c.v, m.v, (m.rows * m.ld + 1) * sizeof *c.v);
    return c;
}

static void guarded(mat m, const char *what)
{
    for (size_t i = 0; i < m.rows * m.ld + 1; i++)
        if ((i % m.ld >= m.cols || i == m.rows * m.ld) && m.v[i] != GUARD)
            fail_msg("%s %s wrote past a row: (%zu,%zu) of (%zu,%zu)", k->isa, what, i / m.ld,
                     i % m.ld, m.rows, m.cols);
}

// `size` is the sum of the absolute values of what was added up: rounding is relative to it.
static void close_to(const char *what, real got, double want, double size, size_t n, size_t i,
                     size_t j)
{
    double eps = sizeof(real) == 8 ? 2.3e-16 : 1.2e-7, tol = eps * (4 + sqrt((double)n)) * size;
    if (!(fabs((double)got - want) <= tol + 1e-37))
        fail_msg("%s %s (%zu,%zu): %.9g, not %.9g (tolerance %g)", k->isa, what, i, j, (double)got,
                 want, tol);
}

static void same_rows(const char *what, mat a, mat b, size_t row)
{
    if (memcmp(a.v, b.v + row * b.ld, a.cols * sizeof *a.v))
        fail_msg("%s %s: row %zu of %zu is not what it is alone", k->isa, what, row, b.rows);
}

// Sizes around every tile boundary.
static const size_t rows_of[] = {1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 27, 28, 29, 40};
static const size_t inner_of[] = {0, 1, 3, 8, 17, 64, 129, 1030};
static const size_t cols_of[] = {1, 2, 5, 15, 16, 17, 31, 32, 33, 47, 64, 70, 130};
#define EACH(i, list) for (size_t i = 0; i < sizeof list / sizeof *list; i++)

// bfloat16 words of a panel, and the same values as numbers.
static uint32_t *to_words(mat w)
{
    uint32_t *h = malloc((w.rows * PB_NW + 1) * sizeof *h);
    assert_non_null(h);
    memset(h, 0, (w.rows * PB_NW + 1) * sizeof *h);
    for (size_t i = 0; i < w.rows * PB_NR; i++) {
        float f = (float)w.v[i];
        uint32_t bits, j = i % PB_NR;
        memcpy(&bits, &f, sizeof bits);
        bits &= 0xffff0000;
        memcpy(&f, &bits, sizeof f);
        w.v[i] = (real)f;
        h[i / PB_NR * PB_NW + j % PB_NW] |= j < PB_NW ? bits >> 16 : bits;
    }
    return h;
}

// 8-bit groups of a panel, and the values that they stand for. Some scales are as small and as
// large as half precision has them.
static char *to_bytes(mat w)
{
    size_t size = pb_panel_bytes(PB_PANEL_INT8, w.rows);
    char *p = calloc(size + 1, 1);
    assert_non_null(p);
    for (size_t g = 0; g < w.rows; g += PB_GROUP) {
        uint16_t *scale = (void *)(p + pb_panel_bytes(PB_PANEL_INT8, g));
        int8_t *q = (int8_t *)(scale + PB_NR);
        for (size_t j = 0; j < PB_NR; j++) {
            scale[j] = (uint16_t)(j == 3 ? 1 : j == 5 ? 0 : 0x2000 + pb_rng_below(&rng, 0x800));
            int e = scale[j] >> 10;
            double by = e ? ldexp(1024 + (scale[j] & 1023), e - 25) : ldexp(scale[j], -24);
            for (size_t i = g; i < g + PB_GROUP && i < w.rows; i++) {
                q[(i - g) * PB_NR + j] = (int8_t)((int)pb_rng_below(&rng, 255) - 127);
                w.v[i * PB_NR + j] = (real)(by * q[(i - g) * PB_NR + j]);
            }
        }
    }
    return p;
}

// The same bits from fewer bits as from the numbers that they stand for.
static void narrow_at(pb_panel_kind kind, size_t R, size_t K, size_t n, bool add)
{
    mat x = make(R, K, 3), w = make(K, PB_NR, 0), y = make(R, n, 2), z = copy(y);
    void *h = kind == PB_PANEL_BF16 ? (void *)to_words(w) : to_bytes(w);
    k->panel[PB_PANEL_FP32](y.v, y.ld, x.v, x.ld, w.v, R, K, n, add);
    k->panel[kind](z.v, z.ld, x.v, x.ld, h, R, K, n, add);
    guarded(z, "narrow panel");
    for (size_t i = 0; i < R; i++)
        if (memcmp(z.v + i * z.ld, y.v + i * y.ld, n * sizeof *y.v))
            fail_msg("%s panel of kind %d (%zu,%zu,%zu): row %zu has other bits than from numbers",
                     k->isa, kind, R, K, n, i);
    free(x.v), free(w.v), free(y.v), free(z.v), free(h);
}

static void panel_at(size_t R, size_t K, size_t n, bool add)
{
    mat x = make(R, K, 3), w = make(K, PB_NR, 0), y = make(R, n, 2), was = copy(y);
    k->panel[PB_PANEL_FP32](y.v, y.ld, x.v, x.ld, w.v, R, K, n, add);
    guarded(y, "panel");
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < n; j++) {
            double s = add ? (double)was.v[i * y.ld + j] : 0, size = fabs(s);
            for (size_t q = 0; q < K; q++) {
                double p = (double)x.v[i * x.ld + q] * (double)w.v[q * PB_NR + j];
                s += p;
                size += fabs(p);
            }
            close_to("panel", y.v[i * y.ld + j], s, size, K, i, j);
        }
    for (size_t i = 0; i < R; i++) {
        mat one = make(1, n, 2);
        memcpy(one.v, was.v + i * was.ld, n * sizeof(real));
        k->panel[PB_PANEL_FP32](one.v, one.ld, x.v + i * x.ld, x.ld, w.v, 1, K, n, add);
        same_rows("panel", one, y, i);
        free(one.v);
    }
    // A cut of the inner dimension continues the same sums.
    mat cut = copy(was);
    size_t half = K / 2;
    k->panel[PB_PANEL_FP32](cut.v, cut.ld, x.v, x.ld, w.v, R, half, n, add);
    k->panel[PB_PANEL_FP32](cut.v, cut.ld, x.v + half, x.ld, w.v + half * PB_NR, R, K - half, n,
                            true);
    for (size_t i = 0; i < R; i++)
        assert_memory_equal(cut.v + i * cut.ld, y.v + i * y.ld, n * sizeof(real));
    free(x.v), free(w.v), free(y.v), free(was.v), free(cut.v);
}

static void panels(void **state)
{
    k = *state;
    EACH(r, rows_of)
    EACH(i, inner_of)
    for (size_t n = 1; n <= PB_NR; n += n < 3 || n >= 30 ? 1 : 9)
        for (int add = 0; add < 2; add++) {
            panel_at(rows_of[r], inner_of[i], n, add);
            narrow_at(PB_PANEL_BF16, rows_of[r], inner_of[i], n, add);
            narrow_at(PB_PANEL_INT8, rows_of[r], inner_of[i], n, add);
        }
}

static void turns(void **state)
{
    k = *state;
    for (int kind = 0; kind < PB_PANEL_KINDS; kind++)
        for (size_t n = 0; n <= PB_NR; n++) {
            mat w = make(n, PB_NR, 0), t = make(PB_NR, PB_NR, 0);
            void *h = kind == PB_PANEL_BF16   ? (void *)to_words(w)
                      : kind == PB_PANEL_INT8 ? to_bytes(w)
                                              : NULL;
            k->turn[kind](t.v, h ? h : w.v, n);
            guarded(t, "turn");
            for (size_t j = 0; j < PB_NR; j++)
                for (size_t i = 0; i < PB_NR; i++) {
                    real want = i < n ? w.v[i * PB_NR + j] : 0;
                    if (t.v[j * PB_NR + i] != want)
                        fail_msg("%s turn of kind %d, %zu inputs, (%zu,%zu): %g, not %g", k->isa,
                                 kind, n, j, i, (double)t.v[j * PB_NR + i], (double)want);
                }
            free(w.v), free(t.v), free(h);
        }
}

// t = scale x a^T
static void dots_at(size_t R, size_t r, size_t n)
{
    mat x = make(R, n, 1), a = make(r, n, 5), t = make(R, r, 3);
    const real scale = (real)0.37;
    k->dots(t.v, t.ld, x.v, x.ld, a.v, a.ld, R, r, n, scale);
    guarded(t, "dots");
    for (size_t i = 0; i < R; i++) {
        mat one = make(1, r, 0);
        for (size_t j = 0; j < r; j++) {
            double s = 0, size = 0;
            for (size_t q = 0; q < n; q++) {
                double p = (double)scale * (double)x.v[i * x.ld + q] * (double)a.v[j * a.ld + q];
                s += p;
                size += fabs(p);
            }
            close_to("dots", t.v[i * t.ld + j], s, size, n, i, j);
        }
        k->dots(one.v, one.ld, x.v + i * x.ld, x.ld, a.v, a.ld, 1, r, n, scale);
        same_rows("dots", one, t, i);
        free(one.v);
    }
    free(x.v), free(a.v), free(t.v);
}

// y += scale t b, and the same numbers as g += scale t'^T b for outer.
static void axpys_at(size_t R, size_t r, size_t n)
{
    mat t = make(R, r, 2), b = make(r, n, 3), y = make(R, n, 4), was = copy(y), g = copy(y);
    mat turned = make(r, R, 1);
    const real scale = (real)-1.6;
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < r; j++)
            turned.v[j * turned.ld + i] = t.v[i * t.ld + j];
    k->axpys(y.v, y.ld, t.v, t.ld, b.v, b.ld, R, r, n, scale);
    k->outer(g.v, g.ld, turned.v, turned.ld, b.v, b.ld, r, R, n, scale);
    guarded(y, "axpys");
    guarded(g, "outer");
    for (size_t i = 0; i < R; i++) {
        mat one = make(1, n, 0);
        for (size_t j = 0; j < n; j++) {
            double s = (double)was.v[i * was.ld + j], size = fabs(s);
            for (size_t q = 0; q < r; q++) {
                double p = (double)scale * (double)t.v[i * t.ld + q] * (double)b.v[q * b.ld + j];
                s += p;
                size += fabs(p);
            }
            close_to("axpys", y.v[i * y.ld + j], s, size, r, i, j);
            close_to("outer", g.v[i * g.ld + j], s, size, r, i, j);
        }
        memcpy(one.v, was.v + i * was.ld, n * sizeof(real));
        k->axpys(one.v, one.ld, t.v + i * t.ld, t.ld, b.v, b.ld, 1, r, n, scale);
        same_rows("axpys", one, y, i);
        free(one.v);
    }
    free(t.v), free(b.v), free(y.v), free(was.v), free(g.v), free(turned.v);
}

static void low_rank(void **state)
{
    static const size_t ranks[] = {1, 2, 3, 4, 5, 8, 9, 21};
    k = *state;
    EACH(r, rows_of)
    EACH(q, ranks)
    EACH(c, cols_of)
    {
        dots_at(rows_of[r], ranks[q], cols_of[c]);
        axpys_at(rows_of[r], ranks[q], cols_of[c]);
    }
    dots_at(5, 5, 1030);
    dots_at(3, 2, 0);
    axpys_at(5, 1030, 33);
    axpys_at(3, 0, 70);
}

static void vectors(void **state)
{
    k = *state;
    for (size_t n = 0; n <= 140; n++) {
        mat x = make(1, n, 1), y = make(1, n, 1), z = make(1, n, 1);
        double s = 0, size = 0;
        for (size_t i = 0; i < n; i++) {
            s += (double)x.v[i] * (double)y.v[i];
            size += fabs((double)x.v[i] * (double)y.v[i]);
        }
        close_to("dot", k->dot(x.v, y.v, n), s, size, n, 0, n);
        mat a = copy(z), b = copy(z), c = copy(z);
        k->axpby(a.v, (real)0.7, x.v, (real)-1.2, n);
        k->mul(b.v, x.v, y.v, n);
        k->mul_add(c.v, x.v, y.v, n);
        for (size_t i = 0; i < n; i++) {
            double p = (double)x.v[i] * (double)y.v[i], was = (double)z.v[i];
            double l = (double)(real)0.7 * (double)x.v[i], r = (double)(real)-1.2 * was;
            close_to("axpby", a.v[i], l + r, fabs(l) + fabs(r), 1, 0, i);
            close_to("mul", b.v[i], p, fabs(p), 1, 0, i);
            close_to("mul_add", c.v[i], was + p, fabs(was) + fabs(p), 1, 0, i);
        }
        guarded(a, "axpby"), guarded(b, "mul"), guarded(c, "mul_add");
        free(x.v), free(y.v), free(z.v), free(a.v), free(b.v), free(c.v);
    }
}

// The gate in double, by the textbook formulas.
static void gate(double g, pb_gate_kind act, double *value, double *slope)
{
    if (act == PB_SILU) {
        double s = g >= 0 ? 1 / (1 + exp(-g)) : exp(g) / (1 + exp(g));
        *value = g * s;
        *slope = s + g * s * (1 - s);
    } else if (act == PB_GELU_ERF) {
        double phi = erfc(-g / sqrt(2)) / 2;
        *value = g * phi;
        *slope = phi + g * exp(-g * g / 2) / sqrt(2 * 3.14159265358979323846);
    } else {
        double c = sqrt(2 / 3.14159265358979323846), u = c * (g + 0.044715 * g * g * g);
        double th = tanh(u);
        *value = 0.5 * g * (1 + th);
        *slope = 0.5 * (1 + th) + 0.5 * g * (1 - th * th) * c * (1 + 3 * 0.044715 * g * g);
    }
}

static void gates(void **state)
{
    static const double special[] = {0,  -0.0, 1e-30, -1e-30, 20,   -20,  87.2,
                                     90, -90,  300,   -300,   3000, -3000};
    enum { N = 4000 };
    static real g[N], u[N], m[N], dm[N], dg[N], du[N], part[N];
    k = *state;
    for (int act = PB_SILU; act <= PB_GELU_ERF; act++) {
        for (size_t i = 0; i < N; i++) {
            g[i] = (real)(i < 13 ? special[i] : -30 + 60.0 * (double)i / N);
            u[i] = (real)pb_rng_normal(&rng);
            dm[i] = (real)pb_rng_normal(&rng);
            dg[i] = du[i] = 1;
        }
        k->glu(m, g, u, N, (pb_gate_kind)act);
        k->glu_back(dg, du, dm, g, u, N, (pb_gate_kind)act);
        for (size_t i = 0; i < N; i++) {
            double v, s, x = (double)g[i], d = (double)dm[i], w = (double)u[i];
            gate(x, (pb_gate_kind)act, &v, &s);
            // Where tanh is near -1 its sum with 1 cancels: relative to |g|, not to the value.
            close_to("glu", m[i], v * w, 8 * fabs(w) * (fabs(v) + 1e-7 * fabs(x)), 1, act, i);
            close_to("glu_back dg", dg[i], 1 + d * w * s, 1 + 8 * fabs(d * w), 1, act, i);
            close_to("glu_back du", du[i], 1 + d * v, 1 + 8 * fabs(d * v), 1, act, i);
        }
        // One half of the gradient may be absent, and an element's value does not depend on its
        // place in a vector.
        memcpy(part, dg, sizeof part);
        for (size_t i = 0; i < N; i++)
            dg[i] = du[i] = 1;
        k->glu_back(dg, NULL, dm, g, u, N, (pb_gate_kind)act);
        assert_memory_equal(part, dg, sizeof part);
        k->glu_back(NULL, du, dm, g, u, N, (pb_gate_kind)act);
        for (size_t n = 1; n < 70; n++) {
            k->glu(part, g + n, u + n, n, (pb_gate_kind)act);
            assert_memory_equal(part, m + n, n * sizeof *m);
        }
    }
}

static void softmaxes(void **state)
{
    k = *state;
    for (size_t n = 1; n <= 300; n += n < 70 ? 1 : 37)
        for (int scale = -2; scale <= 3; scale++) {
            mat x = make(1, n, 1), p = x;
            double top = -INFINITY, sum = 0, shift = scale == 3 ? -1e4 : 0;
            for (size_t i = 0; i < n; i++) {
                x.v[i] = (real)((double)x.v[i] * pow(10, scale) + shift);
                top = fmax(top, (double)x.v[i]);
            }
            for (size_t i = 0; i < n; i++)
                sum += exp((double)x.v[i] - top);
            real lse = k->log_sum_exp(x.v, n);
            close_to("log_sum_exp", lse, top + log(sum), 2 + fabs(top), n, n, 0);
            p = copy(x);
            k->softmax(p.v, n, lse, (real)2.5);
            guarded(p, "softmax");
            for (size_t i = 0; i < n; i++) {
                double want = 2.5 * exp((double)x.v[i] - (double)lse);
                // The argument is rounded before exp: relative error of its size.
                close_to("softmax", p.v[i], want, want * (8 + fabs(top) + fabs((double)x.v[i])), 1,
                         n, i);
            }
            free(x.v), free(p.v);
        }
}

// What benchmarks read and count: every value once, and chains that converge where they must: from
// any start, x -> x / 2 + 1 / 2 ends at 1 in every lane.
static void limits(void **state)
{
    k = *state;
    for (size_t n = 0; n <= 700; n += n < 70 ? 1 : 37) {
        mat x = make(1, n, 1);
        double want = 0, size = 0;
        for (size_t i = 0; i < n; i++) {
            want += (double)x.v[i];
            size += fabs((double)x.v[i]);
        }
        close_to("sum", k->sum(x.v, n), want, size, n, n, 0);
        free(x.v);
    }
    size_t flops = 0;
    real ends = k->peak(200, &flops);
    close_to("peak", ends, (double)flops / 2, (double)flops / 2, flops, 200, 0);
}

// exp itself, through the softmax of one value that is not the maximum.
static void exponential(void **state)
{
    k = *state;
    double worst = 0;
    for (double a = -87; a <= 80; a += 0.00371) {
        real x = (real)a, y = x;
        k->softmax(&y, 1, 0, 1);
        double want = exp((double)x);
        worst = fmax(worst, fabs((double)y - want) / want);
        assert_true(isfinite(y));
    }
    print_message("%s: exp errs by %.2g\n", k->isa, worst);
    assert_true(worst <= (sizeof(real) == 8 ? 4e-16 : 2.5e-7));
    for (int i = 0; i < 2; i++) {
        real y = (real)(i ? -1e30 : -200);
        k->softmax(&y, 1, 0, 1);
        assert_true(y >= 0 && y <= (real)1.3e-38);
    }
}

// Soft caps, also of values far beyond the cap and so small that a difference of exponentials would
// lose them.
static void caps(void **state)
{
    enum { N = 3000 };
    static real x[N], y[N], part[N];
    k = *state;
    for (size_t i = 0; i < N; i++)
        x[i] = (real)(i < 200   ? 1e-6 * ((double)i - 100)
                      : i < 210 ? -1e4 + 2e3 * (double)i
                                : 0.1 * ((double)i - 1500));
    memcpy(y, x, sizeof y);
    k->soft_cap(y, N, (real)0.25, 30);
    for (size_t i = 0; i < N; i++) {
        double want = 30 * tanh(0.25 * (double)x[i] / 30);
        close_to("soft_cap", y[i], want, fabs(want), 1, 0, i);
    }
    for (size_t n = 1; n < 70; n++) {
        memcpy(part, x + n, n * sizeof *x);
        k->soft_cap(part, n, (real)0.25, 30);
        assert_memory_equal(part, y + n, n * sizeof *y);
    }
}

// Online softmax over blocks against the plain one: any number of blocks, lanes masked from above
// and (windows) from below, garbage (even NaN) in masked lanes, queries that see nothing of a
// block.
static void online(void **state)
{
    enum { B = 4, D = 13, MOST = 17 };
    k = *state;
    for (size_t R = 1; R <= MOST; R += 4)
        for (int way = 0; way < 4; way++) {
            bool big = way & 1, window = way & 2;
            mat s = make(R * B, PB_NR, 0), v = make(B * PB_NR, D, 2), o = make(R, D, 3);
            mat alone = make(R, D, 3);
            real m[MOST], l[MOST], blk[MOST * PB_NR], lse[MOST], m1, l1, blk1[PB_NR];
            size_t sees[MOST], from[MOST], first[MOST], valid[MOST];
            const size_t *low = window ? first : NULL;
            const real scale = (real)0.31;
            for (size_t i = 0; i < R; i++) {
                m[i] = (real)-1e30;
                l[i] = 0;
                sees[i] = 1 + (i * 29 + R) % (B * PB_NR);
                from[i] = window ? sees[i] * (i % 3 + 1) / 4 : 0;
                memset(o.v + i * o.ld, 0, D * sizeof(real));
                memset(alone.v + i * o.ld, 0, D * sizeof(real));
                for (size_t j = 0; j < B * PB_NR; j++) {
                    real *at = &s.v[(i * B + j / PB_NR) * PB_NR + j % PB_NR];
                    *at = j < from[i] || j >= sees[i] ? (real)NAN : big ? *at * 500 : *at;
                }
            }
            for (size_t b = 0; b < B; b++) {
                for (size_t i = 0; i < R; i++) {
                    size_t left = sees[i] > b * PB_NR ? sees[i] - b * PB_NR : 0;
                    size_t out = from[i] > b * PB_NR ? from[i] - b * PB_NR : 0;
                    valid[i] = left < PB_NR ? left : PB_NR;
                    first[i] = out < PB_NR ? out : PB_NR;
                    memcpy(blk + i * PB_NR, s.v + (i * B + b) * PB_NR, PB_NR * sizeof(real));
                }
                k->soft_block(blk, low, valid, m, l, o.v, o.ld, R, D, scale);
                for (size_t i = 0; i < R; i++)
                    for (size_t j = 0; j < PB_NR; j++)
                        if (j < first[i] || j >= valid[i])
                            assert_true(blk[i * PB_NR + j] == 0);
                k->axpys(o.v, o.ld, blk, PB_NR, v.v + b * PB_NR * v.ld, v.ld, R, PB_NR, D, 1);
            }
            guarded(o, "soft_block");
            for (size_t i = 0; i < R; i++) {
                double top = -INFINITY, sum = 0, want[D] = {0}, size[D] = {0};
                for (size_t j = from[i]; j < sees[i]; j++)
                    top = fmax(top, (double)scale * (double)s.v[i * B * PB_NR + j]);
                for (size_t j = from[i]; j < sees[i]; j++) {
                    double p = exp((double)scale * (double)s.v[i * B * PB_NR + j] - top);
                    sum += p;
                    for (size_t d = 0; d < D; d++) {
                        want[d] += p * (double)v.v[j * v.ld + d];
                        size[d] += p * fabs((double)v.v[j * v.ld + d]);
                    }
                }
                double rough = 8 + fabs(top) * 2;
                lse[i] = m[i] + (real)log((double)l[i]);
                close_to("soft_block lse", lse[i], top + log(sum), rough, 9, R, i);
                for (size_t d = 0; d < D; d++)
                    close_to("soft_block o", o.v[i * o.ld + d] / l[i], want[d] / sum,
                             rough * size[d] / sum, 9, i, d);
                // The same query as the only one, which skips the blocks below its window.
                m1 = (real)-1e30, l1 = 0;
                for (size_t b = from[i] / PB_NR; b * PB_NR < sees[i]; b++) {
                    size_t left = sees[i] - b * PB_NR, n = left < PB_NR ? left : PB_NR;
                    size_t out = from[i] > b * PB_NR ? from[i] - b * PB_NR : 0;
                    memcpy(blk1, s.v + (i * B + b) * PB_NR, sizeof blk1);
                    k->soft_block(blk1, &out, &n, &m1, &l1, alone.v + i * o.ld, o.ld, 1, D, scale);
                    k->axpys(alone.v + i * o.ld, o.ld, blk1, PB_NR, v.v + b * PB_NR * v.ld, v.ld, 1,
                             n, D, 1);
                }
                assert_true(m1 == m[i] && l1 == l[i]);
                for (size_t d = 0; d < D; d++)
                    assert_true(alone.v[i * o.ld + d] == o.v[i * o.ld + d]);
            }
            for (size_t i = 0; i < R; i++) {
                valid[i] = sees[i] < PB_NR ? sees[i] : PB_NR;
                first[i] = from[i] < PB_NR ? from[i] : PB_NR;
                memcpy(blk + i * PB_NR, s.v + i * B * PB_NR, PB_NR * sizeof(real));
            }
            k->soft_probs(blk, low, valid, lse, 1, R, scale);
            for (size_t i = 0; i < R; i++)
                for (size_t j = 0; j < PB_NR; j++) {
                    double e = (double)scale * (double)s.v[i * B * PB_NR + j] - (double)lse[i];
                    double p = exp(e);
                    if (j < first[i] || j >= valid[i])
                        assert_true(blk[i * PB_NR + j] == 0);
                    else
                        close_to("soft_probs", blk[i * PB_NR + j], p,
                                 p * (8 + fabs((double)lse[i]) * 2 + fabs(e)), 1, i, j);
                }
            free(s.v), free(v.v), free(o.v), free(alone.v);
        }
}

int main(void)
{
    static const char *const sets[] = {"portable", "avx2", "avx512"};
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } tests[] = {{"panel", panels},    {"turn", turns},     {"dots, axpys, outer", low_rank},
                 {"vectors", vectors}, {"gates", gates},    {"softmax", softmaxes},
                 {"exp", exponential}, {"soft caps", caps}, {"online softmax", online},
                 {"limits", limits}};
    enum { N = sizeof tests / sizeof *tests };
    struct CMUnitTest list[3 * N];
    static char names[3 * N][64];
    size_t n = 0;
    rng = pb_rng_make(1, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < 3; i++) {
        const pb_kernels *set = pb_kernels_find(sets[i]);
        if (!set)
            print_message("skipped: this processor or build has no %s\n", sets[i]);
        for (size_t j = 0; set && j < N; j++) {
            snprintf(names[n], sizeof names[n], "%s: %s", sets[i], tests[j].name);
            list[n] = (struct CMUnitTest){
                .name = names[n], .test_func = tests[j].run, .initial_state = (void *)set};
            n++;
        }
    }
    return _cmocka_run_group_tests("kernels", list, n, NULL, NULL) ? 1 : 0;
}
