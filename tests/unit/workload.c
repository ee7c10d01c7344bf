// Workloads against theory, with fixed seeds: gaps by a Kolmogorov-Smirnov distance and moments,
// popularity by expected counts, lengths by quantiles; traces and what is refused.
#include "serve/workload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tiny.h"

enum { N = 20000, TENANTS = 50 };
static pb_due due[N];

static const pb_workload plain = {.rate = 8,
                                  .cv = 1,
                                  .tenants = TENANTS,
                                  .prompt = {PB_FIXED, 7, 7, 7},
                                  .output = {PB_BETWEEN, 3, 6, 6},
                                  .popularity = PB_UNIFORM,
                                  .seed = 5};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// P(a, x), the distribution of a Gamma variate, by its series.
static double gamma_below(double a, double x)
{
    double term = 1 / a, sum = term;
    for (int n = 1; n < 2000; n++)
        sum += term *= x / (a + n);
    return sum * exp(a * log(x) - x - lgamma(a));
}

static void test_gaps(void **state)
{
    (void)state;
    static const double cvs[] = {0.25, 1, 3};
    static double gap[N];
    for (size_t c = 0; c < sizeof cvs / sizeof *cvs; c++) {
        pb_workload w = plain;
        double mean = 0, ss = 0, distance = 0, shape = 1 / (cvs[c] * cvs[c]);
        w.cv = cvs[c];
        OK(pb_workload_draw(&w, due, N));
        for (size_t i = 0; i < N; i++) {
            gap[i] = 1e-9 * (double)(due[i].at - (i ? due[i - 1].at : 0));
            mean += gap[i] / N;
        }
        for (size_t i = 0; i < N; i++)
            ss += (gap[i] - mean) * (gap[i] - mean) / N;
        qsort(gap, N, sizeof *gap, by_size);
        for (size_t i = 0; i < N; i++) {
            double p = gamma_below(shape, fmax(gap[i], 1e-9) * w.rate * shape);
            // Times are whole ns: the smallest gaps of bursts are rounded away.
            if (gap[i] > 1e-6)
                distance = fmax(distance, fmax(fabs(p - (double)i / N), fabs(p - (i + 1.0) / N)));
        }
        assert_true(fabs(mean * w.rate - 1) < 5 * w.cv / sqrt(N));
        assert_true(fabs(sqrt(ss) / mean / w.cv - 1) < 0.06);
        assert_true(distance < 1.95 / sqrt(N)); // p = 0.001
    }
    pb_workload w = plain;
    w.cv = 0;
    OK(pb_workload_draw(&w, due, N));
    assert_int_equal(due[15].at, 2000000000);
}

// Requests in each tenth of a ramp's time, as the rate there says.
static void test_ramp(void **state)
{
    (void)state;
    pb_workload w = plain;
    w.rate = 2;
    w.rate_end = 18;
    OK(pb_workload_draw(&w, due, N));
    double T = 2.0 * N / (w.rate + w.rate_end);
    for (int k = 0; k < 10; k++) {
        double expected = (w.rate + (w.rate_end - w.rate) * (k + 0.5) / 10) * T / 10, seen = 0;
        for (size_t i = 0; i < N; i++)
            seen += due[i].at >= 1e9 * T * k / 10 && due[i].at < 1e9 * T * (k + 1) / 10;
        assert_true(fabs(seen - expected) < 6 * sqrt(expected) + 150); // the last end is random
    }
}

