// `pedrobench new-method`: a commented file that compiles and works at once.
#include "cli/common/template.h"
#include "cli/common/common.h"

#include <stdio.h>

struct args {
    const char *name;
    bool plugin;
};

enum { KEY_PLUGIN = 500 };

static const struct argp_option opts[] = {
    {"out-of-tree", KEY_PLUGIN, NULL, 0,
     "Write a folder of its own, for `pedrobench --plugin`, instead of methods/NAME.c", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case KEY_PLUGIN:
        a->plugin = true;
        break;
    case ARGP_KEY_ARG:
        if (a->name)
            argp_error(state, "one name at a time");
        a->name = arg;
        break;
    case ARGP_KEY_END:
        if (!a->name)
            argp_error(state, "a name is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "NAME",
    "Writes methods/NAME.c: a small method with comments, which passes all checks. Run it at the "
    "top of the "
    "source tree.\v"
    "Examples:\n  pedrobench new-method mine\n  pedrobench new-method mine --out-of-tree",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    PB_TRY(pb_new_name(a.name, "method"));
    if (pb_method_find(a.name))
        return pb_fail(PB_USAGE, "choose another name", "there is a method \"%s\" already", a.name);
    PB_TRY(pb_new_source("method.c", "methods", "method.h", a.name, a.plugin));
    if (a.plugin)
        printf("  pedrobench conformance %s --plugin %s/build/%s.so\n", a.name, a.name, a.name);
    else
        printf("  build/pedrobench conformance %s\n", a.name);
    return PB_OK;
}

PB_COMMAND(new_method) = {"new-method", "write the file of a new method", 25, run};
