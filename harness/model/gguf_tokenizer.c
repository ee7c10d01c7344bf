// The tokenizer inside a GGUF file: its keys become the bytes of the file that Hugging Face folders
// have for such a model, which is then opened like any other.
//
// "llama" is SentencePiece BPE: tokenizer.ggml.tokens, .scores and .token_type are the pieces of a
// tokenizer.model. "gpt2" is byte-level BPE: .tokens and .merges are those of a tokenizer.json;
// .pre names how text is cut into words first.
#include "model/gguf_tokenizer.h"

#include "core/file.h"
#include "model/tokenizer_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Types of tokens, the same numbers as in SentencePiece.
enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

static pb_err put(pb_text *out, const void *bytes, size_t n)
{
    return pb_text_append(out, bytes, n);
}

// Fields of a protobuf message.

static pb_err put_varint(pb_text *out, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; v >= 128; v >>= 7)
        bytes[n++] = (uint8_t)(v | 128);
    bytes[n++] = (uint8_t)v;
    return put(out, bytes, n);
}

static pb_err put_int(pb_text *out, unsigned field, int64_t v)
{
    PB_TRY(put_varint(out, field << 3));
    return put_varint(out, (uint64_t)v);
}

static pb_err put_float(pb_text *out, unsigned field, float v)
{
    PB_TRY(put_varint(out, field << 3 | 5));
    return put(out, &v, sizeof v);
}

static pb_err put_bytes(pb_text *out, unsigned field, const void *bytes, size_t n)
{
    PB_TRY(put_varint(out, field << 3 | 2));
    PB_TRY(put_varint(out, n));
    return put(out, bytes, n);
}

typedef struct vocabulary {
    const json_t *tokens, *scores, *types, *merges;
    size_t n;
    int64_t unk, bos, eos, pad; // -1: none
    bool dummy_prefix;
} vocabulary;

static pb_err read_list(const json_t **out, const json_t *meta, const char *key, size_t n)
{
    *out = json_object_get(meta, key);
    if (*out && (!json_is_array(*out) || (n && json_array_size(*out) != n)))
        return pb_fail(PB_INPUT, NULL, "\"%s\" is not a list of %zu values", key, n);
    return PB_OK;
}

static pb_err read_id(const json_t *meta, const char *key, int64_t *out, size_t n)
{
    return pb_json_opt_int(meta, key, out, -1, (int64_t)n - 1);
}

static pb_err read_vocabulary(vocabulary *v, const json_t *meta, bool spm)
{
    *v = (vocabulary){.unk = spm ? 0 : -1, .bos = spm ? 1 : -1, .eos = spm ? 2 : -1, .pad = -1};
    PB_TRY(read_list(&v->tokens, meta, "tokenizer.ggml.tokens", 0));
    if (!v->tokens || !json_array_size(v->tokens))
        return pb_fail(PB_INPUT, NULL, "\"tokenizer.ggml.tokens\" is missing or empty");
    v->n = json_array_size(v->tokens);
    PB_TRY(read_list(&v->scores, meta, "tokenizer.ggml.scores", v->n));
    PB_TRY(read_list(&v->types, meta, "tokenizer.ggml.token_type", v->n));
    PB_TRY(read_list(&v->merges, meta, "tokenizer.ggml.merges", 0));
    PB_TRY(read_id(meta, "tokenizer.ggml.unknown_token_id", &v->unk, v->n));
    PB_TRY(read_id(meta, "tokenizer.ggml.bos_token_id", &v->bos, v->n));
    PB_TRY(read_id(meta, "tokenizer.ggml.eos_token_id", &v->eos, v->n));
    PB_TRY(read_id(meta, "tokenizer.ggml.padding_token_id", &v->pad, v->n));
    v->dummy_prefix = spm;
    PB_TRY(pb_json_opt_bool(meta, "tokenizer.ggml.add_space_prefix", &v->dummy_prefix));
    for (size_t i = 0; i < v->n; i++) {
        const json_t *type = json_array_get(v->types, i), *score = json_array_get(v->scores, i);
        if (!json_is_string(json_array_get(v->tokens, i)) ||
            (type && (!json_is_integer(type) || json_integer_value(type) < NORMAL ||
                      json_integer_value(type) > BYTE)) ||
            (score && !json_is_number(score)))
            return pb_fail(PB_INPUT, NULL, "token %zu has an impossible text, type or score", i);
    }
    return PB_OK;
}

static int64_t type_of(const vocabulary *v, size_t i)
{
    return v->types ? json_integer_value(json_array_get(v->types, i)) : NORMAL;
}

static const char *text_of(const vocabulary *v, size_t i, size_t *len)
{
    const json_t *s = json_array_get(v->tokens, i);
    *len = json_string_length(s);
    return json_string_value(s);
}

