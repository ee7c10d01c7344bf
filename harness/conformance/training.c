// Checks of training: it learns, it goes on from a checkpoint with the same bits, levels move when
// they should.
#include "conformance/internal.h"

#include "core/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_seqs(void *s)
{
    pb_seqs_free(s);
    free(s);
}

// Random prompts, always the same response.
static pb_seqs *examples(conf *c, size_t n, size_t V, size_t shortest, size_t longest,
                         uint32_t which)
{
    pb_rng r = pb_rng_make(8, PB_STREAM_TEST, which);
    pb_seqs *s = calloc(1, sizeof *s);
    *s = (pb_seqs){.n = n, .longest = longest + 5};
    s->seq = malloc(n * sizeof *s->seq);
    s->tokens = malloc(n * (longest + 5) * sizeof *s->tokens);
    for (size_t i = 0; i < n; i++) {
        size_t P = shortest + pb_rng_below(&r, longest - shortest + 1);
        s->seq[i] = (pb_seq){s->n_tokens, (uint32_t)(P + 5), (uint32_t)P};
        for (size_t k = 0; k < P; k++)
            s->tokens[s->n_tokens++] = (int32_t)pb_rng_below(&r, V);
        for (size_t k = 0; k < 5; k++)
            s->tokens[s->n_tokens++] = (int32_t)(3 + 4 * k % 11);
    }
    (void)conf_keep(c, s, free_seqs);
    return s;
}

enum { MOST_STEPS = 64 };

typedef struct diary {
    trained *x;
    double loss[MOST_STEPS + 1], valid[MOST_STEPS + 1];
    size_t steps, resumed;
    const char *copy_from, *copy_to; // the first checkpoint is put aside
    bool copied;
    bool theta_moved[MOST_STEPS + 1], rest_moved[MOST_STEPS + 1];
    double theta_step[MOST_STEPS + 1]; // largest change of a second-level parameter
    real *was;
} diary;

static pb_err on_step(void *self, const pb_train_point *p)
{
    diary *d = self;
    d->loss[p->step] = p->loss;
    d->steps = p->step;
    const pb_params *q = d->x->p;
    for (size_t i = 0; i < q->layout->n && d->was; i++) {
        const pb_spec *s = &q->layout->spec[i];
        for (size_t k = s->offset; k < s->offset + s->rows * s->cols; k++) {
            double change = fabs((double)q->v[k] - (double)d->was[k]);
            if (s->flags & PB_THETA && change > d->theta_step[p->step])
                d->theta_step[p->step] = change;
            if (change != 0 && s->flags & PB_THETA)
                d->theta_moved[p->step] = true;
            else if (change != 0)
                d->rest_moved[p->step] = true;
        }
    }
    if (d->was)
        memcpy(d->was, q->v, q->layout->size * sizeof *d->was);
    return PB_OK;
}

static pb_err on_valid(void *self, size_t step, double loss)
{
    ((diary *)self)->valid[step] = loss;
    return PB_OK;
}

static pb_err on_resumed(void *self, size_t step)
{
    ((diary *)self)->resumed = step;
    return PB_OK;
}

static pb_err on_saved(void *self)
{
    diary *d = self;
    pb_file f;
    if (d->copied || !d->copy_to)
        return PB_OK;
    PB_TRY(pb_file_map(&f, d->copy_from));
    d->copied = true;
    pb_err err = pb_file_write(d->copy_to, f.data, f.size);
    pb_file_unmap(&f);
    return err;
}

static pb_train_options few_steps(const pb_subject *s, size_t steps)
{
    pb_train_options o;
    pb_train_defaults(&o);
    o.steps = steps;
    o.batch = 4;
    o.warmup = 0;
    o.schedule = PB_CONSTANT;
    o.eval_every = 0;
    o.lr = s->m->lr > 0 ? s->m->lr : 1e-3;
    return o;
}

static pb_err train(trained *x, const pb_seqs *data, const pb_seqs *valid,
                    const pb_train_options *o, diary *d, pb_train_result *out)
{
    d->x = x;
    pb_train_hooks h = {d, on_step, on_valid, on_resumed, on_saved, NULL};
    return pb_train(x->m, x->a, data, valid, o, &h, out);
}

static void free_adapter(void *a)
{
    pb_adapter_free(a);
}

static pb_err mean_loss(conf *c, const trained *x, const pb_seqs *data, double *loss)
{
    pb_adapter *f = NULL;
    if (x->a) {
        PB_TRY(pb_adapter_folded(&f, x->a));
        (void)conf_keep(c, f, free_adapter);
        PB_TRY(pb_adapter_serve(f, x->m));
    }
    return pb_mean_loss(x->m, f, data, loss);
}

