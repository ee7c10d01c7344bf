// Times of the suite's parts, each beside what the machine can do at the same moment.
//
// A *work* is one task, such as "decode, 8 rows". Its *arms* do it: the machine's limits (a loop of
// fused multiply-adds; reading as many bytes as the weights have), our code in its forms, and other
// programs. Rounds: each arm gives one sample per round, in an order drawn anew for each round, so
// that a machine that slows down slows all arms; ratios are medians of the ratios of a round.
//
// A sample is a number of runs that take long enough to be timed. Before them a short arm runs once
// untimed: the arm before it has left other data in the caches.
#ifndef PB_BENCH_BENCH_H
#define PB_BENCH_BENCH_H

#include "core/error.h"
#include "tensor/kernels/kernels.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pb_arm_kind {
    PB_ARM_FLOPS, // a limit: fused multiply-adds
    PB_ARM_BYTES, // a limit: bytes read
    PB_ARM_OURS,
    PB_ARM_PEER
} pb_arm_kind;

enum { PB_NO_ARM = -1 };

typedef struct pb_arm {
    char name[96]; // "fp32", "lora", "pytorch lora"
    pb_arm_kind kind;
    // What one run needs (or, of a limit, does). Activations count as nothing.
    double flops, bytes;
    double memory; // bytes of activations, caches and adapters; 0: not known
    // Of a work along an axis: the curve, and where on it.
    const char *curve; // NULL: none; must outlive the work
    double x;
    int limit;    // which arm of bytes is its limit, besides that of FLOPs; or PB_NO_ARM
    int against;  // which arm of ours a peer (or a variant) is compared with; or PB_NO_ARM
    double floor; // fraction of the limit that is expected; 0: none
    // Expected times as long as the arm `against`: at most (a variant), at least (a peer). 0: none.
    double at_most, at_least;
    // Runs `runs` times, after one untimed run if `warm`; *seconds are those of the runs together.
    pb_err (*sample)(void *self, bool warm, size_t runs, double *seconds);
    void *self;
    void (*release)(void *self); // may be NULL
    char note[160];              // shown below the table: versions, what an arm is
    // Results.
    size_t runs;     // of a sample
    bool cold;       // takes so long that the state of the caches does not matter
    double *seconds; // (n) per run
    size_t n;
} pb_arm;

enum { PB_MOST_ARMS = 40 };

typedef struct pb_work {
    char name[128];
    double tokens;                 // handled by one run; 0: none, or not the same for all arms
    const char *axis, *axis_label; // what grows from arm to arm, or NULL
    pb_arm arm[PB_MOST_ARMS];
    size_t n;
} pb_work;

typedef struct pb_bench_plan {
    double seconds; // for the rounds of one work; more when min_rounds asks for it
    size_t min_rounds;
    double sample; // shortest sample, seconds
    int threads;
    uint64_t seed;
} pb_bench_plan;

// A new arm; the caller fills in the rest. Aborts if a work has too many (a defect).
pb_arm *pb_work_arm(pb_work *w, pb_arm_kind kind, const char *name);
// Releases arms and samples.
void pb_work_free(pb_work *w);

// Finds how many runs make a sample of at least so many seconds.
pb_err pb_arm_calibrate(pb_arm *a, double least);
// Times all arms. PB_INTERRUPTED after Ctrl-C: whole rounds until then are kept.
pb_err pb_work_run(pb_work *w, const pb_bench_plan *plan);

// Median seconds per run, and quartiles.
typedef struct pb_arm_time {
    double median, lo, hi;
} pb_arm_time;
pb_arm_time pb_arm_times(const pb_arm *a);
// Median over rounds of time(a) / time(b).
double pb_arm_ratio(const pb_arm *a, const pb_arm *b);
// Time that the limits of the machine allow, divided by the arm's time; NaN without limits.
double pb_arm_fraction(const pb_work *w, const pb_arm *a);

// Adds the limit of FLOPs, of all threads (or of one).
pb_err pb_limit_flops(pb_work *w, int threads);
// Adds reading `bytes` over and over; returns its index in *arm.
pb_err pb_limit_bytes(pb_work *w, double bytes, int threads, int *arm);

#endif
