#include "serve/workload.h"

#include "core/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GAPS = 1000, TENANTS, LENGTHS }; // generators of PB_STREAM_SAMPLE

// Reads up to n numbers, separated by `sep`; returns how many, or 0 when something else is there.
static size_t numbers(const char *s, char sep, double *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *end;
        errno = 0;
        out[i] = strtod(s, &end);
        if (errno || end == s || !isfinite(out[i]))
            return 0;
        if (!*end)
            return i + 1;
        if (*end != sep)
            return 0;
        s = end + 1;
    }
    return 0;
}

pb_err pb_popularity_parse(pb_workload *w, const char *text)
{
    static const char *const names[] = {"identical", "distinct", "uniform", "zipf:", "geometric:"};
    for (int k = PB_IDENTICAL; k <= PB_GEOMETRIC; k++) {
        size_t len = strlen(names[k]);
        bool skewed = names[k][len - 1] == ':';
        if (strncmp(text, names[k], len) || (!skewed && text[len]))
            continue;
        w->popularity = (pb_popularity)k;
        if (!skewed)
            return PB_OK;
        bool ok = numbers(text + len, 0, &w->skew, 1) == 1;
        if (ok && (k == PB_ZIPF ? w->skew >= 0 && w->skew <= 10 : w->skew > 0 && w->skew < 1))
            return PB_OK;
    }
    return pb_fail(PB_USAGE, "identical, distinct, uniform, zipf:S (0 to 10), geometric:P (0 to 1)",
                   "the popularity \"%.60s\" is unknown", text);
}

pb_err pb_lengths_parse(pb_lengths *out, const char *text, const char *what)
{
    static const char mark[] = "lognormal:";
    double v[3] = {0};
    bool ok;
    if (!strncmp(text, mark, sizeof mark - 1)) {
        ok = numbers(text + sizeof mark - 1, ',', v, 3) == 3 && v[0] >= 1 && v[1] >= 0 &&
             v[1] <= 10 && v[2] >= 1;
        *out = (pb_lengths){PB_LOGNORMAL, v[0], v[1], floor(v[2])};
    } else if (strchr(text, '-')) {
        ok = numbers(text, '-', v, 2) == 2 && v[0] <= v[1];
        *out = (pb_lengths){PB_BETWEEN, v[0], v[1], v[1]};
    } else {
        ok = numbers(text, 0, v, 1) == 1;
        *out = (pb_lengths){PB_FIXED, v[0], v[0], v[0]};
    }
    if (out->kind != PB_LOGNORMAL)
        ok = ok && v[0] == floor(v[0]) && out->b == floor(out->b);
    return ok && v[0] >= 1 && out->c <= 1 << 20
               ? PB_OK
               : pb_fail(PB_USAGE, "e.g. 64, 16-128 or lognormal:64,0.8,512 (median, sigma, most)",
                         "%s is \"%.60s\"", what, text);
}

// Marsaglia and Tsang, A simple method for generating gamma variables (2000); below 1, a variate of
// shape k + 1 times U^(1/k).
double pb_draw_gamma(pb_rng *r, double k)
{
    double boost = k < 1 ? pow(pb_rng_uniform(r), 1 / k) : 1;
    double d = (k < 1 ? k + 1 : k) - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = pb_rng_normal(r), v = 1 + c * x, u = pb_rng_uniform(r);
        v = v * v * v;
        if (v > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v;
    }
}

// When `expected` requests are expected to have come.
static double time_of(const pb_workload *w, double expected, size_t n)
{
    double end = w->rate_end;
    if (!(end > 0) || end == w->rate)
        return expected / w->rate;
    double T = 2 * (double)n / (w->rate + end), slope = (end - w->rate) / T;
    if (expected >= (double)n)
        return T + (expected - (double)n) / end;
    // rate t + slope t^2 / 2 = expected, in the form that does not cancel
    return 2 * expected / (w->rate + sqrt(w->rate * w->rate + 2 * slope * expected));
}

static void draw_times(const pb_workload *w, pb_due *out, size_t n)
{
    pb_rng r = pb_rng_make(w->seed, PB_STREAM_SAMPLE, GAPS);
    double shape = 1 / (w->cv * w->cv), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += w->cv > 0 ? pb_draw_gamma(&r, shape) / shape : 1;
        out[i].at = (int64_t)(1e9 * time_of(w, sum, n));
    }
}

