// safetensors: an 8-byte little-endian header length N (at most 100,000,000), N bytes of JSON, then
// the data area. A header entry gives dtype, shape and data_offsets [begin, end) inside the data
// area; `__metadata__` maps strings to strings. The entries cover the data area exactly once: no
// hole, no overlap. Source: github.com/huggingface/safetensors, README.
//
// Data areas need not be aligned, so elements are always fetched with memcpy.
#include "model/tensors.h"

#include "core/file.h"
#include "core/json.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file formats are little endian");

enum { MAX_HEADER = 100000000, CHUNK = 4096 };

struct pb_tensors {
    char *path; // for messages; NULL when the set was not read from a safetensors file
    pb_file file;
    json_t *header; // keeps the metadata; NULL without a file
    json_t *index;  // name -> position in `list`
    pb_tensor *list;
    size_t n, cap;
    bool owns_data; // data blocks come from malloc, not from the mapping
};

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [PB_F32] = {"F32", 4}, [PB_F16] = {"F16", 2}, [PB_BF16] = {"BF16", 2},
    [PB_F64] = {"F64", 8}, [PB_I64] = {"I64", 8},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

static pb_err no_memory(const char *what)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for %s", what);
}

// Product of a shape; false on overflow of the count or of the size in bytes.
static bool count_elements(const size_t *shape, size_t n_dims, size_t elem, size_t *count)
{
    size_t bytes;
    *count = 1;
    for (size_t i = 0; i < n_dims; i++)
        if (__builtin_mul_overflow(*count, shape[i], count))
            return false;
    return !__builtin_mul_overflow(*count, elem, &bytes);
}

void pb_tensors_close(pb_tensors *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++) {
        free(t->list[i].name);
        if (t->owns_data)
            free((void *)t->list[i].data);
    }
    free(t->list);
    json_decref(t->index);
    json_decref(t->header);
    pb_file_unmap(&t->file);
    free(t->path);
    free(t);
}

pb_err pb_tensors_new(pb_tensors **out)
{
    *out = NULL;
    pb_tensors *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory("a set of tensors");
    t->owns_data = true;
    t->index = json_object();
    if (!t->index) {
        pb_tensors_close(t);
        return no_memory("a set of tensors");
    }
    *out = t;
    return PB_OK;
}

// Appends a copy of *x with a name of its own.
static pb_err append(pb_tensors *t, const char *name, const pb_tensor *x)
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

// Takes over `data` whether it succeeds or not; NULL, a failed allocation, is reported here, so
// that a reader need not check.
pb_err pb_tensors_add(pb_tensors *t, const char *name, size_t rows, size_t cols, float *data)
{
    pb_err err = PB_OK;
    pb_tensor x = {.dtype = PB_F32, .n_dims = cols ? 2 : 1, .shape = {rows, cols}, .data = data};
    if (!data)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the tensor \"%.200s\" (%zu,%zu)", name, rows,
                      cols));
    if (!t->owns_data)
        PB_GO(pb_fail(PB_INTERNAL, NULL, "a tensor cannot be added to an opened file"));
    if (!count_elements(x.shape, x.n_dims, sizeof(float), &x.count))
        PB_GO(pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" (%zu,%zu) is too large", name, rows,
                      cols));
    PB_GO(append(t, name, &x));
done:
    if (err)
        free(data);
    return err;
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
    if (!count_elements(x->shape, x->n_dims, dtypes[x->dtype].size, &x->count))
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
    while (d < N_DTYPES && strcmp(dtypes[d].name, dtype) != 0)
        d++;
    if (d == N_DTYPES)
        return pb_fail(PB_UNSUPPORTED, "known are F32, F16, BF16, F64 and I64",
                       "the dtype \"%.100s\" is not known", dtype);
    x->dtype = (pb_dtype)d;
    PB_TRY(read_shape(x, json_object_get(entry, "shape")));
    size_t at[2], bytes = x->count * dtypes[d].size;
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
    return PB_OK;
}

static size_t tensor_bytes(const pb_tensor *x)
{
    return x->count * dtypes[x->dtype].size;
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
        PB_TRY(append(t, name, &x));
    }
    return check_cover(t, area, data_size);
}

pb_err pb_tensors_open(pb_tensors **out, const char *path)
{
    pb_tensors *t = NULL;
    pb_err err = PB_OK;
    *out = NULL;
    PB_GO(pb_tensors_new(&t));
    t->owns_data = false;
    t->path = strdup(path);
    if (!t->path)
        PB_GO(no_memory("a path"));
    PB_GO(pb_file_map(&t->file, path));
    err = read_header(t);
    if (err)
        err = pb_context(err, "%.300s", path);
done:
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

const char *pb_tensors_meta(const pb_tensors *t, const char *key)
{
    return json_string_value(json_object_get(json_object_get(t->header, "__metadata__"), key));
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

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// Exact: every half-precision number is a float.
static float float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0)
        return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; // zero and subnormal numbers
    return sign ? -magnitude : magnitude;
}

