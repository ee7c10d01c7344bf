#include "core/ranks.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef PB_MPI
#include <mpi.h>
#endif

static int rank, ranks = 1;
static const char *told_by = ""; // the variable that told
static size_t sent;
static int own_stderr = -1; // of a rank that is silent

int pb_rank(void)
{
    return rank;
}

int pb_ranks(void)
{
    return ranks;
}

size_t pb_ranks_sent(void)
{
    return sent;
}

size_t pb_ranks_slice(size_t n, int r)
{
    return n / (size_t)ranks * (size_t)r + n % (size_t)ranks * (size_t)r / (size_t)ranks;
}

static void silence(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    own_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (null < 0 || own_stderr < 0)
        return;
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    close(null);
}

void pb_ranks_begin(void)
{
    static const char *const names[][2] = {
        {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, // Open MPI
        {"PMI_SIZE", "PMI_RANK"}};                        // MPICH and its relatives
    for (size_t i = 0; i < sizeof names / sizeof *names && ranks == 1; i++) {
        const char *size = getenv(names[i][0]), *own = getenv(names[i][1]);
        if (!size || atoi(size) < 2)
            continue;
        ranks = atoi(size);
        rank = own ? atoi(own) : 0;
        told_by = names[i][0];
    }
    if (rank > 0)
        silence();
}

#ifndef PB_MPI

const char *pb_ranks_library(void)
{
    return NULL;
}

pb_err pb_ranks_start(bool able)
{
    (void)able;
    return ranks == 1
               ? PB_OK
               : pb_fail(PB_USAGE, "build with -DPB_MPI=ON, or start it without mpirun",
                         "%s is %d, but this build has no MPI: every process would do all of "
                         "the work",
                         told_by, ranks);
}

void pb_ranks_end(pb_err err, void (*show)(void))
{
    if (err && show)
        show();
}

bool pb_ranks_any(bool mine)
{
    return mine;
}

void pb_ranks_sum(double *v, size_t n)
{
    (void)v, (void)n;
}

void pb_ranks_copy(void *v, size_t bytes)
{
    (void)v, (void)bytes;
}

pb_err pb_ranks_same(const char *what, const char *text, const char *hint)
{
    (void)what, (void)text, (void)hint;
    return PB_OK;
}

void pb_ranks_scatter(void *got, const void *v, size_t n, size_t size, int active)
{
    if (active)
        memcpy(got, v, n * size);
}

void pb_ranks_gather(void *v, size_t n, size_t size)
{
    (void)v, (void)n, (void)size;
}

#else

static bool started;
static MPI_Comm ending; // its own, since ranks may end in the middle of the work
static char host[MPI_MAX_PROCESSOR_NAME];
static int *counts; // (4, ranks): to send and where from, to receive and where to

const char *pb_ranks_library(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = 0;
    return text;
}

static void finalize(void)
{
    MPI_Finalize();
}

pb_err pb_ranks_start(bool able)
{
    int n, have;
    if (ranks == 1)
        return PB_OK;
    if (!able)
        return pb_fail(PB_USAGE, "only `train` shares its work; start this without mpirun",
                       "%s is %d, but every process would do all of the work", told_by, ranks);
    counts = calloc(4 * (size_t)ranks, sizeof *counts);
    if (!counts)
        return pb_fail(PB_MEMORY, NULL, "no memory for %d processes", ranks);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &have);
    atexit(finalize);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    if (n != ranks)
        return pb_fail(PB_USAGE, "was it built with the MPI whose mpirun started it?",
                       "%s is %d, but %s has %d processes", told_by, ranks, pb_ranks_library(), n);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_dup(MPI_COMM_WORLD, &ending);
    MPI_Get_processor_name(host, &n);
    started = true;
    return PB_OK;
}

// Whether the request is done within so many seconds, waiting without keeping the processor busy.
static bool done_within(MPI_Request *r, double seconds)
{
    const struct timespec nap = {.tv_nsec = 5000000};
    double end = MPI_Wtime() + seconds;
    int done = 0;
    while (MPI_Test(r, &done, MPI_STATUS_IGNORE), !done && MPI_Wtime() < end)
        nanosleep(&nap, NULL);
    return done;
}

