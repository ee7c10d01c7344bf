// Encoding of examples, and the order in which training sees them.
#include "train/data.h"

#include <stdlib.h>
#include <string.h>

void pb_seqs_free(pb_seqs *s)
{
    free(s->tokens);
    free(s->seq);
    *s = (pb_seqs){0};
}

static pb_err push_token(pb_seqs *s, int32_t id)
{
    if (s->n_tokens == s->cap_tokens) {
        size_t cap = s->cap_tokens ? 2 * s->cap_tokens : 4096;
        int32_t *more = realloc(s->tokens, cap * sizeof *more);
        if (!more)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", cap);
        s->tokens = more;
        s->cap_tokens = cap;
    }
    s->tokens[s->n_tokens++] = id;
    return PB_OK;
}

static pb_err push_seq(pb_seqs *s, size_t first, size_t n_prompt)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        pb_seq *more = realloc(s->seq, cap * sizeof *more);
        if (!more)
            return pb_fail(PB_MEMORY, NULL, "no memory for %zu sequences", cap);
        s->seq = more;
        s->cap = cap;
    }
    size_t n = s->n_tokens - first;
    s->seq[s->n++] = (pb_seq){first, (uint32_t)n, (uint32_t)n_prompt};
    if (n > s->longest)
        s->longest = n;
    return PB_OK;
}

pb_err pb_seqs_add(pb_seqs *s, const pb_tokenizer *t, const char *prompt, const char *response,
                   size_t limit)
{
    size_t first = s->n_tokens, bytes = strlen(response);
    if (pb_tokenizer_bos(t) >= 0)
        PB_TRY(push_token(s, pb_tokenizer_bos(t)));
    PB_TRY(pb_tokenizer_encode(t, prompt, strlen(prompt), false, &s->tokens, &s->n_tokens,
                               &s->cap_tokens));
    size_t n_prompt = s->n_tokens - first;
    PB_TRY(pb_tokenizer_encode(t, response, bytes, true, &s->tokens, &s->n_tokens, &s->cap_tokens));
    if (pb_tokenizer_eos(t) >= 0)
        PB_TRY(push_token(s, pb_tokenizer_eos(t)));
    if (s->n_tokens - first > limit) {
        s->n_tokens = first;
        s->dropped++;
        return PB_OK;
    }
    if (bytes > s->longest_byte)
        s->longest_byte = bytes;
    return push_seq(s, first, n_prompt);
}

pb_err pb_seqs_from_split(pb_seqs *s, const pb_tokenizer *t, const pb_dataset *d, pb_split split,
                          size_t limit)
{
    for (size_t i = 0; i < pb_dataset_count(d, split); i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        PB_TRY(pb_seqs_add(s, t, e->prompt, e->response, limit));
    }
    if (!s->n)
        return pb_fail(PB_INPUT, "use a backbone with a longer context",
                       "none of %zu examples fits into %zu tokens", s->dropped, limit);
    return PB_OK;
}

pb_err pb_seqs_from_text(pb_seqs *s, const pb_tokenizer *t, const char *text, size_t size,
                         const char *mark, size_t limit)
{
    size_t gap = strlen(mark);
    for (size_t i = 0; i < size;) {
        const char *end = memmem(text + i, size - i, mark, gap);
        size_t len = end ? (size_t)(end - text) - i : size - i, first = s->n_tokens;
        if (len) {
            PB_TRY(push_token(s, pb_tokenizer_bos(t)));
            PB_TRY(pb_tokenizer_encode(t, text + i, len, false, &s->tokens, &s->n_tokens,
                                       &s->cap_tokens));
            PB_TRY(push_token(s, pb_tokenizer_eos(t)));
            size_t last = s->n_tokens;
            while (last - first > 1) {
                size_t n = last - first < limit ? last - first : limit;
                s->n_tokens = first + n;
                PB_TRY(push_seq(s, first, 1));
                first += n;
            }
            s->n_tokens = last;
        }
        i += len + gap;
    }
    return s->n ? PB_OK : pb_fail(PB_INPUT, NULL, "the text has no documents");
}

struct keyed {
    uint32_t len;
    uint32_t rank; // ties keep their shuffled order
    size_t index;
};

static int by_length(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

void pb_epoch_order(size_t *order, const pb_seqs *s, size_t batch, uint64_t seed, uint32_t epoch)
{
    enum { WINDOW = 16 }; // batches
    struct keyed key[WINDOW * 64];
    pb_rng r = pb_rng_make(seed, PB_STREAM_ORDER, epoch);
    for (size_t i = 0; i < s->n; i++)
        order[i] = i;
    pb_rng_shuffle(&r, order, s->n);
    // What the last batch has no room for is left out at random, before sorting: after it, the
    // longest sequences would never be seen.
    size_t window = batch * WINDOW, most = sizeof key / sizeof *key, used = s->n / batch * batch;
    window = window > most ? most / batch * batch : window;
    for (size_t w = 0; window && w < used; w += window) {
        size_t n = used - w < window ? used - w : window;
        for (size_t i = 0; i < n; i++)
            key[i] = (struct keyed){s->seq[order[w + i]].n, (uint32_t)i, order[w + i]};
        qsort(key, n, sizeof *key, by_length);
        size_t batches[WINDOW * 64], whole = n / batch;
        for (size_t i = 0; i < whole; i++)
            batches[i] = i;
        pb_rng_shuffle(&r, batches, whole);
        for (size_t i = 0; i < n; i++)
            order[w + i] = key[batches[i / batch] * batch + i % batch].index;
    }
}
