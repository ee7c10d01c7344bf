#include "results/h5.h"

#include "core/hash.h"
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512 };

static herr_t first_words(unsigned n, const H5E_error2_t *e, void *data)
{
    if (n == 0 && e->desc)
        snprintf(data, 160, "%s", e->desc);
    return 0;
}

pb_err pb_h5_fail(const char *what, const char *name)
{
    char words[160] = "no details";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_words, words);
    return pb_fail(PB_INTERNAL, NULL, "HDF5 cannot %s \"%s\": %s", what, name, words);
}

static void be_silent(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static void header(char out[BLOCK], const char *schema, int version, const void *data, size_t size)
{
    char hash[PB_HASH_LEN];
    pb_sha256(hash, data, size);
    memset(out, 0, BLOCK);
    snprintf(out, BLOCK,
             "%s version %d\nsha256 of the bytes after the first %d: %s\nnumber of those bytes: "
             "%zu\n",
             schema, version, BLOCK, hash, size);
}

// The library takes files of one name for one file, and refuses an image under the name of an
// existing one: every image gets a name of its own that cannot exist.
static void image_name(char out[48])
{
    static atomic_uint count;
    snprintf(out, 48, "/dev/null/image-%u", atomic_fetch_add(&count, 1u));
}

static hid_t core_access(void)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    if (fapl >= 0 && H5Pset_fapl_core(fapl, 1 << 20, 0) < 0) {
        H5Pclose(fapl);
        return -1;
    }
    return fapl;
}

pb_err pb_h5_new(hid_t *file)
{
    be_silent();
    *file = -1;
    char name[48];
    image_name(name);
    hid_t fapl = core_access(), fcpl = H5Pcreate(H5P_FILE_CREATE);
    if (fapl >= 0 && fcpl >= 0 && H5Pset_userblock(fcpl, BLOCK) >= 0)
        *file = H5Fcreate(name, H5F_ACC_TRUNC, fcpl, fapl);
    pb_err err = *file < 0 ? pb_h5_fail("create", "a file in memory") : PB_OK;
    H5Pclose(fapl);
    H5Pclose(fcpl);
    return err;
}

static pb_err write_out(const char *path, const char *head, const void *image, size_t size)
{
    FILE *f = fopen(path, "wb");
    bool bad = !f || fwrite(head, 1, BLOCK, f) != BLOCK || fwrite(image, 1, size, f) != size;
    int e = errno;
    if (f && fclose(f) && !bad) {
        bad = true;
        e = errno;
    }
    if (!bad)
        return PB_OK;
    return pb_fail(PB_IO, e == ENOSPC ? "free some disk space; nothing was overwritten" : NULL,
                   "cannot write %s: %s", path, strerror(e));
}

pb_err pb_h5_save(hid_t file, const char *path, const char *schema, int version)
{
    pb_err err = PB_OK;
    char tmp[4096 + 8], head[BLOCK];
    char *image = NULL;
    pb_h5 back = {-1, {0}};
    PB_GO(pb_path(tmp, sizeof tmp, "%s.tmp", path));
    ssize_t size = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(file, NULL, 0);
    if (size > 0 && !(image = malloc((size_t)size)))
        PB_GO(pb_fail(PB_MEMORY, NULL, "%s: no memory for %zd bytes", path, size));
    if (size <= 0 || H5Fget_file_image(file, image, (size_t)size) != size)
        PB_GO(pb_h5_fail("make the image of", path));
    header(head, schema, version, image, (size_t)size);
    err = write_out(tmp, head, image, (size_t)size);
    if (!err)
        err = pb_h5_open(&back, tmp, schema, version);
    if (!err)
        err = pb_h5_read_all(&back, tmp);
    pb_h5_close(&back);
    if (!err)
        err = pb_file_publish(tmp, path);
    if (err)
        unlink(tmp);
done:
    free(image);
    return err;
}

