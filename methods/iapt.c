// IAPT: in every layer a small generator turns the prompt into n soft tokens, which all positions
// of the sequence see in front of it:
//
//   [k_1 .. k_n, v_1 .. v_n] = W_up act(sum_i a_i t_i),  t = W_down h,  a = softmax(w . t /
//   sqrt(r)),
//
// where h are the hidden states of the prompt at the layer's input, after its RMSNorm. They are
// made once per sequence and live with its KV cache; the sequence's own positions start at n.
// W_down and W_up are shared by all layers; the pooling vector w and the activation are each
// layer's own.
//
// Source: Zhu et al. 2024, arXiv 2405.18203, of which secondary sources say: 4 soft tokens per
// layer from down projection, self-attention pooling, rational activation, up projection;
// projections shared across layers. Assumptions of ours, as no source that we could read settles
// them: soft tokens are keys and values themselves, used without rotation, as those of prefix
// tuning; one pooled vector gives all n; no biases; the pooling vector is not shared; W_up starts
// at small random numbers; and Theta, the activation's coefficients, is updated as in pedro.c.
#include "methods/rational.h"

#include <math.h>

struct iapt {
    long r, length, theta_every;
    double std, theta_lr;
    int pooler, activation, theta_data;
    bool shared;
};

enum { ACT_RATIONAL = PB_IDENTITY + 1 };

static const char *const poolers[] = {"last", "mean", "max", "attention", NULL};
static const char *const acts[] = {"relu", "gelu", "silu", "tanh", "identity", "rational", NULL};
static const char *const sources[] = {"train", "valid", NULL};

static const pb_option options[] = {
    {"r", PB_OPT_INT, offsetof(struct iapt, r), "8", 1, 4096, NULL, "bottleneck of the generator",
     true},
    {"length", PB_OPT_INT, offsetof(struct iapt, length), "4", 1, 1024, NULL,
     "soft tokens in front of the sequence", false},
    {"pooler", PB_OPT_ENUM, offsetof(struct iapt, pooler), "attention", 0, 0, poolers,
     "how the prompt's states become one", false},
    {"activation", PB_OPT_ENUM, offsetof(struct iapt, activation), "rational", 0, 0, acts,
     "activation of the generator", false},
    {"shared", PB_OPT_BOOL, offsetof(struct iapt, shared), "true", 0, 0, NULL,
     "all layers share the projections", true},
    {"std", PB_OPT_REAL, offsetof(struct iapt, std), "0.02", 0, 10, NULL,
     "standard deviation of W_up at the start", true},
    {"theta_lr", PB_OPT_REAL, offsetof(struct iapt, theta_lr), "1e-6", 0, 1, NULL,
     "learning rate of the rational activation's coefficients; 0 freezes them", true},
    {"theta_every", PB_OPT_INT, offsetof(struct iapt, theta_every), "1", 1, 1000000, NULL,
     "training steps per step of the coefficients", true},
    {"theta_data", PB_OPT_ENUM, offsetof(struct iapt, theta_data), "train", 0, 0, sources,
     "batches for the coefficients: a held-out part of train, or validation", true},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { DOWN, UP, QUERY, RAT_A, RAT_B };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct iapt *o = options_;
    if ((size_t)o->length >= config->context)
        return pb_fail(PB_USAGE, "use fewer soft tokens",
                       "%ld soft tokens leave no room in a context of %zu", o->length,
                       config->context);
    return PB_OK;
}

static size_t state(const void *options_, const pb_config *config)
{
    return (size_t)((const struct iapt *)options_)->length * 2 * pb_kv_width(config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct iapt *o = options_;
    size_t r = (size_t)o->r, C = config->width;
    for (int i = 0; i < (int)config->layers; i++) {
        if (!o->shared || i == 0) {
            int layer = o->shared ? PB_GLOBAL : i;
            pb_layout_add(l, layer, DOWN, "iapt.down.weight", r, C, PB_INIT_UNIFORM,
                          1 / sqrt((double)C), 0);
            pb_layout_add(l, layer, UP, "iapt.up.weight", r, state(o, config),
                          o->std > 0 ? PB_INIT_NORMAL : PB_INIT_ZERO, o->std, PB_TRANSPOSED);
        }
        if (o->pooler == PB_POOL_ATTENTION)
            pb_layout_add(l, i, QUERY, "iapt.pool.weight", 1, r, PB_INIT_NORMAL, 1, 0);
        if (o->activation == ACT_RATIONAL)
            pb_rational_layout(l, i, "iapt", RAT_A, RAT_B, o->theta_lr);
    }
    return PB_OK;
}

static pb_err init(const pb_params *p, const pb_init_args *args)
{
    pb_rational_init(p, args->config, RAT_A, RAT_B);
    return PB_OK;
}

static void prompt(pb_ctx *c, const void *options_, pb_mat *tokens, pb_mat *before, pb_mat *after)
{
    (void)before;
    const struct iapt *o = options_;
    pb_mat *t = pb_pool(c, pb_down(c, after, DOWN), (pb_pooler)o->pooler, QUERY);
    if (o->activation == ACT_RATIONAL)
        t = pb_rational(c, t, RAT_A, RAT_B);
    else
        t = pb_activate(c, t, (pb_act)o->activation);
    pb_up(c, tokens, t, UP);
}

static size_t prefix_len(const void *options_)
{
    return (size_t)((const struct iapt *)options_)->length;
}

static void prompt_prefix(pb_ctx *c, const void *options_, pb_mat **k, pb_mat **v)
{
    (void)options_;
    pb_mat *tokens = pb_state(c);
    size_t half = tokens->cols / 2;
    *k = pb_cols(c, tokens, 0, half);
    *v = pb_cols(c, tokens, half, half);
}

static bool bilevel(const void *options_, pb_bilevel *out)
{
    const struct iapt *o = options_;
    *out = (pb_bilevel){o->theta_lr, (size_t)o->theta_every, o->theta_data == 1};
    return o->activation == ACT_RATIONAL && o->theta_lr > 0;
}

// PEFT knows no IAPT: these keys are the suite's own.
static const pb_peft_key keys[] = {{"r", .option = "r", .required = true},
                                   {"num_virtual_tokens", .option = "length", .required = true},
                                   {"pooler", .option = "pooler", .required = true},
                                   {"activation", .option = "activation", .required = true},
                                   {"shared", .option = "shared", .required = true},
                                   {0}};

PB_METHOD(iapt) = {
    .name = "iapt",
    .doc = "soft tokens generated from the prompt in front of the sequence, in every layer",
    .citation = "Zhu et al. 2024, arXiv 2405.18203",
    .formula = "attention over [K_s; K], [V_s; V];  K_s, V_s = W_up act(pool(W_down h_prompt))",
    .bibtex = PB_ARXIV("zhu2024iapt",
                       "IAPT: Instruction-Aware Prompt Tuning for Large Language Models",
                       "Zhu, Wei and Tian, Aaron Xuxiang and Yin, Congrui and Ni, Yuan and Wang, "
                       "Xiaoling and Xie, Guotong",
                       "2024", "2405.18203"),
    .peft_type = "IAPT",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct iapt),
    .knob = "r",
    .whole_prompt = true,
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .init = init,
    .state = state,
    .prompt = prompt,
    .prefix_len = prefix_len,
    .prompt_prefix = prompt_prefix,
    .bilevel = bilevel,
};
