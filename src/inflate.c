#include "inflate.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define WITH_BMI2
#include <immintrin.h>
#endif

/*
 * Messages are small, and building the tables of a block is most of the work with one. So the symbols that occur are
 * collected while their lengths are read, a table is as large as the longest code asks for, and those of fixed blocks
 * are ready.
 *
 * In larger ones most of the time goes into waiting: where a code begins is known when the one before it was looked up,
 * and whether a literal or a match comes next is not foreseen by the processor. There an entry of the table is of two
 * codes where both fit into the index: a literal, and the literal or the length behind it.
 *
 * Every message is decoded twice at most: in the hope that it is sound and fits, looking as seldom as possible; and
 * where that hope fails, from the start once more, with a look at every step, which tells what is wrong.
 */

enum { LITERALS_ROOT = 11, PAIRS_ROOT = 10, DISTANCES_ROOT = 8, LONGEST_CODE = 15, END_OF_BLOCK = 256 };
enum { MOST_LITERALS = 288, MOST_DISTANCES = 32, MOST_LENGTHS = 286 + 30 };

/*
 * An entry of a table:
 *   bits 0-5    bits to drop: of its codes, and of the extra bits behind them; of a link, those of the index it is at
 *   bit 6       no length behind the literals
 *   bit 7       special, neither literal nor length nor distance: a link, the end of the block, or no code at all
 *   bits 8-11   bits of the codes alone; of a link, those of the index into the table that it leads to
 *   bits 12-13  which of the special ones it is
 *   bits 14-15  how many literals
 *   bits 16-31  the first literal, and above it the second one, or the base of the length less 3;
 *               the base of a distance; where the table of a link begins
 */
#define NO_LENGTH 0x40u
#define SPECIAL 0x80u
#define LINK (SPECIAL | NO_LENGTH | 0x1000u)
#define END (SPECIAL | NO_LENGTH | 0x2000u)
#define NO_CODE (SPECIAL | NO_LENGTH)
#define ONE_LITERAL 0x4000u
#define BOTH_BITS 0x101u

#define DROP(entry) ((entry) & 63)
#define CODE_BITS(entry) ((entry) >> 8 & 0xf)
#define LITERALS(entry) ((entry) >> 14 & 3)
#define VALUE(entry) ((entry) >> 16)
#define IS(entry, kind) (((entry) & (kind)) == (kind))
#define IS_LITERALS(entry) (((entry) & (NO_LENGTH | SPECIAL)) == NO_LENGTH)

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))

