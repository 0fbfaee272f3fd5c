"""The prior `acme-spike`: a narrow Laplacian at zero (what was pruned) and a wide one (what was not).

p(z) = share · L(z; 0.1) + (1 − share) · L(z; scale), with L(z; d) the mass of [z − ½, z + ½] under a Laplacian of
standard deviation d. The wide one's scale is the prior's own, times what the context says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.coding import Tables, decode, encode
from corecompress.components import CLASSES, NoOptions, class_deviation

REACH = 127
"""Whole numbers to each side of zero that have an entry of their own in a table; others are escaped."""
NARROW = 0.1
"""Standard deviation of the spike."""
UNLIKELY = 2.0**-40
STEPS = 300


class Spike:
    """Two parameters: the logarithm of the wide scale, and the spike's share (as a logit)."""

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any = None):
        self.options = options
        self.log_scale, self.logit = torch.zeros(()), torch.zeros(())
        self.by_class = False

    def parameters(self) -> list[torch.Tensor]:
        """What an encoder may train together with itself."""
        return [self.log_scale, self.logit]

    def to(self, device: Any) -> None:
        """Move the parameters."""
        self.log_scale, self.logit = self.log_scale.detach().to(device), self.logit.detach().to(device)

    def rate(self, latents: Any, context: Any = None) -> torch.Tensor:
        """Bits of each latent, differentiable, of the same shape."""
        z = torch.as_tensor(latents)
        z = z if z.is_floating_point() else z.float()
        wide = self.log_scale.to(z).exp()
        if context is not None:
            wide = wide * class_deviation(torch.as_tensor(context).to(z))
        share = torch.sigmoid(self.logit.to(z))
        mass = share * _mass(z, torch.tensor(NARROW).to(z)) + (1 - share) * _mass(z, wide)
        return -torch.log2(mass + UNLIKELY)

    def fit(self, symbols: Any, context: Any = None, weights: Any = None) -> None:
        """Maximum likelihood, by Adam on the distinct pairs of symbol and class."""
        z = np.asarray(symbols, np.float64).reshape(-1)
        counts = np.ones(z.size) if weights is None else np.asarray(weights, np.float64).reshape(-1)
        classes = np.zeros(z.size) if context is None else np.asarray(context, np.float64).reshape(-1)
        self.by_class = context is not None
        if not z.size:
            return
        pairs, place = np.unique(np.stack([z, classes]), axis=1, return_inverse=True)
        share = np.bincount(place.reshape(-1), counts)
        share_of = torch.from_numpy(share / share.sum()).float()
        z_of, class_of = torch.from_numpy(pairs[0]).float(), torch.from_numpy(pairs[1]).float()
        start = 0.0 if self.by_class else 0.5 * math.log(max(float(np.average(z**2, weights=counts)), 0.01))
        self.log_scale, self.logit = torch.tensor(start, requires_grad=True), torch.zeros((), requires_grad=True)
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            (share_of * self.rate(z_of, class_of if self.by_class else None)).sum().backward()
            optimizer.step()
        self.to("cpu")

    def freeze(self, precision: int = 12) -> Coder:
        """A table, or one for each scale class."""
        z = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
        rows = [torch.full(z.shape, row) for row in range(CLASSES)] if self.by_class else [None]
        with torch.no_grad():
            counts = [torch.exp2(30 - self.rate(z, row)).round().long().numpy() for row in rows]
        return Coder(Tables.from_counts(counts, [-REACH] * len(counts), precision))

    def sample(self, n: int, seed: int = 0) -> NDArray[np.float64]:
        """n draws, float64 [n]."""
        rng = np.random.default_rng(seed)
        share = 1 / (1 + math.exp(-float(self.logit)))
        deviation = np.where(rng.random(n) < share, NARROW, math.exp(float(self.log_scale)))
        return rng.laplace(size=n) * deviation / math.sqrt(2)


def _mass(z: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Mass of [z − ½, z + ½] under a Laplacian of that standard deviation; in the left tail, where no digits are lost."""
    scale = deviation / math.sqrt(2)
    low, high = (-z.abs() - 0.5) / scale, (-z.abs() + 0.5) / scale
    above = 1 - 0.5 * torch.exp(-high.clamp_min(0))
    return torch.where(high > 0, above, 0.5 * torch.exp(high.clamp_max(0))) - 0.5 * torch.exp(low)


@dataclass(frozen=True)
class Coder:
    """Integer tables of the prior."""

    tables: Tables

    def compress(self, symbols: Any, context: Any = None) -> bytes:
        """Whole numbers [n] -> bytes."""
        return encode(np.asarray(symbols), self.tables, context).tobytes()

    def decompress(self, data: bytes, n: int, context: Any = None) -> NDArray[np.int32]:
        """The n whole numbers, int32 [n]; CorruptData for damaged bytes."""
        return decode(data, n, self.tables, context)

    def bits(self, symbols: Any, context: Any = None) -> float:
        """What `compress` takes, in bits, but for rounding."""
        return self.tables.bits(np.asarray(symbols), context)
