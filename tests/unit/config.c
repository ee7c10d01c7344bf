// config.json: values read, defaults, round trip, and every refusal by its sentence.
#include "model/source.h"
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// A Llama whose keys a case replaces, adds (JSON text) or removes (NULL).
static const char BASE[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":512,"
    "\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":5,"
    "\"num_attention_heads\":8,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,"
    "\"hidden_act\":\"silu\",\"bos_token_id\":1,\"eos_token_id\":2}";

typedef struct change {
    const char *key, *value;
} change;

static pb_err read_with(pb_config *c, const change *changes, size_t n)
{
    json_t *j = json_loads(BASE, 0, NULL);
    assert_non_null(j);
    for (size_t i = 0; i < n && changes[i].key; i++) {
        if (!changes[i].value) {
            json_object_del(j, changes[i].key);
            continue;
        }
        json_t *v = json_loads(changes[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        json_object_set_new(j, changes[i].key, v);
    }
    pb_err err = pb_config_from_json(c, j);
    json_decref(j);
    return err;
}

// A config read with these changes must do what the test says next.
#define READ(c, ...)                                                                               \
    read_with(c, (const change[]){__VA_ARGS__},                                                    \
              sizeof((const change[]){__VA_ARGS__}) / sizeof(change))

static void accept(pb_err err)
{
    if (err)
        fail_msg("refused: %s", pb_error_message());
}

static void test_values(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, {NULL, NULL}));
    assert_int_equal(c.vocab, 512);
    assert_int_equal(c.width, 64);
    assert_int_equal(c.ffn, 172);
    assert_int_equal(c.layers, 5);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.context, 512);
    assert_true(c.norm_eps == 1e-5 && c.rope_theta == 10000);
    assert_false(c.tied);
    assert_false(c.qkv_bias);
    assert_int_equal(c.gate, PB_GATE_SILU);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 2);
    assert_string_equal(c.tokenizer, "");

    accept(READ(&c, {"num_key_value_heads", "2"}, {"head_dim", "32"}, {"rope_theta", "500000"},
                {"tie_word_embeddings", "true"}, {"hidden_act", "\"gelu_pytorch_tanh\""},
                {"eos_token_id", "[2, 5, 511]"}, {"bos_token_id", "null"},
                {"pb_tokenizer", "\"tokenizer.bin\""}));
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 32);
    assert_true(c.rope_theta == 500000);
    assert_true(c.tied);
    assert_int_equal(c.gate, PB_GATE_GELU_TANH);
    assert_int_equal(c.n_eos, 3);
    assert_int_equal(c.eos[2], 511);
    assert_int_equal(c.bos, -1);
    assert_string_equal(c.tokenizer, "tokenizer.bin");
}

static void test_defaults(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, {"num_key_value_heads", "null"}, {"rms_norm_eps", NULL}, {"hidden_act", NULL},
                {"bos_token_id", NULL}, {"eos_token_id", NULL}, {"rope_scaling", "null"}));
    assert_int_equal(c.kv_heads, 8);
    assert_true(c.norm_eps == 1e-6);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.eos[0], 2);
    accept(READ(&c, {"eos_token_id", "null"}));
    assert_int_equal(c.n_eos, 0);
    accept(READ(&c, {"architectures", NULL}));
    accept(READ(&c, {"model_type", NULL}));
    accept(READ(&c, {"rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":1e6}"}));
    assert_true(c.rope_theta == 1e6);
    accept(READ(&c, {"rope_parameters", "{\"rope_theta\":20000}"}, {"rope_theta", "20000"}));
    assert_true(c.rope_theta == 20000);
    accept(READ(&c, {"rope_scaling", "{\"type\":\"default\"}"}));
}

// The changes that make the base another family's file.
#define FAMILY(architecture, type)                                                                 \
    {"architectures", "[\"" architecture "\"]"},                                                   \
    {                                                                                              \
        "model_type", "\"" type "\""                                                               \
    }
#define MISTRAL FAMILY("MistralForCausalLM", "mistral")
#define QWEN2                                                                                      \
    FAMILY("Qwen2ForCausalLM", "qwen2"),                                                           \
    {                                                                                              \
        "num_key_value_heads", "4"                                                                 \
    }
#define QWEN3                                                                                      \
    FAMILY("Qwen3ForCausalLM", "qwen3"),                                                           \
    {                                                                                              \
        "num_key_value_heads", "4"                                                                 \
    }
#define GEMMA                                                                                      \
    FAMILY("GemmaForCausalLM", "gemma"),                                                           \
    {                                                                                              \
        "num_key_value_heads", "4"                                                                 \
    }
#define GEMMA2 FAMILY("Gemma2ForCausalLM", "gemma2")
#define ABSENT                                                                                     \
    {"hidden_act", NULL}, {"bos_token_id", NULL},                                                  \
    {                                                                                              \
        "eos_token_id", NULL                                                                       \
    }

// The windows of the five layers, first to last.
static void windows_are(const pb_config *c, size_t a, size_t b, size_t d, size_t e, size_t f)
{
    const size_t want[] = {a, b, d, e, f};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(pb_config_window(c, i), want[i]);
}

static void test_llama(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, {"attention_bias", "true"}));
    assert_true(c.qkv_bias && c.o_bias && !c.mlp_bias);
    accept(READ(&c, {"mlp_bias", "true"}, {"hidden_act", "\"gelu\""}));
    assert_true(!c.qkv_bias && !c.o_bias && c.mlp_bias);
    assert_int_equal(c.gate, PB_GATE_GELU);
    assert_true(!c.qk_norm && !c.post_norms && !c.norm_offset && !c.embed_scaled);
    assert_true(c.attn_cap == 0 && c.final_cap == 0 && c.score_scalar == 0);
    // Llama has no windows, whatever stands in its file.
    accept(READ(&c, {"sliding_window", "4"}));
    windows_are(&c, 0, 0, 0, 0, 0);
    assert_int_equal(c.window, 0);
}

