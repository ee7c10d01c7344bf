// Writing a model folder from any source: what `convert` and `merge` share.
#ifndef PB_CLI_FOLDER_H
#define PB_CLI_FOLDER_H

#include "cli/common/common.h"
#include "model/source.h"

// Writes the weights of `s`, its configuration and its tokenizer into a fresh folder. `dtype` is
// "f32", "bf16", "f16" or NULL (as stored), `shard` a size or NULL. `edit`, if any, sees every
// weight before it is written, and may give it values of its own (pb_tensor.make).
typedef pb_err pb_edit_weight(void *self, const pb_spec *spec, pb_tensor *x);
pb_err pb_write_model_folder(const char *out, const pb_source *s, const char *dtype,
                             const char *shard, pb_edit_weight *edit, void *self);

#endif
