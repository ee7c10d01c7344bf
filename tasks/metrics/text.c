#include "tasks/metrics/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { REPLACEMENT = 0xfffd };

int32_t pb_next_char(const char **s)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)*s, -1, &c);
    *s += n > 0 ? n : 1;
    return n > 0 ? c : REPLACEMENT;
}

char *pb_put_char(char *out, int32_t c)
{
    return out + utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
}

bool pb_is_white(int32_t c)
{
    return (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f) || c == 0x85 ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_ZS || c == 0x2028 || c == 0x2029;
}

bool pb_is_word(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

int32_t pb_lower_char(int32_t c)
{
    return utf8proc_tolower(c);
}

pb_err pb_lower(char **out, const char *s, size_t n)
{
    char *own = strndup(s, n), *p = *out = own ? malloc(3 * n + 5) : NULL;
    if (p) {
        for (const char *q = own; *q;)
            p = pb_put_char(p, pb_lower_char(pb_next_char(&q)));
        *p = 0;
    }
    free(own);
    return *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a text of %zu bytes", n);
}
