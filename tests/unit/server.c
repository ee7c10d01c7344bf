// The server: what a request gets does not depend on what runs beside it, on how prompts are cut,
// or on whether its adapter had to be loaded. Tenants of every method come from folders, through a
// store that holds a few of them.
#include "core/clock.h"
#include "serve/decode.h"
#include "serve/loader.h"
#include "serve/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <malloc.h>
#include <time.h>

#include "tiny.h"

enum { REQUESTS = 60, MOST_NEW = 9, LONGEST = 48, EACH = 2, MOST_SHAPES = 24, BEAMS = 3 };
enum { MOST_TENANTS = EACH * MOST_SHAPES };

static pb_model *model;
static pb_adapter *shapes[MOST_SHAPES];
static size_t n_shapes, largest;
static char folders[MOST_TENANTS][400];
static int32_t prompts[REQUESTS][LONGEST], outs[REQUESTS][MOST_NEW];
static int64_t times[REQUESTS][MOST_NEW];

static int set_up(void **state)
{
    if (tiny_folder_make(state))
        return -1;
    model = tiny_open(0, &(pb_model_args){.trainable = false});
    const pb_method *m;
    for (size_t i = 0; (m = pb_method_at(i)) && n_shapes < MOST_SHAPES; i++) {
        void *options;
        if (m->backbone)
            continue;
        OK(pb_options_new(&options, m));
        for (size_t e = 0; e < EACH; e++) {
            pb_adapter *a, *folded;
            size_t t = n_shapes * EACH + e;
            OK(pb_adapter_new(&a, m, options, &model->config, false));
            for (size_t k = 0; k < a->layout.n; k++) {
                const pb_spec *s = &a->layout.spec[k];
                pb_rng r = pb_rng_make(50 + t, PB_STREAM_TEST, (uint32_t)k);
                fill(a->params.v + s->offset, s->rows * s->cols, s->init == PB_INIT_ONE, 0.2, &r);
            }
            OK(pb_adapter_folded(&folded, a));
            snprintf(folders[t], sizeof folders[t], "%s/tenant%zu", tiny_folder, t);
            OK(pb_adapter_save(folded, folders[t]));
            pb_adapter_free(folded);
            pb_adapter_free(a);
        }
        OK(pb_adapter_load(&shapes[n_shapes], folders[n_shapes * EACH], &model->config, NULL));
        OK(pb_adapter_serve(shapes[n_shapes], model));
        size_t bytes = pb_adapter_resident(shapes[n_shapes++]);
        largest = bytes > largest ? bytes : largest;
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
    for (size_t i = 0; i < n_shapes; i++)
        pb_adapter_free(shapes[i]);
    pb_model_close(model);
    return tiny_folder_remove(state);
}

static const pb_decoding beams = {BEAMS, 0.9, 0};

static void make_requests(pb_request *r)
{
    for (size_t i = 0; i < REQUESTS; i++)
        r[i] = (pb_request){.prompt = prompts[i],
                            .n_prompt = 1 + i * 11 % 37,
                            .max_new = 1 + (i * 5 + 4) % MOST_NEW,
                            .tenant = (int)(i * 7 % (EACH * n_shapes + 1)) - 1,
                            .out = outs[i],
                            .token_ns = times[i],
                            .how = i % 4 == 3 ? &beams : NULL,
                            .fixed = i % 3 == 0};
}

static pb_err load(void *self, size_t tenant, pb_adapter **out)
{
    (void)self;
    PB_TRY(pb_adapter_load(out, folders[tenant], &model->config, NULL));
    return pb_adapter_serve(*out, model);
}

// A server with a store of its own.
typedef struct rig {
    pb_adapter *shape_of[MOST_TENANTS];
    pb_thread_loader *loader;
    pb_store store;
    pb_model_engine *engine;
    pb_server *server;
} rig;

static const pb_server_limits limits = {
    .slots = 6, .beam = BEAMS, .positions = LONGEST, .rows = 16, .queue = REQUESTS};

static void rig_up(rig *g, const pb_server_limits *l, size_t memory)
{
    for (size_t t = 0; t < EACH * n_shapes; t++)
        g->shape_of[t] = shapes[t / EACH];
    OK(pb_thread_loader_new(&g->loader, EACH * n_shapes,
                            &(pb_adapter_source){NULL, load, g->shape_of}));
    OK(pb_store_init(&g->store, EACH * n_shapes, memory, pb_thread_loader_get(g->loader)));
    for (size_t t = 0; t < EACH * n_shapes; t++)
        g->store.tenant[t] = (pb_tenant){.bytes = pb_adapter_resident(shapes[t / EACH]),
                                         .shape = t / EACH,
                                         .whole = shapes[t / EACH]->method->whole_prompt};
    OK(pb_model_engine_new(&g->engine, model, shapes, n_shapes, &g->store, l, LONGEST));
    OK(pb_server_new(&g->server, l, pb_model_engine_get(g->engine), &g->store));
}

static void rig_down(rig *g)
{
    pb_server_free(g->server);
    pb_model_engine_free(g->engine);
    pb_store_free(&g->store);
    pb_thread_loader_free(g->loader);
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void serve_all(rig *g)
{
    while (pb_server_waiting(g->server) || pb_server_running(g->server))
        if (!pb_server_step(g->server))
            pause_a_little();
}

// The same request by itself: its adapter alone in memory, its prompt in one piece.
static void check_alone(const pb_request *q)
{
    int32_t out[MOST_NEW];
    pb_decoder *d;
    pb_adapter *a = NULL;
    pb_request r = *q;
    r.out = out;
    r.token_ns = NULL;
    r.tenant = q->tenant < 0 ? -1 : 0;
    if (q->tenant >= 0)
        OK(load(NULL, (size_t)q->tenant, &a));
    OK(pb_decoder_new(&d, model, &a, a ? 1 : 0, 1, LONGEST, q->how ? q->how : &PB_GREEDY));
    OK(pb_decode(d, &r, 1, NULL, NULL));
    if (r.n_out != q->n_out || memcmp(out, q->out, r.n_out * sizeof *out) || r.score != q->score ||
        r.ended != q->ended)
        fail_msg(
            "a request of tenant %d (%s), %zu + %zu tokens, %zu beams: other tokens than alone",
            q->tenant, a ? a->method->name : "none", q->n_prompt, q->max_new,
            q->how ? q->how->beam : 1);
    pb_decoder_free(d);
    pb_adapter_free(a);
}

static void test_served_as_alone(void **state)
{
    (void)state;
    rig g;
    pb_request r[REQUESTS];
    size_t rows = 0, cut = 0, mixed = 0;
    rig_up(&g, &limits, 2 * largest);
    make_requests(r);
    size_t next = 0;
    // Some come when others are under way.
    while (next < REQUESTS || pb_server_waiting(g.server) || pb_server_running(g.server)) {
        for (size_t k = 0; k < 5 && next < REQUESTS; k++)
            OK(pb_server_submit(g.server, &r[next++]));
        const pb_work *w = pb_server_step(g.server);
        if (!w) {
            pause_a_little();
            continue;
        }
        rows = w->batch.n_rows > rows ? w->batch.n_rows : rows;
        mixed += w->prefill && w->decode && w->tenants > 1;
        for (size_t s = 0; s < w->batch.n_seg; s++)
            cut += w->batch.seg[s].n_prompt && w->batch.seg[s].pos0;
        assert_true(g.store.used <= g.store.limit && g.store.pinned <= g.store.used);
    }
    assert_true(cut > 5 && mixed > 5 && g.store.evictions > 5);
    assert_true(g.store.peak <= 2 * largest && g.store.pinned == 0);
    assert_true(rows <= pb_server_most_rows(&limits, LONGEST));
    for (size_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(r[i].outcome, PB_SERVED);
        assert_true(r[i].queued <= r[i].admitted && r[i].admitted <= r[i].first &&
                    r[i].first <= r[i].finished && r[i].first == times[i][0]);
        assert_true(!r[i].fixed || (r[i].n_out == r[i].max_new && !r[i].ended));
        check_alone(&r[i]);
    }
    rig_down(&g);
}

static void test_stop_sequences(void **state)
{
    (void)state;
    rig g;
    pb_request r[REQUESTS];
    int32_t kept[MOST_NEW];
    rig_up(&g, &limits, SIZE_MAX);
    make_requests(r);
    r[1] = r[0];
    r[0].fixed = true;
    r[0].max_new = MOST_NEW;
    OK(pb_server_submit(g.server, &r[0]));
    serve_all(&g);
    memcpy(kept, r[0].out, sizeof kept);
    // The first place where two tokens of it stand.
    size_t at = 0;
    while (kept[at] != kept[4] || kept[at + 1] != kept[5])
        at++;
    const pb_stop stop[] = {{(int32_t[]){1, 2, 3, 1}, 4}, {kept + 4, 2}};
    r[1].fixed = false;
    r[1].max_new = MOST_NEW;
    r[1].stop = stop;
    r[1].n_stop = 2;
    for (size_t k = 0; k < 2; k++) { // greedy, and a search of which nothing else is known
        r[1].how = k ? &beams : NULL;
        OK(pb_server_submit(g.server, &r[1]));
        serve_all(&g);
        if (!k)
            assert_true(r[1].ended && r[1].n_out <= at && !memcmp(r[1].out, kept, r[1].n_out));
        for (size_t i = 0; i + 1 < r[1].n_out; i++)
            assert_false(r[1].out[i] == kept[4] && r[1].out[i + 1] == kept[5]);
    }
    rig_down(&g);
}

static void refused(rig *g, pb_request r, const char *says)
{
    assert_int_equal(pb_server_submit(g->server, &r), PB_INPUT);
    if (!strstr(pb_error_message(), says))
        fail_msg("\"%s\" instead of \"%s\"", pb_error_message(), says);
}

static void test_refusals(void **state)
{
    (void)state;
    rig g;
    pb_request r[REQUESTS], x;
    pb_server_limits few = limits;
    few.queue = 4;
    rig_up(&g, &few, largest);
    make_requests(r);
    x = r[0];
    x.tenant = (int)(EACH * n_shapes);
    refused(&g, x, "unknown tenant");
    x = r[0];
    x.max_new = LONGEST;
    refused(&g, x, "the cache holds");
    x = r[0];
    x.how = &(pb_decoding){BEAMS + 1, 1, 0};
    refused(&g, x, "beams");
    g.store.limit = 1;
    x = r[0];
    x.tenant = 0;
    refused(&g, x, "the store holds 1");
    g.store.limit = largest;
    for (size_t i = 0; i < 6; i++)
        OK(pb_server_submit(g.server, &r[i]));
    assert_int_equal(r[3].outcome, PB_WAITING);
    assert_int_equal(r[4].outcome, PB_QUEUE_FULL);
    assert_int_equal(r[5].outcome, PB_QUEUE_FULL);
    serve_all(&g);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(r[i].outcome, PB_SERVED);
    rig_down(&g);
}

// A folder that is gone, or that holds another tenant's kind of adapter, stops its own tenant's
// requests only.
static void test_broken_folder(void **state)
{
    (void)state;
    char kept[400];
    memcpy(kept, folders[1], sizeof kept);
    for (int k = 0; k < 2; k++) {
        rig g;
        pb_request r[REQUESTS];
        snprintf(folders[1], sizeof folders[1], k ? "%s/tenant4" : "%s/nothing", tiny_folder);
        rig_up(&g, &limits, 3 * largest);
        make_requests(r);
        for (size_t i = 0; i < 9; i++) {
            r[i].tenant = (int)(i % 3);
            OK(pb_server_submit(g.server, &r[i]));
        }
        serve_all(&g);
        for (size_t i = 0; i < 9; i++)
            assert_int_equal(r[i].outcome, i % 3 == 1 ? PB_NO_ADAPTER : PB_SERVED);
        const char *says = pb_thread_loader_error(g.loader);
        assert_non_null(strstr(says, "tenant 1: "));
        assert_int_equal(strstr(says, "its method is") != NULL, k == 1);
        assert_int_equal(g.store.pinned, 0);
        rig_down(&g);
    }
    memcpy(folders[1], kept, sizeof kept);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Between requests, and while adapters come in, a session sleeps; none is late for it.
static void test_session_sleeps(void **state)
{
    (void)state;
    enum { N = 8, GAP = 60000000 };
    rig g;
    pb_request r[REQUESTS];
    pb_due due[N];
    rig_up(&g, &limits, largest);
    make_requests(r);
    for (size_t i = 0; i < N; i++) {
        due[i] = (pb_due){.at = (int64_t)i * GAP};
        r[i].tenant = (int)i; // each has to be loaded
    }
    pb_session s = {.server = g.server,
                    .engine = pb_model_engine_get(g.engine),
                    .store = &g.store,
                    .due = due,
                    .request = r,
                    .n = N};
    double cpu = cpu_seconds();
    OK(pb_session_run(&s));
    cpu = cpu_seconds() - cpu;
    double wall = 1e-9 * (double)(s.end - s.start);
    assert_true(wall > 1e-9 * (N - 1) * GAP);
    assert_true(cpu < 0.5 * wall);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(r[i].outcome, PB_SERVED);
        assert_true(r[i].scheduled == s.start + due[i].at && r[i].queued >= r[i].scheduled);
    }
    assert_int_equal(g.store.loads, N);
    rig_down(&g);
}

// The components' times are parts of a step's.
static void test_times(void **state)
{
    (void)state;
    rig g;
    pb_request r[REQUESTS];
    rig_up(&g, &limits, SIZE_MAX);
    pb_step *st = pb_model_engine_step(g.engine);
    make_requests(r);
    OK(pb_server_submit(g.server, &r[0]));
    serve_all(&g);
    for (int c = 0; c < PB_COMPONENTS; c++)
        assert_true(pb_step_counts(st)[c].ns == 0); // not asked for
    pb_step_time(st);
    r[0].tenant = 0;
    OK(pb_server_submit(g.server, &r[0]));
    int64_t begin = pb_now_ns(), sum = 0;
    while (!pb_server_step(g.server)) {
        pause_a_little();
        begin = pb_now_ns();
    }
    int64_t whole = pb_now_ns() - begin;
    for (int c = 0; c < PB_COMPONENTS; c++) {
        assert_true(pb_step_counts(st)[c].ns > 0);
        sum += pb_step_counts(st)[c].ns;
    }
    assert_true(sum <= whole);
    serve_all(&g);
    rig_down(&g);
}

// Requests that come, are cut, decode and leave take no memory.
static void test_no_allocation(void **state)
{
    (void)state;
    rig g;
    pb_request r[REQUESTS];
    rig_up(&g, &limits, SIZE_MAX);
    make_requests(r);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 12; i++)
            OK(pb_server_submit(g.server, &r[i]));
        struct mallinfo2 before = mallinfo2();
        serve_all(&g);
        struct mallinfo2 after = mallinfo2();
        // In the first round adapters are loaded, and threads started.
        if (round)
            assert_int_equal(after.uordblks + after.hblkhd, before.uordblks + before.hblkhd);
    }
    rig_down(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_served_as_alone), cmocka_unit_test(test_stop_sequences),
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_broken_folder),
        cmocka_unit_test(test_times),           cmocka_unit_test(test_session_sleeps),
        cmocka_unit_test(test_no_allocation)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
