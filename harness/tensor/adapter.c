// Operations on adapter parameters: per-segment low-rank updates, scaling, pooling, activations.
//
// One parallel region per operation over *items*: runs of rows that share one tenant's parameters.
// Gradients of parameters are summed over items in their order, split over columns, so that the
// result does not depend on the number of threads.
#include "tensor/layers.h"
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

enum { COLUMN_BLOCK = 64 };

static real *row(const pb_mat *m, size_t r)
{
    return m->v + r * m->ld;
}

static real *drow(const pb_mat *m, size_t r)
{
    return m->d + r * m->ld;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static pb_mat *zeros(pb_ctx *c, size_t rows, size_t cols, pb_rows_of of)
{
    pb_mat *m = pb_new(c, rows, cols, of, false);
    if (!c->dry)
        memset(m->v, 0, rows * cols * sizeof(real));
    return m;
}

// Rows times rank times width, summed over the items: multiply-adds of one half of a low-rank
// update, of which at most so many columns are used.
static double work_of(const pb_ctx *c, const pb_item *it, size_t n, int id, size_t cols,
                      double *bytes)
{
    double work = 0;
    const pb_params *last = NULL; // neighbours that share a tenant read its matrix once
    pb_view w;
    for (size_t i = 0; i < n; i++)
        if (pb_lookup(c, it[i].params, id, &w)) {
            double size = (double)(w.rows * least(w.cols, cols));
            work += (double)it[i].n * size;
            if (it[i].params != last)
                *bytes += size * sizeof(real);
            last = it[i].params;
        }
    return work;
}

// ---------------------------------------------------------------- low-rank update

struct low_rank {
    pb_node node;
    pb_mat *y, *x, *t; // y += scale t B, t = x A^T; y is NULL for `down` alone
    int A, B;          // -1: that half is absent
};

static void low_rank_back(pb_ctx *c, pb_node *self)
{
    struct low_rank *o = (struct low_rank *)self;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, o->t, &whole, &n);
    double unused = 0, work = 0;
    if (o->A >= 0)
        work += work_of(c, it, n, o->A, o->x->cols, &unused);
    if (o->B >= 0)
        work += work_of(c, it, n, o->B, o->y->cols, &unused);
    pb_count(c, 4 * work, 0, 2, work);
    if (c->dry)
        return;
    // dt = scale dy B^T, dx += dt A
    PB_FOR(c, work)
    for (size_t i = 0; i < n; i++) {
        pb_view A, B;
        if (o->B >= 0 && o->t->d && pb_lookup(c, it[i].params, o->B, &B))
            c->k->dots(drow(o->t, it[i].row), o->t->ld, drow(o->y, it[i].row), o->y->ld, B.v,
                       B.cols, it[i].n, B.rows, least(B.cols, o->y->cols), (real)B.scale);
        if (o->A >= 0 && o->x->d && pb_lookup(c, it[i].params, o->A, &A))
            c->k->axpys(drow(o->x, it[i].row), o->x->ld, drow(o->t, it[i].row), o->t->ld, A.v,
                        A.cols, it[i].n, A.rows, least(A.cols, o->x->cols), 1);
    }
    // dA += dt^T x, dB += scale t^T dy: by blocks of columns, items in order
    size_t ca = o->A >= 0 ? (pb_most_cols(c, o->A) + COLUMN_BLOCK - 1) / COLUMN_BLOCK : 0;
    size_t cb = o->B >= 0 ? (pb_most_cols(c, o->B) + COLUMN_BLOCK - 1) / COLUMN_BLOCK : 0;
    PB_FOR(c, work)
    for (size_t b = 0; b < ca + cb; b++) {
        bool second = b >= ca;
        size_t col = (second ? b - ca : b) * COLUMN_BLOCK;
        for (size_t i = 0; i < n; i++) {
            pb_view w;
            const pb_mat *m = second ? o->y : o->x;
            if (!pb_lookup(c, it[i].params, second ? o->B : o->A, &w) || !w.d)
                continue;
            size_t used = least(w.cols, m->cols);
            if (col >= used)
                continue;
            size_t cols = least(used - col, COLUMN_BLOCK);
            const real *t = (second ? o->t->v : o->t->d) + it[i].row * o->t->ld;
            const real *x = (second ? m->d : m->v) + it[i].row * m->ld + col;
            c->k->outer(w.d + col, w.cols, t, o->t->ld, x, m->ld, it[i].n, w.rows, cols,
                        second ? (real)w.scale : 1);
        }
    }
}

static void low_rank_forward(pb_ctx *c, struct low_rank *o)
{
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, o->t, &whole, &n);
    double bytes = 0, work = 0;
    if (o->A >= 0)
        work += work_of(c, it, n, o->A, o->x->cols, &bytes);
    if (o->B >= 0)
        work += work_of(c, it, n, o->B, o->y->cols, &bytes);
    pb_count(c, 2 * work, bytes, 1, work);
    if (o->t->d || (o->y && o->y->d)) {
        struct low_rank *kept = pb_push(c, sizeof *kept, low_rank_back);
        o->node = kept->node;
        *kept = *o;
    }
    if (c->dry)
        return;
    PB_FOR(c, work)
    for (size_t i = 0; i < n; i++) {
        pb_view A, B;
        real *t = row(o->t, it[i].row);
        if (o->A >= 0 && pb_lookup(c, it[i].params, o->A, &A))
            c->k->dots(t, o->t->ld, row(o->x, it[i].row), o->x->ld, A.v, A.cols, it[i].n, A.rows,
                       least(A.cols, o->x->cols), 1);
        if (o->B >= 0 && pb_lookup(c, it[i].params, o->B, &B))
            c->k->axpys(row(o->y, it[i].row), o->y->ld, t, o->t->ld, B.v, B.cols, it[i].n, B.rows,
                        least(B.cols, o->y->cols), (real)B.scale);
    }
}

