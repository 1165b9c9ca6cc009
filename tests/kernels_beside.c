/* The kernels for any processor and those that this one can run, on the same rows at the end of a mapped page.
 *
 *     kernels_beside <rows        each a line; 64 readable bytes follow it, as the decoder's buffer has them
 *
 * Prints for every row and kernel one line: how far it came, and hashes of what it made.
 */
#define _DEFAULT_SOURCE
#include "processor.h"
#include "snapshots.h"
#include "trades.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 16, CAPACITY = 64 };

static void show(const char *name, const void *data, size_t size)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325); /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001B3);
    printf(" %s=%016llx", name, (unsigned long long)hash);
}

static void publish(const uint8_t *text, int processor)
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
    count = jvq_choose_trade_publisher(processor)(&run, CAPACITY);
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

/* A quote or a depth, parsed in either order and published, to a history that moves its half and to none. */
static void snapshot(const uint8_t *text, bool is_quote, bool second, int processor)
{
    static uint8_t tape_storage[2 * sizeof(jvq_depth)], history_storage[2 * sizeof(jvq_depth)];
    const jvq_snapshot_kernels *const kernels = jvq_choose_snapshot_kernels(processor);
    const uint32_t size = is_quote ? sizeof(jvq_quote) : sizeof(jvq_depth);
    jvq_ring tape = {.storage = tape_storage, .capacity = 1, .itemsize = size, .is_tape = true};
    jvq_ring history = {.storage = history_storage, .capacity = 1, .itemsize = size};
    jvq_order order = {.second = second, .votes = {2, 2}};
    const uint8_t *cursor = text + 1;
    int64_t time_of_day = -1;
    jvq_text name = {NULL, 0};
    jvq_status status;
    union {
        jvq_quote quote;
        jvq_depth depth;
    } record;

    memset(&record, 0, sizeof record);
    status = is_quote ? jvq_parse_quote(&cursor, 4096, kernels, false, &order, &record.quote, &time_of_day, &name)
                      : jvq_parse_depth(&cursor, 4096, kernels, &order, &record.depth, &time_of_day, &name);
    printf("%s %d", is_quote ? "quote" : "depth", status == JVQ_OK);
    if (status == JVQ_OK) {
        void (*const publish_record)(jvq_ring *, jvq_ring *, const void *) =
            is_quote ? kernels->publish_quote : kernels->publish_depth;
        printf(" at %td order=%d settled=%d votes=%u,%u", cursor - text, order.second, order.settled, order.votes[0],
               order.votes[1]);
        show("time", &time_of_day, 8);
        show("name", name.start, name.length);
        for (int i = 0; i < 3; i++)
            publish_record(&tape, i ? &history : NULL, &record);
        show("tape", tape_storage, 2 * size);
        show("history", history_storage, 2 * size);
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
        for (int processor = 0; processor <= jvq_this_processor(); processor++) {
            publish(text, processor);
            for (int kind = 0; kind < 4; kind++)
                snapshot(text, kind / 2, kind % 2, processor);
        }
    }
    free(line);
    return 0;
}
