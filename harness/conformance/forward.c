// Checks of the forward pass: the start, caching, batches, threads, causality, prefixes.
#include "conformance/internal.h"

#include "core/threads.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pb_err check_identity(conf *c, const pb_subject *s, size_t t)
{
    if (!s->m->identity || s->moved)
        SKIP(c, "%s does not claim the identity with these options", s->m->name);
    int32_t *tokens;
    trained x;
    real *a, *b;
    size_t V = c->backbone[t]->config.vocab;
    PB_TRY(conf_tokens(c, LONG, V, 1, &tokens));
    PB_TRY(conf_trained(c, s, t, false, &x));
    PB_TRY(conf_alone(c, x.m, x.a, tokens, LONG, SHORT, &a));
    PB_TRY(conf_alone(c, c->backbone[t], NULL, tokens, LONG, SHORT, &b));
    return conf_same("a fresh adapter changes the backbone's output",
                     "start one factor at zero (scales at one), or do not set .identity", a, b,
                     LONG, V);
}

// Without this, checks that compare two runs could pass on an adapter that is never called.
pb_err check_acts(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    bool any;
    int32_t *tokens;
    pb_adapter *a;
    real *y, *b;
    size_t V = c->backbone[t]->config.vocab;
    PB_TRY(conf_has(c, s, t, 0, &any));
    if (!any)
        SKIP(c, "%s has no parameters", s->m->name);
    PB_TRY(conf_tokens(c, LONG, V, 1, &tokens));
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(conf_alone(c, c->backbone[t], a, tokens, LONG, SHORT, &y));
    PB_TRY(conf_alone(c, c->backbone[t], NULL, tokens, LONG, SHORT, &b));
    double d = conf_distance(y + (LONG - 1) * V, b + (LONG - 1) * V, V);
    return d > 1e-3 ? PB_OK
                    : WRONG("does a hook act at the right site, and name the ids that `layout` "
                            "gave?",
                            "random parameters change the last row's logits by %g only", d);
}

// The step that records computes what inference computes, when nothing random is switched on.
pb_err check_recorded(conf *c, const pb_subject *s, size_t t)
{
    int32_t *tokens;
    trained x;
    pb_step *st;
    real *a, *b;
    PB_TRY(conf_trained(c, s, t, true, &x));
    size_t V = x.m->config.vocab;
    PB_TRY(conf_tokens(c, LONG, V, 2, &tokens));
    PB_TRY(conf_step(c, x.m, &x.a, x.a ? 1 : 0,
                     &(pb_step_limits){.rows = LONG, .segments = 1, .train = true}, &st));
    pb_segment seg = {.n_rows = LONG, .n_prompt = SHORT, .tenant = x.a ? 0 : -1, .slot = -1};
    PB_TRY(conf_logits(c, st, x.m, &(pb_batch){LONG, 1, tokens, &seg}, &a));
    PB_TRY(conf_alone(c, x.m, x.a, tokens, LONG, SHORT, &b));
    return conf_same("while training, the forward pass computes something else", NULL, a, b, LONG,
                     V);
}

// Steps keep no memory: what a hook allocates comes from the step's arena.
pb_err check_memory(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    enum { TIMES = 20 };
    int32_t *tokens;
    pb_adapter *a;
    pb_step *st;
    real *y;
    PB_TRY(conf_tokens(c, SHORT, c->backbone[t]->config.vocab, 2, &tokens));
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(
        conf_step(c, c->backbone[t], &a, 1, &(pb_step_limits){.rows = SHORT, .segments = 1}, &st));
    pb_segment seg = {.n_rows = SHORT, .n_prompt = 7, .slot = -1};
    pb_batch b = {SHORT, 1, tokens, &seg};
    PB_TRY(conf_logits(c, st, c->backbone[t], &b, &y));
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < TIMES; i++)
        pb_forward(st, &b, false, 1, 0);
    struct mallinfo2 after = mallinfo2();
    size_t more = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    return after.uordblks + after.hblkhd <= before.uordblks + before.hblkhd
               ? PB_OK
               : WRONG("inside a hook, matrices come from operations; tables belong into `prepare`",
                       "a hook allocates memory: %zu bytes more after %d steps", more, TIMES);
}

