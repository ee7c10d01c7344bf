#include "results/figure.h"

#include "core/file.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SCORES, SCORE_PARAMS, LOSS, TOKEN_TIME, THROUGHPUT, MEMORY };

const pb_figure pb_figures[] = {
    [SCORES] = {"scores", "Scores",
                "Test score of every method: mean over seeds, with the 95 % bootstrap interval."},
    [SCORE_PARAMS] = {"score-params", "Score against trainable parameters",
                      "Mean test score over seeds against the number of trainable parameters, with "
                      "the 95 % bootstrap interval."},
    [LOSS] = {"loss", "Training loss",
              "Training loss: mean over seeds of the running mean over 1/20 of the logged steps; "
              "the band spans the smallest and the largest seed."},
    [TOKEN_TIME] = {"token-time", "Time per token",
                    "Median decoding time per token of one request, with the 95 % order-statistic "
                    "interval; left: all sequences of the batch share one adapter; right: they use "
                    "different adapters."},
    [THROUGHPUT] = {"throughput", "Throughput",
                    "Decoding throughput of the whole batch, from the median time."},
    [MEMORY] = {"memory", "Memory per tenant", "Resident memory that one more tenant needs."},
    {NULL, NULL, NULL},
};

// The numbers of a figure and the variables its script is given.
typedef struct sheet {
    FILE *dat, *vars;
    char *dat_text, *vars_text;
    size_t dat_size, vars_size;
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
    *s = (sheet){0};
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

// gnuplot: name='text'; in single quotes only the quote itself needs care.
static void var_text(sheet *s, const char *name, const char *text)
{
    fprintf(s->vars, "%s='", name);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', s->vars);
        fputc((unsigned char)*text < ' ' ? ' ' : *text, s->vars);
    }
    fputs("';", s->vars);
}

static void var_number(sheet *s, const char *name, double x)
{
    fprintf(s->vars, "%s=%.10g;", name, x);
}

// Lists reach gnuplot as words, so blanks inside become no-break spaces. Started by list_begin,
// closed by list_end.
static void list_begin(sheet *s, const char *name)
{
    fprintf(s->vars, "%s='", name);
}

static void list_add(sheet *s, const char *text)
{
    if (!*text)
        text = "-";
    for (; *text; text++) {
        if (*text == '\'')
            fputs("\u2019", s->vars);
        else if ((unsigned char)*text <= ' ')
            fputs("\u00A0", s->vars);
        else if (*text == '"') // would group words
            fputs("\u201D", s->vars);
        else
            fputc(*text, s->vars);
    }
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

// Names of the legend, and the longest one's number of characters for its width.
static void legend(sheet *s, const char *const *names, size_t n)
{
    size_t widest = 0;
    list_begin(s, "series");
    for (size_t k = 0; k < n; k++) {
        list_add(s, names[k]);
        widest = strlen(names[k]) > widest ? strlen(names[k]) : widest;
    }
    list_end(s);
    fprintf(s->vars, "widest=%zu;nseries=%zu;", widest, n);
}

static void number(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, "\t%.10g", x);
    else
        fputs("\tNaN", f);
}

static bool has_interval(const pb_cell *c)
{
    return !isnan(c->interval.lo);
}

