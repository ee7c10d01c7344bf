// Loading, packing, merging and saving of backbones.
#include "model/model.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/threads.h"
#include "model/numbers.h"
#include "model/source.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sha2.h>

enum {
    W_EMBED,
    W_NORM,
    W_HEAD,
    W_NORMS,
    W_LINEAR = W_NORMS + PB_N_NORMS,
    W_BIAS = W_LINEAR + PB_N_LINEARS
};

// Values of a layer's norm; 0 when it has none.
static size_t norm_size(const pb_config *c, int id)
{
    if (id >= PB_NORM_Q)
        return c->qk_norm ? c->head_dim : 0;
    return id < PB_NORM_ATTN_OUT || c->post_norms ? c->width : 0;
}

// Where post norms exist, the name that others use for the second norm means the first of them.
static const char *norm_name(const pb_config *c, int id)
{
    static const char *const names[PB_N_NORMS] = {
        "input_layernorm.weight",          "pre_feedforward_layernorm.weight",
        "post_attention_layernorm.weight", "post_feedforward_layernorm.weight",
        "self_attn.q_norm.weight",         "self_attn.k_norm.weight"};
    return names[id == PB_NORM_FFN && !c->post_norms ? PB_NORM_ATTN_OUT : id];
}

pb_err pb_weight_name(char out[160], const pb_spec *s)
{
    return s->layer == PB_GLOBAL ? pb_path(out, 160, "%s", s->name)
                                 : pb_path(out, 160, "model.layers.%d.%s", s->layer, s->name);
}

bool pb_weight_is_vector(const pb_spec *s)
{
    return s->id != W_EMBED && s->id != W_HEAD && (s->id < W_LINEAR || s->id >= W_BIAS);
}

pb_err pb_model_layout(pb_layout *l, const pb_config *c)
{
    char name[104];
    size_t C = c->width;
    pb_init one = c->norm_offset ? PB_INIT_ZERO : PB_INIT_ONE;
    pb_layout_add(l, PB_GLOBAL, W_EMBED, "model.embed_tokens.weight", c->vocab, C, PB_INIT_NORMAL,
                  0.02, 0);
    for (int i = 0; i < (int)c->layers; i++) {
        for (int t = 0; t < PB_N_NORMS; t++)
            if (norm_size(c, t))
                pb_layout_add(l, i, W_NORMS + t, norm_name(c, t), 1, norm_size(c, t), one, 0,
                              PB_NO_DECAY);
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            bool output = t == PB_LIN_O || t == PB_LIN_DOWN;
            snprintf(name, sizeof name, "%s.weight", pb_linear_path(id));
            pb_layout_add(l, i, W_LINEAR + t, name, pb_linear_out(c, id), pb_linear_in(c, id),
                          PB_INIT_NORMAL, output ? 0.02 / sqrt(2.0 * (double)c->layers) : 0.02, 0);
            if (pb_linear_has_bias(c, (pb_linear_id)t)) {
                snprintf(name, sizeof name, "%s.bias", pb_linear_path(id));
                pb_layout_add(l, i, W_BIAS + t, name, 1, pb_linear_out(c, id), PB_INIT_ZERO, 0,
                              PB_NO_DECAY);
            }
        }
    }
    pb_layout_add(l, PB_GLOBAL, W_NORM, "model.norm.weight", 1, C, one, 0, PB_NO_DECAY);
    if (!c->tied)
        pb_layout_add(l, PB_GLOBAL, W_HEAD, "lm_head.weight", c->vocab, C, PB_INIT_NORMAL, 0.02, 0);
    return pb_layout_finish(l, c->layers);
}

pb_err pb_storage_find(pb_storage *out, const char *name)
{
    static const char *const names[] = {"auto", "fp32", "bf16", "int8"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i])) {
            *out = (pb_storage)i;
            return PB_OK;
        }
    return pb_fail(PB_USAGE, "auto, fp32, bf16 or int8", "weights are kept as \"%.40s\"", name);
}

static bool is_linear(const pb_spec *s)
{
    return s->id >= W_LINEAR && s->id < W_BIAS;
}

