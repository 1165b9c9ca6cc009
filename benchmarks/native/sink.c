/*
 * A client that reads and throws away: what the generator can send at most.
 *
 *   sink PORT
 *
 * It looks at no frame but the TEXT "0#begin" and "0#end", each of which is the last of what has been sent when it comes,
 * and prints in JSON the seconds from the first read between them to the last.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char data[1 << 20];

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static size_t receive(int server)
{
    ssize_t got = recv(server, data, sizeof data - 1, 0);
    if (got <= 0) {
        fputs("sink: the connection ended\n", stderr);
        exit(1);
    }
    data[got] = 0;
    return (size_t)got;
}

static void say(int server, const char *text, size_t size)
{
    if (send(server, text, size, 0) != (ssize_t)size)
        exit(1);
}

static int ends_with(size_t size, const char *text)
{
    size_t length = strlen(text);
    return size >= length && !memcmp(data + size - length, text, length);
}

int main(int argc, char **argv)
{
    static const char hello[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    /* Masks of zero: what they mask goes as it is. */
    static const char subscribe[] = "\x81\x8E\0\0\0\0add=lv2_600519", goodbye[] = "\x88\x82\0\0\0\0\x03\xE8";
    int server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 30};
    double first, last;
    size_t size;

    if (argc != 2)
        return 2;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(server, (struct sockaddr *)&address, sizeof address))
        return 1;
    say(server, hello, sizeof hello - 1);
    for (size = receive(server); !ends_with(size, "\r\n\r\n");)
        size = receive(server);
    say(server, subscribe, sizeof subscribe - 1);
    while (!ends_with(receive(server), "0#begin"))
        ;
    size = receive(server);
    first = last = now_s();
    for (; !ends_with(size, "0#end"); last = now_s())
        size = receive(server);
    say(server, goodbye, sizeof goodbye - 1);
    printf("{\"wall_s\": %.6f}\n", last - first);
    return 0;
}
