// Adapters: values, folding, files.
#include "model/adapter.h"

#include "core/file.h"
#include "model/compose.h"
#include "model/forward.h"
#include "model/peft.h"
#include "tensor/layers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- linears and methods

static const char *const paths[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                    "mlp.down_proj"};

const char *pb_linear_path(pb_linear_id l)
{
    return paths[l];
}

size_t pb_linear_in(const pb_config *c, pb_linear_id l)
{
    return l == PB_LIN_O ? pb_q_width(c) : l == PB_LIN_DOWN ? c->ffn : c->width;
}

size_t pb_linear_out(const pb_config *c, pb_linear_id l)
{
    switch (l) {
    case PB_LIN_Q:
        return pb_q_width(c);
    case PB_LIN_K:
    case PB_LIN_V:
        return pb_kv_width(c);
    case PB_LIN_GATE:
    case PB_LIN_UP:
        return c->ffn;
    default:
        return c->width;
    }
}

bool pb_linear_has_bias(const pb_config *c, pb_linear_id l)
{
    return l < PB_LIN_O ? c->qkv_bias : l == PB_LIN_O ? c->o_bias : c->mlp_bias;
}

pb_linear_id pb_site_linear(pb_site s)
{
    switch (s) {
    case PB_SITE_Q:
        return PB_LIN_Q;
    case PB_SITE_K:
        return PB_LIN_K;
    case PB_SITE_V:
        return PB_LIN_V;
    case PB_SITE_O:
        return PB_LIN_O;
    case PB_SITE_GATE:
        return PB_LIN_GATE;
    case PB_SITE_UP:
        return PB_LIN_UP;
    case PB_SITE_DOWN:
        return PB_LIN_DOWN;
    default:
        return PB_N_LINEARS;
    }
}

pb_linear_id pb_site_input(pb_site s)
{
    switch (s) {
    case PB_SITE_Q_IN:
        return PB_LIN_Q;
    case PB_SITE_K_IN:
        return PB_LIN_K;
    case PB_SITE_V_IN:
        return PB_LIN_V;
    case PB_SITE_O_IN:
        return PB_LIN_O;
    case PB_SITE_GATE_IN:
        return PB_LIN_GATE;
    case PB_SITE_UP_IN:
        return PB_LIN_UP;
    case PB_SITE_MID:
        return PB_LIN_DOWN;
    default:
        return PB_N_LINEARS;
    }
}

// ---------------------------------------------------------------- values

static size_t padded_len(const pb_adapter *a)
{
    return (a->prefix_len + PB_NR - 1) / PB_NR * PB_NR;
}

pb_err pb_adapter_new(pb_adapter **out, const pb_method *m, const void *options,
                      const pb_config *config, bool trainable)
{
    pb_err err = PB_OK;
    pb_adapter *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a)
        return pb_fail(PB_MEMORY, NULL, "no memory for an adapter");
    a->method = m;
    a->config = *config;
    a->options = malloc(m->options_size ? m->options_size : 1);
    if (!a->options) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for an adapter");
        goto done;
    }
    memcpy(a->options, options, m->options_size);
    if (m->prepare)
        PB_GO(m->prepare(a->options, config));
    if (m->layout)
        PB_GO(m->layout(&a->layout, a->options, config));
    PB_GO(pb_layout_finish(&a->layout, config->layers));
    a->prefix_len = m->prefix_len ? m->prefix_len(a->options) : 0;
    a->state = m->state ? m->state(a->options, config) : 0;
    if (m->prompt_prefix)
        a->state += padded_len(a) * pb_kv_width(config);
    size_t n = a->layout.size ? a->layout.size : 16;
    if (n > SIZE_MAX / 64 ||
        posix_memalign((void **)&a->block, 64, n * (trainable ? 2 : 1) * sizeof(real))) {
        a->block = NULL;
        err = pb_fail(PB_MEMORY, "choose a smaller adapter", "no memory for %zu adapter values", n);
        goto done;
    }
    memset(a->block, 0, n * (trainable ? 2 : 1) * sizeof(real));
    a->params = (pb_params){&a->layout, a->options, a->block, trainable ? a->block + n : NULL};
