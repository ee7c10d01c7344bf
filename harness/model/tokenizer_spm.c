// SentencePiece: its tokenizer.model, and llama2.c's tokenizer.bin, which holds the same pieces.
//
// Encoding is SentencePiece's own. The text is normalised: longest matches of the character map are
// replaced, invalid bytes become U+FFFD, spaces are squeezed (if the model wants that), a space is
// put in front and spaces become U+2581. User-defined pieces in it stand for themselves, the
// longest first. Then
// - BPE: the neighbours whose union is the piece of highest score (leftmost on a tie) are merged
//   until none can be, from characters on. A heap of candidates makes that O(n log n): a candidate
//   whose symbols have changed since it was pushed is dropped when it comes up.
// - unigram: the pieces with the largest sum of scores (pieces.h).
// What is no piece becomes its bytes, or one unknown token for a run of it. Control tokens and
// bytes never take part, so text cannot spell them.
//
// tokenizer.model is a protobuf: pieces = 1 {text 1, score 2, kind 3}, trainer = 2, normaliser = 3.
// tokenizer.bin: int32 longest piece, then per token a float score, an int32 length and that many
// bytes. Ids 0, 1, 2 are unknown, BOS, EOS; ids 3..258 are the bytes, written "<0x00>".."<0xFF>";
// the rest are pieces, with a space where SentencePiece has U+2581. Its text is normalised by the
// space in front alone.
// Sources: google/sentencepiece, src/sentencepiece_model.proto; karpathy/llama2.c, tokenizer.py.
#include "model/charsmap.h"
#include "model/pieces.h"
#include "model/tokenizer_impl.h"

#include "core/file.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { BIN_BOS = 1, BIN_EOS = 2, BIN_BYTE = 3, BIN_PIECE = BIN_BYTE + 256, MAX_PIECE = 4096 };

typedef enum kind { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE } kind; // as in the file
typedef enum algorithm { UNIGRAM = 1, BPE, WORD, CHAR } algorithm;           // likewise

typedef struct piece {
    const char *text; // into the file's mapping, not terminated
    uint32_t len;
    float score;
    kind kind;
    uint8_t byte; // that a byte stands for
} piece;

typedef struct spm {
    pb_tokenizer base;
    pb_file file;
    algorithm algorithm;
    piece *pieces;   // (tokens)
    pb_trie trie;    // of the pieces that text can spell
    double *path;    // (tokens) the unigram model's scores
    double unk_path; // and that of an unknown character
    int32_t unk;     // id
    int32_t bytes[256];
    bool byte_fallback, user, unused; // whether there are such pieces
    bool valid;                       // invalid UTF-8 is replaced
    bool dummy_prefix, squeeze;
    bool escape; // spaces are written as U+2581
    pb_charsmap map;
    const char *unk_text; // what an unknown token decodes to
    size_t unk_len;
} spm;

static const char underline[] = "\xe2\x96\x81", replacement[] = "\xef\xbf\xbd";

// The fields of a protobuf message.
typedef struct wire {
    const uint8_t *at, *end;
} wire;

typedef enum wire_type { VARINT = 0, FIXED64 = 1, BLOCK = 2, FIXED32 = 5 } wire_type;

typedef struct field {
    uint32_t number;
    wire_type type;
    uint64_t value; // of a VARINT, FIXED32 or FIXED64
    wire block;
} field;

static pb_err damaged(const char *what)
{
    return pb_fail(PB_INPUT, "the file may be truncated, or of another format",
                   "its protobuf has %s", what);
}

static pb_err read_varint(wire *w, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end)
            return damaged("a number that goes on after the end");
        uint8_t b = *w->at++;
        if (shift == 63 && b > 1)
            break;
        *value |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return PB_OK;
    }
    return damaged("a number of more than 64 bits");
}

static pb_err read_fixed(wire *w, size_t bytes, uint64_t *value)
{
    if ((size_t)(w->end - w->at) < bytes)
        return damaged("a number that goes on after the end");
    *value = 0;
    for (size_t i = 0; i < bytes; i++)
        *value |= (uint64_t)*w->at++ << 8 * i;
    return PB_OK;
}

