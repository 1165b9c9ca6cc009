/* Raw DEFLATE (RFC 1951), one whole message at a time, into a buffer of bounded size. */
#ifndef JVQ_INFLATE_H
#define JVQ_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum jvq_inflate_status {
    JVQ_INFLATED = 0,
    JVQ_INFLATE_ROOM,     /* the output does not fit */
    JVQ_INFLATE_CORRUPT,
    JVQ_INFLATE_TRUNCATED /* the input ends before the final block does */
} jvq_inflate_status;

/* No legal code needs more entries: of 288 symbols with an index of 11 bits, of 32 with one of 8. */
enum { JVQ_LITERALS_ROOM = 2944, JVQ_DISTANCES_ROOM = 642 };
enum { JVQ_FIXED_LITERAL_BITS = 9, JVQ_FIXED_DISTANCE_BITS = 5 };

/* What a thread needs to inflate, one message after another. */
typedef struct jvq_inflater {
    uint32_t literals[JVQ_LITERALS_ROOM];
    uint32_t distances[JVQ_DISTANCES_ROOM];
    uint32_t fixed_literals[1 << JVQ_FIXED_LITERAL_BITS];
    uint32_t fixed_distances[1 << JVQ_FIXED_DISTANCE_BITS];
    bool has_bmi2;
} jvq_inflater;

/* Before its first use. */
void jvq_inflater_init(jvq_inflater *inflater);

/* `*written` bytes of output and `*consumed` bytes of input, fewer than `size` where something follows the stream.
 * Not a byte outside `data` and `out` is read or written. `*written` is set whatever the outcome. */
jvq_inflate_status jvq_inflate(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                               size_t *written, size_t *consumed);

#endif
