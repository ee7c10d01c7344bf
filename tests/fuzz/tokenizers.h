// tokenizer.model and tokenizer.json for targets.h: small valid files, and what the readers must
// keep. An input is a byte, the length of the text at its end; the file; the text.
#ifndef PB_FUZZ_TOKENIZERS_H
#define PB_FUZZ_TOKENIZERS_H

#include "fuzz/targets.h"
#include "model/tokenizer_impl.h"

// ---- protobuf

typedef struct proto {
    uint8_t *out;
    size_t cap, at;
} proto;

static inline void proto_varint(proto *p, uint64_t v)
{
    for (; v > 127; v >>= 7)
        seed_put(p->out, p->cap, &p->at, &(uint8_t){(uint8_t)(v | 128)}, 1);
    seed_put(p->out, p->cap, &p->at, &(uint8_t){(uint8_t)v}, 1);
}

static inline void proto_int(proto *p, uint32_t field, uint64_t v)
{
    proto_varint(p, (uint64_t)field << 3);
    proto_varint(p, v);
}

static inline void proto_block(proto *p, uint32_t field, const void *data, size_t size)
{
    proto_varint(p, (uint64_t)field << 3 | 2);
    proto_varint(p, size);
    seed_put(p->out, p->cap, &p->at, data, size);
}

static inline void proto_float(proto *p, uint32_t field, float v)
{
    proto_varint(p, (uint64_t)field << 3 | 5);
    seed_put(p->out, p->cap, &p->at, &v, sizeof v);
}

enum { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER, SPM_UNUSED, SPM_BYTE };
enum { SPM_UNIGRAM = 1, SPM_BPE = 2 };

static inline void spm_piece(proto *p, const char *text, float score, int kind)
{
    uint8_t body[5000];
    proto inner = {body, sizeof body, 0};
    proto_block(&inner, 1, text, strlen(text));
    proto_float(&inner, 2, score);
    if (kind != SPM_NORMAL)
        proto_int(&inner, 3, (uint64_t)kind);
    proto_block(p, 1, body, inner.at);
}

static inline void spm_bytes(proto *p)
{
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        spm_piece(p, name, 0, SPM_BYTE);
    }
}

// <unk> <s> </s>, and the bytes if wanted.
static inline void spm_begin(proto *p, bool bytes)
{
    spm_piece(p, "<unk>", 0, SPM_UNKNOWN);
    spm_piece(p, "<s>", 0, SPM_CONTROL);
    spm_piece(p, "</s>", 0, SPM_CONTROL);
    if (bytes)
        spm_bytes(p);
}

static inline void spm_trainer(proto *p, int type, bool bytes)
{
    uint8_t body[64];
    proto inner = {body, sizeof body, 0};
    proto_int(&inner, 3, (uint64_t)type);
    proto_int(&inner, 35, bytes);
    proto_block(p, 2, body, inner.at);
}

static inline void spm_normalizer(proto *p, bool prefix, bool squeeze, bool escape,
                                  const void *charsmap, size_t size)
{
    uint8_t body[2048];
    proto inner = {body, sizeof body, 0};
    proto_block(&inner, 1, "test", 4);
    if (size)
        proto_block(&inner, 2, charsmap, size);
    proto_int(&inner, 3, prefix);
    proto_int(&inner, 4, squeeze);
    proto_int(&inner, 5, escape);
    proto_block(p, 3, body, inner.at);
}

// A character map: "A" becomes "a", and "\t" nothing. Its double array has a unit for the root,
// whose children lie at 1 ^ 0 ^ byte, and for each of them one with the value at (its own) ^ 2.
static inline size_t spm_charsmap(uint8_t *out, size_t cap)
{
    enum { UNITS = 256 };
    uint32_t units[UNITS] = {0}, size = sizeof units;
    static const char strings[] = "a\0"; // two texts, "a" and ""
    const struct {
        uint8_t byte;
        uint32_t value;
    } rules[] = {{'A', 0}, {'\t', 1}};
    units[0] = 1u << 10;
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = 1u ^ rules[i].byte;
        units[at] = 2u << 10 | 1u << 8 | rules[i].byte;
        units[at ^ 2u] = 1u << 31 | rules[i].value;
    }
    size_t at = 0;
    seed_put(out, cap, &at, &size, sizeof size);
    seed_put(out, cap, &at, units, sizeof units);
    seed_put(out, cap, &at, strings, sizeof strings);
    return at;
}