pb_err check_learns(conf *c, const pb_subject *s, size_t t)
{
    bool any = true;
    if (!s->m->backbone)
        PB_TRY(conf_has(c, s, t, 0, &any));
    if (!any)
        SKIP(c, "%s has no parameters", s->m->name);
    trained x;
    pb_train_result out;
    double before, after;
    PB_TRY(conf_trained(c, s, t, false, &x));
    pb_seqs *data = examples(c, 40, x.m->config.vocab, 2, 9, 1);
    pb_train_options o = few_steps(s, 50);
    diary d = {0};
    o.lr *= 2;
    PB_TRY(mean_loss(c, &x, data, &before));
    PB_TRY(train(&x, data, data, &o, &d, &out));
    PB_TRY(mean_loss(c, &x, data, &after));
    if (out.steps != 50 || out.best_valid != after)
        return WRONG(NULL, "after %zu steps the loss is %g, validation said %g", out.steps, after,
                     out.best_valid);
    if (x.a) {
        size_t n = x.p->layout->size;
        real *was = conf_alloc(c, n, sizeof *was);
        memcpy(was, x.p->v, n * sizeof *was);
        PB_TRY(pb_adapter_derive(x.a, x.m));
        PB_TRY(conf_same("what is derived was not kept up while training", "use `updated`", was,
                         x.p->v, 1, n));
    }
    // A single query or key vector can do little on a backbone that knows nothing.
    return after < 0.99 * before
               ? PB_OK
               : WRONG(
                     "is the default learning rate too small, or a factor at zero with no way out?",
                     "the loss went from %g to %g in 50 steps at twice the default rate", before,
                     after);
}

pb_err check_resume(conf *c, const pb_subject *s, size_t t)
{
    char one[400], two[400];
    PB_TRY(pb_path(one, sizeof one, "%s/one", c->folder));
    PB_TRY(pb_path(two, sizeof two, "%s/two", c->folder));
    pb_seqs *data = examples(c, 40, c->backbone[t]->config.vocab, 2, 9, 2);
    pb_seqs *valid = examples(c, 9, c->backbone[t]->config.vocab, 2, 12, 3);
    pb_train_options o = few_steps(s, 13);
    o.schedule = PB_COSINE;
    o.warmup = 2;
    o.accumulate = 2;
    o.eval_every = 4;
    o.checkpoint_every = 6;
    o.checkpoint = one;
    diary whole = {.copy_from = one, .copy_to = two}, rest = {0};
    trained x, y;
    pb_train_result a, b;
    PB_TRY(conf_trained(c, s, t, false, &x));
    PB_TRY(conf_trained(c, s, t, false, &y));
    PB_TRY(train(&x, data, valid, &o, &whole, &a));
    if (!whole.copied || pb_exists(one))
        return WRONG(NULL, "a checkpoint was %s", whole.copied ? "left behind" : "not written");
    o.checkpoint = two;
    PB_TRY(train(&y, data, valid, &o, &rest, &b));
    if (rest.resumed != 6)
        return WRONG(NULL, "it went on from step %zu, not 6", rest.resumed);
    for (size_t i = 1; i <= 13; i++) {
        double was = i <= 6 ? 0 : whole.loss[i], was_valid = i <= 6 ? 0 : whole.valid[i];
        if (rest.loss[i] != was || rest.valid[i] != was_valid)
            return WRONG("does the method keep something outside its parameters?",
                         "step %zu after a checkpoint: loss %.9g, validation %.9g; uninterrupted "
                         "%.9g, %.9g",
                         i, rest.loss[i], rest.valid[i], was, was_valid);
    }
    PB_TRY(conf_same("values after a checkpoint", NULL, y.p->v, x.p->v, 1, x.p->layout->size));
    return a.tokens == b.tokens && a.best_step == b.best_step && a.best_valid == b.best_valid &&
                   a.first_loss == b.first_loss
               ? PB_OK
               : WRONG(NULL, "a run that went on has other totals");
}

