// Steps: one forward function for training, prefill and cached decoding, over rows and segments
// that may belong to any mix of tenants.
//
// A pb_step owns all memory of a step, sized by a dry run before the first one. Setting it up may
// fail; running it cannot, allocates nothing and prints nothing.
#ifndef PB_MODEL_FORWARD_H
#define PB_MODEL_FORWARD_H

#include "model/model.h"

typedef struct pb_batch {
    size_t n_rows, n_seg;
    const int32_t *tokens; // (n_rows)
    const pb_segment *seg; // (n_seg), in row order, tiling the rows
} pb_batch;

typedef struct pb_step_limits {
    size_t rows, segments;   // largest batch
    bool train;              // record the tape and run backward
    bool recompute;          // keep only the inputs of layers, and run these again for backward
    bool loss;               // loss will be computed
    size_t slots, positions; // KV cache; 0 slots: none. positions include no prefix
    bool front;              // run the virtual tokens of the one tenant, as training does
    size_t seats;            // see pb_step_seat; 0: the tenants themselves
} pb_step_limits;

typedef struct pb_step pb_step;

// `tenants` (n, may be 0) are what segments refer to; they must outlive the step. Those with a
// prefix must be packed (pb_adapter_serve) unless this is a training step.
pb_err pb_step_new(pb_step **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                   const pb_step_limits *limits);
void pb_step_free(pb_step *s);

// Bytes of activations, gradients and scratch that such a step needs. In a training step whose
// layers all have gradients, R rows in S segments take, in numbers,
//   R D + 2 R C            rotary positions, embedding
//   + L A                  the layers, A each
//   + 2 R C + R            the last norm
//   + max(b (2 C + V), T)  the loss of b rows at a time; scratch of the backward pass
// with KV = KVH D, T = max(R C, (R + NR S) KV), a bias-free backbone's layer
//   A = R (12 C + 4 H D + 4 KV + 6 F + H + 2) + (R + NR S) KV
// and what a method adds to it. With `recompute` the layers take 2 R C each, and the scratch is
// T + A + R C: one layer at a time. Blocks are rounded up to 64 bytes.
pb_err pb_step_need(size_t *bytes, const pb_model *m, pb_adapter *const *tenants, size_t n,
                    const pb_step_limits *limits);
// And of its keys, values and per-sequence state.
size_t pb_step_kv_need(const pb_config *c, pb_adapter *const *tenants, size_t n,
                       const pb_step_limits *limits);

// With seats, the tenants given to pb_step_new only show which shapes there may be; segments refer
// to seats, each of which holds an adapter, or none (the bare backbone), that may be another one in
// the next step. An adapter must have the shape of tenant `like`: its method, options that may
// share a group, parameters, prefix and state of the same size, which pb_adapter_same_shape tells.
void pb_step_seat(pb_step *s, size_t seat, pb_adapter *a, size_t like);

// Runs the backbone with its adapters: returns the normalised hidden states (R,C), valid until the
// next step. `training` switches dropout on; the tape records if the limits said `train`.
pb_mat *pb_forward(pb_step *s, const pb_batch *b, bool training, uint64_t seed, uint64_t step);

// Loss of the last forward's hidden states, see pb_lm_loss; then, if recording, pb_step_backward.
void pb_step_loss(pb_step *s, pb_mat *h, const int32_t *target, const real *weight, real *nll,
                  uint8_t *hits);
// Adds the gradients of the loss to the trained tenant's (or the backbone's) parameters.
void pb_step_backward(pb_step *s);
// Logits of some rows of the last forward: out (n,V).
void pb_step_logits(pb_step *s, const pb_mat *h, const size_t *rows, size_t n, real *out);

// What the last step did, by component; and the sizes of its memory. The first makes later steps
// measure the time of each component too: two clock readings for every site and attention.
void pb_step_time(pb_step *s);
void pb_step_untime(pb_step *s);
const pb_counts *pb_step_counts(const pb_step *s);
size_t pb_step_bytes(const pb_step *s);    // activations, gradients, scratch
size_t pb_step_peak(const pb_step *s);     // what of these was used so far, at the most
size_t pb_step_kv_bytes(const pb_step *s); // keys, values, per-sequence state
// Reads a slot's keys (rotated, (n,KVH*D)) and values of one layer.
void pb_step_read_kv(const pb_step *s, size_t slot, size_t layer, size_t n, real *k, real *v);

// Copies positions first..n-1 of a slot's keys and values to another slot, in front of which both
// hold the same; with first = 0 also the per-sequence state.
void pb_step_copy_slot(pb_step *s, size_t to, size_t from, size_t first, size_t n);
// Keys (rotated) and values, (L, n, KVH*D) each, of n tokens run through the bare backbone, and
// their rows x (n,C) of the embedding table: what an adapter may start from.
pb_err pb_text_kv(const pb_model *m, const int32_t *tokens, size_t n, real *x, real *k, real *v);
// The same keys and values of an adapter's virtual tokens.
pb_err pb_virtual_kv(const pb_model *m, pb_adapter *a, real *k, real *v);

// Counts one batch without running it, for a given shape: what would be done.
pb_err pb_step_estimate(const pb_model *m, pb_adapter *const *tenants, size_t n, const pb_batch *b,
                        bool train, pb_counts out[PB_COMPONENTS]);

// At which sites an adapter does something.
pb_err pb_step_sites(const pb_model *m, pb_adapter *a, bool acts[PB_N_SITES]);

#endif
