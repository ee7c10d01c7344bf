// Every registered method, with its default options, every value of its listed options, and the
// combinations below, through the same checks on small random backbones. A test's name is
// "method options, backbone: check"; a check that does not apply is skipped with its reason.
//
// Built twice: in float, where equality is bit by bit as in use, and in double, where gradients are
// compared with finite differences as well.
#include "core/log.h"
#include "core/threads.h"
#include "model/peft.h"
#include "model/tensors.h"
#include "train/trainer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "tiny.h"

static const bool is_double = sizeof(real) == 8;

typedef struct subject {
    const pb_method *m;
    char options[100];
    bool moved; // these options leave the identity on purpose
} subject;

static const struct {
    const char *method, *options;
    bool moved;
} combinations[] = {
    {"lora", "rank=5 targets=q,v", false},
    {"lora", "rank=40 alpha=3 targets=o,down", false},
    {"lora", "rslora=true rank=6 dropout=0.3", false},
    {"lora", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"lora", "targets=k@0,up rslora=true ranks=up@1:3 alphas=up:9", false},
    {"lora", "lr_ratio=7", false},
    {"loraplus", "rslora=true targets=v,up@1", false},
    {"dora", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"dora", "rslora=true rank=40 dropout=0.3", false},
    {"adalora", "targets=q,v@1,down@0 init_r=5 target_r=2 dropout=0.3", false},
    {"adalora", "init_r=7 tinit=0 tfinal=0.5 every=2 orth=0.1 alpha=0 target_r=1", false},
    {"vera", "targets=q,v@1,down@0 rank=3 dropout=0.3", false},
    {"vera", "save_projection=false seed=7 rank=40", false},
    {"milora", "targets=q,v,up,down@0 top=2 rank=3 dropout=0.3 pooler=attention", false},
    {"milora", "targets=o,v@1 theta_every=3 theta_lr=0.01 pooler=mean", false},
    {"milora", "activation=identity top=7 pooler=max", false},
    {"pissa", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"pissa", "rslora=true rank=6 dropout=0.3 alphas=up@1:2", false},
    {"ia3", "rank=3", false},
    {"ia3", "targets=q,k,v,o,gate,up,down inputs=q,v,o@1,up,down@0", false},
    {"ia3", "targets=v@1,gate,up@0 inputs=gate,up rank=2", false},
    {"ia3", "rank=3 targets=q,k,v,o,gate,up,down", false},
    {"prefix", "init=zero mlp=6", false},
    {"prefix", "init=random mlp=5 length=3", false},
    {"prefix", "init=random length=32", false},
    {"prefix", "init=random length=45 std=0.5", false},
    {"pedro", "targets=q,k,v,up rope=after", false},
    {"pedro", "pooler=mean pool_site=before prompt_scaled=false", false},
    {"pedro", "pooler=attention activation=silu pool_site=before rope=after", false},
    {"pedro", "prompt_scaled=false targets=v,gate,o,down r=3", false},
    {"pedro", "up_std=0.2 pooler=max", true},
    {"pedro", "theta_lr=0", false},
    {"pedro", "theta_every=3 theta_lr=0.01", false},
};

static subject subjects[600];
static size_t n_subjects;
static pb_model *backbone[N_TINIES]; // frozen

// ---------------------------------------------------------------- subjects

static void add(const pb_method *m, bool moved, const char *fmt, ...)
{
    assert_true(n_subjects < sizeof subjects / sizeof *subjects);
    subject *s = &subjects[n_subjects++];
    va_list ap;
    va_start(ap, fmt);
    *s = (subject){.m = m, .moved = moved};
    vsnprintf(s->options, sizeof s->options, fmt, ap);
    va_end(ap);
}

static void add_all(void)
{
    for (size_t i = 0; pb_methods[i]; i++) {
        const pb_method *m = pb_methods[i];
        add(m, false, "%s", "");
        for (const pb_option *o = m->options; o->name; o++) {
            if (m->knob && !strcmp(o->name, m->knob)) {
                add(m, false, "%s=1", o->name);
                add(m, false, "%s=11", o->name);
            }
            if (o->type == PB_OPT_BOOL)
                add(m, false, "%s=%s", o->name, *o->def == 't' ? "false" : "true");
            for (int v = 0;
                 (o->type == PB_OPT_ENUM || o->type == PB_OPT_FLAGS || o->type == PB_OPT_SITES) &&
                 o->names[v];
                 v++)
                if (strcmp(o->names[v], o->def))
                    add(m, false, "%s=%s", o->name, o->names[v]);
        }
        for (size_t k = 0; k < sizeof combinations / sizeof *combinations; k++)
            if (!strcmp(combinations[k].method, m->name))
                add(m, combinations[k].moved, "%s", combinations[k].options);
    }
}

static void *options_of(const subject *s)
{
    char text[sizeof s->options], *save = NULL;
    void *o;
    OK(pb_options_new(&o, s->m));
    strcpy(text, s->options);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *value = strchr(w, '=');
        *value++ = 0;
        OK(pb_options_set(s->m, o, w, value));
    }
    return o;
}

static void tokens_at(int32_t *t, size_t n, size_t V, uint32_t which)
{
    pb_rng r = pb_rng_make(5, PB_STREAM_TEST, which);
    for (size_t i = 0; i < n; i++)
        t[i] = (int32_t)pb_rng_below(&r, V);
}

enum { TEXT = 900 }; // number of the tokens whose keys and values start a prefix

static pb_adapter *fresh(const subject *s, size_t t, bool trainable)
{
    pb_model *m = backbone[t];
    pb_adapter *a;
    void *o = options_of(s);
    OK(pb_adapter_new(&a, s->m, o, &m->config, trainable));
    free(o);
    size_t n = s->m->text_len ? s->m->text_len(a->options) : 0, kv = pb_kv_width(&m->config);
    real *k = calloc(2 * m->config.layers * n * kv + 1, sizeof *k);
    real *v = k + m->config.layers * n * kv;
    if (n) {
        pb_step *st;
        int32_t tokens[64];
        tokens_at(tokens, n, m->config.vocab, TEXT);
        OK(pb_step_new(&st, m, NULL, 0,
                       &(pb_step_limits){.rows = n, .segments = 1, .slots = 1, .positions = n}));
        pb_segment seg = {.n_rows = n, .n_prompt = n, .tenant = -1, .slot = 0};
        pb_forward(st, &(pb_batch){n, 1, tokens, &seg}, false, 0, 0);
        for (size_t l = 0; l < m->config.layers; l++)
            pb_step_read_kv(st, 0, l, n, k + l * n * kv, v + l * n * kv);
        pb_step_free(st);
    }
    OK(pb_adapter_init(a, m, 7, n, n ? k : NULL, n ? v : NULL));
    free(k);
    OK(pb_adapter_serve(a, backbone[t]));
    return a;
}

