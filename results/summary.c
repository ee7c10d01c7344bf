#include "results/summary.h"

#include "core/error.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pb_err no_memory(void)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for the summary");
}

// The configuration without some keys, as text: runs with equal text belong together.
static char *text_without(const json_t *config, const char *const *keys)
{
    json_t *copy = json_copy((json_t *)config);
    for (size_t i = 0; copy && keys[i]; i++)
        json_object_del(copy, keys[i]);
    char *text = copy ? json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(copy);
    return text;
}

static char *row_text(const json_t *config)
{
    static const char *const keys[] = {"model", "model_sha256", "method", "options", "budget"};
    json_t *o = json_object();
    for (size_t i = 0; o && i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(config, keys[i]))
            json_object_set(o, keys[i], json_object_get(config, keys[i]));
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(o);
    return text;
}

static bool is_reference(const char *method)
{
    return !strcmp(method, "none") || !strcmp(method, "full");
}

// What is known of one training run before the rows are formed.
typedef struct entry {
    const pb_record *r;
    char *row, *variant, *run; // texts: row key, without seed and task, without seed
} entry;

static void free_entries(entry *e, size_t n)
{
    for (size_t i = 0; e && i < n; i++) {
        free(e[i].row);
        free(e[i].variant);
        free(e[i].run);
    }
    free(e);
}

static pb_err make_entries(entry **out, size_t *n, const pb_records *records)
{
    static const char *const seed[] = {"seed", NULL}, *const seed_task[] = {"seed", "task",
                                                                            "task_version",
                                                                            "data_sha256", NULL};
    *n = 0;
    entry *e = *out = calloc(records->n + 1, sizeof *e);
    if (!e)
        return no_memory();
    for (size_t i = 0; i < records->n; i++) {
        const pb_record *r = &records->v[i];
        if (!strcmp(r->kind, "latency") || !*r->task || !*r->method)
            continue;
        entry *x = &e[(*n)++];
        x->r = r;
        x->row = row_text(r->config);
        x->variant = text_without(r->config, seed_task);
        x->run = text_without(r->config, seed);
        if (!x->row || !x->variant || !x->run)
            return no_memory();
    }
    // Within one row and task only the seed may differ; a row where more differs is split.
    for (size_t i = 0; i < *n; i++)
        for (size_t k = 0; k < i; k++) {
            const pb_record *a = e[i].r, *b = e[k].r;
            if (strcmp(e[i].row, e[k].row) || strcmp(a->task, b->task))
                continue;
            if (!strcmp(e[i].run, e[k].run) && a->seed == b->seed)
                return pb_fail(PB_INPUT, "name one of them only",
                               "%s and %s are the same run (seed %lld): it would count twice",
                               b->path, a->path, (long long)a->seed);
        }
    return PB_OK;
}

static pb_err split_rows(entry *e, size_t n)
{
    bool *mixed = calloc(n + 1, sizeof *mixed);
    if (!mixed)
        return no_memory();
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(e[i].row, e[k].row) && !strcmp(e[i].r->task, e[k].r->task) &&
                strcmp(e[i].run, e[k].run))
                mixed[i] = mixed[k] = true;
    for (size_t i = 0; i < n; i++) // the row's runs of other tasks are split with it
        for (size_t k = 0; k < n && mixed[i]; k++)
            if (!mixed[k] && !strcmp(e[i].row, e[k].row))
                mixed[k] = true;
    for (size_t i = 0; i < n; i++)
        if (mixed[i]) {
            free(e[i].row);
            e[i].row = strdup(e[i].variant);
        }
    free(mixed);
    for (size_t i = 0; i < n; i++)
        if (!e[i].row)
            return no_memory();
    return PB_OK;
}

static int by_row(const void *pa, const void *pb)
{
    const pb_row *a = pa, *b = pb;
    int c = strcmp(a->model, b->model);
    if (!c)
        c = (a->block > b->block) - (a->block < b->block);
    if (!c && a->block == PB_BLOCK_BUDGET) { // none given: first
        double x = isnan(a->budget) ? -1 : a->budget, y = isnan(b->budget) ? -1 : b->budget;
        c = (x > y) - (x < y);
    }
    if (!c)
        c = strcmp(a->method, b->method);
    return c ? c : strverscmp(a->label, b->label); // r=2 before r=16
}

