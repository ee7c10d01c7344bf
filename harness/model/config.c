// Reading and writing `config.json` of a Hugging Face model folder.
//
// The rule: what changes the computation is either represented in pb_config or refused by name.
// Defaults for absent keys are those of the Hugging Face configuration classes, because files
// written by that library leave out what equals the class's default.
#include "model/config.h"

#include <math.h>
#include <string.h>

// Upper limits keep every product of two or three dimensions, times the number of layers and the
// size of an element, far below 2^64; the largest published models are well inside.
enum {
    MAX_VOCAB = 1 << 24,
    MAX_WIDTH = 1 << 20,
    MAX_FFN = 1 << 22,
    MAX_LAYERS = 1 << 12,
    MAX_HEADS = 1 << 12,
    MAX_HEAD_DIM = 1 << 12,
    MAX_CONTEXT = 1 << 30
};

typedef struct family {
    const char *architecture, *model_type;
    bool attention_bias;        // q, k and v always have biases
    int64_t bos, eos;           // when the key is absent; -1 means none
    int64_t window;             // attention window when the key is absent; 0 means none
    const char *window_enabled; // the key that switches the window on; NULL: always on
} family;

static const family families[] = {
    {"LlamaForCausalLM", "llama", false, 1, 2, 0, NULL},
    {"MistralForCausalLM", "mistral", false, 1, 2, 4096, NULL},
    {"Qwen2ForCausalLM", "qwen2", true, -1, -1, 4096, "use_sliding_window"},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static const char *const gate_names[] = {
    [PB_GATE_SILU] = "silu", [PB_GATE_GELU_TANH] = "gelu_pytorch_tanh"};
enum { N_GATES = sizeof gate_names / sizeof *gate_names };

size_t pb_config_params(const pb_config *c)
{
    size_t q = pb_q_width(c), kv = pb_kv_width(c);
    size_t attention = c->width * (2 * q + 2 * kv) + (c->attention_bias ? q + 2 * kv : 0);
    size_t layer = 2 * c->width + attention + 3 * c->width * c->ffn;
    return c->vocab * c->width * (c->tied ? 1 : 2) + c->layers * layer + c->width;
}

static pb_err check_range(const char *name, size_t value, size_t max)
{
    if (value < 1 || value > max)
        return pb_fail(PB_INPUT, NULL, "%s is %zu, outside 1..%zu", name, value, max);
    return PB_OK;
}

static pb_err check_id(const char *name, int64_t id, const pb_config *c)
{
    if (id < 0 || (uint64_t)id >= c->vocab)
        return pb_fail(PB_INPUT, NULL, "%s is %lld, outside the vocabulary 0..%zu", name,
                       (long long)id, c->vocab - 1);
    return PB_OK;
}

pb_err pb_config_check(const pb_config *c)
{
    PB_TRY(check_range("vocab_size", c->vocab, MAX_VOCAB));
    PB_TRY(check_range("hidden_size", c->width, MAX_WIDTH));
    PB_TRY(check_range("intermediate_size", c->ffn, MAX_FFN));
    PB_TRY(check_range("num_hidden_layers", c->layers, MAX_LAYERS));
    PB_TRY(check_range("num_attention_heads", c->heads, MAX_HEADS));
    PB_TRY(check_range("num_key_value_heads", c->kv_heads, MAX_HEADS));
    PB_TRY(check_range("head_dim", c->head_dim, MAX_HEAD_DIM));
    PB_TRY(check_range("max_position_embeddings", c->context, MAX_CONTEXT));
    if (c->heads % c->kv_heads)
        return pb_fail(PB_INPUT, NULL,
                       "num_attention_heads %zu is not a multiple of num_key_value_heads %zu",
                       c->heads, c->kv_heads);
    if (c->head_dim % 2)
        return pb_fail(PB_INPUT, "rotary positions turn pairs of values",
                       "head_dim is %zu, which is odd", c->head_dim);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return pb_fail(PB_INPUT, NULL, "rms_norm_eps is %g, outside 0..1", c->norm_eps);
    if (!(c->rope_theta > 0 && isfinite(c->rope_theta)))
        return pb_fail(PB_INPUT, NULL, "rope_theta is %g, which is not a positive number",
                       c->rope_theta);
    if ((size_t)c->gate >= N_GATES)
        return pb_fail(PB_INPUT, NULL, "the gate's activation is number %d, which is unknown",
                       (int)c->gate);
    if (c->bos != -1)
        PB_TRY(check_id("bos_token_id", c->bos, c));
    if (c->n_eos > PB_MAX_EOS)
        return pb_fail(PB_INPUT, NULL, "eos_token_id has %zu values, more than %d", c->n_eos,
                       PB_MAX_EOS);
    for (size_t i = 0; i < c->n_eos; i++)
        PB_TRY(check_id("eos_token_id", c->eos[i], c));
    if (!memchr(c->tokenizer, 0, sizeof c->tokenizer))
        return pb_fail(PB_INPUT, NULL, "pb_tokenizer is longer than %zu bytes",
                       sizeof c->tokenizer - 1);
    if (strchr(c->tokenizer, '/') || strcmp(c->tokenizer, "..") == 0)
        return pb_fail(PB_INPUT, "put the tokenizer's file into the model folder",
                       "pb_tokenizer is \"%s\", which is not a plain file name", c->tokenizer);
    return PB_OK;
}

static bool present(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

static pb_err find_family(const family **out, const json_t *j)
{
    const json_t *list = json_object_get(j, "architectures");
    const char *name = NULL;
    if (list && !json_is_null(list)) {
        if (!json_is_array(list) || json_array_size(list) != 1 ||
            !json_is_string(json_array_get(list, 0)))
            return pb_fail(PB_INPUT, NULL, "\"architectures\" must be a list of one string");
        name = json_string_value(json_array_get(list, 0));
    }
    const char *type = NULL;
    PB_TRY(pb_json_opt_str(j, "model_type", &type));
    if (!name && !type)
        return pb_fail(PB_INPUT, "is this the config.json of a model folder?",
                       "the keys \"architectures\" and \"model_type\" are both missing");
    const char *known = "known are LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM";
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const family *f = &families[i];
        if (strcmp(name ? name : type, name ? f->architecture : f->model_type) != 0)
            continue;
        if (type && strcmp(type, f->model_type) != 0)
            return pb_fail(PB_INPUT, NULL, "\"model_type\" is \"%.100s\", but %s has \"%s\"", type,
                           f->architecture, f->model_type);
        *out = f;
        return PB_OK;
    }
    return pb_fail(PB_UNSUPPORTED, known, "the architecture \"%.100s\" is not known",
                   name ? name : type);
}

static pb_err read_size(const json_t *j, const char *key, size_t *out, int64_t max)
{
    int64_t x = 0;
    PB_TRY(pb_json_int(j, key, &x, 1, max));
    *out = (size_t)x;
    return PB_OK;
}

static pb_err read_opt_size(const json_t *j, const char *key, size_t *out, int64_t max)
{
    return present(j, key) ? read_size(j, key, out, max) : PB_OK;
}

// `rope_scaling` of older files and `rope_parameters` of newer ones. *theta is 0 until known.
static pb_err read_rope(const json_t *j, const char *key, double *theta)
{
    if (!present(j, key))
        return PB_OK;
    const json_t *rope = json_object_get(j, key);
    if (!json_is_object(rope))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be an object or null", key);
    static const char *const type_keys[] = {"rope_type", "type"};
    for (size_t i = 0; i < 2; i++) {
        const char *type = "default";
        PB_TRY(pb_json_opt_str(rope, type_keys[i], &type));
        if (strcmp(type, "default") != 0)
            return pb_fail(PB_UNSUPPORTED, "only unscaled rotary positions are supported",
                           "the rope type \"%.100s\" of \"%s\" is not known", type, key);
    }
    static const char *const known[] = {"rope_type", "type", "rope_theta", "partial_rotary_factor",
                                        NULL};
    PB_TRY(pb_json_only(rope, known, key));
    double part = 1, own = 0;
    PB_TRY(pb_json_opt_real(rope, "partial_rotary_factor", &part, 0, 1));
    if (part != 1)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"partial_rotary_factor\" is %g, not 1", part);
    PB_TRY(pb_json_opt_real(rope, "rope_theta", &own, 1e-3, 1e300));
    if (own != 0 && *theta != 0 && own != *theta)
        return pb_fail(PB_INPUT, NULL, "rope_theta is %g at one place and %g in \"%s\"", *theta,
                       own, key);
    if (own != 0)
        *theta = own;
    return PB_OK;
}

