// Whole generations, as a user waits for them: prompts, and a fixed number of new tokens for each,
// greedily or by beam search. One decoder serves requests of any adapters.
#ifndef PB_SERVE_GENERATION_H
#define PB_SERVE_GENERATION_H

#include "serve/decode.h"

// The machine limits the two kinds of steps differently.
enum { PB_PROMPT_STEPS, PB_DECODE_STEPS, PB_STEP_KINDS };
typedef pb_counts pb_generation_counts[PB_STEP_KINDS][PB_COMPONENTS];

typedef struct pb_generation_args {
    const int32_t *prompts; // (requests, prompt), outlive it
    size_t requests, beam;  // at the most
    size_t prompt, fresh;   // tokens of each prompt, and of each response
} pb_generation_args;

typedef struct pb_generation pb_generation;

// The adapters (n, may be 0) outlive it.
pb_err pb_generation_new(pb_generation **out, const pb_model *m, pb_adapter *const *adapters,
                         size_t n, const pb_generation_args *args);
void pb_generation_free(pb_generation *g);

// Runs requests first..first+n-1 at once; tenant[i] is the number of request i's adapter, or -1.
// What was done is added to `counts` (may be NULL), with the time of each component.
pb_err pb_generation_run(pb_generation *g, size_t first, size_t n, const int *tenant, size_t beam,
                         pb_generation_counts *counts);
// A digest of what a request got in the last run: its tokens and, of beam search, its score.
uint64_t pb_generation_digest(const pb_generation *g, size_t request);

// What a program needs that serves `requests` at once with these adapters alone, beside the
// backbone: adapters, keys, values and state of all beams, activations, logits.
pb_err pb_generation_need(size_t *bytes, const pb_model *m, pb_adapter *const *adapters, size_t n,
                          const pb_generation_args *args);

#endif
