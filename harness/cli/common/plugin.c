#include "cli/common/plugin.h"

#include "model/adapter.h"
#include "tasks/task.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REBUILD "compile it again with this version's headers"

pb_err pb_plugin_load(const char *path)
{
    char full[4096];
    // A name without a slash would be looked for among the system's libraries.
    PB_TRY(pb_path(full, sizeof full, "%s%s", strchr(path, '/') ? "" : "./", path));
    void *file = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (!file)
        return pb_fail(PB_INPUT, "cc -shared -fPIC, with the flags of `pkg-config pedrobench`",
                       "plugin %s cannot be loaded: %s", path, dlerror());
    const pb_plugin *p = dlsym(file, PB_PLUGIN_SYMBOL);
    if (!p || memcmp(p->magic, PB_PLUGIN_MAGIC, sizeof p->magic) != 0) {
        dlclose(file);
        return pb_fail(PB_INPUT, "compile it with -DPB_PLUGIN, as `pkg-config pedrobench` says",
                       "%s is a shared object, but no plugin", path);
    }
    uint32_t sizes = p->method ? PB_METHOD_SIZES : PB_TASK_SIZES;
    pb_err err = PB_OK;
    if (p->abi != PB_ABI)
        err = pb_fail(PB_UNSUPPORTED, REBUILD,
                      "plugin %s speaks version %u of the contract (pedrobench %.20s), this is %d",
                      path, (unsigned)p->abi, p->compiled, PB_ABI);
    else if (p->sizes != sizes)
        err = pb_fail(PB_UNSUPPORTED, REBUILD,
                      "plugin %s was compiled with other headers (pedrobench %.20s): its structs "
                      "have other sizes",
                      path, p->compiled);
    else if (p->method)
        err = pb_method_register(p->method);
    else
        err = pb_task_register(p->task);
    if (err) {
        (void)pb_context(err, "plugin %s", path);
        dlclose(file);
    }
    return err;
}

// Processes that this one starts (a sweep's jobs) load it too.
static pb_err hand_down(const char *file)
{
    char list[8192];
    const char *env = getenv("PB_PLUGINS");
    PB_TRY(pb_path(list, sizeof list, "%s%s%s", env ? env : "", env && *env ? ":" : "", file));
    return setenv("PB_PLUGINS", list, 1)
               ? pb_fail(PB_MEMORY, NULL, "no memory for a list of plugins")
               : PB_OK;
}

pb_err pb_plugins_load(int *argc, char **argv)
{
    static const char option[] = "--plugin";
    pb_err err = PB_OK;
    const char *env = getenv("PB_PLUGINS");
    char *list = env ? strdup(env) : NULL, *save = NULL;
    for (char *f = list ? strtok_r(list, ":", &save) : NULL; f && !err;
         f = strtok_r(NULL, ":", &save))
        err = pb_plugin_load(f);
    free(list);
    int n = 0;
    for (int i = 0; i < *argc; i++) {
        const char *file = NULL;
        if (!strncmp(argv[i], option, sizeof option - 1)) {
            if (argv[i][sizeof option - 1] == '=')
                file = argv[i] + sizeof option;
            else if (!argv[i][sizeof option - 1] && i + 1 < *argc)
                file = argv[++i];
        }
        if (!file)
            argv[n++] = argv[i];
        else if (!err && !(err = pb_plugin_load(file)))
            err = hand_down(file);
    }
    argv[n] = NULL;
    *argc = n;
    return err;
}
