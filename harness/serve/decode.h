// Decoding of many requests in one batch, whatever their tenants, to their end: a server
// (server.h) with nothing but these requests, and adapters that are all in memory.
#ifndef PB_SERVE_DECODE_H
#define PB_SERVE_DECODE_H

#include "serve/engine.h"

typedef struct pb_decoder pb_decoder;

// `requests` of them at most run at once, in as many KV slots times beams; `longest` is the largest
// n_prompt + max_new.
pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t requests, size_t longest, const pb_decoding *how);
void pb_decoder_free(pb_decoder *d);

// Runs all requests to their end, decoded as the decoder was made for, or as a request says itself
// (with no more beams than that). `on_step` (may be NULL) is called after every step with the
// number of finished requests. Ties between logits go to the smaller id.
pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *self, size_t done),
                 void *self);

// During on_step: the step that was just made, and what it was for.
pb_step *pb_decoder_step(pb_decoder *d);
const pb_work *pb_decoder_work(const pb_decoder *d);

// Bytes that such a decoder takes: keys, values and state, activations, logits and texts.
pb_err pb_decoder_need(size_t *bytes, const pb_model *m, pb_adapter *const *tenants, size_t n,
                       size_t requests, size_t longest, const pb_decoding *how);

#endif
