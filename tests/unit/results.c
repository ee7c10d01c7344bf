// Run files: what is written comes back; a killed writer, a torn or wrong journal, a damaged file
// and a full disk each do exactly what run.h promises.
#include "core/file.h"
#include "results/figure.h"
#include "results/h5.h"
#include "results/run.h"
#include "results/table.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[64];

static const char *at(const char *name)
{
    static char path[4][512];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void ok(pb_err err)
{
    if (err)
        fail_msg("%s", pb_error_message());
}

static void says(const char *what)
{
    if (!strstr(pb_error_message(), what))
        fail_msg("\"%s\" does not say \"%s\"", pb_error_message(), what);
}

static json_t *config_of(const char *method, const char *task, int seed)
{
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:{s:s, s:i}, s:i, s:i, s:f, s:i}", "kind", "train",
                  "model", "tiny", "task", task, "method", method, "options", "sites", "q,v",
                  "alpha", 16, "budget", 4000, "seed", seed, "lr", 1e-3, "model_params", 100000);
    assert_non_null(j);
    return j;
}

static pb_err begin(pb_run **r, const char *path, int seed, bool resume)
{
    json_t *config = config_of("lora", "yesno", seed);
    pb_err err = pb_run_open(r, path, config, NULL, NULL, resume);
    json_decref(config);
    return err;
}

static pb_err step(pb_run *r, int64_t n, double loss)
{
    const pb_run_step s = {n, loss, 1e-3, 0.5, 128, NAN};
    return pb_run_log_step(r, &s);
}

static pb_err event(pb_run *r, const char *text)
{
    return pb_run_event(r, json_loads(text, 0, NULL));
}

static const char eval_event[] =
    "{\"event\":\"eval\",\"task\":\"yesno\",\"headline\":\"accuracy\",\"higher_is_better\":true,"
    "\"metrics\":{\"accuracy\":0.75,\"loss\":0.5},\"per_example\":{\"correct\":[1,1,0,1],"
    "\"loss\":[0.25,0.5,0.75,0.5]},\"outputs\":[\"ja\",\"n\\u00f6\"]}";

static void put_params(pb_run *r)
{
    ok(event(r, "{\"event\":\"params\",\"method\":\"lora\",\"knob\":\"rank\",\"knob_value\":4,"
                "\"trainable\":3900,\"saved_bytes\":15600,\"sites\":[{\"name\":\"q\",\"rows\":8,"
                "\"cols\":4,\"count\":2}]}"));
}

static pb_record *only_record(pb_records *all, const char *path)
{
    const char *const paths[] = {path};
    ok(pb_records_load(all, paths, 1));
    assert_int_equal(all->n, 1);
    return &all->v[0];
}

static char *slurp(const char *path, size_t *n)
{
    pb_file f;
    ok(pb_file_map(&f, path));
    char *copy = malloc(f.size + 1);
    assert_non_null(copy);
    memcpy(copy, f.data, f.size);
    copy[f.size] = 0;
    *n = f.size;
    pb_file_unmap(&f);
    return copy;
}

static void spill(const char *path, const void *data, size_t n)
{
    ok(pb_file_write(path, data, n));
}

