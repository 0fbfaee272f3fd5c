"""Matrices as chunks of values of variance one: what learned encoders see.

A chunk is `size` neighbours of one row (the last of a row filled up with zeros), divided by the row's and the column's
scale; both are 8-bit log codes of the scale hyper-prior.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corecompress_vae.classes import deviations
from corecompress_vae.encoders.scale_hyperprior import OCTAVE, ZERO, code_scales


def fit_codes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows uint8 [o], columns uint8 [n]): codes whose scales' product fits the matrix [o, n] best."""
    rows, columns = deviations(np.ascontiguousarray(matrix.T), np.float64(0))
    codes = [np.clip(np.rint(OCTAVE * logs) + ZERO, 0, 255).astype(np.uint8) for logs in (rows, columns)]
    return codes[0], codes[1]


def to_chunks(
    matrix: NDArray[np.float32], rows: NDArray[np.uint8], columns: NDArray[np.uint8], size: int
) -> NDArray[np.float32]:
    """Chunks float32 [o · ⌈n / size⌉, size] of a matrix [o, n] under these codes."""
    o, n = matrix.shape
    wide = -(-n // size) * size
    scaled = np.zeros((o, wide), np.float32)
    scaled[:, :n] = matrix / code_scales(rows)[:, None] / code_scales(columns)
    return scaled.reshape(-1, size)


def from_chunks(
    chunks: NDArray[np.float32], rows: NDArray[np.uint8], columns: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The matrix [o, n] of its chunks."""
    scaled = chunks.reshape(rows.size, -1)[:, : columns.size]
    return scaled * code_scales(rows)[:, None] * code_scales(columns)
