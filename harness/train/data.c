// Encoding of examples, and the order in which training sees them.
#include "train/data.h"

#include <ctype.h>
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

// One encoded prompt and its responses: prompt tokens are [0, end[0]), those of response k
// [end[k], end[k + 1]).
static pb_err add_encoded(pb_seqs *s, const int32_t *ids, const size_t *end, size_t n, bool bos,
                          size_t limit)
{
    size_t longest = 0, keep = end[0];
    for (size_t k = 0; k < n; k++)
        longest = end[k + 1] - end[k] > longest ? end[k + 1] - end[k] : longest;
    if (keep + longest > limit) {
        if (n == 1 && longest + 1 + bos > limit)
            longest = limit - limit / 4;
        keep = longest < limit ? limit - longest : 0;
        if (keep < 1u + bos)
            return pb_fail(PB_INPUT, "use a backbone with a longer context",
                           "a response of %zu tokens does not fit into %zu", longest, limit);
        keep = keep < end[0] ? keep : end[0];
        s->cut++;
    }
    for (size_t k = 0; k < n; k++) {
        size_t first = s->n_tokens;
        for (size_t i = 0; i < keep; i++)
            PB_TRY(push_token(s, bos && !i ? ids[0] : ids[end[0] - keep + i]));
        for (size_t i = end[k]; i < end[k + 1] && i - end[k] < longest; i++)
            PB_TRY(push_token(s, ids[i]));
        PB_TRY(push_seq(s, first, keep));
    }
    return PB_OK;
}

pb_err pb_seqs_add_cut(pb_seqs *s, const pb_tokenizer *t, const char *prompt,
                       const char *const *responses, size_t n, size_t limit)
{
    pb_err err = PB_OK;
    pb_seqs whole = {0}; // as a block of tokens
    bool bos = pb_tokenizer_bos(t) >= 0;
    size_t *end = malloc((n + 1) * sizeof *end);
    if (!end)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu responses", n);
    if (bos)
        PB_GO(push_token(&whole, pb_tokenizer_bos(t)));
    PB_GO(pb_tokenizer_encode(t, prompt, strlen(prompt), false, &whole.tokens, &whole.n_tokens,
                              &whole.cap_tokens));
    end[0] = whole.n_tokens;
    for (size_t k = 0; k < n; k++) {
        size_t bytes = strlen(responses[k]);
        PB_GO(pb_tokenizer_encode(t, responses[k], bytes, true, &whole.tokens, &whole.n_tokens,
                                  &whole.cap_tokens));
        if (pb_tokenizer_eos(t) >= 0)
            PB_GO(push_token(&whole, pb_tokenizer_eos(t)));
        end[k + 1] = whole.n_tokens;
        s->longest_byte = bytes > s->longest_byte ? bytes : s->longest_byte;
    }
    err = add_encoded(s, whole.tokens, end, n, bos, limit);
done:
    pb_seqs_free(&whole);
    free(end);
    return err;
}

pb_err pb_seqs_from_split(pb_seqs *s, const pb_tokenizer *t, const pb_dataset *d, pb_split split,
                          size_t limit)
{
    for (size_t i = 0; i < pb_dataset_count(d, split); i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        PB_TRY(pb_seqs_add(s, t, e->prompt, e->response, limit));
    }
    if (!pb_dataset_count(d, split))
        return pb_fail(PB_INPUT, "train on another task, or evaluate with --steps 0",
                       "the task has no examples to %s",
                       split == PB_TRAIN ? "train on" : "validate on");
    if (!s->n)
        return pb_fail(PB_INPUT, "use a backbone with a longer context",
                       "none of %zu examples fits into %zu tokens", s->dropped, limit);
    return PB_OK;
}

bool pb_next_document(const char *text, size_t size, const char *mark, size_t *at,
                      const char **document, size_t *len)
{
    while (*at < size) {
        const char *from = text + *at, *end = memmem(from, size - *at, mark, strlen(mark));
        size_t n = end ? (size_t)(end - from) : size - *at;
        *at += n + (end ? strlen(mark) : 0);
        while (n && isspace((unsigned char)from[n - 1]))
            n--;
        while (n && isspace((unsigned char)*from)) {
            from++;
            n--;
        }
        *document = from;
        *len = n;
        if (n)
            return true;
    }
    return false;
}

