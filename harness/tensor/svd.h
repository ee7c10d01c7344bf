// The largest singular values and vectors of a matrix, by randomised subspace iteration.
#ifndef PB_TENSOR_SVD_H
#define PB_TENSOR_SVD_H

#include "core/error.h"
#include "tensor/real.h"
#include <stddef.h>
#include <stdint.h>

// w(out,in) ~ sum_k s_k u_k v_k^T of the r <= min(out,in) largest s: u(r,out), s(r), v(r,in). Exact
// to rounding when r + 10 reaches min(out,in); else close where singular values fall off.
pb_err pb_svd_top(real *u, real *s, real *v, const real *w, size_t out, size_t in, size_t r,
                  uint64_t seed);

#endif
