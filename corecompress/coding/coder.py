"""Coding whole numbers with `Tables`: any number of tables a stream, escapes for what they don't cover, chunks.

    varint symbols of a chunk (n where one chunk holds all) · chunks, as in chunks.py

A chunk of numbers is: varint bytes of escape values · eight states · words · escape values. An escape value is the
symbol's distance to the middle of its row, twice that, or one less than twice for those below: a varint in its
shortest form. A chunk of bytes is a block, as in blocks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from corecompress.coding.blocks import NO_INDEX, STATE_BYTES, decode_block, encode_block
from corecompress.coding.chunks import Part, join_chunks, map_chunks, split_chunks
from corecompress.coding.rans import IDENTITY, LANES, decode_words, decode_words_indexed, encode_words
from corecompress.coding.scratch import scratch
from corecompress.coding.tables import Tables, get_varint, put_varint
from corecompress.errors import CorruptData

CHUNK = 1 << 18
"""Symbols of a chunk, where the caller does not say."""
LARGEST_CHUNK = 1 << 24
SYMBOLS_PER_BYTE = 1 << 15
"""No table codes more in a byte: an escape's frequency is 1 at least, so a word lasts a lane for less than 2^16."""
INT32 = np.iinfo(np.int32)
BLOCK = 1 << 10
"""Symbols that are searched for escapes at a time."""


