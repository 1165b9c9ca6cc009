/* One writer, many readers, no lock, no waiting.
 *
 * A reader on another thread copies first and asks afterwards: `claimed` is stored before the writer touches a slot,
 * `head` after the record is whole, so of what was copied up to `head` every record from `claimed - capacity` on is
 * sound.
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
#include <string.h>

typedef struct jvq_ring {
    uint8_t *storage; /* NULL until it is taken */
    uint64_t head;    /* records ever published */
    uint64_t claimed; /* head, or head + 1 while a record is written */
    uint64_t capacity;
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

/* The slot for the next record. It may be claimed again and again until it is published. */
static inline uint8_t *jvq_ring_claim(jvq_ring *ring)
{
    uint64_t head = ring->head, slot;

    jvq_store_relaxed(&ring->claimed, head + 1);
    jvq_fence_release();
    if (ring->is_tape) {
        /* the mirror slot: no view of the last `capacity` records reaches it, so a record that turns out bad while it
         * is parsed there has overwritten nothing that still counts */
        slot = (head & (ring->capacity - 1)) + ring->capacity;
    } else {
        slot = head % ring->capacity;
        if (head >= ring->capacity) {
            if (slot == 0 && head > ring->capacity) {
                size_t half = (size_t)ring->capacity * ring->itemsize;
                memcpy(ring->storage, ring->storage + half, half);
            }
            slot += ring->capacity;
        }
    }
    return ring->storage + slot * ring->itemsize;
}

static inline void jvq_ring_publish(jvq_ring *ring)
{
    if (ring->is_tape) {
        uint8_t *slot = ring->storage + (ring->head & (ring->capacity - 1)) * ring->itemsize;
        memcpy(slot, slot + ring->capacity * ring->itemsize, ring->itemsize);
    }
    jvq_store_release(&ring->head, ring->head + 1);
}

static inline void jvq_ring_append(jvq_ring *ring, const void *record)
{
    memcpy(jvq_ring_claim(ring), record, ring->itemsize);
    jvq_ring_publish(ring);
}

#endif
