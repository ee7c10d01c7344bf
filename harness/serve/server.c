#include "serve/server.h"

#include <stdlib.h>
#include <string.h>

struct pb_server {
    pb_server_limits limits;
    const pb_engine *engine;
    pb_store *store;
    pb_request *head, *tail; // of the queue
    size_t waiting;
    pb_lane *lane; // (slots)
    size_t *order; // (running) numbers of lanes, as they were admitted
    size_t running;
    size_t *idle, n_idle; // numbers of free lanes
    size_t *slots;        // (slots, beam): the lanes' own
    size_t *free_slots, n_free;
    int32_t *tokens;
    size_t n_tokens; // room
    pb_segment *seg;
    size_t *rows, *lane_of; // of outputs
    pb_work work;
    uint64_t step;
    void (*done)(void *self, pb_request *r);
    void *self;
};

const char *pb_outcome_name(pb_outcome o)
{
    static const char *const names[] = {"waiting", "running", "served", "queue full", "no adapter"};
    return names[o];
}

size_t pb_server_most_rows(const pb_server_limits *l, size_t whole)
{
    return whole + l->slots > l->rows ? whole + l->slots : l->rows;
}

// ---------------------------------------------------------------- set-up

void pb_server_clear(pb_server *s)
{
    for (pb_request *r = s->head; r; r = r->next)
        if (r->pinned)
            pb_store_release(s->store, (size_t)r->tenant);
    for (size_t i = 0; i < s->running; i++) {
        pb_request *r = s->lane[s->order[i]].request;
        if (r->pinned)
            pb_store_release(s->store, (size_t)r->tenant);
    }
    size_t n = s->limits.slots;
    s->head = s->tail = NULL;
    s->waiting = s->running = 0;
    s->n_idle = s->n_free = n;
    for (size_t i = 0; i < n; i++) { // the smallest number first
        s->lane[i].request = NULL;
        s->idle[i] = s->free_slots[i] = n - 1 - i;
    }
}

pb_err pb_server_new(pb_server **out, const pb_server_limits *l, const pb_engine *e,
                     pb_store *store)
{
    size_t n = l->slots, beam = l->beam;
    *out = NULL;
    if (!n || !beam || beam > n || beam > PB_MOST_BEAMS)
        return pb_fail(PB_INPUT, "a request has a slot for each of its beams",
                       "%zu slots for requests of %zu beams", n, beam);
    if (l->rows <= n)
        return pb_fail(PB_INPUT, "every slot may have a row, and prompts need some too",
                       "a step of %zu rows is too small for %zu slots", l->rows, n);
    pb_server *s = calloc(1, sizeof *s);
    if (!s)
        return pb_fail(PB_MEMORY, NULL, "no memory for a server");
    s->limits = *l;
    s->engine = e;
    s->store = store;
    s->n_tokens = pb_server_most_rows(l, l->positions);
    s->lane = calloc(n, sizeof *s->lane);
    s->order = malloc(n * sizeof *s->order);
    s->idle = malloc(n * sizeof *s->idle);
    s->slots = malloc(n * beam * sizeof *s->slots);
    s->free_slots = malloc(n * sizeof *s->free_slots);
    s->tokens = malloc(s->n_tokens * sizeof *s->tokens);
    s->seg = malloc(n * sizeof *s->seg);
    s->rows = malloc(n * sizeof *s->rows);
    s->lane_of = malloc(n * sizeof *s->lane_of);
    if (!s->lane || !s->order || !s->idle || !s->slots || !s->free_slots || !s->tokens || !s->seg ||
        !s->rows || !s->lane_of) {
        pb_server_free(s);
        return pb_fail(PB_MEMORY, "use fewer slots", "no memory for %zu slots", n);
    }
    for (size_t i = 0; i < n; i++)
        s->lane[i] = (pb_lane){.number = i, .slot = s->slots + i * beam};
    pb_server_clear(s);
    *out = s;
    return PB_OK;
}

void pb_server_free(pb_server *s)
{
    if (!s)
        return;
    free(s->lane);
    free(s->order);
    free(s->idle);
    free(s->slots);
    free(s->free_slots);
    free(s->tokens);
    free(s->seg);
    free(s->rows);
    free(s->lane_of);
    free(s);
}

void pb_server_on_done(pb_server *s, void (*done)(void *self, pb_request *r), void *self)
{
    s->done = done;
    s->self = self;
}

