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
#include "core/plugin.h"
#include "model/config.h"
#include "tensor/ops.h"

#pragma GCC visibility push(default)

// Where a method can act. x is the input of the site's linear as it read it, y its output (at
// LAYER_IN, the layer's input; at ATTN_OUT and FFN_OUT, what is added to the residual stream, x
// being the normalised input of the block). Where a backbone has norms behind its blocks (Gemma 2),
// O and DOWN are before them, ATTN_OUT and FFN_OUT after. Q and K are what the linears give, before
// norms of their heads (Qwen3) and the rotation; Q_ROT and K_ROT are after both.
//
// At MID (the input of DOWN) and at the sites that end in _IN, y is what the linear is about to
// read. Q_IN, K_IN and V_IN share theirs, as GATE_IN and UP_IN do: edit a pb_copy of it there.
#define PB_SITES(X)                                                                                \
    X(LAYER_IN)                                                                                    \
    X(Q_IN)                                                                                        \
    X(K_IN)                                                                                        \
    X(V_IN)                                                                                        \
    X(Q)                                                                                           \
    X(K)                                                                                           \
    X(V)                                                                                           \
    X(Q_ROT)                                                                                       \
    X(K_ROT)                                                                                       \
    X(O_IN)                                                                                        \
    X(O)                                                                                           \
    X(ATTN_OUT)                                                                                    \
    X(GATE_IN)                                                                                     \
    X(UP_IN)                                                                                       \
    X(GATE)                                                                                        \
    X(UP)                                                                                          \
    X(MID)                                                                                         \
    X(DOWN)                                                                                        \
    X(FFN_OUT)
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
bool pb_linear_has_bias(const pb_config *c, pb_linear_id l);
// The linear whose output (or input) a site is, or PB_N_LINEARS.
pb_linear_id pb_site_linear(pb_site s);
pb_linear_id pb_site_input(pb_site s);

// ---------------------------------------------------------------- options

typedef enum pb_option_type {
    PB_OPT_INT,   // long
    PB_OPT_REAL,  // double
    PB_OPT_BOOL,  // bool
    PB_OPT_ENUM,  // int: index into names
    PB_OPT_FLAGS, // unsigned: a set of names; on the command line "q,v,up"
    // const char *: linears of layers, as a list of NAME or NAME@LAYERS such as "q,v@0-3+7", and
    // the same with a number each, "q:4,down@0-3:16", of which the last that names a linear counts.
    // The texts live as long as the program: options are copied as plain memory.
    PB_OPT_SITES,
    PB_OPT_SITE_VALUES
} pb_option_type;

typedef struct pb_option {
    const char *name;
    pb_option_type type;
    size_t offset;            // in the method's options struct
    const char *def;          // default, as text
    double min, max;          // of INT, REAL and SITE_VALUES
    const char *const *names; // of ENUM, FLAGS and SITES (the linears), NULL-terminated
    const char *doc;          // one line
    bool per_tenant; // tenants that differ in this option alone may share a parallel region
} pb_option;

// Whether a list of SITES or SITE_VALUES names a linear of a layer; *value is the number beside it.
bool pb_site_listed(const char *list, size_t layer, pb_linear_id l, double *value);
// Fails when a list names a layer that the backbone does not have.
pb_err pb_sites_fit(const char *list, const pb_config *c);
// The list of those linears whose `value` (L, PB_N_LINEARS) is not NaN, with the numbers or
// without; NULL when out of memory.
const char *pb_sites_list(const double *value, size_t layers, bool numbers);

// ---------------------------------------------------------------- files

