// `pedrobench new-method`: a commented file that compiles and works at once.
#include "cli/common/template.h"
#include "cli/common/common.h"

#include <stdio.h>

static const struct argp argp = {
    pb_new_options,
    pb_new_parse,
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
    pb_new_args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    PB_TRY(pb_new_name(a.name, "method"));
    if (pb_method_find(a.name))
        return pb_fail(PB_USAGE, "choose another name", "there is a method \"%s\" already", a.name);
    PB_TRY(pb_new_source("method.c", "methods", "method.h", a.name, a.out_of_tree));
    if (a.out_of_tree)
        printf("  pedrobench conformance %s --plugin %s/build/%s.so\n", a.name, a.name, a.name);
    else
        printf("  build/pedrobench conformance %s\n", a.name);
    return PB_OK;
}

PB_COMMAND(new_method) = {"new-method", "write the file of a new method", 25, run};
