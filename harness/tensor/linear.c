// Products with backbone weights.
//
// y_i = x W_i^T streams panels of W_i; dx += dy_i W_i streams panels of the transpose; dW_i +=
// dy_i^T x (all weights trained) goes to BLIS. Tasks are (block of rows, panel); the inner
// dimension is cut into blocks that continue the same sums, so no cut changes a result.
#include "tensor/gemm.h"
#include "tensor/layers.h"

#include <string.h>

enum { ROW_BLOCK = 112, K_BLOCK = 1024 };

static size_t n_panels(size_t out)
{
    return (out + PB_NR - 1) / PB_NR;
}

void pb_pack(real *panels, const real *rows, size_t row0, size_t n, size_t in)
{
    for (size_t i = 0; i < n; i++) {
        real *p = panels + (row0 + i) / PB_NR * PB_NR * in + (row0 + i) % PB_NR;
        for (size_t k = 0; k < in; k++)
            p[k * PB_NR] = rows[i * in + k];
    }
    size_t end = row0 + n;
    if (end % PB_NR == 0)
        return;
    real *p = panels + end / PB_NR * PB_NR * in;
    for (size_t k = 0; k < in; k++)
        memset(p + k * PB_NR + end % PB_NR, 0, (PB_NR - end % PB_NR) * sizeof(real));
}

void pb_unpack(real *w, const real *panels, size_t out, size_t in)
{
    for (size_t i = 0; i < out; i++)
        for (size_t k = 0; k < in; k++)
            w[i * in + k] = panels[(i / PB_NR * in + k) * PB_NR + i % PB_NR];
}

void pb_pack_transposed(real *panels_t, const real *panels, size_t out, size_t in)
{
    memset(panels_t, 0, pb_panels_size(in, out) * sizeof(real));
    for (size_t p = 0; p < n_panels(out); p++)
        for (size_t k = 0; k < in; k++)
            for (size_t j = 0; j < PB_NR && p * PB_NR + j < out; j++)
                panels_t[(k / PB_NR * out + p * PB_NR + j) * PB_NR + k % PB_NR] =
                    panels[(p * in + k) * PB_NR + j];
}

// One task: rows r0.. of y, one panel, whole inner dimension.
static void task(const pb_kernels *k, real *y, size_t ldy, const real *x, size_t ldx,
                 const real *panel, size_t R, size_t in, size_t n, bool accumulate)
{
    for (size_t i = 0; i < in; i += K_BLOCK) {
        size_t w = in - i < K_BLOCK ? in - i : K_BLOCK;
        k->panel(y, ldy, x + i, ldx, panel + i * PB_NR, R, w, n, accumulate || i);
    }
}

struct linear {
    pb_node node;
    pb_mat *x, *y[3];
    const pb_weight *w[3];
    size_t n;
};

static void linear_back(pb_ctx *c, pb_node *self)
{
    struct linear *o = (struct linear *)self;
    pb_mat *x = o->x;
    size_t R = x->rows, blocks = (R + ROW_BLOCK - 1) / ROW_BLOCK, flops = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->y[i]->d)
            flops += 2 * R * o->w[i]->out * o->w[i]->in * ((x->d != NULL) + (o->w[i]->d != NULL));
    pb_count(c, (double)flops, 0, 1, (double)flops / 2);
    if (c->dry)
        return;
    if (x->d) {
        size_t tasks = blocks * n_panels(x->cols);
        PB_FOR(c, flops / 2)
        for (size_t t = 0; t < tasks; t++) {
            size_t r0 = t / n_panels(x->cols) * ROW_BLOCK, p = t % n_panels(x->cols);
            size_t rows = R - r0 < ROW_BLOCK ? R - r0 : ROW_BLOCK;
            size_t n = x->cols - p * PB_NR < PB_NR ? x->cols - p * PB_NR : PB_NR;
            for (size_t i = 0; i < o->n; i++) {
                const pb_mat *y = o->y[i];
                if (y->d)
                    task(c->k, x->d + r0 * x->ld + p * PB_NR, x->ld, y->d + r0 * y->ld, y->ld,
                         o->w[i]->panels_t + p * PB_NR * y->cols, rows, y->cols, n, true);
            }
        }
    }
    for (size_t i = 0; i < o->n; i++) {
        const pb_weight *w = o->w[i];
        const pb_mat *y = o->y[i];
        if (w->d)
            pb_gemm(true, false, w->out, w->in, R, 1, y->d, y->ld, x->v, x->ld, 1, w->d, w->in,
                    c->threads);
        for (size_t r = 0; w->dbias && r < R; r++)
            c->k->axpby(w->dbias, 1, y->d + r * y->ld, 1, w->out);
    }
}

