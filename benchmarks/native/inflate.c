/*
 * Nanoseconds per message of `inflate` alone, ours and each library's that was compiled in, by turns.
 *
 *   inflate ROUNDS <messages     32-bit sizes in native order, each before its message
 *
 * Prints, for each contender, its name and the nanoseconds of every round, warm ones only.
 */
#define _POSIX_C_SOURCE 199309L
#include "inflate.h"
#include "inflaters.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 1 << 20, ROOM = 1 << 22, WARM_UP = 3, PER_ROUND = 400000 };

typedef struct contender {
    const char *name;
    inflater run;
} contender;

static jvq_inflater ours;

static size_t inflate_ours(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    size_t written, consumed;
    return jvq_inflate(&ours, data, size, out, room, &written, &consumed) == JVQ_INFLATED ? written : 0;
}

static const contender contenders[] = {
    {"jvq_fast", inflate_ours},
#ifdef WITH_ZLIB
    {"zlib", inflate_zlib},
#endif
#ifdef WITH_LIBDEFLATE
    {"libdeflate", inflate_libdeflate},
#endif
#ifdef WITH_ISAL
    {"ISA-L", inflate_isal},
#endif
};
enum { CONTENDERS = sizeof contenders / sizeof *contenders };

static double spent_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* a neighbour on the core must not be counted */
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    static uint8_t *messages[MOST];
    static uint32_t sizes[MOST];
    uint8_t *out = malloc(ROOM), *first = malloc(ROOM);
    long rounds = argc == 2 ? atol(argv[1]) : 0, round;
    size_t n = 0, total = 0, i, repeats;
    double *taken;
    int k;

    jvq_inflater_init(&ours);
    if (!inflaters_prepare())
        return 2;
    for (; n < MOST && fread(&sizes[n], sizeof *sizes, 1, stdin) == 1; n++) {
        messages[n] = malloc(sizes[n] + 1);
        if (!messages[n] || fread(messages[n], 1, sizes[n], stdin) != sizes[n])
            return 2;
        total += sizes[n];
    }
    if (rounds < 1 || !n || !out || !first)
        return 2;
    for (i = 0; i < n; i++) {
        size_t written = inflate_ours(messages[i], sizes[i], first, ROOM);
        for (k = 1; k < CONTENDERS; k++)
            if (!written || contenders[k].run(messages[i], sizes[i], out, ROOM) != written ||
                memcmp(out, first, written)) {
                fprintf(stderr, "%s and %s make different texts of message %zu\n", contenders[0].name,
                        contenders[k].name, i);
                return 1;
            }
    }
    repeats = 1 + PER_ROUND / total;
    taken = malloc((size_t)rounds * CONTENDERS * sizeof *taken);
    for (round = -WARM_UP; round < rounds; round++)
        for (k = 0; k < CONTENDERS; k++) {
            double begun = spent_ns();
            size_t r;
            for (r = 0; r < repeats; r++)
                for (i = 0; i < n; i++)
                    contenders[k].run(messages[i], sizes[i], out, ROOM);
            if (round >= 0)
                taken[round * CONTENDERS + k] = (spent_ns() - begun) / (double)(repeats * n);
        }
    for (k = 0; k < CONTENDERS; k++) {
        printf("%s", contenders[k].name);
        for (round = 0; round < rounds; round++)
            printf(" %.1f", taken[round * CONTENDERS + k]);
        printf("\n");
    }
    return 0;
}
