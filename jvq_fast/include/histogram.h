/* Counts of values in fixed buckets: nothing is allocated, and a value costs a few instructions.
 *
 * Eight buckets per power of two, so a bucket is at most an eighth of its values wide; values below 16 have one each.
 * One thread records at a time, any other may read: what it sees of a value that is being recorded is a count without
 * its sum, or the other way round, and no more than that.
 */
#ifndef JVQ_HISTOGRAM_H
#define JVQ_HISTOGRAM_H

#include "atomics.h"

#include <stdint.h>

enum {
    JVQ_HISTOGRAM_BITS = 40, /* the last bucket ends here: 18 minutes in ns; what is above counts in it */
    JVQ_HISTOGRAM_BUCKETS = (JVQ_HISTOGRAM_BITS - 2) * 8
};

typedef struct jvq_histogram {
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[JVQ_HISTOGRAM_BUCKETS];
} jvq_histogram;

#if defined(_MSC_VER)
#define JVQ_UNLIKELY(x) (x)
static __forceinline unsigned jvq_highest_bit(uint64_t value)
{
    unsigned long bit;
    _BitScanReverse64(&bit, value);
    return (unsigned)bit;
}
#else
#define JVQ_UNLIKELY(x) __builtin_expect(!!(x), 0)
static inline unsigned jvq_highest_bit(uint64_t value) { return 63 ^ (unsigned)__builtin_clzll(value); }
#endif

/* May be behind the last one, in which what belongs there is counted. */
static inline uint64_t jvq_histogram_bucket(uint64_t value)
{
    const unsigned shift = jvq_highest_bit(value | 8) - 3;
    return 8 * shift + (value >> shift);
}

/* The least value that belongs to the bucket; of the one behind the last, where the last ends. */
static inline uint64_t jvq_histogram_floor(unsigned bucket)
{
    return bucket < 16 ? bucket : (uint64_t)(bucket % 8 + 8) << (bucket / 8 - 1);
}

/* The same value so many times. */
static inline void jvq_histogram_record(jvq_histogram *histogram, uint64_t value, uint64_t times)
{
    const uint64_t bucket = jvq_histogram_bucket(value);
    if (JVQ_UNLIKELY(bucket >= JVQ_HISTOGRAM_BUCKETS))
        jvq_add_relaxed(&histogram->buckets[JVQ_HISTOGRAM_BUCKETS - 1], times);
    else
        jvq_add_relaxed(&histogram->buckets[bucket], times);
    jvq_add_relaxed(&histogram->sum, value * times);
    if (value > histogram->max)
        jvq_store_relaxed(&histogram->max, value);
}

#endif
