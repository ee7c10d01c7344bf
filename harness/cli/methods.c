// `pedrobench methods`: the methods and their options.
#include "cli/common/common.h"

#include <stdio.h>
#include <string.h>

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const char **show = state->input;
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (*show)
        argp_error(state, "one method at a time");
    *show = arg;
    return 0;
}

static const struct argp argp = {NULL,
                                 parse,
                                 "[METHOD]",
                                 "Lists the methods, or shows the options of one.\v"
                                 "Examples:\n  pedrobench methods\n  pedrobench methods pedro",
                                 NULL,
                                 NULL,
                                 NULL};

static void show(const pb_method *m)
{
    printf(
        "%s: %s\nsource: %s\nsize knob: %s\ndefault learning rate: %g\nidentity at the start: %s\n"
        "can be merged: %s\nprefill in chunks: %s\n",
        m->name, m->doc, m->citation, m->knob ? m->knob : "none", m->lr, m->identity ? "yes" : "no",
        m->merge ? "yes" : "no", m->whole_prompt ? "no" : "yes");
    if (m->variant && *m->variant)
        printf("other defaults: %s\n", m->variant);
    for (const pb_option *o = m->options; o->name; o++) {
        printf("  %-14s %s (default %s)\n", o->name, o->doc, o->def);
        if (o->names) {
            printf("  %-14s %s", "", o->type == PB_OPT_ENUM ? "one of" : "any of");
            for (int i = 0; o->names[i]; i++)
                printf(" %s", o->names[i]);
            printf("\n");
        }
    }
}

static pb_err run(int argc, char **argv)
{
    const char *name = NULL;
    argp_parse(&argp, argc, argv, 0, 0, &name);
    if (name) {
        const pb_method *m = pb_method_find(name);
        if (!m)
            return PB_USAGE;
        show(m);
        return PB_OK;
    }
    printf("%-8s %-9s %s\n", "method", "knob", "what");
    for (size_t i = 0; pb_methods[i]; i++)
        printf("%-8s %-9s %s\n", pb_methods[i]->name,
               pb_methods[i]->knob ? pb_methods[i]->knob : "-", pb_methods[i]->doc);
    return PB_OK;
}

PB_COMMAND(methods) = {"methods", "list methods, or show the options of one", 21, run};
