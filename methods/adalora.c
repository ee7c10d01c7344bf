// AdaLoRA: low-rank updates in the form of a singular value decomposition, whose ranks are given to
// the linears that need them:
//
//   y += s B diag(E) A x,   A (r,in), E (r), B (out,r),   s = alpha / r,   r = init_r at first.
//
// The loss has the mean of ||A A^T - I|| and ||B^T B - I|| added, times `orth`. After a step, each
// value w with gradient g has its sensitivity I = |w g| smoothed, and what I differs from that:
//
//   S <- beta1 S + (1 - beta1) I,   U <- beta2 U + (1 - beta2) |I - S|,
//
// and triplet j the importance s(E_j) + mean_k s(A_jk) + mean_k s(B_kj), s = S U. Of all triplets
// of the adapter the b most important keep their E_j, the others' become zero. b falls from all to
// target_r per linear, as a cubic, between the shares tinit and 1 - tfinal of the steps; from there
// on the choice is final. A budget counts target_r. Files leave out what was pruned.
//
// Source: Zhang et al. 2023, arXiv 2303.10512; the norm (not its square), its mean, the small 1e-5
// in alpha / (r + 1e-5) and the update of the statistics after the step as in the authors' code and
// Hugging Face PEFT, where tinit and tfinal are numbers of steps.
#include "methods/method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct adalora {
    long target, init, every;
    double alpha, dropout, tinit, tfinal, orth, beta1, beta2;
    const char *targets, *ranks;
};

static const char *const linears[] = {PB_LINEAR_NAMES};

static const pb_option options[] = {
    {"target_r", PB_OPT_INT, offsetof(struct adalora, target), "8", 1, 4096, NULL,
     "average rank at the end", true},
    {"init_r", PB_OPT_INT, offsetof(struct adalora, init), "0", 0, 8192, NULL,
     "rank at the start; 0: one and a half times target_r", true},
    {"alpha", PB_OPT_REAL, offsetof(struct adalora, alpha), "16", 0, 1e6, NULL,
     "scale: alpha / init_r; 0: 1", true},
    {"dropout", PB_OPT_REAL, offsetof(struct adalora, dropout), "0", 0, 0.95, NULL,
     "dropout on the input of A while training", true},
    {"targets", PB_OPT_SITES, offsetof(struct adalora, targets), "q,k,v,o,gate,up,down", 0, 0,
     linears, "linears to adapt, of all layers or of some: q,v@0-3", true},
    {"tinit", PB_OPT_REAL, offsetof(struct adalora, tinit), "0.1", 0, 1, NULL,
     "share of the steps before the budget falls", true},
    {"tfinal", PB_OPT_REAL, offsetof(struct adalora, tfinal), "0.3", 0, 1, NULL,
     "share of the steps after it has fallen", true},
    {"every", PB_OPT_INT, offsetof(struct adalora, every), "1", 1, 1000000, NULL,
     "steps between two allocations", true},
    {"orth", PB_OPT_REAL, offsetof(struct adalora, orth), "0.5", 0, 1e3, NULL,
     "weight of the regulariser", true},
    {"beta1", PB_OPT_REAL, offsetof(struct adalora, beta1), "0.85", 0, 1, NULL,
     "smoothing of sensitivities", true},
    {"beta2", PB_OPT_REAL, offsetof(struct adalora, beta2), "0.85", 0, 1, NULL,
     "smoothing of their uncertainty", true},
    {"ranks", PB_OPT_SITE_VALUES, offsetof(struct adalora, ranks), "", 0, 8192, linears,
     "ranks that pruning has left, where it has", true},
    {0}};

static const double lr_grid[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0};

enum { A_OF, E_OF = PB_N_LINEARS, B_OF = 2 * PB_N_LINEARS };

