// Elements of checkpoint tensors: conversion to `real`, rounding to 16 bits, random values,
// digests.
//
// Q8_0 is GGUF's: blocks of 32 values, a half-precision scale d and 32 signed bytes q, value d*q.
// Source: github.com/ggml-org/ggml, docs/gguf.md.
#include "model/numbers.h"

#include "core/rng.h"
#include "model/tensors.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sha2.h>

enum { Q8_BYTES = 2 + PB_Q8_BLOCK, PIECE = 1 << 16, DIGEST_PIECE = 1 << 20 };

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

float pb_float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0)
        return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; // zero and subnormal numbers
    return sign ? -magnitude : magnitude;
}

float pb_float_of_bfloat(uint16_t b)
{
    return float_of_bits((uint32_t)b << 16);
}

// The pattern of x as a float, for rounding again: from double, this step rounds to odd (toward
// zero, with the last bit saying "there was more"), so that rounding twice equals rounding once.
static uint32_t odd_bits(real x)
{
    float f = (float)x;
    uint32_t bits = bits_of_float(f);
    if (!isnan(x) && (real)f != x) {
        if (fabs((double)f) > fabs((double)x))
            bits--;
        bits |= 1;
    }
    return bits;
}

uint16_t pb_bfloat_of_real(real x)
{
    uint32_t bits = odd_bits(x);
    if (isnan(x))
        return (uint16_t)(bits >> 16 | 0x40); // quiet, so that a cut payload cannot become infinity
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t pb_half_of_real(real x)
{
    uint32_t bits = odd_bits(x), size = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (isnan(x))
        return (uint16_t)(sign | 0x7e00);
    if (size >= bits_of_float(65520)) // from the middle between the largest half and 2^16 on
        return (uint16_t)(sign | 0x7c00);
    if (size < bits_of_float(0x1p-14f)) // a multiple of 2^-24
        return (uint16_t)(sign | (uint16_t)rint((double)float_of_bits(size) * 0x1p24));
    return (uint16_t)(sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

// Elements first..first+n in the order of the file.
static void convert(const pb_tensor *t, size_t first, size_t n, real *out)
{
    const uint8_t *p = (const uint8_t *)t->data;
#define CONVERT(type, expression)                                                                  \
    p += first * sizeof(type);                                                                     \
    for (size_t i = 0; i < n; i++) {                                                               \
        type v;                                                                                    \
        memcpy(&v, p + i * sizeof v, sizeof v);                                                    \
        out[i] = (real)(expression);                                                               \
    }                                                                                              \
    break
    switch (t->dtype) {
    case PB_F32:
        CONVERT(float, v);
    case PB_F16:
        CONVERT(uint16_t, pb_float_of_half(v));
    case PB_BF16:
        CONVERT(uint16_t, float_of_bits((uint32_t)v << 16));
    case PB_F64:
        CONVERT(double, v);
    case PB_I64:
        CONVERT(int64_t, v);
    case PB_Q8_0:
        for (size_t i = 0; i < n; i++) {
            const uint8_t *block = p + (first + i) / PB_Q8_BLOCK * Q8_BYTES;
            uint16_t scale;
            memcpy(&scale, block, sizeof scale);
            out[i] = (real)(pb_float_of_half(scale) *
                            (float)(int8_t)block[2 + (first + i) % PB_Q8_BLOCK]);
        }
        break;
    }
#undef CONVERT
}

// The sum of four random bytes, centred and scaled: 1,021 values, close to normal.
enum { SUMS = 4 * 255 + 1 };

static real value_of_sum(const pb_tensor *t, int sum)
{
    static const double deviation = 147.80054127095642; // sqrt(4 * (256^2 - 1) / 12)
    const float step = (float)((double)t->gain / deviation);
    float v = t->mean + step * (float)(sum - SUMS / 2);
    return (real)(t->dtype == PB_BF16 ? pb_float_of_bfloat(pb_bfloat_of_real((real)v)) : v);
}

static void generate(const pb_tensor *t, size_t first, size_t n, real *out)
{
    uint32_t block[4] = {0};
    real value[SUMS];
    bool many = n > SUMS;
    for (int i = 0; many && i < SUMS; i++)
        value[i] = value_of_sum(t, i);
    for (size_t i = 0; i < n; i++) {
        size_t at = first + i;
        if (i == 0 || at % 4 == 0)
            pb_rng_block(block, t->seed, PB_STREAM_INIT, t->number, at / 4);
        uint32_t b = block[at % 4];
        uint32_t sum = (b & 255) + (b >> 8 & 255) + (b >> 16 & 255) + (b >> 24);
        out[i] = many ? value[sum] : value_of_sum(t, (int)sum);
    }
}

// Where the file has a row: a head's rows alternate there between its two halves.
static size_t file_row(size_t row, size_t D)
{
    size_t i = row % D;
    return row - i + (i < D / 2 ? 2 * i : 2 * (i - D / 2) + 1);
}

static void read_piece(const pb_tensor *t, size_t first, size_t n, real *out)
{
    if (!t->data) {
        generate(t, first, n, out);
    } else if (t->head_rows) {
        size_t cols = t->count / t->shape[0];
        for (size_t i = 0; i < n;) {
            size_t row = (first + i) / cols, col = (first + i) % cols;
            size_t run = cols - col < n - i ? cols - col : n - i;
            convert(t, file_row(row, t->head_rows) * cols + col, run, out + i);
            i += run;
        }
    } else {
        convert(t, first, n, out);
    }
    if (t->minus != 0)
        for (size_t i = 0; i < n; i++)
            out[i] -= (real)t->minus;
}

void pb_tensor_read(const pb_tensor *t, size_t first, size_t n, real *out)
{
    assert(first <= t->count && n <= t->count - first);
    if (n <= 4 * PIECE) {
        read_piece(t, first, n, out);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < n; at += PIECE)
        read_piece(t, first + at, n - at < PIECE ? n - at : PIECE, out + at);
}

typedef struct scratch { // for one piece of a digest
    real value[DIGEST_PIECE];
    uint16_t high[DIGEST_PIECE], low[DIGEST_PIECE];
} scratch;

// The upper halves of the values as F32, then the lower halves unless all are zero, which they are
// for BF16 values: these are hashed at half the cost, and equal to their copy in F32.
static void digest_piece(const pb_tensor *t, size_t first, size_t n, scratch *s,
                         uint8_t out[SHA256_DIGEST_LENGTH])
{
    uint16_t any = 0;
    read_piece(t, first, n, s->value);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of_float((float)s->value[i]);
        s->high[i] = (uint16_t)(bits >> 16);
        s->low[i] = (uint16_t)bits;
        any |= s->low[i];
    }
    SHA2_CTX sha;
    SHA256Init(&sha);
    SHA256Update(&sha, (const uint8_t *)s->high, n * sizeof *s->high);
    if (any)
        SHA256Update(&sha, (const uint8_t *)s->low, n * sizeof *s->low);
    SHA256Final(out, &sha);
}

pb_err pb_tensor_digest(const pb_tensor *t, char out[PB_HASH_LEN])
{
    if (!t->data && t->count) {
        char text[160];
        int n =
            snprintf(text, sizeof text, "random %s seed %llu number %u mean %.9g gain %.9g n %zu",
                     pb_dtype_name(t->dtype), (unsigned long long)t->seed, t->number,
                     (double)t->mean, (double)t->gain, t->count);
        pb_sha256(out, text, (size_t)n);
        return PB_OK;
    }
    size_t pieces = (t->count + DIGEST_PIECE - 1) / DIGEST_PIECE;
    uint8_t(*digest)[SHA256_DIGEST_LENGTH] = malloc((pieces + 1) * sizeof *digest);
    if (!digest)
        return pb_fail(PB_MEMORY, NULL, "no memory for a tensor's digest");
    atomic_bool failed = false;
#pragma omp parallel if (pieces > 1)
    {
        scratch *s = malloc(sizeof *s);
        if (!s)
            failed = true;
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < pieces; i++) {
            size_t at = i * DIGEST_PIECE, left = t->count - at;
            size_t n = left < DIGEST_PIECE ? left : DIGEST_PIECE;
            if (s)
                digest_piece(t, at, n, s, digest[i]);
            pb_tensors_release_part(t, at, n);
        }
        free(s);
    }
    pb_sha256(out, digest, pieces * sizeof *digest);
    free(digest);
    return failed ? pb_fail(PB_MEMORY, NULL, "no memory for a tensor's digest") : PB_OK;
}
