// Dense products of trainable matrices, through BLIS: row-major, c = alpha op(a) op(b) + beta c.
#ifndef PB_TENSOR_GEMM_H
#define PB_TENSOR_GEMM_H

#include "tensor/real.h"
#include <stdbool.h>
#include <stddef.h>

// op(a) is (m,k), op(b) is (k,n), c is (m,n).
void pb_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, real alpha, const real *a, size_t lda,
             const real *b, size_t ldb, real beta, real *c, size_t ldc, int threads);

// Name of the micro-kernel set that BLIS runs, for the record.
const char *pb_gemm_kernel(void);

#endif
