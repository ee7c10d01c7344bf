// `pedrobench methods`: the methods; what one is, where it acts, and what it costs at a model.
#include "cli/common/common.h"
#include "cli/common/cost.h"
#include "train/budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *name, *model, *budget;
    const char *set[32];
    size_t n_set;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Counts and costs at this model (default: " PB_EMBEDDED ")", 0},
    {"set", 's', "KEY=VALUE", 0, "Option of the method (may be repeated)", 0},
    {"budget", 'b', "N", 0, "Solve its knob for a budget first", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'm':
        a->model = arg;
        break;
    case 's':
        if (a->n_set == 32)
            argp_error(state, "more than 32 options");
        a->set[a->n_set++] = arg;
        break;
    case 'b':
        a->budget = arg;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && !strcmp(arg, "show") && state->next < state->argc)
            break;
        if (a->name)
            argp_error(state, "one method at a time");
        a->name = arg;
        break;
    case ARGP_KEY_END:
        if (!a->name && (a->model || a->n_set || a->budget))
            argp_error(state, "--model, --set and --budget need a METHOD");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "[[show] METHOD]",
    "Lists the methods, or shows one: formula, options, sites, what it trains and costs at a "
    "model, properties, citation. \"a+b\" is the composition of two.\v"
    "Examples:\n  pedrobench methods\n  pedrobench methods show pedro --set r=4\n"
    "  pedrobench methods show lora+prefix --model MODEL --budget 0.5%",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- one method

// Lines of a text, indented.
static void lines(const char *label, const char *text)
{
    for (const char *s = text; s && *s;) {
        size_t n = strcspn(s, "\n");
        printf("%-22s %.*s\n", s == text ? label : "", (int)n, s);
        s += n + (s[n] != 0);
    }
}

// The identifier behind "arXiv " in a citation, for a method without a BibTeX entry.
static void bibtex(const pb_method *m)
{
    if (m->bibtex) {
        fputs(m->bibtex, stdout);
        return;
    }
    const char *id = strstr(m->citation, "arXiv ");
    printf("@misc{%s,\n  note = {%s}", m->name, m->citation);
    if (id)
        printf(",\n  eprint = {%.*s},\n  archivePrefix = {arXiv}", (int)strcspn(id + 6, " ,;)"),
               id + 6);
    printf("\n}\n");
}

static void options(const pb_method *m)
{
    static const char *const types[] = {[PB_OPT_INT] = "integer",
                                        [PB_OPT_REAL] = "number",
                                        [PB_OPT_BOOL] = "true, false",
                                        [PB_OPT_ENUM] = "one of",
                                        [PB_OPT_FLAGS] = "any of",
                                        [PB_OPT_SITES] = "linears",
                                        [PB_OPT_SITE_VALUES] = "linear:number"};
    if (m->options->name)
        printf("\noptions\n");
    for (const pb_option *o = m->options; o->name; o++) {
        char value[100];
        snprintf(value, sizeof value, "%s=%s", o->name, o->def);
        printf("  %-28s %s\n  %-28s %s", value, o->doc, "", types[o->type]);
        if (o->type == PB_OPT_INT || o->type == PB_OPT_REAL)
            printf(" in %g..%g", o->min, o->max);
        for (int i = 0; (o->type == PB_OPT_ENUM || o->type == PB_OPT_FLAGS) && o->names[i]; i++)
            printf(" %s", o->names[i]);
        printf("%s\n", o->per_tenant ? "" : "; tenants that differ in it share no parallel region");
    }
}

static void properties(const pb_method *m)
{
    printf("\nproperties\n  %-28s %s\n", "size knob",
           m->knob ? m->knob : "none: stands outside budgets");
    printf("  %-28s %g; tried:", "learning rate", m->lr);
    for (const double *r = m->lr_grid; r && *r != 0; r++)
        printf(" %g", *r);
    printf("\n  %-28s %s\n", "identity at the start", m->identity ? "yes" : "no");
    printf("  %-28s %s\n", "can be merged", m->merge ? "yes, exactly" : "no");
    printf("  %-28s %s\n", "prefill in chunks",
           m->whole_prompt ? "no, it reads the prompt as a whole" : "yes");
    printf("  %-28s %s\n", "state per sequence", m->state ? "yes, beside the KV cache" : "none");
    printf("  %-28s %s\n", "folded when saved", m->fold ? "with some options" : "no");
    printf("  %-28s %s\n", "second level", m->bilevel ? "with some options" : "no");
    printf("  %-28s %s\n", "files", m->peft_type);
}

static void sites(const bool *acts)
{
    static const char *const names[] = {
#define NAME(name) #name,
        PB_SITES(NAME)};
    size_t n = 0;
    printf("  %-28s", "acts at");
    for (size_t s = 0; s < PB_N_SITES; s++)
        if (acts[s])
            printf("%s %s", n++ ? "," : "", names[s]);
    printf("%s\n", n ? "" : " no site");
}

static size_t trainable_in(const pb_layout *l, int layer)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        if (l->spec[i].layer == layer && !(l->spec[i].flags & PB_FROZEN))
            n += l->spec[i].rows * l->spec[i].cols;
    return n;
}

