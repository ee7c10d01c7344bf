// Products with backbone weights.
//
// y_i = x W_i^T streams panels of W_i. dx += dy_i W_i needs panels of the transpose: pieces of them
// are made from the same panels, each just before it is used, so that frozen weights lie in memory
// once. dW_i += dy_i^T x (all weights trained) goes to BLIS. Tasks are (block of rows, panel); the
// inner dimension is cut into blocks that continue the same sums, so no cut changes a result.
#include "tensor/gemm.h"
#include "tensor/layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_BLOCK = 256, // with K_BLOCK inputs they stay in the second cache
    K_BLOCK = 256,   // of a panel: stays in the first cache
    TURN_ROWS = 256, // many enough that turning pieces around costs little
    TURN_FEW = 64    // still acceptable, where it shares the work better
};

static size_t n_panels(size_t out)
{
    return (out + PB_NR - 1) / PB_NR;
}

static size_t part(size_t total, size_t first, size_t most)
{
    return total - first < most ? total - first : most;
}

static uint32_t upper_half(real x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits >> 16;
}

static real real_of_upper_half(uint32_t half)
{
    float f;
    half <<= 16;
    memcpy(&f, &half, sizeof f);
    return f;
}

// Rows that a panel lacks are packed as zeros. A few inputs at a time, so that what is written, a
// column at a time, stays in the first cache.
enum { PACK_BLOCK = 64 };

static void pack_panel(real *p, const real *rows, size_t n, size_t in)
{
    for (size_t k0 = 0; k0 < in; k0 += PACK_BLOCK)
        for (size_t j = 0; j < PB_NR; j++)
            for (size_t k = k0; k < k0 + part(in, k0, PACK_BLOCK); k++)
                p[k * PB_NR + j] = j < n ? rows[j * in + k] : 0;
}

static void pack_panel16(uint32_t *p, const real *rows, size_t n, size_t in)
{
    for (size_t k0 = 0; k0 < in; k0 += PACK_BLOCK)
        for (size_t j = 0; j < PB_NW; j++)
            for (size_t k = k0; k < k0 + part(in, k0, PACK_BLOCK); k++) {
                uint32_t low = j < n ? upper_half(rows[j * in + k]) : 0;
                uint32_t high = j + PB_NW < n ? upper_half(rows[(j + PB_NW) * in + k]) : 0;
                p[k * PB_NW + j] = high << 16 | low;
            }
}

// Half precision of a number that is not negative, to nearest even; infinity beyond its range.
static uint16_t half_of(float f)
{
    uint32_t bits, round;
    float scaled = f * 0x1p-112f; // a float's exponent in a half's place; small ones go denormal
    memcpy(&bits, &scaled, sizeof bits);
    round = (bits >> 13 & 1) + 0xfff;
    bits = (bits + round) >> 13;
    return (uint16_t)(bits < 0x7c00 ? bits : 0x7c00);
}

static float float_of_half(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f * 0x1p112f;
}

static void pack_panel8(char *p, const real *rows, size_t n, size_t in)
{
    memset(p, 0, pb_panel_bytes(PB_PANEL_INT8, in));
    for (size_t g = 0; g < in; g += PB_GROUP) {
        uint16_t *scale = (void *)(p + pb_panel_bytes(PB_PANEL_INT8, g));
        int8_t *q = (int8_t *)(scale + PB_NR);
        for (size_t j = 0; j < n; j++) {
            const real *from = rows + j * in + g;
            size_t m = part(in, g, PB_GROUP);
            float most = 0;
            for (size_t k = 0; k < m; k++)
                most = fmaxf(most, fabsf((float)from[k]));
            scale[j] = half_of(most / 127);
            float by = float_of_half(scale[j]);
            for (size_t k = 0; k < m && by > 0; k++)
                q[k * PB_NR + j] = (int8_t)fmaxf(-127, fminf(127, rintf((float)from[k] / by)));
        }
    }
}

void pb_pack(const pb_weight *w, const real *rows, size_t row0, size_t n)
{
    for (size_t i = 0; i < n; i += PB_NR) {
        void *to = pb_panel_at(w, (row0 + i) / PB_NR, 0);
        const real *from = rows + i * w->in;
        size_t m = part(n, i, PB_NR);
        if (w->kind == PB_PANEL_FP32)
            pack_panel(to, from, m, w->in);
        else if (w->kind == PB_PANEL_BF16)
            pack_panel16(to, from, m, w->in);
        else
            pack_panel8(to, from, m, w->in);
    }
}

static void unpack8(real *to, const pb_weight *w, size_t p, size_t j)
{
    for (size_t g = 0; g < w->in; g += PB_GROUP) {
        const uint16_t *scale = pb_panel_at(w, p, g);
        const int8_t *q = (const int8_t *)(scale + PB_NR);
        float by = float_of_half(scale[j]);
        for (size_t k = 0; k < part(w->in, g, PB_GROUP); k++)
            to[g + k] = (real)by * (real)q[k * PB_NR + j];
    }
}

