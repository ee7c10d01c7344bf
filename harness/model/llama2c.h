// llama2.c checkpoints (legacy version 0 and version 1), presented under Hugging Face names and in
// Hugging Face row order ("rotate half") of q and k. Source of the format: karpathy/llama2.c
// export.py.
#ifndef PB_MODEL_LLAMA2C_H
#define PB_MODEL_LLAMA2C_H

#include "model/config.h"
#include "model/tensors.h"

// Fills in the configuration and the tensors. Truncated and contradictory files are refused.
pb_err pb_llama2c_open(pb_tensors **out, pb_config *cfg, const char *path);

// Writes version 1. The format has no room for anything but plain LLaMA: what it cannot say is
// refused by name. `t` has the weights under Hugging Face names.
pb_err pb_llama2c_write(const char *path, const pb_config *cfg, const pb_tensors *t);

#endif
