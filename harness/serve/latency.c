// One step object serves all arms of the base model: its tenants are the adapters of all methods,
// so activations of all arms lie at the same addresses and no arm has luckier pages. Keys and
// values are in blocks of slots:
//
//   block 0 base, 1 base-again, 2 none, then of each method three: its adapter 0 in every slot
//   ("same"); adapter i in slot i ("different", "loop", and its share of "mixed"); adapter i / 2 in
//   slot i ("sorted", "unsorted").
//
// Requests replay fixed tokens, and what slot i holds depends on its adapter and request i alone;
// so arms that share a block write the same numbers over and over, whatever the batch size.
//
// Whole generations have a decoder of their own, whose slots all arms use in turn.
#include "serve/latency.h"

#include "serve/generation.h"

#include "core/clock.h"
#include "core/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BASE, AGAIN, NONE, FIRST_METHOD }; // blocks of slots
enum { SAME, DIFFERENT, PAIRS, PER_METHOD };
enum { N_FORWARD = PB_PHASE_GENERATE }; // phases of single steps
enum { COMPONENT_ROUNDS = 4 };          // in which these have an additional run, by components
enum { FORWARD_EXCLUDED = 2, GENERATIONS_EXCLUDED = 1 }; // runs of an arm before its samples

const char *const pb_latency_phases[PB_PHASES] = {"prefill", "decode", "generate"};

typedef enum kind {
    KIND_LIMIT,
    KIND_BASE,
    KIND_AGAIN,
    KIND_NONE,
    KIND_MERGED,
    KIND_SAME,
    KIND_DIFFERENT,
    KIND_SORTED,
    KIND_UNSORTED,
    KIND_LOOP,
    KIND_MIXED,
    N_KINDS
} kind;

static const struct {
    const char *method, *sharing; // method NULL: that of the adapter, or the limit's name
} kinds[N_KINDS] = {
    [KIND_LIMIT] = {NULL, "limit"},         [KIND_BASE] = {"base", "none"},
    [KIND_AGAIN] = {"base-again", "none"},  [KIND_NONE] = {"none", "none"},
    [KIND_MERGED] = {"merged", "merged"},   [KIND_SAME] = {NULL, "same"},
    [KIND_DIFFERENT] = {NULL, "different"}, [KIND_SORTED] = {NULL, "sorted"},
    [KIND_UNSORTED] = {NULL, "unsorted"},   [KIND_LOOP] = {NULL, "loop"},
    [KIND_MIXED] = {"mixed", "mixed"},
};

typedef struct arm {
    kind kind;
    size_t method; // of those that are there for each method; of a limit its number
    pb_step *st;
    pb_segment *seg; // (N) of the current group
    size_t *request; // (N): which one is at a place of the batch
    int *tenant;     // (N): of these requests
    int64_t *samples;
    size_t n;
    pb_counts fastest[PB_COMPONENTS]; // times of the run that took the least
} arm;

// One phase and batch size.
typedef struct group {
    pb_latency_phase phase;
    size_t rows; // requests
    size_t n;    // tokens per request and forward
    size_t beam; // of generations
    double cost; // seconds of a round, as the check found it
    double share;
    double weight;
    pb_generation_counts *counts; // (arms); of single steps the first kind alone
} group;

typedef struct lab {
    const pb_latency_plan *p;
    const pb_latency_observer *o;
    const pb_config *config;
    size_t most; // requests of the largest batch
    pb_adapter **adapter;
    size_t n_adapters; // `none` for every request, then every method for every request
    pb_step *st, *merged;
    arm *arms;
    size_t n_arms;
    group *groups;
    size_t n_groups;
    pb_generation *generation, *merged_generation;
    int32_t *prompts;           // (most, P)
    int32_t *replies;           // (most, fresh)
    int32_t *next;              // (most): the tokens of the current step
    int32_t *tokens;            // (most, P): of the batch, in its order
    size_t *last[N_FORWARD];    // (most): the last row of every request
    real *logits;               // (most, V)
    int32_t *ids;               // (most)
    uint64_t *alone[N_FORWARD]; // per lane: digest of the logits of a request alone
    uint64_t *text; // (n_beams, 1 + n_methods, most): digests of generations; 0: not yet
    size_t *order;  // (n_arms)
    size_t room;    // samples per arm
    double start;
} lab;

// ---------------------------------------------------------------- adapters

pb_err pb_latency_adapter(pb_adapter **out, const pb_latency_method *m, const pb_config *config,
                          uint64_t seed, size_t tenant)
{
    pb_err err = PB_OK;
    pb_adapter *a = NULL;
    real *text = NULL;
    *out = NULL;
    seed += (uint64_t)tenant << 40; // other tenants and other runs' seeds never meet
    PB_GO(pb_adapter_new(&a, m->method, m->options, config, false));
    size_t n = m->method->text_len ? m->method->text_len(a->options) : 0;
    size_t kv = n * config->layers * pb_kv_width(config), size = n * config->width + 2 * kv;
    if (n) {
        text = malloc(size * sizeof *text);
        if (!text) {
            err = pb_fail(PB_MEMORY, NULL, "no memory for a text of %zu tokens", n);
            goto done;
        }
        pb_rng r = pb_rng_make(seed, PB_STREAM_SAMPLE, 1);
        for (size_t i = 0; i < size; i++)
            text[i] = (real)(pb_rng_uniform(&r) - 0.5);
    }
    PB_GO(pb_adapter_init(a, NULL, seed, n, n ? text + 2 * kv : NULL, text, n ? text + kv : NULL));
    // Initial values may leave the backbone untouched; a trained adapter does not.
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        pb_rng r = pb_rng_make(seed, PB_STREAM_SAMPLE, 2 + (uint32_t)i);
        for (size_t k = 0; k < s->rows * s->cols; k++)
            a->params.v[s->offset + k] += (real)(0.06 * (pb_rng_uniform(&r) - 0.5));
    }
    PB_GO(pb_adapter_folded(out, a));
