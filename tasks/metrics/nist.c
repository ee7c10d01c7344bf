// NIST-5 (Doddington 2002) with the conventions of NIST's mteval-v13a as the E2E challenge runs it
// (its tokenisation, lower case, any number of references per item):
//
//   info(w1..wn) = log2( count(w1..wn-1) / count(w1..wn) )    counts over all references of the
//   set;
//                                                             of no words: all words
//   NIST = BP sum_n ( sum of info over matching n-grams / n-grams of the hypotheses ),  n = 1..5
//   BP   = exp( -beta log^2 min(1, c / r) ),   exp(-beta log^2(2/3)) = 1/2
//
// Matches are clipped by the largest count in any one reference. c is the hypotheses' length; r is
// the length of all references divided by their mean number per item, which is what mteval's
// arithmetic comes to.
#include "tasks/metrics/grams.h"
#include "tasks/metrics/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORDER = 5, REF_TOKENS = 2 * ORDER, REFS };
_Static_assert(REFS + 1 == PB_NIST_STATS, "statistics of an item");
// stats[0..4] info of matches, [5..9] n-grams of the hypothesis, [10] tokens of all references,
// [11] references

double pb_nist_score(const double *sum, size_t n)
{
    double score = 0, r = sum[REF_TOKENS] * (double)n / sum[REFS];
    for (size_t i = 0; i < ORDER; i++)
        score += sum[i] / fmax(sum[ORDER + i], 1);
    double ratio = fmin(1, sum[ORDER] / r), l = log(ratio) / log(1.5);
    return ratio > 0 ? score * exp(log(0.5) * l * l) : 0;
}

typedef struct references {
    pb_sentence *s; // of all items, in order
    size_t n, tokens, longest;
    pb_gram_counts count; // of all orders
} references;

static pb_err read_references(references *r, const pb_outputs *o)
{
    pb_err err = PB_OK;
    pb_gram *g = NULL;
    size_t n = 0;
    for (size_t i = 0; i < o->n; i++)
        n += o->n_refs[i];
    r->s = calloc(n, sizeof *r->s);
    if (!r->s)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu references", n);
    for (size_t i = 0; i < o->n; i++)
        for (size_t j = 0; j < o->n_refs[i]; j++) {
            pb_sentence *s = &r->s[r->n];
            PB_GO(pb_bleu_sentence(s, o->refs[i][j], false));
            r->n++;
            r->tokens += s->n;
            r->longest = s->n > r->longest ? s->n : r->longest;
        }
    g = malloc((r->longest + 1) * sizeof *g);
    if (!g)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the n-grams of %zu tokens", r->longest));
    for (size_t i = 0; i < r->n; i++)
        for (size_t order = 1; order <= ORDER; order++)
            PB_GO(pb_gram_counts_add(&r->count, g, pb_grams(g, &r->s[i], order), false));
    pb_gram_counts_sort(&r->count);
done:
    free(g);
    return err;
}

static double info(const references *r, pb_gram g)
{
    size_t last = g.n; // bytes of the n-gram without its last word and the space before it
    while (last && g.p[last - 1] != ' ')
        last--;
    double shorter = last ? pb_gram_count(&r->count, (pb_gram){g.p, last - 1}) : (double)r->tokens;
    return log2(shorter / pb_gram_count(&r->count, g));
}

// How often g is in a sorted list.
static size_t times(const pb_gram *list, size_t n, const pb_gram *g)
{
    size_t lo = 0, hi = n, count = 0;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (pb_gram_order(&list[mid], g) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    while (lo + count < n && !pb_gram_order(&list[lo + count], g))
        count++;
    return count;
}

static pb_err item(double *stats, const char *hyp, const pb_sentence *refs, size_t n_refs,
                   const references *all, pb_gram *b)
{
    pb_sentence h;
    PB_TRY(pb_bleu_sentence(&h, hyp, false));
    pb_gram *a = malloc((h.n + 1) * sizeof *a);
    size_t *best = malloc((h.n + 1) * sizeof *best);
    pb_err err = a && best ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", h.n);
    memset(stats, 0, PB_NIST_STATS * sizeof *stats);
    for (size_t order = 1; order <= ORDER && !err; order++) {
        size_t n = pb_grams(a, &h, order);
        memset(best, 0, (h.n + 1) * sizeof *best);
        for (size_t j = 0; j < n_refs; j++) {
            size_t nb = pb_grams(b, &refs[j], order);
            for (size_t i = 0; i < n; i++) {
                size_t k = times(b, nb, &a[i]);
                best[i] = k > best[i] ? k : best[i];
            }
        }
        for (size_t i = 0, next; i < n; i = next) {
            for (next = i + 1; next < n && !pb_gram_order(&a[i], &a[next]);)
                next++;
            size_t hits = best[i] < next - i ? best[i] : next - i;
            if (hits)
                stats[order - 1] += (double)hits * info(all, a[i]);
        }
        stats[ORDER + order - 1] = (double)n;
    }
    for (size_t j = 0; j < n_refs; j++)
        stats[REF_TOKENS] += (double)refs[j].n;
    stats[REFS] = (double)n_refs;
    free(a);
    free(best);
    pb_sentence_free(&h);
    return err;
}

pb_err pb_nist(double *stats, const pb_outputs *o)
{
    references r = {0};
    pb_gram *room = NULL;
    pb_err err = PB_OK;
    PB_GO(read_references(&r, o));
    room = malloc((r.longest + 1) * sizeof *room);
    if (!room)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the n-grams of %zu tokens", r.longest));
    for (size_t i = 0, first = 0; i < o->n; first += o->n_refs[i], i++)
        PB_GO(item(stats + i * PB_NIST_STATS, o->hyp[i], r.s + first, o->n_refs[i], &r, room));
done:
    for (size_t i = 0; i < r.n; i++)
        pb_sentence_free(&r.s[i]);
    free(r.s);
    pb_gram_counts_free(&r.count);
    free(room);
    return err;
}
