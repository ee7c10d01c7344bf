// Training runs: configuration, budget, training, evaluation, result file.
#include "cli/common/experiment.h"

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/ranks.h"
#include "core/threads.h"
#include "model/compose.h"
#include "model/peft.h"
#include "results/run.h"
#include "serve/evaluate.h"
#include "tensor/gemm.h"
#include "train/budget.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

json_t *pb_experiment_defaults(void)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:n, s:{}, s:n, s:i, s:i, s:n, s:s, s:i, s:i, s:i, s:f, "
                     "s:f, s:f, s:f, s:i, "
                     "s:i, s:{s:i, s:i, s:i}}",
                     "kind", "train", "model", "", "task", "", "method", "", "adapter", "options",
                     "budget", "seed", 1, "task_seed", 1, "lr", "schedule", "linear", "steps", 200,
                     "batch", 16, "accumulate", 1, "warmup", 0.06, "floor", 0.0, "weight_decay",
                     0.0, "clip", 1.0, "eval_every", 50, "patience", 10, "limit", "train", 0,
                     "valid", 0, "test", 0);
}

void pb_cache_free(pb_cache *c)
{
    pb_model_close(c->model);
    pb_dataset_free(c->data);
    memset(c, 0, sizeof *c);
}

void pb_cache_drop_model(pb_cache *c)
{
    pb_model_close(c->model);
    c->model = NULL;
}

// Opens the model, unless it is the one that is open already.
static pb_err open_model(pb_cache *c, const char *path, pb_storage weights)
{
    if (c->model && !strcmp(c->model_path, path) && c->weights == weights)
        return PB_OK;
    pb_model_args args = {.weights = weights};
    pb_cache_drop_model(c);
    PB_TRY(pb_path(c->model_path, sizeof c->model_path, "%s", path));
    c->weights = weights;
    pb_err err = pb_model_open(&c->model, path, &args);
    if (err) {
        *c->model_path = 0;
        return err;
    }
    c->model_config = c->model->config;
    memcpy(c->model_sha256, c->model->sha256, sizeof c->model_sha256);
    return PB_OK;
}

// What identifies the model: its weights need not be in memory any more.
static pb_err know_model(pb_cache *c, const char *path, pb_storage weights)
{
    if (!strcmp(c->model_path, path) && c->weights == weights)
        return PB_OK;
    return open_model(c, path, weights);
}

// ---------------------------------------------------------------- configuration

typedef struct experiment {
    const char *model, *task_name, *method_name, *schedule;
    const char *general; // file of text that forgetting is measured on, or NULL
    const char *adapter; // folder of an adapter to train further, or NULL
    const json_t *options, *limit;
    char budget[64]; // as text; empty: none
    int64_t seed, task_seed, steps, batch, accumulate, eval_every, patience, limits[PB_N_SPLITS];
    double lr, warmup, floor, weight_decay, clip;
    bool recompute;
    pb_storage weights;
    pb_decoding decoding;
    json_t *config; // complete: what the result file records
    const pb_method *method;
    const pb_task *task;
    pb_model *m, *own; // own: a trainable backbone of this run alone
    const pb_dataset *data;
    void *opts;
    pb_adapter *from, *a, *served; // from: as it was loaded
    pb_run *run;                   // NULL in processes that only help to train
    size_t trainable, last_tokens;
    double last_seconds;
    pb_train_result trained;
} experiment;

// The hashes of a folder's two files; of a composition, of its parts' hashes.
static pb_err hash_adapter(char config[PB_HASH_LEN], char weights[PB_HASH_LEN], const char *folder,
                           const json_t *file)
{
    pb_err err = PB_OK;
    char path[4096], all[2][8 * PB_HASH_LEN] = {"", ""};
    const json_t *parts = json_object_get(file, "parts");
    PB_TRY(pb_path(path, sizeof path, "%s/adapter_config.json", folder));
    PB_TRY(pb_sha256_file(config, path));
    if (!pb_peft_is_composition(file)) {
        PB_TRY(pb_path(path, sizeof path, "%s/adapter_model.safetensors", folder));
        return pb_sha256_file(weights, path);
    }
    for (size_t i = 0; i < json_array_size(parts) && i < 8; i++) {
        const char *name = json_string_value(json_array_get(parts, i));
        char part[4096], one[2][PB_HASH_LEN];
        json_t *own;
        PB_TRY(pb_path(part, sizeof part, "%s/%s", folder, name ? name : "?"));
        PB_TRY(pb_path(path, sizeof path, "%s/adapter_config.json", part));
        PB_TRY(pb_json_load(&own, path));
        err = hash_adapter(one[0], one[1], part, own);
        json_decref(own);
        PB_TRY(err);
        strcat(all[0], one[0]);
        strcat(all[1], one[1]);
    }
    pb_sha256(config, all[0], strlen(all[0]));
    pb_sha256(weights, all[1], strlen(all[1]));
    return PB_OK;
}

