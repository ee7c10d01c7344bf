// Hugging Face's tokenizer.json with a BPE model: byte-level as in GPT-2, LLaMA-3, Qwen and SmolLM,
// or of characters with bytes to fall back on as in LLaMA-2, Mistral and Gemma.
//
// Encoding: added tokens that are no control tokens are found in the text (leftmost, then longest);
// what lies between them is normalized, cut into pieces by the pre-tokenizers, and every piece is
// encoded by itself: it starts as its bytes or characters, and the neighbours whose pair stands
// first in the list of merges (leftmost on a tie) are merged until no pair is in the list. A heap
// of candidates makes that O(n log n); a candidate whose symbols have changed is dropped when it
// comes up. Pieces repeat: a small table keeps the ids of the latest ones.
//
// In a byte-level tokenizer tokens are written in an alphabet of 256 printable characters, one per
// byte. They are turned into bytes once, at load. Bytes that are not UTF-8 are pieces of their own.
//
// Formats and behaviour: huggingface/tokenizers (its documentation and tests), openai/gpt-2.
#include "core/file.h"
#include "core/json.h"
#include "model/tokenizer_impl.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_STEPS = 16, LONGEST_TOKEN = 1 << 16 };

typedef struct token {
    uint32_t text, text_len;   // as the file writes it
    uint32_t bytes, bytes_len; // what it decodes to
    uint8_t kind;              // pb_token_kind
    bool model;                // in the model's vocabulary, not only added
} token;

typedef struct merge {
    int32_t left, right, id; // left is -1 in a free slot
    uint32_t rank;
} merge;

// A token that is looked for in the text before anything else happens to it.
typedef struct added {
    const char *text; // its own, normalized text if `normalized`; else the file's
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip;
    bool normalized; // looked for in the normalized text
} added;

typedef struct matcher {
    added *v; // by first byte, the longest first
    size_t n;
    uint32_t first[257]; // those that begin with byte b: v[first[b]] .. v[first[b + 1]]
} matcher;

typedef struct normalizer {
    enum { NORMALIZE_UNICODE, NORMALIZE_PREPEND, NORMALIZE_REPLACE } kind;
    utf8proc_option_t form;
    pcre2_code *pattern;
    const char *text; // to prepend, or to put in
    size_t len;
} normalizer;

typedef struct step {
    enum { STEP_SPLIT, STEP_SPACE, STEP_METASPACE } kind;
    pcre2_code *pattern; // SPLIT; METASPACE: the mark, or NULL when it does not cut
    pb_behavior behavior;
    bool invert;
    const char *mark; // METASPACE
    size_t len;
    enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } prepend;
} step;

// What one call of encode needs besides the tokenizer; kept for later calls.
typedef struct workspace workspace;

typedef struct json_tokenizer {
    pb_tokenizer base;
    json_t *json; // patterns and marks are borrowed from it
    pb_text strings;
    token *tokens;  // (n_tokens)
    int32_t *table; // (table_size) open addressing: text (bytes, if byte-level) -> id; -1 is free
    size_t table_size;
    merge *merges; // (merges_size) open addressing
    size_t merges_size;
    bool byte_level, byte_fallback, fuse_unknown, ignore_merges, cut;
    int32_t byte_id[256];
    int32_t unknown;   // -1: none
    const char *strip; // taken off the front of decoded text
    size_t strip_len, n_strip;
    matcher raw, normalized;
    normalizer normalizers[MAX_STEPS];
    size_t n_normalizers;
    step steps[MAX_STEPS];
    size_t n_steps;
    const char *replace[MAX_STEPS][2]; // decoder: what becomes what
    size_t n_replace;
    pthread_mutex_t lock;
    workspace *free; // not in use
} json_tokenizer;

static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ len, word;
    for (; len >= 8; len -= 8, text += 8) {
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, text, len);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    return h ^ h >> 29;
}

static uint64_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

// The part of a token by which it is looked up.
static const char *key_of(const json_tokenizer *t, int32_t id, size_t *len)
{
    const token *k = &t->tokens[id];
    *len = t->byte_level ? k->bytes_len : k->text_len;
    return t->strings.v + (t->byte_level ? k->bytes : k->text);
}

// The slot of the token with this key, or the free slot where it belongs.
static size_t slot_of(const json_tokenizer *t, const char *text, size_t len)
{
    size_t mask = t->table_size - 1, i = hash_text(text, len) & mask, n;
    for (; t->table[i] >= 0; i = (i + 1) & mask) {
        const char *key = key_of(t, t->table[i], &n);
        if (n == len && memcmp(key, text, len) == 0)
            break;
    }
    return i;
}

// The token that text may become: never a control token.
static int32_t lookup(const json_tokenizer *t, const char *text, size_t len)
{
    int32_t id = t->table[slot_of(t, text, len)];
    return id >= 0 && t->tokens[id].kind == PB_TOKEN_CONTROL ? -1 : id;
}

static const merge *merge_of(const json_tokenizer *t, int32_t left, int32_t right)
{
    size_t mask = t->merges_size - 1, i = hash_pair(left, right) & mask;
    while (t->merges[i].left >= 0 && (t->merges[i].left != left || t->merges[i].right != right))
        i = (i + 1) & mask;
    return &t->merges[i];
}

typedef struct symbol {
    int32_t id; // -1 when it was merged into its left neighbour
    uint32_t prev, next;
} symbol;

typedef struct candidate {
    uint32_t rank, left;
    int32_t id, a, b; // what the pair becomes, and the pair
} candidate;

enum { CACHE_SLOTS = 1 << 15, CACHE_TEXT = 22, CACHE_IDS = 8 };

typedef struct cached {
    uint8_t len, n; // len 0: free
    char text[CACHE_TEXT];
    int32_t ids[CACHE_IDS];
} cached;

struct workspace {
    const json_tokenizer *t;
    workspace *next;
    pb_ids *out;
    pb_piece_fn *each; // not NULL: gets the pieces instead of the model
    void *self;
    pb_text normal[2], scratch[MAX_STEPS];
    pcre2_match_data *match;
    symbol *symbols;
    size_t symbols_cap;
    candidate *heap;
    size_t n_heap, heap_cap;
    cached *cache; // (CACHE_SLOTS)
};

static void workspace_free(workspace *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < 2; i++)
        free(w->normal[i].v);
    for (size_t i = 0; i < MAX_STEPS; i++)
        free(w->scratch[i].v);
    pcre2_match_data_free(w->match);
    free(w->symbols);
    free(w->heap);
    free(w->cache);
    free(w);
}

static pb_err workspace_take(workspace **out, const json_tokenizer *t)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&t->lock;
    *out = NULL;
    pthread_mutex_lock(lock);
    workspace *w = t->free;
    if (w)
        ((json_tokenizer *)t)->free = w->next;
    pthread_mutex_unlock(lock);
    if (!w) {
        w = calloc(1, sizeof *w);
        if (w) {
            w->t = t;
            w->match = pcre2_match_data_create(1, NULL);
            w->cache = calloc(CACHE_SLOTS, sizeof *w->cache);
        }
        if (!w || !w->match || !w->cache) {
            workspace_free(w);
            return pb_fail(PB_MEMORY, NULL, "no memory to encode text");
        }
    }
    *out = w;
    return PB_OK;
}

