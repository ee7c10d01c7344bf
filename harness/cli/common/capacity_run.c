#include "cli/common/capacity_run.h"

#include "cli/common/common.h"
#include "core/log.h"
#include "core/nnls.h"
#include "results/bench.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP_PART = 5, DRAWS = 20 };

// ---------------------------------------------------------------- the fit

// The first file of the same kinds has their group.
static size_t group_of(const pb_capacity *c, const char *kinds)
{
    size_t k = 0;
    while (k < c->n_kinds && strcmp(c->kind[k].name, kinds))
        k++;
    return k;
}

static pb_err add_kind(pb_capacity *c, const pb_served_file *f)
{
    if (group_of(c, f->kinds) < c->n_kinds)
        return PB_OK;
    if (c->n_kinds == PB_COST_GROUPS)
        return pb_fail(PB_INPUT, NULL, "more than %d kinds of adapters", PB_COST_GROUPS);
    pb_capacity_kind *k = &c->kind[c->n_kinds];
    snprintf(k->name, sizeof k->name, "%s", f->kinds);
    k->group = c->n_kinds++;
    for (size_t j = 0; j < f->n_kinds; j++) { // of a mix: the mean
        k->bytes += f->bytes[j] / f->n_kinds;
        k->whole |= f->whole[j];
    }
    return PB_OK;
}

// Prefixes add to what attention counts for a key, so the least is the backbone's own.
static void least_sizes(pb_cost_sizes *least, const pb_cost_sizes *s)
{
    least->weights = fmin(least->weights, s->weights);
    least->head = fmin(least->head, s->head);
    least->position = fmin(least->position, s->position);
    least->row = fmin(least->row, s->row);
    least->logits = fmin(least->logits, s->logits);
    least->pair = fmin(least->pair, s->pair);
}

static pb_err open_files(pb_capacity *c, const pb_capacity_question *q)
{
    for (size_t i = 0; i < q->n_fit; i++) {
        pb_served_file *f = &c->file[i], *first = &c->file[0];
        PB_TRY(pb_served_open(f, q->fit[i]));
        if (f->backbone != first->backbone || f->threads != first->threads)
            return pb_fail(PB_INPUT, "fit on runs of one backbone and number of threads",
                           "%s: a backbone of %.0f bytes and %zu threads, in %s %.0f and %zu",
                           f->path, f->backbone, f->threads, first->path, first->backbone,
                           first->threads);
        if (i)
            least_sizes(&c->sizes, &f->sizes);
        else
            c->sizes = f->sizes;
        PB_TRY(add_kind(c, f));
    }
    return PB_OK;
}

// Reading as many bytes as the backbone has, and the peak, with all threads.
static pb_err read_machine(pb_capacity *c, const char *path)
{
    json_t *arms, *arm;
    size_t i;
    double nearest = INFINITY;
    PB_TRY(pb_bench_load(&arms, path));
    json_array_foreach(arms, i, arm)
    {
        double seconds = 1e-3 * json_number_value(json_object_get(arm, "median_ms"));
        double flops = json_number_value(json_object_get(arm, "flops")) / seconds;
        double bytes = json_number_value(json_object_get(arm, "bytes"));
        double far = bytes > 0 ? fabs(log(bytes / c->file[0].backbone)) : INFINITY;
        if (flops > c->flops)
            c->flops = flops;
        if (bytes > 0 && far <= nearest) { // of equal sizes the last one, with all threads
            nearest = far;
            c->bandwidth = bytes / seconds;
        }
    }
    json_decref(arms);
    return c->flops > 0 && c->bandwidth > 0
               ? PB_OK
               : pb_fail(PB_INPUT, "files of `pedrobench bench machine` do",
                         "%s does not hold the limits of a machine", path);
}

