// Reading and writing `config.json` of a Hugging Face model folder.
//
// The rule: what changes the computation is either represented in pb_config or refused by name.
// Defaults for absent keys are those of the Hugging Face configuration classes, because files
// written by that library leave out what equals the class's default.
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Upper limits keep every product of two or three dimensions, times the number of layers and the
// size of an element, far below 2^64; the largest published models are well inside.
enum {
    MAX_VOCAB = 1 << 24,
    MAX_WIDTH = 1 << 20,
    MAX_FFN = 1 << 22,
    MAX_HEADS = 1 << 12,
    MAX_HEAD_DIM = 1 << 12,
    MAX_CONTEXT = 1 << 30
};

// Which layers have a window when the file does not list them.
typedef enum windows { NO_WINDOWS, ALL_LAYERS, UPPER_LAYERS, EVEN_LAYERS } windows;
// Biases of q, k, v and o: none, of q, k and v always, or all four by the key "attention_bias".
typedef enum biases { NO_BIAS, QKV_BIAS, BIAS_BY_KEY } biases;

typedef struct family {
    const char *architecture, *model_type;
    biases attention;
    bool mlp_by_key; // "mlp_bias" is a key of the family
    bool qk_norm, post_norms;
    bool gemma; // norms by 1 + weight, scaled embeddings, "hidden_activation", tied by default
    bool caps;  // soft caps and query_pre_attn_scalar
    windows windows;
    int64_t bos, eos;       // when the key is absent; -1 means none
    int64_t kv_heads;       // when the key is absent; 0: as many as heads
    int64_t head_dim;       // when the key is absent; 0: width / heads
    const char *switch_key; // what switches the window on; NULL: always on
} family;

static const family families[PB_N_FAMILIES] = {
    [PB_LLAMA] = {.architecture = "LlamaForCausalLM",
                  .model_type = "llama",
                  .attention = BIAS_BY_KEY,
                  .mlp_by_key = true,
                  .bos = 1,
                  .eos = 2},
    [PB_MISTRAL] = {.architecture = "MistralForCausalLM",
                    .model_type = "mistral",
                    .windows = ALL_LAYERS,
                    .bos = 1,
                    .eos = 2,
                    .kv_heads = 8},
    [PB_QWEN2] = {.architecture = "Qwen2ForCausalLM",
                  .model_type = "qwen2",
                  .attention = QKV_BIAS,
                  .windows = UPPER_LAYERS,
                  .switch_key = "use_sliding_window",
                  .bos = -1,
                  .eos = -1,
                  .kv_heads = 32},
    [PB_QWEN3] = {.architecture = "Qwen3ForCausalLM",
                  .model_type = "qwen3",
                  .attention = BIAS_BY_KEY,
                  .qk_norm = true,
                  .windows = UPPER_LAYERS,
                  .switch_key = "use_sliding_window",
                  .bos = -1,
                  .eos = -1,
                  .kv_heads = 32,
                  .head_dim = 128},
    [PB_GEMMA] = {.architecture = "GemmaForCausalLM",
                  .model_type = "gemma",
                  .attention = BIAS_BY_KEY,
                  .gemma = true,
                  .bos = 2,
                  .eos = 1,
                  .kv_heads = 16,
                  .head_dim = 256},
    [PB_GEMMA2] = {.architecture = "Gemma2ForCausalLM",
                   .model_type = "gemma2",
                   .attention = BIAS_BY_KEY,
                   .gemma = true,
                   .post_norms = true,
                   .caps = true,
                   .windows = EVEN_LAYERS,
                   .bos = 2,
                   .eos = 1,
                   .kv_heads = 4,
                   .head_dim = 256},
};
static const char families_hint[] =
    "known are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
    "GemmaForCausalLM and Gemma2ForCausalLM";

