// A task from a description: a JSON file that says where its rows are and how a row becomes an
// example. Most of the suite's tasks on real files are such descriptions, tasks/NAME.json; a user's
// own task is one more, given by its path. README.md of tasks/ explains every key.
#ifndef PB_TASKS_DESCRIBE_H
#define PB_TASKS_DESCRIBE_H

#include "tasks/task.h"

// Makes a task of a description's text. `name` is what the task is called, `own` the folder of the
// description, where its files are unless it names a folder of the data folder.
pb_err pb_describe(pb_task **out, const char *text, size_t len, const char *name, const char *own);
// Whether its files are there, below the data folder if it names one of that.
bool pb_described_found(const pb_task *t, const char *data);
void pb_describe_free(pb_task *t);

#endif
