"""The records are the structs of the design: offset by offset, in numpy, in C and in memory."""

import gc

import numpy as np
import pytest

import jvq_fast as jvq
import oracle
import wire
from jvq_fast import decoder as decoder_module
from jvq_fast.decoder import Decoder
from jvq_fast.ring import Ring

HEAD = {"seq": (0, "u8", ()), "time": (8, "i8", ()), "recv": (16, "i8", ()), "code": (24, "S8", ())}
TABLE = {
    "TRADE": (
        64,
        {**HEAD, "id": (32, "i8", ()), "price": (40, "f8", ()), "volume": (48, "i8", ()), "flags": (56, "u4", ())},
    ),
    "QUOTE": (
        232,
        {
            **HEAD,
            "price": (32, "f8", ()),
            "change": (40, "f8", ()),
            "amount": (48, "f8", ()),
            "volume": (56, "i8", ()),
            "flags": (64, "u4", ()),
            "bid_price": (72, "f8", (5,)),
            "bid_volume": (112, "i8", (5,)),
            "ask_price": (152, "f8", (5,)),
            "ask_volume": (192, "i8", (5,)),
        },
    ),
    "DEPTH": (
        400,
        {
            **HEAD,
            "price": (32, "f8", ()),
            "last_close": (40, "f8", ()),
            "amount": (48, "f8", ()),
            "volume": (56, "i8", ()),
            "change": (64, "f8", ()),
            "flags": (72, "u4", ()),
            "bid_price": (80, "f8", (10,)),
            "bid_volume": (160, "i8", (10,)),
            "ask_price": (240, "f8", (10,)),
            "ask_volume": (320, "i8", (10,)),
        },
    ),
}
LEVEL = {"TRADE": "trades", "QUOTE": "quotes", "DEPTH": "depths"}
each_record = pytest.mark.parametrize("name", list(TABLE))


@each_record
def test_dtype_is_the_table_of_the_design(name):
    dtype = getattr(jvq, name)
    size, fields = TABLE[name]
    assert dtype.itemsize == size
    assert dtype.isalignedstruct
    assert dtype.alignment == 8
    found = {
        field: (offset, inner.base.str.lstrip("<|"), inner.shape) for field, (inner, offset) in dtype.fields.items()
    }
    assert found == fields
    assert list(dtype.names) == list(fields)


@each_record
def test_dtype_has_no_field_for_padding_and_none_overlap(name):
    dtype = getattr(jvq, name)
    taken = np.zeros(dtype.itemsize, np.uint8)
    for inner, offset in dtype.fields.values():
        taken[offset : offset + inner.itemsize] += 1
    assert taken.max() == 1
    flags = dtype.fields["flags"][1]
    assert np.flatnonzero(taken == 0).tolist() == list(range(flags + 4, flags + 8))


@each_record
def test_dtype_is_little_endian_native_and_rebuilds_itself(name):
    dtype = getattr(jvq, name)
    assert dtype.isnative
    fields = [(field, inner.base.str, inner.shape) for field, (inner, _) in dtype.fields.items()]
    assert np.dtype(fields, align=True) == dtype


@each_record
def test_c_struct_equals_the_dtype_offset_by_offset(name):
    dtype = getattr(jvq, name)
    layout = dict(decoder_module.struct_layout()[name])
    total = layout.pop("")
    assert (total if isinstance(total, int) else total[-1]) == dtype.itemsize
    assert {field: tuple(place) for field, place in layout.items()} == {
        field: (offset, inner.itemsize) for field, (inner, offset) in dtype.fields.items()
    }


@each_record
def test_oracle_packs_the_same_layout(name):
    dtype = getattr(jvq, name)
    level = LEVEL[name]
    assert oracle.LAYOUT[level].size == dtype.itemsize
    count = 5 if level == "quotes" else 10
    record = {}
    for i, column in enumerate(oracle.COLUMNS[level], 1):
        record[column] = [i * 100 + k for k in range(count)] if column[:4] in ("bid_", "ask_") else i
    record["code"] = b"600519"
    row = np.frombuffer(oracle.pack(level, record), dtype)[0]
    for column in oracle.COLUMNS[level]:
        assert row[column].tolist() == record[column]


