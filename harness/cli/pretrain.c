// `pedrobench pretrain`: a small byte-level backbone from plain text.
#include "cli/common/common.h"
#include "cli/common/pretraining.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

struct args {
    json_t *recipe;
    const char *out;
};

static const struct argp_option opts[] = {
    {"out", 'o', "DIR", 0, "Model folder to write", 0},
    {"text", 't', "FILE", 0, "Plain text (default: generated, English-like)", 0},
    {"bytes", 'b', "N", 0, "Bytes of generated text (default 3M)", 0},
    {"mark", 'k', "TEXT", 0, "What separates documents in it (default: a blank line)", 0},
    {"steps", 'n', "N", 0, "Optimizer steps (default 1000)", 0},
    {"batch", 'B', "N", 0, "Sequences per step (default 16)", 0},
    {"lr", 'l', "RATE", 0, "Peak learning rate (default 3e-3)", 0},
    {"seed", 'S', "N", 0, "Seed (default 1)", 0},
    {"geometry", 'g', "KEY=N,...", 0,
     "width, ffn, layers, heads, kv_heads, head_dim, context (defaults 96,256,4,6,3,16,256)", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    {0}};

static void put(struct argp_state *state, json_t *obj, const char *key, const char *arg)
{
    size_t v;
    if (pb_parse_size(arg, key, &v))
        pb_usage_error(state);
    json_object_set_new(obj, key, json_integer((json_int_t)v));
}

static void geometry(struct argp_state *state, json_t *obj, char *arg)
{
    for (char *save = NULL, *s = strtok_r(arg, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(s, '=');
        if (!eq)
            argp_error(state, "--geometry has \"%s\", not KEY=N", s);
        *eq = 0;
        put(state, obj, s, eq + 1);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    double lr;
    switch (key) {
    case 'o':
        a->out = arg;
        break;
    case 't':
        json_object_set_new(a->recipe, "text", json_string(arg));
        break;
    case 'k':
        json_object_set_new(a->recipe, "mark", json_string(arg));
        break;
    case 'b':
        put(state, a->recipe, "bytes", arg);
        break;
    case 'n':
        put(state, a->recipe, "steps", arg);
        break;
    case 'B':
        put(state, a->recipe, "batch", arg);
        break;
    case 'S':
        put(state, a->recipe, "seed", arg);
        break;
    case 'l':
        if (pb_parse_real(arg, "--lr", 0, 10, &lr))
            pb_usage_error(state);
        json_object_set_new(a->recipe, "lr", json_real(lr));
        break;
    case 'g':
        geometry(state, a->recipe, arg);
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->out)
            argp_error(state, "--out is needed");
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
    "Trains all weights of a small byte-level backbone on plain text and writes a model folder.\v"
    "Examples:\n"
    "  pedrobench pretrain --out runs/backbone\n"
    "  pedrobench pretrain --out big --geometry width=192,ffn=512,layers=6,heads=6,head_dim=32 \\\n"
    "      --text books.txt --mark '<|endoftext|>' --steps 20k",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {.recipe = json_object()};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = pb_pretrain(a.recipe, a.out);
    json_decref(a.recipe);
    return err;
}

PB_COMMAND(pretrain) = {"pretrain", "train a small backbone on plain text", 40, run};
