"""Levels and steps: w = level · column step · row factor, all from whole numbers, the same on every machine.

A step is 2^(code / 64). The fractions of an octave are rounded to float32 once; no double comes so near to a float32
rounding boundary that a machine's last bit could matter (tested against exact arithmetic).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

STEPS = 64
"""Codes an octave of steps and row factors."""
COARSE = 8
"""Columns of one matrix, and its rows, differ by multiples of so many codes: an eighth of an octave."""
ROOTS = np.array([2.0 ** (k / STEPS) for k in range(STEPS)], np.float32)
LEAST, MOST = -STEPS * 60, STEPS * 60
"""Codes stay where float32 has normal numbers."""


def step_codes(steps: NDArray[np.floating]) -> NDArray[np.int64]:
    """Codes of positive steps [n]: the smallest to the nearest 64th of an octave, the rest whole eighths above it.

    Steps more than 255 eighths above the smallest are taken down to that.
    """
    logs = STEPS * np.log2(np.clip(steps.astype(np.float64), 2.0**-60, 2.0**60))
    base = np.rint(logs.min())
    above = np.clip(np.rint((logs - base) / COARSE), 0, 255)
    return np.asarray(base + COARSE * above, np.int64)


def code_steps(codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 [n], the steps that codes [n] stand for."""
    return np.ldexp(ROOTS[codes & (STEPS - 1)], (codes >> 6).astype(np.int32)).astype(np.float32)


@njit(inline="always")
def to_bf16(value):  # type: ignore[no-untyped-def]
    """A float32's bits, rounded to the nearest bfloat16 (ties to even), as uint16."""
    return np.uint16((value + np.uint32(0x7FFF) + ((value >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
