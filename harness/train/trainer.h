// Training of one adapter on a frozen backbone, or of all the backbone's weights.
#ifndef PB_TRAIN_TRAINER_H
#define PB_TRAIN_TRAINER_H

#include "model/forward.h"
#include "train/data.h"
#include "train/optim.h"

typedef struct pb_train_options {
    size_t steps, batch, accumulate; // sequences per batch; batches per step
    size_t batch_tokens;             // rows per batch instead; 0: by sequences
    bool recompute;   // activations are made again for the backward pass: less memory, same bits
    double lr, floor; // peak and final rate (as a fraction)
    pb_schedule schedule;
    size_t warmup; // steps
    pb_adamw adamw;
    double clip;       // gradient norm; 0: none
    size_t eval_every; // steps between validations; 0: only at the end
    size_t patience;   // validations without improvement before stopping; 0: never stop early
    uint64_t seed;
    const char *checkpoint;  // file; NULL: none
    size_t checkpoint_every; // steps; 0: only when interrupted
    size_t stop;             // step to end at, of a schedule over `steps`; 0: all of them
    double time_limit;       // seconds; 0: none. Ends training as if the steps were done
} pb_train_options;

void pb_train_defaults(pb_train_options *o);

typedef struct pb_train_point {
    size_t step; // from 1
    double loss, lr, grad_norm, seconds;
    size_t tokens; // rows processed so far
} pb_train_point;

// What the caller wants to hear; any may be NULL.
typedef struct pb_train_hooks {
    void *self;
    pb_err (*step)(void *self, const pb_train_point *p);
    pb_err (*valid)(void *self, size_t step, double loss);
    pb_err (*resumed)(void *self, size_t step);
    pb_err (*saved)(void *self); // a checkpoint was written
    const char *label;           // of the progress line; NULL: none
} pb_train_hooks;

typedef struct pb_train_result {
    size_t steps, best_step, tokens;
    double first_loss, last_loss, best_valid, seconds;
    size_t step_bytes; // memory of a step
    // Gradients that a process has sent in a step. Of n values of b bytes, in M batches on N
    // processes: n b (1 - 1/N) (ceil(M/N) + 1), give or take a number.
    size_t sent_bytes;
} pb_train_result;

// Trains in place. With validation data the values end as those of the best validation; returns
// PB_DIVERGED when a loss or gradient is not finite or absurd, PB_INTERRUPTED after Ctrl-C (with a
// checkpoint written). An existing checkpoint of the same work is continued exactly. Processes that
// were started together (core/ranks.h) all call it; the hooks are for rank 0, the values end alike.
pb_err pb_train(pb_model *m, pb_adapter *a, const pb_seqs *train, const pb_seqs *valid,
                const pb_train_options *o, const pb_train_hooks *h, pb_train_result *out);

// Negative log-likelihood of the responses, in nats: per sequence sums (n) and token counts (n),
// and how many response tokens were the most likely ones. `a` may be NULL.
pb_err pb_score(const pb_model *m, pb_adapter *a, const pb_seqs *s, double *nll, size_t *tokens,
                size_t *hits);
// Mean per response token.
pb_err pb_mean_loss(const pb_model *m, pb_adapter *a, const pb_seqs *s, double *loss);

#endif
