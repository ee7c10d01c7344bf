// Row-wise operations of the backbone: embedding, RMSNorm, rotary positions, gated activation, sum.
#include "tensor/layers.h"

#include <math.h>
#include <string.h>

// ---------------------------------------------------------------- embedding

struct embed {
    pb_node node;
    pb_mat *x;
    real *dtable, scale;
    const int32_t *tokens;
};

static void embed_back(pb_ctx *c, pb_node *self)
{
    struct embed *o = (struct embed *)self;
    pb_count(c, 2.0 * (double)(o->x->rows * o->x->cols), 0, 0, 0);
    for (size_t r = 0; r < o->x->rows && !c->dry; r++)
        c->k->axpby(o->dtable + (size_t)o->tokens[r] * o->x->cols, o->scale, o->x->d + r * o->x->ld,
                    1, o->x->cols);
}

pb_mat *pb_embed(pb_ctx *c, const pb_weight *table, double scale, const int32_t *tokens)
{
    size_t C = table->in;
    real *dtable = c->record ? table->d : NULL;
    pb_mat *x = pb_new(c, c->n_rows, C, PB_TOKENS, dtable != NULL);
    pb_count(c, scale == 1 ? 0 : (double)(c->n_rows * C),
             (double)(c->n_rows * pb_panel_bytes(table->kind, C) / PB_NR), 0, 0);
    if (x->d) {
        struct embed *o = pb_push(c, sizeof *o, embed_back);
        o->x = x;
        o->dtable = dtable;
        o->scale = (real)scale;
        o->tokens = tokens;
    }
    const real by = (real)scale;
    for (size_t r = 0; r < c->n_rows && !c->dry; r++) {
        real *to = x->v + r * C;
        if (table->v)
            memcpy(to, table->v + (size_t)tokens[r] * C, C * sizeof *to);
        else
            pb_unpack(to, table, (size_t)tokens[r], 1);
        for (size_t i = 0; i < C; i++)
            to[i] *= by;
    }
    return x;
}

// ---------------------------------------------------------------- RMSNorm
//
// Of every run of n values: y_i = x_i s g_i with g = offset + w, s = (mean(x^2) + eps)^-1/2;
// dx_i = s (g_i dy_i - x_i s^2 mean_j(g_j dy_j x_j)), dw_i = sum over runs of dy_i x_i s.

struct norm {
    pb_node node;
    pb_mat *x, *y;
    pb_vector w;
    size_t n; // values of a run
    real offset;
    real *s; // (R, C/n)
};

static void norm_back(pb_ctx *c, pb_node *self)
{
    struct norm *o = (struct norm *)self;
    size_t R = o->x->rows, C = o->x->cols, n = o->n, runs = C / n;
    real *tmp = PB_NEW(c->arena, real, R * C);
    pb_count(c, 8.0 * (double)(R * C), 0, 1, (double)(R * C * 4));
    if (c->dry)
        return;
    if (o->x->d) {
        PB_FOR(c, R * C * 4)
        for (size_t r = 0; r < R; r++)
            for (size_t k = 0; k < runs; k++) {
                const real *x = o->x->v + r * o->x->ld + k * n;
                const real *dy = o->y->d + r * o->y->ld + k * n;
                real *t = tmp + r * C + k * n, *dx = o->x->d + r * o->x->ld + k * n;
                real s = o->s[r * runs + k];
                for (size_t i = 0; i < n; i++)
                    t[i] = dy[i] * (o->offset + o->w.v[i]);
                real mean = c->k->dot(t, x, n) / (real)n;
                c->k->axpby(dx, s, t, 1, n);
                c->k->axpby(dx, -s * s * s * mean, x, 1, n);
            }
    }
    if (o->w.d)
        for (size_t r = 0; r < R; r++)
            for (size_t k = 0; k < runs; k++) {
                const real *x = o->x->v + r * o->x->ld + k * n;
                const real *dy = o->y->d + r * o->y->ld + k * n;
                for (size_t i = 0; i < n; i++)
                    o->w.d[i] += dy[i] * x[i] * o->s[r * runs + k];
            }
}

pb_mat *pb_rms_norm(pb_ctx *c, pb_mat *x, pb_vector w, size_t n, double offset, double eps)
{
    size_t R = x->rows, C = x->cols, runs = C / n;
    pb_mat *y = pb_new(c, R, C, PB_TOKENS, x->d || w.d);
    real *scale = PB_NEW(c->arena, real, R * runs);
    const real plus = (real)offset;
    pb_count(c, 4.0 * (double)(R * C), (double)(n * sizeof(real)), 1, (double)(R * C * 2));
    if (y->d) {
        struct norm *o = pb_push(c, sizeof *o, norm_back);
        o->x = x;
        o->y = y;
        o->w = w;
        o->n = n;
        o->offset = plus;
        o->s = scale;
    }
    if (c->dry)
        return y;
    PB_FOR(c, R * C * 2)
    for (size_t r = 0; r < R; r++)
        for (size_t k = 0; k < runs; k++) {
            const real *from = x->v + r * x->ld + k * n;
            real *to = y->v + r * C + k * n;
            real s = (real)(1 / sqrt((double)c->k->dot(from, from, n) / (double)n + eps));
            scale[r * runs + k] = s;
            for (size_t i = 0; i < n; i++)
                to[i] = from[i] * s * (plus + w.v[i]);
        }
    return y;
}

// ---------------------------------------------------------------- rotary positions

struct rope {
    pb_node node;
    pb_mat *x;
    size_t heads, D;
    const real *cs; // (R, D): cosines, then sines
};

