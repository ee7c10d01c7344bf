// AdamW over a block of parameter matrices.
#include "train/optim.h"

#include <math.h>

enum { CHUNK = 16384 };

double pb_schedule_at(pb_schedule s, double lr, size_t step, size_t warmup, size_t steps,
                      double floor)
{
    if (step < warmup)
        return lr * (double)(step + 1) / (double)warmup;
    double left = steps > warmup ? ((double)steps - (double)step) / (double)(steps - warmup) : 0;
    left = left < 0 ? 0 : left;
    if (s == PB_LINEAR)
        return lr * (floor + (1 - floor) * left);
    if (s == PB_COSINE)
        return lr * (floor + (1 - floor) * 0.5 * (1 - cos(3.141592653589793 * left)));
    return lr;
}

static bool wanted(const pb_spec *s, bool theta)
{
    return !(s->flags & PB_FROZEN) && !(s->flags & PB_THETA) == !theta;
}

void pb_adamw_step(const pb_params *p, real *m, real *v, const pb_adamw *o, double lr, size_t t,
                   bool theta)
{
    const double c1 = 1 - pow(o->beta1, (double)t), c2 = 1 - pow(o->beta2, (double)t);
    const real b1 = (real)o->beta1, b2 = (real)o->beta2, eps = (real)o->eps;
    const real r2 = (real)(1 / sqrt(c2));
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        if (!wanted(s, theta))
            continue;
        size_t n = s->rows * s->cols;
        real *w = p->v + s->offset, *g = p->d + s->offset, *sm = m + s->offset, *sv = v + s->offset;
        const real rate = (real)(lr * s->lr_scale / c1);
        const real keep =
            s->flags & PB_NO_DECAY ? 1 : (real)(1 - lr * s->lr_scale * o->weight_decay);
#pragma omp parallel for schedule(static) if (n > CHUNK)
        for (size_t k = 0; k < n; k++) {
            sm[k] = b1 * sm[k] + (1 - b1) * g[k];
            sv[k] = b2 * sv[k] + (1 - b2) * g[k] * g[k];
#ifdef PB_DOUBLE
            w[k] = keep * w[k] - rate * sm[k] / (sqrt(sv[k]) * r2 + eps);
#else
            w[k] = keep * w[k] - rate * sm[k] / (sqrtf(sv[k]) * r2 + eps);
#endif
        }
    }
}

double pb_grad_norm(const pb_params *p, bool theta)
{
    double total = 0;
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        const real *g = p->d + s->offset;
        size_t n = s->rows * s->cols;
        if (!wanted(s, theta))
            continue;
        for (size_t k = 0; k < n; k += CHUNK) {
            double sum[8] = {0}; // lanes, so that the loop is not one chain of additions
            size_t end = n - k < CHUNK ? n : k + CHUNK;
            for (size_t j = k; j < end; j++)
                sum[(j - k) % 8] += (double)g[j] * (double)g[j];
            for (int l = 0; l < 8; l++)
                total += sum[l];
        }
    }
    return sqrt(total);
}

void pb_grad_scale(const pb_params *p, double factor, bool theta)
{
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        real *g = p->d + s->offset;
        size_t n = s->rows * s->cols;
        if (!wanted(s, theta))
            continue;
        for (size_t k = 0; k < n; k++)
            g[k] *= (real)factor;
    }
}
