"""Children of test_allocations: each prints one JSON object. A process of its own, so that nothing else is measured."""

import ctypes
import gc
import json
import operator
import sys
import zlib
from collections.abc import Callable

import jvq_fast as jvq
from jvq_fast.meter import Meter
from this_process import resident

RECV = 1_795_400_000_000_000_000
DAY = "2026-11-23"


def deflate(text: str) -> bytes:
    machine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return machine.compress(text.encode()) + machine.flush()


def trades(code: str, count: int, first: int = 1) -> str:
    rows = (
        f"09:30:{i % 60:02d}.{i % 1000:03d},{first + i},{10 + i % 97 / 100:.2f},{100 * (1 + i % 9)}"
        for i in range(count)
    )
    return f"lv2_{code}=" + "|".join(rows)


def book(start: int, levels: int, step: float) -> list[tuple[str, str]]:
    return [(f"{100 * (start + i)}", f"{12.34 + step * (i + 1):.2f}") for i in range(levels)]


def quote(code: str, volume: int) -> str:
    head = f"10:00:{volume % 60:02d},平安银行,12.34,1.23,{12.34 * volume:.2f},{volume}"
    pairs = [",".join(pair) for pair in book(1, 5, -0.01) + book(7, 5, 0.01)]
    return f"lv1_{code}={head}," + ",".join(pairs)


def depth(code: str, volume: int) -> str:
    fields = [f"10:00:{volume % 60:02d}", "平安银行", "12.34", "12.20", f"{12.34 * volume:.2f}", str(volume)]
    for side in (book(1, 10, -0.01), book(7, 10, 0.01)):
        fields += [price for _, price in side] + [quantity for quantity, _ in side]
    return f"lv10_{code}=" + ",".join(fields)


def mixed(code: str) -> list[bytes]:
    """Messages of every level and size, fewer than 256 records each."""
    small = [deflate(trades(code, count, 1000 * count)) for count in (1, 2, 3, 17, 65)]
    rows = [trades(code, 2), quote(code, 1000), depth(code, 1000), "", quote(code, 2000) + "|" + quote(code, 2100)[11:]]
    return [
        *small,
        deflate("\n".join(rows) + "\n"),
        deflate("\n".join(quote(code, 1000 * i) for i in range(1, 33))),
        deflate("\n".join(depth(code, 1000 * i) for i in range(1, 33))),
        zlib.compress(trades(code, 200).encode(), 0)[2:-4],
        deflate(f"lv2_{code}=09:30:00,,10.00,|09:30:01,abc,0,100\nlv1_{code}=" + quote(code, 1000).partition("=")[2]),
        deflate(""),
    ]


def count_calls() -> dict[str, int]:
    """Allocator calls of decode, of a loop that does nothing, and of one that allocates."""
    library = ctypes.CDLL(None)
    counting = ctypes.c_int.in_dll(library, "counting")
    calls = ctypes.c_int.in_dll(library, "calls")
    decoder, metered = (jvq.Decoder(trading_day=DAY, clock="always") for _ in range(2))
    meter = metered.meter = Meter()
    payloads = mixed("600519") + mixed("000001")
    # Past the histories' move to the front, and the tapes' wrap.
    for each in (decoder, metered):
        for _ in range(1500):
            for payload in payloads:
                each.decode(payload, RECV)
    before = meter.network["trades"].count
    loop = payloads * 200

    def measure(run: Callable[[bytes, int], object]) -> int:
        steps = iter(loop)
        gc.disable()
        calls.value = 0
        counting.value = 1
        for payload in steps:
            run(payload, RECV)
        counting.value = 0
        gc.enable()
        return calls.value

    def allocating(payload: bytes, _: int) -> None:
        bytearray(4096)

    return {
        "decode": measure(decoder.decode),
        "metered": measure(metered.decode),
        "delays": meter.network["trades"].count - before,
        "nothing": measure(operator.is_),
        "allocating": measure(allocating),
        "messages": len(loop),
        "records": sum(decoder.decode(payload, RECV) for payload in payloads),
    }


def grow() -> dict[str, int]:
    """Resident memory over many records, with handlers, histories and readers in use."""
    wanted = int(sys.argv[2])
    decoder = jvq.Decoder(trading_day=DAY)
    seen = [0]
    cursors = [0]

    def look(code: str, records: object) -> None:
        seen[0] += len(records)  # type: ignore[arg-type]

    def drain(_: int) -> None:
        _, cursors[0], _ = decoder.trades.since(cursors[0])

    decoder.on_trades = decoder.on_quotes = decoder.on_depths = look
    decoder.on_batch = drain
    codes = [f"60{i:04d}" for i in range(40)]
    payloads = [deflate("\n".join([trades(code, 240), quote(code, 1000), depth(code, 1000)])) for code in codes]
    done = 0
    while done < 500_000:
        done += sum(decoder.decode(payload, RECV) for payload in payloads)
    before = resident()
    done = 0
    while done < wanted:
        done += sum(decoder.decode(payload, RECV) for payload in payloads)
    return {"records": done, "growth": resident() - before, "seen": seen[0], "head": decoder.trades.head}


def fill() -> dict[str, int]:
    """Many codes with histories, reserved and then used."""
    codes = [f"{600000 + i}" for i in range(int(sys.argv[2]))]
    history = int(sys.argv[3])
    # What imports, the inflater and a first array cost is not the rings'.
    jvq.Decoder(history=64).decode(deflate(trades("600519", 100)), RECV)
    payloads = [deflate("\n".join((trades(code, 3), quote(code, 1000)))) for code in codes]
    decoder = jvq.Decoder(trading_day=DAY, capacity=4096, history=history)
    gc.collect()
    before = resident()
    decoder.reserve([f"{level}_{code}" for level in ("lv2", "lv1") for code in codes])
    reserved = resident() - before
    published = sum(decoder.decode(payload, RECV) for payload in payloads)
    rings = [decoder.trades, decoder.quotes, decoder.depths]
    rings += [decoder.history(code, level) for code in codes for level in ("trades", "quotes")]
    return {
        "published": published,
        "nbytes": decoder.nbytes,
        "sum": sum(ring.nbytes for ring in rings),
        "reserved": reserved,
        "growth": resident() - before,
        "late": int(decoder.stats()["storage_late"]),
        "last_volume": int(decoder.history(codes[-1], "trades").last(1)["volume"][0]),
    }


if __name__ == "__main__":
    print(json.dumps({"calls": count_calls, "grow": grow, "fill": fill}[sys.argv[1]]()))
