// The sweep's journal: when each run was started and how it ended, and what that says about time.
#include "cli/sweep/sweep.h"
#include "core/clock.h"
#include "core/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char name[] = "sweep";

// Several processes append: each holds the lock for a moment.
static pb_err lock(int *fd, const char *path)
{
    for (int i = 0;; i++) {
        pb_err err = pb_file_lock(fd, path);
        if (err != PB_BUSY || i == 1000)
            return err;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

// Ends a line that a killed process left without its end.
static pb_err append(int fd, char *line, size_t n, const char *path)
{
    char last = '\n';
    off_t size = lseek(fd, 0, SEEK_END);
    if (size > 0 && pread(fd, &last, 1, size - 1) != 1)
        return pb_fail(PB_IO, NULL, "cannot read %s: %s", path, strerror(errno));
    if (last == '\n') {
        line++;
        n--;
    }
    if (write(fd, line, n) != (ssize_t)n || fsync(fd))
        return pb_fail(PB_IO, "is the disk full?", "cannot write %s: %s", path, strerror(errno));
    return PB_OK;
}

pb_err pb_sweep_note(const pb_sweep *s, json_t *event)
{
    char path[4096], now[32], host[256] = "";
    int fd = -1;
    pb_timestamp(now);
    gethostname(host, sizeof host - 1);
    json_object_set_new(event, "time", json_string(now));
    json_object_set_new(event, "host", json_string(host));
    json_object_set_new(event, "pid", json_integer(getpid()));
    char *text = json_dumps(event, JSON_COMPACT);
    size_t n = text ? strlen(text) : 0;
    char *line = malloc(n + 2);
    pb_err err = PB_OK;
    if (!text || !line)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for an event"));
    line[0] = '\n';
    memcpy(line + 1, text, n);
    line[n + 1] = '\n';
    PB_GO(pb_sweep_file(path, sizeof path, &s->plan, name, ".jsonl"));
    PB_GO(pb_make_dirs(s->out));
    PB_GO(lock(&fd, path));
    PB_GO(append(fd, line, n + 2, path));
done:
    if (fd >= 0)
        close(fd);
    free(text);
    free(line);
    json_decref(event);
    return err;
}

pb_err pb_sweep_history(const pb_sweep *s, json_t **out)
{
    char path[4096];
    pb_file f = {0};
    *out = json_array();
    PB_TRY(pb_sweep_file(path, sizeof path, &s->plan, name, ".jsonl"));
    if (!pb_exists(path))
        return PB_OK;
    PB_TRY(pb_file_map(&f, path));
    const char *text = (const char *)f.data, *end = text + f.size;
    for (const char *line = text; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((stop ? stop : end) - line);
        json_t *event = json_loadb(line, n, 0, NULL);
        if (event)
            json_array_append_new(*out, event);
        line += n + 1;
    }
    pb_file_unmap(&f);
    return PB_OK;
}

const json_t *pb_sweep_last(const json_t *history, const char *id)
{
    for (size_t i = json_array_size(history); i-- > 0;) {
        const json_t *e = json_array_get(history, i);
        const char *of = json_string_value(json_object_get(e, "run"));
        if (of && !strcmp(of, id))
            return e;
    }
    return NULL;
}

// What finished runs took, on average: those of the same stage and method, or else all of a kind.
typedef struct mean {
    double sum;
    size_t n;
} mean;

double pb_sweep_estimate(const pb_sweep *s, const json_t *history, const bool *missing)
{
    const pb_sweep_plan *p = &s->plan;
    double *took = malloc((p->n_runs + 1) * sizeof *took), total = 0; // NaN: not known
    mean all = {0};
    if (!took)
        return NAN;
    for (size_t i = 0; i < p->n_runs; i++) {
        const json_t *e = pb_sweep_last(history, p->run[i].id);
        const json_t *seconds = json_object_get(e, "seconds");
        const char *event = json_string_value(json_object_get(e, "event"));
        took[i] = event && !strcmp(event, "finish") ? json_number_value(seconds) : NAN;
        bool training = p->run[i].stage == PB_STAGE_TUNING || p->run[i].stage == PB_STAGE_TEST;
        if (training && !isnan(took[i]))
            all = (mean){all.sum + took[i], all.n + 1};
    }
    for (size_t i = 0; i < p->n_runs; i++) {
        const pb_sweep_run *r = &p->run[i];
        mean like = {0};
        if (!missing[i])
            continue;
        if (r->stage == PB_STAGE_LATENCY) { // its file says it
            total += json_number_value(json_object_get(r->config, "seconds"));
            continue;
        }
        for (size_t k = 0; k < p->n_runs; k++)
            if (!isnan(took[k]) && p->run[k].stage == r->stage &&
                !strcmp(p->run[k].label, r->label))
                like = (mean){like.sum + took[k], like.n + 1};
        if (!like.n)
            like = all;
        total += like.sum / (double)like.n; // NaN without any
    }
    free(took);
    return total;
}