// The first name of a gate is the one that is written.
static const struct {
    const char *name;
    pb_gate gate;
} gates[] = {
    {"silu", PB_GATE_SILU},
    {"swish", PB_GATE_SILU},
    {"gelu_pytorch_tanh", PB_GATE_GELU_TANH},
    {"gelu_new", PB_GATE_GELU_TANH},
    {"gelu_fast", PB_GATE_GELU_TANH},
    {"gelu", PB_GATE_GELU},
};
enum { N_GATES = sizeof gates / sizeof *gates };

static const char *gate_name(pb_gate gate)
{
    for (size_t i = 0; i < N_GATES; i++)
        if (gates[i].gate == gate)
            return gates[i].name;
    return NULL;
}

// ---------------------------------------------------------------- families and derived values

const char *pb_family_name(pb_family f)
{
    return families[f].model_type;
}

pb_err pb_family_find(pb_family *out, const char *model_type)
{
    for (int i = 0; i < PB_N_FAMILIES; i++)
        if (strcmp(families[i].model_type, model_type) == 0) {
            *out = (pb_family)i;
            return PB_OK;
        }
    return pb_fail(PB_UNSUPPORTED, "known are llama, mistral, qwen2, qwen3, gemma and gemma2",
                   "the model type \"%.100s\" is not known", model_type);
}

void pb_config_set_windowed(pb_config *c, size_t layer, bool on)
{
    uint64_t bit = (uint64_t)1 << layer % 64;
    c->windowed[layer / 64] = on ? c->windowed[layer / 64] | bit : c->windowed[layer / 64] & ~bit;
}

// What the family fixes; also what pb_config_check compares with.
static void set_fixed(pb_config *c, const family *f)
{
    if (f->attention != BIAS_BY_KEY) {
        c->qkv_bias = f->attention == QKV_BIAS;
        c->o_bias = false;
    }
    if (!f->mlp_by_key)
        c->mlp_bias = false;
    c->qk_norm = f->qk_norm;
    c->post_norms = f->post_norms;
    c->norm_offset = c->embed_scaled = f->gemma;
    if (!f->caps)
        c->attn_cap = c->final_cap = c->score_scalar = 0;
    if (f->windows == NO_WINDOWS) {
        c->window = 0;
        memset(c->windowed, 0, sizeof c->windowed);
    }
}

void pb_config_set_family(pb_config *c, pb_family id)
{
    const family *f = &families[id];
    c->family = id;
    c->rope = (pb_rope_scaling){0};
    c->tied = f->gemma;
    c->qkv_bias = c->o_bias = c->mlp_bias = false;
    c->gate = f->gemma ? PB_GATE_GELU_TANH : PB_GATE_SILU;
    c->attn_cap = f->caps ? 50 : 0;
    c->final_cap = f->caps ? 30 : 0;
    c->score_scalar = f->caps ? 256 : 0;
    c->window = 0;
    memset(c->windowed, 0, sizeof c->windowed);
    set_fixed(c, f);
}

// Sources: linear, S. Chen et al. 2023 (2306.15595); llama3, the Llama 3.1 release: long waves are
// stretched by the factor, short ones are not, those between by a mixture.
void pb_config_inv_freq(const pb_config *c, double *out)
{
    const pb_rope_scaling *r = &c->rope;
    for (size_t k = 0; k < c->head_dim / 2; k++) {
        double f = pow(c->rope_theta, -2.0 * (double)k / (double)c->head_dim);
        if (r->kind == PB_ROPE_LINEAR) {
            f /= r->factor;
        } else if (r->kind == PB_ROPE_LLAMA3) {
            double waves = (double)r->original * f / (2 * 3.14159265358979323846);
            double keep = (waves - r->low) / (r->high - r->low);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            f = keep * f + (1 - keep) * f / r->factor;
        }
        out[k] = f;
    }
}

size_t pb_config_params(const pb_config *c)
{
    size_t C = c->width, F = c->ffn, q = pb_q_width(c), kv = pb_kv_width(c);
    size_t layer = C * (2 * q + 2 * kv) + 3 * C * F + (c->post_norms ? 4 : 2) * C;
    layer += (c->qkv_bias ? q + 2 * kv : 0) + (c->o_bias ? C : 0) + (c->mlp_bias ? 2 * F + C : 0);
    layer += c->qk_norm ? 2 * c->head_dim : 0;
    return c->vocab * C * (c->tied ? 1 : 2) + c->layers * layer + C;
}