static pb_err prepare(void *options_, const pb_config *config)
{
    struct adalora *o = options_;
    if (!*o->targets)
        return pb_fail(PB_USAGE, "e.g. targets=q,v", "AdaLoRA has no target");
    if (!o->init)
        o->init = o->target + (o->target + 1) / 2;
    if (o->init < o->target)
        return pb_fail(PB_USAGE, "it starts above its target", "AdaLoRA: init_r=%ld is below %ld",
                       o->init, o->target);
    if (!(o->tinit + o->tfinal < 1))
        return pb_fail(PB_USAGE, "their sum must be less than 1",
                       "AdaLoRA: tinit=%g and tfinal=%g leave no steps to prune in", o->tinit,
                       o->tfinal);
    PB_TRY(pb_sites_fit(o->targets, config));
    return pb_sites_fit(o->ranks, config);
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct adalora *o = options_;
    double r0 = (double)o->init, scale = (o->alpha > 0 ? o->alpha : r0) / (r0 + 1e-5);
    for (int i = 0; i < (int)config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            pb_linear_id id = (pb_linear_id)t;
            size_t in = pb_linear_in(config, id), out = pb_linear_out(config, id);
            double left = r0;
            char name[96];
            if (!pb_site_listed(o->targets, (size_t)i, id, NULL))
                continue;
            pb_site_listed(o->ranks, (size_t)i, id, &left);
            size_t r = (size_t)left, kept = r < (size_t)o->target ? r : (size_t)o->target;
            if (!r)
                continue;
            snprintf(name, sizeof name, "%s.lora_A", pb_linear_path(id));
            pb_spec *A = pb_layout_add(l, i, A_OF + t, name, r, in, PB_INIT_NORMAL, 0.02, 0);
            if (A)
                A->counted = kept * in;
            snprintf(name, sizeof name, "%s.lora_E", pb_linear_path(id));
            pb_spec *E = pb_layout_add(l, i, E_OF + t, name, 1, r, PB_INIT_ZERO, 0,
                                       PB_TRANSPOSED | PB_NO_DECAY);
            if (E)
                E->counted = kept;
            snprintf(name, sizeof name, "%s.lora_B", pb_linear_path(id));
            pb_spec *B =
                pb_layout_add(l, i, B_OF + t, name, r, out, PB_INIT_NORMAL, 0.02, PB_TRANSPOSED);
            if (!B)
                return pb_fail(PB_MEMORY, NULL, "no memory for the parameters of AdaLoRA");
            B->counted = kept * out;
            B->scale = scale;
        }
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *options_, pb_site s, pb_mat *x, pb_mat *y)
{
    const struct adalora *o = options_;
    int t = (int)pb_site_linear(s);
    if (t < PB_N_LINEARS && pb_most_rows(c, A_OF + t))
        pb_scaled_low_rank(c, y, pb_dropout(c, x, o->dropout), A_OF + t, E_OF + t, B_OF + t, -1);
    return y;
}

// ---------------------------------------------------------------- training

// d ||M M^T - I|| = 2 (M M^T - I) M / ||M M^T - I||, for M (r,n).
static pb_err orthogonal(real *d, const real *m, size_t r, size_t n, double weight)
{
    double *C = malloc(r * r * sizeof *C), square = 0;
    if (!C)
        return pb_fail(PB_MEMORY, NULL, "no memory for the products of %zu rows", r);
#pragma omp parallel for
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < r; j++) {
            C[i * r + j] = i == j ? -1 : 0;
            for (size_t k = 0; k < n; k++)
                C[i * r + j] += (double)m[i * n + k] * (double)m[j * n + k];
        }
    for (size_t i = 0; i < r * r; i++)
        square += C[i] * C[i];
    double by = square > 0 ? 2 * weight / sqrt(square) : 0;
#pragma omp parallel for
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < r; j++)
            for (size_t k = 0; k < n; k++)
                d[i * n + k] += (real)(by * C[i * r + j] * (double)m[j * n + k]);
    free(C);
    return PB_OK;
}

static bool is_E(const pb_spec *s)
{
    return s->id >= E_OF && s->id < B_OF;
}

static pb_err gradient(const pb_params *p, const pb_train_args *args)
{
    const struct adalora *o = p->options;
    const pb_layout *l = p->layout;
    (void)args;
    for (size_t i = 0; i < l->n && o->orth > 0; i++) {
        const pb_spec *s = &l->spec[i];
        if (!is_E(s)) // two thirds are A and B
            PB_TRY(orthogonal(p->d + s->offset, p->v + s->offset, s->rows, s->cols,
                              o->orth / (2 * (double)l->n / 3)));
    }
    return PB_OK;
}

static size_t step_of(double share, size_t steps)
{
    return (size_t)(share * (double)steps);
}

static size_t settles(const void *options_, size_t steps)
{
    return steps - step_of(((const struct adalora *)options_)->tfinal, steps);
}