static void round_trip(void **state)
{
    (void)state;
    pb_run *r;
    const char *path = at("deep/er/round.h5");
    ok(begin(&r, path, 3, false));
    assert_false(pb_run_resumed(r));
    put_params(r);
    for (int i = 0; i < 10; i++)
        ok(step(r, 10 * i, 2.0 - 0.1 * i));
    ok(event(r, "{\"event\":\"valid\",\"step\":50,\"loss\":1.5,\"score\":0.5}"));
    ok(event(r, eval_event));
    const int64_t ns[] = {1000, 3000, 2000};
    ok(pb_run_log_latency(r, "decode/lora/same/2",
                          json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f}", "method", "lora",
                                    "phase", "decode", "sharing", "same", "tenants", 1, "rows", 2,
                                    "tokens_per_sample", 2, "regions_per_token", 42.5),
                          ns, 3));
    ok(event(r, "{\"event\":\"note\",\"checkpoint\":\"x.safetensors\"}"));
    ok(pb_run_sync(r));
    assert_true(pb_exists(at("deep/er/round.jsonl")));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, "fine"));
    path = at("deep/er/round.h5");
    assert_false(pb_exists(at("deep/er/round.jsonl")));
    assert_false(pb_exists(at("deep/er/round.h5.tmp")));

    pb_records all;
    pb_record *v = only_record(&all, at("deep"));
    assert_string_equal(v->status, "complete");
    assert_string_equal(v->message, "fine");
    assert_string_equal(v->method, "lora");
    assert_string_equal(v->knob, "rank");
    assert_true(v->seed == 3 && v->budget == 4000 && v->trainable == 3900 && v->knob_value == 4);
    assert_int_equal(v->train.n, 10);
    assert_true(v->train.step[9] == 90 && fabs(v->train.loss[9] - 1.1) < 1e-15);
    assert_true(v->valid.n == 1 && v->valid.score[0] == 0.5);
    const pb_evaluation *e = pb_record_eval(v, "yesno", "test");
    assert_non_null(e);
    assert_true(e->higher_is_better && pb_eval_metric(e, "accuracy") == 0.75);
    assert_string_equal(e->headline, "accuracy");
    const pb_array *c = pb_eval_array(e, "correct");
    assert_true(c && c->rows == 4 && c->cols == 1 && c->v[2] == 0);
    assert_int_equal(v->n_scenarios, 1);
    const pb_scenario *s = &v->scenarios[0];
    assert_string_equal(s->name, "decode/lora/same/2");
    assert_true(s->n == 3 && s->samples_ns[1] == 3000 && s->rows == 2);
    assert_true(s->regions_per_token == 42.5 && isnan(s->flops_per_token));
    pb_records_free(&all);

    json_t *config = config_of("lora", "yesno", 3);
    char hash[PB_HASH_LEN], why[200];
    bool yes;
    ok(pb_config_hash(hash, config));
    ok(pb_run_is_complete(path, hash, &yes, why, sizeof why));
    assert_true(yes);
    json_object_set_new(config, "seed", json_integer(4));
    ok(pb_config_hash(hash, config));
    json_decref(config);
    ok(pb_run_is_complete(path, hash, &yes, why, sizeof why));
    assert_false(yes);
    assert_non_null(strstr(why, "another configuration"));
    ok(pb_run_is_complete(at("nowhere.h5"), NULL, &yes, why, sizeof why));
    assert_false(yes);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"event\":\"step\",\"loss\":1}", "\"step\" is missing"},
        {"{\"event\":\"step\",\"step\":5,\"loss\":1}", "step 5 after step 7"},
        {"{\"event\":\"step\",\"step\":8,\"loss\":\"x\"}", "must be a number"},
        {"{\"event\":\"step\",\"step\":8,\"loss\":1,\"perplexity\":2}", "unknown key"},
        {"{\"event\":\"stop\"}", "unknown event"},
        {"{\"event\":\"end\",\"status\":\"complete\"}", "pb_run_finish"},
        {"{\"event\":\"start\"}", "missing"},
        {"{\"step\":1}", "\"event\""},
        {"{\"event\":\"eval\",\"task\":\"a/b\",\"metrics\":{}}", "task name"},
        {"{\"event\":\"eval\",\"task\":\"\",\"metrics\":{}}", "task name"},
        {"{\"event\":\"eval\",\"task\":\"a\",\"metrics\":{\"x\":\"1\"}}", "not a number"},
        {"{\"event\":\"eval\",\"task\":\"a\",\"metrics\":{},\"headline\":\"x\"}", "headline"},
        {"{\"event\":\"eval\",\"task\":\"a\",\"metrics\":{},\"per_example\":{\"x\":[1,[2]]}}",
         "item 1"},
        {"{\"event\":\"eval\",\"task\":\"a\",\"metrics\":{},\"per_example\":{\"bleu_stats\":[1]}}",
         "10 per item"},
        {"{\"event\":\"eval\",\"task\":\"a\",\"metrics\":{},\"outputs\":[1]}", "output 0"},
        {"{\"event\":\"latency\",\"scenario\":\"a//b\",\"samples_ns\":[]}", "scenario name"},
        {"{\"event\":\"latency\",\"scenario\":\"../x\",\"samples_ns\":[]}", "scenario name"},
        {"{\"event\":\"latency\",\"scenario\":\"a\",\"samples_ns\":[1.5]}", "sample 0"},
        {"{\"event\":\"params\",\"method\":\"x\",\"trainable\":1,\"sites\":[{}]}", "site 0"},
    };
    pb_run *r, *second;
    ok(begin(&r, at("refuse.h5"), 1, false));
    ok(step(r, 7, 1));
    size_t before, after;
    free(slurp(at("refuse.jsonl"), &before));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(event(r, bad[i][0]), PB_OK);
        says(bad[i][1]);
    }
    assert_int_equal(pb_run_event(r, NULL), PB_INTERNAL);
    free(slurp(at("refuse.jsonl"), &after));
    assert_int_equal(before, after);
    assert_int_equal(begin(&second, at("refuse.h5"), 1, false), PB_BUSY);
    says("another process");
    assert_null(second);
    pb_run_abandon(r);
    pb_run_abandon(NULL);
    assert_int_equal(begin(&r, at("refuse.hdf"), 1, false), PB_USAGE);
    assert_int_equal(begin(&r, at(".h5"), 1, false), PB_USAGE);
    assert_int_equal(begin(&r, at("refuse.h5"), 2, true), PB_INPUT);
    says("another configuration");
}

