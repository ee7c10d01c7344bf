#include "results/figure.h"

#include "core/file.h"
#include "results/table.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    SCORES,
    FOREST,
    ABLATION,
    SCORE_PARAMS,
    RATE,
    LOSS,
    TOKEN_TIME,
    THROUGHPUT,
    TIME_BUDGET,
    TIME_PROMPT,
    TIME_CONTEXT,
    MEMORY,
    SERVED,
    LOAD,
    PARTS,
    TENANTS,
    CAPACITY,
    SCALING_TIME,
    SCALING_MEMORY
};

const pb_figure pb_figures[] = {
    [SCORES] = {"scores", "Scores",
                "Test score of every method: mean over seeds, with the 95 % bootstrap interval."},
    [FOREST] = {"forest", "Differences to the baseline",
                "Difference of the test score to the baseline's, paired by seed, with the 95 % "
                "bootstrap interval. An interval that covers 0 decides nothing."},
    [ABLATION] = {"ablation", "Ablations",
                  "Difference of every variant's test score to that of the variant they are all "
                  "made from, paired by seed, with the 95 % bootstrap interval."},
    [SCORE_PARAMS] = {"score-params", "Score against trainable parameters",
                      "Mean test score over seeds against the number of trainable parameters, with "
                      "the 95 % bootstrap interval; points that would cover each other are set "
                      "side by side. Dashed: the best score at or below a size (Pareto front)."},
    [RATE] = {"learning-rate", "Sensitivity to the learning rate",
              "Lowest validation loss (nat per token) against the learning rate: mean over seeds "
              "and their range. A ring marks a method's best rate, a cross on the upper edge a "
              "rate at which a run diverged."},
    [LOSS] = {"loss", "Training loss",
              "Training loss: mean over seeds of the running mean over 1/20 of the logged steps; "
              "the band spans the smallest and the largest seed."},
    [TOKEN_TIME] = {"token-time", "Time per token",
                    "Median decoding time per token of one request, with the 95 % order-statistic "
                    "interval; left: all sequences of the batch share one adapter; right: they use "
                    "different adapters."},
    [THROUGHPUT] = {"throughput", "Throughput",
                    "Decoding throughput of the whole batch, from the median time."},
    [TIME_BUDGET] = {"time-budget", "Time against the budget",
                     "Decoding with a different adapter for each sequence, against the budget of "
                     "trainable parameters: median time per token of one request, with the 95 % "
                     "order-statistic interval, and throughput of the batch."},
    [TIME_PROMPT] = {"time-prompt", "Time against the length of the prompt",
                     "Prefill with a different adapter for each sequence, against the tokens of a "
                     "prompt: median time to the first token, with the 95 % order-statistic "
                     "interval, and prompt tokens per second."},
    [TIME_CONTEXT] = {"time-context", "Time against the context",
                      "Decoding with a different adapter for each sequence, against the tokens in "
                      "front: median time per token of one request, with the 95 % order-statistic "
                      "interval, and throughput of the batch."},
    [MEMORY] = {"memory", "Memory per tenant", "Resident memory that one more tenant needs."},
    [SERVED] = {"served-latency", "Latency of served requests",
                "Latencies of the served workload with the most methods, from when a request was "
                "due, against 1 / (1 - p): one request in so many takes at least as long."},
    [LOAD] = {"load", "Latency under rising load",
              "Time to the first token (median and 90th percentile) against the throughput that "
              "was reached, at rising rates of requests (medians over runs at one rate). A ring "
              "marks the knee, where throughput / "
              "median time of a request is largest."},
    [PARTS] = {"components", "Time by component",
               "Time of steps per row (a token of a prompt or a response), by component, of one "
               "served workload for each method."},
    [TENANTS] = {"tenants-memory", "Memory against tenants",
                 "Memory that the adapters of so many tenants take, as served workloads without a "
                 "limit had them; dashed: the backbone."},
    [CAPACITY] = {"capacity", "Largest rate against tenants",
                  "The largest rate of requests within the limits against the number of tenants, "
                  "as `pedrobench capacity` simulated it."},
    [SCALING_TIME] = {"scaling-time", "Time along axes",
                      "Median times of `pedrobench bench scaling`: a step of decoding, a prompt, a "
                      "training step; a panel for each axis, on logarithmic scales."},
    [SCALING_MEMORY] = {"scaling-memory", "Memory along axes",
                        "Activations, gradients, caches and adapters of the same, without the "
                        "backbone."},
    {NULL, NULL, NULL},
};

// The numbers of a figure and the variables its script is given.
typedef struct sheet {
    FILE *dat, *vars;
    char *dat_text, *vars_text;
    size_t dat_size, vars_size;
    bool tex; // texts are for LaTeX
} sheet;

static pb_err no_memory(void)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for a figure");
}

static void sheet_free(sheet *s)
{
    if (s->dat)
        fclose(s->dat);
    if (s->vars)
        fclose(s->vars);
    free(s->dat_text);
    free(s->vars_text);
    *s = (sheet){0};
}

static pb_err sheet_open(sheet *s)
{
    bool tex = s->tex;
    *s = (sheet){.tex = tex};
    s->dat = open_memstream(&s->dat_text, &s->dat_size);
    s->vars = open_memstream(&s->vars_text, &s->vars_size);
    return s->dat && s->vars ? PB_OK : no_memory();
}

// A field of the table: no tab and no line break.
static void field(FILE *f, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == '"' ? ' ' : *text, f);
}

// A text inside single quotes of gnuplot; with `word`, blanks become no-break spaces, so that it is
// one word of a list.
static void quoted(sheet *s, const char *text, bool word)
{
    char plain[1024];
    size_t n = 0;
    for (; *text && n + 4 < sizeof plain; text++) {
        const char *sign = *text == '\''                         ? "\u2019"
                           : *text == '"'                        ? "\u201D"
                           : (unsigned char)*text <= ' ' && word ? "\u00A0"
                           : (unsigned char)*text < ' '          ? " "
                                                                 : NULL;
        if (sign)
            n += (size_t)snprintf(plain + n, sizeof plain - n, "%s", sign);
        else
            plain[n++] = *text;
    }
    plain[n] = 0;
    if (s->tex)
        pb_latex_text(s->vars, plain);
    else
        fputs(plain, s->vars);
}

static void var_text(sheet *s, const char *name, const char *text)
{
    fprintf(s->vars, "%s='", name);
    quoted(s, text, false);
    fputs("';", s->vars);
}

// A path is no text to be set: only the quote needs care.
static void var_path(sheet *s, const char *name, const char *path)
{
    fprintf(s->vars, "%s='", name);
    for (; *path; path++)
        fputs(*path == '\'' ? "''" : (char[]){*path, 0}, s->vars);
    fputs("';", s->vars);
}

static void var_number(sheet *s, const char *name, double x)
{
    fprintf(s->vars, "%s=%.10g;", name, x);
}

// Lists reach gnuplot as words of a text. Started by list_begin, closed by list_end.
static void list_begin(sheet *s, const char *name)
{
    fprintf(s->vars, "%s='", name);
}

static void list_add(sheet *s, const char *text)
{
    quoted(s, *text ? text : "-", true);
    fputc(' ', s->vars);
}

static void list_number(sheet *s, double x)
{
    fprintf(s->vars, "%.10g ", x);
}

static void list_end(sheet *s)
{
    fputs("';", s->vars);
}

// Names, and the longest one's number of bytes for the width they take.
static void names(sheet *s, const char *list, const char *const *text, size_t n)
{
    size_t widest = 0;
    list_begin(s, list);
    for (size_t k = 0; k < n; k++) {
        list_add(s, text[k]);
        widest = strlen(text[k]) > widest ? strlen(text[k]) : widest;
    }
    list_end(s);
    var_number(s, "widest", (double)widest);
}

static void legend(sheet *s, const char *const *series, size_t n)
{
    names(s, "series", series, n);
    var_number(s, "nseries", (double)n);
}

static void number(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, "\t%.10g", x);
    else
        fputs("\tNaN", f);
}

static void panel_titles(sheet *s, const pb_summary *m)
{
    char text[512];
    list_begin(s, "titles");
    for (size_t t = 0; t < m->n_tasks; t++)
        list_add(s, m->tasks[t].task);
    list_end(s);
    list_begin(s, "metrics");
    for (size_t t = 0; t < m->n_tasks; t++) {
        const pb_task_column *c = &m->tasks[t];
        snprintf(text, sizeof text, "%s%s%s%s", strcmp(c->metric, "bleu") ? c->metric : "BLEU",
                 *c->unit ? " (" : "", c->unit, *c->unit ? ")" : "");
        for (char *p = text; *p; p++)
            *p = *p == '_' ? ' ' : *p;
        list_add(s, text);
    }
    list_end(s);
    var_number(s, "panels", (double)m->n_tasks);
}

