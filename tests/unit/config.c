// config.json: values read, defaults, round trip, and every refusal by its sentence.
#include "model/config.h"
#include <setjmp.h>
#include <stdarg.h>
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
    assert_false(c.attention_bias);
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

static void test_families(void **state)
{
    (void)state;
    pb_config c;
    const change mistral = {"architectures", "[\"MistralForCausalLM\"]"};
    const change type = {"model_type", "\"mistral\""};
    accept(READ(&c, mistral, type, {"sliding_window", "null"}));
    accept(READ(&c, mistral, type, {"sliding_window", "512"}));
    accept(READ(&c, mistral, type)); // 4096 by default, more than the context of 512
    accept(
        READ(&c, mistral, type, {"sliding_window", "null"}, {"max_position_embeddings", "32768"}));
    const change qwen = {"architectures", "[\"Qwen2ForCausalLM\"]"};
    const change qwen_type = {"model_type", "\"qwen2\""};
    accept(READ(&c, qwen, qwen_type, {"sliding_window", "16"}, {"use_sliding_window", "false"},
                {"bos_token_id", NULL}, {"eos_token_id", NULL},
                {"layer_types", "[\"full_attention\"]"}));
    assert_true(c.attention_bias);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.n_eos, 0);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        change change[3];
        pb_err code;
        const char *message; // a part of it
    } cases[] = {
        {{{"architectures", "[\"GPT2LMHeadModel\"]"}}, PB_UNSUPPORTED, "GPT2LMHeadModel"},
        {{{"architectures", NULL}, {"model_type", "\"gemma\""}}, PB_UNSUPPORTED, "gemma"},
        {{{"architectures", NULL}, {"model_type", NULL}}, PB_INPUT, "both missing"},
        {{{"architectures", "[]"}}, PB_INPUT, "architectures"},
        {{{"architectures", "\"LlamaForCausalLM\""}}, PB_INPUT, "architectures"},
        {{{"architectures", "[1]"}}, PB_INPUT, "architectures"},
        {{{"model_type", "\"qwen2\""}}, PB_INPUT, "qwen2"},
        {{{"hidden_act", "\"relu\""}}, PB_UNSUPPORTED, "relu"},
        {{{"hidden_act", "3"}}, PB_INPUT, "hidden_act"},
        {{{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}"}}, PB_UNSUPPORTED, "llama3"},
        {{{"rope_scaling", "{\"type\":\"linear\",\"factor\":2}"}}, PB_UNSUPPORTED, "linear"},
        {{{"rope_parameters", "{\"rope_type\":\"yarn\"}"}}, PB_UNSUPPORTED, "yarn"},
        {{{"rope_scaling", "{\"factor\":2}"}}, PB_INPUT, "factor"},
        {{{"rope_scaling", "[1]"}}, PB_INPUT, "rope_scaling"},
        {{{"rope_theta", "1e4"}, {"rope_parameters", "{\"rope_theta\":5e4}"}}, PB_INPUT, "50000"},
        {{{"rope_theta", "0"}}, PB_INPUT, "rope_theta"},
        {{{"rope_theta", "-3"}}, PB_INPUT, "rope_theta"},
        {{{"partial_rotary_factor", "0.5"}}, PB_UNSUPPORTED, "0.5"},
        {{{"rope_parameters", "{\"partial_rotary_factor\":0.5}"}}, PB_UNSUPPORTED, "0.5"},
        {{{"attention_bias", "true"}}, PB_UNSUPPORTED, "attention_bias"},
        {{{"mlp_bias", "true"}}, PB_UNSUPPORTED, "mlp_bias"},
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
        {{{"architectures", "[\"MistralForCausalLM\"]"},
          {"model_type", NULL},
          {"sliding_window", "511"}},
         PB_UNSUPPORTED,
         "511"},
        {{{"architectures", "[\"MistralForCausalLM\"]"},
          {"model_type", NULL},
          {"max_position_embeddings", "8192"}},
         PB_UNSUPPORTED,
         "4096 (by default)"},
        {{{"layer_types", "[\"full_attention\",\"sliding_attention\"]"}},
         PB_UNSUPPORTED,
         "sliding_attention"},
        {{{"architectures", "[\"Qwen2ForCausalLM\"]"},
          {"model_type", NULL},
          {"attention_bias", "false"}},
         PB_UNSUPPORTED,
         "attention_bias"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_config c;
        pb_err err = read_with(&c, cases[i].change, 3);
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
    BREAK(c.n_eos = PB_MAX_EOS + 1, "eos_token_id");
    BREAK(memset(c.tokenizer, 'a', sizeof c.tokenizer), "pb_tokenizer");
#undef BREAK
}

// What is written is read back, key by key, and is what Hugging Face's classes expect.
static void test_round_trip(void **state)
{
    (void)state;
    for (int variant = 0; variant < 3; variant++) {
        pb_config c, d;
        if (variant == 0)
            accept(READ(&c, {"eos_token_id", "[2, 5]"}, {"rms_norm_eps", "1.0000000000000001e-05"},
                        {"rope_theta", "123456.78901234567"}, {"pb_tokenizer", "\"bytes\""}));
        else if (variant == 1)
            accept(READ(&c, {"architectures", "[\"Qwen2ForCausalLM\"]"}, {"model_type", NULL},
                        {"tie_word_embeddings", "true"}, {"eos_token_id", "null"},
                        {"bos_token_id", "null"}, {"hidden_act", "\"gelu_pytorch_tanh\""}));
        else
            accept(READ(&c, {"architectures", "[\"MistralForCausalLM\"]"}, {"model_type", NULL},
                        {"sliding_window", "null"}, {"max_position_embeddings", "32768"},
                        {"num_key_value_heads", "4"}, {"head_dim", "128"}));
        json_t *j = pb_config_to_json(&c);
        assert_non_null(j);
        char *text = json_dumps(j, 0);
        json_decref(j);
        accept(pb_json_parse(&j, text, strlen(text), "round trip"));
        free(text);
        accept(pb_config_from_json(&d, j));
        assert_int_equal(c.vocab, d.vocab);
        assert_int_equal(c.width, d.width);
        assert_int_equal(c.ffn, d.ffn);
        assert_int_equal(c.layers, d.layers);
        assert_int_equal(c.heads, d.heads);
        assert_int_equal(c.kv_heads, d.kv_heads);
        assert_int_equal(c.head_dim, d.head_dim);
        assert_int_equal(c.context, d.context);
        assert_true(c.norm_eps == d.norm_eps && c.rope_theta == d.rope_theta);
        assert_int_equal(c.tied, d.tied);
        assert_int_equal(c.attention_bias, d.attention_bias);
        assert_int_equal(c.gate, d.gate);
        assert_int_equal(c.bos, d.bos);
        assert_int_equal(c.n_eos, d.n_eos);
        assert_memory_equal(c.eos, d.eos, sizeof c.eos);
        assert_string_equal(c.tokenizer, d.tokenizer);
        const char *architecture =
            json_string_value(json_array_get(json_object_get(j, "architectures"), 0));
        assert_string_equal(architecture, variant == 1 ? "Qwen2ForCausalLM" : "LlamaForCausalLM");
        json_decref(j);
    }
}

// Published sizes: Llama-2-7B, Llama-3.2-3B (tied), Qwen2-0.5B (tied, biases).
static void test_params(void **state)
{
    (void)state;
    pb_config llama2 = {.vocab = 32000,
                        .width = 4096,
                        .ffn = 11008,
                        .layers = 32,
                        .heads = 32,
                        .kv_heads = 32,
                        .head_dim = 128};
    assert_int_equal(pb_config_params(&llama2), 6738415616);
    pb_config llama3 = {.vocab = 128256,
                        .width = 3072,
                        .ffn = 8192,
                        .layers = 28,
                        .heads = 24,
                        .kv_heads = 8,
                        .head_dim = 128,
                        .tied = true};
    assert_int_equal(pb_config_params(&llama3), 3212749824);
    pb_config qwen = {.vocab = 151936,
                      .width = 896,
                      .ffn = 4864,
                      .layers = 24,
                      .heads = 14,
                      .kv_heads = 2,
                      .head_dim = 64,
                      .tied = true,
                      .attention_bias = true};
    assert_int_equal(pb_config_params(&qwen), 494032768);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),   cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_families), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_check),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_params),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
