// The whole contract of a task: a name, where the text comes from, and a function that fills in
// examples. A task file ends with one table, PB_TASK(name) = {...}; the build finds it by its file
// name, and no other file is edited.
#ifndef PB_TASK_H
#define PB_TASK_H

#include "core/error.h"
#include "core/plugin.h"
#include "core/rng.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

typedef enum pb_split { PB_TRAIN, PB_VALID, PB_TEST, PB_N_SPLITS } pb_split;

// The table that a query in SQL is about: in an SQLite file, its columns called col0, col1, ...,
// text in lower case, as WikiSQL's .db files have it.
typedef struct pb_sql_table {
    const char *database;      // path of the file
    const char *name;          // of the table there
    const char *const *column; // (n_columns) how questions and queries call col0, col1, ...
    size_t n_columns;
} pb_sql_table;

// One example. The model sees `prompt` and is trained on `response`; loss counts on the response
// (and the end token) only.
typedef struct pb_example {
    const char *prompt;
    const char *response; // the training target; for ranking equal to candidates[label]
    // Ranking: candidates in front of which the prompt stands; `label` is the index of the right
    // one. Generation: n_candidates = 0.
    const char *const *candidates;
    size_t n_candidates, label;
    // Generation: all accepted references (the response among them).
    const char *const *references;
    size_t n_references;
    const pb_sql_table *table; // text to SQL, where the table is at hand: its answers count too
} pb_example;

typedef struct pb_dataset pb_dataset; // owns the examples and their strings

typedef enum pb_task_kind { PB_RANK, PB_GENERATE } pb_task_kind;

typedef struct pb_task_args {
    const char *data;          // folder with the original files, or NULL
    uint64_t seed;             // of generated tasks
    size_t limit[PB_N_SPLITS]; // at most so many examples per split; 0 = the task's default
} pb_task_args;

typedef struct pb_task {
    const char *name;
    const char *doc;    // one line
    const char *source; // where the data is from, or how it is generated
    const char *licence;
    const char *version; // raised whenever the text that the model sees changes
    pb_task_kind kind;
    const char *metric;        // the headline metric, a name of tasks/metrics/measures.c; those of
                               // its family are computed beside it
    bool needs_data;           // reads args->data
    size_t max_new;            // generation: most bytes of a response, with room to spare
    size_t sizes[PB_N_SPLITS]; // default number of examples; 0 = all there are
    pb_err (*load)(pb_dataset *d, const struct pb_task *task, const pb_task_args *args);
} pb_task;

// What a plugin and the program that loads it must agree on.
#define PB_TASK_SIZES                                                                              \
    ((uint32_t)(sizeof(pb_task) + 3 * sizeof(pb_example) + 5 * sizeof(pb_task_args) +              \
                7 * sizeof(pb_rng)))

#ifdef PB_PLUGIN
#define PB_TASK(name)                                                                              \
    PB_ENTRY(task, name, PB_TASK_SIZES);                                                           \
    const pb_task pb_task_##name
#else
#define PB_TASK(name) const pb_task pb_task_##name
#endif

// Building a dataset. Strings are copied.
pb_err pb_dataset_new(pb_dataset **out);
void pb_dataset_free(pb_dataset *d);
pb_err pb_dataset_add(pb_dataset *d, pb_split split, const pb_example *e);
// Copies a printf-formatted string into the dataset's memory, for building examples.
char *pb_dataset_text(pb_dataset *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

size_t pb_dataset_count(const pb_dataset *d, pb_split split);
const pb_example *pb_dataset_at(const pb_dataset *d, pb_split split, size_t i);
// SHA-256 over every prompt, response, candidate and reference, in order.
void pb_dataset_hash(const pb_dataset *d, char out[65]);

// The tasks there are: those that the build found in tasks/, and behind them those of plugins.
extern const pb_task *const pb_tasks[];    // of the suite, NULL-terminated
const pb_task *pb_task_at(size_t i);       // of all, or NULL
pb_err pb_task_register(const pb_task *t); // refuses a name that is taken
const pb_task *pb_task_find(const char *name);
// Finds, loads and checks a task; an unknown name lists the known ones.
pb_err pb_task_load(pb_dataset **out, const char *name, const pb_task_args *args);

#pragma GCC visibility pop

#endif
