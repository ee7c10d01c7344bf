#include "model/compose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };

struct pb_parts {
    size_t n;
    const pb_method *m[MOST];
    size_t at[MOST]; // where a part's options are in the composition's
    pb_method method;
    struct pb_parts *next;
};
typedef struct pb_parts parts;

// What a composition's options begin with.
typedef struct head {
    const parts *parts;      // set by pb_options_new
    size_t column[MOST + 1]; // of each part's state; derived
    unsigned folded;         // parts that were folded
} head;

static const parts *parts_of(const void *options)
{
    return ((const head *)options)->parts;
}

static void *own(const void *options, size_t i)
{
    return (char *)options + parts_of(options)->at[i];
}

size_t pb_parts_count(const pb_method *m)
{
    return m->parts ? m->parts->n : 0;
}

const pb_method *pb_part(const pb_method *m, size_t i)
{
    return m->parts->m[i];
}

void *pb_part_options(const pb_method *m, const void *options, size_t i)
{
    return (char *)options + m->parts->at[i];
}

// ---------------------------------------------------------------- set-up

// Specs of part i, with its own ids; its values begin at *base.
static pb_err part_layout(pb_layout *l, const pb_layout *all, size_t n, size_t i, size_t *base)
{
    *base = 0;
    for (size_t k = 0; k < all->n; k++) {
        const pb_spec *s = &all->spec[k];
        if ((size_t)s->id % n != i)
            continue;
        if (!l->n)
            *base = s->offset;
        pb_spec *own_spec = pb_layout_add(l, s->layer, 0, s->name, s->rows, s->cols, s->init, 0, 0);
        if (!own_spec)
            return pb_fail(PB_MEMORY, NULL, "no memory for a part's parameters");
        *own_spec = *s;
        own_spec->id = s->id / (int)n;
    }
    return pb_layout_finish(l, all->layers);
}

// A part's own view of the parameters; the layout is released with pb_layout_free.
static pb_err view(pb_params *out, pb_layout *l, const pb_params *p, size_t i)
{
    size_t base;
    PB_TRY(part_layout(l, p->layout, parts_of(p->options)->n, i, &base));
    *out = (pb_params){l, own(p->options, i), p->v + base, p->d ? p->d + base : NULL};
    return PB_OK;
}

static pb_err prepare(void *options, const pb_config *config)
{
    head *h = options;
    const parts *p = h->parts;
    const char *prefix = NULL, *second = NULL;
    h->column[0] = 0;
    for (size_t i = 0; i < p->n; i++) {
        const pb_method *m = p->m[i];
        void *o = own(options, i);
        pb_bilevel bi;
        if (m->prepare)
            PB_TRY(m->prepare(o, config));
        h->column[i + 1] = h->column[i] + (m->state ? m->state(o, config) : 0);
        if (m->prefix_len && m->prefix_len(o)) {
            if (prefix)
                return pb_fail(PB_UNSUPPORTED, "compose methods of which one has a prefix",
                               "%s: %s and %s both put positions in front of the sequence",
                               p->method.name, prefix, m->name);
            prefix = m->name;
        }
        if (m->bilevel && m->bilevel(o, &bi)) {
            if (second)
                return pb_fail(PB_UNSUPPORTED, "freeze the second level of one",
                               "%s: %s and %s both have a second level", p->method.name, second,
                               m->name);
            second = m->name;
        }
    }
    return PB_OK;
}

static pb_err layout(pb_layout *l, const void *options, const pb_config *config)
{
    const parts *p = parts_of(options);
    for (size_t i = 0; i < p->n; i++) {
        const pb_method *m = p->m[i];
        size_t first = l->n;
        PB_TRY(m->layout(l, own(options, i), config));
        for (size_t k = first; k < l->n; k++) {
            pb_spec *s = &l->spec[k];
            s->id = s->id * (int)p->n + (int)i;
            if (m->lr > 0 && !(s->flags & PB_THETA)) // the second level has a rate of its own
                s->lr_scale *= m->lr / p->method.lr;
        }
    }
    return PB_OK;
}

static size_t text_len(const void *options)
{
    const parts *p = parts_of(options);
    size_t most = 0;
    for (size_t i = 0; i < p->n; i++) {
        size_t n = p->m[i]->text_len ? p->m[i]->text_len(own(options, i)) : 0;
        most = n > most ? n : most;
    }
    return most;
}

