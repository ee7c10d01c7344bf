// Random streams: the published vectors of Philox, and what the harness builds on it.
#include "core/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <Random123/philox.h>
#include <cmocka.h>

// Philox4x32-10 as in the paper (Salmon et al. 2011), written down a second time.
static void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c[4], k0 = key[0], k1 = key[1];
    memcpy(c, counter, sizeof c);
    for (int i = 0; i < 10; i++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
        uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t n[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
                         (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, n, sizeof c);
    }
    memcpy(out, c, sizeof c);
}

// kat_vectors of Random123.
static void known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        philox4x32_ctr_t c;
        philox4x32_key_t key = {{kat[i].key[0], kat[i].key[1]}};
        memcpy(c.v, kat[i].counter, sizeof c.v);
        philox(out, kat[i].counter, kat[i].key);
        assert_memory_equal(out, kat[i].out, sizeof out);
        c = philox4x32(c, key);
        assert_memory_equal(c.v, kat[i].out, sizeof out);
    }
    // Through the interface: all counters and keys zero.
    pb_rng r = pb_rng_make(0, (pb_stream)0, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pb_rng_u32(&r), kat[0].out[i]);
}

// Seed is the key; index, sub and stream are the counter. Files and results depend on it.
static void addressing(void **state)
{
    static const uint64_t indices[] = {0, 1, 2, 3, 4, 5, 1000, (uint64_t)1 << 33, UINT64_MAX};
    static const uint64_t seeds[] = {0, 1, 0x123456789abcdef0};
    (void)state;
    for (size_t s = 0; s < 3; s++)
        for (uint32_t sub = 0; sub < 3; sub++)
            for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
                uint64_t block = indices[i] / 4;
                uint32_t out[4], key[2] = {(uint32_t)seeds[s], (uint32_t)(seeds[s] >> 32)};
                uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), sub, PB_STREAM_TASK};
                philox(out, c, key);
                assert_int_equal(pb_rng_at(seeds[s], PB_STREAM_TASK, sub, indices[i]),
                                 out[indices[i] % 4]);
                pb_rng r = pb_rng_make(seeds[s], PB_STREAM_TASK, sub);
                for (uint64_t k = 0; indices[i] < 2000 && k < indices[i]; k++)
                    (void)pb_rng_u32(&r);
                if (indices[i] < 2000)
                    assert_int_equal(pb_rng_u32(&r), out[indices[i] % 4]);
            }
}

static void below(void **state)
{
    static const uint64_t limits[] = {1, 2, 3, 7, 10, 1000};
    (void)state;
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        enum { DRAWS = 200000 };
        size_t seen[1000] = {0};
        double expected = (double)DRAWS / (double)limits[i], chi = 0, df = (double)limits[i] - 1;
        for (size_t k = 0; k < DRAWS; k++) {
            uint64_t x = pb_rng_below(&r, limits[i]);
            assert_true(x < limits[i]);
            seen[x]++;
        }
        for (size_t k = 0; k < limits[i]; k++)
            chi += ((double)seen[k] - expected) * ((double)seen[k] - expected) / expected;
        // Five standard deviations of chi square.
        assert_true(chi <= df + 5 * sqrt(2 * df) + 1e-9);
    }
    // Without rejection the remainder of 2^64 by 3 * 2^62 would favour the lower third 2:1.
    const uint64_t n = (uint64_t)3 << 62;
    size_t low = 0;
    for (int k = 0; k < 30000; k++)
        low += pb_rng_below(&r, n) < n / 3;
    assert_true(fabs((double)low - 10000) < 5 * sqrt(30000 * 2.0 / 9));
}

static void moments(void **state)
{
    enum { N = 400000 };
    (void)state;
    pb_rng r = pb_rng_make(4, PB_STREAM_TEST, 1);
    double u1 = 0, u2 = 0, g1 = 0, g2 = 0, g3 = 0, g4 = 0;
    for (int i = 0; i < N; i++) {
        double u = pb_rng_uniform(&r), g = pb_rng_normal(&r);
        assert_true(u > 0 && u < 1);
        u1 += u / N, u2 += u * u / N;
        g1 += g / N, g2 += g * g / N, g3 += g * g * g / N, g4 += g * g * g * g / N;
    }
    const double se = 5 / sqrt(N);
    assert_true(fabs(u1 - 0.5) < 0.289 * se && fabs(u2 - 1.0 / 3) < 0.3 * se);
    assert_true(fabs(g1) < se && fabs(g2 - 1) < 1.5 * se);
    assert_true(fabs(g3) < 4 * se && fabs(g4 - 3) < 10 * se);
}

static void shuffle(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n += n < 4 ? 1 : 13) {
        size_t a[70], b[70], seen[70] = {0};
        for (size_t i = 0; i < n; i++)
            a[i] = b[i] = i;
        pb_rng r = pb_rng_make(5, PB_STREAM_ORDER, 2), s = r;
        pb_rng_shuffle(&r, a, n);
        pb_rng_shuffle(&s, b, n);
        assert_memory_equal(a, b, n * sizeof *a);
        for (size_t i = 0; i < n; i++)
            seen[a[i]]++;
        for (size_t i = 0; i < n; i++)
            assert_int_equal(seen[i], 1);
    }
    // Every order of three is equally likely.
    size_t count[27] = {0};
    pb_rng r = pb_rng_make(6, PB_STREAM_ORDER, 0);
    for (int k = 0; k < 60000; k++) {
        size_t p[3] = {0, 1, 2};
        pb_rng_shuffle(&r, p, 3);
        count[p[0] * 9 + p[1] * 3 + p[2]]++;
    }
    for (size_t i = 0; i < 27; i++)
        if (count[i])
            assert_true(fabs((double)count[i] - 10000) < 5 * sqrt(60000 * 5.0 / 36));
    assert_true(count[5] && count[7] && count[11] && count[15] && count[19] && count[21]);
}

// Streams, subs and seeds give unrelated numbers: correlations are those of chance.
static void independence(void **state)
{
    enum { N = 20000, M = 6 };
    (void)state;
    pb_rng g[M] = {pb_rng_make(1, PB_STREAM_INIT, 0),
                   pb_rng_make(1, PB_STREAM_ORDER, 0),
                   pb_rng_make(1, PB_STREAM_DROPOUT, 0),
                   pb_rng_make(1, PB_STREAM_INIT, 1),
                   pb_rng_make(2, PB_STREAM_INIT, 0),
                   pb_rng_make((uint64_t)1 << 32 | 1, PB_STREAM_INIT, 0)};
    double c[M][M] = {{0}};
    for (int i = 0; i < N; i++) {
        double x[M];
        for (int a = 0; a < M; a++)
            x[a] = (pb_rng_uniform(&g[a]) - 0.5) * sqrt(12);
        for (int a = 0; a < M; a++)
            for (int b = 0; b < a; b++)
                c[a][b] += x[a] * x[b] / N;
    }
    for (int a = 0; a < M; a++)
        for (int b = 0; b < a; b++)
            assert_true(fabs(c[a][b]) < 5 / sqrt(N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers), cmocka_unit_test(addressing),
        cmocka_unit_test(below),         cmocka_unit_test(moments),
        cmocka_unit_test(shuffle),       cmocka_unit_test(independence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
