#include "cli/common/serve_run.h"

#include "cli/common/measured.h"
#include "cli/common/tenants.h"
#include "core/log.h"
#include "core/threads.h"
#include "model/open_model.h"
#include "serve/engine.h"
#include "serve/session.h"
#include "train/data.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS = 8, REQUESTS = 200, MOST_REQUESTS = 10000, SLOTS = 16, PROMPT_ROWS = 128 };
enum { QUEUE = 1024, MOST_WARM_UP = 100 };

static_assert((int)PB_SERVED_SERVED == (int)PB_SERVED &&
                  (int)PB_SERVED_QUEUE_FULL == (int)PB_QUEUE_FULL &&
                  (int)PB_SERVED_NO_ADAPTER == (int)PB_NO_ADAPTER,
              "results name outcomes as the server does");

typedef struct settings {
    const char *model, *trace, *task, *data;
    const json_t *methods, *options, *budgets, *adapters;
    int64_t requests, warm_up, beam, slots, rows, queue, adapter_memory, seed; // -1: not given
    double seconds, ttft_ms, tpot_ms;                                          // NaN: not given
    pb_workload load;
    pb_storage weights;
} settings;

// ---------------------------------------------------------------- configuration

static pb_err texts(const json_t *list, const char *key, bool may_be_empty)
{
    if (!json_is_array(list) || (!json_array_size(list) && !may_be_empty))
        return pb_fail(PB_INPUT, NULL, "\"%s\" must be a list", key);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            return pb_fail(PB_INPUT, NULL, "\"%s\" must hold texts", key);
    return PB_OK;
}

static pb_err read_load(settings *s, const json_t *c)
{
    int64_t tenants = 0, clients = 0;
    const char *popularity = "uniform", *prompt = NULL, *output = NULL;
    pb_workload *w = &s->load;
    w->cv = 1;
    PB_TRY(pb_json_opt_int(c, "tenants", &tenants, 1, 1 << 24));
    PB_TRY(pb_json_opt_int(c, "clients", &clients, 1, 1 << 20));
    PB_TRY(pb_json_opt_real(c, "rate", &w->rate, 1e-6, 1e6));
    PB_TRY(pb_json_opt_real(c, "rate_end", &w->rate_end, 1e-6, 1e6));
    PB_TRY(pb_json_opt_real(c, "cv", &w->cv, 0, 100));
    PB_TRY(pb_json_opt_str(c, "trace", &s->trace));
    PB_TRY(pb_json_opt_str(c, "popularity", &popularity));
    PB_TRY(pb_popularity_parse(w, popularity));
    PB_TRY(pb_json_opt_str(c, "task", &s->task));
    PB_TRY(pb_json_opt_str(c, "data", &s->data));
    PB_TRY(pb_json_opt_str(c, "prompt", &prompt));
    PB_TRY(pb_json_opt_str(c, "output", &output));
    w->tenants = (size_t)tenants;
    w->clients = (size_t)clients;
    if ((clients > 0) + (w->rate > 0) + (s->trace != NULL) != 1)
        return pb_fail(PB_USAGE, "a closed loop, an open one, or a trace",
                       "give one of --clients, --rate and --trace");
    if (s->task)
        w->prompt.kind = w->output.kind = PB_FROM_DATA;
    if (prompt)
        PB_TRY(pb_lengths_parse(&w->prompt, prompt, "--prompt"));
    if (output)
        PB_TRY(pb_lengths_parse(&w->output, output, "--output"));
    return PB_OK;
}

