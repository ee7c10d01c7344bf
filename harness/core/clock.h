// Time: a monotonic clock in nanoseconds, and the calendar time for provenance.
#ifndef PB_CORE_CLOCK_H
#define PB_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t pb_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// `until` on that clock, but not later than in a tenth of a second: who waits looks at signals
// then.
static inline struct timespec pb_until(int64_t until)
{
    int64_t soon = pb_now_ns() + 100000000, at = until < soon ? until : soon;
    return (struct timespec){(time_t)(at / 1000000000), (long)(at % 1000000000)};
}

static inline double pb_now(void)
{
    return (double)pb_now_ns() * 1e-9;
}

// Writes an ISO 8601 UTC time, 21 bytes with the terminator.
static inline void pb_timestamp(char out[32])
{
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

#endif
