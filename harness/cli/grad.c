// `pedrobench grad`: loss and gradients of one sequence, so that anyone can check a method.
#include "cli/common/common.h"
#include "core/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = sizeof(real) > 4 ? 17 : 9 }; // enough to read the same number back

struct args {
    const char *model, *adapter, *tokens, *prompt;
    bool full;
    pb_storage weights;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file", 0},
    {"adapter", 'a', "DIR", 0, "Adapter folder whose parameters are differentiated", 0},
    {"full", 'f', 0, 0, "Differentiate the backbone's own weights instead", 0},
    {"tokens", 't', "IDS", 0, "Token ids, e.g. 1,403,7", 0},
    {"prompt", 'p', "N", 0, "How many of them are the prompt", 0},
    {"json", 'j', 0, 0, "Print as JSON (the only form)", 0},
    PB_WEIGHTS_OPTION,
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
    case 'f':
        a->full = true;
        break;
    case 't':
        a->tokens = arg;
        break;
    case 'p':
        a->prompt = arg;
        break;
    case 'j':
        break;
    case PB_KEY_WEIGHTS:
        if (pb_storage_find(&a->weights, arg))
            pb_usage_error(state);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->model || !a->tokens || !a->prompt || !a->adapter == !a->full)
            argp_error(state,
                       "--model, --tokens, --prompt and one of --adapter and --full are needed");
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
    "Prints the mean loss over the response tokens, and its gradients under the names and in the "
    "shapes of files.\v"
    "Example:\n  pedrobench grad --model MODEL --adapter ADAPTER --tokens 1,403,7,9 --prompt 2",
    NULL,
    NULL,
    NULL};

// Gradients of one matrix in the order of files.
static void print_matrix(const char *key, const pb_spec *s, const real *d, bool first)
{
    printf("%s\n  \"%s\": [", first ? "" : ",", key);
    bool turned = s->flags & PB_TRANSPOSED;
    for (size_t i = 0; i < s->rows * s->cols; i++) {
        size_t at = turned ? i % s->rows * s->cols + i / s->rows : i;
        printf("%s%.*g", i ? "," : "", DIGITS, (double)d[at]);
    }
    printf("]");
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_adapter *loaded = NULL, *ad = NULL;
    pb_step *st = NULL;
    int32_t *tokens = NULL, *target = NULL;
    real *weight = NULL, *nll = NULL;
    size_t n, n_prompt;
    pb_model_args args = {.trainable = a.full, .weights = a.weights};
    PB_GO(pb_model_open(&m, a.model, &args));
    PB_GO(pb_parse_tokens(a.tokens, m->config.vocab, &tokens, &n));
    PB_GO(pb_parse_size(a.prompt, "--prompt", &n_prompt));
    if (n_prompt < 1 || n_prompt >= n) {
        err = pb_fail(PB_USAGE, "leave at least one token of response",
                      "--prompt is %zu, outside 1..%zu", n_prompt, n - 1);
        goto done;
    }
    if (a.adapter) {
        PB_GO(pb_adapter_load(&loaded, a.adapter, &m->config, m->sha256));
        PB_GO(pb_adapter_trainable(&ad, loaded, NULL));
        PB_GO(pb_adapter_derive(ad, m));
    }
    pb_step_limits limits = {.rows = n - 1, .segments = 1, .train = true};
    PB_GO(pb_step_new(&st, m, &ad, ad ? 1 : 0, &limits));
    target = malloc(n * sizeof *target);
    weight = malloc(n * sizeof *weight);
    nll = malloc(n * sizeof *nll);
    if (!target || !weight || !nll) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", n);
        goto done;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        target[i] = i + 1 >= n_prompt ? tokens[i + 1] : -1;
        weight[i] = (real)(1 / (double)(n - n_prompt));
    }
    pb_segment seg = {.n_rows = n - 1, .n_prompt = n_prompt, .tenant = ad ? 0 : -1, .slot = -1};
    pb_batch b = {n - 1, 1, tokens, &seg};
    pb_mat *h = pb_forward(st, &b, false, 0, 0);
    pb_step_loss(st, h, target, weight, nll, NULL);
    pb_step_backward(st);
    double loss = 0;
    for (size_t i = 0; i + 1 < n; i++)
        loss += target[i] >= 0 ? (double)nll[i] * (double)weight[i] : 0;
    printf("{\"loss\": %.*g, \"gradients\": {", DIGITS, loss);
    const pb_params *p = ad ? &ad->params : &m->params;
    bool first = true;
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        char key[256];
        if (s->flags & (PB_FROZEN | PB_UNSAVED))
            continue;
        if (ad)
            PB_GO(pb_adapter_key(key, sizeof key, s));
        else if (s->layer == PB_GLOBAL)
            PB_GO(pb_path(key, sizeof key, "%s", s->name));
        else
            PB_GO(pb_path(key, sizeof key, "model.layers.%d.%s", s->layer, s->name));
        print_matrix(key, s, p->d + s->offset, first);
        first = false;
    }
    printf("}}\n");
done:
    free(tokens);
    free(target);
    free(weight);
    free(nll);
    pb_step_free(st);
    pb_adapter_free(ad);
    pb_adapter_free(loaded);
    pb_model_close(m);
    return err;
}

PB_COMMAND(grad) = {"grad", "print loss and gradients of a token sequence", 61, run};
