// Descriptions: reading one, and making a dataset by it.
//
// A row goes through these steps, each stated by keys of the description: its share (which split it
// belongs to, where one file feeds several), named parts taken out of a field by a regular
// expression, then the templates of prompt, response and candidates. When all rows are there,
// prompts that stand in several splits are dropped from the earlier ones, rows of one prompt are
// grouped, and a limit takes a fixed random sample. Whatever is left out is counted in a note.
#include "tasks/common/describe.h"

#include "core/file.h"
#include "core/hash.h"
#include "tasks/common/rows.h"

#include <ctype.h>
#include <dirent.h>
#include <fnmatch.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATH = 4096 };
enum { EMPTY_RESPONSE, EQUAL_CANDIDATES, N_SKIPS };
static const char *const skip_names[N_SKIPS] = {"empty response", "equal candidates"};
static const char *const split_names[PB_N_SPLITS] = {"train", "valid", "test"};

typedef struct described {
    pb_task task; // first, so that a pb_task is one
    json_t *j;
    char own[MAX_PATH], sha256[PB_HASH_LEN];
    bool group, drop_shared, skip[N_SKIPS];
    const char *out_field, *out_why; // rows that are left out: a field, and what is wrong with it
    pcre2_code *out_pattern;
} described;

// How a row of one file becomes an example. Keys of a split stand before those of the whole.
typedef struct recipe {
    const char *file, *rows, *format, *label, *split_by;
    const json_t *columns, *prompt, *response, *candidates, *labels;
    const char *from, *pattern; // a field, and the expression that takes it apart
    double share[2];
} recipe;

// ---------------------------------------------------------------- templates

typedef struct texts {
    char **s;
    size_t n, cap;
} texts;

static void clear(texts *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->s[i]);
    free(t->s);
    *t = (texts){0};
}

static pb_err add(texts *t, char *s) // takes s
{
    if (s && t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 8;
        char **more = realloc(t->s, cap * sizeof *more);
        if (!more) {
            free(s);
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu texts", cap);
        }
        t->s = more;
        t->cap = cap;
    }
    if (!s)
        return pb_fail(PB_MEMORY, NULL, "no memory for a text");
    t->s[t->n++] = s;
    return PB_OK;
}

// A piece of a template: text, or the name of a field.
typedef struct piece {
    const char *p;
    size_t n;
    bool field;
} piece;

// Takes the next piece off the front; an empty one that is no field at the end.
static pb_err next_piece(piece *out, const char **t)
{
    size_t n = strcspn(*t, "{}");
    bool doubled = (*t)[n] && (*t)[n] == (*t)[n + 1];
    if (n || doubled) { // text, with the brace that two stand for
        *out = (piece){*t, n + doubled, false};
        *t += n + 2 * doubled;
        return PB_OK;
    }
    *out = (piece){*t, 0, **t != 0};
    if (!**t)
        return PB_OK;
    size_t len = strcspn(*t + 1, "{}");
    if (**t != '{' || (*t)[1 + len] != '}' || !len)
        return pb_fail(PB_INPUT, "a field is {name}; write {{ and }} for braces",
                       "the template breaks off at \"%.40s\"", *t);
    *out = (piece){*t + 1, len, true};
    *t += len + 2;
    return PB_OK;
}

typedef struct values {
    size_t want, n; // the one that is looked for; how many there are
    const json_t *found;
    bool list;
} values;

static void walk(values *v, const json_t *j, const char *path)
{
    size_t n = strcspn(path, "."), i;
    const char *rest = path + n + (path[n] == '.');
    json_t *one;
    if (json_is_array(j) && isdigit((unsigned char)*path)) {
        walk(v, json_array_get(j, strtoul(path, NULL, 10)), rest);
    } else if (json_is_array(j)) {
        v->list = true;
        json_array_foreach(j, i, one) walk(v, one, path);
    } else if (*path) {
        char step[128];
        if (json_is_object(j) && n < sizeof step) {
            memcpy(step, path, n);
            step[n] = 0;
            walk(v, json_object_get(j, step), rest);
        }
    } else if (json_is_string(j) || json_is_number(j) || json_is_boolean(j)) {
        if (v->n++ == v->want)
            v->found = j;
    }
}

// The k-th value of a field, and how many it has.
static values look_up(const json_t *row, const char *name, size_t k)
{
    values v = {.want = k};
    const json_t *whole = json_object_get(row, name); // a column's name may have a dot in it
    walk(&v, whole ? whole : row, whole ? "" : name);
    return v;
}