static pb_weight *weight_of(pb_model *m, const pb_spec *s)
{
    return s->id == W_EMBED  ? &m->embed
           : s->id == W_HEAD ? &m->head
                             : &m->layer[s->layer].lin[s->id - W_LINEAR];
}

// Where the values of a frozen norm or bias are.
static real *vector_of(const pb_model *m, const pb_spec *s)
{
    const pb_layer *l = s->layer >= 0 ? &m->layer[s->layer] : NULL;
    return (real *)(s->id == W_NORM    ? m->norm.v
                    : s->id < W_LINEAR ? l->norm[s->id - W_NORMS].v
                                       : l->lin[s->id - W_BIAS].bias);
}

// How a matrix is kept; x is the file's, or NULL.
static pb_panel_kind kind_of(const pb_spec *s, const pb_tensor *x, const pb_model_args *args)
{
    static const pb_panel_kind kinds[] = {[PB_STORE_FP32] = PB_PANEL_FP32,
                                          [PB_STORE_BF16] = PB_PANEL_BF16,
                                          [PB_STORE_INT8] = PB_PANEL_INT8};
    if (args->trainable || pb_weight_is_vector(s))
        return PB_PANEL_FP32;
    if (args->weights != PB_STORE_AUTO)
        return kinds[args->weights];
    if (!x || (args->merge && is_linear(s)))
        return PB_PANEL_FP32;
    return x->dtype == PB_BF16   ? PB_PANEL_BF16
           : x->dtype == PB_Q8_0 ? PB_PANEL_INT8
                                 : PB_PANEL_FP32;
}

// Lays the model's memory out; called dry for the size, then for the addresses. `kind` says for
// every weight how it is kept.
static void place(pb_model *m, pb_arena *a, const pb_panel_kind *kind, bool trainable,
                  bool real_memory)
{
    const pb_config *c = &m->config;
    real *v = NULL, *d = NULL;
    if (trainable) {
        v = PB_NEW(a, real, m->layout.size);
        d = PB_NEW(a, real, m->layout.size);
    }
    double *freq = PB_NEW(a, double, c->head_dim / 2);
    pb_layer *layers = PB_NEW(a, pb_layer, c->layers);
    if (real_memory) {
        m->params = (pb_params){trainable ? &m->layout : NULL, NULL, v, d};
        m->inv_freq = freq;
        m->layer = layers;
        memset(layers, 0, c->layers * sizeof *layers);
    }
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        if (pb_weight_is_vector(s)) {
            pb_vector x = {trainable ? v + s->offset : PB_NEW(a, real, s->cols),
                           trainable ? d + s->offset : NULL};
            if (!real_memory)
                continue;
            if (s->id == W_NORM) {
                m->norm = x;
            } else if (s->id < W_LINEAR) {
                layers[s->layer].norm[s->id - W_NORMS] = x;
            } else {
                layers[s->layer].lin[s->id - W_BIAS].bias = x.v;
                layers[s->layer].lin[s->id - W_BIAS].dbias = x.d;
            }
            continue;
        }
        pb_weight w = {.out = s->rows, .in = s->cols, .kind = kind[i]};
        if (trainable) {
            w.v = v + s->offset;
            w.d = d + s->offset;
        }
        if (!trainable || c->tied || s->id != W_EMBED) // rows are looked up in v
            w.panels = pb_alloc(a, pb_weight_bytes(&w), 1);
        if (real_memory)
            *weight_of(m, s) = w;
        if (real_memory && c->tied && s->id == W_EMBED)
            m->head = w;
    }
}

void pb_frozen_weight(const pb_model *m, size_t layer, pb_linear_id l, real *w)
{
    const pb_weight *lin = &m->layer[layer].lin[l];
    pb_unpack(w, lin, 0, lin->out);
}

pb_err pb_frozen_norms(const pb_model *m, size_t layer, pb_linear_id l, real *n, const real *A,
                       const real *B, size_t r, double scale)
{
    return pb_row_norms(n, &m->layer[layer].lin[l], A, B, r, scale, pb_threads());
}

void pb_model_repack(pb_model *m)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        const pb_weight *w = pb_weight_is_vector(s) ? NULL : weight_of(m, s);
        if (w && w->panels)
            pb_pack(w, w->v, 0, w->out);
    }
}

