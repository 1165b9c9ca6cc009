#include "snapshots.h"

#include "decimal.h"
#include "processor.h"

#if JVQ_HAS_AVX2
#include <cpuid.h>
#endif

/* --- for any processor --- */

static void publish_quote(jvq_ring *tape, jvq_ring *history, const void *record)
{
    jvq_publish(tape, history, record, sizeof(jvq_quote));
}

static void publish_depth(jvq_ring *tape, jvq_ring *history, const void *record)
{
    jvq_publish(tape, history, record, sizeof(jvq_depth));
}

static const jvq_snapshot_kernels for_any_processor = {NULL, NULL, publish_quote, publish_depth};

/* --- with AVX2 --- */

#if JVQ_HAS_AVX2
/* A mark is a byte that is no digit: the point of a number, and what follows it. */
enum {
    QUOTE_MARKS = 37,
    DEPTH_MARKS = 67,
    MOST_MARKS = 80,      /* of either, in whole vectors */
    MOST_BYTES = 512,     /* of numbers */
    BLOCK_MARKS = 32,     /* in 64 bytes */
    USUAL_BLOCK_MARKS = 16
};

/* How many digits there may be, less one: with these a price has at most eight, and the totals fit a double. */
enum { PRICE = 4, DECIMALS = 2, QUANTITY = 7, VOLUME = 14, AMOUNT = 11, CHANGE = PRICE + 1 /* its sign */, ANY = 0xFFFF };

__extension__ typedef unsigned __int128 pattern; /* one bit a mark */

typedef struct layout {
    pattern points; /* which marks are points */
    uint16_t most[MOST_MARKS]; /* digits before each mark, less one */
} layout;

#define POINTS(bits, first) ((pattern)(bits) << (first))
#define TEN(x) x, x, x, x, x, x, x, x, x, x
#define QUANTITY_AND_PRICE QUANTITY, PRICE, DECIMALS
#define REST ANY, ANY, ANY, TEN(ANY), TEN(ANY), TEN(ANY), TEN(ANY)

/* By whether the second order of fields is in force. */
static const layout quote_layouts[2] = {
    {POINTS(0x15, 0) | POINTS(0x9249249, 8),
     {PRICE, DECIMALS, CHANGE, DECIMALS, AMOUNT, DECIMALS, VOLUME, TEN(QUANTITY_AND_PRICE), REST}},
    {POINTS(0x25, 0) | POINTS(0x9249249, 8),
     {PRICE, DECIMALS, CHANGE, DECIMALS, VOLUME, AMOUNT, DECIMALS, TEN(QUANTITY_AND_PRICE), REST}},
};

#define TEN_PRICES TEN(PRICE_AND_DECIMALS)
#define PRICE_AND_DECIMALS PRICE, DECIMALS
#define TEN_QUANTITIES TEN(QUANTITY)
#define DEPTH_REST ANY, ANY, ANY, TEN(ANY)

static const layout depth_layouts[2] = {
    {POINTS(0x15, 0) | POINTS(0x55555, 7) | POINTS(0x55555, 37),
     {PRICE, DECIMALS, PRICE, DECIMALS, AMOUNT, DECIMALS, VOLUME, TEN_PRICES, TEN_QUANTITIES, TEN_PRICES,
      TEN_QUANTITIES, DEPTH_REST}},
    {POINTS(0x15, 0) | POINTS(0x55555, 17) | POINTS(0x55555, 47),
     {PRICE, DECIMALS, PRICE, DECIMALS, AMOUNT, DECIMALS, VOLUME, TEN_QUANTITIES, TEN_PRICES, TEN_QUANTITIES,
      TEN_PRICES, DEPTH_REST}},
};

/* Where the marks are. */
typedef struct marks {
    uint16_t places[1 + MOST_MARKS + BLOCK_MARKS]; /* the first is the byte before the numbers */
} marks;