static pb_err init(const pb_params *all, const pb_init_args *args)
{
    const parts *p = parts_of(all->options);
    for (size_t i = 0; i < p->n; i++) {
        const pb_method *m = p->m[i];
        pb_layout l = {0};
        pb_params one;
        pb_init_args a = *args;
        if (!m->init)
            continue;
        if (!m->text_len || !m->text_len(own(all->options, i))) {
            a.n_text = 0;
            a.text_x = a.text_k = a.text_v = NULL;
        }
        pb_err err = view(&one, &l, all, i);
        if (!err)
            err = m->init(&one, &a);
        pb_layout_free(&l);
        PB_TRY(err);
    }
    return PB_OK;
}

static pb_err derive(const pb_params *all, const struct pb_model *backbone)
{
    const parts *p = parts_of(all->options);
    for (size_t i = 0; i < p->n; i++) {
        pb_layout l = {0};
        pb_params one;
        if (!p->m[i]->derive)
            continue;
        pb_err err = view(&one, &l, all, i);
        if (!err)
            err = p->m[i]->derive(&one, backbone);
        pb_layout_free(&l);
        PB_TRY(err);
    }
    return PB_OK;
}

static pb_err updated(const pb_params *all, const pb_train_args *args)
{
    const parts *p = parts_of(all->options);
    for (size_t i = 0; i < p->n; i++) {
        pb_layout l = {0};
        pb_params one;
        if (!p->m[i]->updated)
            continue;
        pb_err err = view(&one, &l, all, i);
        if (!err)
            err = p->m[i]->updated(&one, args);
        pb_layout_free(&l);
        PB_TRY(err);
    }
    return PB_OK;
}

// ---------------------------------------------------------------- hooks

// What a part's hook finds: its own ids, name and state.
static void enter(pb_ctx *c, const parts *p, size_t i)
{
    c->parts = (int)p->n;
    c->part = (int)i;
    c->method = p->m[i]->name;
}

static void leave(pb_ctx *c, const parts *p)
{
    c->parts = c->part = 0;
    c->method = p->method.name;
}

static size_t state(const void *options, const pb_config *config)
{
    (void)config;
    return ((const head *)options)->column[parts_of(options)->n];
}

static pb_mat *state_of(pb_ctx *c, const head *h, size_t i, pb_mat *all)
{
    size_t n = h->column[i + 1] - h->column[i];
    return all && n ? pb_cols(c, all, h->column[i], n) : NULL;
}

static void prompt(pb_ctx *c, const void *options, pb_mat *all, pb_mat *before, pb_mat *after)
{
    const parts *p = parts_of(options);
    pb_want_grad(c, all); // which the parts' columns then share
    for (size_t i = 0; i < p->n; i++) {
        if (!p->m[i]->prompt)
            continue;
        enter(c, p, i);
        p->m[i]->prompt(c, own(options, i), state_of(c, options, i, all), before, after);
    }
    leave(c, p);
}

static pb_mat *site(pb_ctx *c, const void *options, pb_site s, pb_mat *x, pb_mat *y)
{
    const parts *p = parts_of(options);
    pb_mat *all = c->state;
    for (size_t i = 0; i < p->n && y; i++) {
        if (!p->m[i]->site)
            continue;
        enter(c, p, i);
        c->state = state_of(c, options, i, all);
        y = p->m[i]->site(c, own(options, i), s, x, y);
    }
    c->state = all;
    leave(c, p);
    return y;
}

static size_t prefix_len(const void *options)
{
    const parts *p = parts_of(options);
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->m[i]->prefix_len ? p->m[i]->prefix_len(own(options, i)) : 0;
    return n;
}

static void prefix(pb_ctx *c, const void *options, pb_mat **k, pb_mat **v)
{
    const parts *p = parts_of(options);
    for (size_t i = 0; i < p->n; i++) {
        if (!p->m[i]->prefix || !p->m[i]->prefix_len(own(options, i)))
            continue;
        enter(c, p, i);
        p->m[i]->prefix(c, own(options, i), k, v);
    }
    leave(c, p);
}

