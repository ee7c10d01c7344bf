// JSON: the one place that knows the library (jansson). Typed getters that name the key on failure.
//
// Objects reject duplicate keys. All getters take an optional default: when the key is absent and a
// default is given, the default is stored; when the key is absent and `required`, an error names
// it.
#ifndef PB_CORE_JSON_H
#define PB_CORE_JSON_H

#include "core/error.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

// Parses a file; `what` names it in errors. *out is released with json_decref.
pb_err pb_json_load(json_t **out, const char *path);
pb_err pb_json_parse(json_t **out, const char *text, size_t len, const char *what);

// Writes pretty-printed JSON to a temporary name and renames it.
pb_err pb_json_save(const json_t *j, const char *path);

pb_err pb_json_int(const json_t *obj, const char *key, int64_t *out, int64_t min, int64_t max);
pb_err pb_json_real(const json_t *obj, const char *key, double *out, double min, double max);
pb_err pb_json_bool(const json_t *obj, const char *key, bool *out);
pb_err pb_json_str(const json_t *obj, const char *key, const char **out); // borrowed
// Like the above, but an absent key (or null) leaves *out as it was.
pb_err pb_json_opt_int(const json_t *obj, const char *key, int64_t *out, int64_t min, int64_t max);
pb_err pb_json_opt_real(const json_t *obj, const char *key, double *out, double min, double max);
pb_err pb_json_opt_bool(const json_t *obj, const char *key, bool *out);
pb_err pb_json_opt_str(const json_t *obj, const char *key, const char **out);

// Fails when `obj` has a key that is not in the NULL-terminated list.
pb_err pb_json_only(const json_t *obj, const char *const *known, const char *what);

#pragma GCC visibility pop

#endif
