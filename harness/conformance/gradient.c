// Gradients against differences of the loss, along one random direction per matrix (which is as
// good as all its coordinates: a wrong one shows in almost every direction) and its steepest
// coordinate; signed, at a random point. In double to six digits; in float coarsely, which still
// sees a missing term or a wrong sign or factor.
#include "conformance/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 84 };

typedef struct objective {
    trained x;
    pb_step *st;
    pb_batch b;
    int32_t *target;
    real weight[ROWS], nll[ROWS];
} objective;

// A batch, its weights and a step for it, at a random point.
static pb_err pose(conf *c, const pb_subject *s, size_t t, bool recompute, objective **out)
{
    static const pb_segment seg[] = {{.row0 = 0, .n_rows = 5, .n_prompt = 2, .slot = -1},
                                     {.row0 = 5, .n_rows = 71, .n_prompt = 31, .slot = -1},
                                     {.row0 = 76, .n_rows = 8, .n_prompt = 8, .slot = -1}};
    int32_t *tokens;
    pb_segment *own = conf_alloc(c, 3, sizeof *own);
    pb_rng r = pb_rng_make(6, PB_STREAM_TEST, 1);
    objective *o = *out = conf_alloc(c, 1, sizeof *o);
    PB_TRY(conf_trained(c, s, t, true, &o->x));
    size_t V = o->x.m->config.vocab;
    PB_TRY(conf_tokens(c, ROWS, V, 13, &tokens));
    PB_TRY(conf_tokens(c, ROWS, V, 14, &o->target));
    o->b = (pb_batch){ROWS, 3, tokens, own};
    for (size_t i = 0; i < 3; i++) {
        own[i] = seg[i];
        own[i].tenant = o->x.a ? 0 : -1;
    }
    for (size_t i = 0; i < ROWS; i++) {
        o->weight[i] = (real)(0.1 + pb_rng_uniform(&r));
        o->target[i] = i % 7 == 3 ? -1 : o->target[i];
    }
    pb_step_limits limits = {.rows = ROWS, .segments = 3, .train = true, .recompute = recompute};
    return conf_step(c, o->x.m, &o->x.a, o->x.a ? 1 : 0, &limits, &o->st);
}

static double loss_at(objective *o, bool back)
{
    double sum = 0;
    if (!o->x.a)
        pb_model_repack(o->x.m);
    pb_mat *h = pb_forward(o->st, &o->b, true, 3, 4);
    pb_step_loss(o->st, h, o->target, o->weight, o->nll, NULL);
    if (back)
        pb_step_backward(o->st);
    for (size_t r = 0; r < o->b.n_rows; r++)
        if (o->target[r] >= 0)
            sum += (double)o->weight[r] * (double)o->nll[r];
    return sum;
}

static double moved(objective *o, real *v, const real *was, const double *u, size_t n, double h)
{
    for (size_t i = 0; i < n; i++)
        v[i] = was[i] + (real)(h * u[i]);
    return loss_at(o, false);
}

// Slope along u (n values at v), which must agree with `slope` for one of the step sizes: a large
// step errs by curvature, a small one by rounding, a wrong gradient at all of them.
static pb_err slope_is(conf *c, objective *o, const char *what, real *v, const double *u, size_t n,
                       double slope, double scale)
{
    static const double fine[] = {1e-4, 1e-3, 1e-5, 1e-6, 0}, coarse[] = {0.02, 4e-3, 1e-3, 0.1, 0};
    double err = INFINITY, best = 0, steep = fabs(slope) + scale;
    double tol = IS_DOUBLE ? 1e-6 * steep + 1e-10 : 0.3 * steep + 4e-3;
    real *was = conf_alloc(c, n, sizeof *was);
    memcpy(was, v, n * sizeof *was);
    for (const double *size = IS_DOUBLE ? fine : coarse; *size > 0 && !(err <= tol); size++) {
        double h = *size; // in float, such that the loss should change by about so much
        if (!IS_DOUBLE)
            h /= fmax(1, steep);
        double d = (moved(o, v, was, u, n, h) - moved(o, v, was, u, n, -h)) / (2 * h);
        if (!(fabs(d - slope) <= tol)) // without the error of order h^2
            d = (4 * d -
                 (moved(o, v, was, u, n, 2 * h) - moved(o, v, was, u, n, -2 * h)) / (4 * h)) /
                3;
        if (!(fabs(d - slope) >= err)) {
            err = fabs(d - slope);
            best = d;
        }
    }
    memcpy(v, was, n * sizeof *was);
    return err <= tol
               ? PB_OK
               : WRONG("does a hook compute on values itself? operations alone have gradients",
                       "%s: the gradient says %.10g, differences say %.10g", what, slope, best);
}

