#include "results/journal.h"

#include "core/file.h"
#include "results/serving.h"
#include "tasks/metrics/metrics.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { NUMBER, INTEGER, NATURAL, STRING, BOOLEAN, OBJECT, ARRAY } kind;

typedef struct field {
    const char *key;
    kind kind;
    bool required;
} field;

typedef struct event_type {
    const char *name;
    bool open; // other keys are allowed
    field fields[12];
} event_type;

static const event_type types[] = {
    {"start",
     false,
     {{"schema_version", NATURAL, true},
      {"run_id", STRING, true},
      {"created", STRING, true},
      {"config_sha256", STRING, true},
      {"config", OBJECT, true},
      {"seeds", OBJECT, true},
      {"env", OBJECT, true}}},
    {"params",
     true,
     {{"method", STRING, true},
      {"knob", STRING, false},
      {"knob_value", NUMBER, false},
      {"budget", NUMBER, false},
      {"trainable", NATURAL, true},
      {"saved_bytes", NATURAL, false},
      {"bytes_per_tenant", NUMBER, false},
      {"flops_per_token", NUMBER, false},
      {"sites", ARRAY, false}}},
    {"step",
     false,
     {{"step", NATURAL, true},
      {"loss", NUMBER, true},
      {"lr", NUMBER, false},
      {"grad_norm", NUMBER, false},
      {"tokens", NUMBER, false},
      {"seconds", NUMBER, false}}},
    {"valid", false, {{"step", NATURAL, true}, {"loss", NUMBER, false}, {"score", NUMBER, false}}},
    {"eval",
     true,
     {{"task", STRING, true},
      {"split", STRING, false},
      {"headline", STRING, false},
      {"higher_is_better", BOOLEAN, false},
      {"metrics", OBJECT, true},
      {"per_example", OBJECT, false},
      {"outputs", ARRAY, false}}},
    {"latency",
     false,
     {{"scenario", STRING, true}, {"attrs", OBJECT, false}, {"samples_ns", ARRAY, true}}},
    {"serve",
     false,
     {{"about", OBJECT, true},
      {"requests", OBJECT, true},
      {"steps", OBJECT, true},
      {"loads", OBJECT, true},
      {"tokens", OBJECT, true}}},
    {"note", true, {{NULL, STRING, false}}},
    {"resume", false, {{"step", NATURAL, true}}},
    {"end",
     false,
     {{"status", STRING, true},
      {"finished", STRING, true},
      {"seconds", NUMBER, true},
      {"message", STRING, false}}},
};

static const event_type *type_of(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name))
            return &types[i];
    return NULL;
}

// A null stands for a number that is not finite.
static bool fits(const json_t *v, kind k)
{
    switch (k) {
    case NUMBER:
        return json_is_number(v) || json_is_null(v);
    case INTEGER:
        return json_is_integer(v);
    case NATURAL:
        return json_is_integer(v) && json_integer_value(v) >= 0;
    case STRING:
        return json_is_string(v);
    case BOOLEAN:
        return json_is_boolean(v);
    case OBJECT:
        return json_is_object(v);
    case ARRAY:
        return json_is_array(v);
    }
    return false;
}

static const char *kind_name(kind k)
{
    static const char *const names[] = {"a number", "an integer", "a non-negative integer",
                                        "a string", "a boolean",  "an object",
                                        "an array"};
    return names[k];
}

// Names become HDF5 links: parts of letters, digits and signs, neither empty nor "." nor "..".
static pb_err check_name(const char *name, const char *what, bool slashes)
{
    const char *part = name;
    for (const char *s = name;; s++) {
        if (*s && *s != '/') {
            if ((unsigned char)*s < ' ')
                return pb_fail(PB_INPUT, NULL, "the %s contains a control character", what);
            continue;
        }
        size_t n = (size_t)(s - part);
        if (n == 0 || (n == 1 && *part == '.') || (n == 2 && !strncmp(part, "..", 2)) ||
            (*s && !slashes))
            return pb_fail(PB_INPUT, NULL, "\"%s\" is no usable %s", name, what);
        if (!*s)
            return PB_OK;
        part = s + 1;
    }
}

static pb_err check_numbers(const json_t *array, const char *what)
{
    size_t cols = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *v = json_array_get(array, i);
        bool nested = json_is_array(v);
        size_t n = nested ? json_array_size(v) : 0;
        bool bad = nested ? n == 0 : !fits(v, NUMBER);
        for (size_t k = 0; k < n; k++)
            bad |= !fits(json_array_get(v, k), NUMBER);
        if (i == 0)
            cols = n;
        if (bad || n != cols)
            return pb_fail(PB_INPUT, NULL, "%s: item %zu is not a number like the others", what, i);
    }
    return PB_OK;
}

