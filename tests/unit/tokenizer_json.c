// tokenizer.json: how each kind cuts, merges and decodes text, what it takes from the files beside
// it, what it refuses by name, and the published vectors of GPT-2.
#include "core/json.h"
#include "core/rng.h"
#include "model/tokenizer_impl.h"
#include "unit/vectors.h"

#include <omp.h>

// ---- making files

typedef enum base {
    NOTHING,
    ALPHABET, // ids 0-255 are the bytes, in GPT-2's alphabet
    FALLBACK, // <unk>, <s>, </s>, <0x00> .. <0xFF>
} base;

static void add_token(json_t *vocab, const char *text, size_t len)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)len, text);
    if (!json_object_get(vocab, name))
        json_object_set_new(vocab, name, json_integer((json_int_t)json_object_size(vocab)));
}

static json_t *vocabulary(base b)
{
    static const char *const controls[] = {"<unk>", "<s>", "</s>"};
    json_t *vocab = json_object();
    int other = 256;
    for (size_t i = 0; b == FALLBACK && i < 3; i++)
        add_token(vocab, controls[i], strlen(controls[i]));
    for (int i = 0; b != NOTHING && i < 256; i++) {
        char name[8];
        bool printable = (i > 32 && i < 127) || (i > 160 && i != 173);
        int c = b == ALPHABET && !printable ? other++ : i;
        if (b == FALLBACK)
            snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        else if (c < 128)
            snprintf(name, sizeof name, "%c", c);
        else
            snprintf(name, sizeof name, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 63));
        add_token(vocab, name, strlen(name));
    }
    return vocab;
}

// A file: `rest` is everything but the vocabulary and the merges. `tokens` and `merges` have a
// space between tokens and a comma between merges, e.g. "h e,he llo"; what they make is added.
static json_t *make(base b, const char *tokens, const char *merges, const char *rest)
{
    json_t *j, *list = json_array(), *vocab = vocabulary(b);
    accept(pb_json_parse(&j, rest, strlen(rest), "the test"));
    for (size_t n; *tokens; tokens += n + (tokens[n] == ' ')) {
        n = strcspn(tokens, " ");
        add_token(vocab, tokens, n);
    }
    for (size_t n; *merges; merges += n + (merges[n] == ',')) {
        char both[64];
        n = strcspn(merges, ",");
        size_t left = strcspn(merges, " ");
        snprintf(both, sizeof both, "%.*s%.*s", (int)left, merges, (int)(n - left - 1),
                 merges + left + 1);
        add_token(vocab, both, strlen(both));
        json_array_append_new(list, json_stringn(merges, n));
    }
    if (!json_object_get(j, "model"))
        json_object_set_new(j, "model", json_object());
    json_object_set_new(json_object_get(j, "model"), "vocab", vocab);
    json_object_set_new(json_object_get(j, "model"), "merges", list);
    return j;
}

static pb_tokenizer *open_config(base b, const char *tokens, const char *merges, const char *rest,
                                 const char *config)
{
    pb_tokenizer *t;
    json_t *j = make(b, tokens, merges, rest), *c = NULL;
    if (config)
        accept(pb_json_parse(&c, config, strlen(config), "tokenizer_config.json"));
    accept(pb_json_tokenizer_parse(&t, j, c, 0));
    json_decref(j);
    json_decref(c);
    return t;
}

static pb_tokenizer *open(base b, const char *tokens, const char *merges, const char *rest)
{
    return open_config(b, tokens, merges, rest, NULL);
}

// ---- looking