// What a panel shows: low above high for a panel without data, whose range gnuplot cannot find.
typedef struct range {
    double lo, hi;
} range;

static void widen(range *r, double lo, double hi)
{
    if (isfinite(lo) && isfinite(hi))
        *r = (range){fmin(r->lo, lo), fmax(r->hi, hi)};
}

static void panel_ranges(sheet *s, const range *r, size_t n)
{
    for (int high = 0; high < 2; high++) {
        list_begin(s, high ? "highs" : "lows");
        for (size_t t = 0; t < n; t++)
            list_number(s, r[t].lo <= r[t].hi ? high ? r[t].hi : r[t].lo : !high);
        list_end(s);
    }
}

static range *new_ranges(size_t n)
{
    range *r = calloc(n + 1, sizeof *r);
    for (size_t i = 0; r && i < n; i++)
        r[i] = (range){INFINITY, -INFINITY};
    return r;
}

static bool competes(const pb_row *row)
{
    return row->block < PB_BLOCK_REFERENCE;
}

static void row_name(char *out, size_t size, const pb_summary *m, const pb_row *row,
                     const char *name)
{
    if (m->several_models) {
        const char *base = strrchr(row->model, '/');
        snprintf(out, size, "%s, %s", name, base ? base + 1 : row->model);
    } else {
        snprintf(out, size, "%s", name);
    }
}

static void value_line(FILE *f, const char *task, const char *name, double y, double trainable,
                       double value, pb_interval i)
{
    bool known = !isnan(i.lo);
    field(f, task);
    fputc('\t', f);
    field(f, name);
    number(f, y);
    number(f, trainable);
    number(f, value);
    number(f, known ? i.lo : value);
    number(f, known ? i.hi : value);
}

static void value_header(FILE *f, const char *more)
{
    fprintf(f, "# task\trow\tposition\ttrainable\tvalue\tlo95\thi95%s\n", more);
}

// Figures with a line per row: which rows, what they are called, where the lines are, from the top.
typedef struct chart {
    const pb_row **row;
    char (*name)[600];
    double *y;
    size_t n;
} chart;

static bool chart_new(chart *l, const pb_summary *m)
{
    *l = (chart){calloc(m->n_rows + 1, sizeof *l->row), calloc(m->n_rows + 1, sizeof *l->name),
                 calloc(m->n_rows + 1, sizeof *l->y), 0};
    return l->row && l->name && l->y;
}

static void chart_free(chart *l)
{
    free(l->row);
    free(l->name);
    free(l->y);
}

static void chart_add(chart *l, const pb_row *row, const char *name, double gap)
{
    l->row[l->n] = row;
    snprintf(l->name[l->n], sizeof l->name[l->n], "%s", name);
    l->y[l->n] = l->n ? l->y[l->n - 1] + 1 + gap : 1;
    l->n++;
}

// One block per task, one line per row.
static bool draw_chart(sheet *s, const pb_summary *m, chart *l, bool difference)
{
    bool any = false;
    range *r = new_ranges(m->n_tasks);
    const char **text = calloc(l->n + 1, sizeof *text);
    double places = l->n ? l->y[l->n - 1] : 0;
    value_header(s->dat, "");
    for (size_t t = 0; r && text && t < m->n_tasks; t++) {
        for (size_t i = 0; i < l->n; i++) {
            const pb_cell *c = &l->row[i]->cells[t];
            pb_interval in = difference ? c->difference_interval : c->interval;
            double v = difference ? c->difference : c->mean;
            value_line(s->dat, m->tasks[t].task, l->name[i], places + 1 - l->y[i],
                       l->row[i]->trainable, v, in);
            fputc('\n', s->dat);
            widen(&r[t], isnan(in.lo) ? v : in.lo, isnan(in.lo) ? v : in.hi);
            any |= isfinite(v);
        }
        fputs("\n\n", s->dat);
    }
    if (r && text) {
        for (size_t i = 0; i < l->n; i++)
            text[i] = l->name[i];
        names(s, "names", text, l->n);
        panel_ranges(s, r, m->n_tasks);
        list_begin(s, "positions");
        for (size_t i = 0; i < l->n; i++)
            list_number(s, places + 1 - l->y[i]);
        list_end(s);
        list_begin(s, "styles");
        for (size_t i = 0; i < l->n; i++)
            list_number(s, pb_summary_style(m, l->row[i]->series));
        list_end(s);
        var_number(s, "rows", (double)l->n);
        var_number(s, "places", places);
    }
    any &= r && text;
    free(r);
    free(text);
    return any;
}

static void no_references(sheet *s, const pb_summary *m)
{
    list_begin(s, "references");
    for (size_t t = 0; t < m->n_tasks; t++)
        list_add(s, "-");
    list_end(s);
}

// References far from the methods would squeeze the axis, so they are named in a line of text.
static void references(sheet *s, const pb_summary *m)
{
    list_begin(s, "references");
    for (size_t t = 0; t < m->n_tasks; t++) {
        char text[512] = "";
        for (size_t i = 0; i < m->n_rows; i++) {
            const pb_row *row = &m->rows[i];
            size_t at = strlen(text);
            if (row->block == PB_BLOCK_REFERENCE && row->cells[t].n)
                snprintf(text + at, sizeof text - at, "%s%.60s %.*f", at ? ", " : "", row->label,
                         m->tasks[t].digits > 2 ? 3 : 1, row->cells[t].mean);
        }
        list_add(s, text);
    }
    list_end(s);
}

static bool scores(sheet *s, const pb_summary *m)
{
    chart l;
    char name[600];
    bool any = chart_new(&l, m);
    for (size_t i = 0; any && i < m->n_rows; i++)
        if (competes(&m->rows[i])) {
            row_name(name, sizeof name, m, &m->rows[i], m->rows[i].label);
            chart_add(&l, &m->rows[i], name, 0);
        }
    any = any && draw_chart(s, m, &l, false);
    references(s, m);
    var_text(s, "below", "-");
    panel_titles(s, m);
    chart_free(&l);
    return any;
}

static bool is_variant(const pb_summary *m, const pb_row *row)
{
    bool centred = false;
    for (size_t i = 0; i < m->n_rows; i++)
        centred |=
            m->rows[i].is_baseline && m->rows[i].is_centre && !strcmp(m->rows[i].model, row->model);
    return centred && !strcmp(row->method, m->baseline);
}

static bool compared(const pb_summary *m, const pb_row *row)
{
    bool any = false;
    for (size_t t = 0; t < m->n_tasks; t++)
        any |= row->cells[t].compared;
    return any;
}

static void difference_titles(sheet *s, const pb_summary *m, const char *to)
{
    char text[200];
    snprintf(text, sizeof text, "difference to %.150s", to);
    var_text(s, "below", text);
    no_references(s, m);
    panel_titles(s, m);
}

static bool forest(sheet *s, const pb_summary *m)
{
    chart l;
    char name[600];
    bool any = chart_new(&l, m);
    for (size_t i = 0; any && i < m->n_rows; i++) {
        const pb_row *row = &m->rows[i];
        if (!competes(row) || !compared(m, row) || is_variant(m, row))
            continue;
        row_name(name, sizeof name, m, row, row->label);
        chart_add(&l, row, name, 0);
    }
    any = any && draw_chart(s, m, &l, true);
    difference_titles(s, m, m->baseline);
    chart_free(&l);
    return any;
}

// The baseline's variants, named by what is different; what concerns one option stands together.
static bool ablation(sheet *s, const pb_summary *m)
{
    chart l;
    const char *to = m->baseline, *before = "";
    bool any = chart_new(&l, m);
    for (size_t i = 0; i < m->n_rows; i++)
        to = m->rows[i].is_baseline && m->rows[i].is_centre ? m->rows[i].label : to;
    for (size_t i = 0; any && i < m->n_rows; i++) {
        const pb_row *row = &m->rows[i];
        if (!compared(m, row) || !is_variant(m, row))
            continue;
        size_t same = strlen(to), method = strlen(row->method);
        bool prefixed = !strncmp(row->label, to, same) && row->label[same] == ' ';
        const char *name = row->label + (prefixed ? same : method);
        name += *name == ' ';
        size_t key = strcspn(name, "=") + 1;
        chart_add(&l, row, name, l.n && strncmp(name, before, key) ? 0.6 : 0);
        before = l.name[l.n - 1];
    }
    any = any && draw_chart(s, m, &l, true);
    difference_titles(s, m, to);
    chart_free(&l);
    return any;
}

// ---------------------------------------------------------------- curves

