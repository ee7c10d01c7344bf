// GGUF: "GGUF", u32 version, u64 number of tensors, u64 number of keys; the keys (string name, u32
// type, value); the tensors (string name, u32 number of dimensions, u64 each with the innermost
// first, u32 type, u64 offset into the data); padding to the alignment; the data. A string is its
// u64 length and bytes; a list is u32 type, u64 length and the values. All little endian.
//
// Sources: github.com/ggml-org/ggml, docs/gguf.md; names and conventions as llama.cpp writes them
// (gguf-py/gguf/constants.py, convert_hf_to_gguf.py).
#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ITEMS = 1 << 22, // values in all lists together; vocabularies with merges have about 2^20
    MAX_NAME = 256,
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20
};

typedef enum kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    BOOL,
    STRING,
    LIST,
    U64,
    I64,
    F64,
    N_KINDS
} kind;

// Types of tensors. Those with a name alone are refused by it.
static const struct {
    const char *name;
    bool known;
    pb_dtype dtype;
} types[] = {
    [0] = {"F32", true, PB_F32},   [1] = {"F16", true, PB_F16},    [2] = {"Q4_0", 0, 0},
    [3] = {"Q4_1", 0, 0},          [6] = {"Q5_0", 0, 0},           [7] = {"Q5_1", 0, 0},
    [8] = {"Q8_0", true, PB_Q8_0}, [9] = {"Q8_1", 0, 0},           [10] = {"Q2_K", 0, 0},
    [11] = {"Q3_K", 0, 0},         [12] = {"Q4_K", 0, 0},          [13] = {"Q5_K", 0, 0},
    [14] = {"Q6_K", 0, 0},         [15] = {"Q8_K", 0, 0},          [24] = {"I8", 0, 0},
    [25] = {"I16", 0, 0},          [26] = {"I32", 0, 0},           [27] = {"I64", 0, 0},
    [28] = {"F64", true, PB_F64},  [30] = {"BF16", true, PB_BF16},
};
enum { N_TYPES = sizeof types / sizeof *types };

// ---------------------------------------------------------------- the file as it is

typedef struct cursor {
    const uint8_t *data;
    size_t at, size;
    size_t items; // list values so far
} cursor;

static pb_err truncated(const cursor *c, uint64_t wanted)
{
    (void)pb_fail(PB_INPUT, "the file may be truncated",
                  "%llu bytes are needed at byte %zu, but %zu follow", (unsigned long long)wanted,
                  c->at, c->size - c->at);
    return PB_INPUT; // a constant, so that the compiler sees that nothing unread is used
}

static pb_err take(cursor *c, void *out, size_t n)
{
    if (n > c->size - c->at)
        return truncated(c, n);
    memcpy(out, c->data + c->at, n);
    c->at += n;
    return PB_OK;
}

static pb_err take_string(cursor *c, const char **text, size_t *len)
{
    uint64_t n = 0;
    PB_TRY(take(c, &n, sizeof n));
    if (n > c->size - c->at)
        return truncated(c, n);
    *text = (const char *)c->data + c->at;
    *len = (size_t)n;
    c->at += (size_t)n;
    return PB_OK;
}

// The name of a key or a tensor, terminated.
static pb_err take_name(cursor *c, char out[MAX_NAME], const char *what)
{
    const char *text;
    size_t n;
    PB_TRY(take_string(c, &text, &n));
    if (n < 1 || n >= MAX_NAME || memchr(text, 0, n))
        return pb_fail(PB_INPUT, NULL, "the name of a %s has %zu bytes, or a zero among them", what,
                       n);
    memcpy(out, text, n);
    out[n] = 0;
    return PB_OK;
}

// The shortest decimal number that is this float: 1e-05, not 9.99999974737875e-06.
static double decimal(float x)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return strtod(text, NULL);
}

