#include "results/run.h"

#include "core/clock.h"
#include "core/file.h"
#include "results/env.h"
#include "results/h5.h"
#include "results/journal.h"
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pb_run {
    char h5_path[4096], journal[4096];
    int fd;
    off_t size; // of the whole lines
    double opened, earlier_seconds;
    bool resumed;
    pb_journal_state state;
};

const char *pb_run_status_name(pb_run_status s)
{
    static const char *const names[] = {"complete", "diverged", "failed", "interrupted", "missing"};
    return names[s];
}

pb_err pb_config_hash(char out[PB_HASH_LEN], const json_t *config)
{
    char *text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return pb_fail(PB_MEMORY, NULL, "cannot format the configuration as JSON");
    pb_sha256(out, text, strlen(text));
    free(text);
    return PB_OK;
}

json_t *pb_run_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

// The length of the UTF-8 character at s, 0 when there is none.
static size_t utf8_length(const unsigned char *s, size_t n)
{
    unsigned c = n ? s[0] : 0, min;
    size_t len;
    if (c > 0 && c < 0x80)
        return 1;
    if (c >= 0xC2 && c < 0xE0) {
        len = 2, min = 0x80, c &= 0x1F;
    } else if (c >= 0xE0 && c < 0xF0) {
        len = 3, min = 0x800, c &= 0x0F;
    } else if (c >= 0xF0 && c < 0xF5) {
        len = 4, min = 0x10000, c &= 0x07;
    } else {
        return 0;
    }
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    return c < min || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000) ? 0 : len;
}

json_t *pb_run_text(const char *bytes, size_t n)
{
    char *text = malloc(3 * n + 1);
    if (!text)
        return NULL;
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length((const unsigned char *)bytes + i, n - i);
        memcpy(text + m, len ? bytes + i : "\xEF\xBF\xBD", len ? len : 3);
        m += len ? len : 3;
        i += len ? len : 1;
    }
    json_t *j = json_stringn(text, m);
    free(text);
    return j;
}

static pb_err io(const char *what, const char *path)
{
    int e = errno;
    return pb_fail(PB_IO, e == ENOSPC ? "free some disk space; nothing was overwritten" : NULL,
                   "cannot %s %s: %s", what, path, strerror(e));
}

// Either the whole line is in the journal afterwards, or nothing of it.
static pb_err append(pb_run *r, const json_t *event)
{
    char *line = json_dumps(event, JSON_COMPACT);
    if (!line)
        return pb_fail(PB_MEMORY, NULL, "cannot format an event as JSON");
    size_t n = strlen(line), done = 0;
    line[n++] = '\n'; // in place of the terminator: one write per line
    pb_err err = PB_OK;
    while (done < n && !err) {
        ssize_t w = write(r->fd, line + done, n - done);
        if (w < 0 && errno != EINTR)
            err = io("write", r->journal);
        else if (w > 0)
            done += (size_t)w;
    }
    free(line);
    if (!err)
        r->size += (off_t)n;
    else if (ftruncate(r->fd, r->size)) // the write's error matters more
        pb_context(err, "a torn line stays at the end");
    return err;
}

static pb_err continue_journal(pb_run *r, const char *hash)
{
    pb_journal j;
    pb_err err = pb_journal_read(&j, r->journal);
    if (!err && j.start && strcmp(j.state.config_sha256, hash))
        err = pb_fail(PB_INPUT, "resume with the same options, or start anew elsewhere",
                      "%s belongs to another configuration", r->journal);
    if (!err && j.start) {
        r->resumed = true;
        r->state = j.state;
        r->size = (off_t)j.good_bytes;
        r->earlier_seconds = j.state.seconds;
    }
    pb_journal_free(&j);
    return err;
}

static pb_err start(pb_run *r, const json_t *config, const json_t *seeds, const json_t *env,
                    const char *hash)
{
    char now[32], id_text[256], id[PB_HASH_LEN];
    pb_timestamp(now);
    snprintf(id_text, sizeof id_text, "%s %s %ld %lld", hash, now, (long)getpid(),
             (long long)pb_now_ns());
    pb_sha256(id, id_text, strlen(id_text));
    id[16] = 0;
    json_t *all_env;
    PB_TRY(pb_env_collect(&all_env, env));
    json_t *e = json_pack("{s:s, s:i, s:s, s:s, s:s, s:O, s:o, s:o}", "event", "start",
                          "schema_version", PB_RUN_SCHEMA_VERSION, "run_id", id, "created", now,
                          "config_sha256", hash, "config", config, "seeds",
                          seeds ? json_incref((json_t *)seeds) : json_object(), "env", all_env);
    if (!e)
        return pb_fail(PB_MEMORY, NULL, "cannot make the start event");
    pb_err err = pb_journal_check(&r->state, e);
    if (!err)
        err = append(r, e);
    json_decref(e);
    return err;
}