// White space at both ends is cut.
static void put_value(FILE *f, const json_t *v, bool *empty)
{
    if (json_is_string(v)) {
        const char *s = json_string_value(v);
        size_t n = strlen(s);
        while (n && isspace((unsigned char)s[n - 1]))
            n--;
        for (; n && isspace((unsigned char)*s); n--)
            s++;
        *empty = !n;
        fwrite(s, 1, n, f);
        return;
    }
    *empty = false;
    if (json_is_boolean(v))
        fputs(json_is_true(v) ? "true" : "false", f);
    else if (json_is_integer(v))
        fprintf(f, "%lld", (long long)json_integer_value(v));
    else
        fprintf(f, "%.15g", json_real_value(v));
}

// What a template wants and a row does not have.
typedef struct lack {
    char name[128]; // "": nothing
    bool missing;   // not there at all; otherwise empty
} lack;

// The template with the row's values: one text, or one for each value of a field that is a list.
static pb_err expand(texts *out, const char *template, const json_t *row, lack *l)
{
    size_t count = 1;
    bool list = false;
    *l = (lack){0};
    for (size_t k = 0; k < count; k++) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        const char *t = template;
        piece p = {.n = 1};
        pb_err err = f ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a text");
        while (!err && (p.n || p.field)) {
            char name[128];
            err = next_piece(&p, &t);
            if (err || !p.field) {
                if (!err)
                    fwrite(p.p, 1, p.n, f);
                continue;
            }
            err = pb_path(name, sizeof name, "%.*s", (int)p.n, p.p);
            if (err)
                break;
            values v = look_up(row, name, 0);
            if (v.list && list && v.n != count)
                err = pb_fail(PB_INPUT, NULL, "\"%s\" has %zu values, an earlier list has %zu",
                              name, v.n, count);
            else if (v.list && v.n && !list)
                count = v.n;
            list = list || v.list;
            if (v.list && k)
                v = look_up(row, name, k);
            bool empty = true;
            if (v.found)
                put_value(f, v.found, &empty);
            if (empty && !*l->name) {
                snprintf(l->name, sizeof l->name, "%s", name);
                l->missing = !v.found;
            }
        }
        if (f && fclose(f) && !err)
            err = pb_fail(PB_MEMORY, NULL, "no memory for a text");
        if (!err)
            err = add(out, text);
        else
            free(text);
        PB_TRY(err);
    }
    return PB_OK;
}

static pb_err no_field(const char *name, const json_t *row)
{
    char hint[600] = "the row has";
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)row, key, v)
    {
        size_t n = strlen(hint);
        snprintf(hint + n, sizeof hint - n, " %s", key);
    }
    return pb_fail(PB_INPUT, hint, "there is no field \"%s\"", name);
}

// The same where a list would make no sense; empty fields are allowed.
static pb_err expand_one(char **out, const char *template, const json_t *row, lack *l)
{
    texts t = {0};
    pb_err err = expand(&t, template, row, l);
    if (!err && t.n != 1)
        err = pb_fail(PB_INPUT, NULL, "\"%s\" is a list of %zu in this row, where one is needed",
                      template, t.n);
    *out = NULL;
    if (!err) {
        *out = t.s[0];
        t.s[0] = NULL;
    }
    clear(&t);
    return err;
}

// ---------------------------------------------------------------- one row

typedef struct loading {
    const described *d;
    const recipe *r;
    pb_split split;
    pb_dataset *all; // every example, before any is dropped
    pcre2_code *pattern;
    size_t skipped[PB_N_SPLITS][N_SKIPS], left_out[PB_N_SPLITS];
    size_t dropped[PB_N_SPLITS], merged[PB_N_SPLITS];
} loading;

static pb_err is_left_out(bool *out, const described *d, const json_t *row)
{
    *out = false;
    if (!d->out_pattern)
        return PB_OK;
    values v = look_up(row, d->out_field, 0);
    if (!json_is_string(v.found))
        return v.found ? pb_fail(PB_INPUT, NULL, "\"%s\" is not a text", d->out_field)
                       : no_field(d->out_field, row);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(d->out_pattern, NULL);
    if (!m)
        return pb_fail(PB_MEMORY, NULL, "no memory for a match");
    const char *s = json_string_value(v.found);
    *out =
        pcre2_match(d->out_pattern, (PCRE2_SPTR)s, strlen(s), 0, PCRE2_NO_UTF_CHECK, m, NULL) > 0;
    pcre2_match_data_free(m);
    return PB_OK;
}

