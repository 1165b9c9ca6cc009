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

/* HH:MM:SS[.fraction], one to nine digits of it. Returns the byte behind, or NULL. */
static const uint8_t *scan_time(const uint8_t *p, int64_t *time_of_day)
{
    const int64_t seconds = jvq_parse_seconds(p);
    int64_t fraction = 0;

    if (seconds < 0)
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
    *time_of_day = seconds * INT64_C(1000000000) + fraction;
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
    const uint8_t *start = *cursor, *p;
    jvq_number price, volume;
    jvq_status status;
    uint32_t flags = 0;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_id(cursor, &out->id, &flags)))
        return status;
    if (!(p = jvq_number_scan(*cursor, &price)) || *p != ',' || !(p = jvq_number_scan(p + 1, &volume)) ||
        !ends_record(*p))
        return JVQ_BAD_NUMBER;
    *cursor = p;
    if ((size_t)(p - start) > limit)
        return JVQ_BAD_LENGTH;
    if (!jvq_number_whole(&volume, &out->volume))
        return JVQ_BAD_VOLUME;
    out->price = jvq_number_value(&price);
    if (price.empty || volume.empty)
        flags |= JVQ_EMPTY_FIELD;
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
static int levels_of(const double *block, double price, bool bids)
{
    double nearer = 0;
    int levels = 0;
    while (levels < 10) {
        const double value = block[levels];
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
        if (block[i] != 0)
            return -1;
    return levels;
}

static bool is_book(const double *bids, const double *asks, double price)
{
    int bid_levels = levels_of(bids, price, true);
    int ask_levels = bid_levels < 0 ? -1 : levels_of(asks, price, false);
    return ask_levels >= 0 && bid_levels + ask_levels > 0;
}

/* Two blocks of ten for each side of lv10: FIRST is prices, quantities. */
static int vote_on_blocks(const double *blocks, double price)
{
    bool first, second;

    if (!(price > 0))
        return UNDECIDED;
    first = is_book(blocks, blocks + 20, price);
    second = is_book(blocks + 10, blocks + 30, price);
    return first == second ? UNDECIDED : first ? FIRST : SECOND;
}

/* --- snapshots --- */

/* What all snapshots begin with, and `count` numbers. */
static jvq_status parse_snapshot(const uint8_t **cursor, size_t limit, jvq_number_scanner scan, int count,
                                 int64_t *time_of_day, jvq_text *name, jvq_numbers *numbers, uint32_t *flags)
{
    const uint8_t *start = *cursor, *end;
    jvq_status status;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_text(cursor, name)))
        return status;
    if (!(end = scan(*cursor, count, numbers)))
        return JVQ_BAD_NUMBER;
    *cursor = end;
    if (numbers->has_empty)
        *flags |= JVQ_EMPTY_FIELD;
    return (size_t)(end - start) > limit ? JVQ_BAD_LENGTH : JVQ_OK;
}

jvq_status jvq_parse_quote(const uint8_t **cursor, size_t limit, jvq_number_scanner scan, bool is_index,
                           jvq_order *order, jvq_quote *out, int64_t *time_of_day, jvq_text *name)
{
    jvq_numbers numbers; /* price, change, two totals, 10 x (quantity, price) */
    const double *value = numbers.value;
    uint32_t flags = 0;
    jvq_status status = parse_snapshot(cursor, limit, scan, 24, time_of_day, name, &numbers, &flags);

    if (status)
        return status;
    for (int i = 0; i < 5; i++) {
        if (!jvq_whole(&numbers, 4 + 2 * i, &out->bid_volume[i]) ||
            !jvq_whole(&numbers, 14 + 2 * i, &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = value[5 + 2 * i];
        out->ask_price[i] = value[15 + 2 * i];
    }
    out->price = value[0];
    out->change = value[1];
    if (!is_index)
        count_vote(order, vote_on_totals(value[2], value[3], out), &flags);
    if (!jvq_whole(&numbers, order->second ? 2 : 3, &out->volume))
        return JVQ_BAD_VOLUME;
    out->amount = value[order->second ? 3 : 2];
    decide_no_price(out->price, &flags);
    out->flags = flags;
    out->zero = 0;
    return JVQ_OK;
}

jvq_status jvq_parse_depth(const uint8_t **cursor, size_t limit, jvq_number_scanner scan, jvq_order *order,
                           jvq_depth *out, int64_t *time_of_day, jvq_text *name)
{
    jvq_numbers numbers; /* price, last close, amount, volume, and 10 of each block */
    const double *value = numbers.value;
    uint32_t flags = 0;
    int prices, volumes;
    jvq_status status = parse_snapshot(cursor, limit, scan, 44, time_of_day, name, &numbers, &flags);

    if (status)
        return status;
    if (!jvq_whole(&numbers, 3, &out->volume))
        return JVQ_BAD_VOLUME;
    out->price = value[0];
    out->last_close = value[1];
    out->amount = value[2];
    out->change = out->last_close == 0 ? 0.0 : (out->price / out->last_close - 1) * 100;
    count_vote(order, vote_on_blocks(&value[4], out->price), &flags);
    prices = order->second ? 14 : 4;
    volumes = order->second ? 4 : 14;
    for (int i = 0; i < 10; i++) {
        if (!jvq_whole(&numbers, volumes + i, &out->bid_volume[i]) ||
            !jvq_whole(&numbers, volumes + 20 + i, &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = value[prices + i];
        out->ask_price[i] = value[prices + 20 + i];
    }
    decide_no_price(out->price, &flags);
    out->flags = flags;
    out->zero = 0;
    return JVQ_OK;
}