static void workspace_give(workspace *w)
{
    json_tokenizer *t = (json_tokenizer *)w->t;
    w->out = NULL;
    w->each = NULL;
    pthread_mutex_lock(&t->lock);
    w->next = t->free;
    t->free = w;
    pthread_mutex_unlock(&t->lock);
}

static bool before(const candidate *a, const candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push(workspace *w, candidate c)
{
    size_t i = w->n_heap++;
    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate pop(workspace *w)
{
    candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < w->n_heap; child = 2 * i + 1) {
        if (child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

#define NONE UINT32_MAX

static void consider(workspace *w, uint32_t left)
{
    uint32_t right = left == NONE ? NONE : w->symbols[left].next;
    if (right == NONE)
        return;
    int32_t a = w->symbols[left].id, b = w->symbols[right].id;
    const merge *m = merge_of(w->t, a, b);
    if (m->left >= 0)
        push(w, (candidate){m->rank, left, m->id, a, b});
}

// A piece has at most as many symbols as bytes. Every merge adds two candidates and takes a symbol
// away, so the heap never holds more than three per symbol.
static pb_err make_room(workspace *w, size_t symbols)
{
    if (symbols <= w->symbols_cap)
        return PB_OK;
    size_t cap = symbols < 64 ? 64 : symbols + symbols / 2;
    symbol *s = realloc(w->symbols, cap * sizeof *s);
    if (s)
        w->symbols = s;
    candidate *h = realloc(w->heap, 3 * cap * sizeof *h);
    if (h)
        w->heap = h;
    if (!s || !h)
        return pb_fail(PB_MEMORY, NULL, "no memory to encode a piece of %zu bytes", symbols);
    w->symbols_cap = cap;
    return PB_OK;
}

static pb_err no_token(const char *text, size_t len)
{
    return pb_fail(PB_UNSUPPORTED, "the tokenizer knows neither it nor a token for the unknown",
                   "the text has %s \"%.*s\" (first byte 0x%02x), for which there is no token",
                   len == 1 ? "the byte" : "the character", (int)len, text, (uint8_t)*text);
}

// The symbols a piece starts from.
static pb_err first_symbols(workspace *w, const char *text, size_t len, size_t *count)
{
    const json_tokenizer *t = w->t;
    symbol *s = w->symbols;
    size_t n = 0, size;
    *count = 0;
    if (t->byte_level) {
        for (size_t i = 0; i < len; i++) {
            s[n++].id = t->byte_id[(uint8_t)text[i]];
            if (s[i].id < 0)
                return no_token(text + i, 1);
        }
        *count = n;
        return PB_OK;
    }
    bool unknown = false;
    for (size_t i = 0; i < len; i += size) {
        size = pb_utf8_char(text + i, len - i);
        int32_t id = lookup(t, text + i, size);
        bool bytes = id < 0 && t->byte_fallback;
        if (id >= 0)
            s[n++].id = id;
        for (size_t k = 0; bytes && k < size; k++)
            s[n++].id = t->byte_id[(uint8_t)text[i + k]];
        if (id < 0 && !bytes) {
            if (t->unknown < 0)
                return no_token(text + i, size);
            if (!unknown || !t->fuse_unknown)
                s[n++].id = t->unknown;
        }
        unknown = id < 0 && !bytes;
    }
    *count = n;
    return PB_OK;
}

static pb_err merge_piece(workspace *w, const char *text, size_t len)
{
    size_t n;
    PB_TRY(make_room(w, len));
    PB_TRY(first_symbols(w, text, len, &n));
    symbol *s = w->symbols;
    for (size_t i = 0; i < n; i++) {
        s[i].prev = i ? (uint32_t)(i - 1) : NONE;
        s[i].next = i + 1 < n ? (uint32_t)(i + 1) : NONE;
    }
    w->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        consider(w, (uint32_t)i);
    while (w->n_heap > 0) {
        candidate c = pop(w);
        symbol *a = &s[c.left];
        uint32_t right = a->next;
        if (a->id != c.a || right == NONE || s[right].id != c.b)
            continue;
        a->id = c.id;
        a->next = s[right].next;
        s[right].id = -1;
        if (a->next != NONE)
            s[a->next].prev = c.left;
        consider(w, c.left);
        consider(w, a->prev);
    }
    PB_TRY(pb_ids_reserve(w->out, n));
    for (uint32_t i = 0; n && i != NONE; i = s[i].next)
        w->out->v[w->out->n++] = s[i].id;
    return PB_OK;
}

// One piece through the model.
static pb_err encode_piece(workspace *w, const char *text, size_t len)
{
    if (w->each)
        return w->each(w->self, text, len);
    if (w->t->ignore_merges) {
        int32_t id = lookup(w->t, text, len);
        if (id >= 0)
            return pb_ids_push(w->out, id);
    }
    if (len > CACHE_TEXT)
        return merge_piece(w, text, len);
    cached *c = &w->cache[hash_text(text, len) & (CACHE_SLOTS - 1)];
    if (c->len == len && memcmp(c->text, text, len) == 0) {
        PB_TRY(pb_ids_reserve(w->out, CACHE_IDS));
        memcpy(w->out->v + w->out->n, c->ids, sizeof c->ids);
        w->out->n += c->n;
        return PB_OK;
    }
    size_t first = w->out->n;
    PB_TRY(merge_piece(w, text, len));
    if (w->out->n - first <= CACHE_IDS) {
        c->len = (uint8_t)len;
        c->n = (uint8_t)(w->out->n - first);
        memcpy(c->text, text, len);
        memcpy(c->ids, w->out->v + first, c->n * sizeof *c->ids);
    }
    return PB_OK;
}

static const char MARK[] = "\xe2\x96\x81"; // U+2581, SentencePiece's space
enum { MARK_LEN = 3 };

// Where no merge has the mark inside, a text can be cut before the mark: the pieces are words,
// which repeat.
static pb_err encode_words(workspace *w, const char *text, size_t len)
{
    size_t start = 0;
    for (size_t i = 1; w->t->cut && i + MARK_LEN <= len; i++)
        if (text[i] == MARK[0] && memcmp(text + i, MARK, MARK_LEN) == 0 &&
            (i < MARK_LEN || memcmp(text + i - MARK_LEN, MARK, MARK_LEN) != 0)) {
            PB_TRY(encode_piece(w, text + start, i - start));
            start = i;
        }
    return encode_piece(w, text + start, len - start);
}

// What a piece of text is to those before it: the first of all, a later one, or the continuation of
// the one before.
typedef enum place { FIRST, LATER, JOINED } place;

static pb_err run_step(workspace *w, size_t i, const char *text, size_t len, place p);

typedef struct next_step {
    workspace *w;
    size_t i;
    place p;
} next_step;

static pb_err each_piece(void *self, const char *text, size_t len)
{
    next_step *n = self;
    place p = n->p;
    n->p = LATER;
    return run_step(n->w, n->i, text, len, p);
}

static pb_err run_split(workspace *w, size_t i, const char *text, size_t len, place p)
{
    const step *s = &w->t->steps[i];
    next_step next = {w, i + 1, p};
    return pb_split_text(s->pattern, w->match, s->behavior, s->invert, text, len, each_piece,
                         &next);
}

static pb_err run_space(workspace *w, size_t i, const char *text, size_t len, place p)
{
    if (p == JOINED || *text == ' ')
        return run_step(w, i + 1, text, len, p);
    pb_text *s = &w->scratch[i];
    s->n = 0;
    PB_TRY(pb_text_append(s, " ", 1));
    PB_TRY(pb_text_append(s, text, len));
    return run_step(w, i + 1, s->v, s->n, p);
}

static pb_err run_metaspace(workspace *w, size_t i, const char *text, size_t len, place p)
{
    const step *s = &w->t->steps[i];
    pb_text *out = &w->scratch[i];
    bool marked = *text == ' ' || (len >= s->len && memcmp(text, s->mark, s->len) == 0);
    out->n = 0;
    if (!marked && ((s->prepend == PREPEND_ALWAYS && p != JOINED) ||
                    (s->prepend == PREPEND_FIRST && p == FIRST)))
        PB_TRY(pb_text_append(out, s->mark, s->len));
    for (size_t k = 0, n; k < len; k += n) {
        const char *space = memchr(text + k, ' ', len - k);
        n = space ? (size_t)(space - text) - k : len - k;
        PB_TRY(pb_text_append(out, text + k, n));
        if (space) {
            PB_TRY(pb_text_append(out, s->mark, s->len));
            n++;
        }
    }
    next_step next = {w, i + 1, p};
    if (!s->pattern)
        return run_step(w, i + 1, out->v, out->n, p);
    return pb_split_text(s->pattern, w->match, PB_MERGED_WITH_NEXT, false, out->v, out->n,
                         each_piece, &next);
}

// Step i of the pre-tokenizers and all after it; after the last one comes the model.
static pb_err run_step(workspace *w, size_t i, const char *text, size_t len, place p)
{
    if (len == 0)
        return PB_OK;
    if (i == w->t->n_steps)
        return encode_words(w, text, len);
    switch (w->t->steps[i].kind) {
    case STEP_SPLIT:
        return run_split(w, i, text, len, p);
    case STEP_SPACE:
        return run_space(w, i, text, len, p);
    default:
        return run_metaspace(w, i, text, len, p);
    }
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

static pb_err normalize_unicode(pb_text *out, const char *text, size_t len, utf8proc_option_t form)
{
    utf8proc_uint8_t *to = NULL;
    if (is_ascii(text, len))
        return pb_text_append(out, text, len);
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &to, form);
    if (n < 0)
        return pb_fail(PB_UNSUPPORTED, NULL, "normalizing %zu bytes of text: %s", len,
                       utf8proc_errmsg(n));
    pb_err err = pb_text_append(out, (const char *)to, (size_t)n);
    free(to);
    return err;
}

static pb_err normalize_replace(pb_text *out, const normalizer *n, pcre2_match_data *match,
                                const char *text, size_t len)
{
    size_t at = 0, start, end;
    for (bool found = true; found;) {
        PB_TRY(pb_regex_next(n->pattern, match, text, len, at, &found, &start, &end));
        PB_TRY(pb_text_append(out, text + at, (found ? start : len) - at));
        if (found)
            PB_TRY(pb_text_append(out, n->text, n->len));
        at = end;
    }
    return PB_OK;
}

// Runs the normalizers; *text and *len become the result, in one of two buffers.
static pb_err normalize(const json_tokenizer *t, pb_text buffer[2], pcre2_match_data *match,
                        const char **text, size_t *len, place p)
{
    for (size_t i = 0; i < t->n_normalizers; i++) {
        const normalizer *n = &t->normalizers[i];
        pb_text *out = &buffer[i % 2];
        out->n = 0;
        if (n->kind == NORMALIZE_PREPEND) {
            if (p == JOINED || *len == 0)
                PB_TRY(pb_text_append(out, *text, *len));
            else {
                PB_TRY(pb_text_append(out, n->text, n->len));
                PB_TRY(pb_text_append(out, *text, *len));
            }
        } else if (n->kind == NORMALIZE_UNICODE) {
            PB_TRY(normalize_unicode(out, *text, *len, n->form));
        } else {
            PB_TRY(normalize_replace(out, n, match, *text, *len));
        }
        *text = out->v;
        *len = out->n;
    }
    return PB_OK;
}

// The last character before `at`, and the first one from it on; 0 at the ends.
static utf8proc_int32_t char_before(const char *text, size_t at)
{
    size_t start = at;
    utf8proc_int32_t c = 0;
    while (start > 0 && at - start < 4 && ((uint8_t)text[--start] & 0xc0) == 0x80)
        ;
    return start < at && utf8proc_iterate((const uint8_t *)text + start,
                                          (utf8proc_ssize_t)(at - start), &c) > 0
               ? c
               : 0;
}

static utf8proc_int32_t char_after(const char *text, size_t len, size_t at)
{
    utf8proc_int32_t c = 0;
    return at < len && utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(len - at),
                                        &c) > 0
               ? c
               : 0;
}

static bool is_word(utf8proc_int32_t c)
{
    if (c <= 0)
        return false;
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ND) || k == UTF8PROC_CATEGORY_PC;
}

static bool is_space(utf8proc_int32_t c)
{
    if (c <= 0)
        return false;
    utf8proc_category_t k = utf8proc_category(c);
    return (c >= 9 && c <= 13) || c == 0x85 ||
           (k >= UTF8PROC_CATEGORY_ZS && k <= UTF8PROC_CATEGORY_ZP);
}

// The next added token in text[at..len): the longest one of the leftmost. Its range includes the
// white space that it takes along.
static const added *next_added(const matcher *m, const char *text, size_t len, size_t at,
                               size_t *start, size_t *end)
{
    for (size_t i = at; i < len; i++) {
        uint8_t byte = (uint8_t)text[i];
        for (uint32_t k = m->first[byte]; k < m->first[byte + 1]; k++) {
            const added *a = &m->v[k];
            size_t stop = i + a->len, from = i;
            utf8proc_int32_t c;
            if (a->len > len - i || memcmp(text + i, a->text, a->len) != 0)
                continue;
            if (a->single_word &&
                (is_word(char_before(text, i)) || is_word(char_after(text, len, stop)))) {
                i = stop - 1;
                break;
            }
            while (a->lstrip && from > at && is_space(c = char_before(text, from)))
                from -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
            while (a->rstrip && stop < len && is_space(c = char_after(text, len, stop)))
                stop += c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
            *start = from;
            *end = stop;
            return a;
        }
    }
    return NULL;
}

// A text that is UTF-8.
static pb_err encode_valid(workspace *w, const char *text, size_t len, place p)
{
    const matcher *m = &w->t->normalized;
    PB_TRY(normalize(w->t, w->normal, w->match, &text, &len, p));
    size_t at = 0, start = len, end = len;
    while (at < len) {
        const added *a = m->n ? next_added(m, text, len, at, &start, &end) : NULL;
        PB_TRY(run_step(w, 0, text + at, (a ? start : len) - at, p));
        if (a && !w->each)
            PB_TRY(pb_ids_push(w->out, a->id));
        at = a ? end : len;
        p = LATER;
    }
    return PB_OK;
}

// A text between added tokens: stretches of UTF-8, and bytes that are not.
static pb_err encode_stretches(workspace *w, const char *text, size_t len, place p)
{
    for (size_t at = 0; at < len;) {
        size_t n = pb_utf8_prefix(text + at, len - at), bad = at + n;
        PB_TRY(encode_valid(w, text + at, n, p));
        for (at = bad;
             at < len && pb_utf8_char(text + at, len - at) == 1 && ((uint8_t)text[at] & 0x80);)
            at++;
        if (at > bad)
            PB_TRY(encode_piece(w, text + bad, at - bad));
        p = JOINED;
    }
    return PB_OK;
}

static pb_err encode_text(workspace *w, const char *text, size_t len, place p)
{
    const matcher *m = &w->t->raw;
    size_t at = 0, start = len, end = len;
    while (at < len) {
        const added *a = m->n ? next_added(m, text, len, at, &start, &end) : NULL;
        PB_TRY(encode_stretches(w, text + at, (a ? start : len) - at, p));
        if (a && !w->each)
            PB_TRY(pb_ids_push(w->out, a->id));
        at = a ? end : len;
        p = LATER;
    }
    return PB_OK;
}

static pb_err json_encode(const pb_tokenizer *base, const char *text, size_t len, bool continues,
                          pb_ids *out)
{
    workspace *w;
    PB_TRY(workspace_take(&w, (const json_tokenizer *)base));
    w->out = out;
    pb_err err = encode_text(w, text, len, continues ? JOINED : FIRST);
    workspace_give(w);
    return err;
}

pb_err pb_json_tokenizer_split(const pb_tokenizer *base, const char *text, size_t len,
                               pb_piece_fn *each, void *self)
{
    workspace *w;
    PB_TRY(workspace_take(&w, (const json_tokenizer *)base));
    w->each = each;
    w->self = self;
    pb_err err = encode_text(w, text, len, FIRST);
    workspace_give(w);
    return err;
}

static pb_err json_decode(const pb_tokenizer *base, const int32_t *ids, size_t n, bool continues,
                          pb_text *out)
{
    const json_tokenizer *t = (const json_tokenizer *)base;
    size_t first = out->n;
    for (size_t i = 0; i < n; i++) {
        const token *k = &t->tokens[ids[i]];
        if ((size_t)ids[i] < base->tokens && k->kind != PB_TOKEN_CONTROL)
            PB_TRY(pb_text_append(out, t->strings.v + k->bytes, k->bytes_len));
    }
    size_t at = first;
    for (size_t i = 0; !continues && i < t->n_strip && out->n - at >= t->strip_len &&
                       memcmp(out->v + at, t->strip, t->strip_len) == 0;
         i++)
        at += t->strip_len;
    if (at > first) {
        memmove(out->v + first, out->v + at, out->n - at);
        out->n -= at - first;
    }
    return PB_OK;
}

static pb_token_kind json_token(const pb_tokenizer *base, int32_t id, const char **text,
                                size_t *len)
{
    const json_tokenizer *t = (const json_tokenizer *)base;
    *text = t->strings.v + t->tokens[id].text;
    *len = t->tokens[id].text_len;
    return t->tokens[id].kind;
}

static void json_free(pb_tokenizer *base)
{
    json_tokenizer *t = (json_tokenizer *)base;
    for (workspace *w = t->free, *next; w; w = next) {
        next = w->next;
        workspace_free(w);
    }
    for (size_t i = 0; i < t->n_steps; i++)
        pcre2_code_free(t->steps[i].pattern);
    for (size_t i = 0; i < t->n_normalizers; i++)
        pcre2_code_free(t->normalizers[i].pattern);
    pthread_mutex_destroy(&t->lock);
    for (size_t i = 0; i < t->normalized.n; i++)
        free((char *)t->normalized.v[i].text);
    free(t->raw.v);
    free(t->normalized.v);
    free(t->strings.v);
    free(t->tokens);
    free(t->table);
    free(t->merges);
    json_decref(t->json);
    free(t);
}

static const pb_tokenizer_ops json_ops = {"tokenizer.json, BPE", json_encode, json_decode,
                                          json_token, json_free};

// Reading the file.

static const char *string_of(const json_t *j, size_t *len)
{
    *len = json_string_length(j);
    return json_string_value(j);
}

static const json_t *get(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_null(v) ? NULL : v;
}

// The type of a component, and the list of components when it is a Sequence.
static pb_err type_of(const json_t *j, const char *what, const char **type)
{
    if (!json_is_object(j))
        return pb_fail(PB_INPUT, NULL, "a %s is not an object", what);
    pb_err err = pb_json_str(j, "type", type);
    return err ? pb_context(err, "%s", what) : PB_OK;
}

static pb_err unsupported(const char *what, const char *type)
{
    return pb_fail(PB_UNSUPPORTED, NULL, "the %s \"%.100s\" is not supported", what, type);
}

// Calls `read` for a component, or for every component of a Sequence, whose list is `key`.
static pb_err each_component(json_tokenizer *t, const json_t *j, const char *what, const char *key,
                             int depth, pb_err (*read)(json_tokenizer *, const json_t *))
{
    const char *type;
    if (!j || json_is_null(j))
        return PB_OK;
    PB_TRY(type_of(j, what, &type));
    if (strcmp(type, "Sequence") != 0)
        return read(t, j);
    const json_t *list = json_object_get(j, key);
    if (!json_is_array(list) || depth > 4)
        return pb_fail(PB_INPUT, NULL, "a Sequence of the %s has no list \"%s\"", what, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        PB_TRY(each_component(t, json_array_get(list, i), what, key, depth + 1, read));
    return PB_OK;
}

// {"String": "..."} or {"Regex": "..."}.
static pb_err read_pattern(pcre2_code **out, const json_t *j)
{
    size_t len;
    const json_t *text = get(json_object_get(j, "pattern"), "String");
    const json_t *regex = get(json_object_get(j, "pattern"), "Regex");
    if (json_is_string(text) == json_is_string(regex))
        return pb_fail(PB_INPUT, NULL, "a \"pattern\" is neither a String nor a Regex");
    const char *pattern = string_of(text ? text : regex, &len);
    return pb_regex_compile(out, pattern, len, text != NULL);
}

static pb_err read_text(const json_t *j, const char *key, const char **text, size_t *len)
{
    PB_TRY(pb_json_str(j, key, text));
    *len = strlen(*text);
    return PB_OK;
}

static pb_err read_normalizer(json_tokenizer *t, const json_t *j)
{
    static const struct {
        const char *type;
        utf8proc_option_t form;
    } forms[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    const char *type;
    PB_TRY(type_of(j, "normalizer", &type));
    if (t->n_normalizers == MAX_STEPS)
        return pb_fail(PB_UNSUPPORTED, NULL, "more than %d normalizers", MAX_STEPS);
    normalizer *n = &t->normalizers[t->n_normalizers];
    *n = (normalizer){0};
    t->n_normalizers++;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].type) == 0) {
            n->kind = NORMALIZE_UNICODE;
            n->form = forms[i].form;
            return PB_OK;
        }
    if (strcmp(type, "Prepend") == 0) {
        n->kind = NORMALIZE_PREPEND;
        return read_text(j, "prepend", &n->text, &n->len);
    }
    if (strcmp(type, "Replace") == 0) {
        n->kind = NORMALIZE_REPLACE;
        PB_TRY(read_text(j, "content", &n->text, &n->len));
        return read_pattern(&n->pattern, j);
    }
    return unsupported("normalizer", type);
}

static pb_err add_step(json_tokenizer *t, step s)
{
    if (t->n_steps == MAX_STEPS) {
        pcre2_code_free(s.pattern);
        return pb_fail(PB_UNSUPPORTED, NULL, "more than %d pre-tokenizers", MAX_STEPS);
    }
    t->steps[t->n_steps++] = s;
    return PB_OK;
}

static pb_err add_split(json_tokenizer *t, const char *regex, pb_behavior behavior)
{
    step s = {.kind = STEP_SPLIT, .behavior = behavior};
    PB_TRY(pb_regex_compile(&s.pattern, regex, strlen(regex), false));
    return add_step(t, s);
}

static pb_err read_behavior(const json_t *j, const char *name, pb_behavior *out)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    PB_TRY(pb_json_opt_str(j, "behavior", &name));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (pb_behavior)i;
            return PB_OK;
        }
    return unsupported("behavior", name);
}

