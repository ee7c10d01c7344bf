// The forward pass of the backbone with adapters at its sites.
//
// Segments are grouped by method (and those options that shape the computation); a hook is called
// once per group and site, whatever the number of tenants in it.
#include "model/forward.h"

#include "core/clock.h"
#include "core/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct group {
    const pb_method *method;
    const void *options;
    pb_selection all, fresh; // its segments; those that start a sequence
    pb_mat *state;
} group;

struct pb_step {
    pb_ctx c;
    const pb_model *m;
    pb_adapter *const *tenant; // the seats, if there are any
    size_t n_tenants;
    size_t *group_of;  // (n_tenants)
    pb_adapter **seat; // (seats)
    size_t *like;      // (n): groups of the tenants that showed the shapes
    size_t n_groups;
    group *groups; // by number; `all.n` is 0 when absent from the batch
    pb_step_limits limits;
    pb_arena arena, heads, memory; // memory: the KV cache
    pb_kv kv;
    const int32_t *tokens; // of the batch, and a place for each virtual one
    const real *rope;      // rotary positions of its rows
    bool acts[PB_N_SITES]; // in a dry step: where hooks do something
};

static void select_items(pb_ctx *c, pb_selection *sel, const uint32_t *seg, size_t n)
{
    size_t runs = 0;
    for (size_t i = 0; i < n; i++)
        runs += (c->seg[seg[i]].n_rows + PB_RUN - 1) / PB_RUN;
    pb_item *rows = PB_NEW(c->heads, pb_item, runs), *segs = PB_NEW(c->heads, pb_item, n);
    *sel = (pb_selection){n, seg, rows, runs, segs};
    for (size_t i = 0, k = 0; i < n; i++) {
        const pb_segment *s = &c->seg[seg[i]];
        const pb_params *p = c->seg_params[seg[i]];
        segs[i] = (pb_item){seg[i], 1, seg[i], p};
        for (size_t r = 0; r < s->n_rows; r += PB_RUN) {
            size_t left = s->n_rows - r;
            rows[k++] = (pb_item){s->row0 + r, left < PB_RUN ? left : PB_RUN, seg[i], p};
        }
    }
}

static bool starts(const pb_segment *s)
{
    return s->pos0 == 0 && s->n_prompt > 0;
}

// Index lists of the batch: parameters of every segment, segments of every group.
static void arrange(pb_step *st)
{
    pb_ctx *c = &st->c;
    size_t S = c->n_seg;
    const pb_params **params = PB_NEW(c->heads, const pb_params *, S);
    size_t *shift = PB_NEW(c->heads, size_t, S);
    uint32_t *every = PB_NEW(c->heads, uint32_t, S);
    pb_selection *all = PB_NEW(c->heads, pb_selection, 1);
    for (size_t s = 0; s < S; s++) {
        const pb_adapter *a = c->seg[s].tenant >= 0 ? st->tenant[c->seg[s].tenant] : NULL;
        params[s] = a ? &a->params : NULL;
        shift[s] = a && !c->seg[s].front ? a->prefix_len : 0;
        every[s] = (uint32_t)s;
    }
    c->seg_params = params;
    c->seg_shift = shift;
    select_items(c, all, every, S);
    c->all = c->sel = all;
    for (size_t g = 0; g < st->n_groups; g++) {
        uint32_t *mine = PB_NEW(c->heads, uint32_t, S), *fresh = PB_NEW(c->heads, uint32_t, S);
        size_t n = 0, n_fresh = 0;
        for (size_t s = 0; s < S; s++) {
            int t = c->seg[s].tenant;
            if (!params[s] || st->group_of[t] != g)
                continue;
            mine[n++] = (uint32_t)s;
            if (starts(&c->seg[s]))
                fresh[n_fresh++] = (uint32_t)s;
        }
        select_items(c, &st->groups[g].all, mine, n);
        select_items(c, &st->groups[g].fresh, fresh, n_fresh);
        st->groups[g].state = NULL;
    }
}

static real *saved_state(const pb_kv *kv, int slot, size_t layer)
{
    return kv->saved + ((size_t)slot * kv->layers + layer) * kv->state;
}

