// Loading, packing, merging and saving of backbones.
#include "model/model.h"

#include "core/file.h"
#include "core/hash.h"
#include "model/llama2c.h"
#include "model/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sha2.h>

enum { W_EMBED, W_NORM, W_HEAD, W_NORM1, W_NORM2, W_LINEAR, W_BIAS = W_LINEAR + PB_N_LINEARS };

static pb_err full_name(char out[160], const pb_spec *s)
{
    return s->layer == PB_GLOBAL ? pb_path(out, 160, "%s", s->name)
                                 : pb_path(out, 160, "model.layers.%d.%s", s->layer, s->name);
}

// Every weight with its name in files and its initialisation; vectors are (1,n).
static pb_err layout_of(pb_layout *l, const pb_config *c)
{
    char name[104];
    size_t C = c->width;
    pb_layout_add(l, PB_GLOBAL, W_EMBED, "model.embed_tokens.weight", c->vocab, C, PB_INIT_NORMAL,
                  0.02, 0);
    for (int i = 0; i < (int)c->layers; i++) {
        pb_layout_add(l, i, W_NORM1, "input_layernorm.weight", 1, C, PB_INIT_ONE, 0, PB_NO_DECAY);
        pb_layout_add(l, i, W_NORM2, "post_attention_layernorm.weight", 1, C, PB_INIT_ONE, 0,
                      PB_NO_DECAY);
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            bool output = t == PB_LIN_O || t == PB_LIN_DOWN;
            snprintf(name, sizeof name, "%s.weight", pb_linear_path(id));
            pb_layout_add(l, i, W_LINEAR + t, name, pb_linear_out(c, id), pb_linear_in(c, id),
                          PB_INIT_NORMAL, output ? 0.02 / sqrt(2.0 * (double)c->layers) : 0.02, 0);
            if (c->attention_bias && t <= PB_LIN_V) {
                snprintf(name, sizeof name, "%s.bias", pb_linear_path(id));
                pb_layout_add(l, i, W_BIAS + t, name, 1, pb_linear_out(c, id), PB_INIT_ZERO, 0,
                              PB_NO_DECAY);
            }
        }
    }
    pb_layout_add(l, PB_GLOBAL, W_NORM, "model.norm.weight", 1, C, PB_INIT_ONE, 0, PB_NO_DECAY);
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
    real *norms = trainable ? NULL : PB_NEW(a, real, (2 * c->layers + 1) * C);
    if (real_memory) {
        m->inv_freq = freq;
        m->layer = layers;
        m->embed = embed;
        m->dembed = d;
        memset(layers, 0, c->layers * sizeof *layers);
        m->norm = (pb_vector){norms ? norms + 2 * c->layers * C : NULL, NULL};
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
            real *bias = !head && c->attention_bias && t <= PB_LIN_V && !trainable
                             ? PB_NEW(a, real, out)
                             : NULL;
            w.bias = bias;
            if (!real_memory)
                continue;
            if (head) {
                m->head = w;
            } else {
                layers[i].lin[t] = w;
                if (norms) {
                    layers[i].norm1.v = norms + 2 * i * C;
                    layers[i].norm2.v = norms + (2 * i + 1) * C;
                }
            }
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
        } else if (s->id == W_NORM1) {
            l->norm1 = (pb_vector){sv, sd};
        } else if (s->id == W_NORM2) {
            l->norm2 = (pb_vector){sv, sd};
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
    } else if (s->id == W_NORM || s->id == W_NORM1 || s->id == W_NORM2) {
        const real *to = s->id == W_NORM ? m->norm.v : s->id == W_NORM1 ? l->norm1.v : l->norm2.v;
        memcpy((real *)to, rows, C * sizeof *rows);
    } else if (s->id < W_BIAS) {
        pb_weight *w = &l->lin[s->id - W_LINEAR];
        pack(w, rows);
        if (bias)
            memcpy((real *)w->bias, bias, s->rows * sizeof *bias);
    }
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
    PB_GO(layout_of(&m->layout, config));
    // Names and shapes are checked before memory is spent.
    size_t largest = 0;
    char name[160];
    const pb_tensor *x;
    for (size_t i = 0; i < m->layout.n; i++) {
        const pb_spec *s = &m->layout.spec[i];
        bool vector = s->id == W_NORM || s->id == W_NORM1 || s->id == W_NORM2 || s->id >= W_BIAS;
        PB_GO(full_name(name, s));
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
    bias = malloc((config->width + pb_q_width(config) + pb_kv_width(config)) * sizeof *bias);
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
            PB_GO(full_name(name, s));
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
        SHA256Update(&sha, (const uint8_t *)rows, n * sizeof *rows);
        const pb_spec *b = NULL;
        if (s->id >= W_LINEAR && s->id < W_BIAS && config->attention_bias &&
            s->id - W_LINEAR <= PB_LIN_V)
            b = pb_layout_find(&m->layout, (size_t)s->layer, s->id - W_LINEAR + W_BIAS);
        if (b && t) {
            PB_GO(full_name(name, b));
            pb_tensor_read(pb_tensors_find(t, name), 0, b->cols, bias);
        } else if (b) {
            memset(bias, 0, b->cols * sizeof *bias);
        }
        PB_GO(put(m, s, rows, b ? bias : NULL, args));
        if (b && m->params.v) // a merged bias
            memcpy(m->params.v + b->offset, bias, b->cols * sizeof *bias);
    }
    SHA256End(&sha, m->sha256);
    if (trainable)
        pb_model_repack(m);
    for (size_t k = 0; k < config->head_dim / 2; k++)
        m->inv_freq[k] = pow(config->rope_theta, -2.0 * (double)k / (double)config->head_dim);
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

