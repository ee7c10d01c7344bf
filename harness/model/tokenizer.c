// Bytes, and llama2.c's tokenizer.bin: int32 longest piece, then per token a float score, an int32
// length and that many bytes. Ids 0, 1, 2 are unknown, BOS, EOS; ids 3..258 are the bytes, written
// "<0x00>".."<0xFF>"; the rest are pieces, with a space where SentencePiece has U+2581.
//
// Encoding is SentencePiece's BPE: the text, with a space in front, is cut into characters; the
// neighbours whose union is the piece of highest score (leftmost on a tie) are merged until none
// can be; characters that are no piece become their bytes. A heap of candidates makes that
// O(n log n): a candidate whose symbols have changed since it was pushed is dropped when it comes
// up. Control tokens and bytes never take part in a merge, so text cannot spell a control token.
// Source of the format: karpathy/llama2.c, tokenizer.py and run.c.
#include "model/tokenizer.h"

#include "core/file.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTE_BOS = 256, BYTE_EOS = 257, BYTE_VOCAB = 258 };
enum { BOS = 1, EOS = 2, FIRST_BYTE = 3, FIRST_PIECE = FIRST_BYTE + 256, MAX_VOCAB = 1 << 24 };

typedef struct piece {
    const char *text; // into the file's mapping, not terminated
    uint32_t len;
    float score;
} piece;

struct pb_tokenizer {
    size_t vocab;
    bool bytes;
    pb_file file;
    piece *pieces;  // (V)
    int32_t *table; // (table_size) open addressing: text -> id; -1 is free
    size_t table_size;
};

// FNV-1a, 64 bits.
static uint64_t hash(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

// The slot of the piece with this text, or the free slot where it belongs.
static size_t slot_of(const pb_tokenizer *t, const char *text, size_t len)
{
    size_t mask = t->table_size - 1, i = hash(text, len) & mask;
    while (t->table[i] >= 0) {
        const piece *p = &t->pieces[t->table[i]];
        if (p->len == len && memcmp(p->text, text, len) == 0)
            break;
        i = (i + 1) & mask;
    }
    return i;
}

static int32_t lookup(const pb_tokenizer *t, const char *text, size_t len)
{
    return t->table[slot_of(t, text, len)];
}

static pb_err check_byte_piece(const piece *p, size_t id)
{
    char want[8];
    int n = snprintf(want, sizeof want, "<0x%02X>", (unsigned)(id - FIRST_BYTE));
    if (p->len != (uint32_t)n || memcmp(p->text, want, p->len) != 0)
        return pb_fail(PB_UNSUPPORTED, "train the tokenizer with byte fallback",
                       "token %zu is \"%.*s\", not the byte %s", id,
                       (int)(p->len < 32 ? p->len : 32), p->text, want);
    return PB_OK;
}

// Reads the pieces of the file and checks that it ends with the last one.
static pb_err read_pieces(pb_tokenizer *t)
{
    const uint8_t *data = t->file.data;
    size_t at = 0, size = t->file.size;
    int32_t longest = 0;
    if (size < sizeof longest)
        return pb_fail(PB_INPUT, "the file may be truncated", "%zu bytes are too few", size);
    memcpy(&longest, data, sizeof longest);
    at += sizeof longest;
    for (size_t id = 0; id < t->vocab; id++) {
        piece *p = &t->pieces[id];
        int32_t len;
        if (size - at < sizeof p->score + sizeof len)
            return pb_fail(PB_INPUT, "is it the tokenizer of this model? It may be truncated",
                           "it ends at token %zu of a vocabulary of %zu", id, t->vocab);
        memcpy(&p->score, data + at, sizeof p->score);
        memcpy(&len, data + at + sizeof p->score, sizeof len);
        at += sizeof p->score + sizeof len;
        if (!isfinite(p->score))
            return pb_fail(PB_INPUT, NULL, "token %zu has the score %g", id, (double)p->score);
        if (len < 0 || len > longest || (size_t)len > size - at)
            return pb_fail(PB_INPUT, NULL,
                           "token %zu has the length %d (longest allowed %d, %zu bytes left)", id,
                           len, longest, size - at);
        p->text = (const char *)data + at;
        p->len = (uint32_t)len;
        at += p->len;
        if (id >= FIRST_BYTE && id < FIRST_PIECE)
            PB_TRY(check_byte_piece(p, id));
    }
    if (at != size)
        return pb_fail(PB_INPUT, "is it the tokenizer of this model?",
                       "%zu bytes follow the last token of a vocabulary of %zu", size - at,
                       t->vocab);
    return PB_OK;
}

static pb_err open_file(pb_tokenizer *t, const char *path)
{
    if (t->vocab < FIRST_PIECE || t->vocab > MAX_VOCAB)
        return pb_fail(PB_INPUT, "the first 259 tokens are three control tokens and the bytes",
                       "the vocabulary is %zu, outside %d..%d", t->vocab, FIRST_PIECE, MAX_VOCAB);
    PB_TRY(pb_file_map(&t->file, path));
    // A token takes 8 bytes at least: a vocabulary that cannot be there gets no memory.
    if (t->file.size / 8 < t->vocab)
        return pb_fail(PB_INPUT, "is it the tokenizer of this model? It may be truncated",
                       "%zu bytes cannot hold a vocabulary of %zu", t->file.size, t->vocab);
    t->table_size = 1;
    while (t->table_size < 2 * t->vocab)
        t->table_size *= 2;
    t->pieces = calloc(t->vocab, sizeof *t->pieces);
    t->table = malloc(t->table_size * sizeof *t->table);
    if (!t->pieces || !t->table)
        return pb_fail(PB_MEMORY, NULL, "no memory for a vocabulary of %zu", t->vocab);
    PB_TRY(read_pieces(t));
    memset(t->table, -1, t->table_size * sizeof *t->table);
    for (size_t id = FIRST_PIECE; id < t->vocab; id++) {
        size_t slot = slot_of(t, t->pieces[id].text, t->pieces[id].len);
        if (t->table[slot] < 0 && t->pieces[id].len > 0) // of equal pieces the first is used
            t->table[slot] = (int32_t)id;
    }
    return PB_OK;
}

pb_err pb_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab)
{
    pb_err err = PB_OK;
    *out = NULL;
    pb_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
    t->vocab = vocab;
    t->bytes = strcmp(path, "bytes") == 0;
    if (!t->bytes)
        err = open_file(t, path);
    else if (vocab < BYTE_VOCAB)
        err = pb_fail(PB_INPUT, NULL, "the vocabulary is %zu, less than the %d of bytes", vocab,
                      BYTE_VOCAB);
    if (err) {
        pb_tokenizer_close(t);
        return pb_context(err, "tokenizer %.300s", path);
    }
    *out = t;
    return PB_OK;
}

