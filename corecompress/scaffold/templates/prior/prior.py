"""The prior `$distribution`: a logistic distribution, seen through intervals of length one.

p(z) = F((z + 1/2) / s) - F((z - 1/2) / s) with F the logistic function. The scale s is the prior's own, times what the
context says (corecompress.components.class_deviation) where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from corecompress import option
from corecompress.coding import Tables, decode, encode
from corecompress.components import CLASSES, class_deviation

UNLIKELY = 2.0**-40
"""Added to every probability, so that the rate of what never happens is forty bits and not infinite."""


@dataclass(frozen=True)
class Options:
    """Options of `$distribution`."""

    reach: int = option(100, "whole numbers to each side of zero that get an entry of their own; others are escaped")

    def __post_init__(self) -> None:
        if not 1 <= self.reach <= 127:
            raise ValueError(f"reach is {self.reach}; it takes 1 to 127")


class Logistic:
    """One parameter: the logarithm of the standard deviation."""

    Options = Options

    def __init__(self, options):
        self.options = options
        self.log_scale = torch.zeros(())
        self.by_class = False

    def parameters(self):
        """What an encoder may train together with itself."""
        return [self.log_scale]

    def to(self, device):
        """Move the parameter."""
        self.log_scale = self.log_scale.detach().to(device)

    def rate(self, latents, context=None):
        """Bits of each latent, differentiable, of the same shape."""
        z = torch.as_tensor(latents)
        z = z if z.is_floating_point() else z.float()
        deviation = self.log_scale.to(z).exp()
        if context is not None:
            deviation = deviation * class_deviation(torch.as_tensor(context).to(z))
        scale = deviation * math.sqrt(3) / math.pi
        below = -z.abs()  # in the left tail, where no digits are lost
        mass = torch.sigmoid((below + 0.5) / scale) - torch.sigmoid((below - 0.5) / scale)
        return -torch.log2(mass.clamp_min(0) + UNLIKELY)

    def fit(self, symbols, context=None, weights=None):
        """The scale of maximum likelihood, by golden-section search: the likelihood has one peak."""
        z, counts = np.asarray(symbols, np.float64).reshape(-1), np.ones(np.size(symbols))
        counts = counts if weights is None else np.asarray(weights, np.float64).reshape(-1)
        classes = np.zeros(z.size) if context is None else np.asarray(context, np.float64).reshape(-1)
        self.by_class = context is not None
        if not z.size:
            return
        pairs, place = np.unique(np.stack([z, classes]), axis=1, return_inverse=True)
        counts = torch.from_numpy(np.bincount(place.reshape(-1), counts))
        z, classes = torch.from_numpy(pairs[0]), torch.from_numpy(pairs[1]) if self.by_class else None

        def cost(log_scale):
            self.log_scale = torch.tensor(log_scale, dtype=torch.float64)
            return float((counts * self.rate(z, classes)).sum())

        low, high, golden = -4.0, 6.0, (math.sqrt(5) - 1) / 2
        while high - low > 1e-4:
            left, right = high - golden * (high - low), low + golden * (high - low)
            low, high = (low, right) if cost(left) < cost(right) else (left, high)
        self.log_scale = torch.tensor((low + high) / 2, dtype=torch.float32)

    def freeze(self, precision=12):
        """A table, or one for each scale class."""
        reach = self.options.reach
        z = torch.arange(-reach, reach + 1, dtype=torch.float64)
        rows = [torch.full(z.shape, row) for row in range(CLASSES)] if self.by_class else [None]
        with torch.no_grad():
            counts = [torch.exp2(30 - self.rate(z, row)).round().long().numpy() for row in rows]
        return Coder(Tables.from_counts(counts, [-reach] * len(counts), precision))

    def sample(self, n, seed=0):
        """n draws, float32 [n], by the inverse of the cumulative distribution."""
        uniform = np.random.default_rng(seed).uniform(1e-12, 1 - 1e-12, n)
        scale = math.exp(float(self.log_scale)) * math.sqrt(3) / math.pi
        return (scale * np.log(uniform / (1 - uniform))).astype(np.float32)


@dataclass(frozen=True)
class Coder:
    """Integer tables: nothing here depends on a machine's arithmetic."""

    tables: Tables

    def compress(self, symbols, context=None):
        """Whole numbers [n] -> bytes."""
        return encode(np.asarray(symbols), self.tables, context).tobytes()

    def decompress(self, data, n, context=None):
        """The n whole numbers, int32 [n]; CorruptData for damaged bytes."""
        return decode(data, n, self.tables, context)

    def bits(self, symbols, context=None):
        """What `compress` takes, in bits, but for rounding."""
        return self.tables.bits(np.asarray(symbols), context)