done:
    free(text);
    pb_adapter_free(a);
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
        (void)pb_context(err, "tenant %zu (%s)", tenant, m->method->name);
    }
    return err;
}

static size_t adapter_of(const lab *l, size_t method, size_t request)
{
    return (1 + method) * l->most + request;
}

// The method and adapter of a request in an arm; -1 for none.
static int tenant_of(const lab *l, const arm *a, size_t i)
{
    switch (a->kind) {
    case KIND_NONE:
        return (int)i;
    case KIND_SAME:
        return (int)adapter_of(l, a->method, 0);
    case KIND_DIFFERENT:
    case KIND_LOOP:
        return (int)adapter_of(l, a->method, i);
    case KIND_SORTED:
    case KIND_UNSORTED:
        return (int)adapter_of(l, a->method, i / 2);
    case KIND_MIXED:
        return (int)adapter_of(l, i % l->p->n_methods, i);
    default:
        return -1;
    }
}

static size_t block_of(const lab *l, const arm *a, size_t i)
{
    size_t of_method = FIRST_METHOD + PER_METHOD * a->method;
    switch (a->kind) {
    case KIND_AGAIN:
        return AGAIN;
    case KIND_NONE:
        return NONE;
    case KIND_SAME:
        return of_method + SAME;
    case KIND_DIFFERENT:
    case KIND_LOOP:
        return of_method + DIFFERENT;
    case KIND_SORTED:
    case KIND_UNSORTED:
        return of_method + PAIRS;
    case KIND_MIXED:
        return FIRST_METHOD + PER_METHOD * (i % l->p->n_methods) + DIFFERENT;
    default: // base, and merged in its own step
        return BASE;
    }
}

static size_t n_blocks(const pb_latency_plan *p)
{
    return FIRST_METHOD + PER_METHOD * p->n_methods;
}

static size_t slot_of(const lab *l, const arm *a, size_t i)
{
    return block_of(l, a, i) * l->most + i;
}

// Slots of both steps in one numbering.
static size_t lane_of(const lab *l, const arm *a, size_t i)
{
    return a->kind == KIND_MERGED ? n_blocks(l->p) * l->most + i : slot_of(l, a, i);
}

static size_t tenants_of(const arm *a, size_t rows)
{
    switch (a->kind) {
    case KIND_LIMIT:
    case KIND_BASE:
    case KIND_AGAIN:
        return 0;
    case KIND_MERGED:
    case KIND_SAME:
        return 1;
    case KIND_SORTED:
    case KIND_UNSORTED:
        return (rows + 1) / 2;
    default:
        return rows;
    }
}

static const char *method_name(const lab *l, const arm *a)
{
    const char *fixed = kinds[a->kind].method;
    return fixed                   ? fixed
           : a->kind == KIND_LIMIT ? l->p->limits[a->method].name
                                   : l->p->methods[a->method].method->name;
}

// One request is its own loop, and no mixture; two with one adapter have no order.
static bool takes_part(const lab *l, const arm *a, const group *g)
{
    bool generates = g->phase == PB_PHASE_GENERATE;
    switch (a->kind) {
    case KIND_SAME:
        return !generates;
    case KIND_SORTED:
    case KIND_UNSORTED:
        return !generates && g->rows > 2;
    case KIND_LOOP:
        return g->rows > 1;
    case KIND_MIXED:
        return g->rows > 1 && l->p->n_methods > 1;
    default:
        return true;
    }
}

static void name_of(char *out, size_t size, const lab *l, const arm *a, const group *g)
{
    char beam[32] = "";
    if (g->phase == PB_PHASE_GENERATE)
        snprintf(beam, sizeof beam, "beam-%zu/", g->beam);
    snprintf(out, size, "%s/%s%s/%s/%zu", pb_latency_phases[g->phase], beam, method_name(l, a),
             kinds[a->kind].sharing, g->rows);
}

// ---------------------------------------------------------------- steps

// The requests at `n_seg` places of the batch, from i0 on, as one forward: logits of their last
// rows and what follows them.
static void forward(lab *l, const arm *a, const group *g, size_t i0, size_t n_seg, pb_segment *seg,
                    pb_counts *counts)
{
    size_t V = l->config->vocab, n = g->n;
    const int32_t *tokens = g->phase == PB_PHASE_DECODE ? l->next : l->prompts;
    for (size_t i = 0; i < n_seg; i++)
        memcpy(l->tokens + i * n, tokens + a->request[i0 + i] * n, n * sizeof *tokens);
    pb_batch b = {n_seg * n, n_seg, l->tokens, seg};
    pb_mat *h = pb_forward(a->st, &b, false, 0, 0);
    pb_step_logits(a->st, h, l->last[g->phase], n_seg, l->logits + i0 * V);
    for (size_t i = i0; i < i0 + n_seg; i++)
        l->ids[i] = pb_argmax(l->logits + i * V, V);
    for (int c = 0; counts && c < PB_COMPONENTS; c++)
        pb_counts_add(&counts[c], &pb_step_counts(a->st)[c]);
}

// The request at one place by itself: the rows of its segment are moved to the front.
static void forward_alone(lab *l, const arm *a, const group *g, size_t i, pb_counts *counts)
{
    pb_segment seg = a->seg[i];
    seg.row0 = 0;
    forward(l, a, g, i, 1, &seg, counts);
}

