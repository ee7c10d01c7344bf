// What is there of a run: its lock, its verified result, what it left behind.
#include "cli/sweep/sweep.h"
#include "cli/common/pretraining.h"
#include "cli/common/latency_run.h"
#include "core/file.h"
#include "results/run.h"

#include <stdio.h>
#include <string.h>

const char *pb_sweep_state_name(pb_sweep_state s)
{
    static const char *const names[] = {"complete",   "diverged", "failed", "running",
                                        "unfinished", "error",    "missing"};
    return names[s];
}

bool pb_sweep_in_shard(const pb_sweep *s, const pb_sweep_run *r)
{
    return r->stage == PB_STAGE_BACKBONE || r->unit % s->shards == s->shard;
}

bool pb_sweep_settled(const pb_sweep *s, pb_sweep_state state)
{
    return state == PB_SWEEP_COMPLETE ||
           (!s->retry && (state == PB_SWEEP_DIVERGED || state == PB_SWEEP_FAILED));
}

static bool has(const pb_sweep *s, const char *id, const char *extension)
{
    char path[4096];
    return !pb_sweep_file(path, sizeof path, &s->plan, id, extension) && pb_exists(path);
}

pb_err pb_sweep_backbone(const pb_sweep *s, bool *there)
{
    char path[4096 + 16];
    *there = true;
    if (!s->plan.recipe)
        return PB_OK;
    PB_TRY(pb_path(path, sizeof path, "%s/recipe.json", s->plan.model));
    *there = pb_exists(path);
    return *there ? pb_pretrain(s->plan.recipe, s->plan.model) : PB_OK; // compares the recipes
}

static pb_err look_at_latency(const pb_sweep_run *r, const char *h5, pb_run_status *out,
                              char why[512])
{
    json_t *full;
    char hash[PB_HASH_LEN];
    PB_TRY(pb_latency_config(&full, r->config));
    pb_err err = pb_config_hash(hash, full);
    json_decref(full);
    return err ? err : pb_run_look(out, h5, hash, why, 512);
}

// Of the result file, which is verified; PB_RUN_MISSING where it cannot be known yet.
static pb_err look_at_result(pb_sweep *s, pb_sweep_run *r, pb_run_status *out, char why[512])
{
    char h5[4096];
    bool ready = true, there;
    *out = PB_RUN_MISSING;
    PB_TRY(pb_sweep_file(h5, sizeof h5, &s->plan, r->id, ".h5"));
    PB_TRY(pb_sweep_backbone(s, &there));
    if (r->stage == PB_STAGE_BACKBONE && there)
        *out = PB_RUN_COMPLETE;
    if (r->stage == PB_STAGE_BACKBONE || !there || !pb_exists(h5))
        return PB_OK;
    if (r->stage == PB_STAGE_LATENCY)
        return look_at_latency(r, h5, out, why);
    if (r->stage == PB_STAGE_TEST && r->choice != PB_NO_CHOICE)
        PB_TRY(pb_sweep_choose(s, r, &ready));
    pb_experiment_args args = {.data = s->data};
    return ready ? pb_experiment_look(out, r->config, h5, &s->cache, &args, why, 512) : PB_OK;
}

bool pb_sweep_is_locked(const pb_sweep *s, const char *id)
{
    char path[4096];
    return !pb_sweep_file(path, sizeof path, &s->plan, id, ".lock") && pb_file_is_locked(path);
}

// How its last attempt ended, of a run without a result.
static pb_err look_at_remains(const pb_sweep *s, const pb_sweep_run *r, pb_sweep_state *out,
                              char why[512])
{
    json_t *history;
    pb_err err = pb_sweep_history(s, &history);
    const json_t *e = pb_sweep_last(history, r->id);
    const char *event = json_string_value(json_object_get(e, "event"));
    const char *status = json_string_value(json_object_get(e, "status"));
    const char *message = json_string_value(json_object_get(e, "message"));
    *out = has(s, r->id, ".jsonl") ? PB_SWEEP_UNFINISHED : PB_SWEEP_MISSING;
    if (event && !strcmp(event, "fail")) {
        bool stopped = status && (!strcmp(status, "timeout") || !strcmp(status, "interrupted"));
        *out = stopped ? PB_SWEEP_UNFINISHED : PB_SWEEP_ERROR;
        snprintf(why, 512, "%s", message ? message : "");
    }
    json_decref(history);
    return err;
}

pb_err pb_sweep_look(pb_sweep *s, pb_sweep_run *r, bool mine, pb_sweep_state *out, char why[512])
{
    pb_run_status status;
    *why = 0;
    *out = PB_SWEEP_RUNNING;
    if (!mine && pb_sweep_is_locked(s, r->id))
        return PB_OK;
    pb_err err = look_at_result(s, r, &status, why);
    if (err == PB_MEMORY || err == PB_INTERRUPTED)
        return err;
    if (err) { // such as data that is not there
        *out = PB_SWEEP_ERROR;
        snprintf(why, 512, "%s", pb_error_message());
        return PB_OK;
    }
    if (status != PB_RUN_MISSING && status != PB_RUN_INTERRUPTED) {
        *out = status == PB_RUN_COMPLETE   ? PB_SWEEP_COMPLETE
               : status == PB_RUN_DIVERGED ? PB_SWEEP_DIVERGED
                                           : PB_SWEEP_FAILED;
        return PB_OK;
    }
    *why = 0;
    return look_at_remains(s, r, out, why);
}
