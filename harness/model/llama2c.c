// llama2.c checkpoints: all numbers fp32, little endian, matrices in C order (out, in).
//
// Version 0: 7 int32 (dim, hidden, layers, heads, kv_heads, vocab, seq_len; a negative vocab says
// that the head is untied), then tok_emb, rms_att[L], wq[L], wk[L], wv[L], wo[L], rms_ffn[L],
// w1[L], w2[L], w3[L], rms_final, two unused blocks of seq_len*D/2, and the head if untied.
// Version 1: "24ka", int32 version, the 7 int32, a byte "head is shared", zeros up to 256; then
// rms_att[L], rms_ffn[L], rms_final, tok_emb, wq[L], wk[L], wv[L], wo[L], w1[L], w2[L], w3[L], head
// if untied. w1 is the gate, w2 the down and w3 the up projection.
//
// RoPE there turns the neighbours (2i, 2i+1) of a head; here it turns (i, i + D/2). The rows of wq
// and wk are permuted on load, which makes both the same function.
#include "model/llama2c.h"

#include "core/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC = 0x616b3432, HEADER_V0 = 28, HEADER_V1 = 256, FLAG_V1 = 36 };

typedef enum part {
    EMBED,
    NORM_ATT,
    NORM_FFN,
    NORM_FINAL,
    WQ,
    WK,
    WV,
    WO,
    W_GATE,
    W_DOWN,
    W_UP,
    UNUSED,
    HEAD,
    END
} part;

static const part order_v0[] = {EMBED,  NORM_ATT, WQ,   WK,         WV,     WO,   NORM_FFN,
                                W_GATE, W_DOWN,   W_UP, NORM_FINAL, UNUSED, HEAD, END};
static const part order_v1[] = {NORM_ATT, NORM_FFN, NORM_FINAL, EMBED, WQ,   WK, WV,
                                WO,       W_GATE,   W_DOWN,     W_UP,  HEAD, END};

static const char *const names[] = {
    [EMBED] = "model.embed_tokens.weight",
    [NORM_ATT] = "input_layernorm.weight",
    [NORM_FFN] = "post_attention_layernorm.weight",
    [NORM_FINAL] = "model.norm.weight",
    [WQ] = "self_attn.q_proj.weight",
    [WK] = "self_attn.k_proj.weight",
    [WV] = "self_attn.v_proj.weight",
    [WO] = "self_attn.o_proj.weight",
    [W_GATE] = "mlp.gate_proj.weight",
    [W_DOWN] = "mlp.down_proj.weight",
    [W_UP] = "mlp.up_proj.weight",
    [HEAD] = "lm_head.weight",
};

typedef struct matrix {
    size_t copies; // one per layer, or 1, or 0 when the file has none
    size_t rows, cols;
    bool per_layer;
    size_t turned_heads; // number of heads whose rows are permuted; 0 for none
} matrix;

static matrix shape_of(const pb_config *c, part p)
{
    size_t C = c->width, F = c->ffn, L = c->layers, q = pb_q_width(c), kv = pb_kv_width(c);
    switch (p) {
    case EMBED:
        return (matrix){1, c->vocab, C, false, 0};
    case NORM_ATT:
    case NORM_FFN:
        return (matrix){L, C, 0, true, 0};
    case NORM_FINAL:
        return (matrix){1, C, 0, false, 0};
    case WQ:
        return (matrix){L, q, C, true, c->heads};
    case WK:
        return (matrix){L, kv, C, true, c->kv_heads};
    case WV:
        return (matrix){L, kv, C, true, 0};
    case WO:
        return (matrix){L, C, q, true, 0};
    case W_GATE:
    case W_UP:
        return (matrix){L, F, C, true, 0};
    case W_DOWN:
        return (matrix){L, C, F, true, 0};
    case UNUSED: // cosines and sines, D/2 each per position
        return (matrix){1, c->context, c->head_dim, false, 0};
    case HEAD:
        return (matrix){c->tied ? 0 : 1, c->vocab, C, false, 0};
    case END:
        break;
    }
    return (matrix){0};
}

static size_t elements(const matrix *m)
{
    return m->rows * (m->cols ? m->cols : 1);
}