// Away from the initial point, where some gradients are zero whatever the code does.
static void scatter(const pb_params *p, uint64_t seed)
{
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *s = &p->layout->spec[i];
        pb_rng r = pb_rng_make(seed, PB_STREAM_TEST, (uint32_t)i);
        fill(p->v + s->offset, s->rows * s->cols, s->init == PB_INIT_ONE ? 1 : 0, 0.2, &r);
    }
}

static pb_adapter *scattered(const subject *s, size_t t, bool trainable)
{
    pb_adapter *a = fresh(s, t, trainable);
    scatter(&a->params, 11 + (uint64_t)(s - subjects));
    OK(pb_adapter_serve(a, backbone[t]));
    return a;
}

// What is trained: an adapter, or a backbone of its own.
typedef struct trained {
    pb_model *m;
    pb_adapter *a;
    const pb_params *p;
} trained;

static trained trained_new(const subject *s, size_t t, bool random)
{
    trained x = {.m = backbone[t]};
    if (s->m->backbone) {
        x.m = tiny_open(t, &(pb_model_args){.trainable = true});
        x.p = &x.m->params;
    } else {
        x.a = random ? scattered(s, t, true) : fresh(s, t, true);
        x.p = &x.a->params;
    }
    return x;
}

static void trained_free(trained *x)
{
    if (!x->a)
        pb_model_close(x->m);
    pb_adapter_free(x->a);
}

// ---------------------------------------------------------------- comparisons

#define SKIP(...)                                                                                  \
    do {                                                                                           \
        print_message("does not apply: " __VA_ARGS__);                                             \
        print_message("\n");                                                                       \
        skip();                                                                                    \
    } while (0)

// Whether it has a parameter with this flag, or any at all.
static bool has(const subject *s, size_t t, unsigned flag)
{
    pb_adapter *a = fresh(s, t, false);
    bool found = false;
    for (size_t i = 0; i < a->layout.n; i++)
        found |= !flag || a->layout.spec[i].flags & flag;
    pb_adapter_free(a);
    return found;
}

static void need_parameters(const subject *s, size_t t)
{
    if (!s->m->backbone && !has(s, t, 0))
        SKIP("%s has no parameters", s->m->name);
}

static void need_adapter(const subject *s)
{
    if (s->m->backbone)
        SKIP("%s has no adapter", s->m->name);
}

static void same(const char *what, const real *a, const real *b, size_t rows, size_t V)
{
    for (size_t i = 0; i < rows * V; i++)
        if (!(a[i] == b[i]))
            fail_msg("%s: row %zu column %zu of %zu rows: %.9g, not %.9g", what, i / V, i % V, rows,
                     (double)a[i], (double)b[i]);
}

static double distance(const real *a, const real *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst))
            worst = d;
        if (isnan(d))
            return d;
    }
    return worst;
}

static void near(const char *what, const real *a, const real *b, size_t n)
{
    double top = 1, err = distance(a, b, n);
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)b[i]));
    // Two orders of the same sums. Double allows 4.5e4 roundings of 2^-53; as many of float's would
    // be 5e-3, so a tenth of that is no weaker, and whatever is wrong by more than rounding fails
    // in double.
    double tol = top * (is_double ? 1e-11 : 5e-4);
    if (!(err <= tol))
        fail_msg("%s: differs by %g, more than %g", what, err, tol);
}

// Logits (n,V) of one sequence as the only segment of a batch, without a cache.
static real *alone(const pb_model *m, pb_adapter *a, const int32_t *tokens, size_t n,
                   size_t n_prompt)
{
    pb_step *st;
    pb_adapter *const tenants[] = {a};
    OK(pb_step_new(&st, m, tenants, a ? 1 : 0, &(pb_step_limits){.rows = n, .segments = 1}));
    pb_segment seg = {.n_rows = n, .n_prompt = n_prompt, .tenant = a ? 0 : -1, .slot = -1};
    real *out = logits_of(st, m, &(pb_batch){n, 1, tokens, &seg}, false);
    pb_step_free(st);
    return out;
}

// ---------------------------------------------------------------- forward checks

enum { LONG = 72, SHORT = 20 }; // a sequence of several key blocks; its prompt

static void identity(const subject *s, size_t t)
{
    if (!s->m->identity || s->moved)
        SKIP("%s does not claim the identity with these options", s->m->name);
    int32_t tokens[LONG];
    tokens_at(tokens, LONG, backbone[t]->config.vocab, 1);
    trained x = trained_new(s, t, false);
    real *a = alone(x.m, x.a, tokens, LONG, SHORT);
    real *b = alone(backbone[t], NULL, tokens, LONG, SHORT);
    same("a fresh adapter against the backbone", a, b, LONG, x.m->config.vocab);
    free(a);
    free(b);
    trained_free(&x);
}

// Without this, checks that compare two runs could pass on an adapter that is never called.
static void acts(const subject *s, size_t t)
{
    need_adapter(s);
    need_parameters(s, t);
    int32_t tokens[LONG];
    size_t V = backbone[t]->config.vocab;
    tokens_at(tokens, LONG, V, 1);
    pb_adapter *a = scattered(s, t, false);
    real *y = alone(backbone[t], a, tokens, LONG, SHORT);
    real *b = alone(backbone[t], NULL, tokens, LONG, SHORT);
    double d = distance(y + (LONG - 1) * V, b + (LONG - 1) * V, V);
    if (!(d > 1e-3))
        fail_msg("random parameters change the last row's logits by %g only", d);
    free(y);
    free(b);
    pb_adapter_free(a);
}

