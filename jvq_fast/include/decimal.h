/* The feed's numbers: -?digits[.digits], scanned where they stand.
 *
 * Every text handed to these functions is terminated by a byte that is no digit and no '.', so no function needs an
 * end pointer: the decoder puts a '\n' behind each message.
 */
#ifndef JVQ_DECIMAL_H
#define JVQ_DECIMAL_H

#include "digits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct jvq_number {
    const uint8_t *text; /* first digit, behind the sign */
    uint64_t digits;     /* all digits read as one integer; meaningless when there are more than 19 */
    uint32_t length;     /* bytes from text to the end of the number */
    uint32_t fraction;   /* digits behind the point */
    bool negative;
    bool empty;          /* nothing between the separators: the value is 0 */
} jvq_number;

extern const double jvq_pow10[23];
extern const uint64_t jvq_whole_pow10[9];

/* The correctly rounded double of any digits[.digits], however long. */
double jvq_decimal_round(const uint8_t *text, size_t length);

/* A whole number with more than 19 digits, or a fraction that long; see jvq_number_whole. */
bool jvq_decimal_whole(const jvq_number *number, int64_t *out);

static inline bool jvq_is_separator(uint8_t byte) { return byte == ',' || byte == '|' || byte == '\n'; }

/* Scans one number. Returns the byte behind it, or NULL where the text is no number. */
static inline const uint8_t *jvq_number_scan(const uint8_t *p, jvq_number *out)
{
    uint64_t digits = 0;
    uint8_t digit;

    out->negative = *p == '-';
    p += out->negative;
    out->text = p;
    out->fraction = 0;
    out->empty = false;
    while ((digit = (uint8_t)(*p - '0')) <= 9) {
        digits = digits * 10 + digit;
        p++;
    }
    if (p == out->text) {
        if (out->negative || !jvq_is_separator(*p))
            return NULL;
        out->empty = true;
    } else if (*p == '.') {
        const uint8_t *first = ++p;
        while ((digit = (uint8_t)(*p - '0')) <= 9) {
            digits = digits * 10 + digit;
            p++;
        }
        if (p == first)
            return NULL;
        out->fraction = (uint32_t)(p - first);
    }
    out->digits = digits;
    out->length = (uint32_t)(p - out->text);
    return p;
}

static inline bool jvq_number_is_short(const jvq_number *number)
{
    return number->length - (number->fraction != 0) <= 19;
}

/* The double nearest to the text: both operands of the division are exact, so it rounds once. */
static inline double jvq_number_value(const jvq_number *number)
{
    double value;
    if (jvq_number_is_short(number) && number->digits <= (UINT64_C(1) << 53))
        value = (double)number->digits / jvq_pow10[number->fraction];
    else
        value = jvq_decimal_round(number->text, number->length);
    return number->negative ? -value : value;
}

/* The number as int64. False where it has a non-zero fraction or does not fit. */
static inline bool jvq_number_whole(const jvq_number *number, int64_t *out)
{
    if (number->fraction == 0 && number->length <= 18) {
        *out = number->negative ? -(int64_t)number->digits : (int64_t)number->digits;
        return true;
    }
    return jvq_decimal_whole(number, out);
}

#endif
