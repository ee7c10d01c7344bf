// The floors of the performance page: the works that it names, one after the other.
#include "bench/internal.h"

#include <string.h>

// What is measured on a geometry; on one that the page does not name, everything.
static const struct plan {
    const char *geometry;
    bool prefill, train, full, decode;
} plans[] = {
    {"A", true, true, false, true},
    {"B", false, true, true, true},
    {"C", false, false, false, false}, // tenants alone
    {NULL, true, true, true, true},
};

static void methods(pb_bench *b, const char *const *names)
{
    for (b->n_methods = 0; names[b->n_methods]; b->n_methods++)
        b->method[b->n_methods] = names[b->n_methods];
}

static pb_err geometry_floors(const pb_bench *all, const char *geometry)
{
    static const char *const trained[] = {"lora", "ia3", "pedro", "prefix", "full", NULL};
    static const char *const served[] = {"lora", "ia3", "pedro", NULL};
    pb_bench one = *all;
    const struct plan *p = plans;
    while (p->geometry && strcmp(p->geometry, geometry))
        p++;
    one.geometry[0] = geometry;
    one.n_geometries = 1;
    if (p->prefill) {
        one.weights = "fp32";
        PB_TRY(pb_bench_prefill(&one));
    }
    one.weights = NULL;
    methods(&one, trained);
    one.n_methods -= !p->full;
    if (p->train)
        PB_TRY(pb_bench_train(&one));
    if (p->decode)
        PB_TRY(pb_bench_decode(&one));
    methods(&one, served);
    PB_TRY(pb_bench_tenants(&one));
    return pb_bench_barriers(&one);
}

pb_err pb_bench_floors(pb_bench *b)
{
    for (size_t g = 0; g < b->n_geometries; g++)
        PB_TRY(geometry_floors(b, b->geometry[g]));
    return PB_OK;
}
