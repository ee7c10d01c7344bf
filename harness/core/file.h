// Files: mapped reading, whole-file writing through a temporary name, folders.
#ifndef PB_CORE_FILE_H
#define PB_CORE_FILE_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct pb_file {
    const uint8_t *data; // read-only mapping; NULL for an empty file
    size_t size;
} pb_file;

pb_err pb_file_map(pb_file *f, const char *path);
void pb_file_unmap(pb_file *f);

// Writes path.tmp, syncs it, renames it to path and syncs the folder: either the old content or the
// new one is there, never a part.
pb_err pb_file_write(const char *path, const void *data, size_t size);

// The same in pieces: open, fwrite to the stream, commit (or abandon, which removes the temporary).
typedef struct pb_writer {
    FILE *stream;
    char path[4096], tmp[4096 + 8];
} pb_writer;
pb_err pb_writer_open(pb_writer *w, const char *path);
pb_err pb_writer_commit(pb_writer *w);
void pb_writer_abandon(pb_writer *w);

// Syncs `tmp`, renames it to `path` and syncs the folder.
pb_err pb_file_publish(const char *tmp, const char *path);

// Opens `path` (made if need be) for appending, locked against other processes until `fd` is closed
// or its process ends; PB_BUSY when another has it. The owner may remove the file.
pb_err pb_file_lock(int *fd, const char *path);
bool pb_file_is_locked(const char *path);

pb_err pb_make_dirs(const char *path);     // like mkdir -p
pb_err pb_remove_folder(const char *path); // and all that is in it
bool pb_exists(const char *path);
bool pb_is_dir(const char *path);

// Finds a folder that comes with the program: the one that the environment variable `env` names; or
// `source`, of the tree it was built from (may be NULL), if that is there; or share/pedrobench/NAME
// of where it is installed. `out` has room for `size` bytes.
pb_err pb_shared_folder(char *out, size_t size, const char *env, const char *source,
                        const char *name);

// snprintf that fails on truncation; size is the size of `out`.
pb_err pb_path(char *out, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
