// What a fuzzed reader must keep: it returns, with a value or with an error that has a sentence,
// and what it accepts obeys its format. Shared by the libFuzzer programs of this folder and by
// unit/mutate.c, which feeds the same targets from a seeded generator in every ordinary test run.
//
// A target returns true when the bytes were accepted. A broken property ends the program.
#ifndef PB_FUZZ_TARGETS_H
#define PB_FUZZ_TARGETS_H

#include "core/json.h"
#include "model/config.h"
#include "model/llama2c.h"
#include "model/tensors.h"
#include "model/tokenizer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

// Puts the bytes into an anonymous file, always the same one, and returns its path.
static const char *target_file(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        REQUIRE(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    REQUIRE(ftruncate(fd, 0) == 0);
    REQUIRE(size == 0 || pwrite(fd, data, size, 0) == (ssize_t)size);
    return path;
}

static bool target_refused(pb_err err)
{
    if (err)
        REQUIRE(pb_error_message()[0] != 0 && err != PB_INTERNAL);
    return err != PB_OK;
}

static void target_read_all(const pb_tensors *t)
{
    real block[256];
    for (size_t i = 0; i < pb_tensors_count(t); i++) {
        const pb_tensor *x = pb_tensors_at(t, i);
        REQUIRE(pb_tensors_find(t, x->name) == x);
        for (size_t at = 0; at < x->count; at += 256)
            pb_tensor_read(x, at, x->count - at < 256 ? x->count - at : 256, block);
        const pb_tensor *same;
        if (x->n_dims == 2 && x->dtype != PB_I64 && x->shape[1] > 0)
            REQUIRE(!pb_tensors_need(t, x->name, x->shape[0], x->shape[1], &same) && same == x);
    }
}

static inline bool target_safetensors(const uint8_t *data, size_t size)
{
    pb_tensors *t;
    if (target_refused(pb_tensors_open(&t, target_file(data, size))))
        return false;
    target_read_all(t);
    (void)pb_tensors_meta(t, "format");
    size_t bytes = 8;
    static const size_t width[] = {
        [PB_F32] = 4, [PB_F16] = 2, [PB_BF16] = 2, [PB_F64] = 8, [PB_I64] = 8};
    for (size_t i = 0; i < pb_tensors_count(t); i++)
        bytes += pb_tensors_at(t, i)->count * width[pb_tensors_at(t, i)->dtype];
    REQUIRE(bytes < size);
    pb_tensors_close(t);
    return true;
}

// What was read is written, and reading that gives the same.
static inline bool target_config(const uint8_t *data, size_t size)
{
    json_t *j;
    pb_config c, again;
    if (target_refused(pb_json_parse(&j, (const char *)data, size, "input")))
        return false;
    bool refused = target_refused(pb_config_from_json(&c, j));
    json_decref(j);
    if (refused)
        return false;
    REQUIRE(pb_config_params(&c) >= c.vocab * c.width);
    static double freq[1 << 11];
    REQUIRE(c.head_dim / 2 <= sizeof freq / sizeof *freq);
    pb_config_inv_freq(&c, freq);
    for (size_t i = 0; i < c.head_dim / 2; i++)
        REQUIRE(freq[i] > 0 && isfinite(freq[i]));
    json_t *first = pb_config_to_json(&c);
    REQUIRE(first);
    REQUIRE(!pb_config_from_json(&again, first));
    json_t *second = pb_config_to_json(&again);
    REQUIRE(json_equal(first, second));
    REQUIRE(!pb_config_same_geometry(&c, &again));
    json_decref(first);
    json_decref(second);
    return true;
}

static inline bool target_llama2c(const uint8_t *data, size_t size)
{
    pb_tensors *t;
    pb_config c;
    if (target_refused(pb_llama2c_open(&t, &c, target_file(data, size))))
        return false;
    target_read_all(t);
    REQUIRE(pb_tensors_count(t) == 9 * c.layers + (c.tied ? 2 : 3));
    size_t n = 0;
    for (size_t i = 0; i < pb_tensors_count(t); i++)
        n += pb_tensors_at(t, i)->count;
    REQUIRE(n == pb_config_params(&c));
    pb_tensors_close(t);
    return true;
}

// The first two bytes are the vocabulary, the next two the length of the text at the end; between
// them lies the file.
static inline bool target_tokenizer(const uint8_t *data, size_t size)
{
    if (size < 4)
        return false;
    size_t vocab = (size_t)(data[0] | data[1] << 8), n_text = (size_t)(data[2] | data[3] << 8);
    if (n_text > size - 4)
        n_text = size - 4;
    const char *text = (const char *)data + size - n_text;
    pb_tokenizer *t;
    if (target_refused(pb_tokenizer_open(&t, target_file(data + 4, size - 4 - n_text), vocab)))
        return false;
    for (int continues = 0; continues < 2; continues++) {
        int32_t *ids = NULL;
        size_t n = 0, cap = 0, len;
        char *back;
        REQUIRE(!pb_tokenizer_encode(t, text, n_text, continues, &ids, &n, &cap));
        for (size_t i = 0; i < n; i++)
            REQUIRE(ids[i] >= 3 && (size_t)ids[i] < vocab);
        REQUIRE(!pb_tokenizer_decode(t, ids, n, continues, &back, &len));
        REQUIRE(len == n_text && memcmp(back, text, len) == 0 && back[len] == 0);
        free(back);
        free(ids);
    }
    pb_tokenizer_close(t);
    return true;
}

// Small valid inputs to start from. Returns the size written to out, at most `cap`.
typedef size_t seed_maker(uint8_t *out, size_t cap, int variant);

static void seed_put(uint8_t *out, size_t cap, size_t *at, const void *data, size_t size)
{
    REQUIRE(size <= cap - *at);
    memcpy(out + *at, data, size);
    *at += size;
}

static inline size_t seed_safetensors(uint8_t *out, size_t cap, int variant)
{
    static const char *const headers[] = {
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}",
        "{\"x\":{\"dtype\":\"F16\",\"shape\":[1,2,3],\"data_offsets\":[16,28]},"
        "\"y\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"z\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[8,8]}}   "};
    static const size_t data_sizes[] = {32, 28};
    const char *header = headers[variant % 2];
    uint64_t n = strlen(header);
    size_t at = 0;
    seed_put(out, cap, &at, &n, sizeof n);
    seed_put(out, cap, &at, header, n);
    for (size_t i = 0; i < data_sizes[variant % 2]; i++)
        seed_put(out, cap, &at, &(uint8_t){(uint8_t)(i * 37)}, 1);
    return at;
}

