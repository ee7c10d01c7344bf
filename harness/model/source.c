// Opening models: which format lies at a path, and what all formats have in common: the check that
// tensors and configuration fit, before memory is spent.
#include "model/source.h"

#include "model/gguf.h"
#include "model/gguf_tokenizer.h"
#include "model/llama2c.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pb_source_kind_name(pb_source_kind kind)
{
    static const char *const names[] = {"Hugging Face folder", "folder without weights (random)",
                                        "GGUF file", "llama2.c checkpoint"};
    return names[kind];
}

void pb_source_close(pb_source *s)
{
    pb_tensors_close(s->tensors);
    json_decref(s->meta);
    s->tensors = NULL;
    s->meta = NULL;
}

pb_err pb_random_tensors(pb_tensors **out, const pb_config *c, const pb_random *r)
{
    pb_err err = PB_OK;
    pb_layout l = {0};
    pb_tensors *t = NULL;
    char name[160];
    *out = NULL;
    PB_GO(pb_config_check(c));
    PB_GO(pb_model_layout(&l, c));
    PB_GO(pb_tensors_new(&t, NULL));
    for (size_t i = 0; i < l.n; i++) {
        const pb_spec *s = &l.spec[i];
        bool vector = pb_weight_is_vector(s);
        pb_tensor x = {.dtype = r->dtype,
                       .n_dims = vector ? 1 : 2,
                       .shape = {vector ? s->cols : s->rows, vector ? 0 : s->cols},
                       .count = s->rows * s->cols,
                       .seed = r->seed,
                       .number = (uint32_t)i,
                       .mean = s->init == PB_INIT_ONE ? 1 : 0,
                       .gain = s->init == PB_INIT_NORMAL ? (float)s->gain : 0};
        PB_GO(pb_weight_name(name, s));
        PB_GO(pb_tensors_add(t, name, &x));
    }
done:
    pb_layout_free(&l);
    if (err)
        pb_tensors_close(t);
    else
        *out = t;
    return err;
}

static pb_err read_random(pb_random *r, const json_t *j)
{
    static const char *const known[] = {"seed", "dtype", NULL};
    int64_t seed = 0;
    const char *dtype = "bf16";
    PB_TRY(pb_json_only(j, known, "\"pb_random\""));
    PB_TRY(pb_json_opt_int(j, "seed", &seed, 0, INT64_MAX));
    PB_TRY(pb_json_opt_str(j, "dtype", &dtype));
    bool wide = strcmp(dtype, "f32") == 0;
    if (!wide && strcmp(dtype, "bf16") != 0)
        return pb_fail(PB_UNSUPPORTED, "known are bf16 and f32",
                       "\"dtype\" of \"pb_random\" is \"%.100s\"", dtype);
    *r = (pb_random){(uint64_t)seed, wide ? PB_F32 : PB_BF16};
    return PB_OK;
}

static pb_err open_folder(pb_source *s, bool weights)
{
    char file[4096];
    pb_err err = PB_OK;
    json_t *j = NULL;
    PB_GO(pb_path(file, sizeof file, "%s/config.json", s->path));
    PB_GO(pb_json_load(&j, file));
    err = pb_config_from_json(&s->config, j);
    if (err) {
        (void)pb_context(err, "%s", file);
        goto done;
    }
    const json_t *random = json_object_get(j, "pb_random");
    s->kind = random ? PB_SOURCE_RANDOM : PB_SOURCE_FOLDER;
    if (random) {
        pb_random r;
        PB_GO(read_random(&r, random));
        PB_GO(pb_path(file, sizeof file, "%s/model.safetensors", s->path));
        if (pb_exists(file))
            PB_GO(pb_fail(PB_INPUT, "remove one of the two",
                          "config.json asks for random weights, but %s exists", file));
        if (weights)
            PB_GO(pb_random_tensors(&s->tensors, &s->config, &r));
    } else if (weights) {
        PB_GO(pb_tensors_open_folder(&s->tensors, s->path));
    }
done:
    json_decref(j);
    return err;
}

// Tensors that files have beside the weights, without a meaning of their own: tables that follow
// from the configuration, and a tied head written out.
static bool is_harmless(const char *name, const pb_config *c)
{
    static const char table[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name), m = sizeof table - 1;
    return (n > m && strcmp(name + n - m, table) == 0) ||
           (c->tied && strcmp(name, "lm_head.weight") == 0);
}

