"""Levels of a matrix as a stream of symbols, and back at hundreds of millions a second.

Eight columns at a time (a strip) are walked row by row, so that symbol i of a strip belongs to column i mod 8 and to
state i mod 8 of the interleaved rANS coder: eight trellises and eight coder states go side by side, and none waits
for another. A chunk is one stream over as many strips as make CHUNK symbols:

    varint bytes of escapes · eight coder states · words · escapes

An escaped symbol k is a varint of 2 k, or of −2 k − 1 where it is below zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint8, uint32, uint64
from numpy.typing import NDArray

from corecompress.coding import Part, map_chunks
from corecompress.coding.chunks import join_chunks, split_chunks
from corecompress.coding.rans import LANES, LOW, PRECISION, SLOTS, encode_words
from corecompress.coding.tables import get_varint, put_varint
from corecompress.errors import CorruptData
from corecompress_vae.classes import CLASSES, SPAN
from corecompress_vae.levels import to_bf16
from corecompress_vae.tables import ClassTables
from corecompress_vae.trellis import REACH, SHIFT, Trellis

CHUNK = 1 << 17
"""Symbols of a chunk, at least (a strip is never cut)."""
STATE_BYTES = 4 * LANES
LARGEST_ESCAPE = 5
"""Bytes of an escape, at most."""

_MASK, _SHIFT, _TOP, _WORD = uint32(SLOTS - 1), uint32(PRECISION), uint32(24), uint32(16)
_FLOOR, _ONE, _ZERO = uint32(LOW), uint32(1), uint32(0)


def strips_of_chunks(o: int, n: int) -> list[tuple[int, int]]:
    """First and last + 1 column of every chunk of a matrix of o rows and n columns."""
    wide = LANES * max(1, -(-CHUNK // (LANES * max(o, 1))))
    return [(begin, min(begin + wide, n)) for begin in range(0, n, wide)]


def encode_levels(
    levels: NDArray[np.int32],
    rows: NDArray[np.uint8],
    columns: NDArray[np.uint8],
    tables: ClassTables,
    trellis: Trellis,
) -> NDArray[np.uint8]:
    """Code levels int32 [n, o] that obey the trellis; rows uint8 [o] and columns uint8 [n] are their class codes."""
    chunks = []
    for begin, end in strips_of_chunks(levels.shape[1], levels.shape[0]):
        symbols, index, side = walk(levels[begin:end], rows, columns[begin:end], tables.frequencies, trellis)
        words, states = np.empty(symbols.size + LANES, "<u2"), np.empty(LANES, "<u4")
        start = encode_words(symbols, index, *tables.encoding, words, states)
        head = bytearray()
        put_varint(head, side.size)
        parts: list[Part] = [bytes(head), states.view(np.uint8), words[start:].view(np.uint8), side]
        chunks.append(parts)
    return join_chunks(chunks)


def decode_levels(
    data: memoryview,
    shape: tuple[int, int],
    rows: NDArray[np.uint8],
    columns: NDArray[np.uint8],
    tables: ClassTables,
    trellis: Trellis,
    steps: NDArray[np.float32],
    factor: NDArray[np.float32],
    out: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
) -> None:
    """Decode n columns of o rows, shape (o, n), into out [o, n]: float32, or uint16 for bfloat16 bits.

    steps float32 [n], factor float32 [o]: out[i, j] = level · steps[j] · factor[i]. Raises CorruptData.
    """
    o, n = shape
    spans = strips_of_chunks(o, n)
    pieces = split_chunks(data, len(spans))
    table = tables.slots

    def work(number: int) -> bool:
        begin, end = spans[number]
        return _decode_chunk(
            pieces[number], rows, columns[begin:end], table, trellis, steps[begin:end], factor, out[:, begin:end]
        )

    if not all(map_chunks(work, range(len(spans)), threads)):
        raise CorruptData("a chunk of levels does not end where it should")


def walk(
    levels: NDArray[np.int32],
    rows: NDArray[np.uint8],
    columns: NDArray[np.uint8],
    frequencies: NDArray[np.int64],
    trellis: Trellis,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]:
    """(symbols uint8 [n · o], table rows uint16 [n · o], escapes uint8 [m]) in the order of the stream."""
    symbols, index = np.empty(levels.size, np.uint8), np.empty(levels.size, np.uint16)
    side = np.empty(LARGEST_ESCAPE * levels.size, np.uint8)  # what no escape touches never becomes real memory
    size = _walk(levels, rows, columns, frequencies, trellis.after, symbols, index, side)
    return symbols, index, side[:size].copy()


def _decode_chunk(
    data: memoryview,
    rows: NDArray[np.uint8],
    columns: NDArray[np.uint8],
    table: NDArray[np.uint32],
    trellis: Trellis,
    steps: NDArray[np.float32],
    factor: NDArray[np.float32],
    out: NDArray[np.float32] | NDArray[np.uint16],
) -> bool:
    side_bytes, at = get_varint(bytes(data[:5]), 0)
    end = len(data) - side_bytes
    if end < at + STATE_BYTES or (end - at - STATE_BYTES) % 2:
        raise CorruptData("a chunk of levels is cut off")
    states = np.frombuffer(data[at : at + STATE_BYTES], "<u4").astype(np.uint32)
    words = np.frombuffer(data[at + STATE_BYTES : end], "<u2").astype(np.uint16)
    side = np.frombuffer(data[end:], np.uint8).copy()
    levels = np.empty((rows.size, LANES), np.int32)
    position, escaped = 0, 0
    for begin in range(0, columns.size, LANES):
        strip = slice(begin, min(begin + LANES, columns.size))
        kernel = _strip if columns[strip].size == LANES else _narrow_strip
        first = begin * rows.size
        position, escaped = kernel(
            words,
            position,
            table,
            rows,
            columns[strip],
            CLASS_ROWS,
            trellis.after,
            states,
            side,
            escaped,
            levels,
            first,
        )
        if position < 0:
            return False
        if out.dtype == np.uint16:
            scale_bf16(levels, steps[strip], factor, out[:, strip])
        else:
            scale_f32(levels, steps[strip], factor, out[:, strip])
    return position == words.size and escaped == side.size and bool((states == LOW).all())


CLASS_ROWS = np.clip(np.arange(SPAN + 256) - SPAN, 0, CLASSES - 1).astype(np.uint32) * 2
"""Row code + column code -> first table of the class."""


@njit(inline="always")
def _put_escape(k, side, at):  # type: ignore[no-untyped-def]
    code = 2 * k if k >= 0 else -2 * k - 1
    while code > 127:
        side[at] = code & 127 | 128
        at += 1
        code >>= 7
    side[at] = code
    return at + 1


@njit(inline="always")
def _get_escape(side, at):  # type: ignore[no-untyped-def]
    """(k, position behind); position −1 when it is cut off or too long."""
    code, shift, byte = np.int64(0), 0, np.int64(128)
    while byte > 127 and shift < 35 and at < side.size:
        byte = np.int64(side[at])
        at += 1
        code |= (byte & 127) << shift
        shift += 7
    k = -(code + 1) >> 1 if code & 1 else code >> 1
    if byte > 127 or k > (1 << 29) or k < -(1 << 29):
        at = -1
    return k, at


@njit(cache=True, nogil=True)
def _walk(levels, rows, columns, frequencies, after, symbols, index, side):  # type: ignore[no-untyped-def]
    n, o = levels.shape
    at, size = 0, 0
    state = np.zeros(LANES, np.int64)
    for begin in range(0, n, LANES):
        width = min(LANES, n - begin)
        state[:] = 0
        for i in range(o):
            for lane in range(width):
                j = begin + lane
                z = state[lane] & 1
                k = (np.int64(levels[j, i]) - z) >> 1
                number = min(max(np.int64(rows[i]) + np.int64(columns[j]) - SPAN, 0), CLASSES - 1)
                row = 2 * number + z
                index[at] = row
                if -REACH <= k <= REACH and frequencies[row, k + SHIFT] > 0:
                    symbols[at] = k + SHIFT
                else:
                    symbols[at] = 0
                    size = _put_escape(k, side, size)
                state[lane] = after[2 * state[lane] + (k & 1)]
                at += 1
    return size


@njit(inline="always")
def _symbol(x, s, row, table, words, position, after):  # type: ignore[no-untyped-def]
    """One symbol of one lane: (coder state, trellis state, slot, z, position)."""
    z = uint32(s) & _ONE
    entry = table[((row | z) << _SHIFT) + (x & _MASK)]
    slot = entry >> _TOP
    x = (((entry >> _SHIFT) & _MASK) + _ONE) * (x >> _SHIFT) + (entry & _MASK)
    # whether a word is needed is as good as random, so this must not become a branch: arithmetic instead of `if`
    short = uint32(x < _FLOOR)
    x = (x << (short << uint32(4))) | (uint32(words[position]) & (_ZERO - short))
    return x, after[(uint32(s) << _ONE) + (slot & _ONE)], slot, z, position + uint64(short)


@njit(inline="always")
def _escape(slot, s, z, side, escaped, flip, levels, i, lane):  # type: ignore[no-untyped-def]
    """Put right what `_symbol` did with an escape (slot 0, so even); (trellis state, position in side)."""
    if slot == 0 and escaped >= 0:
        k, escaped = _get_escape(side, escaped)
        levels[i, lane] = 2 * k + z
        if k & 1:
            s ^= flip  # the trellis is linear: both successors of every state differ in the same bits
    return s, escaped


@njit(cache=True, nogil=True)
def _strip(words, position, table, rows, columns, class_rows, after, states, side, escaped, levels, first):  # type: ignore[no-untyped-def]
    """Eight columns: levels int32 [o, 8]; (position in words, in side), position −1 when they run out.

    `first` is a multiple of eight, so that lane and coder state agree.
    """
    o = rows.size
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = uint8(0)
    c0, c1, c2, c3 = uint64(columns[0]), uint64(columns[1]), uint64(columns[2]), uint64(columns[3])
    c4, c5, c6, c7 = uint64(columns[4]), uint64(columns[5]), uint64(columns[6]), uint64(columns[7])
    at, i, safe = uint64(position), uint64(0), uint64(max(words.size - LANES + 1, 0))
    flip, escaped = after[1], np.int64(escaped)
    while i < uint64(o) and at < safe:
        r = uint64(rows[i])
        x0, s0, k0, z0, at = _symbol(x0, s0, class_rows[r + c0], table, words, at, after)
        x1, s1, k1, z1, at = _symbol(x1, s1, class_rows[r + c1], table, words, at, after)
        x2, s2, k2, z2, at = _symbol(x2, s2, class_rows[r + c2], table, words, at, after)
        x3, s3, k3, z3, at = _symbol(x3, s3, class_rows[r + c3], table, words, at, after)
        x4, s4, k4, z4, at = _symbol(x4, s4, class_rows[r + c4], table, words, at, after)
        x5, s5, k5, z5, at = _symbol(x5, s5, class_rows[r + c5], table, words, at, after)
        x6, s6, k6, z6, at = _symbol(x6, s6, class_rows[r + c6], table, words, at, after)
        x7, s7, k7, z7, at = _symbol(x7, s7, class_rows[r + c7], table, words, at, after)
        levels[i, uint64(0)] = np.int32((k0 << _ONE) | z0) - np.int32(2 * SHIFT)
        levels[i, uint64(1)] = np.int32((k1 << _ONE) | z1) - np.int32(2 * SHIFT)
        levels[i, uint64(2)] = np.int32((k2 << _ONE) | z2) - np.int32(2 * SHIFT)
        levels[i, uint64(3)] = np.int32((k3 << _ONE) | z3) - np.int32(2 * SHIFT)
        levels[i, uint64(4)] = np.int32((k4 << _ONE) | z4) - np.int32(2 * SHIFT)
        levels[i, uint64(5)] = np.int32((k5 << _ONE) | z5) - np.int32(2 * SHIFT)
        levels[i, uint64(6)] = np.int32((k6 << _ONE) | z6) - np.int32(2 * SHIFT)
        levels[i, uint64(7)] = np.int32((k7 << _ONE) | z7) - np.int32(2 * SHIFT)
        if k0 == 0 or k1 == 0 or k2 == 0 or k3 == 0 or k4 == 0 or k5 == 0 or k6 == 0 or k7 == 0:
            s0, escaped = _escape(k0, s0, z0, side, escaped, flip, levels, i, 0)
            s1, escaped = _escape(k1, s1, z1, side, escaped, flip, levels, i, 1)
            s2, escaped = _escape(k2, s2, z2, side, escaped, flip, levels, i, 2)
            s3, escaped = _escape(k3, s3, z3, side, escaped, flip, levels, i, 3)
            s4, escaped = _escape(k4, s4, z4, side, escaped, flip, levels, i, 4)
            s5, escaped = _escape(k5, s5, z5, side, escaped, flip, levels, i, 5)
            s6, escaped = _escape(k6, s6, z6, side, escaped, flip, levels, i, 6)
            s7, escaped = _escape(k7, s7, z7, side, escaped, flip, levels, i, 7)
            if escaped < 0:
                return np.int64(-1), np.int64(0)
        i += uint64(1)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    lanes = np.array([s0, s1, s2, s3, s4, s5, s6, s7], np.uint8)
    return _slow(
        words,
        np.int64(at),
        table,
        rows,
        columns,
        class_rows,
        after,
        states,
        side,
        escaped,
        levels,
        np.int64(i),
        lanes,
        first,
    )


@njit(cache=True, nogil=True)
def _slow(words, position, table, rows, columns, class_rows, after, states, side, escaped, levels, begin, lanes, first):  # type: ignore[no-untyped-def]
    """Rows from `begin` on, one symbol at a time, every read checked. Lanes are the columns' trellis states."""
    width = columns.size
    for i in range(begin, rows.size):
        for lane in range(width):
            coder = (first + i * width + lane) % LANES
            x, s = states[coder], np.int64(lanes[lane])
            row = class_rows[np.int64(rows[i]) + np.int64(columns[lane])] + uint32(s & 1)
            entry = table[(uint64(row) << uint64(PRECISION)) + uint64(x & _MASK)]
            slot = np.int64(entry >> _TOP)
            x = (((entry >> _SHIFT) & _MASK) + _ONE) * (x >> _SHIFT) + (entry & _MASK)
            if x < _FLOOR:
                if position >= words.size:
                    return np.int64(-1), np.int64(0)
                x = (x << _WORD) | uint32(words[position])
                position += 1
            states[coder] = x
            k = slot - SHIFT
            if slot == 0:
                k, escaped = _get_escape(side, escaped)
                if escaped < 0:
                    return np.int64(-1), np.int64(0)
            levels[i, lane] = 2 * k + (s & 1)
            lanes[lane] = after[2 * s + (k & 1)]
    return np.int64(position), np.int64(escaped)


