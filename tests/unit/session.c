// Sessions over an engine whose clock is a number: when requests are submitted, what latencies
// count from, and that a session waits instead of turning.
#include "core/log.h"
#include "serve/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <malloc.h>
#include <signal.h>
#include <string.h>

enum { REQUESTS = 40, STEP = 10, LOAD = 1000, POSITIONS = 64 }; // STEP, LOAD: ns

#define OK(x) assert_int_equal(x, PB_OK)

// Every step takes STEP, and each request gets the tokens it wants. Loads go one by one.
typedef struct fake {
    pb_engine engine;
    pb_loader loader;
    int64_t now;
    pb_beam beam[REQUESTS];
    size_t asked[REQUESTS], first, n_asked;
    int64_t ready[REQUESTS];
    size_t broken; // this tenant cannot be loaded
    size_t waits, steps;
    int64_t busy;
    size_t interrupt_at; // step; 0: never
} fake;

static void begin(void *self, pb_lane *l)
{
    fake *f = self;
    l->open = &f->beam[l->number];
    l->n = 1;
    l->open[0] = (pb_beam){0};
}

static void run(void *self, const pb_work *w)
{
    fake *f = self;
    assert_true(w->batch.n_rows == w->prefill + w->decode);
    f->now += STEP;
    if (++f->steps == f->interrupt_at)
        raise(SIGTERM);
}

static bool advance(void *self, pb_lane *l, size_t first)
{
    (void)self;
    (void)first;
    return ++l->request->n_out == l->request->max_new;
}

static int64_t now(void *self)
{
    return ((fake *)self)->now;
}

static void wait(void *self, int64_t until)
{
    fake *f = self;
    int64_t arrival = f->first < f->n_asked ? f->ready[f->first] : INT64_MAX;
    assert_true(until > f->now || arrival <= f->now);
    until = arrival < until ? arrival : until;
    assert_true(until < INT64_MAX);
    f->now = until > f->now ? until : f->now;
    f->waits++;
}

static void load(void *self, size_t tenant)
{
    fake *f = self;
    int64_t free_at = f->n_asked ? f->ready[f->n_asked - 1] : 0;
    f->asked[f->n_asked] = tenant;
    f->ready[f->n_asked++] = (free_at > f->now ? free_at : f->now) + LOAD;
}

static bool arrived(void *self, pb_arrival *out)
{
    fake *f = self;
    if (f->first == f->n_asked || f->ready[f->first] > f->now)
        return false;
    *out = (pb_arrival){.tenant = f->asked[f->first], .failed = f->asked[f->first] == f->broken};
    f->first++;
    return true;
}

static void step(void *self, const pb_work *w, int64_t from, int64_t to)
{
    fake *f = self;
    assert_true(w->batch.n_rows > 0 && to - from == STEP);
    f->busy += to - from;
}

typedef struct rig {
    fake f;
    pb_store store;
    pb_server *server;
    pb_due due[REQUESTS];
    pb_request request[REQUESTS];
    pb_session s;
} rig;

// n requests of `output` tokens, `gap` ns apart, by tenants that take turns; 0 tenants: none.
static void rig_up(rig *g, const pb_server_limits *l, size_t n, int64_t gap, size_t output,
                   size_t tenants)
{
    memset(g, 0, sizeof *g);
    g->f.engine = (pb_engine){&g->f, begin, run, advance, now, wait};
    g->f.loader = (pb_loader){&g->f, load, arrived, NULL, NULL};
    g->f.now = 5000;
    g->f.broken = SIZE_MAX;
    OK(pb_store_init(&g->store, tenants, 100, &g->f.loader));
    for (size_t t = 0; t < tenants; t++)
        g->store.tenant[t].bytes = 10;
    OK(pb_server_new(&g->server, l, &g->f.engine, &g->store));
    for (size_t i = 0; i < n; i++) {
        g->due[i] = (pb_due){.at = (int64_t)i * gap, .prompt = 3, .output = (uint32_t)output};
        g->request[i] = (pb_request){.n_prompt = 3,
                                     .max_new = output,
                                     .tenant = tenants ? (int)(i % tenants) : -1,
                                     .fixed = true};
    }
    g->s = (pb_session){.server = g->server,
                        .engine = &g->f.engine,
                        .store = &g->store,
                        .due = g->due,
                        .request = g->request,
                        .n = n,
                        .step = step,
                        .self = &g->f};
}

static void rig_down(rig *g)
{
    pb_server_free(g->server);
    pb_store_free(&g->store);
}

static const pb_server_limits one = {
    .slots = 1, .beam = 1, .positions = POSITIONS, .rows = 16, .queue = REQUESTS};