void pb_tokenizer_close(pb_tokenizer *t)
{
    if (!t)
        return;
    free(t->pieces);
    free(t->table);
    pb_file_unmap(&t->file);
    free(t);
}

size_t pb_tokenizer_vocab(const pb_tokenizer *t)
{
    return t->vocab;
}

int32_t pb_tokenizer_bos(const pb_tokenizer *t)
{
    return t->bytes ? BYTE_BOS : BOS;
}

int32_t pb_tokenizer_eos(const pb_tokenizer *t)
{
    return t->bytes ? BYTE_EOS : EOS;
}

// A text being encoded. A symbol is known by the position of its first byte.
typedef struct symbol {
    uint32_t len;  // 0 when it was merged into its left neighbour
    uint32_t prev; // position of the left neighbour; NONE for the first symbol
    int32_t id;    // -1 for a character that is no piece
} symbol;

typedef struct candidate {
    float score;
    uint32_t left, len; // position of the left symbol, length of both together
    int32_t id;
} candidate;

typedef struct merger {
    const pb_tokenizer *t;
    const char *text;
    size_t len;
    symbol *symbols; // (len)
    candidate *heap;
    size_t n, cap;
} merger;

enum { MAX_TEXT = 1 << 30 };
#define NONE UINT32_MAX

