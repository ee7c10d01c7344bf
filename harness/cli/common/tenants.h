// The tenants of a served workload. Tenant t has an adapter of kind t % kinds: of a method at a
// budget, or one that was trained. Values of the former are random, since time does not depend on
// them.
//
// Without a limit on memory all adapters are there from the beginning. With one, they lie in
// folders, which a thread loads as they are needed.
#ifndef PB_CLI_TENANTS_H
#define PB_CLI_TENANTS_H

#include "serve/loader.h"

enum { PB_MOST_KINDS = 64 };

typedef struct pb_tenant_kind {
    char name[128];          // the method's; with several budgets "lora 1%"; a folder's name
    const pb_method *method; // NULL: the bare backbone
    void *options;
    pb_adapter *shape;
    const char *folder; // of a trained adapter, or NULL
    size_t trainable;
} pb_tenant_kind;

typedef struct pb_tenants {
    const pb_model *model;
    uint64_t seed;
    size_t n, n_kinds, n_shapes;
    pb_tenant_kind kind[PB_MOST_KINDS];
    pb_adapter *shape[PB_MOST_KINDS]; // (n_shapes): those of the kinds that have one
    pb_adapter **adapter;             // (n), without a limit
    pb_adapter **shape_of;            // (n)
    char folder[4096];                // of what was written, or ""
    pb_thread_loader *loader;
    pb_store store;
} pb_tenants;

// Kinds, before the tenants. `name` is a method's, or "base" for the bare backbone; `set` (may be
// NULL) an object of option values as text. A method with a knob that is not set is solved for the
// budget; `label` is what tells the budget from others, or "".
pb_err pb_tenants_add(pb_tenants *t, const char *name, const json_t *set, const char *budget,
                      const char *label);
pb_err pb_tenants_add_folder(pb_tenants *t, const char *folder);

// Makes n tenants; `limit` in bytes, or SIZE_MAX. With a limit, only the adapters of tenants that
// will be asked for are written: asked (n). Reports progress.
pb_err pb_tenants_make(pb_tenants *t, size_t n, size_t limit, const bool *asked);
void pb_tenants_free(pb_tenants *t);

static inline const pb_tenant_kind *pb_tenants_kind(const pb_tenants *t, size_t tenant)
{
    return &t->kind[tenant % t->n_kinds];
}

#endif
