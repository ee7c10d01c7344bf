// The statistics of the tables: values known by hand, edge cases, and that a bootstrap interval
// covers what it should. `unit_stats --ask` answers questions of tests/oracle/test_stats.py: one
// per line on standard input, "NAME NUMBER...", answered by numbers with 17 digits.
#include "results/stats.h"
#include "core/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define assert_near(a, b, tol) assert_true(fabs((a) - (b)) <= (tol))

static void centres(void **state)
{
    (void)state;
    const double x[] = {3, 1, 2, 10};
    assert_near(pb_mean(x, 4), 4, 1e-15);
    assert_near(pb_median(x, 4), 2.5, 1e-15);
    assert_near(pb_sd(x, 4), sqrt(50 / 3.0), 1e-14);
    assert_true(isnan(pb_sd(x, 1)));
    assert_true(isnan(pb_mean(x, 0)));
    assert_true(isnan(pb_median(x, 0)));
}

static void percentiles(void **state)
{
    (void)state;
    const double x[] = {1, 2, 4, 8};
    assert_near(pb_percentile(x, 4, 0), 1, 0);
    assert_near(pb_percentile(x, 4, 1), 8, 0);
    assert_near(pb_percentile(x, 4, 0.5), 3, 1e-15);
    assert_near(pb_percentile(x, 4, 0.9), 6.8, 1e-12);
    assert_true(isnan(pb_percentile(x, 0, 0.5)));
    assert_true(isnan(pb_percentile(x, 4, 1.5)));
    double ranks[100];
    for (int i = 0; i < 100; i++)
        ranks[i] = i + 1;
    // Tables of order-statistic intervals give ranks 40 and 61 for the median of 100 at 95 %.
    pb_interval i = pb_percentile_interval(ranks, 100, 0.5, 0.95);
    assert_near(i.lo, 40, 0);
    assert_near(i.hi, 61, 0);
    // 5 samples cannot enclose the median with 95 % (2 / 2^5 > 5 %), 6 can.
    assert_true(isnan(pb_percentile_interval(ranks, 5, 0.5, 0.95).lo));
    i = pb_percentile_interval(ranks, 6, 0.5, 0.95);
    assert_near(i.lo, 1, 0);
    assert_near(i.hi, 6, 0);
    assert_true(isnan(pb_percentile_interval(ranks, 100, 0.99, 0.95).hi));
}

static void student(void **state)
{
    (void)state;
    // Quantiles of printed tables.
    assert_near(pb_student_p(12.706204736174698, 1), 0.05, 1e-12);
    assert_near(pb_student_p(2.7764451051977987, 4), 0.05, 1e-12);
    assert_near(pb_student_p(4.604094871415897, 4), 0.01, 1e-12);
    assert_near(pb_student_p(1.9599639845400545, 1e7), 0.05, 1e-6);
    assert_near(pb_student_p(0, 3), 1, 1e-12);
    assert_near(pb_student_p(-2.7764451051977987, 4), 0.05, 1e-12);
    assert_true(pb_student_p(INFINITY, 3) == 0);
    assert_true(isnan(pb_student_p(NAN, 3)));
    const double a[] = {5, 6, 7, 9}, b[] = {4, 6, 5, 6}, c[] = {4, 5, 6, 8};
    double t;
    double p = pb_paired_t(a, b, 4, &t), u = t / sqrt(3); // 3 degrees of freedom: closed form
    assert_near(t, 1.5 / (sqrt(5 / 3.0) / 2), 1e-12);
    assert_near(p, 1 - (atan(u) + u / (1 + u * u)) * 2 / 3.141592653589793, 1e-12);
    assert_true(pb_paired_t(a, a, 4, &t) == 1);
    assert_true(pb_paired_t(a, c, 4, &t) == 0 && isinf(t));
    assert_true(isnan(pb_paired_t(a, b, 1, &t)));
}

