// How modules are selected follows the functions check_target_module_exists and get_pattern_key of
// Hugging Face PEFT (github.com/huggingface/peft): a string is a regular expression that matches
// the whole name of a module, a list holds names or ends of names behind a dot.
#include "model/peft.h"

#include "model/compose.h"

#include "core/log.h"
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODULE = 64, MAX_PATTERN = 4096, MATCH_LIMIT = 1000000, HEAP_KIB = 20000 };

// Keys of every kind of adapter.
static const pb_peft_key common[] = {{"peft_type", .idle = true},
                                     {"task_type", .only = "[\"CAUSAL_LM\"]"},
                                     {"modules_to_save", .only = "[null, []]"},
                                     {"inference_mode", .idle = true},
                                     {"base_model_name_or_path", .idle = true},
                                     {"revision", .idle = true},
                                     {"auto_mapping", .idle = true},
                                     {"peft_version", .idle = true},
                                     {"pedrobench", .idle = true},
                                     {0}};

// ---------------------------------------------------------------- values of one key

static const json_t *given(const json_t *file, const char *key)
{
    const json_t *v = json_object_get(file, key);
    return json_is_null(v) ? NULL : v;
}

static const pb_peft_key *find_key(const pb_peft_key *keys, const char *name)
{
    for (; keys && keys->key; keys++)
        if (!strcmp(keys->key, name))
            return keys;
    return NULL;
}

// A value as it stands in the file, for messages.
static void show(char out[80], const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, 80, strlen(text ? text : "?") < 80 ? "%s" : "%.75s ...", text ? text : "?");
    free(text);
}

static pb_err check_only(const pb_peft_key *k, const json_t *v)
{
    char text[80], hint[200];
    json_t *list = json_loads(k->only, 0, NULL);
    bool found = !v;
    for (size_t i = 0; i < json_array_size(list) && !found; i++)
        found = json_equal(json_array_get(list, i), v);
    json_decref(list);
    if (found)
        return PB_OK;
    show(text, v);
    snprintf(hint, sizeof hint, "supported: %s", k->only);
    return pb_fail(PB_UNSUPPORTED, hint, "\"%s\" is %s", k->key, text);
}

static pb_err check_follows(const pb_peft_key *k, const json_t *v, const pb_config *c)
{
    size_t want = k->follows(c);
    char text[80];
    if (!v || (json_is_integer(v) && json_integer_value(v) == (json_int_t)want))
        return PB_OK;
    show(text, v);
    return pb_fail(PB_INPUT, "an adapter fits only the geometry it was made for",
                   "\"%s\" is %s, but this backbone calls for %zu", k->key, text, want);
}

// ---------------------------------------------------------------- regular expressions

typedef struct regex {
    const char *key; // of the file
    char text[80];   // the beginning, for messages
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
} regex;

static void regex_free(regex *r)
{
    pcre2_code_free(r->code);
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->limits);
    *r = (regex){0};
}

// before + text + after is the expression; it matches from the start of a name on.
static pb_err regex_new(regex *r, const char *key, const char *before, const char *text,
                        const char *after, uint32_t flags)
{
    char whole[MAX_PATTERN];
    int code;
    size_t where;
    *r = (regex){.key = key};
    snprintf(r->text, sizeof r->text, "%s", text);
    PB_TRY(pb_path(whole, sizeof whole, "%s%s%s", before, text, after));
    r->code = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | flags, &code,
                            &where, NULL);
    if (!r->code) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(code, why, sizeof why);
        return pb_fail(PB_INPUT, (const char *)why,
                       "\"%s\" has \"%s\", which is no regular expression", key, r->text);
    }
    r->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->match || !r->limits) {
        regex_free(r);
        return pb_fail(PB_MEMORY, NULL, "no memory for a regular expression");
    }
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_KIB);
    return PB_OK;
}

static pb_err regex_match(const regex *r, const char *name, bool *yes)
{
    int n =
        pcre2_match(r->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, r->match, r->limits);
    *yes = n >= 0;
    if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
        return PB_OK;
    return pb_fail(PB_UNSUPPORTED, "write a simpler expression",
                   "\"%s\": matching \"%s\" takes too long", r->key, r->text);
}

// ---------------------------------------------------------------- modules

// The modules of a backbone that can be named: its linears, layer by layer, and behind them the
// embedding and the head, which no method here can adapt.
typedef struct modules {
    size_t n, linears;
    char (*name)[MAX_MODULE];
    unsigned char *mark; // (n): selected by the end of its name or an expression, or by its name
} modules;

