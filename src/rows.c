#include "rows.h"

#include <math.h>

static inline bool ends_record(uint8_t byte) { return byte == '|' || byte == '\n'; }

jvq_status jvq_fault(const uint8_t *start, const uint8_t *end, size_t limit, int fields, jvq_status first)
{
    bool has_equals = false;

    for (const uint8_t *p = start; p < end; p++) {
        fields -= *p == ',';
        has_equals |= *p == '=';
    }
    if ((size_t)(end - start) > limit)
        return JVQ_BAD_LENGTH;
    if (has_equals)
        return JVQ_BAD_EQUALS;
    return fields == 1 ? first : JVQ_BAD_FIELDS;
}

static inline bool two_digits(const uint8_t *p, int64_t below, int64_t *out)
{
    uint8_t tens = (uint8_t)(p[0] - '0'), ones;
    if (tens > 9)
        return false;
    ones = (uint8_t)(p[1] - '0');
    *out = tens * 10 + ones;
    return ones <= 9 && *out < below;
}

/* HH:MM:SS[.fraction], one to nine digits of it. Returns the byte behind, or NULL. */
static const uint8_t *scan_time(const uint8_t *p, int64_t *time_of_day)
{
    int64_t hours, minutes, seconds, fraction = 0;

    if (!two_digits(p, 24, &hours) || p[2] != ':' || !two_digits(p + 3, 60, &minutes) || p[5] != ':' ||
        !two_digits(p + 6, 60, &seconds))
        return NULL;
    p += 8;
    if (*p == '.') {
        int64_t unit = 100000000;
        uint8_t digit;
        if ((uint8_t)(*++p - '0') > 9)
            return NULL;
        while ((digit = (uint8_t)(*p - '0')) <= 9) {
            if (unit == 0)
                return NULL;
            fraction += digit * unit;
            unit /= 10;
            p++;
        }
    }
    *time_of_day = ((hours * 60 + minutes) * 60 + seconds) * INT64_C(1000000000) + fraction;
    return p;
}

static jvq_status parse_time(const uint8_t **cursor, int64_t *time_of_day)
{
    const uint8_t *p = scan_time(*cursor, time_of_day);
    if (!p || *p != ',')
        return JVQ_BAD_TIME;
    *cursor = p + 1;
    return JVQ_OK;
}

/* Free text up to the next comma. */
static jvq_status parse_text(const uint8_t **cursor, jvq_text *text)
{
    const uint8_t *p = *cursor;
    text->start = p;
    while (*p != ',' && *p != '=' && !ends_record(*p))
        p++;
    text->length = (size_t)(p - text->start);
    if (*p != ',')
        return JVQ_BAD_FIELDS;
    *cursor = p + 1;
    return JVQ_OK;
}

/* `count` numbers, the last of them followed by a comma, or by the record's end where `last` says so. */
static inline jvq_status parse_numbers(const uint8_t **cursor, jvq_number *numbers, int count, bool last,
                                       uint32_t *flags)
{
    const uint8_t *p = *cursor;
    for (int i = 0; i < count; i++) {
        p = jvq_number_scan(p, &numbers[i]);
        if (!p)
            return JVQ_BAD_NUMBER;
        if (numbers[i].empty)
            *flags |= JVQ_EMPTY_FIELD;
        if (last && i + 1 == count) {
            if (!ends_record(*p))
                return JVQ_BAD_NUMBER;
        } else if (*p++ != ',') {
            return JVQ_BAD_NUMBER;
        }
    }
    *cursor = p;
    return JVQ_OK;
}

static inline void decide_no_price(double price, uint32_t *flags)
{
    if (price == 0)
        *flags |= JVQ_NO_PRICE;
}

/* An id is opaque text that happens to be a decimal number in everything seen. */
static jvq_status parse_id(const uint8_t **cursor, int64_t *id, uint32_t *flags)
{
    const uint8_t *start = *cursor, *p = start;
    uint64_t value = 0;
    uint8_t digit;
    jvq_number number;
    jvq_text text;

    while ((digit = (uint8_t)(*p - '0')) <= 9) {
        value = value * 10 + digit;
        p++;
    }
    if (*p == ',' && p > start && p - start <= 18) {
        *id = (int64_t)value;
        *cursor = p + 1;
        return JVQ_OK;
    }
    number = (jvq_number){.text = start, .length = (uint32_t)(p - start)};
    if (*p != ',' || p == start || !jvq_decimal_whole(&number, id)) {
        *id = -1;
        *flags |= JVQ_ID_TEXT;
    }
    return parse_text(cursor, &text);
}

