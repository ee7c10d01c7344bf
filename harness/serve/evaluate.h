// Evaluation of a model, with or without an adapter, on a split of a task: loss of the references,
// and likelihood ranking or greedy generation with the task's metric.
#ifndef PB_SERVE_EVALUATE_H
#define PB_SERVE_EVALUATE_H

#include "model/forward.h"
#include "tasks/task.h"

typedef struct pb_eval_result {
    size_t n;           // examples
    const char *metric; // the headline metric
    double score;       // of the headline metric, 0..1
    double loss;        // mean nats per response token
    double token_accuracy;
    double *item_loss;  // (n) nats per response token of each example
    double *item_score; // (n) 0 or 1; or (n,10) BLEU statistics
    size_t item_width;  // 1 or 10
    char **output;      // (n) generated texts; NULL for ranking
    size_t truncated;   // prompts cut on the left to fit the context
} pb_eval_result;

// `limit` 0: all examples. `label` names the progress line; NULL: none.
pb_err pb_evaluate(pb_eval_result *out, const pb_model *m, pb_adapter *a, const pb_task *task,
                   const pb_dataset *d, pb_split split, size_t limit, const char *label);
void pb_eval_result_free(pb_eval_result *r);

#endif