void pb_linear(pb_ctx *c, pb_mat **y, pb_mat *x, const pb_weight *const *w, size_t n)
{
    size_t R = x->rows, blocks = (R + ROW_BLOCK - 1) / ROW_BLOCK, panels = 0, work = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        bool grad = c->record && (x->d || w[i]->d);
        y[i] = pb_new(c, R, w[i]->out, PB_TOKENS, grad);
        panels += n_panels(w[i]->out);
        work += R * w[i]->out * w[i]->in;
        any |= grad;
    }
    pb_count(c, 2.0 * (double)work, R ? (double)(work / R * sizeof(real)) : 0, 1, (double)work);
    // The node is pushed even when x has no gradient: an adapter may give y one later, but then
    // there is nothing to pass on and nothing trained here.
    if (any) {
        struct linear *o = pb_push(c, sizeof *o, linear_back);
        o->x = x;
        o->n = n;
        memcpy(o->y, y, n * sizeof *y);
        memcpy(o->w, w, n * sizeof *w);
    }
    if (c->dry)
        return;
    PB_FOR(c, work)
    for (size_t t = 0; t < blocks * panels; t++) {
        size_t r0 = t / panels * ROW_BLOCK, p = t % panels, i = 0;
        while (p >= n_panels(w[i]->out))
            p -= n_panels(w[i++]->out);
        size_t rows = R - r0 < ROW_BLOCK ? R - r0 : ROW_BLOCK;
        size_t cols = w[i]->out - p * PB_NR < PB_NR ? w[i]->out - p * PB_NR : PB_NR;
        real *to = y[i]->v + r0 * y[i]->ld + p * PB_NR;
        task(c->k, to, y[i]->ld, x->v + r0 * x->ld, x->ld, w[i]->panels + p * PB_NR * x->cols, rows,
             x->cols, cols, false);
        if (w[i]->bias)
            for (size_t r = 0; r < rows; r++)
                c->k->axpby(to + r * y[i]->ld, 1, w[i]->bias + p * PB_NR, 1, cols);
    }
}

// ---------------------------------------------------------------- head and loss

// Rows whose logits are in memory at a time: enough to make products of them worth while, within
// 4 MB of a common vocabulary.
static size_t loss_block(size_t V)
{
    return V <= 4096 ? 256 : V >= 16384 ? 64 : (size_t)1048576 / V;
}

static void gather(const pb_ctx *c, real *to, const pb_mat *h, const size_t *rows, size_t n)
{
    (void)c;
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * h->cols, h->v + rows[i] * h->ld, h->cols * sizeof(real));
}

static void head_product(pb_ctx *c, real *out, const real *x, const pb_weight *head, size_t n,
                         real cap)
{
    size_t P = n_panels(head->out);
    PB_FOR(c, n * head->out * head->in)
    for (size_t p = 0; p < P; p++) {
        size_t cols = head->out - p * PB_NR < PB_NR ? head->out - p * PB_NR : PB_NR;
        task(c->k, out + p * PB_NR, head->out, x, head->in, head->panels + p * PB_NR * head->in, n,
             head->in, cols, false);
        for (size_t r = 0; cap > 0 && r < n; r++)
            c->k->soft_cap(out + r * head->out + p * PB_NR, cols, 1, cap);
    }
}

