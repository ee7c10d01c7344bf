// safetensors: an 8-byte little-endian header length N (at most 100,000,000), N bytes of JSON, then
// the data area. A header entry gives dtype, shape and data_offsets [begin, end) inside the data
// area; `__metadata__` maps strings to strings. The entries cover the data area exactly once: no
// hole, no overlap. Source: github.com/huggingface/safetensors, README.
//
// Data areas need not be aligned, so elements are always fetched with memcpy.
#include "model/tensors.h"

#include "core/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file formats are little endian");

enum { MAX_HEADER = 100000000, MAX_SHARDS = 4096 };

struct pb_tensors {
    char *path; // for messages; NULL when the set was not read from a file
    pb_file file;
    json_t *header; // keeps the metadata; NULL without a safetensors file
    json_t *index;  // name -> position in `list`
    pb_tensor *list;
    size_t n, cap;
    pb_tensors **shard; // the sets whose files the tensors of `list` lie in, when not in `file`
    size_t n_shards;
};

// A block of `values` values has `bytes` bytes.
static const struct {
    const char *name;
    size_t bytes, values;
} dtypes[] = {
    [PB_F32] = {"F32", 4, 1}, [PB_F16] = {"F16", 2, 1}, [PB_BF16] = {"BF16", 2, 1},
    [PB_F64] = {"F64", 8, 1}, [PB_I64] = {"I64", 8, 1}, [PB_Q8_0] = {"Q8_0", 34, PB_Q8_BLOCK},
};
enum { N_SAFE = PB_Q8_0 }; // those before it exist in safetensors files

const char *pb_dtype_name(pb_dtype d)
{
    return dtypes[d].name;
}

size_t pb_dtype_bytes(pb_dtype d, size_t count)
{
    return count / dtypes[d].values * dtypes[d].bytes;
}

static pb_err no_memory(const char *what)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for %s", what);
}

bool pb_tensor_count(const size_t *shape, size_t n_dims, pb_dtype dtype, size_t *count)
{
    size_t bytes;
    *count = 1;
    for (size_t i = 0; i < n_dims; i++)
        if (__builtin_mul_overflow(*count, shape[i], count))
            return false;
    return !__builtin_mul_overflow(*count, dtypes[dtype].bytes, &bytes) && bytes <= INT64_MAX;
}

void pb_tensors_close(pb_tensors *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->list[i].name);
    for (size_t i = 0; i < t->n_shards; i++)
        pb_tensors_close(t->shard[i]);
    free(t->shard);
    free(t->list);
    json_decref(t->index);
    json_decref(t->header);
    pb_file_unmap(&t->file);
    free(t->path);
    free(t);
}

pb_err pb_tensors_new(pb_tensors **out, const char *path)
{
    *out = NULL;
    pb_err err = PB_OK;
    pb_tensors *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory("a set of tensors");
    t->index = json_object();
    t->path = path ? strdup(path) : NULL;
    if (!t->index || (path && !t->path))
        PB_GO(no_memory("a set of tensors"));
    if (path)
        PB_GO(pb_file_map(&t->file, path));
done:
    if (err)
        pb_tensors_close(t);
    else
        *out = t;
    return err;
}

const pb_file *pb_tensors_file(const pb_tensors *t)
{
    return &t->file;
}

pb_err pb_tensors_add(pb_tensors *t, const char *name, const pb_tensor *x)
{
    if (json_object_get(t->index, name))
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" is there twice", name);
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        pb_tensor *list = realloc(t->list, cap * sizeof *list);
        if (!list)
            return no_memory("the list of tensors");
        t->list = list;
        t->cap = cap;
    }
    char *copy = strdup(name);
    if (!copy)
        return no_memory("a tensor's name");
    if (json_object_set_new(t->index, name, json_integer((json_int_t)t->n))) {
        free(copy);
        return pb_fail(PB_INPUT, NULL, "the tensor's name \"%.200s\" is not valid UTF-8", name);
    }
    t->list[t->n] = *x;
    t->list[t->n++].name = copy;
    return PB_OK;
}

