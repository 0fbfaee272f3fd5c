"""Coding whole numbers with `Tables`: any number of tables a stream, escapes for what they don't cover, chunks.

A chunk is: varint bytes of escape values · eight states · words · escape values. An escape value is the distance to
its table's range, doubled, plus one below the range: a varint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from corecompress.coding.blocks import NO_INDEX, STATE_BYTES
from corecompress.coding.chunks import Part, join_chunks, map_chunks, split_chunks
from corecompress.coding.rans import IDENTITY, LANES, decode_words, decode_words_indexed, encode_words
from corecompress.coding.scratch import scratch
from corecompress.coding.tables import Tables, get_varint, put_varint
from corecompress.errors import CorruptData

CHUNK = 1 << 18
"""Symbols of a chunk."""


def encode(
    symbols: NDArray[Any], tables: Tables, index: NDArray[np.uint16] | None = None, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Code whole numbers [n] (any integer dtype within int32), each with the table that index uint16 [n] names.

    The same bytes whatever the number of threads and on every machine. Raises ValueError for an index without table.
    """
    symbols = np.ascontiguousarray(symbols).reshape(-1)
    _check_index(index, symbols.size, tables, ValueError)
    starts = list(range(0, symbols.size, CHUNK))

    def work(start: int) -> list[Part]:
        piece = None if index is None else index[start : start + CHUNK]
        return _encode_chunk(symbols[start : start + CHUNK], tables, piece)

    return join_chunks(map_chunks(work, starts, threads))


def decode(
    data: bytes | memoryview,
    n: int,
    tables: Tables,
    index: NDArray[np.uint16] | None = None,
    *,
    dtype: DTypeLike = np.int32,
    threads: int = 1,
) -> NDArray[Any]:
    """The n symbols that `encode` was given, as `dtype`. Raises CorruptData for any other bytes."""
    _check_index(index, n, tables, CorruptData)
    starts = list(range(0, n, CHUNK))
    chunks = split_chunks(memoryview(data).cast("B"), len(starts))
    out = np.empty(n, dtype)

    def work(number: int) -> None:
        start = starts[number]
        piece = NO_INDEX if index is None else index[start : start + CHUNK]
        _decode_chunk(chunks[number], tables, piece, out[start : start + CHUNK])

    map_chunks(work, list(range(len(starts))), threads)
    return out


def _check_index(index: NDArray[np.uint16] | None, n: int, tables: Tables, error: type[ValueError]) -> None:
    if index is not None and (index.size != n or (n and int(index.max()) >= len(tables.length))):
        raise error("an index has another length than the symbols, or names a table that does not exist")


def _encode_chunk(symbols: NDArray[Any], tables: Tables, index: NDArray[np.uint16] | None) -> list[Part]:
    rows = NO_INDEX if index is None else np.ascontiguousarray(index, np.uint16)
    slots = scratch("slots", symbols.size, np.uint8)
    codes = scratch("codes", symbols.size, np.int64)
    escapes = to_slots(symbols, rows, tables.offset, tables.length, slots, codes)
    side = bytearray()
    for code in codes[:escapes].tolist():
        put_varint(side, code)
    words = scratch("words", symbols.size + LANES, "<u2")
    states = np.empty(LANES, "<u4")
    start = encode_words(slots, rows, *tables.encoding, words, states)
    head = bytearray()
    put_varint(head, len(side))
    return [bytes(head) + states.tobytes(), words[start:].copy().view(np.uint8), bytes(side)]


def _decode_chunk(chunk: memoryview, tables: Tables, rows: NDArray[np.uint16], out: NDArray[Any]) -> None:
    side_bytes, at = get_varint(bytes(chunk[:5]), 0)
    end = len(chunk) - side_bytes
    if end < at + STATE_BYTES or (end - at - STATE_BYTES) % 2:
        raise CorruptData("a chunk is cut off")
    states = np.frombuffer(chunk[at : at + STATE_BYTES], "<u4").astype(np.uint32)
    words = np.frombuffer(chunk[at + STATE_BYTES : end], "<u2")
    slots = scratch("slots", out.size, np.uint8)
    rows = np.ascontiguousarray(rows, np.uint16)
    if rows.size:
        complete = decode_words_indexed(words, tables.slots, rows, slots, states)
    else:
        complete = decode_words(words, tables.slots, IDENTITY, slots, states)
    if not complete:
        raise CorruptData("a chunk does not end where it should")
    side = np.frombuffer(chunk[end:], np.uint8)
    if not from_slots(slots, rows, tables.offset, tables.length, side, out):
        raise CorruptData("a chunk's escape values are damaged")


@njit(cache=True, nogil=True)
def to_slots(symbols, rows, offset, length, slots, codes):  # type: ignore[no-untyped-def]
    """Slots uint8 [n] of symbols [n]; escape values go to codes int64 [n]; returns the number of escapes."""
    escapes = 0
    for i in range(symbols.size):
        row = rows[i] if rows.size else np.uint16(0)
        covered = np.int64(length[row]) - 1
        slot = np.int64(symbols[i]) - np.int64(offset[row])
        if slot < 0:
            codes[escapes] = -2 * slot - 1
            escapes += 1
            slot = covered
        elif slot >= covered:
            codes[escapes] = 2 * (slot - covered)
            escapes += 1
            slot = covered
        slots[i] = slot
    return escapes


@njit(cache=True, nogil=True)
def from_slots(slots, rows, offset, length, side, out):  # type: ignore[no-untyped-def]
    """Symbols of slots uint8 [n] into out [n], escape values read from side uint8 [m]; False when they don't fit."""
    at = 0
    for i in range(slots.size):
        row = rows[i] if rows.size else np.uint16(0)
        covered = np.int64(length[row]) - 1
        slot = np.int64(slots[i])
        if slot == covered:
            code, shift = np.int64(0), 0
            while True:
                if at >= side.size or shift > 35:
                    return False
                byte = np.int64(side[at])
                at += 1
                code |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            slot = -(code + 1) // 2 if code & 1 else covered + code // 2
        out[i] = slot + offset[row]
    return at == side.size