static int by_entry(const void *pa, const void *pb)
{
    const entry *a = pa, *b = pb;
    int c = strcmp(a->r->task, b->r->task);
    return c ? c : (a->r->seed > b->r->seed) - (a->r->seed < b->r->seed);
}

// Texts are appended to a label piece by piece.
static pb_err append(char **text, const char *more)
{
    size_t n = strlen(*text), m = strlen(more);
    char *t = realloc(*text, n + m + 1);
    if (!t)
        return no_memory();
    memcpy(t + n, more, m + 1);
    *text = t;
    return PB_OK;
}

static pb_err knob_label(pb_row *row, const entry *e, size_t n)
{
    double lo = INFINITY, hi = -INFINITY;
    const char *knob = "";
    for (size_t i = 0; i < n; i++)
        if (!strcmp(e[i].row, row->key) && *e[i].r->knob) {
            knob = e[i].r->knob;
            lo = fmin(lo, e[i].r->knob_value);
            hi = fmax(hi, e[i].r->knob_value);
        }
    char text[160];
    if (!*knob || !(lo <= hi))
        return PB_OK;
    if (lo == hi)
        snprintf(text, sizeof text, " %.80s=%g", knob, lo);
    else
        snprintf(text, sizeof text, " %.80s=%g..%g", knob, lo, hi);
    return append(&row->label, text);
}

static pb_err make_rows(pb_summary *s, const entry *e, size_t n)
{
    s->rows = calloc(n + 1, sizeof *s->rows);
    if (!s->rows)
        return no_memory();
    for (size_t i = 0; i < n; i++) {
        pb_row *row = NULL;
        for (size_t k = 0; k < s->n_rows && !row; k++)
            if (!strcmp(s->rows[k].key, e[i].row))
                row = &s->rows[k];
        const pb_record *r = e[i].r;
        if (!row) {
            row = &s->rows[s->n_rows++];
            *row = (pb_row){.key = strdup(e[i].row),
                            .label = strdup(r->method),
                            .model = r->model,
                            .method = r->method,
                            .knob = "",
                            .budget = r->budget,
                            .config = r->config,
                            .trainable = NAN,
                            .share = NAN,
                            .bytes_per_tenant = NAN,
                            .block = is_reference(r->method) ? PB_BLOCK_REFERENCE
                                     : *r->knob              ? PB_BLOCK_BUDGET
                                                             : PB_BLOCK_NO_KNOB};
            if (!row->key || !row->label)
                return no_memory();
            PB_TRY(knob_label(row, e, n));
        }
        if (*r->knob)
            row->knob = r->knob;
        if (*r->knob && !is_reference(r->method))
            row->block = PB_BLOCK_BUDGET; // a run that failed early may not have recorded it
        if (isnan(row->trainable)) {
            row->trainable = r->trainable;
            row->share = 100 * r->trainable / r->model_params;
            row->bytes_per_tenant = r->bytes_per_tenant;
        }
    }
    return PB_OK;
}

// Configurations differ in keys and, inside "options", in the method's options; where a run found
// its data, and the size that the label has already, tell no rows apart.
static bool tells(const char *key, const char *knob)
{
    static const char *const no[] = {"seed",         "task",        "budget",
                                     "task_version", "data_sha256", "task_description"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (!strcmp(key, no[i]))
            return false;
    return strcmp(key, knob) != 0;
}

// How many values of a, below `prefix`, b does not have. With `label`, those whose place in
// `wanted` is set are appended to it; without, the places of those that differ are set in `found`.
typedef struct difference {
    const char *knob;
    json_t *found;        // key -> true
    const json_t *wanted; // the same
    char **label;
} difference;

static pb_err differ(difference *d, const json_t *a, const json_t *b, size_t *n)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)a, key, v)
    {
        json_t *w = json_object_get(b, key);
        if (!tells(key, d->knob))
            continue;
        if (!strcmp(key, "options")) {
            PB_TRY(differ(d, v, w, n));
            continue;
        }
        bool differs = !json_equal(v, w);
        *n += differs;
        if (differs && d->found)
            json_object_set_new(d->found, key, json_true());
        if (!d->label || !json_object_get(d->wanted, key))
            continue;
        char *text = json_is_string(v)
                         ? strdup(json_string_value(v))
                         : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        char piece[256];
        snprintf(piece, sizeof piece, " %.80s=%.160s", key, text ? text : "?");
        free(text);
        PB_TRY(append(d->label, piece));
    }
    return PB_OK;
}

