#include "cli/common/latency_run.h"

#include "bench/bench.h"
#include "model/open_model.h"

#include "cli/common/measured.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/threads.h"
#include "results/stats.h"
#include "train/budget.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_METHODS = 16, MAX_SIZES = 16, N_LIMITS = 2 };

typedef struct settings {
    const char *model, *budget; // budget: NULL when the configuration has a number
    int64_t budget_count, prompt, fresh, min_samples, seed;
    double seconds;
    const pb_method *method[MAX_METHODS];
    size_t n_methods, tenants[MAX_SIZES], n_tenants, beams[MAX_SIZES], n_beams;
    bool phase[PB_PHASES];
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

static pb_err read_sizes(size_t *out, size_t *n, const json_t *c, const char *key, int most)
{
    const json_t *list = json_object_get(c, key);
    *n = json_array_size(list);
    if (!json_is_array(list) || !*n || *n > MAX_SIZES)
        return pb_fail(PB_INPUT, "e.g. [1, 2, 4, 8]", "\"%s\" must be a list of 1 to %d numbers",
                       key, MAX_SIZES);
    for (size_t i = 0; i < *n; i++) {
        json_int_t x = json_integer_value(json_array_get(list, i));
        if (x < 1 || x > most || (i && (size_t)x <= out[i - 1]))
            return pb_fail(PB_INPUT, "e.g. [1, 2, 4, 8]",
                           "\"%s\" must increase from 1 to at most %d", key, most);
        out[i] = (size_t)x;
    }
    return PB_OK;
}

static pb_err read_phases(settings *s, const json_t *list)
{
    if (!json_array_size(list))
        return pb_fail(PB_INPUT, "e.g. [\"prefill\", \"decode\"]",
                       "\"phases\" must be a list of names");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int p = 0;
        while (name && p < PB_PHASES && strcmp(name, pb_latency_phases[p]))
            p++;
        if (!name || p == PB_PHASES)
            return pb_fail(PB_USAGE, "prefill, decode, generate", "unknown phase \"%.50s\"",
                           name ? name : "");
        s->phase[p] = true;
    }
    return PB_OK;
}

