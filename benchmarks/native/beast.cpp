/*
 * A C++ client as one would write it for speed: Boost.Beast for the WebSocket, libdeflate and the reference parser.
 *
 *   beast sleeping|spinning PORT STAMPS SUBSCRIPTION
 *
 * Sleeping, it waits for data in recv(2); spinning, it asks again and again and never sleeps. After each message it
 * reads the last price and keeps the time; STAMPS gets these, one int64 a message, CLOCK_MONOTONIC in ns. Between the
 * TEXT messages "0#begin" and "0#end" CPU time is measured; prints what came of it in JSON.
 */
#include "reference.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <libdeflate.h>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <vector>

namespace net = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using net::ip::tcp;

namespace {

constexpr std::size_t read_buffer = 1 << 20, largest_text = 8 << 20, most_stamps = 1 << 24;

template <class Clock> std::int64_t clock_ns()
{
    return Clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

/*
 * The socket, with a buffer between it and Beast: Beast's own holds 1,536 bytes, and would cost a system call for every
 * thirty small messages of a flood. What spins, spins here.
 */
class buffered_socket {
public:
    using executor_type = tcp::socket::executor_type;
    using next_layer_type = tcp::socket;
    using lowest_layer_type = tcp::socket::lowest_layer_type;

    buffered_socket(net::io_context &context, bool spins) : socket_(context), spins_(spins), data_(read_buffer) {}

    executor_type get_executor() { return socket_.get_executor(); }
    next_layer_type &next_layer() { return socket_; }
    lowest_layer_type &lowest_layer() { return socket_.lowest_layer(); }
    std::int64_t arrived() const { return arrived_; } // of the last read, ns since the epoch

    template <class Buffers> std::size_t read_some(const Buffers &to, beast::error_code &error)
    {
        if (begin_ == end_) {
            begin_ = end_ = 0;
            do
                end_ = socket_.read_some(net::buffer(data_), error);
            while (spins_ && error == net::error::would_block);
            arrived_ = clock_ns<std::chrono::system_clock>();
        }
        const auto taken = net::buffer_copy(to, net::buffer(data_.data() + begin_, end_ - begin_));
        begin_ += taken;
        return taken;
    }

    template <class Buffers> std::size_t read_some(const Buffers &to)
    {
        beast::error_code error;
        const auto taken = read_some(to, error);
        if (error)
            throw beast::system_error(error);
        return taken;
    }

    template <class Buffers> std::size_t write_some(const Buffers &from, beast::error_code &error)
    {
        return socket_.write_some(from, error);
    }

    template <class Buffers> std::size_t write_some(const Buffers &from) { return socket_.write_some(from); }

private:
    tcp::socket socket_;
    bool spins_;
    std::vector<char> data_;
    std::size_t begin_ = 0, end_ = 0;
    std::int64_t arrived_ = 0;
};

void teardown(beast::role_type role, buffered_socket &stream, beast::error_code &error)
{
    websocket::teardown(role, stream.next_layer(), error);
}

struct used {
    double wall, cpu;
    long preempted; // how often something else was given the core
};

used used_now()
{
    timespec cpu{};
    rusage usage{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    getrusage(RUSAGE_SELF, &usage);
    return {static_cast<double>(clock_ns<std::chrono::steady_clock>()) * 1e-9,
            static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) * 1e-9, usage.ru_nivcsw};
}

void run(bool spins, unsigned short port, const char *path, const std::string &subscription)
{
    net::io_context context;
    websocket::stream<buffered_socket, false> feed(context, spins);
    auto &socket = feed.next_layer().next_layer();
    socket.connect({net::ip::address_v4::loopback(), port});
    socket.set_option(tcp::no_delay(true));
    feed.read_message_max(0);
    feed.handshake("127.0.0.1", "/?token=benchmark");
    socket.non_blocking(spins);
    feed.text(true);
    feed.write(net::buffer("add=" + subscription));

    reference *records = reference_new();
    libdeflate_decompressor *inflater = libdeflate_alloc_decompressor();
    std::vector<std::uint8_t> text(largest_text + 1);
    std::vector<std::int64_t> stamps(most_stamps); // written once, so that no page is taken while measuring
    std::size_t messages = 0, warm_up = 0, trades = 0;
    double price = 0;
    used begun{}, ended{};
    beast::flat_buffer message;
    message.reserve(read_buffer);
    if (!records || !inflater)
        throw std::bad_alloc();

    for (;; message.clear()) {
        feed.read(message);
        const auto *data = static_cast<const char *>(message.data().data());
        if (feed.got_text()) {
            const std::string_view said(data, message.size());
            if (said == "0#end")
                break;
            warm_up = messages;
            begun = used_now();
            continue;
        }
        std::size_t size = 0;
        if (libdeflate_deflate_decompress(inflater, data, message.size(), text.data(), largest_text, &size))
            throw std::runtime_error("a message that does not inflate");
        text[size] = '\n';
        trades += reference_parse(records, text.data(), size, feed.next_layer().arrived());
        price = reference_last_trade(records)->price;
        stamps.at(messages++) = clock_ns<std::chrono::steady_clock>();
    }
    ended = used_now();
    socket.non_blocking(false);
    feed.close(websocket::close_code::normal);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(stamps.data()), static_cast<std::streamsize>(messages * sizeof stamps[0]));
    std::printf("{\"warm_up\": %zu, \"trades\": %zu, \"price\": %.9f, \"wall_s\": %.6f, \"cpu_s\": %.6f,"
                " \"preempted\": %ld}\n",
                warm_up, trades, price, ended.wall - begun.wall, ended.cpu - begun.cpu,
                ended.preempted - begun.preempted);
    libdeflate_free_decompressor(inflater);
    reference_free(records);
}

} // namespace

int main(int argc, char **argv)
{
    const std::string_view mode(argc == 5 ? argv[1] : "");
    if (mode != "sleeping" && mode != "spinning") {
        std::fputs("beast sleeping|spinning PORT STAMPS SUBSCRIPTION\n", stderr);
        return 2;
    }
    try {
        run(mode == "spinning", static_cast<unsigned short>(std::atoi(argv[2])), argv[3], argv[4]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "beast: %s\n", error.what());
        return 1;
    }
}