// Feeds tokens[from..to) to slot 0 as one segment and compares its logits with rows of `full`.
static pb_err feed(conf *c, pb_step *st, const pb_model *m, const char *what, const char *hint,
                   const int32_t *tokens, size_t from, size_t to, size_t n_prompt, const real *full)
{
    size_t n = to - from, in_prompt = n_prompt > from ? n_prompt - from : 0;
    pb_segment seg = {
        .n_rows = n, .pos0 = from, .n_prompt = in_prompt < n ? in_prompt : n, .slot = 0};
    real *y;
    PB_TRY(conf_logits(c, st, m, &(pb_batch){n, 1, tokens + from, &seg}, &y));
    return full ? conf_same(what, hint, y, full + from * m->config.vocab, n, m->config.vocab)
                : PB_OK;
}

pb_err check_decode(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    static const size_t prompts[] = {1, 7, 32, 33, 60};
    static const char cached[] = "what later tokens need from the prompt belongs into `state`";
    const pb_model *m = c->backbone[t];
    int32_t *tokens, *dirt;
    pb_adapter *a;
    pb_step *st;
    size_t number = (size_t)(s - c->list->s);
    PB_TRY(conf_tokens(c, LONG, m->config.vocab, 3, &tokens));
    PB_TRY(conf_tokens(c, LONG + 8, m->config.vocab, 4, &dirt));
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(conf_step(
        c, m, &a, 1,
        &(pb_step_limits){.rows = LONG + 8, .segments = 1, .slots = 1, .positions = LONG + 8},
        &st));
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        size_t P = prompts[i];
        real *full;
        // Single settings differ in what is computed, not in what is cached.
        if (!s->widely && i != number % 5 && i != (number + 2) % 5)
            continue;
        PB_TRY(conf_alone(c, m, a, tokens, LONG, P, &full));
        // What an earlier sequence left in the slot must not matter.
        PB_TRY(feed(c, st, m, "", NULL, dirt, 0, LONG + 8, 9, NULL));
        PB_TRY(feed(c, st, m, "a prompt that is cached", cached, tokens, 0, P, P, full));
        for (size_t k = P; k < LONG; k++)
            PB_TRY(feed(c, st, m, "decoding token by token", cached, tokens, k, k + 1, P, full));
        PB_TRY(
            feed(c, st, m, "prompt and first response tokens", cached, tokens, 0, P + 5, P, full));
        PB_TRY(feed(c, st, m, "the rest at once", cached, tokens, P + 5, LONG, P, full));
        for (size_t k = 0; k < P && !s->m->whole_prompt; k += 13)
            PB_TRY(feed(c, st, m, "a prompt that is cut",
                        "a method that reads the prompt as a whole sets .whole_prompt", tokens, k,
                        k + 13 < P ? k + 13 : P, P, full));
    }
    return PB_OK;
}

// ---------------------------------------------------------------- mixed batches

// Everything that is checked and the defaults of all other methods, at once: two sequences per
// tenant and some of the bare backbone, prefilled in different rounds, so that prefill and decoding
// stand in one batch; in three orders.
enum { ORDERS = 3, ROUNDS = 5, DECODED = 3, BARE = 4 };

typedef struct mixed {
    pb_adapter **tenant;
    size_t *tenant_of; // of each subject
    size_t n, n_seq;
    real **logits[ORDERS]; // (n_seq): (prompt + tokens decoded, V)
} mixed;

static size_t mixed_prompt(size_t i)
{
    return 1 + i * 7 % 23;
}

