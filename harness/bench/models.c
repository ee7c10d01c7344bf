#include "bench/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t regions_of(const pb_rig *r)
{
    size_t n = 0;
    for (int c = 0; c < PB_COMPONENTS; c++)
        n += pb_rig_counts(r)[c].regions;
    return n;
}

// The peers of the training arm that was added last.
static pb_err train_rivals(pb_bench *b, pb_work *w, const pb_subject *s, const pb_rig_args *r,
                           const char *method)
{
    bool full = !strcmp(method, "full"), A = !strcmp(s->name, "A"), B = !strcmp(s->name, "B");
    pb_bench_rival v = {.peer = "pytorch",
                        .label = method,
                        .what = "train",
                        .method = method,
                        .weights = "fp32",
                        .against = (int)w->n - 1,
                        .at_least = full && B ? 1.4
                                    : A       ? 1.6
                                    : B       ? 1.8
                                              : 0};
    PB_TRY(pb_bench_peer(b, w, s, r, &v));
    v.peer = "llm.c";
    v.at_least = 0;
    return full ? pb_bench_peer(b, w, s, r, &v) : PB_OK;
}

// One work for a geometry: training steps of every method and, with "full" among them, of all
// weights.
static pb_err train_subject(pb_bench *b, const char *geometry)
{
    pb_err err = PB_OK;
    pb_subject s, trained = {0};
    pb_adapter *adapter[PB_BENCH_MOST] = {0};
    pb_work w = {0};
    bool B = !strcmp(geometry, "B");
    PB_TRY(pb_subject_open(&s, geometry, b->weights, false));
    size_t S = b->sequences ? b->sequences : s.sequences, T = b->tokens ? b->tokens : 256;
    w.tokens = (double)(S * T);
    snprintf(w.name, sizeof w.name, "training step, geometry %.40s, %zu x %zu rows, %s", geometry,
             S, T, pb_model_storage(s.m));
    PB_GO(pb_limit_flops(&w, b->plan.threads));
    for (size_t i = 0; i < b->n_methods; i++) {
        pb_rig_args r = {.kind = PB_RIG_TRAIN,
                         .model = s.m,
                         .sequences = S,
                         .tokens = T,
                         .threads = b->plan.threads};
        bool full = !strcmp(b->method[i], "full");
        if (full) {
            PB_GO(pb_subject_open(&trained, geometry, NULL, true));
            r.model = trained.m;
        } else {
            PB_GO(pb_subject_adapter(&adapter[i], s.m, b->method[i], 0, true));
            r.adapters = &adapter[i];
            r.n_adapters = 1;
        }
        pb_arm *arm;
        PB_GO(pb_rig_arm(&arm, &w, b->method[i], &r));
        arm->floor = full ? 0 : B ? 0.55 : !strcmp(geometry, "A") ? 0.7 : 0;
        snprintf(arm->note, sizeof arm->note, "%zu parallel regions", regions_of(arm->self));
        PB_GO(train_rivals(b, &w, &s, &r, b->method[i]));
    }
    PB_GO(pb_bench_measure(b, &w));
done:
    if (err)
        pb_work_free(&w);
    pb_subject_adapters_free(adapter, PB_BENCH_MOST);
    pb_model_close(s.m);
    pb_model_close(trained.m);
    return err;
}

static const char *const storages[] = {"fp32", "bf16", "int8"};
enum { N_STORAGES = sizeof storages / sizeof *storages };

// The peers of the arm of prefill or decoding that was added last.
static pb_err serve_rivals(pb_bench *b, pb_work *w, const pb_subject *s, const pb_rig_args *r,
                           const char *weights)
{
    bool decode = r->kind == PB_RIG_DECODE, A = !strcmp(s->name, "A");
    pb_bench_rival v = {.peer = "pytorch",
                        .label = weights,
                        .what = decode ? "decode" : "prefill",
                        .method = "base",
                        .weights = weights,
                        .against = (int)w->n - 1};
    if (!strcmp(weights, "fp32"))
        PB_TRY(pb_bench_peer(b, w, s, r, &v));
    v.peer = "llama.cpp";
    if (decode)
        v.at_least = r->sequences > 1 ? 1.5 : 1;
    else if (A && !strcmp(weights, "fp32"))
        v.at_least = 1.5;
    return pb_bench_peer(b, w, s, r, &v);
}

