"""Which step every weight gets, and how many bytes that makes.

One constant c rules the whole checkpoint: a weight's step is c · column step · row factor, where these two say how
much the loss feels of it. Equal slope everywhere is the optimum (reverse water-filling); c alone sets the size.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corecompress_vae.layout import Layout
from corecompress_vae.levels import step_codes
from corecompress_vae.matrix import Scales, head, latents
from corecompress_vae.stream import STATE_BYTES, strips_of_chunks, walk
from corecompress_vae.tables import ROWS, SYMBOLS, ClassTables
from corecompress_vae.trellis import Trellis

SAMPLE = 1 << 24
"""Weights that a size is predicted from."""
ENOUGH = 1 << 21
"""Weights up to which the sample is the whole checkpoint."""
CHUNK_BYTES = STATE_BYTES + 5
"""Of a chunk of levels besides its words and escapes: coder states and lengths."""
HIT = 0.002
"""Share by which a size may miss its target."""
NARROW = 0.005
"""Octaves of step between which a size must lie somewhere."""
FEWEST = 32
"""Rows of a matrix in the sample, at least."""
EXPERTS = 8
"""Matrices of a stack in the sample, at least."""


@dataclass(frozen=True)
class Sensitivity:
    """columns float32 [n], rows float32 [o]: step and factor before c (or [1]: for all).

    unit: float32 [n, n] or None; turned: the tensor has its rows and columns the other way round; row_unit: float32
    [⌈o / G⌉, G, G] or None.
    """

    columns: NDArray[np.float32]
    rows: NDArray[np.float32]
    unit: NDArray[np.float32] | None = None
    turned: bool = False
    row_unit: NDArray[np.float32] | None = None

    def of_shape(self, o: int, n: int) -> Sensitivity:
        """This for a matrix [o, n]; where that is only some rows of the tensor (`corecompress plan`), with the mean."""

        def fitting(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
            return values if values.size in (1, size) else np.exp(np.log(values).mean(keepdims=True))

        rows, columns = fitting(self.rows, o), fitting(self.columns, n)
        if rows is self.rows and columns is self.columns:
            return self
        return Sensitivity(columns, rows)

    def scales(self, constant: float, o: int, n: int) -> Scales:
        """The codes for a matrix [o, n]."""
        columns = np.broadcast_to(self.columns * np.float64(constant), n)
        return Scales(step_codes(columns), step_codes(np.broadcast_to(self.rows, o)), self.unit, self.row_unit)


@dataclass(frozen=True)
class Planned:
    """A matrix of the sample: its rows [m, n], how many times more there are like it, and where its steps come from.

    bf16: whether the decoder rounds to bfloat16 right behind the levels; count: the matrices of the tensor that this
    one stands for."""

    name: str
    bf16: bool
    layout: Layout
    count: float
    weights: NDArray[np.float32]
    chosen: NDArray[np.int64]
    times: float
    sensitivity: Callable[[], Sensitivity]


@dataclass(frozen=True)
class Estimate:
    """What a constant would make: bytes of all payloads without tables, and the tables that the levels call for."""

    size: float
    tables: ClassTables


Fit = Callable[[NDArray[np.float64]], ClassTables]
"""Tables for counts float64 [2 · CLASSES, 256] of symbols."""


def choose_matrices(layout: Layout, share: float) -> NDArray[np.int64]:
    """Matrices of the sample, spread evenly, of a tensor of which a share is wanted."""
    wanted = min(layout.count, max(EXPERTS, round(layout.count * layout.rows * share / FEWEST)))
    return np.arange(wanted) * layout.count // wanted


def choose_rows(name: str, layout: Layout, share: float) -> NDArray[np.int64]:
    """Rows of the sample, spread evenly, the beginning drawn from the tensor's name."""
    wanted = min(layout.rows, max(FEWEST, round(layout.rows * share)))
    stride = layout.rows / wanted
    offset = (zlib.crc32(name.encode()) % 1000) / 1000 * stride
    return np.unique(np.minimum((offset + stride * np.arange(wanted)).astype(np.int64), layout.rows - 1))


