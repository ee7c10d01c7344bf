#include "cli/common/tenants.h"

#include "core/file.h"
#include "core/log.h"
#include "serve/latency.h"
#include "train/budget.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- kinds

static pb_err new_kind(pb_tenant_kind **out, pb_tenants *t, const char *name)
{
    if (t->n_kinds == PB_MOST_KINDS)
        return pb_fail(PB_USAGE, NULL, "more than %d kinds of adapters", PB_MOST_KINDS);
    for (size_t i = 0; i < t->n_kinds; i++)
        if (!strcmp(t->kind[i].name, name))
            return pb_fail(PB_USAGE, NULL, "\"%s\" appears twice", name);
    pb_tenant_kind *k = *out = &t->kind[t->n_kinds++];
    *k = (pb_tenant_kind){0};
    snprintf(k->name, sizeof k->name, "%s", name);
    for (char *s = k->name; *s; s++) // a group of HDF5 has no slash in its name
        *s = *s == '/' ? '-' : *s;
    return PB_OK;
}

static pb_err set_options(pb_tenant_kind *k, const json_t *set)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)set, key, v)
    {
        if (!json_is_string(v))
            return pb_fail(PB_INPUT, NULL, "option %s of %s must be text", key, k->method->name);
        PB_TRY(pb_options_set(k->method, k->options, key, json_string_value(v)));
    }
    return PB_OK;
}

static pb_err size_kind(pb_tenant_kind *k, const json_t *set, const char *budget,
                        const pb_config *c)
{
    size_t count;
    if (!k->method->knob || json_object_get(set, k->method->knob))
        return pb_budget_count(k->method, k->options, c, &k->trainable);
    PB_TRY(pb_budget_parse(budget, c, &count));
    return pb_budget_solve(k->method, k->options, c, count, &k->trainable);
}

static pb_err add_shape(pb_tenants *t, pb_tenant_kind *k)
{
    PB_TRY(pb_adapter_serve(k->shape, t->model));
    t->shape[t->n_shapes++] = k->shape;
    return PB_OK;
}

pb_err pb_tenants_add(pb_tenants *t, const char *name, const json_t *set, const char *budget,
                      const char *label)
{
    char text[sizeof t->kind[0].name];
    pb_tenant_kind *k;
    const pb_config *c = &t->model->config;
    const pb_method *m = strcmp(name, "base") ? pb_method_find(name) : NULL;
    if (!m && strcmp(name, "base"))
        return PB_USAGE;
    if (m && m->backbone)
        return pb_fail(PB_USAGE, NULL, "%s has no adapter to serve", name);
    bool sized = m && m->knob && !json_object_get(set, m->knob);
    if (*label && !sized) // one kind for all budgets
        for (size_t i = 0; i < t->n_kinds; i++)
            if (!strcmp(t->kind[i].name, name))
                return PB_OK;
    snprintf(text, sizeof text, "%.60s%s%.40s", name, *label && sized ? " " : "",
             sized ? label : "");
    PB_TRY(new_kind(&k, t, text));
    if (!m)
        return PB_OK;
    k->method = m;
    PB_TRY(pb_options_new(&k->options, m));
    PB_TRY(set_options(k, set));
    PB_TRY(size_kind(k, set, budget, c));
    PB_TRY(pb_latency_adapter(&k->shape, &(pb_latency_method){m, k->options}, c, t->seed, 0));
    return add_shape(t, k);
}

pb_err pb_tenants_add_folder(pb_tenants *t, const char *folder)
{
    char name[100], text[sizeof t->kind[0].name];
    pb_tenant_kind *k;
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t from = n;
    while (from && folder[from - 1] != '/')
        from--;
    snprintf(name, sizeof name, "%.*s", (int)(n - from), folder + from);
    snprintf(text, sizeof text, "%s", name);
    for (size_t i = 0, copy = 2; i < t->n_kinds; i++)
        if (!strcmp(t->kind[i].name, text)) {
            snprintf(text, sizeof text, "%s-%zu", name, copy++);
            i = SIZE_MAX; // from the beginning
        }
    PB_TRY(new_kind(&k, t, text));
    k->folder = folder;
    PB_TRY(pb_adapter_load(&k->shape, folder, &t->model->config, t->model->sha256));
    k->method = k->shape->method;
    k->trainable = k->shape->layout.counted;
    return add_shape(t, k);
}

// ---------------------------------------------------------------- tenants

// An adapter as it is saved: not ready to be served.
static pb_err make_one(pb_adapter **out, const pb_tenants *t, size_t tenant)
{
    const pb_tenant_kind *k = pb_tenants_kind(t, tenant);
    const pb_config *c = &t->model->config;
    if (k->folder)
        return pb_adapter_load(out, k->folder, c, t->model->sha256);
    return pb_latency_adapter(out, &(pb_latency_method){k->method, k->options}, c, t->seed, tenant);
}