done:
    if (err)
        pb_adapter_free(a);
    else
        *out = a;
    return err;
}

void pb_adapter_free(pb_adapter *a)
{
    if (!a)
        return;
    pb_layout_free(&a->layout);
    free(a->options);
    free(a->block);
    free(a->prefix);
    free(a->prefix_kv);
    free(a->prefix_block);
    free(a);
}

pb_err pb_adapter_init(pb_adapter *a, const pb_model *m, uint64_t seed, size_t n_text,
                       const real *text_x, const real *text_k, const real *text_v)
{
    pb_params_init(&a->params, seed);
    pb_init_args args = {.config = &a->config,
                         .backbone = m,
                         .seed = seed,
                         .n_text = n_text,
                         .text_x = text_x,
                         .text_k = text_k,
                         .text_v = text_v};
    return a->method->init ? a->method->init(&a->params, &args) : PB_OK;
}

pb_err pb_adapter_folded(pb_adapter **out, const pb_adapter *a)
{
    pb_err err;
    const pb_method *m = a->method;
    void *options = malloc(m->options_size ? m->options_size : 1);
    if (!options)
        return pb_fail(PB_MEMORY, NULL, "no memory for an adapter");
    memcpy(options, a->options, m->options_size);
    bool folded = m->fold && m->fold(options);
    PB_GO(pb_adapter_new(out, m, options, &a->config, false));
    (*out)->folded = folded;
    pb_adapter_made_for(*out, a->base, a->base_sha256);
    pb_adapter_refresh(*out, a);
done:
    free(options);
    return err;
}

void pb_adapter_refresh(pb_adapter *f, const pb_adapter *a)
{
    if (f->folded)
        a->method->fold_values(&f->params, &a->params, &a->config);
    else
        memcpy(f->params.v, a->params.v, a->layout.size * sizeof(real));
}

pb_err pb_adapter_derive(pb_adapter *a, const pb_model *m)
{
    return a->method->derive ? a->method->derive(&a->params, m) : PB_OK;
}

// Puts a layer's keys and values, (n, KVH*D) each, where steps look for them.
static void pack_prefix(pb_adapter *a, size_t l, const pb_mat *k, const pb_mat *v)
{
    size_t n = a->prefix_len, kv = pb_kv_width(&a->config);
    real *panels = a->prefix_block + l * (padded_len(a) + n) * kv;
    real *rows = panels + padded_len(a) * kv;
    pb_pack_keys(panels, k, a->config.kv_heads, a->config.head_dim);
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * kv, v->v + i * v->ld, kv * sizeof(real));
    a->prefix_kv[2 * l] = (pb_mat){.rows = n, .cols = kv, .ld = kv};
    a->prefix_kv[2 * l + 1] = (pb_mat){.v = rows, .rows = n, .cols = kv, .ld = kv};
    a->prefix[l] = (pb_prefix){n, panels, &a->prefix_kv[2 * l], &a->prefix_kv[2 * l + 1], false};
}

static pb_err serve_virtual(pb_adapter *a, const pb_model *m)
{
    size_t n = a->prefix_len, kv = pb_kv_width(&a->config), L = a->config.layers;
    real *k = malloc(2 * L * n * kv * sizeof *k), *v = k + L * n * kv;
    if (!k)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu virtual tokens", n);
    pb_err err = pb_virtual_kv(m, a, k, v);
    for (size_t l = 0; l < L && !err; l++)
        pack_prefix(a, l, &(pb_mat){.v = k + l * n * kv, .rows = n, .cols = kv, .ld = kv},
                    &(pb_mat){.v = v + l * n * kv, .rows = n, .cols = kv, .ld = kv});
    free(k);
    return err;
}

