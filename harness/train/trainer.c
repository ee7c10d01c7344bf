// The training loop, scoring, and exact checkpoints.
//
// A checkpoint is one safetensors file with values, both AdamW moments, the best values so far, and
// the counters; the data order is a function of seed and step, so the continued run's losses are
// bitwise those of an uninterrupted one.
//
// Several processes share the batches of a step. A batch's gradients are made from zero by one of
// them and added in the order of the batches, every number by the process in whose slice it lies;
// so the sum is the same bits for any number of processes. Updates are made by all alike.
#include "train/trainer.h"

#include "core/clock.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/ranks.h"
#include "model/tensors.h"
#include "tensor/gemm.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pb_train_defaults(pb_train_options *o)
{
    *o = (pb_train_options){.steps = 200,
                            .batch = 16,
                            .accumulate = 1,
                            .lr = 1e-3,
                            .floor = 0,
                            .schedule = PB_LINEAR,
                            .warmup = 12,
                            .adamw = {0.9, 0.999, 1e-8, 0.0},
                            .clip = 1,
                            .eval_every = 50,
                            .patience = 10,
                            .seed = 1};
}

// ---------------------------------------------------------------- batches

typedef struct feed { // a batch in the form a step takes
    int32_t *tokens, *target;
    real *weight, *nll;
    uint8_t *hits;
    pb_segment *seg;
    size_t rows, segs;
} feed;

static void feed_free(feed *f)
{
    free(f->tokens);
    free(f->target);
    free(f->weight);
    free(f->nll);
    free(f->hits);
    free(f->seg);
    *f = (feed){0};
}

static pb_err feed_new(feed *f, size_t rows, size_t segs)
{
    *f = (feed){malloc(rows * sizeof *f->tokens),
                malloc(rows * sizeof *f->target),
                malloc(rows * sizeof *f->weight),
                malloc(rows * sizeof *f->nll),
                malloc(rows),
                malloc(segs * sizeof *f->seg),
                0,
                0};
    if (f->tokens && f->target && f->weight && f->nll && f->hits && f->seg)
        return PB_OK;
    feed_free(f);
    return pb_fail(PB_MEMORY, "use smaller batches", "no memory for a batch of %zu rows", rows);
}

// Appends a sequence; the last token is only a target.
static void feed_add(feed *f, const pb_seqs *s, size_t i, int tenant)
{
    const pb_seq *q = &s->seq[i];
    const int32_t *t = s->tokens + q->first;
    f->seg[f->segs++] = (pb_segment){.row0 = f->rows,
                                     .n_rows = q->n - 1u,
                                     .n_prompt = q->n_prompt,
                                     .tenant = tenant,
                                     .slot = -1};
    for (size_t k = 0; k + 1 < q->n; k++) {
        f->tokens[f->rows] = t[k];
        f->target[f->rows++] = k + 1 >= q->n_prompt ? t[k + 1] : -1;
    }
}

static pb_batch feed_batch(const feed *f)
{
    return (pb_batch){f->rows, f->segs, f->tokens, f->seg};
}

