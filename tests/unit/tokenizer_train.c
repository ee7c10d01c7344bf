// Training of byte-level BPE: its merges against counting everything anew at every step, encoding
// with the result, and what it does with too little, too much or wrong input.
#include "model/tokenizer_train.h"

#include "core/rng.h"
#include "model/tokenizer_impl.h"
#include "unit/vectors.h"

// ---- the slow way

enum { WORDS = 4000, WORD = 40, SPECIAL = 2, FIRST = 258, MOST = 600 };

typedef struct slow {
    int32_t ids[WORDS][WORD]; // tokens of each word
    size_t n[WORDS], words;
    int32_t left[MOST], right[MOST]; // merge m makes the token FIRST + m
    size_t merges;
} slow;

static void slow_word(slow *s, const char *text, size_t len)
{
    assert_true(s->words < WORDS && len <= WORD);
    for (size_t i = 0; i < len; i++)
        s->ids[s->words][i] = SPECIAL + (uint8_t)text[i];
    s->n[s->words++] = len;
}

// Words of letters with the one space in front of them, and digits, of a text of letters, digits
// and single spaces: what the trainer's expressions make of such a text.
static void slow_text(slow *s, const char *text)
{
    for (size_t n; *text; text += n) {
        bool digit = *text >= '0' && *text <= '9', space = *text == ' ';
        n = 1;
        if (!digit && !(space && (!text[1] || (text[1] >= '0' && text[1] <= '9'))))
            n = (size_t)space + strcspn(text + space, " 0123456789");
        slow_word(s, text, n);
    }
}

static void slow_train(slow *s, size_t vocab)
{
    for (s->merges = 0; FIRST + s->merges < vocab; s->merges++) {
        static uint32_t count[MOST][MOST];
        size_t left = 0, right = 0;
        uint32_t most = 1;
        memset(count, 0, sizeof count);
        for (size_t w = 0; w < s->words; w++)
            for (size_t i = 0; i + 1 < s->n[w]; i++)
                count[s->ids[w][i]][s->ids[w][i + 1]]++;
        for (size_t a = 0; a < MOST; a++)
            for (size_t b = 0; b < MOST; b++)
                if (count[a][b] > most) {
                    most = count[a][b];
                    left = a;
                    right = b;
                }
        if (most < 2)
            return;
        s->left[s->merges] = (int32_t)left;
        s->right[s->merges] = (int32_t)right;
        for (size_t w = 0; w < s->words; w++) {
            size_t n = 0;
            for (size_t i = 0; i < s->n[w]; i++, n++) {
                int32_t *v = s->ids[w];
                bool both = i + 1 < s->n[w] && v[i] == (int32_t)left && v[i + 1] == (int32_t)right;
                v[n] = both ? (int32_t)(FIRST + s->merges) : v[i];
                i += both;
            }
            s->n[w] = n;
        }
    }
}

// The bytes of a token of the slow way.
static size_t slow_bytes(const slow *s, int32_t id, char *out)
{
    if (id < FIRST) {
        *out = (char)(id - SPECIAL);
        return 1;
    }
    size_t n = slow_bytes(s, s->left[id - FIRST], out);
    return n + slow_bytes(s, s->right[id - FIRST], out + n);
}

// ---- training

static json_t *train(const char *const texts[], size_t n, size_t vocab, size_t *tokens)
{
    pb_bpe_trainer *t;
    json_t *j;
    accept(pb_bpe_new(&t));
    for (size_t i = 0; i < n; i++)
        accept(pb_bpe_add(t, texts[i], strlen(texts[i])));
    accept(pb_bpe_train(t, vocab, &j, tokens));
    pb_bpe_free(t);
    return j;
}

static pb_tokenizer *open_trained(json_t *j)
{
    pb_tokenizer *t;
    accept(pb_json_tokenizer_parse(&t, j, NULL, 0));
    return t;
}

// One part of merge m in the file.
static const char *part(const json_t *j, size_t m, size_t k)
{
    const json_t *merges = json_object_get(json_object_get(j, "model"), "merges");
    return json_string_value(json_array_get(json_array_get(merges, m), k));
}

