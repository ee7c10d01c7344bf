// The backbone: its weights, packed once at load and shared by all tenants.
#ifndef PB_MODEL_MODEL_H
#define PB_MODEL_MODEL_H

#include "core/arena.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/tokenizer.h"
#include "tensor/layers.h"

// The norms of a layer: before attention and before the feed-forward block; on what the two add to
// the residual stream; on the heads of q and of k. The first two are always there.
typedef enum pb_norm_id {
    PB_NORM_ATTN,
    PB_NORM_FFN,
    PB_NORM_ATTN_OUT,
    PB_NORM_FFN_OUT,
    PB_NORM_Q,
    PB_NORM_K,
    PB_N_NORMS
} pb_norm_id;

typedef struct pb_layer {
    pb_weight lin[PB_N_LINEARS];
    pb_vector norm[PB_N_NORMS]; // (C), those of heads (D); absent ones are NULL
} pb_layer;

typedef struct pb_model {
    pb_config config;
    pb_arena memory;
    real *embed, *dembed; // (V,C)
    pb_layer *layer;      // (L)
    pb_vector norm;       // (C)
    pb_weight head;       // (V,C); tied: packed from the embedding
    double *inv_freq;     // (D/2)
    // All weights in one block, when they are trained: matrices named as in files.
    pb_layout layout;
    pb_params params;
    pb_tokenizer *tokenizer;
    char source[4096]; // where it came from
    char sha256[65];   // of the weights as loaded
} pb_model;

typedef struct pb_model_args {
    bool gradients;          // gradients will pass through: keep transposed panels too
    bool trainable;          // train all weights (implies gradients)
    const pb_adapter *merge; // fold this adapter into the weights
} pb_model_args;

// Opens whatever source.h can: a Hugging Face folder (safetensors, or random weights by a seed), a
// GGUF file, or a llama2.c checkpoint with tokenizer.bin beside it.
pb_err pb_model_open(pb_model **out, const char *path, const pb_model_args *args);
// A model with random weights: normal with standard deviation 0.02, output projections scaled down
// by sqrt(2 L), norms at one.
pb_err pb_model_random(pb_model **out, const pb_config *config, uint64_t seed,
                       const pb_model_args *args);
void pb_model_close(pb_model *m);

// Packs the trained weights again, after the optimizer changed them.
void pb_model_repack(pb_model *m);

// Writes a Hugging Face folder (F32, or BF16). Works for any model, trained or frozen.
pb_err pb_model_save(const pb_model *m, const char *folder, bool bf16);

// Reads only the configuration.
pb_err pb_model_config(pb_config *c, const char *path);

// Bytes of the frozen weights in memory.
size_t pb_model_resident(const pb_model *m);

#endif
