// Evaluation data from files of any kind, as items of texts.
//
//   .jsonl   a line is an item; every string in it is a text
//   .json    every object that has strings of its own, or lists of strings, is an item, so that
//            a paragraph and its questions are items of their own
//   .csv     a record (RFC 4180, line breaks inside quotes among it) is an item, its fields are
//   .tsv     texts; a line likewise, without quotes
//   other    a line is an item of one text
// Empty lines are no items.
#ifndef PB_TASKS_RECORDS_H
#define PB_TASKS_RECORDS_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct pb_records_to {
    void *self;
    pb_err (*item)(void *self);
    pb_err (*text)(void *self, const char *text, size_t len);
} pb_records_to;

// With `header` the first line of .csv and .tsv files is passed over.
pb_err pb_records_read(const char *path, bool header, const pb_records_to *to);
// Whether the name ends like one of the formats above or in .txt.
bool pb_records_known(const char *path);

#endif
