// Evaluation: encodes prompts, scores references and candidates, decodes, and applies the metric.
//
// Every example is a segment of its own, so a score does not depend on what shares its batch.
#include "serve/evaluate.h"

#include "core/log.h"
#include "serve/decode.h"
#include "tasks/metrics/metrics.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 32 };

void pb_eval_result_free(pb_eval_result *r)
{
    free(r->item_loss);
    free(r->item_score);
    for (size_t i = 0; r->output && i < r->n; i++)
        free(r->output[i]);
    free(r->output);
    *r = (pb_eval_result){0};
}

static pb_err out_of_memory(size_t n)
{
    return pb_fail(PB_MEMORY, NULL, "no memory to evaluate %zu examples", n);
}

// Loss of the references: example i is sequence i.
static pb_err references(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_dataset *d,
                         pb_split split, size_t room)
{
    pb_err err = PB_OK;
    pb_seqs s = {0};
    double *nll = NULL, sum = 0;
    size_t *tokens = NULL, *hits = NULL, all = 0, right = 0;
    for (size_t i = 0; i < r->n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        err = pb_seqs_add_cut(&s, m->tokenizer, e->prompt, &e->response, 1, room);
        if (err) {
            err = pb_context(err, "example %zu", i);
            goto done;
        }
    }
    nll = malloc((s.n + 1) * sizeof *nll);
    tokens = malloc((s.n + 1) * sizeof *tokens);
    hits = malloc((s.n + 1) * sizeof *hits);
    if (!nll || !tokens || !hits) {
        err = out_of_memory(r->n);
        goto done;
    }
    if (s.n)
        PB_GO(pb_score(m, a, &s, nll, tokens, hits));
    for (size_t i = 0; i < s.n; i++) {
        r->item_loss[i] = nll[i] / (double)tokens[i];
        sum += nll[i];
        all += tokens[i];
        right += hits[i];
    }
    r->truncated = s.cut;
    r->loss = all ? sum / (double)all : 0;
    r->token_accuracy = all ? (double)right / (double)all : 0;
done:
    pb_seqs_free(&s);
    free(nll);
    free(tokens);
    free(hits);
    return err;
}

// Likelihood ranking: the candidate whose tokens have the largest summed log-probability.
static pb_err rank(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_dataset *d,
                   pb_split split, size_t room)
{
    pb_err err = PB_OK;
    pb_seqs s = {0};
    double *nll = NULL;
    size_t *tokens = NULL, *chosen = malloc(r->n * sizeof *chosen);
    size_t *label = malloc(r->n * sizeof *label);
    for (size_t i = 0; i < r->n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        err = pb_seqs_add_cut(&s, m->tokenizer, e->prompt, e->candidates, e->n_candidates, room);
        if (err) {
            err = pb_context(err, "example %zu", i);
            goto done;
        }
    }
    r->truncated = s.cut; // by the longest candidate, not by the right one
    nll = malloc(s.n * sizeof *nll);
    tokens = malloc(s.n * sizeof *tokens);
    if (!nll || !tokens || !chosen || !label) {
        err = out_of_memory(r->n);
        goto done;
    }
    PB_GO(pb_score(m, a, &s, nll, tokens, NULL));
    for (size_t i = 0, k = 0; i < r->n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        size_t best = 0;
        for (size_t c = 1; c < e->n_candidates; c++)
            if (nll[k + c] < nll[k + best])
                best = c;
        chosen[i] = best;
        label[i] = e->label;
        k += e->n_candidates;
    }
    PB_GO(pb_accuracy(&r->score, r->item_score, chosen, label, r->n));
done:
    pb_seqs_free(&s);
    free(nll);
    free(tokens);
    free(chosen);
    free(label);
    return err;
}

typedef struct bar {
    pb_progress p;
    bool on;
} bar;

static void show(void *self, size_t done)
{
    bar *b = self;
    if (b->on)
        pb_progress_update(&b->p, (int64_t)done, NULL);
}

static void trim(char *s)
{
    size_t n = strlen(s), k = strspn(s, " \n\t\r");
    while (n > k && strchr(" \n\t\r", s[n - 1]))
        n--;
    memmove(s, s + k, n - k);
    s[n - k] = 0;
}

// The most tokens a response may take: those of the longest reference of the split, with room.
static pb_err response_limit(size_t *out, const pb_model *m, const pb_task *task,
                             const pb_dataset *d, pb_split split, size_t n)
{
    int32_t *ids = NULL;
    size_t k = 0, cap = 0, longest = 0;
    pb_err err = PB_OK;
    for (size_t i = 0; i < n && !err; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        for (size_t j = 0; j < e->n_references && !err; j++) {
            k = 0;
            err = pb_tokenizer_encode(m->tokenizer, e->references[j], strlen(e->references[j]),
                                      true, &ids, &k, &cap);
            longest = k > longest ? k : longest;
        }
    }
    free(ids);
    *out = longest + longest / 4 + 2;
    if (task->max_new && *out > task->max_new)
        *out = task->max_new;
    return err;
}

