#include "bench/bench.h"

#include "core/arena.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/rng.h"
#include "results/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pb_arm *pb_work_arm(pb_work *w, pb_arm_kind kind, const char *name)
{
    if (w->n == PB_MOST_ARMS) {
        fprintf(stderr, "defect: \"%s\" has more than %d arms\n", w->name, PB_MOST_ARMS);
        abort();
    }
    pb_arm *a = &w->arm[w->n++];
    *a = (pb_arm){.kind = kind, .limit = PB_NO_ARM, .against = PB_NO_ARM};
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

void pb_work_free(pb_work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->arm[i].release)
            w->arm[i].release(w->arm[i].self);
        free(w->arm[i].seconds);
    }
    w->n = 0;
}

// Doubled until they do.
pb_err pb_arm_calibrate(pb_arm *a, double least)
{
    double t = 0;
    for (a->runs = 1;; a->runs *= 2) {
        PB_TRY(a->sample(a->self, a->runs == 1, a->runs, &t));
        if (t >= least || a->runs >= (size_t)1 << 30)
            break;
        if (t > least / 64)
            a->runs = (size_t)((double)a->runs * least / t / 2) + 1;
    }
    a->cold = t / (double)a->runs > 0.3;
    return PB_OK;
}

static void shuffle(size_t *order, size_t n, uint64_t seed, size_t round)
{
    pb_rng r = pb_rng_make(seed, PB_STREAM_SAMPLE, (uint32_t)round);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = pb_rng_below(&r, (uint32_t)i), t = order[j];
        order[j] = order[i - 1];
        order[i - 1] = t;
    }
}

pb_err pb_work_run(pb_work *w, const pb_bench_plan *plan)
{
    enum { MOST_ROUNDS = 1000 };
    size_t order[PB_MOST_ARMS], rounds = 0;
    double room[PB_MOST_ARMS];
    for (size_t i = 0; i < w->n; i++) {
        pb_arm *a = &w->arm[i];
        a->seconds = calloc(MOST_ROUNDS, sizeof *a->seconds);
        if (!a->seconds)
            return pb_fail(PB_MEMORY, NULL, "no memory for samples");
        pb_err err = pb_arm_calibrate(a, plan->sample);
        if (err)
            return pb_context(err, "%s, %s", w->name, a->name);
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted before the first sample");
    }
    double start = pb_now();
    pb_progress bar;
    pb_progress_begin(&bar, w->name, 0, 100);
    while (rounds < MOST_ROUNDS &&
           (rounds < plan->min_rounds || pb_now() - start < plan->seconds)) {
        shuffle(order, w->n, plan->seed, rounds);
        for (size_t i = 0; i < w->n; i++) {
            pb_arm *a = &w->arm[order[i]];
            pb_err err = a->sample(a->self, !a->cold, a->runs, &room[order[i]]);
            if (err)
                return pb_context(err, "%s, %s", w->name, a->name);
            if (pb_interrupted())
                goto done;
        }
        for (size_t i = 0; i < w->n; i++) {
            w->arm[i].seconds[rounds] = room[i] / (double)w->arm[i].runs;
            w->arm[i].n = rounds + 1;
        }
        rounds++;
        double by_time = 100 * (pb_now() - start) / plan->seconds;
        double by_rounds = 100 * (double)rounds / (double)plan->min_rounds;
        pb_progress_update(&bar, (int64_t)fmin(by_time, by_rounds), NULL);
    }
done:
    pb_progress_end(&bar, NULL);
    return pb_interrupted() ? pb_fail(PB_INTERRUPTED, NULL, "interrupted after %zu rounds", rounds)
                            : PB_OK;
}

pb_arm_time pb_arm_times(const pb_arm *a)
{
    double sorted[1024];
    if (!a->n)
        return (pb_arm_time){NAN, NAN, NAN};
    memcpy(sorted, a->seconds, a->n * sizeof *sorted);
    pb_sort(sorted, a->n);
    return (pb_arm_time){pb_percentile(sorted, a->n, 0.5), pb_percentile(sorted, a->n, 0.25),
                         pb_percentile(sorted, a->n, 0.75)};
}

double pb_arm_ratio(const pb_arm *a, const pb_arm *b)
{
    double r[1024];
    size_t n = a->n < b->n ? a->n : b->n;
    for (size_t i = 0; i < n; i++)
        r[i] = a->seconds[i] / b->seconds[i];
    return n ? pb_median(r, n) : NAN;
}

