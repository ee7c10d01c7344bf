// llama2.c checkpoints: where every number goes, what is refused, and a real model whose loss is
// known, computed by a plain forward pass in Hugging Face conventions. The loss is right only if
// names, row order and tokenizer all are.
#include "model/llama2c.h"

#include "core/file.h"
#include "fuzz/targets.h"
#include "model/tokenizer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { CAP = 1 << 14 };
static uint8_t bytes[CAP];

static void accept(pb_err err)
{
    if (err)
        fail_msg("refused: %s", pb_error_message());
}

static void expect(const pb_tensors *t, const char *name, size_t rows, size_t cols, size_t row,
                   double first)
{
    const pb_tensor *x;
    real v;
    accept(pb_tensors_need(t, name, rows, cols, &x));
    pb_tensor_read(x, row * (cols ? cols : 1), 1, &v);
    if ((double)v != first)
        fail_msg("%s row %zu starts with %g, not %g", name, row, (double)v, first);
}

// Weights count up in file order, so a weight's value is its position. C 8, F 3, L 2, H 2, KVH 1,
// V 5, D 4.
static void check_places(const pb_tensors *t, const size_t at[12], bool tied)
{
    enum { EMBED, ATT, FFN, FINAL, Q, K, V, O, GATE, DOWN, UP, HEAD };
    static const size_t turned[4] = {0, 2, 1, 3}; // row i of a head was row turned[i]
    char name[96];
    expect(t, "model.embed_tokens.weight", 5, 8, 3, (double)at[EMBED] + 24);
    expect(t, "model.norm.weight", 8, 0, 7, (double)at[FINAL] + 7);
    for (size_t l = 0; l < 2; l++) {
#define LAYER(part) (snprintf(name, sizeof name, "model.layers.%zu." part ".weight", l), name)
        expect(t, LAYER("input_layernorm"), 8, 0, 0, (double)(at[ATT] + 8 * l));
        expect(t, LAYER("post_attention_layernorm"), 8, 0, 0, (double)(at[FFN] + 8 * l));
        for (size_t r = 0; r < 8; r++)
            expect(t, LAYER("self_attn.q_proj"), 8, 8, r,
                   (double)(at[Q] + 64 * l + 8 * (r / 4 * 4 + turned[r % 4])));
        for (size_t r = 0; r < 4; r++)
            expect(t, LAYER("self_attn.k_proj"), 4, 8, r, (double)(at[K] + 32 * l + 8 * turned[r]));
        for (size_t r = 0; r < 4; r++)
            expect(t, LAYER("self_attn.v_proj"), 4, 8, r, (double)(at[V] + 32 * l + 8 * r));
        for (size_t r = 0; r < 8; r++)
            expect(t, LAYER("self_attn.o_proj"), 8, 8, r, (double)(at[O] + 64 * l + 8 * r));
        expect(t, LAYER("mlp.gate_proj"), 3, 8, 2, (double)(at[GATE] + 24 * l + 16));
        expect(t, LAYER("mlp.down_proj"), 8, 3, 7, (double)(at[DOWN] + 24 * l + 21));
        expect(t, LAYER("mlp.up_proj"), 3, 8, 1, (double)(at[UP] + 24 * l + 8));
#undef LAYER
    }
    if (tied)
        assert_null(pb_tensors_find(t, "lm_head.weight"));
    else
        expect(t, "lm_head.weight", 5, 8, 4, (double)at[HEAD] + 32);
}

static void test_places(void **state)
{
    (void)state;
    //                               EMBED ATT FFN FINAL Q   K    V    O    GATE DOWN UP   HEAD
    static const size_t v0[12] = {0, 40, 440, 600, 56, 184, 248, 312, 456, 504, 552, 624};
    static const size_t v1[12] = {40, 0, 16, 32, 80, 208, 272, 336, 464, 512, 560, 608};
    for (int variant = 0; variant < 4; variant++) {
        pb_tensors *t;
        pb_config c;
        size_t n = seed_llama2c(bytes, CAP, variant);
        accept(pb_llama2c_open(&t, &c, target_file(bytes, n)));
        bool tied = !(variant & 1);
        assert_int_equal(c.width, 8);
        assert_int_equal(c.ffn, 3);
        assert_int_equal(c.layers, 2);
        assert_int_equal(c.heads, 2);
        assert_int_equal(c.kv_heads, 1);
        assert_int_equal(c.vocab, 5);
        assert_int_equal(c.context, 4);
        assert_int_equal(c.head_dim, 4);
        assert_true(c.norm_eps == 1e-5 && c.rope_theta == 10000);
        assert_int_equal(c.tied, tied);
        assert_false(c.qkv_bias);
        assert_int_equal(c.gate, PB_GATE_SILU);
        assert_int_equal(c.bos, 1);
        assert_int_equal(c.n_eos, 1);
        assert_int_equal(c.eos[0], 2);
        assert_string_equal(c.tokenizer, "");
        check_places(t, variant & 2 ? v1 : v0, tied);
        pb_tensors_close(t);
    }
}

