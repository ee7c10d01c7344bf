#include "cli/sweep/plan.h"

#include "cli/common/common.h"
#include "cli/common/experiment.h"
#include "cli/common/latency_run.h"
#include "core/file.h"
#include "methods/method.h"
#include "tasks/task.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What the file says, while it is unfolded.
typedef struct unfolding {
    pb_sweep_plan *p;
    const json_t *defaults, *tasks, *methods, *budgets, *seeds; // NULL where absent
    const json_t *tuning, *trial_seeds;
    bool per_task; // a rate for each task
    json_t *ids;   // those in use
} unfolding;

const char *pb_stage_name(pb_stage s)
{
    static const char *const names[] = {"backbone", "tuning", "test", "latency"};
    return names[s];
}

pb_err pb_sweep_file(char *out, size_t size, const pb_sweep_plan *p, const char *id,
                     const char *extension)
{
    return pb_path(out, size, "%s/%s%s", p->out, id, extension);
}

pb_sweep_run *pb_sweep_find(const pb_sweep_plan *p, const char *id)
{
    for (size_t i = 0; i < p->n_runs; i++)
        if (!strcmp(p->run[i].id, id))
            return &p->run[i];
    return NULL;
}

void pb_sweep_plan_free(pb_sweep_plan *p)
{
    for (size_t i = 0; i < p->n_runs; i++) {
        free(p->run[i].id);
        json_decref(p->run[i].config);
    }
    for (size_t i = 0; i < p->n_choices; i++)
        free(p->choice[i].id);
    free(p->run);
    free(p->choice);
    json_decref(p->recipe);
    json_decref(p->own_rates);
    json_decref(p->file);
    *p = (pb_sweep_plan){0};
}

// ---------------------------------------------------------------- checks

static pb_err check_label(const char *label)
{
    for (const char *s = label; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._+-", *s))
            return pb_fail(PB_INPUT, "use letters, digits and . _ + -",
                           "\"%s\" would be part of a file name", label);
    return *label && *label != '.' ? PB_OK
                                   : pb_fail(PB_INPUT, "give it a name", "the label \"%s\"", label);
}

static pb_err check_seeds(const json_t *seeds, const char *what)
{
    if (!json_array_size(seeds))
        return pb_fail(PB_INPUT, "e.g. [1, 2, 3]", "%s is not a list of seeds", what);
    for (size_t i = 0; i < json_array_size(seeds); i++) {
        const json_t *s = json_array_get(seeds, i);
        if (!json_is_integer(s) || json_integer_value(s) < 0)
            return pb_fail(PB_INPUT, "use whole numbers", "%s: number %zu is no seed", what, i + 1);
        for (size_t k = 0; k < i; k++)
            if (json_equal(s, json_array_get(seeds, k)))
                return pb_fail(PB_INPUT, "leave one out", "%s has %lld twice", what,
                               (long long)json_integer_value(s));
    }
    return PB_OK;
}

// Learning rates: positive and rising, so that the ends of a grid are its first and its last.
static pb_err check_rates(const json_t *rates, const char *what)
{
    if (!json_array_size(rates))
        return pb_fail(PB_INPUT, "e.g. [0.001, 0.003, 0.01]", "%s is not a list of learning rates",
                       what);
    double last = 0;
    for (size_t i = 0; i < json_array_size(rates); i++) {
        double x = json_number_value(json_array_get(rates, i)); // 0 of what is no number
        if (!(x > last))
            return pb_fail(PB_INPUT, "positive numbers, rising", "%s: number %zu is out of place",
                           what, i + 1);
        last = x;
    }
    return PB_OK;
}

// Differences of a level: keys of a run, but not those that the file says in other places.
static pb_err check_level(const json_t *level, const char *what, bool method)
{
    static const char *const elsewhere[][2] = {{"task", "the file's \"tasks\" say it"},
                                               {"seed", "the file's \"seeds\" say it"},
                                               {"model", "the file's \"model\" says it"},
                                               {"kind", "latency has a key of its own"}};
    PB_TRY(pb_experiment_keys(level, what));
    for (size_t i = 0; i < 4; i++)
        if (json_object_get(level, elsewhere[i][0]))
            return pb_fail(PB_INPUT, elsewhere[i][1], "%s has the key \"%s\"", what,
                           elsewhere[i][0]);
    if (!method && json_is_array(json_object_get(level, "lr")))
        return pb_fail(PB_INPUT, "put it into the entry of a method", "%s has a list of rates",
                       what);
    return PB_OK;
}

static pb_err check_budgets(const unfolding *u)
{
    if (!u->budgets)
        return PB_OK;
    if (!json_array_size(u->budgets))
        return pb_fail(PB_INPUT, "e.g. [\"1%\", \"3%\"]", "\"budgets\" is not a list of budgets");
    for (size_t i = 0; i < json_array_size(u->budgets); i++) {
        const json_t *b = json_array_get(u->budgets, i);
        if (!json_is_string(b) && !json_is_integer(b))
            return pb_fail(PB_INPUT, "use e.g. \"0.5%\" or 50000",
                           "\"budgets\": number %zu is no budget", i + 1);
    }
    if (json_object_get(u->defaults, "budget"))
        return pb_fail(PB_INPUT, "keep one of them", "both \"budgets\" and a \"budget\" for all");
    return PB_OK;
}

// ---------------------------------------------------------------- runs

static const char *name_of(const char *label, const json_t *m)
{
    const char *name = json_string_value(json_object_get(m, "method"));
    return name ? name : label;
}

// A run that trains nothing is the same for every seed, and has no rate.
static bool trains(const char *label, const json_t *m)
{
    return strcmp(name_of(label, m), "none") != 0;
}

static bool is_tuned(const unfolding *u, const char *label, const json_t *m)
{
    return u->tuning && trains(label, m);
}

// Objects of two levels (options, limits) add up, other keys replace each other.
static void overlay(json_t *config, const json_t *over)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)over, key, value)
    {
        json_t *below = json_object_get(config, key);
        if (json_is_object(below) && json_is_object(value))
            json_object_update(below, value);
        else
            json_object_set_new(config, key, json_deep_copy(value));
    }
}

