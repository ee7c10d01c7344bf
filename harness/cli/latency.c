// `pedrobench latency`: times of many tenants in one batch, and why they are what they are.
#include "cli/common/common.h"
#include "cli/common/grid.h"
#include "cli/common/latency_run.h"
#include "cli/common/settings.h"
#include "core/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    json_t *config;
    const char *out;
    pb_format format;
};

enum { RANDOM = 256, MIN_SAMPLES, PHASES, BEAMS, MAX_BEAMS = 16 };

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 0},
    {"random", RANDOM, "GEOMETRY", 0,
     "Random weights instead: a preset (`pedrobench model list`), in bf16, or "
     "WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB, e.g. 288x768x6x6x6x32000",
     0},
    {"methods", 'x', "NAMES", 0, "Methods to compare (default lora,ia3,prefix,pedro)", 0},
    {"budget", 'b', "N", 0,
     "Trainable parameters of each: a count, or a share of the backbone (default 0.5%)", 0},
    {"tenants", 't', "NUMBERS", 0, "Requests per batch, one per tenant (default 1,2,4,8,16)", 0},
    {"phases", PHASES, "NAMES", 0,
     "Some of prefill, decode and generate (default prefill,decode, and with --beams generate)", 0},
    {"beams", BEAMS, "NUMBERS", 0, "Beams of whole generations (default 1)", 0},
    {"prompt", 'p', "N", 0, "Tokens of every prompt (default 64)", 0},
    {"new", 'n', "N", 0, "New tokens of a response (default 32)", 0},
    {"seconds", 's', "S", 0, "Time for all measurements (default 60)", 0},
    {"min-samples", MIN_SAMPLES, "N", 0,
     "Samples that every arm gets, whatever the time (default 6)", 0},
    {"seed", 'r', "N", 0, "Seed of weights, prompts and order (default 1)", 0},
    {"out", 'o', "FILE.h5", 0, "Write the raw samples there", 0},
    {"format", 'f', "FORM", 0, "text (default), markdown or csv", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    PB_WEIGHTS_OPTION,
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'm':
    case RANDOM:
        pb_set_model(state, a->config, arg, key == RANDOM);
        break;
    case 'x':
        pb_set_list(state, a->config, "methods", "--methods", arg, false);
        break;
    case 't':
        pb_set_list(state, a->config, "tenants", "--tenants", arg, true);
        break;
    case PHASES:
        pb_set_list(state, a->config, "phases", "--phases", arg, false);
        break;
    case BEAMS:
        pb_set_list(state, a->config, "beams", "--beams", arg, true);
        break;
    case 'b':
        pb_set(state, a->config, "budget", json_string(arg));
        break;
    case 'p':
        pb_set_size(state, a->config, "prompt", "--prompt", arg);
        break;
    case 'n':
        pb_set_size(state, a->config, "new", "--new", arg);
        break;
    case MIN_SAMPLES:
        pb_set_size(state, a->config, "min_samples", "--min-samples", arg);
        break;
    case 'r':
        pb_set_size(state, a->config, "seed", "--seed", arg);
        break;
    case 's':
        pb_set_real(state, a->config, "seconds", "--seconds", arg, 1e-3, 1e6);
        break;
    case 'o':
        a->out = arg;
        break;
    case 'f':
        if (pb_parse_format(&a->format, arg))
            pb_usage_error(state);
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case PB_KEY_WEIGHTS:
        pb_set(state, a->config, "weights", json_string(arg));
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!json_object_get(a->config, "model"))
            pb_set(state, a->config, "model", json_string(pb_default_model()));
        if (json_object_get(a->config, "beams") && !json_object_get(a->config, "phases"))
            pb_set(state, a->config, "phases", json_pack("[sss]", "prefill", "decode", "generate"));
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    NULL,
    "Times prefill, decoding and whole generations of batches in which every request may have "
    "another adapter, beside the base model, inactive hooks, a merged adapter, batches sorted and "
    "unsorted by adapter, one forward per tenant, and what the machine can do at the same time. "
    "Nothing else should run on it.\v"
    "Examples:\n"
    "  pedrobench latency --model MODEL --budget 0.5% --out latency.h5\n"
    "  pedrobench latency --random 288x768x6x6x6x32000 --tenants 1,4 --seconds 25\n"
    "  pedrobench latency --random tinyllama --phases generate --beams 1,3 \\\n"
    "      --tenants 1,4 --prompt 274 --budget 0.14% --out efficiency.h5\n"
    "  pedrobench table latency.h5 --latency",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- the tables

typedef struct view { // what a table is about
    const char *phase;
    size_t beam;
} view;

static bool in_view(const pb_latency_row *w, view v)
{
    return !strcmp(w->r.phase, v.phase) && w->r.beam == v.beam && strcmp(w->r.sharing, "limit");
}

