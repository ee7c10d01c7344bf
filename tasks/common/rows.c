#include "tasks/common/rows.h"

#include "core/file.h"

#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- CSV

pb_err pb_csv_open(pb_csv *c, const void *text, size_t size)
{
    // A field is no longer in memory than in the file, except for its terminator, which takes the
    // place of the comma or line break; the last one may have none.
    *c = (pb_csv){.p = text, .end = (const char *)text + size, .line = 1, .next_line = 1};
    c->text = malloc(size + 1);
    return c->text ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a file of %zu bytes", size);
}

void pb_csv_close(pb_csv *c)
{
    free(c->text);
    free(c->field);
    free(c->len);
    *c = (pb_csv){0};
}

static pb_err start_field(pb_csv *c, char *at)
{
    if (c->n_fields == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        char **field = realloc(c->field, cap * sizeof *field);
        c->field = field ? field : c->field;
        size_t *len = realloc(c->len, cap * sizeof *len);
        c->len = len ? len : c->len;
        if (!field || !len)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu fields", cap);
        c->cap = cap;
    }
    c->field[c->n_fields++] = at;
    return PB_OK;
}

static pb_err quoted(pb_csv *c, char **out)
{
    for (c->p++; c->p < c->end; c->p++) {
        if (*c->p == '"' && (c->p + 1 == c->end || c->p[1] != '"')) {
            c->p++;
            return PB_OK;
        }
        c->p += *c->p == '"';
        c->next_line += *c->p == '\n';
        *(*out)++ = *c->p;
    }
    return pb_fail(PB_INPUT, "the file may have been cut", "a quoted field is never closed");
}

static pb_err plain(pb_csv *c, char **out)
{
    for (; c->p < c->end && *c->p != ',' && *c->p != '\n'; c->p++) {
        if (*c->p == '"')
            return pb_fail(PB_INPUT, "quote the field and double the mark",
                           "a quotation mark inside an unquoted field");
        *(*out)++ = *c->p;
    }
    return PB_OK;
}

pb_err pb_csv_next(pb_csv *c, bool *more)
{
    char *out = c->text;
    *more = c->p < c->end;
    c->n_fields = 0;
    c->line = c->next_line;
    for (bool open = *more; open;) {
        char *start = out;
        bool quotes = c->p < c->end && *c->p == '"';
        PB_TRY(start_field(c, start));
        PB_TRY(quotes ? quoted(c, &out) : plain(c, &out));
        if (!quotes && (c->p == c->end || *c->p == '\n')) // of a line that ends as on Windows
            while (out > start && out[-1] == '\r')
                out--;
        while (c->p < c->end && *c->p == '\r')
            c->p++;
        open = c->p < c->end && *c->p == ',';
        if (c->p < c->end && !open && *c->p != '\n')
            return pb_fail(PB_INPUT, NULL, "text follows a closing quotation mark");
        c->next_line += c->p < c->end && *c->p == '\n';
        c->p += c->p < c->end;
        c->len[c->n_fields - 1] = (size_t)(out - start);
        *out++ = 0;
    }
    return PB_OK;
}

// ---------------------------------------------------------------- rows

typedef struct reader {
    const pb_rows_format *format;
    pb_rows_to to;
    void *self;
    const char *what; // of `at`: "line" or "row"
    size_t at;
    json_t *columns; // of csv and tsv
} reader;

static bool is_blank(const char *p, size_t n)
{
    while (n && strchr(" \t\r\v\f", p[n - 1]) && p[n - 1])
        n--;
    return !n;
}

static pb_err text(json_t **out, const char *p, size_t n)
{
    // jansson takes well-formed UTF-8 only.
    *out = memchr(p, 0, n) ? NULL : json_stringn(p, n);
    return *out ? PB_OK : pb_fail(PB_INPUT, NULL, "a field is not UTF-8 text");
}

static pb_err set_columns(reader *r, char *const *field, const size_t *len, size_t n)
{
    r->columns = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *name;
        PB_TRY(text(&name, field[i], len[i]));
        for (size_t j = 0; j < i; j++)
            if (json_equal(json_array_get(r->columns, j), name)) {
                json_decref(name);
                return pb_fail(PB_INPUT, NULL, "two columns are called \"%s\"", field[i]);
            }
        json_array_append_new(r->columns, name);
    }
    return PB_OK;
}

static pb_err put_fields(reader *r, char *const *field, const size_t *len, size_t n)
{
    if (!r->columns)
        return set_columns(r, field, len, n);
    size_t want = json_array_size(r->columns);
    if (n != want)
        return pb_fail(PB_INPUT, NULL, "%zu fields, but there are %zu columns", n, want);
    json_t *row = json_object(), *value;
    pb_err err = PB_OK;
    for (size_t i = 0; i < n && !err; i++) {
        err = text(&value, field[i], len[i]);
        if (!err)
            json_object_set_new(row, json_string_value(json_array_get(r->columns, i)), value);
    }
    if (!err)
        err = r->to(r->self, row);
    json_decref(row);
    return err;
}

static pb_err read_csv(reader *r, const char *p, size_t size)
{
    pb_csv c;
    bool more = true;
    pb_err err = pb_csv_open(&c, p, size);
    while (!err && more) {
        err = pb_csv_next(&c, &more);
        r->at = c.line;
        if (!err && more && !(c.n_fields == 1 && is_blank(c.field[0], c.len[0])))
            err = put_fields(r, c.field, c.len, c.n_fields);
    }
    pb_csv_close(&c);
    return err;
}

