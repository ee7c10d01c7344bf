// Small backbones with random weights of every kind, for tests. Include cmocka.h first.
#ifndef PB_TESTS_TINY_H
#define PB_TESTS_TINY_H

#include "core/file.h"
#include "model/forward.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != PB_OK)                                                                       \
            fail_msg("%s: %s", #expr, pb_error_message());                                         \
    } while (0)

typedef struct tiny {
    const char *name;
    pb_config config;
} tiny;

// No width is a multiple of a vector's or a panel's, H*D differs from C.
static const tiny tinies[] = {
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
enum { N_TINIES = sizeof tinies / sizeof *tinies };

// Normal numbers that a float holds, so that both builds and files keep them exactly.
static inline void fill(real *v, size_t n, double mean, double sd, pb_rng *r)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (real)(float)(mean + sd * pb_rng_normal(r));
}

// Weights such that activations are of order one: at the usual standard deviation of 0.02 a small
// backbone is nearly the identity, and errors would hide.
static inline void tiny_weights(pb_model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        pb_rng r = pb_rng_make(seed, PB_STREAM_TEST, (uint32_t)i);
        bool bias = strstr(s->name, "bias") != NULL, vector = s->rows == 1;
        bool table = strstr(s->name, "embed") || strstr(s->name, "lm_head");
        double sd = bias ? 0.3 : vector ? 0.2 : table ? 0.4 : 0.9 / sqrt((double)s->cols);
        double mean = vector && !bias && !m->config.norm_offset ? 1 : 0;
        fill(m->params.v + s->offset, s->rows * s->cols, mean, sd, &r);
    }
    pb_model_repack(m);
}

static char tiny_folder[300];

static inline int tiny_folder_make(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(tiny_folder, sizeof tiny_folder, "%s/pb-tiny-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(tiny_folder) ? 0 : -1;
}

static inline int tiny_unlink(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

static inline int tiny_folder_remove(void **state)
{
    (void)state;
    return nftw(tiny_folder, tiny_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

// Opens tinies[t]; its folder is written at the first call, through a trainable model.
static inline pb_model *tiny_open(size_t t, const pb_model_args *args)
{
    char path[400];
    pb_model *m;
    snprintf(path, sizeof path, "%s/model%zu", tiny_folder, t);
    if (!pb_exists(path)) {
        OK(pb_model_random(&m, &tinies[t].config, 1, &(pb_model_args){.trainable = true}));
        tiny_weights(m, 100 + t);
        OK(pb_model_save(m, path, false));
        pb_model_close(m);
    }
    OK(pb_model_open(&m, path, args));
    return m;
}

// Logits (R,V) of all rows of one batch in a step; the caller frees them.
static inline real *logits_of(pb_step *st, const pb_model *m, const pb_batch *b, bool training)
{
    size_t *rows = malloc(b->n_rows * sizeof *rows);
    real *out = malloc(b->n_rows * m->config.vocab * sizeof *out);
    assert_non_null(rows);
    assert_non_null(out);
    for (size_t r = 0; r < b->n_rows; r++)
        rows[r] = r;
    pb_mat *h = pb_forward(st, b, training, 1, 0);
    pb_step_logits(st, h, rows, b->n_rows, out);
    free(rows);
    return out;
}

#endif