#define SPM_MARK "\xe2\x96\x81"

static inline size_t seed_spm_file(uint8_t *out, size_t cap, int variant)
{
    static const char *const pieces[] = {
        SPM_MARK,          "a",           "b", "c",  "ab", "bc",       SPM_MARK "a",
        SPM_MARK SPM_MARK, SPM_MARK "ab", "A", "ca", "aa", "\xc3\xa9", "abc"};
    proto p = {out, cap, 0};
    bool bytes = variant % 2 == 0;
    uint8_t map[2048];
    size_t size = variant == 3 ? spm_charsmap(map, sizeof map) : 0;
    spm_begin(&p, bytes);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        spm_piece(&p, pieces[i], -(float)((i * 5) % 14) - 1,
                  variant == 2 && i == 4 ? SPM_UNUSED : SPM_NORMAL);
    if (variant >= 2)
        spm_piece(&p, "<u>", 0, SPM_USER);
    spm_trainer(&p, variant == 0 || variant == 2 ? SPM_BPE : SPM_UNIGRAM, bytes);
    spm_normalizer(&p, variant != 2, variant % 2, true, map, size);
    return p.at;
}

static inline size_t seed_with_text(uint8_t *out, size_t cap, size_t n_file, const char *text)
{
    size_t at = 1 + n_file;
    out[0] = (uint8_t)strlen(text);
    seed_put(out, cap, &at, text, strlen(text));
    return at;
}

static inline size_t seed_spm(uint8_t *out, size_t cap, int variant)
{
    return seed_with_text(out, cap, seed_spm_file(out + 1, cap - 1, variant % 4),
                          " abc  <u>aab Ab\t\xc3\xa9\xff z");
}

// Encoding gives ids of tokens, or an error; decoding those gives some text.
static inline void target_encode(const pb_tokenizer *t, const char *text, size_t len, bool exact)
{
    for (int continues = 0; continues < 2; continues++) {
        int32_t *ids = NULL;
        size_t n = 0, cap = 0, n_back, n_name;
        char *back;
        const char *name;
        if (target_refused(pb_tokenizer_encode(t, text, len, continues, &ids, &n, &cap))) {
            REQUIRE(n == 0);
            free(ids);
            continue;
        }
        for (size_t i = 0; i < n; i++)
            REQUIRE(pb_tokenizer_token(t, ids[i], &name, &n_name) != PB_TOKEN_NONE);
        REQUIRE(!pb_tokenizer_decode(t, ids, n, continues, &back, &n_back));
        REQUIRE(back[n_back] == 0);
        if (exact)
            REQUIRE(n_back == len && memcmp(back, text, len) == 0);
        free(back);
        free(ids);
    }
}

// The parts of an input.
static inline bool target_parts(const uint8_t *data, size_t size, size_t *n_file, const char **text,
                                size_t *len)
{
    if (size < 1)
        return false;
    *len = data[0] < size - 1 ? data[0] : size - 1;
    *n_file = size - 1 - *len;
    *text = (const char *)data + size - *len;
    return true;
}

static inline bool target_spm(const uint8_t *data, size_t size)
{
    size_t n_file, len;
    const char *text;
    pb_tokenizer *t = NULL;
    if (!target_parts(data, size, &n_file, &text, &len) ||
        target_refused(pb_spm_open(&t, target_file(data + 1, n_file), 0)))
        return false;
    target_encode(t, text, len, false);
    pb_tokenizer_close(t);
    return true;
}

// ---- tokenizer.json

// The vocabulary of a byte-level tokenizer, its merges, and what follows.
static inline void json_alphabet(uint8_t *out, size_t cap, size_t *at)
{
    int other = 256;
    for (int b = 0; b < 256; b++) {
        char s[32];
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        int c = printable ? b : other++;
        if (c == '"' || c == '\\')
            snprintf(s, sizeof s, "\"\\%c\":%d,", c, b);
        else if (c < 128)
            snprintf(s, sizeof s, "\"%c\":%d,", c, b);
        else
            snprintf(s, sizeof s, "\"%c%c\":%d,", 0xc0 | c >> 6, 0x80 | (c & 63), b);
        seed_put(out, cap, at, s, strlen(s));
    }
}