// "1%" -> "-1pct", 50000 -> "-50000"
static pb_err budget_suffix(char out[64], const json_t *budget)
{
    *out = 0;
    if (json_is_integer(budget))
        snprintf(out, 64, "-%lld", (long long)json_integer_value(budget));
    const char *text = json_string_value(budget);
    if (!text)
        return PB_OK;
    size_t n = strlen(text);
    bool share = n && text[n - 1] == '%';
    snprintf(out, 64, "-%.*s%s", (int)(n - share), text, share ? "pct" : "");
    return check_label(out);
}

// What a run is made of. budget and rate: of lists; NULL otherwise. choice: PB_NO_CHOICE or its
// number. seed < 0: none.
typedef struct cell {
    pb_stage stage;
    const char *path, *task, *label; // path: of the task, as the file has it
    const json_t *t, *m, *budget;
    double rate;
    bool list; // the rate is one of several
    json_int_t seed;
    long choice;
} cell;

static json_t *config_of(const unfolding *u, const cell *c)
{
    static const char *const own[] = {"seeds", "lr", "trials", "rate_per", "tasks"};
    json_t *j = json_object();
    overlay(j, u->defaults);
    overlay(j, c->t);
    if (!json_object_get(c->m, "method"))
        json_object_set_new(j, "method", json_string(c->label));
    overlay(j, c->m);
    if (c->stage == PB_STAGE_TUNING) {
        json_t *over = json_deep_copy(u->tuning);
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            json_object_del(over, own[i]);
        overlay(j, over);
        json_decref(over);
    }
    if (u->budgets && !json_object_get(j, "budget"))
        json_object_set_new(j, "budget", c->budget ? json_deep_copy(c->budget) : json_null());
    if (c->rate > 0)
        json_object_set_new(j, "lr", json_real(c->rate));
    else if (c->choice != PB_NO_CHOICE)
        json_object_del(j, "lr");
    json_object_set_new(j, "task", json_string(c->path));
    json_object_set_new(j, "seed", json_integer(c->seed));
    json_object_set_new(j, "model", json_string(u->p->model));
    return j;
}