// Per-sequence state of every method that has one: computed where a sequence starts, read back
// where it goes on.
static void prompts(pb_step *st, pb_mat *before, pb_mat *after)
{
    pb_ctx *c = &st->c;
    pb_enter(c, PB_ADAPTER);
    for (size_t g = 0; g < st->n_groups; g++) {
        group *gr = &st->groups[g];
        if (!gr->all.n || !gr->method->prompt)
            continue;
        size_t n = gr->method->state(gr->options, &st->m->config);
        gr->state = pb_new(c, c->n_seg, n, PB_SEGMENTS, true); // hooks may take parts of it
        if (!c->dry) {
            for (size_t i = 0; i < gr->all.n; i++) {
                size_t s = gr->all.seg[i];
                real *row = gr->state->v + s * n;
                if (starts(&c->seg[s]) || c->seg[s].slot < 0) {
                    memset(row, 0, n * sizeof *row);
                } else {
                    memcpy(row, saved_state(c->kv, c->seg[s].slot, c->layer), n * sizeof *row);
                    pb_count(c, 0, (double)(n * sizeof *row), 0, 0);
                }
            }
        }
        c->sel = &gr->fresh;
        c->method = gr->method->name;
        c->hook = "prompt";
        if (gr->fresh.n)
            gr->method->prompt(c, gr->options, gr->state, before, after);
        for (size_t i = 0; i < gr->fresh.n && !c->dry; i++) {
            size_t s = gr->fresh.seg[i];
            if (c->seg[s].slot >= 0)
                memcpy(saved_state(c->kv, c->seg[s].slot, c->layer), gr->state->v + s * n,
                       n * sizeof(real));
        }
    }
    c->sel = c->all;
    pb_enter(c, PB_BACKBONE);
}

#define NAME(name) "site " #name,
static const char *const site_names[] = {PB_SITES(NAME)};

static pb_mat *at_site(pb_step *st, pb_site site, pb_mat *x, pb_mat *y)
{
    pb_ctx *c = &st->c;
    pb_enter(c, PB_ADAPTER);
    for (size_t g = 0; g < st->n_groups; g++) {
        group *gr = &st->groups[g];
        if (!gr->all.n || !gr->method->site)
            continue;
        c->sel = &gr->all;
        c->state = gr->state;
        c->method = gr->method->name;
        c->hook = site_names[site];
        pb_counts before = c->counts[PB_ADAPTER];
        pb_mat *z = gr->method->site(c, gr->options, site, x, y);
        st->acts[site] |= z != y || c->counts[PB_ADAPTER].flops != before.flops;
        if (!z)
            pb_wrong(c, "it returns NULL; it returns y, or what stands in its place");
        else if (z->rows != y->rows || z->cols != y->cols || z->of != y->of)
            pb_wrong(c, "it returns (%zu,%zu) in place of (%zu,%zu)", z->rows, z->cols, y->rows,
                     y->cols);
        y = z ? z : y;
    }
    c->sel = c->all;
    pb_enter(c, PB_BACKBONE);
    return y;
}

// Linears that read the same matrix, at once; those whose input a method has edited, alone. `first`
// is the input site of the first of them, the others' follow; `in` is what each of them read.
static void linears(pb_step *st, pb_mat **y, pb_mat **in, pb_mat *x, pb_site first,
                    const pb_weight *w, size_t n)
{
    const pb_weight *same[3];
    pb_mat *out[3];
    size_t at[3], n_same = 0;
    for (size_t i = 0; i < n; i++) {
        pb_mat *own = in[i] = at_site(st, (pb_site)(first + i), x, x);
        const pb_weight *wi = &w[i];
        if (own == x) {
            at[n_same] = i;
            same[n_same++] = wi;
        } else {
            pb_linear(&st->c, &y[i], own, &wi, 1);
        }
    }
    if (n_same)
        pb_linear(&st->c, out, x, same, n_same);
    for (size_t i = 0; i < n_same; i++)
        y[at[i]] = out[i];
}

// Rows row0.. of a matrix, sharing its memory.
static pb_mat *some_rows(pb_ctx *c, const pb_mat *m, size_t row0, size_t n, pb_rows_of of)
{
    pb_mat *part = PB_NEW(c->heads, pb_mat, 1);
    *part = *m;
    part->v += row0 * m->ld;
    if (part->d)
        part->d += row0 * m->ld;
    part->rows = n;
    part->of = of;
    return part;
}

// Keys and values of a prefix while training: the method's own, or those of its virtual tokens,
// which are the last segment.
static void fresh_prefix(pb_ctx *c, const pb_adapter *a, const pb_mat *k, const pb_mat *v,
                         pb_mat **pk, pb_mat **pv)
{
    if (a->method->virtual_tokens) {
        const pb_segment *last = &c->seg[c->n_seg - 1];
        *pk = some_rows(c, k, last->row0, last->n_rows, PB_TENANT);
        *pv = some_rows(c, v, last->row0, last->n_rows, PB_TENANT);
        return;
    }
    c->tenant = &a->params;
    pb_enter(c, PB_ADAPTER);
    c->method = a->method->name;
    c->hook = "prefix";
    a->method->prefix(c, a->options, pk, pv);
    pb_enter(c, PB_BACKBONE);
    c->tenant = NULL;
}

