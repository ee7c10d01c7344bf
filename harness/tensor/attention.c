// Causal attention over segments with grouped queries, without a score matrix in memory.
//
// Keys come in blocks of NR, in this order: the tenant's prefix, then the sequence from position 0
// (from the cache, or the segment's own rows). Each query goes through its blocks in that order
// with an online softmax, so prefill, training and decoding compute the same numbers bit by bit.
// Keys are kept in panels (D,NR), which makes scores the same product as that of weights. A window
// closes from below: blocks that no query of a tile sees are skipped, and a block that one query
// does not see leaves it as it was, so how queries are put into tiles changes nothing either. For a
// window, a prefix of P holds the positions 0 .. P-1 and the sequence those from P on, as where
// prefixes are made (Hugging Face puts them into the cache).
//
// Backward (Dao et al. 2022): with P = softmax, D_i = dO_i . O_i,
//   dV = P^T dO, dS = P * (dO V^T - D), dQ = scale dS K, dK = scale dS^T Q,
// where a soft cap S = cap tanh(scale Q K^T / cap) makes dS * (1 - (S / cap)^2) of dS.
#include "tensor/layers.h"

#include <math.h>
#include <string.h>

enum { BQ = 16 }; // queries of a tile

struct attention {
    pb_node node;
    pb_mat *q, *k, *v, *o;
    size_t H, KVH, D;
    pb_scores how;
    real *panels;         // keys of segments without a slot
    const size_t *panel0; // (S) where each segment's panels begin
    const pb_prefix *const *prefix;
    real *lse;                // (R,H)
    real *vpanels, **vprefix; // backward only: values in panels, laid out as the keys'; (S)
};

// The keys and values that one segment and one group of heads sees.
struct source {
    const real *kp; // panels of the sequence for this group
    const real *v;  // (n, ldv)
    size_t ldv;
    const real *pkp, *pv; // the prefix
    size_t n_prefix, ldpv;
};

static size_t blocks_of(size_t n)
{
    return (n + PB_NR - 1) / PB_NR;
}

static real *slot_k(const pb_kv *kv, size_t slot, size_t layer, size_t g)
{
    return kv->k + ((slot * kv->layers + layer) * kv->kv_heads + g) * kv->capacity * kv->head_dim;
}

static real *slot_v(const pb_kv *kv, size_t slot, size_t layer)
{
    return kv->v + (slot * kv->layers + layer) * kv->capacity * kv->kv_heads * kv->head_dim;
}

static struct source source_of(const pb_ctx *c, const struct attention *o, size_t s, size_t g)
{
    const pb_segment *seg = &c->seg[s];
    struct source src = {0};
    if (seg->slot >= 0) {
        src.kp = slot_k(c->kv, (size_t)seg->slot, o->node.layer, g);
        src.v = slot_v(c->kv, (size_t)seg->slot, o->node.layer) + g * o->D;
        src.ldv = o->KVH * o->D;
    } else {
        src.kp = o->panels + o->panel0[s] + g * blocks_of(seg->n_rows) * PB_NR * o->D;
        src.v = o->v->v + seg->row0 * o->v->ld + g * o->D;
        src.ldv = o->v->ld;
    }
    const pb_prefix *p = o->prefix ? o->prefix[s] : NULL;
    if (p && p->n) {
        src.n_prefix = p->n;
        src.pkp = p->k_panels + g * blocks_of(p->n) * PB_NR * o->D;
        src.pv = p->v->v + g * o->D;
        src.ldpv = p->v->ld;
    }
    return src;
}

// Puts key rows pos0.. of one head into panels.
static void pack_rows(real *panels, const real *k, size_t ldk, size_t pos0, size_t n, size_t D)
{
    for (size_t i = 0; i < n; i++) {
        real *to = panels + (pos0 + i) / PB_NR * PB_NR * D + (pos0 + i) % PB_NR;
        for (size_t d = 0; d < D; d++)
            to[d * PB_NR] = k[i * ldk + d];
    }
}