// The distinct series of some rows, in order; NULL: no memory.
static const char **distinct(const pb_summary *m, bool (*wanted)(const pb_row *), size_t *n)
{
    const char **v = calloc(m->n_rows + 2, sizeof *v);
    *n = 0;
    for (size_t i = 0; v && i < m->n_rows; i++) {
        bool seen = !wanted(&m->rows[i]);
        for (size_t k = 0; k < *n && !seen; k++)
            seen = !strcmp(v[k], m->rows[i].series);
        if (!seen)
            v[(*n)++] = m->rows[i].series;
    }
    return v;
}

static void series_styles(sheet *s, const pb_summary *m, const char *const *series, size_t n)
{
    list_begin(s, "styles");
    for (size_t k = 0; k < n; k++)
        list_number(s, pb_summary_style(m, series[k]));
    list_end(s);
}

static bool has_size(const pb_row *row)
{
    return competes(row) && row->trainable > 0;
}

typedef struct spot {
    const pb_row *row;
    double x; // log10 of the size, then of where it is drawn
} spot;

static int by_size(const void *pa, const void *pb)
{
    const spot *a = pa, *b = pb;
    return a->x != b->x ? (a->x > b->x) - (a->x < b->x) : (a->row > b->row) - (a->row < b->row);
}

// Moves sorted points apart towards a distance of `gap` between neighbours, as little as possible
// in the least-squares sense (isotonic regression of x - i gap by pooling adjacent violators), and
// none by more than `most`: beyond it, points rather overlap than stand at a wrong size.
static void set_apart(spot *v, size_t n, double gap, double most)
{
    double *mean = calloc(n + 1, sizeof *mean), *moved = calloc(n + 1, sizeof *moved), far = 0;
    size_t *count = calloc(n + 1, sizeof *count), pools = 0, at = 0;
    for (size_t i = 0; mean && moved && count && i < n; i++) {
        mean[pools] = v[i].x - gap * (double)i;
        count[pools++] = 1;
        for (; pools > 1 && mean[pools - 2] > mean[pools - 1]; pools--) {
            double a = (double)count[pools - 2], b = (double)count[pools - 1];
            mean[pools - 2] = (a * mean[pools - 2] + b * mean[pools - 1]) / (a + b);
            count[pools - 2] += count[pools - 1];
        }
    }
    for (size_t k = 0; k < pools; k++)
        for (size_t i = 0; i < count[k]; i++, at++) {
            moved[at] = mean[k] + gap * (double)at - v[at].x;
            far = fmax(far, fabs(moved[at]));
        }
    for (size_t i = 0; i < at; i++)
        v[i].x += moved[i] * (far > most ? most / far : 1);
    free(mean);
    free(moved);
    free(count);
}

// The best mean at or below a size, as corners of a staircase that ends at the axis's right end.
static void pareto(FILE *f, const pb_summary *m, size_t t, const spot *v, size_t n, double end)
{
    double sign = m->tasks[t].higher_is_better ? 1 : -1, best = -INFINITY;
    const pb_interval none = {NAN, NAN};
    for (size_t i = 0; i <= n; i++) {
        double mean = i < n ? v[i].row->cells[t].mean : NAN;
        if (i < n && !(sign * mean > best))
            continue;
        best = i < n ? sign * mean : best;
        if (!isfinite(best))
            break;
        value_line(f, m->tasks[t].task, "Pareto front", 0, i < n ? v[i].row->trainable : NAN,
                   sign * best, none);
        number(f, i < n ? pow(10, v[i].x) : end);
        fputc('\n', f);
    }
}

static const char blank[] = "-\t-\tNaN\tNaN\tNaN\tNaN\tNaN\tNaN\n";

// One block per task and series, whose budgets are joined by a line, and one for the front.
static bool score_params(sheet *s, const pb_summary *m)
{
    size_t n = 0, n_spots = 0;
    bool any = false;
    const char **series = distinct(m, has_size, &n);
    spot *v = calloc(m->n_rows + 1, sizeof *v);
    range *r = new_ranges(m->n_tasks);
    if (!series || !v || !r)
        goto done;
    for (size_t i = 0; i < m->n_rows; i++)
        if (has_size(&m->rows[i]))
            v[n_spots++] = (spot){&m->rows[i], log10(m->rows[i].trainable)};
    if (!n_spots)
        goto done;
    qsort(v, n_spots, sizeof *v, by_size);
    double span = fmax(v[n_spots - 1].x - v[0].x, log10(2));
    double gap = fmin(span / 20, 1.1 * span / (double)n_spots);
    set_apart(v, n_spots, gap, log10(1.05));
    double lo = pow(10, v[0].x - 2 * gap), hi = pow(10, v[n_spots - 1].x + 2 * gap);
    value_header(s->dat, "\tdrawn_at");
    for (size_t t = 0; t < m->n_tasks; t++) {
        for (size_t k = 0; k < n; k++) {
            size_t lines = 0;
            for (size_t i = 0; i < n_spots; i++) {
                const pb_cell *c = &v[i].row->cells[t];
                if (strcmp(v[i].row->series, series[k]) || !c->n)
                    continue;
                value_line(s->dat, m->tasks[t].task, v[i].row->label, 0, v[i].row->trainable,
                           c->mean, c->interval);
                number(s->dat, pow(10, v[i].x));
                fputc('\n', s->dat);
                bool known = !isnan(c->interval.lo);
                widen(&r[t], known ? c->interval.lo : c->mean, known ? c->interval.hi : c->mean);
                lines++;
                any = true;
            }
            fputs(lines ? "\n\n" : blank, s->dat); // gnuplot counts blocks, so every one has a line
            if (!lines)
                fputs("\n\n", s->dat);
        }
        if (r[t].lo <= r[t].hi)
            pareto(s->dat, m, t, v, n_spots, hi);
        else
            fputs(blank, s->dat);
        fputs("\n\n", s->dat);
    }
    series_styles(s, m, series, n);
    series[n++] = "Pareto front";
    legend(s, series, n);
    panel_titles(s, m);
    panel_ranges(s, r, m->n_tasks);
    var_number(s, "xlo", lo);
    var_number(s, "xhi", hi);
done:
    free(series);
    free(v);
    free(r);
    return any;
}

static double row_rate(const pb_row *row)
{
    const json_t *v = json_object_get(row->config, "lr");
    return json_is_number(v) ? json_number_value(v) : NAN;
}

// Rows of one method and size that differ in the learning rate.
static bool same_curve(const pb_row *a, const pb_row *b)
{
    return !strcmp(a->model, b->model) && !strcmp(a->series, b->series) &&
           (a->budget == b->budget || (isnan(a->budget) && isnan(b->budget)));
}

static bool has_curve(const pb_summary *m, const pb_row *row)
{
    bool another = false;
    for (size_t i = 0; i < m->n_rows; i++)
        another |= same_curve(&m->rows[i], row) && row_rate(&m->rows[i]) != row_rate(row);
    return competes(row) && row_rate(row) > 0 && another;
}

typedef struct rate {
    double x, mean, lo, hi;
    bool diverged;
} rate;

static int by_rate(const void *pa, const void *pb)
{
    const rate *a = pa, *b = pb;
    return (a->x > b->x) - (a->x < b->x);
}

static rate rate_of(const pb_row *row, size_t t)
{
    const pb_cell *c = &row->cells[t];
    rate out = {row_rate(row), 0, INFINITY, -INFINITY, c->n_diverged > 0};
    size_t n = 0;
    for (size_t i = 0; i < c->n_complete; i++) {
        const pb_curve *v = &c->complete[i]->valid;
        double least = INFINITY;
        for (size_t k = 0; v->loss && k < v->n; k++)
            least = fmin(least, isfinite(v->loss[k]) ? v->loss[k] : INFINITY);
        if (!(least > 0 && isfinite(least)))
            continue;
        out.mean += least;
        out.lo = fmin(out.lo, least);
        out.hi = fmax(out.hi, least);
        n++;
    }
    out.mean = n ? out.mean / (double)n : NAN;
    out.lo = n ? out.lo : NAN;
    out.hi = n ? out.hi : NAN;
    return out;
}

static bool rate_lines(FILE *f, const pb_summary *m, const pb_row *row, size_t t, range *r)
{
    rate *v = calloc(m->n_rows + 1, sizeof *v);
    size_t n = 0, best = 0;
    bool any = false;
    for (size_t i = 0; v && i < m->n_rows; i++)
        if (same_curve(&m->rows[i], row) && row_rate(&m->rows[i]) > 0)
            v[n++] = rate_of(&m->rows[i], t);
    if (n)
        qsort(v, n, sizeof *v, by_rate);
    for (size_t i = 0; i < n; i++)
        if (isfinite(v[i].mean) && !(v[best].mean <= v[i].mean))
            best = i;
    for (size_t i = 0; i < n; i++) {
        field(f, m->tasks[t].task);
        fputc('\t', f);
        field(f, row->series);
        number(f, v[i].x);
        number(f, v[i].mean);
        number(f, v[i].lo);
        number(f, v[i].hi);
        fprintf(f, "\t%d\t%d\n", i == best, v[i].diverged);
        widen(r, v[i].lo, v[i].hi);
        any |= isfinite(v[i].mean);
    }
    free(v);
    return any;
}

