// What the parts of the benchmark share.
#ifndef PB_BENCH_INTERNAL_H
#define PB_BENCH_INTERNAL_H

#include "bench/parts.h"
#include "bench/rig.h"

pb_err pb_bench_machine(pb_bench *b);
pb_err pb_bench_kernels(pb_bench *b);
pb_err pb_bench_train(pb_bench *b);
pb_err pb_bench_prefill(pb_bench *b);
pb_err pb_bench_decode(pb_bench *b);
pb_err pb_bench_tenants(pb_bench *b);
pb_err pb_bench_barriers(pb_bench *b);
pb_err pb_bench_scaling(pb_bench *b);
pb_err pb_bench_floors(pb_bench *b);

// Hands a timed work on and releases it; returns the error that timing it ended with, if any.
pb_err pb_bench_hand_on(pb_bench *b, pb_work *w, pb_err err);
// Times a work and hands it on.
pb_err pb_bench_measure(pb_bench *b, pb_work *w);

// A model with random weights, and how it is spoken of.
typedef struct pb_subject {
    pb_model *m;
    const char *name; // "A", or as given
    size_t sequences; // of a training batch
} pb_subject;

// `weights`: a storage's name, or NULL for the model's own.
pb_err pb_subject_open(pb_subject *s, const char *name, const char *weights, bool trainable);

// An adapter such as training leaves behind: initial values, moved a little. `which` tells apart
// those of several tenants.
pb_err pb_subject_adapter(pb_adapter **out, const pb_model *m, const char *method, size_t which,
                          bool trainable);
pb_err pb_subject_lora(pb_adapter **out, const pb_model *m, size_t rank, size_t which,
                       bool trainable);
void pb_subject_adapters_free(pb_adapter **a, size_t n);

// A peer's arm for the same work as arm `against`.
typedef struct pb_bench_rival {
    const char *peer;                    // "pytorch", "llama.cpp" or "llm.c"
    const char *label;                   // of the arm, behind the peer's name
    const char *what, *method, *weights; // "train", "prefill" or "decode"
    int against;
    double at_least; // times as long as ours, that is expected; 0: none
} pb_bench_rival;

// Adds it if peers are wanted and this one can do it.
pb_err pb_bench_peer(pb_bench *b, pb_work *w, const pb_subject *s, const pb_rig_args *r,
                     const pb_bench_rival *rival);

#endif
