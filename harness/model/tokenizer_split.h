// Cutting text by regular expressions, as the pre-tokenizers of tokenizer.json do, and UTF-8.
#ifndef PB_MODEL_TOKENIZER_SPLIT_H
#define PB_MODEL_TOKENIZER_SPLIT_H

#include "core/error.h"
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What happens to the matches of an expression: each is a piece of its own; they are dropped; they
// join the piece before or after them; neighbouring matches are one piece.
typedef enum pb_behavior {
    PB_ISOLATED,
    PB_REMOVED,
    PB_MERGED_WITH_PREVIOUS,
    PB_MERGED_WITH_NEXT,
    PB_CONTIGUOUS,
} pb_behavior;

// An expression in the dialect of Oniguruma, as far as tokenizers use it, or a literal text.
pb_err pb_regex_compile(pcre2_code **out, const char *pattern, size_t len, bool literal);

// The next match in text[at..len), which is UTF-8; *found says whether there is one. Empty matches
// do not count.
pb_err pb_regex_next(const pcre2_code *re, pcre2_match_data *m, const char *text, size_t len,
                     size_t at, bool *found, size_t *start, size_t *end);

typedef pb_err pb_piece_fn(void *self, const char *piece, size_t len);

// Cuts text[0..len), which is UTF-8, into pieces and calls `each` for every one that is not empty.
// `invert`: what the expression does not match counts as the matches.
pb_err pb_split_text(const pcre2_code *re, pcre2_match_data *m, pb_behavior behavior, bool invert,
                     const char *text, size_t len, pb_piece_fn *each, void *self);

// Length of the longest prefix that is UTF-8.
size_t pb_utf8_prefix(const char *text, size_t len);
// Length of the character at `text`; 1 for a byte that begins none.
size_t pb_utf8_char(const char *text, size_t len);

#endif
