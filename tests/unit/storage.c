// Weights kept in bfloat16, in 8 bits and in fp32: the same values give the same bits, whatever the
// number of rows, forward and backward; what is kept how; and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/threads.h"
#include "tiny.h"

// With one thread in two blocks of the backward pass, the second a row shorter; with three in
// three.
enum { ROWS = 303 };

// pb_tinies[t] as a folder in bfloat16.
static const char *narrow_folder(size_t t)
{
    static char path[420];
    snprintf(path, sizeof path, "%s/narrow%zu", tiny_folder, t);
    if (!pb_exists(path)) {
        pb_model *m = tiny_open(t, &(pb_model_args){0});
        OK(pb_model_save(m, path, true));
        pb_model_close(m);
    }
    return path;
}

static pb_model *open_as(const char *path, pb_storage weights)
{
    pb_model *m;
    OK(pb_model_open(&m, path, &(pb_model_args){.weights = weights}));
    return m;
}

static void same_storage(const pb_model *m, const char *what)
{
    assert_string_equal(pb_model_storage(m), what);
}

typedef struct results {
    real *logits; // (ROWS,V)
    real *d;      // gradients of a LoRA adapter
    size_t n_d;
} results;

// Logits of `rows` rows, and gradients that passed through every frozen matrix.
static results compute(pb_model *m, size_t rows, int threads)
{
    OK(pb_threads_set(threads));
    results out;
    void *options;
    pb_adapter *a;
    pb_step *st;
    int32_t tokens[ROWS], target[ROWS];
    real weight[ROWS], nll[ROWS];
    const pb_method *lora = pb_method_find("lora");
    OK(pb_options_new(&options, lora));
    OK(pb_adapter_new(&a, lora, options, &m->config, true));
    pb_rng r = pb_rng_make(5, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < a->layout.size; i++)
        a->params.v[i] = (real)(0.05 * pb_rng_normal(&r));
    memset(a->params.d, 0, a->layout.size * sizeof(real));
    for (size_t i = 0; i < rows; i++) {
        tokens[i] = (int32_t)pb_rng_below(&r, m->config.vocab);
        target[i] = (int32_t)pb_rng_below(&r, m->config.vocab);
        weight[i] = (real)0.125;
    }
    pb_segment seg = {.n_rows = rows, .n_prompt = 1, .tenant = 0, .slot = -1};
    pb_batch b = {rows, 1, tokens, &seg};
    OK(pb_step_new(&st, m, &a, 1,
                   &(pb_step_limits){.rows = rows, .segments = 1, .train = true, .loss = true}));
    pb_mat *h = pb_forward(st, &b, true, 1, 0);
    pb_step_loss(st, h, target, weight, nll, NULL);
    pb_step_backward(st);
    out.logits = logits_of(st, m, &b, false);
    out.n_d = a->layout.size;
    out.d = malloc(out.n_d * sizeof *out.d);
    assert_non_null(out.d);
    memcpy(out.d, a->params.d, out.n_d * sizeof *out.d);
    pb_step_free(st);
    pb_adapter_free(a);
    free(options);
    return out;
}

static void same(void **state)
{
    static const size_t counts[] = {1, 3, 31, ROWS};
    (void)state;
    for (size_t t = 0; t < PB_N_TINIES; t++) {
        pb_model *wide = open_as(narrow_folder(t), PB_STORE_FP32);
        pb_model *narrow = open_as(narrow_folder(t), PB_STORE_AUTO);
        same_storage(wide, "fp32");
        same_storage(narrow, "bf16");
        assert_string_equal(wide->sha256, narrow->sha256);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            results x = compute(wide, counts[i], 1), y = compute(narrow, counts[i], 3);
            double size = 0;
            for (size_t k = 0; k < x.n_d; k++)
                size += fabs((double)x.d[k]);
            assert_true(size > 1e-6); // gradients arrived
            assert_memory_equal(x.logits, y.logits, counts[i] * wide->config.vocab * sizeof(real));
            assert_memory_equal(x.d, y.d, x.n_d * sizeof(real));
            free(x.logits), free(x.d), free(y.logits), free(y.d);
        }
        assert_true(pb_model_resident(narrow) < pb_model_resident(wide));
        pb_model_close(wide);
        pb_model_close(narrow);
    }
}

