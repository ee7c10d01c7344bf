// `pedrobench plot`: figures of result files, through gnuplot.
#include "cli/cli.h"
#include "core/log.h"
#include "results/bench.h"
#include "results/figure.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

typedef struct args {
    pb_figure_options options;
    pb_summary_options summary;
    const char *terminals;
    char **files;
    size_t n;
} args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    switch (key) {
    case 'o':
        a->options.folder = arg;
        return 0;
    case 'f':
        a->options.only = arg;
        return 0;
    case 'm':
        a->summary.metric = arg;
        return 0;
    case 's':
        a->summary.split = arg;
        return 0;
    case 'b':
        a->summary.baseline = arg;
        return 0;
    case 't':
        a->terminals = arg;
        return 0;
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->n = (size_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no result file or folder was given");
        return EINVAL;
    case ARGP_KEY_SUCCESS:
        if (!a->options.folder)
            argp_error(state, "--out is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// Adds a file of `pedrobench capacity`: {"name", "answers"}.
static pb_err add_answers(json_t *to, const char *path)
{
    const char *base = strrchr(path, '/'), *end = strrchr(path, '.');
    json_t *file = NULL;
    base = base ? base + 1 : path;
    PB_TRY(pb_json_load(&file, path));
    pb_err err = PB_OK;
    json_t *answers = json_object_get(file, "answers");
    if (!json_is_array(answers))
        err = pb_fail(PB_INPUT, "`pedrobench capacity --out` writes such files",
                      "%s holds no answers", path);
    else if (json_array_append_new(
                 to, json_pack("{s:s#, s:O}", "name", base, (int)(end - base), "answers", answers)))
        err = pb_fail(PB_MEMORY, NULL, "no memory for %s", path);
    json_decref(file);
    return err;
}

// Adds the arms of a file of `pedrobench bench scaling`.
static pb_err add_arms(json_t *to, const char *path)
{
    json_t *arms;
    PB_TRY(pb_bench_load(&arms, path));
    pb_err err =
        json_array_extend(to, arms) ? pb_fail(PB_MEMORY, NULL, "no memory for %s", path) : PB_OK;
    json_decref(arms);
    return err;
}

// Takes out of the list what is no result of a run.
static pb_err take_others(pb_summary *m, args *a)
{
    size_t n = a->n;
    a->n = 0;
    m->capacity = json_array();
    m->scaling = json_array();
    if (!m->capacity || !m->scaling)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu files", n);
    for (size_t i = 0; i < n; i++) {
        const char *path = a->files[i], *end = strrchr(path, '.');
        if (end && !strcmp(end, ".json"))
            PB_TRY(add_answers(m->capacity, path));
        else if (end && !strcmp(end, ".h5") && pb_bench_is(path))
            PB_TRY(add_arms(m->scaling, path));
        else
            a->files[a->n++] = a->files[i];
    }
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    static const char doc[] =
        "Draws the figures that the results allow: scores, forest (differences to the baseline), "
        "ablation, score-params, learning-rate, loss, token-time, throughput, time-budget, "
        "time-prompt, time-context, memory; of served workloads served-latency, load, components, "
        "tenants-memory; of files that `pedrobench capacity --out` wrote, capacity; of `pedrobench "
        "bench scaling --out`, scaling-time and scaling-memory. Each leaves "
        "NAME.svg, NAME.png and its numbers, NAME.dat; with --terminals tex NAME.tex and NAME.pdf "
        "for LaTeX. Needs gnuplot; PB_PLOTS may name another folder of scripts.\v"
        "Examples:\n"
        "  pedrobench plot runs/quick --out figures\n"
        "  pedrobench plot runs/quick runs/latency --out figures --figure token-time\n"
        "  pedrobench plot runs/quick --out figures --figure scores --metric loss\n"
        "  pedrobench plot runs/quick --out figures --terminals svg,png,tex\n"
        "  pedrobench plot here.json there.json --out figures\n"
        "  pedrobench plot scaling.h5 --out figures\n";
    static const struct argp_option options[] = {
        {"out", 'o', "FOLDER", 0, "Where the figures go", 0},
        {"figure", 'f', "NAME", 0, "One figure alone", 0},
        {"metric", 'm', "NAME", 0, "A metric other than each task's headline", 0},
        {"split", 's', "NAME", 0, "The evaluated split (default test)", 0},
        {"baseline", 'b', "METHOD", 0, "The method to compare with (default lora, or the only one)",
         0},
        {"terminals", 't', "LIST", 0, "Kinds of files: some of svg,png,tex (default svg,png)", 0},
        {0}};
    static const struct argp argp = {options, parse, "FOLDER|FILE...", doc, NULL, NULL, NULL};
    args a = {.options.terminals = PB_FIGURE_DEFAULT};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    char scripts[4096];
    const char *source = NULL;
#ifdef PB_SOURCE_DIR
    source = PB_SOURCE_DIR;
#endif
    PB_TRY(pb_figure_scripts(scripts, sizeof scripts, source));
    a.options.scripts = scripts;
    if (a.terminals)
        PB_TRY(pb_figure_terminals(&a.options.terminals, a.terminals));
    pb_records records = {0};
    pb_summary summary = {0}, others = {0};
    pb_err err = take_others(&others, &a);
    if (!err && a.n)
        err = pb_records_load(&records, (const char *const *)a.files, a.n);
    if (!err && a.n)
        err = pb_summarize(&summary, &records, &a.summary);
    summary.capacity = others.capacity;
    summary.scaling = others.scaling;
    if (!err) {
        bool drawn[32] = {false};
        err = pb_figures_draw(&summary, &a.options, drawn);
        for (size_t i = 0; !err && pb_figures[i].name; i++)
            for (int t = 0; drawn[i] && t < PB_TERMINALS; t++)
                if (a.options.terminals >> t & 1)
                    pb_info("%s/%s.%s", a.options.folder, pb_figures[i].name,
                            pb_figure_terminal[t]);
    }
    pb_summary_free(&summary);
    pb_records_free(&records);
    return err;
}

PB_COMMAND(plot) = {"plot", "draw figures with gnuplot", 61, run};
