// Choosing learning rates: the one whose trials reach the lowest validation loss, on average over
// the tuning seeds (and, for one rate on all tasks, the tasks). Nothing else is looked at: the test
// split is not, and test runs use other seeds. A rate counts only if all its trials completed.
#include "cli/sweep/sweep.h"
#include "core/file.h"
#include "core/log.h"
#include "results/load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// The lowest validation loss of a trial: training keeps the values that had it.
static pb_err best_loss(const char *h5, double *out)
{
    pb_records all;
    PB_TRY(pb_records_load(&all, &h5, 1));
    *out = INFINITY;
    for (size_t i = 0; i < all.v[0].valid.n; i++)
        *out = fmin(*out, all.v[0].valid.loss[i]);
    pb_records_free(&all);
    return PB_OK;
}

static double rate_of(const pb_sweep_run *trial)
{
    return json_number_value(json_object_get(trial->config, "lr"));
}

// Appends what became of a trial; false: it has no result yet.
static pb_err record_trial(pb_sweep *s, pb_sweep_run *r, json_t *trials, bool *ready)
{
    pb_sweep_state state;
    char why[512], h5[4096];
    double loss = INFINITY;
    PB_TRY(pb_sweep_look(s, r, false, &state, why));
    *ready = state <= PB_SWEEP_FAILED;
    if (!*ready)
        return PB_OK;
    PB_TRY(pb_sweep_file(h5, sizeof h5, &s->plan, r->id, ".h5"));
    if (state == PB_SWEEP_COMPLETE)
        PB_TRY(best_loss(h5, &loss));
    json_array_append_new(
        trials, json_pack("{s:s, s:s, s:f, s:O, s:s, s:o}", "run", r->id, "task", r->task, "lr",
                          rate_of(r), "seed", json_object_get(r->config, "seed"), "status",
                          pb_sweep_state_name(state), "loss", pb_run_number(loss)));
    return PB_OK;
}

// Mean loss of the trials of a rate; infinite when one has none.
static double mean_loss(const json_t *trials, double rate)
{
    double sum = 0, n = 0;
    for (size_t i = 0; i < json_array_size(trials); i++) {
        const json_t *t = json_array_get(trials, i), *loss = json_object_get(t, "loss");
        if (json_number_value(json_object_get(t, "lr")) != rate)
            continue;
        sum += json_is_number(loss) ? json_number_value(loss) : INFINITY;
        n++;
    }
    return n ? sum / n : INFINITY;
}

// Of equal losses the lowest rate is taken; without any loss too: the runs then show what is wrong.
static json_t *choose(pb_sweep_choice *c, const pb_sweep_run *r, json_t *trials)
{
    size_t best = 0, n = json_array_size(c->rates);
    double lowest = INFINITY;
    json_t *curve = json_array();
    for (size_t i = 0; i < n; i++) {
        double rate = json_number_value(json_array_get(c->rates, i));
        double loss = mean_loss(trials, rate);
        json_array_append_new(curve,
                              json_pack("{s:f, s:o}", "lr", rate, "loss", pb_run_number(loss)));
        if (loss < lowest) {
            lowest = loss;
            best = i;
        }
    }
    c->lr = json_number_value(json_array_get(c->rates, best));
    return json_pack("{s:s, s:s?, s:O?, s:f, s:o, s:b, s:o, s:O}", "method", c->label, "task",
                     c->task, "budget", json_object_get(r->config, "budget"), "lr", c->lr, "loss",
                     pb_run_number(lowest), "at_edge", n > 1 && (best == 0 || best == n - 1),
                     "curve", curve, "trials", trials);
}

static pb_err record_path(const pb_sweep *s, const pb_sweep_choice *c, char path[4096])
{
    char id[4096];
    PB_TRY(pb_path(id, sizeof id, "tuning/%s", c->id));
    return pb_sweep_file(path, 4096, &s->plan, id, ".json");
}

json_t *pb_sweep_choice_record(const pb_sweep *s, const pb_sweep_choice *c)
{
    char path[4096];
    json_t *record;
    if (record_path(s, c, path) || !pb_exists(path) || pb_json_load(&record, path))
        return NULL;
    return record;
}

static void say(const pb_sweep_choice *c, const json_t *record)
{
    const json_t *loss = json_object_get(record, "loss");
    if (!json_is_number(loss))
        pb_warn("no rate of %s has a loss: none of its trials completed", c->id);
    else if (json_is_true(json_object_get(record, "at_edge")))
        pb_warn("the best rate of %s, %g, is at the edge of its grid: widen it", c->id, c->lr);
    else
        pb_info("rate of %s: %g, validation loss %.4f", c->id, c->lr, json_number_value(loss));
}

// Keeps the record, and says what is new.
static pb_err keep(const pb_sweep *s, const pb_sweep_choice *c, const json_t *record)
{
    char path[4096], file[4096 + 8];
    int fd;
    json_t *old = pb_sweep_choice_record(s, c);
    bool known = old && json_equal(old, record);
    json_decref(old);
    if (known)
        return PB_OK;
    PB_TRY(record_path(s, c, path));
    PB_TRY(pb_path(file, sizeof file, "%s.lock", path));
    pb_err err = pb_file_lock(&fd, file);
    if (err) // whoever has it writes the same
        return err == PB_BUSY ? PB_OK : err;
    err = pb_json_save(record, path);
    unlink(file);
    close(fd);
    if (!err)
        say(c, record);
    return err;
}

pb_err pb_sweep_choose(pb_sweep *s, pb_sweep_run *r, bool *ready)
{
    pb_sweep_choice *c = &s->plan.choice[r->choice];
    json_t *trials = json_array(), *record = NULL;
    pb_err err = PB_OK;
    *ready = true;
    for (size_t i = 0; i < s->plan.n_runs && c->lr == 0; i++) {
        pb_sweep_run *t = &s->plan.run[i];
        if (t->stage == PB_STAGE_TUNING && t->choice == r->choice)
            PB_GO(record_trial(s, t, trials, ready));
        if (!*ready)
            goto done;
    }
    if (c->lr == 0) {
        record = choose(c, r, trials);
        PB_GO(keep(s, c, record));
    }
    json_object_set_new(r->config, "lr", json_real(c->lr));
done:
    json_decref(trials);
    json_decref(record);
    return err;
}
