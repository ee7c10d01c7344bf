// Datasets and the registry: string storage, the checks that every task passes, and its identity.
//
// Strings and reference lists live in blocks that never move, so pointers stay valid while a
// dataset grows. The arrays of examples do move: take pb_dataset_at only after the last add.
#include "tasks/task.h"

#include "core/hash.h"
#include "tasks/metrics/metrics.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 18 };

typedef struct block {
    struct block *older;
    size_t used, size;
    _Alignas(16) char data[];
} block;

struct pb_dataset {
    block *blocks;
    pb_example *examples[PB_N_SPLITS];
    size_t count[PB_N_SPLITS], cap[PB_N_SPLITS];
    bool exhausted; // an allocation failed; the next add reports it
};

static const char *const split_names[PB_N_SPLITS] = {"train", "valid", "test"};

static void *take(pb_dataset *d, size_t size, size_t align)
{
    block *b = d->blocks;
    size_t start = b ? (b->used + align - 1) / align * align : 0;
    if (!b || start > b->size || size > b->size - start) {
        size_t room = size > BLOCK ? size : BLOCK;
        b = malloc(sizeof *b + room);
        if (!b) {
            d->exhausted = true;
            return NULL;
        }
        *b = (block){.older = d->blocks, .size = room};
        d->blocks = b;
        start = 0;
    }
    b->used = start + size;
    return b->data + start;
}

static char *copy(pb_dataset *d, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = take(d, n, 1);
    return p ? memcpy(p, s, n) : NULL;
}

static const char *const *copy_list(pb_dataset *d, const char *const *list, size_t n)
{
    const char **p = n ? take(d, n * sizeof *p, sizeof *p) : NULL;
    for (size_t i = 0; p && i < n; i++)
        p[i] = copy(d, list[i]);
    return p;
}

static const pb_sql_table *copy_table(pb_dataset *d, const pb_sql_table *t)
{
    pb_sql_table *p = t ? take(d, sizeof *p, _Alignof(pb_sql_table)) : NULL;
    if (p)
        *p = (pb_sql_table){copy(d, t->database), copy(d, t->name),
                            copy_list(d, t->column, t->n_columns), t->n_columns};
    return p;
}

pb_err pb_dataset_new(pb_dataset **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a dataset");
}

void pb_dataset_free(pb_dataset *d)
{
    if (!d)
        return;
    for (block *b = d->blocks, *older; b; b = older) {
        older = b->older;
        free(b);
    }
    for (size_t s = 0; s < PB_N_SPLITS; s++)
        free(d->examples[s]);
    free(d);
}

// Returns NULL when memory is exhausted; pb_dataset_add then fails, so callers need not look.
char *pb_dataset_text(pb_dataset *d, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *p = n < 0 ? NULL : take(d, (size_t)n + 1, 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    else
        d->exhausted = true;
    va_end(again);
    va_end(ap);
    return p;
}

static bool has_null(const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!list[i])
            return true;
    return false;
}

pb_err pb_dataset_add(pb_dataset *d, pb_split split, const pb_example *e)
{
    if ((size_t)split >= PB_N_SPLITS)
        return pb_fail(PB_INTERNAL, NULL, "a task adds to split %d, which does not exist", split);
    if (!d->exhausted && (!e->prompt || !e->response || has_null(e->candidates, e->n_candidates) ||
                          has_null(e->references, e->n_references)))
        return pb_fail(PB_INTERNAL, NULL, "example %zu of split %s has a NULL string",
                       d->count[split], split_names[split]);
    if (!d->exhausted && d->count[split] == d->cap[split]) {
        size_t cap = d->cap[split] ? 2 * d->cap[split] : 256;
        pb_example *p = realloc(d->examples[split], cap * sizeof *p);
        d->exhausted = !p;
        d->examples[split] = p ? p : d->examples[split];
        d->cap[split] = p ? cap : d->cap[split];
    }
    if (!d->exhausted) {
        pb_example c = *e;
        c.prompt = copy(d, e->prompt);
        c.response = copy(d, e->response);
        c.candidates = copy_list(d, e->candidates, e->n_candidates);
        c.references = copy_list(d, e->references, e->n_references);
        c.table = copy_table(d, e->table);
        if (!d->exhausted)
            d->examples[split][d->count[split]++] = c;
    }
    return d->exhausted ? pb_fail(PB_MEMORY, "limit the number of examples",
                                  "no memory for example %zu of split %s", d->count[split],
                                  split_names[split])
                        : PB_OK;
}

