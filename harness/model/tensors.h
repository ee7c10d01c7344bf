// Named tensors of a checkpoint: safetensors files (read mapped, written), and whatever another
// format's reader presents in the same way.
#ifndef PB_MODEL_TENSORS_H
#define PB_MODEL_TENSORS_H

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "tensor/real.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// PB_Q8_0, of GGUF: blocks of 32 values, a half-precision scale and 32 signed bytes each.
typedef enum pb_dtype { PB_F32, PB_F16, PB_BF16, PB_F64, PB_I64, PB_Q8_0 } pb_dtype;

enum { PB_MAX_DIMS = 4, PB_Q8_BLOCK = 32, PB_AS_STORED = -1 };

typedef struct pb_tensor {
    char *name;
    pb_dtype dtype;
    size_t n_dims, shape[PB_MAX_DIMS];
    size_t count;     // product of the shape
    const void *data; // count elements, C order, little endian; NULL: random, see below
    bool mapped;      // data lies in a mapped file
    // What pb_tensor_read does besides converting, for formats with other conventions.
    size_t head_rows; // the file has each head of so many rows in interleaved order; 0: no heads
    float minus;      // is subtracted from every value
    // Random values: mean + gain * noise, a function of seed, number and position alone; the noise
    // is close to normal with variance 1. F32, or rounded to BF16.
    uint64_t seed;
    uint32_t number;
    float mean, gain;
    // Values that are computed as they are written to a file, all of them at a time: fills `out`.
    // pb_tensor_read does not know of them.
    pb_err (*make)(const struct pb_tensor *t, real *out);
    const void *maker; // for `make`
} pb_tensor;

typedef struct pb_tensors pb_tensors; // a set of named tensors

// Opens a safetensors file: mapped, every offset, product and overlap checked.
pb_err pb_tensors_open(pb_tensors **out, const char *path);
// Opens a folder's model.safetensors, or the shards that its model.safetensors.index.json lists:
// the list and the files must say exactly the same.
pb_err pb_tensors_open_folder(pb_tensors **out, const char *folder);
void pb_tensors_close(pb_tensors *t);

size_t pb_tensors_count(const pb_tensors *t);
const pb_tensor *pb_tensors_at(const pb_tensors *t, size_t i);
const pb_tensor *pb_tensors_find(const pb_tensors *t, const char *name); // NULL when absent
// A string of `__metadata__` (of the first shard), or NULL.
const char *pb_tensors_meta(const pb_tensors *t, const char *key);
const json_t *pb_tensors_metadata(const pb_tensors *t); // all of it, or NULL

// Finds a floating-point tensor of exactly this shape (rows, cols); cols = 0 asks for a vector.
pb_err pb_tensors_need(const pb_tensors *t, const char *name, size_t rows, size_t cols,
                       const pb_tensor **out);

// Converts n floating-point elements from `first` on; in parallel when they are many.
void pb_tensor_read(const pb_tensor *t, size_t first, size_t n, real *out);
// Gives the pages of a mapped tensor, or of n elements from `first` on, back to the system; reading
// it again reads the file again.
void pb_tensors_release(const pb_tensor *t);
void pb_tensors_release_part(const pb_tensor *t, size_t first, size_t n);
// SHA-256 of the values, whatever the dtype: BF16 values hash as the same values in F32. Computed
// in pieces, in parallel. A random tensor hashes by its seed and parameters.
pb_err pb_tensor_digest(const pb_tensor *t, char out[PB_HASH_LEN]);

const char *pb_dtype_name(pb_dtype d);
// Product of a shape; false when it, or its size in bytes, overflows.
bool pb_tensor_count(const size_t *shape, size_t n_dims, pb_dtype dtype, size_t *count);
size_t pb_dtype_bytes(pb_dtype d, size_t count); // Q8_0: count is a multiple of the block

// Writing: the caller fills in name, dtype (any but PB_Q8_0) and shape; the data is `real` for the
// floating-point types (converted on the way out, round to nearest even) and int64_t for PB_I64.
// `meta` is a NULL-terminated list of key, value, key, value; may be NULL.
typedef struct pb_tensor_out {
    const char *name;
    pb_dtype dtype;
    size_t n_dims, shape[PB_MAX_DIMS];
    const void *data;
} pb_tensor_out;
pb_err pb_tensors_write(const char *path, const pb_tensor_out *list, size_t n,
                        const char *const *meta);
// Writes tensors block by block as `dtype` (PB_F32, PB_F16, PB_BF16, or PB_AS_STORED: each in its
// own, Q8_0 as F32) into a folder: STEM.safetensors ("model" or "adapter_model"), or, when there
// are more than `limit` bytes (0: no limit), shards of at most that size (but at least one tensor)
// with their index. A finite value too large for `dtype` is refused by name.
pb_err pb_tensors_write_folder(const char *folder, const char *stem, const pb_tensor *const *list,
                               size_t n, int dtype, size_t limit);

// For readers of other formats: a set without tensors that keeps `path` mapped (NULL: no file), its
// bytes, and a way to add to it. `name` and the numbers of x are copied, its data is not.
pb_err pb_tensors_new(pb_tensors **out, const char *path);
const pb_file *pb_tensors_file(const pb_tensors *t);
// `from`, whose data tensors of t refer to, is closed together with t, or at once on failure.
pb_err pb_tensors_adopt(pb_tensors *t, pb_tensors *from);
pb_err pb_tensors_add(pb_tensors *t, const char *name, const pb_tensor *x);

#endif
