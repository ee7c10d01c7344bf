#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static pb_err io(const char *what, const char *path)
{
    int e = errno;
    const char *hint = e == ENOENT   ? "check the path"
                       : e == ENOSPC ? "free some disk space; nothing was overwritten"
                                     : NULL;
    return pb_fail(PB_IO, hint, "cannot %s %s: %s", what, path, strerror(e));
}

pb_err pb_file_map(pb_file *f, const char *path)
{
    *f = (pb_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return io("open", path);
    pb_err err = PB_OK;
    struct stat st;
    if (fstat(fd, &st)) {
        err = io("inspect", path);
    } else if (!S_ISREG(st.st_mode)) {
        err = pb_fail(PB_INPUT, NULL, "%s is not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            err = io("map", path);
        else
            *f = (pb_file){p, (size_t)st.st_size};
    }
    close(fd);
    return err;
}

void pb_file_unmap(pb_file *f)
{
    if (f->data)
        munmap((void *)f->data, f->size);
    *f = (pb_file){0};
}

static pb_err sync_folder_of(const char *path)
{
    char copy[4096];
    PB_TRY(pb_path(copy, sizeof copy, "%s", path));
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io("open the folder of", path);
    int bad = fsync(fd);
    close(fd);
    return bad ? io("sync the folder of", path) : PB_OK;
}

pb_err pb_file_publish(const char *tmp, const char *path)
{
    int fd = open(tmp, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return io("open", tmp);
    int bad = fsync(fd);
    close(fd);
    if (bad)
        return io("sync", tmp);
    if (rename(tmp, path))
        return io("rename a temporary file to", path);
    return sync_folder_of(path);
}

pb_err pb_writer_open(pb_writer *w, const char *path)
{
    *w = (pb_writer){0};
    PB_TRY(pb_path(w->path, sizeof w->path, "%s", path));
    PB_TRY(pb_path(w->tmp, sizeof w->tmp, "%s.tmp", path));
    w->stream = fopen(w->tmp, "wb");
    return w->stream ? PB_OK : io("create", w->tmp);
}

pb_err pb_writer_commit(pb_writer *w)
{
    bool bad = fflush(w->stream) || ferror(w->stream);
    pb_err err = bad ? io("write", w->tmp) : PB_OK;
    if (fclose(w->stream) && !err)
        err = io("write", w->tmp);
    w->stream = NULL;
    if (!err)
        err = pb_file_publish(w->tmp, w->path);
    if (err)
        unlink(w->tmp);
    return err;
}

void pb_writer_abandon(pb_writer *w)
{
    if (w->stream) {
        fclose(w->stream);
        unlink(w->tmp);
    }
    w->stream = NULL;
}

pb_err pb_file_write(const char *path, const void *data, size_t size)
{
    pb_writer w;
    PB_TRY(pb_writer_open(&w, path));
    if (size && fwrite(data, 1, size, w.stream) != size) {
        pb_err err = io("write", w.tmp);
        pb_writer_abandon(&w);
        return err;
    }
    return pb_writer_commit(&w);
}

pb_err pb_file_lock(int *fd, const char *path)
{
    // An owner may have removed the file meanwhile, and what was locked is no longer what is named.
    for (int i = 0; i < 100; i++) {
        struct stat a, b;
        *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (*fd < 0)
            return io("open", path);
        pb_err err = PB_OK;
        if (flock(*fd, LOCK_EX | LOCK_NB))
            err = errno == EWOULDBLOCK ? pb_fail(PB_BUSY, "wait for it, or choose another output",
                                                 "another process is writing %s", path)
                                       : io("lock", path);
        if (!err && !fstat(*fd, &a) && !stat(path, &b) && a.st_ino == b.st_ino &&
            a.st_dev == b.st_dev)
            return PB_OK;
        close(*fd);
        *fd = -1;
        PB_TRY(err);
    }
    return pb_fail(PB_IO, NULL, "%s keeps changing", path);
}

bool pb_file_is_locked(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool locked = flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return locked;
}

pb_err pb_make_dirs(const char *path)
{
    char p[4096];
    PB_TRY(pb_path(p, sizeof p, "%s", path));
    for (char *s = p + 1;; s++) {
        if (*s && *s != '/')
            continue;
        char keep = *s;
        *s = 0;
        if (mkdir(p, 0777) && errno != EEXIST)
            return io("create the folder", p);
        if (!keep)
            break;
        *s = keep;
    }
    return pb_is_dir(path) ? PB_OK : pb_fail(PB_IO, NULL, "%s exists and is not a folder", path);
}

bool pb_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool pb_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

pb_err pb_path(char *out, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size)
        return pb_fail(PB_INPUT, "use a shorter path", "a path of %d bytes is too long (limit %zu)",
                       n, size - 1);
    return PB_OK;
}

pb_err pb_shared_folder(char *out, size_t size, const char *env, const char *source,
                        const char *name)
{
    char self[4096];
    const char *named = getenv(env);
    if (named) {
        PB_TRY(pb_path(out, size, "%s", named));
    } else if (source && pb_is_dir(source)) {
        PB_TRY(pb_path(out, size, "%s", source));
    } else {
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        PB_TRY(pb_path(out, size, "%s/../share/pedrobench/%s", n > 0 ? dirname(self) : ".", name));
    }
    char hint[128];
    snprintf(hint, sizeof hint, "set %s to where they are", env);
    return pb_is_dir(out) ? PB_OK : pb_fail(PB_IO, hint, "the %s are not in %s", name, out);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

pb_err pb_remove_folder(const char *path)
{
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) ? io("remove", path) : PB_OK;
}