static pb_err read_settings(settings *s, const json_t *c)
{
    static const char *const known[] = {
        "kind",    "model",        "methods",        "options", "budgets",    "adapters", "tenants",
        "clients", "rate",         "rate_end",       "cv",      "trace",      "prompt",   "output",
        "task",    "data",         "requests",       "seconds", "warm_up",    "beam",     "slots",
        "rows",    "queue",        "ttft_ms",        "tpot_ms", "popularity", "weights",  "seed",
        "threads", "trace_sha256", "adapter_memory", NULL};
    const char *kind = "serve", *weights = "auto";
    int64_t threads = pb_threads();
    *s = (settings){.requests = -1,
                    .warm_up = -1,
                    .seconds = NAN,
                    .ttft_ms = NAN,
                    .tpot_ms = NAN,
                    .adapter_memory = -1};
    PB_TRY(pb_json_only(c, known, "a serving configuration"));
    PB_TRY(pb_json_opt_str(c, "kind", &kind));
    if (strcmp(kind, "serve"))
        return pb_fail(PB_INPUT, NULL, "\"kind\" is \"%.50s\", not \"serve\"", kind);
    PB_TRY(pb_json_str(c, "model", &s->model));
    PB_TRY(pb_json_opt_str(c, "weights", &weights));
    PB_TRY(pb_storage_find(&s->weights, weights));
    s->methods = json_object_get(c, "methods");
    s->options = json_object_get(c, "options");
    s->budgets = json_object_get(c, "budgets");
    s->adapters = json_object_get(c, "adapters");
    PB_TRY(texts(s->methods, "methods", true));
    PB_TRY(texts(s->budgets, "budgets", false));
    PB_TRY(texts(s->adapters, "adapters", true));
    PB_TRY(pb_json_opt_int(c, "requests", &s->requests, 1, 100000000));
    PB_TRY(pb_json_opt_real(c, "seconds", &s->seconds, 1e-3, 1e6));
    PB_TRY(pb_json_opt_int(c, "warm_up", &s->warm_up, 0, 100000000));
    PB_TRY(pb_json_opt_int(c, "beam", &s->beam, 1, PB_MOST_BEAMS));
    PB_TRY(pb_json_opt_int(c, "slots", &s->slots, 1, 1 << 16));
    PB_TRY(pb_json_opt_int(c, "rows", &s->rows, 2, 1 << 20));
    PB_TRY(pb_json_opt_int(c, "queue", &s->queue, 1, (int64_t)1 << 40));
    PB_TRY(pb_json_opt_int(c, "adapter_memory", &s->adapter_memory, 1, (int64_t)1 << 50));
    PB_TRY(pb_json_opt_real(c, "ttft_ms", &s->ttft_ms, 1e-6, 1e12));
    PB_TRY(pb_json_opt_real(c, "tpot_ms", &s->tpot_ms, 1e-6, 1e12));
    PB_TRY(pb_json_opt_int(c, "seed", &s->seed, 0, INT64_MAX));
    PB_TRY(pb_json_opt_int(c, "threads", &threads, 1, 1024));
    if (threads != pb_threads())
        return pb_fail(PB_USAGE, "set PB_THREADS to it",
                       "the configuration is for %lld threads, the program runs with %d",
                       (long long)threads, pb_threads());
    PB_TRY(read_load(s, c));
    s->load.seed = (uint64_t)s->seed;
    if ((int64_t)s->load.clients > s->queue)
        return pb_fail(PB_USAGE, "a closed loop's requests all wait at its start",
                       "%zu clients and a queue for %lld requests", s->load.clients,
                       (long long)s->queue);
    if (s->beam > s->slots)
        return pb_fail(PB_USAGE, "a request has a slot for each of its beams",
                       "%lld slots for requests of %lld beams", (long long)s->slots,
                       (long long)s->beam);
    return PB_OK;
}

static int put_missing(json_t *c, const char *key, json_t *v)
{
    return json_object_get(c, key) ? (json_decref(v), 0) : json_object_set_new(c, key, v);
}

static json_int_t whole(const json_t *c, const char *key)
{
    return json_integer_value(json_object_get(c, key));
}

static bool has(const json_t *c, const char *key)
{
    return json_object_get(c, key) != NULL;
}

// Requests that an open loop has in so many seconds; a closed one ends when they are over.
static json_int_t requests_of(const json_t *c)
{
    double seconds = json_number_value(json_object_get(c, "seconds"));
    double rate = json_number_value(json_object_get(c, "rate"));
    double end = json_number_value(json_object_get(c, "rate_end"));
    if (!has(c, "seconds"))
        return REQUESTS;
    if (!has(c, "rate"))
        return MOST_REQUESTS;
    return (json_int_t)fmax(1, round(seconds * (end > 0 ? (rate + end) / 2 : rate)));
}

