/* One writer and several readers on a ring, without Python: for the thread sanitizer, and for the processor itself.
 *
 *     ring_stress LAYOUT CAPACITY ITEMSIZE RECORDS READERS [FAULT]
 *
 * LAYOUT is `tape` or `history`. Each byte of a record follows from its number, so that a reader knows every record that
 * it was told is sound. FAULT plants what must be found: `plain` copies as if nobody wrote, which the sanitizer has to
 * report; `trusting` believes what was overwritten meanwhile, which the readers have to notice.
 * Exit code 0: all sound, read and lost add up. 1: they do not. 2: wrong arguments.
 */
#include "ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_READERS = 16 };
enum fault { NONE, PLAIN, TRUSTING };

static jvq_ring ring;
static uint64_t total;
static enum fault fault;

typedef struct reader {
    pthread_t thread;
    uint64_t read, lost, torn;
} reader;

static uint64_t word_of(uint64_t number, size_t word) { return (number + 1) * 0x9E3779B97F4A7C15u + word; }

static void fill(uint8_t *record, uint64_t number)
{
    for (size_t at = 0; at < ring.itemsize; at += 8) {
        const uint64_t word = word_of(number, at);
        memcpy(record + at, &word, ring.itemsize - at < 8 ? ring.itemsize - at : 8);
    }
}

static void *follow(void *argument)
{
    reader *self = argument;
    uint8_t *copy = malloc(ring.capacity * ring.itemsize), *wanted = malloc(ring.itemsize);
    uint64_t cursor = 0;

    if (copy == NULL || wanted == NULL)
        abort();
    while (cursor < total) {
        const uint64_t head = jvq_load_acquire(&ring.head);
        uint64_t first = cursor, sound;
        if (head == cursor) {
            sched_yield();
            continue;
        }
        if (head > ring.capacity && first < head - ring.capacity)
            first = head - ring.capacity;
        if (fault == PLAIN) {
            memcpy(copy, jvq_ring_at(&ring, first, head), (size_t)(head - first) * ring.itemsize);
            sound = first;
        } else {
            sound = jvq_ring_copy(&ring, first, head, copy);
        }
        if (fault == TRUSTING)
            sound = first;
        self->lost += sound - cursor;
        for (uint64_t number = sound; number < head; number++) {
            fill(wanted, number);
            self->torn += memcmp(copy + (number - first) * ring.itemsize, wanted, ring.itemsize) != 0;
            self->read++;
        }
        cursor = head;
    }
    free(copy);
    free(wanted);
    return NULL;
}

int main(int count, char **arguments)
{
    static reader readers[MAX_READERS];
    uint64_t lost = 0, read = 0, torn = 0;
    int number, wrong = 0;

    if (count < 6 || (number = atoi(arguments[5])) < 1 || number > MAX_READERS)
        return 2;
    ring.is_tape = strcmp(arguments[1], "tape") == 0;
    ring.capacity = strtoull(arguments[2], NULL, 10);
    ring.itemsize = (uint32_t)strtoul(arguments[3], NULL, 10);
    total = strtoull(arguments[4], NULL, 10);
    fault = count < 7 ? NONE : strcmp(arguments[6], "plain") == 0 ? PLAIN : TRUSTING;
    ring.storage = aligned_alloc(64, (jvq_ring_bytes(&ring) + 63) / 64 * 64);
    uint8_t *record = malloc(ring.itemsize);
    if (ring.storage == NULL || record == NULL)
        return 2;
    memset(ring.storage, 0, jvq_ring_bytes(&ring));
    for (int i = 0; i < number; i++)
        if (pthread_create(&readers[i].thread, NULL, follow, &readers[i]) != 0)
            return 2;
    for (uint64_t i = 0; i < total; i++) {
        fill(record, i);
        jvq_ring_append(&ring, record);
        /* Else the readers would find almost all of it overwritten. */
        if (i % (ring.capacity / 2 + 16) == 0)
            sched_yield();
    }
    for (int i = 0; i < number; i++) {
        pthread_join(readers[i].thread, NULL);
        wrong += readers[i].read + readers[i].lost != total;
        read += readers[i].read;
        lost += readers[i].lost;
        torn += readers[i].torn;
    }
    printf("read %llu lost %llu torn %llu\n", (unsigned long long)read, (unsigned long long)lost,
           (unsigned long long)torn);
    free(record);
    free(ring.storage);
    return wrong != 0 || torn != 0;
}