typedef struct triplet {
    double importance;
    size_t at; // of its E in the block
} triplet;

static int by_importance(const void *a, const void *b)
{
    const triplet *x = a, *y = b;
    if (x->importance != y->importance)
        return x->importance < y->importance ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

// Mean of S U over a row of a matrix.
static double mean(const real *S, const real *U, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += (double)S[k] * (double)U[k];
    return sum / (double)n;
}

static pb_err updated(const pb_params *p, const pb_train_args *args)
{
    const struct adalora *o = p->options;
    const pb_layout *l = p->layout;
    real *S = args->statistics, *U = S + l->size;
    size_t first = step_of(o->tinit, args->steps), last = settles(o, args->steps), all = 0, n = 0;
    size_t linears_ = l->n / 3, target = linears_ * (size_t)o->target, budget = target;
    if (args->step < last) {
        const double b1 = o->beta1, b2 = o->beta2;
#pragma omp parallel for
        for (size_t k = 0; k < l->size; k++) { // padding stays zero
            double now = fabs((double)p->v[k] * (double)p->d[k]);
            S[k] = (real)(b1 * (double)S[k] + (1 - b1) * now);
            U[k] = (real)(b2 * (double)U[k] + (1 - b2) * fabs(now - (double)S[k]));
        }
        if (args->step <= first || args->step % (size_t)o->every)
            return PB_OK;
    }
    for (size_t i = 0; i < l->n; i++)
        all += is_E(&l->spec[i]) ? l->spec[i].cols : 0;
    if (args->step < last && all > target) {
        double left = 1 - (double)(args->step - first) / (double)(last - first);
        budget += (size_t)((double)(all - target) * left * left * left);
    }
    triplet *x = malloc((all + 1) * sizeof *x);
    if (!x)
        return pb_fail(PB_MEMORY, NULL, "no memory for the importance of %zu triplets", all);
    for (size_t i = 0; i < l->n; i++) {
        const pb_spec *E = &l->spec[i];
        size_t layer = (size_t)E->layer;
        if (!is_E(E))
            continue;
        const pb_spec *A = pb_layout_find(l, layer, E->id - E_OF + A_OF);
        const pb_spec *B = pb_layout_find(l, layer, E->id - E_OF + B_OF);
        for (size_t j = 0; j < E->cols; j++) {
            size_t e = E->offset + j, a = A->offset + j * A->cols, b = B->offset + j * B->cols;
            x[n++] = (triplet){(double)S[e] * (double)U[e] + mean(S + a, U + a, A->cols) +
                                   mean(S + b, U + b, B->cols),
                               e};
        }
    }
    qsort(x, n, sizeof *x, by_importance);
    for (size_t i = 0; i + budget < n; i++)
        p->v[x[i].at] = 0;
    free(x);
    return PB_OK;
}

// ---------------------------------------------------------------- files

// Triplets whose E is zero are left out; a fresh adapter, where all are, is whole.
static bool trim(void *to, const pb_params *p)
{
    struct adalora *o = to;
    const pb_layout *l = p->layout;
    double *left = malloc(l->layers * PB_N_LINEARS * sizeof *left);
    size_t kept = 0, all = 0;
    for (size_t i = 0; left && i < l->layers * PB_N_LINEARS; i++) {
        size_t r = 0;
        int t = (int)(i % PB_N_LINEARS);
        const real *E = pb_values(p, i / PB_N_LINEARS, E_OF + t, NULL, &r);
        bool target = pb_site_listed(o->targets, i / PB_N_LINEARS, (pb_linear_id)t, NULL);
        left[i] = target ? 0 : NAN;
        for (size_t j = 0; E && j < r; j++)
            left[i] += E[j] != 0;
        kept += target ? (size_t)left[i] : 0;
        all += E ? r : 0;
    }
    const char *ranks = left && kept && kept < all ? pb_sites_list(left, l->layers, true) : NULL;
    free(left);
    if (ranks)
        o->ranks = ranks;
    return ranks != NULL;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    for (size_t i = 0; i < config->layers; i++)
        for (int t = 0; t < PB_N_LINEARS; t++) {
            size_t r = 0, in = 0, out = 0, at = 0;
            const real *E = pb_values(from, i, E_OF + t, NULL, &r);
            const real *A = pb_values(from, i, A_OF + t, NULL, &in);
            const real *B = pb_values(from, i, B_OF + t, NULL, &out);
            real *e = pb_values(to, i, E_OF + t, NULL, NULL);
            real *a = pb_values(to, i, A_OF + t, NULL, NULL);
            real *b = pb_values(to, i, B_OF + t, NULL, NULL);
            for (size_t j = 0; e && j < r; j++) {
                if (E[j] == 0)
                    continue;
                e[at] = E[j];
                for (size_t k = 0; k < in; k++)
                    a[at * in + k] = A[j * in + k];
                for (size_t k = 0; k < out; k++)
                    b[at * out + k] = B[j * out + k];
                at++;
            }
        }
}

static pb_err merge(const pb_params *p, const pb_merge_args *m)
{
    int t = (int)m->linear;
    size_t r = 0;
    const real *a = pb_values(p, m->layer, A_OF + t, &r, NULL);
    const real *e = pb_values(p, m->layer, E_OF + t, NULL, NULL);
    const real *b = pb_values(p, m->layer, B_OF + t, NULL, NULL);
    const pb_spec *B = pb_layout_find(p->layout, m->layer, B_OF + t);
#pragma omp parallel for
    for (size_t i = 0; i < (a ? m->out : 0); i++)
        for (size_t j = 0; j < r; j++) {
            real s = (real)B->scale * b[j * m->out + i] * e[j];
            for (size_t k = 0; k < m->in; k++)
                m->w[i * m->in + k] += s * a[j * m->in + k];
        }
    return PB_OK;
}

static const pb_peft_key keys[] = {
    {"init_r", .option = "init_r", .required = true},
    {"target_r", .option = "target_r"},
    {"lora_alpha", .option = "alpha", .required = true},
    {"lora_dropout", .option = "dropout"},
    {"target_modules", .option = "targets", .required = true},
    {"rank_pattern", .option = "ranks", .ends = ".lora_E", .length = "init_r"},
    {"orth_reg_weight", .option = "orth"},
    {"beta1", .option = "beta1"},
    {"beta2", .option = "beta2"},
    {"exclude_modules", .selects = true},
    {"layers_to_transform", .selects = true},
    {"layers_pattern", .selects = true},
    // PEFT wants a number of steps, even where nothing is trained.
    {"total_step", .only = "[1]", .idle = true},
    {"tinit", .idle = true},
    {"tfinal", .idle = true},
    {"deltaT", .idle = true},
    {"r", .idle = true},
    {"use_rslora", .idle = true},
    {"alpha_pattern", .idle = true},
    {"bias", .only = "[\"none\"]"},
    {"fan_in_fan_out", .only = "[false]"},
    {"init_lora_weights", .idle = true},
    {"use_dora", .only = "[null, false]"},
    {"use_qalora", .only = "[null, false]"},
    {"lora_bias", .only = "[null, false]"},
    {"loftq_config", .only = "[null, {}]"},
    {"layer_replication", .only = "[null, []]"},
    {"trainable_token_indices", .only = "[null, [], {}]"},
    {"target_parameters", .only = "[null, []]"},
    {"megatron_config", .only = "[null]"},
    {"megatron_core", .idle = true},
    {"eva_config", .idle = true},
    {"corda_config", .idle = true},
    {0}};

PB_METHOD(adalora) = {
    .name = "adalora",
    .doc = "low-rank updates that give the ranks to the linears that need them",
    .citation = "Zhang et al. 2023, arXiv 2303.10512",
    .formula = "y += s B diag(E) A x;  A (r,in), E (r,1), B (out,r), s = alpha / r",
    .bibtex =
        PB_ARXIV("zhang2023adalora",
                 "{AdaLoRA}: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
                 "Zhang, Qingru and Chen, Minshuo and Bukharin, Alexander and Karampatziakis, "
                 "Nikos and He, Pengcheng and Cheng, Yu and Chen, Weizhu and Zhao, Tuo",
                 "2023", "2303.10512"),
    .peft_type = "ADALORA",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct adalora),
    .knob = "target_r",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 3e-3,
    .prepare = prepare,
    .layout = layout,
    .site = site,
    .gradient = gradient,
    .updated = updated,
    .statistics = 2,
    .settles = settles,
    .trim = trim,
    .fold_values = fold_values,
    .merge = merge,
};
