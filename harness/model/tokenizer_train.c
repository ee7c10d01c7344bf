// Byte-level BPE, trained by counting.
//
// Text is cut into words as GPT-2 does it (with every digit a word of its own, so that numbers are
// spelled), different words are counted, and each begins as its bytes. Then the most frequent pair
// of neighbours becomes a token, again and again. Counts of pairs are kept up to date: a merge
// touches only the words in which its pair stands. A heap holds pairs by the count they had when
// they were put there; counts only fall afterwards, so an entry that is out of date is put back
// with what it is now.
// Source: Sennrich et al., arXiv 1508.07909; byte level: Radford et al. 2019 (GPT-2).
#include "model/tokenizer_train.h"

#include "core/log.h"
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum { SPECIAL = 2, BYTES = 256 };
#define NONE UINT32_MAX

// ---------------------------------------------------------------- what is counted

typedef struct word {
    size_t text;      // where its bytes begin in `bytes`
    uint32_t size, n; // bytes, and symbols at present
    uint64_t count;
} word;

typedef struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t *in; // words in which it stands, or stood; some several times
    uint32_t n_in, cap_in;
} pair;

typedef struct entry { // of the heap
    int64_t count;
    uint32_t pair;
} entry;

// Open addressing from hashes to indices of an array.
typedef struct table {
    uint32_t *slot; // NONE: free
    size_t size, used;
} table;

struct pb_bpe_trainer {
    pb_tokenizer *cutter; // bytes alone, for its pre-tokenizer
    pb_text bytes;
    int32_t *symbols; // word w has n of them from w.text on
    word *words;
    size_t n_words, cap_words;
    table by_text, by_ids;
    pair *pairs;
    size_t n_pairs, cap_pairs;
    entry *heap;
    size_t n_heap, cap_heap;
    pb_text tokens;  // the bytes of every token, one after the other
    size_t *ends;    // (vocab)
    int32_t *merges; // (vocab, 2)
    size_t n_tokens;
};

static pb_err no_memory(void)
{
    return pb_fail(PB_MEMORY, "use less text", "no memory to train a tokenizer");
}

// Makes room for one more of `size` bytes.
static pb_err grow(void *array, size_t n, size_t *cap, size_t size)
{
    void **a = array;
    if (n < *cap)
        return PB_OK;
    size_t more = *cap ? 2 * *cap : 1024;
    void *p = more < NONE ? realloc(*a, more * size) : NULL;
    if (!p)
        return no_memory();
    *a = p;
    *cap = more;
    return PB_OK;
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return mix(h);
}

