// Differentiable operations of the backbone.
#ifndef PB_TENSOR_LAYERS_H
#define PB_TENSOR_LAYERS_H

#include "tensor/context.h"

// A backbone matrix W (out,in), packed into panels: ceil(out/NR) of them, zero-padded (see
// kernels.h); v and d when W itself is trained.
typedef struct pb_weight {
    size_t out, in;
    pb_panel_kind kind;
    void *panels;
    const real *bias; // (out) or NULL
    real *v, *d;      // (out,in) row-major, or NULL
    real *dbias;
} pb_weight;

// Bytes of a matrix's panels: what a product with it reads.
static inline size_t pb_panels_bytes(pb_panel_kind kind, size_t out, size_t in)
{
    return (out + PB_NR - 1) / PB_NR * pb_panel_bytes(kind, in);
}
static inline size_t pb_weight_bytes(const pb_weight *w)
{
    return pb_panels_bytes(w->kind, w->out, w->in);
}
// Panel p from its input i on; in 8 bits a multiple of the group.
static inline void *pb_panel_at(const pb_weight *w, size_t p, size_t i)
{
    return (char *)w->panels + p * pb_panel_bytes(w->kind, w->in) + pb_panel_bytes(w->kind, i);
}
// Packs rows row0..row0+n of W, given row-major. row0 is a multiple of NR. Panels in bfloat16 take
// the upper half of a value as a float: the caller has rounded it. In 8 bits a group of an output
// has the scale max |w| / 127 (rounded to half precision) and the nearest integers, as llama.cpp
// makes Q8_0; values that are such products already are kept exactly.
void pb_pack(const pb_weight *w, const real *rows, size_t row0, size_t n);
// Rows row0..row0+n of W from its panels.
void pb_unpack(real *rows, const pb_weight *w, size_t row0, size_t n);

// Lengths of the rows of W + scale B A: n(out), with A(r,in), B(r,out), r >= 0.
pb_err pb_row_norms(real *n, const pb_weight *w, const real *A, const real *B, size_t r,
                    double scale, int threads);

typedef struct pb_vector { // a trained or frozen vector of the backbone
    const real *v;
    real *d;
} pb_vector;

// x(R,C): rows of the embedding table (V,C) times a scale, from its v, or else from its panels.
pb_mat *pb_embed(pb_ctx *c, const pb_weight *table, double scale, const int32_t *tokens);

// Rows row0.. of x(R,C) become scale * m(n,C).
void pb_put_rows(pb_ctx *c, pb_mat *x, size_t row0, pb_mat *m, double scale);

// y[i](R,out_i) = x(R,in) W_i^T (+ bias), i < n <= 3, in one parallel region.
void pb_linear(pb_ctx *c, pb_mat **y, pb_mat *x, const pb_weight *const *w, size_t n);

// Every run of n values of a row (the row, or its heads): x / sqrt(mean(x^2) + eps) * (offset + w)
// with w(n). Source: Zhang & Sennrich 2019.
pb_mat *pb_rms_norm(pb_ctx *c, pb_mat *x, pb_vector w, size_t n, double offset, double eps);

// Rotary positions, in place, halves of each head as pairs (Hugging Face order). Source: Su et al.
// 2021. The table (R,D) holds each row's cosines, then sines; it is made once a step.
real *pb_rope_table(pb_ctx *c, size_t D, const double *inv_freq);
void pb_rope(pb_ctx *c, pb_mat *x, size_t heads, size_t D, const real *table);

// How scores are made: s = scale q.k, then cap tanh(s / cap) unless cap is 0 (Gemma 2), then the
// mask: with a window, the query at position i sees the positions j with i - j < window (Mistral);
// 0 means all up to i. A prefix of P holds the positions 0 .. P-1, for a window too.
typedef struct pb_scores {
    double scale, cap;
    size_t window;
} pb_scores;

// Causal attention of grouped queries over prefix, cache and own rows: q(R,H*D), k and v(R,KVH*D).
// Segments with a slot first store their keys and values there.
pb_mat *pb_attention(pb_ctx *c, pb_mat *q, pb_mat *k, pb_mat *v, size_t H, size_t KVH, size_t D,
                     pb_scores how);
// Packs key rows (n, KVH*D) into panels [KVH][ceil(n/NR)][D][NR].
void pb_pack_keys(real *panels, const pb_mat *k, size_t KVH, size_t D);

// act(gate) * up
pb_mat *pb_glu(pb_ctx *c, pb_mat *gate, pb_mat *up, pb_gate_kind act);
pb_mat *pb_add(pb_ctx *c, pb_mat *x, pb_mat *y);

// Language-model loss without the logits in memory: for rows with target >= 0,
// nll[i] = -log softmax(h_i W^T)[target], and hits[i] = whether the target is the largest logit.
// Gradients are those of sum_i weight[i] * nll[i]; they are made at once, while recording. Unless
// cap is 0, logits are cap tanh(h W^T / cap).
void pb_lm_loss(pb_ctx *c, pb_mat *h, const pb_weight *head, double cap, const int32_t *target,
                const real *weight, real *nll, uint8_t *hits);

// Logits of selected rows: out(n,V) = h[rows] W^T, capped as above. No gradient.
void pb_logits(pb_ctx *c, real *out, const pb_mat *h, const pb_weight *head, double cap,
               const size_t *rows, size_t n);

#endif
