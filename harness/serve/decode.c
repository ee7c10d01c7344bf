// A small scheduler: first come, first served; whole prompts; one row per open beam and step.
#include "serve/decode.h"

#include "core/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct beam {
    size_t slot;
    double sum;      // of log-probabilities
    int32_t next;    // the token to be fed
    int32_t *tokens; // of the response so far
} beam;

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

// A request that runs, with the slots lane * B to lane * B + B - 1.
typedef struct lane {
    bool busy;
    size_t request, pos, n_new; // tokens of the sequence that are in the cache; generated ones
    beam *open, *before;        // (B) beams, and room for the next step's
    size_t n;
    bool *prompted;       // (B) slots that hold the prompt
    hypothesis *finished; // (B)
    size_t n_finished, n_made;
} lane;

struct pb_decoder {
    const pb_model *m;
    pb_decoding how;
    pb_step *st;
    size_t lanes, slots, longest, max_rows;
    lane *lane;
    int32_t *tokens;
    pb_segment *seg;
    size_t *rows, *lane_of; // of segments
    real *logits;
    candidate *best;
    size_t n_best;    // room
    int32_t *history; // of beams and hypotheses
    beam *beams;
    hypothesis *hypotheses;
    bool *prompted;
};

static void share_out(pb_decoder *d)
{
    size_t B = d->how.beam;
    int32_t *h = d->history;
    for (size_t i = 0; i < d->lanes; i++) {
        lane *l = &d->lane[i];
        l->open = d->beams + 2 * i * B;
        l->before = l->open + B;
        l->prompted = d->prompted + i * B;
        l->finished = d->hypotheses + i * B;
        for (size_t k = 0; k < 2 * B; k++, h += d->longest)
            l->open[k].tokens = h;
        for (size_t k = 0; k < B; k++, h += d->longest)
            l->finished[k].tokens = h;
    }
}

pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t requests, size_t longest, const pb_decoding *how)
{
    pb_err err = PB_OK;
    pb_decoder *d = calloc(1, sizeof *d);
    *out = d;
    if (!d)
        return pb_fail(PB_MEMORY, NULL, "no memory for a decoder");
    d->m = m;
    d->how = *how;
    size_t B = d->how.beam = how->beam ? how->beam : 1;
    d->lanes = requests;
    d->slots = requests * B;
    d->longest = longest;
    d->max_rows = d->slots + (longest > 1024 ? longest : 1024);
    d->n_best = B * (2 + m->config.n_eos); // enough for B that do not end
    d->lane = calloc(requests, sizeof *d->lane);
    d->tokens = malloc(d->max_rows * sizeof *d->tokens);
    d->seg = malloc(d->slots * sizeof *d->seg);
    d->rows = malloc(d->slots * sizeof *d->rows);
    d->lane_of = malloc(d->slots * sizeof *d->lane_of);
    d->logits = malloc(d->slots * m->config.vocab * sizeof *d->logits);
    d->best = malloc(d->n_best * sizeof *d->best);
    d->history = malloc(3 * d->slots * longest * sizeof *d->history);
    d->beams = calloc(2 * d->slots, sizeof *d->beams);
    d->hypotheses = calloc(d->slots, sizeof *d->hypotheses);
    d->prompted = calloc(d->slots, sizeof *d->prompted);
    if (!d->lane || !d->tokens || !d->seg || !d->rows || !d->lane_of || !d->logits || !d->best ||
        !d->history || !d->beams || !d->hypotheses || !d->prompted) {
        err = pb_fail(PB_MEMORY, "use fewer slots", "no memory for %zu slots", d->slots);
        goto done;
    }
    if (B > PB_MOST_BEAMS || !isfinite(how->length_penalty))
        PB_GO(pb_fail(PB_INPUT, "1 to 64 beams", "%zu beams, length penalty %g", B,
                      how->length_penalty));
    share_out(d);
    pb_step_limits limits = {
        .rows = d->max_rows, .segments = d->slots, .slots = d->slots, .positions = longest};
    PB_GO(pb_step_new(&d->st, m, tenants, n, &limits));
done:
    if (err) {
        pb_decoder_free(d);
        *out = NULL;
    }
    return err;
}

void pb_decoder_free(pb_decoder *d)
{
    if (!d)
        return;
    pb_step_free(d->st);
    free(d->lane);
    free(d->tokens);
    free(d->seg);
    free(d->rows);
    free(d->lane_of);
    free(d->logits);
    free(d->best);
    free(d->history);
    free(d->beams);
    free(d->hypotheses);
    free(d->prompted);
    free(d);
}

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