static pb_err check_eval(const json_t *e)
{
    const char *key, *task = json_string_value(json_object_get(e, "task"));
    const char *split = json_string_value(json_object_get(e, "split"));
    const char *headline = json_string_value(json_object_get(e, "headline"));
    json_t *v;
    PB_TRY(check_name(task, "task name", false));
    if (split)
        PB_TRY(check_name(split, "split name", false));
    const json_t *metrics = json_object_get(e, "metrics");
    if (headline && !json_object_get(metrics, headline))
        return pb_fail(PB_INPUT, NULL, "the headline metric \"%s\" is not among the metrics",
                       headline);
    json_object_foreach((json_t *)metrics, key, v)
    {
        PB_TRY(check_name(key, "metric name", false));
        if (!fits(v, NUMBER))
            return pb_fail(PB_INPUT, NULL, "the metric \"%s\" is not a number", key);
    }
    json_object_foreach(json_object_get(e, "per_example"), key, v)
    {
        PB_TRY(check_name(key, "per-example name", false));
        if (!json_is_array(v))
            return pb_fail(PB_INPUT, NULL, "per_example \"%s\" is not an array", key);
        PB_TRY(check_numbers(v, key));
        bool flat = !json_is_array(json_array_get(v, 0));
        size_t n = flat ? json_array_size(v) : json_array_size(json_array_get(v, 0));
        size_t width = pb_measure_width(key);
        if (width && (flat ? n % width : n != width))
            return pb_fail(PB_INPUT, NULL, "%s has %zu numbers, not %zu per item", key, n, width);
    }
    const json_t *outputs = json_object_get(e, "outputs");
    for (size_t i = 0; i < json_array_size(outputs); i++)
        if (!json_is_string(json_array_get(outputs, i)))
            return pb_fail(PB_INPUT, NULL, "output %zu is not a string", i);
    return PB_OK;
}

static pb_err check_latency(const json_t *e)
{
    PB_TRY(check_name(json_string_value(json_object_get(e, "scenario")), "scenario name", true));
    const json_t *samples = json_object_get(e, "samples_ns");
    for (size_t i = 0; i < json_array_size(samples); i++)
        if (!fits(json_array_get(samples, i), NATURAL))
            return pb_fail(PB_INPUT, NULL, "sample %zu is not a non-negative integer", i);
    const char *key;
    json_t *v;
    json_object_foreach(
        json_object_get(e, "attrs"), key,
        v) if (!json_is_number(v) && !json_is_string(v) &&
               !json_is_boolean(v)) return pb_fail(PB_INPUT, NULL,
                                                   "the attribute \"%s\" is not a number or string",
                                                   key);
    return PB_OK;
}

static pb_err check_sites(const json_t *e)
{
    static const field fields[] = {{"name", STRING, true},
                                   {"rows", NATURAL, true},
                                   {"cols", NATURAL, true},
                                   {"count", NATURAL, true}};
    const json_t *sites = json_object_get(e, "sites");
    for (size_t i = 0; i < json_array_size(sites); i++)
        for (size_t k = 0; k < 4; k++)
            if (!fits(json_object_get(json_array_get(sites, i), fields[k].key), fields[k].kind))
                return pb_fail(PB_INPUT, NULL, "site %zu: \"%s\" must be %s", i, fields[k].key,
                               kind_name(fields[k].kind));
    return PB_OK;
}

static pb_err check_fields(const json_t *e, const event_type *t)
{
    for (const field *f = t->fields; f->key; f++) {
        const json_t *v = json_object_get(e, f->key);
        if (!v && f->required)
            return pb_fail(PB_INPUT, NULL, "the key \"%s\" is missing", f->key);
        if (v && !fits(v, f->kind) && (f->required || !json_is_null(v)))
            return pb_fail(PB_INPUT, NULL, "\"%s\" must be %s", f->key, kind_name(f->kind));
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)e, key, v)
    {
        bool known = t->open || !strcmp(key, "event");
        for (const field *f = t->fields; f->key && !known; f++)
            known = !strcmp(f->key, key);
        if (!known)
            return pb_fail(PB_INPUT, NULL, "unknown key \"%s\"", key);
    }
    return PB_OK;
}

static pb_err check_order(int64_t *last, int64_t step)
{
    if (step <= *last)
        return pb_fail(PB_INPUT, "a \"resume\" event must come before steps are repeated",
                       "step %lld after step %lld", (long long)step, (long long)*last);
    *last = step;
    return PB_OK;
}