enum { NOT, BY_END, BY_NAME };

static pb_err modules_new(modules *m, const pb_config *c)
{
    m->linears = c->layers * PB_N_LINEARS;
    m->n = m->linears + 2;
    m->name = calloc(m->n, sizeof *m->name);
    m->mark = calloc(m->n, 1);
    if (!m->name || !m->mark)
        return pb_fail(PB_MEMORY, NULL, "no memory for the names of %zu modules", m->n);
    for (size_t i = 0; i < m->linears; i++)
        snprintf(m->name[i], MAX_MODULE, "model.layers.%zu.%s", i / PB_N_LINEARS,
                 pb_linear_path((pb_linear_id)(i % PB_N_LINEARS)));
    snprintf(m->name[m->linears], MAX_MODULE, "model.embed_tokens");
    snprintf(m->name[m->linears + 1], MAX_MODULE, "lm_head");
    return PB_OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && name[n - m - 1] == '.' && !strcmp(name + n - m, end);
}

// Marks what a string or list selects.
static pb_err mark(modules *m, const char *key, const json_t *which)
{
    pb_err err = PB_OK;
    regex r = {0};
    memset(m->mark, NOT, m->n);
    if (json_is_string(which)) {
        const char *text = json_string_value(which);
        bool yes, all = !strcmp(text, "all-linear");
        if (all) {
            memset(m->mark, BY_END, m->linears);
            return PB_OK;
        }
        PB_TRY(regex_new(&r, key, "", text, "", PCRE2_ENDANCHORED));
        for (size_t i = 0; i < m->n; i++) {
            PB_GO(regex_match(&r, m->name[i], &yes));
            m->mark[i] = yes ? BY_END : NOT;
        }
        goto done;
    }
    if (!json_is_array(which))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be a string or a list of strings", key);
    for (size_t k = 0; k < json_array_size(which); k++) {
        const char *text = json_string_value(json_array_get(which, k));
        bool any = false;
        if (!text)
            return pb_fail(PB_INPUT, NULL, "\"%s\" must be a string or a list of strings", key);
        for (size_t i = 0; i < m->n; i++) {
            bool whole = !strcmp(m->name[i], text), end = ends_with(m->name[i], text);
            any |= whole || end;
            if (whole)
                m->mark[i] = BY_NAME;
            else if (end && !m->mark[i])
                m->mark[i] = BY_END;
        }
        if (!any)
            pb_warn("\"%s\": no module of this backbone is called \"%.80s\"", key, text);
    }
done:
    regex_free(&r);
    return err;
}

static pb_err unmark_excluded(modules *m, const json_t *which)
{
    if (!which)
        return PB_OK;
    unsigned char *before = malloc(m->n);
    if (!before)
        return pb_fail(PB_MEMORY, NULL, "no memory for a list of modules");
    memcpy(before, m->mark, m->n);
    pb_err err = mark(m, "exclude_modules", which);
    for (size_t i = 0; i < m->n; i++)
        m->mark[i] = m->mark[i] ? NOT : before[i];
    free(before);
    return err;
}

static bool has_layer(const json_t *layers, long layer)
{
    if (json_is_integer(layers))
        return json_integer_value(layers) == layer;
    for (size_t i = 0; i < json_array_size(layers); i++)
        if (json_integer_value(json_array_get(layers, i)) == layer)
            return true;
    return false;
}

// The number that layers_pattern finds in a module's name, or -1.
static pb_err layer_of(long *out, const char *name, const json_t *pattern)
{
    size_t n = json_is_array(pattern) ? json_array_size(pattern) : 1;
    bool any = !pattern || (json_is_array(pattern) && !n) ||
               (json_is_string(pattern) && !json_string_length(pattern));
    *out = -1;
    for (size_t i = 0; i < (any ? 1 : n) && *out < 0; i++) {
        const json_t *p = json_is_array(pattern) ? json_array_get(pattern, i) : pattern;
        const char *text = any ? "[^.]*" : json_string_value(p);
        regex r;
        bool yes;
        if (!text)
            return pb_fail(PB_INPUT, NULL, "\"layers_pattern\" must be a string or a list of them");
        PB_TRY(regex_new(&r, "layers_pattern", ".*\\.", text, "\\.(\\d+)\\.", 0));
        pb_err err = regex_match(&r, name, &yes);
        PCRE2_UCHAR *number = NULL;
        PCRE2_SIZE len;
        if (!err && yes && !pcre2_substring_get_bynumber(r.match, 1, &number, &len)) {
            char *end;
            *out = strtol((const char *)number, &end, 10);
            if (*end || !len) // the expression has groups of its own
                *out = -1;
            pcre2_substring_free(number);
        }
        regex_free(&r);
        PB_TRY(err);
    }
    return PB_OK;
}

