// Pretraining of a small backbone on plain text: what `pretrain` and `sweep` share.
#ifndef PB_CLI_PRETRAINING_H
#define PB_CLI_PRETRAINING_H

#include "core/json.h"

// Keys (all optional): width, ffn, layers, heads, kv_heads, head_dim, context, tied, text ("" = the
// built-in generator's), bytes (of generated text), mark (between documents), steps, batch, lr,
// warmup, seed.
json_t *pb_pretraining_defaults(void);

// Trains and writes a model folder with recipe.json; a folder that is complete for the same recipe
// is left alone. Interrupted work goes on from its checkpoint.
pb_err pb_pretrain(const json_t *recipe, const char *folder);

#endif
