// One training run from its configuration to its result file: what `train` and `sweep` share.
//
// A configuration is a JSON object: the keys of pb_experiment_defaults with what differs. A run is
// idempotent: a complete result of the same configuration is left alone, an interrupted one goes
// on.
#ifndef PB_CLI_EXPERIMENT_H
#define PB_CLI_EXPERIMENT_H

#include "core/json.h"
#include "model/model.h"
#include "tasks/metrics/metrics.h"
#include "tasks/task.h"

// Models and data sets that several runs share.
typedef struct pb_cache {
    pb_model *model;
    char model_path[4096];
    pb_storage weights;
    pb_dataset *data;
    char data_key[4400];
} pb_cache;
void pb_cache_free(pb_cache *c);

typedef struct pb_experiment_args {
    const char *data;  // folder with original data sets, or NULL
    const char *label; // in front of the progress line
    size_t checkpoint_every;
    bool save_adapter;
} pb_experiment_args;

typedef struct pb_experiment_result {
    bool skipped;             // it was complete already
    const char *status;       // "complete", "diverged", "failed"
    char why[512];            // of a run that is not complete
    const pb_measure *metric; // the headline; NULL when there is no score
    double score, loss, seconds;
    size_t trainable;
} pb_experiment_result;

json_t *pb_experiment_defaults(void);
// Returns PB_OK for complete, diverged and failed runs alike (the status tells); errors are those
// that should end a sweep: interruption, full disk, an impossible configuration key.
pb_err pb_experiment_run(pb_experiment_result *out, const json_t *config, const char *h5,
                         pb_cache *cache, const pb_experiment_args *args);

// Opens `path`, or gives the model of that path that is open already; frozen.
pb_err pb_cache_model(pb_cache *c, const char *path, pb_storage weights, pb_model **out);

#endif