static pb_err read_field(wire *w, field *f)
{
    uint64_t key;
    PB_TRY(read_varint(w, &key));
    if (key >> 3 == 0 || key >> 3 >= 1 << 29)
        return damaged("a field whose number is not 1..2^29-1");
    *f = (field){.number = (uint32_t)(key >> 3), .type = (wire_type)(key & 7)};
    switch (f->type) {
    case VARINT:
        return read_varint(w, &f->value);
    case FIXED64:
        return read_fixed(w, 8, &f->value);
    case FIXED32:
        return read_fixed(w, 4, &f->value);
    case BLOCK:
        PB_TRY(read_varint(w, &f->value));
        if (f->value > (uint64_t)(w->end - w->at))
            return damaged("a field that goes on after the end");
        f->block = (wire){w->at, w->at + f->value};
        w->at += f->value;
        return PB_OK;
    }
    return damaged("a field of a kind that is none");
}

static pb_err need(const field *f, wire_type type, const char *name)
{
    if (f->type != type)
        return pb_fail(PB_INPUT, "is it a SentencePiece model?", "its %s has the wire type %d",
                       name, (int)f->type);
    return PB_OK;
}

static pb_err read_bool(const field *f, const char *name, bool *value)
{
    PB_TRY(need(f, VARINT, name));
    *value = f->value != 0;
    return PB_OK;
}

static pb_err read_piece(piece *p, size_t id, wire w)
{
    field f;
    *p = (piece){.text = "", .kind = NORMAL};
    while (w.at < w.end) {
        PB_TRY(read_field(&w, &f));
        if (f.number == 1) {
            PB_TRY(need(&f, BLOCK, "piece"));
            if (f.value > MAX_PIECE)
                return pb_fail(PB_UNSUPPORTED, NULL, "piece %zu has %llu bytes, more than %d", id,
                               (unsigned long long)f.value, MAX_PIECE);
            p->text = (const char *)f.block.at;
            p->len = (uint32_t)f.value;
        } else if (f.number == 2) {
            PB_TRY(need(&f, FIXED32, "score"));
            uint32_t bits = (uint32_t)f.value;
            memcpy(&p->score, &bits, sizeof bits);
            if (!isfinite(p->score))
                return pb_fail(PB_INPUT, NULL, "piece %zu has the score %g", id, (double)p->score);
        } else if (f.number == 3) {
            PB_TRY(need(&f, VARINT, "piece type"));
            if (f.value < NORMAL || f.value > BYTE)
                return pb_fail(PB_UNSUPPORTED, NULL, "piece %zu has the unknown type %llu", id,
                               (unsigned long long)f.value);
            p->kind = (kind)f.value;
        }
    }
    if (p->len == 0)
        return pb_fail(PB_INPUT, NULL, "piece %zu is empty", id);
    return PB_OK;
}

static pb_err read_trainer(spm *t, wire w, int32_t *bos, int32_t *eos)
{
    static const char *const names[] = {[WORD] = "words", [CHAR] = "characters"};
    field f;
    while (w.at < w.end) {
        PB_TRY(read_field(&w, &f));
        bool suffix = false;
        switch (f.number) {
        case 3:
            PB_TRY(need(&f, VARINT, "model_type"));
            if (f.value == WORD || f.value == CHAR)
                return pb_fail(PB_UNSUPPORTED, "BPE and unigram models are read",
                               "it is a model of %s", names[f.value]);
            if (f.value != UNIGRAM && f.value != BPE)
                return pb_fail(PB_UNSUPPORTED, "BPE and unigram models are read",
                               "it has the unknown model type %llu", (unsigned long long)f.value);
            t->algorithm = (algorithm)f.value;
            break;
        case 24:
            PB_TRY(read_bool(&f, "treat_whitespace_as_suffix", &suffix));
            if (suffix)
                return pb_fail(PB_UNSUPPORTED, NULL, "it has treat_whitespace_as_suffix");
            break;
        case 35:
            PB_TRY(read_bool(&f, "byte_fallback", &t->byte_fallback));
            break;
        case 41:
        case 42:
            PB_TRY(need(&f, VARINT, f.number == 41 ? "bos_id" : "eos_id"));
            *(f.number == 41 ? bos : eos) = (int32_t)(uint32_t)f.value;
            break;
        case 44:
            PB_TRY(need(&f, BLOCK, "unk_surface"));
            t->unk_text = (const char *)f.block.at;
            t->unk_len = (size_t)f.value;
            break;
        }
    }
    return PB_OK;
}