/* How many bytes stand before a mark. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE unsigned length_before(const marks *at, unsigned mark)
{
    return (uint16_t)(at->places[mark + 1] - at->places[mark] - 1);
}

/* Of 64 bytes, the first in the lowest bit. */
typedef struct block {
    uint64_t commas, points, marks;
} block;

typedef block block_reader(const uint8_t *p);
typedef void place_writer(uint16_t *places, unsigned base, uint64_t marks, unsigned count);

static JVQ_AVX2 JVQ_ALWAYS_INLINE block read_block_with_avx2(const uint8_t *p)
{
    const __m256i comma = _mm256_set1_epi8(','), point = _mm256_set1_epi8('.');
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)p);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    return (block){jvq_avx2_gather(_mm256_cmpeq_epi8(low, comma), _mm256_cmpeq_epi8(high, comma)),
                   jvq_avx2_gather(_mm256_cmpeq_epi8(low, point), _mm256_cmpeq_epi8(high, point)),
                   jvq_avx2_mark_no_digits(p)};
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE void write_places_with_avx2(uint16_t *places, unsigned base, uint64_t here,
                                                              unsigned count)
{
    /* as many as there usually are, whether there are or not: a loop's end would be mispredicted */
    for (int i = 0; i < USUAL_BLOCK_MARKS; i++) {
        places[i] = (uint16_t)(base + (unsigned)_tzcnt_u64(here));
        here = _blsr_u64(here);
    }
    if (count > USUAL_BLOCK_MARKS) {
        for (int i = USUAL_BLOCK_MARKS; i < BLOCK_MARKS; i++) {
            places[i] = (uint16_t)(base + (unsigned)_tzcnt_u64(here));
            here = _blsr_u64(here);
        }
    }
}

static JVQ_AVX512 JVQ_ALWAYS_INLINE block read_block_with_avx512(const uint8_t *p)
{
    const __m512i text = _mm512_loadu_si512(p);
    return (block){_mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(',')),
                   _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8('.')),
                   _mm512_cmpgt_epu8_mask(_mm512_sub_epi8(text, _mm512_set1_epi8('0')), _mm512_set1_epi8(9))};
}

#define EIGHT(i) 0x0706050403020100 + (i) * 0x0101010101010101

static JVQ_AVX512 JVQ_ALWAYS_INLINE void write_places_with_avx512(uint16_t *places, unsigned base, uint64_t here,
                                                                  unsigned count)
{
    const __m512i all = _mm512_setr_epi64(EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), EIGHT(32), EIGHT(40), EIGHT(48),
                                          EIGHT(56));
    const __m256i marked = _mm512_castsi512_si256(_mm512_maskz_compress_epi8(here, all));
    (void)count;
    _mm512_storeu_si512(places, _mm512_add_epi16(_mm512_cvtepu8_epi16(marked), _mm512_set1_epi16((short)base)));
}

/* False where they are not those of the layout. A sign before the second number is no mark. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE bool find_marks(const uint8_t *p, const layout *usual, unsigned count, bool has_sign,
                                                  block_reader *read_block, place_writer *write_places, marks *out)
{
    __m256i excess = _mm256_setzero_si256();
    unsigned found = 0;
    uint64_t others = 0;

    out->places[0] = (uint16_t)-1;
    for (unsigned base = 0; !others; base += 64) {
        block here = read_block(p + base);
        unsigned here_count;
        if (has_sign && base == 0) {
            if (!here.commas)
                return false;
            here.marks &= ~((uint64_t)(p[_tzcnt_u64(here.commas) + 1] == '-') << 1 << _tzcnt_u64(here.commas));
        }
        others = here.marks & ~(here.commas | here.points);
        here.marks &= _blsmsk_u64(others); /* none behind the first that is neither */
        here_count = (unsigned)_mm_popcnt_u64(here.marks);
        if (here_count > BLOCK_MARKS || found + here_count > count || base == MOST_BYTES ||
            _pext_u64(here.points, here.marks) != _bzhi_u64((uint64_t)(usual->points >> found), here_count))
            return false;
        write_places(out->places + 1 + found, base, here.marks, here_count);
        found += here_count;
    }
    /* behind the last mark nothing is looked at, but loaded */
    _mm256_storeu_si256((__m256i *)(void *)(out->places + 1 + found), excess);
    _mm256_storeu_si256((__m256i *)(void *)(out->places + 17 + found), excess);
    for (unsigned i = 0; i < count; i += 16) {
        const __m256i place = _mm256_loadu_si256((const __m256i *)(const void *)(out->places + 1 + i));
        const __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(out->places + i));
        const __m256i most = _mm256_loadu_si256((const __m256i *)(const void *)(usual->most + i));
        const __m256i bytes = _mm256_sub_epi16(place, before);
        excess = _mm256_or_si256(excess, _mm256_subs_epu16(_mm256_sub_epi16(bytes, _mm256_set1_epi16(2)), most));
    }
    return found == count && _mm256_testz_si256(excess, excess) &&
           (p[out->places[count]] == '|' || p[out->places[count]] == '\n');
}

