// Greedy decoding of many requests in one batch, whatever their tenants: requests join when a slot
// is free and leave when they are done; prompts are prefilled beside the others' decode rows.
#ifndef PB_SERVE_DECODE_H
#define PB_SERVE_DECODE_H

#include "model/forward.h"

typedef struct pb_request {
    const int32_t *prompt; // (n_prompt), at least one token
    size_t n_prompt, max_new;
    int tenant;   // or -1
    int32_t *out; // room for max_new tokens
    size_t n_out; // filled in; an end token is not kept
    bool ended;   // by an end token
} pb_request;

typedef struct pb_decoder pb_decoder;

// `slots` requests at most run at once; `longest` is the largest n_prompt + max_new.
pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t slots, size_t longest);
void pb_decoder_free(pb_decoder *d);

// Index of the largest of n values; of equal ones the first.
int32_t pb_argmax(const real *x, size_t n);

// Runs all requests to their end. `on_step` (may be NULL) is called after every step with the
// number of finished requests. Ties between logits go to the smaller id.
pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *self, size_t done),
                 void *self);

#endif