void pb_low_rank(pb_ctx *c, pb_mat *y, pb_mat *x, int A, int B)
{
    size_t r = pb_most_rows(c, A);
    if (!r)
        return;
    bool grad = x->d || pb_trained(c, A);
    if (grad || pb_trained(c, B))
        pb_want_grad(c, y);
    pb_want_cols(c, "pb_low_rank, A", A, x->cols, "x");
    pb_want_rows(c, "pb_low_rank, B", B, r, "A's result");
    pb_want_cols(c, "pb_low_rank, B", B, y->cols, "y");
    struct low_rank o = {.y = y, .x = x, .A = A, .B = B};
    o.t = pb_new(c, x->rows, r, x->of, c->record && (grad || pb_trained(c, B)));
    low_rank_forward(c, &o);
}

pb_mat *pb_down(pb_ctx *c, pb_mat *x, int A)
{
    struct low_rank o = {.x = x, .A = A, .B = -1};
    pb_want_cols(c, "pb_down", A, x->cols, "x");
    if (!pb_most_rows(c, A))
        pb_wrong(c, "pb_down: `layout` gave the id %d to no matrix here", A);
    o.t = pb_new(c, x->rows, pb_most_rows(c, A), x->of, c->record && (x->d || pb_trained(c, A)));
    low_rank_forward(c, &o);
    return o.t;
}

void pb_up(pb_ctx *c, pb_mat *y, pb_mat *t, int B)
{
    if (t->d || pb_trained(c, B))
        pb_want_grad(c, y);
    pb_want_rows(c, "pb_up", B, t->cols, "t");
    pb_want_cols(c, "pb_up", B, y->cols, "y");
    struct low_rank o = {.y = y, .t = t, .A = -1, .B = B};
    low_rank_forward(c, &o);
}

// ---------------------------------------------------------------- scaling and shifting

struct scale {
    pb_node node;
    pb_mat *z, *y, *l; // z = y * l
    int id;            // the tenant's vector, when l is NULL
    size_t col0;
    bool plus_one, response_only;
    bool shift; // z = y + l instead, in place
};

// The rows of an item that are scaled: all, or those after the prompt.
static pb_item part(const pb_ctx *c, pb_item it, bool response_only)
{
    const pb_segment *s = &c->seg[it.seg];
    size_t first = s->row0 + s->n_prompt;
    if (response_only && it.row < first) {
        size_t skip = first - it.row < it.n ? first - it.row : it.n;
        it.row += skip;
        it.n -= skip;
    }
    return it;
}

// The factor vector of a segment and its width, which a tenant's may be narrower than others';
// `plus_one` is added by the caller.
static const real *factor(const pb_ctx *c, const struct scale *o, const pb_item *it, size_t *n)
{
    pb_view w;
    *n = o->z->cols;
    if (o->l)
        return row(o->l, it->seg) + o->col0;
    if (!pb_lookup(c, it->params, o->id, &w))
        return NULL;
    *n = least(*n, w.cols);
    return w.v;
}