// One block per task and method.
static bool learning_rate(sheet *s, const pb_summary *m)
{
    bool any = false;
    size_t n = 0;
    const pb_row **first = calloc(m->n_rows + 1, sizeof *first);
    const char **series = calloc(m->n_rows + 1, sizeof *series);
    range *r = new_ranges(m->n_tasks);
    if (!first || !series || !r)
        goto done;
    for (size_t i = 0; i < m->n_rows; i++) {
        bool seen = !has_curve(m, &m->rows[i]);
        for (size_t k = 0; k < n && !seen; k++)
            seen = same_curve(first[k], &m->rows[i]);
        if (!seen) {
            series[n] = m->rows[i].series;
            first[n++] = &m->rows[i];
        }
    }
    fputs("# task\tseries\trate\tvalid_loss\tmin\tmax\tbest\tdiverged\n", s->dat);
    for (size_t t = 0; t < m->n_tasks; t++)
        for (size_t k = 0; k < n; k++) {
            any |= rate_lines(s->dat, m, first[k], t, &r[t]);
            fputs("\n\n", s->dat);
        }
    legend(s, series, n);
    series_styles(s, m, series, n);
    panel_titles(s, m);
    panel_ranges(s, r, m->n_tasks);
done:
    free(first);
    free(series);
    free(r);
    return any;
}

// Running mean over a centred window that shrinks at both ends.
static double smooth(const pb_curve *c, size_t i, size_t window)
{
    size_t half = window / 2, from = i > half ? i - half : 0;
    size_t to = i + half < c->n ? i + half : c->n - 1, n = 0;
    double sum = 0;
    for (size_t k = from; k <= to; k++) {
        if (isfinite(c->loss[k])) {
            sum += c->loss[k];
            n++;
        }
    }
    return n ? sum / (double)n : NAN;
}

static size_t loss_lines(FILE *f, const pb_row *row, const pb_cell *cell, const char *task)
{
    const pb_curve *curves[64];
    size_t n = 0, longest = 0, lines = 0;
    for (size_t i = 0; i < cell->n_complete && n < 64; i++) {
        const pb_record *r = cell->complete[i];
        if (!r->train.n || !r->train.loss)
            continue;
        if (!n || r->train.n > curves[longest]->n)
            longest = n;
        curves[n++] = &r->train;
    }
    if (!n)
        return 0;
    const pb_curve *lead = curves[longest];
    size_t stride = lead->n > 400 ? lead->n / 400 : 1, window = lead->n / 20;
    for (size_t i = 0; i < lead->n; i += stride) {
        double sum = 0, lo = INFINITY, hi = -INFINITY;
        size_t known = 0;
        for (size_t k = 0; k < n; k++) {
            if (i >= curves[k]->n || curves[k]->step[i] != lead->step[i])
                continue;
            double v = smooth(curves[k], i, window);
            if (!isfinite(v))
                continue;
            sum += v;
            lo = fmin(lo, v);
            hi = fmax(hi, v);
            known++;
        }
        if (!known)
            continue;
        field(f, task);
        fputc('\t', f);
        field(f, row->label);
        number(f, (double)lead->step[i]);
        number(f, sum / (double)known);
        number(f, lo);
        number(f, hi);
        fprintf(f, "\t%zu\n", known);
        lines++;
    }
    return lines;
}

enum { MOST_LOSSES = 24 }; // curves of one panel that can be told apart

static bool loss(sheet *s, const pb_summary *m)
{
    chart l;
    size_t kinds = 0;
    bool any = false;
    char name[600];
    const char **text = calloc(m->n_rows + 1, sizeof *text), **series = NULL;
    if (!chart_new(&l, m) || !text || !(series = distinct(m, has_size, &kinds)))
        goto done;
    size_t trained = 0;
    for (size_t i = 0; i < m->n_rows; i++)
        trained += m->rows[i].trainable != 0;
    bool one_each = kinds == trained;
    for (size_t i = 0; i < m->n_rows; i++)
        if (m->rows[i].trainable != 0) {
            row_name(name, sizeof name, m, &m->rows[i],
                     one_each ? m->rows[i].series : m->rows[i].label);
            text[l.n] = l.name[l.n];
            chart_add(&l, &m->rows[i], name, 0);
        }
    if (l.n > MOST_LOSSES)
        goto done;
    fputs("# task\trow\tstep\tmean\tmin\tmax\tseeds\n", s->dat);
    list_begin(s, "filled");
    for (size_t t = 0; t < m->n_tasks; t++) {
        bool filled = false;
        for (size_t i = 0; i < l.n; i++) {
            size_t n = loss_lines(s->dat, l.row[i], &l.row[i]->cells[t], m->tasks[t].task);
            filled |= n > 0;
            fputs(n ? "\n\n" : blank, s->dat);
            if (!n)
                fputs("\n\n", s->dat);
        }
        list_number(s, filled);
        any |= filled;
    }
    list_end(s);
    legend(s, text, l.n);
    list_begin(s, "styles");
    for (size_t i = 0; i < l.n; i++) // several rows of one method: styles of their own
        list_number(s, one_each ? pb_summary_style(m, l.row[i]->series) : (double)i + 1);
    list_end(s);
    panel_titles(s, m);
done:
    free(text);
    free(series);
    chart_free(&l);
    return any;
}

// The per-tenant loop, the order of a batch and the second measurement of the base are for tables.
static bool is_drawn(const pb_arm *a, const char *phase)
{
    static const char *const sharings[] = {"none", "merged", "same", "different", "mixed"};
    bool known = false;
    for (size_t i = 0; i < sizeof sharings / sizeof *sharings; i++)
        known |= !strcmp(a->s->sharing, sharings[i]);
    return known && !strcmp(a->s->phase, phase) && a->n && a->s->rows > 0 &&
           strcmp(a->s->method, "base-again");
}

static bool decodes(const pb_arm *a)
{
    return is_drawn(a, "decode");
}

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static double rows_of(const pb_arm *a)
{
    return a->s->rows;
}

static double budget_of(const pb_arm *a)
{
    return a->s->budget;
}

static double prompt_of(const pb_arm *a)
{
    return a->s->prompt;
}

// What stays the same along an axis.
typedef bool alike(const pb_arm *a, const pb_arm *b);

static bool same_lengths(const pb_arm *a, const pb_arm *b)
{
    return !strcmp(a->model, b->model) && same_number(a->s->prompt, b->s->prompt) &&
           same_number(a->s->budget, b->s->budget);
}

static bool same_but_budget(const pb_arm *a, const pb_arm *b)
{
    return !strcmp(a->model, b->model) && same_number(a->s->prompt, b->s->prompt) &&
           same_number(a->s->rows, b->s->rows);
}

static bool same_but_prompt(const pb_arm *a, const pb_arm *b)
{
    return !strcmp(a->model, b->model) && same_number(a->s->budget, b->s->budget) &&
           same_number(a->s->rows, b->s->rows);
}

// Different values of x among the arms of a phase that are like `one`; room for them all.
static size_t values_of(double *out, const pb_summary *m, const char *phase, const pb_arm *one,
                        alike *like, double (*x)(const pb_arm *))
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_arm *a = &m->arms[i];
        size_t k = 0;
        if (!is_drawn(a, phase) || !like(a, one) || !isfinite(x(a)))
            continue;
        while (k < n && out[k] != x(a))
            k++;
        if (k == n)
            out[n++] = x(a);
    }
    pb_sort(out, n);
    return n;
}

// Of the conditions under which arms were measured, those with most values of x; of equal ones
// those of the largest batch. NULL: none.
static const pb_arm *richest(double *room, const pb_summary *m, const char *phase, alike *like,
                             double (*x)(const pb_arm *))
{
    const pb_arm *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_arm *a = &m->arms[i];
        size_t n = is_drawn(a, phase) ? values_of(room, m, phase, a, like, x) : 0;
        if (n > most || (n && n == most && a->s->rows > best->s->rows)) {
            best = a;
            most = n;
        }
    }
    return best;
}

// The x axis of the latency figures: when the largest batch was run with several numbers of
// tenants, these; otherwise the size of the batch.
typedef struct axis {
    const pb_arm *like; // the prompt and the budget that are drawn
    bool tenants;
    double rows; // of the batch, when x = tenants
} axis;

