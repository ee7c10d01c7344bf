// From a journal's events to one HDF5 file. The layout:
//
//   /            attributes: schema, schema_version, run_id, config_sha256, status, message,
//   created,
//                finished, seconds, resumes, software, version, commit, dirty
//   /config /env /seeds   one attribute per key, objects as subgroups; "json" = all of it as text
//   /params      attributes; sites: table of name, rows, cols, count
//   /train       step (dimension scale), loss, lr, grad_norm, tokens, seconds
//   /train/valid step (dimension scale), loss, score
//   /eval/TASK   (TASK:SPLIT when the split is not "test") attributes task, split, headline,
//                higher_is_better; metrics: attributes; per_example/NAME; outputs
//   /latency/SCENARIO     attributes; samples (ns)
//   /serve       attributes; requests, steps, loads, tokens: a dataset per column (serving.h)
//   /notes       attributes
#include "results/journal.h"

#include "results/h5.h"
#include "results/serving.h"
#include "tasks/metrics/metrics.h"
#include <hdf5_hl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : otherwise;
}

static pb_err write_root(hid_t f, const pb_journal *j)
{
    const json_t *env = json_object_get(j->start, "env");
    const char *end_text = j->end ? NULL : "the journal ends without an end event";
    const struct {
        const char *name, *value;
    } rows[] = {
        {"schema", PB_RUN_SCHEMA},
        {"run_id", text(j->start, "run_id", "")},
        {"config_sha256", text(j->start, "config_sha256", "")},
        {"status", text(j->end, "status", pb_run_status_name(PB_RUN_INTERRUPTED))},
        {"message", end_text ? end_text : text(j->end, "message", "")},
        {"created", text(j->start, "created", "")},
        {"finished", text(j->end, "finished", "")},
        {"software", text(env, "software", "pedrobench")},
        {"version", text(env, "version", "unknown")},
        {"commit", text(env, "commit", "unknown")},
        {"dirty", text(env, "dirty", "unknown")},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PB_TRY(pb_h5_put_str(f, rows[i].name, rows[i].value));
    PB_TRY(pb_h5_put_int(f, "schema_version", PB_RUN_SCHEMA_VERSION));
    PB_TRY(pb_h5_put_int(f, "resumes", j->n_resumes));
    if (j->end)
        PB_TRY(pb_h5_put_real(f, "seconds", json_number_value(json_object_get(j->end, "seconds"))));
    return PB_OK;
}

// An object as attributes, and as text for readers that want it whole.
static pb_err write_object(hid_t f, const char *name, const json_t *object)
{
    hid_t g;
    PB_TRY(pb_h5_group(&g, f, name));
    pb_err err = pb_h5_put_object(g, object, false);
    char *all = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    if (!err)
        err = all ? pb_h5_put_str(g, "json", all)
                  : pb_fail(PB_MEMORY, NULL, "cannot format \"%s\" as JSON", name);
    free(all);
    H5Gclose(g);
    return err;
}

// The keys of an event except those with a place of their own.
static pb_err write_attributes(hid_t g, const json_t *event, const char *const *except)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)event, key, v)
    {
        bool skip = !strcmp(key, "event");
        for (size_t i = 0; except[i]; i++)
            skip |= !strcmp(except[i], key);
        if (!skip)
            PB_TRY(pb_h5_put_json(g, key, v, false));
    }
    return PB_OK;
}

enum { SITE_NAME = 64 };
typedef struct site {
    char name[SITE_NAME];
    int64_t rows, cols, count;
} site;

static pb_err write_sites(hid_t g, const json_t *sites)
{
    size_t n = json_array_size(sites);
    hsize_t dim = n;
    site *rows = calloc(n + 1, sizeof *rows);
    if (!rows)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu sites", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_array_get(sites, i);
        snprintf(rows[i].name, SITE_NAME, "%s", text(s, "name", ""));
        rows[i].rows = json_integer_value(json_object_get(s, "rows"));
        rows[i].cols = json_integer_value(json_object_get(s, "cols"));
        rows[i].count = json_integer_value(json_object_get(s, "count"));
    }
    hid_t name = H5Tcopy(H5T_C_S1), type = H5Tcreate(H5T_COMPOUND, sizeof *rows);
    H5Tset_size(name, SITE_NAME);
    H5Tset_cset(name, H5T_CSET_UTF8);
    H5Tinsert(type, "name", offsetof(site, name), name);
    H5Tinsert(type, "rows", offsetof(site, rows), H5T_NATIVE_INT64);
    H5Tinsert(type, "cols", offsetof(site, cols), H5T_NATIVE_INT64);
    H5Tinsert(type, "count", offsetof(site, count), H5T_NATIVE_INT64);
    hid_t space = H5Screate_simple(1, &dim, NULL), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(dcpl, false);
    hid_t set = H5Dcreate2(g, "sites", type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    bool bad = set < 0 || (n && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) < 0);
    pb_err err = bad ? pb_h5_fail("write the table", "sites") : PB_OK;
    if (!err)
        err = pb_h5_put_str(set, "units", "parameters (count = matrices of rows x cols)");
    if (set >= 0)
        H5Dclose(set);
    H5Pclose(dcpl);
    H5Sclose(space);
    H5Tclose(type);
    H5Tclose(name);
    free(rows);
    return err;
}

