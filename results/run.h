// One run, one file: an append-only journal while the run goes on, an HDF5 file at its end.
//
// x.jsonl holds one event (a JSON object) per line; every event is written at once, so a killed
// process loses at most its last line. pb_run_finish builds x.h5 from the journal (never from
// memory), so that pb_run_rebuild can do it again after a crash: image in memory -> x.h5.tmp ->
// read back and verified -> synced -> renamed -> folder synced. An existing x.h5 stays untouched
// until then. The journal of a "complete" or "diverged" run is removed after that; that of a
// "failed" or "interrupted" one stays, so that the run can be resumed.
//
// Events, by their key "event" (? = may be absent; other keys are kept as attributes where the
// table ends in "..." and are errors elsewhere):
//
//   params  method, knob? (name), knob_value?, budget?, trainable, saved_bytes?, bytes_per_tenant?,
//           flops_per_token?, sites?: [{name, rows, cols, count}], ...
//   step    step, loss, lr?, grad_norm?, tokens?, seconds?    tokens and seconds: since the last
//   one valid   step, loss?, score? eval    task, split? ("test"), headline?, higher_is_better?
//   (true), metrics: {name: number},
//           per_example?: {name: [numbers] or [[numbers]]}, outputs?: [strings], ...
//           Metrics and their per-example statistics: tasks/metrics/measures.c. An array of
//           several numbers per item ("bleu_stats") is flat or nested.
//   latency scenario ("decode/lora/different/16"), samples_ns: [integers], attrs: {name: value}
//           `rows` = sequences in the batch; `tokens_per_sample` = tokens that one sample handled,
//           over all rows. `sharing` "limit": what the machine did in the same rounds, with
//           flops_per_sample or bytes_per_sample. An equal scenario later replaces the earlier one.
//   serve   about: {...}, requests, steps, loads, tokens: {column: [integers]}, see serving.h; a
//           later one replaces it
//   note    free keys and values, kept as attributes of /notes
//   resume  step: later events replace the step and valid events after that step
//   (start and end are written by pb_run_open and pb_run_finish.)
//
// Numbers: JSON has no NaN. A non-finite number is written as null (pb_run_number does it), and
// becomes NaN in the HDF5 file; a run that holds one cannot end as "complete": pb_run_finish
// returns PB_DIVERGED and names the event, and the caller ends it as "diverged" instead. So every
// number of a complete run is finite.
#ifndef PB_RESULTS_RUN_H
#define PB_RESULTS_RUN_H

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PB_RUN_SCHEMA         "pedrobench-run"
#define PB_RUN_SCHEMA_VERSION 1

typedef struct pb_run pb_run;

typedef enum pb_run_status {
    PB_RUN_COMPLETE,
    PB_RUN_DIVERGED,
    PB_RUN_FAILED,
    PB_RUN_INTERRUPTED,
    PB_RUN_MISSING // of no file: there is none, or a damaged or foreign one
} pb_run_status;

const char *pb_run_status_name(pb_run_status s);

// Starts the journal of h5_path (which must end in ".h5"; missing folders are made) and locks it
// against a second writer. config, seeds and env are copied; seeds and env may be NULL. env holds
// what only the caller knows, such as {"blis_kernel": "skx"}; the rest is collected (env.h).
//
// With `resume`, a journal of the same configuration is continued (a torn last line is cut off) and
// pb_run_resumed() is true: write a "resume" event with the checkpoint's step next. A journal of
// another configuration is an error. Without `resume`, or without a journal, the run starts anew.
pb_err pb_run_open(pb_run **out, const char *h5_path, const json_t *config, const json_t *seeds,
                   const json_t *env, bool resume);
bool pb_run_resumed(const pb_run *r);

// Checks an event and appends it. `event` is taken over, also on failure; NULL (json_pack returns
// it for a NaN) is an error.
pb_err pb_run_event(pb_run *r, json_t *event);

json_t *pb_run_number(double x); // a JSON number; null when x is not finite
// A JSON string of a model's output: bytes that are not UTF-8 (and NUL) become U+FFFD, since
// neither JSON nor HDF5 text can hold them.
json_t *pb_run_text(const char *bytes, size_t n);

// The two frequent events. NaN for lr, grad_norm, tokens or seconds = not known, left out.
typedef struct pb_run_step {
    int64_t step;
    double loss, lr, grad_norm, tokens, seconds;
} pb_run_step;
pb_err pb_run_log_step(pb_run *r, const pb_run_step *s);
// attrs is taken over, also on failure.
pb_err pb_run_log_latency(pb_run *r, const char *scenario, json_t *attrs, const int64_t *samples_ns,
                          size_t n);

pb_err pb_run_sync(pb_run *r); // to be called at checkpoints

// Writes the end event, builds and verifies the HDF5 file. Frees r when it succeeds; after an error
// the journal is still there and r is still open: finish again (with another status) or abandon.
pb_err pb_run_finish(pb_run *r, pb_run_status status, const char *message);
void pb_run_abandon(pb_run *r); // closes, leaves the journal for a later resume; NULL is fine

// Builds h5_path again from its journal, after a crash. A journal without an end event gives the
// status "interrupted". The journal stays.
pb_err pb_run_rebuild(const char *h5_path);

// Whether h5_path is an undamaged result of this configuration with the status "complete".
// config_sha256 NULL accepts any configuration. A missing, damaged or foreign file is no error but
// "not complete"; `why` (may be NULL) then receives the reason.
pb_err pb_run_is_complete(const char *h5_path, const char *config_sha256, bool *yes, char *why,
                          size_t why_size);

// The status of an undamaged result of this configuration, and in `why` the message it recorded;
// PB_RUN_MISSING, and why, of everything else.
pb_err pb_run_look(pb_run_status *out, const char *h5_path, const char *config_sha256, char *why,
                   size_t why_size);

// SHA-256 of the canonical JSON text: sorted keys, no spaces, reals with 17 digits. The same text
// is the attribute "json" of /config.
pb_err pb_config_hash(char out[PB_HASH_LEN], const json_t *config);

#endif