// Prefixes that a group's method makes from the prompts, one for each segment. Where the sequence
// has a slot, its keys in panels are kept behind its state.
static void prompt_prefixes(pb_step *st, const group *gr, const pb_prefix **list)
{
    pb_ctx *c = &st->c;
    const pb_config *g = &st->m->config;
    size_t n = gr->method->prefix_len(gr->options), kv = pb_kv_width(g), size;
    size_t state = gr->method->state(gr->options, g);
    pb_mat *k, *v;
    pb_enter(c, PB_ADAPTER);
    c->sel = &gr->all;
    c->state = gr->state;
    c->method = gr->method->name;
    c->hook = "prompt_prefix";
    gr->method->prompt_prefix(c, gr->options, &k, &v);
    if (k->rows != c->n_seg || v->rows != c->n_seg || k->cols != n * kv || v->cols != n * kv)
        pb_wrong(c, "k and v are not (segments,%zu) both, as `prefix_len` and the backbone want",
                 n * kv);
    c->sel = c->all;
    pb_enter(c, PB_BACKBONE);
    size = (n + PB_NR - 1) / PB_NR * PB_NR * kv;
    for (size_t i = 0; i < gr->all.n; i++) {
        size_t s = gr->all.seg[i];
        const pb_segment *seg = &c->seg[s];
        pb_mat *own = PB_NEW(c->heads, pb_mat, 2);
        pb_prefix *p = PB_NEW(c->heads, pb_prefix, 1);
        real *panels = NULL;
        own[0] = *some_rows(c, k, s, 1, PB_SEGMENTS);
        own[1] = *some_rows(c, v, s, 1, PB_SEGMENTS);
        for (int m = 0; m < 2; m++) { // one row of n*KVH*D is n of KVH*D
            own[m].rows = n;
            own[m].cols = own[m].ld = kv;
        }
        if (seg->slot < 0)
            panels = PB_NEW(c->arena, real, size);
        else if (!c->dry)
            panels = saved_state(c->kv, seg->slot, c->layer) + state;
        if (!c->dry && (seg->slot < 0 || starts(seg)))
            pb_pack_keys(panels, &own[0], g->kv_heads, g->head_dim);
        *p = (pb_prefix){n, panels, &own[0], &own[1], true};
        list[s] = p;
    }
}

// Prefixes of the current layer, per segment: packed ones, or while training fresh ones. k and v
// are the layer's.
static void prefixes(pb_step *st, const pb_mat *k, const pb_mat *v)
{
    pb_ctx *c = &st->c;
    bool any = false;
    for (size_t s = 0; s < c->n_seg; s++)
        any |= c->seg_shift[s] > 0;
    c->seg_prefix = NULL;
    if (!any)
        return;
    const pb_prefix **list = PB_NEW(c->heads, const pb_prefix *, c->n_seg);
    c->seg_prefix = list;
    for (size_t s = 0; s < c->n_seg; s++)
        list[s] = NULL;
    for (size_t g = 0; g < st->n_groups; g++)
        if (st->groups[g].all.n && st->groups[g].method->prompt_prefix)
            prompt_prefixes(st, &st->groups[g], list);
    pb_prefix *fresh = NULL; // of the one tenant that is being trained
    for (size_t s = 0; s < c->n_seg; s++) {
        if (!c->seg_shift[s] || list[s])
            continue;
        const pb_adapter *a = st->tenant[c->seg[s].tenant];
        if (!c->record && a->prefix) {
            list[s] = &a->prefix[c->layer];
            continue;
        }
        if (!fresh) {
            pb_mat *pk, *pv;
            size_t padded = (a->prefix_len + PB_NR - 1) / PB_NR * PB_NR;
            fresh_prefix(c, a, k, v, &pk, &pv);
            real *panels = PB_NEW(c->arena, real, padded * pk->cols);
            if (!c->dry)
                pb_pack_keys(panels, pk, st->m->config.kv_heads, st->m->config.head_dim);
            fresh = PB_NEW(c->heads, pb_prefix, 1);
            *fresh = (pb_prefix){a->prefix_len, panels, pk, pv, false};
        }
        list[s] = fresh;
    }
}

// Over every run of n values of a row.
static pb_mat *norm(pb_ctx *c, const pb_config *g, pb_mat *x, pb_vector w, size_t n)
{
    return pb_rms_norm(c, x, w, n, g->norm_offset ? 1 : 0, g->norm_eps);
}

// Embeddings of the batch's tokens, and the tenant's virtual ones.
static pb_mat *embed(pb_step *st, const int32_t *tokens)
{
    pb_ctx *c = &st->c;
    const pb_config *g = &st->m->config;
    // Published implementations of Gemma round this root to the type they compute in (45.25 instead
    // of 45.2548 for a width of 2048 in bfloat16). Here computation is in float, and so is the
    // root. They scale whatever is embedded, so the virtual tokens of Hugging Face's PEFT too.
    double scale = g->embed_scaled ? sqrt((double)g->width) : 1;
    pb_mat *x = pb_embed(c, &st->m->embed, scale, tokens);
    const pb_segment *last = c->n_seg ? &c->seg[c->n_seg - 1] : NULL;
    if (last && last->front) {
        const pb_adapter *a = st->tenant[last->tenant];
        c->tenant = &a->params;
        pb_enter(c, PB_ADAPTER);
        c->method = a->method->name;
        c->hook = "virtual_tokens";
        pb_mat *rows = a->method->virtual_tokens(c, a->options);
        if (rows->rows != last->n_rows || rows->cols != g->width)
            pb_wrong(c, "it returns (%zu,%zu), not (%zu,%zu)", rows->rows, rows->cols, last->n_rows,
                     g->width);
        else
            pb_put_rows(c, x, last->row0, rows, scale);
        pb_enter(c, PB_BACKBONE);
        c->tenant = NULL;
    }
    return x;
}

