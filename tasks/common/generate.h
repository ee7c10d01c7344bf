// What the generated tasks share: a vocabulary, splits by meaning, and the loop that draws
// examples.
//
// A generated task draws *meanings* (who has what, which slots a restaurant fills, which query) and
// words them. A meaning's key alone decides its split, 80 % train, 10 % valid and 10 % test, and
// does so for every seed: no meaning that one run trains on can be in the test set of any other.
#ifndef PB_TASKS_GENERATE_H
#define PB_TASKS_GENERATE_H

#include "tasks/task.h"

typedef struct pb_words {
    const char *const *word;
    size_t n;
} pb_words;

// First names; colours; things one can own; cities; foods; parts of a two-word place name. Every
// word fits after "a" except the foods, see pb_article.
extern const pb_words pb_names, pb_colours, pb_things, pb_cities, pb_foods;
extern const pb_words pb_place_first, pb_place_last;

const char *pb_pick(pb_rng *r, const pb_words *w);
const char *pb_article(const char *next_word); // "a" or "an"

// A line of text under construction.
typedef struct pb_line {
    char text[320];
    size_t n;
    bool full; // something did not fit
} pb_line;
void pb_put(pb_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The key of a meaning, written as text; the split it belongs to.
uint64_t pb_meaning(const char *text);
pb_split pb_meaning_split(uint64_t meaning);

typedef struct pb_seen { // a set of keys
    uint64_t *slot;
    size_t cap, n;
} pb_seen;
pb_err pb_seen_add(pb_seen *s, uint64_t key, bool *is_new);
void pb_seen_free(pb_seen *s);

// Draws one meaning from r. When it belongs to `split` and was not seen, adds its examples (at most
// `left`) to the dataset; otherwise adds nothing and the loop draws again.
typedef pb_err (*pb_draw)(pb_dataset *d, pb_rng *r, pb_split split, size_t left, pb_seen *seen);

// Fills every split up to its limit or default size. Splits have generators of their own, so a
// limit on one changes no other, and a smaller split is a prefix of a larger one.
pb_err pb_generate(pb_dataset *d, const pb_task *task, const pb_task_args *args, pb_draw draw);

#endif