static bool variants(const pb_row *a, const pb_row *b)
{
    return !strcmp(a->model, b->model) && !strcmp(a->method, b->method) && a->block == b->block &&
           (a->block != PB_BLOCK_BUDGET || a->budget == b->budget ||
            (isnan(a->budget) && isnan(b->budget)));
}

static pb_err tell_apart(pb_summary *s)
{
    pb_err err = PB_OK;
    size_t *total = calloc(s->n_rows + 1, sizeof *total);
    json_t *found = NULL;
    if (!total)
        return no_memory();
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t k = 0; k < s->n_rows; k++) {
            difference d = {.knob = s->rows[i].knob};
            if (variants(&s->rows[i], &s->rows[k]))
                PB_GO(differ(&d, s->rows[i].config, s->rows[k].config, &total[i]));
        }
    for (size_t i = 0; i < s->n_rows; i++) {
        size_t others = 0;
        s->rows[i].is_centre = true;
        for (size_t k = 0; k < s->n_rows; k++)
            if (k != i && variants(&s->rows[i], &s->rows[k])) {
                others++;
                s->rows[i].is_centre &= total[i] < total[k];
            }
        s->rows[i].is_centre &= others > 0;
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        pb_row *row = &s->rows[i];
        bool centred = false;
        size_t n = 0;
        json_decref(found);
        if (!(found = json_object()))
            PB_GO(no_memory());
        for (size_t k = 0; k < s->n_rows; k++)
            centred |= s->rows[k].is_centre && variants(row, &s->rows[k]);
        if (row->is_centre)
            continue;
        for (size_t k = 0; k < s->n_rows; k++) {
            difference d = {.knob = row->knob, .found = found};
            if (variants(row, &s->rows[k]) && (!centred || s->rows[k].is_centre))
                PB_GO(differ(&d, row->config, s->rows[k].config, &n));
        }
        difference d = {.knob = row->knob, .wanted = found, .label = &row->label};
        PB_GO(differ(&d, row->config, NULL, &n));
    }
done:
    json_decref(found);
    free(total);
    return err;
}

static void set_unit(pb_task_column *c, const char *metric)
{
    const pb_measure *m = pb_measure_find(metric);
    c->unit = m ? m->unit : "";
    c->scale = m ? m->scale : 1;
    c->digits = m ? m->digits : 4;
}

static pb_err make_tasks(pb_summary *s, const entry *e, size_t n, const pb_summary_options *o)
{
    s->tasks = calloc(n + 1, sizeof *s->tasks);
    if (!s->tasks)
        return no_memory();
    for (size_t i = 0; i < n; i++) { // entries are sorted by task
        const pb_record *r = e[i].r;
        if (!s->n_tasks || strcmp(s->tasks[s->n_tasks - 1].task, r->task))
            s->tasks[s->n_tasks++] = (pb_task_column){
                .task = r->task, .metric = o->metric, .higher_is_better = true, .unit = ""};
        pb_task_column *c = &s->tasks[s->n_tasks - 1];
        const pb_evaluation *v = pb_record_eval(r, r->task, o->split);
        if (!v || c->scale > 0)
            continue;
        if (!c->metric)
            c->metric = *v->headline ? v->headline : "loss";
        set_unit(c, c->metric);
        const pb_measure *m = pb_measure_find(c->metric);
        bool headline = !strcmp(c->metric, v->headline);
        c->higher_is_better = headline || !m ? v->higher_is_better : !m->lower_is_better;
    }
    for (size_t i = 0; i < s->n_tasks; i++) {
        pb_task_column *c = &s->tasks[i];
        if (c->scale > 0)
            continue;
        // No run was evaluated.
        c->metric = o->metric ? o->metric : "score";
        c->scale = 1;
        c->digits = 4;
    }
    return PB_OK;
}

