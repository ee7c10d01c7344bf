// `pedrobench tasks`: what there is to train on, and how it looks to the model.
#include "cli/common/common.h"
#include "tasks/common/plaintext.h"
#include "tasks/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *show, *data;
    size_t seed, count, plaintext;
};

static const struct argp_option opts[] = {
    {"data", 'd', "DIR", 0, "Folder with the original files of data sets", 0},
    {"task-seed", 'S', "N", 0, "Seed of generated tasks and text (default 1)", 0},
    {"plaintext", 'p', "N", 0,
     "Print the generated plain text instead: the N bytes that `pretrain --bytes N` trains on", 0},
    {"count", 'n', "N", 0, "Examples to show (default 3)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'd':
        a->data = arg;
        break;
    case 'S':
        if (pb_parse_size(arg, "--task-seed", &a->seed))
            pb_usage_error(state);
        break;
    case 'p':
        if (pb_parse_size(arg, "--plaintext", &a->plaintext))
            pb_usage_error(state);
        if (!a->plaintext)
            argp_error(state, "--plaintext 0 is no text");
        break;
    case 'n':
        if (pb_parse_size(arg, "--count", &a->count))
            pb_usage_error(state);
        break;
    case ARGP_KEY_ARG:
        if (a->show)
            argp_error(state, "one task at a time");
        a->show = arg;
        break;
    case ARGP_KEY_END:
        if (a->show && a->plaintext)
            argp_error(state, "a task, or --plaintext");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "[TASK]",
    "Lists the tasks, or shows examples of one: the prompt, and in brackets the response that "
    "carries the loss.\v"
    "Examples:\n  pedrobench tasks\n  pedrobench tasks yesno --count 5\n"
    "  pedrobench tasks e2e --data DATA\n  pedrobench tasks --plaintext 500",
    NULL,
    NULL,
    NULL};

static pb_err show(const struct args *a)
{
    pb_dataset *d;
    pb_task_args args = {.data = a->data, .seed = a->seed};
    PB_TRY(pb_task_load(&d, a->show, &args));
    const pb_task *t = pb_task_find(a->show);
    char hash[65];
    pb_dataset_hash(d, hash);
    printf("%s: %s\nsource: %s\nlicence: %s\nversion %s, content %.16s\nmetric: %s\n"
           "examples: %zu train, %zu validation, %zu test\n",
           t->name, t->doc, t->source, t->licence, t->version, hash, t->metric,
           pb_dataset_count(d, PB_TRAIN), pb_dataset_count(d, PB_VALID),
           pb_dataset_count(d, PB_TEST));
    for (size_t i = 0; i < a->count && i < pb_dataset_count(d, PB_TRAIN); i++) {
        const pb_example *e = pb_dataset_at(d, PB_TRAIN, i);
        printf("\n%s[%s<end>]\n", e->prompt, e->response);
        for (size_t k = 0; k < e->n_candidates; k++)
            printf("  candidate%s: \"%s\"\n", k == e->label ? " (right)" : "", e->candidates[k]);
        for (size_t k = 0; k < e->n_references; k++)
            if (strcmp(e->references[k], e->response))
                printf("  also accepted: \"%s\"\n", e->references[k]);
    }
    pb_dataset_free(d);
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.seed = 1, .count = 3};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    if (a.show)
        return show(&a);
    if (a.plaintext) {
        char *text;
        PB_TRY(pb_plaintext(a.seed, a.plaintext, &text));
        fputs(text, stdout);
        free(text);
        return PB_OK;
    }
    printf("%-12s %-12s %-6s %s\n", "task", "metric", "data", "what");
    const pb_task *t;
    for (size_t i = 0; (t = pb_task_at(i)); i++)
        printf("%-12s %-12s %-6s %s\n", t->name, t->metric, t->needs_data ? "needed" : "-", t->doc);
    return PB_OK;
}

PB_COMMAND(tasks) = {"tasks", "list tasks, or show one as the model sees it", 22, run};