static pb_err read_settings(settings *s, const json_t *c)
{
    static const char *const known[] = {"kind",        "model", "methods", "budget",  "tenants",
                                        "phases",      "beams", "prompt",  "new",     "seconds",
                                        "min_samples", "seed",  "threads", "weights", NULL};
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
    PB_TRY(read_sizes(s->tenants, &s->n_tenants, c, "tenants", 4096));
    PB_TRY(read_phases(s, json_object_get(c, "phases")));
    PB_TRY(read_sizes(s->beams, &s->n_beams, c, "beams", 64));
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
    *out = json_pack(
        "{s:s, s:[ssss], s:s, s:[iiiii], s:[ss], s:[i], s:i, s:i, s:f, s:i, s:i, s:i}", //
        "kind", "latency", "methods", "lora", "ia3", "prefix", "pedro", "budget", "0.5%", "tenants",
        1, 2, 4, 8, 16, "phases", "prefill", "decode", "beams", 1, "prompt", 64, "new", 32,
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
    pb_latency_result limit[N_LIMITS]; // of the phase and batch size at hand
    size_t n_limits;
} keeper;

// ---------------------------------------------------------------- the machine

static pb_err sample_limit(void *self, double *seconds)
{
    pb_arm *a = self;
    PB_TRY(a->sample(a->self, true, a->runs, seconds));
    *seconds /= (double)a->runs;
    return PB_OK;
}

// Multiply-adds, and reading as many bytes as the backbone has (of a backbone larger than all
// caches less: the memory's speed is the same).
static pb_err make_limits(pb_work *w, pb_latency_limit *limit, size_t backbone)
{
    const double most = 512e6, least_seconds = 2e-3;
    int arm;
    double bytes = (double)backbone;
    PB_TRY(pb_limit_flops(w, pb_threads()));
    PB_TRY(pb_limit_bytes(w, bytes < most ? bytes : most, pb_threads(), &arm));
    for (size_t i = 0; i < N_LIMITS; i++) {
        pb_arm *a = &w->arm[i];
        PB_TRY(pb_arm_calibrate(a, least_seconds));
        limit[i] = (pb_latency_limit){a->kind == PB_ARM_FLOPS ? "multiply-adds" : "reading",
                                      a->kind == PB_ARM_FLOPS ? a->flops : 0,
                                      a->kind == PB_ARM_BYTES ? a->bytes : 0, sample_limit, a};
    }
    return PB_OK;
}

// Seconds that the machine would need for an arm's work in a round; the parts are limited apart.
static double least_seconds(const keeper *k, const pb_latency_result *r, size_t round)
{
    double sum = 0, flop = 0, byte = 0; // seconds of one
    for (size_t i = 0; i < k->n_limits; i++) {
        const pb_latency_result *l = &k->limit[i];
        double t = (double)l->samples[round] * 1e-9;
        if (l->part[0].flops > 0)
            flop = t / l->part[0].flops;
        if (l->part[0].bytes > 0)
            byte = t / l->part[0].bytes;
    }
    for (size_t p = 0; p < PB_LATENCY_PARTS; p++)
        sum += fmax(r->part[p].flops * flop, r->part[p].bytes * byte);
    return sum;
}

// Median over the rounds of the share of its time that the machine would need; NaN without limits.
static pb_err of_limit(double *out, const keeper *k, const pb_latency_result *r)
{
    size_t n = r->n;
    for (size_t i = 0; i < k->n_limits; i++)
        n = k->limit[i].n < n ? k->limit[i].n : n;
    *out = NAN;
    if (k->n_limits < N_LIMITS || !n)
        return PB_OK;
    double *share = malloc(n * sizeof *share);
    if (!share)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu samples", n);
    for (size_t i = 0; i < n; i++)
        share[i] = least_seconds(k, r, i) / ((double)r->samples[i] * 1e-9);
    *out = pb_median(share, n);
    free(share);
    return PB_OK;
}

// Limits come before the arms of their phase and batch size.
static void note_limit(keeper *k, const pb_latency_result *r)
{
    bool anew = k->n_limits && (strcmp(k->limit[0].phase, r->phase) ||
                                k->limit[0].rows != r->rows || k->limit[0].beam != r->beam);
    if (anew)
        k->n_limits = 0;
    if (k->n_limits < N_LIMITS)
        k->limit[k->n_limits++] = *r;
}

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
    for (int c = 0; c < PB_COMPONENTS; c++)
        pb_counts_add(&w->total, &r->counts[c]);
    free(ms);
    return PB_OK;
}

static void set(json_t *j, const char *key, double x)
{
    if (isfinite(x))
        json_object_set_new(j, key, json_real(x));
}

// What kind of arm it is; all arms have these.
static json_t *identity(const keeper *k, const pb_latency_result *r)
{
    const pb_latency_report *p = k->report;
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "method", r->method,
                  "phase", r->phase, "sharing", r->sharing, "tenants", (json_int_t)r->tenants,
                  "rows", (json_int_t)r->rows, "prompt", (json_int_t)p->prompt, "new",
                  (json_int_t)p->fresh, "budget", (json_int_t)p->budget, "tokens_per_sample",
                  (json_int_t)r->tokens, "excluded_runs", (json_int_t)r->excluded);
    if (j && r->beam)
        json_object_set_new(j, "beam", json_integer((json_int_t)r->beam));
    return j;
}

static json_t *limit_attributes(const keeper *k, const pb_latency_result *r)
{
    json_t *j = identity(k, r);
    if (!j)
        return NULL;
    set(j, "flops_per_sample", r->part[0].flops);
    set(j, "bytes_per_sample", r->part[0].bytes);
    return j;
}

