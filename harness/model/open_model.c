#include "model/open_model.h"

#include "model/presets.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static pb_err random_shape(pb_config *c, const char *text)
{
    size_t *const to[] = {&c->width, &c->ffn, &c->layers, &c->heads, &c->kv_heads, &c->vocab};
    const char *hint = "WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB, e.g. 288x768x6x6x6x32000";
    const char *s = text;
    *c = (pb_config){
        .context = 1 << 16, .norm_eps = 1e-5, .rope_theta = 1e4, .tied = true, .bos = -1};
    for (size_t i = 0; i < 6; i++) {
        char *end;
        errno = 0;
        unsigned long long v = strtoull(s, &end, 10);
        if (errno || end == s || *s == '-' || *s == '+' || *end != (i < 5 ? 'x' : 0) || !v)
            return pb_fail(PB_USAGE, hint, "the geometry \"%.80s\" is impossible", text);
        *to[i] = (size_t)v;
        s = end + 1;
    }
    if (c->width % c->heads)
        return pb_fail(PB_USAGE, hint, "a width of %zu does not divide into %zu heads", c->width,
                       c->heads);
    c->head_dim = c->width / c->heads;
    return pb_config_check(c);
}

// What follows the mark of a geometry, or NULL for a path.
static const char *geometry_of(const char *name)
{
    static const char mark[] = "random:";
    return strncmp(name, mark, sizeof mark - 1) ? NULL : name + sizeof mark - 1;
}

static bool is_preset(const char *geometry)
{
    return isalpha((unsigned char)*geometry);
}

static pb_err preset_shape(pb_config *c, const char *name)
{
    json_t *j;
    PB_TRY(pb_preset_find(&j, name));
    pb_err err = pb_config_from_json(c, j);
    json_decref(j);
    return err;
}

pb_err pb_open_config(pb_config *out, const char *name)
{
    const char *g = geometry_of(name);
    return !g             ? pb_model_config(out, name)
           : is_preset(g) ? preset_shape(out, g)
                          : random_shape(out, g);
}

pb_err pb_open_model(pb_model **out, const char *name, uint64_t seed, const pb_model_args *args)
{
    pb_config c;
    if (!geometry_of(name))
        return pb_model_open(out, name, args);
    PB_TRY(pb_open_config(&c, name));
    return is_preset(geometry_of(name)) ? pb_model_preset(out, &c, seed, args)
                                        : pb_model_random(out, &c, seed, args);
}