static pb_err serve_prefix(pb_adapter *a)
{
    pb_err err = PB_OK;
    size_t kv = pb_kv_width(&a->config);
    pb_arena arena = {0}, heads = {0};
    PB_GO(pb_arena_init(&heads, "prefix headers", (size_t)1 << 20));
    pb_ctx c = {.heads = &heads, .arena = &arena, .k = pb_kernels_get(), .threads = 1};
    c.tenant = &a->params;
    c.method = a->method->name;
    c.hook = "prefix";
    // Once dry for the size, once for the values.
    for (int dry = 1; dry >= 0; dry--) {
        size_t need = arena.peak;
        PB_GO(pb_arena_init(&arena, "prefix", dry ? 0 : need + 64));
        c.dry = dry;
        for (size_t l = 0; l < a->config.layers; l++) {
            pb_mat *k, *v;
            size_t mark = pb_mark(&arena);
            c.layer = l;
            k = v = NULL;
            a->method->prefix(&c, a->options, &k, &v);
            if (!k || !v || k->rows != a->prefix_len || v->rows != a->prefix_len || k->cols != kv ||
                v->cols != kv)
                pb_wrong(&c,
                         "k and v are not (%zu,%zu) both, as `prefix_len` and the backbone "
                         "want",
                         a->prefix_len, kv);
            if (*c.wrong)
                PB_GO(pb_fail(PB_INTERNAL, "compare `layout` with what the hook does", "%s",
                              c.wrong));
            if (!dry)
                pack_prefix(a, l, k, v);
            pb_release(&arena, mark);
        }
    }
done:
    pb_arena_free(&arena);
    pb_arena_free(&heads);
    return err;
}

pb_err pb_adapter_serve(pb_adapter *a, const pb_model *m)
{
    size_t L = a->config.layers, size = L * (padded_len(a) + a->prefix_len);
    PB_TRY(pb_adapter_derive(a, m));
    if (!a->prefix_len || a->method->prompt_prefix)
        return PB_OK;
    if (!a->prefix) {
        a->prefix = calloc(L, sizeof *a->prefix);
        a->prefix_kv = calloc(2 * L, sizeof *a->prefix_kv);
        if (!a->prefix || !a->prefix_kv ||
            posix_memalign((void **)&a->prefix_block, 64,
                           size * pb_kv_width(&a->config) * sizeof(real)))
            return pb_fail(PB_MEMORY, NULL, "no memory for a prefix of %zu", a->prefix_len);
    }
    return a->method->virtual_tokens ? serve_virtual(a, m) : serve_prefix(a);
}

pb_err pb_adapter_mergeable(const pb_adapter *a)
{
    if (!a->method->merge)
        return pb_fail(PB_UNSUPPORTED, "serve it with --adapter",
                       "method %s cannot be merged into a model's weights", a->method->name);
    return a->method->mergeable ? a->method->mergeable(a->options, &a->config) : PB_OK;
}

pb_err pb_adapter_merge(const pb_adapter *a, const pb_merge_args *args)
{
    const pb_method *m = a->method;
    PB_TRY(pb_adapter_mergeable(a));
    PB_TRY(m->merge(&a->params, args));
    return m->merge_input ? m->merge_input(&a->params, args) : PB_OK;
}

pb_err pb_adapter_same_shape(const pb_adapter *a, const pb_adapter *b)
{
    const pb_layout *x = &a->layout, *y = &b->layout;
    if (a->method != b->method)
        return pb_fail(PB_INPUT, NULL, "its method is %s, not %s", a->method->name,
                       b->method->name);
    bool same = pb_options_same_group(a->method, a->options, b->options) && x->n == y->n &&
                a->prefix_len == b->prefix_len && a->state == b->state;
    for (size_t i = 0; i < x->n && same; i++)
        same = x->spec[i].layer == y->spec[i].layer && x->spec[i].id == y->spec[i].id &&
               x->spec[i].rows == y->spec[i].rows && x->spec[i].cols == y->spec[i].cols;
    return same ? PB_OK
                : pb_fail(PB_INPUT, NULL, "its options or sizes are not those expected of it");
}

