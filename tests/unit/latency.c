// The latency experiment on a tiny random model: every arm is there, with the samples, tokens,
// counts and bytes it should have; impossible plans are refused; Ctrl-C keeps what is there. (That
// batches, sorted or not, equal single requests bit by bit is checked by the experiment itself,
// before it times.)
#include "serve/generation.h"
#include "serve/latency.h"

#include "core/log.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_METHODS = 4, N_LIMITS = 2, P = 7, FRESH = 5, MIN = 3, MOST = 400 };

static const char *const names[N_METHODS] = {"lora", "ia3", "prefix", "pedro"};

struct seen {
    pb_latency_result r[MOST];
    size_t n, calls, stop_at; // stop_at: progress calls before Ctrl-C; 0: never
    bool negative;
};

struct fixture {
    pb_model *base, *merged;
    pb_latency_method methods[N_METHODS];
    void *options[N_METHODS];
    struct seen seen;
};

static pb_err result(void *self, const pb_latency_result *r)
{
    struct seen *s = self;
    assert_true(s->n < MOST);
    for (size_t i = 0; i < r->n; i++)
        s->negative |= r->samples[i] <= 0;
    s->r[s->n++] = *r;
    return PB_OK;
}

static void progress(void *self, const char *what, double spent, double total)
{
    struct seen *s = self;
    (void)what;
    assert_true(spent >= 0 && total > 0);
    if (++s->calls == s->stop_at)
        raise(SIGINT);
}

static int set_up(void **state)
{
    static const pb_config config = {.vocab = 90,
                                     .width = 32,
                                     .ffn = 64,
                                     .layers = 2,
                                     .heads = 4,
                                     .kv_heads = 2,
                                     .head_dim = 8,
                                     .context = 64,
                                     .norm_eps = 1e-5,
                                     .rope_theta = 1e4,
                                     .tied = true,
                                     .bos = -1};
    struct fixture *f = calloc(1, sizeof *f);
    pb_model_args args = {0};
    pb_adapter *a;
    *state = f;
    if (!f || pb_model_random(&f->base, &config, 3, &args))
        return -1;
    for (size_t i = 0; i < N_METHODS; i++) {
        f->methods[i].method = pb_method_find(names[i]);
        if (!f->methods[i].method || pb_options_new(&f->options[i], f->methods[i].method))
            return -1;
        f->methods[i].options = f->options[i];
    }
    if (pb_options_set(f->methods[1].method, f->options[1], "rank", "2") || // folded when served
        pb_latency_adapter(&a, &f->methods[0], &config, 5, 0))
        return -1;
    args.merge = a;
    pb_err err = pb_model_random(&f->merged, &config, 3, &args);
    pb_adapter_free(a);
    return err ? -1 : 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < N_METHODS; i++)
        free(f->options[i]);
    pb_model_close(f->base);
    pb_model_close(f->merged);
    free(f);
    return 0;
}

static const size_t sizes[] = {1, 3, 8}, beams[] = {1, 3};

// A limit that takes a second more each time.
static pb_err tick(void *self, double *seconds)
{
    *seconds = ++*(double *)self;
    return PB_OK;
}

static pb_latency_plan plan_of(const struct fixture *f)
{
    return (pb_latency_plan){.base = f->base,
                             .merged = f->merged,
                             .methods = f->methods,
                             .n_methods = N_METHODS,
                             .phase = {[PB_PHASE_PREFILL] = true, [PB_PHASE_DECODE] = true},
                             .tenants = sizes,
                             .n_tenants = 3,
                             .prompt = P,
                             .fresh = FRESH,
                             .seconds = 0.3,
                             .min_samples = MIN,
                             .seed = 5};
}

static const pb_latency_result *find(const struct seen *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->r[i].name, name))
            return &s->r[i];
    fail_msg("there is no %s", name);
    return NULL;
}

static pb_counts total(const pb_latency_result *r)
{
    pb_counts t = {0};
    for (int c = 0; c < PB_COMPONENTS; c++)
        pb_counts_add(&t, &r->counts[c]);
    return t;
}

static bool is_limit(const pb_latency_result *r)
{
    return !strcmp(r->sharing, "limit");
}

