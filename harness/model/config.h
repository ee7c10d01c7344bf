// The backbone's shape: a LLaMA-style decoder by configuration, read from and written to the
// `config.json` of a Hugging Face model folder.
#ifndef PB_MODEL_CONFIG_H
#define PB_MODEL_CONFIG_H

#include "core/json.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PB_MAX_EOS = 8 };

// Activation of the gate in the gated feed-forward block: gate(x) * up(x).
typedef enum pb_gate { PB_GATE_SILU, PB_GATE_GELU_TANH } pb_gate;

typedef struct pb_config {
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
    bool tied;           // the head shares the embedding
    bool attention_bias; // q, k, v have biases
    pb_gate gate;
    int32_t bos; // -1 when there is none
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

// Number of parameters of the backbone; a tied head counts once.
size_t pb_config_params(const pb_config *c);

// Checks ranges and divisibility.
pb_err pb_config_check(const pb_config *c);

// Reads an HF config (LlamaForCausalLM, MistralForCausalLM and the like); refuses unknown
// architectures, activations and rope types by name.
pb_err pb_config_from_json(pb_config *c, const json_t *j);
json_t *pb_config_to_json(const pb_config *c); // new reference

#endif