// Layer l on its input x.
static pb_mat *layer(pb_step *st, size_t l, pb_mat *x)
{
    pb_ctx *c = &st->c;
    const pb_config *g = &st->m->config;
    const pb_layer *w = &st->m->layer[l];
    size_t H = g->heads, KVH = g->kv_heads, D = g->head_dim;
    static const pb_gate_kind gates[] = {
        [PB_GATE_SILU] = PB_SILU, [PB_GATE_GELU_TANH] = PB_GELU_TANH, [PB_GATE_GELU] = PB_GELU_ERF};
    pb_scores how = {.scale = 1 / sqrt(g->score_scalar > 0 ? g->score_scalar : (double)D),
                     .cap = g->attn_cap,
                     .window = pb_config_window(g, l)};
    pb_mat *y[3], *in[3];
    c->layer = l;
    c->linears = w->lin;
    x = at_site(st, PB_SITE_LAYER_IN, x, x);
    pb_mat *n = norm(c, g, x, w->norm[PB_NORM_ATTN], g->width);
    prompts(st, x, n);
    linears(st, y, in, n, PB_SITE_Q_IN, &w->lin[PB_LIN_Q], 3);
    pb_mat *q = at_site(st, PB_SITE_Q, in[0], y[0]);
    pb_mat *k = at_site(st, PB_SITE_K, in[1], y[1]);
    pb_mat *v = at_site(st, PB_SITE_V, in[2], y[2]);
    if (g->qk_norm) {
        q = norm(c, g, q, w->norm[PB_NORM_Q], D);
        k = norm(c, g, k, w->norm[PB_NORM_K], D);
    }
    pb_rope(c, q, H, D, st->rope);
    pb_rope(c, k, KVH, D, st->rope);
    q = at_site(st, PB_SITE_Q_ROT, n, q);
    k = at_site(st, PB_SITE_K_ROT, n, k);
    prefixes(st, k, v);
    pb_mat *a = pb_attention(c, q, k, v, H, KVH, D, how);
    linears(st, y, in, a, PB_SITE_O_IN, &w->lin[PB_LIN_O], 1);
    pb_mat *out = at_site(st, PB_SITE_O, in[0], y[0]);
    if (g->post_norms)
        out = norm(c, g, out, w->norm[PB_NORM_ATTN_OUT], g->width);
    out = at_site(st, PB_SITE_ATTN_OUT, n, out);
    x = pb_add(c, x, out);
    n = norm(c, g, x, w->norm[PB_NORM_FFN], g->width);
    linears(st, y, in, n, PB_SITE_GATE_IN, &w->lin[PB_LIN_GATE], 2);
    pb_mat *gate = at_site(st, PB_SITE_GATE, in[0], y[0]);
    pb_mat *up = at_site(st, PB_SITE_UP, in[1], y[1]);
    pb_mat *mid = at_site(st, PB_SITE_MID, n, pb_glu(c, gate, up, gates[g->gate]));
    const pb_weight *down[] = {&w->lin[PB_LIN_DOWN]};
    pb_linear(c, y, mid, down, 1);
    out = at_site(st, PB_SITE_DOWN, mid, y[0]);
    if (g->post_norms)
        out = norm(c, g, out, w->norm[PB_NORM_FFN_OUT], g->width);
    out = at_site(st, PB_SITE_FFN_OUT, n, out);
    return pb_add(c, x, out);
}

static void copy_values(const pb_ctx *c, real *to, const pb_mat *from)
{
    if (!c->dry)
        memcpy(to, from->v, from->rows * from->cols * sizeof *to);
}

// ---------------------------------------------------------------- recomputation
//
// Between the forward and the backward pass only what goes into a layer is kept; the layer's
// backward pass runs it once more. Source: Chen et al. 2016, arXiv 1604.06174.

struct again {
    pb_node node;
    pb_step *st;
    pb_mat *in, *out;
    uint32_t dropouts; // number of the layer's first one
};

// Runs a layer on a copy of its input's values, since hooks may edit them in place; the gradient is
// the input's own.
static pb_mat *layer_of_copy(pb_step *st, size_t l, const pb_mat *in)
{
    pb_ctx *c = &st->c;
    pb_mat *x = pb_new(c, in->rows, in->cols, PB_TOKENS, false);
    copy_values(c, x->v, in);
    x->d = in->d;
    return layer(st, l, x);
}