static bool on_axis(const axis *x, const pb_arm *a)
{
    return decodes(a) && same_lengths(a, x->like);
}

static pb_err choose_axis(axis *x, const pb_summary *m)
{
    double tenants = NAN, *room = calloc(m->n_arms + 1, sizeof *room);
    *x = (axis){0};
    if (!room)
        return no_memory();
    x->like = richest(room, m, "decode", same_lengths, rows_of);
    free(room);
    for (size_t i = 0; i < m->n_arms; i++)
        if (on_axis(x, &m->arms[i]))
            x->rows = fmax(x->rows, m->arms[i].s->rows);
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_scenario *s = m->arms[i].s;
        if (!on_axis(x, &m->arms[i]) || s->rows != x->rows || strcmp(s->sharing, "different"))
            continue;
        x->tenants |= !isnan(tenants) && s->tenants != tenants;
        tenants = s->tenants;
    }
    return PB_OK;
}

static void arm_line(FILE *f, const pb_arm *a, double x)
{
    field(f, a->s->method);
    fputc('\t', f);
    field(f, a->s->sharing);
    number(f, x);
    number(f, a->median);
    number(f, a->median_interval.lo);
    number(f, a->median_interval.hi);
    number(f, a->tokens_per_second);
    fputc('\n', f);
}

// One block per panel (same, different) and method. Arms without adapters stand in both panels.
static bool latency(sheet *s, const pb_summary *m)
{
    static const char *const panels[] = {"same", "different"};
    size_t n = 0;
    bool any = false;
    axis x;
    const char **methods = calloc(m->n_arms + 1, sizeof *methods);
    if (!methods || choose_axis(&x, m) || !x.like) {
        free(methods);
        return false;
    }
    double lo = INFINITY, hi = 0; // of x
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_arm *a = &m->arms[i];
        bool seen = !on_axis(&x, a);
        for (size_t k = 0; k < n && !seen; k++)
            seen = !strcmp(methods[k], a->s->method);
        if (!seen)
            methods[n++] = a->s->method;
        double at = x.tenants ? a->s->tenants : a->s->rows;
        if (on_axis(&x, a) && at > 0) {
            lo = fmin(lo, at);
            hi = fmax(hi, at);
        }
    }
    fputs("# method\tsharing\tx\tmedian_ms\tlo95\thi95\ttokens_per_second\n", s->dat);
    for (size_t p = 0; p < 2; p++)
        for (size_t k = 0; k < n; k++) {
            size_t lines = 0;
            for (size_t i = 0; i < m->n_arms; i++) {
                const pb_arm *a = &m->arms[i];
                bool plain = strcmp(a->s->sharing, "same") && strcmp(a->s->sharing, "different");
                bool mixed = !strcmp(a->s->sharing, "mixed"); // tenants that differ
                if (!on_axis(&x, a) || strcmp(a->s->method, methods[k]) || (mixed && p == 0) ||
                    (!plain && strcmp(a->s->sharing, panels[p])) ||
                    (x.tenants && a->s->rows != x.rows))
                    continue;
                if (x.tenants && (plain || p == 0)) { // one level across the axis
                    arm_line(s->dat, a, lo);
                    arm_line(s->dat, a, hi);
                } else {
                    arm_line(s->dat, a, x.tenants ? a->s->tenants : a->s->rows);
                }
                lines++;
                any = true;
            }
            if (!lines)
                fputs("-\t-\tNaN\tNaN\tNaN\tNaN\tNaN\n", s->dat);
            fputs("\n\n", s->dat);
        }
    legend(s, methods, n);
    list_begin(s, "styles");
    for (size_t k = 0; k < n; k++)
        list_number(s, pb_summary_style(m, methods[k]));
    list_end(s);
    free(methods);
    char label[128];
    snprintf(label, sizeof label, "tenants in a batch of %g sequences", x.rows);
    var_text(s, "xname", x.tenants ? label : "sequences per batch");
    var_number(s, "xlo", lo);
    var_number(s, "xhi", hi);
    return any;
}

// Curves over what differs between runs; left times, right throughput.
typedef struct curves {
    const char *phase, *xname, *yname;
    alike *like;
    double (*x)(const pb_arm *);
    bool whole_prompt; // times are those of a prompt, not of a token
} curves;

static bool is_curve(const pb_arm *a, const curves *c, const pb_arm *one)
{
    return is_drawn(a, c->phase) && c->like(a, one) && strcmp(a->s->sharing, "same") &&
           isfinite(c->x(a));
}

static size_t curve_methods(const char **out, const pb_summary *m, const curves *c,
                            const pb_arm *one)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_arms; i++) {
        const char *method = m->arms[i].s->method;
        size_t k = 0;
        if (!is_curve(&m->arms[i], c, one))
            continue;
        while (k < n && strcmp(out[k], method))
            k++;
        if (k == n)
            out[n++] = method;
    }
    return n;
}

static void curve_lines(FILE *f, const pb_summary *m, const curves *c, const pb_arm *one,
                        const char *method, const double *x, size_t n)
{
    for (size_t v = 0; v < n; v++) // in the order of the axis
        for (size_t i = 0; i < m->n_arms; i++) {
            const pb_arm *a = &m->arms[i];
            if (!is_curve(a, c, one) || strcmp(a->s->method, method) || c->x(a) != x[v])
                continue;
            double times = c->whole_prompt ? a->s->prompt : 1;
            field(f, method);
            number(f, x[v]);
            number(f, a->median * times);
            number(f, a->median_interval.lo * times);
            number(f, a->median_interval.hi * times);
            number(f, a->tokens_per_second);
            fputc('\n', f);
        }
    fputs("\n\n", f);
}

static bool draw_curves(sheet *s, const pb_summary *m, const curves *c)
{
    const char **methods = calloc(m->n_arms + 1, sizeof *methods);
    double *x = calloc(m->n_arms + 1, sizeof *x);
    const pb_arm *one = methods && x ? richest(x, m, c->phase, c->like, c->x) : NULL;
    size_t n = one ? values_of(x, m, c->phase, one, c->like, c->x) : 0;
    size_t n_methods = n > 1 ? curve_methods(methods, m, c, one) : 0;
    fputs("# method\tx\tmedian_ms\tlo95\thi95\ttokens_per_second\n", s->dat);
    for (size_t k = 0; k < n_methods; k++)
        curve_lines(s->dat, m, c, one, methods[k], x, n);
    legend(s, methods, n_methods);
    list_begin(s, "styles");
    for (size_t k = 0; k < n_methods; k++)
        list_number(s, pb_summary_style(m, methods[k]));
    list_end(s);
    list_begin(s, "xs");
    for (size_t v = 0; v < n; v++)
        list_number(s, x[v]);
    list_end(s);
    list_begin(s, "xlabels");
    for (size_t v = 0; v < n; v++) {
        char text[32];
        pb_short_number(text, x[v]);
        list_add(s, text);
    }
    list_end(s);
    var_text(s, "xname", c->xname);
    var_text(s, "yname", c->yname);
    if (one) {
        char text[64];
        snprintf(text, sizeof text, "%g sequence%s in a batch", one->s->rows,
                 one->s->rows == 1 ? "" : "s");
        var_text(s, "batch", text);
    }
    free(methods);
    free(x);
    return n_methods > 0;
}

static bool time_budget(sheet *s, const pb_summary *m)
{
    static const curves c = {"decode",
                             "budget (trainable parameters)",
                             "time per token (ms)",
                             same_but_budget,
                             budget_of,
                             false};
    return draw_curves(s, m, &c);
}

static bool time_prompt(sheet *s, const pb_summary *m)
{
    static const curves c = {
        "prefill", "tokens of a prompt", "time to the first token (ms)", same_but_prompt, prompt_of,
        true};
    return draw_curves(s, m, &c);
}

static bool time_context(sheet *s, const pb_summary *m)
{
    static const curves c = {"decode",        "tokens in front", "time per token (ms)",
                             same_but_prompt, prompt_of,         false};
    return draw_curves(s, m, &c);
}

typedef struct memory_line {
    const char *method, *series;
    double bytes;
} memory_line;

static int by_bytes(const void *pa, const void *pb)
{
    const memory_line *a = pa, *b = pb;
    return (a->bytes < b->bytes) - (a->bytes > b->bytes);
}

