// The kernels for one instruction set: the build compiles this file once per set with PB_ISA naming
// it. Plain C with vector types; the compiler's flags decide the instructions.
//
// exp: argument reduction x = n ln 2 + r and a polynomial of degree 6 on |r| <= ln(2)/2 (the
// classic scheme of the Cephes library), about 2 ulp; tanh: by exp, and an odd polynomial of degree
// 11 for |x| < 0.625 (from the same library). The double build calls the C library.
#include "tensor/kernels/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { VBYTES = 64, VREGS = 32 };
#elif defined(__AVX2__)
enum { VBYTES = 32, VREGS = 16 };
#else
enum { VBYTES = 16, VREGS = 16 };
#endif

#ifdef PB_DOUBLE
typedef int64_t ireal;
#else
typedef int32_t ireal;
#endif

enum {
    VL = VBYTES / sizeof(real), // lanes of a vector
    NV = PB_NR / VL,            // vectors across a panel
    // A tile's accumulators, one row of the panel and one value of x fit the registers. Few rows
    // stream a panel once, in its whole width; with more rows a tile of half the width or less has
    // more rows to use each load of the panel for.
    NT = NV < 2 ? NV : 2,
    MR_WIDE = (VREGS - NV - 1) / NV < 1 ? 1 : (VREGS - NV - 1) / NV,
    MR_TILE = (VREGS - NT - 1) / NT,
    MR = MR_TILE > 14 ? 14 : MR_TILE
};

