// Workloads: when which tenant's request comes, how long its prompt is and how many tokens it
// wants. The whole schedule is drawn before a run, from a seed, and times of requests count from
// it.
//
// Open loop: gaps between requests are Gamma distributed with the mean 1 / rate and the coefficient
// of variation `cv` (0: even, 1: Poisson, more: bursts). A ramp goes linearly from `rate` to
// `rate_end` over the time in which so many requests are expected, 2 n / (rate + rate_end): gaps of
// mean 1 are drawn, and their sum, the expected number of requests by then, is mapped to time.
// Closed loop: so many clients, each of which sends its next request when it has the answer to the
// one before.
#ifndef PB_SERVE_WORKLOAD_H
#define PB_SERVE_WORKLOAD_H

#include "core/error.h"
#include "core/rng.h"

#include <stdbool.h>

typedef enum pb_popularity {
    PB_IDENTICAL, // all requests are tenant 0's
    PB_DISTINCT,  // tenants take turns
    PB_UNIFORM,
    PB_ZIPF,     // tenant k (from 1) as 1 / k^x
    PB_GEOMETRIC // tenant k (from 1) as (1 - x)^k
} pb_popularity;

typedef enum pb_length_kind {
    PB_FIXED,     // a
    PB_BETWEEN,   // uniform on a..b
    PB_LOGNORMAL, // median a, sigma b of the logarithm, at least 1, at most c
    PB_FROM_DATA  // those of an example, prompt and response of the same one
} pb_length_kind;

typedef struct pb_lengths {
    pb_length_kind kind;
    double a, b, c;
} pb_lengths;

typedef struct pb_due {
    int64_t at; // ns after the start; 0 in a closed loop
    uint32_t tenant, prompt, output;
} pb_due;

typedef struct pb_workload {
    size_t clients;        // of a closed loop; 0: open
    double rate, rate_end; // requests per second; rate_end 0: no ramp
    double cv;
    size_t tenants;
    pb_popularity popularity;
    double skew; // x
    pb_lengths prompt, output;
    const uint32_t (*data)[2]; // (n_data): prompt and output tokens of examples
    size_t n_data;
    uint64_t seed;
} pb_workload;

// "identical", "distinct", "uniform", "zipf:1.1", "geometric:0.1".
pb_err pb_popularity_parse(pb_workload *w, const char *text);
// "64", "16-128", "lognormal:64,0.8,512". `what` is the option's name, for messages.
pb_err pb_lengths_parse(pb_lengths *out, const char *text, const char *what);

// Draws n requests, in order of time.
pb_err pb_workload_draw(const pb_workload *w, pb_due *out, size_t n);
// A trace as CSV with the columns time (s), tenant (from 0), prompt, output (tokens), and a head
// that names them. `out` is released with free.
pb_err pb_trace_read(pb_due **out, size_t *n, const char *path, size_t tenants);

// A Gamma variate of shape k > 0 and scale 1.
double pb_draw_gamma(pb_rng *r, double k);

#endif
