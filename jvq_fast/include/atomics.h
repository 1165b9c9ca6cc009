/* The memory operations of the rings: one writer, readers that check after they copied.
 *
 * Words are 8 bytes where every record is made of such, else one byte; writer and readers use the same. Records begin at
 * multiples of their size in storage that is aligned to cache lines, so that a word of 8 bytes is aligned.
 */
#ifndef JVQ_ATOMICS_H
#define JVQ_ATOMICS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define JVQ_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define JVQ_THREAD_SANITIZER 1
#endif
#endif
#ifndef JVQ_THREAD_SANITIZER
#define JVQ_THREAD_SANITIZER 0
#endif

#if defined(_MSC_VER)
#if !defined(_M_X64) && !defined(_M_IX86)
#error "with this compiler the rings are for x86 and x64 only"
#endif
#include <intrin.h>
/* x86 and x64 keep stores in order and loads in order; the compiler must as well. */
static __forceinline void jvq_fence_release(void) { _ReadWriteBarrier(); }
static __forceinline void jvq_fence_acquire(void) { _ReadWriteBarrier(); }
static __forceinline void jvq_store_relaxed(uint64_t *p, uint64_t v) { *(volatile uint64_t *)p = v; }
static __forceinline void jvq_store_release(uint64_t *p, uint64_t v)
{
    _ReadWriteBarrier();
    *(volatile uint64_t *)p = v;
}
static __forceinline uint64_t jvq_load_acquire(const uint64_t *p)
{
    uint64_t v = *(const volatile uint64_t *)p;
    _ReadWriteBarrier();
    return v;
}
static __forceinline uint64_t jvq_load_relaxed(const uint64_t *p) { return *(const volatile uint64_t *)p; }
static __forceinline void jvq_add_relaxed(uint64_t *p, uint64_t by) { jvq_store_relaxed(p, *p + by); }
#define JVQ_UNROLL
typedef uint64_t jvq_word;
#define JVQ_LOAD_WORD(p) (*(const volatile jvq_word *)(const void *)(p))
#define JVQ_STORE_WORD(p, v) (*(volatile jvq_word *)(void *)(p) = (v))
#define JVQ_LOAD_BYTE(p) (*(const volatile uint8_t *)(p))
#define JVQ_STORE_BYTE(p, v) (*(volatile uint8_t *)(p) = (v))
#else
static inline void jvq_store_relaxed(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void jvq_store_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t jvq_load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t jvq_load_relaxed(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void jvq_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void jvq_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
/* Of what one thread alone writes: on x86 an instruction, which compilers do not find. */
static inline void jvq_add_relaxed(uint64_t *p, uint64_t by)
{
#if defined(__x86_64__) && !JVQ_THREAD_SANITIZER
    __asm__("addq %1, %0" : "+m"(*p) : "er"(by));
#else
    jvq_store_relaxed(p, *p + by);
#endif
}
/* A loop of one record's words, whose number the compiler mostly knows. */
#define JVQ_UNROLL _Pragma("GCC unroll 8")
/* The fastest way to move much, of which the thread sanitizer sees nothing. */
#if defined(__x86_64__) && !JVQ_THREAD_SANITIZER
#define JVQ_STRING_MOVES 1
#endif
/* The records are read as structs, by the writer itself and by numpy. */
typedef uint64_t __attribute__((may_alias)) jvq_word;
#define JVQ_LOAD_WORD(p) __atomic_load_n((const jvq_word *)(const void *)(p), __ATOMIC_RELAXED)
#define JVQ_STORE_WORD(p, v) __atomic_store_n((jvq_word *)(void *)(p), (v), __ATOMIC_RELAXED)
#define JVQ_LOAD_BYTE(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define JVQ_STORE_BYTE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#endif
#ifndef JVQ_STRING_MOVES
#define JVQ_STRING_MOVES 0
#endif

/* From shared memory to the reader's own. */
static inline void jvq_load_words(void *target, const uint8_t *shared, size_t size, uint32_t itemsize)
{
    uint8_t *own = target;
    size_t i;
    if (itemsize % 8 == 0) {
        for (i = 0; i < size; i += 8) {
            jvq_word word = JVQ_LOAD_WORD(shared + i);
            memcpy(own + i, &word, 8);
        }
    } else {
        for (i = 0; i < size; i++)
            own[i] = JVQ_LOAD_BYTE(shared + i);
    }
}

/* From memory that the writer alone writes to shared memory. */
static inline void jvq_store_words(uint8_t *shared, const void *source, size_t size, uint32_t itemsize)
{
    const uint8_t *own = source;
    size_t i;
    if (itemsize % 8 == 0) {
        JVQ_UNROLL
        for (i = 0; i < size; i += 8) {
            jvq_word word;
            memcpy(&word, own + i, 8);
            JVQ_STORE_WORD(shared + i, word);
        }
    } else {
        for (i = 0; i < size; i++)
            JVQ_STORE_BYTE(shared + i, own[i]);
    }
}

/* Within shared memory, which this thread alone writes; the places do not overlap. */
static inline void jvq_move_words(uint8_t *to, const uint8_t *from, size_t size, uint32_t itemsize)
{
#if JVQ_STRING_MOVES
    if (itemsize % 8 == 0) {
        size_t words = size / 8;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
        return;
    }
#endif
    jvq_store_words(to, from, size, itemsize);
}

#endif
