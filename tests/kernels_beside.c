/* The kernels for this processor and those for any, on the same rows at the end of a mapped page.
 *
 *     kernels_beside <rows        each a line; 64 readable bytes follow it, as the decoder's buffer has them
 *
 * Prints for every row and kernel one line: how far it came, and hashes of what it made.
 */
#define _DEFAULT_SOURCE
#include "numbers.h"
#include "trades.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 16, CAPACITY = 64, NUMBERS = 44 };

static void show(const char *name, const void *data, size_t size)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325); /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001B3);
    printf(" %s=%016llx", name, (unsigned long long)hash);
}

static void publish(const uint8_t *text, bool for_any)
{
    static uint8_t tape_storage[2 * CAPACITY * sizeof(jvq_trade)], history_storage[2 * CAPACITY * sizeof(jvq_trade)];
    jvq_ring tape = {.storage = tape_storage, .capacity = CAPACITY, .itemsize = sizeof(jvq_trade), .is_tape = true};
    jvq_ring history = {.storage = history_storage, .capacity = CAPACITY / 4, .itemsize = sizeof(jvq_trade)};
    jvq_trade_run run = {
        .cursor = text, .tape = &tape, .history = &history, .code = UINT64_C(0x393135303036), .seq = 7, .recv = 11,
        .midnight = INT64_C(1795363200000000000), .latest = INT64_C(1795363200000000000) + INT64_C(40000000000000),
        .fresh_from = INT64_C(1795363200000000000) + INT64_C(34200000000000), .flags = JVQ_NO_DATE,
        .latest_time_of_day = -1,
    };
    uint64_t count;

    memset(tape_storage, 0, sizeof tape_storage);
    memset(history_storage, 0, sizeof history_storage);
    count = jvq_choose_trade_publisher(for_any)(&run, CAPACITY);
    printf("trades %llu at %td", (unsigned long long)count, run.cursor - text);
    show("stale", &run.stale, 8);
    show("last", &run.last_time, 8);
    show("latest", &run.latest_time_of_day, 8);
    show("seq", &run.seq, 8);
    show("tape", tape_storage, count * sizeof(jvq_trade));
    if (memcmp(tape_storage, tape_storage + CAPACITY * sizeof(jvq_trade), CAPACITY * sizeof(jvq_trade)) != 0)
        printf(" the mirror differs");
    show("history", history_storage, sizeof history_storage);
    putchar('\n');
}

static void scan(const uint8_t *text, int count, bool for_any)
{
    jvq_numbers numbers;
    const uint8_t *end;
    memset(&numbers, 0, sizeof numbers);
    end = jvq_choose_number_scanner(for_any)(text + 1, count, &numbers);
    printf("numbers %td", end ? end - text : -1);
    if (end) {
        show("values", numbers.value, (size_t)count * sizeof(double));
        printf(" empty=%d whole=", numbers.has_empty);
        for (int i = 0; i < count; i++) {
            int64_t whole;
            if (jvq_whole(&numbers, i, &whole))
                printf("%lld,", (long long)whole);
            else
                printf("no,");
        }
    }
    putchar('\n');
}

int main(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = PAGES * page;
    uint8_t *const pages = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *line = NULL;
    size_t line_room = 0;
    ssize_t size;

    if (pages == MAP_FAILED || mprotect(pages + room, page, PROT_NONE))
        return 2;
    while ((size = getline(&line, &line_room, stdin)) > 0) {
        uint8_t *const text = pages + room - JVQ_TEXT_MARGIN - size;
        if ((size_t)size > room - JVQ_TEXT_MARGIN)
            return 2;
        memcpy(text, line, (size_t)size);
        /* what the kernels must not take for a part of the row */
        memset(text + size, size % 2 ? '7' : ',', JVQ_TEXT_MARGIN);
        for (int for_any = 0; for_any < 2; for_any++) {
            publish(text, for_any);
            scan(text, 1, for_any);
            scan(text, 24, for_any);
            scan(text, NUMBERS, for_any);
        }
    }
    free(line);
    return 0;
}