/* Which bytes of a text become eight digits, with zero bytes before them. */
#define FROM(length, i) ((i) < 8 - (length) ? 0x80 : (i) - (8 - (length)))
#define WHOLE(n) {FROM(n, 0), FROM(n, 1), FROM(n, 2), FROM(n, 3), FROM(n, 4), FROM(n, 5), FROM(n, 6), FROM(n, 7)}
#define PAST(w, at) ((at) == 0x80 || (at) < (w) ? (at) : (at) + 1) /* the point is left out */
#define REAL_BYTE(w, d, i) PAST(w, FROM((w) + (d), i))
#define REAL(w, d)                                                                                                     \
    {REAL_BYTE(w, d, 0), REAL_BYTE(w, d, 1), REAL_BYTE(w, d, 2), REAL_BYTE(w, d, 3),                                   \
     REAL_BYTE(w, d, 4), REAL_BYTE(w, d, 5), REAL_BYTE(w, d, 6), REAL_BYTE(w, d, 7)}

static const uint8_t whole_bytes[QUANTITY + 1][8] = {WHOLE(1), WHOLE(2), WHOLE(3), WHOLE(4),
                                                      WHOLE(5), WHOLE(6), WHOLE(7), WHOLE(8)};
static const uint8_t real_bytes[PRICE + 1][DECIMALS + 1][8] = {
    {REAL(1, 1), REAL(1, 2), REAL(1, 3)}, {REAL(2, 1), REAL(2, 2), REAL(2, 3)}, {REAL(3, 1), REAL(3, 2), REAL(3, 3)},
    {REAL(4, 1), REAL(4, 2), REAL(4, 3)}, {REAL(5, 1), REAL(5, 2), REAL(5, 3)},
};

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i pick(const uint8_t *text, const uint8_t *bytes)
{
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)text),
                            _mm_loadl_epi64((const __m128i *)(const void *)bytes));
}

