// Every differentiable operation alone, in double: the gradient of sum(w * result) for random w,
// with respect to every input and parameter, against central differences.
#include "tensor/layers.h"
#include "tensor/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// Segments of one row, of several key blocks and row runs, and of a prompt alone.
static const pb_segment segments[] = {
    {.row0 = 0, .n_rows = 1, .n_prompt = 1, .slot = -1},
    {.row0 = 1, .n_rows = 75, .n_prompt = 30, .slot = -1},
    {.row0 = 76, .n_rows = 9, .n_prompt = 9, .slot = -1},
    {.row0 = 85, .n_rows = 20, .n_prompt = 1, .slot = -1},
};
enum { S = 4, R = 105, X = 14, Y = 37, H = 4, KVH = 2, D = 10, KV = KVH * D, P = 35, V = 45 };

enum { A, B, VEC, QUERY, RA, RB, DEN, FIVE, N_IDS };
static const char *const weight[] = {"W0", "W1", "W2"};
static const char *const parameter[N_IDS] = {"A", "B", "VEC", "QUERY", "RA", "RB", "DEN", "FIVE"};

static struct {
    pb_ctx c;
    pb_arena arena, heads;
    pb_layout layout;
    pb_params params;
    pb_selection all;
    pb_item rows[R], segs[S];
    const pb_params *seg_params[S];
    size_t shift[S];
    pb_mat x, x2, y, q, k, v, l, pk, pv; // leaves: (R,X) twice, (R,Y), heads, (S,Y), prefix
    pb_weight w[3];
    pb_vector vec, head; // (X), (D)
    pb_weight table;     // embedding (V,X)
    int32_t tokens[R];
    double inv_freq[D / 2];
    pb_rng rng;
} f;

static double *numbers(size_t n, double sd)
{
    double *v = malloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = sd * pb_rng_normal(&f.rng);
    return v;
}

static pb_mat leaf(size_t rows, size_t cols, pb_rows_of of)
{
    return (pb_mat){
        numbers(rows * cols, 1), calloc(rows * cols, sizeof(real)), rows, cols, cols, of};
}

static pb_weight trained_weight(size_t out, size_t in, bool bias)
{
    pb_weight w = {.out = out, .in = in, .v = numbers(out * in, 0.4)};
    w.d = calloc(out * in, sizeof(real));
    w.panels = malloc(pb_panels_bytes(PB_PANEL_FP32, out, in));
    if (bias) {
        w.bias = numbers(out, 1);
        w.dbias = calloc(out, sizeof(real));
    }
    return w;
}

static void repack(void)
{
    for (int i = 0; i < 3; i++)
        pb_pack(&f.w[i], f.w[i].v, 0, f.w[i].out);
}

static int set_up(void **state)
{
    (void)state;
    f.rng = pb_rng_make(1, PB_STREAM_TEST, 0);
    static const struct {
        size_t rows, cols;
    } shape[N_IDS] = {[A] = {5, X},  [B] = {5, Y},  [VEC] = {1, Y}, [QUERY] = {1, X},
                      [RA] = {1, 7}, [RB] = {1, 5}, [DEN] = {1, Y}, [FIVE] = {1, 5}};
    for (int i = 0; i < N_IDS; i++)
        pb_layout_add(&f.layout, 0, i, "p", shape[i].rows, shape[i].cols, PB_INIT_ZERO, 0, 0);
    f.layout.spec[B].scale = -0.7;
    f.layout.spec[VEC].scale = 1.3;
    f.layout.spec[DEN].flags = PB_FROZEN;
    if (pb_layout_finish(&f.layout, 1))
        return -1;
    f.params = (pb_params){&f.layout, NULL, numbers(f.layout.size, 0.5),
                           calloc(f.layout.size, sizeof(real))};
    f.x = leaf(R, X, PB_TOKENS);
    f.x2 = leaf(R, X, PB_TOKENS);
    f.y = leaf(R, Y, PB_TOKENS);
    f.q = leaf(R, H * D, PB_TOKENS);
    f.k = leaf(R, KV, PB_TOKENS);
    f.v = leaf(R, KV, PB_TOKENS);
    f.l = leaf(S, Y + 3, PB_SEGMENTS);
    f.pk = leaf(P, KV, PB_TENANT);
    f.pv = leaf(P, KV, PB_TENANT);
    f.w[0] = trained_weight(Y, X, true);
    f.w[1] = trained_weight(3, X, false);
    f.w[2] = trained_weight(V, X, false);
    f.vec = (pb_vector){numbers(X, 1), calloc(X, sizeof(real))};
    f.head = (pb_vector){numbers(D, 1), calloc(D, sizeof(real))};
    f.table = (pb_weight){.out = V, .in = X, .v = numbers(V * X, 1)};
    f.table.d = calloc(V * X, sizeof(real));
    for (size_t i = 0; i < R; i++)
        f.tokens[i] = (int32_t)pb_rng_below(&f.rng, V / 2); // some twice
    for (int i = 0; i < D / 2; i++)
        f.inv_freq[i] = pow(100, -2.0 * i / D);
    static uint32_t every[S] = {0, 1, 2, 3};
    size_t n = 0;
    for (uint32_t s = 0; s < S; s++) {
        f.seg_params[s] = &f.params;
        f.segs[s] = (pb_item){s, 1, s, &f.params};
        f.shift[s] = 3 * s;
        for (size_t i = 0; i < segments[s].n_rows; i += PB_RUN) {
            size_t left = segments[s].n_rows - i;
            f.rows[n++] =
                (pb_item){segments[s].row0 + i, left < PB_RUN ? left : PB_RUN, s, &f.params};
        }
    }
    f.all = (pb_selection){S, every, f.rows, n, f.segs};
    if (pb_arena_init(&f.arena, "test", (size_t)64 << 20) ||
        pb_arena_init(&f.heads, "test headers", (size_t)4 << 20))
        return -1;
    repack();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pb_mat *m[] = {&f.x, &f.x2, &f.y, &f.q, &f.k, &f.v, &f.l, &f.pk, &f.pv};
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        free(m[i]->v), free(m[i]->d);
    for (int i = 0; i < 3; i++) {
        free(f.w[i].v), free(f.w[i].d), free(f.w[i].panels);
        free((double *)f.w[i].bias), free(f.w[i].dbias);
    }
    free((double *)f.vec.v), free(f.vec.d), free((double *)f.head.v), free(f.head.d);
    free(f.table.v), free(f.table.d);
    free(f.params.v), free(f.params.d);
    pb_layout_free(&f.layout);
    pb_arena_free(&f.arena);
    pb_arena_free(&f.heads);
    return 0;
}

