"""What all priors of scalars share: a shape of variance one, stretched to a scale, seen through unit intervals.

A latent z is a value plus uniform noise, or a whole number; either way p(z) is the mass of [z − ½, z + ½] (J. Ballé et
al., arXiv:1802.01436, section 3). Context is the scale class of each latent: whole numbers 0 … CLASSES − 1, a quarter
of an octave of standard deviation each (classes.py). Without context the scale is the prior's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.coding import Tables
from corecompress.components import NoOptions
from corecompress_vae.classes import CLASSES, OCTAVE, ZERO
from corecompress_vae.priors.coder import TableCoder

REACH = 127
"""Symbols that a table may have to each side; others are escaped."""
UNLIKELY = 2.0**-40
"""Added to every mass, so that the rate of what never happens is forty bits and not infinite."""
FITTING, PATIENCE = 300, 20
"""Steps of Adam that fit a shape to counts at most, and of those without a lower rate that end it."""


class ShapePrior:
    """Base of the priors. A family says `_cdf` (or `_mass`, where it is not symmetric)."""

    Options: ClassVar[type[Any]] = NoOptions
    counted: ClassVar[bool] = False
    """Whether what was counted in `fit` goes into the tables besides the shape."""

    def __init__(self, options: Any = None):
        self.options = options if options is not None else self.Options()
        self.log_scale = torch.zeros(())
        self.by_class = False
        self.shape: dict[str, torch.Tensor] = self._start()

    def _start(self) -> dict[str, torch.Tensor]:
        """Parameters of the shape besides its scale, by name."""
        return {}

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        """Cumulative distribution of variance one, symmetric about 0."""
        raise NotImplementedError

    def _mass(self, x: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """Mass of [x − half, x + half]. Taken in the left tail, where no digits are lost."""
        x = -x.abs()
        return self._cdf(x + half) - self._cdf(x - half)

    def _deviation(self, context: Any) -> torch.Tensor:
        if context is None:
            return self.log_scale.exp()
        classes = torch.as_tensor(np.asarray(context) if not torch.is_tensor(context) else context)
        return torch.exp2((classes.to(self.log_scale) - ZERO) / OCTAVE) * self.log_scale.exp()

    def rate(self, latents: Any, context: Any = None) -> torch.Tensor:
        """Differentiable −log2 p of latents [n, …], noisy or whole, in bits each; context int [n, …]: scale classes."""
        latents = torch.as_tensor(latents)
        latents = latents if latents.is_floating_point() else latents.float()
        deviation = self._deviation(context).to(latents)
        return -torch.log2(self._mass(latents / deviation, 0.5 / deviation).clamp_min(0) + UNLIKELY)

    def parameters(self) -> list[torch.Tensor]:
        """What training may change: the scale and the shape."""
        return [self.log_scale, *self.shape.values()]

    def to(self, device: Any) -> None:
        """Move the parameters."""
        self.log_scale = self.log_scale.detach().to(device)
        self.shape = {name: value.detach().to(device) for name, value in self.shape.items()}

    def fit(self, symbols: Any, context: Any = None, weights: Any = None) -> None:
        """Maximum likelihood for latents [n] (whole, or whole and a half) that count `weights` [n] times each.

        Those beyond REACH, which every table escapes, tell nothing; where there are no others the scale is theirs.
        """
        latents, classes, counts = _histogram(symbols, context, weights)
        self.by_class = context is not None
        if not counts.size:
            return
        if context is None:
            second = float((counts * np.minimum(latents**2, 4 * REACH**2)).sum() / counts.sum())
            self.log_scale = torch.tensor(0.5 * np.log(max(second, 1e-2)), dtype=torch.float32)
        near = np.abs(latents) <= REACH
        if not near.any():
            return
        latents, classes, counts = latents[near], None if classes is None else classes[near], counts[near]
        z, w = torch.from_numpy(latents).float(), torch.from_numpy(counts / counts.sum()).float()
        self._descend(z, None if classes is None else torch.from_numpy(classes), w)

    def _descend(self, z: torch.Tensor, classes: torch.Tensor | None, weights: torch.Tensor) -> None:
        """To the lowest mean rate that is found on the way."""
        trained = [value.requires_grad_(True) for value in self.parameters()]
        optimizer = torch.optim.Adam(trained, lr=0.03)
        least, since, best = math.inf, 0, [value.detach() for value in trained]
        for _ in range(FITTING):
            optimizer.zero_grad()
            rate = (weights * self.rate(z, classes)).sum()
            since += 1
            if rate.item() < least:
                least, since, best = rate.item(), 0, [value.detach().clone() for value in trained]
            if since == PATIENCE:
                break
            rate.backward()
            optimizer.step()
        self.log_scale, *shape = best
        self.shape = dict(zip(self.shape, shape, strict=True))

    def freeze(self, precision: int = 12) -> TableCoder:
        """Tables of 2**precision for each scale class, or the one without context. Only precision 12."""
        with torch.no_grad():
            reach = np.arange(-REACH, REACH + 1)
            rows = range(CLASSES) if self.by_class else [None]
            counts = [self._counts(torch.from_numpy(reach).float(), row) for row in rows]
        return TableCoder(Tables.from_counts(counts, [-REACH] * len(counts), precision))

    def _counts(self, z: torch.Tensor, row: int | None) -> NDArray[np.int64]:
        rate = self.rate(z, None if row is None else torch.full(z.shape, row))
        return np.asarray(torch.exp2(30 - rate.double()).round().numpy(), np.int64)

    def sample(self, n: int, seed: int = 0, context: Any = None) -> NDArray[np.float32]:
        """n draws, float32 [n]: the inverse of the cumulative distribution, by bisection."""
        uniform = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        low, high = torch.full((n,), -64.0, dtype=torch.float64), torch.full((n,), 64.0, dtype=torch.float64)
        with torch.no_grad():
            for _ in range(50):
                middle = (low + high) / 2
                below = self._cdf(middle) < uniform
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            return np.asarray(((low + high) / 2 * self._deviation(context)).float().numpy())

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """Scale and shape as arrays."""
        return {
            "log_scale": self.log_scale.detach().cpu().numpy(),
            "by_class": np.array(self.by_class),
            **{f"shape.{name}": value.detach().cpu().numpy() for name, value in self.shape.items()},
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the prior that gave `state`."""
        self.log_scale = torch.from_numpy(np.array(state["log_scale"], np.float32))
        self.by_class = bool(state["by_class"])
        self.shape = {name: torch.from_numpy(np.array(state[f"shape.{name}"])) for name in self.shape}


def _histogram(
    symbols: Any, context: Any, weights: Any
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None, NDArray[np.float64]]:
    """(latents [m], classes [m] or None, counts [m]), each pair of latent and class once."""
    latents = np.asarray(symbols, np.float64).reshape(-1)
    counts = np.ones(latents.size) if weights is None else np.asarray(weights, np.float64).reshape(-1)
    if context is None:
        values, inverse = np.unique(latents, return_inverse=True)
        return values, None, np.bincount(inverse, counts, values.size)
    classes = np.asarray(context, np.int64).reshape(-1)
    pairs, inverse = np.unique(np.stack([classes.astype(np.float64), latents]), axis=1, return_inverse=True)
    return pairs[1], pairs[0].astype(np.int64), np.bincount(inverse.reshape(-1), counts, pairs.shape[1])