size_t pb_server_waiting(const pb_server *s)
{
    return s->waiting;
}

size_t pb_server_running(const pb_server *s)
{
    return s->running;
}

// ---------------------------------------------------------------- requests come and go

static size_t beams_of(const pb_request *r)
{
    return r->how && r->how->beam ? r->how->beam : 1;
}

static pb_err check(const pb_server *s, const pb_request *r)
{
    const pb_server_limits *l = &s->limits;
    size_t tenants = s->store ? s->store->n : 0;
    if (r->tenant < -1 || (r->tenant >= 0 && (size_t)r->tenant >= tenants))
        return pb_fail(PB_INPUT, NULL, "unknown tenant %d, there are %zu", r->tenant, tenants);
    if (!r->n_prompt || !r->max_new || r->n_prompt + r->max_new > l->positions)
        return pb_fail(PB_INPUT, "shorten the prompt or the response",
                       "%zu + %zu tokens, the cache holds %zu", r->n_prompt, r->max_new,
                       l->positions);
    if (beams_of(r) > l->beam || r->n_stop > PB_MOST_STOPS)
        return pb_fail(PB_INPUT, NULL, "%zu beams and %zu stop sequences, at most %zu and %d",
                       beams_of(r), r->n_stop, l->beam, PB_MOST_STOPS);
    if (r->tenant >= 0 && s->store->loader && s->store->tenant[r->tenant].bytes > s->store->limit)
        return pb_fail(PB_INPUT, "allow more memory for adapters",
                       "tenant %d has an adapter of %zu bytes, the store holds %zu", r->tenant,
                       s->store->tenant[r->tenant].bytes, s->store->limit);
    return PB_OK;
}

static void leave(pb_server *s, pb_request *r, pb_outcome outcome)
{
    if (r->pinned)
        pb_store_release(s->store, (size_t)r->tenant);
    r->pinned = false;
    r->outcome = outcome;
    r->finished = s->engine->now(s->engine->self);
    if (s->done)
        s->done(s->self, r);
}

pb_err pb_server_submit(pb_server *s, pb_request *r)
{
    PB_TRY(check(s, r));
    r->next = NULL;
    r->pinned = r->ended = false;
    r->n_out = r->n_steps = 0;
    r->score = 0;
    r->outcome = PB_WAITING;
    r->queued = s->engine->now(s->engine->self);
    r->admitted = r->first = r->finished = 0;
    if (s->waiting == s->limits.queue) {
        leave(s, r, PB_QUEUE_FULL);
        return PB_OK;
    }
    if (s->tail)
        s->tail->next = r;
    else
        s->head = r;
    s->tail = r;
    s->waiting++;
    return PB_OK;
}

static void start(pb_server *s, pb_request *r)
{
    pb_lane *l = &s->lane[s->idle[--s->n_idle]];
    l->request = r;
    l->pos = 0;
    l->n_slots = beams_of(r);
    for (size_t k = 0; k < l->n_slots; k++)
        l->slot[k] = s->free_slots[--s->n_free];
    l->whole = r->tenant >= 0 && s->store->tenant[r->tenant].whole;
    s->order[s->running++] = l->number;
    r->outcome = PB_RUNNING;
    r->admitted = s->engine->now(s->engine->self);
    s->engine->begin(s->engine->self, l);
}

static void end(pb_server *s, pb_lane *l)
{
    pb_request *r = l->request;
    l->request = NULL;
    s->idle[s->n_idle++] = l->number;
    for (size_t k = l->n_slots; k-- > 0;)
        s->free_slots[s->n_free++] = l->slot[k];
    leave(s, r, PB_SERVED);
}

// Drops the lanes that ended from the list, in order.
static void forget_ended(pb_server *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->running; i++)
        if (s->lane[s->order[i]].request)
            s->order[n++] = s->order[i];
    s->running = n;
}

// Whether its adapter is in memory, or there is none; if not, it is fetched while `fetch`.
static pb_place adapter_of(pb_server *s, pb_request *r, bool *fetch)
{
    if (r->tenant < 0)
        return PB_READY;
    if (!r->pinned && !*fetch)
        return PB_ABSENT;
    if (!r->pinned)
        *fetch = r->pinned = pb_store_pin(s->store, (size_t)r->tenant);
    return r->pinned ? s->store->tenant[r->tenant].place : PB_ABSENT;
}