static void power(void **state)
{
    (void)state;
    // Without an effect the test finds one as often as its level says; with a sure one always.
    assert_near(pb_paired_power(0, 5, 0.05), 0.05, 1e-6);
    assert_near(pb_paired_power(0, 2, 0.01), 0.01, 1e-4);
    assert_near(pb_paired_power(1000, 5, 0.05), 1, 1e-7);
    assert_true(isnan(pb_paired_power(1, 1, 0.05)));
    // G*Power 3, matched pairs, dz = 0.5, two tails: 34 pairs have this power.
    assert_near(pb_paired_power(0.5, 34, 0.05), 0.8077775, 1e-6);
    assert_near(pb_paired_power(pb_detectable(3, 7) / 3, 7, 0.05), 0.8, 1e-6);
    assert_true(pb_detectable(0, 5) == 0 && isnan(pb_detectable(NAN, 5)));
    assert_true(isnan(pb_detectable(1, 1)));
    assert_true(pb_detectable(1, 3) > pb_detectable(1, 5));
}

static void holm(void **state)
{
    (void)state;
    const double p[] = {0.01, NAN, 0.04, 0.03, 0.005};
    const double want[] = {0.03, NAN, 0.06, 0.06, 0.02};
    double got[5];
    assert_int_equal(pb_holm(got, p, 5), PB_OK);
    for (int i = 0; i < 5; i++)
        assert_true(i == 1 ? isnan(got[i]) : fabs(got[i] - want[i]) < 1e-15);
}

static void boot_is_deterministic(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 7};
    pb_interval a, b, c;
    const pb_boot one = {.seed = 1};
    assert_int_equal(pb_boot_seeds(&a, x, 5, NULL), PB_OK);
    assert_int_equal(pb_boot_seeds(&b, x, 5, NULL), PB_OK);
    assert_int_equal(pb_boot_seeds(&c, x, 5, &one), PB_OK);
    assert_true(a.lo == b.lo && a.hi == b.hi);
    assert_true(a.lo >= 1 && a.hi <= 7 && a.lo < a.hi);
    assert_near(a.lo, c.lo, 0.5);
    assert_int_equal(pb_boot_seeds(&a, x, 1, NULL), PB_OK);
    assert_true(isnan(a.lo) && pb_covers_zero(a));
    const pb_item_scores odd = {x, 5, 1, NULL}, even = {x, 4, 1, NULL};
    assert_int_equal(pb_boot_paired(&a, &odd, &even, 1, NULL), PB_INPUT);
}

// Over repeated experiments of known truth the two-level interval must cover it about as often as
// it says. With 6 seeds the percentile bootstrap is known to be a little too short.
static void boot_covers(void **state)
{
    (void)state;
    enum { SEEDS = 6, ITEMS = 60, TRIALS = 120 };
    pb_rng rng = pb_rng_make(7, PB_STREAM_TEST, 0);
    int covered = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        double v[SEEDS][ITEMS];
        pb_item_scores items[SEEDS];
        for (int s = 0; s < SEEDS; s++) {
            double effect = 0.1 * pb_rng_normal(&rng);
            for (int i = 0; i < ITEMS; i++)
                v[s][i] = effect + pb_rng_normal(&rng);
            items[s] = (pb_item_scores){v[s], ITEMS, 1, NULL};
        }
        pb_interval i;
        const pb_boot b = {.resamples = 300, .seed = (uint64_t)trial};
        assert_int_equal(pb_boot_two_level(&i, items, SEEDS, &b), PB_OK);
        covered += pb_covers_zero(i);
    }
    assert_in_range(covered, TRIALS * 0.85, TRIALS);
}

// Pairing takes out what two methods share: the interval of the difference is far shorter than
// those of the scores.
static void pairing_helps(void **state)
{
    (void)state;
    enum { SEEDS = 5, ITEMS = 200 };
    pb_rng rng = pb_rng_make(8, PB_STREAM_TEST, 0);
    double a[SEEDS][ITEMS], b[SEEDS][ITEMS];
    pb_item_scores ia[SEEDS], ib[SEEDS];
    for (int s = 0; s < SEEDS; s++) {
        double shared = pb_rng_normal(&rng);
        for (int i = 0; i < ITEMS; i++) {
            double hard = pb_rng_normal(&rng);
            a[s][i] = shared + hard + 0.5;
            b[s][i] = shared + hard + 0.05 * pb_rng_normal(&rng);
        }
        ia[s] = (pb_item_scores){a[s], ITEMS, 1, NULL};
        ib[s] = (pb_item_scores){b[s], ITEMS, 1, NULL};
    }
    pb_interval alone, paired;
    assert_int_equal(pb_boot_two_level(&alone, ia, SEEDS, NULL), PB_OK);
    assert_int_equal(pb_boot_paired(&paired, ia, ib, SEEDS, NULL), PB_OK);
    assert_true(paired.lo > 0.48 && paired.hi < 0.52);
    assert_true(paired.hi - paired.lo < 0.1 * (alone.hi - alone.lo));
}