static void test_arms(void **state)
{
    struct fixture *f = *state;
    struct seen *s = &f->seen;
    pb_latency_plan plan = plan_of(f);
    pb_latency_observer o = {s, result, progress};
    double clock[N_LIMITS] = {0};
    const pb_latency_limit limits[N_LIMITS] = {{"sums", 1e9, 0, tick, &clock[0]},
                                               {"reads", 0, 1e6, tick, &clock[1]}};
    plan.limits = limits;
    plan.n_limits = N_LIMITS;
    plan.phase[PB_PHASE_GENERATE] = true;
    plan.beams = beams;
    plan.n_beams = 2;
    *s = (struct seen){0};
    if (pb_latency_measure(&plan, &o))
        fail_msg("%s", pb_error_message());
    // The limits, base twice, none, merged, and per method same and different; from two requests
    // on, per method the loop, and the mixture; from three on per method sorted and unsorted.
    size_t alone = N_LIMITS + 4 + 2 * N_METHODS, many = alone + N_METHODS + 1 + 2 * N_METHODS;
    // Whole generations have neither same, sorted nor unsorted.
    size_t whole = N_LIMITS + 4 + N_METHODS, wholes = whole + N_METHODS + 1;
    assert_int_equal(s->n, 2 * (alone + 2 * many) + 2 * (whole + 2 * wholes));
    assert_false(s->negative);
    size_t samples = 0;
    for (size_t i = 0; i < s->n; i++) {
        const pb_latency_result *r = &s->r[i];
        bool decode = !strcmp(r->phase, "decode"), generate = !strcmp(r->phase, "generate");
        assert_true(r->n >= MIN);
        // All arms of a round, or none; the limits first.
        if (i && r->rows == r[-1].rows && !strcmp(r->phase, r[-1].phase) && r->beam == r[-1].beam) {
            assert_int_equal(r->n, r[-1].n);
            assert_true(!is_limit(r) || is_limit(&r[-1]));
        }
        assert_int_equal(r->tokens, r->rows * (generate ? FRESH : decode ? 1 : P));
        assert_int_equal(r->beam > 0, generate);
        samples += r->n + !generate; // one round is not kept
        if (is_limit(r)) {
            assert_true(total(r).flops == 0 && r->part[0].flops + r->part[0].bytes > 0);
            continue;
        }
        assert_true(total(r).flops > 0 && total(r).bytes > 0 && total(r).ns > 0);
        assert_true(r->part[0].flops + r->part[1].flops == total(r).flops);
        assert_true(r->part[0].bytes + r->part[1].bytes == total(r).bytes);
    }
    assert_int_equal(s->calls, samples);
    assert_true(clock[0] == clock[1] && clock[0] > MIN);
    assert_int_equal(find(s, "decode/lora/same/8")->tenants, 1);
    assert_int_equal(find(s, "decode/lora/different/8")->tenants, 8);
    assert_int_equal(find(s, "decode/mixed/mixed/8")->tenants, 8);
    assert_int_equal(find(s, "decode/base/none/8")->tenants, 0);
    assert_int_equal(find(s, "decode/pedro/loop/3")->method_index, 3);
    assert_int_equal(find(s, "decode/ia3/unsorted/8")->tenants, 4);
    assert_int_equal(find(s, "prefill/ia3/sorted/3")->tenants, 2);
    assert_int_equal(find(s, "generate/beam-3/lora/different/8")->tenants, 8);
}

static void test_counts(void **state)
{
    const struct seen *s = &((struct fixture *)*state)->seen;
    char name[100];
    static const char *const phases[] = {"prefill", "decode"};
    for (size_t p = 0; p < 2; p++) {
        snprintf(name, sizeof name, "%s/base/none/8", phases[p]);
        pb_counts base = total(find(s, name));
        snprintf(name, sizeof name, "%s/merged/merged/8", phases[p]);
        pb_counts merged = total(find(s, name));
        assert_true(base.flops == merged.flops && base.regions == merged.regions);
        snprintf(name, sizeof name, "%s/none/none/8", phases[p]);
        pb_counts none = total(find(s, name));
        assert_true(base.flops == none.flops && base.regions == none.regions);
        for (size_t m = 0; m < N_METHODS; m++) {
            snprintf(name, sizeof name, "%s/%s/same/8", phases[p], names[m]);
            pb_counts same = total(find(s, name));
            snprintf(name, sizeof name, "%s/%s/different/8", phases[p], names[m]);
            pb_counts different = total(find(s, name));
            snprintf(name, sizeof name, "%s/%s/loop/8", phases[p], names[m]);
            pb_counts loop = total(find(s, name));
            snprintf(name, sizeof name, "%s/%s/different/1", phases[p], names[m]);
            pb_counts one = total(find(s, name));
            // One batched computation whatever the tenants, and the loop is eight of one request.
            assert_int_equal(same.regions, different.regions);
            // Only work that is worth sharing out counts, and a larger batch has more of it.
            assert_true(different.regions >= one.regions);
            assert_int_equal(loop.regions, 8 * one.regions);
            assert_true(same.flops == different.flops && different.flops > base.flops);
            assert_true(loop.flops == 8 * one.flops && loop.bytes == 8 * one.bytes);
            assert_true(different.bytes < loop.bytes);
            snprintf(name, sizeof name, "%s/%s/sorted/8", phases[p], names[m]);
            pb_counts sorted = total(find(s, name));
            snprintf(name, sizeof name, "%s/%s/unsorted/8", phases[p], names[m]);
            pb_counts unsorted = total(find(s, name));
            assert_true(sorted.flops == different.flops && unsorted.flops == sorted.flops);
            // Neighbours with one adapter read it once.
            assert_true(sorted.bytes <= unsorted.bytes && unsorted.bytes <= different.bytes);
            assert_true(m || sorted.bytes < unsorted.bytes);
            assert_int_equal(unsorted.regions, sorted.regions);
        }
        // What a component takes is known: hooks that are not there take less than LoRA's.
        snprintf(name, sizeof name, "%s/base/none/8", phases[p]);
        int64_t idle = find(s, name)->counts[PB_ADAPTER].ns;
        snprintf(name, sizeof name, "%s/lora/different/8", phases[p]);
        assert_true(find(s, name)->counts[PB_ADAPTER].ns > idle);
        assert_true(find(s, name)->counts[PB_HEAD].ns > 0);
    }
}

