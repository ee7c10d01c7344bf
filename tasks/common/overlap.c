// Words are hashed one by one; h(w_1..w_m) = sum of w_i P^(m-i) modulo 2^64 with an odd P. With the
// running hash H_i = H_i-1 P + w_i of a document, h of the m words that end at i is H_i - H_i-m
// P^m, for every length m at once, so a document is passed through once.
#include "tasks/common/overlap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const uint64_t P = 0x9e3779b97f4a7c15u;

// Consecutive entries of a text are its n-grams in order; a text that is compared whole has one.
typedef struct entry {
    uint64_t hash;
    uint32_t from, to; // bytes of the text, from its first word to the end of its last
    uint32_t text;
    uint32_t n_words; // n, or those of a whole text
} entry;

typedef struct text {
    size_t at; // in chars
    size_t item;
} text;

typedef struct set {
    char *name;
    size_t first_item, first_entry, too_short;
} set;

// Hashes and how often each was seen; sums of mixed words are random enough to be places.
typedef struct table {
    uint64_t *hash;
    uint32_t *times;
    size_t cap; // a power of two, at least twice the number of entries
} table;

struct pb_overlap {
    size_t n, least;
    char *chars;
    size_t n_chars, cap_chars;
    entry *entries;
    size_t n_entries, cap_entries;
    text *texts;
    size_t n_texts, cap_texts;
    set *sets;
    size_t n_sets, cap_sets;
    bool *is_short; // (items): no text of n words or more
    size_t n_items, cap_items;
    table grams, wholes;
    uint64_t power[PB_OVERLAP_MAX_N + 1]; // P^m
    uint8_t lengths[PB_OVERLAP_MAX_N];    // lengths of whole texts, ascending
    size_t n_lengths, words;
};

// ---------------------------------------------------------------- words

// The finishing steps of MurmurHash3: all bits of a word's hash are to be random.
static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

static uint64_t absorb(uint64_t h, int32_t code)
{
    return (h ^ (uint64_t)code) * 1099511628211u;
}

enum { BREAK = 0, BEYOND = 1 }; // anything else: the letter in lower case, or the digit
static unsigned ascii(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
        return c;
    if (c >= 'A' && c <= 'Z')
        return c | 32u;
    return c < 0x80 ? BREAK : BEYOND;
}

// 0 marks free places of a table.
static uint64_t hash_of(uint64_t sum)
{
    return sum ? sum : 1;
}

typedef struct word {
    const char *from, *to;
    uint64_t hash;
} word;

// Continues the hash with a character outside ASCII; false when it separates words.
static bool absorb_other(uint64_t *h, int32_t code)
{
    enum { ROOM = 32 }; // the longest decomposition has 18
    int32_t folded[ROOM];
    utf8proc_category_t c = utf8proc_category(code);
    if (c == UTF8PROC_CATEGORY_CF)
        return true;
    if (c < UTF8PROC_CATEGORY_LU || c > UTF8PROC_CATEGORY_NO)
        return false;
    int boundary = 0;
    ssize_t n = utf8proc_decompose_char(
        code, folded, ROOM, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD, &boundary);
    for (ssize_t i = 0; i < n && i < ROOM; i++)
        *h = absorb(*h, folded[i]);
    return true;
}

static bool next_word(const char **at, const char *end, word *w)
{
    static const uint64_t seed = 14695981039346656037u;
    const char *p = *at;
    uint64_t h = seed;
    bool inside = false, found = false;
    while (p < end && !found) {
        unsigned k = ascii((unsigned char)*p);
        const char *next = p + 1;
        bool part = k > BEYOND;
        uint64_t before = h;
        if (part) {
            h = absorb(h, (int32_t)k);
        } else if (k == BEYOND) {
            int32_t code;
            ssize_t n = utf8proc_iterate((const uint8_t *)p, end - p, &code);
            part = n > 0 && absorb_other(&h, code);
            next = n > 0 ? p + n : next; // a byte that is no UTF-8 separates
        }
        // A word of format characters alone is none: it begins with what it has to say.
        if (!inside && h != before) {
            w->from = p;
            inside = true;
        }
        found = inside && !part;
        if (!found) {
            p = next;
            if (inside && h != before)
                w->to = p;
        }
    }
    *at = p;
    w->hash = mix(h);
    return inside;
}

// ---------------------------------------------------------------- evaluation data

