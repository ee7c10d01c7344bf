// Files of `pedrobench bench`: works, their arms, and every sample.
#ifndef PB_RESULTS_BENCH_H
#define PB_RESULTS_BENCH_H

#include "core/error.h"
#include "core/json.h"
#include <stdbool.h>

// `works` as the command prints them: [{"work", "tokens", "arms": [{"name", ..., "seconds":
// [...]}]}]. Work i and arm k are the group work/i/k: the samples, and everything else as
// attributes.
pb_err pb_bench_save(const json_t *works, const json_t *env, const char *path);

bool pb_bench_is(const char *path);
// A summary, to be released: [{"work", "arm", "median_ms", "lower_ms", "upper_ms",
// "fraction_of_limit", "memory_bytes", "x" (numbers or null), and along an axis "axis",
// "axis_label", "curve"}].
pb_err pb_bench_load(json_t **arms, const char *path);

#endif