static void refuse(size_t n, pb_err code, const char *message)
{
    pb_tensors *t;
    pb_config c;
    pb_err err = pb_llama2c_open(&t, &c, target_file(bytes, n));
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("expected \"%s\", got %s: %s", message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
}

static void set_word(size_t word, int32_t value)
{
    memcpy(bytes + 4 * word, &value, 4);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        size_t word; // of the header
        int32_t value;
        pb_err code;
        const char *message;
    } cases[] = {
        {0, 0, PB_INPUT, "dim is 0"},
        {0, -8, PB_INPUT, "dim is -8"},
        {0, 9, PB_INPUT, "dim 9"},
        {0, 6, PB_INPUT, "head_dim is 3"},
        {0, INT32_MAX - 1, PB_INPUT, "hidden_size"},
        {1, 0, PB_INPUT, "hidden_dim is 0"},
        {1, INT32_MAX, PB_INPUT, "intermediate_size"},
        {2, 0, PB_INPUT, "layers is 0"},
        {2, INT32_MAX, PB_INPUT, "num_hidden_layers"},
        {2, 4096, PB_INPUT, "its header asks for"},
        {3, 0, PB_INPUT, "heads is 0"},
        {3, 3, PB_INPUT, "heads 3"},
        {4, -1, PB_INPUT, "kv_heads is -1"},
        {4, 3, PB_INPUT, "num_key_value_heads 3"},
        {5, 0, PB_INPUT, "vocab is 0"},
        {5, INT32_MIN, PB_INPUT, "vocab is -2147483648"},
        {5, INT32_MAX, PB_INPUT, "vocab_size"},
        {5, 2, PB_INPUT, "eos_token_id is 2"},
        {5, 6, PB_INPUT, "its header asks for"},
        {5, -5, PB_INPUT, "its header asks for"},
        {6, 0, PB_INPUT, "seq_len is 0"},
        {6, INT32_MAX, PB_INPUT, "max_position_embeddings"},
        {6, 5, PB_INPUT, "its header asks for"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = seed_llama2c(bytes, CAP, 0);
        set_word(cases[i].word, cases[i].value);
        refuse(n, cases[i].code, cases[i].message);
    }
    size_t n = seed_llama2c(bytes, CAP, 2);
    set_word(1, 2);
    refuse(n, PB_UNSUPPORTED, "version 2");
    set_word(1, 0);
    refuse(n, PB_UNSUPPORTED, "version 0");
    n = seed_llama2c(bytes, CAP, 2);
    bytes[36] = 2;
    refuse(n, PB_INPUT, "flag of a shared head is 2");
    bytes[36] = 0;
    refuse(n, PB_INPUT, "its header asks for");
    n = seed_llama2c(bytes, CAP, 2);
    set_word(7, -5); // version 1 has no sign trick
    refuse(n, PB_INPUT, "vocab is -5");
}

static void test_truncated_everywhere(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        size_t n = seed_llama2c(bytes, CAP - 1, variant);
        for (size_t size = 0; size < n; size++)
            refuse(size, PB_INPUT, "bytes");
        refuse(n + 1, PB_INPUT, "its header asks for");
    }
    pb_tensors *t;
    pb_config c;
    assert_int_equal(pb_llama2c_open(&t, &c, "/nonexistent/model.bin"), PB_IO);
}

// A plain forward pass, one position after another.

typedef struct layer {
    real *norm1, *q, *k, *v, *o, *norm2, *gate, *up, *down;
} layer;

static real *weights(const pb_tensors *t, const char *name, size_t rows, size_t cols)
{
    const pb_tensor *x;
    accept(pb_tensors_need(t, name, rows, cols, &x));
    real *out = malloc(x->count * sizeof *out);
    pb_tensor_read(x, 0, x->count, out);
    return out;
}

