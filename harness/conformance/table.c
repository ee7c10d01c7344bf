// The check of a method's table and of its options.
#include "conformance/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t size_of(pb_option_type type)
{
    switch (type) {
    case PB_OPT_INT:
        return sizeof(long);
    case PB_OPT_REAL:
        return sizeof(double);
    case PB_OPT_BOOL:
        return sizeof(bool);
    case PB_OPT_ENUM:
    case PB_OPT_FLAGS:
        return sizeof(int);
    default:
        return sizeof(char *);
    }
}

static pb_err check_option(const pb_method *m, const pb_option *o)
{
    bool named = o->type == PB_OPT_ENUM || o->type == PB_OPT_FLAGS || o->type == PB_OPT_SITES ||
                 o->type == PB_OPT_SITE_VALUES;
    if (!o->def)
        return WRONG("as text: \"8\", \"true\", \"\"", "option \"%s\" has no default", o->name);
    if (!o->doc)
        return WRONG("one line", "option \"%s\" has no documentation", o->name);
    if (o->offset + size_of(o->type) > m->options_size)
        return WRONG(".options_size = sizeof(struct ...)",
                     "option \"%s\" lies outside the options struct of %zu bytes", o->name,
                     m->options_size);
    if (named && !o->names)
        return WRONG("a list that ends with NULL", "option \"%s\" has no names", o->name);
    if ((o->type == PB_OPT_INT || o->type == PB_OPT_REAL) && !(o->min < o->max))
        return WRONG("fill in min and max", "option \"%s\" allows %g..%g", o->name, o->min, o->max);
    for (const pb_option *k = m->options; k != o; k++) {
        if (!strcmp(k->name, o->name))
            return WRONG(NULL, "two options are called \"%s\"", o->name);
        if (k->offset < o->offset + size_of(o->type) && o->offset < k->offset + size_of(k->type))
            return WRONG("offsetof the field of its own type: long for INT, double for REAL, bool, "
                         "int for ENUM, unsigned for FLAGS",
                         "options \"%s\" and \"%s\" share memory", k->name, o->name);
    }
    return PB_OK;
}

static pb_err check_key(const pb_method *m, const pb_peft_key *k)
{
    if (k->option && !pb_option_find(m, k->option))
        return WRONG(NULL, "the key \"%s\" holds an option \"%s\" that the method has not", k->key,
                     k->option);
    json_t *list = k->only ? json_loads(k->only, 0, NULL) : NULL;
    bool fine = !k->only || json_array_size(list);
    json_decref(list);
    return fine ? PB_OK
                : WRONG("e.g. \"[false]\"", "the key \"%s\": %s is no JSON list", k->key, k->only);
}

static bool both_or_none(bool a, bool b)
{
    return a == b;
}

static pb_err check_hooks(const pb_method *m)
{
    if (!m->layout && !m->backbone)
        return WRONG("it adds every parameter matrix", "`layout` is missing");
    if (!both_or_none(m->state, m->prompt))
        return WRONG("`state` says how many floats `prompt` fills in, and pb_state returns",
                     "`%s` is there, but `%s` is missing", m->state ? "state" : "prompt",
                     m->state ? "prompt" : "state");
    int ways = (m->prefix != NULL) + (m->virtual_tokens != NULL) + (m->prompt_prefix != NULL);
    if (!both_or_none(m->prefix_len, ways > 0))
        return WRONG("`prefix_len` goes with one of `prefix`, `virtual_tokens`, `prompt_prefix`",
                     "`%s` is there, but `%s` is missing",
                     !ways               ? "prefix_len"
                     : m->prefix         ? "prefix"
                     : m->virtual_tokens ? "virtual_tokens"
                                         : "prompt_prefix",
                     ways ? "prefix_len" : "prefix");
    if (ways > 1)
        return WRONG("one of them makes what is in front of a sequence",
                     "there are %d of `prefix`, `virtual_tokens` and `prompt_prefix`", ways);
    if (m->prompt_prefix && !m->state)
        return WRONG("it makes keys and values of what `prompt` left there",
                     "`prompt_prefix` is there, but `state` is missing");
    if (!both_or_none(m->fold || m->trim, m->fold_values))
        return WRONG(NULL, "`%s` is there, but `%s` is missing", m->fold ? "fold" : "fold_values",
                     m->fold ? "fold_values" : "fold");
    return PB_OK;
}

static pb_err check_rates(conf *c, const pb_subject *s)
{
    const pb_method *m = s->m;
    bool any = m->backbone;
    if (!any)
        PB_TRY(conf_has(c, s, 0, 0, &any));
    if (!any)
        return PB_OK;
    if (!(m->lr > 0))
        return WRONG("a rate that trains the defaults", ".lr is missing");
    if (!m->lr_grid || !(m->lr_grid[0] > 0))
        return WRONG("rates to try, ending with 0: {1e-3, 3e-3, 1e-2, 0}", ".lr_grid is missing");
    for (int i = 0; m->lr_grid[i] != 0; i++)
        if (i > 30 || !(m->lr_grid[i] > 0 && m->lr_grid[i] < 100))
            return WRONG("rates end with 0", ".lr_grid[%d] is %g", i, m->lr_grid[i]);
    return PB_OK;
}

pb_err check_table(conf *c, const pb_subject *s, size_t t)
{
    const pb_method *m = s->m, *other;
    if (t || *s->options)
        SKIP(c, "once per method");
    for (const char *p = m->name; *p && !m->parts; p++)
        if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '_' && *p != '-')
            return WRONG("lower-case letters, digits, _ and -", "the name \"%s\" has a '%c'",
                         m->name, *p);
    if (!m->doc || !m->citation || !m->peft_type)
        return WRONG(NULL, "%s is missing",
                     !m->doc        ? ".doc, one line on what it is,"
                     : !m->citation ? ".citation, where it was published,"
                                    : ".peft_type, its name in adapter_config.json,");
    for (size_t i = 0; (other = pb_method_at(i)) && !m->parts; i++)
        if (other != m &&
            (!strcmp(other->name, m->name) ||
             (other->peft_type && !strcmp(other->peft_type, m->peft_type) && !m->variant &&
              !other->variant && !m->peft_where && !other->peft_where)))
            return WRONG("choose another", "its name or .peft_type is that of method %s",
                         other->name);
    if (!m->options)
        return WRONG("at least {{0}}", ".options is missing");
    for (const pb_option *o = m->options; o->name; o++)
        PB_TRY(check_option(m, o));
    const pb_option *knob = m->knob ? pb_option_find(m, m->knob) : NULL;
    if (m->knob && (!knob || knob->type != PB_OPT_INT))
        return WRONG(NULL, ".knob is \"%s\", which is no INT option", m->knob);
    for (const pb_peft_key *k = m->peft_keys; k && k->key; k++)
        PB_TRY(check_key(m, k));
    PB_TRY(check_hooks(m));
    if (!m->formula || !m->bibtex)
        snprintf(c->note, sizeof c->note, "%s is missing: `pedrobench methods show` has none",
                 m->formula ? ".bibtex" : ".formula");
    return check_rates(c, s);
}
