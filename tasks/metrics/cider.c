// CIDEr (Vedantam, Zitnick and Parikh 2015) as coco-caption's scripts (the E2E challenge's) compute
// it, on Penn Treebank tokens without punctuation (ptb.c). With N items, an n-gram w that is in the
// references of df(w) items, and g(w) = count of w in a text times (log N - log max(1, df(w))):
//
//   S_n(h,r) = sum_w min(g_h(w), g_r(w)) g_r(w) / (|g_h| |g_r|) * exp(-(l_h - l_r)^2 / (2 sigma^2))
//   CIDEr of an item = 10 * mean over its references r and n = 1..4 of S_n(h,r),   sigma = 6
//
// l is the number of bigrams in a text. The figure is the mean over items. df belongs to the test
// set: a bootstrap over items keeps it.
#include "tasks/metrics/grams.h"
#include "tasks/metrics/metrics.h"
#include "tasks/metrics/ptb.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORDER = 4 };

typedef struct weighted {
    pb_gram gram;
    double g;
} weighted;

// A text's distinct n-grams of every order, sorted, with their weights.
typedef struct vector {
    pb_sentence s;
    weighted *v[ORDER];
    size_t n[ORDER];
    double norm[ORDER];
} vector;

static void vector_free(vector *x)
{
    pb_sentence_free(&x->s);
    free(x->v[0]);
}

static pb_err vector_make(vector *x, const char *text)
{
    *x = (vector){0};
    PB_TRY(pb_ptb_sentence(&x->s, text));
    size_t most = x->s.n + 1;
    x->v[0] = malloc(ORDER * most * sizeof **x->v);
    pb_gram *g = malloc(most * sizeof *g);
    if (!x->v[0] || !g) {
        free(g);
        vector_free(x);
        return pb_fail(PB_MEMORY, NULL, "no memory for the n-grams of %zu tokens", most);
    }
    for (size_t k = 0; k < ORDER; k++) {
        x->v[k] = x->v[0] + k * most;
        size_t n = pb_grams(g, &x->s, k + 1);
        for (size_t i = 0; i < n; i++)
            if (i && !pb_gram_order(&g[i - 1], &g[i]))
                x->v[k][x->n[k] - 1].g++;
            else
                x->v[k][x->n[k]++] = (weighted){g[i], 1};
    }
    free(g);
    return PB_OK;
}

static void weigh(vector *x, const pb_gram_counts *df, double items)
{
    for (size_t k = 0; k < ORDER; k++) {
        double sum = 0;
        for (size_t i = 0; i < x->n[k]; i++) {
            weighted *w = &x->v[k][i];
            w->g *= log(items) - log(fmax(1, pb_gram_count(df, w->gram)));
            sum += w->g * w->g;
        }
        x->norm[k] = sqrt(sum);
    }
}

static double bigrams(const vector *x)
{
    return x->s.n ? (double)(x->s.n - 1) : 0;
}

static double similarity(const vector *h, const vector *r)
{
    const double sigma = 6;
    double d = bigrams(h) - bigrams(r), total = 0;
    for (size_t k = 0; k < ORDER; k++) {
        double sum = 0;
        for (size_t i = 0, j = 0; i < h->n[k] && j < r->n[k];) {
            const weighted *a = &h->v[k][i], *b = &r->v[k][j];
            int c = pb_gram_order(a, b);
            if (c == 0)
                sum += fmin(a->g, b->g) * b->g;
            i += c <= 0;
            j += c >= 0;
        }
        if (h->norm[k] > 0 && r->norm[k] > 0)
            sum /= h->norm[k] * r->norm[k];
        total += sum;
    }
    return total / ORDER * exp(-d * d / (2 * sigma * sigma));
}

// Adds every n-gram of an item's references once.
static pb_err count_item(pb_gram_counts *df, const vector *refs, size_t n_refs)
{
    size_t n = 0;
    for (size_t j = 0; j < n_refs; j++)
        for (size_t k = 0; k < ORDER; k++)
            n += refs[j].n[k];
    pb_gram *all = malloc((n + 1) * sizeof *all);
    if (!all)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu n-grams", n);
    n = 0;
    for (size_t j = 0; j < n_refs; j++)
        for (size_t k = 0; k < ORDER; k++)
            for (size_t i = 0; i < refs[j].n[k]; i++)
                all[n++] = refs[j].v[k][i].gram;
    qsort(all, n, sizeof *all, pb_gram_order);
    pb_err err = pb_gram_counts_add(df, all, n, true);
    free(all);
    return err;
}

pb_err pb_cider(double *items, const pb_outputs *o)
{
    pb_err err = PB_OK;
    pb_gram_counts df = {0};
    size_t n = 0, made = 0;
    for (size_t i = 0; i < o->n; i++)
        n += o->n_refs[i];
    vector *refs = calloc(n, sizeof *refs);
    if (!refs)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu references", n);
    for (size_t i = 0; i < o->n; i++) {
        size_t first = made;
        for (size_t j = 0; j < o->n_refs[i]; j++) {
            PB_GO(vector_make(&refs[made], o->refs[i][j]));
            made++;
        }
        PB_GO(count_item(&df, refs + first, o->n_refs[i]));
    }
    pb_gram_counts_sort(&df);
    for (size_t j = 0; j < n; j++)
        weigh(&refs[j], &df, (double)o->n);
    for (size_t i = 0, first = 0; i < o->n; first += o->n_refs[i], i++) {
        vector h;
        double sum = 0;
        PB_GO(vector_make(&h, o->hyp[i]));
        weigh(&h, &df, (double)o->n);
        for (size_t j = 0; j < o->n_refs[i]; j++)
            sum += similarity(&h, &refs[first + j]);
        items[i] = 10 * sum / (double)o->n_refs[i];
        vector_free(&h);
    }
done:
    for (size_t j = 0; j < made; j++)
        vector_free(&refs[j]);
    free(refs);
    pb_gram_counts_free(&df);
    return err;
}