static void test_mistral(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, MISTRAL, {"sliding_window", "null"}));
    windows_are(&c, 0, 0, 0, 0, 0);
    accept(READ(&c, MISTRAL, {"sliding_window", "16"}));
    assert_int_equal(c.family, PB_MISTRAL);
    windows_are(&c, 16, 16, 16, 16, 16);
    accept(READ(&c, MISTRAL, {"num_attention_heads", "32"}));
    assert_int_equal(c.window, 4096);
    assert_int_equal(c.kv_heads, 8);
}

static void test_qwen(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, QWEN2, ABSENT, {"sliding_window", "16"}, {"use_sliding_window", "false"},
                {"layer_types", "null"}));
    assert_true(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.n_eos, 0);
    windows_are(&c, 0, 0, 0, 0, 0);
    accept(READ(&c, QWEN2, {"sliding_window", "16"}, {"use_sliding_window", "true"},
                {"max_window_layers", "3"}));
    windows_are(&c, 0, 0, 0, 16, 16);
    accept(READ(&c, QWEN2, {"use_sliding_window", "true"})); // by default beyond 28 layers
    windows_are(&c, 0, 0, 0, 0, 0);
    accept(READ(&c, QWEN2, {"use_sliding_window", "true"}, {"max_window_layers", "0"}));
    assert_int_equal(c.window, 4096);
    accept(READ(&c, QWEN2, {"sliding_window", "16"}, {"use_sliding_window", "true"},
                {"layer_types", "[\"sliding_attention\",\"full_attention\",\"sliding_attention\","
                                "\"full_attention\",\"full_attention\"]"}));
    windows_are(&c, 16, 0, 16, 0, 0);

    accept(READ(&c, QWEN3, ABSENT));
    assert_int_equal(c.family, PB_QWEN3);
    assert_int_equal(c.head_dim, 128);
    assert_true(c.qk_norm && !c.qkv_bias && !c.o_bias && !c.tied);
    assert_int_equal(c.gate, PB_GATE_SILU);
    accept(READ(&c, QWEN3, {"attention_bias", "true"}, {"head_dim", "16"}));
    assert_int_equal(c.head_dim, 16);
    assert_true(c.qkv_bias && c.o_bias && !c.mlp_bias);
}