static pb_err take_apart(const loading *l, json_t *row)
{
    values v = look_up(row, l->r->from, 0);
    if (!json_is_string(v.found))
        return v.found ? pb_fail(PB_INPUT, NULL, "\"%s\" is not a text", l->r->from)
                       : no_field(l->r->from, row);
    const char *s = json_string_value(v.found);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(l->pattern, NULL);
    if (!m)
        return pb_fail(PB_MEMORY, NULL, "no memory for a match");
    pb_err err = PB_OK;
    uint32_t n = 0, width = 0;
    PCRE2_SPTR names = NULL;
    json_t *found = json_object();
    if (pcre2_match(l->pattern, (PCRE2_SPTR)s, strlen(s), 0, PCRE2_NO_UTF_CHECK, m, NULL) <= 0) {
        err = pb_fail(PB_INPUT, "see the pattern of \"extract\" in the description",
                      "\"%s\" is not in the form expected: \"%.100s\"", l->r->from, s);
        goto done;
    }
    pcre2_pattern_info(l->pattern, PCRE2_INFO_NAMECOUNT, &n);
    pcre2_pattern_info(l->pattern, PCRE2_INFO_NAMEENTRYSIZE, &width);
    pcre2_pattern_info(l->pattern, PCRE2_INFO_NAMETABLE, &names);
    PCRE2_SIZE *at = pcre2_get_ovector_pointer(m);
    for (uint32_t i = 0; i < n; i++, names += width) {
        size_t k = (size_t)(names[0] << 8 | names[1]);
        // \K can make a match end before it starts.
        if (at[2 * k] == PCRE2_UNSET || at[2 * k] > at[2 * k + 1])
            continue;
        json_object_set_new(found, (const char *)names + 2,
                            json_stringn(s + at[2 * k], at[2 * k + 1] - at[2 * k]));
    }
    json_object_update(row, found); // s may be a member of row
done:
    json_decref(found);
    pcre2_match_data_free(m);
    return err;
}

// The first of the prompts whose fields are all there and not empty; the last one in any case.
static pb_err make_prompt(char **out, const recipe *r, const json_t *row)
{
    lack l;
    size_t n = json_is_array(r->prompt) ? json_array_size(r->prompt) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *t = json_is_array(r->prompt) ? json_array_get(r->prompt, i) : r->prompt;
        PB_TRY(expand_one(out, json_string_value(t), row, &l));
        if (!*l.name || (i + 1 == n && !l.missing))
            return PB_OK;
        free(*out);
        *out = NULL;
    }
    return no_field(l.name, row);
}

static bool takes_all(const recipe *r)
{
    return r->share[0] <= 0 && r->share[1] >= 1;
}

// A share of all rows, by the hash of what must not be torn apart.
static pb_err in_share(bool *out, const recipe *r, const char *prompt, const json_t *row)
{
    char hash[PB_HASH_LEN], *key = NULL;
    lack l = {0};
    *out = takes_all(r);
    if (*out)
        return PB_OK;
    if (r->split_by)
        PB_TRY(expand_one(&key, r->split_by, row, &l));
    if (*l.name) {
        free(key);
        return no_field(l.name, row);
    }
    pb_sha256(hash, key ? key : prompt, strlen(key ? key : prompt));
    free(key);
    hash[8] = 0;
    double u = (double)strtoul(hash, NULL, 16) / 4294967296.0;
    *out = r->share[0] <= u && u < r->share[1];
    return PB_OK;
}

static pb_err skip_or_fail(loading *l, int why, pb_err err)
{
    if (!l->d->skip[why])
        return err;
    l->skipped[l->split][why]++;
    return PB_OK;
}

// `t` are the texts of the response; different ones become references.
static pb_err add_generation(loading *l, const char *prompt, texts *t)
{
    size_t n = 0;
    for (size_t i = 0, j; i < t->n; i++) {
        for (j = 0; j < n && strcmp(t->s[i], t->s[j]); j++)
            ;
        if (j == n) {
            char *swap = t->s[n];
            t->s[n++] = t->s[i];
            t->s[i] = swap;
        }
    }
    pb_example e = {.prompt = prompt,
                    .response = t->s[0],
                    .references = (const char *const *)t->s,
                    .n_references = n};
    return pb_dataset_add(l->all, l->split, &e);
}

// Texts of a list of templates. It ends with the first whose field is not there, so that rows may
// have different numbers of them; one behind a gap is an error.
static pb_err expand_list(texts *out, const json_t *list, const json_t *row)
{
    size_t i;
    json_t *t;
    lack first = {0};
    json_array_foreach(list, i, t)
    {
        lack l;
        size_t before = out->n;
        PB_TRY(expand(out, json_string_value(t), row, &l));
        if (*l.name && !l.missing)
            return pb_fail(PB_INPUT, NULL, "the field \"%s\" is empty", l.name);
        if (*first.name && !*l.name)
            return no_field(first.name, row);
        if (*l.name && !*first.name)
            first = l;
        while (*l.name && out->n > before)
            free(out->s[--out->n]);
    }
    return *first.name && !out->n ? no_field(first.name, row) : PB_OK;
}

