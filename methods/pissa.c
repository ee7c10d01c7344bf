// PiSSA: LoRA that starts from the principal part of each weight. With W = U S V^T and its r
// largest singular values, A = sqrt(S_r / s) V_r^T and B = U_r sqrt(S_r / s); the base is the
// residual W - s B A. Here the backbone is shared and stays as it is, so the start is subtracted
// instead:
//
//   y = W x + s B A x - s B0 A0 x,
//
// with A0, B0 the frozen values of the start: the same function. It is saved and served as a plain
// LoRA of rank 2 r, [A; A0] and [B, -B0], which is what Hugging Face PEFT's conversion to LoRA
// does. Dropout is on the input of A alone. A fresh adapter changes nothing but by rounding.
//
// Source: Meng, Wang & Zhang 2024, arXiv 2404.02948 (with its fast SVD; see tensor/svd.h).
#include "methods/lora.h"
#include "tensor/svd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pissa {
    struct lora lora;
    bool folded;
    const char *ranks, *alphas; // derived: of the folded form
};

static const double lr_grid[] = {1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0};

enum { A0_OF = PB_LORA_IDS, B0_OF = PB_LORA_IDS + PB_N_LINEARS };

static double folded_alpha(const struct lora *o, double alpha)
{
    return alpha * (o->rslora ? sqrt(2) : 2);
}

// The lists of ranks and alphas for twice the rank at the same scale.
static pb_err folded_lists(struct pissa *o, const pb_config *c)
{
    size_t n = c->layers * PB_N_LINEARS;
    double *rank = malloc(2 * n * sizeof *rank), *alpha = rank + n, x;
    o->ranks = o->alphas = NULL;
    for (size_t i = 0; rank && i < n; i++) {
        pb_linear_id id = (pb_linear_id)(i % PB_N_LINEARS);
        size_t layer = i / PB_N_LINEARS;
        rank[i] = pb_site_listed(o->lora.ranks, layer, id, &x) ? 2 * x : NAN;
        alpha[i] = pb_site_listed(o->lora.alphas, layer, id, &x) ? folded_alpha(&o->lora, x) : NAN;
    }
    if (rank) {
        o->ranks = pb_sites_list(rank, c->layers, true);
        o->alphas = pb_sites_list(alpha, c->layers, true);
    }
    free(rank);
    return o->ranks && o->alphas ? PB_OK
                                 : pb_fail(PB_MEMORY, NULL, "no memory for the options of PiSSA");
}

static pb_err prepare(void *options, const pb_config *config)
{
    struct pissa *o = options;
    size_t rank;
    double scale;
    PB_TRY(pb_lora_prepare(options, config));
    for (size_t i = 0; !o->folded && i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            size_t in = pb_linear_in(config, id), out = pb_linear_out(config, id);
            if (!pb_lora_at(&o->lora, i, t, &rank, &scale))
                continue;
            if (rank > (in < out ? in : out))
                return pb_fail(PB_USAGE, "use a smaller rank",
                               "PiSSA of rank %zu: %s has only %zu singular values", rank,
                               pb_linear_path(id), in < out ? in : out);
            if (!(scale > 0))
                return pb_fail(PB_USAGE, "use e.g. alpha=16", "PiSSA cannot start at alpha = 0");
        }
    return folded_lists(o, config);
}

static pb_err layout(pb_layout *l, const void *options, const pb_config *config)
{
    const struct pissa *o = options;
    size_t n, rank;
    double scale;
    PB_TRY(pb_lora_layout(l, options, config));
    n = o->folded ? 0 : config->layers;
    for (int i = 0; i < (int)n; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            char name[96];
            if (!pb_lora_at(&o->lora, (size_t)i, t, &rank, &scale))
                continue;
            snprintf(name, sizeof name, "%s.pissa_A0", pb_linear_path(id));
            pb_layout_add(l, i, A0_OF + t, name, rank, pb_linear_in(config, id), PB_INIT_HOOK, 0,
                          PB_FROZEN);
            snprintf(name, sizeof name, "%s.pissa_B0", pb_linear_path(id));
            pb_spec *B0 = pb_layout_add(l, i, B0_OF + t, name, rank, pb_linear_out(config, id),
                                        PB_INIT_HOOK, 0, PB_FROZEN);
            if (!B0)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of PiSSA");
            B0->scale = -scale;
        }
    return PB_OK;
}

