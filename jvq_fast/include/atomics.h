/* The memory operations of the rings: one writer, readers that check after they copied. */
#ifndef JVQ_ATOMICS_H
#define JVQ_ATOMICS_H

#include <stdint.h>

#if defined(_MSC_VER)
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
#else
static inline void jvq_store_relaxed(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void jvq_store_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t jvq_load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t jvq_load_relaxed(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void jvq_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void jvq_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
#endif

#endif
