// Arms that are one product with a backbone weight: y (rows,out) = x (rows,in) W^T, W random.
#ifndef PB_BENCH_PRODUCT_H
#define PB_BENCH_PRODUCT_H

#include "bench/bench.h"

typedef struct pb_product_args {
    bool blis; // BLIS, with W as it is; else our panels:
    pb_panel_kind kind;
    bool back; // and dx += dy W after it
    size_t rows, in, out;
    int threads;
} pb_product_args;

pb_err pb_product_arm(pb_arm **arm, pb_work *w, const char *name, const pb_product_args *args);

#endif