// The step that records computes what inference computes, when nothing random is switched on.
static void recorded(const subject *s, size_t t)
{
    int32_t tokens[LONG];
    trained x = trained_new(s, t, true);
    pb_step *st;
    tokens_at(tokens, LONG, x.m->config.vocab, 2);
    OK(pb_step_new(&st, x.m, &x.a, x.a ? 1 : 0,
                   &(pb_step_limits){.rows = LONG, .segments = 1, .train = true}));
    pb_segment seg = {.n_rows = LONG, .n_prompt = SHORT, .tenant = x.a ? 0 : -1, .slot = -1};
    real *a = logits_of(st, x.m, &(pb_batch){LONG, 1, tokens, &seg}, false);
    real *b = alone(x.m, x.a, tokens, LONG, SHORT);
    same("recording against inference", a, b, LONG, x.m->config.vocab);
    free(a);
    free(b);
    pb_step_free(st);
    trained_free(&x);
}

// Feeds tokens[from..to) to slot 0 as one segment and compares its logits with rows of `full`.
static void feed(pb_step *st, const pb_model *m, const char *what, const int32_t *tokens,
                 size_t from, size_t to, size_t n_prompt, const real *full)
{
    size_t n = to - from, in_prompt = n_prompt > from ? n_prompt - from : 0;
    pb_segment seg = {
        .n_rows = n, .pos0 = from, .n_prompt = in_prompt < n ? in_prompt : n, .slot = 0};
    real *y = logits_of(st, m, &(pb_batch){n, 1, tokens + from, &seg}, false);
    if (full)
        same(what, y, full + from * m->config.vocab, n, m->config.vocab);
    free(y);
}

static void decode(const subject *s, size_t t)
{
    need_adapter(s);
    static const size_t prompts[] = {1, 7, 32, 33, 60};
    const pb_model *m = backbone[t];
    int32_t tokens[LONG], dirt[LONG + 8];
    pb_step *st;
    tokens_at(tokens, LONG, m->config.vocab, 3);
    tokens_at(dirt, LONG + 8, m->config.vocab, 4);
    pb_adapter *a = scattered(s, t, false);
    OK(pb_step_new(
        &st, m, &a, 1,
        &(pb_step_limits){.rows = LONG + 8, .segments = 1, .slots = 1, .positions = LONG + 8}));
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        size_t P = prompts[i];
        real *full = alone(m, a, tokens, LONG, P);
        // What an earlier sequence left in the slot must not matter.
        feed(st, m, "", dirt, 0, LONG + 8, 9, NULL);
        feed(st, m, "prefill", tokens, 0, P, P, full);
        for (size_t k = P; k < LONG; k++)
            feed(st, m, "decoding", tokens, k, k + 1, P, full);
        feed(st, m, "prompt and first response tokens", tokens, 0, P + 5, P, full);
        feed(st, m, "the rest at once", tokens, P + 5, LONG, P, full);
        for (size_t k = 0; k < P && !s->m->whole_prompt; k += 13)
            feed(st, m, "prefill in chunks", tokens, k, k + 13 < P ? k + 13 : P, P, full);
        free(full);
    }
    pb_step_free(st);
    pb_adapter_free(a);
}

// ---------------------------------------------------------------- mixed batches

// All methods with all their options at once: two sequences per tenant and some of the bare
// backbone, prefilled in different rounds, so that prefill and decoding stand in one batch; in
// three orders.
enum { ORDERS = 3, ROUNDS = 5, DECODED = 3, BARE = 4, MOST = 1204 };

static struct mixed {
    pb_adapter *tenant[600];
    size_t tenant_of[600]; // of each subject
    size_t n, n_seq;
    real *logits[ORDERS][MOST]; // (prompt + tokens decoded, V)
} mixed_of[N_TINIES];

static size_t mixed_prompt(size_t i)
{
    return 1 + i * 7 % 23;
}

static void mixed_make(size_t t)
{
    struct mixed *x = &mixed_of[t];
    const pb_model *m = backbone[t];
    size_t V = m->config.vocab;
    for (size_t i = 0; i < n_subjects; i++) {
        if (subjects[i].m->backbone)
            continue;
        x->tenant_of[i] = x->n;
        x->tenant[x->n++] = scattered(&subjects[i], t, false);
    }
    size_t N = x->n_seq = 2 * x->n + BARE;
    assert_true(N < MOST);
    static int32_t tokens[MOST * 40];
    static pb_segment seg[MOST];
    for (size_t o = 0; o < ORDERS; o++) {
        pb_step *st;
        OK(pb_step_new(
            &st, m, x->tenant, x->n,
            &(pb_step_limits){.rows = N * 27, .segments = N, .slots = N, .positions = 27}));
        for (size_t i = 0; i < N; i++)
            x->logits[o][i] = calloc((mixed_prompt(i) + DECODED) * V, sizeof(real));
        for (size_t round = 0; round < ROUNDS; round++) {
            size_t rows = 0, n = 0, who[MOST];
            for (size_t k = 0; k < (N + 4) / 5 * 5; k++) {
                size_t i = o == 0 ? k : o == 1 ? N - 1 - k : (k % 5 * ((N + 4) / 5) + k / 5);
                if (i >= N)
                    continue;
                size_t P = mixed_prompt(i), start = (i + o) % 3, pos = 0;
                int32_t own[27];
                if (round < start || (round > start && round - start > DECODED))
                    continue;
                tokens_at(own, P + DECODED, V, (uint32_t)(100 + i));
                size_t len = round == start ? P : 1;
                if (round > start)
                    pos = P + round - start - 1;
                memcpy(tokens + rows, own + pos, len * sizeof *own);
                seg[n] = (pb_segment){.row0 = rows,
                                      .n_rows = len,
                                      .pos0 = pos,
                                      .n_prompt = round == start ? P : 0,
                                      .tenant = i < 2 * x->n ? (int)(i % x->n) : -1,
                                      .slot = (int)i};
                who[n++] = i;
                rows += len;
            }
            real *y = logits_of(st, m, &(pb_batch){rows, n, tokens, seg}, false);
            for (size_t k = 0; k < n; k++)
                memcpy(x->logits[o][who[k]] + seg[k].pos0 * V, y + seg[k].row0 * V,
                       seg[k].n_rows * V * sizeof *y);
            free(y);
        }
        pb_step_free(st);
    }
}

