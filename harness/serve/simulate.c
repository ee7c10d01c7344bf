#include "serve/simulate.h"

#include <math.h>
#include <stdlib.h>

struct pb_simulation {
    pb_engine engine;
    pb_loader loader;
    double (*seconds)(void *self, const pb_work *w);
    void *self;
    const pb_store *store;
    pb_disk disk;
    int64_t now, loading; // ns
    size_t beams;         // of a lane
    pb_beam *beam;        // (slots, beams)
    // A queue with room for all tenants: what is on its way, in order.
    pb_arrival *coming;
    size_t room, first, n;
};

static int64_t ns_of(double seconds)
{
    return (int64_t)llround(1e9 * seconds);
}

// ---------------------------------------------------------------- the engine

static void begin(void *self, pb_lane *l)
{
    pb_simulation *s = self;
    l->open = s->beam + l->number * s->beams;
    l->n = 1;
    for (size_t k = 0; k < l->n_slots; k++)
        l->open[k] = (pb_beam){.at = k};
}

static void run(void *self, const pb_work *w)
{
    pb_simulation *s = self;
    s->now += ns_of(s->seconds(s->self, w));
}

static bool advance(void *self, pb_lane *l, size_t first)
{
    (void)self, (void)first;
    l->n = l->n_slots;
    l->request->n_out = l->request->n_steps;
    return l->request->n_steps == l->request->max_new;
}

static int64_t now(void *self)
{
    return ((pb_simulation *)self)->now;
}

static void wait(void *self, int64_t until)
{
    pb_simulation *s = self;
    if (s->n && s->coming[s->first].ready < until)
        until = s->coming[s->first].ready;
    if (until > s->now)
        s->now = until;
}

// ---------------------------------------------------------------- the loader

static void load(void *self, size_t tenant)
{
    pb_simulation *s = self;
    size_t last = (s->first + s->n + s->room - 1) % s->room;
    int64_t begun = s->n && s->coming[last].ready > s->now ? s->coming[last].ready : s->now;
    int64_t takes =
        ns_of(s->disk.latency + (double)s->store->tenant[tenant].bytes / s->disk.bandwidth);
    s->coming[(s->first + s->n++) % s->room] =
        (pb_arrival){.tenant = tenant, .asked = s->now, .begun = begun, .ready = begun + takes};
    s->loading += takes;
}

static bool arrived(void *self, pb_arrival *out)
{
    pb_simulation *s = self;
    if (!s->n || s->coming[s->first].ready > s->now)
        return false;
    *out = s->coming[s->first];
    s->first = (s->first + 1) % s->room;
    s->n--;
    return true;
}

// ---------------------------------------------------------------- set-up

pb_err pb_simulation_new(pb_simulation **out, const pb_server_limits *l,
                         double (*seconds)(void *self, const pb_work *w), void *self,
                         const pb_store *store, size_t tenants, pb_disk disk)
{
    pb_simulation *s = *out = calloc(1, sizeof *s);
    if (!s)
        return pb_fail(PB_MEMORY, NULL, "no memory for a simulation");
    s->engine = (pb_engine){s, begin, run, advance, now, wait};
    s->loader = (pb_loader){.self = s, .load = load, .arrived = arrived};
    s->seconds = seconds;
    s->self = self;
    s->store = store;
    s->disk = disk;
    s->beams = l->beam;
    s->room = tenants + 1;
    s->beam = calloc(l->slots * l->beam, sizeof *s->beam);
    s->coming = malloc(s->room * sizeof *s->coming);
    if (s->beam && s->coming)
        return PB_OK;
    pb_simulation_free(s);
    *out = NULL;
    return pb_fail(PB_MEMORY, NULL, "no memory for %zu slots and %zu tenants", l->slots, tenants);
}

void pb_simulation_free(pb_simulation *s)
{
    if (!s)
        return;
    free(s->beam);
    free(s->coming);
    free(s);
}

const pb_engine *pb_simulation_engine(pb_simulation *s)
{
    return &s->engine;
}

const pb_loader *pb_simulation_loader(pb_simulation *s)
{
    return &s->loader;
}

double pb_simulation_loading(const pb_simulation *s)
{
    return 1e-9 * (double)s->loading;
}