static void again_back(pb_ctx *c, pb_node *self)
{
    struct again *o = (struct again *)self;
    size_t mark = pb_mark(c->heads);
    c->tape = NULL;
    c->dropouts = o->dropouts;
    pb_mat *y = layer_of_copy(o->st, self->layer, o->in);
    if (!c->dry)
        memcpy(y->d, o->out->d, y->rows * y->cols * sizeof *y->d);
    pb_backward(c);
    pb_release(c->heads, mark);
}

static pb_mat *layer_kept_input(pb_step *st, size_t l, pb_mat *in)
{
    pb_ctx *c = &st->c;
    pb_node *tape = c->tape;
    uint32_t dropouts = c->dropouts;
    pb_mat *out = pb_new(c, in->rows, in->cols, PB_TOKENS, false);
    size_t mark = pb_mark(c->arena), heads = pb_mark(c->heads);
    pb_mat *y = layer_of_copy(st, l, in);
    bool grad = y->d;
    copy_values(c, out->v, y);
    pb_release(c->arena, mark);
    pb_release(c->heads, heads);
    c->tape = tape;
    if (grad) {
        pb_want_grad(c, out);
        struct again *o = pb_push(c, sizeof *o, again_back);
        o->st = st;
        o->in = in;
        o->out = out;
        o->dropouts = dropouts;
    }
    return out;
}

// Without a backward pass, a layer's memory is used again by the next one.
static pb_mat *layers_without_tape(pb_step *st, pb_mat *x)
{
    pb_ctx *c = &st->c;
    pb_mat *kept = pb_new(c, x->rows, x->cols, PB_TOKENS, false);
    size_t mark = pb_mark(c->arena);
    for (size_t l = 0; l < st->m->config.layers; l++) {
        x = layer(st, l, x);
        copy_values(c, kept->v, x);
        x = kept;
        pb_release(c->arena, mark);
    }
    return x;
}

// The normalised hidden states of the batch's own rows.
static pb_mat *run(pb_step *st, const pb_batch *b)
{
    pb_ctx *c = &st->c;
    const pb_model *m = st->m;
    const pb_config *g = &m->config;
    arrange(st);
    c->layer = 0;
    st->rope = pb_rope_table(c, g->head_dim, m->inv_freq);
    pb_mat *x = embed(st, st->tokens);
    if (!c->record)
        x = layers_without_tape(st, x);
    for (size_t l = 0; c->record && l < g->layers; l++)
        x = st->limits.recompute ? layer_kept_input(st, l, x) : layer(st, l, x);
    x = norm(c, g, x, m->norm, g->width);
    return b->n_rows < c->n_rows ? some_rows(c, x, 0, b->n_rows, PB_TOKENS) : x;
}

// Adds the virtual tokens of the one tenant to the batch, as its last segment: their keys and
// values are computed once, whatever the number of sequences that see them, and gradients from all
// of these meet there.
static void add_front(pb_step *st, const pb_batch *b, size_t n)
{
    pb_ctx *c = &st->c;
    pb_segment *seg = PB_NEW(c->heads, pb_segment, b->n_seg + 1);
    int32_t *tokens = PB_NEW(c->heads, int32_t, b->n_rows + n);
    if (b->n_seg)
        memcpy(seg, b->seg, b->n_seg * sizeof *seg);
    memset(tokens, 0, (b->n_rows + n) * sizeof *tokens);
    if (b->n_rows && b->tokens)
        memcpy(tokens, b->tokens, b->n_rows * sizeof *tokens);
    seg[b->n_seg] = (pb_segment){
        .row0 = b->n_rows, .n_rows = n, .slot = st->limits.slots ? 0 : -1, .front = true};
    c->seg = seg;
    c->n_seg++;
    c->n_rows += n;
    st->tokens = tokens;
}

// Virtual tokens that the step itself runs.
static size_t front_rows(const pb_step *st)
{
    bool runs = st->limits.train || st->limits.front;
    return runs && st->n_tenants && st->tenant[0]->method->virtual_tokens
               ? st->tenant[0]->prefix_len
               : 0;
}

static void begin(pb_step *st, const pb_batch *b, bool training, uint64_t seed, uint64_t step)
{
    pb_ctx *c = &st->c;
    pb_release(c->arena, 0);
    pb_release(c->heads, 0);
    c->tape = NULL;
    c->tenant = NULL;
    c->parts = c->part = 0;
    c->dropouts = 0;
    c->component = PB_BACKBONE;
    memset(c->counts, 0, sizeof c->counts);
    c->since = c->timed ? pb_now_ns() : 0;
    c->training = training;
    c->seed = seed;
    c->step = step;
    c->seg = b->seg;
    c->n_seg = b->n_seg;
    c->n_rows = b->n_rows;
    st->tokens = b->tokens;
    if (front_rows(st))
        add_front(st, b, front_rows(st));
}

pb_mat *pb_forward(pb_step *s, const pb_batch *b, bool training, uint64_t seed, uint64_t step)
{
    begin(s, b, training, seed, step);
    pb_mat *h = run(s, b);
    pb_enter(&s->c, PB_BACKBONE);
    return h;
}

