// `pedrobench bench`: the suite's speed as fractions of what the machine can do, and beside other
// programs.
#include "bench/bench.h"
#include "bench/peer.h"
#include "bench/product.h"
#include "bench/rig.h"
#include "cli/common/common.h"
#include "cli/common/grid.h"
#include "model/open_model.h"
#include "core/log.h"
#include "core/threads.h"
#include "results/env.h"
#include "results/bench.h"
#include "tensor/gemm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32 };

struct args {
    const char *what;
    const char *geometry[MOST], *method[MOST];
    size_t n_geometries, n_methods;
    size_t rows[MOST], n_rows;
    size_t sequences, tokens, context; // 0: the part's default
    const char *weights, *out;
    bool peers, json, headed;
    pb_bench_plan plan;
    json_t *works;
    json_t *absent; // peers that were not there: name -> why
};

// Geometries by letter: those of the performance page.
static const struct {
    const char *name, *spec, *what;
} geometries[] = {
    {"A", "random:768x2048x12x12x12x32000", "768 wide, 12 layers, 110 M"},
    {"B", "random:288x768x6x6x6x32000", "288 wide, 6 layers, 15 M"},
    {"C", "random:2048x5632x22x32x4x32000", "TinyLlama, 1.1 B"},
};

static const char *spec_of(const char *name)
{
    for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++)
        if (!strcmp(name, geometries[i].name))
            return geometries[i].spec;
    return name;
}

enum { PEERS = 256, JSON, MIN_ROUNDS, SAMPLE, SEQUENCES, TOKENS, CONTEXT };

