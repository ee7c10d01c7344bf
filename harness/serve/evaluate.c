// Evaluation: encodes prompts, scores references and candidates, decodes, and applies the metric.
//
// Every example is a segment of its own, so a score does not depend on what shares its batch.
#include "serve/evaluate.h"

#include "core/log.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 32 }; // at once; beams have slots of their own

void pb_eval_result_free(pb_eval_result *r)
{
    for (size_t i = 0; i < r->n_scores; i++)
        if (r->scores[i].items != r->likelihood)
            free(r->scores[i].items);
    free(r->likelihood);
    for (size_t i = 0; r->output && i < r->n; i++)
        free(r->output[i]);
    free(r->output);
    *r = (pb_eval_result){0};
}

static pb_err out_of_memory(size_t n)
{
    return pb_fail(PB_MEMORY, NULL, "no memory to evaluate %zu examples", n);
}

// Notes that a metric applies and gives it room for its statistics, or those it shares.
static pb_err add_score(pb_eval_result *r, const pb_measure *m, double *shared, double **items)
{
    if (r->n_scores == PB_MOST_SCORES)
        return pb_fail(PB_INTERNAL, NULL, "more than %d metrics", PB_MOST_SCORES);
    double *own = shared ? shared : calloc(r->n * m->width, sizeof *own);
    if (!own)
        return out_of_memory(r->n);
    r->scores[r->n_scores++] = (pb_eval_score){.measure = m, .items = own};
    if (items)
        *items = own;
    return PB_OK;
}

// Likelihood of the references: example i is sequence i.
static pb_err references(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_dataset *d,
                         pb_split split, size_t room)
{
    pb_err err = PB_OK;
    pb_seqs s = {0};
    double *nll = NULL;
    size_t *tokens = NULL, *hits = NULL;
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
        double *own = r->likelihood + i * PB_LIKELIHOOD_STATS;
        own[PB_NATS] = nll[i];
        own[PB_TOKENS_SCORED] = (double)tokens[i];
        own[PB_BYTES_SCORED] = (double)strlen(pb_dataset_at(d, split, i)->response);
        own[PB_HITS] = (double)hits[i];
    }
    r->truncated = s.cut;
    for (const pb_measure *k = pb_measures; k->name; k++)
        if (k->family == PB_LIKELIHOOD)
            PB_GO(add_score(r, k, r->likelihood, NULL));
done:
    pb_seqs_free(&s);
    free(nll);
    free(tokens);
    free(hits);
    return err;
}