static void rotate(const pb_ctx *c, real *x, size_t ld, size_t R, const struct rope *o, real sign)
{
    size_t half = o->D / 2;
    PB_FOR(c, R * o->heads * o->D * 2)
    for (size_t r = 0; r < R; r++) {
        const real *cs = o->cs + r * o->D, *sn = cs + half;
        for (size_t h = 0; h < o->heads; h++) {
            real *a = x + r * ld + h * o->D, *b = a + half;
            for (size_t i = 0; i < half; i++) {
                real u = a[i], v = b[i];
                a[i] = u * cs[i] - sign * v * sn[i];
                b[i] = v * cs[i] + sign * u * sn[i];
            }
        }
    }
}

static void rope_back(pb_ctx *c, pb_node *self)
{
    struct rope *o = (struct rope *)self;
    pb_count(c, 3.0 * (double)(o->x->rows * o->x->cols), 0, 1,
             (double)(o->x->rows * o->x->cols * 2));
    if (!c->dry && o->x->d)
        rotate(c, o->x->d, o->x->ld, o->x->rows, o, -1);
}

void pb_rope(pb_ctx *c, pb_mat *x, size_t heads, size_t D, const real *cs)
{
    pb_count(c, 3.0 * (double)(x->rows * x->cols), 0, 1, (double)(x->rows * x->cols * 2));
    struct rope local = {.x = x, .heads = heads, .D = D, .cs = cs};
    if (x->d) {
        struct rope *o = pb_push(c, sizeof *o, rope_back);
        local.node = o->node;
        *o = local;
    }
    if (!c->dry)
        rotate(c, x->v, x->ld, x->rows, &local, 1);
}

real *pb_rope_table(pb_ctx *c, size_t D, const double *inv_freq)
{
    real *cs = PB_NEW(c->arena, real, c->n_rows * D);
    if (c->dry)
        return cs;
    PB_FOR(c, c->n_rows * D * 20)
    for (size_t s = 0; s < c->n_seg; s++) {
        const pb_segment *g = &c->seg[s];
        for (size_t i = 0; i < g->n_rows; i++) {
            double pos = (double)(g->pos0 + i + c->seg_shift[s]);
            real *row = cs + (g->row0 + i) * D;
            for (size_t k = 0; k < D / 2; k++) {
                row[k] = (real)cos(pos * inv_freq[k]);
                row[D / 2 + k] = (real)sin(pos * inv_freq[k]);
            }
        }
    }
    return cs;
}

// ---------------------------------------------------------------- gated activation and sum

struct three {
    pb_node node;
    pb_mat *y, *a, *b;
    pb_gate_kind act;
};

static void glu_back(pb_ctx *c, pb_node *self)
{
    struct three *o = (struct three *)self;
    size_t R = o->y->rows, F = o->y->cols;
    pb_count(c, 12.0 * (double)(R * F), 0, 1, (double)(R * F * 8));
    if (c->dry)
        return;
    PB_FOR(c, R * F * 8)
    for (size_t r = 0; r < R; r++)
        c->k->glu_back(o->a->d ? o->a->d + r * o->a->ld : NULL,
                       o->b->d ? o->b->d + r * o->b->ld : NULL, o->y->d + r * F,
                       o->a->v + r * o->a->ld, o->b->v + r * o->b->ld, F, o->act);
}

pb_mat *pb_glu(pb_ctx *c, pb_mat *gate, pb_mat *up, pb_gate_kind act)
{
    size_t R = gate->rows, F = gate->cols;
    pb_mat *y = pb_new(c, R, F, PB_TOKENS, gate->d || up->d);
    pb_count(c, 8.0 * (double)(R * F), 0, 1, (double)(R * F * 8));
    if (y->d) {
        struct three *o = pb_push(c, sizeof *o, glu_back);
        o->y = y;
        o->a = gate;
        o->b = up;
        o->act = act;
    }
    if (c->dry)
        return y;
    PB_FOR(c, R * F * 8)
    for (size_t r = 0; r < R; r++)
        c->k->glu(y->v + r * F, gate->v + r * gate->ld, up->v + r * up->ld, F, act);
    return y;
}

static void add_back(pb_ctx *c, pb_node *self)
{
    struct three *o = (struct three *)self;
    size_t R = o->y->rows, C = o->y->cols;
    pb_count(c, 2.0 * (double)(R * C), 0, 1, (double)(R * C));
    if (c->dry)
        return;
    PB_FOR(c, R * C)
    for (size_t r = 0; r < R; r++) {
        if (o->a->d)
            c->k->axpby(o->a->d + r * o->a->ld, 1, o->y->d + r * C, 1, C);
        if (o->b->d)
            c->k->axpby(o->b->d + r * o->b->ld, 1, o->y->d + r * C, 1, C);
    }
}

pb_mat *pb_add(pb_ctx *c, pb_mat *x, pb_mat *y)
{
    size_t R = x->rows, C = x->cols;
    pb_mat *z = pb_new(c, R, C, PB_TOKENS, x->d || y->d);
    pb_count(c, (double)(R * C), 0, 1, (double)(R * C));
    if (z->d) {
        struct three *o = pb_push(c, sizeof *o, add_back);
        o->y = z;
        o->a = x;
        o->b = y;
    }
    if (c->dry)
        return z;
    PB_FOR(c, R * C)
    for (size_t r = 0; r < R; r++) {
        const real *a = x->v + r * x->ld, *b = y->v + r * y->ld;
        for (size_t i = 0; i < C; i++)
            z->v[r * C + i] = a[i] + b[i];
    }
    return z;
}