static void mixed(const subject *s, size_t t)
{
    need_adapter(s);
    struct mixed *x = &mixed_of[t];
    const pb_model *m = backbone[t];
    if (!x->n)
        mixed_make(t);
    size_t mine = x->tenant_of[s - subjects];
    for (size_t i = 0; i < x->n_seq; i++) {
        bool bare = i >= 2 * x->n;
        if (bare ? s != subjects : i % x->n != mine)
            continue;
        size_t P = mixed_prompt(i);
        int32_t own[27];
        tokens_at(own, P + DECODED, m->config.vocab, (uint32_t)(100 + i));
        real *y = alone(m, bare ? NULL : x->tenant[mine], own, P + DECODED, P);
        for (size_t o = 0; o < ORDERS; o++) {
            // Who starts in the last round decodes less before the rounds end.
            size_t decoded = ROUNDS - 1 - (i + o) % 3;
            char what[80];
            snprintf(what, sizeof what, "%s sequence %zu in order %zu", bare ? "bare" : "mixed", i,
                     o);
            same(what, x->logits[o][i], y, P + (decoded < DECODED ? decoded : DECODED),
                 m->config.vocab);
        }
        free(y);
    }
}

static void mixed_free(void)
{
    for (size_t t = 0; t < N_TINIES; t++) {
        struct mixed *x = &mixed_of[t];
        for (size_t i = 0; i < x->n; i++)
            pb_adapter_free(x->tenant[i]);
        for (size_t o = 0; o < ORDERS; o++)
            for (size_t i = 0; i < x->n_seq; i++)
                free(x->logits[o][i]);
    }
}

static void causality(const subject *s, size_t t)
{
    need_adapter(s);
    const pb_model *m = backbone[t];
    size_t V = m->config.vocab;
    int32_t tokens[LONG];
    pb_adapter *a = scattered(s, t, false);
    tokens_at(tokens, LONG, V, 6);
    real *y = alone(m, a, tokens, LONG, SHORT);
    // Only a method that reads the prompt as a whole may look ahead, and only within the prompt.
    for (size_t at = s->m->prompt ? SHORT : 1; at < LONG; at += 17) {
        int32_t was = tokens[at];
        tokens[at] = (int32_t)((size_t)(was + 1) % V);
        real *z = alone(m, a, tokens, LONG, SHORT);
        same("rows before a changed token", z, y, at, V);
        if (!memcmp(z + at * V, y + at * V, V * sizeof *y))
            fail_msg("token %zu changed, but its row did not", at);
        free(z);
        tokens[at] = was;
    }
    free(y);
    pb_adapter_free(a);
}

// A prefix made of a text's keys and values is that text in front.
static void text(const subject *s, size_t t)
{
    int32_t tokens[64 + LONG];
    const pb_model *m = backbone[t];
    void *o = options_of(s);
    size_t n = s->m->text_len ? s->m->text_len(o) : 0, V = m->config.vocab;
    free(o);
    if (!n)
        SKIP("%s does not start from a text with these options", s->m->name);
    pb_adapter *a = fresh(s, t, false);
    tokens_at(tokens, n, V, TEXT);
    tokens_at(tokens + n, LONG, V, 8);
    real *y = alone(m, a, tokens + n, LONG, SHORT);
    real *z = alone(m, NULL, tokens, n + LONG, SHORT);
    near("prefix against text", y, z + n * V, LONG * V);
    free(y);
    free(z);
    pb_adapter_free(a);
}

// ---------------------------------------------------------------- merge, files, fold

static void merge(const subject *s, size_t t)
{
    need_adapter(s);
    pb_adapter *a = scattered(s, t, false), *f;
    pb_model *m = NULL;
    char path[400];
    OK(pb_adapter_folded(&f, a));
    OK(pb_adapter_serve(f, backbone[t]));
    snprintf(path, sizeof path, "%s/model%zu", tiny_folder, t);
    if (!s->m->merge) {
        assert_int_equal(pb_model_open(&m, path, &(pb_model_args){.merge = f}), PB_UNSUPPORTED);
        assert_non_null(strstr(pb_error_message(), s->m->name));
        assert_null(m);
    } else {
        int32_t tokens[LONG];
        size_t V = backbone[t]->config.vocab;
        tokens_at(tokens, LONG, V, 9);
        real *y = alone(backbone[t], a, tokens, LONG, SHORT);
        for (int way = 0; way < 3; way++) {
            // Frozen, trainable, and the form that was trained: refused, if it is not exact.
            pb_model_args args = {.trainable = way == 1, .merge = way == 2 ? a : f};
            pb_err err = pb_model_open(&m, path, &args);
            if (way < 2)
                OK(err);
            if (err)
                continue;
            real *z = alone(m, NULL, tokens, LONG, SHORT);
            near(way == 1   ? "merged into a trainable model"
                 : way == 2 ? "merged unfolded"
                            : "merged",
                 z, y, LONG * V);
            free(z);
            pb_model_close(m);
        }
        free(y);
    }
    pb_adapter_free(a);
    pb_adapter_free(f);
}

static void fold(const subject *s, size_t t)
{
    need_adapter(s);
    void *o = options_of(s);
    bool folds = s->m->fold && s->m->fold(o);
    free(o);
    if (!folds)
        SKIP("%s has nothing to fold with these options", s->m->name);
    int32_t tokens[LONG];
    pb_adapter *a = scattered(s, t, false), *f;
    tokens_at(tokens, LONG, backbone[t]->config.vocab, 10);
    OK(pb_adapter_folded(&f, a));
    OK(pb_adapter_serve(f, backbone[t]));
    real *y = alone(backbone[t], a, tokens, LONG, SHORT);
    real *z = alone(backbone[t], f, tokens, LONG, SHORT);
    near("folded", z, y, LONG * backbone[t]->config.vocab);
    scatter(&a->params, 77);
    pb_adapter_refresh(f, a);
    OK(pb_adapter_serve(a, backbone[t]));
    OK(pb_adapter_serve(f, backbone[t]));
    real *y2 = alone(backbone[t], a, tokens, LONG, SHORT);
    real *z2 = alone(backbone[t], f, tokens, LONG, SHORT);
    near("folded again", z2, y2, LONG * backbone[t]->config.vocab);
    free(y);
    free(z);
    free(y2);
    free(z2);
    pb_adapter_free(a);
    pb_adapter_free(f);
}