// NaN reaches the file of a diverged run only.
static void not_finite(void **state)
{
    (void)state;
    pb_run *r;
    ok(begin(&r, at("nan.h5"), 1, false));
    ok(step(r, 0, 1));
    ok(step(r, 1, NAN));
    assert_int_equal(pb_run_finish(r, PB_RUN_COMPLETE, NULL), PB_DIVERGED);
    says("loss at step 1");
    ok(pb_run_finish(r, PB_RUN_DIVERGED, "loss is NaN"));
    pb_records all;
    pb_record *v = only_record(&all, at("nan.h5"));
    assert_string_equal(v->status, "diverged");
    assert_true(isnan(v->train.loss[1]) && v->train.loss[0] == 1);
    pb_records_free(&all);
    assert_false(pb_exists(at("nan.jsonl")));
    json_t *n = pb_run_number(INFINITY);
    assert_true(json_is_null(n));
    json_decref(n);
    json_t *t = pb_run_text("a\xFF\xC3\xA9\0\xE2\x82", 7);
    assert_string_equal(json_string_value(t), "a\uFFFD\u00E9\uFFFD\uFFFD\uFFFD");
    json_decref(t);
}

static void resume(void **state)
{
    (void)state;
    pb_run *r;
    ok(begin(&r, at("resume.h5"), 1, false));
    for (int i = 0; i < 10; i++)
        ok(step(r, i, i));
    ok(pb_run_finish(r, PB_RUN_INTERRUPTED, NULL));
    assert_true(pb_exists(at("resume.jsonl")));
    pb_records all;
    pb_record *v = only_record(&all, at("resume.h5"));
    assert_string_equal(v->status, "interrupted");
    pb_records_free(&all);
    ok(begin(&r, at("resume.h5"), 1, true));
    assert_true(pb_run_resumed(r));
    assert_int_equal(step(r, 5, 50), PB_INPUT);
    ok(event(r, "{\"event\":\"resume\",\"step\":4}"));
    for (int i = 5; i < 8; i++)
        ok(step(r, i, 10 * i));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL));
    v = only_record(&all, at("resume.h5"));
    assert_int_equal(v->train.n, 8);
    assert_true(v->train.loss[4] == 4 && v->train.loss[5] == 50);
    pb_records_free(&all);
    ok(begin(&r, at("resume.h5"), 1, true)); // no journal any more: a new start
    assert_false(pb_run_resumed(r));
    pb_run_abandon(r);
}

