#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];
static _Thread_local char hint_text[512];

pb_err pb_fail(pb_err code, const char *hint, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    snprintf(hint_text, sizeof hint_text, "%s", hint ? hint : "");
    return code;
}

pb_err pb_context(pb_err code, const char *fmt, ...)
{
    char inner[sizeof message], outer[sizeof message];
    memcpy(inner, message, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(outer, sizeof outer, fmt, ap);
    va_end(ap);
    size_t n = strlen(outer);
    memcpy(message, outer, n + 1);
    snprintf(message + n, sizeof message - n, ": %.*s", (int)(sizeof message - n - 3), inner);
    return code;
}

const char *pb_error_name(pb_err code)
{
    static const char *const names[] = {
#define PB_ERROR_NAME(code, text) text,
        PB_ERRORS(PB_ERROR_NAME)
#undef PB_ERROR_NAME
    };
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unknown error";
}

const char *pb_error_message(void)
{
    return message;
}

const char *pb_error_hint(void)
{
    return hint_text;
}