/* RFC 1951, 3.2.5 and 3.2.7 */
static const uint16_t LENGTH_BASES[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                          31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_EXTRAS[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
                                          3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASES[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                            33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                            1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t DISTANCE_EXTRAS[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                            6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
static const uint8_t LENGTHS_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

/* --- bits --- */

typedef struct source {
    const uint8_t *next, *end;
    uint64_t bits; /* above the lowest `n` they hold what comes next, or zeros */
    unsigned n;
} source;

INLINE uint64_t load64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

/* Of an entry, its literals or what its table holds in their place: two bytes always. */
INLINE void store_literals(uint8_t *to, uint32_t entry)
{
    uint16_t both = (uint16_t)VALUE(entry);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    both = __builtin_bswap16(both);
#endif
    memcpy(to, &both, 2);
}

INLINE void copy64(uint8_t *to, const uint8_t *from) { memcpy(to, from, 8); }

/* At least 56 bits, where eight bytes are there to be read. */
INLINE void refill_fast(source *in)
{
    in->bits |= load64(in->next) << in->n;
    in->next += (63 - in->n) >> 3;
    in->n |= 56;
}

/* As many as there are, and 56 are enough. */
INLINE void refill(source *in)
{
    if (LIKELY(in->end - in->next >= 8)) {
        refill_fast(in);
        return;
    }
    while (in->n < 56 && in->next < in->end) {
        in->bits |= (uint64_t)*in->next++ << in->n;
        in->n += 8;
    }
}

INLINE void drop(source *in, unsigned n)
{
    in->bits >>= n;
    in->n -= n;
}

INLINE uint32_t low(uint64_t bits, unsigned n) { return (uint32_t)(bits & ((1u << n) - 1)); }

/* The lowest bits, as many as the lowest byte of `n` says: with BMI2 an instruction, which compilers do not find. */
typedef uint32_t low_bits(uint32_t bits, uint32_t n);

INLINE uint32_t low_anywhere(uint32_t bits, uint32_t n) { return bits & ((1u << (n & 0xff)) - 1); }

#ifdef WITH_BMI2
__attribute__((target("bmi2"))) static inline uint32_t low_with_bmi2(uint32_t bits, uint32_t n)
{
    return _bzhi_u32(bits, n);
}
#endif

/* What the extra bits of a length or a distance say; `bits` still begin with its code. What such an entry holds above
 * the number of the code's bits a shift takes no notice of. */
INLINE uint32_t extra(uint32_t entry, uint64_t bits, low_bits *low_of)
{
    return low_of((uint32_t)bits, entry) >> (entry >> 8 & 31);
}

INLINE uint32_t length_of(uint32_t entry, uint64_t bits, low_bits *low_of)
{
    return (entry >> 24) + 3 + extra(entry, bits, low_of);
}

INLINE uint32_t distance_of(uint32_t entry, uint64_t bits, low_bits *low_of)
{
    return VALUE(entry) + extra(entry, bits, low_of);
}

/* Where a link leads. The bits to drop are those of the entry there; the link has none of its own. */
INLINE uint32_t followed(const uint32_t *table, uint32_t link, uint64_t bits)
{
    return table[VALUE(link) + low(bits >> DROP(link), CODE_BITS(link))];
}

/* --- tables --- */

typedef struct symbol {
    uint16_t value;
    uint8_t bits;
} symbol;

/* What a symbol's entry is without its code's length. */
INLINE uint32_t literal_entry(unsigned value)
{
    if (value < END_OF_BLOCK)
        return NO_LENGTH | ONE_LITERAL | (uint32_t)value << 16;
    if (value == END_OF_BLOCK)
        return END;
    if (value > 285)
        return NO_CODE;
    return (uint32_t)(LENGTH_BASES[value - 257] - 3) << 24 | LENGTH_EXTRAS[value - 257];
}

INLINE uint32_t distance_entry(unsigned value)
{
    if (value > 29)
        return NO_CODE;
    return (uint32_t)DISTANCE_BASES[value] << 16 | DISTANCE_EXTRAS[value];
}

/* The code behind this one, both with their first bit lowest. Not for the last one, all ones. */
INLINE uint32_t code_behind(uint32_t code, unsigned bits)
{
    uint32_t bit = 0x80000000u >> __builtin_clz(code ^ ((1u << bits) - 1));
    return (code & (bit - 1)) | bit;
}

/*
 * Codes longer than the index of a table, from `code` and `*next` on: each beginning that they share is a link to a table
 * behind the others, as large as the longest of them needs.
 */
static void make_links(uint32_t *table, unsigned index_bits, uint32_t code, unsigned bits, const uint32_t *next,
                       const uint16_t counts[LONGEST_CODE + 1])
{
    uint32_t used = 1u << index_bits, beginning = ~0u, at = 0;
    unsigned sub_bits = 0;

    for (;; bits++) {
        unsigned count;
        for (count = counts[bits]; count; count--) {
            uint32_t i;
            if (low(code, index_bits) != beginning) {
                unsigned longer = bits;
                uint32_t room = count;
                beginning = low(code, index_bits);
                at = used;
                for (sub_bits = bits - index_bits; room < 1u << sub_bits; sub_bits++)
                    room = (room << 1) + counts[++longer];
                used += 1u << sub_bits;
                table[beginning] = LINK | at << 16 | sub_bits << 8 | index_bits;
            }
            for (i = code >> index_bits; i < 1u << sub_bits; i += 1u << (bits - index_bits))
                table[at + i] = *next;
            next++;
            if (code == (1u << bits) - 1)
                return;
            code = code_behind(code, bits);
        }
    }
}

/* What is added to the entry of a literal for the symbol behind it. */
INLINE uint32_t behind_literal(uint32_t entry)
{
    if (entry & NO_LENGTH)
        return DROP(entry) * BOTH_BITS + ONE_LITERAL + (VALUE(entry) << 24);
    return entry - NO_LENGTH;
}

enum { LEAST_BEHIND = 3 };

/*
 * Makes pairs of the literals that leave room in the index for the code behind them, so much that it pays. `sorted` are
 * the entries of the symbols by the lengths of their codes; the table holds them one by one.
 */
static void add_pairs(uint32_t *table, const uint32_t *sorted, const uint16_t counts[LONGEST_CODE + 1])
{
    uint32_t seconds[1 << (PAIRS_ROOT - 1)], code = 0; /* by the bits behind the literal; 0 for a code that is longer */
    uint16_t codes[MOST_LITERALS], ends[PAIRS_ROOT];
    unsigned n = 0, bits, i, k;

    ends[0] = 0;
    for (bits = 1; bits < PAIRS_ROOT; bits++) {
        for (i = counts[bits]; i; i--) {
            codes[n++] = (uint16_t)code;
            if (code == (1u << bits) - 1)
                break;
            code = code_behind(code, bits);
        }
        ends[bits] = (uint16_t)n;
    }
    seconds[0] = 0;
    for (bits = 1; bits < PAIRS_ROOT; bits++) {
        unsigned first_bits = PAIRS_ROOT - bits;
        uint32_t size = 1u << bits;
        memcpy(seconds + size / 2, seconds, size / 2 * sizeof *seconds);
        for (i = ends[bits - 1]; i < ends[bits]; i++)
            if (!(sorted[i] & SPECIAL))
                seconds[codes[i]] = behind_literal(sorted[i]);
        if (bits < LEAST_BEHIND)
            continue;
        for (i = ends[first_bits - 1]; i < ends[first_bits]; i++)
            if (IS_LITERALS(sorted[i])) {
                uint32_t *to = table + codes[i];
                for (k = 0; k < size; k++, to += (size_t)1 << first_bits)
                    *to = sorted[i] + seconds[k];
            }
    }
}

/*
 * Makes the table of a code from its `n` symbols in their order, `counts` of them by length. `has_pairs`: they are
 * literals and lengths, and `root` is PAIRS_ROOT.
 * The bits of its index; 0 for lengths that are no code: only a single one may leave others unused.
 */
INLINE unsigned make_table(uint32_t *table, unsigned root, const symbol *symbols, unsigned n,
                           const uint16_t counts[LONGEST_CODE + 1], uint32_t (*entry_of)(unsigned), bool has_pairs)
{
    uint16_t offsets[LONGEST_CODE + 2];
    uint32_t sorted[MOST_LITERALS], code = 0, left = 1;
    unsigned longest = LONGEST_CODE, bits = 1, index_bits, i;
    const uint32_t *next = sorted;

    if (n == 0) {
        table[0] = table[1] = NO_CODE | 1;
        return 1;
    }
    while (!counts[longest])
        longest--;
    offsets[1] = 0;
    for (i = 1; i <= longest; i++) {
        left <<= 1;
        if (left < counts[i])
            return 0;
        left -= counts[i];
        offsets[i + 1] = (uint16_t)(offsets[i] + counts[i]);
    }
    if (left && (longest != 1 || n != 1))
        return 0;
    for (i = 0; i < n; i++)
        sorted[offsets[symbols[i].bits]++] = entry_of(symbols[i].value) + symbols[i].bits * BOTH_BITS;
    if (left) {
        table[0] = sorted[0];
        table[1] = NO_CODE | 1;
        return 1;
    }
    index_bits = longest < root && !has_pairs ? longest : root;
    /* A table for codes of so many bits, and for those of one more it is doubled. */
    for (;; bits++) {
        uint32_t size = 1u << bits;
        unsigned count;
        for (count = counts[bits]; count; count--) {
            table[code] = *next++;
            if (code == size - 1) {
                for (; size < 1u << index_bits; size <<= 1)
                    memcpy(table + size, table, size * sizeof *table);
                goto done;
            }
            code = code_behind(code, bits);
        }
        if (bits == index_bits)
            break;
        if (code)
            memcpy(table + size, table, size * sizeof *table);
    }
    make_links(table, index_bits, code, bits + 1, next, counts);
done:
    if (has_pairs)
        add_pairs(table, sorted, counts);
    return index_bits;
}

void jvq_inflater_init(jvq_inflater *inflater)
{
    symbol symbols[MOST_LITERALS];
    uint16_t counts[LONGEST_CODE + 1] = {0};
    unsigned i;

    for (i = 0; i < MOST_LITERALS; i++) {
        symbols[i].value = (uint16_t)i;
        symbols[i].bits = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
        counts[symbols[i].bits]++;
    }
    make_table(inflater->fixed_literals, JVQ_FIXED_LITERAL_BITS, symbols, MOST_LITERALS, counts, literal_entry, false);
    memset(counts, 0, sizeof counts);
    for (i = 0; i < MOST_DISTANCES; i++) {
        symbols[i].value = (uint16_t)i;
        symbols[i].bits = JVQ_FIXED_DISTANCE_BITS;
    }
    counts[JVQ_FIXED_DISTANCE_BITS] = MOST_DISTANCES;
#ifdef WITH_BMI2
    inflater->has_bmi2 = __builtin_cpu_supports("bmi2");
#endif
    make_table(inflater->fixed_distances, JVQ_FIXED_DISTANCE_BITS, symbols, MOST_DISTANCES, counts, distance_entry,
               false);
}

/*
 * The table of the code of code lengths, `counts` of them by length from 1 on: symbol times 8, plus bits. The mask of its
 * index; 0 where it is no code.
 */
INLINE unsigned make_lengths_table(uint8_t table[128], const uint8_t lengths[19], const uint8_t counts[8])
{
    uint8_t offsets[9], sorted[19];
    const uint8_t *next = sorted;
    uint32_t code = 0, left = 1;
    unsigned longest = 7, bits, i;

    while (longest && !counts[longest])
        longest--;
    offsets[1] = 0;
    for (bits = 1; bits <= longest; bits++) {
        left <<= 1;
        if (left < counts[bits])
            return 0;
        left -= counts[bits];
        offsets[bits + 1] = (uint8_t)(offsets[bits] + counts[bits]);
    }
    if (left)
        return 0;
    for (i = 0; i < 19; i++)
        if (lengths[i])
            sorted[offsets[lengths[i]]++] = (uint8_t)(i << 3 | lengths[i]);
    for (bits = 1;; bits++) {
        uint32_t size = 1u << bits;
        unsigned count;
        for (count = counts[bits]; count; count--) {
            table[code] = *next++;
            if (code != size - 1)
                code = code_behind(code, bits);
        }
        if (bits == longest)
            return size - 1;
        memcpy(table + size, table, size);
    }
}

/* A source that is padded has so many zeros behind its end; where so much of it is left, pairs are worth making. */
enum { ZEROS = 64, WORTH_PAIRS = 300 };

/*
 * The tables of a dynamic block, and the bits of their indices. `is_hopeful`: the source is padded, or has more than any
 * header needs; whether what was taken was input is looked at later.
 */
INLINE jvq_inflate_status read_tables(jvq_inflater *inflater, source *from, unsigned *literal_bits,
                                      unsigned *distance_bits, bool is_hopeful)
{
    source in = *from;
    symbol symbols[MOST_LENGTHS];
    uint16_t literal_counts[LONGEST_CODE + 1] = {0}, distance_counts[LONGEST_CODE + 1] = {0};
    uint8_t lengths[19] = {0}, length_counts[8] = {0}, table[128];
    unsigned n_literals, n_distances, n_lengths, total, i, n = 0, split, previous = 16, index_mask;
    bool has_end = false, has_pairs;

#define NEED(n_bits)                                                                                                   \
    do {                                                                                                               \
        if (!is_hopeful && UNLIKELY(in.n < (n_bits)))                                                                  \
            return JVQ_INFLATE_TRUNCATED;                                                                              \
    } while (0)
#define MORE()                                                                                                         \
    do {                                                                                                               \
        if (!is_hopeful)                                                                                               \
            refill(&in);                                                                                               \
        else if (UNLIKELY(in.next > in.end + (ZEROS - 8)))                                                             \
            return JVQ_INFLATE_TRUNCATED;                                                                              \
        else                                                                                                           \
            refill_fast(&in);                                                                                          \
    } while (0)

    MORE();
    NEED(14);
    n_literals = low(in.bits, 5) + 257;
    n_distances = low(in.bits >> 5, 5) + 1;
    n_lengths = low(in.bits >> 10, 4) + 4;
    drop(&in, 14);
    if (n_literals > 286 || n_distances > 30)
        return JVQ_INFLATE_CORRUPT;
    total = n_literals + n_distances;
    for (i = 0; i < n_lengths; i++) {
        if (in.n < 3)
            MORE();
        NEED(3);
        lengths[LENGTHS_ORDER[i]] = (uint8_t)low(in.bits, 3);
        length_counts[low(in.bits, 3)]++;
        drop(&in, 3);
    }
    index_mask = make_lengths_table(table, lengths, length_counts);
    if (!index_mask) {
        static const uint8_t none[19];
        /* zlib takes a code without codes, and a bit for each length, before it says that there is no end. */
        if (!is_hopeful && !memcmp(lengths, none, sizeof none) && in.n + 8 * (size_t)(in.end - in.next) < total)
            return JVQ_INFLATE_TRUNCATED;
        return JVQ_INFLATE_CORRUPT;
    }

    for (i = 0; i < total;) {
        unsigned entry, bits, value, extra, repeat;
        if (in.n < 14)
            MORE();
        entry = table[in.bits & index_mask];
        bits = entry & 7;
        value = entry >> 3;
        NEED(bits);
        if (value < 16) {
            drop(&in, bits);
            previous = value;
            /* Whether a symbol occurs is hard to foresee: one that does not is written over, not left out. */
            symbols[n].value = (uint16_t)i++;
            symbols[n].bits = (uint8_t)value;
            n += value != 0;
            continue;
        }
        if (value == 16) {
            NEED(bits + 2);
            if (previous == 16)
                return JVQ_INFLATE_CORRUPT; /* nothing to repeat */
            repeat = 3 + low(in.bits >> bits, 2);
            drop(&in, bits + 2);
            if (i + repeat > total)
                return JVQ_INFLATE_CORRUPT;
            if (!previous) {
                i += repeat;
                continue;
            }
            for (; repeat; repeat--) {
                symbols[n].value = (uint16_t)i++;
                symbols[n++].bits = (uint8_t)previous;
            }
            continue;
        }
        extra = value == 17 ? 3 : 7;
        NEED(bits + extra);
        i += (value == 17 ? 3 : 11) + low(in.bits >> bits, extra);
        drop(&in, bits + extra);
        previous = 0;
        if (i > total)
            return JVQ_INFLATE_CORRUPT;
    }
#undef NEED
#undef MORE

    for (split = 0; split < n && symbols[split].value < n_literals; split++) {
        literal_counts[symbols[split].bits]++;
        has_end |= symbols[split].value == END_OF_BLOCK;
    }
    for (i = split; i < n; i++) {
        distance_counts[symbols[i].bits]++;
        symbols[i].value = (uint16_t)(symbols[i].value - n_literals);
    }
    if (!has_end)
        return JVQ_INFLATE_CORRUPT;
    has_pairs = is_hopeful && in.end - in.next >= WORTH_PAIRS;
    *literal_bits = make_table(inflater->literals, has_pairs ? PAIRS_ROOT : LITERALS_ROOT, symbols, split,
                               literal_counts, literal_entry, has_pairs);
    *distance_bits = make_table(inflater->distances, DISTANCES_ROOT, symbols + split, n - split, distance_counts,
                                distance_entry, false);
    *from = in;
    return *literal_bits && *distance_bits ? JVQ_INFLATED : JVQ_INFLATE_CORRUPT;
}

/* --- with a look at every step --- */

static jvq_inflate_status inflate_carefully(jvq_inflater *inflater, const uint8_t *data, size_t size,
                                            uint8_t *const out_begin, size_t room, size_t *written, size_t *consumed)
{
    source in = {data, data + size, 0, 0};
    uint8_t *out = out_begin, *const out_end = out_begin + room;
    jvq_inflate_status status = JVQ_INFLATE_TRUNCATED;
    bool is_last;

#define NEED(n_bits)                                                                                                   \
    do {                                                                                                               \
        if (in.n < (n_bits))                                                                                           \
            goto done;                                                                                                 \
    } while (0)
#define FAIL(why)                                                                                                      \
    do {                                                                                                               \
        status = (why);                                                                                                \
        goto done;                                                                                                     \
    } while (0)

    do {
        const uint32_t *literals = inflater->fixed_literals, *distances = inflater->fixed_distances;
        unsigned literal_bits = JVQ_FIXED_LITERAL_BITS, distance_bits = JVQ_FIXED_DISTANCE_BITS, kind;

        refill(&in);
        NEED(3);
        is_last = in.bits & 1;
        kind = low(in.bits >> 1, 2);
        drop(&in, 3);
        if (kind == 3)
            FAIL(JVQ_INFLATE_CORRUPT);
        if (kind == 0) {
            size_t length, here;
            drop(&in, in.n & 7);
            refill(&in);
            NEED(32);
            length = low(in.bits, 16);
            if ((length ^ 0xffff) != low(in.bits >> 16, 16))
                FAIL(JVQ_INFLATE_CORRUPT);
            drop(&in, 32);
            in.next -= in.n >> 3; /* whole bytes that were read ahead */
            in.bits = 0;
            in.n = 0;
            here = length;
            if (here > (size_t)(in.end - in.next))
                here = (size_t)(in.end - in.next);
            if (here > (size_t)(out_end - out))
                here = (size_t)(out_end - out);
            if (here) /* null pointers are fine where there is nothing */
                memcpy(out, in.next, here);
            out += here;
            in.next += here;
            if (here < length)
                goto done;
            continue;
        }
        if (kind == 2) {
            jvq_inflate_status found = read_tables(inflater, &in, &literal_bits, &distance_bits, false);
            if (found != JVQ_INFLATED)
                FAIL(found);
            literals = inflater->literals;
            distances = inflater->distances;
        }
        for (;;) {
            uint32_t entry, length, distance;

            refill(&in);
            entry = literals[low(in.bits, literal_bits)];
            if (IS(entry, LINK))
                entry = followed(literals, entry, in.bits);
            NEED(DROP(entry));
            if (!(entry & SPECIAL) && entry & NO_LENGTH) {
                if (out == out_end)
                    FAIL(JVQ_INFLATE_ROOM);
                drop(&in, DROP(entry));
                *out++ = (uint8_t)VALUE(entry);
                continue;
            }
            if (entry & SPECIAL) {
                drop(&in, DROP(entry));
                if (IS(entry, END))
                    break;
                FAIL(JVQ_INFLATE_CORRUPT);
            }
            length = length_of(entry, in.bits, low_anywhere);
            drop(&in, DROP(entry));
            refill(&in);
            entry = distances[low(in.bits, distance_bits)];
            if (IS(entry, LINK))
                entry = followed(distances, entry, in.bits);
            NEED(DROP(entry));
            if (entry & SPECIAL)
                FAIL(JVQ_INFLATE_CORRUPT);
            distance = distance_of(entry, in.bits, low_anywhere);
            drop(&in, DROP(entry));
            if (out == out_end)
                FAIL(JVQ_INFLATE_ROOM);
            if (distance > (size_t)(out - out_begin))
                FAIL(JVQ_INFLATE_CORRUPT);
            for (; length && out < out_end; length--, out++)
                *out = *(out - distance);
            if (length)
                FAIL(JVQ_INFLATE_ROOM);
        }
    } while (!is_last);
    status = JVQ_INFLATED;
done:
#undef NEED
#undef FAIL
    if (status == JVQ_INFLATE_TRUNCATED && out == out_end)
        status = JVQ_INFLATE_ROOM;
    *written = (size_t)(out - out_begin);
    *consumed = (size_t)(in.next - data) - (in.n >> 3);
    return status;
}

/* --- in the hope that it is sound --- */

/* Of the output, a literal, the longest match, and how far its copy goes on behind it; of the input, what a step may
 * load, and what the header of a dynamic block may be. */
enum { ROOM_AHEAD = 1 + 258 + 24, FAR = 32, HEADER = 360, FARTHEST = 32768 };

/* From here on the input is read from a copy with zeros behind it; what was read ahead is read again. */
INLINE void pad(source *in, uint8_t *copy)
{
    size_t left;

    in->next -= in->n >> 3;
    in->n &= 7;
    in->bits = low(in->bits, in->n);
    left = (size_t)(in->end - in->next);
    if (left)
        memcpy(copy, in->next, left);
    memset(copy + left, 0, ZEROS);
    in->next = copy;
    in->end = copy + left;
}

/* To `to`, `length` bytes from `distance` before it; up to 24 bytes behind them may be written too. */
INLINE void copy_match(uint8_t *to, size_t length, size_t distance)
{
    const uint8_t *from = to - distance;
    uint8_t *const end = to + length;

    if (LIKELY(distance >= length)) {
        /* All of it is there. Read before any of it is written, it waits for no byte that is just being stored. */
        uint64_t first, second, third;
        memcpy(&first, from, 8);
        memcpy(&second, from + 8, 8);
        memcpy(&third, from + 16, 8);
        memcpy(to, &first, 8);
        memcpy(to + 8, &second, 8);
        memcpy(to + 16, &third, 8);
        for (to += 24, from += 24; UNLIKELY(to < end); to += 8, from += 8)
            copy64(to, from);
    } else if (distance >= 8) {
        for (; to < end; to += 8, from += 8)
            copy64(to, from);
    } else if (distance == 1) {
        memset(to, *from, length);
    } else {
        for (; to < end; to += distance, from += distance)
            copy64(to, from);
    }
}

/* By an offset in bytes: on some processors a load by a number of entries takes a cycle longer. */
INLINE uint32_t entry_at(const uint32_t *table, uint64_t offset)
{
    return *(const uint32_t *)(const void *)((const char *)table + offset);
}

INLINE bool inflate_hopefully(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *const out_begin,
                              size_t room, size_t *written, size_t *consumed, low_bits *low_of)
{
    uint8_t copy[HEADER + 8 + ZEROS];
    source in = {data, data + size, 0, 0};
    uint8_t *out = out_begin, *far_end;
    bool is_padded = false, is_last;
    size_t left;

    /* So near to address 0 the difference of an address and a distance could wrap around. */
    if (room < ROOM_AHEAD || (uintptr_t)out_begin <= FARTHEST)
        return false;
    far_end = out_begin + room - ROOM_AHEAD;

    do {
        const uint32_t *literals = inflater->fixed_literals, *distances = inflater->fixed_distances;
        unsigned literal_bits = JVQ_FIXED_LITERAL_BITS, distance_bits = JVQ_FIXED_DISTANCE_BITS, kind;
        uint32_t literal_mask, distance_mask;
        bool is_open = true;

        if (!is_padded && in.end - in.next < HEADER) {
            pad(&in, copy);
            is_padded = true;
        }
        if (UNLIKELY(is_padded && in.next > in.end))
            if ((size_t)(in.next - in.end) > in.n >> 3)
                return false;
        refill_fast(&in);
        is_last = in.bits & 1;
        kind = low(in.bits >> 1, 2);
        drop(&in, 3);
        if (kind == 3)
            return false;
        if (kind == 0) {
            size_t length;
            drop(&in, in.n & 7);
            refill_fast(&in);
            length = low(in.bits, 16);
            if ((length ^ 0xffff) != low(in.bits >> 16, 16))
                return false;
            drop(&in, 32);
            in.next -= in.n >> 3;
            in.bits = 0;
            in.n = 0;
            if (in.next > in.end || length > (size_t)(in.end - in.next) || out > far_end ||
                length > (size_t)(far_end - out))
                return false;
            memcpy(out, in.next, length);
            out += length;
            in.next += length;
            continue;
        }
        if (kind == 2) {
            if (read_tables(inflater, &in, &literal_bits, &distance_bits, true) != JVQ_INFLATED)
                return false;
            literals = inflater->literals;
            distances = inflater->distances;
        }
        literal_mask = ((1u << literal_bits) - 1) << 2;
        distance_mask = ((1u << distance_bits) - 1) << 2;

        while (is_open) {
            /*
             * Copies, which no byte that is written can change: the loop keeps them in registers.
             * Of `n` the lowest six bits count: a whole entry is taken off it, which saves a step. The lowest two of
             * `bits` are done with: what is above them gives the offset of an entry, not its number, which is faster.
             */
            const uint8_t *next, *next_end;
            uint64_t bits;
            uint32_t entry, n;

#define MORE() (bits |= load64(next) << (n & 63), next += 7, next -= n >> 3 & 7, n |= 56)
#define TAKE() (bits >>= DROP(entry), n -= entry)
#define LOOK_UP(table, mask) (entry = entry_at(table, bits & (mask)))
#define PUT_LITERALS() (store_literals(out, entry), out += LITERALS(entry))

            if (!is_padded && in.end - in.next < FAR) {
                pad(&in, copy);
                is_padded = true;
            }
            next = in.next;
            next_end = is_padded ? in.end + 8 : in.end - FAR;
            bits = in.bits << 2;
            n = in.n + 2;
            next -= n >> 6; /* 64 bits or more are a byte less and read once more */
            n -= n >> 6 << 3;
            if (UNLIKELY(next > next_end || out > far_end))
                return false;
            MORE();
            LOOK_UP(literals, literal_mask);
            do {
                uint32_t length, distance;

                PUT_LITERALS();
                if (entry & NO_LENGTH) {
                    if (UNLIKELY(entry & SPECIAL)) {
                        if (IS(entry, LINK)) {
                            entry = followed(literals, entry, bits >> 2);
                            continue;
                        }
                        if (!IS(entry, END))
                            return false;
                        TAKE();
                        is_open = false;
                        break;
                    }
                    /* Where one literal is, there often are more. */
                    TAKE();
                    LOOK_UP(literals, literal_mask);
                    if (IS_LITERALS(entry)) {
                        PUT_LITERALS();
                        TAKE();
                        LOOK_UP(literals, literal_mask);
                        if (IS_LITERALS(entry)) {
                            PUT_LITERALS();
                            TAKE();
                            LOOK_UP(literals, literal_mask);
                        }
                    }
                    MORE();
                    continue;
                }
                length = length_of(entry, bits >> 2, low_of);
                TAKE();
                LOOK_UP(distances, distance_mask);
                if (UNLIKELY(entry & SPECIAL)) {
                    if (!IS(entry, LINK))
                        return false;
                    entry = followed(distances, entry, bits >> 2);
                    if (entry & SPECIAL)
                        return false;
                }
                distance = distance_of(entry, bits >> 2, low_of);
                TAKE();
                if (UNLIKELY((uintptr_t)out - distance < (uintptr_t)out_begin))
                    return false;
                copy_match(out, length, distance);
                out += length;
                LOOK_UP(literals, literal_mask); /* the bits that are there suffice, and need not be waited for */
                MORE();
            } while (LIKELY(next <= next_end && out <= far_end));
#undef MORE
#undef TAKE
#undef LOOK_UP
#undef PUT_LITERALS
            in.next = next;
            in.bits = bits >> 2;
            in.n = (n & 63) - 2;
        }
    } while (!is_last);
    in.next -= in.n >> 3;
    if (in.next > in.end)
        return false; /* zeros that are not there were taken for input */
    left = (size_t)(in.end - in.next);
    *consumed = size - left;
    *written = (size_t)(out - out_begin);
    return true;
}

static bool inflate_anywhere(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                             size_t *written, size_t *consumed)
{
    return inflate_hopefully(inflater, data, size, out, room, written, consumed, low_anywhere);
}

/* Shifts by counts that are no constants are much of the work, and cheaper with BMI2. */
#ifdef WITH_BMI2
__attribute__((target("bmi2"))) static bool inflate_with_bmi2(jvq_inflater *inflater, const uint8_t *data, size_t size,
                                                              uint8_t *out, size_t room, size_t *written,
                                                              size_t *consumed)
{
    return inflate_hopefully(inflater, data, size, out, room, written, consumed, low_with_bmi2);
}
#endif

jvq_inflate_status jvq_inflate(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                               size_t *written, size_t *consumed)
{
#ifdef WITH_BMI2
    if (inflater->has_bmi2 ? inflate_with_bmi2(inflater, data, size, out, room, written, consumed)
                           : inflate_anywhere(inflater, data, size, out, room, written, consumed))
#else
    if (inflate_anywhere(inflater, data, size, out, room, written, consumed))
#endif
        return JVQ_INFLATED;
    return inflate_carefully(inflater, data, size, out, room, written, consumed);
}
