#include "cli/common/latency_run.h"

#include "model/open_model.h"

#include "cli/common/measured.h"
#include "core/log.h"
#include "core/threads.h"
#include "results/stats.h"
#include "train/budget.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_METHODS = 16, MAX_SIZES = 16 };

typedef struct settings {
    const char *model, *budget; // budget: NULL when the configuration has a number
    int64_t budget_count, prompt, fresh, min_samples, seed;
    double seconds;
    const pb_method *method[MAX_METHODS];
    size_t n_methods, tenants[MAX_SIZES], n_tenants;
    pb_storage weights;
} settings;

// ---------------------------------------------------------------- configuration

static pb_err read_methods(settings *s, const json_t *list)
{
    s->n_methods = json_array_size(list);
    if (!json_is_array(list) || !s->n_methods || s->n_methods > MAX_METHODS)
        return pb_fail(PB_INPUT, "e.g. [\"lora\", \"pedro\"]",
                       "\"methods\" must be a list of 1 to %d names", MAX_METHODS);
    for (size_t i = 0; i < s->n_methods; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return pb_fail(PB_INPUT, NULL, "\"methods\" must hold names");
        if (!(s->method[i] = pb_method_find(name)))
            return PB_USAGE;
    }
    return PB_OK;
}

static pb_err read_tenants(settings *s, const json_t *list)
{
    s->n_tenants = json_array_size(list);
    if (!json_is_array(list) || !s->n_tenants || s->n_tenants > MAX_SIZES)
        return pb_fail(PB_INPUT, "e.g. [1, 2, 4, 8]",
                       "\"tenants\" must be a list of 1 to %d numbers", MAX_SIZES);
    for (size_t i = 0; i < s->n_tenants; i++) {
        json_int_t n = json_integer_value(json_array_get(list, i));
        if (n < 1 || n > 4096 || (i && (size_t)n <= s->tenants[i - 1]))
            return pb_fail(PB_INPUT, "e.g. [1, 2, 4, 8]",
                           "\"tenants\" must increase from 1 to at most 4096");
        s->tenants[i] = (size_t)n;
    }
    return PB_OK;
}

static pb_err read_settings(settings *s, const json_t *c)
{
    static const char *const known[] = {"kind",    "model",   "methods", "budget",      "tenants",
                                        "prompt",  "new",     "seconds", "min_samples", "seed",
                                        "threads", "weights", NULL};
    int64_t threads = pb_threads();
    const char *kind = "latency", *weights = "auto";
    PB_TRY(pb_json_only(c, known, "a latency configuration"));
    *s = (settings){.prompt = 64, .fresh = 32, .min_samples = 6, .seed = 1, .seconds = 60};
    PB_TRY(pb_json_opt_str(c, "kind", &kind));
    if (strcmp(kind, "latency"))
        return pb_fail(PB_INPUT, NULL, "\"kind\" is \"%.50s\", not \"latency\"", kind);
    PB_TRY(pb_json_str(c, "model", &s->model));
    PB_TRY(pb_json_opt_str(c, "weights", &weights));
    PB_TRY(pb_storage_find(&s->weights, weights));
    if (json_is_integer(json_object_get(c, "budget")))
        PB_TRY(pb_json_int(c, "budget", &s->budget_count, 1, (int64_t)1 << 50));
    else
        PB_TRY(pb_json_str(c, "budget", &s->budget));
    PB_TRY(read_methods(s, json_object_get(c, "methods")));
    PB_TRY(read_tenants(s, json_object_get(c, "tenants")));
    PB_TRY(pb_json_opt_int(c, "prompt", &s->prompt, 1, 1 << 20));
    PB_TRY(pb_json_opt_int(c, "new", &s->fresh, 1, 1 << 20));
    PB_TRY(pb_json_opt_int(c, "min_samples", &s->min_samples, 1, 100000));
    PB_TRY(pb_json_opt_int(c, "seed", &s->seed, 0, INT64_MAX));
    PB_TRY(pb_json_opt_real(c, "seconds", &s->seconds, 1e-3, 1e6));
    PB_TRY(pb_json_opt_int(c, "threads", &threads, 1, 1024));
    if (threads != pb_threads())
        return pb_fail(PB_USAGE, "set PB_THREADS to it",
                       "the configuration is for %lld threads, the program runs with %d",
                       (long long)threads, pb_threads());
    return PB_OK;
}

