// Metrics. What a result file stores as a fraction lies between 0 and 1 (tables multiply by 100);
// NIST, CIDEr, perplexity and bits per byte have scales of their own.
//
// Hypotheses and references are zero-terminated UTF-8. Every metric is a function of statistics
// that are summed over items, so that a bootstrap over items can work with any of them; where they
// depend on all references of a test set (NIST, CIDEr), these stay those of the whole set.
#ifndef PB_METRICS_H
#define PB_METRICS_H

#include "core/error.h"
#include "tasks/task.h"
#include <stdbool.h>
#include <stddef.h>

// Generated texts and what they are compared with.
typedef struct pb_outputs {
    const char *const *hyp;            // (n)
    const char *const *const *refs;    // (n)
    const size_t *n_refs;              // (n)
    const pb_sql_table *const *tables; // (n), entries or all of it may be NULL
    size_t n;
} pb_outputs;

// A task reports the metrics of its headline's family, those of any generated text, and those of
// the references' likelihood.
typedef enum pb_measure_family {
    PB_LIKELIHOOD, // of the references under the model
    PB_RANKING,    // of the candidate that the model prefers
    PB_ANY_TEXT,
    PB_PROSE,  // data to text, instructions
    PB_ANSWER, // short answers to questions
    PB_QUERY,  // text to SQL
    PB_NUMBER  // sums with a number at the end
} pb_measure_family;

enum { PB_MOST_STATS = 16 }; // of one item

typedef struct pb_measure {
    const char *name, *unit;
    pb_measure_family family;
    bool lower_is_better;
    double scale; // stored -> shown
    int digits;   // shown behind the point
    // Statistics of an item in result files: their name and how many there are.
    const char *array;
    size_t width;
    // The figure from sums of the statistics over n items; NULL: sum[0] / n.
    double (*score)(const double *sum, size_t n);
    // The statistics (n,width) of generated texts; NULL where they do not come from these.
    pb_err (*items)(double *stats, const pb_outputs *o);
    // Whether the metric applies; NULL: always.
    bool (*applies)(const pb_outputs *o);
} pb_measure;

extern const pb_measure pb_measures[];               // ends with a name of NULL
const pb_measure *pb_measure_find(const char *name); // or NULL
// Whether a task of this kind may have it as its headline; an unknown name lists the known ones.
pb_err pb_measure_check(const char *name, pb_task_kind kind);
// How many numbers an item has in a result file's array of that name; 0: any.
size_t pb_measure_width(const char *array);
// The figure of n items with the statistics v (n,width).
double pb_measure_score(const pb_measure *m, const double *v, size_t n);
// Checks the texts (no items, an item without a reference: errors), then m->items.
pb_err pb_measure_items(const pb_measure *m, double *stats, const pb_outputs *o);

// ---------------------------------------------------------------- likelihood and ranking

// Of an item: summed nats, tokens, bytes of the text, tokens that were the most likely one.
enum { PB_NATS, PB_TOKENS_SCORED, PB_BYTES_SCORED, PB_HITS, PB_LIKELIHOOD_STATS };

// Fraction of items whose chosen index equals the label. items (n) may be NULL.
pb_err pb_accuracy(double *out, double *items, const size_t *chosen, const size_t *label, size_t n);
// Characters (code points) of a candidate without the white space in front of it, by which its
// log-probability is divided for accuracy_norm.
size_t pb_candidate_length(const char *text);

// ---------------------------------------------------------------- BLEU, NIST

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

// NIST-5 as mteval-v13a has it, see nist.c; its statistics rest on all references of the set.
enum { PB_NIST_STATS = 12 };
pb_err pb_nist(double *stats, const pb_outputs *o);
double pb_nist_score(const double *sum, size_t n);

// ROUGE-L and CIDEr of single sentences, see rouge.c and cider.c.
pb_err pb_rouge_l(double *items, const pb_outputs *o);
pb_err pb_cider(double *items, const pb_outputs *o);

// ---------------------------------------------------------------- answers, numbers, queries

// An item counts 1 when it equals one of its references after leading and trailing white space is
// cut and other runs of it count as one space. items (n) may be NULL.
pb_err pb_exact_match(double *out, double *items, const char *const *hyp,
                      const char *const *const *refs, const size_t *n_refs, size_t n);

// SQuAD v1.1, see squad.c. The normalised text; release with free.
pb_err pb_squad_normalise(char **out, const char *text);
pb_err pb_squad_em(double *items, const pb_outputs *o);
pb_err pb_squad_f1(double *items, const pb_outputs *o);

// GSM8K, see gsm8k.c.
pb_err pb_gsm8k_strict(double *items, const pb_outputs *o);
pb_err pb_gsm8k_flexible(double *items, const pb_outputs *o);

// WikiSQL, see wikisql.c. Execution needs every item's table.
pb_err pb_wikisql_logical_form(double *items, const pb_outputs *o);
pb_err pb_wikisql_execution(double *items, const pb_outputs *o);
bool pb_wikisql_has_tables(const pb_outputs *o);

#endif
