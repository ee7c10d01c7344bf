// Training data: what a sequence is made of, how text is cut, and the order of an epoch.
#include "train/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pb_seqs lengths(size_t n)
{
    pb_seqs s = {.n = n, .seq = calloc(n + 1, sizeof *s.seq)};
    pb_rng r = pb_rng_make(1, PB_STREAM_TEST, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        s.seq[i].n = (uint32_t)(5 + pb_rng_below(&r, 200));
    return s;
}

// Sum over whole batches of the longest minus the shortest: what padding would cost.
static size_t spread(const pb_seqs *s, const size_t *order, size_t n, size_t batch)
{
    size_t sum = 0;
    for (size_t b = 0; b + batch <= n; b += batch) {
        uint32_t low = UINT32_MAX, high = 0;
        for (size_t i = b; i < b + batch; i++) {
            uint32_t len = s->seq[order[i]].n;
            low = len < low ? len : low;
            high = len > high ? len : high;
        }
        sum += high - low;
    }
    return sum;
}

// The sequences of epoch 1 or 2 in order, and how many they are.
static size_t epoch(pb_batches *b, size_t e, size_t *order)
{
    size_t n, used = b->n * b->sequences;
    for (size_t k = (e - 1) * b->n, i = 0; i < used; i += n, k++)
        memcpy(order + i, pb_batches_at(b, k, &n), b->sequences * sizeof *order);
    return used;
}

static pb_batches batches_of(const pb_seqs *s, size_t batch, uint64_t seed)
{
    pb_batches b;
    assert_int_equal(pb_batches_new(&b, s, batch, 0, seed), PB_OK);
    return b;
}

static void epoch_order(void **state)
{
    static const size_t counts[] = {1, 2, 3, 5, 16, 17, 100, 1000, 3001};
    static const size_t batches[] = {1, 2, 4, 7, 16, 64, 65, 100, 1000, 1024, 2000};
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t j = 0; j < sizeof batches / sizeof *batches; j++) {
            size_t n = counts[i], batch = batches[j], used = n / batch * batch;
            pb_seqs s = lengths(n);
            if (!used) {
                pb_batches none;
                assert_int_equal(pb_batches_new(&none, &s, batch, 0, 9), PB_USAGE);
                free(s.seq);
                continue;
            }
            pb_batches nine = batches_of(&s, batch, 9), ten = batches_of(&s, batch, 10);
            size_t *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
            size_t *c = malloc(n * sizeof *c), *d = malloc(n * sizeof *d);
            unsigned char *seen = calloc(n, 1);
            assert_int_equal(epoch(&nine, 1, a), used);
            assert_int_equal(epoch(&nine, 2, c), used);
            assert_int_equal(epoch(&nine, 1, b), used);
            assert_int_equal(epoch(&ten, 1, d), used);
            assert_memory_equal(a, b, used * sizeof *a);
            for (size_t k = 0; k < used; k++) {
                assert_true(a[k] < n && !seen[a[k]]);
                seen[a[k]] = 1;
            }
            if (n / batch >= 16) { // equal by chance with probability 1/16!
                assert_memory_not_equal(a, c, used * sizeof *a);
                assert_memory_not_equal(a, d, used * sizeof *a);
            }
            if (n >= 1000 && batch > 1 && batch <= 65) {
                pb_rng r = pb_rng_make(2, PB_STREAM_TEST, 0);
                size_t bucketed = spread(&s, a, used, batch);
                for (size_t k = 0; k < n; k++)
                    b[k] = k;
                pb_rng_shuffle(&r, b, n);
                if (!(3 * bucketed < spread(&s, b, used, batch)))
                    fail_msg("n %zu batch %zu: lengths spread by %zu, unsorted by %zu", n, batch,
                             bucketed, spread(&s, b, used, batch));
                // Batches do not come in order of length: training would see short ones first.
                size_t falls = 0;
                for (size_t k = batch; k + batch <= n; k += batch)
                    falls += s.seq[a[k]].n < s.seq[a[k - batch]].n;
                assert_true(falls > n / batch / 4);
            }
            free(a), free(b), free(c), free(d), free(seen);
            pb_batches_free(&nine), pb_batches_free(&ten);
            free(s.seq);
        }
}

