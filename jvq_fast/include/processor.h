/* Which kernels this processor can run, and what those with AVX2 share. Each has a portable twin that does the same. */
#ifndef JVQ_PROCESSOR_H
#define JVQ_PROCESSOR_H

#include "atomics.h"
#include "digits.h"

enum { JVQ_ANY_PROCESSOR, JVQ_WITH_AVX2, JVQ_WITH_AVX512 };

/* Their stores into rings are plain ones, which the thread sanitizer would take for races. */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(JVQ_PORTABLE) && !JVQ_THREAD_SANITIZER
#include <immintrin.h>
#define JVQ_HAS_AVX2 1
#define JVQ_ALWAYS_INLINE inline __attribute__((always_inline))
#define JVQ_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define JVQ_AVX512 __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")))

static inline int jvq_this_processor(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("popcnt"))
        return JVQ_ANY_PROCESSOR;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2")
               ? JVQ_WITH_AVX512
               : JVQ_WITH_AVX2;
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE uint64_t jvq_avx2_gather(__m256i low, __m256i high)
{
    return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

/* Which of 64 bytes are no digits, the first in the lowest bit. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE uint64_t jvq_avx2_mark_no_digits(const uint8_t *p)
{
    /* '0' to '9' become the least signed bytes */
    const __m256i shift = _mm256_set1_epi8(0x50), nine = _mm256_set1_epi8((char)0x89);
    const __m256i low = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(const void *)p), shift);
    const __m256i high = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32)), shift);
    return jvq_avx2_gather(_mm256_cmpgt_epi8(low, nine), _mm256_cmpgt_epi8(high, nine));
}

/* Four words of up to eight digits each, with zero bytes before them, as four dwords twice over: the first two numbers in
 * the low half, the others in the high one. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256i jvq_avx2_parse_digits(__m256i text)
{
    const __m256i digits = _mm256_subs_epu8(text, _mm256_set1_epi8('0'));
    const __m256i pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010A));
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00010064));
    const __m256i packed = _mm256_packus_epi32(fours, fours);
    return _mm256_madd_epi16(packed, _mm256_set1_epi32(0x00012710));
}

/* `count` digits, of 1 to 8, with zero bytes before them. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE uint64_t jvq_avx2_align(uint64_t text, unsigned count)
{
    return text << ((0 - 8 * count) & 63);
}
#else
#define JVQ_HAS_AVX2 0
#define JVQ_ALWAYS_INLINE inline

static inline int jvq_this_processor(void) { return JVQ_ANY_PROCESSOR; }
#endif

#endif
