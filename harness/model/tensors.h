// Named tensors of a checkpoint: safetensors files (read mapped, written), and whatever another
// format's reader presents in the same way.
#ifndef PB_MODEL_TENSORS_H
#define PB_MODEL_TENSORS_H

#include "core/error.h"
#include "tensor/real.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pb_dtype { PB_F32, PB_F16, PB_BF16, PB_F64, PB_I64 } pb_dtype;

enum { PB_MAX_DIMS = 4 };

typedef struct pb_tensor {
    char *name;
    pb_dtype dtype;
    size_t n_dims, shape[PB_MAX_DIMS];
    size_t count;     // product of the shape
    const void *data; // count elements, C order, little endian
} pb_tensor;

typedef struct pb_tensors pb_tensors; // a set of named tensors

// Opens a safetensors file: mapped, every offset, product and overlap checked.
pb_err pb_tensors_open(pb_tensors **out, const char *path);
void pb_tensors_close(pb_tensors *t);

size_t pb_tensors_count(const pb_tensors *t);
const pb_tensor *pb_tensors_at(const pb_tensors *t, size_t i);
const pb_tensor *pb_tensors_find(const pb_tensors *t, const char *name); // NULL when absent
// A string of `__metadata__`, or NULL.
const char *pb_tensors_meta(const pb_tensors *t, const char *key);

// Finds a floating-point tensor of exactly this shape (rows, cols); cols = 0 asks for a vector.
pb_err pb_tensors_need(const pb_tensors *t, const char *name, size_t rows, size_t cols,
                       const pb_tensor **out);

// Converts n floating-point elements from `first` on.
void pb_tensor_read(const pb_tensor *t, size_t first, size_t n, real *out);

// Writing: the caller fills in name, dtype (PB_F32, PB_BF16, PB_F64 or PB_I64) and shape; the data
// is `real` for the floating-point types (converted on the way out, round to nearest even) and
// int64_t for PB_I64. `meta` is a NULL-terminated list of key, value, key, value; may be NULL.
typedef struct pb_tensor_out {
    const char *name;
    pb_dtype dtype;
    size_t n_dims, shape[PB_MAX_DIMS];
    const void *data;
} pb_tensor_out;
pb_err pb_tensors_write(const char *path, const pb_tensor_out *list, size_t n,
                        const char *const *meta);

// For readers of other formats: an empty set that owns what is added. `data` must come from malloc.
pb_err pb_tensors_new(pb_tensors **out);
pb_err pb_tensors_add(pb_tensors *t, const char *name, size_t rows, size_t cols, float *data);

#endif