static pb_ctx *begin(void)
{
    f.arena.used = f.heads.used = 0;
    f.c = (pb_ctx){.arena = &f.arena,
                   .heads = &f.heads,
                   .k = pb_kernels_get(),
                   .record = true,
                   .training = true,
                   .threads = 1,
                   .seed = 5,
                   .step = 3,
                   .seg = segments,
                   .n_seg = S,
                   .n_rows = R,
                   .seg_params = f.seg_params,
                   .seg_shift = f.shift,
                   .linears = f.w,
                   .all = &f.all,
                   .sel = &f.all};
    return &f.c;
}

// ---------------------------------------------------------------- the check

typedef pb_mat *graph(pb_ctx *c);

// Everything that can have a gradient.
typedef struct leafs {
    const char *name;
    double *v, *d;
    size_t n;
} leafs;

static size_t leaves(leafs *out)
{
    size_t n = 0;
#define LEAF(m) (out[n++] = (leafs){#m, f.m.v, f.m.d, f.m.rows * f.m.cols})
    LEAF(x);
    LEAF(x2);
    LEAF(y);
    LEAF(q);
    LEAF(k);
    LEAF(v);
    LEAF(l);
    LEAF(pk);
    LEAF(pv);
#undef LEAF
    for (int i = 0; i < 3; i++)
        out[n++] = (leafs){weight[i], f.w[i].v, f.w[i].d, f.w[i].out * f.w[i].in};
    out[n++] = (leafs){"bias", (double *)f.w[0].bias, f.w[0].dbias, f.w[0].out};
    out[n++] = (leafs){"vector", (double *)f.vec.v, f.vec.d, X};
    out[n++] = (leafs){"heads", (double *)f.head.v, f.head.d, D};
    out[n++] = (leafs){"embedding", f.table.v, f.table.d, V * X};
    for (int i = 0; i < N_IDS; i++) {
        const pb_spec *s = &f.layout.spec[i];
        out[n++] = (leafs){parameter[i], f.params.v + s->offset, f.params.d + s->offset,
                           s->rows * s->cols};
    }
    return n;
}

static double objective(graph *g, const double *w, pb_mat **out)
{
    repack();
    pb_mat *z = g(begin());
    double sum = 0;
    // Matrices may be views: padding between rows is nobody's.
    for (size_t i = 0; i < z->rows; i++)
        for (size_t j = 0; j < z->cols; j++)
            sum += w[i * z->cols + j] * z->v[i * z->ld + j];
    *out = z;
    return sum;
}

// `expected` names the leaves that must have a gradient; all others must have none.
static void check(const char *name, graph *g, const char *expected)
{
    leafs leaf_of[32];
    size_t n = leaves(leaf_of);
    pb_mat *z;
    double *w = numbers((size_t)R * 64, 1), u[R * 64];
    for (size_t i = 0; i < n; i++)
        memset(leaf_of[i].d, 0, leaf_of[i].n * sizeof(double));
    (void)objective(g, w, &z);
    assert_true(z->rows * z->cols <= R * 64);
    for (size_t i = 0; i < z->rows; i++)
        memcpy(z->d + i * z->ld, w + i * z->cols, z->cols * sizeof *w);
    pb_backward(&f.c);
    char found[200] = "";
    for (size_t i = 0; i < n; i++) {
        const leafs *l = &leaf_of[i];
        double norm = 0;
        for (size_t k = 0; k < l->n; k++)
            norm += l->d[k] * l->d[k];
        if (norm > 0) {
            strcat(found, " ");
            strcat(found, l->name);
        } else { // frozen or not used: the list of those found says whether that is right
            continue;
        }
        for (int trial = 0; trial < 6; trial++) {
            // Random directions, the coordinate with the steepest slope, random coordinates.
            double slope = 0, best = 0, err = INFINITY;
            size_t at = trial > 3 ? pb_rng_below(&f.rng, l->n) : 0;
            for (size_t k = 0; trial == 3 && k < l->n; k++)
                at = fabs(l->d[k]) > fabs(l->d[at]) ? k : at;
            for (size_t k = 0; k < l->n; k++) {
                u[k] = trial < 3 ? pb_rng_normal(&f.rng) / sqrt((double)l->n) : k == at;
                slope += u[k] * l->d[k];
            }
            double tol = 1e-7 * (fabs(slope) + sqrt(norm / (double)l->n)) + 1e-9;
            double *was = malloc(l->n * sizeof *was);
            memcpy(was, l->v, l->n * sizeof *was);
            for (double h = 1e-3; h > 1e-7 && !(err <= tol); h /= 10) {
                double side[2];
                for (int q = 0; q < 2; q++) {
                    for (size_t k = 0; k < l->n; k++)
                        l->v[k] = was[k] + (q ? h : -h) * u[k];
                    side[q] = objective(g, w, &z);
                }
                double d = (side[1] - side[0]) / (2 * h);
                if (!(fabs(d - slope) >= err)) {
                    err = fabs(d - slope);
                    best = d;
                }
            }
            memcpy(l->v, was, l->n * sizeof *was);
            free(was);
            if (!(err <= tol))
                fail_msg("%s by %s: the gradient says %.12g, differences say %.12g", name, l->name,
                         slope, best);
        }
    }
    repack();
    free(w);
    if (strcmp(found, expected))
        fail_msg("%s has gradients by%s, not by%s", name, found, expected);
}

// ---------------------------------------------------------------- the operations