@njit(cache=True, nogil=True)
def _narrow_strip(words, position, table, rows, columns, class_rows, after, states, side, escaped, levels, first):  # type: ignore[no-untyped-def]
    """The last strip of a matrix whose columns are no multiple of eight."""
    lanes = np.zeros(LANES, np.uint8)
    return _slow(
        words,
        np.int64(position),
        table,
        rows,
        columns,
        class_rows,
        after,
        states,
        side,
        escaped,
        levels,
        0,
        lanes,
        first,
    )


@njit(cache=True, nogil=True)
def scale_f32(levels, steps, factor, out):  # type: ignore[no-untyped-def]
    """out float32 [o, w] = levels int32 [o, ≥ w] · steps [w] · factor [o], in this order."""
    o, width = out.shape
    for i in range(o):
        for lane in range(width):
            out[i, lane] = np.float32(levels[i, lane]) * steps[lane] * factor[i]


@njit(cache=True, nogil=True)
def scale_bf16(levels, steps, factor, out):  # type: ignore[no-untyped-def]
    """The same as bits of bfloat16, uint16 [o, w]."""
    o, width = out.shape
    values = np.empty(LANES, np.float32)
    as_bits = values.view(np.uint32)
    for i in range(o):
        for lane in range(width):
            values[lane] = np.float32(levels[i, lane]) * steps[lane] * factor[i]
        for lane in range(width):
            out[i, lane] = to_bf16(as_bits[lane])