void pb_tensor_read(const pb_tensor *t, size_t first, size_t n, real *out)
{
    assert(first <= t->count && n <= t->count - first);
    const uint8_t *p = (const uint8_t *)t->data + first * dtypes[t->dtype].size;
#define CONVERT(type, expression)                                                                  \
    for (size_t i = 0; i < n; i++) {                                                               \
        type v;                                                                                    \
        memcpy(&v, p + i * sizeof v, sizeof v);                                                    \
        out[i] = (real)(expression);                                                               \
    }                                                                                              \
    break
    switch (t->dtype) {
    case PB_F32:
        CONVERT(float, v);
    case PB_F16:
        CONVERT(uint16_t, float_of_half(v));
    case PB_BF16:
        CONVERT(uint16_t, float_of_bits((uint32_t)v << 16));
    case PB_F64:
        CONVERT(double, v);
    case PB_I64:
        CONVERT(int64_t, v);
    }
#undef CONVERT
}

// Rounds to nearest even. From double, the first step rounds to odd (toward zero, with the last bit
// saying "there was more"), so that rounding twice equals rounding once.
static uint16_t bfloat_of_real(real x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(x))
        return (uint16_t)(bits >> 16 | 0x40); // quiet, so that a cut payload cannot become infinity
    if ((real)f != x) {
        if (fabs((double)f) > fabs((double)x))
            bits--;
        bits |= 1;
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static pb_err write_data(FILE *stream, const pb_tensor_out *x, size_t count, const char *path)
{
    static const size_t real_size = sizeof(real);
    const real *in = x->data; // (count)
    union {
        float f32[CHUNK];
        double f64[CHUNK];
        uint16_t bf16[CHUNK];
    } buffer;
    for (size_t first = 0; first < count; first += CHUNK) {
        size_t n = count - first < CHUNK ? count - first : CHUNK;
        const void *p = &buffer;
        if (x->dtype == PB_I64 || (x->dtype == PB_F32 && real_size == sizeof(float)) ||
            (x->dtype == PB_F64 && real_size == sizeof(double)))
            p = (const char *)x->data + first * dtypes[x->dtype].size;
        else if (x->dtype == PB_F32)
            for (size_t i = 0; i < n; i++)
                buffer.f32[i] = (float)in[first + i];
        else if (x->dtype == PB_F64)
            for (size_t i = 0; i < n; i++)
                buffer.f64[i] = (double)in[first + i];
        else
            for (size_t i = 0; i < n; i++)
                buffer.bf16[i] = bfloat_of_real(in[first + i]);
        if (fwrite(p, dtypes[x->dtype].size, n, stream) != n)
            return pb_fail(PB_IO, "is the disk full?",
                           "cannot write the tensor \"%.200s\" to %s: %s", x->name, path,
                           strerror(errno));
    }
    return PB_OK;
}

// Adds one tensor to the header; *end is the end of the data so far.
static pb_err add_entry(json_t *header, const pb_tensor_out *x, size_t *end, size_t *count)
{
    if ((size_t)x->dtype >= N_DTYPES || x->dtype == PB_F16)
        return pb_fail(PB_INTERNAL, NULL, "the tensor \"%.200s\" cannot be written as dtype %d",
                       x->name, (int)x->dtype);
    if (strcmp(x->name, "__metadata__") == 0 || json_object_get(header, x->name))
        return pb_fail(PB_INPUT, NULL, "the tensor's name \"%.200s\" is taken", x->name);
    size_t begin = *end;
    if (x->n_dims > PB_MAX_DIMS ||
        !count_elements(x->shape, x->n_dims, dtypes[x->dtype].size, count) ||
        __builtin_add_overflow(begin, *count * dtypes[x->dtype].size, end) || *end > INT64_MAX)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%.200s\" has an impossible shape (%zu,...)",
                       x->name, x->shape[0]);
    json_t *shape = json_array();
    for (size_t i = 0; i < x->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)x->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtypes[x->dtype].name, "shape", shape,
                              "data_offsets", (json_int_t)begin, (json_int_t)*end);
    if (!entry || json_object_set_new(header, x->name, entry))
        return pb_fail(PB_INPUT, NULL, "the tensor's name \"%.200s\" is not valid UTF-8", x->name);
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

pb_err pb_tensors_write(const char *path, const pb_tensor_out *list, size_t n,
                        const char *const *meta)
{
    pb_err err = PB_OK;
    pb_writer w = {0};
    json_t *header = json_object();
    struct {
        size_t at, count;
    } *order = calloc(n + 1, sizeof *order);
    if (!header || !order)
        PB_GO(no_memory("a header"));
    if (meta)
        PB_GO(add_meta(header, meta));
    // Wide elements first keeps every tensor aligned to its element.
    size_t end = 0, placed = 0;
    static const size_t widths[] = {8, 4, 2};
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < n; i++) {
            bool known = (size_t)list[i].dtype < N_DTYPES;
            if (dtypes[known ? list[i].dtype : PB_F32].size != widths[k])
                continue;
            order[placed].at = i;
            PB_GO(add_entry(header, &list[i], &end, &order[placed].count));
            placed++;
        }
    }
    PB_GO(pb_writer_open(&w, path));
    PB_GO(write_header(w.stream, header, path));
    for (size_t i = 0; i < n; i++)
        PB_GO(write_data(w.stream, &list[order[i].at], order[i].count, path));
    err = pb_writer_commit(&w);
done:
    if (err)
        pb_writer_abandon(&w);
    json_decref(header);
    free(order);
    return err;
}
