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
    pb_weight embed, head; // (V,C); tied: the same panels
    pb_layer *layer;       // (L)
    pb_vector norm;        // (C)
    double *inv_freq;      // (D/2)
    // All weights in one block, when they are trained: matrices named as in files.
    pb_layout layout;
    pb_params params;
    pb_tokenizer *tokenizer;
    char source[4096]; // where it came from
    char sha256[65];   // of the weights as loaded
} pb_model;

// How frozen matrices are kept; computation is in fp32. Where a file has bfloat16 or Q8_0, nothing
// is lost: results are the same bits as with fp32. Matrices that an adapter is folded into have
// other values than the file's, so that PB_STORE_AUTO keeps them in fp32.
typedef enum pb_storage {
    PB_STORE_AUTO, // each as its file has it: bf16, int8 (Q8_0), or else fp32
    PB_STORE_FP32,
    PB_STORE_BF16, // all rounded, to nearest even
    PB_STORE_INT8  // all rounded to 8 bits, with a scale for 32 inputs of an output (as Q8_0)
} pb_storage;

typedef struct pb_model_args {
    bool trainable;          // train all weights: they are kept in fp32
    const pb_adapter *merge; // fold this adapter into the weights
    pb_storage weights;
} pb_model_args;

// "auto", "fp32", "bf16" or "int8".
pb_err pb_storage_find(pb_storage *out, const char *name);

// Opens whatever source.h can: a Hugging Face folder (safetensors, or random weights by a seed), a
// GGUF file, or a llama2.c checkpoint with tokenizer.bin beside it.
pb_err pb_model_open(pb_model **out, const char *path, const pb_model_args *args);
// A model with random weights: normal with standard deviation 0.02, output projections scaled down
// by sqrt(2 L), norms at one.
pb_err pb_model_random(pb_model **out, const pb_config *config, uint64_t seed,
                       const pb_model_args *args);
// The model that a folder with these weights would be (`pedrobench model new --random`), in bf16.
pb_err pb_model_preset(pb_model **out, const pb_config *config, uint64_t seed,
                       const pb_model_args *args);
void pb_model_close(pb_model *m);

// Packs the trained weights again, after the optimizer changed them.
void pb_model_repack(pb_model *m);

// Writes a Hugging Face folder (F32, or BF16). Works for any model, trained or frozen.
pb_err pb_model_save(const pb_model *m, const char *folder, bool bf16);

// Reads only the configuration.
pb_err pb_model_config(pb_config *c, const char *path);

// Bytes of the frozen weights in memory, and what their matrices are kept in: "fp32", "bf16",
// "bf16 and fp32", ...
size_t pb_model_resident(const pb_model *m);
const char *pb_model_storage(const pb_model *m);

#endif
