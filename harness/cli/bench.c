// `pedrobench bench`: the suite's speed as fractions of what the machine can do, and beside other
// programs.
#include "bench/parts.h"
#include "bench/peer.h"
#include "cli/common/common.h"
#include "cli/common/grid.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"
#include "results/bench.h"
#include "results/env.h"
#include "tensor/gemm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    pb_bench bench;
    const pb_bench_part *part;
    const char *out;
    bool json, headed;
    json_t *works, *regions, *floors;
    pb_grid barriers, verdicts;
};

enum { PEERS = 256, LLAMA_CPP, LLM_C, JSON, MIN_ROUNDS, SAMPLE, SEQUENCES, TOKENS, CONTEXT, AXIS };

static const struct argp_option opts[] = {
    {"geometry", 'g', "NAMES", 0,
     "A (768 wide, 12 layers, 110 M), B (288, 6 layers, 15 M), C (TinyLlama, 1.1 B), a model, or "
     "random:WIDTHxFFNxLAYERSxHEADSxKV_HEADSxVOCAB (default A,B; B for scaling; A,B,C for floors)",
     0},
    {"axis", AXIS, "NAMES", 0,
     "Of scaling: rows, context, rank, tenants, layers, threads (default all)", 0},
    {"methods", 'x', "NAMES", 0, "Methods (default lora,ia3,pedro,prefix)", 0},
    {"rows", 'R', "NUMBERS", 0, "Rows of products, or sequences of a batch", 0},
    {"sequences", SEQUENCES, "N", 0, "Sequences of a training batch (default 4; 8 for B)", 0},
    {"tokens", TOKENS, "N", 0, "Tokens of each (default 256), or of a prompt (default 512)", 0},
    {"context", CONTEXT, "N", 0, "Tokens in front of a decoded one (default 64)", 0},
    {"peers", PEERS, 0, 0,
     "The same work by PyTorch, llama.cpp and llm.c, in the same rounds; those that are not there "
     "are named",
     0},
    {"llama-cpp", LLAMA_CPP, "DIR", 0,
     "A build of llama.cpp with shared libraries (or PB_LLAMA_CPP of the environment)", 0},
    {"llm-c", LLM_C, "DIR", 0, "A build of llm.c's test_gpt2 (or PB_LLM_C)", 0},
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
        if (n == PB_BENCH_MOST)
            argp_error(state, "%s names more than %d", option, PB_BENCH_MOST);
        out[n++] = w;
    }
    if (!n)
        argp_error(state, "%s is empty", option);
    return n;
}

// "machine, kernels and train"
static const char *part_names(void)
{
    static char text[256];
    size_t at = 0;
    for (size_t i = 0; pb_bench_parts[i].name && at < sizeof text; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s",
                               !i                           ? ""
                               : pb_bench_parts[i + 1].name ? ", "
                                                            : " and ",
                               pb_bench_parts[i].name);
    return text;
}

static const pb_bench_part *find_part(const char *name)
{
    for (const pb_bench_part *p = pb_bench_parts; p->name; p++)
        if (!strcmp(name, p->name))
            return p;
    return NULL;
}

