// Counter-based random numbers (Philox4x32-10, through Random123), one stream per purpose.
//
// A number is a pure function of (seed, stream, counter), so methods that share a seed share the
// data order, and a resumed run continues exactly.
#ifndef PB_CORE_RNG_H
#define PB_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

typedef enum pb_stream {
    PB_STREAM_INIT = 1, // parameter initialisation
    PB_STREAM_ORDER,    // order of training examples
    PB_STREAM_DROPOUT,
    PB_STREAM_TASK,   // generated tasks
    PB_STREAM_SAMPLE, // sampling while decoding, workloads
    PB_STREAM_STATS,  // bootstrap
    PB_STREAM_TEST
} pb_stream;

typedef struct pb_rng {
    uint64_t seed;
    uint32_t stream;
    uint32_t sub;  // separates generators of one stream (a layer, an epoch, an item)
    uint64_t next; // counter of 32-bit numbers drawn so far
    uint32_t block[4];
} pb_rng;

pb_rng pb_rng_make(uint64_t seed, pb_stream stream, uint32_t sub);

uint32_t pb_rng_u32(pb_rng *r);
uint64_t pb_rng_below(pb_rng *r, uint64_t n); // uniform on 0..n-1, n > 0, unbiased
double pb_rng_uniform(pb_rng *r);             // in (0,1)
double pb_rng_normal(pb_rng *r);              // mean 0, variance 1 (Box-Muller, one of the pair)
void pb_rng_shuffle(pb_rng *r, size_t *index, size_t n);

// One 32-bit number addressed directly: for dropout, where rows are processed in any order.
uint32_t pb_rng_at(uint64_t seed, pb_stream stream, uint32_t sub, uint64_t index);
// Four at once: those with the indices 4 * block to 4 * block + 3.
void pb_rng_block(uint32_t out[4], uint64_t seed, uint32_t stream, uint32_t sub, uint64_t block);

#pragma GCC visibility pop

#endif
