#include "bench/parts.h"

#include <math.h>

static const char *const kinds[] = {"limit of FLOPs", "limit of bytes", "ours", "peer"};

static json_t *nullable(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *expected(double v)
{
    return v > 0 ? json_real(v) : json_null();
}

static json_t *arm_json(const pb_work *w, const pb_arm *a)
{
    pb_arm_time t = pb_arm_times(a);
    const pb_arm *other = a->against == PB_NO_ARM ? NULL : &w->arm[a->against];
    json_t *samples = json_array();
    for (size_t k = 0; k < a->n; k++)
        json_array_append_new(samples, json_real(a->seconds[k]));
    json_t *o = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:f, s:f, s:o, s:o, s:s*, s:o, s:o, s:o, s:o, s:s*, s:I, s:o}",
        "name", a->name, "kind", kinds[a->kind],                                   //
        "median_seconds", nullable(t.median), "lower_quartile", nullable(t.lo),    //
        "upper_quartile", nullable(t.hi), "flops", a->flops, "bytes", a->bytes,    //
        "fraction_of_limit", nullable(pb_arm_fraction(w, a)), "floor",             //
        expected(a->floor), "against", other ? other->name : NULL, "time_ratio",   //
        nullable(other ? pb_arm_ratio(a, other) : NAN), "at_most",                 //
        expected(a->at_most), "at_least", expected(a->at_least), "memory_bytes",   //
        expected(a->memory), "note", *a->note ? a->note : NULL, "runs_per_sample", //
        (json_int_t)a->runs, "seconds", samples);
    if (a->curve && (json_object_set_new(o, "curve", json_string(a->curve)) ||
                     json_object_set_new(o, "x", json_real(a->x)))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *pb_work_json(const pb_work *w)
{
    json_t *arms = json_array();
    for (size_t i = 0; i < w->n; i++)
        if (json_array_append_new(arms, arm_json(w, &w->arm[i]))) {
            json_decref(arms);
            return NULL;
        }
    return json_pack("{s:s, s:f, s:s*, s:s*, s:o}", "work", w->name, "tokens", w->tokens, "axis",
                     w->axis, "axis_label", w->axis_label, "arms", arms);
}

double pb_regions_per_layer(const pb_regions *r)
{
    return (double)(r->of[PB_BACKBONE] + r->of[PB_ATTENTION] + r->of[PB_ADAPTER]) /
           (double)r->layers;
}

json_t *pb_regions_json(const pb_regions *r)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "geometry", r->geometry, "method",
                     r->method, "rows", (json_int_t)r->rows, "backbone",
                     (json_int_t)r->of[PB_BACKBONE], "attention", (json_int_t)r->of[PB_ATTENTION],
                     "adapter", (json_int_t)r->of[PB_ADAPTER], "head", (json_int_t)r->of[PB_HEAD],
                     "per_layer", pb_regions_per_layer(r));
}

bool pb_floor_met(const pb_floor *f)
{
    return f->most ? f->value <= f->expected : f->value >= f->expected;
}

json_t *pb_floor_json(const pb_floor *f)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:f, s:b}", "work", f->work, "arm", f->arm,
                     "measure", f->measure, "value", nullable(f->value), "expected",
                     f->most ? "at most" : "at least", "bound", f->expected, "met",
                     pb_floor_met(f));
}
