/*
 * A market-data server for the benchmarks: one client, and messages by the clock or as fast as the socket takes them.
 *
 *   generator MESSAGES open-loop RATE BURST SECONDS STAMPS
 *   generator MESSAGES flood SECONDS
 *
 * MESSAGES is a file, 32-bit sizes in native order, each before its message; it is sent again and again. The port, on
 * 127.0.0.1, is the first line printed; what was sent is the second, in JSON. The client connects, subscribes with one
 * TEXT frame, and is sent half a second of warm-up, the TEXT "0#begin", what is measured, and the TEXT "0#end".
 *
 * `open-loop` sends RATE messages a second, BURST at a time, and never waits for the client. STAMPS gets one int64 a
 * message, CLOCK_MONOTONIC in ns: the time just before the message is offered to the socket. Only while the client holds
 * the generator up, from when the socket is full until the schedule is met again, it is the time the message was due:
 * a client must not be the better for the messages that it keeps from being sent. What the generator is late by itself
 * is not the client's, and is counted. A RATE of 0 sends nothing.
 *
 * `flood` writes buffers of 64 frames, and waits whenever the socket is full.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 64, WAIT_MS = 30000, HEADER = 10 };
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
static const int64_t SECOND = 1000000000, WARM_UP = 500000000, SETTLE = 100000000, LATE = 10000;

static int client;
static int64_t full_since; /* when the socket was found full, as long as this has not been made up for */