static int fill_in(json_t *c)
{
    bool own = json_array_size(json_object_get(c, "adapters")) > 0, trace = has(c, "trace");
    int bad = put_missing(c, "kind", json_string("serve"));
    bad |= put_missing(c, "methods",
                       own ? json_array() : json_pack("[ssss]", "lora", "ia3", "prefix", "pedro"));
    bad |= put_missing(c, "adapters", json_array());
    bad |= put_missing(c, "options", json_object());
    bad |= put_missing(c, "budgets", json_pack("[s]", "0.5%"));
    bad |= put_missing(c, "tenants", json_integer(16));
    if (!trace && !has(c, "rate"))
        bad |= put_missing(c, "clients", json_integer(CLIENTS));
    if (has(c, "rate"))
        bad |= put_missing(c, "cv", json_real(1));
    if (!trace) {
        bad |= put_missing(c, "popularity", json_string("uniform"));
        bad |= put_missing(c, "requests", json_integer(requests_of(c)));
    }
    if (!trace && !has(c, "task")) {
        bad |= put_missing(c, "prompt", json_string("64"));
        bad |= put_missing(c, "output", json_string("32"));
    }
    bad |= put_missing(c, "beam", json_integer(1));
    bad |= put_missing(c, "slots", json_integer(SLOTS * whole(c, "beam")));
    bad |= put_missing(c, "rows", json_integer(whole(c, "slots") + PROMPT_ROWS));
    json_int_t clients = whole(c, "clients");
    bad |= put_missing(c, "queue", json_integer(clients > QUEUE ? clients : QUEUE));
    bad |= put_missing(c, "weights", json_string("auto"));
    bad |= put_missing(c, "seed", json_integer(1));
    bad |= put_missing(c, "threads", json_integer(pb_threads()));
    return bad;
}

// What is given and has no say.
static pb_err check_given(const json_t *c)
{
    static const char *const of_trace[] = {"popularity", "prompt", "output", "task", "cv", NULL};
    for (size_t i = 0; has(c, "trace") && of_trace[i]; i++)
        if (has(c, of_trace[i]))
            return pb_fail(PB_USAGE, "times, tenants and lengths are in the trace",
                           "--trace and %s", of_trace[i]);
    if (has(c, "task") && (has(c, "prompt") || has(c, "output")))
        return pb_fail(PB_USAGE, "both lengths are an example's",
                       "lengths from a task, and others for --prompt or --output");
    if (has(c, "rate") && has(c, "seconds") && has(c, "requests"))
        return pb_fail(PB_USAGE, "the rate makes the one from the other",
                       "give one of --requests and --seconds");
    if (has(c, "cv") && !has(c, "rate"))
        return pb_fail(PB_USAGE, NULL, "--cv is about the arrivals of an open loop, see --rate");
    return PB_OK;
}

pb_err pb_serve_config(json_t **out, const json_t *config)
{
    settings s;
    char hash[PB_HASH_LEN];
    *out = NULL;
    if (!json_is_object(config))
        return pb_fail(PB_INPUT, NULL, "a serving configuration must be a JSON object");
    PB_TRY(check_given(config));
    pb_err err = PB_OK;
    json_t *c = json_copy((json_t *)config);
    if (!c || fill_in(c))
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for a configuration"));
    PB_GO(read_settings(&s, c));
    if (s.trace) {
        PB_GO(pb_sha256_file(hash, s.trace));
        json_object_set_new(c, "trace_sha256", json_string(hash));
    }
    *out = json_incref(c);
done:
    json_decref(c);
    return err;
}

// ---------------------------------------------------------------- schedule

