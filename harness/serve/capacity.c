#include "serve/capacity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What a session needs, and what its steps are charged to.
typedef struct rig {
    const pb_fleet *f;
    pb_fleet_day *day;
    pb_rng rng;
    pb_cost_run run;
    pb_store store;
    pb_simulation *sim;
    pb_server *server;
    pb_due *due;
    pb_request *request;
    int64_t ended; // the last step, ns
} rig;

static double seconds(void *self, const pb_work *w)
{
    rig *g = self;
    const pb_fleet *f = g->f;
    pb_fleet_day *d = g->day;
    double x[PB_COST_TERMS], by[PB_RESOURCES], factor = 1;
    const pb_engine *engine = pb_simulation_engine(g->sim);
    int64_t now = engine->now(engine->self);
    pb_cost_terms(x, &f->sizes, w, 1e-9 * (double)(now - g->ended));
    double t = pb_cost_seconds(f->cost, f->group, x, &f->machine, by);
    if (f->noise)
        factor = pb_cost_draw(f->cost, f->group,
                              pb_cost_seconds(f->cost, f->group, x, &PB_SAME_MACHINE, NULL),
                              &g->run, &g->rng);
    for (int k = 0; k < PB_RESOURCES; k++)
        d->by[k] += factor * by[k];
    if (pb_server_running(g->server) == f->limits.slots && pb_server_waiting(g->server))
        d->full += factor * t;
    d->rows += (double)w->batch.n_rows;
    d->steps++;
    g->ended = now + (int64_t)(1e9 * factor * t);
    return factor * t;
}

static void fill_store(rig *g)
{
    const pb_fleet *f = g->f;
    size_t n = 0, bytes = 0;
    for (size_t i = 0; f->n_bytes && i < f->tenants; i++)
        g->store.tenant[i] = (pb_tenant){.bytes = f->bytes[i % f->n_bytes],
                                         .whole = f->whole && f->whole[i % f->n_bytes]};
    while (f->filled && n < f->tenants && bytes + g->store.tenant[n].bytes <= f->memory)
        bytes += g->store.tenant[n++].bytes;
    while (n) // the first one leaves last
        pb_store_put(&g->store, --n, NULL);
}

static pb_err rig_up(rig *g, const pb_traffic *t, double faster)
{
    const pb_fleet *f = g->f;
    size_t tenants = f->n_bytes ? f->tenants : 0, tokens = 0;
    pb_serving *v = &g->day->serving;
    for (size_t i = 0; i < t->n; i++)
        tokens += t->due[i].output;
    g->rng = pb_rng_make(f->seed, PB_STREAM_STATS, 1);
    g->due = malloc((t->n + 1) * sizeof *g->due);
    g->request = calloc(t->n + 1, sizeof *g->request);
    v->request = calloc(t->n + 1, sizeof *v->request);
    v->token_ns = malloc((tokens + 1) * sizeof *v->token_ns);
    v->about = json_pack("{s:I}", "warm_up", (json_int_t)t->warm_up);
    if (!g->due || !g->request || !v->request || !v->token_ns || !v->about)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", t->n);
    PB_TRY(pb_simulation_new(&g->sim, &f->limits, seconds, g, &g->store, tenants, f->disk));
    PB_TRY(pb_store_init(&g->store, tenants, f->memory, pb_simulation_loader(g->sim)));
    fill_store(g);
    PB_TRY(pb_server_new(&g->server, &f->limits, pb_simulation_engine(g->sim), &g->store));
    for (size_t i = 0; i < t->n; i++) {
        const pb_due *d = &t->due[i];
        g->due[i] = *d;
        g->due[i].at = (int64_t)((double)d->at / faster);
        g->request[i] = (pb_request){.n_prompt = d->prompt,
                                     .max_new = d->output,
                                     .tenant = tenants ? (int)d->tenant : -1,
                                     .how = t->how,
                                     .fixed = true,
                                     .token_ns = v->token_ns + v->n_tokens};
        v->n_tokens += d->output;
    }
    return PB_OK;
}