pb_err pb_h5_open(pb_h5 *f, const char *path, const char *schema, int version)
{
    be_silent();
    *f = (pb_h5){-1, {0}};
    pb_err err = PB_OK;
    hid_t fapl = -1;
    PB_GO(pb_file_map(&f->map, path));
    size_t size = f->map.size, n = strlen(schema);
    const char *data = (const char *)f->map.data;
    if (size < BLOCK || strncmp(data, schema, n) || data[n] != ' ')
        PB_GO(pb_fail(PB_INPUT, NULL, "%s is not a %s file", path, schema));
    char head[BLOCK], name[48];
    image_name(name);
    header(head, schema, version, data + BLOCK, size - BLOCK);
    if (memcmp(head, data, strcspn(head, "\n") + 1))
        PB_GO(pb_fail(PB_UNSUPPORTED, "use the version of this program that wrote it",
                      "%s: %.*s, this program reads version %d", path, (int)strnlen(data, 40), data,
                      version));
    if (memcmp(head, data, BLOCK))
        PB_GO(pb_fail(PB_INPUT, "it is damaged, cut off or was edited; run it again",
                      "%s does not match its checksum", path));
    fapl = core_access();
    // The library copies the image, so the mapping stays untouched.
    if (fapl < 0 || H5Pset_file_image(fapl, (void *)f->map.data, size) < 0 ||
        (f->file = H5Fopen(name, H5F_ACC_RDONLY, fapl)) < 0)
        PB_GO(pb_h5_fail("open", path));
done:
    if (fapl >= 0)
        H5Pclose(fapl);
    if (err)
        pb_h5_close(f);
    return err;
}

void pb_h5_close(pb_h5 *f)
{
    if (f->file >= 0)
        H5Fclose(f->file);
    f->file = -1;
    pb_file_unmap(&f->map);
}

void pb_h5_schema(char out[32], const char *path)
{
    out[0] = 0;
    FILE *f = fopen(path, "rb");
    char start[32];
    size_t n = f ? fread(start, 1, sizeof start - 1, f) : 0;
    start[n] = 0;
    if (n > 11 && !memcmp(start, "pedrobench-", 11)) {
        start[strcspn(start, " \n")] = 0;
        strcpy(out, start);
    }
    if (f)
        fclose(f);
}

static herr_t read_one(hid_t root, const char *name, const H5O_info_t *info, void *data)
{
    if (info->type != H5O_TYPE_DATASET)
        return 0;
    herr_t bad = -1;
    hid_t set = H5Dopen2(root, name, H5P_DEFAULT), type = -1, space = -1;
    void *buffer = NULL;
    if (set >= 0) {
        type = H5Dget_type(set);
        space = H5Dget_space(set);
        hssize_t n = H5Sget_simple_extent_npoints(space);
        size_t size = H5Tget_size(type);
        if (n >= 0 && size)
            buffer = calloc((size_t)n + 1, size);
        if (buffer)
            bad = H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer);
        if (buffer && bad >= 0 && H5Tdetect_class(type, H5T_VLEN) > 0)
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, buffer);
        else if (buffer && bad >= 0 && H5Tis_variable_str(type) > 0)
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, buffer);
    }
    free(buffer);
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    if (bad < 0)
        snprintf(data, 256, "%s", name);
    return bad < 0 ? -1 : 0;
}

pb_err pb_h5_read_all(const pb_h5 *f, const char *path)
{
    char name[256] = "/";
    if (H5Ovisit2(f->file, H5_INDEX_NAME, H5_ITER_INC, read_one, name, H5O_INFO_BASIC) < 0)
        return pb_context(pb_h5_fail("read", name), "%s", path);
    return PB_OK;
}

pb_err pb_h5_group(hid_t *out, hid_t loc, const char *path)
{
    hid_t lcpl = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(lcpl, 1);
    H5Pset_char_encoding(lcpl, H5T_CSET_UTF8);
    *out = pb_h5_has(loc, path) ? H5Gopen2(loc, path, H5P_DEFAULT)
                                : H5Gcreate2(loc, path, lcpl, H5P_DEFAULT, H5P_DEFAULT);
    H5Pclose(lcpl);
    return *out < 0 ? pb_h5_fail("create the group", path) : PB_OK;
}