// The run takes the configuration over.
static pb_err add(unfolding *u, pb_sweep_run run, const char *id, json_t *config)
{
    pb_sweep_plan *p = u->p;
    if (p->n_runs == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        pb_sweep_run *more = realloc(p->run, room * sizeof *more);
        if (!more)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu runs", room);
        p->run = more;
        p->room = room;
    }
    run.id = strdup(id);
    run.config = config;
    run.unit = run.choice == PB_NO_CHOICE ? p->n_units++ : (size_t)run.choice;
    p->run[p->n_runs++] = run;
    if (!run.id || !config)
        return pb_fail(PB_MEMORY, NULL, "no memory for the run %s", id);
    if (json_object_get(u->ids, id))
        return pb_fail(PB_INPUT, "give a method or a task another label",
                       "two runs would be written to %s.h5", id);
    json_object_set_new(u->ids, id, json_true());
    return PB_OK;
}

static pb_err add_cell(unfolding *u, const cell *c)
{
    char id[1024], rate[32] = "", budget[64];
    PB_TRY(budget_suffix(budget, c->budget));
    if (c->list)
        snprintf(rate, sizeof rate, "-lr%g", c->rate);
    PB_TRY(pb_path(id, sizeof id, "%s%s/%s%s%s-seed%lld",
                   c->stage == PB_STAGE_TUNING ? "tuning/" : "", c->task, c->label, budget, rate,
                   (long long)c->seed));
    json_t *config = config_of(u, c);
    pb_err err = pb_experiment_check(config);
    if (err) {
        json_decref(config);
        return pb_context(err, "%s", id);
    }
    pb_sweep_run run = {.stage = c->stage, .task = c->task, .label = c->label, .choice = c->choice};
    return add(u, run, id, config);
}

// ---------------------------------------------------------------- grids

// The budgets of the list that count for a method on a task: none where one of the two has its own,
// and none for a method without a knob.
static size_t n_budgets(const unfolding *u, const json_t *t, const char *label, const json_t *m)
{
    const pb_method *method = pb_method_find(name_of(label, m));
    bool own = json_object_get(t, "budget") || json_object_get(m, "budget");
    return u->budgets && !own && method && method->knob ? json_array_size(u->budgets) : 0;
}

static const json_t *rates_of(const unfolding *u, const char *label)
{
    const json_t *given = json_object_get(json_object_get(u->tuning, "lr"), label);
    return given ? given : json_object_get(u->p->own_rates, label);
}

// Finds or makes the choice of a tuned method's rate.
static pb_err choice_of(unfolding *u, const cell *c, long *out)
{
    char id[1024], budget[64];
    pb_sweep_plan *p = u->p;
    PB_TRY(budget_suffix(budget, c->budget));
    PB_TRY(pb_path(id, sizeof id, "%s%s%s%s", u->per_task ? c->task : "", u->per_task ? "/" : "",
                   c->label, budget));
    for (size_t i = 0; i < p->n_choices; i++)
        if (!strcmp(p->choice[i].id, id)) {
            *out = (long)i;
            return PB_OK;
        }
    pb_sweep_choice *more = realloc(p->choice, (p->n_choices + 1) * sizeof *more);
    if (!more)
        return pb_fail(PB_MEMORY, NULL, "no memory for a choice");
    p->choice = more;
    more[p->n_choices] = (pb_sweep_choice){strdup(id), c->label, u->per_task ? c->task : NULL,
                                           rates_of(u, c->label), 0};
    *out = (long)p->n_choices++;
    p->n_units = p->n_choices; // units of choices come first
    return more[*out].id ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a choice");
}

// The runs of a method on a task with a seed: of all budgets and rates.
static pb_err add_grid(unfolding *u, cell c)
{
    size_t n = n_budgets(u, c.t, c.label, c.m);
    const json_t *rates =
        c.stage == PB_STAGE_TUNING ? rates_of(u, c.label) : json_object_get(c.m, "lr");
    for (size_t i = 0; i < (n ? n : 1); i++) {
        c.budget = n ? json_array_get(u->budgets, i) : NULL;
        c.choice = PB_NO_CHOICE;
        if (is_tuned(u, c.label, c.m))
            PB_TRY(choice_of(u, &c, &c.choice));
        c.list = json_is_array(rates);
        for (size_t k = 0; k < (c.list ? json_array_size(rates) : 1); k++) {
            c.rate = c.list ? json_number_value(json_array_get(rates, k)) : 0;
            PB_TRY(add_cell(u, &c));
        }
    }
    return PB_OK;
}