static void set_counts(json_t *j, const pb_latency_row *w)
{
    static const char *const names[PB_COMPONENTS] = {[PB_BACKBONE] = "backbone",
                                                     [PB_ATTENTION] = "attention",
                                                     [PB_ADAPTER] = "adapter",
                                                     [PB_HEAD] = "head"};
    const pb_counts *t = &w->total;
    double tokens = (double)w->r.tokens;
    set(j, "flops_per_token", t->flops / tokens);
    set(j, "bytes_per_token", t->bytes / tokens);
    set(j, "regions_per_token", (double)t->regions / tokens);
    set(j, "regions_per_sample", (double)t->regions);
    for (int c = 0; c < PB_COMPONENTS; c++) {
        const pb_counts *n = &w->r.counts[c];
        const struct {
            const char *what;
            double x;
        } values[] = {{"flops_per_token", n->flops / tokens},
                      {"bytes_per_token", n->bytes / tokens},
                      {"regions_per_token", (double)n->regions / tokens},
                      {"time_share", t->ns ? (double)n->ns / (double)t->ns : NAN}};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            char key[64];
            snprintf(key, sizeof key, "%s_%s", names[c], values[i].what);
            set(j, key, values[i].x);
        }
    }
}

static json_t *attributes(const keeper *k, const pb_latency_row *w)
{
    const pb_latency_result *r = &w->r;
    const pb_latency_report *p = k->report;
    json_t *j = identity(k, r);
    if (!j)
        return NULL;
    set(j, "resident_bytes_per_tenant", (double)r->adapter_bytes);
    set(j, "kv_bytes_per_sequence", (double)r->kv_bytes);
    set(j, "state_bytes_per_sequence", (double)r->state_bytes);
    set(j, "backbone_bytes", (double)p->backbone_bytes);
    set(j, "of_limit", w->of_limit);
    set_counts(j, w);
    if (r->memory)
        set(j, "memory_bytes", (double)r->memory);
    if (r->method_index < p->n_tenants) {
        const pb_latency_tenant *m = &p->tenant[r->method_index];
        json_object_set_new(j, "trainable", json_integer((json_int_t)m->trainable));
        if (*m->knob) {
            json_object_set_new(j, "knob", json_string(m->knob));
            json_object_set_new(j, "knob_value", json_integer(m->value));
        }
    }
    if (!strcmp(r->method, "merged"))
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
    bool limit = !strcmp(r->sharing, "limit");
    PB_TRY(summarise(w, r));
    p->n_rows++;
    if (limit)
        note_limit(k, r);
    else
        PB_TRY(of_limit(&w->of_limit, k, r));
    if (!k->run)
        return PB_OK;
    return pb_run_log_latency(k->run, r->name, (limit ? limit_attributes(k, r) : attributes(k, w)),
                              r->samples, r->n);
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
            p->rows[i].r.rows == w->r.rows && p->rows[i].r.beam == w->r.beam)
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
static pb_err note_run(const keeper *k)
{
    const char *left_out = k->report->merged_left_out;
    json_t *note =
        json_pack("{s:s, s:s*, s:I}", "event", "note", "merged_left_out",
                  *left_out ? left_out : NULL, "process_peak_bytes", (json_int_t)pb_memory_peak());
    for (size_t i = 0; note && i < k->report->n_rows; i++) {
        const pb_latency_row *w = &k->report->rows[i];
        char key[64];
        if (strcmp(w->r.method, "base-again") || !isfinite(w->floor))
            continue;
        int n = snprintf(key, sizeof key, "noise_floor_%s_%zu", w->r.phase, w->r.rows);
        if (w->r.beam)
            snprintf(key + n, sizeof key - (size_t)n, "_beam_%zu", w->r.beam);
        json_object_set_new(note, key, json_real(w->floor));
    }
    return pb_run_event(k->run, note);
}

void pb_latency_report_free(pb_latency_report *r)
{
    free(r->rows);
    *r = (pb_latency_report){0};
}