// Operations that work in place get a matrix of their own.
static pb_mat *own(pb_ctx *c, pb_mat *m)
{
    pb_mat *zero = pb_new(c, m->rows, m->cols, m->of, false);
    memset(zero->v, 0, m->rows * m->cols * sizeof *zero->v);
    return pb_add(c, m, zero);
}

static pb_mat *frozen(pb_ctx *c, const pb_mat *m)
{
    pb_mat *z = pb_new(c, m->rows, m->cols, m->of, false);
    memcpy(z->v, m->v, m->rows * m->cols * sizeof *z->v);
    return z;
}

// Three linears in one call; their results meet in one matrix of Y columns.
static pb_mat *linears(pb_ctx *c, bool trained)
{
    pb_weight *w = PB_NEW(c->heads, pb_weight, 3);
    const pb_weight *list[] = {&w[0], &w[1], &w[2]};
    pb_mat *y[3];
    memcpy(w, f.w, sizeof f.w);
    for (int i = 0; i < 3 && !trained; i++)
        w[i].d = w[i].dbias = NULL;
    pb_linear(c, y, &f.x, list, 3);
    pb_mat *wide = pb_glu(c, y[0], pb_cols(c, y[2], V - Y, Y), PB_SILU);
    pb_mat *narrow = pb_glu(c, y[1], pb_cols(c, wide, 11, 3), PB_GELU_TANH);
    return pb_add(c, narrow, pb_cols(c, y[0], 0, 3));
}

static pb_mat *g_linear(pb_ctx *c)
{
    const pb_weight *w[] = {&f.w[0]};
    pb_mat *y[1];
    pb_linear(c, y, &f.x, w, 1);
    return y[0];
}
static pb_mat *g_linears(pb_ctx *c)
{
    return linears(c, true);
}
static pb_mat *g_linear_frozen(pb_ctx *c)
{
    return linears(c, false);
}
static pb_mat *g_embed(pb_ctx *c)
{
    return pb_embed(c, &f.table, 1, f.tokens);
}
static pb_mat *g_embed_scaled(pb_ctx *c)
{
    return pb_embed(c, &f.table, 3.7, f.tokens);
}
static pb_mat *g_norm(pb_ctx *c)
{
    return pb_rms_norm(c, &f.x, f.vec, X, 0, 0.1);
}
static pb_mat *g_norm_offset(pb_ctx *c)
{
    return pb_rms_norm(c, &f.x, f.vec, X, 1, 0.1);
}
static pb_mat *g_norm_heads(pb_ctx *c)
{
    return pb_rms_norm(c, &f.q, f.head, D, 0, 0.1);
}
static pb_mat *g_norm_heads_offset(pb_ctx *c)
{
    return pb_rms_norm(c, pb_cols(c, &f.q, D, 2 * D), f.head, D, 1, 0.1);
}
static pb_mat *g_norm_heads_frozen(pb_ctx *c)
{
    return pb_rms_norm(c, &f.k, (pb_vector){f.head.v, NULL}, D, 0, 0.1);
}
static pb_mat *g_norm_weight(pb_ctx *c)
{
    return pb_rms_norm(c, frozen(c, &f.x), f.vec, X, 0, 0.1);
}
static pb_mat *g_rope(pb_ctx *c)
{
    pb_mat *q = own(c, &f.q);
    pb_rope(c, q, H, D, pb_rope_table(c, D, f.inv_freq));
    return q;
}
static pb_mat *g_gelu_erf(pb_ctx *c)
{
    return pb_glu(c, &f.x, &f.x2, PB_GELU_ERF);
}
static pb_mat *g_silu(pb_ctx *c)
{
    return pb_glu(c, &f.x, &f.x2, PB_SILU);
}
static pb_mat *g_gelu(pb_ctx *c)
{
    return pb_glu(c, &f.x, &f.x2, PB_GELU_TANH);
}
static pb_mat *g_glu_half(pb_ctx *c)
{
    return pb_glu(c, frozen(c, &f.x), &f.x2, PB_SILU);
}
static pb_mat *g_add(pb_ctx *c)
{
    return pb_add(c, &f.x, pb_add(c, &f.x2, &f.x));
}
// Windows narrower than a block of keys, of about one, and of several.
static const pb_scores plain = {.scale = 0.31}, narrow = {.scale = 0.31, .window = 5},
                       one = {.scale = 0.31, .window = 1}, wide = {.scale = 0.2, .window = 40},
                       capped = {.scale = 0.7, .cap = 1.3},
                       both = {.scale = 0.7, .cap = 1.3, .window = 33};
