// A small scheduler: first come, first served; whole prompts; one row per running request and step.
#include "serve/decode.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>

typedef struct lane { // one KV slot
    bool busy;
    size_t request, pos; // tokens of the sequence that are in the cache
    int32_t next;        // the token to be fed
} lane;

struct pb_decoder {
    const pb_model *m;
    pb_step *st;
    size_t slots, longest, max_rows;
    lane *lane;
    int32_t *tokens;
    pb_segment *seg;
    size_t *rows, *lane_of;
    real *logits;
};

pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t slots, size_t longest)
{
    pb_err err = PB_OK;
    pb_decoder *d = calloc(1, sizeof *d);
    *out = d;
    if (!d)
        return pb_fail(PB_MEMORY, NULL, "no memory for a decoder");
    d->m = m;
    d->slots = slots;
    d->longest = longest;
    d->max_rows = slots + (longest > 1024 ? longest : 1024);
    d->lane = calloc(slots, sizeof *d->lane);
    d->tokens = malloc(d->max_rows * sizeof *d->tokens);
    d->seg = malloc(slots * sizeof *d->seg);
    d->rows = malloc(slots * sizeof *d->rows);
    d->lane_of = malloc(slots * sizeof *d->lane_of);
    d->logits = malloc(slots * m->config.vocab * sizeof *d->logits);
    if (!d->lane || !d->tokens || !d->seg || !d->rows || !d->lane_of || !d->logits) {
        err = pb_fail(PB_MEMORY, "use fewer slots", "no memory for %zu slots", slots);
        goto done;
    }
    pb_step_limits limits = {
        .rows = d->max_rows, .segments = slots, .slots = slots, .positions = longest};
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

// Puts the rows of one step together: every running request, then new ones while there is room.
static pb_batch gather(pb_decoder *d, pb_request *r, size_t n, size_t *queued)
{
    size_t rows = 0, segs = 0, running = 0;
    for (size_t s = 0; s < d->slots; s++)
        running += d->lane[s].busy;
    for (size_t s = 0; s < d->slots; s++) {
        lane *l = &d->lane[s];
        if (l->busy) {
            d->tokens[rows] = l->next;
            d->seg[segs] = (pb_segment){.row0 = rows,
                                        .n_rows = 1,
                                        .pos0 = l->pos,
                                        .tenant = r[l->request].tenant,
                                        .slot = (int)s};
            rows++;
            l->pos++;
        } else {
            if (*queued == n || rows + r[*queued].n_prompt + running > d->max_rows)
                continue;
            const pb_request *q = &r[*queued];
            *l = (lane){true, *queued, q->n_prompt, 0};
            memcpy(d->tokens + rows, q->prompt, q->n_prompt * sizeof *q->prompt);
            d->seg[segs] = (pb_segment){.row0 = rows,
                                        .n_rows = q->n_prompt,
                                        .n_prompt = q->n_prompt,
                                        .tenant = q->tenant,
                                        .slot = (int)s};
            rows += q->n_prompt;
            ++*queued;
        }
        d->lane_of[segs] = s;
        d->rows[segs++] = rows - 1;
    }
    return (pb_batch){rows, segs, d->tokens, d->seg};
}

pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *, size_t),
                 void *self)
{
    size_t queued = 0, done = 0, V = d->m->config.vocab;
    for (size_t i = 0; i < n; i++) {
        r[i].n_out = 0;
        r[i].ended = false;
        if (!r[i].n_prompt || r[i].n_prompt + r[i].max_new > d->longest)
            return pb_fail(PB_INPUT, "shorten the prompt or the response",
                           "request %zu has %zu + %zu tokens, the cache holds %zu", i,
                           r[i].n_prompt, r[i].max_new, d->longest);
    }
    memset(d->lane, 0, d->slots * sizeof *d->lane);
    while (done < n) {
        pb_batch b = gather(d, r, n, &queued);
        pb_mat *h = pb_forward(d->st, &b, false, 0, 0);
        pb_step_logits(d->st, h, d->rows, b.n_seg, d->logits);
        for (size_t i = 0; i < b.n_seg; i++) {
            lane *l = &d->lane[d->lane_of[i]];
            pb_request *q = &r[l->request];
            int32_t id = pb_argmax(d->logits + i * V, V);
            q->ended = is_end(&d->m->config, id);
            if (!q->ended && q->n_out < q->max_new)
                q->out[q->n_out++] = id;
            l->next = id;
            if (q->ended || q->n_out == q->max_new) {
                l->busy = false;
                done++;
            }
        }
        if (on_step)
            on_step(self, done);
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted while decoding");
    }
    return PB_OK;
}