void pb_pack_keys(real *panels, const pb_mat *k, size_t KVH, size_t D)
{
    size_t size = blocks_of(k->rows) * PB_NR * D;
    memset(panels, 0, KVH * size * sizeof(real));
    for (size_t g = 0; g < KVH; g++)
        pack_rows(panels + g * size, k->v + g * D, k->ld, 0, k->rows, D);
}

// Raw scores of M queries against one block of keys, capped if so wished. Returns the scale that is
// left to apply.
static real scores(const pb_ctx *c, const struct attention *o, real *s, const real *q, size_t ldq,
                   const real *kp, size_t M)
{
    c->k->panel[PB_PANEL_FP32](s, PB_NR, q, ldq, kp, M, o->D, PB_NR, false);
    if (!(o->how.cap > 0))
        return (real)o->how.scale;
    c->k->soft_cap(s, M * PB_NR, (real)o->how.scale, (real)o->how.cap);
    return 1;
}

// The first position that the query at position `last` sees.
static size_t first_of(const struct attention *o, size_t last)
{
    return o->how.window && last >= o->how.window ? last + 1 - o->how.window : 0;
}

// Lanes that M queries see in the block of positions b.. : first[i] <= j < valid[i]. Queries stand
// in order, and the last position of each is last[i].
static void lanes(const struct attention *o, const size_t *last, size_t M, size_t b, size_t *first,
                  size_t *valid)
{
    for (size_t i = 0; i < M; i++) {
        size_t from = first_of(o, last[i]), to = last[i] + 1;
        first[i] = from <= b ? 0 : from - b < PB_NR ? from - b : PB_NR;
        valid[i] = to <= b ? 0 : to - b < PB_NR ? to - b : PB_NR;
    }
}

// The same for the block b.. of a prefix of P: the window alone ends it.
static void prefix_lanes(const struct attention *o, const size_t *last, size_t M, size_t P,
                         size_t b, size_t *first, size_t *valid)
{
    for (size_t i = 0; i < M; i++) {
        size_t from = first_of(o, P + last[i]), n = P - b < PB_NR ? P - b : PB_NR;
        first[i] = from <= b ? 0 : from - b < n ? from - b : n;
        valid[i] = n;
    }
}

// One tile of queries against all blocks. q: M rows with stride ldq; the keys that query i sees are
// the prefix and the positions up to last[i], which rises with i, as far as the window goes.
static void tile(const pb_ctx *c, const struct attention *o, const struct source *src, size_t M,
                 const real *q, size_t ldq, const size_t *last, real *out, size_t ldo, real *lse,
                 size_t ldlse)
{
    real s[BQ * PB_NR] __attribute__((aligned(64))), m[BQ], l[BQ];
    size_t first[BQ], valid[BQ], D = o->D, end = last[M - 1] + 1;
    for (size_t i = 0; i < M; i++) {
        m[i] = (real)-1e30;
        l[i] = 0;
        memset(out + i * ldo, 0, D * sizeof(real));
    }
    size_t P = src->n_prefix;
    for (size_t b = first_of(o, P + last[0]) / PB_NR * PB_NR; b < P; b += PB_NR) {
        size_t n = P - b < PB_NR ? P - b : PB_NR;
        prefix_lanes(o, last, M, P, b, first, valid);
        real scale = scores(c, o, s, q, ldq, src->pkp + b * D, M);
        c->k->soft_block(s, first, valid, m, l, out, ldo, M, D, scale);
        c->k->axpys(out, ldo, s, PB_NR, src->pv + b * src->ldpv, src->ldpv, M, n, D, 1);
    }
    for (size_t b = first_of(o, last[0]) / PB_NR * PB_NR; b < end; b += PB_NR) {
        size_t n = end - b < PB_NR ? end - b : PB_NR;
        lanes(o, last, M, b, first, valid);
        real scale = scores(c, o, s, q, ldq, src->kp + b * D, M);
        c->k->soft_block(s, first, valid, m, l, out, ldo, M, D, scale);
        c->k->axpys(out, ldo, s, PB_NR, src->v + b * src->ldv, src->ldv, M, n, D, 1);
    }
    for (size_t i = 0; i < M; i++) {
        real inv = 1 / l[i];
        for (size_t d = 0; d < D; d++)
            out[i * ldo + d] *= inv;
        if (lse)
            lse[i * ldlse] = m[i] + (real)log((double)l[i]);
    }
}