static void answer(const char *what, const double *x, size_t n)
{
    pb_interval i = {NAN, NAN};
    double t = NAN;
    if (!strcmp(what, "centre") && n) {
        printf("%.17g %.17g %.17g\n", pb_mean(x, n), pb_sd(x, n), pb_median(x, n));
    } else if (!strcmp(what, "percentile") && n > 1) { // q, values
        double *copy = malloc(n * sizeof *copy);
        memcpy(copy, x, n * sizeof *x);
        pb_sort(copy + 1, n - 1);
        i = pb_percentile_interval(copy + 1, n - 1, x[0], 0.95);
        printf("%.17g %.17g %.17g\n", pb_percentile(copy + 1, n - 1, x[0]), i.lo, i.hi);
        free(copy);
    } else if (!strcmp(what, "student") && n == 2) {
        printf("%.17g\n", pb_student_p(x[0], x[1]));
    } else if (!strcmp(what, "beta") && n == 3) {
        printf("%.17g\n", pb_incomplete_beta(x[0], x[1], x[2]));
    } else if (!strcmp(what, "paired") && n && n % 2 == 0) {
        double p = pb_paired_t(x, x + n / 2, n / 2, &t);
        printf("%.17g %.17g\n", t, p);
    } else if (!strcmp(what, "power") && n == 3) {
        printf("%.17g\n", pb_paired_power(x[0], (size_t)x[1], x[2]));
    } else if (!strcmp(what, "detectable") && n == 2) {
        printf("%.17g\n", pb_detectable(x[0], (size_t)x[1]));
    } else if (!strcmp(what, "holm") && n) {
        double *out = malloc(n * sizeof *out);
        if (!pb_holm(out, x, n))
            for (size_t k = 0; k < n; k++)
                printf("%.17g%c", out[k], k + 1 < n ? ' ' : '\n');
        free(out);
    } else if (!strcmp(what, "boot") && n) {
        const pb_boot b = {.resamples = 20000};
        if (!pb_boot_seeds(&i, x, n, &b))
            printf("%.17g %.17g\n", i.lo, i.hi);
    } else if (!strcmp(what, "two_level") && n > 2) { // seeds, columns, values
        size_t seeds = (size_t)x[0], cols = (size_t)x[1], rows = (n - 2) / seeds / cols;
        pb_item_scores *items = calloc(seeds, sizeof *items);
        const pb_boot b = {.resamples = 20000};
        for (size_t s = 0; s < seeds; s++)
            items[s] = (pb_item_scores){x + 2 + s * rows * cols, rows, cols,
                                        cols > 1 ? pb_measure_find("bleu")->score : NULL};
        if (!pb_boot_two_level(&i, items, seeds, &b))
            printf("%.17g %.17g\n", i.lo, i.hi);
        free(items);
    } else {
        printf("?\n");
    }
}

static int ask(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        size_t n = 0, most = strlen(line);
        double *x = malloc((most + 1) * sizeof *x);
        char *save, *what = strtok_r(line, " \n", &save), *word;
        while (x && (word = strtok_r(NULL, " \n", &save)))
            x[n++] = strtod(word, NULL);
        if (what && x)
            answer(what, x, n);
        free(x);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--ask"))
        return ask();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(centres),     cmocka_unit_test(percentiles),
        cmocka_unit_test(student),     cmocka_unit_test(power),
        cmocka_unit_test(holm),        cmocka_unit_test(boot_is_deterministic),
        cmocka_unit_test(boot_covers), cmocka_unit_test(pairing_helps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