@pytest.mark.parametrize("layout", ["tape", "history"])
@each_record
def test_storage_is_aligned_to_64_bytes(name, layout):
    dtype = getattr(jvq, name)
    for capacity in (1, 3, 16, 1000):
        ring = Ring(dtype, capacity, layout)
        ring.append(np.zeros(1, dtype))
        view = ring.last(1)
        assert view.ctypes.data % 64 == 0
        assert view.flags.aligned


def test_decoder_storage_is_aligned_to_64_bytes():
    decoder = Decoder(capacity=64, history=16)
    decoder.decode(
        wire.message(
            wire.trades("600519", wire.trade()),
            wire.row("quotes", "600519", wire.quote()),
            wire.row("depths", "600519", wire.depth()),
        )
    )
    for level in oracle.LEVELS:
        assert getattr(decoder, level).last(1).ctypes.data % 64 == 0
        assert decoder.history("600519", level).last(1).ctypes.data % 64 == 0


def padding_of(records):
    flags = records.dtype.fields["flags"][1]
    raw = np.frombuffer(records.tobytes(), np.uint8).reshape(len(records), records.dtype.itemsize)
    return raw[:, flags + 4 : flags + 8]


def test_padding_and_the_rest_of_a_short_code_are_zero_wherever_a_record_stands():
    decoder = Decoder(capacity=8, history=8)
    codes = ["12345678", "1", "600519"]
    for i in range(40):
        code = codes[i % 3]
        decoder.decode(
            wire.message(
                wire.trades(code, wire.trade(number=i)),
                wire.row("quotes", code, wire.quote(name=b"\xff" * 40)),
                wire.row("depths", code, wire.depth(name=b"\xff" * 40)),
            )
        )
        for level in oracle.LEVELS:
            for ring in (getattr(decoder, level), decoder.history(code, level)):
                records = ring.last(8)
                assert not padding_of(records).any()
                assert {bytes(c) for c in records["code"]} <= {c.encode() for c in codes}
                raw = np.frombuffer(records.tobytes(), np.uint8).reshape(len(records), -1)[:, 24:32]
                for bytes_of_code, value in zip(raw, records["code"], strict=True):
                    assert bytes(bytes_of_code) == bytes(value).ljust(8, b"\0")


@pytest.mark.parametrize("layout", ["tape", "history"])
@each_record
def test_append_keeps_padding_zero(name, layout):
    dtype = getattr(jvq, name)
    dirty = np.frombuffer(b"\xab" * dtype.itemsize * 3, dtype)
    ring = Ring(dtype, 4, layout)
    for _ in range(4):
        ring.append(dirty)
    assert not padding_of(ring.last(4)).any()
    assert ring.last(1)[0]["volume"] == dirty[0]["volume"]


def test_flags_have_the_values_of_the_contract():
    names = ("STALE", "REPEAT", "NO_DATE", "EMPTY_FIELD", "ORDER_UNSURE", "ID_TEXT", "NO_PRICE")
    assert {name: int(getattr(jvq.Flag, name)) for name in names} == {name: getattr(oracle, name) for name in names}
    assert len(jvq.Flag) == len(names)


def test_storage_is_taken_at_the_first_record_and_accounted_exactly():
    decoder = Decoder(
        capacity={"trades": 64, "quotes": 32, "depths": 16}, history={"trades": 8, "quotes": 4, "depths": 2}
    )
    assert decoder.nbytes == 0
    for level in oracle.LEVELS:
        assert getattr(decoder, level).head == 0
        assert getattr(decoder, level).nbytes == 0
        assert len(getattr(decoder, level)) == 0
        assert len(getattr(decoder, level).last(5)) == 0
    decoder.decode(wire.message(wire.trades("600519", wire.trade())))
    assert decoder.trades.nbytes >= 2 * 64 * 64
    assert decoder.history("600519", "trades").nbytes >= 2 * 8 * 64
    assert decoder.nbytes == decoder.trades.nbytes + decoder.history("600519", "trades").nbytes
    decoder.decode(wire.message(wire.row("quotes", "000001", wire.quote())))
    rings = [decoder.trades, decoder.quotes, decoder.depths]
    rings += [decoder.history(code, level) for code in ("600519", "000001") for level in oracle.LEVELS]
    assert decoder.nbytes == sum(ring.nbytes for ring in rings)
    gc.collect()