void pb_unpack(real *rows, const pb_weight *w, size_t row0, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t p = (row0 + i) / PB_NR, j = (row0 + i) % PB_NR;
        real *to = rows + i * w->in;
        const void *panel = pb_panel_at(w, p, 0);
        if (w->kind == PB_PANEL_INT8) {
            unpack8(to, w, p, j);
        } else if (w->kind == PB_PANEL_FP32) {
            for (size_t k = 0; k < w->in; k++)
                to[k] = ((const real *)panel)[k * PB_NR + j];
        } else {
            const uint32_t *from = (const uint32_t *)panel + j % PB_NW;
            for (size_t k = 0; k < w->in; k++)
                to[k] = real_of_upper_half(j < PB_NW ? from[k * PB_NW] & 0xffff
                                                     : from[k * PB_NW] >> 16);
        }
    }
}

// Rows of y, columns of panel p, whole inner dimension.
static void task(const pb_kernels *k, real *y, size_t ldy, const real *x, size_t ldx,
                 const pb_weight *w, size_t p, size_t R)
{
    size_t n = part(w->out, p * PB_NR, PB_NR);
    for (size_t i = 0; i < w->in; i += K_BLOCK)
        k->panel[w->kind](y, ldy, x + i, ldx, pb_panel_at(w, p, i), R, part(w->in, i, K_BLOCK), n,
                          i > 0);
}

// Into the second cache.
static void ask_for(const char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(from + i, 0, 2);
}

// The transpose: rows of dx, its columns p * NR..; adds to dx or, when not `accumulate`, sets it.
static void task_back(const pb_kernels *k, real *dx, size_t ldx, const real *dy, size_t ldy,
                      const pb_weight *w, size_t p, size_t R, bool accumulate)
{
    real piece[K_BLOCK * PB_NR] __attribute__((aligned(64)));
    size_t n = part(w->in, p * PB_NR, PB_NR), bytes = pb_panel_bytes(w->kind, n);
    for (size_t o = 0; o < w->out; o += K_BLOCK) {
        size_t m = part(w->out, o, K_BLOCK);
        for (size_t j = 0; j < m; j += PB_NR) {
            if (o + j + K_BLOCK < w->out)
                ask_for(pb_panel_at(w, (o + j + K_BLOCK) / PB_NR, p * PB_NR), bytes);
            k->turn[w->kind](piece + j * PB_NR, pb_panel_at(w, (o + j) / PB_NR, p * PB_NR), n);
        }
        k->panel[PB_PANEL_FP32](dx, ldx, dy + o, ldy, piece, R, m, n, accumulate || o);
    }
}

// How many blocks of rows dx is made in: the same size each, and a task for everybody.
static size_t back_blocks(size_t R, size_t panels, int threads)
{
    size_t n = (R + TURN_ROWS - 1) / TURN_ROWS + !R;
    while (n * panels % (size_t)threads && R / (n + 1) >= TURN_FEW)
        n++;
    return n;
}

// ||w + s b A||^2 = ||w||^2 + 2 s b (A w) + s^2 b (A A^T) b, row by row.
pb_err pb_row_norms(real *n, const pb_weight *w, const real *A, const real *B, size_t r,
                    double scale, int threads)
{
    const pb_kernels *k = pb_kernels_get();
    size_t P = n_panels(w->out), in = w->in;
    real *aw = malloc((P * r * PB_NR + 1) * sizeof *aw); // A W^T by panels, (r,NR) each
    real *rows = malloc(P * in * sizeof *rows);          // one of W for each panel
    double *aa = malloc((r * r + 1) * sizeof *aa);
    pb_err err = PB_OK;
    if (!aw || !rows || !aa)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for products of %zu rows", r));
#pragma omp parallel for num_threads(threads)
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < r; j++) {
            aa[i * r + j] = 0;
            for (size_t l = 0; l < in; l++)
                aa[i * r + j] += (double)A[i * in + l] * (double)A[j * in + l];
        }
#pragma omp parallel for num_threads(threads)
    for (size_t p = 0; p < P; p++) {
        real *t = aw + p * r * PB_NR, *x = rows + p * in;
        if (r)
            task(k, t, PB_NR, A, in, w, p, r);
        for (size_t j = 0; j < part(w->out, p * PB_NR, PB_NR); j++) {
            size_t o = p * PB_NR + j;
            double square = 0, cross = 0, both = 0;
            pb_unpack(x, w, o, 1);
            for (size_t l = 0; l < in; l++)
                square += (double)x[l] * (double)x[l];
            for (size_t i = 0; i < r; i++) {
                double b = (double)B[i * w->out + o], sum = 0;
                for (size_t l = 0; l < r; l++)
                    sum += aa[i * r + l] * (double)B[l * w->out + o];
                cross += b * (double)t[i * PB_NR + j];
                both += b * sum;
            }
            // Rows that cancel are not quite zero: rounding must not make them less.
            n[o] = (real)sqrt(fmax(square + scale * (2 * cross + scale * both), 1e-30));
        }
    }
