"""Integer frequency tables: a probability model frozen so that every machine codes the same bytes.

Everything here is integer arithmetic. A table has up to 256 slots; the last slot of a table with an escape stands for
every symbol outside its range.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from corecompress.coding.rans import PRECISION, SLOTS, encoding_table, slot_table
from corecompress.errors import CorruptData

MAX_SLOTS = 256
BITS_ONE = 1 << 16
"""One bit in the fixed-point unit of `code_length`."""


@dataclass(frozen=True, eq=False)
class Tables:
    """T frequency tables. Row t gives the symbols offset[t] … offset[t] + length[t] − 2, and the escape, a slot each.

    cdf: uint32 [T, L + 1], cumulative frequencies that end at 2**12 in column length[t] and stay there;
    offset: int32 [T], the smallest symbol of a row; length: int32 [T], slots of a row with its escape (1 … 256).
    A symbol in a row's range may have frequency 0: it is escaped like those outside. The escape's is 1 at least.
    Raises ValueError for anything else, so that no kernel ever sees a table that leads out of bounds.
    """

    cdf: NDArray[np.uint32]
    offset: NDArray[np.int32]
    length: NDArray[np.int32]
    precision: int = PRECISION

    def __post_init__(self) -> None:
        # own, writable arrays of one dtype: nobody changes them after the checks, and kernels compile once
        cdf, offset, length = (np.array(value, np.int64, ndmin=1) for value in (self.cdf, self.offset, self.length))
        if self.precision != PRECISION or cdf.ndim != 2 or not 0 < len(cdf) == offset.size == length.size <= 1 << 16:
            raise ValueError(f"tables need a cdf [T, L + 1], T offsets, T lengths and precision {PRECISION}")
        if length.min() < 1 or length.max() > min(MAX_SLOTS, cdf.shape[1] - 1):
            raise ValueError(f"a row has more than {MAX_SLOTS} slots, or none")
        if offset.min() < -(1 << 31) or (offset + np.maximum(length - 2, 0)).max() >= 1 << 31:
            raise ValueError("a row has symbols that are no int32")
        rows, column = np.arange(len(cdf)), np.arange(cdf.shape[1])
        if cdf[:, 0].any() or (np.diff(cdf) < 0).any() or (cdf[column >= length[:, None]] != SLOTS).any():
            raise ValueError(f"a row's cumulative frequencies do not rise from 0 to {SLOTS}")
        if (cdf[rows, length - 1] >= SLOTS).any():
            raise ValueError("a row's escape has no frequency")
        object.__setattr__(self, "cdf", cdf.astype(np.uint32))
        object.__setattr__(self, "offset", offset.astype(np.int32))
        object.__setattr__(self, "length", length.astype(np.int32))

    @classmethod
    def from_counts(
        cls, counts: Sequence[Any] | NDArray[Any], offset: Sequence[int] | NDArray[Any], precision: int = PRECISION
    ) -> Tables:
        """Tables for rows of counts [T][any number of slots], row t beginning at symbol offset[t].

        Every symbol can be coded; a rare one is left to the escape where that takes fewer bytes, and so is what lies
        outside the 255 neighbours that hold most. Raises ValueError for counts below zero or any other precision
        than 12.
        """
        rows = [_fit_row(np.asarray(row, np.int64)) for row in counts]
        lengths = np.array([frequencies.size for _, frequencies in rows], np.int64)
        cdf = np.full((len(rows), int(lengths.max(initial=1)) + 1), SLOTS, np.int64)
        for t, (_, frequencies) in enumerate(rows):
            cdf[t, : frequencies.size + 1] = np.concatenate([[0], np.cumsum(frequencies)])
        starts = np.array([int(offset[t]) + skipped for t, (skipped, _) in enumerate(rows)], np.int64)
        if starts.size and (starts.min() < -(1 << 31) or starts.max() >= 1 << 31):
            raise ValueError("a row begins at a symbol that is no int32")
        return cls(cdf.astype(np.uint32), starts.astype(np.int32), lengths.astype(np.int32), precision)

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

    @cached_property
    def coded(self) -> NDArray[np.uint8]:
        """uint8 [T, L]: the slot that codes each slot: itself, or the escape's where its frequency is 0."""
        column = np.arange(self.cdf.shape[1] - 1)
        escape = (self.length - 1)[:, None]
        return np.where((np.diff(self.cdf.astype(np.int64)) > 0) & (column < escape), column, escape).astype(np.uint8)

    def within(self, dtype: DTypeLike) -> bool:
        """Whether an integer dtype holds all that the rows cover; what is escaped may still be beyond."""
        limits, last = np.iinfo(dtype), self.offset.astype(np.int64) + np.maximum(self.length - 2, 0)
        return bool(self.offset.min() >= limits.min and last.max() <= limits.max)

    def bits(self, symbols: NDArray[Any], index: NDArray[Any] | None = None) -> float:
        """Ideal code length in bits of symbols [n], escape values included; row index[i] for each, or row 0."""
        rows = np.zeros(symbols.size, np.int64) if index is None else index.astype(np.int64)
        slot = symbols.astype(np.int64) - self.offset[rows]
        escape = self.length[rows].astype(np.int64) - 1
        coded = np.where((slot >= 0) & (slot < escape), self.coded[rows, np.clip(slot, 0, escape)], escape)
        frequency = self.cdf[rows, coded + 1].astype(np.int64) - self.cdf[rows, coded]
        escaped = coded == escape
        side = escape_bytes(slot[escaped], escape[escaped])
        return float((PRECISION - np.log2(frequency)).sum()) + 8 * int(side.sum())

    def to_bytes(self) -> bytes:
        """A compact form: varints of the number of tables, of each its offset, length, frequencies; a CRC-16."""
        out = bytearray()
        put_varint(out, len(self.length))
        for t, length in enumerate(self.length.tolist()):
            put_varint(out, _zigzag(int(self.offset[t])))
            put_frequencies(out, np.diff(self.cdf[t, : length + 1]).astype(np.int64))
        return bytes(out) + crc_hqx(out, 0).to_bytes(2, "little")

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Tables:
        """Read what `to_bytes` wrote. Raises CorruptData for anything else."""
        data, crc = bytes(data[:-2]), bytes(data[-2:])
        # an offset has no redundancy of its own: one flipped bit would be other tables
        if crc != crc_hqx(data, 0).to_bytes(2, "little"):
            raise CorruptData("tables are damaged")
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
        try:
            return cls(cdf, np.array(offsets, np.int32), lengths)
        except ValueError as error:
            raise CorruptData(str(error)) from error


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
                if needed[s] and (
                    best < 0 or counts[s] * (2 * frequency[best] + 1) > counts[best] * (2 * frequency[s] + 1)
                ):
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
    at = read_row(np.frombuffer(data, np.uint8), at, frequencies)
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
def read_short(data, at):  # type: ignore[no-untyped-def]
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
def read_long(data, at):  # type: ignore[no-untyped-def]
    """The same for varints of up to four bytes."""
    value, shift = np.int64(0), 0
    while shift < 28 and 0 <= at < data.size:
        byte = np.int64(data[at])
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return (value, at) if byte > 0 or shift == 0 else (np.int64(0), -1)
        shift += 7
    return np.int64(0), -1