static void scale_back(pb_ctx *c, pb_node *self)
{
    struct scale *o = (struct scale *)self;
    const pb_selection *sel = c->sel;
    size_t N = o->z->cols;
    pb_count(c, 4.0 * (double)(o->z->rows * N), 0, 2, (double)(o->z->rows * N));
    if (c->dry)
        return;
    if (o->y->d && !o->shift) {
        PB_FOR(c, o->z->rows * N)
        for (size_t i = 0; i < sel->n_rows; i++) {
            pb_item it = sel->rows[i], p = part(c, it, o->response_only);
            size_t n;
            const real *l = factor(c, o, &it, &n);
            for (size_t r = it.row; r < it.row + it.n; r++) {
                bool scaled = l && r >= p.row && p.n;
                real *dy = drow(o->y, r);
                const real *dz = drow(o->z, r);
                if (scaled)
                    c->k->mul_add(dy, dz, l, n);
                if (!scaled || o->plus_one)
                    c->k->axpby(dy, 1, dz, 1, n);
            }
        }
    }
    size_t blocks = (N + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
    if (o->l ? !o->l->d : !pb_trained(c, o->id))
        return;
    PB_FOR(c, o->z->rows * N)
    for (size_t b = 0; b < blocks; b++) {
        size_t col = b * COLUMN_BLOCK, n = N - col < COLUMN_BLOCK ? N - col : COLUMN_BLOCK;
        for (size_t i = 0; i < sel->n_rows; i++) {
            pb_item it = part(c, sel->rows[i], o->response_only);
            pb_view w = {0};
            real *dl = NULL;
            if (o->l)
                dl = drow(o->l, it.seg) + o->col0 + col;
            else if (pb_lookup(c, it.params, o->id, &w) && w.d)
                dl = w.d + col;
            for (size_t r = it.row; dl && r < it.row + it.n; r++) {
                if (o->shift)
                    c->k->axpby(dl, 1, drow(o->z, r) + col, 1, n);
                else
                    c->k->mul_add(dl, drow(o->z, r) + col, row(o->y, r) + col, n);
            }
        }
    }
}

static pb_mat *scale_forward(pb_ctx *c, struct scale *o)
{
    const pb_selection *sel = c->sel;
    pb_mat *y = o->y;
    size_t N = y->cols;
    double bytes = 0;
    if (o->id >= 0)
        (void)work_of(c, sel->rows, sel->n_rows, o->id, N, &bytes);
    pb_count(c, (double)(y->rows * N), bytes, 1, (double)(y->rows * N));
    o->z = y;
    bool grad = c->record && (y->d || (o->l ? o->l->d != NULL : pb_trained(c, o->id)));
    if (grad) {
        // The factor's gradient needs the value before scaling; a recorded step has one tenant, so
        // all rows are selected and the copy is complete.
        o->z = pb_new(c, y->rows, N, y->of, true);
        struct scale *kept = pb_push(c, sizeof *kept, scale_back);
        o->node = kept->node;
        *kept = *o;
    }
    if (c->dry)
        return o->z;
    PB_FOR(c, y->rows * N)
    for (size_t i = 0; i < sel->n_rows; i++) {
        pb_item it = sel->rows[i], p = part(c, it, o->response_only);
        size_t n;
        const real *l = factor(c, o, &it, &n);
        for (size_t r = it.row; r < it.row + it.n; r++) {
            const real *from = row(y, r);
            real *to = row(o->z, r);
            if (!l || !p.n || r < p.row) {
                if (to != from)
                    memcpy(to, from, N * sizeof(real));
            } else if (o->plus_one) {
                for (size_t k = 0; k < n; k++)
                    to[k] = from[k] * (1 + l[k]);
            } else {
                c->k->mul(to, from, l, n);
            }
        }
    }
    return o->z;
}

pb_mat *pb_scale(pb_ctx *c, pb_mat *y, pb_mat *l, size_t col0, bool plus_one, bool response_only)
{
    if (!l) {
        pb_wrong(c, "pb_scale: there is no l; per-sequence state needs `state` and `prompt`");
        return y;
    }
    if (l->of != PB_SEGMENTS || l->cols < col0 + y->cols)
        pb_wrong(c, "pb_scale: l has %zu columns%s, not the %zu behind column %zu that y needs",
                 l->cols, l->of == PB_SEGMENTS ? "" : " of one row per token", y->cols, col0);
    struct scale o = {.y = y,
                      .l = l,
                      .id = -1,
                      .col0 = col0,
                      .plus_one = plus_one,
                      .response_only = response_only};
    return scale_forward(c, &o);
}

pb_mat *pb_scale_by(pb_ctx *c, pb_mat *y, int l)
{
    struct scale o = {.y = y, .id = l};
    pb_want_cols(c, "pb_scale_by", l, y->cols, "y");
    return pb_most_cols(c, l) ? scale_forward(c, &o) : y;
}

struct magnify {
    pb_node node;
    pb_mat *z, *y;
    const real *bias; // or NULL
    int m, d;
};

static void magnify_back(pb_ctx *c, pb_node *self)
{
    struct magnify *o = (struct magnify *)self;
    const pb_selection *sel = c->sel;
    size_t N = o->z->cols;
    pb_count(c, 6.0 * (double)(o->z->rows * N), 0, 2, (double)(o->z->rows * N));
    if (c->dry)
        return;
    PB_FOR(c, o->z->rows * N)
    for (size_t i = 0; i < (o->y->d ? sel->n_rows : 0); i++) {
        pb_view m, d;
        bool has = pb_lookup(c, sel->rows[i].params, o->m, &m) &&
                   pb_lookup(c, sel->rows[i].params, o->d, &d);
        for (size_t r = sel->rows[i].row; r < sel->rows[i].row + sel->rows[i].n; r++)
            for (size_t k = 0; k < N; k++)
                drow(o->y, r)[k] += drow(o->z, r)[k] * (has ? m.v[k] / d.v[k] : 1);
    }
    PB_FOR(c, o->z->rows * N)
    for (size_t b = 0; b < (N + COLUMN_BLOCK - 1) / COLUMN_BLOCK; b++)
        for (size_t i = 0; i < sel->n_rows; i++) {
            pb_view m, d;
            if (!pb_lookup(c, sel->rows[i].params, o->m, &m) || !m.d ||
                !pb_lookup(c, sel->rows[i].params, o->d, &d))
                continue;
            size_t end = (b + 1) * COLUMN_BLOCK < N ? (b + 1) * COLUMN_BLOCK : N;
            for (size_t r = sel->rows[i].row; r < sel->rows[i].row + sel->rows[i].n; r++)
                for (size_t k = b * COLUMN_BLOCK; k < end; k++)
                    m.d[k] += drow(o->z, r)[k] *
                              ((row(o->y, r)[k] - (o->bias ? o->bias[k] : 0)) / d.v[k]);
        }
}

pb_mat *pb_magnify(pb_ctx *c, pb_mat *y, int linear, int m, int d)
{
    const pb_selection *sel = c->sel;
    size_t N = y->cols;
    double bytes = 0;
    struct magnify o = {
        .z = y, .y = y, .bias = c->linears ? c->linears[linear].bias : NULL, .m = m, .d = d};
    (void)work_of(c, sel->rows, sel->n_rows, m, N, &bytes);
    pb_count(c, 4.0 * (double)(y->rows * N), 2 * bytes, 1, (double)(y->rows * N));
    if (c->record && (y->d || pb_trained(c, m))) { // as in pb_scale: y is needed again
        o.z = pb_new(c, y->rows, N, y->of, true);
        struct magnify *kept = pb_push(c, sizeof *kept, magnify_back);
        o.node = kept->node;
        *kept = o;
    }
    if (c->dry)
        return o.z;
    PB_FOR(c, y->rows * N)
    for (size_t i = 0; i < sel->n_rows; i++) {
        pb_view vm, vd;
        bool has =
            pb_lookup(c, sel->rows[i].params, m, &vm) && pb_lookup(c, sel->rows[i].params, d, &vd);
        for (size_t r = sel->rows[i].row; r < sel->rows[i].row + sel->rows[i].n; r++) {
            const real *from = row(y, r);
            real *to = row(o.z, r);
            for (size_t k = 0; k < N; k++) {
                real more = has ? vm.v[k] / vd.v[k] - 1 : 0;
                to[k] = from[k] + more * (from[k] - (o.bias ? o.bias[k] : 0));
            }
        }
    }
    return o.z;
}

static void shift_back(pb_ctx *c, pb_node *self)
{
    struct scale *o = (struct scale *)self;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, o->z, &whole, &n);
    pb_count(c, (double)(o->z->rows * o->z->cols), 0, 0, 0);
    for (size_t i = 0; i < n && !c->dry; i++) {
        pb_view w;
        if (pb_lookup(c, it[i].params, o->id, &w) && w.d)
            for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
                c->k->axpby(w.d, (real)w.scale, drow(o->z, r), 1, w.cols);
    }
}

