// An adapter: a method, its options, and its parameter values in memory of its own. Adapters are
// created, saved and loaded as Hugging Face PEFT folders (adapter_config.json and
// adapter_model.safetensors), folded to the form that is served, and merged into a backbone.
#ifndef PB_MODEL_ADAPTER_H
#define PB_MODEL_ADAPTER_H

#include "methods/method.h"
#include "model/config.h"
#include "model/tensors.h"

typedef struct pb_model pb_model;

typedef struct pb_adapter {
    const pb_method *method;
    void *options;
    pb_config config; // of the backbone it fits
    char base[512];   // what that backbone is called, and the hash of its weights; "": not known
    char base_sha256[65];
    pb_layout layout;
    pb_params params;  // params.d is NULL unless it was made for training
    real *block;       // values, then gradients
    bool folded;       // from the form that is trained
    size_t prefix_len; // positions in front of its sequences
    size_t state;      // floats kept per sequence and layer: state, and keys made from it in panels
    pb_prefix *prefix; // (L): packed keys and values, when it is ready to be served
    pb_mat *prefix_kv; // (2 L): what `prefix` refers to
    real *prefix_block;
} pb_adapter;

// Adds a method of a plugin; refuses a name that is taken.
pb_err pb_method_register(const pb_method *m);

// Options of a method: defaults, one setting as text, a JSON object, and back.
pb_err pb_options_new(void **out, const pb_method *m);
pb_err pb_options_set(const pb_method *m, void *options, const char *name, const char *value);
pb_err pb_options_assign(const pb_method *m, void *options, const char *text); // "name=value"
pb_err pb_options_from_json(const pb_method *m, void *options, const json_t *obj);
json_t *pb_options_to_json(const pb_method *m, const void *options);
const pb_option *pb_option_find(const pb_method *m, const char *name); // or NULL
long pb_options_knob(const pb_method *m, const void *options);
bool pb_options_same_group(const pb_method *m, const void *a, const void *b);

// Takes a copy of the options, checks them against the backbone and lays the parameters out.
pb_err pb_adapter_new(pb_adapter **out, const pb_method *m, const void *options,
                      const pb_config *config, bool trainable);
void pb_adapter_free(pb_adapter *a);

// Initial values; the backbone (or NULL) and the text as in pb_init_args.
pb_err pb_adapter_init(pb_adapter *a, const pb_model *m, uint64_t seed, size_t n_text,
                       const real *text_x, const real *text_k, const real *text_v);

// The form that is saved and served: a new adapter, or a plain copy when nothing is to fold.
pb_err pb_adapter_folded(pb_adapter **out, const pb_adapter *a);
// Copies the values of `a` again (after more training) into what pb_adapter_folded made.
void pb_adapter_refresh(pb_adapter *folded, const pb_adapter *a);
// Computes derived parameters; before values that were set are used in training.
pb_err pb_adapter_derive(pb_adapter *a, const pb_model *m);
// Makes it ready for steps of the backbone m: derives parameters, and packs the prefix, or runs the
// virtual tokens and packs their keys and values, so that no step need compute them. Call again
// after values changed.
pb_err pb_adapter_serve(pb_adapter *a, const pb_model *m);

// Whether it can be merged into a backbone of its configuration; if not, says why.
pb_err pb_adapter_mergeable(const pb_adapter *a);

// Merges it into one linear, or says that its method cannot.
pb_err pb_adapter_merge(const pb_adapter *a, const pb_merge_args *args);

// Whether steps made for one can serve the other (see pb_step_seat); if not, says why.
pb_err pb_adapter_same_shape(const pb_adapter *a, const pb_adapter *b);

// Bytes that one more tenant with this adapter keeps in memory.
size_t pb_adapter_resident(const pb_adapter *a);

// Records which backbone it was made for.
void pb_adapter_made_for(pb_adapter *a, const char *name, const char *sha256);

// Folders as Hugging Face PEFT has them: what is saved (fold it first) opens there, and what is
// made there opens here. Whatever is not supported, or does not fit the backbone (`sha256` of its
// weights; NULL: not known), is refused by name.
pb_err pb_adapter_save(const pb_adapter *a, const char *folder);
pb_err pb_adapter_load(pb_adapter **out, const char *folder, const pb_config *config,
                       const char *sha256);
// The same from what an adapter_config.json says and tensors under their names there.
pb_err pb_adapter_read(pb_adapter **out, const json_t *file, const pb_tensors *t,
                       const pb_config *config, const char *sha256);
// Opens the weights of a folder.
pb_err pb_adapter_weights(pb_tensors **out, const char *folder);
// A trainable copy, with other options that leave the parameters as they are (NULL: its own).
pb_err pb_adapter_trainable(pb_adapter **out, const pb_adapter *a, const void *options);

// The name of a parameter in files.
pb_err pb_adapter_key(char *out, size_t size, const pb_spec *s);

#endif