static uint64_t hash_ids(int32_t left, int32_t right)
{
    return mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

static uint64_t hash_word(const pb_bpe_trainer *t, uint32_t i)
{
    return hash_text(t->bytes.v + t->words[i].text, t->words[i].size);
}

static uint64_t hash_pair(const pb_bpe_trainer *t, uint32_t i)
{
    return hash_ids(t->pairs[i].left, t->pairs[i].right);
}

// Doubles a table that is half full.
static pb_err make_room(const pb_bpe_trainer *t, table *b,
                        uint64_t (*hash)(const pb_bpe_trainer *, uint32_t))
{
    if (2 * (b->used + 1) <= b->size)
        return PB_OK;
    size_t size = b->size ? 2 * b->size : 4096;
    uint32_t *slot = malloc(size * sizeof *slot);
    if (!slot)
        return no_memory();
    memset(slot, 0xff, size * sizeof *slot);
    for (size_t i = 0; i < b->size; i++)
        if (b->slot[i] != NONE) {
            size_t at = hash(t, b->slot[i]) & (size - 1);
            while (slot[at] != NONE)
                at = (at + 1) & (size - 1);
            slot[at] = b->slot[i];
        }
    free(b->slot);
    b->slot = slot;
    b->size = size;
    return PB_OK;
}

// ---------------------------------------------------------------- words

static pb_err count_word(void *self, const char *text, size_t len)
{
    pb_bpe_trainer *t = self;
    PB_TRY(make_room(t, &t->by_text, hash_word));
    size_t mask = t->by_text.size - 1, at = hash_text(text, len) & mask;
    for (; t->by_text.slot[at] != NONE; at = (at + 1) & mask) {
        word *w = &t->words[t->by_text.slot[at]];
        if (w->size == len && !memcmp(t->bytes.v + w->text, text, len)) {
            w->count++;
            return PB_OK;
        }
    }
    PB_TRY(grow(&t->words, t->n_words, &t->cap_words, sizeof *t->words));
    t->words[t->n_words] = (word){t->bytes.n, (uint32_t)len, (uint32_t)len, 1};
    PB_TRY(pb_text_append(&t->bytes, text, len));
    t->by_text.slot[at] = (uint32_t)t->n_words++;
    t->by_text.used++;
    return PB_OK;
}

// The spelling of a byte in tokenizer.json: itself if it prints, else U+0100 and on in their order.
static size_t spell(char out[2], uint8_t byte)
{
    int c = 256;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        if (b == byte && printable)
            c = b;
        else if (b < byte && !printable)
            c++;
    }
    if (c < 128) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static pb_err spelling(pb_text *out, const char *bytes, size_t len)
{
    char c[2];
    out->n = 0;
    for (size_t i = 0; i < len; i++)
        PB_TRY(pb_text_append(out, c, spell(c, (uint8_t)bytes[i])));
    return PB_OK;
}

static json_t *special(const char *name, int id)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", name,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

// Everything in tokenizer.json but the merges; the tokens are special ones and then t->tokens.
static pb_err to_json(const pb_bpe_trainer *t, json_t **out)
{
    pb_err err = PB_OK;
    pb_text s = {0};
    json_t *vocab = json_pack("{s:i, s:i}", PB_BPE_BEGIN, 0, PB_BPE_END, 1);
    json_t *merges = json_array(), *added = json_array();
    for (size_t i = 0; i < t->n_tokens; i++) {
        size_t from = i ? t->ends[i - 1] : 0;
        PB_GO(spelling(&s, t->tokens.v + from, t->ends[i] - from));
        PB_GO(pb_text_append(&s, "", 1));
        if (json_object_set_new(vocab, s.v, json_integer((json_int_t)(SPECIAL + i))))
            PB_GO(no_memory());
    }
    for (size_t i = BYTES; i < t->n_tokens; i++) {
        json_t *two = json_array();
        for (int k = 0; k < 2; k++) {
            size_t id = (size_t)t->merges[2 * i + (size_t)k], from = id ? t->ends[id - 1] : 0;
            PB_GO(spelling(&s, t->tokens.v + from, t->ends[id] - from));
            json_array_append_new(two, json_stringn(s.v, s.n));
        }
        if (json_array_append_new(merges, two))
            PB_GO(no_memory());
    }
    json_array_append_new(added, special(PB_BPE_BEGIN, 0));
    json_array_append_new(added, special(PB_BPE_END, 1));
    *out = json_pack(
        "{s:s, s:n, s:n, s:O, s:n, s:{s:s, s:[{s:s, s:b}, {s:s, s:b, s:b, s:b}]},"
        " s:{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}],"
        "    s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}],"
        "    s:{s:{s:s, s:[i], s:[s]}}},"
        " s:{s:s, s:b, s:b, s:b}, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:O, s:O}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
        "pre_tokenizer", "type", "Sequence", "pretokenizers", "type", "Digits", "individual_digits",
        1, "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1,
        "post_processor", "type", "TemplateProcessing", "single", "SpecialToken", "id",
        PB_BPE_BEGIN, "type_id", 0, "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken",
        "id", PB_BPE_BEGIN, "type_id", 0, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id",
        PB_BPE_BEGIN, "type_id", 1, "Sequence", "id", "B", "type_id", 1, "special_tokens",
        PB_BPE_BEGIN, "id", PB_BPE_BEGIN, "ids", 0, "tokens", PB_BPE_BEGIN, "decoder", "type",
        "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1, "model", "type",
        "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", 0, "byte_fallback", 0, "vocab", vocab, "merges", merges);
    if (!*out)
        err = no_memory();
done:
    free(s.v);
    json_decref(vocab);
    json_decref(merges);
    json_decref(added);
    return err;
}

static pb_err add_token(pb_bpe_trainer *t, const char *bytes, size_t len)
{
    PB_TRY(pb_text_append(&t->tokens, bytes, len));
    t->ends[t->n_tokens++] = t->tokens.n;
    return PB_OK;
}

static pb_err begin(pb_bpe_trainer *t, size_t vocab)
{
    free(t->ends);
    free(t->merges);
    t->ends = malloc(vocab * sizeof *t->ends);
    t->merges = malloc(2 * vocab * sizeof *t->merges);
    t->tokens.n = t->n_tokens = 0;
    if (!t->ends || !t->merges)
        return no_memory();
    for (int b = 0; b < BYTES; b++)
        PB_TRY(add_token(t, &(char){(char)b}, 1));
    return PB_OK;
}

pb_err pb_bpe_new(pb_bpe_trainer **out)
{
    pb_err err = PB_OK;
    json_t *j = NULL;
    pb_bpe_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory();
    PB_GO(begin(t, BYTES));
    PB_GO(to_json(t, &j));
    PB_GO(pb_json_tokenizer_parse(&t->cutter, j, NULL, 0));
done:
    json_decref(j);
    if (err)
        pb_bpe_free(t);
    else
        *out = t;
    return err;
}

void pb_bpe_free(pb_bpe_trainer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_pairs; i++)
        free(t->pairs[i].in);
    pb_tokenizer_close(t->cutter);
    free(t->bytes.v);
    free(t->symbols);
    free(t->words);
    free(t->by_text.slot);
    free(t->by_ids.slot);
    free(t->pairs);
    free(t->heap);
    free(t->tokens.v);
    free(t->ends);
    free(t->merges);
    free(t);
}

