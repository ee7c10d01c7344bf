// ROUGE-L (Lin 2004) of one sentence against references, as coco-caption's scripts (the E2E
// challenge's) compute it, on Penn Treebank tokens without punctuation (ptb.c):
//
//   P = max over references of LCS / tokens of the hypothesis,   R = max of LCS / tokens of the
//   reference,   F = (1 + b^2) P R / (R + b^2 P),   b = 1.2
//
// LCS is the length of the longest common subsequence. P and R may come from different references.
// The figure is the mean over items. A text without tokens counts as one empty token.
#include "tasks/metrics/grams.h"
#include "tasks/metrics/metrics.h"
#include "tasks/metrics/ptb.h"

#include <stdlib.h>
#include <string.h>

// `row` has room for b->n + 1 numbers.
static size_t lcs(const pb_sentence *a, const pb_sentence *b, size_t *row)
{
    memset(row, 0, (b->n + 1) * sizeof *row);
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0, before = 0; j < b->n; j++) { // before: of i - 1 and j - 1
            size_t above = row[j + 1];
            if (!pb_gram_order(&a->token[i], &b->token[j]))
                row[j + 1] = before + 1;
            else if (row[j] > above)
                row[j + 1] = row[j];
            before = above;
        }
    return a->n || b->n ? row[b->n] : 1;
}

static double at_least_one(size_t n)
{
    return n ? (double)n : 1;
}

pb_err pb_rouge_l(double *items, const pb_outputs *o)
{
    const double beta2 = 1.2 * 1.2;
    pb_err err = PB_OK;
    for (size_t i = 0; i < o->n && !err; i++) {
        pb_sentence h, r;
        double p = 0, q = 0;
        PB_TRY(pb_ptb_sentence(&h, o->hyp[i]));
        size_t *row = malloc((h.n + 1) * sizeof *row);
        if (!row)
            err = pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", h.n);
        for (size_t j = 0; j < o->n_refs[i] && !err; j++) {
            err = pb_ptb_sentence(&r, o->refs[i][j]);
            if (err)
                break;
            double n = (double)lcs(&r, &h, row), x = n / at_least_one(h.n);
            double y = n / at_least_one(r.n);
            p = x > p ? x : p;
            q = y > q ? y : q;
            pb_sentence_free(&r);
        }
        items[i] = p > 0 && q > 0 ? (1 + beta2) * p * q / (q + beta2 * p) : 0;
        free(row);
        pb_sentence_free(&h);
    }
    return err;
}
