// Tokenised texts and their n-grams. As tokens are joined by single spaces, an n-gram is a piece of
// the text.
#ifndef PB_METRICS_GRAMS_H
#define PB_METRICS_GRAMS_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct pb_gram {
    const char *p;
    size_t n; // bytes
} pb_gram;

typedef struct pb_sentence {
    char *text;
    pb_gram *token;
    size_t n;
} pb_sentence;

// Takes over the text, tokens joined by single spaces, also on failure.
pb_err pb_sentence_make(pb_sentence *s, char *tokens);
pb_err pb_bleu_sentence(pb_sentence *s, const char *text, bool case_sensitive); // mteval's tokens
void pb_sentence_free(pb_sentence *s);

int pb_gram_order(const void *a, const void *b); // for qsort and bsearch of pb_gram
// The n-grams of a sentence in that order; returns their number. Room: s->n.
size_t pb_grams(pb_gram *out, const pb_sentence *s, size_t order);

// How many texts of a collection, or how many times all of them, have an n-gram.
typedef struct pb_gram_counts {
    struct pb_counted *v; // sorted
    size_t n, room;
} pb_gram_counts;
// Adds n grams, which must be sorted; `once`: however often one is there, it counts one.
pb_err pb_gram_counts_add(pb_gram_counts *c, const pb_gram *g, size_t n, bool once);
// To be called after the last addition and before the first question.
void pb_gram_counts_sort(pb_gram_counts *c);
double pb_gram_count(const pb_gram_counts *c, pb_gram g);
void pb_gram_counts_free(pb_gram_counts *c);

#endif
