// The prefix tree is made in breadth-first order from the sorted pieces, so that the children of a
// node lie beside each other and a node needs nine bytes.
//
// Best path (Viterbi): best(0) = 0, best(e) = max over pieces text[s..e) of best(s) + score(piece),
// where s runs over the starts of characters. A character that is no piece by itself may be one
// unknown piece. Source: T. Kudo, "Subword Regularization", 2018; google/sentencepiece for the
// precision of the sums.
#include "model/pieces.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *pa, const void *pb)
{
    const pb_piece *a = pa, *b = pb;
    int c = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);
    if (c != 0)
        return c;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

// Nodes of the tree of sorted pieces: the root, and a node for every byte of a piece that is not in
// the prefix it shares with the piece before it.
static size_t count_nodes(const pb_piece *pieces, size_t n)
{
    size_t nodes = 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t shared = 0;
        if (i > 0)
            while (shared < pieces[i].len && shared < pieces[i - 1].len &&
                   pieces[i].text[shared] == pieces[i - 1].text[shared])
                shared++;
        nodes += pieces[i].len - shared;
    }
    return nodes;
}

// The sorted pieces below a node, and the length of the prefix that they share.
typedef struct range {
    uint32_t lo, hi, depth;
} range;

pb_err pb_trie_build(pb_trie *t, pb_piece *pieces, size_t n, int32_t *twice)
{
    if (n > 0)
        qsort(pieces, n, sizeof *pieces, compare);
    size_t nodes = count_nodes(pieces, n);
    if (nodes >= UINT32_MAX || n >= UINT32_MAX)
        return pb_fail(PB_UNSUPPORTED, NULL, "%zu pieces have too many bytes", n);
    range *below = malloc(nodes * sizeof *below);
    t->byte = malloc(nodes);
    t->id = malloc(nodes * sizeof *t->id);
    t->first = malloc((nodes + 1) * sizeof *t->first);
    if (!below || !t->byte || !t->id || !t->first) {
        free(below);
        return pb_fail(PB_MEMORY, NULL, "no memory for the tree of %zu pieces", n);
    }
    if (twice)
        *twice = -1;
    uint32_t made = 1;
    below[0] = (range){0, (uint32_t)n, 0};
    t->byte[0] = 0;
    for (uint32_t node = 0; node < made; node++) {
        range r = below[node];
        t->first[node] = made;
        t->id[node] = -1;
        for (; r.lo < r.hi && pieces[r.lo].len == r.depth; r.lo++) {
            if (t->id[node] < 0)
                t->id[node] = pieces[r.lo].id;
            else if (twice)
                *twice = pieces[r.lo].id;
        }
        while (r.lo < r.hi) {
            uint32_t from = r.lo;
            char byte = pieces[from].text[r.depth];
            while (r.lo < r.hi && pieces[r.lo].text[r.depth] == byte)
                r.lo++;
            t->byte[made] = (uint8_t)byte;
            below[made++] = (range){from, r.lo, r.depth + 1};
        }
    }
    t->first[made] = made;
    free(below);
    return PB_OK;
}

void pb_trie_free(pb_trie *t)
{
    free(t->byte);
    free(t->id);
    free(t->first);
    *t = (pb_trie){0};
}

int32_t pb_trie_find(const pb_trie *t, const char *text, size_t len)
{
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++)
        if (!(node = pb_trie_step(t, node, text[i])))
            return -1;
    return t->id[node];
}

uint32_t pb_character(const char *text, size_t len)
{
    uint32_t n = 1;
    while (n < 4 && n < len && ((uint8_t)text[n] & 0xc0) == 0x80)
        n++;
    return n;
}

// The best path that ends at a position, and its last piece.
typedef struct end {
    double score;
    uint32_t len; // 0: no path ends here
    int32_t id;
} end;

static void improve(const pb_unigram *u, end *e, double score, uint32_t len, int32_t id)
{
    if (e->len == 0 || score > e->score)
        *e = (end){u->single ? (float)score : score, len, id};
}

pb_err pb_unigram_cut(const pb_unigram *u, const char *text, size_t len, pb_span **spans, size_t *n)
{
    end *ends = calloc(len + 1, sizeof *ends);
    if (!ends)
        return pb_fail(PB_MEMORY, NULL, "no memory to encode %zu bytes of text", len);
    uint32_t width;
    for (size_t at = 0; at < len; at += width) {
        double here = ends[at].score;
        bool alone = false; // the character is a piece by itself
        width = pb_character(text + at, len - at);
        uint32_t node = 0, step;
        for (size_t i = at; i < len && (step = pb_trie_step(u->trie, node, text[i])); i++) {
            node = step;
            int32_t id = u->trie->id[node];
            if (id < 0)
                continue;
            uint32_t size = (uint32_t)(i + 1 - at);
            improve(u, &ends[i + 1], here + u->score[id], size, id);
            alone |= size == width;
        }
        if (!alone) {
            double score = here + u->unk_score;
            improve(u, &ends[at + width], u->single ? (float)score : score, width, u->unk);
        }
    }
    size_t count = 0;
    for (size_t at = len; at > 0; at -= ends[at].len)
        count++;
    *spans = malloc((count + 1) * sizeof **spans);
    *n = count;
    if (*spans)
        for (size_t at = len; at > 0; at -= ends[at].len)
            (*spans)[--count] = (pb_span){ends[at].len, ends[at].id};
    free(ends);
    return *spans ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for %zu pieces", *n);
}
