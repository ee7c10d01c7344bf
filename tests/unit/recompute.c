// Memory of a training step, kept and made again: against the formula of model/forward.h, against
// what a real step uses, and per layer for every method; and training itself, bit by bit.
#include "core/threads.h"
#include "train/trainer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tiny.h"

// Calls of the allocator by the suite itself, whatever an OpenMP runtime does for its regions: the
// linker sends them here (--wrap, see tests/CMakeLists.txt).
static _Atomic size_t allocations;
#define COUNTED(type, name, parameters, arguments)                                                 \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        allocations++;                                                                             \
        return __real_##name arguments;                                                            \
    }
COUNTED(void *, malloc, (size_t n), (n))
COUNTED(void *, calloc, (size_t n, size_t size), (n, size))
COUNTED(void *, realloc, (void *p, size_t n), (p, n))
COUNTED(int, posix_memalign, (void **out, size_t to, size_t n), (out, to, n))
COUNTED(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, long from),
        (at, n, prot, flags, fd, from))
#undef COUNTED

// All widths are multiples of 16 numbers: blocks of memory are rounded up to 64 bytes.
enum { R = 96, S = 3, C = 64, F = 112, H = 16, KVH = 8, D = 16, V = 96, MOST = 9 };
static const pb_segment segments[S] = {{.row0 = 0, .n_rows = 16, .n_prompt = 9, .slot = -1},
                                       {.row0 = 16, .n_rows = 50, .n_prompt = 20, .slot = -1},
                                       {.row0 = 66, .n_rows = 30, .n_prompt = 1, .slot = -1}};

static pb_model *model(size_t layers)
{
    pb_config g = {.vocab = V,
                   .width = C,
                   .ffn = F,
                   .layers = layers,
                   .heads = H,
                   .kv_heads = KVH,
                   .head_dim = D,
                   .context = 128,
                   .norm_eps = 1e-5,
                   .rope_theta = 10000,
                   .bos = -1};
    pb_model *m;
    OK(pb_model_random(&m, &g, 1, &(pb_model_args){.trainable = true}));
    return m;
}

static pb_adapter *adapter(const char *method, const pb_model *m)
{
    const pb_method *of = pb_method_find(method);
    pb_adapter *a;
    void *o;
    assert_non_null(of);
    OK(pb_options_new(&o, of));
    if (strstr(method, "prefix") || !strcmp(method, "prompt"))
        OK(pb_options_assign(of, o, "init=random"));
    if (strstr(method, "lora"))
        OK(pb_options_assign(of, o, "dropout=0.3"));
    OK(pb_adapter_new(&a, of, o, &m->config, true));
    OK(pb_adapter_init(a, m, 7, 0, NULL, NULL, NULL));
    free(o);
    return a;
}

