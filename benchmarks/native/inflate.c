/*
 * Nanoseconds per message of `inflate` alone, ours and each library's that was compiled in, by turns.
 *
 *   inflate ROUNDS <messages     32-bit sizes in native order, each before its message
 *
 * Prints, for each contender, its name and the nanoseconds of every round, warm ones only.
 */
#include "inflate.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef WITH_ZLIB
#include <zlib.h>
#endif
#ifdef WITH_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef WITH_ISAL
#include <isa-l/igzip_lib.h>
#endif

enum { MOST = 1 << 20, ROOM = 1 << 22, WARM_UP = 3, PER_ROUND = 400000 };

typedef struct contender {
    const char *name;
    size_t (*run)(const uint8_t *data, size_t size, uint8_t *out);
} contender;

static jvq_inflater ours;

static size_t run_ours(const uint8_t *data, size_t size, uint8_t *out)
{
    size_t written, consumed;
    return jvq_inflate(&ours, data, size, out, ROOM, &written, &consumed) == JVQ_INFLATED ? written : 0;
}

#ifdef WITH_ZLIB
static z_stream zlib_stream;

static size_t run_zlib(const uint8_t *data, size_t size, uint8_t *out)
{
    inflateReset(&zlib_stream);
    zlib_stream.next_in = (Bytef *)data;
    zlib_stream.avail_in = (uInt)size;
    zlib_stream.next_out = out;
    zlib_stream.avail_out = ROOM;
    return inflate(&zlib_stream, Z_FINISH) == Z_STREAM_END ? zlib_stream.total_out : 0;
}
#endif

#ifdef WITH_LIBDEFLATE
static struct libdeflate_decompressor *libdeflate;

static size_t run_libdeflate(const uint8_t *data, size_t size, uint8_t *out)
{
    size_t written;
    return libdeflate_deflate_decompress(libdeflate, data, size, out, ROOM, &written) == LIBDEFLATE_SUCCESS ? written : 0;
}
#endif

#ifdef WITH_ISAL
static struct inflate_state isal;

static size_t run_isal(const uint8_t *data, size_t size, uint8_t *out)
{
    isal_inflate_reset(&isal);
    isal.crc_flag = ISAL_DEFLATE;
    isal.next_in = (uint8_t *)data;
    isal.avail_in = (uint32_t)size;
    isal.next_out = out;
    isal.avail_out = ROOM;
    return isal_inflate(&isal) == ISAL_DECOMP_OK ? isal.total_out : 0;
}
#endif

static const contender contenders[] = {
    {"jvq_fast", run_ours},
#ifdef WITH_ZLIB
    {"zlib", run_zlib},
#endif
#ifdef WITH_LIBDEFLATE
    {"libdeflate", run_libdeflate},
#endif
#ifdef WITH_ISAL
    {"ISA-L", run_isal},
#endif
};
enum { CONTENDERS = sizeof contenders / sizeof *contenders };

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
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
#ifdef WITH_ZLIB
    inflateInit2(&zlib_stream, -15);
#endif
#ifdef WITH_LIBDEFLATE
    libdeflate = libdeflate_alloc_decompressor();
#endif
#ifdef WITH_ISAL
    isal_inflate_init(&isal);
#endif
    for (; n < MOST && fread(&sizes[n], sizeof *sizes, 1, stdin) == 1; n++) {
        messages[n] = malloc(sizes[n] + 1);
        if (!messages[n] || fread(messages[n], 1, sizes[n], stdin) != sizes[n])
            return 2;
        total += sizes[n];
    }
    if (rounds < 1 || !n || !out || !first)
        return 2;
    for (i = 0; i < n; i++) {
        size_t written = run_ours(messages[i], sizes[i], first);
        for (k = 1; k < CONTENDERS; k++)
            if (!written || contenders[k].run(messages[i], sizes[i], out) != written || memcmp(out, first, written)) {
                fprintf(stderr, "%s and %s make different texts of message %zu\n", contenders[0].name,
                        contenders[k].name, i);
                return 1;
            }
    }
    repeats = 1 + PER_ROUND / total;
    taken = malloc((size_t)rounds * CONTENDERS * sizeof *taken);
    for (round = -WARM_UP; round < rounds; round++)
        for (k = 0; k < CONTENDERS; k++) {
            double begun = now_ns();
            size_t r;
            for (r = 0; r < repeats; r++)
                for (i = 0; i < n; i++)
                    contenders[k].run(messages[i], sizes[i], out);
            if (round >= 0)
                taken[round * CONTENDERS + k] = (now_ns() - begun) / (double)(repeats * n);
        }
    for (k = 0; k < CONTENDERS; k++) {
        printf("%s", contenders[k].name);
        for (round = 0; round < rounds; round++)
            printf(" %.1f", taken[round * CONTENDERS + k]);
        printf("\n");
    }
    return 0;
}
