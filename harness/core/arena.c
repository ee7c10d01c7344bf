#include "core/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

pb_err pb_arena_init(pb_arena *a, const char *name, size_t size)
{
    *a = (pb_arena){.name = name, .size = size};
    if (!size)
        return PB_OK;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        a->size = 0;
        return pb_fail(PB_MEMORY, "use smaller batches or a smaller model",
                       "cannot reserve %.1f MiB for the %s arena", (double)size / 1048576, name);
    }
    if (size >= (size_t)4 << 20)
        madvise(p, size, MADV_HUGEPAGE);
    a->base = p;
    return PB_OK;
}

void pb_arena_free(pb_arena *a)
{
    if (a->base)
        munmap(a->base, a->size);
    *a = (pb_arena){0};
}

void *pb_alloc(pb_arena *a, size_t n, size_t elem)
{
    size_t start = (a->used + 63) & ~(size_t)63, bytes;
    if (__builtin_mul_overflow(n, elem, &bytes) || __builtin_add_overflow(start, bytes, &a->used) ||
        (a->base && a->used > a->size)) {
        fprintf(stderr, "defect: the %s arena of %zu bytes was sized too small\n", a->name,
                a->size);
        abort();
    }
    if (a->used > a->peak)
        a->peak = a->used;
    return a->base ? a->base + start : (void *)(uintptr_t)(start + 64);
}
