#include "results/load.h"

#include "core/file.h"
#include "results/h5.h"
#include "results/run.h"
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// `to` as seen from the folder `from`; both absolute and without "." and "..".
static pb_err relative(char *out, size_t size, const char *from, const char *to)
{
    size_t same = 0; // length of the common folders, up to a slash
    for (size_t i = 0;; i++) {
        bool end_from = !from[i] || from[i] == '/', end_to = !to[i] || to[i] == '/';
        if (end_from && end_to)
            same = i;
        if (!from[i] || from[i] != to[i])
            break;
    }
    char up[4096] = "";
    size_t n = 0;
    for (const char *s = from + same; *s; s++)
        if (*s == '/' && s[1]) {
            if (n + 4 > sizeof up)
                return pb_fail(PB_INPUT, NULL, "the path %s is too deep", from);
            memcpy(up + n, "../", 4);
            n += 3;
        }
    return pb_path(out, size, "%s%s", up, to + same + strspn(to + same, "/"));
}

pb_err pb_results_merge(const char *out_h5, const char *const *paths, size_t n)
{
    pb_err err = PB_OK;
    pb_records all;
    hid_t f = -1, g = -1;
    char copy[4096], *folder = NULL, *target = NULL;
    // Loading checks every file: a link to a damaged one would only fail at its reader.
    PB_TRY(pb_records_load(&all, paths, n));
    PB_GO(pb_path(copy, sizeof copy, "%s", out_h5));
    const char *parent = dirname(copy);
    PB_GO(pb_make_dirs(parent));
    if (!(folder = realpath(parent, NULL)))
        PB_GO(pb_fail(PB_IO, NULL, "cannot find %s: %s", parent, strerror(errno)));
    PB_GO(pb_h5_new(&f));
    PB_GO(pb_h5_put_str(f, "schema", "pedrobench-merged"));
    PB_GO(pb_h5_put_int(f, "schema_version", 1));
    PB_GO(pb_h5_put_int(f, "runs", (int64_t)all.n));
    PB_GO(pb_h5_group(&g, f, "runs"));
    for (size_t i = 0; i < all.n; i++) {
        const pb_record *r = &all.v[i];
        char link[4096];
        if (pb_h5_has(g, r->run_id))
            PB_GO(pb_fail(PB_INPUT, "a copy of a run adds nothing", "%s is a second file of run %s",
                          r->path, r->run_id));
        free(target);
        if (!(target = realpath(r->path, NULL)))
            PB_GO(pb_fail(PB_IO, NULL, "cannot find %s: %s", r->path, strerror(errno)));
        PB_GO(relative(link, sizeof link, folder, target));
        if (H5Lcreate_external(link, "/", g, r->run_id, H5P_DEFAULT, H5P_DEFAULT) < 0)
            PB_GO(pb_h5_fail("link", r->path));
    }
    PB_GO(pb_h5_save(f, out_h5, "pedrobench-merged", 1));
done:
    if (g >= 0)
        H5Gclose(g);
    if (f >= 0)
        H5Fclose(f);
    free(folder);
    free(target);
    pb_records_free(&all);
    return err;
}