// The tokens of a text, with a bar between them.
static const char *tokens_of(const pb_tokenizer *t, const char *text, size_t len, bool continues)
{
    static char out[1 << 14];
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, at = 0, size;
    const char *s;
    accept(pb_tokenizer_encode(t, text, len, continues, &ids, &n, &cap));
    for (size_t i = 0; i < n; i++) {
        assert_true(pb_tokenizer_token(t, ids[i], &s, &size) != PB_TOKEN_NONE);
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.*s", i ? "|" : "", (int)size, s);
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

static pb_err add_piece(void *self, const char *piece, size_t len)
{
    char *out = self;
    size_t n = strlen(out);
    snprintf(out + n, 1024 - n, "%s%.*s", n ? "|" : "", (int)len, piece);
    return PB_OK;
}

static void cuts(const pb_tokenizer *t, const char *text, const char *want)
{
    char got[1024] = "";
    accept(pb_json_tokenizer_split(t, text, strlen(text), add_piece, got));
    if (strcmp(got, want) != 0)
        fail_msg("\"%s\" is cut into %s, not %s", text, got, want);
}

// Decoding the ids gives `want`.
static void decodes(const pb_tokenizer *t, const char *text, bool continues, const char *want)
{
    int32_t *ids = NULL;
    size_t n = 0, cap = 0, len;
    char *back;
    accept(pb_tokenizer_encode(t, text, strlen(text), continues, &ids, &n, &cap));
    accept(pb_tokenizer_decode(t, ids, n, continues, &back, &len));
    assert_string_equal(back, want);
    free(back);
    free(ids);
}

// Any bytes come back, at the beginning of a text and later.
static void loses_nothing(const pb_tokenizer *t, bool utf8_only)
{
    static const char *const texts[] = {
        "",
        " ",
        "   ",
        "a",
        "\n\n \t x",
        "  two  spaces  ",
        "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80\xf0\x9f\x8f\xbd \xe6\xbc\xa2\xe5\xad\x97",
        "I'll DON'T 1234 x_y!!\r\n",
        "<s></s><|end|>",
        "\xff\xfe",
        "ab\xc3",
        "\xe2\x82 \xf0\x9f\x98 \xed\xa0\x80\xc0\x80z",
    };
    enum { INVALID = 9 };
    for (size_t i = 0; i < (utf8_only ? INVALID : sizeof texts / sizeof *texts); i++)
        for (int continues = 0; continues < 2; continues++)
            decodes(t, texts[i], continues, texts[i]);
    pb_rng r = pb_rng_make(5, PB_STREAM_TEST, 0);
    for (int k = 0; k < 300; k++) {
        static const char *const parts[] = {
            "a", " ", "  ",   "\n",           "1",   "'s", "\xc3\xa9", "\xf0\x9f\x98\x80",
            ".", "Z", "\x01", "\xe6\xbc\xa2", "\xff"};
        char text[256] = "";
        for (size_t n = (size_t)pb_rng_below(&r, 40); n > 0; n--)
            strcat(text, parts[pb_rng_below(&r, utf8_only ? 12 : 13)]);
        decodes(t, text, k % 2, text);
    }
}

// ---- byte-level

#define BYTE_LEVEL(space, regex)                                                                   \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" space ",\"use_regex\":" regex "}"
#define DECODER "\"decoder\":{\"type\":\"ByteLevel\"}"
#define GPT2    "{\"pre_tokenizer\":" BYTE_LEVEL("false", "true") "," DECODER "}"
#define SPLIT(regex)                                                                               \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":" \
    "{\"Regex\":\"" regex                                                                          \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("false", "false") "]}," DECODER
#define LLAMA3_SPLIT                                                                               \
    SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"     \
          "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")
#define QWEN_SPLIT                                                                                 \
    SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"          \
          "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")

static void test_splits(void **state)
{
    (void)state;
    pb_tokenizer *t = open(ALPHABET, "", "", GPT2);
    cuts(t, "I'll don't DON'T 12ab!! \n\n x", "I|'ll| don|'t| DON|'|T| 12|ab|!!| \n\n| x");
    cuts(t, "caf\xc3\xa9  \xe6\xbc\xa2\xe5\xad\x97\xef\xbc\x81 \xc2\xbd",
         "caf\xc3\xa9| | \xe6\xbc\xa2\xe5\xad\x97|\xef\xbc\x81| \xc2\xbd");
    cuts(t, "a\xe2\x80\x89\xe2\x80\x89z   ", "a|\xe2\x80\x89|\xe2\x80\x89|z|   ");
    loses_nothing(t, false);
    pb_tokenizer_close(t);

    t = open(ALPHABET, "", "", "{" LLAMA3_SPLIT "}");
    cuts(t, "DON'T 12345!!\n\n  x\n", "DON|'T| |123|45|!!\n\n| | x|\n");
    cuts(t, "a\r\n \n\tb(c)", "a|\r\n \n|\tb|(c|)");
    loses_nothing(t, false);
    pb_tokenizer_close(t);

    t = open(ALPHABET, "", "", "{\"normalizer\":{\"type\":\"NFC\"}," QWEN_SPLIT "}");
    cuts(t, "It'S 2024 e\xcc\x81", "It|'S| |2|0|2|4| \xc3\xa9");
    decodes(t, "e\xcc\x81", false, "\xc3\xa9");
    pb_tokenizer_close(t);

    // SmolLM: single digits, then GPT-2's words.
    t = open(ALPHABET, "", "",
             "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
             "\"individual_digits\":true}," BYTE_LEVEL("false", "true") "]}," DECODER "}");
    cuts(t, "in 1984 it's", "in| |1|9|8|4| it|'s");
    loses_nothing(t, false);
    pb_tokenizer_close(t);
}

static void test_behaviours(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        // the text "xaayab", cut at "a"
        {"Isolated", "x|a|a|y|a|b", "x|a|a|y|a|b"},
        {"Removed", "x|y|b", "a|a|a"},
        {"MergedWithPrevious", "xa|a|ya|b", "x|a|ay|ab"},
        {"MergedWithNext", "x|a|ay|ab", "xa|a|ya|b"},
        {"Contiguous", "x|aa|y|a|b", "x|aa|y|a|b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int invert = 0; invert < 2; invert++) {
            char rest[512];
            snprintf(rest, sizeof rest,
                     "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                     "\"Split\",\"pattern\":{\"%s\":\"a\"},\"behavior\":\"%s\",\"invert\":%s},"
                     "%s]}}",
                     invert ? "String" : "Regex", cases[i][0], invert ? "true" : "false",
                     BYTE_LEVEL("false", "false"));
            pb_tokenizer *t = open(ALPHABET, "", "", rest);
            cuts(t, "xaayab", cases[i][1 + invert]);
            pb_tokenizer_close(t);
        }
    pb_tokenizer *t = open(ALPHABET, "", "",
                           "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                           "\"Punctuation\"}," BYTE_LEVEL("true", "true") "]}," DECODER "}");
    // A space is put in front of every piece that has none, and taken off the whole text.
    cuts(t, "a,b", " a| ,| b");
    pb_tokenizer_close(t);
    t = open(ALPHABET, "", "", "{\"pre_tokenizer\":" BYTE_LEVEL("true", "true") "," DECODER "}");
    becomes(t, "a b", "\xc4\xa0|a|\xc4\xa0|b");
    decodes(t, "a b", false, "a b");
    decodes(t, "a b", true, "a b");
    pb_tokenizer_close(t);
}

static void test_merges(void **state)
{
    (void)state;
    // The order of the list decides, not the text; on a tie the leftmost.
    pb_tokenizer *t = open(ALPHABET, "",
                           "b c,a b,ab c,c c,\xc4\xa0 a,\xc4\xa0"
                           "a bc",
                           GPT2);
    becomes(t, "abc", "a|bc");
    becomes(t, "ab", "ab");
    becomes(t, "ccc", "cc|c");
    becomes(t, "bccc", "bc|cc");
    becomes(t, "x abc",
            "x|\xc4\xa0"
            "abc");
    loses_nothing(t, false);
    pb_tokenizer_close(t);

    // Merges written as pairs are the same.
    json_t *j = make(ALPHABET, "", "b c,a b,ab c", GPT2), *list = json_array(), *m;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(j, "model"), "merges"), i, m)
    {
        const char *s = json_string_value(m), *space = strchr(s, ' ');
        json_array_append_new(list, json_pack("[s%, s]", s, (size_t)(space - s), space + 1));
    }
    json_object_set_new(json_object_get(j, "model"), "merges", list);
    accept(pb_json_tokenizer_parse(&t, j, NULL, 0));
    json_decref(j);
    becomes(t, "abc", "a|bc");
    pb_tokenizer_close(t);

    // ignore_merges: a whole word that is a token is that token, merges or not (LLaMA-3).
    t = open(ALPHABET, "abc", "b c", "{\"model\":{\"ignore_merges\":true}," LLAMA3_SPLIT "}");
    becomes(t, "abc abc abcd", "abc|\xc4\xa0|a|bc|\xc4\xa0|a|bc|d");
    loses_nothing(t, false);
    pb_tokenizer_close(t);
    t = open(ALPHABET, "abc", "b c", "{" LLAMA3_SPLIT "}");
    becomes(t, "abc", "a|bc");
    pb_tokenizer_close(t);
}

