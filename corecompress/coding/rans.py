"""Interleaved range-ANS kernels: eight 32-bit states, 16-bit words, 12-bit probabilities.

Method: J. Duda, "Asymmetric numeral systems", arXiv:1311.2540; interleaving and the word-wise renormalisation after
F. Giesen, "Interleaved entropy coders", arXiv:1402.3392. Symbol i belongs to state i mod 8, so that eight chains of
dependent operations run side by side. A state lies in [2^16, 2^32) between symbols; at most one word is moved a
symbol. The encoder runs backwards and the decoder forwards: when all symbols are read, every state is 2^16 again and
every word is used, which the decoder checks.

A decoding table has 2^12 slots of one uint32: symbol in 8 bits, frequency − 1 in 12, slot − first slot in 12.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

PRECISION = 12
SLOTS = 1 << PRECISION
LANES = 8
LOW = 1 << 16
"""Smallest value of a state between symbols, and its value when all is read."""

IDENTITY = np.arange(256, dtype=np.uint8)
"""The `meaning` of symbols that stand for themselves."""

_MASK = uint32(SLOTS - 1)
_SHIFT = uint32(PRECISION)
_TOP = uint32(24)
_WORD = uint32(16)
_BYTE = uint32(8)
_FLOOR = uint32(LOW)
_ONE = uint32(1)


@njit(cache=True, nogil=True)
def histogram(symbols, counts):  # type: ignore[no-untyped-def]
    """Add the counts of uint8 symbols [n] to counts int64 [256]."""
    # four histograms, so that equal neighbours do not wait for each other's store
    part = np.zeros((4, 256), np.int64)
    n = symbols.size
    for i in range(0, n - 3, 4):
        part[0, symbols[i]] += 1
        part[1, symbols[i + 1]] += 1
        part[2, symbols[i + 2]] += 1
        part[3, symbols[i + 3]] += 1
    for i in range(n - n % 4, n):
        part[0, symbols[i]] += 1
    for s in range(256):
        counts[s] += part[0, s] + part[1, s] + part[2, s] + part[3, s]


@njit(cache=True, nogil=True)
def slot_table(cdf, length, table):  # type: ignore[no-untyped-def]
    """Fill uint32 [4096] slots from cumulative frequencies uint32 [length + 1] that end at 4096."""
    for s in range(length):
        frequency = cdf[s + 1] - cdf[s]
        for k in range(frequency):
            table[cdf[s] + k] = (uint32(s) << _TOP) | (uint32(frequency - 1) << _SHIFT) | uint32(k)


@njit(cache=True, nogil=True)
def encoding_table(cdf, reciprocal, packed):  # type: ignore[no-untyped-def]
    """From cumulative frequencies uint32 [T, L + 1]: reciprocal uint64 [T · 256], ⌈2^44 / f⌉, and packed uint32
    [T · 256], f in the upper 16 bits and the first slot in the lower ones.

    While x < f · 2^20, x · reciprocal stays below 2^64 and its upper 20 bits are exactly x // f.
    """
    for t in range(cdf.shape[0]):
        for s in range(cdf.shape[1] - 1):
            frequency = uint64(cdf[t, s + 1] - cdf[t, s])
            if frequency > 0:
                reciprocal[t * 256 + s] = ((uint64(1) << uint64(44)) + frequency - uint64(1)) // frequency
            packed[t * 256 + s] = (uint32(frequency) << _WORD) | cdf[t, s]


@njit(inline="always")
def _push(x, entry, reciprocal, words, position):  # type: ignore[no-untyped-def]
    """Code one symbol into state x: (state, position). The word below `position` may be overwritten."""
    frequency = entry >> _WORD
    long = uint64(uint64(x) >= (uint64(frequency) << uint64(20)))
    # written always and kept only when it is needed: as good as random, so no branch
    words[position - uint64(1)] = x & uint32(0xFFFF)
    x = uint64(x) >> (long << uint64(4))
    quotient = (x * reciprocal) >> uint64(44)
    x += quotient * (uint64(SLOTS) - uint64(frequency)) + uint64(entry & uint32(0xFFFF))
    return uint32(x), position - long


@njit(cache=True, nogil=True)
def encode_words(symbols, index, reciprocal, packed, words, states):  # type: ignore[no-untyped-def]
    """Code uint8 symbols [n], backwards, into the end of words uint16 [> n]; returns where the words begin.

    index: uint16 [n], the table for each symbol, or empty for table 0; reciprocal, packed: of `encoding_table`.
    states: uint32 [8], set to the final states. Every symbol must have a frequency above 0.
    """
    position, n, several = uint64(words.size), symbols.size, index.size > 0
    for lane in range(LANES):
        states[lane] = _FLOOR
    whole = n - n % LANES
    for i in range(n - 1, whole - 1, -1):
        e = uint64(symbols[i]) + (uint64(index[i]) << uint64(8) if several else uint64(0))
        states[i % LANES], position = _push(states[i % LANES], packed[e], reciprocal[e], words, position)
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    i = uint64(whole)
    while i > uint64(0):
        i -= uint64(LANES)
        e0, e1, e2, e3 = (
            uint64(symbols[i]),
            uint64(symbols[i + uint64(1)]),
            uint64(symbols[i + uint64(2)]),
            uint64(symbols[i + uint64(3)]),
        )
        e4, e5, e6, e7 = (
            uint64(symbols[i + uint64(4)]),
            uint64(symbols[i + uint64(5)]),
            uint64(symbols[i + uint64(6)]),
            uint64(symbols[i + uint64(7)]),
        )
        if several:
            e0, e1 = e0 + (uint64(index[i]) << uint64(8)), e1 + (uint64(index[i + uint64(1)]) << uint64(8))
            e2, e3 = e2 + (uint64(index[i + uint64(2)]) << uint64(8)), e3 + (uint64(index[i + uint64(3)]) << uint64(8))
            e4, e5 = e4 + (uint64(index[i + uint64(4)]) << uint64(8)), e5 + (uint64(index[i + uint64(5)]) << uint64(8))
            e6, e7 = e6 + (uint64(index[i + uint64(6)]) << uint64(8)), e7 + (uint64(index[i + uint64(7)]) << uint64(8))
        x7, position = _push(x7, packed[e7], reciprocal[e7], words, position)
        x6, position = _push(x6, packed[e6], reciprocal[e6], words, position)
        x5, position = _push(x5, packed[e5], reciprocal[e5], words, position)
        x4, position = _push(x4, packed[e4], reciprocal[e4], words, position)
        x3, position = _push(x3, packed[e3], reciprocal[e3], words, position)
        x2, position = _push(x2, packed[e2], reciprocal[e2], words, position)
        x1, position = _push(x1, packed[e1], reciprocal[e1], words, position)
        x0, position = _push(x0, packed[e0], reciprocal[e0], words, position)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    return np.int64(position)


@njit(cache=True, nogil=True)
def _tail(data, position, table, index, meaning, out, first, states):  # type: ignore[no-untyped-def]
    """Decode symbols from `first` on, one by one, every read checked; the position, or −1 when words run out."""
    for i in range(first, out.size):
        lane = i % LANES
        x = states[lane]
        row = uint32(index[i]) << _SHIFT if index.size else uint32(0)
        entry = table[row + (x & _MASK)]
        out[i] = meaning[entry >> _TOP]
        x = _step(x, entry)
        if x < _FLOOR:
            if position + 2 > data.size:
                return np.int64(-1)
            x = (x << _WORD) | uint32(data[position]) | (uint32(data[position + 1]) << _BYTE)
            position += 2
        states[lane] = x
    return position


@njit(inline="always")
def _step(x, entry):  # type: ignore[no-untyped-def]
    return (((entry >> _SHIFT) & _MASK) + _ONE) * (x >> _SHIFT) + (entry & _MASK)


@njit(inline="always")
def _refill(x, data, position):  # type: ignore[no-untyped-def]
    # whether a word is needed is as good as random, so this must not become a branch: arithmetic instead of `if`
    short = uint32(x < _FLOOR)
    word = uint32(data[position]) | (uint32(data[position + uint64(1)]) << _BYTE)
    return (x << (short << uint32(4))) | (word & (uint32(0) - short)), position + uint64(short << _ONE)


@njit(inline="always")
def _ends(data, position, states):  # type: ignore[no-untyped-def]
    """Whether a stream ended as every encoder's does."""
    if position != data.size:
        return False
    for lane in range(LANES):
        if states[lane] != _FLOOR:
            return False
    return True


