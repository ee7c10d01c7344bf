// IA3: learned vectors scale keys, values and the input of the feed-forward's down projection:
// k * l_k, v * l_v, down(mid * l_mid); vectors start at ones. The output of any linear can be
// scaled, or its input (of `down`, as published; Hugging Face calls these feed-forward modules).
//
// With rank = 0 (plain) the vector itself is trained. With rank = r > 0 it is re-parameterised,
// l = 1 + v W with v (1,r) and W (r,n), which gives the method a size knob; W starts at zero, v at
// random, and the form is folded to the plain one when saved and served.
//
// Sources: Liu et al. 2022 (T-Few), arXiv 2205.05638; the re-parameterised form as in the baselines
// of MiLoRA, arXiv 2410.18035.
#include "methods/method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct ia3 {
    long rank;
    const char *targets, *inputs;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct ia3, rank), "0", 0, 4096, NULL,
     "0: plain vectors; r: vectors made from r numbers by a learned matrix", false},
    {"targets", PB_OPT_SITES, offsetof(struct ia3, targets), "k,v,down", 0, 0, linears,
     "linears that are scaled, of all layers or of some: k,v@0-3", true},
    {"inputs", PB_OPT_SITES, offsetof(struct ia3, inputs), "down", 0, 0, linears,
     "targets of which the input is scaled, not the output", true},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

// Vectors of outputs and of inputs have ids of their own: tenants may differ in which they scale.
enum {
    L_OF = 0,
    IN_OF = PB_N_LINEARS,
    V_OF = 2 * PB_N_LINEARS,
    W_OF = 3 * PB_N_LINEARS,
    W_IN_OF = 4 * PB_N_LINEARS
};

static bool at_input(const struct ia3 *o, size_t layer, int t)
{
    return pb_site_listed(o->inputs, layer, (pb_linear_id)t, NULL);
}

// Keeps of `inputs` those that are targets, as Hugging Face's configurations have it.
static pb_err prepare(void *options_, const pb_config *config)
{
    struct ia3 *o = options_;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=k,v,down", "IA3 has no target");
    PB_TRY(pb_sites_fit(o->targets, config));
    PB_TRY(pb_sites_fit(o->inputs, config));
    double *both = malloc(config->layers * PB_N_LINEARS * sizeof *both);
    for (size_t i = 0; both && i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++)
            both[i * PB_N_LINEARS + (size_t)t] =
                pb_site_listed(o->targets, i, (pb_linear_id)t, NULL) && at_input(o, i, t) ? 0 : NAN;
    const char *inputs = both ? pb_sites_list(both, config->layers, false) : NULL;
    free(both);
    if (!inputs)
        return pb_fail(PB_MEMORY, NULL, "no memory for the options of IA3");
    o->inputs = inputs;
    return PB_OK;
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct ia3 *o = options_;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            const char *path = pb_linear_path(id);
            bool in = at_input(o, (size_t)i, t);
            size_t n = in ? pb_linear_in(config, id) : pb_linear_out(config, id);
            unsigned way = in ? 0 : PB_TRANSPOSED; // files: (1,in) or (out,1)
            char name[96];
            if (!o->rank) {
                snprintf(name, sizeof name, "%s.ia3_l", path);
                pb_layout_add(l, i, (in ? IN_OF : L_OF) + t, name, 1, n, PB_INIT_ONE, 0,
                              way | PB_NO_DECAY);
                continue;
            }
            snprintf(name, sizeof name, "%s.ia3_v", path);
            pb_layout_add(l, i, V_OF + t, name, 1, (size_t)o->rank, PB_INIT_NORMAL, 1, 0);
            snprintf(name, sizeof name, "%s.ia3_W", path);
            pb_layout_add(l, i, (in ? W_IN_OF : W_OF) + t, name, (size_t)o->rank, n, PB_INIT_ZERO,
                          0, 0);
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct ia3 *o = options_;
    int in = (int)pb_site_input(s), out = (int)pb_site_linear(s);
    bool input = in < PB_N_LINEARS;
    int t = input ? in : out;
    if (t == PB_N_LINEARS ||
        !pb_most_cols(c, o->rank ? (input ? W_IN_OF : W_OF) + t : (input ? IN_OF : L_OF) + t))
        return y;
    if (input && y == x) // others read it too
        y = pb_copy(c, y);
    if (!o->rank)
        return pb_scale_by(c, y, (input ? IN_OF : L_OF) + t);
    pb_mat *l = pb_zeros(c, y->cols);
    pb_up(c, l, pb_each(c, V_OF + t), (input ? W_IN_OF : W_OF) + t);
    return pb_scale(c, y, l, 0, true, false);
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    if (((const struct ia3 *)p->options)->rank)
        return pb_fail(PB_UNSUPPORTED, "fold it first", "a re-parameterised IA3 cannot be merged");
    const real *l = pb_values(p, m->layer, L_OF + (int)m->linear, NULL, NULL);
    for (size_t i = 0; l && i < m->out; i++) {
        for (size_t k = 0; k < m->in; k++)
            m->w[i * m->in + k] *= l[i];
        if (m->bias)
            m->bias[i] *= l[i];
    }
    return PB_OK;
}

static pb_err merge_input(const pb_params *p, const pb_merge_args *m)
{
    const real *l = pb_values(p, m->layer, IN_OF + (int)m->linear, NULL, NULL);
    for (size_t i = 0; l && i < m->out; i++)
        for (size_t k = 0; k < m->in; k++)
            m->w[i * m->in + k] *= l[k];
    return PB_OK;
}

static bool fold(void *to)
{
    struct ia3 *o = to;
    bool folded = o->rank != 0;
    o->rank = 0;
    return folded;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t r = 0, n = 0;
            const real *W = pb_values(from, i, W_OF + t, &r, &n);
            const real *v = pb_values(from, i, V_OF + t, NULL, NULL);
            real *l = pb_values(to, i, (W ? L_OF : IN_OF) + t, NULL, NULL);
            if (!W)
                W = pb_values(from, i, W_IN_OF + t, &r, &n);
            for (size_t k = 0; W && k < n; k++) {
                l[k] = 1;
                for (size_t j = 0; j < r; j++)
                    l[k] += v[j] * W[j * n + k];
            }
        }
}

static const pb_peft_key keys[] = {{"target_modules", .option = "targets", .required = true},
                                   {"feedforward_modules", .option = "inputs", .required = true},
                                   {"exclude_modules", .selects = true},
                                   {"fan_in_fan_out", .only = "[false]"},
                                   {"init_ia3_weights", .idle = true},
                                   {0}};

PB_METHOD(ia3) = {
    .name = "ia3",
    .doc = "learned vectors scale keys, values and feed-forward activations",
    .citation = "Liu et al. 2022, arXiv 2205.05638",
    .formula = "k *= l_k,  v *= l_v,  down(mid * l_mid);  plain vectors l, or l = 1 + v W, v (1,r)",
    .bibtex =
        PB_ARXIV("liu2022ia3",
                 "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context "
                 "Learning",
                 "Liu, Haokun and Tam, Derek and Muqeeth, Mohammed and Mohta, Jay and Huang, "
                 "Tenghao and Bansal, Mohit and Raffel, Colin",
                 "2022", "2205.05638"),
    .peft_type = "IA3",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct ia3),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .site = site,
    .merge = merge,
    .merge_input = merge_input,
    .fold = fold,
    .fold_values = fold_values,
};
