// LoRA: y += s B A x, with A (r,in) and B (out,r), s = alpha / r, or alpha / sqrt(r) for rsLoRA.
// A starts uniform on +-1/sqrt(in) (Kaiming with a = sqrt(5), as the reference code does), B at
// zero. Rank and alpha may differ from linear to linear and layer to layer.
//
// Sources: Hu et al., arXiv 2106.09685; rsLoRA: Kalajdzievski, arXiv 2312.03732.
#include "methods/lora.h"

#include <math.h>
#include <stdio.h>

static const char *const linears[] = {PB_LINEAR_NAMES};

const pb_option pb_lora_options[] = {
    {"rank", PB_OPT_INT, offsetof(struct lora, rank), "8", 1, 4096, NULL, "inner dimension r",
     true},
    {"alpha", PB_OPT_REAL, offsetof(struct lora, alpha), "16", 0, 1e6, NULL,
     "scale: alpha / r, or alpha / sqrt(r) with rslora", true},
    {"rslora", PB_OPT_BOOL, offsetof(struct lora, rslora), "false", 0, 0, NULL,
     "rank-stabilised scale alpha / sqrt(r)", true},
    {"dropout", PB_OPT_REAL, offsetof(struct lora, dropout), "0", 0, 0.95, NULL,
     "dropout on the input of A while training", true},
    {"targets", PB_OPT_SITES, offsetof(struct lora, targets), "q,k,v,o,gate,up,down", 0, 0, linears,
     "linears to adapt, of all layers or of some: q,v@0-3", true},
    {"ranks", PB_OPT_SITE_VALUES, offsetof(struct lora, ranks), "", 1, 4096, linears,
     "targets whose rank is another: q:4,down@0-3:16", true},
    {"alphas", PB_OPT_SITE_VALUES, offsetof(struct lora, alphas), "", 0, 1e6, linears,
     "targets whose alpha is another", true},
    {"lr_ratio", PB_OPT_REAL, offsetof(struct lora, lr_ratio), "1", 1e-3, 1e3, NULL,
     "learning rate of B relative to that of A", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

pb_err pb_lora_prepare(void *options, const pb_config *config)
{
    const struct lora *o = options;
    double rank;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "LoRA has no target");
    PB_TRY(pb_sites_fit(o->targets, config));
    PB_TRY(pb_sites_fit(o->ranks, config));
    PB_TRY(pb_sites_fit(o->alphas, config));
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++)
            if (pb_site_listed(o->ranks, i, (pb_linear_id)t, &rank) && rank != rint(rank))
                return pb_fail(PB_USAGE, NULL, "LoRA: %g in ranks=%.200s is no whole number", rank,
                               o->ranks);
    return PB_OK;
}

bool pb_lora_at(const struct lora *o, size_t layer, int linear, size_t *rank, double *scale)
{
    pb_linear_id id = (pb_linear_id)linear;
    double r = (double)o->rank, alpha = o->alpha;
    if (!pb_site_listed(o->targets, layer, id, NULL))
        return false;
    pb_site_listed(o->ranks, layer, id, &r);
    pb_site_listed(o->alphas, layer, id, &alpha);
    *rank = (size_t)r;
    *scale = alpha / (o->rslora ? sqrt(r) : r);
    return true;
}

pb_err pb_lora_layout(pb_layout *l, const void *options, const pb_config *config)
{
    const struct lora *o = options;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t rank, in = pb_linear_in(config, (pb_linear_id)t);
            double scale;
            char name[96];
            const char *path = pb_linear_path((pb_linear_id)t);
            if (!pb_lora_at(o, (size_t)i, t, &rank, &scale))
                continue;
            snprintf(name, sizeof name, "%s.lora_A.weight", path);
            pb_layout_add(l, i, PB_LORA_A + t, name, rank, in, PB_INIT_UNIFORM,
                          1 / sqrt((double)in), 0);
            snprintf(name, sizeof name, "%s.lora_B.weight", path);
            pb_spec *B = pb_layout_add(l, i, PB_LORA_B + t, name, rank,
                                       pb_linear_out(config, (pb_linear_id)t), PB_INIT_ZERO, 0,
                                       PB_TRANSPOSED);
            if (!B)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of LoRA");
            B->scale = scale;
            B->lr_scale = o->lr_ratio;
        }
    return PB_OK;
}

