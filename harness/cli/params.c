// `pedrobench params`: what every method would be at one budget.
#include "cli/common/common.h"
#include "cli/common/cost.h"
#include "model/compose.h"
#include "train/budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *model, *budget, *only, *format;
    const char *set[32];
    size_t n_set;
    pb_storage weights;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 0},
    {"budget", 'b', "N", 0,
     "Trainable parameters: a count, or a share of the backbone such as 0.5%", 0},
    {"method", 'x', "NAME", 0, "Only this method", 0},
    {"set", 's', "KEY=VALUE", 0, "Option of that method (may be repeated)", 0},
    {"format", 'f', "FORM", 0, "text (default) or csv", 0},
    PB_WEIGHTS_OPTION,
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'm':
        a->model = arg;
        break;
    case 'b':
        a->budget = arg;
        break;
    case 'x':
        a->only = arg;
        break;
    case 's':
        if (a->n_set == 32)
            argp_error(state, "more than 32 options");
        a->set[a->n_set++] = arg;
        break;
    case 'f':
        if (strcmp(arg, "text") && strcmp(arg, "csv"))
            argp_error(state, "--format is \"%s\", not text or csv", arg);
        a->format = arg;
        break;
    case PB_KEY_WEIGHTS:
        if (pb_storage_find(&a->weights, arg))
            pb_usage_error(state);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->model)
            a->model = pb_default_model();
        if (a->n_set && !a->only)
            argp_error(state, "--set needs --method");
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
    "Prints for every method the knob that meets a budget, the reached count and its distance from "
    "the budget, the bytes one more tenant keeps in memory, and the FLOPs it adds to a decoded "
    "token, to a prompt token and to each sequence's first layer pass.\v"
    "Examples:\n"
    "  pedrobench params --budget 0.5%\n"
    "  pedrobench params --model MODEL --method pedro --set r=4 --set targets=q,v",
    NULL,
    NULL,
    NULL};

static pb_err row(const pb_model *m, const pb_method *method, const struct args *a, size_t budget,
                  bool csv)
{
    pb_err err = PB_OK;
    void *options = NULL;
    pb_adapter *ad = NULL, *served = NULL;
    size_t count = 0;
    pb_cost decode, prefill;
    char knob[300] = "-", residual[32] = "-";
    PB_GO(pb_options_new(&options, method));
    for (size_t i = 0; i < a->n_set; i++)
        PB_GO(pb_options_assign(method, options, a->set[i]));
    double total = (double)pb_config_params(&m->config);
    if (budget && method->knob) {
        if (pb_budget_solve(method, options, &m->config, budget, &count)) {
            printf(csv ? "%s,,,,,,,,\"%s\"\n" : "%-8s cannot: %s\n", method->name,
                   pb_error_message());
            goto done;
        }
        snprintf(residual, sizeof residual, "%+.1f%%",
                 100 * ((double)count - (double)budget) / (double)budget);
    }
    PB_GO(pb_budget_count(method, options, &m->config, &count));
    if (method->knob) {
        char label[250];
        snprintf(knob, sizeof knob, "%s=%ld", pb_knob_label(method, options, label, sizeof label),
                 pb_options_knob(method, options));
    }
    if (method->backbone) {
        printf(
            csv ? "%s,%s,%zu,%.6g,%s,%zu,0,0,\"a backbone of its own\"\n"
                : "%-8s %-12s %12zu %8.3f%% %9s %14zu            -            -       - a backbone "
                  "of its own\n",
            method->name, csv ? "" : knob, count, 100 * (double)count / total, residual,
            pb_model_resident(m));
        goto done;
    }
    PB_GO(pb_adapter_new(&ad, method, options, &m->config, false));
    PB_GO(pb_adapter_folded(&served, ad));
    PB_GO(pb_adapter_serve(served, m));
    PB_GO(pb_cost_of(m, served, 1, m->config.context / 2, &decode));
    PB_GO(pb_cost_of(m, served, m->config.context / 2, 0, &prefill));
    printf(csv ? "%s,%s,%zu,%.6g,%s,%zu,%.6g,%.6g,%zu,\n"
               : "%-8s %-12s %12zu %8.3f%% %9s %14zu %12.4g %12.4g %7zu\n",
           method->name, knob, count, 100 * (double)count / total, residual,
           pb_adapter_resident(served), decode.flops, prefill.flops, decode.regions);
    if (budget && !method->knob && count != budget && !csv)
        printf("         (no size knob: stands outside the budget)\n");
done:
    free(options);
    pb_adapter_free(ad);
    pb_adapter_free(served);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    size_t budget = 0;
    bool csv = a.format && !strcmp(a.format, "csv");
    const pb_method *only = NULL;
    if (a.only) {
        only = pb_method_find(a.only);
        if (!only)
            return PB_USAGE;
    }
    pb_model_args args = {.weights = a.weights};
    PB_GO(pb_model_open(&m, a.model, &args));
    if (a.budget)
        PB_GO(pb_budget_parse(a.budget, &m->config, &budget));
    if (csv)
        printf("method,knob,trainable,percent,residual,resident_bytes,decode_flops,prefill_flops,"
               "regions,why\n");
    else {
        printf("backbone: %zu parameters, %.1f MB in memory (%s)", pb_config_params(&m->config),
               (double)pb_model_resident(m) / 1e6, pb_model_storage(m));
        if (budget)
            printf("; budget: %zu (%.3f%%)", budget,
                   100 * (double)budget / (double)pb_config_params(&m->config));
        printf("\n%-8s %-12s %12s %9s %9s %14s %12s %12s %7s\n", "method", "knob", "trainable",
               "share", "residual", "bytes/tenant", "FLOP/decode", "FLOP/prompt", "regions");
    }
    if (only)
        PB_GO(row(m, only, &a, budget, csv));
    for (size_t i = 0; !only && pb_method_at(i); i++)
        PB_GO(row(m, pb_method_at(i), &a, budget, csv));
    if (!csv)
        printf("FLOP/decode and FLOP/prompt: what the method adds to one decoded token at position "
               "%zu and,\naveraged, to one token of a prompt of that length; regions: parallel "
               "regions added to a step.\n",
               m->config.context / 2);
done:
    pb_model_close(m);
    return err;
}

PB_COMMAND(params) = {"params", "solve every method's size for a parameter budget", 20, run};