// A peer's script finds the build in the environment.
static pb_err build_folder(const char *option, const char *variable, const char *folder)
{
    if (!pb_is_dir(folder))
        return pb_fail(PB_USAGE, "the folder of a build", "%s: %s is no folder", option, folder);
    return setenv(variable, folder, 1) ? pb_fail(PB_MEMORY, NULL, "no memory for %s", option)
                                       : PB_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static char scripts[] = PB_SOURCE_DIR "/paper/peers";
    struct args *a = state->input;
    pb_bench *b = &a->bench;
    const char *list[PB_BENCH_MOST] = {NULL};
    pb_err err = PB_OK;
    switch (key) {
    case 'g':
        b->n_geometries = words(arg, "--geometry", b->geometry, state);
        break;
    case 'x':
        b->n_methods = words(arg, "--methods", b->method, state);
        break;
    case 'R':
        b->n_rows = words(arg, "--rows", list, state);
        for (size_t i = 0; i < b->n_rows && !err; i++)
            err = pb_parse_size(list[i], "--rows", &b->rows[i]);
        free((char *)list[0]);
        break;
    case AXIS:
        b->n_axes = words(arg, "--axis", b->axis, state);
        break;
    case SEQUENCES:
        err = pb_parse_size(arg, "--sequences", &b->sequences);
        break;
    case TOKENS:
        err = pb_parse_size(arg, "--tokens", &b->tokens);
        break;
    case CONTEXT:
        err = pb_parse_size(arg, "--context", &b->context);
        break;
    case MIN_ROUNDS:
        err = pb_parse_size(arg, "--min-rounds", &b->plan.min_rounds);
        break;
    case 's':
        err = pb_parse_real(arg, "--seconds", 1e-3, 1e6, &b->plan.seconds);
        break;
    case SAMPLE:
        err = pb_parse_real(arg, "--sample", 1e-6, 1e3, &b->plan.sample);
        break;
    case PEERS:
        b->peers = scripts;
        break;
    case LLAMA_CPP:
        err = build_folder("--llama-cpp", "PB_LLAMA_CPP", arg);
        break;
    case LLM_C:
        err = build_folder("--llm-c", "PB_LLM_C", arg);
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
        b->weights = arg;
        break;
    case ARGP_KEY_ARG:
        if (a->part)
            argp_error(state, "unexpected argument \"%s\"", arg);
        a->part = find_part(arg);
        if (!a->part)
            argp_error(state, "there is no benchmark \"%s\"; there are %s", arg, part_names());
        break;
    case ARGP_KEY_END:
        if (!a->part)
            argp_error(state, "name a benchmark: %s", part_names());
        if (!b->n_geometries && *a->part->geometries)
            b->n_geometries = words(a->part->geometries, "--geometry", b->geometry, state);
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
    "machine|kernels|train|prefill|decode|tenants|barriers|scaling|floors",
    "Measures the machine's own limits and parts of the suite beside them, in the same rounds: "
    "products with weights, training steps, prompts, decoding, batches of many tenants. `barriers` "
    "counts parallel regions per layer and needs no time. `scaling` shows how time and memory grow "
    "along axes. `floors` is all that the performance page asks "
    "for. Nothing else should run on the machine.\v"
    "Examples:\n"
    "  pedrobench bench machine\n"
    "  pedrobench bench decode --geometry B --rows 1,8,16 --weights bf16\n"
    "  pedrobench bench train --geometry A,B --peers --out train.h5\n"
    "  pedrobench bench tenants --geometry C --weights bf16\n"
    "  pedrobench bench scaling --axis rows,context --out scaling.h5\n"
    "  pedrobench bench floors --peers --llama-cpp DIR --llm-c DIR --out floors.h5",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- results

static void cell_number(pb_grid *g, double v, const char *fmt)
{
    char text[48] = "";
    if (isfinite(v) && v > 0)
        snprintf(text, sizeof text, fmt, v);
    pb_grid_add(g, "%s", text);
}

static void add_head(pb_grid *g, const char *const *head)
{
    for (size_t i = 0; i < g->cols; i++)
        pb_grid_add(g, "%s", head[i]);
}

static pb_err print_work(struct args *a, const pb_work *w)
{
    static const char *const head[] = {"arm",     "ms",       "quartiles", "tokens/s",
                                       "GFLOP/s", "GB/s",     "of limit",  "floor",
                                       "time",    "expected", "MB"};
    pb_grid g = {.cols = sizeof head / sizeof *head};
    if (!a->headed)
        printf("%d threads, kernels %s, BLIS %s; medians of rounds with all arms in each\n",
               pb_threads(), pb_kernels_get()->isa, pb_gemm_kernel());
    a->headed = true;
    add_head(&g, head);
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
        cell_number(&g, m->at_least > 0 ? m->at_least : m->at_most,
                    m->at_least > 0 ? ">= %.2f" : "<= %.3f");
        cell_number(&g, 1e-6 * m->memory, "%.1f");
    }
    PB_TRY(pb_grid_print(&g, w->name, 1));
    for (size_t i = 0; i < w->n; i++)
        if (*w->arm[i].note)
            printf("%s: %s\n", w->arm[i].name, w->arm[i].note);
    fflush(stdout);
    return PB_OK;
}

static pb_err take_work(void *self, const pb_work *w)
{
    struct args *a = self;
    json_t *one = pb_work_json(w);
    if (!one || json_array_append_new(a->works, one))
        return pb_fail(PB_MEMORY, NULL, "no memory for results");
    return a->json ? PB_OK : print_work(a, w);
}

static pb_err take_regions(void *self, const pb_regions *r)
{
    static const char *const head[] = {"method",  "backbone", "attention",
                                       "adapter", "head",     "per layer, without the head",
                                       "rows",    "geometry"};
    struct args *a = self;
    pb_grid *g = &a->barriers;
    json_t *one = pb_regions_json(r);
    if (!one || json_array_append_new(a->regions, one))
        return pb_fail(PB_MEMORY, NULL, "no memory for results");
    g->cols = sizeof head / sizeof *head;
    if (!g->n)
        add_head(g, head);
    pb_grid_add(g, "%s", r->method);
    for (int k = 0; k < PB_COMPONENTS; k++)
        pb_grid_add(g, "%zu", r->of[k]);
    pb_grid_add(g, "%.2f", pb_regions_per_layer(r));
    pb_grid_add(g, "%zu", r->rows);
    pb_grid_add(g, "%s", r->geometry);
    return PB_OK;
}

static pb_err take_floor(void *self, const pb_floor *f)
{
    static const char *const head[] = {"work", "arm", "measure", "value", "expected", "reached"};
    struct args *a = self;
    pb_grid *g = &a->verdicts;
    json_t *one = pb_floor_json(f);
    if (!one || json_array_append_new(a->floors, one))
        return pb_fail(PB_MEMORY, NULL, "no memory for results");
    g->cols = sizeof head / sizeof *head;
    if (!g->n)
        add_head(g, head);
    pb_grid_add(g, "%s", f->work);
    pb_grid_add(g, "%s", f->arm);
    pb_grid_add(g, "%s", f->measure);
    pb_grid_add(g, "%.3f", f->value);
    pb_grid_add(g, "%s %.3f", f->most ? "<=" : ">=", f->expected);
    pb_grid_add(g, "%s", pb_floor_met(f) ? "yes" : "no");
    return PB_OK;
}

// Prints a table, if anything is in it.
static pb_err print_grid(pb_grid *g, const char *title, size_t left)
{
    pb_err err = g->n ? pb_grid_print(g, title, left) : PB_OK;
    g->cell = NULL; // released
    return err;
}

static pb_err print_json(const struct args *a, json_t *env)
{
    json_t *all = json_pack("{s:O, s:O, s:O, s:O, s:O}", "env", env, "works", a->works, "regions",
                            a->regions, "floors", a->floors, "absent", a->bench.absent);
    bool failed = !all || json_dumpf(all, stdout, JSON_INDENT(1));
    json_decref(all);
    if (failed)
        return pb_fail(PB_IO, NULL, "cannot write JSON");
    putchar('\n');
    return PB_OK;
}

static pb_err run(int argc, char **argv)
{
    static struct args a = {
        .bench = {.method = {"lora", "ia3", "pedro", "prefix"},
                  .n_methods = 4,
                  .plan = {.seconds = 10, .min_rounds = 7, .sample = 0.03, .seed = 1},
                  .work = take_work,
                  .regions = take_regions,
                  .floor = take_floor,
                  .self = &a}};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    pb_err err = PB_OK;
    json_t *env = NULL;
    char folder[4096] = "";
    a.bench.plan.threads = pb_threads();
    pb_threads_bind();
    a.works = json_array();
    a.regions = json_array();
    a.floors = json_array();
    a.bench.absent = json_object();
    json_t *extra =
        json_pack("{s:s, s:b, s:s, s:s}", "kernels", pb_kernels_get()->isa, "threads_bound",
                  pb_threads_bound(), "blis_kernels", pb_gemm_kernel(), "benchmark", a.part->name);
    err = pb_env_collect(&env, extra);
    json_decref(extra);
    PB_GO(err);
    if (a.bench.peers)
        PB_GO(pb_peer_folder_make(folder, sizeof folder));
    err = a.part->run(&a.bench);
    if (err && err != PB_INTERRUPTED)
        goto done;
    if (a.json) {
        pb_err printed = print_json(&a, env);
        err = err ? err : printed;
    } else {
        pb_err printed = print_grid(&a.barriers, "parallel regions of a decoding step", 1);
        if (!printed)
            printed = print_grid(&a.verdicts, "what is expected, and what was reached", 3);
        err = err ? err : printed;
    }
    if (a.out) {
        pb_err written = pb_bench_save(a.works, env, a.out);
        err = err ? err : written;
    }
done:
    if (*folder)
        pb_peer_folder_remove(folder);
    free(a.barriers.cell);
    free(a.verdicts.cell);
    json_decref(env);
    json_decref(a.works);
    json_decref(a.regions);
    json_decref(a.floors);
    json_decref(a.bench.absent);
    return err;
}

PB_COMMAND(bench) = {
    .name = "bench",
    .doc = "the suite's speed as a fraction of the machine's, and beside other programs",
    .order = 95,
    .run = run,
};
