#include "inflate.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct jvq_inflater {
    z_stream stream;
};

jvq_inflater *jvq_inflater_new(void)
{
    jvq_inflater *inflater = calloc(1, sizeof *inflater);
    if (inflater && inflateInit2(&inflater->stream, -MAX_WBITS) != Z_OK) {
        free(inflater);
        return NULL;
    }
    return inflater;
}

void jvq_inflater_free(jvq_inflater *inflater)
{
    if (inflater) {
        inflateEnd(&inflater->stream);
        free(inflater);
    }
}

jvq_inflate_status jvq_inflate(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                               size_t *written, size_t *consumed)
{
    z_stream *stream = &inflater->stream;
    int result;

    *written = *consumed = 0;
    if (size > UINT_MAX || room > UINT_MAX)
        return JVQ_INFLATE_ROOM;
    inflateReset(stream);
    stream->next_in = (Bytef *)data; /* zlib's interface is older than const; it does not write there */
    stream->avail_in = (uInt)size;
    stream->next_out = out;
    stream->avail_out = (uInt)room;
    result = inflate(stream, Z_FINISH);
    *written = room - stream->avail_out;
    *consumed = size - stream->avail_in;
    switch (result) {
    case Z_STREAM_END:
        return JVQ_INFLATED;
    case Z_OK:
    case Z_BUF_ERROR:
        return stream->avail_out == 0 ? JVQ_INFLATE_ROOM : JVQ_INFLATE_TRUNCATED;
    case Z_MEM_ERROR:
        return JVQ_INFLATE_MEMORY;
    default:
        return JVQ_INFLATE_CORRUPT;
    }
}