// A key of adapter_config.json: how a method's options are written for others, and what of other
// programs' files is understood. One of the fields behind `key` says what it is. Options that no
// key holds are kept under the suite's own key.
//
// SITES are written and read as PEFT's module lists (and read as regular expressions and
// "all-linear"), SITE_VALUES as its patterns, names and numbers as they are.
typedef struct pb_peft_key {
    const char *key;
    const char *option; // its value is this option's
    const char *only;   // a JSON list of what is supported; the first is written, unless it is null
    size_t (*follows)(const pb_config *c); // it follows from the backbone, and must agree
    bool required;
    bool selects; // exclude_modules, layers_to_transform, layers_pattern: which modules SITES mean
    bool idle;    // it changes nothing, and is not written unless `only` says what
    // Of SITE_VALUES whose names end so in files, and whose numbers stand there as lists of true
    // and false, so many of them true, of a length that is another option's value.
    const char *ends, *length;
} pb_peft_key;

// ---------------------------------------------------------------- the method

// The frozen weight of a linear, row-major: w(out,in). Outside a step.
struct pb_model;
void pb_frozen_weight(const struct pb_model *m, size_t layer, pb_linear_id l, real *w);
// Lengths of the rows of W + scale B A: n(out), with A(r,in) and B(r,out); r may be 0.
pb_err pb_frozen_norms(const struct pb_model *m, size_t layer, pb_linear_id l, real *n,
                       const real *A, const real *B, size_t r, double scale);

// What `init` may use beside the random initial values that the layout asked for.
typedef struct pb_init_args {
    const pb_config *config;
    const struct pb_model *backbone; // NULL where the values of an adapter do not matter
    uint64_t seed;
    // A text's rows of the embedding table (n_text,C), and its keys (rotated) and values when it is
    // run through the backbone, (L, n_text, KVH*D) each; NULL when the method did not ask by
    // `text_len`.
    size_t n_text;
    const real *text_x, *text_k, *text_v;
} pb_init_args;

