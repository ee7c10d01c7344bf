// What a method costs per token, as the operations count it in dry steps.
#ifndef PB_CLI_COST_H
#define PB_CLI_COST_H

#include "model/forward.h"

typedef struct pb_cost {
    double flops, bytes; // added to one token (bytes: parameters, keys and values read)
    size_t regions;      // parallel regions added to a step
} pb_cost;

// Of `rows` tokens from position `pos0` on (0: a prompt) of one sequence, per token.
pb_err pb_cost_of(const pb_model *m, pb_adapter *a, size_t rows, size_t pos0, pb_cost *out);

#endif
