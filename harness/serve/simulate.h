// A server whose time is simulated: the same scheduler and store, with an engine that computes
// nothing and a loader that brings nothing. The clock goes on by what a step takes, and by waiting.
//
// A response has the length that was asked for. Adapters come in one after the other, each after
// a latency and its bytes at the disk's bandwidth; steps do not slow that down, nor the reverse.
#ifndef PB_SERVE_SIMULATE_H
#define PB_SERVE_SIMULATE_H

#include "serve/server.h"

typedef struct pb_disk {
    double latency, bandwidth; // seconds for one adapter, bytes per second
} pb_disk;

typedef struct pb_simulation pb_simulation;

// `seconds` says what a step takes. `store` (or NULL) need not be filled in yet. All outlive it.
pb_err pb_simulation_new(pb_simulation **out, const pb_server_limits *l,
                         double (*seconds)(void *self, const pb_work *w), void *self,
                         const pb_store *store, size_t tenants, pb_disk disk);
void pb_simulation_free(pb_simulation *s);
const pb_engine *pb_simulation_engine(pb_simulation *s);
const pb_loader *pb_simulation_loader(pb_simulation *s);
double pb_simulation_loading(const pb_simulation *s); // seconds in which the disk was busy

#endif
