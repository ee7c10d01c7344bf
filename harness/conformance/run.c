// Runs the checks, in child processes: what a method prints, and how it dies, is a finding.
#include "conformance/internal.h"

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECKS(X)                                                                                  \
    X(table, "table", "name, options, hooks that belong together, rates")                          \
    X(identity, "identity at the start", "a fresh adapter leaves the output as it is, bit by bit") \
    X(acts, "parameters matter", "random parameters change the output")                            \
    X(recorded, "recording == inference", "the pass that is trained is the one that is served")    \
    X(gradient, "gradient", "gradients agree with differences; every parameter has one")           \
    X(again, "recomputation", "activations made again for the backward pass, bit by bit")          \
    X(memory, "hooks allocate nothing", "twenty steps keep no memory")                             \
    X(decode, "cached decoding == full forward", "whatever the prompt, cut and not, bit by bit")   \
    X(mixed, "mixed batch == alone", "in one batch with all other methods, bit by bit")            \
    X(threads, "any number of threads", "losses, gradients and updates, bit by bit")               \
    X(causality, "causality", "a later token changes no earlier row")                              \
    X(text, "text as prefix", "a prefix made of a text is like that text in front")                \
    X(merge, "merge", "merged computes the same, or is refused by name")                           \
    X(fold, "fold", "the folded form computes the same")                                           \
    X(files, "files", "saved and loaded, the same bits; the file has what the layout says")        \
    X(knob, "knob", "a larger knob means more parameters")                                         \
    X(learns, "learns", "50 steps lower the loss")                                                 \
    X(resume, "exact resume", "from a checkpoint on, the same bits")                               \
    X(other_work, "checkpoint of other work", "is not continued")                                  \
    X(bilevel, "second level", "moves in its own steps, at its own rate")

#define ROW(id, name, what) {name, what, check_##id},
const check pb_checks[] = {CHECKS(ROW)};
const size_t pb_n_checks = sizeof pb_checks / sizeof *pb_checks;
#define PAIR(id, name, what) {name, what},
const char *const pb_conformance_checks[][2] = {CHECKS(PAIR){NULL, NULL}};

// In double, those that compare numbers: bits are compared in float, as in use.
static bool applies(const check *k)
{
    return !IS_DOUBLE || k->run == check_gradient || k->run == check_text ||
           k->run == check_merge || k->run == check_fold;
}

typedef struct point {
    size_t subject, tiny, check;
} point;

typedef struct result { // what a child tells; small enough to be written at once
    size_t number;
    pb_verdict verdict;
    double seconds;
    char why[600], hint[300];
} result;

static pb_err open_all(conf *c, const pb_subjects *list)
{
    const char *tmp = getenv("TMPDIR");
    c->list = list;
    PB_TRY(
        pb_path(c->folder, sizeof c->folder, "%s/pedrobench-XXXXXX", tmp && *tmp ? tmp : "/tmp"));
    if (!mkdtemp(c->folder)) {
        int why = errno;
        char name[sizeof c->folder];
        strcpy(name, c->folder);
        *c->folder = 0;
        return pb_fail(PB_IO, "set TMPDIR", "cannot make the folder %s: %s", name, strerror(why));
    }
    PB_TRY(pb_threads_set(1));
    for (size_t t = 0; t < PB_N_TINIES; t++)
        PB_TRY(pb_tiny_open(&c->backbone[t], c->folder, t, &(pb_model_args){0}));
    return PB_OK;
}

static void close_all(conf *c, bool files)
{
    conf_release(c);
    conf_mixed_free(c);
    for (size_t t = 0; t < PB_N_TINIES; t++)
        pb_model_close(c->backbone[t]);
    if (files && *c->folder)
        (void)pb_remove_folder(c->folder);
}

// Methods whose merge passed somewhere: one that refuses everywhere must not claim that it can.
static bool merges(const pb_subjects *list, const bool *merged, const pb_method *m)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->s[i].m == m && merged[i])
            return true;
    return false;
}