// ---------------------------------------------------------------- checks

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

// 0, or a number that scores and logits can be divided by in single precision.
static pb_err check_positive(const char *name, double x)
{
    if (x != 0 && !(x >= 1e-3 && x <= 1e9))
        return pb_fail(PB_INPUT, NULL, "%s is %g, outside 0.001..1e9", name, x);
    return PB_OK;
}

static pb_err check_rope(const pb_config *c)
{
    const pb_rope_scaling *r = &c->rope;
    if (!(c->rope_theta > 0 && isfinite(c->rope_theta)))
        return pb_fail(PB_INPUT, NULL, "rope_theta is %g, which is not a positive number",
                       c->rope_theta);
    if (r->kind == PB_ROPE_PLAIN)
        return PB_OK;
    if (r->kind != PB_ROPE_LINEAR && r->kind != PB_ROPE_LLAMA3)
        return pb_fail(PB_INPUT, NULL, "the rope type is number %d, which is unknown",
                       (int)r->kind);
    if (!(r->factor >= 1 && r->factor <= 1e6))
        return pb_fail(PB_INPUT, NULL, "the rope scaling's factor is %g, outside 1..1e6",
                       r->factor);
    if (r->kind == PB_ROPE_LINEAR)
        return PB_OK;
    if (!(r->low > 0 && r->low < r->high && r->high <= 1e6))
        return pb_fail(PB_INPUT, NULL,
                       "low_freq_factor %g and high_freq_factor %g are not positive and rising",
                       r->low, r->high);
    return check_range("original_max_position_embeddings", r->original, MAX_CONTEXT);
}

static pb_err check_windows(const pb_config *c, const family *f)
{
    size_t on = 0, beyond = 0;
    for (size_t i = 0; i < PB_MAX_LAYERS; i++) {
        size_t bit = c->windowed[i / 64] >> i % 64 & 1;
        *(i < c->layers ? &on : &beyond) += bit;
    }
    if (beyond || (on > 0) != (c->window > 0) || c->window > MAX_CONTEXT)
        return pb_fail(PB_INPUT, NULL, "sliding_window is %zu in %zu of %zu layers", c->window, on,
                       c->layers);
    if (f->windows == ALL_LAYERS && on && on < c->layers)
        return pb_fail(PB_INPUT, NULL,
                       "%s has a window in all layers or in none, not in %zu of %zu",
                       f->architecture, on, c->layers);
    return PB_OK;
}

static pb_err check_family(const pb_config *c)
{
    if ((size_t)c->family >= PB_N_FAMILIES)
        return pb_fail(PB_INPUT, NULL, "the family is number %d, which is unknown", (int)c->family);
    const family *f = &families[c->family];
    pb_config want = *c;
    set_fixed(&want, f);
    const char *odd = NULL;
    if (c->qkv_bias != want.qkv_bias || c->o_bias != want.o_bias ||
        (f->attention == BIAS_BY_KEY && c->qkv_bias != c->o_bias))
        odd = "these biases of q, k, v and o";
    else if (c->mlp_bias != want.mlp_bias)
        odd = "biases of gate, up and down";
    else if (c->qk_norm != want.qk_norm)
        odd = c->qk_norm ? "q and k norms" : "no q and k norms";
    else if (c->post_norms != want.post_norms)
        odd = c->post_norms ? "norms after the blocks" : "no norms after the blocks";
    else if (c->norm_offset != want.norm_offset)
        odd = c->norm_offset ? "norms by 1 + weight" : "norms by the weight itself";
    else if (c->embed_scaled != want.embed_scaled)
        odd = c->embed_scaled ? "scaled embeddings" : "unscaled embeddings";
    else if (c->attn_cap != want.attn_cap || c->final_cap != want.final_cap)
        odd = "soft caps";
    else if (c->score_scalar != want.score_scalar)
        odd = "query_pre_attn_scalar";
    else if (c->window != want.window)
        odd = "windows";
    if (odd)
        return pb_fail(PB_INPUT, "pb_config_set_family sets what a family fixes",
                       "%s cannot have %s", f->architecture, odd);
    return check_windows(c, f);
}

