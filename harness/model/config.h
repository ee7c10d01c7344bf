// The backbone's shape: a decoder by configuration, read from and written to the `config.json` of a
// Hugging Face model folder.
//
// The forward pass looks at the fields alone. The family is kept beside them so that a model is
// written back as what it was; it fixes some fields, and pb_config_check refuses a configuration
// that its family's file could not express.
#ifndef PB_MODEL_CONFIG_H
#define PB_MODEL_CONFIG_H

#include "core/json.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

enum { PB_MAX_EOS = 8, PB_MAX_LAYERS = 1 << 12 };

typedef enum pb_family {
    PB_LLAMA,
    PB_MISTRAL,
    PB_QWEN2,
    PB_QWEN3,
    PB_GEMMA,
    PB_GEMMA2,
    PB_N_FAMILIES
} pb_family;

// Activation of the gate in the gated feed-forward block: gate(x) * up(x). GELU in its tanh form,
// and the exact one by erf.
typedef enum pb_gate { PB_GATE_SILU, PB_GATE_GELU_TANH, PB_GATE_GELU } pb_gate;

// How rotary frequencies are stretched for contexts longer than those of pretraining.
typedef enum pb_rope_kind { PB_ROPE_PLAIN, PB_ROPE_LINEAR, PB_ROPE_LLAMA3 } pb_rope_kind;

typedef struct pb_rope_scaling {
    pb_rope_kind kind;
    double factor;    // linear, llama3
    double low, high; // llama3: waves longer than original/low are stretched, shorter than
    size_t original;  // original/high are not; the context of pretraining
} pb_rope_scaling;

typedef struct pb_config {
    pb_family family;
    size_t vocab;    // V
    size_t width;    // C, model width
    size_t ffn;      // F, feed-forward width
    size_t layers;   // L
    size_t heads;    // H query heads
    size_t kv_heads; // KVH, divides H
    size_t head_dim; // D; H*D may differ from C
    size_t context;  // longest sequence the positions were trained for
    double norm_eps;
    double rope_theta;
    pb_rope_scaling rope;
    bool tied;         // the head shares the embedding
    bool qkv_bias;     // q, k and v have biases
    bool o_bias;       // so has o
    bool mlp_bias;     // so have gate, up and down
    bool qk_norm;      // RMSNorm over each head's D values of q and k, before the rotation
    bool post_norms;   // RMSNorm on what attention and the feed-forward block add
    bool norm_offset;  // norms multiply by 1 + weight
    bool embed_scaled; // embeddings are multiplied by sqrt(C)
    pb_gate gate;
    double attn_cap;     // scores become cap tanh(score / cap); 0: they do not
    double final_cap;    // so do logits
    double score_scalar; // scores are divided by its square root; 0: by that of head_dim
    size_t window;       // keys that a query sees in a windowed layer, its own among them; 0: none
    uint64_t windowed[PB_MAX_LAYERS / 64]; // one bit per layer
    int32_t bos;                           // -1 when there is none
    int32_t eos[PB_MAX_EOS];
    size_t n_eos;
    char tokenizer[32]; // "bytes", or the name of the tokenizer's file in the model folder
} pb_config;

// Widths that recur: query width H*D and key/value width KVH*D.
static inline size_t pb_q_width(const pb_config *c)
{
    return c->heads * c->head_dim;
}
static inline size_t pb_kv_width(const pb_config *c)
{
    return c->kv_heads * c->head_dim;
}

// The window of a layer; 0: it sees all positions.
static inline size_t pb_config_window(const pb_config *c, size_t layer)
{
    return c->windowed[layer / 64] >> layer % 64 & 1 ? c->window : 0;
}
void pb_config_set_windowed(pb_config *c, size_t layer, bool on);

// Sets the family and the fields that it fixes, and for the others its defaults: what is not a size
// or a number of the file. Sizes, theta, eps and special tokens stay as they are.
void pb_config_set_family(pb_config *c, pb_family family);
// The family by "llama", "mistral", "qwen2", "qwen3", "gemma" or "gemma2"; refuses others by name.
pb_err pb_family_find(pb_family *out, const char *model_type);
const char *pb_family_name(pb_family f);

// Angles per position of the D/2 pairs of a head, stretched as `rope` says.
void pb_config_inv_freq(const pb_config *c, double *out);

// Number of parameters of the backbone; a tied head counts once.
size_t pb_config_params(const pb_config *c);

// Checks ranges, divisibility and what the family can express.
pb_err pb_config_check(const pb_config *c);

// Reads an HF config; refuses unknown architectures, activations and rope types by name.
pb_err pb_config_from_json(pb_config *c, const json_t *j);
json_t *pb_config_to_json(const pb_config *c); // new reference

// What an adapter's shapes depend on, as recorded with it: family and sizes under the keys of
// config.json. New reference.
json_t *pb_config_geometry(const pb_config *c);
// Whether an adapter made for `made_for` fits `c`; names the first size that differs.
pb_err pb_config_same_geometry(const pb_config *c, const pb_config *made_for);
// The same for a recorded geometry. Keys that are absent are not compared; the family and the
// vocabulary are not either, since no adapter's shape depends on them.
pb_err pb_config_fits(const pb_config *c, const json_t *geometry);

#pragma GCC visibility pop

#endif