// Shares of the terms in the predicted time, by group.
static void shares(pb_capacity *c, const pb_cost_sample *s, size_t n)
{
    double all[PB_COST_GROUPS] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t g = s[i].group;
        all[g] += pb_cost_seconds(&c->cost, g, s[i].x, &PB_SAME_MACHINE, NULL);
        for (int t = 0; t < PB_COST_TERMS; t++)
            c->share[g][t] += c->cost.c[g][t] * s[i].x[t];
    }
    for (size_t g = 0; g < c->n_kinds; g++)
        for (int t = 0; t < PB_COST_TERMS; t++)
            c->share[g][t] /= all[g];
}

static_assert((int)PB_SERVED_PARTS == (int)PB_COST_REST, "parts of steps, as files have them");

static pb_err fit(pb_capacity *c, size_t n_files)
{
    size_t at = 0;
    for (size_t i = 0; i < n_files; i++)
        c->n_steps += c->file[i].serving->n_steps - c->file[i].from;
    pb_cost_sample *s = malloc((c->n_steps + 1) * sizeof *s);
    if (!s)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu steps", c->n_steps);
    for (size_t i = 0; i < n_files; i++)
        for (size_t k = c->file[i].from; k < c->file[i].serving->n_steps; k++) {
            const pb_served_step *x = &c->file[i].serving->step[k];
            pb_work w = pb_served_work(x);
            int64_t idle = k ? x->begin - x[-1].begin - x[-1].duration : 0;
            pb_cost_terms(s[at].x, &c->sizes, &w, 1e-9 * (double)idle);
            s[at].seconds = s[at].part[PB_COST_REST] = 1e-9 * (double)x->duration;
            for (int p = 0; p < PB_SERVED_PARTS; p++) {
                s[at].part[p] = 1e-9 * (double)x->ns[p];
                s[at].part[PB_COST_REST] -= s[at].part[p];
            }
            s[at].loads = c->file[i].serving->n_loads;
            s[at++].group = group_of(c, c->file[i].kinds);
        }
    pb_err err = pb_cost_fit(&c->cost, s, at, c->n_kinds, c->bandwidth);
    if (!err)
        shares(c, s, at);
    free(s);
    return err;
}

// Latency and bandwidth of loads, by relative error. Of adapters of one size all is latency.
static void fit_disk(pb_capacity *c, size_t n_files)
{
    double G[4] = {0}, h[2] = {0}, x[2];
    for (size_t i = 0; i < n_files; i++) {
        const pb_served_file *f = &c->file[i];
        for (size_t k = 0; k < f->serving->n_loads; k++) {
            const pb_served_load *l = &f->serving->load[k];
            double t = 1e-9 * (double)(l->ready - l->begun);
            double v[2] = {1 / t, (double)f->bytes[(size_t)l->tenant % f->n_kinds] / t};
            for (int r = 0; r < 2 && !l->failed && t > 0; r++) {
                h[r] += v[r];
                G[2 * r] += v[r] * v[0];
                G[2 * r + 1] += v[r] * v[1];
            }
        }
    }
    c->disk_measured = G[0] > 0;
    G[3] *= 1 + 1e-9;
    pb_nnls(x, G, h, 2);
    c->disk = (pb_disk){x[0], x[1] > 0 ? 1 / x[1] : INFINITY};
}

// ---------------------------------------------------------------- validation

enum { QUANTILES = 6, REPEATS = 16 };

static const struct {
    int measure;
    double at;
} quantiles[QUANTILES] = {{PB_TTFT, 0.5},  {PB_TTFT, 0.99}, {PB_TPOT, 0.5},
                          {PB_TPOT, 0.99}, {PB_E2E, 0.5},   {PB_E2E, 0.99}};

// What a run's quantiles were and are simulated to be, in ms.
typedef struct replay {
    double measured, exact, drawn;
    pb_interval in;
} replay;

static pb_err measured(replay out[QUANTILES], const pb_served_file *f)
{
    for (size_t k = 0; k < QUANTILES; k++) {
        double *v;
        size_t n;
        PB_TRY(pb_serving_samples(&v, &n, f->serving, quantiles[k].measure, -1));
        out[k].measured = pb_percentile(v, n, quantiles[k].at);
        out[k].in = pb_percentile_interval(v, n, quantiles[k].at, 0.95);
        free(v);
    }
    return PB_OK;
}

