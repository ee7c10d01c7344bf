// `pedrobench serve`: a workload of many tenants, served, and what its requests waited for.
#include "cli/common/common.h"
#include "cli/common/serve_run.h"
#include "cli/common/settings.h"
#include "core/log.h"
#include "results/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    json_t *config;
    const char *out, *format;
};

enum {
    RANDOM = 256,
    SET,
    ADAPTER,
    POPULARITY,
    RATE,
    CV,
    CLIENTS,
    TRACE,
    PROMPT,
    OUTPUT,
    DATA,
    REQUESTS,
    SECONDS,
    WARM_UP,
    BEAM,
    SLOTS,
    ROWS,
    QUEUE,
    MEMORY,
    SLO,
};

static const struct argp_option opts[] = {
    {NULL, 0, NULL, 0, "Models and adapters:", 1},
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 1},
    {"random", RANDOM, "GEOMETRY", 0,
     "Random weights instead: WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB, or a preset of `pedrobench "
     "model list`",
     1},
    PB_WEIGHTS_OPTION,
    {"methods", 'x', "NAMES", 0,
     "Tenants have adapters of these in turn (default lora,ia3,prefix,pedro); none: hooks that do "
     "nothing, base: no adapter",
     1},
    {"budget", 'b', "SIZES", 0,
     "Trainable parameters of each: a count, or a share of the backbone (default 0.5%); of "
     "several, a kind of tenant for each",
     1},
    {"set", SET, "METHOD.OPTION=VALUE", 0, "Option of a method, such as its size (repeatable)", 1},
    {"adapter", ADAPTER, "FOLDER", 0, "A trained adapter as a kind of tenant (repeatable)", 1},
    {"tenants", 't', "N", 0, "How many there are (default 16)", 1},
    {NULL, 0, NULL, 0, "Workload:", 2},
    {"clients", CLIENTS, "N", 0,
     "Closed loop: each sends its next request when it has its answer (default 8)", 2},
    {"rate", RATE, "R[:R2]", 0,
     "Open loop: requests per second; rising (or falling) evenly to R2 with a second one", 2},
    {"cv", CV, "X", 0,
     "Coefficient of variation of the gaps between requests: 0 even, 1 Poisson (default), more: "
     "bursts",
     2},
    {"trace", TRACE, "FILE.csv", 0, "Replay one: time (s), tenant, prompt, output (tokens)", 2},
    {"popularity", POPULARITY, "HOW", 0,
     "Of tenants: uniform (default), zipf:S, geometric:P, identical (one tenant), distinct (in "
     "turn)",
     2},
    {"prompt", PROMPT, "TOKENS", 0,
     "Lengths: 64 (default), 16-128, lognormal:MEDIAN,SIGMA,MOST, or task:NAME, which gives those "
     "of responses too",
     2},
    {"output", OUTPUT, "TOKENS", 0, "Lengths of responses (default 32)", 2},
    {"data", DATA, "FOLDER", 0, "Original files of the task's data set", 2},
    {"requests", 'n', "N", 0, "How many (default 200; of a trace: all)", 2},
    {"seconds", 's', "S", 0, "Or for how long they come", 2},
    {"warm-up", WARM_UP, "N", 0,
     "Requests at the beginning that do not count (default: a tenth, at most 100)", 2},
    {"seed", 'r', "N", 0, "Seed of weights and workload (default 1)", 2},
    {NULL, 0, NULL, 0, "Server:", 3},
    {"beam", BEAM, "N", 0, "Beams of every request (default 1: greedy)", 3},
    {"slots", SLOTS, "N", 0, "Sequences in memory at once, one for each beam (default 16 per beam)",
     3},
    {"rows", ROWS, "N", 0, "Rows of a step at most (default: 128 more than slots)", 3},
    {"queue", QUEUE, "N", 0, "Requests that may wait; more are rejected (default 1024)", 3},
    {"adapter-memory", MEMORY, "BYTES", 0,
     "Memory for adapters (k, M, G): they are read from disk when needed, and the least recently "
     "used leave (default: all are in memory)",
     3},
    {"slo", SLO, "LIMITS", 0, "Limits for goodput, e.g. ttft=200ms,tpot=50ms", 3},
    {NULL, 0, NULL, 0, "Results:", 4},
    {"out", 'o', "FILE.h5", 0, "Write every request and step there", 4},
    {"format", 'f', "FORM", 0, "text (default), markdown, csv, latex or html", 4},
    {"quiet", 'q', 0, 0, "No progress", 4},
    {0}};

static void add_text(struct argp_state *state, const char *key, const char *text)
{
    struct args *a = state->input;
    if (!json_object_get(a->config, key))
        pb_set(state, a->config, key, json_array());
    json_t *v = json_string(text);
    if (!v || json_array_append_new(json_object_get(a->config, key), v))
        argp_error(state, "\"%s\" is not valid text", text);
}

static void set_rate(struct argp_state *state, char *text)
{
    struct args *a = state->input;
    char *colon = strchr(text, ':');
    if (colon) {
        *colon = 0;
        pb_set_real(state, a->config, "rate_end", "--rate", colon + 1, 1e-6, 1e6);
    }
    pb_set_real(state, a->config, "rate", "--rate", text, 1e-6, 1e6);
}

