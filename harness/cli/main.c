// `pedrobench SUBCOMMAND ...`: finds the subcommand, runs it, prints its error.
#include "cli/cli.h"
#include "cli/common/plugin.h"
#include "core/log.h"
#include "core/ranks.h"
#include "core/threads.h"

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PB_VERSION
#define PB_VERSION "unknown"
#endif

static int by_order(const void *a, const void *b)
{
    return (*(const pb_command *const *)a)->order - (*(const pb_command *const *)b)->order;
}

static void overview(FILE *f)
{
    fputs("Usage: pedrobench COMMAND [OPTION...]\n\n"
          "Compares parameter-efficient fine-tuning methods on one frozen transformer: trained at\n"
          "one parameter budget, repeated over seeds, and served as tenants of one batch.\n\n"
          "Commands:\n",
          f);
    const pb_command *sorted[64];
    size_t n = 0;
    for (; pb_commands[n] && n < 64; n++)
        sorted[n] = pb_commands[n];
    qsort(sorted, n, sizeof *sorted, by_order);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "  %-12s %s\n", sorted[i]->name, sorted[i]->doc);
    fputs("\n`pedrobench COMMAND --help` explains one. PB_THREADS sets the number of threads.\n"
          "--plugin FILE adds a method or task from a shared object, to every command (may be\n"
          "repeated; PB_PLUGINS names more, separated by colons).\n"
          "Examples:\n"
          "  pedrobench params --budget 0.5%\n"
          "  pedrobench train --task yesno --method pedro --budget 0.5% --out run.h5\n"
          "  pedrobench sweep paper/quick.json --out runs/quick\n",
          f);
}

static const char *running; // the subcommand

static void show_error(void)
{
    fprintf(stderr, "pedrobench %s: %s\n", running, pb_error_message());
    if (*pb_error_hint())
        fprintf(stderr, "hint: %s\n", pb_error_hint());
}

int main(int argc, char **argv)
{
    pb_threads_restart(argv);
    pb_ranks_begin();
    if (argc < 2) {
        overview(stderr);
        return 2;
    }
    pb_err plugins = pb_plugins_load(&argc, argv);
    const char *name = argc > 1 ? argv[1] : "--help";
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        overview(stdout);
        return 0;
    }
    if (!strcmp(name, "--version")) {
        puts("pedrobench " PB_VERSION);
        if (pb_ranks_library())
            printf("with %s\n", pb_ranks_library());
        return 0;
    }
    for (size_t i = 0; pb_commands[i]; i++) {
        if (strcmp(name, pb_commands[i]->name))
            continue;
        char self[128];
        snprintf(self, sizeof self, "pedrobench %s", name);
        running = name;
        argv[1] = self;
        argp_err_exit_status = 2;
        pb_signals_install();
        pb_err err = pb_ranks_start(!strcmp(name, "train"));
        if (!err)
            err = plugins;
        if (!err)
            err = pb_threads_set(0);
        if (!err)
            err = pb_commands[i]->run(argc - 1, argv + 1);
        errno = 0;
        bool unwritten = fflush(stdout) || ferror(stdout);
        if (unwritten && errno == EPIPE) {
            pb_ranks_end(PB_IO, NULL); // whoever read the output has gone; nobody is to be told
            return 1;
        }
        if (!err && unwritten)
            err = pb_fail(PB_IO, "is the disk full?", "cannot write standard output");
        pb_ranks_end(err, show_error);
        if (!err)
            return 0;
        return err == PB_USAGE ? 2 : err == PB_INTERRUPTED ? 130 : err == PB_BUSY ? 75 : 1;
    }
    fprintf(stderr, "pedrobench: unknown command \"%s\"\nhint: `pedrobench --help` lists them\n",
            name);
    return 2;
}