// By the inverse of the cumulative distribution.
static pb_err draw_tenants(const pb_workload *w, pb_due *out, size_t n)
{
    pb_rng r = pb_rng_make(w->seed, PB_STREAM_SAMPLE, TENANTS);
    bool skewed = w->popularity == PB_ZIPF || w->popularity == PB_GEOMETRIC;
    double *upto = malloc((w->tenants + 1) * sizeof *upto), sum = 0;
    if (!upto)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tenants", w->tenants);
    for (size_t k = 0; k < w->tenants && skewed; k++) {
        sum += w->popularity == PB_ZIPF ? pow((double)(k + 1), -w->skew)
                                        : pow(1 - w->skew, (double)(k + 1));
        upto[k] = sum;
    }
    for (size_t i = 0; i < n; i++) {
        size_t lo = 0, hi = w->tenants - 1;
        if (w->popularity == PB_DISTINCT)
            lo = i % w->tenants;
        else if (w->popularity == PB_UNIFORM)
            lo = (size_t)pb_rng_below(&r, w->tenants);
        for (double u = skewed ? sum * pb_rng_uniform(&r) : 0; skewed && lo < hi;) {
            size_t mid = (lo + hi) / 2;
            if (upto[mid] < u)
                lo = mid + 1;
            else
                hi = mid;
        }
        out[i].tenant = (uint32_t)lo;
    }
    free(upto);
    return PB_OK;
}

static uint32_t draw_length(const pb_lengths *l, pb_rng *r)
{
    double x = l->a;
    if (l->kind == PB_BETWEEN)
        x += (double)pb_rng_below(r, (uint64_t)(l->b - l->a) + 1);
    else if (l->kind == PB_LOGNORMAL)
        x = fmin(fmax(round(l->a * exp(l->b * pb_rng_normal(r))), 1), l->c);
    return (uint32_t)x;
}

pb_err pb_workload_draw(const pb_workload *w, pb_due *out, size_t n)
{
    pb_rng r = pb_rng_make(w->seed, PB_STREAM_SAMPLE, LENGTHS);
    bool data = w->prompt.kind == PB_FROM_DATA;
    if (!w->tenants || (data && !w->n_data))
        return pb_fail(PB_INPUT, NULL, "a workload needs tenants and lengths");
    if (!w->clients && !(w->rate > 0 && w->rate_end >= 0 && w->cv >= 0 && w->cv <= 100))
        return pb_fail(PB_USAGE, "requests per second, and at most 100",
                       "a rate of %g to %g with a coefficient of variation of %g", w->rate,
                       w->rate_end, w->cv);
    PB_TRY(draw_tenants(w, out, n));
    for (size_t i = 0; i < n; i++) {
        const uint32_t *e = data ? w->data[pb_rng_below(&r, w->n_data)] : NULL;
        out[i].prompt = e ? e[0] : draw_length(&w->prompt, &r);
        out[i].output = e ? e[1] : draw_length(&w->output, &r);
        out[i].at = 0;
    }
    if (!w->clients)
        draw_times(w, out, n);
    return PB_OK;
}

// ---------------------------------------------------------------- traces

static const char head[] = "time,tenant,prompt,output";

static pb_err read_line(pb_due *d, const char *line, size_t tenants, int64_t before)
{
    double v[4];
    if (numbers(line, ',', v, 4) != 4 || v[0] < 0 || v[0] > 1e9)
        return pb_fail(PB_INPUT, head, "it is \"%.80s\"", line);
    for (int i = 1; i < 4; i++)
        if (v[i] != floor(v[i]) || v[i] < (i > 1) || v[i] > 1 << 30)
            return pb_fail(PB_INPUT, head, "%g is no number of a tenant or of tokens", v[i]);
    if (v[1] >= (double)tenants)
        return pb_fail(PB_INPUT, "tenants are numbered from 0",
                       "unknown tenant %.0f, there are %zu", v[1], tenants);
    *d = (pb_due){(int64_t)(v[0] * 1e9), (uint32_t)v[1], (uint32_t)v[2], (uint32_t)v[3]};
    return d->at >= before ? PB_OK : pb_fail(PB_INPUT, "sort it", "its time is before the last");
}

static pb_err read_trace(FILE *f, const char *path, pb_due **out, size_t *n, size_t tenants)
{
    char line[256];
    size_t room = 0;
    for (size_t number = 1; fgets(line, sizeof line, f); number++) {
        line[strcspn(line, "\r\n")] = 0;
        if (number == 1 && strcmp(line, head))
            return pb_fail(PB_INPUT, head, "%s: its head is \"%.80s\"", path, line);
        if (number == 1 || !*line)
            continue;
        if (*n == room) {
            room = room ? 2 * room : 1024;
            pb_due *more = realloc(*out, room * sizeof *more);
            if (!more)
                return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", room);
            *out = more;
        }
        pb_err err = read_line(*out + *n, line, tenants, *n ? (*out)[*n - 1].at : 0);
        if (err)
            return pb_context(err, "%s, line %zu", path, number);
        ++*n;
    }
    return *n ? PB_OK : pb_fail(PB_INPUT, head, "%s has no requests", path);
}

pb_err pb_trace_read(pb_due **out, size_t *n, const char *path, size_t tenants)
{
    *out = NULL;
    *n = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        return pb_fail(PB_IO, NULL, "cannot open %s: %s", path, strerror(errno));
    pb_err err = read_trace(f, path, out, n, tenants);
    fclose(f);
    if (err) {
        free(*out);
        *out = NULL;
    }
    return err;
}