static const pb_latency_row *find(const pb_latency_report *p, view v, const pb_latency_row *like,
                                  size_t rows)
{
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_result *r = &p->rows[i].r;
        if (in_view(&p->rows[i], v) && !strcmp(r->method, like->r.method) &&
            !strcmp(r->sharing, like->r.sharing) && (!rows || r->rows == rows))
            return &p->rows[i];
    }
    return NULL;
}

static bool first_of_its_arm(const pb_latency_report *p, view v, const pb_latency_row *w)
{
    return in_view(w, v) && find(p, v, w, 0) == w;
}

// Batch sizes of a view, in the order measured.
static size_t sizes_of(const pb_latency_report *p, view v, size_t *out, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_rows && n < most; i++)
        if (in_view(&p->rows[i], v) && (!n || out[n - 1] != p->rows[i].r.rows))
            out[n++] = p->rows[i].r.rows;
    return n;
}

static double tokens_per_second(const pb_latency_row *w)
{
    return 1e3 * (double)w->r.tokens / w->median;
}

static void add_arm(pb_grid *g, const pb_latency_row *w)
{
    pb_grid_add(g, "%s", w->r.method);
    pb_grid_add(g, "%s", w->r.sharing);
}

// Times: arms down, batch sizes across.
static pb_err times_table(const pb_latency_report *p, view v, pb_format f)
{
    size_t size[PB_GRID_COLS - 2], n = sizes_of(p, v, size, PB_GRID_COLS - 2);
    char title[200];
    pb_grid g = {.format = f, .cols = n + 2};
    if (!n)
        return PB_OK;
    pb_grid_add(&g, "method");
    pb_grid_add(&g, "sharing");
    for (size_t i = 0; i < n; i++)
        pb_grid_add(&g, "%zu", size[i]);
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        if (!first_of_its_arm(p, v, w))
            continue;
        add_arm(&g, w);
        for (size_t k = 0; k < n; k++) {
            const pb_latency_row *x = find(p, v, w, size[k]);
            if (x)
                pb_grid_add(&g, "%.*f (%.3f)", x->median < 100 ? 3 : 1, x->median, x->ratio);
            else
                pb_grid_add(&g, "-");
        }
    }
    if (!strcmp(v.phase, "decode"))
        snprintf(title, sizeof title,
                 "Decode: median ms per step = per token of each request (over base), by requests "
                 "in the batch");
    else
        snprintf(title, sizeof title,
                 "Prefill: median ms to the first token, prompts of %zu tokens (over base), by "
                 "requests in the batch",
                 p->prompt);
    return pb_grid_print(&g, title, 2);
}

// Whole generations: new tokens per second and memory, arms down, batch sizes across.
static pb_err generations_table(const pb_latency_report *p, view v, pb_format f)
{
    enum { SIZES = (PB_GRID_COLS - 2) / 2 };
    size_t size[SIZES], n = sizes_of(p, v, size, SIZES);
    char title[240];
    pb_grid g = {.format = f, .cols = 2 * n + 2};
    if (!n)
        return PB_OK;
    pb_grid_add(&g, "method");
    pb_grid_add(&g, "sharing");
    for (size_t i = 0; i < n; i++) {
        pb_grid_add(&g, "%zu", size[i]);
        pb_grid_add(&g, "GB");
    }
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        if (!first_of_its_arm(p, v, w))
            continue;
        add_arm(&g, w);
        for (size_t k = 0; k < n; k++) {
            const pb_latency_row *x = find(p, v, w, size[k]);
            if (x) {
                pb_grid_add(&g, "%.2f (%.3f)", tokens_per_second(x), 1 / x->ratio);
                pb_grid_add(&g, "%.2f", (double)x->r.memory * 1e-9);
            } else {
                pb_grid_add(&g, "-");
                pb_grid_add(&g, "-");
            }
        }
    }
    snprintf(title, sizeof title,
             "Generation, beam %zu: new tokens per second of the batch (over base) and memory of a "
             "server of this arm, by requests in the batch; %zu prompt and %zu new tokens",
             v.beam, p->prompt, p->fresh);
    return pb_grid_print(&g, title, 2);
}

