/* The libraries that this package's inflate is measured against, those that were compiled in, behind one signature: bytes
 * of text, or 0 where there is no text. Each keeps one state for all messages, as its documentation advises.
 */
#ifndef INFLATERS_H
#define INFLATERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef WITH_ZLIB
#include <zlib.h>
#endif
#ifdef WITH_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef WITH_ISAL
#include <isa-l/igzip_lib.h>
#endif

typedef size_t (*inflater)(const uint8_t *data, size_t size, uint8_t *out, size_t room);

#ifdef WITH_ZLIB
static z_stream zlib;

static inline size_t inflate_zlib(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    inflateReset(&zlib);
    zlib.next_in = (Bytef *)(uintptr_t)data;
    zlib.avail_in = (uInt)size;
    zlib.next_out = out;
    zlib.avail_out = (uInt)room;
    return inflate(&zlib, Z_FINISH) == Z_STREAM_END ? zlib.total_out : 0;
}
#endif

#ifdef WITH_LIBDEFLATE
static struct libdeflate_decompressor *libdeflate;

static inline size_t inflate_libdeflate(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    size_t written;
    return libdeflate_deflate_decompress(libdeflate, data, size, out, room, &written) == LIBDEFLATE_SUCCESS ? written : 0;
}
#endif

#ifdef WITH_ISAL
static struct inflate_state isal;

static inline size_t inflate_isal(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    isal_inflate_reset(&isal);
    isal.crc_flag = ISAL_DEFLATE;
    isal.next_in = (uint8_t *)(uintptr_t)data;
    isal.avail_in = (uint32_t)size;
    isal.next_out = out;
    isal.avail_out = (uint32_t)room;
    return isal_inflate(&isal) == ISAL_DECOMP_OK ? isal.total_out : 0;
}
#endif

/* Once, before the first message. False where there is no memory. */
static inline bool inflaters_prepare(void)
{
#ifdef WITH_ZLIB
    if (inflateInit2(&zlib, -15) != Z_OK)
        return false;
#endif
#ifdef WITH_LIBDEFLATE
    libdeflate = libdeflate_alloc_decompressor();
    if (!libdeflate)
        return false;
#endif
#ifdef WITH_ISAL
    isal_inflate_init(&isal);
#endif
    return true;
}

#endif
