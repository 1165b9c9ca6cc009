/* Raw DEFLATE (RFC 1951), one whole message at a time, into a buffer of bounded size. */
#ifndef JVQ_INFLATE_H
#define JVQ_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum jvq_inflate_status {
    JVQ_INFLATED = 0,
    JVQ_INFLATE_ROOM,      /* the output does not fit */
    JVQ_INFLATE_CORRUPT,
    JVQ_INFLATE_TRUNCATED, /* the input ends before the final block does */
    JVQ_INFLATE_MEMORY
} jvq_inflate_status;

typedef struct jvq_inflater jvq_inflater;

/* NULL where there is no memory. */
jvq_inflater *jvq_inflater_new(void);
void jvq_inflater_free(jvq_inflater *inflater);

/* `*written` bytes of output and `*consumed` bytes of input, fewer than `size` where something follows the stream. */
jvq_inflate_status jvq_inflate(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                               size_t *written, size_t *consumed);

#endif
