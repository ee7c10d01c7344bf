// Run files read back into plain structures, for tables, figures and reports.
#ifndef PB_RESULTS_LOAD_H
#define PB_RESULTS_LOAD_H

#include "core/error.h"
#include "core/json.h"
#include "results/serving.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pb_metric {
    char *name;
    double value;
} pb_metric;

typedef struct pb_array {
    char *name;
    double *v; // (rows,cols)
    size_t rows, cols;
} pb_array;

typedef struct pb_evaluation {
    char *task, *split, *headline; // headline: "" when none was named
    bool higher_is_better;
    pb_metric *metrics;
    size_t n_metrics;
    pb_array *arrays; // per-example scores
    size_t n_arrays;
} pb_evaluation;

// Numbers that were not recorded are NaN.
typedef struct pb_scenario {
    char *name, *method, *phase, *sharing;
    double tenants, rows, prompt, fresh, beam, budget, trainable, tokens_per_sample,
        resident_bytes_per_tenant, memory_bytes, flops_per_token, bytes_per_token,
        regions_per_token;
    double of_limit; // share of the time that the machine would need
    double backbone_share, attention_share, adapter_share, head_share; // of the time
    int64_t *samples_ns;
    size_t n;
} pb_scenario;

typedef struct pb_curve {
    int64_t *step;
    double *loss, *lr, *score; // NULL when not recorded
    size_t n;
} pb_curve;

typedef struct pb_record {
    char *path, *run_id, *status, *message, *created, *version, *commit, *dirty, *config_sha256;
    json_t *config, *env, *seeds;
    const char *model, *task, *method, *kind; // inside config; "" when absent
    double budget, model_params;              // NaN when absent
    int64_t seed;                             // -1 when absent
    char *knob;                               // "" for a method without one
    double knob_value, trainable, saved_bytes, bytes_per_tenant, flops_per_token, seconds;
    pb_evaluation *evals;
    size_t n_evals;
    pb_scenario *scenarios;
    size_t n_scenarios;
    pb_serving *serving; // NULL: of no served workload
    pb_curve train, valid;
} pb_record;

typedef struct pb_records {
    pb_record *v; // sorted by path
    size_t n;
} pb_records;

// Reads run files; a folder stands for all run files below it, but for folders "tuning" in it,
// which hold the trials of a sweep. Other files in a folder are passed over, a damaged run file is
// an error. No run file at all is an error too.
pb_err pb_records_load(pb_records *out, const char *const *paths, size_t n);
void pb_records_free(pb_records *r);

bool pb_record_is(const pb_record *r, const char *status);
const pb_evaluation *pb_record_eval(const pb_record *r, const char *task, const char *split);
double pb_eval_metric(const pb_evaluation *e, const char *name); // NaN when absent
const pb_array *pb_eval_array(const pb_evaluation *e, const char *name);

// The paths of the run files that pb_records_load would read, sorted.
typedef struct pb_paths {
    char **v;
    size_t n, room;
} pb_paths;
pb_err pb_run_files(pb_paths *out, const char *const *paths, size_t n);
void pb_paths_free(pb_paths *p);

// Writes a file whose group /runs holds one external link (with a path relative to that file) per
// run, named by run id. The run files must stay where they are relative to it.
pb_err pb_results_merge(const char *out_h5, const char *const *paths, size_t n);

#endif
