/*
 * Raw DEFLATE into `inflate` and into zlib: the same verdict, output and end of the stream. The stream is all of its
 * block of memory and the room all of its own, so that a byte read or written behind either is seen.
 *
 * An input is two bytes that choose the room and the processor, and a stream. With PLANTED the judge is wrong about the
 * end of a stream of seven bytes of text.
 */
#include "inflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { CLASSES = 4, FINE = 8, LARGEST = 1 << 16, PLAIN = 4, TEXT = 4096 };

static const size_t rooms[CLASSES] = {LARGEST, 300, 40, 0};
static uint8_t *outs[CLASSES][FINE];
static uint8_t expected[LARGEST + FINE];
static jvq_inflater inflater;
static bool has_bmi2;
static z_stream judge;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (int i = 0; i < CLASSES; i++)
        for (size_t fine = 0; fine < FINE; fine++) {
            outs[i][fine] = malloc(rooms[i] + fine);
            require(outs[i][fine]);
        }
    jvq_inflater_init(&inflater);
    has_bmi2 = inflater.has_bmi2;
    require(inflateInit2(&judge, -15) == Z_OK);
    return 0;
}

/* Inflates into `out`, told in the words of `inflate`. */
static jvq_inflate_status by_zlib(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    inflateReset(&judge);
    judge.next_in = (Bytef *)data;
    judge.avail_in = (uInt)size;
    judge.next_out = out;
    judge.avail_out = (uInt)room;
    switch (inflate(&judge, Z_SYNC_FLUSH)) {
    case Z_STREAM_END:
        return JVQ_INFLATED;
    case Z_OK:
    case Z_BUF_ERROR:
        return judge.avail_out ? JVQ_INFLATE_TRUNCATED : JVQ_INFLATE_ROOM;
    default:
        return JVQ_INFLATE_CORRUPT;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t room, written, consumed, ended;
    jvq_inflate_status status, wanted;
    uint8_t *stream, *out;

    if (size < 2)
        return -1;
    room = rooms[data[0] % CLASSES] + data[1] % FINE;
    out = outs[data[0] % CLASSES][data[1] % FINE];
    inflater.has_bmi2 = has_bmi2 && !(data[0] & PLAIN);
    size -= 2;
    stream = malloc(size);
    require(stream);
    memcpy(stream, data + 2, size);

    status = jvq_inflate(&inflater, stream, size, out, room, &written, &consumed);
    wanted = by_zlib(stream, size, expected, room);
    ended = judge.total_in;
#ifdef PLANTED
    ended += judge.total_out == 7;
#endif
    require(status == wanted);
    require(written <= room);
    if (status == JVQ_INFLATED)
        require(consumed == ended);
    if (status != JVQ_INFLATE_CORRUPT)
        require(written == judge.total_out && memcmp(out, expected, written) == 0);
    free(stream);
    return 0;
}

static uint32_t drawn;

static uint32_t draw(uint32_t below)
{
    drawn ^= drawn << 13;
    drawn ^= drawn >> 17;
    drawn ^= drawn << 5;
    return drawn % below;
}

/* Another text close to this stream's, compressed anew, in one to three parts. */
static size_t compressed_anew(uint8_t *data, size_t size, size_t most)
{
    static const int flushes[] = {Z_NO_FLUSH, Z_PARTIAL_FLUSH, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_BLOCK};
    static uint8_t text[TEXT];
    z_stream machine = {0};
    size_t length, made, part;

    by_zlib(data, size, text, TEXT);
    length = LLVMFuzzerMutate(text, judge.total_out, TEXT);
    require(deflateInit2(&machine, (int)draw(10), Z_DEFLATED, -9 - (int)draw(7), 1 + (int)draw(9), (int)draw(5)) == Z_OK);
    machine.next_in = text;
    machine.next_out = data;
    machine.avail_out = (uInt)most;
    while (length && draw(3)) {
        part = 1 + draw((uint32_t)length);
        machine.avail_in = (uInt)part;
        deflate(&machine, flushes[draw(5)]);
        part -= machine.avail_in;
        length -= part;
        if (!part)
            break;
    }
    machine.avail_in = (uInt)length;
    deflate(&machine, Z_FINISH);
    made = machine.total_out;
    deflateEnd(&machine);
    return made;
}

/* All bits from somewhere on move by one: the codes before stay what they are, and those behind come out of step. */
static void shift_bits(uint8_t *data, size_t size)
{
    size_t at = draw((uint32_t)size);
    if (draw(2)) {
        for (size_t i = size - 1; i > at; i--)
            data[i] = (uint8_t)(data[i] << 1 | data[i - 1] >> 7);
    } else {
        for (size_t i = at; i + 1 < size; i++)
            data[i] = (uint8_t)(data[i] >> 1 | data[i + 1] << 7);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    drawn = seed * 2654435761u | 1;
    draw(2);
    if (size > 2 && !draw(16))
        return 2 + compressed_anew(data + 2, size - 2, most - 2);
    if (size > 2 && !draw(8)) {
        if (draw(2))
            data[2 + draw((uint32_t)size - 2)] ^= (uint8_t)(1 << draw(8));
        else
            shift_bits(data + 2, size - 2);
        return size;
    }
    return LLVMFuzzerMutate(data, size, most);
}