static pb_err unknown_label(const char *label, const texts *known, size_t n)
{
    char hint[400] = "labels are";
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(hint);
        if (known->n)
            snprintf(hint + at, sizeof hint - at, " \"%s\"", known->s[i]);
        else
            snprintf(hint + at, sizeof hint - at, " %zu", i);
    }
    return pb_fail(PB_INPUT, hint, "the label \"%s\" is unknown", label);
}

static pb_err add_ranking(loading *l, const char *prompt, const json_t *row)
{
    texts c = {0}, names = {0};
    char *label = NULL, number[24];
    lack no;
    size_t k = 0, n;
    bool equal = false;
    pb_err err = PB_OK;
    PB_GO(expand_list(&c, l->r->candidates, row));
    if (l->r->labels)
        PB_GO(expand_list(&names, l->r->labels, row));
    PB_GO(expand_one(&label, l->r->label, row, &no));
    if (*no.name) {
        err = no.missing ? no_field(no.name, row)
                         : pb_fail(PB_INPUT, NULL, "the label \"%s\" is empty", no.name);
        goto done;
    }
    n = l->r->labels && names.n < c.n ? names.n : c.n;
    for (; k < n; k++) {
        snprintf(number, sizeof number, "%zu", k);
        if (!strcmp(label, names.n ? names.s[k] : number))
            break;
    }
    if (k == n) {
        err = unknown_label(label, &names, n);
        goto done;
    }
    for (size_t i = 0; i < c.n; i++)
        for (size_t j = 0; j < i; j++)
            equal = equal || !strcmp(c.s[i], c.s[j]);
    if (equal) {
        err =
            skip_or_fail(l, EQUAL_CANDIDATES,
                         pb_fail(PB_INPUT, "leave such rows out: \"skip\": [\"equal candidates\"]",
                                 "two candidates are equal"));
        goto done;
    }
    pb_example e = {.prompt = prompt,
                    .response = c.s[k],
                    .candidates = (const char *const *)c.s,
                    .n_candidates = c.n,
                    .label = k};
    err = pb_dataset_add(l->all, l->split, &e);
done:
    free(label);
    clear(&c);
    clear(&names);
    return err;
}

static pb_err on_row(void *self, json_t *row)
{
    loading *l = self;
    const recipe *r = l->r;
    texts response = {0};
    char *prompt = NULL;
    lack no = {0};
    bool mine, out, generate = l->d->task.kind == PB_GENERATE;
    pb_err err = PB_OK;
    PB_TRY(is_left_out(&out, l->d, row));
    if (r->pattern && !out)
        PB_TRY(take_apart(l, row));
    if (generate && !out)
        PB_GO(expand(&response, json_string_value(r->response), row, &no));
    if (*no.name && no.missing && !l->d->skip[EMPTY_RESPONSE])
        PB_GO(no_field(no.name, row));
    // Such a row may lack fields of the prompt too, which do not matter then.
    if ((!*no.name && !out) || !takes_all(r)) {
        PB_GO(make_prompt(&prompt, r, row));
        PB_GO(in_share(&mine, r, prompt, row));
        if (!mine)
            goto done;
    }
    if (out)
        l->left_out[l->split]++;
    else if (*no.name)
        err = skip_or_fail(l, EMPTY_RESPONSE,
                           pb_fail(PB_INPUT, "leave such rows out: \"skip\": [\"empty response\"]",
                                   "the field \"%s\" of the response is empty", no.name));
    else
        err = generate ? add_generation(l, prompt, &response) : add_ranking(l, prompt, row);
done:
    clear(&response);
    free(prompt);
    return err;
}

// ---------------------------------------------------------------- files

static pb_err compile(pcre2_code **out, const char *pattern)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR says[160];
    *out = NULL;
    if (!pattern)
        return PB_OK;
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
                         &at, NULL);
    if (*out)
        return PB_OK;
    pcre2_get_error_message(code, says, sizeof says);
    return pb_fail(PB_INPUT, NULL, "a pattern, at character %zu: %s", (size_t)at, (char *)says);
}

static pb_err read_file(loading *l, const char *path)
{
    pb_rows_format f = {l->r->format, l->r->columns, l->r->rows};
    return pb_rows_read(path, &f, on_row, l);
}