static pb_err memory_table(const pb_latency_report *p, pb_format f)
{
    view v = {p->rows[0].r.phase, p->rows[0].r.beam};
    char title[200];
    pb_grid g = {.format = f, .cols = 7};
    static const char *const head[] = {"method",        "knob",     "trainable",  "of budget",
                                       "adapter bytes", "KV bytes", "state bytes"};
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        const pb_latency_tenant *t =
            w->r.method_index < p->n_tenants ? &p->tenant[w->r.method_index] : NULL;
        bool merged = !strcmp(w->r.method, "merged"), base = !strcmp(w->r.method, "base");
        if (!first_of_its_arm(p, v, w) ||
            (t ? strcmp(w->r.sharing, "different") : !merged && !base))
            continue;
        pb_grid_add(&g, "%s", w->r.method);
        if (t && *t->knob)
            pb_grid_add(&g, "%s=%ld", t->knob, t->value);
        else
            pb_grid_add(&g, "-");
        if (t) {
            pb_grid_add(&g, "%zu", t->trainable);
            pb_grid_add(&g, "%+.1f%%", 100 * ((double)t->trainable / (double)p->budget - 1));
        } else {
            pb_grid_add(&g, "-");
            pb_grid_add(&g, "-");
        }
        pb_grid_add(&g, "%zu", w->r.adapter_bytes);
        pb_grid_add(&g, "%zu", w->r.kv_bytes);
        pb_grid_add(&g, "%zu", w->r.state_bytes);
    }
    snprintf(
        title, sizeof title,
        "Memory: one tenant's adapter, and keys, values and state of one sequence of %zu + %zu "
        "tokens",
        p->prompt, p->fresh);
    PB_TRY(pb_grid_print(&g, title, 2));
    printf("%sThe backbone takes %zu bytes once; a merged tenant takes a backbone of its own.\n",
           f == PB_MARKDOWN ? "\n" : "", p->backbone_bytes);
    return PB_OK;
}

static void add_share(pb_grid *g, double share)
{
    if (isfinite(share))
        pb_grid_add(g, "%.1f", 100 * share);
    else
        pb_grid_add(g, "-");
}

// Of the largest batch.
static pb_err work_table(const pb_latency_report *p, view v, pb_format f)
{
    size_t size[64], n = sizes_of(p, v, size, 64);
    char title[240], beam[32] = "";
    static const char *const head[] = {"method",   "sharing",    "MFLOP/token",    "of adapter",
                                       "kB/token", "of adapter", "regions/sample", "of limit",
                                       "backbone", "attention",  "adapter",        "head"};
    pb_grid g = {.format = f, .cols = sizeof head / sizeof *head};
    if (!n)
        return PB_OK;
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        const pb_counts *a = &w->r.counts[PB_ADAPTER], *t = &w->total;
        double tokens = (double)w->r.tokens;
        if (!in_view(w, v) || w->r.rows != size[n - 1])
            continue;
        add_arm(&g, w);
        pb_grid_add(&g, "%.4g", t->flops / tokens * 1e-6);
        pb_grid_add(&g, "%.4g", a->flops / tokens * 1e-6);
        pb_grid_add(&g, "%.5g", t->bytes / tokens * 1e-3);
        pb_grid_add(&g, "%.4g", a->bytes / tokens * 1e-3);
        pb_grid_add(&g, "%zu", t->regions);
        add_share(&g, w->of_limit);
        for (int c = 0; c < PB_COMPONENTS; c++)
            add_share(&g, t->ns ? (double)w->r.counts[c].ns / (double)t->ns : NAN);
    }
    if (v.beam)
        snprintf(beam, sizeof beam, ", beam %zu", v.beam);
    snprintf(
        title, sizeof title,
        "Why (%s, %zu request%s%s): what the operations count; %% of the machine's limit; %% of "
        "the time by component",
        v.phase, size[n - 1], size[n - 1] == 1 ? "" : "s", beam);
    return pb_grid_print(&g, title, 2);
}

// What the machine could do while the largest batch was measured.
static void limits(const pb_latency_report *p, pb_format f)
{
    const pb_latency_row *flops = NULL, *bytes = NULL;
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        if (strcmp(w->r.sharing, "limit"))
            continue;
        if (w->r.part[0].flops > 0)
            flops = w;
        else
            bytes = w;
    }
    if (!flops || !bytes)
        return;
    printf("%sThe machine in the same rounds (%s, %zu request%s): %.1f GFLOP/s of multiply-adds, "
           "%.1f GB/s reading %.1f MB.\n",
           f == PB_MARKDOWN ? "\n" : "", flops->r.phase, flops->r.rows,
           flops->r.rows == 1 ? "" : "s", flops->r.part[0].flops / flops->median * 1e-6,
           bytes->r.part[0].bytes / bytes->median * 1e-6, bytes->r.part[0].bytes * 1e-6);
}

static void floors(const pb_latency_report *p, pb_format f)
{
    bool any = false;
    printf(f == PB_MARKDOWN ? "\n" : "\nNoise floor, base against itself:");
    if (f == PB_MARKDOWN)
        printf("Noise floor, base against itself:");
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        if (strcmp(w->r.method, "base-again") || !isfinite(w->floor))
            continue;
        printf("%s %s %zu", any ? "," : "", w->r.phase, w->r.rows);
        if (w->r.beam)
            printf(" beam %zu", w->r.beam);
        printf(": %.1f%%", 100 * w->floor);
        any = true;
    }
    printf(any ? ".\nSmaller differences mean nothing.\n" : " not measured.\n");
}