size_t pb_dataset_count(const pb_dataset *d, pb_split split)
{
    return d->count[split];
}

const pb_example *pb_dataset_at(const pb_dataset *d, pb_split split, size_t i)
{
    return i < d->count[split] ? &d->examples[split][i] : NULL;
}

// The hash is a chain, state' = SHA-256(state, role, SHA-256(string)): it needs no copy of the data
// and, unlike a plain concatenation, tells where one string ends and the next begins.
static void absorb(char state[PB_HASH_LEN], const char *role, const char *s)
{
    char own[PB_HASH_LEN], line[2 * PB_HASH_LEN + 16];
    pb_sha256(own, s, strlen(s));
    int n = snprintf(line, sizeof line, "%s %s %s", state, role, own);
    pb_sha256(state, line, (size_t)n);
}

void pb_dataset_hash(const pb_dataset *d, char out[65])
{
    memset(out, 0, PB_HASH_LEN);
    for (size_t s = 0; s < PB_N_SPLITS; s++) {
        absorb(out, "split", split_names[s]);
        for (size_t i = 0; i < d->count[s]; i++) {
            const pb_example *e = &d->examples[s][i];
            absorb(out, "prompt", e->prompt);
            absorb(out, "response", e->response);
            for (size_t j = 0; j < e->n_candidates; j++)
                absorb(out, "candidate", e->candidates[j]);
            for (size_t j = 0; j < e->n_references; j++)
                absorb(out, "reference", e->references[j]);
        }
    }
}

static struct {
    const pb_task **t;
    size_t n;
} added;

const pb_task *pb_task_at(size_t i)
{
    size_t n = 0;
    while (pb_tasks[n])
        n++;
    return i < n ? pb_tasks[i] : i - n < added.n ? added.t[i - n] : NULL;
}

pb_err pb_task_register(const pb_task *t)
{
    if (pb_task_find(t->name))
        return pb_fail(PB_USAGE, "choose another name", "there is a task \"%s\" already", t->name);
    const pb_task **more = realloc(added.t, (added.n + 1) * sizeof *more);
    if (!more)
        return pb_fail(PB_MEMORY, NULL, "no memory for a task");
    added.t = more;
    added.t[added.n++] = t;
    return PB_OK;
}

const pb_task *pb_task_find(const char *name)
{
    const pb_task *t;
    for (size_t i = 0; (t = pb_task_at(i)); i++)
        if (!strcmp(t->name, name))
            return t;
    return NULL;
}

static pb_err check_ranking(const pb_example *e)
{
    if (e->n_candidates < 2)
        return pb_fail(PB_INPUT, NULL, "%zu candidates, but ranking needs two or more",
                       e->n_candidates);
    if (e->label >= e->n_candidates)
        return pb_fail(PB_INPUT, NULL, "label %zu, but there are %zu candidates", e->label,
                       e->n_candidates);
    if (strcmp(e->response, e->candidates[e->label]))
        return pb_fail(PB_INPUT, NULL, "the response \"%s\" is not the right candidate \"%s\"",
                       e->response, e->candidates[e->label]);
    for (size_t i = 0; i < e->n_candidates; i++) {
        if (!*e->candidates[i])
            return pb_fail(PB_INPUT, NULL, "candidate %zu is empty", i);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(e->candidates[i], e->candidates[j]))
                return pb_fail(PB_INPUT, NULL, "the candidate \"%s\" stands there twice",
                               e->candidates[i]);
    }
    return PB_OK;
}

static pb_err check_generation(const pb_example *e)
{
    if (e->n_candidates)
        return pb_fail(PB_INPUT, NULL, "%zu candidates in a task that generates", e->n_candidates);
    bool found = false;
    for (size_t i = 0; i < e->n_references; i++) {
        if (!*e->references[i])
            return pb_fail(PB_INPUT, NULL, "reference %zu is empty", i);
        found = found || !strcmp(e->references[i], e->response);
    }
    return found ? PB_OK
                 : pb_fail(PB_INPUT, NULL, "the response \"%s\" is not among the %zu references",
                           e->response, e->n_references);
}