static pb_err read_byte_level(json_tokenizer *t, const json_t *j)
{
    bool space = true, regex = true;
    PB_TRY(pb_json_opt_bool(j, "add_prefix_space", &space));
    PB_TRY(pb_json_opt_bool(j, "use_regex", &regex));
    t->byte_level = true;
    if (space) {
        PB_TRY(add_step(t, (step){.kind = STEP_SPACE}));
        t->strip = " ";
        t->strip_len = t->n_strip = 1;
    }
    // GPT-2's expression.
    return regex ? add_split(t,
                             "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
                             "|\\s+(?!\\S)|\\s+",
                             PB_ISOLATED)
                 : PB_OK;
}

// "prepend_scheme", or the older "add_prefix_space".
static pb_err read_scheme(const json_t *j, int *out)
{
    bool space = true;
    const char *scheme = NULL;
    PB_TRY(pb_json_opt_bool(j, "add_prefix_space", &space));
    PB_TRY(pb_json_opt_str(j, "prepend_scheme", &scheme));
    if (!scheme)
        scheme = space ? "always" : "never";
    *out = strcmp(scheme, "always") == 0  ? PREPEND_ALWAYS
           : strcmp(scheme, "first") == 0 ? PREPEND_FIRST
                                          : PREPEND_NEVER;
    return *out != PREPEND_NEVER || strcmp(scheme, "never") == 0
               ? PB_OK
               : unsupported("prepend_scheme", scheme);
}

