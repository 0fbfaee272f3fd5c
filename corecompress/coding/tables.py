"""Integer frequency tables: a probability model frozen so that every machine codes the same bytes.

Everything here is integer arithmetic. A table has up to 256 slots; the last slot of a table with an escape stands for
every symbol outside its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from corecompress.coding.rans import PRECISION, SLOTS, encoding_table, slot_table
from corecompress.errors import CorruptData

MAX_SLOTS = 256
BITS_ONE = 1 << 16
"""One bit in the fixed-point unit of `code_length`."""


@dataclass(frozen=True)
class Tables:
    """T frequency tables. Row t gives the symbols offset[t] … offset[t] + length[t] − 2, and the escape, a slot each.

    cdf: uint32 [T, L + 1], cumulative frequencies that end at 2**12 in column length[t] and stay there;
    offset: int32 [T], the smallest symbol of a row; length: int32 [T], slots of a row with its escape (1 … 256).
    """

    cdf: NDArray[np.uint32]
    offset: NDArray[np.int32]
    length: NDArray[np.int32]
    precision: int = PRECISION

    @classmethod
    def from_counts(cls, counts: Sequence[Any] | NDArray[Any], offset: Sequence[int] | NDArray[Any]) -> Tables:
        """Tables for rows of counts [T][slots ≤ 255], row t beginning at symbol offset[t].

        A symbol that was counted can be coded; one that is rare is left to the escape, which always has a slot.
        Raises ValueError for negative counts or rows of more than 255 slots.
        """
        rows = [_trim(np.asarray(row, np.int64)) for row in counts]
        lengths = np.array([row.size + 1 for _, row in rows], np.int32)
        cdf = np.full((len(rows), int(lengths.max(initial=1)) + 1), SLOTS, np.uint32)
        for t, (_, row) in enumerate(rows):
            frequencies = quantize(np.append(row, 0), np.append(row > 0, True))
            cdf[t, : row.size + 2] = np.concatenate([[0], np.cumsum(frequencies)])
        starts = np.array([int(offset[t]) + skipped for t, (skipped, _) in enumerate(rows)], np.int32)
        return cls(cdf, starts, lengths)

    @cached_property
    def slots(self) -> NDArray[np.uint32]:
        """Decoding tables, uint32 [T · 4096]."""
        table = np.zeros((len(self.length), SLOTS), np.uint32)
        for t, length in enumerate(self.length):
            slot_table(self.cdf[t], int(length), table[t])
        return table.reshape(-1)

    @cached_property
    def encoding(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """What the encoder looks up, see `encoding_table`."""
        rows = len(self.length)
        reciprocal, packed = np.zeros(rows * MAX_SLOTS, np.uint64), np.zeros(rows * MAX_SLOTS, np.uint32)
        encoding_table(self.cdf, reciprocal, packed)
        return reciprocal, packed

    def bits(self, slots: NDArray[Any], index: NDArray[Any] | None = None) -> float:
        """Ideal code length in bits of slots [n] (symbol − offset, or length − 1 for an escape), without escape values."""
        rows = np.zeros(slots.size, np.int64) if index is None else index.astype(np.int64)
        s = slots.astype(np.int64)
        frequency = self.cdf[rows, s + 1].astype(np.int64) - self.cdf[rows, s]
        return float((PRECISION - np.log2(frequency)).sum())

    def to_bytes(self) -> bytes:
        """A compact form: varints of the number of tables, and for each its offset, length and frequencies."""
        out = bytearray()
        put_varint(out, len(self.length))
        for t, length in enumerate(self.length.tolist()):
            put_varint(out, _zigzag(int(self.offset[t])))
            put_frequencies(out, np.diff(self.cdf[t, : length + 1].astype(np.int64)))
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Tables:
        """Read what `to_bytes` wrote. Raises CorruptData for anything else."""
        data = bytes(data)
        count, at = get_varint(data, 0)
        if not 0 < count <= min(len(data), 1 << 16):
            raise CorruptData("a table count is impossible")
        offsets: list[int] = []
        rows: list[NDArray[np.int64]] = []
        for _ in range(count):
            code, at = get_varint(data, at)
            offsets.append(_unzigzag(code))
            frequencies, at = get_frequencies(data, at)
            rows.append(frequencies)
        if at != len(data) or not all(-(1 << 31) <= offset < 1 << 31 for offset in offsets):
            raise CorruptData("tables have another length or range than they say")
        lengths = np.array([len(row) for row in rows], np.int32)
        cdf = np.full((count, int(lengths.max()) + 1), SLOTS, np.uint32)
        for t, row in enumerate(rows):
            cdf[t, : len(row) + 1] = np.concatenate([[0], np.cumsum(row)])
        return cls(cdf, np.array(offsets, np.int32), lengths)


@njit(cache=True, nogil=True)
def quantize(counts, needed):  # type: ignore[no-untyped-def]
    """Frequencies int64 [n] that sum to 4096 for counts int64 [n]; those `needed` get 1 at least, others may get 0.

    Rounded down first; then the unit that gains (or costs) the fewest bits is moved, one at a time. The gain of
    f → f + 1 is c · log((f + 1) / f) ≈ c / (f + ½), so comparing needs no logarithm.
    """
    n, total = counts.size, counts.sum()
    frequency = np.zeros(n, np.int64)
    for s in range(n):
        if total > 0:
            # in two steps, so that counts up to 2^50 do not overflow
            frequency[s] = counts[s] * SLOTS // total if counts[s] < 1 << 50 else counts[s] // (total // SLOTS + 1)
        if needed[s] and frequency[s] == 0:
            frequency[s] = 1
    excess = frequency.sum() - SLOTS
    while excess != 0:
        best = -1
        for s in range(n):
            if excess < 0:
                if needed[s] and (best < 0 or counts[s] * (2 * frequency[best] + 1) > counts[best] * (2 * frequency[s] + 1)):
                    best = s
            elif frequency[s] > 1 and (
                best < 0 or counts[s] * (2 * frequency[best] - 1) < counts[best] * (2 * frequency[s] - 1)
            ):
                best = s
        step = 1 if excess < 0 else -1
        frequency[best] += step
        excess += step
    return frequency


@lru_cache(maxsize=1)
def code_lengths() -> NDArray[np.int64]:
    """int64 [4097]: bits of a symbol of frequency f, 12 − log2 f, in units of 2^−16 bit; by squaring, so that no
    machine's logarithm decides which bytes are written."""
    f = np.arange(1, SLOTS + 1, dtype=np.uint64)
    whole = np.zeros(f.size, np.int64)
    for shift in range(PRECISION, 0, -1):
        whole = np.where((whole == 0) & (f >= np.uint64(1 << shift)), shift, whole)
    mantissa = (f << np.uint64(31)) >> whole.astype(np.uint64)  # in [2^31, 2^32)
    fraction = np.zeros(f.size, np.int64)
    for bit in range(15, -1, -1):
        mantissa = (mantissa * mantissa) >> np.uint64(31)
        carry = mantissa >= np.uint64(1 << 32)
        fraction |= np.where(carry, 1 << bit, 0)
        mantissa = np.where(carry, mantissa >> np.uint64(1), mantissa)
    return np.concatenate([[0], PRECISION * BITS_ONE - (whole * BITS_ONE + fraction)])


