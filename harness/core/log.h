// Messages and progress on standard error; standard output is for results.
//
// On a terminal a progress line is redrawn in place; elsewhere plain lines appear now and then.
// `--quiet` silences both, never errors or results.
#ifndef PB_CORE_LOG_H
#define PB_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

void pb_log_quiet(bool quiet);
bool pb_log_is_quiet(void);
void pb_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void pb_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

typedef struct pb_progress {
    char label[96];
    int64_t total, done;
    double start, last_draw;
    int64_t done_at_start; // for a resumed run: work that was there before the clock started
    double interval;       // seconds between plain lines
} pb_progress;

void pb_progress_begin(pb_progress *p, const char *label, int64_t done, int64_t total);
// `detail` is free text such as "loss 2.31  812 tokens/s"; may be NULL.
void pb_progress_update(pb_progress *p, int64_t done, const char *detail);
void pb_progress_end(pb_progress *p, const char *detail);
void pb_progress_lines(void); // on a terminal too: others write to it at the same time
void pb_progress_hide(void);  // before another process writes to the terminal

// Ctrl-C and SIGTERM set a flag that long loops look at; a second one ends the program at once.
void pb_signals_install(void);
bool pb_interrupted(void);
// Asks to stop after so many seconds, as SIGTERM does; whoever then takes more than a minute is
// ended by SIGALRM.
void pb_time_limit(double seconds);
bool pb_timed_out(void); // whether that was (also) why

#endif
