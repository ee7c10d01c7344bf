// `pedrobench table`: comparison and latency tables of result files.
#include "cli/cli.h"
#include "core/log.h"
#include "results/table.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>

typedef struct args {
    pb_summary_options options;
    const char *format, *out, *published;
    bool latency, serving;
    char **files;
    size_t n;
} args;

enum { RESAMPLES = 256, PUBLISHED, SERVING };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    char *end;
    switch (key) {
    case 'f':
        a->format = arg;
        return 0;
    case 'm':
        a->options.metric = arg;
        return 0;
    case 'b':
        a->options.baseline = arg;
        return 0;
    case 's':
        a->options.split = arg;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case PUBLISHED:
        a->published = arg;
        return 0;
    case 'l':
        a->latency = true;
        return 0;
    case SERVING:
        a->serving = true;
        return 0;
    case RESAMPLES: {
        errno = 0;
        long n = strtol(arg, &end, 10);
        if (errno || *end || end == arg || n < 100 || n > 1000000)
            argp_error(state, "--resamples is \"%s\", not a number in 100..1000000", arg);
        a->options.resamples = (size_t)n;
        return 0;
    }
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->n = (size_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no result file or folder was given");
        return EINVAL;
    case ARGP_KEY_SUCCESS:
        if (a->out && (a->format || a->latency || a->serving))
            argp_error(state, "--out writes every table in every format");
        if (a->latency && a->serving)
            argp_error(state, "give one of --latency and --serving");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static pb_err run(int argc, char **argv)
{
    static const char doc[] =
        "Compares the runs of result files or folders: per task the mean, sd and 95 % interval "
        "over "
        "seeds, and the difference to a baseline. Methods with a size knob stand in blocks of one "
        "parameter budget, those without in a block of their own.\v"
        "Examples:\n"
        "  pedrobench table runs/quick\n"
        "  pedrobench table runs/quick --metric loss --baseline ia3\n"
        "  pedrobench table runs/quick --format markdown > table.md\n"
        "  pedrobench table runs/quick --out tables\n"
        "  pedrobench table runs/latency --latency --format csv\n"
        "  pedrobench table serve.h5 --serving\n";
    static const struct argp_option options[] = {
        {"format", 'f', "FORMAT", 0, "text (default), markdown, csv, latex or html", 0},
        {"out", 'o', "FOLDER", 0, "Write every table as .txt, .md, .csv and .tex into FOLDER", 0},
        {"metric", 'm', "NAME", 0, "A metric other than each task's headline", 0},
        {"baseline", 'b', "METHOD", 0, "The method to compare with (default lora, or the only one)",
         0},
        {"published", PUBLISHED, "FILE", 0,
         "Figures of others to show beside the runs (paper/published/figures.json)", 0},
        {"split", 's', "NAME", 0, "The evaluated split (default test)", 0},
        {"latency", 'l', NULL, 0, "The latency table instead of the scores", 0},
        {"serving", SERVING, NULL, 0, "The tables of served workloads instead", 0},
        {"resamples", RESAMPLES, "N", 0, "Bootstrap resamples (default 2000)", 0},
        {0}};
    static const struct argp argp = {options, parse, "FOLDER|FILE...", doc, NULL, NULL, NULL};
    args a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_table_format format;
    PB_TRY(pb_table_format_parse(&format, a.format ? a.format : "text"));
    pb_records records;
    pb_summary summary;
    if (a.published)
        PB_TRY(pb_json_load(&a.options.published, a.published));
    pb_err err = pb_records_load(&records, (const char *const *)a.files, a.n);
    if (!err) {
        err = pb_summarize(&summary, &records, &a.options);
        if (!err) {
            err = a.out       ? pb_table_files(a.out, &summary)
                  : a.serving ? pb_table_served(stdout, &summary, format)
                  : a.latency ? pb_table_latency(stdout, &summary, format)
                              : pb_table_scores(stdout, &summary, format);
            pb_summary_free(&summary);
        }
        pb_records_free(&records);
    }
    json_decref(a.options.published);
    if (!err && a.out)
        pb_info("%s", a.out);
    return err;
}

PB_COMMAND(table) = {"table", "compare methods: scores or latency, as a table", 60, run};
