#include "decimal.h"

#include <math.h>
#include <string.h>

const double jvq_pow10[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
const uint64_t jvq_whole_pow10[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* A halfway point between two doubles has at most 767 significant decimal digits, so that many and one more that says
 * whether anything non-zero follows decide every rounding. */
#define MAX_DIGITS 800
/* 10^1131 (all digits behind the point of the smallest double) shifted by 64 bits needs 3,822 bits. */
#define MAX_WORDS 128

typedef struct {
    uint32_t word[MAX_WORDS]; /* least significant first */
    int count;
} big;

static void big_multiply_add(big *n, uint32_t factor, uint32_t addend)
{
    uint64_t carry = addend;
    for (int i = 0; i < n->count; i++) {
        carry += (uint64_t)n->word[i] * factor;
        n->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry)
        n->word[n->count++] = (uint32_t)carry;
}

static void big_multiply_pow10(big *n, int exponent)
{
    for (; exponent >= 9; exponent -= 9)
        big_multiply_add(n, 1000000000u, 0);
    for (; exponent > 0; exponent--)
        big_multiply_add(n, 10u, 0);
}

static int word_bits(uint32_t word)
{
    int bits = 0;
    for (; word; word >>= 1)
        bits++;
    return bits;
}

static int big_bits(const big *n) { return n->count ? 32 * (n->count - 1) + word_bits(n->word[n->count - 1]) : 0; }

static void big_shift_left(big *n, int bits)
{
    int words = bits / 32, rest = bits % 32;
    if (rest) {
        uint32_t carry = 0;
        for (int i = 0; i < n->count; i++) {
            uint32_t word = n->word[i];
            n->word[i] = (word << rest) | carry;
            carry = word >> (32 - rest);
        }
        if (carry)
            n->word[n->count++] = carry;
    }
    memmove(n->word + words, n->word, (size_t)n->count * sizeof n->word[0]);
    memset(n->word, 0, (size_t)words * sizeof n->word[0]);
    n->count += words;
}

static void big_halve(big *n)
{
    for (int i = 0; i < n->count; i++)
        n->word[i] = n->word[i] >> 1 | (i + 1 < n->count ? n->word[i + 1] << 31 : 0);
    if (n->count && !n->word[n->count - 1])
        n->count--;
}

static int big_compare(const big *a, const big *b)
{
    if (a->count != b->count)
        return a->count < b->count ? -1 : 1;
    for (int i = a->count - 1; i >= 0; i--)
        if (a->word[i] != b->word[i])
            return a->word[i] < b->word[i] ? -1 : 1;
    return 0;
}

static void big_subtract(big *a, const big *b)
{
    int64_t carry = 0;
    for (int i = 0; i < a->count; i++) {
        carry += (int64_t)a->word[i] - (i < b->count ? b->word[i] : 0);
        a->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    while (a->count && !a->word[a->count - 1])
        a->count--;
}

/* quotient * 2^-shift, plus something smaller than the quotient's last bit where sticky, rounded half to even */
static double round_to_double(uint64_t quotient, int shift, bool sticky)
{
    int bits = 64, precision = 53, drop;
    uint64_t rest, half, mantissa;

    while (!(quotient >> (bits - 1)))
        bits--;
    int exponent = bits - 1 - shift;
    if (exponent < -1022)
        precision -= -1022 - exponent;
    if (precision < 0)
        return 0.0;
    drop = bits - precision;
    half = UINT64_C(1) << (drop - 1);
    rest = drop == 64 ? quotient : quotient & ((half << 1) - 1);
    mantissa = drop == 64 ? 0 : quotient >> drop;
    if (rest > half || (rest == half && (sticky || (mantissa & 1))))
        mantissa++;
    return ldexp((double)mantissa, drop - shift);
}

double jvq_decimal_round(const uint8_t *text, size_t length)
{
    big numerator = {{0}, 0}, denominator = {{1}, 1};
    int digits = 0, trailing = 0;
    int64_t point = 0; /* digits before the point, counted from the first significant one */
    bool before_point = true, truncated = false;

    for (size_t i = 0; i < length; i++) {
        uint8_t byte = text[i];
        if (byte == '.') {
            before_point = false;
            continue;
        }
        if (digits == 0 && byte == '0') {
            point -= !before_point;
            continue;
        }
        point += before_point;
        if (digits < MAX_DIGITS) {
            digits++;
            /* zeros wait until a digit follows: "1000.000" is one digit */
            if (byte == '0') {
                trailing++;
                continue;
            }
            big_multiply_pow10(&numerator, trailing);
            trailing = 0;
            big_multiply_add(&numerator, 10u, (uint32_t)(byte - '0'));
        } else if (byte != '0') {
            truncated = true;
        }
    }
    if (digits == 0)
        return 0.0;
    if (point > 310)
        return HUGE_VAL;
    if (point < -330)
        return 0.0;
    int significant = digits - trailing;
    if (truncated) {
        big_multiply_pow10(&numerator, trailing);
        big_multiply_add(&numerator, 10u, 1u);
        significant = digits + 1;
    }
    int exponent = (int)point - significant;
    if (exponent >= 0)
        big_multiply_pow10(&numerator, exponent);
    else
        big_multiply_pow10(&denominator, -exponent);

    /* with 63 bits more above than below, the quotient has 63 or 64 bits */
    int shift = 63 - (big_bits(&numerator) - big_bits(&denominator));
    if (shift > 0)
        big_shift_left(&numerator, shift);
    big_shift_left(&denominator, shift < 0 ? 63 - shift : 63);
    uint64_t quotient = 0;
    for (int i = 0; i < 64; i++) {
        quotient <<= 1;
        if (big_compare(&numerator, &denominator) >= 0) {
            big_subtract(&numerator, &denominator);
            quotient |= 1;
        }
        big_halve(&denominator);
    }
    return round_to_double(quotient, shift, numerator.count != 0);
}

bool jvq_decimal_whole(const jvq_number *number, int64_t *out)
{
    const uint8_t *p = number->text, *end = p + number->length;
    uint64_t limit = (uint64_t)INT64_MAX + number->negative, whole = 0;

    for (; p < end && *p != '.'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (whole > (limit - digit) / 10)
            return false;
        whole = whole * 10 + digit;
    }
    for (; p < end; p++)
        if (*p != '.' && *p != '0')
            return false;
    /* negation in unsigned arithmetic: -2^63 has no positive counterpart */
    *out = (int64_t)(number->negative ? UINT64_C(0) - whole : whole);
    return true;
}
