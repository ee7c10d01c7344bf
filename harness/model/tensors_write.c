// Writing safetensors files and folders; the format is described in tensors.c.
#include "core/json.h"
#include "model/numbers.h"
#include "model/tensors.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, CHUNK = 1 << 16 };

// A tensor to be written: the values of `from` as `dtype`.
typedef struct item {
    const pb_tensor *from;
    pb_dtype dtype;
} item;

typedef union block { // CHUNK values on their way out
    float f32[CHUNK];
    double f64[CHUNK];
    uint16_t u16[CHUNK];
} block;

typedef struct buffers {
    real in[CHUNK];
    block out;
} buffers;

static pb_err no_memory(const char *what)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for %s", what);
}

// Rounds n values; false when a finite one became infinite, with its position in *where.
static bool round_values(pb_dtype dtype, const real *in, size_t n, block *out, size_t *where)
{
    for (size_t i = 0; i < n; i++) {
        double back = 0;
        switch (dtype) {
        case PB_F64:
            out->f64[i] = (double)in[i];
            break;
        case PB_F16:
            out->u16[i] = pb_half_of_real(in[i]);
            back = (double)pb_float_of_half(out->u16[i]);
            break;
        case PB_BF16:
            out->u16[i] = pb_bfloat_of_real(in[i]);
            break;
        default:
            out->f32[i] = (float)in[i];
        }
        if (isinf(back) && isfinite(in[i])) {
            *where = i;
            return false;
        }
    }
    return true;
}

static pb_err write_data(FILE *stream, const item *x, buffers *b, const char *path)
{
    pb_err err = PB_OK;
    const pb_tensor *t = x->from;
    real *made = t->make ? malloc((t->count + 1) * sizeof *made) : NULL;
    if (t->make) {
        PB_GO(made ? PB_OK : no_memory("a tensor"));
        PB_GO(t->make(t, made));
    }
    for (size_t first = 0; first < t->count; first += CHUNK) {
        size_t n = t->count - first < CHUNK ? t->count - first : CHUNK, where = 0;
        const void *p = &b->out;
        if (x->dtype == PB_I64) {
            p = (const int64_t *)t->data + first;
        } else {
            const real *in = made ? made + first : b->in;
            if (!made)
                pb_tensor_read(t, first, n, b->in);
            if (!round_values(x->dtype, in, n, &b->out, &where))
                PB_GO(pb_fail(PB_INPUT, "write F32 or BF16",
                              "the value %g of the tensor \"%.200s\" is too large for %s",
                              (double)in[where], t->name, pb_dtype_name(x->dtype)));
        }
        if (fwrite(p, pb_dtype_bytes(x->dtype, 1), n, stream) != n)
            PB_GO(pb_fail(PB_IO, "is the disk full?",
                          "cannot write the tensor \"%.200s\" to %s: %s", t->name, path,
                          strerror(errno)));
    }
done:
    free(made);
    return err;
}

// Adds one tensor to the header; *end is the end of the data so far.
static pb_err add_entry(json_t *header, const item *x, size_t *end)
{
    const pb_tensor *t = x->from;
    if (strcmp(t->name, "__metadata__") == 0 || json_object_get(header, t->name))
        return pb_fail(PB_INPUT, NULL, "the tensor's name \"%.200s\" is taken", t->name);
    size_t begin = *end;
    if (__builtin_add_overflow(begin, pb_dtype_bytes(x->dtype, t->count), end) || *end > INT64_MAX)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" is too large", t->name);
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", pb_dtype_name(x->dtype), "shape",
                              shape, "data_offsets", (json_int_t)begin, (json_int_t)*end);
    if (!entry || json_object_set_new(header, t->name, entry))
        return pb_fail(PB_INPUT, NULL, "the tensor's name \"%.200s\" is not valid UTF-8", t->name);
    return PB_OK;
}

static pb_err add_meta(json_t *header, const char *const *meta)
{
    json_t *object = json_object();
    if (!object || json_object_set_new(header, "__metadata__", object))
        return no_memory("a header");
    for (; meta[0]; meta += 2) {
        if (!meta[1])
            return pb_fail(PB_INTERNAL, NULL, "the metadata key \"%.200s\" has no value", meta[0]);
        if (json_object_set_new(object, meta[0], json_string(meta[1])))
            return pb_fail(PB_INPUT, NULL, "the metadata \"%.200s\" is not valid UTF-8", meta[0]);
    }
    return PB_OK;
}

