// Writing a new source file from a template of harness/cli/templates.
#ifndef PB_CLI_TEMPLATE_H
#define PB_CLI_TEMPLATE_H

#include "core/error.h"
#include <argp.h>
#include <stdbool.h>

// The command line of `new-method` and `new-task`: a name, and where to.
typedef struct pb_new_args {
    const char *name;
    bool out_of_tree;
} pb_new_args;
extern const struct argp_option pb_new_options[];
error_t pb_new_parse(int key, char *arg, struct argp_state *state); // its input: pb_new_args

// A lower-case C identifier.
pb_err pb_new_name(const char *name, const char *what);
// Writes `template`, with NAME replaced, to `path`, which must not exist.
pb_err pb_from_template(const char *template, const char *name, const char *path);
// The new source file: folder/NAME.c in the tree around the current folder (where folder/header
// is), or a folder NAME of its own with CMakeLists.txt for a plugin. Says what was written.
pb_err pb_new_source(const char *template, const char *folder, const char *header, const char *name,
                     bool out_of_tree);

#endif
