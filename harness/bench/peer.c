#include "bench/peer.h"

#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 900 }; // that a peer may take to answer

typedef struct peer {
    char name[96];
    pid_t pid;
    int in, out; // its input, its output
    char line[4096];
    size_t n; // bytes of `line` behind the current answer
} peer;

static void end(void *self)
{
    peer *p = self;
    if (p->in >= 0)
        close(p->in);
    if (p->out >= 0)
        close(p->out);
    if (p->pid > 0) {
        kill(p->pid, SIGTERM);
        waitpid(p->pid, NULL, 0);
    }
    free(p);
}

// Our environment, but a setting of OpenMP that suits us alone: peers run by their own defaults.
// Released with free.
static char **environment(void)
{
    extern char **environ;
    static const char ours[] = "GOMP_SPINCOUNT=";
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **out = calloc(n + 1, sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        if (!getenv(PB_SPINCOUNT_OURS) || strncmp(environ[i], ours, sizeof ours - 1))
            out[kept++] = environ[i];
    return out;
}

static pb_err start(peer *p, char *const *argv)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    posix_spawn_file_actions_t act;
    char **env = environment();
    if (!env)
        return pb_fail(PB_MEMORY, NULL, "no memory to start %s", p->name);
    if (pipe(to) || pipe(from)) {
        free(env);
        return pb_fail(PB_IO, NULL, "%s: no pipe: %s", p->name, strerror(errno));
    }
    posix_spawn_file_actions_init(&act);
    posix_spawn_file_actions_adddup2(&act, to[0], 0);
    posix_spawn_file_actions_adddup2(&act, from[1], 1);
    for (int i = 0; i < 2; i++) {
        posix_spawn_file_actions_addclose(&act, to[i]);
        posix_spawn_file_actions_addclose(&act, from[i]);
    }
    int failed = posix_spawnp(&p->pid, argv[0], &act, NULL, argv, env);
    free(env);
    posix_spawn_file_actions_destroy(&act);
    close(to[0]);
    close(from[1]);
    p->in = to[1];
    p->out = from[0];
    if (!failed)
        return PB_OK;
    p->pid = 0;
    return pb_fail(PB_IO, NULL, "cannot start %s: %s", argv[0], strerror(failed));
}

static pb_err say(const peer *p, const json_t *what)
{
    char *text = json_dumps(what, JSON_COMPACT);
    if (!text)
        return pb_fail(PB_MEMORY, NULL, "no memory to ask %s", p->name);
    size_t len = strlen(text);
    text[len] = '\n'; // in place of the terminator
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    ssize_t n = write(p->in, text, len + 1);
    signal(SIGPIPE, before);
    free(text);
    return n == (ssize_t)len + 1 ? PB_OK : pb_fail(PB_IO, NULL, "%s has ended early", p->name);
}

// The next line of its output that is a JSON object: libraries print other things too.
static pb_err hear(peer *p, json_t **out)
{
    for (;;) {
        char *eol = memchr(p->line, '\n', p->n);
        if (eol) {
            size_t len = (size_t)(eol - p->line);
            *out = json_loadb(p->line, len, 0, NULL);
            p->n -= len + 1;
            memmove(p->line, eol + 1, p->n);
            if (json_is_object(*out))
                return PB_OK;
            json_decref(*out);
            *out = NULL;
            continue;
        }
        if (p->n == sizeof p->line)
            p->n = 0; // noise
        struct pollfd f = {.fd = p->out, .events = POLLIN};
        int ready = poll(&f, 1, SECONDS * 1000);
        if (ready < 0 && errno == EINTR) {
            if (pb_interrupted())
                return pb_fail(PB_INTERRUPTED, NULL, "interrupted");
            continue;
        }
        if (ready == 0)
            return pb_fail(PB_IO, NULL, "%s gave no answer for %d s", p->name, SECONDS);
        ssize_t n = read(p->out, p->line + p->n, sizeof p->line - p->n);
        if (n <= 0)
            return pb_fail(PB_IO, "its own message is above", "%s has ended early", p->name);
        p->n += (size_t)n;
    }
}

static pb_err sample(void *self, bool warm, size_t runs, double *seconds)
{
    peer *p = self;
    json_t *ask = json_pack("{s:b, s:I}", "warm", warm, "runs", (json_int_t)runs), *answer = NULL;
    pb_err err = ask ? say(p, ask) : pb_fail(PB_MEMORY, NULL, "no memory to ask %s", p->name);
    json_decref(ask);
    PB_TRY(err);
    PB_TRY(hear(p, &answer));
    *seconds = json_number_value(json_object_get(answer, "seconds"));
    json_decref(answer);
    return *seconds > 0 ? PB_OK : pb_fail(PB_INPUT, NULL, "%s answered without seconds", p->name);
}

pb_err pb_peer_arm(pb_arm **out, pb_work *w, const char *name, char *const *argv,
                   const json_t *request, char **absent)
{
    pb_err err = PB_OK;
    json_t *answer = NULL;
    *out = NULL;
    *absent = NULL;
    peer *p = calloc(1, sizeof *p);
    if (!p)
        return pb_fail(PB_MEMORY, NULL, "no memory for a peer");
    p->in = p->out = -1;
    snprintf(p->name, sizeof p->name, "%s", name);
    PB_GO(start(p, argv));
    PB_GO(say(p, request));
    PB_GO(hear(p, &answer));
    const char *ready = json_string_value(json_object_get(answer, "ready"));
    const char *why = json_string_value(json_object_get(answer, "absent"));
    if (ready) {
        pb_arm *a = *out = pb_work_arm(w, PB_ARM_PEER, name);
        a->self = p;
        a->sample = sample;
        a->release = end;
        a->flops = json_number_value(json_object_get(answer, "flops"));
        snprintf(a->note, sizeof a->note, "%s", ready);
        p = NULL;
    } else {
        *absent = strdup(why ? why : "it did not say why");
    }
done:
    json_decref(answer);
    if (p)
        end(p);
    return err;
}

pb_err pb_peer_folder_make(char *out, size_t size)
{
    const char *tmp = getenv("TMPDIR");
    PB_TRY(pb_path(out, size, "%s/pedrobench-peers-XXXXXX", tmp && *tmp ? tmp : "/tmp"));
    if (!mkdtemp(out))
        return pb_fail(PB_IO, "TMPDIR may name another folder", "cannot make %s: %s", out,
                       strerror(errno));
    return setenv("PB_PEER_FOLDER", out, 1) ? pb_fail(PB_MEMORY, NULL, "no memory for %s", out)
                                            : PB_OK;
}

void pb_peer_folder_remove(const char *folder)
{
    if (pb_remove_folder(folder))
        pb_warn("%s", pb_error_message());
}
