// The context of one step: its batch, its memory, its tape.
//
// A batch is rows (tokens) and segments (runs of neighbouring rows of one sequence). Operations
// work on the *selected* segments: all of them for the backbone, those of one method for its hooks.
// While the tape records, an operation pushes its backward; inference is the same code without the
// tape. A dry step only counts: memory, FLOPs, bytes and parallel regions.
#ifndef PB_TENSOR_CONTEXT_H
#define PB_TENSOR_CONTEXT_H

#include "core/arena.h"
#include "tensor/kernels/kernels.h"
#include "tensor/params.h"
#include <stdint.h>

#pragma GCC visibility push(default)

typedef struct pb_segment {
    size_t row0, n_rows; // its rows of the batch
    size_t pos0;         // position of its first row in the sequence; 0 starts a sequence
    size_t n_prompt;     // how many of its rows belong to the prompt
    int tenant;          // index into the step's tenants, or -1 for the bare backbone
    int slot;            // KV slot, or -1: keys and values are the segment's own rows only
    bool front;          // rows are the tenant's virtual tokens; steps add such segments themselves
} pb_segment;

// What the rows of a matrix stand for.
typedef enum pb_rows_of { PB_TOKENS, PB_SEGMENTS, PB_TENANT } pb_rows_of;

typedef struct pb_mat {
    real *v; // (rows, cols) with row stride ld
    real *d; // gradient in the same shape; NULL when none is needed
    size_t rows, cols, ld;
    pb_rows_of of;
} pb_mat;

// A run of rows with one set of parameters: the unit of work of an operation.
typedef struct pb_item {
    size_t row, n;
    size_t seg;
    const pb_params *params;
} pb_item;

typedef struct pb_selection {
    size_t n; // segments
    const uint32_t *seg;
    const pb_item *rows; // runs of at most PB_RUN token rows
    size_t n_rows;
    const pb_item *segs; // one item per segment, row = its number
} pb_selection;

enum { PB_RUN = 64 };

// Keys and values in front of position 0 of a tenant's sequences, or of one sequence.
typedef struct pb_prefix {
    size_t n;             // positions
    const real *k_panels; // [KVH][ceil(n/NR)][D][NR]
    const pb_mat *k, *v;  // (n, KVH*D)
    bool own;             // of one sequence: no other adds to its gradients
} pb_prefix;

// Keys and values of all slots.
typedef struct pb_kv {
    size_t slots, capacity; // capacity: positions per slot, a multiple of PB_NR
    size_t layers, kv_heads, head_dim, state;
    real *k;     // [slot][layer][KVH][capacity/NR][D][NR]
    real *v;     // [slot][layer][capacity][KVH*D]
    real *saved; // [slot][layer][state]: per-sequence state of methods, and its keys in panels
} pb_kv;

typedef enum pb_component {
    PB_BACKBONE,
    PB_ATTENTION,
    PB_ADAPTER,
    PB_HEAD,
    PB_COMPONENTS
} pb_component;

// What a step does, by component: counted by the operations themselves.
typedef struct pb_counts {
    double flops, bytes; // bytes: parameters, keys and values read; activations are not counted
    size_t regions;      // parallel regions, each ends in a barrier; work of one thread is none
    int64_t ns;          // time, of steps that are timed (pb_step_time)
} pb_counts;

typedef struct pb_ctx pb_ctx;

typedef struct pb_node {
    void (*back)(pb_ctx *c, struct pb_node *self);
    struct pb_node *prev;
    size_t layer;
    const pb_selection *sel;
    const pb_params *tenant;
    int parts, part;
} pb_node;

struct pb_ctx {
    pb_arena *arena; // matrices; a measuring arena in a dry step
    pb_arena *heads; // headers, nodes, index lists: always real memory
    const pb_kernels *k;
    bool dry, record, training;
    int threads;
    uint64_t seed, step; // for dropout