static pb_err read_metaspace(json_tokenizer *t, const json_t *j)
{
    step s = {.kind = STEP_METASPACE, .mark = MARK, .len = MARK_LEN};
    bool split = true;
    int scheme;
    PB_TRY(read_scheme(j, &scheme));
    s.prepend = scheme;
    PB_TRY(pb_json_opt_bool(j, "split", &split));
    PB_TRY(pb_json_opt_str(j, "replacement", &s.mark));
    s.len = strlen(s.mark);
    if (s.len == 0)
        return pb_fail(PB_INPUT, NULL, "the \"replacement\" of a Metaspace is empty");
    if (split)
        PB_TRY(pb_regex_compile(&s.pattern, s.mark, s.len, true));
    return add_step(t, s);
}

static pb_err read_pre_tokenizer(json_tokenizer *t, const json_t *j)
{
    const char *type;
    PB_TRY(type_of(j, "pre-tokenizer", &type));
    if (t->byte_level)
        return pb_fail(PB_UNSUPPORTED, NULL, "the pre-tokenizer %.100s stands after ByteLevel",
                       type);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(t, j);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, j);
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        PB_TRY(pb_json_opt_bool(j, "individual_digits", &individual));
        return add_split(t, "\\p{N}", individual ? PB_ISOLATED : PB_CONTIGUOUS);
    }
    step s = {.kind = STEP_SPLIT};
    if (strcmp(type, "Punctuation") == 0) {
        PB_TRY(read_behavior(j, "Isolated", &s.behavior));
        return add_split(t, "[!-\\/:-@\\[-`{-~\\p{P}]", s.behavior);
    }
    if (strcmp(type, "Split") != 0)
        return unsupported("pre-tokenizer", type);
    PB_TRY(pb_json_opt_bool(j, "invert", &s.invert));
    PB_TRY(read_behavior(j, "", &s.behavior));
    PB_TRY(read_pattern(&s.pattern, j));
    return add_step(t, s);
}

