// `pedrobench inspect`: what a model, adapter, tokenizer, checkpoint or result file is.
#include "cli/common/common.h"
#include "model/gguf.h"
#include "model/peft.h"
#include "model/source.h"
#include "results/bench.h"
#include "results/journal.h"
#include "results/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *path;
    bool json;
};

static const struct argp_option opts[] = {{"json", 'j', 0, 0, "Print JSON", 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'j':
        a->json = true;
        break;
    case ARGP_KEY_ARG:
        if (a->path)
            argp_error(state, "one path at a time");
        a->path = arg;
        break;
    case ARGP_KEY_END:
        if (!a->path)
            argp_error(state, "a path is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "PATH",
    "Says what lies at a path: a model (folder, GGUF, llama2.c), an adapter folder, a tokenizer, "
    "a safetensors file, a run's HDF5 file or its journal.\v"
    "Examples:\n"
    "  pedrobench inspect models/mine\n"
    "  pedrobench inspect runs/one.h5 --json",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- gathering

static void set(json_t *o, const char *key, json_t *v)
{
    json_object_set_new(o, key, v ? v : json_null());
}

static void set_text(json_t *o, const char *key, const char *v)
{
    if (v && *v)
        set(o, key, json_string(v));
}

static void set_count(json_t *o, const char *key, size_t v)
{
    set(o, key, json_integer((json_int_t)v));
}

static void set_real(json_t *o, const char *key, double v)
{
    if (isfinite(v))
        set(o, key, v == rint(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v));
}

// The name with every whole number between dots as a star: what tensors of all layers share.
static void pattern_of(char out[256], const char *name)
{
    size_t n = 0;
    for (const char *s = name; *s && n < 255;) {
        size_t digits = strspn(s, "0123456789");
        if (digits && (s == name || s[-1] == '.') && (s[digits] == '.' || !s[digits])) {
            out[n++] = '*';
            s += digits;
        } else {
            out[n++] = *s++;
        }
    }
    out[n] = 0;
}

static void add_to(json_t *group, const char *key, size_t v)
{
    json_t *count = json_object_get(group, key);
    json_integer_set(count, json_integer_value(count) + (json_int_t)v);
}

// Parameters, bytes and groups of alike tensors.
static void describe_tensors(json_t *out, const pb_tensors *t)
{
    json_t *groups = json_array(), *by_key = json_object();
    size_t parameters = 0, bytes = 0;
    for (size_t i = 0; i < pb_tensors_count(t); i++) {
        const pb_tensor *x = pb_tensors_at(t, i);
        char pattern[256], shape[96] = "", key[512];
        size_t own = pb_dtype_bytes(x->dtype, x->count);
        pattern_of(pattern, x->name);
        for (size_t d = 0, n = 0; d < x->n_dims; d++)
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%zu", d ? "," : "", x->shape[d]);
        snprintf(key, sizeof key, "%s %s %s", pattern, shape, pb_dtype_name(x->dtype));
        json_t *g = json_object_get(by_key, key);
        if (!g) {
            g = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i}", "tensors", pattern, "shape", shape,
                          "dtype", pb_dtype_name(x->dtype), "count", 0, "parameters", 0, "bytes",
                          0);
            json_array_append(groups, g);
            json_object_set_new(by_key, key, g);
        }
        add_to(g, "count", 1);
        add_to(g, "parameters", x->count);
        add_to(g, "bytes", own);
        parameters += x->count;
        bytes += own;
    }
    json_decref(by_key);
    set_count(out, "parameters", parameters);
    set_count(out, "bytes", bytes);
    set(out, "groups", groups);
}

static json_t *tokenizer_summary(const pb_tokenizer *t)
{
    json_t *o = json_object();
    set_text(o, "kind", pb_tokenizer_kind(t));
    set_count(o, "vocabulary", pb_tokenizer_vocab(t));
    set(o, "bos", json_integer(pb_tokenizer_bos(t)));
    set(o, "eos", json_integer(pb_tokenizer_eos(t)));
    return o;
}

static pb_err inspect_model(json_t *out, const char *path)
{
    pb_source s;
    PB_TRY(pb_source_open(&s, path, true));
    set_text(out, "kind", "model");
    set_text(out, "format", pb_source_kind_name(s.kind));
    set(out, "configuration", pb_config_to_json(&s.config));
    set_text(out, "name", json_string_value(json_object_get(s.meta, "general.name")));
    pb_tokenizer *t;
    if (pb_source_tokenizer(&t, &s))
        set(out, "tokenizer", json_pack("{s:s}", "unreadable", pb_error_message()));
    else if (t)
        set(out, "tokenizer", tokenizer_summary(t));
    else
        set_text(out, "tokenizer", "none");
    pb_tokenizer_close(t);
    describe_tensors(out, s.tensors);
    pb_source_close(&s);
    return PB_OK;
}

static json_t *without_nulls(const json_t *o)
{
    json_t *out = json_object(), *v;
    const char *key;
    json_object_foreach((json_t *)o, key, v)
    {
        if (!json_is_null(v))
            json_object_set(out, key, v);
    }
    return out;
}

static pb_err inspect_adapter(json_t *out, const char *folder)
{
    pb_err err = PB_OK;
    char path[4096];
    json_t *config = NULL;
    pb_tensors *t = NULL;
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", folder));
    PB_GO(pb_json_load(&config, path));
    if (pb_peft_is_composition(config)) {
        const json_t *names = json_object_get(config, "parts");
        set_text(out, "kind", "composition of adapters");
        for (size_t i = 0; i < json_array_size(names); i++) {
            const char *name = json_string_value(json_array_get(names, i));
            json_t *part = json_object();
            PB_GO(pb_path(path, sizeof path, "%s/%s", folder, name ? name : "?"));
            set(out, name ? name : "?", part);
            PB_GO(inspect_adapter(part, path));
        }
        goto done;
    }
    PB_GO(pb_adapter_weights(&t, folder));
    set_text(out, "kind", "adapter");
    set_text(out, "method", json_string_value(json_object_get(config, "peft_type")));
    const pb_method *m;
    if (pb_peft_method(&m, config))
        set_text(out, "unsupported", pb_error_message());
    else
        set_text(out, "what", m->doc);
    json_object_set_new(out, "options", without_nulls(config));
    describe_tensors(out, t);
done:
    json_decref(config);
    pb_tensors_close(t);
    return err;
}

// Long lists (vocabularies) by their length.
static json_t *shortened(const json_t *meta)
{
    json_t *out = json_object(), *v;
    const char *key;
    json_object_foreach((json_t *)meta, key, v)
    {
        if (json_is_array(v) && json_array_size(v) > 8)
            set(out, key, json_sprintf("%zu values", json_array_size(v)));
        else
            json_object_set(out, key, v);
    }
    return out;
}

static pb_err inspect_gguf(json_t *out, const char *path)
{
    pb_tensors *t;
    json_t *meta;
    PB_TRY(pb_gguf_read(&t, &meta, path));
    const char *type = json_string_value(json_object_get(meta, "general.type"));
    pb_err err = PB_OK;
    if (type && !strcmp(type, "adapter")) {
        set_text(out, "kind", "adapter");
        set_text(out, "format", "GGUF file");
        set(out, "metadata", shortened(meta));
        describe_tensors(out, t);
    } else {
        err = inspect_model(out, path);
        if (!err)
            set(out, "metadata", shortened(meta));
    }
    pb_tensors_close(t);
    json_decref(meta);
    return err;
}

static pb_err inspect_safetensors(json_t *out, const char *path)
{
    pb_tensors *t;
    PB_TRY(pb_tensors_open(&t, path));
    bool checkpoint = pb_tensors_meta(t, "identity") && pb_tensors_meta(t, "counters");
    set_text(out, "kind", checkpoint ? "training checkpoint" : "safetensors file");
    if (pb_tensors_metadata(t))
        set(out, "metadata", json_deep_copy(pb_tensors_metadata(t)));
    describe_tensors(out, t);
    pb_tensors_close(t);
    return PB_OK;
}

static pb_err inspect_tokenizer(json_t *out, const char *path)
{
    pb_tokenizer *t;
    PB_TRY(pb_tokenizer_open(&t, path, 0));
    set_text(out, "kind", "tokenizer");
    set(out, "tokenizer", tokenizer_summary(t));
    pb_tokenizer_close(t);
    return PB_OK;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static json_t *scenario_summary(const pb_scenario *s)
{
    json_t *o = json_object();
    set_text(o, "scenario", s->name);
    set_text(o, "method", s->method);
    set_text(o, "phase", s->phase);
    set_real(o, "tenants", s->tenants);
    set_real(o, "rows", s->rows);
    set_count(o, "samples", s->n);
    int64_t *sorted = s->n ? malloc(s->n * sizeof *sorted) : NULL;
    if (sorted) {
        memcpy(sorted, s->samples_ns, s->n * sizeof *sorted);
        qsort(sorted, s->n, sizeof *sorted, by_size);
        set_real(o, "median_ms", (double)sorted[s->n / 2] / 1e6);
    }
    free(sorted);
    return o;
}

static pb_err serving_summary(json_t *out, const pb_serving *s)
{
    pb_serving_report r;
    json_t *methods = json_array();
    PB_TRY(pb_serving_report_make(&r, s, ""));
    for (size_t i = 0; i < r.n_totals; i++) {
        const pb_serving_total *t = &r.totals[i];
        json_t *o = json_object();
        set_text(o, "method", t->method);
        set_count(o, "tenants", t->tenants);
        set_count(o, "requests", t->requests);
        set_count(o, "served", t->served);
        set_real(o, "tokens_per_second", t->tokens_per_second);
        set_real(o, "ttft_p50_ms", r.lines[PB_TTFT * r.n_totals + i].at[0]);
        set_real(o, "tpot_p50_ms", r.lines[PB_TPOT * r.n_totals + i].at[0]);
        json_array_append_new(methods, o);
    }
    set_text(out, "workload", json_string_value(json_object_get(s->about, "workload")));
    set_count(out, "steps", s->n_steps);
    set(out, "served", methods);
    pb_serving_report_free(&r);
    return PB_OK;
}

static pb_err inspect_run(json_t *out, const char *path)
{
    pb_records all = {0};
    PB_TRY(pb_records_load(&all, &path, 1));
    const pb_record *r = &all.v[0];
    set_text(out, "kind", "result of a run");
    set_text(out, "run_id", r->run_id);
    set_text(out, "status", r->status);
    set_text(out, "message", r->message);
    set_text(out, "created", r->created);
    set_text(out, "version", r->version);
    set_text(out, "commit", r->commit);
    set_text(out, "experiment", r->kind);
    set_text(out, "model", r->model);
    set_text(out, "method", r->method);
    set_text(out, "task", r->task);
    if (r->seed >= 0)
        set(out, "seed", json_integer(r->seed));
    set_text(out, "knob", r->knob);
    set_real(out, "knob_value", r->knob_value);
    set_real(out, "trainable", r->trainable);
    set_real(out, "model_parameters", r->model_params);
    set_real(out, "seconds", r->seconds);
    set_count(out, "training_points", r->train.n);
    json_t *evals = json_array(), *scenarios = json_array();
    for (size_t i = 0; i < r->n_evals; i++) {
        const pb_evaluation *e = &r->evals[i];
        json_t *o = json_object(), *metrics = json_object();
        set_text(o, "task", e->task);
        set_text(o, "split", e->split);
        for (size_t k = 0; k < e->n_metrics; k++)
            set_real(metrics, e->metrics[k].name, e->metrics[k].value);
        set(o, "metrics", metrics);
        json_array_append_new(evals, o);
    }
    for (size_t i = 0; i < r->n_scenarios; i++)
        json_array_append_new(scenarios, scenario_summary(&r->scenarios[i]));
    set(out, "evaluations", evals);
    set(out, "scenarios", scenarios);
    pb_err err = r->serving ? serving_summary(out, r->serving) : PB_OK;
    pb_records_free(&all);
    return err;
}

static pb_err inspect_bench(json_t *out, const char *path)
{
    json_t *arms = NULL;
    PB_TRY(pb_bench_load(&arms, path));
    set_text(out, "kind", "benchmark");
    set(out, "arms", arms);
    return PB_OK;
}

static pb_err inspect_journal(json_t *out, const char *path)
{
    pb_journal j = {0};
    pb_err err = pb_journal_read(&j, path);
    if (!err && !j.start)
        err = pb_fail(PB_INPUT, "is this a run's journal?", "%s has no whole line", path);
    if (!err) {
        const char *event;
        json_t *v, *evals = json_array();
        set_text(out, "kind", "journal of a run");
        set_text(out, "run_id", json_string_value(json_object_get(j.start, "run_id")));
        const char *status = json_string_value(json_object_get(j.end, "status"));
        set_text(out, "status", status ? status : "not ended");
        json_object_set(out, "configuration", json_object_get(j.start, "config"));
        set_count(out, "training_points", j.train.n);
        if (j.train.n)
            set(out, "last_step", json_integer(j.train.rows[j.train.n - 1].step));
        set(out, "resumes", json_integer(j.n_resumes));
        json_object_foreach(j.evals, event, v) json_array_append_new(evals, json_string(event));
        set(out, "evaluations", evals);
    }
    pb_journal_free(&j);
    return err;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool has_file(const char *folder, const char *name)
{
    char path[4096];
    return !pb_path(path, sizeof path, "%s/%s", folder, name) && pb_exists(path);
}

static pb_err inspect(json_t *out, const char *path)
{
    if (!pb_exists(path))
        return pb_fail(PB_IO, "check the path", "there is nothing at %s", path);
    if (pb_is_dir(path)) {
        if (has_file(path, "adapter_config.json"))
            return inspect_adapter(out, path);
        if (has_file(path, "config.json"))
            return inspect_model(out, path);
        return pb_fail(PB_INPUT, "a model has config.json, an adapter adapter_config.json",
                       "%s is neither a model nor an adapter folder", path);
    }
    if (ends_with(path, ".h5"))
        return pb_bench_is(path) ? inspect_bench(out, path) : inspect_run(out, path);
    if (pb_gguf_is(path))
        return inspect_gguf(out, path);
    if (ends_with(path, ".safetensors"))
        return inspect_safetensors(out, path);
    if (ends_with(path, ".jsonl"))
        return inspect_journal(out, path);
    if (ends_with(path, ".json") || ends_with(path, ".model"))
        return inspect_tokenizer(out, path);
    // llama2.c's two kinds of files have no name or magic of their own.
    return inspect_tokenizer(out, path) ? inspect_model(out, path) : PB_OK;
}

// ---------------------------------------------------------------- printing

static void print_scalar(const json_t *v, int width)
{
    char text[64] = "";
    if (json_is_integer(v))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        snprintf(text, sizeof text, "%.6g", json_real_value(v));
    else if (json_is_boolean(v))
        snprintf(text, sizeof text, "%s", json_is_true(v) ? "yes" : "no");
    else if (json_is_null(v))
        snprintf(text, sizeof text, "none");
    printf("%*s", width, json_is_string(v) ? json_string_value(v) : text);
}

static int scalar_width(const json_t *v)
{
    if (json_is_string(v))
        return (int)json_string_length(v);
    if (json_is_integer(v))
        return snprintf(NULL, 0, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v))
        return snprintf(NULL, 0, "%.6g", json_real_value(v));
    return 4;
}

static void print_object(const json_t *o, int indent);

// Objects with the same keys and plain values: a column each, text to the left.
static void print_table(const json_t *rows, int indent)
{
    const char *key;
    json_t *v;
    const json_t *first = json_array_get(rows, 0);
    for (size_t i = 0; i <= json_array_size(rows); i++) {
        int space = indent;
        json_object_foreach((json_t *)first, key, v)
        {
            int width = (int)strlen(key);
            for (size_t k = 0; k < json_array_size(rows); k++) {
                int own = scalar_width(json_object_get(json_array_get(rows, k), key));
                width = own > width ? own : width;
            }
            int side = json_is_string(v) ? -width : width;
            printf("%*s", space, "");
            space = 2;
            if (i == 0)
                printf("%*s", side, key);
            else
                print_scalar(json_object_get(json_array_get(rows, i - 1), key), side);
        }
        printf("\n");
    }
}

static bool is_plain(const json_t *o)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        if (json_is_object(v) || json_is_array(v))
            return false;
    }
    return true;
}