static pb_err generate(lab *l, const arm *a, const group *g, pb_generation_counts *counts)
{
    bool loop = a->kind == KIND_LOOP;
    pb_generation *how = a->kind == KIND_MERGED ? l->merged_generation : l->generation;
    for (size_t i = 0; i < g->rows; i += loop ? 1 : g->rows)
        PB_TRY(pb_generation_run(how, i, loop ? 1 : g->rows, a->tenant, g->beam, counts));
    return PB_OK;
}

// What a sample times.
static pb_err run_arm(lab *l, const arm *a, const group *g, pb_generation_counts *counts)
{
    pb_counts *own = counts ? (*counts)[PB_PROMPT_STEPS] : NULL;
    if (g->phase == PB_PHASE_GENERATE)
        return generate(l, a, g, counts);
    if (a->kind != KIND_LOOP)
        forward(l, a, g, 0, g->rows, a->seg, own);
    for (size_t i = 0; a->kind == KIND_LOOP && i < g->rows; i++)
        forward_alone(l, a, g, i, own);
    return PB_OK;
}

// Brings back what a server that does nothing else has in its caches: the backbone, and when
// decoding, where they count, the adapters too.
static void lead_in(lab *l, const arm *a, const group *g)
{
    if (a->kind == KIND_LIMIT || g->phase == PB_PHASE_GENERATE)
        return;
    if (g->phase == PB_PHASE_DECODE && a->kind != KIND_LOOP)
        forward(l, a, g, 0, g->rows, a->seg, NULL);
    else
        forward_alone(l, a, g, 0, NULL);
}

static double lead_in_share(const arm *a, const group *g)
{
    return g->phase == PB_PHASE_GENERATE                         ? 0
           : g->phase == PB_PHASE_DECODE && a->kind != KIND_LOOP ? 1
                                                                 : 1 / (double)g->rows;
}

// Which request is at place i of an arm's batch: of the unsorted ones first those with even
// numbers, so that no two with one adapter are neighbours.
static size_t request_at(const arm *a, size_t i, size_t rows)
{
    size_t even = (rows + 1) / 2;
    return a->kind != KIND_UNSORTED ? i : i < even ? 2 * i : 2 * (i - even) + 1;
}

// Lays out the arm's batch for a group.
static void arrange(lab *l, arm *a, const group *g)
{
    bool decode = g->phase == PB_PHASE_DECODE;
    for (size_t i = 0; a->kind != KIND_LIMIT && i < g->rows; i++) {
        size_t r = a->request[i] = request_at(a, i, g->rows);
        a->tenant[i] = tenant_of(l, a, r);
        a->seg[i] = (pb_segment){.row0 = i * g->n,
                                 .n_rows = g->n,
                                 .pos0 = decode ? l->p->prompt : 0,
                                 .n_prompt = decode ? 0 : g->n,
                                 .tenant = a->tenant[i],
                                 .slot = (int)slot_of(l, a, r)};
    }
}

// Which token of the responses a decode step is at; the position after the last one is the first
// again, whose keys and values it writes anew.
static void at_token(lab *l, const group *g, size_t t)
{
    size_t at = t % l->p->fresh;
    for (size_t i = 0; g->phase == PB_PHASE_DECODE && i < g->rows; i++) {
        l->next[i] = l->replies[i * l->p->fresh + at];
        for (size_t k = 0; k < l->n_arms; k++)
            l->arms[k].seg[i].pos0 = l->p->prompt + at;
    }
}

// ---------------------------------------------------------------- correctness

static pb_err digest(uint64_t *out, const lab *l, size_t request)
{
    const real *x = l->logits + request * l->config->vocab;
    uint64_t h = 14695981039346656037u; // FNV-1a, over words
    for (size_t v = 0; v < l->config->vocab; v++) {
        uint32_t w[sizeof(real) / 4];
        if (!isfinite(x[v]))
            return pb_fail(PB_DIVERGED, "are the weights those of a working model?",
                           "logit %zu of request %zu is %g", v, request, (double)x[v]);
        memcpy(w, &x[v], sizeof w);
        for (size_t k = 0; k < sizeof w / sizeof *w; k++)
            h = (h ^ w[k]) * 1099511628211u;
    }
    *out = h;
    return PB_OK;
}

// Fills every slot, request by request, and keeps what comes out.
static pb_err run_alone(lab *l)
{
    for (size_t k = 0; k < l->n_arms; k++) {
        arm *a = &l->arms[k];
        if (a->kind == KIND_LIMIT || a->kind == KIND_UNSORTED || a->kind == KIND_LOOP ||
            a->kind == KIND_MIXED) // have no slots of their own
            continue;
        for (int phase = 0; phase < N_FORWARD; phase++) {
            group g = {.phase = (pb_latency_phase)phase,
                       .rows = l->most,
                       .n = phase == PB_PHASE_DECODE ? 1 : l->p->prompt};
            arrange(l, a, &g);
            at_token(l, &g, 0);
            for (size_t i = 0; i < l->most; i++) {
                forward_alone(l, a, &g, i, NULL);
                PB_TRY(digest(&l->alone[phase][lane_of(l, a, i)], l, i));
                if (pb_interrupted())
                    return pb_fail(PB_INTERRUPTED, NULL, "interrupted before the first sample");
            }
        }
    }
    return PB_OK;
}

// An adapter that changes nothing, or that two tenants share, would make its times worthless.
static pb_err check_adapters(const lab *l)
{
    for (size_t m = 0; m < l->p->n_methods; m++) {
        const uint64_t *base = l->alone[PB_PHASE_DECODE];
        const uint64_t *same = base + (FIRST_METHOD + PER_METHOD * m + SAME) * l->most;
        const uint64_t *different = base + (FIRST_METHOD + PER_METHOD * m + DIFFERENT) * l->most;
        const char *name = l->p->methods[m].method->name;
        for (size_t i = 0; i < l->most; i++) {
            if (same[i] == base[i] || different[i] == base[i])
                return pb_fail(PB_INTERNAL, "a method without parameters has no place here",
                               "method %s does not change the logits of request %zu", name, i);
            if ((same[i] == different[i]) != (i == 0))
                return pb_fail(PB_INTERNAL, NULL,
                               "method %s: tenants 0 and %zu must have adapters of their own", name,
                               i);
        }
    }
    return PB_OK;
}