// The range of the intervals that each panel shows; low 1 and high 0 for a panel without data,
// whose range gnuplot cannot find itself.
static void panel_ranges(sheet *s, const pb_summary *m)
{
    for (int high = 0; high < 2; high++) {
        list_begin(s, high ? "highs" : "lows");
        for (size_t t = 0; t < m->n_tasks; t++) {
            double lo = INFINITY, hi = -INFINITY;
            for (size_t i = 0; i < m->n_rows; i++) {
                const pb_cell *c = &m->rows[i].cells[t];
                if (m->rows[i].block == PB_BLOCK_REFERENCE || !c->n)
                    continue;
                lo = fmin(lo, has_interval(c) ? c->interval.lo : c->mean);
                hi = fmax(hi, has_interval(c) ? c->interval.hi : c->mean);
            }
            list_number(s, high ? (lo <= hi ? hi : 0) : (lo <= hi ? lo : 1));
        }
        list_end(s);
    }
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

static void row_name(char *out, size_t size, const pb_summary *m, const pb_row *row)
{
    if (m->several_models) {
        const char *base = strrchr(row->model, '/');
        snprintf(out, size, "%s, %s", row->label, base ? base + 1 : row->model);
    } else {
        snprintf(out, size, "%s", row->label);
    }
}

static void score_line(FILE *f, const pb_summary *m, const pb_row *row, size_t t, double y)
{
    const pb_cell *c = &row->cells[t];
    char name[600];
    row_name(name, sizeof name, m, row);
    field(f, m->tasks[t].task);
    fputc('\t', f);
    field(f, name);
    number(f, y);
    number(f, row->trainable);
    number(f, c->mean);
    number(f, has_interval(c) ? c->interval.lo : c->mean);
    number(f, has_interval(c) ? c->interval.hi : c->mean);
    fputc('\n', f);
}

static void score_header(FILE *f)
{
    fputs("# task\trow\tposition\ttrainable\tmean\tlo95\thi95\n", f);
}

// One block per task, one line per row. References far from the methods would squeeze the axis, so
// they are named in a line of text instead.
static bool scores(sheet *s, const pb_summary *m)
{
    size_t n = 0;
    bool any = false;
    for (size_t i = 0; i < m->n_rows; i++)
        n += m->rows[i].block != PB_BLOCK_REFERENCE;
    score_header(s->dat);
    for (size_t t = 0; t < m->n_tasks; t++) {
        size_t y = n;
        for (size_t i = 0; i < m->n_rows; i++) {
            if (m->rows[i].block == PB_BLOCK_REFERENCE)
                continue;
            any |= m->rows[i].cells[t].n > 0;
            score_line(s->dat, m, &m->rows[i], t, (double)y--);
        }
        fputs("\n\n", s->dat);
    }
    list_begin(s, "styles");
    for (size_t i = 0; i < m->n_rows; i++)
        if (m->rows[i].block != PB_BLOCK_REFERENCE)
            list_number(s, pb_summary_style(m, m->rows[i].method));
    list_end(s);
    size_t widest = 0;
    for (size_t i = 0; i < m->n_rows; i++) {
        char name[600];
        row_name(name, sizeof name, m, &m->rows[i]);
        if (m->rows[i].block != PB_BLOCK_REFERENCE)
            widest = strlen(name) > widest ? strlen(name) : widest;
    }
    var_number(s, "widest", (double)widest);
    list_begin(s, "references");
    for (size_t t = 0; t < m->n_tasks; t++) {
        char text[512] = "";
        for (size_t i = 0; i < m->n_rows; i++) {
            const pb_row *row = &m->rows[i];
            size_t at = strlen(text);
            if (row->block == PB_BLOCK_REFERENCE && row->cells[t].n)
                snprintf(text + at, sizeof text - at, "%s%.60s %.*f",
                         at ? ", " : "reference: ", row->label, m->tasks[t].digits > 2 ? 3 : 1,
                         row->cells[t].mean);
        }
        list_add(s, text);
    }
    list_end(s);
    panel_titles(s, m);
    panel_ranges(s, m);
    var_number(s, "rows", (double)n);
    return any && n;
}

// One block per task and method; a method's budgets are joined by a line.
static bool score_params(sheet *s, const pb_summary *m)
{
    size_t n = 0;
    bool any = false;
    const char **methods = calloc(m->n_rows + 1, sizeof *methods);
    if (!methods)
        return false;
    for (size_t i = 0; i < m->n_rows; i++) {
        bool seen = m->rows[i].block == PB_BLOCK_REFERENCE || !(m->rows[i].trainable > 0);
        for (size_t k = 0; k < n && !seen; k++)
            seen = !strcmp(methods[k], m->rows[i].method);
        if (!seen)
            methods[n++] = m->rows[i].method;
    }
    score_header(s->dat);
    for (size_t t = 0; t < m->n_tasks; t++)
        for (size_t k = 0; k < n; k++) {
            size_t lines = 0;
            for (size_t i = 0; i < m->n_rows; i++) {
                const pb_row *row = &m->rows[i];
                if (strcmp(row->method, methods[k]) || !(row->trainable > 0) || !row->cells[t].n)
                    continue;
                score_line(s->dat, m, row, t, 0);
                lines++;
                any = true;
            }
            if (!lines) // gnuplot counts blocks, so every one has a line
                fputs("-\t-\tNaN\tNaN\tNaN\tNaN\tNaN\n", s->dat);
            fputs("\n\n", s->dat);
        }
    legend(s, methods, n);
    list_begin(s, "styles");
    for (size_t k = 0; k < n; k++)
        list_number(s, pb_summary_style(m, methods[k]));
    list_end(s);
    free(methods);
    panel_titles(s, m);
    panel_ranges(s, m);
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

static bool loss(sheet *s, const pb_summary *m)
{
    bool any = false;
    size_t n = 0;
    char name[600];
    fputs("# task\trow\tstep\tmean\tmin\tmax\tseeds\n", s->dat);
    list_begin(s, "filled");
    for (size_t t = 0; t < m->n_tasks; t++) {
        bool filled = false;
        for (size_t i = 0; i < m->n_rows; i++) {
            if (m->rows[i].trainable == 0)
                continue;
            size_t lines = loss_lines(s->dat, &m->rows[i], &m->rows[i].cells[t], m->tasks[t].task);
            filled |= lines > 0;
            if (!lines)
                fputs("-\t-\tNaN\tNaN\tNaN\tNaN\t0\n", s->dat);
            fputs("\n\n", s->dat);
        }
        list_number(s, filled);
        any |= filled;
    }
    list_end(s);
    char **names = calloc(m->n_rows + 1, sizeof *names);
    for (size_t i = 0; names && i < m->n_rows; i++)
        if (m->rows[i].trainable != 0) {
            row_name(name, sizeof name, m, &m->rows[i]);
            if (!(names[n++] = strdup(name)))
                any = false;
        }
    if (names && any)
        legend(s, (const char *const *)names, n);
    for (size_t k = 0; names && k < n; k++)
        free(names[k]);
    free(names);
    list_begin(s, "styles");
    for (size_t i = 0; i < m->n_rows; i++)
        if (m->rows[i].trainable != 0)
            list_number(s, pb_summary_style(m, m->rows[i].method));
    list_end(s);
    panel_titles(s, m);
    return any;
}

// The x axis of the latency figures: when the largest batch was run with several numbers of
// tenants, these; otherwise the size of the batch.
typedef struct axis {
    bool tenants;
    double rows; // of the batch, when x = tenants
} axis;

// The per-tenant loop and the second measurement of the base are for tables: reference and noise.
static bool decodes(const pb_arm *a)
{
    return !strcmp(a->s->phase, "decode") && a->n && a->s->rows > 0 &&
           strcmp(a->s->sharing, "loop") && strcmp(a->s->method, "base-again");
}

static axis choose_axis(const pb_summary *m)
{
    axis x = {false, 0};
    double tenants = NAN;
    for (size_t i = 0; i < m->n_arms; i++)
        if (decodes(&m->arms[i]))
            x.rows = fmax(x.rows, m->arms[i].s->rows);
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_scenario *s = m->arms[i].s;
        if (!decodes(&m->arms[i]) || s->rows != x.rows || strcmp(s->sharing, "different"))
            continue;
        x.tenants |= !isnan(tenants) && s->tenants != tenants;
        tenants = s->tenants;
    }
    return x;
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
    axis x = choose_axis(m);
    const char **methods = calloc(m->n_arms + 1, sizeof *methods);
    if (!methods)
        return false;
    double lo = INFINITY, hi = 0; // of x
    for (size_t i = 0; i < m->n_arms; i++) {
        const pb_arm *a = &m->arms[i];
        bool seen = !decodes(a);
        for (size_t k = 0; k < n && !seen; k++)
            seen = !strcmp(methods[k], a->s->method);
        if (!seen)
            methods[n++] = a->s->method;
        double at = x.tenants ? a->s->tenants : a->s->rows;
        if (decodes(a) && at > 0) {
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
                if (!decodes(a) || strcmp(a->s->method, methods[k]) || (mixed && p == 0) ||
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

typedef struct memory_line {
    const char *method;
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
    size_t widest = 0;
    for (size_t k = 0; k < n; k++)
        widest = strlen(v[k].method) > widest ? strlen(v[k].method) : widest;
    var_number(s, "widest", (double)widest);
    list_begin(s, "styles");
    for (size_t k = 0; k < n; k++) {
        char method[128];
        snprintf(method, sizeof method, "%.*s", (int)strcspn(v[k].method, " "), v[k].method);
        field(s->dat, v[k].method);
        number(s->dat, (double)(n - k));
        number(s->dat, v[k].bytes);
        fputc('\n', s->dat);
        list_number(s, pb_summary_style(m, method));
    }
    list_end(s);
    var_number(s, "rows", (double)n);
    free(v);
    return n > 0;
}

static bool (*const makers[])(sheet *, const pb_summary *) = {
    [SCORES] = scores,      [SCORE_PARAMS] = score_params, [LOSS] = loss,
    [TOKEN_TIME] = latency, [THROUGHPUT] = latency,        [MEMORY] = memory,
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

static pb_err draw(sheet *s, const pb_figure *figure, const pb_figure_options *o)
{
    char dat[4096], script[4096], out[4096];
    pb_err err = PB_OK;
    PB_TRY(pb_path(dat, sizeof dat, "%s/%s.dat", o->folder, figure->name));
    PB_TRY(pb_path(script, sizeof script, "%s/%s.gp", o->scripts, figure->name));
    if (fflush(s->dat))
        return no_memory();
    PB_TRY(pb_file_write(dat, s->dat_text, s->dat_size));
    static const char *const terms[] = {"svg", "png"};
    var_text(s, "input", dat);
    var_text(s, "scripts", o->scripts);
    for (int i = 0; i < (o->no_png ? 1 : 2) && !err; i++) {
        PB_TRY(pb_path(out, sizeof out, "%s/%s.%s", o->folder, figure->name, terms[i]));
        var_text(s, "term", terms[i]);
        var_text(s, "output", out);
        if (fflush(s->vars))
            return no_memory();
        err = gnuplot(s->vars_text, script);
    }
    return err;
}

pb_err pb_figures_draw(const pb_summary *m, const pb_figure_options *options, bool *drawn)
{
    size_t n = 0;
    bool known = !options->only;
    PB_TRY(pb_make_dirs(options->folder));
    for (size_t i = 0; pb_figures[i].name; i++) {
        if (drawn)
            drawn[i] = false;
        if (options->only && strcmp(options->only, pb_figures[i].name))
            continue;
        known = true;
        sheet s;
        pb_err err = sheet_open(&s);
        bool data = !err && makers[i](&s, m);
        if (data)
            err = draw(&s, &pb_figures[i], options);
        sheet_free(&s);
        if (err)
            return pb_context(err, "figure \"%s\"", pb_figures[i].name);
        n += data;
        if (drawn)
            drawn[i] = data;
    }
    if (!known)
        return pb_fail(PB_USAGE, "scores, score-params, loss, token-time, throughput or memory",
                       "unknown figure \"%s\"", options->only);
    return n ? PB_OK : pb_fail(PB_INPUT, NULL, "the results hold no data for a figure");
}