static bool tuned_on(const unfolding *u, const char *task)
{
    const json_t *some = json_object_get(u->tuning, "tasks");
    for (size_t i = 0; i < json_array_size(some); i++)
        if (!strcmp(json_string_value(json_array_get(some, i)), task))
            return true;
    return !some;
}

static pb_err add_stage(unfolding *u, pb_stage stage)
{
    const json_t *seeds = stage == PB_STAGE_TUNING ? u->trial_seeds : u->seeds;
    const char *path, *label;
    json_t *t, *m;
    json_object_foreach((json_t *)u->tasks, path, t)
    {
        const pb_task *task;
        PB_TRY(pb_task_open(&task, path));
        if (stage == PB_STAGE_TUNING && !tuned_on(u, path))
            continue;
        for (size_t i = 0; i < json_array_size(seeds); i++)
            json_object_foreach((json_t *)u->methods, label, m)
            {
                cell c = {.stage = stage,
                          .path = path,
                          .task = task->name,
                          .label = label,
                          .t = t,
                          .m = m,
                          .seed = json_integer_value(json_array_get(seeds, i))};
                if (stage == PB_STAGE_TUNING ? is_tuned(u, label, m) : trains(label, m) || !i)
                    PB_TRY(add_grid(u, c));
            }
    }
    return PB_OK;
}

// ---------------------------------------------------------------- tuning

static pb_err check_own_rates(unfolding *u, const char *label, const json_t *m)
{
    char what[160];
    const pb_method *method = pb_method_find(name_of(label, m));
    if (!method)
        return PB_INPUT;
    json_t *own = json_array();
    json_object_set_new(u->p->own_rates, label, own);
    for (const double *x = method->lr_grid; x && *x > 0; x++)
        json_array_append_new(own, json_real(*x));
    snprintf(what, sizeof what, "the grid of %s in \"tuning\"", label);
    return check_rates(rates_of(u, label), what);
}

static pb_err check_equal_trials(const unfolding *u, const char *label, size_t *n,
                                 const char **first)
{
    size_t rates = json_array_size(rates_of(u, label));
    if (*n && rates != *n)
        return pb_fail(PB_INPUT,
                       "equal trials for every method: give grids of one length in \"tuning\": "
                       "{\"lr\": {LABEL: [...]}}",
                       "%s is to be tuned over %zu rates, %s over %zu", label, rates,
                       *first ? *first : "\"trials\" says all", *n);
    if (!*n)
        *first = label;
    *n = rates;
    return PB_OK;
}