static hid_t string_type(size_t size)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, size);
    H5Tset_cset(t, H5T_CSET_UTF8);
    return t;
}

static hid_t bool_type(void) // the enumeration that h5py reads as a boolean
{
    hid_t t = H5Tenum_create(H5T_STD_I8LE);
    int8_t v = 0;
    H5Tenum_insert(t, "FALSE", &v);
    v = 1;
    H5Tenum_insert(t, "TRUE", &v);
    return t;
}

static pb_err put(hid_t loc, const char *name, hid_t file_type, hid_t mem_type, const void *value,
                  size_t n) // n 0: a scalar
{
    hsize_t dim = n;
    hid_t space = n ? H5Screate_simple(1, &dim, NULL) : H5Screate(H5S_SCALAR);
    hid_t acpl = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    H5Pset_char_encoding(acpl, H5T_CSET_UTF8);
    if (H5Aexists(loc, name) > 0)
        H5Adelete(loc, name);
    hid_t a = H5Acreate2(loc, name, file_type, space, acpl, H5P_DEFAULT);
    bool bad = a < 0 || H5Awrite(a, mem_type, value) < 0;
    pb_err err = bad ? pb_h5_fail("write the attribute", name) : PB_OK;
    if (a >= 0)
        H5Aclose(a);
    H5Pclose(acpl);
    H5Sclose(space);
    return err;
}

pb_err pb_h5_put_str(hid_t loc, const char *name, const char *value)
{
    hid_t t = string_type(H5T_VARIABLE);
    pb_err err = put(loc, name, t, t, &value, 0);
    H5Tclose(t);
    return err;
}

pb_err pb_h5_put_int(hid_t loc, const char *name, int64_t value)
{
    return put(loc, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, 0);
}

pb_err pb_h5_put_real(hid_t loc, const char *name, double value)
{
    return put(loc, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value, 0);
}

pb_err pb_h5_put_bool(hid_t loc, const char *name, bool value)
{
    int8_t v = value;
    hid_t t = bool_type();
    pb_err err = put(loc, name, t, t, &v, 0);
    H5Tclose(t);
    return err;
}

static pb_err put_text_of(hid_t loc, const char *name, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (!text)
        return pb_fail(PB_MEMORY, NULL, "cannot format \"%s\" as JSON", name);
    pb_err err = pb_h5_put_str(loc, name, text);
    free(text);
    return err;
}

static pb_err put_array(hid_t loc, const char *name, const json_t *v)
{
    size_t n = json_array_size(v), ints = 0, numbers = 0, strings = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(v, i);
        ints += json_is_integer(e);
        numbers += json_is_number(e);
        strings += json_is_string(e);
    }
    // An attribute may hold 64 KiB; what is long, mixed or nested is kept as JSON text.
    if (n == 0 || n > 4000 || (numbers < n && strings < n))
        return put_text_of(loc, name, v);
    void *buffer = malloc(n * 8);
    if (!buffer)
        return pb_fail(PB_MEMORY, NULL, "no memory for the attribute \"%s\"", name);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(v, i);
        if (ints == n)
            ((int64_t *)buffer)[i] = json_integer_value(e);
        else if (numbers == n)
            ((double *)buffer)[i] = json_number_value(e);
        else
            ((const char **)buffer)[i] = json_string_value(e);
    }
    hid_t t = string_type(H5T_VARIABLE);
    pb_err err = ints == n      ? put(loc, name, H5T_STD_I64LE, H5T_NATIVE_INT64, buffer, n)
                 : numbers == n ? put(loc, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, buffer, n)
                                : put(loc, name, t, t, buffer, n);
    H5Tclose(t);
    free(buffer);
    return err;
}