    const pb_segment *seg;
    size_t n_seg, n_rows;
    const pb_params *const *seg_params; // per segment; NULL for the bare backbone
    const pb_prefix *const *seg_prefix; // per segment, of the current layer; entries may be NULL
    const size_t *seg_shift;            // per segment: positions taken by its prefix
    const pb_selection *all;
    pb_kv *kv;

    const pb_selection *sel; // what operations work on now
    const pb_params *tenant; // set while a hook computes on one tenant's parameters alone
    int parts, part;         // inside a composition: of how many methods, and whose hook runs
    size_t layer;
    const struct pb_weight *linears; // of that layer, in the order of pb_linear_id
    pb_mat *state;                   // (S, n) of the current method and layer, or NULL
    pb_component component;
    pb_counts counts[PB_COMPONENTS];
    bool timed;
    int64_t since; // when the component was entered
    pb_node *tape;
    uint32_t dropouts; // numbers the dropout calls of a step

    // In a dry step, operations compare shapes: the first mistake, in words, and who made it.
    const char *method, *hook;
    char wrong[320];
};

// Records a mistake of a method, if it is the first one.
void pb_wrong(pb_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// In a dry step: every selected tenant's matrix `id` has so many columns (or rows) as `of`, or as
// part of a mixed batch at most so many.
void pb_want_cols(pb_ctx *c, const char *op, int id, size_t cols, const char *of);
void pb_want_rows(pb_ctx *c, const char *op, int id, size_t rows, const char *of);

// A new matrix. Its values are not set; its gradient, when `grad`, is zero.
pb_mat *pb_new(pb_ctx *c, size_t rows, size_t cols, pb_rows_of of, bool grad);
// Columns col0..col0+n of a matrix, sharing its memory.
pb_mat *pb_cols(pb_ctx *c, const pb_mat *m, size_t col0, size_t n);
// Gives a matrix a gradient when it has none and the tape records.
void pb_want_grad(pb_ctx *c, pb_mat *m);

// Work items of a matrix under the current selection.
const pb_item *pb_items(const pb_ctx *c, const pb_mat *m, pb_item *whole, size_t *n);

// A tenant's matrix `id` at the current layer, or false when it has none.
typedef struct pb_view {
    real *v, *d; // d is NULL unless it is trained
    size_t rows, cols;
    double scale; // of its spec
} pb_view;
bool pb_lookup(const pb_ctx *c, const pb_params *p, int id, pb_view *out);
// Largest number of rows (or columns) of matrix `id` over the selection; 0 when nobody has it.
size_t pb_most_rows(const pb_ctx *c, int id);
size_t pb_most_cols(const pb_ctx *c, int id);
// Whether anybody in the selection trains it.
bool pb_trained(const pb_ctx *c, int id);

// Allocates a node (size bytes, first member pb_node) and puts it on the tape.
void *pb_push(pb_ctx *c, size_t size, void (*back)(pb_ctx *, pb_node *));
// Runs the tape backwards.
void pb_backward(pb_ctx *c);

static inline void pb_counts_add(pb_counts *to, const pb_counts *a)
{
    to->flops += a->flops;
    to->bytes += a->bytes;
    to->regions += a->regions;
    to->ns += a->ns;
}

// Adds to the current component's counts. `regions` are parallel regions of `work` multiply-adds
// each, counted if they are large enough to be shared out.
void pb_count(pb_ctx *c, double flops, double bytes, size_t regions, double work);

// From here on, counts and time are those of another component.
void pb_enter(pb_ctx *c, pb_component component);

// Work below this many multiply-adds is done by one thread: waking the others would cost more.
#define PB_PARALLEL_WORK 200000
#define PB_FOR(c, work)                                                                            \
    PB_PRAGMA(omp parallel for schedule(static) num_threads((c)->threads) if ((work) > PB_PARALLEL_WORK))
#define PB_PRAGMA(x) _Pragma(#x)

#pragma GCC visibility pop

#endif