static pb_mat *virtual_tokens(pb_ctx *c, const void *options)
{
    const parts *p = parts_of(options);
    pb_mat *rows = NULL;
    for (size_t i = 0; i < p->n && !rows; i++) {
        if (!p->m[i]->virtual_tokens)
            continue;
        enter(c, p, i);
        rows = p->m[i]->virtual_tokens(c, own(options, i));
    }
    leave(c, p);
    return rows;
}

static void prompt_prefix(pb_ctx *c, const void *options, pb_mat **k, pb_mat **v)
{
    const parts *p = parts_of(options);
    pb_mat *all = c->state;
    for (size_t i = 0; i < p->n; i++) {
        if (!p->m[i]->prompt_prefix)
            continue;
        enter(c, p, i);
        c->state = state_of(c, options, i, all);
        p->m[i]->prompt_prefix(c, own(options, i), k, v);
    }
    c->state = all;
    leave(c, p);
}

static pb_err mergeable(const void *options, const pb_config *config)
{
    const parts *p = parts_of(options);
    for (size_t i = 0; i < p->n; i++)
        if (p->m[i]->mergeable) {
            pb_err err = p->m[i]->mergeable(own(options, i), config);
            if (err)
                return pb_context(err, "%s", p->method.name);
        }
    return PB_OK;
}

static pb_err merge_by(const pb_params *all, const pb_merge_args *args, bool input)
{
    const parts *p = parts_of(all->options);
    for (size_t i = 0; i < p->n; i++) {
        pb_err (*hook)(const pb_params *, const pb_merge_args *) =
            input ? p->m[i]->merge_input : p->m[i]->merge;
        pb_layout l = {0};
        pb_params one;
        if (!hook)
            continue;
        pb_err err = view(&one, &l, all, i);
        if (!err)
            err = hook(&one, args);
        pb_layout_free(&l);
        if (err)
            return pb_context(err, "%s", p->method.name);
    }
    return PB_OK;
}

static pb_err merge(const pb_params *all, const pb_merge_args *args)
{
    return merge_by(all, args, false);
}

static pb_err merge_input(const pb_params *all, const pb_merge_args *args)
{
    return merge_by(all, args, true);
}

static bool fold(void *options)
{
    head *h = options;
    h->folded = 0;
    for (size_t i = 0; i < h->parts->n; i++)
        if (h->parts->m[i]->fold && h->parts->m[i]->fold(own(options, i)))
            h->folded |= 1u << i;
    return h->folded != 0;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    const head *h = to->options;
    for (size_t i = 0; i < h->parts->n; i++) {
        pb_layout a = {0}, b = {0};
        pb_params x, y;
        if (!view(&x, &a, to, i) && !view(&y, &b, from, i)) {
            if (h->folded >> i & 1)
                h->parts->m[i]->fold_values(&x, &y, config);
            else
                memcpy(x.v, y.v, b.size * sizeof *x.v);
        }
        pb_layout_free(&a);
        pb_layout_free(&b);
    }
}

static bool bilevel(const void *options, pb_bilevel *out)
{
    const parts *p = parts_of(options);
    for (size_t i = 0; i < p->n; i++)
        if (p->m[i]->bilevel && p->m[i]->bilevel(own(options, i), out))
            return true;
    return false;
}

// ---------------------------------------------------------------- making one

static char *text(const char *a, const char *between, const char *b)
{
    char *out = malloc(strlen(a) + strlen(between) + strlen(b) + 1);
    if (out)
        sprintf(out, "%s%s%s", a, between, b);
    return out;
}

static void append(const char **to, const char *between, const char *b)
{
    const char *was = *to;
    *to = was ? text(was, between, b ? b : "") : NULL;
    free((char *)was);
}

static pb_err no_memory(const char *name)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for the composition %s", name);
}

