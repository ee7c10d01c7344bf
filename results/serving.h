// Served workloads in result files: every request, every step and every load of an adapter, and
// what tables and figures show of them.
//
// A file holds them in /serve: attributes (and "json", all of them as text) of the session, and a
// group for each table below with one dataset of integers per column. Times are ns after the
// session's start; -1: never. Token times of all requests, in their order, follow each other in
// tokens/at, as many for each as its column `steps` says.
#ifndef PB_RESULTS_SERVING_H
#define PB_RESULTS_SERVING_H

#include "core/error.h"
#include "core/json.h"
#include "results/stats.h"

// Attributes: workload (in words), methods: {NAME: {index, trainable, bytes_per_tenant, tenants,
// knob?, knob_value?}}, outcomes (what their numbers mean), warm_up (requests that do not count),
// counted_ns (when the first that counts was due), end_ns, ttft_limit_ms? and tpot_limit_ms? (what
// goodput asks for), backbone_bytes, kv_bytes, activation_bytes, adapter_peak_bytes,
// adapter_limit_bytes?, evictions.

enum { PB_SERVED_PARTS = 4 }; // backbone, attention, adapter, head
extern const char *const pb_served_parts[PB_SERVED_PARTS];

// What came of a request, in the order of pb_outcome.
enum {
    PB_SERVED_WAITING,
    PB_SERVED_RUNNING,
    PB_SERVED_SERVED,
    PB_SERVED_QUEUE_FULL,
    PB_SERVED_NO_ADAPTER
};

typedef struct pb_served {
    int64_t method, tenant, prompt, output; // method: its index; output: tokens asked for
    int64_t due;                            // as drawn (open loop)
    int64_t scheduled, queued, admitted, first, last, finished; // last: the last token
    int64_t n_out, steps, outcome; // steps: of decoding, each has a token time
    int64_t digest;                // of the tokens that came out
} pb_served;

typedef struct pb_served_step {
    int64_t begin, duration;
    int64_t rows, prefill, decode, outputs, segments; // outputs: rows whose logits were wanted
    int64_t tenants, adapter_bytes;                   // different ones in the step
    int64_t keys, pairs; // positions read, query and key pairs, of all segments
    int64_t flops[PB_SERVED_PARTS], bytes[PB_SERVED_PARTS], regions[PB_SERVED_PARTS],
        ns[PB_SERVED_PARTS];
} pb_served_step;

typedef struct pb_served_load { // of an adapter
    int64_t tenant, asked, begun, ready, failed;
} pb_served_load;

typedef struct pb_serving {
    json_t *about; // the attributes
    pb_served *request;
    pb_served_step *step;
    pb_served_load *load;
    int64_t *token_ns;
    size_t n_requests, n_steps, n_loads, n_tokens;
} pb_serving;
void pb_serving_free(pb_serving *s); // and what it holds

// The tables: rows of int64_t, `size` bytes apart.
typedef struct pb_serving_column {
    const char *name, *units;
    size_t at;
} pb_serving_column;
typedef struct pb_serving_table {
    const char *name;
    size_t size, n_columns;
    const pb_serving_column *columns;
    size_t rows_at, n_at; // of a pb_serving: the pointer, the number
} pb_serving_table;
enum { PB_SERVING_TABLES = 4 };
extern const pb_serving_table pb_serving_tables[PB_SERVING_TABLES];

// The event of a journal that holds all of it, and the check of such an event.
pb_err pb_serving_event(json_t **out, const pb_serving *s);
pb_err pb_serving_check(const json_t *event);

// ---------------------------------------------------------------- what is shown

enum { PB_SERVING_QUANTILES = 4 }; // 50, 90, 99, 99.9 %
enum { PB_TTFT, PB_TPOT, PB_ITL, PB_E2E, PB_QUEUE, PB_SERVING_MEASURES };
extern const char *const pb_serving_measures[PB_SERVING_MEASURES];

// Latencies in ms of the served requests of a method ("all": of all), without the warm-up. A
// quantile is NaN when the sample is too small for its order-statistic interval: below 6, 36, 368
// and 3688 numbers.
typedef struct pb_serving_line {
    const char *run, *method, *measure;
    size_t n;
    double at[PB_SERVING_QUANTILES];
    pb_interval in[PB_SERVING_QUANTILES];
} pb_serving_line;

// Rates count requests behind the warm-up, over the time from when the first of them was due to
// the end of the session.
typedef struct pb_serving_total {
    const char *run, *method;
    size_t tenants, requests, served, rejected, failed, unfinished;
    double requests_per_second, tokens_per_second;
    double good_per_second, good_share; // within the limits; NaN without limits
    double trainable, bytes_per_tenant;
} pb_serving_total;

// Of the steps behind the warm-up; per row: of a prompt's or response's token. "other": scheduling
// and choosing tokens.
typedef struct pb_serving_part {
    const char *run, *part;
    double flops, bytes, regions, us; // per row
    double ms_per_step, share;
} pb_serving_part;

typedef struct pb_serving_memory {
    const char *run, *name; // name: the file's, without its folder
    double tenants, backbone, kv, activations, adapter_peak, adapter_limit;
    double evictions, load_median_ms, load_max_ms; // from when it was asked for
    size_t loads, failures;
} pb_serving_memory;

typedef struct pb_serving_report {
    pb_serving_line *lines; // by measure, then method
    pb_serving_total *totals;
    size_t n_lines, n_totals;
    pb_serving_part parts[PB_SERVED_PARTS + 1];
    pb_serving_memory memory;
    const char **method; // (n_methods) by index
    size_t n_methods;
} pb_serving_report;

// Names are borrowed from `run` and `s`.
pb_err pb_serving_report_make(pb_serving_report *out, const pb_serving *s, const char *run);
void pb_serving_report_free(pb_serving_report *r);

// A measure's numbers in ms, sorted: of one method, or of all (-1). *out is released with free.
pb_err pb_serving_samples(double **out, size_t *n, const pb_serving *s, int measure, int method);

#endif