// The alphabet of byte-level tokens: printable bytes are themselves, the others are U+0100 and on
// in their order.
static void byte_alphabet(int16_t byte_of[324])
{
    int16_t other = 256;
    memset(byte_of, -1, 324 * sizeof *byte_of);
    for (int16_t b = 0; b < 256; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        byte_of[printable ? b : other++] = b;
    }
}

// Appends the bytes that a byte-level token stands for; false if it has characters outside the
// alphabet.
static bool append_bytes(pb_text *out, const char *text, size_t len, const int16_t byte_of[324])
{
    size_t n = out->n;
    for (size_t i = 0; i < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t size =
            utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);
        if (size <= 0 || c < 0 || c >= 324 || byte_of[c] < 0)
            return false;
        out->v[n++] = (char)byte_of[c];
        i += (size_t)size;
    }
    out->n = n;
    return true;
}

// The byte that "<0x41>" names, or -1.
static int byte_named(const char *text, size_t len)
{
    unsigned byte;
    char want[8];
    if (len != 6 || sscanf(text, "<0x%2X>", &byte) != 1)
        return -1;
    snprintf(want, sizeof want, "<0x%02X>", byte);
    return memcmp(text, want, 6) == 0 ? (int)byte : -1;
}

// Appends text with the decoder's replacements made, one after the other.
static pb_err append_replaced(json_tokenizer *t, const char *text, size_t len)
{
    size_t first = t->strings.n;
    PB_TRY(pb_text_append(&t->strings, text, len));
    for (size_t r = 0; r < t->n_replace; r++) {
        const char *from = t->replace[r][0], *to = t->replace[r][1];
        size_t n = t->strings.n - first, n_from = strlen(from), at = 0;
        if (!memmem(t->strings.v + first, n, from, n_from))
            continue;
        char *old = malloc(n);
        if (!old)
            return pb_fail(PB_MEMORY, NULL, "no memory for a token of %zu bytes", n);
        memcpy(old, t->strings.v + first, n);
        t->strings.n = first;
        pb_err err = PB_OK;
        while (at < n && !err) {
            const char *hit = memmem(old + at, n - at, from, n_from);
            size_t gap = hit ? (size_t)(hit - old) - at : n - at;
            err = pb_text_append(&t->strings, old + at, gap);
            if (!err && hit)
                err = pb_text_append(&t->strings, to, strlen(to));
            at += gap + (hit ? n_from : 0);
        }
        free(old);
        PB_TRY(err);
        if (t->strings.n - first > LONGEST_TOKEN)
            return pb_fail(PB_INPUT, NULL, "a token decodes to more than %d bytes", LONGEST_TOKEN);
    }
    return PB_OK;
}

