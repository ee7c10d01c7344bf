// safetensors: exact conversions, round trips, and every way a file can be wrong.
//
// `unit_tensors --copy IN OUT` reads one file and writes the other (half precision as F32), for the
// independent check in oracle/test_safetensors.py.
#include "model/tensors.h"

#include "core/file.h"
#include "core/json.h"
#include "model/numbers.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[256], path[300];

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/pb_tensors_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); // fails when a temporary file was left behind
}

static void accept(pb_err err)
{
    if (err)
        fail_msg("refused: %s", pb_error_message());
}

static void write_raw(const char *header, uint64_t n_header, size_t n_data)
{
    uint8_t bytes[4096];
    size_t n = strlen(header);
    assert_true(8 + n + n_data <= sizeof bytes);
    memcpy(bytes, &n_header, 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + n + i] = (uint8_t)i;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, 8 + n + n_data, f), 8 + n + n_data);
    fclose(f);
}

// The file with this header and data is refused with `message` in the sentence, which names it.
static void refuse(pb_err code, const char *message, const char *header, size_t n_data)
{
    pb_tensors *t;
    write_raw(header, strlen(header), n_data);
    pb_err err = pb_tensors_open(&t, path);
    if (err != code || !strstr(pb_error_message(), message) || !strstr(pb_error_message(), path))
        fail_msg("%s\n  expected \"%s\", got %s: %s", header, message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
}

static void open_raw(pb_tensors **t, const char *header, size_t n_data)
{
    write_raw(header, strlen(header), n_data);
    accept(pb_tensors_open(t, path));
}

#define ENTRY(name, dtype, shape, begin, end)                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static void test_refusals(void **state)
{
    (void)state;
    refuse(PB_INPUT, "hole",
           "{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 8, 12) "}", 12);
    refuse(PB_INPUT, "hole", "{" ENTRY("a", "F32", "[1]", 4, 8) "}", 8);
    refuse(PB_INPUT, "overlap",
           "{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "F32", "[2]", 4, 12) "}", 12);
    refuse(PB_INPUT, "overlap",
           "{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "F32", "[2]", 0, 8) "}", 8);
    refuse(PB_INPUT, "9 bytes, of which 8", "{" ENTRY("a", "F32", "[2]", 0, 8) "}", 9);
    refuse(PB_INPUT, "4 bytes, of which 0", "{}", 4);
    refuse(PB_INPUT, "[0,8], outside the 7", "{" ENTRY("a", "F32", "[2]", 0, 8) "}", 7);
    refuse(PB_INPUT, "[8,0]", "{" ENTRY("a", "F32", "[2]", 8, 0) "}", 8);
    refuse(PB_INPUT, "needs 12", "{" ENTRY("a", "F32", "[3]", 0, 8) "}", 8);
    refuse(PB_INPUT, "needs 4", "{" ENTRY("a", "F32", "[]", 0, 8) "}", 8);
    refuse(PB_INPUT, "overflows", "{" ENTRY("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0);
    refuse(PB_INPUT, "overflows", "{" ENTRY("a", "F64", "[4611686018427387904]", 0, 0) "}", 0);
    refuse(PB_INPUT, "outside",
           "{" ENTRY("a", "F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 4);
    refuse(PB_INPUT, "integer", "{" ENTRY("a", "F32", "[99999999999999999999]", 0, 0) "}", 0);
    refuse(PB_INPUT, "dimension 1", "{" ENTRY("a", "F32", "[1,-1]", 0, 4) "}", 4);
    refuse(PB_INPUT, "dimension 0", "{" ENTRY("a", "F32", "[1.0]", 0, 4) "}", 4);
    refuse(PB_UNSUPPORTED, "5 dimensions", "{" ENTRY("a", "F32", "[1,1,1,1,1]", 0, 4) "}", 4);
    refuse(PB_INPUT, "shape", "{" ENTRY("a", "F32", "1", 0, 4) "}", 4);
    refuse(PB_UNSUPPORTED, "\"F8_E4M3\"", "{" ENTRY("a", "F8_E4M3", "[4]", 0, 4) "}", 4);
    refuse(PB_UNSUPPORTED, "\"f32\"", "{" ENTRY("a", "f32", "[1]", 0, 4) "}", 4);
    refuse(PB_INPUT, "dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    refuse(PB_INPUT, "dtype", "{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    refuse(PB_INPUT, "shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4);
    refuse(PB_INPUT, "data_offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4);
    refuse(PB_INPUT, "data_offsets",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4);
    refuse(PB_INPUT, "from 0 up",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4);
    refuse(PB_INPUT, "\"device\"",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"device\":1}}", 4);
    refuse(PB_INPUT, "object", "{\"a\":7}", 0);
    refuse(PB_INPUT, "duplicate",
           "{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("a", "F32", "[1]", 4, 8) "}", 8);
    refuse(PB_INPUT, "duplicate",
           "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    refuse(PB_INPUT, "__metadata__", "{\"__metadata__\":[]}", 0);
    refuse(PB_INPUT, "\"k\"", "{\"__metadata__\":{\"k\":1}}", 0);
    refuse(PB_INPUT, "'{'", " {}", 0);
    refuse(PB_INPUT, "'{'", "[]", 0);
    refuse(PB_INPUT, "header", "{", 0);
    refuse(PB_INPUT, "header", "{}x", 0);
    refuse(PB_INPUT, "'{'", "", 0);
    refuse(PB_INPUT, "header", "{\"a\\u0000b\":{}}", 0);
    // The sentence names the tensor too.
    refuse(PB_INPUT, "\"the.name\"", "{" ENTRY("the.name", "F32", "[3]", 0, 8) "}", 8);
}

static void test_header_length(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3,         100000000,      100000001,
                                       INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        pb_tensors *t;
        write_raw("{}", lengths[i], 0);
        assert_int_equal(pb_tensors_open(&t, path), PB_INPUT);
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)lengths[i]);
        assert_non_null(strstr(pb_error_message(), number));
    }
    pb_tensors *t;
    open_raw(&t, "{}      ", 0); // padded with spaces
    assert_int_equal(pb_tensors_count(t), 0);
    pb_tensors_close(t);
    unlink(path);
    assert_int_equal(pb_tensors_open(&t, path), PB_IO);
    pb_tensors_close(NULL);
}

static void test_empty_and_scalar(void **state)
{
    (void)state;
    pb_tensors *t;
    open_raw(&t,
             "{" ENTRY("s", "I64", "[]", 0, 8) "," ENTRY("e", "F32", "[0,7]", 8, 8) "," ENTRY(
                 "f", "F16", "[1]", 8, 10) "," ENTRY("g", "F16", "[0]", 10, 10) "}",
             10);
    assert_int_equal(pb_tensors_count(t), 4);
    assert_int_equal(pb_tensors_find(t, "s")->count, 1);
    assert_int_equal(pb_tensors_find(t, "e")->count, 0);
    assert_null(pb_tensors_find(t, "h"));
    assert_null(pb_tensors_at(t, 4));
    assert_null(pb_tensors_meta(t, "format"));
    const pb_tensor *x;
    assert_int_equal(pb_tensors_need(t, "s", 1, 0, &x), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "I64"));
    assert_null(x);
    pb_tensors_close(t);
}

static void test_truncated_everywhere(void **state)
{
    (void)state;
    const real values[6] = {1, 2, 3, 4, 5, 6};
    const pb_tensor_out list[] = {{"a", PB_F32, 2, {2, 3}, values}, {"b", PB_BF16, 1, {6}, values}};
    const char *const meta[] = {"format", "pt", NULL};
    accept(pb_tensors_write(path, list, 2, meta));
    pb_file f;
    accept(pb_file_map(&f, path));
    uint8_t bytes[1024];
    size_t size = f.size;
    assert_true(size < sizeof bytes);
    memcpy(bytes, f.data, size);
    pb_file_unmap(&f);
    for (size_t n = 0; n <= size + 1; n++) {
        pb_tensors *t;
        FILE *out = fopen(path, "wb");
        assert_int_equal(fwrite(bytes, 1, n, out), n);
        fclose(out);
        pb_err err = pb_tensors_open(&t, path);
        assert_int_equal(err, n == size ? PB_OK : PB_INPUT);
        pb_tensors_close(t);
    }
}

// What a pattern of sign, e exponent bits and f fraction bits means, by the definition of the
// format: (-1)^s 2^(E-bias) (1 + fraction/2^f), or without the 1 and with E = 1 when E is 0.
static double by_definition(unsigned bits, int e, int f)
{
    unsigned fraction = bits & ((1u << f) - 1), exponent = bits >> f & ((1u << e) - 1);
    double sign = bits >> (e + f) & 1 ? -1 : 1;
    int bias = (1 << (e - 1)) - 1;
    if (exponent == (1u << e) - 1)
        return fraction ? NAN : sign * INFINITY;
    double significand = fraction / (double)(1u << f) + (exponent ? 1 : 0);
    return sign * ldexp(significand, (exponent ? (int)exponent : 1) - bias);
}

static void test_all_half_and_bfloat_patterns(void **state)
{
    (void)state;
    static uint16_t patterns[65536];
    static real out[65536];
    for (unsigned i = 0; i < 65536; i++)
        patterns[i] = (uint16_t)i;
    for (int k = 0; k < 2; k++) {
        pb_tensor x = {.dtype = k ? PB_BF16 : PB_F16,
                       .n_dims = 1,
                       .shape = {65536},
                       .count = 65536,
                       .data = patterns};
        pb_tensor_read(&x, 0, 65536, out);
        for (unsigned i = 0; i < 65536; i++) {
            double want = by_definition(i, k ? 8 : 5, k ? 7 : 10);
            if (isnan(want))
                assert_true(isnan(out[i]));
            else
                assert_true((double)out[i] == want && !signbit(out[i]) == !signbit(want));
        }
        real one;
        pb_tensor_read(&x, 0x3c01, 1, &one); // from the middle
        assert_true(one == out[0x3c01]);
    }
}

// Unaligned data of every type.
static void test_unaligned(void **state)
{
    (void)state;
    pb_tensors *t;
    const char header[] =
        "{" ENTRY("a", "F64", "[1]", 0, 8) "," ENTRY("b", "F32", "[1]", 8, 12) "," ENTRY(
            "c", "I64", "[1]", 12, 20) "," ENTRY("d", "F16", "[1]", 20,
                                                 22) "," ENTRY("e", "BF16", "[1]", 22, 24) "}";
    for (size_t pad = 0; pad < 8; pad++) {
        char padded[sizeof header + 8];
        snprintf(padded, sizeof padded, "%s%*s", header, (int)pad, "");
        open_raw(&t, padded, 24);
        real x;
        for (size_t i = 0; i < 5; i++)
            pb_tensor_read(pb_tensors_at(t, i), 0, 1, &x);
        pb_tensor_read(pb_tensors_find(t, "c"), 0, 1, &x);
        assert_true(x == (real)0x131211100f0e0d0c);
        pb_tensors_close(t);
    }
}

// The nearest bfloat by search over all of them, ties to the even pattern; by_definition gives the
// values, and what lies beyond the largest by half a step or more is infinite.
static unsigned nearest_bfloat(double x)
{
    unsigned sign = signbit(x) ? 0x8000 : 0, low = 0, high = 0x7f80;
    x = fabs(x);
    while (high - low > 1) { // values rise with the pattern
        unsigned middle = (low + high) / 2;
        if (by_definition(middle, 8, 7) <= x)
            low = middle;
        else
            high = middle;
    }
    double below = by_definition(low, 8, 7);
    double above = high == 0x7f80 ? ldexp(1, 128) : by_definition(high, 8, 7);
    if (isinf(x) || x - below > above - x || (x - below == above - x && low % 2))
        low = high;
    return sign | low;
}

static void test_bfloat_rounding(void **state)
{
    (void)state;
    enum { N = 40000 };
    static real in[N];
    static uint16_t got[N];
    uint64_t s = 1;
    for (size_t i = 0; i < N; i++) {
        // Patterns near the middle between two bfloats, where rounding decides, and anywhere.
        s = s * 6364136223846793005u + 1442695040888963407u;
        uint32_t bits = (uint32_t)(s >> 32);
        if (i % 2)
            bits = (bits & 0xffff0000) | (0x8000 + (bits & 3) - 1);
        float f;
        memcpy(&f, &bits, 4);
        in[i] = isnan(f) ? 0 : f;
        // In double: a hair above or below the middle, which a float cannot hold.
        if (sizeof(real) == 8 && i % 3 == 0)
            in[i] = (real)((double)in[i] * (1 + (i % 2 ? 1 : -1) * 0x1p-50));
    }
    in[0] = (real)INFINITY;
    in[1] = (real)-INFINITY;
    in[2] = 0;
    in[3] = (real)-0.0;
    const pb_tensor_out list[] = {{"x", PB_BF16, 1, {N}, in}};
    accept(pb_tensors_write(path, list, 1, NULL));
    pb_tensors *t;
    accept(pb_tensors_open(&t, path));
    memcpy(got, pb_tensors_find(t, "x")->data, sizeof got);
    pb_tensors_close(t);
    for (size_t i = 0; i < N; i++)
        if (got[i] != nearest_bfloat((double)in[i]))
            fail_msg("%a became %04x, not %04x", (double)in[i], (unsigned)got[i],
                     nearest_bfloat((double)in[i]));
}

static void test_nan_survives(void **state)
{
    (void)state;
    enum { N = 4 };
    const uint32_t bits[N] = {0x7f800001, 0xff800001, 0x7fc00000, 0x7fffffff};
    real in[N], out[N];
    for (size_t i = 0; i < N; i++) {
        float f;
        memcpy(&f, &bits[i], 4);
        in[i] = f;
    }
    const pb_tensor_out list[] = {
        {"bf16", PB_BF16, 1, {N}, in}, {"f32", PB_F32, 1, {N}, in}, {"f64", PB_F64, 1, {N}, in}};
    accept(pb_tensors_write(path, list, 3, NULL));
    pb_tensors *t;
    accept(pb_tensors_open(&t, path));
    for (size_t k = 0; k < 3; k++) {
        pb_tensor_read(pb_tensors_at(t, k), 0, N, out);
        for (size_t i = 0; i < N; i++)
            assert_true(isnan(out[i]) && !signbit(out[i]) == !signbit(in[i]));
    }
    pb_tensors_close(t);
}

static void test_round_trip(void **state)
{
    (void)state;
    enum { N = 10000 }; // more than one block of the writer
    static real in[N], out[N];
    static int64_t ints[N];
    for (size_t i = 0; i < N; i++) {
        in[i] = (real)((double)i / 3 - 1000);
        ints[i] = (int64_t)i * 1000003 - 5;
    }
    in[5] = (real)INFINITY;
    const pb_tensor_out list[] = {
        {"b", PB_BF16, 1, {3}, in},          {"f", PB_F32, 2, {100, 100}, in},
        {"d", PB_F64, 3, {10, 10, 100}, in}, {"i", PB_I64, 1, {N}, ints},
        {"scalar", PB_F32, 0, {0}, in},      {"none", PB_F32, 2, {0, 4}, NULL},
        {"\xc3\xa9\"\\", PB_F32, 1, {2}, in}};
    const char *const meta[] = {"format", "pt", "note", "a \"quoted\" note", NULL};
    accept(pb_tensors_write(path, list, 7, meta));
    pb_tensors *t;
    accept(pb_tensors_open(&t, path));
    assert_int_equal(pb_tensors_count(t), 7);
    assert_string_equal(pb_tensors_meta(t, "format"), "pt");
    assert_string_equal(pb_tensors_meta(t, "note"), "a \"quoted\" note");
    assert_null(pb_tensors_meta(t, "other"));
    const pb_tensor *x;
    accept(pb_tensors_need(t, "f", 100, 100, &x));
    pb_tensor_read(x, 0, N, out);
    for (size_t i = 0; i < N; i++)
        assert_true(out[i] == (real)(float)in[i]);
    x = pb_tensors_find(t, "d");
    assert_int_equal(x->n_dims, 3);
    assert_int_equal(x->shape[2], 100);
    pb_tensor_read(x, 4000, N - 4000, out);
    for (size_t i = 4000; i < N; i++)
        assert_true(out[i - 4000] == in[i]);
    assert_memory_equal(pb_tensors_find(t, "i")->data, ints, sizeof ints);
    accept(pb_tensors_need(t, "\xc3\xa9\"\\", 2, 0, &x));
    // Every tensor is aligned to its element: the file's data starts at a multiple of 8.
    static const size_t width[] = {
        [PB_F32] = 4, [PB_F16] = 2, [PB_BF16] = 2, [PB_F64] = 8, [PB_I64] = 8};
    for (size_t i = 0; i < 7; i++) {
        x = pb_tensors_at(t, i);
        assert_int_equal((uintptr_t)x->data % width[x->dtype], 0);
    }
    assert_int_equal(pb_tensors_need(t, "f", 100, 0, &x), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "(100,100), not (100)"));
    assert_int_equal(pb_tensors_need(t, "f", 10, 1000, &x), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), path));
    assert_int_equal(pb_tensors_need(t, "missing", 1, 1, &x), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "\"missing\""));
    pb_tensors_close(t);
}

// The size of a file that Hugging Face's PEFT writes: IA3 on k, v and down of Llama-3.2-3B.
static void test_size_of_a_published_adapter(void **state)
{
    (void)state;
    enum { L = 28, SITES = 3 };
    static const struct {
        const char *name;
        size_t rows, cols;
    } sites[SITES] = {
        {"mlp.down_proj", 1, 8192}, {"self_attn.k_proj", 1024, 1}, {"self_attn.v_proj", 1024, 1}};
    static char names[L * SITES][128];
    pb_tensor_out list[L * SITES];
    real *ones = calloc(8192, sizeof *ones);
    // Names in the order of sorted text, as that library writes them: layer 10 before layer 2.
    static const int order[L] = {0,  1,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 20,
                                 21, 22, 23, 24, 25, 26, 27, 3,  4,  5,  6,  7,  8, 9};
    for (size_t i = 0; i < L * SITES; i++) {
        snprintf(names[i], sizeof *names, "base_model.model.model.layers.%d.%s.ia3_l",
                 order[i / SITES], sites[i % SITES].name);
        list[i] = (pb_tensor_out){
            names[i], PB_F32, 2, {sites[i % SITES].rows, sites[i % SITES].cols}, ones};
    }
    const char *const meta[] = {"format", "pt", NULL};
    accept(pb_tensors_write(path, list, L * SITES, meta));
    free(ones);
    pb_file f;
    accept(pb_file_map(&f, path));
    assert_int_equal(f.size, 1157064);
    pb_file_unmap(&f);
}

static void test_writer_refusals(void **state)
{
    (void)state;
    const real x[2] = {1, 2};
    unlink(path);
    const struct {
        pb_tensor_out list[2];
        size_t n;
        const char *message;
    } cases[] = {
        {{{"a", PB_F32, 1, {1}, x}, {"a", PB_F32, 1, {1}, x}}, 2, "\"a\" is taken"},
        {{{"__metadata__", PB_F32, 1, {1}, x}}, 1, "taken"},
        {{{"a", PB_Q8_0, 1, {32}, x}}, 1, "dtype 5"},
        {{{"a", (pb_dtype)77, 1, {1}, x}}, 1, "dtype 77"},
        {{{"a", PB_F32, 5, {1, 1, 1, 1}, x}}, 1, "shape"},
        {{{"a", PB_F32, 2, {SIZE_MAX, 2}, x}}, 1, "shape"},
        {{{"a", PB_F32, 1, {SIZE_MAX / 2}, x}}, 1, "shape"},
        {{{"\xff", PB_F32, 1, {1}, x}}, 1, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_not_equal(pb_tensors_write(path, cases[i].list, cases[i].n, NULL), PB_OK);
        assert_non_null(strstr(pb_error_message(), cases[i].message));
        assert_false(pb_exists(path));
    }
    const char *const odd[] = {"key", NULL}, *const bad[] = {"key", "\xff", NULL};
    assert_int_equal(pb_tensors_write(path, NULL, 0, odd), PB_INTERNAL);
    assert_int_equal(pb_tensors_write(path, NULL, 0, bad), PB_INPUT);
    assert_int_equal(pb_tensors_write("/nonexistent/x", NULL, 0, NULL), PB_IO);
    accept(pb_tensors_write(path, NULL, 0, NULL));
    pb_tensors *t;
    accept(pb_tensors_open(&t, path));
    assert_int_equal(pb_tensors_count(t), 0);
    pb_tensors_close(t);
}

static void test_added(void **state)
{
    (void)state;
    static float data[6 * 200];
    for (size_t i = 0; i < 6 * 200; i++)
        data[i] = (float)i;
    pb_tensors *t;
    accept(pb_tensors_new(&t, NULL));
    char name[32];
    for (size_t i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%zu", i);
        pb_tensor x = {.dtype = PB_F32, .count = 6, .data = data + 6 * i};
        x.n_dims = i % 2 ? 1 : 2;
        x.shape[0] = i % 2 ? 6 : 2;
        x.shape[1] = i % 2 ? 0 : 3;
        accept(pb_tensors_add(t, name, &x));
    }
    const pb_tensor *x = pb_tensors_at(t, 0);
    assert_int_equal(pb_tensors_add(t, "t7", x), PB_INPUT);
    assert_int_equal(pb_tensors_add(t, "\xff", x), PB_INPUT);
    assert_int_equal(pb_tensors_count(t), 200);
    accept(pb_tensors_need(t, "t199", 6, 0, &x));
    accept(pb_tensors_need(t, "t198", 2, 3, &x));
    real out[6];
    pb_tensor_read(x, 0, 6, out);
    assert_true(out[5] == 6 * 198 + 5);
    pb_tensors_close(t);
    assert_int_equal(pb_tensors_new(&t, "/nonexistent/x"), PB_IO);
    assert_null(t);
}

// Every half, and the middle between every two neighbours, where ties go to the even pattern.
static void test_half_rounding(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        double below = by_definition(h, 5, 10);
        double above = h == 0x7bff ? 65536 : by_definition(h + 1, 5, 10);
        double middle = (below + above) / 2; // exact in float too
        unsigned tie = h % 2 ? h + 1 : h;
        assert_int_equal(pb_half_of_real((real)below), h);
        assert_int_equal(pb_half_of_real((real)middle), tie);
        assert_int_equal(pb_half_of_real((real)-middle), tie | 0x8000);
        assert_int_equal(pb_half_of_real((real)nextafterf((float)middle, 0)), h);
        assert_int_equal(pb_half_of_real((real)nextafterf((float)middle, 1e9f)), h + 1);
        if (sizeof(real) == 8) {
            assert_int_equal(pb_half_of_real((real)nextafter(middle, 0)), h);
            assert_int_equal(pb_half_of_real((real)nextafter(middle, 1e9)), h + 1);
        }
    }
    assert_int_equal(pb_half_of_real((real)INFINITY), 0x7c00);
    assert_int_equal(pb_half_of_real((real)-1e30), 0xfc00);
    assert_int_equal(pb_half_of_real((real)-0.0), 0x8000);
    assert_int_equal(pb_half_of_real((real)NAN) & 0x7e00, 0x7e00);
}

static void write_text(const char *name, const char *text)
{
    char file[600];
    snprintf(file, sizeof file, "%s/%s", folder, name);
    accept(pb_file_write(file, text, strlen(text)));
}

static void remove_file(const char *name)
{
    char file[600];
    snprintf(file, sizeof file, "%s/%s", folder, name);
    unlink(file);
}

static const char index_name[] = "model.safetensors.index.json";

// A folder with such an index is refused with `message`.
static void refuse_index(pb_err code, const char *message, const char *text)
{
    pb_tensors *t;
    write_text(index_name, text);
    pb_err err = pb_tensors_open_folder(&t, folder);
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("%s\n  expected \"%s\", got %s: %s", text, message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
}

// Tensors written as shards and read back are the same, bit for bit; then every way in which index
// and files can disagree.
static void test_shards(void **state)
{
    (void)state;
    static float data[60];
    for (size_t i = 0; i < 60; i++)
        data[i] = (float)i - 30;
    pb_tensor x[3];
    const pb_tensor *list[3];
    static char *names[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        x[i] = (pb_tensor){.name = names[i], .n_dims = 2, .shape = {4, 5}, .count = 20};
        x[i].data = data + 20 * i;
        list[i] = &x[i];
    }
    accept(pb_tensors_write_folder(folder, "model", list, 3, PB_F32,
                                   160)); // two of 80 bytes, then one
    char file[600];
    snprintf(file, sizeof file, "%s/%s", folder, index_name);
    json_t *index;
    accept(pb_json_load(&index, file));
    json_t *map = json_object_get(index, "weight_map");
    assert_string_equal(json_string_value(json_object_get(map, "b")),
                        "model-00001-of-00002.safetensors");
    assert_string_equal(json_string_value(json_object_get(map, "c")),
                        "model-00002-of-00002.safetensors");
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), 240);
    json_decref(index);
    pb_tensors *t;
    accept(pb_tensors_open_folder(&t, folder));
    assert_int_equal(pb_tensors_count(t), 3);
    assert_string_equal(pb_tensors_meta(t, "format"), "pt");
    for (size_t i = 0; i < 3; i++) {
        const pb_tensor *y;
        accept(pb_tensors_need(t, names[i], 4, 5, &y));
        pb_tensors_release(y);
        assert_memory_equal(y->data, x[i].data, 80);
    }
    const pb_tensor *none;
    assert_int_equal(pb_tensors_need(t, "d", 1, 1, &none), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "index.json"));
    pb_tensors_close(t);

#define ONE       "model-00001-of-00002.safetensors"
#define TWO       "model-00002-of-00002.safetensors"
#define MAP(text) "{\"weight_map\":{" text "}}"
    refuse_index(PB_INPUT, "\"b\" is in " ONE ", but \"weight_map\" says it is in " TWO,
                 MAP("\"a\":\"" ONE "\",\"b\":\"" TWO "\",\"c\":\"" TWO "\""));
    refuse_index(PB_INPUT, "\"c\" is not in " ONE,
                 MAP("\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"" ONE "\""));
    refuse_index(PB_INPUT, "\"b\" is in " ONE ", but \"weight_map\" says nothing",
                 MAP("\"a\":\"" ONE "\",\"c\":\"" TWO "\""));
    refuse_index(PB_INPUT, "\"z\" is not in " ONE,
                 MAP("\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"" TWO "\",\"z\":\"" ONE "\""));
    refuse_index(PB_INPUT, "\"../x\" is not a plain", MAP("\"a\":\"../x\""));
    refuse_index(PB_INPUT, "\"..\" is not a plain", MAP("\"a\":\"..\""));
    refuse_index(PB_INPUT, "\"\" is not a plain", MAP("\"a\":\"\""));
    refuse_index(PB_INPUT, "\"/etc/x\" is not a plain", MAP("\"a\":\"/etc/x\""));
    refuse_index(PB_IO, "nothere", MAP("\"a\":\"nothere\""));
    refuse_index(PB_INPUT, "must be a string", MAP("\"a\":1"));
    refuse_index(PB_INPUT, "duplicate", MAP("\"a\":\"" ONE "\",\"a\":\"" TWO "\""));
    refuse_index(PB_INPUT, "weight_map", "{}");
    refuse_index(PB_INPUT, "weight_map", "{\"weight_map\":[]}");
    refuse_index(PB_INPUT, "index.json", "{");
    // A tensor that two shards have.
    accept(pb_tensors_write_folder(folder, "model", list, 3, PB_F32, 160));
    snprintf(file, sizeof file, "%s/" TWO, folder);
    pb_tensor_out twice[2] = {{"a", PB_F32, 2, {4, 5}, NULL}, {"c", PB_F32, 2, {4, 5}, NULL}};
    real zeros[20] = {0};
    twice[0].data = twice[1].data = zeros;
    accept(pb_tensors_write(file, twice, 2, NULL));
    assert_int_equal(pb_tensors_open_folder(&t, folder), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "\"a\""));
    remove_file(ONE);
    remove_file(TWO);
    remove_file(index_name);
    assert_int_equal(pb_tensors_open_folder(&t, folder), PB_IO);
    // One file when everything fits.
    accept(pb_tensors_write_folder(folder, "model", list, 3, PB_BF16, 120));
    remove_file(index_name);
    accept(pb_tensors_open_folder(&t, folder));
    assert_int_equal(pb_tensors_find(t, "a")->dtype, PB_BF16);
    pb_tensors_close(t);
    data[3] = 1e6f;
    assert_int_equal(pb_tensors_write_folder(folder, "model", list, 3, PB_F16, 0), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "1e+06 of the tensor \"a\""));
    remove_file("model.safetensors");
}

