// `pedrobench generate`: text from a model, with or without an adapter.
#include "cli/common/common.h"
#include "core/log.h"
#include "model/chat.h"
#include "serve/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *model, *adapter, *prompt, *chat, *system;
    size_t max_new;
    pb_decoding decoding;
    pb_storage weights;
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 0},
    {"adapter", 'a', "DIR", 0, "Adapter folder", 0},
    {"prompt", 'p', "TEXT", 0, "Text to continue (default: none)", 0},
    {"max-new", 'n', "N", 0, "Most new tokens (default 128)", 0},
    {"chat", 'c', "NAME", 0,
     "The prompt is a user's message: write it in this chat template and print the answer alone. "
     "\"auto\": the template of the model's folder",
     0},
    {"system", 's', "TEXT", 0, "With --chat: the system message", 0},
    PB_DECODING_OPTIONS,
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
    case 'p':
        a->prompt = arg;
        break;
    case 'n':
        if (pb_parse_size(arg, "--max-new", &a->max_new) || !a->max_new)
            argp_error(state, "--max-new is \"%s\"", arg);
        break;
    case 'c':
        a->chat = arg;
        break;
    case 's':
        a->system = arg;
        break;
    case PB_KEY_BEAM:
        if (pb_parse_size(arg, "--beam", &a->decoding.beam) || !a->decoding.beam ||
            a->decoding.beam > PB_MOST_BEAMS)
            argp_error(state, "--beam is \"%s\", not 1 to %d", arg, PB_MOST_BEAMS);
        break;
    case PB_KEY_LENGTH_PENALTY:
        if (pb_parse_real(arg, "--length-penalty", -100, 100, &a->decoding.length_penalty))
            pb_usage_error(state);
        break;
    case PB_KEY_NO_REPEAT:
        if (pb_parse_size(arg, "--no-repeat-ngram", &a->decoding.no_repeat_ngram))
            pb_usage_error(state);
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
        if (a->system && !a->chat)
            argp_error(state, "--system needs --chat");
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
    "Prints the prompt and its continuation, or the answer to it: greedy, or by beam search.\v"
    "Chat templates: plain, llama2, llama3, chatml, mistral, mistral3, gemma, zephyr, alpaca.\n\n"
    "Examples:\n"
    "  pedrobench generate --prompt \"The old man looked at\"\n"
    "  pedrobench generate --model MODEL --prompt \"Once upon a time\" --max-new 100\n"
    "  pedrobench generate --model MODEL --chat auto --prompt \"Name three colours.\"",
    NULL,
    NULL,
    NULL};

// Generation ends at this token too.
static pb_err add_end(pb_config *c, int32_t id)
{
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return PB_OK;
    if (c->n_eos == PB_MAX_EOS)
        return pb_fail(PB_UNSUPPORTED, NULL, "the model has %zu end tokens already", c->n_eos);
    c->eos[c->n_eos++] = id;
    return PB_OK;
}

static pb_err encode_chat(pb_model *m, const struct args *a, int32_t **ids, size_t *n, size_t *cap)
{
    const pb_chat_template *t;
    const char *marker;
    if (strcmp(a->chat, "auto") == 0) {
        PB_TRY(pb_chat_detect(&t, &marker, a->model));
        pb_info("chat template %s, known by its \"%s\"", pb_chat_name(t), marker);
    } else {
        PB_TRY(pb_chat_find(&t, a->chat));
    }
    const pb_chat_message messages[] = {{"system", a->system}, {"user", a->prompt}};
    pb_chat chat;
    int32_t end;
    PB_TRY(pb_chat_format(&chat, t, messages + !a->system, a->system ? 2 : 1));
    pb_err err = pb_chat_encode(&chat, m->tokenizer, ids, n, cap, &end);
    pb_chat_free(&chat);
    return err || end < 0 ? err : add_end(&m->config, end);
}

static pb_err encode_prompt(pb_model *m, const struct args *a, int32_t **ids, size_t *n,
                            size_t *cap)
{
    if (a->chat)
        return encode_chat(m, a, ids, n, cap);
    int32_t bos = pb_tokenizer_bos(m->tokenizer);
    *cap = strlen(a->prompt) + 16;
    *ids = malloc(*cap * sizeof **ids);
    if (!*ids)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", *cap);
    if (bos >= 0)
        (*ids)[(*n)++] = bos;
    PB_TRY(pb_tokenizer_encode(m->tokenizer, a->prompt, strlen(a->prompt), false, ids, n, cap));
    return *n > 0 ? PB_OK : pb_fail(PB_INPUT, "give a prompt", "there is no token to begin with");
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.prompt = "", .max_new = 128, .decoding = PB_GREEDY};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_adapter *ad = NULL;
    pb_decoder *d = NULL;
    int32_t *ids = NULL, *out = NULL;
    char *text = NULL;
    size_t n = 0, cap = 0, len;
    pb_model_args args = {.weights = a.weights};
    PB_GO(pb_model_open(&m, a.model, &args));
    if (!m->tokenizer) {
        err = pb_fail(PB_INPUT, "put tokenizer.bin beside the checkpoint",
                      "the model %s has no tokenizer", a.model);
        goto done;
    }
    if (a.adapter) {
        PB_GO(pb_adapter_load(&ad, a.adapter, &m->config, m->sha256));
        PB_GO(pb_adapter_serve(ad, m));
    }
    PB_GO(encode_prompt(m, &a, &ids, &n, &cap));
    out = malloc(a.max_new * sizeof *out);
    if (!out) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", a.max_new);
        goto done;
    }
    pb_request r = {
        .prompt = ids, .n_prompt = n, .max_new = a.max_new, .tenant = ad ? 0 : -1, .out = out};
    PB_GO(pb_decoder_new(&d, m, &ad, ad ? 1 : 0, 1, n + a.max_new, &a.decoding));
    PB_GO(pb_decode(d, &r, 1, NULL, NULL));
    // Prompt and response are decoded together, so that joins between them are the tokenizer's. An
    // answer stands alone.
    size_t shown = a.chat ? 0 : n;
    int32_t *all = realloc(ids, (n + r.n_out) * sizeof *all);
    if (!all) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", n + r.n_out);
        goto done;
    }
    ids = all;
    memcpy(ids + shown, out, r.n_out * sizeof *ids);
    PB_GO(pb_tokenizer_decode(m->tokenizer, ids, shown + r.n_out, false, &text, &len));
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

PB_COMMAND(generate) = {"generate", "text from a model and an adapter", 50, run};