static void killed_writer(void **state)
{
    (void)state;
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        pb_run *r;
        if (begin(&r, at("killed.h5"), 1, false))
            _exit(1);
        for (int64_t i = 0;; i++) {
            if (step(r, i, 1.0 / (double)(i + 1)))
                _exit(2);
            if (i == 200 && write(fd[1], "x", 1) != 1)
                _exit(3);
        }
    }
    char c;
    assert_int_equal(read(fd[0], &c, 1), 1);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    close(fd[0]);
    close(fd[1]);
    assert_false(pb_exists(at("killed.h5")));
    ok(pb_run_rebuild(at("killed.h5")));
    pb_records all;
    pb_record *v = only_record(&all, at("killed.h5"));
    assert_string_equal(v->status, "interrupted");
    assert_true(v->train.n >= 201 && v->train.loss[200] == 1.0 / 201);
    pb_records_free(&all);
    size_t n, m;
    char *first = slurp(at("killed.h5"), &n);
    ok(pb_run_rebuild(at("killed.h5"))); // the same journal gives the same bytes
    char *second = slurp(at("killed.h5"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    free(first);
    free(second);
}

static void torn_journal(void **state)
{
    (void)state;
    pb_run *r;
    ok(begin(&r, at("torn.h5"), 1, false));
    put_params(r);
    for (int i = 0; i < 3; i++)
        ok(step(r, i, 1));
    pb_run_abandon(r);
    size_t n;
    char *text = slurp(at("torn.jsonl"), &n);
    size_t first = (size_t)(strchr(text, '\n') - text) + 1;
    for (size_t cut = first; cut < n; cut += 7) { // any cut behind the start can be built
        spill(at("cut.jsonl"), text, cut);
        ok(pb_run_rebuild(at("cut.h5")));
    }
    spill(at("cut.jsonl"), text, first - 1);
    assert_int_equal(pb_run_rebuild(at("cut.h5")), PB_INPUT);
    says("no event");
    spill(at("cut.jsonl"), text, n - 4); // a resumed writer cuts the torn line off
    ok(begin(&r, at("cut.h5"), 1, true));
    assert_true(pb_run_resumed(r));
    ok(step(r, 2, 9));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL));
    text[first + 3] = '}';
    spill(at("wrong.jsonl"), text, n);
    assert_int_equal(pb_run_rebuild(at("wrong.h5")), PB_INPUT);
    says("line 2");
    assert_int_equal(pb_run_rebuild(at("missing.h5")), PB_IO);
    free(text);
}

static void damaged_file(void **state)
{
    (void)state;
    pb_run *r;
    ok(begin(&r, at("whole.h5"), 1, false));
    put_params(r);
    for (int i = 0; i < 50; i++)
        ok(step(r, i, 1));
    ok(event(r, eval_event));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL));
    size_t n;
    char *data = slurp(at("whole.h5"), &n);
    const char *const bad = at("bad.h5");
    char path[512];
    snprintf(path, sizeof path, "%s", bad);
    bool yes;
    char why[200];
    for (size_t i = 0; i < n; i += 1 + n / 150) {
        spill(path, data, i); // cut off
        ok(pb_run_is_complete(path, NULL, &yes, why, sizeof why));
        assert_true(!yes && *why);
        data[i] ^= 0x41; // one byte changed
        spill(path, data, n);
        data[i] ^= 0x41;
        ok(pb_run_is_complete(path, NULL, &yes, why, sizeof why));
        assert_true(!yes && *why);
        const char *const paths[] = {path};
        pb_records all;
        assert_int_not_equal(pb_records_load(&all, paths, 1), PB_OK);
    }
    spill(path, data, n);
    ok(pb_run_is_complete(path, NULL, &yes, why, sizeof why));
    assert_true(yes);
    unlink(path);
    free(data);
}

