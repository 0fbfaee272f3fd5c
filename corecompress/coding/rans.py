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
from numba import njit, uint8, uint32, uint64

PRECISION = 12
SLOTS = 1 << PRECISION
LANES = 8
LOW = 1 << 16
"""Smallest value of a state between symbols, and its value when all is read."""

_MASK = uint32(SLOTS - 1)
_SHIFT = uint32(PRECISION)
_TOP = uint32(24)
_WORD = uint32(16)
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
def encode_words(symbols, index, cdf, words, states):  # type: ignore[no-untyped-def]
    """Code uint8 symbols [n], backwards, into the end of words uint16 [>= n]; returns where the words begin.

    index: uint16 [n], the row of cdf uint32 [T, L + 1] for each symbol, or empty for row 0. states: uint32 [8], set to
    the final states. Every symbol must have a frequency above 0.
    """
    position = words.size
    for lane in range(LANES):
        states[lane] = _FLOOR
    several = index.size > 0
    for i in range(symbols.size - 1, -1, -1):
        lane = i % LANES
        row = index[i] if several else np.uint16(0)
        s = symbols[i]
        start = cdf[row, s]
        frequency = uint32(cdf[row, s + 1] - start)
        x = states[lane]
        if uint64(x) >= (uint64(frequency) << uint64(20)):
            position -= 1
            words[position] = x & uint32(0xFFFF)
            x = x >> _WORD
        quotient = uint32(x // frequency)
        states[lane] = (quotient << _SHIFT) + uint32(x - quotient * frequency) + uint32(start)
    return position


@njit(cache=True, nogil=True)
def _tail(words, position, table, index, out, first, states):  # type: ignore[no-untyped-def]
    """Decode symbols from `first` on, one by one, every read checked; the position, or −1 when words run out."""
    several = index.size > 0
    for i in range(first, out.size):
        lane = i % LANES
        x = states[lane]
        row = uint32(index[i]) << _SHIFT if several else uint32(0)
        entry = table[row + (x & _MASK)]
        out[i] = uint8(entry >> _TOP)
        x = (((entry >> _SHIFT) & _MASK) + _ONE) * (x >> _SHIFT) + (entry & _MASK)
        if x < _FLOOR:
            if position >= words.size:
                return -1
            x = (x << _WORD) | uint32(words[position])
            position += 1
        states[lane] = x
    return position


@njit(inline="always")
def _step(x, entry):  # type: ignore[no-untyped-def]
    return (((entry >> _SHIFT) & _MASK) + _ONE) * (x >> _SHIFT) + (entry & _MASK)


@njit(inline="always")
def _refill(x, words, position):  # type: ignore[no-untyped-def]
    # no branch: whether a word is needed is as good as random
    short = x < _FLOOR
    return ((x << _WORD) | uint32(words[position]) if short else x), position + np.int64(short)


@njit(cache=True, nogil=True)
def decode_words(words, table, index, out, states):  # type: ignore[no-untyped-def]
    """Decode out.size symbols into out uint8 [n]; True when the stream ends as every encoder's does.

    words: uint16 [w]; table: uint32 [T · 4096], slots of T tables; index: uint16 [n], each < T, or empty for table 0;
    states: uint32 [8], changed. No read is out of bounds, whatever the words and states are.
    """
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    position, i, n = np.int64(0), np.int64(0), out.size
    several = index.size > 0
    safe = words.size - LANES
    while i + LANES <= n and position <= safe:
        if several:
            e0 = table[(uint32(index[i]) << _SHIFT) + (x0 & _MASK)]
            e1 = table[(uint32(index[i + 1]) << _SHIFT) + (x1 & _MASK)]
            e2 = table[(uint32(index[i + 2]) << _SHIFT) + (x2 & _MASK)]
            e3 = table[(uint32(index[i + 3]) << _SHIFT) + (x3 & _MASK)]
            e4 = table[(uint32(index[i + 4]) << _SHIFT) + (x4 & _MASK)]
            e5 = table[(uint32(index[i + 5]) << _SHIFT) + (x5 & _MASK)]
            e6 = table[(uint32(index[i + 6]) << _SHIFT) + (x6 & _MASK)]
            e7 = table[(uint32(index[i + 7]) << _SHIFT) + (x7 & _MASK)]
        else:
            e0, e1, e2, e3 = table[x0 & _MASK], table[x1 & _MASK], table[x2 & _MASK], table[x3 & _MASK]
            e4, e5, e6, e7 = table[x4 & _MASK], table[x5 & _MASK], table[x6 & _MASK], table[x7 & _MASK]
        out[i], out[i + 1], out[i + 2], out[i + 3] = e0 >> _TOP, e1 >> _TOP, e2 >> _TOP, e3 >> _TOP
        out[i + 4], out[i + 5], out[i + 6], out[i + 7] = e4 >> _TOP, e5 >> _TOP, e6 >> _TOP, e7 >> _TOP
        x0, position = _refill(_step(x0, e0), words, position)
        x1, position = _refill(_step(x1, e1), words, position)
        x2, position = _refill(_step(x2, e2), words, position)
        x3, position = _refill(_step(x3, e3), words, position)
        x4, position = _refill(_step(x4, e4), words, position)
        x5, position = _refill(_step(x5, e5), words, position)
        x6, position = _refill(_step(x6, e6), words, position)
        x7, position = _refill(_step(x7, e7), words, position)
        i += LANES
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    position = _tail(words, position, table, index, out, i, states)
    if position != words.size:
        return False
    for lane in range(LANES):
        if states[lane] != _FLOOR:
            return False
    return True
