// How time and memory grow: along one axis, arms that differ in nothing else.
#include "bench/internal.h"

#include "model/open_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_ADAPTERS = 512,
    MOST_POINTS = 8,
    BATCH = 16,
    CONTEXT = 64,
    PROMPT = 512,
    SEQUENCE = 128,
    SEQUENCES = 4
};

// What an arm at `x` of a curve does, from what it does wherever the axis says nothing else.
typedef struct point {
    pb_rig_kind kind;
    const char *method; // NULL: the bare backbone
    size_t rank;        // 0: the method's default
    size_t adapters, sequences, tokens, context;
    int threads;
    size_t layers; // 0: the geometry's
} point;

typedef struct curve {
    const char *name;
    pb_rig_kind kind;
    const char *method;
    size_t x[MOST_POINTS];
    void (*at)(point *p, size_t x);
} curve;

typedef struct axis {
    const char *name, *label;
    curve curves[5];
} axis;

static void sequences(point *p, size_t x)
{
    p->sequences = x;
}

static void tokens(point *p, size_t x)
{
    p->tokens = x;
}

static void rows(point *p, size_t x)
{
    p->tokens = x < SEQUENCE ? x : SEQUENCE;
    p->sequences = x / p->tokens;
}

static void one_sequence(point *p, size_t x)
{
    p->sequences = 1;
    p->tokens = x;
}

static void context(point *p, size_t x)
{
    p->context = x;
}

static void rank(point *p, size_t x)
{
    p->rank = x;
}

static void rank_of_tenants(point *p, size_t x)
{
    p->rank = x;
    p->sequences = p->adapters = BATCH;
}

static void tenants(point *p, size_t x)
{
    p->sequences = BATCH;
    p->adapters = x;
}

static void layers(point *p, size_t x)
{
    p->layers = x;
}

// Filled in by the number of threads there are.
static void threads(point *p, size_t x)
{
    p->threads = (int)x;
}

static const axis axes[] = {
    {"rows",
     "rows",
     {{"decode", PB_RIG_DECODE, NULL, {1, 2, 4, 8, 16, 32, 64}, sequences},
      {"prefill", PB_RIG_PREFILL, NULL, {16, 32, 64, 128, 256, 512, 1024}, tokens},
      {"train LoRA", PB_RIG_TRAIN, "lora", {16, 32, 64, 128, 256, 512, 1024}, rows}}},
    {"context",
     "tokens in front, or of a sequence",
     {{"decode", PB_RIG_DECODE, NULL, {16, 64, 256, 1024, 4096}, context},
      {"train LoRA", PB_RIG_TRAIN, "lora", {16, 64, 256, 1024, 2048}, one_sequence}}},
    {"rank",
     "rank of LoRA on all linears",
     {{"decode, 16 tenants", PB_RIG_DECODE, "lora", {1, 2, 4, 8, 16, 32, 64}, rank_of_tenants},
      {"train", PB_RIG_TRAIN, "lora", {1, 2, 4, 8, 16, 32, 64}, rank}}},
    {"tenants",
     "adapters in a batch of 16 rows",
     {{"LoRA", PB_RIG_DECODE, "lora", {1, 2, 4, 8, 16}, tenants},
      {"IA3", PB_RIG_DECODE, "ia3", {1, 2, 4, 8, 16}, tenants},
      {"prefix", PB_RIG_DECODE, "prefix", {1, 2, 4, 8, 16}, tenants},
      {"PEDRO", PB_RIG_DECODE, "pedro", {1, 2, 4, 8, 16}, tenants}}},
    {"layers",
     "layers",
     {{"decode", PB_RIG_DECODE, NULL, {1, 2, 4, 8, 16}, layers},
      {"prefill", PB_RIG_PREFILL, NULL, {1, 2, 4, 8, 16}, layers},
      {"train LoRA", PB_RIG_TRAIN, "lora", {1, 2, 4, 8, 16}, layers}}},
    {"threads",
     "threads",
     {{"decode", PB_RIG_DECODE, NULL, {0}, threads},
      {"prefill", PB_RIG_PREFILL, NULL, {0}, threads},
      {"train LoRA", PB_RIG_TRAIN, "lora", {0}, threads}}},
};
enum { N_AXES = sizeof axes / sizeof *axes };

// Everything that lives as long as the arms of a work do.
typedef struct things {
    pb_model *model[MOST_POINTS + 1]; // by number of layers
    size_t n_models;
    pb_adapter *adapter[MOST_ADAPTERS]; // rigs point into it
    size_t n_adapters;
} things;

static void free_things(things *t)
{
    pb_subject_adapters_free(t->adapter, t->n_adapters);
    for (size_t i = 0; i < t->n_models; i++)
        pb_model_close(t->model[i]);
}