// The parts' options under their long names, and where each part's struct is.
static pb_err make_options(parts *p, const char *name)
{
    size_t n = 0, k = 0, size = sizeof(head);
    for (size_t i = 0; i < p->n; i++)
        for (const pb_option *o = p->m[i]->options; o->name; o++)
            n++;
    pb_option *all = calloc(n + 1, sizeof *all);
    p->method.options = all;
    if (!all)
        return no_memory(name);
    for (size_t i = 0; i < p->n; i++) {
        size = (size + 63) / 64 * 64;
        p->at[i] = size;
        size += p->m[i]->options_size;
        for (const pb_option *o = p->m[i]->options; o->name; o++, k++) {
            all[k] = *o;
            all[k].offset += p->at[i];
            all[k].name = text(p->m[i]->name, ".", o->name);
            if (!all[k].name)
                return no_memory(name);
            if (p->m[i]->knob && !strcmp(o->name, p->m[i]->knob)) // the last one counts
                p->method.knob = all[k].name;
        }
    }
    p->method.options_size = size;
    // The defaults that variants change, under their names here.
    for (size_t i = 0; i < p->n; i++) {
        char words[200], *save = NULL;
        snprintf(words, sizeof words, "%s", p->m[i]->variant ? p->m[i]->variant : "");
        for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
            char *own = text(p->m[i]->name, ".", w);
            if (own && !p->method.variant)
                p->method.variant = text("", "", "");
            if (own && p->method.variant)
                append(&p->method.variant, " ", own);
            free(own);
            if (!p->method.variant)
                return no_memory(name);
        }
    }
    return PB_OK;
}

static pb_err make_table(parts *p, const char *name)
{
    pb_method *t = &p->method;
    bool any_site = false, merges = true, has[11] = {false};
    *t = (pb_method){.name = text(name, "", ""),
                     .doc = text("", "", p->m[0]->doc),
                     .citation = text("", "", p->m[0]->citation),
                     .formula = text("", "", p->m[0]->formula ? p->m[0]->formula : ""),
                     .bibtex = text("", "", p->m[0]->bibtex ? p->m[0]->bibtex : ""),
                     .peft_type = PB_COMPOSITION,
                     .identity = true,
                     .parts = p};
    for (size_t i = 0; i < p->n; i++) {
        const pb_method *m = p->m[i];
        if (i) {
            append(&t->doc, "; ", m->doc);
            append(&t->citation, "; ", m->citation);
            append(&t->formula, "\n", m->formula);
            append(&t->bibtex, "", m->bibtex);
        }
        if (!t->name || !t->doc || !t->citation || !t->formula || !t->bibtex)
            return no_memory(name);
        t->identity &= m->identity;
        t->whole_prompt |= m->whole_prompt;
        merges &= m->merge != NULL;
        any_site |= m->site != NULL;
        has[0] |= m->state != NULL;
        has[1] |= m->prefix_len != NULL;
        has[2] |= m->fold != NULL;
        has[3] |= m->bilevel != NULL;
        has[4] |= m->text_len != NULL;
        has[5] |= m->init != NULL;
        has[6] |= m->prefix != NULL;
        has[7] |= m->virtual_tokens != NULL;
        has[8] |= m->prompt_prefix != NULL;
        has[9] |= m->derive != NULL;
        has[10] |= m->updated != NULL;
        if (t->lr == 0) {
            t->lr = m->lr;
            t->lr_grid = m->lr_grid;
        }
    }
    t->prepare = prepare;
    t->layout = layout;
    t->site = any_site ? site : NULL;
    t->state = has[0] ? state : NULL;
    t->prompt = has[0] ? prompt : NULL;
    t->prefix_len = has[1] ? prefix_len : NULL;
    t->prefix = has[6] ? prefix : NULL;
    t->virtual_tokens = has[7] ? virtual_tokens : NULL;
    t->prompt_prefix = has[8] ? prompt_prefix : NULL;
    t->fold = has[2] ? fold : NULL;
    t->fold_values = has[2] ? fold_values : NULL;
    t->bilevel = has[3] ? bilevel : NULL;
    t->text_len = has[4] ? text_len : NULL;
    t->init = has[5] ? init : NULL;
    t->derive = has[9] ? derive : NULL;
    t->updated = has[10] ? updated : NULL;
    t->merge = merges ? merge : NULL;
    t->merge_input = merges ? merge_input : NULL;
    t->mergeable = merges ? mergeable : NULL;
    return make_options(p, name);
}

