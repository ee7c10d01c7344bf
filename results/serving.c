#include "results/serving.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

const char *const pb_served_parts[] = {"backbone", "attention", "adapter", "head"};
const char *const pb_serving_measures[] = {"TTFT", "TPOT", "ITL", "end to end", "queue"};

#define REQUEST(name, units)                                                                       \
    {                                                                                              \
#name, units, offsetof(pb_served, name)                                                    \
    }
static const pb_serving_column requests[] = {
    REQUEST(method, "1"),     REQUEST(tenant, "1"),    REQUEST(prompt, "token"),
    REQUEST(output, "token"), REQUEST(due, "ns"),      REQUEST(scheduled, "ns"),
    REQUEST(queued, "ns"),    REQUEST(admitted, "ns"), REQUEST(first, "ns"),
    REQUEST(last, "ns"),      REQUEST(finished, "ns"), REQUEST(n_out, "token"),
    REQUEST(steps, "step"),   REQUEST(outcome, "1"),   REQUEST(digest, "1"),
};

#define STEP(name, units)                                                                          \
    {                                                                                              \
#name, units, offsetof(pb_served_step, name)                                               \
    }
#define PARTS(name, label, units)                                                                  \
    {"backbone_" label, units, offsetof(pb_served_step, name)},                                    \
        {"attention_" label, units, offsetof(pb_served_step, name) + sizeof(int64_t)},             \
        {"adapter_" label, units, offsetof(pb_served_step, name) + 2 * sizeof(int64_t)},           \
    {                                                                                              \
        "head_" label, units, offsetof(pb_served_step, name) + 3 * sizeof(int64_t)                 \
    }
static const pb_serving_column steps[] = {
    STEP(begin, "ns"),
    STEP(duration, "ns"),
    STEP(rows, "row"),
    STEP(prefill, "row"),
    STEP(decode, "row"),
    STEP(outputs, "row"),
    STEP(segments, "1"),
    STEP(tenants, "1"),
    STEP(adapter_bytes, "byte"),
    STEP(keys, "token"),
    STEP(pairs, "1"),
    PARTS(flops, "flops", "FLOP"),
    PARTS(bytes, "read_bytes", "byte"),
    PARTS(regions, "regions", "1"),
    PARTS(ns, "ns", "ns"),
};

#define LOAD(name, units)                                                                          \
    {                                                                                              \
#name, units, offsetof(pb_served_load, name)                                               \
    }
static const pb_serving_column loads[] = {LOAD(tenant, "1"), LOAD(asked, "ns"), LOAD(begun, "ns"),
                                          LOAD(ready, "ns"), LOAD(failed, "1")};
static const pb_serving_column tokens[] = {{"at", "ns", 0}};

#define TABLE(name, type, row, count)                                                              \
    {                                                                                              \
#name, sizeof(type), sizeof name / sizeof *name, name, offsetof(pb_serving, row),          \
            offsetof(pb_serving, count)                                                            \
    }
const pb_serving_table pb_serving_tables[] = {
    TABLE(requests, pb_served, request, n_requests),
    TABLE(steps, pb_served_step, step, n_steps),
    TABLE(loads, pb_served_load, load, n_loads),
    TABLE(tokens, int64_t, token_ns, n_tokens),
};

static pb_err no_memory(void)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for what was served");
}

void pb_serving_free(pb_serving *s)
{
    if (!s)
        return;
    json_decref(s->about);
    free(s->request);
    free(s->step);
    free(s->load);
    free(s->token_ns);
    free(s);
}

// ---------------------------------------------------------------- events

