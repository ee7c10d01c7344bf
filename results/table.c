// One description of a table's columns makes all its forms: a column says where its value stands in
// the summary, of what kind it is, and its name in CSV, in print, or in both.
#include "results/table.h"

#include "core/error.h"
#include "core/file.h"
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// A table under construction: cells in row order. A row whose first cell starts with '\f' is a
// heading over the rows below it.
typedef struct grid {
    const char *title;
    const char *const *head;
    size_t cols, n, room; // n cells
    char **cells;
    bool failed;
} grid;

static void add(grid *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(grid *g, const char *fmt, ...)
{
    if (g->n == g->room) {
        size_t room = g->room ? 2 * g->room : 64;
        char **cells = realloc(g->cells, room * sizeof *cells);
        if (!cells) {
            g->failed = true;
            return;
        }
        g->cells = cells;
        g->room = room;
    }
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0)
        g->failed = true;
    else
        g->cells[g->n++] = text;
    va_end(ap);
}

static void heading(grid *g, const char *text)
{
    add(g, "\f%s", text);
    for (size_t i = 1; i < g->cols; i++)
        add(g, "%s", "");
}

static void grid_free(grid *g)
{
    for (size_t i = 0; i < g->n; i++)
        free(g->cells[i]);
    free(g->cells);
    *g = (grid){0};
}

static size_t width(const char *s) // characters, not bytes; all signs used here are one wide
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void spaces(FILE *f, size_t n)
{
    for (; n; n--)
        fputc(' ', f);
}

static void write_text(FILE *f, const grid *g)
{
    size_t *w = calloc(g->cols, sizeof *w), total = 0;
    if (!w)
        return;
    for (size_t c = 0; c < g->cols; c++) {
        w[c] = width(g->head[c]);
        for (size_t i = c; i < g->n; i += g->cols)
            if (g->cells[i - c][0] != '\f' && width(g->cells[i]) > w[c])
                w[c] = width(g->cells[i]);
        total += w[c] + (c ? 2 : 0);
    }
    fprintf(f, "%s\n", g->title);
    for (size_t i = 0; i < g->n + g->cols; i += g->cols) {
        char *const *cells = i ? g->cells + i - g->cols : (char *const *)g->head;
        if (cells[0][0] == '\f') {
            fprintf(f, "%s\n", cells[0] + 1);
            continue;
        }
        for (size_t c = 0; c < g->cols; c++) {
            size_t pad = w[c] - width(cells[c]);
            if (c) { // numbers to the right
                spaces(f, pad + 2);
                fputs(cells[c], f);
            } else {
                fputs(cells[c], f);
                spaces(f, pad);
            }
        }
        fputc('\n', f);
        for (size_t k = 0; i == 0 && k < total; k++)
            fputs("\u2500", f);
        if (i == 0)
            fputc('\n', f);
    }
    fputc('\n', f);
    free(w);
}

static void markdown_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (strchr("|*_<>`\\~", *s))
            fputc('\\', f);
        fputc(*s, f);
    }
}

static void write_markdown(FILE *f, const grid *g)
{
    fputs("### ", f);
    markdown_text(f, g->title);
    fputs("\n\n", f);
    for (size_t i = 0; i < g->n + g->cols; i += g->cols) {
        char *const *cells = i ? g->cells + i - g->cols : (char *const *)g->head;
        fputc('|', f);
        for (size_t c = 0; c < g->cols; c++) {
            bool over = cells[0][0] == '\f' && c == 0;
            fputs(over ? " *" : " ", f);
            markdown_text(f, cells[c] + over);
            fputs(over ? "* |" : " |", f);
        }
        fputs("\n", f);
        for (size_t c = 0; i == 0 && c < g->cols; c++)
            fputs(c == 0 ? "|:---|" : "---:|", f);
        if (i == 0)
            fputs("\n", f);
    }
    fputc('\n', f);
}

void pb_html_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        const char *e = *s == '&'    ? "&amp;"
                        : *s == '<'  ? "&lt;"
                        : *s == '>'  ? "&gt;"
                        : *s == '"'  ? "&quot;"
                        : *s == '\'' ? "&#39;"
                                     : NULL;
        if (e)
            fputs(e, f);
        else if ((unsigned char)*s >= ' ' || *s == '\n' || *s == '\t')
            fputc(*s, f);
        else
            fputs("\uFFFD", f);
    }
}