// A text of letters, digits and single spaces.
static void random_text(pb_rng *r, char *out, size_t size, int letters)
{
    size_t at = 0;
    while (at + 16 < size) {
        bool digit = pb_rng_below(r, 8) == 0;
        for (size_t n = 1 + (size_t)pb_rng_below(r, 12); n > 0; n--)
            out[at++] = (char)('a' + (int)pb_rng_below(r, (uint64_t)letters));
        if (digit)
            out[at++] = (char)('0' + (int)pb_rng_below(r, 10));
        if (!digit || pb_rng_below(r, 2))
            out[at++] = ' ';
    }
    out[at] = 0;
}

static void test_against_slow(void **state)
{
    (void)state;
    static slow s;
    pb_rng r = pb_rng_make(21, PB_STREAM_TEST, 0);
    size_t ends_early = 0;
    for (int k = 0; k < 12; k++) {
        char text[2][1500];
        size_t tokens, vocab = FIRST + 10 + (size_t)pb_rng_below(&r, 120);
        s.words = 0;
        for (int i = 0; i < 2; i++) {
            random_text(&r, text[i], k < 3 ? 100 : sizeof *text, 1 + k % 4);
            slow_text(&s, text[i]);
        }
        slow_train(&s, vocab);
        json_t *j = train((const char *const[]){text[0], text[1]}, 2, vocab, &tokens);
        assert_int_equal(tokens, FIRST + s.merges);
        ends_early += tokens < vocab;
        pb_tokenizer *t = open_trained(j);
        for (size_t m = 0; m < s.merges; m++) {
            const char *written, *a = part(j, m, 0), *b = part(j, m, 1);
            char want[2 * WORD];
            size_t n, len = slow_bytes(&s, (int32_t)(FIRST + m), want), back;
            char *got;
            int32_t id = (int32_t)(FIRST + m);
            accept(pb_tokenizer_decode(t, &id, 1, true, &got, &back));
            if (back != len || memcmp(got, want, len) != 0)
                fail_msg("merge %zu of %zu: \"%s\", not \"%.*s\"", m, s.merges, got, (int)len,
                         want);
            free(got);
            // Its two parts are those of the slow way, too.
            pb_tokenizer_token(t, s.left[m], &written, &n);
            assert_true(strlen(a) == n && memcmp(a, written, n) == 0);
            pb_tokenizer_token(t, s.right[m], &written, &n);
            assert_true(strlen(b) == n && memcmp(b, written, n) == 0);
        }
        // Encoding the words is what training made of them.
        int32_t *ids = NULL;
        size_t n = 0, cap = 0, at = 0;
        for (int i = 0; i < 2; i++)
            accept(pb_tokenizer_encode(t, text[i], strlen(text[i]), false, &ids, &n, &cap));
        for (size_t w = 0; w < s.words; w++)
            for (size_t i = 0; i < s.n[w]; i++)
                assert_int_equal(ids[at++], s.ids[w][i]);
        assert_int_equal(at, n);
        free(ids);
        pb_tokenizer_close(t);
        json_decref(j);
    }
    assert_in_range(ends_early, 1, 11);
}