// METHOD.OPTION=VALUE
static void set_option(struct argp_state *state, const char *text)
{
    struct args *a = state->input;
    size_t dot = strcspn(text, ".="), equal = strcspn(text, "=");
    if (!dot || text[dot] != '.' || equal <= dot + 1 || !text[equal])
        argp_error(state, "--set is \"%s\", not METHOD.OPTION=VALUE", text);
    if (!json_object_get(a->config, "options"))
        pb_set(state, a->config, "options", json_object());
    json_t *all = json_object_get(a->config, "options");
    char *method = strndup(text, dot), *key = strndup(text + dot + 1, equal - dot - 1);
    bool failed = !method || !key;
    if (!failed && !json_object_get(all, method))
        failed = json_object_set_new(all, method, json_object()) != 0;
    if (failed ||
        json_object_set_new(json_object_get(all, method), key, json_string(text + equal + 1)))
        argp_error(state, "--set is \"%s\", which is not valid text", text);
    free(method);
    free(key);
}

static void set_limits(struct argp_state *state, const char *text)
{
    static const char *const names[] = {"ttft", "tpot"};
    struct args *a = state->input;
    double ms[2] = {0};
    if (pb_parse_limits(ms, names, 2, text))
        pb_usage_error(state);
    if (ms[0] > 0)
        pb_set(state, a->config, "ttft_ms", json_real(ms[0]));
    if (ms[1] > 0)
        pb_set(state, a->config, "tpot_ms", json_real(ms[1]));
}

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
    case 'b':
        pb_set_list(state, a->config, "budgets", "--budget", arg, false);
        break;
    case SET:
        set_option(state, arg);
        break;
    case ADAPTER:
        add_text(state, "adapters", arg);
        break;
    case 't':
        pb_set_size(state, a->config, "tenants", "--tenants", arg);
        break;
    case CLIENTS:
        pb_set_size(state, a->config, "clients", "--clients", arg);
        break;
    case RATE:
        set_rate(state, arg);
        break;
    case CV:
        pb_set_real(state, a->config, "cv", "--cv", arg, 0, 100);
        break;
    case TRACE:
        pb_set(state, a->config, "trace", json_string(arg));
        break;
    case POPULARITY:
        pb_set(state, a->config, "popularity", json_string(arg));
        break;
    case PROMPT:
        if (strncmp(arg, "task:", 5))
            pb_set(state, a->config, "prompt", json_string(arg));
        else
            pb_set(state, a->config, "task", json_string(arg + 5));
        break;
    case OUTPUT:
        pb_set(state, a->config, "output", json_string(arg));
        break;
    case DATA:
        pb_set(state, a->config, "data", json_string(arg));
        break;
    case 'n':
        pb_set_size(state, a->config, "requests", "--requests", arg);
        break;
    case 's':
        pb_set_real(state, a->config, "seconds", "--seconds", arg, 1e-3, 1e6);
        break;
    case WARM_UP:
        pb_set_size(state, a->config, "warm_up", "--warm-up", arg);
        break;
    case 'r':
        pb_set_size(state, a->config, "seed", "--seed", arg);
        break;
    case BEAM:
        pb_set_size(state, a->config, "beam", "--beam", arg);
        break;
    case SLOTS:
        pb_set_size(state, a->config, "slots", "--slots", arg);
        break;
    case ROWS:
        pb_set_size(state, a->config, "rows", "--rows", arg);
        break;
    case QUEUE:
        pb_set_size(state, a->config, "queue", "--queue", arg);
        break;
    case MEMORY:
        pb_set_size(state, a->config, "adapter_memory", "--adapter-memory", arg);
        break;
    case SLO:
        set_limits(state, arg);
        break;
    case 'o':
        a->out = arg;
        break;
    case 'f':
        a->format = arg;
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
    "Serves a workload of many tenants on one backbone: requests join and leave a batch at token "
    "boundaries, each with its own adapter. The schedule is drawn before the run, and latencies "
    "count from when a request was due. Nothing else should run on the machine.\v"
    "Examples:\n"
    "  pedrobench serve --tenants 1000 --rate 20 --seconds 60 --out serve.h5\n"
    "  pedrobench serve --methods lora --set lora.rank=8 --clients 16 --prompt 16-128\n"
    "  pedrobench serve --tenants 4000 --popularity zipf:1.1 --adapter-memory 20M --rate 10\n"
    "  pedrobench serve --rate 1:40 --cv 3 --slo ttft=200ms,tpot=50ms --out ramp.h5\n"
    "  pedrobench serve --random tinyllama --weights bf16 --beam 3 --clients 4\n"
    "  for r in 4 8 16 32; do\n"
    "      pedrobench serve --rate $r --seconds 30 --out load/$r.h5\n"
    "  done; pedrobench plot load --figure load --out figures\n"
    "  pedrobench table serve.h5 --serving",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {.config = json_object()};
    pb_serving *served = NULL;
    pb_table_format format;
    if (!a.config)
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_err err = pb_table_format_parse(&format, a.format ? a.format : "text");
    if (!err)
        err = pb_serve_run(&served, a.config, a.out);
    if (served && (!err || err == PB_INTERRUPTED)) {
        // An interrupted session shows what it has; its error is still the command's.
        char text[512];
        snprintf(text, sizeof text, "%s", err ? pb_error_message() : "");
        pb_err shown = pb_table_serving(stdout, &served, (const char *const[]){a.out}, 1, format);
        err = err ? pb_fail(err, NULL, "%s", text) : shown;
    }
    pb_serving_free(served);
    json_decref(a.config);
    return err;
}

PB_COMMAND(serve) = {"serve", "serve a workload of many tenants", 40, run};
