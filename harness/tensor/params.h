// Parameter matrices of one adapter: their layout, and their values in one block of memory.
#ifndef PB_TENSOR_PARAMS_H
#define PB_TENSOR_PARAMS_H

#include "core/error.h"
#include "core/rng.h"
#include "tensor/real.h"
#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(default)

enum { PB_GLOBAL = -1 }; // layer of a parameter that belongs to no layer

typedef enum pb_init {
    PB_INIT_ZERO,
    PB_INIT_ONE,
    PB_INIT_NORMAL,  // normal with standard deviation `gain`
    PB_INIT_UNIFORM, // uniform on -gain..gain
    PB_INIT_HOOK     // filled in by the method's `init`
} pb_init;

enum {
    PB_FROZEN = 1,     // part of the adapter, but not trained
    PB_TRANSPOSED = 2, // files hold the transpose of what is in memory
    PB_THETA = 4,      // updated by the second level of a bi-level method, see method.h
    PB_NO_DECAY = 8,   // no weight decay
    PB_UNSAVED = 16,   // derived, not written to files
    PB_VECTOR = 32,    // one row, which files hold as a vector
    PB_CHOSEN = 64     // parts of it may be used by no sequence of a batch: experts, their router
};

typedef struct pb_spec {
    char name[104]; // as in files, without the folder-wide prefix, e.g.
                    // "self_attn.q_proj.lora_A.weight"
    int layer;      // or PB_GLOBAL
    int id;         // the method's own number for this matrix within a layer
    size_t rows, cols;
    pb_init init;
    double gain;
    unsigned flags;
    double lr_scale; // learning rate relative to the run's
    double scale;    // factor of what pb_low_rank, pb_up and pb_shift add, when this is their B
    size_t counted;  // trainable values that a budget counts, if fewer than all; else 0
    size_t offset;   // of its first value in the block
} pb_spec;

typedef struct pb_layout {
    pb_spec *spec;
    size_t n, cap;
    size_t layers, ids; // the index covers (layers + 1, ids)
    int *index;         // position in spec by (layer + 1) * ids + id, or -1
    size_t size;        // values in the block, with padding to 64-byte boundaries
    size_t trainable;   // trainable values, without padding
    size_t counted;     // those that a budget counts
    size_t saved;       // values written to a file
} pb_layout;

// Appends a matrix; returns it for further settings (lr_scale and scale start at 1). NULL when out
// of memory.
pb_spec *pb_layout_add(pb_layout *l, int layer, int id, const char *name, size_t rows, size_t cols,
                       pb_init init, double gain, unsigned flags);
// Makes the index and the offsets, after the last matrix was added.
pb_err pb_layout_finish(pb_layout *l, size_t layers);
void pb_layout_free(pb_layout *l);

// A layer's own matrix, or else the global one of that id; NULL when there is none.
static inline const pb_spec *pb_layout_find(const pb_layout *l, size_t layer, int id)
{
    if ((size_t)id >= l->ids)
        return NULL;
    int i = l->index[(layer + 1) * l->ids + (size_t)id];
    if (i < 0)
        i = l->index[id];
    return i < 0 ? NULL : &l->spec[i];
}

// Values (and, while training, gradients) of one adapter, and the options it was made with.
typedef struct pb_params {
    const pb_layout *layout;
    const void *options;
    real *v; // (layout->size)
    real *d; // gradients, or NULL
} pb_params;

// Fills in the initial values: a pure function of the seed, matrix by matrix.
void pb_params_init(const pb_params *p, uint64_t seed);
// The same for one matrix, the i-th of a layout.
void pb_params_init_one(real *v, const pb_layout *l, size_t i, uint64_t seed);

#pragma GCC visibility pop

#endif
