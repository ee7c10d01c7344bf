// AdamW and learning-rate schedules.
#ifndef PB_TRAIN_OPTIM_H
#define PB_TRAIN_OPTIM_H

#include "tensor/params.h"
#include <stdbool.h>
#include <stddef.h>

typedef enum pb_schedule { PB_CONSTANT, PB_LINEAR, PB_COSINE } pb_schedule;

// The rate at step 0..steps-1: rises over `warmup` steps, then falls to `floor` times its peak.
double pb_schedule_at(pb_schedule s, double lr, size_t step, size_t warmup, size_t steps,
                      double floor);

typedef struct pb_adamw {
    double beta1, beta2, eps, weight_decay;
} pb_adamw;

// One update of the parameters whose PB_THETA flag equals `theta`. m and v are blocks like p->v; t
// counts updates from 1. Source: Loshchilov & Hutter, arXiv 1711.05101.
void pb_adamw_step(const pb_params *p, real *m, real *v, const pb_adamw *o, double lr, size_t t,
                   bool theta);

// Euclidean norm of the gradients (of those parameters), in a fixed order of summation.
double pb_grad_norm(const pb_params *p, bool theta);
// Multiplies those gradients.
void pb_grad_scale(const pb_params *p, double factor, bool theta);

#endif
