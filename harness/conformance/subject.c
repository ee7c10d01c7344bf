// Subjects, adapters at random points, comparisons.
#include "conformance/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- what is checked

pb_err pb_subjects_add(pb_subjects *list, const pb_method *m, const char *options, bool moved,
                       bool widely)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 32;
        pb_subject *more = realloc(list->s, cap * sizeof *more);
        if (!more)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu subjects", cap);
        list->s = more;
        list->cap = cap;
    }
    pb_subject *s = &list->s[list->n];
    *s = (pb_subject){.m = m, .moved = moved, .widely = widely};
    PB_TRY(pb_path(s->options, sizeof s->options, "%s", options));
    list->n++;
    return PB_OK;
}

static pb_err add_one(pb_subjects *list, const pb_method *m, const char *name, const char *value)
{
    char text[100];
    PB_TRY(pb_path(text, sizeof text, "%s=%s", name, value));
    return pb_subjects_add(list, m, text, false, false);
}

pb_err pb_subjects_of(pb_subjects *list, const pb_method *m)
{
    PB_TRY(pb_subjects_add(list, m, "", false, true));
    for (const pb_option *o = m->options; o && o->name; o++) {
        if (m->knob && !strcmp(o->name, m->knob)) {
            PB_TRY(add_one(list, m, o->name, "1"));
            PB_TRY(add_one(list, m, o->name, "11"));
        }
        if (o->type == PB_OPT_BOOL)
            PB_TRY(add_one(list, m, o->name, *o->def == 't' ? "false" : "true"));
        bool listed = o->type == PB_OPT_ENUM || o->type == PB_OPT_FLAGS || o->type == PB_OPT_SITES;
        for (int v = 0; listed && o->names && o->names[v]; v++)
            if (strcmp(o->names[v], o->def))
                PB_TRY(add_one(list, m, o->name, o->names[v]));
    }
    return PB_OK;
}

void pb_subjects_free(pb_subjects *list)
{
    free(list->s);
    *list = (pb_subjects){0};
}

// ---------------------------------------------------------------- what a check makes

typedef struct kept {
    struct kept *next;
    void *p;
    void (*release)(void *);
} kept;

pb_err conf_keep(conf *c, void *p, void (*release)(void *))
{
    kept *k = malloc(sizeof *k);
    if (!k)
        abort();
    *k = (kept){c->kept, p, release};
    c->kept = k;
    return PB_OK;
}

void conf_release(conf *c)
{
    while (c->kept) {
        kept *k = c->kept;
        c->kept = k->next;
        k->release(k->p);
        free(k);
    }
}

void *conf_alloc(conf *c, size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        abort();
    (void)conf_keep(c, p, free);
    return p;
}

static void free_adapter(void *a)
{
    pb_adapter_free(a);
}

static void free_step(void *st)
{
    pb_step_free(st);
}

static void free_model(void *m)
{
    pb_model_close(m);
}

pb_err conf_options(conf *c, const pb_subject *s, void **out)
{
    char text[sizeof s->options], *save = NULL;
    PB_TRY(pb_options_new(out, s->m));
    (void)conf_keep(c, *out, free);
    strcpy(text, s->options);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        PB_TRY(pb_options_assign(s->m, *out, w));
    return PB_OK;
}

pb_err conf_tokens(conf *c, size_t n, size_t V, uint32_t which, int32_t **out)
{
    pb_rng r = pb_rng_make(5, PB_STREAM_TEST, which);
    *out = conf_alloc(c, n, sizeof **out);
    for (size_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)pb_rng_below(&r, V);
    return PB_OK;
}

pb_err conf_step(conf *c, const pb_model *m, pb_adapter *const *tenants, size_t n,
                 const pb_step_limits *limits, pb_step **out)
{
    // A step refers to the list.
    pb_adapter **list = conf_alloc(c, n, sizeof *list);
    for (size_t i = 0; i < n; i++)
        list[i] = tenants[i];
    PB_TRY(pb_step_new(out, m, list, n, limits));
    return conf_keep(c, *out, free_step);
}

pb_err conf_logits(conf *c, pb_step *st, const pb_model *m, const pb_batch *b, real **out)
{
    size_t *rows = conf_alloc(c, b->n_rows, sizeof *rows);
    *out = conf_alloc(c, b->n_rows * m->config.vocab, sizeof **out);
    for (size_t r = 0; r < b->n_rows; r++)
        rows[r] = r;
    pb_mat *h = pb_forward(st, b, false, 1, 0);
    pb_step_logits(st, h, rows, b->n_rows, *out);
    return PB_OK;
}

pb_err conf_alone(conf *c, const pb_model *m, pb_adapter *a, const int32_t *tokens, size_t n,
                  size_t n_prompt, real **out)
{
    pb_step *st;
    PB_TRY(conf_step(c, m, &a, a ? 1 : 0, &(pb_step_limits){.rows = n, .segments = 1}, &st));
    pb_segment seg = {.n_rows = n, .n_prompt = n_prompt, .tenant = a ? 0 : -1, .slot = -1};
    return conf_logits(c, st, m, &(pb_batch){n, 1, tokens, &seg}, out);
}

