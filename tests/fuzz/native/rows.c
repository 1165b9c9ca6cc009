/*
 * Text into the parsers of rows.h and the publisher of trades.h, and into a slow reading of the same rules: accepted or
 * refused for the same reasons, every number bit for bit what strtod makes of its text. Behind the text is as much
 * readable memory as the parsers are promised, so that a byte read behind that is seen.
 *
 * An input is a byte that chooses the level, one that chooses the settings, and the records of a row. With PLANTED the
 * slow reading takes a volume with a fraction of three zeros for a bad one.
 */
#include "processor.h"
#include "snapshots.h"
#include "trades.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRADES, QUOTES, DEPTHS, LEVELS };
enum { MOST_FIELDS = 64, UNTOUCHED = 0x5A, CAPACITY = 64, HISTORY = 8 };
enum { SHORT = 1, SECOND = 2, FORCED = 4, INDEX = 8, LESS = 16, MARGIN = 32, EARLY = 64, LEAST = 128 }; /* settings */

#define HOUR INT64_C(3600000000000)

typedef struct field {
    const char *text; /* terminated */
    size_t length;
} field;

typedef struct reading {
    char *copy; /* of the record, with zeros in place of commas */
    field fields[MOST_FIELDS];
    int count; /* of fields, more than there is room for included */
    unsigned faults; /* a bit for each jvq_status that is a reason to refuse it */
    uint32_t flags;
} reading;

static const int fields_of[LEVELS] = {JVQ_TRADE_FIELDS, JVQ_QUOTE_FIELDS, JVQ_DEPTH_FIELDS};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* This one, one that can do less, or any. */
static int processor_of(unsigned settings)
{
    const int processor = jvq_this_processor() - !!(settings & LESS);
    return processor < 0 || settings & LEAST ? JVQ_ANY_PROCESSOR : processor;
}

static size_t limit_of(unsigned settings) { return settings & SHORT ? 60 : 4096; }

static bool is_digits(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isdigit((unsigned char)text[i]))
            return false;
    return length > 0;
}

static bool is_number(const field *f)
{
    const char *text = f->text + (f->text[0] == '-');
    size_t length = f->length - (size_t)(text - f->text);
    const char *point = memchr(text, '.', length);

    if (!f->length)
        return true;
    if (!point)
        return is_digits(text, length);
    return is_digits(text, (size_t)(point - text)) && is_digits(point + 1, length - (size_t)(point + 1 - text));
}

static bool is_time(const field *f, int64_t *time_of_day)
{
    int64_t parts[3], fraction = 0, unit = 100000000;
    static const int64_t below[3] = {24, 60, 60};

    if (f->length < 8)
        return false;
    for (int i = 0; i < 3; i++) {
        if (!is_digits(f->text + 3 * i, 2) || (i && f->text[3 * i - 1] != ':'))
            return false;
        parts[i] = strtol((char[]){f->text[3 * i], f->text[3 * i + 1], 0}, NULL, 10);
        if (parts[i] >= below[i])
            return false;
    }
    if (f->length > 8) {
        if (f->text[8] != '.' || f->length > 18 || !is_digits(f->text + 9, f->length - 9))
            return false;
        for (size_t i = 9; i < f->length; i++, unit /= 10)
            fraction += (f->text[i] - '0') * unit;
    }
    *time_of_day = ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1000000000 + fraction;
    return true;
}

/* Of a number: digit by digit, in more bits than an int64 has. */
static bool is_whole(const field *f, int64_t *out)
{
    const char *text = f->text + (f->text[0] == '-');
    __int128 value = 0;
    const __int128 most = (__int128)INT64_MAX + (f->text[0] == '-');

    for (; isdigit((unsigned char)*text); text++) {
        value = value * 10 + (*text - '0');
        if (value > most)
            return false;
    }
    if (*text == '.') {
#ifdef PLANTED
        if (!strcmp(text, ".000"))
            return false;
#endif
        if (strspn(text + 1, "0") != strlen(text + 1))
            return false;
    }
    *out = (int64_t)(f->text[0] == '-' ? -value : value);
    return true;
}

