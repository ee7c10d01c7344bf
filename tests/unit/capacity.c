// Fleets: 100,000 tenants whose misses are those of theory, the largest rate within a limit, and
// what machines and memory change.
#include "results/stats.h"
#include "serve/capacity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tiny.h"

enum { TENANTS = 100000, REQUESTS = 100000, BYTES = 1000 };

static double costs[1][PB_COST_TERMS] = {{[PB_COST_STEP] = 1e-4, [PB_COST_ROWS] = 1e-5}};
static const pb_cost_model cost = {.c = costs, .n_groups = 1};
static const size_t bytes = BYTES;

static pb_fleet fleet(size_t tenants, size_t memory)
{
    return (pb_fleet){
        .limits = {.slots = 16, .beam = 1, .positions = 32, .rows = 64, .queue = REQUESTS},
        .tenants = tenants,
        .bytes = &bytes,
        .n_bytes = 1,
        .memory = memory,
        .filled = true,
        .disk = {1e-5, 1e9},
        .cost = &cost,
        .sizes = {.row = 1},
        .machine = PB_SAME_MACHINE};
}

static pb_traffic draw(pb_due *due, size_t n, size_t tenants)
{
    pb_workload w = {.rate = 1,
                     .cv = 1,
                     .tenants = tenants,
                     .popularity = PB_UNIFORM,
                     .prompt = {PB_BETWEEN, 1, 8, 8},
                     .output = {PB_BETWEEN, 1, 8, 8},
                     .seed = 9};
    OK(pb_workload_draw(&w, due, n));
    return (pb_traffic){due, n, 0, n / 5, NULL};
}

// Independent and equally likely tenants: of K places for N tenants, a share K / N of the requests
// finds its adapter, whatever leaves.
static void test_many_tenants(void **state)
{
    (void)state;
    pb_due *due = malloc(REQUESTS * sizeof *due);
    assert_non_null(due);
    pb_fleet f = fleet(TENANTS, TENANTS / 4 * BYTES);
    pb_traffic t = draw(due, REQUESTS, TENANTS);
    pb_fleet_day day;
    OK(pb_fleet_run(&f, &t, 1000, &day));
    double misses = (double)day.loads / REQUESTS;
    assert_true(day.served == REQUESTS && day.lost == 0);
    if (!(fabs(misses - 0.75) < 0.01))
        fail_msg("a share of %.4f was loaded", misses);
    double loading = (double)day.loads * (1e-5 + BYTES / 1e9);
    assert_true(fabs(day.loading / loading - 1) < 1e-3);
    assert_true(day.by[PB_LATENCY] + day.by[PB_COMPUTE] <= day.seconds);
    assert_true(fabs(day.by[PB_LATENCY] - 1e-4 * day.steps) < 1e-3 &&
                fabs(day.by[PB_COMPUTE] - 1e-5 * day.rows) < 1e-3);
    pb_fleet_day_free(&day);
    f.memory = SIZE_MAX;
    OK(pb_fleet_run(&f, &t, 1000, &day));
    assert_int_equal(day.loads, 0);
    pb_fleet_day_free(&day);
    free(due);
}

static double quantile_at(const pb_fleet *f, const pb_traffic *t, double faster, int measure)
{
    pb_fleet_day day;
    double *v;
    size_t n;
    OK(pb_fleet_run(f, t, faster, &day));
    OK(pb_serving_samples(&v, &n, &day.serving, measure, -1));
    assert_int_equal(n, measure == PB_TPOT ? n : t->n - t->warm_up);
    double q = pb_percentile(v, n, 0.99);
    free(v);
    pb_fleet_day_free(&day);
    return q;
}

static void test_fastest(void **state)
{
    (void)state;
    enum { N = 5000 };
    static pb_due due[N];
    pb_fleet f = fleet(10, SIZE_MAX);
    pb_traffic t = draw(due, N, 10);
    pb_limit l = {.quantile = 0.99, .most = {[PB_TTFT] = 5, [PB_TPOT] = 1}};
    pb_fleet_day day;
    double faster, twice;
    OK(pb_fleet_fastest(&faster, &f, &t, &l, &day));
    pb_fleet_day_free(&day);
    assert_true(quantile_at(&f, &t, faster, PB_TTFT) <= 5 &&
                quantile_at(&f, &t, faster, PB_TPOT) <= 1);
    assert_true(quantile_at(&f, &t, 1.03 * faster, PB_TTFT) > 5 ||
                quantile_at(&f, &t, 1.03 * faster, PB_TPOT) > 1);
    // All costs halved and all limits too: twice the rate.
    f.machine = (pb_machine){0.5, 2, 2};
    l.most[PB_TTFT] /= 2;
    l.most[PB_TPOT] /= 2;
    OK(pb_fleet_fastest(&twice, &f, &t, &l, &day));
    pb_fleet_day_free(&day);
    assert_true(fabs(twice / faster - 2) < 0.03);
    // A step alone takes longer: no rate will do.
    l.most[PB_TTFT] = 0.01;
    OK(pb_fleet_fastest(&faster, &f, &t, &l, &day));
    pb_fleet_day_free(&day);
    assert_true(faster == 0);
}

// Adapters that do not stay in memory have to be fetched, and the disk becomes the limit.
static void test_disk(void **state)
{
    (void)state;
    enum { N = 5000 };
    static pb_due due[N];
    pb_fleet f = fleet(1000, 20 * BYTES);
    f.disk = (pb_disk){10e-3, 1e9};
    pb_traffic t = draw(due, N, 1000);
    pb_limit l = {.quantile = 0.99, .most = {[PB_TTFT] = 1000}};
    pb_fleet_day day;
    double faster;
    OK(pb_fleet_fastest(&faster, &f, &t, &l, &day));
    // At most 1 / 10 ms, of which 98 % miss; a second's patience over 5000 requests adds little.
    assert_true(faster > 85 && faster < 110);
    assert_true(day.loading > 0.8 * day.seconds);
    pb_fleet_day_free(&day);
}

// Ratios of 0.5 and 1.5: the mean stays, and the tail gets longer.
static void test_noise(void **state)
{
    (void)state;
    enum { N = 5000 };
    static pb_due due[N];
    double ratio[] = {0.5, 1.5}, rank[100], bin_from[] = {0};
    size_t bin[] = {0, 2};
    for (size_t i = 0; i < 100; i++)
        rank[i] = i < 50 ? 0.25 : 0.75;
    pb_cost_model noisy = cost;
    noisy.ratios[0] = (pb_cost_ratios){
        .ratio = ratio, .rank = rank, .bin = bin, .bin_from = bin_from, .n = 100, .n_bins = 1};
    pb_fleet f = fleet(10, SIZE_MAX);
    pb_traffic t = draw(due, N, 10);
    double exact = quantile_at(&f, &t, 100, PB_TTFT);
    f.cost = &noisy;
    assert_true(quantile_at(&f, &t, 100, PB_TTFT) == exact);
    f.noise = true;
    double drawn = quantile_at(&f, &t, 100, PB_TTFT);
    assert_true(drawn > 1.2 * exact && drawn < 1.7 * exact);
    assert_true(quantile_at(&f, &t, 100, PB_TTFT) == drawn); // the same seed
    f.seed = 5;
    assert_true(quantile_at(&f, &t, 100, PB_E2E) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many_tenants),
                                       cmocka_unit_test(test_fastest), cmocka_unit_test(test_disk),
                                       cmocka_unit_test(test_noise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