static pb_mat *attention(pb_ctx *c, pb_scores how)
{
    return pb_attention(c, &f.q, &f.k, &f.v, H, KVH, D, how);
}
static pb_mat *g_attention(pb_ctx *c)
{
    return attention(c, plain);
}
static pb_mat *g_attention_narrow(pb_ctx *c)
{
    return attention(c, narrow);
}
static pb_mat *g_attention_one(pb_ctx *c)
{
    return attention(c, one);
}
static pb_mat *g_attention_wide(pb_ctx *c)
{
    return attention(c, wide);
}
static pb_mat *g_attention_capped(pb_ctx *c)
{
    return attention(c, capped);
}
static pb_mat *g_attention_both(pb_ctx *c)
{
    return attention(c, both);
}
static pb_mat *g_attention_own_heads(pb_ctx *c)
{
    return pb_attention(c, pb_cols(c, &f.q, 0, KV), &f.k, &f.v, KVH, KVH, D, plain);
}
static pb_mat *with_prefix(pb_ctx *c, pb_mat *k, pb_mat *v, size_t n, pb_scores how)
{
    pb_prefix *p = PB_NEW(c->heads, pb_prefix, 1);
    const pb_prefix **list = PB_NEW(c->heads, const pb_prefix *, S);
    double *panels = PB_NEW(c->arena, double, 64 * KV);
    pb_mat *pk = pb_cols(c, k, 0, KV), *pv = pb_cols(c, v, 0, KV);
    pk->rows = pv->rows = n;
    pb_pack_keys(panels, pk, KVH, D);
    *p = (pb_prefix){n, panels, pk, pv, false};
    for (int s = 0; s < S; s++)
        list[s] = p;
    c->seg_prefix = list;
    return attention(c, how);
}
static pb_mat *g_prefix(pb_ctx *c)
{
    return with_prefix(c, &f.pk, &f.pv, P, plain);
}
static pb_mat *g_prefix_both(pb_ctx *c)
{
    return with_prefix(c, &f.pk, &f.pv, P, both);
}
// A prefix of its own for each segment but one.
static pb_mat *g_prefix_each(pb_ctx *c)
{
    const pb_prefix **list = PB_NEW(c->heads, const pb_prefix *, S);
    pb_prefix *p = PB_NEW(c->heads, pb_prefix, S);
    pb_mat *own = PB_NEW(c->heads, pb_mat, 2 * S);
    for (size_t s = 0; s < S; s++) {
        double *panels = PB_NEW(c->arena, double, 32 * KV);
        for (size_t m = 0; m < 2; m++) {
            const pb_mat *from = m ? &f.pv : &f.pk;
            own[2 * s + m] = *from;
            own[2 * s + m].rows = 3 + s;
            own[2 * s + m].v += s * 7 * KV;
            own[2 * s + m].d += s * 7 * KV;
        }
        pb_pack_keys(panels, &own[2 * s], KVH, D);
        p[s] = (pb_prefix){3 + s, panels, &own[2 * s], &own[2 * s + 1], true};
        list[s] = s == 2 ? NULL : &p[s];
    }
    c->seg_prefix = list;
    return pb_attention(c, &f.q, &f.k, &f.v, H, KVH, D, both);
}
static pb_mat *g_prefix_one(pb_ctx *c)
{
    return with_prefix(c, &f.pk, &f.pv, 1, plain);
}
static pb_mat *g_prefix_frozen(pb_ctx *c)
{
    return with_prefix(c, frozen(c, &f.pk), frozen(c, &f.pv), 32, narrow);
}
static pb_mat *g_low_rank(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_low_rank(c, y, &f.x, A, B);
    return y;
}
static pb_mat *g_low_rank_frozen_input(pb_ctx *c)
{
    pb_mat *y = frozen(c, &f.y);
    pb_low_rank(c, y, frozen(c, &f.x), A, B);
    return y;
}
static pb_mat *g_scaled_low_rank(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_scaled_low_rank(c, y, &f.x, A, FIVE, B, VEC);
    return y;
}
static pb_mat *g_scaled_low_rank_inside(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_scaled_low_rank(c, y, &f.x, A, FIVE, B, -1);
    return y;
}
// Narrower than A and B.
static pb_mat *g_scaled_low_rank_cut(pb_ctx *c)
{
    pb_mat *y = own(c, pb_cols(c, &f.y, 3, 7));
    pb_scaled_low_rank(c, y, pb_cols(c, &f.x, 1, 6), A, FIVE, B, RA);
    return y;
}
// Five columns of which the first three are experts, the ids behind them being nobody's.
static pb_mat *g_route(pb_ctx *c)
{
    pb_mat *g = pb_zeros(c, 5);
    pb_route(c, g, pb_cols(c, &f.l, 0, 5), N_IDS - 3, 2);
    return g;
}
static pb_mat *g_gate(pb_ctx *c)
{
    return pb_gated(c, &f.x, &f.l, 2);
}
static pb_mat *g_gate_alone(pb_ctx *c)
{
    return pb_gated(c, frozen(c, &f.x), &f.l, 2);
}
static pb_mat *g_down_up(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y), *t = pb_activate(c, pb_down(c, &f.x, A), PB_TANH);
    pb_up(c, y, t, B);
    return y;
}
static pb_mat *g_scale(pb_ctx *c)
{
    return pb_scale(c, &f.y, &f.l, 3, false, false);
}
static pb_mat *g_scale_plus(pb_ctx *c)
{
    return pb_scale(c, &f.y, &f.l, 0, true, false);
}
static pb_mat *g_scale_response(pb_ctx *c)
{
    return pb_scale(c, &f.y, &f.l, 2, true, true);
}
static pb_mat *g_scale_vector_only(pb_ctx *c)
{
    return pb_scale(c, frozen(c, &f.y), &f.l, 1, false, true);
}
static pb_mat *g_copy(pb_ctx *c)
{
    return pb_copy(c, &f.y);
}
static pb_mat *g_scale_by(pb_ctx *c)
{
    return pb_scale_by(c, &f.y, VEC);
}
static pb_mat *g_put_rows(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_put_rows(c, y, 30, pb_cols(c, &f.l, 1, Y), -1.7);
    return y;
}
static pb_mat *g_put_rows_only(pb_ctx *c)
{
    pb_mat *y = frozen(c, &f.y);
    pb_put_rows(c, y, R - S, pb_cols(c, &f.l, 1, Y), 0.4);
    return y;
}
static pb_mat *g_magnify(pb_ctx *c)
{
    return pb_magnify(c, &f.y, 0, VEC, DEN);
}
static pb_mat *g_magnify_frozen_input(pb_ctx *c)
{
    return pb_magnify(c, frozen(c, &f.y), 0, VEC, DEN);
}
static pb_mat *g_shift(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_shift(c, y, VEC);
    return y;
}
static pb_mat *g_add_each(pb_ctx *c)
{
    pb_mat *y = own(c, &f.y);
    pb_add_each(c, y, pb_cols(c, &f.l, 2, Y));
    return y;
}
static pb_mat *g_add_each_only(pb_ctx *c)
{
    pb_mat *y = frozen(c, &f.y);
    pb_add_each(c, y, pb_cols(c, &f.l, 0, Y));
    return y;
}
static pb_mat *g_each(pb_ctx *c)
{
    return pb_scale(c, &f.y, pb_each(c, VEC), 0, true, false);
}
static pb_mat *g_own(pb_ctx *c)
{
    c->tenant = &f.params;
    pb_mat *z = pb_own_zeros(c, 5, Y);
    pb_mat *t = pb_own_zeros(c, 5, 5);
    for (size_t i = 0; i < 25; i++)
        t->v[i] = (double)(i % 7) - 2;
    pb_up(c, z, t, B);
    pb_shift(c, z, VEC);
    z = pb_activate(c, z, PB_TANH);
    c->tenant = NULL;
    return z;
}
static pb_mat *g_pool_last(pb_ctx *c)
{
    return pb_pool(c, &f.x, PB_POOL_LAST, QUERY);
}
static pb_mat *g_pool_mean(pb_ctx *c)
{
    return pb_pool(c, &f.x, PB_POOL_MEAN, QUERY);
}
static pb_mat *g_pool_max(pb_ctx *c)
{
    return pb_pool(c, &f.x, PB_POOL_MAX, QUERY);
}
static pb_mat *g_pool_attention(pb_ctx *c)
{
    return pb_pool(c, &f.x, PB_POOL_ATTENTION, QUERY);
}
static pb_mat *g_relu(pb_ctx *c)
{
    return pb_activate(c, &f.x, PB_RELU);
}
static pb_mat *g_exact_gelu(pb_ctx *c)
{
    return pb_activate(c, &f.x, PB_GELU);
}
static pb_mat *g_act_silu(pb_ctx *c)
{
    return pb_activate(c, &f.x, PB_ACT_SILU);
}
static pb_mat *g_tanh(pb_ctx *c)
{
    return pb_activate(c, &f.x, PB_TANH);
}
static pb_mat *g_identity(pb_ctx *c)
{
    return pb_activate(c, &f.x, PB_IDENTITY);
}
static pb_mat *g_rational(pb_ctx *c)
{
    return pb_rational(c, &f.x, RA, RB);
}
static pb_mat *g_dropout(pb_ctx *c)
{
    return pb_add(c, pb_dropout(c, &f.x, 0.4), pb_dropout(c, &f.x, 0.2));
}

