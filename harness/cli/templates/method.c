// NAME: y += s B tanh(A x) at the linears that `targets` names, with A (r,in), B (out,r).
//
// TODO: what the method does, its formulas, what no source settles, and the source. B starts at
// zero, so that a fresh adapter leaves the backbone as it is.
//
// Written by `pedrobench new-method`. Read methods/README.md, then check every change with
//   pedrobench conformance NAME
#include "methods/method.h"

#include <math.h>
#include <stdio.h>

// 1. Options: a struct and a table of its fields. PB_OPT_INT is a long, REAL a double, BOOL a bool,
// ENUM an int, SITES a const char *.
struct NAME {
    long rank;
    double scale;
    const char *targets;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

// The last column: may tenants that differ in this option share one computation? Yes, where
// operations look it up per tenant (a size, a target); no, where `site` reads it.
static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct NAME, rank), "8", 1, 4096, NULL, "inner dimension r",
     true},
    {"scale", PB_OPT_REAL, offsetof(struct NAME, scale), "1", 0, 1e6, NULL, "scale s", true},
    {"targets", PB_OPT_SITES, offsetof(struct NAME, targets), "q,v", 0, 0, linears,
     "linears to adapt, of all layers or of some: q,v@0-3", true},
    {0}};

// Learning rates to try, ending with 0.
static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

// 2. Checks options against the backbone.
static pb_err prepare(void *options_, const pb_config *config)
{
    const struct NAME *o = options_;
    return pb_sites_fit(o->targets, config);
}

// 3. Parameters: every matrix of every layer has an id of its own within the layer. Operations want
// A as (r,in) and B as (r,out); PB_TRANSPOSED: files hold the transpose.
enum { A_OF = 0, B_OF = PB_N_LINEARS };

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct NAME *o = options_;
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            size_t in = pb_linear_in(config, id), out = pb_linear_out(config, id);
            char name[96];
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            snprintf(name, sizeof name, "%s.NAME_A", pb_linear_path(id));
            pb_layout_add(l, i, A_OF + t, name, (size_t)o->rank, in, PB_INIT_UNIFORM,
                          1 / sqrt((double)in), 0);
            snprintf(name, sizeof name, "%s.NAME_B", pb_linear_path(id));
            pb_spec *B = pb_layout_add(l, i, B_OF + t, name, (size_t)o->rank, out, PB_INIT_ZERO, 0,
                                       PB_TRANSPOSED);
            if (!B)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of NAME");
            B->scale = o->scale;
        }
    return PB_OK;
}

// 4. The forward pass, out of the operations of tensor/ops.h: no backward pass, no loop over
// tenants. It is called at every site of every layer; x is what the linear read, y what it gave.
static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)options_;
    int t = (int)pb_site_linear(s); // which linear's output this is, or PB_N_LINEARS
    if (t == PB_N_LINEARS || !pb_most_rows(c, A_OF + t))
        return y; // nobody here adapts it
    pb_mat *h = pb_down(c, x, A_OF + t);
    h = pb_activate(c, h, PB_TANH);
    pb_up(c, y, h, B_OF + t);
    return y;
}

// 5. How options stand in adapter_config.json; what is not here is kept under "pedrobench".
static const pb_peft_key keys[] = {{"r", .option = "rank", .required = true},
                                   {"target_modules", .option = "targets", .required = true},
                                   {0}};

PB_METHOD(NAME) = {
    .name = "NAME",
    .doc = "TODO: one line",
    .citation = "TODO: where it was published",
    .formula = "y += s B tanh(A x)",
    .bibtex = "", // PB_ARXIV("key", "title", "authors", "year", "number"),
    .peft_type = "NAME",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct NAME),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = prepare,
    .layout = layout,
    .site = site,
};