static void rig_down(rig *g)
{
    pb_server_free(g->server);
    pb_store_free(&g->store);
    pb_simulation_free(g->sim);
    free(g->due);
    free(g->request);
}

// The requests as result files hold them. Token times of those that were not served are passed
// over.
static void take_requests(pb_fleet_day *d, const pb_request *r, size_t n)
{
    pb_serving *v = &d->serving;
    v->n_requests = n;
    v->n_tokens = 0;
    for (size_t i = 0; i < n; i++) {
        v->request[i] = (pb_served){.tenant = r[i].tenant,
                                    .prompt = (int64_t)r[i].n_prompt,
                                    .output = (int64_t)r[i].max_new,
                                    .scheduled = r[i].scheduled,
                                    .queued = r[i].queued,
                                    .admitted = r[i].admitted,
                                    .first = r[i].first,
                                    .last = r[i].finished,
                                    .finished = r[i].finished,
                                    .n_out = (int64_t)r[i].n_out,
                                    .steps = (int64_t)r[i].n_steps,
                                    .outcome = (int64_t)r[i].outcome};
        memmove(v->token_ns + v->n_tokens, r[i].token_ns, r[i].n_steps * sizeof *v->token_ns);
        v->n_tokens += r[i].n_steps;
        d->served += r[i].outcome == PB_SERVED;
        d->lost += r[i].outcome != PB_SERVED;
    }
}

void pb_fleet_day_free(pb_fleet_day *day)
{
    json_decref(day->serving.about);
    free(day->serving.request);
    free(day->serving.token_ns);
    *day = (pb_fleet_day){0};
}

pb_err pb_fleet_run(const pb_fleet *f, const pb_traffic *t, double faster, pb_fleet_day *day)
{
    pb_err err = PB_OK;
    rig g = {.f = f, .day = day};
    *day = (pb_fleet_day){0};
    PB_GO(rig_up(&g, t, faster));
    pb_session s = {.server = g.server,
                    .engine = pb_simulation_engine(g.sim),
                    .store = &g.store,
                    .due = g.due,
                    .request = g.request,
                    .n = t->n,
                    .clients = t->clients,
                    .warm_up = t->warm_up};
    PB_GO(pb_session_run(&s));
    take_requests(day, g.request, t->n);
    day->loads = g.store.loads;
    day->seconds = 1e-9 * (double)(s.end - s.start);
    day->loading = pb_simulation_loading(g.sim);
done:
    rig_down(&g);
    return err;
}

// ---------------------------------------------------------------- the largest rate

pb_err pb_within(bool *yes, const pb_limit *l, const pb_fleet_day *day)
{
    *yes = !day->lost;
    for (int k = 0; k < PB_SERVING_MEASURES && *yes; k++) {
        double *v;
        size_t n;
        if (!(l->most[k] > 0))
            continue;
        PB_TRY(pb_serving_samples(&v, &n, &day->serving, k, -1));
        *yes = !n || pb_percentile(v, n, l->quantile) <= l->most[k];
        free(v);
    }
    return PB_OK;
}

pb_err pb_fleet_fastest(double *faster, const pb_fleet *f, const pb_traffic *t, const pb_limit *l,
                        pb_fleet_day *day)
{
    enum { MOST = 60 }; // halvings
    pb_fleet patient = *f;
    bool yes = false;
    double lo = 0;
    patient.limits.queue = t->n;
    // All at once: nothing goes through faster than this.
    PB_TRY(pb_fleet_run(&patient, t, INFINITY, day));
    double hi = 1e-9 * (double)t->due[t->n - 1].at / day->seconds, least = 1e-4 * hi;
    for (int i = 0; i < MOST && hi > 1.005 * lo && hi > least; i++) {
        double mid = lo > 0 ? sqrt(lo * hi) : hi / 2;
        pb_fleet_day_free(day);
        PB_TRY(pb_fleet_run(&patient, t, mid, day));
        PB_TRY(pb_within(&yes, l, day));
        *(yes ? &lo : &hi) = mid;
    }
    *faster = lo;
    pb_fleet_day_free(day);
    return pb_fleet_run(&patient, t, lo > 0 ? lo : least, day);
}
