// GGUF: every value where it belongs, the configuration, tokenizers, and every way a file can be
// wrong. Files of an independent writer are in oracle/test_gguf.py.
#include "fuzz/gguf.h"

#include "core/file.h"
#include "model/source.h"
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

enum { CAP = 1 << 16 };
static uint8_t bytes[CAP];

static void accept(pb_err err)
{
    if (err)
        fail_msg("refused: %s", pb_error_message());
}

static void open_variant(int variant, const gguf_twist *twist, pb_tensors **t, pb_config *c,
                         json_t **meta)
{
    size_t n = seed_gguf_twisted(bytes, CAP, variant, twist);
    accept(pb_gguf_open(t, c, meta, target_file(bytes, n)));
}

static void refuse_bytes(size_t n, pb_err code, const char *message)
{
    pb_tensors *t;
    pb_config c;
    json_t *meta;
    pb_err err = pb_gguf_open(&t, &c, &meta, target_file(bytes, n));
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("expected \"%s\", got %s: %s", message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
    assert_null(meta);
}

static void refuse(int variant, pb_err code, const char *message, const gguf_twist *twist)
{
    refuse_bytes(seed_gguf_twisted(bytes, CAP, variant, twist), code, message);
}

static void test_configuration(void **state)
{
    (void)state;
    static const pb_family families[] = {PB_LLAMA, PB_LLAMA, PB_GEMMA2, PB_QWEN2};
    for (int v = 0; v < 4; v++) {
        pb_tensors *t;
        pb_config c;
        open_variant(v, NULL, &t, &c, NULL);
        assert_int_equal(c.family, families[v]);
        assert_int_equal(c.vocab, GGUF_V);
        assert_int_equal(c.width, GGUF_C);
        assert_int_equal(c.ffn, GGUF_F);
        assert_int_equal(c.layers, GGUF_L);
        assert_int_equal(c.heads, 4);
        assert_int_equal(c.kv_heads, 2);
        assert_int_equal(c.head_dim, GGUF_D);
        assert_int_equal(c.context, 64);
        assert_true(c.norm_eps == 1e-5 && c.rope_theta == 5000);
        assert_int_equal(c.tied, v != 1);
        assert_int_equal(c.qkv_bias, v == 3);
        assert_int_equal(c.post_norms, v == 2);
        assert_true(c.attn_cap == (v == 2 ? 50 : 0));
        assert_int_equal(pb_config_window(&c, 0), v == 2 ? 16 : 0);
        assert_int_equal(pb_config_window(&c, 1), 0);
        assert_int_equal(c.bos, 1);
        assert_int_equal(c.n_eos, 1);
        assert_int_equal(c.eos[0], 2);
        size_t n = 0;
        for (size_t i = 0; i < pb_tensors_count(t); i++)
            n += pb_tensors_at(t, i)->count;
        assert_int_equal(n, pb_config_params(&c));
        pb_tensors_close(t);
    }
}

static double at_offset(uint32_t type, size_t byte)
{
    uint8_t b[4];
    for (size_t i = 0; i < 4; i++)
        b[i] = (uint8_t)((byte + i) % 59);
    uint32_t word = (uint32_t)(b[0] | b[1] << 8 | b[2] << 16) | (uint32_t)b[3] << 24;
    uint16_t half = (uint16_t)word;
    if (type == 1) // small positive exponents alone occur
        return ldexp((half >> 10 ? 1024 : 0) + (half & 1023), (half >> 10 ? half >> 10 : 1) - 25);
    if (type == 30)
        word = (uint32_t)half << 16;
    return ldexp((word >> 23 ? 1 << 23 : 0) + (double)(word & 0x7fffff),
                 (int)(word >> 23 ? word >> 23 : 1) - 150);
}

// Where the seed has its tensors, and what must be read there.
static void test_places(void **state)
{
    (void)state;
    static const struct {
        const char *gguf, *hf;
        size_t rows, cols; // cols 0: a vector
        bool turned;
        int only; // variant, or -1
    } parts[] = {
        {"attn_norm", "input_layernorm.weight", 32, 0, false, -1},
        {"attn_q", "self_attn.q_proj.weight", 32, 32, true, -1},
        {"attn_k", "self_attn.k_proj.weight", 16, 32, true, -1},
        {"attn_v", "self_attn.v_proj.weight", 16, 32, false, -1},
        {"attn_output", "self_attn.o_proj.weight", 32, 32, false, -1},
        {"ffn_norm", "post_attention_layernorm.weight", 32, 0, false, -1},
        {"ffn_gate", "mlp.gate_proj.weight", 32, 32, false, -1},
        {"ffn_up", "mlp.up_proj.weight", 32, 32, false, -1},
        {"ffn_down", "mlp.down_proj.weight", 32, 32, false, -1},
        {"post_attention_norm", "post_attention_layernorm.weight", 32, 0, false, 2},
        {"post_ffw_norm", "post_feedforward_layernorm.weight", 32, 0, false, 2},
        {"attn_q.bias", "self_attn.q_proj.bias", 32, 0, false, 3},
        {"attn_k.bias", "self_attn.k_proj.bias", 16, 0, false, 3},
        {"attn_v.bias", "self_attn.v_proj.bias", 16, 0, false, 3},
    };
    static const uint32_t types[] = {0, 1, 30, 8};
    for (int v = 0; v < 4; v++) {
        pb_tensors *t;
        pb_config c;
        open_variant(v, NULL, &t, &c, NULL);
        size_t per = types[v] == 0 ? 128 : types[v] == 8 ? 34 : 64;
        size_t start = GGUF_V * per; // of layer 0: behind the embedding
        for (size_t l = 0; l < GGUF_L; l++)
            for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
                if (parts[p].only >= 0 && parts[p].only != v)
                    continue;
                char name[128];
                const char *hf = parts[p].hf;
                if (v == 2 && !strcmp(parts[p].gguf, "ffn_norm"))
                    hf = "pre_feedforward_layernorm.weight";
                snprintf(name, sizeof name, "model.layers.%zu.%s", l, hf);
                const pb_tensor *x;
                size_t rows = parts[p].rows, cols = parts[p].cols;
                accept(pb_tensors_need(t, name, rows, cols, &x));
                start = (start + 31) / 32 * 32;
                static real got[64 * 64];
                pb_tensor_read(x, 0, x->count, got);
                uint32_t type = cols ? types[v] : 0;
                for (size_t i = 0; i < x->count; i++) {
                    size_t row = cols ? i / cols : i, col = cols ? i % cols : 0;
                    if (parts[p].turned && v < 2) {
                        size_t k = row % GGUF_D;
                        row = row - k + (k < GGUF_D / 2 ? 2 * k : 2 * (k - GGUF_D / 2) + 1);
                    }
                    size_t e = cols ? row * cols + col : row;
                    double want;
                    if (type == 8) {
                        size_t block = start + e / 32 * 34;
                        want = at_offset(1, block) * (double)((block + 2 + e % 32) % 59);
                    } else {
                        want = at_offset(type, start + e * (type ? 2 : 4));
                    }
                    if (v == 2 && strstr(name, "norm"))
                        want = (double)((real)want - 1);
                    if ((double)got[i] != want)
                        fail_msg("variant %d, %s [%zu] is %g, not %g", v, name, i, (double)got[i],
                                 want);
                }
                start += cols ? rows * cols / 32 * per : 4 * rows;
            }
        assert_int_equal(pb_tensors_find(t, "lm_head.weight") != NULL, v == 1);
        pb_tensors_close(t);
    }
}

