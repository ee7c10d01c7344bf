// `pedrobench tasks`: what there is to train on, and how it looks to the model.
#include "cli/common/common.h"
#include "tasks/common/plaintext.h"
#include "tasks/task.h"
#include "train/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const split_names[PB_N_SPLITS] = {"train", "valid", "test"};

struct args {
    const char *show, *data, *model;
    size_t seed, count, plaintext;
    int split; // PB_N_SPLITS: the first that has examples
};

static const struct argp_option opts[] = {
    {"data", 'd', "DIR", 0,
     "Folder with the original files of data sets (default: the one PB_DATA names)", 0},
    {"task-seed", 'S', "N", 0, "Seed of generated tasks and text (default 1)", 0},
    {"plaintext", 'p', "N", 0,
     "Print the generated plain text instead: the N bytes that `pretrain --bytes N` trains on", 0},
    {"count", 'n', "N", 0, "Examples to show (default 3)", 0},
    {"split", 's', "SPLIT", 0, "Of which split: train, valid or test", 0},
    {"model", 'm', "PATH", 0, "Count lengths in this model's tokens, and what does not fit", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'd':
        a->data = arg;
        break;
    case 'm':
        a->model = arg;
        break;
    case 's':
        for (a->split = 0; a->split < PB_N_SPLITS; a->split++)
            if (!strcmp(arg, split_names[a->split]))
                return 0;
        argp_error(state, "--split is train, valid or test, not \"%s\"", arg);
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
        if (state->arg_num == 0 && !strcmp(arg, "show") && state->next < state->argc)
            break;
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
    "[[show] TASK]",
    "Lists the tasks, or shows one: counts, lengths, and examples as the model sees them. Loss "
    "counts on what stands in [brackets]. A task is a name, or the path of a description of "
    "one's own (tasks/README.md).\v"
    "Examples:\n  pedrobench tasks\n  pedrobench tasks show yesno --count 5\n"
    "  pedrobench tasks show boolq --data DATA --model MODEL --split test\n"
    "  pedrobench tasks show my/task.json\n  pedrobench tasks --plaintext 500",
    NULL,
    NULL,
    NULL};

typedef struct lengths {
    size_t n, prompt, response, longest_prompt, longest_response;
    size_t no_fit; // examples longer than the model's context
} lengths;

static void count(lengths *l, size_t prompt, size_t response)
{
    l->n++;
    l->prompt += prompt;
    l->response += response;
    l->longest_prompt = prompt > l->longest_prompt ? prompt : l->longest_prompt;
    l->longest_response = response > l->longest_response ? response : l->longest_response;
}

// In bytes, or with a model in its tokens, those at both ends among them.
static pb_err measure(lengths *l, const pb_dataset *d, pb_split s, const pb_model *m)
{
    pb_err err = PB_OK;
    *l = (lengths){0};
    for (size_t i = 0; i < pb_dataset_count(d, s) && !err; i++) {
        const pb_example *e = pb_dataset_at(d, s, i);
        pb_seqs q = {0};
        if (!m) {
            count(l, strlen(e->prompt), strlen(e->response));
            continue;
        }
        err = pb_seqs_add(&q, m->tokenizer, e->prompt, e->response, SIZE_MAX);
        if (!err) {
            count(l, q.seq[0].n_prompt, q.seq[0].n - q.seq[0].n_prompt);
            l->no_fit += q.seq[0].n > m->config.context;
        }
        pb_seqs_free(&q);
    }
    return err;
}

static pb_err show_lengths(const pb_dataset *d, const struct args *a)
{
    pb_model *m = NULL;
    pb_model_args args = {.weights = PB_STORE_AUTO};
    pb_err err = PB_OK;
    if (a->model)
        PB_TRY(pb_model_open(&m, a->model, &args));
    if (m && !m->tokenizer) {
        err = pb_fail(PB_INPUT, "put its tokenizer beside it", "the model %s has no tokenizer",
                      a->model);
        goto done;
    }
    printf("\n%-6s %8s   %-23s %-23s%s\n", "split", "examples",
           m ? "prompt, tokens" : "prompt, bytes", m ? "response, tokens" : "response, bytes",
           m ? " too long" : "");
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        lengths l;
        PB_GO(measure(&l, d, s, m));
        double n = l.n ? (double)l.n : 1;
        printf("%-6s %8zu   mean %6.1f, most %-5zu mean %6.1f, most %-5zu", split_names[s], l.n,
               (double)l.prompt / n, l.longest_prompt, (double)l.response / n, l.longest_response);
        if (m)
            printf(" %8zu", l.no_fit);
        printf("\n");
    }
    if (m)
        printf("Too long: more than the model's context of %zu tokens. In training such examples "
               "are left out;\nin evaluation their prompts lose their beginnings. Both are counted "
               "in a run's output.\n",
               m->config.context);
done:
    pb_model_close(m);
    return err;
}