// Prefill of one prompt, or decoding of `sequences` rows, in every storage asked for.
static pb_err serve_subject(pb_bench *b, const char *geometry, pb_rig_kind kind, size_t sequences)
{
    pb_err err = PB_OK;
    pb_subject s[N_STORAGES] = {{0}};
    pb_work w = {0};
    bool decode = kind == PB_RIG_DECODE;
    size_t T = decode ? 1 : b->tokens ? b->tokens : 512;
    size_t context = decode ? b->context ? b->context : 64 : 0;
    w.tokens = (double)(sequences * T);
    if (decode)
        snprintf(w.name, sizeof w.name, "decode, geometry %.40s, %zu row%s at position %zu",
                 geometry, sequences, sequences > 1 ? "s" : "", context);
    else
        snprintf(w.name, sizeof w.name, "prefill, geometry %.40s, %zu x %zu rows", geometry,
                 sequences, T);
    PB_GO(pb_limit_flops(&w, b->plan.threads));
    for (size_t k = 0; k < N_STORAGES; k++) {
        if (b->weights && strcmp(b->weights, storages[k]))
            continue;
        PB_GO(pb_subject_open(&s[k], geometry, storages[k], false));
        int limit;
        PB_GO(pb_limit_bytes(&w, (double)pb_model_resident(s[k].m), b->plan.threads, &limit));
        pb_rig_args r = {.kind = kind,
                         .model = s[k].m,
                         .sequences = sequences,
                         .tokens = T,
                         .context = context,
                         .threads = b->plan.threads};
        pb_arm *arm;
        PB_GO(pb_rig_arm(&arm, &w, storages[k], &r));
        arm->limit = limit;
        arm->floor = decode && sequences == 1                  ? 0.9
                     : !decode && !k && !strcmp(geometry, "A") ? 0.8
                                                               : 0;
        PB_GO(serve_rivals(b, &w, &s[k], &r, storages[k]));
    }
    PB_GO(pb_bench_measure(b, &w));
done:
    if (err)
        pb_work_free(&w);
    for (size_t k = 0; k < N_STORAGES; k++)
        pb_model_close(s[k].m);
    return err;
}

// Notes what the bytes and FLOPs that adapters add to the arm `base` would take at the limits of
// this run; `limit` is its arm of bytes.
static void note_predictions(pb_work *w, int limit, int base)
{
    const pb_arm *peak = &w->arm[0], *read = &w->arm[limit], *bare = &w->arm[base];
    for (size_t i = (size_t)base + 1; i < w->n && bare->n; i++) {
        pb_arm *m = &w->arm[i];
        if (m->kind != PB_ARM_OURS)
            continue;
        double tf = (m->flops - bare->flops) / peak->flops * pb_arm_times(peak).median;
        double tb = (m->bytes - bare->bytes) / read->bytes * pb_arm_times(read).median;
        double predicted = 1 + fmax(tf, tb) / pb_arm_times(bare).median;
        snprintf(m->note, sizeof m->note,
                 "%+.2f MB and %+.2f MFLOP predict %.3f x base; measured %.3f of that",
                 1e-6 * (m->bytes - bare->bytes), 1e-6 * (m->flops - bare->flops), predicted,
                 pb_arm_ratio(m, bare) / predicted);
        if (!strcmp(m->name, "lora"))
            m->at_most = 1.25 * predicted;
    }
}

// A batch of `rows` sequences, each decoding one token, and who they belong to.
typedef struct tenants_batch {
    pb_subject s;
    size_t rows, context;
    int limit, base; // arms: of bytes, and of the bare model
} tenants_batch;

// An arm of n adapters (0: the bare model; 1: one for all rows; else one for each), and its peer.
static pb_err tenants_arm(pb_bench *b, pb_work *w, const tenants_batch *t, const char *method,
                          pb_adapter *const *adapter, size_t n, const char *label)
{
    pb_rig_args r = {.kind = PB_RIG_DECODE,
                     .model = t->s.m,
                     .adapters = adapter,
                     .n_adapters = n,
                     .sequences = t->rows,
                     .tokens = 1,
                     .context = t->context,
                     .threads = b->plan.threads};
    pb_arm *arm;
    PB_TRY(pb_rig_arm(&arm, w, label, &r));
    arm->limit = t->limit;
    arm->against = n ? t->base : PB_NO_ARM;
    arm->at_most = !strcmp(method, "pedro") || !strcmp(method, "ia3") ? 1.02 : 0;
    if (n && strcmp(method, "lora"))
        return PB_OK;
    return pb_bench_peer(b, w, &t->s, &r,
                         &(pb_bench_rival){.peer = "llama.cpp",
                                           .label = label,
                                           .what = "decode",
                                           .method = method,
                                           .weights = pb_model_storage(t->s.m),
                                           .against = (int)w->n - 1,
                                           .at_least = n > 1 ? 6 : 1.5});
}

