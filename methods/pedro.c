// PEDRO: in every layer a small generator turns the prompt into vectors that scale activations:
//
//   [l_1 .. l_T] = 1 + W_up act(W_down pool(h_1 .. h_P)),   y_t <- l_t * y_t  for each target t,
//
// where h are the hidden states of the prompt at the layer's input and the targets are by default
// the query, the value and the feed-forward's up projection. The vectors are made once per sequence
// and live with its KV cache. No biases, nothing shared across layers: r (C + sum of the targets'
// widths) parameters per layer.
//
// Source: Xie et al. 2024, arXiv 2409.17834. What no source settles is an option; the defaults are
// ours: W_up = 0, so the backbone is untouched at step 0; l_q before the rotation; the pooled state
// after the layer's RMSNorm (bounded scale); prompt rows scaled too.
//
// The rational activation R(x) = sum_j a_j x^j / (1 + |sum_i b_i x^i|), degrees 6 and 5, is one per
// layer and starts as a fit of GELU; its coefficients Theta are updated in alternation with the
// rest (first-order bi-level optimisation), learning rate 1e-6. Source: MiLoRA, arXiv 2410.18035.
#include "methods/rational.h"

#include <math.h>

struct pedro {
    long r, theta_every;
    double up_std, theta_lr;
    unsigned targets;
    int pooler, activation, pool_site, rope, theta_data;
    bool prompt_scaled;
    size_t width, col[PB_N_LINEARS]; // derived: of the generator's output, and each target's part
};

enum { ACT_RATIONAL = PB_IDENTITY + 1 };

static const char *const linears[] = {PB_LINEAR_NAMES};
static const char *const poolers[] = {"last", "mean", "max", "attention", NULL};
static const char *const acts[] = {"relu", "gelu", "silu", "tanh", "identity", "rational", NULL};
static const char *const order[] = {"before", "after", NULL};
static const char *const sources[] = {"train", "valid", NULL};

