#include "core/json.h"

#include "core/file.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pb_err pb_json_parse(json_t **out, const char *text, size_t len, const char *what)
{
    json_error_t e;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (!*out)
        return pb_fail(PB_INPUT, NULL, "%s: line %d, column %d: %s", what, e.line, e.column,
                       e.text);
    return PB_OK;
}

pb_err pb_json_load(json_t **out, const char *path)
{
    pb_file f = {0};
    PB_TRY(pb_file_map(&f, path));
    pb_err err = pb_json_parse(out, (const char *)f.data, f.size, path);
    pb_file_unmap(&f);
    return err;
}

pb_err pb_json_save(const json_t *j, const char *path)
{
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!text)
        return pb_fail(PB_MEMORY, NULL, "%s: cannot format JSON", path);
    pb_err err = pb_file_write(path, text, strlen(text));
    free(text);
    return err;
}

static const json_t *get(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v) ? v : NULL;
}

static pb_err missing(const char *key)
{
    return pb_fail(PB_INPUT, NULL, "the key \"%s\" is missing", key);
}

pb_err pb_json_opt_int(const json_t *obj, const char *key, int64_t *out, int64_t min, int64_t max)
{
    const json_t *v = get(obj, key);
    if (!v)
        return PB_OK;
    if (!json_is_integer(v))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be an integer", key);
    int64_t x = json_integer_value(v);
    if (x < min || x > max)
        return pb_fail(PB_INPUT, NULL, "\"%s\" is %lld, outside %lld..%lld", key, (long long)x,
                       (long long)min, (long long)max);
    *out = x;
    return PB_OK;
}

pb_err pb_json_opt_real(const json_t *obj, const char *key, double *out, double min, double max)
{
    const json_t *v = get(obj, key);
    if (!v)
        return PB_OK;
    if (!json_is_number(v))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be a number", key);
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return pb_fail(PB_INPUT, NULL, "\"%s\" is %g, outside %g..%g", key, x, min, max);
    *out = x;
    return PB_OK;
}

pb_err pb_json_opt_bool(const json_t *obj, const char *key, bool *out)
{
    const json_t *v = get(obj, key);
    if (!v)
        return PB_OK;
    if (!json_is_boolean(v))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be true or false", key);
    *out = json_is_true(v);
    return PB_OK;
}

pb_err pb_json_opt_str(const json_t *obj, const char *key, const char **out)
{
    const json_t *v = get(obj, key);
    if (!v)
        return PB_OK;
    if (!json_is_string(v))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be a string", key);
    *out = json_string_value(v);
    return PB_OK;
}

pb_err pb_json_int(const json_t *obj, const char *key, int64_t *out, int64_t min, int64_t max)
{
    return get(obj, key) ? pb_json_opt_int(obj, key, out, min, max) : missing(key);
}

pb_err pb_json_real(const json_t *obj, const char *key, double *out, double min, double max)
{
    return get(obj, key) ? pb_json_opt_real(obj, key, out, min, max) : missing(key);
}

pb_err pb_json_bool(const json_t *obj, const char *key, bool *out)
{
    return get(obj, key) ? pb_json_opt_bool(obj, key, out) : missing(key);
}

pb_err pb_json_str(const json_t *obj, const char *key, const char **out)
{
    return get(obj, key) ? pb_json_opt_str(obj, key, out) : missing(key);
}

pb_err pb_json_only(const json_t *obj, const char *const *known, const char *what)
{
    if (!json_is_object(obj))
        return pb_fail(PB_INPUT, NULL, "%s must be a JSON object", what);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)obj, key, value)
    {
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = strcmp(known[i], key) == 0;
        if (found)
            continue;
        char hint[400] = "known are ";
        for (size_t i = 0; known[i] && strlen(hint) + strlen(known[i]) + 3 < sizeof hint; i++)
            sprintf(hint + strlen(hint), "%s%s", i ? ", " : "", known[i]);
        return pb_fail(PB_INPUT, hint, "%s has an unknown key \"%s\"", what, key);
    }
    return PB_OK;
}
