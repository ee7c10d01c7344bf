#include "bench/rig.h"

#include "core/clock.h"
#include "core/rng.h"
#include "core/threads.h"
#include "train/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pb_rig {
    pb_rig_args a;
    pb_step *st;
    pb_segment *seg;          // (sequences)
    int32_t *tokens, *target; // (rows)
    real *weight, *nll;       // (rows)
    size_t *last;             // (sequences): each one's last row
    real *logits;             // (sequences, V)
    real *moments;            // (2, size of the trained block)
    size_t t;
    pb_counts counts[PB_COMPONENTS];
};

static const pb_params *trained(const pb_rig *r)
{
    return r->a.n_adapters ? &r->a.adapters[0]->params : &r->a.model->params;
}

static void train(pb_rig *r, const pb_batch *b)
{
    static const pb_adamw adamw = {0.9, 0.999, 1e-8, 0};
    const pb_params *p = trained(r);
    size_t n = p->layout->size;
    memset(p->d, 0, n * sizeof(real));
    pb_mat *h = pb_forward(r->st, b, true, 1, r->t);
    pb_step_loss(r->st, h, r->target, r->weight, r->nll, NULL);
    pb_step_backward(r->st);
    double norm = pb_grad_norm(p, false);
    if (norm > 1)
        pb_grad_scale(p, 1 / norm, false);
    pb_adamw_step(p, r->moments, r->moments + n, &adamw, 1e-6, ++r->t, false);
    if (!r->a.n_adapters)
        pb_model_repack(r->a.model);
}

static void run(pb_rig *r)
{
    pb_batch b = {r->a.sequences * r->a.tokens, r->a.sequences, r->tokens, r->seg};
    if (r->a.kind == PB_RIG_TRAIN) {
        train(r, &b);
        return;
    }
    pb_mat *h = pb_forward(r->st, &b, false, 0, 0);
    pb_step_logits(r->st, h, r->last, r->a.sequences, r->logits);
}

pb_err pb_rig_sample(void *rig, bool warm, size_t runs, double *seconds)
{
    pb_rig *r = rig;
    if (warm)
        run(r);
    double t = pb_now();
    for (size_t i = 0; i < runs; i++)
        run(r);
    *seconds = pb_now() - t;
    for (size_t i = 0; r->logits && i < r->a.sequences; i++)
        if (!isfinite(r->logits[i * r->a.model->config.vocab]))
            return pb_fail(PB_DIVERGED, NULL, "a logit is not finite");
    return PB_OK;
}

static void random_tokens(int32_t *t, size_t n, size_t V, uint32_t which)
{
    pb_rng g = pb_rng_make(7, PB_STREAM_SAMPLE, which);
    for (size_t i = 0; i < n; i++)
        t[i] = (int32_t)pb_rng_below(&g, V);
}

static int tenant_of(const pb_rig_args *a, size_t i)
{
    return a->n_adapters ? (int)(i % a->n_adapters) : -1;
}

// Fills the cache of every sequence in front of what is decoded.
static void fill(pb_rig *r)
{
    size_t C = r->a.context;
    int32_t *text = malloc(C * sizeof *text);
    for (size_t i = 0; text && i < r->a.sequences; i++) {
        random_tokens(text, C, r->a.model->config.vocab, (uint32_t)(100 + i));
        pb_segment s = {.n_rows = C, .n_prompt = C, .tenant = tenant_of(&r->a, i), .slot = (int)i};
        pb_batch b = {C, 1, text, &s};
        (void)pb_forward(r->st, &b, false, 0, 0);
    }
    free(text);
}

pb_err pb_rig_new(pb_rig **out, const pb_rig_args *a)
{
    pb_err err = PB_OK;
    size_t n = a->sequences, R = n * a->tokens, V = a->model->config.vocab;
    bool training = a->kind == PB_RIG_TRAIN, decoding = a->kind == PB_RIG_DECODE;
    pb_rig *r = *out = calloc(1, sizeof *r);
    if (!r)
        return pb_fail(PB_MEMORY, NULL, "no memory for a benchmark");
    r->a = *a;
    size_t block = training ? trained(r)->layout->size : 0;
    r->seg = calloc(n, sizeof *r->seg);
    r->tokens = calloc(R, sizeof *r->tokens);
    r->target = calloc(R, sizeof *r->target);
    r->weight = calloc(R, sizeof *r->weight);
    r->nll = calloc(R, sizeof *r->nll);
    r->last = calloc(n, sizeof *r->last);
    r->logits = training ? NULL : calloc(n * V, sizeof *r->logits);
    r->moments = training ? calloc(2 * block, sizeof *r->moments) : NULL;
    if (!r->seg || !r->tokens || !r->target || !r->weight || !r->nll || !r->last ||
        (training ? !r->moments : !r->logits)) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for a benchmark of %zu rows", R);
        goto done;
    }
    pb_step_limits limits = {.rows = decoding && a->context > R ? a->context : R,
                             .segments = n,
                             .train = training,
                             .loss = training,
                             .slots = training ? 0 : n,
                             .positions = training ? 0 : a->context + a->tokens};
    int before = pb_threads();
    PB_GO(pb_threads_set(a->threads)); // a step keeps the number that it is made with
    err = pb_step_new(&r->st, a->model, a->adapters, a->n_adapters, &limits);
    (void)pb_threads_set(before);
    PB_GO(err);
    random_tokens(r->tokens, R, V, 1);
    random_tokens(r->target, R, V, 2);
    for (size_t i = 0; i < R; i++)
        r->weight[i] = (real)(1 / (double)R);
    if (decoding)
        fill(r);
    for (size_t i = 0; i < n; i++) {
        r->seg[i] = (pb_segment){.row0 = i * a->tokens,
                                 .n_rows = a->tokens,
                                 .pos0 = decoding ? a->context : 0,
                                 .n_prompt = decoding   ? 0
                                             : training ? a->tokens / 2
                                                        : a->tokens,
                                 .tenant = tenant_of(a, i),
                                 .slot = training ? -1 : (int)i};
        r->last[i] = (i + 1) * a->tokens - 1;
    }
    run(r);
    memcpy(r->counts, pb_step_counts(r->st), sizeof r->counts);
done:
    if (err) {
        pb_rig_free(r);
        *out = NULL;
    }
    return err;
}

void pb_rig_free(void *rig)
{
    pb_rig *r = rig;
    if (!r)
        return;
    pb_step_free(r->st);
    free(r->seg);
    free(r->tokens);
    free(r->target);
    free(r->weight);
    free(r->nll);
    free(r->last);
    free(r->logits);
    free(r->moments);
    free(r);
}

const pb_counts *pb_rig_counts(const pb_rig *r)
{
    return r->counts;
}

size_t pb_rig_bytes(const pb_rig *r)
{
    size_t bytes = pb_step_bytes(r->st) + pb_step_kv_bytes(r->st);
    for (size_t i = 0; i < r->a.n_adapters; i++)
        bytes += pb_adapter_resident(r->a.adapters[i]);
    return bytes;
}

pb_err pb_rig_arm(pb_arm **out, pb_work *w, const char *name, const pb_rig_args *args)
{
    pb_rig *r;
    PB_TRY(pb_rig_new(&r, args));
    pb_arm *a = *out = pb_work_arm(w, PB_ARM_OURS, name);
    a->self = r;
    a->sample = pb_rig_sample;
    a->release = pb_rig_free;
    a->memory = (double)pb_rig_bytes(r);
    for (int c = 0; c < PB_COMPONENTS; c++) {
        a->flops += r->counts[c].flops;
        a->bytes += r->counts[c].bytes;
    }
    return PB_OK;
}
