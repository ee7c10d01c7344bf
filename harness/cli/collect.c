// `pedrobench collect`: one HDF5 file that links to many runs.
#include "cli/cli.h"
#include "core/log.h"
#include "results/load.h"

#include <argp.h>

typedef struct args {
    const char *out;
    char **files;
    size_t n;
} args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    switch (key) {
    case 'o':
        a->out = arg;
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

static pb_err run(int argc, char **argv)
{
    static const char doc[] = "Writes an HDF5 file whose group /runs links to every run, so that "
                              "one open file reads all. "
                              "The links are relative: move the file together with the runs.\v"
                              "Examples:\n"
                              "  pedrobench collect runs/quick --out runs/quick.h5\n"
                              "  pedrobench collect runs/a runs/b/x.h5 --out runs/all.h5\n";
    static const struct argp_option options[] = {{"out", 'o', "FILE.h5", 0, "The file to write", 0},
                                                 {0}};
    static const struct argp argp = {options, parse, "FOLDER|FILE...", doc, NULL, NULL, NULL};
    args a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    PB_TRY(pb_results_merge(a.out, (const char *const *)a.files, a.n));
    pb_info("%s", a.out);
    return PB_OK;
}

PB_COMMAND(collect) = {"collect", "link many result files into one HDF5 file", 73, run};