void pb_ranks_end(pb_err err, void (*show)(void))
{
    const double patience = 3; // for the others, who may be at work, or waiting for this one
    MPI_Request r;
    int mine = (int)err;
    if (err && show && (rank == 0 || !started))
        show();
    if (!started)
        return;
    MPI_Iallgather(&mine, 1, MPI_INT, counts, 1, MPI_INT, ending, &r);
    bool all = done_within(&r, err ? patience : 1e9);
    if (err && show && rank > 0 && !(all && counts[0])) {
        dup2(own_stderr, STDERR_FILENO);
        fprintf(stderr, "process %d of %d, on %s: ", rank, ranks, host);
        show();
    }
    if (!all)
        MPI_Abort(MPI_COMM_WORLD, err == PB_USAGE ? 2 : err == PB_INTERRUPTED ? 130 : 1);
}

bool pb_ranks_any(bool mine)
{
    int v = mine;
    if (started)
        MPI_Allreduce(MPI_IN_PLACE, &v, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return v;
}

void pb_ranks_sum(double *v, size_t n)
{
    if (started)
        MPI_Allreduce(MPI_IN_PLACE, v, (int)n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

void pb_ranks_copy(void *v, size_t bytes)
{
    enum { PART = 1 << 30 };
    for (char *p = v; started && bytes;) {
        size_t n = bytes < PART ? bytes : PART;
        MPI_Bcast(p, (int)n, MPI_BYTE, 0, MPI_COMM_WORLD);
        p += n;
        bytes -= n;
    }
}

pb_err pb_ranks_same(const char *what, const char *text, const char *hint)
{
    char first[512], name[MPI_MAX_PROCESSOR_NAME];
    if (!started)
        return PB_OK;
    snprintf(first, sizeof first, "%s", text);
    pb_ranks_copy(first, sizeof first);
    int odd = strcmp(first, text) ? rank : ranks;
    MPI_Allreduce(MPI_IN_PLACE, &odd, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (odd == ranks)
        return PB_OK;
    memcpy(name, host, sizeof name);
    MPI_Bcast(name, sizeof name, MPI_CHAR, odd, MPI_COMM_WORLD);
    if (rank == odd)
        snprintf(first, sizeof first, "%s", text);
    MPI_Bcast(first, sizeof first, MPI_CHAR, odd, MPI_COMM_WORLD);
    return pb_fail(PB_INPUT, hint, "process %d, on %s, has other %s than process 0: %.64s", odd,
                   name, what, first);
}

static MPI_Datatype number(size_t size)
{
    return size == sizeof(double) ? MPI_DOUBLE : MPI_FLOAT;
}

static int slice_size(size_t n, int r)
{
    return (int)(pb_ranks_slice(n, r + 1) - pb_ranks_slice(n, r));
}

void pb_ranks_scatter(void *got, const void *v, size_t n, size_t size, int active)
{
    if (!started) {
        memcpy(got, v, n * size);
        return;
    }
    int *to = counts, *from = to + ranks, *get = from + ranks, *at = get + ranks;
    for (int r = 0; r < ranks; r++) {
        to[r] = rank < active ? slice_size(n, r) : 0;
        from[r] = (int)pb_ranks_slice(n, r);
        get[r] = r < active ? slice_size(n, rank) : 0;
        at[r] = r ? at[r - 1] + get[r - 1] : 0;
        sent += r == rank ? 0 : (size_t)to[r] * size;
    }
    MPI_Alltoallv(v, to, from, number(size), got, get, at, number(size), MPI_COMM_WORLD);
}

void pb_ranks_gather(void *v, size_t n, size_t size)
{
    if (!started)
        return;
    int *get = counts, *at = get + ranks;
    for (int r = 0; r < ranks; r++) {
        get[r] = slice_size(n, r);
        at[r] = (int)pb_ranks_slice(n, r);
    }
    sent += (size_t)(ranks - 1) * (size_t)get[rank] * size;
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, v, get, at, number(size), MPI_COMM_WORLD);
}

#endif