// Stores the keys and values of one segment and group, then attends.
static void forward_task(const pb_ctx *c, const struct attention *o, size_t s, size_t g)
{
    const pb_segment *seg = &c->seg[s];
    size_t D = o->D, G = o->H / o->KVH, last[BQ];
    struct source src = source_of(c, o, s, g);
    const real *k = o->k->v + seg->row0 * o->k->ld + g * D;
    size_t pos0 = seg->slot >= 0 ? seg->pos0 : 0;
    if (seg->slot < 0)
        memset((real *)src.kp, 0, blocks_of(seg->n_rows) * PB_NR * D * sizeof(real));
    pack_rows((real *)src.kp, k, o->k->ld, pos0, seg->n_rows, D);
    if (seg->slot >= 0)
        for (size_t i = 0; i < seg->n_rows; i++)
            memcpy((real *)src.v + (pos0 + i) * src.ldv,
                   o->v->v + (seg->row0 + i) * o->v->ld + g * D, D * sizeof(real));
    if (seg->n_rows == 1) { // decoding: the heads of the group are the tile
        for (size_t h0 = 0; h0 < G; h0 += BQ) {
            size_t M = G - h0 < BQ ? G - h0 : BQ, head = g * G + h0;
            for (size_t i = 0; i < M; i++)
                last[i] = pos0;
            tile(c, o, &src, M, o->q->v + seg->row0 * o->q->ld + head * D, D, last,
                 o->o->v + seg->row0 * o->o->ld + head * D, D,
                 o->lse ? o->lse + seg->row0 * o->H + head : NULL, 1);
        }
        return;
    }
    for (size_t h = g * G; h < (g + 1) * G; h++)
        for (size_t i0 = 0; i0 < seg->n_rows; i0 += BQ) {
            size_t M = seg->n_rows - i0 < BQ ? seg->n_rows - i0 : BQ, row = seg->row0 + i0;
            for (size_t i = 0; i < M; i++)
                last[i] = pos0 + i0 + i;
            tile(c, o, &src, M, o->q->v + row * o->q->ld + h * D, o->q->ld, last,
                 o->o->v + row * o->o->ld + h * D, o->o->ld,
                 o->lse ? o->lse + row * o->H + h : NULL, o->H);
        }
}

// Gradients through one block of keys for one tile of queries.
static void block_back(const pb_ctx *c, const struct attention *o, size_t M, size_t n,
                       const size_t *first, const size_t *valid, const real *q, const real *lse,
                       const real *kp, const real *krow, size_t ldk, const real *vp,
                       const real *dout, const real *delta, real *dq, real *dk, size_t lddk,
                       real *dv, size_t lddv)
{
    real s[BQ * PB_NR] __attribute__((aligned(64))), dp[BQ * PB_NR], slope[BQ * PB_NR];
    size_t D = o->D, ldq = o->q->ld, ldo = o->o->ld;
    const real scale = (real)o->how.scale, cap = (real)o->how.cap;
    real left = scores(c, o, s, q, ldq, kp, M);
    for (size_t i = 0; cap > 0 && i < M * PB_NR; i++)
        slope[i] = 1 - s[i] / cap * (s[i] / cap);
    c->k->soft_probs(s, first, valid, lse, o->H, M, left);
    if (dv)
        c->k->outer(dv, lddv, s, PB_NR, dout, ldo, M, n, D, 1);
    c->k->panel[PB_PANEL_FP32](dp, PB_NR, dout, ldo, vp, M, D, PB_NR, false);
    const real now = cap > 0 ? 1 : scale, later = cap > 0 ? scale : 1; // the slope comes first
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < n; j++)
            s[i * PB_NR + j] = now * (s[i * PB_NR + j] * (dp[i * PB_NR + j] - delta[i]));
    if (cap > 0)
        c->k->mul(s, s, slope, M * PB_NR);
    if (dq)
        c->k->axpys(dq, ldq, s, PB_NR, krow, ldk, M, n, D, later);
    if (dk)
        c->k->outer(dk, lddk, s, PB_NR, q, ldq, M, n, D, later);
}