@njit(cache=True, nogil=True)
def decode_words(data, table, meaning, out, states):  # type: ignore[no-untyped-def]
    """Decode out.size symbols, each through `meaning`, into out [n]; True when the stream ends as it should.

    data: uint8 [2w], the words; table: uint32 [4096] slots; meaning: [256] of out's dtype, what to write for each
    symbol; states: uint32 [8], changed. No read is out of bounds, whatever the words and states are.
    """
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    # unsigned, or every access would first ask whether its index counts from the end
    position, i = uint64(0), uint64(0)
    last, safe = uint64(max(out.size - LANES + 1, 0)), uint64(max(data.size - 2 * LANES + 1, 0))
    while i < last and position < safe:
        e0, e1, e2, e3 = table[x0 & _MASK], table[x1 & _MASK], table[x2 & _MASK], table[x3 & _MASK]
        e4, e5, e6, e7 = table[x4 & _MASK], table[x5 & _MASK], table[x6 & _MASK], table[x7 & _MASK]
        out[i], out[i + uint64(1)] = meaning[e0 >> _TOP], meaning[e1 >> _TOP]
        out[i + uint64(2)], out[i + uint64(3)] = meaning[e2 >> _TOP], meaning[e3 >> _TOP]
        out[i + uint64(4)], out[i + uint64(5)] = meaning[e4 >> _TOP], meaning[e5 >> _TOP]
        out[i + uint64(6)], out[i + uint64(7)] = meaning[e6 >> _TOP], meaning[e7 >> _TOP]
        x0, position = _refill(_step(x0, e0), data, position)
        x1, position = _refill(_step(x1, e1), data, position)
        x2, position = _refill(_step(x2, e2), data, position)
        x3, position = _refill(_step(x3, e3), data, position)
        x4, position = _refill(_step(x4, e4), data, position)
        x5, position = _refill(_step(x5, e5), data, position)
        x6, position = _refill(_step(x6, e6), data, position)
        x7, position = _refill(_step(x7, e7), data, position)
        i += uint64(LANES)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    end = _tail(data, np.int64(position), table, np.empty(0, np.uint16), meaning, out, np.int64(i), states)
    return _ends(data, end, states)