/* The digits of the number that ends at a mark. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i quantity(const uint8_t *p, const marks *at, unsigned mark)
{
    return pick(p + at->places[mark] + 1, whole_bytes[length_before(at, mark) - 1]);
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i real(const uint8_t *p, unsigned wholes, unsigned decimals)
{
    return pick(p, real_bytes[wholes - 1][decimals - 1]);
}

/* The same of one whose point is the mark. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i price(const uint8_t *p, const marks *at, unsigned mark)
{
    return real(p + (uint16_t)(at->places[mark] + 1), length_before(at, mark), length_before(at, mark + 1));
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE double scale(const marks *at, unsigned mark)
{
    return jvq_pow10[length_before(at, mark + 1)];
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256i four_words(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi64(a, b)), _mm_unpacklo_epi64(c, d), 1);
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256i four_digits(__m256i text)
{
    const __m256i digits = _mm256_subs_epu8(text, _mm256_set1_epi8('0'));
    return _mm256_madd_epi16(_mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010A)), _mm256_set1_epi32(0x00010064));
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256i eight_numbers(__m128i a, __m128i b, __m128i c, __m128i d, __m128i e,
                                                        __m128i f, __m128i g, __m128i h)
{
    const __m256i fours = _mm256_packus_epi32(four_digits(four_words(a, b, e, f)), four_digits(four_words(c, d, g, h)));
    return _mm256_madd_epi16(fours, _mm256_set1_epi32(0x00012710));
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256d as_prices(__m128i four, __m256d scales)
{
    return _mm256_div_pd(_mm256_cvtepi32_pd(four), scales);
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m256d as_quantities(__m128i four)
{
    return _mm256_castsi256_pd(_mm256_cvtepu32_epi64(four));
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i low(__m256i eight) { return _mm256_castsi256_si128(eight); }

static JVQ_AVX2 JVQ_ALWAYS_INLINE __m128i high(__m256i eight) { return _mm256_extracti128_si256(eight, 1); }

static JVQ_AVX2 JVQ_ALWAYS_INLINE double total(const uint8_t *p, const marks *at, unsigned mark)
{
    const unsigned wholes = length_before(at, mark), decimals = length_before(at, mark + 1);
    const uint64_t digits = jvq_many_digits(p + at->places[mark] + 1, wholes) * jvq_whole_pow10[decimals] +
                            jvq_few_digits(p + at->places[mark + 1] + 1, decimals);
    return (double)(int64_t)digits / jvq_pow10[decimals];
}

static JVQ_AVX2 JVQ_ALWAYS_INLINE int64_t whole_total(const uint8_t *p, const marks *at, unsigned mark)
{
    return (int64_t)jvq_many_digits(p + at->places[mark] + 1, length_before(at, mark));
}

/* Of a quote's ten pairs of a quantity and a price. */
#define Q(i) quantity(p, &at, 7 + 3 * (i))
#define P(i) price(p, &at, 8 + 3 * (i))
#define S(i) scale(&at, 8 + 3 * (i))

#define STORE(field, four) _mm256_storeu_pd((double *)(void *)((uint8_t *)out + offsetof(field_of, field)), four)

static JVQ_AVX2 JVQ_ALWAYS_INLINE const uint8_t *scan_quote(const uint8_t *p, bool second, block_reader *read_block,
                                                            place_writer *write_places, jvq_quote *out)
{
    typedef jvq_quote field_of;
    const __m128i none = _mm_setzero_si128();
    __m256i numbers;
    __m256d four;
    marks at;
    __m128i change;
    unsigned change_wholes;
    bool negative;

    if (!find_marks(p, &quote_layouts[second], QUOTE_MARKS, true, read_block, write_places, &at))
        return NULL;
    negative = p[at.places[2] + 1] == '-';
    change_wholes = length_before(&at, 2) - negative;
    if (change_wholes - 1 > PRICE)
        return NULL;
    change = real(p + at.places[2] + 1 + negative, change_wholes, length_before(&at, 3));
    out->volume = whole_total(p, &at, second ? 4 : 6);
    out->amount = total(p, &at, second ? 5 : 4);

    /* as they stand in the record, four at a time; what a store puts too far the next one puts right */
    numbers = eight_numbers(P(0), P(1), P(2), P(3), P(4), Q(0), Q(1), Q(2));
    STORE(bid_price, as_prices(low(numbers), _mm256_setr_pd(S(0), S(1), S(2), S(3))));
    four = as_prices(high(numbers), _mm256_set1_pd(S(4)));
    STORE(bid_price[4], _mm256_blend_pd(as_quantities(high(numbers)), four, 1));

    numbers = eight_numbers(Q(3), Q(4), P(5), P(6), P(7), P(8), P(9), Q(5));
    four = as_prices(low(numbers), _mm256_setr_pd(1, 1, S(5), S(6)));
    STORE(bid_volume[3], _mm256_blend_pd(as_quantities(low(numbers)), four, 12));
    four = as_prices(high(numbers), _mm256_setr_pd(S(7), S(8), S(9), 1));
    STORE(ask_price[2], _mm256_blend_pd(as_quantities(high(numbers)), four, 7));

    numbers = eight_numbers(Q(6), Q(7), Q(8), Q(9), price(p, &at, 0), change, none, none);
    STORE(ask_volume[1], as_quantities(low(numbers)));
    four = as_prices(high(numbers), _mm256_setr_pd(scale(&at, 0), scale(&at, 2), 1, 1));
    out->price = _mm256_cvtsd_f64(four);
    out->change = _mm_cvtsd_f64(_mm_unpackhi_pd(_mm256_castpd256_pd128(four), _mm256_castpd256_pd128(four)));
    if (negative)
        out->change = -out->change;
    return p + at.places[QUOTE_MARKS];
}

