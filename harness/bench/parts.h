// The parts of `pedrobench bench`: each makes works, times them, and hands them on.
#ifndef PB_BENCH_PARTS_H
#define PB_BENCH_PARTS_H

#include "bench/bench.h"
#include "core/json.h"
#include "tensor/context.h"

enum { PB_BENCH_MOST = 32 };

// Parallel regions of a decoding step, by component.
typedef struct pb_regions {
    const char *geometry, *method;
    size_t rows, layers;
    size_t of[PB_COMPONENTS];
} pb_regions;

// What was expected of an arm, and what it reached.
typedef struct pb_floor {
    const char *work, *arm, *measure;
    double value, expected;
    bool most; // the value is to be at most what is expected; else at least
} pb_floor;

typedef struct pb_bench {
    // What to measure. Geometries are letters (A, B, C) or what pb_open_model takes.
    const char *geometry[PB_BENCH_MOST], *method[PB_BENCH_MOST];
    size_t n_geometries, n_methods;
    size_t rows[PB_BENCH_MOST], n_rows; // 0: the part's default
    size_t sequences, tokens, context;  // 0: the part's default
    const char *weights;                // NULL: the part's default
    const char *axis[PB_BENCH_MOST];    // of `scaling`
    size_t n_axes;                      // 0: all
    pb_bench_plan plan;
    const char *peers; // folder of the scripts; NULL: no peers
    json_t *absent;    // peers that were not there: name -> why
    // What takes the results.
    pb_err (*work)(void *self, const pb_work *w);
    pb_err (*regions)(void *self, const pb_regions *r);
    pb_err (*floor)(void *self, const pb_floor *f);
    void *self;
} pb_bench;

typedef struct pb_bench_part {
    const char *name, *geometries; // those it measures when none is named
    pb_err (*run)(pb_bench *b);
} pb_bench_part;

extern const pb_bench_part pb_bench_parts[]; // the last one has name NULL

// As objects (NULL without memory): what the command prints and the file keeps.
json_t *pb_work_json(const pb_work *w);
json_t *pb_regions_json(const pb_regions *r);
json_t *pb_floor_json(const pb_floor *f);
bool pb_floor_met(const pb_floor *f);
double pb_regions_per_layer(const pb_regions *r); // without those of the head

// The spec of a geometry's letter (everything else is its own).
const char *pb_bench_spec(const char *geometry);

#endif
