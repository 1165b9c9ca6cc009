/*
 * Inflates what comes on standard input, each message at the very end of mapped memory, and so the room for its output:
 * a byte read or written behind either ends the process. Native byte order, 32 bits each:
 *   in: room, size, the message    out: status, consumed, written, the output
 */
#include "inflate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST = 1 << 22 };

static uint8_t *guarded(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *p = mmap(NULL, MOST + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + MOST, page, PROT_NONE))
        abort();
    return p + MOST;
}

int main(int argc, char **argv)
{
    static jvq_inflater inflater;
    uint8_t *in_end = guarded(), *out_end = guarded();
    uint32_t head[2];

    jvq_inflater_init(&inflater);
    if (argc > 1 && !strcmp(argv[1], "plain"))
        inflater.has_bmi2 = false;
    while (fread(head, sizeof head, 1, stdin) == 1) {
        uint32_t told[3];
        size_t room = head[0], size = head[1], written = 0, consumed = 0;
        if (room > MOST || size > MOST || (size && fread(in_end - size, size, 1, stdin) != 1))
            abort();
        memset(out_end - room, 0xA5, room);
        told[0] = (uint32_t)jvq_inflate(&inflater, in_end - size, size, out_end - room, room, &written, &consumed);
        if (written > room || consumed > size)
            abort();
        told[1] = (uint32_t)consumed;
        told[2] = (uint32_t)written;
        fwrite(told, sizeof told, 1, stdout);
        fwrite(out_end - room, 1, written, stdout);
    }
    return ferror(stdout) != 0;
}