def estimate(
    sample: list[Planned],
    constant: float,
    tables: ClassTables,
    trellis: Trellis,
    fit: Fit,
    jobs: int,
    by_row: bool = True,
) -> Estimate:
    """Quantise the sample with steps of this constant, and count. by_row: classes a row and column, not one in all."""

    def one(planned: Planned) -> tuple[NDArray[np.float64], float]:
        sensitivity = planned.sensitivity()
        if len(planned.chosen) < planned.layout.rows:  # rows of the sample do not neighbour
            rows = sensitivity.rows[planned.chosen] if sensitivity.rows.size > 1 else sensitivity.rows
            sensitivity = replace(sensitivity, rows=rows, row_unit=None)
        scales = sensitivity.scales(constant, *planned.weights.shape)
        columns, levels, row_classes, column_classes = latents(
            planned.weights, scales, tables, trellis, planned.bf16, by_row
        )
        symbols, index, side = walk(levels, row_classes, column_classes, tables.frequencies, trellis)
        key = index.astype(np.int64) * SYMBOLS + symbols
        counts = np.bincount(key, minlength=ROWS * SYMBOLS).reshape(ROWS, SYMBOLS)
        layout = planned.layout
        front = len(head(columns, scales.rows, row_classes, column_classes))
        longer = (layout.rows + layout.columns) / sum(planned.weights.shape)
        chunks = len(strips_of_chunks(layout.rows, layout.columns))
        extra = planned.times * side.size + planned.count * (front * longer + CHUNK_BYTES * chunks)
        return counts * planned.times, extra

    with ThreadPoolExecutor(jobs) as pool:
        parts = list(pool.map(one, sample))
    counts, extra = np.zeros((ROWS, SYMBOLS)), 0.0
    for part, more in parts:  # in the sample's order, so that sums do not depend on which thread was first
        counts += part
        extra += more
    fitted = fit(counts).only(counts.sum(1) > 0)
    bits = float((counts * fitted.bits.reshape(ROWS, SYMBOLS)).sum())
    return Estimate(bits / 8 + extra, fitted)


def typical_constant(sample: list[Planned]) -> float:
    """A constant to begin a search with: a step is about a quarter of a weight's standard deviation."""
    ratios = []
    for planned in sample:
        steps, width = planned.sensitivity().columns, float(np.sqrt(np.mean(np.square(planned.weights))))
        if width > 0:
            ratios.append(width / float(np.exp(np.log(steps.astype(np.float64)).mean())))
    return 0.25 * float(np.median(ratios)) if ratios else 0.25


def weights_of(sample: list[Planned]) -> float:
    """How many weights a sample stands for."""
    return sum(planned.times * planned.weights.size for planned in sample)


def find_constant(
    size_of: Callable[[float], float], target: float, start: float, weights: float, most: int = 16
) -> float:
    """The constant whose size in bytes is `target`, to HIT; of `weights` weights.

    Steps of the secant of size against log2 c, bracketed, since sizes fall with c; at first a bit a weight and octave,
    which is the slope of high rates and the steepest there is. Sizes may hang on what was tried before.
    """
    tried: list[tuple[float, float]] = []
    log_c = math.log2(start)
    low, high = -math.inf, math.inf  # log2 c where the size is too large, too small
    for _ in range(most):
        size = size_of(2.0**log_c)
        tried.append((log_c, size))
        if abs(size / target - 1) < HIT:
            return 2.0**log_c
        if size > target:
            low = max(low, log_c)
        else:
            high = min(high, log_c)
        stale = high - low < NARROW  # tables have changed since its ends were tried, so they are not its ends
        if stale:
            low, high = -math.inf, math.inf
        log_c = _next(tried[-1:] if stale else tried, target, low, high, weights / 8)
    best, _ = min(tried, key=lambda pair: abs(pair[1] / target - 1))
    return float(2.0**best)


def _next(tried: list[tuple[float, float]], target: float, low: float, high: float, steepest: float) -> float:
    (log_c, size), slope = tried[-1], -steepest
    if len(tried) > 1 and tried[-2][0] != log_c:
        secant = (size - tried[-2][1]) / (log_c - tried[-2][0])
        slope = min(-0.02 * steepest, max(-1.5 * steepest, secant))
    wanted = log_c + max(-4.0, min(4.0, (target - size) / slope))
    if not low < wanted < high and math.isfinite(low) and math.isfinite(high):
        wanted = (low + high) / 2
    return wanted