static const struct {
    const char *name;
    graph *g;
    const char *expected;
} operations[] = {
    {"linear", g_linear, " x W0 bias"},
    {"three linears", g_linears, " x W0 W1 W2 bias"},
    {"frozen linears", g_linear_frozen, " x"},
    {"embedding", g_embed, " embedding"},
    {"scaled embedding", g_embed_scaled, " embedding"},
    {"RMS norm", g_norm, " x vector"},
    {"RMS norm by 1 + weight", g_norm_offset, " x vector"},
    {"RMS norm of heads", g_norm_heads, " q heads"},
    {"RMS norm of heads by 1 + weight", g_norm_heads_offset, " q heads"},
    {"RMS norm of heads, frozen weight", g_norm_heads_frozen, " k"},
    {"RMS norm, weight alone", g_norm_weight, " vector"},
    {"rotary positions", g_rope, " q"},
    {"gate SiLU", g_silu, " x x2"},
    {"gate GELU", g_gelu, " x x2"},
    {"gate exact GELU", g_gelu_erf, " x x2"},
    {"gate, one side", g_glu_half, " x2"},
    {"sum", g_add, " x x2"},
    {"attention", g_attention, " q k v"},
    {"attention, narrow window", g_attention_narrow, " q k v"},
    {"attention, wide window", g_attention_wide, " q k v"},
    {"attention, soft cap", g_attention_capped, " q k v"},
    {"attention, soft cap and window", g_attention_both, " q k v"},
    {"attention, soft cap, window and prefix", g_prefix_both, " q k v pk pv"},
    {"attention, a key per head", g_attention_own_heads, " q k v"},
    {"attention, prefix", g_prefix, " q k v pk pv"},
    {"attention, a prefix for each segment", g_prefix_each, " q k v pk pv"},
    {"attention, prefix of one", g_prefix_one, " q k v pk pv"},
    {"attention, frozen prefix", g_prefix_frozen, " q k v"},
    {"low rank", g_low_rank, " x y A B"},
    {"low rank, frozen input", g_low_rank_frozen_input, " A B"},
    {"scaled low rank", g_scaled_low_rank, " x y A B VEC FIVE"},
    {"scaled low rank, inside alone", g_scaled_low_rank_inside, " x y A B FIVE"},
    {"scaled low rank, first columns", g_scaled_low_rank_cut, " x y A B RA FIVE"},
    {"route", g_route, " l"},
    {"gate", g_gate, " x l"},
    {"gate alone", g_gate_alone, " l"},
    {"down and up", g_down_up, " x y A B"},
    {"scale", g_scale, " y l"},
    {"scale, plus one", g_scale_plus, " y l"},
    {"scale, response only", g_scale_response, " y l"},
    {"scale, vector alone", g_scale_vector_only, " l"},
    {"copy", g_copy, " y"},
    {"scale by a tenant's vector", g_scale_by, " y VEC"},
    {"rows put in", g_put_rows, " y l"},
    {"rows put in, alone", g_put_rows_only, " l"},
    {"magnify", g_magnify, " y VEC"},
    {"magnify, frozen input", g_magnify_frozen_input, " VEC"},
    {"shift", g_shift, " y VEC"},
    {"row per segment added", g_add_each, " y l"},
    {"row per segment added, alone", g_add_each_only, " l"},
    {"a tenant's vector per segment", g_each, " y VEC"},
    {"a tenant's own matrices", g_own, " B VEC"},
    {"pool last", g_pool_last, " x"},
    {"pool mean", g_pool_mean, " x"},
    {"pool max", g_pool_max, " x"},
    {"pool attention", g_pool_attention, " x QUERY"},
    {"ReLU", g_relu, " x"},
    {"GELU", g_exact_gelu, " x"},
    {"SiLU", g_act_silu, " x"},
    {"tanh", g_tanh, " x"},
    {"identity", g_identity, " x"},
    {"rational", g_rational, " x RA RB"},
    {"dropout", g_dropout, " x"},
};
enum { N_OPERATIONS = sizeof operations / sizeof *operations };

static void run_operation(void **state)
{
    size_t i = (size_t)(uintptr_t)*state;
    check(operations[i].name, operations[i].g, operations[i].expected);
}