// The method of the adapter to train further, and what identifies it.
static pb_err read_adapter(experiment *e)
{
    char path[4096], hash[2][PB_HASH_LEN];
    json_t *file;
    const pb_method *m;
    if (*e->budget)
        return pb_fail(PB_INPUT, "leave the budget out", "an adapter to start from has its size");
    PB_TRY(pb_path(path, sizeof path, "%s/adapter_config.json", e->adapter));
    PB_TRY(pb_json_load(&file, path));
    pb_err err = pb_peft_method(&m, file);
    if (!err)
        err = hash_adapter(hash[0], hash[1], e->adapter, file);
    json_decref(file);
    if (err)
        return pb_context(err, "adapter %s", e->adapter);
    if (*e->method_name && strcmp(e->method_name, m->name) != 0)
        return pb_fail(PB_INPUT, "leave \"method\" out", "the adapter %s is of method %s, not %s",
                       e->adapter, m->name, e->method_name);
    json_object_set_new(e->config, "method", json_string(m->name));
    json_object_set_new(e->config, "adapter_sha256",
                        json_pack("{s:s, s:s}", "config", hash[0], "weights", hash[1]));
    return pb_json_str(e->config, "method", &e->method_name);
}

static const char *const run_keys[] = {"kind",
                                       "model",
                                       "task",
                                       "method",
                                       "options",
                                       "budget",
                                       "seed",
                                       "task_seed",
                                       "lr",
                                       "schedule",
                                       "steps",
                                       "batch",
                                       "accumulate",
                                       "warmup",
                                       "floor",
                                       "weight_decay",
                                       "clip",
                                       "limit",
                                       "patience",
                                       "eval_every",
                                       "weights",
                                       "adapter",
                                       "beam",
                                       "length_penalty",
                                       "no_repeat_ngram",
                                       "general_text",
                                       "recompute",
                                       NULL};