void conf_mixed_free(conf *c)
{
    for (size_t t = 0; t < PB_N_TINIES; t++) {
        mixed *x = c->mixed[t];
        if (!x)
            continue;
        for (size_t i = 0; i < x->n; i++)
            pb_adapter_free(x->tenant[i]);
        for (size_t o = 0; o < ORDERS; o++) {
            for (size_t i = 0; x->logits[o] && i < x->n_seq; i++)
                free(x->logits[o][i]);
            free(x->logits[o]);
        }
        free(x->tenant);
        free(x->tenant_of);
        free(x);
        c->mixed[t] = NULL;
    }
}

static bool listed(const conf *c, const pb_method *m)
{
    for (size_t i = 0; i < c->list->n; i++)
        if (c->list->s[i].m == m)
            return true;
    return false;
}

// Takes an adapter out of what is released when the check ends.
static pb_err tenant(conf *c, mixed *x, const pb_subject *s, size_t t)
{
    pb_adapter *a, *own;
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(pb_adapter_new(&own, s->m, a->options, &a->config, false));
    x->tenant[x->n++] = own;
    memcpy(own->params.v, a->params.v, a->layout.size * sizeof *own->params.v);
    return pb_adapter_serve(own, c->backbone[t]);
}

static pb_err mixed_run(conf *c, mixed *x, size_t t, size_t o)
{
    const pb_model *m = c->backbone[t];
    size_t N = x->n_seq, V = m->config.vocab;
    int32_t *tokens = conf_alloc(c, N * 27, sizeof *tokens);
    pb_segment *seg = conf_alloc(c, N, sizeof *seg);
    size_t *who = conf_alloc(c, N, sizeof *who);
    pb_step *st;
    PB_TRY(conf_step(c, m, x->tenant, x->n,
                     &(pb_step_limits){.rows = N * 27, .segments = N, .slots = N, .positions = 27},
                     &st));
    x->logits[o] = calloc(N, sizeof *x->logits[o]);
    for (size_t i = 0; i < N; i++)
        x->logits[o][i] = calloc((mixed_prompt(i) + DECODED) * V, sizeof(real));
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t rows = 0, n = 0;
        for (size_t k = 0; k < (N + 4) / 5 * 5; k++) {
            size_t i = o == 0 ? k : o == 1 ? N - 1 - k : (k % 5 * ((N + 4) / 5) + k / 5);
            if (i >= N)
                continue;
            size_t P = mixed_prompt(i), start = (i + o) % 3, pos = 0;
            int32_t *own;
            if (round < start || (round > start && round - start > DECODED))
                continue;
            PB_TRY(conf_tokens(c, P + DECODED, V, (uint32_t)(100 + i), &own));
            size_t len = round == start ? P : 1;
            if (round > start)
                pos = P + round - start - 1;
            memcpy(tokens + rows, own + pos, len * sizeof *own);
            seg[n] = (pb_segment){.row0 = rows,
                                  .n_rows = len,
                                  .pos0 = pos,
                                  .n_prompt = round == start ? P : 0,
                                  .tenant = i < 2 * x->n ? (int)(i % x->n) : -1,
                                  .slot = (int)i};
            who[n++] = i;
            rows += len;
        }
        real *y;
        PB_TRY(conf_logits(c, st, m, &(pb_batch){rows, n, tokens, seg}, &y));
        for (size_t k = 0; k < n; k++)
            memcpy(x->logits[o][who[k]] + seg[k].pos0 * V, y + seg[k].row0 * V,
                   seg[k].n_rows * V * sizeof *y);
    }
    return PB_OK;
}

