// Adapters: options, values, files, folding.
#include "model/adapter.h"

#include "core/file.h"
#include "core/log.h"
#include "model/tensors.h"
#include "tensor/layers.h"

#include <errno.h>
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

const pb_method *pb_method_find(const char *name)
{
    char known[512] = "";
    for (size_t i = 0; pb_methods[i]; i++) {
        if (!strcmp(pb_methods[i]->name, name))
            return pb_methods[i];
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", pb_methods[i]->name);
    }
    char hint[600];
    snprintf(hint, sizeof hint, "methods are %s", known);
    (void)pb_fail(PB_USAGE, hint, "there is no method \"%s\"", name);
    return NULL;
}

// ---------------------------------------------------------------- options

static const pb_option *option_find(const pb_method *m, const char *name)
{
    for (const pb_option *o = m->options; o->name; o++)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

static void *field(const void *options, const pb_option *o)
{
    return (char *)options + o->offset;
}

static int name_index(const pb_option *o, const char *s, size_t len)
{
    for (int i = 0; o->names[i]; i++)
        if (strlen(o->names[i]) == len && !strncmp(o->names[i], s, len))
            return i;
    return -1;
}

static const char *list_names(const pb_option *o, char *out, size_t size)
{
    size_t n =
        (size_t)snprintf(out, size, "use %s", o->type == PB_OPT_FLAGS ? "any of " : "one of ");
    for (int i = 0; o->names[i] && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", o->names[i]);
    return out;
}

pb_err pb_options_set(const pb_method *m, void *options, const char *name, const char *value)
{
    char hint[400];
    const pb_option *o = option_find(m, name);
    if (!o) {
        size_t n = 0;
        hint[0] = 0;
        for (const pb_option *k = m->options; k->name && n < sizeof hint; k++)
            n +=
                (size_t)snprintf(hint + n, sizeof hint - n, "%s%s", n ? ", " : "it has: ", k->name);
        return pb_fail(PB_USAGE, *hint ? hint : "it has no options",
                       "method %s has no option \"%s\"", m->name, name);
    }
    char *end = NULL;
    errno = 0;
    switch (o->type) {
    case PB_OPT_INT: {
        long v = strtol(value, &end, 10);
        snprintf(hint, sizeof hint, "%g..%g are possible", o->min, o->max);
        if (errno || end == value || *end || (double)v < o->min || (double)v > o->max)
            return pb_fail(PB_USAGE, hint, "%s: %s=%s is not a possible integer", m->name, name,
                           value);
        *(long *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_REAL: {
        double v = strtod(value, &end);
        snprintf(hint, sizeof hint, "%g..%g are possible", o->min, o->max);
        if (end == value || *end || !(v >= o->min && v <= o->max))
            return pb_fail(PB_USAGE, hint, "%s: %s=%s is not a possible number", m->name, name,
                           value);
        *(double *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_BOOL:
        if (strcmp(value, "true") && strcmp(value, "false"))
            return pb_fail(PB_USAGE, "use true or false", "%s: %s=%s", m->name, name, value);
        *(bool *)field(options, o) = value[0] == 't';
        return PB_OK;
    case PB_OPT_ENUM: {
        int v = name_index(o, value, strlen(value));
        if (v < 0)
            return pb_fail(PB_USAGE, list_names(o, hint, sizeof hint), "%s: %s=%s", m->name, name,
                           value);
        *(int *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_FLAGS: {
        unsigned set = 0;
        for (const char *s = value; *s;) {
            size_t len = strcspn(s, ",");
            int v = name_index(o, s, len);
            if (v < 0)
                return pb_fail(PB_USAGE, list_names(o, hint, sizeof hint), "%s: %s=%s has \"%.*s\"",
                               m->name, name, value, (int)len, s);
            set |= 1u << v;
            s += len + (s[len] == ',');
        }
        *(unsigned *)field(options, o) = set;
        return PB_OK;
    }
    }
    return PB_OK;
}

pb_err pb_options_new(void **out, const pb_method *m)
{
    *out = calloc(1, m->options_size ? m->options_size : 1);
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "no memory for the options of %s", m->name);
    for (const pb_option *o = m->options; o->name; o++) {
        pb_err err = pb_options_set(m, *out, o->name, o->def);
        if (err) {
            free(*out);
            *out = NULL;
            return err;
        }
    }
    return PB_OK;
}

pb_err pb_options_from_json(const pb_method *m, void *options, const json_t *obj)
{
    const char *key;
    json_t *v;
    if (!obj)
        return PB_OK;
    if (!json_is_object(obj))
        return pb_fail(PB_INPUT, NULL, "the options of %s must be a JSON object", m->name);
    json_object_foreach((json_t *)obj, key, v)
    {
        char text[256];
        if (json_is_string(v))
            snprintf(text, sizeof text, "%s", json_string_value(v));
        else if (json_is_integer(v))
            snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        else if (json_is_real(v))
            snprintf(text, sizeof text, "%.17g", json_real_value(v));
        else if (json_is_boolean(v))
            snprintf(text, sizeof text, "%s", json_is_true(v) ? "true" : "false");
        else
            return pb_fail(PB_INPUT, "use a string, a number, true or false",
                           "%s: option \"%s\" has an impossible type", m->name, key);
        PB_TRY(pb_options_set(m, options, key, text));
    }
    return PB_OK;
}

json_t *pb_options_to_json(const pb_method *m, const void *options)
{
    json_t *obj = json_object();
    for (const pb_option *o = m->options; o->name; o++) {
        json_t *v = NULL;
        char text[256];
        size_t n = 0;
        switch (o->type) {
        case PB_OPT_INT:
            v = json_integer(*(long *)field(options, o));
            break;
        case PB_OPT_REAL:
            v = json_real(*(double *)field(options, o));
            break;
        case PB_OPT_BOOL:
            v = json_boolean(*(bool *)field(options, o));
            break;
        case PB_OPT_ENUM:
            v = json_string(o->names[*(int *)field(options, o)]);
            break;
        case PB_OPT_FLAGS:
            text[0] = 0;
            for (int i = 0; o->names[i]; i++)
                if (*(unsigned *)field(options, o) >> i & 1)
                    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? "," : "",
                                          o->names[i]);
            v = json_string(text);
            break;
        }
        json_object_set_new(obj, o->name, v);
    }
    return obj;
}

long pb_options_knob(const pb_method *m, const void *options)
{
    return m->knob ? *(long *)field(options, option_find(m, m->knob)) : 0;
}

bool pb_options_same_group(const pb_method *m, const void *a, const void *b)
{
    for (const pb_option *o = m->options; o->name; o++) {
        if (o->per_tenant)
            continue;
        size_t size = o->type == PB_OPT_INT    ? sizeof(long)
                      : o->type == PB_OPT_REAL ? sizeof(double)
                      : o->type == PB_OPT_BOOL ? sizeof(bool)
                                               : sizeof(int);
        if (memcmp(field(a, o), field(b, o), size))
            return false;
    }
    return true;
}

// ---------------------------------------------------------------- values

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

pb_err pb_adapter_init(pb_adapter *a, uint64_t seed, size_t n_text, const real *text_k,
                       const real *text_v)
{
    pb_params_init(&a->params, seed);
    pb_init_args args = {&a->config, seed, n_text, text_k, text_v};
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
    if (m->fold)
        (void)m->fold(options);
    PB_GO(pb_adapter_new(out, m, options, &a->config, false));
    pb_adapter_refresh(*out, a);
done:
    free(options);
    return err;
}

void pb_adapter_refresh(pb_adapter *f, const pb_adapter *a)
{
    const pb_method *m = a->method;
    char copy[512];
    if (m->fold && m->options_size <= sizeof copy) {
        memcpy(copy, a->options, m->options_size);
        if (m->fold(copy)) {
            m->fold_values(&f->params, &a->params, &a->config);
            return;
        }
    }
    memcpy(f->params.v, a->params.v, a->layout.size * sizeof(real));
}

pb_err pb_adapter_serve(pb_adapter *a)
{
    if (!a->prefix_len)
        return PB_OK;
    pb_err err = PB_OK;
    size_t L = a->config.layers, kv = pb_kv_width(&a->config);
    size_t padded = (a->prefix_len + PB_NR - 1) / PB_NR * PB_NR;
    pb_arena arena = {0}, heads = {0};
    PB_GO(pb_arena_init(&heads, "prefix headers", (size_t)1 << 20));
    pb_ctx c = {.heads = &heads, .arena = &arena, .k = pb_kernels_get(), .threads = 1};
    c.tenant = &a->params;
    // Once dry for the size, once for the values.
    for (int dry = 1; dry >= 0; dry--) {
        size_t need = arena.peak;
        PB_GO(pb_arena_init(&arena, "prefix", dry ? 0 : need + 64));
        c.dry = dry;
        if (!dry && !a->prefix) {
            a->prefix = calloc(L, sizeof *a->prefix);
            a->prefix_kv = calloc(2 * L, sizeof *a->prefix_kv);
            if (!a->prefix || !a->prefix_kv ||
                posix_memalign((void **)&a->prefix_block, 64,
                               L * (padded + a->prefix_len) * kv * sizeof(real))) {
                err = pb_fail(PB_MEMORY, NULL, "no memory for a prefix of %zu", a->prefix_len);
                goto done;
            }
        }
        for (size_t l = 0; l < L; l++) {
            pb_mat *k, *v;
            size_t mark = pb_mark(&arena);
            c.layer = l;
            a->method->prefix(&c, a->options, &k, &v);
            if (!dry) {
                real *panels = a->prefix_block + l * (padded + a->prefix_len) * kv;
                real *rows = panels + padded * kv;
                pb_pack_keys(panels, k, a->config.kv_heads, a->config.head_dim);
                for (size_t i = 0; i < a->prefix_len; i++)
                    memcpy(rows + i * kv, v->v + i * v->ld, kv * sizeof(real));
                a->prefix_kv[2 * l] = (pb_mat){.rows = a->prefix_len, .cols = kv, .ld = kv};
                a->prefix_kv[2 * l + 1] =
                    (pb_mat){.v = rows, .rows = a->prefix_len, .cols = kv, .ld = kv};
                a->prefix[l] = (pb_prefix){a->prefix_len, panels, &a->prefix_kv[2 * l],
                                           &a->prefix_kv[2 * l + 1]};
            }
            pb_release(&arena, mark);
        }
    }
done:
    pb_arena_free(&arena);
    pb_arena_free(&heads);
    return err;
}

size_t pb_adapter_resident(const pb_adapter *a)
{
    size_t padded = (a->prefix_len + PB_NR - 1) / PB_NR * PB_NR;
    size_t packed = a->prefix_len ? a->config.layers * (padded + a->prefix_len) *
                                        pb_kv_width(&a->config) * sizeof(real)
                                  : 0;
    return sizeof *a + a->method->options_size + a->layout.size * sizeof(real) + packed +
           a->layout.n * sizeof *a->layout.spec;
}

// ---------------------------------------------------------------- files

pb_err pb_adapter_key(char *out, size_t size, const pb_adapter *a, const pb_spec *s)
{
    (void)a;
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

pb_err pb_adapter_save(const pb_adapter *a, const char *folder)
{
    pb_err err = PB_OK;
    char path[4096];
    json_t *cfg = json_object();
    pb_tensor_out *out = calloc(a->layout.n + 1, sizeof *out);
    char(*names)[256] = calloc(a->layout.n + 1, sizeof *names);
    real *tmp = malloc((a->layout.size + 1) * sizeof *tmp);
    size_t n = 0;
    if (!cfg || !out || !names || !tmp) {
        err = pb_fail(PB_MEMORY, NULL, "no memory to save an adapter");
        goto done;
    }
    PB_GO(pb_make_dirs(folder));
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        bool t = s->flags & PB_TRANSPOSED;
        if (s->flags & PB_UNSAVED)
            continue;
        PB_GO(pb_adapter_key(names[n], sizeof *names, a, s));
        out[n] = (pb_tensor_out){.name = names[n], .dtype = PB_F32, .n_dims = 2};
        out[n].shape[0] = t ? s->cols : s->rows;
        out[n].shape[1] = t ? s->rows : s->cols;
        out[n++].data = file_order(a, s, tmp + s->offset);
    }
    json_object_set_new(cfg, "peft_type", json_string(a->method->peft_type));
    json_object_set_new(cfg, "task_type", json_string("CAUSAL_LM"));
    json_object_set_new(cfg, "inference_mode", json_true());
    if (a->method->peft_config)
        a->method->peft_config(a->options, &a->config, cfg);
    json_object_set_new(cfg, "pb_method", json_string(a->method->name));
    json_object_set_new(cfg, "pb_options", pb_options_to_json(a->method, a->options));
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

pb_err pb_adapter_load(pb_adapter **out, const char *folder, const pb_config *config)
{
    pb_err err = PB_OK;
    char path[4096], key[256];
    json_t *cfg = NULL;
    pb_tensors *t = NULL;
    void *options = NULL;
    real *tmp = NULL;
    size_t used = 0;
    *out = NULL;
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", folder));
    PB_GO(pb_json_load(&cfg, path));
    const char *name;
    PB_GO(pb_json_str(cfg, "pb_method", &name));
    const pb_method *m = pb_method_find(name);
    if (!m) {
        err = PB_USAGE;
        goto done;
    }
    PB_GO(pb_options_new(&options, m));
    PB_GO(pb_options_from_json(m, options, json_object_get(cfg, "pb_options")));
    PB_GO(pb_adapter_new(out, m, options, config, false));
    pb_adapter *a = *out;
    PB_GO(pb_path(path, sizeof path, "%s/adapter_model.safetensors", folder));
    PB_GO(pb_tensors_open(&t, path));
    tmp = malloc((a->layout.size + 1) * sizeof *tmp);
    if (!tmp) {
        err = pb_fail(PB_MEMORY, NULL, "no memory to load an adapter");
        goto done;
    }
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        const pb_tensor *x;
        bool turned = s->flags & PB_TRANSPOSED;
        if (s->flags & PB_UNSAVED)
            continue;
        PB_GO(pb_adapter_key(key, sizeof key, a, s));
        PB_GO(pb_tensors_need(t, key, turned ? s->cols : s->rows, turned ? s->rows : s->cols, &x));
        real *v = a->params.v + s->offset;
        pb_tensor_read(x, 0, x->count, turned ? tmp : v);
        if (turned)
            transpose(v, tmp, s->cols, s->rows);
        for (size_t k = 0; k < x->count; k++)
            if (!isfinite(v[k])) {
                err = pb_fail(PB_INPUT, NULL, "tensor \"%s\" has the value %g at %zu", key,
                              (double)v[k], k);
                goto done;
            }
        used++;
    }
    if (used != pb_tensors_count(t))
        err = pb_fail(PB_INPUT, "is adapter_config.json of another adapter?",
                      "the file has %zu tensors, the options call for %zu", pb_tensors_count(t),
                      used);
done:
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
        (void)pb_context(err, "adapter %s", folder);
    }
    json_decref(cfg);
    pb_tensors_close(t);
    free(options);
    free(tmp);
    return err;
}
