// Threads are set in one place, before the first parallel region.
#ifndef PB_CORE_THREADS_H
#define PB_CORE_THREADS_H

#include "core/error.h"

// n = 0 takes PB_THREADS from the environment, or else the number of usable processors.
pb_err pb_threads_set(int n);
int pb_threads(void);

// Starts the program again with an OpenMP setting that can only come from the environment: threads
// that wait at a barrier spin for some 100 microseconds and then sleep. Without it they spin for
// milliseconds, which ruins a run whenever something else needs the processor. Does nothing when
// the user set OMP_WAIT_POLICY or GOMP_SPINCOUNT. To be called first in `main`. The variable
// PB_SPINCOUNT_OURS tells that GOMP_SPINCOUNT is not the user's, for programs started from here.
#define PB_SPINCOUNT_OURS "PB_SPINCOUNT_OURS"
void pb_threads_restart(char **argv);

#endif
