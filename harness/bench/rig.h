// Arms that run a model: prefill, decoding, and training steps, as the suite itself runs them.
#ifndef PB_BENCH_RIG_H
#define PB_BENCH_RIG_H

#include "bench/bench.h"
#include "model/forward.h"

typedef enum pb_rig_kind {
    PB_RIG_PREFILL, // prompts into the cache, and the logits behind them
    PB_RIG_DECODE,  // one token each behind `context` others
    PB_RIG_TRAIN    // forward, loss, backward, AdamW
} pb_rig_kind;

typedef struct pb_rig_args {
    pb_rig_kind kind;
    pb_model *model; // trained itself, in a training rig without adapters
    pb_adapter *const *adapters;
    // 0: the bare backbone; else the sequences have them in turn. Of a training rig at most 1, made
    // for training.
    size_t n_adapters;
    size_t sequences, tokens; // rows are sequences x tokens; tokens 1 when decoding
    size_t context;           // when decoding: tokens in front
    int threads;
} pb_rig_args;

typedef struct pb_rig pb_rig;

// The adapters and the model must outlive it.
pb_err pb_rig_new(pb_rig **out, const pb_rig_args *args);
void pb_rig_free(void *rig);
pb_err pb_rig_sample(void *rig, bool warm, size_t runs, double *seconds); // of pb_arm
// What one run needs, by component; memory of activations, gradients, caches and adapters.
const pb_counts *pb_rig_counts(const pb_rig *rig);
size_t pb_rig_bytes(const pb_rig *rig);

// An arm that runs it: the rig is released with the arm; FLOPs and bytes are those of the counts.
pb_err pb_rig_arm(pb_arm **out, pb_work *w, const char *name, const pb_rig_args *args);

#endif
