// The trainable count grows with the knob, so the nearest setting is found by bisection.
#include "train/budget.h"

#include "model/compose.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

pb_err pb_budget_parse(const char *text, const pb_config *c, size_t *out)
{
    char *end;
    double v = strtod(text, &end), n = v;
    if (*end == '%')
        n = v / 100 * (double)pb_config_params(c);
    else if (*end == 'k')
        n = v * 1e3;
    else if (*end == 'M')
        n = v * 1e6;
    end += strchr("%kM", *end) && *end;
    if (end == text || *end || !(n >= 1 && n < 1e15))
        return pb_fail(PB_USAGE, "use e.g. 0.5%, 9M or 250000", "the budget \"%s\" is impossible",
                       text);
    *out = (size_t)(n + 0.5);
    return PB_OK;
}

pb_err pb_budget_count(const pb_method *m, const void *options, const pb_config *c, size_t *count)
{
    pb_err err = PB_OK;
    pb_layout l = {0};
    void *own = malloc(m->options_size ? m->options_size : 1);
    if (!own)
        return pb_fail(PB_MEMORY, NULL, "no memory for the options of %s", m->name);
    memcpy(own, options, m->options_size);
    if (m->backbone) {
        *count = pb_config_params(c);
        goto done;
    }
    if (m->prepare)
        PB_GO(m->prepare(own, c));
    PB_GO(m->layout(&l, own, c));
    PB_GO(pb_layout_finish(&l, c->layers));
    *count = l.counted;
done:
    pb_layout_free(&l);
    free(own);
    return err;
}

static const pb_option *knob_of(const pb_method *m)
{
    for (const pb_option *o = m->options; m->knob && o->name; o++)
        if (!strcmp(o->name, m->knob))
            return o;
    return NULL;
}

// Parameters per step of a part's knob.
static pb_err knob_step(const pb_method *m, void *options, const pb_config *c, size_t *step)
{
    const pb_option *o = knob_of(m);
    long *knob = (long *)((char *)options + o->offset), was = *knob;
    size_t one, two;
    *knob = o->min < 1 ? 1 : (long)o->min;
    PB_TRY(pb_budget_count(m, options, c, &one));
    ++*knob;
    PB_TRY(pb_budget_count(m, options, c, &two));
    *knob = was;
    *step = two - one;
    return PB_OK;
}

// The budget in equal parts: coarse knobs first, so that a fine one makes up for the rest.
static pb_err solve_parts(const pb_method *m, void *options, const pb_config *c, size_t budget,
                          size_t *reached)
{
    size_t n = pb_parts_count(m), left = budget, with = 0, step[32] = {0}, count;
    for (size_t i = 0; i < n; i++) {
        const pb_method *p = pb_part(m, i);
        void *o = pb_part_options(m, options, i);
        if (knob_of(p)) {
            PB_TRY(knob_step(p, o, c, &step[i]));
            with++;
            continue;
        }
        PB_TRY(pb_budget_count(p, o, c, &count));
        left = left > count ? left - count : 1;
    }
    for (; with; with--) {
        size_t coarse = 0;
        for (size_t i = 1; i < n; i++)
            if (step[i] > step[coarse])
                coarse = i;
        step[coarse] = 0;
        pb_err err = pb_budget_solve(pb_part(m, coarse), pb_part_options(m, options, coarse), c,
                                     left / with ? left / with : 1, &count);
        if (err)
            return pb_context(err, "its share of the budget of %s", m->name);
        left = left > count ? left - count : 1;
    }
    return pb_budget_count(m, options, c, reached);
}

pb_err pb_budget_solve(const pb_method *m, void *options, const pb_config *c, size_t budget,
                       size_t *reached)
{
    const pb_option *o = knob_of(m);
    if (!o)
        return pb_fail(PB_UNSUPPORTED, "compare it outside the budget",
                       "method %s has no size knob, so it cannot meet a budget", m->name);
    if (m->parts)
        return solve_parts(m, options, c, budget, reached);
    long *knob = (long *)((char *)options + o->offset), low = (long)o->min, high = (long)o->max;
    size_t at_low, at_high, n;
    *knob = low;
    PB_TRY(pb_budget_count(m, options, c, &at_low));
    if (at_low > 2 * budget)
        return pb_fail(PB_UNSUPPORTED, "raise the budget",
                       "method %s needs at least %zu parameters (%s=%ld), the budget is %zu",
                       m->name, at_low, m->knob, low, budget);
    // Settings that the backbone rules out (a prefix longer than the context) bound the search.
    *knob = high;
    if (pb_budget_count(m, options, c, &at_high)) {
        long good = low;
        while (high - good > 1) {
            *knob = good + (high - good) / 2;
            if (pb_budget_count(m, options, c, &at_high))
                high = *knob;
            else
                good = *knob;
        }
        high = good;
    }
    *knob = high;
    PB_TRY(pb_budget_count(m, options, c, &at_high));
    if (2 * at_high < budget)
        return pb_fail(PB_UNSUPPORTED, "lower the budget",
                       "method %s reaches at most %zu parameters (%s=%ld), the budget is %zu",
                       m->name, at_high, m->knob, high, budget);
    while (high - low > 1) { // count(low) <= budget < count(high), or the ends
        long mid = low + (high - low) / 2;
        *knob = mid;
        PB_TRY(pb_budget_count(m, options, c, &n));
        if (n <= budget) {
            low = mid;
            at_low = n;
        } else {
            high = mid;
            at_high = n;
        }
    }
    size_t below = at_low > budget ? at_low - budget : budget - at_low;
    size_t above = at_high > budget ? at_high - budget : budget - at_high;
    *knob = above < below ? high : low;
    *reached = above < below ? at_high : at_low;
    return PB_OK;
}
