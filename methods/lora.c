// LoRA: y += s B A x, with A (r,in) and B (out,r), s = alpha / r, or alpha / sqrt(r) for rsLoRA.
// A starts uniform on +-1/sqrt(in) (Kaiming with a = sqrt(5), as the reference code does), B at
// zero. Rank and alpha may differ from linear to linear and layer to layer.
//
// Sources: Hu et al., arXiv 2106.09685; rsLoRA: Kalajdzievski, arXiv 2312.03732.
#include "methods/method.h"

#include <math.h>
#include <stdio.h>

struct lora {
    long rank;
    double alpha, dropout;
    bool rslora;
    const char *targets, *ranks, *alphas;
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
    {"targets", PB_OPT_SITES, offsetof(struct lora, targets), "q,k,v,o,gate,up,down", 0, 0, linears,
     "linears to adapt, of all layers or of some: q,v@0-3", true},
    {"ranks", PB_OPT_SITE_VALUES, offsetof(struct lora, ranks), "", 1, 4096, linears,
     "targets whose rank is another: q:4,down@0-3:16", true},
    {"alphas", PB_OPT_SITE_VALUES, offsetof(struct lora, alphas), "", 0, 1e6, linears,
     "targets whose alpha is another", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { A_OF = 0, B_OF = PB_N_LINEARS };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct lora *o = options_;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "LoRA has no target");
    PB_TRY(pb_sites_fit(o->targets, config));
    PB_TRY(pb_sites_fit(o->ranks, config));
    return pb_sites_fit(o->alphas, config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct lora *o = options_;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            double rank = (double)o->rank, alpha = o->alpha;
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            pb_site_listed(o->ranks, (size_t)i, id, &rank);
            pb_site_listed(o->alphas, (size_t)i, id, &alpha);
            if (rank != rint(rank))
                return pb_fail(PB_USAGE, NULL, "LoRA: %g in ranks=%.200s is no whole number", rank,
                               o->ranks);
            size_t in = pb_linear_in(config, id), out = pb_linear_out(config, id);
            char name[96];
            snprintf(name, sizeof name, "%s.lora_A.weight", pb_linear_path(id));
            pb_layout_add(l, i, A_OF + t, name, (size_t)rank, in, PB_INIT_UNIFORM,
                          1 / sqrt((double)in), 0);
            snprintf(name, sizeof name, "%s.lora_B.weight", pb_linear_path(id));
            pb_spec *B = pb_layout_add(l, i, B_OF + t, name, (size_t)rank, out, PB_INIT_ZERO, 0,
                                       PB_TRANSPOSED);
            if (!B)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of LoRA");
            B->scale = alpha / (o->rslora ? sqrt(rank) : rank);
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct lora *o = options_;
    int t = (int)pb_site_linear(s);
    if (t < PB_N_LINEARS && pb_most_rows(c, A_OF + t))
        pb_low_rank(c, y, pb_dropout(c, x, o->dropout), A_OF + t, B_OF + t);
    return y;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    const pb_spec *A = pb_layout_find(p->layout, m->layer, A_OF + (int)m->linear);
    const pb_spec *B = pb_layout_find(p->layout, m->layer, B_OF + (int)m->linear);
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

static const pb_peft_key keys[] = {
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
    {"use_dora", .only = "[null, false]"},
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
    .peft_keys = keys,
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
};
