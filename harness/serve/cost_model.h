// What a step takes, from what it has to do: fitted to measured steps, and scaled to machines that
// were not measured.
//
// A step has the parts that its measured time is divided into: backbone, attention, adapters, head,
// and the rest (scheduling, choosing tokens). The time of a part is made of terms, each a quantity
// of the step times a coefficient. They stand for
//
//   latency    fixed times, such as those of parallel regions
//   bandwidth  bytes read: weights once, each adapter once, keys and values
//   compute    FLOPs, and what is done by a core for every sequence and every different adapter
//
// and either follow each other or, between bandwidth and compute, hide each other (a roofline):
//
//   sum: latency + bandwidth + compute        max: latency + max(bandwidth, compute)
//
// Each part is fitted by itself, to the time it took. Coefficients are not negative and minimise
// sum ((predicted - measured) / measured time of the whole step)^2; a part's form is the one with
// the smaller error on steps that were held out. With `max` the fit alternates between telling
// which side binds a step and fitting the sides. What an adapter costs depends on its method: its
// terms are fitted to each group of steps by themselves, and all others to all steps together.
//
// Where times scatter, least squares of relative errors come out low; so at last all coefficients
// are multiplied by the mean of measured / predicted, from which the largest hundredth is left out
// (a machine that stood still says nothing about steps).
//
// In steps of one model the weights are read in every step, so no fit can tell their time from a
// fixed one: what the data leave open is decided by the machine's measured bandwidth.
//
// A step's time is not always the same, so the ratios of measured to predicted times are kept: of
// all groups together, since slow minutes of the machine are no property of the method that was
// measured in them; but of runs that loaded adapters, which share the machine with that, apart, for
// groups that have no others. Steps in order of their prediction are cut into bins, and a ratio is
// known by its rank in its bin. A simulation takes runs of ranks, in the order of time in which
// they were measured (a moving block bootstrap), and of each step the ratio of this rank in the bin
// of its prediction. So slow times follow slow times, and short steps vary as short steps did.
#ifndef PB_SERVE_COST_MODEL_H
#define PB_SERVE_COST_MODEL_H

#include "core/rng.h"
#include "serve/server.h"

typedef enum pb_cost_part {
    PB_COST_BACKBONE,
    PB_COST_ATTENTION,
    PB_COST_ADAPTER,
    PB_COST_HEAD,
    PB_COST_REST,
    PB_COST_PARTS
} pb_cost_part;

typedef enum pb_cost_term {
    PB_COST_STEP,
    PB_COST_WAKE,
    PB_COST_WEIGHTS,
    PB_COST_ROWS,
    PB_COST_ATTEND,
    PB_COST_SEGMENTS,
    PB_COST_KV,
    PB_COST_PAIRS,
    PB_COST_HEADS,
    PB_COST_HEAD_WEIGHTS,
    PB_COST_LOGITS,
    PB_COST_SCHEDULE,
    PB_COST_CHOICE,
    PB_COST_OWN, // the terms from here on depend on the method
    PB_COST_PREFIX = PB_COST_OWN,
    PB_COST_ADAPTED,
    PB_COST_TENANTS,
    PB_COST_ADAPTERS,
    PB_COST_ADAPTER_ROWS,
    PB_COST_TERMS
} pb_cost_term;

typedef enum pb_resource { PB_LATENCY, PB_BANDWIDTH, PB_COMPUTE, PB_RESOURCES } pb_resource;

typedef struct pb_cost_kind {
    const char *name, *unit; // unit: NULL for a thing, which is counted
    pb_cost_part part;
    pb_resource of;
} pb_cost_kind;
extern const pb_cost_kind pb_cost_kinds[PB_COST_TERMS];
extern const char *const pb_cost_parts[PB_COST_PARTS], *const pb_resource_names[PB_RESOURCES];

// What the terms count in one model.
typedef struct pb_cost_sizes {
    double weights, head;     // bytes
    double position;          // bytes of its keys and values
    double row, logits, pair; // FLOPs; logits: of one row
} pb_cost_sizes;

// Quantities of a step. Adapters do two FLOPs for each of their parameters and row: which is
// LoRA's; methods that do less have a smaller coefficient. `idle`: seconds since the step before;
// after so many that threads sleep, they are woken and find their caches cold.
void pb_cost_terms(double x[PB_COST_TERMS], const pb_cost_sizes *s, const pb_work *w, double idle);
#define PB_COST_ASLEEP 0.4e-3

typedef struct pb_cost_sample {
    double x[PB_COST_TERMS];
    double seconds, part[PB_COST_PARTS]; // which add up to `seconds`
    size_t group;
    bool loads; // adapters were loaded in this run
} pb_cost_sample;

typedef struct pb_cost_error {
    double median, p90, mean; // of |predicted / measured - 1|
    size_t n;
} pb_cost_error;

enum { PB_COST_GROUPS = 12 };

// (n) measured / predicted: bin after bin, in order within each; where bins begin (n_bins + 1) and
// their first prediction; and (n) ranks from 0 to 1, in order of time.
typedef struct pb_cost_ratios {
    double *ratio, *rank, *bin_from;
    size_t n, n_bins, *bin;
} pb_cost_ratios;

typedef struct pb_cost_model {
    double (*c)[PB_COST_TERMS]; // (n_groups): seconds per unit
    size_t n_groups;
    double factor;                       // which all coefficients were multiplied by
    bool max[PB_COST_PARTS];             // else the sum
    double part_error[PB_COST_PARTS][2]; // of the sum and the maximum, held out: mean error of the
                                         // part, in units of the step's time
    pb_cost_error fitted, held;          // of whole steps; held: held out
    pb_cost_ratios ratios[2];            // of runs without loads, and with
    bool loads[PB_COST_GROUPS];          // which of them a group draws from
} pb_cost_model;

// Every fifth run of 20 samples is held out. `bandwidth`: bytes per second, 0: not known.
pb_err pb_cost_fit(pb_cost_model *out, const pb_cost_sample *s, size_t n, size_t n_groups,
                   double bandwidth);
void pb_cost_free(pb_cost_model *m);

// How much more than the measured machine another one has. Latency: how much longer.
typedef struct pb_machine {
    double latency, bandwidth, compute;
} pb_machine;
#define PB_SAME_MACHINE ((pb_machine){1, 1, 1})

// Seconds of a step, and (may be NULL) of which resource; in a part of the form `max` the side that
// does not bind counts as 0.
double pb_cost_seconds(const pb_cost_model *m, size_t group, const double x[PB_COST_TERMS],
                       const pb_machine *to, double by[PB_RESOURCES]);

// A run of ranks that is being drawn; begins as {0}.
typedef struct pb_cost_run {
    size_t at, left;
} pb_cost_run;
// measured / predicted, of a step that is predicted to take so long on the measured machine.
double pb_cost_draw(const pb_cost_model *m, size_t group, double seconds, pb_cost_run *run,
                    pb_rng *r);

#endif