// What latency runs measured; without them, what training runs computed.
static bool memory(sheet *s, const pb_summary *m)
{
    size_t n = 0;
    memory_line *v = calloc(m->n_arms + m->n_rows + 1, sizeof *v);
    if (!v)
        return false;
    for (size_t i = 0; i < m->n_arms + m->n_rows; i++) {
        bool arm = i < m->n_arms;
        if (!arm && i == m->n_arms && n)
            break;
        const pb_row *row = arm ? NULL : &m->rows[i - m->n_arms];
        memory_line line = {arm ? m->arms[i].s->method : row->label,
                            arm ? m->arms[i].s->method : row->series,
                            arm ? m->arms[i].s->resident_bytes_per_tenant : row->bytes_per_tenant};
        size_t k = 0;
        while (k < n && strcmp(v[k].method, line.method))
            k++;
        if (!(line.bytes > 0))
            continue;
        if (k == n)
            v[n++] = line;
        else
            v[k].bytes = fmax(v[k].bytes, line.bytes);
    }
    if (n)
        qsort(v, n, sizeof *v, by_bytes);
    fputs("# method\tposition\tbytes\n", s->dat);
    const char **text = calloc(n + 1, sizeof *text);
    for (size_t k = 0; text && k < n; k++)
        text[k] = v[k].method;
    if (text)
        names(s, "names", text, n);
    free(text);
    list_begin(s, "styles");
    for (size_t k = 0; k < n; k++) {
        field(s->dat, v[k].method);
        number(s->dat, (double)(n - k));
        number(s->dat, v[k].bytes);
        fputc('\n', s->dat);
        list_number(s, pb_summary_style(m, v[k].series));
    }
    list_end(s);
    var_number(s, "rows", (double)n);
    free(v);
    return n > 0;
}

// ---------------------------------------------------------------- served workloads

static const pb_record *most_methods(const pb_summary *m)
{
    const pb_record *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < m->n_served; i++) {
        const pb_serving *v = m->served[i]->serving;
        size_t n = json_object_size(json_object_get(v->about, "methods"));
        if (n > most || (best && n == most && v->n_requests > best->serving->n_requests)) {
            best = m->served[i];
            most = n;
        }
    }
    return best;
}

// The sample of every method and measure: points no closer than 2 % on the axis 1 / (1 - p).
static bool served_latency(sheet *s, const pb_summary *m)
{
    static const int shown[] = {PB_TTFT, PB_TPOT, PB_E2E};
    static const char *const titles[] = {"time to first token", "time per further token",
                                         "whole request"};
    const pb_record *r = most_methods(m);
    pb_serving_report report;
    double xhi = 1;
    bool any = false;
    range y[3] = {{INFINITY, -INFINITY}, {INFINITY, -INFINITY}, {INFINITY, -INFINITY}};
    if (!r || pb_serving_report_make(&report, r->serving, ""))
        return false;
    fputs("# measure\tmethod\tx\tms\n", s->dat);
    for (size_t p = 0; p < 3; p++)
        for (size_t k = 0; k < report.n_methods; k++) {
            double *v = NULL, before = 0;
            size_t n;
            if (pb_serving_samples(&v, &n, r->serving, shown[p], (int)k))
                n = 0;
            for (size_t i = 0; i < n; i++) {
                double x = (double)n / ((double)(n - i) - 0.5);
                if (i + 1 < n && x < 1.02 * before)
                    continue;
                before = x;
                xhi = fmax(xhi, x);
                if (x > 1.2) // the fastest sixth may be cut off
                    widen(&y[p], v[i], v[i]);
                any = true;
                field(s->dat, pb_serving_measures[shown[p]]);
                fputc('\t', s->dat);
                field(s->dat, report.method[k]);
                number(s->dat, x);
                number(s->dat, v[i]);
                fputc('\n', s->dat);
            }
            if (!n)
                fputs("-\t-\tNaN\tNaN\n", s->dat);
            fputs("\n\n", s->dat);
            free(v);
        }
    legend(s, report.method, report.n_methods);
    series_styles(s, m, report.method, report.n_methods);
    list_begin(s, "titles");
    for (size_t p = 0; p < 3; p++)
        list_add(s, titles[p]);
    list_end(s);
    panel_ranges(s, y, 3);
    var_number(s, "xhi", xhi);
    var_number(s, "panels", 3);
    pb_serving_report_free(&report);
    return any;
}

typedef struct load_point {
    const char *label;
    char *key;                         // what else was asked for
    double rate, tokens, ttft[2], e2e; // ms; ttft: median, 90th percentile
    bool knee;
} load_point;

static int by_load(const void *pa, const void *pb)
{
    const load_point *a = pa, *b = pb;
    int c = strcmp(a->label, b->label);
    c = c ? c : strcmp(a->key, b->key);
    return c ? c : (a->rate > b->rate) - (a->rate < b->rate);
}

// The workload but for its rate, as text.
static char *load_key(const json_t *config)
{
    static const char *const loads[] = {"rate", "seconds", "requests", "warm_up",
                                        "seed", "ttft_ms", "tpot_ms"};
    json_t *copy = json_copy((json_t *)config);
    for (size_t i = 0; copy && i < sizeof loads / sizeof *loads; i++)
        json_object_del(copy, loads[i]);
    char *text = copy ? json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(copy);
    return text;
}

static bool load_point_of(load_point *p, const pb_record *r)
{
    const json_t *offered = json_object_get(r->config, "rate");
    pb_serving_report v;
    if (!json_is_number(offered) || json_object_get(r->config, "rate_end") ||
        pb_serving_report_make(&v, r->serving, ""))
        return false;
    const pb_serving_line *ttft = &v.lines[PB_TTFT * v.n_totals];
    *p = (load_point){.label = pb_summary_served_label(r),
                      .rate = json_number_value(offered),
                      .tokens = v.totals[0].tokens_per_second,
                      .ttft = {ttft->at[0], ttft->at[1]},
                      .e2e = v.lines[PB_E2E * v.n_totals].at[0]};
    pb_serving_report_free(&v);
    if (!isfinite(p->tokens) || !isfinite(p->ttft[0]))
        return false;
    p->key = load_key(r->config);
    return p->key != NULL;
}

static double load_median(const load_point *v, size_t n, size_t offset, double *room)
{
    for (size_t i = 0; i < n; i++)
        room[i] = *(const double *)((const char *)&v[i] + offset);
    return pb_median(room, n);
}

// Makes one point, of medians, of runs of one workload at one rate; returns how many are left.
// `room` holds n numbers.
static size_t merge_rates(load_point *v, size_t n, double *room)
{
    size_t left = 0;
    for (size_t i = 0, end; i < n; i = end) {
        load_point p = v[i];
        for (end = i + 1; end < n && !by_load(&v[i], &v[end]); end++)
            free(v[end].key);
        p.tokens = load_median(v + i, end - i, offsetof(load_point, tokens), room);
        p.ttft[0] = load_median(v + i, end - i, offsetof(load_point, ttft[0]), room);
        p.ttft[1] = load_median(v + i, end - i, offsetof(load_point, ttft[1]), room);
        p.e2e = load_median(v + i, end - i, offsetof(load_point, e2e), room);
        v[left++] = p;
    }
    return left;
}

// Points of one workload at several rates.
static size_t load_end(const load_point *v, size_t n, size_t i)
{
    size_t end = i + 1;
    while (end < n && !strcmp(v[end].label, v[i].label) && !strcmp(v[end].key, v[i].key))
        end++;
    return end;
}

// Whether a workload of the same label has more points, or as many and comes before.
static bool load_has_better(const load_point *v, size_t n, size_t i)
{
    size_t own = load_end(v, n, i) - i;
    for (size_t k = 0, end; k < n; k = end) {
        end = load_end(v, n, k);
        if (k != i && !strcmp(v[k].label, v[i].label) &&
            (end - k > own || (end - k == own && k < i)))
            return true;
    }
    return false;
}

static void mark_knee(load_point *v, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (v[i].tokens / v[i].e2e > v[best].tokens / v[best].e2e)
            best = i;
    v[best].knee = true;
}

