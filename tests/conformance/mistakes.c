// Methods with one mistake each: the conformance checks must name it. Half of these tables could
// stand in a paper's repository.
#include "conformance/conformance.h"
#include "model/adapter.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// ---------------------------------------------------------------- what is right

struct o {
    long r;
    double alpha;
    bool on;
};

static const pb_option options[] = {
    {"r", PB_OPT_INT, offsetof(struct o, r), "3", 1, 64, NULL, "rank", true},
    {"alpha", PB_OPT_REAL, offsetof(struct o, alpha), "1", 0, 100, NULL, "scale", true},
    {"on", PB_OPT_BOOL, offsetof(struct o, on), "true", 0, 0, NULL, "a switch", true},
    {0}};

static const double rates[] = {1e-3, 1e-2, 0};

enum { A, B, EXTRA };

static void add(pb_layout *l, const void *options_, const pb_config *c, size_t in, pb_init B_init)
{
    const struct o *o = options_;
    for (int i = 0; i < (int)c->layers; i++) {
        pb_layout_add(l, i, A, "a", (size_t)o->r, in, PB_INIT_UNIFORM, 0.2, 0);
        pb_layout_add(l, i, B, "b", (size_t)o->r, pb_linear_out(c, PB_LIN_V), B_init, 0.1, 0);
    }
}

static pb_err layout(pb_layout *l, const void *o, const pb_config *c)
{
    add(l, o, c, c->width, PB_INIT_ZERO);
    return PB_OK;
}

static pb_mat *site(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)o;
    if (s == PB_SITE_V)
        pb_low_rank(c, y, x, A, B);
    return y;
}

static size_t state(const void *o, const pb_config *c)
{
    (void)o;
    return pb_linear_out(c, PB_LIN_V);
}

static void prompt(pb_ctx *c, const void *o, pb_mat *vectors, pb_mat *before, pb_mat *after)
{
    (void)o, (void)before;
    pb_up(c, vectors, pb_down(c, pb_pool(c, after, PB_POOL_MEAN, 0), A), B);
}

static pb_mat *scaling(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)o, (void)x;
    return s == PB_SITE_V ? pb_scale(c, y, pb_state(c), 0, true, false) : y;
}

static pb_err layout_in(pb_layout *l, const void *o, const pb_config *c)
{
    for (int i = 0; i < (int)c->layers; i++)
        pb_layout_add(l, i, EXTRA, "s", 1, c->width, PB_INIT_ZERO, 0, 0);
    return layout(l, o, c);
}

static pb_mat *layer_in(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    if (s == PB_SITE_LAYER_IN)
        pb_shift(c, y, EXTRA);
    return site(c, o, s, x, y);
}

// ---------------------------------------------------------------- and what is wrong

static pb_err too_narrow(pb_layout *l, const void *o, const pb_config *c)
{
    add(l, o, c, c->width - 1, PB_INIT_ZERO);
    return PB_OK;
}

static pb_err forgotten(pb_layout *l, const void *o, const pb_config *c)
{
    pb_layout_add(l, 0, EXTRA, "extra", 2, 2, PB_INIT_ZERO, 0, 0);
    return layout(l, o, c);
}

static pb_err twice(pb_layout *l, const void *o, const pb_config *c)
{
    pb_layout_add(l, 0, A, "extra", 2, 2, PB_INIT_ZERO, 0, 0);
    return layout(l, o, c);
}

static pb_err started(pb_layout *l, const void *o, const pb_config *c)
{
    add(l, o, c, c->width, PB_INIT_NORMAL);
    return PB_OK;
}

static pb_err infinite(pb_layout *l, const void *o, const pb_config *c)
{
    PB_TRY(layout(l, o, c));
    l->spec[0].gain = INFINITY;
    return PB_OK;
}

static pb_mat *other_id(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)o;
    if (s == PB_SITE_V)
        pb_up(c, y, pb_down(c, x, EXTRA), B);
    return y;
}

static pb_mat *nothing(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)site(c, o, s, x, y);
    return s == PB_SITE_V ? NULL : y;
}

static pb_mat *the_input(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)site(c, o, s, x, y);
    return s == PB_SITE_V ? x : y;
}

static pb_mat *never(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)c, (void)o, (void)s, (void)x;
    return y;
}

static void *leak;

static pb_mat *allocates(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    void **more = malloc(1000);
    *more = leak;
    leak = more;
    return site(c, o, s, x, y);
}

static pb_mat *prints(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    if (s == PB_SITE_V && !c->dry)
        printf("rows: %zu\n", y->rows);
    return site(c, o, s, x, y);
}

static pb_mat *crashes(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    return pb_state(c)->rows ? site(c, o, s, x, y) : y;
}

static pb_mat *ends(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    if (s == PB_SITE_FFN_OUT)
        exit(3);
    return site(c, o, s, x, y);
}