// Saved and loaded gives the same bits; the file holds what the layout says, the right way round.
static void files(const subject *s, size_t t)
{
    need_adapter(s);
    char path[400], file[440], key[256];
    int32_t tokens[LONG];
    pb_adapter *a = scattered(s, t, false), *b;
    pb_tensors *f;
    size_t saved = 0, count = 0, trainable = 0;
    if (s->m->variant) { // what is saved before it is folded is nobody's
        OK(pb_adapter_folded(&b, a));
        pb_adapter_free(a);
        a = b;
        OK(pb_adapter_serve(a, backbone[t]));
    }
    tokens_at(tokens, LONG, backbone[t]->config.vocab, 12);
    snprintf(path, sizeof path, "%s/adapter", tiny_folder);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", path);
    OK(pb_adapter_save(a, path));
    OK(pb_adapter_load(&b, path, &backbone[t]->config, NULL));
    OK(pb_adapter_serve(b, backbone[t]));
    real *y = alone(backbone[t], a, tokens, LONG, SHORT);
    real *z = alone(backbone[t], b, tokens, LONG, SHORT);
    same("loaded", z, y, LONG, backbone[t]->config.vocab);
    json_t *first, *again;
    OK(pb_peft_write(&first, a));
    OK(pb_peft_write(&again, b));
    assert_true(json_equal(first, again)); // every option comes back
    assert_true(s->m->variant ? !b->method->variant : b->method == s->m);
    json_decref(first);
    json_decref(again);
    OK(pb_tensors_open(&f, file));
    for (size_t i = 0; i < pb_tensors_count(f); i++)
        count += pb_tensors_at(f, i)->count;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *p = &a->layout.spec[i];
        bool turned = p->flags & PB_TRANSPOSED;
        const pb_tensor *x;
        trainable += p->flags & PB_FROZEN ? 0 : p->rows * p->cols;
        if (p->flags & PB_UNSAVED)
            continue;
        saved += p->rows * p->cols;
        OK(pb_adapter_key(key, sizeof key, p));
        if (p->flags & PB_VECTOR)
            OK(pb_tensors_need(f, key, p->cols, 0, &x));
        else
            OK(pb_tensors_need(f, key, turned ? p->cols : p->rows, turned ? p->rows : p->cols, &x));
        real *v = malloc(x->count * sizeof *v);
        pb_tensor_read(x, 0, x->count, v);
        for (size_t r = 0; r < p->rows; r++)
            for (size_t c = 0; c < p->cols; c++)
                if (!(v[turned ? c * p->rows + r : r * p->cols + c] ==
                      a->params.v[p->offset + r * p->cols + c]))
                    fail_msg("%s: (%zu,%zu) is another value in the file", key, r, c);
        free(v);
    }
    assert_int_equal(saved, a->layout.saved);
    assert_int_equal(saved, count);
    assert_int_equal(trainable, a->layout.trainable);
    pb_adapter *wrong = NULL;
    assert_int_not_equal(pb_adapter_load(&wrong, path, &tinies[!t].config, NULL), PB_OK);
    pb_adapter_free(wrong);
    pb_tensors_close(f);
    free(y);
    free(z);
    pb_adapter_free(a);
    pb_adapter_free(b);
}

// A larger knob means more parameters: what budget matching relies on.
static void knob(const subject *s, size_t t)
{
    if (!s->m->knob)
        SKIP("%s has no knob", s->m->name);
    size_t before = 0;
    for (int k = 1; k < 6; k++) {
        void *o = options_of(s);
        char value[8];
        pb_adapter *a;
        snprintf(value, sizeof value, "%d", k);
        OK(pb_options_set(s->m, o, s->m->knob, value));
        assert_int_equal(pb_options_knob(s->m, o), k);
        OK(pb_adapter_new(&a, s->m, o, &backbone[t]->config, false));
        assert_true(a->layout.counted > before);
        before = a->layout.counted;
        pb_adapter_free(a);
        free(o);
    }
}

// ---------------------------------------------------------------- gradient

typedef struct objective {
    trained x;
    pb_step *st;
    pb_batch b;
    int32_t target[100];
    real weight[100], nll[100];
} objective;

static double loss_at(objective *o, bool back)
{
    double sum = 0;
    if (!o->x.a)
        pb_model_repack(o->x.m);
    pb_mat *h = pb_forward(o->st, &o->b, true, 3, 4);
    pb_step_loss(o->st, h, o->target, o->weight, o->nll, NULL);
    if (back)
        pb_step_backward(o->st);
    for (size_t r = 0; r < o->b.n_rows; r++)
        if (o->target[r] >= 0)
            sum += (double)o->weight[r] * (double)o->nll[r];
    return sum;
}

// Slope along u (n values at v), which must agree with `slope` for one of the step sizes: a large
// step errs by curvature, a small one by rounding, a wrong gradient at all of them.
static void slope_is(objective *o, const char *what, real *v, const double *u, size_t n,
                     double slope, double scale)
{
    double err = INFINITY, best = 0, tol = 1e-6 * (fabs(slope) + scale) + 1e-10;
    real *was = malloc(n * sizeof *was);
    memcpy(was, v, n * sizeof *was);
    for (double h = 1e-3; h > 1e-7 && !(err <= tol); h /= 10) {
        double f[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++)
                v[i] = was[i] + (real)((side ? h : -h) * u[i]);
            f[side] = loss_at(o, false);
        }
        memcpy(v, was, n * sizeof *was);
        double d = (f[1] - f[0]) / (2 * h);
        if (!(fabs(d - slope) >= err)) {
            err = fabs(d - slope);
            best = d;
        }
    }
    free(was);
    if (!(err <= tol))
        fail_msg("%s: the gradient says %.10g, differences say %.10g", what, slope, best);
}