static result run_one(conf *c, const point *p, size_t number)
{
    double start = pb_now();
    result r = {.number = number};
    *c->skipped = *c->note = 0;
    pb_err err = pb_checks[p->check].run(c, &c->list->s[p->subject], p->tiny);
    if (err) {
        r.verdict = PB_FAILED;
        snprintf(r.why, sizeof r.why, "%s", pb_error_message());
        snprintf(r.hint, sizeof r.hint, "%s", pb_error_hint());
    } else if (*c->skipped) {
        r.verdict = PB_SKIPPED;
        snprintf(r.why, sizeof r.why, "%s", c->skipped);
    } else {
        snprintf(r.why, sizeof r.why, "%s", c->note);
    }
    conf_release(c);
    r.seconds = pb_now() - start;
    return r;
}

typedef struct teller {
    const pb_conformance_args *args;
    const pb_subjects *list;
    bool *merged; // subjects that merged
} teller;

static void tell(const teller *t, const point *p, const result *r)
{
    const pb_conformance_args *args = t->args;
    const pb_subjects *list = t->list;
    if (pb_checks[p->check].run == check_merge && r->verdict == PB_PASSED)
        t->merged[p->subject] = true;
    const pb_subject *s = &list->s[p->subject];
    pb_finding f = {.subject = s,
                    .backbone = pb_tinies[p->tiny].name,
                    .check = pb_checks[p->check].name,
                    .verdict = r->verdict,
                    .seconds = r->seconds};
    snprintf(f.name, sizeof f.name, "%s%s%s, %s: %s", s->m->name, *s->options ? " " : "",
             s->options, f.backbone, f.check);
    memcpy(f.why, r->why, sizeof f.why);
    memcpy(f.hint, r->hint, sizeof f.hint);
    args->found(args->self, &f);
}

// ---------------------------------------------------------------- a child

// What was printed since the last call, as one line, without the harness's own warnings.
static size_t printed(int fd, off_t *from, char *out, size_t size)
{
    fflush(stdout);
    fflush(stderr);
    off_t end = lseek(fd, 0, SEEK_END);
    ssize_t n = end > *from ? pread(fd, out, size - 1, *from) : 0;
    n = n < 0 ? 0 : n;
    out[n] = 0;
    *from = end;
    while (!strncmp(out, "warning: ", 9)) {
        const char *line = strchr(out, '\n');
        memmove(out, line ? line + 1 : "", line ? strlen(line) : 1);
    }
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    return strlen(out);
}

static void child(conf *c, const point *points, size_t from, size_t n, int pipe, int log)
{
    off_t seen = lseek(log, 0, SEEK_END);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    pb_log_quiet(true);
    for (size_t i = from; i < n; i++) {
        char text[1000];
        alarm(600); // a hook that never returns
        result r = run_one(c, &points[i], i);
        if (printed(log, &seen, text, sizeof text) && r.verdict != PB_FAILED) {
            r.verdict = PB_FAILED;
            snprintf(r.why, sizeof r.why, "it prints: %.500s", text);
            snprintf(r.hint, sizeof r.hint,
                     "hooks print nothing; set-up functions fail with pb_fail");
        }
        if (write(pipe, &r, sizeof r) != (ssize_t)sizeof r)
            _exit(2);
    }
    alarm(0);
    close_all(c, false);
    exit(0); // so that a leak checker runs
}

static void died(result *r, int status, int log, off_t *seen)
{
    char text[1000];
    r->verdict = PB_FAILED;
    bool any = printed(log, seen, text, sizeof text);
    if (WIFSIGNALED(status))
        snprintf(r->why, sizeof r->why, "it crashes: %s%s%.500s", strsignal(WTERMSIG(status)),
                 any ? ": " : "", text);
    else
        snprintf(r->why, sizeof r->why, "it ends the program with code %d%s%.500s",
                 WEXITSTATUS(status), any ? ": " : "", text);
    snprintf(r->hint, sizeof r->hint,
             "a set-up step only counts: values are not there yet, so hooks must not read or write "
             "them; is a matrix that pb_own or pb_state returned NULL? --here runs under a "
             "debugger");
}