// The last part of the name may have wildcards: all files that fit, in the order of their names.
static pb_err read_files(loading *l, const char *path)
{
    const char *last = strrchr(path, '/');
    last = last ? last + 1 : path;
    if (!strpbrk(last, "*?["))
        return read_file(l, path);
    char folder[MAX_PATH], one[MAX_PATH];
    struct dirent **names;
    size_t used = 0;
    PB_TRY(pb_path(folder, sizeof folder, "%.*s", (int)(last - path), path));
    int n = scandir(*folder ? folder : ".", &names, NULL, alphasort);
    if (n < 0)
        return pb_fail(PB_IO, NULL, "cannot list %s: %m", folder);
    pb_err err = PB_OK;
    for (int i = 0; i < n; i++) {
        if (!err && !fnmatch(last, names[i]->d_name, FNM_PERIOD)) {
            err = pb_path(one, sizeof one, "%s%s", folder, names[i]->d_name);
            if (!err)
                err = read_file(l, one);
            used++;
        }
        free(names[i]);
    }
    free(names);
    return err || used ? err : pb_fail(PB_INPUT, NULL, "no file fits %s", path);
}

// Whether the file, or with wildcards its folder, is there.
static bool is_there(const char *path)
{
    char folder[MAX_PATH];
    const char *last = strrchr(path, '/');
    if (!last || !strpbrk(last, "*?["))
        return pb_exists(path);
    return !pb_path(folder, sizeof folder, "%.*s", (int)(last - path), path) && pb_is_dir(folder);
}

static pb_err find_file(char path[MAX_PATH], const described *d, const char *file, const char *data)
{
    const char *folder = d->task.folder;
    if (!folder)
        return *file == '/' ? pb_path(path, MAX_PATH, "%s", file)
                            : pb_path(path, MAX_PATH, "%s/%s", d->own, file);
    PB_TRY(pb_path(path, MAX_PATH, "%s/%s/%s", data, folder, file));
    if (is_there(path))
        return PB_OK;
    PB_TRY(pb_path(path, MAX_PATH, "%s/%s", data, file)); // the folder itself was named
    if (!strpbrk(file, "*?[") && is_there(path))
        return PB_OK;
    char hint[512];
    snprintf(hint, sizeof hint, "the originals: %.400s", d->task.source);
    return pb_fail(PB_INPUT, hint, "there is no %s in %s/%s", file, data, folder);
}

// ---------------------------------------------------------------- the description

static pb_err bad(const char *key, const char *what)
{
    return pb_fail(PB_INPUT, NULL, "\"%s\" %s", key, what);
}

static pb_err check_template(const char *t, const char *key)
{
    piece p = {.n = 1};
    while (p.n || p.field) {
        pb_err err = next_piece(&p, &t);
        if (err)
            return pb_context(err, "\"%s\"", key);
    }
    return PB_OK;
}

// A template, or with `many` one or more.
static pb_err check_templates(const json_t *j, const char *key, bool one, bool many)
{
    size_t i;
    json_t *t;
    if (json_is_string(j) && one)
        return check_template(json_string_value(j), key);
    if (!json_is_array(j) || !json_array_size(j) || !many)
        return bad(key, !many ? "must be a text" : "must be a list of texts");
    json_array_foreach(j, i, t)
    {
        if (!json_is_string(t))
            return bad(key, "has an entry that is not a text");
        PB_TRY(check_template(json_string_value(t), key));
    }
    return PB_OK;
}

static const json_t *setting(const described *d, const json_t *own, const char *key)
{
    const json_t *v = json_is_object(own) ? json_object_get(own, key) : NULL;
    return v ? v : json_object_get(d->j, key);
}

static pb_err text_setting(const char **out, const described *d, const json_t *own, const char *key)
{
    const json_t *v = setting(d, own, key);
    *out = json_string_value(v);
    return v && !*out ? bad(key, "must be a text") : PB_OK;
}

static pb_err read_share(double share[2], const json_t *own)
{
    const json_t *v = json_is_object(own) ? json_object_get(own, "share") : NULL;
    share[0] = 0;
    share[1] = 1;
    if (!v)
        return PB_OK;
    for (size_t i = 0; i < 2; i++)
        share[i] =
            json_is_number(json_array_get(v, i)) ? json_number_value(json_array_get(v, i)) : -1;
    return json_array_size(v) == 2 && share[0] >= 0 && share[0] < share[1] && share[1] <= 1
               ? PB_OK
               : bad("share", "must be two numbers, 0 <= from < to <= 1");
}

static pb_err read_extract(recipe *r, const json_t *v)
{
    static const char *const known[] = {"field", "pattern", NULL};
    pcre2_code *code;
    if (!v)
        return PB_OK;
    PB_TRY(pb_json_only(v, known, "\"extract\""));
    PB_TRY(pb_json_str(v, "field", &r->from));
    PB_TRY(pb_json_str(v, "pattern", &r->pattern));
    PB_TRY(compile(&code, r->pattern));
    pcre2_code_free(code);
    return PB_OK;
}