static pb_err write_params(hid_t f, const json_t *params)
{
    static const char *const except[] = {"sites", NULL};
    hid_t g;
    PB_TRY(pb_h5_group(&g, f, "params"));
    pb_err err = write_attributes(g, params, except);
    if (!err && json_object_get(params, "sites"))
        err = write_sites(g, json_object_get(params, "sites"));
    H5Gclose(g);
    return err;
}

typedef struct column {
    const char *name, *units;
} column;

static const column train_columns[] = {{"loss", "nat/token"}, {"lr", "1"},      {"grad_norm", "1"},
                                       {"tokens", "token"},   {"seconds", "s"}, {NULL, NULL}};
static const column valid_columns[] = {{"loss", "nat/token"}, {"score", "1"}, {NULL, NULL}};

static pb_err write_curve(hid_t f, const char *name, const pb_curve_rows *c, const column *columns)
{
    pb_err err = PB_OK;
    hid_t g = -1, scale = -1, set = -1;
    double *v = NULL;
    int64_t *step = malloc((c->n + 1) * sizeof *step);
    if (!step || !(v = malloc((c->n + 1) * sizeof *v)))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu steps", c->n));
    PB_GO(pb_h5_group(&g, f, name));
    for (size_t i = 0; i < c->n; i++)
        step[i] = c->rows[i].step;
    PB_GO(pb_h5_data_int(&scale, g, "step", step, c->n, "step"));
    if (H5DSset_scale(scale, "step") < 0)
        PB_GO(pb_h5_fail("make a dimension scale of", "step"));
    for (size_t k = 0; columns[k].name; k++) {
        size_t known = 0;
        for (size_t i = 0; i < c->n; i++) {
            known += c->rows[i].known[k];
            v[i] = c->rows[i].known[k] ? c->rows[i].v[k] : NAN;
        }
        if (!known)
            continue;
        PB_GO(pb_h5_data_real(&set, g, columns[k].name, v, c->n, 0, columns[k].units));
        if (known < c->n)
            PB_GO(pb_h5_put_str(set, "nan", "not recorded at this step, or not finite"));
        if (H5DSattach_scale(set, scale, 0) < 0)
            PB_GO(pb_h5_fail("attach the dimension scale of", columns[k].name));
        H5Dclose(set);
        set = -1;
    }
done:
    if (set >= 0)
        H5Dclose(set);
    if (scale >= 0)
        H5Dclose(scale);
    if (g >= 0)
        H5Gclose(g);
    free(step);
    free(v);
    return err;
}

static double number(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *units_of(const char *name)
{
    return !strcmp(name, "loss") ? "nat/token" : !strcmp(name, "bleu_stats") ? "count" : "1";
}

static pb_err write_scores(hid_t g, const char *name, const json_t *array)
{
    size_t n = json_array_size(array), cols = json_array_size(json_array_get(array, 0));
    size_t each = cols ? cols : 1;
    double *v = malloc((n * each + 1) * sizeof *v);
    if (!v)
        return pb_fail(PB_MEMORY, NULL, "no memory for the scores \"%s\"", name);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i);
        for (size_t k = 0; k < each; k++)
            v[i * each + k] = number(cols ? json_array_get(item, k) : item);
    }
    if (!cols && pb_measure_width(name) > 1) { // flat
        cols = pb_measure_width(name);
        n /= cols;
    }
    pb_err err = pb_h5_data_real(NULL, g, name, v, n, cols, units_of(name));
    free(v);
    return err;
}

static pb_err write_outputs(hid_t g, const json_t *outputs)
{
    size_t n = json_array_size(outputs);
    const char **v = malloc((n + 1) * sizeof *v);
    if (!v)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu outputs", n);
    for (size_t i = 0; i < n; i++)
        v[i] = json_string_value(json_array_get(outputs, i));
    pb_err err = pb_h5_data_str(g, "outputs", v, n);
    free(v);
    return err;
}

static pb_err write_eval(hid_t f, const char *name, const json_t *e)
{
    static const char *const except[] = {"metrics", "per_example", "outputs", NULL};
    pb_err err = PB_OK;
    char path[1100];
    hid_t g = -1, sub = -1;
    PB_GO(pb_path(path, sizeof path, "eval/%s", name));
    PB_GO(pb_h5_group(&g, f, path));
    PB_GO(write_attributes(g, e, except));
    PB_GO(pb_h5_put_str(g, "split", text(e, "split", "test")));
    const json_t *higher = json_object_get(e, "higher_is_better");
    PB_GO(pb_h5_put_bool(g, "higher_is_better", !json_is_false(higher)));
    PB_GO(pb_h5_group(&sub, g, "metrics"));
    PB_GO(pb_h5_put_object(sub, json_object_get(e, "metrics"), true));
    H5Gclose(sub);
    PB_GO(pb_h5_group(&sub, g, "per_example"));
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(e, "per_example"), key, v) PB_GO(write_scores(sub, key, v));
    if (json_object_get(e, "outputs"))
        PB_GO(write_outputs(g, json_object_get(e, "outputs")));