static void product(real *y, const real *w, const real *x, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < cols; i++)
            sum += (double)(w[r * cols + i] * x[i]);
        y[r] = (real)sum;
    }
}

static void normalise(real *y, const real *x, const real *w, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)(x[i] * x[i]);
    double scale = 1 / sqrt(sum / (double)n + 1e-5);
    for (size_t i = 0; i < n; i++)
        y[i] = (real)((double)x[i] * scale) * w[i];
}

// "Rotate half": the pair (i, i + D/2) turns by position * theta^(-2i/D).
static void rotate(real *x, size_t heads, size_t D, size_t position)
{
    for (size_t h = 0; h < heads; h++) {
        for (size_t i = 0; i < D / 2; i++) {
            double a = (double)position * pow(10000, -2.0 * (double)i / (double)D);
            real *u = &x[h * D + i], *v = &x[h * D + i + D / 2], u0 = *u;
            *u = (real)((double)u0 * cos(a) - (double)*v * sin(a));
            *v = (real)((double)*v * cos(a) + (double)u0 * sin(a));
        }
    }
}

enum { MAX_C = 256, MAX_F = 512, MAX_V = 512, MAX_T = 512, MAX_L = 8 };

typedef struct model {
    pb_config c;
    real *embed, *norm;
    layer l[MAX_L];
    real keys[MAX_L][MAX_T][MAX_C], values[MAX_L][MAX_T][MAX_C];
} model;

static void attend(real *out, const model *m, size_t l, const real *q, size_t position)
{
    size_t D = m->c.head_dim, group = m->c.heads / m->c.kv_heads;
    for (size_t h = 0; h < m->c.heads; h++) {
        size_t at = h / group * D;
        double p[MAX_T], sum = 0, mixed[MAX_C] = {0};
        for (size_t t = 0; t <= position; t++) {
            double score = 0;
            for (size_t i = 0; i < D; i++)
                score += (double)(q[h * D + i] * m->keys[l][t][at + i]);
            p[t] = exp(score / sqrt((double)D)); // scores of this small model stay small
            sum += p[t];
        }
        for (size_t t = 0; t <= position; t++)
            for (size_t i = 0; i < D; i++)
                mixed[i] += p[t] / sum * (double)m->values[l][t][at + i];
        for (size_t i = 0; i < D; i++)
            out[h * D + i] = (real)mixed[i];
    }
}

// -log p(next | tokens so far)
static double surprise(model *m, int32_t token, int32_t next, size_t position)
{
    size_t C = m->c.width, F = m->c.ffn, KV = pb_kv_width(&m->c);
    real x[MAX_C], y[MAX_C], z[MAX_C], q[MAX_C], gate[MAX_F], up[MAX_F], logits[MAX_V];
    memcpy(x, m->embed + (size_t)token * C, C * sizeof *x);
    for (size_t l = 0; l < m->c.layers; l++) {
        const layer *w = &m->l[l];
        normalise(y, x, w->norm1, C);
        product(q, w->q, y, C, C);
        product(m->keys[l][position], w->k, y, KV, C);
        product(m->values[l][position], w->v, y, KV, C);
        rotate(q, m->c.heads, m->c.head_dim, position);
        rotate(m->keys[l][position], m->c.kv_heads, m->c.head_dim, position);
        attend(z, m, l, q, position);
        product(y, w->o, z, C, C);
        for (size_t i = 0; i < C; i++)
            x[i] += y[i];
        normalise(y, x, w->norm2, C);
        product(gate, w->gate, y, F, C);
        product(up, w->up, y, F, C);
        for (size_t i = 0; i < F; i++)
            gate[i] *= up[i] / (real)(1 + exp(-(double)gate[i]));
        product(y, w->down, gate, C, F);
        for (size_t i = 0; i < C; i++)
            x[i] += y[i];
    }
    normalise(y, x, m->norm, C);
    product(logits, m->embed, y, m->c.vocab, C);
    double sum = 0;
    for (size_t i = 0; i < m->c.vocab; i++)
        sum += exp((double)(logits[i] - logits[next]));
    return log(sum);
}

