// Decoding of many requests in one batch, whatever their tenants: greedy or by beam search.
// Requests join when there is room and leave when they are done; prompts are prefilled beside the
// others' decode rows.
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
// experiments: with the prompt's, no name could be copied from it.
//
// The beams of a request have one prefill and one computation of the methods' state; keys, values
// and state are copied between their slots, from where sequences may differ.
#ifndef PB_SERVE_DECODE_H
#define PB_SERVE_DECODE_H

#include "model/forward.h"

enum { PB_MOST_BEAMS = 64 };

typedef struct pb_decoding {
    size_t beam; // 0 and 1: greedy
    double length_penalty;
    size_t no_repeat_ngram; // no n-gram of this size comes twice in a response; 0: any may
} pb_decoding;
#define PB_GREEDY ((pb_decoding){1, 1, 0})

typedef struct pb_request {
    const int32_t *prompt; // (n_prompt), at least one token
    size_t n_prompt, max_new;
    int tenant;   // or -1
    int32_t *out; // room for max_new tokens
    size_t n_out; // filled in; an end token is not kept
    bool ended;   // by an end token
    double score; // beam search: of the hypothesis
} pb_request;

typedef struct pb_decoder pb_decoder;

// `requests` of them at most run at once, in as many KV slots times beams; `longest` is the largest
// n_prompt + max_new.
pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t requests, size_t longest, const pb_decoding *how);
void pb_decoder_free(pb_decoder *d);

// Index of the largest of n values; of equal ones the first.
int32_t pb_argmax(const real *x, size_t n);

// Runs all requests to their end. `on_step` (may be NULL) is called after every step with the
// number of finished requests. Ties between logits go to the smaller id.
pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *self, size_t done),
                 void *self);

#endif
