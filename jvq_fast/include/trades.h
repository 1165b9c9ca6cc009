/* Trades as they nearly always are, published without a look back.
 *
 * HH:MM:SS.mmm,ID,PRICE,VOLUME, each number of at most eight digits, the price with decimals and above zero. Whatever
 * else a record may be, it is left to jvq_parse_trade, which knows all of it.
 */
#ifndef JVQ_TRADES_H
#define JVQ_TRADES_H

#include "ring.h"
#include "rows.h"

enum { JVQ_USUAL_LENGTH = 48 }; /* bytes, at most */

typedef struct jvq_trade_run {
    const uint8_t *cursor; /* the '=' or '|' before the next record; afterwards the one before the first record that
                              was not published, or the row's end */
    jvq_ring *tape;
    jvq_ring *history; /* or NULL; storage is taken in either */
    uint64_t code;
    uint64_t seq;      /* of the last record published */
    int64_t recv;
    int64_t midnight;  /* of the day that times of day belong to */
    int64_t latest;    /* a time after this belongs to the day before */
    int64_t fresh_from; /* an earlier time is flagged JVQ_STALE */
    uint32_t flags;    /* of every record */
    uint64_t stale;    /* records that were flagged so */
    int64_t last_time; /* set where a record was published */
    int64_t latest_time_of_day; /* never lowered */
} jvq_trade_run;

/* Publishes usual trades of one row, `most` at most. Returns how many. */
typedef uint64_t (*jvq_trade_publisher)(jvq_trade_run *run, uint64_t most);

/* For a processor, as processor.h numbers them. */
jvq_trade_publisher jvq_choose_trade_publisher(int processor);

#endif