static bool before(const candidate *a, const candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static pb_err push(merger *m, candidate c)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        candidate *heap = realloc(m->heap, cap * sizeof *heap);
        if (!heap)
            return pb_fail(PB_MEMORY, NULL, "no memory to encode %zu bytes of text", m->len);
        m->heap = heap;
        m->cap = cap;
    }
    size_t i = m->n++;
    for (; i > 0 && before(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return PB_OK;
}

static candidate pop(merger *m)
{
    candidate top = m->heap[0], last = m->heap[--m->n];
    size_t i = 0;
    for (size_t child = 1; child < m->n; child = 2 * i + 1) {
        if (child + 1 < m->n && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

// Pushes the union of the symbol at `left` and its right neighbour if that is a piece.
static pb_err consider(merger *m, uint32_t left)
{
    const symbol *a = &m->symbols[left];
    size_t right = (size_t)left + a->len;
    if (right >= m->len || a->id < 0 || m->symbols[right].id < 0)
        return PB_OK;
    uint32_t len = a->len + m->symbols[right].len;
    int32_t id = lookup(m->t, m->text + left, len);
    return id < 0 ? PB_OK : push(m, (candidate){m->t->pieces[id].score, left, len, id});
}

// Length of the character at `text`: a byte and the continuation bytes after it, four at most.
// Text that is not UTF-8 falls into pieces of some kind, all of which have bytes to fall back on.
static uint32_t character(const char *text, size_t len)
{
    uint32_t n = 1;
    while (n < 4 && n < len && ((uint8_t)text[n] & 0xc0) == 0x80)
        n++;
    return n;
}

static pb_err merge_all(merger *m)
{
    uint32_t prev = NONE;
    for (size_t at = 0; at < m->len; at += m->symbols[at].len) {
        uint32_t len = character(m->text + at, m->len - at);
        m->symbols[at] = (symbol){len, prev, lookup(m->t, m->text + at, len)};
        prev = (uint32_t)at;
    }
    for (size_t at = 0; at < m->len; at += m->symbols[at].len)
        PB_TRY(consider(m, (uint32_t)at));
    while (m->n > 0) {
        candidate c = pop(m);
        symbol *a = &m->symbols[c.left];
        size_t right = (size_t)c.left + a->len;
        if (a->len == 0 || a->len >= c.len || right >= m->len ||
            a->len + m->symbols[right].len != c.len)
            continue;
        m->symbols[right].len = 0;
        *a = (symbol){c.len, a->prev, c.id};
        if (c.left + (size_t)c.len < m->len)
            m->symbols[c.left + c.len].prev = c.left;
        PB_TRY(consider(m, c.left));
        if (a->prev != NONE)
            PB_TRY(consider(m, a->prev));
    }
    return PB_OK;
}

static pb_err reserve(int32_t **ids, size_t n, size_t *cap, size_t extra)
{
    if (extra <= *cap - n)
        return PB_OK;
    size_t want = n + extra < 2 * *cap ? 2 * *cap : n + extra;
    int32_t *p = realloc(*ids, want * sizeof *p);
    if (!p)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu token ids", want);
    *ids = p;
    *cap = want;
    return PB_OK;
}

static pb_err encode_pieces(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                            int32_t **ids, size_t *n, size_t *cap)
{
    pb_err err = PB_OK;
    size_t space = continues ? 0 : 1; // a text starts like a word in the middle of a sentence
    char *padded = malloc(len + space);
    symbol *symbols = calloc(len + space, sizeof *symbols);
    merger m = {.t = t, .text = padded, .len = len + space, .symbols = symbols};
    if (!padded || !symbols)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory to encode %zu bytes of text", len));
    padded[0] = ' ';
    memcpy(padded + space, text, len);
    PB_GO(merge_all(&m));
    PB_GO(reserve(ids, *n, cap, m.len)); // a symbol has no more ids than bytes
    for (size_t at = 0; at < m.len; at += symbols[at].len) {
        if (symbols[at].id >= 0)
            (*ids)[(*n)++] = symbols[at].id;
        else
            for (uint32_t i = 0; i < symbols[at].len; i++)
                (*ids)[(*n)++] = FIRST_BYTE + (uint8_t)padded[at + i];
    }
done:
    free(m.heap);
    free(symbols);
    free(padded);
    return err;
}

pb_err pb_tokenizer_encode(const pb_tokenizer *t, const char *text, size_t len, bool continues,
                           int32_t **ids, size_t *n, size_t *cap)
{
    if (len == 0)
        return PB_OK;
    if (len > MAX_TEXT)
        return pb_fail(PB_UNSUPPORTED, "encode it in parts",
                       "a text of %zu bytes is longer than %d", len, MAX_TEXT);
    if (!t->bytes)
        return encode_pieces(t, text, len, continues, ids, n, cap);
    PB_TRY(reserve(ids, *n, cap, len));
    for (size_t i = 0; i < len; i++)
        (*ids)[(*n)++] = (uint8_t)text[i];
    return PB_OK;
}

// The bytes an id stands for; `byte` is room for a single one.
static piece bytes_of(const pb_tokenizer *t, int32_t id, char *byte)
{
    int32_t first = t->bytes ? 0 : FIRST_BYTE;
    if (id >= first && id < first + 256) {
        *byte = (char)(id - first);
        return (piece){.text = byte, .len = 1};
    }
    return t->bytes || id < first ? (piece){.text = ""} : t->pieces[id];
}

pb_err pb_tokenizer_decode(const pb_tokenizer *t, const int32_t *ids, size_t n, bool continues,
                           char **text, size_t *len)
{
    char byte;
    size_t size = 0;
    *text = NULL;
    *len = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->vocab)
            return pb_fail(PB_INPUT, NULL, "token %d at position %zu is outside 0..%zu", ids[i], i,
                           t->vocab - 1);
        size += bytes_of(t, ids[i], &byte).len;
    }
    char *out = malloc(size + 1);
    if (!out)
        return pb_fail(PB_MEMORY, NULL, "no memory for a text of %zu bytes", size);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        piece p = bytes_of(t, ids[i], &byte);
        memcpy(out + at, p.text, p.len);
        at += p.len;
    }
    if (!t->bytes && !continues && size > 0 && out[0] == ' ')
        memmove(out, out + 1, --size);
    out[size] = 0;
    *text = out;
    *len = size;
    return PB_OK;
}
