// Making all that is missing: one run after the other, each in a process of its own, so that
// whatever happens to a run (no memory, a crash, no time) happens to it alone.
//
// Other processes may work on the same folder. A run that one of them is at is left to it, and so
// is a stage that needs such runs waited for.
#include "cli/sweep/sweep.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef enum fate { OPEN, DONE, BAD, OUTSIDE } fate; // OUTSIDE: of another shard

typedef struct runner {
    pb_sweep *s;
    fate *fate;    // by run
    bool *missing; // for estimates
    size_t total, done, bad, had;
    bool waiting;         // said so
    pb_progress progress; // while nothing is made
} runner;

static void pause_for(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)};
    nanosleep(&t, NULL);
}

// ---------------------------------------------------------------- processes

static void label_of(const runner *w, const pb_sweep_run *r, char out[96])
{
    char left[32] = "", bad[32] = "";
    json_t *history = NULL;
    double seconds = NAN;
    for (size_t i = 0; i < w->s->plan.n_runs; i++)
        w->missing[i] = w->fate[i] == OPEN;
    if (!pb_sweep_history(w->s, &history))
        seconds = pb_sweep_estimate(w->s, history, w->missing);
    json_decref(history);
    if (!isnan(seconds) && seconds < 3600)
        snprintf(left, sizeof left, ", %.0f min left", ceil(seconds / 60));
    else if (!isnan(seconds))
        snprintf(left, sizeof left, ", %.1f h left", seconds / 3600);
    if (w->bad)
        snprintf(bad, sizeof bad, ", %zu bad", w->bad);
    snprintf(out, 96, "[%zu/%zu%s%s] %s", w->done + w->bad + 1, w->total, bad, left, r->id);
}

// The child stops when its parent dies, and leaves Ctrl-C to its parent (see `sweep --label`).
static void become_job(const pb_sweep *s, const pb_sweep_run *r, const char *label, pid_t parent)
{
    char timeout[32];
    const char *argv[24] = {"pedrobench", "sweep", s->file,   "--out", s->out,
                            "--only",     r->id,   "--label", label};
    size_t n = 9;
    const struct {
        const char *option, *value;
    } more[] = {{"--data", s->data}, {"--model", s->model}};
    for (size_t i = 0; i < 2; i++)
        if (more[i].value) {
            argv[n++] = more[i].option;
            argv[n++] = more[i].value;
        }
    snprintf(timeout, sizeof timeout, "%.17g", s->timeout);
    if (s->timeout > 0) {
        argv[n++] = "--timeout";
        argv[n++] = timeout;
    }
    if (s->retry)
        argv[n++] = "--retry";
    if (s->quiet)
        argv[n++] = "--quiet";
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent)
        execv("/proc/self/exe", (char *const *)argv);
    _exit(127);
}

// Waits for the job; an interruption is handed on to it once.
static int wait_for(pid_t child)
{
    int status = 0;
    bool told = false;
    while (waitpid(child, &status, WNOHANG) != child) {
        if (pb_interrupted() && !told) {
            kill(child, SIGTERM);
            told = true;
        }
        pause_for(0.02);
    }
    return status;
}

// A job that was ended by a signal could not say so itself.
static pb_err note_crash(const pb_sweep *s, const pb_sweep_run *r, int signal)
{
    char why[128];
    bool late = signal == SIGALRM;
    snprintf(why, sizeof why, "ended by signal %d (%s)%s", signal, strsignal(signal),
             signal == SIGKILL ? ": out of memory?" : "");
    pb_warn("%s: %s", r->id, why);
    return pb_sweep_note(s, json_pack("{s:s, s:s, s:s, s:s}", "event", "fail", "run", r->id,
                                      "status", late ? "timeout" : "crashed", "message", why));
}

// Its exit code; 1 after a crash.
static pb_err spawn(runner *w, const pb_sweep_run *r, int *code)
{
    char label[96];
    label_of(w, r, label);
    fflush(NULL);
    pb_progress_hide();
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return pb_fail(PB_IO, NULL, "cannot start a process: %s", strerror(errno));
    if (!child)
        become_job(w->s, r, label, parent);
    int status = wait_for(child);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (WIFSIGNALED(status) && !pb_interrupted())
        return note_crash(w->s, r, WTERMSIG(status));
    return PB_OK;
}

// ---------------------------------------------------------------- order

