"""Whole decoders in C, each of a library that inflates and the reference parser, measured by themselves."""

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jvq_fast as jvq
from benchmarks.libraries import LIBRARIES, NATIVE, compile_with

DTYPES = {"trade": jvq.TRADE, "quote": jvq.QUOTE, "depth": jvq.DEPTH}


class Composition:
    """One of them, with rings of its own."""

    def __init__(self, code: ctypes.CDLL, library: str) -> None:
        self._code = code
        self._decode = code[f"decode_{library.replace('-', '').lower()}"]
        self._decode.restype = ctypes.c_int64
        code.new_rings.restype = ctypes.c_void_p
        rings = code.new_rings()
        if not rings:
            raise MemoryError
        self._rings = ctypes.c_void_p(rings)

    def __del__(self) -> None:
        self._code.free_rings(self._rings)

    def passes(self, payloads: Sequence[bytes], recv: int, records: int) -> Callable[[int], int]:
        """``run(n)`` decodes the messages n times and returns the nanoseconds; each time must bring the records."""
        count = len(payloads)
        messages = (ctypes.c_char_p * count)(*payloads)
        sizes = (ctypes.c_size_t * count)(*map(len, payloads))
        stored = ctypes.c_size_t()

        def run(repeat: int) -> int:
            taken = self._decode(
                self._rings,
                messages,
                sizes,
                ctypes.c_size_t(count),
                ctypes.c_size_t(repeat),
                ctypes.c_int64(recv),
                ctypes.byref(stored),
            )
            if stored.value != repeat * records:
                raise SystemExit(f"{self._decode.__name__}: {stored.value} of {repeat * records} records")
            return int(taken)

        return run

    def last(self, level: str) -> Any:
        """A copy of the newest trade, quote or depth; None before the first."""
        find = self._code[f"last_{level}"]
        find.restype = ctypes.c_void_p
        at = find(self._rings)
        return np.frombuffer(ctypes.string_at(at, DTYPES[level].itemsize), DTYPES[level])[0] if at else None


def compositions(found: dict[str, str]) -> dict[str, Composition]:
    """Those of the libraries found (`libraries.versions`), compiled with the flags of the package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "compositions.so")
        compile_with(found, [NATIVE / "compositions.c", NATIVE / "reference.c"], path, "-shared")
        code = ctypes.CDLL(str(path))
    code.prepare.restype = ctypes.c_bool
    if not code.prepare():
        raise MemoryError
    return {name: Composition(code, name) for name in LIBRARIES if name in found}