// Adds a weight to the model's identity: its name and the digest of its values, so that neither
// the dtype of a file nor its division into shards matters.
static pb_err identify(SHA2_CTX *sha, const pb_spec *s, const pb_tensor *x, const real *rows)
{
    char name[160], digest[PB_HASH_LEN];
    pb_tensor memory = {.dtype = sizeof(real) == sizeof(float) ? PB_F32 : PB_F64,
                        .n_dims = 2,
                        .shape = {s->rows, s->cols},
                        .count = s->rows * s->cols,
                        .data = rows};
    PB_TRY(pb_weight_name(name, s));
    PB_TRY(pb_tensor_digest(x ? x : &memory, digest));
    SHA256Update(sha, (const uint8_t *)name, strlen(name) + 1);
    SHA256Update(sha, (const uint8_t *)digest, sizeof digest);
    return PB_OK;
}

// ---------------------------------------------------------------- filling

// Values pass through memory in pieces of about so many, after which a file's pages are given back.
enum { FILL_PIECE = 1 << 24 };

// Where a weight's values come from: a tensor, or rows in memory.
typedef struct origin {
    const char *name;
    const pb_tensor *tensor;
    const real *rows;
} origin;

static pb_err bad_value(const origin *from, size_t at)
{
    real v = 0;
    if (from->tensor)
        pb_tensor_read(from->tensor, at, 1, &v);
    else
        v = from->rows[at];
    if (isfinite(v))
        return pb_fail(PB_INPUT, "keep the weights in fp32",
                       "tensor \"%s\" has a value %g at %zu that fewer bits cannot keep",
                       from->name, (double)v, at);
    return pb_fail(PB_INPUT, NULL, "tensor \"%s\" has the value %g at %zu", from->name, (double)v,
                   at);
}

static pb_err read_values(real *to, const origin *from, size_t n)
{
    size_t bad = SIZE_MAX;
    for (size_t first = 0; first < n && bad == SIZE_MAX; first += FILL_PIECE) {
        size_t m = n - first < FILL_PIECE ? n - first : FILL_PIECE;
        pb_tensor_read(from->tensor, first, m, to + first);
#pragma omp parallel for schedule(static) reduction(min : bad)
        for (size_t i = first; i < first + m; i++)
            if (!isfinite(to[i]) && i < bad)
                bad = i;
        pb_tensors_release_part(from->tensor, first, m);
    }
    return bad == SIZE_MAX ? PB_OK : bad_value(from, bad);
}

// One panel's rows: read, rounded, packed. Returns the position of a value that cannot be kept.
static size_t fill_panel(const pb_weight *w, const origin *from, bool exact, size_t row0,
                         real *buffer)
{
    real *row = buffer + PB_NR * w->in;
    size_t n = w->out - row0 < PB_NR ? w->out - row0 : PB_NR, first = row0 * w->in;
    if (from->tensor)
        pb_tensor_read(from->tensor, first, n * w->in, buffer);
    else
        memcpy(buffer, from->rows + first, n * w->in * sizeof *buffer);
    if (w->kind == PB_PANEL_BF16 && !(from->tensor && from->tensor->dtype == PB_BF16))
        for (size_t i = 0; i < n * w->in; i++)
            buffer[i] = (real)pb_float_of_bfloat(pb_bfloat_of_real(buffer[i]));
    // A half-precision scale reaches this far.
    const real most = w->kind == PB_PANEL_INT8 ? (real)65504 * 127 : INFINITY;
    int bad = 0;
    for (size_t i = 0; i < n * w->in; i++)
        bad |= !(isfinite(buffer[i]) && (real)fabs((double)buffer[i]) <= most);
    for (size_t i = 0; bad; i++)
        if (!(isfinite(buffer[i]) && (real)fabs((double)buffer[i]) <= most))
            return first + i;
    pb_pack(w, buffer, row0, n);
    // Blocks that were not made like ours cannot be kept as they are.
    for (size_t i = 0; exact && i < n; i++) {
        pb_unpack(row, w, row0 + i, 1);
        if (memcmp(row, buffer + i * w->in, w->in * sizeof *row))
            return first + i * w->in;
    }
    return SIZE_MAX;
}