static pb_err differs(lab *l, const arm *a, const group *g, const char *name, size_t i)
{
    size_t V = l->config->vocab, at = 0;
    real *batch = malloc(V * sizeof *batch), *one = l->logits + i * V;
    if (!batch)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu logits", V);
    memcpy(batch, one, V * sizeof *batch);
    forward_alone(l, a, g, i, NULL);
    for (size_t v = 0; v < V; v++)
        if (fabs((double)(batch[v] - one[v])) > fabs((double)(batch[at] - one[at])))
            at = v;
    pb_err err;
    if (batch[at] == one[at]) // alone it comes out the same now: it is not the request it was
        err = pb_fail(PB_INTERNAL, "a defect of the harness: wrong tenant, slot or position",
                      "%s: request %zu gives the logits of another adapter or sequence", name, i);
    else
        err = pb_fail(PB_INTERNAL, "a defect of the harness: its kernels promise equal bits",
                      "%s: request %zu gives other logits in the batch than alone: %.9g and %.9g "
                      "for token %zu",
                      name, i, (double)batch[at], (double)one[at], at);
    free(batch);
    return err;
}

static pb_err check_logits(lab *l, const arm *a, const group *g, const char *name)
{
    uint64_t h = 0;
    for (size_t i = 0; i < g->rows; i++) {
        pb_err err = digest(&h, l, i);
        if (err)
            return pb_context(err, "%s", name);
        if (h != l->alone[g->phase][lane_of(l, a, a->request[i])])
            return differs(l, a, g, name, i);
    }
    return PB_OK;
}

// Arms that serve the same tenants, in whatever batches, give the same texts.
static pb_err check_texts(lab *l, const arm *a, const group *g, const char *name)
{
    size_t M = l->p->n_methods, b = 0;
    while (l->p->beams[b] != g->beam)
        b++;
    for (size_t i = 0; a->kind != KIND_MERGED && i < g->rows; i++) {
        size_t owner = a->kind == KIND_MIXED                               ? 1 + i % M
                       : a->kind == KIND_DIFFERENT || a->kind == KIND_LOOP ? 1 + a->method
                                                                           : 0;
        uint64_t *known = &l->text[(b * (1 + M) + owner) * l->most + i];
        uint64_t h = pb_generation_digest(l->generation, i);
        if (*known && h != *known)
            return pb_fail(PB_INTERNAL, "a defect of the harness: its kernels promise equal bits",
                           "%s: request %zu gets another text or score than in another batch", name,
                           i);
        *known = h;
    }
    return PB_OK;
}

// Times of components that were not measured are 0.
static int64_t component_ns(const pb_counts *c)
{
    int64_t ns = 0;
    for (int k = 0; k < PB_COMPONENTS; k++)
        ns += c[k].ns;
    return ns;
}

static void keep_fastest(arm *a, const pb_generation_counts *counts)
{
    pb_counts sum[PB_COMPONENTS] = {0};
    for (int s = 0; s < PB_STEP_KINDS; s++)
        for (int k = 0; k < PB_COMPONENTS; k++)
            pb_counts_add(&sum[k], &(*counts)[s][k]);
    int64_t best = component_ns(a->fastest);
    if (!best || component_ns(sum) < best)
        memcpy(a->fastest, sum, sizeof sum);
}

// Runs every arm of a group once: compares, counts, and learns what a round takes.
static pb_err check_group(lab *l, group *g)
{
    char name[160];
    for (size_t k = 0; k < l->n_arms; k++) {
        arm *a = &l->arms[k];
        if (!takes_part(l, a, g) || a->kind == KIND_LIMIT)
            continue;
        name_of(name, sizeof name, l, a, g);
        arrange(l, a, g);
        at_token(l, g, 0);
        double t = pb_now();
        PB_TRY(run_arm(l, a, g, &g->counts[k]));
        t = pb_now() - t;
        g->cost += t * (1 + lead_in_share(a, g));
        PB_TRY((g->phase == PB_PHASE_GENERATE ? check_texts : check_logits)(l, a, g, name));
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted before the first sample");
    }
    return PB_OK;
}

static size_t kv_bytes(const lab *l)
{
    size_t T = (l->p->prompt + l->p->fresh + PB_NR - 1) / PB_NR * PB_NR;
    return 2 * l->config->layers * T * pb_kv_width(l->config) * sizeof(real);
}

// The bytes that are reported are those that were reserved.
static pb_err check_memory(const lab *l)
{
    size_t state = 0, slots = n_blocks(l->p) * l->most;
    for (size_t i = 0; i < l->n_adapters; i++)
        state = l->adapter[i]->state > state ? l->adapter[i]->state : state;
    size_t expected = slots * (kv_bytes(l) + state * l->config->layers * sizeof(real));
    size_t reserved = pb_step_kv_bytes(l->st), slack = 4096; // alignment of three blocks
    if (reserved < expected || reserved > expected + slack)
        return pb_fail(PB_INTERNAL, NULL,
                       "%zu sequences should take %zu bytes of cache, but %zu are reserved", slots,
                       expected, reserved);
    return PB_OK;
}

// ---------------------------------------------------------------- rounds

// Shares the time that is left among the groups from `first` on. Cheap groups get more rounds than
// dear ones, but less time; decode, where methods differ, counts double. A group whose share is too
// small for the samples asked for takes what it needs.
//
// The check of a generation is its first round already.
static size_t first_round(const group *g)
{
    return g->phase == PB_PHASE_GENERATE;
}