// Merging anew from the whole text at every step, the slowest way there is.
static void naive(char *out, const char *text, const char *const merges[], size_t n)
{
    char part[64][32];
    size_t parts = 0;
    for (const char *c = text; *c; c++)
        snprintf(part[parts++], 32, "%c", *c);
    for (;;) {
        size_t best = n, at = 0;
        for (size_t i = 0; i + 1 < parts; i++) {
            size_t left = strlen(part[i]);
            for (size_t m = 0; m < best; m++)
                if (!strncmp(merges[m], part[i], left) && merges[m][left] == ' ' &&
                    !strcmp(merges[m] + left + 1, part[i + 1])) {
                    best = m;
                    at = i;
                }
        }
        if (best == n)
            break;
        memcpy(part[at] + strlen(part[at]), part[at + 1], strlen(part[at + 1]) + 1);
        memmove(part[at + 1], part[at + 2], (parts - at - 2) * sizeof *part);
        parts--;
    }
    *out = 0;
    for (size_t i = 0; i < parts; i++)
        strcat(strcat(out, i ? "|" : ""), part[i]);
}

static void test_against_naive(void **state)
{
    (void)state;
    static const char *const merges[] = {"a b", "b a", "ab a",  "c a",  "a a",   "aa aa",
                                         "b b", "c c", "ab ab", "ba b", "cc ca", "bb aba"};
    enum { N = sizeof merges / sizeof *merges };
    char list[256] = "";
    for (size_t i = 0; i < N; i++)
        strcat(strcat(list, i ? "," : ""), merges[i]);
    pb_tokenizer *t = open(ALPHABET, "", list, GPT2);
    pb_rng r = pb_rng_make(7, PB_STREAM_TEST, 0);
    for (int k = 0; k < 3000; k++) {
        char text[64] = "", want[256];
        for (size_t i = 0, n = 1 + (size_t)pb_rng_below(&r, 40); i < n; i++)
            text[i] = (char)('a' + pb_rng_below(&r, 3));
        naive(want, text, merges, N);
        becomes(t, text, want);
        becomes(t, text, want); // from the table of latest pieces, if it is short
    }
    pb_tokenizer_close(t);
}

