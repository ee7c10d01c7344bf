// Tables of text cells on standard output.
#ifndef PB_CLI_GRID_H
#define PB_CLI_GRID_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>

typedef enum pb_format { PB_TEXT, PB_MARKDOWN, PB_CSV } pb_format;
// "text", "markdown" or "csv".
pb_err pb_parse_format(pb_format *out, const char *text);

enum { PB_GRID_COLS = 20, PB_GRID_CELL = 96 };

typedef struct pb_grid {
    pb_format format; // CSV has no title
    size_t cols;
    char (*cell)[PB_GRID_CELL]; // row by row, the first one is the head
    size_t n, room;
    bool failed;
} pb_grid;

void pb_grid_add(pb_grid *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// Prints and releases it: columns as wide as their longest cell; the first `left` ones begin at the
// left.
pb_err pb_grid_print(pb_grid *g, const char *title, size_t left);

#endif
