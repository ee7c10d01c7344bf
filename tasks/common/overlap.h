// How much of a task's evaluation data is in a training text, by n-grams of words.
//
// A word is a run of letters, marks and digits after compatibility decomposition and case folding
// (Unicode, utf8proc); format characters such as the soft hyphen are passed over, everything else
// separates words. So "It's" is "it s", whichever apostrophe it has and whether or not its text has
// been tokenised, and line breaks and punctuation hide nothing.
//
// Evaluation data are sets (a task's test split) of items of texts (a prompt, a reference). A text
// of n words or more gives n-grams; a shorter one of at least `least` words is looked for whole.
// n = 13 is what GPT-3 was checked with (Brown et al. 2020, appendix C). Neither n-grams nor whole
// texts run across documents of the training text.
//
// Word sequences are compared by 64-bit hashes: with millions of them on either side, a false match
// has a probability of about 1e-5.
#ifndef PB_TASKS_OVERLAP_H
#define PB_TASKS_OVERLAP_H

#include "core/error.h"
#include <stddef.h>
#include <stdint.h>

enum { PB_OVERLAP_MAX_N = 64 };

typedef struct pb_overlap pb_overlap;

pb_err pb_overlap_new(pb_overlap **out, size_t n, size_t least); // 1 <= least <= n
void pb_overlap_free(pb_overlap *o);

// Evaluation data: sets in order, their items, their texts. The name is copied.
pb_err pb_overlap_set(pb_overlap *o, const char *name);
pb_err pb_overlap_item(pb_overlap *o);
pb_err pb_overlap_text(pb_overlap *o, const char *text, size_t len);

// After the last text: makes the table that training text is compared with.
pb_err pb_overlap_ready(pb_overlap *o);
// One document of the training text.
void pb_overlap_scan(pb_overlap *o, const char *text, size_t len);
size_t pb_overlap_scanned(const pb_overlap *o); // words so far

typedef struct pb_overlap_count {
    size_t texts;      // texts of this kind
    size_t distinct;   // different n-grams (whole texts) in them
    size_t found;      // of these, in the training text
    size_t items_with; // items with at least one that was found
} pb_overlap_count;

typedef struct pb_overlap_example {
    size_t item; // from 0
    char *words; // the stretch of its text that is in the training text, white space reduced
    size_t n_words;
    size_t times; // how often its rarest n-gram is there
} pb_overlap_example;

typedef struct pb_overlap_result {
    const char *name;
    size_t items;
    size_t short_items;          // items all of whose texts have fewer than n words
    size_t too_short;            // texts with fewer than `least` words, which were not looked for
    pb_overlap_count grams;      // texts of n words or more
    pb_overlap_count wholes;     // shorter texts
    pb_overlap_example *example; // longest stretches first, one per item
    size_t n_examples;
} pb_overlap_result;

size_t pb_overlap_sets(const pb_overlap *o);
// What was found of set i, with up to `show` examples.
pb_err pb_overlap_result_of(const pb_overlap *o, size_t i, size_t show, pb_overlap_result *out);
void pb_overlap_result_free(pb_overlap_result *r);

#endif
