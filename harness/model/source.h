// Where a model comes from: the configuration, the tensors and the tokenizer of whatever lies at a
// path, presented alike.
#ifndef PB_MODEL_SOURCE_H
#define PB_MODEL_SOURCE_H

#include "model/config.h"
#include "model/tensors.h"
#include "model/tokenizer.h"
#include "tensor/params.h"

typedef enum pb_source_kind {
    PB_SOURCE_FOLDER, // Hugging Face: config.json and safetensors, one file or shards
    PB_SOURCE_RANDOM, // a folder with "pb_random" in its config.json and no weights
    PB_SOURCE_GGUF,
    PB_SOURCE_LLAMA2C
} pb_source_kind;

typedef struct pb_source {
    char path[4096];
    pb_source_kind kind;
    pb_config config;
    pb_tensors *tensors; // under Hugging Face names; NULL when only the configuration was asked for
    json_t *meta;        // of a GGUF file, or NULL
} pb_source;

// Opens what lies at `path`. With `weights`, every tensor that the configuration calls for is there
// and has its shape and a floating-point type, and there is no other one.
pb_err pb_source_open(pb_source *s, const char *path, bool weights);
void pb_source_close(pb_source *s);
const char *pb_source_kind_name(pb_source_kind kind);

// The model's tokenizer, or NULL when it has none: the one that "pb_tokenizer" of config.json
// names, or one of the usual files beside the weights, or the one inside a GGUF file.
pb_err pb_source_tokenizer(pb_tokenizer **out, const pb_source *s);

// Copies the tokenizer's files (and generation settings) into another model folder, and sets
// `tokenizer` of the configuration that will be written there.
pb_err pb_source_copy_tokenizer(const pb_source *s, const char *folder, pb_config *c);

// "pb_random" of a configuration: {"seed": N, "dtype": "bf16"}.
typedef struct pb_random {
    uint64_t seed;
    pb_dtype dtype; // PB_BF16 or PB_F32
} pb_random;

// Tensors of random values for every weight, made as they are read.
pb_err pb_random_tensors(pb_tensors **out, const pb_config *c, const pb_random *r);

// A model's name in files. Defined beside its layout, in model.c.
pb_err pb_weight_name(char out[160], const pb_spec *s);
bool pb_weight_is_vector(const pb_spec *s); // one dimension in files
// Every weight with its name, shape and initialisation; vectors are (1,n).
pb_err pb_model_layout(pb_layout *l, const pb_config *c);

#endif
