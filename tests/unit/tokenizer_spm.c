// SentencePiece models made here: BPE against merging from scratch at every step, unigram against
// all ways to cut, normalisation, kinds of pieces; truncated and hostile protobufs; and LLaMA-2's
// published vectors.
#include "core/rng.h"
#include "fuzz/tokenizers.h"
#include "unit/vectors.h"

enum { CAP = 1 << 16 };
static uint8_t bytes[CAP];

static pb_tokenizer *open_proto(const proto *p)
{
    pb_tokenizer *t;
    accept(pb_spm_open(&t, target_file(p->out, p->at), 0));
    return t;
}

static proto begin(void)
{
    return (proto){bytes, CAP, 0};
}

// The tokens of a text with a bar between them; U+2581 is shown as "_".
static const char *tokens_of(const pb_tokenizer *t, const char *text, size_t len, bool continues)
{
    static char out[1 << 13];
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, at = 0, size;
    const char *s;
    accept(pb_tokenizer_encode(t, text, len, continues, &ids, &n, &cap));
    for (size_t i = 0; i < n; i++) {
        pb_tokenizer_token(t, ids[i], &s, &size);
        if (i)
            out[at++] = '|';
        for (size_t k = 0; k < size; k++) {
            bool mark = size - k >= 3 && memcmp(s + k, SPM_MARK, 3) == 0;
            out[at++] = mark ? '_' : s[k];
            k += mark ? 2 : 0;
        }
    }
    out[at] = 0;
    free(ids);
    return out;
}

static void becomes(const pb_tokenizer *t, const char *text, const char *want)
{
    const char *got = tokens_of(t, text, strlen(text), false);
    if (strcmp(got, want) != 0)
        fail_msg("\"%s\" becomes %s, not %s", text, got, want);
}

static void decodes(const pb_tokenizer *t, const char *text, bool continues, const char *want)
{
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, len;
    char *back;
    accept(pb_tokenizer_encode(t, text, strlen(text), continues, &ids, &n, &cap));
    accept(pb_tokenizer_decode(t, ids, n, continues, &back, &len));
    if (strcmp(back, want) != 0)
        fail_msg("\"%s\" comes back as \"%s\", not \"%s\"", text, back, want);
    free(back);
    free(ids);
}

// ---- encoding, against slow ways

enum { LONGEST = 40, PIECES = 60 };

typedef struct random_piece {
    char text[8];
    float score;
} random_piece;

// Different random pieces of the first `letters` letters; a, b and c alone among them.
static size_t random_pieces(pb_rng *r, random_piece *p, int letters)
{
    size_t n = 0;
    for (size_t tries = 0; tries < PIECES; tries++) {
        size_t len = tries < 3 ? 1 : 2 + (size_t)pb_rng_below(r, 4);
        memset(&p[n], 0, sizeof p[n]);
        for (size_t i = 0; i < len; i++)
            p[n].text[i] =
                (char)('a' + (tries < 3 ? (int)tries : (int)pb_rng_below(r, (uint64_t)letters)));
        p[n].score = -(float)pb_rng_below(r, 20) - (len == 1 ? 10 : 0);
        size_t same = 0;
        while (strcmp(p[same].text, p[n].text) != 0)
            same++;
        n += same == n;
    }
    return n;
}

static const random_piece *find(const random_piece *p, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(p[i].text, text))
            return &p[i];
    return NULL;
}