@njit(cache=True, nogil=True)
def decode_words_indexed(data, table, index, out, states):  # type: ignore[no-untyped-def]
    """The same with a table for each symbol: table uint32 [T · 4096], index uint16 [n], each < T; out uint8 [n]."""
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    # unsigned, or every access would first ask whether its index counts from the end
    position, i = uint64(0), uint64(0)
    last, safe = uint64(max(out.size - LANES + 1, 0)), uint64(max(data.size - 2 * LANES + 1, 0))
    while i < last and position < safe:
        e0 = table[(uint32(index[i]) << _SHIFT) + (x0 & _MASK)]
        e1 = table[(uint32(index[i + uint64(1)]) << _SHIFT) + (x1 & _MASK)]
        e2 = table[(uint32(index[i + uint64(2)]) << _SHIFT) + (x2 & _MASK)]
        e3 = table[(uint32(index[i + uint64(3)]) << _SHIFT) + (x3 & _MASK)]
        e4 = table[(uint32(index[i + uint64(4)]) << _SHIFT) + (x4 & _MASK)]
        e5 = table[(uint32(index[i + uint64(5)]) << _SHIFT) + (x5 & _MASK)]
        e6 = table[(uint32(index[i + uint64(6)]) << _SHIFT) + (x6 & _MASK)]
        e7 = table[(uint32(index[i + uint64(7)]) << _SHIFT) + (x7 & _MASK)]
        out[i], out[i + uint64(1)], out[i + uint64(2)], out[i + uint64(3)] = (
            e0 >> _TOP,
            e1 >> _TOP,
            e2 >> _TOP,
            e3 >> _TOP,
        )
        out[i + uint64(4)], out[i + uint64(5)], out[i + uint64(6)], out[i + uint64(7)] = (
            e4 >> _TOP,
            e5 >> _TOP,
            e6 >> _TOP,
            e7 >> _TOP,
        )
        x0, position = _refill(_step(x0, e0), data, position)
        x1, position = _refill(_step(x1, e1), data, position)
        x2, position = _refill(_step(x2, e2), data, position)
        x3, position = _refill(_step(x3, e3), data, position)
        x4, position = _refill(_step(x4, e4), data, position)
        x5, position = _refill(_step(x5, e5), data, position)
        x6, position = _refill(_step(x6, e6), data, position)
        x7, position = _refill(_step(x7, e7), data, position)
        i += uint64(LANES)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    end = _tail(data, np.int64(position), table, index, IDENTITY, out, np.int64(i), states)
    return _ends(data, end, states)
