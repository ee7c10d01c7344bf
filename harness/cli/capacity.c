// `pedrobench capacity`: how many tenants, at which rate, within which limits, on which machine;
// from measured steps, by simulation.
#include "cli/common/capacity_run.h"
#include "cli/common/common.h"
#include "cli/common/grid.h"
#include "cli/common/settings.h"
#include "core/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    pb_capacity_question q;
    const char *out;
    pb_format format;
};

enum {
    VALIDATE = 256,
    MACHINE,
    RATE,
    SLO,
    QUANTILE,
    METHODS,
    MEMORY,
    ADAPTER_MEMORY,
    BANDWIDTH,
    FLOPS,
    CORES,
    DISK_LATENCY,
    DISK_BANDWIDTH,
    SLOTS,
    ROWS,
    PROMPT,
    OUTPUT,
    POPULARITY,
    CV,
    REQUESTS,
    EXACT
};

static const struct argp_option opts[] = {
    {NULL, 0, NULL, 0, "Measurements:", 1},
    {"validate", VALIDATE, "FILE.h5[,...]", 0,
     "Another run of `pedrobench serve`, not fitted on: its schedule is simulated, and measured "
     "and simulated times stand side by side; of several runs of one load their medians, and the "
     "range that was measured (repeatable)",
     1},
    {"machine", MACHINE, "FILE.h5", 0,
     "`pedrobench bench machine --out` of the measured machine: tells the time of reading weights "
     "from a step's fixed time, and is what absolute --bandwidth and --flops are compared with",
     1},
    {NULL, 0, NULL, 0, "Fleet:", 2},
    {"tenants", 't', "NUMBERS", 0, "How many (default 1,10,100,1k,10k,100k)", 2},
    {"methods", METHODS, "NAMES", 0,
     "Of all tenants: those that were measured (default: each), with other bytes per tenant as in "
     "lora=2M",
     2},
    {"popularity", POPULARITY, "HOW", 0,
     "uniform (default), zipf:S, geometric:P, identical, distinct", 2},
    {"prompt", PROMPT, "TOKENS", 0,
     "Lengths of prompts: 64, 16-128 or lognormal:MEDIAN,SIGMA,MOST (default, with those of "
     "responses: the measured requests')",
     2},
    {"output", OUTPUT, "TOKENS", 0, "Lengths of responses", 2},
    {"cv", CV, "X", 0, "Coefficient of variation of the gaps between requests (default 1)", 2},
    {"requests", 'n', "N", 0, "Simulated requests, a fifth of which is warm-up (default 20k)", 2},
    {"seed", 'r', "N", 0, "Seed of the workload (default 1)", 2},
    {NULL, 0, NULL, 0, "Question:", 3},
    {"slo", SLO, "LIMITS", 0,
     "Limits of times, e.g. ttft=200ms,tpot=50ms,e2e=5s: the largest rate within them is looked "
     "for",
     3},
    {"quantile", QUANTILE, "Q", 0, "Which quantile has to be within (default 0.99)", 3},
    {"rate", RATE, "R", 0, "Requests per second: what happens at this rate", 3},
    {NULL, 0, NULL, 0, "Machine:", 4},
    {"bandwidth", BANDWIDTH, "X", 0,
     "Of memory, reading as many bytes as the backbone has: bytes per second (200G), or 4x the "
     "measured",
     4},
    {"flops", FLOPS, "X", 0, "FLOPs per second (2000G), or 4x the measured", 4},
    {"cores", CORES, "N", 0,
     "Cores: FLOPs per second grow in proportion, bandwidth and fixed times stay", 4},
    {"memory", MEMORY, "BYTES", 0,
     "For the backbone, keys and values of all slots, and adapters (k, M, G)", 4},
    {"adapter-memory", ADAPTER_MEMORY, "BYTES", 0, "For adapters alone (default: no limit)", 4},
    {"disk-latency", DISK_LATENCY, "S", 0, "Seconds to load an adapter (default: as measured)", 4},
    {"disk-bandwidth", DISK_BANDWIDTH, "BYTES", 0, "Per second (default: as measured)", 4},
    {"slots", SLOTS, "N", 0, "Sequences at once (default: as measured)", 4},
    {"rows", ROWS, "N", 0, "Rows of a step (default: as many beside the slots as measured)", 4},
    {NULL, 0, NULL, 0, "Results:", 5},
    {"deterministic", EXACT, 0, 0,
     "A step takes what the fit says; without this, ratios of measured and fitted times are drawn",
     5},
    {"out", 'o', "FILE.json", 0, "Write fit, validation and answers there", 5},
    {"format", 'f', "FORM", 0, "text (default), markdown or csv", 5},
    {"quiet", 'q', 0, 0, "No progress", 5},
    {0}};