static void naive_bpe(char *out, const char *text, const random_piece *p, size_t n)
{
    char part[LONGEST][LONGEST + 1] = {""};
    size_t parts = strlen(text);
    for (size_t i = 0; i < parts; i++)
        part[i][0] = text[i];
    for (;;) {
        size_t at = parts;
        float best = 0;
        for (size_t i = 0; i + 1 < parts; i++) {
            char both[2 * LONGEST + 2] = "";
            memcpy(both, part[i], strlen(part[i]));
            memcpy(both + strlen(part[i]), part[i + 1], strlen(part[i + 1]));
            const random_piece *k = find(p, n, both);
            if (k && (at == parts || k->score > best)) {
                at = i;
                best = k->score;
            }
        }
        if (at == parts)
            break;
        memcpy(part[at] + strlen(part[at]), part[at + 1], strlen(part[at + 1]));
        memmove(part[at + 1], part[at + 2], (parts - at - 2) * sizeof *part);
        memset(part[--parts], 0, sizeof *part);
    }
    *out = 0;
    for (size_t i = 0; i < parts; i++) // "d" alone is no piece
        strcat(strcat(out, i ? "|" : ""), find(p, n, part[i]) ? part[i] : "<0x64>");
}

static void test_bpe(void **state)
{
    (void)state;
    pb_rng r = pb_rng_make(11, PB_STREAM_TEST, 0);
    for (int k = 0; k < 60; k++) {
        random_piece p[PIECES];
        size_t n = random_pieces(&r, p, 4);
        proto file = begin();
        spm_begin(&file, true);
        for (size_t i = 0; i < n; i++)
            spm_piece(&file, p[i].text, p[i].score, SPM_NORMAL);
        spm_trainer(&file, SPM_BPE, true);
        spm_normalizer(&file, false, false, true, NULL, 0);
        pb_tokenizer *t = open_proto(&file);
        for (int i = 0; i < 60; i++) {
            char text[LONGEST + 1] = "", want[4 * LONGEST * 4];
            for (size_t c = 0, len = 1 + (size_t)pb_rng_below(&r, LONGEST); c < len; c++)
                text[c] = (char)('a' + (int)pb_rng_below(&r, 4));
            naive_bpe(want, text, p, n);
            becomes(t, text, want);
            decodes(t, text, i % 2, text);
        }
        pb_tokenizer_close(t);
    }
}

// The largest sum of scores of all ways to cut; a letter that is no piece costs 10 more than the
// worst one.
static double best_cut(const char *text, const random_piece *p, size_t n, double worst)
{
    double best = *text ? -1e9 : 0;
    for (size_t len = 1; len <= 5 && len <= strlen(text); len++) {
        char piece[8] = "";
        memcpy(piece, text, len);
        const random_piece *k = find(p, n, piece);
        if (!k && len > 1)
            continue;
        best = fmax(best, (k ? (double)k->score : worst - 10) + best_cut(text + len, p, n, worst));
    }
    return best;
}

static void test_unigram(void **state)
{
    (void)state;
    pb_rng r = pb_rng_make(12, PB_STREAM_TEST, 0);
    for (int k = 0; k < 60; k++) {
        random_piece p[PIECES];
        size_t n = random_pieces(&r, p, 3);
        double worst = 0;
        proto file = begin();
        spm_begin(&file, false);
        for (size_t i = 0; i < n; i++) {
            spm_piece(&file, p[i].text, p[i].score, SPM_NORMAL);
            worst = fmin(worst, (double)p[i].score);
        }
        spm_normalizer(&file, false, false, true, NULL, 0); // no trainer: unigram
        pb_tokenizer *t = open_proto(&file);
        for (int i = 0; i < 60; i++) {
            char text[16] = "", *save, *token;
            for (size_t c = 0, len = 1 + (size_t)pb_rng_below(&r, 15); c < len; c++)
                text[c] = (char)('a' + (int)pb_rng_below(&r, 4));
            char *got = strdup(tokens_of(t, text, strlen(text), false));
            double sum = 0;
            size_t at = 0;
            for (token = strtok_r(got, "|", &save); token; token = strtok_r(NULL, "|", &save)) {
                if (!strcmp(token, "<unk>")) { // a run of unknown letters is one token
                    for (; text[at] == 'd'; at++)
                        sum += worst - 10;
                    continue;
                }
                assert_memory_equal(text + at, token, strlen(token));
                sum += (double)find(p, n, token)->score;
                at += strlen(token);
            }
            assert_int_equal(text[at], 0);
            double want = best_cut(text, p, n, worst);
            if (!(fabs(sum - want) < 1e-3))
                fail_msg("\"%s\": %g, not %g", text, sum, want);
            free(got);
        }
        pb_tokenizer_close(t);
    }
}