// A step of training. Gradients are those of the step, before it is made and after.
typedef struct pb_train_args {
    const pb_config *config;
    const struct pb_model *backbone;
    size_t step, steps; // which one, from 1, and of how many
    real *statistics;   // the method's blocks, one behind the other; zero at first
} pb_train_args;

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
    // Of a method whose files, once folded, are those of the method with its peft_type and are read
    // as such: its options that have other defaults, "name=value name=value". Else NULL.
    const char *variant;
    const char *doc;       // one line
    const char *citation;  // where it was published
    const char *formula;   // one formula per line, for `methods show`. Optional
    const char *bibtex;    // e.g. by PB_ARXIV. Optional
    const char *peft_type; // of adapter_config.json
    const char
        *peft_where; // keys that tell methods of one type apart: {"use_dora": true}. Optional
    const pb_peft_key *peft_keys; // and its keys; ends with a row whose key is NULL. Optional

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
    // Length of the text from which `init` starts. Optional.
    size_t (*text_len)(const void *options);
    // Fills in what the layout's initialisers cannot. Optional.
    pb_err (*init)(const pb_params *p, const pb_init_args *args);
    // Computes parameters that are derived from others (frozen and not saved): after loading (no
    // backbone is at hand then: what needs it has to wait), before serving, before training.
    // Optional.
    pb_err (*derive)(const pb_params *p, const struct pb_model *backbone);

    // Floats of per-sequence state and layer; `prompt` computes it from the hidden states of the
    // prompt (before and after the layer's first RMSNorm) once, and `pb_state` returns it at every
    // site of that layer, for this and all later tokens of the sequence. Optional, both or none.
    size_t (*state)(const void *options, const pb_config *config);
    void (*prompt)(pb_ctx *c, const void *options, pb_mat *state, pb_mat *before, pb_mat *after);
    // Edits y: returns it, or what stands in its place. Optional.
    pb_mat *(*site)(pb_ctx *c, const void *options, pb_site site, pb_mat *x, pb_mat *y);
    // Positions in front of every sequence, and what stands there. Optional; `prefix_len` and one
    // of these:
    size_t (*prefix_len)(const void *options);
    // - keys (as used, after rotation) and values for the current layer, (n, KVH*D) each, made of
    //   the tenant's parameters alone;
    void (*prefix)(pb_ctx *c, const void *options, pb_mat **k, pb_mat **v);
    // - or virtual tokens: rows (n,C) that take the place of rows of the embedding table (scaled as
    //   those are, see pb_config.embed_scaled) and go through all layers. They come first and
    //   attention is causal, so their keys and values too depend on the tenant's parameters alone:
    //   they are computed once, by pb_adapter_serve, and served as a prefix. A training step runs
    //   the rows as one segment of its own, whose keys and values its sequences see.
    pb_mat *(*virtual_tokens)(pb_ctx *c, const void *options);
    // - or keys and values made from the prompt, a row for each sequence with those of its n
    //   positions one after the other: (S, n*KVH*D) each, out of what `prompt` left in `pb_state`.
    void (*prompt_prefix)(pb_ctx *c, const void *options, pb_mat **k, pb_mat **v);

    // Does to a linear's weight, where that is exact, what the method does to its output; and what
    // it does to its input. Optional; `merge_input` is for methods that edit inputs.
    pb_err (*merge)(const pb_params *p, const pb_merge_args *args);
    pb_err (*merge_input)(const pb_params *p, const pb_merge_args *args);
    // Refuses, by name, what is not exact with these options on this backbone. Optional.
    pb_err (*mergeable)(const void *options, const pb_config *config);
    // Turns a training-time form into the form that is saved and served: `to` are the options of
    // the folded form (copied from p's, to be edited), and `fold_values` fills in its parameters.
    // Optional.
    bool (*fold)(void *to);
    void (*fold_values)(const pb_params *to, const pb_params *from, const pb_config *config);
    // Leaves out of files what these values make superfluous: `to` are the options of the smaller
    // form, which `fold_values` fills in; false: nothing. Optional.
    bool (*trim)(void *to, const pb_params *from);
    // In training, beside the forward pass: after the backward pass, before gradients are clipped,
    // and after the parameters were updated. Both may change parameters and gradients. Optional.
    pb_err (*gradient)(const pb_params *p, const pb_train_args *args);
    pb_err (*updated)(const pb_params *p, const pb_train_args *args);
    // The first step whose values may be the result, of a method that before has more parameters
    // than its budget (see pb_spec.counted). Optional.
    size_t (*settles)(const void *options, size_t steps);
    size_t statistics; // blocks as large as the parameters' own that they keep, in checkpoints too
    // Second level, for methods with PB_THETA parameters. Optional; false: not with these options.
    bool (*bilevel)(const void *options, pb_bilevel *out);

    const struct pb_parts
        *parts; // of a composition, made at run time; NULL in a method's own table
} pb_method;

// A BibTeX entry of what is on arXiv.
#define PB_ARXIV(key, title, author, year, eprint)                                                 \
    "@misc{" key ",\n  title = {" title "},\n  author = {" author "},\n  year = {" year            \
    "},\n  eprint = {" eprint "},\n  archivePrefix = {arXiv}\n}\n"

// What a plugin and the program that loads it must agree on.
#define PB_METHOD_SIZES                                                                            \
    ((uint32_t)(sizeof(pb_method) + 3 * sizeof(pb_option) + 5 * sizeof(pb_peft_key) +              \
                7 * sizeof(pb_ctx) + 11 * sizeof(pb_mat) + 13 * sizeof(pb_spec) +                  \
                17 * sizeof(pb_config) + 19 * sizeof(pb_init_args) + 23 * sizeof(pb_merge_args) +  \
                29 * sizeof(pb_segment) + 1000 * PB_N_SITES + 100000 * sizeof(real)))

#ifdef PB_PLUGIN
#define PB_METHOD(name)                                                                            \
    PB_ENTRY(method, name, PB_METHOD_SIZES);                                                       \
    const pb_method pb_method_##name
#else
#define PB_METHOD(name) const pb_method pb_method_##name
#endif

const pb_method *pb_method_at(size_t i); // of all there are, or NULL
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

#pragma GCC visibility pop

#endif
