// IA3: learned vectors scale keys, values and the input of the feed-forward's down projection:
// k * l_k, v * l_v, down(mid * l_mid); vectors start at ones. Any other linear's output can be
// scaled as well (of `down` its input, as published and as Hugging Face stores it).
//
// With rank = 0 (plain) the vector itself is trained. With rank = r > 0 it is re-parameterised,
// l = 1 + v W with v (1,r) and W (r,n), which gives the method a size knob; W starts at zero, v at
// random, and the form is folded to the plain one when saved and served.
//
// Sources: Liu et al. 2022 (T-Few), arXiv 2205.05638; the re-parameterised form as in the baselines
// of MiLoRA, arXiv 2410.18035.
#include "methods/method.h"

#include <stdio.h>
#include <string.h>

struct ia3 {
    long rank;
    unsigned targets;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct ia3, rank), "0", 0, 4096, NULL,
     "0: plain vectors; r: vectors made from r numbers by a learned matrix", false},
    {"targets", PB_OPT_FLAGS, offsetof(struct ia3, targets), "k,v,down", 0, 0, linears,
     "linears whose output is scaled (of down, its input)", true},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { L_OF = 0, V_OF = PB_N_LINEARS, W_OF = 2 * PB_N_LINEARS };

static size_t width(const pb_config *config, int t)
{
    return t == PB_LIN_DOWN ? config->ffn : pb_linear_out(config, (pb_linear_id)t);
}

static pb_err prepare(void *options_, const pb_config *config)
{
    (void)config;
    const struct ia3 *o = options_;
    return o->targets ? PB_OK : pb_fail(PB_USAGE, "e.g. targets=k,v,down", "IA3 has no target");
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct ia3 *o = options_;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            if (!(o->targets >> t & 1))
                continue;
            const char *path = pb_linear_path((pb_linear_id)t);
            unsigned way = t == PB_LIN_DOWN ? 0 : PB_TRANSPOSED; // files: (out,1), of down (1,in)
            char name[96];
            if (!o->rank) {
                snprintf(name, sizeof name, "%s.ia3_l", path);
                pb_layout_add(l, i, L_OF + t, name, 1, width(config, t), PB_INIT_ONE, 0,
                              way | PB_NO_DECAY);
                continue;
            }
            snprintf(name, sizeof name, "%s.ia3_v", path);
            pb_layout_add(l, i, V_OF + t, name, 1, (size_t)o->rank, PB_INIT_NORMAL, 1, 0);
            snprintf(name, sizeof name, "%s.ia3_W", path);
            pb_layout_add(l, i, W_OF + t, name, (size_t)o->rank, width(config, t), PB_INIT_ZERO, 0,
                          0);
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)x;
    const struct ia3 *o = options_;
    int t = s == PB_SITE_MID ? PB_LIN_DOWN : (int)pb_site_linear(s);
    if (t == PB_N_LINEARS || s == PB_SITE_DOWN)
        return y;
    if (!o->rank)
        return pb_scale_by(c, y, L_OF + t);
    if (!pb_most_cols(c, W_OF + t))
        return y;
    pb_mat *l = pb_zeros(c, y->cols);
    pb_up(c, l, pb_each(c, V_OF + t), W_OF + t);
    return pb_scale(c, y, l, 0, true, false);
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    if (((const struct ia3 *)p->options)->rank)
        return pb_fail(PB_UNSUPPORTED, "fold it first", "a re-parameterised IA3 cannot be merged");
    const real *l = pb_values(p, m->layer, L_OF + (int)m->linear, NULL, NULL);
    for (size_t i = 0; l && i < m->out; i++) {
        for (size_t k = 0; k < m->in; k++)
            m->w[i * m->in + k] *= m->linear == PB_LIN_DOWN ? l[k] : l[i];
        if (m->bias && m->linear != PB_LIN_DOWN)
            m->bias[i] *= l[i];
    }
    return PB_OK;
}

static bool fold(void *to)
{
    struct ia3 *o = to;
    bool folded = o->rank != 0;
    o->rank = 0;
    return folded;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t r = 0, n = 0;
            const real *W = pb_values(from, i, W_OF + t, &r, &n);
            const real *v = pb_values(from, i, V_OF + t, NULL, NULL);
            real *l = pb_values(to, i, L_OF + t, NULL, NULL);
            for (size_t k = 0; W && k < n; k++) {
                l[k] = 1;
                for (size_t j = 0; j < r; j++)
                    l[k] += v[j] * W[j * n + k];
            }
        }
}

static void peft_config(const void *options_, const pb_config *config, json_t *out)
{
    (void)config;
    const struct ia3 *o = options_;
    static const char *const suffix[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                         "gate_proj", "up_proj", "down_proj"};
    json_t *targets = json_array(), *ffn = json_array();
    for (int t = 0; t < PB_N_LINEARS; t++)
        if (o->targets >> t & 1)
            json_array_append_new(targets, json_string(suffix[t]));
    if (o->targets >> PB_LIN_DOWN & 1)
        json_array_append_new(ffn, json_string("down_proj"));
    json_object_set_new(out, "target_modules", targets);
    json_object_set_new(out, "feedforward_modules", ffn);
    json_object_set_new(out, "fan_in_fan_out", json_false());
}

PB_METHOD(ia3) = {
    .name = "ia3",
    .doc = "learned vectors scale keys, values and feed-forward activations",
    .citation = "Liu et al. 2022, arXiv 2205.05638",
    .peft_type = "IA3",
    .options = options,
    .options_size = sizeof(struct ia3),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .site = site,
    .merge = merge,
    .fold = fold,
    .fold_values = fold_values,
    .peft_config = peft_config,
};
