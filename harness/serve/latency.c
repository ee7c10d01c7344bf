// One step object serves all arms of the base model: its tenants are the adapters of all methods,
// so activations of all arms lie at the same addresses and no arm has luckier pages. Keys and
// values are in blocks of slots:
//
//   block 0 base, 1 base-again, 2 none, 3 + 2 k the adapter 0 of method k in every slot ("same"),
//   4 + 2 k adapter i of method k in slot i ("different", "loop", and its share of "mixed").
//
// Requests replay fixed tokens, and what slot i holds depends on its adapter and request i alone;
// so arms that share a block write the same numbers over and over, whatever the batch size.
#include "serve/latency.h"

#include "serve/decode.h"

#include "core/clock.h"
#include "core/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BASE, AGAIN, NONE, FIRST_METHOD }; // blocks of slots
enum { N_PHASES = 2 };

static const char *const phase_names[N_PHASES] = {"prefill", "decode"};

typedef enum kind {
    KIND_BASE,
    KIND_AGAIN,
    KIND_NONE,
    KIND_MERGED,
    KIND_SAME,
    KIND_DIFFERENT,
    KIND_LOOP,
    KIND_MIXED
} kind;

static const struct {
    const char *method, *sharing; // method NULL: that of the adapter
} kinds[] = {
    [KIND_BASE] = {"base", "none"}, [KIND_AGAIN] = {"base-again", "none"},
    [KIND_NONE] = {"none", "none"}, [KIND_MERGED] = {"merged", "merged"},
    [KIND_SAME] = {NULL, "same"},   [KIND_DIFFERENT] = {NULL, "different"},
    [KIND_LOOP] = {NULL, "loop"},   [KIND_MIXED] = {"mixed", "mixed"},
};

typedef struct arm {
    kind kind;
    size_t method; // of SAME, DIFFERENT and LOOP
    pb_step *st;
    pb_segment *seg; // (N) of the current group
    int64_t *samples;
    size_t n;
} arm;

// One phase and batch size.
typedef struct group {
    bool decode;
    size_t rows; // requests
    size_t n;    // tokens per request and forward
    double cost; // seconds of a round, as the check found it
    double share;
    double weight;
    pb_counts (*counts)[PB_COMPONENTS]; // (arms)
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
    int32_t *prompts;          // (most, P)
    int32_t *replies;          // (most, fresh)
    int32_t *next;             // (most): the tokens of the current step
    size_t *last[N_PHASES];    // (most): the last row of every request
    real *logits;              // (most, V)
    int32_t *ids;              // (most)
    uint64_t *alone[N_PHASES]; // per lane: digest of the logits of a request alone
    size_t *order;             // (n_arms)
    size_t room;               // samples per arm
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
    case KIND_MIXED:
        return (int)adapter_of(l, i % l->p->n_methods, i);
    default:
        return -1;
    }
}

static size_t block_of(const lab *l, const arm *a, size_t i)
{
    switch (a->kind) {
    case KIND_AGAIN:
        return AGAIN;
    case KIND_NONE:
        return NONE;
    case KIND_SAME:
        return FIRST_METHOD + 2 * a->method;
    case KIND_DIFFERENT:
    case KIND_LOOP:
        return FIRST_METHOD + 2 * a->method + 1;
    case KIND_MIXED:
        return FIRST_METHOD + 2 * (i % l->p->n_methods) + 1;
    default: // base, and merged in its own step
        return BASE;
    }
}

static size_t n_blocks(const lab *l)
{
    return FIRST_METHOD + 2 * l->p->n_methods;
}

static size_t slot_of(const lab *l, const arm *a, size_t i)
{
    return block_of(l, a, i) * l->most + i;
}

// Slots of both steps in one numbering.
static size_t lane_of(const lab *l, const arm *a, size_t i)
{
    return a->kind == KIND_MERGED ? n_blocks(l) * l->most + i : slot_of(l, a, i);
}

static size_t tenants_of(const arm *a, size_t rows)
{
    switch (a->kind) {
    case KIND_BASE:
    case KIND_AGAIN:
        return 0;
    case KIND_MERGED:
    case KIND_SAME:
        return 1;
    default:
        return rows;
    }
}

static const char *method_name(const lab *l, const arm *a)
{
    const char *fixed = kinds[a->kind].method;
    return fixed ? fixed : l->p->methods[a->method].method->name;
}

// One request is its own loop, and no mixture.
static bool takes_part(const lab *l, const arm *a, const group *g)
{
    return (a->kind != KIND_LOOP && a->kind != KIND_MIXED) ||
           (g->rows > 1 && (a->kind == KIND_LOOP || l->p->n_methods > 1));
}