static pb_err find_parts(parts *p, const char *name)
{
    for (const char *s = name; s; s = strchr(s, '+') ? strchr(s, '+') + 1 : NULL) {
        char one[64];
        size_t n = strcspn(s, "+");
        if (p->n == MOST)
            return pb_fail(PB_USAGE, NULL, "\"%s\" has more than %d parts", name, MOST);
        snprintf(one, sizeof one, "%.*s", (int)n, s);
        const pb_method *m = p->m[p->n] = pb_method_find(one);
        if (!m)
            return pb_context(PB_USAGE, "composition \"%s\"", name);
        if (m->backbone)
            return pb_fail(PB_USAGE, "compose methods that have adapters",
                           "composition \"%s\": method %s has no adapter", name, m->name);
        if (m->statistics || m->gradient || m->settles || m->trim)
            return pb_fail(PB_UNSUPPORTED, "train it alone",
                           "composition \"%s\": method %s changes its parameters while it trains",
                           name, m->name);
        for (size_t i = 0; i < p->n; i++)
            if (p->m[i] == m)
                return pb_fail(PB_USAGE, "one option of it does more than two copies",
                               "composition \"%s\": method %s stands twice", name, m->name);
        p->n++;
    }
    return PB_OK;
}

const pb_method *pb_compose(const char *name)
{
    static parts *made;
    for (const parts *p = made; p; p = p->next)
        if (!strcmp(p->method.name, name))
            return &p->method;
    parts *p = calloc(1, sizeof *p);
    pb_err err = p ? find_parts(p, name) : no_memory(name);
    if (!err)
        err = make_table(p, name);
    if (err) {
        free(p);
        return NULL;
    }
    p->next = made;
    made = p;
    return &p->method;
}

const char *pb_knob_label(const pb_method *m, const void *options, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < pb_parts_count(m) && n < size; i++) {
        const pb_method *p = m->parts->m[i];
        char name[100];
        snprintf(name, sizeof name, "%s.%s", p->name, p->knob ? p->knob : "");
        if (p->knob && strcmp(name, m->knob) != 0)
            n += (size_t)snprintf(out + n, size - n, "%s=%ld ", name,
                                  pb_options_knob(p, own(options, i)));
    }
    if (n < size)
        snprintf(out + n, size - n, "%s", m->knob);
    return out;
}

// ---------------------------------------------------------------- adapters and their parts

// Copies a part's values between its own adapter and the composition.
static pb_err copy_part(const pb_adapter *all, const pb_adapter *one, size_t i, bool out)
{
    pb_layout l = {0};
    pb_params v;
    pb_err err = view(&v, &l, &all->params, i);
    if (!err && l.size != one->layout.size)
        err = pb_fail(PB_INTERNAL, NULL, "part %s of %s has another size", one->method->name,
                      all->method->name);
    if (!err && out)
        memcpy(one->params.v, v.v, l.size * sizeof *v.v);
    else if (!err)
        memcpy(v.v, one->params.v, l.size * sizeof *v.v);
    pb_layout_free(&l);
    return err;
}

pb_err pb_adapter_part(pb_adapter **out, const pb_adapter *a, size_t i)
{
    PB_TRY(pb_adapter_new(out, pb_part(a->method, i), own(a->options, i), &a->config, false));
    pb_adapter_made_for(*out, a->base, a->base_sha256);
    pb_err err = copy_part(a, *out, i, true);
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
    }
    return err;
}

pb_err pb_adapter_compose(pb_adapter **out, pb_adapter *const *list, size_t n)
{
    pb_err err = PB_OK;
    char name[512] = "";
    void *options = NULL;
    *out = NULL;
    for (size_t i = 0; i < n; i++)
        PB_TRY(pb_path(name + strlen(name), sizeof name - strlen(name), "%s%s", i ? "+" : "",
                       list[i]->method->name));
    const pb_method *m = pb_method_find(name);
    if (!m)
        return PB_INPUT;
    PB_GO(pb_options_new(&options, m));
    for (size_t i = 0; i < n; i++)
        memcpy(own(options, i), list[i]->options, list[i]->method->options_size);
    PB_GO(pb_adapter_new(out, m, options, &list[0]->config, false));
    pb_adapter_made_for(*out, list[0]->base, list[0]->base_sha256);
    for (size_t i = 0; i < n; i++)
        PB_GO(copy_part(*out, list[i], i, false));
done:
    if (err) {
        pb_adapter_free(*out);
        *out = NULL;
    }
    free(options);
    return err;
}