// Whoever does not fit into the last batch is another one in every epoch, whatever its length.
static void everybody(void **state)
{
    enum { EPOCHS = 400 };
    (void)state;
    for (size_t n = 17; n <= 23; n += 3) {
        pb_seqs s = lengths(n);
        size_t used[23] = {0}, m;
        pb_batches b = batches_of(&s, 8, 1);
        for (size_t k = 0; k < 2 * EPOCHS; k++) {
            const size_t *order = pb_batches_at(&b, k, &m);
            for (size_t i = 0; i < m; i++)
                used[order[i]]++;
        }
        for (size_t i = 0; i < n; i++)
            assert_true(used[i] > EPOCHS / 2 && used[i] < EPOCHS);
        pb_batches_free(&b);
        free(s.seq);
    }
}

// Batches filled up to a number of rows: none has more, none could have taken the next sequence,
// every sequence comes at most once an epoch, and any batch can be had again.
static void packed(void **state)
{
    (void)state;
    pb_seqs s = lengths(500);
    s.longest = 204;
    for (size_t tokens = 203; tokens < 4000; tokens = tokens * 2 + 1) {
        pb_batches b, again;
        size_t n, first[64], n_first;
        unsigned char seen[500] = {0};
        assert_int_equal(pb_batches_new(&b, &s, 0, tokens, 7), PB_OK);
        size_t per_epoch = b.n, left = 500;
        assert_true(per_epoch > 1);
        const size_t *start = pb_batches_at(&b, 1, &n_first);
        assert_true(n_first <= 64 && n_first <= b.most);
        memcpy(first, start, n_first * sizeof *first);
        for (size_t k = 0; k < per_epoch; k++) {
            const size_t *at = pb_batches_at(&b, k, &n);
            size_t rows = 0;
            for (size_t i = 0; i < n; i++) {
                assert_false(seen[at[i]]);
                seen[at[i]] = 1;
                rows += s.seq[at[i]].n - 1u;
            }
            left -= n;
            assert_true(rows <= tokens && n <= b.most);
            // The next sequence in order did not fit; after the last batch stands what is left out.
            assert_true(rows + s.seq[at[n]].n - 1u > tokens || n == b.most);
        }
        assert_true(left > 0 && left <= b.most);
        pb_batches_at(&b, 5 * per_epoch, &n);
        assert_true(b.epoch > 1);
        const size_t *at = pb_batches_at(&b, 1, &n);
        assert_true(n == n_first && !memcmp(at, first, n * sizeof *first));
        assert_int_equal(pb_batches_new(&again, &s, 0, 202, 7), PB_USAGE);
        pb_batches_free(&b);
    }
    free(s.seq);
}

static void sequences(void **state)
{
    (void)state;
    pb_tokenizer *t;
    pb_seqs s = {0};
    assert_int_equal(pb_tokenizer_open(&t, "bytes", 300), PB_OK);
    assert_int_equal(pb_seqs_add(&s, t, "ab", "xyz", 100), PB_OK);
    assert_int_equal(pb_seqs_add(&s, t, "", "q", 100), PB_OK);
    assert_int_equal(pb_seqs_add(&s, t, "abcdefgh", "too long", 17), PB_OK);
    assert_int_equal(pb_seqs_add(&s, t, "abcdefgh", "it fits", 17), PB_OK);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.dropped, 1);
    assert_int_equal(s.longest, 17);
    assert_int_equal(s.longest_byte, 7);
    const int32_t *x = s.tokens + s.seq[0].first;
    assert_int_equal(s.seq[0].n, 7); // BOS a b x y z EOS
    assert_int_equal(s.seq[0].n_prompt, 3);
    assert_int_equal(x[0], pb_tokenizer_bos(t));
    assert_int_equal(x[6], pb_tokenizer_eos(t));
    assert_true(x[2] == x[1] + 1 && x[4] == x[3] + 1 && x[5] == x[4] + 1);
    assert_int_equal(s.seq[1].n_prompt, 1);
    assert_int_equal(s.seq[1].n, 3);
    // What was dropped left nothing behind.
    assert_int_equal(s.seq[2].first, 10);
    assert_int_equal(s.n_tokens, 27);
    pb_seqs_free(&s);
    assert_null(s.tokens);
    pb_tokenizer_close(t);
}

