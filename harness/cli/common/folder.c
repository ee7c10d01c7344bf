#include "cli/common/folder.h"

#include <stdlib.h>
#include <string.h>

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
static pb_err choose(pb_tensor **out, size_t *n, const pb_source *s, pb_edit_weight *edit,
                     void *self)
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
        (*out)[i] = *pb_tensors_find(s->tensors, name); // its presence was checked on opening
        if (edit)
            PB_GO(edit(self, &l.spec[i], &(*out)[i]));
    }
done:
    pb_layout_free(&l);
    return err;
}

pb_err pb_write_model_folder(const char *out, const pb_source *s, const char *dtype_name,
                             const char *shard, pb_edit_weight *edit, void *self)
{
    pb_err err = PB_OK;
    pb_tensor *tensors = NULL;
    const pb_tensor **list = NULL;
    json_t *config = NULL;
    pb_config c = s->config;
    size_t n = 0, limit = PB_SHARD_BYTES;
    char path[4096];
    int dtype = PB_AS_STORED;
    for (size_t i = 0; dtype_name && i < N_TYPES; i++)
        if (strcmp(types[i].name, dtype_name) == 0)
            dtype = (int)types[i].dtype;
    if (dtype_name && dtype == PB_AS_STORED)
        return pb_fail(PB_USAGE, "f32, bf16 or f16", "--dtype is \"%s\"", dtype_name);
    if (shard)
        PB_TRY(pb_parse_size(shard, "--shard-size", &limit));
    PB_GO(choose(&tensors, &n, s, edit, self));
    list = calloc(n + 1, sizeof *list);
    if (!list)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a list of tensors"));
    for (size_t i = 0; i < n; i++)
        list[i] = &tensors[i];
    PB_GO(pb_fresh_folder(out));
    PB_GO(pb_source_copy_tokenizer(s, out, &c));
    PB_GO(pb_tensors_write_folder(out, "model", list, n, dtype, limit));
    config = pb_config_to_json(&c);
    if (!config || json_object_set_new(config, "torch_dtype", json_string(torch_dtype(s, dtype))))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a configuration"));
    // Written last: a folder without it is no model.
    PB_GO(pb_path(path, sizeof path, "%s/config.json", out));
    err = pb_json_save(config, path);
done:
    free(tensors);
    free(list);
    json_decref(config);
    return err;
}