static void write_html(FILE *f, const grid *g)
{
    fputs("<div class=\"table\"><table>\n<caption>", f);
    pb_html_text(f, g->title);
    fputs("</caption>\n<thead><tr>", f);
    for (size_t c = 0; c < g->cols; c++) {
        fputs("<th scope=\"col\">", f);
        pb_html_text(f, g->head[c]);
        fputs("</th>", f);
    }
    fputs("</tr></thead>\n<tbody>\n", f);
    for (size_t i = 0; i < g->n; i += g->cols) {
        char *const *cells = g->cells + i;
        if (cells[0][0] == '\f') {
            fprintf(f, "<tr class=\"block\"><th colspan=\"%zu\">", g->cols);
            pb_html_text(f, cells[0] + 1);
            fputs("</th></tr>\n", f);
            continue;
        }
        fputs("<tr>", f);
        for (size_t c = 0; c < g->cols; c++) {
            fputs(c ? "<td>" : "<th scope=\"row\">", f);
            pb_html_text(f, cells[c]);
            fputs(c ? "</td>" : "</th>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

void pb_latex_text(FILE *f, const char *s)
{
    static const struct {
        const char *from, *to;
    } signs[] = {{"\u00B1", "$\\pm$"},
                 {"\u00D7", "$\\times$"},
                 {"\\", "\\textbackslash{}"},
                 {"~", "$\\sim$"},
                 {"^", "\\textasciicircum{}"},
                 {"<", "$<$"},
                 {">", "$>$"},
                 {"|", "$|$"}};
    for (const char *start = s; *s;) {
        size_t n = 0;
        for (size_t i = 0; i < sizeof signs / sizeof *signs && !n; i++)
            if (!strncmp(s, signs[i].from, strlen(signs[i].from))) {
                fputs(signs[i].to, f);
                n = strlen(signs[i].from);
            }
        bool minus = *s == '-' && s[1] >= '0' && s[1] <= '9' && (s == start || strchr(" [", s[-1]));
        if (minus)
            fputs("$-$", f);
        else if (!n && strchr("&%$#_{}", *s))
            fprintf(f, "\\%c", *s);
        else if (!n)
            fputc(*s, f);
        s += n ? n : 1;
    }
}

// booktabs; a table wider than the line is scaled down to it.
static void write_latex(FILE *f, const grid *g, const char *name, const char *note)
{
    fputs("\\begin{table}[tbp]\n\\centering\n\\caption{", f);
    pb_latex_text(f, g->title);
    fprintf(f, "}\n\\label{tab:%s}\n\\small\n", name);
    fputs("\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
          "\\begin{tabular}{l",
          f);
    for (size_t c = 1; c < g->cols; c++)
        fputc('r', f);
    fputs("}\n\\toprule\n", f);
    for (size_t i = 0; i < g->n + g->cols; i += g->cols) {
        char *const *cells = i ? g->cells + i - g->cols : (char *const *)g->head;
        if (cells[0][0] == '\f') {
            fprintf(f, "%s\\multicolumn{%zu}{l}{\\emph{", i > g->cols ? "\\addlinespace\n" : "",
                    g->cols);
            pb_latex_text(f, cells[0] + 1);
            fputs("}} \\\\\n", f);
            continue;
        }
        for (size_t c = 0; c < g->cols; c++) {
            fputs(c ? " & " : "", f);
            pb_latex_text(f, cells[c]);
        }
        fputs(i ? " \\\\\n" : " \\\\\n\\midrule\n", f);
    }
    fputs("\\bottomrule\n\\end{tabular}}\n", f);
    if (note) {
        fputs("\\par\\smallskip\n\\parbox{\\linewidth}{\\footnotesize ", f);
        pb_latex_text(f, note);
        fputs("}\n", f);
    }
    fputs("\\end{table}\n\n", f);
}

static void write_note(FILE *f, const char *note, pb_table_format format)
{
    if (format == PB_HTML)
        fputs("<p class=\"note\">", f);
    if (format == PB_HTML)
        pb_html_text(f, note);
    else if (format == PB_MARKDOWN)
        markdown_text(f, note);
    else
        fputs(note, f);
    fputs(format == PB_HTML ? "</p>\n" : "\n", f);
}

static pb_err write_grid(FILE *f, grid *g, const char *name, const char *note,
                         pb_table_format format)
{
    bool failed = g->failed || g->n % g->cols;
    if (!failed && format == PB_TEXT)
        write_text(f, g);
    else if (!failed && format == PB_MARKDOWN)
        write_markdown(f, g);
    else if (!failed && format == PB_HTML)
        write_html(f, g);
    else if (!failed)
        write_latex(f, g, name, note);
    if (!failed && note && format != PB_LATEX)
        write_note(f, note, format);
    grid_free(g);
    return failed ? pb_fail(PB_MEMORY, NULL, "no memory for a table") : PB_OK;
}

static const struct {
    const char *name, *end; // end: of files
} formats[] = {[PB_TEXT] = {"text", "txt"},
               [PB_MARKDOWN] = {"markdown", "md"},
               [PB_CSV] = {"csv", "csv"},
               [PB_LATEX] = {"latex", "tex"},
               [PB_HTML] = {"html", "html"}};

pb_err pb_table_format_parse(pb_table_format *out, const char *name)
{
    for (int i = PB_TEXT; i <= PB_HTML; i++)
        if (!strcmp(formats[i].name, name)) {
            *out = (pb_table_format)i;
            return PB_OK;
        }
    return pb_fail(PB_USAGE, "text, markdown, csv, latex or html", "unknown table format \"%s\"",
                   name);
}

void pb_short_number(char out[32], double x)
{
    static const char *const units[] = {"", " k", " M", " G", " T", " P"};
    if (!isfinite(x)) {
        strcpy(out, "-");
        return;
    }
    size_t u = 0;
    for (; fabs(x) >= 999.5 && u < 5; u++)
        x /= 1000;
    if (u == 0)
        snprintf(out, 32, "%.4g", x);
    else
        snprintf(out, 32, "%.*f%s", fabs(x) < 9.995 ? 2 : fabs(x) < 99.95 ? 1 : 0, x, units[u]);
}

static void whole_number(char out[32], double x) // 123456 -> 123,456
{
    char digits[32];
    if (!(x >= 0 && x < 1e15)) {
        strcpy(out, "-");
        return;
    }
    int n = snprintf(digits, sizeof digits, "%.0f", x), m = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            out[m++] = ',';
        out[m++] = digits[i];
    }
    out[m] = 0;
}

static void share_text(char out[32], double share)
{
    if (isfinite(share))
        snprintf(out, 32, "%.3g", share);
    else
        strcpy(out, "-");
}

static void p_text(char out[32], double p)
{
    if (isnan(p))
        strcpy(out, "-");
    else if (p < 0.001)
        strcpy(out, "<0.001");
    else
        snprintf(out, 32, "%.3f", p);
}

static void interval_text(char out[96], pb_interval i, int digits, bool sign)
{
    if (isnan(i.lo) || isnan(i.hi))
        strcpy(out, "-");
    else
        snprintf(out, 96, sign ? "[%+.*f, %+.*f]" : "[%.*f, %.*f]", digits, i.lo, digits, i.hi);
}

// ---------------------------------------------------------------- columns

typedef enum part { ROW, CELL, TASK, SUMMARY, ARM, SCENARIO, LINE } part;
// In CSV numbers have 10 digits. COMPARED: a text that stands only beside a comparison.
typedef enum kind {
    TEXT,
    BLOCK,
    COUNT, // size_t; the others are double
    REAL,  // with the digits of the task, or of the times
    WHOLE,
    SHARE,
    PERCENT, // a fraction, times 100
    RATIO,
    RATE,
    SHORT,
    PROBABILITY,
    INTERVAL,   // pb_interval
    SCORE,      // pb_cell: mean and sd
    VERDICT,    // pb_cell: the same, with ~
    DIFFERENCE, // pb_cell: difference, interval, ~
    LOST,       // size_t: runs; on paper left out when there are none
    UNFINISHED, // pb_cell: interrupted or unscored; the same
    BASELINE    // the baseline's name, where there is a comparison
} kind;

typedef struct column {
    const char *csv, *head; // names in CSV and in print; NULL: not there
    kind kind;
    part part;
    size_t at;   // offset within the part
    size_t task; // of CELL and TASK, when a line is about all tasks
} column;

enum { ALL = SIZE_MAX };

typedef struct item { // a line
    const pb_summary *s;
    const pb_row *row;
    const pb_arm *arm;
    size_t task;       // or ALL
    const void *line;  // of served workloads: what columns of the part LINE are in,
    const char *block; // and the heading it belongs under
} item;

typedef struct table {
    const char *name, *title, *note; // note: NULL or what stands below
    const column *columns;
    size_t n_columns;
    const item *items;
    size_t n_items;
} table;

static size_t task_of(const column *c, const item *x)
{
    return x->task == ALL ? c->task : x->task;
}

static const void *place(const column *c, const item *x)
{
    size_t t = task_of(c, x);
    const char *base = NULL;
    switch (c->part) {
    case ROW:
        base = (const char *)x->row;
        break;
    case CELL:
        base = (const char *)&x->row->cells[t];
        break;
    case TASK:
        base = (const char *)&x->s->tasks[t];
        break;
    case SUMMARY:
        base = (const char *)x->s;
        break;
    case ARM:
        base = (const char *)x->arm;
        break;
    case SCENARIO:
        base = (const char *)x->arm->s;
        break;
    case LINE:
        base = x->line;
        break;
    }
    return base + c->at;
}

static int digits_of(const column *c, const item *x)
{
    if (x->line) { // three digits or more
        double v = *(const double *)place(c, x);
        return v < 0.1 ? 4 : v < 10 ? 3 : v < 100 ? 2 : 1;
    }
    if (x->arm)
        return x->arm->median < 0.1 ? 4 : x->arm->median < 10 ? 3 : 2;
    return x->s->tasks[task_of(c, x)].digits;
}

// "-" for a minus sign keeps the text searchable and machine readable.
static void score_text(char out[96], const pb_cell *c, int digits)
{
    if (isnan(c->mean))
        strcpy(out, "-");
    else if (isnan(c->sd))
        snprintf(out, 96, "%.*f", digits, c->mean);
    else
        snprintf(out, 96, "%.*f \u00B1 %.*f", digits, c->mean, digits, c->sd);
}

// "~": the difference may be none. The blanks keep the numbers of a column aligned.
static const char *verdict(const pb_cell *c)
{
    return c->compared && pb_covers_zero(c->difference_interval) ? " ~" : "  ";
}

static void real_text(char out[96], double x, int digits)
{
    if (isfinite(x))
        snprintf(out, 96, "%.*f", digits, x);
    else
        strcpy(out, "-");
}

static void number_text(char out[96], const column *c, const item *x, double v)
{
    switch (c->kind) {
    case WHOLE:
        whole_number(out, v);
        break;
    case SHARE:
        share_text(out, v);
        break;
    case PROBABILITY:
        p_text(out, v);
        break;
    case SHORT:
        pb_short_number(out, v);
        break;
    case RATE:
        real_text(out, v, 0);
        break;
    case RATIO:
        real_text(out, v, 3);
        break;
    case PERCENT:
        real_text(out, 100 * v, 1);
        break;
    default:
        real_text(out, v, digits_of(c, x));
        break;
    }
}

static void add_cell(grid *g, const column *c, const item *x)
{
    const void *p = place(c, x);
    const pb_cell *cell = x->row ? &x->row->cells[task_of(c, x)] : NULL;
    char text[96], interval[96];
    switch (c->kind) {
    case TEXT:
        add(g, "%s", **(char *const *)p ? *(char *const *)p : "-");
        break;
    case COUNT:
    case LOST:
        add(g, "%zu", *(const size_t *)p);
        break;
    case INTERVAL:
        interval_text(interval, *(const pb_interval *)p, digits_of(c, x), false);
        add(g, "%s", interval);
        break;
    case SCORE:
    case VERDICT:
        score_text(text, cell, digits_of(c, x));
        add(g, "%s%s", text, c->kind == VERDICT ? verdict(cell) : "");
        break;
    case DIFFERENCE:
        interval_text(interval, cell->difference_interval, digits_of(c, x), true);
        if (cell->compared)
            add(g, "%+.*f %s%s", digits_of(c, x), cell->difference, interval, verdict(cell));
        else
            add(g, "%s  ", x->row->is_baseline ? "baseline" : "-");
        break;
    case UNFINISHED:
        add(g, "%zu", cell->n_interrupted + cell->n_unscored);
        break;
    default:
        number_text(text, c, x, *(const double *)p);
        add(g, "%s", text);
        break;
    }
}

static void csv_text(FILE *f, const char *s)
{
    if (!s[strcspn(s, ",\"\r\n")]) {
        fputs(s, f);
        return;
    }
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

static void csv_cell(FILE *f, const column *c, const item *x)
{
    static const char *const blocks[] = {"budget", "no knob", "reference", "published"};
    const void *p = place(c, x);
    double v;
    switch (c->kind) {
    case TEXT:
        csv_text(f, *(char *const *)p);
        break;
    case BASELINE:
        csv_text(f, x->row->cells[x->task].compared ? *(char *const *)p : "");
        break;
    case BLOCK:
        csv_text(f, blocks[*(const pb_block *)p]);
        break;
    case COUNT:
    case LOST:
        fprintf(f, "%zu", *(const size_t *)p);
        break;
    default:
        v = *(const double *)p;
        if (isfinite(v)) // an empty field: not known
            fprintf(f, "%.10g", v);
        break;
    }
}

static void write_csv(FILE *f, const table *t)
{
    for (size_t i = 0; i <= t->n_items; i++) {
        bool first = true;
        for (size_t k = 0; k < t->n_columns; k++) {
            if (!t->columns[k].csv)
                continue;
            fputs(first ? "" : ",", f);
            first = false;
            if (i)
                csv_cell(f, &t->columns[k], &t->items[i - 1]);
            else
                csv_text(f, t->columns[k].csv);
        }
        fputc('\n', f);
    }
}

// ---------------------------------------------------------------- blocks of lines

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool generates(const pb_arm *a)
{
    return !strcmp(a->s->phase, "generate");
}

static bool same_block(const item *a, const item *b)
{
    if (a->line)
        return !strcmp(a->block, b->block);
    if (a->arm)
        return !strcmp(a->arm->model, b->arm->model) &&
               !strcmp(a->arm->s->phase, b->arm->s->phase) && a->arm->s->rows == b->arm->s->rows &&
               same_number(a->arm->s->prompt, b->arm->s->prompt) &&
               same_number(a->arm->s->fresh, b->arm->s->fresh) &&
               same_number(a->arm->s->beam, b->arm->s->beam) &&
               same_number(a->arm->s->budget, b->arm->s->budget);
    return a->row->block == b->row->block && !strcmp(a->row->model, b->row->model) &&
           (a->row->block != PB_BLOCK_BUDGET || same_number(a->row->budget, b->row->budget));
}

static void block_title(char *out, size_t size, const item *x)
{
    const char *model = x->line ? "" : x->arm ? x->arm->model : x->row->model;
    size_t n = 0;
    if (x->line) {
        snprintf(out, size, "%s", x->block);
        return;
    }
    if (x->s->several_models && *model)
        n = (size_t)snprintf(out, size, "%.200s: ", model);
    if (x->arm) {
        const pb_scenario *s = x->arm->s;
        n += (size_t)snprintf(out + n, size - n, "%.80s, %g sequence%s per batch", s->phase,
                              s->rows, s->rows == 1 ? "" : "s");
        if (isfinite(s->beam))
            n += (size_t)snprintf(out + n, size - n, ", beam %g", s->beam);
        if (isfinite(s->prompt))
            n += (size_t)snprintf(out + n, size - n, ", prompt of %g tokens", s->prompt);
        if (generates(x->arm) && isfinite(s->fresh))
            n += (size_t)snprintf(out + n, size - n, ", %g new", s->fresh);
        if (isfinite(s->budget))
            snprintf(out + n, size - n, ", budget %.10g", s->budget);
    } else if (x->row->block == PB_BLOCK_PUBLISHED) {
        snprintf(out + n, size - n, "published by others, on other backbones: not comparable");
    } else if (x->row->block == PB_BLOCK_REFERENCE) {
        snprintf(out + n, size - n, "reference");
    } else if (x->row->block == PB_BLOCK_NO_KNOB) {
        snprintf(out + n, size - n, "no size knob (not matched to a budget)");
    } else if (isnan(x->row->budget)) {
        snprintf(out + n, size - n, "no budget given");
    } else {
        snprintf(out + n, size - n, "budget %.10g", x->row->budget);
    }
}

static bool printed(const table *t, const column *c, pb_table_format format)
{
    size_t lost = 0;
    for (size_t i = 0; i < t->n_items && (c->kind == LOST || c->kind == UNFINISHED); i++) {
        const pb_cell *cell = &t->items[i].row->cells[task_of(c, &t->items[i])];
        lost += c->kind == LOST ? *(const size_t *)place(c, &t->items[i])
                                : cell->n_interrupted + cell->n_unscored;
    }
    bool runs = c->kind == LOST || c->kind == UNFINISHED;
    return c->head && !(runs && format == PB_LATEX && !lost);
}

static pb_err write_table(FILE *f, const table *t, pb_table_format format)
{
    if (format == PB_CSV) {
        write_csv(f, t);
        return PB_OK;
    }
    grid g = {.title = t->title};
    const char **head = calloc(t->n_columns, sizeof *head);
    if (!head)
        return pb_fail(PB_MEMORY, NULL, "no memory for a table");
    for (size_t k = 0; k < t->n_columns; k++)
        if (printed(t, &t->columns[k], format))
            head[g.cols++] = t->columns[k].head;
    g.head = head;
    for (size_t i = 0; i < t->n_items; i++) {
        char title[400];
        if (i == 0 || !same_block(&t->items[i], &t->items[i - 1])) {
            block_title(title, sizeof title, &t->items[i]);
            heading(&g, title);
        }
        for (size_t k = 0; k < t->n_columns; k++)
            if (printed(t, &t->columns[k], format))
                add_cell(&g, &t->columns[k], &t->items[i]);
    }
    pb_err err = write_grid(f, &g, t->name, t->note, format);
    free(head);
    return err;
}

// ---------------------------------------------------------------- where tables go

// A stream in one format, or a folder with a file for each table and format.
typedef struct sink {
    FILE *f;
    pb_table_format format;
    const char *folder;
} sink;

static pb_err put(const sink *to, const table *t)
{
    if (!to->folder)
        return write_table(to->f, t, to->format);
    for (int i = PB_TEXT; i < PB_HTML; i++) {
        char path[4096];
        pb_writer w;
        PB_TRY(pb_path(path, sizeof path, "%s/%s.%s", to->folder, t->name, formats[i].end));
        PB_TRY(pb_writer_open(&w, path));
        pb_err err = write_table(w.stream, t, (pb_table_format)i);
        if (err) {
            pb_writer_abandon(&w);
            return err;
        }
        PB_TRY(pb_writer_commit(&w));
    }
    return PB_OK;
}

// ---------------------------------------------------------------- scores

#define AT(type, member) offsetof(type, member)
static const column row_columns[] = {
    {"model", NULL, TEXT, ROW, AT(pb_row, model), 0},
    {"method", NULL, TEXT, ROW, AT(pb_row, method), 0},
    {"block", NULL, BLOCK, ROW, AT(pb_row, block), 0},
    {"budget", NULL, REAL, ROW, AT(pb_row, budget), 0},
    {"label", "method", TEXT, ROW, AT(pb_row, label), 0},
    {"trainable", "trainable", WHOLE, ROW, AT(pb_row, trainable), 0},
    {"percent_of_backbone", "% of backbone", SHARE, ROW, AT(pb_row, share), 0},
};
enum { FIXED = sizeof row_columns / sizeof *row_columns };

// One column per task in print; its mean and sd in CSV.
static pb_err overview(const sink *to, const pb_summary *s, const item *items, const char *note)
{
    pb_err err = PB_OK;
    size_t n = FIXED + 2 * s->n_tasks;
    column *columns = calloc(n, sizeof *columns);
    char(*names)[3][200] = calloc(s->n_tasks, sizeof *names);
    if (!columns || !names)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a table"));
    memcpy(columns, row_columns, sizeof row_columns);
    for (size_t t = 0; t < s->n_tasks; t++) {
        const pb_task_column *c = &s->tasks[t];
        snprintf(names[t][0], sizeof names[t][0], "%.90s, %.60s%s%s", c->task, c->metric,
                 *c->unit ? " " : "", c->unit);
        snprintf(names[t][1], sizeof names[t][1], "%.190s", c->task);
        snprintf(names[t][2], sizeof names[t][2], "%.190s_sd", c->task);
        columns[FIXED + 2 * t] =
            (column){names[t][1], names[t][0], VERDICT, CELL, AT(pb_cell, mean), t};
        columns[FIXED + 2 * t + 1] = (column){names[t][2], NULL, REAL, CELL, AT(pb_cell, sd), t};
    }
    table t = {"overview", "Overview: mean \u00B1 sd over seeds", note, columns, n, items,
               s->n_rows};
    err = put(to, &t);
done:
    free(names);
    free(columns);
    return err;
}

// What every line of the table of one task, or of all tasks in CSV, may say.
static pb_err scores(const sink *to, const pb_summary *s, const char *name, const char *title,
                     const char *note, const item *items, size_t n)
{
    char difference[160];
    snprintf(difference, sizeof difference, "minus %.100s [95 %%]", s->baseline);
    const column columns[] = {
        row_columns[0],
        row_columns[1],
        row_columns[2],
        row_columns[3],
        row_columns[4],
        row_columns[5],
        row_columns[6],
        {"task", NULL, TEXT, TASK, AT(pb_task_column, task), 0},
        {"metric", NULL, TEXT, TASK, AT(pb_task_column, metric), 0},
        {"unit", NULL, TEXT, TASK, AT(pb_task_column, unit), 0},
        {"n", "n", COUNT, CELL, AT(pb_cell, n), 0},
        {NULL, "mean \u00B1 sd", SCORE, CELL, 0, 0},
        {"mean", NULL, REAL, CELL, AT(pb_cell, mean), 0},
        {"sd", NULL, REAL, CELL, AT(pb_cell, sd), 0},
        {"median", "median", REAL, CELL, AT(pb_cell, median), 0},
        {NULL, "[95 %]", INTERVAL, CELL, AT(pb_cell, interval), 0},
        {"lo95", NULL, REAL, CELL, AT(pb_cell, interval.lo), 0},
        {"hi95", NULL, REAL, CELL, AT(pb_cell, interval.hi), 0},
        {"resampled", NULL, TEXT, CELL, AT(pb_cell, resampled), 0},
        {"baseline", NULL, BASELINE, SUMMARY, AT(pb_summary, baseline), 0},
        {"n_pairs", NULL, COUNT, CELL, AT(pb_cell, n_pairs), 0},
        {NULL, difference, DIFFERENCE, CELL, 0, 0},
        {"difference", NULL, REAL, CELL, AT(pb_cell, difference), 0},
        {"difference_lo95", NULL, REAL, CELL, AT(pb_cell, difference_interval.lo), 0},
        {"difference_hi95", NULL, REAL, CELL, AT(pb_cell, difference_interval.hi), 0},
        {"p", NULL, PROBABILITY, CELL, AT(pb_cell, p), 0},
        {"p_holm", "p (Holm)", PROBABILITY, CELL, AT(pb_cell, p_holm), 0},
        {"detectable", "detectable", REAL, CELL, AT(pb_cell, detectable), 0},
        {"diverged", "diverged", LOST, CELL, AT(pb_cell, n_diverged), 0},
        {"failed", "failed", LOST, CELL, AT(pb_cell, n_failed), 0},
        {NULL, "unfinished", UNFINISHED, CELL, 0, 0},
        {"interrupted", NULL, COUNT, CELL, AT(pb_cell, n_interrupted), 0},
        {"unscored", NULL, COUNT, CELL, AT(pb_cell, n_unscored), 0},
    };
    table t = {name, title, note, columns, sizeof columns / sizeof *columns, items, n};
    return put(to, &t);
}

static bool has_runs(const pb_cell *c)
{
    return c->n || isfinite(c->mean) || c->n_diverged || c->n_failed || c->n_interrupted ||
           c->n_unscored;
}

static void legend(char *out, size_t size, const pb_summary *s)
{
    bool items = false, seeds = false, one = false, several = false;
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t t = 0; t < s->n_tasks; t++) {
            const char *r = s->rows[i].cells[t].resampled;
            one |= !strcmp(r, "items");
            seeds |= !strcmp(r, "seeds");
            several |= !strcmp(r, "seeds and items");
        }
    items = one || several;
    const char *how = items && seeds
                          ? "seeds and test items (seeds alone where no item scores exist)"
                      : one   ? "seeds and test items (items alone for a single seed)"
                      : items ? "seeds and test items"
                              : "seeds";
    snprintf(
        out, size,
        "n: complete seeds. [95 %%]: bootstrap over %s, %zu resamples. minus %s: paired by seed; "
        "~ its interval covers 0. p: paired t test over seeds, Holm-corrected within the task. "
        "detectable: the true difference that this test (one comparison, 5 %%) would find with 80 "
        "%% power at these seeds' spread. Diverged, failed and unfinished runs are counted, not "
        "averaged.",
        how, s->resamples, s->baseline);
}

static pb_err all_scores(const sink *to, const pb_summary *s)
{
    pb_err err = PB_OK;
    char note[900], title[512], name[200];
    item *items = calloc(s->n_rows * s->n_tasks + 1, sizeof *items);
    if (!items)
        return pb_fail(PB_MEMORY, NULL, "no memory for a table");
    legend(note, sizeof note, s);
    for (size_t i = 0; i < s->n_rows; i++)
        items[i] = (item){.s = s, .row = &s->rows[i], .task = ALL};
    bool csv = !to->folder && to->format == PB_CSV; // one table, with a column for the task
    if (s->n_tasks > 1 && !csv)
        PB_GO(overview(to, s, items, to->folder ? note : NULL));
    size_t n = 0;
    for (size_t t = 0; t < s->n_tasks; t++) {
        const pb_task_column *c = &s->tasks[t];
        for (size_t i = 0; i < s->n_rows; i++)
            if (csv || has_runs(&s->rows[i].cells[t]))
                items[n++] = (item){.s = s, .row = &s->rows[i], .task = t};
        if (csv)
            continue;
        snprintf(title, sizeof title, "%s: %s%s%s%s, %s is better", c->task, c->metric,
                 *c->unit ? " (" : "", c->unit, *c->unit ? ")" : "",
                 c->higher_is_better ? "higher" : "lower");
        snprintf(name, sizeof name, "%.190s", c->task);
        bool last = to->folder || t + 1 == s->n_tasks;
        PB_GO(scores(to, s, name, title, last ? note : NULL, items, n));
        n = 0;
    }
    if (csv)
        err = scores(to, s, "scores", "", NULL, items, n);
done:
    free(items);
    return err;
}

// ---------------------------------------------------------------- latency

typedef enum selection { STEPS, GENERATIONS, ALL_ARMS } selection;

static size_t arms(item *items, const pb_summary *s, selection w)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_arms; i++)
        if (w == ALL_ARMS || generates(&s->arms[i]) == (w == GENERATIONS))
            items[n++] = (item){.s = s, .arm = &s->arms[i], .task = ALL};
    return n;
}

#define OF_ARM(member)      ARM, AT(pb_arm, member), 0
#define OF_SCENARIO(member) SCENARIO, AT(pb_scenario, member), 0

// Steps of prefill and decoding; in CSV what is known of any arm.
static pb_err steps(const sink *to, const item *items, size_t n)
{
    static const column columns[] = {
        {"model", NULL, TEXT, OF_ARM(model)},
        {"scenario", NULL, TEXT, OF_SCENARIO(name)},
        {"phase", NULL, TEXT, OF_SCENARIO(phase)},
        {"method", "method", TEXT, OF_SCENARIO(method)},
        {"sharing", "sharing", TEXT, OF_SCENARIO(sharing)},
        {"rows", NULL, RATE, OF_SCENARIO(rows)},
        {"tenants", "tenants", RATE, OF_SCENARIO(tenants)},
        {"prompt", NULL, RATE, OF_SCENARIO(prompt)},
        {"new", NULL, RATE, OF_SCENARIO(fresh)},
        {"beam", NULL, RATE, OF_SCENARIO(beam)},
        {"budget", NULL, RATE, OF_SCENARIO(budget)},
        {"trainable", NULL, RATE, OF_SCENARIO(trainable)},
        {"runs", NULL, COUNT, OF_ARM(n_runs)},
        {"median_ms_per_token", "ms/token", REAL, OF_ARM(median)},
        {NULL, "[95 %]", INTERVAL, OF_ARM(median_interval)},
        {"median_lo95", NULL, REAL, OF_ARM(median_interval.lo)},
        {"median_hi95", NULL, REAL, OF_ARM(median_interval.hi)},
        {"p90_ms_per_token", NULL, REAL, OF_ARM(p90)},
        {"p99_ms_per_token", NULL, REAL, OF_ARM(p99)},
        {"over_base", "\u00D7 base", RATIO, OF_ARM(over_base)},
        {"noise", "noise %", PERCENT, OF_ARM(noise)},
        {"tokens_per_second", "tokens/s", RATE, OF_ARM(tokens_per_second)},
        {"of_limit", "of limit %", PERCENT, OF_SCENARIO(of_limit)},
        {"backbone_time_share", NULL, REAL, OF_SCENARIO(backbone_share)},
        {"attention_time_share", NULL, REAL, OF_SCENARIO(attention_share)},
        {"adapter_time_share", "adapter %", PERCENT, OF_SCENARIO(adapter_share)},
        {"head_time_share", NULL, REAL, OF_SCENARIO(head_share)},
        {"resident_bytes_per_tenant", "bytes/tenant", SHORT,
         OF_SCENARIO(resident_bytes_per_tenant)},
        {"memory_bytes", NULL, REAL, OF_SCENARIO(memory_bytes)},
        {"flops_per_token", "FLOP/token", SHORT, OF_SCENARIO(flops_per_token)},
        {"bytes_per_token", "bytes/token", SHORT, OF_SCENARIO(bytes_per_token)},
        {"regions_per_token", "regions/token", SHORT, OF_SCENARIO(regions_per_token)},
        {"samples", NULL, COUNT, OF_ARM(n)},
    };
    table t = {
        "latency",
        "Latency: time per token of one request (median), throughput of the batch",
        "noise: difference between the medians of every other sample, in percent of the median; "
        "smaller differences between arms mean nothing. [95 %]: order-statistic interval of the "
        "median. of limit: what the machine would need for the arm's operations and bytes, as "
        "measured in the same rounds, in percent of its time. adapter: in percent of the time. "
        "Regions: parallel regions entered per token, each with a barrier.",
        columns,
        sizeof columns / sizeof *columns,
        items,
        n};
    return put(to, &t);
}

static pb_err efficiency(const sink *to, const item *items, size_t n)
{
    static const column columns[] = {
        {"model", NULL, TEXT, OF_ARM(model)},
        {"method", "method", TEXT, OF_SCENARIO(method)},
        {"sharing", "sharing", TEXT, OF_SCENARIO(sharing)},
        {"rows", NULL, RATE, OF_SCENARIO(rows)},
        {"tenants", "tenants", RATE, OF_SCENARIO(tenants)},
        {"prompt", NULL, RATE, OF_SCENARIO(prompt)},
        {"new", NULL, RATE, OF_SCENARIO(fresh)},
        {"beam", NULL, RATE, OF_SCENARIO(beam)},
        {"budget", NULL, RATE, OF_SCENARIO(budget)},
        {"trainable", "trainable", WHOLE, OF_SCENARIO(trainable)},
        {"tokens_per_second", "tokens/s", SHORT, OF_ARM(tokens_per_second)},
        {"time_over_base", "time \u00D7 base", RATIO, OF_ARM(over_base)},
        {"noise", "noise %", PERCENT, OF_ARM(noise)},
        {"memory_bytes", "memory", SHORT, OF_SCENARIO(memory_bytes)},
        {"resident_bytes_per_tenant", NULL, SHORT, OF_SCENARIO(resident_bytes_per_tenant)},
        {"of_limit", "of limit %", PERCENT, OF_SCENARIO(of_limit)},
        {"adapter_time_share", "adapter %", PERCENT, OF_SCENARIO(adapter_share)},
        {"flops_per_token", "FLOP/token", SHORT, OF_SCENARIO(flops_per_token)},
        {"bytes_per_token", "bytes/token", SHORT, OF_SCENARIO(bytes_per_token)},
        {"regions_per_token", "regions/token", SHORT, OF_SCENARIO(regions_per_token)},
        {"samples", "samples", COUNT, OF_ARM(n)},
    };
    table t = {
        "efficiency",
        "Efficiency: whole generations, new tokens per second of the batch (median) and memory",
        "Prompts are in the time, and in FLOPs, bytes and parallel regions (barriers) per new "
        "token. "
        "sharing: different = tenants in one batch, fused; loop = one tenant after the other. "
        "memory: "
        "backbone, adapters, keys and values of all beams, activations of a server that has these "
        "adapters alone. of limit: what the machine would need for the arm's operations and bytes, "
        "in "
        "percent of its time. Adapters are not merged, except for `merged`. Of the efficiency "
        "figures "
        "of PEDRO's paper none could be read by us, so no published ones stand beside these.",
        columns,
        sizeof columns / sizeof *columns,
        items,
        n};
    return put(to, &t);
}

// CSV on a stream is one table.
static pb_err latency(const sink *to, const pb_summary *s)
{
    item *items = calloc(s->n_arms + 1, sizeof *items);
    if (!items)
        return pb_fail(PB_MEMORY, NULL, "no memory for a table");
    bool one = !to->folder && to->format == PB_CSV;
    size_t n = arms(items, s, one ? ALL_ARMS : STEPS);
    pb_err err = n ? steps(to, items, n) : PB_OK;
    n = one ? 0 : arms(items, s, GENERATIONS);
    if (!err && n)
        err = efficiency(to, items, n);
    free(items);
    return err;
}

// ---------------------------------------------------------------- served workloads

#define ONE(type, field) LINE, AT(type, field), 0
#define QUANTILE(name, k)                                                                          \
    {name, name, REAL, ONE(pb_serving_line, at[k])},                                               \
        {NULL, "[95 %]", INTERVAL, ONE(pb_serving_line, in[k])},                                   \
        {name "_lo95", NULL, REAL, ONE(pb_serving_line, in[k].lo)},                                \
    {                                                                                              \
        name "_hi95", NULL, REAL, ONE(pb_serving_line, in[k].hi)                                   \
    }
static const column line_columns[] = {
    {"run", NULL, TEXT, ONE(pb_serving_line, run)},
    {"measure", "measure", TEXT, ONE(pb_serving_line, measure)},
    {"method", "method", TEXT, ONE(pb_serving_line, method)},
    {"n", "n", COUNT, ONE(pb_serving_line, n)},
    QUANTILE("p50", 0),
    QUANTILE("p90", 1),
    QUANTILE("p99", 2),
    QUANTILE("p99.9", 3),
};
static const column total_columns[] = {
    {"run", NULL, TEXT, ONE(pb_serving_total, run)},
    {"method", "method", TEXT, ONE(pb_serving_total, method)},
    {"tenants", "tenants", COUNT, ONE(pb_serving_total, tenants)},
    {"requests", "requests", COUNT, ONE(pb_serving_total, requests)},
    {"served", "served", COUNT, ONE(pb_serving_total, served)},
    {"rejected", "rejected", COUNT, ONE(pb_serving_total, rejected)},
    {"failed", "failed", COUNT, ONE(pb_serving_total, failed)},
    {"unfinished", "unfinished", COUNT, ONE(pb_serving_total, unfinished)},
    {"requests_per_second", "requests/s", REAL, ONE(pb_serving_total, requests_per_second)},
    {"tokens_per_second", "tokens/s", RATE, ONE(pb_serving_total, tokens_per_second)},
    {"good_per_second", "goodput/s", REAL, ONE(pb_serving_total, good_per_second)},
    {"good_share", "good %", PERCENT, ONE(pb_serving_total, good_share)},
    {"trainable", "trainable", WHOLE, ONE(pb_serving_total, trainable)},
    {"bytes_per_tenant", "bytes/tenant", SHORT, ONE(pb_serving_total, bytes_per_tenant)},
};
static const column part_columns[] = {
    {"run", NULL, TEXT, ONE(pb_serving_part, run)},
    {"part", "part", TEXT, ONE(pb_serving_part, part)},
    {"flops_per_row", "FLOP/row", SHORT, ONE(pb_serving_part, flops)},
    {"bytes_per_row", "bytes/row", SHORT, ONE(pb_serving_part, bytes)},
    {"regions_per_row", "regions/row", REAL, ONE(pb_serving_part, regions)},
    {"us_per_row", "us/row", REAL, ONE(pb_serving_part, us)},
    {"ms_per_step", "ms/step", RATIO, ONE(pb_serving_part, ms_per_step)},
    {"share", "time %", PERCENT, ONE(pb_serving_part, share)},
};
static const column memory_columns[] = {
    {"run", NULL, TEXT, ONE(pb_serving_memory, run)},
    {NULL, "run", TEXT, ONE(pb_serving_memory, name)},
    {"tenants", "tenants", WHOLE, ONE(pb_serving_memory, tenants)},
    {"backbone_bytes", "backbone", SHORT, ONE(pb_serving_memory, backbone)},
    {"kv_bytes", "keys, values", SHORT, ONE(pb_serving_memory, kv)},
    {"activation_bytes", "activations", SHORT, ONE(pb_serving_memory, activations)},
    {"adapter_peak_bytes", "adapters", SHORT, ONE(pb_serving_memory, adapter_peak)},
    {"adapter_limit_bytes", "limit", SHORT, ONE(pb_serving_memory, adapter_limit)},
    {"loads", "loads", COUNT, ONE(pb_serving_memory, loads)},
    {"evictions", "evictions", WHOLE, ONE(pb_serving_memory, evictions)},
    {"failures", "failures", COUNT, ONE(pb_serving_memory, failures)},
    {"load_median_ms", "load ms", REAL, ONE(pb_serving_memory, load_median_ms)},
    {"load_max_ms", "most", REAL, ONE(pb_serving_memory, load_max_ms)},
};

typedef struct served { // runs, and what is said of each
    pb_serving_report *report;
    char (*block)[400];
    size_t n;
} served;

// The lines of a table, of all runs; returns their number.
static size_t serving_items(item *out, const served *v, int which)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++) {
        const pb_serving_report *r = &v->report[i];
        size_t count = which == 0   ? r->n_lines
                       : which == 1 ? r->n_totals
                       : which == 2 ? sizeof r->parts / sizeof *r->parts
                                    : 1;
        for (size_t k = 0; k < count; k++, n++)
            if (out)
                out[n] = (item){.task = ALL,
                                .line = which == 0   ? (const void *)&r->lines[k]
                                        : which == 1 ? (const void *)&r->totals[k]
                                        : which == 2 ? (const void *)&r->parts[k]
                                                     : (const void *)&r->memory,
                                .block = which == 3 ? "bytes" : v->block[i]};
    }
    return n;
}

