// The whole contract of a PEFT method: one file, one table PB_METHOD(name) = {...} at its bottom.
// The build finds the file by its name; no other file is edited. A method writes its forward pass
// only.
//
// Set-up functions (prepare, layout, init, merge, fold) may fail and say why. Hooks run inside a
// step: they return nothing but matrices, allocate through operations only and print nothing.
// Method code never loops over tenants: an operation sees every segment's own parameters.
#ifndef PB_METHOD_H
#define PB_METHOD_H

#include "core/error.h"
#include "core/json.h"
#include "model/config.h"
#include "tensor/ops.h"

// Where a method can act. x is the input of the site's linear, y its output (at MID, the input of
// DOWN; at LAYER_IN, the layer's input; at ATTN_OUT and FFN_OUT, what is added to the residual
// stream, x being the normalised input of the block). Where a backbone has norms behind its blocks
// (Gemma 2), O and DOWN are before them, ATTN_OUT and FFN_OUT after. Q and K are what the linears
// give, before norms of their heads (Qwen3) and the rotation; Q_ROT and K_ROT are after both.
#define PB_SITES(X)                                                                                \
    X(LAYER_IN)                                                                                    \
    X(Q) X(K) X(V) X(Q_ROT) X(K_ROT) X(O) X(ATTN_OUT) X(GATE) X(UP) X(MID) X(DOWN) X(FFN_OUT)
#define PB_SITE_ENUM(name) PB_SITE_##name,
typedef enum pb_site { PB_SITES(PB_SITE_ENUM) PB_N_SITES } pb_site;
#undef PB_SITE_ENUM

// The seven linear maps of a layer, in this order everywhere.
typedef enum pb_linear_id {
    PB_LIN_Q,
    PB_LIN_K,
    PB_LIN_V,
    PB_LIN_O,
    PB_LIN_GATE,
    PB_LIN_UP,
    PB_LIN_DOWN,
    PB_N_LINEARS
} pb_linear_id;
#define PB_LINEAR_NAMES "q", "k", "v", "o", "gate", "up", "down", NULL

const char *pb_linear_path(pb_linear_id l); // "self_attn.q_proj", ...
size_t pb_linear_in(const pb_config *c, pb_linear_id l);
size_t pb_linear_out(const pb_config *c, pb_linear_id l);
// The linear whose output a site is, or PB_N_LINEARS.
pb_linear_id pb_site_linear(pb_site s);

// ---------------------------------------------------------------- options

typedef enum pb_option_type {
    PB_OPT_INT,  // long
    PB_OPT_REAL, // double
    PB_OPT_BOOL, // bool
    PB_OPT_ENUM, // int: index into names
    PB_OPT_FLAGS // unsigned: a set of names; on the command line "q,v,up"
} pb_option_type;

typedef struct pb_option {
    const char *name;
    pb_option_type type;
    size_t offset;            // in the method's options struct
    const char *def;          // default, as text
    double min, max;          // of INT and REAL
    const char *const *names; // of ENUM and FLAGS, NULL-terminated
    const char *doc;          // one line
    bool per_tenant; // tenants that differ in this option alone may share a parallel region
} pb_option;

// ---------------------------------------------------------------- the method

// What `init` may use beside the random initial values that the layout asked for.
typedef struct pb_init_args {
    const pb_config *config;
    uint64_t seed;
    // Keys (rotated) and values of a text run through the backbone: (L, n_text, KVH*D); NULL when
    // the method did not ask by `text_len`.
    size_t n_text;
    const real *text_k, *text_v;
} pb_init_args;

// A linear's weight during `merge`, row-major.
typedef struct pb_merge_args {
    const pb_config *config;
    size_t layer;
    pb_linear_id linear;
    real *w;    // (out,in)
    real *bias; // (out) or NULL
    size_t out, in;
} pb_merge_args;

// Second level of a bi-level method: parameters flagged PB_THETA are updated on batches of their
// own.
typedef struct pb_bilevel {
    double lr;      // of the second level
    size_t every;   // first-level steps per second-level step
    bool use_valid; // batches from the validation split, as published; else from held-out training
                    // data
} pb_bilevel;

typedef struct pb_method {
    const char *name;
    const char *doc;       // one line
    const char *citation;  // where it was published
    const char *peft_type; // of adapter_config.json

    const pb_option *options; // ends with a row whose name is NULL
    size_t options_size;      // of the options struct
    const char *knob;         // the INT option that budget matching turns, or NULL
    bool identity;            // a fresh adapter leaves the backbone's output unchanged
    bool whole_prompt;        // prefill must not be cut
    bool backbone;            // trains the backbone's own weights; has no adapter
    const double *lr_grid;    // learning rates to try, ends with 0; the default is the run's choice
    double lr;                // default learning rate

    // Checks options against the backbone and fills in derived fields. Optional.
    pb_err (*prepare)(void *options, const pb_config *config);
    // Adds every parameter matrix. Required unless `backbone`.
    pb_err (*layout)(pb_layout *l, const void *options, const pb_config *config);
    // Length of the text whose keys and values `init` wants. Optional.
    size_t (*text_len)(const void *options);
    // Fills in what the layout's initialisers cannot. Optional.
    pb_err (*init)(const pb_params *p, const pb_init_args *args);

    // Floats of per-sequence state and layer; `prompt` computes it from the hidden states of the
    // prompt (before and after the layer's first RMSNorm) once, and `pb_state` returns it at every
    // site of that layer, for this and all later tokens of the sequence. Optional, both or none.
    size_t (*state)(const void *options, const pb_config *config);
    void (*prompt)(pb_ctx *c, const void *options, pb_mat *state, pb_mat *before, pb_mat *after);
    // Edits y: returns it, or what stands in its place. Optional.
    pb_mat *(*site)(pb_ctx *c, const void *options, pb_site site, pb_mat *x, pb_mat *y);
    // Positions taken by a prefix, and its keys (as used, after rotation) and values for the
    // current layer: (n, KVH*D) each. Optional, both or none.
    size_t (*prefix_len)(const void *options);
    void (*prefix)(pb_ctx *c, const void *options, pb_mat **k, pb_mat **v);

    // Adds the adapter into a linear, where that is exact. Optional.
    pb_err (*merge)(const pb_params *p, const pb_merge_args *args);
    // Turns a training-time form into the form that is saved and served: `to` are the options of
    // the folded form (copied from p's, to be edited), and `fold_values` fills in its parameters.
    // Optional.
    bool (*fold)(void *to);
    void (*fold_values)(const pb_params *to, const pb_params *from, const pb_config *config);
    // Second level, for methods with PB_THETA parameters. Optional; false: not with these options.
    bool (*bilevel)(const void *options, pb_bilevel *out);
    // Adds the keys that other software expects in adapter_config.json. Optional.
    void (*peft_config)(const void *options, const pb_config *config, json_t *out);
} pb_method;

#define PB_METHOD(name) const pb_method pb_method_##name

extern const pb_method *const pb_methods[]; // NULL-terminated, made by the build
const pb_method *pb_method_find(const char *name);

// The per-sequence state of the current layer, one row per segment.
static inline pb_mat *pb_state(pb_ctx *c)
{
    return c->state;
}

// Parameters outside a step (merge, fold_values): the matrix of this layer and id, or NULL.
static inline real *pb_values(const pb_params *p, size_t layer, int id, size_t *rows, size_t *cols)
{
    const pb_spec *s = pb_layout_find(p->layout, layer, id);
    if (!s)
        return NULL;
    if (rows)
        *rows = s->rows;
    if (cols)
        *cols = s->cols;
    return p->v + s->offset;
}

#endif
