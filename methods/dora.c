// DoRA: LoRA gives a weight its direction, a vector m (out) the length of its rows:
//
//   y = m * (W + s B A) x / ||W + s B A|| + bias,   the norm over each row,
//
// where m starts at ||W||, so that a fresh adapter changes nothing. As in section 4.3 of the paper,
// the norm passes no gradient: it is a frozen parameter, computed again after every update from
//
//   ||W_o + s B_o A||^2 = ||W_o||^2 + 2 s B_o (A W_o^T) + s^2 B_o (A A^T) B_o^T,
//
// which takes r + 1 rows of a product with W, not a dense B A. Files hold A, B and m; a tenant
// keeps the norm too, so that serving costs a LoRA and a scaling of the output. Dropout is on the
// input of A alone.
//
// Source: Liu et al. 2024, arXiv 2402.09353. In Hugging Face PEFT it is LoRA with use_dora.
#include "methods/lora.h"

#include <math.h>
#include <stdio.h>

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { M_OF = PB_LORA_IDS, NORM_OF = PB_LORA_IDS + PB_N_LINEARS };

static pb_err layout(pb_layout *l, const void *options, const pb_config *config)
{
    size_t rank;
    double scale;
    PB_TRY(pb_lora_layout(l, options, config));
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            char name[96];
            if (!pb_lora_at(options, (size_t)i, t, &rank, &scale))
                continue;
            snprintf(name, sizeof name, "%s.lora_magnitude_vector", pb_linear_path(id));
            pb_layout_add(l, i, M_OF + t, name, 1, pb_linear_out(config, id), PB_INIT_ONE, 0,
                          PB_VECTOR | PB_NO_DECAY);
            snprintf(name, sizeof name, "%s.dora_norm", pb_linear_path(id));
            pb_layout_add(l, i, NORM_OF + t, name, 1, pb_linear_out(config, id), PB_INIT_ONE, 0,
                          PB_FROZEN | PB_UNSAVED);
        }
    return PB_OK;
}

// ||W + s B A|| of all linears, without `update` ||W||, into the vectors at `to`.
static pb_err norms(const pb_params *p, const struct pb_model *backbone, int to, bool update)
{
    for (size_t i = 0; backbone && i < p->layout->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            const pb_spec *A = pb_layout_find(p->layout, i, PB_LORA_A + t);
            const pb_spec *B = pb_layout_find(p->layout, i, PB_LORA_B + t);
            if (A)
                PB_TRY(pb_frozen_norms(backbone, i, (pb_linear_id)t,
                                       pb_values(p, i, to + t, NULL, NULL), p->v + A->offset,
                                       p->v + B->offset, update ? A->rows : 0, B->scale));
        }
    return PB_OK;
}

static pb_err init(const pb_params *p, const pb_init_args *args)
{
    return norms(p, args->backbone, M_OF, false);
}

static pb_err derive(const pb_params *p, const struct pb_model *backbone)
{
    return norms(p, backbone, NORM_OF, true);
}

static pb_err updated(const pb_params *p, const pb_train_args *args)
{
    return norms(p, args->backbone, NORM_OF, true);
}

static pb_mat *site(pb_ctx *c, const void *options, pb_site s, pb_mat *x, pb_mat *y)
{
    int t = (int)pb_site_linear(s);
    if (t == PB_N_LINEARS || !pb_most_cols(c, M_OF + t))
        return y;
    return pb_magnify(c, pb_lora_site(c, options, s, x, y), t, M_OF + t, NORM_OF + t);
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    const real *magnitude = pb_values(p, m->layer, M_OF + (int)m->linear, NULL, NULL);
    PB_TRY(pb_lora_merge(p, m));
    for (size_t i = 0; magnitude && i < m->out; i++) {
        real *w = m->w + i * m->in;
        double square = 0;
        for (size_t k = 0; k < m->in; k++)
            square += (double)w[k] * (double)w[k];
        real by = (real)((double)magnitude[i] / sqrt(square));
        for (size_t k = 0; k < m->in; k++)
            w[k] *= by;
    }
    return PB_OK;
}

PB_METHOD(dora) = {
    .name = "dora",
    .doc = "low-rank updates of weights' directions, and their rows' lengths",
    .citation = "Liu et al. 2024, arXiv 2402.09353",
    .formula =
        "y = m * (W + s B A) x / ||W + s B A||, norms of rows;  A (r,in), B (out,r), m (out)",
    .bibtex = PB_ARXIV("liu2024dora", "{DoRA}: Weight-Decomposed Low-Rank Adaptation",
                       "Liu, Shih-Yang and Wang, Chien-Yi and Yin, Hongxu and Molchanov, Pavlo and "
                       "Wang, Yu-Chiang Frank and Cheng, Kwang-Ting and Chen, Min-Hung",
                       "2024", "2402.09353"),
    .peft_type = "LORA",
    .peft_where = "{\"use_dora\": true}",
    .peft_keys = pb_lora_keys,
    .options = pb_lora_options,
    .options_size = sizeof(struct lora),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = pb_lora_prepare,
    .layout = layout,
    .init = init,
    .derive = derive,
    .updated = updated,
    .site = site,
    .merge = merge,
};
