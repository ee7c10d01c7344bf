// GGUF for targets.h: small valid files, and what the reader must keep.
#ifndef PB_FUZZ_GGUF_H
#define PB_FUZZ_GGUF_H

#include "fuzz/targets.h"
#include "model/gguf.h"
#include "model/gguf_tokenizer.h"

// A change to a seed: this key gets this value (type and bytes) instead of its own, or is left out
// (bytes NULL), or is added.
typedef struct gguf_twist {
    const char *key;
    uint32_t type;
    const void *bytes;
    size_t size;
} gguf_twist;

typedef struct gguf_seed {
    uint8_t *out;
    size_t cap, at;
    uint32_t keys, tensors;
    size_t offset; // of the next tensor's data
    const gguf_twist *twist;
} gguf_seed;

static inline void gguf_put(gguf_seed *g, const void *data, size_t size)
{
    seed_put(g->out, g->cap, &g->at, data, size);
}

static inline void gguf_string(gguf_seed *g, const char *text)
{
    uint64_t n = strlen(text);
    gguf_put(g, &n, sizeof n);
    gguf_put(g, text, n);
}

static inline void gguf_key(gguf_seed *g, const char *key, uint32_t type, const void *bytes,
                            size_t size)
{
    const gguf_twist *t = g->twist;
    if (t && strcmp(t->key, key) == 0) {
        if (!t->bytes)
            return;
        type = t->type;
        bytes = t->bytes;
        size = t->size;
    }
    gguf_string(g, key);
    gguf_put(g, &type, sizeof type);
    gguf_put(g, bytes, size);
    g->keys++;
}

static inline void gguf_u32(gguf_seed *g, const char *key, uint32_t v)
{
    gguf_key(g, key, 4, &v, sizeof v);
}

static inline void gguf_f32(gguf_seed *g, const char *key, float v)
{
    gguf_key(g, key, 6, &v, sizeof v);
}

static inline void gguf_text(gguf_seed *g, const char *key, const char *v)
{
    uint8_t bytes[128];
    uint64_t n = strlen(v);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, v, n);
    gguf_key(g, key, 8, bytes, 8 + n);
}

// Dimensions innermost first; rows 0 makes a vector. Data are placed in the order of the calls.
static inline void gguf_tensor(gguf_seed *g, const char *name, uint64_t cols, uint64_t rows,
                               uint32_t type, size_t bytes)
{
    uint32_t n_dims = rows ? 2 : 1;
    uint64_t dims[2] = {cols, rows}, offset = g->offset;
    gguf_string(g, name);
    gguf_put(g, &n_dims, sizeof n_dims);
    gguf_put(g, dims, n_dims * sizeof *dims);
    gguf_put(g, &type, sizeof type);
    gguf_put(g, &offset, sizeof offset);
    g->offset += (bytes + 31) / 32 * 32;
    g->tensors++;
}

enum { GGUF_C = 32, GGUF_F = 32, GGUF_V = 6, GGUF_L = 2, GGUF_D = 8 }; // H 4, KVH 2