def encode(
    symbols: NDArray[Any],
    tables: Tables,
    index: NDArray[Any] | None = None,
    *,
    chunk: int = CHUNK,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Code whole numbers [n] (any integer dtype, values within int32) as uint8 [m].

    Each with the row of `tables` that index [n] (whole numbers) names, or the first.

    The same bytes whatever the number of threads and on every machine. Raises ValueError for an index without table,
    symbols that are no int32, or a chunk that is not 1 … 2^24 symbols.
    """
    symbols = _whole(symbols)
    _check_index(index, symbols.size, tables, ValueError)
    looked_up = tables.coded, tables.encoding  # made once, before threads ask for them

    def work(start: int) -> list[Part]:
        piece = NO_INDEX if index is None else index[start : start + chunk]
        return _encode_chunk(_own(symbols[start : start + chunk]), tables, *looked_up, _own(piece, np.uint16))

    return _join(work, symbols.size, chunk, threads)


def decode(
    data: bytes | memoryview | NDArray[np.uint8],
    n: int,
    tables: Tables,
    index: NDArray[Any] | None = None,
    *,
    dtype: DTypeLike = np.int32,
    threads: int = 1,
) -> NDArray[Any]:
    """The n symbols that `encode` was given, as any integer dtype. Raises CorruptData for any other bytes.

    Symbols that `dtype` cannot hold are an error, too; nothing is allocated before n is plausible for so many bytes.
    """
    _check_index(index, n, tables, CorruptData)
    view = _view(data)
    if n > SYMBOLS_PER_BYTE * len(view):
        raise CorruptData(f"{len(view)} bytes cannot hold {n} symbols")
    chunk, chunks = _split(view, n)
    out, slots = np.empty(n, dtype), tables.slots

    def work(number: int) -> None:
        target = out[number * chunk : (number + 1) * chunk]
        piece = NO_INDEX if index is None else index[number * chunk : (number + 1) * chunk]
        _decode_chunk(chunks[number], tables, slots, _own(piece, np.uint16), target)

    map_chunks(work, range(len(chunks)), threads)
    return out


def encode_bytes(plane: NDArray[np.uint8], *, chunk: int = CHUNK, threads: int = 1) -> NDArray[np.uint8]:
    """Code bytes uint8 [n], strided or not, without tables of the caller's: every chunk in its own cheapest mode.

    Raises ValueError for another dtype or shape, or a chunk that is not 1 … 2^24 bytes.
    """
    if plane.dtype != np.uint8 or plane.ndim != 1:
        raise ValueError(f"a plane is uint8 [n], not {plane.dtype} {list(plane.shape)}")
    return _join(lambda start: encode_block(_own(plane[start : start + chunk])), plane.size, chunk, threads)


def decode_bytes(
    data: bytes | memoryview | NDArray[np.uint8], n: int, *, out: NDArray[np.uint8] | None = None, threads: int = 1
) -> NDArray[np.uint8]:
    """The n bytes that `encode_bytes` was given, into `out` uint8 [n], strided or not, where there is one.

    Raises CorruptData for any other bytes; `out` then holds anything. Raises ValueError for an `out` that does not fit.
    """
    if out is not None and (out.dtype != np.uint8 or out.shape != (n,)):
        raise ValueError(f"out must be uint8 [{n}]")
    chunk, chunks = _split(_view(data), n)
    target = np.empty(n, np.uint8) if out is None else out

    def work(number: int) -> None:
        piece = target[number * chunk : (number + 1) * chunk]
        whole = piece if piece.flags.c_contiguous else np.empty(piece.size, np.uint8)
        decode_block(chunks[number], whole)
        if whole is not piece:
            piece[:] = whole

    map_chunks(work, range(len(chunks)), threads)
    return target


def _join(work: Callable[[int], list[Part]], n: int, chunk: int, threads: int) -> NDArray[np.uint8]:
    if not 1 <= chunk <= LARGEST_CHUNK:
        raise ValueError(f"a chunk has 1 to {LARGEST_CHUNK} symbols, not {chunk}")
    head = bytearray()
    put_varint(head, min(chunk, n))
    return join_chunks(map_chunks(work, range(0, n, chunk), threads), bytes(head))


def _split(view: memoryview, n: int) -> tuple[int, list[memoryview]]:
    """(symbols of a chunk, the chunks of a stream of n symbols). Raises CorruptData."""
    if n < 0:
        raise ValueError(f"{n} symbols")
    chunk, at = get_varint(bytes(view[:5]), 0)
    count = -(-n // chunk) if chunk else 0
    if chunk > min(n, LARGEST_CHUNK) or (n and not chunk) or count > len(view):
        raise CorruptData(f"a stream does not hold {n} symbols")
    return chunk, split_chunks(view[at:], count)


def _view(data: bytes | memoryview | NDArray[np.uint8]) -> memoryview:
    """Read-only bytes whatever was given: one form of array for the kernels, so that they are compiled once."""
    view = memoryview(data.data if isinstance(data, np.ndarray) else data)
    return view.cast("B").toreadonly() if view.nbytes else memoryview(b"")


def _own(piece: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Contiguous and writable, for the same reason; copies a chunk at most."""
    piece = np.ascontiguousarray(piece, dtype)
    return piece if piece.flags.writeable else piece.copy()


def _whole(symbols: NDArray[Any]) -> NDArray[Any]:
    """uint8 or int32 [n] with the same values. Raises ValueError."""
    symbols = np.asarray(symbols).reshape(-1)
    if symbols.dtype.kind not in "iu":
        raise ValueError(f"symbols are whole numbers, not {symbols.dtype}")
    fits = np.can_cast(symbols.dtype, np.int32) or not symbols.size
    if not fits and (int(symbols.min()) < INT32.min or int(symbols.max()) > INT32.max):
        raise ValueError("symbols must be within int32")
    return symbols if symbols.dtype == np.uint8 else symbols.astype(np.int32, copy=False)


def _check_index(index: NDArray[Any] | None, n: int, tables: Tables, error: type[ValueError]) -> None:
    if index is None:
        return
    if index.dtype.kind not in "iu" or index.shape != (n,):
        raise error(f"an index is whole numbers [{n}], not {index.dtype} {list(index.shape)}")
    if n and (int(index.max()) >= len(tables.length) or int(index.min()) < 0):
        raise error("an index names a table that does not exist")


def _encode_chunk(
    symbols: NDArray[Any],
    tables: Tables,
    coded: NDArray[np.uint8],
    encoding: tuple[NDArray[np.uint64], NDArray[np.uint32]],
    rows: NDArray[np.uint16],
) -> list[Part]:
    slots = scratch("slots", symbols.size, np.uint8)
    side = np.empty(5 * symbols.size, np.uint8)  # what no escape touches never becomes real memory
    size = to_slots(symbols, rows, tables.offset, tables.length, coded, slots, side)
    words = scratch("words", symbols.size + LANES, "<u2")
    states = np.empty(LANES, "<u4")
    start = encode_words(slots, rows, *encoding, words, states)
    head = bytearray()
    put_varint(head, size)
    return [bytes(head) + states.tobytes(), words[start:].copy().view(np.uint8), side[:size].copy()]


def _decode_chunk(
    data: memoryview, tables: Tables, table: NDArray[np.uint32], rows: NDArray[np.uint16], out: NDArray[Any]
) -> None:
    side_bytes, at = get_varint(bytes(data[:5]), 0)
    end = len(data) - side_bytes
    if end < at + STATE_BYTES or (end - at - STATE_BYTES) % 2:
        raise CorruptData("a chunk is cut off")
    states = np.frombuffer(data[at : at + STATE_BYTES], "<u4").astype(np.uint32)
    words = np.frombuffer(data[at + STATE_BYTES : end], np.uint8)
    slots = scratch("slots", out.size, np.uint8)
    if rows.size:
        complete = decode_words_indexed(words, table, rows, slots, states)
    else:
        complete = decode_words(words, table, IDENTITY, slots, states)
    if not complete:
        raise CorruptData("a chunk does not end where it should")
    side = np.frombuffer(data[end:], np.uint8)
    direct = out.dtype in (np.uint8, np.int32) and tables.within(out.dtype)
    values = out if direct else np.empty(out.size, np.int32)
    limits, held = np.iinfo(out.dtype), np.iinfo(values.dtype)
    if not from_slots(slots, rows, tables.offset, tables.length, tables.coded, side, values, held.min, held.max):
        raise CorruptData("a chunk's escape values are damaged, or do not fit their dtype")
    if not direct:
        if values.min() < limits.min or values.max() > limits.max:
            raise CorruptData(f"a chunk has symbols that are no {out.dtype}")
        out[:] = values


@njit(cache=True, nogil=True)
def to_slots(symbols, rows, offset, length, coded, slots, side):  # type: ignore[no-untyped-def]
    """Slots uint8 [n] of symbols [n]; escape values go to side uint8 [5n] as varints; returns their bytes."""
    size = 0
    several = rows.size > 0
    for i in range(symbols.size):
        row = rows[i] if several else np.uint16(0)
        escape = np.int64(length[row]) - 1
        slot = np.int64(symbols[i]) - offset[row]
        found = np.int64(coded[row, slot]) if 0 <= slot < escape else escape
        slots[i] = found
        if found == escape:
            distance = slot - (escape >> 1)
            code = -2 * distance - 1 if distance < 0 else 2 * distance
            while code > 127:
                side[size] = code & 127 | 128
                size += 1
                code >>= 7
            side[size] = code
            size += 1
    return size


@njit(cache=True, nogil=True)
def from_slots(slots, rows, offset, length, coded, side, out, least, most):  # type: ignore[no-untyped-def]
    """Symbols of slots uint8 [n] into out [n], escape values read from side uint8 [m].

    False unless `side` is used up, each value in the only form an encoder writes, and least ≤ value ≤ most. What the
    rows cover is within these limits.
    """
    at = 0
    if rows.size:
        for i in range(slots.size):
            row = rows[i]
            slot, escape, start = np.int64(slots[i]), np.int64(length[row]) - 1, np.int64(offset[row])
            if slot == escape:
                slot, at = _read_escape(side, at, escape, start, coded[row], least, most)
                if at < 0:
                    return False
            out[i] = slot + start
        return at == side.size
    first, mark = offset[0], np.uint8(length[0] - 1)
    for begin in range(0, slots.size, BLOCK):
        # without a branch, so that it becomes vector instructions; few blocks have escapes
        block, target, escapes = slots[begin : begin + BLOCK], out[begin : begin + BLOCK], np.int32(0)
        for i in range(block.size):
            escapes += np.int32(block[i] == mark)
            target[i] = np.int32(block[i]) + first
        for i in range(block.size if escapes else 0):
            if block[i] == mark:
                slot, at = _read_escape(side, at, np.int64(mark), np.int64(first), coded[0], least, most)
                if at < 0:
                    return False
                target[i] = slot + first
    return at == side.size


@njit(inline="always")
def _read_escape(side, at, escape, start, coded, least, most):  # type: ignore[no-untyped-def]
    """(slot of an escape value, position behind); position −1 for a value that an encoder does not write."""
    code, shift, byte = np.int64(0), 0, np.int64(128)
    while byte > 127 and shift < 35 and at < side.size:
        byte = np.int64(side[at])
        at += 1
        code |= (byte & 127) << shift
        shift += 7
    slot = (-(code + 1) >> 1 if code & 1 else code >> 1) + (escape >> 1)
    whole = byte < 128 and (byte > 0 or shift == 7)  # neither cut off nor padded with zeros
    needed = slot < 0 or slot >= escape or coded[slot] == escape
    return slot, at if whole and needed and least <= slot + start <= most else -1
