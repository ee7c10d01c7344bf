// VeRA: low-rank updates by two frozen random matrices that all linears share, and two trained
// vectors for each:
//
//   y += b * (B (d * (A x))),   A (r, widest input), B (widest output, r), d (r), b (out),
//
// where a linear uses the first columns of A and the first rows of B that it needs. d starts at
// d_initial, b at zero.
//
// A and B are made from a seed as Hugging Face PEFT makes them: uniform on +-sqrt(6 / columns)
// (Kaiming), A and then B from one Mersenne twister, so that folders without them mean the same
// there and here. Each tenant keeps a copy, r (widest input + widest output) floats.
//
// Sources: Kopiczko, Blankevoort & Asano 2024, arXiv 2310.11454; Matsumoto & Nishimura 1998, ACM
// TOMACS 8(1) (MT19937); numbers from 24 of its bits as PyTorch does.
#include "methods/method.h"

#include <math.h>
#include <stdio.h>

struct vera {
    long rank, seed;
    double dropout, d_initial;
    bool save;
    const char *targets;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"rank", PB_OPT_INT, offsetof(struct vera, rank), "256", 1, 65536, NULL,
     "inner dimension r of the shared matrices", true},
    {"targets", PB_OPT_SITES, offsetof(struct vera, targets), "q,k,v,o,gate,up,down", 0, 0, linears,
     "linears to adapt, of all layers or of some: q,v@0-3", true},
    {"seed", PB_OPT_INT, offsetof(struct vera, seed), "0", 0, 4294967295, NULL,
     "seed of the shared matrices", true},
    {"save_projection", PB_OPT_BOOL, offsetof(struct vera, save), "true", 0, 0, NULL,
     "files hold the shared matrices, not their seed alone", true},
    {"d_initial", PB_OPT_REAL, offsetof(struct vera, d_initial), "0.1", -10, 10, NULL,
     "initial value of d", true},
    {"dropout", PB_OPT_REAL, offsetof(struct vera, dropout), "0", 0, 0.95, NULL,
     "dropout on the input of A while training", true},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { A, B, D_OF, B_OF = D_OF + PB_N_LINEARS };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct vera *o = options_;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "VeRA has no target");
    return pb_sites_fit(o->targets, config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct vera *o = options_;
    size_t r = (size_t)o->rank, widest_in = 0, widest_out = 0;
    unsigned shared = PB_FROZEN | (o->save ? 0 : PB_UNSAVED);
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            size_t in = pb_linear_in(config, id), out = pb_linear_out(config, id);
            char name[96];
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            widest_in = in > widest_in ? in : widest_in;
            widest_out = out > widest_out ? out : widest_out;
            snprintf(name, sizeof name, "%s.vera_lambda_d", pb_linear_path(id));
            pb_layout_add(l, i, D_OF + t, name, 1, r, PB_INIT_HOOK, 0, PB_VECTOR | PB_NO_DECAY);
            snprintf(name, sizeof name, "%s.vera_lambda_b", pb_linear_path(id));
            pb_layout_add(l, i, B_OF + t, name, 1, out, PB_INIT_ZERO, 0, PB_VECTOR | PB_NO_DECAY);
        }
    pb_layout_add(l, PB_GLOBAL, A, "base_model.vera_A", r, widest_in, PB_INIT_HOOK, 0, shared);
    pb_layout_add(l, PB_GLOBAL, B, "base_model.vera_B", r, widest_out, PB_INIT_HOOK, 0,
                  shared | PB_TRANSPOSED);
    return PB_OK;
}

// ---------------------------------------------------------------- the shared matrices

enum { WORDS = 624, AHEAD = 397 };

typedef struct twister {
    uint32_t word[WORDS];
    size_t next;
} twister;

static void seed(twister *m, uint32_t s)
{
    m->word[0] = s;
    for (uint32_t i = 1; i < WORDS; i++)
        m->word[i] = 1812433253u * (m->word[i - 1] ^ m->word[i - 1] >> 30) + i;
    m->next = WORDS;
}

