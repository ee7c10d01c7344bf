// `pedrobench pretrain`: a small backbone from plain text.
#include "cli/common/common.h"
#include "cli/common/pretraining.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

struct args {
    json_t *recipe;
    const char *file, *out;
};

static const struct argp_option opts[] = {
    {"out", 'o', "DIR", 0, "Model folder to write", 0},
    {"recipe", 'r', "FILE", 0,
     "JSON of any of these settings; options given beside it come on top. A model folder's "
     "recipe.json repeats its training",
     0},
    {"from", 'f', "MODEL", 0,
     "Go on from this model's weights, in its geometry and with its tokenizer (default: random "
     "weights)",
     0},
    {"text", 't', "FILE", 0, "Plain text; several may be given (default: generated, English-like)",
     0},
    {"valid", 'v', "FILE", 0, "Text for validation (default: the last 3 % of every text)", 0},
    {"mark", 'k', "TEXT", 0, "What separates documents in them (default: a blank line)", 0},
    {"bytes", 'b', "N", 0, "Bytes of generated text to add (default 3M without --text, else 0)", 0},
    {"tokenizer", 'T', "FILE", 0,
     "Tokenizer, e.g. of `pedrobench tokenizer train` (default: bytes)", 0},
    {"steps", 'n', "N", 0, "Optimizer steps (default 1000)", 0},
    {"stop", 'x', "N", 0,
     "End at this step of the schedule that --steps gives (default: all of it)", 0},
    {"batch-tokens", 'B', "N", 0, "Tokens per step (default 4096)", 0},
    {"recompute", 'R', 0, 0,
     "Keep only the inputs of layers, and compute their activations again for the backward pass: "
     "less memory, more time, the same bits",
     0},
    {"lr", 'l', "RATE", 0, "Peak learning rate (default 3e-3)", 0},
    {"seed", 'S', "N", 0, "Seed (default 1)", 0},
    {"geometry", 'g', "KEY=N,...", 0,
     "width, ffn, layers, heads, kv_heads, head_dim, context (defaults 96,256,4,6,3,16,256)", 0},
    {"untied", 'u', 0, 0, "A head of its own, not the embedding", 0},
    {"dtype", 'd', "TYPE", 0, "Save weights as f32 (default) or bf16", 0},
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
    case 'r':
        a->file = arg;
        break;
    case 'f':
        json_object_set_new(a->recipe, "from", json_string(arg));
        break;
    case 't':
        if (!json_object_get(a->recipe, "text"))
            json_object_set_new(a->recipe, "text", json_array());
        json_array_append_new(json_object_get(a->recipe, "text"), json_string(arg));
        break;
    case 'v':
        json_object_set_new(a->recipe, "valid", json_string(arg));
        break;
    case 'T':
        json_object_set_new(a->recipe, "tokenizer", json_string(arg));
        break;
    case 'd':
        json_object_set_new(a->recipe, "dtype", json_string(arg));
        break;
    case 'u':
        json_object_set_new(a->recipe, "tied", json_false());
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
    case 'x':
        put(state, a->recipe, "stop", arg);
        break;
    case 'B':
        put(state, a->recipe, "batch_tokens", arg);
        break;
    case 'R':
        json_object_set_new(a->recipe, "recompute", json_true());
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
    "Trains all weights of a small backbone on plain text and writes a model folder, with its "
    "recipe and its loss curve (loss.csv). Documents are packed into batches without padding; "
    "attention stays inside a document. Interrupted work goes on when the command is run again.\v"
    "Examples:\n"
    "  pedrobench pretrain --out runs/backbone\n"
    "  pedrobench tokenizer train --vocab 4096 --out tokenizer.json --mark '<|endoftext|>' a.txt\n"
    "  pedrobench pretrain --out big --geometry width=192,ffn=512,layers=6,heads=6,head_dim=32 \\\n"
    "      --tokenizer tokenizer.json --text a.txt --mark '<|endoftext|>' --steps 20k\n"
    "  pedrobench pretrain --recipe big/recipe.json --out again\n"
    "  pedrobench pretrain --from big --text b.txt --steps 5k --lr 1e-3 --out longer",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {.recipe = json_object()};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    json_t *base = NULL;
    if (a.file)
        PB_GO(pb_json_load(&base, a.file));
    else
        base = json_object();
    json_object_del(base, "result");
    json_object_del(base, "before");
    json_object_update(base, a.recipe);
    PB_GO(pb_pretrain(base, a.out));
done:
    json_decref(base);
    json_decref(a.recipe);
    return err;
}

PB_COMMAND(pretrain) = {"pretrain", "train a small backbone on plain text", 40, run};
