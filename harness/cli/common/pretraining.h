// Pretraining of a small backbone on plain text: what `pretrain` and `sweep` share.
#ifndef PB_CLI_PRETRAINING_H
#define PB_CLI_PRETRAINING_H

#include "core/json.h"

// Keys, all optional:
//   from          a model to go on from: its weights, geometry and tokenizer; "" for random weights
//   width, ffn, layers, heads, kv_heads, head_dim, context, tied   the geometry
//   tokenizer     "bytes", or a file that is copied into the folder
//   text          files; [] for the built-in generator's text alone
//   valid         file for validation; "" for the last 3 % of the text, from a document's start
//   mark          what separates documents
//   bytes         of generated text, added to the files' (null: 3000000 without files, else 0)
//   steps, batch_tokens, lr, floor, warmup, weight_decay, seed     the optimizer's work
//   stop          the step to end at, of a schedule over `steps`; 0: all of them
//   dtype         of the saved weights: "f32" or "bf16"
//   recompute     activations are made again for the backward pass; stands in no recipe.json, since
//                 it changes no result
json_t *pb_pretraining_defaults(void);

// Trains and writes a model folder with recipe.json (the recipe and its result) and loss.csv; a
// folder that is complete for the same recipe is left alone. Interrupted work goes on from its
// checkpoint.
pb_err pb_pretrain(const json_t *recipe, const char *folder);

#endif
