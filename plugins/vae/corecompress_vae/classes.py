"""Scale classes: the hyper-latents that say how wide the levels of each row and each column are.

The class of weight (i, j) is rows[i] + columns[j] − SPAN, within 0 … CLASSES − 1; a class is a quarter of an octave of
the levels' standard deviation. Tables are chosen by class and quantiser: integers that the decoder has before it
reads the first level. This is a scale hyper-prior (J. Ballé et al., arXiv:1802.01436) whose synthesis is a sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from corecompress_vae.trellis import ESCAPE, REACH, SHIFT

OCTAVE = 4
"""Classes an octave of standard deviation."""
ZERO = 12
"""The class of standard deviation one."""
CLASSES = 44
"""From 2^−3 to 2^7.75 steps."""
SPAN = 128
"""Row codes are 0 … 127, column codes 0 … 255."""
FLOOR = 0.02
"""Added to squared levels, so that rows and columns of zeros have a class."""


def class_deviation(number: int) -> float:
    """Standard deviation of the levels of a class, in steps."""
    return float(2.0 ** ((number - ZERO) / OCTAVE))


def fit_rows(turned: NDArray[np.float32]) -> NDArray[np.int64]:
    """Relative width codes int64 [o] of the rows of turned float32 [n, o], mean about 0."""
    rows, _ = deviations(turned, np.float64(0))
    return np.clip(np.rint(OCTAVE * rows), -SPAN // 2, SPAN // 2 - 1).astype(np.int64)


def fit_classes(levels: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows uint8 [o], columns uint8 [n]) for levels int32 [n, o]."""
    row_logs, column_logs = deviations(levels, np.float64(FLOOR))
    rows = np.rint(OCTAVE * row_logs).astype(np.int64)
    low = int(rows.min())
    rows = np.clip(rows - low, 0, SPAN - 1)
    columns = np.clip(np.rint(OCTAVE * column_logs).astype(np.int64) + ZERO + low + SPAN, 0, 255)
    return rows.astype(np.uint8), columns.astype(np.uint8)


def one_class(levels: NDArray[np.int32], bits: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows uint8 [o], columns uint8 [n]) that give all levels int32 [n, o] the class that codes them in fewest bits.

    bits: float32 [CLASSES, 2, 256], what symbols cost (ClassTables.bits).
    """
    return np.zeros(levels.shape[1], np.uint8), np.full(levels.shape[0], cheapest(levels, bits) + SPAN, np.uint8)


def cheapest(levels: NDArray[np.int32], bits: NDArray[np.float32]) -> int:
    """The class whose tables code all of these levels in the fewest bits."""
    k = levels >> 1
    slots = np.where(np.abs(k) <= REACH, k + SHIFT, ESCAPE)
    counts = np.bincount((2 * SHIFT * (levels & 1) + slots).reshape(-1), minlength=4 * SHIFT)
    return int(np.argmin(bits.reshape(CLASSES, -1) @ counts.astype(np.float64)))


def deviations(values: NDArray[np.generic], floor: np.float64) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows [o], columns [n]): log2 of the standard deviations whose product fits values [n, o] best, rows' mean 0."""
    rows, columns = np.ones(values.shape[1]), np.ones(values.shape[0])
    for _ in range(3):
        _alternate(values, floor, rows, columns)
    with np.errstate(divide="ignore"):
        row_logs = np.maximum(0.5 * np.log2(rows), -16.0)
        column_logs = np.maximum(0.5 * np.log2(columns), -40.0)
    mean = float(row_logs.mean())
    return row_logs - mean, column_logs + mean


@njit(cache=True, nogil=True)
def _alternate(values, floor, rows, columns):  # type: ignore[no-untyped-def]
    """One round: variances of the columns given those of the rows, then the other way round."""
    n, o = values.shape
    fresh = np.zeros(o)
    weight = np.empty(o)
    for i in range(o):
        weight[i] = 1 / (rows[i] * o) if rows[i] > 0 else 0.0
    for j in range(n):
        total = 0.0
        for i in range(o):
            v = np.float64(values[j, i])
            total += (v * v + floor) * weight[i]
        columns[j] = total
        if total > 0:
            share = 1 / (total * n)
            for i in range(o):
                v = np.float64(values[j, i])
                fresh[i] += (v * v + floor) * share
    for i in range(o):
        rows[i] = fresh[i]
