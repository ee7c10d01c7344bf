// One training run from its configuration to its result file: what `train` and `sweep` share.
//
// A configuration is a JSON object: the keys of pb_experiment_defaults with what differs. A run is
// idempotent: a complete result of the same configuration is left alone, an interrupted one goes
// on.
#ifndef PB_CLI_EXPERIMENT_H
#define PB_CLI_EXPERIMENT_H

#include "core/json.h"
#include "model/model.h"
#include "results/run.h"
#include "tasks/metrics/metrics.h"
#include "tasks/task.h"

// Models and data sets that several runs share.
typedef struct pb_cache {
    pb_model *model; // may have been dropped: the next four lines are still known
    char model_path[4096];
    pb_storage weights;
    pb_config model_config;
    char model_sha256[65];
    pb_dataset *data;
    char data_key[4400];
} pb_cache;
void pb_cache_free(pb_cache *c);
void pb_cache_drop_model(pb_cache *c); // gives the weights' memory back

typedef struct pb_experiment_args {
    const char *data;  // folder with original data sets, or NULL
    const char *label; // in front of the progress line
    size_t checkpoint_every;
    bool save_adapter;
} pb_experiment_args;

typedef struct pb_experiment_result {
    bool skipped;         // it was complete already
    pb_run_status status; // complete, diverged or failed
    pb_err error;         // of a run that is not complete
    char why[512], hint[256];
    const pb_measure *metric; // the headline; NULL when there is no score
    double score, loss, seconds;
    size_t trainable;
} pb_experiment_result;

json_t *pb_experiment_defaults(void);
// Refuses unknown keys among some of a configuration's.
pb_err pb_experiment_keys(const json_t *some, const char *what);
// Refuses what is wrong by itself, whatever the model and the data are.
pb_err pb_experiment_check(const json_t *config);
// Returns PB_OK for complete, diverged and failed runs alike (the status tells). Errors are what
// no result file records: interruption, a full disk, an impossible key, data that is not there.
pb_err pb_experiment_run(pb_experiment_result *out, const json_t *config, const char *h5,
                         pb_cache *cache, const pb_experiment_args *args);
// What is there of it already: the status of a verified result, and the message it recorded.
pb_err pb_experiment_look(pb_run_status *out, const json_t *config, const char *h5, pb_cache *cache,
                          const pb_experiment_args *args, char *why, size_t why_size);

#endif
