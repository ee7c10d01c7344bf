#include "conformance/tiny.h"

#include "core/file.h"

#include <math.h>
#include <string.h>

// No width is a multiple of a vector's or a panel's, H*D differs from C.
const pb_tiny pb_tinies[PB_N_TINIES] = {
    {"grouped tied silu",
     {.vocab = 43,
      .width = 20,
      .ffn = 41,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 6,
      .context = 512,
      .norm_eps = 1e-5,
      .rope_theta = 10000,
      .tied = true,
      .gate = PB_GATE_SILU,
      .bos = -1}},
    {"Qwen3-like, shared-key untied bias gelu window",
     {.family = PB_QWEN3,
      .vocab = 71,
      .width = 40,
      .ffn = 37,
      .layers = 2,
      .heads = 3,
      .kv_heads = 1,
      .head_dim = 14,
      .context = 512,
      .norm_eps = 1e-6,
      .rope_theta = 500,
      .rope = {.kind = PB_ROPE_LINEAR, .factor = 3},
      .qkv_bias = true,
      .o_bias = true,
      .qk_norm = true,
      .gate = PB_GATE_GELU_TANH,
      .window = 37,
      .windowed = {2},
      .bos = -1}},
    {"Gemma-2-like, grouped tied exact gelu window",
     {.family = PB_GEMMA2,
      .vocab = 43,
      .width = 18,
      .ffn = 35,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 10,
      .context = 512,
      .norm_eps = 1e-6,
      .rope_theta = 10000,
      .rope = {.kind = PB_ROPE_LLAMA3, .factor = 8, .low = 1, .high = 4, .original = 64},
      .tied = true,
      .post_norms = true,
      .norm_offset = true,
      .embed_scaled = true,
      .gate = PB_GATE_GELU,
      .attn_cap = 1.5,
      .final_cap = 4,
      .score_scalar = 7,
      .window = 9,
      .windowed = {1},
      .bos = -1}},
};

void pb_tiny_fill(real *v, size_t n, double mean, double sd, pb_rng *r)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (real)(float)(mean + sd * pb_rng_normal(r));
}

// At the usual standard deviation of 0.02 a small backbone is nearly the identity, and errors would
// hide.
void pb_tiny_weights(pb_model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        pb_rng r = pb_rng_make(seed, PB_STREAM_TEST, (uint32_t)i);
        bool bias = strstr(s->name, "bias") != NULL, vector = s->rows == 1;
        bool table = strstr(s->name, "embed") || strstr(s->name, "lm_head");
        double sd = bias ? 0.3 : vector ? 0.2 : table ? 0.4 : 0.9 / sqrt((double)s->cols);
        double mean = vector && !bias && !m->config.norm_offset ? 1 : 0;
        pb_tiny_fill(m->params.v + s->offset, s->rows * s->cols, mean, sd, &r);
    }
    pb_model_repack(m);
}

pb_err pb_tiny_open(pb_model **out, const char *folder, size_t t, const pb_model_args *args)
{
    char path[400];
    pb_model *m;
    PB_TRY(pb_path(path, sizeof path, "%s/model%zu", folder, t));
    if (!pb_exists(path)) {
        PB_TRY(pb_model_random(&m, &pb_tinies[t].config, 1, &(pb_model_args){.trainable = true}));
        pb_tiny_weights(m, 100 + t);
        pb_err err = pb_model_save(m, path, false);
        pb_model_close(m);
        PB_TRY(err);
    }
    return pb_model_open(out, path, args);
}
