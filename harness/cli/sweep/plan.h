// An experiment file unfolded: every run of it, in an order in which they can be made.
//
// A run's id is its file's name in the folder of the results, without ".h5":
//   restaurant/lora-seed1                 one budget, one rate
//   restaurant/lora-1pct-lr0.003-seed1    of a list of budgets ("budgets") and of rates ("lr")
//   tuning/restaurant/lora-lr0.003-seed101
//   backbone, latency; latency/NAME of a list of latency experiments
#ifndef PB_CLI_SWEEP_PLAN_H
#define PB_CLI_SWEEP_PLAN_H

#include "core/json.h"

// A stage begins when the runs of earlier ones that it needs have ended.
typedef enum pb_stage {
    PB_STAGE_BACKBONE, // pretraining, where the file has a recipe
    PB_STAGE_TUNING,   // trials
    PB_STAGE_TEST,
    PB_STAGE_LATENCY, // alone: nothing else may run meanwhile
    PB_N_STAGES
} pb_stage;

enum { PB_NO_CHOICE = -1 };

typedef struct pb_sweep_run {
    char *id;
    pb_stage stage;
    const char *task, *label; // "" of the backbone and of latency
    json_t *config;           // complete but for the "lr" of a tuned run
    long choice;              // of trials and tuned runs: the rate they serve, or wait for
    size_t unit;              // runs of one unit are made by one shard
} pb_sweep_run;

// A learning rate to be chosen: of a method at a budget, on one task or for all tasks.
typedef struct pb_sweep_choice {
    char *id; // "restaurant/lora-1pct"; for all tasks "lora-1pct"
    const char *label, *task;
    const json_t *rates; // as given, or the method's own; rising
    double lr;           // 0: not chosen yet
} pb_sweep_choice;

typedef struct pb_sweep_plan {
    json_t *file;
    const char *path, *out;
    char model[4096];
    json_t *recipe;    // of the backbone; NULL: it is there
    json_t *own_rates; // label -> a method's own grid
    pb_sweep_run *run;
    size_t n_runs, room, n_units;
    pb_sweep_choice *choice;
    size_t n_choices;
} pb_sweep_plan;

// Reads and checks all of the file. `model` stands in for the one that the file names, unless NULL.
// To be released also after an error. The strings must outlive the plan.
pb_err pb_sweep_plan_read(pb_sweep_plan *p, const char *path, const char *out, const char *model);
void pb_sweep_plan_free(pb_sweep_plan *p);

const char *pb_stage_name(pb_stage s);
// OUT/ID.EXTENSION
pb_err pb_sweep_file(char *out, size_t size, const pb_sweep_plan *p, const char *id,
                     const char *extension);
// NULL when there is no such run.
pb_sweep_run *pb_sweep_find(const pb_sweep_plan *p, const char *id);

#endif
