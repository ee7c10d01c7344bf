// Making all that is missing: so many runs at a time, each in a process of its own, so that
// whatever happens to a run (no memory, a crash, no time) happens to it alone.
//
// Other processes may work on the same folder. A run that one of them is at is left to it, and so
// is a stage that needs such runs waited for.
#include "cli/sweep/sweep.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

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
    pid_t *child;  // by run; 0: none
    bool *missing; // for estimates
    size_t total, done, bad, had, running;
    bool told;            // the children, that they shall stop
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
        seconds = pb_sweep_estimate(w->s, history, w->missing) / (double)w->s->jobs;
    json_decref(history);
    if (!isnan(seconds) && seconds < 3600)
        snprintf(left, sizeof left, ", %.0f min left", ceil(seconds / 60));
    else if (!isnan(seconds))
        snprintf(left, sizeof left, ", %.1f h left", seconds / 3600);
    if (w->bad)
        snprintf(bad, sizeof bad, ", %zu bad", w->bad);
    snprintf(out, 96, "[%zu/%zu%s%s] %s", w->done + w->bad + w->running + 1, w->total, bad, left,
             r->id);
}

// Jobs side by side share the threads; the backbone and the latency experiment are made alone.
static void share_threads(const pb_sweep *s, const pb_sweep_run *r)
{
    char number[24];
    size_t n = (size_t)pb_threads() / s->jobs;
    if (s->jobs == 1 || r->stage == PB_STAGE_BACKBONE || r->stage == PB_STAGE_LATENCY)
        return;
    snprintf(number, sizeof number, "%zu", n ? n : 1);
    setenv("PB_THREADS", number, 1);
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
    if (s->jobs > 1)
        argv[n++] = "--lines";
    share_threads(s, r);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent)
        execv("/proc/self/exe", (char *const *)argv);
    _exit(127);
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

static pb_err spawn(runner *w, size_t i)
{
    const pb_sweep_run *r = &w->s->plan.run[i];
    char label[96];
    label_of(w, r, label);
    fflush(NULL);
    pb_progress_hide();
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return pb_fail(PB_IO, NULL, "cannot start a process: %s", strerror(errno));
    if (!child)
        become_job(w->s, r, label, parent);
    w->child[i] = child;
    w->running++;
    return PB_OK;
}

static void settle(runner *w, size_t i, bool good)
{
    w->fate[i] = good ? DONE : BAD;
    w->done += good;
    w->bad += !good;
}

static pb_err note_end(runner *w, size_t i, int status)
{
    const pb_sweep_run *r = &w->s->plan.run[i];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    w->child[i] = 0;
    w->running--;
    if (code == 130 || pb_interrupted())
        return pb_fail(PB_INTERRUPTED, "run it again to go on", "interrupted at %s", r->id);
    if (code != 75) // 75: another process took it meanwhile
        settle(w, i, code == 0);
    return WIFSIGNALED(status) ? note_crash(w->s, r, WTERMSIG(status)) : PB_OK;
}

static void tell_children(runner *w)
{
    for (size_t i = 0; i < w->s->plan.n_runs && !w->told; i++)
        if (w->child[i])
            kill(w->child[i], SIGTERM);
    w->told = true;
}

// Takes note of the jobs that have ended; an interruption is handed on to the others once.
static pb_err reap(runner *w, bool *moved)
{
    pb_err err = PB_OK;
    int status;
    if (pb_interrupted())
        tell_children(w);
    for (size_t i = 0; i < w->s->plan.n_runs && w->running && !err; i++)
        if (w->child[i] && waitpid(w->child[i], &status, WNOHANG) == w->child[i]) {
            *moved = true;
            err = note_end(w, i, status);
        }
    return err;
}

// After an error: the jobs that still run end too, and keep what they have.
static void end_children(runner *w)
{
    int status;
    tell_children(w);
    for (size_t i = 0; i < w->s->plan.n_runs && w->running; i++)
        if (w->child[i] && waitpid(w->child[i], &status, 0) == w->child[i])
            w->running--;
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

// Whether the runs of earlier stages that it needs have ended, and (of latency) nothing else runs,
// not even another latency run.
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
    bool alone = r->stage == PB_STAGE_LATENCY;
    return !any_running(w->s, true) && !(alone && (w->running || any_running(w->s, false)));
}

// Begins to make the run, if it is missing and can be made now.
static pb_err attend(runner *w, size_t i, bool *moved)
{
    pb_sweep *s = w->s;
    pb_sweep_run *r = &s->plan.run[i];
    pb_sweep_state state;
    char why[512];
    if (w->child[i] || pb_sweep_is_locked(s, r->id) || !may_start(w, r))
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
    return spawn(w, i);
}

static pb_err round_of(runner *w, bool *moved)
{
    for (size_t i = 0; i < w->s->plan.n_runs && w->running < w->s->jobs; i++) {
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, "run it again to go on", "interrupted");
        if (w->fate[i] == OPEN)
            PB_TRY(attend(w, i, moved));
    }
    if (w->running) // the terminal is theirs
        pb_progress_hide();
    return PB_OK;
}

static pb_err all(runner *w)
{
    while (w->done + w->bad < w->total) {
        bool moved = false;
        PB_TRY(reap(w, &moved));
        PB_TRY(round_of(w, &moved));
        if (moved || w->running) {
            w->waiting = false;
            pause_for(moved ? 0 : w->running == w->s->jobs ? 0.02 : 0.2);
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
    runner w = {.s = s,
                .fate = calloc(n, sizeof *w.fate),
                .child = calloc(n, sizeof *w.child),
                .missing = calloc(n, 1)};
    pb_err err = PB_OK;
    if (!w.fate || !w.child || !w.missing)
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
    if (w.running)
        end_children(&w);
    free(w.fate);
    free(w.child);
    free(w.missing);
    return err;
}