static void add_file(struct argp_state *state, const char **list, size_t *n, const char *path)
{
    if (*n == PB_CAPACITY_FILES)
        argp_error(state, "more than %d files", PB_CAPACITY_FILES);
    list[(*n)++] = path;
}

static pb_err parse_tenants(pb_capacity_question *q, const char *text)
{
    q->n_tenants = 0;
    for (const char *s = text;; s++) {
        char word[32];
        size_t len = strcspn(s, ",");
        snprintf(word, sizeof word, "%.*s", (int)len, s);
        if (q->n_tenants == PB_CAPACITY_NUMBERS || len >= sizeof word)
            return pb_fail(PB_USAGE, NULL, "--tenants names more than %d numbers",
                           PB_CAPACITY_NUMBERS);
        size_t *n = &q->tenants[q->n_tenants++];
        PB_TRY(pb_parse_size(word, "--tenants", n));
        if (!*n || *n > 1 << 24)
            return pb_fail(PB_USAGE, NULL, "%s tenants; between 1 and 16M can be simulated", word);
        s += len;
        if (!*s)
            return PB_OK;
    }
}

static pb_err parse_limits(pb_limit *l, const char *text)
{
    static const char *const names[] = {"ttft", "tpot", "e2e"};
    static const int measures[] = {PB_TTFT, PB_TPOT, PB_E2E};
    double ms[3] = {0};
    PB_TRY(pb_parse_limits(ms, names, 3, text));
    for (size_t k = 0; k < 3; k++)
        if (ms[k] > 0)
            l->most[measures[k]] = ms[k];
    return PB_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    pb_capacity_question *q = &a->q;
    size_t n = 0;
    pb_err err = PB_OK;
    switch (key) {
    case VALIDATE:
        add_file(state, q->validate, &q->n_validate, arg);
        break;
    case ARGP_KEY_ARG:
        add_file(state, q->fit, &q->n_fit, arg);
        break;
    case MACHINE:
        q->machine = arg;
        break;
    case 't':
        err = parse_tenants(q, arg);
        break;
    case METHODS:
        q->methods = arg;
        break;
    case POPULARITY:
        err = pb_popularity_parse(&q->load, arg);
        break;
    case PROMPT:
        err = pb_lengths_parse(&q->load.prompt, arg, "--prompt");
        break;
    case OUTPUT:
        err = pb_lengths_parse(&q->load.output, arg, "--output");
        break;
    case CV:
        err = pb_parse_real(arg, "--cv", 0, 100, &q->load.cv);
        break;
    case 'n':
        err = pb_parse_size(arg, "--requests", &q->requests);
        break;
    case 'r':
        err = pb_parse_size(arg, "--seed", &n);
        q->load.seed = n;
        break;
    case SLO:
        err = parse_limits(&q->limit, arg);
        break;
    case QUANTILE:
        err = pb_parse_real(arg, "--quantile", 0.01, 0.9999, &q->limit.quantile);
        break;
    case RATE:
        err = pb_parse_real(arg, "--rate", 1e-6, 1e9, &q->rate);
        break;
    case BANDWIDTH:
        q->bandwidth = arg;
        break;
    case FLOPS:
        q->flops = arg;
        break;
    case CORES:
        err = pb_parse_size(arg, "--cores", &q->cores);
        break;
    case MEMORY:
        err = pb_parse_size(arg, "--memory", &q->memory);
        break;
    case ADAPTER_MEMORY:
        err = pb_parse_size(arg, "--adapter-memory", &q->adapter_memory);
        break;
    case DISK_LATENCY:
        err = pb_parse_real(arg, "--disk-latency", 0, 1e6, &q->disk_latency);
        break;
    case DISK_BANDWIDTH:
        err = pb_parse_size(arg, "--disk-bandwidth", &n);
        q->disk_bandwidth = (double)n;
        break;
    case SLOTS:
        err = pb_parse_size(arg, "--slots", &q->slots);
        break;
    case ROWS:
        err = pb_parse_size(arg, "--rows", &q->rows);
        break;
    case EXACT:
        q->exact = true;
        break;
    case 'o':
        a->out = arg;
        break;
    case 'f':
        err = pb_parse_format(&a->format, arg);
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case ARGP_KEY_END:
        if (!q->n_fit)
            argp_error(state, "name files of `pedrobench serve` to fit on");
        if ((q->load.prompt.a > 0) != (q->load.output.a > 0))
            argp_error(state, "--prompt and --output go together");
        if (q->requests < 100)
            argp_error(state, "--requests is %zu; fewer than 100 tell nothing", q->requests);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    if (err)
        pb_usage_error(state);
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "FILE.h5...",
    "Fits the time of a step to measured ones (files of `pedrobench serve`), and simulates the "
    "same server with it: fleets of up to 100,000 tenants and more, on this machine and on others. "
    "Scaling to another machine is an assumption, not a measurement: terms that read memory scale "
    "with --bandwidth, those that compute with --flops, fixed ones stay.\v"
    "Examples:\n"
    "  pedrobench serve --methods lora --tenants 1000 --adapter-memory 20M --rate 20 --seconds 60 "
    "\\\n"
    "      --out lora.h5\n"
    "  pedrobench serve --methods pedro --rate 20 --seconds 60 --out pedro.h5\n"
    "  pedrobench serve --methods pedro --rate 30 --seconds 60 --seed 2 --out other.h5\n"
    "  pedrobench bench machine --out machine.h5\n"
    "  pedrobench capacity lora.h5 pedro.h5 --machine machine.h5 --validate other.h5\n"
    "  pedrobench capacity lora.h5 pedro.h5 --slo ttft=500ms,tpot=50ms --popularity zipf:1 \\\n"
    "      --adapter-memory 1G\n"
    "  pedrobench capacity lora.h5 --machine machine.h5 --bandwidth 300G --cores 64 --memory 64G "
    "\\\n"
    "      --slots 64 --rate 100 --tenants 10k",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- tables

static const char *percent(char *room, size_t size, double v)
{
    snprintf(room, size, isfinite(v) ? "%.1f" : "-", 100 * v);
    return room;
}

static void say_fit(const pb_capacity *c, const pb_capacity_question *q)
{
    const pb_cost_model *m = &c->cost;
    printf(
        "Fitted to %zu steps of %zu file%s: |predicted / measured - 1| has the median %.1f %% and "
        "the 90th\npercentile %.1f %%; on the %zu steps held out %.1f %% and %.1f %%.\n",
        m->fitted.n, q->n_fit, q->n_fit > 1 ? "s" : "", 100 * m->fitted.median, 100 * m->fitted.p90,
        m->held.n, 100 * m->held.median, 100 * m->held.p90);
    if (!c->bandwidth)
        printf("Without --machine, reading the weights cannot be told from a step's fixed time and "
               "does not\nscale with --bandwidth.\n");
}

// What a unit costs: the time of a thing, the rate of bytes and FLOPs.
static void cost_cell(pb_grid *g, int term, double seconds)
{
    const char *unit = pb_cost_kinds[term].unit;
    if (!(seconds > 0))
        pb_grid_add(g, "0");
    else if (unit)
        pb_grid_add(g, "%.3g G%s/s", 1e-9 / seconds, unit);
    else
        pb_grid_add(g, "%.3g us", 1e6 * seconds);
}

static pb_err terms_table(const pb_capacity *c, pb_format f)
{
    static const char *const head[] = {"part",        "form",     "methods",      "term",
                                       "scales with", "one unit", "of the time %"};
    pb_grid g = {.format = f, .cols = 7};
    char room[32];
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (int part = 0; part < PB_COST_PARTS; part++)
        for (size_t k = 0; k < c->n_kinds; k++)
            for (int t = k ? PB_COST_OWN : 0; t < PB_COST_TERMS; t++) {
                const pb_cost_kind *kind = &pb_cost_kinds[t];
                if (kind->part != (pb_cost_part)part)
                    continue;
                pb_grid_add(&g, "%s", pb_cost_parts[part]);
                pb_grid_add(&g, "%s", c->cost.max[part] ? "max" : "sum");
                pb_grid_add(&g, "%.90s", t < PB_COST_OWN ? "all" : c->kind[k].name);
                pb_grid_add(&g, "%s", kind->name);
                pb_grid_add(&g, "%s", pb_resource_names[kind->of]);
                cost_cell(&g, t, c->cost.c[k][t]);
                pb_grid_add(&g, "%s", percent(room, sizeof room, c->share[k][t]));
            }
    return pb_grid_print(&g, "What a step costs", 5);
}

static pb_err checks_table(const pb_capacity *c, pb_format f)
{
    static const char *const head[] = {"file",   "measure", "quantile", "measured ms", "interval",
                                       "fit ms", "error %", "drawn ms", "error %"};
    pb_grid g = {.format = f, .cols = 9};
    char room[32];
    double worst[2] = {0};
    if (!c->n_checks)
        return PB_OK;
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (size_t i = 0; i < c->n_checks; i++) {
        const pb_capacity_check *k = &c->check[i];
        int length = (int)strcspn(k->path, ",");
        const char *name = k->path + length;
        while (name > k->path && name[-1] != '/')
            name--;
        length -= (int)(name - k->path);
        if (k->runs > 1)
            pb_grid_add(&g, "%.*s and %zu more", length, name, k->runs - 1);
        else
            pb_grid_add(&g, "%.*s", length, name);
        pb_grid_add(&g, "%s", pb_serving_measures[k->measure]);
        pb_grid_add(&g, "p%g", 100 * k->quantile);
        pb_grid_add(&g, "%.4g", k->measured);
        if (isnan(k->in.lo))
            pb_grid_add(&g, "too few");
        else
            pb_grid_add(&g, "%.4g-%.4g", k->in.lo, k->in.hi);
        pb_grid_add(&g, "%.4g", k->exact);
        pb_grid_add(&g, "%s", percent(room, sizeof room, k->exact / k->measured - 1));
        pb_grid_add(&g, "%.4g", k->drawn);
        pb_grid_add(&g, "%s", percent(room, sizeof room, k->drawn / k->measured - 1));
        worst[0] = fmax(worst[0], fabs(k->exact / k->measured - 1));
        worst[1] = fmax(worst[1], fabs(k->drawn / k->measured - 1));
    }
    PB_TRY(pb_grid_print(&g, "Measured runs that were not fitted on, simulated", 3));
    printf("%sLargest error: %.1f %% as fitted, %.1f %% with drawn ratios.\n",
           f == PB_MARKDOWN ? "\n" : "", 100 * worst[0], 100 * worst[1]);
    return PB_OK;
}

static void say_machine(const pb_capacity *c, const pb_capacity_question *q)
{
    printf(
        "\nMachine: %.3g x the measured bandwidth, %.3g x its FLOPs per second, %zu slots, steps "
        "of %zu rows",
        c->machine.bandwidth, c->machine.compute, c->slots, c->rows);
    if (c->adapter_memory < SIZE_MAX)
        printf(", %.4g MB for adapters, loads of %.3g ms", 1e-6 * (double)c->adapter_memory,
               1e3 * c->disk.latency);
    if (c->adapter_memory < SIZE_MAX && isfinite(c->disk.bandwidth))
        printf(" + bytes at %.3g GB/s", 1e-9 * c->disk.bandwidth);
    printf(".\n");
    if (c->machine.bandwidth != 1 || c->machine.compute != 1)
        printf("That times scale so is an assumption; nothing was measured there.\n");
    if (q->rate > 0)
        return;
    printf("The largest rate with %g %% of the requests within", 100 * q->limit.quantile);
    for (int k = 0; k < PB_SERVING_MEASURES; k++)
        if (q->limit.most[k] > 0)
            printf(" %s %g ms", pb_serving_measures[k], q->limit.most[k]);
    printf(", %zu requests each:\n", q->requests);
}

static pb_err answers_table(const pb_capacity *c, const pb_capacity_question *q, pb_format f)
{
    pb_grid g = {.format = f, .cols = 17};
    char text[32], room[32];
    snprintf(text, sizeof text, "p%g", 100 * q->limit.quantile);
    static const char *const head[] = {"methods", "bytes each", "tenants", "requests/s", "within"};
    static const char *const tail[] = {"rows/step",    "latency %", "bandwidth %", "compute %",
                                       "slots full %", "disk %",    "misses %",    "binds"};
    if (!c->n_answers)
        return PB_OK;
    if (f != PB_CSV)
        say_machine(c, q);
    for (size_t i = 0; i < 5; i++)
        pb_grid_add(&g, "%s", head[i]);
    pb_grid_add(&g, "TTFT p50 ms");
    pb_grid_add(&g, "TTFT %s ms", text);
    pb_grid_add(&g, "TPOT p50 ms");
    pb_grid_add(&g, "TPOT %s ms", text);
    for (size_t i = 0; i < 8; i++)
        pb_grid_add(&g, "%s", tail[i]);
    for (size_t i = 0; i < c->n_answers; i++) {
        const pb_capacity_answer *a = &c->answer[i];
        const double shares[] = {a->share[0], a->share[1], a->share[2],
                                 a->waiting,  a->loading,  a->miss};
        pb_grid_add(&g, "%.90s", a->kind);
        pb_grid_add(&g, "%zu", a->bytes);
        pb_grid_add(&g, "%zu", a->tenants);
        pb_grid_add(&g, "%.4g", a->rate);
        pb_grid_add(&g, "%s", a->within ? "yes" : "no");
        pb_grid_add(&g, "%.4g", a->p50[PB_TTFT]);
        pb_grid_add(&g, "%.4g", a->at[PB_TTFT]);
        pb_grid_add(&g, "%.4g", a->p50[PB_TPOT]);
        pb_grid_add(&g, "%.4g", a->at[PB_TPOT]);
        pb_grid_add(&g, "%.2f", a->rows);
        for (size_t k = 0; k < 6; k++)
            pb_grid_add(&g, "%s", percent(room, sizeof room, shares[k]));
        pb_grid_add(&g, "%s", a->binds);
    }
    return pb_grid_print(&g, "Fleets", 1);
}

static pb_err print(const pb_capacity *c, const pb_capacity_question *q, pb_format f)
{
    if (f != PB_CSV)
        say_fit(c, q);
    if (f != PB_CSV || !c->n_answers)
        PB_TRY(terms_table(c, f));
    if (f != PB_CSV || !c->n_answers)
        PB_TRY(checks_table(c, f));
    return answers_table(c, q, f);
}

static pb_err save(const pb_capacity *c, const pb_capacity_question *q, const char *path)
{
    json_t *j = pb_capacity_json(c, q);
    pb_err err = j ? pb_json_save(j, path) : pb_fail(PB_MEMORY, NULL, "no memory for the answers");
    json_decref(j);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.q = {.tenants = {1, 10, 100, 1000, 10000, 100000},
                           .n_tenants = 6,
                           .requests = 20000,
                           .load = {.popularity = PB_UNIFORM, .cv = 1, .seed = 1},
                           .limit = {.quantile = 0.99},
                           .disk_latency = -1}};
    pb_capacity c;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_err err = pb_capacity_run(&c, &a.q);
    if (!err)
        err = print(&c, &a.q, a.format);
    if (!err && a.out)
        err = save(&c, &a.q, a.out);
    pb_capacity_free(&c);
    return err;
}

PB_COMMAND(capacity) = {"capacity", "simulate fleets of tenants on this machine and others", 42,
                        run};
