// Files of `pedrobench serve` as measurements of a server: its steps for a fit, and its schedule
// for a replay.
#ifndef PB_CLI_SERVED_H
#define PB_CLI_SERVED_H

#include "results/load.h"
#include "serve/capacity.h"

typedef struct pb_served_file {
    const char *path;
    pb_records records;
    const pb_serving *serving;
    char kinds[512]; // of its adapters, joined by colons: what a cost depends on
    size_t n_kinds, *bytes;
    bool *whole;
    double backbone, activations; // bytes
    pb_cost_sizes sizes;
    pb_server_limits limits;
    size_t tenants, memory, clients, threads;
    bool loads; // adapters come from disk, and none is there at the beginning
    pb_decoding how;
    size_t from; // the first step behind the warm-up
} pb_served_file;

// Opens a complete file, and refuses others.
pb_err pb_served_open(pb_served_file *f, const char *path);
void pb_served_close(pb_served_file *f);

// A step as the server had it.
pb_work pb_served_work(const pb_served_step *s);
// The schedule; *due is released with free.
pb_err pb_served_traffic(pb_traffic *out, pb_due **due, const pb_served_file *f);

#endif