// A window that never closes within the context changes nothing; a smaller one is refused.
static pb_err check_window(const json_t *j, const family *f, size_t context)
{
    const json_t *types = json_object_get(j, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0)
            return pb_fail(PB_UNSUPPORTED, NULL, "\"layer_types\" has \"%.100s\" at layer %zu",
                           type ? type : "(no string)", i);
    }
    bool enabled = f->window > 0;
    if (f->window_enabled) {
        enabled = false;
        PB_TRY(pb_json_opt_bool(j, f->window_enabled, &enabled));
    }
    if (!enabled || (json_object_get(j, "sliding_window") && !present(j, "sliding_window")))
        return PB_OK;
    int64_t window = f->window;
    PB_TRY(pb_json_opt_int(j, "sliding_window", &window, 1, INT64_MAX));
    if ((uint64_t)window < context)
        return pb_fail(PB_UNSUPPORTED,
                       "write \"sliding_window\": null, or shorten max_position_embeddings to it",
                       "\"sliding_window\" is %lld%s, less than the context %zu", (long long)window,
                       present(j, "sliding_window") ? "" : " (by default)", context);
    return PB_OK;
}

// What the backbone cannot compute and a file can ask for.
static pb_err refuse_unsupported(const json_t *j, const family *f)
{
    bool attention_bias = f->attention_bias, mlp_bias = false;
    PB_TRY(pb_json_opt_bool(j, "attention_bias", &attention_bias));
    if (attention_bias && !f->attention_bias)
        return pb_fail(PB_UNSUPPORTED, "biases of q, k and v alone are those of Qwen2ForCausalLM",
                       "\"attention_bias\" of %s includes o_proj, which has no bias here",
                       f->architecture);
    if (!attention_bias && f->attention_bias)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"attention_bias\" is false, but %s has biases",
                       f->architecture);
    PB_TRY(pb_json_opt_bool(j, "mlp_bias", &mlp_bias));
    if (mlp_bias)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"mlp_bias\" is true");
    double part = 1;
    PB_TRY(pb_json_opt_real(j, "partial_rotary_factor", &part, 0, 1));
    if (part != 1)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"partial_rotary_factor\" is %g, not 1", part);
    if (present(j, "quantization_config"))
        return pb_fail(PB_UNSUPPORTED, "use the unquantised model",
                       "\"quantization_config\" is present");
    return PB_OK;
}

