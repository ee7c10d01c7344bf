// A thread that brings tenants' adapters into memory while steps go on, and frees those that leave.
#ifndef PB_SERVE_LOADER_H
#define PB_SERVE_LOADER_H

#include "serve/store.h"

// Where adapters come from: makes tenant number `tenant`'s, ready to be served. Called from the
// loader's thread.
typedef struct pb_adapter_source {
    void *self;
    pb_err (*load)(void *self, size_t tenant, pb_adapter **out);
    // (tenants): an adapter of the shape that its own must have (pb_step_seat); others are refused.
    pb_adapter *const *shape_of;
} pb_adapter_source;

typedef struct pb_thread_loader pb_thread_loader;

pb_err pb_thread_loader_new(pb_thread_loader **out, size_t tenants, const pb_adapter_source *from);
// Waits for the load that is going on; drops what nobody fetched.
void pb_thread_loader_free(pb_thread_loader *l);
const pb_loader *pb_thread_loader_get(pb_thread_loader *l);
// What the first load that failed said, or "".
const char *pb_thread_loader_error(const pb_thread_loader *l);

#endif