pb_err pb_run_open(pb_run **out, const char *h5_path, const json_t *config, const json_t *seeds,
                   const json_t *env, bool resume)
{
    *out = NULL;
    pb_err err = PB_OK;
    char folder[4096], hash[PB_HASH_LEN];
    pb_run *r = calloc(1, sizeof *r);
    if (!r)
        return pb_fail(PB_MEMORY, NULL, "no memory for a run");
    r->fd = -1;
    r->opened = pb_now();
    if (!json_is_object(config) || (seeds && !json_is_object(seeds)) ||
        (env && !json_is_object(env)))
        PB_GO(pb_fail(PB_INTERNAL, NULL, "config, seeds and env must be JSON objects"));
    PB_GO(pb_config_hash(hash, config));
    PB_GO(pb_journal_path(r->journal, sizeof r->journal, h5_path));
    PB_GO(pb_path(r->h5_path, sizeof r->h5_path, "%s", h5_path));
    PB_GO(pb_path(folder, sizeof folder, "%s", h5_path));
    PB_GO(pb_make_dirs(dirname(folder)));
    PB_GO(pb_file_lock(&r->fd, r->journal));
    if (resume)
        PB_GO(continue_journal(r, hash));
    if (ftruncate(r->fd, r->size))
        PB_GO(io("cut", r->journal));
    if (!r->resumed)
        PB_GO(start(r, config, seeds, env, hash));
    PB_GO(pb_run_sync(r));
    *out = r;
done:
    if (err)
        pb_run_abandon(r);
    return err;
}

bool pb_run_resumed(const pb_run *r)
{
    return r->resumed;
}

pb_err pb_run_event(pb_run *r, json_t *event)
{
    if (!event)
        return pb_fail(PB_INTERNAL, "numbers that may be NaN go through pb_run_number",
                       "an event could not be made");
    const char *name = json_string_value(json_object_get(event, "event"));
    pb_journal_state next = r->state; // a refused event changes nothing
    pb_err err = name && !strcmp(name, "end")
                     ? pb_fail(PB_INTERNAL, NULL, "the end event is written by pb_run_finish")
                     : pb_journal_check(&next, event);
    if (!err)
        err = append(r, event);
    if (!err)
        r->state = next;
    json_decref(event);
    return err ? pb_context(err, "%s", r->h5_path) : PB_OK;
}

pb_err pb_run_log_step(pb_run *r, const pb_run_step *s)
{
    const struct {
        const char *key;
        double v;
    } rest[] = {
        {"lr", s->lr}, {"grad_norm", s->grad_norm}, {"tokens", s->tokens}, {"seconds", s->seconds}};
    json_t *e = json_pack("{s:s, s:I, s:o}", "event", "step", "step", (json_int_t)s->step, "loss",
                          pb_run_number(s->loss));
    for (size_t i = 0; e && i < sizeof rest / sizeof *rest; i++)
        if (!isnan(rest[i].v))
            json_object_set_new(e, rest[i].key, pb_run_number(rest[i].v));
    return pb_run_event(r, e);
}

pb_err pb_run_log_latency(pb_run *r, const char *scenario, json_t *attrs, const int64_t *samples_ns,
                          size_t n)
{
    json_t *samples = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(samples, json_integer((json_int_t)samples_ns[i]));
    return pb_run_event(r,
                        json_pack("{s:s, s:s, s:o, s:o}", "event", "latency", "scenario", scenario,
                                  "attrs", attrs ? attrs : json_object(), "samples_ns", samples));
}

pb_err pb_run_sync(pb_run *r)
{
    return fsync(r->fd) ? io("sync", r->journal) : PB_OK;
}

void pb_run_abandon(pb_run *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd); // gives the lock back
    free(r);
}

