// Decoding against plain references: every token from a forward pass over the whole sequence, alone
// in its batch and without a cache; beam search over all continuations, sorted. Any mix of tenants
// (one adapter of every method, and none), any number of requests at once: the same bits.
#include "serve/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tiny.h"

enum { REQUESTS = 20, MOST_NEW = 14, LONGEST = 64, MOST_TENANTS = 16, MOST_BEAMS = 10 };

static const int32_t end_ids[] = {3, 9, 17, 22, 30, 41};
enum { N_ENDS = sizeof end_ids / sizeof *end_ids };

static pb_model *model;
static pb_adapter *tenants[MOST_TENANTS];
static size_t n_tenants, longest_prefix;
static int32_t prompts[REQUESTS][LONGEST], outs[REQUESTS][MOST_NEW];

static int set_up(void **state)
{
    if (tiny_folder_make(state))
        return -1;
    model = tiny_open(0, &(pb_model_args){.trainable = false});
    model->config.n_eos = N_ENDS; // ends must come
    memcpy(model->config.eos, end_ids, sizeof end_ids);
    const pb_method *m;
    for (size_t i = 0; (m = pb_method_at(i)) && n_tenants < MOST_TENANTS; i++) {
        pb_adapter *a;
        void *options;
        if (m->backbone)
            continue;
        OK(pb_options_new(&options, m));
        OK(pb_adapter_new(&a, m, options, &model->config, false));
        for (size_t k = 0; k < a->layout.n; k++) {
            const pb_spec *s = &a->layout.spec[k];
            pb_rng r = pb_rng_make(50 + i, PB_STREAM_TEST, (uint32_t)k);
            fill(a->params.v + s->offset, s->rows * s->cols, s->init == PB_INIT_ONE, 0.2, &r);
        }
        OK(pb_adapter_serve(a, model));
        longest_prefix = a->prefix_len > longest_prefix ? a->prefix_len : longest_prefix;
        tenants[n_tenants++] = a;
        free(options);
    }
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < REQUESTS; i++)
        for (size_t k = 0; k < LONGEST; k++)
            prompts[i][k] = (int32_t)pb_rng_below(&r, model->config.vocab);
    return 0;
}

static int tear_down(void **state)
{
    for (size_t i = 0; i < n_tenants; i++)
        pb_adapter_free(tenants[i]);
    pb_model_close(model);
    return tiny_folder_remove(state);
}

static void make_requests(pb_request *r)
{
    for (size_t i = 0; i < REQUESTS; i++)
        r[i] = (pb_request){.prompt = prompts[i],
                            .n_prompt = 1 + i * 5 % 37,
                            .max_new = 1 + (i * 5 + 9) % MOST_NEW,
                            .tenant = (int)(i % (n_tenants + 1)) - 1,
                            .out = outs[i]};
}

// ---------------------------------------------------------------- references

// Logits behind a prompt and n tokens.
static void next_logits(pb_step *st, const pb_request *q, const int32_t *t, size_t n, real *out)
{
    int32_t all[2 * LONGEST];
    memcpy(all, q->prompt, q->n_prompt * sizeof *all);
    memcpy(all + q->n_prompt, t, n * sizeof *all);
    pb_segment seg = {
        .n_rows = q->n_prompt + n, .n_prompt = q->n_prompt, .tenant = q->tenant, .slot = -1};
    pb_batch b = {seg.n_rows, 1, all, &seg};
    size_t last = seg.n_rows - 1;
    pb_step_logits(st, pb_forward(st, &b, false, 0, 0), &last, 1, out);
}

static bool ends(int32_t id)
{
    for (size_t i = 0; i < N_ENDS; i++)
        if (id == end_ids[i])
            return true;
    return id == model->config.bos;
}

static bool repeats(const int32_t *t, size_t n, int32_t id, size_t gram)
{
    int32_t all[MOST_NEW + 1];
    memcpy(all, t, n * sizeof *t);
    all[n] = id;
    for (size_t i = 0; gram && i + gram < n + 1; i++)
        if (!memcmp(all + i, all + n + 1 - gram, gram * sizeof *t))
            return true;
    return false;
}

typedef struct text {
    int32_t t[MOST_NEW + 1];
    size_t n;
    double sum, score;
    bool ended;
} text;

typedef struct option {
    text next;
    size_t beam;
    int32_t id;
} option;