static void name_of(char *out, size_t size, const lab *l, const arm *a, const group *g)
{
    snprintf(out, size, "%s/%s/%s/%zu", phase_names[g->decode], method_name(l, a),
             kinds[a->kind].sharing, g->rows);
}

// ---------------------------------------------------------------- steps

// `n_seg` requests from number i0 on, as one forward: logits of their last rows and what follows
// them.
static void forward(lab *l, const arm *a, const group *g, size_t i0, size_t n_seg, pb_segment *seg,
                    pb_counts *counts)
{
    size_t V = l->config->vocab;
    const int32_t *tokens = g->decode ? l->next : l->prompts;
    pb_batch b = {n_seg * g->n, n_seg, tokens + i0 * g->n, seg};
    pb_mat *h = pb_forward(a->st, &b, false, 0, 0);
    pb_step_logits(a->st, h, l->last[g->decode], n_seg, l->logits + i0 * V);
    for (size_t i = i0; i < i0 + n_seg; i++)
        l->ids[i] = pb_argmax(l->logits + i * V, V);
    for (int c = 0; counts && c < PB_COMPONENTS; c++) {
        counts[c].flops += pb_step_counts(a->st)[c].flops;
        counts[c].bytes += pb_step_counts(a->st)[c].bytes;
        counts[c].regions += pb_step_counts(a->st)[c].regions;
    }
}

// One request by itself: the rows of its segment are moved to the front.
static void forward_alone(lab *l, const arm *a, const group *g, size_t i, pb_counts *counts)
{
    pb_segment seg = a->seg[i];
    seg.row0 = 0;
    forward(l, a, g, i, 1, &seg, counts);
}

// What a sample times.
static void run_arm(lab *l, const arm *a, const group *g, pb_counts *counts)
{
    if (a->kind != KIND_LOOP) {
        forward(l, a, g, 0, g->rows, a->seg, counts);
        return;
    }
    for (size_t i = 0; i < g->rows; i++)
        forward_alone(l, a, g, i, counts);
}

// Brings back what a server that does nothing else has in its caches: the backbone, and when
// decoding, where they count, the adapters too.
static void lead_in(lab *l, const arm *a, const group *g)
{
    if (g->decode && a->kind != KIND_LOOP)
        run_arm(l, a, g, NULL);
    else
        forward_alone(l, a, g, 0, NULL);
}

static double lead_in_share(const arm *a, const group *g)
{
    return g->decode && a->kind != KIND_LOOP ? 1 : 1 / (double)g->rows;
}

// Lays out the arm's batch for a group.
static void arrange(lab *l, arm *a, const group *g)
{
    for (size_t i = 0; i < g->rows; i++)
        a->seg[i] = (pb_segment){.row0 = i * g->n,
                                 .n_rows = g->n,
                                 .pos0 = g->decode ? l->p->prompt : 0,
                                 .n_prompt = g->decode ? 0 : g->n,
                                 .tenant = tenant_of(l, a, i),
                                 .slot = (int)slot_of(l, a, i)};
}