static void *grown(void *array, size_t n, size_t *cap, size_t size)
{
    if (array && n <= *cap)
        return array;
    size_t more = *cap ? *cap : 256;
    while (more < n)
        more *= 2;
    void *bigger = realloc(array, more * size);
    *cap = bigger ? more : *cap;
    return bigger;
}

static pb_err no_memory(const char *what)
{
    return pb_fail(PB_MEMORY, "give less evaluation data at a time", "no memory for %s", what);
}

// Makes room for n elements, or returns from the calling function.
#define ROOM(array, n, cap)                                                                        \
    do {                                                                                           \
        void *grown_ = grown(array, n, &(cap), sizeof *(array));                                   \
        if (!grown_)                                                                               \
            return no_memory("evaluation data");                                                   \
        (array) = grown_;                                                                          \
    } while (0)

pb_err pb_overlap_new(pb_overlap **out, size_t n, size_t least)
{
    *out = NULL;
    if (!n || n > PB_OVERLAP_MAX_N)
        return pb_fail(PB_USAGE, "13 and 8 are usual", "n-grams of %zu words, not 1 to %d", n,
                       PB_OVERLAP_MAX_N);
    if (!least || least > n)
        return pb_fail(PB_USAGE, NULL, "whole texts of at least %zu words, not 1 to %zu", least, n);
    pb_overlap *o = calloc(1, sizeof *o);
    if (!o)
        return no_memory("comparing texts");
    o->n = n;
    o->least = least;
    o->power[0] = 1;
    for (size_t m = 1; m <= n; m++)
        o->power[m] = o->power[m - 1] * P;
    *out = o;
    return PB_OK;
}

void pb_overlap_free(pb_overlap *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->n_sets; i++)
        free(o->sets[i].name);
    free(o->chars);
    free(o->entries);
    free(o->texts);
    free(o->sets);
    free(o->is_short);
    free(o->grams.hash);
    free(o->grams.times);
    free(o->wholes.hash);
    free(o->wholes.times);
    free(o);
}

pb_err pb_overlap_set(pb_overlap *o, const char *name)
{
    ROOM(o->sets, o->n_sets + 1, o->cap_sets);
    set s = {strdup(name), o->n_items, o->n_entries, 0};
    if (!s.name)
        return no_memory("the name of a set");
    o->sets[o->n_sets++] = s;
    return PB_OK;
}

pb_err pb_overlap_item(pb_overlap *o)
{
    ROOM(o->is_short, o->n_items + 1, o->cap_items);
    o->is_short[o->n_items++] = true;
    return PB_OK;
}

static pb_err add_entry(pb_overlap *o, entry e)
{
    ROOM(o->entries, o->n_entries + 1, o->cap_entries);
    e.text = (uint32_t)o->n_texts;
    o->entries[o->n_entries++] = e;
    return PB_OK;
}

pb_err pb_overlap_text(pb_overlap *o, const char *chars, size_t len)
{
    if (!o->n_sets || o->sets[o->n_sets - 1].first_item == o->n_items)
        return pb_fail(PB_INTERNAL, NULL, "a text of evaluation data belongs to no item");
    if (len > UINT32_MAX / 2 || o->n_texts >= UINT32_MAX)
        return pb_fail(PB_UNSUPPORTED, "cut it in items",
                       "%zu bytes of evaluation data in one text", len);
    ROOM(o->chars, o->n_chars + len, o->cap_chars);
    ROOM(o->texts, o->n_texts + 1, o->cap_texts);
    uint64_t hash[PB_OVERLAP_MAX_N + 1] = {0}, h = 0; // running hashes, a ring
    uint32_t from[PB_OVERLAP_MAX_N + 1] = {0}, last = 0;
    size_t n = o->n, ring = n + 1, count = 0;
    word w;
    for (const char *p = chars; next_word(&p, chars + len, &w);) {
        from[count % ring] = (uint32_t)(w.from - chars);
        last = (uint32_t)(w.to - chars);
        h = h * P + w.hash;
        count++;
        hash[count % ring] = h;
        if (count >= n)
            PB_TRY(add_entry(o, (entry){.hash = hash_of(h - hash[(count - n) % ring] * o->power[n]),
                                        .from = from[(count - n) % ring],
                                        .to = last,
                                        .n_words = (uint32_t)n}));
    }
    if (count >= n)
        o->is_short[o->n_items - 1] = false;
    else if (count >= o->least)
        PB_TRY(add_entry(
            o,
            (entry){.hash = hash_of(h), .from = from[0], .to = last, .n_words = (uint32_t)count}));
    else
        o->sets[o->n_sets - 1].too_short++;
    if (len)
        memcpy(o->chars + o->n_chars, chars, len);
    o->texts[o->n_texts++] = (text){o->n_chars, o->n_items - 1};
    o->n_chars += len;
    return PB_OK;
}

