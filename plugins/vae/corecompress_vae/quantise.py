"""Quantising a matrix: column by column, down its rows, with the error fed into the columns that follow.

    for each column j:   levels = trellis(column / step_j)      (viterbi, rate-aware; errors fed into rows of the group)
                         error = column − what the decoder will have, rounded to the tensor's dtype
                         later columns −= error · U_j,later / U_jj

The trellis's axis (rows) and the feedback's axis (columns) cross, so neither spoils the other. Without calibration U
is the identity, and the columns do not know of each other. Where the loss feels rows together (an attention head's
queries), errors are fed within a column as well, from a row into those behind it in its group; the trellis then has a
target of its own for every survivor.

Source of the feedback: E. Frantar et al., "GPTQ", arXiv:2210.17323; J. Chee et al., "QuIP", arXiv:2307.13304 (LDLQ);
of that on both sides of a matrix: A. Tseng et al., "YAQA", arXiv:2505.22988.
Everything is in one fixed order: the same bytes whatever the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from corecompress_vae.classes import CLASSES, OCTAVE, ZERO, cheapest, fit_rows
from corecompress_vae.levels import code_steps, to_bf16
from corecompress_vae.trellis import Trellis, nearest, viterbi, viterbi_fed

BLOCK = 64
"""Columns whose feedback reaches the rest of the matrix in one go."""
SLOPE, SCALAR_SLOPE = 0.3, 0.45
"""Squared error that a bit is worth, in units of the step squared, with and without a trellis: near the optimum from 1
to 4 bits."""


def quantise(
    weights: NDArray[np.float32],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    unit: NDArray[np.float32] | None,
    bits: NDArray[np.float32],
    trellis: Trellis,
    bf16: bool,
    by_row: bool = True,
    row_unit: NDArray[np.float32] | None = None,
) -> NDArray[np.int32]:
    """Levels int32 [n, o] (a column after the other) of weights float32 [o, n].

    columns int64 [n], rows int64 [o]: codes of column steps and row factors; unit float32 [n, n]: upper triangular
    with unit diagonal, the feedback, or None; bits float32 [classes, 2, 256]: prices; bf16: the tensor's own
    dtype rounds what the decoder gives, and the feedback shall know. by_row: prices are those of a weight's row and
    column; else those of the one class that the whole matrix will be coded under. row_unit: float32 [⌈o / G⌉, G, G],
    the same as unit for each group of G rows, or None.
    """
    o, n = weights.shape
    factor, steps = code_steps(rows), code_steps(columns)
    turned = np.ascontiguousarray(weights.T / factor)
    levels, errors = np.empty((n, o), np.int32), np.empty((min(BLOCK, n), o), np.float32)
    rough = fit_rows(turned)
    whole = -1 if by_row else cheapest(np.rint(turned / steps[:, None]).astype(np.int32), bits)
    inverse = np.exp2(-rough / OCTAVE)
    slope = np.float32(SLOPE if trellis.states > 1 else SCALAR_SLOPE)
    mix = np.zeros((0, 0), np.float32) if row_unit is None else _mix(row_unit, factor)
    kernel = _kernel(*trellis.wiring)
    for begin in range(0, n, BLOCK):
        end = min(begin + BLOCK, n)
        near = np.zeros((0, 0), np.float32) if unit is None else np.ascontiguousarray(unit[begin:end, begin:end])
        kernel(
            turned[begin:end], steps[begin:end], factor, rough, inverse, near, mix, bits, trellis.states,
            levels[begin:end], errors, bf16, slope, whole,
        )  # fmt: skip
        if unit is not None and end < n:
            _feed(turned[end:], errors[: end - begin], np.ascontiguousarray(unit[begin:end, end:]))
    return levels


def _mix(unit: NDArray[np.float32], factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """[o, G]: what an error of row t, in units of its factor, makes in every row of its group, in units of theirs."""
    groups, size, _ = unit.shape
    padded = np.ones(groups * size, np.float32)
    padded[: factor.size] = factor
    each = padded.reshape(groups, size)
    mix = np.triu(unit * (each[:, :, None] / each[:, None, :]), 1)
    return np.ascontiguousarray(mix.reshape(-1, size)[: factor.size])


@lru_cache
def _kernel(half: int, swap0: int, swap1: int) -> Any:
    """The kernel of one trellis, which is constants of it, so that loops over states become vector instructions."""

    @njit(cache=True, nogil=True)
    def columns(  # type: ignore[no-untyped-def]
        turned, steps, factor, rough, inverse, near, mix, bits, states, levels, errors, bf16, slope, whole
    ):
        """Quantise columns turned float32 [b, o]; fills levels int32 [b, o] and errors float32 [≥ b, o]. mix: float32
        [o, G], or [0, 0] for rows that do not know of each other; whole: the class of all prices, or −1 for that of
        row and column."""
        count, o = turned.shape
        fed = mix.size > 0
        dec, cand = np.empty((o, states), np.uint8), np.empty((o, max(states, 4) if fed else 4), np.int32)
        due = np.empty((2, states, mix.shape[1]), np.float32)
        cost, fresh = np.empty(states, np.float32), np.empty(states, np.float32)
        scaled, classes = np.empty(o, np.float32), np.empty(o, np.int32)
        one = np.empty(1, np.float32)
        as_bits = one.view(np.uint32)
        for j in range(count):
            step = steps[j]
            power = 0.0
            for i in range(o):
                scaled[i] = turned[j, i] / step
                part = np.float64(scaled[i]) * inverse[i]
                power += part * part
            mine = np.int64(np.rint(0.5 * OCTAVE * np.log2(power / o + 1e-12))) + ZERO
            for i in range(o):
                classes[i] = whole if whole >= 0 else min(max(mine + rough[i], 0), CLASSES - 1)
            if half > 0 and fed:
                viterbi_fed(
                    scaled, classes, bits, slope, half, swap0, swap1, mix, dec, cand, cost, fresh, due, levels[j]
                )
            elif half > 0:
                viterbi(scaled, classes, bits, slope, half, swap0, swap1, dec, cand, cost, fresh, levels[j])
            else:
                nearest(scaled, classes, bits, slope, mix, levels[j])
            for i in range(o):
                value = np.float32(levels[j, i]) * step
                if bf16:
                    one[0] = value * factor[i]
                    as_bits[0] = np.uint32(to_bf16(as_bits[0])) << np.uint32(16)
                    value = one[0] / factor[i]
                errors[j, i] = turned[j, i] - value
            if near.size:
                for later in range(j + 1, count):
                    u = near[j, later]
                    for i in range(o):
                        turned[later, i] -= errors[j, i] * u

    return columns


@njit(cache=True, nogil=True)
def _feed(rest, errors, unit):  # type: ignore[no-untyped-def]
    """rest float32 [m, r] −= unitᵀ [m, b] · errors [b, r]; four columns at a time, always in the same order."""
    b, o = errors.shape
    whole = b - b % 4
    for later in range(rest.shape[0]):
        row = rest[later]
        for j in range(0, whole, 4):
            a0, a1, a2, a3 = unit[j, later], unit[j + 1, later], unit[j + 2, later], unit[j + 3, later]
            e0, e1, e2, e3 = errors[j], errors[j + 1], errors[j + 2], errors[j + 3]
            for i in range(o):
                row[i] -= (a0 * e0[i] + a1 * e1[i]) + (a2 * e2[i] + a3 * e3[i])
        for j in range(whole, b):
            a0, e0 = unit[j, later], errors[j]
            for i in range(o):
                row[i] -= a0 * e0[i]
