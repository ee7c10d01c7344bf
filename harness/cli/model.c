// `pedrobench model`: models with random weights in published geometries.
#include "cli/common/common.h"
#include "model/presets.h"
#include "model/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_RANDOM = 1000, KEY_WRITE, MAX_SET = 32, BYTE_TOKENS = 258 };

struct args {
    const char *what, *like, *out, *seed, *dtype, *layers;
    const char *set[MAX_SET];
    size_t n_set;
    bool random, write;
};

static const struct argp_option opts[] = {
    {"like", 'l', "NAME", 0, "A preset (see `pedrobench model list`), or a model to take after", 0},
    {"random", KEY_RANDOM, 0, 0, "With random weights: presets come without any", 0},
    {"seed", 's', "N", 0, "Seed of the weights (default 0)", 0},
    {"dtype", 'd', "TYPE", 0, "bf16 (default) or f32", 0},
    {"layers", 'L', "N", 0, "Only so many layers", 0},
    {"set", 'S', "KEY=VALUE", 0, "Change a key of config.json; may be repeated", 0},
    {"write", KEY_WRITE, 0, 0,
     "Write the weights. Without it the folder holds the seed alone, and whoever opens it makes "
     "them in memory",
     0},
    {"out", 'o', "DIR", 0, "The folder to make", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'l':
        a->like = arg;
        break;
    case KEY_RANDOM:
        a->random = true;
        break;
    case 's':
        a->seed = arg;
        break;
    case 'd':
        a->dtype = arg;
        break;
    case 'L':
        a->layers = arg;
        break;
    case 'S':
        if (a->n_set == MAX_SET)
            argp_error(state, "more than %d times --set", MAX_SET);
        a->set[a->n_set++] = arg;
        break;
    case KEY_WRITE:
        a->write = true;
        break;
    case 'o':
        a->out = arg;
        break;
    case ARGP_KEY_ARG:
        if (a->what)
            argp_error(state, "unexpected argument \"%s\"", arg);
        a->what = arg;
        if (strcmp(arg, "list") != 0 && strcmp(arg, "new") != 0)
            argp_error(state, "\"%s\" is neither \"list\" nor \"new\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->what)
            argp_error(state, "say \"list\" or \"new\"");
        if (!strcmp(a->what, "new") && (!a->like || !a->out))
            argp_error(state, "--like and --out are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "list\nnew --like NAME --random --out DIR",
    "Lists published geometries, or makes a model folder of one with random weights, for "
    "measuring time and memory.\v"
    "Examples:\n"
    "  pedrobench model list\n"
    "  pedrobench model new --like llama2-7b --random --out models/7b\n"
    "  pedrobench model new --like llama2-7b --random --layers 4 --set vocab_size=1000 "
    "--out models/short\n"
    "  pedrobench model new --like smollm-135m --random --seed 7 --write --out models/smollm",
    NULL,
    NULL,
    NULL};

static pb_err list_presets(void)
{
    printf("%-12s %15s %8s %6s %6s %5s/%-4s %7s  %s\n", "name", "parameters", "GB bf16", "layers",
           "width", "heads", "kv", "context", "geometry of");
    for (const pb_preset *p = pb_presets; p->name; p++) {
        json_t *j;
        pb_config c;
        PB_TRY(pb_preset_find(&j, p->name));
        pb_err err = pb_config_from_json(&c, j);
        json_decref(j);
        PB_TRY(err);
        size_t n = pb_config_params(&c);
        printf("%-12s %15zu %8.2f %6zu %6zu %5zu/%-4zu %7zu  %s\n", p->name, n, (double)n * 2 / 1e9,
               c.layers, c.width, c.heads, c.kv_heads, c.context, p->model);
    }
    return PB_OK;
}

// The configuration to start from, with every key written out.
static pb_err starting_point(json_t **out, const char *like)
{
    pb_config c;
    if (pb_exists(like)) {
        PB_TRY(pb_model_config(&c, like));
        c.tokenizer[0] = 0;
    } else {
        json_t *j;
        PB_TRY(pb_preset_find(&j, like));
        pb_err err = pb_config_from_json(&c, j);
        json_decref(j);
        PB_TRY(err);
    }
    *out = pb_config_to_json(&c);
    return *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
}

// KEY=VALUE; the key must be there already, the value is JSON or else text.
static pb_err set_key(json_t *config, const char *setting)
{
    const char *equals = strchr(setting, '=');
    char key[128];
    if (!equals || equals == setting || (size_t)(equals - setting) >= sizeof key)
        return pb_fail(PB_USAGE, "e.g. --set num_key_value_heads=8", "--set is \"%s\"", setting);
    snprintf(key, sizeof key, "%.*s", (int)(equals - setting), setting);
    if (!json_object_get(config, key)) {
        char known[1024] = "keys are";
        const char *name;
        json_t *value;
        json_object_foreach(config, name, value)
        {
            size_t n = strlen(known);
            snprintf(known + n, sizeof known - n, " %s", name);
        }
        return pb_fail(PB_USAGE, known, "the configuration has no key \"%s\"", key);
    }
    json_t *v = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!v)
        v = json_string(equals + 1);
    return v && !json_object_set_new(config, key, v)
               ? PB_OK
               : pb_fail(PB_USAGE, NULL, "--set %s is not valid UTF-8", key);
}

static pb_err new_model(const struct args *a)
{
    pb_err err = PB_OK;
    json_t *config = NULL, *written = NULL;
    pb_tensors *t = NULL;
    const pb_tensor **list = NULL;
    pb_random r = {0, PB_BF16};
    pb_config c;
    char path[4096];
    const char *dtype = a->dtype ? a->dtype : "bf16";
    if (!a->random)
        return pb_fail(PB_USAGE, "add --random", "there are no weights for a preset");
    if (a->seed) {
        size_t seed;
        PB_TRY(pb_parse_size(a->seed, "--seed", &seed));
        r.seed = seed;
    }
    if (!strcmp(dtype, "f32"))
        r.dtype = PB_F32;
    else if (strcmp(dtype, "bf16") != 0)
        return pb_fail(PB_USAGE, "bf16 or f32", "--dtype is \"%s\"", dtype);
    PB_GO(starting_point(&config, a->like));
    if (a->layers) {
        size_t n;
        PB_GO(pb_parse_size(a->layers, "--layers", &n));
        json_object_set_new(config, "num_hidden_layers", json_integer((json_int_t)n));
        // A list with one entry per layer gets as many.
        json_t *types = json_object_get(config, "layer_types");
        while (json_array_size(types) > n)
            json_array_remove(types, json_array_size(types) - 1);
    }
    for (size_t i = 0; i < a->n_set; i++)
        PB_GO(set_key(config, a->set[i]));
    PB_GO(pb_config_from_json(&c, config));
    if (!*c.tokenizer && c.vocab >= BYTE_TOKENS)
        snprintf(c.tokenizer, sizeof c.tokenizer, "bytes");
    written = pb_config_to_json(&c);
    if (!written || json_object_set_new(written, "torch_dtype",
                                        json_string(r.dtype == PB_F32 ? "float32" : "bfloat16")))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a configuration"));
    PB_GO(pb_fresh_folder(a->out));
    if (a->write) {
        PB_GO(pb_random_tensors(&t, &c, &r));
        list = calloc(pb_tensors_count(t) + 1, sizeof *list);
        if (!list)
            PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a list of tensors"));
        for (size_t i = 0; i < pb_tensors_count(t); i++)
            list[i] = pb_tensors_at(t, i);
        PB_GO(pb_tensors_write_folder(a->out, "model", list, pb_tensors_count(t), PB_AS_STORED,
                                      PB_SHARD_BYTES));
    } else {
        json_object_set_new(written, "pb_random",
                            json_pack("{s:I, s:s}", "seed", (json_int_t)r.seed, "dtype", dtype));
    }
    PB_GO(pb_path(path, sizeof path, "%s/config.json", a->out));
    PB_GO(pb_json_save(written, path));
    size_t n = pb_config_params(&c), width = r.dtype == PB_F32 ? 4 : 2;
    printf("%s: %zu parameters, %.2f GB in %s\n", a->out, n, (double)n * (double)width / 1e9,
           dtype);
done:
    free(list);
    pb_tensors_close(t);
    json_decref(config);
    json_decref(written);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    return strcmp(a.what, "list") ? new_model(&a) : list_presets();
}

PB_COMMAND(model) = {"model", "make models with random weights in published geometries", 61, run};