static pb_err read_config(experiment *e, const json_t *config)
{
    const char *weights = "auto"; // a key of its own only where it is asked for; so is decoding
    int64_t beam = 1, gram = 0;
    const json_t *b;
    PB_TRY(pb_json_only(config, run_keys, "a run's configuration"));
    e->decoding = PB_GREEDY;
    e->config = pb_experiment_defaults();
    if (!e->config || json_object_update(e->config, (json_t *)config))
        return pb_fail(PB_MEMORY, NULL, "no memory for a configuration");
    const json_t *c = e->config;
    PB_TRY(pb_json_str(c, "model", &e->model));
    PB_TRY(pb_json_str(c, "task", &e->task_name));
    PB_TRY(pb_json_str(c, "method", &e->method_name));
    PB_TRY(pb_json_str(c, "schedule", &e->schedule));
    PB_TRY(pb_json_opt_str(c, "weights", &weights));
    PB_TRY(pb_storage_find(&e->weights, weights));
    PB_TRY(pb_json_opt_str(c, "adapter", &e->adapter));
    PB_TRY(pb_json_opt_str(c, "general_text", &e->general));
    PB_TRY(pb_json_opt_bool(c, "recompute", &e->recompute));
    json_object_del(e->config, "recompute"); // it changes no result
    if (e->general) {
        char hash[PB_HASH_LEN];
        PB_TRY(pb_sha256_file(hash, e->general));
        json_object_set_new(e->config, "general_text_sha256", json_string(hash));
    }
    PB_TRY(pb_json_int(c, "seed", &e->seed, 0, INT64_MAX));
    PB_TRY(pb_json_int(c, "task_seed", &e->task_seed, 0, INT64_MAX));
    PB_TRY(pb_json_int(c, "steps", &e->steps, 0, 100000000));
    PB_TRY(pb_json_int(c, "batch", &e->batch, 1, 4096));
    PB_TRY(pb_json_int(c, "accumulate", &e->accumulate, 1, 4096));
    PB_TRY(pb_json_int(c, "eval_every", &e->eval_every, 0, 100000000));
    PB_TRY(pb_json_int(c, "patience", &e->patience, 0, 100000000));
    PB_TRY(pb_json_real(c, "warmup", &e->warmup, 0, 1));
    PB_TRY(pb_json_real(c, "floor", &e->floor, 0, 1));
    PB_TRY(pb_json_real(c, "weight_decay", &e->weight_decay, 0, 10));
    PB_TRY(pb_json_real(c, "clip", &e->clip, 0, 1e9));
    PB_TRY(pb_json_opt_real(c, "lr", &e->lr, 0, 100));
    PB_TRY(pb_json_opt_int(c, "beam", &beam, 1, PB_MOST_BEAMS));
    PB_TRY(pb_json_opt_int(c, "no_repeat_ngram", &gram, 0, 1000));
    PB_TRY(pb_json_opt_real(c, "length_penalty", &e->decoding.length_penalty, -100, 100));
    e->decoding.beam = (size_t)beam;
    e->decoding.no_repeat_ngram = (size_t)gram;
    e->options = json_object_get(c, "options");
    e->limit = json_object_get(c, "limit");
    static const char *const splits[] = {"train", "valid", "test", NULL};
    PB_TRY(pb_json_only(e->limit, splits, "\"limit\""));
    for (int s = 0; s < PB_N_SPLITS; s++)
        PB_TRY(pb_json_opt_int(e->limit, splits[s], &e->limits[s], 0, 1000000000));
    b = json_object_get(c, "budget");
    if (json_is_string(b))
        PB_TRY(pb_path(e->budget, sizeof e->budget, "%s", json_string_value(b)));
    else if (json_is_integer(b))
        PB_TRY(pb_path(e->budget, sizeof e->budget, "%lld", (long long)json_integer_value(b)));
    else if (b && !json_is_null(b))
        return pb_fail(PB_INPUT, "use e.g. \"0.5%\" or 50000", "\"budget\" has an impossible type");
    if (strcmp(e->schedule, "linear") && strcmp(e->schedule, "cosine") &&
        strcmp(e->schedule, "constant"))
        return pb_fail(PB_INPUT, "use linear, cosine or constant", "\"schedule\" is \"%s\"",
                       e->schedule);
    if (!*e->model || !*e->task_name || (!*e->method_name && !e->adapter))
        return pb_fail(PB_INPUT, NULL,
                       "a run needs \"model\", \"task\", and \"method\" or \"adapter\"");
    if (e->adapter)
        PB_TRY(read_adapter(e));
    e->method = pb_method_find(e->method_name);
    if (!e->method)
        return PB_USAGE;
    PB_TRY(pb_task_open(&e->task, e->task_name));
    if (e->task->description)
        json_object_set_new(e->config, "task_description", json_string(e->task->description));
    return PB_OK;
}

static pb_err load_data(experiment *e, pb_cache *cache, const pb_experiment_args *args)
{
    char key[sizeof cache->data_key], hash[65];
    pb_task_args ta = {.data = args->data, .seed = (uint64_t)e->task_seed};
    for (int s = 0; s < PB_N_SPLITS; s++)
        ta.limit[s] = (size_t)e->limits[s];
    PB_TRY(pb_path(key, sizeof key, "%s|%s|%lld|%lld|%lld|%lld", e->task_name,
                   args->data ? args->data : "", (long long)e->task_seed, (long long)e->limits[0],
                   (long long)e->limits[1], (long long)e->limits[2]));
    if (!cache->data || strcmp(cache->data_key, key)) {
        pb_dataset_free(cache->data);
        cache->data = NULL;
        PB_TRY(pb_task_load(&cache->data, e->task_name, &ta));
        memcpy(cache->data_key, key, sizeof key);
        const char *note;
        for (size_t i = 0; (note = pb_dataset_note_at(cache->data, i)); i++)
            pb_info("task %s: %s", e->task->name, note);
    }
    e->data = cache->data;
    json_object_set_new(e->config, "task", json_string(e->task->name));
    e->task_name = e->task->name;
    pb_dataset_hash(e->data, hash);
    json_object_set_new(e->config, "data_sha256", json_string(hash));
    json_object_set_new(e->config, "task_version", json_string(e->task->version));
    return PB_OK;
}