static void backward_task(const pb_ctx *c, const struct attention *o, size_t s, size_t g)
{
    const pb_segment *seg = &c->seg[s];
    const pb_prefix *p = o->prefix ? o->prefix[s] : NULL;
    size_t D = o->D, G = o->H / o->KVH, first[BQ], valid[BQ], last[BQ];
    struct source src = source_of(c, o, s, g);
    real delta[BQ], *vown = o->vpanels + (src.kp - o->panels);
    const real *vpre = p ? o->vprefix[s] + g * blocks_of(p->n) * PB_NR * D : NULL;
    memset(vown, 0, blocks_of(seg->n_rows) * PB_NR * D * sizeof(real));
    pack_rows(vown, src.v, src.ldv, 0, seg->n_rows, D);
    for (size_t h = g * G; h < (g + 1) * G; h++)
        for (size_t i0 = 0; i0 < seg->n_rows; i0 += BQ) {
            size_t M = seg->n_rows - i0 < BQ ? seg->n_rows - i0 : BQ, row = seg->row0 + i0;
            const real *q = o->q->v + row * o->q->ld + h * D;
            const real *dout = o->o->d + row * o->o->ld + h * D;
            const real *lse = o->lse + row * o->H + h;
            real *dq = o->q->d ? o->q->d + row * o->q->ld + h * D : NULL;
            for (size_t i = 0; i < M; i++) {
                last[i] = i0 + i;
                delta[i] =
                    c->k->dot(dout + i * o->o->ld, o->o->v + (row + i) * o->o->ld + h * D, D);
            }
            size_t P = src.n_prefix;
            for (size_t b = first_of(o, P + i0) / PB_NR * PB_NR; b < P; b += PB_NR) {
                size_t n = P - b < PB_NR ? P - b : PB_NR;
                prefix_lanes(o, last, M, P, b, first, valid);
                block_back(c, o, M, n, first, valid, q, lse, src.pkp + b * D,
                           p->k->v + b * p->k->ld + g * D, p->k->ld, vpre + b * D, dout, delta, dq,
                           p->k->d ? p->k->d + b * p->k->ld + g * D : NULL, p->k->ld,
                           p->v->d ? p->v->d + b * p->v->ld + g * D : NULL, p->v->ld);
            }
            for (size_t b = first_of(o, i0) / PB_NR * PB_NR; b < i0 + M; b += PB_NR) {
                size_t n = i0 + M - b < PB_NR ? i0 + M - b : PB_NR, kr = seg->row0 + b;
                lanes(o, last, M, b, first, valid);
                block_back(c, o, M, n, first, valid, q, lse, src.kp + b * D,
                           o->k->v + kr * o->k->ld + g * D, o->k->ld, vown + b * D, dout, delta, dq,
                           o->k->d ? o->k->d + kr * o->k->ld + g * D : NULL, o->k->ld,
                           o->v->d ? o->v->d + kr * o->v->ld + g * D : NULL, o->v->ld);
            }
        }
}

// Pairs of a query at one of the positions pos0.. pos0+n-1 and a key up to it, within the window.
static double pairs_of(double pos0, double n, double window)
{
    double all = n * (pos0 + (n + 1) / 2), out = pos0 + n - window; // the last query's loss
    if (window == 0 || out <= 0)
        return all;
    return out <= n ? all - out * (out + 1) / 2 : n * window;
}

// Counts multiply-adds of scores and values, and keys and values read. Returns the work in the
// measure of PB_PARALLEL_WORK: single queries run at a quarter of the speed of larger products.
static double count(pb_ctx *c, const struct attention *o, double factor)
{
    double pairs = 0, keys = 0;
    for (size_t s = 0; s < c->n_seg; s++) {
        const pb_segment *g = &c->seg[s];
        size_t prefix = c->seg_shift ? c->seg_shift[s] : 0;
        size_t at = prefix + (g->slot >= 0 ? g->pos0 : 0);
        pairs += pairs_of((double)at, (double)g->n_rows, (double)o->how.window);
        keys += (double)(at + g->n_rows - first_of(o, at));
    }
    double products = pairs * (double)(o->H * o->D * 2), work = 4 * products;
    pb_count(c, factor * 2 * products, 2 * keys * (double)(o->KVH * o->D * sizeof(real)), 1, work);
    return work;
}

