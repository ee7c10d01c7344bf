// Tokenizers: bytes (ids 0-255 are the bytes, then BOS 256 and EOS 257) and llama2.c tokenizer.bin
// (SentencePiece BPE with byte fallback).
#ifndef PB_MODEL_TOKENIZER_H
#define PB_MODEL_TOKENIZER_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pb_tokenizer pb_tokenizer;

// `path` is a tokenizer file, or "bytes". `vocab` is the model's vocabulary size.
pb_err pb_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab);
void pb_tokenizer_close(pb_tokenizer *t);

size_t pb_tokenizer_vocab(const pb_tokenizer *t);
int32_t pb_tokenizer_bos(const pb_tokenizer *t);
int32_t pb_tokenizer_eos(const pb_tokenizer *t);

// Appends the ids of text[0..len) to the growing array (*ids, *n, *cap; start from NULL, 0, 0;
// release with free). No BOS or EOS is added. `continues` says that the text goes on after earlier
// text of the same sequence, so no leading space is invented.
pb_err pb_tokenizer_encode(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                           int32_t **ids, size_t *n, size_t *cap);

// Decodes n ids to a new string (release with free); *len is its length, it is also
// zero-terminated. Control tokens decode to nothing. `continues` as above.
pb_err pb_tokenizer_decode(const pb_tokenizer *t, const int32_t *ids, size_t n, bool continues,
                           char **text, size_t *len);

#endif
