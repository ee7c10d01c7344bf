// Checks of what is made of an adapter: merging, folding, files, its size.
#include "conformance/internal.h"

#include "core/file.h"
#include "model/compose.h"
#include "model/peft.h"
#include "train/budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_adapter(void *a)
{
    pb_adapter_free(a);
}

static void free_model(void *m)
{
    pb_model_close(m);
}

static void free_tensors(void *t)
{
    pb_tensors_close(t);
}

static void free_json(void *j)
{
    json_decref(j);
}

static pb_err folded(conf *c, const pb_adapter *a, const pb_model *m, pb_adapter **out)
{
    PB_TRY(pb_adapter_folded(out, a));
    (void)conf_keep(c, *out, free_adapter);
    return pb_adapter_serve(*out, m);
}

pb_err check_merge(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    pb_adapter *a, *f;
    pb_model *m = NULL;
    char path[400];
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(folded(c, a, c->backbone[t], &f));
    PB_TRY(pb_path(path, sizeof path, "%s/model%zu", c->folder, t));
    if (!s->m->merge) {
        pb_err err = pb_model_open(&m, path, &(pb_model_args){.merge = f});
        pb_model_close(m);
        return err == PB_UNSUPPORTED && strstr(pb_error_message(), s->m->name)
                   ? PB_OK
                   : WRONG(NULL, "merging without `merge` is not refused by name");
    }
    int32_t *tokens;
    real *y, *z;
    size_t V = c->backbone[t]->config.vocab;
    PB_TRY(conf_tokens(c, LONG, V, 9, &tokens));
    PB_TRY(conf_alone(c, c->backbone[t], a, tokens, LONG, SHORT, &y));
    static const char *const names[] = {"merged", "merged into a trainable model",
                                        "merged unfolded"};
    for (int way = 0; way < 3; way++) {
        // Frozen, trainable, and the form that was trained: refused, if it is not exact.
        pb_model_args args = {.trainable = way == 1, .merge = way == 2 ? a : f};
        pb_err err = pb_model_open(&m, path, &args);
        if (err == PB_UNSUPPORTED && way == 2)
            continue;
        if (err == PB_UNSUPPORTED && strstr(pb_error_message(), s->m->name))
            SKIP(c, "%s", pb_error_message()); // not exact on this backbone, and it says so
        PB_TRY(err);
        (void)conf_keep(c, m, free_model);
        PB_TRY(conf_alone(c, m, NULL, tokens, LONG, SHORT, &z));
        PB_TRY(conf_near(names[way], "`merge` must do to the weights what `site` does to outputs",
                         z, y, LONG * V));
    }
    return PB_OK;
}

pb_err check_fold(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    void *o;
    PB_TRY(conf_options(c, s, &o));
    if (!s->m->fold || !s->m->fold(o))
        SKIP(c, "%s has nothing to fold with these options", s->m->name);
    static const char hint[] = "`fold_values` must give what the unfolded form computes";
    const pb_model *m = c->backbone[t];
    size_t V = m->config.vocab;
    int32_t *tokens;
    pb_adapter *a, *f;
    real *y, *z;
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(conf_tokens(c, LONG, V, 10, &tokens));
    PB_TRY(folded(c, a, m, &f));
    PB_TRY(conf_alone(c, m, a, tokens, LONG, SHORT, &y));
    PB_TRY(conf_alone(c, m, f, tokens, LONG, SHORT, &z));
    PB_TRY(conf_near("folded", hint, z, y, LONG * V));
    conf_scatter(&a->params, 77);
    pb_adapter_refresh(f, a);
    PB_TRY(pb_adapter_serve(a, m));
    PB_TRY(pb_adapter_serve(f, m));
    PB_TRY(conf_alone(c, m, a, tokens, LONG, SHORT, &y));
    PB_TRY(conf_alone(c, m, f, tokens, LONG, SHORT, &z));
    return conf_near("folded again", hint, z, y, LONG * V);
}

// The file of one matrix's values, the right way round.
static pb_err in_file(conf *c, const pb_adapter *a, const pb_spec *p, const pb_tensors *f)
{
    char key[256];
    bool turned = p->flags & PB_TRANSPOSED;
    const pb_tensor *x;
    PB_TRY(pb_adapter_key(key, sizeof key, p));
    if (p->flags & PB_VECTOR)
        PB_TRY(pb_tensors_need(f, key, p->cols, 0, &x));
    else
        PB_TRY(pb_tensors_need(f, key, turned ? p->cols : p->rows, turned ? p->rows : p->cols, &x));
    real *v = conf_alloc(c, x->count, sizeof *v);
    pb_tensor_read(x, 0, x->count, v);
    for (size_t r = 0; r < p->rows; r++)
        for (size_t k = 0; k < p->cols; k++)
            if (!(v[turned ? k * p->rows + r : r * p->cols + k] ==
                  a->params.v[p->offset + r * p->cols + k]))
                return WRONG(NULL, "%s: (%zu,%zu) is another value in the file", key, r, k);
    return PB_OK;
}

