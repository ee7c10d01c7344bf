// What commands that measure times share: the environment that their files name, and how a file
// ends.
#ifndef PB_CLI_MEASURED_H
#define PB_CLI_MEASURED_H

#include "model/model.h"
#include "results/run.h"

// Kernels, model, and the variables that decide what a parallel region costs (new reference).
json_t *pb_measured_env(const pb_model *m);

// Ends a file with what it has, as complete, interrupted or failed by `err`, which comes back.
pb_err pb_measured_end(pb_run *run, pb_err err);

#endif