@njit(cache=True, nogil=True)
def read_row(data, at, frequencies):  # type: ignore[no-untyped-def]
    """Fill frequencies int64 [n]; the position behind them, −1 unless they stand there in their only valid form."""
    s, total, after_zeros = 0, 0, False
    while s < frequencies.size:
        value, at = read_short(data, at)
        if at < 0 or (after_zeros and value == 0):
            return -1
        after_zeros = value == 0
        if after_zeros:
            run, at = read_short(data, at)
            if at < 0 or s + run >= frequencies.size:
                return -1
            s += run
        frequencies[s] = value
        total += value
        s += 1
    return at if total == SLOTS else -1


def _fit_row(row: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Table for counts int64 [n]: (slots skipped in front, frequencies int64 of those behind and of the escape).

    The smallest of a few that escape symbols up to different counts. Raises ValueError for counts below zero.
    """
    if row.ndim != 1 or (row < 0).any():
        raise ValueError("counts must be a flat row of whole numbers, none below zero")
    while sum(row.tolist()) >= 1 << 40:  # what is multiplied with them below fits into 63 bits
        row = (row + 1) >> 1
    total = int(row.sum())
    # a frequency of 1 takes 1/4096 from all others: below about that share of the symbols the escape is cheaper
    limits = sorted({0} | {total >> shift for shift in range(PRECISION + 4, PRECISION - 2, -1)})
    tried = [_leave_out(row, limit) for limit in limits]
    _, skipped, frequencies = min(tried, key=lambda found: found[0])
    return skipped, frequencies


def _leave_out(row: NDArray[np.int64], limit: int) -> tuple[int, int, NDArray[np.int64]]:
    """(size in 2^−16 bit, slots skipped, frequencies) when symbols with `limit` counts at most are escaped."""
    kept = np.flatnonzero(row > limit)
    first, end = (int(kept[0]), int(kept[-1]) + 1) if kept.size else (0, 0)
    if end - first > MAX_SLOTS - 1:
        mass = np.concatenate([[0], np.cumsum(np.where(row > limit, row, 0))])
        first = int(np.argmax(mass[MAX_SLOTS - 1 :] - mass[: -(MAX_SLOTS - 1)]))
        end = first + MAX_SLOTS - 1
    inside = np.where(row[first:end] > limit, row[first:end], 0)
    escaped = row.copy()
    escaped[first:end] -= inside
    counts = np.append(inside, escaped.sum())
    frequencies = quantize(counts, np.append(inside > 0, True))
    side = int((escaped * escape_bytes(np.arange(row.size) - first, np.int64(end - first))).sum())
    table = bytearray()
    put_frequencies(table, frequencies)
    bits = int((counts * code_lengths()[frequencies]).sum()) + 8 * BITS_ONE * (side + len(table))
    return bits, first, frequencies


def escape_bytes(slot: NDArray[np.int64], escape: NDArray[np.int64] | np.int64) -> NDArray[np.int64]:
    """Bytes of the escape values of slots [n] (any whole number) in rows with `escape` slots before the escape's."""
    distance = slot - (escape >> 1)
    code = np.where(distance < 0, -2 * distance - 1, 2 * distance)
    size = np.ones(code.shape, np.int64)
    for shift in (7, 14, 21, 28):
        size += (code >> shift) > 0
    return size


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
