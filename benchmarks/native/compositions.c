/* Whole decoders in C: a library that inflates, and the reference parser behind it. What they take is measured here, so
 * that no call from Python is part of it. benchmarks/compositions.py builds and loads this.
 */
#define _POSIX_C_SOURCE 199309L
#include "inflaters.h"
#include "reference.h"

#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { ROOM = 1 << 22 };

static uint8_t text[ROOM + 1];

static int64_t spent_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Decodes the messages `repeat` times and returns the nanoseconds of the processor that took; *records is how many were stored. */
static inline int64_t decode(inflater run, reference *rings, const uint8_t *const *messages, const size_t *sizes,
                             size_t count, size_t repeat, int64_t recv, size_t *records)
{
    int64_t begun = spent_ns();
    size_t stored = 0;

    for (; repeat; repeat--)
        for (size_t i = 0; i < count; i++) {
            size_t size = run(messages[i], sizes[i], text, ROOM);
            text[size] = '\n';
            stored += reference_parse(rings, text, size, recv);
        }
    *records = stored;
    return spent_ns() - begun;
}

#define COMPOSITION(name)                                                                                              \
    EXPORT int64_t decode_##name(reference *rings, const uint8_t *const *messages, const size_t *sizes, size_t count,  \
                                 size_t repeat, int64_t recv, size_t *records);                                        \
    int64_t decode_##name(reference *rings, const uint8_t *const *messages, const size_t *sizes, size_t count,         \
                          size_t repeat, int64_t recv, size_t *records)                                                \
    {                                                                                                                  \
        return decode(inflate_##name, rings, messages, sizes, count, repeat, recv, records);                           \
    }

#ifdef WITH_ZLIB
COMPOSITION(zlib)
#endif
#ifdef WITH_LIBDEFLATE
COMPOSITION(libdeflate)
#endif
#ifdef WITH_ISAL
COMPOSITION(isal)
#endif

EXPORT bool prepare(void);
EXPORT reference *new_rings(void);
EXPORT void free_rings(reference *rings);
EXPORT const jvq_trade *last_trade(const reference *rings);
EXPORT const jvq_quote *last_quote(const reference *rings);
EXPORT const jvq_depth *last_depth(const reference *rings);

bool prepare(void) { return inflaters_prepare(); }
reference *new_rings(void) { return reference_new(); }
void free_rings(reference *rings) { reference_free(rings); }
const jvq_trade *last_trade(const reference *rings) { return reference_last_trade(rings); }
const jvq_quote *last_quote(const reference *rings) { return reference_last_quote(rings); }
const jvq_depth *last_depth(const reference *rings) { return reference_last_depth(rings); }