static pb_err unmark_layers(modules *m, const json_t *layers, const json_t *pattern, bool listed)
{
    if (!layers || (json_is_array(layers) && !json_array_size(layers)))
        return PB_OK;
    if (!listed)
        return pb_fail(PB_UNSUPPORTED, "as in PEFT, it needs a list of module names",
                       "\"layers_to_transform\" stands beside a \"target_modules\" that is a "
                       "string");
    bool fits = json_is_integer(layers) || json_is_array(layers);
    for (size_t i = 0; i < json_array_size(layers); i++)
        fits = fits && json_is_integer(json_array_get(layers, i));
    if (!fits)
        return pb_fail(PB_INPUT, NULL,
                       "\"layers_to_transform\" must be an integer or a list of "
                       "integers");
    for (size_t i = 0; i < m->n; i++) {
        long layer;
        if (m->mark[i] != BY_END)
            continue;
        PB_TRY(layer_of(&layer, m->name[i], pattern));
        if (layer < 0 || !has_layer(layers, layer))
            m->mark[i] = NOT;
    }
    return PB_OK;
}

// A module list, with what the keys that select say, as a list of linears.
static pb_err read_sites(const char **out, const json_t *which, const pb_peft_key *k,
                         const json_t *file, const pb_peft_key *keys, modules *m)
{
    const json_t *select[3];
    static const char *const names[] = {"exclude_modules", "layers_to_transform", "layers_pattern"};
    for (int i = 0; i < 3; i++)
        select[i] = find_key(keys, names[i]) ? given(file, names[i]) : NULL;
    PB_TRY(mark(m, k->key, which));
    PB_TRY(unmark_excluded(m, select[0]));
    PB_TRY(unmark_layers(m, select[1], select[2], json_is_array(which)));
    for (size_t i = m->linears; i < m->n; i++)
        if (m->mark[i])
            return pb_fail(PB_UNSUPPORTED, "linears of the layers alone can be adapted",
                           "\"%s\" selects \"%s\"", k->key, m->name[i]);
    double *value = malloc(m->linears * sizeof *value);
    bool any = false;
    for (size_t i = 0; value && i < m->linears; i++) {
        value[i] = m->mark[i] ? 0 : NAN;
        any |= m->mark[i] != NOT;
    }
    *out = value ? pb_sites_list(value, m->linears / PB_N_LINEARS, false) : NULL;
    free(value);
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "no memory for a list of modules");
    bool empty = json_is_array(which) && !json_array_size(which);
    return any || empty ? PB_OK
                        : pb_fail(PB_INPUT, "is this the adapter's backbone?",
                                  "\"%s\" selects no linear of this backbone", k->key);
}

// An object of expressions and numbers; the first that matches the end of a name counts.
static pb_err read_values(const char **out, const json_t *pattern, const pb_peft_key *k,
                          const pb_option *o, modules *m)
{
    const char *key;
    json_t *v;
    if (!json_is_object(pattern))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be an object", k->key);
    double *value = malloc(m->linears * sizeof *value);
    if (!value)
        return pb_fail(PB_MEMORY, NULL, "no memory for a list of modules");
    for (size_t i = 0; i < m->linears; i++)
        value[i] = NAN;
    pb_err err = PB_OK;
    json_object_foreach((json_t *)pattern, key, v)
    {
        regex r;
        bool yes, any = false, fits = k->ends ? json_is_array(v) : json_is_number(v);
        double x = json_number_value(v);
        char text[MAX_PATTERN];
        size_t n = strlen(key), cut = k->ends ? strlen(k->ends) : 0;
        if (n <= cut || strcmp(key + n - cut, k->ends ? k->ends : "") != 0)
            cut = 0;
        for (size_t i = 0; k->ends && i < json_array_size(v); i++)
            x += json_is_true(json_array_get(v, i));
        PB_GO(pb_path(text, sizeof text, "%.*s", (int)(n - cut), key));
        if (!fits || !(x >= o->min && x <= o->max))
            PB_GO(pb_fail(PB_INPUT, NULL, "\"%s\" gives \"%.80s\" no number in %g..%g", k->key,
                          text, o->min, o->max));
        PB_GO(regex_new(&r, k->key, "(.*\\.)?(", text, ")$", 0));
        for (size_t i = 0; i < m->linears && !err; i++) {
            err = regex_match(&r, m->name[i], &yes);
            any |= yes;
            if (yes && isnan(value[i]))
                value[i] = x;
        }
        regex_free(&r);
        PB_GO(err);
        if (!any)
            pb_warn("\"%s\": no linear of this backbone is called \"%.80s\"", k->key, text);
    }
    *out = pb_sites_list(value, m->linears / PB_N_LINEARS, true);
    err = *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a list of modules");
done:
    free(value);
    return err;
}