// ---------------------------------------------------------------- values

// Results against loops, where a wrong result could have a right gradient.
static void values(void **state)
{
    (void)state;
    const double *a = f.params.v + f.layout.spec[A].offset,
                 *b = f.params.v + f.layout.spec[B].offset;
    pb_mat *low = g_low_rank(begin());
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < Y; j++) {
            double want = f.y.v[i * Y + j];
            for (size_t r = 0; r < 5; r++)
                for (size_t k = 0; k < X; k++)
                    want += f.layout.spec[B].scale * f.x.v[i * X + k] * a[r * X + k] * b[r * Y + j];
            assert_true(fabs(low->v[i * Y + j] - want) <= 1e-12 * (1 + fabs(want)));
        }
    const double *vec = f.params.v + f.layout.spec[VEC].offset,
                 *five = f.params.v + f.layout.spec[FIVE].offset,
                 *seven = f.params.v + f.layout.spec[RA].offset;
    pb_mat *whole = g_scaled_low_rank(begin());
    for (size_t i = 0; i < R * Y; i++) {
        double sum = 0;
        for (size_t r = 0; r < 5; r++)
            for (size_t k = 0; k < X; k++)
                sum += f.x.v[i / Y * X + k] * a[r * X + k] * five[r] * b[r * Y + i % Y];
        double want = f.y.v[i] + f.layout.spec[B].scale * vec[i % Y] * sum;
        assert_true(fabs(whole->v[i] - want) <= 1e-12 * (1 + fabs(want)));
    }
    pb_mat *cut = g_scaled_low_rank_cut(begin());
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < 7; j++) {
            double sum = 0;
            for (size_t r = 0; r < 5; r++)
                for (size_t k = 0; k < 6; k++)
                    sum += f.x.v[i * X + 1 + k] * a[r * X + k] * five[r] * b[r * Y + j];
            double want = f.y.v[i * Y + 3 + j] + f.layout.spec[B].scale * seven[j] * sum;
            assert_true(fabs(cut->v[i * cut->ld + j] - want) <= 1e-12 * (1 + fabs(want)));
        }
    pb_mat *gates = g_route(begin());
    for (size_t s = 0; s < S; s++) {
        const double *z = f.l.v + s * (Y + 3), *g = gates->v + s * 5;
        size_t worst = z[0] < z[1] ? z[0] < z[2] ? 0 : 2 : z[1] < z[2] ? 1 : 2;
        double sum = exp(z[0]) + exp(z[1]) + exp(z[2]) - exp(z[worst]);
        for (size_t e = 0; e < 5; e++)
            assert_true(fabs(g[e] - (e < 3 && e != worst ? exp(z[e]) / sum : 0)) <= 1e-14);
    }
    pb_mat *gated = g_gate(begin());
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < segments[s].n_rows * X; i++) {
            size_t at = segments[s].row0 * X + i;
            assert_true(gated->v[at] == f.x.v[at] * f.l.v[s * (Y + 3) + 2]);
        }
    pb_mat *scaled = g_scale_response(begin());
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < segments[s].n_rows; i++)
            for (size_t j = 0; j < Y; j++) {
                size_t at = (segments[s].row0 + i) * Y + j;
                double by = i < segments[s].n_prompt ? 1 : 1 + f.l.v[s * (Y + 3) + 2 + j];
                assert_true(fabs(scaled->v[at] - f.y.v[at] * by) <= 1e-14 * fabs(f.y.v[at] * by));
            }
    pb_mat *large = g_magnify(begin());
    const double *m = f.params.v + f.layout.spec[VEC].offset,
                 *d = f.params.v + f.layout.spec[DEN].offset;
    for (size_t i = 0; i < R * Y; i++) {
        double bias = f.w[0].bias[i % Y], want = bias + m[i % Y] / d[i % Y] * (f.y.v[i] - bias);
        assert_true(fabs(large->v[i] - want) <= 1e-12 * (1 + fabs(want)));
    }
    pb_mat *mean = g_pool_mean(begin());
    for (size_t s = 0; s < S; s++)
        for (size_t j = 0; j < X; j++) {
            double want = 0;
            for (size_t i = 0; i < segments[s].n_prompt; i++)
                want += f.x.v[(segments[s].row0 + i) * X + j] / (double)segments[s].n_prompt;
            assert_true(fabs(mean->v[s * X + j] - want) <= 1e-13);
        }
    pb_mat *last = g_pool_last(begin());
    for (size_t s = 0; s < S; s++)
        assert_memory_equal(last->v + s * X,
                            f.x.v + (segments[s].row0 + segments[s].n_prompt - 1) * X,
                            X * sizeof(double));
    pb_mat *top = g_pool_max(begin());
    for (size_t s = 0; s < S; s++)
        for (size_t j = 0; j < X; j++) {
            double want = -INFINITY;
            for (size_t i = 0; i < segments[s].n_prompt; i++)
                want = fmax(want, f.x.v[(segments[s].row0 + i) * X + j]);
            assert_true(top->v[s * X + j] == want);
        }
    const double *pa = f.params.v + f.layout.spec[RA].offset;
    const double *pb = f.params.v + f.layout.spec[RB].offset;
    pb_mat *rational = g_rational(begin());
    for (size_t i = 0; i < R * X; i++) {
        double x = f.x.v[i], p = 0, q = 0;
        for (int j = 0; j < 7; j++)
            p += pa[j] * pow(x, j);
        for (int j = 1; j <= 5; j++)
            q += pb[j - 1] * pow(x, j);
        double want = p / (1 + fabs(q));
        assert_true(fabs(rational->v[i] - want) <= 1e-11 * (1 + fabs(want)));
    }
}