// The statistics per item behind a metric, if they give the stored value; .v = NULL otherwise.
// Files of the first versions call the right answers "correct", whatever the metric.
static pb_item_scores items_of(const pb_evaluation *e, const char *metric, double value)
{
    const pb_measure *m = pb_measure_find(metric);
    const char *const names[] = {m ? m->array : metric, "correct"};
    for (size_t i = 0; i < 2; i++) {
        const pb_array *a = pb_eval_array(e, names[i]);
        size_t width = m && i == 0 ? m->width : 1;
        if (!a || !a->rows || a->cols != width)
            continue;
        pb_item_scores items = {a->v, a->rows, a->cols, m && i == 0 ? m->score : NULL};
        if (fabs(pb_items_score(&items) - value) <= 1e-6 * fmax(1, fabs(value)))
            return items;
    }
    return (pb_item_scores){0};
}

static pb_err fill_cell(pb_cell *c, const pb_row *row, const pb_task_column *t, const entry *e,
                        size_t n, const pb_summary_options *o)
{
    c->seeds = calloc(n + 1, sizeof *c->seeds);
    c->x = calloc(n + 1, sizeof *c->x);
    c->items = calloc(n + 1, sizeof *c->items);
    c->complete = calloc(n + 1, sizeof *c->complete);
    if (!c->seeds || !c->x || !c->items || !c->complete)
        return no_memory();
    bool all_items = true;
    for (size_t i = 0; i < n; i++) {
        const pb_record *r = e[i].r;
        if (strcmp(e[i].row, row->key) || strcmp(r->task, t->task))
            continue;
        c->n_diverged += pb_record_is(r, "diverged");
        c->n_failed += pb_record_is(r, "failed");
        c->n_interrupted += pb_record_is(r, "interrupted");
        if (!pb_record_is(r, "complete"))
            continue;
        c->complete[c->n_complete++] = r;
        const pb_evaluation *v = pb_record_eval(r, t->task, o->split);
        double value = v ? pb_eval_metric(v, t->metric) : NAN;
        if (isnan(value)) {
            c->n_unscored++;
            continue;
        }
        c->seeds[c->n] = r->seed;
        c->items[c->n] = items_of(v, t->metric, value);
        all_items &= c->items[c->n].v != NULL;
        c->x[c->n++] = value * t->scale;
    }
    c->mean = pb_mean(c->x, c->n);
    c->sd = pb_sd(c->x, c->n);
    c->median = pb_median(c->x, c->n);
    c->interval = (pb_interval){NAN, NAN};
    c->resampled = "";
    pb_boot boot = {.resamples = o->resamples};
    if (!all_items) {
        free(c->items);
        c->items = NULL;
        c->resampled = c->n > 1 ? "seeds" : "";
        return pb_boot_seeds(&c->interval, c->x, c->n, &boot);
    }
    if (!c->n)
        return PB_OK;
    c->resampled = c->n > 1 ? "seeds and items" : "items";
    PB_TRY(pb_boot_two_level(&c->interval, c->items, c->n, &boot));
    c->interval.lo *= t->scale;
    c->interval.hi *= t->scale;
    return PB_OK;
}

// The differences of the seeds that both cells have.
static pb_err compare(pb_cell *c, const pb_cell *base, const pb_task_column *t, size_t resamples)
{
    size_t most = c->n + 1;
    pb_err err = PB_OK;
    double *a = calloc(most, sizeof *a), *b = calloc(most, sizeof *b);
    double *d = calloc(most, sizeof *d);
    pb_item_scores *ia = calloc(most, sizeof *ia), *ib = calloc(most, sizeof *ib);
    if (!a || !b || !d || !ia || !ib)
        PB_GO(no_memory());
    bool items = c->items && base->items;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < base->n; k++) {
            if (c->seeds[i] != base->seeds[k])
                continue;
            a[n] = c->x[i];
            b[n] = base->x[k];
            d[n] = a[n] - b[n];
            if (items) {
                ia[n] = c->items[i];
                ib[n] = base->items[k];
                items = ia[n].rows == ib[n].rows && ia[n].cols == ib[n].cols;
            }
            n++;
        }
    c->n_pairs = n;
    if (!n)
        goto done;
    c->compared = true;
    double t_value;
    pb_boot boot = {.resamples = resamples};
    c->difference = pb_mean(d, n);
    c->detectable = pb_detectable(pb_sd(d, n), n);
    c->p = pb_paired_t(a, b, n, &t_value);
    if (items) {
        PB_GO(pb_boot_paired(&c->difference_interval, ia, ib, n, &boot));
        c->difference_interval.lo *= t->scale;
        c->difference_interval.hi *= t->scale;
    } else {
        PB_GO(pb_boot_seeds(&c->difference_interval, d, n, &boot));
    }
