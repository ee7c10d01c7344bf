// Finding the tokenizer for a path, what all of them share, and the tokenizer of bytes.
#include "model/tokenizer_impl.h"

#include "core/file.h"
#include <stdlib.h>
#include <string.h>

pb_err pb_ids_reserve(pb_ids *a, size_t extra)
{
    if (extra <= a->cap - a->n)
        return PB_OK;
    size_t want = a->n + extra < 2 * a->cap ? 2 * a->cap : a->n + extra;
    int32_t *v = realloc(a->v, want * sizeof *v);
    if (!v)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu token ids", want);
    a->v = v;
    a->cap = want;
    return PB_OK;
}

pb_err pb_text_reserve(pb_text *a, size_t extra)
{
    if (extra <= a->cap - a->n)
        return PB_OK;
    size_t want = a->n + extra < 2 * a->cap ? 2 * a->cap : a->n + extra;
    char *v = realloc(a->v, want);
    if (!v)
        return pb_fail(PB_MEMORY, NULL, "no memory for a text of %zu bytes", want);
    a->v = v;
    a->cap = want;
    return PB_OK;
}

pb_err pb_text_append(pb_text *a, const char *text, size_t len)
{
    PB_TRY(pb_text_reserve(a, len));
    if (len)
        memcpy(a->v + a->n, text, len);
    a->n += len;
    return PB_OK;
}

// Ids 0-255 are the bytes.
enum { BYTE_BOS = 256, BYTE_EOS = 257, BYTE_TOKENS = 258 };

static pb_err bytes_encode(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                           pb_ids *out)
{
    (void)t, (void)continues;
    PB_TRY(pb_ids_reserve(out, len));
    for (size_t i = 0; i < len; i++)
        out->v[out->n++] = (uint8_t)text[i];
    return PB_OK;
}

static pb_err bytes_decode(const pb_tokenizer *t, const int32_t *ids, size_t n, bool continues,
                           pb_text *out)
{
    (void)t, (void)continues;
    PB_TRY(pb_text_reserve(out, n));
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 256)
            out->v[out->n++] = (char)ids[i];
    return PB_OK;
}

static pb_token_kind bytes_token(const pb_tokenizer *t, int32_t id, const char **text, size_t *len)
{
    static const uint8_t all[] = {
#define X(n) n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7
#define Y(n) X(n), X(n + 8), X(n + 16), X(n + 24), X(n + 32), X(n + 40), X(n + 48), X(n + 56)
        Y(0), Y(64), Y(128), Y(192)};
#undef X
#undef Y
    (void)t;
    *text = id == BYTE_BOS ? "<bos>" : id == BYTE_EOS ? "<eos>" : (const char *)&all[id & 255];
    *len = id < 256 ? 1 : 5;
    return id < 256 ? PB_TOKEN_BYTE : PB_TOKEN_CONTROL;
}

static void bytes_free(pb_tokenizer *t)
{
    free(t);
}

static const pb_tokenizer_ops bytes_ops = {"bytes", bytes_encode, bytes_decode, bytes_token,
                                           bytes_free};

pb_err pb_bytes_tokenizer_open(pb_tokenizer **out, size_t vocab)
{
    pb_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
    *t = (pb_tokenizer){.ops = &bytes_ops, .bos = BYTE_BOS, .eos = BYTE_EOS};
    pb_err err = pb_tokenizer_size(t, BYTE_TOKENS, vocab);
    if (err)
        free(t);
    else
        *out = t;
    return err;
}

pb_err pb_tokenizer_size(pb_tokenizer *t, size_t tokens, size_t vocab)
{
    if (tokens == 0 || tokens > PB_MAX_TOKENS)
        return pb_fail(PB_INPUT, NULL, "%zu tokens are not 1..%d", tokens, PB_MAX_TOKENS);
    if (vocab && tokens > vocab)
        return pb_fail(PB_INPUT, "is it the tokenizer of this model?",
                       "the model's vocabulary is %zu, less than the %zu tokens of the tokenizer",
                       vocab, tokens);
    t->tokens = tokens;
    t->vocab = vocab ? vocab : tokens;
    return PB_OK;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

pb_err pb_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab)
{
    *out = NULL;
    pb_err err = strcmp(path, "bytes") == 0  ? pb_bytes_tokenizer_open(out, vocab)
                 : ends_with(path, ".json")  ? pb_json_tokenizer_open(out, path, vocab)
                 : ends_with(path, ".model") ? pb_spm_open(out, path, vocab)
                                             : pb_llama2c_tokenizer_open(out, path, vocab);
    return err ? pb_context(err, "tokenizer %.300s", path) : PB_OK;
}

pb_err pb_tokenizer_in(char *out, size_t size, const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PB_TRY(pb_path(out, size, "%s/%s", folder, names[i]));
        if (pb_exists(out))
            return PB_OK;
    }
    return pb_fail(PB_INPUT, "put the model's tokenizer into its folder",
                   "%s has no tokenizer.json, tokenizer.model or tokenizer.bin", folder);
}

void pb_tokenizer_close(pb_tokenizer *t)
{
    if (t)
        t->ops->free(t);
}

const char *pb_tokenizer_kind(const pb_tokenizer *t)
{
    return t->ops->kind;
}

size_t pb_tokenizer_vocab(const pb_tokenizer *t)
{
    return t->vocab;
}

int32_t pb_tokenizer_bos(const pb_tokenizer *t)
{
    return t->bos;
}

int32_t pb_tokenizer_eos(const pb_tokenizer *t)
{
    return t->eos;
}

void pb_tokenizer_set_eos(pb_tokenizer *t, int32_t eos)
{
    t->eos = eos;
}

pb_token_kind pb_tokenizer_token(const pb_tokenizer *t, int32_t id, const char **text, size_t *len)
{
    *text = "";
    *len = 0;
    return id < 0 || (size_t)id >= t->tokens ? PB_TOKEN_NONE : t->ops->token(t, id, text, len);
}

int32_t pb_tokenizer_control(const pb_tokenizer *t, const char *name)
{
    const char *text;
    size_t len, want = strlen(name);
    for (size_t id = 0; id < t->tokens; id++)
        if (pb_tokenizer_token(t, (int32_t)id, &text, &len) == PB_TOKEN_CONTROL && len == want &&
            memcmp(text, name, len) == 0)
            return (int32_t)id;
    return -1;
}

pb_err pb_tokenizer_encode(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                           int32_t **ids, size_t *n, size_t *cap)
{
    if (len == 0)
        return PB_OK;
    if (len > PB_MAX_TEXT)
        return pb_fail(PB_UNSUPPORTED, "encode it in parts",
                       "a text of %zu bytes is longer than %zu", len, PB_MAX_TEXT);
    pb_ids out = {*ids, *n, *cap};
    pb_err err = t->ops->encode(t, text, len, continues, &out);
    *ids = out.v;
    *cap = out.cap;
    if (!err)
        *n = out.n;
    return err;
}

pb_err pb_tokenizer_decode(const pb_tokenizer *t, const int32_t *ids, size_t n, bool continues,
                           char **text, size_t *len)
{
    *text = NULL;
    *len = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= t->vocab)
            return pb_fail(PB_INPUT, NULL, "token %d at position %zu is outside 0..%zu", ids[i], i,
                           t->vocab - 1);
    pb_text out = {0};
    pb_err err = t->ops->decode(t, ids, n, continues, &out);
    if (!err)
        err = pb_text_reserve(&out, 1);
    if (err) {
        free(out.v);
        return err;
    }
    out.v[out.n] = 0;
    *text = out.v;
    *len = out.n;
    return PB_OK;
}