// One block per label: of its workloads the one with the most rates, at least two.
static bool load(sheet *s, const pb_summary *m)
{
    load_point *v = calloc(m->n_served + 1, sizeof *v);
    const char **series = calloc(m->n_served + 1, sizeof *series);
    double *room = calloc(m->n_served + 1, sizeof *room);
    size_t n = 0, n_series = 0;
    double xhi = 0;
    range y[2] = {{INFINITY, -INFINITY}, {INFINITY, -INFINITY}};
    for (size_t i = 0; v && series && room && i < m->n_served; i++)
        n += load_point_of(&v[n], m->served[i]);
    if (n) {
        qsort(v, n, sizeof *v, by_load);
        n = merge_rates(v, n, room);
    }
    free(room);
    fputs("# series\trate\ttokens_per_second\tttft_p50_ms\tttft_p90_ms\te2e_p50_ms\tknee\n",
          s->dat);
    for (size_t i = 0, end; i < n; i = end) {
        end = load_end(v, n, i);
        if (end - i < 2 || load_has_better(v, n, i))
            continue;
        series[n_series++] = v[i].label;
        mark_knee(v + i, end - i);
        for (size_t k = i; k < end; k++) {
            field(s->dat, v[k].label);
            number(s->dat, v[k].rate);
            number(s->dat, v[k].tokens);
            number(s->dat, v[k].ttft[0]);
            number(s->dat, v[k].ttft[1]);
            number(s->dat, v[k].e2e);
            number(s->dat, v[k].knee);
            fputc('\n', s->dat);
            xhi = fmax(xhi, v[k].tokens);
            widen(&y[0], v[k].ttft[0], v[k].ttft[0]);
            widen(&y[1], v[k].ttft[1], v[k].ttft[1]);
        }
        fputs("\n\n", s->dat);
    }
    if (n_series) {
        legend(s, series, n_series);
        series_styles(s, m, series, n_series);
    }
    list_begin(s, "titles");
    list_add(s, "median");
    list_add(s, "90th percentile");
    list_end(s);
    panel_ranges(s, y, 2);
    var_number(s, "xhi", xhi);
    var_number(s, "panels", 2);
    for (size_t i = 0; i < n; i++)
        free(v[i].key);
    free(v);
    free(series);
    return n_series > 0;
}

// The run that stands for its label: the first closed loop, else the first.
static bool stands_for(const pb_summary *m, size_t i)
{
    const char *label = pb_summary_served_label(m->served[i]);
    size_t chosen = SIZE_MAX;
    bool closed = false;
    for (size_t k = 0; k < m->n_served; k++) {
        bool loop = json_object_get(m->served[k]->config, "clients") != NULL;
        if (strcmp(pb_summary_served_label(m->served[k]), label) ||
            (chosen != SIZE_MAX && (closed || !loop)))
            continue;
        chosen = k;
        closed = loop;
    }
    return chosen == i;
}

static bool components(sheet *s, const pb_summary *m)
{
    static const char *const parts[] = {"backbone", "attention", "adapter", "head", "other"};
    enum { N = PB_SERVED_PARTS + 1 };
    const char **name = calloc(m->n_served + 1, sizeof *name);
    size_t n = 0;
    fputs("# series", s->dat);
    for (size_t k = 0; k < N; k++)
        fprintf(s->dat, "\t%s_us_per_row", parts[k]);
    fputc('\n', s->dat);
    for (size_t i = 0; name && i < m->n_served; i++) {
        pb_serving_report v;
        if (!stands_for(m, i) || pb_serving_report_make(&v, m->served[i]->serving, ""))
            continue;
        name[n++] = pb_summary_served_label(m->served[i]);
        field(s->dat, name[n - 1]);
        for (size_t k = 0; k < N; k++)
            number(s->dat, v.parts[k].us);
        fputc('\n', s->dat);
        pb_serving_report_free(&v);
    }
    if (n) {
        list_begin(s, "names");
        for (size_t i = 0; i < n; i++)
            list_add(s, name[i]);
        list_end(s);
        legend(s, parts, N);
        var_number(s, "rows", (double)n);
        var_number(s, "panels", 1);
    }
    free(name);
    return n > 0;
}

typedef struct memory_point {
    const char *label;
    double tenants, bytes, backbone;
} memory_point;

static int by_tenants(const void *pa, const void *pb)
{
    const memory_point *a = pa, *b = pb;
    int c = strcmp(a->label, b->label);
    return c ? c : (a->tenants > b->tenants) - (a->tenants < b->tenants);
}

// One block per label whose runs had different numbers of tenants, all of them in memory.
static bool tenants_memory(sheet *s, const pb_summary *m)
{
    memory_point *v = calloc(m->n_served + 1, sizeof *v);
    const char **series = calloc(m->n_served + 1, sizeof *series);
    size_t n = 0, n_series = 0;
    double backbone = 0;
    range x = {INFINITY, 0}, y = {INFINITY, 0};
    for (size_t i = 0; v && series && i < m->n_served; i++) {
        const json_t *a = m->served[i]->serving->about;
        memory_point p = {pb_summary_served_label(m->served[i]),
                          json_number_value(json_object_get(a, "tenants")),
                          json_number_value(json_object_get(a, "adapter_peak_bytes")),
                          json_number_value(json_object_get(a, "backbone_bytes"))};
        if (!json_object_get(a, "adapter_limit_bytes") && p.bytes > 0)
            v[n++] = p;
    }
    if (n)
        qsort(v, n, sizeof *v, by_tenants);
    fputs("# series\ttenants\tbytes\n", s->dat);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && !strcmp(v[end].label, v[i].label);)
            end++;
        if (v[i].tenants == v[end - 1].tenants)
            continue;
        series[n_series++] = v[i].label;
        for (size_t k = i; k < end; k++) {
            if (k > i && v[k].tenants == v[k - 1].tenants)
                continue;
            field(s->dat, v[k].label);
            number(s->dat, v[k].tenants);
            number(s->dat, v[k].bytes);
            fputc('\n', s->dat);
            backbone = fmax(backbone, v[k].backbone);
            widen(&x, v[k].tenants, v[k].tenants);
            widen(&y, v[k].bytes, v[k].bytes);
        }
        fputs("\n\n", s->dat);
    }
    if (n_series) {
        legend(s, series, n_series);
        series_styles(s, m, series, n_series);
        var_number(s, "backbone", backbone);
        var_number(s, "xlo", x.lo);
        var_number(s, "xhi", x.hi);
        var_number(s, "ylo", y.lo);
        var_number(s, "yhi", y.hi);
        var_number(s, "panels", 1);
    }
    free(v);
    free(series);
    return n_series > 0;
}

// One block per method and file; a file's name stands beside the method's when there are several.
static bool capacity(sheet *s, const pb_summary *m)
{
    enum { MOST = 64 };
    char(*name)[600] = calloc(MOST, sizeof *name);
    const char *series[MOST];
    size_t n = 0, i, k;
    json_t *file, *a;
    range x = {INFINITY, 0}, y = {INFINITY, 0};
    fputs("# methods\ttenants\trequests_per_second\n", s->dat);
    json_array_foreach(m->capacity, i, file)
    {
        const char *before = NULL;
        json_array_foreach(json_object_get(file, "answers"), k, a)
        {
            const char *methods = json_string_value(json_object_get(a, "methods"));
            double tenants = json_number_value(json_object_get(a, "tenants"));
            double most = json_number_value(json_object_get(a, "requests_per_second"));
            if (!name || !methods || !(tenants > 0) ||
                (n == MOST && (!before || strcmp(before, methods))))
                continue;
            if (!before || strcmp(before, methods)) {
                fputs(n ? "\n\n" : "", s->dat);
                snprintf(name[n], sizeof *name, "%.300s%s%.200s", methods,
                         json_array_size(m->capacity) > 1 ? ", " : "",
                         json_array_size(m->capacity) > 1
                             ? json_string_value(json_object_get(file, "name"))
                             : "");
                series[n] = name[n];
                n++;
            }
            before = methods;
            field(s->dat, methods);
            number(s->dat, tenants);
            number(s->dat, most);
            fputc('\n', s->dat);
            widen(&x, tenants, tenants);
            widen(&y, most, most);
        }
    }
    if (n) {
        legend(s, series, n);
        list_begin(s, "styles");
        for (i = 0; i < n; i++)
            list_number(s, (double)i + 1);
        list_end(s);
        var_number(s, "xlo", x.lo);
        var_number(s, "xhi", x.hi);
        var_number(s, "yhi", y.hi > 0 ? y.hi : 1);
        var_number(s, "panels", 1);
    }
    free(name);
    return n > 0;
}

// ---------------------------------------------------------------- scaling

// The texts that arms have for a key, in the order they come; released with free.
static const char **different(const json_t *arms, const char *key, size_t *n)
{
    const char **text = calloc(json_array_size(arms) + 1, sizeof *text);
    size_t i, k;
    json_t *a;
    *n = 0;
    json_array_foreach((json_t *)arms, i, a)
    {
        const char *of = json_string_value(json_object_get(a, key));
        for (k = 0; text && k < *n && of && strcmp(text[k], of) != 0; k++)
            ;
        if (text && of && k == *n)
            text[(*n)++] = of;
    }
    return text;
}

static bool arm_has(const json_t *arm, const char *key, const char *text)
{
    const char *of = json_string_value(json_object_get(arm, key));
    return of && !strcmp(of, text);
}

