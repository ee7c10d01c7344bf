// Small backbones with random weights of every kind.
#ifndef PB_CONFORMANCE_TINY_H
#define PB_CONFORMANCE_TINY_H

#include "core/rng.h"
#include "model/model.h"

typedef struct pb_tiny {
    const char *name;
    pb_config config;
} pb_tiny;

enum { PB_N_TINIES = 3 };
extern const pb_tiny pb_tinies[PB_N_TINIES];

// Normal numbers that a float holds, so that both builds and files keep them exactly.
void pb_tiny_fill(real *v, size_t n, double mean, double sd, pb_rng *r);
// Weights such that activations are of order one.
void pb_tiny_weights(pb_model *m, uint64_t seed);
// Writes pb_tinies[t] into folder/model<t>, if it is not there, and opens it.
pb_err pb_tiny_open(pb_model **out, const char *folder, size_t t, const pb_model_args *args);

#endif