static pb_err read_normalizer(spm *t, wire w)
{
    field f;
    while (w.at < w.end) {
        PB_TRY(read_field(&w, &f));
        switch (f.number) {
        case 2:
            PB_TRY(need(&f, BLOCK, "precompiled_charsmap"));
            t->map = (pb_charsmap){0};
            if (f.value > 0)
                PB_TRY(pb_charsmap_open(&t->map, f.block.at, (size_t)f.value));
            break;
        case 3:
            PB_TRY(read_bool(&f, "add_dummy_prefix", &t->dummy_prefix));
            break;
        case 4:
            PB_TRY(read_bool(&f, "remove_extra_whitespaces", &t->squeeze));
            break;
        case 5:
            PB_TRY(read_bool(&f, "escape_whitespaces", &t->escape));
            break;
        }
    }
    return PB_OK;
}

static pb_err refuse_denormalizer(wire w)
{
    field f;
    while (w.at < w.end) {
        PB_TRY(read_field(&w, &f));
        if (f.number == 2 && f.type == BLOCK && f.value > 0)
            return pb_fail(PB_UNSUPPORTED, NULL, "it has a denormalizer");
    }
    return PB_OK;
}

// The byte that "<0x41>" stands for, or -1.
static int byte_of(const char *text, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4])
        return -1;
    const char *high = strchr(digits, text[3]), *low = strchr(digits, text[4]);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

static pb_err no_memory(size_t tokens)
{
    return pb_fail(PB_MEMORY, NULL, "no memory for a vocabulary of %zu", tokens);
}

// What encoding needs, from the pieces.
static pb_err index_pieces(spm *t, int32_t *twice)
{
    size_t n = 0;
    float least = FLT_MAX, most = FLT_MIN; // SentencePiece starts from the smallest positive number
    pb_piece *spelled = malloc(t->base.tokens * sizeof *spelled);
    t->path = malloc(t->base.tokens * sizeof *t->path);
    if (!spelled || !t->path) {
        free(spelled);
        return no_memory(t->base.tokens);
    }
    for (size_t id = 0; id < t->base.tokens; id++) {
        const piece *p = &t->pieces[id];
        if (p->kind == BYTE)
            t->bytes[p->byte] = (int32_t)id;
        if (p->kind == NORMAL) {
            least = fminf(least, p->score);
            most = fmaxf(most, p->score);
        }
        t->user |= p->kind == USER;
        t->unused |= p->kind == UNUSED;
        if (p->kind != UNKNOWN && p->kind != CONTROL && p->kind != BYTE && p->len > 0)
            spelled[n++] = (pb_piece){p->text, p->len, (int32_t)id};
    }
    // A user-defined piece nearly always wins: its score grows with its length.
    for (size_t id = 0; id < t->base.tokens; id++) {
        const piece *p = &t->pieces[id];
        t->path[id] = p->kind == USER ? (float)p->len * most - 0.1 : p->score;
    }
    t->unk_path = least - 10.f;
    pb_err err = pb_trie_build(&t->trie, spelled, n, twice);
    free(spelled);
    return err;
}

static pb_err check_byte(const piece *p, size_t id, size_t byte)
{
    if (byte_of(p->text, p->len) != (int)byte)
        return pb_fail(PB_UNSUPPORTED, "train the tokenizer with byte fallback",
                       "token %zu is \"%.*s\", not the byte <0x%02zX>", id,
                       (int)(p->len < 32 ? p->len : 32), p->text, byte);
    return PB_OK;
}

