// `pedrobench sweep`: all runs of an experiment file (paper/README.md says what is in one).
#include "cli/common/common.h"
#include "cli/sweep/sweep.h"
#include "core/file.h"
#include "core/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct args {
    pb_sweep s;
    const char *only, *emit, *to;
    bool status, list;
} args;

enum {
    KEY_TIMEOUT = 1000,
    KEY_STATUS,
    KEY_RETRY,
    KEY_SHARD,
    KEY_EMIT,
    KEY_TO,
    KEY_ONLY,
    KEY_LABEL,
    KEY_LINES
};

static const struct argp_option opts[] = {
    {"out", 'o', "DIR", 0, "Folder of the results", 0},
    {"data", 'd', "DIR", 0, "Folder with the original files of data sets", 0},
    {"model", 'm', "PATH", 0, "Backbone, instead of the one the file names", 0},
    {"jobs", 'j', "N", 0,
     "Runs at a time (default 1), which share the threads: faster where models are small; each "
     "has its own model in memory. Results are the same",
     0},
    {"timeout", KEY_TIMEOUT, "TIME", 0,
     "Stop a run after 90, 90s, 30m or 2h; it is unfinished, and goes on the next time", 0},
    {"retry", KEY_RETRY, 0, 0, "Also the runs that diverged or failed", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    {"status", KEY_STATUS, 0, 0,
     "Show what is complete (verified), running, failed and missing; exit code 0 when all is "
     "complete",
     1},
    {"dry-run", 'n', 0, 0, "Print every run and its state, a line each", 1},
    {"shard", KEY_SHARD, "I/N", 0,
     "The I-th of N parts, for machines that share no folder; a chosen rate stays with its runs",
     2},
    {"only", KEY_ONLY, "RUN", 0, "This run alone, by the name that --dry-run shows", 2},
    {"emit", KEY_EMIT, "FORMAT", 0, "Print a script of all runs for parallel, slurm or make", 2},
    {"to", KEY_TO, "FILE", 0, "Write the script there", 2},
    // The runner's: also leaves Ctrl-C to it.
    {"label", KEY_LABEL, "TEXT", OPTION_HIDDEN, 0, 0},
    {"lines", KEY_LINES, 0, OPTION_HIDDEN, 0, 0},
    {0}};

static void parse_timeout(struct argp_state *state, const char *arg, double *out)
{
    char *end;
    double v = strtod(arg, &end);
    double unit = !strcmp(end, "h") ? 3600 : !strcmp(end, "m") ? 60 : 1;
    bool known = !*end || !strcmp(end, "s") || unit > 1;
    if (end == arg || !known || !(v * unit >= 0.001 && v * unit < 1e8))
        argp_error(state, "--timeout is \"%s\", not a time such as 90s, 30m or 2h", arg);
    *out = v * unit;
}

static void parse_shard(struct argp_state *state, const char *arg, pb_sweep *s)
{
    int end = 0;
    if (sscanf(arg, "%zu/%zu%n", &s->shard, &s->shards, &end) != 2 || arg[end] || !s->shard ||
        s->shard > s->shards)
        argp_error(state, "--shard is \"%s\", not e.g. 1/4", arg);
    s->shard--;
}

static void check(struct argp_state *state, const args *a)
{
    if (!a->s.file || !a->s.out)
        argp_error(state, "an experiment file and --out are needed");
    if ((a->only != NULL) + (a->emit != NULL) + a->status + a->list > 1)
        argp_error(state, "--only, --emit, --status and --dry-run exclude each other");
    if (a->to && !a->emit)
        argp_error(state, "--to is for --emit");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    pb_sweep *s = &a->s;
    switch (key) {
    case 'o':
        s->out = arg;
        break;
    case 'd':
        s->data = arg;
        break;
    case 'm':
        s->model = arg;
        break;
    case 'j':
        if (pb_parse_size(arg, "--jobs", &s->jobs))
            pb_usage_error(state);
        if (!s->jobs || s->jobs > 1024)
            argp_error(state, "--jobs is %s, not 1 to 1024", arg);
        break;
    case 'q':
        s->quiet = true;
        break;
    case 'n':
        a->list = true;
        break;
    case KEY_TIMEOUT:
        parse_timeout(state, arg, &s->timeout);
        break;
    case KEY_STATUS:
        a->status = true;
        break;
    case KEY_RETRY:
        s->retry = true;
        break;
    case KEY_SHARD:
        parse_shard(state, arg, s);
        break;
    case KEY_ONLY:
        a->only = arg;
        break;
    case KEY_EMIT:
        a->emit = arg;
        break;
    case KEY_TO:
        a->to = arg;
        break;
    case KEY_LABEL:
        s->label = arg;
        signal(SIGINT, SIG_IGN);
        break;
    case KEY_LINES:
        pb_progress_lines();
        break;
    case ARGP_KEY_ARG:
        if (s->file)
            argp_error(state, "one experiment file at a time");
        s->file = arg;
        break;
    case ARGP_KEY_END:
        check(state, a);
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
    "Makes every run of an experiment file that is missing: trials that choose learning rates, "
    "runs on the test split, the latency experiment. Each is a process of its own, and one that "
    "fails does not end the sweep. Complete and undamaged results of the same configuration are "
    "left alone; interrupted and killed runs go on. A second sweep on the same folder at the same "
    "time shares the work.\v"
    "An experiment file holds what differs from the defaults:\n"
    "  {\"model\": PATH, or \"backbone\": {recipe},     (neither: the suite's own backbone)\n"
    "   \"defaults\": {...}, \"tasks\": {NAME: {...}}, \"methods\": {LABEL: {...}},\n"
    "   \"budgets\": [\"1%\", \"3%\"], \"seeds\": [1, 2, 3],\n"
    "   \"tuning\": {\"seeds\": [101], \"lr\": {LABEL: [0.001, 0.003, 0.01]}},\n"
    "   \"latency\": {...}}\n"
    "A run is defaults + its task's + its method's differences + a budget, a rate and a seed. The "
    "keys are in paper/README.md.\n\n"
    "Examples:\n"
    "  pedrobench sweep paper/quick.json --out runs/quick\n"
    "  pedrobench sweep paper/quick.json --out runs/quick --jobs 2\n"
    "  pedrobench sweep paper/quick.json --out runs/quick --status\n"
    "  pedrobench sweep paper/quick.json --out runs/quick --shard 1/4 --timeout 2h\n"
    "  pedrobench sweep paper/quick.json --out runs/quick --emit make --to jobs.mk\n"
    "  pedrobench sweep paper/stories-e2e.json --data DATA \\\n"
    "      --model DATA/weights/stories260K/checkpoint_legacy.bin --out runs/stories\n\n"
    "DIR/sweep.jsonl says when each run was started and how it ended. `pedrobench collect` links "
    "the results of several folders, such as shards, into one file.",
    NULL,
    NULL,
    NULL};

static pb_err only(pb_sweep *s, const char *id)
{
    pb_sweep_run *r = pb_sweep_find(&s->plan, id);
    if (!r)
        return pb_fail(PB_USAGE, "--dry-run lists them", "%s has no run \"%s\"", s->file, id);
    return pb_sweep_job(s, r);
}

static pb_err run(int argc, char **argv)
{
    args a = {.s = {.shards = 1, .jobs = 1}};
    pb_sweep *s = &a.s;
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_log_quiet(s->quiet);
    pb_err err = pb_sweep_plan_read(&s->plan, s->file, s->out, s->model);
    if (!err && a.emit)
        err = pb_sweep_emit(s, a.emit, a.to);
    else if (!err && (a.status || a.list))
        err = pb_sweep_status(s, a.list);
    else if (!err && a.only)
        err = only(s, a.only);
    else if (!err)
        err = pb_sweep_run_all(s);
    pb_cache_free(&s->cache);
    pb_sweep_plan_free(&s->plan);
    return err;
}

PB_COMMAND(sweep) = {"sweep", "make all runs of an experiment file", 31, run};