// An unknown character costs 10 more than the worst piece: "a" is none here, and "ab" is the worst.
static void test_unknown_cost(void **state)
{
    (void)state;
    for (int better = 0; better < 2; better++) {
        float rest = better ? -4.8f : -5.2f; // ab c d: -15.0 or -15.8; unknown and bcd: -15.4
        proto p = begin();
        spm_begin(&p, false);
        spm_piece(&p, "ab", -5.4f, SPM_NORMAL);
        spm_piece(&p, "bcd", 0, SPM_NORMAL);
        spm_piece(&p, "c", rest, SPM_NORMAL);
        spm_piece(&p, "d", rest, SPM_NORMAL);
        spm_normalizer(&p, false, false, true, NULL, 0);
        pb_tokenizer *t = open_proto(&p);
        becomes(t, "abcd", better ? "ab|c|d" : "<unk>|bcd");
        pb_tokenizer_close(t);
    }
}

// ---- normalisation and kinds of pieces

static pb_tokenizer *letters(int type, bool with_bytes, bool prefix, bool squeeze, bool escape,
                             bool charsmap)
{
    static const char *const pieces[] = {SPM_MARK, "a", "b", SPM_MARK "a", " ", " a"};
    uint8_t map[2048];
    proto p = begin();
    spm_begin(&p, with_bytes);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        spm_piece(&p, pieces[i], strlen(pieces[i]) > 3 ? -1 : -2, SPM_NORMAL);
    spm_piece(&p, "<u>", 0, SPM_USER);
    spm_piece(&p, "<u>a", 0, SPM_USER);
    spm_trainer(&p, type, with_bytes);
    spm_normalizer(&p, prefix, squeeze, escape, map, charsmap ? spm_charsmap(map, sizeof map) : 0);
    return open_proto(&p);
}

static void test_normalisation(void **state)
{
    (void)state;
    for (int type = SPM_UNIGRAM; type <= SPM_BPE; type++) {
        pb_tokenizer *t = letters(type, true, true, true, true, false);
        becomes(t, "  a   b ", "_a|_|b");
        decodes(t, "  a   b ", false, "a b");
        becomes(t, "", "");
        becomes(t, "   ", "");
        pb_tokenizer_close(t);
        t = letters(type, true, true, false, true, false);
        becomes(t, " a  b", "_|_a|_|_|b");
        decodes(t, " a  b ", false, " a  b ");
        decodes(t, " a  b ", true, " a  b ");
        assert_string_equal(tokens_of(t, "a", 1, true), "a");
        pb_tokenizer_close(t);
        t = letters(type, true, false, false, true, false);
        becomes(t, "a b", "a|_|b");
        decodes(t, " a", false, " a");
        pb_tokenizer_close(t);
        t = letters(type, true, false, false, false, false); // spaces stay spaces
        becomes(t, "b a", "b| a");
        decodes(t, " b a", false, " b a");
        pb_tokenizer_close(t);
        t = letters(type, true, false, true, true, true); // A -> a, tabs vanish
        becomes(t, "A\t\tb", "a|b");
        becomes(t, "A \t b", "a|_|b");
        pb_tokenizer_close(t);
    }
}

