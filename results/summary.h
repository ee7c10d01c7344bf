// From run files to the figures of a comparison: rows (methods) by tasks, and latency arms.
//
// Runs that differ in their seed alone are one cell. Rows of one method and budget are told apart
// by what differs: where each differs in something of its own from one of them (an ablation), by
// the difference to that one, else (a grid) by all of it. Diverged, failed and interrupted runs are
// counted, never averaged.
#ifndef PB_RESULTS_SUMMARY_H
#define PB_RESULTS_SUMMARY_H

#include "results/load.h"
#include "results/stats.h"

typedef struct pb_cell {
    const pb_record **complete; // complete runs, borrowed, by seed
    size_t n_complete;
    size_t n; // complete runs that have the score
    int64_t *seeds;
    double *x; // scores, shown units
    pb_item_scores
        *items; // per seed, borrowed from the records; NULL when they do not give the score
    size_t n_diverged, n_failed, n_interrupted, n_unscored;
    double mean, sd, median;
    pb_interval interval;  // 95 %, NaN when not defined
    const char *resampled; // "seeds and items", "items", "seeds" or ""
    bool compared;         // against the baseline's row, by the seeds both have
    size_t n_pairs;
    double difference, p, p_holm;
    double detectable; // the difference that the test would find with 80 % power (pb_detectable)
    pb_interval difference_interval;
} pb_cell;

// From PB_BLOCK_REFERENCE on a row is no competitor: the backbone alone, and others' figures.
typedef enum pb_block {
    PB_BLOCK_BUDGET,
    PB_BLOCK_NO_KNOB,
    PB_BLOCK_REFERENCE,
    PB_BLOCK_PUBLISHED
} pb_block;

typedef struct pb_row {
    pb_block block;
    char *key, *label; // label: the method, its knob, and what else tells it from other rows
    char *series;      // the label without the size and the learning rate: one curve of figures
    const char *model, *method, *knob;
    double budget, trainable, share, bytes_per_tenant; // share: percent of the backbone
    bool is_baseline;
    bool is_centre;       // of several variants, the one that the others differ least from
    const json_t *config; // of its first run, borrowed
    pb_cell *cells;       // per task
} pb_row;

typedef struct pb_task_column {
    const char *task, *metric, *unit;
    bool higher_is_better;
    double scale; // stored -> shown: 100 for fractions
    int digits;
} pb_task_column;

// One timed arm. Samples of runs that differ in their seed alone are pooled.
typedef struct pb_arm {
    const pb_scenario *s; // attributes (of the first run)
    const char *model;
    size_t n_runs, n;
    double *request_ms; // sorted: time per token of one request = sample * rows / tokens_per_sample
    double median, p90, p99; // ms per token; p99 NaN below 1000 samples
    pb_interval median_interval;
    double tokens_per_second; // of the whole batch, from the median
    double noise;             // |median of odd samples - of even ones| / median
    double over_base;         // median / that of the base model under the same conditions, or NaN
} pb_arm;

typedef struct pb_summary {
    pb_row *rows;
    size_t n_rows;
    pb_task_column *tasks;
    size_t n_tasks;
    pb_arm *arms;
    size_t n_arms;
    const pb_record **served; // complete runs of served workloads, borrowed
    size_t n_served;
    const char **served_series; // their methods, borrowed, and "mixed" of a run of several
    size_t n_served_series;
    json_t *capacity; // files of `pedrobench capacity`: [{"name", "answers"}], or NULL
    json_t *scaling;  // arms of `pedrobench bench scaling`, or NULL
    const char *baseline;
    size_t resamples;
    bool several_models;
    json_t *published; // behind the rows of PB_BLOCK_PUBLISHED
} pb_summary;

typedef struct pb_summary_options {
    const char *metric;   // NULL: each task's headline
    const char *baseline; // NULL: "lora", or the only method there is
    const char *split;    // NULL: "test"
    size_t resamples;     // 0: 2000
    json_t *published;    // figures of others to stand beside (paper/published), or NULL
} pb_summary_options;

// The records must outlive the summary.
pb_err pb_summarize(pb_summary *out, const pb_records *records, const pb_summary_options *options);
void pb_summary_free(pb_summary *s);

// What a served workload is called in figures: its method, or "mixed".
const char *pb_summary_served_label(const pb_record *r);

// The line style of a series or a method, the same in all figures: 1.. in alphabetical order; the
// anchors (base, none, merged, full) have greys of their own.
enum { PB_STYLE_ANCHOR = 20 };
int pb_summary_style(const pb_summary *s, const char *series);

#endif