void pb_shift(pb_ctx *c, pb_mat *y, int b)
{
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, y, &whole, &n);
    double bytes = 0;
    (void)work_of(c, it, n, b, y->cols, &bytes);
    pb_want_cols(c, "pb_shift", b, y->cols, "y");
    pb_count(c, (double)(y->rows * y->cols), bytes, 1, (double)(y->rows * y->cols));
    if (pb_trained(c, b)) {
        pb_want_grad(c, y);
        struct scale *o = pb_push(c, sizeof *o, shift_back);
        o->z = y;
        o->id = b;
    }
    if (c->dry)
        return;
    PB_FOR(c, y->rows * y->cols)
    for (size_t i = 0; i < n; i++) {
        pb_view w;
        if (pb_lookup(c, it[i].params, b, &w))
            for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
                c->k->axpby(row(y, r), (real)w.scale, w.v, 1, w.cols);
    }
}

void pb_add_each(pb_ctx *c, pb_mat *y, pb_mat *l)
{
    size_t N = y->cols;
    pb_count(c, (double)(y->rows * N), 0, 1, (double)(y->rows * N));
    if (l->d) {
        pb_want_grad(c, y);
        struct scale *o = pb_push(c, sizeof *o, scale_back);
        o->z = o->y = y;
        o->l = l;
        o->id = -1;
        o->shift = true;
    }
    if (c->dry)
        return;
    PB_FOR(c, y->rows * N)
    for (size_t i = 0; i < c->sel->n_rows; i++) {
        const pb_item *it = &c->sel->rows[i];
        for (size_t r = it->row; r < it->row + it->n; r++)
            c->k->axpby(row(y, r), 1, row(l, it->seg), 1, N);
    }
}

// ---------------------------------------------------------------- scaled low-rank update

struct add_scaled {
    pb_node node;
    pb_mat *y, *u; // y += u * b
    int b;
};

static void add_scaled_back(pb_ctx *c, pb_node *self)
{
    struct add_scaled *o = (struct add_scaled *)self;
    const pb_selection *sel = c->sel;
    size_t N = o->y->cols;
    pb_count(c, 4.0 * (double)(o->y->rows * N), 0, 2, (double)(o->y->rows * N));
    if (c->dry)
        return;
    PB_FOR(c, o->y->rows * N)
    for (size_t i = 0; i < (o->u->d ? sel->n_rows : 0); i++) {
        const pb_item *it = &sel->rows[i];
        pb_view b;
        if (pb_lookup(c, it->params, o->b, &b))
            for (size_t r = it->row; r < it->row + it->n; r++)
                c->k->mul_add(drow(o->u, r), drow(o->y, r), b.v, N);
    }
    PB_FOR(c, o->y->rows * N)
    for (size_t col = 0; col < N; col += COLUMN_BLOCK)
        for (size_t i = 0; i < sel->n_rows; i++) {
            const pb_item *it = &sel->rows[i];
            pb_view b;
            if (pb_lookup(c, it->params, o->b, &b) && b.d)
                for (size_t r = it->row; r < it->row + it->n; r++)
                    c->k->mul_add(b.d + col, drow(o->y, r) + col, row(o->u, r) + col,
                                  least(N - col, COLUMN_BLOCK));
        }
}

static void add_scaled(pb_ctx *c, pb_mat *y, pb_mat *u, int b)
{
    const pb_selection *sel = c->sel;
    size_t N = y->cols;
    double bytes = 0;
    (void)work_of(c, sel->rows, sel->n_rows, b, N, &bytes);
    pb_count(c, 2.0 * (double)(y->rows * N), bytes, 1, (double)(y->rows * N));
    if (u->d || pb_trained(c, b)) {
        pb_want_grad(c, y);
        struct add_scaled *o = pb_push(c, sizeof *o, add_scaled_back);
        o->y = y;
        o->u = u;
        o->b = b;
    }
    if (c->dry)
        return;
    PB_FOR(c, y->rows * N)
    for (size_t i = 0; i < sel->n_rows; i++) {
        const pb_item *it = &sel->rows[i];
        pb_view v;
        if (pb_lookup(c, it->params, b, &v))
            for (size_t r = it->row; r < it->row + it->n; r++)
                c->k->mul_add(row(y, r), row(u, r), v.v, N);
    }
}

