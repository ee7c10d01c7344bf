// What several metrics do with text: code points, one-to-one lower case.
#ifndef PB_METRICS_TEXT_H
#define PB_METRICS_TEXT_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The next code point of *s, which must not be at its end; a byte that is no UTF-8 is U+FFFD.
int32_t pb_next_char(const char **s);
// Appends a code point to `out` (4 bytes at most), not terminated; returns its end.
char *pb_put_char(char *out, int32_t c);
// White space as Unicode and Python's str.split() have it; letters, numbers and _ as \w of
// Python's regular expressions.
bool pb_is_white(int32_t c);
bool pb_is_word(int32_t c);
int32_t pb_lower_char(int32_t c);
// A copy of n bytes in lower case, one code point for one; release with free.
pb_err pb_lower(char **out, const char *s, size_t n);

#endif
