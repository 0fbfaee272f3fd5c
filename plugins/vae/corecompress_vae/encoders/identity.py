"""The encoder that leaves everything to the quantiser and the prior."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Data, NoOptions, Prior, Progress


class Identity:
    """Latents are the data."""

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any = None):
        self.options = options

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
        """Nothing to learn."""

    def encode(self, x: Any) -> Any:
        """x [n, …] as it is."""
        return x

    def decode(self, latents: Any) -> Any:
        """Latents as they are."""
        return latents

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing to load."""
