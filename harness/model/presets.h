// Published geometries by name, for models with random weights: latency and memory do not depend on
// what the weights are.
#ifndef PB_MODEL_PRESETS_H
#define PB_MODEL_PRESETS_H

#include "core/json.h"

typedef struct pb_preset {
    const char *name, *model, *config; // the published model; its config.json, shortened
} pb_preset;

extern const pb_preset pb_presets[]; // the last one has name NULL

// The configuration of a preset (new reference); unknown names are refused with the known ones.
pb_err pb_preset_find(json_t **out, const char *name);

#endif