// Size of the file that this configuration implies. pb_config_check's limits keep it below 2^64.
static size_t expected_size(const pb_config *c, const part *order, size_t header)
{
    size_t n = 0;
    for (; *order != END; order++) {
        matrix m = shape_of(c, *order);
        n += m.copies * elements(&m);
    }
    return header + n * sizeof(float);
}

static void tensor_name(char out[96], part p, size_t layer, const matrix *m)
{
    if (m->per_layer)
        snprintf(out, 96, "model.layers.%zu.%s", layer, names[p]);
    else
        snprintf(out, 96, "%s", names[p]);
}

static pb_err add(pb_tensors *t, part p, size_t layer, const matrix *m, const uint8_t *in)
{
    char name[96];
    tensor_name(name, p, layer, m);
    pb_tensor x = {.dtype = PB_F32,
                   .n_dims = m->cols ? 2 : 1,
                   .shape = {m->rows, m->cols},
                   .count = elements(m),
                   .data = in,
                   .mapped = true,
                   .head_rows = m->turned_heads ? m->rows / m->turned_heads : 0};
    return pb_tensors_add(t, name, &x);
}

static pb_err read_config(pb_config *c, const int32_t h[7], bool tied)
{
    static const char *const what[] = {"dim",      "hidden_dim", "layers", "heads",
                                       "kv_heads", "vocab",      "seq_len"};
    for (int i = 0; i < 7; i++)
        if (h[i] < 1)
            return pb_fail(PB_INPUT, "is this a llama2.c checkpoint?", "%s is %d", what[i], h[i]);
    if (h[0] % h[3])
        return pb_fail(PB_INPUT, NULL, "dim %d is not a multiple of heads %d", h[0], h[3]);
    *c = (pb_config){
        .width = (size_t)h[0],
        .ffn = (size_t)h[1],
        .layers = (size_t)h[2],
        .heads = (size_t)h[3],
        .kv_heads = (size_t)h[4],
        .vocab = (size_t)h[5],
        .context = (size_t)h[6],
        .head_dim = (size_t)(h[0] / h[3]),
        .norm_eps = 1e-5,
        .rope_theta = 10000,
        .tied = tied,
        .gate = PB_GATE_SILU,
        .bos = 1,
        .eos = {2},
        .n_eos = 1,
    };
    return pb_config_check(c);
}

// Reads the header of either version; *order and *size tell where the numbers are.
static pb_err read_header(pb_config *c, const pb_file *f, const part **order, size_t *size)
{
    int32_t word[9] = {0};
    size_t n_word = f->size < sizeof word ? f->size : sizeof word;
    if (n_word)
        memcpy(word, f->data, n_word);
    bool v1 = n_word >= 4 && word[0] == MAGIC;
    *order = v1 ? order_v1 : order_v0;
    *size = v1 ? HEADER_V1 : HEADER_V0;
    if (v1 && n_word >= 8 && word[1] != 1)
        return pb_fail(PB_UNSUPPORTED, "export it again as version 0 or 1 (fp32)",
                       "llama2.c checkpoint version %d is not known", word[1]);
    if (f->size < *size)
        return pb_fail(PB_INPUT, "the file may be truncated",
                       "%zu bytes are fewer than a header of %zu", f->size, *size);
    if (v1) {
        uint8_t shared = f->data[FLAG_V1];
        if (shared > 1)
            return pb_fail(PB_INPUT, NULL, "the flag of a shared head is %d, neither 0 nor 1",
                           shared);
        return read_config(c, word + 2, shared == 1);
    }
    bool tied = word[5] > 0;
    if (word[5] < 0 && word[5] != INT32_MIN)
        word[5] = -word[5];
    return read_config(c, word, tied);
}

static pb_err read_tensors(pb_tensors *t, const pb_config *c, const part *order, const uint8_t *in)
{
    for (; *order != END; order++) {
        matrix m = shape_of(c, *order);
        for (size_t i = 0; i < m.copies; i++) {
            if (*order != UNUSED)
                PB_TRY(add(t, *order, i, &m, in));
            in += elements(&m) * sizeof(float);
        }
    }
    return PB_OK;
}

