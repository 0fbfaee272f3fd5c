"""Priors: what is expected of the levels of a scale class. Public `Prior` components, and shapes for class tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from corecompress_vae.classes import CLASSES, class_deviation
from corecompress_vae.tables import ROWS, SYMBOLS, ClassTables
from corecompress_vae.trellis import ESCAPE, REACH, SHIFT

Cdf = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def gaussian(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative distribution of N(0, 1)."""
    return np.asarray(0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2)))


def laplace(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative distribution of the Laplacian of variance one."""
    tail = 0.5 * np.exp(-math.sqrt(2) * np.abs(x))
    return np.where(x < 0, tail, 1 - tail)


def class_tables(cdf: Cdf) -> ClassTables:
    """Tables of all classes for a distribution of variance one, scaled to each class.

    Symbol k of quantiser z stands for the level 2k + z and takes the mass from 2k + z − 1 to 2k + z + 1.
    """
    shares = np.zeros((ROWS, SYMBOLS))
    for number in range(CLASSES):
        for z in (0, 1):
            edges = (2 * np.arange(-REACH, REACH + 2) + z - 1) / class_deviation(number)
            mass = np.diff(cdf(edges))
            row = shares[2 * number + z]
            row[SHIFT - REACH :] = np.maximum(mass, 0)
            row[ESCAPE] = max(1 - mass.sum(), 1e-5)
    return ClassTables.from_shares(shares)