pb_err pb_score(const pb_model *m, pb_adapter *a, const pb_seqs *s, double *nll, size_t *tokens,
                size_t *hits)
{
    enum { ROWS = 4096, SEGS = 64 };
    pb_err err = PB_OK;
    pb_step *st = NULL;
    feed f = {0};
    size_t rows = s->longest > ROWS ? s->longest : ROWS, all = 0;
    for (size_t i = 0; i < s->n; i++)
        all += s->seq[i].n;
    rows = all && all < rows ? all : rows; // memory that nobody needs is not made
    pb_adapter *const tenants[] = {a};
    pb_step_limits limits = {.rows = rows, .segments = SEGS, .loss = true};
    PB_GO(pb_step_new(&st, m, tenants, a ? 1 : 0, &limits));
    PB_GO(feed_new(&f, rows, SEGS));
    for (size_t i = 0, first = 0; i < s->n; first = i) {
        f.rows = f.segs = 0;
        while (i < s->n && f.segs < SEGS && f.rows + s->seq[i].n <= rows)
            feed_add(&f, s, i++, a ? 0 : -1);
        pb_batch b = feed_batch(&f);
        pb_mat *h = pb_forward(st, &b, false, 0, 0);
        pb_step_loss(st, h, f.target, NULL, f.nll, f.hits);
        for (size_t k = first; k < i; k++) {
            const pb_segment *g = &f.seg[k - first];
            double sum = 0;
            size_t n = 0, right = 0;
            for (size_t r = g->row0; r < g->row0 + g->n_rows; r++)
                if (f.target[r] >= 0) {
                    sum += (double)f.nll[r];
                    right += f.hits[r];
                    n++;
                }
            nll[k] = sum;
            tokens[k] = n;
            if (hits)
                hits[k] = right;
        }
        if (pb_interrupted()) {
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted while scoring");
            goto done;
        }
    }
done:
    feed_free(&f);
    pb_step_free(st);
    return err;
}

// The mean, of which this process scores part `rank` of `ranks`; they put the parts together.
static pb_err mean_loss(const pb_model *m, pb_adapter *a, const pb_seqs *s, int rank, int ranks,
                        double *loss)
{
    size_t first = s->n * (size_t)rank / (size_t)ranks;
    size_t end = s->n * (size_t)(rank + 1) / (size_t)ranks;
    double *nll = calloc(s->n + 1, sizeof *nll), sum = 0;
    size_t *tokens = calloc(s->n + 1, sizeof *tokens), n = 0;
    pb_seqs part = *s;
    part.seq += first;
    part.n = end - first;
    pb_err err = nll && tokens ? pb_score(m, a, &part, nll + first, tokens + first, NULL)
                               : pb_fail(PB_MEMORY, NULL, "no memory for %zu scores", s->n);
    if (ranks > 1 && pb_ranks_any(err))
        err = err ? err : pb_fail(PB_INTERRUPTED, NULL, "another process stopped scoring");
    if (ranks > 1 && !err)
        pb_ranks_sum(nll, s->n);
    for (size_t i = 0; i < s->n && !err; i++) {
        sum += nll[i];
        n += s->seq[i].n - s->seq[i].n_prompt;
    }
    *loss = n ? sum / (double)n : 0;
    free(nll);
    free(tokens);
    return err;
}

pb_err pb_mean_loss(const pb_model *m, pb_adapter *a, const pb_seqs *s, double *loss)
{
    return mean_loss(m, a, s, 0, 1, loss);
}

// ---------------------------------------------------------------- the loop

typedef struct trainer {
    pb_model *m;
    pb_adapter *a, *served; // served: the form that is validated
    const pb_params *p;
    const pb_seqs *train, *valid;
    pb_seqs inner, outer; // views of `train`: without and with what the second level holds out
    const pb_train_options *o;
    const pb_train_hooks *h;
    pb_bilevel bi;
    bool bilevel;
    pb_step *st;
    feed f;
    real *moments, *best; // (2 n), behind them the method's statistics; (n)
    real *sum, *got;      // of several batches' gradients, and a round's slices of them
    double *losses;       // of a step's batches
    pb_batches batches, outer_batches;
    size_t step, theta_steps, tokens, best_step, bad;
    size_t ran; // steps made by this process
    double best_valid, first_loss, last_loss, seconds;
    char identity[65]; // hash of what makes this work this work
} trainer;

static size_t block(const trainer *t)
{
    return t->p->layout->size;
}

static size_t statistics(const trainer *t)
{
    return t->a ? t->a->method->statistics * block(t) : 0;
}