static pb_err build(const char *h5_path, const char *journal)
{
    pb_journal j;
    pb_err err = pb_journal_read(&j, journal);
    if (!err)
        err = pb_journal_build(&j, h5_path);
    pb_journal_free(&j);
    return err;
}

static pb_err all_finite(pb_run *r)
{
    pb_journal j;
    pb_err err = pb_journal_read(&j, r->journal);
    if (!err && *j.non_finite)
        err = pb_fail(PB_DIVERGED, NULL, "%s: %s is not finite", r->h5_path, j.non_finite);
    pb_journal_free(&j);
    return err;
}

pb_err pb_run_finish(pb_run *r, pb_run_status status, const char *message)
{
    if (status == PB_RUN_COMPLETE)
        PB_TRY(all_finite(r));
    char now[32];
    pb_timestamp(now);
    json_t *e =
        json_pack("{s:s, s:s, s:s, s:f, s:s}", "event", "end", "status", pb_run_status_name(status),
                  "finished", now, "seconds", pb_now() - r->opened + r->earlier_seconds, "message",
                  message ? message : "");
    if (!e)
        return pb_fail(PB_INTERNAL, "is the message valid UTF-8?", "cannot make the end event");
    pb_err err = append(r, e);
    json_decref(e);
    PB_TRY(err);
    PB_TRY(pb_run_sync(r));
    PB_TRY(build(r->h5_path, r->journal));
    bool result = status == PB_RUN_COMPLETE || status == PB_RUN_DIVERGED;
    if (result && unlink(r->journal))
        return io("remove", r->journal);
    pb_run_abandon(r);
    return PB_OK;
}

pb_err pb_run_rebuild(const char *h5_path)
{
    char journal[4096];
    PB_TRY(pb_journal_path(journal, sizeof journal, h5_path));
    return build(h5_path, journal);
}

// The status of an undamaged file of this configuration, with the message it recorded.
static pb_err read_status(pb_run_status *out, const char *h5_path, const char *config_sha256,
                          char *message, size_t size)
{
    pb_h5 f;
    char *status = NULL, *hash = NULL, *text = NULL;
    PB_TRY(pb_h5_open(&f, h5_path, PB_RUN_SCHEMA, PB_RUN_SCHEMA_VERSION));
    pb_err err = PB_OK;
    PB_GO(pb_h5_get_str(f.file, "status", &status));
    PB_GO(pb_h5_get_str(f.file, "config_sha256", &hash));
    PB_GO(pb_h5_get_str(f.file, "message", &text));
    if (!hash || (config_sha256 && strcmp(hash, config_sha256)))
        PB_GO(pb_fail(PB_INPUT, NULL, "it holds another configuration (%.12s, not %.12s)",
                      hash ? hash : "none", config_sha256 ? config_sha256 : "any"));
    while (*out < PB_RUN_MISSING && (!status || strcmp(status, pb_run_status_name(*out))))
        (*out)++;
    if (*out == PB_RUN_MISSING)
        PB_GO(pb_fail(PB_INPUT, NULL, "its status is \"%s\"", status ? status : "none"));
    PB_GO(pb_h5_read_all(&f, h5_path));
    snprintf(message, size, "%s", text ? text : "");
done:
    free(status);
    free(hash);
    free(text);
    pb_h5_close(&f);
    return err;
}

pb_err pb_run_look(pb_run_status *out, const char *h5_path, const char *config_sha256, char *why,
                   size_t why_size)
{
    *out = PB_RUN_COMPLETE;
    pb_err err = read_status(out, h5_path, config_sha256, why, why_size);
    if (err) {
        *out = PB_RUN_MISSING;
        snprintf(why, why_size, "%s", pb_error_message());
    }
    return err == PB_MEMORY ? err : PB_OK;
}

pb_err pb_run_is_complete(const char *h5_path, const char *config_sha256, bool *yes, char *why,
                          size_t why_size)
{
    pb_run_status status;
    char text[512];
    PB_TRY(pb_run_look(&status, h5_path, config_sha256, text, sizeof text));
    *yes = status == PB_RUN_COMPLETE;
    if (why && status != PB_RUN_MISSING)
        snprintf(text, sizeof text, "its status is \"%s\"", pb_run_status_name(status));
    if (why)
        snprintf(why, why_size, "%s", *yes ? "" : text);
    return PB_OK;
}