// `own` is a file's name, or an object with one.
static pb_err read_recipe(recipe *r, const described *d, const json_t *own)
{
    static const char *const known[] = {"file",    "share",    "rows",     "format",     "columns",
                                        "extract", "prompt",   "response", "candidates", "label",
                                        "labels",  "split_by", NULL};
    size_t i;
    json_t *one;
    *r = (recipe){.file = json_string_value(own)};
    if (!r->file) {
        PB_TRY(pb_json_only(own, known, "a file with keys of its own"));
        PB_TRY(pb_json_str(own, "file", &r->file));
    }
    if (!*r->file)
        return bad("file", "is empty");
    PB_TRY(read_share(r->share, own));
    PB_TRY(text_setting(&r->rows, d, own, "rows"));
    PB_TRY(text_setting(&r->format, d, own, "format"));
    PB_TRY(text_setting(&r->label, d, own, "label"));
    PB_TRY(text_setting(&r->split_by, d, own, "split_by"));
    PB_TRY(read_extract(r, setting(d, own, "extract")));
    r->columns = setting(d, own, "columns");
    if (r->columns && !json_array_size(r->columns))
        return bad("columns", "must be a list of names");
    json_array_foreach(r->columns, i, one) if (!json_is_string(one)) return bad(
        "columns", "must be a list of names");
    r->prompt = setting(d, own, "prompt");
    PB_TRY(check_templates(r->prompt, "prompt", true, true));
    if (r->split_by)
        PB_TRY(check_template(r->split_by, "split_by"));
    r->response = setting(d, own, "response");
    r->candidates = setting(d, own, "candidates");
    r->labels = setting(d, own, "labels");
    if (d->task.kind == PB_GENERATE) {
        if (r->candidates || r->label || r->labels)
            return bad("candidates", "(and \"label\") belong to a task that ranks");
        return check_templates(r->response, "response", true, false);
    }
    if (r->response)
        return bad("response", "belongs to a task that generates");
    if (!r->label)
        return bad("label", "is missing");
    PB_TRY(check_template(r->label, "label"));
    if (r->labels)
        PB_TRY(check_templates(r->labels, "labels", false, true));
    return check_templates(r->candidates, "candidates", false, true);
}

// The i-th file of a split; NULL when it has no more.
static const json_t *file_at(const described *d, pb_split s, size_t i)
{
    const json_t *v = json_object_get(d->j, split_names[s]);
    return json_is_array(v) ? json_array_get(v, i) : i ? NULL : v;
}

static pb_err read_kind(described *d)
{
    const char *kind;
    PB_TRY(pb_json_str(d->j, "kind", &kind));
    if (strcmp(kind, "rank") && strcmp(kind, "generate"))
        return pb_fail(PB_INPUT, "known are rank and generate", "the kind \"%s\" is unknown", kind);
    d->task.kind = strcmp(kind, "rank") ? PB_GENERATE : PB_RANK;
    return pb_json_str(d->j, "metric", &d->task.metric); // checked with every task's
}

static pb_err read_skip(described *d)
{
    size_t i;
    int k;
    json_t *one;
    const json_t *v = json_object_get(d->j, "skip");
    if (v && !json_is_array(v))
        return bad("skip", "must be a list");
    json_array_foreach(v, i, one)
    {
        for (k = 0; k < N_SKIPS; k++)
            if (json_is_string(one) && !strcmp(json_string_value(one), skip_names[k]))
                break;
        if (k == N_SKIPS)
            return bad("skip", "knows \"empty response\" and \"equal candidates\"");
        d->skip[k] = true;
    }
    return PB_OK;
}

static pb_err read_leave_out(described *d)
{
    static const char *const known[] = {"field", "pattern", "why", NULL};
    const json_t *v = json_object_get(d->j, "leave_out");
    const char *pattern;
    if (!v)
        return PB_OK;
    PB_TRY(pb_json_only(v, known, "\"leave_out\""));
    PB_TRY(pb_json_str(v, "field", &d->out_field));
    PB_TRY(pb_json_str(v, "pattern", &pattern));
    PB_TRY(pb_json_str(v, "why", &d->out_why));
    return compile(&d->out_pattern, pattern);
}