static void print_list(const json_t *list, int indent)
{
    size_t n = json_array_size(list);
    bool table = true;
    for (size_t i = 0; i < n; i++)
        table =
            table && json_is_object(json_array_get(list, i)) && is_plain(json_array_get(list, i));
    if (table) {
        printf("\n");
        print_table(list, indent + 2);
        return;
    }
    if (json_is_object(json_array_get(list, 0)))
        printf("\n");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_object(v)) {
            print_object(v, indent + 2);
        } else {
            printf(i ? ", " : " ");
            print_scalar(v, 0);
            printf(i + 1 < n ? "" : "\n");
        }
    }
}

static void print_object(const json_t *o, int indent)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        if ((json_is_array(v) && !json_array_size(v)) ||
            (json_is_object(v) && !json_object_size(v)))
            continue;
        printf("%*s%s:", indent, "", key);
        if (json_is_object(v)) {
            printf("\n");
            print_object(v, indent + 2);
        } else if (json_is_array(v)) {
            print_list(v, indent);
        } else {
            printf(" ");
            print_scalar(v, 0);
            printf("\n");
        }
    }
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    json_t *out = json_object();
    if (!out)
        return pb_fail(PB_MEMORY, NULL, "no memory for a summary");
    pb_err err = inspect(out, a.path);
    if (!err && a.json) {
        char *text = json_dumps(out, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        puts(text ? text : "{}");
        free(text);
    } else if (!err) {
        print_object(out, 0);
    }
    json_decref(out);
    return err;
}

PB_COMMAND(inspect) = {"inspect", "say what a model, adapter or result file is", 63, run};
