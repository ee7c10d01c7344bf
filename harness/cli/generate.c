// `pedrobench generate`: greedy text from a model, with or without an adapter.
#include "cli/common/common.h"
#include "serve/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *model, *adapter, *prompt;
    size_t max_new;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or llama2.c checkpoint", 0},
    {"adapter", 'a', "DIR", 0, "Adapter folder", 0},
    {"prompt", 'p', "TEXT", 0, "Text to continue (default: none)", 0},
    {"max-new", 'n', "N", 0, "Most new tokens (default 128)", 0},
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
    case 'p':
        a->prompt = arg;
        break;
    case 'n':
        if (pb_parse_size(arg, "--max-new", &a->max_new) || !a->max_new)
            argp_error(state, "--max-new is \"%s\"", arg);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "--model is needed");
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
    "Prints the prompt and its greedy continuation.\v"
    "Example:\n  pedrobench generate --model MODEL --prompt \"Once upon a time\" --max-new 100",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {.prompt = "", .max_new = 128};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_adapter *ad = NULL;
    pb_decoder *d = NULL;
    int32_t *ids = NULL, *out = NULL;
    char *text = NULL;
    size_t n = 0, cap = 0, len;
    pb_model_args args = {0};
    PB_GO(pb_model_open(&m, a.model, &args));
    if (!m->tokenizer) {
        err = pb_fail(PB_INPUT, "put tokenizer.bin beside the checkpoint",
                      "the model %s has no tokenizer", a.model);
        goto done;
    }
    if (a.adapter) {
        PB_GO(pb_adapter_load(&ad, a.adapter, &m->config));
        PB_GO(pb_adapter_serve(ad));
    }
    cap = strlen(a.prompt) + 16;
    ids = malloc(cap * sizeof *ids);
    out = malloc(a.max_new * sizeof *out);
    if (!ids || !out) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", a.max_new);
        goto done;
    }
    ids[n++] = pb_tokenizer_bos(m->tokenizer);
    PB_GO(pb_tokenizer_encode(m->tokenizer, a.prompt, strlen(a.prompt), false, &ids, &n, &cap));
    pb_request r = {
        .prompt = ids, .n_prompt = n, .max_new = a.max_new, .tenant = ad ? 0 : -1, .out = out};
    PB_GO(pb_decoder_new(&d, m, &ad, ad ? 1 : 0, 1, n + a.max_new));
    PB_GO(pb_decode(d, &r, 1, NULL, NULL));
    // Prompt and response are decoded together, so that joins between them are the tokenizer's.
    int32_t *all = realloc(ids, (n + r.n_out) * sizeof *all);
    if (!all) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", n + r.n_out);
        goto done;
    }
    ids = all;
    memcpy(ids + n, out, r.n_out * sizeof *ids);
    PB_GO(pb_tokenizer_decode(m->tokenizer, ids, n + r.n_out, false, &text, &len));
    fwrite(text, 1, len, stdout);
    fputc('\n', stdout);
done:
    free(ids);
    free(out);
    free(text);
    pb_decoder_free(d);
    pb_adapter_free(ad);
    pb_model_close(m);
    return err;
}

PB_COMMAND(generate) = {"generate", "greedy text from a model and an adapter", 50, run};
