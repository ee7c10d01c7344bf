#include "results/stats.h"

#include "core/rng.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

double pb_mean(const double *x, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += x[i];
    return n ? s / (double)n : NAN;
}

double pb_sd(const double *x, size_t n)
{
    double m = pb_mean(x, n), s = 0;
    for (size_t i = 0; i < n; i++)
        s += (x[i] - m) * (x[i] - m);
    return n > 1 ? sqrt(s / (double)(n - 1)) : NAN;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void pb_sort(double *x, size_t n)
{
    if (n)
        qsort(x, n, sizeof *x, by_value);
}

double pb_percentile(const double *sorted, size_t n, double q)
{
    if (!n || !(q >= 0 && q <= 1))
        return NAN;
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

double pb_median(const double *x, size_t n)
{
    double *copy = malloc((n + 1) * sizeof *copy);
    if (!copy)
        return NAN;
    if (n)
        memcpy(copy, x, n * sizeof *x);
    pb_sort(copy, n);
    double m = pb_percentile(copy, n, 0.5);
    free(copy);
    return m;
}

bool pb_covers_zero(pb_interval i)
{
    return !(i.lo > 0 || i.hi < 0);
}

// The number K of samples below the q-quantile is Binomial(n, q), and the r-th order statistic
// (r = 1..n) lies at or below the quantile exactly when K >= r. So the r-th and s-th enclose it
// with probability P(r <= K < s): r is the largest with P(K < r) <= alpha/2, s the smallest with
// P(K >= s) <= alpha/2.
pb_interval pb_percentile_interval(const double *sorted, size_t n, double q, double level)
{
    pb_interval out = {NAN, NAN};
    double alpha = (1 - level) / 2, below = 0;
    if (!(q > 0 && q < 1))
        return out;
    for (size_t k = 0; k <= n; k++) {
        // P(K < k) = below
        if (below <= alpha && k >= 1)
            out.lo = sorted[k - 1];
        if (1 - below <= alpha && k >= 1) {
            out.hi = sorted[k - 1];
            break;
        }
        double log_p = lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) +
                       (double)k * log(q) + (double)(n - k) * log1p(-q);
        below += exp(log_p);
        if (k == n)
            break;
    }
    if (isnan(out.lo) || isnan(out.hi))
        out = (pb_interval){NAN, NAN};
    return out;
}

static double score_of(const pb_item_scores *s, const double *sum)
{
    return !s->rows ? NAN : s->score ? s->score(sum, s->rows) : sum[0] / (double)s->rows;
}

double pb_items_score(const pb_item_scores *s)
{
    double sum[PB_MOST_STATS] = {0};
    for (size_t i = 0; i < s->rows; i++)
        for (size_t k = 0; k < s->cols; k++)
            sum[k] += s->v[i * s->cols + k];
    return score_of(s, sum);
}

// The score of the items at `draw`.
static double drawn_score(const pb_item_scores *s, const size_t *draw)
{
    double sum[PB_MOST_STATS] = {0};
    for (size_t i = 0; i < s->rows; i++)
        for (size_t k = 0; k < s->cols; k++)
            sum[k] += s->v[draw[i] * s->cols + k];
    return score_of(s, sum);
}

// Replicates of one statistic -> percentile interval.
static pb_interval interval_of(double *replicates, size_t n, double level)
{
    double alpha = (1 - level) / 2;
    pb_sort(replicates, n);
    return (pb_interval){pb_percentile(replicates, n, alpha),
                         pb_percentile(replicates, n, 1 - alpha)};
}

static pb_err boot(pb_interval *out, const pb_item_scores *a, const pb_item_scores *b, size_t n,
                   const pb_boot *opt)
{
    size_t resamples = opt && opt->resamples ? opt->resamples : 2000, most = 1;
    double level = opt && opt->level > 0 ? opt->level : 0.95;
    *out = (pb_interval){NAN, NAN};
    if (!n)
        return PB_OK;
    for (size_t i = 0; i < n; i++) {
        bool fits = a[i].score ? a[i].cols <= PB_MOST_STATS : a[i].cols == 1;
        if (!fits ||
            (b && (b[i].rows != a[i].rows || b[i].cols != a[i].cols || b[i].score != a[i].score)))
            return pb_fail(PB_INPUT, NULL, "the items of pair %zu do not match", i);
        most = a[i].rows > most ? a[i].rows : most;
    }
    double *replicates = malloc(resamples * sizeof *replicates);
    size_t *draw = malloc(most * sizeof *draw);
    if (replicates && draw) {
        pb_rng rng = pb_rng_make(opt ? opt->seed : 0, PB_STREAM_STATS, 0);
        for (size_t r = 0; r < resamples; r++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                size_t s = (size_t)pb_rng_below(&rng, n);
                for (size_t k = 0; k < a[s].rows; k++)
                    draw[k] = (size_t)pb_rng_below(&rng, a[s].rows);
                sum += drawn_score(&a[s], draw) - (b ? drawn_score(&b[s], draw) : 0);
            }
            replicates[r] = sum / (double)n;
        }
        *out = interval_of(replicates, resamples, level);
    }
    pb_err err = replicates && draw
                     ? PB_OK
                     : pb_fail(PB_MEMORY, NULL, "no memory for %zu resamples", resamples);
    free(replicates);
    free(draw);
    return err;
}

pb_err pb_boot_two_level(pb_interval *out, const pb_item_scores *seeds, size_t n, const pb_boot *b)
{
    return boot(out, seeds, NULL, n, b);
}

