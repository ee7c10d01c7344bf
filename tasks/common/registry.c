// The tasks there are: those the build found, those of plugins, descriptions of the tasks folder,
// and descriptions given by their path.
#include "tasks/common/describe.h"

#include "core/file.h"

#include <dirent.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PB_SOURCE_DIR
#define PB_SOURCE_DIR "."
#endif

static struct { // of plugins
    const pb_task **t;
    size_t n;
} added;

const pb_task *pb_task_at(size_t i)
{
    size_t n = 0;
    while (pb_tasks[n])
        n++;
    return i < n ? pb_tasks[i] : i - n < added.n ? added.t[i - n] : NULL;
}

// Of those that are no descriptions.
static const pb_task *in_c(const char *name)
{
    const pb_task *t;
    for (size_t i = 0; (t = pb_task_at(i)); i++)
        if (!strcmp(t->name, name))
            return t;
    return NULL;
}

pb_err pb_task_register(const pb_task *t)
{
    if (pb_task_find(t->name))
        return pb_fail(PB_USAGE, "choose another name", "there is a task \"%s\" already", t->name);
    const pb_task **more = realloc(added.t, (added.n + 1) * sizeof *more);
    if (!more)
        return pb_fail(PB_MEMORY, NULL, "no memory for a task");
    added.t = more;
    added.t[added.n++] = t;
    return PB_OK;
}

// Descriptions that were opened; they live as long as the program.
static struct {
    const pb_task **task;
    char **path;
    size_t n;
} opened;

static pb_err folder_of_tasks(char *out, size_t size)
{
    return pb_shared_folder(out, size, "PB_TASKS", PB_SOURCE_DIR "/tasks", "tasks");
}

static pb_err keep(const pb_task *t, const char *path)
{
    const pb_task **task = realloc(opened.task, (opened.n + 1) * sizeof *task);
    opened.task = task ? task : opened.task;
    char **paths = realloc(opened.path, (opened.n + 1) * sizeof *paths);
    opened.path = paths ? paths : opened.path;
    char *own = strdup(path);
    if (!task || !paths || !own) {
        free(own);
        return pb_fail(PB_MEMORY, NULL, "no memory for a task");
    }
    opened.task[opened.n] = t;
    opened.path[opened.n++] = own;
    return PB_OK;
}

// A task's name becomes part of file names and of groups in result files.
static pb_err name_of(char *out, size_t size, const char *path)
{
    const char *last = strrchr(path, '/');
    last = last ? last + 1 : path;
    size_t n = strlen(last);
    n -= n > 5 && !strcmp(last + n - 5, ".json") ? 5 : 0;
    PB_TRY(pb_path(out, size, "%.*s", (int)n, last));
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (!*out || out[strspn(out, allowed)])
        return pb_fail(PB_INPUT, "use letters, digits, _ and - in the file's name",
                       "\"%s\" cannot be a task's name", out);
    if (in_c(out))
        return pb_fail(PB_INPUT, "give the file another name", "there is a task \"%s\" already",
                       out);
    return PB_OK;
}

static pb_err open_file(const pb_task **out, const char *path)
{
    for (size_t i = 0; i < opened.n; i++)
        if (!strcmp(opened.path[i], path)) {
            *out = opened.task[i];
            return PB_OK;
        }
    char name[128], folder[4096];
    pb_file f;
    pb_task *t;
    PB_TRY(name_of(name, sizeof name, path));
    PB_TRY(pb_path(folder, sizeof folder, "%s", path));
    PB_TRY(pb_file_map(&f, path));
    pb_err err = pb_describe(&t, (const char *)f.data, f.size, name, dirname(folder));
    pb_file_unmap(&f);
    if (err)
        return pb_context(err, "%s", path);
    err = keep(t, path);
    if (err)
        pb_describe_free(t);
    *out = err ? NULL : t;
    return err;
}

static pb_err unknown_task(const char *name)
{
    char list[600] = "known tasks:", *all[512];
    size_t n;
    if (!pb_task_names(all, sizeof all / sizeof *all, &n)) {
        for (size_t i = 0; i < n; i++) {
            size_t at = strlen(list);
            snprintf(list + at, sizeof list - at, "%s %s", i ? "," : "", all[i]);
            free(all[i]);
        }
    }
    return pb_fail(PB_USAGE, list, "unknown task \"%s\"", name);
}

pb_err pb_task_open(const pb_task **out, const char *name)
{
    char folder[4000], path[4096];
    size_t n = strlen(name);
    *out = in_c(name);
    if (*out)
        return PB_OK;
    if (strchr(name, '/') || (n > 5 && !strcmp(name + n - 5, ".json")))
        return open_file(out, name);
    if (!folder_of_tasks(folder, sizeof folder)) {
        PB_TRY(pb_path(path, sizeof path, "%s/%s.json", folder, name));
        if (*name && pb_exists(path))
            return open_file(out, path);
    }
    return unknown_task(name);
}

const pb_task *pb_task_find(const char *name)
{
    const pb_task *t;
    return pb_task_open(&t, name) ? NULL : t;
}

bool pb_task_found(const pb_task *t, const char *data)
{
    char path[4096];
    if (t->needs_data && !data)
        return false;
    if (t->description)
        return pb_described_found(t, data);
    return !t->needs_data || !t->folder ||
           (!pb_path(path, sizeof path, "%s/%s", data, t->folder) && pb_is_dir(path));
}

static int is_description(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return *e->d_name != '.' && n > 5 && !strcmp(e->d_name + n - 5, ".json");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

pb_err pb_task_names(char **out, size_t cap, size_t *n)
{
    char folder[4096];
    struct dirent **files = NULL;
    int found = 0;
    *n = 0;
    for (const pb_task *t; (t = pb_task_at(*n)) && *n < cap;)
        out[(*n)++] = strdup(t->name);
    if (!folder_of_tasks(folder, sizeof folder))
        found = scandir(folder, &files, is_description, alphasort);
    for (int i = 0; i < found; i++) {
        if (*n < cap)
            out[(*n)++] = strndup(files[i]->d_name, strlen(files[i]->d_name) - 5);
        free(files[i]);
    }
    free(files);
    for (size_t i = 0; i < *n; i++)
        if (!out[i])
            return pb_fail(PB_MEMORY, NULL, "no memory for the names of tasks");
    qsort(out, *n, sizeof *out, by_name);
    return PB_OK;
}