// Rows of heads in interleaved order, an offset and Q8_0, read in pieces that begin anywhere.
static void test_presented_otherwise(void **state)
{
    (void)state;
    enum { HEADS = 3, D = 8, COLS = 5, N = HEADS * D * COLS };
    static float data[N];
    static real whole[N], part[N];
    for (size_t i = 0; i < N; i++)
        data[i] = (float)i;
    pb_tensor x = {.dtype = PB_F32, .n_dims = 2, .shape = {HEADS * D, COLS}, .count = N};
    x.data = data;
    x.head_rows = D;
    x.minus = 1;
    pb_tensor_read(&x, 0, N, whole);
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < D / 2; i++)
            for (size_t c = 0; c < COLS; c++) {
                assert_true(whole[(h * D + i) * COLS + c] ==
                            (real)((h * D + 2 * i) * COLS + c) - 1);
                assert_true(whole[(h * D + i + D / 2) * COLS + c] ==
                            (real)((h * D + 2 * i + 1) * COLS + c) - 1);
            }
    for (size_t first = 0; first < N; first++)
        for (size_t n = 0; n <= N - first && n < 3 * COLS; n++) {
            pb_tensor_read(&x, first, n, part);
            assert_memory_equal(part, whole + first, n * sizeof *part);
        }
    uint8_t blocks[3 * 34];
    for (size_t b = 0; b < 3; b++) {
        uint16_t scale = pb_half_of_real((real)ldexp(1.5, -(int)b));
        memcpy(blocks + 34 * b, &scale, 2);
        for (size_t i = 0; i < 32; i++)
            blocks[34 * b + 2 + i] = (uint8_t)(17 * i + b);
    }
    pb_tensor q = {.dtype = PB_Q8_0, .n_dims = 1, .shape = {96}, .count = 96, .data = blocks};
    pb_tensor_read(&q, 0, 96, whole);
    for (size_t i = 0; i < 96; i++)
        assert_true((double)whole[i] ==
                    ldexp(1.5, -(int)(i / 32)) * (int8_t)(uint8_t)(17 * (i % 32) + i / 32));
    for (size_t first = 0; first < 96; first++) {
        pb_tensor_read(&q, first, 96 - first, part);
        assert_memory_equal(part, whole + first, (96 - first) * sizeof *part);
    }
    assert_int_equal(pb_dtype_bytes(PB_Q8_0, 96), sizeof blocks);
}

