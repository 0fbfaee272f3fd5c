"""One matrix as bytes: steps and scale classes first, then the levels under the tables that these choose.

    varint length and block of each: column steps, row factors, row classes, column classes · levels (stream.py)

Steps are two numbers (base code, eighths of an octave above it), see levels.py; classes are classes.py's codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corecompress.coding import decode_bytes, encode_bytes
from corecompress.coding.tables import get_varint, put_varint
from corecompress.errors import CorruptData
from corecompress_vae.classes import SPAN, fit_classes, one_class
from corecompress_vae.levels import COARSE, LEAST, MOST, code_steps
from corecompress_vae.quantise import quantise
from corecompress_vae.stream import decode_levels, encode_levels
from corecompress_vae.tables import ClassTables
from corecompress_vae.trellis import Trellis

STEEPEST = 2.0**22
"""Levels that a column may reach before feedback: float32 counts exactly to 2^24."""


@dataclass(frozen=True)
class Scales:
    """Codes of the steps of a matrix [o, n]: columns int64 [n], rows int64 [o].

    unit: float32 [n, n], or None: feedback; row_unit: float32 [⌈o / G⌉, G, G], or None: that among rows.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    unit: NDArray[np.float32] | None = None
    row_unit: NDArray[np.float32] | None = None


def encode_matrix(
    weights: NDArray[np.float32],
    scales: Scales,
    tables: ClassTables,
    trellis: Trellis,
    bf16: bool,
    by_row: bool = True,
    prices: ClassTables | None = None,
) -> bytes:
    """Quantise and code weights float32 [o, n]; every value finite. by_row: classes by row and column; prices: what
    symbols are taken to cost, where that is not `tables`."""
    columns, levels, row_classes, column_classes = latents(weights, scales, prices or tables, trellis, bf16, by_row)
    out = head(columns, scales.rows, row_classes, column_classes)
    out += encode_levels(levels, row_classes, column_classes, tables, trellis).tobytes()
    return bytes(out)


def latents(
    weights: NDArray[np.float32], scales: Scales, prices: ClassTables, trellis: Trellis, bf16: bool, by_row: bool
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """(column steps' codes [n], levels int32 [n, o], row classes [o], column classes [n]) of weights float32 [o, n]."""
    columns = no_finer_than_float(weights, scales)
    unit, row_unit = scales.unit, scales.row_unit
    levels = quantise(weights, columns, scales.rows, unit, prices.bits, trellis, bf16, by_row, row_unit)
    return columns, levels, *(fit_classes(levels) if by_row else one_class(levels, prices.bits))


def head(
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    row_classes: NDArray[np.uint8],
    column_classes: NDArray[np.uint8],
) -> bytearray:
    """What stands in front of the levels."""
    out = bytearray()
    for codes in (columns, rows):
        base = int(codes.min())
        put_varint(out, base - LEAST)
        _put_block(out, ((codes - base) // COARSE).astype(np.uint8))
    _put_block(out, row_classes)
    _put_block(out, column_classes)
    return out


def decode_matrix(
    data: memoryview,
    out: NDArray[np.float32] | NDArray[np.uint16],
    tables: ClassTables,
    trellis: Trellis,
    threads: int,
) -> None:
    """Decode into out [o, n], float32 or uint16 (bfloat16 bits). Raises CorruptData for damaged bytes."""
    o, n = out.shape
    reader = _Reader(data)
    columns, rows = reader.steps(n), reader.steps(o)
    row_classes, column_classes = reader.block(o), reader.block(n)
    if int(row_classes.max()) >= SPAN:
        raise CorruptData("a row's class does not exist")
    decode_levels(
        data[reader.at :], (o, n), row_classes, column_classes, tables, trellis, code_steps(columns), code_steps(rows),
        out, threads,
    )  # fmt: skip


def no_finer_than_float(weights: NDArray[np.float32], scales: Scales) -> NDArray[np.int64]:
    """Column codes, coarser where levels would be more than float32 can count."""
    largest = np.abs(weights / code_steps(scales.rows)[:, None]).max(0)
    codes = scales.columns
    fine = largest > STEEPEST * code_steps(codes)
    if not fine.any():
        return codes
    needed = np.ceil(np.log2(largest[fine] / STEEPEST / code_steps(codes[fine])) * 8).astype(np.int64)
    codes = codes.copy()
    codes[fine] += COARSE * needed
    return codes


def _put_block(out: bytearray, block: NDArray[np.uint8]) -> None:
    coded = encode_bytes(block)
    put_varint(out, coded.size)
    out += coded.tobytes()


class _Reader:
    """Reads what stands in front of the levels."""

    def __init__(self, data: memoryview):
        self.data, self.at = data, 0

    def number(self) -> int:
        value, used = get_varint(bytes(self.data[self.at : self.at + 5]), 0)
        self.at += used
        return value

    def block(self, n: int) -> NDArray[np.uint8]:
        length = self.number()
        if self.at + length > len(self.data):
            raise CorruptData("a matrix is cut off")
        block = decode_bytes(self.data[self.at : self.at + length], n)
        self.at += length
        return block

    def steps(self, n: int) -> NDArray[np.int64]:
        base = self.number() + LEAST
        codes = base + COARSE * self.block(n).astype(np.int64)
        if int(codes.max()) > MOST + COARSE * 256:
            raise CorruptData("a step is out of range")
        return codes
