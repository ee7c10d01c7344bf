// Tokenizers: bytes (ids 0-255 are the bytes, then BOS 256 and EOS 257), Hugging Face
// tokenizer.json, SentencePiece tokenizer.model and llama2.c tokenizer.bin.
//
// Text is data: it cannot spell a control token such as <|endoftext|> or </s>; who wants one puts
// its id (pb_tokenizer_control). A tokenizer does not change after it was opened, and several
// threads may use it.
#ifndef PB_MODEL_TOKENIZER_H
#define PB_MODEL_TOKENIZER_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pb_tokenizer pb_tokenizer;

// `path` is a tokenizer file, known by the end of its name (.json, .model, else llama2.c), or
// "bytes". `vocab` is the model's vocabulary size: a tokenizer with more tokens is refused, one
// with fewer belongs to a model with padded embeddings. 0: as many tokens as the file has.
pb_err pb_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab);
void pb_tokenizer_close(pb_tokenizer *t);

// The tokenizer file in a model folder: tokenizer.json, else tokenizer.model, else tokenizer.bin.
// `out` has room for `size` bytes.
pb_err pb_tokenizer_in(char *out, size_t size, const char *folder);

const char *pb_tokenizer_kind(const pb_tokenizer *t);
size_t pb_tokenizer_vocab(const pb_tokenizer *t);
// What begins a sequence, and what ends one; -1: nothing does. A tokenizer may leave its EOS to the
// model's configuration: pb_tokenizer_set_eos, before the tokenizer is shared.
int32_t pb_tokenizer_bos(const pb_tokenizer *t);
int32_t pb_tokenizer_eos(const pb_tokenizer *t);
void pb_tokenizer_set_eos(pb_tokenizer *t, int32_t eos);

typedef enum pb_token_kind {
    PB_TOKEN_NONE, // no token has this id
    PB_TOKEN_TEXT,
    PB_TOKEN_BYTE,    // stands for one byte
    PB_TOKEN_CONTROL, // decodes to nothing
} pb_token_kind;
// The token as the tokenizer's file writes it (borrowed, not terminated), and what it is.
pb_token_kind pb_tokenizer_token(const pb_tokenizer *t, int32_t id, const char **text, size_t *len);
// The control token of this name, or -1.
int32_t pb_tokenizer_control(const pb_tokenizer *t, const char *name);

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