static double share_out(lab *l, size_t first)
{
    double left = l->start + l->p->seconds - pb_now(), total = 0;
    for (size_t i = first; i < l->n_groups; i++)
        l->groups[i].share = 0;
    for (bool changed = true; changed;) {
        double weight = 0;
        changed = false;
        for (size_t i = first; i < l->n_groups; i++)
            weight += l->groups[i].share > 0 ? 0 : l->groups[i].weight;
        for (size_t i = first; i < l->n_groups && !changed; i++) {
            group *g = &l->groups[i];
            double least = (double)(l->p->min_samples + 1 - first_round(g)) * g->cost;
            if (g->share > 0 || left * g->weight / weight >= least)
                continue;
            g->share = least;
            left -= least;
            changed = true;
        }
        for (size_t i = first; i < l->n_groups && !changed; i++)
            if (!(l->groups[i].share > 0))
                l->groups[i].share = left * l->groups[i].weight / weight;
    }
    for (size_t i = first; i < l->n_groups; i++)
        total += l->groups[i].share;
    return total;
}

static pb_err grow(lab *l)
{
    size_t room = l->room ? 2 * l->room : 64;
    for (size_t k = 0; k < l->n_arms; k++) {
        int64_t *more = realloc(l->arms[k].samples, room * sizeof *more);
        if (!more)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu samples", room);
        l->arms[k].samples = more;
    }
    l->room = room;
    return PB_OK;
}

// What a server would need that has the adapters of this arm alone, the backbone included.
static pb_err server_bytes(size_t *out, const lab *l, const arm *a, const group *g)
{
    size_t n = 0, only = a->kind == KIND_LOOP ? 1 : g->rows;
    const pb_model *m = a->kind == KIND_MERGED ? l->p->merged : l->p->base;
    const pb_adapter **mine = calloc(g->rows, sizeof *mine);
    if (!mine)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", g->rows);
    for (size_t i = 0; i < g->rows; i++)
        if (a->tenant[i] >= 0)
            mine[n++] = l->adapter[a->tenant[i]];
    pb_generation_args args = {
        .requests = only, .beam = g->beam, .prompt = l->p->prompt, .fresh = l->p->fresh};
    pb_err err = pb_generation_need(out, m, (pb_adapter *const *)mine, n, &args);
    free(mine);
    *out += pb_model_resident(m);
    return err;
}

static void fill_in_limit(pb_latency_result *r, const lab *l, const arm *a)
{
    const pb_latency_limit *limit = &l->p->limits[a->method];
    r->part[0] = (pb_latency_work){limit->flops, limit->bytes};
    r->excluded--; // has no check
}

static pb_err fill_in(pb_latency_result *r, const lab *l, const arm *a, const group *g)
{
    const pb_generation_counts *counts = &g->counts[a - l->arms];
    for (int s = 0; s < PB_STEP_KINDS; s++)
        for (int c = 0; c < PB_COMPONENTS; c++) {
            const pb_counts *n = &(*counts)[s][c];
            pb_counts_add(&r->counts[c], n);
            r->part[s].flops += n->flops;
            r->part[s].bytes += n->bytes;
        }
    for (int c = 0; c < PB_COMPONENTS; c++)
        r->counts[c].ns = a->fastest[c].ns;
    if (a->kind == KIND_MERGED)
        r->adapter_bytes = pb_model_resident(l->p->merged);
    for (size_t i = 0; i < g->rows; i++) {
        int t = a->tenant[i];
        if (t < 0)
            continue;
        size_t bytes = pb_adapter_resident(l->adapter[t]);
        size_t state = l->adapter[t]->state * l->config->layers * sizeof(real);
        r->adapter_bytes = bytes > r->adapter_bytes ? bytes : r->adapter_bytes;
        r->state_bytes = state > r->state_bytes ? state : r->state_bytes;
    }
    return g->phase == PB_PHASE_GENERATE ? server_bytes(&r->memory, l, a, g) : PB_OK;
}

static pb_err report(lab *l, const group *g)
{
    bool generates = g->phase == PB_PHASE_GENERATE;
    for (size_t k = 0; k < l->n_arms; k++) {
        const arm *a = &l->arms[k];
        if (!takes_part(l, a, g) || !a->n)
            continue;
        bool one = a->kind != KIND_LIMIT && !kinds[a->kind].method;
        pb_latency_result r = {.phase = pb_latency_phases[g->phase],
                               .method = method_name(l, a),
                               .sharing = kinds[a->kind].sharing,
                               .method_index = one ? a->method : SIZE_MAX,
                               .tenants = tenants_of(a, g->rows),
                               .rows = g->rows,
                               .beam = g->beam,
                               .tokens = g->rows * (generates ? l->p->fresh : g->n),
                               .samples = a->samples,
                               .n = a->n,
                               .excluded = generates ? GENERATIONS_EXCLUDED : FORWARD_EXCLUDED,
                               .kv_bytes = kv_bytes(l)};
        name_of(r.name, sizeof r.name, l, a, g);
        if (a->kind == KIND_LIMIT)
            fill_in_limit(&r, l, a);
        else
            PB_TRY(fill_in(&r, l, a, g));
        PB_TRY(l->o->result(l->o->self, &r));
    }
    return PB_OK;
}

// One more run, with the clocks of the components on.
static pb_err run_by_components(lab *l, arm *a, const group *g)
{
    pb_generation_counts counts = {0};
    pb_step_time(a->st);
    PB_TRY(run_arm(l, a, g, &counts));
    pb_step_untime(a->st);
    keep_fastest(a, (const pb_generation_counts *)&counts);
    return PB_OK;
}