static pb_err mixed_make(conf *c, size_t t)
{
    size_t others = 0;
    const pb_method *m;
    while (pb_method_at(others))
        others++;
    mixed *x = c->mixed[t] = calloc(1, sizeof *x);
    x->tenant = calloc(c->list->n + others, sizeof(pb_adapter *));
    x->tenant_of = calloc(c->list->n + 1, sizeof(size_t));
    for (size_t i = 0; i < c->list->n; i++)
        if (!c->list->s[i].m->backbone) {
            x->tenant_of[i] = x->n;
            PB_TRY(tenant(c, x, &c->list->s[i], t));
        }
    for (size_t i = 0; (m = pb_method_at(i)); i++) {
        pb_subject other = {.m = m};
        if (!m->backbone && !listed(c, m))
            PB_TRY(tenant(c, x, &other, t));
    }
    x->n_seq = 2 * x->n + BARE;
    for (size_t o = 0; o < ORDERS; o++)
        PB_TRY(mixed_run(c, x, t, o));
    return PB_OK;
}

pb_err check_mixed(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    const pb_model *m = c->backbone[t];
    size_t V = m->config.vocab;
    if (!c->mixed[t])
        PB_TRY(mixed_make(c, t));
    mixed *x = c->mixed[t];
    size_t mine = x->tenant_of[s - c->list->s];
    for (size_t i = 0; i < x->n_seq; i++) {
        bool bare = i >= 2 * x->n;
        int32_t *own;
        real *y;
        if (bare ? s != c->list->s : i % x->n != mine)
            continue;
        size_t P = mixed_prompt(i);
        PB_TRY(conf_tokens(c, P + DECODED, V, (uint32_t)(100 + i), &own));
        PB_TRY(conf_alone(c, m, bare ? NULL : x->tenant[mine], own, P + DECODED, P, &y));
        for (size_t o = 0; o < ORDERS; o++) {
            // Who starts in the last round decodes less before the rounds end.
            size_t decoded = ROUNDS - 1 - (i + o) % 3;
            char what[80];
            snprintf(what, sizeof what, "%s in a mixed batch, sequence %zu in order %zu",
                     bare ? "the bare backbone" : "the method", i, o);
            PB_TRY(conf_same(what,
                             "does an option change the computation for all tenants? then it is "
                             "not per_tenant; does a site edit an input that others read? pb_copy",
                             x->logits[o][i], y, P + (decoded < DECODED ? decoded : DECODED), V));
        }
    }
    return PB_OK;
}

// ---------------------------------------------------------------- threads, causality, text

pb_err check_threads(conf *c, const pb_subject *s, size_t t)
{
    // Enough rows and columns that every operation goes parallel, see PB_PARALLEL_WORK.
    enum { SEQS = 8, LEN = 110 };
    if (pb_tinies[t].config.width < 40)
        SKIP(c, "this backbone is too narrow for parallel work");
    pb_err err = PB_OK;
    size_t V = c->backbone[t]->config.vocab;
    real *first = NULL, *d = NULL;
    int32_t *tokens, *target = conf_alloc(c, SEQS * LEN, sizeof *target);
    real *nll = conf_alloc(c, SEQS * LEN, sizeof *nll);
    real *weight = conf_alloc(c, SEQS * LEN, sizeof *weight);
    pb_segment *seg = conf_alloc(c, SEQS, sizeof *seg);
    PB_TRY(conf_tokens(c, SEQS * LEN, V, 15, &tokens));
    for (size_t i = 0; i < SEQS * LEN; i++) {
        target[i] = tokens[(i + 1) % (SEQS * LEN)];
        weight[i] = (real)0.01;
    }
    for (int n = 1; n <= 3 && !err; n++) {
        trained x;
        if (n == 2 && !s->widely)
            continue;
        pb_step *st;
        real *y;
        PB_GO(pb_threads_set(n));
        PB_GO(conf_trained(c, s, t, true, &x));
        for (size_t i = 0; i < SEQS; i++)
            seg[i] = (pb_segment){.row0 = i * LEN,
                                  .n_rows = LEN,
                                  .n_prompt = 1 + 17 * i,
                                  .tenant = x.a ? 0 : -1,
                                  .slot = -1};
        PB_GO(conf_step(c, x.m, &x.a, x.a ? 1 : 0,
                        &(pb_step_limits){.rows = SEQS * LEN, .segments = SEQS, .train = true},
                        &st));
        pb_batch b = {SEQS * LEN, SEQS, tokens, seg};
        pb_mat *h = pb_forward(st, &b, true, 1, 0);
        pb_step_loss(st, h, target, weight, nll, NULL);
        pb_step_backward(st);
        // The update too: it is shared out over large matrices.
        real *moments = conf_alloc(c, 2 * x.p->layout->size, sizeof *moments);
        pb_adamw_step(x.p, moments, moments + x.p->layout->size,
                      &(pb_adamw){0.9, 0.999, 1e-8, 0.01}, 0.01, 1, false);
        y = conf_alloc(c, SEQS * LEN, sizeof *y);
        memcpy(y, nll, SEQS * LEN * sizeof *y);
        if (n == 1) {
            first = y;
            d = conf_alloc(c, 2 * x.p->layout->size, sizeof *d);
            memcpy(d, x.p->d, x.p->layout->size * sizeof *d);
            memcpy(d + x.p->layout->size, x.p->v, x.p->layout->size * sizeof *d);
            continue;
        }
        char what[60];
        snprintf(what, sizeof what, "losses with %d threads", n);
        PB_GO(conf_same(what, NULL, y, first, 1, SEQS * LEN));
        snprintf(what, sizeof what, "gradients with %d threads", n);
        PB_GO(conf_same(what, NULL, x.p->d, d, 1, x.p->layout->size));
        snprintf(what, sizeof what, "values after an update with %d threads", n);
        PB_GO(conf_same(what, NULL, x.p->v, d + x.p->layout->size, 1, x.p->layout->size));
    }
done:
    (void)pb_threads_set(1);
    return err;
}