static void other_schemas(void **state)
{
    (void)state;
    pb_h5 f;
    ok(pb_h5_open(&f, at("whole.h5"), PB_RUN_SCHEMA, PB_RUN_SCHEMA_VERSION));
    ok(pb_h5_read_all(&f, "whole"));
    pb_h5_close(&f);
    assert_int_equal(pb_h5_open(&f, at("whole.h5"), PB_RUN_SCHEMA, 2), PB_UNSUPPORTED);
    assert_int_equal(pb_h5_open(&f, at("whole.h5"), "pedrobench-merged", 1), PB_INPUT);
}

// A limit on the file's size fails the way a full disk does, without needing one.
static void full_disk(void **state)
{
    (void)state;
    pb_run *r;
    size_t n, m;
    ok(begin(&r, at("full.h5"), 1, false));
    ok(step(r, 0, 1));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL));
    char *old = slurp(at("full.h5"), &n);

    ok(begin(&r, at("full.h5"), 1, false));
    ok(step(r, 0, 2));
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit all, few = {.rlim_cur = 4096};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    few.rlim_max = all.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    pb_err built = pb_run_finish(r, PB_RUN_COMPLETE, NULL);
    pb_err wrote = PB_OK;
    for (int64_t i = 1; i < 200 && !wrote; i++)
        wrote = step(r, i, 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(built, PB_IO);
    assert_int_equal(wrote, PB_IO);
    char *now = slurp(at("full.h5"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(old, now, n);
    assert_false(pb_exists(at("full.h5.tmp")));
    free(now);
    free(old);
    now = slurp(at("full.jsonl"), &m); // no torn line stays
    assert_true(m && now[m - 1] == '\n');
    free(now);
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL)); // there is room again
}

static void put_run(const char *name, const char *method, int seed, double accuracy,
                    const char *extra, pb_run_status status)
{
    pb_run *r;
    json_t *config = config_of(method, "yesno", seed);
    if (extra)
        json_object_set_new(config, "lr", json_string(extra));
    ok(pb_run_open(&r, at(name), config, NULL, NULL, false));
    json_decref(config);
    ok(pb_run_event(r, json_pack("{s:s, s:s, s:s, s:i, s:i}", "event", "params", "method", method,
                                 "knob", "rank", "knob_value", 4, "trainable", 4000)));
    ok(pb_run_event(r, json_pack("{s:s, s:s, s:s, s:{s:f}}", "event", "eval", "task", "yesno",
                                 "headline", "accuracy", "metrics", "accuracy", accuracy)));
    ok(pb_run_finish(r, status, NULL));
}

