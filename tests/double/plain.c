// A second forward pass: plain loops over the weights as files hold them, one sequence at a time,
// no panels, no segments, no cache, written from the formulas. The harness must agree with it.
#include "core/threads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tiny.h"

static const double *weight(const pb_model *m, int layer, const char *name)
{
    for (size_t i = 0; i < m->layout.n; i++)
        if (m->layout.spec[i].layer == layer && !strcmp(m->layout.spec[i].name, name))
            return m->params.v + m->layout.spec[i].offset;
    return NULL;
}

// y(out) = W(out,in) x + b
static void affine(double *y, const double *W, const double *b, const double *x, size_t out,
                   size_t in)
{
    for (size_t i = 0; i < out; i++) {
        y[i] = b ? b[i] : 0;
        for (size_t k = 0; k < in; k++)
            y[i] += W[i * in + k] * x[k];
    }
}

static void norm(double *y, const double *x, const double *w, const pb_config *g, size_t n)
{
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(square / (double)n + g->norm_eps) * (w[i] + (g->norm_offset ? 1 : 0));
}

// What a pair turns by at each position: theta^(-2i/D), slower where the context is stretched.
static double speed(const pb_config *g, size_t i)
{
    double f = 1 / pow(g->rope_theta, 2.0 * (double)i / (double)g->head_dim);
    if (g->rope.kind == PB_ROPE_LINEAR)
        return f / g->rope.factor;
    if (g->rope.kind == PB_ROPE_PLAIN)
        return f;
    double length = 2 * 3.14159265358979323846 / f, original = (double)g->rope.original;
    if (length < original / g->rope.high)
        return f;
    if (length > original / g->rope.low)
        return f / g->rope.factor;
    double smooth = (original / length - g->rope.low) / (g->rope.high - g->rope.low);
    return (1 - smooth) * f / g->rope.factor + smooth * f;
}

// Pairs (i, i + D/2) of every head turn.
static void turn(double *x, size_t heads, const pb_config *g, size_t pos)
{
    size_t D = g->head_dim;
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < D / 2; i++) {
            double angle = (double)pos * speed(g, i);
            double *a = x + h * D + i, *b = a + D / 2, u = *a, v = *b;
            *a = u * cos(angle) - v * sin(angle);
            *b = u * sin(angle) + v * cos(angle);
        }
}

// The q or k norm of a layer over every head, if there is one.
static void norm_heads(double *x, const double *w, const pb_config *g, size_t heads)
{
    for (size_t h = 0; w && h < heads; h++)
        norm(x + h * g->head_dim, x + h * g->head_dim, w, g, g->head_dim);
}

static double gate_of(const pb_config *g, double a)
{
    double c = sqrt(2 / 3.14159265358979323846);
    return g->gate == PB_GATE_SILU   ? a / (1 + exp(-a))
           : g->gate == PB_GATE_GELU ? 0.5 * a * (1 + erf(a / sqrt(2)))
                                     : 0.5 * a * (1 + tanh(c * (a + 0.044715 * a * a * a)));
}

enum { T = 80, W = 72 }; // longest sequence; widest vector

