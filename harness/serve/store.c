#include "serve/store.h"

#include <stdlib.h>

#define NOBODY UINT32_MAX

pb_err pb_store_init(pb_store *s, size_t n, size_t limit, const pb_loader *loader)
{
    *s = (pb_store){.n = n, .limit = limit, .loader = loader, .newest = NOBODY, .oldest = NOBODY};
    s->tenant = calloc(n + 1, sizeof *s->tenant);
    return s->tenant ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", n);
}

void pb_store_free(pb_store *s)
{
    for (size_t i = 0; s->loader && i < s->n; i++)
        if (s->tenant[i].adapter)
            s->loader->drop(s->loader->self, s->tenant[i].adapter);
    free(s->tenant);
    *s = (pb_store){0};
}

// ---------------------------------------------------------------- who may leave

static void join(pb_store *s, uint32_t i)
{
    pb_tenant *t = &s->tenant[i];
    t->older = s->newest;
    t->newer = NOBODY;
    if (s->newest == NOBODY)
        s->oldest = i;
    else
        s->tenant[s->newest].newer = i;
    s->newest = i;
}

static void part(pb_store *s, uint32_t i)
{
    pb_tenant *t = &s->tenant[i];
    if (t->newer == NOBODY)
        s->newest = t->older;
    else
        s->tenant[t->newer].older = t->older;
    if (t->older == NOBODY)
        s->oldest = t->newer;
    else
        s->tenant[t->older].newer = t->newer;
}

static void evict_oldest(pb_store *s)
{
    uint32_t i = s->oldest;
    pb_tenant *t = &s->tenant[i];
    part(s, i);
    if (t->adapter)
        s->loader->drop(s->loader->self, t->adapter);
    t->adapter = NULL;
    t->place = PB_ABSENT;
    s->used -= t->bytes;
    s->evictions++;
}

static void take(pb_store *s, size_t bytes)
{
    s->used += bytes;
    s->peak = s->used > s->peak ? s->used : s->peak;
}

// ---------------------------------------------------------------- pins

void pb_store_put(pb_store *s, size_t tenant, pb_adapter *a)
{
    pb_tenant *t = &s->tenant[tenant];
    t->adapter = a;
    t->place = PB_READY;
    take(s, t->bytes);
    join(s, (uint32_t)tenant);
}

bool pb_store_pin(pb_store *s, size_t tenant)
{
    pb_tenant *t = &s->tenant[tenant];
    if (!t->pins && (t->place == PB_READY || t->place == PB_ABSENT)) {
        if (s->loader && s->pinned + t->bytes > s->limit)
            return false;
        if (t->place == PB_READY) {
            part(s, (uint32_t)tenant);
        } else {
            while (s->used + t->bytes > s->limit)
                evict_oldest(s);
            take(s, t->bytes);
            t->place = PB_LOADING;
            s->loads++;
            s->coming++;
            s->loader->load(s->loader->self, tenant);
        }
        s->pinned += t->bytes;
    }
    t->pins++;
    return true;
}

void pb_store_release(pb_store *s, size_t tenant)
{
    pb_tenant *t = &s->tenant[tenant];
    if (--t->pins || t->place != PB_READY) // on its way: until it has come
        return;
    s->pinned -= t->bytes;
    join(s, (uint32_t)tenant);
}

void pb_store_poll(pb_store *s)
{
    pb_arrival a;
    while (s->loader && s->loader->arrived(s->loader->self, &a)) {
        pb_tenant *t = &s->tenant[a.tenant];
        s->coming--;
        t->adapter = a.adapter;
        t->place = a.failed ? PB_BROKEN : PB_READY;
        if (a.failed) { // it takes no room, and is not tried again
            s->failures++;
            s->used -= t->bytes;
            s->pinned -= t->bytes;
        } else if (!t->pins) {
            s->pinned -= t->bytes;
            join(s, (uint32_t)a.tenant);
        }
        if (s->on_arrival)
            s->on_arrival(s->self, &a);
    }
}
