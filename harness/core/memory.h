// Memory of the machine.
#ifndef PB_CORE_MEMORY_H
#define PB_CORE_MEMORY_H

#include <stddef.h>

// Bytes that can still be had without swapping, as Linux estimates it (MemAvailable), and no more
// than the control group allows; SIZE_MAX where neither is known.
size_t pb_memory_available(void);
// The most that this process ever had resident; 0 where that is not known.
size_t pb_memory_peak(void);

#endif
