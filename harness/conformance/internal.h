// What the checks share: backbones, adapters at random points, comparisons. What a check makes is
// kept until it ends, so that it may return wherever it fails.
#ifndef PB_CONFORMANCE_INTERNAL_H
#define PB_CONFORMANCE_INTERNAL_H

#include "conformance/conformance.h"
#include "conformance/tiny.h"
#include "model/forward.h"
#include "train/trainer.h"

typedef struct conf conf;

typedef struct check {
    const char *name, *what;
    pb_err (*run)(conf *c, const pb_subject *s, size_t t);
} check;

extern const check pb_checks[];
extern const size_t pb_n_checks;

struct conf {
    const pb_subjects *list;
    char folder[300]; // of scratch files
    pb_model *backbone[PB_N_TINIES];
    struct kept *kept;
    struct mixed *mixed[PB_N_TINIES];
    char skipped[200]; // why the check does not apply
    char note[200];    // what could be better
};

// Keeps p until the check ends.
pb_err conf_keep(conf *c, void *p, void (*release)(void *));
void conf_release(conf *c);
void *conf_alloc(conf *c, size_t n, size_t size); // zeros; ends the program when out of memory
void conf_mixed_free(conf *c);

// What a failed check returns.
#define WRONG(hint, ...) pb_fail(PB_INTERNAL, hint, __VA_ARGS__)
// The check does not apply.
#define SKIP(c, ...)                                                                               \
    do {                                                                                           \
        snprintf((c)->skipped, sizeof(c)->skipped, __VA_ARGS__);                                   \
        return PB_OK;                                                                              \
    } while (0)
#define NEED_ADAPTER(c, s)                                                                         \
    do {                                                                                           \
        if ((s)->m->backbone)                                                                      \
            SKIP(c, "%s has no adapter", (s)->m->name);                                            \
    } while (0)

#define IS_DOUBLE (sizeof(real) == 8)

enum { LONG = 72, SHORT = 20, TEXT = 900 }; // a sequence of several key blocks; its prompt; a seed

pb_err conf_options(conf *c, const pb_subject *s, void **out);
pb_err conf_tokens(conf *c, size_t n, size_t V, uint32_t which, int32_t **out);
// With its initial values, and away from them, where some gradients are zero whatever the code
// does.
pb_err conf_fresh(conf *c, const pb_subject *s, size_t t, bool trainable, pb_adapter **out);
pb_err conf_scattered(conf *c, const pb_subject *s, size_t t, bool trainable, pb_adapter **out);
void conf_scatter(const pb_params *p, uint64_t seed);

// What is trained: an adapter, or a backbone of its own.
typedef struct trained {
    pb_model *m;
    pb_adapter *a;
    const pb_params *p;
} trained;
pb_err conf_trained(conf *c, const pb_subject *s, size_t t, bool random, trained *out);
// Whether it has a parameter with this flag, or any at all.
pb_err conf_has(conf *c, const pb_subject *s, size_t t, unsigned flag, bool *out);

pb_err conf_step(conf *c, const pb_model *m, pb_adapter *const *tenants, size_t n,
                 const pb_step_limits *limits, pb_step **out);
// Logits (R,V) of all rows of one batch in a step.
pb_err conf_logits(conf *c, pb_step *st, const pb_model *m, const pb_batch *b, real **out);
// Logits (n,V) of one sequence as the only segment of a batch, without a cache.
pb_err conf_alone(conf *c, const pb_model *m, pb_adapter *a, const int32_t *tokens, size_t n,
                  size_t n_prompt, real **out);

pb_err conf_same(const char *what, const char *hint, const real *a, const real *b, size_t rows,
                 size_t V);
pb_err conf_near(const char *what, const char *hint, const real *a, const real *b, size_t n);
double conf_distance(const real *a, const real *b, size_t n);

// The checks, by file.
pb_err check_table(conf *c, const pb_subject *s, size_t t);
pb_err check_identity(conf *c, const pb_subject *s, size_t t);
pb_err check_acts(conf *c, const pb_subject *s, size_t t);
pb_err check_recorded(conf *c, const pb_subject *s, size_t t);
pb_err check_memory(conf *c, const pb_subject *s, size_t t);
pb_err check_decode(conf *c, const pb_subject *s, size_t t);
pb_err check_mixed(conf *c, const pb_subject *s, size_t t);
pb_err check_threads(conf *c, const pb_subject *s, size_t t);
pb_err check_causality(conf *c, const pb_subject *s, size_t t);
pb_err check_text(conf *c, const pb_subject *s, size_t t);
pb_err check_merge(conf *c, const pb_subject *s, size_t t);
pb_err check_fold(conf *c, const pb_subject *s, size_t t);
pb_err check_files(conf *c, const pb_subject *s, size_t t);
pb_err check_knob(conf *c, const pb_subject *s, size_t t);
pb_err check_gradient(conf *c, const pb_subject *s, size_t t);
pb_err check_again(conf *c, const pb_subject *s, size_t t);
pb_err check_learns(conf *c, const pb_subject *s, size_t t);
pb_err check_resume(conf *c, const pb_subject *s, size_t t);
pb_err check_other_work(conf *c, const pb_subject *s, size_t t);
pb_err check_bilevel(conf *c, const pb_subject *s, size_t t);

#endif
