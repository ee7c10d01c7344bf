// Differentiable operations for method authors. Each computes its result now and, while training,
// remembers how to go backwards: a method writes its forward pass only.
//
// A parameter is named by its id in the method's layout. Every segment of the batch uses its own
// tenant's matrix, whatever its rank: one call, one parallel region, any number of tenants. A
// tenant that lacks the matrix (a LoRA that does not target this linear) is left alone.
//
// What adds to y changes it in place: whoever needs y as it was (an adapter that reads its own
// site) reads a pb_copy of it.
//
// Shapes: R rows (tokens) of the batch, S its segments, C any width. Results whose tenants differ
// in width are as wide as the widest; each segment uses its own part.
#ifndef PB_TENSOR_OPS_H
#define PB_TENSOR_OPS_H

#include "tensor/context.h"

#pragma GCC visibility push(default)

// y(R,out) += scale * (x(R,in) A(r,in)^T) B(r,out), with the scale of B's spec, which may differ
// between tenants, layers and sites. Note B's order: (r,out).
void pb_low_rank(pb_ctx *c, pb_mat *y, pb_mat *x, int A, int B);
// t(R,r) = x(R,in) A(r,in)^T
pb_mat *pb_down(pb_ctx *c, pb_mat *x, int A);
// y(R,out) += scale * t(R,r) B(r,out)
void pb_up(pb_ctx *c, pb_mat *y, pb_mat *t, int B);
// y(R,out) += scale * b * ((d * (x(R,in) A(r,>=in)^T)) B(r,>=out)) with the tenant's vectors d(1,r)
// and b(1,out); b may be -1: none. Of A and B the first columns are used.
void pb_scaled_low_rank(pb_ctx *c, pb_mat *y, pb_mat *x, int A, int d, int B, int b);

// y(R,n) * l, where row s of l(S,>=col0+n) belongs to segment s. `plus_one`: multiplies by 1 + l.
// `response_only`: rows of the prompt stay as they are.
pb_mat *pb_scale(pb_ctx *c, pb_mat *y, pb_mat *l, size_t col0, bool plus_one, bool response_only);
// y(R,n) * the tenant's vector l(1,n)
pb_mat *pb_scale_by(pb_ctx *c, pb_mat *y, int l);
// b + (m / d) (y - b): y(R,n) without the bias b of the layer's linear, times the tenant's vector
// m(1,n), over its vector d(1,n), which is frozen. Where m equals d, it is y exactly.
pb_mat *pb_magnify(pb_ctx *c, pb_mat *y, int linear, int m, int d);
// y(R,n) += scale * the tenant's vector b(1,n), with the scale of b's spec
void pb_shift(pb_ctx *c, pb_mat *y, int b);
// y(R,n) += l, where row s of l(S,n) belongs to segment s
void pb_add_each(pb_ctx *c, pb_mat *y, pb_mat *l);

typedef enum pb_pooler { PB_POOL_LAST, PB_POOL_MEAN, PB_POOL_MAX, PB_POOL_ATTENTION } pb_pooler;
// One row per segment from the rows of its prompt: p(S,C) from h(R,C). Attention weighs row i by
// softmax(w . h_i / sqrt(C)) with the tenant's vector w(1,C); the other poolers ignore w.
pb_mat *pb_pool(pb_ctx *c, pb_mat *h, pb_pooler kind, int w);

typedef enum pb_act { PB_RELU, PB_GELU, PB_ACT_SILU, PB_TANH, PB_IDENTITY } pb_act;
// Elementwise; GELU is the exact one (erf).
pb_mat *pb_activate(pb_ctx *c, pb_mat *t, pb_act kind);
// R(x) = sum_j a_j x^j / (1 + |sum_{i>=1} b_i x^i|) with the tenant's a(1,m+1), b(1,n).
pb_mat *pb_rational(pb_ctx *c, pb_mat *t, int a, int b);
// Coefficients a(7), b(5) with which it is about GELU: where trained ones start. Outside a step.
void pb_rational_gelu(real *a, real *b);

// Gates of experts, one row per segment: g(S,n) becomes the softmax of the k largest of z(S,n), and
// zero elsewhere. Experts are those e whose matrix `first` + e the tenant has; where there is but
// one, its gate is 1 and z may be NULL. Source: Shazeer et al. 2017, arXiv 1701.06538, without
// noise.
void pb_route(pb_ctx *c, pb_mat *g, pb_mat *z, int first, size_t k);
// t(R,n) times the number in column `col` of its segment's row of g(S,>col)
pb_mat *pb_gated(pb_ctx *c, pb_mat *t, pb_mat *g, size_t col);

// A copy, for edits that others who read x must not see.
pb_mat *pb_copy(pb_ctx *c, pb_mat *x);

// x with each value dropped with probability p while training (and the rest divided by 1-p);
// x itself otherwise.
pb_mat *pb_dropout(pb_ctx *c, pb_mat *x, double p);

// A matrix of one row per segment with zeros, or with the tenant's vector v(1,n).
pb_mat *pb_zeros(pb_ctx *c, size_t cols);
pb_mat *pb_each(pb_ctx *c, int v);

// Inside `prefix`, where the hook works on one tenant alone: its matrix, and a new one of zeros.
pb_mat *pb_own(pb_ctx *c, int id);
pb_mat *pb_own_zeros(pb_ctx *c, size_t rows, size_t cols);

#pragma GCC visibility pop

#endif
