// MiLoRA: the LoRA modules of a layer, one per linear, are experts; a router per layer looks at the
// prompt once and gives each a gate, which lives with the KV cache:
//
//   g = softmax of the `top` largest of W_r act(pool(h_1 .. h_P)), others 0,   y_t += g_t s B_t A_t
//   x,
//
// h being the prompt's hidden states at the layer's input, behind its RMSNorm. A layer with a
// single expert has no router.
//
// Source: Zhang et al. 2024, arXiv 2410.18035: LoRA modules as experts, routed once per prompt by a
// pooler, and the rational activation with its bi-level optimisation (see pedro.c). What we could
// not read there is ours: the softmax over the chosen experts alone, `top`, the pooler, the place
// of the activation; and no loss that balances the experts' load is added.
#include "methods/lora.h"
#include "methods/rational.h"

#include <math.h>

struct milora {
    struct lora lora;
    long top, theta_every;
    double theta_lr;
    int pooler, activation, theta_data;
};

enum { ACT_RATIONAL = PB_IDENTITY + 1 };

static const char *const linears[] = {PB_LINEAR_NAMES};
static const char *const poolers[] = {"last", "mean", "max", "attention", NULL};
static const char *const acts[] = {"relu", "gelu", "silu", "tanh", "identity", "rational", NULL};
static const char *const sources[] = {"train", "valid", NULL};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct milora, lora.rank), "8", 1, 4096, NULL,
     "inner dimension r of every expert", true},
    {"alpha", PB_OPT_REAL, offsetof(struct milora, lora.alpha), "16", 0, 1e6, NULL,
     "scale: alpha / r", true},
    {"dropout", PB_OPT_REAL, offsetof(struct milora, lora.dropout), "0", 0, 0.95, NULL,
     "dropout on the input of A while training", true},
    {"targets", PB_OPT_SITES, offsetof(struct milora, lora.targets), "q,k,v,o,gate,up,down", 0, 0,
     linears, "linears with an expert, of all layers or of some: q,v@0-3", true},
    {"top", PB_OPT_INT, offsetof(struct milora, top), "4", 2, PB_N_LINEARS, NULL,
     "experts that a prompt uses, of each layer", false},
    {"pooler", PB_OPT_ENUM, offsetof(struct milora, pooler), "last", 0, 0, poolers,
     "how the prompt's states become one", false},
    {"activation", PB_OPT_ENUM, offsetof(struct milora, activation), "rational", 0, 0, acts,
     "activation of the router", false},
    {"theta_lr", PB_OPT_REAL, offsetof(struct milora, theta_lr), "1e-6", 0, 1, NULL,
     "learning rate of the rational activation's coefficients; 0 freezes them", true},
    {"theta_every", PB_OPT_INT, offsetof(struct milora, theta_every), "1", 1, 1000000, NULL,
     "training steps per step of the coefficients", true},
    {"theta_data", PB_OPT_ENUM, offsetof(struct milora, theta_data), "train", 0, 0, sources,
     "batches for the coefficients: a held-out part of train, or validation as published", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { ROUTER = PB_LORA_IDS, QUERY, RAT_A, RAT_B };

static pb_err prepare(void *options_, const pb_config *config)
{
    struct milora *o = options_;
    o->lora.ranks = o->lora.alphas = "";
    o->lora.lr_ratio = 1;
    return pb_lora_prepare(options_, config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct milora *o = options_;
    size_t C = config->width;
    PB_TRY(pb_lora_layout(l, options_, config));
    for (size_t i = 0; i < l->n; i++)
        l->spec[i].flags |= PB_CHOSEN;
    for (int i = 0; i < (int)config->layers; i++) {
        int experts = 0;
        for (int t = 0; t < PB_N_LINEARS; t++)
            experts += pb_site_listed(o->lora.targets, (size_t)i, (pb_linear_id)t, NULL);
        if (experts < 2)
            continue;
        pb_layout_add(l, i, ROUTER, "milora.router.weight", PB_N_LINEARS, C, PB_INIT_UNIFORM,
                      1 / sqrt((double)C), PB_CHOSEN);
        if (o->pooler == PB_POOL_ATTENTION)
            pb_layout_add(l, i, QUERY, "milora.pool.weight", 1, C, PB_INIT_NORMAL, 1, 0);
        if (o->activation == ACT_RATIONAL)
            pb_rational_layout(l, i, "milora", RAT_A, RAT_B, o->theta_lr);
    }
    return PB_OK;
}

static pb_err init(const pb_params *p, const pb_init_args *args)
{
    pb_rational_init(p, args->config, RAT_A, RAT_B);
    return PB_OK;
}

static size_t state(const void *options_, const pb_config *config)
{
    (void)options_, (void)config;
    return PB_N_LINEARS;
}

static void prompt(pb_ctx *c, const void *options_, pb_mat *gates, pb_mat *before, pb_mat *after)
{
    (void)before;
    const struct milora *o = options_;
    pb_mat *z = NULL;
    if (pb_most_rows(c, ROUTER)) {
        pb_mat *h = pb_pool(c, after, (pb_pooler)o->pooler, QUERY);
        if (o->activation == ACT_RATIONAL)
            h = pb_rational(c, h, RAT_A, RAT_B);
        else
            h = pb_activate(c, h, (pb_act)o->activation);
        z = pb_down(c, h, ROUTER);
    }
    pb_route(c, gates, z, PB_LORA_A, (size_t)o->top);
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct milora *o = options_;
    int t = (int)pb_site_linear(s);
    if (t == PB_N_LINEARS || !pb_most_rows(c, PB_LORA_A + t))
        return y;
    pb_mat *low = pb_down(c, pb_dropout(c, x, o->lora.dropout), PB_LORA_A + t);
    pb_up(c, y, pb_gated(c, low, pb_state(c), (size_t)t), PB_LORA_B + t);
    return y;
}

static bool bilevel(const void *options_, pb_bilevel *out)
{
    const struct milora *o = options_;
    *out = (pb_bilevel){o->theta_lr, (size_t)o->theta_every, o->theta_data == 1};
    return o->activation == ACT_RATIONAL && o->theta_lr > 0;
}

// PEFT knows no MiLoRA of this kind: the suite's own keys, LoRA's where they are the same.
static const pb_peft_key keys[] = {{"r", .option = "rank", .required = true},
                                   {"lora_alpha", .option = "alpha", .required = true},
                                   {"target_modules", .option = "targets", .required = true},
                                   {"top", .option = "top", .required = true},
                                   {"pooler", .option = "pooler", .required = true},
                                   {"activation", .option = "activation", .required = true},
                                   {0}};

PB_METHOD(milora) = {
    .name = "milora",
    .doc = "low-rank updates whose gates a router makes from the prompt",
    .citation = "Zhang et al. 2024, arXiv 2410.18035",
    .formula = "y_t += g_t s B_t A_t x;  g = softmax of the top of W_r act(pool(h_1 .. h_P)), once "
               "per prompt",
    .bibtex =
        PB_ARXIV("zhang2024milora",
                 "{MiLoRA}: Efficient Mixture of Low-Rank Adaptation for Large Language Models "
                 "Fine-tuning",
                 "Zhang, Jingfan and Zhao, Yi and Chen, Dan and Tian, Xing and Zheng, Huanran "
                 "and Zhu, Wei",
                 "2024", "2410.18035"),
    .peft_type = "MILORA",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct milora),
    .knob = "rank",
    .identity = true,
    .whole_prompt = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = prepare,
    .layout = layout,
    .init = init,
    .state = state,
    .prompt = prompt,
    .site = site,
    .bilevel = bilevel,
};