void pb_scaled_low_rank(pb_ctx *c, pb_mat *y, pb_mat *x, int A, int d, int B, int b)
{
    size_t r = pb_most_rows(c, A);
    if (!r)
        return;
    struct low_rank down = {.x = x, .A = A, .B = -1}, up = {.y = y, .A = -1, .B = B};
    down.t = pb_new(c, x->rows, r, x->of, c->record && (x->d || pb_trained(c, A)));
    low_rank_forward(c, &down);
    up.t = pb_scale_by(c, down.t, d);
    if (b >= 0)
        up.y = zeros(c, y->rows, y->cols, y->of);
    if (up.t->d || pb_trained(c, B))
        pb_want_grad(c, up.y);
    low_rank_forward(c, &up);
    if (b >= 0)
        add_scaled(c, y, up.y, b);
}

// ---------------------------------------------------------------- pooling

struct pool {
    pb_node node;
    pb_mat *p, *h;
    pb_pooler kind;
    int w;
    uint32_t *arg; // (S,C): rows of the maxima
    real *alpha;   // (R): attention weights
};

static void pool_back(pb_ctx *c, pb_node *self)
{
    struct pool *o = (struct pool *)self;
    size_t C = o->h->cols;
    pb_count(c, 4.0 * (double)(o->h->rows * C), 0, 0, 0);
    if (c->dry)
        return;
    for (size_t i = 0; i < c->sel->n; i++) {
        const pb_item *it = &c->sel->segs[i];
        const pb_segment *s = &c->seg[it->seg];
        const real *dp = drow(o->p, it->row);
        size_t n = s->n_prompt, r0 = s->row0;
        if (o->kind == PB_POOL_LAST && o->h->d) {
            c->k->axpby(drow(o->h, r0 + n - 1), 1, dp, 1, C);
        } else if (o->kind == PB_POOL_MEAN && o->h->d) {
            for (size_t r = 0; r < n; r++)
                c->k->axpby(drow(o->h, r0 + r), 1 / (real)n, dp, 1, C);
        } else if (o->kind == PB_POOL_MAX && o->h->d) {
            for (size_t k = 0; k < C; k++)
                drow(o->h, o->arg[it->row * C + k])[k] += dp[k];
        } else if (o->kind == PB_POOL_ATTENTION) {
            // p = sum a_r h_r, a = softmax(e), e_r = w.h_r / sqrt(C):
            // de_r = a_r (dp.h_r - dp.p), dh_r += a_r dp + de_r w / sqrt(C), dw += de_r h_r /
            // sqrt(C)
            pb_view w;
            if (!pb_lookup(c, it->params, o->w, &w))
                continue;
            const size_t own = w.cols; // others of the batch may be wider
            const real root = (real)(1 / sqrt((double)own));
            real base = c->k->dot(dp, row(o->p, it->row), own);
            for (size_t r = r0; r < r0 + n; r++) {
                real a = o->alpha[r], de = a * (c->k->dot(dp, row(o->h, r), own) - base) * root;
                if (o->h->d) {
                    c->k->axpby(drow(o->h, r), a, dp, 1, own);
                    c->k->axpby(drow(o->h, r), de, w.v, 1, own);
                }
                if (w.d)
                    c->k->axpby(w.d, de, row(o->h, r), 1, own);
            }
        }
    }
}

pb_mat *pb_pool(pb_ctx *c, pb_mat *h, pb_pooler kind, int w)
{
    size_t C = h->cols;
    if (kind == PB_POOL_ATTENTION)
        pb_want_cols(c, "pb_pool", w, C, "h");
    bool grad = c->record && (h->d || (kind == PB_POOL_ATTENTION && pb_trained(c, w)));
    struct pool local = {.h = h, .kind = kind, .w = w};
    local.p = pb_new(c, c->n_seg, C, PB_SEGMENTS, grad);
    if (kind == PB_POOL_MAX)
        local.arg = PB_NEW(c->arena, uint32_t, c->n_seg * C);
    if (kind == PB_POOL_ATTENTION)
        local.alpha = PB_NEW(c->arena, real, h->rows);
    pb_count(c, kind == PB_POOL_LAST ? 0 : 2.0 * (double)(h->rows * C), 0, 1,
             kind == PB_POOL_LAST ? 0 : (double)(h->rows * C));
    if (grad) {
        struct pool *o = pb_push(c, sizeof *o, pool_back);
        local.node = o->node;
        *o = local;
    }
    if (c->dry)
        return local.p;
    PB_FOR(c, kind == PB_POOL_LAST ? 0 : h->rows * C)
    for (size_t i = 0; i < c->sel->n; i++) {
        const pb_item *it = &c->sel->segs[i];
        const pb_segment *s = &c->seg[it->seg];
        size_t n = s->n_prompt, r0 = s->row0;
        real *p = row(local.p, it->row);
        pb_view q;
        if (kind == PB_POOL_LAST) {
            memcpy(p, row(h, r0 + n - 1), C * sizeof(real));
        } else if (kind == PB_POOL_MEAN) {
            memset(p, 0, C * sizeof(real));
            for (size_t r = 0; r < n; r++)
                c->k->axpby(p, 1 / (real)n, row(h, r0 + r), 1, C);
        } else if (kind == PB_POOL_MAX) {
            memcpy(p, row(h, r0), C * sizeof(real));
            for (size_t k = 0; k < C; k++)
                local.arg[it->row * C + k] = (uint32_t)r0;
            for (size_t r = r0 + 1; r < r0 + n; r++)
                for (size_t k = 0; k < C; k++)
                    if (row(h, r)[k] > p[k]) {
                        p[k] = row(h, r)[k];
                        local.arg[it->row * C + k] = (uint32_t)r;
                    }
        } else {
            memset(p, 0, C * sizeof(real));
            if (!pb_lookup(c, it->params, w, &q))
                continue;
            for (size_t r = r0; r < r0 + n; r++)
                local.alpha[r] = c->k->dot(q.v, row(h, r), q.cols) / (real)sqrt((double)q.cols);
            c->k->softmax(local.alpha + r0, n, c->k->log_sum_exp(local.alpha + r0, n), 1);
            for (size_t r = r0; r < r0 + n; r++)
                c->k->axpby(p, local.alpha[r], row(h, r), 1, q.cols);
        }
    }
    return local.p;
}

