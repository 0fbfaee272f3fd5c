"""Frequency tables of the scale classes: two a class, one for each quantiser, shared by the whole checkpoint.

A table has 256 slots: slot 0 is the escape, slot k + 128 the symbol k. They come from a prior (what is expected) or
from counts with the prior's shape as a little extra evidence (what was seen in this checkpoint: `refine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.rans import PRECISION, SLOTS, encoding_table, slot_table
from corecompress.coding.tables import get_frequencies, put_frequencies, quantize
from corecompress.errors import CorruptData
from corecompress_vae.classes import CLASSES
from corecompress_vae.trellis import ESCAPE, SHIFT

ROWS = 2 * CLASSES
SYMBOLS = 256
EVIDENCE = 64.0
"""Symbols that the prior's shape counts as, beside those that were seen."""


@dataclass(frozen=True)
class ClassTables:
    """frequencies int64 [2 · CLASSES, 256], each row summing to 2^12; row 2 · class + z."""

    frequencies: NDArray[np.int64]

    @classmethod
    def from_shares(cls, shares: NDArray[np.float64]) -> ClassTables:
        """Tables for probabilities [2 · CLASSES, 256] (or any positive multiples of them)."""
        scaled = np.rint(shares / shares.sum(1, keepdims=True) * float(1 << 40)).astype(np.int64)
        likely = scaled >= (1 << 40) // (4 * SLOTS)  # what is rarer than a quarter of a slot is left to the escape
        likely[:, ESCAPE] = True
        counts = np.where(likely, scaled, 0)
        counts[:, ESCAPE] += np.where(likely, 0, scaled).sum(1)
        return cls(np.stack([quantize(row, needed) for row, needed in zip(counts, likely, strict=True)]))

    def refine(self, counts: NDArray[np.int64]) -> ClassTables:
        """Tables for counts int64 [2 · CLASSES, 256] of symbols seen, the present ones as their prior."""
        return ClassTables.from_shares(counts + EVIDENCE * self.frequencies / SLOTS)

    @cached_property
    def bits(self) -> NDArray[np.float32]:
        """float32 [CLASSES, 2, 256]: what a symbol costs; those without a slot the escape and about two bytes."""
        with np.errstate(divide="ignore"):
            bits = PRECISION - np.log2(self.frequencies.astype(np.float64))
        escaped = bits[:, ESCAPE : ESCAPE + 1] + 8 + 8 * (np.abs(np.arange(SYMBOLS) - SHIFT) >= 64)
        return np.where(self.frequencies > 0, bits, escaped).astype(np.float32).reshape(CLASSES, 2, SYMBOLS)

    @cached_property
    def _cumulative(self) -> NDArray[np.uint32]:
        zeros = np.zeros((ROWS, 1), np.int64)
        return np.concatenate([zeros, np.cumsum(self.frequencies, axis=1)], axis=1).astype(np.uint32)

    @cached_property
    def slots(self) -> NDArray[np.uint32]:
        """Decoding tables uint32 [2 · CLASSES · 4096]."""
        table = np.zeros((ROWS, SLOTS), np.uint32)
        for row in range(ROWS):
            slot_table(self._cumulative[row], SYMBOLS, table[row])
        return table.reshape(-1)

    @cached_property
    def encoding(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """What corecompress.coding.rans.encode_words looks up."""
        reciprocal, packed = np.zeros(ROWS * SYMBOLS, np.uint64), np.zeros(ROWS * SYMBOLS, np.uint32)
        encoding_table(self._cumulative, reciprocal, packed)
        return reciprocal, packed

    def to_bytes(self) -> bytes:
        """A bit a row, set where it is more than the escape alone; the rows that are, from their first symbol on."""
        kept = self.frequencies[:, ESCAPE] < SLOTS
        out = bytearray(np.packbits(kept).tobytes())
        for row in self.frequencies[kept]:
            used = np.flatnonzero(row[1:]) + 1
            out += bytes([used[0], row[ESCAPE] >> 8, row[ESCAPE] & 255])
            part = row[used[0] : used[-1] + 1].copy()
            part[0] += row[ESCAPE]  # so that the row sums to 2^12, as its form asks
            put_frequencies(out, part)
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> ClassTables:
        """Raises CorruptData unless `data` is what `to_bytes` wrote."""
        frequencies, at = np.zeros((ROWS, SYMBOLS), np.int64), ROWS // 8
        frequencies[:, ESCAPE] = SLOTS
        if len(data) < at:
            raise CorruptData("class tables are cut off")
        for row in np.flatnonzero(np.unpackbits(np.frombuffer(data[:at], np.uint8))):
            if at + 3 > len(data):
                raise CorruptData("class tables are cut off")
            first, escape = data[at], data[at + 1] << 8 | data[at + 2]
            part, at = get_frequencies(data, at + 3)
            if first == 0 or first + part.size > SYMBOLS or not 0 < escape < part[0]:
                raise CorruptData("a class table is damaged")
            part[0] -= escape
            frequencies[row, first : first + part.size] = part
            frequencies[row, ESCAPE] = escape
        if at != len(data):
            raise CorruptData("class tables are longer than they say")
        return cls(frequencies)

    def filled(self, rest: ClassTables) -> ClassTables:
        """These, with the rows of `rest` where there is nothing but the escape."""
        empty = self.frequencies[:, ESCAPE] == SLOTS
        return ClassTables(np.where(empty[:, None], rest.frequencies, self.frequencies))

    def only(self, used: NDArray[np.bool_]) -> ClassTables:
        """The rows that are used, bool [2 · CLASSES]; the others keep nothing but the escape."""
        frequencies = self.frequencies.copy()
        frequencies[~used] = 0
        frequencies[~used, ESCAPE] = SLOTS
        return ClassTables(frequencies)