static pb_err check_tensors(const pb_source *s)
{
    pb_err err = PB_OK;
    pb_layout l = {0};
    json_t *known = json_object();
    char name[160];
    const pb_tensor *x;
    if (!known)
        return pb_fail(PB_MEMORY, NULL, "no memory for the names of tensors");
    PB_GO(pb_model_layout(&l, &s->config));
    for (size_t i = 0; i < l.n; i++) {
        const pb_spec *w = &l.spec[i];
        bool vector = pb_weight_is_vector(w);
        PB_GO(pb_weight_name(name, w));
        PB_GO(pb_tensors_need(s->tensors, name, vector ? w->cols : w->rows, vector ? 0 : w->cols,
                              &x));
        json_object_set_new(known, name, json_true());
    }
    for (size_t i = 0; i < pb_tensors_count(s->tensors); i++) {
        x = pb_tensors_at(s->tensors, i);
        if (!json_object_get(known, x->name) && !is_harmless(x->name, &s->config))
            PB_GO(pb_fail(PB_UNSUPPORTED, "is config.json that of these weights?",
                          "the tensor \"%.200s\" is no part of a model of this configuration",
                          x->name));
    }
done:
    json_decref(known);
    pb_layout_free(&l);
    return err;
}

pb_err pb_source_open(pb_source *s, const char *path, bool weights)
{
    pb_err err = PB_OK;
    *s = (pb_source){0};
    PB_TRY(pb_path(s->path, sizeof s->path, "%s", path));
    if (!pb_exists(path))
        return pb_fail(PB_IO, "give a model folder, a .gguf file or a llama2.c checkpoint",
                       "there is no model at %s", path);
    if (pb_is_dir(path)) {
        PB_GO(open_folder(s, weights));
    } else if (pb_gguf_is(path)) {
        s->kind = PB_SOURCE_GGUF;
        PB_GO(pb_gguf_open(&s->tensors, &s->config, &s->meta, path));
    } else {
        s->kind = PB_SOURCE_LLAMA2C;
        PB_GO(pb_llama2c_open(&s->tensors, &s->config, path));
        PB_GO(pb_path(s->config.tokenizer, sizeof s->config.tokenizer, "tokenizer.bin"));
    }
    if (weights)
        err = check_tensors(s);
done:
    if (err) {
        pb_source_close(s);
        return pb_context(err, "model %s", path);
    }
    return PB_OK;
}

// The path of the tokenizer's file, "bytes", or "" when there is none.
static pb_err find_tokenizer(char out[4096], const pb_source *s)
{
    const char *name = s->config.tokenizer, *slash = strrchr(s->path, '/');
    bool folder = s->kind == PB_SOURCE_FOLDER || s->kind == PB_SOURCE_RANDOM;
    if (!strcmp(name, "bytes"))
        return pb_path(out, 4096, "bytes");
    if (folder && *name)
        return pb_path(out, 4096, "%s/%s", s->path, name);
    if (folder) {
        if (pb_tokenizer_in(out, 4096, s->path))
            *out = 0;
        return PB_OK;
    }
    PB_TRY(pb_path(out, 4096, "%.*s%s", slash ? (int)(slash - s->path + 1) : 0, s->path, name));
    if (!*name || !pb_exists(out))
        *out = 0;
    return PB_OK;
}

pb_err pb_source_tokenizer(pb_tokenizer **out, const pb_source *s)
{
    char path[4096] = "";
    *out = NULL;
    if (s->kind == PB_SOURCE_GGUF)
        PB_TRY(pb_gguf_tokenizer_open(out, s->meta, s->config.vocab));
    else
        PB_TRY(find_tokenizer(path, s));
    if (*path)
        PB_TRY(pb_tokenizer_open(out, path, s->config.vocab));
    if (*out && pb_tokenizer_eos(*out) < 0 && s->config.n_eos)
        pb_tokenizer_set_eos(*out, s->config.eos[0]);
    return PB_OK;
}

static pb_err copy_file(const char *from, const char *folder, const char *name)
{
    char to[4096];
    pb_file f;
    PB_TRY(pb_path(to, sizeof to, "%s/%s", folder, name));
    PB_TRY(pb_file_map(&f, from));
    pb_err err = pb_file_write(to, f.data, f.size);
    pb_file_unmap(&f);
    return err;
}

pb_err pb_source_copy_tokenizer(const pb_source *s, const char *folder, pb_config *c)
{
    // What belongs to a tokenizer, and says how to talk to the model.
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer.bin",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "generation_config.json"};
    char path[4096], base[4096];
    if (s->kind == PB_SOURCE_GGUF) {
        c->tokenizer[0] = 0;
        return pb_gguf_tokenizer_write(s->meta, folder);
    }
    PB_TRY(find_tokenizer(path, s));
    if (!*path || !strcmp(path, "bytes")) {
        if (!*path)
            c->tokenizer[0] = 0;
        return PB_OK;
    }
    const char *slash = strrchr(path, '/');
    PB_TRY(pb_path(base, sizeof base, "%s", slash ? slash + 1 : path));
    PB_TRY(copy_file(path, folder, base));
    if (s->kind == PB_SOURCE_LLAMA2C)
        return PB_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PB_TRY(pb_path(path, sizeof path, "%s/%s", s->path, names[i]));
        if (pb_exists(path) && strcmp(names[i], base) != 0)
            PB_TRY(copy_file(path, folder, names[i]));
    }
    return PB_OK;
}
