// Threads are set in one place, before the first parallel region.
#ifndef PB_CORE_THREADS_H
#define PB_CORE_THREADS_H

#include "core/error.h"

// n = 0 takes PB_THREADS from the environment, or else the number of usable processors.
pb_err pb_threads_set(int n);
int pb_threads(void);

#endif
