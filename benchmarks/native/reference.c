#include "reference.h"

#include <stdlib.h>
#include <string.h>

enum { MASK = REFERENCE_CAPACITY - 1 };

struct reference {
    uint64_t seq;
    size_t trade_head, quote_head, depth_head;
    jvq_trade *trades;
    jvq_quote *quotes;
    jvq_depth *depths;
};

static const double pow10[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
static const int64_t ns_unit[] = {1000000000, 100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1};
enum { MOST_DIGITS = 9 }; /* behind the point */

static inline uint64_t digits(const uint8_t **cursor)
{
    const uint8_t *p = *cursor;
    uint64_t value = 0;
    uint8_t digit;

    while ((digit = (uint8_t)(*p - '0')) <= 9) {
        value = value * 10 + digit;
        p++;
    }
    *cursor = p;
    return value;
}

/* HH:MM:SS[.fraction] */
static inline bool clock_time(const uint8_t **cursor, const uint8_t *end, int64_t *out)
{
    const uint8_t *p = *cursor;
    int64_t hours, minutes, seconds, fraction = 0;

    if (end - p < 8 || p[2] != ':' || p[5] != ':')
        return false;
    hours = p[0] * 10 + p[1] - '0' * 11;
    minutes = p[3] * 10 + p[4] - '0' * 11;
    seconds = p[6] * 10 + p[7] - '0' * 11;
    p += 8;
    if (*p == '.') {
        const uint8_t *first = ++p;
        fraction = (int64_t)digits(&p);
        if (p - first > MOST_DIGITS)
            return false;
        fraction *= ns_unit[p - first];
    }
    *out = REFERENCE_MIDNIGHT + (hours * 3600 + minutes * 60 + seconds) * 1000000000 + fraction;
    *cursor = p;
    return true;
}

/* Each field but the first has its comma before it. */

static inline bool comma(const uint8_t **cursor)
{
    if (**cursor != ',')
        return false;
    ++*cursor;
    return true;
}

static inline bool name(const uint8_t **cursor)
{
    const uint8_t *p;

    if (!comma(cursor))
        return false;
    for (p = *cursor; *p != ',' && *p != '\n';)
        p++;
    *cursor = p;
    return true;
}

static inline bool real(const uint8_t **cursor, double *out)
{
    const uint8_t *p;
    size_t fraction = 0;
    bool negative;
    uint64_t value;
    uint8_t digit;

    if (!comma(cursor))
        return false;
    p = *cursor;
    negative = *p == '-';
    p += negative;
    value = digits(&p);
    if (*p == '.') {
        const uint8_t *first = ++p;
        while ((digit = (uint8_t)(*p - '0')) <= 9) {
            value = value * 10 + digit;
            p++;
        }
        fraction = (size_t)(p - first);
        if (fraction > MOST_DIGITS)
            return false;
    }
    *out = (double)value / pow10[fraction];
    if (negative)
        *out = -*out;
    *cursor = p;
    return true;
}

static inline bool whole(const uint8_t **cursor, int64_t *out)
{
    if (!comma(cursor))
        return false;
    *out = (int64_t)digits(cursor);
    if (**cursor == '.') /* 100.00 */
        do
            ++*cursor;
        while (**cursor == '0');
    return true;
}

static inline bool ends(const uint8_t *p) { return *p == '|' || *p == '\n'; }

static inline bool trade(reference *self, const uint8_t **cursor, const uint8_t *end, const char code[8], int64_t recv)
{
    jvq_trade *out = &self->trades[self->trade_head & MASK];

    if (!clock_time(cursor, end, &out->time) || !whole(cursor, &out->id) || !real(cursor, &out->price) ||
        !whole(cursor, &out->volume) || !ends(*cursor))
        return false;
    out->seq = ++self->seq;
    out->recv = recv;
    memcpy(out->code, code, 8);
    out->flags = out->zero = 0;
    self->trade_head++;
    return true;
}

static inline bool quote(reference *self, const uint8_t **cursor, const uint8_t *end, const char code[8], int64_t recv)
{
    jvq_quote *out = &self->quotes[self->quote_head & MASK];
    int i;

    if (!clock_time(cursor, end, &out->time) || !name(cursor) || !real(cursor, &out->price) ||
        !real(cursor, &out->change) || !real(cursor, &out->amount) || !whole(cursor, &out->volume))
        return false;
    for (i = 0; i < 5; i++)
        if (!whole(cursor, &out->bid_volume[i]) || !real(cursor, &out->bid_price[i]))
            return false;
    for (i = 0; i < 5; i++)
        if (!whole(cursor, &out->ask_volume[i]) || !real(cursor, &out->ask_price[i]))
            return false;
    if (!ends(*cursor))
        return false;
    out->seq = ++self->seq;
    out->recv = recv;
    memcpy(out->code, code, 8);
    out->flags = out->zero = 0;
    self->quote_head++;
    return true;
}

static inline bool reals(const uint8_t **cursor, double out[10])
{
    for (int i = 0; i < 10; i++)
        if (!real(cursor, &out[i]))
            return false;
    return true;
}

static inline bool wholes(const uint8_t **cursor, int64_t out[10])
{
    for (int i = 0; i < 10; i++)
        if (!whole(cursor, &out[i]))
            return false;
    return true;
}

static inline bool depth(reference *self, const uint8_t **cursor, const uint8_t *end, const char code[8], int64_t recv)
{
    jvq_depth *out = &self->depths[self->depth_head & MASK];

    if (!clock_time(cursor, end, &out->time) || !name(cursor) || !real(cursor, &out->price) ||
        !real(cursor, &out->last_close) || !real(cursor, &out->amount) || !whole(cursor, &out->volume) ||
        !reals(cursor, out->bid_price) || !wholes(cursor, out->bid_volume) || !reals(cursor, out->ask_price) ||
        !wholes(cursor, out->ask_volume) || !ends(*cursor))
        return false;
    out->change = out->last_close > 0 ? (out->price / out->last_close - 1) * 100 : 0;
    out->seq = ++self->seq;
    out->recv = recv;
    memcpy(out->code, code, 8);
    out->flags = out->zero = 0;
    self->depth_head++;
    return true;
}

typedef bool (*reader)(reference *self, const uint8_t **cursor, const uint8_t *end, const char code[8], int64_t recv);

/* The records of a row, one of the three readers inlined. Returns the byte where it stopped: the row's '\n', unless
 * something in it could not be read. */
static inline const uint8_t *row(reader read, reference *self, const uint8_t *p, const uint8_t *end, int64_t recv)
{
    char code[8] = {0};

    for (size_t i = 0; *p != '='; i++, p++) {
        if (i == sizeof code || *p == '\n')
            return p;
        code[i] = (char)*p;
    }
    do {
        p++;
        if (!read(self, &p, end, code, recv))
            break;
    } while (*p == '|');
    return p;
}

reference *reference_new(void)
{
    reference *self = calloc(1, sizeof *self);

    if (!self)
        return NULL;
    self->trades = aligned_alloc(64, REFERENCE_CAPACITY * sizeof *self->trades);
    self->quotes = aligned_alloc(64, REFERENCE_CAPACITY * sizeof *self->quotes);
    self->depths = aligned_alloc(64, REFERENCE_CAPACITY * sizeof *self->depths);
    if (!self->trades || !self->quotes || !self->depths) {
        reference_free(self);
        return NULL;
    }
    memset(self->trades, 0, REFERENCE_CAPACITY * sizeof *self->trades);
    memset(self->quotes, 0, REFERENCE_CAPACITY * sizeof *self->quotes);
    memset(self->depths, 0, REFERENCE_CAPACITY * sizeof *self->depths);
    return self;
}

void reference_free(reference *self)
{
    if (!self)
        return;
    free(self->trades);
    free(self->quotes);
    free(self->depths);
    free(self);
}

size_t reference_parse(reference *self, const uint8_t *text, size_t size, int64_t recv)
{
    const uint8_t *p = text, *end = text + size;
    uint64_t before = self->seq;

    while (p < end) {
        if (p[0] == 'l' && p[1] == 'v') {
            if (p[2] == '2' && p[3] == '_')
                p = row(trade, self, p + 4, end, recv);
            else if (p[2] == '1' && p[3] == '_')
                p = row(quote, self, p + 4, end, recv);
            else if (p[2] == '1' && p[3] == '0' && p[4] == '_')
                p = row(depth, self, p + 5, end, recv);
        }
        while (*p != '\n')
            p++;
        p++;
    }
    return (size_t)(self->seq - before);
}

const jvq_trade *reference_last_trade(const reference *self)
{
    return self->trade_head ? &self->trades[(self->trade_head - 1) & MASK] : NULL;
}

const jvq_quote *reference_last_quote(const reference *self)
{
    return self->quote_head ? &self->quotes[(self->quote_head - 1) & MASK] : NULL;
}

const jvq_depth *reference_last_depth(const reference *self)
{
    return self->depth_head ? &self->depths[(self->depth_head - 1) & MASK] : NULL;
}