static void test_gemma(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, GEMMA, ABSENT));
    assert_true(c.norm_offset && c.embed_scaled && c.tied && !c.post_norms && !c.qk_norm);
    assert_true(c.attn_cap == 0 && c.final_cap == 0 && c.score_scalar == 0);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.gate, PB_GATE_GELU_TANH);
    assert_int_equal(c.bos, 2);
    assert_int_equal(c.eos[0], 1);
    // "gelu" alone means the tanh form; hidden_activation means what it says.
    accept(READ(&c, GEMMA, {"hidden_act", "\"gelu\""}, {"hidden_activation", "null"}));
    assert_int_equal(c.gate, PB_GATE_GELU_TANH);
    accept(READ(&c, GEMMA, {"hidden_act", "\"gelu\""}, {"hidden_activation", "\"gelu\""}));
    assert_int_equal(c.gate, PB_GATE_GELU);
    accept(READ(&c, GEMMA, {"hidden_activation", "\"gelu_pytorch_tanh\""}));
    assert_int_equal(c.gate, PB_GATE_GELU_TANH);

    accept(READ(&c, GEMMA2, ABSENT));
    assert_true(c.norm_offset && c.embed_scaled && c.tied && c.post_norms);
    assert_true(c.attn_cap == 50 && c.final_cap == 30 && c.score_scalar == 256);
    assert_int_equal(c.kv_heads, 4);
    windows_are(&c, 4096, 0, 4096, 0, 4096);
    accept(READ(&c, GEMMA2, ABSENT, {"sliding_window", "8"}, {"query_pre_attn_scalar", "144"},
                {"attn_logit_softcapping", "null"}, {"final_logit_softcapping", "12.5"},
                {"tie_word_embeddings", "false"}));
    assert_true(c.attn_cap == 0 && c.final_cap == 12.5 && c.score_scalar == 144 && !c.tied);
    windows_are(&c, 8, 0, 8, 0, 8);
}