pb_err pb_config_check(const pb_config *c)
{
    PB_TRY(check_range("vocab_size", c->vocab, MAX_VOCAB));
    PB_TRY(check_range("hidden_size", c->width, MAX_WIDTH));
    PB_TRY(check_range("intermediate_size", c->ffn, MAX_FFN));
    PB_TRY(check_range("num_hidden_layers", c->layers, PB_MAX_LAYERS));
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
    PB_TRY(check_rope(c));
    if (!gate_name(c->gate))
        return pb_fail(PB_INPUT, NULL, "the gate's activation is number %d, which is unknown",
                       (int)c->gate);
    PB_TRY(check_positive("attn_logit_softcapping", c->attn_cap));
    PB_TRY(check_positive("final_logit_softcapping", c->final_cap));
    PB_TRY(check_positive("query_pre_attn_scalar", c->score_scalar));
    PB_TRY(check_family(c));
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

// ---------------------------------------------------------------- reading

static bool present(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

static pb_err find_family(pb_family *out, const json_t *j)
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
    for (int i = 0; i < PB_N_FAMILIES; i++) {
        const family *f = &families[i];
        if (strcmp(name ? name : type, name ? f->architecture : f->model_type) != 0)
            continue;
        if (type && strcmp(type, f->model_type) != 0)
            return pb_fail(PB_INPUT, NULL, "\"model_type\" is \"%.100s\", but %s has \"%s\"", type,
                           f->architecture, f->model_type);
        *out = (pb_family)i;
        return PB_OK;
    }
    return pb_fail(PB_UNSUPPORTED, families_hint, "the architecture \"%.100s\" is not known",
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

// Heads, and their width.
static pb_err read_heads(pb_config *c, const json_t *j, const family *f)
{
    PB_TRY(read_size(j, "num_attention_heads", &c->heads, MAX_HEADS));
    c->kv_heads = c->heads;
    if (f->kv_heads && !json_object_get(j, "num_key_value_heads"))
        c->kv_heads = (size_t)f->kv_heads;
    PB_TRY(read_opt_size(j, "num_key_value_heads", &c->kv_heads, MAX_HEADS));
    c->head_dim = c->width / c->heads;
    if (f->head_dim && !json_object_get(j, "head_dim"))
        c->head_dim = (size_t)f->head_dim;
    else if (!present(j, "head_dim") && c->width % c->heads)
        return pb_fail(PB_INPUT, "add \"head_dim\" if the model's heads have a width of their own",
                       "hidden_size %zu is not a multiple of num_attention_heads %zu", c->width,
                       c->heads);
    return read_opt_size(j, "head_dim", &c->head_dim, MAX_HEAD_DIM);
}

static pb_err read_rope_scaling(const json_t *rope, const char *key, pb_rope_scaling *out)
{
    const char *type = NULL, *old = NULL;
    PB_TRY(pb_json_opt_str(rope, "rope_type", &type));
    PB_TRY(pb_json_opt_str(rope, "type", &old));
    if (type && old && strcmp(type, old) != 0)
        return pb_fail(PB_INPUT, NULL, "\"%s\" has the types \"%.100s\" and \"%.100s\"", key, type,
                       old);
    type = type ? type : old ? old : "default";
    *out = (pb_rope_scaling){0};
    if (strcmp(type, "linear") == 0)
        out->kind = PB_ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        out->kind = PB_ROPE_LLAMA3;
    else if (strcmp(type, "default") != 0)
        return pb_fail(PB_UNSUPPORTED, "known are default, linear and llama3",
                       "the rope type \"%.100s\" of \"%s\" is not known", type, key);
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "partial_rotary_factor",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings",
                                        NULL};
    // Keys of another type are refused, not ignored: the list is cut after those of this one.
    const char *own[sizeof known / sizeof *known] = {0};
    memcpy(own, known,
           (out->kind == PB_ROPE_PLAIN    ? 4
            : out->kind == PB_ROPE_LINEAR ? 5
                                          : 8) *
               sizeof *known);
    PB_TRY(pb_json_only(rope, own, key));
    if (out->kind != PB_ROPE_PLAIN)
        PB_TRY(pb_json_real(rope, "factor", &out->factor, 1, 1e6));
    if (out->kind == PB_ROPE_LLAMA3) {
        PB_TRY(pb_json_real(rope, "low_freq_factor", &out->low, 1e-6, 1e6));
        PB_TRY(pb_json_real(rope, "high_freq_factor", &out->high, 1e-6, 1e6));
        PB_TRY(read_size(rope, "original_max_position_embeddings", &out->original, MAX_CONTEXT));
    }
    return PB_OK;
}

static bool same_rope(const pb_rope_scaling *a, const pb_rope_scaling *b)
{
    return a->kind == b->kind && a->factor == b->factor && a->low == b->low && a->high == b->high &&
           a->original == b->original;
}

// `rope_scaling` of older files and `rope_parameters` of newer ones. c->rope_theta is 0 until
// known.
static pb_err read_rope(pb_config *c, const json_t *j)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    bool found = false;
    PB_TRY(pb_json_opt_real(j, "rope_theta", &c->rope_theta, 1e-3, 1e300));
    for (size_t i = 0; i < 2; i++) {
        if (!present(j, keys[i]))
            continue;
        const json_t *rope = json_object_get(j, keys[i]);
        if (!json_is_object(rope))
            return pb_fail(PB_INPUT, NULL, "\"%s\" must be an object or null", keys[i]);
        pb_rope_scaling scaling;
        PB_TRY(read_rope_scaling(rope, keys[i], &scaling));
        if (found && !same_rope(&scaling, &c->rope))
            return pb_fail(PB_INPUT, NULL,
                           "\"rope_scaling\" and \"rope_parameters\" contradict each other");
        c->rope = scaling;
        found = true;
        double part = 1, own = 0;
        PB_TRY(pb_json_opt_real(rope, "partial_rotary_factor", &part, 0, 1));
        if (part != 1)
            return pb_fail(PB_UNSUPPORTED, NULL, "\"partial_rotary_factor\" is %g, not 1", part);
        PB_TRY(pb_json_opt_real(rope, "rope_theta", &own, 1e-3, 1e300));
        if (own != 0 && c->rope_theta != 0 && own != c->rope_theta)
            return pb_fail(PB_INPUT, NULL, "rope_theta is %g at one place and %g in \"%s\"",
                           c->rope_theta, own, keys[i]);
        if (own != 0)
            c->rope_theta = own;
    }
    if (c->rope_theta == 0)
        c->rope_theta = 10000;
    return PB_OK;
}

// The window, and the layers that have it: by the family's rule, or as "layer_types" lists them.
static pb_err read_windows(pb_config *c, const json_t *j, const family *f)
{
    bool enabled = f->windows != NO_WINDOWS;
    if (f->switch_key) {
        enabled = false;
        PB_TRY(pb_json_opt_bool(j, f->switch_key, &enabled));
    }
    // The class's default holds for an absent key; null switches the window off.
    int64_t window = json_object_get(j, "sliding_window") ? 0 : 4096;
    if (enabled)
        PB_TRY(pb_json_opt_int(j, "sliding_window", &window, 1, MAX_CONTEXT));
    enabled = enabled && window > 0;
    int64_t full = 28; // layers below it see everything
    if (f->windows == UPPER_LAYERS)
        PB_TRY(pb_json_opt_int(j, "max_window_layers", &full, 0, INT32_MAX));
    const json_t *types = json_object_get(j, "layer_types");
    if (types && !json_is_null(types) &&
        (!json_is_array(types) || json_array_size(types) != c->layers))
        return pb_fail(PB_INPUT, NULL, "\"layer_types\" must be a list of num_hidden_layers names");
    bool any = false;
    for (size_t i = 0; i < c->layers; i++) {
        bool on = f->windows == ALL_LAYERS || (f->windows == EVEN_LAYERS && i % 2 == 0) ||
                  (f->windows == UPPER_LAYERS && (int64_t)i >= full);
        on = on && enabled;
        if (json_is_array(types)) {
            const char *type = json_string_value(json_array_get(types, i));
            on = type && strcmp(type, "sliding_attention") == 0;
            if (!type || (!on && strcmp(type, "full_attention") != 0))
                return pb_fail(PB_UNSUPPORTED, "known are full_attention and sliding_attention",
                               "\"layer_types\" has \"%.100s\" at layer %zu",
                               type ? type : "(no string)", i);
            if (on && !enabled)
                return pb_fail(PB_INPUT, NULL,
                               "\"layer_types\" has \"sliding_attention\" at layer %zu, but %s "
                               "has no window here",
                               i, f->architecture);
        }
        pb_config_set_windowed(c, i, on);
        any |= on;
    }
    c->window = any ? (size_t)window : 0;
    return PB_OK;
}

static pb_err read_biases(pb_config *c, const json_t *j, const family *f)
{
    bool bias = f->attention == QKV_BIAS, mlp = false;
    PB_TRY(pb_json_opt_bool(j, "attention_bias", &bias));
    PB_TRY(pb_json_opt_bool(j, "mlp_bias", &mlp));
    if (f->attention != BIAS_BY_KEY && bias != (f->attention == QKV_BIAS))
        return pb_fail(PB_UNSUPPORTED, NULL, "\"attention_bias\" is %s, but %s has %s",
                       bias ? "true" : "false", f->architecture,
                       bias ? "no biases" : "biases of q, k and v");
    if (mlp && !f->mlp_by_key)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"mlp_bias\" is true, but %s has no such biases",
                       f->architecture);
    c->qkv_bias = bias;
    c->o_bias = bias && f->attention == BIAS_BY_KEY;
    c->mlp_bias = mlp;
    return PB_OK;
}

