// `pedrobench logits`: logits of every position, so that anyone can check a model or adapter.
#include "cli/common/common.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct args {
    const char *model, *adapter, *tokens, *prompt;
    bool json;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or llama2.c checkpoint", 0},
    {"adapter", 'a', "DIR", 0, "Adapter folder", 0},
    {"tokens", 't', "IDS", 0, "Token ids, e.g. 1,403,7", 0},
    {"prompt", 'p', "N", 0, "How many of them are the prompt (default: all)", 0},
    {"json", 'j', 0, 0, "Print all logits as JSON (default: the five largest of each position)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'm':
        a->model = arg;
        break;
    case 'a':
        a->adapter = arg;
        break;
    case 't':
        a->tokens = arg;
        break;
    case 'p':
        a->prompt = arg;
        break;
    case 'j':
        a->json = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->model || !a->tokens)
            argp_error(state, "--model and --tokens are needed");
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
    "Prints the logits of every position.\v"
    "Example:\n  pedrobench logits --model MODEL --adapter ADAPTER --tokens 1,403,7 --json",
    NULL,
    NULL,
    NULL};

static void print_json(const real *logits, size_t n, size_t V)
{
    printf("{\"vocab\": %zu, \"logits\": [", V);
    for (size_t i = 0; i < n; i++) {
        printf("%s[", i ? ",\n " : "");
        for (size_t v = 0; v < V; v++)
            printf("%s%.9g", v ? "," : "", (double)logits[i * V + v]);
        printf("]");
    }
    printf("]}\n");
}

static void print_top(const real *logits, size_t n, size_t V)
{
    for (size_t i = 0; i < n; i++) {
        printf("position %zu:", i);
        double bound = INFINITY;
        for (int k = 0; k < 5 && k < (int)V; k++) {
            size_t best = V;
            for (size_t v = 0; v < V; v++)
                if ((double)logits[i * V + v] < bound &&
                    (best == V || logits[i * V + v] > logits[i * V + best]))
                    best = v;
            if (best == V)
                break;
            bound = (double)logits[i * V + best];
            printf("  %zu (%.4f)", best, bound);
        }
        printf("\n");
    }
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_adapter *ad = NULL;
    pb_step *st = NULL;
    int32_t *tokens = NULL;
    real *logits = NULL;
    size_t *rows = NULL, n, n_prompt;
    pb_model_args args = {0};
    PB_GO(pb_model_open(&m, a.model, &args));
    PB_GO(pb_parse_tokens(a.tokens, m->config.vocab, &tokens, &n));
    n_prompt = n;
    if (a.prompt)
        PB_GO(pb_parse_size(a.prompt, "--prompt", &n_prompt));
    if (n_prompt < 1 || n_prompt > n) {
        err = pb_fail(PB_USAGE, NULL, "--prompt is %zu, outside 1..%zu", n_prompt, n);
        goto done;
    }
    if (a.adapter) {
        PB_GO(pb_adapter_load(&ad, a.adapter, &m->config));
        PB_GO(pb_adapter_serve(ad));
    }
    pb_step_limits limits = {.rows = n, .segments = 1};
    PB_GO(pb_step_new(&st, m, &ad, ad ? 1 : 0, &limits));
    logits = malloc(n * m->config.vocab * sizeof *logits);
    rows = malloc(n * sizeof *rows);
    if (!logits || !rows) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu rows of logits", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        rows[i] = i;
    pb_segment seg = {.n_rows = n, .n_prompt = n_prompt, .tenant = ad ? 0 : -1, .slot = -1};
    pb_batch b = {n, 1, tokens, &seg};
    pb_mat *h = pb_forward(st, &b, false, 0, 0);
    pb_step_logits(st, h, rows, n, logits);
    (a.json ? print_json : print_top)(logits, n, m->config.vocab);
done:
    free(tokens);
    free(logits);
    free(rows);
    pb_step_free(st);
    pb_adapter_free(ad);
    pb_model_close(m);
    return err;
}

PB_COMMAND(logits) = {"logits", "print the logits of a token sequence", 60, run};