void pb_step_loss(pb_step *s, pb_mat *h, const int32_t *target, const real *weight, real *nll,
                  uint8_t *hits)
{
    pb_lm_loss(&s->c, h, &s->m->head, s->m->config.final_cap, target, weight, nll, hits);
}

void pb_step_backward(pb_step *s)
{
    pb_backward(&s->c);
}

void pb_step_logits(pb_step *s, const pb_mat *h, const size_t *rows, size_t n, real *out)
{
    pb_logits(&s->c, out, h, &s->m->head, s->m->config.final_cap, rows, n);
}

void pb_step_time(pb_step *s)
{
    s->c.timed = true;
}

void pb_step_untime(pb_step *s)
{
    s->c.timed = false;
}

const pb_counts *pb_step_counts(const pb_step *s)
{
    return s->c.counts;
}

size_t pb_step_bytes(const pb_step *s)
{
    return s->arena.size;
}

size_t pb_step_peak(const pb_step *s)
{
    return s->arena.peak;
}

size_t pb_step_kv_bytes(const pb_step *s)
{
    return s->memory.size;
}

void pb_step_read_kv(const pb_step *s, size_t slot, size_t layer, size_t n, real *k, real *v)
{
    const pb_kv *kv = &s->kv;
    size_t D = kv->head_dim, W = kv->kv_heads * D;
    const real *rows = kv->v + (slot * kv->layers + layer) * kv->capacity * W;
    for (size_t g = 0; g < kv->kv_heads; g++) {
        const real *p = kv->k + ((slot * kv->layers + layer) * kv->kv_heads + g) * kv->capacity * D;
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < D; d++)
                k[i * W + g * D + d] = p[(i / PB_NR * D + d) * PB_NR + i % PB_NR];
    }
    memcpy(v, rows, n * W * sizeof *v);
}

void pb_step_copy_slot(pb_step *s, size_t to, size_t from, size_t first, size_t n)
{
    const pb_kv *kv = &s->kv;
    size_t D = kv->head_dim, T = kv->capacity, W = kv->kv_heads * D;
    size_t panel = first / PB_NR * PB_NR, end = (n + PB_NR - 1) / PB_NR * PB_NR; // of whole panels
    for (size_t l = 0; l < kv->layers; l++) {
        size_t a = to * kv->layers + l, b = from * kv->layers + l;
        for (size_t g = 0; g < kv->kv_heads; g++)
            memcpy(kv->k + ((a * kv->kv_heads + g) * T + panel) * D,
                   kv->k + ((b * kv->kv_heads + g) * T + panel) * D,
                   (end - panel) * D * sizeof(real));
        memcpy(kv->v + (a * T + first) * W, kv->v + (b * T + first) * W,
               (n - first) * W * sizeof(real));
        if (!first)
            memcpy(kv->saved + a * kv->state, kv->saved + b * kv->state, kv->state * sizeof(real));
    }
}

// ---------------------------------------------------------------- set-up

static pb_err make_groups(pb_step *st)
{
    size_t n = st->n_tenants;
    st->group_of = malloc((n + 1) * sizeof *st->group_of);
    st->groups = calloc(n + 1, sizeof *st->groups);
    if (!st->group_of || !st->groups)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", n);
    for (size_t t = 0; t < n; t++) {
        const pb_adapter *a = st->tenant[t];
        size_t g = 0;
        while (g < st->n_groups &&
               (st->groups[g].method != a->method ||
                !pb_options_same_group(a->method, st->groups[g].options, a->options)))
            g++;
        if (g == st->n_groups)
            st->groups[st->n_groups++] = (group){.method = a->method, .options = a->options};
        st->group_of[t] = g;
        if (a->method->backbone)
            return pb_fail(PB_UNSUPPORTED, "open the saved model instead",
                           "method %s has no adapter and cannot be a tenant", a->method->name);
        if (a->prefix_len && !a->prefix && !a->method->prompt_prefix && !st->limits.train &&
            !st->limits.front)
            return pb_fail(PB_INTERNAL, "call pb_adapter_serve first",
                           "tenant %zu (%s) is not ready to be served", t, a->method->name);
    }
    if (st->limits.train && n > 1)
        return pb_fail(PB_INTERNAL, NULL, "a training step has one adapter, not %zu", n);
    return PB_OK;
}

// The largest batch: every tenant appears, rows spread over the segments.
static pb_err dry_batch(const pb_step *st, pb_batch *b, pb_segment **seg, int32_t **tokens)
{
    size_t S = st->limits.segments > st->n_tenants ? st->limits.segments : st->n_tenants;
    S = S ? S : 1;
    size_t R = st->limits.rows > S ? st->limits.rows : S;
    *seg = calloc(S, sizeof **seg);
    *tokens = calloc(R, sizeof **tokens);
    if (!*seg || !*tokens)
        return pb_fail(PB_MEMORY, NULL, "no memory for a batch of %zu rows", R);
    for (size_t s = 0, row = 0; s < S; s++) {
        size_t n = R / S + (s < R % S);
        (*seg)[s] = (pb_segment){.row0 = row,
                                 .n_rows = n,
                                 .n_prompt = n,
                                 .tenant = st->n_tenants ? (int)(s % st->n_tenants) : -1,
                                 .slot = -1};
        row += n;
    }
    *b = (pb_batch){R, S, *tokens, *seg};
    return PB_OK;
}