// Whole generations: the loop does the same operations, and reads the backbone once per tenant.
static void test_generations(void **state)
{
    struct fixture *f = *state;
    const struct seen *s = &f->seen;
    for (size_t b = 0; b < 2; b++)
        for (size_t m = 0; m < N_METHODS; m++) {
            char name[100];
            snprintf(name, sizeof name, "generate/beam-%zu/%s/different/8", beams[b], names[m]);
            const pb_latency_result *fused = find(s, name);
            snprintf(name, sizeof name, "generate/beam-%zu/%s/loop/8", beams[b], names[m]);
            const pb_latency_result *loop = find(s, name);
            snprintf(name, sizeof name, "generate/beam-%zu/base/none/8", beams[b]);
            const pb_latency_result *base = find(s, name);
            assert_true(total(loop).flops == total(fused).flops);
            assert_true(total(loop).bytes > 4 * total(base).bytes);
            assert_true(fused->part[PB_PROMPT_STEPS].flops > 0);
            // The token after the prompt comes from the prompt's step; others from a row each.
            assert_true(fused->part[PB_DECODE_STEPS].flops > 0);
            assert_true(fused->memory > base->memory && loop->memory < fused->memory);
            snprintf(name, sizeof name, "generate/beam-%zu/merged/merged/8", beams[b]);
            assert_true(total(find(s, name)).flops == total(base).flops);
        }
    assert_true(find(s, "generate/beam-3/base/none/3")->memory >
                find(s, "generate/beam-1/base/none/3")->memory);
    assert_true(total(find(s, "generate/beam-3/base/none/3")).flops >
                total(find(s, "generate/beam-1/base/none/3")).flops);
}

// What a decoder is said to need is what its arenas take, and the rest of the engine.
static void test_memory(void **state)
{
    struct fixture *f = *state;
    pb_adapter *a;
    pb_decoder *d;
    size_t need, kv_only, S = 3 * 4, rest = S * 90 * sizeof(real) + 3 * S * 12 * sizeof(int32_t);
    assert_int_equal(pb_latency_adapter(&a, &f->methods[3], &f->base->config, 5, 0), PB_OK);
    pb_decoding how = {.beam = 3, .length_penalty = 1};
    assert_int_equal(pb_decoder_need(&need, f->base, &a, 1, 4, 12, &how), PB_OK);
    assert_int_equal(pb_decoder_new(&d, f->base, &a, 1, 4, 12, &how), PB_OK);
    kv_only = pb_step_kv_bytes(pb_decoder_step(d));
    size_t took = pb_step_bytes(pb_decoder_step(d)) + kv_only + rest;
    assert_true(need <= took && took - need <= 64);
    pb_decoder_free(d);
    pb_adapter_free(a);
    // And the experiment: more with a merged backbone's caches, and no less than its own caches.
    pb_latency_plan p = plan_of(f);
    size_t all, merged;
    assert_int_equal(pb_latency_need(&all, &p, false), PB_OK);
    assert_int_equal(pb_latency_need(&merged, &p, true), PB_OK);
    size_t slots = (3 + 3 * N_METHODS) * 8;
    assert_true(all > slots * find(&f->seen, "decode/base/none/8")->kv_bytes);
    assert_true(merged > all + 8 * find(&f->seen, "decode/base/none/8")->kv_bytes);
}

