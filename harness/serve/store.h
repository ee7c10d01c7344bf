// Which tenants' adapters are in memory: a limit on their bytes, and the least recently used one
// leaves when another is needed.
//
// An adapter that a request needs is pinned: it comes in, if it is not there, and stays until it is
// released as often as it was pinned. Who brings adapters in is behind pb_loader: a thread that
// reads folders, or a simulation. All functions belong to one thread; none allocates, waits or
// fails, except those of set-up.
#ifndef PB_SERVE_STORE_H
#define PB_SERVE_STORE_H

#include "model/adapter.h"

#include <stdint.h>

typedef enum pb_place { PB_ABSENT, PB_LOADING, PB_READY, PB_BROKEN } pb_place;

// An adapter that has come in, or not: `adapter` is NULL when it could not be loaded, or when there
// is none (a simulation); then `failed` tells.
typedef struct pb_arrival {
    size_t tenant;
    pb_adapter *adapter;
    bool failed;
    int64_t asked, begun, ready; // ns
} pb_arrival;

typedef struct pb_loader {
    void *self;
    void (*load)(void *self, size_t tenant); // begins to; never more than one per tenant at a time
    bool (*arrived)(void *self, pb_arrival *out); // the next that has come in, if any
    void (*drop)(void *self, pb_adapter *a);      // takes it over, to be freed
    // Returns when something has come in, at `until` of pb_now_ns, or after a moment, in which
    // signals are looked at. A simulation, whose engine has the clock, does not need it.
    void (*wait)(void *self, int64_t until);
} pb_loader;

typedef struct pb_tenant {
    size_t bytes; // of its adapter in memory
    size_t shape; // which of the shapes it has, see pb_step_seat
    bool whole;   // its method reads prompts as a whole
    // The store's own:
    pb_place place;
    pb_adapter *adapter;
    uint32_t pins;
    uint32_t newer, older; // neighbours among those that may leave
    uint64_t touched;      // the step it was last in
} pb_tenant;

typedef struct pb_store {
    pb_tenant *tenant;         // (n)
    size_t n, limit;           // limit: bytes
    const pb_loader *loader;   // NULL: everything is there from the beginning
    size_t used, pinned, peak; // bytes
    size_t loads, evictions, failures;
    size_t coming;           // adapters on their way
    uint32_t newest, oldest; // may leave; UINT32_MAX: none
    // May be NULL: called when an adapter has come in.
    void (*on_arrival)(void *self, const pb_arrival *a);
    void *self;
} pb_store;

// Room for n tenants, whose public fields the caller fills in before the first step.
pb_err pb_store_init(pb_store *s, size_t n, size_t limit, const pb_loader *loader);
void pb_store_free(pb_store *s); // and drops or frees what the loader brought

// An adapter that is in memory from the beginning. It may leave like any other if there is a
// loader, which then owns it; else it stays the caller's.
void pb_store_put(pb_store *s, size_t tenant, pb_adapter *a);

// Pins a tenant's adapter; when it is absent, it begins to come in. False: no room for it now.
bool pb_store_pin(pb_store *s, size_t tenant);
void pb_store_release(pb_store *s, size_t tenant);
// Takes in what has arrived.
void pb_store_poll(pb_store *s);

#endif
