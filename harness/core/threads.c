#include "core/threads.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

static int count;

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

void pb_threads_restart(char **argv)
{
    char self[4096];
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || setenv("GOMP_SPINCOUNT", "10000", 1) || setenv(PB_SPINCOUNT_OURS, "1", 1))
        return;
    self[n] = 0;
    execv(self, argv); // if it fails, the program goes on as it is
}