static void show_example(const pb_example *e)
{
    printf("\n%s[%s<end>]\n", e->prompt, e->response);
    for (size_t k = 0; k < e->n_candidates; k++)
        printf("  candidate%s: \"%s\"\n", k == e->label ? " (right)" : "", e->candidates[k]);
    for (size_t k = 0; k < e->n_references; k++)
        if (strcmp(e->references[k], e->response))
            printf("  also accepted: \"%s\"\n", e->references[k]);
}

static pb_err show(const struct args *a)
{
    pb_dataset *d;
    const pb_task *t;
    const char *note;
    pb_task_args args = {.data = a->data, .seed = a->seed};
    PB_TRY(pb_task_open(&t, a->show));
    PB_TRY(pb_task_load(&d, a->show, &args));
    char hash[65];
    pb_dataset_hash(d, hash);
    printf("%s: %s\nsource: %s\nlicence: %s\nversion %s, content %.16s%s\nmetric: %s\n", t->name,
           t->doc, t->source, t->licence, t->version, hash,
           !t->content                 ? ""
           : !strcmp(t->content, hash) ? ", as the suite knows it"
                                       : ", NOT what the suite knows: other files",
           t->metric);
    if (t->note)
        printf("%s\n", t->note);
    for (size_t i = 0; (note = pb_dataset_note_at(d, i)); i++)
        printf("%s\n", note);
    pb_err err = show_lengths(d, a);
    pb_split s = PB_TRAIN;
    if (a->split < PB_N_SPLITS)
        s = (pb_split)a->split;
    else
        while (s < PB_TEST && !pb_dataset_count(d, s))
            s++;
    for (size_t i = 0; !err && i < a->count && i < pb_dataset_count(d, s); i++)
        show_example(pb_dataset_at(d, s, i));
    pb_dataset_free(d);
    return err;
}

static pb_err list(const struct args *a)
{
    char *names[1024];
    size_t n;
    PB_TRY(pb_task_names(names, sizeof names / sizeof *names, &n));
    pb_err err = PB_OK;
    printf("%-14s %-22s %-8s %s\n", "task", "metric", "data", "what");
    for (size_t i = 0; i < n; i++) {
        const pb_task *t;
        if (!err)
            err = pb_task_open(&t, names[i]);
        if (!err)
            printf("%-14s %-22s %-8s %s\n", t->name, t->metric,
                   !t->needs_data              ? "-"
                   : pb_task_found(t, a->data) ? "found"
                   : a->data                   ? "missing"
                                               : "needed",
                   t->doc);
        free(names[i]);
    }
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.seed = 1, .count = 3, .split = PB_N_SPLITS};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    a.data = a.data ? a.data : getenv("PB_DATA");
    if (a.show)
        return show(&a);
    if (a.plaintext) {
        char *text;
        PB_TRY(pb_plaintext(a.seed, a.plaintext, &text));
        fputs(text, stdout);
        free(text);
        return PB_OK;
    }
    return list(&a);
}

PB_COMMAND(tasks) = {"tasks", "list tasks, or show one as the model sees it", 22, run};
