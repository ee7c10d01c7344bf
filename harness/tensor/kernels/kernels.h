// Kernels: the loops that take the time, compiled once per instruction set and chosen at run time.
//
// Every output element is computed by one fixed sequence of operations that depends on its own
// inputs alone: not on the number of rows, nor on how rows and columns are split over threads. That
// is why a batch's composition cannot change a result, bit by bit.
//
// Matrices are row-major with a row stride (ld). A *panel* holds NR neighbouring outputs of a
// weight W (out,in) as (in, NR): the layout in which one row and many rows both stream well.
//
// Panels hold numbers as computed with; or in bfloat16: (in, NW) words, word j with output j in its
// lower half and output j + NW in its upper one; or as 8-bit integers: for every group of 32 inputs
// the scales of the NR outputs in half precision, then (32, NR) bytes, of which value is the
// product of byte and scale (the blocks of GGUF's Q8_0, turned around). Widening is exact, and so
// is the product of 8 and 11 bits: products of the same values are the same bits in any storage.
#ifndef PB_TENSOR_KERNELS_H
#define PB_TENSOR_KERNELS_H

#include "tensor/real.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PB_NR = 32,        // outputs of a panel
    PB_NW = PB_NR / 2, // 32-bit words that hold their bfloat16 weights for one input
    PB_GROUP = 32,     // inputs that share the scales of 8-bit weights
    PB_GROUP_BYTES = PB_NR * (PB_GROUP + 2)
};

typedef enum pb_panel_kind {
    PB_PANEL_FP32, // `real`
    PB_PANEL_BF16,
    PB_PANEL_INT8,
    PB_PANEL_KINDS
} pb_panel_kind;

// Bytes of the first k inputs of a panel. In 8 bits a panel can be cut at whole groups only.
static inline size_t pb_panel_bytes(pb_panel_kind kind, size_t k)
{
    return kind == PB_PANEL_FP32   ? k * PB_NR * sizeof(real)
           : kind == PB_PANEL_BF16 ? k * PB_NW * 4
                                   : (k + PB_GROUP - 1) / PB_GROUP * PB_GROUP_BYTES;
}

typedef enum pb_gate_kind { PB_SILU, PB_GELU_TANH, PB_GELU_ERF } pb_gate_kind;

typedef struct pb_kernels {
    const char *isa;

    // y(R,n) = or += x(R,k) w(k,NR); the first n <= NR columns are stored. w is what pb_panel_bytes
    // describes; FP32 panels are (k,NR) reals.
    void (*panel[PB_PANEL_KINDS])(real *y, size_t ldy, const real *x, size_t ldx, const void *w,
                                  size_t R, size_t k, size_t n, bool accumulate);
    // Turns k <= NR inputs of a panel around to t(NR,NR): row j has the weights of output j, zeros
    // after the k-th. That is a piece of a panel of the transpose.
    void (*turn[PB_PANEL_KINDS])(real *t, const void *w, size_t k);
    // t(R,r) = scale * x(R,n) a(r,n)^T
    void (*dots)(real *t, size_t ldt, const real *x, size_t ldx, const real *a, size_t lda,
                 size_t R, size_t r, size_t n, real scale);
    // y(R,n) += scale * t(R,r) b(r,n)
    void (*axpys)(real *y, size_t ldy, const real *t, size_t ldt, const real *b, size_t ldb,
                  size_t R, size_t r, size_t n, real scale);
    // g(r,n) += scale * t(R,r)^T x(R,n)
    void (*outer)(real *g, size_t ldg, const real *t, size_t ldt, const real *x, size_t ldx,
                  size_t R, size_t r, size_t n, real scale);

    real (*dot)(const real *x, const real *y, size_t n);
    // y = a*x + b*y
    void (*axpby)(real *y, real a, const real *x, real b, size_t n);
    // y = x1 * x2 ; y += x1 * x2
    void (*mul)(real *y, const real *x1, const real *x2, size_t n);
    void (*mul_add)(real *y, const real *x1, const real *x2, size_t n);

    // m = act(g) * u, and its gradient: dg += dm u act'(g), du += dm act(g). dg, du may be NULL.
    void (*glu)(real *m, const real *g, const real *u, size_t n, pb_gate_kind act);
    void (*glu_back)(real *dg, real *du, const real *dm, const real *g, const real *u, size_t n,
                     pb_gate_kind act);

    // One block of NR keys of online softmax, for R queries. s(R,NR) holds raw scores and becomes
    // exp(scale s - m); only lanes first[i] <= j < valid[i] count, the others become 0. first may
    // be NULL: from lane 0 on. m, l, o(R,D) are the running maximum, sum and weighted values.
    // Source: Milakov & Gimelshein, arXiv 1805.02867.
    void (*soft_block)(real *s, const size_t *first, const size_t *valid, real *m, real *l, real *o,
                       size_t ldo, size_t R, size_t D, real scale);
    // s(R,NR) -> exp(scale s - lse[i]), masked lanes 0: the probabilities again, for the backward.
    void (*soft_probs)(real *s, const size_t *first, const size_t *valid, const real *lse,
                       size_t ldlse, size_t R, real scale);
    // x = cap tanh(scale x / cap) of n values.
    void (*soft_cap)(real *x, size_t n, real scale, real cap);
    // log(sum(exp(x))) of n values, and x = weight * softmax(x) for a known log-sum-exp.
    real (*log_sum_exp)(const real *x, size_t n);
    void (*softmax)(real *x, size_t n, real lse, real weight);

    // What the machine can do, for benchmarks: n rounds of fused multiply-adds that wait for
    // nothing
    // (*flops, may be NULL: those of a round), and the sum of n values, 8 vectors at a time.
    real (*peak)(size_t n, size_t *flops);
    real (*sum)(const real *x, size_t n);
} pb_kernels;

// The fastest set for this processor, or the one that PB_ISA in the environment names.
const pb_kernels *pb_kernels_get(void);
// A set by name ("portable", "avx2", "avx512"); NULL when the build or the processor lacks it.
const pb_kernels *pb_kernels_find(const char *isa);

#endif
