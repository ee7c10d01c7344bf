// Tokenizers: round trips on awkward text, the merge order against a slow direct search, speed on
// long text, refusals, and the published test vectors of the LLaMA-2 vocabulary.
#include "model/tokenizer.h"

#include "core/clock.h"
#include "core/rng.h"
#include "fuzz/targets.h"
#include "unit/vectors.h"
#include <math.h>

enum { CAP = 1 << 14 };
static uint8_t bytes[CAP];

static pb_tokenizer *open_seed(void)
{
    pb_tokenizer *t;
    accept(pb_tokenizer_open(&t, target_file(bytes, seed_tokenizer_file(bytes, CAP)), SEED_VOCAB));
    return t;
}

static void round_trip(const pb_tokenizer *t, const char *text, size_t len)
{
    for (int continues = 0; continues < 2; continues++) {
        int32_t *ids = NULL;
        size_t n = 0, cap = 0, back_len;
        char *back;
        accept(pb_tokenizer_encode(t, text, len, continues, &ids, &n, &cap));
        accept(pb_tokenizer_decode(t, ids, n, continues, &back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, text, len);
        assert_int_equal(back[len], 0);
        free(back);
        free(ids);
    }
}

static void awkward_texts(const pb_tokenizer *t)
{
    static const char *const texts[] = {
        "",
        " ",
        "  ",
        "   leading and trailing   ",
        "a",
        "\n",
        "\t\r\n",
        "Once upon a time, there was a little girl.",
        "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80 \xe6\xbc\xa2\xe5\xad\x97",
        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb",
        "\xff\xfe\xfd",
        "\x80\x80\x80\x80\x80\x80\x80",
        "\xc3",
        "abc\xc3",
        "\xe2\x82",
        "<s></s><unk><0x0A>\n<s>\n",
        "\xe2\x96\x81under", // U+2581 itself
        "\xc0\x80\xed\xa0\x80\xf8\x88\x80\x80\x80",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        round_trip(t, texts[i], strlen(texts[i]));
    char all[512];
    for (int i = 0; i < 512; i++)
        all[i] = (char)i;
    for (size_t i = 0; i < 256; i++)
        round_trip(t, all + i, 1);
    round_trip(t, all, 512);
    pb_rng r = pb_rng_make(3, PB_STREAM_TEST, 0);
    for (int k = 0; k < 500; k++) {
        size_t len = (size_t)pb_rng_below(&r, 512);
        for (size_t i = 0; i < len; i++)
            all[i] = (char)pb_rng_u32(&r);
        round_trip(t, all, len);
    }
}

static void test_bytes(void **state)
{
    (void)state;
    pb_tokenizer *t;
    assert_int_equal(pb_tokenizer_open(&t, "bytes", 257), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "257"));
    accept(pb_tokenizer_open(&t, "bytes", 260));
    assert_int_equal(pb_tokenizer_vocab(t), 260);
    assert_int_equal(pb_tokenizer_bos(t), 256);
    assert_int_equal(pb_tokenizer_eos(t), 257);
    awkward_texts(t);
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, len;
    accept(pb_tokenizer_encode(t, "a\xff", 2, false, &ids, &n, &cap));
    accept(pb_tokenizer_encode(t, " b", 2, true, &ids, &n, &cap)); // appends
    assert_int_equal(n, 4);
    assert_int_equal(ids[0], 'a');
    assert_int_equal(ids[1], 255);
    assert_int_equal(ids[2], ' ');
    free(ids);
    char *text;
    const int32_t mixed[] = {256, ' ', 'x', 257, 258, 259, 0};
    accept(pb_tokenizer_decode(t, mixed, 7, false, &text, &len));
    assert_int_equal(len, 3); // nothing is stripped: nothing was invented
    assert_memory_equal(text, " x\0", 4);
    free(text);
    const int32_t wrong[] = {1, 260}, negative[] = {-1};
    assert_int_equal(pb_tokenizer_decode(t, wrong, 2, false, &text, &len), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "token 260 at position 1"));
    assert_int_equal(pb_tokenizer_decode(t, negative, 1, false, &text, &len), PB_INPUT);
    assert_null(text);
    accept(pb_tokenizer_decode(t, NULL, 0, false, &text, &len));
    assert_int_equal(len, 0);
    free(text);
    pb_tokenizer_close(t);
    pb_tokenizer_close(NULL);
}

