#include "serve/cost_model.h"

#include "core/nnls.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUN = 20,    // samples that follow each other are held out together,
    OUT_OF = 5,  // one such run in so many
    ROUNDS = 40, // of the alternation
    BINS = 32,   // of ratios, at most; each has at least
    IN_BIN = 25, // so many
    BLOCK = 100  // ranks that are drawn together
};

const char *const pb_resource_names[] = {"latency", "bandwidth", "compute"};
const char *const pb_cost_parts[] = {"backbone", "attention", "adapter", "head", "rest"};

const pb_cost_kind pb_cost_kinds[] = {
    [PB_COST_STEP] = {"step", NULL, PB_COST_BACKBONE, PB_LATENCY},
    [PB_COST_WAKE] = {"waking up", NULL, PB_COST_BACKBONE, PB_LATENCY},
    [PB_COST_WEIGHTS] = {"weights", "B", PB_COST_BACKBONE, PB_BANDWIDTH},
    [PB_COST_ROWS] = {"rows", "FLOP", PB_COST_BACKBONE, PB_COMPUTE},
    [PB_COST_ATTEND] = {"step", NULL, PB_COST_ATTENTION, PB_LATENCY},
    [PB_COST_SEGMENTS] = {"sequences", NULL, PB_COST_ATTENTION, PB_COMPUTE},
    [PB_COST_KV] = {"keys, values", "B", PB_COST_ATTENTION, PB_BANDWIDTH},
    [PB_COST_PAIRS] = {"query-key pairs", "FLOP", PB_COST_ATTENTION, PB_COMPUTE},
    [PB_COST_HEADS] = {"step", NULL, PB_COST_HEAD, PB_LATENCY},
    [PB_COST_HEAD_WEIGHTS] = {"weights", "B", PB_COST_HEAD, PB_BANDWIDTH},
    [PB_COST_LOGITS] = {"logits", "FLOP", PB_COST_HEAD, PB_COMPUTE},
    [PB_COST_SCHEDULE] = {"scheduling", NULL, PB_COST_REST, PB_LATENCY},
    [PB_COST_CHOICE] = {"choice of tokens", "FLOP", PB_COST_REST, PB_COMPUTE},
    [PB_COST_PREFIX] = {"rows with prefixes", "FLOP", PB_COST_ATTENTION, PB_COMPUTE},
    [PB_COST_ADAPTED] = {"step", NULL, PB_COST_ADAPTER, PB_LATENCY},
    [PB_COST_TENANTS] = {"different ones", NULL, PB_COST_ADAPTER, PB_COMPUTE},
    [PB_COST_ADAPTERS] = {"bytes of them", "B", PB_COST_ADAPTER, PB_BANDWIDTH},
    [PB_COST_ADAPTER_ROWS] = {"rows", "FLOP", PB_COST_ADAPTER, PB_COMPUTE},
};

void pb_cost_terms(double x[PB_COST_TERMS], const pb_cost_sizes *s, const pb_work *w, double idle)
{
    double rows = (double)(w->prefill + w->decode), outs = (double)w->n_out;
    double tenants = (double)w->tenants, bytes = (double)w->adapter_bytes;
    x[PB_COST_STEP] = x[PB_COST_ATTEND] = x[PB_COST_SCHEDULE] = 1;
    x[PB_COST_WAKE] = idle > PB_COST_ASLEEP;
    x[PB_COST_WEIGHTS] = s->weights;
    x[PB_COST_ROWS] = s->row * rows;
    x[PB_COST_SEGMENTS] = (double)w->batch.n_seg;
    x[PB_COST_KV] = s->position * (double)w->keys;
    x[PB_COST_PAIRS] = s->pair * (double)w->pairs;
    x[PB_COST_HEADS] = w->n_out > 0;
    x[PB_COST_HEAD_WEIGHTS] = w->n_out ? s->head : 0;
    x[PB_COST_LOGITS] = x[PB_COST_CHOICE] = s->logits * outs;
    x[PB_COST_ADAPTED] = w->tenants > 0;
    x[PB_COST_TENANTS] = tenants;
    x[PB_COST_ADAPTERS] = bytes;
    x[PB_COST_ADAPTER_ROWS] = w->tenants ? rows * 2 * bytes / sizeof(float) / tenants : 0;
    x[PB_COST_PREFIX] = x[PB_COST_ADAPTER_ROWS];
}