// One slot, a request every 25 ns, each takes 4 steps of 10: a queue with known waiting times.
static void test_open(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, REQUESTS, 25, 4, 0);
    g.s.warm_up = 3;
    OK(pb_session_run(&g.s));
    int64_t free_at = 0;
    for (size_t i = 0; i < REQUESTS; i++) {
        const pb_request *r = &g.request[i];
        int64_t due = 5000 + 25 * (int64_t)i, from = free_at > due ? free_at : due;
        assert_int_equal(r->scheduled, due);
        assert_int_equal(r->admitted, from);
        assert_int_equal(r->first, from + STEP);
        assert_int_equal(r->finished, from + 4 * STEP);
        assert_true(r->queued >= due && r->queued < due + STEP); // between two steps
        free_at = r->finished;
    }
    assert_int_equal(g.s.submitted, REQUESTS);
    assert_int_equal(g.s.counted, 5000 + 75);
    assert_int_equal(g.s.end, free_at);
    rig_down(&g);
}

// Requests far apart: the session sleeps from the end of one to the next, once each.
static void test_waits(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, 10, 1000, 2, 0);
    OK(pb_session_run(&g.s));
    assert_int_equal(g.f.waits, 9);
    assert_int_equal(g.f.busy, 10 * 2 * STEP);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(g.request[i].first - g.request[i].scheduled, STEP);
    rig_down(&g);
}

static void test_closed(void **state)
{
    (void)state;
    rig g;
    pb_server_limits two = one;
    two.slots = 2;
    rig_up(&g, &two, 11, 0, 5, 0);
    g.s.clients = 3;
    OK(pb_session_run(&g.s));
    size_t at_start = 0;
    for (size_t i = 0; i < 11; i++) {
        const pb_request *r = &g.request[i];
        assert_int_equal(r->outcome, PB_SERVED);
        at_start += r->scheduled == g.s.start;
        if (i >= 3) // due when the one three places before it left
            assert_int_equal(r->scheduled, g.request[i - 3].finished);
    }
    assert_int_equal(at_start, 3);
    rig_down(&g);
}

// A request that is turned away makes room for its client's next one, and nothing is left over.
static void test_closed_full(void **state)
{
    (void)state;
    rig g;
    pb_server_limits few = one;
    few.queue = 1;
    size_t served = 0, full = 0;
    rig_up(&g, &few, 12, 0, 5, 0);
    g.s.clients = 4;
    OK(pb_session_run(&g.s));
    for (size_t i = 0; i < 12; i++) {
        served += g.request[i].outcome == PB_SERVED;
        full += g.request[i].outcome == PB_QUEUE_FULL;
    }
    assert_true(served >= 1 && full >= 1 && served + full == 12);
    rig_down(&g);
}

static void test_adapters(void **state)
{
    (void)state;
    rig g;
    pb_server_limits l = one;
    rig_up(&g, &l, 8, 0, 2, 8);
    g.f.broken = 2; // with one slot, nobody has looked at the one behind it yet
    OK(pb_session_run(&g.s));
    for (size_t i = 0; i < 8; i++) {
        const pb_request *r = &g.request[i];
        assert_int_equal(r->outcome, i == 2 ? PB_NO_ADAPTER : PB_SERVED);
        assert_true(r->finished >= 5000 + (int64_t)(i + 1) * LOAD);
    }
    assert_int_equal(g.store.coming, 0);
    assert_int_equal(g.store.pinned, 0);
    assert_int_equal(g.f.waits, 8);
    rig_down(&g);
}

static void test_stop_after(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, REQUESTS, 100, 2, 0);
    g.s.stop_after = 1000;
    OK(pb_session_run(&g.s));
    assert_int_equal(g.s.submitted, 10);
    assert_int_equal(g.request[9].outcome, PB_SERVED);
    assert_int_equal(g.request[10].queued, 0);
    rig_down(&g);
    rig_up(&g, &one, REQUESTS, 0, 5, 0); // 50 ns each
    g.s.clients = 1;
    g.s.stop_after = 120;
    OK(pb_session_run(&g.s));
    assert_int_equal(g.s.submitted, 3);
    rig_down(&g);
}

static void test_refused(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, 5, 0, 2, 0);
    g.request[3].max_new = POSITIONS;
    assert_int_equal(pb_session_run(&g.s), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "request 3: "));
    assert_int_equal(g.s.submitted, 3);
    rig_down(&g);
}

static void test_no_allocation(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, REQUESTS, 25, 4, 5);
    struct mallinfo2 before = mallinfo2();
    OK(pb_session_run(&g.s));
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(after.uordblks + after.hblkhd, before.uordblks + before.hblkhd);
    rig_down(&g);
}

// The last one: the program remembers that it was asked to stop.
static void test_interrupted(void **state)
{
    (void)state;
    rig g;
    rig_up(&g, &one, REQUESTS, 0, 4, 3);
    g.f.interrupt_at = 9;
    pb_signals_install();
    assert_int_equal(pb_session_run(&g.s), PB_INTERRUPTED);
    assert_int_equal(g.f.steps, 9);
    assert_int_equal(g.request[1].outcome, PB_SERVED);
    assert_int_equal(g.request[2].outcome, PB_RUNNING);
    assert_int_equal(pb_server_waiting(g.server) + pb_server_running(g.server), 0);
    assert_int_equal(g.store.pinned, 0);
    rig_down(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_closed),      cmocka_unit_test(test_closed_full),
        cmocka_unit_test(test_adapters),    cmocka_unit_test(test_stop_after),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_no_allocation),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