// A checkpoint of the same size that belongs to other options or another seed is not continued.
pb_err check_other_work(conf *c, const pb_subject *s, size_t t)
{
    if (t || *s->options)
        SKIP(c, "once per method");
    char one[400], two[400];
    PB_TRY(pb_path(one, sizeof one, "%s/one", c->folder));
    PB_TRY(pb_path(two, sizeof two, "%s/two", c->folder));
    pb_seqs *data = examples(c, 40, c->backbone[t]->config.vocab, 2, 9, 2);
    pb_train_options o = few_steps(s, 3);
    pb_train_result out;
    o.checkpoint_every = 1;
    o.checkpoint = one;
    diary d = {.copy_from = one, .copy_to = two};
    trained x;
    pb_file f;
    PB_TRY(conf_trained(c, s, t, false, &x));
    PB_TRY(train(&x, data, data, &o, &d, &out));
    PB_TRY(pb_file_map(&f, two));
    void *saved = conf_alloc(c, f.size, 1);
    size_t size = f.size;
    memcpy(saved, f.data, f.size);
    pb_file_unmap(&f);
    o.checkpoint_every = 0;
    o.seed++;
    PB_TRY(pb_file_write(one, saved, size));
    d = (diary){0};
    PB_TRY(train(&x, data, data, &o, &d, &out));
    o.seed--;
    if (d.resumed)
        return WRONG(NULL, "it continued the work of another seed");
    for (const pb_option *p = s->m->options; x.a && p->name; p++) {
        pb_subject other = *s;
        trained y;
        if (p->type == PB_OPT_REAL)
            snprintf(other.options, sizeof other.options, "%s=0.0625", p->name);
        else if (p->type == PB_OPT_BOOL)
            snprintf(other.options, sizeof other.options, "%s=%s", p->name,
                     *p->def == 't' ? "false" : "true");
        if (!*other.options || (p->type == PB_OPT_REAL && !(p->min <= 0.0625 && p->max >= 0.0625)))
            continue;
        PB_TRY(conf_trained(c, &other, t, false, &y));
        json_t *a = pb_options_to_json(s->m, x.a->options);
        json_t *b = pb_options_to_json(s->m, y.a->options);
        bool differ = !json_equal(a, b);
        json_decref(a);
        json_decref(b);
        if (!differ || y.p->layout->size != x.p->layout->size)
            continue;
        PB_TRY(pb_file_write(one, saved, size));
        d = (diary){0};
        PB_TRY(train(&y, data, data, &o, &d, &out));
        if (d.resumed)
            return WRONG(NULL, "it continued the work of other options: %s", other.options);
    }
    return PB_OK;
}

// Second-level parameters move in their own steps only, at their own rate; frozen ones never.
pb_err check_bilevel(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    bool any;
    PB_TRY(conf_has(c, s, t, PB_THETA, &any));
    if (!any)
        SKIP(c, "%s has no second level with these options", s->m->name);
    trained x;
    PB_TRY(conf_trained(c, s, t, false, &x));
    pb_bilevel bi = {.every = 1};
    bool on = s->m->bilevel && s->m->bilevel(x.a->options, &bi);
    pb_seqs *data = examples(c, 40, x.m->config.vocab, 2, 9, 5);
    pb_seqs *valid = examples(c, 8, x.m->config.vocab, 2, 12, 6);
    pb_train_options o = few_steps(s, 7);
    pb_train_result out;
    for (int still = 0; still < 2; still++) { // then with the first level at rest
        diary d = {.was = conf_alloc(c, x.p->layout->size, sizeof *d.was)};
        memcpy(d.was, x.p->v, x.p->layout->size * sizeof *d.was);
        o.lr = still ? 0 : o.lr;
        PB_TRY(train(&x, data, valid, &o, &d, &out));
        for (size_t i = 1; i <= 7; i++) {
            // Second-level gradients are zero while the generator's output is multiplied by zero.
            bool now = on && i % bi.every == 0;
            if (d.theta_moved[i] != now)
                return WRONG("`bilevel` says when", "step %zu: the second level %s", i,
                             now ? "rests" : "moves");
            if (d.rest_moved[i] != !still)
                return WRONG(NULL, "step %zu: the first level %s", i, still ? "moves" : "rests");
            // Adam's first step moves what has a gradient by the rate, later ones by about the
            // rate; a float near 1 is known to 1.2e-7.
            bool first = i == bi.every;
            double low = (first ? 0.9 : 0.1) * bi.lr - 1.2e-7;
            double high = (first ? 1.1 : 3) * bi.lr + 1.2e-7;
            if (now && !(d.theta_step[i] > low && d.theta_step[i] < high))
                return WRONG(NULL, "step %zu: the second level moves by %g at the rate %g", i,
                             d.theta_step[i], bi.lr);
        }
    }
    return PB_OK;
}