static pb_err simulate(replay out[QUANTILES], const pb_fleet *f, const pb_traffic *t)
{
    pb_fleet_day day;
    pb_err err = pb_fleet_run(f, t, 1, &day);
    for (size_t k = 0; k < QUANTILES && !err; k++) {
        double *v;
        size_t n;
        err = pb_serving_samples(&v, &n, &day.serving, quantiles[k].measure, -1);
        if (err)
            break;
        double value = pb_percentile(v, n, quantiles[k].at);
        if (f->noise)
            out[k].drawn += value / DRAWS;
        else
            out[k].exact = value;
        free(v);
    }
    pb_fleet_day_free(&day);
    return err;
}

static pb_err replay_file(replay out[QUANTILES], const pb_capacity *c, size_t group,
                          pb_served_file *f)
{
    pb_due *due = NULL;
    pb_traffic t;
    pb_err err = PB_OK;
    PB_TRY(measured(out, f));
    PB_TRY(pb_served_traffic(&t, &due, f));
    pb_fleet fleet = {.limits = f->limits,
                      .tenants = f->tenants,
                      .bytes = f->bytes,
                      .whole = f->whole,
                      .n_bytes = f->n_kinds,
                      .memory = f->memory,
                      .filled = !f->loads,
                      .disk = c->disk,
                      .cost = &c->cost,
                      .sizes = c->sizes,
                      .group = group,
                      .machine = PB_SAME_MACHINE};
    for (int draw = 0; draw <= DRAWS && !err; draw++) {
        fleet.noise = draw > 0;
        fleet.seed = (uint64_t)draw;
        err = simulate(out, &fleet, &t);
    }
    free(due);
    return err;
}

static pb_err open_check(pb_served_file *f, size_t *group, const pb_capacity *c, const char *path)
{
    PB_TRY(pb_served_open(f, path));
    *group = group_of(c, f->kinds);
    if (*group == c->n_kinds)
        return pb_fail(PB_INPUT, "fit on a file with the same methods",
                       "%s: no file of %s is fitted on", path, f->kinds);
    if (f->backbone != c->file[0].backbone || f->threads != c->file[0].threads)
        return pb_fail(PB_INPUT, "measure the same backbone with as many threads",
                       "%s: another backbone, or another number of threads, than fitted on", path);
    return PB_OK;
}

static double median(const replay (*r)[QUANTILES], size_t n, size_t k, size_t offset)
{
    double v[REPEATS];
    for (size_t i = 0; i < n; i++)
        v[i] = *(const double *)((const char *)&r[i][k] + offset);
    return pb_median(v, n);
}

// Runs of one load: medians of what each run's quantiles are, and the range of the measured ones.
static void add_checks(pb_capacity *c, const char *paths, size_t group,
                       const replay (*r)[QUANTILES], size_t n)
{
    for (size_t k = 0; k < QUANTILES; k++) {
        pb_interval in = r[0][k].in;
        for (size_t i = 0; i < n && n > 1; i++) {
            in.lo = i ? fmin(in.lo, r[i][k].measured) : r[i][k].measured;
            in.hi = i ? fmax(in.hi, r[i][k].measured) : r[i][k].measured;
        }
        c->check[c->n_checks++] =
            (pb_capacity_check){.path = paths,
                                .kinds = c->kind[group].name,
                                .measure = quantiles[k].measure,
                                .quantile = quantiles[k].at,
                                .runs = n,
                                .measured = median(r, n, k, offsetof(replay, measured)),
                                .in = in,
                                .exact = median(r, n, k, offsetof(replay, exact)),
                                .drawn = median(r, n, k, offsetof(replay, drawn))};
    }
}