// LoRA if it is there, the method that is usually merged; else the first that this backbone can
// take in. None may be.
static pb_err open_merged(pb_model **out, const char **from, const settings *s,
                          const pb_latency_plan *p)
{
    for (size_t i = 0; i < 2 * p->n_methods; i++) {
        size_t at = i % p->n_methods;
        const pb_method *which = p->methods[at].method;
        pb_adapter *folded;
        if (!which->merge || (i < p->n_methods && strcmp(which->name, "lora") != 0))
            continue;
        PB_TRY(pb_latency_adapter(&folded, &p->methods[at], &p->base->config, p->seed, 0));
        pb_err err = open_model(out, s, p->base, folded);
        pb_adapter_free(folded);
        *from = which->name;
        if (err != PB_UNSUPPORTED)
            return err;
    }
    return PB_OK;
}

// Refuses what does not fit into memory before it is spent; a merged backbone is left out for it.
static pb_err check_memory(pb_latency_report *report, const pb_latency_plan *p, bool *merged_fits)
{
    const double gb = 1e-9;
    size_t need, with_merged, there = pb_memory_available();
    PB_TRY(pb_latency_need(&need, p, false));
    PB_TRY(pb_latency_need(&with_merged, p, true));
    with_merged += report->backbone_bytes + report->backbone_bytes / 32;
    if (need > there)
        return pb_fail(
            PB_MEMORY,
            "fewer tenants, methods or beams, a shorter prompt, a smaller budget, or not "
            "all of --phases",
            "adapters, keys and values take %.2f GB beside the backbone, %.2f GB are free",
            (double)need * gb, (double)there * gb);
    *merged_fits = with_merged <= there;
    if (!*merged_fits) {
        snprintf(report->merged_left_out, sizeof report->merged_left_out,
                 "with a merged backbone %.2f GB would be needed, %.2f GB are free",
                 (double)with_merged * gb, (double)there * gb);
        pb_warn("no merged adapter: %s", report->merged_left_out);
    }
    return PB_OK;
}

pb_err pb_latency_run_report(const json_t *config, pb_model *m, const char *h5,
                             pb_latency_report *report)
{
    pb_err err = PB_OK;
    settings s;
    json_t *full = NULL, *env = NULL, *seeds = NULL;
    pb_model *own = NULL, *merged = NULL;
    pb_work machine = {.name = "limits"};
    pb_latency_limit limits[N_LIMITS];
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
    pb_latency_plan plan = {.base = base,
                            .methods = methods,
                            .n_methods = s.n_methods,
                            .limits = limits,
                            .n_limits = N_LIMITS,
                            .tenants = s.tenants,
                            .n_tenants = s.n_tenants,
                            .beams = s.beams,
                            .n_beams = s.n_beams,
                            .prompt = (size_t)s.prompt,
                            .fresh = (size_t)s.fresh,
                            .seconds = s.seconds,
                            .min_samples = (size_t)s.min_samples,
                            .seed = (uint64_t)s.seed};
    memcpy(plan.phase, s.phase, sizeof plan.phase);
    bool fits = true;
    PB_GO(check_memory(report, &plan, &fits));
    if (fits)
        PB_GO(open_merged(&merged, &k.merged_from, &s, &plan));
    plan.merged = merged;
    pb_threads_bind();
    PB_GO(make_limits(&machine, limits, report->backbone_bytes));
    if (h5) {
        env = pb_measured_env(base);
        seeds = json_pack("{s:I}", "seed", (json_int_t)s.seed);
        PB_GO(pb_run_open(&k.run, h5, full, seeds, env, false));
    }
    pb_latency_observer o = {&k, keep, progress};
    err = pb_latency_measure(&plan, &o);
    if (k.started)
        pb_progress_end(&k.progress, NULL);
    if (k.spent > 1.25 * s.seconds)
        pb_warn("%lld samples of every arm took %.1f s, more than the %g s asked for",
                (long long)s.min_samples, k.spent, s.seconds);
    compare(report);
    if (k.run && !err)
        err = note_run(&k);
    if (k.run)
        err = pb_measured_end(k.run, err);
done:
    json_decref(full);
    json_decref(env);
    json_decref(seeds);
    for (size_t i = 0; i < MAX_METHODS; i++)
        free(options[i]);
    pb_work_free(&machine);
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