static void test_bytes(void **state)
{
    struct fixture *f = *state;
    const struct seen *s = &f->seen;
    for (size_t m = 0; m < N_METHODS; m++) {
        char name[100];
        pb_adapter *a;
        assert_int_equal(pb_latency_adapter(&a, &f->methods[m], &f->base->config, 5, 2), PB_OK);
        snprintf(name, sizeof name, "decode/%s/different/8", names[m]);
        const pb_latency_result *r = find(s, name);
        assert_int_equal(r->adapter_bytes, pb_adapter_resident(a));
        assert_int_equal(r->state_bytes, 2 * a->state * sizeof(real));
        assert_true(r->adapter_bytes > a->layout.size * sizeof(real));
        // 12 positions in blocks of 32; keys and values of 2 layers and 2 heads of 8
        assert_int_equal(r->kv_bytes, 2 * 2 * 32 * 16 * sizeof(real));
        pb_adapter_free(a);
    }
    assert_int_equal(find(s, "decode/base/none/8")->adapter_bytes, 0);
    assert_int_equal(find(s, "decode/merged/merged/8")->adapter_bytes,
                     pb_model_resident(f->merged));
    assert_true(find(s, "decode/pedro/same/1")->state_bytes > 0);
}

// The same arguments give the same adapter, other tenants other values, all of them non-trivial.
static void test_adapters(void **state)
{
    struct fixture *f = *state;
    for (size_t m = 0; m < N_METHODS; m++) {
        pb_adapter *a[3];
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(pb_latency_adapter(&a[i], &f->methods[m], &f->base->config, 5, i / 2),
                             PB_OK);
        size_t size = a[0]->layout.size * sizeof(real);
        assert_memory_equal(a[0]->params.v, a[1]->params.v, size);
        assert_memory_not_equal(a[0]->params.v, a[2]->params.v, size);
        for (size_t i = 0; i < a[0]->layout.n; i++) {
            const pb_spec *spec = &a[0]->layout.spec[i];
            for (size_t k = 0; k < spec->rows * spec->cols; k++)
                assert_true(a[0]->params.v[spec->offset + k] != 0);
        }
        for (size_t i = 0; i < 3; i++)
            pb_adapter_free(a[i]);
    }
}

static void test_argmax(void **state)
{
    (void)state;
    real x[100];
    for (size_t n = 1; n <= 100; n++)
        for (size_t at = 0; at < n; at++) {
            for (size_t i = 0; i < n; i++)
                x[i] = -2 - (real)(i % 7);
            x[at] = -1;
            x[n - 1] = -1; // a tie: the smaller id
            assert_int_equal(pb_argmax(x, n), at);
        }
}

static void refuse(const pb_latency_plan *plan, const char *what)
{
    struct seen s = {0};
    pb_latency_observer o = {&s, result, NULL};
    assert_int_not_equal(pb_latency_measure(plan, &o), PB_OK);
    if (!strstr(pb_error_message(), what))
        fail_msg("\"%s\" does not name \"%s\"", pb_error_message(), what);
    assert_int_equal(s.n, 0);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    pb_latency_plan good = plan_of(f), p = good;
    static const size_t twice[] = {2, 2};
    p.tenants = twice;
    p.n_tenants = 2;
    refuse(&p, "must increase");
    p = good;
    p.fresh = 60;
    refuse(&p, "context of 64");
    p = good;
    p.min_samples = 0;
    refuse(&p, "must not be 0");
    p = good;
    p.phase[PB_PHASE_PREFILL] = p.phase[PB_PHASE_DECODE] = false;
    refuse(&p, "no phase");
    p.phase[PB_PHASE_GENERATE] = true;
    refuse(&p, "need numbers of beams");
    static const size_t falling[] = {3, 1};
    p.beams = falling;
    p.n_beams = 2;
    refuse(&p, "beams must increase");
    pb_latency_method list[2] = {f->methods[0], f->methods[0]};
    p = good;
    p.methods = list;
    p.n_methods = 2;
    refuse(&p, "lora appears twice");
    list[1] = (pb_latency_method){.method = pb_method_find("none")};
    refuse(&p, "none");
    list[1].method = pb_method_find("full");
    refuse(&p, "full");
}

// Comes last: the flag that Ctrl-C sets stays.
static void test_interrupted(void **state)
{
    struct fixture *f = *state;
    struct seen *s = &f->seen;
    pb_latency_plan plan = plan_of(f);
    pb_latency_observer o = {s, result, progress};
    // In the second kept round of the first batch size.
    *s = (struct seen){.stop_at = 2 * (4 + 2 * N_METHODS) + 5};
    pb_signals_install();
    assert_int_equal(pb_latency_measure(&plan, &o), PB_INTERRUPTED);
    assert_int_equal(s->n, 4 + 2 * N_METHODS);
    size_t samples = 0;
    for (size_t i = 0; i < s->n; i++) {
        assert_true(s->r[i].n == 1 || s->r[i].n == 2);
        samples += s->r[i].n;
    }
    assert_int_equal(samples, s->stop_at - (4 + 2 * N_METHODS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arms),        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_generations), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_bytes),       cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_argmax),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