// ---------------------------------------------------------------- activations

struct act {
    pb_node node;
    pb_mat *y, *x;
    pb_act kind;
    int a, b;
};

static void act_value(pb_act kind, double x, double *y, double *slope)
{
    *y = x;
    *slope = 1;
    switch (kind) {
    case PB_RELU:
        *y = x > 0 ? x : 0;
        *slope = x > 0;
        break;
    case PB_GELU: {
        double phi = 0.5 * (1 + erf(x * 0.7071067811865476));
        *y = x * phi;
        *slope = phi + x * 0.3989422804014327 * exp(-0.5 * x * x);
        break;
    }
    case PB_ACT_SILU: {
        double s = 1 / (1 + exp(-x));
        *y = x * s;
        *slope = s * (1 + x * (1 - s));
        break;
    }
    case PB_TANH:
        *y = tanh(x);
        *slope = 1 - *y * *y;
        break;
    case PB_IDENTITY:
        break;
    }
}

static void act_back(pb_ctx *c, pb_node *self)
{
    struct act *o = (struct act *)self;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, o->x, &whole, &n);
    pb_count(c, 8.0 * (double)(o->x->rows * o->x->cols), 0, 0, 0);
    for (size_t i = 0; i < n && !c->dry && o->x->d; i++)
        for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
            for (size_t k = 0; k < o->x->cols; k++) {
                double y, slope;
                act_value(o->kind, (double)row(o->x, r)[k], &y, &slope);
                drow(o->x, r)[k] += drow(o->y, r)[k] * (real)slope;
            }
}

pb_mat *pb_activate(pb_ctx *c, pb_mat *x, pb_act kind)
{
    struct act local = {.x = x, .kind = kind};
    local.y = pb_new(c, x->rows, x->cols, x->of, x->d != NULL);
    pb_count(c, 8.0 * (double)(x->rows * x->cols), 0, 1, (double)(x->rows * x->cols * 20));
    if (x->d) {
        struct act *o = pb_push(c, sizeof *o, act_back);
        local.node = o->node;
        *o = local;
    }
    if (c->dry)
        return local.y;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, x, &whole, &n);
    PB_FOR(c, x->rows * x->cols * 20)
    for (size_t i = 0; i < n; i++)
        for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
            for (size_t k = 0; k < x->cols; k++) {
                double y, slope;
                act_value(kind, (double)row(x, r)[k], &y, &slope);
                row(local.y, r)[k] = (real)y;
            }
    return local.y;
}

// P = sum a_j x^j, Q = sum_{i>=1} b_i x^i, R = P / (1 + |Q|).
static void rational_parts(const pb_view *a, const pb_view *b, double x, double *P, double *dP,
                           double *Q, double *dQ)
{
    *P = *dP = *Q = *dQ = 0;
    for (size_t j = a->cols; j-- > 0;) {
        *dP = *dP * x + *P;
        *P = *P * x + (double)a->v[j];
    }
    for (size_t i = b->cols; i-- > 0;) {
        *dQ = *dQ * x + *Q;
        *Q = *Q * x + (double)b->v[i];
    }
    *dQ = *dQ * x + *Q; // one more factor x: powers start at 1
    *Q *= x;
}

static void rational_back(pb_ctx *c, pb_node *self)
{
    struct act *o = (struct act *)self;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, o->x, &whole, &n);
    pb_count(c, 40.0 * (double)(o->x->rows * o->x->cols), 0, 0, 0);
    for (size_t i = 0; i < n && !c->dry; i++) {
        pb_view a, b;
        if (!pb_lookup(c, it[i].params, o->a, &a) || !pb_lookup(c, it[i].params, o->b, &b))
            continue;
        for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
            for (size_t k = 0; k < o->x->cols; k++) {
                double x = (double)row(o->x, r)[k], dy = (double)drow(o->y, r)[k], P, dP, Q, dQ;
                rational_parts(&a, &b, x, &P, &dP, &Q, &dQ);
                double den = 1 + fabs(Q), sign = Q < 0 ? -1 : 1;
                if (o->x->d)
                    drow(o->x, r)[k] += (real)(dy * (dP / den - P * sign * dQ / (den * den)));
                double power = 1;
                for (size_t j = 0; a.d && j < a.cols; j++, power *= x)
                    a.d[j] += (real)(dy * power / den);
                power = x;
                for (size_t j = 0; b.d && j < b.cols; j++, power *= x)
                    b.d[j] -= (real)(dy * P * sign * power / (den * den));
            }
    }
}