// Reads the pieces of a tokenizer.bin and checks that it ends with the last one.
static pb_err read_bin_pieces(spm *t)
{
    const uint8_t *data = t->file.data;
    size_t at = 0, size = t->file.size;
    int32_t longest = 0;
    memcpy(&longest, data, sizeof longest);
    at += sizeof longest;
    for (size_t id = 0; id < t->base.tokens; id++) {
        piece *p = &t->pieces[id];
        int32_t len;
        if (size - at < sizeof p->score + sizeof len)
            return pb_fail(PB_INPUT, "is it the tokenizer of this model? It may be truncated",
                           "it ends at token %zu of a vocabulary of %zu", id, t->base.tokens);
        memcpy(&p->score, data + at, sizeof p->score);
        memcpy(&len, data + at + sizeof p->score, sizeof len);
        at += sizeof p->score + sizeof len;
        if (!isfinite(p->score))
            return pb_fail(PB_INPUT, NULL, "token %zu has the score %g", id, (double)p->score);
        if (len < 0 || len > longest || (size_t)len > size - at)
            return pb_fail(PB_INPUT, NULL,
                           "token %zu has the length %d (longest allowed %d, %zu bytes left)", id,
                           len, longest, size - at);
        p->text = (const char *)data + at;
        p->len = (uint32_t)len;
        p->kind = id == 0 ? UNKNOWN : id < BIN_BYTE ? CONTROL : id < BIN_PIECE ? BYTE : NORMAL;
        at += p->len;
        if (p->kind == BYTE) {
            p->byte = (uint8_t)(id - BIN_BYTE);
            PB_TRY(check_byte(p, id, p->byte));
        }
    }
    if (at != size)
        return pb_fail(PB_INPUT, "is it the tokenizer of this model?",
                       "%zu bytes follow the last token of a vocabulary of %zu", size - at,
                       t->base.tokens);
    return PB_OK;
}

// As many tokens as lengths lead through the file.
static size_t count_bin_pieces(const pb_file *f)
{
    size_t n = 0;
    for (size_t at = 4; at < f->size && f->size - at >= 8; n++) {
        int32_t len;
        memcpy(&len, f->data + at + 4, sizeof len);
        at += 8;
        if (len < 0 || (size_t)len > f->size - at)
            break;
        at += (size_t)len;
    }
    return n;
}

static pb_err open_bin(spm *t, const char *path, size_t vocab)
{
    if (vocab && (vocab < BIN_PIECE || vocab > PB_MAX_TOKENS))
        return pb_fail(PB_INPUT, "the first 259 tokens are three control tokens and the bytes",
                       "the vocabulary is %zu, outside %d..%d", vocab, BIN_PIECE, PB_MAX_TOKENS);
    PB_TRY(pb_file_map(&t->file, path));
    if (t->file.size < 4)
        return pb_fail(PB_INPUT, "the file may be truncated", "%zu bytes are too few",
                       t->file.size);
    // A token takes 8 bytes at least: a vocabulary that cannot be there gets no memory.
    if (t->file.size / 8 < vocab)
        return pb_fail(PB_INPUT, "is it the tokenizer of this model? It may be truncated",
                       "%zu bytes cannot hold a vocabulary of %zu", t->file.size, vocab);
    size_t tokens = vocab ? vocab : count_bin_pieces(&t->file);
    if (tokens < BIN_PIECE)
        return pb_fail(PB_INPUT, "the file may be truncated", "%zu tokens are less than %d", tokens,
                       BIN_PIECE);
    PB_TRY(pb_tokenizer_size(&t->base, tokens, vocab));
    t->pieces = calloc(tokens, sizeof *t->pieces);
    if (!t->pieces)
        return no_memory(tokens);
    PB_TRY(read_bin_pieces(t));
    t->algorithm = BPE;
    t->byte_fallback = t->dummy_prefix = true;
    t->unk_text = "";
    t->base.bos = BIN_BOS;
    t->base.eos = BIN_EOS;
    return index_pieces(t, NULL);
}

// Bytes there are all of, or none; one unknown piece.
static pb_err check_kinds(spm *t)
{
    size_t n_bytes = 0;
    bool seen[256] = {0};
    t->unk = -1;
    for (size_t id = 0; id < t->base.tokens; id++) {
        piece *p = &t->pieces[id];
        if (p->kind == UNKNOWN) {
            if (t->unk >= 0)
                return pb_fail(PB_INPUT, NULL, "the pieces %d and %zu are both unknown", t->unk,
                               id);
            t->unk = (int32_t)id;
        } else if (p->kind == BYTE) {
            int byte = byte_of(p->text, p->len);
            if (byte < 0 || seen[byte] || !t->byte_fallback)
                return pb_fail(PB_INPUT, NULL, "piece %zu, \"%.*s\", %s", id,
                               (int)(p->len < 32 ? p->len : 32), p->text,
                               byte < 0           ? "is no byte"
                               : t->byte_fallback ? "is a byte that was there before"
                                                  : "is a byte, and there is no byte fallback");
            seen[byte] = true;
            p->byte = (uint8_t)byte;
            n_bytes++;
        }
    }
    if (t->unk < 0)
        return pb_fail(PB_INPUT, NULL, "no piece is the unknown one");
    if (t->byte_fallback && n_bytes < 256)
        return pb_fail(PB_INPUT, NULL, "it falls back to bytes and has only %zu of 256", n_bytes);
    return PB_OK;
}