static pb_err sample(lab *l, arm *a, const group *g, int64_t *ns)
{
    pb_generation_counts counts = {0};
    bool generates = g->phase == PB_PHASE_GENERATE;
    double seconds;
    if (a->kind == KIND_LIMIT) {
        const pb_latency_limit *limit = &l->p->limits[a->method];
        PB_TRY(limit->sample(limit->self, &seconds));
        *ns = (int64_t)(seconds * 1e9);
        return PB_OK;
    }
    lead_in(l, a, g);
    int64_t start = pb_now_ns();
    PB_TRY(run_arm(l, a, g, generates ? &counts : NULL));
    *ns = pb_now_ns() - start;
    if (generates)
        keep_fastest(a, (const pb_generation_counts *)&counts);
    return PB_OK;
}

static void what_is_measured(char *out, size_t size, const group *g)
{
    int n = snprintf(out, size, "%s, %zu request%s", pb_latency_phases[g->phase], g->rows,
                     g->rows == 1 ? "" : "s");
    if (g->phase == PB_PHASE_GENERATE)
        snprintf(out + n, size - (size_t)n, ", beam %zu", g->beam);
}

static pb_err stopped(lab *l, const group *g, const char *what)
{
    PB_TRY(report(l, g));
    return pb_fail(PB_INTERRUPTED, NULL, "interrupted while measuring %s", what);
}

static pb_err measure_group(lab *l, size_t number)
{
    group *g = &l->groups[number];
    char what[64];
    what_is_measured(what, sizeof what, g);
    pb_rng rng = pb_rng_make(l->p->seed, PB_STREAM_SAMPLE, (uint32_t)number);
    size_t n = 0;
    for (size_t k = 0; k < l->n_arms; k++) {
        arm *a = &l->arms[k];
        a->n = 0;
        memset(a->fastest, 0, sizeof a->fastest);
        arrange(l, a, g);
        if (takes_part(l, a, g))
            l->order[n++] = k;
    }
    double begin = pb_now();
    double expected = begin - l->start + share_out(l, number), end = begin + g->share;
    // Round 0 is not kept. A round that would end after the group's time is not begun.
    for (size_t round = first_round(g); round <= l->p->min_samples || pb_now() + g->cost / 2 < end;
         round++) {
        if (round > l->room)
            PB_TRY(grow(l));
        pb_rng_shuffle(&rng, l->order, n);
        at_token(l, g, round);
        double t = pb_now();
        for (size_t k = 0; k < n; k++) {
            arm *a = &l->arms[l->order[k]];
            int64_t ns;
            pb_err err = pb_interrupted() ? PB_INTERRUPTED : sample(l, a, g, &ns);
            if (err == PB_INTERRUPTED)
                return stopped(l, g, what);
            PB_TRY(err);
            if (round)
                a->samples[a->n++] = ns;
            if (round < COMPONENT_ROUNDS && a->st && g->phase != PB_PHASE_GENERATE)
                PB_TRY(run_by_components(l, a, g));
            if (l->o->progress)
                l->o->progress(l->o->self, what, pb_now() - l->start, expected);
        }
        g->cost = pb_now() - t;
    }
    return report(l, g);
}

// ---------------------------------------------------------------- set-up

static bool forwards(const pb_latency_plan *p)
{
    return p->phase[PB_PHASE_PREFILL] || p->phase[PB_PHASE_DECODE];
}

