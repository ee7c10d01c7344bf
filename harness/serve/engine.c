#include "serve/engine.h"

#include "core/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct hypothesis {
    double score;
    int32_t *tokens;
    size_t n, made; // made: how many came before it
    bool ended;
} hypothesis;

typedef struct candidate {
    double sum;
    size_t beam;
    int32_t token;
} candidate;

// What a lane's request has found; its texts lie in the memory of its slots.
typedef struct search {
    pb_beam *open, *before; // (B) beams, and room for the next step's
    bool *prompted;         // (B) slots that hold the prompt
    hypothesis *finished;   // (B)
    size_t n_new, n_finished, n_made;
} search;

struct pb_model_engine {
    pb_engine face;
    const pb_model *m;
    const pb_store *store;
    pb_server_limits limits;
    pb_step *st;
    real *logits;
    candidate *best;
    search *lane; // (slots)
    pb_beam *beams;
    hypothesis *hypotheses;
    bool *prompted;
    int32_t *history; // (slots, 3, positions)
};

static bool is_end(const pb_config *c, int32_t id)
{
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return true;
    return id == c->bos;
}

int32_t pb_argmax(const real *x, size_t n)
{
    enum { LANES = 16 }; // independent maxima, which the compiler turns into vectors
    real m[LANES], best = x[0];
    size_t i = 0;
    for (size_t j = 0; j < LANES; j++)
        m[j] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    for (size_t j = 0; j < LANES; j++)
        best = m[j] > best ? m[j] : best;
    for (i = 0; i < n; i++)
        if (x[i] == best)
            return (int32_t)i;
    return 0;
}

// Tokens of the stop sequence that `id` completes behind n tokens t; 0: none.
static size_t stops(const pb_request *r, const int32_t *t, size_t n, int32_t id)
{
    for (size_t i = 0; i < r->n_stop; i++) {
        const pb_stop *s = &r->stop[i];
        if (s->tokens[s->n - 1] == id && s->n - 1 <= n &&
            !memcmp(s->tokens, t + n - (s->n - 1), (s->n - 1) * sizeof *t))
            return s->n;
    }
    return 0;
}

// Whether a response of n tokens t ends with `id`; *kept are those that remain of it.
static bool ends(const pb_model_engine *e, const pb_request *r, const int32_t *t, size_t n,
                 int32_t id, size_t *kept)
{
    size_t stop = r->fixed ? 0 : stops(r, t, n, id);
    *kept = stop ? n + 1 - stop : n;
    return stop || (!r->fixed && is_end(&e->m->config, id));
}

// Takes the probability from tokens that would repeat an n-gram of the n tokens t.
static void forbid(real *logits, const int32_t *t, size_t n, size_t gram)
{
    for (size_t i = 0; gram && i + gram <= n; i++)
        if (!memcmp(t + i, t + n - (gram - 1), (gram - 1) * sizeof *t))
            logits[t[i + gram - 1]] = -INFINITY;
}

// Returns whether the request is done.
static bool greedy(pb_model_engine *e, pb_lane *l, real *logits)
{
    pb_request *r = l->request;
    size_t kept;
    forbid(logits, r->out, r->n_out, r->how ? r->how->no_repeat_ngram : 0);
    int32_t id = l->open[0].next = pb_argmax(logits, e->m->config.vocab);
    r->ended = ends(e, r, r->out, r->n_out, id, &kept);
    if (r->ended)
        r->n_out = kept;
    else
        r->out[r->n_out++] = id;
    return r->ended || r->n_out == r->max_new;
}

// ---------------------------------------------------------------- beam search

