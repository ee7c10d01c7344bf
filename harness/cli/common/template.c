#include "cli/common/template.h"

#include "cli/common/common.h"
#include "core/file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_TREE = 500 };

const struct argp_option pb_new_options[] = {
    {"out-of-tree", OUT_OF_TREE, NULL, 0,
     "Write a folder of its own, for `pedrobench --plugin`, instead of a file of the source tree",
     0},
    {0}};

error_t pb_new_parse(int key, char *arg, struct argp_state *state)
{
    pb_new_args *a = state->input;
    switch (key) {
    case OUT_OF_TREE:
        a->out_of_tree = true;
        break;
    case ARGP_KEY_ARG:
        if (a->name)
            argp_error(state, "one name at a time");
        a->name = arg;
        break;
    case ARGP_KEY_END:
        if (!a->name)
            argp_error(state, "a name is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

pb_err pb_new_name(const char *name, const char *what)
{
    bool fine = islower((unsigned char)*name) && strlen(name) <= 40;
    for (const char *p = name; *p; p++)
        fine &= islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '_';
    return fine ? PB_OK
                : pb_fail(PB_USAGE, "lower-case letters, digits and _, as in my_method",
                          "\"%s\" cannot be the name of a %s", name, what);
}

static bool in_word(char c)
{
    return isalnum((unsigned char)c);
}

pb_err pb_from_template(const char *template, const char *name, const char *path)
{
    static const char mark[] = "NAME";
    char folder[4096], file[4200];
    const char *source = NULL;
    pb_file f;
#ifdef PB_SOURCE_DIR
    source = PB_SOURCE_DIR "/harness/cli/templates";
#endif
    PB_TRY(pb_shared_folder(folder, sizeof folder, "PB_TEMPLATES", source, "templates"));
    PB_TRY(pb_path(file, sizeof file, "%s/%s", folder, template));
    if (pb_exists(path))
        return pb_fail(PB_USAGE, "remove it, or choose another name", "%s is there already", path);
    PB_TRY(pb_file_map(&f, file));
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    const char *s = (const char *)f.data, *end = s + f.size;
    for (const char *p = s; out && p < end; p++) {
        bool here = end - p >= 4 && !memcmp(p, mark, 4) && (p == s || !in_word(p[-1])) &&
                    (end - p == 4 || !in_word(p[4]));
        if (here) {
            fputs(name, out);
            p += 3;
        } else {
            fputc(*p, out);
        }
    }
    pb_err err = out && !fclose(out) ? pb_file_write(path, text, size)
                                     : pb_fail(PB_MEMORY, NULL, "no memory for %s", path);
    free(text);
    pb_file_unmap(&f);
    return err;
}

pb_err pb_new_source(const char *template, const char *folder, const char *header, const char *name,
                     bool out_of_tree)
{
    char path[4096];
    if (out_of_tree) {
        PB_TRY(pb_fresh_folder(name));
        PB_TRY(pb_path(path, sizeof path, "%s/CMakeLists.txt", name));
        PB_TRY(pb_from_template("CMakeLists.txt.in", name, path));
        PB_TRY(pb_path(path, sizeof path, "%s/%s.c", name, name));
        PB_TRY(pb_from_template(template, name, path));
        printf("wrote %s and %s/CMakeLists.txt\n"
               "  cmake -S %s -B %s/build -DCMAKE_PREFIX_PATH=PREFIX && cmake --build %s/build\n",
               path, name, name, name, name);
        return PB_OK;
    }
    PB_TRY(pb_path(path, sizeof path, "%s/%s", folder, header));
    if (!pb_exists(path))
        return pb_fail(PB_USAGE, "go to the top of the source tree, or use --out-of-tree",
                       "there is no %s here", path);
    PB_TRY(pb_path(path, sizeof path, "%s/%s.c", folder, name));
    PB_TRY(pb_from_template(template, name, path));
    printf("wrote %s\n  cmake --build build\n", path);
    return PB_OK;
}
