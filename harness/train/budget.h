// Parameter budgets: turning a method's size knob until its trainable count is nearest to a number.
#ifndef PB_TRAIN_BUDGET_H
#define PB_TRAIN_BUDGET_H

#include "methods/method.h"

// "0.5%" of the backbone's parameters, or a count with an optional suffix k or M.
pb_err pb_budget_parse(const char *text, const pb_config *c, size_t *out);

// Trainable parameters of a method with these options. `prepared` may be NULL.
pb_err pb_budget_count(const pb_method *m, const void *options, const pb_config *c, size_t *count);

// Sets the knob in `options` so that the count is nearest to the budget (the smaller of two equally
// near). Fails, saying why, for a method without a knob and when even the smallest setting is more
// than twice the budget, or the largest less than half of it.
pb_err pb_budget_solve(const pb_method *m, void *options, const pb_config *c, size_t budget,
                       size_t *reached);

#endif