static void gradient(const subject *s, size_t t)
{
    if (!is_double)
        SKIP("differences need double precision");
    need_parameters(s, t);
    static const pb_segment seg[] = {{.row0 = 0, .n_rows = 5, .n_prompt = 2, .slot = -1},
                                     {.row0 = 5, .n_rows = 71, .n_prompt = 31, .slot = -1},
                                     {.row0 = 76, .n_rows = 8, .n_prompt = 8, .slot = -1}};
    enum { R = 84 };
    int32_t tokens[R];
    pb_segment own[3];
    pb_rng r = pb_rng_make(6, PB_STREAM_TEST, 0);
    objective o = {.x = trained_new(s, t, true), .b = {R, 3, tokens, own}};
    const pb_params *p = o.x.p;
    tokens_at(tokens, R, o.x.m->config.vocab, 13);
    tokens_at(o.target, R, o.x.m->config.vocab, 14);
    for (size_t i = 0; i < 3; i++) {
        own[i] = seg[i];
        own[i].tenant = o.x.a ? 0 : -1;
    }
    for (size_t i = 0; i < R; i++) {
        o.weight[i] = (real)(0.1 + pb_rng_uniform(&r));
        o.target[i] = i % 7 == 3 ? -1 : o.target[i];
    }
    OK(pb_step_new(&o.st, o.x.m, &o.x.a, o.x.a ? 1 : 0,
                   &(pb_step_limits){.rows = R, .segments = 3, .train = true}));
    // The head's gradient is made with the loss, so later losses add to it: keep a copy.
    size_t size = p->layout->size;
    real *grad = malloc(size * sizeof *grad);
    memset(p->d, 0, size * sizeof *p->d);
    loss_at(&o, true);
    memcpy(grad, p->d, size * sizeof *grad);
    double *u = calloc(size, sizeof *u), all = 0, total = 0;
    for (size_t i = 0; i < p->layout->n; i++) {
        const pb_spec *c = &p->layout->spec[i];
        size_t n = c->rows * c->cols, top = 0;
        real *v = p->v + c->offset;
        const real *d = grad + c->offset;
        char what[160];
        double norm = 0;
        snprintf(what, sizeof what, "layer %d %s", c->layer, c->name);
        for (size_t k = 0; k < n; k++) {
            norm += (double)d[k] * (double)d[k];
            top = fabs((double)d[k]) > fabs((double)d[top]) ? k : top;
            if (c->flags & PB_FROZEN && d[k] != 0)
                fail_msg("%s is frozen and has a gradient", what);
        }
        if (c->flags & PB_FROZEN)
            continue;
        // A column that no gradient reaches is one that the forward pass does not read.
        for (size_t k = 0; k < c->cols && !(c->flags & PB_CHOSEN); k++) {
            double most = 0;
            for (size_t j = 0; j < c->rows; j++)
                most = fmax(most, fabs((double)d[j * c->cols + k]));
            if (!(most > 0))
                fail_msg("%s: column %zu has no gradient", what, k);
        }
        double slope = 0;
        double *w = u + c->offset;
        for (size_t k = 0; k < n; k++) {
            w[k] = pb_rng_normal(&r) / sqrt((double)n);
            slope += w[k] * (double)d[k];
        }
        double typical = sqrt(norm / (double)n);
        slope_is(&o, what, v, w, n, slope, typical);
        total += slope;
        all += norm;
        for (int k = 0; k < 3; k++) { // single coordinates, the steepest among them
            size_t at = k ? pb_rng_below(&r, n) : top;
            slope_is(&o, what, v + at, &(double){1}, 1, (double)d[at], typical);
        }
    }
    slope_is(&o, "all together", p->v, u, size, total, sqrt(all) * 1e-2);
    free(u);
    free(grad);
    pb_step_free(o.st);
    trained_free(&o.x);
}

// ---------------------------------------------------------------- training

// Random prompts, always the same response.
static pb_seqs examples(size_t n, size_t V, size_t shortest, size_t longest, uint32_t which)
{
    pb_rng r = pb_rng_make(8, PB_STREAM_TEST, which);
    pb_seqs s = {.n = n, .longest = longest + 5};
    s.seq = malloc(n * sizeof *s.seq);
    s.tokens = malloc(n * (longest + 5) * sizeof *s.tokens);
    for (size_t i = 0; i < n; i++) {
        size_t P = shortest + pb_rng_below(&r, longest - shortest + 1);
        s.seq[i] = (pb_seq){s.n_tokens, (uint32_t)(P + 5), (uint32_t)P};
        for (size_t k = 0; k < P; k++)
            s.tokens[s.n_tokens++] = (int32_t)pb_rng_below(&r, V);
        for (size_t k = 0; k < 5; k++)
            s.tokens[s.n_tokens++] = (int32_t)(3 + 4 * k % 11);
    }
    return s;
}

enum { MOST_STEPS = 64 };

typedef struct diary {
    trained *x;
    double loss[MOST_STEPS + 1], valid[MOST_STEPS + 1];
    size_t steps, resumed;
    const char *copy_from, *copy_to; // the first checkpoint is put aside
    bool copied;
    bool theta_moved[MOST_STEPS + 1], rest_moved[MOST_STEPS + 1];
    double theta_step[MOST_STEPS + 1]; // largest change of a second-level parameter
    real *was;
} diary;

static pb_err on_step(void *self, const pb_train_point *p)
{
    diary *d = self;
    d->loss[p->step] = p->loss;
    d->steps = p->step;
    const pb_params *q = d->x->p;
    for (size_t i = 0; i < q->layout->n && d->was; i++) {
        const pb_spec *s = &q->layout->spec[i];
        for (size_t k = s->offset; k < s->offset + s->rows * s->cols; k++) {
            double change = fabs((double)q->v[k] - (double)d->was[k]);
            if (s->flags & PB_THETA && change > d->theta_step[p->step])
                d->theta_step[p->step] = change;
            if (change != 0 && s->flags & PB_THETA)
                d->theta_moved[p->step] = true;
            else if (change != 0)
                d->rest_moved[p->step] = true;
        }
    }
    if (d->was)
        memcpy(d->was, q->v, q->layout->size * sizeof *d->was);
    return PB_OK;
}

static pb_err on_valid(void *self, size_t step, double loss)
{
    ((diary *)self)->valid[step] = loss;
    return PB_OK;
}

static pb_err on_resumed(void *self, size_t step)
{
    ((diary *)self)->resumed = step;
    return PB_OK;
}

static pb_err on_saved(void *self)
{
    diary *d = self;
    pb_file f;
    if (d->copied || !d->copy_to)
        return PB_OK;
    PB_TRY(pb_file_map(&f, d->copy_from));
    d->copied = true;
    pb_err err = pb_file_write(d->copy_to, f.data, f.size);
    pb_file_unmap(&f);
    return err;
}

static pb_train_options few_steps(const subject *s, size_t steps)
{
    pb_train_options o;
    pb_train_defaults(&o);
    o.steps = steps;
    o.batch = 4;
    o.warmup = 0;
    o.schedule = PB_CONSTANT;
    o.eval_every = 0;
    o.lr = s->m->lr > 0 ? s->m->lr : 1e-3;
    return o;
}