// Puts the rows of one step together: every open beam, then new requests while there is room.
static pb_batch gather(pb_decoder *d, pb_request *r, size_t n, size_t *queued)
{
    size_t rows = 0, segs = 0, open = 0, B = d->how.beam;
    for (size_t i = 0; i < d->lanes; i++)
        open += d->lane[i].busy ? d->lane[i].n : 0;
    for (size_t i = 0; i < d->lanes; i++) {
        lane *l = &d->lane[i];
        if (l->busy) {
            for (size_t k = 0; k < l->n; k++) {
                d->tokens[rows] = l->open[k].next;
                d->lane_of[segs] = i;
                d->rows[segs] = rows;
                d->seg[segs++] = (pb_segment){.row0 = rows++,
                                              .n_rows = 1,
                                              .pos0 = l->pos,
                                              .tenant = r[l->request].tenant,
                                              .slot = (int)l->open[k].slot};
            }
            l->pos++;
            continue;
        }
        if (*queued == n || rows + r[*queued].n_prompt + open > d->max_rows)
            continue;
        const pb_request *q = &r[*queued];
        l->busy = true;
        l->request = (*queued)++;
        l->pos = q->n_prompt;
        l->n = 1;
        l->n_new = l->n_finished = l->n_made = 0;
        l->open[0].slot = i * B;
        l->open[0].sum = 0;
        memset(l->prompted, 0, B * sizeof *l->prompted);
        l->prompted[0] = true;
        memcpy(d->tokens + rows, q->prompt, q->n_prompt * sizeof *q->prompt);
        d->seg[segs] = (pb_segment){.row0 = rows,
                                    .n_rows = q->n_prompt,
                                    .n_prompt = q->n_prompt,
                                    .tenant = q->tenant,
                                    .slot = (int)(i * B)};
        rows += q->n_prompt;
        d->lane_of[segs] = i;
        d->rows[segs++] = rows - 1;
    }
    return (pb_batch){rows, segs, d->tokens, d->seg};
}

// Takes the probability from tokens that would repeat an n-gram of the n tokens t.
static void forbid(real *logits, const int32_t *t, size_t n, size_t gram)
{
    for (size_t i = 0; gram && i + gram <= n; i++)
        if (!memcmp(t + i, t + n - (gram - 1), (gram - 1) * sizeof *t))
            logits[t[i + gram - 1]] = -INFINITY;
}

