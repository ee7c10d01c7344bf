// `pedrobench sweep`: all runs of an experiment file; finished ones are skipped.
//
// An experiment file says what differs from the defaults:
//   {"backbone": {"folder": "backbone", ...recipe...} or "model": PATH (neither: the suite's own),
//    "defaults": {...}, "tasks": {NAME: {...}}, "methods": {LABEL: {...}},
//    "seeds": [1, 2, 3], "latency": {...}}
// A run is defaults + its task's + its method's differences + the seed. A method's label is its
// name unless its differences say {"method": NAME}, so that variants of one method can stand side
// by side.
#include "cli/common/common.h"
#include "cli/common/experiment.h"
#include "cli/common/latency_run.h"
#include "cli/common/pretraining.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *file, *out, *data, *model;
    bool quiet;
};

static const struct argp_option opts[] = {
    {"out", 'o', "DIR", 0, "Folder of the results", 0},
    {"data", 'd', "DIR", 0, "Folder with the original files of data sets", 0},
    {"model", 'm', "PATH", 0, "Backbone, instead of the one the file names", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'o':
        a->out = arg;
        break;
    case 'd':
        a->data = arg;
        break;
    case 'm':
        a->model = arg;
        break;
    case 'q':
        a->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (a->file)
            argp_error(state, "one experiment file at a time");
        a->file = arg;
        break;
    case ARGP_KEY_END:
        if (!a->file || !a->out)
            argp_error(state, "an experiment file and --out are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "FILE",
    "Runs every run of an experiment file and its latency experiment. Complete and undamaged "
    "results of the same configuration are left alone; interrupted runs go on.\v"
    "Examples:\n"
    "  pedrobench sweep paper/quick.json --out runs/quick\n"
    "  pedrobench sweep paper/stories-e2e.json --data DATA \\\n"
    "      --model DATA/weights/stories260K/checkpoint_legacy.bin --out runs/stories",
    NULL,
    NULL,
    NULL};

typedef struct sweep {
    json_t *file;
    const struct args *a;
    char model[4096];
    size_t total, done, skipped, failed;
    double start;
    pb_cache cache;
} sweep;

static pb_err backbone(sweep *s)
{
    json_t *b = json_object_get(s->file, "backbone");
    const char *path = s->a->model, *folder = "backbone";
    if (path)
        return pb_path(s->model, sizeof s->model, "%s", path);
    PB_TRY(pb_json_opt_str(s->file, "model", &path));
    if (path) { // relative to the experiment file
        const char *slash = strrchr(s->a->file, '/');
        int prefix = *path != '/' && slash ? (int)(slash - s->a->file) + 1 : 0;
        return pb_path(s->model, sizeof s->model, "%.*s%s", prefix, s->a->file, path);
    }
    if (!b)
        return pb_path(s->model, sizeof s->model, "%s", pb_default_model());
    json_t *recipe = json_deep_copy(b);
    pb_err err = pb_json_opt_str(recipe, "folder", &folder);
    if (!err)
        err = pb_path(s->model, sizeof s->model, "%s/%s", s->a->out, folder);
    json_object_del(recipe, "folder");
    if (!err)
        err = pb_pretrain(recipe, s->model);
    json_decref(recipe);
    return err;
}

// The options of two levels add up, other keys replace each other.
static void overlay(json_t *config, const json_t *over)
{
    json_t *options = json_object_get(config, "options");
    json_t *kept = options ? json_deep_copy(options) : json_object();
    json_t *more = json_object_get(over, "options");
    if (over)
        json_object_update(config, (json_t *)over);
    if (more)
        json_object_update(kept, more);
    json_object_set_new(config, "options", kept);
}

static pb_err one(sweep *s, const char *task, const json_t *t, const char *label, const json_t *m,
                  json_int_t seed)
{
    char h5[4096], shown[96];
    pb_experiment_result r;
    json_t *c = json_object();
    overlay(c, json_object_get(s->file, "defaults"));
    overlay(c, t);
    if (!json_object_get(m, "method"))
        json_object_set_new(c, "method", json_string(label));
    overlay(c, m);
    json_object_set_new(c, "task", json_string(task));
    json_object_set_new(c, "seed", json_integer(seed));
    json_object_set_new(c, "model", json_string(s->model));
    snprintf(shown, sizeof shown, "[%zu/%zu] %s, %s, seed %lld", s->done + 1, s->total, task, label,
             (long long)seed);
    pb_experiment_args args = {s->a->data, shown, 200, true};
    pb_err err =
        pb_path(h5, sizeof h5, "%s/%s/%s-seed%lld.h5", s->a->out, task, label, (long long)seed);
    if (!err)
        err = pb_experiment_run(&r, c, h5, &s->cache, &args);
    json_decref(c);
    if (err)
        return pb_context(err, "%s", shown);
    s->done++;
    if (r.skipped) {
        s->skipped++;
    } else if (strcmp(r.status, "complete")) {
        s->failed++;
        pb_warn("%s: %s (%s)", shown, r.status, r.why);
    } else {
        double spent = pb_now() - s->start, fresh = (double)(s->done - s->skipped);
        pb_info("%s: %s %.*f%s%s, loss %.3f, %.1f s; about %.0f s left for all", shown,
                r.metric->name, r.metric->digits, r.metric->scale * r.score,
                *r.metric->unit ? " " : "", r.metric->unit, r.loss, r.seconds,
                spent / fresh * (double)(s->total - s->done));
    }
    return PB_OK;
}

// A run that trains nothing is the same for every seed.
static size_t seeds_of(const json_t *m, const char *label, const json_t *seeds)
{
    const char *name = json_string_value(json_object_get(m, "method"));
    return !strcmp(name ? name : label, "none") ? 1 : json_array_size(seeds);
}

static pb_err runs(sweep *s)
{
    json_t *tasks = json_object_get(s->file, "tasks"),
           *methods = json_object_get(s->file, "methods");
    json_t *seeds = json_object_get(s->file, "seeds"), *t, *m;
    const char *task, *label;
    if (!tasks && !methods)
        return PB_OK;
    if (!json_object_size(tasks) || !json_object_size(methods) || !json_array_size(seeds))
        return pb_fail(PB_INPUT, "see paper/quick.json",
                       "%s needs \"tasks\", \"methods\" and \"seeds\"", s->a->file);
    for (size_t i = 0; i < json_array_size(seeds); i++)
        if (!json_is_integer(json_array_get(seeds, i)))
            return pb_fail(PB_INPUT, "use whole numbers", "%s: seed number %zu is no integer",
                           s->a->file, i + 1);
    json_object_foreach(tasks, task, t) json_object_foreach(methods, label, m) s->total +=
        seeds_of(m, label, seeds);
    s->start = pb_now();
    json_object_foreach(tasks, task, t) for (size_t i = 0; i < json_array_size(seeds); i++)
        json_object_foreach(methods, label, m) if (i < seeds_of(m, label, seeds))
            PB_TRY(one(s, task, t, label, m, json_integer_value(json_array_get(seeds, i))));
    return PB_OK;
}

static pb_err latency(sweep *s)
{
    json_t *given = json_object_get(s->file, "latency");
    char h5[4096];
    if (!given)
        return PB_OK;
    json_t *c = json_deep_copy(given);
    json_object_set_new(c, "kind", json_string("latency"));
    if (!json_object_get(c, "random"))
        json_object_set_new(c, "model", json_string(s->model));
    pb_err err = pb_path(h5, sizeof h5, "%s/latency.h5", s->a->out);
    if (!err)
        err = pb_latency_run(c, NULL, h5);
    json_decref(c);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_log_quiet(a.quiet);
    static const char *const known[] = {"name",  "doc",     "backbone", "model",   "defaults",
                                        "tasks", "methods", "seeds",    "latency", NULL};
    sweep s = {.a = &a};
    pb_err err = PB_OK;
    PB_GO(pb_json_load(&s.file, a.file));
    PB_GO(pb_json_only(s.file, known, a.file));
    PB_GO(pb_make_dirs(a.out));
    PB_GO(backbone(&s));
    PB_GO(runs(&s));
    pb_cache_free(&s.cache);
    PB_GO(latency(&s));
    if (s.skipped)
        pb_info("%zu of %zu runs were complete already", s.skipped, s.total);
    if (s.failed)
        err = pb_fail(PB_DIVERGED, "`pedrobench table` lists them",
                      "%zu of %zu runs did not complete", s.failed, s.total);
done:
    pb_cache_free(&s.cache);
    json_decref(s.file);
    return err;
}

PB_COMMAND(sweep) = {"sweep", "run all of an experiment file", 31, run};