static void csv(const pb_latency_report *p)
{
    printf("phase,method,sharing,rows,tenants,prompt,beam,tokens_per_sample,samples,median_ms,"
           "lo95_ms,hi95_ms,mad_ms,p90_ms,over_base,noise_floor,tokens_per_second,adapter_bytes,"
           "kv_bytes,state_bytes,memory_bytes,flops_per_token,bytes_per_token,regions_per_token,"
           "adapter_flops_per_token,adapter_bytes_per_token,adapter_regions_per_token,of_limit,"
           "backbone_share,attention_share,adapter_share,head_share\n");
    for (size_t i = 0; i < p->n_rows; i++) {
        const pb_latency_row *w = &p->rows[i];
        const pb_counts *a = &w->r.counts[PB_ADAPTER];
        double tokens = (double)w->r.tokens;
        double ns = w->total.ns ? (double)w->total.ns : NAN;
        const double numbers[] = {w->median,
                                  w->lo,
                                  w->hi,
                                  w->mad,
                                  w->p90,
                                  w->ratio,
                                  w->floor,
                                  tokens_per_second(w),
                                  (double)w->r.adapter_bytes,
                                  (double)w->r.kv_bytes,
                                  (double)w->r.state_bytes,
                                  w->r.memory ? (double)w->r.memory : NAN,
                                  w->total.flops / tokens,
                                  w->total.bytes / tokens,
                                  (double)w->total.regions / tokens,
                                  a->flops / tokens,
                                  a->bytes / tokens,
                                  (double)a->regions / tokens,
                                  w->of_limit,
                                  (double)w->r.counts[PB_BACKBONE].ns / ns,
                                  (double)w->r.counts[PB_ATTENTION].ns / ns,
                                  (double)w->r.counts[PB_ADAPTER].ns / ns,
                                  (double)w->r.counts[PB_HEAD].ns / ns};
        if (!strcmp(w->r.sharing, "limit"))
            continue;
        printf("%s,%s,%s,%zu,%zu,%zu,%zu,%zu,%zu", w->r.phase, w->r.method, w->r.sharing, w->r.rows,
               w->r.tenants, p->prompt, w->r.beam, w->r.tokens, w->r.n);
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            printf(isfinite(numbers[k]) ? ",%.9g" : ",", numbers[k]);
        printf("\n");
    }
}

static size_t beams_of(const pb_latency_report *p, view *out, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_rows && n < most; i++) {
        view v = {p->rows[i].r.phase, p->rows[i].r.beam};
        size_t k = 0;
        while (k < n && out[k].beam != v.beam)
            k++;
        if (v.beam && k == n)
            out[n++] = v;
    }
    return n;
}

static pb_err print_report(const pb_latency_report *p, pb_format f)
{
    view views[2 + MAX_BEAMS] = {{"decode", 0}, {"prefill", 0}};
    size_t n = 2 + beams_of(p, views + 2, MAX_BEAMS);
    size_t fewest = SIZE_MAX, most = 0;
    if (!p->n_rows)
        return PB_OK;
    if (f == PB_CSV) {
        csv(p);
        return PB_OK;
    }
    for (size_t i = 0; i < p->n_rows; i++) {
        size_t samples = p->rows[i].r.n;
        fewest = samples < fewest ? samples : fewest;
        most = samples > most ? samples : most;
    }
    printf("%s: %zu parameters, budget %zu (%.3f%%), %zu threads, %zu to %zu samples per arm\n",
           p->model, p->model_params, p->budget, 100 * (double)p->budget / (double)p->model_params,
           p->threads, fewest, most);
    for (size_t i = 0; i < n; i++)
        PB_TRY((views[i].beam ? generations_table : times_table)(p, views[i], f));
    floors(p, f);
    limits(p, f);
    PB_TRY(memory_table(p, f));
    for (size_t i = 0; i < n; i++)
        PB_TRY(work_table(p, views[i], f));
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.config = json_object()};
    pb_latency_report report;
    if (!a.config)
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = pb_latency_run_report(a.config, NULL, a.out, &report);
    // An interrupted run shows what it has; the error stays the one that stopped it.
    if (!err)
        err = print_report(&report, a.format);
    else if (err == PB_INTERRUPTED)
        (void)print_report(&report, a.format);
    pb_latency_report_free(&report);
    json_decref(a.config);
    return err;
}

PB_COMMAND(latency) = {"latency", "time many tenants in one batch", 40, run};