// Gemma's first files say "gelu" and mean the tanh form; "hidden_activation" says what is meant,
// and what is absent or null there is the tanh form whatever hidden_act says.
static pb_err read_gate(pb_config *c, const json_t *j, const family *f)
{
    const char *name = f->gemma ? "gelu_pytorch_tanh" : "silu", *key = "hidden_act";
    PB_TRY(pb_json_opt_str(j, key, &name));
    if (f->gemma && strcmp(name, "gelu") == 0)
        name = "gelu_pytorch_tanh";
    if (f->gemma && present(j, "hidden_activation")) {
        key = "hidden_activation";
        PB_TRY(pb_json_opt_str(j, key, &name));
    }
    for (size_t i = 0; i < N_GATES; i++)
        if (strcmp(name, gates[i].name) == 0) {
            c->gate = gates[i].gate;
            if (f->gemma && strcmp(key, "hidden_act") == 0 && c->gate != PB_GATE_GELU_TANH)
                break;
            return PB_OK;
        }
    return pb_fail(PB_UNSUPPORTED,
                   f->gemma ? "give \"hidden_activation\": gelu_pytorch_tanh, gelu or silu"
                            : "known are silu, gelu_pytorch_tanh and gelu",
                   "the activation \"%.100s\" of \"%s\" is not known", name, key);
}

