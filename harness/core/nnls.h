// Least squares with coefficients that are not negative: min |A x - b|, x >= 0.
//
// The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23), on
// the normal equations: G = A^T A, h = A^T b. At the solution the gradient G x - h is zero where x
// is positive and not negative elsewhere. A column that the others already hold stays at zero.
#ifndef PB_CORE_NNLS_H
#define PB_CORE_NNLS_H

#include <stddef.h>

enum { PB_NNLS_MOST = 64 };

// n <= PB_NNLS_MOST columns; G (n,n) symmetric, h (n), x (n).
void pb_nnls(double *x, const double *G, const double *h, size_t n);

#endif