// ---------------------------------------------------------------- reading

static pb_err wrong_type(const char *key, const char *type)
{
    return pb_fail(PB_INPUT, NULL, "\"%s\" must be %s", key, type);
}

// Reads the value of a key that holds an option.
static pb_err read_option(const pb_method *m, void *options, const pb_peft_key *k,
                          const json_t *file, modules *mods)
{
    const pb_option *o = pb_option_find(m, k->option);
    const json_t *v = given(file, k->key);
    const char *text = NULL;
    char number[64];
    if (!v && k->required)
        return pb_fail(PB_INPUT, NULL, "the key \"%s\" is missing", k->key);
    if (!v) // lists that are not there are empty; what else is not there has its default
        return o->type < PB_OPT_SITES ? PB_OK : pb_options_set(m, options, o->name, "");
    switch (o->type) {
    case PB_OPT_INT: {
        int64_t x;
        PB_TRY(pb_json_int(file, k->key, &x, (int64_t)o->min, (int64_t)o->max));
        snprintf(number, sizeof number, "%lld", (long long)x);
        text = number;
        break;
    }
    case PB_OPT_REAL: {
        double x;
        PB_TRY(pb_json_real(file, k->key, &x, o->min, o->max));
        snprintf(number, sizeof number, "%.17g", x);
        text = number;
        break;
    }
    case PB_OPT_BOOL:
        if (!json_is_boolean(v))
            return wrong_type(k->key, "true or false");
        text = json_is_true(v) ? "true" : "false";
        break;
    case PB_OPT_ENUM:
        text = json_string_value(v);
        if (!text)
            return wrong_type(k->key, "a string");
        break;
    case PB_OPT_FLAGS: {
        char list[256] = "";
        size_t n = 0;
        if (!json_is_array(v))
            return wrong_type(k->key, "a list of strings");
        for (size_t i = 0; i < json_array_size(v); i++) {
            const char *one = json_string_value(json_array_get(v, i));
            if (!one || strlen(one) + n + 2 > sizeof list)
                return wrong_type(k->key, "a list of names");
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? "," : "", one);
        }
        return pb_options_set(m, options, o->name, list);
    }
    case PB_OPT_SITES:
        PB_TRY(read_sites(&text, v, k, file, m->peft_keys, mods));
        break;
    case PB_OPT_SITE_VALUES:
        PB_TRY(read_values(&text, v, k, o, mods));
        break;
    }
    return pb_options_set(m, options, o->name, text);
}

static pb_err read_keys(const pb_method *m, void *options, const json_t *file, const pb_config *c,
                        modules *mods)
{
    const pb_peft_key *tables[] = {common, m->peft_keys};
    for (int i = 0; i < 2; i++)
        for (const pb_peft_key *k = tables[i]; k && k->key; k++) {
            const json_t *v = given(file, k->key);
            if (k->option)
                PB_TRY(read_option(m, options, k, file, mods));
            else if (k->only && !k->idle)
                PB_TRY(check_only(k, v));
            else if (k->follows)
                PB_TRY(check_follows(k, v, c));
        }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)file, key, v)
    {
        if (!json_is_null(v) && !find_key(common, key) && !find_key(m->peft_keys, key))
            pb_warn("adapter_config.json: the key \"%.80s\" is not known and is passed over", key);
    }
    return PB_OK;
}

// Whether a file has what tells the method apart from others of its type.
static bool is_where(const pb_method *m, const json_t *file)
{
    const char *key;
    json_t *where = json_loads(m->peft_where, 0, NULL), *v;
    bool same = true;
    json_object_foreach(where, key, v) same &= json_equal(v, json_object_get(file, key)) != 0;
    json_decref(where);
    return same;
}