static inline void json_bytes(uint8_t *out, size_t cap, size_t *at)
{
    for (int b = 0; b < 256; b++) {
        char s[32];
        snprintf(s, sizeof s, "\"<0x%02X>\":%d,", (unsigned)b, b);
        seed_put(out, cap, at, s, strlen(s));
    }
}

static const char json_head[] =
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":"
    "{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{";

static inline size_t seed_json(uint8_t *out, size_t cap, int variant)
{
    static const char *const heads[] = {
        json_head,
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
        "\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
        "\"\xe2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":"
        "\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":"
        "\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,"
        "\"stop\":0}]},\"model\":{\"byte_fallback\":true,\"vocab\":{",
        "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ?\\\\p{L}+|\\\\s+\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"Digits\",\"individual_digits\":"
        "true},{\"type\":\"ByteLevel\",\"use_regex\":false}]},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},\"model\":{\"ignore_merges\":true,"
        "\"vocab\":{",
        "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},\"decoder\":"
        "{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},\"model\":{\"unk_token\":\"a\","
        "\"fuse_unk\":true,\"vocab\":{"};
    static const char *const tails[] = {
        "\"ab\":256,\"abc\":257,\"bc\":258},\"merges\":[\"a b\",\"ab c\",[\"b\",\"c\"]]},"
        "\"added_tokens\":[{\"id\":259,\"content\":\"<s>\",\"special\":true},"
        "{\"id\":260,\"content\":\"xy\",\"single_word\":true}]}",
        "\"\xe2\x96\x81\":256,\"a\":257,\"\xe2\x96\x81"
        "a\":258},\"merges\":[\"\xe2\x96\x81 a\"]}}",
        "\"ab\":256,\"abc\":257},\"merges\":[\"a b\"]},\"added_tokens\":[{\"id\":258,\"content\":"
        "\"<s>\",\"special\":true},{\"id\":259,\"content\":\"e\\u0301\",\"lstrip\":true,"
        "\"rstrip\":true}]}",
        "\"a\":0,\"b\":1,\"\xe2\x96\x81\":2,\"ab\":3,\"\xe2\x96\x81"
        "ab\":4},\"merges\":[[\"a\",\"b\"],[\"\xe2\x96\x81\",\"ab\"]]}}"};
    size_t at = 1;
    variant %= 4;
    seed_put(out, cap, &at, heads[variant], strlen(heads[variant]));
    if (variant == 0 || variant == 2)
        json_alphabet(out, cap, &at);
    else if (variant == 1)
        json_bytes(out, cap, &at);
    seed_put(out, cap, &at, tails[variant], strlen(tails[variant]));
    return seed_with_text(out, cap, at - 1, "abc  xy 12 e\xcc\x81\xff <s>\n a");
}

// A byte-level tokenizer of which the vocabulary, the merges and the added tokens are anything
// loses nothing of a text that it encodes.
static inline bool target_json(const uint8_t *data, size_t size)
{
    size_t n_file, len, n_head = sizeof json_head - 1;
    const char *text;
    json_t *j;
    pb_tokenizer *t = NULL;
    if (!target_parts(data, size, &n_file, &text, &len) ||
        target_refused(pb_json_parse(&j, (const char *)data + 1, n_file, "input")))
        return false;
    bool refused = target_refused(pb_json_tokenizer_parse(&t, j, NULL, 0));
    json_decref(j);
    if (refused)
        return false;
    bool exact = n_file > n_head && memcmp(data + 1, json_head, n_head) == 0;
    static const char *const lossy[] = {"strip", "normalizer", "\\u"};
    for (size_t i = 0; i < sizeof lossy / sizeof *lossy; i++)
        exact = exact && !memmem(data + 1, n_file, lossy[i], strlen(lossy[i]));
    target_encode(t, text, len, exact);
    pb_tokenizer_close(t);
    return true;
}

#endif
