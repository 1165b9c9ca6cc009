/* How much later than usual records arrive.
 *
 * Between the exchange's clock and ours stands their difference plus the way, and nothing tells the two apart. What can
 * be told is by how much a delay exceeds the shortest one of the last minutes: the baseline.
 */
#ifndef JVQ_DELAY_H
#define JVQ_DELAY_H

#include "histogram.h"

#include <stdbool.h>
#include <stdint.h>

#define JVQ_DELAY_WINDOW INT64_C(300000000000)   /* the baseline is the least of this one and the one before */
#define JVQ_DELAY_FORGET INT64_C(10800000000000) /* longer than lunch, shorter than a night: clocks drift */
#define JVQ_DELAY_JUMP INT64_C(3600000000000)    /* no lag: another day, or another clock */
#define JVQ_DELAY_LIMIT (INT64_C(1) << 60)       /* no delay at all */

typedef struct jvq_delay {
    int64_t baseline;
    int64_t least; /* of this window */
    int64_t start; /* of this window, by arrival */
    bool is_known;
    jvq_histogram *excess;
} jvq_delay;

typedef struct jvq_delays {
    jvq_delay levels[3];
    uint64_t late; /* the least excess in the message at work; UINT64_MAX before there is one */
} jvq_delays;

static inline void jvq_delay_restart(jvq_delay *delay, int64_t value, int64_t recv)
{
    delay->baseline = delay->least = value;
    delay->start = recv;
    delay->is_known = true;
}

/* The next window begins with a record, unless the first one does. */
static inline void jvq_delay_turn(jvq_delay *delay, int64_t value, int64_t recv)
{
    uint64_t age = (uint64_t)recv - (uint64_t)delay->start; /* of an arrival before the start: huge */
    if (!delay->is_known || (age > (uint64_t)JVQ_DELAY_FORGET && recv > delay->start)) {
        jvq_delay_restart(delay, value, recv);
    } else {
        delay->baseline = delay->least < value ? delay->least : value;
        delay->least = value;
        delay->start = recv;
    }
}

/* Counts `records` of one time that arrived at `recv`; returns by how much it is late, or -1 where that can't be said. */
static inline int64_t jvq_delay_record(jvq_delay *delay, int64_t time, int64_t recv, uint64_t records)
{
    const int64_t value = (int64_t)((uint64_t)recv - (uint64_t)time);
    int64_t excess;

    if (value > JVQ_DELAY_LIMIT || value < -JVQ_DELAY_LIMIT)
        return -1;
    if (!delay->is_known || (uint64_t)recv - (uint64_t)delay->start > (uint64_t)JVQ_DELAY_WINDOW)
        jvq_delay_turn(delay, value, recv);
    if (value < delay->least) {
        delay->least = value;
        if (value < delay->baseline)
            delay->baseline = value;
    }
    excess = value - delay->baseline;
    if (excess > JVQ_DELAY_JUMP) {
        jvq_delay_restart(delay, value, recv);
        if (--records == 0)
            return -1;
        excess = 0; /* of those behind the one that jumped */
    }
    jvq_histogram_record(delay->excess, (uint64_t)excess, records);
    return excess;
}

/* A message is as late as the record in it that is least so: others may have been late before they were sent. */
static inline void jvq_delays_record(jvq_delays *delays, int level, int64_t time, int64_t recv, uint64_t records)
{
    const uint64_t excess = (uint64_t)jvq_delay_record(&delays->levels[level], time, recv, records);
    if (excess < delays->late)
        delays->late = excess;
}

/* Our own clock was set: all that was measured by it moves along. */
static inline void jvq_delay_shift(jvq_delay *delay, int64_t by)
{
    delay->baseline += by;
    delay->least += by;
    delay->start += by;
}

#endif
