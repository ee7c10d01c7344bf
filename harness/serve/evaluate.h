// Evaluation of a model, with or without an adapter, on a split of a task: loss of the references,
// and likelihood ranking or generation with the task's metrics.
#ifndef PB_SERVE_EVALUATE_H
#define PB_SERVE_EVALUATE_H

#include "serve/decode.h"
#include "tasks/metrics/metrics.h"
#include "tasks/task.h"

typedef struct pb_eval_score {
    const pb_measure *measure;
    double value;
    double *items; // (n, measure->width) statistics
} pb_eval_score;

enum { PB_MOST_SCORES = 16 };

typedef struct pb_eval_result {
    size_t n;                             // examples
    pb_eval_score scores[PB_MOST_SCORES]; // all that apply to the task
    size_t n_scores;
    const pb_measure *headline;
    double score, loss; // of the headline; mean nats per response token
    double *likelihood; // (n, PB_LIKELIHOOD_STATS): what several scores share
    char **output;      // (n) generated texts; NULL without
    size_t truncated;   // examples cut to fit the context: see tasks/README.md
} pb_eval_result;

typedef struct pb_eval_options {
    pb_decoding decoding;
    size_t requests;   // that run at once; 0: 32. No result depends on it
    size_t limit;      // examples; 0: all
    const char *label; // of the progress line; NULL: none
} pb_eval_options;

pb_err pb_evaluate(pb_eval_result *out, const pb_model *m, pb_adapter *a, const pb_task *task,
                   const pb_dataset *d, pb_split split, const pb_eval_options *how);
void pb_eval_result_free(pb_eval_result *r);

#endif
