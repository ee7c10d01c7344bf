// The trained rational activation of PEDRO, IAPT and MiLoRA: one per layer, starting as GELU, its
// coefficients updated by the second level (see pedro.c).
#ifndef PB_METHODS_RATIONAL_H
#define PB_METHODS_RATIONAL_H

#include "methods/method.h"

#include <stdio.h>

// Adds a layer's coefficients, ids a and b, named after the method; theta_lr 0 freezes them.
static inline void pb_rational_layout(pb_layout *l, int layer, const char *method, int a, int b,
                                      double theta_lr)
{
    unsigned flags = PB_THETA | PB_NO_DECAY | (theta_lr > 0 ? 0 : PB_FROZEN);
    char name[64];
    snprintf(name, sizeof name, "%s.rational.a", method);
    pb_layout_add(l, layer, a, name, 1, 7, PB_INIT_HOOK, 0, flags);
    snprintf(name, sizeof name, "%s.rational.b", method);
    pb_layout_add(l, layer, b, name, 1, 5, PB_INIT_HOOK, 0, flags);
}

static inline void pb_rational_init(const pb_params *p, const pb_config *config, int a, int b)
{
    for (size_t i = 0; i < config->layers; i++) {
        real *va = pb_values(p, i, a, NULL, NULL), *vb = pb_values(p, i, b, NULL, NULL);
        if (va && vb)
            pb_rational_gelu(va, vb);
    }
}

#endif