// Which token of the responses a decode step is at; the position after the last one is the first
// again, whose keys and values it writes anew.
static void at_token(lab *l, const group *g, size_t t)
{
    size_t at = t % l->p->fresh;
    for (size_t i = 0; g->decode && i < g->rows; i++) {
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
        if (a->kind == KIND_LOOP || a->kind == KIND_MIXED) // have no slots of their own
            continue;
        for (int phase = 0; phase < N_PHASES; phase++) {
            group g = {.decode = phase, .rows = l->most, .n = phase ? 1 : l->p->prompt};
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
        const uint64_t *base = l->alone[1], *same = base + (FIRST_METHOD + 2 * m) * l->most;
        const uint64_t *different = same + l->most;
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

// Runs every arm of a group once: compares, counts, and learns what a round takes.
static pb_err check_group(lab *l, group *g)
{
    char name[160];
    uint64_t h = 0;
    for (size_t k = 0; k < l->n_arms; k++) {
        arm *a = &l->arms[k];
        if (!takes_part(l, a, g))
            continue;
        name_of(name, sizeof name, l, a, g);
        arrange(l, a, g);
        at_token(l, g, 0);
        double t = pb_now();
        run_arm(l, a, g, g->counts[k]);
        t = pb_now() - t;
        g->cost += t * (1 + lead_in_share(a, g));
        for (size_t i = 0; i < g->rows; i++) {
            pb_err err = digest(&h, l, i);
            if (err)
                return pb_context(err, "%s", name);
            if (h != l->alone[g->decode][lane_of(l, a, i)])
                return differs(l, a, g, name, i);
        }
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
    size_t state = 0, slots = n_blocks(l) * l->most;
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
            double least = (double)(l->p->min_samples + 1) * g->cost;
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

static pb_err report(lab *l, const group *g)
{
    for (size_t k = 0; k < l->n_arms; k++) {
        const arm *a = &l->arms[k];
        if (!takes_part(l, a, g) || !a->n)
            continue;
        bool one = a->kind == KIND_SAME || a->kind == KIND_DIFFERENT || a->kind == KIND_LOOP;
        pb_latency_result r = {.phase = phase_names[g->decode],
                               .method = method_name(l, a),
                               .sharing = kinds[a->kind].sharing,
                               .method_index = one ? a->method : SIZE_MAX,
                               .tenants = tenants_of(a, g->rows),
                               .rows = g->rows,
                               .tokens = g->rows * g->n,
                               .samples = a->samples,
                               .n = a->n,
                               .excluded = 2,
                               .kv_bytes = kv_bytes(l)};
        name_of(r.name, sizeof r.name, l, a, g);
        memcpy(r.counts, g->counts[k], sizeof r.counts);
        if (a->kind == KIND_MERGED)
            r.adapter_bytes = pb_model_resident(l->p->merged);
        for (size_t i = 0; i < g->rows; i++) {
            int t = tenant_of(l, a, i);
            if (t < 0)
                continue;
            size_t bytes = pb_adapter_resident(l->adapter[t]);
            size_t state = l->adapter[t]->state * l->config->layers * sizeof(real);
            r.adapter_bytes = bytes > r.adapter_bytes ? bytes : r.adapter_bytes;
            r.state_bytes = state > r.state_bytes ? state : r.state_bytes;
        }
        PB_TRY(l->o->result(l->o->self, &r));
    }
    return PB_OK;
}

static pb_err measure_group(lab *l, size_t number)
{
    group *g = &l->groups[number];
    char what[64];
    snprintf(what, sizeof what, "%s, %zu request%s", phase_names[g->decode], g->rows,
             g->rows == 1 ? "" : "s");
    pb_rng rng = pb_rng_make(l->p->seed, PB_STREAM_SAMPLE, (uint32_t)number);
    size_t n = 0;
    for (size_t k = 0; k < l->n_arms; k++) {
        l->arms[k].n = 0;
        arrange(l, &l->arms[k], g);
        if (takes_part(l, &l->arms[k], g))
            l->order[n++] = k;
    }
    double begin = pb_now();
    double expected = begin - l->start + share_out(l, number), end = begin + g->share;
    // Round 0 is not kept. A round that would end after the group's time is not begun.
    for (size_t round = 0; round <= l->p->min_samples || pb_now() + g->cost / 2 < end; round++) {
        if (round > l->room)
            PB_TRY(grow(l));
        pb_rng_shuffle(&rng, l->order, n);
        at_token(l, g, round);
        double t = pb_now();
        for (size_t k = 0; k < n; k++) {
            arm *a = &l->arms[l->order[k]];
            if (pb_interrupted()) {
                PB_TRY(report(l, g));
                return pb_fail(PB_INTERRUPTED, NULL, "interrupted while measuring %s", what);
            }
            lead_in(l, a, g);
            int64_t start = pb_now_ns();
            run_arm(l, a, g, NULL);
            int64_t stop = pb_now_ns();
            if (round)
                a->samples[a->n++] = stop - start;
            if (l->o->progress)
                l->o->progress(l->o->self, what, pb_now() - l->start, expected);
        }
        g->cost = pb_now() - t;
    }
    return report(l, g);
}

// ---------------------------------------------------------------- set-up

static pb_err check_plan(const pb_latency_plan *p)
{
    if (!p->n_tenants || !p->prompt || !p->fresh || !p->min_samples || !(p->seconds > 0))
        return pb_fail(PB_USAGE, NULL,
                       "batch sizes, prompt, new tokens, samples and seconds must not be 0");
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

static pb_err make_steps(lab *l)
{
    const pb_latency_plan *p = l->p;
    pb_step_limits limits = {.rows = l->most * p->prompt,
                             .segments = l->most,
                             .slots = n_blocks(l) * l->most,
                             .positions = p->prompt + p->fresh};
    PB_TRY(pb_step_new(&l->st, p->base, l->adapter, l->n_adapters, &limits));
    limits.slots = l->most;
    if (p->merged)
        PB_TRY(pb_step_new(&l->merged, p->merged, NULL, 0, &limits));
    return check_memory(l);
}

static pb_err make_arms(lab *l)
{
    const pb_latency_plan *p = l->p;
    l->arms = calloc(5 + 3 * p->n_methods, sizeof *l->arms);
    l->order = calloc(5 + 3 * p->n_methods, sizeof *l->order);
    if (!l->arms || !l->order)
        return pb_fail(PB_MEMORY, NULL, "no memory for the arms");
    for (int k = KIND_BASE; k <= KIND_MIXED; k++) {
        bool each = !kinds[k].method;
        if ((k == KIND_MERGED && !p->merged) || (k == KIND_MIXED && p->n_methods < 2))
            continue;
        for (size_t m = 0; m < (each ? p->n_methods : 1); m++) {
            arm *a = &l->arms[l->n_arms++];
            *a = (arm){.kind = (kind)k, .method = m, .st = k == KIND_MERGED ? l->merged : l->st};
            a->seg = calloc(l->most, sizeof *a->seg);
            if (!a->seg)
                return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", l->most);
        }
    }
    return PB_OK;
}

static pb_err make_requests(lab *l)
{
    size_t P = l->p->prompt, fresh = l->p->fresh, V = l->config->vocab, N = l->most;
    l->prompts = malloc(N * P * sizeof *l->prompts);
    l->replies = malloc(N * fresh * sizeof *l->replies);
    l->next = malloc(N * sizeof *l->next);
    l->logits = malloc(N * V * sizeof *l->logits);
    l->ids = malloc(N * sizeof *l->ids);
    bool ok = l->prompts && l->replies && l->next && l->logits && l->ids;
    for (int phase = 0; phase < N_PHASES; phase++) {
        l->last[phase] = malloc(N * sizeof *l->last[phase]);
        l->alone[phase] = calloc((n_blocks(l) + 1) * N, sizeof *l->alone[phase]);
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
        l->last[0][i] = (i + 1) * P - 1;
        l->last[1][i] = i;
    }
    return PB_OK;
}

static pb_err make_groups(lab *l)
{
    l->groups = calloc(N_PHASES * l->p->n_tenants, sizeof *l->groups);
    if (!l->groups)
        return pb_fail(PB_MEMORY, NULL, "no memory for the batch sizes");
    for (size_t i = 0; i < l->p->n_tenants; i++)
        for (int phase = 0; phase < N_PHASES; phase++) {
            group *g = &l->groups[l->n_groups++];
            *g = (group){.decode = phase, .rows = l->p->tenants[i], .n = phase ? 1 : l->p->prompt};
            g->counts = calloc(l->n_arms, sizeof *g->counts);
            if (!g->counts)
                return pb_fail(PB_MEMORY, NULL, "no memory for the counts");
        }
    return PB_OK;
}

static void clean_up(lab *l)
{
    for (size_t i = 0; i < l->n_groups; i++)
        free(l->groups[i].counts);
    free(l->groups);
    for (size_t k = 0; k < l->n_arms; k++) {
        free(l->arms[k].seg);
        free(l->arms[k].samples);
    }
    free(l->arms);
    free(l->order);
    pb_step_free(l->st);
    pb_step_free(l->merged);
    for (size_t i = 0; i < l->n_adapters; i++)
        pb_adapter_free(l->adapter[i]);
    free(l->adapter);
    free(l->prompts);
    free(l->replies);
    free(l->next);
    free(l->logits);
    free(l->ids);
    for (int phase = 0; phase < N_PHASES; phase++) {
        free(l->last[phase]);
        free(l->alone[phase]);
    }
}

pb_err pb_latency_measure(const pb_latency_plan *plan, const pb_latency_observer *o)
{
    pb_err err = PB_OK;
    PB_TRY(check_plan(plan));
    lab l = {.p = plan,
             .o = o,
             .config = &plan->base->config,
             .most = plan->tenants[plan->n_tenants - 1]};
    PB_GO(make_adapters(&l));
    PB_GO(make_steps(&l));
    PB_GO(make_arms(&l));
    PB_GO(make_requests(&l));
    PB_GO(make_groups(&l));
    PB_GO(grow(&l));
    PB_GO(run_alone(&l));
    PB_GO(check_adapters(&l));
    l.start = pb_now();
    for (size_t i = 0; i < l.n_groups; i++) {
        group *g = &l.groups[i];
        PB_GO(check_group(&l, g));
        g->weight = (g->decode ? 2 : 1) * sqrt(g->cost);
    }
    for (size_t i = 0; i < l.n_groups; i++)
        PB_GO(measure_group(&l, i));
done:
    clean_up(&l);
    return err;
}