#undef Q
#undef P
#undef S

/* Of a depth's ten prices and ten quantities of each side. */
#define BQ(i) quantity(p, &at, quantities + (i))
#define AQ(i) quantity(p, &at, quantities + 30 + (i))
#define BP(i) price(p, &at, prices + 2 * (i))
#define AP(i) price(p, &at, prices + 30 + 2 * (i))
#define BS(i) scale(&at, prices + 2 * (i))
#define AS(i) scale(&at, prices + 30 + 2 * (i))

static JVQ_AVX2 JVQ_ALWAYS_INLINE const uint8_t *scan_depth(const uint8_t *p, bool second, block_reader *read_block,
                                                            place_writer *write_places, jvq_depth *out)
{
    typedef jvq_depth field_of;
    const unsigned prices = second ? 17 : 7, quantities = second ? 7 : 27;
    const __m128i none = _mm_setzero_si128();
    __m256i numbers;
    __m256d four;
    marks at;

    if (!find_marks(p, &depth_layouts[second], DEPTH_MARKS, false, read_block, write_places, &at))
        return NULL;
    out->amount = total(p, &at, 4);
    out->volume = whole_total(p, &at, 6);
    numbers = eight_numbers(price(p, &at, 0), price(p, &at, 2), none, none, none, none, none, none);
    four = as_prices(low(numbers), _mm256_setr_pd(scale(&at, 0), scale(&at, 2), 1, 1));
    out->price = _mm256_cvtsd_f64(four);
    out->last_close = _mm_cvtsd_f64(_mm_unpackhi_pd(_mm256_castpd256_pd128(four), _mm256_castpd256_pd128(four)));

    numbers = eight_numbers(BP(0), BP(1), BP(2), BP(3), BP(4), BP(5), BP(6), BP(7));
    STORE(bid_price[0], as_prices(low(numbers), _mm256_setr_pd(BS(0), BS(1), BS(2), BS(3))));
    STORE(bid_price[4], as_prices(high(numbers), _mm256_setr_pd(BS(4), BS(5), BS(6), BS(7))));
    numbers = eight_numbers(BP(8), BP(9), BQ(0), BQ(1), BQ(2), BQ(3), BQ(4), BQ(5));
    four = as_prices(low(numbers), _mm256_setr_pd(BS(8), BS(9), 1, 1));
    STORE(bid_price[8], _mm256_blend_pd(as_quantities(low(numbers)), four, 3));
    STORE(bid_volume[2], as_quantities(high(numbers)));
    numbers = eight_numbers(BQ(6), BQ(7), BQ(8), BQ(9), AP(0), AP(1), AP(2), AP(3));
    STORE(bid_volume[6], as_quantities(low(numbers)));
    STORE(ask_price[0], as_prices(high(numbers), _mm256_setr_pd(AS(0), AS(1), AS(2), AS(3))));
    numbers = eight_numbers(AP(4), AP(5), AP(6), AP(7), AP(8), AP(9), AQ(0), AQ(1));
    STORE(ask_price[4], as_prices(low(numbers), _mm256_setr_pd(AS(4), AS(5), AS(6), AS(7))));
    four = as_prices(high(numbers), _mm256_setr_pd(AS(8), AS(9), 1, 1));
    STORE(ask_price[8], _mm256_blend_pd(as_quantities(high(numbers)), four, 3));
    numbers = eight_numbers(AQ(2), AQ(3), AQ(4), AQ(5), AQ(6), AQ(7), AQ(8), AQ(9));
    STORE(ask_volume[2], as_quantities(low(numbers)));
    STORE(ask_volume[6], as_quantities(high(numbers)));
    return p + at.places[DEPTH_MARKS];
}

