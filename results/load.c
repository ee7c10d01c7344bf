#include "results/load.h"

#include "core/file.h"
#include "results/h5.h"
#include "results/run.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pb_err no_memory(void)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for the results");
}

void pb_paths_free(pb_paths *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->v[i]);
    free(p->v);
    *p = (pb_paths){0};
}

static pb_err add_path(pb_paths *p, const char *path)
{
    if (p->n == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        char **v = realloc(p->v, room * sizeof *v);
        if (!v)
            return no_memory();
        p->v = v;
        p->room = room;
    }
    if (!(p->v[p->n] = strdup(path)))
        return no_memory();
    p->n++;
    return PB_OK;
}

static bool is_run_file(const char *path)
{
    char schema[32];
    pb_h5_schema(schema, path);
    return !strcmp(schema, PB_RUN_SCHEMA);
}

static pb_err scan(pb_paths *p, const char *folder, int depth)
{
    DIR *d = opendir(folder);
    if (!d)
        return pb_fail(PB_IO, NULL, "cannot read the folder %s: %s", folder, strerror(errno));
    pb_err err = PB_OK;
    struct dirent *e;
    while (!err && (e = readdir(d))) {
        char path[4096];
        size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        err = pb_path(path, sizeof path, "%s/%s", folder, e->d_name);
        if (err)
            break;
        if (pb_is_dir(path) && !strcmp(e->d_name, "tuning"))
            continue; // trials, which are no results; by their own folder they can be read
        if (pb_is_dir(path))
            err = depth ? scan(p, path, depth - 1) : PB_OK;
        else if (n > 3 && !strcmp(e->d_name + n - 3, ".h5") && is_run_file(path))
            err = add_path(p, path);
    }
    closedir(d);
    return err;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

pb_err pb_run_files(pb_paths *out, const char *const *paths, size_t n)
{
    *out = (pb_paths){0};
    pb_err err = PB_OK;
    for (size_t i = 0; i < n; i++) {
        size_t before = out->n;
        if (!pb_is_dir(paths[i])) {
            PB_GO(add_path(out, paths[i]));
            continue;
        }
        PB_GO(scan(out, paths[i], 32));
        if (out->n == before)
            PB_GO(pb_fail(PB_INPUT, "a run writes its .h5 file when it ends",
                          "%s holds no run file", paths[i]));
    }
    if (!out->n)
        PB_GO(pb_fail(PB_USAGE, NULL, "no result file or folder was given"));
    qsort(out->v, out->n, sizeof *out->v, by_name);
    size_t kept = 0; // a file named twice counts once
    for (size_t i = 0; i < out->n; i++) {
        if (kept && !strcmp(out->v[kept - 1], out->v[i]))
            free(out->v[i]);
        else
            out->v[kept++] = out->v[i];
    }
    out->n = kept;
done:
    if (err)
        pb_paths_free(out);
    return err;
}

static pb_err open_group(hid_t *g, hid_t loc, const char *name)
{
    *g = -1;
    if (!pb_h5_has(loc, name))
        return PB_OK;
    *g = H5Gopen2(loc, name, H5P_DEFAULT);
    return *g < 0 ? pb_h5_fail("open the group", name) : PB_OK;
}

static void close_group(hid_t g)
{
    if (g >= 0)
        H5Gclose(g);
}

static pb_err text_attribute(hid_t loc, const char *name, char **out)
{
    if (!*out && !(*out = strdup("")))
        return no_memory();
    return pb_h5_get_str(loc, name, out);
}

static pb_err json_group(hid_t f, const char *name, json_t **out)
{
    hid_t g;
    char *text = NULL;
    PB_TRY(open_group(&g, f, name));
    pb_err err = g < 0 ? PB_OK : pb_h5_get_str(g, "json", &text);
    if (!err)
        err = pb_json_parse(out, text ? text : "{}", text ? strlen(text) : 2, name);
    if (!err && !json_is_object(*out))
        err = pb_fail(PB_INPUT, NULL, "/%s is not a JSON object", name);
    free(text);
    close_group(g);
    return err;
}

static double config_number(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *config_text(const json_t *config, const char *key)
{
    const char *s = json_string_value(json_object_get(config, key));
    return s ? s : "";
}

static pb_err read_params(pb_record *r, hid_t f)
{
    hid_t g;
    if (!(r->knob = strdup("")))
        return no_memory();
    r->knob_value = r->trainable = r->saved_bytes = r->bytes_per_tenant = r->flops_per_token = NAN;
    PB_TRY(open_group(&g, f, "params"));
    if (g < 0)
        return PB_OK;
    pb_err err = PB_OK;
    PB_GO(pb_h5_get_str(g, "knob", &r->knob));
    const struct {
        const char *name;
        double *to;
    } rows[] = {{"knob_value", &r->knob_value},
                {"trainable", &r->trainable},
                {"saved_bytes", &r->saved_bytes},
                {"bytes_per_tenant", &r->bytes_per_tenant},
                {"flops_per_token", &r->flops_per_token}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PB_GO(pb_h5_get_real(g, rows[i].name, rows[i].to));
done:
    close_group(g);
    return err;
}

static pb_err read_column(hid_t g, const char *name, double **out, size_t n)
{
    size_t rows, cols;
    if (!pb_h5_has(g, name))
        return PB_OK;
    PB_TRY(pb_h5_get_real_data(g, name, out, &rows, &cols));
    return rows == n && cols == 1
               ? PB_OK
               : pb_fail(PB_INPUT, NULL, "the column %s has %zu rows, not %zu", name, rows, n);
}

static pb_err read_curve(pb_curve *c, hid_t f, const char *name)
{
    hid_t g;
    PB_TRY(open_group(&g, f, name));
    if (g < 0)
        return PB_OK;
    pb_err err = PB_OK;
    if (pb_h5_has(g, "step")) { // a run may have /train/valid alone
        PB_GO(pb_h5_get_int_data(g, "step", &c->step, &c->n));
        PB_GO(read_column(g, "loss", &c->loss, c->n));
        PB_GO(read_column(g, "lr", &c->lr, c->n));
        PB_GO(read_column(g, "score", &c->score, c->n));
    }
done:
    close_group(g);
    return err;
}

static pb_err read_metrics(pb_evaluation *e, hid_t g)
{
    pb_h5_names names = {0};
    pb_err err = PB_OK;
    PB_GO(pb_h5_attributes(&names, g));
    e->metrics = calloc(names.n + 1, sizeof *e->metrics);
    if (!e->metrics)
        PB_GO(no_memory());
    for (size_t i = 0; i < names.n; i++) {
        pb_metric *m = &e->metrics[e->n_metrics];
        m->name = names.v[i];
        names.v[i] = NULL;
        e->n_metrics++;
        PB_GO(pb_h5_get_real(g, m->name, &m->value));
    }
done:
    pb_h5_names_free(&names);
    return err;
}

static pb_err read_arrays(pb_evaluation *e, hid_t g)
{
    pb_h5_names names = {0};
    pb_err err = PB_OK;
    PB_GO(pb_h5_links(&names, g));
    e->arrays = calloc(names.n + 1, sizeof *e->arrays);
    if (!e->arrays)
        PB_GO(no_memory());
    for (size_t i = 0; i < names.n; i++) {
        pb_array *a = &e->arrays[e->n_arrays];
        a->name = names.v[i];
        names.v[i] = NULL;
        e->n_arrays++;
        PB_GO(pb_h5_get_real_data(g, a->name, &a->v, &a->rows, &a->cols));
    }
done:
    pb_h5_names_free(&names);
    return err;
}

static pb_err read_eval(pb_evaluation *e, hid_t all, const char *name)
{
    hid_t g, metrics = -1, arrays = -1;
    PB_TRY(open_group(&g, all, name));
    pb_err err = PB_OK;
    e->higher_is_better = true;
    PB_GO(text_attribute(g, "task", &e->task));
    PB_GO(text_attribute(g, "split", &e->split));
    PB_GO(text_attribute(g, "headline", &e->headline));
    PB_GO(pb_h5_get_bool(g, "higher_is_better", &e->higher_is_better));
    PB_GO(open_group(&metrics, g, "metrics"));
    PB_GO(open_group(&arrays, g, "per_example"));
    if (metrics >= 0)
        PB_GO(read_metrics(e, metrics));
    if (arrays >= 0)
        PB_GO(read_arrays(e, arrays));
done:
    close_group(metrics);
    close_group(arrays);
    close_group(g);
    return err;
}

static pb_err read_evals(pb_record *r, hid_t f)
{
    hid_t g;
    pb_h5_names names = {0};
    PB_TRY(open_group(&g, f, "eval"));
    if (g < 0)
        return PB_OK;
    pb_err err = PB_OK;
    PB_GO(pb_h5_links(&names, g));
    r->evals = calloc(names.n + 1, sizeof *r->evals);
    if (!r->evals)
        PB_GO(no_memory());
    for (size_t i = 0; i < names.n; i++) {
        r->n_evals++;
        PB_GO(read_eval(&r->evals[i], g, names.v[i]));
    }
done:
    pb_h5_names_free(&names);
    close_group(g);
    return err;
}

static pb_err read_scenario(pb_record *r, hid_t g)
{
    pb_scenario *all = realloc(r->scenarios, (r->n_scenarios + 1) * sizeof *all);
    if (!all)
        return no_memory();
    r->scenarios = all;
    pb_scenario *s = &all[r->n_scenarios++];
    *s = (pb_scenario){0};
    const struct {
        const char *name;
        double *to;
    } rows[] = {{"tenants", &s->tenants},
                {"rows", &s->rows},
                {"prompt", &s->prompt},
                {"new", &s->fresh},
                {"beam", &s->beam},
                {"budget", &s->budget},
                {"trainable", &s->trainable},
                {"tokens_per_sample", &s->tokens_per_sample},
                {"resident_bytes_per_tenant", &s->resident_bytes_per_tenant},
                {"flops_per_token", &s->flops_per_token},
                {"bytes_per_token", &s->bytes_per_token},
                {"memory_bytes", &s->memory_bytes},
                {"regions_per_token", &s->regions_per_token},
                {"of_limit", &s->of_limit},
                {"backbone_time_share", &s->backbone_share},
                {"attention_time_share", &s->attention_share},
                {"adapter_time_share", &s->adapter_share},
                {"head_time_share", &s->head_share}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *rows[i].to = NAN;
        PB_TRY(pb_h5_get_real(g, rows[i].name, rows[i].to));
    }
    PB_TRY(text_attribute(g, "scenario", &s->name));
    PB_TRY(text_attribute(g, "method", &s->method));
    PB_TRY(text_attribute(g, "phase", &s->phase));
    PB_TRY(text_attribute(g, "sharing", &s->sharing));
    return pb_h5_get_int_data(g, "samples", &s->samples_ns, &s->n);
}

// A scenario's name may be the beginning of another's, so a group can be both.
static pb_err read_scenarios(pb_record *r, hid_t loc, const char *name)
{
    hid_t g;
    pb_h5_names names = {0};
    PB_TRY(open_group(&g, loc, name));
    if (g < 0)
        return PB_OK;
    pb_err err = PB_OK;
    if (pb_h5_has(g, "samples"))
        PB_GO(read_scenario(r, g));
    PB_GO(pb_h5_links(&names, g));
    for (size_t i = 0; i < names.n; i++)
        if (strcmp(names.v[i], "samples"))
            PB_GO(read_scenarios(r, g, names.v[i]));
done:
    pb_h5_names_free(&names);
    close_group(g);
    return err;
}

static pb_err read_columns(pb_serving *s, hid_t all, const pb_serving_table *t)
{
    hid_t g;
    pb_err err = PB_OK;
    int64_t *v = NULL;
    char *rows = NULL;
    size_t n = 0, before = 0;
    PB_TRY(open_group(&g, all, t->name));
    for (size_t i = 0; i < t->n_columns; i++) {
        PB_GO(pb_h5_get_int_data(g, t->columns[i].name, &v, &n));
        if (!i && !(rows = calloc(n + 1, t->size)))
            PB_GO(no_memory());
        if (i && n != before)
            PB_GO(pb_fail(PB_INPUT, NULL, "serve/%s: columns of %zu and %zu rows", t->name, before,
                          n));
        before = n;
        for (size_t k = 0; k < n; k++)
            memcpy(rows + k * t->size + t->columns[i].at, &v[k], sizeof *v);
        free(v);
        v = NULL;
    }
    memcpy((char *)s + t->rows_at, &rows, sizeof rows);
    memcpy((char *)s + t->n_at, &n, sizeof n);
    rows = NULL;
done:
    free(v);
    free(rows);
    close_group(g);
    return err;
}

// Token times are found by the requests' numbers of steps, so these must add up.
static pb_err check_serving(const pb_serving *s)
{
    size_t steps = 0;
    for (size_t i = 0; i < s->n_requests; i++)
        steps += (size_t)s->request[i].steps;
    return steps == s->n_tokens
               ? PB_OK
               : pb_fail(PB_INPUT, NULL, "%zu token times for %zu steps", s->n_tokens, steps);
}

static pb_err read_serving(pb_record *r, hid_t f)
{
    hid_t g;
    PB_TRY(open_group(&g, f, "serve"));
    if (g < 0)
        return PB_OK;
    pb_err err = PB_OK;
    r->serving = calloc(1, sizeof *r->serving);
    if (!r->serving)
        PB_GO(no_memory());
    PB_GO(json_group(f, "serve", &r->serving->about));
    for (size_t k = 0; k < PB_SERVING_TABLES; k++)
        PB_GO(read_columns(r->serving, g, &pb_serving_tables[k]));
    err = check_serving(r->serving);
done:
    close_group(g);
    return err;
}

static pb_err read_record(pb_record *r, const char *path)
{
    pb_h5 file;
    PB_TRY(pb_h5_open(&file, path, PB_RUN_SCHEMA, PB_RUN_SCHEMA_VERSION));
    pb_err err = PB_OK;
    hid_t f = file.file;
    const struct {
        const char *name;
        char **to;
    } texts[] = {{"run_id", &r->run_id},   {"status", &r->status},
                 {"message", &r->message}, {"created", &r->created},
                 {"version", &r->version}, {"commit", &r->commit},
                 {"dirty", &r->dirty},     {"config_sha256", &r->config_sha256}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        PB_GO(text_attribute(f, texts[i].name, texts[i].to));
    r->seconds = NAN;
    PB_GO(pb_h5_get_real(f, "seconds", &r->seconds));
    PB_GO(json_group(f, "config", &r->config));
    PB_GO(json_group(f, "env", &r->env));
    PB_GO(json_group(f, "seeds", &r->seeds));
    r->model = config_text(r->config, "model");
    r->task = config_text(r->config, "task");
    r->method = config_text(r->config, "method");
    r->kind = config_text(r->config, "kind");
    r->budget = config_number(r->config, "budget");
    r->model_params = config_number(r->config, "model_params");
    r->seed = -1;
    if (json_is_integer(json_object_get(r->config, "seed")))
        r->seed = json_integer_value(json_object_get(r->config, "seed"));
    PB_GO(read_params(r, f));
    PB_GO(read_curve(&r->train, f, "train"));
    PB_GO(read_curve(&r->valid, f, "train/valid"));
    PB_GO(read_evals(r, f));
    PB_GO(read_scenarios(r, f, "latency"));
    PB_GO(read_serving(r, f));
done:
    pb_h5_close(&file);
    return err;
}

static void free_curve(pb_curve *c)
{
    free(c->step);
    free(c->loss);
    free(c->lr);
    free(c->score);
}

static void free_record(pb_record *r)
{
    char *const texts[] = {r->path,    r->run_id, r->status, r->message,       r->created,
                           r->version, r->commit, r->dirty,  r->config_sha256, r->knob};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    json_decref(r->config);
    json_decref(r->env);
    json_decref(r->seeds);
    for (size_t i = 0; i < r->n_evals; i++) {
        pb_evaluation *e = &r->evals[i];
        for (size_t k = 0; k < e->n_metrics; k++)
            free(e->metrics[k].name);
        for (size_t k = 0; k < e->n_arrays; k++) {
            free(e->arrays[k].name);
            free(e->arrays[k].v);
        }
        free(e->metrics);
        free(e->arrays);
        free(e->task);
        free(e->split);
        free(e->headline);
    }
    for (size_t i = 0; i < r->n_scenarios; i++) {
        pb_scenario *s = &r->scenarios[i];
        free(s->name);
        free(s->method);
        free(s->phase);
        free(s->sharing);
        free(s->samples_ns);
    }
    free(r->evals);
    free(r->scenarios);
    pb_serving_free(r->serving);
    free_curve(&r->train);
    free_curve(&r->valid);
}

pb_err pb_records_load(pb_records *out, const char *const *paths, size_t n)
{
    *out = (pb_records){0};
    pb_paths files;
    PB_TRY(pb_run_files(&files, paths, n));
    pb_err err = PB_OK;
    out->v = calloc(files.n, sizeof *out->v);
    if (!out->v)
        PB_GO(no_memory());
    for (size_t i = 0; i < files.n; i++) {
        pb_record *r = &out->v[out->n++];
        r->path = files.v[i];
        files.v[i] = NULL;
        err = read_record(r, r->path);
        if (err)
            break;
    }
done:
    pb_paths_free(&files);
    if (err)
        pb_records_free(out);
    return err;
}

void pb_records_free(pb_records *r)
{
    for (size_t i = 0; i < r->n; i++)
        free_record(&r->v[i]);
    free(r->v);
    *r = (pb_records){0};
}

bool pb_record_is(const pb_record *r, const char *status)
{
    return !strcmp(r->status, status);
}

const pb_evaluation *pb_record_eval(const pb_record *r, const char *task, const char *split)
{
    for (size_t i = 0; i < r->n_evals; i++)
        if (!strcmp(r->evals[i].task, task) && !strcmp(r->evals[i].split, split))
            return &r->evals[i];
    return NULL;
}

double pb_eval_metric(const pb_evaluation *e, const char *name)
{
    for (size_t i = 0; i < e->n_metrics; i++)
        if (!strcmp(e->metrics[i].name, name))
            return e->metrics[i].value;
    return NAN;
}

const pb_array *pb_eval_array(const pb_evaluation *e, const char *name)
{
    for (size_t i = 0; i < e->n_arrays; i++)
        if (!strcmp(e->arrays[i].name, name))
            return &e->arrays[i];
    return NULL;
}