void pb_logits(pb_ctx *c, real *out, const pb_mat *h, const pb_weight *head, double cap,
               const size_t *rows, size_t n)
{
    size_t C = head->in, mark = pb_mark(c->arena), block = loss_block(head->out);
    real *x = PB_NEW(c->arena, real, block * C);
    c->component = PB_HEAD;
    pb_count(c, 2.0 * (double)(n * C * head->out), (double)(C * head->out * sizeof(real)),
             (n + block - 1) / block, (double)((n < block ? n : block) * C * head->out));
    for (size_t i = 0; i < n && !c->dry; i += block) {
        size_t m = n - i < block ? n - i : block;
        gather(c, x, h, rows + i, m);
        head_product(c, out + i * head->out, x, head, m, (real)cap);
    }
    c->component = PB_BACKBONE;
    pb_release(c->arena, mark);
}

// Turns a row of logits into weight * (softmax - one at the target); the derivative of a cap,
// 1 - (logit / cap)^2, is taken while the logits are still there.
static void loss_slopes(const pb_ctx *c, real *row, size_t V, size_t target, real lse, real weight,
                        real cap)
{
    real slope[256];
    if (!(cap > 0)) {
        c->k->softmax(row, V, lse, weight);
        row[target] -= weight;
        return;
    }
    for (size_t v = 0; v < V; v += 256) {
        size_t n = V - v < 256 ? V - v : 256;
        for (size_t i = 0; i < n; i++)
            slope[i] = 1 - row[v + i] / cap * (row[v + i] / cap);
        c->k->softmax(row + v, n, lse, weight);
        if (target >= v && target < v + n)
            row[target] -= weight;
        c->k->mul(row + v, row + v, slope, n);
    }
}

void pb_lm_loss(pb_ctx *c, pb_mat *h, const pb_weight *head, double cap, const int32_t *target,
                const real *weight, real *nll, uint8_t *hits)
{
    size_t C = head->in, V = head->out, mark = pb_mark(c->arena), n = 0, block = loss_block(V);
    real *x = PB_NEW(c->arena, real, block * C), *dx = PB_NEW(c->arena, real, block * C);
    real *logits = PB_NEW(c->arena, real, block * V);
    size_t *rows = PB_NEW(c->heads, size_t, h->rows);
    for (size_t r = 0; r < h->rows; r++)
        if (c->dry || target[r] >= 0)
            rows[n++] = r;
    bool grad = c->record && (h->d || head->d);
    c->component = PB_HEAD;
    pb_count(c, (grad ? 4.0 : 2.0) * (double)(n * C * V), (double)(C * V * sizeof(real)),
             (n + block - 1) / block * (grad ? 3 : 2), (double)(n * C * V));
    for (size_t i = 0; i < n && !c->dry; i += block) {
        size_t m = n - i < block ? n - i : block;
        gather(c, x, h, rows + i, m);
        head_product(c, logits, x, head, m, (real)cap);
        PB_FOR(c, m * V * 8)
        for (size_t j = 0; j < m; j++) {
            real *row = logits + j * V;
            size_t r = rows[i + j];
            real lse = c->k->log_sum_exp(row, V), at = row[target[r]];
            nll[r] = lse - at;
            if (hits) {
                hits[r] = 1;
                for (size_t v = 0; v < V; v++)
                    if (row[v] > at) {
                        hits[r] = 0;
                        break;
                    }
            }
            if (grad)
                loss_slopes(c, row, V, (size_t)target[r], lse, weight[r], (real)cap);
        }
        if (!grad)
            continue;
        if (h->d) {
            PB_FOR(c, m * V * C)
            for (size_t p = 0; p < n_panels(C); p++) {
                size_t cols = C - p * PB_NR < PB_NR ? C - p * PB_NR : PB_NR;
                task(c->k, dx + p * PB_NR, C, logits, V, head->panels_t + p * PB_NR * V, m, V, cols,
                     false);
            }
            for (size_t j = 0; j < m; j++)
                c->k->axpby(h->d + rows[i + j] * h->ld, 1, dx + j * C, 1, C);
        }
        if (head->d)
            pb_gemm(true, false, V, C, m, 1, logits, V, x, C, 1, head->d, C, c->threads);
    }
    c->component = PB_BACKBONE;
    pb_release(c->arena, mark);
}