static pb_err serving_tables(const sink *to, const served *v)
{
    static const struct {
        const char *name, *title, *note;
        const column *columns;
        size_t n;
    } kinds[] = {
        {"serving-latency", "Latencies of requests (ms)",
         "From when a request was due; TPOT: time per further token of a request, ITL: between two "
         "tokens. [95 %]: order-statistic interval, which takes requests as independent: in a "
         "queue neighbours are alike, and the uncertainty is larger. A quantile is shown from 6, "
         "36, 368 and 3688 numbers on, where that interval exists.",
         line_columns, sizeof line_columns / sizeof *line_columns},
        {"serving-throughput", "Requests and throughput",
         "Without the warm-up, from when the first request that counts was due to the end. "
         "Rejected: the queue was full. Goodput: requests served within the limits.",
         total_columns, sizeof total_columns / sizeof *total_columns},
        {"serving-parts", "Where steps spend their time",
         "Per row, which is a token of a prompt or a response. Other: scheduling, and choosing "
         "tokens.",
         part_columns, sizeof part_columns / sizeof *part_columns},
        {"serving-memory", "Memory and loads of adapters",
         "Adapters: the most that were in memory. Load: from when one was asked for.",
         memory_columns, sizeof memory_columns / sizeof *memory_columns},
    };
    pb_err err = PB_OK;
    for (int k = 0; k < 4 && !err; k++) {
        size_t n = serving_items(NULL, v, k);
        item *items = calloc(n + 1, sizeof *items);
        if (!items)
            return pb_fail(PB_MEMORY, NULL, "no memory for a table");
        serving_items(items, v, k);
        if (k && !to->folder)
            fputc('\n', to->f);
        err = put(to, &(table){kinds[k].name, kinds[k].title, kinds[k].note, kinds[k].columns,
                               kinds[k].n, items, n});
        free(items);
    }
    return err;
}