// Options, with the knob turned to meet the budget.
static pb_err solve(experiment *e, const pb_cache *cache)
{
    const pb_config *g = &cache->model_config;
    const pb_method *m = e->method;
    size_t budget = 0;
    if (!e->opts)
        PB_TRY(pb_options_new(&e->opts, m));
    if (e->from)
        memcpy(e->opts, e->from->options, m->options_size);
    PB_TRY(pb_options_from_json(m, e->opts, e->options));
    if (e->lr == 0)
        e->lr = m->lr;
    json_object_set_new(e->config, "lr", json_real(e->lr));
    json_object_set_new(e->config, "model_sha256", json_string(cache->model_sha256));
    json_object_set_new(e->config, "model_params", json_integer((json_int_t)pb_config_params(g)));
    if (*e->budget)
        PB_TRY(pb_budget_parse(e->budget, g, &budget));
    json_object_set_new(e->config, "budget",
                        budget ? json_integer((json_int_t)budget) : json_null());
    pb_err err = PB_OK;
    if (budget && m->knob)
        err = pb_budget_solve(m, e->opts, g, budget, &e->trainable);
    else
        err = pb_budget_count(m, e->opts, g, &e->trainable);
    json_object_set_new(e->config, "options", pb_options_to_json(m, e->opts));
    return err;
}

// ---------------------------------------------------------------- events

static pb_err on_step(void *self, const pb_train_point *p)
{
    experiment *e = self;
    pb_run_step s = {(int64_t)p->step,
                     p->loss,
                     p->lr,
                     p->grad_norm,
                     (double)(p->tokens - e->last_tokens),
                     p->seconds - e->last_seconds};
    e->last_tokens = p->tokens;
    e->last_seconds = p->seconds;
    return pb_run_log_step(e->run, &s);
}

static pb_err on_valid(void *self, size_t step, double loss)
{
    experiment *e = self;
    return pb_run_event(e->run, json_pack("{s:s, s:I, s:o}", "event", "valid", "step",
                                          (json_int_t)step, "loss", pb_run_number(loss)));
}

static pb_err on_resumed(void *self, size_t step)
{
    experiment *e = self;
    return pb_run_event(e->run,
                        json_pack("{s:s, s:I}", "event", "resume", "step", (json_int_t)step));
}

static pb_err on_saved(void *self)
{
    return pb_run_sync(((experiment *)self)->run);
}

static pb_err params_event(experiment *e)
{
    const pb_method *m = e->method;
    const pb_layout *l = e->a ? &e->a->layout : &e->m->layout;
    json_t *sites = json_array();
    for (size_t i = 0; (e->a || m->backbone) && i < l->n; i++) {
        const pb_spec *s = &l->spec[i];
        char name[160];
        if (s->layer == PB_GLOBAL)
            PB_TRY(pb_path(name, sizeof name, "%s", s->name));
        else
            PB_TRY(pb_path(name, sizeof name, "layers.%d.%s", s->layer, s->name));
        json_array_append_new(sites, json_pack("{s:s, s:I, s:I, s:I}", "name", name, "rows",
                                               (json_int_t)s->rows, "cols", (json_int_t)s->cols,
                                               "count", (json_int_t)(s->rows * s->cols)));
    }
    json_t *ev = json_pack("{s:s, s:s, s:I, s:o}", "event", "params", "method", m->name,
                           "trainable", (json_int_t)e->trainable, "sites", sites);
    if (m->knob) {
        char knob[300];
        json_object_set_new(ev, "knob", json_string(pb_knob_label(m, e->opts, knob, sizeof knob)));
        json_object_set_new(ev, "knob_value", json_integer(pb_options_knob(m, e->opts)));
    }
    const json_t *b = json_object_get(e->config, "budget");
    if (json_is_integer(b))
        json_object_set_new(ev, "budget", json_integer(json_integer_value(b)));
    if (e->served) {
        json_object_set_new(ev, "saved_bytes",
                            json_integer((json_int_t)(e->served->layout.saved * sizeof(real))));
        json_object_set_new(ev, "bytes_per_tenant",
                            json_integer((json_int_t)pb_adapter_resident(e->served)));
    }
    return pb_run_event(e->run, ev);
}