// A cap or a scalar: a default for an absent key, none for null.
static pb_err read_positive(const json_t *j, const char *key, double def, double *out)
{
    *out = json_object_get(j, key) ? 0 : def;
    return pb_json_opt_real(j, key, out, 1e-3, 1e9);
}

// What the backbone cannot compute and a file can ask for.
static pb_err refuse_unsupported(const json_t *j)
{
    double part = 1;
    PB_TRY(pb_json_opt_real(j, "partial_rotary_factor", &part, 0, 1));
    if (part != 1)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"partial_rotary_factor\" is %g, not 1", part);
    if (present(j, "quantization_config"))
        return pb_fail(PB_UNSUPPORTED, "use the unquantised model",
                       "\"quantization_config\" is present");
    bool both_ways = false;
    PB_TRY(pb_json_opt_bool(j, "use_bidirectional_attention", &both_ways));
    if (both_ways)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"use_bidirectional_attention\" is true");
    return PB_OK;
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
    PB_TRY(find_family(&c->family, j));
    const family *f = &families[c->family];
    pb_config_set_family(c, c->family);
    PB_TRY(refuse_unsupported(j));

    PB_TRY(read_size(j, "vocab_size", &c->vocab, MAX_VOCAB));
    PB_TRY(read_size(j, "hidden_size", &c->width, MAX_WIDTH));
    PB_TRY(read_size(j, "intermediate_size", &c->ffn, MAX_FFN));
    PB_TRY(read_size(j, "num_hidden_layers", &c->layers, PB_MAX_LAYERS));
    PB_TRY(read_heads(c, j, f));
    PB_TRY(read_size(j, "max_position_embeddings", &c->context, MAX_CONTEXT));

    c->norm_eps = 1e-6;
    PB_TRY(pb_json_opt_real(j, "rms_norm_eps", &c->norm_eps, 0, 1));
    PB_TRY(read_rope(c, j));
    PB_TRY(read_windows(c, j, f));
    PB_TRY(read_biases(c, j, f));
    PB_TRY(pb_json_opt_bool(j, "tie_word_embeddings", &c->tied));
    PB_TRY(read_gate(c, j, f));
    if (f->caps) {
        PB_TRY(read_positive(j, "attn_logit_softcapping", c->attn_cap, &c->attn_cap));
        PB_TRY(read_positive(j, "final_logit_softcapping", c->final_cap, &c->final_cap));
        PB_TRY(read_positive(j, "query_pre_attn_scalar", c->score_scalar, &c->score_scalar));
    }
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