// Tokens of the prompts and responses of a task's training examples.
static pb_err task_lengths(uint32_t (**out)[2], size_t *n, const settings *s, const pb_model *m)
{
    pb_err err = PB_OK;
    pb_dataset *d = NULL;
    pb_seqs q = {0};
    if (!m->tokenizer)
        return pb_fail(PB_INPUT, "use another model, or give lengths",
                       "the model %s has no tokenizer for task %s", s->model, s->task);
    PB_GO(pb_task_load(&d, s->task, &(pb_task_args){.data = s->data, .seed = (uint64_t)s->seed}));
    PB_GO(pb_seqs_from_split(&q, m->tokenizer, d, PB_TRAIN, m->config.context));
    *out = malloc((q.n + 1) * sizeof **out);
    if (!*out)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu lengths", q.n));
    for (size_t i = 0; i < q.n; i++) {
        (*out)[i][0] = q.seq[i].n_prompt;
        (*out)[i][1] = q.seq[i].n - q.seq[i].n_prompt;
    }
    *n = q.n;
done:
    pb_seqs_free(&q);
    pb_dataset_free(d);
    return err;
}

static pb_err draw(pb_due **out, size_t *n, const settings *s, const pb_model *m)
{
    pb_err err = PB_OK;
    uint32_t(*lengths)[2] = NULL;
    pb_workload w = s->load;
    if (s->trace) {
        PB_TRY(pb_trace_read(out, n, s->trace, w.tenants));
        *n = s->requests > 0 && (size_t)s->requests < *n ? (size_t)s->requests : *n;
        return PB_OK;
    }
    if (s->task)
        PB_GO(task_lengths(&lengths, &w.n_data, s, m));
    w.data = (const uint32_t(*)[2])lengths;
    *n = (size_t)s->requests;
    *out = calloc(*n, sizeof **out);
    if (!*out)
        PB_GO(pb_fail(PB_MEMORY, "ask for fewer", "no memory for %zu requests", *n));
    err = pb_workload_draw(&w, *out, *n);
done:
    free(lengths);
    return err;
}

// ---------------------------------------------------------------- a run

typedef struct run {
    settings s;
    pb_model *m;
    pb_tenants tenants;
    pb_due *due;
    size_t n;
    pb_request *request;
    int32_t *prompts, *outs; // of all requests, one behind the other
    int64_t *token_ns;
    pb_decoding how;
    pb_server_limits limits;
    pb_model_engine *engine;
    pb_server *server;
    pb_session session;
    pb_serving *served;
    size_t left;
    pb_progress progress;
} run;

static pb_err make_kinds(run *u)
{
    const settings *s = &u->s;
    size_t n_budgets = json_array_size(s->budgets);
    u->tenants.model = u->m;
    u->tenants.seed = (uint64_t)s->seed;
    for (size_t b = 0; b < n_budgets; b++)
        for (size_t i = 0; i < json_array_size(s->methods); i++) {
            const char *name = json_string_value(json_array_get(s->methods, i));
            const char *budget = json_string_value(json_array_get(s->budgets, b));
            PB_TRY(pb_tenants_add(&u->tenants, name, json_object_get(s->options, name), budget,
                                  n_budgets > 1 ? budget : ""));
        }
    for (size_t i = 0; i < json_array_size(s->adapters); i++)
        PB_TRY(
            pb_tenants_add_folder(&u->tenants, json_string_value(json_array_get(s->adapters, i))));
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)s->options, name, v)
    {
        bool known = false;
        for (size_t i = 0; i < json_array_size(s->methods); i++)
            known |= !strcmp(json_string_value(json_array_get(s->methods, i)), name);
        if (!known)
            return pb_fail(PB_USAGE, NULL, "options of %s, which is not among the methods", name);
    }
    return u->s.load.tenants >= u->tenants.n_kinds
               ? PB_OK
               : pb_fail(PB_USAGE, "a tenant for each of them, at least",
                         "%zu tenants for %zu kinds of adapters", u->s.load.tenants,
                         u->tenants.n_kinds);
}

// How long a prompt, and a request, can be; and all of them together.
typedef struct extent {
    size_t prompt, request, prompts, outs;
} extent;

