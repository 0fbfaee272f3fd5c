"""Rate and distortion as a loss: annealing, free bits, pre-training as an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from corecompress.components import Prior
from corecompress_generative.model import GenerativeModel, Inputs
from corecompress_generative.training import Player

CYCLES = 4
"""Of cyclical annealing; in each the weight climbs for half of it (H. Fu et al., arXiv:1903.10145)."""


@dataclass(frozen=True)
class Annealing:
    """How the rate's weight β climbs to 1. pretrain: share of the training with β = 0, after which the synthesis
    begins anew (B. Li et al., arXiv:1909.00868); climb: share in which it climbs; free: nats of each latent that cost
    nothing."""

    kind: Literal["none", "linear", "cyclical"] = "none"
    pretrain: float = 0.0
    climb: float = 0.25
    free: float = 0.0

    def weight(self, share: float) -> float:
        """β at that share of the training."""
        if share < self.pretrain:
            return 0.0
        if self.kind == "none":
            return 1.0
        if self.kind == "linear":
            return min(1.0, (share - self.pretrain) / max(self.climb, 1e-9))
        cycle = (share - self.pretrain) / (1 - self.pretrain) * CYCLES % 1.0
        return min(1.0, 2 * cycle)

    @property
    def settled(self) -> float:
        """Share from which on β stays 1."""
        if self.kind == "cyclical":
            return 1 - (1 - self.pretrain) / CYCLES / 2
        return min(1.0, self.pretrain + (self.climb if self.kind == "linear" else 0.0))


class Variational(Player):
    """−ELBO in nats a sample, the rate weighted and freed as `annealing` says."""

    def __init__(
        self, model: GenerativeModel, prior: Prior, annealing: Annealing, renew: Callable[[], None] | None = None
    ):
        super().__init__()
        self.model, self.annealing, self.renew = model, annealing, renew
        self.prior = prior

    def begin(self, share: float, before: float) -> None:
        if self.renew is not None and before < self.annealing.pretrain <= share:
            self.renew()

    def forward(self, batch: Inputs, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rate, distortion, _ = self.model.terms(batch, self.prior)
        each = rate.mean(0)
        freed = each.clamp_min(self.annealing.free).sum() if self.annealing.free else each.sum()
        loss = distortion.mean() + self.annealing.weight(share) * freed
        return loss, bits_a_value(rate.sum(1), distortion, self.model.values(batch))


def bits_a_value(rate: torch.Tensor, distortion: torch.Tensor, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of samples [n]: loss, which is −ELBO in bits a value, without weights; rate and distortion in nats a sample."""
    total = (rate.sum() + distortion.sum()) / values.sum() / math.log(2)
    return {"loss": total, "rate": rate.mean(), "distortion": distortion.mean()}