// log sum exp of n values, in one order.
static double log_sum_exp(const real *x, size_t n)
{
    double most = x[pb_argmax(x, n)], sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

// Continuations that are kept: enough for as many as there are beams that do not end.
static size_t n_best(const pb_model_engine *e, size_t beams, size_t stops)
{
    return beams * (2 + e->m->config.n_eos + stops);
}

// The best continuations of all open beams, in order; returns their number.
static size_t continuations(pb_model_engine *e, const pb_lane *l, real *logits)
{
    const search *f = l->search;
    const pb_request *r = l->request;
    size_t V = e->m->config.vocab, n = 0, most = n_best(e, r->how->beam, r->n_stop);
    for (size_t k = 0; k < l->n; k++) {
        real *x = logits + k * V;
        double base = l->open[k].sum - log_sum_exp(x, V);
        forbid(x, l->open[k].tokens, f->n_new, r->how->no_repeat_ngram);
        for (size_t i = 0; i < V; i++) {
            double sum = base + (double)x[i];
            if (sum == -INFINITY || (n == most && !(sum > e->best[n - 1].sum)))
                continue;
            size_t at = n < most ? n++ : n - 1;
            for (; at && sum > e->best[at - 1].sum; at--)
                e->best[at] = e->best[at - 1];
            e->best[at] = (candidate){sum, k, (int32_t)i};
        }
    }
    return n;
}

static double penalised(const pb_request *r, double sum, size_t n)
{
    return sum / pow((double)n, r->how->length_penalty);
}

// The worst hypothesis: of equal scores the oldest.
static size_t worst(const search *f)
{
    size_t w = 0;
    for (size_t i = 1; i < f->n_finished; i++) {
        const hypothesis *a = &f->finished[i], *b = &f->finished[w];
        if (a->score < b->score || (a->score == b->score && a->made < b->made))
            w = i;
    }
    return w;
}

// Adds `kept` tokens of beam k as a response; `n` tokens count for its score.
static void finish(pb_lane *l, size_t k, double sum, size_t kept, size_t n, bool ended)
{
    search *f = l->search;
    size_t B = l->request->how->beam, at = f->n_finished;
    double score = penalised(l->request, sum, n);
    if (at == B && !(score > f->finished[worst(f)].score))
        return;
    if (at == B)
        at = worst(f);
    else
        f->n_finished++;
    hypothesis *h = &f->finished[at];
    memcpy(h->tokens, l->open[k].tokens, kept * sizeof *h->tokens);
    h->n = kept;
    h->score = score;
    h->ended = ended;
    h->made = f->n_made++;
}

// Moves on to the n beams of `before`, whose slots are still those of their parents: the first
// child of a beam keeps its slot, the others get copies in slots that nobody needs.
static void settle(pb_model_engine *e, pb_lane *l, size_t n)
{
    search *f = l->search;
    bool taken[PB_MOST_BEAMS] = {false}, keeps[PB_MOST_BEAMS];
    for (size_t k = 0; k < n; k++) {
        size_t s = f->before[k].at;
        keeps[k] = !taken[s];
        taken[s] = true;
    }
    for (size_t k = 0, s = 0; k < n; k++) {
        if (keeps[k])
            continue;
        while (taken[s])
            s++;
        taken[s] = true;
        pb_step_copy_slot(e->st, l->slot[s], l->slot[f->before[k].at],
                          f->prompted[s] ? l->request->n_prompt : 0, l->pos);
        f->prompted[s] = true;
        f->before[k].at = s;
    }
    l->open = f->before;
    f->before = f->open;
    f->open = l->open;
    l->n = n;
}

static void deliver(const search *f, pb_request *r)
{
    const hypothesis *best = &f->finished[0];
    for (size_t i = 1; i < f->n_finished; i++) {
        const hypothesis *h = &f->finished[i];
        if (h->score > best->score || (h->score == best->score && h->made > best->made))
            best = h;
    }
    memcpy(r->out, best->tokens, best->n * sizeof *r->out);
    r->n_out = best->n;
    r->ended = best->ended;
    r->score = best->score;
}

// Returns whether the request is done. `logits` are those of its open beams.
static bool beam_search(pb_model_engine *e, pb_lane *l, real *logits)
{
    pb_request *r = l->request;
    search *f = l->search;
    size_t B = r->how->beam, found = continuations(e, l, logits), n = 0, kept;
    for (size_t i = 0; i < found && n < B; i++) {
        const candidate *c = &e->best[i];
        const pb_beam *parent = &l->open[c->beam];
        if (ends(e, r, parent->tokens, f->n_new, c->token, &kept)) {
            if (i < B)
                finish(l, c->beam, c->sum, kept, f->n_new + 1, true);
            continue;
        }
        pb_beam *b = &f->before[n++];
        memcpy(b->tokens, parent->tokens, f->n_new * sizeof *b->tokens);
        b->tokens[f->n_new] = b->next = c->token;
        b->sum = c->sum;
        b->at = parent->at;
    }
    if (!n && !f->n_finished) // everything is forbidden
        finish(l, 0, l->open[0].sum, f->n_new, f->n_new ? f->n_new : 1, false);
    f->n_new++;
    bool done = !n || (f->n_finished == B &&
                       f->finished[worst(f)].score >= penalised(r, e->best[0].sum, f->n_new));
    settle(e, l, n);
    if (!done && f->n_new == r->max_new) {
        for (size_t k = 0; k < n; k++)
            finish(l, k, l->open[k].sum, f->n_new, f->n_new, false);
        done = true;
    }
    if (done)
        deliver(f, r);
    return done;
}

// ---------------------------------------------------------------- the engine

static void begin(void *self, pb_lane *l)
{
    pb_model_engine *e = self;
    search *f = l->search = &e->lane[l->number];
    int tenant = l->request->tenant;
    size_t room = e->limits.positions;
    const pb_tenant *t = tenant < 0 ? NULL : &e->store->tenant[tenant];
    pb_step_seat(e->st, l->number, t ? t->adapter : NULL, t ? t->shape : 0);
    for (size_t k = 0; k < l->n_slots; k++) {
        int32_t *own = e->history + 3 * l->slot[k] * room;
        f->open[k].tokens = own;
        f->before[k].tokens = own + room;
        f->finished[k].tokens = own + 2 * room;
        f->prompted[k] = k == 0;
    }
    f->n_new = f->n_finished = f->n_made = 0;
    f->open[0].at = 0;
    f->open[0].sum = 0;
    l->open = f->open;
    l->n = 1;
}

static void run(void *self, const pb_work *w)
{
    pb_model_engine *e = self;
    pb_mat *h = pb_forward(e->st, &w->batch, false, 0, 0);
    pb_step_logits(e->st, h, w->rows, w->n_out, e->logits);
}

static bool advance(void *self, pb_lane *l, size_t first)
{
    pb_model_engine *e = self;
    const pb_decoding *how = l->request->how;
    real *logits = e->logits + first * e->m->config.vocab;
    return (how && how->beam > 1 ? beam_search : greedy)(e, l, logits);
}

static int64_t now(void *self)
{
    (void)self;
    return pb_now_ns();
}

static void wait(void *self, int64_t until)
{
    const pb_model_engine *e = self;
    if (e->store && e->store->coming) {
        e->store->loader->wait(e->store->loader->self, until);
        return;
    }
    struct timespec t = pb_until(until);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static pb_step_limits step_limits(const pb_server_limits *l, size_t whole)
{
    return (pb_step_limits){.rows = pb_server_most_rows(l, whole),
                            .segments = l->slots,
                            .slots = l->slots,
                            .positions = l->positions,
                            .seats = l->slots};
}

pb_err pb_model_engine_need(size_t *bytes, const pb_model *m, pb_adapter *const *shapes, size_t n,
                            const pb_server_limits *l, size_t whole)
{
    pb_step_limits limits = step_limits(l, whole);
    PB_TRY(pb_step_need(bytes, m, shapes, n, &limits));
    *bytes += pb_step_kv_need(&m->config, shapes, n, &limits);
    *bytes +=
        l->slots * m->config.vocab * sizeof(real) + 3 * l->slots * l->positions * sizeof(int32_t);
    return PB_OK;
}

pb_err pb_model_engine_new(pb_model_engine **out, const pb_model *m, pb_adapter *const *shapes,
                           size_t n, const pb_store *store, const pb_server_limits *l, size_t whole)
{
    pb_err err = PB_OK;
    size_t S = l->slots, B = l->beam;
    pb_model_engine *e = *out = calloc(1, sizeof *e);
    if (!e)
        return pb_fail(PB_MEMORY, NULL, "no memory for an engine");
    e->face = (pb_engine){e, begin, run, advance, now, wait};
    e->m = m;
    e->store = store;
    e->limits = *l;
    e->logits = malloc(S * m->config.vocab * sizeof *e->logits);
    e->best = malloc(n_best(e, B, PB_MOST_STOPS) * sizeof *e->best);
    e->lane = calloc(S, sizeof *e->lane);
    e->beams = calloc(2 * S * B, sizeof *e->beams);
    e->hypotheses = calloc(S * B, sizeof *e->hypotheses);
    e->prompted = calloc(S * B, sizeof *e->prompted);
    e->history = malloc(3 * S * l->positions * sizeof *e->history);
    if (!e->logits || !e->best || !e->lane || !e->beams || !e->hypotheses || !e->prompted ||
        !e->history) {
        err = pb_fail(PB_MEMORY, "use fewer slots", "no memory for %zu slots", S);
        goto done;
    }
    for (size_t i = 0; i < S; i++)
        e->lane[i] = (search){.open = e->beams + 2 * i * B,
                              .before = e->beams + (2 * i + 1) * B,
                              .prompted = e->prompted + i * B,
                              .finished = e->hypotheses + i * B};
    pb_step_limits limits = step_limits(l, whole);
    PB_GO(pb_step_new(&e->st, m, shapes, n, &limits));
done:
    if (err) {
        pb_model_engine_free(e);
        *out = NULL;
    }
    return err;
}

void pb_model_engine_free(pb_model_engine *e)
{
    if (!e)
        return;
    pb_step_free(e->st);
    free(e->logits);
    free(e->best);
    free(e->lane);
    free(e->beams);
    free(e->hypotheses);
    free(e->prompted);
    free(e->history);
    free(e);
}

const pb_engine *pb_model_engine_get(pb_model_engine *e)
{
    return &e->face;
}

pb_step *pb_model_engine_step(pb_model_engine *e)
{
    return e->st;
}
