#include "core/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

static size_t number_in(const char *path, const char *format, size_t unit)
{
    char line[256];
    size_t n = SIZE_MAX;
    FILE *f = fopen(path, "r");
    if (!f)
        return SIZE_MAX;
    while (n == SIZE_MAX && fgets(line, sizeof line, f))
        if (sscanf(line, format, &n) != 1)
            n = SIZE_MAX;
    fclose(f);
    return n < SIZE_MAX / unit ? n * unit : SIZE_MAX;
}

size_t pb_memory_available(void)
{
    size_t machine = number_in("/proc/meminfo", "MemAvailable: %zu kB", 1024);
    size_t most = number_in("/sys/fs/cgroup/memory.max", "%zu", 1);
    size_t used = number_in("/sys/fs/cgroup/memory.current", "%zu", 1);
    size_t group = most == SIZE_MAX || used == SIZE_MAX ? SIZE_MAX : most > used ? most - used : 0;
    return machine < group ? machine : group;
}

size_t pb_memory_peak(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (size_t)u.ru_maxrss * 1024;
}