// Sets token `id`, which nothing has set.
static pb_err set_token(json_tokenizer *t, int64_t id, const char *text, size_t len, bool model,
                        const int16_t byte_of[324])
{
    if (id < 0 || (size_t)id >= t->base.tokens)
        return pb_fail(PB_INPUT, NULL, "the token \"%.100s\" has the id %lld", text, (long long)id);
    token *k = &t->tokens[id];
    if (k->kind != PB_TOKEN_NONE)
        return pb_fail(PB_INPUT, NULL, "the tokens \"%.*s\" and \"%.100s\" both have the id %lld",
                       (int)(k->text_len < 100 ? k->text_len : 100), t->strings.v + k->text, text,
                       (long long)id);
    if (len > LONGEST_TOKEN || t->strings.n > (size_t)1 << 31)
        return pb_fail(PB_INPUT, NULL, "token %lld has %zu bytes, more than %d", (long long)id, len,
                       LONGEST_TOKEN);
    *k = (token){.text = (uint32_t)t->strings.n, .text_len = (uint32_t)len, .kind = PB_TOKEN_TEXT};
    PB_TRY(pb_text_append(&t->strings, text, len));
    PB_TRY(pb_text_reserve(&t->strings, len));
    k->bytes = (uint32_t)t->strings.n;
    k->model = model;
    int byte = t->byte_fallback && model ? byte_named(text, len) : -1;
    if (byte >= 0) {
        k->kind = PB_TOKEN_BYTE;
        PB_TRY(pb_text_append(&t->strings, &(char){(char)byte}, 1));
    } else if (!t->byte_level) {
        PB_TRY(append_replaced(t, text, len));
    } else if (!model || !append_bytes(&t->strings, text, len, byte_of)) {
        // Not written in the alphabet: it is itself when decoded, and no text becomes it.
        PB_TRY(pb_text_append(&t->strings, text, len));
        k->model = false;
    } else if (t->strings.n - k->bytes == 1) {
        k->kind = PB_TOKEN_BYTE;
    }
    k->bytes_len = (uint32_t)(t->strings.n - k->bytes);
    return PB_OK;
}

static pb_err id_of(const json_t *j, const char *name, int64_t *max)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0 || json_integer_value(j) >= PB_MAX_TOKENS)
        return pb_fail(PB_INPUT, NULL, "the id of the token \"%.100s\" is not 0..%d", name,
                       PB_MAX_TOKENS - 1);
    if (json_integer_value(j) > *max)
        *max = json_integer_value(j);
    return PB_OK;
}

// Counts the tokens, and makes room for them.
static pb_err size_up(json_tokenizer *t, const json_t *vocab, const json_t *list, size_t limit)
{
    const char *name;
    json_t *v;
    int64_t max = -1;
    if (!json_is_object(vocab))
        return pb_fail(PB_INPUT, NULL, "the model has no \"vocab\"");
    if (list && !json_is_array(list))
        return pb_fail(PB_INPUT, NULL, "\"added_tokens\" is not a list");
    json_object_foreach((json_t *)vocab, name, v)
    {
        PB_TRY(id_of(v, name, &max));
        if (limit && (size_t)json_integer_value(v) >= limit)
            return pb_fail(PB_INPUT, "is it the tokenizer of this model?",
                           "the token \"%.100s\" has the id %lld, outside the model's vocabulary "
                           "of %zu",
                           name, (long long)json_integer_value(v), limit);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        PB_TRY(pb_json_str(json_array_get(list, i), "content", &name));
        v = json_object_get(json_array_get(list, i), "id");
        PB_TRY(id_of(v, name, &max));
        if (limit && (size_t)json_integer_value(v) >= limit)
            return pb_fail(PB_INPUT, "is it the tokenizer of this model?",
                           "the added token \"%.100s\" has the id %lld, outside the model's "
                           "vocabulary of %zu",
                           name, (long long)json_integer_value(v), limit);
    }
    // A file may leave ids out, but not so many that a small file takes much memory.
    size_t n = json_object_size(vocab) + json_array_size(list);
    if ((size_t)(max + 1) > 4 * n + 1024)
        return pb_fail(PB_INPUT, NULL, "the largest id is %lld, but there are %zu tokens",
                       (long long)max, n);
    PB_TRY(pb_tokenizer_size(&t->base, (size_t)(max + 1), limit));
    t->table_size = 2;
    while (t->table_size < 2 * t->base.tokens)
        t->table_size *= 2;
    t->tokens = calloc(t->base.tokens, sizeof *t->tokens);
    t->table = malloc(t->table_size * sizeof *t->table);
    if (!t->tokens || !t->table)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", t->base.tokens);
    memset(t->table, -1, t->table_size * sizeof *t->table);
    return PB_OK;
}

static int by_first_byte(const void *a, const void *b)
{
    const added *x = a, *y = b;
    int first = (uint8_t)x->text[0] - (uint8_t)y->text[0];
    return first ? first : (x->len < y->len) - (x->len > y->len);
}

static void index_matcher(matcher *m)
{
    uint32_t k = 0;
    if (m->n)
        qsort(m->v, m->n, sizeof *m->v, by_first_byte);
    for (int b = 0; b <= 256; b++) {
        while (k < m->n && (uint8_t)m->v[k].text[0] < b)
            k++;
        m->first[b] = k;
    }
}

// Added tokens: control tokens, which text never becomes, and others, which are looked for in it.
static pb_err read_added(json_tokenizer *t, const json_t *list, const json_t *vocab,
                         const int16_t byte_of[324])
{
    pb_text buffer[2] = {0};
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pb_err err = PB_OK;
    size_t n = json_array_size(list);
    t->raw.v = calloc(n + 1, sizeof *t->raw.v);
    t->normalized.v = calloc(n + 1, sizeof *t->normalized.v);
    if (!t->raw.v || !t->normalized.v || !match)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu added tokens", n));
    for (size_t i = 0; i < n; i++) {
        const json_t *j = json_array_get(list, i), *known;
        bool special = false;
        added a = {0};
        PB_GO(pb_json_str(j, "content", &a.text));
        a.len = strlen(a.text);
        a.id = (int32_t)json_integer_value(json_object_get(j, "id"));
        PB_GO(pb_json_opt_bool(j, "special", &special));
        a.normalized = !special;
        PB_GO(pb_json_opt_bool(j, "normalized", &a.normalized));
        PB_GO(pb_json_opt_bool(j, "single_word", &a.single_word));
        PB_GO(pb_json_opt_bool(j, "lstrip", &a.lstrip));
        PB_GO(pb_json_opt_bool(j, "rstrip", &a.rstrip));
        if (a.len == 0)
            PB_GO(pb_fail(PB_INPUT, NULL, "the added token %d is empty", a.id));
        known = json_object_get(vocab, a.text);
        if (!known)
            PB_GO(set_token(t, a.id, a.text, a.len, false, byte_of));
        else if (json_integer_value(known) != a.id)
            PB_GO(pb_fail(PB_INPUT, NULL,
                          "the added token \"%.100s\" has the id %d, and in the vocabulary %lld",
                          a.text, a.id, (long long)json_integer_value(known)));
        if (special) {
            t->tokens[a.id].kind = PB_TOKEN_CONTROL;
            continue;
        }
        if (a.normalized && t->n_normalizers) {
            PB_GO(normalize(t, buffer, match, &a.text, &a.len, FIRST));
            if (a.len == 0)
                continue;
            a.text = strndup(a.text, a.len);
            if (!a.text)
                PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for an added token"));
            t->normalized.v[t->normalized.n++] = a;
        } else {
            t->raw.v[t->raw.n++] = a;
        }
    }
    index_matcher(&t->raw);
    index_matcher(&t->normalized);
done:
    free(buffer[0].v);
    free(buffer[1].v);
    pcre2_match_data_free(match);
    return err;
}