static json_t *numbers(const double *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, pb_run_number(v[i]));
    return a;
}

// (n,width) statistics: an array of numbers, or of arrays of them.
static json_t *statistics(const double *v, size_t n, size_t width)
{
    if (width == 1)
        return numbers(v, n);
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, numbers(v + i * width, width));
    return a;
}

// Loss of general text with the adapter (or the trained backbone), and how much more that is than
// without: documents of a text file between blank lines, cut to the context, each from its first
// token on.
static pb_err forgetting(experiment *e, const pb_model *base, double *loss, double *more)
{
    pb_file f;
    pb_seqs s = {0};
    double before = 0;
    size_t room = e->m->config.context - (e->served ? e->served->prefix_len : 0);
    PB_TRY(pb_file_map(&f, e->general));
    pb_err err =
        pb_seqs_from_text(&s, e->m->tokenizer, (const char *)f.data, f.size, "\n\n", room, NULL);
    if (!err)
        err = pb_mean_loss(base, NULL, &s, &before);
    if (!err)
        err = pb_mean_loss(e->m, e->served, &s, loss);
    *more = *loss - before;
    pb_seqs_free(&s);
    pb_file_unmap(&f);
    return err ? pb_context(err, "%s", e->general) : PB_OK;
}

static pb_err eval_event(experiment *e, const pb_eval_result *r, const pb_model *base)
{
    json_t *per = json_object(), *metrics = json_object(), *loss = json_array();
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(
            loss, pb_run_number(pb_measure_score(pb_measure_find("loss"),
                                                 r->likelihood + i * PB_LIKELIHOOD_STATS, 1)));
    json_object_set_new(per, "loss", loss); // for readers; the others are what figures come from
    for (size_t i = 0; i < r->n_scores; i++) {
        const pb_measure *m = r->scores[i].measure;
        json_object_set_new(metrics, m->name, pb_run_number(r->scores[i].value));
        if (!json_object_get(per, m->array))
            json_object_set_new(per, m->array, statistics(r->scores[i].items, r->n, m->width));
    }
    if (e->general) {
        double after, more;
        pb_err err = forgetting(e, base, &after, &more);
        if (err) {
            json_decref(per);
            json_decref(metrics);
            return err;
        }
        json_object_set_new(metrics, "general_loss", pb_run_number(after));
        json_object_set_new(metrics, "forgetting", pb_run_number(more));
    }
    json_t *ev = json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:I}", "event", "eval", "task",
                           e->task_name, "split", "test", "headline", r->headline->name,
                           "higher_is_better", !r->headline->lower_is_better, "metrics", metrics,
                           "per_example", per, "truncated", (json_int_t)r->truncated);
    if (r->output) {
        json_t *out = json_array();
        for (size_t i = 0; i < r->n; i++)
            json_array_append_new(out, pb_run_text(r->output[i], strlen(r->output[i])));
        json_object_set_new(ev, "outputs", out);
    }
    return pb_run_event(e->run, ev);
}

// ---------------------------------------------------------------- adapter and training

// What methods that start from a text want of it: of the first training prompts.
static pb_err start_text(const experiment *e, const pb_seqs *train, size_t n, real **x, real **k,
                         real **v)
{
    const pb_config *g = &e->m->config;
    size_t kv = g->layers * n * pb_kv_width(g), filled = 0;
    int32_t *tokens = malloc(n * sizeof *tokens);
    *x = malloc(n * g->width * sizeof **x);
    *k = malloc(kv * sizeof **k);
    *v = malloc(kv * sizeof **v);
    if (!tokens || !*x || !*k || !*v) {
        free(tokens);
        return pb_fail(PB_MEMORY, NULL, "no memory for a text of %zu tokens", n);
    }
    for (size_t i = 0; filled < n; i = (i + 1) % train->n)
        for (size_t j = 0; j < train->seq[i].n_prompt && filled < n; j++)
            tokens[filled++] = train->tokens[train->seq[i].first + j];
    pb_err err = pb_text_kv(e->m, tokens, n, *x, *k, *v);
    free(tokens);
    return err;
}