size_t pb_adapter_resident(const pb_adapter *a)
{
    size_t packed = a->method->prompt_prefix ? 0
                                             : a->config.layers * (padded_len(a) + a->prefix_len) *
                                                   pb_kv_width(&a->config) * sizeof(real);
    return sizeof *a + a->method->options_size + a->layout.size * sizeof(real) + packed +
           a->layout.n * sizeof *a->layout.spec;
}

// ---------------------------------------------------------------- files

void pb_adapter_made_for(pb_adapter *a, const char *name, const char *sha256)
{
    snprintf(a->base, sizeof a->base, "%s", name ? name : "");
    snprintf(a->base_sha256, sizeof a->base_sha256, "%s", sha256 ? sha256 : "");
}

pb_err pb_adapter_key(char *out, size_t size, const pb_spec *s)
{
    if (s->layer == PB_GLOBAL)
        return pb_path(out, size, "%s", s->name);
    return pb_path(out, size, "base_model.model.model.layers.%d.%s", s->layer, s->name);
}

static void transpose(real *to, const real *from, size_t rows, size_t cols)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < cols; k++)
            to[k * rows + i] = from[i * cols + k];
}

// The values of a matrix in the order of files: (rows,cols), or its transpose.
static const real *file_order(const pb_adapter *a, const pb_spec *s, real *tmp)
{
    const real *v = a->params.v + s->offset;
    if (!(s->flags & PB_TRANSPOSED))
        return v;
    transpose(tmp, v, s->rows, s->cols);
    return tmp;
}

static pb_err save_parts(const pb_adapter *a, const char *folder)
{
    char path[4096];
    json_t *cfg;
    for (size_t i = 0; i < pb_parts_count(a->method); i++) {
        pb_adapter *one;
        PB_TRY(pb_path(path, sizeof path, "%s/%s", folder, pb_part(a->method, i)->name));
        PB_TRY(pb_adapter_part(&one, a, i));
        pb_err err = pb_adapter_save(one, path);
        pb_adapter_free(one);
        PB_TRY(err);
    }
    PB_TRY(pb_peft_write(&cfg, a));
    pb_err err = pb_path(path, sizeof path, "%s/adapter_config.json", folder);
    if (!err)
        err = pb_json_save(cfg, path);
    json_decref(cfg);
    return err;
}

static pb_err save(const pb_adapter *a, const char *folder)
{
    if (a->method->parts)
        return save_parts(a, folder);
    pb_err err = PB_OK;
    char path[4096];
    json_t *cfg = NULL;
    pb_tensor_out *out = calloc(a->layout.n + 1, sizeof *out);
    char(*names)[256] = calloc(a->layout.n + 1, sizeof *names);
    real *tmp = malloc((a->layout.size + 1) * sizeof *tmp);
    size_t n = 0;
    if (!out || !names || !tmp) {
        err = pb_fail(PB_MEMORY, NULL, "no memory to save an adapter");
        goto done;
    }
    PB_GO(pb_make_dirs(folder));
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        bool t = s->flags & PB_TRANSPOSED;
        if (s->flags & PB_UNSAVED)
            continue;
        PB_GO(pb_adapter_key(names[n], sizeof *names, s));
        out[n] = (pb_tensor_out){.name = names[n], .dtype = PB_F32, .n_dims = 2};
        out[n].shape[0] = t ? s->cols : s->rows;
        out[n].shape[1] = t ? s->rows : s->cols;
        if (s->flags & PB_VECTOR)
            out[n].n_dims = 1, out[n].shape[0] = s->cols;
        out[n++].data = file_order(a, s, tmp + s->offset);
    }
    PB_GO(pb_peft_write(&cfg, a));
    PB_GO(pb_path(path, sizeof path, "%s/adapter_model.safetensors", folder));
    const char *meta[] = {"format", "pt", NULL};
    PB_GO(pb_tensors_write(path, out, n, meta));
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", folder));
    PB_GO(pb_json_save(cfg, path));
done:
    json_decref(cfg);
    free(out);
    free(names);
    free(tmp);
    return err;
}

