// `pedrobench rebuild`: makes HDF5 files from journals that a crash left behind.
#include "cli/cli.h"
#include "core/file.h"
#include "core/log.h"
#include "results/run.h"

#include <argp.h>
#include <string.h>

typedef struct args {
    char **files;
    size_t n;
} args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
    args *a = state->input;
    switch (key) {
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->n = (size_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no journal was given");
        return EINVAL;
    default:
        (void)arg;
        return ARGP_ERR_UNKNOWN;
    }
}

static pb_err run(int argc, char **argv)
{
    static const char doc[] =
        "Builds the HDF5 result files again from journals (x.jsonl beside x.h5) that a crash or a "
        "full disk left behind. A run without an end gets the status \"interrupted\". The journals "
        "stay.\v"
        "Examples:\n"
        "  pedrobench rebuild runs/quick/yesno-lora-1.jsonl\n"
        "  pedrobench rebuild runs/quick/*.jsonl\n";
    static const struct argp argp = {NULL, parse, "JOURNAL...", doc, NULL, NULL, NULL};
    args a = {NULL, 0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    for (size_t i = 0; i < a.n; i++) {
        char h5[4096];
        size_t n = strlen(a.files[i]), end = strlen(".jsonl");
        bool journal = n > end && !strcmp(a.files[i] + n - end, ".jsonl");
        int most = (int)(journal ? n - end : n);
        PB_TRY(pb_path(h5, sizeof h5, "%.*s%s", most, a.files[i], journal ? ".h5" : ""));
        PB_TRY(pb_run_rebuild(h5));
        pb_info("%s", h5);
    }
    return PB_OK;
}

PB_COMMAND(rebuild) = {"rebuild", "build result files again from their journals", 72, run};
