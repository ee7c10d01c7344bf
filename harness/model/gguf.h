// GGUF files (versions 2 and 3): metadata, and tensors presented under Hugging Face names, in
// Hugging Face row order ("rotate half") of q and k, and without the 1 that Gemma's norms have
// added there. Source of the format: github.com/ggml-org/ggml, docs/gguf.md.
#ifndef PB_MODEL_GGUF_H
#define PB_MODEL_GGUF_H

#include "core/json.h"
#include "model/config.h"
#include "model/tensors.h"

// Reads a file as it is: the metadata as a JSON object (numbers, strings, booleans and lists of
// them under their GGUF keys; release with json_decref), and the tensors under their own names.
pb_err pb_gguf_read(pb_tensors **out, json_t **meta, const char *path);

// Opens a model: its configuration, and its tensors under Hugging Face names. `meta` may be NULL.
pb_err pb_gguf_open(pb_tensors **out, pb_config *cfg, json_t **meta, const char *path);

// Opens a LoRA adapter: its tensors under the names of a PEFT folder, and what adapter_config.json
// says of them (new reference). `base` is the configuration of its model, or NULL: the file has no
// width of heads, which the rows of q and k of architecture llama need.
pb_err pb_gguf_adapter_open(pb_tensors **out, json_t **config, const pb_config *base,
                            const char *path);

// Whether the file begins like one.
bool pb_gguf_is(const char *path);

#endif
