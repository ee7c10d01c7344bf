// Simulated servers: waiting times against the Pollaczek-Khinchine formula; the same steps, at the
// same times, as a server that computes, when its clock goes by the same costs; loads one by one.
#include "serve/engine.h"
#include "serve/session.h"
#include "serve/simulate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tiny.h"

// ---------------------------------------------------------------- a queue

static double constant(void *self, const pb_work *w)
{
    (void)w;
    return *(const double *)self;
}

// n requests of one-token prompts, one slot, steps of 1 ms: returns the mean time in the queue, and
// in *theory lambda E[S^2] / (2 (1 - rho)).
static double mean_wait(size_t n, double rho, pb_lengths output, double *theory)
{
    static const pb_server_limits one = {.slots = 1, .beam = 1, .positions = 64, .rows = 16};
    double step = 1e-3, mean = 0, square = 0, sum = 0;
    pb_server_limits l = one;
    pb_simulation *sim;
    pb_server *server;
    pb_due *due = malloc(n * sizeof *due);
    pb_request *r = calloc(n, sizeof *r);
    assert_true(due && r);
    l.queue = n;
    for (double k = output.a; k <= output.b; k++) {
        mean += k * step / (output.b - output.a + 1);
        square += k * k * step * step / (output.b - output.a + 1);
    }
    pb_workload w = {.rate = rho / mean,
                     .cv = 1,
                     .tenants = 1,
                     .prompt = {PB_FIXED, 1, 1, 1},
                     .output = output,
                     .seed = 11};
    OK(pb_workload_draw(&w, due, n));
    OK(pb_simulation_new(&sim, &l, constant, &step, NULL, 0, (pb_disk){0, 1}));
    OK(pb_server_new(&server, &l, pb_simulation_engine(sim), NULL));
    for (size_t i = 0; i < n; i++)
        r[i] = (pb_request){.n_prompt = 1, .max_new = due[i].output, .tenant = -1, .fixed = true};
    pb_session s = {
        .server = server, .engine = pb_simulation_engine(sim), .due = due, .request = r, .n = n};
    OK(pb_session_run(&s));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].outcome, PB_SERVED);
        assert_int_equal(r[i].finished - r[i].admitted, (int64_t)due[i].output * 1000000);
        sum += 1e-9 * (double)(r[i].admitted - r[i].scheduled);
    }
    *theory = w.rate * square / (2 * (1 - rho));
    pb_server_free(server);
    pb_simulation_free(sim);
    free(r);
    free(due);
    return sum / (double)n;
}

