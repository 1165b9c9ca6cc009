/* Digits eight at a time, and which of 64 bytes are none.
 *
 * A word holds eight bytes of text, the first in its lowest byte whatever the machine's order is.
 */
#ifndef JVQ_DIGITS_H
#define JVQ_DIGITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(JVQ_PORTABLE)
#include <emmintrin.h>
#define JVQ_SSE2 1
#else
#define JVQ_SSE2 0
#endif

#if defined(_MSC_VER)
#include <intrin.h>
static __forceinline unsigned jvq_lowest_bit(uint64_t value)
{
    unsigned long bit;
    _BitScanForward64(&bit, value);
    return (unsigned)bit;
}
#else
static inline unsigned jvq_lowest_bit(uint64_t value) { return (unsigned)__builtin_ctzll(value); }
#endif

#define JVQ_EACH_BYTE UINT64_C(0x0101010101010101)

/* A word of text as eight bytes of memory, or the other way round. */
static inline uint64_t jvq_text_word(uint64_t word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint64_t jvq_load_text(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return jvq_text_word(word);
}

/* '0' to '9' become 0 to 9, anything else something above. */
static inline uint64_t jvq_as_digits(uint64_t text) { return text ^ (JVQ_EACH_BYTE * '0'); }

/* Of a word of jvq_as_digits: the high half of each byte is zero where that is a digit, and only there. */
static inline uint64_t jvq_no_digits(uint64_t digits)
{
    return (digits | ((digits & (JVQ_EACH_BYTE * 0x7F)) + JVQ_EACH_BYTE * 6)) & (JVQ_EACH_BYTE * 0xF0);
}

/* Eight digits as a number: pairs, then fours, then all. */
static inline uint64_t jvq_eight_digits(uint64_t digits)
{
    digits = digits * 10 + (digits >> 8);
    return (((digits & UINT64_C(0x000000FF000000FF)) * UINT64_C(0x000F424000000064)) +
            (((digits >> 16) & UINT64_C(0x000000FF000000FF)) * UINT64_C(0x0000271000000001))) >>
           32;
}

/* The number that `count` digits make, of 1 to 8; reads 8 bytes. */
static inline uint64_t jvq_few_digits(const uint8_t *p, unsigned count)
{
    return jvq_eight_digits(jvq_as_digits(jvq_load_text(p)) << (64 - 8 * count));
}

/* The number that `count` digits make, of 1 to 16; reads 8 bytes, or all that there are. */
static inline uint64_t jvq_many_digits(const uint8_t *p, unsigned count)
{
    if (count <= 8)
        return jvq_few_digits(p, count);
    return jvq_few_digits(p, count - 8) * 100000000 + jvq_eight_digits(jvq_as_digits(jvq_load_text(p + count - 8)));
}

#if JVQ_SSE2
static inline uint64_t jvq_sixteen_no_digits(const uint8_t *p)
{
    const __m128i text = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i digits = _mm_sub_epi8(text, _mm_set1_epi8('0'));
    const __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits);
    return (uint64_t)(uint32_t)_mm_movemask_epi8(is_digit) ^ 0xFFFF;
}

/* Which of 64 bytes are no digits, the first in the lowest bit. */
static inline uint64_t jvq_mark_no_digits(const uint8_t *p)
{
    return jvq_sixteen_no_digits(p) | jvq_sixteen_no_digits(p + 16) << 16 | jvq_sixteen_no_digits(p + 32) << 32 |
           jvq_sixteen_no_digits(p + 48) << 48;
}
#else
/* The high bit of each byte as eight bits: each times a power of two that puts it in the top byte. */
static inline uint64_t jvq_gather(uint64_t high_bits)
{
    return ((high_bits & (JVQ_EACH_BYTE << 7)) >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t jvq_mark_no_digits(const uint8_t *p)
{
    uint64_t marks = 0;
    for (int i = 0; i < 8; i++) {
        const uint64_t digits = jvq_as_digits(jvq_load_text(p + 8 * i));
        /* 10 to 127 and 6 more than 118 reach the high bit */
        marks |= jvq_gather(digits | ((digits & (JVQ_EACH_BYTE * 0x7F)) + JVQ_EACH_BYTE * 118)) << (8 * i);
    }
    return marks;
}
#endif

#endif