typedef real vec __attribute__((vector_size(VBYTES)));
typedef ireal ivec __attribute__((vector_size(VBYTES)));
typedef real uvec __attribute__((vector_size(VBYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const real *p)
{
    return *(const uvec *)p;
}

INLINE void store(real *p, vec v)
{
    *(uvec *)p = v;
}

// bfloat16 is the upper half of a float: VL words hold the lower and the upper vector of a panel.
typedef uint32_t words __attribute__((vector_size(VL * 4)));
typedef float floats __attribute__((vector_size(VL * 4)));
typedef uint32_t uwords __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vec widen(words w)
{
#ifdef PB_DOUBLE
    return __builtin_convertvector((floats)w, vec);
#else
    return (floats)w;
#endif
}

INLINE vec lower(words w)
{
    return widen(w << 16);
}

INLINE vec upper(words w)
{
    return widen(w & 0xffff0000u);
}

// VL signed bytes.
INLINE vec widen8(const int8_t *q)
{
#if defined(__AVX512F__) && !defined(PB_DOUBLE)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)q)));
#elif defined(__AVX2__) && !defined(PB_DOUBLE)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q)));
#else
    vec v = {0};
    for (size_t i = 0; i < VL; i++)
        v[i] = (real)q[i];
    return v;
#endif
}

// VL half-precision numbers that are finite and not negative: moved to a float's place their
// exponent is 112 too small.
INLINE vec widen_half(const uint16_t *h)
{
    words w;
    for (size_t i = 0; i < VL; i++)
        w[i] = (uint32_t)h[i] << 13;
    return widen(w) * (real)0x1p112f;
}

INLINE vec all(real x)
{
    return x - (vec){0};
}

INLINE ivec lanes_below(size_t n)
{
    static const ireal lane[16]
        __attribute__((aligned(64))) = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ivec k;
    memcpy(&k, lane, sizeof k);
    return k < ((ireal)n - (ivec){0});
}

// The first n < VL lanes; the others are zero, and their memory is not touched.
#if defined(__AVX512F__) && !defined(PB_DOUBLE)
INLINE vec load_part(const real *p, size_t n)
{
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

INLINE void store_part(real *p, vec v, size_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(PB_DOUBLE)
INLINE vec load_part(const real *p, size_t n)
{
    return (vec)_mm256_maskload_ps(p, (__m256i)lanes_below(n));
}

INLINE void store_part(real *p, vec v, size_t n)
{
    _mm256_maskstore_ps(p, (__m256i)lanes_below(n), (__m256)v);
}
#else
INLINE vec load_part(const real *p, size_t n)
{
    vec v = {0};
    memcpy(&v, p, n * sizeof(real));
    return v;
}

INLINE void store_part(real *p, vec v, size_t n)
{
    memcpy(p, &v, n * sizeof(real));
}
#endif

INLINE vec choose(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

// Lanes are combined in halves: a fixed tree.
typedef real vec16 __attribute__((vector_size(16)));

INLINE real sum_lanes(vec v)
{
    vec16 part[VBYTES / 16];
    real t[16 / sizeof(real)];
    memcpy(part, &v, sizeof part);
    for (size_t h = VBYTES / 32; h; h /= 2)
        for (size_t i = 0; i < h; i++)
            part[i] += part[i + h];
    memcpy(t, part, sizeof t);
    return sizeof(real) == 4
               ? (t[0] + t[2 % (16 / sizeof(real))]) + (t[1] + t[3 % (16 / sizeof(real))])
               : t[0] + t[1];
}

INLINE real max_lanes(vec v)
{
    real t[VL];
    memcpy(t, &v, sizeof t);
    for (size_t h = VL / 2; h; h /= 2)
        for (size_t i = 0; i < h; i++)
            t[i] = t[i] > t[i + h] ? t[i] : t[i + h];
    return t[0];
}

INLINE vec vmax(vec a, vec b)
{
    return choose(a > b, a, b);
}

#ifdef PB_DOUBLE
INLINE vec vexp(vec x)
{
    for (size_t i = 0; i < VL; i++)
        x[i] = exp(x[i]);
    return x;
}

INLINE vec vtanh(vec x)
{
    for (size_t i = 0; i < VL; i++)
        x[i] = tanh(x[i]);
    return x;
}
#else
INLINE vec vexp(vec x)
{
    // NaN passes through: both comparisons are false for it.
    x = choose(x < all(-87.33f), all(-87.33f), x);
    x = choose(x > all(88.37f), all(88.37f), x);
    const vec magic = all(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer
    vec n = (x * 1.44269504088896341f + magic) - magic;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    ivec e = __builtin_convertvector(n, ivec) << 23;
    return (vec)((ivec)p + e);
}

INLINE vec vtanh(vec x)
{
    vec z = choose(x < all(0), -x, x), q = x * x;
    vec far = 1 - 2 / (vexp(z + z) + 1);
    vec p = all(-5.70498872745e-3f);
    p = p * q + 2.06390887954e-2f;
    p = p * q - 5.37397155531e-2f;
    p = p * q + 1.33314422036e-1f;
    p = p * q - 3.33332819422e-1f;
    p = p * q * x + x;
    return choose(z < all(0.625f), p, choose(x < all(0), -far, far));
}
#endif

INLINE vec verfc(vec x)
{
    for (size_t i = 0; i < VL; i++)
        x[i] = (real)erfc((double)x[i]);
    return x;
}

// ---------------------------------------------------------------- products

// T vectors of input i of a panel, from column c on. In bfloat16 a tile that is no whole panel lies
// in one half of it, and `up` says in which: the halves share their words. In 8 bits w is the group
// and i counts in it.
INLINE void panel_row(vec *b, const size_t T, const pb_panel_kind kind, const void *w, size_t i,
                      size_t c, const bool up, const vec *scale)
{
#pragma GCC unroll 16
    for (size_t v = 0; v < T; v++) {
        if (kind == PB_PANEL_FP32) {
            b[v] = load((const real *)w + i * PB_NR + c + v * VL);
        } else if (kind == PB_PANEL_INT8) {
            b[v] = scale[v] * widen8((const int8_t *)w + 2 * PB_NR + i * PB_NR + c + v * VL);
        } else if (T < NV || v < NV / 2) {
            size_t at = i * PB_NW + (up ? c - PB_NR / 2 : c) + v * VL;
            words both = *(const uwords *)((const uint32_t *)w + at);
            b[v] = up ? upper(both) : lower(both);
            if (T == NV)
                b[v + NV / 2] = upper(both);
        }
    }
}

// What comes after a piece of a panel in memory is asked for while the piece is worked on: a line
// every so many inputs (a power of two), so that its tiles together get through as much as it has.
// Half a panel at a time is a pattern that the machine does not foresee; 8 rows of weights from
// memory take two thirds of the time so (measured on Zen 3).
typedef struct lookahead {
    const char *next;
    size_t every;
} lookahead;

enum { LINE = 64, RARELY = 64, STEP = 4 };

INLINE lookahead look_ahead(const pb_panel_kind kind, const void *w, size_t R, size_t k)
{
    size_t bytes = pb_panel_bytes(kind, k), tiles = (R + MR - 1) / MR * (NV / NT);
    lookahead a = {(const char *)w + bytes, 1};
    while (a.every < RARELY && 2 * a.every * bytes <= LINE * tiles * k)
        a.every *= 2;
    return a;
}

// Input i of a panel, which begins at `w`, and the same input of M rows.
INLINE void panel_input(vec acc[MR][NV], const size_t M, const size_t T, const real *x, size_t ldx,
                        const pb_panel_kind kind, const void *w, size_t i, size_t c, const bool up,
                        const vec *scale)
{
    vec b[NV];
    panel_row(b, T, kind, w, i, c, up, scale);
#pragma GCC unroll 16
    for (size_t m = 0; m < M; m++) {
        vec a = all(x[m * ldx + i]);
#pragma GCC unroll 16
        for (size_t v = 0; v < T; v++)
            acc[m][v] += a * b[v];
    }
}

// Before STEP inputs of a panel from input i on: asks for what comes later. A row or two wait for
// memory; asking for half a page ahead helps (measured on Zen 3).
INLINE void ask_ahead(const size_t M, const pb_panel_kind kind, const void *w, const void *group,
                      size_t i, lookahead *ahead)
{
    if (M > 2) {
        size_t lines = ahead->every < STEP ? STEP / ahead->every : !(i & (ahead->every - 1));
        for (; lines; lines--, ahead->next += LINE)
            __builtin_prefetch(ahead->next, 0, 2);
    } else if (kind == PB_PANEL_BF16) {
#pragma GCC unroll 4
        for (size_t s = 0; s < STEP; s++)
            __builtin_prefetch((const uint32_t *)w + (i + s + 32) * PB_NW);
    } else if (kind == PB_PANEL_INT8) {
#pragma GCC unroll 2
        for (size_t s = 0; s < STEP; s += 2)
            __builtin_prefetch((const char *)group + 2 * PB_NR + (i + s) * PB_NR + 2048);
    }
}

// M rows of T vectors: columns c.. of a panel, of which the first n exist. Several inputs follow
// each other without a test: where a neighbour on the same core takes half of the instructions that
// it can begin, they count (some 10 % of many rows, measured on Zen 3).
INLINE void panel_rows(const size_t M, const size_t T, real *y, size_t ldy, const real *x,
                       size_t ldx, const pb_panel_kind kind, const void *w, size_t c, const bool up,
                       size_t k, size_t n, bool accumulate, lookahead ahead)
{
    vec acc[MR][NV], scale[NV] = {{0}};
    real edge[PB_NR] __attribute__((aligned(64)));
    const bool part = n < T * VL;
    const size_t group = kind == PB_PANEL_INT8 ? PB_GROUP : k;
#pragma GCC unroll 16
    for (size_t m = 0; m < M; m++) {
        if (accumulate && part) {
            memset(edge, 0, sizeof edge);
            memcpy(edge, y + m * ldy, n * sizeof(real));
        }
#pragma GCC unroll 16
        for (size_t v = 0; v < T; v++)
            acc[m][v] = !accumulate ? (vec){0} : load((part ? edge : y + m * ldy) + v * VL);
    }
    for (size_t g = 0; g < k; g += group) {
        const char *at = (const char *)w + (kind == PB_PANEL_INT8 ? pb_panel_bytes(kind, g) : 0);
        const size_t last = k - g < group ? k - g : group;
        for (size_t v = 0; kind == PB_PANEL_INT8 && v < T; v++)
            scale[v] = widen_half((const uint16_t *)(const void *)at + c + v * VL);
        size_t i = 0;
        for (; i + STEP <= last; i += STEP) {
            ask_ahead(M, kind, w, at, i, &ahead);
#pragma GCC unroll 4
            for (size_t s = 0; s < STEP; s++)
                panel_input(acc, M, T, x + g, ldx, kind, at, i + s, c, up, scale);
        }
        for (; i < last; i++)
            panel_input(acc, M, T, x + g, ldx, kind, at, i, c, up, scale);
    }
#pragma GCC unroll 16
    for (size_t m = 0; m < M; m++) {
        real *to = part ? edge : y + m * ldy;
#pragma GCC unroll 16
        for (size_t v = 0; v < T; v++)
            store(to + v * VL, acc[m][v]);
        if (part)
            memcpy(y + m * ldy, edge, n * sizeof(real));
    }
}

// A tile that does not exist here is not compiled either.
#define ROWS_CASE(M, T)                                                                            \
    case M:                                                                                        \
        if (M <= MR)                                                                               \
            panel_rows(M, T, y, ldy, x, ldx, kind, w, c, up, k, n, accumulate, ahead);             \
        break;

// One tile of m <= MR rows.
INLINE void panel_tile(real *y, size_t ldy, const real *x, size_t ldx, const pb_panel_kind kind,
                       const void *w, size_t c, const bool up, size_t m, size_t k, size_t n,
                       bool accumulate, lookahead ahead)
{
    switch (m) {
        ROWS_CASE(1, NT)
        ROWS_CASE(2, NT)
        ROWS_CASE(3, NT)
        ROWS_CASE(4, NT)
        ROWS_CASE(5, NT)
        ROWS_CASE(6, NT)
        ROWS_CASE(7, NT)
        ROWS_CASE(8, NT)
        ROWS_CASE(9, NT)
        ROWS_CASE(10, NT)
        ROWS_CASE(11, NT)
        ROWS_CASE(12, NT)
        ROWS_CASE(13, NT)
        ROWS_CASE(14, NT)
    }
}

INLINE void panel_any(real *y, size_t ldy, const real *x, size_t ldx, const pb_panel_kind kind,
                      const void *w, size_t R, size_t k, size_t n, bool accumulate)
{
    lookahead ahead = look_ahead(kind, w, R, k);
    if (R <= MR_WIDE && MR_WIDE <= 2) {
        const bool up = false;
        const size_t c = 0;
        switch (R) {
            ROWS_CASE(1, NV)
            ROWS_CASE(2, NV)
        }
        return;
    }
    const size_t done = k / ahead.every * LINE; // of the lookahead, by a tile
    while (R) {
        // The last two tiles share what is left evenly.
        size_t m = R >= 2 * MR ? MR : R > MR ? (R + 1) / 2 : R;
        const size_t half = NT == NV || n < PB_NR / 2 ? n : PB_NR / 2;
        for (size_t c = 0; c < half; c += NT * VL, ahead.next += done)
            panel_tile(y + c, ldy, x, ldx, kind, w, c, false, m, k, n - c, accumulate, ahead);
        for (size_t c = half; c < n; c += NT * VL, ahead.next += done)
            panel_tile(y + c, ldy, x, ldx, kind, w, c, true, m, k, n - c, accumulate, ahead);
        y += m * ldy;
        x += m * ldx;
        R -= m;
    }
}

static void panel(real *y, size_t ldy, const real *x, size_t ldx, const void *w, size_t R, size_t k,
                  size_t n, bool accumulate)
{
    panel_any(y, ldy, x, ldx, PB_PANEL_FP32, w, R, k, n, accumulate);
}

static void panel16(real *y, size_t ldy, const real *x, size_t ldx, const void *w, size_t R,
                    size_t k, size_t n, bool accumulate)
{
    panel_any(y, ldy, x, ldx, PB_PANEL_BF16, w, R, k, n, accumulate);
}

// Groups of a panel as numbers.
static void expand(real *to, const void *w, size_t k)
{
    for (size_t g = 0; g < k; g += PB_GROUP) {
        const char *at = (const char *)w + pb_panel_bytes(PB_PANEL_INT8, g);
        vec scale[NV];
        for (size_t v = 0; v < NV; v++)
            scale[v] = widen_half((const uint16_t *)(const void *)at + v * VL);
        for (size_t i = 0; i < PB_GROUP && g + i < k; i++) {
            vec b[NV];
            panel_row(b, NV, PB_PANEL_INT8, at, i, 0, false, scale);
#pragma GCC unroll 16
            for (size_t v = 0; v < NV; v++)
                store(to + (g + i) * PB_NR + v * VL, b[v]);
        }
    }
}

// Few rows widen weights as they go. For many, a piece that fits the first cache is widened once.
static void panel8(real *y, size_t ldy, const real *x, size_t ldx, const void *w, size_t R,
                   size_t k, size_t n, bool accumulate)
{
    enum { PIECE = 4 * PB_GROUP };
    real piece[PIECE * PB_NR] __attribute__((aligned(64)));
    if (R <= MR || !k) {
        panel_any(y, ldy, x, ldx, PB_PANEL_INT8, w, R, k, n, accumulate);
        return;
    }
    for (size_t i = 0; i < k; i += PIECE) {
        size_t m = k - i < PIECE ? k - i : PIECE;
        expand(piece, (const char *)w + pb_panel_bytes(PB_PANEL_INT8, i), m);
        panel_any(y, ldy, x + i, ldx, PB_PANEL_FP32, piece, R, m, n, accumulate || i);
    }
}

// Squares of 4 x 4, of 32-bit lanes.
typedef uint32_t quad __attribute__((vector_size(16)));
typedef uint32_t uquad __attribute__((vector_size(16), aligned(4), may_alias));

INLINE void turn_square(quad out[4], const uint32_t *w, size_t ld)
{
    quad a = *(const uquad *)w, b = *(const uquad *)(w + ld);
    quad c = *(const uquad *)(w + 2 * ld), d = *(const uquad *)(w + 3 * ld);
    quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    out[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    out[1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    out[2] = __builtin_shufflevector(ef, gh, 0, 1, 4, 5);
    out[3] = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
}

INLINE real real_of_high(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE void put_quad(real *t, quad bits)
{
#ifdef PB_DOUBLE
    for (size_t i = 0; i < 4; i++)
        t[i] = real_of_high(bits[i]);
#else
    *(uquad *)t = bits;
#endif
}

static void turn(real *t, const void *panel_, size_t k)
{
    const real *w = panel_;
    size_t i = 0;
    if (k < PB_NR)
        memset(t, 0, PB_NR * PB_NR * sizeof *t);
#ifndef PB_DOUBLE
    for (; i + 4 <= k; i += 4)
        for (size_t j = 0; j < PB_NR; j += 4) {
            quad q[4];
            turn_square(q, (const uint32_t *)(const void *)(w + i * PB_NR + j), PB_NR);
#pragma GCC unroll 4
            for (size_t s = 0; s < 4; s++)
                put_quad(t + (j + s) * PB_NR + i, q[s]);
        }
#endif
    for (; i < k; i++)
        for (size_t j = 0; j < PB_NR; j++)
            t[j * PB_NR + i] = w[i * PB_NR + j];
}

static void turn16(real *t, const void *panel_, size_t k)
{
    const uint32_t *w = panel_;
    size_t i = 0;
    if (k < PB_NR)
        memset(t, 0, PB_NR * PB_NR * sizeof *t);
    for (; i + 4 <= k; i += 4)
        for (size_t j = 0; j < PB_NW; j += 4) {
            quad q[4];
            turn_square(q, w + i * PB_NW + j, PB_NW);
#pragma GCC unroll 4
            for (size_t s = 0; s < 4; s++) {
                put_quad(t + (j + s) * PB_NR + i, q[s] << 16);
                put_quad(t + (j + s + PB_NW) * PB_NR + i, q[s] & 0xffff0000u);
            }
        }
    for (; i < k; i++)
        for (size_t j = 0; j < PB_NW; j++) {
            t[j * PB_NR + i] = real_of_high(w[i * PB_NW + j] << 16);
            t[(j + PB_NW) * PB_NR + i] = real_of_high(w[i * PB_NW + j] & 0xffff0000u);
        }
}

static void turn8(real *t, const void *w, size_t k)
{
    real piece[PB_NR * PB_NR] __attribute__((aligned(64)));
    expand(piece, w, k);
    turn(t, piece, k);
}

// Tiles of DM rows by DK, and of AM rows by AW vectors: with what they are multiplied by they fit
// the registers. A single row has ONE instead, to have enough sums on the way.
enum { DM = 4, DK = VREGS == 32 ? 4 : 2, AM = 4, AW = VREGS == 32 ? 4 : 3, ONE = 4 };

INLINE void dots_tile(const size_t M, const size_t K, real *t, size_t ldt, const real *x,
                      size_t ldx, const real *a, size_t lda, size_t n, real scale)
{
    vec acc[DM][ONE];
#pragma GCC unroll 4
    for (size_t m = 0; m < M; m++)
#pragma GCC unroll 4
        for (size_t j = 0; j < K; j++)
            acc[m][j] = (vec){0};
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vec b[ONE];
#pragma GCC unroll 4
        for (size_t j = 0; j < K; j++)
            b[j] = load(a + j * lda + i);
#pragma GCC unroll 4
        for (size_t m = 0; m < M; m++) {
            vec p = load(x + m * ldx + i);
#pragma GCC unroll 4
            for (size_t j = 0; j < K; j++)
                acc[m][j] += p * b[j];
        }
    }
    if (i < n) {
#pragma GCC unroll 4
        for (size_t m = 0; m < M; m++) {
            vec p = load_part(x + m * ldx + i, n - i);
#pragma GCC unroll 4
            for (size_t j = 0; j < K; j++)
                acc[m][j] += p * load_part(a + j * lda + i, n - i);
        }
    }
#pragma GCC unroll 4
    for (size_t m = 0; m < M; m++)
#pragma GCC unroll 4
        for (size_t j = 0; j < K; j++)
            t[m * ldt + j] = scale * sum_lanes(acc[m][j]);
}

static void dots(real *t, size_t ldt, const real *x, size_t ldx, const real *a, size_t lda,
                 size_t R, size_t r, size_t n, real scale)
{
    for (size_t m = 0, M; m < R; m += M) {
        M = R - m >= DM ? DM : 1;
        const size_t most = M == DM ? DK : ONE;
        for (size_t j = 0, K; j < r; j += K) {
            K = r - j >= most ? most : 1;
            real *to = t + m * ldt + j;
            const real *px = x + m * ldx, *pa = a + j * lda;
            if (M == DM && K == DK)
                dots_tile(DM, DK, to, ldt, px, ldx, pa, lda, n, scale);
            else if (M == DM)
                dots_tile(DM, 1, to, ldt, px, ldx, pa, lda, n, scale);
            else if (K == ONE)
                dots_tile(1, ONE, to, ldt, px, ldx, pa, lda, n, scale);
            else
                dots_tile(1, 1, to, ldt, px, ldx, pa, lda, n, scale);
        }
    }
}

// y(M, W vectors or `part` lanes) += scale * t b, where t(m,j) = t[m * tm + j * tj]. `unit`: the
// scale is 1, and each value of t comes from memory to all lanes at once.
INLINE void axpys_tile(const size_t M, const size_t W, real *y, size_t ldy, const real *t,
                       size_t tm, size_t tj, const real *b, size_t ldb, size_t r, size_t part,
                       real scale, const bool unit)
{
    vec acc[AM][ONE];
#pragma GCC unroll 8
    for (size_t m = 0; m < M; m++)
#pragma GCC unroll 4
        for (size_t v = 0; v < W; v++)
            acc[m][v] = part ? load_part(y + m * ldy, part) : load(y + m * ldy + v * VL);
    for (size_t j = 0; j < r; j++) {
        vec q[ONE];
#pragma GCC unroll 4
        for (size_t v = 0; v < W; v++)
            q[v] = part ? load_part(b + j * ldb, part) : load(b + j * ldb + v * VL);
#pragma GCC unroll 8
        for (size_t m = 0; m < M; m++) {
            real value = t[m * tm + j * tj];
            vec p = all(unit ? value : scale * value);
#pragma GCC unroll 4
            for (size_t v = 0; v < W; v++)
                acc[m][v] += p * q[v];
        }
    }
#pragma GCC unroll 8
    for (size_t m = 0; m < M; m++)
#pragma GCC unroll 4
        for (size_t v = 0; v < W; v++) {
            if (part)
                store_part(y + m * ldy, acc[m][v], part);
            else
                store(y + m * ldy + v * VL, acc[m][v]);
        }
}

// Vectors that a tile of M rows takes, of those that are left: what does not fill a tile is cut so
// that there are sums enough on the way.
INLINE size_t axpys_width(const size_t M, size_t n)
{
    size_t left = n / VL;
    if (M == 1)
        return left >= ONE ? ONE : left ? 1 : 0;
    return left == AW + 1 ? (AW + 2) / 2 : left > AW ? AW : left;
}

#define AXPYS_CASE(M, W)                                                                           \
    case W:                                                                                        \
        if (M == 1 || W <= AW)                                                                     \
            axpys_tile(M, W, py, ldy, pt, tm, tj, pb, ldb, r, 0, scale, unit);                     \
        break;

INLINE void axpys_strided(real *y, size_t ldy, const real *t, size_t tm, size_t tj, const real *b,
                          size_t ldb, size_t R, size_t r, size_t n, real scale, const bool unit)
{
    for (size_t m = 0, M; m < R; m += M) {
        M = R - m >= AM ? AM : 1;
        const real *pt = t + m * tm;
        for (size_t i = 0, w; i < n; i += w) {
            real *py = y + m * ldy + i;
            const real *pb = b + i;
            size_t wide = axpys_width(M, n - i);
            w = wide ? wide * VL : n - i;
            if (M == AM) {
                switch (wide) {
                    AXPYS_CASE(AM, 1)
                    AXPYS_CASE(AM, 2)
                    AXPYS_CASE(AM, 3)
                    AXPYS_CASE(AM, 4)
                default:
                    axpys_tile(AM, 1, py, ldy, pt, tm, tj, pb, ldb, r, w, scale, unit);
                }
            } else {
                switch (wide) {
                    AXPYS_CASE(1, 1)
                    AXPYS_CASE(1, 4)
                default:
                    axpys_tile(1, 1, py, ldy, pt, tm, tj, pb, ldb, r, w, scale, unit);
                }
            }
        }
    }
}

static void axpys(real *y, size_t ldy, const real *t, size_t ldt, const real *b, size_t ldb,
                  size_t R, size_t r, size_t n, real scale)
{
    if (scale == 1)
        axpys_strided(y, ldy, t, ldt, 1, b, ldb, R, r, n, 1, true);
    else
        axpys_strided(y, ldy, t, ldt, 1, b, ldb, R, r, n, scale, false);
}

// The same with t read down its columns: the long dimension is summed over.
static void outer(real *g, size_t ldg, const real *t, size_t ldt, const real *x, size_t ldx,
                  size_t R, size_t r, size_t n, real scale)
{
    if (scale == 1)
        axpys_strided(g, ldg, t, 1, ldt, x, ldx, r, R, n, 1, true);
    else
        axpys_strided(g, ldg, t, 1, ldt, x, ldx, r, R, n, scale, false);
}

// ---------------------------------------------------------------- vectors

static real dot(const real *x, const real *y, size_t n)
{
    vec a = {0}, b = {0};
    size_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        a += load(x + i) * load(y + i);
        b += load(x + i + VL) * load(y + i + VL);
    }
    for (; i + VL <= n; i += VL)
        a += load(x + i) * load(y + i);
    if (i < n)
        b += load_part(x + i, n - i) * load_part(y + i, n - i);
    return sum_lanes(a + b);
}

static void axpby(real *y, real a, const real *x, real b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a * x[i] + b * y[i];
}

static void mul(real *y, const real *x1, const real *x2, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x1[i] * x2[i];
}

static void mul_add(real *y, const real *x1, const real *x2, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x1[i] * x2[i];
}

// act(g) and act'(g). GELU in its tanh form: 0.5 g (1 + tanh(u)), u = sqrt(2/pi)(g + 0.044715 g^3);
// 0.5 (1 + tanh u) is the logistic function of 2u, so both need one exponential.
INLINE void gate_value(vec g, pb_gate_kind act, vec *value, vec *slope)
{
    if (act == PB_SILU) {
        vec s = 1 / (1 + vexp(-g));
        *value = g * s;
        *slope = s * (1 + g * (1 - s));
    } else if (act == PB_GELU_ERF) { // g Phi(g); few models have it, so erfc is the C library's
        vec phi = (real)0.5 * verfc(g * (real)-0.7071067811865476);
        *value = g * phi;
        *slope = phi + g * (real)0.3989422804014327 * vexp((real)-0.5 * g * g);
    } else {
        const real c = (real)0.7978845608028654, d = (real)0.044715;
        vec u = c * (g + d * g * g * g);
        vec s = 1 / (1 + vexp(-2 * u));
        *value = g * s;
        *slope = s + g * s * (1 - s) * 2 * c * (1 + 3 * d * g * g);
    }
}

static void glu(real *m, const real *g, const real *u, size_t n, pb_gate_kind act)
{
    for (size_t i = 0; i < n; i += VL) {
        vec a, slope;
        size_t w = n - i < VL ? n - i : VL;
        if (w == VL) {
            gate_value(load(g + i), act, &a, &slope);
            store(m + i, a * load(u + i));
        } else {
            gate_value(load_part(g + i, w), act, &a, &slope);
            store_part(m + i, a * load_part(u + i, w), w);
        }
    }
}

static void glu_back(real *dg, real *du, const real *dm, const real *g, const real *u, size_t n,
                     pb_gate_kind act)
{
    for (size_t i = 0; i < n; i += VL) {
        vec a, slope;
        size_t w = n - i < VL ? n - i : VL;
        if (w == VL) {
            vec m = load(dm + i);
            gate_value(load(g + i), act, &a, &slope);
            if (dg)
                store(dg + i, load(dg + i) + m * load(u + i) * slope);
            if (du)
                store(du + i, load(du + i) + m * a);
        } else {
            vec m = load_part(dm + i, w);
            gate_value(load_part(g + i, w), act, &a, &slope);
            if (dg)
                store_part(dg + i, load_part(dg + i, w) + m * load_part(u + i, w) * slope, w);
            if (du)
                store_part(du + i, load_part(du + i, w) + m * a, w);
        }
    }
}

// ---------------------------------------------------------------- softmax

INLINE ivec lanes_between(size_t from, size_t to, size_t lane0)
{
    ivec k = lanes_below(to > lane0 ? to - lane0 : 0);
    return from > lane0 ? k & ~lanes_below(from - lane0) : k;
}

static void soft_block(real *s, const size_t *first, const size_t *valid, real *m, real *l, real *o,
                       size_t ldo, size_t R, size_t D, real scale)
{
    const vec low = all((real)-1e30);
    for (size_t i = 0; i < R; i++, s += PB_NR, o += ldo) {
        size_t from = first ? first[i] : 0;
        if (valid[i] <= from) {
            memset(s, 0, PB_NR * sizeof(real));
            continue;
        }
        vec p[NV], top = low;
        ivec mask[NV];
#pragma GCC unroll 16
        for (size_t v = 0; v < NV; v++) {
            mask[v] = lanes_between(from, valid[i], v * VL);
            p[v] = choose(mask[v], load(s + v * VL) * scale, low);
            top = vmax(top, p[v]);
        }
        real was = m[i], now = max_lanes(top);
        now = now > was ? now : was;
        vec sum = {0};
#pragma GCC unroll 16
        for (size_t v = 0; v < NV; v++) {
            p[v] = (vec)((ivec)vexp(p[v] - now) & mask[v]);
            sum += p[v];
            store(s + v * VL, p[v]);
        }
        if (now > was) {
            real fix = vexp(all(was - now))[0];
            l[i] *= fix;
            for (size_t d = 0; d < D; d++)
                o[d] *= fix;
            m[i] = now;
        }
        l[i] += sum_lanes(sum);
    }
}

static void soft_probs(real *s, const size_t *first, const size_t *valid, const real *lse,
                       size_t ldlse, size_t R, real scale)
{
    for (size_t i = 0; i < R; i++, s += PB_NR)
#pragma GCC unroll 16
        for (size_t v = 0; v < NV; v++) {
            ivec mask = lanes_between(first ? first[i] : 0, valid[i], v * VL);
            vec p = vexp(choose(mask, load(s + v * VL) * scale - lse[i * ldlse], all(-80)));
            store(s + v * VL, (vec)((ivec)p & mask));
        }
}

static void soft_cap(real *x, size_t n, real scale, real cap)
{
    real factor = scale / cap;
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        store(x + i, cap * vtanh(factor * load(x + i)));
    if (i < n)
        store_part(x + i, cap * vtanh(factor * load_part(x + i, n - i)), n - i);
}

static real log_sum_exp(const real *x, size_t n)
{
    vec top = all(x[0]);
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        top = vmax(load(x + i), top);
    real m = max_lanes(top);
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    vec sum = {0};
    for (i = 0; i + VL <= n; i += VL)
        sum += vexp(load(x + i) - m);
    if (i < n) {
        vec e = vexp(load_part(x + i, n - i) - m);
        sum += (vec)((ivec)e & lanes_below(n - i));
    }
    return m + (real)log((double)sum_lanes(sum));
}

static void softmax(real *x, size_t n, real lse, real weight)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        store(x + i, weight * vexp(load(x + i) - lse));
    if (i < n)
        store_part(x + i, weight * vexp(load_part(x + i, n - i) - lse), n - i);
}

// ---------------------------------------------------------------- the machine

static real peak(size_t n, size_t *flops)
{
    enum { CHAINS = VREGS == 32 ? 24 : 12 };
    static volatile real start = (real)0.5;
    vec acc[CHAINS], x = all(start), y = all(start);
    if (flops)
        *flops = 2 * CHAINS * VL;
#pragma GCC unroll 24
    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = all((real)i);
    for (size_t k = 0; k < n; k++)
#pragma GCC unroll 24
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = acc[i] * x + y;
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] += acc[i];
    return sum_lanes(acc[0]);
}

static real sum(const real *x, size_t n)
{
    vec acc[8] = {{0}};
    size_t i = 0;
    for (; i + 8 * VL <= n; i += 8 * VL)
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++)
            acc[j] += load(x + i + j * VL);
    for (; i + VL <= n; i += VL)
        acc[0] += load(x + i);
    if (i < n)
        acc[1] += load_part(x + i, n - i);
    for (size_t j = 1; j < 8; j++)
        acc[0] += acc[j];
    return sum_lanes(acc[0]);
}

#define NAME_OF(isa) pb_kernels_##isa
#define NAME(isa)    NAME_OF(isa)
#define TEXT_OF(isa) #isa
#define TEXT(isa)    TEXT_OF(isa)

extern const pb_kernels NAME(PB_ISA);
const pb_kernels NAME(PB_ISA) = {
    .isa = TEXT(PB_ISA),
    .panel = {panel, panel16, panel8},
    .turn = {turn, turn16, turn8},
    .dots = dots,
    .axpys = axpys,
    .outer = outer,
    .dot = dot,
    .axpby = axpby,
    .mul = mul,
    .mul_add = mul_add,
    .glu = glu,
    .glu_back = glu_back,
    .soft_block = soft_block,
    .soft_probs = soft_probs,
    .soft_cap = soft_cap,
    .log_sum_exp = log_sum_exp,
    .softmax = softmax,
    .peak = peak,
    .sum = sum,
};