// ---------------------------------------------------------------- adapters

static pb_err new_adapter(conf *c, const pb_subject *s, size_t t, bool trainable, pb_adapter **out)
{
    void *o;
    PB_TRY(conf_options(c, s, &o));
    PB_TRY(pb_adapter_new(out, s->m, o, &c->backbone[t]->config, trainable));
    return conf_keep(c, *out, free_adapter);
}

pb_err conf_fresh(conf *c, const pb_subject *s, size_t t, bool trainable, pb_adapter **out)
{
    pb_model *m = c->backbone[t];
    PB_TRY(new_adapter(c, s, t, trainable, out));
    pb_adapter *a = *out;
    size_t n = s->m->text_len ? s->m->text_len(a->options) : 0;
    size_t kv = m->config.layers * n * pb_kv_width(&m->config);
    real *k = conf_alloc(c, 2 * kv + n * m->config.width, sizeof *k), *v = k + kv, *x = v + kv;
    if (n) {
        int32_t *tokens;
        PB_TRY(conf_tokens(c, n, m->config.vocab, TEXT, &tokens));
        PB_TRY(pb_text_kv(m, tokens, n, x, k, v));
    }
    PB_TRY(pb_adapter_init(a, m, 7, n, n ? x : NULL, n ? k : NULL, n ? v : NULL));
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *p = &a->layout.spec[i];
        for (size_t j = 0; j < p->rows * p->cols; j++)
            if (!isfinite(a->params.v[p->offset + j]))
                return WRONG("check `init` and the gain given in `layout`",
                             "layer %d %s starts with the value %g", p->layer, p->name,
                             (double)a->params.v[p->offset + j]);
    }
    return pb_adapter_serve(a, m);
}

void conf_scatter(const pb_params *p, uint64_t seed)
{
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        pb_rng r = pb_rng_make(seed, PB_STREAM_TEST, (uint32_t)i);
        pb_tiny_fill(p->v + s->offset, s->rows * s->cols, s->init == PB_INIT_ONE ? 1 : 0, 0.2, &r);
    }
}

// FNV-1a: a subject's values are the same in every list.
static uint64_t hash(uint64_t h, const char *text)
{
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3;
    return h;
}

pb_err conf_scattered(conf *c, const pb_subject *s, size_t t, bool trainable, pb_adapter **out)
{
    PB_TRY(conf_fresh(c, s, t, trainable, out));
    conf_scatter(&(*out)->params, hash(hash(0xcbf29ce484222325, s->m->name), s->options));
    return pb_adapter_serve(*out, c->backbone[t]);
}

pb_err conf_trained(conf *c, const pb_subject *s, size_t t, bool random, trained *x)
{
    *x = (trained){.m = c->backbone[t]};
    if (s->m->backbone) {
        PB_TRY(pb_tiny_open(&x->m, c->folder, t, &(pb_model_args){.trainable = true}));
        (void)conf_keep(c, x->m, free_model);
        x->p = &x->m->params;
        return PB_OK;
    }
    PB_TRY(random ? conf_scattered(c, s, t, true, &x->a) : conf_fresh(c, s, t, true, &x->a));
    x->p = &x->a->params;
    return PB_OK;
}

pb_err conf_has(conf *c, const pb_subject *s, size_t t, unsigned flag, bool *out)
{
    pb_adapter *a;
    PB_TRY(new_adapter(c, s, t, false, &a));
    *out = false;
    for (size_t i = 0; i < a->layout.n; i++)
        *out |= !flag || a->layout.spec[i].flags & flag;
    return PB_OK;
}

// ---------------------------------------------------------------- comparisons

pb_err conf_same(const char *what, const char *hint, const real *a, const real *b, size_t rows,
                 size_t V)
{
    for (size_t i = 0; i < rows * V; i++)
        if (!(a[i] == b[i]))
            return WRONG(hint, "%s: row %zu of %zu, column %zu: %.9g, not %.9g", what, i / V, rows,
                         i % V, (double)a[i], (double)b[i]);
    return PB_OK;
}

double conf_distance(const real *a, const real *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst))
            worst = d;
        if (isnan(d))
            return d;
    }
    return worst;
}

pb_err conf_near(const char *what, const char *hint, const real *a, const real *b, size_t n)
{
    double top = 1, err = conf_distance(a, b, n);
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)b[i]));
    // Two orders of the same sums. Double allows 4.5e4 roundings of 2^-53; as many of float's would
    // be 5e-3, so a tenth of that is no weaker, and whatever is wrong by more than rounding fails
    // in double.
    double tol = top * (IS_DOUBLE ? 1e-11 : 5e-4);
    return err <= tol ? PB_OK : WRONG(hint, "%s: differs by %g, more than %g", what, err, tol);
}