static void test_queue(void **state)
{
    (void)state;
    static const struct {
        double rho;
        pb_lengths output;
    } cases[] = {{0.5, {PB_FIXED, 4, 4, 4}},
                 {0.8, {PB_FIXED, 4, 4, 4}},
                 {0.5, {PB_BETWEEN, 1, 9, 9}},
                 {0.8, {PB_BETWEEN, 1, 9, 9}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double theory, wait = mean_wait(400000, cases[i].rho, cases[i].output, &theory);
        if (!(fabs(wait / theory - 1) < 0.02))
            fail_msg("load %g, lengths %g-%g: %.4g s in the queue, %.4g expected", cases[i].rho,
                     cases[i].output.a, cases[i].output.b, wait, theory);
    }
}

// ---------------------------------------------------------------- beside a model

enum { TENANTS = 12, REQUESTS = 80, LONGEST = 40, MOST_NEW = 12, STEPS = 2000 };

static const pb_decoding beams = {3, 1, 0};

static double by_work(void *self, const pb_work *w)
{
    (void)self;
    return 1e-6 * (double)(40 + 7 * w->prefill + 9 * w->decode + 3 * w->tenants + w->keys);
}

typedef struct step_log {
    struct {
        size_t prefill, decode, n_out, tenants, bytes, keys, pairs;
        int64_t begin, end;
    } v[STEPS];
    size_t n;
} step_log;

static void log_step(void *self, const pb_work *w, int64_t begin, int64_t end)
{
    step_log *l = self;
    assert_true(l->n < STEPS);
    l->v[l->n].prefill = w->prefill;
    l->v[l->n].decode = w->decode;
    l->v[l->n].n_out = w->n_out;
    l->v[l->n].tenants = w->tenants;
    l->v[l->n].bytes = w->adapter_bytes;
    l->v[l->n].keys = w->keys;
    l->v[l->n].pairs = w->pairs;
    l->v[l->n].begin = begin;
    l->v[l->n++].end = end;
}

// Computes with the model, and takes the time of the simulation. Adapters too come in when the
// simulation says so.
typedef struct both {
    const pb_engine *model, *time;
    const pb_loader *loader;
    pb_model *m;
} both;

static pb_adapter *new_adapter(const pb_model *m, size_t tenant)
{
    pb_adapter *a;
    void *options;
    const pb_method *method;
    method = pb_method_find(tenant % 2 ? "lora" : "pedro");
    OK(pb_options_new(&options, method));
    OK(pb_adapter_new(&a, method, options, &m->config, false));
    pb_rng r = pb_rng_make(tenant, PB_STREAM_TEST, 0);
    fill(a->params.v, a->layout.size, 0, 0.1, &r);
    OK(pb_adapter_serve(a, m));
    free(options);
    return a;
}

static void both_begin(void *self, pb_lane *l)
{
    ((both *)self)->model->begin(((both *)self)->model->self, l);
}

static void both_run(void *self, const pb_work *w)
{
    both *b = self;
    b->model->run(b->model->self, w);
    b->time->run(b->time->self, w);
}

static bool both_advance(void *self, pb_lane *l, size_t first)
{
    return ((both *)self)->model->advance(((both *)self)->model->self, l, first);
}

static int64_t both_now(void *self)
{
    return ((both *)self)->time->now(((both *)self)->time->self);
}

static void both_wait(void *self, int64_t until)
{
    ((both *)self)->time->wait(((both *)self)->time->self, until);
}

static void both_load(void *self, size_t tenant)
{
    ((both *)self)->loader->load(((both *)self)->loader->self, tenant);
}

static bool both_arrived(void *self, pb_arrival *out)
{
    both *b = self;
    if (!b->loader->arrived(b->loader->self, out))
        return false;
    out->adapter = new_adapter(b->m, out->tenant);
    return true;
}

static void both_drop(void *self, pb_adapter *a)
{
    (void)self;
    pb_adapter_free(a);
}

// With m: computes. Without: the simulation alone.
static void serve(pb_model *m, pb_adapter *const shapes[2], const pb_workload *w, size_t memory,
                  step_log *log, pb_request *r)
{
    static int32_t prompt[LONGEST], out[REQUESTS][MOST_NEW];
    static const pb_server_limits l = {
        .slots = 7, .beam = 3, .positions = LONGEST + MOST_NEW, .rows = 20, .queue = REQUESTS};
    pb_due due[REQUESTS];
    pb_simulation *sim;
    pb_model_engine *engine = NULL;
    pb_server *server;
    pb_store store = {0};
    both b = {.m = m};
    pb_engine face = {&b, both_begin, both_run, both_advance, both_now, both_wait};
    pb_loader loader = {&b, both_load, both_arrived, both_drop, NULL};
    OK(pb_simulation_new(&sim, &l, by_work, NULL, &store, TENANTS, (pb_disk){300e-6, 1e9}));
    b.time = pb_simulation_engine(sim);
    b.loader = pb_simulation_loader(sim);
    OK(pb_store_init(&store, TENANTS, memory, m ? &loader : b.loader));
    for (size_t t = 0; t < TENANTS; t++)
        store.tenant[t] = (pb_tenant){.bytes = pb_adapter_resident(shapes[t % 2]),
                                      .shape = t % 2,
                                      .whole = shapes[t % 2]->method->whole_prompt};
    if (m) {
        OK(pb_model_engine_new(&engine, m, shapes, 2, &store, &l, LONGEST));
        b.model = pb_model_engine_get(engine);
    }
    OK(pb_server_new(&server, &l, m ? &face : b.time, &store));
    OK(pb_workload_draw(w, due, REQUESTS));
    for (size_t i = 0; i < REQUESTS; i++)
        r[i] = (pb_request){.prompt = m ? prompt : NULL,
                            .n_prompt = due[i].prompt,
                            .max_new = due[i].output,
                            .out = m ? out[i] : NULL,
                            .tenant = (int)due[i].tenant,
                            .how = i % 5 == 4 ? &beams : NULL,
                            .fixed = true};
    pb_session s = {.server = server,
                    .engine = m ? &face : b.time,
                    .store = &store,
                    .due = due,
                    .request = r,
                    .n = REQUESTS,
                    .clients = w->clients,
                    .step = log_step,
                    .self = log};
    OK(pb_session_run(&s));
    assert_true(store.evictions > 5);
    pb_server_free(server);
    pb_model_engine_free(engine);
    pb_store_free(&store);
    pb_simulation_free(sim);
}

static void test_same_as_model(void **state)
{
    (void)state;
    pb_model *m = tiny_open(0, &(pb_model_args){.trainable = false});
    pb_adapter *shapes[2] = {new_adapter(m, 0), new_adapter(m, 1)};
    size_t most = pb_adapter_resident(shapes[0]) + pb_adapter_resident(shapes[1]);
    pb_workload w = {.rate = 1000,
                     .cv = 2,
                     .tenants = TENANTS,
                     .popularity = PB_ZIPF,
                     .skew = 0.8,
                     .prompt = {PB_BETWEEN, 1, LONGEST, LONGEST},
                     .output = {PB_BETWEEN, 1, MOST_NEW, MOST_NEW},
                     .seed = 4};
    for (size_t clients = 0; clients < 20; clients += 9) {
        static step_log log[2];
        static pb_request r[2][REQUESTS];
        memset(log, 0, sizeof log);
        w.clients = clients;
        serve(m, shapes, &w, 2 * most, &log[0], r[0]);
        serve(NULL, shapes, &w, 2 * most, &log[1], r[1]);
        assert_true(log[0].n > 100);
        assert_int_equal(log[0].n, log[1].n);
        for (size_t i = 0; i < log[0].n; i++)
            if (memcmp(&log[0].v[i], &log[1].v[i], sizeof log[0].v[i]))
                fail_msg("%zu clients: step %zu is another", clients, i);
        for (size_t i = 0; i < REQUESTS; i++) {
            const pb_request *a = &r[0][i], *b = &r[1][i];
            assert_true(a->outcome == PB_SERVED && b->outcome == PB_SERVED);
            assert_true(a->scheduled == b->scheduled && a->admitted == b->admitted &&
                        a->first == b->first && a->finished == b->finished);
        }
    }
    pb_adapter_free(shapes[0]);
    pb_adapter_free(shapes[1]);
    pb_model_close(m);
}

// ---------------------------------------------------------------- loads

// All adapters are asked for at once: number i comes after i + 1 times the latency and the bytes.
static void test_loads(void **state)
{
    (void)state;
    static const pb_server_limits l = {
        .slots = 8, .beam = 1, .positions = 8, .rows = 16, .queue = 8};
    pb_simulation *sim;
    pb_server *server;
    pb_store store = {0};
    pb_due due[8] = {{.at = 0}};
    pb_request r[8];
    double step = 1e-9;
    OK(pb_simulation_new(&sim, &l, constant, &step, &store, 8, (pb_disk){2e-3, 1e6}));
    OK(pb_store_init(&store, 8, SIZE_MAX, pb_simulation_loader(sim)));
    for (size_t i = 0; i < 8; i++) {
        store.tenant[i].bytes = 3000;
        r[i] = (pb_request){.n_prompt = 1, .max_new = 1, .tenant = (int)i, .fixed = true};
    }
    OK(pb_server_new(&server, &l, pb_simulation_engine(sim), &store));
    pb_session s = {.server = server,
                    .engine = pb_simulation_engine(sim),
                    .store = &store,
                    .due = due,
                    .request = r,
                    .n = 8};
    OK(pb_session_run(&s));
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(r[i].admitted - r[i].scheduled, (int64_t)(i + 1) * 5000000);
    assert_true(fabs(pb_simulation_loading(sim) - 8 * 5e-3) < 1e-9);
    pb_server_free(server);
    pb_store_free(&store);
    pb_simulation_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_queue),
                                       cmocka_unit_test(test_same_as_model),
                                       cmocka_unit_test(test_loads)};
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove);
}