static pb_err read_gate(const json_t *j, pb_gate *out)
{
    const char *name = gate_names[PB_GATE_SILU];
    PB_TRY(pb_json_opt_str(j, "hidden_act", &name));
    for (size_t i = 0; i < N_GATES; i++) {
        if (strcmp(name, gate_names[i]) == 0) {
            *out = (pb_gate)i;
            return PB_OK;
        }
    }
    return pb_fail(PB_UNSUPPORTED, "known are silu and gelu_pytorch_tanh",
                   "the activation \"%.100s\" is not known", name);
}

static pb_err read_special(pb_config *c, const json_t *j, const family *f)
{
    int64_t id = json_object_get(j, "bos_token_id") ? -1 : f->bos;
    PB_TRY(pb_json_opt_int(j, "bos_token_id", &id, -1, INT32_MAX));
    c->bos = (int32_t)id;

    const json_t *eos = json_object_get(j, "eos_token_id");
    c->n_eos = 0;
    if (json_is_array(eos)) {
        if (json_array_size(eos) > PB_MAX_EOS)
            return pb_fail(PB_UNSUPPORTED, NULL, "\"eos_token_id\" has %zu values, more than %d",
                           json_array_size(eos), PB_MAX_EOS);
        for (size_t i = 0; i < json_array_size(eos); i++) {
            const json_t *v = json_array_get(eos, i);
            if (!json_is_integer(v))
                return pb_fail(PB_INPUT, NULL, "\"eos_token_id\" must hold integers");
            PB_TRY(check_id("eos_token_id", json_integer_value(v), c));
            c->eos[c->n_eos++] = (int32_t)json_integer_value(v);
        }
        return PB_OK;
    }
    id = eos ? -1 : f->eos;
    PB_TRY(pb_json_opt_int(j, "eos_token_id", &id, 0, INT32_MAX));
    if (id >= 0)
        c->eos[c->n_eos++] = (int32_t)id;
    return PB_OK;
}

