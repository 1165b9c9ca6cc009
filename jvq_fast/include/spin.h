/* Reading from a socket by asking for data again and again: the thread never sleeps. */
#ifndef JVQ_SPIN_H
#define JVQ_SPIN_H

#include "clock.h"

#include <stddef.h>

#define JVQ_SPIN_NOTHING (-1)
#define JVQ_SPIN_ENDED 0

#if defined(_WIN32)
static inline ptrdiff_t jvq_spin(int fd, void *to, size_t room, int64_t until)
{
    (void)fd, (void)to, (void)room, (void)until;
    return JVQ_SPIN_ENDED;
}
#else
#include <errno.h>
#include <sys/socket.h>

/* The bytes that came, JVQ_SPIN_NOTHING if there were none `until` then, JVQ_SPIN_ENDED if none will come any more. */
static inline ptrdiff_t jvq_spin(int fd, void *to, size_t room, int64_t until)
{
    do {
        const ptrdiff_t size = recv(fd, to, room, MSG_DONTWAIT);
        if (size >= 0)
            return size;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return JVQ_SPIN_ENDED;
    } while (jvq_clock_ns() < until);
    return JVQ_SPIN_NOTHING;
}
#endif

#endif
