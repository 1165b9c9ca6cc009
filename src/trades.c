#include "trades.h"

#include "processor.h"
#include "decimal.h"

/* What is written next is in no cache by then: fetched so many bytes before. */
#define AHEAD 512
/* Of a history, for the next row of its code: where there are thousands, nothing of it would be in a cache by then. */
#define NEXT_RECORDS 3
#define DAY INT64_C(86400000000000)
#define EXACT (UINT64_C(1) << 53)

/* Which of the first 13 bytes of a record are no digits: HH:MM:SS.mmm, */
enum { TIME_LENGTH = 13, TIME_BITS = 0x1FFF, TIME_MARKS = 0x1124 };

typedef struct usual {
    int64_t time_of_day;
    uint64_t id, volume;
    double price;
    uint32_t flags;
    unsigned length;
} usual;

/* Where the numbers of a record begin, and how many digits they have: 1 to 8 each. */
typedef struct fields {
    unsigned id_digits, price, wholes, decimals, volume, volume_digits, end;
} fields;

/* By the marks of what is no digit. False where these are other fields. */
static JVQ_ALWAYS_INLINE bool find_fields(const uint8_t *p, uint64_t marks, fields *at)
{
    /* the highest bits stand for separators that are not there: too far away to be taken for one */
    uint64_t left = marks >> TIME_LENGTH | UINT64_C(0xF) << 60;
    unsigned point, price_end;

    at->price = TIME_LENGTH + jvq_lowest_bit(left) + 1;
    left &= left - 1;
    point = TIME_LENGTH + jvq_lowest_bit(left);
    left &= left - 1;
    price_end = TIME_LENGTH + jvq_lowest_bit(left);
    left &= left - 1;
    at->end = TIME_LENGTH + jvq_lowest_bit(left);
    at->id_digits = at->price - 1 - TIME_LENGTH;
    at->wholes = point - at->price;
    at->decimals = price_end - point - 1;
    at->volume = price_end + 1;
    at->volume_digits = at->end - at->volume;
    /* in unsigned arithmetic none is more than eight */
    return ((at->id_digits - 1) | (at->wholes - 1) | (at->decimals - 1) | (at->volume_digits - 1)) <= 7 &&
           p[at->price - 1] == ',' && p[point] == '.' && p[price_end] == ',' &&
           (p[at->end] == '|' || p[at->end] == '\n');
}

/* --- for any processor --- */

static JVQ_ALWAYS_INLINE bool parse(const uint8_t *p, usual *trade)
{
    const uint64_t marks = jvq_mark_no_digits(p);
    const int64_t seconds = jvq_parse_seconds(p);
    fields at;
    uint64_t mantissa;

    if ((marks & TIME_BITS) != TIME_MARKS || seconds < 0 || p[8] != '.' || p[12] != ',' || !find_fields(p, marks, &at))
        return false;
    mantissa = jvq_few_digits(p + at.price, at.wholes) * jvq_whole_pow10[at.decimals] +
               jvq_few_digits(p + at.price + at.wholes + 1, at.decimals);
    if (mantissa - 1 >= EXACT)
        return false;
    trade->time_of_day = (seconds * 1000 + (int64_t)jvq_few_digits(p + 9, 3)) * 1000000;
    trade->id = jvq_few_digits(p + TIME_LENGTH, at.id_digits);
    /* both operands are exact, so the division rounds once */
    trade->price = (double)(int64_t)mantissa / jvq_pow10[at.decimals];
    trade->volume = jvq_few_digits(p + at.volume, at.volume_digits);
    trade->length = at.end;
    return true;
}

typedef bool parser(const uint8_t *p, usual *trade);
typedef void publisher(jvq_trade_run *run, const usual *trade, int64_t time);

static JVQ_ALWAYS_INLINE uint64_t publish_run(jvq_trade_run *run, uint64_t most, parser *parse_one,
                                              publisher *publish_one)
{
    const uint8_t *p = run->cursor;
    int64_t latest_time_of_day = run->latest_time_of_day;
    uint64_t count = 0, stale = 0;

    while (count < most && *p != '\n') {
        usual trade;
        int64_t time;
        if (!parse_one(p + 1, &trade))
            break;
        time = run->midnight + trade.time_of_day;
        if (time > run->latest)
            time -= DAY;
        if (trade.time_of_day > latest_time_of_day)
            latest_time_of_day = trade.time_of_day;
        run->last_time = time;
        trade.flags = run->flags | (time < run->fresh_from ? (uint32_t)JVQ_STALE : 0);
        stale += time < run->fresh_from;
        publish_one(run, &trade, time);
        p += 1 + trade.length;
        count++;
    }
    run->latest_time_of_day = latest_time_of_day;
    run->stale = stale;
    run->cursor = p;
    if (run->history)
        jvq_history_prefetch(run->history, NEXT_RECORDS * sizeof(jvq_trade), sizeof(jvq_trade));
    return count;
}

static JVQ_ALWAYS_INLINE void publish(jvq_trade_run *run, const usual *trade, int64_t time)
{
    jvq_trade record;
    record.seq = ++run->seq;
    record.time = time;
    record.recv = run->recv;
    memcpy(record.code, &run->code, sizeof record.code);
    record.id = (int64_t)trade->id;
    record.price = trade->price;
    record.volume = (int64_t)trade->volume;
    record.flags = trade->flags;
    record.zero = 0;
    jvq_publish(run->tape, run->history, &record, sizeof record);
}