// `line` is a copy and ends with a zero.
static pb_err put_tabbed(reader *r, char *line, size_t n)
{
    enum { MOST = 256 };
    char *field[MOST];
    size_t len[MOST], k = 0;
    for (char *end = line + n, *tab; line <= end; line = tab + 1) {
        if (k == MOST)
            return pb_fail(PB_INPUT, NULL, "more than %d fields", MOST);
        tab = memchr(line, '\t', (size_t)(end - line));
        tab = tab ? tab : end;
        field[k] = line;
        len[k++] = (size_t)(tab - line);
        *tab = 0;
    }
    return put_fields(r, field, len, k);
}

static pb_err put_json(reader *r, char *line, size_t n)
{
    json_t *row;
    PB_TRY(pb_json_parse(&row, line, n, "JSON"));
    pb_err err = json_is_object(row) ? r->to(r->self, row)
                                     : pb_fail(PB_INPUT, NULL, "the line is not a JSON object");
    json_decref(row);
    return err;
}

static pb_err read_lines(reader *r, const char *p, size_t size,
                         pb_err (*put)(reader *, char *, size_t))
{
    char *line = malloc(size + 1);
    if (!line)
        return pb_fail(PB_MEMORY, NULL, "no memory for a file of %zu bytes", size);
    pb_err err = PB_OK;
    for (const char *end = p + size; p < end && !err;) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((eol ? eol : end) - p);
        memcpy(line, p, n);
        p += n + (eol != NULL);
        while (n && line[n - 1] == '\r')
            n--;
        line[n] = 0;
        r->at++;
        if (!is_blank(line, n))
            err = put(r, line, n);
    }
    free(line);
    return err;
}

static bool is_single(const json_t *v)
{
    return json_is_string(v) || json_is_number(v) || json_is_boolean(v);
}

// The rows below v. `around` has the values of the objects that v is in.
static pb_err descend(reader *r, const json_t *v, const char *path, const json_t *around)
{
    size_t i;
    json_t *one;
    const char *key;
    if (json_is_array(v)) {
        json_array_foreach(v, i, one) PB_TRY(descend(r, one, path, around));
        return PB_OK;
    }
    if (!*path)
        r->at++;
    if (!json_is_object(v))
        return pb_fail(PB_INPUT, "the way to the rows is \"rows\" in the description",
                       "an object was expected in front of \"%s\"", path);
    json_t *row = json_copy((json_t *)around);
    pb_err err = PB_OK;
    json_object_foreach((json_t *)v, key, one) if (!*path || is_single(one))
        json_object_set(row, key, one);
    if (*path) {
        size_t n = strcspn(path, ".");
        char step[64];
        one = pb_path(step, sizeof step, "%.*s", (int)n, path) ? NULL : json_object_get(v, step);
        err = one ? descend(r, one, path + n + (path[n] == '.'), row)
                  : pb_fail(PB_INPUT, "the way to the rows is \"rows\" in the description",
                            "there is no \"%.*s\"", (int)n, path);
    } else {
        err = r->to(r->self, row);
    }
    json_decref(row);
    return err;
}

static pb_err read_json(reader *r, const char *p, size_t size)
{
    json_t *all = NULL, *nothing = json_object();
    const char *rows = r->format->path ? r->format->path : "";
    pb_err err = pb_json_parse(&all, p, size, "JSON");
    if (!err && !*rows && !json_is_array(all))
        err = pb_fail(PB_INPUT, "say with \"rows\" where the rows are", "there is no array");
    else if (!err)
        err = descend(r, all, rows, nothing);
    json_decref(all);
    json_decref(nothing);
    return err;
}

static pb_err read_as(reader *r, const char *name, const char *p, size_t size)
{
    if (size >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) // a mark of UTF-8
        p += 3, size -= 3;
    r->what = strcmp(name, "json") ? "line" : "row";
    if (!strcmp(name, "csv"))
        return read_csv(r, p, size);
    if (!strcmp(name, "tsv"))
        return read_lines(r, p, size, put_tabbed);
    if (!strcmp(name, "jsonl"))
        return read_lines(r, p, size, put_json);
    if (!strcmp(name, "json"))
        return read_json(r, p, size);
    return pb_fail(PB_INPUT, "known are jsonl, json, csv and tsv; say which with \"format\"",
                   "the format \"%s\" is unknown", name);
}

pb_err pb_rows_read(const char *path, const pb_rows_format *format, pb_rows_to to, void *self)
{
    pb_file f;
    reader r = {.format = format, .to = to, .self = self};
    const char *dot = strrchr(path, '.'), *name = format->name ? format->name : dot ? dot + 1 : "";
    PB_TRY(pb_file_map(&f, path));
    r.columns = json_incref((json_t *)format->columns);
    pb_err err = read_as(&r, name, (const char *)f.data, f.size);
    json_decref(r.columns);
    pb_file_unmap(&f);
    if (!err)
        return PB_OK;
    return r.at ? pb_context(err, "%s, %s %zu", path, r.what, r.at) : pb_context(err, "%s", path);
}
