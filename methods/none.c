// The bare backbone as a method: no parameters, hooks that do nothing. It is the reference row of a
// comparison, and "inactive hooks" in latency experiments.
#include "methods/method.h"

static const pb_option options[] = {{0}};

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    (void)l, (void)options_, (void)config;
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)c, (void)options_, (void)s, (void)x;
    return y;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    (void)p, (void)m;
    return PB_OK;
}

PB_METHOD(none) = {
    .name = "none",
    .doc = "the frozen backbone, untouched",
    .citation = "none",
    .formula = "y = W x",
    .bibtex = "",
    .peft_type = "NONE",
    .options = options,
    .identity = true,
    .layout = layout,
    .site = site,
    .merge = merge,
};