static pb_err check_tuning(unfolding *u)
{
    static const char *const known[] = {"seeds", "lr",         "trials", "rate_per", "tasks",
                                        "limit", "eval_every", "steps",  "patience", NULL};
    const json_t *tasks = json_object_get(u->tuning, "tasks"),
                 *lr = json_object_get(u->tuning, "lr");
    const char *per = "task", *label, *first = NULL;
    int64_t trials = 0;
    json_t *m;
    if (!u->tuning)
        return PB_OK;
    PB_TRY(pb_json_only(u->tuning, known, "\"tuning\""));
    u->trial_seeds = json_object_get(u->tuning, "seeds");
    PB_TRY(check_seeds(u->trial_seeds, "\"seeds\" of \"tuning\""));
    for (size_t i = 0; i < json_array_size(u->trial_seeds); i++)
        for (size_t k = 0; k < json_array_size(u->seeds); k++)
            if (json_equal(json_array_get(u->trial_seeds, i), json_array_get(u->seeds, k)))
                return pb_fail(PB_INPUT, "a rate is tested with seeds that it was not chosen with",
                               "seed %lld is both a tuning and a test seed",
                               (long long)json_integer_value(json_array_get(u->seeds, k)));
    PB_TRY(pb_json_opt_str(u->tuning, "rate_per", &per));
    u->per_task = !strcmp(per, "task");
    if (!u->per_task && strcmp(per, "method"))
        return pb_fail(PB_INPUT, "use \"task\", or \"method\" for one rate on all tasks",
                       "\"rate_per\" is \"%s\"", per);
    if (tasks && u->per_task)
        return pb_fail(PB_INPUT, "say \"rate_per\": \"method\"",
                       "rates per task need trials on every task, but \"tuning\" lists its own");
    if (tasks && !json_array_size(tasks))
        return pb_fail(PB_INPUT, "e.g. [\"sql\"]",
                       "\"tasks\" of \"tuning\" is not a list of tasks");
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const char *task = json_string_value(json_array_get(tasks, i));
        if (!task || !json_object_get(u->tasks, task))
            return pb_fail(PB_INPUT, "name some of the file's \"tasks\"",
                           "\"tuning\" names the task \"%s\", which the file does not have",
                           task ? task : "?");
    }
    if (lr && !json_is_object(lr))
        return pb_fail(PB_INPUT, "{\"lora\": [0.001, 0.003]}", "\"lr\" of \"tuning\" is no object");
    json_object_foreach((json_t *)lr, label, m)
    {
        const json_t *method = json_object_get(u->methods, label);
        if (!method || !trains(label, method))
            return pb_fail(PB_INPUT, "use the labels of \"methods\"",
                           "\"tuning\" has rates for \"%s\", which is no method to tune", label);
    }
    PB_TRY(pb_json_opt_int(u->tuning, "trials", &trials, 1, 1000));
    size_t n = (size_t)trials;
    json_object_foreach((json_t *)u->methods, label, m)
    {
        if (!trains(label, m))
            continue;
        if (json_object_get(m, "lr"))
            return pb_fail(PB_INPUT, "leave it out, or leave \"tuning\" out",
                           "the rate of \"%s\" is both given and to be tuned", label);
        PB_TRY(check_own_rates(u, label, m));
        PB_TRY(check_equal_trials(u, label, &n, &first));
    }
    return PB_OK;
}

// ---------------------------------------------------------------- the file

static pb_err check_training(unfolding *u)
{
    const char *label;
    char what[160];
    json_t *level;
    if (!json_object_size(u->tasks) || !json_object_size(u->methods) || !u->seeds)
        return pb_fail(PB_INPUT, "see paper/README.md",
                       "\"tasks\", \"methods\" and \"seeds\" go together");
    PB_TRY(check_seeds(u->seeds, "\"seeds\""));
    if (u->defaults)
        PB_TRY(check_level(u->defaults, "\"defaults\"", false));
    json_object_foreach((json_t *)u->tasks, label, level)
    {
        snprintf(what, sizeof what, "the task %s", label);
        PB_TRY(check_level(level, what, false));
    }
    json_object_foreach((json_t *)u->methods, label, level)
    {
        snprintf(what, sizeof what, "the method %s", label);
        PB_TRY(check_label(label));
        PB_TRY(check_level(level, what, true));
        if (!json_object_get(level, "adapter") && !pb_method_find(name_of(label, level)))
            return PB_INPUT;
        if (json_is_array(json_object_get(level, "lr")))
            PB_TRY(check_rates(json_object_get(level, "lr"), what));
    }
    PB_TRY(check_budgets(u));
    return check_tuning(u);
}

// Where the model is, or will be.
static pb_err find_model(unfolding *u, const char *given)
{
    pb_sweep_plan *p = u->p;
    const char *folder = "backbone";
    json_t *recipe = json_object_get(p->file, "backbone");
    if (given)
        return pb_path(p->model, sizeof p->model, "%s", given);
    PB_TRY(pb_json_opt_str(p->file, "model", &given));
    if (given && recipe)
        return pb_fail(PB_INPUT, "keep one of them", "both \"model\" and \"backbone\"");
    if (given) { // relative to the experiment file
        const char *slash = strrchr(p->path, '/');
        int prefix = *given != '/' && slash ? (int)(slash - p->path) + 1 : 0;
        return pb_path(p->model, sizeof p->model, "%.*s%s", prefix, p->path, given);
    }
    if (!recipe)
        return pb_path(p->model, sizeof p->model, "%s", pb_default_model());
    PB_TRY(pb_json_opt_str(recipe, "folder", &folder));
    PB_TRY(pb_path(p->model, sizeof p->model, "%s/%s", p->out, folder));
    p->recipe = json_deep_copy(recipe);
    json_object_del(p->recipe, "folder");
    pb_sweep_run run = {
        .stage = PB_STAGE_BACKBONE, .task = "", .label = "", .choice = PB_NO_CHOICE};
    return add(u, run, "backbone", json_object());
}