// A prompt that does not fit loses its beginning, behind BOS, by the longest of its responses; one
// that fits is what pb_seqs_add makes.
static void cut(void **state)
{
    (void)state;
    static const char *const both[] = {"u", "xyz"}; // not the longest first
    pb_tokenizer *t;
    pb_seqs s = {0}, plain = {0};
    assert_int_equal(pb_tokenizer_open(&t, "bytes", 300), PB_OK);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pb_seqs_add(&plain, t, "abcdef", both[i], 11), PB_OK);
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", both, 2, 11), PB_OK); // just fits
    assert_int_equal(s.cut, 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.longest, plain.longest);
    assert_int_equal(s.longest_byte, 3);
    assert_memory_equal(s.seq, plain.seq, 2 * sizeof *s.seq);
    assert_memory_equal(s.tokens, plain.tokens, plain.n_tokens * sizeof *s.tokens);
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", both, 2, 9), PB_OK);
    assert_int_equal(s.cut, 1);
    for (size_t i = 2; i < 4; i++) {
        const int32_t *x = s.tokens + s.seq[i].first, *whole = plain.tokens;
        assert_int_equal(s.seq[i].n_prompt, 5); // BOS c d e f, for both
        assert_int_equal(x[0], pb_tokenizer_bos(t));
        assert_memory_equal(x + 1, whole + 3, 4 * sizeof *x);
        assert_int_equal(s.seq[i].n, i == 2 ? 7 : 9);
        assert_int_equal(x[s.seq[i].n - 1], pb_tokenizer_eos(t));
    }
    // At least one token of the prompt must be left.
    size_t n = s.n;
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", both, 2, 6), PB_OK);
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", both, 2, 5), PB_INPUT);
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", both, 2, 3), PB_INPUT);
    assert_int_equal(s.n, n + 2);
    // A single response is cut when it leaves no room, to three quarters; EOS is gone then.
    const char *const alone = "stuvwxyz";
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", &alone, 1, 11), PB_OK);
    assert_int_equal(s.seq[s.n - 1].n_prompt, 2);
    assert_int_equal(s.seq[s.n - 1].n, 11);
    assert_int_equal(pb_seqs_add_cut(&s, t, "abcdef", &alone, 1, 10), PB_OK);
    assert_int_equal(s.seq[s.n - 1].n_prompt, 2); // 10 - 8
    assert_int_equal(s.seq[s.n - 1].n, 10);
    assert_true(s.tokens[s.n_tokens - 1] != pb_tokenizer_eos(t));
    assert_int_equal(pb_seqs_add_cut(&s, t, "", &alone, 1, 8), PB_OK); // no longer than it was
    assert_int_equal(s.seq[s.n - 1].n_prompt, 1);
    assert_int_equal(s.seq[s.n - 1].n, 7);
    assert_int_equal(s.dropped, 0);
    pb_seqs_free(&s);
    pb_seqs_free(&plain);
    pb_tokenizer_close(t);
}

// Pieces follow one another without gap or overlap, and none has a single token.
static void text(void **state)
{
    static const char docs[] = "0123456789----ab--c";
    (void)state;
    pb_tokenizer *t;
    assert_int_equal(pb_tokenizer_open(&t, "bytes", 300), PB_OK);
    for (size_t limit = 2; limit < 16; limit++) {
        pb_seqs s = {0};
        size_t bytes = 0;
        assert_int_equal(pb_seqs_from_text(&s, t, docs, sizeof docs - 1, "--", limit, &bytes),
                         PB_OK);
        size_t at = 0;
        for (size_t i = 0; i < s.n; i++) {
            assert_true(s.seq[i].n >= 2 && s.seq[i].n <= limit);
            assert_int_equal(s.seq[i].n_prompt, 1);
            assert_true(s.seq[i].first >= at && s.seq[i].first <= at + 1);
            at = s.seq[i].first + s.seq[i].n;
        }
        assert_int_equal(bytes, 10 + 2 + 1);
        assert_true(s.n_tokens == 12 + 4 + 3 && at <= s.n_tokens && at + 1 >= s.n_tokens);
        pb_seqs_free(&s);
    }
    pb_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epoch_order), cmocka_unit_test(everybody), cmocka_unit_test(packed),
        cmocka_unit_test(sequences),   cmocka_unit_test(text),      cmocka_unit_test(cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