pb_err pb_peft_method(const pb_method **out, const json_t *file)
{
    char known[256] = "known are";
    const char *type;
    *out = NULL;
    if (!json_is_object(file))
        return pb_fail(PB_INPUT, NULL, "adapter_config.json must hold a JSON object");
    PB_TRY(pb_json_str(file, "peft_type", &type));
    const pb_method *m;
    if (pb_peft_is_composition(file)) {
        const json_t *parts = json_object_get(file, "parts");
        char name[512] = "";
        for (size_t i = 0; i < json_array_size(parts); i++) {
            const char *one = json_string_value(json_array_get(parts, i));
            PB_TRY(pb_path(name + strlen(name), sizeof name - strlen(name), "%s%s", i ? "+" : "",
                           one ? one : "?"));
        }
        *out = pb_method_find(name);
        return *out ? PB_OK : PB_INPUT;
    }
    for (size_t i = 0; (m = pb_method_at(i)); i++) {
        size_t n = strlen(known);
        if (m->backbone || m->variant)
            continue;
        if (!strcmp(m->peft_type, type) && (m->peft_where ? is_where(m, file) : !*out))
            *out = m;
        if (!m->peft_where)
            snprintf(known + n, sizeof known - n, " %s", m->peft_type);
    }
    if (*out)
        return PB_OK;
    return pb_fail(PB_UNSUPPORTED, known, "\"peft_type\" is \"%.80s\"", type);
}

// What the suite itself wrote.
static pb_err read_own(const pb_method *m, void *options, const json_t *own, const pb_config *c,
                       const char *sha256)
{
    static const char *const keys[] = {"options", "backbone", NULL};
    const char *made_for = NULL;
    PB_TRY(pb_json_only(own, keys, "\"pedrobench\""));
    PB_TRY(pb_options_from_json(m, options, json_object_get(own, "options")));
    const json_t *backbone = json_object_get(own, "backbone");
    if (!backbone)
        return PB_OK;
    PB_TRY(pb_config_fits(c, backbone));
    PB_TRY(pb_json_opt_str(backbone, "sha256", &made_for));
    if (made_for && sha256 && *sha256 && strcmp(made_for, sha256) != 0)
        return pb_fail(PB_INPUT,
                       "to use it all the same, remove \"sha256\" from \"pedrobench\" in "
                       "adapter_config.json",
                       "it was made for a backbone with other weights (%.12s..., not %.12s...)",
                       made_for, sha256);
    return PB_OK;
}

pb_err pb_peft_read(const pb_method **method, void **options, const json_t *file,
                    const pb_config *c, const char *sha256)
{
    pb_err err = PB_OK;
    modules mods = {0};
    *options = NULL;
    PB_GO(pb_peft_method(method, file));
    PB_GO(pb_options_new(options, *method));
    const json_t *own = given(file, "pedrobench");
    if (own)
        PB_GO(read_own(*method, *options, own, c, sha256));
    PB_GO(modules_new(&mods, c));
    err = read_keys(*method, *options, file, c, &mods);
done:
    free(mods.name);
    free(mods.mark);
    if (err) {
        free(*options);
        *options = NULL;
    }
    return err == PB_USAGE ? PB_INPUT : err; // the file is wrong, not the command line
}

// ---------------------------------------------------------------- writing