pb_err pb_h5_put_json(hid_t loc, const char *name, const json_t *v, bool null_is_nan)
{
    if (!*name)
        return PB_OK; // HDF5 has no empty names; the JSON text beside it is complete
    switch (json_typeof(v)) {
    case JSON_STRING:
        return pb_h5_put_str(loc, name, json_string_value(v));
    case JSON_INTEGER:
        return pb_h5_put_int(loc, name, json_integer_value(v));
    case JSON_REAL:
        return pb_h5_put_real(loc, name, json_real_value(v));
    case JSON_TRUE:
    case JSON_FALSE:
        return pb_h5_put_bool(loc, name, json_is_true(v));
    case JSON_ARRAY:
        return put_array(loc, name, v);
    case JSON_OBJECT: {
        if (strchr(name, '/') || !strcmp(name, "."))
            return put_text_of(loc, name, v);
        hid_t g;
        PB_TRY(pb_h5_group(&g, loc, name));
        pb_err err = pb_h5_put_object(g, v, null_is_nan);
        H5Gclose(g);
        return err;
    }
    case JSON_NULL:
        break;
    }
    return null_is_nan ? pb_h5_put_real(loc, name, NAN) : PB_OK;
}

pb_err pb_h5_put_object(hid_t loc, const json_t *object, bool null_is_nan)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
        PB_TRY(pb_h5_put_json(loc, key, value, null_is_nan));
    return PB_OK;
}

static pb_err data(hid_t *out, hid_t loc, const char *name, hid_t file_type, hid_t mem_type,
                   const void *v, size_t rows, size_t cols, const char *units)
{
    hsize_t dims[2] = {rows, cols};
    hid_t space = H5Screate_simple(cols ? 2 : 1, dims, NULL);
    hid_t lcpl = H5Pcreate(H5P_LINK_CREATE), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_char_encoding(lcpl, H5T_CSET_UTF8);
    H5Pset_obj_track_times(dcpl, false); // the same journal gives the same bytes
    hid_t set = H5Dcreate2(loc, name, file_type, space, lcpl, dcpl, H5P_DEFAULT);
    bool bad = set < 0 || (rows && H5Dwrite(set, mem_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) < 0);
    pb_err err = bad ? pb_h5_fail("write the dataset", name) : PB_OK;
    if (!err)
        err = pb_h5_put_str(set, "units", units);
    if (set >= 0 && (err || !out))
        H5Dclose(set);
    else if (out)
        *out = set;
    H5Pclose(dcpl);
    H5Pclose(lcpl);
    H5Sclose(space);
    return err;
}

pb_err pb_h5_data_real(hid_t *out, hid_t loc, const char *name, const double *v, size_t rows,
                       size_t cols, const char *units)
{
    return data(out, loc, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, v, rows, cols, units);
}

pb_err pb_h5_data_int(hid_t *out, hid_t loc, const char *name, const int64_t *v, size_t n,
                      const char *units)
{
    return data(out, loc, name, H5T_STD_I64LE, H5T_NATIVE_INT64, v, n, 0, units);
}

pb_err pb_h5_data_str(hid_t loc, const char *name, const char *const *v, size_t n)
{
    hid_t t = string_type(H5T_VARIABLE);
    pb_err err = data(NULL, loc, name, t, t, v, n, 0, "text");
    H5Tclose(t);
    return err;
}

bool pb_h5_has(hid_t loc, const char *path)
{
    // H5Lexists fails, rather than saying no, when a group on the way is missing.
    char part[1024];
    for (const char *s = path;; s++) {
        if (*s && *s != '/')
            continue;
        if (s > path) {
            if ((size_t)(s - path) >= sizeof part)
                return false;
            memcpy(part, path, (size_t)(s - path));
            part[s - path] = 0;
            if (H5Lexists(loc, part, H5P_DEFAULT) <= 0)
                return false;
        }
        if (!*s)
            return true;
    }
}

pb_err pb_h5_get_str(hid_t loc, const char *name, char **out)
{
    if (H5Aexists(loc, name) <= 0)
        return PB_OK;
    char *text = NULL;
    hid_t a = H5Aopen(loc, name, H5P_DEFAULT), t = string_type(H5T_VARIABLE);
    pb_err err = PB_OK;
    if (a < 0 || H5Aread(a, t, &text) < 0)
        PB_GO(pb_h5_fail("read the attribute", name));
    char *copy = strdup(text ? text : "");
    if (!copy)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the attribute \"%s\"", name));
    free(*out);
    *out = copy;