jvq_status jvq_parse_trade(const uint8_t **cursor, size_t limit, jvq_trade *out, int64_t *time_of_day)
{
    const uint8_t *start = *cursor;
    jvq_number numbers[2];
    jvq_status status;
    uint32_t flags = 0;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_id(cursor, &out->id, &flags)) ||
        (status = parse_numbers(cursor, numbers, 2, true, &flags)))
        return status;
    if ((size_t)(*cursor - start) > limit)
        return JVQ_BAD_LENGTH;
    if (!jvq_number_whole(&numbers[1], &out->volume))
        return JVQ_BAD_VOLUME;
    out->price = jvq_number_value(&numbers[0]);
    decide_no_price(out->price, &flags);
    out->flags = flags;
    out->zero = 0;
    return JVQ_OK;
}

/* --- field orders (PROTOCOL 2.2 and 2.4) --- */

enum { UNDECIDED = -1, FIRST = 0, SECOND = 1 };

#define VOTES_TO_SETTLE 3
#define RATIO_FITS 0.25    /* a day's mean price lies within this of the last one; otherwise the row says nothing */
#define TOO_NEAR_TO_ONE (0.02 + 1e-9) /* amount / volume and its inverse can't be told apart */

void jvq_order_restart(jvq_order *order)
{
    if (!order->forced) {
        order->second = order->settled = false;
        order->votes[0] = order->votes[1] = 0;
    }
}

/* Counts a row's vote. Three for one order settle it, for this row already; later ones against it are flagged. */
static void count_vote(jvq_order *order, int vote, uint32_t *flags)
{
    if (vote == UNDECIDED)
        return;
    if (order->settled) {
        if ((vote == SECOND) != order->second)
            *flags |= JVQ_ORDER_UNSURE;
    } else if (++order->votes[vote] == VOTES_TO_SETTLE) {
        order->second = vote == SECOND;
        order->settled = true;
    }
}

/* How far a ratio is from the price, as a factor >= 1; 0 where it does not fit. */
static double misfit(double ratio, double price)
{
    double factor = ratio / price;
    if (fabs(factor - 1) > RATIO_FITS || fabs(ratio - 1) <= TOO_NEAR_TO_ONE)
        return 0;
    return factor < 1 ? 1 / factor : factor;
}

/* Fields 4 and 5 of lv1: FIRST is amount, volume. */
static int vote_on_totals(double field4, double field5, const jvq_quote *quote)
{
    double price = quote->price, first, second;
    bool has_book = false;

    for (int i = 0; i < 5; i++)
        has_book |= quote->bid_price[i] > 0 || quote->ask_price[i] > 0;
    if (!has_book || !(field4 > 0) || !(field5 > 0) || !(price > 0) || fabs(price - 1) <= TOO_NEAR_TO_ONE)
        return UNDECIDED;
    first = misfit(field4 / field5, price);
    second = misfit(field5 / field4, price);
    if (first == 0 && second == 0)
        return UNDECIDED;
    if (first != 0 && second != 0)
        return first < second ? FIRST : second < first ? SECOND : UNDECIDED;
    return first != 0 ? FIRST : SECOND;
}

/* One side of a book: levels without a price come last, prices move away from the spread and stay near the last one.
 * Returns the levels that have a price, -1 where these can't be prices. */
static int levels_of(const jvq_number *block, double price, bool bids)
{
    double nearer = 0;
    int levels = 0;
    while (levels < 10) {
        double value = jvq_number_value(&block[levels]);
        if (value == 0)
            break;
        if (value < price * 0.5 || value > price * 2)
            return -1;
        if (levels && (bids ? value >= nearer : value <= nearer))
            return -1;
        nearer = value;
        levels++;
    }
    for (int i = levels; i < 10; i++)
        if (jvq_number_value(&block[i]) != 0)
            return -1;
    return levels;
}

