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
    IDENTITY,
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
    get_frequencies,
    get_varint,
    put_frequencies,
    put_varint,
    quantize,
)
from corecompress.errors import CorruptData

CONSTANT, STORED, SINGLE, PAIRED = 0, 1, 2, 3
NO_INDEX = np.empty(0, np.uint16)
STATE_BYTES = 4 * LANES
PAIR_VALUES = 15
SAMPLE = 1 << 14
LARGEST_HEAD = 1024
"""Bytes of a table and what stands before it, at most."""


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
    mode, body = (data[0], data[1:]) if len(data) else (-1, data)
    if mode == CONSTANT and len(body) == 1:
        out[:] = body[0]
    elif mode == STORED and len(body) == out.size:
        out[:] = np.frombuffer(body, np.uint8)
    elif mode == SINGLE:
        first, at = get_varint(bytes(body[:LARGEST_HEAD]), 0)
        frequencies, at = get_frequencies(bytes(body[:LARGEST_HEAD]), at)
        if first + len(frequencies) > 256:
            raise CorruptData("a block's table has symbols that are no bytes")
        cdf = np.concatenate([np.zeros(first + 1, np.int64), np.cumsum(frequencies)])
        _decode(body[at:], cdf, IDENTITY, out)
    elif mode == PAIRED:
        _decode_paired(body, out)
    else:
        raise CorruptData("a block of bytes is damaged")


def stored_bytes(data: memoryview) -> NDArray[np.uint8] | None:
    """The bytes of a stored block without a copy; None for the other modes."""
    return np.frombuffer(data[1:], np.uint8) if len(data) and data[0] == STORED else None


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


def _decode_paired(body: memoryview, out: NDArray[np.uint8]) -> None:
    head = bytes(body[:LARGEST_HEAD])
    count, at = get_varint(head, 0)
    values = np.frombuffer(head[at : at + count], np.uint8).astype(np.uint16)
    frequencies, at = get_frequencies(head, at + count)
    size, at = get_varint(head, at)
    if not 0 < count <= PAIR_VALUES or len(frequencies) != count**2 + 1 or values.size != count or at + size > len(body):
        raise CorruptData("a block's pairs are damaged")
    escaped, escape = np.frombuffer(body[at : at + size], np.uint8), count**2
    meaning = np.zeros(256, np.uint16)
    meaning[:escape] = (values[:, None] | (values[None, :] << 8)).reshape(-1)
    cdf = np.concatenate([[0], np.cumsum(frequencies)])
    even = out[: out.size & ~1]
    _decode(body[at + size :], cdf, meaning, even.view("<u2"))
    if not patch_pairs(escaped, out):
        raise CorruptData("a block's escaped bytes are damaged")


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


def _decode(body: memoryview, cdf: NDArray[np.int64], meaning: NDArray[np.generic], out: NDArray[np.generic]) -> None:
    """Undo `_code`. Raises CorruptData when the stream does not end where it should."""
    if len(body) < STATE_BYTES or len(body) % 2:
        raise CorruptData("a block of bytes is cut off")
    table = np.zeros(SLOTS, np.uint32)
    slot_table(cdf.astype(np.uint32), cdf.size - 1, table)
    states = np.frombuffer(body[:STATE_BYTES], "<u4").astype(np.uint32)
    words = np.frombuffer(body[STATE_BYTES:], "<u2")
    if not decode_words(words, table, meaning, out, states):
        raise CorruptData("a block of bytes does not end where it should")


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
    at, pair, end = 0, 0, escaped.size - (out.size & 1)
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