static pb_err read_description(described *d)
{
    static const char *const known[] = {
        "doc",        "source",   "licence", "version", "note",     "content",   "kind",
        "metric",     "max_new",  "folder",  "rows",    "format",   "columns",   "extract",
        "prompt",     "response", "label",   "labels",  "split_by", "group",     "drop_shared",
        "candidates", "skip",     "train",   "valid",   "test",     "leave_out", NULL};
    int64_t max_new = 0;
    size_t files = 0;
    recipe r;
    PB_TRY(pb_json_only(d->j, known, "the description"));
    PB_TRY(pb_json_str(d->j, "doc", &d->task.doc));
    PB_TRY(pb_json_str(d->j, "source", &d->task.source));
    PB_TRY(pb_json_str(d->j, "licence", &d->task.licence));
    PB_TRY(pb_json_str(d->j, "version", &d->task.version));
    PB_TRY(pb_json_opt_str(d->j, "note", &d->task.note));
    PB_TRY(pb_json_opt_str(d->j, "content", &d->task.content));
    PB_TRY(pb_json_opt_str(d->j, "folder", &d->task.folder));
    PB_TRY(pb_json_opt_int(d->j, "max_new", &max_new, 1, 1000000));
    PB_TRY(pb_json_opt_bool(d->j, "group", &d->group));
    PB_TRY(pb_json_opt_bool(d->j, "drop_shared", &d->drop_shared));
    PB_TRY(read_kind(d));
    PB_TRY(read_skip(d));
    PB_TRY(read_leave_out(d));
    d->task.max_new = (size_t)max_new;
    d->task.needs_data = d->task.folder != NULL;
    if (d->group && d->task.kind == PB_RANK)
        return bad("group", "is for a task that generates");
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        const json_t *one;
        for (size_t i = 0; (one = file_at(d, s, i)); i++, files++) {
            pb_err err = read_recipe(&r, d, one);
            if (err)
                return pb_context(err, "%s", split_names[s]);
        }
    }
    return files ? PB_OK : pb_fail(PB_INPUT, NULL, "there is no \"train\", \"valid\" or \"test\"");
}

// ---------------------------------------------------------------- the dataset

typedef struct entry {
    pb_example *e;
    pb_split split;
    size_t index;
} entry;

static int by_prompt(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int c = strcmp(x->e->prompt, y->e->prompt);
    if (c)
        return c;
    if (x->split != y->split)
        return x->split < y->split ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

// Examples of one split and prompt: the first gets all references, the others are marked.
static void merge(entry *first, size_t n, const char **refs)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        pb_example *e = first[i].e;
        for (size_t j = 0, same; j < e->n_references; j++) {
            for (same = 0; same < k && strcmp(refs[same], e->references[j]); same++)
                ;
            if (same == k)
                refs[k++] = e->references[j];
        }
        e->n_references = 0;
    }
    first->e->references = refs;
    first->e->n_references = k;
}

// Drops and merges what the description says: an example that is left out has no response.
static pb_err tidy(loading *l, pb_example *all, size_t n, const size_t start[PB_N_SPLITS + 1],
                   const char **refs)
{
    entry *order = malloc((n + 1) * sizeof *order);
    if (!order)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu examples", n);
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        for (size_t i = start[s]; i < start[s + 1]; i++)
            order[i] = (entry){&all[i], s, i};
    qsort(order, n, sizeof *order, by_prompt);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && !strcmp(order[end].e->prompt, order[i].e->prompt);)
            end++;
        pb_split last = order[end - 1].split;
        for (size_t j = i, k; j < end; j = k) {
            for (k = j + 1; k < end && order[k].split == order[j].split;)
                k++;
            pb_split s = order[j].split;
            bool drop = l->d->drop_shared && s != last, group = l->d->group && s != PB_TRAIN;
            size_t keep = drop ? 0 : group ? 1 : k - j, total = 0;
            if (group && !drop) {
                for (size_t m = j; m < k; m++)
                    total += order[m].e->n_references;
                merge(order + j, k - j, refs);
                refs += total;
            }
            for (size_t m = j + keep; m < k; m++)
                order[m].e->response = NULL;
            *(drop ? &l->dropped[s] : &l->merged[s]) += k - j - keep;
        }
    }
    free(order);
    return PB_OK;
}

static pb_err choose(pb_dataset *out, pb_split s, const pb_example *e, size_t n, size_t limit)
{
    pb_err err = PB_OK;
    size_t kept = 0, *order = malloc((n + 1) * sizeof *order);
    if (!order)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu examples", n);
    for (size_t i = 0; i < n; i++)
        if (e[i].response)
            order[kept++] = i;
    if (limit && limit < kept) { // a fixed sample: files are often sorted
        pb_rng r = pb_rng_make(0, PB_STREAM_TASK, s);
        pb_rng_shuffle(&r, order, kept);
        kept = limit;
    }
    for (size_t i = 0; i < kept && !err; i++)
        err = pb_dataset_add(out, s, &e[order[i]]);
    free(order);
    return err;
}