static void test_popularity(void **state)
{
    (void)state;
    static const char *const names[] = {"uniform", "zipf:1.1", "geometric:0.1", "zipf:0"};
    for (size_t c = 0; c < sizeof names / sizeof *names; c++) {
        double p[TENANTS], sum = 0, chi = 0, seen[TENANTS] = {0};
        pb_workload w = plain;
        OK(pb_popularity_parse(&w, names[c]));
        OK(pb_workload_draw(&w, due, N));
        for (int k = 0; k < TENANTS; k++)
            sum += p[k] = c == 1 ? pow(k + 1, -1.1) : c == 2 ? pow(0.9, k) : 1;
        for (size_t i = 0; i < N; i++)
            seen[due[i].tenant]++;
        for (int k = 0; k < TENANTS; k++) {
            double e = N * p[k] / sum;
            chi += (seen[k] - e) * (seen[k] - e) / e;
        }
        assert_true(chi < 85.4); // 49 degrees of freedom, p = 0.001
    }
    pb_workload w = plain;
    OK(pb_popularity_parse(&w, "distinct"));
    OK(pb_workload_draw(&w, due, N));
    assert_int_equal(due[TENANTS + 3].tenant, 3);
    OK(pb_popularity_parse(&w, "identical"));
    OK(pb_workload_draw(&w, due, N));
    for (size_t i = 0; i < N; i++)
        assert_int_equal(due[i].tenant, 0);
    static const char *const wrong[] = {"zip", "zipf:", "zipf:x", "geometric:1", "uniform:2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(pb_popularity_parse(&w, wrong[i]), PB_USAGE);
}

static void test_lengths(void **state)
{
    (void)state;
    static const uint32_t data[][2] = {{3, 9}, {5, 2}};
    pb_workload w = plain;
    double seen[7] = {0}, below = 0, in_sigma = 0;
    OK(pb_lengths_parse(&w.prompt, "lognormal:100,0.5,1000", "--prompt"));
    OK(pb_workload_draw(&w, due, N));
    for (size_t i = 0; i < N; i++) {
        seen[due[i].output]++;
        below += due[i].prompt <= 100;
        in_sigma += due[i].prompt > 100 * exp(-0.5) && due[i].prompt < 100 * exp(0.5);
    }
    for (int k = 3; k <= 6; k++)
        assert_true(fabs(seen[k] - N / 4.0) < 5 * sqrt(N / 4.0));
    assert_true(fabs(below / N - 0.5) < 0.02 && fabs(in_sigma / N - 0.6827) < 0.02);
    w.prompt = w.output = (pb_lengths){.kind = PB_FROM_DATA};
    w.data = data;
    w.n_data = 2;
    OK(pb_workload_draw(&w, due, N));
    for (size_t i = 0; i < N; i++)
        assert_true(due[i].prompt == 3 ? due[i].output == 9 : due[i].output == 2);
    static const char *const wrong[] = {"0", "x", "5-3", "2.5", "lognormal:5,1", "1-2-3"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(pb_lengths_parse(&w.prompt, wrong[i], "--prompt"), PB_USAGE);
}

static void test_trace(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {{"time,tenant,prompt,output\n0.5,2,10,3\n0.5,0,1,1\n2,1,4,9\n", NULL},
                 {"time,tenant\n", "head"},
                 {"time,tenant,prompt,output\n0,50,1,1\n", "unknown tenant 50"},
                 {"time,tenant,prompt,output\n1,0,1,1\n0,0,1,1\n", "line 3"},
                 {"time,tenant,prompt,output\n1,0,0,1\n", "line 2"},
                 {"time,tenant,prompt,output\n", "no requests"}};
    char path[400];
    snprintf(path, sizeof path, "%s/trace.csv", tiny_folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_due *d;
        size_t n;
        OK(pb_file_write(path, cases[i].text, strlen(cases[i].text)));
        pb_err err = pb_trace_read(&d, &n, path, TENANTS);
        assert_int_equal(err, cases[i].says ? PB_INPUT : PB_OK);
        if (cases[i].says && !strstr(pb_error_message(), cases[i].says))
            fail_msg("%s", pb_error_message());
        if (!err)
            assert_true(n == 3 && d[0].at == 500000000 && d[2].tenant == 1 && d[2].output == 9);
        free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaps), cmocka_unit_test(test_ramp), cmocka_unit_test(test_popularity),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_trace)};
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove);
}