static void test_rope(void **state)
{
    (void)state;
    pb_config c;
    double f[4], plain[4];
    accept(READ(&c, {"rope_scaling", "{\"type\":\"linear\",\"factor\":4}"}));
    assert_int_equal(c.rope.kind, PB_ROPE_LINEAR);
    pb_config_inv_freq(&c, f);
    c.rope.kind = PB_ROPE_PLAIN;
    pb_config_inv_freq(&c, plain);
    for (int k = 0; k < 4; k++) { // D 8, theta 10000
        assert_true(fabs(plain[k] - pow(10, -k)) < 1e-15);
        assert_true(fabs(f[k] - pow(10, -k) / 4) < 1e-15);
    }
    const char *llama3 = "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                         "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":%s}";
    char text[200];
    snprintf(text, sizeof text, llama3, "128");
    accept(READ(&c, {"rope_scaling", text}));
    assert_true(c.rope.kind == PB_ROPE_LLAMA3 && c.rope.factor == 8 && c.rope.low == 1);
    assert_true(c.rope.high == 4 && c.rope.original == 128);
    // In 128 positions the four pairs turn 20.4, 2.04, 0.2 and 0.02 times: as they were, by a
    // mixture, and twice stretched.
    pb_config_inv_freq(&c, f);
    double turns = 12.8 / (2 * acos(-1)), keep = (turns - 1) / 3;
    assert_true(f[0] == plain[0]);
    assert_true(fabs(f[1] - plain[1] * (keep + (1 - keep) / 8)) < 1e-15);
    assert_true(fabs(f[2] - plain[2] / 8) < 1e-16 && fabs(f[3] - plain[3] / 8) < 1e-16);
    accept(READ(&c, {"rope_parameters", text}, {"rope_scaling", text}, {"rope_theta", "500000"}));
    snprintf(text, sizeof text, llama3, "128,\"rope_theta\":500000.0");
    accept(READ(&c, {"rope_parameters", text}));
    assert_true(c.rope.kind == PB_ROPE_LLAMA3 && c.rope_theta == 500000);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        change change[5];
        pb_err code;
        const char *message; // a part of it
    } cases[] = {
        {{{"architectures", "[\"GPT2LMHeadModel\"]"}}, PB_UNSUPPORTED, "GPT2LMHeadModel"},
        {{{"architectures", NULL}, {"model_type", "\"gemma3\""}}, PB_UNSUPPORTED, "gemma3"},
        {{{"architectures", NULL}, {"model_type", NULL}}, PB_INPUT, "both missing"},
        {{{"architectures", "[]"}}, PB_INPUT, "architectures"},
        {{{"architectures", "\"LlamaForCausalLM\""}}, PB_INPUT, "architectures"},
        {{{"architectures", "[1]"}}, PB_INPUT, "architectures"},
        {{{"model_type", "\"qwen2\""}}, PB_INPUT, "qwen2"},
        {{{"hidden_act", "\"relu\""}}, PB_UNSUPPORTED, "relu"},
        {{{"hidden_act", "3"}}, PB_INPUT, "hidden_act"},
        {{{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}"}},
         PB_INPUT,
         "low_freq_factor"},
        {{{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
                           "\"high_freq_factor\":4,\"original_max_position_embeddings\":128}"}},
         PB_INPUT,
         "not positive and rising"},
        {{{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                           "\"high_freq_factor\":4,\"original_max_position_embeddings\":0}"}},
         PB_INPUT,
         "original_max_position_embeddings"},
        {{{"rope_scaling", "{\"type\":\"linear\"}"}}, PB_INPUT, "factor"},
        {{{"rope_scaling", "{\"type\":\"linear\",\"factor\":0.5}"}}, PB_INPUT, "factor"},
        {{{"rope_scaling", "{\"type\":\"linear\",\"factor\":2,\"low_freq_factor\":1}"}},
         PB_INPUT,
         "low_freq_factor"},
        {{{"rope_scaling", "{\"type\":\"linear\",\"rope_type\":\"default\"}"}},
         PB_INPUT,
         "\"linear\""},
        {{{"rope_scaling", "{\"type\":\"linear\",\"factor\":2}"},
          {"rope_parameters", "{\"rope_type\":\"linear\",\"factor\":3}"}},
         PB_INPUT,
         "contradict"},
        {{{"rope_parameters", "{\"rope_type\":\"yarn\"}"}}, PB_UNSUPPORTED, "yarn"},
        {{{"rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}"}}, PB_UNSUPPORTED, "dynamic"},
        {{{"rope_scaling", "{\"rope_type\":\"longrope\"}"}}, PB_UNSUPPORTED, "longrope"},
        {{{"rope_parameters", "{\"full_attention\":{}}"}}, PB_INPUT, "full_attention"},
        {{{"rope_scaling", "{\"factor\":2}"}}, PB_INPUT, "factor"},
        {{{"rope_scaling", "[1]"}}, PB_INPUT, "rope_scaling"},
        {{{"rope_theta", "1e4"}, {"rope_parameters", "{\"rope_theta\":5e4}"}}, PB_INPUT, "50000"},
        {{{"rope_theta", "0"}}, PB_INPUT, "rope_theta"},
        {{{"rope_theta", "-3"}}, PB_INPUT, "rope_theta"},
        {{{"partial_rotary_factor", "0.5"}}, PB_UNSUPPORTED, "0.5"},
        {{{"rope_parameters", "{\"partial_rotary_factor\":0.5}"}}, PB_UNSUPPORTED, "0.5"},
        {{MISTRAL, {"attention_bias", "true"}}, PB_UNSUPPORTED, "attention_bias"},
        {{QWEN3, {"mlp_bias", "true"}}, PB_UNSUPPORTED, "mlp_bias"},
        {{{"use_bidirectional_attention", "true"}}, PB_UNSUPPORTED, "bidirectional"},
        {{{"quantization_config", "{}"}}, PB_UNSUPPORTED, "quantization_config"},
        {{{"vocab_size", "0"}}, PB_INPUT, "vocab_size"},
        {{{"vocab_size", NULL}}, PB_INPUT, "vocab_size"},
        {{{"vocab_size", "9000000000000000000"}}, PB_INPUT, "vocab_size"},
        {{{"hidden_size", "65"}}, PB_INPUT, "65"},
        {{{"hidden_size", "64.5"}}, PB_INPUT, "hidden_size"},
        {{{"intermediate_size", "-1"}}, PB_INPUT, "intermediate_size"},
        {{{"num_hidden_layers", NULL}}, PB_INPUT, "num_hidden_layers"},
        {{{"num_attention_heads", "0"}}, PB_INPUT, "num_attention_heads"},
        {{{"num_key_value_heads", "3"}}, PB_INPUT, "num_key_value_heads 3"},
        {{{"num_key_value_heads", "0"}}, PB_INPUT, "num_key_value_heads"},
        {{{"head_dim", "7"}}, PB_INPUT, "head_dim is 7"},
        {{{"max_position_embeddings", NULL}}, PB_INPUT, "max_position_embeddings"},
        {{{"rms_norm_eps", "0"}}, PB_INPUT, "rms_norm_eps"},
        {{{"rms_norm_eps", "\"small\""}}, PB_INPUT, "rms_norm_eps"},
        {{{"bos_token_id", "512"}}, PB_INPUT, "512"},
        {{{"eos_token_id", "512"}}, PB_INPUT, "512"},
        {{{"eos_token_id", "[1, 512]"}}, PB_INPUT, "512"},
        {{{"eos_token_id", "[-1]"}}, PB_INPUT, "-1"},
        {{{"eos_token_id", "[\"</s>\"]"}}, PB_INPUT, "eos_token_id"},
        {{{"eos_token_id", "[1,2,3,4,5,6,7,8,9]"}}, PB_UNSUPPORTED, "9 values"},
        {{{"eos_token_id", "\"</s>\""}}, PB_INPUT, "eos_token_id"},
        {{{"pb_tokenizer", "\"../x\""}}, PB_INPUT, "../x"},
        {{{"pb_tokenizer", "\"a-name-of-more-than-thirty-one-bytes\""}}, PB_INPUT, "31"},
        {{{"tie_word_embeddings", "1"}}, PB_INPUT, "tie_word_embeddings"},
        {{MISTRAL, {"sliding_window", "0"}}, PB_INPUT, "sliding_window"},
        {{MISTRAL,
          {"layer_types",
           "[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\","
           "\"full_attention\"]"}},
         PB_INPUT,
         "1 of 5"},
        {{{"layer_types", "[\"full_attention\",\"sliding_attention\"]"}}, PB_INPUT, "layer_types"},
        {{{"layer_types",
           "[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\","
           "\"full_attention\"]"}},
         PB_INPUT,
         "at layer 1, but LlamaForCausalLM has no window"},
        {{GEMMA2,
          {"layer_types",
           "[\"full_attention\",\"chunked_attention\",\"full_attention\",\"full_attention\","
           "\"full_attention\"]"}},
         PB_UNSUPPORTED,
         "chunked_attention"},
        {{QWEN2,
          {"layer_types",
           "[\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\","
           "\"full_attention\"]"}},
         PB_INPUT,
         "no window here"},
        {{QWEN2, {"attention_bias", "false"}}, PB_UNSUPPORTED, "attention_bias"},
        {{GEMMA, {"hidden_act", "\"silu\""}}, PB_UNSUPPORTED, "silu"},
        {{GEMMA, {"hidden_activation", "\"relu\""}}, PB_UNSUPPORTED, "hidden_activation"},
        {{GEMMA2, {"hidden_act", NULL}, {"attn_logit_softcapping", "0"}},
         PB_INPUT,
         "attn_logit_softcapping"},
        {{GEMMA2, {"hidden_act", NULL}, {"final_logit_softcapping", "-30"}},
         PB_INPUT,
         "final_logit_softcapping"},
        {{GEMMA2, {"hidden_act", NULL}, {"query_pre_attn_scalar", "0"}},
         PB_INPUT,
         "query_pre_attn_scalar"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_config c;
        pb_err err = read_with(&c, cases[i].change, 5);
        // A list ends at its first empty row, so a removed key has a name and no value.
        if (err != cases[i].code || !strstr(pb_error_message(), cases[i].message))
            fail_msg("case %zu (%s): %s: %s", i, cases[i].message, pb_error_name(err),
                     err ? pb_error_message() : "");
    }
    pb_config c;
    json_t *list = json_array();
    assert_int_equal(pb_config_from_json(&c, list), PB_INPUT);
    json_decref(list);
}

static void test_check(void **state)
{
    (void)state;
    pb_config good, c;
    accept(READ(&good, {NULL, NULL}));
    accept(pb_config_check(&good));
#define BREAK(statement, part)                                                                     \
    do {                                                                                           \
        c = good;                                                                                  \
        statement;                                                                                 \
        assert_int_equal(pb_config_check(&c), PB_INPUT);                                           \
        assert_non_null(strstr(pb_error_message(), part));                                         \
    } while (0)
    BREAK(c.width = SIZE_MAX, "hidden_size");
    BREAK(c.rope_theta = strtod("inf", NULL), "rope_theta");
    BREAK(c.rope_theta = strtod("nan", NULL), "rope_theta");
    BREAK(c.norm_eps = strtod("nan", NULL), "rms_norm_eps");
    BREAK(c.gate = (pb_gate)9, "9");
    BREAK(c.bos = -2, "-2");
    BREAK(c.family = (pb_family)77, "77");
    BREAK(c.qk_norm = true, "q and k norms");
    BREAK(c.post_norms = true, "norms after the blocks");
    BREAK(c.norm_offset = true, "1 + weight");
    BREAK(c.embed_scaled = true, "scaled embeddings");
    BREAK(c.attn_cap = 50, "soft caps");
    BREAK(c.final_cap = strtod("nan", NULL), "final_logit_softcapping");
    BREAK(c.score_scalar = 256, "query_pre_attn_scalar");
    BREAK(c.qkv_bias = true, "biases");
    BREAK(c.window = 4, "windows");
    BREAK(pb_config_set_windowed(&c, 2, true), "1 of 5");
    BREAK(pb_config_set_windowed(&c, 70, true), "0 of 5");
    BREAK((c.rope.kind = PB_ROPE_LINEAR, c.rope.factor = strtod("inf", NULL)), "factor");
    BREAK(c.rope.kind = (pb_rope_kind)5, "5");
    BREAK((pb_config_set_family(&c, PB_QWEN2), c.o_bias = true), "biases");
    BREAK((pb_config_set_family(&c, PB_QWEN3), c.mlp_bias = true), "gate, up and down");
    BREAK((pb_config_set_family(&c, PB_GEMMA2), c.window = 4), "sliding_window is 4 in 0 of 5");
    BREAK(c.n_eos = PB_MAX_EOS + 1, "eos_token_id");
    BREAK(memset(c.tokenizer, 'a', sizeof c.tokenizer), "pb_tokenizer");
#undef BREAK
}

// What is written is read back, field by field, as the same architecture.
static void round_trip(const pb_config *c, const char *architecture)
{
    pb_config d;
    json_t *j = pb_config_to_json(c);
    assert_non_null(j);
    char *text = json_dumps(j, 0);
    json_decref(j);
    accept(pb_json_parse(&j, text, strlen(text), "round trip"));
    free(text);
    accept(pb_config_from_json(&d, j));
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "architectures"), 0)),
                        architecture);
    json_decref(j);
    assert_int_equal(c->family, d.family);
    assert_int_equal(c->vocab, d.vocab);
    accept(pb_config_same_geometry(c, &d));
    assert_int_equal(c->context, d.context);
    assert_true(c->norm_eps == d.norm_eps && c->rope_theta == d.rope_theta);
    assert_int_equal(c->rope.kind, d.rope.kind);
    assert_true(c->rope.factor == d.rope.factor && c->rope.low == d.rope.low);
    assert_true(c->rope.high == d.rope.high && c->rope.original == d.rope.original);
    assert_int_equal(c->tied, d.tied);
    assert_true(c->qkv_bias == d.qkv_bias && c->o_bias == d.o_bias && c->mlp_bias == d.mlp_bias);
    assert_true(c->qk_norm == d.qk_norm && c->post_norms == d.post_norms);
    assert_true(c->norm_offset == d.norm_offset && c->embed_scaled == d.embed_scaled);
    assert_int_equal(c->gate, d.gate);
    assert_true(c->attn_cap == d.attn_cap && c->final_cap == d.final_cap);
    assert_true(c->score_scalar == d.score_scalar);
    assert_int_equal(c->window, d.window);
    assert_memory_equal(c->windowed, d.windowed, sizeof c->windowed);
    assert_int_equal(c->bos, d.bos);
    assert_int_equal(c->n_eos, d.n_eos);
    assert_memory_equal(c->eos, d.eos, sizeof c->eos);
    assert_string_equal(c->tokenizer, d.tokenizer);
}