pb_err check_causality(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    const pb_model *m = c->backbone[t];
    size_t V = m->config.vocab;
    int32_t *tokens;
    pb_adapter *a;
    real *y, *z;
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(conf_tokens(c, LONG, V, 6, &tokens));
    PB_TRY(conf_alone(c, m, a, tokens, LONG, SHORT, &y));
    // Only a method that reads the prompt as a whole may look ahead, and only within the prompt.
    for (size_t at = s->m->prompt ? SHORT : 1; at < LONG; at += 17) {
        int32_t was = tokens[at];
        tokens[at] = (int32_t)((size_t)(was + 1) % V);
        PB_TRY(conf_alone(c, m, a, tokens, LONG, SHORT, &z));
        PB_TRY(conf_same("a later token changes an earlier row",
                         "a row may depend on rows before it alone", z, y, at, V));
        if (!memcmp(z + at * V, y + at * V, V * sizeof *y))
            return WRONG(NULL, "token %zu changed, but its row did not", at);
        tokens[at] = was;
    }
    return PB_OK;
}

// A prefix made of a text's keys and values is that text in front.
pb_err check_text(conf *c, const pb_subject *s, size_t t)
{
    const pb_model *m = c->backbone[t];
    size_t V = m->config.vocab;
    void *o;
    int32_t *head, *tail;
    pb_adapter *a;
    real *y, *z;
    PB_TRY(conf_options(c, s, &o));
    size_t n = s->m->text_len ? s->m->text_len(o) : 0;
    if (!n)
        SKIP(c, "%s does not start from a text with these options", s->m->name);
    PB_TRY(conf_fresh(c, s, t, false, &a));
    PB_TRY(conf_tokens(c, n, V, TEXT, &head));
    PB_TRY(conf_tokens(c, LONG, V, 8, &tail));
    int32_t *tokens = conf_alloc(c, n + LONG, sizeof *tokens);
    memcpy(tokens, head, n * sizeof *tokens);
    memcpy(tokens + n, tail, LONG * sizeof *tokens);
    PB_TRY(conf_alone(c, m, a, tail, LONG, SHORT, &y));
    PB_TRY(conf_alone(c, m, NULL, tokens, n + LONG, SHORT, &z));
    return conf_near("a prefix made of a text is not like that text in front", NULL, y, z + n * V,
                     LONG * V);
}