// Adapters are fetched ahead for as many requests as could run at once.
static void admit(pb_server *s)
{
    bool fetch = true, room = true;
    size_t seen = 0;
    pb_request *before = NULL, *next;
    for (pb_request *r = s->head; r && seen++ < s->limits.slots && (room || fetch); r = next) {
        next = r->next;
        pb_place place = adapter_of(s, r, &fetch);
        bool out = place == PB_BROKEN;
        if (place == PB_READY && room) {
            room = s->n_free >= beams_of(r);
            out = room;
        }
        if (!out) {
            before = r;
            continue;
        }
        *(before ? &before->next : &s->head) = next;
        if (!next)
            s->tail = before;
        s->waiting--;
        if (place == PB_BROKEN)
            leave(s, r, PB_NO_ADAPTER);
        else
            start(s, r);
    }
}

// ---------------------------------------------------------------- a step

// A segment of n rows; `last`: of which the last gives logits.
static void add(pb_server *s, const pb_lane *l, size_t slot, const int32_t *tokens, size_t n,
                bool prompt, bool last)
{
    pb_work *w = &s->work;
    pb_batch *b = &w->batch;
    size_t row0 = b->n_rows;
    if (tokens)
        memcpy(s->tokens + row0, tokens, n * sizeof *tokens);
    s->seg[b->n_seg++] = (pb_segment){.row0 = row0,
                                      .n_rows = n,
                                      .pos0 = l->pos,
                                      .n_prompt = prompt ? n : 0,
                                      .tenant = l->request->tenant < 0 ? -1 : (int)l->number,
                                      .slot = (int)slot};
    b->n_rows += n;
    if (last) {
        s->lane_of[w->n_out] = l->number;
        s->rows[w->n_out++] = row0 + n - 1;
    }
    *(prompt ? &w->prefill : &w->decode) += n;
    w->keys += l->pos + n;
    w->pairs += n * l->pos + n * (n + 1) / 2;
}

static void touch(pb_server *s, const pb_lane *l)
{
    if (l->request->tenant < 0)
        return;
    pb_tenant *t = &s->store->tenant[l->request->tenant];
    s->work.tenants += t->touched != s->step;
    s->work.adapter_bytes += t->touched != s->step ? t->bytes : 0;
    t->touched = s->step;
}

static void plan(pb_server *s)
{
    bool oldest = true; // prompt
    s->work = (pb_work){.batch = {.tokens = s->tokens, .seg = s->seg}, .rows = s->rows};
    s->step++;
    for (size_t i = 0; i < s->running; i++) {
        pb_lane *l = &s->lane[s->order[i]];
        if (l->pos < l->request->n_prompt)
            continue;
        for (size_t k = 0; k < l->n; k++)
            add(s, l, l->slot[l->open[k].at], &l->open[k].next, 1, false, true);
        l->pos++;
        touch(s, l);
    }
    for (size_t i = 0; i < s->running; i++) {
        pb_lane *l = &s->lane[s->order[i]];
        const pb_request *r = l->request;
        size_t n = r->n_prompt - l->pos, rows = s->work.batch.n_rows;
        size_t room = s->limits.rows > rows ? s->limits.rows - rows : 0;
        if (l->pos >= r->n_prompt)
            continue;
        if (!l->whole && n > room)
            n = room;
        if (n && (n <= room || oldest)) {
            add(s, l, l->slot[l->open[0].at], r->prompt ? r->prompt + l->pos : NULL, n, true,
                l->pos + n == r->n_prompt);
            l->pos += n;
            touch(s, l);
        }
        oldest = false;
    }
}

static void advance(pb_server *s)
{
    const pb_engine *e = s->engine;
    int64_t now = e->now(e->self);
    for (size_t i = 0, beams; i < s->work.n_out; i += beams) {
        pb_lane *l = &s->lane[s->lane_of[i]];
        pb_request *r = l->request;
        beams = l->n;
        if (!r->n_steps)
            r->first = now;
        if (r->token_ns)
            r->token_ns[r->n_steps] = now;
        r->n_steps++;
        if (e->advance(e->self, l, i))
            end(s, l);
    }
}

const pb_work *pb_server_step(pb_server *s)
{
    if (s->store)
        pb_store_poll(s->store);
    admit(s);
    if (!s->running)
        return NULL;
    plan(s);
    s->engine->run(s->engine->self, &s->work);
    advance(s);
    forget_ended(s);
    return &s->work;
}