pb_err pb_latency_config(json_t **out, const json_t *config)
{
    settings s;
    if (!json_is_object(config))
        return pb_fail(PB_INPUT, NULL, "a latency configuration must be a JSON object");
    *out = json_pack("{s:s, s:[ssss], s:s, s:[iiiii], s:i, s:i, s:f, s:i, s:i, s:i}", //
                     "kind", "latency", "methods", "lora", "ia3", "prefix", "pedro",  //
                     "budget", "0.5%", "tenants", 1, 2, 4, 8, 16, "prompt", 64, "new", 32,
                     "seconds", 60.0, "min_samples", 6, "seed", 1, "threads", pb_threads());
    if (!*out || json_object_update(*out, (json_t *)config))
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    // 25 and 25.0 are one configuration.
    const json_t *seconds = json_object_get(*out, "seconds");
    if (json_is_integer(seconds))
        json_object_set_new(*out, "seconds", json_real((double)json_integer_value(seconds)));
    pb_err err = read_settings(&s, *out);
    if (err) {
        json_decref(*out);
        *out = NULL;
    }
    return err;
}

// ---------------------------------------------------------------- models

// A merged model is kept as the base is, so that their times compare: with fewer bits, folding
// rounds again.
static pb_err open_model(pb_model **out, const settings *s, const pb_model *base,
                         const pb_adapter *merge)
{
    pb_model_args args = {.merge = merge, .weights = s->weights};
    if (base && pb_storage_find(&args.weights, pb_model_storage(base)))
        args.weights = s->weights; // a mixture
    return pb_open_model(out, s->model, (uint64_t)s->seed, &args);
}

// A method without a knob is measured as it is, and its count tells.
static pb_err solve(void **options, pb_latency_tenant *t, const pb_method *m, const pb_config *c,
                    size_t budget)
{
    PB_TRY(pb_options_new(options, m));
    *t = (pb_latency_tenant){.name = m->name, .knob = m->knob ? m->knob : ""};
    if (m->knob)
        PB_TRY(pb_budget_solve(m, *options, c, budget, &t->trainable));
    else
        PB_TRY(pb_budget_count(m, *options, c, &t->trainable));
    t->value = pb_options_knob(m, *options);
    return PB_OK;
}

// ---------------------------------------------------------------- results

typedef struct keeper {
    pb_run *run; // or NULL
    pb_latency_report *report;
    pb_progress progress;
    bool started;
    double spent; // seconds
    const char *merged_from;
} keeper;

static pb_err summarise(pb_latency_row *w, const pb_latency_result *r)
{
    double *ms = malloc(2 * r->n * sizeof *ms), *off = ms + r->n;
    if (!ms)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu samples", r->n);
    for (size_t i = 0; i < r->n; i++)
        ms[i] = (double)r->samples[i] * 1e-6;
    pb_sort(ms, r->n);
    *w = (pb_latency_row){.r = *r};
    w->r.samples = NULL;
    w->median = pb_percentile(ms, r->n, 0.5);
    w->p90 = pb_percentile(ms, r->n, 0.9);
    pb_interval interval = pb_percentile_interval(ms, r->n, 0.5, 0.95);
    w->lo = interval.lo;
    w->hi = interval.hi;
    for (size_t i = 0; i < r->n; i++)
        off[i] = fabs(ms[i] - w->median);
    w->mad = pb_median(off, r->n);
    for (int c = 0; c < PB_COMPONENTS; c++) {
        w->total.flops += r->counts[c].flops;
        w->total.bytes += r->counts[c].bytes;
        w->total.regions += r->counts[c].regions;
    }
    free(ms);
    return PB_OK;
}

