"""The factorized prior: a cumulative distribution that is a small monotone network, learned.

Source: J. Ballé et al., "Variational image compression with a scale hyperprior", arXiv:1802.01436, appendix 6.1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from corecompress_vae.priors.shape import ShapePrior

FILTERS = (1, 3, 3, 3, 1)
WIDTH = 4.0
"""Standard deviations that the network covers before it is trained."""


class Factorized(ShapePrior):
    """Any continuous shape, symmetric or not."""

    def _start(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        shape = {}
        scale = WIDTH ** (1 / (len(FILTERS) - 1))
        for layer, (before, after) in enumerate(pairwise(FILTERS)):
            shape[f"matrix{layer}"] = torch.full((after, before), math.log(math.expm1(1 / scale / after)))
            shape[f"bias{layer}"] = torch.rand(after, 1, generator=generator) - 0.5
            if after > 1:
                shape[f"factor{layer}"] = torch.zeros(after, 1)
        return shape

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        h = x.reshape(1, -1)
        for layer in range(len(FILTERS) - 1):
            matrix = torch.nn.functional.softplus(self.shape[f"matrix{layer}"].to(x))
            h = matrix @ h + self.shape[f"bias{layer}"].to(x)
            if f"factor{layer}" in self.shape:
                h = h + torch.tanh(self.shape[f"factor{layer}"].to(x)) * torch.tanh(h)
        return h.reshape(x.shape)

    def _cdf(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self._logits(x))

    def _mass(self, x: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        low, high = self._logits(x - half), self._logits(x + half)
        sign = -torch.sign(low + high).detach()  # both in the left tail, where no digits are lost
        return (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()
