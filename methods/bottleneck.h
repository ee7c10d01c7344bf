// What the serial and the parallel adapters have in common: two bottlenecks per layer, one for
// attention, one for feed-forward. W_up and the biases start at zero, W_down uniform on
// +-1/sqrt(C): the backbone is untouched at step 0.
#ifndef PB_METHODS_BOTTLENECK_H
#define PB_METHODS_BOTTLENECK_H

#include "methods/method.h"

#include <math.h>
#include <stdio.h>

// Ids of the adapter of attention; those of feed-forward follow, PER_SITE further on.
enum { DOWN, DOWN_BIAS, UP, UP_BIAS, PER_SITE };
enum { BOTH, ATTENTION, FFN }; // values of the option `where`
#define PB_BOTTLENECK_ACTS   "relu", "gelu", "silu", "tanh", "identity", NULL
#define PB_BOTTLENECK_PLACES "both", "attention", "ffn", NULL

// r: inner width; scale: factor of what an adapter adds.
static inline pb_err pb_bottleneck_layout(pb_layout *l, const pb_config *config, size_t r,
                                          int where, double scale)
{
    const size_t C = config->width;
    for (int i = 0; i < (int)config->layers; i++)
        for (int at = 0; at <= PER_SITE; at += PER_SITE) {
            char name[64];
            if (where == (at ? ATTENTION : FFN))
                continue;
            const char *block = at ? "mlp" : "self_attn";
            snprintf(name, sizeof name, "%s.adapter.down.weight", block);
            pb_layout_add(l, i, at + DOWN, name, r, C, PB_INIT_UNIFORM, 1 / sqrt((double)C), 0);
            snprintf(name, sizeof name, "%s.adapter.down.bias", block);
            pb_layout_add(l, i, at + DOWN_BIAS, name, 1, r, PB_INIT_ZERO, 0, PB_NO_DECAY);
            snprintf(name, sizeof name, "%s.adapter.up.weight", block);
            pb_spec *up = pb_layout_add(l, i, at + UP, name, r, C, PB_INIT_ZERO, 0, PB_TRANSPOSED);
            if (up)
                up->scale = scale;
            snprintf(name, sizeof name, "%s.adapter.up.bias", block);
            up = pb_layout_add(l, i, at + UP_BIAS, name, 1, C, PB_INIT_ZERO, 0, PB_NO_DECAY);
            if (!up)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of the adapters");
            up->scale = scale;
        }
    return PB_OK;
}

#endif