done:
    free(aw);
    free(rows);
    free(aa);
    return err;
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
    size_t R = x->rows, flops = 0, bytes = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->y[i]->d) {
            flops += 2 * R * o->w[i]->out * o->w[i]->in * ((x->d != NULL) + (o->w[i]->d != NULL));
            bytes += x->d ? back_blocks(R, 1, 1) * pb_weight_bytes(o->w[i]) : 0;
        }
    pb_count(c, (double)flops, (double)bytes, 1, (double)flops / 2);
    if (c->dry)
        return;
    if (x->d) {
        size_t panels = n_panels(x->cols), blocks = back_blocks(R, panels, c->threads);
        size_t size = (R + blocks - 1) / blocks;
        PB_FOR(c, flops / 2)
        for (size_t t = 0; t < blocks * panels; t++) {
            size_t r0 = t / panels * size, p = t % panels;
            if (r0 >= R)
                continue;
            for (size_t i = 0; i < o->n; i++) {
                const pb_mat *y = o->y[i];
                if (y->d)
                    task_back(c->k, x->d + r0 * x->ld + p * PB_NR, x->ld, y->d + r0 * y->ld, y->ld,
                              o->w[i], p, part(R, r0, size), true);
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
    size_t R = x->rows, blocks = (R + ROW_BLOCK - 1) / ROW_BLOCK, panels = 0, work = 0, bytes = 0;
    size_t size = blocks ? (R + blocks - 1) / blocks : 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        bool grad = c->record && (x->d || w[i]->d);
        y[i] = pb_new(c, R, w[i]->out, PB_TOKENS, grad);
        panels += n_panels(w[i]->out);
        work += R * w[i]->out * w[i]->in;
        bytes += blocks * pb_weight_bytes(w[i]);
        any |= grad;
    }
    pb_count(c, 2.0 * (double)work, (double)bytes, 1, (double)work);
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
        size_t r0 = t / panels * size, p = t % panels, i = 0;
        if (r0 >= R)
            continue;
        while (p >= n_panels(w[i]->out))
            p -= n_panels(w[i++]->out);
        size_t rows = part(R, r0, size), cols = part(w[i]->out, p * PB_NR, PB_NR);
        real *to = y[i]->v + r0 * y[i]->ld + p * PB_NR;
        task(c->k, to, y[i]->ld, x->v + r0 * x->ld, x->ld, w[i], p, rows);
        if (w[i]->bias)
            for (size_t r = 0; r < rows; r++)
                c->k->axpby(to + r * y[i]->ld, 1, w[i]->bias + p * PB_NR, 1, cols);
    }
}

// ---------------------------------------------------------------- head and loss

// Rows whose logits are in memory at a time, within 32 MB if that leaves some: the backward product
// turns all of the head around for each block.
static size_t loss_block(size_t V)
{
    size_t rows = ((size_t)1 << 23) / V;
    return rows > 256 ? 256 : rows < 64 ? 64 : rows;
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
        size_t cols = part(head->out, p * PB_NR, PB_NR);
        task(c->k, out + p * PB_NR, head->out, x, head->in, head, p, n);
        for (size_t r = 0; cap > 0 && r < n; r++)
            c->k->soft_cap(out + r * head->out + p * PB_NR, cols, 1, cap);
    }
}

void pb_logits(pb_ctx *c, real *out, const pb_mat *h, const pb_weight *head, double cap,
               const size_t *rows, size_t n)
{
    size_t C = head->in, mark = pb_mark(c->arena), block = loss_block(head->out);
    real *x = PB_NEW(c->arena, real, block * C);
    pb_enter(c, PB_HEAD);
    size_t blocks = (n + block - 1) / block;
    pb_count(c, 2.0 * (double)(n * C * head->out), (double)(blocks * pb_weight_bytes(head)), blocks,
             (double)((n < block ? n : block) * C * head->out));
    for (size_t i = 0; i < n && !c->dry; i += block) {
        size_t m = part(n, i, block);
        gather(c, x, h, rows + i, m);
        head_product(c, out + i * head->out, x, head, m, (real)cap);
    }
    pb_enter(c, PB_BACKBONE);
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
    pb_enter(c, PB_HEAD);
    size_t blocks = (n + block - 1) / block;
    pb_count(c, (grad ? 4.0 : 2.0) * (double)(n * C * V),
             (double)(blocks * (h->d && grad ? 2 : 1) * pb_weight_bytes(head)),
             blocks * (grad ? 3 : 2), (double)(n * C * V));
    for (size_t i = 0; i < n && !c->dry; i += block) {
        size_t m = part(n, i, block);
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
            for (size_t p = 0; p < n_panels(C); p++)
                task_back(c->k, dx + p * PB_NR, C, logits, V, head, p, m, false);
            for (size_t j = 0; j < m; j++)
                c->k->axpby(h->d + rows[i + j] * h->ld, 1, dx + j * C, 1, C);
        }
        if (head->d)
            pb_gemm(true, false, V, C, m, 1, logits, V, x, C, 1, head->d, C, c->threads);
    }
    pb_enter(c, PB_BACKBONE);
    pb_release(c->arena, mark);
}