// ---------------------------------------------------------------- writing

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

// In the older form, which newer software reads too.
static json_t *rope_to_json(const pb_rope_scaling *r)
{
    if (r->kind == PB_ROPE_LINEAR)
        return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", r->factor);
    if (r->kind == PB_ROPE_LLAMA3)
        return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", r->factor,
                         "low_freq_factor", r->low, "high_freq_factor", r->high,
                         "original_max_position_embeddings", (json_int_t)r->original);
    return json_null();
}

static json_t *positive_or_null(double x)
{
    return x > 0 ? json_real(x) : json_null();
}

// Whole numbers as integers, which is what other software expects of this key.
static json_t *score_scalar_to_json(const pb_config *c)
{
    double x = c->score_scalar > 0 ? c->score_scalar : (double)c->head_dim;
    return x == floor(x) ? json_integer((json_int_t)x) : json_real(x);
}

static int windows_to_json(json_t *j, const pb_config *c, const family *f)
{
    if (f->windows == NO_WINDOWS)
        return 0;
    int bad = json_object_set_new(j, "sliding_window",
                                  c->window ? json_integer((json_int_t)c->window) : json_null());
    if (f->windows == ALL_LAYERS)
        return bad;
    size_t full = 0; // layers below the first windowed one
    while (full < c->layers && !pb_config_window(c, full))
        full++;
    if (f->switch_key) {
        bad |= json_object_set_new(j, f->switch_key, json_boolean(c->window > 0));
        bad |= json_object_set_new(j, "max_window_layers", json_integer((json_int_t)full));
    }
    json_t *types = json_array();
    for (size_t i = 0; i < c->layers; i++)
        bad |= json_array_append_new(
            types, json_string(pb_config_window(c, i) ? "sliding_attention" : "full_attention"));
    return bad | json_object_set_new(j, "layer_types", types);
}

