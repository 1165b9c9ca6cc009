/* The numbers of a snapshot, all at once. */
#ifndef JVQ_NUMBERS_H
#define JVQ_NUMBERS_H

#include "decimal.h"

enum { JVQ_MOST_NUMBERS = 48 };

typedef struct jvq_numbers {
    double value[JVQ_MOST_NUMBERS];
    int64_t whole[JVQ_MOST_NUMBERS];
    uint64_t not_whole; /* by bit: has a fraction, or does not fit */
    uint64_t pointed;   /* by bit: written with a point, and whole only where its value is */
    bool has_empty;     /* nothing between two separators: it counts as 0 */
} jvq_numbers;

/* Scans `count` numbers with a comma before each, the last followed by the end of the record. Returns the byte behind
 * that, or NULL where one is no number, or not followed by what it should be. */
typedef const uint8_t *(*jvq_number_scanner)(const uint8_t *p, int count, jvq_numbers *out);

/* For this processor, or for any. */
jvq_number_scanner jvq_choose_number_scanner(bool for_any);

/* A number as int64. False where it is none. */
static inline bool jvq_whole(const jvq_numbers *numbers, int i, int64_t *out)
{
    const uint64_t bit = UINT64_C(1) << i;
    *out = numbers->whole[i];
    if (numbers->not_whole & bit)
        return false;
    if (numbers->pointed & bit) {
        *out = (int64_t)numbers->value[i];
        return (double)*out == numbers->value[i];
    }
    return true;
}

#endif
