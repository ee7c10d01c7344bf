// How many tenants, at which rate, within which limits: answered by simulated sessions.
#ifndef PB_SERVE_CAPACITY_H
#define PB_SERVE_CAPACITY_H

#include "results/serving.h"
#include "serve/cost_model.h"
#include "serve/session.h"
#include "serve/simulate.h"

// A fleet of tenants on a machine, as a session meets it.
typedef struct pb_fleet {
    pb_server_limits limits;
    size_t tenants;
    const size_t *bytes; // of adapters: of tenant t, bytes[t % n_bytes]
    const bool *whole;   // whether its method reads prompts as a whole, likewise; NULL: none does
    size_t n_bytes;      // 0: tenants have no adapters
    size_t memory;       // of adapters
    bool filled;         // with those of the first tenants, as far as they fit
    pb_disk disk;
    const pb_cost_model *cost;
    pb_cost_sizes sizes;
    size_t group; // of the cost model
    pb_machine machine;
    bool noise; // draw measured / predicted for every step
    uint64_t seed;
} pb_fleet;

typedef struct pb_traffic {
    const pb_due *due; // (n)
    size_t n, clients, warm_up;
    const pb_decoding *how; // NULL: greedy
} pb_traffic;

// What came of it.
typedef struct pb_fleet_day {
    pb_serving serving;  // requests and their token times
    size_t served, lost; // lost: rejected
    size_t loads;
    double seconds;          // from the first request to the end of the last
    double by[PB_RESOURCES]; // seconds of steps
    double loading;          // seconds in which the disk was busy
    double full;             // seconds of steps in which requests waited for slots
    double rows, steps;
} pb_fleet_day;

// Runs the traffic `faster` times as fast; the day is to be released, also after an error.
pb_err pb_fleet_run(const pb_fleet *f, const pb_traffic *t, double faster, pb_fleet_day *day);
void pb_fleet_day_free(pb_fleet_day *day);

typedef struct pb_limit {
    double quantile;
    double most[PB_SERVING_MEASURES]; // ms; 0: no limit
} pb_limit;
// Whether the requests behind the warm-up keep within the limits and none was lost.
pb_err pb_within(bool *yes, const pb_limit *l, const pb_fleet_day *day);

// The largest factor by which the traffic may come faster within the limits, to 0.5 %, and what is
// there; never more than goes through when all comes at once; 0: even alone requests take too long.
pb_err pb_fleet_fastest(double *faster, const pb_fleet *f, const pb_traffic *t, const pb_limit *l,
                        pb_fleet_day *day);

#endif