// Adds the gradients of batch k, of a step with `total` response tokens; returns the sum of its
// losses.
static double batch_gradients(trainer *t, pb_batches *from, size_t k, size_t total, bool theta)
{
    size_t n;
    double loss = 0;
    const size_t *pick = pb_batches_at(from, k, &n);
    t->f.rows = t->f.segs = 0;
    for (size_t i = 0; i < n; i++)
        feed_add(&t->f, from->s, pick[i], t->a ? 0 : -1);
    for (size_t r = 0; r < t->f.rows; r++)
        t->f.weight[r] = (real)(1 / (double)total);
    pb_batch b = feed_batch(&t->f);
    pb_mat *h = pb_forward(t->st, &b, true, t->o->seed, 2 * k + (theta ? 1 : 0));
    pb_step_loss(t->st, h, t->f.target, t->f.weight, t->f.nll, NULL);
    pb_step_backward(t->st);
    for (size_t r = 0; r < t->f.rows; r++)
        if (t->f.target[r] >= 0)
            loss += (double)t->f.nll[r];
    return loss;
}

// Adds this process's slice of the gradients that the first `active` processes have made, one after
// the other.
static void add_in_order(trainer *t, size_t active)
{
    size_t first = pb_ranks_slice(block(t), pb_rank());
    size_t n = pb_ranks_slice(block(t), pb_rank() + 1) - first;
    const real *got = t->p->d;
    if (pb_ranks() > 1) {
        pb_ranks_scatter(t->got, t->p->d, block(t), sizeof(real), (int)active);
        got = t->got;
    }
    for (size_t u = 0; u < active; u++, got += n)
        for (size_t i = 0; i < n; i++)
            t->sum[first + i] += got[i];
}

// Adds up the gradients of one step; returns the mean loss per response token.
static double gradients(trainer *t, pb_batches *from, size_t step, bool theta)
{
    size_t M = t->o->accumulate, N = (size_t)pb_ranks(), size = block(t) * sizeof(real);
    size_t total = 0, n;
    double loss = 0;
    for (size_t u = 0; u < M; u++) {
        const size_t *pick = pb_batches_at(from, step * M + u, &n);
        for (size_t i = 0; i < n; i++) {
            const pb_seq *q = &from->s->seq[pick[i]];
            total += q->n - q->n_prompt;
            t->tokens += q->n - 1;
        }
    }
    memset(t->losses, 0, M * sizeof *t->losses);
    if (t->sum)
        memset(t->sum, 0, size);
    for (size_t u = 0; u < M; u += N) {
        size_t active = M - u < N ? M - u : N, own = u + (size_t)pb_rank();
        memset(t->p->d, 0, size);
        if (own < M)
            t->losses[own] = batch_gradients(t, from, step * M + own, total, theta);
        if (t->sum)
            add_in_order(t, active);
    }
    if (t->sum) {
        pb_ranks_gather(t->sum, block(t), sizeof(real));
        memcpy(t->p->d, t->sum, size);
    }
    pb_ranks_sum(t->losses, M);
    for (size_t u = 0; u < M; u++)
        loss += t->losses[u];
    return loss / (double)total;
}

static pb_err diverged(const trainer *t, const char *what, double value)
{
    return pb_fail(PB_DIVERGED, "try a smaller learning rate", "%s is %g at step %zu (lr %g)", what,
                   value, t->step + 1, t->o->lr);
}