static pb_err read_shape(pb_tensor *x, const json_t *shape)
{
    if (!json_is_array(shape))
        return pb_fail(PB_INPUT, NULL, "\"shape\" must be a list");
    x->n_dims = json_array_size(shape);
    if (x->n_dims > PB_MAX_DIMS)
        return pb_fail(PB_UNSUPPORTED, NULL, "\"shape\" has %zu dimensions, more than %d",
                       x->n_dims, PB_MAX_DIMS);
    for (size_t i = 0; i < x->n_dims; i++) {
        const json_t *v = json_array_get(shape, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return pb_fail(PB_INPUT, NULL, "\"shape\" must hold integers from 0 up (dimension %zu)",
                           i);
        x->shape[i] = (size_t)json_integer_value(v);
    }
    if (!pb_tensor_count(x->shape, x->n_dims, x->dtype, &x->count))
        return pb_fail(PB_INPUT, NULL, "the product of \"shape\" overflows");
    return PB_OK;
}

static pb_err read_offsets(size_t offsets[2], const json_t *pair)
{
    if (!json_is_array(pair) || json_array_size(pair) != 2)
        return pb_fail(PB_INPUT, NULL, "\"data_offsets\" must be a list of two integers");
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(pair, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return pb_fail(PB_INPUT, NULL, "\"data_offsets\" must hold two integers from 0 up");
        offsets[i] = (size_t)json_integer_value(v);
    }
    return PB_OK;
}

// One entry of the header; data_size is the size of the data area.
static pb_err read_entry(pb_tensor *x, const json_t *entry, const uint8_t *area, size_t data_size)
{
    static const char *const known[] = {"dtype", "shape", "data_offsets", NULL};
    PB_TRY(pb_json_only(entry, known, "its entry"));
    const char *dtype = NULL;
    PB_TRY(pb_json_str(entry, "dtype", &dtype));
    size_t d = 0;
    while (d < N_SAFE && strcmp(dtypes[d].name, dtype) != 0)
        d++;
    if (d == N_SAFE)
        return pb_fail(PB_UNSUPPORTED, "known are F32, F16, BF16, F64 and I64",
                       "the dtype \"%.100s\" is not known", dtype);
    x->dtype = (pb_dtype)d;
    PB_TRY(read_shape(x, json_object_get(entry, "shape")));
    size_t at[2], bytes = pb_dtype_bytes(x->dtype, x->count);
    PB_TRY(read_offsets(at, json_object_get(entry, "data_offsets")));
    if (at[0] > at[1] || at[1] > data_size)
        return pb_fail(PB_INPUT, "the file may be truncated",
                       "\"data_offsets\" are [%zu,%zu], outside the %zu bytes of data", at[0],
                       at[1], data_size);
    if (at[1] - at[0] != bytes)
        return pb_fail(PB_INPUT, NULL,
                       "\"data_offsets\" are [%zu,%zu], %zu bytes, but its shape needs %zu", at[0],
                       at[1], at[1] - at[0], bytes);
    x->data = area + at[0];
    x->mapped = true;
    return PB_OK;
}

static size_t tensor_bytes(const pb_tensor *x)
{
    return pb_dtype_bytes(x->dtype, x->count);
}

// By position; at the same position an empty tensor comes first.
static int by_position(const void *a, const void *b)
{
    const pb_tensor *x = *(const pb_tensor *const *)a, *y = *(const pb_tensor *const *)b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (tensor_bytes(x) > tensor_bytes(y)) - (tensor_bytes(x) < tensor_bytes(y));
}

// Every byte of the data area belongs to exactly one tensor.
static pb_err check_cover(const pb_tensors *t, const uint8_t *area, size_t data_size)
{
    const pb_tensor **order = malloc((t->n + 1) * sizeof *order);
    if (!order)
        return no_memory("the order of the tensors");
    for (size_t i = 0; i < t->n; i++)
        order[i] = &t->list[i];
    qsort(order, t->n, sizeof *order, by_position);
    pb_err err = PB_OK;
    size_t end = 0;
    for (size_t i = 0; i < t->n; i++) {
        size_t begin = (size_t)((const uint8_t *)order[i]->data - area);
        if (begin != end)
            PB_GO(pb_fail(PB_INPUT, NULL,
                          "the tensor \"%.200s\" starts at byte %zu and leaves %s "
                          "(expected %zu)",
                          order[i]->name, begin, begin < end ? "an overlap" : "a hole", end));
        end = begin + tensor_bytes(order[i]);
    }
    if (end != data_size)
        err = pb_fail(PB_INPUT, NULL, "the data area has %zu bytes, of which %zu belong to tensors",
                      data_size, end);
done:
    free(order);
    return err;
}

static pb_err check_meta(json_t *meta)
{
    if (!json_is_object(meta))
        return pb_fail(PB_INPUT, NULL, "\"__metadata__\" must be an object");
    const char *key;
    json_t *value;
    json_object_foreach(meta, key, value)
    {
        if (!json_is_string(value))
            return pb_fail(PB_INPUT, NULL, "\"%.200s\" of \"__metadata__\" must be a string", key);
    }
    return PB_OK;
}

static pb_err read_header(pb_tensors *t)
{
    const uint8_t *bytes = t->file.data;
    uint64_t n_header;
    if (t->file.size < sizeof n_header)
        return pb_fail(PB_INPUT, "is this a safetensors file?", "%zu bytes are too few",
                       t->file.size);
    memcpy(&n_header, bytes, sizeof n_header);
    if (n_header > MAX_HEADER)
        return pb_fail(PB_INPUT, "is this a safetensors file?",
                       "the header's length is %llu, more than %d", (unsigned long long)n_header,
                       MAX_HEADER);
    if (n_header > t->file.size - sizeof n_header)
        return pb_fail(PB_INPUT, "the file may be truncated",
                       "the header's length is %llu, but %zu bytes follow",
                       (unsigned long long)n_header, t->file.size - sizeof n_header);
    const char *text = (const char *)bytes + sizeof n_header;
    if (n_header == 0 || text[0] != '{')
        return pb_fail(PB_INPUT, "is this a safetensors file?",
                       "the header does not start with '{'");
    PB_TRY(pb_json_parse(&t->header, text, n_header, "header"));

    const uint8_t *area = (const uint8_t *)text + n_header;
    size_t data_size = t->file.size - sizeof n_header - n_header;
    const char *name;
    json_t *entry;
    json_object_foreach(t->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            PB_TRY(check_meta(entry));
            continue;
        }
        pb_tensor x = {0};
        pb_err err = read_entry(&x, entry, area, data_size);
        if (err)
            return pb_context(err, "tensor \"%.200s\"", name);
        PB_TRY(pb_tensors_add(t, name, &x));
    }
    return check_cover(t, area, data_size);
}

