/* Lets libFuzzer see which branches of an extension an input takes, and what it compares.
 *
 * Linked into each extension of the fuzz build. Compilers put calls of these functions everywhere (trace-pc, trace-cmp:
 * gcc has no inline counters); they are handed to the libFuzzer inside of the file that JVQ_FAST_LIBFUZZER names, which
 * Python loads without showing its symbols to others. Without the variable nothing is reported.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define HIDDEN __attribute__((visibility("hidden")))

enum { BITS = 14, COUNTERS = 1 << BITS };

static uint8_t counters[COUNTERS];
static struct {
    uintptr_t pc, flags;
} places[COUNTERS];

/* A hash of the place decides which counter is its own: now and then two places share one. */
HIDDEN void __sanitizer_cov_trace_pc(void)
{
    uint64_t place = (uint64_t)((uintptr_t)__builtin_return_address(0) - (uintptr_t)counters);
    uint8_t *counter = &counters[(place * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - BITS)];
    *counter += *counter != UINT8_MAX;
}

/* Tail calls, so that libFuzzer finds the place of the comparison as the return address. */
#define FORWARD(name, type)                                                                                           \
    static void (*name)(type, type);                                                                                  \
    HIDDEN void __sanitizer_cov_trace_##name(type a, type b)                                                          \
    {                                                                                                                 \
        if (name)                                                                                                     \
            name(a, b);                                                                                               \
    }
#define EACH(what)                                                                                                    \
    what(cmp1, uint8_t) what(cmp2, uint16_t) what(cmp4, uint32_t) what(cmp8, uint64_t) what(const_cmp1, uint8_t)      \
        what(const_cmp2, uint16_t) what(const_cmp4, uint32_t) what(const_cmp8, uint64_t)

EACH(FORWARD)

static void (*trace_switch)(uint64_t, uint64_t *);

HIDDEN void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases)
{
    if (trace_switch)
        trace_switch(value, cases);
}

/* Unknown to libFuzzer. */
HIDDEN void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
HIDDEN void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }

#define FIND(name, type) *(void **)&name = dlsym(fuzzer, "__sanitizer_cov_trace_" #name);

__attribute__((constructor)) static void report(void)
{
    const char *file = getenv("JVQ_FAST_LIBFUZZER");
    void *fuzzer = file ? dlopen(file, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void (*take_counters)(uint8_t *, uint8_t *);
    void (*take_places)(void *, void *);

    if (!fuzzer)
        return;
    *(void **)&take_counters = dlsym(fuzzer, "__sanitizer_cov_8bit_counters_init");
    *(void **)&take_places = dlsym(fuzzer, "__sanitizer_cov_pcs_init");
    if (!take_counters || !take_places)
        return;
    for (size_t i = 0; i < COUNTERS; i++)
        places[i].pc = (uintptr_t)&counters[i];
    take_counters(counters, counters + COUNTERS);
    take_places(places, places + COUNTERS);
    EACH(FIND)
    *(void **)&trace_switch = dlsym(fuzzer, "__sanitizer_cov_trace_switch");
}