static pb_err check(pb_journal_state *s, const json_t *e, const char *name)
{
    PB_TRY(check_fields(e, type_of(name)));
    int64_t step = json_integer_value(json_object_get(e, "step"));
    if (!strcmp(name, "start") == s->started)
        return pb_fail(PB_INPUT, NULL, s->started ? "a second start" : "an event before the start");
    if (!strcmp(name, "start")) {
        const char *hash = json_string_value(json_object_get(e, "config_sha256"));
        if (strlen(hash) != PB_HASH_LEN - 1)
            return pb_fail(PB_INPUT, NULL, "config_sha256 is \"%s\"", hash);
        strcpy(s->config_sha256, hash);
        s->last_step = s->last_valid = -1;
        s->started = true;
    } else if (!strcmp(name, "step")) {
        PB_TRY(check_order(&s->last_step, step));
    } else if (!strcmp(name, "valid")) {
        PB_TRY(check_order(&s->last_valid, step));
    } else if (!strcmp(name, "resume")) {
        s->last_step = s->last_step < step ? s->last_step : step;
        s->last_valid = s->last_valid < step ? s->last_valid : step;
    } else if (!strcmp(name, "eval")) {
        PB_TRY(check_eval(e));
    } else if (!strcmp(name, "latency")) {
        PB_TRY(check_latency(e));
    } else if (!strcmp(name, "serve")) {
        PB_TRY(pb_serving_check(e));
    } else if (!strcmp(name, "params")) {
        PB_TRY(check_sites(e));
    } else if (!strcmp(name, "end")) {
        const char *status = json_string_value(json_object_get(e, "status"));
        bool known = false;
        for (int i = PB_RUN_COMPLETE; i <= PB_RUN_INTERRUPTED; i++)
            known |= !strcmp(status, pb_run_status_name((pb_run_status)i));
        if (!known)
            return pb_fail(PB_INPUT, NULL, "unknown status \"%s\"", status);
        s->seconds = json_number_value(json_object_get(e, "seconds"));
    }
    return PB_OK;
}

pb_err pb_journal_check(pb_journal_state *s, const json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    if (!name)
        return pb_fail(PB_INPUT, NULL, "an event must be an object with the key \"event\"");
    if (!type_of(name))
        return pb_fail(PB_INPUT, NULL, "unknown event \"%s\"", name);
    pb_err err = check(s, event, name);
    return err ? pb_context(err, "event \"%s\"", name) : PB_OK;
}

pb_err pb_journal_path(char *out, size_t size, const char *h5_path)
{
    size_t n = strlen(h5_path);
    if (n < 4 || strcmp(h5_path + n - 3, ".h5") || h5_path[n - 4] == '/')
        return pb_fail(PB_USAGE, NULL, "a result file's name must end in .h5, \"%s\" does not",
                       h5_path);
    return pb_path(out, size, "%.*s.jsonl", (int)(n - 3), h5_path);
}

static pb_err add_row(pb_curve_rows *c, const json_t *e, const char *const *keys)
{
    if (c->n == c->room) {
        size_t room = c->room ? 2 * c->room : 256;
        pb_curve_row *rows = realloc(c->rows, room * sizeof *rows);
        if (!rows)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu steps", room);
        c->rows = rows;
        c->room = room;
    }
    pb_curve_row *r = &c->rows[c->n++];
    *r = (pb_curve_row){.step = json_integer_value(json_object_get(e, "step"))};
    for (size_t i = 0; keys[i]; i++) {
        const json_t *v = json_object_get(e, keys[i]);
        r->known[i] = v != NULL;
        r->v[i] = json_is_number(v) ? json_number_value(v) : NAN;
    }
    return PB_OK;
}

static void cut_rows(pb_curve_rows *c, int64_t step)
{
    while (c->n && c->rows[c->n - 1].step > step)
        c->n--;
}

static const char *const train_keys[] = {"loss", "lr", "grad_norm", "tokens", "seconds", NULL};
static const char *const valid_keys[] = {"loss", "score", NULL};

static void keep(json_t **slot, json_t *event)
{
    json_decref(*slot);
    *slot = json_incref(event);
}

