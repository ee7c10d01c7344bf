// The build's list of tasks, and the metrics that they may name: not needed by fuzzed readers, and
// they would bring all of both.
#include "tasks/metrics/metrics.h"

const pb_task *const pb_tasks[] = {NULL};

pb_err pb_measure_check(const char *name, pb_task_kind kind)
{
    (void)name, (void)kind;
    return PB_OK;
}