static pb_err make_adapter(experiment *e, const pb_seqs *train)
{
    pb_err err = PB_OK;
    real *x = NULL, *k = NULL, *v = NULL;
    const pb_method *m = e->method;
    if (m->backbone)
        return PB_OK;
    if (e->from) {
        PB_GO(pb_adapter_trainable(&e->a, e->from, e->opts));
    } else {
        size_t n_text = m->text_len ? m->text_len(e->opts) : 0;
        PB_GO(pb_adapter_new(&e->a, m, e->opts, &e->m->config, true));
        if (n_text)
            PB_GO(start_text(e, train, n_text, &x, &k, &v));
        PB_GO(pb_adapter_init(e->a, e->m, (uint64_t)e->seed, n_text, x, k, v));
    }
    pb_adapter_made_for(e->a, e->model, e->m->sha256);
    PB_GO(pb_adapter_folded(&e->served, e->a));
done:
    free(x);
    free(k);
    free(v);
    return err;
}

static pb_err trained_event(experiment *e)
{
    const pb_train_result *r = &e->trained;
    return pb_run_event(
        e->run, json_pack("{s:s, s:I, s:I, s:I, s:f, s:I, s:b, s:i, s:I}", "event", "note", "steps",
                          (json_int_t)r->steps, "best_step", (json_int_t)r->best_step, "tokens",
                          (json_int_t)r->tokens, "train_seconds", r->seconds, "step_bytes",
                          (json_int_t)r->step_bytes, "recompute", e->recompute, "processes",
                          pb_ranks(), "sent_bytes_per_step", (json_int_t)r->sent_bytes));
}

static pb_err train(experiment *e, const char *h5, const pb_experiment_args *args)
{
    pb_err err = PB_OK;
    pb_seqs seqs = {0}, valid = {0};
    char checkpoint[4096];
    size_t room = e->m->config.context;
    PB_GO(pb_path(checkpoint, sizeof checkpoint, "%s.checkpoint", h5));
    if (e->a)
        room -= e->a->prefix_len;
    // Without steps training examples matter only to a method that starts from their text.
    if (e->steps || (!e->from && e->method->text_len && e->method->text_len(e->opts)))
        PB_GO(pb_seqs_from_split(&seqs, e->m->tokenizer, e->data, PB_TRAIN, e->m->config.context));
    PB_GO(make_adapter(e, &seqs));
    if (e->run)
        PB_GO(params_event(e));
    if (!e->trainable || !e->steps)
        goto done;
    if (e->a && e->a->prefix_len) { // a prefix takes room in the context
        room = e->m->config.context - e->a->prefix_len;
        pb_seqs_free(&seqs);
        PB_GO(pb_seqs_from_split(&seqs, e->m->tokenizer, e->data, PB_TRAIN, room));
    }
    PB_GO(pb_seqs_from_split(&valid, e->m->tokenizer, e->data, PB_VALID, room));
    if (seqs.dropped)
        pb_warn("%zu of %zu training examples are longer than %zu tokens and are left out",
                seqs.dropped, seqs.dropped + seqs.n, room);
    if (valid.dropped)
        pb_warn("%zu of %zu validation examples are longer than %zu tokens and are left out",
                valid.dropped, valid.dropped + valid.n, room);
    pb_train_options o;
    pb_train_defaults(&o);
    o.steps = (size_t)e->steps;
    o.batch = (size_t)e->batch;
    o.accumulate = (size_t)e->accumulate;
    o.recompute = e->recompute;
    o.lr = e->lr;
    o.floor = e->floor;
    o.schedule = e->schedule[0] == 'l'                            ? PB_LINEAR
                 : e->schedule[1] == 'o' && e->schedule[2] == 's' ? PB_COSINE
                                                                  : PB_CONSTANT;
    o.warmup = (size_t)(e->warmup * (double)e->steps);
    o.adamw.weight_decay = e->weight_decay;
    o.clip = e->clip;
    o.eval_every = (size_t)e->eval_every;
    o.patience = (size_t)e->patience;
    o.seed = (uint64_t)e->seed;
    o.checkpoint = checkpoint;
    o.checkpoint_every = args->checkpoint_every;
    pb_train_hooks h = {e, on_step, on_valid, on_resumed, on_saved, args->label};
    PB_GO(pb_train(e->m, e->a, &seqs, &valid, &o, e->run ? &h : NULL, &e->trained));
    if (e->run)
        PB_GO(trained_event(e));
done:
    pb_seqs_free(&seqs);
    pb_seqs_free(&valid);
    return err;
}