// Reads the vocabulary and the added tokens, and makes them searchable.
static pb_err read_tokens(json_tokenizer *t, const json_t *model, size_t limit)
{
    int16_t byte_of[324];
    const char *name;
    json_t *v;
    const json_t *vocab = json_object_get(model, "vocab"), *list = get(t->json, "added_tokens");
    byte_alphabet(byte_of);
    PB_TRY(size_up(t, vocab, list, limit));
    json_object_foreach((json_t *)vocab, name, v)
    {
        PB_TRY(set_token(t, json_integer_value(v), name, strlen(name), true, byte_of));
    }
    PB_TRY(read_added(t, list, vocab, byte_of));
    memset(t->byte_id, -1, sizeof t->byte_id);
    for (size_t id = 0; id < t->base.tokens; id++) {
        const token *k = &t->tokens[id];
        size_t len;
        if (k->kind == PB_TOKEN_BYTE)
            t->byte_id[(uint8_t)t->strings.v[k->bytes]] = (int32_t)id;
        if (k->model) {
            const char *key = key_of(t, (int32_t)id, &len);
            t->table[slot_of(t, key, len)] = (int32_t)id;
        }
    }
    for (int b = 0; b < 256 && t->byte_fallback; b++)
        if (t->byte_id[b] < 0)
            return pb_fail(PB_UNSUPPORTED, NULL,
                           "\"byte_fallback\" is on, but there is no token <0x%02X>", (unsigned)b);
    return PB_OK;
}

// The token that a part of a merge names; -1 if there is none. `buffer` is for its bytes.
static int32_t part_of(const json_tokenizer *t, pb_text *buffer, const char *text, size_t len,
                       const int16_t byte_of[324])
{
    size_t first = buffer->n;
    if (t->byte_level ? !append_bytes(buffer, text, len, byte_of)
                      : pb_text_append(buffer, text, len))
        return -1;
    return t->table[slot_of(t, buffer->v + first, buffer->n - first)];
}

static pb_err read_merge(json_tokenizer *t, const json_t *j, uint32_t rank, pb_text *buffer,
                         const int16_t byte_of[324])
{
    const char *a = NULL, *b = NULL;
    size_t n_a = 0, n_b = 0;
    if (json_is_string(j)) {
        a = json_string_value(j);
        const char *space = strchr(a, ' ');
        if (space) {
            b = space + 1;
            n_a = (size_t)(space - a);
            n_b = strlen(b);
        }
    } else if (json_array_size(j) == 2 && json_is_string(json_array_get(j, 0)) &&
               json_is_string(json_array_get(j, 1))) {
        a = string_of(json_array_get(j, 0), &n_a);
        b = string_of(json_array_get(j, 1), &n_b);
    }
    if (n_a == 0 || n_b == 0 || n_a + n_b > LONGEST_TOKEN)
        return pb_fail(PB_INPUT, NULL, "merge %u is not a pair of tokens", rank);
    buffer->n = 0;
    PB_TRY(pb_text_reserve(buffer, n_a + n_b));
    int32_t left = part_of(t, buffer, a, n_a, byte_of);
    int32_t right = left < 0 ? -1 : part_of(t, buffer, b, n_b, byte_of);
    int32_t id = right < 0 ? -1 : t->table[slot_of(t, buffer->v, buffer->n)];
    if (id < 0)
        return pb_fail(PB_INPUT, NULL, "merge %u, \"%.*s\" and \"%.*s\", names an unknown token",
                       rank, (int)(n_a < 100 ? n_a : 100), a, (int)(n_b < 100 ? n_b : 100), b);
    if (t->tokens[left].kind == PB_TOKEN_CONTROL || t->tokens[right].kind == PB_TOKEN_CONTROL ||
        t->tokens[id].kind == PB_TOKEN_CONTROL)
        return PB_OK; // text does not become a control token
    // Of equal pairs the last one counts, as in the original.
    *(merge *)merge_of(t, left, right) = (merge){left, right, id, rank};
    return PB_OK;
}

static pb_err read_merges(json_tokenizer *t, const json_t *list)
{
    int16_t byte_of[324];
    pb_text buffer = {0};
    pb_err err = PB_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > (size_t)1 << 28)
        return pb_fail(PB_INPUT, NULL, "the model has no list \"merges\"");
    byte_alphabet(byte_of);
    t->merges_size = 2;
    while (t->merges_size < 2 * n + 2)
        t->merges_size *= 2;
    t->merges = malloc(t->merges_size * sizeof *t->merges);
    if (!t->merges)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu merges", n);
    memset(t->merges, -1, t->merges_size * sizeof *t->merges);
    for (size_t i = 0; i < n; i++)
        PB_GO(read_merge(t, json_array_get(list, i), (uint32_t)i, &buffer, byte_of));
    // May a text be cut before SentencePiece's space?
    t->cut = !t->byte_level && !t->ignore_merges && lookup(t, MARK, MARK_LEN) >= 0;
    for (size_t i = 0; i < t->merges_size && t->cut; i++) {
        size_t len, at = 0;
        if (t->merges[i].left < 0)
            continue;
        const char *key = key_of(t, t->merges[i].id, &len);
        while (at + MARK_LEN <= len && memcmp(key + at, MARK, MARK_LEN) == 0)
            at += MARK_LEN;
        t->cut = !memmem(key + at, len - at, MARK, MARK_LEN);
    }
done:
    free(buffer.v);
    return err;
}

static pb_err read_model(json_tokenizer *t, const json_t *model, size_t limit)
{
    const char *type = "BPE", *unknown = NULL;
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!json_is_object(model))
        return pb_fail(PB_INPUT, NULL, "there is no \"model\"");
    PB_TRY(pb_json_opt_str(model, "type", &type));
    if (strcmp(type, "BPE") != 0)
        return unsupported("model", type);
    for (size_t i = 0; i < 2; i++) {
        const char *affix = "";
        PB_TRY(pb_json_opt_str(model, affixes[i], &affix));
        if (*affix)
            return unsupported(affixes[i], affix);
    }
    double dropout = 0;
    PB_TRY(pb_json_opt_real(model, "dropout", &dropout, 0, 0));
    PB_TRY(pb_json_opt_bool(model, "byte_fallback", &t->byte_fallback));
    PB_TRY(pb_json_opt_bool(model, "fuse_unk", &t->fuse_unknown));
    PB_TRY(pb_json_opt_bool(model, "ignore_merges", &t->ignore_merges));
    PB_TRY(pb_json_opt_str(model, "unk_token", &unknown));
    if (t->byte_level && t->byte_fallback)
        return pb_fail(PB_UNSUPPORTED, NULL, "the tokenizer is byte-level and has byte_fallback");
    PB_TRY(read_tokens(t, model, limit));
    PB_TRY(read_merges(t, json_object_get(model, "merges")));
    t->unknown = -1;
    if (unknown) {
        const json_t *id = json_object_get(json_object_get(model, "vocab"), unknown);
        t->unknown = id ? (int32_t)json_integer_value(id) : -1;
        if (!id)
            return pb_fail(PB_INPUT, NULL, "the unk_token \"%.100s\" is no token", unknown);
    }
    return PB_OK;
}

