// Statistics of the tables: centres, bootstrap intervals, paired tests, percentiles.
//
// Everything is deterministic: resampling draws from PB_STREAM_STATS, and what a function returns
// depends on its arguments alone. A value that the data do not define (the sd of one number) is
// NaN.
#ifndef PB_RESULTS_STATS_H
#define PB_RESULTS_STATS_H

#include "core/error.h"
#include "tasks/metrics/metrics.h" // figures from summed statistics
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

double pb_mean(const double *x, size_t n);
double pb_sd(const double *x, size_t n); // divisor n - 1
double pb_median(const double *x, size_t n);
void pb_sort(double *x, size_t n);
// Linear interpolation between order statistics (type 7, NumPy's default); x sorted, q in 0..1.
double pb_percentile(const double *sorted, size_t n, double q);

typedef struct pb_interval {
    double lo, hi;
} pb_interval;
bool pb_covers_zero(pb_interval i); // true also when the interval is not defined

// A distribution-free interval for a quantile: the order statistics whose ranks are binomial
// quantiles. Not defined (NaN) when n is too small for the level.
pb_interval pb_percentile_interval(const double *sorted, size_t n, double q, double level);

// The statistics of one seed's items, (rows,cols), and how their sums make the score (pb_measure);
// NULL: their mean is the score, and cols is 1.
typedef struct pb_item_scores {
    const double *v;
    size_t rows, cols;
    double (*score)(const double *sum, size_t n);
} pb_item_scores;
double pb_items_score(const pb_item_scores *s);

typedef struct pb_boot {
    size_t resamples; // 0: 2000
    uint64_t seed;
    double level; // 0: 0.95
} pb_boot;

// Percentile bootstrap of the mean over seeds. One seed gives NaN.
pb_err pb_boot_seeds(pb_interval *out, const double *x, size_t n, const pb_boot *b);
// Two levels: seeds with replacement, then items with replacement within each drawn seed; the
// statistic is the mean of the seeds' scores. One seed leaves the variation of the items.
pb_err pb_boot_two_level(pb_interval *out, const pb_item_scores *seeds, size_t n, const pb_boot *b);
// The same for the mean difference a - b of paired seeds, with the same items drawn for both; the
// item counts of a pair must agree.
pb_err pb_boot_paired(pb_interval *out, const pb_item_scores *a, const pb_item_scores *b, size_t n,
                      const pb_boot *boot);

// I_x(a,b), the regularised incomplete beta function, and two-sided p of Student's t.
double pb_incomplete_beta(double a, double b, double x);
double pb_student_p(double t, double df);
// Paired t test of mean(a - b) = 0; NaN for fewer than two pairs. All differences equal: p is 1
// when they are 0, else 0.
double pb_paired_t(const double *a, const double *b, size_t n, double *t);
// The power of that test at level alpha when the true mean difference is `effect` times its sd; and
// the difference it would find at 5 % with 80 % power if its sd is the one given.
double pb_paired_power(double effect, size_t n, double alpha);
double pb_detectable(double sd, size_t n);
// Holm's step-down correction of n p values; NaN entries stay NaN and are not counted.
pb_err pb_holm(double *adjusted, const double *p, size_t n);

#endif
