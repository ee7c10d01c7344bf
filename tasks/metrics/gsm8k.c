// GSM8K (Cobbe et al. 2021) with the two ways of finding the answer in a generated text that the
// field reports, as lm-evaluation-harness (task gsm8k, version 3) defines them:
//
//   strict    the first  #### -?[0-9.,]+        (the form of the training data)
//   flexible  the last   -?[$0-9.,]{2,}  or  -?[0-9]+
//
// Commas, dollar signs and a full stop at the end are cut from what was found and from the
// reference, of which only what follows its last "#### " counts; then they must be equal as text.
#include "tasks/metrics/metrics.h"

#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *p;
    size_t n;
} span;

static span strict(const char *s)
{
    static const char mark[] = "#### ";
    while ((s = strstr(s, mark))) {
        s += sizeof mark - 1;
        size_t minus = *s == '-', n = strspn(s + minus, "0123456789.,");
        if (n)
            return (span){s, minus + n};
        s -= sizeof mark - 2; // "##### 5" has a mark behind its first sign
    }
    return (span){0};
}

static span flexible(const char *s)
{
    span last = {0};
    while (*s) {
        size_t minus = *s == '-', n = strspn(s + minus, "$0123456789.,");
        bool one = n == 1 && s[minus] >= '0' && s[minus] <= '9';
        if (n >= 2 || one)
            last = (span){s, minus + n};
        s += n >= 2 || one ? minus + n : 1;
    }
    return last;
}

// Into a buffer of s.n + 1 bytes.
static void clean(char *out, span s)
{
    char *p = out;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != ',' && s.p[i] != '$')
            *p++ = s.p[i];
    if (p > out && p[-1] == '.')
        p--;
    *p = 0;
}

static span reference(const char *s)
{
    for (const char *q; (q = strstr(s, "#### "));)
        s = q + strlen("#### ");
    s += strspn(s, " \t\r\n");
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1]))
        n--;
    return (span){s, n};
}

static pb_err score(double *items, const pb_outputs *o, span (*find)(const char *))
{
    for (size_t i = 0; i < o->n; i++) {
        span found = find(o->hyp[i]);
        items[i] = 0;
        for (size_t j = 0; found.p && j < o->n_refs[i]; j++) {
            span want = reference(o->refs[i][j]);
            char *a = malloc(found.n + want.n + 2), *b = a ? a + found.n + 1 : NULL;
            if (!a)
                return pb_fail(PB_MEMORY, NULL, "no memory for an answer of %zu bytes", found.n);
            clean(a, found);
            clean(b, want);
            if (!strcmp(a, b))
                items[i] = 1;
            free(a);
        }
    }
    return PB_OK;
}

pb_err pb_gsm8k_strict(double *items, const pb_outputs *o)
{
    return score(items, o, strict);
}

pb_err pb_gsm8k_flexible(double *items, const pb_outputs *o)
{
    return score(items, o, flexible);
}