// ---------------------------------------------------------------- the tables

static bool is_whole(const pb_overlap *o, const entry *e)
{
    return e->n_words < o->n;
}

static size_t place(const table *t, uint64_t key)
{
    size_t i = (size_t)key & (t->cap - 1);
    while (t->hash[i] && t->hash[i] != key)
        i = (i + 1) & (t->cap - 1);
    return i;
}

static pb_err table_new(table *t, size_t n)
{
    t->cap = 64;
    while (t->cap < 2 * n)
        t->cap *= 2;
    t->hash = calloc(t->cap, sizeof *t->hash);
    t->times = calloc(t->cap, sizeof *t->times);
    return t->hash && t->times ? PB_OK : no_memory("a table of n-grams");
}

static void see(table *t, uint64_t key)
{
    size_t i = place(t, key);
    if (t->hash[i] && t->times[i] < UINT32_MAX)
        t->times[i]++;
}

static size_t times_of(const pb_overlap *o, const entry *e)
{
    const table *t = is_whole(o, e) ? &o->wholes : &o->grams;
    return t->times[place(t, e->hash)];
}

pb_err pb_overlap_ready(pb_overlap *o)
{
    size_t wholes = 0;
    bool used[PB_OVERLAP_MAX_N] = {false};
    for (size_t i = 0; i < o->n_entries; i++)
        if (is_whole(o, &o->entries[i])) {
            wholes++;
            used[o->entries[i].n_words] = true;
        }
    for (size_t m = 1; m < o->n; m++)
        if (used[m])
            o->lengths[o->n_lengths++] = (uint8_t)m;
    PB_TRY(table_new(&o->wholes, wholes));
    PB_TRY(table_new(&o->grams, o->n_entries - wholes));
    for (size_t i = 0; i < o->n_entries; i++) {
        const entry *e = &o->entries[i];
        table *t = is_whole(o, e) ? &o->wholes : &o->grams;
        t->hash[place(t, e->hash)] = e->hash;
    }
    return PB_OK;
}

void pb_overlap_scan(pb_overlap *o, const char *chars, size_t len)
{
    uint64_t hash[PB_OVERLAP_MAX_N + 1] = {0}, h = 0;
    size_t n = o->n, ring = n + 1, at = 0, count = 0;
    word w;
    for (const char *p = chars; next_word(&p, chars + len, &w);) {
        h = h * P + w.hash;
        count++;
        at = at + 1 == ring ? 0 : at + 1;
        hash[at] = h;
        if (count >= n) {
            size_t before = at + 1 == ring ? 0 : at + 1; // n words ago
            see(&o->grams, hash_of(h - hash[before] * o->power[n]));
        }
        for (size_t k = 0; k < o->n_lengths && o->lengths[k] <= count; k++) {
            size_t m = o->lengths[k], before = at >= m ? at - m : at + ring - m;
            see(&o->wholes, hash_of(h - hash[before] * o->power[m]));
        }
    }
    o->words += count;
}

size_t pb_overlap_scanned(const pb_overlap *o)
{
    return o->words;
}

size_t pb_overlap_sets(const pb_overlap *o)
{
    return o->n_sets;
}

// ---------------------------------------------------------------- results

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// Counts one kind of entries of a set.
static void count_kind(const pb_overlap *o, size_t first, size_t end, bool whole,
                       pb_overlap_count *c, uint64_t *keys)
{
    const table *t = whole ? &o->wholes : &o->grams;
    size_t n = 0, last_text = SIZE_MAX, last_hit = SIZE_MAX;
    for (size_t i = first; i < end; i++) {
        const entry *e = &o->entries[i];
        if (is_whole(o, e) != whole)
            continue;
        keys[n++] = e->hash;
        c->texts += e->text != last_text;
        last_text = e->text;
        size_t item = o->texts[e->text].item;
        if (item != last_hit && times_of(o, e)) {
            c->items_with++;
            last_hit = item;
        }
    }
    qsort(keys, n, sizeof *keys, by_value);
    for (size_t i = 0; i < n; i++) {
        if (i && keys[i] == keys[i - 1])
            continue;
        c->distinct++;
        c->found += t->times[place(t, keys[i])] > 0;
    }
}

