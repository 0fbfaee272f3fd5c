"""The generator of a `gan` prior: it lives in the model, so that it is saved, compressed and loaded with it."""

from __future__ import annotations

import torch
from torch import nn

from corecompress_generative.config import GenerativeConfig


class ResidualGenerator(nn.Module):
    """N(0, I) [n, k] -> latents [n, k]: (z + f(z)) · σ + μ, where f begins at zero: at first a matched Gaussian."""

    def __init__(self, latents: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latents, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, latents)
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)
        self.register_buffer("mean", torch.zeros(latents))
        self.register_buffer("deviation", torch.ones(latents))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (z + self.layers(z)) * self.deviation + self.mean
        return found


def network_of(config: GenerativeConfig) -> ResidualGenerator | None:
    """The generator that a configuration asks for."""
    return None if config.prior_network is None else ResidualGenerator(config.latents, config.prior_network["hidden"])
