"""A seeded randomised Hadamard rotation of a matrix's columns, for any number of them.

x ─► signs · Walsh-Hadamard over the first 2^k entries ─► signs · the same over the last 2^k, with 2^k the largest power
of two that fits. Both windows are orthogonal maps and together they touch every entry, so the whole is a rotation, and
one outlier spreads over all. Sources: A. Tseng et al., "QuIP#", arXiv:2402.04396, section 3 (incoherence by a
randomised Hadamard transform); N. Ailon, B. Chazelle, STOC 2006 (the fast transform with random signs).
"""

from __future__ import annotations

import zlib

import numpy as np
from numba import njit
from numpy.typing import NDArray


def rotate(rows: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Rows float32 [o, n] turned by the rotation that belongs to a tensor of that name: a new array."""
    out = np.array(rows, np.float32, order="C")
    for start, signs in _windows(out.shape[1], name):
        part = out[:, start : start + signs.size]
        part *= signs
        _transform(part)
    return out


def rotate_back(rows: NDArray[np.float32], name: str) -> None:
    """Undo `rotate`, in place."""
    for start, signs in reversed(_windows(rows.shape[1], name)):
        part = rows[:, start : start + signs.size]
        _transform(part)
        part *= signs


def rotate_factor(unit: NDArray[np.float32], steps: NDArray[np.float32], name: str) -> tuple[NDArray[np.float32], ...]:
    """(unit, steps) of the rotated matrix: H⁻¹ = Uᵀ U becomes (U Rᵀ)ᵀ (U Rᵀ), whose factor is that of a QR."""
    import torch

    from corecompress_vae.turns import one_thread

    turned = torch.from_numpy(rotate(unit * steps[:, None], name)).double()
    with one_thread():  # numpy's has as many threads as its library likes, and sums that depend on that
        upper = torch.linalg.qr(turned, mode="r").R.numpy()
    upper *= np.sign(np.diag(upper))[:, None]
    diagonal = np.diag(upper)
    return (upper / diagonal[:, None]).astype(np.float32), diagonal.astype(np.float32)


def _windows(n: int, name: str) -> list[tuple[int, NDArray[np.float32]]]:
    """(first entry, signs float32 [2^k]) of each transform. RandomState, since its numbers never change."""
    power = 1 << (n.bit_length() - 1)
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    starts = [0] if power == n else [0, n - power]
    return [(start, (1 - 2 * draw.randint(0, 2, power)).astype(np.float32)) for start in starts]


@njit(cache=True, nogil=True)
def _transform(rows):  # type: ignore[no-untyped-def]
    """Orthonormal Walsh-Hadamard transform of every row, float32 [o, 2^k], in place."""
    n = rows.shape[1]
    scale = np.float32(1 / np.sqrt(n))
    for i in range(rows.shape[0]):
        row, half = rows[i], 1
        while half < n:
            for start in range(0, n, 2 * half):
                for j in range(start, start + half):
                    a, b = row[j], row[j + half]
                    row[j], row[j + half] = a + b, a - b
            half *= 2
        for j in range(n):
            row[j] *= scale