// Decoding, every row another tenant; the time that added bytes and FLOPs predict is noted.
static pb_err tenants_subject(pb_bench *b, const char *geometry, size_t rows)
{
    pb_err err = PB_OK;
    pb_work w = {0};
    tenants_batch t = {.rows = rows, .context = b->context ? b->context : 64};
    pb_adapter **adapter = calloc(PB_BENCH_MOST * rows, sizeof *adapter);
    if (!adapter)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", rows);
    PB_GO(pb_subject_open(&t.s, geometry, b->weights ? b->weights : "fp32", false));
    w.tokens = (double)rows;
    snprintf(w.name, sizeof w.name, "decode, geometry %.40s, %s, %zu rows of as many tenants",
             geometry, pb_model_storage(t.s.m), rows);
    PB_GO(pb_limit_flops(&w, b->plan.threads));
    PB_GO(pb_limit_bytes(&w, (double)pb_model_resident(t.s.m), b->plan.threads, &t.limit));
    t.base = (int)w.n;
    PB_GO(tenants_arm(b, &w, &t, "base", NULL, 0, "base"));
    for (size_t i = 0; i < b->n_methods; i++) {
        const char *method = b->method[i];
        pb_adapter **own = adapter + i * rows;
        for (size_t k = 0; k < rows; k++)
            PB_GO(pb_subject_adapter(&own[k], t.s.m, method, k, false));
        PB_GO(tenants_arm(b, &w, &t, method, own, rows, method));
        if (!strcmp(method, "lora"))
            PB_GO(tenants_arm(b, &w, &t, method, own, 1, "lora, one for all"));
    }
    err = pb_work_run(&w, &b->plan);
    note_predictions(&w, t.limit, t.base);
    err = pb_bench_hand_on(b, &w, err);
done:
    pb_work_free(&w);
    pb_subject_adapters_free(adapter, PB_BENCH_MOST * rows);
    free(adapter);
    pb_model_close(t.s.m);
    return err;
}

// Parallel regions of one decoding step: counted, not timed.
static pb_err barriers_subject(pb_bench *b, const char *geometry)
{
    pb_err err = PB_OK;
    pb_subject s = {0};
    size_t rows = b->n_rows ? b->rows[0] : 16;
    pb_adapter **adapter = calloc(rows, sizeof *adapter);
    pb_rig *rig = NULL;
    double base = 0; // per layer
    PB_GO(adapter ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", rows));
    PB_GO(pb_subject_open(&s, geometry, b->weights, false));
    for (size_t i = 0; i <= b->n_methods; i++) {
        const char *method = i ? b->method[i - 1] : "base";
        for (size_t t = 0; i && t < rows; t++)
            PB_GO(pb_subject_adapter(&adapter[t], s.m, method, t, false));
        PB_GO(pb_rig_new(&rig, &(pb_rig_args){.kind = PB_RIG_DECODE,
                                              .model = s.m,
                                              .adapters = adapter,
                                              .n_adapters = i ? rows : 0,
                                              .sequences = rows,
                                              .tokens = 1,
                                              .context = b->context ? b->context : 64,
                                              .threads = b->plan.threads}));
        pb_regions g = {
            .geometry = geometry, .method = method, .rows = rows, .layers = s.m->config.layers};
        for (int k = 0; k < PB_COMPONENTS; k++)
            g.of[k] = pb_rig_counts(rig)[k].regions;
        pb_rig_free(rig);
        rig = NULL;
        pb_subject_adapters_free(adapter, rows);
        PB_GO(b->regions(b->self, &g));
        base = i ? base : pb_regions_per_layer(&g);
        // Two for each group of sites: q,k,v; o; gate,up; down.
        if (!strcmp(method, "lora"))
            PB_GO(b->floor(b->self, &(pb_floor){.work = geometry,
                                                .arm = method,
                                                .measure = "parallel regions added per layer",
                                                .value = pb_regions_per_layer(&g) - base,
                                                .expected = 2 * 4,
                                                .most = true}));
    }
done:
    pb_rig_free(rig);
    pb_subject_adapters_free(adapter, rows);
    free(adapter);
    pb_model_close(s.m);
    return err;
}

static pb_err each_geometry(pb_bench *b, pb_err (*subject)(pb_bench *, const char *))
{
    for (size_t g = 0; g < b->n_geometries; g++)
        PB_TRY(subject(b, b->geometry[g]));
    return PB_OK;
}

pb_err pb_bench_train(pb_bench *b)
{
    return each_geometry(b, train_subject);
}

static pb_err prefill_subject(pb_bench *b, const char *geometry)
{
    return serve_subject(b, geometry, PB_RIG_PREFILL, b->sequences ? b->sequences : 1);
}

pb_err pb_bench_prefill(pb_bench *b)
{
    return each_geometry(b, prefill_subject);
}

static const size_t rows_default[] = {1, 8, 16};
enum { N_ROWS_DEFAULT = sizeof rows_default / sizeof *rows_default };

static pb_err decode_subject(pb_bench *b, const char *geometry)
{
    for (size_t i = 0; i < (b->n_rows ? b->n_rows : N_ROWS_DEFAULT); i++)
        PB_TRY(serve_subject(b, geometry, PB_RIG_DECODE, b->n_rows ? b->rows[i] : rows_default[i]));
    return PB_OK;
}

pb_err pb_bench_decode(pb_bench *b)
{
    return each_geometry(b, decode_subject);
}

static pb_err tenants_rows(pb_bench *b, const char *geometry)
{
    for (size_t i = 0; i < (b->n_rows ? b->n_rows : N_ROWS_DEFAULT); i++) {
        size_t rows = b->n_rows ? b->rows[i] : rows_default[i];
        if (rows > 1)
            PB_TRY(tenants_subject(b, geometry, rows));
    }
    return PB_OK;
}

pb_err pb_bench_tenants(pb_bench *b)
{
    return each_geometry(b, tenants_rows);
}

pb_err pb_bench_barriers(pb_bench *b)
{
    return each_geometry(b, barriers_subject);
}
