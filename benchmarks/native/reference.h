/* What the package is measured against in C: a plain scalar parser of the feed's text with one plain ring per level.
 *
 * One pass, a byte at a time, nothing allocated, no library: an afternoon's work of someone who knows how. It stores the
 * records that jvq_fast stores, whole, and does nothing else: it finds no duplicates, sets no flags, detects no field
 * order, keeps no names, histories or counters, leaves no trace of a row that it can't read, and takes every time to be
 * of one fixed day.
 */
#ifndef REFERENCE_H
#define REFERENCE_H

#ifdef __cplusplus
#define _Static_assert static_assert
extern "C" {
#endif

#include "rows.h"

#include <stddef.h>
#include <stdint.h>

#define REFERENCE_MIDNIGHT INT64_C(1795363200000000000) /* of 2026-11-23 in Shanghai, ns since the epoch */

enum { REFERENCE_CAPACITY = 65536 }; /* records of each ring */

typedef struct reference reference;

/* NULL where there is no memory. All of it is touched here, so that no first lap through a ring pays for pages. */
reference *reference_new(void);
void reference_free(reference *self);

/* Stores the records of one message, and returns how many. text[size] must be '\n', whether or not the text ends in one;
 * nothing behind it is read. recv is the arrival, ns since the epoch. */
size_t reference_parse(reference *self, const uint8_t *text, size_t size, int64_t recv);

/* The newest record of a level, NULL before the first. */
const jvq_trade *reference_last_trade(const reference *self);
const jvq_quote *reference_last_quote(const reference *self);
const jvq_depth *reference_last_depth(const reference *self);

#ifdef __cplusplus
}
#endif

#endif