static void fail(const char *what)
{
    fprintf(stderr, "generator: %s\n", what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void wait_for(short events)
{
    struct pollfd one = {.fd = client, .events = events};
    if (poll(&one, 1, WAIT_MS) == 0)
        fail("the client does nothing");
}

/* --- the messages, framed, one behind the other --- */

static uint8_t *frames;
static size_t *starts; /* of each frame, and where the last one ends */
static size_t count;

static size_t put_header(uint8_t *at, int type, size_t size)
{
    int i;
    at[0] = (uint8_t)(0x80 | type);
    if (size < 126) {
        at[1] = (uint8_t)size;
        return 2;
    }
    if (size < 65536) {
        at[1] = 126;
        at[2] = (uint8_t)(size >> 8);
        at[3] = (uint8_t)size;
        return 4;
    }
    at[1] = 127;
    for (i = 0; i < 8; i++)
        at[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
    return 10;
}

static void read_messages(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t end = 0, room = 0, most = 0;
    uint32_t size;
    if (!file)
        fail("can't open the messages");
    while (fread(&size, sizeof size, 1, file) == 1) {
        if (end + HEADER + size > room)
            frames = realloc(frames, room = 2 * (end + HEADER + size));
        if (count + 1 >= most)
            starts = realloc(starts, (most = 2 * most + 1024) * sizeof *starts);
        if (!frames || !starts)
            fail("no memory");
        starts[count++] = end;
        end += put_header(frames + end, BINARY, size);
        if (fread(frames + end, 1, size, file) != size)
            fail("the messages end in the middle of one");
        end += size;
    }
    fclose(file);
    if (!count)
        fail("no messages");
    starts[count] = end;
}

/* --- RFC 6455: the handshake --- */

static uint32_t rotate(uint32_t value, int by)
{
    return value << by | value >> (32 - by);
}

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f, k, next;
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (i = 0; i < 80; i++) {
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* Sec-WebSocket-Accept: base64 of SHA-1 of the 24 characters of the key and a fixed text. */
static void accept_key(const char *key, char out[29])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t block[128] = {0}, sum[21] = {0};
    int i;
    memcpy(block, key, 24);
    memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    block[60] = 0x80;
    block[126] = (60 * 8) >> 8;
    block[127] = (60 * 8) & 255;
    sha1_block(state, block);
    sha1_block(state, block + 64);
    for (i = 0; i < 20; i++)
        sum[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    for (i = 0; i < 7; i++) {
        uint32_t group = (uint32_t)sum[3 * i] << 16 | (uint32_t)sum[3 * i + 1] << 8 | sum[3 * i + 2];
        out[4 * i] = digits[group >> 18];
        out[4 * i + 1] = digits[group >> 12 & 63];
        out[4 * i + 2] = digits[group >> 6 & 63];
        out[4 * i + 3] = digits[group & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

static void send_all(const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size) {
        ssize_t sent = send(client, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            at += sent;
            size -= (size_t)sent;
        } else if (errno == EAGAIN) {
            if (!full_since)
                full_since = now_ns();
            wait_for(POLLOUT);
        } else if (errno != EINTR) {
            fail("the client went away");
        }
    }
}

static size_t receive(void *to, size_t room)
{
    ssize_t got;
    wait_for(POLLIN);
    got = recv(client, to, room, 0);
    return got > 0 ? (size_t)got : 0;
}

static void shake_hands(void)
{
    static const char name[] = "Sec-WebSocket-Key:";
    char request[8192], reply[256], accepted[29], *line;
    size_t size = 0, got;
    for (request[0] = 0; !strstr(request, "\r\n\r\n"); request[size] = 0) {
        if (size == sizeof request - 1 || !(got = receive(request + size, sizeof request - 1 - size)))
            fail("no handshake");
        size += got;
    }
    for (line = request; line && strncasecmp(line, name, sizeof name - 1) != 0; line = line ? line + 2 : NULL)
        line = strstr(line, "\r\n");
    if (!line)
        fail("a handshake without a key");
    line += sizeof name - 1;
    line += strspn(line, " ");
    if (strcspn(line, "\r") < 24)
        fail("a key that is too short");
    accept_key(line, accepted);
    snprintf(reply, sizeof reply,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n\r\n",
             accepted);
    send_all(reply, strlen(reply));
}

/* --- RFC 6455: frames from the client, read only while nothing is being sent --- */

static uint8_t input[1 << 18];
static size_t input_size;

static void send_control(int type, const void *data, size_t size)
{
    uint8_t frame[128];
    size_t header = put_header(frame, type, size);
    memcpy(frame + header, data, size);
    send_all(frame, header + size);
}

/* Answers a PING or CLOSE; the type of the frame, or CLOSE where the connection ends without. */
static int take_frame(void)
{
    for (;;) {
        size_t length = input_size > 1 ? input[1] & 127 : 0, header = length == 127 ? 14 : length == 126 ? 8 : 6, got, i;
        if (input_size >= header) {
            if (length == 126)
                length = (size_t)input[2] << 8 | input[3];
            else if (length == 127)
                for (length = 0, i = 2; i < 10; i++)
                    length = length << 8 | input[i];
            if (header + length > sizeof input)
                fail("a frame that is too long");
            if (input_size >= header + length) {
                int type = input[0] & 15;
                uint8_t *data = input + header;
                for (i = 0; i < length && i < 125; i++)
                    data[i] ^= input[header - 4 + i % 4];
                if (type == PING || type == CLOSE)
                    send_control(type == PING ? PONG : CLOSE, data, length < 125 ? length : 125);
                input_size -= header + length;
                memmove(input, data + length, input_size);
                return type;
            }
        }
        if (!(got = receive(input + input_size, sizeof input - input_size)))
            return CLOSE;
        input_size += got;
    }
}

static void await(int type)
{
    int came;
    while ((came = take_frame()) != type)
        if (came == CLOSE)
            fail("the client closed");
}

/* --- what is measured --- */

static void sleep_until(int64_t when)
{
    struct timespec t = {.tv_sec = when / SECOND, .tv_nsec = when % SECOND};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void open_loop(double rate, int64_t burst, double seconds, const char *path)
{
    int64_t warm_up = (int64_t)(rate * (double)WARM_UP / 1e9) / burst * burst;
    int64_t total = warm_up + (int64_t)(rate * seconds), i, late = 0, behind = 0, start = now_ns() + SETTLE, due = start;
    int64_t *stamps = malloc((size_t)(total + 1) * sizeof *stamps);
    FILE *file = fopen(path, "wb");
    if (!stamps || !file)
        fail("no place for the stamps");
    memset(stamps, 0, (size_t)(total + 1) * sizeof *stamps); /* its pages are taken now */
    sleep_until(start - SETTLE / 2);
    for (i = 0; i < total; i++) {
        size_t k = (size_t)i % count;
        int64_t now;
        if (i == warm_up)
            send_control(TEXT, "0#begin", 7);
        if (i % burst == 0)
            due = start + (int64_t)((double)i / rate * 1e9);
        for (now = now_ns(); now < due; now = now_ns())
            full_since = 0;
        if (full_since) {
            stamps[i] = due > full_since ? due : full_since;
            behind++;
        } else {
            stamps[i] = now;
            late += i % burst == 0 && now > due + LATE;
        }
        send_all(frames + starts[k], starts[k + 1] - starts[k]);
    }
    if (!total) {
        send_control(TEXT, "0#begin", 7);
        sleep_until(now_ns() + (int64_t)(seconds * 1e9));
    }
    send_control(TEXT, "0#end", 5);
    if (fwrite(stamps, sizeof *stamps, (size_t)total, file) != (size_t)total || fclose(file) != 0)
        fail("can't write the stamps");
    printf("{\"sent\": %lld, \"warm_up\": %lld, \"late\": %lld, \"behind\": %lld}\n", (long long)total,
           (long long)warm_up, (long long)late, (long long)behind);
    free(stamps);
}

static int64_t flood_until(int64_t end)
{
    static size_t at;
    int64_t sent = 0;
    while (now_ns() < end) {
        size_t next = at + FRAMES < count ? at + FRAMES : count;
        send_all(frames + starts[at], starts[next] - starts[at]);
        sent += (int64_t)(next - at);
        at = next == count ? 0 : next;
    }
    return sent;
}

static void flood(double seconds)
{
    int64_t warm_up, sent;
    sleep_until(now_ns() + SETTLE);
    warm_up = flood_until(now_ns() + WARM_UP);
    send_control(TEXT, "0#begin", 7);
    sleep_until(now_ns() + SETTLE); /* a client that does not look at frames finds the text at the end of what it read */
    sent = warm_up + flood_until(now_ns() + (int64_t)(seconds * 1e9));
    send_control(TEXT, "0#end", 5);
    printf("{\"sent\": %lld, \"warm_up\": %lld}\n", (long long)sent, (long long)warm_up);
}

int main(int argc, char **argv)
{
    int is_open = argc == 7 && !strcmp(argv[2], "open-loop") && atol(argv[4]) > 0,
        is_flood = argc == 4 && !strcmp(argv[2], "flood");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (!is_open && !is_flood)
        fail("MESSAGES open-loop RATE BURST SECONDS STAMPS, or MESSAGES flood SECONDS");
    read_messages(argv[1]);
    if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, 1) ||
        getsockname(listening, (struct sockaddr *)&address, &size))
        fail("can't listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    client = listening;
    wait_for(POLLIN);
    client = accept(listening, NULL, NULL);
    close(listening);
    if (client < 0 || setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
        fail("no client");
    shake_hands();
    await(TEXT);
    if (is_open)
        open_loop(atof(argv[3]), atol(argv[4]), atof(argv[5]), argv[6]);
    else
        flood(atof(argv[3]));
    while (take_frame() != CLOSE)
        ;
    return 0;
}