static json_t *column_values(const char *rows, const pb_serving_table *t,
                             const pb_serving_column *c, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        const int64_t *v = (const int64_t *)(const void *)(rows + i * t->size + c->at);
        if (json_array_append_new(list, json_integer(*v))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

pb_err pb_serving_event(json_t **out, const pb_serving *s)
{
    json_t *e = json_pack("{s:s, s:O}", "event", "serve", "about", s->about);
    bool failed = !e;
    for (size_t k = 0; k < PB_SERVING_TABLES && !failed; k++) {
        const pb_serving_table *t = &pb_serving_tables[k];
        const char *const *rows = (const char *const *)(const void *)((const char *)s + t->rows_at);
        const size_t *n = (const size_t *)(const void *)((const char *)s + t->n_at);
        json_t *columns = json_object();
        for (size_t i = 0; columns && i < t->n_columns; i++)
            failed |= json_object_set_new(columns, t->columns[i].name,
                                          column_values(*rows, t, &t->columns[i], *n)) != 0;
        failed |= json_object_set_new(e, t->name, columns) != 0;
    }
    if (failed)
        json_decref(e);
    *out = failed ? NULL : e;
    return failed ? no_memory() : PB_OK;
}

static pb_err check_table(const json_t *e, const pb_serving_table *t)
{
    const json_t *table = json_object_get(e, t->name);
    size_t rows = json_array_size(json_object_get(table, t->columns[0].name));
    for (size_t i = 0; i < t->n_columns; i++) {
        const char *name = t->columns[i].name;
        const json_t *v = json_object_get(table, name);
        if (!json_is_array(v) || json_array_size(v) != rows)
            return pb_fail(PB_INPUT, NULL, "%s: \"%s\" is not a list as long as the others",
                           t->name, name);
        for (size_t k = 0; k < rows; k++)
            if (!json_is_integer(json_array_get(v, k)))
                return pb_fail(PB_INPUT, NULL, "%s: item %zu of \"%s\" is not an integer", t->name,
                               k, name);
    }
    if (json_object_size(table) != t->n_columns)
        return pb_fail(PB_INPUT, NULL, "%s has %zu columns, not %zu", t->name,
                       json_object_size(table), t->n_columns);
    return PB_OK;
}

pb_err pb_serving_check(const json_t *event)
{
    for (size_t k = 0; k < PB_SERVING_TABLES; k++)
        PB_TRY(check_table(event, &pb_serving_tables[k]));
    return PB_OK;
}

// ---------------------------------------------------------------- what is shown

static double number_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static size_t warm_up_of(const pb_serving *s)
{
    return (size_t)json_integer_value(json_object_get(s->about, "warm_up"));
}

static bool counts(const pb_served *r, int method)
{
    return r->outcome == PB_SERVED_SERVED && (method < 0 || r->method == method);
}

static double tpot_of(const pb_served *r) // ms; of a single token there is none
{
    return r->steps > 1 ? (double)(r->last - r->first) / (double)(r->steps - 1) * 1e-6 : NAN;
}

static double measure_of(const pb_served *r, int measure)
{
    int64_t until = measure == PB_TTFT ? r->first : measure == PB_E2E ? r->finished : r->admitted;
    return measure == PB_TPOT ? tpot_of(r) : (double)(until - r->scheduled) * 1e-6;
}

pb_err pb_serving_samples(double **out, size_t *n, const pb_serving *s, int measure, int method)
{
    size_t room = measure == PB_ITL ? s->n_tokens : s->n_requests, at = 0;
    double *v = *out = malloc((room + 1) * sizeof *v);
    *n = 0;
    if (!v)
        return no_memory();
    for (size_t i = 0; i < s->n_requests; i++) {
        const pb_served *r = &s->request[i];
        const int64_t *t = s->token_ns + at;
        at += (size_t)r->steps;
        if (i < warm_up_of(s) || !counts(r, method))
            continue;
        for (int64_t k = 1; measure == PB_ITL && k < r->steps; k++)
            v[(*n)++] = (double)(t[k] - t[k - 1]) * 1e-6;
        double x = measure == PB_ITL ? NAN : measure_of(r, measure);
        if (isfinite(x))
            v[(*n)++] = x;
    }
    pb_sort(v, *n);
    return PB_OK;
}

static pb_err make_line(pb_serving_line *l, const pb_serving *s, int measure, int method)
{
    static const double q[] = {0.5, 0.9, 0.99, 0.999};
    double *v;
    PB_TRY(pb_serving_samples(&v, &l->n, s, measure, method));
    l->measure = pb_serving_measures[measure];
    for (size_t k = 0; k < PB_SERVING_QUANTILES; k++) {
        l->in[k] = pb_percentile_interval(v, l->n, q[k], 0.95);
        l->at[k] = isnan(l->in[k].lo) ? NAN : pb_percentile(v, l->n, q[k]);
    }
    free(v);
    return PB_OK;
}

static bool is_good(const pb_served *r, double ttft, double tpot)
{
    return !(measure_of(r, PB_TTFT) > ttft) && !(tpot_of(r) > tpot);
}

static void make_total(pb_serving_total *t, const pb_serving *s, int method)
{
    const json_t *a = s->about;
    double ttft = number_of(a, "ttft_limit_ms"), tpot = number_of(a, "tpot_limit_ms");
    double seconds = (number_of(a, "end_ns") - number_of(a, "counted_ns")) * 1e-9;
    double good = 0, out = 0;
    for (size_t i = warm_up_of(s); i < s->n_requests; i++) {
        const pb_served *r = &s->request[i];
        if (method >= 0 && r->method != method)
            continue;
        t->requests++;
        t->served += r->outcome == PB_SERVED_SERVED;
        t->rejected += r->outcome == PB_SERVED_QUEUE_FULL;
        t->failed += r->outcome == PB_SERVED_NO_ADAPTER;
        t->unfinished += r->outcome < PB_SERVED_SERVED;
        if (r->outcome == PB_SERVED_SERVED) {
            out += (double)r->n_out;
            good += is_good(r, ttft, tpot);
        }
    }
    if (isnan(ttft) && isnan(tpot))
        good = NAN;
    t->requests_per_second = seconds > 0 ? (double)t->served / seconds : NAN;
    t->tokens_per_second = seconds > 0 ? out / seconds : NAN;
    t->good_per_second = seconds > 0 ? good / seconds : NAN;
    t->good_share = t->requests ? good / (double)t->requests : NAN;
}

static void make_parts(pb_serving_part *p, const pb_serving *s, const char *run)
{
    double from = number_of(s->about, "counted_ns"), rows = 0, n = 0, all = 0, known = 0;
    for (size_t i = 0; i < s->n_steps; i++) {
        const pb_served_step *x = &s->step[i];
        if (!((double)x->begin >= from))
            continue;
        n++;
        rows += (double)x->rows;
        all += (double)x->duration;
        for (size_t k = 0; k < PB_SERVED_PARTS; k++) {
            p[k].flops += (double)x->flops[k];
            p[k].bytes += (double)x->bytes[k];
            p[k].regions += (double)x->regions[k];
            p[k].us += (double)x->ns[k];
            known += (double)x->ns[k];
        }
    }
    p[PB_SERVED_PARTS].us = all - known;
    for (size_t k = 0; k <= PB_SERVED_PARTS; k++) {
        double ns = p[k].us;
        p[k].run = run;
        p[k].part = k < PB_SERVED_PARTS ? pb_served_parts[k] : "other";
        p[k].flops /= rows;
        p[k].bytes /= rows;
        p[k].regions /= rows;
        p[k].us = ns * 1e-3 / rows;
        p[k].ms_per_step = ns * 1e-6 / n;
        p[k].share = ns / all;
    }
}

static pb_err make_memory(pb_serving_memory *m, const pb_serving *s)
{
    const json_t *a = s->about;
    m->backbone = number_of(a, "backbone_bytes");
    m->kv = number_of(a, "kv_bytes");
    m->activations = number_of(a, "activation_bytes");
    m->adapter_peak = number_of(a, "adapter_peak_bytes");
    m->adapter_limit = number_of(a, "adapter_limit_bytes");
    m->evictions = number_of(a, "evictions");
    m->load_median_ms = m->load_max_ms = NAN;
    double *ms = malloc((s->n_loads + 1) * sizeof *ms);
    if (!ms)
        return no_memory();
    for (size_t i = 0; i < s->n_loads; i++) {
        m->failures += s->load[i].failed != 0;
        ms[m->loads++] = (double)(s->load[i].ready - s->load[i].asked) * 1e-6;
    }
    pb_sort(ms, m->loads);
    if (m->loads) {
        m->load_median_ms = pb_percentile(ms, m->loads, 0.5);
        m->load_max_ms = ms[m->loads - 1];
    }
    free(ms);
    return PB_OK;
}

static void name_methods(pb_serving_report *r, const json_t *methods)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)methods, name, v)
    {
        size_t i = (size_t)json_integer_value(json_object_get(v, "index"));
        if (i < r->n_methods)
            r->method[i] = name;
    }
}

