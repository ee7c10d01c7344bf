// `pedrobench new-task`: a commented file that compiles and works at once.
#include "cli/common/template.h"
#include "cli/common/common.h"
#include "tasks/task.h"

#include <stdio.h>

static const struct argp argp = {
    pb_new_options,
    pb_new_parse,
    "NAME",
    "Writes tasks/NAME.c: a small ranking task with comments. Run it at the top of the "
    "source tree.\v"
    "Examples:\n  pedrobench new-task mine\n  pedrobench new-task mine --out-of-tree",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    pb_new_args a = {0};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    PB_TRY(pb_new_name(a.name, "task"));
    if (pb_task_find(a.name))
        return pb_fail(PB_USAGE, "choose another name", "there is a task \"%s\" already", a.name);
    PB_TRY(pb_new_source("task.c", "tasks", "task.h", a.name, a.out_of_tree));
    if (a.out_of_tree)
        printf("  pedrobench tasks %s --plugin %s/build/%s.so\n", a.name, a.name, a.name);
    else
        printf("  build/pedrobench tasks %s\n", a.name);
    return PB_OK;
}

PB_COMMAND(new_task) = {"new-task", "write the file of a new task", 26, run};