static void test_added(void **state)
{
    (void)state;
    pb_tokenizer *t = open(
        ALPHABET, "", "",
        "{\"pre_tokenizer\":" BYTE_LEVEL(
            "false",
            "true") "," DECODER ",\"added_tokens\":["
                    "{\"id\":256,\"content\":\"<|end|>\",\"special\":true},"
                    "{\"id\":257,\"content\":\"<tool>\",\"special\":false,\"normalized\":false},"
                    "{\"id\":258,\"content\":\"<tool>x\"},"
                    "{\"id\":259,\"content\":\"left\",\"lstrip\":true},"
                    "{\"id\":260,\"content\":\"right\",\"rstrip\":true},"
                    "{\"id\":261,\"content\":\"word\",\"single_word\":true}]}");
    // Text does not become a control token.
    becomes(t, "<|end|>", "<|||e|n|d|||>");
    assert_int_equal(pb_tokenizer_control(t, "<|end|>"), 256);
    assert_int_equal(pb_tokenizer_control(t, "<tool>"), -1);
    becomes(t, "a<tool>b", "a|<tool>|b");
    becomes(t, "<tool>xy", "<tool>x|y"); // the longest
    becomes(t, "a \t left  b", "a|left|\xc4\xa0|\xc4\xa0|b");
    becomes(t, "a right \n b", "a|\xc4\xa0|right|b");
    becomes(t, "word sword words word", "word|\xc4\xa0|s|w|o|r|d|\xc4\xa0|w|o|r|d|s|\xc4\xa0|word");
    becomes(t, "\xc3\xa9word", "\xc3\x83|\xc2\xa9|w|o|r|d");
    decodes(t, "a<tool>xword", false, "a<tool>xword");
    int32_t ids[] = {'a', 256, 258};
    char *text;
    size_t len;
    accept(pb_tokenizer_decode(t, ids, 3, false, &text, &len));
    assert_string_equal(text, "a<tool>x"); // control tokens decode to nothing
    free(text);
    pb_tokenizer_close(t);

    // A normalized one is looked for in the normalized text, in its normalized form.
    t = open(ALPHABET, "", "",
             "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" BYTE_LEVEL(
                 "false", "true") "," DECODER ",\"added_tokens\":[{\"id\":256,\"content\":"
                                  "\"e\\u0301\"},{\"id\":257,\"content\":\"o\\u0301\","
                                  "\"normalized\":false}]}");
    becomes(t, "x\xc3\xa9", "x|e\xcc\x81");
    becomes(t, "xe\xcc\x81", "x|e\xcc\x81");
    becomes(t, "o\xcc\x81", "o\xcc\x81");
    becomes(t, "\xc3\xb3", "\xc3\x83|\xc2\xb3");
    pb_tokenizer_close(t);
}