pb_err pb_seqs_from_text(pb_seqs *s, const pb_tokenizer *t, const char *text, size_t size,
                         const char *mark, size_t limit, size_t *bytes)
{
    const char *from;
    for (size_t i = 0, len; pb_next_document(text, size, mark, &i, &from, &len);) {
        size_t first = s->n_tokens;
        if (pb_tokenizer_bos(t) >= 0)
            PB_TRY(push_token(s, pb_tokenizer_bos(t)));
        PB_TRY(pb_tokenizer_encode(t, from, len, false, &s->tokens, &s->n_tokens, &s->cap_tokens));
        if (pb_tokenizer_eos(t) >= 0)
            PB_TRY(push_token(s, pb_tokenizer_eos(t)));
        size_t last = s->n_tokens;
        while (last - first > 1) {
            size_t n = last - first < limit ? last - first : limit;
            s->n_tokens = first + n;
            PB_TRY(push_seq(s, first, 1));
            first += n;
        }
        s->n_tokens = last;
        if (bytes)
            *bytes += len;
    }
    return s->n ? PB_OK : pb_fail(PB_INPUT, NULL, "the text has no documents");
}

// ---------------------------------------------------------------- batches

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

// Batches of equally many sequences of like length.
static void by_sequences(pb_batches *b, pb_rng *r)
{
    enum { WINDOW = 16 }; // batches
    struct keyed key[WINDOW * 64];
    const pb_seqs *s = b->s;
    size_t batch = b->sequences;
    // What the last batch has no room for is left out at random, before sorting: after it, the
    // longest sequences would never be seen.
    size_t window = batch * WINDOW, most = sizeof key / sizeof *key, used = s->n / batch * batch;
    window = window > most ? most / batch * batch : window;
    for (size_t w = 0; window && w < used; w += window) {
        size_t n = used - w < window ? used - w : window;
        for (size_t i = 0; i < n; i++)
            key[i] = (struct keyed){s->seq[b->order[w + i]].n, (uint32_t)i, b->order[w + i]};
        qsort(key, n, sizeof *key, by_length);
        size_t batches[WINDOW * 64], whole = n / batch;
        for (size_t i = 0; i < whole; i++)
            batches[i] = i;
        pb_rng_shuffle(r, batches, whole);
        for (size_t i = 0; i < n; i++)
            b->order[w + i] = key[batches[i / batch] * batch + i % batch].index;
    }
    b->n = s->n / batch;
    for (size_t i = 0; i <= b->n; i++)
        b->start[i] = i * batch;
}

// Batches of about equally many rows.
static void by_tokens(pb_batches *b)
{
    size_t rows = 0, n = 0;
    b->start[0] = 0;
    for (size_t i = 0; i < b->s->n; i++) {
        size_t more = b->s->seq[b->order[i]].n - 1u;
        if (rows + more > b->tokens || i - b->start[n] == b->most) {
            b->start[++n] = i;
            rows = 0;
        }
        rows += more;
    }
    b->n = n;
}

static void make_epoch(pb_batches *b, uint32_t epoch)
{
    pb_rng r = pb_rng_make(b->seed, PB_STREAM_ORDER, epoch);
    for (size_t i = 0; i < b->s->n; i++)
        b->order[i] = i;
    pb_rng_shuffle(&r, b->order, b->s->n);
    if (b->tokens)
        by_tokens(b);
    else
        by_sequences(b, &r);
    b->epoch = epoch;
}

pb_err pb_batches_new(pb_batches *b, const pb_seqs *s, size_t sequences, size_t tokens,
                      uint64_t seed)
{
    enum { SHORT = 16 }; // rows that a sequence has on average, at the least
    *b = (pb_batches){.s = s, .sequences = sequences, .tokens = tokens, .seed = seed};
    if (tokens && s->longest > tokens + 1)
        return pb_fail(PB_USAGE, "use larger batches", "a batch of %zu tokens, a sequence of %zu",
                       tokens, s->longest);
    b->rows = tokens ? tokens : sequences * s->longest;
    b->most = tokens ? tokens / SHORT + 1 : sequences;
    b->order = malloc((s->n + 1) * sizeof *b->order);
    b->start = malloc((s->n + 2) * sizeof *b->start);
    if (!b->order || !b->start) {
        pb_batches_free(b);
        return pb_fail(PB_MEMORY, NULL, "no memory for the order of %zu sequences", s->n);
    }
    make_epoch(b, 1);
    if (b->n)
        return PB_OK;
    pb_batches_free(b);
    return tokens ? pb_fail(PB_USAGE, "use smaller batches or more text",
                            "a batch of %zu tokens from %zu sequences", tokens, s->n)
                  : pb_fail(PB_USAGE, "use smaller batches or more examples",
                            "a batch of %zu from %zu sequences", sequences, s->n);
}

void pb_batches_free(pb_batches *b)
{
    free(b->order);
    free(b->start);
    *b = (pb_batches){0};
}

const size_t *pb_batches_at(pb_batches *b, size_t k, size_t *n)
{
    if (k < b->first) {
        b->first = 0;
        make_epoch(b, 1);
    }
    while (k >= b->first + b->n) {
        b->first += b->n;
        make_epoch(b, b->epoch + 1);
    }
    size_t i = k - b->first;
    *n = b->start[i + 1] - b->start[i];
    return b->order + b->start[i];
}