static pb_err take_value(cursor *c, uint32_t k, json_t **out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v = {0};
    static const size_t size[N_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    *out = NULL;
    if (k >= N_KINDS || k == LIST)
        return pb_fail(PB_UNSUPPORTED, NULL, "its type is %u%s", k,
                       k == LIST ? ", a list inside a list" : "");
    if (k == STRING) {
        const char *text;
        size_t n;
        PB_TRY(take_string(c, &text, &n));
        *out = json_stringn(text, n);
        return *out ? PB_OK : pb_fail(PB_INPUT, NULL, "its text is not valid UTF-8");
    }
    PB_TRY(take(c, &v, size[k]));
    switch ((kind)k) {
    case U8:
        *out = json_integer(v.u8);
        break;
    case I8:
        *out = json_integer(v.i8);
        break;
    case U16:
        *out = json_integer(v.u16);
        break;
    case I16:
        *out = json_integer(v.i16);
        break;
    case U32:
        *out = json_integer(v.u32);
        break;
    case I32:
        *out = json_integer(v.i32);
        break;
    case F32:
        *out = isfinite(v.f32) ? json_real(decimal(v.f32)) : NULL;
        break;
    case BOOL:
        *out = v.u8 <= 1 ? json_boolean(v.u8) : NULL;
        break;
    case U64:
        *out = v.u64 <= INT64_MAX ? json_integer((json_int_t)v.u64) : NULL;
        break;
    case I64:
        *out = json_integer(v.i64);
        break;
    default:
        *out = isfinite(v.f64) ? json_real(v.f64) : NULL;
    }
    return *out ? PB_OK : pb_fail(PB_INPUT, NULL, "it has no usable value of type %u", k);
}

static pb_err take_list(cursor *c, json_t **out)
{
    uint32_t k;
    uint64_t n = 0;
    PB_TRY(take(c, &k, sizeof k));
    PB_TRY(take(c, &n, sizeof n));
    if (n > MAX_ITEMS - c->items)
        return pb_fail(PB_UNSUPPORTED, "is this a GGUF file of a language model?",
                       "its list of %llu values makes more than %d in all", (unsigned long long)n,
                       MAX_ITEMS);
    c->items += n;
    *out = json_array();
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "no memory for metadata");
    for (uint64_t i = 0; i < n; i++) {
        json_t *v;
        pb_err err = take_value(c, k, &v);
        if (!err && json_array_append_new(*out, v))
            err = pb_fail(PB_MEMORY, NULL, "no memory for metadata");
        if (err) {
            json_decref(*out);
            *out = NULL;
            return pb_context(err, "item %llu", (unsigned long long)i);
        }
    }
    return PB_OK;
}

static pb_err read_key(cursor *c, json_t *meta)
{
    char name[MAX_NAME];
    uint32_t k;
    json_t *v = NULL;
    PB_TRY(take_name(c, name, "key"));
    PB_TRY(take(c, &k, sizeof k));
    pb_err err = k == LIST ? take_list(c, &v) : take_value(c, k, &v);
    if (!err && json_object_get(meta, name)) {
        json_decref(v);
        err = pb_fail(PB_INPUT, NULL, "it is there twice");
    } else if (!err && json_object_set_new(meta, name, v)) {
        err = pb_fail(PB_INPUT, NULL, "its name is not valid UTF-8");
    }
    return err ? pb_context(err, "the key \"%s\"", name) : PB_OK;
}

// One tensor's entry; its data pointer stays an offset until the data area is known.
static pb_err read_info(cursor *c, pb_tensor *x, char name[MAX_NAME], uint64_t *offset)
{
    uint32_t n_dims, type;
    uint64_t dims[PB_MAX_DIMS];
    PB_TRY(take_name(c, name, "tensor"));
    PB_TRY(take(c, &n_dims, sizeof n_dims));
    if (n_dims < 1 || n_dims > PB_MAX_DIMS)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%s\" has %u dimensions, outside 1..%d", name,
                       n_dims, PB_MAX_DIMS);
    PB_TRY(take(c, dims, n_dims * sizeof *dims));
    PB_TRY(take(c, &type, sizeof type));
    PB_TRY(take(c, offset, sizeof *offset));
    if (type >= N_TYPES || !types[type].known)
        return pb_fail(PB_UNSUPPORTED, "read are F32, F16, BF16 and Q8_0",
                       "the tensor \"%s\" has the type %u (%s)", name, type,
                       type < N_TYPES && types[type].name ? types[type].name : "unknown");
    *x = (pb_tensor){.dtype = types[type].dtype, .n_dims = n_dims, .mapped = true};
    for (uint32_t i = 0; i < n_dims; i++)
        x->shape[i] = (size_t)dims[n_dims - 1 - i];
    if (!pb_tensor_count(x->shape, n_dims, x->dtype, &x->count) || x->count == 0)
        return pb_fail(PB_INPUT, NULL, "the tensor \"%s\" has an impossible shape", name);
    if (x->dtype == PB_Q8_0 && dims[0] % PB_Q8_BLOCK)
        return pb_fail(PB_INPUT, NULL,
                       "the tensor \"%s\" is Q8_0 with rows of %llu values, not a multiple of %d",
                       name, (unsigned long long)dims[0], PB_Q8_BLOCK);
    return PB_OK;
}