// `exact`: values that are not kept as they are count as bad. `buffer` has room for NR + 1 rows per
// thread.
static pb_err fill_panels(const pb_weight *w, const origin *from, bool exact, real *buffer)
{
    size_t panels = (w->out + PB_NR - 1) / PB_NR, bad = SIZE_MAX;
    size_t piece = FILL_PIECE / (PB_NR * w->in) + (size_t)pb_threads();
    for (size_t p0 = 0; p0 < panels && bad == SIZE_MAX; p0 += piece) {
        size_t end = panels - p0 < piece ? panels : p0 + piece;
#pragma omp parallel for schedule(dynamic, 1) reduction(min : bad) num_threads(pb_threads())
        for (size_t p = p0; p < end; p++) {
            real *mine = buffer + (size_t)omp_get_thread_num() * (PB_NR + 1) * w->in;
            size_t at = fill_panel(w, from, exact, p * PB_NR, mine);
            bad = at < bad ? at : bad;
        }
        if (from->tensor) {
            size_t last = end * PB_NR < w->out ? end * PB_NR : w->out;
            pb_tensors_release_part(from->tensor, p0 * PB_NR * w->in, (last - p0 * PB_NR) * w->in);
        }
    }
    return bad == SIZE_MAX ? PB_OK : bad_value(from, bad);
}

// What building a model needs for a while.
typedef struct builder {
    pb_model *m;
    const pb_tensors *t; // or NULL: initial values
    uint64_t seed;
    const pb_model_args *args;
    SHA2_CTX sha;
    pb_panel_kind *kind; // (layout.n)
    real *rows;          // one matrix, where it is needed at once
    real *buffer;        // (threads, NR + 1, largest in)
} builder;

static pb_err merge(const builder *b, const pb_spec *s, real *rows, real *bias)
{
    const pb_adapter *a = b->args->merge;
    pb_merge_args ma = {
        &b->m->config, (size_t)s->layer, (pb_linear_id)(s->id - W_LINEAR), rows, bias,
        s->rows,       s->cols};
    return pb_adapter_merge(a, &ma);
}

// Reads or makes the values of a weight at `to`.
static pb_err make_values(const builder *b, real *to, size_t i, const origin *from)
{
    const pb_layout *l = &b->m->layout;
    if (from->tensor)
        return read_values(to, from, l->spec[i].rows * l->spec[i].cols);
    pb_params_init_one(to, l, i, b->seed);
    return PB_OK;
}

static pb_err fill_vector(builder *b, size_t i, const origin *from)
{
    pb_model *m = b->m;
    const pb_spec *s = &m->layout.spec[i];
    real *to = vector_of(m, s);
    if (s->id < W_BIAS) // a bias came with its linear, which may have been merged
        PB_TRY(make_values(b, to, i, from));
    return identify(&b->sha, s, from->tensor, to);
}

static pb_err fill_matrix(builder *b, size_t i, const origin *from)
{
    pb_model *m = b->m;
    const pb_spec *s = &m->layout.spec[i], *sb = NULL;
    const pb_weight *w = weight_of(m, s);
    origin made = *from;
    bool merged = b->args->merge && is_linear(s);
    real *rows = w->v ? w->v : merged || !b->t ? b->rows : NULL;
    if (is_linear(s) && pb_linear_has_bias(&m->config, (pb_linear_id)(s->id - W_LINEAR))) {
        char name[160];
        sb = pb_layout_find(&m->layout, (size_t)s->layer, s->id - W_LINEAR + W_BIAS);
        PB_TRY(pb_weight_name(name, sb));
        origin bias = {name, b->t ? pb_tensors_find(b->t, name) : NULL, NULL};
        PB_TRY(make_values(b, vector_of(m, sb), (size_t)(sb - m->layout.spec), &bias));
    }
    if (rows)
        PB_TRY(make_values(b, rows, i, from));
    PB_TRY(identify(&b->sha, s, from->tensor, rows));
    if (merged)
        PB_TRY(merge(b, s, rows, sb ? vector_of(m, sb) : NULL));
    if (w->v) // packed when all is there
        return PB_OK;
    if (rows) {
        made.tensor = NULL;
        made.rows = rows;
    }
    bool exact = b->args->weights == PB_STORE_AUTO && w->kind == PB_PANEL_INT8;
    return fill_panels(w, &made, exact, b->buffer);
}