// Every rate that is waited for has trials.
static pb_err check_choices(const pb_sweep_plan *p)
{
    for (size_t i = 0; i < p->n_choices; i++) {
        bool found = false;
        for (size_t k = 0; k < p->n_runs && !found; k++)
            found = p->run[k].stage == PB_STAGE_TUNING && p->run[k].choice == (long)i;
        if (!found)
            return pb_fail(PB_INPUT, "give the tasks of \"tuning\" the same budgets",
                           "no trial would choose the rate of %s", p->choice[i].id);
    }
    return PB_OK;
}

static pb_err latency_id(char *out, size_t size, const json_t *given, bool named)
{
    const char *name = "";
    if (!json_is_object(given))
        return pb_fail(PB_INPUT, NULL, "it is neither an object nor a list of objects");
    if (named) {
        PB_TRY(pb_json_str(given, "name", &name));
        PB_TRY(check_label(name));
    }
    snprintf(out, size, named ? "latency/%.100s" : "latency%s", name);
    return PB_OK;
}

// One latency run; of several each has a name of its own.
static pb_err add_latency(unfolding *u, const json_t *given, bool named)
{
    char id[160] = "latency";
    json_t *full = NULL, *c = NULL;
    pb_sweep_run run = {.stage = PB_STAGE_LATENCY, .task = "", .label = "", .choice = PB_NO_CHOICE};
    pb_err err = latency_id(id, sizeof id, given, named);
    if (err)
        return pb_context(err, "\"latency\"");
    c = json_deep_copy(given);
    if (named)
        json_object_del(c, "name");
    json_object_set_new(c, "kind", json_string("latency"));
    if (!json_object_get(c, "model"))
        json_object_set_new(c, "model", json_string(u->p->model));
    err = pb_latency_config(&full, c);
    if (err) {
        json_decref(c);
        return pb_context(err, "\"%s\"", id);
    }
    json_decref(full);
    return add(u, run, id, c);
}

static pb_err add_latencies(unfolding *u)
{
    const json_t *given = json_object_get(u->p->file, "latency");
    if (!given || !json_is_array(given))
        return given ? add_latency(u, given, false) : PB_OK;
    for (size_t i = 0; i < json_array_size(given); i++)
        PB_TRY(add_latency(u, json_array_get(given, i), true));
    return PB_OK;
}

static pb_err unfold(unfolding *u, const char *model)
{
    static const char *const known[] = {"name",     "doc",    "backbone", "model",
                                        "defaults", "tasks",  "methods",  "budgets",
                                        "seeds",    "tuning", "latency",  NULL};
    const json_t *f = u->p->file;
    PB_TRY(pb_json_only(f, known, "it"));
    u->defaults = json_object_get(f, "defaults");
    u->tasks = json_object_get(f, "tasks");
    u->methods = json_object_get(f, "methods");
    u->budgets = json_object_get(f, "budgets");
    u->seeds = json_object_get(f, "seeds");
    u->tuning = json_object_get(f, "tuning");
    if (u->tasks || u->methods || u->tuning)
        PB_TRY(check_training(u));
    PB_TRY(find_model(u, model));
    if (u->tuning)
        PB_TRY(add_stage(u, PB_STAGE_TUNING));
    if (u->tasks)
        PB_TRY(add_stage(u, PB_STAGE_TEST));
    PB_TRY(check_choices(u->p));
    PB_TRY(add_latencies(u));
    return u->p->n_runs ? PB_OK : pb_fail(PB_INPUT, "see paper/README.md", "it has no runs");
}

pb_err pb_sweep_plan_read(pb_sweep_plan *p, const char *path, const char *out, const char *model)
{
    *p = (pb_sweep_plan){.path = path, .out = out};
    unfolding u = {.p = p, .ids = json_object()};
    p->own_rates = json_object();
    pb_err err = pb_json_load(&p->file, path);
    if (!err && (err = unfold(&u, model)))
        pb_context(err, "%s", path);
    json_decref(u.ids);
    return err;
}