done:
    if (text)
        H5free_memory(text);
    H5Tclose(t);
    if (a >= 0)
        H5Aclose(a);
    return err;
}

pb_err pb_h5_get_real(hid_t loc, const char *name, double *out)
{
    if (H5Aexists(loc, name) <= 0)
        return PB_OK;
    hid_t a = H5Aopen(loc, name, H5P_DEFAULT);
    bool bad = a < 0 || H5Aread(a, H5T_NATIVE_DOUBLE, out) < 0;
    if (a >= 0)
        H5Aclose(a);
    return bad ? pb_h5_fail("read the attribute", name) : PB_OK;
}

pb_err pb_h5_get_bool(hid_t loc, const char *name, bool *out)
{
    if (H5Aexists(loc, name) <= 0)
        return PB_OK;
    int8_t v = 0;
    hid_t a = H5Aopen(loc, name, H5P_DEFAULT), t = bool_type();
    bool bad = a < 0 || H5Aread(a, t, &v) < 0;
    H5Tclose(t);
    if (a >= 0)
        H5Aclose(a);
    *out = v != 0;
    return bad ? pb_h5_fail("read the attribute", name) : PB_OK;
}

void pb_h5_names_free(pb_h5_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
    *names = (pb_h5_names){0};
}

static pb_err add_name(pb_h5_names *names, const char *name)
{
    char **v = realloc(names->v, (names->n + 1) * sizeof *v);
    if (v)
        names->v = v;
    if (!v || !(v[names->n] = strdup(name)))
        return pb_fail(PB_MEMORY, NULL, "no memory for names");
    names->n++;
    return PB_OK;
}

static herr_t on_link(hid_t g, const char *name, const H5L_info_t *info, void *data)
{
    (void)g, (void)info;
    return add_name(data, name) ? -1 : 0;
}

static herr_t on_attribute(hid_t o, const char *name, const H5A_info_t *info, void *data)
{
    (void)o, (void)info;
    return add_name(data, name) ? -1 : 0;
}

pb_err pb_h5_links(pb_h5_names *out, hid_t group)
{
    *out = (pb_h5_names){0};
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, on_link, out) >= 0)
        return PB_OK;
    pb_h5_names_free(out);
    return pb_h5_fail("list", "a group");
}

pb_err pb_h5_attributes(pb_h5_names *out, hid_t object)
{
    *out = (pb_h5_names){0};
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, NULL, on_attribute, out) >= 0)
        return PB_OK;
    pb_h5_names_free(out);
    return pb_h5_fail("list", "attributes");
}

static pb_err get(hid_t loc, const char *name, hid_t type, void **out, size_t *rows, size_t *cols)
{
    *out = NULL;
    *rows = *cols = 0;
    pb_err err = PB_OK;
    hsize_t dims[2] = {0, 1};
    hid_t set = H5Dopen2(loc, name, H5P_DEFAULT), space = set < 0 ? -1 : H5Dget_space(set);
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (rank < 1 || rank > 2 || H5Sget_simple_extent_dims(space, dims, NULL) < 0)
        PB_GO(pb_h5_fail("read the shape of", name));
    void *v = malloc((size_t)(dims[0] * dims[1]) * 8 + 8);
    if (!v)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the dataset \"%s\"", name));
    if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) < 0) {
        free(v);
        PB_GO(pb_h5_fail("read the dataset", name));
    }
    *out = v;
    *rows = (size_t)dims[0];
    *cols = (size_t)dims[1];
done:
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    return err;
}

pb_err pb_h5_get_real_data(hid_t loc, const char *name, double **out, size_t *rows, size_t *cols)
{
    return get(loc, name, H5T_NATIVE_DOUBLE, (void **)out, rows, cols);
}

pb_err pb_h5_get_int_data(hid_t loc, const char *name, int64_t **out, size_t *n)
{
    size_t cols;
    return get(loc, name, H5T_NATIVE_INT64, (void **)out, n, &cols);
}