// ---------------------------------------------------------------- prediction

// The sides of a part, on the measured machine.
static void sides(double by[PB_RESOURCES], const double *c, const double *x, int part)
{
    memset(by, 0, PB_RESOURCES * sizeof *by);
    for (int t = 0; t < PB_COST_TERMS; t++)
        if (pb_cost_kinds[t].part == (pb_cost_part)part)
            by[pb_cost_kinds[t].of] += c[t] * x[t];
}

static double bound(double by[PB_RESOURCES], bool max)
{
    if (max)
        by[by[PB_BANDWIDTH] < by[PB_COMPUTE] ? PB_BANDWIDTH : PB_COMPUTE] = 0;
    return by[PB_LATENCY] + by[PB_BANDWIDTH] + by[PB_COMPUTE];
}

double pb_cost_seconds(const pb_cost_model *m, size_t group, const double x[PB_COST_TERMS],
                       const pb_machine *to, double by[PB_RESOURCES])
{
    double v[PB_RESOURCES], sum = 0;
    if (by)
        memset(by, 0, PB_RESOURCES * sizeof *by);
    for (int part = 0; part < PB_COST_PARTS; part++) {
        sides(v, m->c[group], x, part);
        v[PB_LATENCY] *= to->latency;
        v[PB_BANDWIDTH] /= to->bandwidth;
        v[PB_COMPUTE] /= to->compute;
        sum += bound(v, m->max[part]);
        for (int k = 0; k < PB_RESOURCES && by; k++)
            by[k] += v[k];
    }
    return sum;
}

double pb_cost_draw(const pb_cost_model *model, size_t group, double seconds, pb_cost_run *run,
                    pb_rng *r)
{
    const pb_cost_ratios *m = &model->ratios[model->loads[group]];
    if (!m->n)
        return 1;
    size_t lo = 0, hi = m->n_bins - 1; // the last bin that begins at or below the prediction
    while (lo < hi) {
        size_t mid = (lo + hi + 1) / 2;
        if (m->bin_from[mid] <= seconds)
            lo = mid;
        else
            hi = mid - 1;
    }
    if (!run->left) {
        run->at = (size_t)pb_rng_below(r, m->n);
        run->left = BLOCK;
    }
    double u = m->rank[run->at];
    run->at = (run->at + 1) % m->n;
    run->left--;
    size_t size = m->bin[lo + 1] - m->bin[lo], k = (size_t)(u * (double)size);
    return m->ratio[m->bin[lo] + (k < size ? k : size - 1)];
}

// ---------------------------------------------------------------- the fit

typedef struct fit {
    const pb_cost_sample *s;
    size_t n, n_groups;
    double bandwidth;
    bool *held;     // (n)
    uint8_t *hides; // (n): of `max`, the side that does not bind, or PB_RESOURCES
    double *room;   // (n)
    // Of the part that is being fitted:
    int part;
    size_t shared[PB_COST_TERMS], own[PB_COST_TERMS], n_shared, n_own; // its terms
} fit;

typedef double coefficients[PB_COST_GROUPS][PB_COST_TERMS];

static void begin_part(fit *f, int part)
{
    f->part = part;
    f->n_shared = f->n_own = 0;
    for (size_t t = 0; t < PB_COST_TERMS; t++)
        if (pb_cost_kinds[t].part != (pb_cost_part)part)
            continue;
        else if (t < PB_COST_OWN)
            f->shared[f->n_shared++] = t;
        else
            f->own[f->n_own++] = t;
    memset(f->hides, PB_RESOURCES, f->n * sizeof *f->hides);
}

