/* Records of the ab market, parsed from the wire's text.
 *
 * All functions read text that ends in '\n' with JVQ_TEXT_MARGIN readable bytes behind it, whatever they are: a word
 * is loaded first and cut afterwards. They leave `*cursor` behind a good record, and somewhere inside a bad one.
 */
#ifndef JVQ_ROWS_H
#define JVQ_ROWS_H

#include "digits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JVQ_STALE = 1,
    JVQ_REPEAT = 2,
    JVQ_NO_DATE = 4,
    JVQ_EMPTY_FIELD = 8,
    JVQ_ORDER_UNSURE = 16,
    JVQ_ID_TEXT = 32,
    JVQ_NO_PRICE = 64
};

typedef struct jvq_trade {
    uint64_t seq;
    int64_t time, recv;
    char code[8];
    int64_t id;
    double price;
    int64_t volume;
    uint32_t flags, zero;
} jvq_trade;

typedef struct jvq_quote {
    uint64_t seq;
    int64_t time, recv;
    char code[8];
    double price, change, amount;
    int64_t volume;
    uint32_t flags, zero;
    double bid_price[5];
    int64_t bid_volume[5];
    double ask_price[5];
    int64_t ask_volume[5];
} jvq_quote;

typedef struct jvq_depth {
    uint64_t seq;
    int64_t time, recv;
    char code[8];
    double price, last_close, amount;
    int64_t volume;
    double change;
    uint32_t flags, zero;
    double bid_price[10];
    int64_t bid_volume[10];
    double ask_price[10];
    int64_t ask_volume[10];
} jvq_depth;

_Static_assert(sizeof(jvq_trade) == 64, "TRADE is one cache line");
_Static_assert(sizeof(jvq_quote) == 232, "QUOTE");
_Static_assert(sizeof(jvq_depth) == 400, "DEPTH");

typedef enum jvq_status {
    JVQ_OK = 0,
    JVQ_BAD_FIELDS, /* too few or too many */
    JVQ_BAD_NUMBER,
    JVQ_BAD_TIME,
    JVQ_BAD_VOLUME, /* fractional, or beyond int64 */
    JVQ_BAD_EQUALS, /* a '=' inside the record */
    JVQ_BAD_LENGTH, /* longer than the limit */
    JVQ_BAD_ROW,    /* no '=' at all, or no '_' before it */
    JVQ_BAD_LEVEL,
    JVQ_BAD_CODE
} jvq_status;

/* Which of two orders the feed writes its fields in (lv1: amount and volume; lv10: prices and quantities). */
typedef struct jvq_order {
    bool second;   /* the order in force: false is the default one */
    bool settled;  /* by votes, or forced */
    bool forced;
    uint32_t votes[2];
} jvq_order;

typedef struct jvq_snapshot_kernels jvq_snapshot_kernels; /* snapshots.h */

typedef struct jvq_text {
    const uint8_t *start;
    size_t length;
} jvq_text;

enum { JVQ_TEXT_MARGIN = 64 };

enum { JVQ_TRADE_FIELDS = 4, JVQ_QUOTE_FIELDS = 26, JVQ_DEPTH_FIELDS = 46 };

/* What is wrong with a record that a parser refused with `first`: its length, a '=' in it, the number of its fields, or
 * else the fault that the parser met first. */
jvq_status jvq_fault(const uint8_t *start, const uint8_t *end, size_t limit, int fields, jvq_status first);

/* HH:MM:SS as seconds of the day, -1 where eight bytes are no time. */
static inline int64_t jvq_parse_seconds(const uint8_t *p)
{
    const uint64_t digits = jvq_load_text(p) ^ UINT64_C(0x30303A30303A3030);
    const uint64_t pairs = digits * 10 + (digits >> 8);
    const uint64_t hours = pairs & 0xFF, minutes = pairs >> 24 & 0xFF, seconds = pairs >> 48 & 0xFF;
    if ((jvq_no_digits(digits) | (digits & UINT64_C(0x0000FF0000FF0000))) || hours > 23 || minutes > 59 || seconds > 59)
        return -1;
    return (int64_t)((hours * 60 + minutes) * 60 + seconds);
}

static inline bool jvq_is_code_byte(uint8_t byte)
{
    return (uint8_t)(byte - '0') <= 9 || (uint8_t)((byte | 0x20) - 'a') < 26 || byte == '.';
}

/* The code before a '=', zero-padded, as it stands in a record. Returns its length, 0 where there is none. */
static inline int jvq_parse_code(const uint8_t *p, uint64_t *code)
{
    const uint64_t text = jvq_load_text(p), digits = jvq_as_digits(text);
    int length = 0;

    /* six digits, as nearly all are: '=' stands for 13 here */
    if ((digits >> 48 & 0xFF) == ('=' ^ '0') && !(jvq_no_digits(digits) << 16)) {
        *code = jvq_text_word(text & UINT64_C(0xFFFFFFFFFFFF)); /* copied, it would be loaded before it is whole */
        return 6;
    }
    *code = 0;
    while (length < 8 && jvq_is_code_byte(p[length]))
        length++;
    if (p[length] != '=')
        return 0;
    memcpy(code, p, (size_t)length);
    return length;
}

/* The parsers set everything but seq, time, recv and code; `time_of_day` is in ns. */
jvq_status jvq_parse_trade(const uint8_t **cursor, size_t limit, jvq_trade *out, int64_t *time_of_day);
jvq_status jvq_parse_quote(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, bool is_index,
                           jvq_order *order, jvq_quote *out, int64_t *time_of_day, jvq_text *name);
jvq_status jvq_parse_depth(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, jvq_order *order,
                           jvq_depth *out, int64_t *time_of_day, jvq_text *name);

/* Begins anew, as each connection does; a forced order stays. */
void jvq_order_restart(jvq_order *order);

#endif