// ---- SentencePiece-style

#define MARK "\xe2\x96\x81"
#define SP_DECODER                                                                                 \
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"          \
    "{\"String\":\"" MARK "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"                    \
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
#define SP_NORMALIZER                                                                              \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"    \
    "\"" MARK "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK       \
    "\"}]}"
#define SPECIALS                                                                                   \
    "\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":"   \
    "\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}]"
#define SP_MODEL "\"model\":{\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\"}"
#define LLAMA2   "{" SP_NORMALIZER "," SP_DECODER "," SPECIALS "," SP_MODEL "}"

static void test_fallback(void **state)
{
    (void)state;
    pb_tokenizer *t =
        open(FALLBACK, "a b c " MARK, MARK " a,a b," MARK "a b," MARK " " MARK, LLAMA2);
    becomes(t, "ab", MARK "ab");
    becomes(t, "ab ab", MARK "ab|" MARK "ab");
    becomes(t, "  ab", MARK MARK "|" MARK "ab"); // the same with and without cutting before a mark
    becomes(t,
            "\xc3\xa9"
            "ca",
            MARK "|<0xC3>|<0xA9>|c|a");
    becomes(t, "</s>", MARK "|<0x3C>|<0x2F>|<0x73>|<0x3E>");
    becomes(t, "<0x41>", MARK "|<0x3C>|<0x30>|<0x78>|<0x34>|<0x31>|<0x3E>");
    assert_string_equal(tokens_of(t, "ab", 2, true), "ab"); // a later text has no space in front
    loses_nothing(t, false);
    pb_tokenizer_close(t);

    // A merge with a mark inside: words cannot be taken apart.
    t = open(FALLBACK, "a b " MARK, "a " MARK ",a" MARK " b", LLAMA2);
    becomes(t, "a b", MARK "|a" MARK "b");
    pb_tokenizer_close(t);
}