static pb_err measure(extent *x, const run *u)
{
    *x = (extent){0};
    for (size_t i = 0; i < u->n; i++) {
        size_t p = u->due[i].prompt, o = u->due[i].output;
        x->prompt = p > x->prompt ? p : x->prompt;
        x->request = p + o > x->request ? p + o : x->request;
        x->prompts += p;
        x->outs += o;
    }
    size_t context = u->m->config.context;
    return x->request <= context ? PB_OK
                                 : pb_fail(PB_INPUT, "ask for shorter prompts or responses",
                                           "a request of %zu tokens, the model's context is %zu",
                                           x->request, context);
}

static pb_err make_requests(run *u, const extent *x)
{
    pb_rng r = pb_rng_make((uint64_t)u->s.seed, PB_STREAM_SAMPLE, 0);
    u->request = calloc(u->n, sizeof *u->request);
    u->prompts = malloc(x->prompts * sizeof *u->prompts);
    u->outs = malloc(x->outs * sizeof *u->outs);
    u->token_ns = malloc(x->outs * sizeof *u->token_ns);
    if (!u->request || !u->prompts || !u->outs || !u->token_ns)
        return pb_fail(PB_MEMORY, "ask for fewer", "no memory for %zu requests", u->n);
    for (size_t k = 0; k < x->prompts; k++)
        u->prompts[k] = (int32_t)pb_rng_below(&r, u->m->config.vocab);
    u->how = (pb_decoding){(size_t)u->s.beam, 1, 0};
    for (size_t i = 0, p = 0, o = 0; i < u->n; i++) {
        const pb_due *d = &u->due[i];
        bool bare = !pb_tenants_kind(&u->tenants, d->tenant)->shape;
        u->request[i] = (pb_request){.prompt = u->prompts + p,
                                     .n_prompt = d->prompt,
                                     .max_new = d->output,
                                     .tenant = bare ? -1 : (int)d->tenant,
                                     .out = u->outs + o,
                                     .token_ns = u->token_ns + o,
                                     .how = &u->how,
                                     .fixed = true};
        p += d->prompt;
        o += d->output;
    }
    return PB_OK;
}

// Room for everything that is recorded while the session runs. A step without decoding ends a
// prompt, or has as many rows of one as it may; and a request loads an adapter once at most.
static pb_err make_records(run *u, const extent *x)
{
    pb_serving *v = u->served;
    size_t steps = x->outs + u->n + x->prompts / u->limits.rows;
    v->step = malloc(steps * sizeof *v->step);
    v->load = malloc(u->n * sizeof *v->load);
    return v->step && v->load ? PB_OK
                              : pb_fail(PB_MEMORY, "ask for fewer",
                                        "no memory for the records of %zu requests", u->n);
}

static int64_t since(const run *u, int64_t t)
{
    return t ? t - u->session.start : -1;
}

static void on_step(void *self, const pb_work *w, int64_t begin, int64_t end)
{
    run *u = self;
    pb_served_step *x = &u->served->step[u->served->n_steps++];
    const pb_counts *c = pb_step_counts(pb_model_engine_step(u->engine));
    *x = (pb_served_step){.begin = begin - u->session.start,
                          .duration = end - begin,
                          .rows = (int64_t)w->batch.n_rows,
                          .prefill = (int64_t)w->prefill,
                          .decode = (int64_t)w->decode,
                          .outputs = (int64_t)w->n_out,
                          .segments = (int64_t)w->batch.n_seg,
                          .tenants = (int64_t)w->tenants,
                          .adapter_bytes = (int64_t)w->adapter_bytes,
                          .keys = (int64_t)w->keys,
                          .pairs = (int64_t)w->pairs};
    static const pb_component order[] = {PB_BACKBONE, PB_ATTENTION, PB_ADAPTER, PB_HEAD};
    for (size_t k = 0; k < PB_SERVED_PARTS; k++) {
        x->flops[k] = (int64_t)c[order[k]].flops;
        x->bytes[k] = (int64_t)c[order[k]].bytes;
        x->regions[k] = (int64_t)c[order[k]].regions;
        x->ns[k] = c[order[k]].ns;
    }
}

