#include "tasks/metrics/metrics.h"

#include "tasks/metrics/text.h"
#include <ctype.h>

static const char *skip_space(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    return s;
}

static bool same(const char *a, const char *b)
{
    for (a = skip_space(a), b = skip_space(b); *a && *b;) {
        const char *next_a = skip_space(a), *next_b = skip_space(b);
        if ((next_a != a) != (next_b != b))
            break;
        if (next_a != a) { // white space in both
            a = next_a;
            b = next_b;
        } else if (*a++ != *b++) {
            return false;
        }
    }
    return !*skip_space(a) && !*skip_space(b);
}

pb_err pb_exact_match(double *out, double *items, const char *const *hyp,
                      const char *const *const *refs, const size_t *n_refs, size_t n)
{
    if (!n)
        return pb_fail(PB_INPUT, NULL, "exact match of no items");
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        if (!n_refs[i])
            return pb_fail(PB_INPUT, NULL, "item %zu has no reference", i);
        bool found = false;
        for (size_t j = 0; j < n_refs[i] && !found; j++)
            found = same(hyp[i], refs[i][j]);
        right += found;
        if (items)
            items[i] = found;
    }
    *out = (double)right / (double)n;
    return PB_OK;
}

pb_err pb_accuracy(double *out, double *items, const size_t *chosen, const size_t *label, size_t n)
{
    if (!n)
        return pb_fail(PB_INPUT, NULL, "accuracy of no items");
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        right += chosen[i] == label[i];
        if (items)
            items[i] = chosen[i] == label[i];
    }
    *out = (double)right / (double)n;
    return PB_OK;
}

size_t pb_candidate_length(const char *text)
{
    size_t n = 0;
    text = skip_space(text);
    for (; *text; n++)
        pb_next_char(&text);
    return n;
}
