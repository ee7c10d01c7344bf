// A sweep at work: what its parts share. plan: the runs; state: what is there; tuning: choosing
// rates; job: making one run; runner: making all that is missing; emit: lists of jobs for others.
//
// A job makes one run and is a process of its own (`pedrobench sweep FILE --out DIR --only ID`),
// whoever starts it: the runner, GNU parallel, make or Slurm. It holds a lock on OUT/ID.lock, so
// that no two make the same run, and writes when it starts and how it ends to OUT/sweep.jsonl.
#ifndef PB_CLI_SWEEP_H
#define PB_CLI_SWEEP_H

#include "cli/common/experiment.h"
#include "cli/sweep/plan.h"

typedef struct pb_sweep {
    const char *file, *out, *data, *model; // as on the command line; data and model may be NULL
    const char *label;                     // in front of a job's progress; NULL: its id
    double timeout;                        // seconds for each run; 0: none
    bool retry, quiet;
    size_t jobs;          // at a time
    size_t shard, shards; // the shard-th of so many, from 0
    pb_sweep_plan plan;
    pb_cache cache;
} pb_sweep;

bool pb_sweep_in_shard(const pb_sweep *s, const pb_sweep_run *r);

// ---------------------------------------------------------------- state

typedef enum pb_sweep_state {
    PB_SWEEP_COMPLETE, // a verified result of this configuration
    PB_SWEEP_DIVERGED, // likewise, with this end; made again with --retry only
    PB_SWEEP_FAILED,
    PB_SWEEP_RUNNING,    // another process holds its lock
    PB_SWEEP_UNFINISHED, // interrupted, out of time or killed: it goes on
    PB_SWEEP_ERROR,      // the last attempt left no result: it is tried again
    PB_SWEEP_MISSING,
    PB_SWEEP_N_STATES
} pb_sweep_state;

const char *pb_sweep_state_name(pb_sweep_state s);
// `why` gets the message of a run that ended badly, else "". mine: the caller holds its lock.
pb_err pb_sweep_look(pb_sweep *s, pb_sweep_run *r, bool mine, pb_sweep_state *out, char why[512]);
bool pb_sweep_is_locked(const pb_sweep *s, const char *id);
// Whether the backbone is there; an error when it is one of another recipe.
pb_err pb_sweep_backbone(const pb_sweep *s, bool *there);
// Whether nothing has to be done for it.
bool pb_sweep_settled(const pb_sweep *s, pb_sweep_state state);

// ---------------------------------------------------------------- tuning

// Chooses the rate of a tuned run from its trials and puts it into the configuration. *ready is
// false while a trial has no result. The choice and all its trials go to OUT/tuning/CHOICE.json.
pb_err pb_sweep_choose(pb_sweep *s, pb_sweep_run *r, bool *ready);
// The record of a choice, or NULL.
json_t *pb_sweep_choice_record(const pb_sweep *s, const pb_sweep_choice *c);

// ---------------------------------------------------------------- journal

// Appends an event with the time, the host and the process to OUT/sweep.jsonl; takes it over.
pb_err pb_sweep_note(const pb_sweep *s, json_t *event);
// All events, oldest first; lines that a killed process left unfinished are passed over.
pb_err pb_sweep_history(const pb_sweep *s, json_t **out);
// The last event of a run, borrowed, or NULL.
const json_t *pb_sweep_last(const json_t *history, const char *id);
// Seconds that these runs will take, judged by those that are complete; NaN when there are none.
double pb_sweep_estimate(const pb_sweep *s, const json_t *history, const bool *missing);

// ---------------------------------------------------------------- work

// Makes one run. An error is what it ended with.
pb_err pb_sweep_job(pb_sweep *s, pb_sweep_run *r);
// Makes every run of the shard that is missing, a process for each, `jobs` at a time.
pb_err pb_sweep_run_all(pb_sweep *s);

// Prints what is there; an error when not all is complete. `list`: every run, a line each.
pb_err pb_sweep_status(pb_sweep *s, bool list);

// Writes a script for "parallel", "slurm" or "make" to `path`, or standard output.
pb_err pb_sweep_emit(const pb_sweep *s, const char *format, const char *path);

#endif