static pb_err init_one(const pb_params *p, const pb_init_args *args, size_t layer, int t)
{
    pb_err err = PB_OK;
    size_t r = 0, in = 0, out = 0;
    real *A = pb_values(p, layer, PB_LORA_A + t, &r, &in), *w = NULL, *s = NULL;
    real *B = pb_values(p, layer, PB_LORA_B + t, NULL, &out);
    real *A0 = pb_values(p, layer, A0_OF + t, NULL, NULL);
    real *B0 = pb_values(p, layer, B0_OF + t, NULL, NULL);
    if (!A0)
        return PB_OK;
    if (args->backbone) {
        w = malloc(out * in * sizeof *w);
        s = malloc(r * sizeof *s);
        if (!w || !s)
            PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a weight of %zu values", out * in));
        pb_frozen_weight(args->backbone, layer, (pb_linear_id)t, w);
        PB_GO(pb_svd_top(B, s, A, w, out, in, r, args->seed));
        double scale = -pb_layout_find(p->layout, layer, B0_OF + t)->scale;
        for (size_t j = 0; j < r; j++) {
            real by = (real)sqrt((double)s[j] / scale);
            for (size_t k = 0; k < in; k++)
                A[j * in + k] *= by;
            for (size_t k = 0; k < out; k++)
                B[j * out + k] *= by;
        }
    }
    memcpy(A0, A, r * in * sizeof *A);
    memcpy(B0, B, r * out * sizeof *B);
done:
    free(w);
    free(s);
    return err;
}

static pb_err init(const pb_params *p, const pb_init_args *args)
{
    for (size_t i = 0; i < args->config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++)
            PB_TRY(init_one(p, args, i, t));
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options, pb_site s, pb_mat *x, pb_mat *y)
{
    int t = (int)pb_site_linear(s);
    y = pb_lora_site(c, options, s, x, y);
    if (t < PB_N_LINEARS)
        pb_low_rank(c, y, x, A0_OF + t, B0_OF + t);
    return y;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    if (!((const struct pissa *)p->options)->folded)
        return pb_fail(PB_UNSUPPORTED, "fold it first", "PiSSA cannot be merged as it is trained");
    return pb_lora_merge(p, m);
}

static bool fold(void *to)
{
    struct pissa *o = to;
    bool fresh = !o->folded;
    if (fresh) {
        o->folded = true;
        o->lora.rank *= 2;
        o->lora.alpha = folded_alpha(&o->lora, o->lora.alpha);
        o->lora.ranks = o->ranks;
        o->lora.alphas = o->alphas;
    }
    return fresh;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++)
            for (int b = 0; b < 2; b++) { // A, then B
                size_t r = 0, n = 0;
                const real *now = pb_values(from, i, (b ? PB_LORA_B : PB_LORA_A) + t, &r, &n);
                const real *start = pb_values(from, i, (b ? B0_OF : A0_OF) + t, NULL, NULL);
                real *x = pb_values(to, i, (b ? PB_LORA_B : PB_LORA_A) + t, NULL, NULL);
                for (size_t k = 0; now && k < r * n; k++) {
                    x[k] = now[k];
                    x[r * n + k] = b ? -start[k] : start[k];
                }
            }
}

PB_METHOD(pissa) = {
    .name = "pissa",
    .variant = "",
    .doc = "LoRA that starts from the weights' largest singular vectors",
    .citation = "Meng et al. 2024, arXiv 2404.02948",
    .formula =
        "y = W x + s (B A - B0 A0) x;  B0 A0: the r largest singular values of W, where B A starts",
    .bibtex =
        PB_ARXIV("meng2024pissa",
                 "{PiSSA}: Principal Singular Values and Singular Vectors Adaptation of Large "
                 "Language Models",
                 "Meng, Fanxu and Wang, Zhaohui and Zhang, Muhan", "2024", "2404.02948"),
    .peft_type = "LORA",
    .peft_keys = pb_lora_keys,
    .options = pb_lora_options,
    .options_size = sizeof(struct pissa),
    .knob = "rank",
    .lr_grid = lr_grid,
    .lr = 1e-3,
    .prepare = prepare,
    .layout = layout,
    .init = init,
    .site = site,
    .merge = merge,
    .fold = fold,
    .fold_values = fold_values,
};
