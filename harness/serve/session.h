// A session: a drawn schedule of requests, run through a server until the last one has left.
//
// Open loop: a request is submitted at the first step after it was due, whatever the state of the
// server. Closed loop: the first requests, one for each client, are due at the start, and each
// later one when a client has its answer to the one before. `scheduled` of a request is when it was
// due; latencies count from there, so that time in which the server was too busy to take a request
// is not forgotten.
//
// Clock and waiting are the engine's: the same session runs a model, or a simulation of its time.
#ifndef PB_SERVE_SESSION_H
#define PB_SERVE_SESSION_H

#include "serve/server.h"
#include "serve/workload.h"

typedef struct pb_session {
    pb_server *server;
    const pb_engine *engine; // the server's
    const pb_store *store;   // the server's, or NULL
    const pb_due *due;       // (n), in order of time
    pb_request *request;     // (n), complete but for `scheduled`
    size_t n;
    size_t clients;     // of a closed loop; 0: open
    size_t warm_up;     // requests that count for no figure, the first ones
    int64_t stop_after; // ns: requests due later are not submitted; 0: all are
    // May be NULL. After every step, with the time it took, and for every request that leaves.
    void (*step)(void *self, const pb_work *w, int64_t begin, int64_t end);
    void (*done)(void *self, const pb_request *r);
    void *self;
    // Filled in, also after an error; the clock is the engine's:
    size_t submitted;            // requests; those behind have no times
    int64_t start, counted, end; // counted: when the first request behind the warm-up was due, or 0
} pb_session;

// Allocates nothing. PB_INTERRUPTED after Ctrl-C, when requests may still be waiting or running;
// the server forgets them.
pb_err pb_session_run(pb_session *s);

#endif