// "a.h5,b.h5": runs of one load.
static pb_err validate_load(pb_capacity *c, const char *paths)
{
    replay r[REPEATS][QUANTILES] = {{{0}}};
    size_t n = 0, group = 0, first = 0;
    for (const char *at = paths; at; n++) {
        char path[4096];
        size_t len = strcspn(at, ",");
        if (n == REPEATS || len >= sizeof path)
            return pb_fail(PB_USAGE, NULL,
                           "--validate: at most %d files of one load, and names of "
                           "at most %zu bytes",
                           REPEATS, sizeof path - 1);
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at = at[len] ? at + len + 1 : NULL;
        pb_served_file f = {0};
        pb_err err = open_check(&f, &group, c, path);
        if (!err && n && group != first)
            err = pb_fail(PB_INPUT, "repeat --validate for other loads",
                          "%s: other methods than the files before it", path);
        first = group;
        if (!err)
            err = replay_file(r[n], c, group, &f);
        pb_served_close(&f);
        PB_TRY(err);
    }
    add_checks(c, paths, group, (const replay(*)[QUANTILES])r, n);
    return PB_OK;
}

static pb_err validate(pb_capacity *c, const pb_capacity_question *q)
{
    c->check = calloc(QUANTILES * q->n_validate + 1, sizeof *c->check);
    if (!c->check)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu loads", q->n_validate);
    for (size_t i = 0; i < q->n_validate; i++)
        PB_TRY(validate_load(c, q->validate[i]));
    return PB_OK;
}

// ---------------------------------------------------------------- the machine

// "4x", or an amount that is compared with the measured one.
static pb_err factor_of(double *out, const char *text, const char *option, double measured)
{
    char *end;
    size_t amount;
    double v = strtod(text, &end);
    if (end != text && !strcmp(end, "x")) {
        *out = v;
        return v > 0 && v < 1e6 ? PB_OK
                                : pb_fail(PB_USAGE, "for example 4x", "%s is \"%s\"", option, text);
    }
    PB_TRY(pb_parse_size(text, option, &amount));
    if (!(measured > 0))
        return pb_fail(PB_USAGE, "give --machine as well, or say 4x",
                       "%s is \"%s\", and what the "
                       "measured machine has is not known",
                       option, text);
    *out = (double)amount / measured;
    return amount ? PB_OK : pb_fail(PB_USAGE, NULL, "%s is 0", option);
}

static pb_err read_target(pb_capacity *c, const pb_capacity_question *q)
{
    const pb_served_file *f = &c->file[0];
    c->machine = PB_SAME_MACHINE;
    if (q->cores && q->flops)
        return pb_fail(PB_USAGE, NULL, "give one of --cores and --flops");
    if (q->bandwidth)
        PB_TRY(factor_of(&c->machine.bandwidth, q->bandwidth, "--bandwidth", c->bandwidth));
    if (q->flops)
        PB_TRY(factor_of(&c->machine.compute, q->flops, "--flops", c->flops));
    if (q->cores)
        c->machine.compute = (double)q->cores / (double)f->threads;
    c->slots = q->slots ? q->slots : f->limits.slots;
    c->rows = q->rows ? q->rows : f->limits.rows - f->limits.slots + c->slots;
    if (q->disk_latency >= 0)
        c->disk.latency = q->disk_latency;
    if (q->disk_bandwidth > 0)
        c->disk.bandwidth = q->disk_bandwidth;
    if ((q->memory || q->adapter_memory) && !c->disk_measured &&
        (q->disk_latency < 0 || !(q->disk_bandwidth > 0)))
        return pb_fail(PB_USAGE,
                       "fit on a run with --adapter-memory, or give --disk-latency and "
                       "--disk-bandwidth",
                       "no file that is fitted on has loads of adapters");
    return PB_OK;
}

// What is left for adapters, with so many positions in a slot.
static pb_err share_memory(pb_capacity *c, const pb_capacity_question *q, size_t positions)
{
    c->adapter_memory = q->adapter_memory ? q->adapter_memory : SIZE_MAX;
    if (!q->memory)
        return PB_OK;
    double kv = c->sizes.position * (double)positions * (double)c->slots;
    double fixed = c->file[0].backbone + c->file[0].activations;
    double rest = (double)q->memory - fixed - kv;
    if (!(rest > 0))
        return pb_fail(
            PB_USAGE, "use fewer slots, or more memory",
            "backbone and activations take %.4g bytes and %zu slots of %zu positions %.4g, which "
            "leaves nothing of %zu for adapters",
            fixed, c->slots, positions, kv, q->memory);
    if (rest < (double)c->adapter_memory)
        c->adapter_memory = (size_t)rest;
    return PB_OK;
}