// The pieces of a model at a path: a folder, or a llama2.c file.
static pb_err open_parts(pb_tensors **t, pb_config *c, const char *path)
{
    char file[4096];
    pb_err err = PB_OK;
    json_t *j = NULL;
    if (!pb_is_dir(path)) {
        if (!pb_exists(path))
            return pb_fail(PB_IO, "give a model folder or a llama2.c checkpoint",
                           "there is no model at %s", path);
        PB_TRY(pb_llama2c_open(t, c, path));
        return pb_path(c->tokenizer, sizeof c->tokenizer, "tokenizer.bin");
    }
    PB_GO(pb_path(file, sizeof file, "%s/config.json", path));
    PB_GO(pb_json_load(&j, file));
    PB_GO(pb_config_from_json(c, j));
    if (t) {
        PB_GO(pb_path(file, sizeof file, "%s/model.safetensors", path));
        PB_GO(pb_tensors_open(t, file));
    }
done:
    json_decref(j);
    return err ? pb_context(err, "model %s", path) : PB_OK;
}

pb_err pb_model_config(pb_config *c, const char *path)
{
    pb_tensors *t = NULL;
    PB_TRY(open_parts(pb_is_dir(path) ? NULL : &t, c, path));
    pb_tensors_close(t);
    return PB_OK;
}

pb_err pb_model_open(pb_model **out, const char *path, const pb_model_args *args)
{
    pb_err err = PB_OK;
    pb_tensors *t = NULL;
    pb_config c = {0};
    char file[4096];
    *out = NULL;
    PB_GO(open_parts(&t, &c, path));
    err = build(out, &c, t, 0, args);
    if (err) {
        (void)pb_context(err, "model %s", path);
        goto done;
    }
    PB_GO(pb_path((*out)->source, sizeof(*out)->source, "%s", path));
    if (!strcmp(c.tokenizer, "bytes")) {
        PB_GO(pb_tokenizer_open(&(*out)->tokenizer, "bytes", c.vocab));
    } else if (*c.tokenizer) {
        const char *slash = strrchr(path, '/');
        if (pb_is_dir(path))
            PB_GO(pb_path(file, sizeof file, "%s/%s", path, c.tokenizer));
        else
            PB_GO(pb_path(file, sizeof file, "%.*s%s", slash ? (int)(slash - path + 1) : 0, path,
                          c.tokenizer));
        if (pb_exists(file) || pb_is_dir(path))
            PB_GO(pb_tokenizer_open(&(*out)->tokenizer, file, c.vocab));
    }
done:
    pb_tensors_close(t);
    if (err) {
        pb_model_close(*out);
        *out = NULL;
    }
    return err;
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
    case W_NORM1:
        return l->norm1.v;
    case W_NORM2:
        return l->norm2.v;
    default:
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
        bool vector = s->rows == 1;
        PB_GO(full_name(names[i], s));
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
