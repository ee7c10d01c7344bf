// The methods there are: those of the suite, and behind them those of plugins.
#include "model/compose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const pb_method *const pb_methods[]; // of the suite, NULL-terminated, made by the build

static struct {
    const pb_method **m;
    size_t n;
} added;

const pb_method *pb_method_at(size_t i)
{
    size_t n = 0;
    while (pb_methods[n])
        n++;
    return i < n ? pb_methods[i] : i - n < added.n ? added.m[i - n] : NULL;
}

static const pb_method *find(const char *name, size_t len)
{
    const pb_method *m;
    for (size_t i = 0; (m = pb_method_at(i)); i++)
        if (strlen(m->name) == len && !strncmp(m->name, name, len))
            return m;
    return NULL;
}

pb_err pb_method_register(const pb_method *m)
{
    if (find(m->name, strlen(m->name)))
        return pb_fail(PB_USAGE, "choose another name", "there is a method \"%s\" already",
                       m->name);
    const pb_method **more = realloc(added.m, (added.n + 1) * sizeof *more);
    if (!more)
        return pb_fail(PB_MEMORY, NULL, "no memory for a method");
    added.m = more;
    added.m[added.n++] = m;
    return PB_OK;
}

const pb_method *pb_method_find(const char *name)
{
    const pb_method *m = find(name, strlen(name));
    if (m)
        return m;
    if (strchr(name, '+'))
        return pb_compose(name);
    char hint[600] = "methods are";
    for (size_t i = 0; (m = pb_method_at(i)); i++) {
        size_t n = strlen(hint);
        snprintf(hint + n, sizeof hint - n, "%s %s", i ? "," : "", m->name);
    }
    (void)pb_fail(PB_USAGE, hint, "there is no method \"%s\"", name);
    return NULL;
}
