// A job: one run of a sweep, in a process of its own.
#include "cli/common/latency_run.h"
#include "cli/common/pretraining.h"
#include "cli/sweep/sweep.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"

#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void say(const char *label, const pb_experiment_result *r)
{
    const pb_measure *m = r->metric;
    pb_info("%s: %s %.*f%s%s, loss %.3f, %.1f s", label, m->name, m->digits, m->scale * r->score,
            *m->unit ? " " : "", m->unit, r->loss, r->seconds);
}

static pb_err train(pb_sweep *s, pb_sweep_run *r, const char *h5)
{
    pb_experiment_result result;
    bool ready = true;
    if (r->stage == PB_STAGE_TEST && r->choice != PB_NO_CHOICE)
        PB_TRY(pb_sweep_choose(s, r, &ready));
    if (!ready)
        return pb_fail(PB_INPUT, "make the runs of the tuning stage first",
                       "the rate of %s is not chosen: trials are missing",
                       s->plan.choice[r->choice].id);
    pb_experiment_args args = {s->data, s->label, 200, r->stage == PB_STAGE_TEST};
    PB_TRY(pb_experiment_run(&result, r->config, h5, &s->cache, &args));
    if (result.status != PB_RUN_COMPLETE)
        return pb_fail(result.error, result.hint, "%s: %s", pb_run_status_name(result.status),
                       result.why);
    say(s->label, &result);
    return PB_OK;
}

static pb_err work(pb_sweep *s, pb_sweep_run *r)
{
    char h5[4096];
    bool there;
    PB_TRY(pb_sweep_file(h5, sizeof h5, &s->plan, r->id, ".h5"));
    if (r->stage == PB_STAGE_BACKBONE)
        return pb_pretrain(s->plan.recipe, s->plan.model);
    PB_TRY(pb_sweep_backbone(s, &there));
    if (!there)
        return pb_fail(PB_INPUT, "make the run \"backbone\" first", "there is no backbone %s",
                       s->plan.model);
    if (r->stage == PB_STAGE_LATENCY)
        return pb_latency_run(r->config, NULL, h5);
    return train(s, r, h5);
}

// The journal's word for an error. What a result file records bears that file's word.
static const char *status_of(pb_err err)
{
    return err == PB_INTERRUPTED ? (pb_timed_out() ? "timeout" : "interrupted")
           : err == PB_DIVERGED  ? "diverged"
                                 : "failed";
}

// Notes how it ended; the error that comes back is the run's.
static pb_err note_end(const pb_sweep *s, const pb_sweep_run *r, pb_err err, double seconds)
{
    char message[1024], hint[512];
    if (!err)
        return pb_sweep_note(
            s, json_pack("{s:s, s:s, s:f}", "event", "finish", "run", r->id, "seconds", seconds));
    snprintf(message, sizeof message, "%s", pb_error_message());
    snprintf(hint, sizeof hint, "%s", pb_error_hint());
    PB_TRY(pb_sweep_note(s, json_pack("{s:s, s:s, s:s, s:o, s:f}", "event", "fail", "run", r->id,
                                      "status", status_of(err), "message",
                                      pb_run_text(message, strlen(message)), "seconds", seconds)));
    if (err == PB_INTERRUPTED && pb_timed_out()) // it may go on: no reason to end with 130
        return pb_fail(PB_IO, "run it again to go on, with more time if need be",
                       "%s: stopped after %g s: %s", r->id, s->timeout, message);
    return pb_fail(err, hint, "%s: %s", r->id, message);
}

static pb_err make(pb_sweep *s, pb_sweep_run *r)
{
    double start = pb_now();
    PB_TRY(pb_sweep_note(s, json_pack("{s:s, s:s}", "event", "start", "run", r->id)));
    if (s->timeout > 0)
        pb_time_limit(s->timeout);
    pb_err err = work(s, r);
    return note_end(s, r, err, pb_now() - start);
}

pb_err pb_sweep_job(pb_sweep *s, pb_sweep_run *r)
{
    char path[4096], folder[4096], why[512];
    int fd;
    pb_sweep_state state;
    if (!s->label)
        s->label = r->id;
    PB_TRY(pb_sweep_file(path, sizeof path, &s->plan, r->id, ".lock"));
    memcpy(folder, path, sizeof folder);
    PB_TRY(pb_make_dirs(dirname(folder)));
    PB_TRY(pb_file_lock(&fd, path));
    pb_err err = pb_sweep_look(s, r, true, &state, why); // by now another may have made it
    if (!err && state == PB_SWEEP_COMPLETE)
        pb_info("%s is complete already", r->id);
    else if (!err && pb_sweep_settled(s, state))
        err = pb_fail(PB_INPUT, "--retry makes it again", "%s %s: %s", r->id,
                      pb_sweep_state_name(state), why);
    else if (!err)
        err = make(s, r);
    unlink(path);
    close(fd);
    return err;
}
