// Metrics, all as fractions between 0 and 1 (tables multiply by 100).
//
// Hypotheses, references and items are zero-terminated UTF-8. Every function gives the figure over
// all n items and, if asked, figures per item that a bootstrap over items can work with. n = 0 and
// items without a reference are errors.
#ifndef PB_METRICS_H
#define PB_METRICS_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>

// Corpus BLEU-4 as in mteval-v13a: its tokenisation, matches clipped by the largest count in any
// one reference, brevity penalty by the reference length closest to the hypothesis (the shorter of
// two that are equally close). The E2E scripts compare without regard to case, and so does the
// default here; that is the figure to report. Set `smooth` for mteval's smoothing (the k-th order
// without a match counts 2^-k matches); without it, an order without a match makes BLEU 0.
typedef struct pb_bleu_opts {
    bool case_sensitive, smooth;
} pb_bleu_opts;

// What BLEU needs to know of an item; the corpus's is the sum over items.
enum { PB_BLEU_ORDER = 4, PB_BLEU_STATS = 10 };
// stats[0..3] matching 1- to 4-grams, [4..7] n-grams in the hypothesis, [8] tokens in the
// hypothesis, [9] tokens in the closest reference.

// opts may be NULL (defaults); stats (n, PB_BLEU_STATS) may be NULL.
pb_err pb_bleu(double *out, double *stats, const char *const *hyp, const char *const *const *refs,
               const size_t *n_refs, size_t n, const pb_bleu_opts *opts);
// BLEU from summed statistics; 0 for an empty hypothesis.
double pb_bleu_score(const double sum[PB_BLEU_STATS], const pb_bleu_opts *opts);
// mteval-v13a's tokenisation: tokens joined by single spaces; release with free. Bytes outside
// ASCII are parts of words.
pb_err pb_bleu_tokens(char **out, const char *text, bool case_sensitive);

// An item counts 1 when it equals one of its references after leading and trailing white space is
// cut and other runs of it count as one space. items (n) may be NULL.
pb_err pb_exact_match(double *out, double *items, const char *const *hyp,
                      const char *const *const *refs, const size_t *n_refs, size_t n);

// Fraction of items whose chosen index equals the label. items (n) may be NULL.
pb_err pb_accuracy(double *out, double *items, const size_t *chosen, const size_t *label, size_t n);

#endif