static void on_arrival(void *self, const pb_arrival *a)
{
    run *u = self;
    u->served->load[u->served->n_loads++] = (pb_served_load){
        .tenant = (int64_t)a->tenant,
        .asked = since(u, a->asked),
        .begun = since(u, a->begun),
        .ready = since(u, a->ready),
        .failed = a->failed,
    };
}

static void on_done(void *self, const pb_request *r)
{
    run *u = self;
    (void)r;
    pb_progress_update(&u->progress, (int64_t)++u->left, NULL);
}

static pb_err make_tenants(run *u)
{
    const settings *s = &u->s;
    bool *asked = calloc(s->load.tenants, sizeof *asked);
    if (!asked)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", s->load.tenants);
    for (size_t i = 0; i < u->n; i++)
        asked[u->due[i].tenant] = true;
    pb_err err =
        pb_tenants_make(&u->tenants, s->load.tenants,
                        s->adapter_memory > 0 ? (size_t)s->adapter_memory : SIZE_MAX, asked);
    free(asked);
    return err;
}

static pb_err set_up(run *u)
{
    const settings *s = &u->s;
    extent x;
    pb_model_args args = {.weights = s->weights};
    PB_TRY(pb_open_model(&u->m, s->model, (uint64_t)s->seed, &args));
    PB_TRY(draw(&u->due, &u->n, s, u->m));
    PB_TRY(measure(&x, u));
    PB_TRY(make_kinds(u));
    PB_TRY(make_tenants(u));
    u->limits = (pb_server_limits){.slots = (size_t)s->slots,
                                   .beam = (size_t)s->beam,
                                   .positions = x.request,
                                   .rows = (size_t)s->rows,
                                   .queue = (size_t)s->queue};
    PB_TRY(make_requests(u, &x));
    PB_TRY(make_records(u, &x));
    bool whole = false;
    for (size_t i = 0; i < u->tenants.n_kinds; i++)
        whole |= u->tenants.kind[i].method && u->tenants.kind[i].method->whole_prompt;
    PB_TRY(pb_model_engine_new(&u->engine, u->m, u->tenants.shape, u->tenants.n_shapes,
                               &u->tenants.store, &u->limits, whole ? x.prompt : 0));
    pb_step_time(pb_model_engine_step(u->engine));
    u->tenants.store.on_arrival = on_arrival;
    u->tenants.store.self = u;
    return pb_server_new(&u->server, &u->limits, pb_model_engine_get(u->engine), &u->tenants.store);
}

static void tear_down(run *u)
{
    pb_server_free(u->server);
    pb_model_engine_free(u->engine);
    pb_tenants_free(&u->tenants);
    pb_model_close(u->m);
    free(u->due);
    free(u->request);
    free(u->prompts);
    free(u->outs);
    free(u->token_ns);
}

static pb_err serve(run *u)
{
    size_t usual = u->n / 10 < MOST_WARM_UP ? u->n / 10 : MOST_WARM_UP;
    double limit = isnan(u->s.seconds) || u->s.load.rate > 0 ? 0 : 1e9 * u->s.seconds;
    u->session = (pb_session){.server = u->server,
                              .engine = pb_model_engine_get(u->engine),
                              .store = &u->tenants.store,
                              .due = u->due,
                              .request = u->request,
                              .n = u->n,
                              .clients = u->s.load.clients,
                              .warm_up = u->s.warm_up >= 0 ? (size_t)u->s.warm_up : usual,
                              .stop_after = (int64_t)limit,
                              .step = on_step,
                              .done = on_done,
                              .self = u};
    pb_progress_begin(&u->progress, "requests served", 0, (int64_t)u->n);
    pb_err err = pb_session_run(&u->session);
    pb_progress_end(&u->progress, NULL);
    if (!err && limit > 0 && !u->s.trace && u->session.submitted == u->n)
        pb_warn("all %zu requests were served before %g s; raise --requests", u->n, u->s.seconds);
    if (!err && u->session.warm_up >= u->session.submitted)
        pb_warn("the warm-up of %zu requests leaves none to count of %zu", u->session.warm_up,
                u->session.submitted);
    if (*(u->tenants.loader ? pb_thread_loader_error(u->tenants.loader) : ""))
        pb_warn("%s", pb_thread_loader_error(u->tenants.loader));
    return err;
}