// `id` must be a control token; `standard` is what a file without this field means, if it is one.
static pb_err set_control(const spm *t, const char *name, int32_t id, int32_t standard,
                          int32_t *out)
{
    bool given = id != INT32_MIN;
    if (!given)
        id = standard;
    *out = -1;
    if (id >= 0 && (size_t)id < t->base.tokens && t->pieces[id].kind == CONTROL)
        *out = id;
    else if (given && id != -1)
        return pb_fail(PB_INPUT, NULL, "its %s is %d, which is no control token", name, id);
    return PB_OK;
}

static pb_err open_model(spm *t, const char *path, size_t vocab)
{
    field f;
    size_t tokens = 0, id = 0;
    int32_t bos = INT32_MIN, eos = INT32_MIN, twice;
    PB_TRY(pb_file_map(&t->file, path));
    if (t->file.size == 0)
        return pb_fail(PB_INPUT, "the file may be truncated", "it is empty");
    const wire whole = {t->file.data, t->file.data + t->file.size};
    for (wire w = whole; w.at < w.end;) {
        PB_TRY(read_field(&w, &f));
        tokens += f.number == 1;
    }
    PB_TRY(pb_tokenizer_size(&t->base, tokens, vocab));
    t->pieces = calloc(tokens, sizeof *t->pieces);
    if (!t->pieces)
        return no_memory(tokens);
    t->algorithm = UNIGRAM;
    t->valid = t->dummy_prefix = t->squeeze = t->escape = true;
    t->unk_text = " \xe2\x81\x87 ";
    t->unk_len = strlen(t->unk_text);
    for (wire w = whole; w.at < w.end;) {
        PB_TRY(read_field(&w, &f));
        if (f.number <= 5)
            PB_TRY(need(&f, BLOCK, "message"));
        if (f.number == 1)
            PB_TRY(read_piece(&t->pieces[id], id, f.block));
        if (f.number == 2)
            PB_TRY(read_trainer(t, f.block, &bos, &eos));
        if (f.number == 3)
            PB_TRY(read_normalizer(t, f.block));
        if (f.number == 5)
            PB_TRY(refuse_denormalizer(f.block));
        id += f.number == 1;
    }
    PB_TRY(check_kinds(t));
    PB_TRY(set_control(t, "bos_id", bos, 1, &t->base.bos));
    PB_TRY(set_control(t, "eos_id", eos, 2, &t->base.eos));
    PB_TRY(index_pieces(t, &twice));
    if (twice >= 0)
        return pb_fail(PB_INPUT, NULL, "piece %d, \"%.*s\", was there before", twice,
                       (int)t->pieces[twice].len, t->pieces[twice].text);
    return PB_OK;
}

static void spm_free(pb_tokenizer *base)
{
    spm *t = (spm *)base;
    free(t->pieces);
    free(t->path);
    pb_trie_free(&t->trie);
    pb_file_unmap(&t->file);
    free(t);
}

// Length of the longest user-defined piece at the start of the text, or 0.
static size_t user_piece(const spm *t, const char *text, size_t len, int32_t *id)
{
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; t->user && i < len; i++) {
        node = pb_trie_step(&t->trie, node, text[i]);
        if (node == 0)
            break;
        if (t->trie.id[node] >= 0 && t->pieces[t->trie.id[node]].kind == USER) {
            longest = i + 1;
            *id = t->trie.id[node];
        }
    }
    return longest;
}