static json_t *number(double x)
{
    return x == rint(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

// Names of modules with their numbers: of all layers by the end of the name, else one by one.
static void each_module(json_t *out, const char *list, bool numbers, const pb_config *c)
{
    for (int t = 0; t < PB_N_LINEARS; t++) {
        pb_linear_id id = (pb_linear_id)t;
        const char *path = pb_linear_path(id);
        double first = 0, x = 0;
        bool all = true;
        for (size_t i = 0; i < c->layers && all; i++) {
            all = pb_site_listed(list, i, id, i ? &x : &first);
            all = all && (!i || !numbers || x == first);
        }
        for (size_t i = 0; i < (all ? 1 : c->layers); i++) {
            char name[MAX_MODULE];
            x = 0;
            if (!pb_site_listed(list, i, id, &x))
                continue;
            if (all)
                snprintf(name, sizeof name, "%s", strchr(path, '.') + 1);
            else
                snprintf(name, sizeof name, numbers ? "layers.%zu.%s" : "model.layers.%zu.%s", i,
                         path);
            if (numbers)
                json_object_set_new(out, name, number(x));
            else
                json_array_append_new(out, json_string(name));
        }
    }
}

// Lists of true and false, module by module: the first as many of them true as the number says.
static json_t *masks(const pb_adapter *a, const char *list, const pb_peft_key *k)
{
    json_t *out = json_object();
    const pb_option *o = pb_option_find(a->method, k->length);
    long length = *(const long *)((const char *)a->options + o->offset);
    for (size_t i = 0; i < a->config.layers * PB_N_LINEARS; i++) {
        pb_linear_id id = (pb_linear_id)(i % PB_N_LINEARS);
        char name[MAX_MODULE];
        double x;
        if (!pb_site_listed(list, i / PB_N_LINEARS, id, &x))
            continue;
        snprintf(name, sizeof name, "model.layers.%zu.%s%s", i / PB_N_LINEARS, pb_linear_path(id),
                 k->ends);
        json_t *mask = json_array();
        for (long j = 0; j < length; j++)
            json_array_append_new(mask, json_boolean((double)j < x));
        json_object_set_new(out, name, mask);
    }
    return out;
}

static json_t *option_value(const pb_adapter *a, const pb_option *o, const pb_peft_key *k)
{
    const void *at = (const char *)a->options + o->offset;
    json_t *v = NULL;
    switch (o->type) {
    case PB_OPT_INT:
        return json_integer(*(const long *)at);
    case PB_OPT_REAL:
        return number(*(const double *)at);
    case PB_OPT_BOOL:
        return json_boolean(*(const bool *)at);
    case PB_OPT_ENUM:
        return json_string(o->names[*(const int *)at]);
    case PB_OPT_FLAGS:
        v = json_array();
        for (int i = 0; o->names[i]; i++)
            if (*(const unsigned *)at >> i & 1)
                json_array_append_new(v, json_string(o->names[i]));
        return v;
    case PB_OPT_SITES:
    case PB_OPT_SITE_VALUES:
        if (k->ends)
            return masks(a, *(const char *const *)at, k);
        v = o->type == PB_OPT_SITES ? json_array() : json_object();
        each_module(v, *(const char *const *)at, o->type == PB_OPT_SITE_VALUES, &a->config);
    }
    return v;
}

static json_t *first_of(const char *list)
{
    json_t *j = json_loads(list, 0, NULL), *v = json_incref(json_array_get(j, 0));
    json_decref(j);
    return v;
}

pb_err pb_peft_write(json_t **out, const pb_adapter *a)
{
    const pb_method *m = a->method;
    json_t *j = json_object(), *options = pb_options_to_json(m, a->options);
    json_t *backbone = pb_config_geometry(&a->config);
    *out = j;
    json_object_set_new(j, "peft_type", json_string(m->peft_type));
    if (m->parts) { // each of which has a file of its own
        json_t *names = json_array();
        for (size_t i = 0; i < pb_parts_count(m); i++)
            json_array_append_new(names, json_string(pb_part(m, i)->name));
        json_decref(options);
        json_decref(backbone);
        return json_object_set_new(j, "parts", names)
                   ? pb_fail(PB_MEMORY, NULL, "no memory for adapter_config.json")
                   : PB_OK;
    }
    json_object_set_new(j, "task_type", json_string("CAUSAL_LM"));
    json_object_set_new(j, "inference_mode", json_true());
    json_object_set_new(j, "base_model_name_or_path",
                        *a->base ? json_string(a->base) : json_null());
    for (const pb_peft_key *k = m->peft_keys; k && k->key; k++) {
        if (k->option) {
            json_object_set_new(j, k->key, option_value(a, pb_option_find(m, k->option), k));
            json_object_del(options, k->option);
        } else if (k->only) {
            json_t *first = first_of(k->only);
            if (!json_is_null(first))
                json_object_set(j, k->key, first);
            json_decref(first);
        } else if (k->follows) {
            json_object_set_new(j, k->key, json_integer((json_int_t)k->follows(&a->config)));
        }
    }
    if (m->peft_where) {
        json_t *where = json_loads(m->peft_where, 0, NULL);
        json_object_update(j, where);
        json_decref(where);
    }
    if (*a->base_sha256)
        json_object_set_new(backbone, "sha256", json_string(a->base_sha256));
    json_t *own = json_pack("{s:o, s:o}", "options", options, "backbone", backbone);
    if (!own || json_object_set_new(j, "pedrobench", own)) {
        json_decref(j);
        *out = NULL;
        return pb_fail(PB_MEMORY, NULL, "no memory for adapter_config.json");
    }
    return PB_OK;
}