static model *load(const char *path)
{
    model *m = calloc(1, sizeof *m);
    pb_tensors *t;
    accept(pb_llama2c_open(&t, &m->c, path));
    size_t C = m->c.width, F = m->c.ffn, KV = pb_kv_width(&m->c);
    assert_true(C <= MAX_C && F <= MAX_F && m->c.vocab <= MAX_V && m->c.layers <= MAX_L);
    assert_true(m->c.tied);
    m->embed = weights(t, "model.embed_tokens.weight", m->c.vocab, C);
    m->norm = weights(t, "model.norm.weight", C, 0);
    char name[96];
    for (size_t l = 0; l < m->c.layers; l++) {
        layer *w = &m->l[l];
#define LAYER(part) (snprintf(name, sizeof name, "model.layers.%zu." part ".weight", l), name)
        w->norm1 = weights(t, LAYER("input_layernorm"), C, 0);
        w->norm2 = weights(t, LAYER("post_attention_layernorm"), C, 0);
        w->q = weights(t, LAYER("self_attn.q_proj"), C, C);
        w->k = weights(t, LAYER("self_attn.k_proj"), KV, C);
        w->v = weights(t, LAYER("self_attn.v_proj"), KV, C);
        w->o = weights(t, LAYER("self_attn.o_proj"), C, C);
        w->gate = weights(t, LAYER("mlp.gate_proj"), F, C);
        w->up = weights(t, LAYER("mlp.up_proj"), F, C);
        w->down = weights(t, LAYER("mlp.down_proj"), C, F);
#undef LAYER
    }
    pb_tensors_close(t);
    return m;
}

static void unload(model *m)
{
    for (size_t l = 0; l < m->c.layers; l++) {
        layer *w = &m->l[l];
        real *all[] = {w->norm1, w->q, w->k, w->v, w->o, w->norm2, w->gate, w->up, w->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
    }
    free(m->embed);
    free(m->norm);
    free(m);
}

// Path of a file of the data folder; skips the test by name when it is not there.
static void data_file(char path[4096], const char *name)
{
    const char *data = getenv("PB_DATA");
    if (data && *data)
        snprintf(path, 4096, "%s/%s", data, name);
    else
        snprintf(path, 4096, "%s/../shared/data/%s", PB_SOURCE_DIR, name);
    if (!pb_exists(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
}

static void test_real_model(void **state)
{
    (void)state;
    char stories[4096], checkpoint[4096], vocabulary[4096];
    data_file(stories, "corpus/tinystories_sample.txt");
    data_file(checkpoint, "weights/stories260K/checkpoint_legacy.bin");
    data_file(vocabulary, "weights/stories260K/tokenizer.bin");

    model *m = load(checkpoint);
    assert_int_equal(m->c.vocab, 512);
    assert_int_equal(m->c.context, 512);
    pb_tokenizer *tokenizer;
    accept(pb_tokenizer_open(&tokenizer, vocabulary, m->c.vocab));
    pb_file f;
    accept(pb_file_map(&f, stories));
    const char *at = (const char *)f.data, *end = at + f.size;
    static const char mark[] = "\n<|endoftext|>\n";
    double sum = 0;
    size_t count = 0;
    for (int story = 0; story < 10; story++) {
        const char *stop = memmem(at, (size_t)(end - at), mark, sizeof mark - 1);
        assert_non_null(stop);
        int32_t *ids = NULL, token = pb_tokenizer_bos(tokenizer);
        size_t n = 0, cap = 0;
        accept(pb_tokenizer_encode(tokenizer, at, (size_t)(stop - at), false, &ids, &n, &cap));
        for (size_t i = 0; i < n && i < 256; i++) {
            sum += surprise(m, token, ids[i], i);
            token = ids[i];
            count++;
        }
        free(ids);
        at = stop + sizeof mark - 1;
    }
    double loss = sum / (double)count;
    print_message("stories260K: %.4f nats per token over %zu tokens\n", loss, count);
    assert_true(loss > 1.15 && loss < 1.45); // published: 1.30
    pb_file_unmap(&f);
    pb_tokenizer_close(tokenizer);
    unload(m);
}

static void test_other_real_model(void **state)
{
    (void)state;
    pb_tensors *t;
    pb_config c;
    char path[4096];
    data_file(path, "weights/babyllama_tok361/model5000.bin");
    accept(pb_llama2c_open(&t, &c, path));
    assert_int_equal(c.width, 128);
    assert_int_equal(c.vocab, 361);
    assert_int_equal(pb_tensors_count(t), 9 * 5 + 2);
    pb_tensors_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_truncated_everywhere),
        cmocka_unit_test(test_real_model),
        cmocka_unit_test(test_other_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