static uint32_t draw(twister *m)
{
    for (size_t k = 0; m->next == WORDS && k < WORDS; k++) {
        uint32_t y = (m->word[k] & 0x80000000u) | (m->word[(k + 1) % WORDS] & 0x7fffffffu);
        m->word[k] = m->word[(k + AHEAD) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    m->next %= WORDS;
    uint32_t y = m->word[m->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static float uniform(twister *m, double bound)
{
    float low = (float)-bound, range = (float)bound - low;
    return fmaf((float)(draw(m) & 0xffffff) * 0x1p-24f, range, low);
}

static void project(const pb_params *p)
{
    const struct vera *o = p->options;
    size_t r = 0, in = 0, out = 0;
    real *a = pb_values(p, 0, A, &r, &in), *b = pb_values(p, 0, B, NULL, &out);
    twister m;
    seed(&m, (uint32_t)o->seed);
    for (size_t i = 0; i < r * in; i++)
        a[i] = uniform(&m, sqrt(6 / (double)in));
    for (size_t i = 0; i < out; i++) // in the order of files, (out,r)
        for (size_t j = 0; j < r; j++)
            b[j * out + i] = uniform(&m, sqrt(6 / (double)r));
}

static pb_err init(const pb_params *p, const pb_init_args *args)
{
    const struct vera *o = p->options;
    project(p);
    for (size_t i = 0; i < args->config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t r = 0;
            real *d = pb_values(p, i, D_OF + t, NULL, &r);
            for (size_t j = 0; d && j < r; j++)
                d[j] = (real)o->d_initial;
        }
    return PB_OK;
}

static pb_err derive(const pb_params *p, const struct pb_model *backbone)
{
    (void)backbone;
    if (!((const struct vera *)p->options)->save)
        project(p);
    return PB_OK;
}

// ---------------------------------------------------------------- use

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct vera *o = options_;
    int t = (int)pb_site_linear(s);
    if (t < PB_N_LINEARS && pb_most_cols(c, D_OF + t))
        pb_scaled_low_rank(c, y, pb_dropout(c, x, o->dropout), A, D_OF + t, B, B_OF + t);
    return y;
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    size_t r = 0, in = 0, out = 0;
    const real *a = pb_values(p, 0, A, &r, &in), *b = pb_values(p, 0, B, NULL, &out);
    const real *d = pb_values(p, m->layer, D_OF + (int)m->linear, NULL, NULL);
    const real *lambda = pb_values(p, m->layer, B_OF + (int)m->linear, NULL, NULL);
#pragma omp parallel for
    for (size_t i = 0; i < (d ? m->out : 0); i++)
        for (size_t j = 0; j < r; j++) {
            real s = lambda[i] * b[j * out + i] * d[j];
            for (size_t k = 0; k < m->in; k++)
                m->w[i * m->in + k] += s * a[j * in + k];
        }
    return PB_OK;
}

static const pb_peft_key keys[] = {{"r", .option = "rank", .required = true},
                                   {"target_modules", .option = "targets", .required = true},
                                   {"projection_prng_key", .option = "seed"},
                                   {"save_projection", .option = "save_projection"},
                                   {"vera_dropout", .option = "dropout"},
                                   {"d_initial", .option = "d_initial"},
                                   {"exclude_modules", .selects = true},
                                   {"layers_to_transform", .selects = true},
                                   {"layers_pattern", .selects = true},
                                   {"bias", .only = "[\"none\"]"},
                                   {"fan_in_fan_out", .only = "[false]"},
                                   {"init_weights", .idle = true},
                                   {0}};

PB_METHOD(vera) = {
    .name = "vera",
    .doc = "vectors scale shared random low-rank updates of linears",
    .citation = "Kopiczko et al. 2024, arXiv 2310.11454",
    .formula =
        "y += b * (B (d * (A x)));  A, B frozen, random, shared by all linears;  d (r), b (out)",
    .bibtex = PB_ARXIV("kopiczko2023vera", "{VeRA}: Vector-based Random Matrix Adaptation",
                       "Kopiczko, Dawid J. and Blankevoort, Tijmen and Asano, Yuki M.", "2023",
                       "2310.11454"),
    .peft_type = "VERA",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct vera),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .init = init,
    .derive = derive,
    .site = site,
    .merge = merge,
};
