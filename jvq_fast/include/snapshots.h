/* Quotes and depths as they nearly always are: every price with decimals, every quantity without, no number too long.
 *
 * Whatever else a snapshot may be, it is left to the scanner in rows.c, which knows all of it.
 */
#ifndef JVQ_SNAPSHOTS_H
#define JVQ_SNAPSHOTS_H

#include "ring.h"
#include "rows.h"

/* Scan the numbers of one record from the first on, in the order of fields that is in force. Return the end of the
 * record and have set all that the numbers say, or return NULL where they are others, and what they set means nothing. */
typedef const uint8_t *(*jvq_quote_scanner)(const uint8_t *p, bool second, jvq_quote *out);
typedef const uint8_t *(*jvq_depth_scanner)(const uint8_t *p, bool second, jvq_depth *out);

/* To a tape, and to a history, which may be NULL. */
typedef void (*jvq_publisher)(jvq_ring *tape, jvq_ring *history, const void *record);

struct jvq_snapshot_kernels {
    jvq_quote_scanner scan_quote; /* these two are NULL where this processor has none */
    jvq_depth_scanner scan_depth;
    jvq_publisher publish_quote;
    jvq_publisher publish_depth;
};

/* For a processor, as processor.h numbers them. */
const jvq_snapshot_kernels *jvq_choose_snapshot_kernels(int processor);

#endif
