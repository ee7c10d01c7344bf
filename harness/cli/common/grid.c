#include "cli/common/grid.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pb_grid_add(pb_grid *g, const char *fmt, ...)
{
    if (g->n == g->room) {
        size_t room = g->room ? 2 * g->room : 128;
        char(*more)[PB_GRID_CELL] = realloc(g->cell, room * sizeof *more);
        if (!more) {
            g->failed = true;
            return;
        }
        g->cell = more;
        g->room = room;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(g->cell[g->n++], PB_GRID_CELL, fmt, ap);
    va_end(ap);
}

static void print_csv(const pb_grid *g)
{
    for (size_t i = 0; i < g->n; i++) {
        bool quoted = strpbrk(g->cell[i], ",\"\n") != NULL;
        printf("%s%s", i % g->cols ? "," : "", quoted ? "\"" : "");
        for (const char *s = g->cell[i]; *s; s++)
            fputs(*s == '"' ? "\"\"" : (char[]){*s, 0}, stdout);
        printf("%s%s", quoted ? "\"" : "", i % g->cols + 1 == g->cols ? "\n" : "");
    }
}

pb_err pb_grid_print(pb_grid *g, const char *title, size_t left)
{
    size_t width[PB_GRID_COLS] = {0};
    bool md = g->format == PB_MARKDOWN;
    if (g->failed) {
        free(g->cell);
        return pb_fail(PB_MEMORY, NULL, "no memory for a table");
    }
    if (g->format == PB_CSV) {
        print_csv(g);
        free(g->cell);
        return PB_OK;
    }
    for (size_t i = 0; i < g->n; i++) {
        size_t len = strlen(g->cell[i]), *w = &width[i % g->cols];
        *w = len > *w ? len : *w;
    }
    printf(md ? "\n### %s\n\n" : "\n%s\n", title);
    for (size_t i = 0; i < g->n; i++) {
        size_t c = i % g->cols;
        if (md)
            printf(c ? " | " : "| ");
        else if (c)
            printf("  ");
        if (!md && c < left && c + 1 == g->cols)
            printf("%s", g->cell[i]);
        else
            printf(c < left ? "%-*s" : "%*s", (int)width[c], g->cell[i]);
        if (c + 1 < g->cols)
            continue;
        printf(md ? " |\n" : "\n");
        if (!md || i >= g->cols)
            continue;
        for (size_t k = 0; k < g->cols; k++)
            printf(k < left ? "|:---" : "|---:");
        printf("|\n");
    }
    free(g->cell);
    return PB_OK;
}

pb_err pb_parse_format(pb_format *out, const char *text)
{
    static const char *const names[] = {"text", "markdown", "csv"};
    for (int i = PB_TEXT; i <= PB_CSV; i++)
        if (!strcmp(text, names[i])) {
            *out = (pb_format)i;
            return PB_OK;
        }
    return pb_fail(PB_USAGE, "text, markdown or csv", "--format is \"%s\"", text);
}