static json_t *attributes(const keeper *k, const pb_latency_row *w)
{
    const pb_latency_result *r = &w->r;
    const pb_latency_report *p = k->report;
    const pb_counts *a = &r->counts[PB_ADAPTER], *t = &w->total;
    double tokens = (double)r->tokens, rows = (double)r->rows;
    // Prompt tokens are as many per sample as the batch has; a step of a decode batch has one each.
    double forwards = strcmp(r->sharing, "loop") ? 1 : rows;
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, "
        "s:f, s:f, s:I, s:I}",
        "method", r->method, "phase", r->phase, "sharing", r->sharing,               //
        "tenants", (json_int_t)r->tenants, "rows", (json_int_t)r->rows,              //
        "prompt", (json_int_t)p->prompt, "tokens_per_sample", (json_int_t)r->tokens, //
        "resident_bytes_per_tenant", (json_int_t)r->adapter_bytes,                   //
        "kv_bytes_per_sequence", (json_int_t)r->kv_bytes,                            //
        "state_bytes_per_sequence", (json_int_t)r->state_bytes,                      //
        "backbone_bytes", (json_int_t)p->backbone_bytes,                             //
        "flops_per_token", t->flops / tokens, "bytes_per_token", t->bytes / tokens,  //
        "regions_per_token", (double)t->regions / tokens,                            //
        "adapter_flops_per_token", a->flops / tokens,                                //
        "adapter_bytes_per_token", a->bytes / tokens,                                //
        "adapter_regions_per_token", (double)a->regions / tokens,                    //
        "regions_per_step", (double)t->regions, "forwards_per_step", forwards,       //
        "excluded_runs", (json_int_t)r->excluded, "new", (json_int_t)p->fresh);
    if (j && r->method_index < p->n_tenants) {
        const pb_latency_tenant *m = &p->tenant[r->method_index];
        json_object_set_new(j, "trainable", json_integer((json_int_t)m->trainable));
        if (*m->knob) {
            json_object_set_new(j, "knob", json_string(m->knob));
            json_object_set_new(j, "knob_value", json_integer(m->value));
        }
    }
    if (j && !strcmp(r->method, "merged"))
        json_object_set_new(j, "merged_from", json_string(k->merged_from));
    return j;
}

static pb_err keep(void *self, const pb_latency_result *r)
{
    keeper *k = self;
    pb_latency_report *p = k->report;
    pb_latency_row *more = realloc(p->rows, (p->n_rows + 1) * sizeof *more);
    if (!more)
        return pb_fail(PB_MEMORY, NULL, "no memory for a result");
    p->rows = more;
    pb_latency_row *w = &p->rows[p->n_rows];
    PB_TRY(summarise(w, r));
    p->n_rows++;
    if (!k->run)
        return PB_OK;
    return pb_run_log_latency(k->run, r->name, attributes(k, w), r->samples, r->n);
}

static void progress(void *self, const char *what, double spent, double total)
{
    keeper *k = self;
    int64_t ms = (int64_t)(spent * 1e3), all = (int64_t)(total * 1e3);
    if (!k->started)
        pb_progress_begin(&k->progress, "latency (ms)", ms, all);
    k->started = true;
    k->spent = spent;
    k->progress.total = all > ms ? all : ms;
    pb_progress_update(&k->progress, ms, what);
}

static pb_latency_row *find_base(pb_latency_report *p, const pb_latency_row *w, const char *name)
{
    for (size_t i = 0; i < p->n_rows; i++)
        if (!strcmp(p->rows[i].r.method, name) && !strcmp(p->rows[i].r.phase, w->r.phase) &&
            p->rows[i].r.rows == w->r.rows)
            return &p->rows[i];
    return NULL;
}

static void compare(pb_latency_report *p)
{
    for (size_t i = 0; i < p->n_rows; i++) {
        pb_latency_row *w = &p->rows[i];
        const pb_latency_row *base = find_base(p, w, "base");
        const pb_latency_row *again = find_base(p, w, "base-again");
        w->ratio = base ? w->median / base->median : NAN;
        w->floor = base && again ? fabs(again->median / base->median - 1) : NAN;
    }
}

// The floors stand in the file too, by phase and batch size.
static pb_err note_floors(const keeper *k)
{
    json_t *note = json_pack("{s:s}", "event", "note");
    for (size_t i = 0; note && i < k->report->n_rows; i++) {
        const pb_latency_row *w = &k->report->rows[i];
        char key[64];
        if (strcmp(w->r.method, "base-again") || !isfinite(w->floor))
            continue;
        snprintf(key, sizeof key, "noise_floor_%s_%zu", w->r.phase, w->r.rows);
        json_object_set_new(note, key, json_real(w->floor));
    }
    return pb_run_event(k->run, note);
}

void pb_latency_report_free(pb_latency_report *r)
{
    free(r->rows);
    *r = (pb_latency_report){0};
}