pb_err pb_tensors_open(pb_tensors **out, const char *path)
{
    pb_tensors *t = NULL;
    *out = NULL;
    PB_TRY(pb_tensors_new(&t, path));
    pb_err err = read_header(t);
    if (err) {
        pb_tensors_close(t);
        return pb_context(err, "%.300s", path);
    }
    *out = t;
    return PB_OK;
}

pb_err pb_tensors_adopt(pb_tensors *t, pb_tensors *from)
{
    pb_tensors **more = realloc(t->shard, (t->n_shards + 1) * sizeof(pb_tensors *));
    if (!more) {
        pb_tensors_close(from);
        return no_memory("the list of files");
    }
    t->shard = more;
    t->shard[t->n_shards++] = from;
    return PB_OK;
}

// Opens the file of a folder that `name` says, unless it is open already.
static pb_err open_shard(pb_tensors *t, json_t *opened, const char *folder, const char *name)
{
    if (json_object_get(opened, name))
        return PB_OK;
    if (!*name || strchr(name, '/') || name[0] == '.')
        return pb_fail(PB_INPUT, "shards lie in the same folder",
                       "the shard \"%.200s\" is not a plain file name", name);
    if (t->n_shards == MAX_SHARDS)
        return pb_fail(PB_UNSUPPORTED, NULL, "there are more than %d shards", MAX_SHARDS);
    char path[4096];
    pb_tensors *from;
    PB_TRY(pb_path(path, sizeof path, "%s/%s", folder, name));
    PB_TRY(pb_tensors_open(&from, path));
    PB_TRY(pb_tensors_adopt(t, from));
    return json_object_set_new(opened, name, json_true()) ? no_memory("the list of shards") : PB_OK;
}

// The list and the files must agree: every tensor is in the file that the list says, and no file
// has another one.
static pb_err read_shards(pb_tensors *t, json_t *opened, const json_t *map, const char *folder)
{
    const char *name;
    json_t *file;
    if (!json_is_object(map))
        return pb_fail(PB_INPUT, NULL, "\"weight_map\" must be an object");
    json_object_foreach((json_t *)map, name, file)
    {
        if (!json_is_string(file))
            return pb_fail(PB_INPUT, NULL, "\"%.200s\" of \"weight_map\" must be a string", name);
        PB_TRY(open_shard(t, opened, folder, json_string_value(file)));
    }
    for (size_t s = 0; s < t->n_shards; s++) {
        const pb_tensors *from = t->shard[s];
        const char *slash = strrchr(from->path, '/');
        for (size_t i = 0; i < from->n; i++) {
            const pb_tensor *x = &from->list[i];
            const char *listed = json_string_value(json_object_get(map, x->name));
            if (!listed || strcmp(listed, slash + 1) != 0)
                return pb_fail(PB_INPUT, NULL,
                               "the tensor \"%.200s\" is in %s, but \"weight_map\" says %s%.200s",
                               x->name, slash + 1, listed ? "it is in " : "nothing of it",
                               listed ? listed : "");
            PB_TRY(pb_tensors_add(t, x->name, x));
        }
    }
    json_object_foreach((json_t *)map, name, file)
    {
        if (!pb_tensors_find(t, name))
            return pb_fail(PB_INPUT, "is a shard of another version?",
                           "the tensor \"%.200s\" is not in %.200s", name, json_string_value(file));
    }
    return PB_OK;
}