static void test_round_trip(void **state)
{
    (void)state;
    pb_config c;
    accept(READ(&c, {"eos_token_id", "[2, 5]"}, {"rms_norm_eps", "1.0000000000000001e-05"},
                {"rope_theta", "123456.78901234567"}, {"pb_tokenizer", "\"bytes\""},
                {"mlp_bias", "true"}, {"rope_scaling", "{\"type\":\"linear\",\"factor\":2.5}"}));
    round_trip(&c, "LlamaForCausalLM");
    accept(READ(&c, {"attention_bias", "true"},
                {"rope_parameters",
                 "{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
                 "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
                 "\"rope_theta\":5e5}"}));
    round_trip(&c, "LlamaForCausalLM");
    accept(READ(&c, MISTRAL, {"sliding_window", "null"}, {"max_position_embeddings", "32768"},
                {"num_key_value_heads", "4"}, {"head_dim", "128"}));
    round_trip(&c, "MistralForCausalLM");
    accept(READ(&c, MISTRAL));
    round_trip(&c, "MistralForCausalLM");
    accept(READ(&c, QWEN2, {"tie_word_embeddings", "true"}, {"eos_token_id", "null"},
                {"bos_token_id", "null"}, {"hidden_act", "\"gelu_pytorch_tanh\""}));
    round_trip(&c, "Qwen2ForCausalLM");
    accept(READ(&c, QWEN2, {"use_sliding_window", "true"}, {"max_window_layers", "2"}));
    round_trip(&c, "Qwen2ForCausalLM");
    accept(READ(&c, QWEN3, {"attention_bias", "true"}, {"use_sliding_window", "true"},
                {"sliding_window", "9"},
                {"layer_types", "[\"sliding_attention\",\"full_attention\",\"sliding_attention\","
                                "\"full_attention\",\"full_attention\"]"}));
    round_trip(&c, "Qwen3ForCausalLM");
    accept(READ(&c, GEMMA, {"hidden_activation", "\"gelu\""}, {"tie_word_embeddings", "false"}));
    round_trip(&c, "GemmaForCausalLM");
    accept(READ(&c, GEMMA, ABSENT));
    round_trip(&c, "GemmaForCausalLM");
    accept(READ(&c, GEMMA2, ABSENT));
    round_trip(&c, "Gemma2ForCausalLM");
    accept(READ(&c, GEMMA2, ABSENT, {"sliding_window", "null"}, {"attention_bias", "true"},
                {"attn_logit_softcapping", "null"}, {"final_logit_softcapping", "12.5"}));
    round_trip(&c, "Gemma2ForCausalLM");
    // A family set by code alone is written and read too.
    for (int f = 0; f < PB_N_FAMILIES; f++) {
        accept(READ(&c, {"head_dim", "16"}));
        pb_config_set_family(&c, (pb_family)f);
        if (f == PB_QWEN2)
            assert_true(c.qkv_bias);
        accept(pb_config_check(&c));
        char architecture[40];
        snprintf(architecture, sizeof architecture, "%sForCausalLM",
                 (const char *const[]){"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2"}[f]);
        round_trip(&c, architecture);
        pb_family found;
        accept(pb_family_find(&found, pb_family_name((pb_family)f)));
        assert_int_equal(found, f);
    }
    pb_family found;
    assert_int_equal(pb_family_find(&found, "phi3"), PB_UNSUPPORTED);
    assert_non_null(strstr(pb_error_message(), "phi3"));
}

