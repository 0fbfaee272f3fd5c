"""The encoder whose hyper-latents are scales: an 8-bit log code for every row, one for every column.

Latents [n, 1 + m]: the row's code, then its values divided by both scales. A column's codes are learned by `fit`.
In the compressor `vae` the same idea works on whole matrices: classes.py.
Source: J. Ballé et al., arXiv:1802.01436 (scale hyper-prior); the synthesis here is a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Data, NoOptions, Prior, Progress
from corecompress.errors import CorecompressError

OCTAVE = 8
"""Codes an octave."""
ZERO = 192
"""The code of scale one; codes 0 … 255 are scales 2^−24 … 2^7.9."""


def scale_codes(deviations: NDArray[np.floating]) -> NDArray[np.float32]:
    """Codes 0 … 255 of positive deviations [n]; those of nothing at all get the smallest."""
    logs = np.log2(np.maximum(deviations, 2.0**-40))
    return np.clip(np.rint(OCTAVE * logs) + ZERO, 0, 255).astype(np.float32)


def code_scales(codes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales that codes [n] stand for."""
    return np.exp2((np.clip(np.rint(codes), 0, 255) - ZERO) / OCTAVE).astype(np.float32)


class ScaleHyperprior:
    """Divide by scales, multiply by scales."""

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any = None):
        self.options = options
        self.columns = np.full(1, ZERO, np.float32)

    def fit(
        self,
        data: Data,
        prior: Prior,
        *,
        seed: int = 0,
        target_loss: float | None = None,
        progress: Progress,
        scratch: Path | None = None,
        seconds: float | None = None,
    ) -> None:
        """Columns' scales from the training split, in one pass: there is nothing that more steps would improve."""
        total: NDArray[np.float64] | None = None
        count = 0
        for batch in data.batches(seed, "training"):
            if "x" not in batch:
                raise CorecompressError(f"--data: gives {', '.join(batch)}; this encoder learns from weights:DIR")
            x = np.asarray(batch["x"], np.float64)
            x = x / code_scales(scale_codes(x.std(1)))[:, None]
            total = (x * x).sum(0) if total is None else total + (x * x).sum(0)
            count += len(x)
        if total is not None:
            self.columns = scale_codes(np.sqrt(total / count))

    def encode(self, x: Any) -> NDArray[np.float32]:
        """x [n, m] -> latents float32 [n, 1 + m]."""
        x = np.asarray(x, np.float32)
        codes = scale_codes(np.sqrt(np.mean(np.square(x, dtype=np.float64), 1)))
        scaled = x / code_scales(codes)[:, None] / code_scales(self.columns)
        return np.concatenate([codes[:, None], scaled], 1).astype(np.float32)

    def decode(self, latents: Any) -> NDArray[np.float32]:
        """latents [n, 1 + m] -> x float32 [n, m]."""
        latents = np.asarray(latents, np.float32)
        return latents[:, 1:] * code_scales(latents[:, 0])[:, None] * code_scales(self.columns)

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """The columns' codes."""
        return {"columns": self.columns}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the encoder that gave `state`."""
        self.columns = np.array(state["columns"], np.float32)