pb_err pb_tensors_open_folder(pb_tensors **out, const char *folder)
{
    char path[4096];
    *out = NULL;
    PB_TRY(pb_path(path, sizeof path, "%s/model.safetensors", folder));
    if (pb_exists(path))
        return pb_tensors_open(out, path);
    PB_TRY(pb_path(path, sizeof path, "%s/model.safetensors.index.json", folder));
    if (!pb_exists(path))
        return pb_fail(PB_IO, "weights in other formats (.bin, .pth) are not read",
                       "%s has neither model.safetensors nor model.safetensors.index.json", folder);
    pb_err err = PB_OK;
    pb_tensors *t = NULL;
    json_t *index = NULL, *opened = json_object();
    PB_GO(opened ? PB_OK : no_memory("the list of shards"));
    PB_GO(pb_json_load(&index, path));
    PB_GO(pb_tensors_new(&t, NULL));
    t->path = strdup(path);
    PB_GO(t->path ? PB_OK : no_memory("a path"));
    err = read_shards(t, opened, json_object_get(index, "weight_map"), folder);
    if (err)
        (void)pb_context(err, "%.300s", path);
done:
    json_decref(index);
    json_decref(opened);
    if (err)
        pb_tensors_close(t);
    else
        *out = t;
    return err;
}

size_t pb_tensors_count(const pb_tensors *t)
{
    return t->n;
}

const pb_tensor *pb_tensors_at(const pb_tensors *t, size_t i)
{
    return i < t->n ? &t->list[i] : NULL;
}

const pb_tensor *pb_tensors_find(const pb_tensors *t, const char *name)
{
    const json_t *i = json_object_get(t->index, name);
    return i ? &t->list[json_integer_value(i)] : NULL;
}

const json_t *pb_tensors_metadata(const pb_tensors *t)
{
    return json_object_get(t->n_shards ? t->shard[0]->header : t->header, "__metadata__");
}

const char *pb_tensors_meta(const pb_tensors *t, const char *key)
{
    return json_string_value(json_object_get(pb_tensors_metadata(t), key));
}

static void shape_text(char out[128], const size_t *shape, size_t n_dims)
{
    size_t n = 0;
    for (size_t i = 0; i < n_dims; i++)
        n += (size_t)snprintf(out + n, 128 - n, "%s%zu", i ? "," : "", shape[i]);
    out[n] = 0;
}

static pb_err need(const pb_tensors *t, const char *name, size_t rows, size_t cols,
                   const pb_tensor **out)
{
    const pb_tensor *x = pb_tensors_find(t, name);
    if (!x)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" is missing", name);
    if (x->dtype == PB_I64)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" is %s, not floating point", name,
                       dtypes[x->dtype].name);
    size_t want[2] = {rows, cols}, n_dims = cols ? 2 : 1;
    if (x->n_dims != n_dims || memcmp(x->shape, want, n_dims * sizeof *want) != 0) {
        char got[128], wanted[128];
        shape_text(got, x->shape, x->n_dims);
        shape_text(wanted, want, n_dims);
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" has the shape (%s), not (%s)", name,
                       got, wanted);
    }
    *out = x;
    return PB_OK;
}

pb_err pb_tensors_need(const pb_tensors *t, const char *name, size_t rows, size_t cols,
                       const pb_tensor **out)
{
    *out = NULL;
    pb_err err = need(t, name, rows, cols, out);
    return err && t->path ? pb_context(err, "%.300s", t->path) : err;
}

void pb_tensors_release_part(const pb_tensor *x, size_t first, size_t n)
{
    // Whole pages inside the part alone: its neighbours may still be in use.
    enum { PAGE = 4096 };
    if (!x->mapped || !x->data)
        return;
    uintptr_t data = (uintptr_t)x->data;
    uintptr_t begin = (data + pb_dtype_bytes(x->dtype, first) + PAGE - 1) / PAGE * PAGE;
    uintptr_t end = (data + pb_dtype_bytes(x->dtype, first + n)) / PAGE * PAGE;
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED); // advice: failing changes nothing
}

void pb_tensors_release(const pb_tensor *x)
{
    pb_tensors_release_part(x, 0, x->count);
}