static void matrices(const pb_layout *l)
{
    size_t first = trainable_in(l, 0), shared = trainable_in(l, PB_GLOBAL), other = 0;
    for (size_t i = 1; i < l->layers; i++)
        if (trainable_in(l, (int)i) != first)
            other++;
    if (!other) {
        printf("  %-28s %zu in each of %zu layers", "trainable", first, l->layers);
    } else {
        printf("  %-28s by layer:", "trainable");
        for (size_t i = 0; i < l->layers; i++)
            printf(" %zu", trainable_in(l, (int)i));
    }
    printf(", %zu shared, %zu in total\n", shared, l->trainable);
    for (size_t i = 0; i < l->n; i++) {
        const pb_spec *s = &l->spec[i];
        char name[160];
        size_t same = 0;
        bool seen = false;
        for (size_t k = 0; k < l->n; k++)
            if (!strcmp(l->spec[k].name, s->name) && l->spec[k].rows == s->rows &&
                l->spec[k].cols == s->cols) {
                seen |= k < i;
                same++;
            }
        if (seen)
            continue;
        snprintf(name, sizeof name, "%s (%zu,%zu)", s->name, s->rows, s->cols);
        printf("    %-50s x%zu%s%s%s\n", name, same, s->flags & PB_FROZEN ? " frozen" : "",
               s->flags & PB_THETA ? " second level" : "", s->flags & PB_UNSAVED ? " unsaved" : "");
    }
}

static void cost(const char *what, const pb_cost *c)
{
    printf("  %-28s %.4g FLOPs, %.4g bytes read, %zu parallel regions\n", what, c->flops, c->bytes,
           c->regions);
}

// Options that are not at their defaults.
static void settings(const pb_method *m, const void *opt)
{
    json_t *set = pb_options_to_json(m, opt), *v;
    const char *key;
    json_object_foreach(set, key, v)
    {
        char text[300];
        if (json_is_string(v))
            snprintf(text, sizeof text, "%s", json_string_value(v));
        else if (json_is_number(v))
            snprintf(text, sizeof text, "%g", json_number_value(v));
        else
            snprintf(text, sizeof text, "%s", json_is_true(v) ? "true" : "false");
        if (strcmp(text, pb_option_find(m, key)->def) != 0 &&
            (!json_is_number(v) ||
             json_number_value(v) != strtod(pb_option_find(m, key)->def, NULL)))
            printf("  %-28s %s=%s\n", "with", key, text);
    }
    json_decref(set);
}

static pb_err at_model(const pb_method *m, void *opt, const struct args *a)
{
    pb_err err = PB_OK;
    pb_model *model = NULL;
    pb_adapter *ad = NULL, *served = NULL;
    bool acts[PB_N_SITES] = {false};
    size_t budget, count;
    pb_cost decode, prompt;
    PB_GO(pb_model_open(&model, a->model ? a->model : pb_default_model(), &(pb_model_args){0}));
    if (a->budget) {
        PB_GO(pb_budget_parse(a->budget, &model->config, &budget));
        PB_GO(pb_budget_solve(m, opt, &model->config, budget, &count));
    }
    PB_GO(pb_budget_count(m, opt, &model->config, &count));
    double share = 100 * (double)count / (double)pb_config_params(&model->config);
    printf("\nat %s (%zu parameters)\n", a->model ? a->model : PB_EMBEDDED,
           pb_config_params(&model->config));
    if (m->backbone) {
        printf("  %-28s %zu, all of them; no adapter\n", "trainable", count);
        goto done;
    }
    settings(m, opt);
    PB_GO(pb_adapter_new(&ad, m, opt, &model->config, false));
    PB_GO(pb_adapter_folded(&served, ad));
    PB_GO(pb_adapter_serve(served, model));
    PB_GO(pb_step_sites(model, served, acts));
    sites(acts);
    if (served->prefix_len)
        printf("  %-28s %zu positions\n", "in front", served->prefix_len);
    matrices(&ad->layout);
    printf("  %-28s %.3f%%\n", "of the backbone", share);
    printf("  %-28s %zu bytes\n", "one more tenant", pb_adapter_resident(served));
    if (served->state)
        printf("  %-28s %zu bytes in each layer\n", "one more sequence",
               served->state * sizeof(real));
    PB_GO(pb_cost_of(model, served, 1, model->config.context / 2, &decode));
    PB_GO(pb_cost_of(model, served, model->config.context / 2, 0, &prompt));
    cost("adds to a decoded token", &decode);
    cost("adds to a prompt token", &prompt);
    printf("  (at position %zu; of a prompt of that length)\n", model->config.context / 2);
done:
    pb_adapter_free(ad);
    pb_adapter_free(served);
    pb_model_close(model);
    return err;
}

static pb_err show(const pb_method *m, const struct args *a)
{
    pb_err err = PB_OK;
    void *opt;
    PB_TRY(pb_options_new(&opt, m));
    for (size_t i = 0; i < a->n_set; i++)
        PB_GO(pb_options_assign(m, opt, a->set[i]));
    printf("%s: %s\n", m->name, m->doc);
    lines("formula", m->formula);
    lines("source", m->citation);
    options(m);
    properties(m);
    PB_GO(at_model(m, opt, a));
    printf("\n");
    bibtex(m);
done:
    free(opt);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    const pb_method *m;
    argp_parse(&argp, argc, argv, 0, 0, &a);
    if (a.name) {
        m = pb_method_find(a.name);
        return m ? show(m, &a) : PB_USAGE;
    }
    printf("%-12s %-10s %-8s %s\n", "method", "knob", "rate", "what");
    for (size_t i = 0; (m = pb_method_at(i)); i++)
        printf("%-12s %-10s %-8g %s\n", m->name, m->knob ? m->knob : "-", m->lr, m->doc);
    return PB_OK;
}

PB_COMMAND(methods) = {"methods", "list methods, or show one and what it costs at a model", 21,
                       run};
