#include "bench/product.h"

#include "core/clock.h"
#include "core/rng.h"
#include "tensor/gemm.h"
#include "tensor/layers.h"

#include <stdlib.h>
#include <string.h>

typedef struct product {
    pb_product_args a;
    pb_arena memory, step, heads;
    pb_ctx c;
    pb_weight w;
    pb_mat x;
    real *plain, *y, *dy; // W (out,in); what BLIS computes and reads
} product;

static void release(void *self)
{
    product *p = self;
    pb_arena_free(&p->memory);
    pb_arena_free(&p->step);
    pb_arena_free(&p->heads);
    free(p);
}

static void run(product *p)
{
    const pb_product_args *a = &p->a;
    if (a->blis) {
        pb_gemm(false, true, a->rows, a->out, a->in, 1, p->x.v, a->in, p->plain, a->in, 0, p->y,
                a->out, a->threads);
        if (a->back)
            pb_gemm(false, false, a->rows, a->in, a->out, 1, p->dy, a->out, p->plain, a->in, 1,
                    p->x.d, a->in, a->threads);
        return;
    }
    const pb_weight *w = &p->w;
    pb_mat *y, x = p->x;
    p->step.used = p->heads.used = 0;
    p->c.tape = NULL;
    pb_linear(&p->c, &y, &x, &w, 1);
    if (a->back)
        pb_backward(&p->c);
}

static pb_err sample(void *self, bool warm, size_t runs, double *seconds)
{
    product *p = self;
    if (warm)
        run(p);
    double t = pb_now();
    for (size_t i = 0; i < runs; i++)
        run(p);
    *seconds = pb_now() - t;
    return PB_OK;
}

static void fill(real *x, size_t n, uint32_t which)
{
    pb_rng r = pb_rng_make(3, PB_STREAM_SAMPLE, which);
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(pb_rng_uniform(&r) - 0.5);
}

pb_err pb_product_arm(pb_arm **out, pb_work *w, const char *name, const pb_product_args *a)
{
    pb_err err = PB_OK;
    size_t R = a->rows, W = a->out * a->in, x = R * a->in, y = R * a->out;
    size_t panels = pb_panels_bytes(a->kind, a->out, a->in);
    product *p = calloc(1, sizeof *p);
    if (!p)
        return pb_fail(PB_MEMORY, NULL, "no memory for a product");
    p->a = *a;
    PB_GO(pb_arena_init(&p->memory, "product", (W + 2 * x + 2 * y + 1024) * sizeof(real) + panels));
    PB_GO(pb_arena_init(&p->step, "results", (2 * y + 1024) * sizeof(real)));
    PB_GO(pb_arena_init(&p->heads, "headers", 1 << 16));
    p->c = (pb_ctx){.arena = &p->step,
                    .heads = &p->heads,
                    .k = pb_kernels_get(),
                    .record = a->back,
                    .threads = a->threads};
    p->plain = PB_NEW(&p->memory, real, W);
    fill(p->plain, W, 1);
    p->w = (pb_weight){.out = a->out, .in = a->in, .kind = a->kind};
    if (!a->blis) {
        p->w.panels = pb_alloc(&p->memory, panels, 1);
        pb_pack(&p->w, p->plain, 0, a->out);
    }
    p->x = (pb_mat){.v = PB_NEW(&p->memory, real, x), .rows = R, .cols = a->in, .ld = a->in};
    fill(p->x.v, x, 2);
    if (a->back)
        p->x.d = PB_NEW(&p->memory, real, x);
    if (a->blis) {
        p->y = PB_NEW(&p->memory, real, y);
        p->dy = PB_NEW(&p->memory, real, y);
        fill(p->dy, y, 3);
    }
    pb_arm *arm = *out = pb_work_arm(w, PB_ARM_OURS, name);
    arm->self = p;
    arm->sample = sample;
    arm->release = release;
    arm->flops = (a->back ? 4.0 : 2.0) * (double)(R * a->in * a->out);
    arm->bytes = (double)(a->blis ? W * sizeof(real) : panels) * (a->back ? 2 : 1);
done:
    if (err)
        release(p);
    return err;
}
