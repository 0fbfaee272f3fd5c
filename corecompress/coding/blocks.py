"""One block of bytes with a model of its own: constant, stored, or rANS with a table built from its histogram.

    mode 0  constant: the byte
    mode 1  stored: the bytes
    mode 2  rANS: varint smallest byte, the frequencies of the bytes from there on, eight states, words
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.rans import LANES, SLOTS, decode_words, encode_words, histogram, slot_table
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

CONSTANT, STORED, RANS = 0, 1, 2
NO_INDEX = np.empty(0, np.uint16)
STATE_BYTES = 4 * LANES


def encode_block(plane: NDArray[np.uint8]) -> bytes:
    """Code bytes uint8 [n ≥ 1], contiguous, in the mode that is smallest."""
    counts = np.zeros(256, np.int64)
    histogram(plane, counts)
    used = np.flatnonzero(counts)
    first, last = int(used[0]), int(used[-1])
    if first == last:
        return bytes([CONSTANT, first])
    row = counts[first : last + 1]
    frequencies = quantize(row, row > 0)
    head = bytearray([RANS])
    put_varint(head, first)
    put_frequencies(head, frequencies)
    expected = int((row * code_lengths()[frequencies]).sum()) // BITS_ONE // 8 + len(head) + STATE_BYTES
    if expected >= plane.size - plane.size // 256:  # less than 0.4 % is not worth the decoder's time
        return bytes([STORED]) + plane.tobytes()
    words = np.empty(plane.size + LANES, np.uint16)
    states = np.empty(LANES, np.uint32)
    cdf = np.concatenate([np.zeros(first + 1, np.int64), np.cumsum(frequencies)]).astype(np.uint32)
    start = encode_words(plane, NO_INDEX, cdf[None], words, states)
    return b"".join([head, states.astype("<u4").tobytes(), words[start:].astype("<u2").tobytes()])


def decode_block(data: memoryview, out: NDArray[np.uint8]) -> None:
    """Decode into out uint8 [n ≥ 1]. Raises CorruptData unless `data` is exactly one block of n bytes."""
    mode, body = (data[0], data[1:]) if len(data) else (-1, data)
    if mode == CONSTANT and len(body) == 1:
        out[:] = body[0]
    elif mode == STORED and len(body) == out.size:
        out[:] = np.frombuffer(body, np.uint8)
    elif mode == RANS:
        _decode_rans(body, out)
    else:
        raise CorruptData("a block of bytes is damaged")


def _decode_rans(body: memoryview, out: NDArray[np.uint8]) -> None:
    head = bytes(body[:1024])  # a table of 256 frequencies takes 2 bytes each at most
    first, at = get_varint(head, 0)
    frequencies, at = get_frequencies(head, at)
    if first + len(frequencies) > 256 or (len(body) - at - STATE_BYTES) % 2 or len(body) < at + STATE_BYTES:
        raise CorruptData("a block's table does not fit a byte, or its words are cut off")
    cdf = np.concatenate([np.zeros(first + 1, np.int64), np.cumsum(frequencies)]).astype(np.uint32)
    table = np.zeros(SLOTS, np.uint32)
    slot_table(cdf, cdf.size - 1, table)
    states = np.frombuffer(body[at : at + STATE_BYTES], "<u4").astype(np.uint32)
    words = np.frombuffer(body[at + STATE_BYTES :], "<u2")
    if not decode_words(words, table, NO_INDEX, out, states):
        raise CorruptData("a block of bytes does not end where it should")