pb_err pb_config_from_json(pb_config *c, const json_t *j)
{
    *c = (pb_config){0};
    if (!json_is_object(j))
        return pb_fail(PB_INPUT, NULL, "a model's configuration must be a JSON object");
    const family *f = NULL;
    PB_TRY(find_family(&f, j));
    PB_TRY(refuse_unsupported(j, f));
    c->attention_bias = f->attention_bias;

    PB_TRY(read_size(j, "vocab_size", &c->vocab, MAX_VOCAB));
    PB_TRY(read_size(j, "hidden_size", &c->width, MAX_WIDTH));
    PB_TRY(read_size(j, "intermediate_size", &c->ffn, MAX_FFN));
    PB_TRY(read_size(j, "num_hidden_layers", &c->layers, MAX_LAYERS));
    PB_TRY(read_size(j, "num_attention_heads", &c->heads, MAX_HEADS));
    PB_TRY(read_size(j, "max_position_embeddings", &c->context, MAX_CONTEXT));
    c->kv_heads = c->heads;
    PB_TRY(read_opt_size(j, "num_key_value_heads", &c->kv_heads, MAX_HEADS));
    if (!present(j, "head_dim") && c->width % c->heads)
        return pb_fail(PB_INPUT, "add \"head_dim\" if the model's heads have a width of their own",
                       "hidden_size %zu is not a multiple of num_attention_heads %zu", c->width,
                       c->heads);
    c->head_dim = c->width / c->heads;
    PB_TRY(read_opt_size(j, "head_dim", &c->head_dim, MAX_HEAD_DIM));
    PB_TRY(check_window(j, f, c->context));

    c->norm_eps = 1e-6;
    PB_TRY(pb_json_opt_real(j, "rms_norm_eps", &c->norm_eps, 0, 1));
    PB_TRY(pb_json_opt_real(j, "rope_theta", &c->rope_theta, 1e-3, 1e300));
    PB_TRY(read_rope(j, "rope_scaling", &c->rope_theta));
    PB_TRY(read_rope(j, "rope_parameters", &c->rope_theta));
    if (c->rope_theta == 0)
        c->rope_theta = 10000;

    PB_TRY(pb_json_opt_bool(j, "tie_word_embeddings", &c->tied));
    PB_TRY(read_gate(j, &c->gate));
    PB_TRY(read_special(c, j, f));

    const char *tokenizer = "";
    PB_TRY(pb_json_opt_str(j, "pb_tokenizer", &tokenizer));
    if (strlen(tokenizer) >= sizeof c->tokenizer)
        return pb_fail(PB_INPUT, "rename the tokenizer's file",
                       "\"pb_tokenizer\" is \"%.100s\", longer than %zu bytes", tokenizer,
                       sizeof c->tokenizer - 1);
    memcpy(c->tokenizer, tokenizer, strlen(tokenizer) + 1);
    return pb_config_check(c);
}

// One end token as a number, several as a list, none as null.
static json_t *eos_to_json(const pb_config *c)
{
    if (c->n_eos == 0)
        return json_null();
    if (c->n_eos == 1)
        return json_integer(c->eos[0]);
    json_t *list = json_array();
    for (size_t i = 0; i < c->n_eos && i < PB_MAX_EOS; i++)
        json_array_append_new(list, json_integer(c->eos[i]));
    return list;
}

json_t *pb_config_to_json(const pb_config *c)
{
    // Qwen2 is the family whose q, k and v alone have biases.
    const family *f = &families[c->attention_bias ? 2 : 0];
    json_t *j =
        json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:s, s:o}",
                  "architectures", f->architecture, "model_type", f->model_type, //
                  "vocab_size", (json_int_t)c->vocab,                            //
                  "hidden_size", (json_int_t)c->width,                           //
                  "intermediate_size", (json_int_t)c->ffn,                       //
                  "num_hidden_layers", (json_int_t)c->layers,                    //
                  "num_attention_heads", (json_int_t)c->heads,                   //
                  "num_key_value_heads", (json_int_t)c->kv_heads,                //
                  "head_dim", (json_int_t)c->head_dim,                           //
                  "max_position_embeddings", (json_int_t)c->context,             //
                  "rms_norm_eps", c->norm_eps,                                   //
                  "rope_theta", c->rope_theta,                                   //
                  "tie_word_embeddings", (int)c->tied,                           //
                  "hidden_act", gate_names[c->gate],                             //
                  "eos_token_id", eos_to_json(c));
    if (!j)
        return NULL;
    int bad =
        json_object_set_new(j, "bos_token_id", c->bos < 0 ? json_null() : json_integer(c->bos));
    if (c->attention_bias)
        bad |= json_object_set_new(j, "use_sliding_window", json_false());
    else
        bad |= json_object_set_new(j, "attention_bias", json_false());
    if (c->tokenizer[0])
        bad |= json_object_set_new(j, "pb_tokenizer", json_string(c->tokenizer));
    if (bad) {
        json_decref(j);
        return NULL;
    }
    return j;
}