done:
    free(a);
    free(b);
    free(d);
    free(ia);
    free(ib);
    return err;
}

// The baseline's row for a row, among those of its model: the one with its budget, or the only one;
// of several variants, the one they are made from.
static const pb_row *baseline_of(const pb_summary *s, const pb_row *row)
{
    const pb_row *found[2] = {NULL, NULL}, *centre[2] = {NULL, NULL}; // [1]: of its budget
    size_t n[2] = {0, 0}, n_centre[2] = {0, 0};
    for (size_t i = 0; i < s->n_rows; i++) {
        const pb_row *b = &s->rows[i];
        if (strcmp(b->method, s->baseline) || strcmp(b->model, row->model))
            continue;
        for (int k = 0; k <= (b->budget == row->budget); k++) {
            found[k] = b;
            n[k]++;
            centre[k] = b->is_centre ? b : centre[k];
            n_centre[k] += b->is_centre;
        }
    }
    for (int k = 1; k >= 0; k--) {
        if (n[k] == 1)
            return found[k];
        if (n_centre[k] == 1)
            return centre[k];
    }
    return NULL;
}

static pb_err compare_all(pb_summary *s)
{
    double *p = malloc((s->n_rows + 1) * sizeof *p),
           *adjusted = malloc((s->n_rows + 1) * sizeof *p);
    pb_err err = PB_OK;
    if (!p || !adjusted)
        PB_GO(no_memory());
    for (size_t t = 0; t < s->n_tasks; t++) {
        for (size_t i = 0; i < s->n_rows; i++) {
            pb_row *row = &s->rows[i];
            pb_cell *c = &row->cells[t];
            const pb_row *base = baseline_of(s, row);
            c->difference = c->p = c->p_holm = c->detectable = NAN;
            c->difference_interval = (pb_interval){NAN, NAN};
            row->is_baseline = base == row;
            if (base && base != row)
                PB_GO(compare(c, &base->cells[t], &s->tasks[t], s->resamples));
        }
        for (size_t first = 0; first < s->n_rows;) { // a family: the rows of one model in one task
            size_t end = first;
            while (end < s->n_rows && !strcmp(s->rows[end].model, s->rows[first].model)) {
                p[end] = s->rows[end].cells[t].p;
                end++;
            }
            PB_GO(pb_holm(adjusted + first, p + first, end - first));
            for (size_t i = first; i < end; i++)
                s->rows[i].cells[t].p_holm = adjusted[i];
            first = end;
        }
    }
done:
    free(p);
    free(adjusted);
    return err;
}

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

// Whether they were measured under the same conditions.
static bool same_conditions(const pb_scenario *a, const pb_scenario *b)
{
    return !strcmp(a->phase, b->phase) && same_number(a->rows, b->rows) &&
           same_number(a->prompt, b->prompt) && same_number(a->fresh, b->fresh) &&
           same_number(a->beam, b->beam) && same_number(a->budget, b->budget);
}

static bool same_arm(const pb_arm *arm, const pb_record *r, const pb_scenario *s)
{
    const pb_scenario *a = arm->s;
    return !strcmp(arm->model, r->model) && !strcmp(a->name, s->name) &&
           !strcmp(a->method, s->method) && !strcmp(a->sharing, s->sharing) &&
           same_number(a->tenants, s->tenants) && same_conditions(a, s);
}

static pb_err add_samples(pb_arm *arm, const pb_scenario *s)
{
    double *v = realloc(arm->request_ms, (arm->n + s->n + 1) * sizeof *v);
    if (!v)
        return no_memory();
    arm->request_ms = v;
    arm->n_runs++;
    double rows = s->rows > 0 ? s->rows : 1;
    double tokens = s->tokens_per_sample > 0 ? s->tokens_per_sample : rows;
    for (size_t i = 0; i < s->n; i++)
        v[arm->n++] = (double)s->samples_ns[i] * 1e-6 * rows / tokens;
    return PB_OK;
}