static void test_small_vocabulary(void **state)
{
    (void)state;
    pb_tokenizer *t = open_seed();
    assert_int_equal(pb_tokenizer_vocab(t), SEED_VOCAB);
    assert_int_equal(pb_tokenizer_bos(t), 1);
    assert_int_equal(pb_tokenizer_eos(t), 2);
    awkward_texts(t);
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, len;
    accept(pb_tokenizer_encode(t, "z", 1, false, &ids, &n, &cap));
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 259); // the invented space
    assert_int_equal(ids[1], 'z' + 3);
    free(ids);
    char *text;
    const int32_t mixed[] = {1, 265, 0, 'z' + 3, 265, 2}; // BOS " a" unknown "z" " a" EOS
    accept(pb_tokenizer_decode(t, mixed, 6, false, &text, &len));
    assert_string_equal(text, "az a");
    free(text);
    accept(pb_tokenizer_decode(t, mixed, 6, true, &text, &len));
    assert_string_equal(text, " az a");
    free(text);
    pb_tokenizer_close(t);
}

// The definition, done slowly: look at all neighbours, merge the best, start over.
static size_t encode_slowly(int32_t *ids, const char *text, size_t len, const char *const *piece,
                            const float *score, size_t n_pieces)
{
    size_t start[256], n = 0; // symbols: [start[i], start[i+1])
    for (size_t i = 0; i < len; i++)
        start[n++] = i;
    start[n] = len;
    for (;;) {
        size_t best = SIZE_MAX;
        float best_score = -INFINITY;
        for (size_t i = 0; i + 1 < n; i++) {
            size_t width = start[i + 2] - start[i];
            for (size_t p = 0; p < n_pieces; p++)
                if (strlen(piece[p]) == width && memcmp(piece[p], text + start[i], width) == 0 &&
                    score[p] > best_score) {
                    best = i;
                    best_score = score[p];
                }
        }
        if (best == SIZE_MAX)
            break;
        memmove(start + best + 1, start + best + 2, (n - best - 1) * sizeof *start);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < n_pieces; p++)
            if (strlen(piece[p]) == start[i + 1] - start[i] &&
                memcmp(piece[p], text + start[i], strlen(piece[p])) == 0)
                ids[i] = (int32_t)(259 + p);
    return n;
}

// Random vocabularies over a two-letter alphabet, with many equal scores.
static void test_merge_order(void **state)
{
    (void)state;
    enum { N = 40 };
    pb_rng r = pb_rng_make(5, PB_STREAM_TEST, 0);
    for (int round = 0; round < 200; round++) {
        char store[N][8];
        const char *piece[N] = {"a", "b", " "};
        float score[N] = {0, 0, 0};
        size_t n = 3;
        for (int tries = 0; tries < 60 && n < N; tries++) {
            size_t len = 2 + (size_t)pb_rng_below(&r, 5);
            for (size_t i = 0; i < len; i++)
                store[n][i] = "aab "[pb_rng_below(&r, 4)];
            store[n][len] = 0;
            bool known = false;
            for (size_t i = 0; i < n; i++)
                known |= strcmp(piece[i], store[n]) == 0;
            if (known)
                continue;
            piece[n] = store[n];
            score[n++] = -(float)pb_rng_below(&r, 6);
        }
        // The seed's control tokens and bytes, then these pieces.
        size_t size = 4 + 3 * 8 + 5 + 5 + 6 + 256 * 14;
        seed_tokenizer_file(bytes, CAP);
        for (size_t i = 0; i < n; i++)
            seed_piece(bytes, CAP, &size, score[i], piece[i]);
        pb_tokenizer *t;
        accept(pb_tokenizer_open(&t, target_file(bytes, size), 259 + n));
        for (int k = 0; k < 20; k++) {
            char text[64];
            int32_t want[64], *ids = NULL;
            size_t len = 1 + (size_t)pb_rng_below(&r, 60), n_ids = 0, cap = 0;
            for (size_t i = 0; i < len; i++)
                text[i] = "aab "[pb_rng_below(&r, 4)];
            size_t n_want = encode_slowly(want, text, len, piece, score, n);
            accept(pb_tokenizer_encode(t, text, len, true, &ids, &n_ids, &cap));
            assert_int_equal(n_ids, n_want);
            assert_memory_equal(ids, want, n_want * sizeof *ids);
            free(ids);
        }
        pb_tokenizer_close(t);
    }
}

