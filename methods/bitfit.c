// BitFit: biases are trained, y + b at the output of linears, with b starting at zero. Backbones of
// the LLaMA family have few biases of their own or none: those there are stay as they are, and the
// adapter's are added to them.
//
// With rank = 0 (plain) b itself is trained. With rank = r > 0 it is re-parameterised, b = v W with
// v (1,r) and W (r,n), which gives the method a size knob; W starts at zero, v at random, and the
// form is folded to the plain one when saved and served.
//
// Sources: Ben Zaken et al. 2022, arXiv 2106.10199; the re-parameterised form as in the baselines
// of MiLoRA, arXiv 2410.18035.
#include "methods/method.h"

#include <stdio.h>

struct bitfit {
    long rank;
    const char *targets;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct bitfit, rank), "0", 0, 4096, NULL,
     "0: plain biases; r: biases made from r numbers by a learned matrix", false},
    {"targets", PB_OPT_SITES, offsetof(struct bitfit, targets), "q,k,v,o,gate,up,down", 0, 0,
     linears, "linears that get a bias, of all layers or of some: q,v@0-3", true},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { B_OF = 0, V_OF = PB_N_LINEARS, W_OF = 2 * PB_N_LINEARS };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct bitfit *o = options_;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "BitFit has no target");
    return pb_sites_fit(o->targets, config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct bitfit *o = options_;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            size_t n = pb_linear_out(config, id);
            char name[96];
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            if (!o->rank) {
                snprintf(name, sizeof name, "%s.bitfit_b", pb_linear_path(id));
                pb_layout_add(l, i, B_OF + t, name, 1, n, PB_INIT_ZERO, 0, PB_NO_DECAY);
                continue;
            }
            snprintf(name, sizeof name, "%s.bitfit_v", pb_linear_path(id));
            pb_layout_add(l, i, V_OF + t, name, 1, (size_t)o->rank, PB_INIT_NORMAL, 1, 0);
            snprintf(name, sizeof name, "%s.bitfit_W", pb_linear_path(id));
            pb_layout_add(l, i, W_OF + t, name, (size_t)o->rank, n, PB_INIT_ZERO, 0, 0);
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)x;
    const struct bitfit *o = options_;
    int t = (int)pb_site_linear(s);
    if (t == PB_N_LINEARS)
        return y;
    if (!o->rank) {
        pb_shift(c, y, B_OF + t);
    } else if (pb_most_cols(c, W_OF + t)) {
        pb_mat *b = pb_zeros(c, y->cols);
        pb_up(c, b, pb_each(c, V_OF + t), W_OF + t);
        pb_add_each(c, y, b);
    }
    return y;
}

static pb_err mergeable(const void *options_, const pb_config *config)
{
    const struct bitfit *o = options_;
    if (o->rank)
        return pb_fail(PB_UNSUPPORTED, "fold it first",
                       "a re-parameterised bitfit cannot be merged");
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++)
            if (pb_site_listed(o->targets, i, (pb_linear_id)t, NULL) &&
                !pb_linear_has_bias(config, (pb_linear_id)t))
                return pb_fail(PB_UNSUPPORTED, "serve it with --adapter",
                               "method bitfit cannot be merged: this architecture's %s has no bias",
                               pb_linear_path((pb_linear_id)t));
    return PB_OK;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    const real *b = pb_values(p, m->layer, B_OF + (int)m->linear, NULL, NULL);
    for (size_t i = 0; b && m->bias && i < m->out; i++)
        m->bias[i] += b[i];
    return PB_OK;
}

static bool fold(void *to)
{
    struct bitfit *o = to;
    bool folded = o->rank != 0;
    o->rank = 0;
    return folded;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t r = 0, n = 0;
            const real *v = pb_values(from, i, V_OF + t, NULL, NULL);
            const real *W = pb_values(from, i, W_OF + t, &r, &n);
            real *b = pb_values(to, i, B_OF + t, NULL, NULL);
            for (size_t k = 0; W && k < n; k++) {
                b[k] = 0;
                for (size_t j = 0; j < r; j++)
                    b[k] += v[j] * W[j * n + k];
            }
        }
}

// PEFT trains biases beside LoRA alone: this kind of folder is the suite's own.
static const pb_peft_key keys[] = {{"target_modules", .option = "targets", .required = true}, {0}};

PB_METHOD(bitfit) = {
    .name = "bitfit",
    .doc = "trained biases at the outputs of linears",
    .citation = "Ben Zaken et al. 2022, arXiv 2106.10199",
    .formula = "y + b;  b = v W with rank > 0",
    .bibtex = PB_ARXIV("benzaken2022bitfit",
                       "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based "
                       "Masked Language-models",
                       "Ben Zaken, Elad and Goldberg, Yoav and Ravfogel, Shauli", "2021",
                       "2106.10199"),
    .peft_type = "BITFIT",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct bitfit),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .site = site,
    .merge = merge,
    .mergeable = mergeable,
    .fold = fold,
    .fold_values = fold_values,
};