// The terms of a sample that count, and the columns they have; returns how many.
static size_t columns_of(const fit *f, size_t i, size_t *term, size_t *column)
{
    size_t n = 0;
    for (size_t k = 0; k < f->n_shared + f->n_own; k++) {
        bool own = k >= f->n_shared;
        size_t t = own ? f->own[k - f->n_shared] : f->shared[k];
        if (pb_cost_kinds[t].of == f->hides[i])
            continue;
        term[n] = t;
        column[n++] = k + (own ? f->s[i].group * f->n_own : 0);
    }
    return n;
}

// Least squares over the samples that were not held out. Two little weights decide what the data
// leave open: the bandwidth is the measured one (none is known: all is a fixed time), and what
// shared terms explain is not an adapter's.
static void solve(const fit *f, coefficients c)
{
    double G[PB_NNLS_MOST * PB_NNLS_MOST] = {0}, h[PB_NNLS_MOST] = {0}, x[PB_NNLS_MOST];
    size_t N = f->n_shared + f->n_groups * f->n_own, term[PB_COST_TERMS], at[PB_COST_TERMS];
    for (size_t i = 0; i < f->n; i++) {
        const pb_cost_sample *s = &f->s[i];
        size_t n = f->held[i] ? 0 : columns_of(f, i, term, at);
        double w = 1 / s->seconds;
        for (size_t a = 0; a < n; a++) {
            double v = w * s->x[term[a]];
            h[at[a]] += v * w * s->part[f->part];
            for (size_t b = 0; b < n; b++)
                G[at[a] * N + at[b]] += v * w * s->x[term[b]];
        }
    }
    for (size_t k = 0; k < f->n_shared; k++) {
        double little = 1e-6 * G[k * N + k];
        if (f->shared[k] != PB_COST_WEIGHTS && f->shared[k] != PB_COST_HEAD_WEIGHTS)
            continue;
        G[k * N + k] += little;
        h[k] += f->bandwidth > 0 ? little / f->bandwidth : 0;
    }
    for (size_t k = f->n_shared; k < N; k++)
        G[k * N + k] *= 1 + 1e-6;
    pb_nnls(x, G, h, N);
    for (size_t g = 0; g < f->n_groups; g++) {
        for (size_t k = 0; k < f->n_shared; k++)
            c[g][f->shared[k]] = x[k];
        for (size_t k = 0; k < f->n_own; k++)
            c[g][f->own[k]] = x[f->n_shared + g * f->n_own + k];
    }
}

// Mean error of the part in units of the step's time.
static double part_error(const fit *f, coefficients c, bool max, bool held)
{
    double sum = 0, n = 0, by[PB_RESOURCES];
    for (size_t i = 0; i < f->n; i++) {
        const pb_cost_sample *s = &f->s[i];
        if (f->held[i] != held)
            continue;
        sides(by, c[s->group], s->x, f->part);
        sum += fabs(bound(by, max) - s->part[f->part]) / s->seconds;
        n++;
    }
    return sum / n;
}

// Tells which side binds each sample; returns how many changed. `balance` times the compute side is
// compared with the bandwidth side.
static size_t tell_sides(fit *f, coefficients c, double balance)
{
    size_t changed = 0;
    double by[PB_RESOURCES];
    for (size_t i = 0; i < f->n; i++) {
        sides(by, c[f->s[i].group], f->s[i].x, f->part);
        uint8_t hides = by[PB_BANDWIDTH] < balance * by[PB_COMPUTE] ? PB_BANDWIDTH : PB_COMPUTE;
        changed += f->hides[i] != hides;
        f->hides[i] = hides;
    }
    return changed;
}