done:
    if (sub >= 0)
        H5Gclose(sub);
    if (g >= 0)
        H5Gclose(g);
    return err;
}

static pb_err write_latency(hid_t f, const char *name, const json_t *e)
{
    pb_err err = PB_OK;
    char path[1100];
    hid_t g = -1;
    const json_t *samples = json_object_get(e, "samples_ns");
    size_t n = json_array_size(samples);
    int64_t *v = malloc((n + 1) * sizeof *v);
    if (!v)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu samples", n));
    PB_GO(pb_path(path, sizeof path, "latency/%s", name));
    PB_GO(pb_h5_group(&g, f, path));
    PB_GO(pb_h5_put_object(g, json_object_get(e, "attrs"), false));
    PB_GO(pb_h5_put_str(g, "scenario", name));
    for (size_t i = 0; i < n; i++)
        v[i] = json_integer_value(json_array_get(samples, i));
    PB_GO(pb_h5_data_int(NULL, g, "samples", v, n, "ns"));
done:
    if (g >= 0)
        H5Gclose(g);
    free(v);
    return err;
}

static pb_err write_columns(hid_t g, const json_t *columns, const pb_serving_table *t)
{
    pb_err err = PB_OK;
    size_t n = json_array_size(json_object_get(columns, t->columns[0].name));
    int64_t *v = malloc((n + 1) * sizeof *v);
    if (!v)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu rows", n);
    for (size_t i = 0; i < t->n_columns && !err; i++) {
        const pb_serving_column *c = &t->columns[i];
        const json_t *list = json_object_get(columns, c->name);
        for (size_t k = 0; k < n; k++)
            v[k] = json_integer_value(json_array_get(list, k));
        err = pb_h5_data_int(NULL, g, c->name, v, n, c->units);
    }
    free(v);
    return err;
}

static pb_err write_serve(hid_t f, const json_t *e)
{
    PB_TRY(write_object(f, "serve", json_object_get(e, "about")));
    for (size_t k = 0; k < PB_SERVING_TABLES; k++) {
        const pb_serving_table *t = &pb_serving_tables[k];
        char path[64];
        hid_t g;
        PB_TRY(pb_path(path, sizeof path, "serve/%s", t->name));
        PB_TRY(pb_h5_group(&g, f, path));
        pb_err err = write_columns(g, json_object_get(e, t->name), t);
        H5Gclose(g);
        PB_TRY(err);
    }
    return PB_OK;
}

static pb_err write_notes(hid_t f, const json_t *notes)
{
    static const char *const except[] = {NULL};
    hid_t g;
    pb_err err = PB_OK;
    PB_TRY(pb_h5_group(&g, f, "notes"));
    for (size_t i = 0; i < json_array_size(notes) && !err; i++)
        err = write_attributes(g, json_array_get(notes, i), except);
    H5Gclose(g);
    return err;
}

pb_err pb_journal_build(const pb_journal *j, const char *h5_path)
{
    pb_err err = PB_OK;
    hid_t f = -1;
    const char *key;
    json_t *v;
    if (!j->start)
        return pb_fail(PB_INPUT, NULL, "the journal of %s holds no event", h5_path);
    PB_GO(pb_h5_new(&f));
    PB_GO(write_root(f, j));
    PB_GO(write_object(f, "config", json_object_get(j->start, "config")));
    PB_GO(write_object(f, "env", json_object_get(j->start, "env")));
    PB_GO(write_object(f, "seeds", json_object_get(j->start, "seeds")));
    if (j->params)
        PB_GO(write_params(f, j->params));
    if (j->train.n)
        PB_GO(write_curve(f, "train", &j->train, train_columns));
    if (j->valid.n)
        PB_GO(write_curve(f, "train/valid", &j->valid, valid_columns));
    json_object_foreach(j->evals, key, v) PB_GO(write_eval(f, key, v));
    json_object_foreach(j->latencies, key, v) PB_GO(write_latency(f, key, v));
    if (j->serve)
        PB_GO(write_serve(f, j->serve));
    if (json_array_size(j->notes))
        PB_GO(write_notes(f, j->notes));
    PB_GO(pb_h5_save(f, h5_path, PB_RUN_SCHEMA, PB_RUN_SCHEMA_VERSION));
done:
    if (f >= 0)
        H5Fclose(f);
    return err ? pb_context(err, "%s", h5_path) : PB_OK;
}
