// The number type of the whole suite: float. The tests build everything a second time with double
// (PB_DOUBLE), where gradients can be checked against finite differences.
#ifndef PB_TENSOR_REAL_H
#define PB_TENSOR_REAL_H

#ifdef PB_DOUBLE
typedef double real;
#else
typedef float real;
#endif

#endif
