// What the results need of HDF5, for this folder alone.
//
// Files are made and read as images in memory (the "core" driver), so the library itself does no
// input or output: a full disk, a locked network file or a damaged file is met by our own code. The
// first 512 bytes (the user block, which every HDF5 reader skips) hold the schema's name and
// version and the SHA-256 of everything behind them; HDF5 never sees a byte of a file whose hash is
// wrong.
#ifndef PB_RESULTS_H5_H
#define PB_RESULTS_H5_H

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include <hdf5.h>

typedef struct pb_h5 {
    hid_t file;
    pb_file map;
} pb_h5;

// A new file in memory; pb_h5_save writes it to path.tmp, verifies that, and renames it.
pb_err pb_h5_new(hid_t *file);
pb_err pb_h5_save(hid_t file, const char *path, const char *schema, int version);

// Opens a file after its user block was checked.
pb_err pb_h5_open(pb_h5 *f, const char *path, const char *schema, int version);
void pb_h5_close(pb_h5 *f);
// Reads every dataset once.
pb_err pb_h5_read_all(const pb_h5 *f, const char *path);
// The schema's name, "" for a file that is not ours.
void pb_h5_schema(char out[32], const char *path);

// Creates (or opens) a group and those above it.
pb_err pb_h5_group(hid_t *out, hid_t loc, const char *path);

pb_err pb_h5_put_str(hid_t loc, const char *name, const char *value);
pb_err pb_h5_put_int(hid_t loc, const char *name, int64_t value);
pb_err pb_h5_put_real(hid_t loc, const char *name, double value);
pb_err pb_h5_put_bool(hid_t loc, const char *name, bool value);
// A JSON value as an attribute (null: NaN when `null_is_nan`, else left out); an object as
// attributes of loc, its objects as subgroups.
pb_err pb_h5_put_json(hid_t loc, const char *name, const json_t *value, bool null_is_nan);
pb_err pb_h5_put_object(hid_t loc, const json_t *object, bool null_is_nan);

// A dataset with its unit. *out (may be NULL) receives it open.
pb_err pb_h5_data_real(hid_t *out, hid_t loc, const char *name, const double *v, size_t rows,
                       size_t cols, const char *units); // cols 0: one dimension
pb_err pb_h5_data_int(hid_t *out, hid_t loc, const char *name, const int64_t *v, size_t n,
                      const char *units);
pb_err pb_h5_data_str(hid_t loc, const char *name, const char *const *v, size_t n);

// Readers. Strings are allocated. An absent attribute leaves *out as it was.
bool pb_h5_has(hid_t loc, const char *path);
pb_err pb_h5_get_str(hid_t loc, const char *name, char **out);
pb_err pb_h5_get_real(hid_t loc, const char *name, double *out);
pb_err pb_h5_get_bool(hid_t loc, const char *name, bool *out);
// The names of a group's links or of its attributes, sorted by name.
typedef struct pb_h5_names {
    char **v;
    size_t n;
} pb_h5_names;
pb_err pb_h5_links(pb_h5_names *out, hid_t group);
pb_err pb_h5_attributes(pb_h5_names *out, hid_t object);
void pb_h5_names_free(pb_h5_names *names);
pb_err pb_h5_get_real_data(hid_t loc, const char *name, double **out, size_t *rows, size_t *cols);
pb_err pb_h5_get_int_data(hid_t loc, const char *name, int64_t **out, size_t *n);

// Records a failure with HDF5's own words.
pb_err pb_h5_fail(const char *what, const char *name);

#endif