// Field numbers: see tokenizer_spm.c.
static pb_err make_model(pb_text *out, const vocabulary *v)
{
    pb_err err = PB_OK;
    pb_text part = {0};
    size_t len;
    for (size_t i = 0; i < v->n; i++) {
        part.n = 0;
        const char *text = text_of(v, i, &len);
        PB_GO(put_bytes(&part, 1, text, len));
        const json_t *score = json_array_get(v->scores, i);
        PB_GO(put_float(&part, 2, score ? (float)json_number_value(score) : 0));
        PB_GO(put_int(&part, 3, type_of(v, i)));
        PB_GO(put_bytes(out, 1, part.v, part.n));
    }
    part.n = 0;
    bool bytes = false;
    for (size_t i = 0; i < v->n && !bytes; i++)
        bytes = type_of(v, i) == BYTE;
    PB_GO(put_int(&part, 3, 2)); // BPE
    PB_GO(put_int(&part, 35, bytes));
    PB_GO(put_int(&part, 40, v->unk));
    PB_GO(put_int(&part, 41, v->bos));
    PB_GO(put_int(&part, 42, v->eos));
    PB_GO(put_int(&part, 43, v->pad));
    PB_GO(put_bytes(out, 2, part.v, part.n));
    part.n = 0;
    PB_GO(put_bytes(&part, 1, "identity", 8));
    PB_GO(put_int(&part, 3, v->dummy_prefix));
    PB_GO(put_int(&part, 4, 0));
    PB_GO(put_int(&part, 5, 1));
    err = put_bytes(out, 3, part.v, part.n);
done:
    free(part.v);
    return err;
}

// How text is cut before merging, by the name in tokenizer.ggml.pre. Sources: the tokenizer.json
// files of the models.
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct {
    const char *pre, *regex; // NULL: GPT-2's own
    bool digits;             // digits one by one, before GPT-2's expression
} cuts[] = {
    {"default", NULL, false},
    {"gpt-2", NULL, false},
    {"llama-bpe", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" REST, false},
    {"qwen2", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" REST, false},
    {"smollm", NULL, true},
};

static pb_err pre_tokenizer(json_t **out, const char *pre)
{
    size_t i = 0, n = sizeof cuts / sizeof *cuts;
    while (i < n && strcmp(cuts[i].pre, pre) != 0)
        i++;
    if (i == n)
        return pb_fail(PB_UNSUPPORTED, "known are default, gpt-2, llama-bpe, qwen2 and smollm",
                       "\"tokenizer.ggml.pre\" is \"%.100s\"", pre);
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 1, "use_regex", cuts[i].regex == NULL);
    if (cuts[i].regex)
        *out = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
                         "pretokenizers", "type", "Split", "pattern", "Regex", cuts[i].regex,
                         "behavior", "Isolated", "invert", 0, bytes);
    else if (cuts[i].digits)
        *out = json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
                         "Digits", "individual_digits", 1, bytes);
    else
        *out = bytes;
    return *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
}

static json_t *added_token(const vocabulary *v, size_t i)
{
    return json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                     json_array_get(v->tokens, i), "single_word", 0, "lstrip", 0, "rstrip", 0,
                     "normalized", 0, "special", type_of(v, i) == CONTROL);
}

static pb_err make_json(json_t **out, const vocabulary *v, const json_t *meta)
{
    const char *pre = "default";
    PB_TRY(pb_json_opt_str(meta, "tokenizer.ggml.pre", &pre));
    if (!v->merges)
        return pb_fail(PB_INPUT, NULL, "\"tokenizer.ggml.merges\" is missing");
    pb_err err = PB_OK;
    json_t *cut = NULL, *vocab = json_object(), *added = json_array();
    PB_GO(pre_tokenizer(&cut, pre));
    bool bad = !vocab || !added;
    for (size_t i = 0; i < v->n && !bad; i++) {
        size_t len;
        const char *text = text_of(v, i, &len);
        int64_t type = type_of(v, i);
        if (type == UNUSED) // padding of the embedding
            continue;
        if (strlen(text) != len || json_object_get(vocab, text))
            PB_GO(pb_fail(PB_INPUT, NULL, "token %zu is there twice, or has a zero byte", i));
        bad |= json_object_set_new(vocab, text, json_integer((json_int_t)i)) != 0;
        if (type == CONTROL || type == USER)
            bad |= json_array_append_new(added, added_token(v, i)) != 0;
    }
    // Qwen normalises to composed characters first.
    json_t *normal = strcmp(pre, "qwen2") ? json_null() : json_pack("{s:s}", "type", "NFC");
    *out = bad ? NULL
               : json_pack("{s:s, s:n, s:n, s:O, s:o, s:O, s:n, s:{s:s, s:b, s:b}, "
                           "s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:O, s:O}}",
                           "version", "1.0", "truncation", "padding", "added_tokens", added,
                           "normalizer", normal, "pre_tokenizer", cut, "post_processor", "decoder",
                           "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "model",
                           "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                           "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab", vocab,
                           "merges", v->merges);
    if (!*out)
        err = pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
done:
    json_decref(cut);
    json_decref(vocab);
    json_decref(added);
    return err;
}