static void dry_step(pb_step *st, const pb_batch *b)
{
    st->c.dry = true;
    st->c.arena = &st->arena;
    begin(st, b, true, 0, 0);
    pb_mat *h = run(st, b);
    if (st->limits.loss || st->limits.train)
        pb_lm_loss(&st->c, h, &st->m->head, st->m->config.final_cap, NULL, NULL, NULL, NULL);
    else
        pb_logits(&st->c, NULL, h, &st->m->head, st->m->config.final_cap, NULL, b->n_seg);
    if (st->limits.train)
        pb_backward(&st->c);
    st->c.dry = false;
}

static pb_err mistakes(const pb_step *st)
{
    return *st->c.wrong
               ? pb_fail(PB_INTERNAL, "compare `layout` with what the hook does", "%s", st->c.wrong)
               : PB_OK;
}

static pb_kv cache_shape(const pb_config *g, pb_adapter *const *tenants, size_t n,
                         const pb_step_limits *limits)
{
    size_t state = 0;
    for (size_t t = 0; t < n; t++)
        if (tenants[t]->state > state)
            state = tenants[t]->state;
    return (pb_kv){.slots = limits->slots,
                   .capacity = (limits->positions + PB_NR - 1) / PB_NR * PB_NR,
                   .layers = g->layers,
                   .kv_heads = g->kv_heads,
                   .head_dim = g->head_dim,
                   .state = state};
}

// Numbers that are keys (and values as many), and state.
static size_t cache_size(const pb_kv *kv, size_t *state)
{
    *state = kv->slots * kv->layers * kv->state;
    return kv->slots * kv->layers * kv->capacity * kv->kv_heads * kv->head_dim;
}

static size_t cache_bytes(const pb_kv *kv)
{
    size_t m, n = cache_size(kv, &m);
    return n ? (2 * n + m) * sizeof(real) + 256 : 0;
}

size_t pb_step_kv_need(const pb_config *c, pb_adapter *const *tenants, size_t n,
                       const pb_step_limits *limits)
{
    pb_kv kv = cache_shape(c, tenants, n, limits);
    return cache_bytes(&kv);
}

static pb_err cache(pb_step *st)
{
    st->kv = cache_shape(&st->m->config, st->tenant, st->n_tenants, &st->limits);
    st->c.kv = &st->kv;
    if (!st->kv.slots)
        return PB_OK;
    size_t m, n = cache_size(&st->kv, &m);
    PB_TRY(pb_arena_init(&st->memory, "KV cache", cache_bytes(&st->kv)));
    st->kv.k = PB_NEW(&st->memory, real, n);
    st->kv.v = PB_NEW(&st->memory, real, n);
    st->kv.saved = PB_NEW(&st->memory, real, m);
    return PB_OK;
}

static pb_err set_up(pb_step *st, const pb_model *m, pb_adapter *const *tenants, size_t n,
                     const pb_step_limits *limits)
{
    st->m = m;
    st->tenant = tenants;
    st->n_tenants = n;
    st->limits = *limits;
    st->c = (pb_ctx){.k = pb_kernels_get(),
                     .heads = &st->heads,
                     .threads = pb_threads(),
                     .record = limits->train};
    for (size_t t = 0; t < n; t++)
        if (pb_config_same_geometry(&m->config, &tenants[t]->config))
            return pb_context(PB_INPUT, "tenant %zu (%s)", t, tenants[t]->method->name);
    PB_TRY(make_groups(st));
    // Headers and index lists are small; the address space is reserved, pages come when touched.
    PB_TRY(pb_arena_init(
        &st->heads, "step headers",
        ((size_t)1 << 20) + m->config.layers * ((n + 8) * 4096 + limits->segments * 512) +
            (limits->rows + front_rows(st) + (limits->segments + n) * (n + 8)) * 512));
    return cache(st);
}

// From here on, segments refer to seats.
static pb_err make_seats(pb_step *st)
{
    size_t n = st->limits.seats;
    st->like = st->group_of;
    st->seat = calloc(n, sizeof *st->seat);
    st->group_of = calloc(n, sizeof *st->group_of);
    if (!st->seat || !st->group_of)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu seats", n);
    st->tenant = st->seat;
    st->n_tenants = n;
    return PB_OK;
}

void pb_step_seat(pb_step *s, size_t seat, pb_adapter *a, size_t like)
{
    s->seat[seat] = a;
    s->group_of[seat] = a ? s->like[like] : 0;
}

