// LoRA: y += s B A x, with A (r,in) and B (out,r), s = alpha / r, or alpha / sqrt(r) for rsLoRA.
// A starts uniform on +-1/sqrt(in) (Kaiming with a = sqrt(5), as the reference code does), B at
// zero.
//
// Sources: Hu et al., arXiv 2106.09685; rsLoRA: Kalajdzievski, arXiv 2312.03732.
#include "methods/method.h"

#include <math.h>
#include <stdio.h>

struct lora {
    long rank;
    double alpha, dropout, scale;
    bool rslora;
    unsigned targets;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct lora, rank), "8", 1, 4096, NULL, "inner dimension r",
     true},
    {"alpha", PB_OPT_REAL, offsetof(struct lora, alpha), "16", 0, 1e6, NULL,
     "scale: alpha / r, or alpha / sqrt(r) with rslora", true},
    {"rslora", PB_OPT_BOOL, offsetof(struct lora, rslora), "false", 0, 0, NULL,
     "rank-stabilised scale alpha / sqrt(r)", true},
    {"dropout", PB_OPT_REAL, offsetof(struct lora, dropout), "0", 0, 0.95, NULL,
     "dropout on the input of A while training", true},
    {"targets", PB_OPT_FLAGS, offsetof(struct lora, targets), "q,k,v,o,gate,up,down", 0, 0, linears,
     "linears to adapt", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { A_OF = 0, B_OF = PB_N_LINEARS };

static pb_err prepare(void *options_, const pb_config *config)
{
    (void)config;
    struct lora *o = options_;
    o->scale = o->alpha / (o->rslora ? sqrt((double)o->rank) : (double)o->rank);
    if (!o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "LoRA has no target");
    return PB_OK;
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct lora *o = options_;
    size_t r = (size_t)o->rank;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            if (!(o->targets >> t & 1))
                continue;
            size_t in = pb_linear_in(config, (pb_linear_id)t);
            size_t out = pb_linear_out(config, (pb_linear_id)t);
            char name[96];
            snprintf(name, sizeof name, "%s.lora_A.weight", pb_linear_path((pb_linear_id)t));
            pb_layout_add(l, i, A_OF + t, name, r, in, PB_INIT_UNIFORM, 1 / sqrt((double)in), 0);
            snprintf(name, sizeof name, "%s.lora_B.weight", pb_linear_path((pb_linear_id)t));
            pb_layout_add(l, i, B_OF + t, name, r, out, PB_INIT_ZERO, 0, PB_TRANSPOSED);
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct lora *o = options_;
    int t = (int)pb_site_linear(s);
    if (t < PB_N_LINEARS && pb_most_rows(c, A_OF + t))
        pb_low_rank(c, y, pb_dropout(c, x, o->dropout), A_OF + t, B_OF + t,
                    PB_EACH(struct lora, scale));
    return y;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    const struct lora *o = p->options;
    size_t r = 0;
    const real *A = pb_values(p, m->layer, A_OF + (int)m->linear, &r, NULL);
    const real *B = pb_values(p, m->layer, B_OF + (int)m->linear, NULL, NULL);
    for (size_t i = 0; A && i < m->out; i++)
        for (size_t j = 0; j < r; j++)
            for (size_t k = 0; k < m->in; k++)
                m->w[i * m->in + k] += (real)o->scale * B[j * m->out + i] * A[j * m->in + k];
    return PB_OK;
}

static void peft_config(const void *options_, const pb_config *config, json_t *out)
{
    (void)config;
    const struct lora *o = options_;
    json_t *targets = json_array();
    for (int t = 0; t < PB_N_LINEARS; t++)
        if (o->targets >> t & 1) {
            static const char *const suffix[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                 "gate_proj", "up_proj", "down_proj"};
            json_array_append_new(targets, json_string(suffix[t]));
        }
    json_object_set_new(out, "r", json_integer(o->rank));
    json_object_set_new(out, "lora_alpha", json_real(o->alpha));
    json_object_set_new(out, "lora_dropout", json_real(o->dropout));
    json_object_set_new(out, "use_rslora", json_boolean(o->rslora));
    json_object_set_new(out, "bias", json_string("none"));
    json_object_set_new(out, "fan_in_fan_out", json_false());
    json_object_set_new(out, "target_modules", targets);
}

PB_METHOD(lora) = {
    .name = "lora",
    .doc = "low-rank updates of linears",
    .citation = "Hu et al. 2021, arXiv 2106.09685",
    .peft_type = "LORA",
    .options = options,
    .options_size = sizeof(struct lora),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = prepare,
    .layout = layout,
    .site = site,
    .merge = merge,
    .peft_config = peft_config,
};
