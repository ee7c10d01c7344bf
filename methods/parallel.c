// Parallel bottleneck adapters beside attention and feed-forward:
//
//   y + s (W_up act(W_down x + b_down) + b_up),
//
// where x is what the block itself reads (the normalised stream) and y what it adds to the stream.
// where=ffn, scale=4 is the form that the source recommends.
//
// Source: He et al. 2022, arXiv 2110.04366.
#include "methods/bottleneck.h"

struct parallel {
    long bottleneck;
    double scale;
    int activation, where;
};

static const char *const acts[] = {PB_BOTTLENECK_ACTS};
static const char *const places[] = {PB_BOTTLENECK_PLACES};

static const pb_option options[] = {
    {"bottleneck", PB_OPT_INT, offsetof(struct parallel, bottleneck), "16", 1, 4096, NULL,
     "inner width of an adapter", true},
    {"scale", PB_OPT_REAL, offsetof(struct parallel, scale), "1", 0, 1000, NULL,
     "factor of what an adapter adds", true},
    {"activation", PB_OPT_ENUM, offsetof(struct parallel, activation), "relu", 0, 0, acts,
     "activation of the adapters", false},
    {"where", PB_OPT_ENUM, offsetof(struct parallel, where), "both", 0, 0, places,
     "beside attention, feed-forward or both", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct parallel *o = options_;
    return pb_bottleneck_layout(l, config, (size_t)o->bottleneck, o->where, o->scale);
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct parallel *o = options_;
    int at = s == PB_SITE_FFN_OUT ? PER_SITE : 0;
    if ((s != PB_SITE_ATTN_OUT && s != PB_SITE_FFN_OUT) || !pb_most_rows(c, at + DOWN))
        return y;
    pb_mat *t = pb_down(c, x, at + DOWN);
    pb_shift(c, t, at + DOWN_BIAS);
    pb_up(c, y, pb_activate(c, t, (pb_act)o->activation), at + UP);
    pb_shift(c, y, at + UP_BIAS);
    return y;
}

// PEFT has no such adapters: these keys are the suite's own.
static const pb_peft_key keys[] = {{"bottleneck", .option = "bottleneck", .required = true},
                                   {"scale", .option = "scale", .required = true},
                                   {"activation", .option = "activation", .required = true},
                                   {"where", .option = "where", .required = true},
                                   {0}};

PB_METHOD(parallel) = {
    .name = "parallel",
    .doc = "parallel bottleneck adapters beside attention and feed-forward",
    .citation = "He et al. 2022, arXiv 2110.04366",
    .formula = "y + s (W_up act(W_down x + b_down) + b_up);  x: what the block reads",
    .bibtex = PB_ARXIV("he2022unified",
                       "Towards a Unified View of Parameter-Efficient Transfer Learning",
                       "He, Junxian and Zhou, Chunting and Ma, Xuezhe and Berg-Kirkpatrick, Taylor "
                       "and Neubig, Graham",
                       "2021", "2110.04366"),
    .peft_type = "PARALLEL_ADAPTER",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct parallel),
    .knob = "bottleneck",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .layout = layout,
    .site = site,
};