static pb_err serving(const sink *to, pb_serving *const *runs, const char *const *names, size_t n)
{
    pb_err err = PB_OK;
    served v = {calloc(n + 1, sizeof *v.report), calloc(n + 1, sizeof *v.block), 0};
    if (!v.report || !v.block)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a table"));
    for (size_t i = 0; i < n; i++) {
        const char *what = json_string_value(json_object_get(runs[i]->about, "workload"));
        const char *slash = names[i] ? strrchr(names[i], '/') : NULL;
        const char *name = slash ? slash + 1 : names[i] ? names[i] : "";
        snprintf(v.block[i], sizeof v.block[i], "%.150s%s%.200s", name, *name ? ": " : "",
                 what ? what : "");
        PB_GO(pb_serving_report_make(&v.report[i], runs[i], names[i] ? names[i] : ""));
        v.n++;
    }
    err = serving_tables(to, &v);
done:
    for (size_t i = 0; i < v.n; i++)
        pb_serving_report_free(&v.report[i]);
    free(v.report);
    free(v.block);
    return err;
}

pb_err pb_table_serving(FILE *f, pb_serving *const *runs, const char *const *names, size_t n,
                        pb_table_format format)
{
    return serving(&(sink){f, format, NULL}, runs, names, n);
}

static pb_err served_of(const sink *to, const pb_summary *s)
{
    pb_serving **runs = calloc(s->n_served + 1, sizeof *runs);
    const char **names = calloc(s->n_served + 1, sizeof *names);
    pb_err err = runs && names ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a table");
    for (size_t i = 0; !err && i < s->n_served; i++) {
        runs[i] = s->served[i]->serving;
        names[i] = s->served[i]->path;
    }
    if (!err)
        err = serving(to, runs, names, s->n_served);
    free(runs);
    free(names);
    return err;
}

