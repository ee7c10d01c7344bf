// SentencePiece's compiled character map: replacements of the text's normalisation, as rules from
// a byte string to another. tokenizer.model and tokenizer.json ("Precompiled") have the same bytes.
#ifndef PB_MODEL_CHARSMAP_H
#define PB_MODEL_CHARSMAP_H

#include "core/error.h"
#include <stddef.h>
#include <stdint.h>

typedef struct pb_charsmap { // zeros: no rule
    const uint8_t *units;    // (n_units) of the double array, 4 bytes each
    size_t n_units;
    const char *strings; // the replacements, each zero-terminated
    size_t n_strings;    // bytes of them all
} pb_charsmap;

// Borrows the bytes.
pb_err pb_charsmap_open(pb_charsmap *m, const uint8_t *data, size_t size);

// Length of the longest prefix of text[0..len) that has a rule, 0 when none has, and what replaces
// it, zero-terminated.
size_t pb_charsmap_match(const pb_charsmap *m, const char *text, size_t len, const char **by);

#endif
