// Options of methods: from text and JSON, and back; lists of linears in layers.
#include "model/adapter.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- texts that live for ever

// The same text is kept once, so that options may be copied and compared as plain memory.
static const char *intern(const char *text)
{
    typedef struct kept {
        struct kept *next;
        char text[];
    } kept;
    static kept *all;
    const char *found = NULL;
    if (!*text)
        return "";
#pragma omp critical(pb_intern)
    {
        for (const kept *k = all; k && !found; k = k->next)
            if (strcmp(k->text, text) == 0)
                found = k->text;
        kept *k = found ? NULL : malloc(sizeof *k + strlen(text) + 1);
        if (k) {
            strcpy(k->text, text);
            k->next = all;
            all = k;
            found = k->text;
        }
    }
    return found;
}

// ---------------------------------------------------------------- lists of linears in layers

enum { NAMES = PB_N_LINEARS };

// One item of a list, NAME[@LAYERS][:NUMBER].
typedef struct item {
    int linear;
    const char *layers; // behind the @, or NULL: all
    bool numbered;
    double number;
} item;

// A range such as 3 or 0-7 of "0-7+9"; moves *s behind it. False, and *s stays, when there is none.
static bool range(const char **s, size_t *first, size_t *last)
{
    char *end;
    if (**s < '0' || **s > '9')
        return false;
    errno = 0;
    *first = *last = strtoul(*s, &end, 10);
    if (*end == '-') {
        const char *second = end + 1;
        if (*second < '0' || *second > '9')
            return false;
        *last = strtoul(second, &end, 10);
    }
    if (errno || *first > *last || *last >= PB_MAX_LAYERS)
        return false;
    *s = end;
    return true;
}

// Reads the item at *s and moves behind it and its comma. False: it is malformed.
static bool next_item(const char **s, item *out)
{
    static const char *const names[] = {PB_LINEAR_NAMES};
    const char *p = *s;
    size_t n = strcspn(p, "@:,"), first, last;
    *out = (item){.linear = -1};
    for (int i = 0; i < NAMES; i++)
        if (strlen(names[i]) == n && !strncmp(names[i], p, n))
            out->linear = i;
    if (out->linear < 0)
        return false;
    p += n;
    if (*p == '@') {
        out->layers = ++p;
        while (range(&p, &first, &last) && *p == '+')
            p++;
        if (p == out->layers || p[-1] == '+')
            return false;
    }
    if (*p == ':') {
        char *end;
        out->number = strtod(++p, &end);
        out->numbered = true;
        if (end == p || !isfinite(out->number))
            return false;
        p = end;
    }
    if (*p == ',' && p[1])
        p++;
    else if (*p)
        return false;
    *s = p;
    return true;
}

static bool in_layer(const item *it, size_t layer)
{
    size_t first, last;
    const char *p = it->layers;
    if (!p)
        return true;
    while (range(&p, &first, &last)) {
        if (layer >= first && layer <= last)
            return true;
        p += *p == '+';
    }
    return false;
}

bool pb_site_listed(const char *list, size_t layer, pb_linear_id l, double *value)
{
    bool found = false;
    item it;
    for (const char *s = list; *s && next_item(&s, &it);)
        if (it.linear == (int)l && in_layer(&it, layer)) {
            found = true;
            if (value)
                *value = it.number;
        }
    return found;
}

pb_err pb_sites_fit(const char *list, const pb_config *c)
{
    item it;
    size_t first, last;
    for (const char *s = list; *s && next_item(&s, &it);)
        for (const char *p = it.layers; p && range(&p, &first, &last); p += *p == '+')
            if (last >= c->layers)
                return pb_fail(PB_USAGE, "layers count from 0",
                               "the list \"%.200s\" names layer %zu of a backbone of %zu", list,
                               last, c->layers);
    return PB_OK;
}

// Whether two layers belong to one item of a linear's: both listed, with the same number.
static bool alike(const double *value, bool numbers, int linear, size_t a, size_t b)
{
    double x = value[a * NAMES + (size_t)linear], y = value[b * NAMES + (size_t)linear];
    return !isnan(x) && !isnan(y) && (!numbers || x == y);
}

// "@0-3+7", or nothing when all layers are like `first`, the first of its kind.
static void print_layers(FILE *f, const double *value, bool numbers, int linear, size_t first,
                         size_t layers)
{
    char sign = '@';
    size_t n = 0;
    for (size_t k = 0; k < layers; k++)
        n += alike(value, numbers, linear, first, k);
    if (n == layers)
        return;
    for (size_t k = first; k < layers; k++) {
        size_t last = k;
        if (!alike(value, numbers, linear, first, k))
            continue;
        while (last + 1 < layers && alike(value, numbers, linear, first, last + 1))
            last++;
        fprintf(f, "%c%zu", sign, k);
        if (last > k)
            fprintf(f, "-%zu", last);
        sign = '+';
        k = last;
    }
}