pb_err pb_serving_report_make(pb_serving_report *out, const pb_serving *s, const char *run)
{
    pb_err err = PB_OK;
    const json_t *methods = json_object_get(s->about, "methods");
    size_t n = json_object_size(methods), first = n > 1 ? 0 : 1; // of one method, no total
    *out = (pb_serving_report){.n_methods = n};
    out->method = calloc(n + 1, sizeof *out->method);
    out->lines = calloc((n + 1) * PB_SERVING_MEASURES, sizeof *out->lines);
    out->totals = calloc(n + 1, sizeof *out->totals);
    if (!out->method || !out->lines || !out->totals)
        PB_GO(no_memory());
    name_methods(out, methods);
    for (int measure = 0; measure < PB_SERVING_MEASURES; measure++)
        for (size_t k = first; k <= n; k++) {
            pb_serving_line *l = &out->lines[out->n_lines++];
            PB_GO(make_line(l, s, measure, (int)k - 1));
            l->run = run;
            l->method = k ? out->method[k - 1] : "all";
        }
    for (size_t k = first; k <= n; k++) {
        pb_serving_total *t = &out->totals[out->n_totals++];
        const json_t *m = k ? json_object_get(methods, out->method[k - 1]) : NULL;
        make_total(t, s, (int)k - 1);
        t->run = run;
        t->method = k ? out->method[k - 1] : "all";
        t->trainable = number_of(m, "trainable");
        t->bytes_per_tenant = number_of(m, "bytes_per_tenant");
        t->tenants = (size_t)json_integer_value(json_object_get(m ? m : s->about, "tenants"));
    }
    make_parts(out->parts, s, run);
    PB_GO(make_memory(&out->memory, s));
    const char *slash = strrchr(run, '/');
    out->memory.run = run;
    out->memory.name = slash ? slash + 1 : run;
    out->memory.tenants = number_of(s->about, "tenants");
done:
    if (err)
        pb_serving_report_free(out);
    return err;
}

void pb_serving_report_free(pb_serving_report *r)
{
    free(r->lines);
    free(r->totals);
    free(r->method);
    *r = (pb_serving_report){0};
}
