// The build's list of tasks is not needed by fuzzed readers, and would bring all of them.
#include "tasks/task.h"

const pb_task *const pb_tasks[] = {NULL};
