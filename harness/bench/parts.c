#include "bench/internal.h"

#include "bench/peer.h"
#include "core/file.h"
#include "core/log.h"
#include "model/open_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const pb_bench_part pb_bench_parts[] = {
    {"machine", "", pb_bench_machine},      {"kernels", "A,B", pb_bench_kernels},
    {"train", "A,B", pb_bench_train},       {"prefill", "A,B", pb_bench_prefill},
    {"decode", "A,B", pb_bench_decode},     {"tenants", "A,B", pb_bench_tenants},
    {"barriers", "A,B", pb_bench_barriers}, {"scaling", "B", pb_bench_scaling},
    {"floors", "A,B,C", pb_bench_floors},   {NULL, NULL, NULL},
};

// Geometries by letter: those of the performance page.
static const struct {
    const char *name, *spec;
} geometries[] = {
    {"A", "random:768x2048x12x12x12x32000"}, // 110 M
    {"B", "random:288x768x6x6x6x32000"},     // 15 M
    {"C", "random:2048x5632x22x32x4x32000"}, // TinyLlama, 1.1 B
};

const char *pb_bench_spec(const char *geometry)
{
    for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++)
        if (!strcmp(geometry, geometries[i].name))
            return geometries[i].spec;
    return geometry;
}

// Hands on what was expected of an arm.
static pb_err hand_on_floors(pb_bench *b, const pb_work *w, const pb_arm *a)
{
    const pb_arm *other = a->against == PB_NO_ARM ? NULL : &w->arm[a->against];
    char ratio[112] = "";
    if (other)
        snprintf(ratio, sizeof ratio, "time / %s", other->name);
    pb_floor f = {.work = w->name, .arm = a->name, .measure = "fraction of the limit"};
    if (a->floor > 0) {
        f.value = pb_arm_fraction(w, a);
        f.expected = a->floor;
        PB_TRY(b->floor(b->self, &f));
    }
    if (!other || !(a->at_most > 0 || a->at_least > 0))
        return PB_OK;
    f.measure = ratio;
    f.value = pb_arm_ratio(a, other);
    f.most = a->at_most > 0;
    f.expected = f.most ? a->at_most : a->at_least;
    return b->floor(b->self, &f);
}

pb_err pb_bench_hand_on(pb_bench *b, pb_work *w, pb_err err)
{
    pb_err kept = PB_OK;
    if (w->n && w->arm[0].n) {
        kept = b->work(b->self, w);
        for (size_t i = 0; i < w->n && !kept; i++)
            kept = hand_on_floors(b, w, &w->arm[i]);
    }
    pb_work_free(w);
    return err ? err : kept;
}

pb_err pb_bench_measure(pb_bench *b, pb_work *w)
{
    return pb_bench_hand_on(b, w, pb_work_run(w, &b->plan));
}

pb_err pb_subject_open(pb_subject *s, const char *name, const char *weights, bool trainable)
{
    pb_model_args args = {.trainable = trainable};
    if (weights)
        PB_TRY(pb_storage_find(&args.weights, weights));
    *s = (pb_subject){.name = name, .sequences = strcmp(name, "B") ? 4 : 8};
    return pb_open_model(&s->m, pb_bench_spec(name), 1, &args);
}

