// `--status` and `--dry-run`: what is there of a sweep, verified.
#include "cli/common/grid.h"
#include "cli/sweep/sweep.h"
#include "core/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct seen {
    pb_sweep_state state;
    char why[512];
} seen;

static pb_err look_at_all(pb_sweep *s, seen *v)
{
    pb_progress progress;
    pb_progress_begin(&progress, "verifying", 0, (int64_t)s->plan.n_runs);
    for (size_t i = 0; i < s->plan.n_runs; i++) {
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted while verifying");
        PB_TRY(pb_sweep_look(s, &s->plan.run[i], false, &v[i].state, v[i].why));
        pb_progress_update(&progress, (int64_t)i + 1, NULL);
    }
    return PB_OK;
}

static bool same_row(const pb_sweep_run *a, const pb_sweep_run *b)
{
    return a->stage == b->stage && !strcmp(a->task, b->task) && !strcmp(a->label, b->label);
}

static bool is_first_of_row(const pb_sweep *s, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (same_row(&s->plan.run[k], &s->plan.run[i]) && pb_sweep_in_shard(s, &s->plan.run[k]))
            return false;
    return pb_sweep_in_shard(s, &s->plan.run[i]);
}

static void add_counts(pb_grid *g, const size_t n[PB_SWEEP_N_STATES])
{
    for (int k = 0; k < PB_SWEEP_N_STATES; k++)
        pb_grid_add(g, n[k] ? "%zu" : ".", n[k]);
}

// A row for each stage, task and method.
static pb_err print_table(const pb_sweep *s, const seen *v)
{
    const pb_sweep_plan *p = &s->plan;
    pb_grid g = {.format = PB_TEXT, .cols = 3 + PB_SWEEP_N_STATES};
    const char *const head[] = {"stage", "task", "method"};
    size_t all[PB_SWEEP_N_STATES] = {0};
    for (size_t i = 0; i < 3; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (int k = 0; k < PB_SWEEP_N_STATES; k++)
        pb_grid_add(&g, "%s", pb_sweep_state_name((pb_sweep_state)k));
    for (size_t i = 0; i < p->n_runs; i++) {
        const pb_sweep_run *r = &p->run[i];
        size_t n[PB_SWEEP_N_STATES] = {0};
        if (!is_first_of_row(s, i))
            continue;
        for (size_t k = i; k < p->n_runs; k++)
            if (same_row(&p->run[k], r) && pb_sweep_in_shard(s, &p->run[k])) {
                n[v[k].state]++;
                all[v[k].state]++;
            }
        pb_grid_add(&g, "%s", pb_stage_name(r->stage));
        pb_grid_add(&g, "%s", r->task);
        pb_grid_add(&g, "%s", r->label);
        add_counts(&g, n);
    }
    pb_grid_add(&g, "all");
    pb_grid_add(&g, " ");
    pb_grid_add(&g, " ");
    add_counts(&g, all);
    return pb_grid_print(&g, s->out, 3);
}

static void print_notes(const pb_sweep *s, const seen *v)
{
    const pb_sweep_plan *p = &s->plan;
    for (size_t i = 0; i < p->n_runs; i++)
        if (*v[i].why && pb_sweep_in_shard(s, &p->run[i]))
            printf("%s: %s: %s\n", pb_sweep_state_name(v[i].state), p->run[i].id, v[i].why);
    for (size_t i = 0; i < p->n_choices; i++) {
        json_t *r = pb_sweep_choice_record(s, &p->choice[i]);
        const json_t *loss = json_object_get(r, "loss");
        if (r)
            printf("rate of %s: %g%s\n", p->choice[i].id,
                   json_number_value(json_object_get(r, "lr")),
                   !json_is_number(loss)                         ? ", no trial completed"
                   : json_is_true(json_object_get(r, "at_edge")) ? ", at the edge of its grid"
                                                                 : "");
        json_decref(r);
    }
}

static void print_time(const pb_sweep *s, const bool *missing)
{
    json_t *history;
    if (!pb_sweep_history(s, &history)) {
        double seconds = pb_sweep_estimate(s, history, missing);
        if (isnan(seconds))
            puts("time left: not known before a run is complete");
        else
            printf("time left: about %.0f s of one process\n", seconds);
    }
    json_decref(history);
}

pb_err pb_sweep_status(pb_sweep *s, bool list)
{
    size_t n = s->plan.n_runs, total = 0, open = 0;
    seen *v = calloc(n, sizeof *v);
    bool *missing = calloc(n, sizeof *missing);
    pb_err err = PB_OK;
    if (!v || !missing)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu runs", n));
    PB_GO(look_at_all(s, v));
    for (size_t i = 0; i < n; i++) {
        if (!pb_sweep_in_shard(s, &s->plan.run[i]))
            continue;
        total++;
        open += v[i].state != PB_SWEEP_COMPLETE;
        missing[i] = !pb_sweep_settled(s, v[i].state);
        if (list)
            printf("%-10s  %s\n", pb_sweep_state_name(v[i].state), s->plan.run[i].id);
    }
    if (list)
        goto done;
    PB_GO(print_table(s, v));
    print_notes(s, v);
    if (open) {
        print_time(s, missing);
        err = pb_fail(PB_INPUT,
                      "without --status they are made, but for those that diverged or "
                      "failed (--retry)",
                      "%zu of %zu runs are not complete", open, total);
    }
done:
    free(v);
    free(missing);
    return err;
}