// The header is padded with spaces so that the data starts at a multiple of 8.
static pb_err write_header(FILE *stream, const json_t *header, const char *path)
{
    char *text = json_dumps(header, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (!text)
        return no_memory("a header");
    pb_err err = PB_OK;
    size_t n = strlen(text);
    uint64_t padded = (n + 7) / 8 * 8;
    if (padded > MAX_HEADER)
        PB_GO(pb_fail(PB_UNSUPPORTED, "write fewer tensors to one file",
                      "%s: the header would have %zu bytes, more than %d", path, n, MAX_HEADER));
    if (fwrite(&padded, sizeof padded, 1, stream) != 1 || fwrite(text, 1, n, stream) != n ||
        fprintf(stream, "%*s", (int)(padded - n), "") < 0)
        err = pb_fail(PB_IO, "is the disk full?", "cannot write the header of %s: %s", path,
                      strerror(errno));
done:
    free(text);
    return err;
}

// The order of the format's reference implementation: wide elements first, which keeps every tensor
// aligned to its element, and by name among those of one type.
static int in_file_order(const void *a, const void *b)
{
    static const int rank[] = {
        [PB_F16] = 1, [PB_BF16] = 2, [PB_F32] = 3, [PB_F64] = 4, [PB_I64] = 5};
    const item *x = *(const item *const *)a, *y = *(const item *const *)b;
    int by_type = rank[y->dtype] - rank[x->dtype];
    return by_type ? by_type : strcmp(x->from->name, y->from->name);
}

static pb_err write_file(const char *path, const item *list, size_t n, const char *const *meta)
{
    pb_err err = PB_OK;
    pb_writer w = {0};
    json_t *header = json_object();
    const item **order = calloc(n + 1, sizeof *order);
    buffers *b = malloc(sizeof *b);
    if (!header || !order || !b)
        PB_GO(no_memory("a header"));
    if (meta)
        PB_GO(add_meta(header, meta));
    for (size_t i = 0; i < n; i++)
        order[i] = &list[i];
    qsort(order, n, sizeof *order, in_file_order);
    size_t end = 0;
    for (size_t i = 0; i < n; i++)
        PB_GO(add_entry(header, order[i], &end));
    PB_GO(pb_writer_open(&w, path));
    PB_GO(write_header(w.stream, header, path));
    for (size_t i = 0; i < n; i++)
        PB_GO(write_data(w.stream, order[i], b, path));
    err = pb_writer_commit(&w);
done:
    if (err)
        pb_writer_abandon(&w);
    json_decref(header);
    free(order);
    free(b);
    return err;
}

pb_err pb_tensors_write(const char *path, const pb_tensor_out *list, size_t n,
                        const char *const *meta)
{
    static const pb_dtype dtype_of_real = sizeof(real) == sizeof(float) ? PB_F32 : PB_F64;
    pb_err err = PB_OK;
    item *items = calloc(n + 1, sizeof *items);
    pb_tensor *from = calloc(n + 1, sizeof *from);
    if (!items || !from)
        PB_GO(no_memory("a list of tensors"));
    for (size_t i = 0; i < n; i++) {
        const pb_tensor_out *x = &list[i];
        if ((size_t)x->dtype >= PB_Q8_0)
            PB_GO(pb_fail(PB_INTERNAL, NULL, "the tensor \"%.200s\" cannot be written as dtype %d",
                          x->name, (int)x->dtype));
        from[i] = (pb_tensor){.name = (char *)x->name,
                              .dtype = x->dtype == PB_I64 ? PB_I64 : dtype_of_real,
                              .n_dims = x->n_dims,
                              .data = x->data};
        memcpy(from[i].shape, x->shape, sizeof x->shape);
        if (x->n_dims > PB_MAX_DIMS ||
            !pb_tensor_count(x->shape, x->n_dims, PB_F64, &from[i].count))
            PB_GO(pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" has an impossible shape (%zu,...)",
                          x->name, x->shape[0]));
        items[i] = (item){&from[i], x->dtype};
    }
    err = write_file(path, items, n, meta);
done:
    free(items);
    free(from);
    return err;
}

// The end of the shard that starts at `first`, and its bytes.
static size_t shard_end(const item *list, size_t first, size_t n, size_t limit, size_t *bytes)
{
    size_t i = first;
    for (*bytes = 0; i < n; i++) {
        size_t more = pb_dtype_bytes(list[i].dtype, list[i].from->count);
        if (limit && i > first && (more > limit || *bytes > limit - more))
            break;
        *bytes += more;
    }
    return i;
}

pb_err pb_tensors_write_folder(const char *folder, const char *stem, const pb_tensor *const *list,
                               size_t n, int dtype, size_t limit)
{
    static const char *const meta[] = {"format", "pt", NULL};
    pb_err err = PB_OK;
    char path[4096], name[128];
    size_t shards = 0, total = 0, bytes;
    json_t *index = NULL, *map = json_object();
    item *items = calloc(n + 1, sizeof *items);
    if (!items || !map)
        PB_GO(no_memory("a list of tensors"));
    for (size_t i = 0; i < n; i++) {
        pb_dtype own = list[i]->dtype == PB_Q8_0 ? PB_F32 : list[i]->dtype;
        items[i] = (item){list[i], dtype == PB_AS_STORED ? own : (pb_dtype)dtype};
    }
    for (size_t at = 0; at < n; shards++) {
        at = shard_end(items, at, n, limit, &bytes);
        total += bytes;
    }
    if (shards <= 1) {
        PB_GO(pb_path(path, sizeof path, "%s/%s.safetensors", folder, stem));
        err = write_file(path, items, n, meta);
        goto done;
    }
    for (size_t at = 0, end, k = 1; at < n; at = end, k++) {
        end = shard_end(items, at, n, limit, &bytes);
        snprintf(name, sizeof name, "%.32s-%05zu-of-%05zu.safetensors", stem, k, shards);
        for (size_t i = at; i < end; i++)
            if (json_object_set_new(map, items[i].from->name, json_string(name)))
                PB_GO(no_memory("the index of shards"));
        PB_GO(pb_path(path, sizeof path, "%s/%s", folder, name));
        PB_GO(write_file(path, items + at, end - at, meta));
    }
    index =
        json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    PB_GO(index ? PB_OK : no_memory("the index of shards"));
    PB_GO(pb_path(path, sizeof path, "%s/%s.safetensors.index.json", folder, stem));
    err = pb_json_save(index, path);
done:
    json_decref(index);
    json_decref(map);
    free(items);
    return err;
}