// Forty times the text may take forty times as long, and somewhat more: the factor 20 is room for
// a busy machine. A quadratic search would take 1600 times as long.
static void test_long_text(void **state)
{
    (void)state;
    pb_tokenizer *t = open_seed();
    enum { LONG = 2000000 };
    char *text = malloc(LONG);
    for (size_t i = 0; i < LONG; i++)
        text[i] = "abcabc a"[i % 8];
    double seconds[2];
    for (int k = 0; k < 2; k++) {
        size_t len = k ? LONG : LONG / 40, n = 0, cap = 0;
        int32_t *ids = NULL;
        double start = pb_now();
        accept(pb_tokenizer_encode(t, text, len, false, &ids, &n, &cap));
        seconds[k] = pb_now() - start;
        free(ids);
    }
    print_message("%.1f MB/s\n", LONG / seconds[1] / 1e6);
    assert_true(seconds[1] < 20 * 40 * seconds[0]);
    memset(text, 'a', LONG); // one run of equal letters: every neighbour is a candidate
    round_trip(t, text, LONG / 10);
    free(text);
    pb_tokenizer_close(t);
}

static void refuse(const uint8_t *data, size_t size, size_t vocab, pb_err code, const char *message)
{
    pb_tokenizer *t;
    pb_err err = pb_tokenizer_open(&t, target_file(data, size), vocab);
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("expected \"%s\", got %s: %s", message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
}

static void test_refusals(void **state)
{
    (void)state;
    size_t size = seed_tokenizer_file(bytes, CAP - 1);
    for (size_t n = 0; n < size; n++)
        refuse(bytes, n, SEED_VOCAB, PB_INPUT, "tokenizer");
    refuse(bytes, size + 1, SEED_VOCAB, PB_INPUT, "1 bytes follow");
    refuse(bytes, size, SEED_VOCAB - 1, PB_INPUT, "follow the last token of a vocabulary of 271");
    refuse(bytes, size, SEED_VOCAB + 1, PB_INPUT, "token 272 of a vocabulary of 273");
    refuse(bytes, size, 258, PB_INPUT, "258");
    pb_tokenizer *t; // 0: as many tokens as the file has
    assert_int_equal(pb_tokenizer_open(&t, target_file(bytes, size), 0), PB_OK);
    assert_int_equal(pb_tokenizer_vocab(t), SEED_VOCAB);
    pb_tokenizer_close(t);
    refuse(bytes, size, SIZE_MAX, PB_INPUT, "outside");
    refuse(bytes, size, 1 << 24, PB_INPUT, "cannot hold");
    const struct {
        size_t at;
        uint32_t value;
        pb_err code;
        const char *message;
    } cases[] = {
        {0, 0, PB_INPUT, "length 5 (longest allowed 0"},
        {0, UINT32_MAX, PB_INPUT, "longest allowed -1"},
        {4, 0x7fc00000, PB_INPUT, "score nan"},
        {4, 0xff800000, PB_INPUT, "score -inf"},
        {8, UINT32_MAX, PB_INPUT, "length -1"},
        {8, INT32_MAX, PB_INPUT, "length 2147483647"},
        {4 + 3 * 8 + 16 + 8, 0x30303030, PB_UNSUPPORTED, "token 3 is"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        seed_tokenizer_file(bytes, CAP);
        memcpy(bytes + cases[i].at, &cases[i].value, 4);
        refuse(bytes, size, SEED_VOCAB, cases[i].code, cases[i].message);
    }
    assert_int_equal(pb_tokenizer_open(&t, "/nonexistent/tokenizer.bin", 512), PB_IO);
    assert_non_null(strstr(pb_error_message(), "/nonexistent/tokenizer.bin"));
    t = open_seed();
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, len;
    assert_int_equal(pb_tokenizer_encode(t, "", SIZE_MAX, false, &ids, &n, &cap), PB_UNSUPPORTED);
    char *text;
    assert_int_equal(pb_tokenizer_decode(t, &(int32_t){SEED_VOCAB}, 1, false, &text, &len),
                     PB_INPUT);
    pb_tokenizer_close(t);
}

static void test_real_file(void **state)
{
    (void)state;
    pb_tokenizer *t;
    accept(pb_tokenizer_open(&t, data_file("weights/stories260K/tokenizer.bin"), 512));
    awkward_texts(t);
    pb_tokenizer_close(t);
}

// A protobuf number.
static uint64_t varint(const uint8_t **p, const uint8_t *end)
{
    uint64_t x = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t b = *(*p)++;
        x |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            break;
    }
    return x;
}

// Turns SentencePiece's model, a protobuf with pieces in field 1 {piece 1, score 2}, into the
// layout of tokenizer.bin. Returns its size and the number of pieces.
static size_t convert(uint8_t *out, size_t cap, const pb_file *f, size_t *vocab)
{
    const uint8_t *p = f->data, *end = p + f->size;
    size_t at = 0;
    seed_put(out, cap, &at, &(int32_t){1000}, 4);
    *vocab = 0;
    while (p < end) {
        uint64_t key = varint(&p, end);
        REQUIRE((key & 7) == 2); // at the top everything has a length
        uint64_t len = varint(&p, end);
        const uint8_t *stop = p + len;
        if (key >> 3 != 1) {
            p = stop;
            continue;
        }
        float score = 0;
        char text[1000] = "";
        while (p < stop) {
            key = varint(&p, stop);
            if (key >> 3 == 1) {
                len = varint(&p, stop);
                size_t n = 0;
                for (uint64_t i = 0; i < len; i++) {
                    bool space = len - i >= 3 && memcmp(p + i, "\xe2\x96\x81", 3) == 0;
                    text[n++] = space ? ' ' : (char)p[i];
                    i += space ? 2 : 0;
                }
                text[n] = 0;
                p += len;
            } else if (key >> 3 == 2) {
                memcpy(&score, p, 4);
                p += 4;
            } else {
                varint(&p, stop);
            }
        }
        seed_piece(out, cap, &at, score, text);
        ++*vocab;
    }
    return at;
}

// The LLaMA-2 vocabulary as a tokenizer.bin.
static void test_published_vectors(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    pb_file f;
    accept(pb_file_map(&f, data_file("tokenizers/llama2/tokenizer.model")));
    uint8_t *file = malloc(BIG);
    size_t vocab, size = convert(file, BIG, &f, &vocab);
    assert_int_equal(vocab, 32000);
    pb_tokenizer *t;
    accept(pb_tokenizer_open(&t, target_file(file, size), vocab));
    awkward_texts(t);
    check_vectors(t, "ggml-vocab-llama-spm.gguf");
    pb_tokenizer_close(t);
    pb_file_unmap(&f);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_small_vocabulary),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_real_file),
        cmocka_unit_test(test_published_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