static void test_kinds(void **state)
{
    (void)state;
    for (int type = SPM_UNIGRAM; type <= SPM_BPE; type++) {
        pb_tokenizer *t = letters(type, true, true, false, true, false);
        // Text cannot spell control tokens or bytes.
        becomes(t, "<s>", "_|<0x3C>|<0x73>|<0x3E>");
        becomes(t, "a<u>b", "_a|<u>|b");
        becomes(t, "b<u>ab", "_|b|<u>a|b");                                 // the longest
        becomes(t, "\xc3\xa9\xff", "_|<0xC3>|<0xA9>|<0xEF>|<0xBF>|<0xBD>"); // invalid: U+FFFD
        assert_int_equal(pb_tokenizer_bos(t), 1);
        assert_int_equal(pb_tokenizer_eos(t), 2);
        assert_int_equal(pb_tokenizer_control(t, "</s>"), 2);
        pb_tokenizer_close(t);
        t = letters(type, false, true, false, true, false);
        becomes(t, "axyb\xc3\xa9", "_a|<unk>|b|<unk>"); // a run of unknown is one
        decodes(t, "axyb", false, "a \xe2\x81\x87 b");
        pb_tokenizer_close(t);
    }
    // An unused piece helps merging and is taken apart again.
    for (int kind = SPM_NORMAL; kind <= SPM_UNUSED; kind += SPM_UNUSED - SPM_NORMAL) {
        proto p = begin();
        spm_begin(&p, true);
        for (const char *c = "a\0b\0c\0"; *c; c += 2)
            spm_piece(&p, c, -9, SPM_NORMAL);
        spm_piece(&p, "ab", -1, kind);
        spm_piece(&p, "abc", -2, SPM_NORMAL);
        spm_trainer(&p, SPM_BPE, true);
        spm_normalizer(&p, false, false, true, NULL, 0);
        pb_tokenizer *t = open_proto(&p);
        becomes(t, "abcab", kind == SPM_UNUSED ? "abc|a|b" : "abc|ab");
        pb_tokenizer_close(t);
    }
}

// ---- files that are not right