pb_mat *pb_rational(pb_ctx *c, pb_mat *x, int a, int b)
{
    struct act local = {.x = x, .a = a, .b = b};
    bool grad = c->record && (x->d || pb_trained(c, a) || pb_trained(c, b));
    local.y = pb_new(c, x->rows, x->cols, x->of, grad);
    pb_count(c, 26.0 * (double)(x->rows * x->cols), 0, 1, (double)(x->rows * x->cols * 26));
    if (grad) {
        struct act *o = pb_push(c, sizeof *o, rational_back);
        local.node = o->node;
        *o = local;
    }
    if (c->dry)
        return local.y;
    pb_item whole;
    size_t n;
    const pb_item *it = pb_items(c, x, &whole, &n);
    PB_FOR(c, x->rows * x->cols * 26)
    for (size_t i = 0; i < n; i++) {
        pb_view va, vb;
        if (!pb_lookup(c, it[i].params, a, &va) || !pb_lookup(c, it[i].params, b, &vb))
            continue;
        for (size_t r = it[i].row; r < it[i].row + it[i].n; r++)
            for (size_t k = 0; k < x->cols; k++) {
                double P, dP, Q, dQ;
                rational_parts(&va, &vb, (double)row(x, r)[k], &P, &dP, &Q, &dQ);
                row(local.y, r)[k] = (real)(P / (1 + fabs(Q)));
            }
    }
    return local.y;
}

// A fit of R to GELU: its largest error is 0.004 on [-8,8], and 0.07 at +-10. A fit on the [-3,3]
// of the original would be off by 1.8 at 10.
static const double gelu_a[7] = {-0.003601317336210113,  0.5,
                                 0.42022031402410137,    0.12654123829218966,
                                 0.016133711375405254,   0.0007141307550269241,
                                 -3.3050344789091828e-06};
static const double gelu_b[5] = {0, 0.2530824765845348, 0, 0.0014282615100599401, 0};

void pb_rational_gelu(real *a, real *b)
{
    for (size_t j = 0; j < 7; j++)
        a[j] = (real)gelu_a[j];
    for (size_t j = 0; j < 5; j++)
        b[j] = (real)gelu_b[j];
}

// ---------------------------------------------------------------- routing

struct route {
    pb_node node;
    pb_mat *g, *z;
};

// dz_e = g_e (dg_e - sum_i g_i dg_i): nothing where a gate is zero.
static void route_back(pb_ctx *c, pb_node *self)
{
    struct route *o = (struct route *)self;
    size_t n = o->g->cols;
    pb_count(c, 4.0 * (double)(o->g->rows * n), 0, 0, 0);
    for (size_t i = 0; i < c->sel->n && !c->dry; i++) {
        const real *g = row(o->g, c->sel->seg[i]), *dg = drow(o->g, c->sel->seg[i]);
        real *dz = drow(o->z, c->sel->seg[i]), sum = 0;
        for (size_t e = 0; e < n; e++)
            sum += g[e] * dg[e];
        for (size_t e = 0; e < n; e++)
            dz[e] += g[e] * (dg[e] - sum);
    }
}

void pb_route(pb_ctx *c, pb_mat *g, pb_mat *z, int first, size_t k)
{
    size_t n = g->cols;
    pb_count(c, 8.0 * (double)(g->rows * n), 0, 0, 0);
    if (z && z->d) {
        pb_want_grad(c, g);
        struct route *o = pb_push(c, sizeof *o, route_back);
        o->g = g;
        o->z = z;
    }
    for (size_t i = 0; i < c->sel->n && !c->dry; i++) {
        const pb_item *it = &c->sel->segs[i];
        real *to = row(g, it->row);
        double sum = 0, top = 0;
        size_t experts = 0;
        pb_view w;
        for (size_t e = 0; e < n; e++) {
            to[e] = pb_lookup(c, it->params, first + (int)e, &w) ? 1 : 0;
            experts += to[e] > 0;
        }
        if (experts < 2 || !z)
            continue;
        const real *from = row(z, it->row);
        for (size_t j = 0; j < k && j < experts; j++) {
            size_t best = n;
            for (size_t e = 0; e < n; e++)
                if (to[e] == 1 && (best == n || from[e] > from[best]))
                    best = e;
            to[best] = 2; // chosen
            top = j ? top : (double)from[best];
            sum += exp((double)from[best] - top);
        }
        for (size_t e = 0; e < n; e++)
            to[e] = to[e] == 2 ? (real)(exp((double)from[e] - top) / sum) : 0;
    }
}

struct gate {
    pb_node node;
    pb_mat *y, *t, *g;
    size_t col;
};

static void gate_back(pb_ctx *c, pb_node *self)
{
    struct gate *o = (struct gate *)self;
    pb_count(c, 4.0 * (double)(o->t->rows * o->t->cols), 0, 0, 0);
    for (size_t i = 0; i < c->sel->n_rows && !c->dry; i++) {
        const pb_item *it = &c->sel->rows[i];
        real g = row(o->g, it->seg)[o->col];
        for (size_t r = it->row; r < it->row + it->n; r++) {
            if (o->t->d)
                c->k->axpby(drow(o->t, r), g, drow(o->y, r), 1, o->t->cols);
            if (o->g->d)
                drow(o->g, it->seg)[o->col] += c->k->dot(drow(o->y, r), row(o->t, r), o->t->cols);
        }
    }
}

