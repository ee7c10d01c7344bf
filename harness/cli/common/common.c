// Parsing that several subcommands share.
#include "cli/common/common.h"

#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

pb_err pb_parse_tokens(const char *text, size_t vocab, int32_t **out, size_t *n)
{
    *n = 0;
    *out = malloc((strlen(text) / 2 + 1) * sizeof **out);
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "no memory for the tokens");
    for (const char *s = text; *s;) {
        char *end;
        errno = 0;
        long v = strtol(s, &end, 10);
        bool last = *end == 0, more = *end == ',' && end[1];
        if (errno || end == s || !(last || more) || v < 0 || (size_t)v >= vocab)
            return pb_fail(PB_USAGE, "separate ids with commas, e.g. 1,403,7",
                           "\"%.20s\" is not a token id below %zu", s, vocab);
        (*out)[(*n)++] = (int32_t)v;
        s = *end ? end + 1 : end;
    }
    return *n ? PB_OK : pb_fail(PB_USAGE, "e.g. --tokens 1,403,7", "the list of tokens is empty");
}

pb_err pb_parse_size(const char *text, const char *what, size_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    size_t factor = *end == 'k' ? 1000 : *end == 'M' ? 1000000 : *end == 'G' ? 1000000000 : 1;
    end += factor > 1;
    if (errno || end == text || *end || text[0] == '-' || v > (1ull << 40))
        return pb_fail(PB_USAGE, "use a whole number such as 100, 20k or 3M", "%s is \"%s\"", what,
                       text);
    *out = (size_t)v * factor;
    return PB_OK;
}

pb_err pb_parse_real(const char *text, const char *what, double min, double max, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= min && v <= max))
        return pb_fail(PB_USAGE, NULL, "%s is \"%s\", not a number in %g..%g", what, text, min,
                       max);
    *out = v;
    return PB_OK;
}

pb_err pb_fresh_folder(const char *path)
{
    PB_TRY(pb_make_dirs(path));
    DIR *d = opendir(path);
    if (!d)
        return pb_fail(PB_IO, NULL, "cannot list %s: %s", path, strerror(errno));
    bool empty = true;
    for (const struct dirent *e; empty && (e = readdir(d));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    closedir(d);
    return empty ? PB_OK
                 : pb_fail(PB_IO, "remove what is there, or choose another folder",
                           "the folder %s is not empty", path);
}

const char *pb_default_model(void)
{
    static char path[4096];
    const char *source = NULL;
#ifdef PB_SOURCE_DIR
    source = PB_SOURCE_DIR "/paper/backbone";
#endif
    // When it is not there, opening it says so.
    (void)pb_shared_folder(path, sizeof path, "PB_BACKBONE", source, "backbone");
    return path;
}

void pb_usage_error(struct argp_state *state)
{
    if (*pb_error_hint())
        argp_error(state, "%s (%s)", pb_error_message(), pb_error_hint());
    else
        argp_error(state, "%s", pb_error_message());
}