static void test_metaspace(void **state)
{
    (void)state;
    static const struct {
        const char *options, *first, *later;
    } cases[] = {
        {"\"prepend_scheme\":\"always\"", MARK "a|" MARK "b", MARK "a|x|" MARK "b"},
        {"\"prepend_scheme\":\"first\"", MARK "a|" MARK "b", MARK "a|x|b"},
        {"\"prepend_scheme\":\"never\"", "a|" MARK "b", "a|x|b"},
        {"\"add_prefix_space\":false", "a|" MARK "b", "a|x|b"},
        {"\"prepend_scheme\":\"always\",\"split\":false", MARK "a|" MARK "b", MARK "a|x|" MARK "b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rest[1024];
        snprintf(rest, sizeof rest,
                 "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",%s},"
                 "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",%s},"
                 "\"added_tokens\":[{\"id\":265,\"content\":\"x\"}]," SP_MODEL "}",
                 cases[i].options, cases[i].options);
        pb_tokenizer *t =
            open(FALLBACK, "a b " MARK " " MARK "a " MARK "b", MARK " a," MARK " b", rest);
        becomes(t, "a b", cases[i].first);
        becomes(t, "axb", cases[i].later);
        decodes(t, "a b", false, "a b");
        decodes(t, "a b", true, "a b");
        pb_tokenizer_close(t);
    }
}

static void test_unknown(void **state)
{
    (void)state;
    pb_tokenizer *t =
        open(NOTHING, "<unk> a b", "", "{\"model\":{\"unk_token\":\"<unk>\",\"fuse_unk\":true}}");
    becomes(t, "azzb\xc3\xa9", "a|<unk>|b|<unk>");
    pb_tokenizer_close(t);
    t = open(NOTHING, "<unk> a b", "", "{\"model\":{\"unk_token\":\"<unk>\"}}");
    becomes(t, "azzb\xc3\xa9", "a|<unk>|<unk>|b|<unk>");
    pb_tokenizer_close(t);
    t = open(NOTHING, "a b", "", "{}");
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    assert_int_equal(pb_tokenizer_encode(t, "ab\xc3\xa9", 4, false, &ids, &n, &cap),
                     PB_UNSUPPORTED);
    assert_non_null(strstr(pb_error_message(), "the character \"\xc3\xa9\""));
    assert_int_equal(n, 0);
    free(ids);
    pb_tokenizer_close(t);
}

// ---- what stands around the text

static void ends(const char *post, const char *config, int32_t bos, int32_t eos)
{
    char rest[1024];
    snprintf(rest, sizeof rest, "{" SPECIALS "," SP_MODEL "%s%s}",
             *post ? ",\"post_processor\":" : "", post);
    pb_tokenizer *t = open_config(FALLBACK, "", "", rest, config);
    assert_int_equal(pb_tokenizer_bos(t), bos);
    assert_int_equal(pb_tokenizer_eos(t), eos);
    pb_tokenizer_close(t);
}

static void test_ends(void **state)
{
    (void)state;
#define TOKEN(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
#define TEXT        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define POST(list)  "{\"type\":\"TemplateProcessing\",\"single\":[" list "]}"
    ends("", NULL, -1, -1);
    ends(POST(TOKEN("<s>") "," TEXT), NULL, 1, -1);
    ends(POST(TOKEN("<s>") "," TEXT "," TOKEN("</s>")), NULL, 1, 2);
    ends("{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," POST(
             TOKEN("<s>") "," TEXT) "]}",
         "{\"eos_token\":\"</s>\"}", 1, 2);
    ends("{\"type\":\"BertProcessing\",\"sep\":[\"</s>\",2],\"cls\":[\"<s>\",1]}", NULL, 1, 2);
    ends("", "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}", -1, 2);
    ends("", "{\"bos_token\":{\"content\":\"<s>\"},\"add_bos_token\":true}", 1, -1);
    ends("", "{\"bos_token\":null,\"eos_token\":null,\"add_bos_token\":true}", -1, -1);
}

// ---- refusals