static pb_err finish_arm(pb_arm *arm)
{
    size_t n = arm->n;
    double *half = malloc((n + 1) * sizeof *half);
    if (!half)
        return no_memory();
    double halves[2];
    for (size_t k = 0; k < 2; k++) {
        size_t m = 0;
        for (size_t i = k; i < n; i += 2)
            half[m++] = arm->request_ms[i];
        halves[k] = pb_median(half, m);
    }
    free(half);
    pb_sort(arm->request_ms, n);
    arm->median = pb_percentile(arm->request_ms, n, 0.5);
    arm->p90 = pb_percentile(arm->request_ms, n, 0.9);
    arm->p99 = n >= 1000 ? pb_percentile(arm->request_ms, n, 0.99) : NAN;
    arm->median_interval = pb_percentile_interval(arm->request_ms, n, 0.5, 0.95);
    arm->noise = fabs(halves[0] - halves[1]) / arm->median;
    arm->tokens_per_second = 1e3 * (arm->s->rows > 0 ? arm->s->rows : 1) / arm->median;
    arm->over_base = NAN;
    return PB_OK;
}

static int by_arm(const void *pa, const void *pb)
{
    const pb_arm *a = pa, *b = pb;
    int c = strcmp(a->model, b->model);
    if (!c)
        c = strcmp(b->s->phase, a->s->phase); // prefill before decode
    if (!c)
        c = (a->s->beam > b->s->beam) - (a->s->beam < b->s->beam);
    if (!c)
        c = (a->s->rows > b->s->rows) - (a->s->rows < b->s->rows);
    if (!c)
        c = (a->s->prompt > b->s->prompt) - (a->s->prompt < b->s->prompt);
    if (!c)
        c = (a->s->fresh > b->s->fresh) - (a->s->fresh < b->s->fresh);
    if (!c)
        c = (a->s->budget > b->s->budget) - (a->s->budget < b->s->budget);
    if (!c)
        c = (strcmp(a->s->method, "base") != 0) - (strcmp(b->s->method, "base") != 0);
    if (!c)
        c = strcmp(a->s->method, b->s->method);
    if (!c)
        c = strcmp(b->s->sharing, a->s->sharing);
    if (!c)
        c = (a->s->tenants > b->s->tenants) - (a->s->tenants < b->s->tenants);
    return c ? c : strcmp(a->s->name, b->s->name);
}

static pb_err make_arms(pb_summary *s, const pb_records *records)
{
    size_t room = 0;
    for (size_t i = 0; i < records->n; i++)
        room += records->v[i].n_scenarios;
    s->arms = calloc(room + 1, sizeof *s->arms);
    if (!s->arms)
        return no_memory();
    for (size_t i = 0; i < records->n; i++) {
        const pb_record *r = &records->v[i];
        // Times of a broken-off run stand beside others unevenly: arms are interleaved.
        for (size_t k = 0; k < r->n_scenarios && pb_record_is(r, "complete"); k++) {
            const pb_scenario *sc = &r->scenarios[k];
            pb_arm *arm = NULL;
            if (!strcmp(sc->sharing, "limit"))
                continue;
            for (size_t m = 0; m < s->n_arms && !arm; m++)
                if (same_arm(&s->arms[m], r, sc))
                    arm = &s->arms[m];
            if (!arm) {
                arm = &s->arms[s->n_arms++];
                arm->s = sc;
                arm->model = r->model;
            }
            PB_TRY(add_samples(arm, sc));
        }
    }
    for (size_t i = 0; i < s->n_arms; i++)
        PB_TRY(finish_arm(&s->arms[i]));
    if (s->n_arms)
        qsort(s->arms, s->n_arms, sizeof *s->arms, by_arm);
    for (size_t i = 0; i < s->n_arms; i++)
        s->several_models |= strcmp(s->arms[i].model, s->arms[0].model) != 0;
    for (size_t i = 0; i < s->n_arms; i++)
        for (size_t k = 0; k < s->n_arms; k++) {
            const pb_arm *b = &s->arms[k];
            pb_arm *a = &s->arms[i];
            if (!strcmp(b->s->method, "base") && !strcmp(b->model, a->model) &&
                same_conditions(b->s, a->s) && isnan(a->over_base))
                a->over_base = a->median / b->median;
        }
    return PB_OK;
}

// Cuts " key=value" out of a text.
static void cut(char *text, const char *key)
{
    char pattern[96];
    snprintf(pattern, sizeof pattern, " %.90s=", key);
    char *at = *key ? strstr(text, pattern) : NULL;
    if (at) {
        size_t n = 1 + strcspn(at + 1, " ");
        memmove(at, at + n, strlen(at + n) + 1);
    }
}