static pb_train_result train(trained *x, const pb_seqs *data, const pb_seqs *valid,
                             const pb_train_options *o, diary *d)
{
    pb_train_result out;
    d->x = x;
    pb_train_hooks h = {d, on_step, on_valid, on_resumed, on_saved, NULL};
    OK(pb_train(x->m, x->a, data, valid, o, &h, &out));
    return out;
}

static double mean_loss(const trained *x, const pb_seqs *data)
{
    double loss;
    pb_adapter *f = NULL;
    if (x->a) {
        OK(pb_adapter_folded(&f, x->a));
        OK(pb_adapter_serve(f, x->m));
    }
    OK(pb_mean_loss(x->m, f, data, &loss));
    pb_adapter_free(f);
    return loss;
}

static void learns(const subject *s, size_t t)
{
    if (is_double)
        SKIP("seen in float");
    need_parameters(s, t);
    trained x = trained_new(s, t, false);
    pb_seqs data = examples(40, x.m->config.vocab, 2, 9, 1);
    pb_train_options o = few_steps(s, 50);
    diary d = {0};
    o.lr *= 2;
    double before = mean_loss(&x, &data);
    pb_train_result out = train(&x, &data, &data, &o, &d);
    double after = mean_loss(&x, &data);
    assert_int_equal(out.steps, 50);
    // A single query or key vector can do little on a backbone that knows nothing.
    if (!(after < 0.98 * before))
        fail_msg("the loss went from %g to %g in 50 steps", before, after);
    assert_true(out.best_valid == after);
    if (x.a) { // what is derived was kept up with the rest
        size_t n = x.p->layout->size;
        real *was = malloc((n + 1) * sizeof *was);
        memcpy(was, x.p->v, n * sizeof *was);
        OK(pb_adapter_derive(x.a, x.m));
        same("derived while training", was, x.p->v, 1, n);
        free(was);
    }
    pb_seqs_free(&data);
    trained_free(&x);
}

static void resume(const subject *s, size_t t)
{
    char one[400], two[400];
    snprintf(one, sizeof one, "%s/one", tiny_folder);
    snprintf(two, sizeof two, "%s/two", tiny_folder);
    pb_seqs data = examples(40, backbone[t]->config.vocab, 2, 9, 2);
    pb_seqs valid = examples(9, backbone[t]->config.vocab, 2, 12, 3);
    pb_train_options o = few_steps(s, 13);
    o.schedule = PB_COSINE;
    o.warmup = 2;
    o.accumulate = 2;
    o.eval_every = 4;
    o.checkpoint_every = 6;
    o.checkpoint = one;
    diary whole = {.copy_from = one, .copy_to = two}, rest = {0};
    trained x = trained_new(s, t, false), y = trained_new(s, t, false);
    pb_train_result a = train(&x, &data, &valid, &o, &whole);
    assert_true(whole.copied);
    assert_false(pb_exists(one));
    o.checkpoint = two;
    pb_train_result b = train(&y, &data, &valid, &o, &rest);
    assert_int_equal(rest.resumed, 6);
    for (size_t i = 1; i <= 13; i++) {
        double was = i <= 6 ? 0 : whole.loss[i], was_valid = i <= 6 ? 0 : whole.valid[i];
        if (rest.loss[i] != was || rest.valid[i] != was_valid)
            fail_msg("step %zu: loss %.17g, validation %.17g; uninterrupted %.17g, %.17g", i,
                     rest.loss[i], rest.valid[i], was, was_valid);
    }
    same("resumed", y.p->v, x.p->v, 1, x.p->layout->size);
    assert_int_equal(a.tokens, b.tokens);
    assert_int_equal(a.best_step, b.best_step);
    assert_true(a.best_valid == b.best_valid && a.first_loss == b.first_loss);
    pb_seqs_free(&data);
    pb_seqs_free(&valid);
    trained_free(&x);
    trained_free(&y);
}

// A checkpoint of the same size that belongs to other options or another seed is not continued.
static void other_work(const subject *s, size_t t)
{
    if (t || *s->options)
        SKIP("once per method");
    char one[400], two[400];
    snprintf(one, sizeof one, "%s/one", tiny_folder);
    snprintf(two, sizeof two, "%s/two", tiny_folder);
    pb_seqs data = examples(40, backbone[t]->config.vocab, 2, 9, 2);
    pb_train_options o = few_steps(s, 3);
    o.checkpoint_every = 1;
    o.checkpoint = one;
    diary d = {.copy_from = one, .copy_to = two};
    trained x = trained_new(s, t, false);
    train(&x, &data, &data, &o, &d);
    assert_true(d.copied);
    pb_file f;
    OK(pb_file_map(&f, two));
    o.checkpoint_every = 0;
    o.seed++;
    OK(pb_file_write(one, f.data, f.size));
    d = (diary){0};
    train(&x, &data, &data, &o, &d);
    o.seed--;
    if (d.resumed)
        fail_msg("continued the work of another seed");
    for (const pb_option *p = s->m->options; x.a && p->name; p++) {
        subject other = *s;
        size_t n = strlen(other.options);
        if (p->type == PB_OPT_REAL)
            snprintf(other.options + n, sizeof other.options - n, " %s=0.0625", p->name);
        else if (p->type == PB_OPT_BOOL)
            snprintf(other.options + n, sizeof other.options - n, " %s=%s", p->name,
                     strstr(s->options, "true") ? "false" : "true");
        else
            continue;
        trained y = trained_new(&other, t, false);
        json_t *a = pb_options_to_json(s->m, x.a->options);
        json_t *b = pb_options_to_json(s->m, y.a->options);
        if (!json_equal(a, b) && y.p->layout->size == x.p->layout->size) {
            OK(pb_file_write(one, f.data, f.size));
            d = (diary){0};
            train(&y, &data, &data, &o, &d);
            if (d.resumed)
                fail_msg("continued the work of other options: %s", other.options);
        }
        json_decref(a);
        json_decref(b);
        trained_free(&y);
    }
    pb_file_unmap(&f);
    pb_seqs_free(&data);
    trained_free(&x);
}