const char *pb_sites_list(const double *value, size_t layers, bool numbers)
{
    static const char *const names[] = {PB_LINEAR_NAMES};
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    for (int t = 0; t < NAMES; t++)
        for (size_t i = 0; i < layers; i++) {
            bool seen = !alike(value, numbers, t, i, i);
            for (size_t k = 0; k < i && !seen; k++)
                seen = alike(value, numbers, t, i, k);
            if (seen)
                continue;
            fprintf(f, "%s%s", ftell(f) ? "," : "", names[t]);
            print_layers(f, value, numbers, t, i, layers);
            if (numbers)
                fprintf(f, ":%.17g", value[i * NAMES + (size_t)t]);
        }
    const char *out = fclose(f) || !text ? NULL : intern(text);
    free(text);
    return out;
}

// ---------------------------------------------------------------- options

const pb_option *pb_option_find(const pb_method *m, const char *name)
{
    const pb_option *found = NULL;
    size_t n = 0;
    for (const pb_option *o = m->options; o->name; o++) {
        const char *dot = m->parts ? strchr(o->name, '.') : NULL;
        if (!strcmp(o->name, name))
            return o;
        if (dot && !strcmp(dot + 1, name)) { // the bare name, where one part alone has it
            found = o;
            n++;
        }
    }
    return n == 1 ? found : NULL;
}

static void *field(const void *options, const pb_option *o)
{
    return (char *)options + o->offset;
}

static int name_index(const pb_option *o, const char *s, size_t len)
{
    for (int i = 0; o->names[i]; i++)
        if (strlen(o->names[i]) == len && !strncmp(o->names[i], s, len))
            return i;
    return -1;
}

