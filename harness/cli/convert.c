// `pedrobench convert`: a model in another format or number type.
#include "cli/common/common.h"
#include "cli/common/folder.h"
#include "model/gguf.h"
#include "model/llama2c.h"
#include "model/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *in, *out, *dtype, *shard, *to, *base;
};

static const struct argp_option opts[] = {
    {"dtype", 'd', "TYPE", 0, "f32, bf16 or f16 (default: as each tensor is stored; Q8_0 as f32)",
     0},
    {"shard-size", 's', "BYTES", 0, "Most bytes in one file, e.g. 500M (default 4G)", 0},
    {"to", 't', "FORMAT", 0,
     "hf: a Hugging Face folder (default), or llama2c: a llama2.c checkpoint, version 1", 0},
    {"base", 'b', "MODEL", 0, "For an adapter: the model it belongs to", 0},
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
    case 't':
        a->to = arg;
        break;
    case 'b':
        a->base = arg;
        break;
    case ARGP_KEY_ARG:
        if (a->out)
            argp_error(state, "unexpected argument \"%s\"", arg);
        *(a->in ? &a->out : &a->in) = arg;
        break;
    case ARGP_KEY_END:
        if (!a->out)
            argp_error(state, "a model and a place for its copy are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "MODEL OUT",
    "Writes any model that can be read (Hugging Face folder, GGUF file, llama2.c checkpoint) as a "
    "Hugging Face folder with its tokenizer, or as a llama2.c checkpoint; a LoRA adapter in a GGUF "
    "file, or an adapter folder of any origin, as a PEFT folder. Nothing is overwritten.\v"
    "Examples:\n"
    "  pedrobench convert model.gguf models/mine --dtype bf16\n"
    "  pedrobench convert models/mine model.bin --to llama2c\n"
    "  pedrobench convert lora.gguf adapters/mine --base model.gguf\n"
    "  pedrobench convert adapters/theirs adapters/mine --base models/mine",
    NULL,
    NULL,
    NULL};

static pb_err to_llama2c(const struct args *a, const pb_source *s)
{
    if (a->dtype && strcmp(a->dtype, "f32") != 0)
        return pb_fail(PB_USAGE, NULL, "a llama2.c checkpoint is f32, not \"%s\"", a->dtype);
    if (a->shard)
        return pb_fail(PB_USAGE, NULL, "a llama2.c checkpoint has no shards");
    if (pb_exists(a->out))
        return pb_fail(PB_IO, "remove it, or choose another name", "%s exists already", a->out);
    return pb_llama2c_write(a->out, &s->config, s->tensors);
}

static pb_err to_folder(const struct args *a, const pb_source *s)
{
    return pb_write_model_folder(a->out, s, a->dtype, a->shard, NULL, NULL);
}

static bool is_gguf_adapter(const char *path)
{
    pb_tensors *t;
    json_t *meta;
    if (pb_is_dir(path) || !pb_gguf_is(path) || pb_gguf_read(&t, &meta, path))
        return false;
    const char *type = json_string_value(json_object_get(meta, "general.type"));
    bool is = type && !strcmp(type, "adapter");
    json_decref(meta);
    pb_tensors_close(t);
    return is;
}

static bool is_adapter_folder(const char *path)
{
    char file[4096];
    return !pb_path(file, sizeof file, "%s/adapter_config.json", path) && pb_exists(file);
}

// A GGUF file's tensors as they are, when its model is not at hand.
static pb_err copy_adapter(const struct args *a, json_t *config, const pb_tensors *t)
{
    pb_err err = PB_OK;
    char path[4096];
    size_t n = pb_tensors_count(t);
    const pb_tensor **list = calloc(n + 1, sizeof *list);
    if (!list)
        return pb_fail(PB_MEMORY, NULL, "no memory for a list of tensors");
    for (size_t i = 0; i < n; i++)
        list[i] = pb_tensors_at(t, i);
    PB_GO(pb_fresh_folder(a->out));
    PB_GO(pb_tensors_write_folder(a->out, "adapter_model", list, n, PB_F32, 0));
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", a->out));
    err = pb_json_save(config, path);
done:
    free(list);
    return err;
}

// With the model known, an adapter is read as whoever serves it would, and saved.
static pb_err convert_adapter(const struct args *a, bool gguf)
{
    pb_err err = PB_OK;
    pb_config base;
    pb_tensors *t = NULL;
    json_t *config = NULL;
    pb_adapter *ad = NULL;
    if (a->dtype || a->shard || strcmp(a->to, "hf") != 0)
        return pb_fail(PB_USAGE, "adapters are written as PEFT folders, in f32",
                       "--dtype, --shard-size and --to are for models");
    if (!a->base && !gguf)
        return pb_fail(PB_USAGE, "name the model with --base",
                       "an adapter folder can be read only with its model's sizes known");
    if (a->base)
        PB_TRY(pb_model_config(&base, a->base));
    if (gguf)
        PB_GO(pb_gguf_adapter_open(&t, &config, a->base ? &base : NULL, a->in));
    if (!a->base) {
        PB_GO(copy_adapter(a, config, t));
        printf("%s: a LoRA adapter of %zu tensors\n", a->out, pb_tensors_count(t));
        goto done;
    }
    if (gguf)
        PB_GO(pb_adapter_read(&ad, config, t, &base, NULL));
    else
        PB_GO(pb_adapter_load(&ad, a->in, &base, NULL));
    if (gguf)
        pb_adapter_made_for(ad, a->base, NULL);
    PB_GO(pb_fresh_folder(a->out));
    PB_GO(pb_adapter_save(ad, a->out));
    printf("%s: an adapter of method %s, %zu parameters\n", a->out, ad->method->name,
           ad->layout.saved);
done:
    pb_adapter_free(ad);
    json_decref(config);
    pb_tensors_close(t);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.to = "hf"};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    bool llama2c = !strcmp(a.to, "llama2c");
    if (!llama2c && strcmp(a.to, "hf") != 0)
        return pb_fail(PB_USAGE, "hf or llama2c", "--to is \"%s\"", a.to);
    if (is_gguf_adapter(a.in))
        return convert_adapter(&a, true);
    if (is_adapter_folder(a.in))
        return convert_adapter(&a, false);
    if (a.base)
        return pb_fail(PB_USAGE, NULL, "--base is for adapters, but %s is none", a.in);
    pb_source s;
    PB_TRY(pb_source_open(&s, a.in, true));
    pb_err err = llama2c ? to_llama2c(&a, &s) : to_folder(&a, &s);
    if (!err)
        printf("%s: %zu parameters from a %s\n", a.out, pb_config_params(&s.config),
               pb_source_kind_name(s.kind));
    pb_source_close(&s);
    return err;
}

PB_COMMAND(convert) = {"convert", "write a model in another format or number type", 62, run};