static pb_mat *by_hand(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    y = site(c, o, s, x, y);
    for (size_t i = 0; s == PB_SITE_V && !c->dry && i < y->rows * y->cols; i++)
        y->v[i] = (real)tanh((double)y->v[i]);
    return y;
}

static pb_mat *counts(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    static long steps;
    (void)o;
    if (s == PB_SITE_V && (++steps / 10) % 2)
        pb_low_rank(c, y, x, A, B);
    return y;
}

static pb_mat *draws(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    static long drawn;
    bool odd = s == PB_SITE_V && c->training && !c->dry && drawn++ % 2;
    return site(c, o, s, odd ? pb_activate(c, x, PB_RELU) : pb_activate(c, x, PB_TANH), y);
}

static pb_mat *pools_late(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    (void)o;
    if (s != PB_SITE_V)
        return y;
    pb_mat *l = pb_zeros(c, y->cols);
    if (c->seg[0].n_prompt)
        pb_up(c, l, pb_down(c, pb_pool(c, x, PB_POOL_LAST, 0), A), B);
    return pb_scale(c, y, l, 0, true, false);
}

static pb_mat *for_all(pb_ctx *c, const void *o, pb_site s, pb_mat *x, pb_mat *y)
{
    if (s == PB_SITE_V)
        pb_low_rank(c, y, ((const struct o *)o)->on ? x : pb_activate(c, x, PB_RELU), A, B);
    return y;
}

static pb_err half(const pb_params *p, const pb_merge_args *m)
{
    const real *a = pb_values(p, m->layer, A, NULL, NULL);
    if (m->linear == PB_LIN_V)
        m->w[0] += a[0];
    return PB_OK;
}

static pb_err refuses(const pb_params *p, const pb_merge_args *m)
{
    (void)p, (void)m;
    return pb_fail(PB_UNSUPPORTED, NULL, "method wrong is never exact");
}

static bool fold(void *o)
{
    ((struct o *)o)->alpha = 0;
    return true;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    (void)to, (void)from, (void)config;
}

static size_t prefix_len(const void *o)
{
    return (size_t)((const struct o *)o)->r;
}

static void short_prefix(pb_ctx *c, const void *o, pb_mat **k, pb_mat **v)
{
    (void)o;
    *k = *v = pb_own(c, A);
}

static const pb_option no_default[] = {
    {"r", PB_OPT_INT, offsetof(struct o, r), NULL, 1, 64, NULL, "rank", true}, {0}};
static const pb_option sharing[] = {
    {"r", PB_OPT_INT, offsetof(struct o, r), "3", 1, 64, NULL, "rank", true},
    {"alpha", PB_OPT_REAL, offsetof(struct o, r), "1", 0, 100, NULL, "scale", true},
    {0}};
static const pb_peft_key unknown_key[] = {{"r", .option = "rank"}, {0}};

#define RIGHT                                                                                      \
    .name = "wrong", .doc = "a mistake", .citation = "none", .peft_type = "WRONG",                 \
    .options = options, .options_size = sizeof(struct o), .knob = "r", .identity = true,           \
    .lr_grid = rates, .lr = 1e-2, .layout = layout
#define STATE .state = state, .prompt = prompt, .site = scaling

