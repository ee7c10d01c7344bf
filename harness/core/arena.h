// Arenas: one block of memory per life (model, tenant, training, step), handed out in order.
//
// A measuring arena has no memory and only counts, so that code that allocates can be run dry to
// learn the size it needs. Returned blocks are aligned to 64 bytes and not cleared.
#ifndef PB_CORE_ARENA_H
#define PB_CORE_ARENA_H

#include "core/error.h"
#include <stddef.h>

#pragma GCC visibility push(default)

typedef struct pb_arena {
    char *base; // NULL while measuring
    size_t size, used, peak;
    const char *name;
} pb_arena;

// Reserves `size` bytes; size 0 makes a measuring arena.
pb_err pb_arena_init(pb_arena *a, const char *name, size_t size);
void pb_arena_free(pb_arena *a);

// In a measuring arena returns a non-NULL address that must not be touched. An exhausted arena is a
// defect of the sizing and ends the program with a message: a step cannot fail.
void *pb_alloc(pb_arena *a, size_t n, size_t elem);
#define PB_NEW(arena, type, n) ((type *)pb_alloc(arena, n, sizeof(type)))

// Everything allocated after `mark` is given back.
static inline size_t pb_mark(const pb_arena *a)
{
    return a->used;
}
static inline void pb_release(pb_arena *a, size_t mark)
{
    a->used = mark;
}

#pragma GCC visibility pop

#endif
