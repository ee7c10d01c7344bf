// Subcommands of `pedrobench`: one file = one subcommand, found by the build through its file name.
#ifndef PB_CLI_H
#define PB_CLI_H

#include "core/error.h"

typedef struct pb_command {
    const char *name;
    const char *doc; // one line
    int order;       // position in the overview
    // argv[0] is "pedrobench NAME", for argp. --help and usage errors end the program inside argp
    // (exit codes 0 and 2); everything else comes back as an error.
    pb_err (*run)(int argc, char **argv);
} pb_command;

#define PB_COMMAND(name) const pb_command pb_command_##name

extern const pb_command *const pb_commands[]; // NULL-terminated, made by the build

#endif
