// The journal's events: checked when they are written and again when they are read, by the same
// code, and gathered into what one HDF5 file holds.
#ifndef PB_RESULTS_JOURNAL_H
#define PB_RESULTS_JOURNAL_H

#include "core/error.h"
#include "core/json.h"
#include "results/run.h"

// What the next event is checked against.
typedef struct pb_journal_state {
    bool started;
    int64_t last_step, last_valid; // -1 before the first
    double seconds;                // of earlier processes, from their end events
    char config_sha256[PB_HASH_LEN];
} pb_journal_state;

pb_err pb_journal_check(pb_journal_state *s, const json_t *event);

// Columns of train (loss, lr, grad_norm, tokens, seconds) or valid (loss, score).
enum { PB_CURVE_COLS = 5 };
typedef struct pb_curve_row {
    int64_t step;
    double v[PB_CURVE_COLS];
    bool known[PB_CURVE_COLS];
} pb_curve_row;
typedef struct pb_curve_rows {
    pb_curve_row *rows;
    size_t n, room;
} pb_curve_rows;

// What is left of a journal's events after later ones replaced earlier ones.
typedef struct pb_journal {
    json_t *start, *params, *serve, *end; // those behind the first may be NULL
    json_t *evals, *latencies;            // objects: group name -> event
    json_t *notes;                        // array
    pb_curve_rows train, valid;
    int64_t n_resumes;
    size_t good_bytes;    // up to the last whole line
    char non_finite[160]; // the first number that is not finite, "" when there is none
    pb_journal_state state;
} pb_journal;

// Reads a journal; a torn last line is left out. `j` must be released also after an error. A
// journal without one whole line gives start = NULL.
pb_err pb_journal_read(pb_journal *j, const char *path);
void pb_journal_free(pb_journal *j);

// Builds, verifies and publishes the HDF5 file.
pb_err pb_journal_build(const pb_journal *j, const char *h5_path);

// "x.h5" -> "x.jsonl"
pb_err pb_journal_path(char *out, size_t size, const char *h5_path);

#endif