typedef struct info {
    char name[MAX_NAME];
    pb_tensor x;
    uint64_t offset;
} info;

static int by_offset(const void *a, const void *b)
{
    const info *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

// Tensors lie inside the data area, aligned, without overlap, and reach its end.
static pb_err add_tensors(pb_tensors *t, info *list, size_t n, const uint8_t *area, size_t size,
                          size_t alignment)
{
    size_t end = 0;
    qsort(list, n, sizeof *list, by_offset);
    for (size_t i = 0; i < n; i++) {
        info *in = &list[i];
        size_t bytes = pb_dtype_bytes(in->x.dtype, in->x.count);
        if (in->offset % alignment || in->offset < end)
            return pb_fail(PB_INPUT, NULL, "the tensor \"%s\" starts at byte %llu of the data, %s",
                           in->name, (unsigned long long)in->offset,
                           in->offset < end ? "inside another" : "which is not aligned");
        if (in->offset > size || bytes > size - in->offset)
            return pb_fail(PB_INPUT, "the file may be truncated",
                           "the tensor \"%s\" has %zu bytes from byte %llu, but the data end at "
                           "%zu",
                           in->name, bytes, (unsigned long long)in->offset, size);
        in->x.data = area + in->offset;
        end = (size_t)in->offset + bytes;
        PB_TRY(pb_tensors_add(t, in->name, &in->x));
    }
    if (size - end >= alignment)
        return pb_fail(PB_INPUT, NULL, "%zu bytes follow the last tensor", size - end);
    return PB_OK;
}

static pb_err read_all(pb_tensors *t, json_t *meta, const pb_file *f)
{
    cursor c = {f->data, 0, f->size, 0};
    char magic[4];
    uint32_t version;
    uint64_t n_tensors, n_keys;
    PB_TRY(take(&c, magic, sizeof magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return pb_fail(PB_INPUT, NULL, "it does not begin with \"GGUF\"");
    PB_TRY(take(&c, &version, sizeof version));
    if (version != 2 && version != 3)
        return pb_fail(PB_UNSUPPORTED, "read are the versions 2 and 3, little endian",
                       "its version is %u", version);
    PB_TRY(take(&c, &n_tensors, sizeof n_tensors));
    PB_TRY(take(&c, &n_keys, sizeof n_keys));
    for (uint64_t i = 0; i < n_keys; i++)
        PB_TRY(read_key(&c, meta));
    int64_t alignment = DEFAULT_ALIGNMENT;
    PB_TRY(pb_json_opt_int(meta, "general.alignment", &alignment, 1, MAX_ALIGNMENT));
    if (alignment & (alignment - 1))
        return pb_fail(PB_INPUT, NULL, "general.alignment is %lld, not a power of two",
                       (long long)alignment);
    // An entry has at least 33 bytes, which bounds the list by the file.
    if (n_tensors > (c.size - c.at) / 33)
        return pb_fail(PB_INPUT, "the file may be truncated",
                       "it announces %llu tensors, but %zu bytes follow",
                       (unsigned long long)n_tensors, c.size - c.at);
    pb_err err = PB_OK;
    info *list = calloc((size_t)n_tensors + 1, sizeof *list);
    if (!list)
        return pb_fail(PB_MEMORY, NULL, "no memory for %llu tensors",
                       (unsigned long long)n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        PB_GO(read_info(&c, &list[i].x, list[i].name, &list[i].offset));
    size_t area = (c.at + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    if (n_tensors == 0 && area > c.size)
        area = c.size;
    if (area > c.size)
        PB_GO(truncated(&c, area - c.at));
    err = add_tensors(t, list, (size_t)n_tensors, c.data + area, c.size - area, (size_t)alignment);
done:
    free(list);
    return err;
}

pb_err pb_gguf_read(pb_tensors **out, json_t **meta, const char *path)
{
    pb_err err = PB_OK;
    pb_tensors *t = NULL;
    json_t *m = json_object();
    *out = NULL;
    *meta = NULL;
    if (!m)
        return pb_fail(PB_MEMORY, NULL, "no memory for metadata");
    PB_GO(pb_tensors_new(&t, path));
    err = read_all(t, m, pb_tensors_file(t));
    if (err)
        (void)pb_context(err, "%.300s", path);
done:
    if (err) {
        pb_tensors_close(t);
        json_decref(m);
        return err;
    }
    *out = t;
    *meta = m;
    return PB_OK;
}

bool pb_gguf_is(const char *path)
{
    char magic[4] = {0};
    FILE *f = fopen(path, "rb");
    bool is = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return is;
}

// ---------------------------------------------------------------- as a model

static const char *const architectures[] = {"llama", "qwen2", "qwen3", "gemma", "gemma2", NULL};

// A value under "<architecture>.<key>", or NULL.
static const json_t *model_key(const json_t *meta, const char *arch, const char *key)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    return json_object_get(meta, name);
}

// Keys of an architecture, and what they are called in config.json; NULL: handled apart.
static const struct {
    const char *gguf, *hf;
} keys[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"rope.freq_base", "rope_theta"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"attention.sliding_window", "sliding_window"},
    {"attention.value_length", NULL},
    {"rope.dimension_count", NULL},
    {"rope.scale_linear", NULL},
    {"rope.scaling.type", NULL},
    {"rope.scaling.factor", NULL},
    {"rope.scaling.original_context_length", NULL},
    {"rope.scaling.finetuned", NULL},
    {"vocab_size", NULL},        // the embedding has as many rows
    {"tensor_data_layout", NULL} // where its converter took the tensors from
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static bool is_neutral(const json_t *v)
{
    return json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0);
}

static pb_err copy_keys(json_t *config, const json_t *meta, const char *arch)
{
    const char *name;
    json_t *v;
    size_t n = strlen(arch);
    json_object_foreach((json_t *)meta, name, v)
    {
        if (strncmp(name, arch, n) != 0 || name[n] != '.')
            continue;
        size_t i = 0;
        while (i < N_KEYS && strcmp(keys[i].gguf, name + n + 1) != 0)
            i++;
        if (i == N_KEYS && !is_neutral(v)) // numbers of experts and the like are 0 when unused
            return pb_fail(PB_UNSUPPORTED, NULL, "the key \"%s\" is not known", name);
        if (i < N_KEYS && keys[i].hf && json_object_set(config, keys[i].hf, v))
            return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    }
    // The converters of these leave the score's scale and the gate to the reader.
    bool gemma = strncmp(arch, "gemma", 5) == 0;
    if (gemma)
        json_object_set_new(config, "hidden_activation", json_string("gelu_pytorch_tanh"));
    if (strcmp(arch, "gemma2") == 0) {
        int64_t heads = json_integer_value(json_object_get(config, "num_attention_heads"));
        int64_t width = json_integer_value(json_object_get(config, "hidden_size"));
        int64_t layers = json_integer_value(json_object_get(config, "num_hidden_layers"));
        json_t *D = json_object_get(config, "head_dim");
        // The 27B model, the one with 46 layers, scales by its width over its heads.
        if (layers == 46 && heads > 0)
            json_object_set_new(config, "query_pre_attn_scalar", json_integer(width / heads));
        else if (D)
            json_object_set(config, "query_pre_attn_scalar", D);
    }
    return PB_OK;
}

// Linear scaling by its key; others under their name, for the configuration's reader to refuse.
static pb_err set_scaling(json_t *config, const json_t *meta, const char *arch)
{
    const json_t *type = model_key(meta, arch, "rope.scaling.type");
    const json_t *factor = model_key(meta, arch, "rope.scaling.factor");
    if (!factor)
        factor = model_key(meta, arch, "rope.scale_linear"); // of older files
    const char *name = json_string_value(type);
    if (!name)
        name = factor && json_number_value(factor) != 1 ? "linear" : "none";
    if (!strcmp(name, "none"))
        return PB_OK;
    json_t *scaling = json_pack("{s:s}", "rope_type", name);
    if (!scaling || (factor && json_object_set(scaling, "factor", (json_t *)factor)) ||
        json_object_set_new(config, "rope_scaling", scaling))
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    return PB_OK;
}

// The token that ends a document, and the one that ends a turn.
static void set_special(json_t *config, const json_t *meta)
{
    static const char *const names[] = {"tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id"};
    json_t *bos = json_object_get(meta, "tokenizer.ggml.bos_token_id"), *eos = json_array();
    for (size_t i = 0; i < 3; i++) {
        json_t *v = json_object_get(meta, names[i]);
        bool known = !v;
        for (size_t k = 0; k < json_array_size(eos) && !known; k++)
            known = json_equal(v, json_array_get(eos, k));
        if (!known)
            json_array_append(eos, v);
    }
    json_object_set(config, "bos_token_id", bos ? bos : json_null());
    json_object_set_new(config, "eos_token_id", eos);
}

// rope_freqs.weight holds, per pair of a head, by how much its frequency is divided: LLaMA-3's
// scaling, whose parameters the file does not have. The factor is the largest divisor; the context
// of pretraining is found by trying powers of two against all divisors.
static pb_err find_llama3(pb_config *c, const pb_tensor *freqs)
{
    enum { MAX_PAIRS = 1 << 12 };
    double plain[MAX_PAIRS], scaled[MAX_PAIRS];
    real divisor[MAX_PAIRS];
    size_t n = c->head_dim / 2;
    if (freqs->count != n || n > MAX_PAIRS)
        return pb_fail(PB_INPUT, NULL, "\"rope_freqs.weight\" has %zu values, not %zu",
                       freqs->count, n);
    if (c->rope.kind != PB_ROPE_PLAIN)
        return pb_fail(PB_UNSUPPORTED, NULL,
                       "\"rope_freqs.weight\" comes together with another rope scaling");
    pb_tensor_read(freqs, 0, n, divisor);
    pb_config_inv_freq(c, plain);
    double factor = 1;
    for (size_t i = 0; i < n; i++)
        factor = (double)divisor[i] > factor ? (double)divisor[i] : factor;
    if (factor == 1)
        return PB_OK;
    factor = decimal((float)factor);
    for (size_t original = 8192, tries = 0; tries < 17; tries++) {
        c->rope = (pb_rope_scaling){PB_ROPE_LLAMA3, factor, 1, 4, original};
        pb_config_inv_freq(c, scaled);
        bool same = true;
        for (size_t i = 0; i < n && same; i++)
            same = fabs(plain[i] / scaled[i] - (double)divisor[i]) <= 1e-4 * (double)divisor[i];
        if (same)
            return PB_OK;
        original = tries == 0 ? 16 : original * 2;
    }
    return pb_fail(PB_UNSUPPORTED, NULL,
                   "\"rope_freqs.weight\" is not LLaMA-3's scaling (factor %g) for any context of "
                   "16 to 2^20",
                   factor);
}

static pb_err need_same(const json_t *meta, const char *arch, const char *key, size_t want)
{
    const json_t *v = model_key(meta, arch, key);
    if (v && (!json_is_integer(v) || json_integer_value(v) != (json_int_t)want))
        return pb_fail(PB_UNSUPPORTED, NULL, "\"%s.%s\" is not the heads' width %zu", arch, key,
                       want);
    return PB_OK;
}

static pb_err read_config(pb_config *c, const json_t *meta, const char *arch, const pb_tensors *t)
{
    pb_err err = PB_OK;
    json_t *config = json_object();
    const pb_tensor *embed = pb_tensors_find(t, "token_embd.weight");
    const pb_tensor *freqs = pb_tensors_find(t, "rope_freqs.weight");
    if (!config)
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    if (!embed)
        PB_GO(pb_fail(PB_INPUT, NULL, "the tensor \"token_embd.weight\" is missing"));
    json_object_set_new(config, "model_type", json_string(arch));
    json_object_set_new(config, "vocab_size", json_integer((json_int_t)embed->shape[0]));
    json_object_set_new(config, "tie_word_embeddings",
                        json_boolean(!pb_tensors_find(t, "output.weight")));
    if (strcmp(arch, "llama") == 0) {
        bool attention = pb_tensors_find(t, "blk.0.attn_q.bias");
        bool mlp = pb_tensors_find(t, "blk.0.ffn_gate.bias");
        json_object_set_new(config, "attention_bias", json_boolean(attention));
        json_object_set_new(config, "mlp_bias", json_boolean(mlp));
    }
    PB_GO(copy_keys(config, meta, arch));
    PB_GO(set_scaling(config, meta, arch));
    set_special(config, meta);
    PB_GO(pb_config_from_json(c, config));
    if (freqs)
        PB_GO(find_llama3(c, freqs));
    PB_GO(need_same(meta, arch, "rope.dimension_count", c->head_dim));
    PB_GO(need_same(meta, arch, "attention.value_length", c->head_dim));
    err = pb_config_check(c);
done:
    json_decref(config);
    return err;
}

static const struct {
    const char *gguf, *hf;
} globals[] = {{"token_embd", "model.embed_tokens"},
               {"output_norm", "model.norm"},
               {"output", "lm_head"}},
  parts[] = {{"attn_norm", "input_layernorm"},
             {"attn_q", "self_attn.q_proj"},
             {"attn_k", "self_attn.k_proj"},
             {"attn_v", "self_attn.v_proj"},
             {"attn_output", "self_attn.o_proj"},
             {"attn_q_norm", "self_attn.q_norm"},
             {"attn_k_norm", "self_attn.k_norm"},
             {"post_attention_norm", "post_attention_layernorm"},
             {"ffn_norm", "post_attention_layernorm"}, // pre_feedforward_layernorm: with post norms
             {"post_ffw_norm", "post_feedforward_layernorm"},
             {"ffn_gate", "mlp.gate_proj"},
             {"ffn_up", "mlp.up_proj"},
             {"ffn_down", "mlp.down_proj"}};

// The Hugging Face name; false when there is none.
static bool hf_name(char out[MAX_NAME], const char *name, const pb_config *c)
{
    const char *dot = strrchr(name, '.');
    if (!dot || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
        return false;
    size_t n = (size_t)(dot - name);
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strlen(globals[i].gguf) == n && memcmp(globals[i].gguf, name, n) == 0) {
            snprintf(out, MAX_NAME, "%s%s", globals[i].hf, dot);
            return true;
        }
    unsigned layer;
    int start = 0;
    if (sscanf(name, "blk.%4u.%n", &layer, &start) != 1 || !start || layer >= c->layers)
        return false;
    const char *part = name + start;
    n = (size_t)(dot - part);
    for (size_t i = 0; dot > part && i < sizeof parts / sizeof *parts; i++)
        if (strlen(parts[i].gguf) == n && memcmp(parts[i].gguf, part, n) == 0) {
            const char *hf = parts[i].hf;
            if (c->post_norms && strcmp(parts[i].gguf, "ffn_norm") == 0)
                hf = "pre_feedforward_layernorm";
            snprintf(out, MAX_NAME, "model.layers.%u.%s%s", layer, hf, dot);
            return true;
        }
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static pb_err rename_tensors(pb_tensors *to, const pb_tensors *from, const pb_config *c,
                             const char *arch)
{
    bool turned = strcmp(arch, "llama") == 0;
    char name[MAX_NAME];
    for (size_t i = 0; i < pb_tensors_count(from); i++) {
        pb_tensor x = *pb_tensors_at(from, i);
        if (strcmp(x.name, "rope_freqs.weight") == 0)
            continue;
        if (!hf_name(name, x.name, c))
            return pb_fail(PB_UNSUPPORTED, NULL, "the tensor \"%s\" is not known in %s", x.name,
                           arch);
        bool q_or_k = strstr(name, ".q_proj.") || strstr(name, ".k_proj.");
        if (turned && q_or_k) {
            if (x.shape[0] % c->head_dim)
                return pb_fail(PB_INPUT, NULL,
                               "the tensor \"%s\" has %zu rows, not whole heads of %zu", x.name,
                               x.shape[0], c->head_dim);
            x.head_rows = c->head_dim;
        }
        if (c->norm_offset && ends_with(name, "norm.weight"))
            x.minus = 1;
        PB_TRY(pb_tensors_add(to, name, &x));
    }
    return PB_OK;
}

static pb_err open_model(pb_tensors **out, pb_config *cfg, const json_t *meta,
                         const pb_tensors *raw)
{
    const char *arch = NULL, *type = "model";
    PB_TRY(pb_json_opt_str(meta, "general.type", &type));
    if (strcmp(type, "model") != 0)
        return pb_fail(PB_UNSUPPORTED, "an adapter is imported by `pedrobench convert`",
                       "its general.type is \"%.100s\", not \"model\"", type);
    PB_TRY(pb_json_str(meta, "general.architecture", &arch));
    size_t a = 0;
    while (architectures[a] && strcmp(architectures[a], arch) != 0)
        a++;
    if (!architectures[a])
        return pb_fail(PB_UNSUPPORTED, "known are llama, qwen2, qwen3, gemma and gemma2",
                       "the architecture \"%.100s\" is not known", arch);
    PB_TRY(read_config(cfg, meta, arch, raw));
    PB_TRY(pb_tensors_new(out, NULL));
    return rename_tensors(*out, raw, cfg, arch);
}

pb_err pb_gguf_open(pb_tensors **out, pb_config *cfg, json_t **meta, const char *path)
{
    pb_tensors *raw = NULL;
    json_t *m = NULL;
    *out = NULL;
    if (meta)
        *meta = NULL;
    PB_TRY(pb_gguf_read(&raw, &m, path));
    pb_err err = open_model(out, cfg, m, raw);
    if (err)
        pb_tensors_close(raw);
    else
        err = pb_tensors_adopt(*out, raw);
    if (err) {
        pb_tensors_close(*out);
        json_decref(m);
        *out = NULL;
        return pb_context(err, "%.300s", path);
    }
    if (meta)
        *meta = m;
    else
        json_decref(m);
    return PB_OK;
}

// ---------------------------------------------------------------- as an adapter

// "blk.0.attn_q.weight.lora_a" under its PEFT name; its module in *module.
static pb_err adapter_name(char out[MAX_NAME + 32], char module[MAX_NAME], const char *name,
                           const pb_config *c)
{
    char base[MAX_NAME], hf[MAX_NAME];
    size_t n = strlen(name);
    bool a = ends_with(name, ".weight.lora_a");
    if (!a && !ends_with(name, ".weight.lora_b"))
        return pb_fail(PB_UNSUPPORTED, NULL, "the tensor \"%s\" is no part of a LoRA adapter",
                       name);
    snprintf(base, sizeof base, "%.*s", (int)(n - strlen(".lora_a")), name);
    if (!hf_name(hf, base, c) || !strstr(hf, "_proj."))
        return pb_fail(PB_UNSUPPORTED, NULL, "the tensor \"%s\" belongs to no linear of this model",
                       name);
    hf[strlen(hf) - strlen(".weight")] = 0;
    snprintf(out, MAX_NAME + 32, "base_model.model.%s.lora_%c.weight", hf, a ? 'A' : 'B');
    snprintf(module, MAX_NAME, "%s", hf);
    return PB_OK;
}

// `rank` is that of the first tensor, `ranks` has those that differ. A module is named in full: a
// file may have it in some layers only.
static pb_err add_adapter_tensors(pb_tensors *to, json_t *modules, size_t *rank, json_t *ranks,
                                  const pb_tensors *from, const pb_config *base, const char *arch)
{
    static const pb_config any = {.layers = PB_MAX_LAYERS};
    bool turned = strcmp(arch, "llama") == 0;
    char name[MAX_NAME + 32], other[MAX_NAME], module[MAX_NAME];
    *rank = 0;
    for (size_t i = 0; i < pb_tensors_count(from); i++) {
        pb_tensor x = *pb_tensors_at(from, i);
        PB_TRY(adapter_name(name, module, x.name, base ? base : &any));
        bool a = ends_with(x.name, ".lora_a");
        snprintf(other, sizeof other, "%s", x.name);
        other[strlen(other) - 1] = a ? 'b' : 'a';
        if (!pb_tensors_find(from, other))
            return pb_fail(PB_INPUT, NULL, "the tensor \"%s\" is missing", other);
        if (x.n_dims != 2)
            return pb_fail(PB_INPUT, NULL, "the tensor \"%s\" is no matrix", x.name);
        size_t r = x.shape[a ? 0 : 1];
        *rank = *rank ? *rank : r;
        if (a && r != *rank && json_object_set_new(ranks, module, json_integer((json_int_t)r)))
            return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
        bool q_or_k = ends_with(module, "q_proj") || ends_with(module, "k_proj");
        if (turned && q_or_k && !a) {
            if (!base)
                return pb_fail(PB_USAGE, "name the model with --base",
                               "the rows of \"%s\" can be sorted only with the model's heads known",
                               x.name);
            if (x.shape[0] % base->head_dim)
                return pb_fail(PB_INPUT, "is this the adapter's model?",
                               "the tensor \"%s\" has %zu rows, not whole heads of %zu", x.name,
                               x.shape[0], base->head_dim);
            x.head_rows = base->head_dim;
        }
        PB_TRY(pb_tensors_add(to, name, &x));
        bool known = false;
        for (size_t k = 0; k < json_array_size(modules) && !known; k++)
            known = !strcmp(json_string_value(json_array_get(modules, k)), module);
        if (!known && json_array_append_new(modules, json_string(module)))
            return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    }
    return *rank ? PB_OK : pb_fail(PB_INPUT, NULL, "the adapter has no tensors");
}

static pb_err open_adapter(pb_tensors **out, json_t **config, const pb_config *base,
                           const json_t *meta, const pb_tensors *raw)
{
    const char *type = "model", *method = "", *arch = NULL;
    double alpha = 0;
    size_t rank;
    PB_TRY(pb_json_opt_str(meta, "general.type", &type));
    PB_TRY(pb_json_opt_str(meta, "adapter.type", &method));
    PB_TRY(pb_json_str(meta, "general.architecture", &arch));
    if (strcmp(type, "adapter") != 0 || strcmp(method, "lora") != 0)
        return pb_fail(PB_UNSUPPORTED, "LoRA alone is read from GGUF files",
                       "its general.type is \"%.100s\", its adapter.type \"%.100s\"", type, method);
    PB_TRY(pb_json_real(meta, "adapter.lora.alpha", &alpha, 1e-9, 1e9));
    json_t *modules = json_array(), *ranks = json_object();
    pb_err err = modules && ranks ? pb_tensors_new(out, NULL)
                                  : pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    if (!err)
        err = add_adapter_tensors(*out, modules, &rank, ranks, raw, base, arch);
    if (!err) {
        json_t *scale = alpha == rint(alpha) ? json_integer((json_int_t)alpha) : json_real(alpha);
        *config =
            json_pack("{s:s, s:s, s:b, s:I, s:o, s:f, s:s, s:b, s:O, s:O}", "peft_type", "LORA",
                      "task_type", "CAUSAL_LM", "inference_mode", 1, "r", (json_int_t)rank,
                      "lora_alpha", scale, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                      "target_modules", modules, "rank_pattern", ranks);
        err = *config ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    }
    json_decref(modules);
    json_decref(ranks);
    return err;
}

pb_err pb_gguf_adapter_open(pb_tensors **out, json_t **config, const pb_config *base,
                            const char *path)
{
    pb_tensors *raw = NULL;
    json_t *meta = NULL;
    *out = NULL;
    *config = NULL;
    PB_TRY(pb_gguf_read(&raw, &meta, path));
    pb_err err = open_adapter(out, config, base, meta, raw);
    json_decref(meta);
    if (err)
        pb_tensors_close(raw);
    else
        err = pb_tensors_adopt(*out, raw);
    if (err) {
        pb_tensors_close(*out);
        json_decref(*config);
        *out = NULL;
        *config = NULL;
        return pb_context(err, "%.300s", path);
    }
    return PB_OK;
}