// One curve of one axis, or a line that shows nothing.
static void scaling_lines(sheet *s, const json_t *arms, const char *of_axis, const char *of_curve,
                          const char *value, double unit, range *x, range *y)
{
    bool any = false;
    size_t i;
    json_t *a;
    json_array_foreach((json_t *)arms, i, a)
    {
        double at = json_number_value(json_object_get(a, "x"));
        double v = unit * json_number_value(json_object_get(a, value));
        if (!arm_has(a, "axis", of_axis) || !arm_has(a, "curve", of_curve) || !(at > 0) || !(v > 0))
            continue;
        field(s->dat, of_axis);
        fputc('\t', s->dat);
        field(s->dat, of_curve);
        number(s->dat, at);
        number(s->dat, v);
        fputc('\n', s->dat);
        widen(x, at, at);
        widen(y, v, v);
        any = true;
    }
    fputs(any ? "\n\n" : "-\t-\tNaN\tNaN\n\n\n", s->dat);
}

// A panel for every axis of `pedrobench bench scaling`.
static bool scaling(sheet *s, const json_t *arms, const char *value, double unit, const char *yname)
{
    size_t n_axes, n_lines, n_labels;
    const char **axes = different(arms, "axis", &n_axes);
    const char **lines = different(arms, "curve", &n_lines);
    const char **labels = different(arms, "axis_label", &n_labels);
    range *x = new_ranges(n_axes), *y = new_ranges(n_axes);
    bool ok = axes && lines && labels && x && y && n_axes && n_labels == n_axes;
    if (ok) {
        fputs("# axis\tcurve\tx\tvalue\n", s->dat);
        for (size_t t = 0; t < n_axes; t++)
            for (size_t k = 0; k < n_lines; k++)
                scaling_lines(s, arms, axes[t], lines[k], value, unit, &x[t], &y[t]);
        legend(s, lines, n_lines);
        names(s, "titles", labels, n_axes);
        list_begin(s, "xlows");
        for (size_t t = 0; t < n_axes; t++)
            list_number(s, x[t].lo <= x[t].hi ? x[t].lo : 1);
        list_end(s);
        list_begin(s, "xhighs");
        for (size_t t = 0; t < n_axes; t++)
            list_number(s, x[t].lo <= x[t].hi ? x[t].hi : 2);
        list_end(s);
        panel_ranges(s, y, n_axes);
        var_number(s, "panels", (double)n_axes);
        var_text(s, "yname", yname);
    }
    free(axes);
    free(lines);
    free(labels);
    free(x);
    free(y);
    return ok;
}

static bool scaling_time(sheet *s, const pb_summary *m)
{
    return scaling(s, m->scaling, "median_ms", 1, "time (ms)");
}

static bool scaling_memory(sheet *s, const pb_summary *m)
{
    return scaling(s, m->scaling, "memory_bytes", 1e-6, "memory (MB)");
}

static bool (*const makers[])(sheet *, const pb_summary *) = {
    [SCORES] = scores,
    [FOREST] = forest,
    [ABLATION] = ablation,
    [SCORE_PARAMS] = score_params,
    [RATE] = learning_rate,
    [LOSS] = loss,
    [TOKEN_TIME] = latency,
    [THROUGHPUT] = latency,
    [TIME_BUDGET] = time_budget,
    [TIME_PROMPT] = time_prompt,
    [TIME_CONTEXT] = time_context,
    [MEMORY] = memory,
    [SERVED] = served_latency,
    [LOAD] = load,
    [PARTS] = components,
    [TENANTS] = tenants_memory,
    [CAPACITY] = capacity,
    [SCALING_TIME] = scaling_time,
    [SCALING_MEMORY] = scaling_memory,
};

pb_err pb_figure_scripts(char *out, size_t size, const char *source_dir)
{
    char source[4096] = "";
    if (source_dir)
        PB_TRY(pb_path(source, sizeof source, "%s/plots", source_dir));
    return pb_shared_folder(out, size, "PB_PLOTS", source, "plots");
}

// Runs gnuplot and keeps the first words of its complaint.
static pb_err gnuplot(const char *vars, const char *script)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return pb_fail(PB_IO, NULL, "cannot make a pipe: %s", strerror(errno));
    posix_spawn_file_actions_t io;
    posix_spawn_file_actions_init(&io);
    posix_spawn_file_actions_addopen(&io, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&io, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&io, fd[1], 2);
    char *const argv[] = {"gnuplot", "-e", (char *)vars, (char *)script, NULL};
    pid_t pid;
    int e = posix_spawnp(&pid, "gnuplot", &io, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&io);
    close(fd[1]);
    char words[400] = "", rest[512];
    size_t n = 0;
    ssize_t got;
    while (!e && ((got = read(fd[0], rest, sizeof rest)) > 0 || (got < 0 && errno == EINTR)))
        for (ssize_t i = 0; i < got && n + 1 < sizeof words; i++)
            words[n++] = rest[i] == '\n' ? ' ' : rest[i];
    words[n] = 0;
    close(fd[0]);
    if (e)
        return pb_fail(PB_IO, "install gnuplot (5.4 or later), for example gnuplot-nox",
                       "cannot run gnuplot: %s", strerror(e));
    int status = 1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 ? PB_OK
                       : pb_fail(PB_IO, NULL, "gnuplot failed on %s: %.300s", script, words);
}

const char *const pb_figure_terminal[] = {"svg", "png", "tex"};

pb_err pb_figure_terminals(unsigned *out, const char *list)
{
    *out = 0;
    for (const char *s = list; *s || s == list;) {
        size_t n = strcspn(s, ",");
        int found = -1;
        for (int i = 0; i < PB_TERMINALS; i++)
            if (n == strlen(pb_figure_terminal[i]) && !strncmp(s, pb_figure_terminal[i], n))
                found = i;
        if (found < 0)
            return pb_fail(PB_USAGE, "some of svg,png,tex", "unknown kind of figure \"%.*s\"",
                           (int)n, s);
        *out |= 1u << found;
        s += n + (s[n] == ',');
    }
    return PB_OK;
}

// Makes the numbers and draws them. `any`: there were numbers.
static pb_err draw(size_t which, const pb_summary *m, const pb_figure_options *o, int terminal,
                   bool *any)
{
    const pb_figure *figure = &pb_figures[which];
    sheet s = {.tex = terminal == PB_FIGURE_TEX};
    char text[4096], scripts[PATH_MAX], folder[PATH_MAX];
    pb_err err = PB_OK;
    PB_GO(sheet_open(&s));
    *any = makers[which](&s, m);
    if (!*any)
        goto done;
    if (!realpath(o->scripts, scripts) || !realpath(o->folder, folder))
        PB_GO(pb_fail(PB_IO, NULL, "cannot find %s or %s", o->scripts, o->folder));
    if (fflush(s.dat))
        PB_GO(no_memory());
    PB_GO(pb_path(text, sizeof text, "%s/%s.dat", folder, figure->name));
    PB_GO(pb_file_write(text, s.dat_text, s.dat_size));
    // gnuplot works in the folder, so that a .tex file names its picture without one.
    var_path(&s, "folder", folder);
    var_path(&s, "scripts", scripts);
    PB_GO(pb_path(text, sizeof text, "%s.dat", figure->name));
    var_path(&s, "input", text);
    PB_GO(pb_path(text, sizeof text, "%s.%s", figure->name, pb_figure_terminal[terminal]));
    var_path(&s, "output", text);
    var_path(&s, "term", pb_figure_terminal[terminal]);
    if (fflush(s.vars))
        PB_GO(no_memory());
    PB_GO(pb_path(text, sizeof text, "%s/%s.gp", scripts, figure->name));
    err = gnuplot(s.vars_text, text);
done:
    sheet_free(&s);
    return err ? pb_context(err, "figure \"%s\"", figure->name) : PB_OK;
}

pb_err pb_figures_draw(const pb_summary *m, const pb_figure_options *options, bool *drawn)
{
    size_t n = 0;
    bool known = !options->only;
    PB_TRY(pb_make_dirs(options->folder));
    for (size_t i = 0; pb_figures[i].name; i++) {
        bool data = true;
        if (drawn)
            drawn[i] = false;
        if (options->only && strcmp(options->only, pb_figures[i].name))
            continue;
        known = true;
        for (int t = 0; t < PB_TERMINALS && data; t++)
            if (options->terminals >> t & 1)
                PB_TRY(draw(i, m, options, t, &data));
        n += data;
        if (drawn)
            drawn[i] = data;
    }
    if (!known)
        return pb_fail(
            PB_USAGE,
            "scores, forest, ablation, score-params, learning-rate, loss, token-time, "
            "throughput, time-budget, time-prompt, time-context, memory, "
            "served-latency, load, components, tenants-memory, capacity, scaling-time or "
            "scaling-memory",
            "unknown figure \"%s\"", options->only);
    return n ? PB_OK : pb_fail(PB_INPUT, NULL, "the results hold no data for a figure");
}
