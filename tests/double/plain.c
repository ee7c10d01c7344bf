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

static void norm(double *y, const double *x, const double *w, double eps, size_t C)
{
    double square = 0;
    for (size_t i = 0; i < C; i++)
        square += x[i] * x[i];
    for (size_t i = 0; i < C; i++)
        y[i] = x[i] / sqrt(square / (double)C + eps) * w[i];
}

// Pairs (i, i + D/2) of every head turn by pos * theta^(-2i/D).
static void turn(double *x, size_t heads, size_t D, size_t pos, double theta)
{
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < D / 2; i++) {
            double angle = (double)pos / pow(theta, 2.0 * (double)i / (double)D);
            double *a = x + h * D + i, *b = a + D / 2, u = *a, v = *b;
            *a = u * cos(angle) - v * sin(angle);
            *b = u * sin(angle) + v * cos(angle);
        }
}

enum { T = 80, W = 64 }; // longest sequence; widest vector

// out (n,V)
static void forward(const pb_model *m, const int32_t *tokens, size_t n, double *out)
{
    const pb_config *g = &m->config;
    size_t C = g->width, F = g->ffn, H = g->heads, G = g->kv_heads, D = g->head_dim;
    static double x[T][W], q[T][W], k[T][W], v[T][W];
    double y[W], z[W], gate[W], up[W], p[T];
    const double *embed = weight(m, -1, "model.embed_tokens.weight");
    for (size_t t = 0; t < n; t++)
        memcpy(x[t], embed + (size_t)tokens[t] * C, C * sizeof(double));
    for (int l = 0; l < (int)g->layers; l++) {
        for (size_t t = 0; t < n; t++) {
            norm(y, x[t], weight(m, l, "input_layernorm.weight"), g->norm_eps, C);
            affine(q[t], weight(m, l, "self_attn.q_proj.weight"),
                   weight(m, l, "self_attn.q_proj.bias"), y, H * D, C);
            affine(k[t], weight(m, l, "self_attn.k_proj.weight"),
                   weight(m, l, "self_attn.k_proj.bias"), y, G * D, C);
            affine(v[t], weight(m, l, "self_attn.v_proj.weight"),
                   weight(m, l, "self_attn.v_proj.bias"), y, G * D, C);
            turn(q[t], H, D, t, g->rope_theta);
            turn(k[t], G, D, t, g->rope_theta);
        }
        for (size_t t = 0; t < n; t++) {
            for (size_t h = 0; h < H; h++) {
                size_t kv = h / (H / G) * D;
                double sum = 0;
                for (size_t s = 0; s <= t; s++) {
                    double dot = 0;
                    for (size_t d = 0; d < D; d++)
                        dot += q[t][h * D + d] * k[s][kv + d];
                    sum += p[s] = exp(dot / sqrt((double)D));
                }
                for (size_t d = 0; d < D; d++) {
                    z[h * D + d] = 0;
                    for (size_t s = 0; s <= t; s++)
                        z[h * D + d] += p[s] / sum * v[s][kv + d];
                }
            }
            affine(y, weight(m, l, "self_attn.o_proj.weight"), NULL, z, C, H * D);
            for (size_t i = 0; i < C; i++)
                x[t][i] += y[i];
            norm(y, x[t], weight(m, l, "post_attention_layernorm.weight"), g->norm_eps, C);
            affine(gate, weight(m, l, "mlp.gate_proj.weight"), NULL, y, F, C);
            affine(up, weight(m, l, "mlp.up_proj.weight"), NULL, y, F, C);
            for (size_t i = 0; i < F; i++) {
                double a = gate[i], c = sqrt(2 / 3.14159265358979323846);
                gate[i] = up[i] * (g->gate == PB_GATE_SILU
                                       ? a / (1 + exp(-a))
                                       : 0.5 * a * (1 + tanh(c * (a + 0.044715 * a * a * a))));
            }
            affine(y, weight(m, l, "mlp.down_proj.weight"), NULL, gate, C, F);
            for (size_t i = 0; i < C; i++)
                x[t][i] += y[i];
        }
    }
    const double *head = weight(m, -1, "lm_head.weight");
    for (size_t t = 0; t < n; t++) {
        norm(y, x[t], weight(m, -1, "model.norm.weight"), g->norm_eps, C);
        affine(out + t * g->vocab, head ? head : embed, NULL, y, g->vocab, C);
    }
}

static void agrees(void **state)
{
    static const size_t lengths[] = {1, 31, T, 2};
    (void)state;
    for (size_t i = 0; i < N_TINIES; i++) {
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
                    fail_msg("%s: row %zu token %zu: %.15g, not %.15g", tinies[i].name, k / V,
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