static pb_err update(trainer *t, pb_train_point *p)
{
    const pb_train_options *o = t->o;
    size_t n = block(t);
    double loss = gradients(t, &t->batches, t->step, false);
    const pb_method *method = t->a ? t->a->method : NULL;
    pb_train_args args = {&t->m->config, t->m, t->step + 1, o->steps, t->moments + 2 * n};
    if (method && method->gradient)
        PB_TRY(method->gradient(t->p, &args));
    double norm = pb_grad_norm(t->p, false);
    if (!isfinite(loss))
        return diverged(t, "the loss", loss);
    if (!isfinite(norm))
        return diverged(t, "the gradient norm", norm);
    if (t->step == 0)
        t->first_loss = loss;
    // Absurd: twice the loss of guessing all tokens alike, and far above where training began.
    if (loss > 2 * log((double)t->m->config.vocab) && loss > 3 * t->first_loss)
        return diverged(t, "the loss", loss);
    if (o->clip > 0 && norm > o->clip)
        pb_grad_scale(t->p, o->clip / norm, false);
    double lr = pb_schedule_at(o->schedule, o->lr, t->step, o->warmup, o->steps, o->floor);
    pb_adamw_step(t->p, t->moments, t->moments + n, &o->adamw, lr, t->step + 1, false);
    if (t->bilevel && (t->step + 1) % t->bi.every == 0) {
        double outer = gradients(t, &t->outer_batches, t->theta_steps, true);
        double onorm = pb_grad_norm(t->p, true);
        if (!isfinite(outer) || !isfinite(onorm))
            return diverged(t, "the second level's loss", outer);
        pb_adamw plain = o->adamw;
        plain.weight_decay = 0;
        pb_adamw_step(t->p, t->moments, t->moments + n, &plain, t->bi.lr, ++t->theta_steps, true);
    }
    if (method && method->updated)
        PB_TRY(method->updated(t->p, &args));
    if (!t->a)
        pb_model_repack(t->m);
    t->step++;
    t->ran++;
    t->last_loss = loss;
    *p = (pb_train_point){t->step, loss, lr, norm, 0, t->tokens};
    return PB_OK;
}

static pb_err validate(trainer *t, double *loss)
{
    if (t->a) {
        pb_adapter_refresh(t->served, t->a);
        PB_TRY(pb_adapter_serve(t->served, t->m));
    }
    PB_TRY(mean_loss(t->m, t->served, t->valid, pb_rank(), pb_ranks(), loss));
    if (!isfinite(*loss))
        return diverged(t, "the validation loss", *loss);
    const pb_method *m = t->a ? t->a->method : NULL;
    if (m && m->settles && t->step < m->settles(t->a->options, t->o->steps))
        return PB_OK; // not what will be left of it
    if (*loss < t->best_valid) {
        t->best_valid = *loss;
        t->best_step = t->step;
        t->bad = 0;
        memcpy(t->best, t->p->v, block(t) * sizeof(real));
    } else {
        t->bad++;
    }
    return PB_OK;
}

// ---------------------------------------------------------------- checkpoints

// What a checkpoint belongs to: continuing other work with it would be silently wrong.
static void identify(trainer *t)
{
    const pb_train_options *o = t->o;
    char text[4096], data[65];
    json_t *options = t->a ? pb_options_to_json(t->a->method, t->a->options) : NULL;
    char *made_with = options ? json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    pb_sha256(data, t->train->tokens, t->train->n_tokens * sizeof *t->train->tokens);
    snprintf(
        text, sizeof text,
        "%s %zu %zu %zu %zu %zu %.17g %.17g %d %zu %.17g %.17g %.17g %.17g %.17g %zu %zu %" PRIu64
        " %s %s %s",
        t->a ? t->a->method->name : "full", block(t), o->steps, o->batch, o->batch_tokens,
        o->accumulate, o->lr, o->floor, (int)o->schedule, o->warmup, o->adamw.beta1, o->adamw.beta2,
        o->adamw.eps, o->adamw.weight_decay, o->clip, o->eval_every, o->patience, o->seed, data,
        t->m->sha256, made_with ? made_with : "");
    pb_sha256(t->identity, text, strlen(text));
    free(made_with);
    json_decref(options);
}

enum { COUNTERS = 9 };

