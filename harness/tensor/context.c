#include "tensor/context.h"

#include "core/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

pb_mat *pb_new(pb_ctx *c, size_t rows, size_t cols, pb_rows_of of, bool grad)
{
    pb_mat *m = PB_NEW(c->heads, pb_mat, 1);
    *m = (pb_mat){.rows = rows, .cols = cols, .ld = cols, .of = of};
    m->v = PB_NEW(c->arena, real, rows * cols);
    if (grad)
        pb_want_grad(c, m);
    return m;
}

void pb_want_grad(pb_ctx *c, pb_mat *m)
{
    if (m->d || !c->record)
        return;
    m->d = PB_NEW(c->arena, real, m->rows * m->ld);
    if (!c->dry)
        memset(m->d, 0, m->rows * m->ld * sizeof *m->d);
}

pb_mat *pb_cols(pb_ctx *c, const pb_mat *m, size_t col0, size_t n)
{
    pb_mat *s = PB_NEW(c->heads, pb_mat, 1);
    *s = *m;
    s->v += col0;
    if (s->d)
        s->d += col0;
    s->cols = n;
    return s;
}

const pb_item *pb_items(const pb_ctx *c, const pb_mat *m, pb_item *whole, size_t *n)
{
    if (m->of == PB_TENANT) {
        *whole = (pb_item){.row = 0, .n = m->rows, .seg = 0, .params = c->tenant};
        *n = 1;
        return whole;
    }
    *n = m->of == PB_SEGMENTS ? c->sel->n : c->sel->n_rows;
    return m->of == PB_SEGMENTS ? c->sel->segs : c->sel->rows;
}

// The spec of a method's own `id` at the current layer, or NULL. Part i of n methods on one
// backbone has every n-th id.
static const pb_spec *find(const pb_ctx *c, const pb_params *p, int id)
{
    if (c->parts)
        id = id * c->parts + c->part;
    return p ? pb_layout_find(p->layout, c->layer, id) : NULL;
}

bool pb_lookup(const pb_ctx *c, const pb_params *p, int id, pb_view *out)
{
    const pb_spec *s = find(c, p, id);
    if (!s)
        return false;
    *out = (pb_view){.v = p->v + s->offset, .rows = s->rows, .cols = s->cols, .scale = s->scale};
    if (p->d && c->record && !(s->flags & PB_FROZEN))
        out->d = p->d + s->offset;
    return true;
}

// Visits the parameters of every selected segment (or of the one tenant).
static const pb_params *params_of(const pb_ctx *c, size_t i)
{
    return c->tenant ? c->tenant : c->sel->segs[i].params;
}

static size_t n_params(const pb_ctx *c)
{
    return c->tenant ? 1 : c->sel->n;
}

size_t pb_most_rows(const pb_ctx *c, int id)
{
    size_t most = 0;
    pb_view w;
    for (size_t i = 0; i < n_params(c); i++)
        if (pb_lookup(c, params_of(c, i), id, &w) && w.rows > most)
            most = w.rows;
    return most;
}

size_t pb_most_cols(const pb_ctx *c, int id)
{
    size_t most = 0;
    pb_view w;
    for (size_t i = 0; i < n_params(c); i++)
        if (pb_lookup(c, params_of(c, i), id, &w) && w.cols > most)
            most = w.cols;
    return most;
}

bool pb_trained(const pb_ctx *c, int id)
{
    pb_view w;
    for (size_t i = 0; i < n_params(c); i++)
        if (pb_lookup(c, params_of(c, i), id, &w) && w.d)
            return true;
    return false;
}

// ---------------------------------------------------------------- mistakes

void pb_wrong(pb_ctx *c, const char *fmt, ...)
{
    if (*c->wrong)
        return;
    int n = snprintf(c->wrong, sizeof c->wrong,
                     "%s, %s in layer %zu: ", c->method ? c->method : "the backbone",
                     c->hook ? c->hook : "a hook", c->layer);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->wrong + n, sizeof c->wrong - (size_t)n, fmt, ap);
    va_end(ap);
}

static void want(pb_ctx *c, const char *op, int id, size_t n, const char *of, bool cols)
{
    for (size_t i = 0; c->dry && i < n_params(c); i++) {
        const pb_spec *s = find(c, params_of(c, i), id);
        size_t has = s ? cols ? s->cols : s->rows : n;
        if (has > n || (has < n && n_params(c) == 1))
            pb_wrong(c, "%s: \"%s\" is (%zu,%zu), which does not fit the %zu columns of %s", op,
                     s->name, s->rows, s->cols, n, of);
    }
}

void pb_want_cols(pb_ctx *c, const char *op, int id, size_t cols, const char *of)
{
    want(c, op, id, cols, of, true);
}

void pb_want_rows(pb_ctx *c, const char *op, int id, size_t rows, const char *of)
{
    want(c, op, id, rows, of, false);
}

// ---------------------------------------------------------------- the tape

void *pb_push(pb_ctx *c, size_t size, void (*back)(pb_ctx *, pb_node *))
{
    pb_node *n = pb_alloc(c->heads, 1, size);
    memset(n, 0, size);
    *n = (pb_node){back, c->tape, c->layer, c->sel, c->tenant, c->parts, c->part};
    c->tape = n;
    return n;
}

void pb_backward(pb_ctx *c)
{
    for (pb_node *n = c->tape; n; n = n->prev) {
        c->layer = n->layer;
        c->sel = n->sel;
        c->tenant = n->tenant;
        c->parts = n->parts;
        c->part = n->part;
        size_t mark = pb_mark(c->arena);
        n->back(c, n);
        pb_release(c->arena, mark);
    }
    c->tape = NULL;
    c->tenant = NULL;
    c->parts = c->part = 0;
    c->sel = c->all;
}

void pb_enter(pb_ctx *c, pb_component component)
{
    if (c->timed) {
        int64_t now = pb_now_ns();
        c->counts[c->component].ns += now - c->since;
        c->since = now;
    }
    c->component = component;
}

void pb_count(pb_ctx *c, double flops, double bytes, size_t regions, double work)
{
    pb_counts *n = &c->counts[c->component];
    n->flops += flops;
    n->bytes += bytes;
    n->regions += work > PB_PARALLEL_WORK ? regions : 0;
}