// What the start of the text is replaced by; returns how much of the text that is.
static size_t normal_prefix(const spm *t, const char *text, size_t len, const char **by,
                            size_t *by_len)
{
    int32_t id, code;
    size_t n = user_piece(t, text, len, &id);
    *by = text;
    *by_len = n;
    if (n > 0)
        return n;
    n = pb_charsmap_match(&t->map, text, len, by);
    if (n > 0) {
        *by_len = strlen(*by);
        return n;
    }
    size_t width = pb_character(text, len);
    utf8proc_ssize_t valid =
        utf8proc_iterate((const uint8_t *)text, (utf8proc_ssize_t)width, &code);
    if (valid > 0) {
        *by_len = (size_t)valid;
        return *by_len;
    }
    *by = replacement;
    *by_len = strlen(replacement);
    return 1;
}

static const char *space(const spm *t)
{
    return t->escape ? underline : " ";
}

static pb_err append(const spm *t, pb_text *out, const char *text, size_t len)
{
    if (len > PB_MAX_TEXT - out->n)
        return pb_fail(PB_UNSUPPORTED, "encode it in parts",
                       "the normalised text is longer than %zu bytes", PB_MAX_TEXT);
    for (size_t from = 0; t->escape && from < len;) {
        const char *blank = memchr(text + from, ' ', len - from);
        size_t plain = blank ? (size_t)(blank - text) - from : len - from;
        PB_TRY(pb_text_append(out, text + from, plain));
        if (blank)
            PB_TRY(pb_text_append(out, underline, strlen(underline)));
        from += plain + 1;
    }
    return t->escape ? PB_OK : pb_text_append(out, text, len);
}

// Appends the normalised text.
static pb_err normalize(const spm *t, const char *text, size_t len, bool continues, pb_text *out)
{
    const char *by;
    size_t at = 0, by_len;
    if (t->squeeze && !continues)
        while (at < len) {
            size_t n = normal_prefix(t, text + at, len - at, &by, &by_len);
            if (by_len != 1 || *by != ' ')
                break;
            at += n;
        }
    if (at == len)
        return PB_OK;
    if (t->dummy_prefix && !continues)
        PB_TRY(append(t, out, " ", 1));
    if (!t->valid)
        return append(t, out, text, len);
    bool after_space = t->squeeze && !continues;
    while (at < len) {
        at += normal_prefix(t, text + at, len - at, &by, &by_len);
        while (after_space && by_len > 0 && *by == ' ') {
            by++;
            by_len--;
        }
        if (by_len == 0)
            continue;
        PB_TRY(append(t, out, by, by_len));
        after_space = t->squeeze && by[by_len - 1] == ' ';
    }
    size_t blank = strlen(space(t));
    while (t->squeeze && out->n >= blank && !memcmp(out->v + out->n - blank, space(t), blank))
        out->n -= blank;
    return PB_OK;
}

// What a text has become so far.
typedef struct writer {
    const spm *t;
    pb_ids *out;
    bool after_unknown;
} writer;

// Writes the token of this part of the text: itself, its bytes, or unknown.
static pb_err put(writer *w, const char *text, size_t len, int32_t id)
{
    const spm *t = w->t;
    bool unknown = id < 0 || t->pieces[id].kind == UNKNOWN;
    if (unknown && t->byte_fallback) {
        for (size_t i = 0; i < len; i++)
            PB_TRY(pb_ids_push(w->out, t->bytes[(uint8_t)text[i]]));
    } else if (!unknown || !w->after_unknown) {
        PB_TRY(pb_ids_push(w->out, unknown ? t->unk : id));
    }
    w->after_unknown = unknown;
    return PB_OK;
}

// A text being merged. A symbol is known by the position of its first byte.
typedef struct symbol {
    uint32_t len;  // 0 when it was merged into its left neighbour
    uint32_t prev; // position of the left neighbour; NONE for the first symbol
    int32_t id;    // -1 for a character that is no piece
    bool frozen;   // user-defined: never merged
} symbol;

typedef struct candidate {
    float score;
    uint32_t left, len; // position of the left symbol, length of both together
    int32_t id;
} candidate;

typedef struct merger {
    const spm *t;
    const char *text;
    size_t len;
    symbol *symbols; // (len)
    candidate *heap;
    size_t n, cap;
    uint32_t *split; // (tokens) for unused pieces: length of the left part when last considered
} merger;

#define NONE UINT32_MAX