// What an adapter folder records of its backbone.
static void test_geometry(void **state)
{
    (void)state;
    static const change others[] = {{"hidden_size", "128"},       {"intermediate_size", "173"},
                                    {"num_hidden_layers", "4"},   {"num_attention_heads", "16"},
                                    {"num_key_value_heads", "8"}, {"head_dim", "8"}};
    pb_config c, d;
    const change all[] = {{"head_dim", "16"}, {"num_key_value_heads", "4"}};
    accept(read_with(&c, all, 2));
    json_t *j = pb_config_geometry(&c);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "model_type")), "llama");
    assert_int_equal(json_integer_value(json_object_get(j, "vocab_size")), 512);
    accept(pb_config_fits(&c, j));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const change changes[] = {all[0], all[1], others[i]};
        accept(read_with(&d, changes, 3));
        assert_int_equal(pb_config_same_geometry(&d, &c), PB_INPUT);
        assert_non_null(strstr(pb_error_message(), others[i].key));
        assert_int_equal(pb_config_fits(&d, j), PB_INPUT);
        assert_non_null(strstr(pb_error_message(), others[i].key));
    }
    // No adapter's shape depends on these.
    accept(READ(&d, GEMMA2, {"head_dim", "16"}, {"hidden_act", NULL}, {"vocab_size", "600"}));
    accept(pb_config_same_geometry(&d, &c));
    accept(pb_config_fits(&d, j));
    json_object_del(j, "hidden_size");
    d.width++;
    accept(pb_config_fits(&d, j));
    json_decref(j);
    j = json_pack("{s:s}", "head_dim", "wide");
    assert_int_equal(pb_config_fits(&c, j), PB_INPUT);
    json_decref(j);
    j = json_array();
    assert_int_equal(pb_config_fits(&c, j), PB_INPUT);
    json_decref(j);
}