static pb_err name_series(pb_summary *s)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        pb_row *row = &s->rows[i];
        if (!(row->series = strdup(row->label)))
            return no_memory();
        cut(row->series, row->knob);
        cut(row->series, "lr");
    }
    return PB_OK;
}

static const char *default_baseline(const pb_summary *s)
{
    const char *only = NULL;
    bool several = false;
    for (size_t i = 0; i < s->n_rows; i++) {
        const pb_row *row = &s->rows[i];
        if (!strcmp(row->method, "lora"))
            return "lora";
        if (row->block == PB_BLOCK_REFERENCE)
            continue;
        several |= only && strcmp(only, row->method);
        only = row->method;
    }
    return only && !several ? only : "lora";
}

static pb_err published_row(pb_row *row, const json_t *given, const pb_summary *s)
{
    const char *method, *backbone, *source;
    double size;
    *row = (pb_row){.block = PB_BLOCK_PUBLISHED, .model = "", .knob = "", .budget = NAN};
    row->bytes_per_tenant = NAN;
    PB_TRY(pb_json_str(given, "method", &method));
    PB_TRY(pb_json_str(given, "backbone", &backbone));
    PB_TRY(pb_json_str(given, "source", &source));
    PB_TRY(pb_json_real(given, "trainable", &row->trainable, 1, 1e15));
    PB_TRY(pb_json_real(given, "backbone_parameters", &size, 1, 1e15));
    row->method = method;
    row->share = 100 * row->trainable / size;
    row->cells = calloc(s->n_tasks + 1, sizeof *row->cells);
    if (!row->cells || asprintf(&row->label, "%s, %s (%s)", method, backbone, source) < 0)
        return no_memory();
    for (size_t t = 0; t < s->n_tasks; t++)
        row->cells[t] = (pb_cell){.mean = NAN,
                                  .sd = NAN,
                                  .median = NAN,
                                  .difference = NAN,
                                  .p = NAN,
                                  .p_holm = NAN,
                                  .detectable = NAN,
                                  .interval = {NAN, NAN},
                                  .difference_interval = {NAN, NAN},
                                  .resampled = ""};
    return PB_OK;
}

// Rows for the figures of others that have the task and the metric of a column.
static pb_err add_published(pb_summary *s, json_t *published)
{
    static const char *const known[] = {"task",    "method",    "backbone",
                                        "source",  "trainable", "backbone_parameters",
                                        "metrics", NULL};
    json_t *list = json_object_get(published, "rows"), *given;
    size_t i;
    if (!published)
        return PB_OK;
    if (!json_is_array(list))
        return pb_fail(PB_INPUT, NULL, "published figures need a list \"rows\"");
    pb_row *rows = realloc(s->rows, (s->n_rows + json_array_size(list) + 1) * sizeof *rows);
    if (!rows)
        return no_memory();
    s->rows = rows;
    s->published = json_incref(published);
    json_array_foreach(list, i, given)
    {
        const char *task;
        PB_TRY(pb_json_only(given, known, "a published figure"));
        PB_TRY(pb_json_str(given, "task", &task));
        for (size_t t = 0; t < s->n_tasks; t++) {
            json_t *v = json_object_get(json_object_get(given, "metrics"), s->tasks[t].metric);
            if (strcmp(task, s->tasks[t].task) || !json_is_number(v))
                continue;
            PB_TRY(published_row(&s->rows[s->n_rows++], given, s));
            s->rows[s->n_rows - 1].cells[t].mean = json_number_value(v);
        }
    }
    return PB_OK;
}

static json_t *served_methods(const pb_record *r)
{
    return json_object_get(r->serving->about, "methods");
}

const char *pb_summary_served_label(const pb_record *r)
{
    json_t *methods = served_methods(r);
    return json_object_size(methods) == 1 ? json_object_iter_key(json_object_iter(methods))
                                          : "mixed";
}