static void threads(const subject *s, size_t t)
{
    // Enough rows and columns that every operation goes parallel, see PB_PARALLEL_WORK.
    enum { SEQS = 8, LEN = 110 };
    if (is_double)
        SKIP("seen in float");
    if (tinies[t].config.width < 40)
        SKIP("this backbone is too narrow for parallel work");
    size_t V = backbone[t]->config.vocab;
    pb_seqs data = examples(16, V, LEN - 30, LEN, 4);
    pb_segment seg[SEQS];
    real *first = NULL, *values = NULL;
    static int32_t tokens[SEQS * LEN];
    tokens_at(tokens, SEQS * LEN, V, 15);
    for (int n = 1; n <= 3; n++) {
        OK(pb_threads_set(n));
        trained x = trained_new(s, t, true);
        pb_step *st;
        for (size_t i = 0; i < SEQS; i++)
            seg[i] = (pb_segment){.row0 = i * LEN,
                                  .n_rows = LEN,
                                  .n_prompt = 1 + 17 * i,
                                  .tenant = x.a ? 0 : -1,
                                  .slot = -1};
        OK(pb_step_new(&st, x.m, &x.a, x.a ? 1 : 0,
                       &(pb_step_limits){.rows = SEQS * LEN, .segments = SEQS}));
        real *y = logits_of(st, x.m, &(pb_batch){SEQS * LEN, SEQS, tokens, seg}, false);
        pb_step_free(st);
        pb_train_options o = few_steps(s, 2);
        o.batch = 6;
        diary d = {0};
        train(&x, &data, &data, &o, &d);
        if (n == 1) {
            first = y;
            values = malloc(x.p->layout->size * sizeof *values + 1);
            memcpy(values, x.p->v, x.p->layout->size * sizeof *values);
        } else {
            char what[40];
            snprintf(what, sizeof what, "forward with %d threads", n);
            same(what, y, first, SEQS * LEN, V);
            snprintf(what, sizeof what, "training with %d threads", n);
            same(what, x.p->v, values, 1, x.p->layout->size);
            free(y);
        }
        trained_free(&x);
    }
    OK(pb_threads_set(1));
    free(first);
    free(values);
    pb_seqs_free(&data);
}

// Second-level parameters move in their own steps only, at their own rate; frozen ones never.
static void bilevel(const subject *s, size_t t)
{
    need_adapter(s);
    if (!has(s, t, PB_THETA))
        SKIP("%s has no second level with these options", s->m->name);
    trained x = trained_new(s, t, false);
    pb_bilevel bi = {.every = 1};
    bool on = s->m->bilevel && s->m->bilevel(x.a->options, &bi);
    pb_seqs data = examples(40, x.m->config.vocab, 2, 9, 5);
    pb_seqs valid = examples(8, x.m->config.vocab, 2, 12, 6);
    pb_train_options o = few_steps(s, 7);
    for (int still = 0; still < 2; still++) { // then with the first level at rest
        diary d = {.was = malloc(x.p->layout->size * sizeof *d.was)};
        memcpy(d.was, x.p->v, x.p->layout->size * sizeof *d.was);
        o.lr = still ? 0 : o.lr;
        train(&x, &data, &valid, &o, &d);
        for (size_t i = 1; i <= 7; i++) {
            // Second-level gradients are zero while the generator's output is multiplied by zero.
            bool now = on && i % bi.every == 0;
            if (d.theta_moved[i] != now)
                fail_msg("step %zu: the second level %s", i, now ? "rests" : "moves");
            if (d.rest_moved[i] != !still)
                fail_msg("step %zu: the first level %s", i, still ? "moves" : "rests");
            // Adam moves every value by about the rate; float's resolution is seen at 1e-6.
            double low = 0.1 * bi.lr, high = 3 * bi.lr + 1e-7;
            if (now && !(d.theta_step[i] > low && d.theta_step[i] < high))
                fail_msg("step %zu: the second level moves by %g at the rate %g", i,
                         d.theta_step[i], bi.lr);
        }
        free(d.was);
    }
    pb_seqs_free(&data);
    pb_seqs_free(&valid);
    trained_free(&x);
}

// ---------------------------------------------------------------- all of them

static const struct {
    const char *name;
    void (*run)(const subject *s, size_t t);
} checks[] = {
    {"identity at the start", identity},
    {"parameters matter", acts},
    {"recording == inference", recorded},
    {"gradient", gradient},
    {"cached decoding == full forward", decode},
    {"mixed batch == alone", mixed},
    {"any number of threads", threads},
    {"causality", causality},
    {"text as prefix", text},
    {"merge", merge},
    {"fold", fold},
    {"files", files},
    {"knob", knob},
    {"learns", learns},
    {"exact resume", resume},
    {"checkpoint of other work", other_work},
    {"second level", bilevel},
};
enum { N_CHECKS = sizeof checks / sizeof *checks };

struct point {
    const subject *s;
    size_t tiny, check;
};

static void run_point(void **state)
{
    const struct point *p = *state;
    checks[p->check].run(p->s, p->tiny);
}

static int set_up(void **state)
{
    pb_log_quiet(true);
    if (tiny_folder_make(state) || pb_threads_set(1))
        return -1;
    for (size_t t = 0; t < N_TINIES; t++)
        backbone[t] = tiny_open(t, &(pb_model_args){0});
    return 0;
}

static int tear_down(void **state)
{
    mixed_free();
    for (size_t t = 0; t < N_TINIES; t++)
        pb_model_close(backbone[t]);
    return tiny_folder_remove(state);
}

// With an argument, only tests whose name contains it.
int main(int argc, char **argv)
{
    enum { NAME = 220 };
    add_all();
    size_t most = n_subjects * N_TINIES * N_CHECKS, n = 0;
    struct CMUnitTest *tests = calloc(most, sizeof *tests);
    struct point *points = calloc(most, sizeof *points);
    char(*names)[NAME] = calloc(most, sizeof *names);
    if (!tests || !points || !names)
        return 1;
    for (size_t i = 0; i < n_subjects; i++)
        for (size_t t = 0; t < N_TINIES; t++)
            for (size_t c = 0; c < N_CHECKS; c++) {
                const subject *s = &subjects[i];
                points[n] = (struct point){s, t, c};
                snprintf(names[n], NAME, "%s%s%s, %s: %s", s->m->name, *s->options ? " " : "",
                         s->options, tinies[t].name, checks[c].name);
                if (argc > 1 && !strstr(names[n], argv[1]))
                    continue;
                tests[n] = (struct CMUnitTest){
                    .name = names[n], .test_func = run_point, .initial_state = &points[n]};
                n++;
            }
    int failed = _cmocka_run_group_tests("methods", tests, n, set_up, tear_down);
    free(tests);
    free(points);
    free(names);
    return failed ? 1 : 0;
}