static pb_err folder_of(char *out, size_t size, const pb_tenants *t, size_t tenant)
{
    const pb_tenant_kind *k = pb_tenants_kind(t, tenant);
    return k->folder ? pb_path(out, size, "%s", k->folder)
                     : pb_path(out, size, "%s/%zu", t->folder, tenant);
}

static pb_err load(void *self, size_t tenant, pb_adapter **out)
{
    const pb_tenants *t = self;
    char path[4200];
    PB_TRY(folder_of(path, sizeof path, t, tenant));
    PB_TRY(pb_adapter_load(out, path, &t->model->config, NULL));
    pb_err err = pb_adapter_serve(*out, t->model);
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
    }
    return err;
}

static pb_err write_one(const pb_tenants *t, size_t tenant)
{
    char path[4200];
    pb_adapter *a;
    if (pb_tenants_kind(t, tenant)->folder)
        return PB_OK;
    PB_TRY(folder_of(path, sizeof path, t, tenant));
    PB_TRY(make_one(&a, t, tenant));
    pb_err err = pb_adapter_save(a, path);
    pb_adapter_free(a);
    return err;
}

static pb_err keep_one(pb_tenants *t, size_t tenant)
{
    PB_TRY(make_one(&t->adapter[tenant], t, tenant));
    PB_TRY(pb_adapter_serve(t->adapter[tenant], t->model));
    pb_store_put(&t->store, tenant, t->adapter[tenant]);
    return PB_OK;
}

static pb_err make_folder(pb_tenants *t)
{
    const char *tmp = getenv("TMPDIR");
    PB_TRY(pb_path(t->folder, sizeof t->folder, "%s/pedrobench-tenants-XXXXXX",
                   tmp && *tmp ? tmp : "/tmp"));
    if (mkdtemp(t->folder))
        return PB_OK;
    pb_err err = pb_fail(PB_IO, "TMPDIR may name another folder", "cannot make %s: %s", t->folder,
                         strerror(errno));
    *t->folder = 0;
    return err;
}

static size_t shape_number(const pb_tenants *t, const pb_tenant_kind *k)
{
    size_t i = 0;
    while (i < t->n_shapes && t->shape[i] != k->shape)
        i++;
    return i;
}

static pb_err describe(pb_tenants *t, size_t limit)
{
    for (size_t i = 0; i < t->n; i++) {
        const pb_tenant_kind *k = pb_tenants_kind(t, i);
        if (!k->shape)
            continue;
        size_t bytes = pb_adapter_resident(k->shape);
        if (bytes > limit)
            return pb_fail(PB_USAGE, "raise --adapter-memory",
                           "an adapter of kind \"%s\" takes %zu bytes, more than the limit of %zu",
                           k->name, bytes, limit);
        t->shape_of[i] = k->shape;
        t->store.tenant[i] = (pb_tenant){
            .bytes = bytes, .shape = shape_number(t, k), .whole = k->method->whole_prompt};
    }
    return PB_OK;
}

static pb_err make_all(pb_tenants *t, bool limited, const bool *asked)
{
    pb_progress p;
    pb_err err = PB_OK;
    pb_progress_begin(&p, limited ? "adapters written" : "adapters made", 0, (int64_t)t->n);
    for (size_t i = 0; i < t->n && !err; i++) {
        if (pb_tenants_kind(t, i)->shape && (!limited || asked[i]))
            err = limited ? write_one(t, i) : keep_one(t, i);
        if (!err && pb_interrupted())
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted while adapters were made");
        pb_progress_update(&p, (int64_t)i + 1, NULL);
    }
    pb_progress_end(&p, NULL);
    return err;
}

pb_err pb_tenants_make(pb_tenants *t, size_t n, size_t limit, const bool *asked)
{
    bool limited = limit != SIZE_MAX;
    t->n = n;
    t->adapter = calloc(n + 1, sizeof *t->adapter);
    t->shape_of = calloc(n + 1, sizeof *t->shape_of);
    if (!t->adapter || !t->shape_of)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", n);
    if (limited) {
        PB_TRY(make_folder(t));
        PB_TRY(pb_thread_loader_new(&t->loader, n, &(pb_adapter_source){t, load, t->shape_of}));
    }
    PB_TRY(pb_store_init(&t->store, n, limit, limited ? pb_thread_loader_get(t->loader) : NULL));
    PB_TRY(describe(t, limit));
    return make_all(t, limited, asked);
}

void pb_tenants_free(pb_tenants *t)
{
    pb_store_free(&t->store);
    pb_thread_loader_free(t->loader);
    for (size_t i = 0; t->adapter && i < t->n; i++)
        pb_adapter_free(t->adapter[i]);
    for (size_t i = 0; i < t->n_kinds; i++) {
        pb_adapter_free(t->kind[i].shape);
        free(t->kind[i].options);
    }
    free(t->adapter);
    free(t->shape_of);
    if (*t->folder && pb_remove_folder(t->folder))
        pb_warn("%s", pb_error_message());
    *t = (pb_tenants){0};
}