// The files of an adapter `a` that was loaded from them as `b`; of every part of a composition.
static pb_err in_files(conf *c, const pb_adapter *a, const pb_adapter *b, const char *path)
{
    char file[600];
    pb_tensors *f;
    json_t *first, *again;
    size_t saved = 0, count = 0, trainable = 0;
    for (size_t i = 0; i < pb_parts_count(a->method); i++) {
        pb_adapter *x, *y;
        PB_TRY(pb_adapter_part(&x, a, i));
        (void)conf_keep(c, x, free_adapter);
        PB_TRY(pb_adapter_part(&y, b, i));
        (void)conf_keep(c, y, free_adapter);
        PB_TRY(pb_path(file, sizeof file, "%s/%s", path, x->method->name));
        PB_TRY(in_files(c, x, y, file));
    }
    if (a->method->parts)
        return PB_OK;
    PB_TRY(pb_path(file, sizeof file, "%s/adapter_model.safetensors", path));
    PB_TRY(pb_peft_write(&first, a));
    (void)conf_keep(c, first, free_json);
    PB_TRY(pb_peft_write(&again, b));
    (void)conf_keep(c, again, free_json);
    if (!json_equal(first, again))
        return WRONG("does `prepare` change an option that a key holds?",
                     "saved and loaded, its options are others");
    PB_TRY(pb_tensors_open(&f, file));
    (void)conf_keep(c, f, free_tensors);
    for (size_t i = 0; i < pb_tensors_count(f); i++)
        count += pb_tensors_at(f, i)->count;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *p = &a->layout.spec[i];
        trainable += p->flags & PB_FROZEN ? 0 : p->rows * p->cols;
        if (p->flags & PB_UNSAVED)
            continue;
        saved += p->rows * p->cols;
        PB_TRY(in_file(c, a, p, f));
    }
    if (saved != a->layout.saved || saved != count || trainable != a->layout.trainable)
        return WRONG("two matrices with one name?",
                     "the file has %zu values, the layout %zu, of them %zu trainable of %zu", count,
                     saved, trainable, a->layout.trainable);
    return PB_OK;
}

// Saved and loaded gives the same bits; the file holds what the layout says.
pb_err check_files(conf *c, const pb_subject *s, size_t t)
{
    NEED_ADAPTER(c, s);
    char path[400];
    const pb_model *m = c->backbone[t];
    int32_t *tokens;
    pb_adapter *a, *b;
    real *y, *z;
    PB_TRY(conf_scattered(c, s, t, false, &a));
    PB_TRY(conf_tokens(c, LONG, m->config.vocab, 12, &tokens));
    PB_TRY(pb_path(path, sizeof path, "%s/adapter", c->folder));
    if (s->m->variant) // what is saved before it is folded is nobody's
        PB_TRY(folded(c, a, m, &a));
    PB_TRY(pb_adapter_save(a, path));
    PB_TRY(pb_adapter_load(&b, path, &m->config, NULL));
    (void)conf_keep(c, b, free_adapter);
    if (s->m->variant ? b->method->variant != NULL : b->method != s->m)
        return WRONG("does .peft_where tell it apart?", "it is loaded as method %s",
                     b->method->name);
    PB_TRY(pb_adapter_serve(b, c->backbone[t]));
    PB_TRY(conf_alone(c, m, a, tokens, LONG, SHORT, &y));
    PB_TRY(conf_alone(c, m, b, tokens, LONG, SHORT, &z));
    PB_TRY(conf_same("saved and loaded, it computes something else",
                     "what is not in a file must follow from the options", z, y, LONG,
                     m->config.vocab));
    PB_TRY(in_files(c, a, b, path));
    pb_adapter *wrong = NULL;
    if (!pb_adapter_load(&wrong, path, &pb_tinies[!t].config, NULL)) {
        pb_adapter_free(wrong);
        return WRONG(NULL, "it loads into a backbone of another shape");
    }
    return PB_OK;
}

// A larger knob means more parameters: what budget matching relies on.
pb_err check_knob(conf *c, const pb_subject *s, size_t t)
{
    if (!s->m->knob)
        SKIP(c, "%s has no knob", s->m->name);
    size_t before = 0;
    for (int k = 1; k < 6; k++) {
        void *o;
        char value[16];
        pb_adapter *a;
        snprintf(value, sizeof value, "%d", k);
        PB_TRY(conf_options(c, s, &o));
        PB_TRY(pb_options_set(s->m, o, s->m->knob, value));
        if (pb_options_knob(s->m, o) != k)
            return WRONG("a knob is an INT option", "the knob %s=%d reads back as %ld", s->m->knob,
                         k, pb_options_knob(s->m, o));
        PB_TRY(pb_adapter_new(&a, s->m, o, &c->backbone[t]->config, false));
        (void)conf_keep(c, a, free_adapter);
        if (a->layout.counted <= before)
            return WRONG("budget matching turns the knob until the count fits",
                         "with %s=%d there are %zu trainable parameters, with %d there were %zu",
                         s->m->knob, k, a->layout.counted, k - 1, before);
        before = a->layout.counted;
    }
    if (s->m->parts) // whose knobs turn together
        return PB_OK;
    // The budget of a large setting gives that setting, though larger ones may not fit a context.
    void *o;
    size_t count, reached;
    const pb_config *g = &c->backbone[t]->config;
    PB_TRY(conf_options(c, s, &o));
    if (pb_options_set(s->m, o, s->m->knob, "500") || pb_budget_count(s->m, o, g, &count))
        SKIP(c, "%s=500 is too large", s->m->knob);
    PB_TRY(pb_budget_solve(s->m, o, g, count, &reached));
    if (pb_options_knob(s->m, o) != 500 || reached != count)
        return WRONG("counts must grow with the knob",
                     "the budget of %s=500 is matched by %ld, with %zu parameters instead of %zu",
                     s->m->knob, pb_options_knob(s->m, o), reached, count);
    return PB_OK;
}