// ---------------------------------------------------------------- answers

// Requests at one per second, and the longest of them.
static pb_err draw(pb_due **out, size_t *longest, const pb_capacity *c,
                   const pb_capacity_question *q, size_t tenants)
{
    const pb_serving *s = c->file[0].serving;
    pb_workload w = q->load;
    uint32_t(*lengths)[2] = malloc((s->n_requests + 1) * sizeof *lengths);
    *out = malloc((q->requests + 1) * sizeof **out);
    if (!*out || !lengths) {
        free(lengths);
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", q->requests);
    }
    for (size_t i = 0; i < s->n_requests; i++) {
        lengths[i][0] = (uint32_t)s->request[i].prompt;
        lengths[i][1] = (uint32_t)s->request[i].output;
    }
    w.tenants = tenants;
    w.rate = 1;
    w.data = (const uint32_t(*)[2])lengths;
    w.n_data = s->n_requests;
    if (!(w.prompt.a > 0))
        w.prompt.kind = w.output.kind = PB_FROM_DATA;
    pb_err err = pb_workload_draw(&w, *out, q->requests);
    *longest = 0;
    for (size_t i = 0; i < q->requests && !err; i++) {
        size_t n = (*out)[i].prompt + (*out)[i].output;
        *longest = n > *longest ? n : *longest;
    }
    free(lengths);
    return err;
}

static pb_err describe(pb_capacity_answer *a, const pb_fleet_day *d, const pb_limit *l)
{
    double steps = 0, most = 0;
    for (int k = 0; k < PB_SERVING_MEASURES; k++) {
        double *v;
        size_t n;
        PB_TRY(pb_serving_samples(&v, &n, &d->serving, k, -1));
        a->p50[k] = pb_percentile(v, n, 0.5);
        a->at[k] = pb_percentile(v, n, l->quantile);
        free(v);
    }
    a->rows = d->rows / d->steps;
    a->loading = d->loading / d->seconds;
    a->waiting = d->full / d->seconds;
    a->miss = (double)d->loads / (double)(d->served + d->lost);
    for (int k = 0; k < PB_RESOURCES; k++) {
        steps += d->by[k];
        a->share[k] = d->by[k] / d->seconds;
        if (d->by[k] > most) {
            most = d->by[k];
            a->binds = pb_resource_names[k];
        }
    }
    if (a->loading > 0.9 && d->loading > steps)
        a->binds = "disk";
    return PB_OK;
}

static pb_err answer(pb_capacity *c, const pb_capacity_question *q, const pb_capacity_kind *k,
                     size_t tenants)
{
    pb_due *due = NULL;
    size_t longest;
    pb_fleet_day day = {0};
    double faster = q->rate;
    pb_capacity_answer *a = &c->answer[c->n_answers];
    pb_err err = draw(&due, &longest, c, q, tenants);
    if (err)
        goto done;
    PB_GO(share_memory(c, q, longest));
    pb_fleet f = {.limits = {.slots = c->slots,
                             .beam = 1,
                             .positions = longest,
                             .rows = c->rows,
                             .queue = q->requests},
                  .tenants = tenants,
                  .bytes = &k->bytes,
                  .whole = &k->whole,
                  .n_bytes = 1,
                  .memory = c->adapter_memory,
                  .filled = true,
                  .disk = c->disk,
                  .cost = &c->cost,
                  .sizes = c->sizes,
                  .group = k->group,
                  .machine = c->machine,
                  .noise = !q->exact,
                  .seed = q->load.seed};
    pb_traffic t = {due, q->requests, 0, q->requests / WARM_UP_PART, NULL};
    if (q->rate > 0)
        PB_GO(pb_fleet_run(&f, &t, q->rate, &day));
    else
        PB_GO(pb_fleet_fastest(&faster, &f, &t, &q->limit, &day));
    *a = (pb_capacity_answer){
        .kind = c->kind[k->group].name, .bytes = k->bytes, .tenants = tenants, .rate = faster};
    PB_GO(pb_within(&a->within, &q->limit, &day));
    PB_GO(describe(a, &day, &q->limit));
    c->n_answers++;
done:
    pb_fleet_day_free(&day);
    free(due);
    return err;
}