static uint64_t publish_trades(jvq_trade_run *run, uint64_t most) { return publish_run(run, most, parse, publish); }

/* --- with AVX2 --- */

#if JVQ_HAS_AVX2
static JVQ_AVX2 JVQ_ALWAYS_INLINE bool parse_with_avx2(const uint8_t *p, usual *trade)
{
    const __m128i text = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i pattern = _mm_setr_epi8(0, 0, ':', 0, 0, ':', 0, 0, '.', 0, 0, 0, ',', 0, 0, 0);
    const __m128i pairs_of = _mm_setr_epi8(0, 1, 3, 4, 6, 7, -1, 9, 10, 11, -1, -1, -1, -1, -1, -1);
    const __m128i most = _mm_setr_epi16(23, 59, 59, 9, 99, 99, 99, 99);
    const __m128i seconds_of = _mm_setr_epi16(3600, 60, 1000, 100, 1, 0, 0, 0);
    const uint64_t marks = jvq_avx2_mark_no_digits(p);
    const uint32_t separators = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(text, pattern));
    __m128i clock;
    __m256i numbers;
    uint64_t seconds, rest, id_and_whole, decimals_and_volume, mantissa;
    fields at;

    clock = _mm_maddubs_epi16(_mm_subs_epu8(_mm_shuffle_epi8(text, pairs_of), _mm_set1_epi8('0')),
                              _mm_set1_epi16(0x010A));
    if ((marks & TIME_BITS) != TIME_MARKS || (separators & TIME_MARKS) != TIME_MARKS ||
        _mm_movemask_epi8(_mm_cmpgt_epi16(clock, most)) || !find_fields(p, marks, &at))
        return false;
    clock = _mm_madd_epi16(clock, seconds_of);
    seconds = (uint64_t)_mm_cvtsi128_si64(clock);
    rest = (uint64_t)(uint32_t)_mm_extract_epi32(clock, 2) + (seconds >> 32);

    numbers = jvq_avx2_parse_digits(_mm256_set_epi64x(
        (int64_t)jvq_avx2_align(jvq_load_text(p + at.volume), at.volume_digits),
        (int64_t)jvq_avx2_align(jvq_load_text(p + at.price + at.wholes + 1), at.decimals),
        (int64_t)jvq_avx2_align(jvq_load_text(p + at.price), at.wholes),
        (int64_t)jvq_avx2_align(jvq_load_text(p + TIME_LENGTH), at.id_digits)));
    id_and_whole = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(numbers));
    decimals_and_volume = (uint64_t)_mm_cvtsi128_si64(_mm256_extracti128_si256(numbers, 1));
    mantissa = (id_and_whole >> 32) * jvq_whole_pow10[at.decimals] + (decimals_and_volume & UINT32_MAX);
    if (mantissa - 1 >= EXACT)
        return false;
    trade->time_of_day = (int64_t)((seconds & UINT32_MAX) * 1000 + rest) * 1000000;
    trade->id = id_and_whole & UINT32_MAX;
    trade->price = (double)(int64_t)mantissa / jvq_pow10[at.decimals];
    trade->volume = decimals_and_volume >> 32;
    trade->length = at.end;
    return true;
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE void store_with_avx2(uint8_t *place, __m256i first, __m256i second)
{
    _mm256_storeu_si256((__m256i *)(void *)place, first);
    _mm256_storeu_si256((__m256i *)(void *)(place + 32), second);
}

/* What readers copy meanwhile may be torn, and they know; so the stores may be as wide as they like. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE void publish_with_avx2(jvq_trade_run *run, const usual *trade, int64_t time)
{
    const __m128i stamp = _mm_set_epi64x(time, (int64_t)++run->seq);
    const __m128i source = _mm_set_epi64x((int64_t)run->code, run->recv);
    const __m128i price = _mm_castpd_si128(_mm_unpacklo_pd(_mm_castsi128_pd(_mm_cvtsi64_si128((int64_t)trade->id)),
                                                           _mm_set_sd(trade->price)));
    const __m128i volume = _mm_set_epi64x(trade->flags, (int64_t)trade->volume);
    const __m256i first = _mm256_inserti128_si256(_mm256_castsi128_si256(stamp), source, 1);
    const __m256i second = _mm256_inserti128_si256(_mm256_castsi128_si256(price), volume, 1);
    uint8_t *const place = jvq_tape_claim(run->tape, sizeof(jvq_trade));
    uint8_t *const mirror = place + jvq_tape_mirror(run->tape, sizeof(jvq_trade));

    store_with_avx2(place, first, second);
    store_with_avx2(mirror, first, second);
    __builtin_prefetch(place + AHEAD, 1);
    __builtin_prefetch(mirror + AHEAD, 1);
    jvq_ring_publish(run->tape);
    if (run->history) {
        uint8_t *const own = jvq_history_claim(run->history, sizeof(jvq_trade));
        store_with_avx2(own, first, second);
        __builtin_prefetch(own + AHEAD, 1);
        jvq_ring_publish(run->history);
    }
}

static JVQ_AVX2 uint64_t publish_trades_with_avx2(jvq_trade_run *run, uint64_t most)
{
    return publish_run(run, most, parse_with_avx2, publish_with_avx2);
}
#endif

jvq_trade_publisher jvq_choose_trade_publisher(int processor)
{
#if JVQ_HAS_AVX2
    if (processor >= JVQ_WITH_AVX2)
        return publish_trades_with_avx2;
#endif
    (void)processor;
    return publish_trades;
}