static pb_err find_served(pb_summary *s, const pb_records *records)
{
    size_t names = 0;
    s->served = calloc(records->n + 1, sizeof *s->served);
    if (!s->served)
        return no_memory();
    for (size_t i = 0; i < records->n; i++)
        if (records->v[i].serving && pb_record_is(&records->v[i], "complete")) {
            s->served[s->n_served++] = &records->v[i];
            names += json_object_size(served_methods(&records->v[i])) + 1;
        }
    s->served_series = calloc(names + 1, sizeof *s->served_series);
    if (!s->served_series)
        return no_memory();
    for (size_t i = 0; i < s->n_served; i++) {
        const char *name;
        json_t *v;
        json_object_foreach(served_methods(s->served[i]), name, v) //
            s->served_series[s->n_served_series++] = name;
        s->served_series[s->n_served_series++] = pb_summary_served_label(s->served[i]);
    }
    return PB_OK;
}

pb_err pb_summarize(pb_summary *s, const pb_records *records, const pb_summary_options *options)
{
    pb_summary_options o = options ? *options : (pb_summary_options){0};
    o.split = o.split ? o.split : "test";
    o.resamples = o.resamples ? o.resamples : 2000;
    *s = (pb_summary){.resamples = o.resamples};
    pb_err err = PB_OK;
    entry *e = NULL;
    size_t n = 0;
    PB_GO(make_entries(&e, &n, records));
    PB_GO(split_rows(e, n));
    if (n)
        qsort(e, n, sizeof *e, by_entry);
    PB_GO(make_tasks(s, e, n, &o));
    PB_GO(make_rows(s, e, n));
    PB_GO(tell_apart(s));
    PB_GO(name_series(s));
    s->baseline = o.baseline ? o.baseline : default_baseline(s);
    if (s->n_rows)
        qsort(s->rows, s->n_rows, sizeof *s->rows, by_row);
    for (size_t i = 0; i < s->n_rows; i++) {
        s->several_models |= strcmp(s->rows[i].model, s->rows[0].model) != 0;
        s->rows[i].cells = calloc(s->n_tasks + 1, sizeof *s->rows[i].cells);
        if (!s->rows[i].cells)
            PB_GO(no_memory());
        for (size_t t = 0; t < s->n_tasks; t++)
            PB_GO(fill_cell(&s->rows[i].cells[t], &s->rows[i], &s->tasks[t], e, n, &o));
    }
    PB_GO(compare_all(s));
    PB_GO(make_arms(s, records));
    PB_GO(find_served(s, records));
    PB_GO(add_published(s, o.published));
done:
    free_entries(e, n);
    if (err)
        pb_summary_free(s);
    return err;
}

void pb_summary_free(pb_summary *s)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        pb_row *row = &s->rows[i];
        for (size_t t = 0; row->cells && t < s->n_tasks; t++) {
            free(row->cells[t].seeds);
            free(row->cells[t].x);
            free(row->cells[t].items);
            free(row->cells[t].complete);
        }
        free(row->cells);
        free(row->key);
        free(row->label);
        free(row->series);
    }
    for (size_t i = 0; i < s->n_arms; i++)
        free(s->arms[i].request_ms);
    free(s->rows);
    free(s->tasks);
    free(s->arms);
    free(s->served);
    free(s->served_series);
    json_decref(s->published);
    json_decref(s->capacity);
    json_decref(s->scaling);
    *s = (pb_summary){0};
}

// The methods of rows, arms and served workloads, one after the other; NULL: none.
static const char *series_at(const pb_summary *s, size_t i)
{
    if (i < s->n_rows)
        return s->rows[i].series;
    i -= s->n_rows;
    return i < s->n_arms ? s->arms[i].s->method : s->served_series[i - s->n_arms];
}

int pb_summary_style(const pb_summary *s, const char *series)
{
    static const char *const anchors[] = {"base", "none", "merged", "full"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(series, anchors[i]))
            return PB_STYLE_ANCHOR + i;
    int rank = 1; // one more than the number of distinct series that sort before it
    size_t total = s->n_rows + s->n_arms + s->n_served_series;
    for (size_t i = 0; i < total; i++) {
        const char *m = series_at(s, i);
        bool seen = !m || strcmp(m, series) >= 0;
        for (int k = 0; m && k < 4; k++)
            seen |= !strcmp(m, anchors[k]);
        for (size_t k = 0; k < i && !seen; k++)
            seen = series_at(s, k) && !strcmp(m, series_at(s, k));
        rank += !seen;
    }
    return rank;
}