// out (n,V)
static void forward(const pb_model *m, const int32_t *tokens, size_t n, double *out)
{
    const pb_config *g = &m->config;
    size_t C = g->width, F = g->ffn, H = g->heads, G = g->kv_heads, D = g->head_dim;
    static double x[T][W], q[T][W], k[T][W], v[T][W];
    double y[W], z[W], gate[W], up[W], p[T];
    const double *embed = weight(m, -1, "model.embed_tokens.weight");
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < C; i++)
            x[t][i] = embed[(size_t)tokens[t] * C + i] * (g->embed_scaled ? sqrt((double)C) : 1);
    for (int l = 0; l < (int)g->layers; l++) {
        for (size_t t = 0; t < n; t++) {
            norm(y, x[t], weight(m, l, "input_layernorm.weight"), g, C);
            affine(q[t], weight(m, l, "self_attn.q_proj.weight"),
                   weight(m, l, "self_attn.q_proj.bias"), y, H * D, C);
            affine(k[t], weight(m, l, "self_attn.k_proj.weight"),
                   weight(m, l, "self_attn.k_proj.bias"), y, G * D, C);
            affine(v[t], weight(m, l, "self_attn.v_proj.weight"),
                   weight(m, l, "self_attn.v_proj.bias"), y, G * D, C);
            norm_heads(q[t], weight(m, l, "self_attn.q_norm.weight"), g, H);
            norm_heads(k[t], weight(m, l, "self_attn.k_norm.weight"), g, G);
            turn(q[t], H, g, t);
            turn(k[t], G, g, t);
        }
        for (size_t t = 0; t < n; t++) {
            for (size_t h = 0; h < H; h++) {
                size_t kv = h / (H / G) * D, window = pb_config_window(g, (size_t)l);
                double sum = 0;
                for (size_t s = 0; s <= t; s++) {
                    double dot = 0;
                    for (size_t d = 0; d < D; d++)
                        dot += q[t][h * D + d] * k[s][kv + d];
                    dot /= sqrt(g->score_scalar > 0 ? g->score_scalar : (double)D);
                    dot = g->attn_cap > 0 ? g->attn_cap * tanh(dot / g->attn_cap) : dot;
                    sum += p[s] = window && t - s >= window ? 0 : exp(dot);
                }
                for (size_t d = 0; d < D; d++) {
                    z[h * D + d] = 0;
                    for (size_t s = 0; s <= t; s++)
                        z[h * D + d] += p[s] / sum * v[s][kv + d];
                }
            }
            affine(y, weight(m, l, "self_attn.o_proj.weight"),
                   weight(m, l, "self_attn.o_proj.bias"), z, C, H * D);
            if (g->post_norms)
                norm(y, y, weight(m, l, "post_attention_layernorm.weight"), g, C);
            for (size_t i = 0; i < C; i++)
                x[t][i] += y[i];
            norm(y, x[t],
                 weight(m, l,
                        g->post_norms ? "pre_feedforward_layernorm.weight"
                                      : "post_attention_layernorm.weight"),
                 g, C);
            affine(gate, weight(m, l, "mlp.gate_proj.weight"), weight(m, l, "mlp.gate_proj.bias"),
                   y, F, C);
            affine(up, weight(m, l, "mlp.up_proj.weight"), weight(m, l, "mlp.up_proj.bias"), y, F,
                   C);
            for (size_t i = 0; i < F; i++)
                gate[i] = up[i] * gate_of(g, gate[i]);
            affine(y, weight(m, l, "mlp.down_proj.weight"), weight(m, l, "mlp.down_proj.bias"),
                   gate, C, F);
            if (g->post_norms)
                norm(y, y, weight(m, l, "post_feedforward_layernorm.weight"), g, C);
            for (size_t i = 0; i < C; i++)
                x[t][i] += y[i];
        }
    }
    const double *head = weight(m, -1, "lm_head.weight");
    for (size_t t = 0; t < n; t++) {
        double *logits = out + t * g->vocab;
        norm(y, x[t], weight(m, -1, "model.norm.weight"), g, C);
        affine(logits, head ? head : embed, NULL, y, g->vocab, C);
        for (size_t i = 0; g->final_cap > 0 && i < g->vocab; i++)
            logits[i] = g->final_cap * tanh(logits[i] / g->final_cap);
    }
}

static void agrees(void **state)
{
    static const size_t lengths[] = {1, 31, T, 2};
    (void)state;
    for (size_t i = 0; i < PB_N_TINIES; i++) {
        pb_model *m = tiny_open(i, &(pb_model_args){.trainable = true});
        pb_model *frozen = tiny_open(i, &(pb_model_args){0});
        size_t V = m->config.vocab, rows = 0;
        double *want = malloc(4 * T * V * sizeof *want);
        int32_t tokens[4 * T];
        pb_segment seg[4];
        pb_rng r = pb_rng_make(1, PB_STREAM_TEST, (uint32_t)i);
        for (size_t s = 0; s < 4; s++) {
            seg[s] = (pb_segment){
                .row0 = rows, .n_rows = lengths[s], .n_prompt = 1, .tenant = -1, .slot = -1};
            for (size_t t = 0; t < lengths[s]; t++)
                tokens[rows + t] = (int32_t)pb_rng_below(&r, V);
            forward(m, tokens + rows, lengths[s], want + rows * V);
            rows += lengths[s];
        }
        for (int way = 0; way < 2; way++) {
            pb_step *st;
            OK(pb_step_new(&st, way ? frozen : m, NULL, 0,
                           &(pb_step_limits){.rows = rows, .segments = 4}));
            double *got = logits_of(st, way ? frozen : m, &(pb_batch){rows, 4, tokens, seg}, false);
            for (size_t k = 0; k < rows * V; k++)
                if (!(fabs(got[k] - want[k]) <= 1e-10 * (1 + fabs(want[k]))))
                    fail_msg("%s: row %zu token %zu: %.15g, not %.15g", pb_tinies[i].name, k / V,
                             k % V, got[k], want[k]);
            free(got);
            pb_step_free(st);
        }
        free(want);
        pb_model_close(m);
        pb_model_close(frozen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees)};
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove) ? 1 : 0;
}