// A file in fp32: kept as it is unless asked otherwise, and then rounded as a file in bfloat16 is.
static void rounded(void **state)
{
    (void)state;
    for (size_t t = 0; t < PB_N_TINIES; t++) {
        pb_model *as_is = tiny_open(t, &(pb_model_args){0});
        pb_model *asked = tiny_open(t, &(pb_model_args){.weights = PB_STORE_BF16});
        same_storage(as_is, "fp32");
        same_storage(asked, "bf16");
        char path[400];
        snprintf(path, sizeof path, "%s/again%zu", tiny_folder, t);
        OK(pb_model_save(asked, path, true));
        pb_model *file = open_as(path, PB_STORE_AUTO),
                 *other = open_as(narrow_folder(t), PB_STORE_AUTO);
        results x = compute(file, 40, 1), y = compute(other, 40, 1);
        assert_memory_equal(x.logits, y.logits, 40 * file->config.vocab * sizeof(real));
        free(x.logits), free(x.d), free(y.logits), free(y.d);
        pb_model_close(as_is), pb_model_close(asked), pb_model_close(file), pb_model_close(other);
    }
}

// In 8 bits: within half a step of the values, the same bits as from fp32 with the rounded ones,
// and rounding those again changes nothing.
static void integers(void **state)
{
    static const size_t counts[] = {1, 2, 5, 31, ROWS};
    (void)state;
    for (size_t t = 0; t < PB_N_TINIES; t++) {
        char path[400];
        snprintf(path, sizeof path, "%s/integers%zu", tiny_folder, t);
        pb_model *m = tiny_open(t, &(pb_model_args){0});
        pb_model *m8 = tiny_open(t, &(pb_model_args){.weights = PB_STORE_INT8});
        same_storage(m8, "int8");
        const pb_weight *w = &m->layer[0].lin[PB_LIN_DOWN], *w8 = &m8->layer[0].lin[PB_LIN_DOWN];
        real *row = malloc(2 * w->in * sizeof *row), *row8 = row + w->in;
        assert_non_null(row);
        for (size_t i = 0; i < w->out; i++) {
            pb_unpack(row, w, i, 1);
            pb_unpack(row8, w8, i, 1);
            for (size_t g = 0; g < w->in; g += PB_GROUP) {
                double most = 0;
                for (size_t k = g; k < w->in && k < g + PB_GROUP; k++)
                    most = fmax(most, fabs((double)row[k]));
                for (size_t k = g; k < w->in && k < g + PB_GROUP; k++)
                    assert_true(fabs((double)(row[k] - row8[k])) <= 0.5015 * most / 127 + 1e-7);
            }
        }
        free(row);
        OK(pb_model_save(m8, path, false));
        pb_model *wide = open_as(path, PB_STORE_AUTO), *again = open_as(path, PB_STORE_INT8);
        same_storage(wide, "fp32");
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            size_t n = counts[i] * m->config.vocab * sizeof(real);
            results x = compute(m8, counts[i], 2), y = compute(wide, counts[i], 3);
            results z = compute(again, counts[i], 1);
            assert_memory_equal(x.logits, y.logits, n);
            assert_memory_equal(x.d, y.d, x.n_d * sizeof(real));
            assert_memory_equal(x.logits, z.logits, n);
            free(x.logits), free(x.d), free(y.logits), free(y.d), free(z.logits), free(z.d);
        }
        pb_model_close(m), pb_model_close(m8), pb_model_close(wide), pb_model_close(again);
    }
}

