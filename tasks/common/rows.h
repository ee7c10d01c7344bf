// Rows of named fields from files of four formats, one reader for all tasks that read files.
//
//   jsonl  a line is an object
//   json   an array of objects; or, with a path such as "data.paragraphs.qas", the objects found
//          there: a step enters the member of that name, and every array on the way is gone
//          through. A row has the single values of the objects around it too (a question that of
//          its paragraph); what stands further in wins.
//   csv    RFC 4180: fields in quotes may hold commas, line breaks and doubled quotes
//   tsv    fields between tabs, no quotes
// The first line of csv and tsv names the columns, unless their names are given. A row is a JSON
// object, of strings where it comes from csv or tsv. Empty lines are no rows. Anything else that
// breaks its format is an error with the file and the line (json: the row, from 1).
#ifndef PB_TASKS_ROWS_H
#define PB_TASKS_ROWS_H

#include "core/json.h"

typedef struct pb_rows_format {
    const char *name;      // of the above, or NULL: what the file's name ends in
    const json_t *columns; // names of the columns (csv, tsv), or NULL: the first line
    const char *path;      // to the rows (json), or NULL
} pb_rows_format;

// `row` is the reader's; it may be changed.
typedef pb_err (*pb_rows_to)(void *self, json_t *row);
pb_err pb_rows_read(const char *path, const pb_rows_format *format, pb_rows_to to, void *self);

// Records of a CSV text, one after the other; used by the above. Fields are zero-terminated and
// stay until the next record is read.
typedef struct pb_csv {
    const char *p, *end;
    size_t line; // the record's first line, from 1
    char *text, **field;
    size_t *len; // (n_fields) a field may hold zeros
    size_t n_fields, cap, next_line;
} pb_csv;
pb_err pb_csv_open(pb_csv *c, const void *text, size_t size);
// Reads a record; *more is false at the end. After an error, c->line says where.
pb_err pb_csv_next(pb_csv *c, bool *more);
void pb_csv_close(pb_csv *c);

#endif