pb_err pb_boot_paired(pb_interval *out, const pb_item_scores *a, const pb_item_scores *b, size_t n,
                      const pb_boot *opt)
{
    return boot(out, a, b, n, opt);
}

pb_err pb_boot_seeds(pb_interval *out, const double *x, size_t n, const pb_boot *b)
{
    *out = (pb_interval){NAN, NAN};
    if (n < 2)
        return PB_OK;
    pb_item_scores *one = calloc(n, sizeof *one); // every seed is one item, drawn as itself
    if (!one)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu seeds", n);
    for (size_t i = 0; i < n; i++)
        one[i] = (pb_item_scores){&x[i], 1, 1, NULL};
    pb_err err = boot(out, one, NULL, n, b);
    free(one);
    return err;
}

// I_x(a,b) = x^a (1-x)^b / (a B(a,b)) / (1 + d1/(1 + d2/(1 + ...))), the continued fraction of DLMF
// 8.17.22, taken on the side where it converges in some sqrt(max(a,b)) terms and summed from its
// far end.
double pb_incomplete_beta(double a, double b, double x)
{
    if (!(a > 0 && b > 0 && x >= 0 && x <= 1))
        return NAN;
    if (x == 0 || x == 1)
        return x;
    if (x > (a + 1) / (a + b + 2))
        return 1 - pb_incomplete_beta(b, a, 1 - x);
    double tail = 1;
    for (int m = 100 + 10 * (int)sqrt(fmin(fmax(a, b), 1e10)); m >= 0; m--) {
        double even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        tail = 1 + odd / (1 + even / tail);
    }
    double log_front = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x);
    return exp(log_front) / (a * tail);
}

double pb_student_p(double t, double df)
{
    if (!(df > 0) || isnan(t))
        return NAN;
    return isinf(t) ? 0 : pb_incomplete_beta(df / 2, 0.5, df / (df + t * t));
}

double pb_paired_t(const double *a, const double *b, size_t n, double *t)
{
    double mean = 0, ss = 0;
    *t = NAN;
    if (n < 2)
        return NAN;
    for (size_t i = 0; i < n; i++)
        mean += (a[i] - b[i]) / (double)n;
    for (size_t i = 0; i < n; i++)
        ss += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    double se = sqrt(ss / (double)(n - 1) / (double)n);
    if (se == 0) {
        *t = mean == 0 ? 0 : copysign(INFINITY, mean);
        return mean == 0 ? 1 : 0;
    }
    *t = mean / se;
    return pb_student_p(*t, (double)(n - 1));
}

static double critical_t(double df, double alpha)
{
    double lo = 0, hi = 1;
    while (pb_student_p(hi, df) > alpha)
        hi *= 2;
    for (int i = 0; i < 60; i++) {
        double t = (lo + hi) / 2;
        *(pb_student_p(t, df) > alpha ? &lo : &hi) = t;
    }
    return hi;
}

static double below(double z) // of the standard normal distribution
{
    return erfc(-z / sqrt(2)) / 2;
}

// P(|T| > c) for T = (Z + shift) / S, Student's t with a shifted normal above: Z is standard normal
// and df S^2 is chi-squared, so given S = s it is P(Z > c s - shift) + P(Z < -c s - shift);
// Simpson's rule over s.
static double noncentral_tails(double c, double df, double shift)
{
    int parts = df < 3 ? 4000 : 400; // the fewer, the larger c, and the steeper the integrand
    double lo = fmax(0, 1 - 9 / sqrt(df)), hi = 1 + 9 / sqrt(df), h = (hi - lo) / parts, sum = 0;
    double log_front = log(2) + df / 2 * log(df / 2) - lgamma(df / 2);
    for (int i = 0; i <= parts; i++) {
        double s = lo + h * i, w = i == 0 || i == parts ? 1 : i % 2 ? 4 : 2;
        double log_s = s > 0 ? (df - 1) * log(s) : df > 1 ? -INFINITY : 0;
        sum += w * exp(log_front + log_s - df * s * s / 2) *
               (below(shift - c * s) + below(-shift - c * s));
    }
    return sum * h / 3;
}

static double paired_power(double effect, size_t n, double c)
{
    return noncentral_tails(c, (double)(n - 1), effect * sqrt((double)n));
}

double pb_paired_power(double effect, size_t n, double alpha)
{
    return n < 2 ? NAN : paired_power(effect, n, critical_t((double)(n - 1), alpha));
}

double pb_detectable(double sd, size_t n)
{
    if (n < 2 || isnan(sd))
        return NAN;
    double c = critical_t((double)(n - 1), 0.05), lo = 0, hi = 1;
    while (paired_power(hi, n, c) < 0.8)
        hi *= 2;
    for (int i = 0; i < 40; i++) {
        double effect = (lo + hi) / 2;
        *(paired_power(effect, n, c) < 0.8 ? &lo : &hi) = effect;
    }
    return hi * sd;
}

pb_err pb_holm(double *adjusted, const double *p, size_t n)
{
    size_t *order = malloc((n + 1) * sizeof *order), m = 0;
    if (!order)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu p values", n);
    for (size_t i = 0; i < n; i++) {
        adjusted[i] = NAN;
        if (isnan(p[i]))
            continue;
        size_t k = m++;
        for (; k > 0 && p[order[k - 1]] > p[i]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    double largest = 0;
    for (size_t k = 0; k < m; k++) {
        double v = fmin(1, (double)(m - k) * p[order[k]]);
        largest = fmax(largest, v);
        adjusted[order[k]] = largest;
    }
    free(order);
    return PB_OK;
}