// Folding an adapter gives values that no file had: they are not rounded behind the user's back.
static void merged(void **state)
{
    (void)state;
    pb_model *m = open_as(narrow_folder(0), PB_STORE_AUTO), *folded;
    void *options;
    pb_adapter *a;
    const pb_method *lora = pb_method_find("lora");
    OK(pb_options_new(&options, lora));
    OK(pb_adapter_new(&a, lora, options, &m->config, false));
    OK(pb_model_open(&folded, narrow_folder(0), &(pb_model_args){.merge = a}));
    same_storage(folded, "bf16 and fp32");
    assert_int_equal(folded->embed.kind, PB_PANEL_BF16);
    assert_int_equal(folded->layer[0].lin[0].kind, PB_PANEL_FP32);
    pb_model_close(folded);
    OK(pb_model_open(&folded, narrow_folder(0),
                     &(pb_model_args){.merge = a, .weights = PB_STORE_BF16}));
    same_storage(folded, "bf16");
    pb_model_close(folded);
    pb_adapter_free(a);
    free(options);
    pb_model_close(m);
}

static void refused(void **state)
{
    (void)state;
    pb_model *m;
    pb_storage s;
    assert_int_equal(pb_storage_find(&s, "fp16"), PB_USAGE);
    assert_int_equal(pb_model_open(&m, narrow_folder(0),
                                   &(pb_model_args){.trainable = true, .weights = PB_STORE_BF16}),
                     PB_UNSUPPORTED);
    // A value that bfloat16 would make infinite.
    m = tiny_open(0, &(pb_model_args){.trainable = true});
    char path[400];
    snprintf(path, sizeof path, "%s/large", tiny_folder);
    const pb_spec *w = &m->layout.spec[3];
    assert_true(w->rows > 1);
    m->params.v[w->offset + 7] = (real)3.4e38;
    OK(pb_model_save(m, path, false));
    pb_model_close(m);
    assert_int_equal(pb_model_open(&m, path, &(pb_model_args){.weights = PB_STORE_BF16}), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "at 7 that fewer bits cannot keep"));
    assert_int_equal(pb_model_open(&m, path, &(pb_model_args){.weights = PB_STORE_INT8}), PB_INPUT);
    pb_model_close(open_as(path, PB_STORE_AUTO));
}

// What a step reads is counted: half of it in bfloat16; again in the backward pass.
static void counted(void **state)
{
    (void)state;
    pb_model *wide = open_as(narrow_folder(0), PB_STORE_FP32);
    pb_model *narrow = open_as(narrow_folder(0), PB_STORE_AUTO);
    int32_t token = 0;
    pb_segment seg = {.n_rows = 1, .n_prompt = 1, .tenant = -1, .slot = -1};
    pb_batch b = {1, 1, &token, &seg};
    pb_counts x[PB_COMPONENTS], y[PB_COMPONENTS];
    OK(pb_step_estimate(wide, NULL, 0, &b, false, x));
    OK(pb_step_estimate(narrow, NULL, 0, &b, false, y));
    size_t norms = 0, panels = 0;
    const pb_config *c = &wide->config;
    for (size_t i = 0; i < c->layers * PB_N_LINEARS; i++) {
        const pb_weight *w = &wide->layer[i / PB_N_LINEARS].lin[i % PB_N_LINEARS];
        panels += pb_panels_bytes(PB_PANEL_BF16, w->out, w->in) / 2;
    }
    norms = (2 * c->layers + 1) * c->width * sizeof(real);
    assert_true(x[PB_BACKBONE].bytes == (double)(norms + (panels + c->width) * sizeof(real)));
    assert_true(y[PB_BACKBONE].bytes == (double)(norms + (panels + c->width) * 2));
    assert_true(x[PB_HEAD].bytes == (double)pb_panels_bytes(PB_PANEL_FP32, c->vocab, c->width));
    assert_true(y[PB_HEAD].bytes == (double)pb_panels_bytes(PB_PANEL_BF16, c->vocab, c->width));
    pb_model_close(wide);
    pb_model_close(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same),     cmocka_unit_test(rounded),
                                       cmocka_unit_test(integers), cmocka_unit_test(merged),
                                       cmocka_unit_test(refused),  cmocka_unit_test(counted)};
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove) ? 1 : 0;
}
