#include "results/table.h"

#include "core/error.h"
#include <math.h>
#include <stdarg.h>
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

static pb_err write_grid(FILE *f, grid *g, pb_table_format format)
{
    bool failed = g->failed || g->n % g->cols;
    if (!failed && format == PB_TEXT)
        write_text(f, g);
    else if (!failed && format == PB_MARKDOWN)
        write_markdown(f, g);
    else if (!failed && format == PB_HTML)
        write_html(f, g);
    grid_free(g);
    return failed ? pb_fail(PB_MEMORY, NULL, "no memory for a table") : PB_OK;
}

pb_err pb_table_format_parse(pb_table_format *out, const char *name)
{
    static const char *const names[] = {"text", "markdown", "csv", "html"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(names[i], name)) {
            *out = (pb_table_format)i;
            return PB_OK;
        }
    return pb_fail(PB_USAGE, "text, markdown, csv or html", "unknown table format \"%s\"", name);
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

static void block_title(char *out, size_t size, const pb_summary *s, const pb_row *row)
{
    size_t n = 0;
    if (s->several_models)
        n = (size_t)snprintf(out, size, "%.200s: ", row->model);
    if (row->block == PB_BLOCK_REFERENCE)
        snprintf(out + n, size - n, "reference");
    else if (row->block == PB_BLOCK_NO_KNOB)
        snprintf(out + n, size - n, "no size knob (not matched to a budget)");
    else if (isnan(row->budget))
        snprintf(out + n, size - n, "no budget given");
    else
        snprintf(out + n, size - n, "budget %.10g", row->budget);
}

static bool same_block(const pb_row *a, const pb_row *b)
{
    bool budget = a->block != PB_BLOCK_BUDGET || a->budget == b->budget ||
                  (isnan(a->budget) && isnan(b->budget));
    return a->block == b->block && !strcmp(a->model, b->model) && budget;
}

static void maybe_heading(grid *g, const pb_summary *s, size_t i)
{
    char title[320];
    if (i && same_block(&s->rows[i], &s->rows[i - 1]))
        return;
    block_title(title, sizeof title, s, &s->rows[i]);
    heading(g, title);
}

// "-" for a minus sign keeps the text searchable and machine readable.
static void score_text(char out[96], const pb_cell *c, int digits)
{
    if (!c->n)
        strcpy(out, "-");
    else if (c->n == 1)
        snprintf(out, 96, "%.*f", digits, c->mean);
    else
        snprintf(out, 96, "%.*f \u00B1 %.*f", digits, c->mean, digits, c->sd);
}

// "~": the difference may be none. The blanks keep the numbers of a column aligned.
static const char *verdict(const pb_cell *c)
{
    return c->compared && pb_covers_zero(c->difference_interval) ? " ~" : "  ";
}

static pb_err overview(FILE *f, const pb_summary *s, pb_table_format format)
{
    pb_err err = PB_OK;
    size_t cols = 3 + s->n_tasks;
    char **names = calloc(cols, sizeof *names);
    const char **head = calloc(cols, sizeof *head);
    if (!names || !head)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a table"));
    grid g = {.title = "Overview: mean \u00B1 sd over seeds", .head = head, .cols = cols};
    head[0] = "method";
    head[1] = "trainable";
    head[2] = "% of backbone";
    for (size_t t = 0; t < s->n_tasks; t++) {
        const pb_task_column *c = &s->tasks[t];
        if (asprintf(&names[t], "%s, %s%s%s", c->task, c->metric, *c->unit ? " " : "", c->unit) < 0)
            names[t] = NULL;
        head[3 + t] = names[t] ? names[t] : c->task;
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        const pb_row *row = &s->rows[i];
        char count[32], share[32], score[96];
        whole_number(count, row->trainable);
        share_text(share, row->share);
        maybe_heading(&g, s, i);
        add(&g, "%s", row->label);
        add(&g, "%s", count);
        add(&g, "%s", share);
        for (size_t t = 0; t < s->n_tasks; t++) {
            score_text(score, &row->cells[t], s->tasks[t].digits);
            add(&g, "%s%s", score, verdict(&row->cells[t]));
        }
    }
    err = write_grid(f, &g, format);
done:
    for (size_t t = 0; names && t < s->n_tasks; t++)
        free(names[t]);
    free(names);
    free(head);
    return err;
}

static void interval_text(char out[96], pb_interval i, int digits, bool sign)
{
    if (isnan(i.lo) || isnan(i.hi))
        strcpy(out, "-");
    else
        snprintf(out, 96, sign ? "[%+.*f, %+.*f]" : "[%.*f, %.*f]", digits, i.lo, digits, i.hi);
}

static pb_err task_table(FILE *f, const pb_summary *s, size_t t, pb_table_format format)
{
    const pb_task_column *column = &s->tasks[t];
    char title[512], difference[160];
    snprintf(title, sizeof title, "%s: %s%s%s%s, %s is better", column->task, column->metric,
             *column->unit ? " (" : "", column->unit, *column->unit ? ")" : "",
             column->higher_is_better ? "higher" : "lower");
    snprintf(difference, sizeof difference, "minus %s [95 %%]", s->baseline);
    const char *const head[] = {"method",         "trainable", "% of backbone", "n",
                                "mean \u00B1 sd", "median",    "[95 %]",        difference,
                                "p (Holm)",       "diverged",  "failed",        "unfinished"};
    grid g = {.title = title, .head = head, .cols = sizeof head / sizeof *head};
    for (size_t i = 0; i < s->n_rows; i++) {
        const pb_row *row = &s->rows[i];
        const pb_cell *c = &row->cells[t];
        if (!c->n && !c->n_diverged && !c->n_failed && !c->n_interrupted && !c->n_unscored)
            continue;
        char count[32], share[32], score[96], interval[96], p[32];
        whole_number(count, row->trainable);
        share_text(share, row->share);
        maybe_heading(&g, s, i);
        add(&g, "%s", row->label);
        add(&g, "%s", count);
        add(&g, "%s", share);
        add(&g, "%zu", c->n);
        score_text(score, c, column->digits);
        add(&g, "%s", score);
        if (c->n)
            add(&g, "%.*f", column->digits, c->median);
        else
            add(&g, "-");
        interval_text(interval, c->interval, column->digits, false);
        add(&g, "%s", interval);
        if (c->compared) {
            interval_text(interval, c->difference_interval, column->digits, true);
            add(&g, "%+.*f %s%s", column->digits, c->difference, interval, verdict(c));
        } else {
            add(&g, "%s  ", row->is_baseline ? "baseline" : "-");
        }
        p_text(p, c->p_holm);
        add(&g, "%s", p);
        add(&g, "%zu", c->n_diverged);
        add(&g, "%zu", c->n_failed);
        add(&g, "%zu", c->n_interrupted + c->n_unscored);
    }
    return write_grid(f, &g, format);
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

static void csv_number(FILE *f, double x) // an empty field: not known
{
    fputc(',', f);
    if (isfinite(x))
        fprintf(f, "%.10g", x);
}

static void csv_scores(FILE *f, const pb_summary *s)
{
    static const char *const blocks[] = {"budget", "no knob", "reference"};
    fputs(
        "model,task,metric,unit,method,label,block,budget,trainable,percent_of_backbone,n,mean,sd,"
        "median,lo95,hi95,resampled,baseline,n_pairs,difference,difference_lo95,difference_hi95,p,"
        "p_holm,diverged,failed,interrupted,unscored\n",
        f);
    for (size_t t = 0; t < s->n_tasks; t++)
        for (size_t i = 0; i < s->n_rows; i++) {
            const pb_row *row = &s->rows[i];
            const pb_cell *c = &row->cells[t];
            const char *const texts[] = {row->model,        s->tasks[t].task, s->tasks[t].metric,
                                         s->tasks[t].unit,  row->method,      row->label,
                                         blocks[row->block]};
            for (size_t k = 0; k < 7; k++) {
                if (k)
                    fputc(',', f);
                csv_text(f, texts[k]);
            }
            csv_number(f, row->budget);
            csv_number(f, row->trainable);
            csv_number(f, row->share);
            fprintf(f, ",%zu", c->n);
            csv_number(f, c->mean);
            csv_number(f, c->sd);
            csv_number(f, c->median);
            csv_number(f, c->interval.lo);
            csv_number(f, c->interval.hi);
            fprintf(f, ",%s,", c->resampled);
            csv_text(f, c->compared ? s->baseline : "");
            fprintf(f, ",%zu", c->n_pairs);
            csv_number(f, c->difference);
            csv_number(f, c->difference_interval.lo);
            csv_number(f, c->difference_interval.hi);
            csv_number(f, c->p);
            csv_number(f, c->p_holm);
            fprintf(f, ",%zu,%zu,%zu,%zu\n", c->n_diverged, c->n_failed, c->n_interrupted,
                    c->n_unscored);
        }
}

static void legend(FILE *f, const pb_summary *s, pb_table_format format)
{
    bool items = false, seeds = false, one = false;
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t t = 0; t < s->n_tasks; t++) {
            items |= s->rows[i].cells[t].items && s->rows[i].cells[t].n;
            one |= !strcmp(s->rows[i].cells[t].resampled, "items");
            seeds |= !strcmp(s->rows[i].cells[t].resampled, "seeds");
        }
    const char *how = items && seeds
                          ? "seeds and test items (seeds alone where no item scores exist)"
                      : items ? "seeds and test items"
                              : "seeds";
    how = items && one && !seeds ? "seeds and test items (items alone for a single seed)" : how;
    char text[640];
    snprintf(
        text, sizeof text,
        "n: complete seeds. [95 %%]: bootstrap over %s, %zu resamples. minus %s: paired by seed; "
        "~ its interval covers 0. p: paired t test over seeds, Holm-corrected within the task. "
        "Diverged, failed and unfinished runs are counted, not averaged.",
        how, s->resamples, s->baseline);
    if (format == PB_HTML)
        fputs("<p class=\"note\">", f);
    if (format == PB_HTML)
        pb_html_text(f, text);
    else if (format == PB_MARKDOWN)
        markdown_text(f, text);
    else
        fputs(text, f);
    fputs(format == PB_HTML ? "</p>\n" : "\n", f);
}

pb_err pb_table_scores(FILE *f, const pb_summary *s, pb_table_format format)
{
    if (!s->n_rows)
        return pb_fail(PB_INPUT, "latency runs: use --latency", "no training run among the files");
    if (format == PB_CSV) {
        csv_scores(f, s);
        return PB_OK;
    }
    if (s->n_tasks > 1)
        PB_TRY(overview(f, s, format));
    for (size_t t = 0; t < s->n_tasks; t++)
        PB_TRY(task_table(f, s, t, format));
    legend(f, s, format);
    return PB_OK;
}

static void csv_latency(FILE *f, const pb_summary *s)
{
    fputs(
        "model,scenario,phase,method,sharing,rows,tenants,prompt,runs,samples,median_ms_per_token,"
        "median_lo95,median_hi95,p90_ms_per_token,p99_ms_per_token,tokens_per_second,over_base,"
        "noise,resident_bytes_per_tenant,flops_per_token,bytes_per_token,regions_per_token\n",
        f);
    for (size_t i = 0; i < s->n_arms; i++) {
        const pb_arm *a = &s->arms[i];
        const char *const texts[] = {a->model, a->s->name, a->s->phase, a->s->method,
                                     a->s->sharing};
        for (size_t k = 0; k < 5; k++) {
            if (k)
                fputc(',', f);
            csv_text(f, texts[k]);
        }
        csv_number(f, a->s->rows);
        csv_number(f, a->s->tenants);
        csv_number(f, a->s->prompt);
        fprintf(f, ",%zu,%zu", a->n_runs, a->n);
        const double numbers[] = {a->median,
                                  a->median_interval.lo,
                                  a->median_interval.hi,
                                  a->p90,
                                  a->p99,
                                  a->tokens_per_second,
                                  a->over_base,
                                  a->noise,
                                  a->s->resident_bytes_per_tenant,
                                  a->s->flops_per_token,
                                  a->s->bytes_per_token,
                                  a->s->regions_per_token};
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            csv_number(f, numbers[k]);
        fputc('\n', f);
    }
}

static void add_real(grid *g, const char *fmt_nan, double x, int digits)
{
    if (isfinite(x))
        add(g, "%.*f", digits, x);
    else
        add(g, "%s", fmt_nan);
}

static void add_short(grid *g, double x)
{
    char text[32];
    pb_short_number(text, x);
    add(g, "%s", text);
}

pb_err pb_table_latency(FILE *f, const pb_summary *s, pb_table_format format)
{
    if (!s->n_arms)
        return pb_fail(PB_INPUT, "only complete runs count", "no latency scenario among the files");
    if (format == PB_CSV) {
        csv_latency(f, s);
        return PB_OK;
    }
    static const char *const head[] = {
        "method",       "sharing",    "tenants",     "ms/token",      "[95 %]",
        "p90",          "p99",        "\u00D7 base", "noise %",       "tokens/s",
        "bytes/tenant", "FLOP/token", "bytes/token", "regions/token", "samples"};
    grid g = {.title = "Latency: time per token of one request (median), throughput of the batch",
              .head = head,
              .cols = sizeof head / sizeof *head};
    for (size_t i = 0; i < s->n_arms; i++) {
        const pb_arm *a = &s->arms[i], *b = i ? &s->arms[i - 1] : NULL;
        bool same = b && !strcmp(a->model, b->model) && !strcmp(a->s->phase, b->s->phase) &&
                    a->s->rows == b->s->rows &&
                    (a->s->prompt == b->s->prompt || (isnan(a->s->prompt) && isnan(b->s->prompt)));
        if (!same) {
            char title[400];
            size_t n = 0;
            if (s->several_models)
                n = (size_t)snprintf(title, sizeof title, "%.200s: ", a->model);
            n += (size_t)snprintf(title + n, sizeof title - n, "%.80s, %g sequence%s per batch",
                                  a->s->phase, a->s->rows, a->s->rows == 1 ? "" : "s");
            if (isfinite(a->s->prompt))
                snprintf(title + n, sizeof title - n, ", prompt of %g tokens", a->s->prompt);
            heading(&g, title);
        }
        char interval[96];
        int digits = a->median < 0.1 ? 4 : a->median < 10 ? 3 : 2;
        interval_text(interval, a->median_interval, digits, false);
        add(&g, "%s", a->s->method);
        add(&g, "%s", *a->s->sharing ? a->s->sharing : "-");
        add_real(&g, "-", a->s->tenants, 0);
        add_real(&g, "-", a->median, digits);
        add(&g, "%s", interval);
        add_real(&g, "-", a->p90, digits);
        add_real(&g, "-", a->p99, digits);
        add_real(&g, "-", a->over_base, 3);
        add_real(&g, "-", 100 * a->noise, 1);
        add_real(&g, "-", a->tokens_per_second, 0);
        add_short(&g, a->s->resident_bytes_per_tenant);
        add_short(&g, a->s->flops_per_token);
        add_short(&g, a->s->bytes_per_token);
        add_short(&g, a->s->regions_per_token);
        add(&g, "%zu", a->n);
    }
    PB_TRY(write_grid(f, &g, format));
    const char *note =
        "noise: difference between the medians of every other sample, in percent of the median; "
        "smaller differences between arms mean nothing. [95 %]: order-statistic interval of the "
        "median. p99 only from 1000 samples. Regions: parallel regions entered per token.";
    if (format == PB_HTML)
        fputs("<p class=\"note\">", f);
    fputs(note, f);
    fputs(format == PB_HTML ? "</p>\n" : "\n", f);
    return PB_OK;
}
