// Expressions are compiled by PCRE2 (UTF, Unicode properties, just-in-time where there is one).
// tokenizer.json is written for Oniguruma, so escapes that mean something else there are rewritten:
// \s is Unicode's White_Space, \w is Alphabetic, marks, decimal digits and connectors; \uXXXX is a
// code point. What would silently mean something else is refused.
#include "model/tokenizer_split.h"

#include <stdlib.h>
#include <string.h>

#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

static pb_err unsupported(const char *what, const char *pattern, size_t len)
{
    return pb_fail(PB_UNSUPPORTED, NULL, "%s in the regular expression \"%.*s\"", what,
                   (int)(len < 200 ? len : 200), pattern);
}

// Rewrites a pattern into `out`, which has room for 32 bytes per byte of it.
static pb_err translate(char *out, size_t *n_out, const char *p, size_t len)
{
    size_t n = 0;
    bool class = false;
    for (size_t i = 0; i < len; i++) {
        const char *put = NULL;
        char unicode[16];
        size_t skip = 1;
        if (p[i] != '\\' || i + 1 == len) {
            if (class && p[i] == '&' && i + 1 < len && p[i + 1] == '&')
                return unsupported("an intersection of classes", p, len);
            if (p[i] == '[')
                class = true;
            else if (p[i] == ']')
                class = false;
            out[n++] = p[i];
            continue;
        }
        switch (p[i + 1]) {
        case 's':
            put = "\\p{White_Space}";
            break;
        case 'S':
            put = "\\P{White_Space}";
            break;
        case 'w':
            put = class ? WORD : "[" WORD "]";
            break;
        case 'W':
            if (class)
                return unsupported("\\W inside a class", p, len);
            put = "[^" WORD "]";
            break;
        case 'h':
        case 'H':
            return unsupported("\\h", p, len);
        case 'u':
            if (len - i < 6 || strspn(p + i + 2, "0123456789abcdefABCDEF") < 4)
                return unsupported("\\u without four digits", p, len);
            memcpy(unicode, "\\x{", 3);
            memcpy(unicode + 3, p + i + 2, 4);
            memcpy(unicode + 7, "}", 2);
            put = unicode;
            skip = 5;
            break;
        default:
            out[n++] = p[i];
            out[n++] = p[i + 1];
        }
        if (put) {
            memcpy(out + n, put, strlen(put));
            n += strlen(put);
        }
        i += skip;
    }
    *n_out = n;
    return PB_OK;
}

enum { LONGEST_PATTERN = 1 << 16 };

pb_err pb_regex_compile(pcre2_code **out, const char *pattern, size_t len, bool literal)
{
    pb_err err = PB_OK;
    int code;
    size_t at, n = len;
    char *text = NULL;
    if (len == 0 || len > LONGEST_PATTERN)
        return pb_fail(PB_INPUT, NULL, "a pattern to split at has %zu bytes, not 1..%d", len,
                       LONGEST_PATTERN);
    if (!literal) {
        text = malloc(32 * len);
        if (!text)
            return pb_fail(PB_MEMORY, NULL, "no memory for a pattern of %zu bytes", len);
        PB_GO(translate(text, &n, pattern, len));
    }
    uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL
                               : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    *out = pcre2_compile((PCRE2_SPTR)(literal ? pattern : text), n, options, &code, &at, NULL);
    if (!*out) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        err = pb_fail(PB_INPUT, NULL, "the regular expression \"%.*s\": %s",
                      (int)(len < 200 ? len : 200), pattern, (const char *)why);
        goto done;
    }
    // Where there is no compiler for this machine, the interpreter does the same, slower.
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
done:
    free(text);
    return err;
}

pb_err pb_regex_next(const pcre2_code *re, pcre2_match_data *m, const char *text, size_t len,
                     size_t at, bool *found, size_t *start, size_t *end)
{
    *found = false;
    while (at < len) {
        int n = pcre2_match(re, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, m, NULL);
        if (n == PCRE2_ERROR_NOMATCH)
            return PB_OK;
        if (n < 0) {
            PCRE2_UCHAR why[128] = "";
            pcre2_get_error_message(n, why, sizeof why);
            return pb_fail(PB_UNSUPPORTED, "the tokenizer's pattern needs too much work",
                           "splitting %zu bytes of text: %s", len, (const char *)why);
        }
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m);
        // \K in a lookahead can put the start behind the end.
        if (o[0] < o[1] && o[0] >= at) {
            *found = true;
            *start = o[0];
            *end = o[1];
            return PB_OK;
        }
        at = o[1] > at ? o[1] : at;
        if (at < len)
            at += pb_utf8_char(text + at, len - at);
    }
    return PB_OK;
}

// A piece that may still grow.
typedef struct splitter {
    pb_behavior behavior;
    const char *text;
    size_t start, end; // of the pending piece; empty: there is none
    bool matched;      // the last range was a match
    pb_piece_fn *each;
    void *self;
} splitter;

static pb_err flush(splitter *s)
{
    size_t start = s->start;
    s->start = s->end;
    return start < s->end ? s->each(s->self, s->text + start, s->end - start) : PB_OK;
}

static pb_err add(splitter *s, size_t start, size_t end, bool match)
{
    if (start == end)
        return PB_OK;
    bool joins = false, before = s->matched, pending = s->start < s->end;
    s->matched = match;
    switch (s->behavior) {
    case PB_REMOVED:
        if (match)
            return PB_OK;
        break;
    case PB_MERGED_WITH_PREVIOUS:
        joins = match && !before;
        break;
    case PB_MERGED_WITH_NEXT:
        joins = !match && before;
        break;
    case PB_CONTIGUOUS:
        joins = match == before;
        break;
    case PB_ISOLATED:
        break;
    }
    if (pending && joins) {
        s->end = end;
        return PB_OK;
    }
    PB_TRY(flush(s));
    s->start = start;
    s->end = end;
    return PB_OK;
}

pb_err pb_split_text(const pcre2_code *re, pcre2_match_data *m, pb_behavior behavior, bool invert,
                     const char *text, size_t len, pb_piece_fn *each, void *self)
{
    splitter s = {.behavior = behavior, .text = text, .each = each, .self = self};
    size_t at = 0, start = 0, end = 0;
    for (bool found = true; at < len; at = end) {
        PB_TRY(pb_regex_next(re, m, text, len, at, &found, &start, &end));
        if (!found)
            start = end = len;
        PB_TRY(add(&s, at, start, invert));
        PB_TRY(add(&s, start, end, !invert));
    }
    return flush(&s);
}

// Length of the UTF-8 character at text[0..len), 0 if there is none.
static size_t character(const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n == 0 || n > len || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    // Overlong forms, surrogates and what lies above U+10FFFF.
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

size_t pb_utf8_prefix(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        uint64_t word;
        if (len - at >= sizeof word) {
            memcpy(&word, text + at, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                at += sizeof word;
                continue;
            }
        }
        size_t n = character(text + at, len - at);
        if (n == 0)
            break;
        at += n;
    }
    return at;
}

size_t pb_utf8_char(const char *text, size_t len)
{
    size_t n = character(text, len);
    return n ? n : 1;
}
