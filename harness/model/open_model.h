// Models by path, or with random weights by geometry, for commands that measure.
#ifndef PB_MODEL_OPEN_MODEL_H
#define PB_MODEL_OPEN_MODEL_H

#include "model/model.h"

// "random:WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB" has random weights by the seed and a tied head;
// "random:NAME" is a preset's geometry with weights in bf16, as `pedrobench model new --like NAME
// --random` makes it; everything else is a path for pb_model_open.
pb_err pb_open_model(pb_model **out, const char *name, uint64_t seed, const pb_model_args *args);
// Only its configuration.
pb_err pb_open_config(pb_config *out, const char *name);

#endif
