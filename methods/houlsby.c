// Serial bottleneck adapters behind attention and feed-forward, on what these add to the residual
// stream: y + W_up act(W_down y + b_down) + b_up.
//
// where=ffn is the form of Pfeiffer et al., one adapter per layer. In both papers layers end in a
// norm; here, as in other ports to pre-norm models, the adapter reads the block's output as it is
// (behind the block's own norm in Gemma 2).
//
// Sources: Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2021, arXiv 2005.00247.
#include "methods/bottleneck.h"

struct houlsby {
    long bottleneck;
    int activation, where;
};

static const char *const acts[] = {PB_BOTTLENECK_ACTS};
static const char *const places[] = {PB_BOTTLENECK_PLACES};

static const pb_option options[] = {{"bottleneck", PB_OPT_INT, offsetof(struct houlsby, bottleneck),
                                     "16", 1, 4096, NULL, "inner width of an adapter", true},
                                    {"activation", PB_OPT_ENUM,
                                     offsetof(struct houlsby, activation), "gelu", 0, 0, acts,
                                     "activation of the adapters", false},
                                    {"where", PB_OPT_ENUM, offsetof(struct houlsby, where), "both",
                                     0, 0, places, "behind attention, feed-forward or both", true},
                                    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct houlsby *o = options_;
    return pb_bottleneck_layout(l, config, (size_t)o->bottleneck, o->where, 1);
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)x;
    const struct houlsby *o = options_;
    int at = s == PB_SITE_FFN_OUT ? PER_SITE : 0;
    if ((s != PB_SITE_ATTN_OUT && s != PB_SITE_FFN_OUT) || !pb_most_rows(c, at + DOWN))
        return y;
    // The adapter reads y as it was; what it adds goes into y itself.
    pb_mat *t = pb_down(c, pb_copy(c, y), at + DOWN);
    pb_shift(c, t, at + DOWN_BIAS);
    pb_up(c, y, pb_activate(c, t, (pb_act)o->activation), at + UP);
    pb_shift(c, y, at + UP_BIAS);
    return y;
}

// PEFT has no such adapters: these keys are the suite's own.
static const pb_peft_key keys[] = {{"bottleneck", .option = "bottleneck", .required = true},
                                   {"activation", .option = "activation", .required = true},
                                   {"where", .option = "where", .required = true},
                                   {0}};

PB_METHOD(houlsby) = {
    .name = "houlsby",
    .doc = "serial bottleneck adapters behind attention and feed-forward",
    .citation = "Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2021, arXiv 2005.00247",
    .formula = "y + W_up act(W_down y + b_down) + b_up;  y: what a block adds to the stream",
    .bibtex = PB_ARXIV("houlsby2019adapters", "Parameter-Efficient Transfer Learning for NLP",
                       "Houlsby, Neil and Giurgiu, Andrei and Jastrzebski, Stanislaw and others",
                       "2019", "1902.00751")
        PB_ARXIV("pfeiffer2021fusion",
                 "AdapterFusion: Non-Destructive Task Composition for Transfer Learning",
                 "Pfeiffer, Jonas and Kamath, Aishwarya and Ruckle, Andreas and "
                 "Cho, Kyunghyun and Gurevych, Iryna",
                 "2020", "2005.00247"),
    .peft_type = "HOULSBY",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct houlsby),
    .knob = "bottleneck",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .layout = layout,
    .site = site,
};