static pb_err evaluate(experiment *e, pb_experiment_result *out, const pb_experiment_args *args,
                       const pb_model *base)
{
    pb_eval_result r = {0};
    char label[128];
    if (e->served) {
        pb_adapter_refresh(e->served, e->a);
        PB_TRY(pb_adapter_serve(e->served, e->m));
    }
    PB_TRY(pb_path(label, sizeof label, "%.100s: test", args->label ? args->label : ""));
    pb_eval_options how = {.decoding = e->decoding, .label = args->label ? label : NULL};
    PB_TRY(pb_evaluate(&r, e->m, e->served, e->task, e->data, PB_TEST, &how));
    out->metric = r.headline;
    out->score = r.score;
    out->loss = r.loss;
    if (r.truncated)
        pb_warn("%zu of %zu test examples were cut to fit into %zu tokens", r.truncated, r.n,
                e->m->config.context);
    pb_err err = eval_event(e, &r, base);
    pb_eval_result_free(&r);
    return err;
}

static pb_err save(const experiment *e, const char *h5)
{
    char folder[4096];
    PB_TRY(pb_path(folder, sizeof folder, "%.*s.%s", (int)(strlen(h5) - 3), h5,
                   e->a ? "adapter" : "model"));
    if (e->a)
        return e->a->layout.n ? pb_adapter_save(e->served, folder) : PB_OK;
    return pb_model_save(e->m, folder, false);
}

// Runs what is set up; every error from here on is the run's own.
static pb_err work(experiment *e, pb_experiment_result *out, const char *h5,
                   const pb_experiment_args *args, const pb_model *base)
{
    PB_TRY(train(e, h5, args));
    if (!e->run)
        return PB_OK;
    PB_TRY(evaluate(e, out, args, base));
    return args->save_adapter ? save(e, h5) : PB_OK;
}

static pb_err finish(experiment *e, pb_run_status status, const char *why)
{
    return e->run ? pb_run_finish(e->run, status, why) : PB_OK;
}

static pb_err open_run(experiment *e, const char *h5)
{
    json_t *seeds =
        json_pack("{s:I, s:I}", "seed", (json_int_t)e->seed, "task_seed", (json_int_t)e->task_seed);
    json_t *env = json_pack("{s:s, s:s, s:i}", "blis_kernel", pb_gemm_kernel(), "kernels",
                            pb_kernels_get()->isa, "threads", pb_threads());
    char checkpoint[4096];
    pb_err err = pb_run_open(&e->run, h5, e->config, seeds, env, true);
    json_decref(seeds);
    json_decref(env);
    PB_TRY(err);
    PB_TRY(pb_path(checkpoint, sizeof checkpoint, "%s.checkpoint", h5));
    // Without a checkpoint the run starts over; with one, the trainer says where it goes on.
    if (pb_run_resumed(e->run) && !pb_exists(checkpoint))
        return on_resumed(e, 0);
    return PB_OK;
}

static void release(experiment *e)
{
    pb_run_abandon(e->run);
    pb_adapter_free(e->from);
    pb_adapter_free(e->a);
    pb_adapter_free(e->served);
    pb_model_close(e->own);
    free(e->opts);
    json_decref(e->config);
}

pb_err pb_experiment_keys(const json_t *some, const char *what)
{
    return pb_json_only(some, run_keys, what);
}

