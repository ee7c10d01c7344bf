// A served workload from its JSON configuration to its HDF5 file: what `pedrobench serve` does
// after parsing.
//
//   {"kind": "serve", "model": path, "methods": ["lora", "ia3", "prefix", "pedro"],
//    "options": {"lora": {"rank": "8"}}, "budgets": ["0.5%"], "adapters": [folders],
//    "tenants": 16, "popularity": "uniform", "clients": 8, "rate": 10, "rate_end": 20, "cv": 1,
//    "trace": FILE.csv, "prompt": "64", "output": "32", "task": NAME, "data": folder,
//    "requests": 200, "seconds": 30, "warm_up": 20, "beam": 1, "slots": 16, "rows": 144,
//    "queue": 1024, "adapter_memory": bytes, "ttft_ms": 200, "tpot_ms": 50, "seed": 1,
//    "weights": "auto", "threads": 2}
//
// Only "model" is needed. One of "clients" (default: 8), "rate" and "trace" is given.
#ifndef PB_CLI_SERVE_RUN_H
#define PB_CLI_SERVE_RUN_H

#include "core/json.h"
#include "results/serving.h"

// The configuration with all defaults filled in, checked: what a run is known by.
pb_err pb_serve_config(json_t **out, const json_t *config);

// Serves it and writes h5 (NULL: no file), unless that is the complete result of this configuration
// already; then *out is NULL. An interrupted or failed run is written as such, and the error comes
// back; *out is what there is, also then.
pb_err pb_serve_run(pb_serving **out, const json_t *config, const char *h5);

#endif
