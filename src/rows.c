#include "snapshots.h"

#include "decimal.h"

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

/* Whether it is one of , = | or the row's end. */
static inline bool ends_text(uint8_t byte)
{
    static const uint8_t is_end[256] = {[','] = 1, ['='] = 1, ['|'] = 1, ['\n'] = 1};
    return is_end[byte];
}

/* Free text up to the next comma. */
static jvq_status parse_text(const uint8_t **cursor, jvq_text *text)
{
    const uint8_t *p = *cursor;
    text->start = p;
    while (!ends_text(*p))
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
    int i = 0;

    while (i < 5 && !(quote->bid_price[i] > 0 || quote->ask_price[i] > 0))
        i++;
    if (i == 5 || !(field4 > 0) || !(field5 > 0) || !(price > 0) || fabs(price - 1) <= TOO_NEAR_TO_ONE)
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

enum { QUOTE_NUMBERS = JVQ_QUOTE_FIELDS - 2, DEPTH_NUMBERS = JVQ_DEPTH_FIELDS - 2 };

typedef struct text_limit {
    const uint8_t *start;
    size_t length;
} text_limit;

static inline bool is_beyond(const uint8_t *end, text_limit limit) { return (size_t)(end - limit.start) > limit.length; }

typedef struct numbers {
    double value[DEPTH_NUMBERS];
    int64_t whole[DEPTH_NUMBERS];
    uint64_t not_whole; /* by bit: has a fraction, or does not fit */
    bool has_empty;     /* nothing between two separators: it counts as 0 */
} numbers;

/* Scans `count` numbers with a comma between two, the last followed by the end of the record. Returns that end, or NULL
 * where one is no number, or not followed by what it should be. */
static const uint8_t *scan_numbers(const uint8_t *p, int count, numbers *out)
{
    out->not_whole = 0;
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

static bool take_whole(const numbers *from, int i, int64_t *out)
{
    *out = from->whole[i];
    return !(from->not_whole >> i & 1);
}

/* All that the numbers say, the field order that they vote for included; of a record within its limit. */
static jvq_status take_quote(const uint8_t **cursor, text_limit within, bool is_index, jvq_order *order, jvq_quote *out, uint32_t *flags)
{
    numbers read; /* price, change, two totals, 10 x (quantity, price) */
    const double *value = read.value;
    const uint8_t *end = scan_numbers(*cursor, QUOTE_NUMBERS, &read);

    if (!end)
        return JVQ_BAD_NUMBER;
    *cursor = end;
    if (is_beyond(end, within))
        return JVQ_BAD_LENGTH;
    for (int i = 0; i < 5; i++) {
        if (!take_whole(&read, 4 + 2 * i, &out->bid_volume[i]) ||
            !take_whole(&read, 14 + 2 * i, &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = value[5 + 2 * i];
        out->ask_price[i] = value[15 + 2 * i];
    }
    out->price = value[0];
    out->change = value[1];
    if (!is_index)
        count_vote(order, vote_on_totals(value[2], value[3], out), flags);
    if (!take_whole(&read, order->second ? 2 : 3, &out->volume))
        return JVQ_BAD_VOLUME;
    out->amount = value[order->second ? 3 : 2];
    if (read.has_empty)
        *flags |= JVQ_EMPTY_FIELD;
    return JVQ_OK;
}

static jvq_status take_depth(const uint8_t **cursor, text_limit within, jvq_order *order, jvq_depth *out, uint32_t *flags)
{
    numbers read; /* price, last close, amount, volume, and 10 of each block */
    const double *value = read.value;
    const uint8_t *end = scan_numbers(*cursor, DEPTH_NUMBERS, &read);
    int prices, volumes;

    if (!end)
        return JVQ_BAD_NUMBER;
    *cursor = end;
    if (is_beyond(end, within))
        return JVQ_BAD_LENGTH;
    if (!take_whole(&read, 3, &out->volume))
        return JVQ_BAD_VOLUME;
    out->price = value[0];
    out->last_close = value[1];
    out->amount = value[2];
    count_vote(order, vote_on_blocks(&value[4], out->price), flags);
    prices = order->second ? 14 : 4;
    volumes = order->second ? 4 : 14;
    for (int i = 0; i < 10; i++) {
        if (!take_whole(&read, volumes + i, &out->bid_volume[i]) ||
            !take_whole(&read, volumes + 20 + i, &out->ask_volume[i]))
            return JVQ_BAD_VOLUME;
        out->bid_price[i] = value[prices + i];
        out->ask_price[i] = value[prices + 20 + i];
    }
    if (read.has_empty)
        *flags |= JVQ_EMPTY_FIELD;
    return JVQ_OK;
}

/* The same of usual ones. False where it is another, or where its vote changes the order. */
static bool take_usual_quote(const uint8_t **cursor, text_limit within, jvq_quote_scanner scan, bool is_index, jvq_order *order,
                             jvq_quote *out, uint32_t *flags)
{
    const uint8_t *const end = scan(*cursor, order->second, out);
    jvq_order counted = *order;

    if (!end || is_beyond(end, within))
        return false;
    if (!is_index) {
        const double volume = (double)out->volume;
        count_vote(&counted, order->second ? vote_on_totals(volume, out->amount, out)
                                           : vote_on_totals(out->amount, volume, out), flags);
        if (counted.second != order->second)
            return false;
    }
    *order = counted;
    *cursor = end;
    return true;
}

static bool take_usual_depth(const uint8_t **cursor, text_limit within, jvq_depth_scanner scan, jvq_order *order, jvq_depth *out,
                             uint32_t *flags)
{
    const uint8_t *const end = scan(*cursor, order->second, out);
    jvq_order counted = *order;
    double blocks[40];
    const int prices = order->second ? 10 : 0, volumes = 10 - prices;

    if (!end || is_beyond(end, within))
        return false;
    for (int i = 0; i < 10; i++) {
        blocks[prices + i] = out->bid_price[i];
        blocks[prices + 20 + i] = out->ask_price[i];
        blocks[volumes + i] = (double)out->bid_volume[i];
        blocks[volumes + 20 + i] = (double)out->ask_volume[i];
    }
    count_vote(&counted, vote_on_blocks(blocks, out->price), flags);
    if (counted.second != order->second)
        return false;
    *order = counted;
    *cursor = end;
    return true;
}

jvq_status jvq_parse_quote(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, bool is_index,
                           jvq_order *order, jvq_quote *out, int64_t *time_of_day, jvq_text *name)
{
    const text_limit within = {*cursor, limit};
    jvq_status status;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_text(cursor, name)))
        return status;
    out->flags = out->zero = 0;
    if (!kernels->scan_quote || !take_usual_quote(cursor, within, kernels->scan_quote, is_index, order, out, &out->flags)) {
        if ((status = take_quote(cursor, within, is_index, order, out, &out->flags)))
            return status;
    }
    decide_no_price(out->price, &out->flags);
    return JVQ_OK;
}

jvq_status jvq_parse_depth(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, jvq_order *order,
                           jvq_depth *out, int64_t *time_of_day, jvq_text *name)
{
    const text_limit within = {*cursor, limit};
    jvq_status status;

    if ((status = parse_time(cursor, time_of_day)) || (status = parse_text(cursor, name)))
        return status;
    out->flags = out->zero = 0;
    if (!kernels->scan_depth || !take_usual_depth(cursor, within, kernels->scan_depth, order, out, &out->flags)) {
        if ((status = take_depth(cursor, within, order, out, &out->flags)))
            return status;
    }
    out->change = out->last_close == 0 ? 0.0 : (out->price / out->last_close - 1) * 100;
    decide_no_price(out->price, &out->flags);
    return JVQ_OK;
}
