// `pedrobench convert`: a model in another format or number type.
#include "cli/common/common.h"
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
    "file as a PEFT folder. Nothing is overwritten.\v"
    "Examples:\n"
    "  pedrobench convert model.gguf models/mine --dtype bf16\n"
    "  pedrobench convert models/mine model.bin --to llama2c\n"
    "  pedrobench convert lora.gguf adapters/mine --base model.gguf",
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

static const struct {
    const char *name, *torch;
    pb_dtype dtype;
} types[] = {{"f32", "float32", PB_F32}, {"bf16", "bfloat16", PB_BF16}, {"f16", "float16", PB_F16}};
enum { N_TYPES = sizeof types / sizeof *types };

// The name that config.json has for the dtype of the weights: the one asked for, or the one that
// all matrices have.
static const char *torch_dtype(const pb_source *s, int dtype)
{
    for (size_t i = 0; dtype == PB_AS_STORED && i < pb_tensors_count(s->tensors); i++)
        if (pb_tensors_at(s->tensors, i)->n_dims == 2)
            dtype = (int)pb_tensors_at(s->tensors, i)->dtype;
    for (size_t i = 0; i < N_TYPES; i++)
        if (dtype == (int)types[i].dtype)
            return types[i].torch;
    return "float32";
}

// The weights alone: not what files have beside them.
static pb_err choose(const pb_tensor ***out, size_t *n, const pb_source *s)
{
    pb_err err = PB_OK;
    pb_layout l = {0};
    char name[160];
    PB_GO(pb_model_layout(&l, &s->config));
    *n = l.n;
    *out = calloc(l.n + 1, sizeof **out);
    if (!*out)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a list of tensors"));
    for (size_t i = 0; i < l.n; i++) {
        PB_GO(pb_weight_name(name, &l.spec[i]));
        (*out)[i] = pb_tensors_find(s->tensors, name); // its presence was checked on opening
    }
done:
    pb_layout_free(&l);
    return err;
}

static pb_err to_folder(const struct args *a, const pb_source *s)
{
    pb_err err = PB_OK;
    const pb_tensor **list = NULL;
    json_t *config = NULL;
    pb_config c = s->config;
    size_t n = 0, limit = PB_SHARD_BYTES;
    char path[4096];
    int dtype = PB_AS_STORED;
    for (size_t i = 0; a->dtype && i < N_TYPES; i++)
        if (strcmp(types[i].name, a->dtype) == 0)
            dtype = (int)types[i].dtype;
    if (a->dtype && dtype == PB_AS_STORED)
        return pb_fail(PB_USAGE, "f32, bf16 or f16", "--dtype is \"%s\"", a->dtype);
    if (a->shard)
        PB_TRY(pb_parse_size(a->shard, "--shard-size", &limit));
    PB_GO(choose(&list, &n, s));
    PB_GO(pb_fresh_folder(a->out));
    PB_GO(pb_source_copy_tokenizer(s, a->out, &c));
    PB_GO(pb_tensors_write_folder(a->out, "model", list, n, dtype, limit));
    config = pb_config_to_json(&c);
    if (!config || json_object_set_new(config, "torch_dtype", json_string(torch_dtype(s, dtype))))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a configuration"));
    // Written last: a folder without it is no model.
    PB_GO(pb_path(path, sizeof path, "%s/config.json", a->out));
    err = pb_json_save(config, path);
done:
    free(list);
    json_decref(config);
    return err;
}

static bool is_adapter(const char *path)
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

static pb_err convert_adapter(const struct args *a)
{
    pb_err err = PB_OK;
    pb_config base;
    pb_tensors *t = NULL;
    json_t *config = NULL;
    const pb_tensor **list = NULL;
    char path[4096];
    if (a->dtype || a->shard)
        return pb_fail(PB_USAGE, NULL, "--dtype and --shard-size are for models");
    if (a->base)
        PB_TRY(pb_model_config(&base, a->base));
    PB_GO(pb_gguf_adapter_open(&t, &config, a->base ? &base : NULL, a->in));
    size_t n = pb_tensors_count(t);
    list = calloc(n + 1, sizeof *list);
    if (!list ||
        (a->base && json_object_set_new(config, "base_model_name_or_path", json_string(a->base))))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a list of tensors"));
    for (size_t i = 0; i < n; i++)
        list[i] = pb_tensors_at(t, i);
    PB_GO(pb_fresh_folder(a->out));
    PB_GO(pb_tensors_write_folder(a->out, "adapter_model", list, n, PB_F32, 0));
    PB_GO(pb_path(path, sizeof path, "%s/adapter_config.json", a->out));
    PB_GO(pb_json_save(config, path));
    printf("%s: a LoRA adapter of %zu tensors\n", a->out, n);
done:
    free(list);
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
    if (!llama2c && is_adapter(a.in))
        return convert_adapter(&a);
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
