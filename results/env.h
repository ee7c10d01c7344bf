// The environment of a run: what a reader needs to judge or repeat its figures.
#ifndef PB_RESULTS_ENV_H
#define PB_RESULTS_ENV_H

#include "core/error.h"
#include "core/json.h"

// A new object: cpu, processors, threads, memory_bytes, os, kernel, machine, compiler, software,
// version, commit, dirty, binary_sha256; the keys of `extra` (may be NULL) are added. The host's
// name and paths are left out.
pb_err pb_env_collect(json_t **out, const json_t *extra);

#endif
