"""Families of shapes: Gaussian, Laplacian, mixture of logistics, and the product of two Gaussians ("hadamard")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch

from corecompress.components import option
from corecompress_vae.priors.shape import ShapePrior


class Gaussian(ShapePrior):
    """N(0, σ²)."""

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.ndtr(x)

    def divergence(self, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        """KL(N(mean, deviation²) ‖ N(0, σ²)) in nats, elementwise."""
        scale = self.log_scale.exp().to(mean)
        ratio = (deviation / scale).square()
        return 0.5 * (ratio + (mean / scale).square() - 1 - ratio.log())


class Laplace(ShapePrior):
    """Laplacian: what weights look like that were trained with sparsity in mind, or were pruned softly."""

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        tail = 0.5 * torch.exp(-math.sqrt(2) * x.abs())
        return torch.where(x < 0, tail, 1 - tail)


@dataclass(frozen=True)
class MixtureOptions:
    """Options of `logistic-mixture`."""

    components: int = option(3, "logistics that are mixed")

    def __post_init__(self) -> None:
        if not 1 <= self.components <= 16:
            raise ValueError(f"components is {self.components}; it takes 1 to 16")


class LogisticMixture(ShapePrior):
    """Logistics of several widths about 0, weights and widths learned (T. Salimans et al., arXiv:1701.05517)."""

    Options: ClassVar[type[Any]] = MixtureOptions

    def _start(self) -> dict[str, torch.Tensor]:
        n = self.options.components
        return {"logits": torch.zeros(n), "widths": torch.linspace(-0.7, 0.7, n) if n > 1 else torch.zeros(1)}

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        share = torch.softmax(self.shape["logits"], 0).to(x)
        # a logistic of scale one has the standard deviation π / √3
        width = (self.shape["widths"].exp() * (math.sqrt(3) / math.pi)).to(x)
        return (share * torch.sigmoid(x[..., None] / width)).sum(-1)


KNOTS, NEAR, FAR = 4096, 1e-4, 64.0
"""Of the table of `Hadamard`: knots are even in asinh(x / NEAR), which is fine where the density has its pole, up to
FAR deviations, where what is left is far below UNLIKELY."""
SPACING = math.asinh(FAR / NEAR) / (KNOTS - 1)


class Hadamard(ShapePrior):
    """z = u ⊙ v with u and v Gaussian: density K0(|z|) / π, a peak at 0 and tails like a Laplacian's.

    The Hadamard-product parameterisation of sparse priors (P. D. Hoff, "Lasso, fractional norm and structured sparse
    estimation using a Hadamard product parametrization", 2017). Given v it is a Gaussian of width |v|, so the
    cumulative distribution is an integral over v, by Gauss-Legendre quadrature in log v. It is taken once, at KNOTS
    values; between them goes a cubic with the right slopes, since latents come by the hundred thousand.
    """

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        place = (torch.asinh(x.abs().double() / NEAR) / SPACING).clamp_max(KNOTS - 1)
        knot = torch.nan_to_num(place.detach()).long().clamp_max(KNOTS - 2)
        t = place - knot
        tail, slope = (part.to(x.device) for part in _product_table())
        a, b, da, db = tail[knot], tail[knot + 1], slope[knot], slope[knot + 1]
        found = a + t * (da + t * (3 * (b - a) - 2 * da - db + t * (2 * (a - b) + da + db)))
        return torch.where(x < 0, found, 1 - found).to(x)


@lru_cache
@torch.inference_mode(False)  # whoever asks first: training may be next
def _product_table() -> tuple[torch.Tensor, torch.Tensor]:
    """(mass beyond a knot, its change from one knot to the next by the slope there), float64 [KNOTS] each."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    log_v = (nodes + 1) / 2 * (1.9 + 12) - 12
    share = weights * np.exp(log_v - np.exp(2 * log_v) / 2)
    share /= share.sum()
    widths = torch.from_numpy(np.exp(log_v) / math.sqrt((share * np.exp(2 * log_v)).sum()))
    shares = torch.from_numpy(share)
    places = torch.from_numpy(np.arange(KNOTS) * SPACING)  # not on meta, where models are built
    scaled = NEAR * torch.sinh(places)[:, None] / widths
    density = (shares / widths * torch.exp(-0.5 * scaled.square())).sum(1) / math.sqrt(2 * math.pi)
    tail = (shares * torch.special.ndtr(-scaled)).sum(1)
    return tail, -density * NEAR * torch.cosh(places) * SPACING