static pb_err read_decoder(json_tokenizer *t, const json_t *j)
{
    const char *type, *content;
    int64_t start = 0, stop = 0;
    PB_TRY(type_of(j, "decoder", &type));
    if (strcmp(type, "ByteLevel") == 0)
        return t->byte_level ? PB_OK
                             : pb_fail(PB_UNSUPPORTED, NULL,
                                       "the decoder is ByteLevel, but no pre-tokenizer is");
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0)
        return PB_OK;
    if (t->byte_level)
        return pb_fail(PB_UNSUPPORTED, NULL, "the decoder %.100s of a byte-level tokenizer", type);
    if (strcmp(type, "Metaspace") == 0 || strcmp(type, "Replace") == 0) {
        bool meta = *type == 'M';
        if (t->n_replace == MAX_STEPS)
            return pb_fail(PB_UNSUPPORTED, NULL, "more than %d decoders", MAX_STEPS);
        const char **r = t->replace[t->n_replace++];
        r[0] = MARK;
        r[1] = " ";
        if (meta) {
            int scheme;
            PB_TRY(read_scheme(j, &scheme));
            PB_TRY(pb_json_opt_str(j, "replacement", &r[0]));
            t->strip = " ";
            t->strip_len = t->n_strip = scheme != PREPEND_NEVER;
        } else {
            const json_t *pattern = json_object_get(j, "pattern");
            PB_TRY(pb_json_str(j, "content", &r[1]));
            if (!json_is_string(get(pattern, "String")))
                return pb_fail(PB_UNSUPPORTED, NULL, "the decoder Replace without a String");
            r[0] = json_string_value(get(pattern, "String"));
        }
        return *r[0] ? PB_OK : pb_fail(PB_INPUT, NULL, "a decoder replaces the empty text");
    }
    if (strcmp(type, "Strip") != 0)
        return unsupported("decoder", type);
    PB_TRY(pb_json_str(j, "content", &content));
    PB_TRY(pb_json_opt_int(j, "start", &start, 0, 1000));
    PB_TRY(pb_json_opt_int(j, "stop", &stop, 0, 0));
    if (!*content || t->n_strip)
        return pb_fail(PB_UNSUPPORTED, NULL, "a second or empty decoder Strip");
    t->strip = content;
    t->strip_len = strlen(content);
    t->n_strip = (size_t)start;
    return PB_OK;
}

// The token with this text, added or not; -1 if there is none.
static int32_t id_of_text(const json_tokenizer *t, const char *text)
{
    size_t len = strlen(text);
    for (size_t id = 0; id < t->base.tokens; id++)
        if (t->tokens[id].kind != PB_TOKEN_NONE && t->tokens[id].text_len == len &&
            memcmp(t->strings.v + t->tokens[id].text, text, len) == 0)
            return (int32_t)id;
    return -1;
}

static pb_err name_end(json_tokenizer *t, int32_t *end, const char *what, const char *name)
{
    *end = id_of_text(t, name);
    if (*end < 0)
        return pb_fail(PB_INPUT, NULL, "the %s \"%.100s\" is no token", what, name);
    t->tokens[*end].kind = PB_TOKEN_CONTROL;
    return PB_OK;
}

// What a post-processor puts around a text, as far as that is one token before and one after.
static pb_err read_post_processor(json_tokenizer *t, const json_t *j)
{
    const char *type, *name;
    PB_TRY(type_of(j, "post-processor", &type));
    if (strcmp(type, "ByteLevel") == 0)
        return PB_OK;
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        const json_t *cls = json_array_get(json_object_get(j, "cls"), 0);
        const json_t *sep = json_array_get(json_object_get(j, "sep"), 0);
        if (!json_is_string(cls) || !json_is_string(sep))
            return pb_fail(PB_INPUT, NULL, "the post-processor %s has no cls or sep", type);
        PB_TRY(name_end(t, &t->base.bos, "cls token", json_string_value(cls)));
        return name_end(t, &t->base.eos, "sep token", json_string_value(sep));
    }
    if (strcmp(type, "TemplateProcessing") != 0)
        return unsupported("post-processor", type);
    const json_t *list = json_object_get(j, "single");
    bool text = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *special = get(json_array_get(list, i), "SpecialToken");
        if (!special) {
            if (!get(json_array_get(list, i), "Sequence") || text)
                return pb_fail(PB_INPUT, NULL,
                               "part %zu of a template is neither a token nor the "
                               "text",
                               i);
            text = true;
            continue;
        }
        int32_t *end = text ? &t->base.eos : &t->base.bos;
        PB_TRY(pb_json_str(special, "id", &name));
        if (*end >= 0)
            return pb_fail(PB_UNSUPPORTED, NULL,
                           "a template puts a second token, \"%.100s\", %s "
                           "the text",
                           name, text ? "after" : "before");
        PB_TRY(name_end(t, end, "template's token", name));
    }
    return PB_OK;
}

// A token in tokenizer_config.json: its text, or an object with the text.
static const char *configured(const json_t *config, const char *key)
{
    const json_t *v = get(config, key);
    return json_string_value(json_is_object(v) ? get(v, "content") : v);
}

// EOS, and BOS where the tokenizer's class puts it, are in tokenizer_config.json.
static pb_err read_config(json_tokenizer *t, const json_t *config)
{
    const char *eos = configured(config, "eos_token"), *bos = configured(config, "bos_token");
    bool add = false;
    if (t->base.eos < 0 && eos)
        PB_TRY(name_end(t, &t->base.eos, "eos_token", eos));
    PB_TRY(pb_json_opt_bool(config, "add_bos_token", &add));
    if (t->base.bos < 0 && bos && add)
        PB_TRY(name_end(t, &t->base.bos, "bos_token", bos));
    return PB_OK;
}

pb_err pb_json_tokenizer_parse(pb_tokenizer **out, const json_t *j, const json_t *config,
                               size_t vocab)
{
    json_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
    pb_err err = PB_OK;
    t->base = (pb_tokenizer){.ops = &json_ops, .bos = -1, .eos = -1};
    t->json = json_incref((json_t *)j);
    pthread_mutex_init(&t->lock, NULL);
    if (!json_is_object(j))
        PB_GO(pb_fail(PB_INPUT, NULL, "it is not a JSON object"));
    PB_GO(each_component(t, get(j, "normalizer"), "normalizer", "normalizers", 0, read_normalizer));
    PB_GO(each_component(t, get(j, "pre_tokenizer"), "pre-tokenizer", "pretokenizers", 0,
                         read_pre_tokenizer));
    PB_GO(each_component(t, get(j, "decoder"), "decoder", "decoders", 0, read_decoder));
    PB_GO(read_model(t, json_object_get(j, "model"), vocab));
    PB_GO(each_component(t, get(j, "post_processor"), "post-processor", "processors", 0,
                         read_post_processor));
    if (config)
        PB_GO(read_config(t, config));
done:
    if (err)
        json_free(&t->base);
    else
        *out = &t->base;
    return err;
}

pb_err pb_json_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab)
{
    char beside[4096];
    const char *slash = strrchr(path, '/');
    json_t *j = NULL, *config = NULL;
    pb_err err = PB_OK;
    PB_GO(pb_path(beside, sizeof beside, "%.*stokenizer_config.json",
                  slash ? (int)(slash - path + 1) : 0, path));
    PB_GO(pb_json_load(&j, path));
    if (pb_exists(beside))
        PB_GO(pb_json_load(&config, beside));
    PB_GO(pb_json_tokenizer_parse(out, j, config, vocab));
done:
    json_decref(j);
    json_decref(config);
    return err;
}