static inline size_t seed_config(uint8_t *out, size_t cap, int variant)
{
    static const char *const texts[] = {
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":512,"
        "\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":5,"
        "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"max_position_embeddings\":512,"
        "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"rope_scaling\":null,"
        "\"hidden_act\":\"silu\",\"eos_token_id\":[2,3],\"bos_token_id\":1,"
        "\"tie_word_embeddings\":true,\"attention_bias\":false,\"pb_tokenizer\":\"bytes\"}",
        "{\"model_type\":\"qwen3\",\"vocab_size\":1000,\"hidden_size\":32,"
        "\"intermediate_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
        "\"num_key_value_heads\":2,\"head_dim\":16,\"max_position_embeddings\":64,"
        "\"sliding_window\":32,\"max_window_layers\":1,\"attention_bias\":true,"
        "\"use_sliding_window\":true,\"rope_parameters\":{\"rope_type\":\"default\","
        "\"rope_theta\":1e6},\"hidden_act\":\"gelu_pytorch_tanh\",\"eos_token_id\":null}",
        "{\"model_type\":\"gemma2\",\"vocab_size\":300,\"hidden_size\":24,"
        "\"intermediate_size\":20,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
        "\"head_dim\":8,\"max_position_embeddings\":64,\"sliding_window\":16,"
        "\"hidden_act\":\"gelu\",\"attn_logit_softcapping\":50.0,"
        "\"final_logit_softcapping\":null,\"query_pre_attn_scalar\":7,\"layer_types\":"
        "[\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
        "{\"model_type\":\"llama\",\"vocab_size\":300,\"hidden_size\":24,\"mlp_bias\":true,"
        "\"intermediate_size\":20,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
        "\"max_position_embeddings\":64,\"rope_scaling\":{\"rope_type\":\"llama3\","
        "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192},\"rope_theta\":5e5}"};
    size_t at = 0;
    seed_put(out, cap, &at, texts[variant % 4], strlen(texts[variant % 4]));
    return at;
}