static void refuse(const uint8_t *data, size_t size, size_t vocab, pb_err code, const char *message)
{
    pb_tokenizer *t = NULL;
    pb_err err = pb_spm_open(&t, target_file(data, size), vocab);
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("expected \"%s\", got %s: %s", message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
}

static void test_truncated(void **state)
{
    (void)state;
    proto p = begin();
    spm_bytes(&p); // in front: without them its beginning is a model of control tokens
    spm_begin(&p, false);
    spm_piece(&p, "a", -1, SPM_NORMAL);
    size_t pieces = p.at;
    spm_trainer(&p, SPM_BPE, true);
    size_t trainer = p.at;
    spm_normalizer(&p, true, false, true, NULL, 0);
    for (size_t n = 0; n <= p.at; n++) {
        // Cut between two fields a protobuf is whole; without the trainer its bytes have no use.
        pb_tokenizer *t = NULL;
        pb_err err = pb_spm_open(&t, target_file(bytes, n), 0);
        assert_int_equal(err == PB_OK, n == trainer || n == p.at);
        assert_true(!err || err == PB_INPUT);
        pb_tokenizer_close(t);
    }
    refuse(bytes, pieces, 0, PB_INPUT, "there is no byte fallback");
    refuse(bytes, 0, 0, PB_INPUT, "it is empty");
}

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        pb_err code;
        const char *message;
    } cases[] = {
        // after a model without bytes
        {"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", 11, PB_INPUT, "more than 64 bits"},
        {"\x0a\xff\xff\xff\xff\x0f", 6, PB_INPUT, "goes on after the end"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, PB_INPUT, "goes on after the end"},
        {"\x0b", 1, PB_INPUT, "a kind that is none"},
        {"\x00", 1, PB_INPUT, "number is not 1"},
        {"\x0d\x00\x00", 3, PB_INPUT, "goes on after the end"},
        {"\x08\x01", 2, PB_INPUT, "message has the wire type 0"},
        {"\x0a\x00", 2, PB_INPUT, "is empty"},
        {"\x0a\x04\x0a\x02zz\x0a\x04\x0a\x02zz", 12, PB_INPUT, "\"zz\", was there before"},
        {"\x0a\x08\x0a\x01z\x15\x00\x00\xc0\x7f", 10, PB_INPUT, "score nan"},
        {"\x0a\x08\x0a\x01z\x15\x00\x00\x80\xff", 10, PB_INPUT, "score -inf"},
        {"\x0a\x05\x0a\x01z\x18\x07", 7, PB_UNSUPPORTED, "unknown type 7"},
        {"\x0a\x05\x0a\x01z\x18\x02", 7, PB_INPUT, "are both unknown"},
        {"\x0a\x05\x0a\x01z\x10\x02", 7, PB_INPUT, "score has the wire type 0"},
        {"\x0a\x0a\x0a\x06<0x41>\x18\x06", 12, PB_INPUT, "no byte fallback"},
        {"\x12\x03\x98\x02\x01", 5, PB_INPUT, "only 0 of 256"},
        {"\x12\x02\x18\x03", 4, PB_UNSUPPORTED, "a model of words"},
        {"\x12\x02\x18\x04", 4, PB_UNSUPPORTED, "a model of characters"},
        {"\x12\x02\x18\x09", 4, PB_UNSUPPORTED, "unknown model type 9"},
        {"\x12\x03\xc0\x01\x01", 5, PB_UNSUPPORTED, "treat_whitespace_as_suffix"},
        {"\x12\x03\xc8\x02\x00", 5, PB_INPUT, "bos_id is 0, which is no control token"},
        {"\x12\x04\xd0\x02\xff\x7f", 6, PB_INPUT, "eos_id is 16383"},
        {"\x1a\x04\x12\x02zz", 6, PB_INPUT, "character map of 2 bytes"},
        {"\x1a\x06\x12\x04\xff\xff\xff\x7f", 8, PB_INPUT, "has a tree of 2147483647 bytes"},
        {"\x1a\x0a\x12\x08\x04\x00\x00\x00\x00\x00\x00\x00", 12, PB_INPUT, "do not end"},
        {"\x2a\x04\x12\x02zz", 6, PB_UNSUPPORTED, "denormalizer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        proto p = begin();
        spm_begin(&p, false);
        seed_put(bytes, CAP, &p.at, cases[i].bytes, cases[i].n);
        refuse(bytes, p.at, 0, cases[i].code, cases[i].message);
    }
    char longest[4098];
    memset(longest, 'x', sizeof longest);
    longest[4097] = 0;
    proto p = begin();
    spm_begin(&p, false);
    spm_piece(&p, longest, 0, SPM_NORMAL);
    refuse(bytes, p.at, 0, PB_UNSUPPORTED, "4097 bytes, more than 4096");
    p = begin();
    spm_begin(&p, false);
    refuse(bytes, p.at, 2, PB_INPUT, "the model's vocabulary is 2");
    spm_piece(&p, "a", 0, SPM_NORMAL);
    pb_tokenizer *t = open_proto(&p); // nothing but pieces is a unigram model
    assert_string_equal(pb_tokenizer_kind(t), "SentencePiece unigram");
    pb_tokenizer_close(t);
    p = begin();
    spm_piece(&p, "a", 0, SPM_NORMAL);
    refuse(bytes, p.at, 0, PB_INPUT, "no piece is the unknown one");
    p = begin();
    spm_begin(&p, true);
    spm_piece(&p, "<0x41>", 0, SPM_BYTE);
    spm_trainer(&p, SPM_BPE, true);
    refuse(bytes, p.at, 0, PB_INPUT, "a byte that was there before");
}

// ---- LLaMA-2's

static void test_llama2(void **state)
{
    (void)state;
    pb_tokenizer *t;
    accept(pb_tokenizer_open(&t, data_file("tokenizers/llama2/tokenizer.model"), 32000));
    assert_string_equal(pb_tokenizer_kind(t), "SentencePiece BPE");
    assert_int_equal(pb_tokenizer_bos(t), 1);
    assert_int_equal(pb_tokenizer_eos(t), 2);
    check_vectors(t, "ggml-vocab-llama-spm.gguf");
    pb_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe),          cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_unknown_cost), cmocka_unit_test(test_normalisation),
        cmocka_unit_test(test_kinds),        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_hostile),      cmocka_unit_test(test_llama2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
