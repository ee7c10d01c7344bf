#include "core/threads.h"

#include <errno.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int count;
static bool bound;

pb_err pb_threads_set(int n)
{
    const char *env = getenv("PB_THREADS");
    if (n == 0 && env) {
        char *end;
        errno = 0;
        long v = strtol(env, &end, 10);
        if (errno || *end || end == env || v < 1 || v > 1024)
            return pb_fail(PB_USAGE, NULL, "PB_THREADS is \"%s\", not a number in 1..1024", env);
        n = (int)v;
    }
    if (n < 0 || n > 1024)
        return pb_fail(PB_USAGE, NULL, "%d threads asked for; 1..1024 are possible", n);
    count = n ? n : omp_get_num_procs();
    omp_set_dynamic(0);
    omp_set_num_threads(count);
    return PB_OK;
}

int pb_threads(void)
{
    if (!count)
        (void)pb_threads_set(0);
    return count ? count : 1;
}

// The lowest processor of the same core, or `cpu` if the system does not say.
static int first_of_core(int cpu)
{
    char path[96];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%d", &first) != 1)
            first = cpu;
        fclose(f);
    }
    return first;
}

void pb_threads_bind(void)
{
    static const char *const placed[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"};
    cpu_set_t allowed;
    int cpu[CPU_SETSIZE], n = 0, threads = pb_threads(), failed = 0;
    for (size_t i = 0; i < sizeof placed / sizeof *placed; i++)
        if (getenv(placed[i]))
            return;
    if (sched_getaffinity(0, sizeof allowed, &allowed) || threads > CPU_COUNT(&allowed))
        return;
    for (int more = 0; more < 2; more++) // one processor of each core, then the others
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &allowed) && (first_of_core(i) != i) == more)
                cpu[n++] = i;
#pragma omp parallel num_threads(threads) reduction(+ : failed)
    if (omp_get_thread_num() > 0) {
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(cpu[omp_get_thread_num()], &own);
        failed += sched_setaffinity(0, sizeof own, &own) != 0;
    }
    bound = threads > 1 && !failed;
}

bool pb_threads_bound(void)
{
    return bound;
}

void pb_threads_restart(char **argv)
{
    char self[4096];
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || setenv("GOMP_SPINCOUNT", "30000", 1) || setenv(PB_SPINCOUNT_OURS, "1", 1))
        return;
    self[n] = 0;
    execv(self, argv); // if it fails, the program goes on as it is
}
