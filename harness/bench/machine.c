#include "bench/internal.h"
#include "bench/product.h"
#include "model/open_model.h"

#include <stdio.h>

pb_err pb_bench_machine(pb_bench *b)
{
    static const struct {
        const char *what;
        double bytes;
    } levels[] = {{"first cache", 16e3},
                  {"second cache", 256e3},
                  {"", 2e6},
                  {"", 8e6},
                  {"", 24e6},
                  {"", 64e6},
                  {"memory", 512e6}};
    int arm;
    for (int threads = 1; threads <= b->plan.threads;
         threads = threads == 1 && b->plan.threads > 1 ? b->plan.threads : b->plan.threads + 1) {
        pb_work w = {0};
        snprintf(w.name, sizeof w.name, "the machine, %d thread%s", threads,
                 threads > 1 ? "s" : "");
        pb_err err = pb_limit_flops(&w, threads);
        for (size_t i = 0; !err && i < sizeof levels / sizeof *levels; i++) {
            err = pb_limit_bytes(&w, levels[i].bytes * (i < 2 ? threads : 1), threads, &arm);
            if (!err)
                snprintf(w.arm[arm].note, sizeof w.arm[arm].note, "%s", levels[i].what);
        }
        if (err)
            pb_work_free(&w);
        PB_TRY(err);
        PB_TRY(pb_bench_measure(b, &w));
    }
    return PB_OK;
}

pb_err pb_bench_kernels(pb_bench *b)
{
    static const size_t rows_default[] = {1, 8, 16, 64, 112, 512};
    static const char *const names[] = {"panels fp32", "panels bf16", "panels int8", "BLIS"};
    enum { BLIS = PB_PANEL_KINDS };
    for (size_t g = 0; g < b->n_geometries; g++) {
        pb_config c;
        PB_TRY(pb_open_config(&c, pb_bench_spec(b->geometry[g])));
        size_t n = b->n_rows ? b->n_rows : sizeof rows_default / sizeof *rows_default;
        for (size_t i = 0; i < n; i++)
            for (int back = 0; back <= 1; back++) {
                pb_work w = {0};
                pb_err err = PB_OK;
                size_t R = b->n_rows ? b->rows[i] : rows_default[i];
                w.tokens = (double)R;
                snprintf(w.name, sizeof w.name, "product with a weight (%zu,%zu), %zu row%s%s",
                         c.ffn, c.width, R, R > 1 ? "s" : "", back ? ", and dx" : "");
                PB_GO(pb_limit_flops(&w, b->plan.threads));
                int first = (int)w.n + PB_PANEL_KINDS, limit[PB_PANEL_KINDS];
                for (int k = 0; k < PB_PANEL_KINDS; k++)
                    PB_GO(pb_limit_bytes(&w,
                                         (double)pb_panels_bytes((pb_panel_kind)k, c.ffn, c.width),
                                         b->plan.threads, &limit[k]));
                for (int k = 0; k <= BLIS; k++) {
                    pb_arm *arm;
                    pb_panel_kind kind = k == BLIS ? PB_PANEL_FP32 : (pb_panel_kind)k;
                    PB_GO(pb_product_arm(&arm, &w, names[k],
                                         &(pb_product_args){.blis = k == BLIS,
                                                            .kind = kind,
                                                            .back = back,
                                                            .rows = R,
                                                            .in = c.width,
                                                            .out = c.ffn,
                                                            .threads = b->plan.threads}));
                    arm->limit = limit[kind];
                    if (k)
                        arm->against = first;
                }
                PB_GO(pb_bench_measure(b, &w));
            done:
                if (err)
                    pb_work_free(&w);
                PB_TRY(err);
            }
    }
    return PB_OK;
}