pb_mat *pb_lora_site(pb_ctx *c, const void *options, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct lora *o = options;
    int t = (int)pb_site_linear(s);
    if (t < PB_N_LINEARS && pb_most_rows(c, PB_LORA_A + t))
        pb_low_rank(c, y, pb_dropout(c, x, o->dropout), PB_LORA_A + t, PB_LORA_B + t);
    return y;
}

pb_err pb_lora_merge(const pb_params *p, const pb_merge_args *m)
{
    const pb_spec *A = pb_layout_find(p->layout, m->layer, PB_LORA_A + (int)m->linear);
    const pb_spec *B = pb_layout_find(p->layout, m->layer, PB_LORA_B + (int)m->linear);
    if (!A)
        return PB_OK;
    const real *a = p->v + A->offset, *b = p->v + B->offset;
#pragma omp parallel for
    for (size_t i = 0; i < m->out; i++)
        for (size_t j = 0; j < A->rows; j++) {
            real s = (real)B->scale * b[j * m->out + i];
            for (size_t k = 0; k < m->in; k++)
                m->w[i * m->in + k] += s * a[j * m->in + k];
        }
    return PB_OK;
}

const pb_peft_key pb_lora_keys[] = {
    {"r", .option = "rank", .required = true},
    {"lora_alpha", .option = "alpha", .required = true},
    {"lora_dropout", .option = "dropout"},
    {"use_rslora", .option = "rslora"},
    {"target_modules", .option = "targets", .required = true},
    {"exclude_modules", .selects = true},
    {"layers_to_transform", .selects = true},
    {"layers_pattern", .selects = true},
    {"rank_pattern", .option = "ranks"},
    {"alpha_pattern", .option = "alphas"},
    {"bias", .only = "[\"none\"]"},
    {"fan_in_fan_out", .only = "[false]"},
    // These initialisers leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change it.
    {"init_lora_weights", .only = "[true, false, \"gaussian\", \"eva\", \"orthogonal\"]"},
    {"use_dora", .only = "[null, false, true]"}, // true: dora.c
    {"use_qalora", .only = "[null, false]"},
    {"use_bdlora", .only = "[null, false]"},
    {"lora_bias", .only = "[null, false]"},
    {"loftq_config", .only = "[null, {}]"},
    {"layer_replication", .only = "[null, []]"},
    {"trainable_token_indices", .only = "[null, [], {}]"},
    {"target_parameters", .only = "[null, []]"},
    {"alora_invocation_tokens", .only = "[null]"},
    {"arrow_config", .only = "[null]"},
    {"megatron_config", .only = "[null]"},
    {"megatron_core", .idle = true},
    {"eva_config", .idle = true},
    {"corda_config", .idle = true},
    {"lora_ga_config", .idle = true},
    {"qalora_group_size", .idle = true},
    {"ensure_weight_tying", .idle = true},
    {"runtime_config", .idle = true},
    {0}};

PB_METHOD(lora) = {
    .name = "lora",
    .doc = "low-rank updates of linears",
    .citation = "Hu et al. 2021, arXiv 2106.09685",
    .formula = "y += s B A x;  A (r,in), B (out,r), s = alpha / r",
    .bibtex = PB_ARXIV("hu2021lora", "{LoRA}: Low-Rank Adaptation of Large Language Models",
                       "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan "
                       "and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu",
                       "2021", "2106.09685"),
    .peft_type = "LORA",
    .peft_keys = pb_lora_keys,
    .options = pb_lora_options,
    .options_size = sizeof(struct lora),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = pb_lora_prepare,
    .layout = pb_lora_layout,
    .site = pb_lora_site,
    .merge = pb_lora_merge,
};
