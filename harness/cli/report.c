// `pedrobench report`: everything about a folder of results in one HTML page.
#include "cli/cli.h"
#include "core/file.h"
#include "core/log.h"
#include "results/report.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct args {
    const char *out, *title;
    pb_summary_options summary;
    bool no_figures;
    char **files;
    size_t n;
} args;

enum { NO_FIGURES = 256, TITLE };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    switch (key) {
    case 'o':
        a->out = arg;
        return 0;
    case 'm':
        a->summary.metric = arg;
        return 0;
    case 'b':
        a->summary.baseline = arg;
        return 0;
    case 's':
        a->summary.split = arg;
        return 0;
    case TITLE:
        a->title = arg;
        return 0;
    case NO_FIGURES:
        a->no_figures = true;
        return 0;
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->n = (size_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no result file or folder was given");
        return EINVAL;
    case ARGP_KEY_SUCCESS:
        if (!a->out)
            argp_error(state, "--out is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// The command line as it can be typed again; argv before argp reorders it.
static char *command_line(int argc, char **argv)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    for (int i = 0; i < argc; i++) {
        bool plain =
            i == 0 || (*argv[i] && !argv[i][strcspn(argv[i], " \t\n'\"\\$`*?[]{}()<>|&;~#!")]);
        fputs(i ? " " : "", f);
        if (!plain)
            fputc('\'', f);
        for (const char *s = argv[i]; *s; s++) {
            if (*s == '\'' && !plain)
                fputs("'\\'", f);
            fputc(*s, f);
        }
        if (!plain)
            fputc('\'', f);
    }
    fclose(f);
    return text;
}

static void remove_figures(const char *folder)
{
    static const char *const ends[] = {"svg", "dat"};
    char path[4096];
    for (size_t i = 0; pb_figures[i].name; i++)
        for (size_t k = 0; k < 2; k++)
            if (!pb_path(path, sizeof path, "%s/%s.%s", folder, pb_figures[i].name, ends[k]))
                unlink(path);
    rmdir(folder);
}

static pb_err write_report(const args *a, const pb_summary *s, const pb_records *records,
                           const char *command)
{
    bool drawn[32] = {false};
    char folder[4096] = "";
    pb_err err = PB_OK;
    if (!a->no_figures) {
        char scripts[4096];
        const char *source = NULL, *tmp = getenv("TMPDIR");
#ifdef PB_SOURCE_DIR
        source = PB_SOURCE_DIR;
#endif
        PB_TRY(pb_figure_scripts(scripts, sizeof scripts, source));
        PB_TRY(pb_path(folder, sizeof folder, "%s/pedrobench-XXXXXX", tmp && *tmp ? tmp : "/tmp"));
        if (!mkdtemp(folder))
            return pb_fail(PB_IO, "set TMPDIR", "cannot make a folder like %s", folder);
        pb_figure_options o = {
            .folder = folder, .scripts = scripts, .terminals = 1u << PB_FIGURE_SVG};
        err = pb_figures_draw(s, &o, drawn);
        if (err == PB_INPUT) // nothing to draw: the tables and the run list still tell something
            err = PB_OK;
    }
    pb_report_options o = {
        .title = a->title, .figures = *folder ? folder : NULL, .drawn = drawn, .command = command};
    if (!err)
        err = pb_report_write(a->out, s, records, &o);
    if (*folder)
        remove_figures(folder);
    return err;
}

static pb_err run(int argc, char **argv)
{
    static const char doc[] =
        "Writes one self-contained HTML page: score and latency tables, figures, environment, "
        "configuration differences, commands and the status of every run. Needs gnuplot for the "
        "figures.\v"
        "Examples:\n"
        "  pedrobench report runs/quick --out report.html\n"
        "  pedrobench report runs/quick runs/latency --out report.html --title \"Quick check\"\n"
        "  pedrobench report runs/quick --out report.html --no-figures\n";
    static const struct argp_option options[] = {
        {"out", 'o', "FILE", 0, "The page to write", 0},
        {"title", TITLE, "TEXT", 0, "Its title", 0},
        {"metric", 'm', "NAME", 0, "A metric other than each task's headline", 0},
        {"baseline", 'b', "METHOD", 0, "The method to compare with (default lora, or the only one)",
         0},
        {"split", 's', "NAME", 0, "The evaluated split (default test)", 0},
        {"no-figures", NO_FIGURES, NULL, 0, "Tables only, without gnuplot", 0},
        {0}};
    static const struct argp argp = {options, parse, "FOLDER|FILE...", doc, NULL, NULL, NULL};
    args a = {0};
    char *command = command_line(argc, argv);
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_records records;
    pb_summary summary;
    pb_err err = pb_records_load(&records, (const char *const *)a.files, a.n);
    if (!err) {
        err = pb_summarize(&summary, &records, &a.summary);
        if (!err) {
            err = write_report(&a, &summary, &records, command);
            pb_summary_free(&summary);
        }
        pb_records_free(&records);
    }
    free(command);
    if (!err)
        pb_info("%s", a.out);
    return err;
}

PB_COMMAND(report) = {"report", "write one HTML page with tables, figures and provenance", 62, run};
