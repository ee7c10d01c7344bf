// adapter_config.json, as Hugging Face PEFT writes it, and a method's options: what a method's
// table of keys (methods/method.h) says of the file, in both directions.
//
// What PEFT has no keys for stands under "pedrobench": {"options": {...}, "backbone": {sizes,
// "sha256" of the weights}}. PEFT since 0.14 passes over keys that it does not know.
#ifndef PB_MODEL_PEFT_H
#define PB_MODEL_PEFT_H

#include "model/adapter.h"

// The method that a file is of; methods that PEFT has and the suite has not are refused by name.
pb_err pb_peft_method(const pb_method **out, const json_t *file);

// Whether it is the file of a composition: "parts" lists the folders, beside it, of its parts.
bool pb_peft_is_composition(const json_t *file);

// Options for a backbone: refuses what is not supported, what contradicts the backbone's geometry,
// and adapters that were made for other weights (`sha256` of the backbone's; NULL: not known).
// *options is released with free.
pb_err pb_peft_read(const pb_method **method, void **options, const json_t *file,
                    const pb_config *c, const char *sha256);

// New reference.
pb_err pb_peft_write(json_t **out, const pb_adapter *a);

#endif