static const pb_option options[] = {
    {"r", PB_OPT_INT, offsetof(struct pedro, r), "8", 1, 4096, NULL, "bottleneck of the generator",
     true},
    {"targets", PB_OPT_FLAGS, offsetof(struct pedro, targets), "q,v,up", 0, 0, linears,
     "linears whose output is scaled", false},
    {"pooler", PB_OPT_ENUM, offsetof(struct pedro, pooler), "last", 0, 0, poolers,
     "how the prompt's states become one", false},
    {"activation", PB_OPT_ENUM, offsetof(struct pedro, activation), "rational", 0, 0, acts,
     "activation of the generator", false},
    {"pool_site", PB_OPT_ENUM, offsetof(struct pedro, pool_site), "after", 0, 0, order,
     "pooled states: before or after the layer's RMSNorm", false},
    {"rope", PB_OPT_ENUM, offsetof(struct pedro, rope), "before", 0, 0, order,
     "queries and keys are scaled before or after the rotation", false},
    {"prompt_scaled", PB_OPT_BOOL, offsetof(struct pedro, prompt_scaled), "true", 0, 0, NULL,
     "scale the prompt's own positions too", false},
    {"up_std", PB_OPT_REAL, offsetof(struct pedro, up_std), "0", 0, 10, NULL,
     "standard deviation of W_up at the start; 0 leaves the backbone untouched", true},
    {"theta_lr", PB_OPT_REAL, offsetof(struct pedro, theta_lr), "1e-6", 0, 1, NULL,
     "learning rate of the rational activation's coefficients; 0 freezes them", true},
    {"theta_every", PB_OPT_INT, offsetof(struct pedro, theta_every), "1", 1, 1000000, NULL,
     "training steps per step of the coefficients", true},
    {"theta_data", PB_OPT_ENUM, offsetof(struct pedro, theta_data), "train", 0, 0, sources,
     "batches for the coefficients: a held-out part of train, or validation as published", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { DOWN, UP, QUERY, RAT_A, RAT_B };

static pb_err prepare(void *options_, const pb_config *config)
{
    struct pedro *o = options_;
    o->width = 0;
    for (int t = 0; t < PB_N_LINEARS; t++) {
        o->col[t] = o->width;
        if (o->targets >> t & 1)
            o->width += pb_linear_out(config, (pb_linear_id)t);
    }
    return o->width ? PB_OK : pb_fail(PB_USAGE, "e.g. targets=q,v,up", "PEDRO has no target");
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct pedro *o = options_;
    size_t r = (size_t)o->r, C = config->width;
    for (int i = 0; i < (int)config->layers; i++) {
        pb_layout_add(l, i, DOWN, "pedro.down.weight", r, C, PB_INIT_UNIFORM, 1 / sqrt((double)C),
                      0);
        pb_layout_add(l, i, UP, "pedro.up.weight", r, o->width,
                      o->up_std > 0 ? PB_INIT_NORMAL : PB_INIT_ZERO, o->up_std, PB_TRANSPOSED);
        if (o->pooler == PB_POOL_ATTENTION)
            pb_layout_add(l, i, QUERY, "pedro.pool.weight", 1, C, PB_INIT_NORMAL, 1, 0);
        if (o->activation == ACT_RATIONAL)
            pb_rational_layout(l, i, "pedro", RAT_A, RAT_B, o->theta_lr);
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
    (void)config;
    return ((const struct pedro *)options_)->width;
}

static void prompt(pb_ctx *c, const void *options_, pb_mat *vectors, pb_mat *before, pb_mat *after)
{
    const struct pedro *o = options_;
    pb_mat *h = pb_pool(c, o->pool_site ? after : before, (pb_pooler)o->pooler, QUERY);
    pb_mat *t = pb_down(c, h, DOWN);
    if (o->activation == ACT_RATIONAL)
        t = pb_rational(c, t, RAT_A, RAT_B);
    else
        t = pb_activate(c, t, (pb_act)o->activation);
    pb_up(c, vectors, t, UP);
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)x;
    const struct pedro *o = options_;
    if (o->rope && (s == PB_SITE_Q || s == PB_SITE_K))
        return y;
    if (s == PB_SITE_Q_ROT || s == PB_SITE_K_ROT) {
        if (!o->rope)
            return y;
        s = s == PB_SITE_Q_ROT ? PB_SITE_Q : PB_SITE_K;
    }
    int t = (int)pb_site_linear(s);
    if (t == PB_N_LINEARS || !(o->targets >> t & 1))
        return y;
    return pb_scale(c, y, pb_state(c), o->col[t], true, !o->prompt_scaled);
}

static bool bilevel(const void *options_, pb_bilevel *out)
{
    const struct pedro *o = options_;
    *out = (pb_bilevel){o->theta_lr, (size_t)o->theta_every, o->theta_data == 1};
    return o->activation == ACT_RATIONAL && o->theta_lr > 0;
}

// PEFT knows no PEDRO: these keys are the suite's own choice, and readable.
static const pb_peft_key keys[] = {{"r", .option = "r", .required = true},
                                   {"targets", .option = "targets", .required = true},
                                   {"pooler", .option = "pooler", .required = true},
                                   {"activation", .option = "activation", .required = true},
                                   {"pool_site", .option = "pool_site", .required = true},
                                   {"rope", .option = "rope", .required = true},
                                   {"prompt_scaled", .option = "prompt_scaled", .required = true},
                                   {0}};

PB_METHOD(pedro) = {
    .name = "pedro",
    .doc = "vectors generated from the prompt scale query, value and feed-forward activations",
    .citation = "Xie et al. 2024, arXiv 2409.17834",
    .formula = "[l_q, l_v, l_u] = 1 + W_up act(W_down pool(h_1 .. h_P)),  once per prompt\n"
               "q *= l_q,  v *= l_v,  up *= l_u",
    .bibtex = PB_ARXIV("xie2024pedro",
                       "{PEDRO}: Parameter-Efficient Fine-tuning with Prompt {DEpenDent} "
                       "Representation {MOdification}",
                       "Xie, Tianfang and Li, Tianjing and Zhu, Wei and Han, Wei and Zhao, Yi",
                       "2024", "2409.17834"),
    .peft_type = "PEDRO",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct pedro),
    .knob = "r",
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