static void attention_back(pb_ctx *c, pb_node *self)
{
    struct attention *o = (struct attention *)self;
    pb_enter(c, PB_ATTENTION);
    count(c, o, 2.5);
    pb_enter(c, PB_BACKBONE);
    size_t S = c->n_seg, KD = o->KVH * o->D;
    o->vpanels = PB_NEW(c->arena, real, (c->n_rows + PB_NR * S) * KD);
    o->vprefix = PB_NEW(c->heads, real *, S);
    const pb_prefix *before = NULL; // the last one seen
    bool shared = false;            // segments add to the same prefix gradients
    for (size_t s = 0, at = 0; s < S; s++) {
        const pb_prefix *p = o->prefix ? o->prefix[s] : NULL;
        o->vprefix[s] = NULL;
        if (!p)
            continue;
        if (p == before) {
            o->vprefix[s] = o->vprefix[at];
            continue;
        }
        shared |= !p->own && (p->k->d || p->v->d);
        o->vprefix[s] = PB_NEW(c->arena, real, blocks_of(p->n) * PB_NR * KD);
        if (!c->dry)
            pb_pack_keys(o->vprefix[s], p->v, o->KVH, o->D);
        before = p;
        at = s;
    }
    if (c->dry)
        return;
    if (shared) { // then only heads run side by side, and segments follow in order
        PB_FOR(c, o->q->rows * o->H * o->D * 64)
        for (size_t g = 0; g < o->KVH; g++)
            for (size_t s = 0; s < S; s++)
                backward_task(c, o, s, g);
    } else {
        PB_PRAGMA(omp parallel for schedule(dynamic, 1) num_threads(c->threads))
        for (size_t t = 0; t < S * o->KVH; t++)
            backward_task(c, o, t / o->KVH, t % o->KVH);
    }
}

pb_mat *pb_attention(pb_ctx *c, pb_mat *q, pb_mat *k, pb_mat *v, size_t H, size_t KVH, size_t D,
                     pb_scores how)
{
    size_t S = c->n_seg, *panel0 = PB_NEW(c->heads, size_t, S), used = 0;
    bool grad = q->d || k->d || v->d, own = false;
    for (size_t s = 0; s < S; s++) {
        if (c->seg_prefix && c->seg_prefix[s] && c->seg_prefix[s]->n)
            grad |= c->seg_prefix[s]->k->d || c->seg_prefix[s]->v->d;
        panel0[s] = used;
        own |= c->seg[s].slot < 0;
        used += blocks_of(c->seg[s].n_rows) * PB_NR * KVH * D;
    }
    // A dry step reserves for the worst split of its rows into segments.
    if (c->dry)
        used = (c->n_rows + PB_NR * S) * KVH * D;
    struct attention local = {
        .q = q, .k = k, .v = v, .H = H, .KVH = KVH, .D = D, .how = how, .panel0 = panel0};
    local.o = pb_new(c, q->rows, H * D, PB_TOKENS, grad);
    if (own)
        local.panels = PB_NEW(c->arena, real, used);
    if (c->seg_prefix) {
        const pb_prefix **copy = PB_NEW(c->heads, const pb_prefix *, S);
        memcpy(copy, c->seg_prefix, S * sizeof *copy);
        local.prefix = copy;
    }
    local.node.layer = c->layer;
    if (local.o->d) {
        local.lse = PB_NEW(c->arena, real, q->rows * H);
        struct attention *o = pb_push(c, sizeof *o, attention_back);
        local.node = o->node;
        *o = local;
    }
    pb_enter(c, PB_ATTENTION);
    double work = count(c, &local, 1);
    size_t tasks = c->dry ? 0 : S * KVH;
    PB_PRAGMA(omp parallel for schedule(dynamic, 1) num_threads(c->threads) if (work > PB_PARALLEL_WORK))
    for (size_t t = 0; t < tasks; t++)
        forward_task(c, &local, t / KVH, t % KVH);
    pb_enter(c, PB_BACKBONE);
    return local.o;
}