static pb_err check_example(const pb_example *e, pb_task_kind kind)
{
    if (!*e->prompt)
        return pb_fail(PB_INPUT, NULL, "the prompt is empty");
    if (!*e->response)
        return pb_fail(PB_INPUT, NULL, "the response is empty");
    return kind == PB_RANK ? check_ranking(e) : check_generation(e);
}

typedef struct owner {
    const char *prompt;
    size_t split, index;
} owner;

static int by_prompt(const void *a, const void *b)
{
    const owner *x = a, *y = b;
    int c = strcmp(x->prompt, y->prompt);
    if (c)
        return c;
    if (x->split != y->split)
        return x->split < y->split ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

// A prompt that is trained on and tested on would measure memory, not the method.
static pb_err check_disjoint(const pb_dataset *d)
{
    size_t n = 0;
    for (size_t s = 0; s < PB_N_SPLITS; s++)
        n += d->count[s];
    owner *all = malloc((n ? n : 1) * sizeof *all);
    if (!all)
        return pb_fail(PB_MEMORY, NULL, "no memory to compare %zu prompts", n);
    n = 0;
    for (size_t s = 0; s < PB_N_SPLITS; s++)
        for (size_t i = 0; i < d->count[s]; i++)
            all[n++] = (owner){d->examples[s][i].prompt, s, i};
    qsort(all, n, sizeof *all, by_prompt);
    pb_err err = PB_OK;
    for (size_t i = 1; i < n && !err; i++)
        if (all[i].split != all[i - 1].split && !strcmp(all[i].prompt, all[i - 1].prompt))
            err = pb_fail(PB_INPUT, "remove it from one of the two splits",
                          "example %zu of %s is also example %zu of %s: \"%.200s\"",
                          all[i - 1].index, split_names[all[i - 1].split], all[i].index,
                          split_names[all[i].split], all[i].prompt);
    free(all);
    return err;
}

static pb_err check(const pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    size_t total = 0;
    for (size_t s = 0; s < PB_N_SPLITS; s++) {
        total += d->count[s];
        if (args->limit[s] && d->count[s] > args->limit[s])
            return pb_fail(PB_INTERNAL, NULL, "%zu %s examples in spite of the limit %zu",
                           d->count[s], split_names[s], args->limit[s]);
        for (size_t i = 0; i < d->count[s]; i++) {
            pb_err err = check_example(&d->examples[s][i], task->kind);
            if (err)
                return pb_context(err, "%s example %zu", split_names[s], i);
        }
    }
    if (!total)
        return pb_fail(PB_INPUT, NULL, "no examples at all");
    return check_disjoint(d);
}

static pb_err unknown_task(const char *name)
{
    char list[400] = "";
    size_t n = 0;
    const pb_task *t;
    for (size_t i = 0; (t = pb_task_at(i)) && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                              n ? ", " : "known tasks: ", t->name);
    return pb_fail(PB_USAGE, list, "unknown task \"%s\"", name);
}

pb_err pb_task_load(pb_dataset **out, const char *name, const pb_task_args *args)
{
    *out = NULL;
    const pb_task *task = pb_task_find(name);
    if (!task)
        return unknown_task(name);
    if (task->needs_data && !args->data) {
        char hint[480];
        snprintf(hint, sizeof hint, "give --data DIR; originals: %s", task->source);
        return pb_fail(PB_USAGE, hint, "task %s reads original files, but no data folder is given",
                       name);
    }
    pb_dataset *d = NULL;
    pb_err err = pb_dataset_new(&d);
    if (!err)
        err = pb_measure_check(task->metric, task->kind);
    if (!err)
        err = task->load(d, task, args);
    if (!err)
        err = check(d, task, args);
    if (err) {
        pb_dataset_free(d);
        return pb_context(err, "task %s", name);
    }
    *out = d;
    return PB_OK;
}