// `reached`: values that some point's gradient reaches.
static pb_err one_matrix(conf *c, objective *o, const pb_spec *p, const real *grad,
                         const bool *reached, pb_rng *r)
{
    size_t n = p->rows * p->cols, top = 0;
    real *v = o->x.p->v + p->offset;
    const real *d = grad + p->offset;
    char what[160];
    double norm = 0, slope = 0;
    snprintf(what, sizeof what, "layer %d %s", p->layer, p->name);
    for (size_t k = 0; k < n; k++) {
        norm += (double)d[k] * (double)d[k];
        top = fabs((double)d[k]) > fabs((double)d[top]) ? k : top;
        if (p->flags & PB_FROZEN && d[k] != 0)
            return WRONG(NULL, "%s is frozen and has a gradient", what);
    }
    if (p->flags & PB_FROZEN)
        return PB_OK;
    bool anything = false;
    for (size_t k = 0; k < n; k++)
        anything |= reached[p->offset + k];
    if (!anything && !(p->flags & PB_CHOSEN))
        return WRONG("give it to an operation, flag it PB_FROZEN, or leave it out of `layout`",
                     "%s has no gradient: nothing that is trained reads it", what);
    // A column that no gradient reaches is one that the forward pass does not read.
    for (size_t k = 0; k < p->cols && !(p->flags & PB_CHOSEN); k++) {
        bool any = false;
        for (size_t j = 0; j < p->rows; j++)
            any |= reached[p->offset + j * p->cols + k];
        if (!any)
            return WRONG("is its shape in `layout` too large?",
                         "%s: column %zu of %zu has no gradient: nothing reads it", what, k,
                         p->cols);
    }
    double *u = conf_alloc(c, n, sizeof *u);
    for (size_t k = 0; k < n; k++) {
        u[k] = pb_rng_normal(r) / sqrt((double)n);
        slope += u[k] * (double)d[k];
    }
    double typical = sqrt(norm / (double)n);
    PB_TRY(slope_is(c, o, what, v, u, n, slope, typical));
    if (IS_DOUBLE)
        return slope_is(c, o, what, v + top, &(double){1}, 1, (double)d[top], typical);
    // Float's rounding hides small slopes: the steepest direction is that of the gradient.
    for (size_t k = 0; k < n; k++)
        u[k] = norm > 0 ? (double)d[k] / sqrt(norm) : 0;
    return slope_is(c, o, what, v, u, n, sqrt(norm), 0);
}

pb_err check_gradient(conf *c, const pb_subject *s, size_t t)
{
    bool chosen = false;
    if (!s->m->backbone)
        PB_TRY(conf_has(c, s, t, PB_CHOSEN, &chosen));
    if (chosen && !IS_DOUBLE)
        SKIP(c, "in float, differences are so long that another expert is chosen on the way");
    bool any = true;
    if (!s->m->backbone)
        PB_TRY(conf_has(c, s, t, 0, &any));
    if (!any)
        SKIP(c, "%s has no parameters", s->m->name);
    pb_rng r = pb_rng_make(6, PB_STREAM_TEST, 0);
    objective *o;
    PB_TRY(pose(c, s, t, false, &o));
    const pb_params *p = o->x.p;
    // The head's gradient is made with the loss, so later losses add to it: keep a copy.
    size_t size = p->layout->size;
    real *grad = conf_alloc(c, size, sizeof *grad);
    bool *reached = conf_alloc(c, size, sizeof *reached);
    real *was = conf_alloc(c, size, sizeof *was);
    memcpy(was, p->v, size * sizeof *was);
    // From a few points, of which the last is compared: a unit of ReLU may rest at one of them.
    for (int point = o->x.a ? 3 : 0; point >= 0; point--) {
        if (point)
            conf_scatter(p, (uint64_t)point);
        else
            memcpy(p->v, was, size * sizeof *was);
        memset(p->d, 0, size * sizeof *p->d);
        loss_at(o, true);
        for (size_t k = 0; k < size; k++)
            reached[k] |= p->d[k] != 0;
    }
    memcpy(grad, p->d, size * sizeof *grad);
    for (size_t i = 0; i < p->layout->n; i++)
        PB_TRY(one_matrix(c, o, &p->layout->spec[i], grad, reached, &r));
    return PB_OK;
}

// Activations that are made again for the backward pass are those of the forward pass: dropout
// draws the same numbers, state and prefixes come out the same.
pb_err check_again(conf *c, const pb_subject *s, size_t t)
{
    const char *hint = "does a hook keep something between its calls, or draw its own numbers?";
    objective *kept, *again;
    PB_TRY(pose(c, s, t, false, &kept));
    PB_TRY(pose(c, s, t, true, &again));
    for (int step = 0; step < 2; step++) {
        loss_at(kept, true);
        loss_at(again, true);
        PB_TRY(conf_same("losses with recomputation", hint, again->nll, kept->nll, 1, ROWS));
    }
    return conf_same("gradients with recomputation", hint, again->x.p->d, kept->x.p->d, 1,
                     kept->x.p->layout->size);
}
