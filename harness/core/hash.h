// SHA-256 (libmd), as lower-case hexadecimal text.
#ifndef PB_CORE_HASH_H
#define PB_CORE_HASH_H

#include "core/error.h"
#include <stddef.h>

#define PB_HASH_LEN 65 // with the terminator

void pb_sha256(char out[PB_HASH_LEN], const void *data, size_t size);
pb_err pb_sha256_file(char out[PB_HASH_LEN], const char *path);

#endif