static bool is_same(double a, double b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

static double value_of(const field *f) { return strtod(f->text, NULL); }

static void read_record(reading *r, const uint8_t *record, size_t length, size_t limit, int level)
{
    const int wanted = fields_of[level];
    int64_t time_of_day;
    char *at;

    *r = (reading){.copy = malloc(length + 1)};
    require(r->copy);
    memcpy(r->copy, record, length);
    r->copy[length] = 0;
    if (length > limit)
        r->faults |= 1u << JVQ_BAD_LENGTH;
    if (memchr(record, '=', length))
        r->faults |= 1u << JVQ_BAD_EQUALS;
    at = r->copy;
    for (;;) {
        char *end = memchr(at, ',', (size_t)(r->copy + length - at));
        char *stop = end ? end : r->copy + length;
        *stop = 0;
        if (r->count < MOST_FIELDS)
            r->fields[r->count] = (field){at, (size_t)(stop - at)};
        r->count++;
        if (!end)
            break;
        at = end + 1;
    }
    if (r->count != wanted) {
        r->faults |= 1u << JVQ_BAD_FIELDS;
        return;
    }
    if (!is_time(&r->fields[0], &time_of_day))
        r->faults |= 1u << JVQ_BAD_TIME;
    for (int i = 2; i < wanted; i++) {
        if (!is_number(&r->fields[i]))
            r->faults |= 1u << JVQ_BAD_NUMBER;
        else if (!r->fields[i].length)
            r->flags |= JVQ_EMPTY_FIELD;
    }
}

/* Of those that the decoder names where several are there; what the parser met first is any of the others. */
static unsigned reasons(unsigned faults)
{
    static const jvq_status first[] = {JVQ_BAD_LENGTH, JVQ_BAD_EQUALS, JVQ_BAD_FIELDS};
    for (int i = 0; i < 3; i++)
        if (faults & 1u << first[i])
            return 1u << first[i];
    return faults;
}

static void check_volume(reading *r, int i, int64_t made, bool accepted)
{
    int64_t volume = 0;
    if (!is_number(&r->fields[i]))
        return;
    if (!is_whole(&r->fields[i], &volume))
        r->faults |= 1u << JVQ_BAD_VOLUME;
    else if (accepted)
        require(made == volume);
}

static void check_real(const reading *r, int i, double made) { require(is_same(made, value_of(&r->fields[i]))); }

static void check_name(const reading *r, const jvq_text *name)
{
    require(name->length == r->fields[1].length);
    require(memcmp(name->start, r->fields[1].text, name->length) == 0);
}

static void check_trade(reading *r, const jvq_trade *made, bool accepted)
{
    const field *id = &r->fields[1];
    int64_t whole = -1;

    check_volume(r, 3, made->volume, accepted);
    if (!accepted)
        return;
    if (!is_digits(id->text, id->length) || !is_whole(id, &whole)) {
        whole = -1;
        r->flags |= JVQ_ID_TEXT;
    }
    require(made->id == whole);
    check_real(r, 2, made->price);
}

static void check_quote(reading *r, const jvq_quote *made, bool accepted, const jvq_order *order)
{
    for (int i = 0; i < 5; i++) {
        check_volume(r, 6 + 2 * i, made->bid_volume[i], accepted);
        check_volume(r, 16 + 2 * i, made->ask_volume[i], accepted);
    }
    check_volume(r, order->second ? 4 : 5, made->volume, accepted);
    if (!accepted)
        return;
    check_real(r, 2, made->price);
    check_real(r, 3, made->change);
    check_real(r, order->second ? 5 : 4, made->amount);
    for (int i = 0; i < 5; i++) {
        check_real(r, 7 + 2 * i, made->bid_price[i]);
        check_real(r, 17 + 2 * i, made->ask_price[i]);
    }
}

static void check_depth(reading *r, const jvq_depth *made, bool accepted, const jvq_order *order)
{
    const int prices = order->second ? 10 : 0, volumes = 10 - prices;

    check_volume(r, 5, made->volume, accepted);
    for (int i = 0; i < 10; i++) {
        check_volume(r, 6 + volumes + i, made->bid_volume[i], accepted);
        check_volume(r, 26 + volumes + i, made->ask_volume[i], accepted);
    }
    if (!accepted)
        return;
    check_real(r, 2, made->price);
    check_real(r, 3, made->last_close);
    check_real(r, 4, made->amount);
    require(is_same(made->change, made->last_close == 0 ? 0 : (made->price / made->last_close - 1) * 100));
    for (int i = 0; i < 10; i++) {
        check_real(r, 6 + prices + i, made->bid_price[i]);
        check_real(r, 26 + prices + i, made->ask_price[i]);
    }
}

/* Votes are counted one by one; three settle an order, which never changes again. */
static void check_order(const jvq_order *before, const jvq_order *now, bool votes)
{
    const uint32_t first = now->votes[0] - before->votes[0], second = now->votes[1] - before->votes[1];

    require(now->forced == before->forced);
    if (before->settled || !votes) {
        require(now->settled == before->settled && now->second == before->second && !first && !second);
        return;
    }
    require(first + second <= 1);
    require(now->settled == (now->votes[0] == 3 || now->votes[1] == 3));
    require(now->second == (now->votes[1] == 3));
}

/* Parses the record at the cursor and checks what was made of it. */
static void check_record(int level, unsigned settings, const uint8_t **cursor, const uint8_t *text_end,
                         jvq_order *order)
{
    union {
        jvq_trade trade;
        jvq_quote quote;
        jvq_depth depth;
        uint8_t head[32]; /* seq, time, recv, code */
    } made;
    const uint8_t *start = *cursor, *end = start;
    const size_t limit = limit_of(settings);
    const bool is_index = settings & INDEX;
    const jvq_snapshot_kernels *kernels = jvq_choose_snapshot_kernels(processor_of(settings));
    const jvq_order before = *order;
    int64_t time_of_day = -1, expected;
    jvq_text name = {NULL, 0};
    jvq_status status;
    uint32_t flags = 0, zero = 0;
    double price = 0;
    bool accepted;
    reading r;

    while (*end != '|' && end < text_end)
        end++;
    memset(&made, UNTOUCHED, sizeof made);
    if (level == TRADES)
        status = jvq_parse_trade(cursor, limit, &made.trade, &time_of_day);
    else if (level == QUOTES)
        status = jvq_parse_quote(cursor, limit, kernels, is_index, order, &made.quote, &time_of_day, &name);
    else
        status = jvq_parse_depth(cursor, limit, kernels, order, &made.depth, &time_of_day, &name);
    accepted = status == JVQ_OK;
    require(*cursor >= start && *cursor <= end);
    check_order(&before, order, level == DEPTHS || (level == QUOTES && !is_index));
    for (size_t i = 0; i < sizeof made.head; i++)
        require(made.head[i] == UNTOUCHED);

    read_record(&r, start, (size_t)(end - start), limit, level);
    if (r.count == fields_of[level]) {
        if (level == TRADES) {
            check_trade(&r, &made.trade, accepted);
            flags = made.trade.flags;
            zero = made.trade.zero;
            price = made.trade.price;
        } else if (level == QUOTES) {
            check_quote(&r, &made.quote, accepted, order);
            flags = made.quote.flags;
            zero = made.quote.zero;
            price = made.quote.price;
        } else {
            check_depth(&r, &made.depth, accepted, order);
            flags = made.depth.flags;
            zero = made.depth.zero;
            price = made.depth.price;
        }
    }
    if (accepted) {
        require(!r.faults && *cursor == end);
        require(is_time(&r.fields[0], &expected) && time_of_day == expected);
        if (price == 0)
            r.flags |= JVQ_NO_PRICE;
        require((flags & ~(uint32_t)JVQ_ORDER_UNSURE) == r.flags && zero == 0);
        require(!(flags & JVQ_ORDER_UNSURE) || before.settled);
        if (level != TRADES)
            check_name(&r, &name);
    } else {
        status = jvq_fault(start, end, limit, fields_of[level], status);
        require(reasons(r.faults) & 1u << status);
    }
    free(r.copy);
    *cursor = end;
}

/* Publishes trades from the '=' on, as far as the publisher goes, and checks each of them. */
static void check_published(unsigned settings, const uint8_t *row, const uint8_t *text_end)
{
    static jvq_trade tape_storage[2 * CAPACITY], history_storage[2 * HISTORY];
    jvq_ring tape = {
        .storage = (uint8_t *)tape_storage, .capacity = CAPACITY, .itemsize = sizeof(jvq_trade), .is_tape = true};
    jvq_ring history = {.storage = (uint8_t *)history_storage, .capacity = HISTORY, .itemsize = sizeof(jvq_trade)};
    jvq_trade_run run = {.cursor = row, .tape = &tape, .history = &history, .code = 1, .seq = 2, .recv = 3,
                         .latest = (settings & EARLY ? 10 : 24) * HOUR,
                         .fresh_from = (settings & EARLY ? 9 : -24) * HOUR, .latest_time_of_day = -1};
    const uint64_t count = jvq_choose_trade_publisher(processor_of(settings))(&run, CAPACITY);
    int64_t latest = -1;
    uint64_t stale = 0;

    require(tape.head == count && history.head == count && run.seq == 2 + count);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *const record = row + 1;
        jvq_trade wanted = {.seq = 3 + i, .recv = 3, .code = {1}};
        reading r;

        require(*row != '\n');
        for (row++; *row != '|' && row < text_end;)
            row++;
        require(row - record <= JVQ_USUAL_LENGTH);
        read_record(&r, record, (size_t)(row - record), JVQ_USUAL_LENGTH, TRADES);
        require(!r.faults && !r.flags && is_time(&r.fields[0], &wanted.time));
        require(is_whole(&r.fields[1], &wanted.id) && is_whole(&r.fields[3], &wanted.volume));
        wanted.price = value_of(&r.fields[2]);
        latest = wanted.time > latest ? wanted.time : latest;
        if (wanted.time > run.latest)
            wanted.time -= 24 * HOUR;
        if (wanted.time < run.fresh_from) {
            wanted.flags = JVQ_STALE;
            stale++;
        }
        require(memcmp(&tape_storage[i], &wanted, sizeof wanted) == 0);
        require(memcmp(&tape_storage[i + CAPACITY], &wanted, sizeof wanted) == 0);
        if (i + HISTORY >= count)
            require(memcmp(jvq_ring_at(&history, i, count), &wanted, sizeof wanted) == 0);
        require(i + 1 < count || run.last_time == wanted.time);
        free(r.copy);
    }
    require(run.cursor == row && run.latest_time_of_day == latest && run.stale == stale);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    jvq_order order = {0};
    const uint8_t *cursor, *end;
    uint8_t *text;
    unsigned settings;
    int level;

    if (size < 2)
        return -1;
    level = data[0] % LEVELS;
    settings = data[1];
    order.second = settings & SECOND;
    order.forced = order.settled = order.second || settings & FORCED;
    size -= 2;
    text = malloc(size + 2 + JVQ_TEXT_MARGIN);
    require(text);
    text[0] = '=';
    memcpy(text + 1, data + 2, size);
    text[size + 1] = '\n';
    /* what must not be taken for a part of the row */
    memset(text + size + 2, settings & MARGIN ? '7' : ',', JVQ_TEXT_MARGIN);
    end = memchr(text, '\n', size + 2);
    if (level == TRADES)
        check_published(settings, text, end);
    for (cursor = text; *cursor != '\n';) {
        cursor++;
        check_record(level, settings, &cursor, end, &order);
    }
    free(text);
    return 0;
}