// Ranking by likelihood: the candidate with the largest log-probability, summed over its tokens
// (accuracy) or divided by its characters (accuracy_norm, as lm-evaluation-harness's acc_norm).
static pb_err rank(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_dataset *d,
                   pb_split split, size_t room)
{
    pb_err err = PB_OK;
    pb_seqs s = {0};
    double *nll = NULL, *items = NULL, out;
    const pb_measure *const kinds[] = {pb_measure_find("accuracy"),
                                       pb_measure_find("accuracy_norm")};
    size_t *tokens = NULL, *chosen[2], *label = malloc(r->n * sizeof *label);
    for (int k = 0; k < 2; k++)
        chosen[k] = malloc(r->n * sizeof *chosen[k]);
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
    if (!nll || !tokens || !chosen[0] || !chosen[1] || !label) {
        err = out_of_memory(r->n);
        goto done;
    }
    PB_GO(pb_score(m, a, &s, nll, tokens, NULL));
    for (size_t i = 0, k = 0; i < r->n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        double least[2];
        for (size_t c = 0; c < e->n_candidates; c++) {
            size_t length = pb_candidate_length(e->candidates[c]);
            double by[2] = {nll[k + c], nll[k + c] / (double)(length ? length : 1)};
            for (int j = 0; j < 2; j++)
                if (c == 0 || by[j] < least[j]) {
                    least[j] = by[j];
                    chosen[j][i] = c;
                }
        }
        label[i] = e->label;
        k += e->n_candidates;
    }
    for (int k = 0; k < 2; k++) {
        PB_GO(add_score(r, kinds[k], NULL, &items));
        PB_GO(pb_accuracy(&out, items, chosen[k], label, r->n));
    }
done:
    pb_seqs_free(&s);
    free(nll);
    free(tokens);
    free(chosen[0]);
    free(chosen[1]);
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

// The metrics of the generated texts that apply to the task.
static pb_err score_outputs(pb_eval_result *r, const pb_dataset *d, pb_split split)
{
    pb_err err = PB_OK;
    size_t n = r->n;
    const char *const **refs = malloc(n * sizeof *refs);
    size_t *n_refs = malloc(n * sizeof *n_refs);
    const pb_sql_table **tables = malloc(n * sizeof *tables);
    if (!refs || !n_refs || !tables)
        PB_GO(out_of_memory(n));
    for (size_t i = 0; i < n; i++) {
        const pb_example *e = pb_dataset_at(d, split, i);
        refs[i] = e->references;
        n_refs[i] = e->n_references;
        tables[i] = e->table;
    }
    pb_outputs o = {(const char *const *)r->output, refs, n_refs, tables, n};
    for (const pb_measure *m = pb_measures; m->name; m++) {
        bool wanted = m->family == r->headline->family || m->family == PB_ANY_TEXT;
        if (!m->items || !wanted || (m->applies && !m->applies(&o)))
            continue;
        double *items = NULL;
        PB_GO(add_score(r, m, NULL, &items));
        PB_GO(pb_measure_items(m, items, &o));
    }
done:
    free(refs);
    free(n_refs);
    free(tables);
    return err;
}

static pb_err generate(pb_eval_result *r, const pb_model *m, pb_adapter *a, const pb_task *task,
                       const pb_dataset *d, pb_split split, size_t room, const pb_eval_options *how)
{
    pb_err err = PB_OK;
    size_t n = r->n, max_new, longest = 0, n_ids = 0, cap = 0, cut = 0;
    int32_t *ids = NULL, *out = NULL;
    size_t *first = malloc((n + 1) * sizeof *first);
    pb_request *req = calloc(n, sizeof *req);
    pb_decoder *dec = NULL;
    bar b = {.on = how->label != NULL};
    r->output = calloc(n, sizeof *r->output);
    if (!first || !req || !r->output) {
        err = out_of_memory(n);
        goto done;
    }
    // Of the whole split: a response must not depend on how many others are asked for.
    PB_GO(response_limit(&max_new, m, task, d, split, pb_dataset_count(d, split)));
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
    size_t at_once = how->requests ? how->requests : REQUESTS;
    PB_GO(
        pb_decoder_new(&dec, m, &a, a ? 1 : 0, n < at_once ? n : at_once, longest, &how->decoding));
    if (b.on)
        pb_progress_begin(&b.p, how->label, 0, (int64_t)n);
    PB_GO(pb_decode(dec, req, n, show, &b));
    if (b.on)
        pb_progress_end(&b.p, NULL);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        PB_GO(
            pb_tokenizer_decode(m->tokenizer, req[i].out, req[i].n_out, true, &r->output[i], &len));
        trim(r->output[i]);
    }
    PB_GO(score_outputs(r, d, split));
done:
    pb_decoder_free(dec);
    free(ids);
    free(out);
    free(first);
    free(req);
    return err;
}

pb_err pb_evaluate(pb_eval_result *out, const pb_model *m, pb_adapter *a, const pb_task *task,
                   const pb_dataset *d, pb_split split, const pb_eval_options *how)
{
    pb_err err = PB_OK;
    size_t n = pb_dataset_count(d, split), room = m->config.context;
    pb_eval_result *r = out;
    *r = (pb_eval_result){.n = how->limit && how->limit < n ? how->limit : n,
                          .headline = pb_measure_find(task->metric)};
    PB_GO(pb_measure_check(task->metric, task->kind));
    if (!r->n)
        PB_GO(pb_fail(PB_INPUT, NULL, "task %s has no examples to evaluate", task->name));
    if (a && a->prefix_len >= room)
        PB_GO(pb_fail(PB_INPUT, NULL, "a prefix of %zu leaves no room in %zu tokens", a->prefix_len,
                      room));
    r->likelihood = calloc(r->n * PB_LIKELIHOOD_STATS, sizeof *r->likelihood);
    if (!r->likelihood)
        PB_GO(out_of_memory(r->n));
    room -= a ? a->prefix_len : 0;
    PB_GO(references(r, m, a, d, split, room));
    if (task->kind == PB_RANK)
        PB_GO(rank(r, m, a, d, split, room));
    else if (r->headline->family != PB_LIKELIHOOD)
        PB_GO(generate(r, m, a, task, d, split, room, how));
    bool found = false;
    for (size_t i = 0; i < r->n_scores; i++) {
        pb_eval_score *s = &r->scores[i];
        s->value = pb_measure_score(s->measure, s->items, r->n);
        if (s->measure == r->headline) {
            r->score = s->value;
            found = true;
        }
    }
    r->loss = pb_measure_score(pb_measure_find("loss"), r->likelihood, r->n);
    if (!found)
        PB_GO(pb_fail(PB_INPUT, "name another metric in the task, or give it tables",
                      "task %s: the metric %s cannot be computed", task->name, task->metric));
done:
    if (err)
        pb_eval_result_free(r);
    return err;
}