pb_err pb_experiment_check(const json_t *config)
{
    experiment e = {0};
    pb_err err = read_config(&e, config);
    if (!err)
        err = pb_options_new(&e.opts, e.method);
    if (!err)
        err = pb_options_from_json(e.method, e.opts, e.options);
    release(&e);
    return err;
}

// Everything that a run is known by. *cannot: it is known, but no such adapter can be made.
static pb_err prepare(experiment *e, const json_t *config, pb_cache *cache,
                      const pb_experiment_args *args, char hash[PB_HASH_LEN], pb_err *cannot)
{
    PB_TRY(read_config(e, config));
    PB_TRY(load_data(e, cache, args));
    PB_TRY(know_model(cache, e->model, e->weights));
    if (e->adapter)
        PB_TRY(pb_adapter_load(&e->from, e->adapter, &cache->model_config, cache->model_sha256));
    *cannot = solve(e, cache);
    char why[512], hint[256];
    snprintf(why, sizeof why, "%s", pb_error_message());
    snprintf(hint, sizeof hint, "%s", pb_error_hint());
    PB_TRY(pb_config_hash(hash, e->config));
    if (*cannot)
        (void)pb_fail(*cannot, hint, "%s", why);
    return PB_OK;
}

// What a run ends with when the error is its own, and not the machine's: another try would end
// alike.
static bool is_result(pb_err err, pb_run_status *status)
{
    *status = err == PB_DIVERGED ? PB_RUN_DIVERGED : PB_RUN_FAILED;
    return err == PB_DIVERGED || err == PB_INPUT || err == PB_UNSUPPORTED || err == PB_USAGE;
}

pb_err pb_experiment_look(pb_run_status *out, const json_t *config, const char *h5, pb_cache *cache,
                          const pb_experiment_args *args, char *why, size_t why_size)
{
    experiment e = {0};
    char hash[PB_HASH_LEN];
    pb_err cannot, err = prepare(&e, config, cache, args, hash, &cannot);
    if (!err)
        err = pb_run_look(out, h5, hash, why, why_size);
    release(&e);
    return err;
}

pb_err pb_experiment_run(pb_experiment_result *out, const json_t *config, const char *h5,
                         pb_cache *cache, const pb_experiment_args *args)
{
    pb_err err = PB_OK, cannot;
    experiment e = {0};
    char hash[PB_HASH_LEN];
    double start = pb_now();
    pb_run_status status;
    *out = (pb_experiment_result){.status = PB_RUN_COMPLETE};
    PB_GO(prepare(&e, config, cache, args, hash, &cannot));
    if (cannot) {
        snprintf(out->why, sizeof out->why, "%s", pb_error_message());
        snprintf(out->hint, sizeof out->hint, "%s", pb_error_hint());
    }
    out->trainable = e.trainable;
    if (pb_rank() == 0)
        PB_GO(pb_run_is_complete(h5, hash, &out->skipped, NULL, 0));
    pb_ranks_copy(&out->skipped, sizeof out->skipped);
    if (out->skipped)
        goto done;
    PB_GO(open_model(cache, e.model, e.weights));
    e.m = cache->model;
    if (!e.m->tokenizer) {
        err = pb_fail(PB_INPUT, "put its tokenizer beside it", "the model %s has no tokenizer",
                      e.model);
        goto done;
    }
    if (e.method->backbone) { // a copy of the weights to train
        pb_model_args ma = {.trainable = true, .weights = e.weights};
        PB_GO(pb_model_open(&e.own, e.model, &ma));
        e.m = e.own;
    }
    if (pb_rank() == 0)
        PB_GO(open_run(&e, h5));
    err = cannot ? cannot : work(&e, out, h5, args, cache->model);
    if (err && is_result(err, &status)) {
        out->status = status;
        out->error = cannot ? PB_INPUT : err; // no such adapter: the budget and the model disagree
        if (!cannot) {
            snprintf(out->why, sizeof out->why, "%s", pb_error_message());
            snprintf(out->hint, sizeof out->hint, "%s", pb_error_hint());
        }
        err = finish(&e, status, out->why);
    } else if (!err) {
        err = finish(&e, PB_RUN_COMPLETE, NULL);
    }
    if (!err)
        e.run = NULL;
done:
    out->seconds = pb_now() - start;
    release(&e);
    return err;
}