static pb_err new_adapter(pb_adapter **out, const pb_model *m, const char *method, size_t rank,
                          size_t which, bool trainable)
{
    pb_err err = PB_OK;
    void *options = NULL;
    char text[32];
    const pb_method *k = pb_method_find(method);
    *out = NULL;
    if (!k)
        return PB_USAGE;
    PB_TRY(pb_options_new(&options, k));
    // Keys and values of a text are not needed to measure.
    if (pb_option_find(k, "init"))
        (void)pb_options_set(k, options, "init", "random");
    if (rank) {
        snprintf(text, sizeof text, "%zu", rank);
        PB_GO(pb_options_set(k, options, "rank", text));
    }
    PB_GO(pb_adapter_new(out, k, options, &m->config, trainable));
    PB_GO(pb_adapter_init(*out, m, which + 1, 0, NULL, NULL, NULL));
    // Initial values may leave the backbone untouched; those of a trained adapter do not.
    pb_adapter *a = *out;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        pb_rng r = pb_rng_make(which + 1, PB_STREAM_SAMPLE, (uint32_t)i);
        for (size_t v = 0; v < s->rows * s->cols; v++)
            a->params.v[s->offset + v] += (real)(0.02 * (pb_rng_uniform(&r) - 0.5));
    }
    if (!trainable)
        PB_GO(pb_adapter_serve(a, m));
done:
    free(options);
    return err;
}

pb_err pb_subject_adapter(pb_adapter **out, const pb_model *m, const char *method, size_t which,
                          bool trainable)
{
    return new_adapter(out, m, method, 0, which, trainable);
}

pb_err pb_subject_lora(pb_adapter **out, const pb_model *m, size_t rank, size_t which,
                       bool trainable)
{
    return new_adapter(out, m, "lora", rank, which, trainable);
}

void pb_subject_adapters_free(pb_adapter **a, size_t n)
{
    for (size_t i = 0; a && i < n; i++) {
        pb_adapter_free(a[i]);
        a[i] = NULL;
    }
}

static json_t *request(const pb_bench *b, const pb_subject *s, const pb_rig_args *r,
                       const pb_bench_rival *v)
{
    const pb_config *c = &s->m->config;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}",
                     "work", v->what, "method", v->method, "weights", v->weights,        //
                     "width", (json_int_t)c->width, "ffn", (json_int_t)c->ffn,           //
                     "layers", (json_int_t)c->layers, "heads", (json_int_t)c->heads,     //
                     "kv_heads", (json_int_t)c->kv_heads, "vocab", (json_int_t)c->vocab, //
                     "adapters", (json_int_t)r->n_adapters, "sequences", (json_int_t)r->sequences,
                     "tokens", (json_int_t)r->tokens, "context", (json_int_t)r->context, "threads",
                     b->plan.threads);
}

// Keeps why a peer's arm is not there, and says so unless another arm had the same reason.
static void note_absent(pb_bench *b, const char *name, const char *why)
{
    const char *other;
    json_t *reason;
    bool said = false;
    json_object_foreach(b->absent, other, reason) said |= !strcmp(json_string_value(reason), why);
    json_object_set_new(b->absent, name, json_string(why));
    if (!said)
        pb_warn("%s is absent: %s", name, why);
}

pb_err pb_bench_peer(pb_bench *b, pb_work *w, const pb_subject *s, const pb_rig_args *r,
                     const pb_bench_rival *v)
{
    char script[4096], name[96], *absent = NULL;
    char python[] = "/usr/bin/python3", *argv[] = {python, script, NULL};
    pb_arm *arm;
    if (!b->peers)
        return PB_OK;
    PB_TRY(pb_path(script, sizeof script, "%s/%s.py", b->peers, v->peer));
    // Modules of Python have no dots in their names.
    for (char *c = strrchr(script, '/'); c < script + strlen(script) - 3; c++)
        *c = *c == '.' ? '_' : *c;
    snprintf(name, sizeof name, "%s %s", v->peer, v->label);
    json_t *ask = request(b, s, r, v);
    if (!ask)
        return pb_fail(PB_MEMORY, NULL, "no memory to ask %s", v->peer);
    pb_err err = pb_peer_arm(&arm, w, name, argv, ask, &absent);
    json_decref(ask);
    PB_TRY(err);
    if (absent) {
        note_absent(b, name, absent);
        free(absent);
        return PB_OK;
    }
    arm->against = v->against;
    arm->at_least = v->at_least;
    if (!(arm->flops > 0))
        arm->flops = w->arm[v->against].flops;
    return PB_OK;
}
