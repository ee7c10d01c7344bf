#include "core/rng.h"

#include <math.h>
#include <Random123/philox.h>

void pb_rng_block(uint32_t out[4], uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index)
{
    philox4x32_ctr_t c = {{(uint32_t)index, (uint32_t)(index >> 32), sub, stream}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32(c, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

pb_rng pb_rng_make(uint64_t seed, pb_stream stream, uint32_t sub)
{
    return (pb_rng){.seed = seed, .stream = stream, .sub = sub};
}

uint32_t pb_rng_u32(pb_rng *r)
{
    if (r->next % 4 == 0)
        pb_rng_block(r->block, r->seed, r->stream, r->sub, r->next / 4);
    return r->block[r->next++ % 4];
}

uint32_t pb_rng_at(uint64_t seed, pb_stream stream, uint32_t sub, uint64_t index)
{
    uint32_t b[4];
    pb_rng_block(b, seed, stream, sub, index / 4);
    return b[index % 4];
}

uint64_t pb_rng_below(pb_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do {
        x = (uint64_t)pb_rng_u32(r) << 32;
        x |= pb_rng_u32(r);
    } while (x >= limit);
    return x % n;
}

double pb_rng_uniform(pb_rng *r)
{
    return (pb_rng_u32(r) + 0.5) / 4294967296.0;
}

double pb_rng_normal(pb_rng *r)
{
    double u = pb_rng_uniform(r), v = pb_rng_uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

void pb_rng_shuffle(pb_rng *r, size_t *index, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = pb_rng_below(r, i);
        size_t t = index[i - 1];
        index[i - 1] = index[j];
        index[j] = t;
    }
}