// What RIGHT says is said again, otherwise.
#pragma GCC diagnostic ignored "-Woverride-init"
static const struct {
    const char *mistake, *said; // "": none
    pb_method m;
} cases[] = {
    {"none", "", {RIGHT, .site = site}},
    {"none, editing the layer's input", "", {RIGHT, .layout = layout_in, .site = layer_in}},
    {"none, with state", "", {RIGHT, STATE, .whole_prompt = true}},
    {"wrong shape",
     "\"a\" is \\(3,19\\), which does not fit the 20 columns of x",
     {RIGHT, .layout = too_narrow, .site = site}},
    {"forgotten parameter",
     "extra has no gradient: nothing that is trained reads it",
     {RIGHT, .layout = forgotten, .site = site}},
    {"an id twice", "share the id 0", {RIGHT, .layout = twice, .site = site}},
    {"an id that layout did not give", "gave the id 2 to no matrix", {RIGHT, .site = other_id}},
    {"no identity",
     "a fresh adapter changes the backbone's output",
     {RIGHT, .layout = started, .site = site}},
    {"infinite at the start", "starts with the value", {RIGHT, .layout = infinite, .site = site}},
    {"returns NULL", "site V in layer 0: it returns NULL", {RIGHT, .site = nothing}},
    {"returns another shape", "it returns \\(72,20\\) in place of", {RIGHT, .site = the_input}},
    {"never acts", "random parameters change the last row's logits by 0", {RIGHT, .site = never}},
    {"allocates", "a hook allocates memory", {RIGHT, .site = allocates}},
    {"prints", "it prints: rows:", {RIGHT, .site = prints}},
    {"crashes", "it crashes: Segmentation fault", {RIGHT, .site = crashes}},
    {"ends the program", "it ends the program with code 3", {RIGHT, .site = ends}},
    {"gradient missing", "the gradient says .*, differences say", {RIGHT, .site = by_hand}},
    {"keeps something",
     "while training, the forward pass computes something else|a prompt that "
     "is cached|decoding",
     {RIGHT, .site = counts}},
    {"random numbers of its own", "gradients with recomputation", {RIGHT, .site = draws}},
    {"state not declared",
     "there is no l; per-sequence state needs `state` and `prompt`",
     {RIGHT, .site = scaling}},
    {"prompt missing",
     "`state` is there, but `prompt` is missing",
     {RIGHT, .state = state, .site = scaling}},
    {"state computed at a site",
     "decoding token by token|a prompt that is cached",
     {RIGHT, .whole_prompt = true, .site = pools_late}},
    {"whole_prompt not declared", "a prompt that is cut", {RIGHT, STATE}},
    {"per_tenant, but for all", "in a mixed batch", {RIGHT, .site = for_all}},
    {"merge is another", "merged: differs by", {RIGHT, .site = site, .merge = half}},
    {"merge refuses everywhere",
     "refuses to be merged everywhere",
     {RIGHT, .site = site, .merge = refuses}},
    {"fold is another",
     "folded: differs by",
     {RIGHT, .site = site, .fold = fold, .fold_values = fold_values}},
    {"fold_values missing",
     "`fold` is there, but `fold_values` is missing",
     {RIGHT, .site = site, .fold = fold}},
    {"prefix of another shape",
     "k and v are not \\(3,12\\) both",
     {RIGHT, .site = site, .prefix_len = prefix_len, .prefix = short_prefix}},
    {"no rate", "\\.lr is missing", {RIGHT, .site = site, .lr = 0}},
    {"no rates", "\\.lr_grid is missing", {RIGHT, .site = site, .lr_grid = NULL}},
    {"rate too small", "the loss went from", {RIGHT, .site = site, .lr = 1e-9}},
    {"no layout", "`layout` is missing", {RIGHT, .site = site, .layout = NULL}},
    {"name", "the name \"Wrong\" has a 'W'", {RIGHT, .site = site, .name = "Wrong"}},
    {"a type that is taken", "that of method lora", {RIGHT, .site = site, .peft_type = "LORA"}},
    {"no documentation", "\\.doc, one line", {RIGHT, .site = site, .doc = NULL}},
    {"knob is no option", "\\.knob is \"rank\"", {RIGHT, .site = site, .knob = "rank"}},
    {"default missing",
     "option \"r\" has no default",
     {RIGHT, .site = site, .options = no_default}},
    {"options that share memory",
     "\"r\" and \"alpha\" share memory",
     {RIGHT, .site = site, .options = sharing}},
    {"options_size",
     "lies outside the options struct",
     {RIGHT, .site = site, .options_size = sizeof(long)}},
    {"key of no option",
     "holds an option \"rank\"",
     {RIGHT, .site = site, .peft_keys = unknown_key}},
};

// ---------------------------------------------------------------- the test

typedef struct search {
    regex_t want;
    bool seen;
    size_t failed;
    char first[1200];
} search;

static void found(void *self, const pb_finding *f)
{
    search *s = self;
    if (f->verdict != PB_FAILED)
        return;
    if (!s->failed++)
        snprintf(s->first, sizeof s->first, "%s: %s", f->name, f->why);
    s->seen |= regexec(&s->want, f->why, 0, NULL, 0) == 0;
}

static bool named(const char *mistake, const char *said, const pb_method *m)
{
    pb_subjects list = {0};
    search s = {0};
    pb_conformance_args args = {.self = &s, .found = found};
    if (regcomp(&s.want, said, REG_EXTENDED | REG_NOSUB))
        return false;
    // What is right must pass files too, which looks it up.
    pb_err err = *said ? PB_OK : pb_method_register(m);
    if (!err)
        err = pb_subjects_add(&list, m, "", false, !*said);
    if (!err && m->options == options)
        err = pb_subjects_add(&list, m, "on=false", false, false);
    if (!err)
        err = pb_conformance_run(&list, &args);
    bool fine = !err && (*said ? s.seen : !s.failed);
    if (!fine)
        printf("%s: FAILED: %zu findings, none says \"%s\"; the first: %s%s\n", mistake, s.failed,
               said, s.first, err ? pb_error_message() : "");
    regfree(&s.want);
    pb_subjects_free(&list);
    return fine;
}

int main(void)
{
    size_t failed = 0, n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        int status = 1;
        pid_t pid = fork(); // what is registered stays
        if (!pid)
            exit(!named(cases[i].mistake, cases[i].said, &cases[i].m));
        waitpid(pid, &status, 0);
        failed += status != 0;
    }
    printf("%zu mistakes, %zu not named\n", n, failed);
    return failed ? 1 : 0;
}