pb_err pb_bpe_add(pb_bpe_trainer *t, const char *text, size_t len)
{
    size_t valid = pb_utf8_prefix(text, len);
    if (valid < len)
        return pb_fail(PB_INPUT, "convert it, e.g. with iconv", "byte %zu of the text is not UTF-8",
                       valid);
    return pb_json_tokenizer_split(t->cutter, text, len, count_word, t);
}

size_t pb_bpe_words(const pb_bpe_trainer *t)
{
    return t->n_words;
}

// ---------------------------------------------------------------- pairs

// Whether `a` is merged before `b`.
static bool before(const pb_bpe_trainer *t, entry a, entry b)
{
    if (a.count != b.count)
        return a.count > b.count;
    const pair *x = &t->pairs[a.pair], *y = &t->pairs[b.pair];
    return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static pb_err push(pb_bpe_trainer *t, uint32_t p)
{
    PB_TRY(grow(&t->heap, t->n_heap, &t->cap_heap, sizeof *t->heap));
    entry e = {t->pairs[p].count, p};
    size_t i = t->n_heap++;
    for (; i && before(t, e, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = e;
    return PB_OK;
}

static entry pop(pb_bpe_trainer *t)
{
    entry top = t->heap[0], e = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < t->n_heap; i = k) {
        if (k + 1 < t->n_heap && before(t, t->heap[k + 1], t->heap[k]))
            k++;
        if (!before(t, t->heap[k], e))
            break;
        t->heap[i] = t->heap[k];
    }
    t->heap[i] = e;
    return top;
}

// Adds `count` to a pair, which is made if it is not there; a positive count puts the word on its
// list.
static pb_err change(pb_bpe_trainer *t, int32_t left, int32_t right, int64_t count, uint32_t w)
{
    PB_TRY(make_room(t, &t->by_ids, hash_pair));
    size_t mask = t->by_ids.size - 1, at = hash_ids(left, right) & mask;
    for (; t->by_ids.slot[at] != NONE; at = (at + 1) & mask) {
        const pair *p = &t->pairs[t->by_ids.slot[at]];
        if (p->left == left && p->right == right)
            break;
    }
    if (t->by_ids.slot[at] == NONE) {
        PB_TRY(grow(&t->pairs, t->n_pairs, &t->cap_pairs, sizeof *t->pairs));
        t->pairs[t->n_pairs] = (pair){.left = left, .right = right};
        t->by_ids.slot[at] = (uint32_t)t->n_pairs++;
        t->by_ids.used++;
    }
    pair *p = &t->pairs[t->by_ids.slot[at]];
    p->count += count;
    if (count < 0 || (p->n_in && p->in[p->n_in - 1] == w))
        return PB_OK;
    if (p->n_in == p->cap_in) {
        uint32_t cap = p->cap_in ? 2 * p->cap_in : 4;
        uint32_t *in = realloc(p->in, cap * sizeof *in);
        if (!in)
            return no_memory();
        p->in = in;
        p->cap_in = cap;
    }
    p->in[p->n_in++] = w;
    return PB_OK;
}

// Every (left, right) of a word becomes `id`.
static pb_err merge_in(pb_bpe_trainer *t, uint32_t i, int32_t left, int32_t right, int32_t id)
{
    word *w = &t->words[i];
    int32_t *s = t->symbols + w->text;
    int64_t count = (int64_t)w->count;
    size_t n = 0;
    for (size_t k = 0; k < w->n; k++, n++) {
        if (k + 1 == w->n || s[k] != left || s[k + 1] != right) {
            s[n] = s[k];
            continue;
        }
        // What stands before is merged already, what stands behind is not.
        if (n) {
            PB_TRY(change(t, s[n - 1], left, -count, i));
            PB_TRY(change(t, s[n - 1], id, count, i));
        }
        if (k + 2 < w->n) {
            PB_TRY(change(t, right, s[k + 2], -count, i));
            PB_TRY(change(t, id, s[k + 2], count, i));
        }
        s[n] = id;
        k++;
    }
    w->n = (uint32_t)n;
    return PB_OK;
}

static pb_err count_pairs(pb_bpe_trainer *t)
{
    free(t->symbols);
    t->symbols = malloc((t->bytes.n + 1) * sizeof *t->symbols);
    if (!t->symbols)
        return no_memory();
    for (size_t i = 0; i < t->bytes.n; i++)
        t->symbols[i] = (uint8_t)t->bytes.v[i];
    for (size_t i = 0; i < t->n_words; i++) {
        const word *w = &t->words[i];
        for (size_t k = 0; k + 1 < w->n; k++)
            PB_TRY(change(t, t->symbols[w->text + k], t->symbols[w->text + k + 1],
                          (int64_t)w->count, (uint32_t)i));
    }
    for (size_t p = 0; p < t->n_pairs; p++)
        PB_TRY(push(t, (uint32_t)p));
    return PB_OK;
}

static pb_err merge_best(pb_bpe_trainer *t, uint32_t p)
{
    int32_t id = (int32_t)t->n_tokens, ids[2] = {t->pairs[p].left, t->pairs[p].right};
    size_t first_new = t->n_pairs;
    for (size_t k = 0; k < 2; k++) {
        size_t from = ids[k] ? t->ends[ids[k] - 1] : 0;
        size_t len = t->ends[ids[k]] - from;
        PB_TRY(pb_text_reserve(&t->tokens, len)); // before the address is taken
        PB_TRY(pb_text_append(&t->tokens, t->tokens.v + from, len));
        t->merges[2 * (size_t)id + k] = ids[k];
    }
    t->ends[t->n_tokens++] = t->tokens.n;
    // The list is the pair's own; the array of pairs may move, but this pair gets no new words.
    for (uint32_t i = 0; i < t->pairs[p].n_in; i++)
        PB_TRY(merge_in(t, t->pairs[p].in[i], ids[0], ids[1], id));
    free(t->pairs[p].in);
    t->pairs[p].in = NULL;
    t->pairs[p].n_in = t->pairs[p].cap_in = 0;
    t->pairs[p].count = 0;
    // Pairs with the new token are new, every one.
    for (size_t i = first_new; i < t->n_pairs; i++)
        PB_TRY(push(t, (uint32_t)i));
    return PB_OK;
}

pb_err pb_bpe_train(pb_bpe_trainer *t, size_t vocab, json_t **out, size_t *tokens)
{
    if (vocab < SPECIAL + BYTES || vocab > PB_MAX_TOKENS)
        return pb_fail(PB_USAGE, "e.g. 4096", "a vocabulary of %zu (%d to %d are possible)", vocab,
                       SPECIAL + BYTES, PB_MAX_TOKENS);
    if (t->symbols)
        return pb_fail(PB_INTERNAL, NULL, "a tokenizer is trained once");
    PB_TRY(begin(t, vocab));
    PB_TRY(count_pairs(t));
    while (SPECIAL + t->n_tokens < vocab && t->n_heap) {
        if (pb_interrupted())
            return pb_fail(PB_INTERRUPTED, NULL, "interrupted while merging");
        entry e = pop(t);
        int64_t now = t->pairs[e.pair].count;
        if (now < 2)
            continue;
        if (now != e.count)
            PB_TRY(push(t, e.pair));
        else
            PB_TRY(merge_best(t, e.pair));
    }
    *tokens = SPECIAL + t->n_tokens;
    return to_json(t, out);
}
