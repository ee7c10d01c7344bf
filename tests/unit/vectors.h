// Published test vectors of tokenizers: texts in NAME.inp, separated by a line, and in NAME.out
// their ids, a line each. They lie in the data folder; a test that needs it skips without.
#ifndef PB_UNIT_VECTORS_H
#define PB_UNIT_VECTORS_H

#include "core/file.h"
#include "model/tokenizer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static inline void accept(pb_err err)
{
    if (err)
        fail_msg("refused: %s", pb_error_message());
}

// Path of a file of the data folder; skips the test by name when it is not there.
static inline const char *data_file(const char *name)
{
    static char path[4096]; // until the next call
    const char *data = getenv("PB_DATA");
    if (data && *data)
        snprintf(path, sizeof path, "%s/%s", data, name);
    else
        snprintf(path, sizeof path, "%s/../shared/data/%s", PB_SOURCE_DIR, name);
    if (!pb_exists(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    return path;
}

// encode(text) is `ids`, and decoding them gives the text, whether it begins a text or goes on.
static inline void check_text(const pb_tokenizer *t, const char *text, size_t len,
                              const int32_t *ids, size_t n_ids)
{
    for (int continues = 0; continues < 2; continues++) {
        int32_t *got = NULL;
        size_t n = 0, cap = 0, back_len;
        char *back;
        accept(pb_tokenizer_encode(t, text, len, continues, &got, &n, &cap));
        for (size_t i = 0; !continues && i < n; i++)
            if (i >= n_ids || got[i] != ids[i])
                fail_msg("\"%.*s\", token %zu of %zu: %d, not %d", (int)len, text, i, n_ids, got[i],
                         i < n_ids ? ids[i] : -1);
        if (!continues)
            assert_int_equal(n, n_ids);
        accept(pb_tokenizer_decode(t, got, n, continues, &back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, text, len);
        free(back);
        free(got);
    }
}

static inline void check_vectors(const pb_tokenizer *t, const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[256];
    pb_file in, out;
    snprintf(path, sizeof path, "tokenizers/%s.inp", name);
    accept(pb_file_map(&in, data_file(path)));
    snprintf(path, sizeof path, "tokenizers/%s.out", name);
    accept(pb_file_map(&out, data_file(path)));
    const char *text = (const char *)in.data, *end = text + in.size;
    const char *line = (const char *)out.data, *line_end = line + out.size;
    size_t cases = 0, tokens = 0;
    while (text < end) {
        static int32_t ids[4096];
        size_t n = 0;
        const char *stop = memmem(text, (size_t)(end - text), mark, sizeof mark - 1);
        if (!stop)
            break;
        while (line < line_end && *line != '\n') {
            assert_true(n < 4096);
            ids[n++] = (int32_t)strtol(line, (char **)&line, 10);
            while (line < line_end && *line == ' ')
                line++;
        }
        line++;
        check_text(t, text, (size_t)(stop - text), ids, n);
        text = stop + sizeof mark - 1;
        tokens += n;
        cases++;
    }
    print_message("%s: %zu texts, %zu tokens\n", name, cases, tokens);
    assert_true(cases > 30);
    pb_file_unmap(&in);
    pb_file_unmap(&out);
}

#endif
