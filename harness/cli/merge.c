// `pedrobench merge`: an adapter folded into the weights of a model.
#include "cli/common/folder.h"
#include "model/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *model, *adapter, *out, *dtype, *shard;
};

static const struct argp_option opts[] = {
    {"dtype", 'd', "TYPE", 0, "f32, bf16 or f16 (default: as each tensor is stored; Q8_0 as f32)",
     0},
    {"shard-size", 's', "BYTES", 0, "Most bytes in one file, e.g. 500M (default 4G)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'd':
        a->dtype = arg;
        break;
    case 's':
        a->shard = arg;
        break;
    case ARGP_KEY_ARG:
        if (a->out)
            argp_error(state, "unexpected argument \"%s\"", arg);
        *(!a->model ? &a->model : !a->adapter ? &a->adapter : &a->out) = arg;
        break;
    case ARGP_KEY_END:
        if (!a->out)
            argp_error(state, "a model, an adapter and a place for the merged model are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "MODEL ADAPTER OUT",
    "Folds an adapter into the weights of its model and writes the result as a Hugging Face "
    "folder, for methods where that is exact: LoRA and IA3. Every weight is merged in f32 and "
    "rounded once, to the type that is written.\v"
    "Example:\n"
    "  pedrobench merge models/mine adapters/mine models/merged --dtype bf16",
    NULL,
    NULL,
    NULL};

typedef struct merger merger;

// A weight to be merged.
typedef struct part {
    const merger *all;
    size_t layer;
    pb_linear_id linear;
    bool bias;
} part;

struct merger {
    const pb_source *s;
    const pb_adapter *a;
    part *parts;
    size_t n;
};

// Makes a linear's merged weight, or its merged bias.
static pb_err make(const pb_tensor *t, real *out)
{
    const part *p = t->maker;
    const pb_config *c = &p->all->s->config;
    const pb_adapter *a = p->all->a;
    pb_err err = PB_OK;
    char name[160];
    size_t rows = pb_linear_out(c, p->linear), cols = pb_linear_in(c, p->linear);
    real *w = p->bias ? malloc(rows * cols * sizeof *w) : out;
    if (!w)
        return pb_fail(PB_MEMORY, NULL, "no memory for a weight of %zu values", rows * cols);
    PB_GO(pb_path(name, sizeof name, "model.layers.%zu.%s.weight", p->layer,
                  pb_linear_path(p->linear)));
    pb_tensor_read(pb_tensors_find(p->all->s->tensors, name), 0, rows * cols, w);
    if (p->bias) {
        PB_GO(pb_path(name, sizeof name, "model.layers.%zu.%s.bias", p->layer,
                      pb_linear_path(p->linear)));
        pb_tensor_read(pb_tensors_find(p->all->s->tensors, name), 0, rows, out);
    }
    pb_merge_args m = {c, p->layer, p->linear, w, p->bias ? out : NULL, rows, cols};
    err = pb_adapter_merge(a, &m);
done:
    if (p->bias)
        free(w);
    return err;
}

static pb_err edit(void *self, const pb_spec *spec, pb_tensor *x)
{
    merger *m = self;
    for (int t = 0; spec->layer >= 0 && t < PB_N_LINEARS; t++) {
        const char *path = pb_linear_path((pb_linear_id)t);
        size_t n = strlen(path);
        if (strncmp(spec->name, path, n) != 0 || spec->name[n] != '.')
            continue;
        part *p = &m->parts[m->n++];
        *p = (part){m, (size_t)spec->layer, (pb_linear_id)t, !strcmp(spec->name + n, ".bias")};
        x->make = make;
        x->maker = p;
        if (x->dtype == PB_Q8_0)
            x->dtype = PB_F32;
    }
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_source s;
    pb_adapter *ad = NULL, *folded = NULL;
    merger m = {.s = &s};
    PB_TRY(pb_source_open(&s, a.model, true));
    PB_GO(pb_adapter_load(&ad, a.adapter, &s.config, NULL));
    PB_GO(pb_adapter_folded(&folded, ad));
    m.a = folded;
    if (!folded->method->merge)
        PB_GO(pb_fail(PB_UNSUPPORTED, "serve it with --adapter",
                      "method %s cannot be merged into a model's weights", folded->method->name));
    m.parts = calloc(s.config.layers * PB_N_LINEARS * 2, sizeof *m.parts);
    if (!m.parts)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a list of weights"));
    PB_GO(pb_write_model_folder(a.out, &s, a.dtype, a.shard, edit, &m));
    printf("%s: %s with %zu parameters of %s merged\n", a.out, a.model, folded->layout.saved,
           folded->method->name);
done:
    free(m.parts);
    pb_adapter_free(ad);
    pb_adapter_free(folded);
    pb_source_close(&s);
    return err;
}

PB_COMMAND(merge) = {"merge", "fold an adapter into a model's weights", 64, run};
