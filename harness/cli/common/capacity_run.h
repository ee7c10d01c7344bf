// From files of `pedrobench serve` to answers: the fit, its validation on other files, and fleets
// on machines that were not measured.
#ifndef PB_CLI_CAPACITY_RUN_H
#define PB_CLI_CAPACITY_RUN_H

#include "cli/common/served.h"
#include "core/json.h"

enum { PB_CAPACITY_FILES = 32, PB_CAPACITY_NUMBERS = 16 };

typedef struct pb_capacity_question {
    const char *fit[PB_CAPACITY_FILES], *validate[PB_CAPACITY_FILES];
    size_t n_fit, n_validate;
    const char *machine; // a file of `pedrobench bench machine`, or NULL
    // The fleet and what is asked of it. Nothing: neither limits nor a rate.
    const char *methods; // "lora,pedro=2M"; NULL: all that were measured
    size_t tenants[PB_CAPACITY_NUMBERS], n_tenants, requests;
    pb_workload load; // without lengths: those of the measured requests
    pb_limit limit;
    double rate; // 0: the largest within the limits
    // The machine asked about; NULL, 0 or negative: as measured.
    const char *bandwidth, *flops; // "200G" or "4x"
    size_t cores, memory, adapter_memory, slots, rows;
    double disk_latency, disk_bandwidth;
    bool exact; // every step takes what the fit says
} pb_capacity_question;

typedef struct pb_capacity_kind {
    char name[512];
    size_t bytes; // of a tenant's adapter
    size_t group; // of the cost model
    bool whole;
} pb_capacity_kind;

// One measure's quantile: measured, with the 95 % interval, and simulated: as the fit says, and
// with drawn ratios. Of several runs the medians, and the range of the measured ones. In ms.
typedef struct pb_capacity_check {
    const char *path, *kinds;
    int measure;
    size_t runs;
    double quantile, measured;
    pb_interval in;
    double exact, drawn;
} pb_capacity_check;

typedef struct pb_capacity_answer {
    const char *kind;
    size_t bytes, tenants;
    double rate;                                              // requests per second
    bool within;                                              // of the limits
    double p50[PB_SERVING_MEASURES], at[PB_SERVING_MEASURES]; // ms; at: the limit's quantile
    double rows;                                              // of a step
    double share[PB_RESOURCES];                               // of the time
    double loading, waiting, miss; // shares: the disk busy, requests waiting for slots; of requests
    const char *binds;
} pb_capacity_answer;

typedef struct pb_capacity {
    pb_served_file file[PB_CAPACITY_FILES];
    pb_cost_model cost;
    pb_cost_sizes sizes;
    size_t n_steps;
    double share[PB_COST_GROUPS][PB_COST_TERMS]; // of the predicted time of a group's steps
    pb_capacity_kind kind[PB_COST_GROUPS];       // of the groups
    size_t n_kinds;
    double bandwidth, flops; // measured, per second; 0: not known
    pb_disk disk;
    bool disk_measured;
    pb_machine machine;
    size_t slots, rows, adapter_memory; // adapter_memory: SIZE_MAX without a limit
    pb_capacity_check *check;
    size_t n_checks;
    pb_capacity_answer *answer;
    size_t n_answers;
} pb_capacity;

// To be released, also after an error. Reports progress.
pb_err pb_capacity_run(pb_capacity *out, const pb_capacity_question *q);
void pb_capacity_free(pb_capacity *c);
json_t *pb_capacity_json(const pb_capacity *c, const pb_capacity_question *q); // NULL: no memory

#endif