// The model of so many layers (0: as many as the geometry has), opened once.
static pb_err model_of(pb_model **out, things *t, const pb_bench *b, const char *geometry, size_t L)
{
    pb_config c;
    char spec[160];
    PB_TRY(pb_open_config(&c, pb_bench_spec(geometry)));
    L = L ? L : c.layers;
    for (size_t i = 0; i < t->n_models; i++)
        if (t->model[i]->config.layers == L) {
            *out = t->model[i];
            return PB_OK;
        }
    snprintf(spec, sizeof spec, "random:%zux%zux%zux%zux%zux%zu", c.width, c.ffn, L, c.heads,
             c.kv_heads, c.vocab);
    pb_subject s;
    PB_TRY(pb_subject_open(&s, spec, b->weights, false));
    *out = t->model[t->n_models++] = s.m;
    return PB_OK;
}

static pb_err add_adapters(things *t, const pb_model *m, const point *p)
{
    if (t->n_adapters + p->adapters > MOST_ADAPTERS)
        return pb_fail(PB_USAGE, NULL, "more than %d adapters along an axis", MOST_ADAPTERS);
    for (size_t i = 0; i < p->adapters; i++) {
        pb_adapter **out = &t->adapter[t->n_adapters];
        bool trained = p->kind == PB_RIG_TRAIN;
        PB_TRY(p->rank ? pb_subject_lora(out, m, p->rank, i, trained)
                       : pb_subject_adapter(out, m, p->method, i, trained));
        t->n_adapters++;
    }
    return PB_OK;
}

static pb_err add_point(pb_bench *b, pb_work *w, things *t, const char *geometry, const curve *c,
                        size_t x)
{
    bool decode = c->kind == PB_RIG_DECODE, train = c->kind == PB_RIG_TRAIN;
    point p = {.kind = c->kind,
               .method = c->method,
               .adapters = c->method ? 1 : 0,
               .sequences = train ? SEQUENCES : 1,
               .tokens = decode  ? 1
                         : train ? SEQUENCE
                                 : PROMPT,
               .context = decode ? CONTEXT : 0,
               .threads = b->plan.threads};
    char name[96];
    pb_model *m;
    pb_arm *arm;
    c->at(&p, x);
    PB_TRY(model_of(&m, t, b, geometry, p.layers));
    size_t first = t->n_adapters;
    PB_TRY(add_adapters(t, m, &p));
    snprintf(name, sizeof name, "%s, %zu", c->name, x);
    PB_TRY(pb_rig_arm(&arm, w, name,
                      &(pb_rig_args){.kind = p.kind,
                                     .model = m,
                                     .adapters = t->adapter + first,
                                     .n_adapters = p.adapters,
                                     .sequences = p.sequences,
                                     .tokens = p.tokens,
                                     .context = p.context,
                                     .threads = p.threads}));
    arm->curve = c->name;
    arm->x = (double)x;
    return PB_OK;
}

// Along `threads`: powers of two, and all that the machine has.
static size_t thread_points(size_t x[MOST_POINTS], size_t most)
{
    size_t n = 0;
    for (size_t k = 1; k < most && n < MOST_POINTS - 1; k *= 2)
        x[n++] = k;
    x[n++] = most;
    return n;
}

static pb_err measure_axis(pb_bench *b, const char *geometry, const axis *a)
{
    pb_err err = PB_OK;
    pb_work w = {.axis = a->name, .axis_label = a->label};
    things *t = calloc(1, sizeof *t);
    if (!t)
        return pb_fail(PB_MEMORY, NULL, "no memory for an axis");
    snprintf(w.name, sizeof w.name, "scaling with %s, geometry %.60s", a->name, geometry);
    PB_GO(pb_limit_flops(&w, b->plan.threads));
    for (const curve *c = a->curves; c->name; c++) {
        size_t x[MOST_POINTS], n = 0;
        memcpy(x, c->x, sizeof x);
        if (c->at == threads)
            n = thread_points(x, (size_t)b->plan.threads);
        while (c->at != threads && n < MOST_POINTS && x[n])
            n++;
        for (size_t i = 0; i < n; i++)
            PB_GO(add_point(b, &w, t, geometry, c, x[i]));
    }
    err = pb_bench_measure(b, &w);
done:
    pb_work_free(&w);
    free_things(t);
    free(t);
    return err;
}

static pb_err find_axis(const axis **out, const char *name)
{
    for (size_t i = 0; i < N_AXES; i++)
        if (!strcmp(name, axes[i].name)) {
            *out = &axes[i];
            return PB_OK;
        }
    return pb_fail(PB_USAGE, "rows, context, rank, tenants, layers or threads",
                   "there is no axis \"%s\"", name);
}

pb_err pb_bench_scaling(pb_bench *b)
{
    const axis *list[PB_BENCH_MOST];
    size_t n = b->n_axes ? b->n_axes : N_AXES;
    for (size_t i = 0; i < n; i++) {
        list[i] = &axes[i < N_AXES ? i : 0];
        if (b->n_axes)
            PB_TRY(find_axis(&list[i], b->axis[i]));
    }
    for (size_t g = 0; g < b->n_geometries; g++)
        for (size_t i = 0; i < n; i++)
            PB_TRY(measure_axis(b, b->geometry[g], list[i]));
    return PB_OK;
}
