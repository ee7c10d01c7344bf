// The tokenizer inside a GGUF file, as the file that a model folder would have.
#ifndef PB_MODEL_GGUF_TOKENIZER_H
#define PB_MODEL_GGUF_TOKENIZER_H

#include "core/json.h"
#include "model/tokenizer.h"

// NULL when the file has none.
pb_err pb_gguf_tokenizer_open(pb_tokenizer **out, const json_t *meta, size_t vocab);
// Writes tokenizer.model (SentencePiece), or tokenizer.json and tokenizer_config.json (byte-level
// BPE); nothing when the file has none.
pb_err pb_gguf_tokenizer_write(const json_t *meta, const char *folder);

#endif
