"""Class tables from a prior component: any prior whose `rate` takes scale classes as context will do.

Level 2k + z of a class of deviation σ is the latent k + z/2 of deviation σ/2 under unit intervals, so that one prior
serves both quantisers of the trellis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.rans import SLOTS
from corecompress_vae.classes import CLASSES, OCTAVE
from corecompress_vae.tables import ROWS, SYMBOLS, ClassTables
from corecompress_vae.trellis import ESCAPE, REACH, SHIFT

SYMBOL = np.arange(-REACH, REACH + 1)
LATENTS = (SYMBOL[None, :] + 0.5 * np.array([[0], [1]])).astype(np.float64)
"""[2, 255]: latent of each quantiser's symbols."""


class ClassPrior:
    """A prior, and the tables that it gives."""

    def __init__(self, prior: Any):
        self.prior = prior

    def first(self) -> ClassTables:
        """Tables before anything was seen."""
        return ClassTables.from_shares(self._shares())

    def fit(self, counts: NDArray[np.float64]) -> ClassTables:
        """Tables for counts float64 [2 · CLASSES, 256]; escapes tell the prior nothing."""
        seen = counts.reshape(CLASSES, 2, SYMBOLS)[:, :, SHIFT - REACH :]
        number, z, k = np.nonzero(seen)
        if number.size:
            self.prior.fit(LATENTS[z, k], number - OCTAVE, seen[number, z, k])
        tables = ClassTables.from_shares(self._shares())
        if getattr(self.prior, "counted", False):
            return tables.refine(counts)
        return tables

    def spread(self, tables: ClassTables) -> ClassTables:
        """Tables with the prior's shape as a little evidence for what they have no slot for."""
        shape = ClassTables.from_shares(self._shares())
        seen = tables.frequencies[:, ESCAPE] < SLOTS  # a table that is nothing but the escape tells nothing
        return shape.refine(tables.frequencies * np.int64(16) * seen[:, None])

    def _shares(self) -> NDArray[np.float64]:
        import torch

        context = np.repeat(np.arange(CLASSES) - OCTAVE, LATENTS.size)
        with torch.no_grad():
            rate = self.prior.rate(torch.from_numpy(np.tile(LATENTS.reshape(-1), CLASSES)), torch.from_numpy(context))
        shares = np.zeros((ROWS, SYMBOLS))
        shares[:, SHIFT - REACH :] = np.exp2(-np.asarray(rate, np.float64)).reshape(ROWS, -1)
        shares[:, ESCAPE] = np.maximum(1 - shares.sum(1), 1e-5)
        return shares
