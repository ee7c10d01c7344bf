#include "tasks/metrics/grams.h"

#include <stdlib.h>
#include <string.h>

int pb_gram_order(const void *a, const void *b)
{
    const pb_gram *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

void pb_sentence_free(pb_sentence *s)
{
    free(s->text);
    free(s->token);
    *s = (pb_sentence){0};
}

pb_err pb_sentence_make(pb_sentence *s, char *tokens)
{
    *s =
        (pb_sentence){.text = tokens, .token = malloc((strlen(tokens) / 2 + 1) * sizeof *s->token)};
    if (!s->token) {
        pb_sentence_free(s);
        return pb_fail(PB_MEMORY, NULL, "no memory for the tokens of a sentence");
    }
    for (const char *p = s->text; *p; p += *p == ' ') {
        size_t len = strcspn(p, " ");
        s->token[s->n++] = (pb_gram){p, len};
        p += len;
    }
    return PB_OK;
}

size_t pb_grams(pb_gram *out, const pb_sentence *s, size_t order)
{
    size_t n = s->n < order ? 0 : s->n - order + 1;
    for (size_t i = 0; i < n; i++) {
        const pb_gram *last = &s->token[i + order - 1];
        out[i] = (pb_gram){s->token[i].p, (size_t)(last->p + last->n - s->token[i].p)};
    }
    qsort(out, n, sizeof *out, pb_gram_order);
    return n;
}

typedef struct pb_counted {
    pb_gram gram; // first, so that pb_gram_order orders them
    double count;
} counted;

pb_err pb_gram_counts_add(pb_gram_counts *c, const pb_gram *g, size_t n, bool once)
{
    if (c->n + n > c->room) {
        size_t room = 2 * (c->n + n) + 1024;
        counted *v = realloc(c->v, room * sizeof *v);
        if (!v)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu n-grams", room);
        c->v = v;
        c->room = room;
    }
    for (size_t i = 0; i < n; i++)
        if (!once || i == 0 || pb_gram_order(&g[i - 1], &g[i]))
            c->v[c->n++] = (counted){g[i], 1};
    return PB_OK;
}

void pb_gram_counts_sort(pb_gram_counts *c)
{
    size_t n = 0;
    if (c->n)
        qsort(c->v, c->n, sizeof *c->v, pb_gram_order);
    for (size_t i = 0; i < c->n; i++)
        if (n && !pb_gram_order(&c->v[n - 1], &c->v[i]))
            c->v[n - 1].count += c->v[i].count;
        else
            c->v[n++] = c->v[i];
    c->n = n;
}

double pb_gram_count(const pb_gram_counts *c, pb_gram g)
{
    const counted *found = c->n ? bsearch(&g, c->v, c->n, sizeof *c->v, pb_gram_order) : NULL;
    return found ? found->count : 0;
}

void pb_gram_counts_free(pb_gram_counts *c)
{
    free(c->v);
    *c = (pb_gram_counts){0};
}