// Published sizes of published models.
static void test_params(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t params;
        pb_family family;
        size_t vocab, width, ffn, layers, heads, kv_heads, head_dim;
        bool tied;
    } models[] = {
        {"Llama-2-7B", 6738415616, PB_LLAMA, 32000, 4096, 11008, 32, 32, 32, 128, false},
        {"Llama-2-13B", 13015864320, PB_LLAMA, 32000, 5120, 13824, 40, 40, 40, 128, false},
        {"TinyLlama-1.1B", 1100048384, PB_LLAMA, 32000, 2048, 5632, 22, 32, 4, 64, false},
        {"Llama-3.2-1B", 1235814400, PB_LLAMA, 128256, 2048, 8192, 16, 32, 8, 64, true},
        {"Llama-3.2-3B", 3212749824, PB_LLAMA, 128256, 3072, 8192, 28, 24, 8, 128, true},
        {"SmolLM-135M", 134515008, PB_LLAMA, 49152, 576, 1536, 30, 9, 3, 64, true},
        {"Mistral-7B", 7241732096, PB_MISTRAL, 32000, 4096, 14336, 32, 32, 8, 128, false},
        {"Qwen2-0.5B", 494032768, PB_QWEN2, 151936, 896, 4864, 24, 14, 2, 64, true},
        {"Qwen3-0.6B", 596049920, PB_QWEN3, 151936, 1024, 3072, 28, 16, 8, 128, true},
        {"Gemma-2B", 2506172416, PB_GEMMA, 256000, 2048, 16384, 18, 8, 1, 256, true},
        {"Gemma-2-2B", 2614341888, PB_GEMMA2, 256000, 2304, 9216, 26, 8, 4, 256, true},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        pb_config c = {.vocab = models[i].vocab,
                       .width = models[i].width,
                       .ffn = models[i].ffn,
                       .layers = models[i].layers,
                       .heads = models[i].heads,
                       .kv_heads = models[i].kv_heads,
                       .head_dim = models[i].head_dim};
        pb_config_set_family(&c, models[i].family);
        c.tied = models[i].tied;
        if (pb_config_params(&c) != models[i].params)
            fail_msg("%s has %zu parameters, not %zu", models[i].name, pb_config_params(&c),
                     models[i].params);
    }
    // Biases, one kind after the other: q, k, v; o; gate, up, down.
    pb_config c = {.width = 10, .ffn = 7, .layers = 3, .heads = 2, .kv_heads = 1, .head_dim = 4};
    size_t bare = pb_config_params(&c);
    c.qkv_bias = true;
    assert_int_equal(pb_config_params(&c) - bare, 3 * (8 + 4 + 4));
    c.o_bias = true;
    assert_int_equal(pb_config_params(&c) - bare, 3 * (16 + 10));
    c.mlp_bias = true;
    assert_int_equal(pb_config_params(&c) - bare, 3 * (26 + 7 + 7 + 10));
}