static bool before(const candidate *a, const candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static pb_err push(merger *m, candidate c)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        candidate *heap = realloc(m->heap, cap * sizeof *heap);
        if (!heap)
            return pb_fail(PB_MEMORY, NULL, "no memory to encode %zu bytes of text", m->len);
        m->heap = heap;
        m->cap = cap;
    }
    size_t i = m->n++;
    for (; i > 0 && before(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return PB_OK;
}

static candidate pop(merger *m)
{
    candidate top = m->heap[0], last = m->heap[--m->n];
    size_t i = 0;
    for (size_t child = 1; child < m->n; child = 2 * i + 1) {
        if (child + 1 < m->n && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

// Pushes the union of the symbol at `left` and its right neighbour if that is a piece.
static pb_err consider(merger *m, uint32_t left)
{
    const symbol *a = &m->symbols[left];
    size_t right = (size_t)left + a->len;
    if (right >= m->len || a->frozen || m->symbols[right].frozen)
        return PB_OK;
    uint32_t len = a->len + m->symbols[right].len;
    int32_t id = pb_trie_find(&m->t->trie, m->text + left, len);
    if (id < 0)
        return PB_OK;
    if (m->t->pieces[id].kind == UNUSED)
        m->split[id] = a->len;
    return push(m, (candidate){m->t->pieces[id].score, left, len, id});
}

static pb_err merge_all(merger *m)
{
    uint32_t prev = NONE;
    for (size_t at = 0; at < m->len; at += m->symbols[at].len) {
        const char *text = m->text + at;
        symbol *s = &m->symbols[at];
        s->len = (uint32_t)user_piece(m->t, text, m->len - at, &s->id);
        s->frozen = s->len > 0;
        if (!s->frozen) {
            s->len = pb_character(text, m->len - at);
            s->id = pb_trie_find(&m->t->trie, text, s->len);
        }
        s->prev = prev;
        prev = (uint32_t)at;
    }
    for (size_t at = 0; at < m->len; at += m->symbols[at].len)
        PB_TRY(consider(m, (uint32_t)at));
    while (m->n > 0) {
        candidate c = pop(m);
        symbol *a = &m->symbols[c.left];
        size_t right = (size_t)c.left + a->len;
        if (a->len == 0 || a->len >= c.len || right >= m->len ||
            a->len + m->symbols[right].len != c.len)
            continue;
        m->symbols[right].len = 0;
        *a = (symbol){c.len, a->prev, c.id, false};
        if (c.left + (size_t)c.len < m->len)
            m->symbols[c.left + c.len].prev = c.left;
        PB_TRY(consider(m, c.left));
        if (a->prev != NONE)
            PB_TRY(consider(m, a->prev));
    }
    return PB_OK;
}

// An unused piece only helps merging: it is taken apart again where it was put together.
static pb_err put_parts(const merger *m, writer *w, const char *text, uint32_t len, int32_t id)
{
    if (id < 0 || m->t->pieces[id].kind != UNUSED || m->split[id] == 0)
        return put(w, text, len, id);
    uint32_t left = m->split[id];
    PB_TRY(put_parts(m, w, text, left, pb_trie_find(&m->t->trie, text, left)));
    return put_parts(m, w, text + left, len - left,
                     pb_trie_find(&m->t->trie, text + left, len - left));
}

static pb_err encode_bpe(const spm *t, const char *text, size_t len, pb_ids *out)
{
    pb_err err = PB_OK;
    writer w = {t, out, false};
    merger m = {.t = t, .text = text, .len = len};
    m.symbols = calloc(len, sizeof *m.symbols);
    if (t->unused)
        m.split = calloc(t->base.tokens, sizeof *m.split);
    if (!m.symbols || (t->unused && !m.split))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory to encode %zu bytes of text", len));
    PB_GO(merge_all(&m));
    for (size_t at = 0; at < len; at += m.symbols[at].len)
        PB_GO(put_parts(&m, &w, text + at, m.symbols[at].len, m.symbols[at].id));
done:
    free(m.heap);
    free(m.split);
    free(m.symbols);
    return err;
}

static pb_err encode_unigram(const spm *t, const char *text, size_t len, pb_ids *out)
{
    const pb_unigram u = {&t->trie, t->path, t->unk, t->unk_path, true};
    pb_span *spans;
    size_t n, at = 0;
    PB_TRY(pb_unigram_cut(&u, text, len, &spans, &n));
    pb_err err = PB_OK;
    writer w = {t, out, false};
    for (size_t i = 0; i < n && !err; at += spans[i++].len)
        err = put(&w, text + at, spans[i].len, spans[i].id);
    free(spans);
    return err;
}

static pb_err spm_encode(const pb_tokenizer *base, const char *text, size_t len, bool continues,
                         pb_ids *out)
{
    const spm *t = (const spm *)base;
    pb_text normal = {0};
    pb_err err = normalize(t, text, len, continues, &normal);
    if (!err && normal.n > 0)
        err = (t->algorithm == BPE ? encode_bpe : encode_unigram)(t, normal.v, normal.n, out);
    free(normal.v);
    return err;
}

static pb_token_kind spm_token(const pb_tokenizer *base, int32_t id, const char **text, size_t *len)
{
    const piece *p = &((const spm *)base)->pieces[id];
    *text = p->text;
    *len = p->len;
    bool nothing = p->kind == UNKNOWN && ((const spm *)base)->unk_len == 0;
    return p->kind == CONTROL || nothing ? PB_TOKEN_CONTROL
           : p->kind == BYTE             ? PB_TOKEN_BYTE
                                         : PB_TOKEN_TEXT;
}

// Appends the text with spaces for U+2581.
static pb_err append_decoded(const spm *t, pb_text *out, const char *text, size_t len)
{
    while (t->escape && len > 0) {
        const char *mark = memmem(text, len, underline, strlen(underline));
        if (!mark)
            break;
        PB_TRY(pb_text_append(out, text, (size_t)(mark - text)));
        PB_TRY(pb_text_append(out, " ", 1));
        len -= (size_t)(mark - text) + strlen(underline);
        text = mark + strlen(underline);
    }
    return pb_text_append(out, text, len);
}

static pb_err spm_decode(const pb_tokenizer *base, const int32_t *ids, size_t n, bool continues,
                         pb_text *out)
{
    const spm *t = (const spm *)base;
    size_t first = out->n, blank = strlen(space(t));
    // The space in front that encoding put there; where it squeezed, there was no other either.
    bool strip = !continues && (t->dummy_prefix || t->squeeze);
    for (size_t i = 0; i < n; i++) {
        if ((size_t)ids[i] >= base->tokens)
            continue;
        const piece *p = &t->pieces[ids[i]];
        const char *text = p->kind == BYTE ? (const char *)&p->byte : p->text;
        size_t len = p->kind == BYTE ? 1 : p->len;
        if (p->kind == UNKNOWN) {
            PB_TRY(pb_text_append(out, t->unk_text, t->unk_len));
        } else if (p->kind != CONTROL) {
            if (strip && out->n == first && len >= blank && !memcmp(text, space(t), blank)) {
                text += blank;
                len -= blank;
                strip = t->squeeze;
            }
            PB_TRY(append_decoded(t, out, text, len));
        }
    }
    return PB_OK;
}

static const pb_tokenizer_ops bin_ops = {"llama2.c tokenizer.bin (SentencePiece BPE)", spm_encode,
                                         spm_decode, spm_token, spm_free};
static const pb_tokenizer_ops bpe_ops = {"SentencePiece BPE", spm_encode, spm_decode, spm_token,
                                         spm_free};
static const pb_tokenizer_ops unigram_ops = {"SentencePiece unigram", spm_encode, spm_decode,
                                             spm_token, spm_free};

static pb_err open_any(pb_tokenizer **out, const char *path, size_t vocab,
                       pb_err (*open)(spm *t, const char *path, size_t vocab))
{
    spm *t = calloc(1, sizeof *t);
    if (!t)
        return pb_fail(PB_MEMORY, NULL, "no memory for a tokenizer");
    pb_err err = open(t, path, vocab);
    t->base.ops = open == open_bin ? &bin_ops : t->algorithm == BPE ? &bpe_ops : &unigram_ops;
    if (err)
        spm_free(&t->base);
    else
        *out = &t->base;
    return err;
}

pb_err pb_llama2c_tokenizer_open(pb_tokenizer **out, const char *path, size_t vocab)
{
    return open_any(out, path, vocab, open_bin);
}

pb_err pb_spm_open(pb_tokenizer **out, const char *path, size_t vocab)
{
    return open_any(out, path, vocab, open_model);
}