static pb_err fill(builder *b)
{
    const pb_layout *l = &b->m->layout;
    char name[160];
    for (size_t i = 0; i < l->n; i++) {
        const pb_spec *s = &l->spec[i];
        PB_TRY(pb_weight_name(name, s));
        origin from = {name, b->t ? pb_tensors_find(b->t, name) : NULL, NULL};
        PB_TRY(pb_weight_is_vector(s) ? fill_vector(b, i, &from) : fill_matrix(b, i, &from));
    }
    SHA256End(&b->sha, b->m->sha256);
    return PB_OK;
}

// Names and shapes are checked, and the way each weight is kept is decided, before memory is spent.
static pb_err plan(builder *b)
{
    const pb_layout *l = &b->m->layout;
    size_t largest = 0, widest = 0;
    char name[160];
    if (b->args->trainable && b->args->weights > PB_STORE_FP32)
        return pb_fail(PB_UNSUPPORTED, "leave --weights out",
                       "weights that are trained stay in fp32");
    b->kind = calloc(l->n, sizeof *b->kind);
    if (!b->kind)
        return pb_fail(PB_MEMORY, NULL, "no memory for a model");
    for (size_t i = 0; i < l->n; i++) {
        const pb_spec *s = &l->spec[i];
        bool vector = pb_weight_is_vector(s);
        const pb_tensor *x = NULL;
        PB_TRY(pb_weight_name(name, s));
        if (b->t)
            PB_TRY(
                pb_tensors_need(b->t, name, vector ? s->cols : s->rows, vector ? 0 : s->cols, &x));
        b->kind[i] = kind_of(s, x, b->args);
        // Initial values are made, and adapters folded, a matrix at a time.
        if (!vector && (!b->t || (b->args->merge && is_linear(s))) && s->rows * s->cols > largest)
            largest = s->rows * s->cols;
        if (!vector && s->cols > widest)
            widest = s->cols;
    }
    if (b->args->trainable)
        return PB_OK;
    b->rows = largest ? malloc(largest * sizeof *b->rows) : NULL;
    b->buffer = malloc((size_t)pb_threads() * (PB_NR + 1) * widest * sizeof *b->buffer);
    if (!b->buffer || (largest && !b->rows))
        return pb_fail(PB_MEMORY, NULL, "no memory for a tensor of %zu values", largest);
    return PB_OK;
}

static pb_err build(pb_model **out, const pb_config *config, const pb_tensors *t, uint64_t seed,
                    const pb_model_args *args)
{
    pb_err err = PB_OK;
    builder b = {.t = t, .seed = seed, .args = args};
    pb_model *m = b.m = calloc(1, sizeof *m);
    SHA256Init(&b.sha);
    *out = m;
    if (!m)
        return pb_fail(PB_MEMORY, NULL, "no memory for a model");
    m->config = *config;
    PB_GO(pb_config_check(config));
    PB_GO(pb_model_layout(&m->layout, config));
    PB_GO(plan(&b));
    pb_arena measure = {.name = "model"};
    place(m, &measure, b.kind, args->trainable, false);
    PB_GO(pb_arena_init(&m->memory, "model", measure.peak + 64));
    place(m, &m->memory, b.kind, args->trainable, true);
    PB_GO(fill(&b));
    if (args->trainable)
        pb_model_repack(m);
    pb_config_inv_freq(config, m->inv_freq);
done:
    free(b.kind);
    free(b.rows);
    free(b.buffer);
    if (err) {
        pb_model_close(m);
        *out = NULL;
    }
    return err;
}

pb_err pb_model_config(pb_config *c, const char *path)
{
    pb_source s;
    PB_TRY(pb_source_open(&s, path, false));
    *c = s.config;
    pb_source_close(&s);
    return PB_OK;
}