static JVQ_AVX2 const uint8_t *scan_quote_with_avx2(const uint8_t *p, bool second, jvq_quote *out)
{
    return scan_quote(p, second, read_block_with_avx2, write_places_with_avx2, out);
}

static JVQ_AVX2 const uint8_t *scan_depth_with_avx2(const uint8_t *p, bool second, jvq_depth *out)
{
    return scan_depth(p, second, read_block_with_avx2, write_places_with_avx2, out);
}

static JVQ_AVX512 const uint8_t *scan_quote_with_avx512(const uint8_t *p, bool second, jvq_quote *out)
{
    return scan_quote(p, second, read_block_with_avx512, write_places_with_avx512, out);
}

static JVQ_AVX512 const uint8_t *scan_depth_with_avx512(const uint8_t *p, bool second, jvq_depth *out)
{
    return scan_depth(p, second, read_block_with_avx512, write_places_with_avx512, out);
}

/* What readers copy meanwhile may be torn, and they know; so the stores may be as wide as they like. */
static JVQ_AVX2 JVQ_ALWAYS_INLINE void publish_with_avx2(jvq_ring *tape, jvq_ring *history, const uint8_t *record,
                                                         uint32_t size)
{
    uint8_t *const place = jvq_tape_claim(tape, size);
    uint8_t *const mirror = place + jvq_tape_mirror(tape, size);
    uint8_t *const own = history ? jvq_history_claim(history, size) : place;

    for (uint32_t i = 0; i < size; i += 32) {
        const uint32_t at = i + 32 <= size ? i : size - 32;
        const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)(record + at));
        _mm256_storeu_si256((__m256i *)(void *)(place + at), words);
        _mm256_storeu_si256((__m256i *)(void *)(mirror + at), words);
        _mm256_storeu_si256((__m256i *)(void *)(own + at), words);
    }
    jvq_ring_publish(tape);
    if (history) {
        jvq_ring_publish(history);
        jvq_history_prefetch(history, size, size); /* the next one comes seconds later */
    }
}

static JVQ_AVX2 void publish_quote_with_avx2(jvq_ring *tape, jvq_ring *history, const void *record)
{
    publish_with_avx2(tape, history, record, sizeof(jvq_quote));
}

static JVQ_AVX2 void publish_depth_with_avx2(jvq_ring *tape, jvq_ring *history, const void *record)
{
    publish_with_avx2(tape, history, record, sizeof(jvq_depth));
}

/* Zen, zen 2 and the cores made after them by Hygon do it in microcode, and so do those before. */
static bool extracts_bits_fast(void)
{
    unsigned leaves, vendor[3];
    if (__builtin_cpu_is("bdver4") || __builtin_cpu_is("amdfam17h"))
        return false;
    return !__get_cpuid(0, &leaves, &vendor[0], &vendor[2], &vendor[1]) || memcmp(vendor, "HygonGenuine", 12) != 0;
}

static const jvq_snapshot_kernels with_avx2 = {scan_quote_with_avx2, scan_depth_with_avx2, publish_quote_with_avx2,
                                               publish_depth_with_avx2};
static const jvq_snapshot_kernels with_avx512 = {scan_quote_with_avx512, scan_depth_with_avx512,
                                                 publish_quote_with_avx2, publish_depth_with_avx2};
#endif

const jvq_snapshot_kernels *jvq_choose_snapshot_kernels(int processor)
{
#if JVQ_HAS_AVX2
    if (processor == JVQ_WITH_AVX512)
        return &with_avx512;
    if (processor == JVQ_WITH_AVX2 && extracts_bits_fast())
        return &with_avx2;
#endif
    (void)processor;
    return &for_any_processor;
}