pb_mat *pb_gated(pb_ctx *c, pb_mat *t, pb_mat *g, size_t col)
{
    struct gate local = {.t = t, .g = g, .col = col};
    bool grad = c->record && (t->d || g->d);
    local.y = pb_new(c, t->rows, t->cols, t->of, grad);
    pb_count(c, (double)(t->rows * t->cols), 0, 1, (double)(t->rows * t->cols));
    if (grad) {
        struct gate *o = pb_push(c, sizeof *o, gate_back);
        local.node = o->node;
        *o = local;
    }
    if (c->dry)
        return local.y;
    PB_FOR(c, t->rows * t->cols)
    for (size_t i = 0; i < c->sel->n_rows; i++) {
        const pb_item *it = &c->sel->rows[i];
        real by = row(g, it->seg)[col];
        for (size_t r = it->row; r < it->row + it->n; r++)
            for (size_t k = 0; k < t->cols; k++)
                row(local.y, r)[k] = by * row(t, r)[k];
    }
    return local.y;
}

// ---------------------------------------------------------------- copy

struct copy {
    pb_node node;
    pb_mat *y, *x;
};

static void copy_back(pb_ctx *c, pb_node *self)
{
    struct copy *o = (struct copy *)self;
    size_t n = o->x->cols;
    pb_count(c, (double)(o->x->rows * n), 0, 1, (double)(o->x->rows * n));
    if (c->dry)
        return;
    PB_FOR(c, o->x->rows * n)
    for (size_t r = 0; r < o->x->rows; r++)
        c->k->axpby(drow(o->x, r), 1, drow(o->y, r), 1, n);
}

pb_mat *pb_copy(pb_ctx *c, pb_mat *x)
{
    struct copy local = {.x = x};
    local.y = pb_new(c, x->rows, x->cols, x->of, x->d != NULL);
    pb_count(c, 0, 0, 1, (double)(x->rows * x->cols));
    if (x->d) {
        struct copy *o = pb_push(c, sizeof *o, copy_back);
        local.node = o->node;
        *o = local;
    }
    if (c->dry)
        return local.y;
    PB_FOR(c, x->rows * x->cols)
    for (size_t r = 0; r < x->rows; r++)
        memcpy(row(local.y, r), row(x, r), x->cols * sizeof(real));
    return local.y;
}

// ---------------------------------------------------------------- dropout

struct drop {
    pb_node node;
    pb_mat *y, *x;
    double p;
    uint32_t number;
};

static void drop_rows(pb_ctx *c, const struct drop *o, bool back)
{
    uint32_t limit = (uint32_t)(o->p * 4294967296.0);
    real keep = (real)(1 / (1 - o->p));
    size_t C = o->x->cols, R = o->x->rows;
    PB_FOR(c, R * C * 10)
    for (size_t r = 0; r < R; r++)
        for (size_t k = 0; k < C; k++) {
            uint32_t u = pb_rng_at(c->seed, PB_STREAM_DROPOUT, o->number,
                                   ((uint64_t)c->step << 32) + r * C + k);
            real f = u < limit ? 0 : keep;
            if (back)
                drow(o->x, r)[k] += f * drow(o->y, r)[k];
            else
                row(o->y, r)[k] = f * row(o->x, r)[k];
        }
}

static void drop_back(pb_ctx *c, pb_node *self)
{
    struct drop *o = (struct drop *)self;
    pb_count(c, 0, 0, 1, (double)(o->x->rows * o->x->cols * 10));
    if (!c->dry && o->x->d)
        drop_rows(c, o, true);
}

pb_mat *pb_dropout(pb_ctx *c, pb_mat *x, double p)
{
    if (!c->training || p <= 0)
        return x;
    struct drop local = {.x = x, .p = p, .number = c->dropouts++};
    local.y = pb_new(c, x->rows, x->cols, x->of, x->d != NULL);
    pb_count(c, 0, 0, 1, (double)(x->rows * x->cols * 10));
    if (x->d) {
        struct drop *o = pb_push(c, sizeof *o, drop_back);
        local.node = o->node;
        *o = local;
    }
    if (!c->dry)
        drop_rows(c, &local, false);
    return local.y;
}

// ---------------------------------------------------------------- plain matrices

pb_mat *pb_zeros(pb_ctx *c, size_t cols)
{
    return zeros(c, c->n_seg, cols, PB_SEGMENTS);
}

pb_mat *pb_own_zeros(pb_ctx *c, size_t rows, size_t cols)
{
    return zeros(c, rows, cols, PB_TENANT);
}

pb_mat *pb_each(pb_ctx *c, int v)
{
    pb_mat *m = pb_zeros(c, pb_most_cols(c, v));
    pb_shift(c, m, v);
    return m;
}

pb_mat *pb_own(pb_ctx *c, int id)
{
    pb_view w;
    if (!pb_lookup(c, c->tenant, id, &w))
        return NULL;
    pb_mat *m = PB_NEW(c->heads, pb_mat, 1);
    *m =
        (pb_mat){.v = w.v, .d = w.d, .rows = w.rows, .cols = w.cols, .ld = w.cols, .of = PB_TENANT};
    return m;
}