pb_err pb_model_open(pb_model **out, const char *path, const pb_model_args *args)
{
    pb_err err = PB_OK;
    pb_source s;
    *out = NULL;
    PB_TRY(pb_source_open(&s, path, true));
    PB_GO(build(out, &s.config, s.tensors, 0, args));
    PB_GO(pb_path((*out)->source, sizeof(*out)->source, "%s", path));
    err = pb_source_tokenizer(&(*out)->tokenizer, &s);
done:
    pb_source_close(&s);
    if (err) {
        pb_model_close(*out);
        *out = NULL;
        return pb_context(err, "model %s", path);
    }
    return PB_OK;
}

pb_err pb_model_random(pb_model **out, const pb_config *config, uint64_t seed,
                       const pb_model_args *args)
{
    PB_TRY(build(out, config, NULL, seed, args));
    snprintf((*out)->source, sizeof(*out)->source, "random, seed %llu", (unsigned long long)seed);
    if (strcmp(config->tokenizer, "bytes"))
        return PB_OK;
    pb_err err = pb_tokenizer_open(&(*out)->tokenizer, "bytes", config->vocab);
    if (err) {
        pb_model_close(*out);
        *out = NULL;
    }
    return err;
}

pb_err pb_model_preset(pb_model **out, const pb_config *config, uint64_t seed,
                       const pb_model_args *args)
{
    pb_tensors *t;
    PB_TRY(pb_random_tensors(&t, config, &(pb_random){seed, PB_BF16}));
    pb_err err = build(out, config, t, seed, args);
    pb_tensors_close(t);
    if (!err)
        snprintf((*out)->source, sizeof(*out)->source, "random, seed %llu",
                 (unsigned long long)seed);
    return err;
}

void pb_model_close(pb_model *m)
{
    if (!m)
        return;
    pb_tokenizer_close(m->tokenizer);
    pb_layout_free(&m->layout);
    pb_arena_free(&m->memory);
    free(m);
}

size_t pb_model_resident(const pb_model *m)
{
    return m->memory.size;
}

const char *pb_model_storage(const pb_model *m)
{
    static const char *const names[] = {
        "",     "fp32",          "bf16",          "bf16 and fp32",
        "int8", "int8 and fp32", "int8 and bf16", "int8, bf16 and fp32"};
    unsigned some = 0;
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        if (!pb_weight_is_vector(s))
            some |= 1u << weight_of((pb_model *)m, s)->kind;
    }
    return names[some];
}

static const real *weight_values(const pb_model *m, const pb_spec *s, real *tmp)
{
    if (m->params.v)
        return m->params.v + s->offset;
    if (pb_weight_is_vector(s))
        return vector_of(m, s);
    const pb_weight *w = weight_of((pb_model *)m, s);
    pb_unpack(tmp, w, 0, w->out);
    return tmp;
}

pb_err pb_model_save(const pb_model *m, const char *folder, bool bf16)
{
    pb_err err = PB_OK;
    char path[4096];
    const pb_layout *l = &m->layout;
    json_t *cfg = NULL;
    pb_tensor_out *out = calloc(l->n, sizeof *out);
    char(*names)[160] = calloc(l->n, sizeof *names);
    real *tmp = m->params.v ? NULL : malloc(l->size * sizeof *tmp);
    if (!out || !names || (!m->params.v && !tmp)) {
        err = pb_fail(PB_MEMORY, NULL, "no memory to save a model");
        goto done;
    }
    PB_GO(pb_make_dirs(folder));
    for (size_t i = 0; i < l->n; i++) {
        const pb_spec *s = &l->spec[i];
        bool vector = pb_weight_is_vector(s);
        PB_GO(pb_weight_name(names[i], s));
        out[i] = (pb_tensor_out){names[i],
                                 bf16 ? PB_BF16 : PB_F32,
                                 vector ? 1 : 2,
                                 {vector ? s->cols : s->rows, s->cols},
                                 weight_values(m, s, tmp ? tmp + s->offset : NULL)};
    }
    const char *meta[] = {"format", "pt", NULL};
    PB_GO(pb_path(path, sizeof path, "%s/model.safetensors", folder));
    PB_GO(pb_tensors_write(path, out, l->n, meta));
    cfg = pb_config_to_json(&m->config);
    PB_GO(pb_path(path, sizeof path, "%s/config.json", folder));
    PB_GO(pb_json_save(cfg, path));
done:
    json_decref(cfg);
    free(out);
    free(names);
    free(tmp);
    return err;
}