// Weights with their names in files: as many values as the count says, for every family and bias.
static void test_layout(void **state)
{
    static const struct {
        const char *name;
        unsigned families; // bits of pb_family
    } some[] = {{"input_layernorm.weight", 63},
                {"post_attention_layernorm.weight", 63},
                {"pre_feedforward_layernorm.weight", 1 << PB_GEMMA2},
                {"post_feedforward_layernorm.weight", 1 << PB_GEMMA2},
                {"self_attn.q_norm.weight", 1 << PB_QWEN3},
                {"self_attn.k_norm.weight", 1 << PB_QWEN3}};
    (void)state;
    for (int f = 0; f < PB_N_FAMILIES; f++)
        for (int biases = 0; biases < 8; biases++) {
            pb_config c;
            accept(READ(&c, {"head_dim", "16"}, {"num_key_value_heads", "2"}));
            pb_config_set_family(&c, (pb_family)f);
            c.qkv_bias = biases & 1, c.o_bias = biases & 2, c.mlp_bias = biases & 4;
            pb_layout l = {0};
            accept(pb_model_layout(&l, &c));
            size_t values = 0, bias = 0;
            unsigned found = 0;
            for (size_t i = 0; i < l.n; i++) {
                const pb_spec *s = &l.spec[i];
                values += s->rows * s->cols;
                bias += strstr(s->name, ".bias") != NULL;
                for (size_t k = 0; k < sizeof some / sizeof *some; k++)
                    if (!strcmp(s->name, some[k].name))
                        found |= 1u << k;
            }
            assert_int_equal(values, pb_config_params(&c));
            assert_int_equal(bias,
                             5 * (3 * (biases & 1) + (biases & 2) / 2 + 3 * (biases & 4) / 4));
            for (size_t k = 0; k < sizeof some / sizeof *some; k++)
                assert_int_equal(found >> k & 1, some[k].families >> f & 1);
            pb_layout_free(&l);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),   cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_llama),    cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_qwen),     cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_check),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_geometry), cmocka_unit_test(test_params),
        cmocka_unit_test(test_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