static void summary(void **state)
{
    (void)state;
    const double lora[] = {0.5, 0.6, 0.7}, pedro[] = {0.61, 0.69, 0.8};
    for (int s = 0; s < 3; s++) {
        char name[64];
        snprintf(name, sizeof name, "sum/lora-%d.h5", s);
        put_run(name, "lora", s, lora[s], NULL, PB_RUN_COMPLETE);
        snprintf(name, sizeof name, "sum/pedro-%d.h5", s);
        put_run(name, "pedro", s, pedro[s], NULL, PB_RUN_COMPLETE);
    }
    put_run("sum/pedro-3.h5", "pedro", 3, 0.1, NULL, PB_RUN_DIVERGED);
    pb_records all;
    pb_summary s;
    const char *paths[] = {at("sum"), NULL};
    ok(pb_records_load(&all, paths, 1));
    ok(pb_summarize(&s, &all, NULL));
    assert_true(s.n_rows == 2 && s.n_tasks == 1);
    const pb_cell *a = &s.rows[0].cells[0], *b = &s.rows[1].cells[0];
    assert_true(s.rows[0].is_baseline && !a->compared && a->n == 3 && fabs(a->mean - 60) < 1e-9);
    assert_true(b->n == 3 && b->n_diverged == 1 && b->compared && b->n_pairs == 3);
    assert_true(fabs(b->difference - 10) < 1e-9 && !pb_covers_zero(b->difference_interval));
    assert_true(fabs(b->sd - pb_sd(b->x, 3)) < 1e-12 && b->p_holm == b->p);
    assert_string_equal(s.rows[1].label, "pedro rank=4");
    for (int f = PB_TEXT; f <= PB_HTML; f++) {
        char *text = NULL;
        size_t n;
        FILE *to = open_memstream(&text, &n);
        ok(pb_table_scores(to, &s, (pb_table_format)f));
        assert_int_equal(pb_table_latency(to, &s, (pb_table_format)f), PB_INPUT);
        fclose(to);
        assert_non_null(strstr(text, "pedro rank=4"));
        assert_null(strstr(text, "nan"));
        free(text);
    }
    pb_summary_free(&s);
    pb_records_free(&all);

    put_run("sum/lora-lr.h5", "lora", 0, 0.9, "0.1", PB_RUN_COMPLETE); // another learning rate
    paths[0] = at("sum");
    ok(pb_records_load(&all, paths, 1));
    ok(pb_summarize(&s, &all, NULL));
    assert_int_equal(s.n_rows, 3);
    assert_non_null(strstr(s.rows[0].label, "lr=0.001"));
    assert_non_null(strstr(s.rows[1].label, "lr=0.1"));
    assert_false(s.rows[2].cells[0].compared); // two baselines: none
    pb_summary_free(&s);
    pb_records_free(&all);

    put_run("sum/lora-copy.h5", "lora", 0, 0.5, NULL, PB_RUN_COMPLETE);
    paths[0] = at("sum");
    ok(pb_records_load(&all, paths, 1));
    assert_int_equal(pb_summarize(&s, &all, NULL), PB_INPUT);
    says("same run");
    pb_records_free(&all);
}

// A run of PEDRO with options as text; NULL: without a budget.
static void put_variant(const char *name, int seed, double accuracy, const char *options,
                        const char *budget)
{
    pb_run *r;
    json_t *config = config_of("pedro", "yesno", seed);
    json_object_set_new(config, "options", json_loads(options, 0, NULL));
    json_object_set_new(config, "budget", budget ? json_integer(atoi(budget)) : json_null());
    ok(pb_run_open(&r, at(name), config, NULL, NULL, false));
    int knob = (int)json_integer_value(json_object_get(json_object_get(config, "options"), "r"));
    json_decref(config);
    ok(pb_run_event(r, json_pack("{s:s, s:s, s:s, s:i, s:i}", "event", "params", "method", "pedro",
                                 "knob", "r", "knob_value", knob, "trainable", 1000 * knob)));
    ok(pb_run_event(r, json_pack("{s:s, s:s, s:s, s:{s:f}}", "event", "eval", "task", "yesno",
                                 "headline", "accuracy", "metrics", "accuracy", accuracy)));
    ok(pb_run_finish(r, PB_RUN_COMPLETE, NULL));
}