static const struct argp_option opts[] = {
    {"geometry", 'g', "NAMES", 0,
     "A (768 wide, 12 layers, 110 M), B (288, 6 layers, 15 M), C (TinyLlama, 1.1 B), a model, or "
     "random:WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB (default A,B)",
     0},
    {"methods", 'x', "NAMES", 0, "Methods (default lora,ia3,pedro,prefix)", 0},
    {"rows", 'R', "NUMBERS", 0, "Rows of products, or sequences of a batch", 0},
    {"sequences", SEQUENCES, "N", 0, "Sequences of a training batch (default 4; 8 for B)", 0},
    {"tokens", TOKENS, "N", 0, "Tokens of each (default 256), or of a prompt (default 512)", 0},
    {"context", CONTEXT, "N", 0, "Tokens in front of a decoded one (default 64)", 0},
    {"peers", PEERS, 0, 0, "The same work by PyTorch, in the same rounds", 0},
    {"seconds", 's', "S", 0, "Time for the rounds of one work (default 10)", 0},
    {"min-rounds", MIN_ROUNDS, "N", 0, "Rounds whatever the time (default 7)", 0},
    {"sample", SAMPLE, "S", 0, "Shortest sample (default 0.03)", 0},
    {"json", JSON, 0, 0, "Print JSON", 0},
    {"out", 'o', "FILE.h5", 0, "Write all samples there", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    PB_WEIGHTS_OPTION,
    {0}};

static size_t words(const char *text, const char *option, const char **out,
                    struct argp_state *state)
{
    size_t n = 0;
    char *copy = strdup(text), *save = NULL; // lives as long as the program
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (n == MOST)
            argp_error(state, "%s names more than %d", option, MOST);
        out[n++] = w;
    }
    if (!n)
        argp_error(state, "%s is empty", option);
    return n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const parts[] = {"machine", "kernels", "train",   "prefill",
                                        "decode",  "tenants", "barriers"};
    struct args *a = state->input;
    const char *list[MOST] = {NULL};
    pb_err err = PB_OK;
    switch (key) {
    case 'g':
        a->n_geometries = words(arg, "--geometry", a->geometry, state);
        break;
    case 'x':
        a->n_methods = words(arg, "--methods", a->method, state);
        break;
    case 'R':
        a->n_rows = words(arg, "--rows", list, state);
        for (size_t i = 0; i < a->n_rows && !err; i++)
            err = pb_parse_size(list[i], "--rows", &a->rows[i]);
        free((char *)list[0]);
        break;
    case SEQUENCES:
        err = pb_parse_size(arg, "--sequences", &a->sequences);
        break;
    case TOKENS:
        err = pb_parse_size(arg, "--tokens", &a->tokens);
        break;
    case CONTEXT:
        err = pb_parse_size(arg, "--context", &a->context);
        break;
    case MIN_ROUNDS:
        err = pb_parse_size(arg, "--min-rounds", &a->plan.min_rounds);
        break;
    case 's':
        err = pb_parse_real(arg, "--seconds", 1e-3, 1e6, &a->plan.seconds);
        break;
    case SAMPLE:
        err = pb_parse_real(arg, "--sample", 1e-6, 1e3, &a->plan.sample);
        break;
    case PEERS:
        a->peers = true;
        break;
    case JSON:
        a->json = true;
        break;
    case 'o':
        a->out = arg;
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case PB_KEY_WEIGHTS:
        a->weights = arg;
        break;
    case ARGP_KEY_ARG:
        if (a->what)
            argp_error(state, "unexpected argument \"%s\"", arg);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (!strcmp(arg, parts[i]))
                a->what = arg;
        if (!a->what)
            argp_error(state,
                       "there is no benchmark \"%s\"; there are machine, kernels, train, prefill, "
                       "decode, tenants and barriers",
                       arg);
        break;
    case ARGP_KEY_END:
        if (!a->what)
            argp_error(state, "name a benchmark: machine, kernels, train, prefill, decode, tenants "
                              "or barriers");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    if (err)
        pb_usage_error(state);
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "machine|kernels|train|prefill|decode|tenants|barriers",
    "Measures the machine's own limits and parts of the suite beside them, in the same rounds: "
    "products with weights, training steps, prompts, decoding, batches of many tenants. `barriers` "
    "counts parallel regions per layer and needs no time. Nothing else should run on the "
    "machine.\v"
    "Examples:\n"
    "  pedrobench bench machine\n"
    "  pedrobench bench decode --geometry B --rows 1,8,16 --weights bf16\n"
    "  pedrobench bench train --geometry A,B --peers --out train.h5\n"
    "  pedrobench bench tenants --geometry random:2048x5632x22x32x4x32000 --weights bf16",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- results of a work

static void cell_number(pb_grid *g, double v, const char *fmt)
{
    char text[48] = "";
    if (isfinite(v) && v > 0)
        snprintf(text, sizeof text, fmt, v);
    pb_grid_add(g, "%s", text);
}

static pb_err print_work(struct args *a, const pb_work *w)
{
    static const char *const head[] = {"arm",  "ms",       "quartiles", "tokens/s", "GFLOP/s",
                                       "GB/s", "of limit", "floor",     "time",     "allowed"};
    pb_grid g = {.cols = sizeof head / sizeof *head};
    if (!a->headed)
        printf("%d threads, kernels %s, BLIS %s; medians of rounds with all arms in each\n",
               pb_threads(), pb_kernels_get()->isa, pb_gemm_kernel());
    a->headed = true;
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (size_t i = 0; i < w->n; i++) {
        const pb_arm *m = &w->arm[i];
        pb_arm_time t = pb_arm_times(m);
        bool limit = m->kind == PB_ARM_FLOPS || m->kind == PB_ARM_BYTES;
        pb_grid_add(&g, "%s", m->name);
        pb_grid_add(&g, "%.4g", 1e3 * t.median);
        pb_grid_add(&g, "%.4g-%.4g", 1e3 * t.lo, 1e3 * t.hi);
        cell_number(&g, limit ? NAN : w->tokens / t.median, "%.0f");
        cell_number(&g, 1e-9 * m->flops / t.median, "%.1f");
        cell_number(&g, 1e-9 * m->bytes / t.median, "%.1f");
        cell_number(&g, 100 * pb_arm_fraction(w, m), "%.0f %%");
        cell_number(&g, 100 * m->floor, "%.0f %%");
        if (m->against == PB_NO_ARM)
            pb_grid_add(&g, "%s", "");
        else
            pb_grid_add(&g, "%.3f x %s", pb_arm_ratio(m, &w->arm[m->against]),
                        w->arm[m->against].name);
        cell_number(&g, m->at_most, "%.3f");
    }
    PB_TRY(pb_grid_print(&g, w->name, 1));
    for (size_t i = 0; i < w->n; i++)
        if (*w->arm[i].note)
            printf("%s: %s\n", w->arm[i].name, w->arm[i].note);
    fflush(stdout);
    return PB_OK;
}

static const char *const kind_names[] = {"limit of FLOPs", "limit of bytes", "ours", "peer"};

static json_t *nullable(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static pb_err keep_work(struct args *a, const pb_work *w)
{
    json_t *arms = json_array();
    for (size_t i = 0; i < w->n; i++) {
        const pb_arm *m = &w->arm[i];
        pb_arm_time t = pb_arm_times(m);
        bool compared = m->against != PB_NO_ARM;
        json_t *samples = json_array();
        for (size_t k = 0; k < m->n; k++)
            json_array_append_new(samples, json_real(m->seconds[k]));
        json_array_append_new(
            arms,
            json_pack("{s:s, s:s, s:o, s:o, s:o, s:f, s:f, s:o, s:o, s:s*, s:o, s:o, s:s*, s:I, "
                      "s:o}",
                      "name", m->name, "kind", kind_names[m->kind],                           //
                      "median_seconds", nullable(t.median), "lower_quartile", nullable(t.lo), //
                      "upper_quartile", nullable(t.hi), "flops", m->flops, "bytes", m->bytes, //
                      "fraction_of_limit", nullable(pb_arm_fraction(w, m)), "floor",
                      m->floor > 0 ? json_real(m->floor) : json_null(), //
                      "against", compared ? w->arm[m->against].name : NULL, "time_ratio",
                      compared ? nullable(pb_arm_ratio(m, &w->arm[m->against])) : json_null(), //
                      "at_most", m->at_most > 0 ? json_real(m->at_most) : json_null(), "note",
                      *m->note ? m->note : NULL, "runs_per_sample", (json_int_t)m->runs, "seconds",
                      samples));
    }
    json_t *one = json_pack("{s:s, s:f, s:o}", "work", w->name, "tokens", w->tokens, "arms", arms);
    if (!one || json_array_append_new(a->works, one))
        return pb_fail(PB_MEMORY, NULL, "no memory for results");
    return PB_OK;
}

// Runs a work, shows and keeps it, and releases it.
static pb_err measure(struct args *a, pb_work *w)
{
    pb_err err = pb_work_run(w, &a->plan), kept = PB_OK;
    if (w->n && w->arm[0].n) {
        kept = keep_work(a, w);
        if (!kept && !a->json)
            kept = print_work(a, w);
    }
    pb_work_free(w);
    return err ? err : kept;
}

// ---------------------------------------------------------------- models

typedef struct subject {
    pb_model *m;
    const char *name; // "A", or as given
    size_t sequences; // of a training batch
} subject;

static pb_err open_subject(subject *s, const char *name, const char *weights, bool trainable)
{
    pb_model_args args = {.trainable = trainable};
    if (weights)
        PB_TRY(pb_storage_find(&args.weights, weights));
    *s = (subject){.name = name, .sequences = strcmp(name, "B") ? 4 : 8};
    return pb_open_model(&s->m, spec_of(name), 1, &args);
}

static pb_err make_adapter(pb_adapter **out, const pb_model *m, const char *method, size_t which,
                           bool trainable)
{
    pb_err err = PB_OK;
    void *options = NULL;
    const pb_method *k = pb_method_find(method);
    *out = NULL;
    if (!k)
        return PB_USAGE;
    PB_TRY(pb_options_new(&options, k));
    // Keys and values of a text are not needed to measure.
    if (pb_option_find(k, "init"))
        (void)pb_options_set(k, options, "init", "random");
    PB_GO(pb_adapter_new(out, k, options, &m->config, trainable));
    PB_GO(pb_adapter_init(*out, m, which + 1, 0, NULL, NULL, NULL));
    // Initial values may leave the backbone untouched; those of a trained adapter do not.
    pb_adapter *a = *out;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        pb_rng r = pb_rng_make(which + 1, PB_STREAM_SAMPLE, (uint32_t)i);
        for (size_t v = 0; v < s->rows * s->cols; v++)
            a->params.v[s->offset + v] += (real)(0.02 * (pb_rng_uniform(&r) - 0.5));
    }
    if (!trainable)
        PB_GO(pb_adapter_serve(a, m));
done:
    free(options);
    return err;
}

static void free_adapters(pb_adapter **a, size_t n)
{
    for (size_t i = 0; a && i < n; i++) {
        pb_adapter_free(a[i]);
        a[i] = NULL;
    }
}

// ---------------------------------------------------------------- peers

static json_t *request(const char *what, const subject *s, const pb_rig_args *r, const char *method,
                       const char *weights)
{
    const pb_config *c = &s->m->config;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "work",
                     what, "method", method, "weights", weights,                         //
                     "width", (json_int_t)c->width, "ffn", (json_int_t)c->ffn,           //
                     "layers", (json_int_t)c->layers, "heads", (json_int_t)c->heads,     //
                     "kv_heads", (json_int_t)c->kv_heads, "vocab", (json_int_t)c->vocab, //
                     "sequences", (json_int_t)r->sequences, "tokens", (json_int_t)r->tokens,
                     "context", (json_int_t)r->context, "threads", pb_threads());
}

// Adds a peer's arm for the same work as arm `against`, if it can do it.
static pb_err add_peer(struct args *a, pb_work *w, const char *peer, const char *what,
                       const subject *s, const pb_rig_args *r, const char *method,
                       const char *weights, int against, double at_most)
{
    char script[4096], name[96], *absent = NULL;
    pb_arm *arm;
    if (!a->peers)
        return PB_OK;
    PB_TRY(pb_path(script, sizeof script, "%s/paper/peers/%s.py", PB_SOURCE_DIR, peer));
    snprintf(name, sizeof name, "%s %s", peer, method);
    char python[] = "/usr/bin/python3";
    char *argv[] = {python, script, NULL};
    json_t *ask = request(what, s, r, method, weights);
    if (!ask)
        return pb_fail(PB_MEMORY, NULL, "no memory to ask %s", peer);
    pb_err err = pb_peer_arm(&arm, w, name, argv, ask, &absent);
    json_decref(ask);
    PB_TRY(err);
    if (absent) {
        if (!json_object_get(a->absent, name)) {
            json_object_set_new(a->absent, name, json_string(absent));
            pb_warn("%s is absent: %s", name, absent);
        }
        free(absent);
        return PB_OK;
    }
    arm->against = against;
    arm->at_most = at_most;
    arm->flops = w->arm[against].flops;
    return PB_OK;
}

// ---------------------------------------------------------------- the parts

static pb_err bench_machine(struct args *a)
{
    static const struct {
        const char *what;
        double bytes;
    } levels[] = {{"first cache", 16e3},
                  {"second cache", 256e3},
                  {"", 2e6},
                  {"", 8e6},
                  {"", 24e6},
                  {"", 64e6},
                  {"memory", 512e6}};
    int arm;
    for (int threads = 1; threads <= pb_threads();
         threads = threads == 1 && pb_threads() > 1 ? pb_threads() : pb_threads() + 1) {
        pb_work w = {0};
        snprintf(w.name, sizeof w.name, "the machine, %d thread%s", threads,
                 threads > 1 ? "s" : "");
        pb_err err = pb_limit_flops(&w, threads);
        for (size_t i = 0; !err && i < sizeof levels / sizeof *levels; i++) {
            err = pb_limit_bytes(&w, levels[i].bytes * (i < 2 ? threads : 1), threads, &arm);
            if (!err)
                snprintf(w.arm[arm].note, sizeof w.arm[arm].note, "%s", levels[i].what);
        }
        if (err)
            pb_work_free(&w);
        PB_TRY(err);
        PB_TRY(measure(a, &w));
    }
    return PB_OK;
}

static pb_err bench_kernels(struct args *a)
{
    static const size_t rows_default[] = {1, 8, 16, 64, 112, 512};
    static const char *const names[] = {"panels fp32", "panels bf16", "panels int8", "BLIS"};
    enum { BLIS = PB_PANEL_KINDS };
    for (size_t g = 0; g < a->n_geometries; g++) {
        pb_config c;
        PB_TRY(pb_open_config(&c, spec_of(a->geometry[g])));
        size_t n = a->n_rows ? a->n_rows : sizeof rows_default / sizeof *rows_default;
        for (size_t i = 0; i < n; i++)
            for (int back = 0; back <= 1; back++) {
                pb_work w = {0};
                pb_err err = PB_OK;
                size_t R = a->n_rows ? a->rows[i] : rows_default[i];
                w.tokens = (double)R;
                snprintf(w.name, sizeof w.name, "product with a weight (%zu,%zu), %zu row%s%s",
                         c.ffn, c.width, R, R > 1 ? "s" : "", back ? ", and dx" : "");
                PB_GO(pb_limit_flops(&w, pb_threads()));
                int first = (int)w.n + PB_PANEL_KINDS, limit[PB_PANEL_KINDS];
                for (int k = 0; k < PB_PANEL_KINDS; k++)
                    PB_GO(pb_limit_bytes(&w,
                                         (double)pb_panels_bytes((pb_panel_kind)k, c.ffn, c.width),
                                         pb_threads(), &limit[k]));
                for (int k = 0; k <= BLIS; k++) {
                    pb_arm *arm;
                    pb_panel_kind kind = k == BLIS ? PB_PANEL_FP32 : (pb_panel_kind)k;
                    PB_GO(pb_product_arm(&arm, &w, names[k],
                                         &(pb_product_args){.blis = k == BLIS,
                                                            .kind = kind,
                                                            .back = back,
                                                            .rows = R,
                                                            .in = c.width,
                                                            .out = c.ffn,
                                                            .threads = pb_threads()}));
                    arm->limit = limit[kind];
                    if (k)
                        arm->against = first;
                }
                PB_GO(measure(a, &w));
            done:
                if (err)
                    pb_work_free(&w);
                PB_TRY(err);
            }
    }
    return PB_OK;
}

// One work for a geometry: training steps of every method and, with "full" among them, of all
// weights.
static pb_err train_subject(struct args *a, const char *geometry)
{
    pb_err err = PB_OK;
    subject s, trained = {0};
    pb_adapter *adapter[MOST] = {0};
    pb_work w = {0};
    bool B = !strcmp(geometry, "B");
    PB_TRY(open_subject(&s, geometry, a->weights, false));
    size_t S = a->sequences ? a->sequences : s.sequences, T = a->tokens ? a->tokens : 256;
    w.tokens = (double)(S * T);
    snprintf(w.name, sizeof w.name, "training step, geometry %.40s, %zu x %zu rows, %s", geometry,
             S, T, pb_model_storage(s.m));
    PB_GO(pb_limit_flops(&w, pb_threads()));
    for (size_t i = 0; i < a->n_methods; i++) {
        pb_rig_args r = {.kind = PB_RIG_TRAIN,
                         .model = s.m,
                         .sequences = S,
                         .tokens = T,
                         .threads = pb_threads()};
        bool full = !strcmp(a->method[i], "full");
        if (full) {
            PB_GO(open_subject(&trained, geometry, NULL, true));
            r.model = trained.m;
        } else {
            PB_GO(make_adapter(&adapter[i], s.m, a->method[i], 0, true));
            r.adapters = &adapter[i];
            r.n_adapters = 1;
        }
        pb_arm *arm;
        PB_GO(pb_rig_arm(&arm, &w, a->method[i], &r));
        arm->floor = full ? 0 : B ? 0.55 : !strcmp(geometry, "A") ? 0.7 : 0;
        snprintf(arm->note, sizeof arm->note, "step memory %.1f MB, %zu parallel regions",
                 (double)pb_rig_bytes(arm->self) / 1e6,
                 pb_rig_counts(arm->self)[PB_BACKBONE].regions +
                     pb_rig_counts(arm->self)[PB_ATTENTION].regions +
                     pb_rig_counts(arm->self)[PB_ADAPTER].regions +
                     pb_rig_counts(arm->self)[PB_HEAD].regions);
        int ours = (int)w.n - 1;
        PB_GO(add_peer(a, &w, "pytorch", "train", &s, &r, a->method[i], "fp32", ours, 0));
    }
    PB_GO(measure(a, &w));
done:
    if (err)
        pb_work_free(&w);
    free_adapters(adapter, MOST);
    pb_model_close(s.m);
    pb_model_close(trained.m);
    return err;
}

static const char *const storages[] = {"fp32", "bf16", "int8"};
enum { N_STORAGES = sizeof storages / sizeof *storages };

// Prefill of one prompt, or decoding of `sequences` rows, in every storage asked for.
static pb_err serve_subject(struct args *a, const char *geometry, pb_rig_kind kind,
                            size_t sequences)
{
    pb_err err = PB_OK;
    subject s[N_STORAGES] = {{0}};
    pb_work w = {0};
    bool decode = kind == PB_RIG_DECODE;
    size_t T = decode ? 1 : a->tokens ? a->tokens : 512;
    size_t context = decode ? a->context ? a->context : 64 : 0;
    w.tokens = (double)(sequences * T);
    if (decode)
        snprintf(w.name, sizeof w.name, "decode, geometry %.40s, %zu row%s at position %zu",
                 geometry, sequences, sequences > 1 ? "s" : "", context);
    else
        snprintf(w.name, sizeof w.name, "prefill, geometry %.40s, %zu x %zu rows", geometry,
                 sequences, T);
    PB_GO(pb_limit_flops(&w, pb_threads()));
    for (size_t k = 0; k < N_STORAGES; k++) {
        if (a->weights && strcmp(a->weights, storages[k]))
            continue;
        PB_GO(open_subject(&s[k], geometry, storages[k], false));
        int limit;
        PB_GO(pb_limit_bytes(&w, (double)pb_model_resident(s[k].m), pb_threads(), &limit));
        pb_rig_args r = {.kind = kind,
                         .model = s[k].m,
                         .sequences = sequences,
                         .tokens = T,
                         .context = context,
                         .threads = pb_threads()};
        pb_arm *arm;
        PB_GO(pb_rig_arm(&arm, &w, storages[k], &r));
        arm->limit = limit;
        arm->floor = decode ? (sequences == 1 ? 0.9 : 0) : !strcmp(geometry, "A") ? 0.8 : 0;
        int ours = (int)w.n - 1;
        if (k == 0)
            PB_GO(add_peer(a, &w, "pytorch", decode ? "decode" : "prefill", &s[k], &r, "base",
                           storages[k], ours, 0));
    }
    PB_GO(measure(a, &w));
done:
    if (err)
        pb_work_free(&w);
    for (size_t k = 0; k < N_STORAGES; k++)
        pb_model_close(s[k].m);
    return err;
}

// Decoding, every row another tenant; the time that added bytes and FLOPs predict is noted.
static pb_err tenants_subject(struct args *a, const char *geometry, size_t rows)
{
    pb_err err = PB_OK;
    subject s = {0};
    pb_work w = {0};
    pb_adapter **adapter = calloc(MOST * rows, sizeof *adapter);
    size_t context = a->context ? a->context : 64;
    if (!adapter)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", rows);
    PB_GO(open_subject(&s, geometry, a->weights ? a->weights : "fp32", false));
    w.tokens = (double)rows;
    snprintf(w.name, sizeof w.name, "decode, geometry %.40s, %s, %zu rows of as many tenants",
             geometry, pb_model_storage(s.m), rows);
    PB_GO(pb_limit_flops(&w, pb_threads()));
    int limit, base = 0;
    PB_GO(pb_limit_bytes(&w, (double)pb_model_resident(s.m), pb_threads(), &limit));
    for (size_t i = 0; i <= a->n_methods; i++) {
        const char *method = i ? a->method[i - 1] : "base";
        for (size_t t = 0; i && t < rows; t++)
            PB_GO(make_adapter(&adapter[(i - 1) * rows + t], s.m, method, t, false));
        pb_rig_args r = {.kind = PB_RIG_DECODE,
                         .model = s.m,
                         .adapters = i ? adapter + (i - 1) * rows : NULL,
                         .n_adapters = i ? rows : 0,
                         .sequences = rows,
                         .tokens = 1,
                         .context = context,
                         .threads = pb_threads()};
        pb_arm *arm;
        PB_GO(pb_rig_arm(&arm, &w, method, &r));
        arm->limit = limit;
        int ours = (int)w.n - 1;
        if (!i)
            base = ours;
        else
            arm->against = base;
        if (i && (!strcmp(method, "pedro") || !strcmp(method, "ia3")))
            arm->at_most = 1.02;
    }
    err = pb_work_run(&w, &a->plan);
    // What the bytes and FLOPs that an adapter adds would take at the limits of this run.
    const pb_arm *f = &w.arm[0], *b = &w.arm[limit], *bare = &w.arm[base];
    for (size_t i = (size_t)base + 1; i < w.n && bare->n; i++) {
        pb_arm *m = &w.arm[i];
        if (m->kind != PB_ARM_OURS)
            continue;
        double tf = (m->flops - bare->flops) / f->flops * pb_arm_times(f).median;
        double tb = (m->bytes - bare->bytes) / b->bytes * pb_arm_times(b).median;
        double predicted = 1 + fmax(tf, tb) / pb_arm_times(bare).median;
        snprintf(m->note, sizeof m->note,
                 "%+.2f MB and %+.2f MFLOP predict %.3f x base; measured %.3f of that",
                 1e-6 * (m->bytes - bare->bytes), 1e-6 * (m->flops - bare->flops), predicted,
                 pb_arm_ratio(m, bare) / predicted);
        if (!strcmp(m->name, "lora"))
            m->at_most = 1.25 * predicted;
    }
    if (bare->n) {
        pb_err kept = keep_work(a, &w);
        if (!kept && !a->json)
            kept = print_work(a, &w);
        err = err ? err : kept;
    }
done:
    pb_work_free(&w);
    free_adapters(adapter, MOST * rows);
    free(adapter);
    pb_model_close(s.m);
    return err;
}

// Parallel regions of one decoded row per layer: counted, not timed.
static pb_err barriers_subject(struct args *a, const char *geometry)
{
    pb_err err = PB_OK;
    subject s = {0};
    size_t rows = a->n_rows ? a->rows[0] : 16;
    pb_adapter **adapter = calloc(rows, sizeof *adapter);
    pb_rig *rig = NULL;
    pb_grid g = {.cols = 6};
    char title[160];
    static const char *const head[] = {"method",  "backbone", "attention",
                                       "adapter", "head",     "per layer, without the head"};
    PB_GO(adapter ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", rows));
    PB_GO(open_subject(&s, geometry, a->weights, false));
    for (size_t i = 0; i < g.cols; i++)
        pb_grid_add(&g, "%s", head[i]);
    for (size_t i = 0; i <= a->n_methods; i++) {
        const char *method = i ? a->method[i - 1] : "base";
        for (size_t t = 0; i && t < rows; t++)
            PB_GO(make_adapter(&adapter[t], s.m, method, t, false));
        PB_GO(pb_rig_new(&rig, &(pb_rig_args){.kind = PB_RIG_DECODE,
                                              .model = s.m,
                                              .adapters = adapter,
                                              .n_adapters = i ? rows : 0,
                                              .sequences = rows,
                                              .tokens = 1,
                                              .context = a->context ? a->context : 64,
                                              .threads = pb_threads()}));
        const pb_counts *c = pb_rig_counts(rig);
        pb_grid_add(&g, "%s", method);
        for (int k = 0; k < PB_COMPONENTS; k++)
            pb_grid_add(&g, "%zu", c[k].regions);
        pb_grid_add(
            &g, "%.2f",
            (double)(c[PB_BACKBONE].regions + c[PB_ATTENTION].regions + c[PB_ADAPTER].regions) /
                (double)s.m->config.layers);
        pb_rig_free(rig);
        rig = NULL;
        free_adapters(adapter, rows);
    }
    snprintf(title, sizeof title, "parallel regions of a decoding step, geometry %.40s, %zu rows",
             geometry, rows);
    err = pb_grid_print(&g, title, 1);
    g.cell = NULL;
done:
    free(err ? g.cell : NULL);
    pb_rig_free(rig);
    free_adapters(adapter, rows);
    free(adapter);
    pb_model_close(s.m);
    return err;
}

static pb_err bench_models(struct args *a)
{
    static const size_t rows_default[] = {1, 8, 16};
    for (size_t g = 0; g < a->n_geometries; g++) {
        const char *name = a->geometry[g];
        size_t n = a->n_rows ? a->n_rows : 3;
        const size_t *rows = a->n_rows ? a->rows : rows_default;
        if (!strcmp(a->what, "train")) {
            PB_TRY(train_subject(a, name));
        } else if (!strcmp(a->what, "prefill")) {
            PB_TRY(serve_subject(a, name, PB_RIG_PREFILL, a->sequences ? a->sequences : 1));
        } else if (!strcmp(a->what, "barriers")) {
            PB_TRY(barriers_subject(a, name));
        } else {
            for (size_t i = 0; i < n; i++) {
                if (!strcmp(a->what, "decode"))
                    PB_TRY(serve_subject(a, name, PB_RIG_DECODE, rows[i]));
                else if (rows[i] > 1)
                    PB_TRY(tenants_subject(a, name, rows[i]));
            }
        }
    }
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    static struct args a = {.geometry = {"A", "B"},
                            .n_geometries = 2,
                            .method = {"lora", "ia3", "pedro", "prefix"},
                            .n_methods = 4,
                            .plan = {.seconds = 10, .min_rounds = 7, .sample = 0.03, .seed = 1}};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_err err = PB_OK;
    json_t *env = NULL, *all = NULL;
    a.plan.threads = pb_threads();
    a.works = json_array();
    a.absent = json_object();
    json_t *extra = json_pack("{s:s, s:s, s:s}", "kernels", pb_kernels_get()->isa, "blis_kernels",
                              pb_gemm_kernel(), "benchmark", a.what);
    err = pb_env_collect(&env, extra);
    json_decref(extra);
    PB_GO(err);
    if (!strcmp(a.what, "machine"))
        err = bench_machine(&a);
    else if (!strcmp(a.what, "kernels"))
        err = bench_kernels(&a);
    else
        err = bench_models(&a);
    if (err && err != PB_INTERRUPTED)
        goto done;
    if (a.json) {
        all = json_pack("{s:O, s:O, s:O}", "env", env, "works", a.works, "absent", a.absent);
        if (!all || json_dumpf(all, stdout, JSON_INDENT(1))) {
            err = pb_fail(PB_IO, NULL, "cannot write JSON");
            goto done;
        }
        putchar('\n');
    }
    if (a.out) {
        pb_err written = pb_bench_save(a.works, env, a.out);
        err = err ? err : written;
    }
done:
    json_decref(all);
    json_decref(env);
    json_decref(a.works);
    json_decref(a.absent);
    return err;
}

PB_COMMAND(bench) = {
    .name = "bench",
    .doc = "the suite's speed as a fraction of the machine's, and beside other programs",
    .order = 95,
    .run = run,
};