static pb_err gather(pb_journal *j, json_t *e)
{
    const char *name = json_string_value(json_object_get(e, "event"));
    char group[1024];
    int bad = 0;
    json_decref(j->end); // a later event means that the run went on
    j->end = NULL;
    if (!strcmp(name, "start")) {
        keep(&j->start, e);
    } else if (!strcmp(name, "params")) {
        keep(&j->params, e);
    } else if (!strcmp(name, "serve")) {
        keep(&j->serve, e);
    } else if (!strcmp(name, "end")) {
        keep(&j->end, e);
    } else if (!strcmp(name, "step")) {
        PB_TRY(add_row(&j->train, e, train_keys));
    } else if (!strcmp(name, "valid")) {
        PB_TRY(add_row(&j->valid, e, valid_keys));
    } else if (!strcmp(name, "resume")) {
        int64_t step = json_integer_value(json_object_get(e, "step"));
        cut_rows(&j->train, step);
        cut_rows(&j->valid, step);
        j->n_resumes++;
    } else if (!strcmp(name, "eval")) {
        const char *split = json_string_value(json_object_get(e, "split"));
        bool test = !split || !strcmp(split, "test");
        PB_TRY(pb_path(group, sizeof group, "%s%s%s", json_string_value(json_object_get(e, "task")),
                       test ? "" : ":", test ? "" : split));
        bad = json_object_set(j->evals, group, e);
    } else if (!strcmp(name, "latency")) {
        bad = json_object_set(j->latencies, json_string_value(json_object_get(e, "scenario")), e);
    } else {
        bad = json_array_append(j->notes, e);
    }
    return bad ? pb_fail(PB_MEMORY, NULL, "no memory for the journal's events") : PB_OK;
}

// Looks for a null where a number belongs, at any depth.
static bool has_null(const json_t *v, int depth)
{
    const char *key;
    json_t *e;
    if (json_is_null(v))
        return true;
    if (depth == 0)
        return false;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (has_null(json_array_get(v, i), depth - 1))
            return true;
    json_object_foreach((json_t *)v, key, e) if (has_null(e, depth - 1)) return true;
    return false;
}

static void find_in_curve(pb_journal *j, const pb_curve_rows *c, const char *what,
                          const char *const *keys)
{
    for (size_t i = 0; i < c->n && !*j->non_finite; i++)
        for (size_t k = 0; keys[k] && !*j->non_finite; k++)
            if (c->rows[i].known[k] && !isfinite(c->rows[i].v[k]))
                snprintf(j->non_finite, sizeof j->non_finite, "%s %s at step %lld", what, keys[k],
                         (long long)c->rows[i].step);
}

static void find_non_finite(pb_journal *j)
{
    find_in_curve(j, &j->train, "training", train_keys);
    find_in_curve(j, &j->valid, "validation", valid_keys);
    const char *key;
    json_t *e;
    json_object_foreach(j->evals, key, e)
    {
        if (*j->non_finite)
            break;
        if (has_null(json_object_get(e, "metrics"), 1))
            snprintf(j->non_finite, sizeof j->non_finite, "a metric of %.80s", key);
        else if (has_null(json_object_get(e, "per_example"), 3))
            snprintf(j->non_finite, sizeof j->non_finite, "a per-example score of %.80s", key);
    }
}

pb_err pb_journal_read(pb_journal *j, const char *path)
{
    *j = (pb_journal){.evals = json_object(), .latencies = json_object(), .notes = json_array()};
    if (!j->evals || !j->latencies || !j->notes)
        return pb_fail(PB_MEMORY, NULL, "no memory for the journal %s", path);
    pb_file f;
    PB_TRY(pb_file_map(&f, path));
    pb_err err = PB_OK;
    const char *text = (const char *)f.data;
    size_t line = 0;
    for (size_t at = 0; at < f.size && !err;) {
        const char *end = memchr(text + at, '\n', f.size - at);
        if (!end)
            break; // torn by a killed writer
        size_t n = (size_t)(end - text) - at;
        char what[64];
        snprintf(what, sizeof what, "journal line %zu", ++line);
        json_t *e = NULL;
        err = pb_json_parse(&e, text + at, n, what);
        if (!err && (err = pb_journal_check(&j->state, e)))
            pb_context(err, "%s", what);
        if (!err)
            err = gather(j, e);
        json_decref(e);
        at += n + 1;
        if (!err)
            j->good_bytes = at;
    }
    pb_file_unmap(&f);
    if (err)
        return pb_context(err, "%s", path);
    find_non_finite(j);
    return PB_OK;
}

void pb_journal_free(pb_journal *j)
{
    json_decref(j->start);
    json_decref(j->params);
    json_decref(j->serve);
    json_decref(j->end);
    json_decref(j->evals);
    json_decref(j->latencies);
    json_decref(j->notes);
    free(j->train.rows);
    free(j->valid.rows);
    *j = (pb_journal){0};
}
