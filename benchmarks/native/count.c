/* Counts instructions where callgrind runs it, and nothing elsewhere. */
#include "histogram.h"

#include <stddef.h>
#include <valgrind/callgrind.h>

void begin(void);
void end(const char *name);
void record(jvq_histogram *histogram, const uint64_t *values, size_t count);
void walk(const uint64_t *values, size_t count);

void begin(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}

void record(jvq_histogram *histogram, const uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        jvq_histogram_record(histogram, values[i], 1);
}

/* The loop of `record` by itself. */
void walk(const uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        __asm__ volatile("" : : "r"(values[i]) : "memory");
}
