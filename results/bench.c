#include "results/bench.h"

#include "results/h5.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] = "pedrobench-bench";
enum { VERSION = 1 };

static int copy_text(json_t *to, const json_t *from, const char *key)
{
    json_t *v = json_object_get(from, key);
    return v ? json_object_set(to, key, v) : 0;
}

static pb_err put_arm(hid_t at, const json_t *work, const json_t *arm)
{
    pb_err err = PB_OK;
    const json_t *seconds = json_object_get(arm, "seconds");
    size_t n = json_array_size(seconds);
    double *v = malloc((n + 1) * sizeof *v);
    json_t *attributes = json_copy((json_t *)arm);
    if (!v || !attributes || json_object_del(attributes, "seconds") ||
        json_object_set(attributes, "work", json_object_get(work, "work")) ||
        json_object_set(attributes, "tokens", json_object_get(work, "tokens")) ||
        copy_text(attributes, work, "axis") || copy_text(attributes, work, "axis_label")) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu samples", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        v[i] = json_number_value(json_array_get(seconds, i));
    PB_GO(pb_h5_put_object(at, attributes, true));
    PB_GO(pb_h5_data_real(NULL, at, "seconds", v, n, 0, "s"));
done:
    json_decref(attributes);
    free(v);
    return err;
}

pb_err pb_bench_save(const json_t *works, const json_t *env, const char *path)
{
    pb_err err = PB_OK;
    hid_t file, at;
    size_t i, k;
    json_t *work, *arm;
    PB_TRY(pb_h5_new(&file));
    PB_GO(pb_h5_put_str(file, "schema", schema));
    PB_GO(pb_h5_put_int(file, "schema_version", VERSION));
    PB_GO(pb_h5_group(&at, file, "env"));
    err = pb_h5_put_object(at, env, true);
    H5Gclose(at);
    PB_GO(err);
    json_array_foreach((json_t *)works, i, work)
    {
        json_array_foreach(json_object_get(work, "arms"), k, arm)
        {
            char name[64];
            snprintf(name, sizeof name, "work/%03zu/%03zu", i, k);
            PB_GO(pb_h5_group(&at, file, name));
            err = put_arm(at, work, arm);
            H5Gclose(at);
            PB_GO(err);
        }
    }
    PB_GO(pb_h5_save(file, path, schema, VERSION));
done:
    H5Fclose(file);
    return err;
}

bool pb_bench_is(const char *path)
{
    char name[32];
    pb_h5_schema(name, path);
    return !strcmp(name, schema);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static pb_err get_arm(json_t *arms, hid_t at)
{
    static const struct {
        const char *name, *as;
        double scale;
    } numbers[] = {
        {"median_seconds", "median_ms", 1e3},
        {"lower_quartile", "lower_ms", 1e3},
        {"upper_quartile", "upper_ms", 1e3},
        {"fraction_of_limit", "fraction_of_limit", 1},
        {"memory_bytes", "memory_bytes", 1},
        {"x", "x", 1},
        {"flops", "flops", 1},
        {"bytes", "bytes", 1},
    };
    static const struct {
        const char *name, *as;
    } texts[] = {
        {"work", "work"},   {"name", "arm"}, {"axis", "axis"}, {"axis_label", "axis_label"},
        {"curve", "curve"},
    };
    pb_err err = PB_OK;
    char *text = NULL;
    json_t *o = json_object();
    bool failed = !o;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        PB_GO(pb_h5_get_str(at, texts[i].name, &text));
        failed |= text && json_object_set_new(o, texts[i].as, json_string(text));
        free(text);
        text = NULL;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double v = NAN;
        PB_GO(pb_h5_get_real(at, numbers[i].name, &v));
        failed |= json_object_set_new(o, numbers[i].as, number(numbers[i].scale * v));
    }
    if (failed || json_array_append(arms, o))
        err = pb_fail(PB_MEMORY, NULL, "no memory for a summary");
done:
    json_decref(o);
    free(text);
    return err;
}

static pb_err get_work(json_t *arms, hid_t all, const char *name)
{
    pb_err err = PB_OK;
    pb_h5_names names = {0};
    hid_t work = H5Gopen2(all, name, H5P_DEFAULT);
    PB_GO(work < 0 ? pb_h5_fail("open the group", name) : PB_OK);
    PB_GO(pb_h5_links(&names, work));
    for (size_t i = 0; i < names.n; i++) {
        hid_t at = H5Gopen2(work, names.v[i], H5P_DEFAULT);
        err = at < 0 ? pb_h5_fail("open the group", names.v[i]) : get_arm(arms, at);
        if (at >= 0)
            H5Gclose(at);
        PB_GO(err);
    }
done:
    pb_h5_names_free(&names);
    if (work >= 0)
        H5Gclose(work);
    return err;
}

pb_err pb_bench_load(json_t **out, const char *path)
{
    pb_err err = PB_OK;
    pb_h5 f = {0};
    pb_h5_names works = {0};
    json_t *arms = NULL;
    hid_t all = -1;
    *out = NULL;
    PB_TRY(pb_h5_open(&f, path, schema, VERSION));
    arms = json_array();
    all = H5Gopen2(f.file, "work", H5P_DEFAULT);
    PB_GO(all < 0 ? pb_h5_fail("open the group", "work") : PB_OK);
    PB_GO(pb_h5_links(&works, all));
    for (size_t i = 0; i < works.n; i++)
        PB_GO(get_work(arms, all, works.v[i]));
    *out = json_incref(arms);
done:
    json_decref(arms);
    pb_h5_names_free(&works);
    if (all >= 0)
        H5Gclose(all);
    pb_h5_close(&f);
    return err;
}