pb_err pb_latency_run_report(const json_t *config, pb_model *m, const char *h5,
                             pb_latency_report *report)
{
    pb_err err = PB_OK;
    settings s;
    json_t *full = NULL, *env = NULL, *seeds = NULL;
    pb_model *own = NULL, *merged = NULL;
    pb_adapter *folded = NULL;
    void *options[MAX_METHODS] = {0};
    pb_latency_method methods[MAX_METHODS];
    keeper k = {.report = report, .merged_from = ""};
    char hash[PB_HASH_LEN];
    *report = (pb_latency_report){0};
    PB_GO(pb_latency_config(&full, config));
    PB_GO(read_settings(&s, full));
    if (h5) {
        PB_GO(pb_config_hash(hash, full));
        PB_GO(pb_run_is_complete(h5, hash, &report->complete, NULL, 0));
        if (report->complete) {
            pb_info("%s: complete, with the same configuration; nothing to do", h5);
            goto done;
        }
    }
    if (!m)
        PB_GO(open_model(&own, &s, NULL, NULL));
    const pb_model *base = m ? m : own;
    report->budget = (size_t)s.budget_count;
    if (s.budget)
        PB_GO(pb_budget_parse(s.budget, &base->config, &report->budget));
    report->model_params = pb_config_params(&base->config);
    report->backbone_bytes = pb_model_resident(base);
    report->prompt = (size_t)s.prompt;
    report->fresh = (size_t)s.fresh;
    report->threads = (size_t)pb_threads();
    snprintf(report->model, sizeof report->model, "%s", s.model);
    for (size_t i = 0; i < s.n_methods; i++) {
        PB_GO(solve(&options[i], &report->tenant[i], s.method[i], &base->config, report->budget));
        report->n_tenants++;
        methods[i] = (pb_latency_method){s.method[i], options[i]};
    }
    // LoRA if it is there, the method that is usually merged; else the first that this backbone can
    // take in.
    for (size_t i = 0; i < 2 * s.n_methods && !merged; i++) {
        size_t at = i % s.n_methods;
        const pb_method *which = s.method[at];
        if (!which->merge || (i < s.n_methods && strcmp(which->name, "lora") != 0))
            continue;
        PB_GO(pb_latency_adapter(&folded, &methods[at], &base->config, (uint64_t)s.seed, 0));
        err = open_model(&merged, &s, base, folded);
        k.merged_from = which->name;
        if (err == PB_UNSUPPORTED) {
            pb_adapter_free(folded);
            folded = NULL;
            err = PB_OK;
        }
        PB_GO(err);
    }
    if (h5) {
        env = pb_measured_env(base);
        seeds = json_pack("{s:I}", "seed", (json_int_t)s.seed);
        PB_GO(pb_run_open(&k.run, h5, full, seeds, env, false));
    }
    pb_latency_plan plan = {.base = base,
                            .merged = merged,
                            .methods = methods,
                            .n_methods = s.n_methods,
                            .tenants = s.tenants,
                            .n_tenants = s.n_tenants,
                            .prompt = (size_t)s.prompt,
                            .fresh = (size_t)s.fresh,
                            .seconds = s.seconds,
                            .min_samples = (size_t)s.min_samples,
                            .seed = (uint64_t)s.seed};
    pb_latency_observer o = {&k, keep, progress};
    err = pb_latency_measure(&plan, &o);
    if (k.started)
        pb_progress_end(&k.progress, NULL);
    if (k.spent > 1.25 * s.seconds)
        pb_warn("%lld samples of every arm took %.1f s, more than the %g s asked for",
                (long long)s.min_samples, k.spent, s.seconds);
    compare(report);
    if (k.run && !err)
        err = note_floors(&k);
    if (k.run)
        err = pb_measured_end(k.run, err);
done:
    json_decref(full);
    json_decref(env);
    json_decref(seeds);
    for (size_t i = 0; i < MAX_METHODS; i++)
        free(options[i]);
    pb_adapter_free(folded);
    pb_model_close(merged);
    pb_model_close(own);
    return err;
}

pb_err pb_latency_run(const json_t *config, pb_model *m, const char *h5)
{
    pb_latency_report report;
    pb_err err = pb_latency_run_report(config, m, h5, &report);
    pb_latency_report_free(&report);
    return err;
}
