// What the tokenizers share with each other, and with nobody else: one is a pb_tokenizer followed
// by its own data, and a table of operations.
#ifndef PB_MODEL_TOKENIZER_IMPL_H
#define PB_MODEL_TOKENIZER_IMPL_H

#include "core/json.h"
#include "model/tokenizer.h"
#include "model/tokenizer_split.h"

enum { PB_MAX_TOKENS = 1 << 24 };

// A growing array of ids, and a growing text. Start from zeros; release v with free.
typedef struct pb_ids {
    int32_t *v;
    size_t n, cap;
} pb_ids;

typedef struct pb_text {
    char *v;
    size_t n, cap;
} pb_text;

// Make room for `extra` more.
pb_err pb_ids_reserve(pb_ids *a, size_t extra);
pb_err pb_text_reserve(pb_text *a, size_t extra);

static inline pb_err pb_ids_push(pb_ids *a, int32_t id)
{
    if (a->n == a->cap)
        PB_TRY(pb_ids_reserve(a, 1));
    a->v[a->n++] = id;
    return PB_OK;
}

pb_err pb_text_append(pb_text *a, const char *text, size_t len);

typedef struct pb_tokenizer_ops {
    const char *kind; // what the user calls it
    // Appends. The text has 1 to PB_MAX_TEXT bytes.
    pb_err (*encode)(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                     pb_ids *out);
    // Appends. Every id is in 0..tokens-1 or is padding, which is nothing.
    pb_err (*decode)(const pb_tokenizer *t, const int32_t *ids, size_t n, bool continues,
                     pb_text *out);
    // For 0 <= id < tokens; see pb_tokenizer_token.
    pb_token_kind (*token)(const pb_tokenizer *t, int32_t id, const char **text, size_t *len);
    void (*free)(pb_tokenizer *t); // the whole object
} pb_tokenizer_ops;

#define PB_MAX_TEXT ((size_t)1 << 30)

struct pb_tokenizer {
    const pb_tokenizer_ops *ops;
    size_t vocab;     // ids from here on are refused; at least `tokens`
    size_t tokens;    // ids from here to vocab are padding of the embedding
    int32_t bos, eos; // -1: none
};

// The kinds. `vocab` is the model's vocabulary size; 0 means as many tokens as the file has. Errors
// need not name the path.
pb_err pb_bytes_tokenizer_open(pb_tokenizer **out, size_t vocab);
pb_err pb_json_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab);
pb_err pb_spm_open(pb_tokenizer **out, const char *path, size_t vocab);
pb_err pb_llama2c_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab);

// The same from parsed files; `config`, tokenizer_config.json, may be NULL.
pb_err pb_json_tokenizer_parse(pb_tokenizer **out, const json_t *j, const json_t *config,
                               size_t vocab);
// Calls `each` for every piece that a text is cut into before the model sees it.
pb_err pb_json_tokenizer_split(const pb_tokenizer *t, const char *text, size_t len,
                               pb_piece_fn *each, void *self);

// Checks the file's number of tokens against the model's vocabulary and sets both.
pb_err pb_tokenizer_size(pb_tokenizer *t, size_t tokens, size_t vocab);

#endif