def put_frequencies(out: bytearray, frequencies: NDArray[np.int64]) -> None:
    """Append 1 … 256 frequencies as varints, runs of zeros as a zero and their number."""
    put_varint(out, frequencies.size - 1)
    buffer = np.empty(2 * frequencies.size, np.uint8)
    out += buffer[: _write_row(frequencies, buffer)].tobytes()


def get_frequencies(data: bytes, at: int) -> tuple[NDArray[np.int64], int]:
    """Read what `put_frequencies` wrote at `at`: (frequencies, position behind). Raises CorruptData."""
    last, at = get_varint(data, at)
    if last >= MAX_SLOTS:
        raise CorruptData("a frequency table is too long")
    frequencies = np.zeros(last + 1, np.int64)
    at = _read_row(np.frombuffer(data, np.uint8), at, frequencies)
    if at < 0:
        raise CorruptData("a frequency table is damaged")
    return frequencies, at


@njit(cache=True, nogil=True)
def _write_row(frequencies, out):  # type: ignore[no-untyped-def]
    at, s = 0, 0
    while s < frequencies.size:
        value = frequencies[s]
        if value == 0:
            run = 1
            while s + run < frequencies.size and frequencies[s + run] == 0:
                run += 1
            out[at] = 0
            at += 1
            s += run - 1
            value = run - 1
        if value > 127:
            out[at] = value & 127 | 128
            at += 1
            value >>= 7
        out[at] = value
        at += 1
        s += 1
    return at


@njit(cache=True, nogil=True)
def _read_short(data, at):  # type: ignore[no-untyped-def]
    """(value, position behind) of a varint of one or two bytes in its shortest form; position −1 for anything else."""
    if at >= data.size:
        return np.int64(0), -1
    value = np.int64(data[at])
    if value < 128:
        return value, at + 1
    if at + 1 >= data.size or data[at + 1] == 0 or data[at + 1] > 127:
        return np.int64(0), -1
    return (value & 127) | (np.int64(data[at + 1]) << 7), at + 2


@njit(cache=True, nogil=True)
def _read_row(data, at, frequencies):  # type: ignore[no-untyped-def]
    """Fill frequencies int64 [n]; the position behind them, −1 unless they stand there in their only valid form."""
    s, total, after_zeros = 0, 0, False
    while s < frequencies.size:
        value, at = _read_short(data, at)
        if at < 0 or (after_zeros and value == 0):
            return -1
        after_zeros = value == 0
        if after_zeros:
            run, at = _read_short(data, at)
            if at < 0 or s + run >= frequencies.size:
                return -1
            s += run
        frequencies[s] = value
        total += value
        s += 1
    return at if total == SLOTS else -1


def _trim(row: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """(slots skipped in front, the row from its first to its last counted symbol)."""
    if row.ndim != 1 or (row < 0).any():
        raise ValueError("counts must be a flat row of whole numbers, none below zero")
    counted = np.flatnonzero(row)
    if counted.size == 0:
        return 0, row[:0]
    first, last = int(counted[0]), int(counted[-1])
    if last - first + 2 > MAX_SLOTS:
        raise ValueError(f"a row spans {last - first + 1} symbols; {MAX_SLOTS - 1} fit, leave the rest to the escape")
    return first, row[first : last + 1]


def put_varint(out: bytearray, value: int) -> None:
    """Append a varint: seven bits a byte, low ones first, the top bit says that more follow."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a varint of at most five bytes, in its shortest form."""
    value = shift = 0
    for position in range(at, min(at + 5, len(data))):
        byte = data[position]
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            if byte == 0 and position > at:
                break
            return value, position + 1
    raise CorruptData("a number in a table is damaged or cut off")


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(code: int) -> int:
    return code >> 1 if code % 2 == 0 else -(code + 1) // 2