static pb_err generate(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_task *task,
                       const pb_dataset *d, pb_split split, size_t room, const char *label)
{
    pb_err err = PB_OK;
    size_t n = r->n, max_new, longest = 0, n_ids = 0, cap = 0, cut = 0;
    int32_t *ids = NULL, *out = NULL;
    size_t *first = malloc((n + 1) * sizeof *first);
    pb_request *req = calloc(n, sizeof *req);
    const char *const **refs = malloc(n * sizeof *refs);
    size_t *n_refs = malloc(n * sizeof *n_refs);
    pb_decoder *dec = NULL;
    bar b = {.on = label != NULL};
    r->output = calloc(n, sizeof *r->output);
    if (!first || !req || !refs || !n_refs || !r->output) {
        err = out_of_memory(n);
        goto done;
    }
    PB_GO(response_limit(&max_new, m, task, d, split, n));
    for (size_t i = 0; i < n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        first[i] = n_ids;
        if (n_ids == cap) {
            size_t more = cap ? 2 * cap : 1024;
            int32_t *p = realloc(ids, more * sizeof *p);
            if (!p) {
                err = out_of_memory(n);
                goto done;
            }
            ids = p;
            cap = more;
        }
        ids[n_ids++] = pb_tokenizer_bos(m->tokenizer);
        PB_GO(pb_tokenizer_encode(m->tokenizer, e->prompt, strlen(e->prompt), false, &ids, &n_ids,
                                  &cap));
        refs[i] = e->references;
        n_refs[i] = e->n_references;
    }
    first[n] = n_ids;
    out = malloc(n * max_new * sizeof *out);
    if (!out) {
        err = out_of_memory(n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = first[i + 1] - first[i], from = first[i];
        if (max_new + 1 > room) {
            err = pb_fail(PB_INPUT, "use a backbone with a longer context",
                          "responses of %zu tokens do not fit into %zu", max_new, room);
            goto done;
        }
        if (len + max_new > room) { // keep the end of the prompt, which holds the question
            from += len + max_new - room;
            len = room - max_new;
            ids[from] = pb_tokenizer_bos(m->tokenizer);
            cut++;
        }
        req[i] = (pb_request){.prompt = ids + from,
                              .n_prompt = len,
                              .max_new = max_new,
                              .tenant = a ? 0 : -1,
                              .out = out + i * max_new};
        longest = len + max_new > longest ? len + max_new : longest;
    }
    r->truncated = cut; // by the room that a response may need, not by the reference's own
    PB_GO(pb_decoder_new(&dec, m, &a, a ? 1 : 0, n < SLOTS ? n : SLOTS, longest));
    if (b.on)
        pb_progress_begin(&b.p, label, 0, (int64_t)n);
    PB_GO(pb_decode(dec, req, n, show, &b));
    if (b.on)
        pb_progress_end(&b.p, NULL);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        PB_GO(
            pb_tokenizer_decode(m->tokenizer, req[i].out, req[i].n_out, true, &r->output[i], &len));
        trim(r->output[i]);
    }
    const char *const *hyp = (const char *const *)r->output;
    if (!strcmp(task->metric, "bleu"))
        PB_GO(pb_bleu(&r->score, r->item_score, hyp, refs, n_refs, n, NULL));
    else
        PB_GO(pb_exact_match(&r->score, r->item_score, hyp, refs, n_refs, n));
done:
    pb_decoder_free(dec);
    free(ids);
    free(out);
    free(first);
    free(req);
    free(refs);
    free(n_refs);
    return err;
}

pb_err pb_evaluate(pb_eval_result *out, const pb_model *m, pb_adapter *a, const pb_task *task,
                   const pb_dataset *d, pb_split split, size_t limit, const char *label)
{
    pb_err err = PB_OK;
    size_t n = pb_dataset_count(d, split), room = m->config.context;
    pb_eval_result *r = out;
    *r = (pb_eval_result){.n = limit && limit < n ? limit : n, .metric = task->metric};
    r->item_width = strcmp(task->metric, "bleu") ? 1 : PB_BLEU_STATS;
    r->item_loss = calloc(r->n + 1, sizeof *r->item_loss);
    r->item_score = calloc(r->n * r->item_width + 1, sizeof *r->item_score);
    if (!r->item_loss || !r->item_score) {
        err = out_of_memory(r->n);
        goto done;
    }
    if (!r->n) {
        err = pb_fail(PB_INPUT, NULL, "task %s has no examples to evaluate", task->name);
        goto done;
    }
    if (a && a->prefix_len >= room) {
        err = pb_fail(PB_INPUT, NULL, "a prefix of %zu leaves no room in %zu tokens", a->prefix_len,
                      room);
        goto done;
    }
    room -= a ? a->prefix_len : 0;
    PB_GO(references(r, m, a, d, split, room));
    if (task->kind == PB_RANK)
        PB_GO(rank(r, m, a, d, split, room));
    else
        PB_GO(generate(r, m, a, task, d, split, room, label));
done:
    if (err)
        pb_eval_result_free(r);
    return err;
}