static bool any_running(const pb_sweep *s, bool latency)
{
    for (size_t i = 0; i < s->plan.n_runs; i++)
        if ((s->plan.run[i].stage == PB_STAGE_LATENCY) == latency &&
            pb_sweep_is_locked(s, s->plan.run[i].id))
            return true;
    return false;
}

// Whether the runs of earlier stages that it needs have ended, and (of latency) nothing else runs.
static bool may_start(const runner *w, const pb_sweep_run *r)
{
    const pb_sweep_plan *p = &w->s->plan;
    for (size_t i = 0; i < p->n_runs; i++) {
        const pb_sweep_run *e = &p->run[i];
        bool needed = e->stage == PB_STAGE_BACKBONE || r->stage == PB_STAGE_LATENCY ||
                      (r->choice != PB_NO_CHOICE && e->choice == r->choice);
        if (e->stage < r->stage && needed && w->fate[i] == OPEN)
            return false;
    }
    return !any_running(w->s, r->stage != PB_STAGE_LATENCY);
}

static void settle(runner *w, size_t i, bool good)
{
    w->fate[i] = good ? DONE : BAD;
    w->done += good;
    w->bad += !good;
}

// Makes the run, if it is missing and can be made now.
static pb_err attend(runner *w, size_t i, bool *moved)
{
    pb_sweep *s = w->s;
    pb_sweep_run *r = &s->plan.run[i];
    pb_sweep_state state;
    char why[512];
    int code = 1;
    if (pb_sweep_is_locked(s, r->id) || !may_start(w, r))
        return PB_OK;
    pb_progress_update(&w->progress, (int64_t)(w->done + w->bad), "verifying");
    PB_TRY(pb_sweep_look(s, r, false, &state, why));
    if (state == PB_SWEEP_RUNNING)
        return PB_OK;
    *moved = true;
    if (pb_sweep_settled(s, state)) {
        w->had += state == PB_SWEEP_COMPLETE;
        if (state != PB_SWEEP_COMPLETE)
            pb_info("%s: %s, %s (--retry makes it again)", r->id, pb_sweep_state_name(state), why);
        settle(w, i, state == PB_SWEEP_COMPLETE);
        return PB_OK;
    }
    pb_cache_drop_model(&s->cache); // the job needs the memory
    PB_TRY(spawn(w, r, &code));
    if (pb_interrupted() || code == 130)
        return pb_fail(PB_INTERRUPTED, "run it again to go on", "interrupted at %s", r->id);
    if (code == 75) // another process took it meanwhile
        *moved = false;
    else
        settle(w, i, code == 0);
    return PB_OK;
}

static pb_err round_of(runner *w, bool *moved)
{
    for (size_t i = 0; i < w->s->plan.n_runs; i++) {
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, "run it again to go on", "interrupted");
        if (w->fate[i] == OPEN)
            PB_TRY(attend(w, i, moved));
    }
    return PB_OK;
}

static pb_err all(runner *w)
{
    while (w->done + w->bad < w->total) {
        bool moved = false;
        PB_TRY(round_of(w, &moved));
        if (moved) {
            w->waiting = false;
            continue;
        }
        if (!w->waiting)
            pb_info("[%zu/%zu] the rest is being made by other processes, or waits for them",
                    w->done + w->bad, w->total);
        w->waiting = true;
        pb_progress_update(&w->progress, (int64_t)(w->done + w->bad), "waiting for others");
        pause_for(1);
    }
    return PB_OK;
}

pb_err pb_sweep_run_all(pb_sweep *s)
{
    size_t n = s->plan.n_runs;
    runner w = {.s = s, .fate = calloc(n, sizeof *w.fate), .missing = calloc(n, 1)};
    pb_err err = PB_OK;
    if (!w.fate || !w.missing)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu runs", n));
    for (size_t i = 0; i < n; i++) {
        w.fate[i] = pb_sweep_in_shard(s, &s->plan.run[i]) ? OPEN : OUTSIDE;
        w.total += w.fate[i] == OPEN;
    }
    pb_progress_begin(&w.progress, "sweep", 0, (int64_t)w.total);
    PB_GO(all(&w));
    pb_progress_hide();
    if (w.had)
        pb_info("%zu of %zu runs were complete already", w.had, w.total);
    if (w.bad)
        err = pb_fail(PB_DIVERGED, "`pedrobench sweep --status` lists them",
                      "%zu of %zu runs did not complete", w.bad, w.total);
done:
    free(w.fate);
    free(w.missing);
    return err;
}