static pb_err run_children(conf *c, const point *points, size_t n, const teller *to)
{
    pb_err err = PB_OK;
    FILE *file = tmpfile();
    int log = file ? fileno(file) : -1;
    off_t seen = 0;
    if (log < 0)
        return pb_fail(PB_IO, "set TMPDIR", "cannot make a temporary file: %s", strerror(errno));
    for (size_t next = 0; next < n && !err;) {
        int ends[2], status;
        result r;
        if (pipe(ends))
            PB_GO(pb_fail(PB_IO, NULL, "cannot make a pipe: %s", strerror(errno)));
        fflush(stdout);
        fflush(stderr);
        pid_t pid = fork();
        if (pid < 0) {
            close(ends[0]);
            close(ends[1]);
            PB_GO(pb_fail(PB_IO, NULL, "cannot start a process: %s", strerror(errno)));
        }
        if (!pid) {
            close(ends[0]);
            child(c, points, next, n, ends[1], log);
        }
        close(ends[1]);
        while (read(ends[0], &r, sizeof r) == (ssize_t)sizeof r) {
            tell(to, &points[r.number], &r);
            next = r.number + 1;
        }
        close(ends[0]);
        waitpid(pid, &status, 0);
        if (pb_interrupted())
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted");
        else if (status) { // at a check, or behind the last one
            r = (result){.number = next};
            died(&r, status, log, &seen);
            tell(to, &points[next < n ? next : n - 1], &r);
            next++;
        }
        seen = lseek(log, 0, SEEK_END);
    }
done:
    fclose(file);
    return err;
}

pb_err pb_conformance_run(const pb_subjects *list, const pb_conformance_args *args)
{
    pb_err err = PB_OK;
    conf c = {0};
    point *points = calloc(list->n * PB_N_TINIES * pb_n_checks + 1, sizeof *points);
    teller to = {args, list, calloc(list->n + 1, sizeof(bool))};
    size_t n = 0;
    if (!points || !to.merged)
        return pb_fail(PB_MEMORY, NULL, "no memory for the checks");
    for (size_t i = 0; i < list->n; i++)
        for (size_t t = 0; t < PB_N_TINIES; t++)
            for (size_t k = 0; k < pb_n_checks; k++) {
                const pb_subject *s = &list->s[i];
                char name[240];
                // Single settings on one backbone each; threads need the wide one.
                bool wide = pb_checks[k].run == check_threads;
                if (!applies(&pb_checks[k]))
                    continue;
                if (!s->widely && t != (wide ? 1 : i % PB_N_TINIES))
                    continue;
                snprintf(name, sizeof name, "%s%s%s, %s: %s", s->m->name, *s->options ? " " : "",
                         s->options, pb_tinies[t].name, pb_checks[k].name);
                if (!args->only || strstr(name, args->only))
                    points[n++] = (point){i, t, k};
            }
    PB_GO(open_all(&c, list));
    if (!args->here) {
        PB_GO(run_children(&c, points, n, &to));
    } else {
        for (size_t i = 0; i < n; i++) {
            result r = run_one(&c, &points[i], i);
            tell(&to, &points[i], &r);
        }
    }
    for (size_t i = 0; i < n && !args->only; i++) {
        const pb_subject *sub = &list->s[points[i].subject];
        result r = {.verdict = PB_FAILED,
                    .why = "it has `merge`, and refuses to be merged everywhere",
                    .hint = "leave .merge out"};
        bool first = !*sub->options && points[i].tiny == 0; // one finding per method
        if (first && pb_checks[points[i].check].run == check_merge && sub->m->merge &&
            !merges(list, to.merged, sub->m))
            tell(&to, &points[i], &r);
    }
done:
    close_all(&c, true);
    free(points);
    free(to.merged);
    return err;
}