pb_err pb_adapter_save(const pb_adapter *a, const char *folder)
{
    const pb_method *m = a->method;
    pb_adapter *small = NULL;
    void *options = malloc(m->options_size + 1);
    if (!options)
        return pb_fail(PB_MEMORY, NULL, "no memory to save an adapter");
    memcpy(options, a->options, m->options_size);
    pb_err err = PB_OK;
    if (m->trim && m->trim(options, &a->params)) {
        PB_GO(pb_adapter_new(&small, m, options, &a->config, false));
        pb_adapter_made_for(small, a->base, a->base_sha256);
        m->fold_values(&small->params, &a->params, &a->config);
    }
    err = save(small ? small : a, folder);
done:
    pb_adapter_free(small);
    free(options);
    return err;
}

// Reads one matrix: it is there, has its shape, and its values are finite.
static pb_err read_values(pb_adapter *a, const pb_spec *s, const pb_tensors *t, real *tmp)
{
    char key[256];
    const pb_tensor *x;
    bool turned = s->flags & PB_TRANSPOSED;
    real *v = a->params.v + s->offset;
    PB_TRY(pb_adapter_key(key, sizeof key, s));
    if (s->flags & PB_VECTOR)
        PB_TRY(pb_tensors_need(t, key, s->cols, 0, &x));
    else
        PB_TRY(pb_tensors_need(t, key, turned ? s->cols : s->rows, turned ? s->rows : s->cols, &x));
    pb_tensor_read(x, 0, x->count, turned ? tmp : v);
    if (turned)
        transpose(v, tmp, s->cols, s->rows);
    for (size_t k = 0; k < x->count; k++)
        if (!isfinite(v[k]))
            return pb_fail(PB_INPUT, NULL, "tensor \"%s\" has the value %g", key, (double)v[k]);
    return PB_OK;
}

static pb_err find_unexpected(const pb_layout *l, const pb_tensors *t)
{
    char key[256];
    for (size_t i = 0; i < pb_tensors_count(t); i++) {
        const char *name = pb_tensors_at(t, i)->name;
        bool known = !pb_tensors_at(t, i)->count; // of a linear that was pruned away
        for (size_t k = 0; k < l->n && !known; k++) {
            if (l->spec[k].flags & PB_UNSAVED)
                continue;
            PB_TRY(pb_adapter_key(key, sizeof key, &l->spec[k]));
            known = !strcmp(key, name);
        }
        if (!known)
            return pb_fail(PB_INPUT, "is adapter_config.json of another adapter?",
                           "tensor \"%.200s\" is no part of the adapter that adapter_config.json "
                           "describes",
                           name);
    }
    return PB_OK;
}

pb_err pb_adapter_read(pb_adapter **out, const json_t *file, const pb_tensors *t,
                       const pb_config *config, const char *sha256)
{
    pb_err err = PB_OK;
    const pb_method *m;
    void *options = NULL;
    real *tmp = NULL;
    const char *name = NULL, *made_for = NULL;
    *out = NULL;
    PB_GO(pb_peft_read(&m, &options, file, config, sha256));
    err = pb_adapter_new(out, m, options, config, false);
    if (err == PB_USAGE) // impossible options, but not on the command line
        err = PB_INPUT;
    PB_GO(err);
    pb_adapter *a = *out;
    const json_t *own = json_object_get(json_object_get(file, "pedrobench"), "backbone");
    PB_GO(pb_json_opt_str(file, "base_model_name_or_path", &name));
    PB_GO(pb_json_opt_str(own, "sha256", &made_for));
    pb_adapter_made_for(a, name, made_for ? made_for : sha256);
    tmp = malloc((a->layout.size + 1) * sizeof *tmp);
    if (!tmp)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory to load an adapter"));
    size_t saved = 0;
    for (size_t i = 0; i < a->layout.n; i++)
        if (!(a->layout.spec[i].flags & PB_UNSAVED)) {
            PB_GO(read_values(a, &a->layout.spec[i], t, tmp));
            saved++;
        }
    if (pb_tensors_count(t) != saved)
        PB_GO(find_unexpected(&a->layout, t));
    err = pb_adapter_derive(a, NULL);
done:
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
    }
    free(options);
    free(tmp);
    return err;
}