pb_err pb_table_served(FILE *f, const pb_summary *s, pb_table_format format)
{
    if (!s->n_served)
        return pb_fail(PB_INPUT, "`pedrobench serve` makes them",
                       "no served workload in the files");
    return served_of(&(sink){f, format, NULL}, s);
}

pb_err pb_table_scores(FILE *f, const pb_summary *s, pb_table_format format)
{
    if (!s->n_rows)
        return pb_fail(PB_INPUT, "latency runs: use --latency; served workloads: --serving",
                       "no training run among the files");
    return all_scores(&(sink){f, format, NULL}, s);
}

pb_err pb_table_latency(FILE *f, const pb_summary *s, pb_table_format format)
{
    if (!s->n_arms)
        return pb_fail(PB_INPUT, "only complete runs count", "no latency scenario among the files");
    return latency(&(sink){f, format, NULL}, s);
}

pb_err pb_table_files(const char *folder, const pb_summary *s)
{
    sink to = {NULL, PB_TEXT, folder};
    if (!s->n_rows && !s->n_arms && !s->n_served)
        return pb_fail(PB_INPUT, NULL, "the results hold nothing for a table");
    PB_TRY(pb_make_dirs(folder));
    if (s->n_rows)
        PB_TRY(all_scores(&to, s));
    if (s->n_arms)
        PB_TRY(latency(&to, s));
    return s->n_served ? served_of(&to, s) : PB_OK;
}