static bool is_book(const jvq_number *bids, const jvq_number *asks, double price)
{
    int bid_levels = levels_of(bids, price, true);
    int ask_levels = bid_levels < 0 ? -1 : levels_of(asks, price, false);
    return ask_levels >= 0 && bid_levels + ask_levels > 0;
}

/* The blocks of each side of lv10: FIRST is prices, quantities. */
static int vote_on_blocks(jvq_number blocks[2][2][10], double price)
{
    bool first, second;

    if (!(price > 0))
        return UNDECIDED;
    first = is_book(blocks[0][0], blocks[1][0], price);
    second = is_book(blocks[0][1], blocks[1][1], price);
    return first == second ? UNDECIDED : first ? FIRST : SECOND;
}

/* --- snapshots --- */

jvq_status jvq_parse_quote(const uint8_t **cursor, size_t limit, bool is_index, jvq_order *order, jvq_quote *out,
                           int64_t *time_of_day, jvq_text *name)
{
    const uint8_t *start = *cursor;
    jvq_number numbers[24]; /* price, change, two totals, 10 x (quantity, price) */
    jvq_status status;
    uint32_t flags = 0;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_text(cursor, name)) ||
        (status = parse_numbers(cursor, numbers, 24, true, &flags)))
        return status;
    if ((size_t)(*cursor - start) > limit)
        return JVQ_BAD_LENGTH;
    for (int i = 0; i < 5; i++) {
        if (!jvq_number_whole(&numbers[4 + 2 * i], &out->bid_volume[i]) ||
            !jvq_number_whole(&numbers[14 + 2 * i], &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = jvq_number_value(&numbers[5 + 2 * i]);
        out->ask_price[i] = jvq_number_value(&numbers[15 + 2 * i]);
    }
    out->price = jvq_number_value(&numbers[0]);
    out->change = jvq_number_value(&numbers[1]);
    if (!is_index)
        count_vote(order, vote_on_totals(jvq_number_value(&numbers[2]), jvq_number_value(&numbers[3]), out), &flags);
    if (!jvq_number_whole(&numbers[order->second ? 2 : 3], &out->volume))
        return JVQ_BAD_VOLUME;
    out->amount = jvq_number_value(&numbers[order->second ? 3 : 2]);
    decide_no_price(out->price, &flags);
    out->flags = flags;
    out->zero = 0;
    return JVQ_OK;
}

jvq_status jvq_parse_depth(const uint8_t **cursor, size_t limit, jvq_order *order, jvq_depth *out,
                           int64_t *time_of_day, jvq_text *name)
{
    const uint8_t *start = *cursor;
    jvq_number totals[4]; /* price, last close, amount, volume */
    jvq_number blocks[2][2][10];
    jvq_status status;
    uint32_t flags = 0;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_text(cursor, name)) ||
        (status = parse_numbers(cursor, totals, 4, false, &flags)) ||
        (status = parse_numbers(cursor, &blocks[0][0][0], 40, true, &flags)))
        return status;
    if ((size_t)(*cursor - start) > limit)
        return JVQ_BAD_LENGTH;
    if (!jvq_number_whole(&totals[3], &out->volume))
        return JVQ_BAD_VOLUME;
    out->price = jvq_number_value(&totals[0]);
    out->last_close = jvq_number_value(&totals[1]);
    out->amount = jvq_number_value(&totals[2]);
    out->change = out->last_close == 0 ? 0.0 : (out->price / out->last_close - 1) * 100;
    count_vote(order, vote_on_blocks(blocks, out->price), &flags);
    for (int i = 0; i < 10; i++) {
        if (!jvq_number_whole(&blocks[0][!order->second][i], &out->bid_volume[i]) ||
            !jvq_number_whole(&blocks[1][!order->second][i], &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = jvq_number_value(&blocks[0][order->second][i]);
        out->ask_price[i] = jvq_number_value(&blocks[1][order->second][i]);
    }
    decide_no_price(out->price, &flags);
    out->flags = flags;
    out->zero = 0;
    return JVQ_OK;
}
