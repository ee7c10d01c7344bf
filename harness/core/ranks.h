// Processes that train together, on one machine or several: ranks 0 .. n-1, started by mpirun. MPI
// is called here alone, and only in builds with PB_MPI; without it there is one process.
//
// Rank 0 speaks and writes. What the others print is dropped, but for the error that one of them
// has alone.
#ifndef PB_CORE_RANKS_H
#define PB_CORE_RANKS_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>

int pb_rank(void);
int pb_ranks(void);
const char *pb_ranks_library(void); // what MPI calls itself; NULL: built without

// Reads from the environment who this process is; to be called first.
void pb_ranks_begin(void);
// Joins the others. `able`: several processes can share the work; otherwise, and in a build without
// MPI, several are refused.
pb_err pb_ranks_start(bool able);
// Waits for the others to end. An error is shown once, by `show` (NULL: not at all): by rank 0, or
// by a rank that fails alone. Ranks that do not come to their end then are ended.
void pb_ranks_end(pb_err err, void (*show)(void));

// The following are called by all ranks, in the same order. They cannot fail: when one process
// dies, MPI ends the others.
bool pb_ranks_any(bool mine);
void pb_ranks_sum(double *v, size_t n);    // of numbers that are zero but on one rank: exact
void pb_ranks_copy(void *v, size_t bytes); // rank 0's to all
// Fails on every rank, naming one that differs, unless all have the text that rank 0 has.
pb_err pb_ranks_same(const char *what, const char *text, const char *hint);

// Vectors of n numbers in slices, one for each rank: where a rank's begins.
size_t pb_ranks_slice(size_t n, int rank);
// Gives every rank its slice of the vectors of the first `active` ranks, one behind the other. A
// number has `size` bytes; n < 2^31.
void pb_ranks_scatter(void *got, const void *v, size_t n, size_t size, int active);
// Gives every rank's slice of v to all.
void pb_ranks_gather(void *v, size_t n, size_t size);
// Bytes that this rank has sent by these two.
size_t pb_ranks_sent(void);

#endif
