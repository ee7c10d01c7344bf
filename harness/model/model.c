// Loading, packing, merging and saving of backbones.
#include "model/model.h"

#include "core/file.h"
#include "core/hash.h"
#include "model/source.h"

#include <math.h>
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

static bool has_bias(const pb_config *c, int linear)
{
    return linear <= PB_LIN_V ? c->qkv_bias : linear == PB_LIN_O ? c->o_bias : c->mlp_bias;
}

// Values of a layer's norm; 0 when it has none.
static size_t norm_size(const pb_config *c, int id)
{
    if (id >= PB_NORM_Q)
        return c->qk_norm ? c->head_dim : 0;
    return id < PB_NORM_ATTN_OUT || c->post_norms ? c->width : 0;
}

static size_t layer_norms(const pb_config *c)
{
    size_t n = 0;
    for (int i = 0; i < PB_N_NORMS; i++)
        n += norm_size(c, i);
    return n;
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
            if (has_bias(c, t)) {
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

// Lays the model's memory out; called dry for the size, then for the addresses.
static void place(pb_model *m, pb_arena *a, bool transposed, bool trainable, bool real_memory)
{
    const pb_config *c = &m->config;
    size_t C = c->width;
    real *v = NULL, *d = NULL;
    if (trainable) {
        v = PB_NEW(a, real, m->layout.size);
        d = PB_NEW(a, real, m->layout.size);
        if (real_memory)
            m->params = (pb_params){&m->layout, NULL, v, d};
    }
    double *freq = PB_NEW(a, double, c->head_dim / 2);
    real *embed = trainable ? v : PB_NEW(a, real, c->vocab * C);
    pb_layer *layers = PB_NEW(a, pb_layer, c->layers);
    real *norms = trainable ? NULL : PB_NEW(a, real, c->layers * layer_norms(c) + C);
    if (real_memory) {
        m->inv_freq = freq;
        m->layer = layers;
        m->embed = embed;
        m->dembed = d;
        memset(layers, 0, c->layers * sizeof *layers);
        m->norm = (pb_vector){norms, NULL};
        for (size_t i = 0, at = C; norms && i < c->layers; i++)
            for (int t = 0; t < PB_N_NORMS; at += norm_size(c, t++))
                if (norm_size(c, t))
                    layers[i].norm[t].v = norms + at;
    }
    for (size_t i = 0; i <= c->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            bool head = i == c->layers;
            if (head && t)
                break;
            size_t out = head ? c->vocab : pb_linear_out(c, (pb_linear_id)t);
            size_t in = head ? C : pb_linear_in(c, (pb_linear_id)t);
            pb_weight w = {.out = out, .in = in};
            w.panels = PB_NEW(a, real, pb_panels_size(out, in));
            if (transposed)
                w.panels_t = PB_NEW(a, real, pb_panels_size(in, out));
            real *bias = !head && has_bias(c, t) && !trainable ? PB_NEW(a, real, out) : NULL;
            w.bias = bias;
            if (!real_memory)
                continue;
            if (head)
                m->head = w;
            else
                layers[i].lin[t] = w;
        }
    if (!real_memory || !trainable)
        return;
    for (size_t k = 0; k < m->layout.n; k++) {
        const pb_spec *s = &m->layout.spec[k];
        real *sv = v + s->offset, *sd = d + s->offset;
        pb_layer *l = s->layer >= 0 ? &layers[s->layer] : NULL;
        if (s->id == W_EMBED) {
            m->embed = sv;
            m->dembed = sd;
            if (c->tied) {
                m->head.v = sv;
                m->head.d = sd;
            }
        } else if (s->id == W_HEAD) {
            m->head.v = sv;
            m->head.d = sd;
        } else if (s->id == W_NORM) {
            m->norm = (pb_vector){sv, sd};
        } else if (s->id < W_LINEAR) {
            l->norm[s->id - W_NORMS] = (pb_vector){sv, sd};
        } else if (s->id >= W_BIAS) {
            l->lin[s->id - W_BIAS].bias = sv;
            l->lin[s->id - W_BIAS].dbias = sd;
        } else {
            l->lin[s->id - W_LINEAR].v = sv;
            l->lin[s->id - W_LINEAR].d = sd;
        }
    }
}

static void pack(pb_weight *w, const real *rows)
{
    pb_pack(w->panels, rows, 0, w->out, w->in);
    if (w->panels_t)
        pb_pack_transposed(w->panels_t, w->panels, w->out, w->in);
}

void pb_model_repack(pb_model *m)
{
    size_t n = m->config.layers * PB_N_LINEARS;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i <= n; i++) {
        pb_weight *w = i == n ? &m->head : &m->layer[i / PB_N_LINEARS].lin[i % PB_N_LINEARS];
        pack(w, w->v);
    }
}

// Puts one weight (real values in `rows`) where it belongs.
static pb_err put(pb_model *m, const pb_spec *s, real *rows, real *bias, const pb_model_args *args)
{
    size_t C = m->config.width;
    if (args->merge && s->id >= W_LINEAR && s->id < W_BIAS) {
        const pb_adapter *a = args->merge;
        if (!a->method->merge)
            return pb_fail(PB_UNSUPPORTED, "serve it unmerged",
                           "method %s cannot be merged into the backbone exactly", a->method->name);
        pb_merge_args ma = {
            &m->config, (size_t)s->layer, (pb_linear_id)(s->id - W_LINEAR), rows, bias,
            s->rows,    s->cols};
        PB_TRY(a->method->merge(&a->params, &ma));
    }
    if (m->params.v) {
        if (s->id < W_BIAS) // a bias came with its linear, which may have been merged
            memcpy(m->params.v + s->offset, rows, s->rows * s->cols * sizeof *rows);
        return PB_OK;
    }
    pb_layer *l = s->layer >= 0 ? &m->layer[s->layer] : NULL;
    if (s->id == W_EMBED) {
        memcpy(m->embed, rows, s->rows * C * sizeof *rows);
        if (m->config.tied)
            pack(&m->head, rows);
    } else if (s->id == W_HEAD) {
        pack(&m->head, rows);
    } else if (s->id < W_LINEAR) {
        const real *to = l ? l->norm[s->id - W_NORMS].v : m->norm.v;
        memcpy((real *)to, rows, s->cols * sizeof *rows);
    } else if (s->id < W_BIAS) {
        pb_weight *w = &l->lin[s->id - W_LINEAR];
        pack(w, rows);
        if (bias)
            memcpy((real *)w->bias, bias, s->rows * sizeof *bias);
    }
    return PB_OK;
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

static pb_err build(pb_model **out, const pb_config *config, const pb_tensors *t, uint64_t seed,
                    const pb_model_args *args)
{
    pb_err err = PB_OK;
    real *rows = NULL, *bias = NULL;
    pb_params init = {0};
    pb_model *m = calloc(1, sizeof *m);
    SHA2_CTX sha;
    SHA256Init(&sha);
    *out = m;
    if (!m)
        return pb_fail(PB_MEMORY, NULL, "no memory for a model");
    m->config = *config;
    PB_GO(pb_config_check(config));
    PB_GO(pb_model_layout(&m->layout, config));
    // Names and shapes are checked before memory is spent.
    size_t largest = 0;
    char name[160];
    const pb_tensor *x;
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        bool vector = pb_weight_is_vector(s);
        PB_GO(pb_weight_name(name, s));
        if (t)
            PB_GO(pb_tensors_need(t, name, vector ? s->cols : s->rows, vector ? 0 : s->cols, &x));
        if (s->rows * s->cols > largest)
            largest = s->rows * s->cols;
    }
    bool trainable = args->trainable, transposed = args->gradients || trainable;
    pb_arena measure = {.name = "model"};
    place(m, &measure, transposed, trainable, false);
    PB_GO(pb_arena_init(&m->memory, "model", measure.peak + 64));
    place(m, &m->memory, transposed, trainable, true);
    rows = malloc(largest * sizeof *rows);
    bias = malloc((config->width + pb_q_width(config) + pb_kv_width(config) + config->ffn) *
                  sizeof *bias);
    init.v = t ? NULL : malloc(m->layout.size * sizeof(real));
    if (!rows || !bias || (!t && !init.v)) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for a tensor of %zu values", largest);
        goto done;
    }
    if (!t) {
        init.layout = &m->layout;
        pb_params_init(&init, seed);
    }
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        size_t n = s->rows * s->cols;
        if (t) {
            PB_GO(pb_weight_name(name, s));
            x = pb_tensors_find(t, name);
            pb_tensor_read(x, 0, n, rows);
            for (size_t k = 0; k < n; k++)
                if (!isfinite(rows[k])) {
                    err = pb_fail(PB_INPUT, NULL, "tensor \"%s\" has the value %g at %zu", name,
                                  (double)rows[k], k);
                    goto done;
                }
        } else {
            memcpy(rows, init.v + s->offset, n * sizeof *rows);
        }
        PB_GO(identify(&sha, s, t ? x : NULL, rows));
        const pb_spec *b = NULL;
        if (s->id >= W_LINEAR && s->id < W_BIAS && has_bias(config, s->id - W_LINEAR))
            b = pb_layout_find(&m->layout, (size_t)s->layer, s->id - W_LINEAR + W_BIAS);
        if (b && t) {
            PB_GO(pb_weight_name(name, b));
            pb_tensor_read(pb_tensors_find(t, name), 0, b->cols, bias);
        } else if (b) {
            memset(bias, 0, b->cols * sizeof *bias);
        }
        PB_GO(put(m, s, rows, b ? bias : NULL, args));
        if (t)
            pb_tensors_release(x);
        if (b && m->params.v) // a merged bias
            memcpy(m->params.v + b->offset, bias, b->cols * sizeof *bias);
    }
    SHA256End(&sha, m->sha256);
    if (trainable)
        pb_model_repack(m);
    pb_config_inv_freq(config, m->inv_freq);
done:
    free(rows);
    free(bias);
    free(init.v);
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

static const real *weight_values(const pb_model *m, const pb_spec *s, real *tmp)
{
    if (m->params.v)
        return m->params.v + s->offset;
    const pb_layer *l = s->layer >= 0 ? &m->layer[s->layer] : NULL;
    switch (s->id) {
    case W_EMBED:
        return m->embed;
    case W_NORM:
        return m->norm.v;
    default:
        if (s->id >= W_NORMS && s->id < W_LINEAR)
            return l->norm[s->id - W_NORMS].v;
        if (s->id >= W_BIAS)
            return l->lin[s->id - W_BIAS].bias;
        const pb_weight *w = s->id == W_HEAD ? &m->head : &l->lin[s->id - W_LINEAR];
        pb_unpack(tmp, w->panels, w->out, w->in);
        return tmp;
    }
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
