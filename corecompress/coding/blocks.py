"""One block of bytes with a model of its own: constant, stored, or rANS with a table built from its histogram.

mode 0  constant: the byte
mode 1  stored: the bytes
mode 2  single: smallest byte, the frequencies of the bytes from there on, eight states, words
mode 3  paired: two bytes a symbol, for planes where 15 values are nearly all (exponents): twice as fast.
        varint number of values m, the values, frequencies of the m·m pairs and the escape, varint length of the
        escaped pairs, these (varint pairs since the last one, two bytes) and the last byte of an odd block,
        eight states, words
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from corecompress.coding.chunks import Part
from corecompress.coding.rans import (
    LANES,
    SLOTS,
    decode_words,
    encode_words,
    encoding_table,
    histogram,
    slot_table,
)
from corecompress.coding.scratch import scratch
from corecompress.coding.tables import (
    BITS_ONE,
    code_lengths,
    put_frequencies,
    put_varint,
    quantize,
    read_long,
    read_row,
    read_short,
)
from corecompress.errors import CorruptData

CONSTANT, STORED, SINGLE, PAIRED = 0, 1, 2, 3
NO_INDEX = np.empty(0, np.uint16)
STATE_BYTES = 4 * LANES
PAIR_VALUES = 15
SAMPLE = 1 << 14


def encode_block(plane: NDArray[np.uint8]) -> list[Part]:
    """Code bytes uint8 [n ≥ 1], contiguous, in the mode that is smallest; paired may cost 1 % more than single.

    Returns the block in parts, to be joined; a part may be `plane` itself.
    """
    counts = np.zeros(256, np.int64)
    if plane.size > 4 * SAMPLE and _looks_random(plane):
        return [bytes([STORED]), plane]
    histogram(plane, counts)
    used = np.flatnonzero(counts)
    first, last = int(used[0]), int(used[-1])
    if first == last:
        return [bytes([CONSTANT, first])]
    row = counts[first : last + 1]
    frequencies = quantize(row, row > 0)
    head = bytearray([SINGLE])
    put_varint(head, first)
    put_frequencies(head, frequencies)
    expected = _expected_bytes(row, frequencies) + len(head) + STATE_BYTES
    if expected >= plane.size - plane.size // 100:  # less than 1 % is not worth the decoder's time
        return [bytes([STORED]), plane]
    paired = _encode_paired(plane, counts, expected + expected // 100)
    if paired is not None:
        return paired
    cdf = np.concatenate([np.zeros(first + 1, np.int64), np.cumsum(frequencies)])
    return [bytes(head), *_code(plane, cdf)]


def decode_block(data: memoryview, out: NDArray[np.uint8]) -> None:
    """Decode into out uint8 [n ≥ 1], contiguous. Raises CorruptData unless `data` is exactly one block of n bytes."""
    pairs = out[: out.size & ~1].view("<u2")
    if not read_block(np.frombuffer(data.toreadonly(), np.uint8), out, pairs, np.empty(SLOTS, np.uint32)):
        raise CorruptData("a block of bytes is damaged")


def _looks_random(plane: NDArray[np.uint8]) -> bool:
    """Whether an eighth of the bytes says that coding the plane would not pay. A sample's entropy is a little low."""
    counts = np.zeros(256, np.int64)
    step = plane.size // 4
    for start in range(0, 4 * step, step):
        histogram(plane[start : start + SAMPLE // 4], counts)
    return _expected_bytes(counts, quantize(counts, counts > 0)) >= SAMPLE - SAMPLE // 100


def _encode_paired(plane: NDArray[np.uint8], counts: NDArray[np.int64], most: int) -> list[Part] | None:
    """The block in pairs; None where that would take more than `most` bytes."""
    order = np.argsort(-counts, kind="stable")[:PAIR_VALUES]
    values = np.sort(order[counts[order] > 0])
    if plane.size < 2 or 32 * int(counts.sum() - counts[values].sum()) > plane.size:
        return None
    classes = np.full(256, -1, np.int16)
    classes[values] = np.arange(values.size)
    pairs, escaped = scratch("pairs", plane.size // 2, np.uint8), scratch("escaped", 3 * plane.size + 1, np.uint8)
    size = to_pairs(plane, classes, values.size, pairs, escaped)
    pair_counts = np.zeros(256, np.int64)
    histogram(pairs, pair_counts)
    pair_counts = pair_counts[: values.size**2 + 1]
    frequencies = quantize(pair_counts, pair_counts > 0)
    head = bytearray([PAIRED])
    put_varint(head, values.size)
    head += values.astype(np.uint8).tobytes()
    put_frequencies(head, frequencies)
    put_varint(head, size)
    if _expected_bytes(pair_counts, frequencies) + len(head) + size + STATE_BYTES > most:
        return None
    return [bytes(head) + escaped[:size].tobytes(), *_code(pairs, np.concatenate([[0], np.cumsum(frequencies)]))]


def _expected_bytes(counts: NDArray[np.int64], frequencies: NDArray[np.int64]) -> int:
    return int((counts * code_lengths()[frequencies]).sum()) // BITS_ONE // 8


def _code(symbols: NDArray[np.uint8], cdf: NDArray[np.int64]) -> list[Part]:
    """States and words of symbols uint8 [n] under one table."""
    words = scratch("words", symbols.size + LANES, "<u2")
    states = np.empty(LANES, "<u4")
    reciprocal, packed = np.zeros(256, np.uint64), np.zeros(256, np.uint32)
    encoding_table(cdf.astype(np.uint32)[None], reciprocal, packed)
    start = encode_words(symbols, NO_INDEX, reciprocal, packed, words, states)
    return [states.tobytes(), words[start:].copy().view(np.uint8)]


@njit(cache=True, nogil=True)
def read_block(data, out, pairs, table):  # type: ignore[no-untyped-def]
    """Decode a block uint8 [m] into out uint8 [n ≥ 1]; False unless it is exactly one block of n bytes.

    pairs: uint16 [n // 2], the same memory as `out`; table: uint32 [4096], changed. One kernel for all of it, so that
    a thread that decodes needs Python's lock once.
    """
    if data.size < 2:
        return False
    mode, body = data[0], data[1:]
    if mode == CONSTANT:
        for i in range(out.size):  # a slice assignment would take seconds to compile, for its error message
            out[i] = body[0]
        return body.size == 1
    if mode == STORED:
        for i in range(out.size if body.size == out.size else 0):
            out[i] = body[i]
        return body.size == out.size
    if mode == SINGLE:
        first, at = read_short(body, 0)
        cdf, at = _read_cdf(body, at)
        if at < 0 or first + cdf.size - 1 > 256:
            return False
        meaning = np.zeros(256, np.uint8)
        for s in range(cdf.size - 1):
            meaning[s] = first + s
        return _read_words(body[at:], cdf, table, meaning, out)
    return mode == PAIRED and _read_paired(body, out, pairs, table)


@njit(cache=True, nogil=True)
def _read_paired(body, out, pairs, table):  # type: ignore[no-untyped-def]
    count, at = read_short(body, 0)
    if at < 0 or not 0 < count <= PAIR_VALUES or at + count > body.size:
        return False
    values = body[at : at + count]
    cdf, at = _read_cdf(body, at + count)
    if at < 0 or cdf.size - 2 != count * count:
        return False
    size, at = read_long(body, at)
    if at < 0 or size > body.size - at:
        return False
    meaning = np.zeros(256, np.uint16)
    for s in range(count * count):
        meaning[s] = np.uint16(values[s // count]) | (np.uint16(values[s % count]) << np.uint16(8))
    return _read_words(body[at + size :], cdf, table, meaning, pairs) and patch_pairs(body[at : at + size], out)


@njit(cache=True, nogil=True)
def _read_cdf(data, at):  # type: ignore[no-untyped-def]
    """(cumulative frequencies uint32 [n + 1], position behind) of a table; position −1 for a damaged one."""
    last, at = read_short(data, at) if at >= 0 else (np.int64(0), -1)
    cdf = np.zeros(min(last, 255) + 2, np.uint32)
    if at < 0 or last > 255:
        return cdf, -1
    frequencies = np.zeros(last + 1, np.int64)
    at = read_row(data, at, frequencies)
    for s in range(last + 1 if at >= 0 else 0):
        cdf[s + 1] = cdf[s] + frequencies[s]
    return cdf, at


@njit(cache=True, nogil=True)
def _read_words(body, cdf, table, meaning, out):  # type: ignore[no-untyped-def]
    """States and words under one table into `out`; False when the stream does not end where it should."""
    if body.size < STATE_BYTES or body.size % 2:
        return False
    slot_table(cdf, cdf.size - 1, table)
    states = np.empty(LANES, np.uint32)
    for lane in range(LANES):
        states[lane] = np.uint32(0)
        for k in range(4):
            states[lane] |= np.uint32(body[4 * lane + k]) << np.uint32(8 * k)
    return decode_words(body[STATE_BYTES:], table, meaning, out, states)


@njit(cache=True, nogil=True)
def to_pairs(plane, classes, count, pairs, escaped):  # type: ignore[no-untyped-def]
    """Pair symbols uint8 [n // 2] of bytes uint8 [n]; what the decoder patches goes to `escaped`; its length."""
    size, last = 0, 0
    for i in range(pairs.size):
        first, second = classes[plane[2 * i]], classes[plane[2 * i + 1]]
        if first < 0 or second < 0:
            pairs[i] = count * count
            gap = i - last
            last = i
            while gap > 127:
                escaped[size] = gap & 127 | 128
                size += 1
                gap >>= 7
            escaped[size] = gap
            escaped[size + 1] = plane[2 * i]
            escaped[size + 2] = plane[2 * i + 1]
            size += 3
        else:
            pairs[i] = first * count + second
    if plane.size & 1:
        escaped[size] = plane[plane.size - 1]
        size += 1
    return size


@njit(cache=True, nogil=True)
def patch_pairs(escaped, out):  # type: ignore[no-untyped-def]
    """Put escaped pairs and an odd last byte into out uint8 [n]; False when they do not fit."""
    at, pair, end = 0, np.int64(0), escaped.size - (out.size & 1)
    if end < 0:
        return False
    while at < end:
        gap, shift = np.int64(0), 0
        while True:
            if at >= end or shift > 28:
                return False
            byte = np.int64(escaped[at])
            at += 1
            gap |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        pair += gap
        if at + 2 > end or 2 * pair + 1 >= out.size:
            return False
        out[2 * pair] = escaped[at]
        out[2 * pair + 1] = escaped[at + 1]
        at += 2
    if out.size & 1:
        out[out.size - 1] = escaped[end]
    return True
