#include "numbers.h"

#include "avx2.h"

static inline bool ends_record(uint8_t byte) { return byte == '|' || byte == '\n'; }

/* --- whatever they look like --- */

static const uint8_t *scan_numbers(const uint8_t *p, int count, jvq_numbers *out)
{
    out->not_whole = out->pointed = 0;
    out->has_empty = false;
    for (int i = 0; i < count; i++) {
        jvq_number number;
        p = jvq_number_scan(p, &number);
        if (!p || (i + 1 == count ? !ends_record(*p) : *p != ','))
            return NULL;
        out->has_empty |= number.empty;
        out->value[i] = jvq_number_value(&number);
        if (!jvq_number_whole(&number, &out->whole[i]))
            out->not_whole |= UINT64_C(1) << i;
        p++;
    }
    return p - 1;
}

/* --- with AVX2: up to 15 digits, seven of them behind the point, as they nearly always are --- */

#if JVQ_HAS_AVX2
enum {
    USUAL_MARKS = 16, /* in 64 bytes */
    MOST_MARKS = 32,
    MOST_BLOCKS = 16,
    MOST_LONG = 4,
    MOST_DIGITS = 15, /* so that a double holds them exactly */
    MOST_DECIMALS = 7
};

/* Where bytes are no digits, up to the end of the record, and a few places more that mean nothing. Returns how many, 0
 * where they are too many. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE int find_marks(const uint8_t *p, uint16_t *places)
{
    const __m256i bar = _mm256_set1_epi8('|'), newline = _mm256_set1_epi8('\n');
    int found = 0;

    for (int block = 0; block < MOST_BLOCKS; block++, p += 64) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)p);
        const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
        const uint64_t ends =
            jvq_avx2_gather(_mm256_or_si256(_mm256_cmpeq_epi8(low, bar), _mm256_cmpeq_epi8(low, newline)),
                            _mm256_or_si256(_mm256_cmpeq_epi8(high, bar), _mm256_cmpeq_epi8(high, newline)));
        /* none behind the first end */
        uint64_t marks = jvq_avx2_mark_no_digits(p) & _blsmsk_u64(ends);
        const int count = (int)_mm_popcnt_u64(marks), base = 64 * block;
        uint16_t *const out = places + found;
        int i;
        if (count > MOST_MARKS)
            return 0;
        /* as many as there usually are, whether there are or not: a loop's end would be mispredicted */
        for (i = 0; i < USUAL_MARKS; i++) {
            out[i] = (uint16_t)(base + (int)_tzcnt_u64(marks));
            marks = _blsr_u64(marks);
        }
        for (; i < count; i++) {
            out[i] = (uint16_t)(base + (int)_tzcnt_u64(marks));
            marks = _blsr_u64(marks);
        }
        found += count;
        if (ends) {
            memset(places + found, 0, 4 * sizeof *places);
            return found;
        }
    }
    return 0;
}

typedef struct long_number {
    int index;
    int64_t digits;
} long_number;

static JVQ_AVX2 const uint8_t *scan_numbers_with_avx2(const uint8_t *p, int count, jvq_numbers *out)
{
    uint16_t places[(MOST_BLOCKS + 1) * MOST_MARKS];
    uint64_t words[JVQ_MOST_NUMBERS]; /* of digits, with zero bytes before them */
    double scales[JVQ_MOST_NUMBERS];  /* to divide by */
    uint64_t pointed = 0, negatives = 0;
    long_number longs[MOST_LONG];
    int long_count = 0, at = 0;
    unsigned start = 0, end = 0;
    uint8_t not_commas = 0; /* before each number stands one, before the first as well */
    const int found = find_marks(p, places);

    for (int i = 0; i < count; i++) {
        unsigned point, decimals;
        int64_t value = 0;
        bool is_long;

        /* at most two places more are looked at before the next turn */
        if (at >= found)
            return scan_numbers(p, count, out);
        point = places[at++];
        not_commas |= (uint8_t)(p[(int)start - 1] ^ ',');
        if (p[point] == '-' && point == start) {
            negatives |= UINT64_C(1) << i;
            start++;
            point = places[at++];
        }
        if (p[point] == '.') {
            const unsigned wholes = point - start;
            end = places[at++];
            decimals = end - point - 1;
            if (wholes - 1 >= MOST_DIGITS || decimals - 1 >= MOST_DECIMALS || wholes + decimals > MOST_DIGITS)
                return scan_numbers(p, count, out);
            is_long = wholes + decimals > 7;
            if (is_long) {
                value = (int64_t)(jvq_many_digits(p + start, wholes) * jvq_whole_pow10[decimals] +
                                  jvq_few_digits(p + point + 1, decimals));
            } else {
                const uint64_t text = jvq_load_text(p + start);
                words[i] = jvq_avx2_align(_bzhi_u64(text, 8 * wholes) | text >> (8 * wholes + 8) << 8 * wholes,
                                          wholes + decimals);
            }
            pointed |= UINT64_C(1) << i;
        } else {
            const unsigned wholes = point - start;
            end = point;
            decimals = 0;
            if (wholes - 1 >= MOST_DIGITS)
                return scan_numbers(p, count, out);
            is_long = wholes > 8;
            if (is_long)
                value = (int64_t)jvq_many_digits(p + start, wholes);
            else
                words[i] = jvq_avx2_align(jvq_load_text(p + start), wholes);
        }
        if (is_long) {
            if (long_count == MOST_LONG)
                return scan_numbers(p, count, out);
            words[i] = 0;
            longs[long_count++] = (long_number){i, value};
        }
        scales[i] = jvq_pow10[decimals];
        start = end + 1;
    }
    if (at > found || not_commas || !ends_record(p[end]))
        return scan_numbers(p, count, out);
    for (int i = count; i % 4; i++) {
        words[i] = 0;
        scales[i] = 1;
    }
    for (int i = 0; i < count; i += 4) {
        const __m256i numbers = jvq_avx2_parse_digits(_mm256_loadu_si256((const __m256i *)(const void *)&words[i]));
        const __m128i four = _mm_unpacklo_epi64(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
        _mm256_storeu_pd(&out->value[i], _mm256_div_pd(_mm256_cvtepi32_pd(four), _mm256_loadu_pd(&scales[i])));
        _mm256_storeu_si256((__m256i *)(void *)&out->whole[i], _mm256_cvtepu32_epi64(four));
    }
    for (int i = 0; i < long_count; i++) {
        const int index = longs[i].index;
        out->whole[index] = longs[i].digits;
        out->value[index] = (double)longs[i].digits / scales[index];
    }
    for (; negatives; negatives = _blsr_u64(negatives)) {
        const int index = (int)_tzcnt_u64(negatives);
        out->whole[index] = -out->whole[index];
        out->value[index] = -out->value[index];
    }
    out->pointed = pointed;
    out->not_whole = 0;
    out->has_empty = false;
    return p + end;
}
#endif

jvq_number_scanner jvq_choose_number_scanner(bool for_any)
{
#if JVQ_HAS_AVX2
    if (!for_any && jvq_processor_has_avx2())
        return scan_numbers_with_avx2;
#endif
    (void)for_any;
    return scan_numbers;
}