// Byte i of the data is i % 59, so an F16, BF16 or F32 there is finite. Variants: llama F32, tied,
// version 3; llama F16, version 2; gemma2 BF16; qwen2 Q8_0. Vectors are F32 always, the last tensor
// ends with the file.
static inline size_t seed_gguf_twisted(uint8_t *out, size_t cap, int variant,
                                       const gguf_twist *twist)
{
    static const char *const archs[] = {"llama", "llama", "gemma2", "qwen2"};
    static const uint32_t types[] = {0, 1, 30, 8};
    static const char *const tokens[GGUF_V] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
    variant %= 4;
    const char *arch = archs[variant];
    gguf_seed g = {.out = out, .cap = cap, .twist = twist};
    char name[96];
    uint32_t type = types[variant], version = variant == 1 ? 2 : 3, counts[4] = {0};
    gguf_put(&g, "GGUF", 4);
    gguf_put(&g, &version, 4);
    gguf_put(&g, counts, 16); // filled in below
    gguf_text(&g, "general.architecture", arch);
#define KEY(key) (snprintf(name, sizeof name, "%s." key, arch), name)
    gguf_u32(&g, KEY("block_count"), GGUF_L);
    gguf_u32(&g, KEY("context_length"), 64);
    gguf_u32(&g, KEY("embedding_length"), GGUF_C);
    gguf_u32(&g, KEY("feed_forward_length"), GGUF_F);
    gguf_u32(&g, KEY("attention.head_count"), 4);
    gguf_u32(&g, KEY("attention.head_count_kv"), 2);
    gguf_f32(&g, KEY("attention.layer_norm_rms_epsilon"), 1e-5f);
    gguf_f32(&g, KEY("rope.freq_base"), 5000);
    gguf_u32(&g, KEY("rope.dimension_count"), GGUF_D);
    if (variant == 2) {
        gguf_u32(&g, KEY("attention.key_length"), GGUF_D);
        gguf_f32(&g, KEY("attn_logit_softcapping"), 50);
        gguf_u32(&g, KEY("attention.sliding_window"), 16);
    }
#undef KEY
    uint8_t list[256];
    size_t n = 12;
    uint64_t length = GGUF_V;
    memcpy(list, &(uint32_t){8}, 4);
    memcpy(list + 4, &length, 8);
    for (size_t i = 0; i < GGUF_V; i++) {
        uint64_t len = strlen(tokens[i]);
        memcpy(list + n, &len, 8);
        memcpy(list + n + 8, tokens[i], len);
        n += 8 + len;
    }
    gguf_text(&g, "tokenizer.ggml.model", variant == 3 ? "gpt2" : "llama");
    gguf_key(&g, "tokenizer.ggml.tokens", 9, list, n);
    gguf_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    gguf_u32(&g, "tokenizer.ggml.eos_token_id", 2);
    if (twist && twist->bytes) { // one that was not there already
        bool there = false;
        for (size_t i = 0; i + strlen(twist->key) <= g.at && !there; i++)
            there = memcmp(out + i, twist->key, strlen(twist->key)) == 0;
        if (!there)
            gguf_key(&g, twist->key, twist->type, twist->bytes, twist->size);
    }
    size_t per = type == 0 ? 128 : type == 8 ? 34 : 64; // bytes of 32 values
#define MATRIX(name, cols, rows) gguf_tensor(&g, name, cols, rows, type, (cols) * (rows) / 32 * per)
#define VECTOR(name, size)       gguf_tensor(&g, name, size, 0, 0, 4 * (size))
    MATRIX("token_embd.weight", GGUF_C, GGUF_V);
    for (int i = 0; i < GGUF_L; i++) {
#define PART(part) (snprintf(name, sizeof name, "blk.%d." part, i), name)
        VECTOR(PART("attn_norm.weight"), GGUF_C);
        MATRIX(PART("attn_q.weight"), GGUF_C, 32);
        MATRIX(PART("attn_k.weight"), GGUF_C, 16);
        MATRIX(PART("attn_v.weight"), GGUF_C, 16);
        MATRIX(PART("attn_output.weight"), 32, GGUF_C);
        VECTOR(PART("ffn_norm.weight"), GGUF_C);
        MATRIX(PART("ffn_gate.weight"), GGUF_C, GGUF_F);
        MATRIX(PART("ffn_up.weight"), GGUF_C, GGUF_F);
        MATRIX(PART("ffn_down.weight"), GGUF_F, GGUF_C);
        if (variant == 2) {
            VECTOR(PART("post_attention_norm.weight"), GGUF_C);
            VECTOR(PART("post_ffw_norm.weight"), GGUF_C);
        } else if (variant == 3) {
            VECTOR(PART("attn_q.bias"), 32);
            VECTOR(PART("attn_k.bias"), 16);
            VECTOR(PART("attn_v.bias"), 16);
        }
#undef PART
    }
    if (variant == 1)
        MATRIX("output.weight", GGUF_C, GGUF_V);
    VECTOR("output_norm.weight", GGUF_C);
#undef MATRIX
#undef VECTOR
    memcpy(out + 8, &(uint64_t){g.tensors}, 8);
    memcpy(out + 16, &(uint64_t){g.keys}, 8);
    while (g.at % 32)
        gguf_put(&g, "", 1);
    for (size_t i = 0; i < g.offset; i++)
        gguf_put(&g, &(uint8_t){(uint8_t)(i % 59)}, 1);
    return g.at;
}

static inline size_t seed_gguf(uint8_t *out, size_t cap, int variant)
{
    return seed_gguf_twisted(out, cap, variant, NULL);
}

static inline bool target_gguf(const uint8_t *data, size_t size)
{
    pb_tensors *t;
    pb_config c;
    json_t *meta;
    if (target_refused(pb_gguf_open(&t, &c, &meta, target_file(data, size)))) {
        REQUIRE(!t && !meta);
        return false;
    }
    target_read_all(t);
    size_t bytes = 0;
    for (size_t i = 0; i < pb_tensors_count(t); i++)
        bytes += pb_dtype_bytes(pb_tensors_at(t, i)->dtype, pb_tensors_at(t, i)->count);
    REQUIRE(bytes < size);
    pb_tokenizer *tokenizer;
    if (!target_refused(pb_gguf_tokenizer_open(&tokenizer, meta, c.vocab)))
        pb_tokenizer_close(tokenizer);
    json_decref(meta);
    pb_tensors_close(t);
    return true;
}

#endif