static void test_random(void **state)
{
    (void)state;
    enum { N = 600000 };
    static real v[N], again[N];
    pb_tensor x = {.dtype = PB_F32, .n_dims = 1, .shape = {N}, .count = N, .seed = 5, .number = 3};
    x.gain = 0.5f;
    x.mean = 2;
    pb_tensor_read(&x, 0, N, v);
    double sum = 0, square = 0, fourth = 0;
    for (size_t i = 0; i < N; i++) {
        double d = ((double)v[i] - 2) / 0.5;
        sum += d;
        square += d * d;
        fourth += d * d * d * d;
    }
    assert_true(fabs(sum / N) < 0.01 && fabs(square / N - 1) < 0.01);
    assert_true(fabs(fourth / N - 2.7) < 0.05); // four uniform terms; 3 is the normal's
    // A value depends on its position alone.
    for (size_t first = 0; first < 9; first++) {
        pb_tensor_read(&x, first, 50, again);
        assert_memory_equal(again, v + first, 50 * sizeof *v);
    }
    pb_tensor_read(&x, 300001, 200000, again);
    assert_memory_equal(again, v + 300001, 200000 * sizeof *v);
    x.dtype = PB_BF16;
    pb_tensor_read(&x, 0, N, again);
    for (size_t i = 0; i < N; i++)
        assert_true((double)again[i] == by_definition(pb_bfloat_of_real(v[i]), 8, 7));
    x.number = 4;
    pb_tensor_read(&x, 0, N, again);
    assert_memory_not_equal(again, v, sizeof v);
}

