// Loading methods and tasks from shared objects.
#ifndef PB_CLI_PLUGIN_H
#define PB_CLI_PLUGIN_H

#include "core/error.h"

// Adds what one file has; refuses what is no plugin, was compiled against other headers, or has a
// name that is taken.
pb_err pb_plugin_load(const char *path);

// Loads the files that PB_PLUGINS names (separated by colons), and those behind --plugin, which are
// taken out of the arguments.
pb_err pb_plugins_load(int *argc, char **argv);

#endif
