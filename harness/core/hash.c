#include "core/hash.h"

#include "core/file.h"
#include <sha2.h>

void pb_sha256(char out[PB_HASH_LEN], const void *data, size_t size)
{
    SHA256Data(data, size, out);
}

pb_err pb_sha256_file(char out[PB_HASH_LEN], const char *path)
{
    pb_file f;
    PB_TRY(pb_file_map(&f, path));
    pb_sha256(out, f.data, f.size);
    pb_file_unmap(&f);
    return PB_OK;
}
