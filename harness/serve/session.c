#include "serve/session.h"

#include "core/log.h"

typedef struct run {
    pb_session *s;
    size_t known; // requests whose time is known
} run;

static void left(void *self, pb_request *r)
{
    run *u = self;
    pb_session *s = u->s;
    if (s->clients && u->known < s->n)
        s->request[u->known++].scheduled = r->finished;
    if (s->done)
        s->done(s->self, r);
}

static int64_t clock_of(const pb_session *s)
{
    return s->engine->now(s->engine->self);
}

// When the next request is due; INT64_MAX: none will be, or not before another one leaves.
static int64_t next_due(const run *u)
{
    const pb_session *s = u->s;
    if (s->submitted == u->known)
        return INT64_MAX;
    int64_t at = s->request[s->submitted].scheduled;
    return s->stop_after && at - s->start >= s->stop_after ? INT64_MAX : at;
}

static pb_err submit_due(run *u)
{
    pb_session *s = u->s;
    while (next_due(u) <= clock_of(s)) {
        pb_request *r = &s->request[s->submitted];
        if (s->submitted == s->warm_up)
            s->counted = r->scheduled;
        pb_err err = pb_server_submit(s->server, r);
        if (err)
            return pb_context(err, "request %zu", s->submitted);
        s->submitted++;
    }
    return PB_OK;
}

static pb_err loop(run *u)
{
    pb_session *s = u->s;
    for (;;) {
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted after %zu of %zu requests",
                           s->submitted, s->n);
        PB_TRY(submit_due(u));
        int64_t begin = clock_of(s);
        size_t waiting = pb_server_waiting(s->server);
        const pb_work *w = pb_server_step(s->server);
        if (w && s->step)
            s->step(s->self, w, begin, clock_of(s));
        if (w || pb_server_waiting(s->server) != waiting)
            continue;
        int64_t due = next_due(u);
        if (due == INT64_MAX && !pb_server_waiting(s->server))
            return PB_OK;
        if (due == INT64_MAX && !(s->store && s->store->coming))
            return pb_fail(PB_INTERNAL, NULL, "%zu requests wait for nothing",
                           pb_server_waiting(s->server));
        s->engine->wait(s->engine->self, due);
    }
}

pb_err pb_session_run(pb_session *s)
{
    run u = {s, s->clients && s->clients < s->n ? s->clients : s->n};
    s->submitted = 0;
    s->counted = 0;
    s->start = clock_of(s);
    for (size_t i = 0; i < s->n; i++)
        s->request[i].scheduled = s->start + (s->clients ? 0 : s->due[i].at);
    pb_server_on_done(s->server, left, &u);
    pb_err err = loop(&u);
    s->end = clock_of(s);
    pb_server_clear(s->server);
    pb_server_on_done(s->server, NULL, NULL);
    return err;
}