// "lora,pedro=2M": some of what was measured, with other bytes.
static pb_err choose_kinds(pb_capacity_kind *out, size_t *n, const pb_capacity *c,
                           const char *methods)
{
    *n = 0;
    if (!methods) {
        memcpy(out, c->kind, c->n_kinds * sizeof *out);
        *n = c->n_kinds;
        return PB_OK;
    }
    for (const char *s = methods;; s++) {
        char name[512];
        size_t len = strcspn(s, ",="), k;
        snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : 0), s);
        k = group_of(c, name);
        if (k == c->n_kinds || *n == PB_COST_GROUPS)
            return pb_fail(PB_USAGE, "fit on a file of `pedrobench serve --methods` with it",
                           "--methods: no file that is fitted on has tenants of \"%s\" alone",
                           name);
        out[*n] = c->kind[k];
        s += len;
        if (*s == '=') {
            len = strcspn(++s, ",");
            snprintf(name, sizeof name, "%.*s", (int)(len < 30 ? len : 30), s);
            PB_TRY(pb_parse_size(name, "--methods", &out[*n].bytes));
            s += len;
        }
        (*n)++;
        if (!*s)
            return PB_OK;
    }
}

static pb_err answer_all(pb_capacity *c, const pb_capacity_question *q)
{
    pb_capacity_kind kinds[PB_COST_GROUPS];
    pb_progress p;
    size_t n;
    PB_TRY(choose_kinds(kinds, &n, c, q->methods));
    c->answer = calloc(n * q->n_tenants + 1, sizeof *c->answer);
    if (!c->answer)
        return pb_fail(PB_MEMORY, NULL, "no memory for the answers");
    pb_progress_begin(&p, "fleets", 0, (int64_t)(n * q->n_tenants));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < q->n_tenants; k++) {
            PB_TRY(answer(c, q, &kinds[i], q->tenants[k]));
            pb_progress_update(&p, (int64_t)c->n_answers, NULL);
        }
    pb_progress_end(&p, NULL);
    return PB_OK;
}

pb_err pb_capacity_run(pb_capacity *out, const pb_capacity_question *q)
{
    *out = (pb_capacity){0};
    PB_TRY(open_files(out, q));
    if (q->machine)
        PB_TRY(read_machine(out, q->machine));
    PB_TRY(fit(out, q->n_fit));
    fit_disk(out, q->n_fit);
    PB_TRY(validate(out, q));
    PB_TRY(read_target(out, q));
    bool limited = q->rate > 0;
    for (int k = 0; k < PB_SERVING_MEASURES; k++)
        limited |= q->limit.most[k] > 0;
    return limited ? answer_all(out, q) : PB_OK;
}

void pb_capacity_free(pb_capacity *c)
{
    for (size_t i = 0; i < PB_CAPACITY_FILES; i++)
        pb_served_close(&c->file[i]);
    pb_cost_free(&c->cost);
    free(c->check);
    free(c->answer);
    *c = (pb_capacity){0};
}

// ---------------------------------------------------------------- as JSON

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *error_json(const pb_cost_error *e)
{
    return json_pack("{s:I, s:o, s:o, s:o}", "steps", (json_int_t)e->n, "median", number(e->median),
                     "p90", number(e->p90), "mean", number(e->mean));
}