// The best of several starts and all rounds, by the error on the fitted samples.
static void alternate(fit *f, coefficients best, coefficients sum)
{
    static const double balances[] = {1, 4, 0.25};
    double least = INFINITY;
    for (size_t k = 0; k < sizeof balances / sizeof *balances; k++) {
        coefficients c;
        memcpy(c, sum, sizeof c);
        for (int round = 0; round < ROUNDS; round++) {
            if (!tell_sides(f, c, round ? 1 : balances[k]) && round)
                break;
            solve(f, c);
            double e = part_error(f, c, true, false);
            if (e < least) {
                least = e;
                memcpy(best, c, sizeof c);
            }
        }
    }
}

// Fits a part in both forms and keeps the better one.
static void fit_part(fit *f, pb_cost_model *m, int part)
{
    coefficients sum = {{0}}, max = {{0}};
    begin_part(f, part);
    solve(f, sum);
    alternate(f, max, sum);
    m->part_error[part][0] = part_error(f, sum, false, true);
    m->part_error[part][1] = part_error(f, max, true, true);
    // Where both fit as well, the sum: it promises less of a faster machine.
    m->max[part] = m->part_error[part][1] < 0.98 * m->part_error[part][0] - 1e-6;
    for (size_t g = 0; g < f->n_groups; g++)
        for (size_t t = 0; t < PB_COST_TERMS; t++)
            if (pb_cost_kinds[t].part == (pb_cost_part)part)
                m->c[g][t] = (m->max[part] ? max : sum)[g][t];
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static pb_cost_error error_of(const fit *f, const pb_cost_model *m, bool held)
{
    pb_cost_error e = {NAN, NAN, NAN, 0};
    double sum = 0, *v = f->room;
    for (size_t i = 0; i < f->n; i++) {
        const pb_cost_sample *s = &f->s[i];
        if (f->held[i] != held)
            continue;
        v[e.n] = fabs(pb_cost_seconds(m, s->group, s->x, &PB_SAME_MACHINE, NULL) / s->seconds - 1);
        sum += v[e.n++];
    }
    if (!e.n)
        return e;
    qsort(v, e.n, sizeof *v, by_value);
    e.median = v[e.n / 2];
    e.p90 = v[(size_t)(0.9 * (double)(e.n - 1))];
    e.mean = sum / (double)e.n;
    return e;
}

typedef struct residual {
    double predicted, ratio;
    size_t at; // in time
} residual;

static int by_prediction(const void *a, const void *b)
{
    return by_value(&((const residual *)a)->predicted, &((const residual *)b)->predicted);
}

static int by_ratio(const void *a, const void *b)
{
    return by_value(&((const residual *)a)->ratio, &((const residual *)b)->ratio);
}

static void fill_bins(pb_cost_ratios *m, residual *v)
{
    qsort(v, m->n, sizeof *v, by_prediction);
    for (size_t b = 0; b < m->n_bins; b++) {
        size_t from = m->n * b / m->n_bins, to = m->n * (b + 1) / m->n_bins;
        m->bin[b] = from;
        m->bin[b + 1] = to;
        m->bin_from[b] = v[from].predicted;
        qsort(v + from, to - from, sizeof *v, by_ratio);
        for (size_t i = from; i < to; i++) {
            m->ratio[i] = v[i].ratio;
            m->rank[v[i].at] = ((double)(i - from) + 0.5) / (double)(to - from);
        }
    }
}

static pb_err keep_ratios(pb_cost_model *model, bool loads, const pb_cost_sample *s, size_t n)
{
    pb_cost_ratios *m = &model->ratios[loads];
    residual *v = malloc(n * sizeof *v);
    for (size_t i = 0; i < n && v; i++) {
        if (s[i].loads != loads)
            continue;
        double t = pb_cost_seconds(model, s[i].group, s[i].x, &PB_SAME_MACHINE, NULL);
        v[m->n] = (residual){t, t > 0 ? s[i].seconds / t : 1, m->n};
        m->n++;
    }
    m->n_bins = m->n / IN_BIN < BINS ? m->n / IN_BIN : BINS;
    m->n_bins += !m->n_bins;
    m->ratio = malloc(n * sizeof *m->ratio);
    m->rank = malloc(n * sizeof *m->rank);
    m->bin = malloc((m->n_bins + 1) * sizeof *m->bin);
    m->bin_from = malloc(m->n_bins * sizeof *m->bin_from);
    bool failed = !v || !m->ratio || !m->rank || !m->bin || !m->bin_from;
    if (!failed && m->n)
        fill_bins(m, v);
    free(v);
    return failed ? pb_fail(PB_MEMORY, NULL, "no memory for %zu steps", n) : PB_OK;
}

static pb_err check(const pb_cost_sample *s, size_t n, size_t n_groups)
{
    if (n < 2 * RUN * OUT_OF)
        return pb_fail(PB_INPUT, "measure for longer", "%zu steps are too few for a fit", n);
    if (!n_groups || n_groups > PB_COST_GROUPS)
        return pb_fail(PB_INPUT, NULL, "%zu kinds of adapters, at most %d", n_groups,
                       PB_COST_GROUPS);
    for (size_t i = 0; i < n; i++)
        if (!(s[i].seconds > 0 && isfinite(s[i].seconds)))
            return pb_fail(PB_INPUT, NULL, "step %zu took %g s", i, s[i].seconds);
    return PB_OK;
}

// Makes the mean of measured / predicted 1.
static void centre(const fit *f, pb_cost_model *m)
{
    size_t n = 0;
    double sum = 0;
    for (size_t i = 0; i < f->n; i++) {
        double t = pb_cost_seconds(m, f->s[i].group, f->s[i].x, &PB_SAME_MACHINE, NULL);
        if (!f->held[i] && t > 0)
            f->room[n++] = f->s[i].seconds / t;
    }
    qsort(f->room, n, sizeof *f->room, by_value);
    n -= n / 100;
    for (size_t i = 0; i < n; i++)
        sum += f->room[i];
    m->factor = n ? sum / (double)n : 1;
    for (size_t g = 0; g < m->n_groups; g++)
        for (size_t t = 0; t < PB_COST_TERMS; t++)
            m->c[g][t] *= m->factor;
}

pb_err pb_cost_fit(pb_cost_model *out, const pb_cost_sample *s, size_t n, size_t n_groups,
                   double bandwidth)
{
    pb_err err = PB_OK;
    *out = (pb_cost_model){.n_groups = n_groups};
    PB_TRY(check(s, n, n_groups));
    fit f = {.s = s, .n = n, .n_groups = n_groups, .bandwidth = bandwidth};
    f.held = malloc(n * sizeof *f.held);
    f.hides = malloc(n * sizeof *f.hides);
    f.room = malloc(n * sizeof *f.room);
    out->c = calloc(n_groups, sizeof *out->c);
    if (!f.held || !f.hides || !f.room || !out->c)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu steps", n));
    for (size_t i = 0; i < n; i++)
        f.held[i] = i / RUN % OUT_OF == OUT_OF - 1;
    for (int part = 0; part < PB_COST_PARTS; part++)
        fit_part(&f, out, part);
    centre(&f, out);
    out->fitted = error_of(&f, out, false);
    out->held = error_of(&f, out, true);
    for (size_t g = 0; g < n_groups; g++)
        out->loads[g] = true;
    for (size_t i = 0; i < n; i++)
        out->loads[s[i].group] &= s[i].loads;
    for (int loads = 0; loads < 2; loads++)
        PB_GO(keep_ratios(out, loads, s, n));
done:
    free(f.held);
    free(f.hides);
    free(f.room);
    if (err)
        pb_cost_free(out);
    return err;
}

void pb_cost_free(pb_cost_model *m)
{
    free(m->c);
    for (int loads = 0; loads < 2; loads++) {
        free(m->ratios[loads].ratio);
        free(m->ratios[loads].rank);
        free(m->ratios[loads].bin);
        free(m->ratios[loads].bin_from);
    }
    *m = (pb_cost_model){0};
}