static size_t need(const pb_model *m, pb_adapter *a, bool recompute)
{
    size_t bytes;
    pb_step_limits limits = {.rows = R, .segments = S, .train = true, .recompute = recompute};
    OK(pb_step_need(&bytes, m, &a, a ? 1 : 0, &limits));
    return bytes;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// The formula, with `panels` rows of keys in panels.
static size_t formula(size_t layers, bool recompute, size_t panels)
{
    size_t KV = KVH * D, A = R * (12 * C + 4 * H * D + 4 * KV + 6 * F + H + 2) + panels * KV;
    size_t ends = R * D + 2 * R * C + 2 * R * C + R, T = larger(R * C, (R + PB_NR * S) * KV);
    size_t loss = 256 * (2 * C + V), back = recompute ? T + A + R * C : T;
    return (ends + layers * (recompute ? 2 * R * C : A) + larger(loss, back)) * sizeof(real);
}

static void test_formula(void **state)
{
    (void)state;
    for (size_t layers = 1; layers <= MOST; layers += 4) {
        pb_model *m = model(layers);
        for (int again = 0; again < 2; again++)
            assert_int_equal(need(m, NULL, again), formula(layers, again, R + PB_NR * S));
        pb_model_close(m);
    }
}

static pb_step *steps(const pb_model *m, pb_adapter **a, bool recompute, size_t n)
{
    int32_t tokens[R];
    real weight[R], nll[R];
    pb_segment seg[S];
    pb_step *st;
    pb_step_limits limits = {.rows = R, .segments = S, .train = true, .recompute = recompute};
    for (size_t r = 0; r < R; r++) {
        tokens[r] = (int32_t)(r * 7 % V);
        weight[r] = (real)0.01;
    }
    memcpy(seg, segments, sizeof seg);
    for (size_t s = 0; s < S; s++)
        seg[s].tenant = *a ? 0 : -1;
    OK(pb_step_new(&st, m, a, *a ? 1 : 0, &limits));
    pb_batch b = {R, S, tokens, seg};
    for (size_t i = 0; i < n; i++) {
        allocations = 0;
        pb_mat *h = pb_forward(st, &b, true, 1, i);
        pb_step_loss(st, h, tokens, weight, nll, NULL);
        pb_step_backward(st);
        if (i && *a) // BLIS keeps memory of its own
            assert_int_equal(allocations, 0);
    }
    return st;
}

// A step's own split into segments needs fewer rows of panels than the worst one. No step
// allocates.
static void test_real_step(void **state)
{
    (void)state;
    size_t panels = 0;
    for (size_t s = 0; s < S; s++)
        panels += (segments[s].n_rows + PB_NR - 1) / PB_NR * PB_NR;
    pb_model *m = model(5);
    pb_adapter *none = NULL, *lora = adapter("lora", m);
    for (int again = 0; again < 2; again++) {
        pb_step *st = steps(m, &none, again, 2);
        assert_int_equal(pb_step_peak(st), formula(5, again, panels));
        assert_true(pb_step_peak(st) <= pb_step_bytes(st));
        pb_step_free(st);
        pb_step_free(steps(m, &lora, again, 5));
    }
    pb_adapter_free(lora);
    pb_model_close(m);
}

// One more layer costs its input and the gradient of that, whatever the method does in it.
static void test_one_more_layer(void **state)
{
    (void)state;
    static const char *const methods[] = {"lora", "pedro", "prefix", "prompt", "lora+prefix",
                                          "ia3",  "dora",  "iapt",   "milora"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        size_t bytes[2][3], rows = R;
        for (size_t l = 0; l < 3; l++) {
            pb_model *m = model(7 + l);
            pb_adapter *a = adapter(methods[i], m);
            bytes[0][l] = need(m, a, false);
            bytes[1][l] = need(m, a, true);
            if (a->method->virtual_tokens)
                rows = R + a->prefix_len;
            pb_adapter_free(a);
            pb_model_close(m);
        }
        assert_int_equal(bytes[1][1] - bytes[1][0], 2 * rows * C * sizeof(real));
        assert_int_equal(bytes[1][2] - bytes[1][1], 2 * rows * C * sizeof(real));
        assert_true(bytes[0][2] - bytes[0][1] > 8 * (bytes[1][2] - bytes[1][1]));
        assert_true(2 * bytes[1][2] < bytes[0][2]);
    }
}

// ---------------------------------------------------------------- training

static void examples(pb_seqs *s)
{
    enum { N = 24, LONG = 30 };
    pb_rng r = pb_rng_make(8, PB_STREAM_TEST, 0);
    *s = (pb_seqs){.n = N, .longest = LONG};
    s->seq = malloc(N * sizeof *s->seq);
    s->tokens = malloc(N * LONG * sizeof *s->tokens);
    for (size_t i = 0; i < N; i++) {
        size_t n = 4 + pb_rng_below(&r, LONG - 3);
        s->seq[i] = (pb_seq){s->n_tokens, (uint32_t)n, (uint32_t)(1 + pb_rng_below(&r, n - 1))};
        for (size_t k = 0; k < n; k++)
            s->tokens[s->n_tokens++] = (int32_t)pb_rng_below(&r, V);
    }
}

static void train(pb_model *m, pb_adapter *a, bool recompute, pb_train_result *out)
{
    pb_seqs data;
    pb_train_options o;
    examples(&data);
    pb_train_defaults(&o);
    o.steps = 6;
    o.batch = 4;
    o.accumulate = 2;
    o.warmup = 0;
    o.eval_every = 3;
    o.recompute = recompute;
    OK(pb_train(m, a, &data, &data, &o, NULL, out));
    pb_seqs_free(&data);
}

static void test_training(void **state)
{
    (void)state;
    static const char *const methods[] = {"lora",    "pedro",       "prefix",
                                          "adalora", "lora+prefix", NULL};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        pb_model *m[2];
        pb_adapter *a[2] = {NULL, NULL};
        pb_train_result out[2];
        for (int again = 0; again < 2; again++) {
            m[again] = model(3);
            if (methods[i])
                a[again] = adapter(methods[i], m[again]);
            train(m[again], a[again], again, &out[again]);
        }
        const pb_params *p = a[0] ? &a[0]->params : &m[0]->params;
        const pb_params *q = a[1] ? &a[1]->params : &m[1]->params;
        assert_memory_equal(p->v, q->v, p->layout->size * sizeof(real));
        assert_memory_equal(p->d, q->d, p->layout->size * sizeof(real));
        assert_true(out[0].last_loss == out[1].last_loss);
        assert_true(out[0].best_valid == out[1].best_valid);
        assert_true(out[1].step_bytes < out[0].step_bytes);
        for (int again = 0; again < 2; again++) {
            pb_adapter_free(a[again]);
            pb_model_close(m[again]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_real_step),
        cmocka_unit_test(test_one_more_layer),
        cmocka_unit_test(test_training),
    };
    OK(pb_threads_set(1));
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove);
}