// tokenizer_config.json: what begins and ends a sequence.
static pb_err make_config(json_t **out, const vocabulary *v, const json_t *meta)
{
    // LLaMA-3's tokenizer begins with BOS unless the file says otherwise.
    const char *pre = "";
    PB_TRY(pb_json_opt_str(meta, "tokenizer.ggml.pre", &pre));
    bool add = strcmp(pre, "llama-bpe") == 0;
    PB_TRY(pb_json_opt_bool(meta, "tokenizer.ggml.add_bos_token", &add));
    *out = json_pack("{s:b, s:O?, s:O?}", "add_bos_token", add && v->bos >= 0, "bos_token",
                     v->bos >= 0 ? json_array_get(v->tokens, (size_t)v->bos) : NULL, "eos_token",
                     v->eos >= 0 ? json_array_get(v->tokens, (size_t)v->eos) : NULL);
    return *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
}

typedef struct parts { // of a tokenizer: either the bytes of a tokenizer.model, or the two others
    pb_text model;
    json_t *tokenizer, *config;
} parts;

static void free_parts(parts *p)
{
    free(p->model.v);
    json_decref(p->tokenizer);
    json_decref(p->config);
}

// Nothing at all when the metadata has no tokenizer.
static pb_err make_parts(parts *p, const json_t *meta)
{
    const char *model = "";
    vocabulary v;
    PB_TRY(pb_json_opt_str(meta, "tokenizer.ggml.model", &model));
    if (!*model || !strcmp(model, "none") || !strcmp(model, "no_vocab"))
        return PB_OK;
    bool spm = !strcmp(model, "llama");
    if (!spm && strcmp(model, "gpt2") != 0)
        return pb_fail(PB_UNSUPPORTED, "known are llama and gpt2",
                       "\"tokenizer.ggml.model\" is \"%.100s\"", model);
    PB_TRY(read_vocabulary(&v, meta, spm));
    if (spm)
        return make_model(&p->model, &v);
    PB_TRY(make_json(&p->tokenizer, &v, meta));
    return make_config(&p->config, &v, meta);
}

static pb_err save(const char *folder, const char *name, const json_t *j)
{
    char path[4096];
    PB_TRY(pb_path(path, sizeof path, "%s/%s", folder, name));
    return pb_json_save(j, path);
}

pb_err pb_gguf_tokenizer_write(const json_t *meta, const char *folder)
{
    parts p = {0};
    char path[4096];
    pb_err err = PB_OK;
    PB_GO(make_parts(&p, meta));
    if (p.model.n) {
        PB_GO(pb_path(path, sizeof path, "%s/tokenizer.model", folder));
        PB_GO(pb_file_write(path, p.model.v, p.model.n));
    } else if (p.tokenizer) {
        PB_GO(save(folder, "tokenizer.json", p.tokenizer));
        PB_GO(save(folder, "tokenizer_config.json", p.config));
    }
done:
    free_parts(&p);
    return err;
}

// SentencePiece's reader takes a file: the bytes are put into an anonymous one.
static pb_err open_model(pb_tokenizer **out, const pb_text *model, size_t vocab)
{
    char path[64];
    int fd = memfd_create("tokenizer", MFD_CLOEXEC);
    if (fd < 0)
        return pb_fail(PB_IO, NULL, "cannot make an anonymous file for the tokenizer");
    pb_err err = PB_OK;
    for (size_t at = 0; at < model->n && !err;) {
        ssize_t n = write(fd, model->v + at, model->n - at);
        if (n <= 0)
            err = pb_fail(PB_IO, NULL, "cannot write an anonymous file for the tokenizer");
        else
            at += (size_t)n;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!err)
        err = pb_spm_open(out, path, vocab);
    close(fd);
    return err;
}

pb_err pb_gguf_tokenizer_open(pb_tokenizer **out, const json_t *meta, size_t vocab)
{
    parts p = {0};
    *out = NULL;
    pb_err err = make_parts(&p, meta);
    if (!err && p.model.n)
        err = open_model(out, &p.model, vocab);
    else if (!err && p.tokenizer)
        err = pb_json_tokenizer_parse(out, p.tokenizer, p.config, vocab);
    free_parts(&p);
    return err ? pb_context(err, "the tokenizer of the GGUF file") : PB_OK;
}