// Returns whether the request is done.
static bool greedy(pb_decoder *d, lane *l, pb_request *q, real *logits)
{
    beam *b = &l->open[0];
    forbid(logits, q->out, q->n_out, d->how.no_repeat_ngram);
    int32_t id = b->next = pb_argmax(logits, d->m->config.vocab);
    q->ended = is_end(&d->m->config, id);
    if (!q->ended && q->n_out < q->max_new)
        q->out[q->n_out++] = id;
    return q->ended || q->n_out == q->max_new;
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

// The best continuations of all open beams, in order; returns their number.
static size_t continuations(pb_decoder *d, const lane *l, real *logits)
{
    size_t V = d->m->config.vocab, n = 0;
    for (size_t k = 0; k < l->n; k++) {
        real *x = logits + k * V;
        double base = l->open[k].sum - log_sum_exp(x, V);
        forbid(x, l->open[k].tokens, l->n_new, d->how.no_repeat_ngram);
        for (size_t i = 0; i < V; i++) {
            double sum = base + (double)x[i];
            if (sum == -INFINITY || (n == d->n_best && !(sum > d->best[n - 1].sum)))
                continue;
            size_t at = n < d->n_best ? n++ : n - 1;
            for (; at && sum > d->best[at - 1].sum; at--)
                d->best[at] = d->best[at - 1];
            d->best[at] = (candidate){sum, k, (int32_t)i};
        }
    }
    return n;
}

static double penalised(const pb_decoder *d, double sum, size_t n)
{
    return sum / pow((double)n, d->how.length_penalty);
}

// The worst hypothesis: of equal scores the oldest.
static size_t worst(const lane *l)
{
    size_t w = 0;
    for (size_t i = 1; i < l->n_finished; i++) {
        const hypothesis *a = &l->finished[i], *b = &l->finished[w];
        if (a->score < b->score || (a->score == b->score && a->made < b->made))
            w = i;
    }
    return w;
}

// Adds the response of beam k; `n` tokens count for its score.
static void finish(const pb_decoder *d, lane *l, size_t k, double sum, size_t n, bool ended)
{
    size_t B = d->how.beam, at = l->n_finished;
    double score = penalised(d, sum, n);
    if (at == B && !(score > l->finished[worst(l)].score))
        return;
    if (at == B)
        at = worst(l);
    else
        l->n_finished++;
    hypothesis *h = &l->finished[at];
    memcpy(h->tokens, l->open[k].tokens, l->n_new * sizeof *h->tokens);
    h->n = l->n_new;
    h->score = score;
    h->ended = ended;
    h->made = l->n_made++;
}

// Moves the open beams on to those of `l->before`, whose slots are still those of their parents:
// the first child of a beam keeps its slot, the others get copies in slots that nobody needs.
static void settle(pb_decoder *d, lane *l, size_t n, size_t n_prompt)
{
    size_t B = d->how.beam, first = (size_t)(l - d->lane) * B;
    bool taken[PB_MOST_BEAMS] = {false}, keeps[PB_MOST_BEAMS];
    for (size_t k = 0; k < n; k++) {
        size_t s = l->before[k].slot - first;
        keeps[k] = !taken[s];
        taken[s] = true;
    }
    for (size_t k = 0, s = 0; k < n; k++) {
        if (keeps[k])
            continue;
        while (taken[s])
            s++;
        taken[s] = true;
        pb_step_copy_slot(d->st, first + s, l->before[k].slot, l->prompted[s] ? n_prompt : 0,
                          l->pos);
        l->prompted[s] = true;
        l->before[k].slot = first + s;
    }
    beam *swap = l->open;
    l->open = l->before;
    l->before = swap;
    l->n = n;
}

static void deliver(lane *l, pb_request *q)
{
    const hypothesis *best = &l->finished[0];
    for (size_t i = 1; i < l->n_finished; i++) {
        const hypothesis *h = &l->finished[i];
        if (h->score > best->score || (h->score == best->score && h->made > best->made))
            best = h;
    }
    memcpy(q->out, best->tokens, best->n * sizeof *q->out);
    q->n_out = best->n;
    q->ended = best->ended;
    q->score = best->score;
}

// Returns whether the request is done. `logits` are those of its open beams.
static bool search(pb_decoder *d, lane *l, pb_request *q, real *logits)
{
    size_t B = d->how.beam, found = continuations(d, l, logits), n = 0;
    for (size_t i = 0; i < found && n < B; i++) {
        const candidate *c = &d->best[i];
        if (is_end(&d->m->config, c->token)) {
            if (i < B)
                finish(d, l, c->beam, c->sum, l->n_new + 1, true);
            continue;
        }
        beam *b = &l->before[n++];
        const beam *parent = &l->open[c->beam];
        memcpy(b->tokens, parent->tokens, l->n_new * sizeof *b->tokens);
        b->tokens[l->n_new] = b->next = c->token;
        b->sum = c->sum;
        b->slot = parent->slot;
    }
    if (!n && !l->n_finished) // everything is forbidden
        finish(d, l, 0, l->open[0].sum, l->n_new ? l->n_new : 1, false);
    l->n_new++;
    bool done = !n || (l->n_finished == B &&
                       l->finished[worst(l)].score >= penalised(d, d->best[0].sum, l->n_new));
    settle(d, l, n, q->n_prompt);
    if (!done && l->n_new == q->max_new) {
        for (size_t k = 0; k < n; k++)
            finish(d, l, k, l->open[k].sum, l->n_new, false);
        done = true;
    }
    if (done)
        deliver(l, q);
    return done;
}

pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *, size_t),
                 void *self)
{
    size_t queued = 0, done = 0, V = d->m->config.vocab;
    for (size_t i = 0; i < n; i++) {
        r[i].n_out = 0;
        r[i].ended = false;
        if (!r[i].n_prompt || !r[i].max_new || r[i].n_prompt + r[i].max_new > d->longest)
            return pb_fail(PB_INPUT, "shorten the prompt or the response",
                           "request %zu has %zu + %zu tokens, the cache holds %zu", i,
                           r[i].n_prompt, r[i].max_new, d->longest);
    }
    for (size_t i = 0; i < d->lanes; i++)
        d->lane[i].busy = false;
    while (done < n) {
        pb_batch b = gather(d, r, n, &queued);
        pb_mat *h = pb_forward(d->st, &b, false, 0, 0);
        pb_step_logits(d->st, h, d->rows, b.n_seg, d->logits);
        for (size_t i = 0, rows; i < b.n_seg; i += rows) {
            lane *l = &d->lane[d->lane_of[i]];
            pb_request *q = &r[l->request];
            rows = l->n;
            l->busy = !(d->how.beam == 1 ? greedy : search)(d, l, q, d->logits + i * V);
            done += !l->busy;
        }
        if (on_step)
            on_step(self, done);
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted while decoding");
    }
    return PB_OK;
}