// Runs the largest batch dry: afterwards the arena's peak is what a step needs.
static pb_err measure(pb_step *st, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      const pb_step_limits *limits)
{
    pb_err err = PB_OK;
    pb_segment *seg = NULL;
    int32_t *tokens = NULL;
    pb_batch b;
    PB_GO(set_up(st, m, tenants, n, limits));
    PB_GO(dry_batch(st, &b, &seg, &tokens));
    PB_GO(pb_arena_init(&st->arena, "step", 0));
    dry_step(st, &b);
    err = mistakes(st);
done:
    free(seg);
    free(tokens);
    return err;
}

pb_err pb_step_new(pb_step **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                   const pb_step_limits *limits)
{
    pb_err err = PB_OK;
    pb_step *st = calloc(1, sizeof *st);
    *out = NULL;
    if (!st)
        return pb_fail(PB_MEMORY, NULL, "no memory for a step");
    PB_GO(measure(st, m, tenants, n, limits));
    PB_GO(pb_arena_init(&st->arena, "step", st->arena.peak + 64));
    if (limits->seats)
        PB_GO(make_seats(st));
    *out = st;
done:
    if (err)
        pb_step_free(st);
    return err;
}

pb_err pb_step_need(size_t *bytes, const pb_model *m, pb_adapter *const *tenants, size_t n,
                    const pb_step_limits *limits)
{
    pb_step *st = calloc(1, sizeof *st);
    pb_step_limits without_cache = *limits;
    without_cache.slots = 0;
    if (!st)
        return pb_fail(PB_MEMORY, NULL, "no memory for a step");
    pb_err err = measure(st, m, tenants, n, &without_cache);
    *bytes = st->arena.peak;
    pb_step_free(st);
    return err;
}

pb_err pb_step_estimate(const pb_model *m, pb_adapter *const *tenants, size_t n, const pb_batch *b,
                        bool train, pb_counts out[PB_COMPONENTS])
{
    pb_step *st = calloc(1, sizeof *st);
    if (!st)
        return pb_fail(PB_MEMORY, NULL, "no memory for a step");
    pb_step_limits limits = {.rows = b->n_rows, .segments = b->n_seg, .train = train};
    pb_err err = set_up(st, m, tenants, n, &limits);
    if (!err) {
        dry_step(st, b);
        memcpy(out, st->c.counts, sizeof st->c.counts);
        err = mistakes(st);
    }
    pb_step_free(st);
    return err;
}

pb_err pb_step_sites(const pb_model *m, pb_adapter *a, bool acts[PB_N_SITES])
{
    pb_segment seg = {.n_rows = 2, .n_prompt = 2, .slot = -1};
    pb_batch b = {2, 1, NULL, &seg};
    pb_step *st = calloc(1, sizeof *st);
    if (!st)
        return pb_fail(PB_MEMORY, NULL, "no memory for a step");
    pb_step_limits limits = {.rows = 2, .segments = 1};
    pb_err err = set_up(st, m, &a, 1, &limits);
    if (!err) {
        dry_step(st, &b);
        memcpy(acts, st->acts, sizeof st->acts);
        err = mistakes(st);
    }
    pb_step_free(st);
    return err;
}

// Runs one segment, of tokens or of an adapter's virtual tokens, and reads its keys and values.
static pb_err read_back(const pb_model *m, pb_adapter *a, const int32_t *tokens, size_t n, real *k,
                        real *v)
{
    size_t kv = pb_kv_width(&m->config);
    pb_step *st;
    pb_step_limits limits = {
        .rows = n, .segments = 1, .slots = 1, .positions = n, .front = a != NULL};
    pb_segment seg = {.n_rows = n, .n_prompt = n, .tenant = -1, .slot = 0};
    PB_TRY(pb_step_new(&st, m, &a, a ? 1 : 0, &limits));
    pb_forward(st, a ? &(pb_batch){0} : &(pb_batch){n, 1, tokens, &seg}, false, 0, 0);
    for (size_t l = 0; l < m->config.layers; l++)
        pb_step_read_kv(st, 0, l, n, k + l * n * kv, v + l * n * kv);
    pb_step_free(st);
    return PB_OK;
}

pb_err pb_text_kv(const pb_model *m, const int32_t *tokens, size_t n, real *x, real *k, real *v)
{
    size_t C = m->config.width;
    for (size_t i = 0; i < n; i++)
        if (m->embed.v)
            memcpy(x + i * C, m->embed.v + (size_t)tokens[i] * C, C * sizeof *x);
        else
            pb_unpack(x + i * C, &m->embed, (size_t)tokens[i], 1);
    return read_back(m, NULL, tokens, n, k, v);
}

pb_err pb_virtual_kv(const pb_model *m, pb_adapter *a, real *k, real *v)
{
    return read_back(m, a, NULL, a->prefix_len, k, v);
}

void pb_step_free(pb_step *st)
{
    if (!st)
        return;
    pb_arena_free(&st->arena);
    pb_arena_free(&st->heads);
    pb_arena_free(&st->memory);
    free(st->group_of);
    free(st->like);
    free(st->seat);
    free(st->groups);
    free(st);
}