// Lengths of the rows of W + s B A, made without that sum; W in double and in bfloat16.
static void row_norms(void **state)
{
    (void)state;
    const double *a = f.params.v + f.layout.spec[A].offset,
                 *b = f.params.v + f.layout.spec[B].offset;
    static uint32_t half[(V + PB_NR) * X];
    pb_weight rounded = f.w[0];
    double n[Y], back[Y * X];
    rounded.kind = PB_PANEL_BF16;
    rounded.panels = half;
    pb_pack(&rounded, f.w[0].v, 0, Y); // cut off
    pb_unpack(back, &rounded, 0, Y);
    for (int way = 0; way < 4; way++) {
        size_t r = way % 2 ? 5 : 0;
        const double *w = way / 2 ? back : f.w[0].v;
        assert_int_equal(pb_row_norms(n, way / 2 ? &rounded : &f.w[0], a, b, r, -0.7, 2), PB_OK);
        for (size_t i = 0; i < Y; i++) {
            double square = 0;
            for (size_t k = 0; k < X; k++) {
                double x = w[i * X + k];
                for (size_t j = 0; j < r; j++)
                    x -= 0.7 * b[j * Y + i] * a[j * X + k];
                square += x * x;
            }
            assert_true(fabs(n[i] - sqrt(square)) <= 1e-12);
        }
    }
}

// Prefix, then the segment's own rows, as far as the window goes: by the textbook.
static void attention_values(void **state)
{
    static const struct {
        graph *g;
        const pb_scores *how;
        bool prefix;
    } cases[] = {{g_attention, &plain, false},         {g_prefix, &plain, true},
                 {g_attention_narrow, &narrow, false}, {g_attention_wide, &wide, false},
                 {g_attention_one, &one, false},       {g_attention_capped, &capped, false},
                 {g_attention_both, &both, false},     {g_prefix_both, &both, true}};
    (void)state;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        const pb_scores *how = cases[n].how;
        pb_mat *o = cases[n].g(begin());
        for (size_t s = 0; s < S; s++)
            for (size_t i = 0; i < segments[s].n_rows; i++)
                for (size_t h = 0; h < H; h++) {
                    size_t row = segments[s].row0 + i, g = h / (H / KVH) * D;
                    double sum = 0, out[D] = {0};
                    for (size_t j = cases[n].prefix ? 0 : P; j <= P + i; j++) {
                        if (how->window && P + i - j >= how->window)
                            continue;
                        size_t at = j < P ? j : segments[s].row0 + j - P;
                        const double *k = (j < P ? f.pk.v : f.k.v) + at * KV + g;
                        const double *v = (j < P ? f.pv.v : f.v.v) + at * KV + g, *q;
                        double dot = 0;
                        q = f.q.v + row * H * D + h * D;
                        for (size_t d = 0; d < D; d++)
                            dot += q[d] * k[d] * how->scale;
                        if (how->cap > 0)
                            dot = how->cap * tanh(dot / how->cap);
                        sum += exp(dot);
                        for (size_t d = 0; d < D; d++)
                            out[d] += exp(dot) * v[d];
                    }
                    for (size_t d = 0; d < D; d++)
                        assert_true(fabs(o->v[row * H * D + h * D + d] - out[d] / sum) <= 1e-12);
                }
    }
}

static void row_values(void **state)
{
    (void)state;
    pb_mat *x = g_embed_scaled(begin());
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < X; i++)
            assert_true(x->v[r * X + i] == 3.7 * f.table.v[(size_t)f.tokens[r] * X + i]);
    pb_mat *y = g_norm_heads_offset(begin());
    for (size_t r = 0; r < R; r++)
        for (size_t h = 0; h < 2; h++) {
            const double *q = f.q.v + r * H * D + (h + 1) * D;
            double square = 0;
            for (size_t d = 0; d < D; d++)
                square += q[d] * q[d];
            for (size_t d = 0; d < D; d++) {
                double want = q[d] / sqrt(square / D + 0.1) * (1 + f.head.v[d]);
                assert_true(fabs(y->v[r * y->ld + h * D + d] - want) <= 1e-14 * (1 + fabs(want)));
            }
        }
    // Work is counted by the window: of the 75 rows, 70 see 5 keys and five see 1 to 5 (the last of
    // these as many), and so on.
    double pairs = 0;
    pb_ctx *c = begin();
    c->seg_shift = NULL;
    attention(c, narrow);
    for (size_t s = 0; s < S; s++)
        for (size_t i = 1; i <= segments[s].n_rows; i++)
            pairs += (double)(i < 5 ? i : 5);
    assert_true(c->counts[PB_ATTENTION].flops == pairs * 4 * H * D);
}

static void rope_values(void **state)
{
    (void)state;
    pb_mat *q = g_rope(begin());
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < segments[s].n_rows; i++)
            for (size_t h = 0; h < H; h++)
                for (size_t d = 0; d < D / 2; d++) {
                    size_t at = (segments[s].row0 + i) * H * D + h * D + d;
                    double angle = (double)(i + f.shift[s]) * f.inv_freq[d];
                    double u = f.q.v[at], v = f.q.v[at + D / 2];
                    assert_true(fabs(q->v[at] - (u * cos(angle) - v * sin(angle))) <= 1e-12);
                    assert_true(fabs(q->v[at + D / 2] - (v * cos(angle) + u * sin(angle))) <=
                                1e-12);
                }
}

// ---------------------------------------------------------------- loss and dropout

static double loss(double cap, const int32_t *target, const double *share, double *nll,
                   uint8_t *hits)
{
    double sum = 0;
    repack();
    pb_ctx *c = begin();
    pb_lm_loss(c, &f.x, &f.w[2], cap, target, share, nll, hits);
    for (size_t r = 0; r < R; r++)
        sum += target[r] >= 0 ? share[r] * nll[r] : 0;
    return sum;
}

// The most likely token of a row.
static int32_t likeliest(size_t r)
{
    double most = -INFINITY;
    int32_t best = 0;
    for (int32_t v = 0; v < V; v++) {
        double sum = 0;
        for (size_t k = 0; k < X; k++)
            sum += f.x.v[r * X + k] * f.w[2].v[v * X + (int)k];
        best = sum > most ? v : best;
        most = fmax(sum, most);
    }
    return best;
}