pb_err pb_llama2c_open(pb_tensors **out, pb_config *cfg, const char *path)
{
    pb_err err = PB_OK;
    pb_tensors *t = NULL;
    const part *order = NULL;
    size_t header = 0;
    *out = NULL;
    PB_TRY(pb_tensors_new(&t, path));
    const pb_file *f = pb_tensors_file(t);
    PB_GO(read_header(cfg, f, &order, &header));
    size_t expected = expected_size(cfg, order, header);
    if (f->size != expected)
        PB_GO(pb_fail(PB_INPUT,
                      f->size < expected ? "the file may be truncated"
                                         : "is this a llama2.c checkpoint?",
                      "it has %zu bytes, but its header asks for %zu", f->size, expected));
    PB_GO(read_tensors(t, cfg, order, f->data + header));
done:
    if (err) {
        pb_tensors_close(t);
        return pb_context(err, "%.300s", path);
    }
    *out = t;
    return PB_OK;
}

static const char *odd_for_llama2c(const pb_config *c)
{
    if (c->family != PB_LLAMA && c->family != PB_MISTRAL)
        return "the family";
    if (c->qkv_bias || c->o_bias || c->mlp_bias)
        return "biases";
    if (c->qk_norm || c->post_norms || c->norm_offset || c->embed_scaled)
        return "the norms";
    if (c->attn_cap != 0 || c->final_cap != 0 || c->score_scalar != 0 || c->window)
        return "attention";
    if (c->gate != PB_GATE_SILU)
        return "the activation";
    if (c->rope.kind != PB_ROPE_PLAIN || c->rope_theta != 10000)
        return "rope_theta or rope_scaling";
    if (c->norm_eps != 1e-5)
        return "rms_norm_eps";
    if (c->head_dim * c->heads != c->width)
        return "head_dim";
    return NULL;
}

static pb_err write_matrix(FILE *f, const pb_tensor *x, const matrix *m, const char *path)
{
    size_t cols = m->cols ? m->cols : 1, D = m->turned_heads ? m->rows / m->turned_heads : 0;
    pb_err err = PB_OK;
    real *in = malloc(cols * sizeof *in);
    float *out = malloc(cols * sizeof *out);
    if (!in || !out)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a row of %zu values", cols));
    for (size_t r = 0; r < m->rows; r++) {
        size_t i = D ? r % D : 0, from = D ? r - i + i / 2 + i % 2 * (D / 2) : r;
        pb_tensor_read(x, from * cols, cols, in);
        for (size_t k = 0; k < cols; k++)
            out[k] = (float)in[k];
        if (fwrite(out, sizeof *out, cols, f) != cols)
            PB_GO(pb_fail(PB_IO, "is the disk full?", "cannot write %s", path));
    }
done:
    free(in);
    free(out);
    return err;
}

pb_err pb_llama2c_write(const char *path, const pb_config *c, const pb_tensors *t)
{
    const char *odd = odd_for_llama2c(c);
    if (odd)
        return pb_fail(PB_UNSUPPORTED, "llama2.c knows plain LLaMA: theta 10000, eps 1e-5",
                       "%s of this model cannot be written to a llama2.c checkpoint", odd);
    pb_err err = PB_OK;
    pb_writer w = {0};
    char name[96];
    int32_t head[9] = {MAGIC,
                       1,
                       (int32_t)c->width,
                       (int32_t)c->ffn,
                       (int32_t)c->layers,
                       (int32_t)c->heads,
                       (int32_t)c->kv_heads,
                       (int32_t)c->vocab,
                       (int32_t)c->context};
    uint8_t header[HEADER_V1] = {0};
    memcpy(header, head, sizeof head);
    header[FLAG_V1] = c->tied;
    PB_GO(pb_writer_open(&w, path));
    if (fwrite(header, sizeof header, 1, w.stream) != 1)
        PB_GO(pb_fail(PB_IO, "is the disk full?", "cannot write %s", path));
    for (const part *p = order_v1; *p != END; p++) {
        matrix m = shape_of(c, *p);
        for (size_t i = 0; i < m.copies; i++) {
            const pb_tensor *x;
            tensor_name(name, *p, i, &m);
            PB_GO(pb_tensors_need(t, name, m.rows, m.cols, &x));
            PB_GO(write_matrix(w.stream, x, &m, path));
        }
    }
    err = pb_writer_commit(&w);
done:
    if (err)
        pb_writer_abandon(&w);
    return err;
}
