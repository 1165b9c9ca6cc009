/* One writer, many readers, no lock, no waiting.
 *
 * A reader on another thread copies first and asks afterwards: `claimed` is stored before the writer touches a slot,
 * `head` after the record is whole, so of what was copied up to `head` every record from `claimed - capacity` on is
 * sound. That a reader copies while the writer writes is meant: what came out torn is never looked at. Both do it in
 * relaxed atomic words, so that it is no data race; the kernels for x86 store vectors, which are one to the language but
 * keep their order on that processor. The fences order the words against `claimed`: who saw a word of a record sees the
 * claim that was made for it.
 *
 * tape:    2 * capacity slots, capacity a power of two; record i stands in slot i % capacity and again capacity slots
 *          further on, so that any capacity records in a row are contiguous.
 * history: 2 * capacity slots; when they are full the last half moves to the front. Contiguous as well, and one cache
 *          line written per record instead of two.
 */
#ifndef JVQ_RING_H
#define JVQ_RING_H

#include "atomics.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct jvq_ring {
    uint8_t *storage; /* NULL until it is taken */
    uint64_t head;    /* records ever published */
    uint64_t claimed; /* head, or head + 1 while a record is written */
    uint64_t capacity;
    uint64_t slot; /* of a history: where the next record goes */
    uint32_t itemsize;
    bool is_tape;
} jvq_ring;

static inline size_t jvq_ring_bytes(const jvq_ring *ring) { return 2 * (size_t)ring->capacity * ring->itemsize; }

/* Where record `index` stands while `head` records are published and it is one of the last `capacity`. */
static inline const uint8_t *jvq_ring_at(const jvq_ring *ring, uint64_t index, uint64_t head)
{
    uint64_t slot;
    if (ring->is_tape) {
        slot = index & (ring->capacity - 1);
    } else {
        slot = index % ring->capacity;
        /* the half that the newest record is in begins in the middle, except the very first one */
        if (head > ring->capacity && index / ring->capacity == (head - 1) / ring->capacity)
            slot += ring->capacity;
    }
    return ring->storage + slot * ring->itemsize;
}

/* Copies records on any thread; returns the first number from `first` to `head` that the copy holds soundly. */
static inline uint64_t jvq_ring_copy(const jvq_ring *ring, uint64_t first, uint64_t head, void *target)
{
    uint64_t claimed, oldest;

    jvq_load_words(target, jvq_ring_at(ring, first, head), (size_t)(head - first) * ring->itemsize, ring->itemsize);
    jvq_fence_acquire();
    claimed = jvq_load_acquire(&ring->claimed);
    oldest = claimed > ring->capacity ? claimed - ring->capacity : 0;
    return oldest <= first ? first : oldest < head ? oldest : head;
}

/* Fetches so many bytes where the next records of a history go. One without storage is left alone. */
static inline void jvq_history_prefetch(const jvq_ring *ring, uint32_t bytes, uint32_t itemsize)
{
#if defined(__GNUC__)
    const uint8_t *const place = ring->storage + ring->slot * itemsize;
    for (uint32_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(place + at, 1);
#else
    (void)ring;
    (void)bytes;
    (void)itemsize;
#endif
}

/* A record is published in three steps: claim its place, write all of it there (of a tape jvq_tape_mirror bytes further on
 * as well), and publish it. */
static inline uint8_t *jvq_tape_claim(jvq_ring *ring, uint32_t itemsize)
{
    const uint64_t head = ring->head;
    jvq_store_relaxed(&ring->claimed, head + 1);
    jvq_fence_release();
    return ring->storage + (head & (ring->capacity - 1)) * itemsize;
}

static inline size_t jvq_tape_mirror(const jvq_ring *ring, uint32_t itemsize) { return ring->capacity * itemsize; }

static inline uint8_t *jvq_history_claim(jvq_ring *ring, uint32_t itemsize)
{
    jvq_store_relaxed(&ring->claimed, ring->head + 1);
    jvq_fence_release();
    if (ring->slot == 2 * ring->capacity) {
        const size_t half = (size_t)ring->capacity * itemsize;
        jvq_move_words(ring->storage, ring->storage + half, half, itemsize);
        ring->slot = ring->capacity;
    }
    return ring->storage + ring->slot++ * itemsize;
}

static inline void jvq_ring_publish(jvq_ring *ring) { jvq_store_release(&ring->head, ring->head + 1); }

static inline void jvq_tape_append(jvq_ring *ring, const void *record, uint32_t itemsize)
{
    uint8_t *const place = jvq_tape_claim(ring, itemsize);
    jvq_store_words(place + jvq_tape_mirror(ring, itemsize), record, itemsize, itemsize);
    jvq_store_words(place, record, itemsize, itemsize);
    jvq_ring_publish(ring);
}

static inline void jvq_history_append(jvq_ring *ring, const void *record, uint32_t itemsize)
{
    jvq_store_words(jvq_history_claim(ring, itemsize), record, itemsize, itemsize);
    jvq_ring_publish(ring);
}

/* To a tape, and to a history, which may be NULL. */
static inline void jvq_publish(jvq_ring *tape, jvq_ring *history, const void *record, uint32_t itemsize)
{
    jvq_tape_append(tape, record, itemsize);
    if (history)
        jvq_history_append(history, record, itemsize);
}

static inline void jvq_ring_append(jvq_ring *ring, const void *record)
{
    if (ring->is_tape)
        jvq_tape_append(ring, record, ring->itemsize);
    else
        jvq_history_append(ring, record, ring->itemsize);
}

#endif