static uint32_t drawn;

static uint32_t draw(uint32_t below)
{
    drawn ^= drawn << 13;
    drawn ^= drawn >> 17;
    drawn ^= drawn << 5;
    return drawn % below;
}

static size_t put_digits(char *text, size_t count)
{
    const bool zeros = !draw(4);
    for (size_t i = 0; i < count; i++)
        text[i] = (char)('0' + (zeros ? 0 : draw(10)));
    return count;
}

/* A field is replaced by a number of any number of digits: what other mutations hardly ever leave a number. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    char number[64];
    size_t length = 0, start, end;

    drawn = seed * 2654435761u | 1;
    draw(2);
    if (size <= 2 || draw(2))
        return LLVMFuzzerMutate(data, size, most);
    start = end = 2 + draw((uint32_t)size - 2);
    while (start > 2 && data[start - 1] != ',' && data[start - 1] != '|')
        start--;
    while (end < size && data[end] != ',' && data[end] != '|')
        end++;
    if (!draw(16))
        number[length++] = '-';
    length += put_digits(number + length, 1 + draw(draw(4) ? 8 : 24));
    if (draw(2)) {
        number[length++] = '.';
        length += put_digits(number + length, 1 + draw(draw(4) ? 4 : 24));
    }
    if (size - (end - start) + length > most)
        return LLVMFuzzerMutate(data, size, most);
    memmove(data + start + length, data + end, size - end);
    memcpy(data + start, number, length);
    return size - (end - start) + length;
}