// ---------------------------------------------------------------- what came of it

static int64_t digest(const int32_t *tokens, size_t n)
{
    uint64_t h = 14695981039346656037u; // FNV-1a, over tokens
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)tokens[i]) * 1099511628211u;
    return (int64_t)(h >> 1);
}

static pb_err collect(run *u)
{
    pb_serving *v = u->served;
    size_t n = u->session.submitted;
    for (size_t i = 0; i < n; i++)
        v->n_tokens += u->request[i].n_steps;
    v->request = malloc((n + 1) * sizeof *v->request);
    v->token_ns = malloc((v->n_tokens + 1) * sizeof *v->token_ns);
    if (!v->request || !v->token_ns)
        return pb_fail(PB_MEMORY, NULL, "no memory for the results of %zu requests", n);
    v->n_requests = n;
    for (size_t i = 0, k = 0; i < n; i++) {
        const pb_request *r = &u->request[i];
        int64_t last = r->n_steps ? r->token_ns[r->n_steps - 1] : 0;
        v->request[i] =
            (pb_served){.method = (int64_t)(u->due[i].tenant % u->tenants.n_kinds),
                        .tenant = u->due[i].tenant,
                        .prompt = u->due[i].prompt,
                        .output = u->due[i].output,
                        .due = u->due[i].at,
                        .scheduled = since(u, r->scheduled),
                        .queued = since(u, r->queued),
                        .admitted = since(u, r->admitted),
                        .first = since(u, r->first),
                        .last = since(u, last),
                        .finished = since(u, r->finished),
                        .n_out = (int64_t)r->n_out,
                        .steps = (int64_t)r->n_steps,
                        .outcome = r->outcome,
                        .digest = digest(r->out, r->outcome == PB_SERVED ? r->n_out : 0)};
        for (size_t j = 0; j < r->n_steps; j++)
            v->token_ns[k++] = since(u, r->token_ns[j]);
    }
    return PB_OK;
}

static json_t *describe_kind(const run *u, size_t i)
{
    const pb_tenant_kind *k = &u->tenants.kind[i];
    size_t n = u->s.load.tenants, kinds = u->tenants.n_kinds;
    json_t *o =
        json_pack("{s:I, s:s, s:I, s:I, s:I}", "index", (json_int_t)i, "method",
                  k->method ? k->method->name : "base", "trainable", (json_int_t)k->trainable,
                  "bytes_per_tenant", (json_int_t)(k->shape ? pb_adapter_resident(k->shape) : 0),
                  "tenants", (json_int_t)(n / kinds + (i < n % kinds)));
    if (o && k->shape && k->method->knob) {
        json_object_set_new(o, "knob", json_string(k->method->knob));
        json_object_set_new(o, "knob_value",
                            json_integer(pb_options_knob(k->method, k->shape->options)));
    }
    return o;
}

static void say_load(char *out, size_t size, const run *u)
{
    const settings *s = &u->s;
    const pb_workload *w = &s->load;
    char how[120];
    if (s->trace)
        snprintf(how, sizeof how, "a trace");
    else if (w->clients)
        snprintf(how, sizeof how, "%zu clients", w->clients);
    else if (w->rate_end > 0)
        snprintf(how, sizeof how, "%g to %g requests/s, cv %g", w->rate, w->rate_end, w->cv);
    else
        snprintf(how, sizeof how, "%g requests/s, cv %g", w->rate, w->cv);
    snprintf(out, size, "%s, %zu tenants, %zu requests, %zu slots, beam %zu", how, w->tenants,
             u->session.submitted, u->limits.slots, u->limits.beam);
}