static int by_sum(const void *a, const void *b)
{
    const option *x = a, *y = b;
    if (x->next.sum != y->next.sum)
        return x->next.sum > y->next.sum ? -1 : 1;
    if (x->beam != y->beam)
        return x->beam < y->beam ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_score(const void *a, const void *b) // the later of equal ones first: all differ here
{
    const text *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score;
}

static text reference_beams(pb_step *st, const pb_request *q, const pb_decoding *how)
{
    size_t V = model->config.vocab, B = how->beam, n_open = 1, n_done = 0;
    static text open[MOST_BEAMS], done[MOST_BEAMS + 1];
    option *all = malloc(B * V * sizeof *all);
    real *x = malloc(V * sizeof *x);
    memset(open, 0, sizeof open);
    bool over = false;
    for (size_t step = 1; step <= q->max_new && !over; step++) {
        size_t n = 0, m = 0;
        for (size_t k = 0; k < n_open; k++) {
            next_logits(st, q, open[k].t, open[k].n, x);
            double most = -INFINITY, total = 0;
            for (size_t i = 0; i < V; i++)
                most = x[i] > most ? x[i] : most;
            for (size_t i = 0; i < V; i++)
                total += exp((double)x[i] - most);
            double base = open[k].sum - (most + log(total));
            for (size_t i = 0; i < V; i++) {
                if (repeats(open[k].t, open[k].n, (int32_t)i, how->no_repeat_ngram))
                    continue;
                all[n] = (option){open[k], k, (int32_t)i};
                all[n].next.sum = base + (double)x[i];
                all[n].next.t[all[n].next.n++] = (int32_t)i;
                n++;
            }
        }
        qsort(all, n, sizeof *all, by_sum);
        for (size_t i = 0; i < n && m < B; i++) {
            text *t = &all[i].next;
            if (!ends(all[i].id)) {
                open[m++] = *t;
                continue;
            }
            if (i >= B)
                continue;
            t->score = t->sum / pow((double)t->n, how->length_penalty);
            t->ended = true;
            t->n--;
            done[n_done++] = *t;
            qsort(done, n_done, sizeof *done, by_score);
            n_done = n_done > B ? B : n_done;
        }
        n_open = m;
        over = n_done == B &&
               done[B - 1].score >= all[0].next.sum / pow((double)step, how->length_penalty);
    }
    for (size_t k = 0; k < n_open && !over; k++) {
        open[k].score = open[k].sum / pow((double)open[k].n, how->length_penalty);
        done[n_done++] = open[k];
        qsort(done, n_done, sizeof *done, by_score);
        n_done = n_done > B ? B : n_done;
    }
    free(all);
    free(x);
    return done[0];
}

static text reference_greedy(pb_step *st, const pb_request *q, const pb_decoding *how)
{
    text out = {.n = 0};
    size_t V = model->config.vocab;
    real *x = malloc(V * sizeof *x);
    while (out.n < q->max_new && !out.ended) {
        size_t best = V;
        next_logits(st, q, out.t, out.n, x);
        for (size_t i = 0; i < V; i++)
            if (!repeats(out.t, out.n, (int32_t)i, how->no_repeat_ngram) &&
                (best == V || x[i] > x[best]))
                best = i;
        out.ended = ends((int32_t)best);
        if (!out.ended)
            out.t[out.n++] = (int32_t)best;
    }
    free(x);
    return out;
}

// ---------------------------------------------------------------- tests

static const pb_decoding settings[] = {
    {1, 1, 0},  {1, 1, 1},    {1, 1, 2},  {2, 1, 0},  {3, 1, 0},  {3, 0.8, 2},
    {3, -1, 0}, {10, 0.8, 4}, {10, 1, 0}, {10, 0, 1}, {10, 2, 2},
};

static void test_references(void **state)
{
    (void)state;
    static const size_t at_once[] = {1, 3, REQUESTS};
    pb_step *plain;
    pb_request r[REQUESTS];
    size_t ended = 0, whole = 0;
    pb_step_limits limits = {.rows = LONGEST + MOST_NEW, .segments = 1};
    OK(pb_step_new(&plain, model, tenants, n_tenants, &limits));
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        const pb_decoding *how = &settings[s];
        text want[REQUESTS];
        make_requests(r);
        for (size_t i = 0; i < REQUESTS; i++)
            want[i] = (how->beam == 1 ? reference_greedy : reference_beams)(plain, &r[i], how);
        for (size_t k = 0; k < sizeof at_once / sizeof *at_once; k++) {
            pb_decoder *d;
            make_requests(r);
            OK(pb_decoder_new(&d, model, tenants, n_tenants, at_once[k], LONGEST, how));
            OK(pb_decode(d, r, REQUESTS, NULL, NULL));
            for (size_t i = 0; i < REQUESTS; i++) {
                const text *w = &want[i];
                if (r[i].n_out != w->n || memcmp(r[i].out, w->t, w->n * sizeof *w->t) ||
                    r[i].ended != w->ended || r[i].score != w->score)
                    fail_msg("%zu beams, penalty %g, %zu-grams, %zu at once, request %zu: %zu "
                             "tokens with %.17g instead of %zu with %.17g",
                             how->beam, how->length_penalty, how->no_repeat_ngram, at_once[k], i,
                             r[i].n_out, r[i].score, w->n, w->score);
                ended += w->ended;
                whole += !w->ended;
            }
            pb_decoder_free(d);
        }
    }
    // Both ways out are common, so both were compared.
    assert_true(ended > 50 && whole > 50);
    pb_step_free(plain);
}

static void test_refusals(void **state)
{
    (void)state;
    pb_decoder *d;
    pb_request r[REQUESTS];
    make_requests(r);
    assert_int_equal(pb_decoder_new(&d, model, NULL, 0, 1, LONGEST, &(pb_decoding){65, 1, 0}),
                     PB_INPUT);
    assert_int_equal(pb_decoder_new(&d, model, NULL, 0, 1, LONGEST, &(pb_decoding){2, NAN, 0}),
                     PB_INPUT);
    OK(pb_decoder_new(&d, model, tenants, n_tenants, 1, 8, &PB_GREEDY));
    r[0].n_prompt = 8;
    assert_int_equal(pb_decode(d, r, 1, NULL, NULL), PB_INPUT);
    pb_decoder_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_references),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