static void loss_with(double cap)
{
    int32_t target[R];
    double share[R], nll[R], logits[V];
    uint8_t hits[R];
    size_t right = 0, n = 0;
    for (size_t r = 0; r < R; r++) {
        target[r] = r % 9 == 4 ? -1 : r % 9 == 5 ? likeliest(r) : (int32_t)pb_rng_below(&f.rng, V);
        share[r] = pb_rng_uniform(&f.rng) - 0.2;
        nll[r] = -1;
    }
    memset(f.x.d, 0, R * X * sizeof *f.x.d);
    memset(f.w[2].d, 0, V * X * sizeof *f.w[2].d);
    loss(cap, target, share, nll, hits);
    double dx[R * X], dw[V * X];
    memcpy(dx, f.x.d, sizeof dx);
    memcpy(dw, f.w[2].d, sizeof dw);
    for (size_t r = 0; r < R; r++) {
        double sum = 0, at;
        size_t best = 0;
        if (target[r] < 0) {
            assert_true(nll[r] == -1);
            for (size_t k = 0; k < X; k++)
                assert_true(dx[r * X + k] == 0);
            continue;
        }
        for (size_t v = 0; v < V; v++) {
            logits[v] = 0;
            for (size_t k = 0; k < X; k++)
                logits[v] += f.x.v[r * X + k] * f.w[2].v[v * X + k];
            if (cap > 0)
                logits[v] = cap * tanh(logits[v] / cap);
            sum += exp(logits[v]);
            best = logits[v] > logits[best] ? v : best;
        }
        at = logits[target[r]];
        assert_true(fabs(nll[r] - (log(sum) - at)) <= 1e-12);
        assert_int_equal(hits[r], (int32_t)best == target[r]);
        right += hits[r];
        n++;
    }
    assert_true(right > 0 && right < n);
    for (int trial = 0; trial < 40; trial++) {
        bool head = trial % 2;
        size_t at = pb_rng_below(&f.rng, head ? V * X : R * X);
        double *v = head ? f.w[2].v + at : f.x.v + at, was = *v, side[2], h = 1e-5;
        for (int q = 0; q < 2; q++) {
            *v = was + (q ? h : -h);
            side[q] = loss(cap, target, share, nll, NULL);
        }
        *v = was;
        double d = (side[1] - side[0]) / (2 * h), slope = head ? dw[at] : dx[at];
        if (!(fabs(d - slope) <= 1e-8 * (1 + fabs(d))))
            fail_msg("loss: the gradient says %.12g, differences say %.12g", slope, d);
    }
    repack();
}

static void lm_loss(void **state)
{
    (void)state;
    loss_with(0);
}

static void lm_loss_capped(void **state)
{
    (void)state;
    loss_with(1.7);
}

// Logits are those that the loss is made of.
static void logits(void **state)
{
    (void)state;
    size_t rows[] = {0, 104, 50};
    double out[3 * V];
    for (int way = 0; way < 2; way++) {
        pb_ctx *c = begin();
        pb_logits(c, out, &f.x, &f.w[2], way ? 1.7 : 0, rows, 3);
        for (size_t i = 0; i < 3; i++)
            for (size_t v = 0; v < V; v++) {
                double want = 0;
                for (size_t k = 0; k < X; k++)
                    want += f.x.v[rows[i] * X + k] * f.w[2].v[v * X + k];
                want = way ? 1.7 * tanh(want / 1.7) : want;
                assert_true(fabs(out[i * V + v] - want) <= 1e-13 * (1 + fabs(want)));
            }
    }
}

static void dropout_statistics(void **state)
{
    (void)state;
    static const double ps[] = {0.1, 0.5, 0.9};
    for (size_t i = 0; i < 3; i++) {
        double p = ps[i], kept = 0, n = R * Y;
        pb_ctx *c = begin();
        pb_mat *a = pb_dropout(c, &f.y, p), *b = pb_dropout(c, &f.y, p);
        size_t same = 0;
        for (size_t k = 0; k < R * Y; k++) {
            double want = f.y.v[k] / (1 - p);
            assert_true(a->v[k] == 0 || fabs(a->v[k] - want) <= 1e-14 * fabs(want));
            kept += a->v[k] != 0;
            same += (a->v[k] != 0) == (b->v[k] != 0);
        }
        assert_true(fabs(kept - n * (1 - p)) < 5 * sqrt(n * p * (1 - p)));
        // Two calls of a step draw different masks, which agree by chance alone.
        double agree = p * p + (1 - p) * (1 - p);
        assert_true(fabs((double)same - n * agree) < 5 * sqrt(n * agree * (1 - agree)));
        double first[R * Y];
        memcpy(first, a->v, sizeof first);
        c = begin();
        assert_memory_equal(pb_dropout(c, &f.y, p)->v, first, sizeof first);
        c = begin();
        c->step++;
        assert_memory_not_equal(pb_dropout(c, &f.y, p)->v, first, sizeof first);
        c = begin();
        c->seed++;
        assert_memory_not_equal(pb_dropout(c, &f.y, p)->v, first, sizeof first);
        c = begin();
        assert_ptr_equal(pb_dropout(c, &f.y, 0), &f.y);
        c->training = false;
        assert_ptr_equal(pb_dropout(c, &f.y, p), &f.y);
    }
}

int main(void)
{
    struct CMUnitTest tests[N_OPERATIONS + 9];
    for (size_t i = 0; i < N_OPERATIONS; i++)
        tests[i] = (struct CMUnitTest){.name = operations[i].name,
                                       .test_func = run_operation,
                                       .initial_state = (void *)(uintptr_t)i};
    const struct CMUnitTest more[] = {
        cmocka_unit_test(values),      cmocka_unit_test(attention_values),
        cmocka_unit_test(rope_values), cmocka_unit_test(row_values),
        cmocka_unit_test(lm_loss),     cmocka_unit_test(lm_loss_capped),
        cmocka_unit_test(logits),      cmocka_unit_test(dropout_statistics),
        cmocka_unit_test(row_norms),
    };
    memcpy(tests + N_OPERATIONS, more, sizeof more);
    return cmocka_run_group_tests(tests, set_up, tear_down) ? 1 : 0;
}