static pb_err describe(run *u)
{
    const pb_session *x = &u->session;
    const pb_step *st = pb_model_engine_step(u->engine);
    char load[200];
    say_load(load, sizeof load, u);
    json_t *a = json_pack(
        "{s:s, s:{}, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "workload", load, "methods",
        "tenants", (json_int_t)u->s.load.tenants, "warm_up", (json_int_t)x->warm_up, "counted_ns",
        (json_int_t)(x->counted ? x->counted - x->start : x->end - x->start), "end_ns",
        (json_int_t)(x->end - x->start), "backbone_bytes", (json_int_t)pb_model_resident(u->m),
        "kv_bytes", (json_int_t)pb_step_kv_bytes(st), "activation_bytes",
        (json_int_t)pb_step_bytes(st), "adapter_peak_bytes", (json_int_t)u->tenants.store.peak,
        "evictions", (json_int_t)u->tenants.store.evictions);
    bool failed = !a;
    json_t *kinds = json_object_get(a, "methods");
    for (size_t i = 0; i < u->tenants.n_kinds && !failed; i++)
        failed |= json_object_set_new(kinds, u->tenants.kind[i].name, describe_kind(u, i)) != 0;
    if (!failed && u->s.adapter_memory > 0)
        failed |=
            json_object_set_new(a, "adapter_limit_bytes", json_integer(u->s.adapter_memory)) != 0;
    if (!failed && !isnan(u->s.ttft_ms))
        failed |= json_object_set_new(a, "ttft_limit_ms", json_real(u->s.ttft_ms)) != 0;
    if (!failed && !isnan(u->s.tpot_ms))
        failed |= json_object_set_new(a, "tpot_limit_ms", json_real(u->s.tpot_ms)) != 0;
    json_t *outcomes = json_array();
    for (int i = PB_WAITING; i <= PB_NO_ADAPTER && !failed; i++)
        failed |= json_array_append_new(outcomes, json_string(pb_outcome_name((pb_outcome)i))) != 0;
    failed |= json_object_set_new(a, "outcomes", outcomes) != 0;
    u->served->about = a;
    return failed ? pb_fail(PB_MEMORY, NULL, "no memory for the results") : PB_OK;
}

// Writes down what there is.
static pb_err write_down(run *u, pb_run *file)
{
    json_t *event;
    PB_TRY(collect(u));
    PB_TRY(describe(u));
    if (!file)
        return PB_OK;
    PB_TRY(pb_serving_event(&event, u->served));
    return pb_run_event(file, event);
}

// A failure to write comes in front of how the session ended.
static pb_err both(pb_err ended, run *u, pb_run *file)
{
    char text[1024], hint[512];
    snprintf(text, sizeof text, "%s", ended ? pb_error_message() : "");
    snprintf(hint, sizeof hint, "%s", ended ? pb_error_hint() : "");
    pb_err err = write_down(u, file);
    if (err || !ended)
        return err;
    return pb_fail(ended, *hint ? hint : NULL, "%s", text);
}

pb_err pb_serve_run(pb_serving **out, const json_t *config, const char *h5)
{
    pb_err err = PB_OK;
    run u = {0};
    json_t *full = NULL, *env = NULL, *seeds = NULL;
    pb_run *file = NULL;
    char hash[PB_HASH_LEN];
    bool complete = false;
    *out = NULL;
    PB_GO(pb_serve_config(&full, config));
    PB_GO(read_settings(&u.s, full));
    if (h5) {
        PB_GO(pb_config_hash(hash, full));
        PB_GO(pb_run_is_complete(h5, hash, &complete, NULL, 0));
        if (complete) {
            pb_info("%s: complete, with the same configuration; nothing to do", h5);
            goto done;
        }
    }
    u.served = calloc(1, sizeof *u.served);
    if (!u.served)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the results"));
    PB_GO(set_up(&u));
    pb_threads_bind();
    if (h5) {
        env = pb_measured_env(u.m);
        seeds = json_pack("{s:I}", "seed", (json_int_t)u.s.seed);
        PB_GO(pb_run_open(&file, h5, full, seeds, env, false));
    }
    err = both(serve(&u), &u, file);
    if (file)
        err = pb_measured_end(file, err);
done:
    if (u.served && u.served->about) {
        *out = u.served;
        u.served = NULL;
    }
    pb_serving_free(u.served);
    tear_down(&u);
    json_decref(full);
    json_decref(env);
    json_decref(seeds);
    return err;
}
