// Pieces of text: a prefix tree from byte strings to ids, and the best way to cut a text into
// pieces that have scores (the unigram model of SentencePiece and of tokenizer.json).
#ifndef PB_MODEL_PIECES_H
#define PB_MODEL_PIECES_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pb_piece {
    const char *text; // not terminated
    uint32_t len;     // at least 1
    int32_t id;
} pb_piece;

// Node 0 is the root. The children of a node are first[node]..first[node + 1] - 1, in the order of
// their bytes. Start from zeros.
typedef struct pb_trie {
    uint8_t *byte;   // (nodes) of the edge that leads here
    int32_t *id;     // (nodes) of the piece that ends here, or -1
    uint32_t *first; // (nodes + 1)
} pb_trie;

// Sorts the pieces and builds their tree. Of equal pieces the smallest id is used; `twice` (may be
// NULL) gets another id of such a piece, or -1 when all are different.
pb_err pb_trie_build(pb_trie *t, pb_piece *pieces, size_t n, int32_t *twice);
void pb_trie_free(pb_trie *t);

// The child over this byte; 0 when there is none.
static inline uint32_t pb_trie_step(const pb_trie *t, uint32_t node, char byte)
{
    uint32_t lo = t->first[node], end = t->first[node + 1], hi = end;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->byte[mid] < (uint8_t)byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < end && t->byte[lo] == (uint8_t)byte ? lo : 0;
}

// The id of the piece that is this text, or -1.
int32_t pb_trie_find(const pb_trie *t, const char *text, size_t len);

// Length of the character at `text`: a byte and the continuation bytes after it, four at most. In
// text that is not UTF-8 it is some length from 1 to 4.
uint32_t pb_character(const char *text, size_t len);

typedef struct pb_span {
    uint32_t len; // bytes of the text
    int32_t id;
} pb_span;

typedef struct pb_unigram {
    const pb_trie *trie;
    const double *score; // of every id in the tree
    int32_t unk;         // id of a character that is no piece
    double unk_score;
    bool single; // add up in single precision, as SentencePiece does; it decides near-ties
} pb_unigram;

// Cuts the text into the pieces whose scores have the largest sum. Of equal sums the one whose last
// piece starts first is taken. *spans is a new array (release with free).
pb_err pb_unigram_cut(const pb_unigram *u, const char *text, size_t len, pb_span **spans,
                      size_t *n);

#endif
