/*
 * The stores that a trade costs, and nothing else: a record twice into a mirrored tape, and once into the history of its
 * code, a buffer of twice its length whose last half moves to the front when it is full.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct trade {
    uint64_t seq;
    uint64_t rest[7];
} trade;

typedef struct ring {
    trade *storage; /* of 2 * capacity records */
    size_t capacity;
    size_t next; /* slot */
} ring;

/* For each message so many records of its code. Without histories on the tape alone. */
void store(trade *made, ring *tape, ring *histories, const uint32_t *codes, size_t messages, size_t records);

void store(trade *made, ring *tape, ring *histories, const uint32_t *codes, size_t messages, size_t records)
{
    for (size_t i = 0; i < messages; i++)
        for (size_t k = 0; k < records; k++) {
            made->seq++;
            memcpy(tape->storage + tape->next, made, sizeof *made);
            memcpy(tape->storage + tape->next + tape->capacity, made, sizeof *made);
            tape->next = (tape->next + 1) & (tape->capacity - 1);
            if (histories) {
                ring *history = &histories[codes[i]];
                if (history->next == 2 * history->capacity) {
                    memcpy(history->storage, history->storage + history->capacity, history->capacity * sizeof *made);
                    history->next = history->capacity;
                }
                memcpy(history->storage + history->next++, made, sizeof *made);
            }
        }
}
