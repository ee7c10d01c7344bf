#include "serve/loader.h"

#include "core/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

// A queue with room for everything that can be in it at once.
typedef struct ring {
    pb_arrival *v;
    size_t first, n, room;
} ring;

struct pb_thread_loader {
    pb_loader face;
    pb_adapter_source from;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, news; // to do; in `come`
    bool started, stop;
    ring asked, come, left; // left: adapters to be freed
    char error[512];
};

static void put(ring *r, pb_arrival a)
{
    r->v[(r->first + r->n++) % r->room] = a;
}

static pb_arrival get(ring *r)
{
    pb_arrival a = r->v[r->first];
    r->first = (r->first + 1) % r->room;
    r->n--;
    return a;
}

static pb_err load_one(pb_thread_loader *l, pb_arrival *a)
{
    PB_TRY(l->from.load(l->from.self, a->tenant, &a->adapter));
    pb_err err = pb_adapter_same_shape(a->adapter, l->from.shape_of[a->tenant]);
    if (err) {
        pb_adapter_free(a->adapter);
        a->adapter = NULL;
    }
    return err;
}

static void *serve(void *self)
{
    pb_thread_loader *l = self;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && !l->asked.n && !l->left.n)
            pthread_cond_wait(&l->work, &l->lock);
        if (l->left.n) {
            pb_arrival a = get(&l->left);
            pthread_mutex_unlock(&l->lock);
            pb_adapter_free(a.adapter);
            pthread_mutex_lock(&l->lock);
            continue;
        }
        if (l->stop)
            break;
        pb_arrival a = get(&l->asked);
        pthread_mutex_unlock(&l->lock);
        a.begun = pb_now_ns();
        pb_err err = load_one(l, &a);
        a.failed = err != PB_OK;
        a.ready = pb_now_ns();
        pthread_mutex_lock(&l->lock);
        if (err && !*l->error)
            snprintf(l->error, sizeof l->error, "tenant %zu: %s", a.tenant, pb_error_message());
        put(&l->come, a);
        pthread_cond_signal(&l->news);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void load(void *self, size_t tenant)
{
    pb_thread_loader *l = self;
    pthread_mutex_lock(&l->lock);
    put(&l->asked, (pb_arrival){.tenant = tenant, .asked = pb_now_ns()});
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
}

static bool arrived(void *self, pb_arrival *out)
{
    pb_thread_loader *l = self;
    pthread_mutex_lock(&l->lock);
    bool any = l->come.n > 0;
    if (any)
        *out = get(&l->come);
    pthread_mutex_unlock(&l->lock);
    return any;
}

static void drop(void *self, pb_adapter *a)
{
    pb_thread_loader *l = self;
    pthread_mutex_lock(&l->lock);
    put(&l->left, (pb_arrival){.adapter = a});
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
}

static void wait(void *self, int64_t until)
{
    pb_thread_loader *l = self;
    struct timespec t = pb_until(until);
    pthread_mutex_lock(&l->lock);
    while (!l->come.n && !pthread_cond_timedwait(&l->news, &l->lock, &t))
        ;
    pthread_mutex_unlock(&l->lock);
}

pb_err pb_thread_loader_new(pb_thread_loader **out, size_t tenants, const pb_adapter_source *from)
{
    pb_err err = PB_OK;
    pb_thread_loader *l = *out = calloc(1, sizeof *l);
    if (!l)
        return pb_fail(PB_MEMORY, NULL, "no memory for a loader");
    l->face = (pb_loader){l, load, arrived, drop, wait};
    l->from = *from;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    // What left is freed before anything is loaded, so that a tenant is in each queue at most once.
    ring *rings[] = {&l->asked, &l->come, &l->left};
    for (size_t i = 0; i < 3 && !err; i++) {
        rings[i]->room = tenants + 1;
        rings[i]->v = malloc(rings[i]->room * sizeof *rings[i]->v);
        if (!rings[i]->v)
            err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", tenants);
    }
    if (!err && pthread_create(&l->thread, NULL, serve, l))
        err = pb_fail(PB_IO, NULL, "cannot start the thread that loads adapters");
    l->started = !err;
    if (err) {
        pb_thread_loader_free(l);
        *out = NULL;
    }
    return err;
}

void pb_thread_loader_free(pb_thread_loader *l)
{
    if (!l)
        return;
    if (l->started) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->work);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    while (l->come.n)
        pb_adapter_free(get(&l->come).adapter);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->news);
    pthread_mutex_destroy(&l->lock);
    free(l->asked.v);
    free(l->come.v);
    free(l->left.v);
    free(l);
}

const pb_loader *pb_thread_loader_get(pb_thread_loader *l)
{
    return &l->face;
}

const char *pb_thread_loader_error(const pb_thread_loader *l)
{
    return l->error;
}