// Numbers of the weights count up: 0, 1, 2, ... Variants: version 0 tied, version 0 untied, version
// 1 tied, version 1 untied.
static inline size_t seed_llama2c(uint8_t *out, size_t cap, int variant)
{
    // dim, hidden, layers, heads, kv_heads, vocab, seq_len
    int32_t h[7] = {8, 3, 2, 2, 1, 5, 4};
    bool v1 = variant & 2, tied = !(variant & 1);
    // embedding; per layer norms, q, k, v, o, gate, up, down; final norm
    size_t at = 0, n = 5 * 8 + 2 * (2 * 8 + 64 + 32 + 32 + 64 + 3 * 24) + 8;
    n += (tied ? 0 : 5 * 8) + (v1 ? 0 : 4 * 4);
    if (v1) {
        int32_t magic[2] = {0x616b3432, 1};
        seed_put(out, cap, &at, magic, sizeof magic);
        seed_put(out, cap, &at, h, sizeof h);
        seed_put(out, cap, &at, &(uint8_t){tied}, 1);
        while (at < 256)
            seed_put(out, cap, &at, "", 1);
    } else {
        h[5] = tied ? h[5] : -h[5];
        seed_put(out, cap, &at, h, sizeof h);
    }
    for (size_t i = 0; i < n; i++)
        seed_put(out, cap, &at, &(float){(float)i}, sizeof(float));
    return at;
}

static void seed_piece(uint8_t *out, size_t cap, size_t *at, float score, const char *text)
{
    int32_t len = (int32_t)strlen(text);
    seed_put(out, cap, at, &score, sizeof score);
    seed_put(out, cap, at, &len, sizeof len);
    seed_put(out, cap, at, text, (size_t)len);
}

enum { SEED_VOCAB = 272 };

// A tokenizer.bin alone: control tokens, bytes and 13 pieces.
static inline size_t seed_tokenizer_file(uint8_t *out, size_t cap)
{
    static const char *const pieces[] = {" ",  "a",   "b",   "c",        "ab",        "bc", " a",
                                         "  ", "abc", " ab", "\xc3\xa9", "c\xc3\xa9", "aa"};
    _Static_assert(259 + sizeof pieces / sizeof *pieces == SEED_VOCAB, "vocabulary");
    size_t at = 0;
    int32_t longest = 8;
    seed_put(out, cap, &at, &longest, sizeof longest);
    seed_piece(out, cap, &at, 0, "<unk>");
    seed_piece(out, cap, &at, 0, "\n<s>\n");
    seed_piece(out, cap, &at, 0, "\n</s>\n");
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        seed_piece(out, cap, &at, 0, text);
    }
    for (size_t i = 0; i < SEED_VOCAB - 259; i++)
        seed_piece(out, cap, &at, -(float)((i * 7) % 13), pieces[i]);
    return at;
}

static inline size_t seed_tokenizer(uint8_t *out, size_t cap, int variant)
{
    static const char *const texts[] = {"abc aab  c\xc3\xa9 \xff\xfe abcabc", " <s>\n<0x0A>"};
    const char *text = texts[variant % 2];
    size_t n_text = strlen(text), at = 4;
    uint8_t head[4] = {SEED_VOCAB & 255, SEED_VOCAB >> 8, (uint8_t)n_text, 0};
    memcpy(out, head, sizeof head);
    at += seed_tokenizer_file(out + at, cap - at);
    seed_put(out, cap, &at, text, n_text);
    return at;
}

#endif