#define U32(key, value)      (&(gguf_twist){key, 4, &(uint32_t){value}, 4})
#define FLOAT(key, value)    (&(gguf_twist){key, 6, &(float){value}, 4})
#define NONE(key)            (&(gguf_twist){key, 0, NULL, 0})
#define RAW(key, type, text) (&(gguf_twist){key, type, text, sizeof text - 1})
#define TEXT5(key, text)     RAW(key, 8, "\5\0\0\0\0\0\0\0" text)

static void test_refused_keys(void **state)
{
    (void)state;
    refuse(0, PB_INPUT, "general.architecture", NONE("general.architecture"));
    refuse(0, PB_UNSUPPORTED, "\"mamba\"", TEXT5("general.architecture", "mamba"));
    refuse(0, PB_UNSUPPORTED, "\"adapt\"", TEXT5("general.type", "adapt"));
    refuse(0, PB_INPUT, "num_hidden_layers", NONE("llama.block_count"));
    refuse(0, PB_INPUT, "num_hidden_layers", U32("llama.block_count", 0));
    refuse(0, PB_UNSUPPORTED, "blk.1.", U32("llama.block_count", 1));
    refuse(0, PB_INPUT, "hidden_size", U32("llama.embedding_length", 1u << 31));
    refuse(0, PB_INPUT, "num_attention_heads", FLOAT("llama.attention.head_count", 4));
    refuse(0, PB_INPUT, "num_key_value_heads", U32("llama.attention.head_count_kv", 3));
    refuse(0, PB_UNSUPPORTED, "llama.rope.dimension_count", U32("llama.rope.dimension_count", 4));
    refuse(0, PB_UNSUPPORTED, "llama.attention.value_length",
           U32("llama.attention.value_length", 4));
    refuse(0, PB_UNSUPPORTED, "\"llama.expert_count\"", U32("llama.expert_count", 8));
    refuse(0, PB_UNSUPPORTED, "\"llama.novelty\"", U32("llama.novelty", 1));
    refuse(0, PB_INPUT, "rms_norm_eps", FLOAT("llama.attention.layer_norm_rms_epsilon", -1));
    refuse(0, PB_INPUT, "layer_norm_rms_epsilon",
           FLOAT("llama.attention.layer_norm_rms_epsilon", NAN));
    refuse(0, PB_UNSUPPORTED, "yarny", TEXT5("llama.rope.scaling.type", "yarny"));
    refuse(0, PB_INPUT, "general.alignment is 3", U32("general.alignment", 3));
    refuse(0, PB_INPUT, "general.alignment", U32("general.alignment", 0));
    refuse(0, PB_INPUT, "eos_token_id", U32("tokenizer.ggml.eos_token_id", GGUF_V));
    refuse(0, PB_INPUT, "value of type 7", RAW("test.x", 7, "\2"));
    refuse(0, PB_INPUT, "value of type 10", RAW("test.x", 10, "\xff\xff\xff\xff\xff\xff\xff\xff"));
    refuse(0, PB_UNSUPPORTED, "its type is 13", RAW("test.x", 13, ""));
    refuse(0, PB_UNSUPPORTED, "list inside a list", RAW("test.x", 9, "\x9\0\0\0\1\0\0\0\0\0\0\0"));
    refuse(0, PB_UNSUPPORTED, "list of 4194304",
           RAW("test.x", 9, "\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    refuse(0, PB_INPUT, "not valid UTF-8", RAW("test.x", 8, "\1\0\0\0\0\0\0\0\xff"));
    refuse(0, PB_INPUT, "bytes are needed", RAW("test.x", 8, "\1\0\0\0\0\0\0\x80"));
}

static void put_u32(size_t at, uint32_t v)
{
    memcpy(bytes + at, &v, 4);
}

// Where the name of this tensor stands.
static size_t find(const char *name, size_t n)
{
    uint8_t *p = memmem(bytes, n, name, strlen(name));
    assert_non_null(p);
    return (size_t)(p - bytes);
}

static void test_refused_structure(void **state)
{
    (void)state;
    static const char name[] = "blk.1.ffn_down.weight"; // then dimensions, 2 sizes, type, offset
    size_t n = seed_gguf(bytes, CAP, 0), dims = find(name, n) + strlen(name);
#define EDIT(at, value, code, message)                                                             \
    do {                                                                                           \
        n = seed_gguf(bytes, CAP, 0);                                                              \
        put_u32(at, value);                                                                        \
        refuse_bytes(n, code, message);                                                            \
    } while (0)
    EDIT(0, 0x47475547, PB_INPUT, "GGUF");
    EDIT(4, 1, PB_UNSUPPORTED, "version is 1");
    EDIT(4, 4, PB_UNSUPPORTED, "version is 4");
    EDIT(4, 0x03000000, PB_UNSUPPORTED, "version is 50331648");
    EDIT(12, 1, PB_INPUT, "announces");
    EDIT(8, 22, PB_INPUT, "");
    EDIT(20, 1, PB_INPUT, "");
    EDIT(dims, 0, PB_INPUT, "0 dimensions");
    EDIT(dims, 5, PB_INPUT, "5 dimensions");
    EDIT(dims + 4, 0, PB_INPUT, "impossible shape");
    EDIT(dims + 8, 1u << 31, PB_INPUT, "impossible shape");
    EDIT(dims + 4, 96, PB_INPUT, name);
    EDIT(dims + 20, 12, PB_UNSUPPORTED, "12 (Q4_K)");
    EDIT(dims + 20, 31, PB_UNSUPPORTED, "31 (unknown)");
    EDIT(dims + 20, 29, PB_UNSUPPORTED, "29 (unknown)");
    EDIT(dims + 24, (1u << 30) + 1, PB_INPUT, "not aligned");
    EDIT(dims + 24, 0, PB_INPUT, "inside another");
    EDIT(dims + 24, 1u << 30, PB_INPUT, "but the data end");
    EDIT(dims + 28, 1u << 31, PB_INPUT, "but the data end");
#undef EDIT
    n = seed_gguf(bytes, CAP, 0);
    memcpy(bytes + find(name, n), "blk.0", 5); // twice the same tensor
    refuse_bytes(n, PB_INPUT, "blk.0.ffn_down.weight\" is there twice");
    n = seed_gguf(bytes, CAP, 0);
    memcpy(bytes + find(name, n), "blk.7", 5);
    refuse_bytes(n, PB_UNSUPPORTED, "blk.7.ffn_down.weight\" is not known");
    n = seed_gguf(bytes, CAP, 0);
    memcpy(bytes + find("token_embd.weight", n), "xoken", 5);
    refuse_bytes(n, PB_INPUT, "token_embd.weight");
    n = seed_gguf(bytes, CAP, 0);
    memcpy(bytes + find("tokenizer.ggml.eos_token_id", n), "tokenizer.ggml.bos_token_id", 27);
    refuse_bytes(n, PB_INPUT, "tokenizer.ggml.bos_token_id\": it is there twice");
    n = seed_gguf(bytes, CAP, 0);
    memset(bytes + n, 0, 64);
    refuse_bytes(n + 32, PB_INPUT, "32 bytes follow");
    // A row of Q8_0 is whole blocks.
    n = seed_gguf(bytes, CAP, 3);
    put_u32(find(name, n) + strlen(name) + 4, 48);
    refuse_bytes(n, PB_INPUT, "rows of 48 values");
}

static void test_truncated_everywhere(void **state)
{
    (void)state;
    for (int v = 0; v < 4; v++) {
        size_t n = seed_gguf(bytes, CAP, v);
        for (size_t size = 0; size < n; size++) {
            refuse_bytes(size, PB_INPUT, "");
            assert_non_null(strstr(pb_error_hint(), "truncated"));
        }
    }
}

static void test_accepted_variations(void **state)
{
    (void)state;
    const gguf_twist *const twists[] = {U32("llama.expert_count", 0),
                                        U32("general.file_type", 1),
                                        FLOAT("llama.rope.freq_base", 1e4f),
                                        U32("llama.attention.value_length", GGUF_D),
                                        RAW("llama.vocab_size", 10, "\6\0\0\0\0\0\0\0"),
                                        RAW("test.x", 9, "\7\0\0\0\2\0\0\0\0\0\0\0\0\1")};
    for (size_t i = 0; i < sizeof twists / sizeof *twists; i++) {
        pb_tensors *t;
        pb_config c;
        json_t *meta;
        open_variant(0, twists[i], &t, &c, &meta);
        assert_non_null(json_object_get(meta, twists[i]->key));
        json_decref(meta);
        pb_tensors_close(t);
    }
    pb_tensors *t;
    pb_config c;
    open_variant(0, FLOAT("llama.rope.scale_linear", 4), &t, &c, NULL);
    assert_int_equal(c.rope.kind, PB_ROPE_LINEAR);
    assert_true(c.rope.factor == 4);
    pb_tensors_close(t);
    // The number is the shortest decimal of the float.
    open_variant(0, FLOAT("llama.rope.freq_base", 1000.1f), &t, &c, NULL);
    assert_true(c.rope_theta == 1000.1);
    pb_tensors_close(t);
}

// LLaMA-3's scaling, of which the file has the divisors alone.
static void test_frequencies(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 2; wrong++) {
        size_t n = seed_gguf(bytes, CAP, 0);
        // output_norm.weight, the last tensor, gives its place to rope_freqs.weight.
        size_t name = find("output_norm.weight", n);
        memcpy(bytes + name, "rope_freqs.weight", 17);
        memmove(bytes + name + 17, bytes + name + 18, n - name - 18);
        uint64_t length = 17;
        memcpy(bytes + name - 8, &length, 8);
        n -= 1;
        put_u32(name + 17 + 4, GGUF_D / 2);
        // One byte less in front of the data: padded again.
        size_t end = name + 17 + 4 + 8 + 4 + 8, area = (end + 31) / 32 * 32;
        size_t old = (end + 1 + 31) / 32 * 32 - 1;
        memmove(bytes + area, bytes + old, n - old);
        n = n - old + area - 128 + 16;
        pb_config c = {.head_dim = GGUF_D, .rope_theta = 5000};
        double plain[4], scaled[4];
        pb_config_inv_freq(&c, plain);
        c.rope = (pb_rope_scaling){PB_ROPE_LLAMA3, 8, 1, 4, 64};
        pb_config_inv_freq(&c, scaled);
        for (size_t i = 0; i < 4; i++) {
            float divisor = (float)(plain[i] / scaled[i] * (wrong && i == 1 ? 1.5 : 1));
            memcpy(bytes + n - 16 + 4 * i, &divisor, 4);
        }
        pb_tensors *t;
        if (wrong) {
            refuse_bytes(n, PB_UNSUPPORTED, "rope_freqs.weight");
            continue;
        }
        accept(pb_gguf_open(&t, &c, NULL, target_file(bytes, n)));
        assert_int_equal(c.rope.kind, PB_ROPE_LLAMA3);
        assert_true(c.rope.factor == 8 && c.rope.low == 1 && c.rope.high == 4);
        assert_int_equal(c.rope.original, 64);
        assert_null(pb_tensors_find(t, "rope_freqs.weight"));
        pb_tensors_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configuration),        cmocka_unit_test(test_places),
        cmocka_unit_test(test_refused_keys),         cmocka_unit_test(test_refused_structure),
        cmocka_unit_test(test_truncated_everywhere), cmocka_unit_test(test_accepted_variations),
        cmocka_unit_test(test_frequencies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
