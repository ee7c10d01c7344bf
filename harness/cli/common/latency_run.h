// A latency run from its JSON configuration to its HDF5 file: what `pedrobench latency` does after
// parsing, and `pedrobench sweep` for experiments of this kind.
//
//   {"kind": "latency", "model": path, "methods": ["lora", "ia3", "prefix", "pedro"],
//    "budget": "0.5%", "tenants": [1, 2, 4, 8, 16], "phases": ["prefill", "decode"], "beams": [1],
//    "prompt": 64, "new": 32, "seconds": 60, "min_samples": 6, "seed": 1, "threads": 2}
//
// Only "model" is needed; the values above are the defaults, and "threads" is what the program runs
// with. The phase "generate" is whole generations, of every number of beams. Models with random
// weights: "random:" and what pb_open_model takes.
#ifndef PB_CLI_LATENCY_RUN_H
#define PB_CLI_LATENCY_RUN_H

#include "core/json.h"
#include "serve/latency.h"

// One scenario with what a table shows of it. Times in ms per sample: a decode step, or a prefill
// of all prompts.
typedef struct pb_latency_row {
    pb_latency_result r; // without the samples
    double median, mad, p90;
    double lo, hi;   // 95 % interval of the median; NaN below 6 samples
    double ratio;    // to the base model at this phase and batch size
    double of_limit; // share of its time that the machine would need for the same work; or NaN
    double floor;    // |base-again / base - 1| there
    pb_counts total;
} pb_latency_row;

typedef struct pb_latency_tenant { // a method at the budget
    const char *name, *knob;       // knob: "" when it has none
    long value;
    size_t trainable;
} pb_latency_tenant;

typedef struct pb_latency_report {
    bool complete; // the file was there already; nothing was measured
    pb_latency_row *rows;
    size_t n_rows;
    pb_latency_tenant tenant[16];
    size_t n_tenants;
    size_t budget, model_params, backbone_bytes, prompt, fresh, threads;
    char model[4096];
    char merged_left_out[160]; // why; "": it was not
} pb_latency_report;
void pb_latency_report_free(pb_latency_report *r);

// The configuration with all defaults filled in, checked: what a run is known by. Apply it before
// pb_config_hash.
pb_err pb_latency_config(json_t **out, const json_t *config);

// Measures and writes h5, unless h5 is the complete result of this configuration already. `m` may
// be NULL: then the model is opened here. An interrupted or failed run is written as such, and the
// error comes back.
pb_err pb_latency_run(const json_t *config, pb_model *m, const char *h5);
// The same, keeping what a table needs (released by pb_latency_report_free, also after an error).
// h5 may be NULL: no file.
pb_err pb_latency_run_report(const json_t *config, pb_model *m, const char *h5,
                             pb_latency_report *report);

#endif