static const char *list_names(const pb_option *o, char *out, size_t size)
{
    size_t n =
        (size_t)snprintf(out, size, "use %s", o->type == PB_OPT_FLAGS ? "any of " : "one of ");
    for (int i = 0; o->names[i] && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", o->names[i]);
    return out;
}

pb_err pb_options_set(const pb_method *m, void *options, const char *name, const char *value)
{
    char hint[400];
    const pb_option *o = pb_option_find(m, name);
    if (!o) {
        size_t n = 0;
        hint[0] = 0;
        for (const pb_option *k = m->options; k->name && n < sizeof hint; k++)
            n +=
                (size_t)snprintf(hint + n, sizeof hint - n, "%s%s", n ? ", " : "it has: ", k->name);
        return pb_fail(PB_USAGE, *hint ? hint : "it has no options",
                       "method %s has no option \"%s\"", m->name, name);
    }
    char *end = NULL;
    errno = 0;
    switch (o->type) {
    case PB_OPT_INT: {
        long v = strtol(value, &end, 10);
        snprintf(hint, sizeof hint, "%g..%g are possible", o->min, o->max);
        if (errno || end == value || *end || (double)v < o->min || (double)v > o->max)
            return pb_fail(PB_USAGE, hint, "%s: %s=%s is not a possible integer", m->name, name,
                           value);
        *(long *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_REAL: {
        double v = strtod(value, &end);
        snprintf(hint, sizeof hint, "%g..%g are possible", o->min, o->max);
        if (end == value || *end || !(v >= o->min && v <= o->max))
            return pb_fail(PB_USAGE, hint, "%s: %s=%s is not a possible number", m->name, name,
                           value);
        *(double *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_BOOL:
        if (strcmp(value, "true") && strcmp(value, "false"))
            return pb_fail(PB_USAGE, "use true or false", "%s: %s=%s", m->name, name, value);
        *(bool *)field(options, o) = value[0] == 't';
        return PB_OK;
    case PB_OPT_ENUM: {
        int v = name_index(o, value, strlen(value));
        if (v < 0)
            return pb_fail(PB_USAGE, list_names(o, hint, sizeof hint), "%s: %s=%s", m->name, name,
                           value);
        *(int *)field(options, o) = v;
        return PB_OK;
    }
    case PB_OPT_FLAGS: {
        unsigned set = 0;
        for (const char *s = value; *s;) {
            size_t len = strcspn(s, ",");
            int v = name_index(o, s, len);
            if (v < 0)
                return pb_fail(PB_USAGE, list_names(o, hint, sizeof hint), "%s: %s=%s has \"%.*s\"",
                               m->name, name, value, (int)len, s);
            set |= 1u << v;
            s += len + (s[len] == ',');
        }
        *(unsigned *)field(options, o) = set;
        return PB_OK;
    }
    case PB_OPT_SITES:
    case PB_OPT_SITE_VALUES: {
        bool numbers = o->type == PB_OPT_SITE_VALUES;
        item it;
        for (const char *s = value; *s;) {
            const char *at = s;
            if (!next_item(&s, &it) || it.numbered != numbers ||
                (numbers && !(it.number >= o->min && it.number <= o->max))) {
                if (numbers)
                    snprintf(hint, sizeof hint, "e.g. \"q:4,down@0-3+7:16\", with %g..%g", o->min,
                             o->max);
                else
                    snprintf(hint, sizeof hint,
                             "e.g. \"q,v\" or \"q,down@0-3+7\"; linears are q, k, "
                             "v, o, gate, up, down");
                return pb_fail(PB_USAGE, hint, "%s: %s has \"%.*s\"", m->name, name,
                               (int)strcspn(at, ","), at);
            }
        }
        const char *kept = intern(value);
        if (!kept)
            return pb_fail(PB_MEMORY, NULL, "no memory for the options of %s", m->name);
        *(const char **)field(options, o) = kept;
        return PB_OK;
    }
    }
    return PB_OK;
}

pb_err pb_options_assign(const pb_method *m, void *options, const char *text)
{
    char name[100];
    size_t n = strcspn(text, "=");
    if (!text[n] || n >= sizeof name)
        return pb_fail(PB_USAGE, "use NAME=VALUE", "\"%s\" sets no option of %s", text, m->name);
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    return pb_options_set(m, options, name, text + n + 1);
}

pb_err pb_options_new(void **out, const pb_method *m)
{
    pb_err err = PB_OK;
    char text[200], *save = NULL;
    *out = calloc(1, m->options_size ? m->options_size : 1);
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "no memory for the options of %s", m->name);
    if (m->parts)
        memcpy(*out, &m->parts, sizeof m->parts);
    for (const pb_option *o = m->options; o->name; o++)
        PB_GO(pb_options_set(m, *out, o->name, o->def));
    snprintf(text, sizeof text, "%s", m->variant ? m->variant : "");
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        PB_GO(pb_options_assign(m, *out, w));
done:
    if (err) {
        free(*out);
        *out = NULL;
    }
    return err;
}

pb_err pb_options_from_json(const pb_method *m, void *options, const json_t *obj)
{
    const char *key;
    json_t *v;
    if (!obj)
        return PB_OK;
    if (!json_is_object(obj))
        return pb_fail(PB_INPUT, NULL, "the options of %s must be a JSON object", m->name);
    json_object_foreach((json_t *)obj, key, v)
    {
        char text[64];
        const char *value = text;
        if (json_is_string(v))
            value = json_string_value(v);
        else if (json_is_integer(v))
            snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        else if (json_is_real(v))
            snprintf(text, sizeof text, "%.17g", json_real_value(v));
        else if (json_is_boolean(v))
            snprintf(text, sizeof text, "%s", json_is_true(v) ? "true" : "false");
        else
            return pb_fail(PB_INPUT, "use a string, a number, true or false",
                           "%s: option \"%s\" has an impossible type", m->name, key);
        PB_TRY(pb_options_set(m, options, key, value));
    }
    return PB_OK;
}

json_t *pb_options_to_json(const pb_method *m, const void *options)
{
    json_t *obj = json_object();
    for (const pb_option *o = m->options; o->name; o++) {
        json_t *v = NULL;
        char text[256];
        size_t n = 0;
        switch (o->type) {
        case PB_OPT_INT:
            v = json_integer(*(long *)field(options, o));
            break;
        case PB_OPT_REAL:
            v = json_real(*(double *)field(options, o));
            break;
        case PB_OPT_BOOL:
            v = json_boolean(*(bool *)field(options, o));
            break;
        case PB_OPT_ENUM:
            v = json_string(o->names[*(int *)field(options, o)]);
            break;
        case PB_OPT_FLAGS:
            text[0] = 0;
            for (int i = 0; o->names[i]; i++)
                if (*(unsigned *)field(options, o) >> i & 1)
                    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? "," : "",
                                          o->names[i]);
            v = json_string(text);
            break;
        case PB_OPT_SITES:
        case PB_OPT_SITE_VALUES:
            v = json_string(*(const char **)field(options, o));
            break;
        }
        json_object_set_new(obj, o->name, v);
    }
    return obj;
}

long pb_options_knob(const pb_method *m, const void *options)
{
    return m->knob ? *(long *)field(options, pb_option_find(m, m->knob)) : 0;
}

bool pb_options_same_group(const pb_method *m, const void *a, const void *b)
{
    for (const pb_option *o = m->options; o->name; o++) {
        if (o->per_tenant)
            continue;
        static const size_t sizes[] = {
            [PB_OPT_INT] = sizeof(long),          [PB_OPT_REAL] = sizeof(double),
            [PB_OPT_BOOL] = sizeof(bool),         [PB_OPT_ENUM] = sizeof(int),
            [PB_OPT_FLAGS] = sizeof(int),         [PB_OPT_SITES] = sizeof(char *),
            [PB_OPT_SITE_VALUES] = sizeof(char *)};
        size_t size = sizes[o->type];
        if (memcmp(field(a, o), field(b, o), size))
            return false;
    }
    return true;
}
