// The engine that computes: steps of a model, and from their logits the next tokens, greedy or by
// beam search.
//
// Beam search as in Hugging Face's BeamSearchScorer (transformers 4.36 and later, early_stopping
// False): of the open beams' continuations, ordered by summed log-probability, the best `beam` that
// do not end go on; one that ends, if it is among the best `beam` of all, is a hypothesis with the
// score
//
//   sum of log-probabilities / (generated tokens, the end token counted) ^ length_penalty
//
// The best `beam` hypotheses are kept. The search is done when there are so many and the worst is
// at least the best continuation's sum / length ^ length_penalty, or at max_new tokens, when the
// open beams become hypotheses too. Equal sums: the earlier beam, then the smaller token id, first.
// A forbidden token has no probability, and the others keep theirs. Unlike there, the n-grams that
// may not come again are those of the response alone, as in the decoder of the LoRA paper's E2E
// experiments: with the prompt's, no name could be copied from it. A token that completes a stop
// sequence ends a beam as an end token does.
//
// The beams of a request have one prefill and one computation of the methods' state; keys, values
// and state are copied between their slots, from where sequences may differ.
#ifndef PB_SERVE_ENGINE_H
#define PB_SERVE_ENGINE_H

#include "serve/server.h"

typedef struct pb_model_engine pb_model_engine;

// `shapes` (n, may be 0) show every shape that a tenant's adapter can have; they, the model and the
// store (NULL: none) outlive the engine. `whole` is the longest prompt that may not be cut.
pb_err pb_model_engine_new(pb_model_engine **out, const pb_model *m, pb_adapter *const *shapes,
                           size_t n, const pb_store *store, const pb_server_limits *l,
                           size_t whole);
void pb_model_engine_free(pb_model_engine *e);
// Bytes that such an engine takes.
pb_err pb_model_engine_need(size_t *bytes, const pb_model *m, pb_adapter *const *shapes, size_t n,
                            const pb_server_limits *l, size_t whole);
const pb_engine *pb_model_engine_get(pb_model_engine *e);
pb_step *pb_model_engine_step(pb_model_engine *e);

// Index of the largest of n values; of equal ones the first.
int32_t pb_argmax(const real *x, size_t n);

#endif
