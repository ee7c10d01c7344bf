#include "tasks/common/records.h"

#include "core/file.h"
#include "core/json.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static pb_err put(const pb_records_to *to, const char *text, size_t len)
{
    return to->text(to->self, text, len);
}

// ---------------------------------------------------------------- JSON

// Strings in v; those of objects inside only when `deep`.
static pb_err put_strings(const pb_records_to *to, const json_t *v, bool deep)
{
    size_t i;
    const char *key;
    json_t *one;
    if (json_is_string(v))
        return put(to, json_string_value(v), json_string_length(v));
    if (json_is_array(v))
        json_array_foreach(v, i, one) PB_TRY(put_strings(to, one, deep));
    if (json_is_object(v) && deep)
        json_object_foreach((json_t *)v, key, one) PB_TRY(put_strings(to, one, deep));
    return PB_OK;
}

static bool has_string(const json_t *v)
{
    size_t i;
    json_t *one;
    if (json_is_string(v))
        return true;
    if (json_is_array(v))
        json_array_foreach(v, i, one) if (has_string(one)) return true;
    return false;
}

// The objects in v; and the strings that belong to none, when `loose`.
static pb_err put_objects(const pb_records_to *to, const json_t *v, bool loose)
{
    size_t i;
    const char *key;
    json_t *one;
    if (json_is_string(v) && loose) {
        PB_TRY(to->item(to->self));
        return put_strings(to, v, false);
    }
    if (json_is_array(v))
        json_array_foreach(v, i, one) PB_TRY(put_objects(to, one, loose));
    if (!json_is_object(v))
        return PB_OK;
    bool own = false;
    json_object_foreach((json_t *)v, key, one) own = own || has_string(one);
    if (own)
        PB_TRY(to->item(to->self));
    json_object_foreach((json_t *)v, key, one) PB_TRY(put_strings(to, one, false));
    json_object_foreach((json_t *)v, key, one) PB_TRY(put_objects(to, one, false));
    return PB_OK;
}

// ---------------------------------------------------------------- records

typedef struct reader {
    const char *p, *end;
    char *field; // room for one unquoted field
    size_t line;
} reader;

// Takes the next line, without its end, off the front.
static bool next_line(reader *r, const char **line, size_t *len)
{
    if (r->p == r->end)
        return false;
    const char *eol = memchr(r->p, '\n', (size_t)(r->end - r->p));
    *line = r->p;
    *len = (size_t)((eol ? eol : r->end) - r->p);
    r->p = eol ? eol + 1 : r->end;
    r->line++;
    if (*len && (*line)[*len - 1] == '\r')
        --*len;
    return true;
}

static bool is_blank(const char *p, size_t n)
{
    while (n && strchr(" \t\r\v\f", p[n - 1]) && p[n - 1])
        n--;
    return !n;
}

static pb_err put_json_line(const pb_records_to *to, const char *p, size_t n)
{
    json_t *j;
    PB_TRY(pb_json_parse(&j, p, n, "JSON"));
    pb_err err = to->item(to->self);
    if (!err)
        err = put_strings(to, j, true);
    json_decref(j);
    return err;
}

static pb_err put_tabbed(const pb_records_to *to, const char *p, size_t n)
{
    PB_TRY(to->item(to->self));
    for (const char *end = p + n, *tab; p <= end; p = tab + 1) {
        tab = memchr(p, '\t', (size_t)(end - p));
        tab = tab ? tab : end;
        PB_TRY(put(to, p, (size_t)(tab - p)));
    }
    return PB_OK;
}

static pb_err put_line(const pb_records_to *to, const char *p, size_t n)
{
    PB_TRY(to->item(to->self));
    return put(to, p, n);
}

static pb_err read_lines(reader *r, bool header, const pb_records_to *to,
                         pb_err (*put_one)(const pb_records_to *, const char *, size_t))
{
    const char *line;
    size_t len;
    while (next_line(r, &line, &len))
        if (!is_blank(line, len) && !(header && r->line == 1))
            PB_TRY(put_one(to, line, len));
    return PB_OK;
}

// Quoted or not; *last when the record ends with it. A quotation mark inside an unquoted field is
// one, and text behind a closing one belongs to the field.
static pb_err next_field(reader *r, size_t *len, bool *last)
{
    size_t n = 0;
    bool quoted = false, first = true;
    for (; r->p < r->end; r->p++, first = false) {
        char c = *r->p;
        if (c == '"' && first) {
            quoted = true;
            continue;
        }
        if (quoted && c == '"') {
            if (r->p + 1 < r->end && r->p[1] == '"')
                r->p++;
            else {
                quoted = false;
                continue;
            }
        } else if (!quoted && (c == ',' || c == '\n')) {
            break;
        }
        r->line += c == '\n';
        r->field[n++] = c;
    }
    if (quoted)
        return pb_fail(PB_INPUT, "the file may have been cut", "a quoted field is never closed");
    *last = r->p == r->end || *r->p == '\n';
    r->line += r->p < r->end && *r->p == '\n';
    r->p += r->p < r->end;
    if (*last && n && r->field[n - 1] == '\r')
        n--;
    *len = n;
    return PB_OK;
}

static pb_err read_csv(reader *r, bool header, const pb_records_to *to)
{
    r->field = malloc((size_t)(r->end - r->p) + 1); // no field is longer than the file
    if (!r->field)
        return pb_fail(PB_MEMORY, NULL, "no memory for a field of %zu bytes",
                       (size_t)(r->end - r->p));
    for (bool skip = header; r->p < r->end; skip = false) {
        bool last = false, open = false;
        size_t n = 0, line = r->line;
        while (!last) {
            pb_err err = next_field(r, &n, &last);
            if (err) {
                r->line = line + 1; // where the record begins
                return err;
            }
            if (skip || (!open && last && is_blank(r->field, n)))
                continue;
            if (!open)
                PB_TRY(to->item(to->self));
            open = true;
            PB_TRY(put(to, r->field, n));
        }
    }
    return PB_OK;
}

// ---------------------------------------------------------------- files

static bool ends(const char *path, const char *with)
{
    size_t n = strlen(path), m = strlen(with);
    return n > m && !strcasecmp(path + n - m, with);
}

bool pb_records_known(const char *path)
{
    return ends(path, ".jsonl") || ends(path, ".json") || ends(path, ".csv") ||
           ends(path, ".tsv") || ends(path, ".txt");
}

pb_err pb_records_read(const char *path, bool header, const pb_records_to *to)
{
    if (ends(path, ".json")) {
        json_t *j;
        PB_TRY(pb_json_load(&j, path));
        pb_err err = put_objects(to, j, true);
        json_decref(j);
        return err;
    }
    pb_file f;
    PB_TRY(pb_file_map(&f, path));
    reader r = {.p = (const char *)f.data, .end = (const char *)f.data + f.size};
    pb_err err;
    if (!f.size)
        err = PB_OK;
    else if (ends(path, ".csv"))
        err = read_csv(&r, header, to);
    else if (ends(path, ".tsv"))
        err = read_lines(&r, header, to, put_tabbed);
    else
        err = read_lines(&r, false, to, ends(path, ".jsonl") ? put_json_line : put_line);
    free(r.field);
    pb_file_unmap(&f);
    return err ? pb_context(err, "%s, line %zu", path, r.line ? r.line : 1) : PB_OK;
}