static size_t most_of(const size_t *x, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static pb_err check_plan(const pb_latency_plan *p)
{
    if (!p->n_tenants || !p->prompt || !p->fresh || !p->min_samples || !(p->seconds > 0))
        return pb_fail(PB_USAGE, NULL,
                       "batch sizes, prompt, new tokens, samples and seconds must not be 0");
    if (!forwards(p) && !p->phase[PB_PHASE_GENERATE])
        return pb_fail(PB_USAGE, "prefill, decode, generate", "there is no phase to measure");
    if (p->phase[PB_PHASE_GENERATE] && !p->n_beams)
        return pb_fail(PB_USAGE, "e.g. 1,3", "generations need numbers of beams");
    for (size_t i = 0; p->phase[PB_PHASE_GENERATE] && i < p->n_beams; i++)
        if (!p->beams[i] || p->beams[i] > PB_MOST_BEAMS || (i && p->beams[i] <= p->beams[i - 1]))
            return pb_fail(PB_USAGE, "e.g. 1,3",
                           "numbers of beams must increase from 1 to at most %d; number %zu is %zu",
                           PB_MOST_BEAMS, i, p->beams[i]);
    for (size_t i = 0; i < p->n_tenants; i++)
        if (!p->tenants[i] || p->tenants[i] > 4096 || (i && p->tenants[i] <= p->tenants[i - 1]))
            return pb_fail(PB_USAGE, "e.g. 1,2,4,8,16",
                           "batch sizes must increase from 1 to at most 4096; number %zu is %zu", i,
                           p->tenants[i]);
    for (size_t m = 0; m < p->n_methods; m++) {
        const char *name = p->methods[m].method->name;
        if (p->methods[m].method->backbone)
            return pb_fail(PB_UNSUPPORTED, "leave it out",
                           "method %s has no adapter and cannot be a tenant", name);
        if (!strcmp(name, "none"))
            return pb_fail(PB_USAGE, "leave it out", "method none is always measured");
        for (size_t k = 0; k < m; k++)
            if (!strcmp(name, p->methods[k].method->name))
                return pb_fail(PB_USAGE, "name every method once", "method %s appears twice", name);
    }
    return PB_OK;
}

static pb_err make_adapters(lab *l)
{
    const pb_latency_plan *p = l->p;
    const pb_latency_method none = {.method = pb_method_find("none")};
    size_t longest = 0;
    if (!none.method)
        return PB_INTERNAL;
    l->adapter = calloc((1 + p->n_methods) * l->most, sizeof *l->adapter);
    if (!l->adapter)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", l->most);
    for (size_t m = 0; m <= p->n_methods; m++)
        for (size_t i = 0; i < l->most; i++) {
            void *defaults = NULL;
            pb_latency_method made = m ? p->methods[m - 1] : none;
            if (!m) {
                PB_TRY(pb_options_new(&defaults, none.method));
                made.options = defaults;
            }
            pb_err err =
                pb_latency_adapter(&l->adapter[l->n_adapters], &made, l->config, p->seed, i);
            free(defaults);
            PB_TRY(err);
            PB_TRY(pb_adapter_serve(l->adapter[l->n_adapters], p->base));
            size_t n = l->adapter[l->n_adapters++]->prefix_len;
            longest = n > longest ? n : longest;
        }
    if (p->prompt + p->fresh + longest > l->config->context)
        return pb_fail(PB_USAGE, "use a shorter prompt, fewer new tokens or a smaller budget",
                       "a prefix of %zu, a prompt of %zu and %zu new tokens exceed the model's "
                       "context of %zu",
                       longest, p->prompt, p->fresh, l->config->context);
    return PB_OK;
}

static pb_step_limits step_limits(const pb_latency_plan *p, bool merged)
{
    size_t most = most_of(p->tenants, p->n_tenants);
    return (pb_step_limits){.rows = most * p->prompt,
                            .segments = most,
                            .slots = merged ? most : n_blocks(p) * most,
                            .positions = p->prompt + p->fresh};
}

static pb_err make_steps(lab *l)
{
    const pb_latency_plan *p = l->p;
    pb_step_limits limits = step_limits(p, false);
    if (!forwards(p))
        return PB_OK;
    PB_TRY(pb_step_new(&l->st, p->base, l->adapter, l->n_adapters, &limits));
    limits = step_limits(p, true);
    if (p->merged)
        PB_TRY(pb_step_new(&l->merged, p->merged, NULL, 0, &limits));
    return check_memory(l);
}

static pb_generation_args generation_args(const pb_latency_plan *p)
{
    return (pb_generation_args){.requests = most_of(p->tenants, p->n_tenants),
                                .beam = most_of(p->beams, p->n_beams),
                                .prompt = p->prompt,
                                .fresh = p->fresh};
}

static pb_err make_generations(lab *l)
{
    const pb_latency_plan *p = l->p;
    pb_generation_args args = generation_args(p);
    if (!p->phase[PB_PHASE_GENERATE])
        return PB_OK;
    args.prompts = l->prompts;
    l->text = calloc(p->n_beams * (1 + p->n_methods) * l->most, sizeof *l->text);
    if (!l->text)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", l->most);
    PB_TRY(pb_generation_new(&l->generation, p->base, l->adapter, l->n_adapters, &args));
    return p->merged ? pb_generation_new(&l->merged_generation, p->merged, NULL, 0, &args) : PB_OK;
}

static pb_err make_arm(lab *l, kind k, size_t method)
{
    arm *a = &l->arms[l->n_arms++];
    *a = (arm){.kind = k, .method = method, .st = k == KIND_MERGED ? l->merged : l->st};
    if (k == KIND_LIMIT)
        a->st = NULL;
    a->seg = calloc(l->most, sizeof *a->seg);
    a->request = calloc(l->most, sizeof *a->request);
    a->tenant = calloc(l->most, sizeof *a->tenant);
    return a->seg && a->request && a->tenant
               ? PB_OK
               : pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", l->most);
}

static pb_err make_arms(lab *l)
{
    const pb_latency_plan *p = l->p;
    size_t most = p->n_limits + N_KINDS * (1 + p->n_methods);
    l->arms = calloc(most, sizeof *l->arms);
    l->order = calloc(most, sizeof *l->order);
    if (!l->arms || !l->order)
        return pb_fail(PB_MEMORY, NULL, "no memory for the arms");
    for (int k = 0; k < N_KINDS; k++) {
        bool each = !kinds[k].method;
        if ((k == KIND_MERGED && !p->merged) || (k == KIND_MIXED && p->n_methods < 2))
            continue;
        size_t n = k == KIND_LIMIT ? p->n_limits : each ? p->n_methods : 1;
        for (size_t m = 0; m < n; m++)
            PB_TRY(make_arm(l, (kind)k, m));
    }
    return PB_OK;
}

static pb_err make_requests(lab *l)
{
    size_t P = l->p->prompt, fresh = l->p->fresh, V = l->config->vocab, N = l->most;
    l->prompts = malloc(N * P * sizeof *l->prompts);
    l->replies = malloc(N * fresh * sizeof *l->replies);
    l->next = malloc(N * sizeof *l->next);
    l->tokens = malloc(N * P * sizeof *l->tokens);
    l->logits = malloc(N * V * sizeof *l->logits);
    l->ids = malloc(N * sizeof *l->ids);
    bool ok = l->prompts && l->replies && l->next && l->tokens && l->logits && l->ids;
    for (int phase = 0; phase < N_FORWARD; phase++) {
        l->last[phase] = malloc(N * sizeof *l->last[phase]);
        l->alone[phase] = calloc((n_blocks(l->p) + 1) * N, sizeof *l->alone[phase]);
        ok = ok && l->last[phase] && l->alone[phase];
    }
    if (!ok)
        return pb_fail(PB_MEMORY, "use fewer requests or shorter prompts",
                       "no memory for %zu requests", N);
    pb_rng r = pb_rng_make(l->p->seed, PB_STREAM_SAMPLE, UINT32_MAX);
    for (size_t i = 0; i < N * P; i++)
        l->prompts[i] = (int32_t)pb_rng_below(&r, V);
    for (size_t i = 0; i < N * fresh; i++)
        l->replies[i] = (int32_t)pb_rng_below(&r, V);
    for (size_t i = 0; i < N; i++) {
        l->last[PB_PHASE_PREFILL][i] = (i + 1) * P - 1;
        l->last[PB_PHASE_DECODE][i] = i;
    }
    return PB_OK;
}

static pb_err make_group(lab *l, pb_latency_phase phase, size_t rows, size_t beam)
{
    group *g = &l->groups[l->n_groups++];
    *g = (group){.phase = phase,
                 .rows = rows,
                 .n = phase == PB_PHASE_DECODE ? 1 : l->p->prompt,
                 .beam = phase == PB_PHASE_GENERATE ? beam : 0};
    g->counts = calloc(l->n_arms, sizeof *g->counts);
    return g->counts ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for the counts");
}

static pb_err make_groups(lab *l)
{
    const pb_latency_plan *p = l->p;
    l->groups = calloc((N_FORWARD + p->n_beams) * p->n_tenants, sizeof *l->groups);
    if (!l->groups)
        return pb_fail(PB_MEMORY, NULL, "no memory for the batch sizes");
    for (size_t i = 0; i < p->n_tenants; i++)
        for (int phase = 0; phase < PB_PHASES; phase++)
            for (size_t b = 0; p->phase[phase] && b < (phase == PB_PHASE_GENERATE ? p->n_beams : 1);
                 b++)
                PB_TRY(make_group(l, (pb_latency_phase)phase, p->tenants[i],
                                  p->n_beams ? p->beams[b] : 0));
    return PB_OK;
}

static void clean_up(lab *l)
{
    for (size_t i = 0; i < l->n_groups; i++)
        free(l->groups[i].counts);
    free(l->groups);
    for (size_t k = 0; k < l->n_arms; k++) {
        free(l->arms[k].seg);
        free(l->arms[k].request);
        free(l->arms[k].tenant);
        free(l->arms[k].samples);
    }
    free(l->arms);
    free(l->order);
    pb_step_free(l->st);
    pb_step_free(l->merged);
    pb_generation_free(l->generation);
    pb_generation_free(l->merged_generation);
    for (size_t i = 0; i < l->n_adapters; i++)
        pb_adapter_free(l->adapter[i]);
    free(l->adapter);
    free(l->prompts);
    free(l->replies);
    free(l->next);
    free(l->tokens);
    free(l->text);
    free(l->logits);
    free(l->ids);
    for (int phase = 0; phase < N_FORWARD; phase++) {
        free(l->last[phase]);
        free(l->alone[phase]);
    }
}

static double weight_of(const group *g)
{
    return (g->phase == PB_PHASE_DECODE ? 2 : 1) * sqrt(g->cost);
}

pb_err pb_latency_measure(const pb_latency_plan *plan, const pb_latency_observer *o)
{
    pb_err err = PB_OK;
    PB_TRY(check_plan(plan));
    lab l = {.p = plan,
             .o = o,
             .config = &plan->base->config,
             .most = most_of(plan->tenants, plan->n_tenants)};
    PB_GO(make_adapters(&l));
    PB_GO(make_steps(&l));
    PB_GO(make_arms(&l));
    PB_GO(make_requests(&l));
    PB_GO(make_groups(&l));
    PB_GO(make_generations(&l));
    PB_GO(grow(&l));
    if (forwards(plan)) {
        PB_GO(run_alone(&l));
        PB_GO(check_adapters(&l));
    }
    l.start = pb_now();
    for (size_t i = 0; i < l.n_groups; i++) {
        PB_GO(check_group(&l, &l.groups[i]));
        l.groups[i].weight = weight_of(&l.groups[i]);
    }
    for (size_t i = 0; i < l.n_groups; i++)
        PB_GO(measure_group(&l, i));
done:
    clean_up(&l);
    return err;
}

// ---------------------------------------------------------------- memory

// An adapter of every method, and what those of all requests take.
static pb_err sample_adapters(pb_adapter **a, size_t *bytes, const pb_latency_plan *p)
{
    size_t most = most_of(p->tenants, p->n_tenants);
    for (size_t m = 0; m < p->n_methods; m++) {
        PB_TRY(pb_latency_adapter(&a[m], &p->methods[m], &p->base->config, p->seed, 0));
        PB_TRY(pb_adapter_serve(a[m], p->base));
        *bytes += most * pb_adapter_resident(a[m]);
    }
    return PB_OK;
}

static pb_err add_steps(size_t *bytes, const pb_latency_plan *p, pb_adapter *const *a, size_t n,
                        bool merged)
{
    size_t need;
    if (forwards(p)) {
        pb_step_limits limits = step_limits(p, merged);
        PB_TRY(pb_step_need(&need, p->base, a, n, &limits));
        *bytes += need + pb_step_kv_need(&p->base->config, a, n, &limits);
    }
    if (p->phase[PB_PHASE_GENERATE]) {
        pb_generation_args args = generation_args(p);
        PB_TRY(pb_generation_need(&need, p->base, a, n, &args));
        *bytes += need;
    }
    return PB_OK;
}

pb_err pb_latency_need(size_t *bytes, const pb_latency_plan *p, bool merged)
{
    pb_err err = PB_OK;
    *bytes = 0;
    PB_TRY(check_plan(p));
    pb_adapter **a = calloc(p->n_methods + 1, sizeof(pb_adapter *));
    if (!a)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu methods", p->n_methods);
    PB_GO(sample_adapters(a, bytes, p));
    PB_GO(add_steps(bytes, p, a, p->n_methods, false));
    if (merged)
        PB_GO(add_steps(bytes, p, NULL, 0, true));
done:
    for (size_t m = 0; m < p->n_methods; m++)
        pb_adapter_free(a[m]);
    free(a);
    return err;
}
