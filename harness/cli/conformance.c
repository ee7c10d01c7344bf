// `pedrobench conformance`: the checks that every method must pass, on one or on all.
#include "cli/common/common.h"
#include "conformance/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char **method, **set;
    size_t n_methods, n_sets;
    const char *only;
    bool list, here, verbose;
};

enum { KEY_LIST = 500, KEY_HERE };

static const struct argp_option opts[] = {
    {"set", 's', "OPTIONS", 0, "Check these settings too: \"rank=5 targets=q,v\" (repeatable)", 0},
    {"only", 'k', "TEXT", 0,
     "Only checks whose name (\"METHOD OPTIONS, BACKBONE: CHECK\") contains this", 0},
    {"list", KEY_LIST, NULL, 0, "List the checks", 0},
    {"here", KEY_HERE, NULL, 0, "Run in this process, for a debugger", 0},
    {"verbose", 'v', NULL, 0, "Name what passed and what does not apply too", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 's':
        a->set[a->n_sets++] = arg;
        break;
    case 'k':
        a->only = arg;
        break;
    case KEY_LIST:
        a->list = true;
        break;
    case KEY_HERE:
        a->here = true;
        break;
    case 'v':
        a->verbose = true;
        break;
    case ARGP_KEY_ARG:
        a->method[a->n_methods++] = arg;
        break;
    case ARGP_KEY_END:
        if (a->n_sets && a->n_methods != 1)
            argp_error(state, "--set needs one METHOD");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "[METHOD...]",
    "Checks methods (all of them, when none is named) on three small backbones with random "
    "weights: gradients, cached decoding, mixed batches, files, training and more, with the "
    "default "
    "options and with every value of switches and lists. Every mistake is named; the exit code is "
    "1 when there is one.\v"
    "Examples:\n  pedrobench conformance lora\n"
    "  pedrobench conformance lora+prefix --set \"lora.rank=5 prefix.length=3\"\n"
    "  pedrobench conformance pedro --only gradient --verbose\n  pedrobench conformance --list",
    NULL,
    NULL,
    NULL};

typedef struct tally {
    size_t n[3];
    bool verbose;
} tally;

static void found(void *self, const pb_finding *f)
{
    static const char *const words[] = {"passed", "FAILED", "does not apply"};
    tally *t = self;
    bool note = f->verdict == PB_PASSED && *f->why;
    t->n[f->verdict]++;
    if (f->verdict != PB_FAILED && !note && !t->verbose)
        return;
    printf("%s: %s%s%s\n", f->name, note ? "note" : words[f->verdict], *f->why ? ": " : "", f->why);
    if (*f->hint)
        printf("  hint: %s\n", f->hint);
    fflush(stdout);
}

// Settings that cannot be set are a mistake of the command line, not of the method.
static pb_err try_options(const pb_method *m, const char *settings)
{
    void *o;
    PB_TRY(pb_options_new(&o, m));
    char *text = strdup(settings), *save = NULL;
    pb_err err = text ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for settings");
    for (char *w = text ? strtok_r(text, " ", &save) : NULL; w && !err;
         w = strtok_r(NULL, " ", &save))
        err = pb_options_assign(m, o, w);
    free(text);
    free(o);
    return err;
}

static pb_err check(const pb_method *m, const struct args *a, size_t *failed)
{
    pb_err err = PB_OK;
    pb_subjects list = {0};
    tally t = {.verbose = a->verbose};
    pb_conformance_args args = {.only = a->only, .here = a->here, .self = &t, .found = found};
    PB_GO(pb_subjects_of(&list, m));
    for (size_t i = 0; i < a->n_sets; i++) {
        PB_GO(try_options(m, a->set[i]));
        PB_GO(pb_subjects_add(&list, m, a->set[i], false, true));
    }
    PB_GO(pb_conformance_run(&list, &args));
    printf("%s: %zu checks passed, %zu failed, %zu do not apply\n", m->name, t.n[PB_PASSED],
           t.n[PB_FAILED], t.n[PB_SKIPPED]);
    *failed += t.n[PB_FAILED];
done:
    pb_subjects_free(&list);
    return err;
}

static pb_err run(int argc, char **argv)
{
    pb_err err = PB_OK;
    struct args a = {.method = calloc((size_t)argc, sizeof *a.method),
                     .set = calloc((size_t)argc, sizeof *a.set)};
    const pb_method *m;
    size_t failed = 0;
    if (!a.method || !a.set)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the arguments"));
    argp_parse(&argp, argc, argv, 0, 0, &a);
    for (size_t i = 0; a.list && pb_conformance_checks[i][0]; i++)
        printf("%-31s %s\n", pb_conformance_checks[i][0], pb_conformance_checks[i][1]);
    for (size_t i = 0; !a.list && i < a.n_methods; i++) {
        m = pb_method_find(a.method[i]);
        PB_GO(m ? check(m, &a, &failed) : PB_USAGE);
    }
    for (size_t i = 0; !a.list && !a.n_methods && (m = pb_method_at(i)); i++)
        PB_GO(check(m, &a, &failed));
    if (failed)
        err = pb_fail(PB_INPUT, "methods/README.md explains the common ones", "%zu checks failed",
                      failed);
done:
    free(a.method);
    free(a.set);
    return err;
}

PB_COMMAND(conformance) = {"conformance", "check methods: gradients, caching, batches, files", 24,
                           run};