static pb_err save(trainer *t)
{
    size_t n = block(t), kept = 2 * n + statistics(t);
    double counters[COUNTERS] = {(double)t->step,      (double)t->theta_steps, (double)t->tokens,
                                 (double)t->best_step, (double)t->bad,         t->best_valid,
                                 t->first_loss,        t->last_loss,           t->seconds};
    // `real` data is converted on the way out; counters need doubles, so they go as text.
    char text[512] = "";
    for (size_t i = 0; i < COUNTERS; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%a ", counters[i]);
    pb_dtype dt = sizeof(real) == 8 ? PB_F64 : PB_F32;
    pb_tensor_out out[] = {{"values", dt, 1, {n}, t->p->v},
                           {"moments", dt, 1, {kept}, t->moments},
                           {"best", dt, 1, {n}, t->best}};
    const char *meta[] = {"pedrobench", "checkpoint", "identity", t->identity,
                          "counters",   text,         NULL};
    if (pb_rank())
        return PB_OK;
    PB_TRY(pb_tensors_write(t->o->checkpoint, out, 3, meta));
    return t->h && t->h->saved ? t->h->saved(t->h->self) : PB_OK;
}

// Reads the checkpoint, if it is one of this work; *found tells.
static pb_err read_checkpoint(trainer *t, double c[COUNTERS], bool *found)
{
    pb_err err = PB_OK;
    pb_tensors *f = NULL;
    const pb_tensor *x;
    size_t n = block(t), kept = 2 * n + statistics(t);
    if (!pb_exists(t->o->checkpoint))
        return PB_OK;
    PB_GO(pb_tensors_open(&f, t->o->checkpoint));
    const char *id = pb_tensors_meta(f, "identity"), *text = pb_tensors_meta(f, "counters");
    if (!id || !text || strcmp(id, t->identity)) {
        pb_warn("%s belongs to other work; starting over", t->o->checkpoint);
        goto done;
    }
    char *end = (char *)text;
    for (size_t i = 0; i < COUNTERS; i++)
        c[i] = strtod(end, &end);
    PB_GO(pb_tensors_need(f, "values", n, 0, &x));
    pb_tensor_read(x, 0, n, t->p->v);
    PB_GO(pb_tensors_need(f, "moments", kept, 0, &x));
    pb_tensor_read(x, 0, kept, t->moments);
    PB_GO(pb_tensors_need(f, "best", n, 0, &x));
    pb_tensor_read(x, 0, n, t->best);
    *found = true;
done:
    pb_tensors_close(f);
    return err;
}

// Goes on from the checkpoint that rank 0 has, if there is one.
static pb_err restore(trainer *t)
{
    size_t n = block(t), kept = 2 * n + statistics(t);
    double c[COUNTERS];
    bool found = false;
    if (pb_rank() == 0)
        PB_TRY(read_checkpoint(t, c, &found));
    pb_ranks_copy(&found, sizeof found);
    if (!found)
        return PB_OK;
    pb_ranks_copy(c, sizeof c);
    pb_ranks_copy(t->p->v, n * sizeof(real));
    pb_ranks_copy(t->moments, kept * sizeof(real));
    pb_ranks_copy(t->best, n * sizeof(real));
    t->step = (size_t)c[0];
    t->theta_steps = (size_t)c[1];
    t->tokens = (size_t)c[2];
    t->best_step = (size_t)c[3];
    t->bad = (size_t)c[4];
    t->best_valid = c[5];
    t->first_loss = c[6];
    t->last_loss = c[7];
    t->seconds = c[8];
    if (!t->a)
        pb_model_repack(t->m);
    return t->h && t->h->resumed ? t->h->resumed(t->h->self, t->step) : PB_OK;
}

// ---------------------------------------------------------------- set-up and run

// Splits off what the second level trains on: validation data, or the last tenth of the training
// data.
static void split(trainer *t)
{
    t->inner = *t->train;
    if (!t->bilevel)
        return;
    t->outer = t->bi.use_valid ? *t->valid : *t->train;
    if (!t->bi.use_valid) {
        size_t held = t->train->n / 10 > t->o->batch ? t->train->n / 10 : t->o->batch;
        held = held < t->train->n / 2 ? held : t->train->n / 2;
        t->inner.n -= held;
        t->outer.seq += t->inner.n;
        t->outer.n = held;
    }
}

// Says what a step's activations take, and what they would take the other way.
static pb_err announce(const trainer *t, pb_step_limits limits)
{
    size_t bytes[2];
    if (!t->h || !t->h->label || pb_log_is_quiet())
        return PB_OK;
    for (int again = 0; again < 2; again++) {
        limits.recompute = again;
        PB_TRY(pb_step_need(&bytes[again], t->m, &t->a, t->a ? 1 : 0, &limits));
    }
    bool now = t->o->recompute;
    pb_info("activations: %.1f MB a step (%.1f MB %s --recompute)", (double)bytes[now] / 1e6,
            (double)bytes[!now] / 1e6, now ? "without" : "with");
    return PB_OK;
}

// What several processes need beside, and that they do the same work.
static pb_err set_up_sharing(trainer *t)
{
    size_t n = block(t), M = t->o->accumulate, N = (size_t)pb_ranks();
    if (N > M)
        return pb_fail(PB_USAGE, "--accumulate has to be at least the number of processes",
                       "%zu processes for %zu batch%s a step: some would have nothing to do", N, M,
                       M == 1 ? "" : "es");
    if (N > 1 && n > INT_MAX)
        return pb_fail(PB_UNSUPPORTED, "train on one machine",
                       "%zu gradients are more than MPI can send at once", n);
    t->losses = malloc(M * sizeof *t->losses);
    t->sum = M > 1 ? malloc((n + 1) * sizeof *t->sum) : NULL;
    t->got = N > 1 ? malloc((n + N) * sizeof *t->got) : NULL;
    return t->losses && (t->sum || M == 1) && (t->got || N == 1)
               ? PB_OK
               : pb_fail(PB_MEMORY, NULL, "no memory for the sum of %zu gradients", n);
}

static pb_err agree(const trainer *t)
{
    char kernels[100];
    snprintf(kernels, sizeof kernels, "%s, %s", pb_kernels_get()->isa, pb_gemm_kernel());
    PB_TRY(pb_ranks_same("weights", t->m->sha256, "every machine needs the same model"));
    PB_TRY(pb_ranks_same("kernels", kernels,
                         "set PB_ISA and BLIS_ARCH_TYPE to what all processors can do"));
    PB_TRY(pb_ranks_same("data or options", t->identity, "start all of them by one command"));
    pb_ranks_copy(t->p->v, block(t) * sizeof(real));
    return PB_OK;
}

static pb_err set_up(trainer *t)
{
    const pb_train_options *o = t->o;
    size_t n = block(t);
    identify(t);
    PB_TRY(set_up_sharing(t));
    PB_TRY(agree(t));
    t->bilevel = t->a && t->a->method->bilevel && t->a->method->bilevel(t->a->options, &t->bi);
    if (t->bilevel && t->bi.use_valid && !t->valid)
        return pb_fail(PB_USAGE, "use theta_data=train", "there is no validation data for theta");
    split(t);
    PB_TRY(pb_batches_new(&t->batches, &t->inner, o->batch, o->batch_tokens, o->seed));
    size_t rows = t->batches.rows, segs = t->batches.most;
    if (t->bilevel) {
        pb_batches *b = &t->outer_batches;
        PB_TRY(pb_batches_new(b, &t->outer, o->batch, o->batch_tokens, o->seed + 7919));
        rows = b->rows > rows ? b->rows : rows;
        segs = b->most > segs ? b->most : segs;
    }
    pb_step_limits limits = {
        .rows = rows, .segments = segs, .train = true, .recompute = o->recompute};
    t->moments = calloc(2 * n + statistics(t) + 1, sizeof *t->moments);
    t->best = malloc((n + 1) * sizeof *t->best);
    if (!t->moments || !t->best)
        return pb_fail(PB_MEMORY, NULL, "no memory for the optimizer of %zu parameters", n);
    memcpy(t->best, t->p->v, n * sizeof *t->best);
    PB_TRY(feed_new(&t->f, rows, segs));
    if (t->a) {
        PB_TRY(pb_adapter_derive(t->a, t->m));
        PB_TRY(pb_adapter_folded(&t->served, t->a));
    }
    PB_TRY(announce(t, limits));
    PB_TRY(pb_step_new(&t->st, t->m, &t->a, t->a ? 1 : 0, &limits));
    t->best_valid = INFINITY;
    return o->checkpoint ? restore(t) : PB_OK;
}

static size_t last_step(const pb_train_options *o)
{
    return o->stop && o->stop < o->steps ? o->stop : o->steps;
}

static pb_err loop(trainer *t, pb_progress *bar)
{
    const pb_train_options *o = t->o;
    size_t end = last_step(o);
    double start = pb_now() - t->seconds, shown = 0;
    size_t tokens0 = t->tokens;
    double start0 = pb_now();
    char detail[128];
    while (t->step < end && !(o->patience && t->valid && t->bad >= o->patience) &&
           !(o->time_limit > 0 && pb_ranks_any(t->seconds > o->time_limit))) {
        pb_train_point p;
        PB_TRY(update(t, &p));
        p.seconds = t->seconds = pb_now() - start;
        if (t->h && t->h->step)
            PB_TRY(t->h->step(t->h->self, &p));
        if (bar && (t->seconds - shown > 0.1 || shown == 0)) {
            shown = t->seconds;
            snprintf(detail, sizeof detail, "loss %.3f  %.0f tokens/s", p.loss,
                     (double)(t->tokens - tokens0) / (pb_now() - start0 + 1e-9));
            pb_progress_update(bar, (int64_t)t->step, detail);
        }
        bool last = t->step == end;
        if (t->valid && (last || (o->eval_every && t->step % o->eval_every == 0))) {
            double loss;
            PB_TRY(validate(t, &loss));
            if (t->h && t->h->valid)
                PB_TRY(t->h->valid(t->h->self, t->step, loss));
        }
        bool stop = pb_ranks_any(pb_interrupted());
        if (o->checkpoint &&
            (stop || (o->checkpoint_every && t->step % o->checkpoint_every == 0 && !last)))
            PB_TRY(save(t));
        if (stop)
            return pb_fail(PB_INTERRUPTED, "run the same command again to continue",
                           "interrupted at step %zu of %zu", t->step, end);
    }
    return PB_OK;
}

pb_err pb_train(pb_model *m, pb_adapter *a, const pb_seqs *train, const pb_seqs *valid,
                const pb_train_options *o, const pb_train_hooks *h, pb_train_result *out)
{
    pb_err err = PB_OK;
    pb_progress bar;
    trainer t = {.m = m,
                 .a = a,
                 .p = a ? &a->params : &m->params,
                 .train = train,
                 .valid = valid && valid->n ? valid : NULL,
                 .o = o,
                 .h = h};
    size_t sent = pb_ranks_sent();
    memset(out, 0, sizeof *out);
    if (!t.p->d)
        return pb_fail(PB_INTERNAL, NULL, "training without gradients");
    PB_GO(set_up(&t));
    bool show = h && h->label;
    if (show)
        pb_progress_begin(&bar, h->label, (int64_t)t.step, (int64_t)last_step(o));
    err = loop(&t, show ? &bar : NULL);
    if (show) {
        char detail[64];
        snprintf(detail, sizeof detail, "loss %.3f", t.last_loss);
        pb_progress_end(&bar, detail);
    }
    // A diverged run keeps its best values, if it ever had any.
    if (t.valid && isfinite(t.best_valid) && err != PB_INTERRUPTED) {
        memcpy(t.p->v, t.best, block(&t) * sizeof(real));
        if (!a)
            pb_model_repack(m);
    }
    *out = (pb_train_result){t.step,
                             t.best_step,
                             t.tokens,
                             t.first_loss,
                             t.last_loss,
                             t.best_valid,
                             t.seconds,
                             t.st ? pb_step_bytes(t.st) : 0,
                             t.ran ? (pb_ranks_sent() - sent) / t.ran : 0};
    if (o->checkpoint && !err && pb_rank() == 0)
        unlink(o->checkpoint);
done:
    pb_step_free(t.st);
    pb_adapter_free(t.served);
    feed_free(&t.f);
    free(t.moments);
    free(t.best);
    free(t.sum);
    free(t.got);
    free(t.losses);
    pb_batches_free(&t.batches);
    pb_batches_free(&t.outer_batches);
    return err;
}
