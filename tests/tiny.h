// Small backbones with random weights of every kind, for tests. Include cmocka.h first.
#ifndef PB_TESTS_TINY_H
#define PB_TESTS_TINY_H

#include "conformance/tiny.h"
#include "core/file.h"
#include "model/forward.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != PB_OK)                                                                       \
            fail_msg("%s: %s", #expr, pb_error_message());                                         \
    } while (0)

static inline void fill(real *v, size_t n, double mean, double sd, pb_rng *r)
{
    pb_tiny_fill(v, n, mean, sd, r);
}

static inline void tiny_weights(pb_model *m, uint64_t seed)
{
    pb_tiny_weights(m, seed);
}

static char tiny_folder[300];

static inline int tiny_folder_make(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(tiny_folder, sizeof tiny_folder, "%s/pb-tiny-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(tiny_folder) ? 0 : -1;
}

static inline int tiny_unlink(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

static inline int tiny_folder_remove(void **state)
{
    (void)state;
    return nftw(tiny_folder, tiny_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

// Opens pb_tinies[t]; its folder is written at the first call.
static inline pb_model *tiny_open(size_t t, const pb_model_args *args)
{
    pb_model *m;
    OK(pb_tiny_open(&m, tiny_folder, t, args));
    return m;
}

// Logits (R,V) of all rows of one batch in a step; the caller frees them.
static inline real *logits_of(pb_step *st, const pb_model *m, const pb_batch *b, bool training)
{
    size_t *rows = malloc(b->n_rows * sizeof *rows);
    real *out = malloc(b->n_rows * m->config.vocab * sizeof *out);
    assert_non_null(rows);
    assert_non_null(out);
    for (size_t r = 0; r < b->n_rows; r++)
        rows[r] = r;
    pb_mat *h = pb_forward(st, b, training, 1, 0);
    pb_step_logits(st, h, rows, b->n_rows, out);
    free(rows);
    return out;
}

#endif