// A stretch of consecutive n-grams that were found, or a whole text.
typedef struct stretch {
    size_t first, n, words;
} stretch;

static size_t item_of(const pb_overlap *o, const stretch *s)
{
    return o->texts[o->entries[s->first].text].item;
}

// Puts s among the n longest so far, unless its item or its beginning is there already.
static size_t keep(const pb_overlap *o, stretch *best, size_t n, size_t most, stretch s)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        bool same = item_of(o, &best[i]) == item_of(o, &s) ||
                    o->entries[best[i].first].hash == o->entries[s.first].hash;
        if (same && best[i].words >= s.words)
            return n;
        if (same) {
            memmove(best + i, best + i + 1, (n - i - 1) * sizeof *best);
            n--;
            i--;
        }
    }
    while (at < n && best[at].words >= s.words)
        at++;
    if (at == most)
        return n;
    n = n < most ? n + 1 : n;
    memmove(best + at + 1, best + at, (n - at - 1) * sizeof *best);
    best[at] = s;
    return n;
}

static size_t longest(const pb_overlap *o, size_t first, size_t end, size_t most, stretch *best)
{
    size_t n = 0;
    for (size_t i = first; most && i < end;) {
        const entry *e = &o->entries[i];
        size_t k = i;
        while (k < end && o->entries[k].text == e->text && times_of(o, &o->entries[k]))
            k++;
        if (k > i)
            n = keep(o, best, n, most, (stretch){i, k - i, e->n_words + (k - i - 1)});
        i = k > i ? k : i + 1;
    }
    return n;
}

static pb_err describe(const pb_overlap *o, size_t first_item, const stretch *s,
                       pb_overlap_example *x)
{
    const entry *from = &o->entries[s->first], *to = from + s->n - 1;
    const char *p = o->chars + o->texts[from->text].at + from->from;
    size_t len = to->to - from->from, n = 0;
    *x = (pb_overlap_example){.item = item_of(o, s) - first_item,
                              .words = malloc(len + 1),
                              .n_words = s->words,
                              .times = SIZE_MAX};
    if (!x->words)
        return no_memory("an example");
    for (size_t i = 0; i < len; i++) {
        bool space = (unsigned char)p[i] <= ' ' || p[i] == 0x7f;
        if (!space || x->words[n - 1] != ' ') // a stretch begins with a word
            x->words[n++] = space ? ' ' : p[i];
    }
    x->words[n] = 0;
    for (size_t i = 0; i < s->n; i++) {
        size_t times = times_of(o, from + i);
        x->times = times < x->times ? times : x->times;
    }
    return PB_OK;
}

pb_err pb_overlap_result_of(const pb_overlap *o, size_t i, size_t show, pb_overlap_result *out)
{
    pb_err err = PB_OK;
    const set *s = &o->sets[i], *next = i + 1 < o->n_sets ? s + 1 : NULL;
    size_t first = s->first_entry, end = next ? next->first_entry : o->n_entries;
    size_t last_item = next ? next->first_item : o->n_items;
    *out = (pb_overlap_result){
        .name = s->name, .items = last_item - s->first_item, .too_short = s->too_short};
    for (size_t k = s->first_item; k < last_item; k++)
        out->short_items += o->is_short[k];
    show = show < out->items ? show : out->items;
    uint64_t *keys = malloc((end - first + 1) * sizeof *keys);
    stretch *best = malloc((show + 1) * sizeof *best);
    out->example = calloc(show + 1, sizeof *out->example);
    if (!keys || !best || !out->example)
        PB_GO(no_memory("results"));
    count_kind(o, first, end, false, &out->grams, keys);
    count_kind(o, first, end, true, &out->wholes, keys);
    size_t n = longest(o, first, end, show, best);
    for (size_t k = 0; k < n; k++) {
        out->n_examples = k + 1;
        PB_GO(describe(o, s->first_item, &best[k], &out->example[k]));
    }
done:
    free(keys);
    free(best);
    if (err)
        pb_overlap_result_free(out);
    return err;
}

void pb_overlap_result_free(pb_overlap_result *r)
{
    for (size_t i = 0; i < r->n_examples; i++)
        free(r->example[i].words);
    free(r->example);
    *r = (pb_overlap_result){0};
}
