// Threads are set in one place, before the first parallel region.
#ifndef PB_CORE_THREADS_H
#define PB_CORE_THREADS_H

#include "core/error.h"

#include <stdbool.h>

// n = 0 takes PB_THREADS from the environment, or else the number of usable processors.
pb_err pb_threads_set(int n);
int pb_threads(void);

// Binds every thread but the first to a processor of its own, first one of each core, for programs
// that measure times. Unbound, Linux often wakes a thread that slept at a barrier on the processor
// of the thread that woke it and now spins there; the two then take turns for milliseconds. The
// first thread stays free, and so does whatever is started from it. Processes that share a machine
// must not do this: they would all bind to the same processors. Nothing is bound if the user placed
// threads (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY), or if there are more threads than
// processors.
void pb_threads_bind(void);
bool pb_threads_bound(void);

// Starts the program again with an OpenMP setting that can only come from the environment: threads
// that wait at a barrier spin for some 400 microseconds and then sleep. Without it they spin for
// milliseconds, which ruins a run whenever something else needs the processor. Does nothing when
// the user set OMP_WAIT_POLICY or GOMP_SPINCOUNT. To be called first in `main`. The variable
// PB_SPINCOUNT_OURS tells that GOMP_SPINCOUNT is not the user's, for programs started from here.
#define PB_SPINCOUNT_OURS "PB_SPINCOUNT_OURS"
void pb_threads_restart(char **argv);

#endif