// The digest is of the values: the same for BF16 and its F32 copy, in any order of the file's rows;
// any bit of any value changes it.
static void test_digest(void **state)
{
    (void)state;
    enum { N = (1 << 20) + 4096 }; // two pieces
    static float f[N], turned[N];
    static uint16_t b[N];
    char first[PB_HASH_LEN], second[PB_HASH_LEN];
    for (size_t i = 0; i < N; i++) {
        b[i] = (uint16_t)(0x3c00 + i % 1000);
        f[i] = pb_float_of_bfloat(b[i]);
    }
    pb_tensor x = {.dtype = PB_BF16, .n_dims = 2, .shape = {N / 64, 64}, .count = N, .data = b};
    accept(pb_tensor_digest(&x, first));
    x.dtype = PB_F32;
    x.data = f;
    accept(pb_tensor_digest(&x, second));
    assert_string_equal(first, second);
    for (size_t row = 0; row < N / 64; row++) {
        size_t i = row % 16, from = row - i + i / 2 + i % 2 * 8;
        memcpy(turned + row * 64, f + from * 64, 64 * sizeof *f);
    }
    x.data = turned;
    x.head_rows = 16;
    accept(pb_tensor_digest(&x, second));
    assert_string_equal(first, second);
    x.data = f;
    x.head_rows = 0;
    static const size_t at[] = {0, 77, N - 1};
    for (size_t i = 0; i < 3; i++)
        for (unsigned bit = 0; bit < 32; bit += 5) {
            uint32_t bits;
            memcpy(&bits, &f[at[i]], 4);
            bits ^= 1u << bit;
            memcpy(&f[at[i]], &bits, 4);
            accept(pb_tensor_digest(&x, second));
            assert_string_not_equal(first, second);
            bits ^= 1u << bit;
            memcpy(&f[at[i]], &bits, 4);
        }
}