static void refuse(base b, const char *tokens, const char *merges, const char *rest, pb_err code,
                   const char *message)
{
    pb_tokenizer *t = NULL;
    json_t *j = make(b, tokens, merges, rest);
    pb_err err = pb_json_tokenizer_parse(&t, j, NULL, 0);
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("%s\n  expected %s, got %s: %s", rest, message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
    json_decref(j);
}

static void refuse_text(const char *text, size_t vocab, pb_err code, const char *message)
{
    pb_tokenizer *t = NULL;
    json_t *j;
    accept(pb_json_parse(&j, text, strlen(text), "the test"));
    pb_err err = pb_json_tokenizer_parse(&t, j, NULL, vocab);
    if (err != code || !strstr(pb_error_message(), message))
        fail_msg("%s\n  expected %s, got %s: %s", text, message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
    json_decref(j);
}

static void test_refusals(void **state)
{
    (void)state;
#define NO PB_UNSUPPORTED
    static const struct {
        const char *rest;
        pb_err code;
        const char *message;
    } cases[] = {
        {"{\"model\":{\"type\":\"WordPiece\"}}", NO, "the model \"WordPiece\""},
        {"{\"model\":{\"type\":\"Unigram\"}}", NO, "the model \"Unigram\""},
        {"{\"model\":{\"dropout\":0.1}}", PB_INPUT, "dropout"},
        {"{\"model\":{\"end_of_word_suffix\":\"</w>\"}}", NO, "end_of_word_suffix \"</w>\""},
        {"{\"model\":{\"continuing_subword_prefix\":\"##\"}}", NO, "\"##\""},
        {"{\"model\":{\"byte_fallback\":true}}", NO, "no token <0x00>"},
        {"{\"model\":{\"unk_token\":\"<none>\"}}", PB_INPUT, "\"<none>\""},
        {"{\"normalizer\":{\"type\":\"Lowercase\"}}", NO, "the normalizer \"Lowercase\""},
        {"{\"normalizer\":{}}", PB_INPUT, "normalizer"},
        {"{\"normalizer\":7}", PB_INPUT, "not an object"},
        {"{\"normalizer\":{\"type\":\"Sequence\"}}", PB_INPUT, "normalizers"},
        {"{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}", NO, "\"BertPreTokenizer\""},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
         "\"Odd\"}}",
         NO, "the behavior \"Odd\""},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{},\"behavior\":\"Removed\"}}",
         PB_INPUT, "neither a String nor a Regex"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":"
         "\"Removed\"}}",
         PB_INPUT, "the regular expression \"(a\""},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":"
         "\"Removed\"}}",
         NO, "intersection"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"},\"behavior\":"
         "\"Removed\"}}",
         PB_INPUT, "0 bytes"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"odd\"}}", NO, "\"odd\""},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}}", PB_INPUT, "empty"},
        {"{\"decoder\":{\"type\":\"WordPiece\"}}", NO, "the decoder \"WordPiece\""},
        {"{\"decoder\":{\"type\":\"ByteLevel\"}}", NO, "no pre-tokenizer is"},
        {"{\"post_processor\":{\"type\":\"Odd\"}}", NO, "the post-processor \"Odd\""},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
         "{\"id\":\"<x>\"}}]}}",
         PB_INPUT, "\"<x>\" is no token"},
        {"{\"added_tokens\":{}}", PB_INPUT, "not a list"},
        {"{\"added_tokens\":[{\"id\":3,\"content\":\"\"}]}", PB_INPUT,
         "the added token 3 is empty"},
        {"{\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}", PB_INPUT, "both have the id 0"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]}", PB_INPUT, "in the vocabulary 0"},
        {"{\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]}", PB_INPUT, "the token \"x\""},
        {"{\"added_tokens\":[{\"id\":9000000,\"content\":\"x\"}]}", PB_INPUT, "9000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(NOTHING, "a b", "", cases[i].rest, cases[i].code, cases[i].message);
    refuse(NOTHING, "a b", "",
           "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL(
               "false", "true") ",{\"type\":\"Digits\"}]}}",
           NO, "the pre-tokenizer Digits stands after ByteLevel");
    refuse(ALPHABET, "", "",
           "{\"pre_tokenizer\":" BYTE_LEVEL("false", "true") ",\"model\":{\"byte_fallback\":true}}",
           NO, "byte_fallback");
    refuse_text("[]", 0, PB_INPUT, "not a JSON object");
    refuse_text("{}", 0, PB_INPUT, "no \"model\"");
    refuse_text("{\"model\":{}}", 0, PB_INPUT, "vocab");
    refuse_text("{\"model\":{\"vocab\":{}}}", 0, PB_INPUT, "0 tokens");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0}}}", 0, PB_INPUT, "merges");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", 0, PB_INPUT, "token \"a\"");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", 0, PB_INPUT,
                "both have the id 0");
    refuse_text("{\"model\":{\"vocab\":{\"a\":100000},\"merges\":[]}}", 0, PB_INPUT,
                "the largest id is 100000");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":7},\"merges\":[]}}", 7, PB_INPUT,
                "outside the model's vocabulary of 7");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", 0, PB_INPUT,
                "merge 0, \"a\" and \"b\"");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", 0, PB_INPUT, "merge 0");
    refuse_text("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", 0, PB_INPUT, "merge 0");
    pb_tokenizer *t;
    assert_int_equal(pb_tokenizer_open(&t, "/nonexistent/tokenizer.json", 0), PB_IO);
    assert_non_null(strstr(pb_error_message(), "/nonexistent/tokenizer.json"));
}