static pb_err add_notes(pb_dataset *out, const loading *l)
{
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        for (int k = 0; k < N_SKIPS; k++)
            if (l->skipped[s][k])
                PB_TRY(pb_dataset_note(out, "%s: %zu rows left out: %s", split_names[s],
                                       l->skipped[s][k], skip_names[k]));
        if (l->left_out[s])
            PB_TRY(pb_dataset_note(out, "%s: %zu rows left out: %s", split_names[s], l->left_out[s],
                                   l->d->out_why));
        if (l->dropped[s])
            PB_TRY(pb_dataset_note(out, "%s: %zu rows left out: their prompt is in %s",
                                   split_names[s], l->dropped[s],
                                   s == PB_TRAIN ? "valid or test" : "test"));
        if (l->merged[s])
            PB_TRY(pb_dataset_note(out, "%s: %zu rows are further references of another",
                                   split_names[s], l->merged[s]));
    }
    return PB_OK;
}

static pb_err read_all(loading *l, const char *data)
{
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        const json_t *one;
        for (size_t i = 0; (one = file_at(l->d, s, i)); i++) {
            char path[MAX_PATH];
            recipe r;
            PB_TRY(read_recipe(&r, l->d, one));
            PB_TRY(find_file(path, l->d, r.file, data));
            l->r = &r;
            l->split = s;
            PB_TRY(compile(&l->pattern, r.pattern));
            pb_err err = read_files(l, path);
            pcre2_code_free(l->pattern);
            PB_TRY(err);
        }
    }
    return PB_OK;
}

static pb_err load(pb_dataset *out, const pb_task *task, const pb_task_args *args)
{
    loading l = {.d = (const described *)task};
    pb_example *all = NULL;
    const char **refs = NULL;
    size_t start[PB_N_SPLITS + 1] = {0}, n_refs = 0;
    pb_err err = pb_dataset_new(&l.all);
    if (err)
        return err;
    PB_GO(read_all(&l, args->data));
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        start[s + 1] = start[s] + pb_dataset_count(l.all, s);
    all = malloc((start[PB_N_SPLITS] + 1) * sizeof *all);
    for (pb_split s = 0; s < PB_N_SPLITS && all; s++)
        for (size_t i = start[s]; i < start[s + 1]; i++) {
            all[i] = *pb_dataset_at(l.all, s, i - start[s]);
            n_refs += all[i].n_references;
        }
    refs = malloc((n_refs + 1) * sizeof *refs);
    if (!all || !refs) {
        err = pb_fail(PB_MEMORY, NULL, "no memory for %zu examples", start[PB_N_SPLITS]);
        goto done;
    }
    PB_GO(tidy(&l, all, start[PB_N_SPLITS], start, refs));
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        PB_GO(choose(out, s, all + start[s], start[s + 1] - start[s], args->limit[s]));
    PB_GO(add_notes(out, &l));
done:
    free(all);
    free(refs);
    pb_dataset_free(l.all);
    return err;
}

bool pb_described_found(const pb_task *t, const char *data)
{
    const described *d = (const described *)t;
    const json_t *one;
    for (pb_split s = 0; s < PB_N_SPLITS; s++)
        for (size_t i = 0; (one = file_at(d, s, i)); i++) {
            char path[MAX_PATH];
            recipe r;
            if (read_recipe(&r, d, one) || find_file(path, d, r.file, data) || !is_there(path))
                return false;
        }
    return true;
}

pb_err pb_describe(pb_task **out, const char *text, size_t len, const char *name, const char *own)
{
    *out = NULL;
    described *d = calloc(1, sizeof *d);
    char *copy = strdup(name);
    if (!d || !copy) {
        free(d);
        free(copy);
        return pb_fail(PB_MEMORY, NULL, "no memory for a task");
    }
    d->task.name = copy;
    d->task.load = load;
    pb_sha256(d->sha256, text, len);
    d->task.description = d->sha256;
    pb_err err = pb_path(d->own, sizeof d->own, "%s", own);
    if (!err)
        err = pb_json_parse(&d->j, text, len, "JSON");
    if (!err)
        err = read_description(d);
    if (err)
        pb_describe_free(&d->task);
    else
        *out = &d->task;
    return err;
}

void pb_describe_free(pb_task *t)
{
    described *d = (described *)t;
    if (!d)
        return;
    pcre2_code_free(d->out_pattern);
    json_decref(d->j);
    free((char *)d->task.name);
    free(d);
}