pb_err pb_adapter_weights(pb_tensors **t, const char *folder)
{
    char path[4096], pickle[4096];
    PB_TRY(pb_path(path, sizeof path, "%s/adapter_model.safetensors", folder));
    PB_TRY(pb_path(pickle, sizeof pickle, "%s/adapter_model.bin", folder));
    if (!pb_exists(path) && pb_exists(pickle))
        return pb_fail(PB_UNSUPPORTED,
                       "in Python: safetensors.torch.save_file(torch.load(\"adapter_model.bin\"), "
                       "\"adapter_model.safetensors\")",
                       "adapter_model.bin is a Python pickle, which is a program, not data");
    return pb_tensors_open(t, path);
}

// The adapters of a composition's folder, named by "parts", together.
static pb_err load_parts(pb_adapter **out, const char *folder, const json_t *file,
                         const pb_config *config, const char *sha256)
{
    pb_err err = PB_OK;
    const json_t *names = json_object_get(file, "parts");
    size_t n = json_array_size(names);
    pb_adapter **part = calloc(n + 1, sizeof *part);
    if (!part)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu adapters", n);
    for (size_t i = 0; i < n; i++) {
        char path[4096];
        const char *name = json_string_value(json_array_get(names, i));
        if (!name || !*name || *name == '.' || strchr(name, '/'))
            PB_GO(pb_fail(PB_INPUT, "as in [\"lora\", \"prefix\"]",
                          "\"parts\" must list names of folders beside it"));
        PB_GO(pb_path(path, sizeof path, "%s/%s", folder, name));
        PB_GO(pb_adapter_load(&part[i], path, config, sha256));
    }
    if (n < 2)
        PB_GO(pb_fail(PB_INPUT, "as in [\"lora\", \"prefix\"]",
                      "\"parts\" must list two adapters or more"));
    PB_GO(pb_adapter_compose(out, part, n));
done:
    for (size_t i = 0; i < n; i++)
        pb_adapter_free(part[i]);
    free(part);
    return err == PB_USAGE ? PB_INPUT : err;
}

bool pb_peft_is_composition(const json_t *file)
{
    const char *type = json_string_value(json_object_get(file, "peft_type"));
    return type && !strcmp(type, PB_COMPOSITION);
}

pb_err pb_adapter_load(pb_adapter **out, const char *folder, const pb_config *config,
                       const char *sha256)
{
    pb_err err = PB_OK;
    char path[4096];
    json_t *file = NULL;
    pb_tensors *t = NULL;
    *out = NULL;
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", folder));
    PB_GO(pb_json_load(&file, path));
    if (pb_peft_is_composition(file)) {
        PB_GO(load_parts(out, folder, file, config, sha256));
        goto done;
    }
    PB_GO(pb_adapter_weights(&t, folder));
    err = pb_adapter_read(out, file, t, config, sha256);
done:
    json_decref(file);
    pb_tensors_close(t);
    return err ? pb_context(err, "adapter %s", folder) : PB_OK;
}

pb_err pb_adapter_trainable(pb_adapter **out, const pb_adapter *a, const void *options)
{
    PB_TRY(pb_adapter_new(out, a->method, options ? options : a->options, &a->config, true));
    const pb_layout *l = &(*out)->layout;
    bool same = l->n == a->layout.n;
    for (size_t i = 0; i < l->n && same; i++) {
        const pb_spec *x = &l->spec[i], *y = &a->layout.spec[i];
        same = x->layer == y->layer && x->id == y->id && x->rows == y->rows && x->cols == y->cols;
    }
    if (!same) {
        pb_adapter_free(*out);
        *out = NULL;
        return pb_fail(PB_USAGE, "its size and targets are given",
                       "these options change the parameters of the adapter to start from");
    }
    memcpy((*out)->params.v, a->params.v, l->size * sizeof(real));
    pb_adapter_made_for(*out, a->base, a->base_sha256);
    return PB_OK;
}