static int copy(const char *in, const char *out)
{
    pb_tensors *t = NULL;
    if (pb_tensors_open(&t, in)) {
        fprintf(stderr, "%s\n", pb_error_message());
        return 1;
    }
    size_t n = pb_tensors_count(t);
    pb_tensor_out *list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        const pb_tensor *x = pb_tensors_at(t, i);
        list[i] = (pb_tensor_out){.name = x->name, .dtype = x->dtype, .n_dims = x->n_dims};
        memcpy(list[i].shape, x->shape, sizeof x->shape);
        void *data = malloc(x->count * 8 + 1);
        if (x->dtype == PB_I64)
            memcpy(data, x->data, x->count * 8);
        else
            pb_tensor_read(x, 0, x->count, data);
        if (x->dtype == PB_F16)
            list[i].dtype = PB_F32;
        list[i].data = data;
    }
    const char *meta[] = {"format", pb_tensors_meta(t, "format"), NULL};
    pb_err err = pb_tensors_write(out, list, n, meta[1] ? meta : NULL);
    if (err)
        fprintf(stderr, "%s\n", pb_error_message());
    for (size_t i = 0; i < n; i++)
        free((void *)list[i].data);
    free(list);
    pb_tensors_close(t);
    return err ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--copy") == 0)
        return copy(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_empty_and_scalar),
        cmocka_unit_test(test_truncated_everywhere),
        cmocka_unit_test(test_all_half_and_bfloat_patterns),
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_bfloat_rounding),
        cmocka_unit_test(test_nan_survives),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_size_of_a_published_adapter),
        cmocka_unit_test(test_writer_refusals),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_half_rounding),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_presented_otherwise),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