static void test_result(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "the cat sat on the mat; the cat's hat. \xc3\xa9t\xc3\xa9 \xc3\xa9t\xc3\xa9 \xe6\xbc\xa2\n",
        "the theme: 1984, 1985 \xf0\x9f\x98\x80 the end\n\n\tthe\r\n"};
    size_t tokens, len, n = 0, cap = 0;
    json_t *j = train(texts, 2, 300, &tokens), *config;
    int32_t *ids = NULL;
    pb_tokenizer *t = open_trained(j);
    assert_string_equal(part(j, 0, 0), "h"); // as frequent as "th", and its ids are smaller
    assert_string_equal(part(j, 0, 1), "e");
    assert_int_equal(pb_tokenizer_vocab(t), tokens);
    assert_int_equal(pb_tokenizer_control(t, PB_BPE_BEGIN), 0);
    assert_int_equal(pb_tokenizer_control(t, PB_BPE_END), 1);
    assert_int_equal(pb_tokenizer_bos(t), 0);
    assert_int_equal(pb_tokenizer_eos(t), -1); // tokenizer_config.json names it
    accept(pb_tokenizer_encode(t, " the", 4, false, &ids, &n, &cap));
    assert_int_equal(n, 1);
    n = 0;
    accept(pb_tokenizer_encode(t, "1984", 4, false, &ids, &n, &cap)); // digit by digit
    assert_int_equal(n, 4);
    free(ids);
    static const char *const others[] = {"",
                                         "the cat",
                                         "  \n \t",
                                         "\xff\xfe \xc3",
                                         "zebra 12345",
                                         "\xe0\xa4\xb9\xe0\xa4\xbf \xed\xa0\x80",
                                         PB_BPE_BEGIN};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        for (int continues = 0; continues < 2; continues++) {
            char *back;
            ids = NULL;
            n = cap = 0;
            accept(pb_tokenizer_encode(t, others[i], strlen(others[i]), continues, &ids, &n, &cap));
            for (size_t k = 0; k < n; k++)
                assert_true(ids[k] >= SPECIAL);
            accept(pb_tokenizer_decode(t, ids, n, continues, &back, &len));
            assert_string_equal(back, others[i]);
            free(back);
            free(ids);
        }
    pb_tokenizer_close(t);
    accept(pb_json_parse(&config, "{\"eos_token\":\"" PB_BPE_END "\"}",
                         strlen("{\"eos_token\":\"" PB_BPE_END "\"}"), "config"));
    accept(pb_json_tokenizer_parse(&t, j, config, 0));
    assert_int_equal(pb_tokenizer_eos(t), 1);
    pb_tokenizer_close(t);
    json_decref(config);
    json_decref(j);
}

// The same text in another order of documents, or in one piece, gives the same file.
static void test_order(void **state)
{
    (void)state;
    size_t tokens;
    const char *const ab[] = {"aa ab abc ", "bca abc ccc "}, *const ba[] = {ab[1], ab[0]};
    json_t *one = train(ab, 2, 270, &tokens), *two = train(ba, 2, 270, &tokens);
    assert_true(json_equal(one, two));
    json_decref(one);
    json_decref(two);
}

static void test_limits(void **state)
{
    (void)state;
    pb_bpe_trainer *t;
    json_t *j = NULL;
    size_t tokens = 0;
    accept(pb_bpe_new(&t));
    assert_int_equal(pb_bpe_train(t, 257, &j, &tokens), PB_USAGE);
    assert_non_null(strstr(pb_error_message(), "a vocabulary of 257 (258 to"));
    assert_int_equal(pb_bpe_train(t, (size_t)1 << 40, &j, &tokens), PB_USAGE);
    assert_null(j);
    // What is not UTF-8 is refused where it is, and counts nothing.
    assert_int_equal(pb_bpe_add(t, "good\xff", 5), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "byte 4 of the text is not UTF-8"));
    assert_int_equal(pb_bpe_words(t), 0);
    accept(pb_bpe_add(t, "", 0));
    accept(pb_bpe_add(t, "a\0b a\0b", 7)); // zeros are bytes like others
    accept(pb_bpe_add(t, "once", 4));
    assert_true(pb_bpe_words(t) > 1);
    accept(pb_bpe_train(t, 4096, &j, &tokens)); // too little text: fewer tokens
    assert_in_range(tokens, FIRST, FIRST + 6);
    assert_int_equal(json_object_size(json_object_get(json_object_get(j, "model"), "vocab")),
                     tokens);
    json_t *again = NULL;
    assert_int_equal(pb_bpe_train(t, 4096, &again, &tokens), PB_INTERNAL);
    assert_null(again);
    json_decref(j);
    pb_bpe_free(t);
    // No text at all: the bytes.
    accept(pb_bpe_new(&t));
    accept(pb_bpe_train(t, FIRST, &j, &tokens));
    assert_int_equal(tokens, FIRST);
    json_decref(j);
    pb_bpe_free(t);
    pb_bpe_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_slow),
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