// ---- much text, several threads

static void test_threads(void **state)
{
    (void)state;
    enum { LEN = 200000 };
    pb_tokenizer *t = open(ALPHABET, "", "a b,ab ab,abab abab,b c", GPT2);
    char *text = malloc(LEN);
    pb_rng r = pb_rng_make(9, PB_STREAM_TEST, 0);
    for (size_t i = 0; i < LEN; i++) // half of it one word
        text[i] = i < LEN / 2 ? (char)('a' + i % 2) : "abc  1\n"[pb_rng_below(&r, 7)];
    int32_t *want = NULL;
    size_t n_want = 0, cap_want = 0, wrong = 0;
    accept(pb_tokenizer_encode(t, text, LEN, false, &want, &n_want, &cap_want));
    assert_true(n_want > LEN / 16);
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int k = 0; k < 8; k++) {
        int32_t *ids = NULL;
        size_t n = 0, cap = 0;
        wrong += pb_tokenizer_encode(t, text, LEN, false, &ids, &n, &cap) != PB_OK || n != n_want ||
                 memcmp(ids, want, n * sizeof *ids) != 0;
        free(ids);
    }
    assert_int_equal(wrong, 0);
    free(want);
    free(text);
    pb_tokenizer_close(t);
}

// ---- GPT-2, from its vocabulary and merges

static void test_gpt2(void **state)
{
    (void)state;
    pb_file merges;
    json_t *vocab, *list, *j;
    data_file("tokenizers/gpt2/vocab.json"); // before there is anything to leave behind
    accept(pb_file_map(&merges, data_file("tokenizers/gpt2/vocab.bpe")));
    accept(pb_json_load(&vocab, data_file("tokenizers/gpt2/vocab.json")));
    list = json_array();
    const char *line = (const char *)merges.data, *end = line + merges.size;
    for (const char *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop ? stop : end;
        if (stop > line && memcmp(line, "#v", 2) != 0)
            json_array_append_new(list, json_stringn(line, (size_t)(stop - line)));
    }
    pb_file_unmap(&merges);
    assert_int_equal(json_array_size(list), 50000);
    accept(pb_json_parse(&j, GPT2, strlen(GPT2), "the test"));
    json_object_set_new(
        j, "model", json_pack("{s:s, s:o, s:o}", "type", "BPE", "vocab", vocab, "merges", list));
    json_object_set_new(
        j, "added_tokens",
        json_pack("[{s:i, s:s, s:b}]", "id", 50256, "content", "<|endoftext|>", "special", 1));
    pb_tokenizer *t;
    accept(pb_json_tokenizer_parse(&t, j, NULL, 50257));
    json_decref(j);
    check_vectors(t, "ggml-vocab-gpt-2.gguf");
    loses_nothing(t, false);
    pb_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),    cmocka_unit_test(test_behaviours),
        cmocka_unit_test(test_merges),    cmocka_unit_test(test_against_naive),
        cmocka_unit_test(test_added),     cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_metaspace), cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_ends),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_gpt2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
