#include "results/env.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/threads.h"
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PB_VERSION
#define PB_VERSION "unknown"
#endif

extern char **environ;

// The first value of "key : value" or key="value" lines; false when there is none.
static bool value_of(char *out, size_t size, const char *path, const char *key, char mark)
{
    FILE *f = fopen(path, "r");
    char line[1024];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *v = strchr(line, mark);
        if (!v || strncmp(line, key, strlen(key)))
            continue;
        v += 1 + strspn(v + 1, " \t\"");
        v[strcspn(v, "\"\n")] = 0;
        snprintf(out, size, "%s", v);
        found = true;
    }
    if (f)
        fclose(f);
    return found;
}

#ifdef PB_SOURCE_DIR
// The standard output of a git command about the source folder; false when git or the repository is
// not there.
static bool git(char *out, size_t size, char *const argv[])
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return false;
    posix_spawn_file_actions_t io;
    posix_spawn_file_actions_init(&io);
    posix_spawn_file_actions_adddup2(&io, fd[1], 1);
    posix_spawn_file_actions_addopen(&io, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&io, 2, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    bool ok = posix_spawnp(&pid, "git", &io, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&io);
    close(fd[1]);
    size_t n = 0;
    ssize_t got;
    char rest[4096];
    while (ok && (got = read(fd[0], rest, sizeof rest)) > 0)
        for (ssize_t i = 0; i < got && n + 1 < size; i++)
            out[n++] = rest[i];
    out[n] = 0;
    close(fd[0]);
    int status = 1;
    return ok && waitpid(pid, &status, 0) == pid && status == 0;
}
#endif

// The commit of the source folder now. The binary's own hash stands beside it, since a binary may
// be older than the folder.
static void commit_of(char *commit, size_t size, char *dirty, size_t dirty_size)
{
    snprintf(commit, size, "unknown");
    snprintf(dirty, dirty_size, "unknown");
#ifdef PB_SOURCE_DIR
    char head[128], changes[256];
    char *const rev[] = {"git", "-C", PB_SOURCE_DIR, "rev-parse", "HEAD", NULL};
    char *const status[] = {"git",    "-C",          PB_SOURCE_DIR, "--no-optional-locks",
                            "status", "--porcelain", NULL};
    if (!git(head, sizeof head, rev))
        return;
    head[strcspn(head, "\n")] = 0;
    snprintf(commit, size, "%s", head);
    if (git(changes, sizeof changes, status))
        snprintf(dirty, dirty_size, "%s", *changes ? "yes" : "no");
#endif
}

pb_err pb_env_collect(json_t **out, const json_t *extra)
{
    char cpu[256] = "unknown", os[256] = "unknown", commit[128], dirty[16];
    char hash[PB_HASH_LEN] = "unknown";
    value_of(cpu, sizeof cpu, "/proc/cpuinfo", "model name", ':');
    value_of(os, sizeof os, "/etc/os-release", "PRETTY_NAME", '=');
    commit_of(commit, sizeof commit, dirty, sizeof dirty);
    pb_sha256_file(hash, "/proc/self/exe"); // stays "unknown" where there is no /proc
    struct utsname u = {0};
    uname(&u);
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? -1 : CPU_COUNT(&set);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    char compiler[256];
#ifdef __clang__
    snprintf(compiler, sizeof compiler, "%s", __VERSION__);
#else
    snprintf(compiler, sizeof compiler, "gcc %s", __VERSION__);
#endif
    *out = json_pack("{s:s, s:i, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "cpu",
                     cpu, "processors", n, "threads", pb_threads(), "memory_bytes",
                     (json_int_t)(pages > 0 && page > 0 ? (json_int_t)pages * page : -1), "os", os,
                     "kernel", u.release, "machine", u.machine, "compiler", compiler, "software",
                     "pedrobench", "version", PB_VERSION, "commit", commit, "dirty", dirty,
                     "binary_sha256", hash);
    if (!*out)
        return pb_fail(PB_MEMORY, NULL, "cannot describe the environment");
    if (extra && json_object_update(*out, (json_t *)extra)) {
        json_decref(*out);
        *out = NULL;
        return pb_fail(PB_INTERNAL, NULL, "the caller's environment is not a JSON object");
    }
    return PB_OK;
}
