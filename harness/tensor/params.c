#include "tensor/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pb_spec *pb_layout_add(pb_layout *l, int layer, int id, const char *name, size_t rows, size_t cols,
                       pb_init init, double gain, unsigned flags)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 32;
        pb_spec *more = realloc(l->spec, cap * sizeof *more);
        if (!more)
            return NULL;
        l->spec = more;
        l->cap = cap;
    }
    pb_spec *s = &l->spec[l->n++];
    *s = (pb_spec){.layer = layer,
                   .id = id,
                   .rows = rows,
                   .cols = cols,
                   .init = init,
                   .gain = gain,
                   .flags = flags,
                   .lr_scale = 1,
                   .scale = 1};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

pb_err pb_layout_finish(pb_layout *l, size_t layers)
{
    l->layers = layers;
    l->size = l->trainable = l->counted = l->saved = l->ids = 0;
    for (size_t i = 0; i < l->n; i++)
        if ((size_t)l->spec[i].id >= l->ids)
            l->ids = (size_t)l->spec[i].id + 1;
    size_t cells = (layers + 1) * l->ids;
    l->index = malloc((cells ? cells : 1) * sizeof *l->index);
    if (!l->index)
        return pb_fail(PB_MEMORY, NULL, "no memory for the index of %zu parameters", l->n);
    for (size_t i = 0; i < cells; i++)
        l->index[i] = -1;
    const size_t line = 64 / sizeof(real);
    for (size_t i = 0; i < l->n; i++) {
        pb_spec *s = &l->spec[i];
        size_t count, cell = (size_t)(s->layer + 1) * l->ids + (size_t)s->id;
        if (s->layer < PB_GLOBAL || s->layer >= (int)layers)
            return pb_fail(PB_INTERNAL, "layers count from 0, or PB_GLOBAL",
                           "parameter \"%s\" is at layer %d of %zu", s->name, s->layer, layers);
        if (l->index[cell] >= 0)
            return pb_fail(PB_INTERNAL, "give every matrix of a layer its own id",
                           "parameters \"%s\" and \"%s\" share the id %d", s->name,
                           l->spec[l->index[cell]].name, s->id);
        if (!s->rows || !s->cols || __builtin_mul_overflow(s->rows, s->cols, &count) ||
            count > ((size_t)1 << 40))
            return pb_fail(PB_INTERNAL, "check the shape in `layout`",
                           "parameter \"%s\" has the impossible shape (%zu,%zu)", s->name, s->rows,
                           s->cols);
        l->index[cell] = (int)i;
        s->offset = l->size;
        l->size += (count + line - 1) / line * line;
        if (!(s->flags & PB_FROZEN))
            l->trainable += count, l->counted += s->counted ? s->counted : count;
        if (!(s->flags & PB_UNSAVED))
            l->saved += count;
    }
    return PB_OK;
}

void pb_layout_free(pb_layout *l)
{
    free(l->spec);
    free(l->index);
    *l = (pb_layout){0};
}

void pb_params_init_one(real *v, const pb_layout *l, size_t i, uint64_t seed)
{
    const pb_spec *s = &l->spec[i];
    pb_rng r = pb_rng_make(seed, PB_STREAM_INIT, (uint32_t)i);
    for (size_t k = 0; k < s->rows * s->cols; k++) {
        if (s->init == PB_INIT_ONE)
            v[k] = 1;
        else if (s->init == PB_INIT_NORMAL)
            v[k] = (real)(s->gain * pb_rng_normal(&r));
        else if (s->init == PB_INIT_UNIFORM)
            v[k] = (real)(s->gain * (2 * pb_rng_uniform(&r) - 1));
        else
            v[k] = 0;
    }
}

void pb_params_init(const pb_params *p, uint64_t seed)
{
    memset(p->v, 0, p->layout->size * sizeof *p->v);
    for (size_t i = 0; i < p->layout->n; i++)
        pb_params_init_one(p->v + p->layout->spec[i].offset, p->layout, i, seed);
}