double pb_arm_fraction(const pb_work *w, const pb_arm *a)
{
    const pb_arm *f = NULL, *b = a->limit == PB_NO_ARM ? NULL : &w->arm[a->limit];
    double r[1024];
    for (size_t i = 0; i < w->n && !f; i++)
        f = w->arm[i].kind == PB_ARM_FLOPS ? &w->arm[i] : NULL;
    if (a == f || a == b || a->kind == PB_ARM_BYTES || (!f && !b))
        return NAN;
    for (size_t i = 0; i < a->n; i++) {
        double tf = f ? a->flops / f->flops * f->seconds[i] : 0;
        double tb = b ? a->bytes / b->bytes * b->seconds[i] : 0;
        r[i] = fmax(tf, tb) / a->seconds[i];
    }
    return a->n ? pb_median(r, a->n) : NAN;
}

// ---------------------------------------------------------------- limits

typedef struct limit {
    const pb_kernels *k;
    int threads;
    size_t n; // rounds of multiply-adds per thread, or values
    pb_arena memory;
    const real *data; // (n), read; NULL: multiply-adds
    volatile real sink;
} limit;

static void release_limit(void *self)
{
    limit *l = self;
    pb_arena_free(&l->memory);
    free(l);
}

// Repeats inside the parallel region: the limit is that of the cores and caches, not of barriers.
static void run_flops(limit *l, size_t runs)
{
    real sum = 0;
#pragma omp parallel num_threads(l->threads) reduction(+ : sum)
    sum += l->k->peak(l->n * runs, NULL);
    l->sink = sum;
}

static void run_bytes(limit *l, size_t runs)
{
    real sum = 0;
    size_t part = (l->n / (size_t)l->threads + 255) & ~(size_t)255;
#pragma omp parallel for num_threads(l->threads) schedule(static) reduction(+ : sum)
    for (int t = 0; t < l->threads; t++) {
        size_t from = (size_t)t * part, to = from + part < l->n ? from + part : l->n;
        for (size_t i = 0; from < to && i < runs; i++)
            sum += l->k->sum(l->data + from, to - from);
    }
    l->sink = sum;
}

static pb_err sample_limit(void *self, bool warm, size_t runs, double *seconds)
{
    limit *l = self;
    void (*run)(limit *, size_t) = l->data ? run_bytes : run_flops;
    if (warm)
        run(l, 1);
    double t = pb_now();
    run(l, runs);
    *seconds = pb_now() - t;
    return PB_OK;
}

static pb_err add_limit(pb_work *w, pb_arm_kind kind, const char *name, int threads, size_t n,
                        limit **out)
{
    limit *l = calloc(1, sizeof *l);
    if (!l)
        return pb_fail(PB_MEMORY, NULL, "no memory for a limit");
    pb_arm *a = pb_work_arm(w, kind, name);
    *l = (limit){.k = pb_kernels_get(), .threads = threads, .n = n};
    a->self = *out = l;
    a->sample = sample_limit;
    a->release = release_limit;
    return PB_OK;
}

pb_err pb_limit_flops(pb_work *w, int threads)
{
    enum { ROUNDS = 1 << 16 };
    limit *l = NULL;
    size_t flops;
    PB_TRY(add_limit(w, PB_ARM_FLOPS, "multiply-add peak", threads, ROUNDS, &l));
    l->k->peak(1, &flops);
    w->arm[w->n - 1].flops = (double)flops * ROUNDS * threads;
    return PB_OK;
}

pb_err pb_limit_bytes(pb_work *w, double bytes, int threads, int *arm)
{
    limit *l = NULL;
    char name[96];
    size_t n = (size_t)(bytes / sizeof(real)) & ~(size_t)1023;
    n = n < 1024 ? 1024 : n;
    snprintf(name, sizeof name, bytes < 1e6 ? "read %.0f KB" : "read %.1f MB",
             (double)(n * sizeof(real)) / (bytes < 1e6 ? 1e3 : 1e6));
    *arm = (int)w->n;
    PB_TRY(add_limit(w, PB_ARM_BYTES, name, threads, n, &l));
    PB_TRY(pb_arena_init(&l->memory, "bandwidth", n * sizeof(real)));
    real *data = PB_NEW(&l->memory, real, n);
    for (size_t i = 0; i < n; i++)
        data[i] = (real)(i & 7);
    l->data = data;
    w->arm[w->n - 1].bytes = (double)(n * sizeof(real));
    return PB_OK;
}