// An ablation: every variant is named by, and compared with, the one they are all made from.
static void ablation(void **state)
{
    (void)state;
    static const char *const options[] = {"{\"r\": 7, \"pooler\": \"mean\", \"act\": \"gelu\"}",
                                          "{\"r\": 7, \"pooler\": \"last\", \"act\": \"gelu\"}",
                                          "{\"r\": 9, \"pooler\": \"last\", \"act\": \"relu\"}"};
    for (int i = 0; i < 3; i++)
        for (int seed = 0; seed < 3; seed++) {
            char name[64];
            snprintf(name, sizeof name, "abl/%d-%d.h5", i, seed);
            put_variant(name, seed, 0.5 + 0.1 * i + 0.01 * seed * seed, options[i], "5000");
        }
    put_variant("abl/r.h5", 0, 0.9, "{\"r\": 2, \"pooler\": \"last\", \"act\": \"gelu\"}", NULL);
    pb_records all;
    pb_summary s;
    const char *paths[] = {at("abl")};
    ok(pb_records_load(&all, paths, 1));
    ok(pb_summarize(&s, &all, NULL));
    assert_string_equal(s.baseline, "pedro");
    assert_int_equal(s.n_rows, 4);
    static const char *const labels[] = {"pedro r=2", "pedro r=7", "pedro r=7 pooler=mean",
                                         "pedro r=9 act=relu"};
    const double difference[] = {30, NAN, -10, 10};
    for (size_t i = 0; i < 4; i++) { // the one without a budget comes last or first
        const pb_row *row = NULL;
        for (size_t k = 0; k < 4 && !row; k++)
            row = strcmp(s.rows[k].label, labels[i]) ? NULL : &s.rows[k];
        assert_non_null(row);
        assert_true(row->is_baseline == (i == 1) && row->is_centre == (i == 1));
        assert_true(i == 1 || fabs(row->cells[0].difference - difference[i]) < 1e-9);
    }
    pb_summary_free(&s);
    pb_records_free(&all);
}

static void merge_and_folders(void **state)
{
    (void)state;
    put_run("merge/a/one.h5", "lora", 0, 0.5, NULL, PB_RUN_COMPLETE);
    put_run("merge/two.h5", "ia3", 0, 0.5, NULL, PB_RUN_COMPLETE);
    spill(at("merge/other.h5"), "not HDF5", 8);
    const char *paths[] = {at("merge"), at("merge/two.h5")};
    char out[512];
    snprintf(out, sizeof out, "%s", at("merge/views/all.h5"));
    ok(pb_results_merge(out, paths, 2));
    pb_h5 f;
    ok(pb_h5_open(&f, out, "pedrobench-merged", 1));
    pb_h5_names names;
    hid_t g;
    ok(pb_h5_group(&g, f.file, "runs"));
    ok(pb_h5_links(&names, g));
    assert_int_equal(names.n, 2);
    const char *file, *object;
    char link[512] = "";
    assert_true(H5Lget_val(g, names.v[0], link, sizeof link, H5P_DEFAULT) >= 0);
    assert_true(H5Lunpack_elink_val(link, sizeof link, NULL, &file, &object) >= 0);
    assert_true(!strncmp(file, "../", 3) && !strcmp(object, "/"));
    H5Gclose(g);
    pb_h5_names_free(&names);
    pb_h5_close(&f);

    pb_records all;
    const char *folder_again[] = {at("merge")};
    ok(pb_records_load(&all, folder_again, 1)); // neither the view nor the foreign file counts
    assert_int_equal(all.n, 2);
    pb_records_free(&all);
    ok(pb_make_dirs(at("empty")));
    const char *empty[] = {at("empty")}, *foreign[] = {at("merge/other.h5")};
    assert_int_equal(pb_records_load(&all, empty, 1), PB_INPUT);
    says("no run file");
    assert_int_equal(pb_records_load(&all, foreign, 1), PB_INPUT);
    says("not a pedrobench-run file");
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.40s/pbresults-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", folder, (char *)NULL);
        _exit(1);
    }
    int status;
    return waitpid(pid, &status, 0) == pid ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),    cmocka_unit_test(refusals),
        cmocka_unit_test(not_finite),    cmocka_unit_test(resume),
        cmocka_unit_test(killed_writer), cmocka_unit_test(torn_journal),
        cmocka_unit_test(damaged_file),  cmocka_unit_test(other_schemas),
        cmocka_unit_test(full_disk),     cmocka_unit_test(summary),
        cmocka_unit_test(ablation),      cmocka_unit_test(merge_and_folders),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