json_t *pb_config_to_json(const pb_config *c)
{
    const family *f = &families[c->family];
    json_t *j = json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, "
                          "s:b, s:s, s:o, s:o}",
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
                          "rope_scaling", rope_to_json(&c->rope),                        //
                          "tie_word_embeddings", (int)c->tied,                           //
                          "hidden_act", gate_name(c->gate),                              //
                          "bos_token_id", c->bos < 0 ? json_null() : json_integer(c->bos),
                          "eos_token_id", eos_to_json(c));
    if (!j)
        return NULL;
    int bad = windows_to_json(j, c, f);
    if (f->attention == BIAS_BY_KEY)
        bad |= json_object_set_new(j, "attention_bias", json_boolean(c->o_bias));
    if (f->mlp_by_key)
        bad |= json_object_set_new(j, "mlp_bias", json_boolean(c->mlp_bias));
    if (f->gemma)
        bad |= json_object_set_new(j, "hidden_activation", json_string(gate_name(c->gate)));
    if (f->caps) {
        bad |= json_object_set_new(j, "attn_logit_softcapping", positive_or_null(c->attn_cap));
        bad |= json_object_set_new(j, "final_logit_softcapping", positive_or_null(c->final_cap));
        bad |= json_object_set_new(j, "query_pre_attn_scalar", score_scalar_to_json(c));
    }
    if (c->tokenizer[0])
        bad |= json_object_set_new(j, "pb_tokenizer", json_string(c->tokenizer));
    if (bad) {
        json_decref(j);
        return NULL;
    }
    return j;
}

// ---------------------------------------------------------------- geometry

// The sizes that shapes of adapters are made of.
enum { N_SIZES = 6 };
static const char *const size_keys[N_SIZES] = {"hidden_size",         "intermediate_size",
                                               "num_hidden_layers",   "num_attention_heads",
                                               "num_key_value_heads", "head_dim"};

static void sizes_of(const pb_config *c, size_t out[N_SIZES])
{
    const size_t sizes[N_SIZES] = {c->width, c->ffn, c->layers, c->heads, c->kv_heads, c->head_dim};
    memcpy(out, sizes, sizeof sizes);
}

json_t *pb_config_geometry(const pb_config *c)
{
    size_t sizes[N_SIZES];
    sizes_of(c, sizes);
    json_t *j = json_pack("{s:s, s:I}", "model_type", pb_family_name(c->family), "vocab_size",
                          (json_int_t)c->vocab);
    for (size_t i = 0; j && i < N_SIZES; i++)
        if (json_object_set_new(j, size_keys[i], json_integer((json_int_t)sizes[i]))) {
            json_decref(j);
            return NULL;
        }
    return j;
}

static pb_err other_size(const char *key, size_t size, long long made_for)
{
    return pb_fail(PB_INPUT, "an adapter fits only the geometry it was made for",
                   "the backbone's %s is %zu, but the adapter was made for %lld", key, size,
                   made_for);
}

pb_err pb_config_same_geometry(const pb_config *c, const pb_config *made_for)
{
    size_t a[N_SIZES], b[N_SIZES];
    sizes_of(c, a);
    sizes_of(made_for, b);
    for (size_t i = 0; i < N_SIZES; i++)
        if (a[i] != b[i])
            return other_size(size_keys[i], a[i], (long long)b[i]);
    return PB_OK;
}

pb_err pb_config_fits(const pb_config *c, const json_t *geometry)
{
    size_t a[N_SIZES];
    sizes_of(c, a);
    if (!json_is_object(geometry))
        return pb_fail(PB_INPUT, NULL, "the geometry of an adapter's backbone must be an object");
    for (size_t i = 0; i < N_SIZES; i++) {
        int64_t want = (int64_t)a[i];
        PB_TRY(pb_json_opt_int(geometry, size_keys[i], &want, 1, INT64_MAX));
        if ((uint64_t)want != a[i])
            return other_size(size_keys[i], a[i], (long long)want);
    }
    return PB_OK;
}