static json_t *terms_json(const pb_capacity *c)
{
    json_t *kinds = json_object();
    for (size_t g = 0; g < c->n_kinds; g++) {
        json_t *parts = json_object();
        for (int t = 0; t < PB_COST_TERMS; t++) {
            const pb_cost_kind *k = &pb_cost_kinds[t];
            if (!json_object_get(parts, pb_cost_parts[k->part]))
                json_object_set_new(parts, pb_cost_parts[k->part], json_object());
            json_object_set_new(json_object_get(parts, pb_cost_parts[k->part]), k->name,
                                json_pack("{s:s, s:f, s:o}", "of", pb_resource_names[k->of],
                                          "seconds_per_unit", c->cost.c[g][t], "share",
                                          number(c->share[g][t])));
        }
        json_object_set_new(kinds, c->kind[g].name, parts);
    }
    return kinds;
}

static json_t *fit_json(const pb_capacity *c)
{
    const pb_cost_sizes *s = &c->sizes;
    json_t *parts = json_object();
    for (int p = 0; p < PB_COST_PARTS; p++)
        json_object_set_new(parts, pb_cost_parts[p],
                            json_pack("{s:s, s:o, s:o}", "form", c->cost.max[p] ? "max" : "sum",
                                      "error_of_sum", number(c->cost.part_error[p][0]),
                                      "error_of_max", number(c->cost.part_error[p][1])));
    return json_pack("{s:I, s:f, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:f, s:f}, s:o, s:o}",
                     "steps", (json_int_t)c->n_steps, "factor", c->cost.factor, "fitted",
                     error_json(&c->cost.fitted), "held_out", error_json(&c->cost.held), "parts",
                     parts, "terms", terms_json(c), "sizes", "weights", s->weights, "head", s->head,
                     "position", s->position, "row", s->row, "logits", s->logits, "pair", s->pair,
                     "load_latency_s", number(c->disk.latency), "load_bandwidth",
                     number(c->disk.bandwidth));
}

static json_t *check_json(const pb_capacity_check *k)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:f, s:o, s:o, s:o, s:o, s:o}", "file", k->path,
                     "methods", k->kinds, "runs", (json_int_t)k->runs, "measure",
                     pb_serving_measures[k->measure], "quantile", k->quantile, "measured_ms",
                     number(k->measured), "lo95_ms", number(k->in.lo), "hi95_ms", number(k->in.hi),
                     "fit_ms", number(k->exact), "drawn_ms", number(k->drawn));
}

static json_t *answer_json(const pb_capacity_answer *a)
{
    json_t *o = json_pack("{s:s, s:I, s:I, s:f, s:b, s:f, s:f, s:f, s:f, s:s*}", "methods", a->kind,
                          "bytes_per_tenant", (json_int_t)a->bytes, "tenants",
                          (json_int_t)a->tenants, "requests_per_second", a->rate, "within",
                          a->within, "rows_per_step", a->rows, "disk_busy", a->loading,
                          "waiting_for_slots", a->waiting, "misses", a->miss, "binds", a->binds);
    for (int k = 0; k < PB_RESOURCES; k++)
        json_object_set_new(o, pb_resource_names[k], number(a->share[k]));
    for (int k = 0; k < PB_SERVING_MEASURES; k++)
        json_object_set_new(o, pb_serving_measures[k],
                            json_pack("{s:o, s:o}", "median_ms", number(a->p50[k]),
                                      "at_quantile_ms", number(a->at[k])));
    return o;
}

json_t *pb_capacity_json(const pb_capacity *c, const pb_capacity_question *q)
{
    json_t *checks = json_array(), *answers = json_array();
    for (size_t i = 0; i < c->n_checks; i++)
        json_array_append_new(checks, check_json(&c->check[i]));
    for (size_t i = 0; i < c->n_answers; i++)
        json_array_append_new(answers, answer_json(&c->answer[i]));
    return json_pack("{s:o, s:{s:f, s:f, s:f, s:o, s:o}, s:f, s:o, s:o}", "fit", fit_json(c),
                     "machine", "latency", c->machine.latency, "bandwidth", c->machine.bandwidth,
                     "compute", c->machine.compute, "measured_bandwidth",
                     c->bandwidth > 0 ? json_real(c->bandwidth) : json_null(), "measured_flops",
                     c->flops > 0 ? json_real(c->flops) : json_null(), "quantile",
                     q->limit.quantile, "validation", checks, "answers", answers);
}
