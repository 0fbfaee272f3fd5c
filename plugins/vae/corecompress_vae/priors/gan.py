"""The prior `gan`: new latents from a generator that learned what an encoder's latents look like.

Two networks: a residual generator, N(0, I) ─► latents, that begins as a Gaussian of the latents' mean and deviation,
and a critic (WGAN with gradient penalty). Sources: J. Zhao et al., "Adversarially regularized autoencoders",
arXiv:1706.04223; I. Gulrajani et al., arXiv:1704.00028 (gradient penalty). In training and in coding it is a Gaussian:
a generator has no density, so it brings no advantage of rate.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from corecompress.components import Progress, option
from corecompress.errors import CorecompressError
from corecompress_vae.priors.families import Gaussian

CRITIC_STEPS, PENALTY, RATE, BETAS, AVERAGE = 3, 10.0, 2e-4, (0.0, 0.9), 0.999
"""Critic's updates for each of the generator's, weight of the gradient penalty, Adam, decay of the running mean."""


@dataclass(frozen=True)
class Options:
    """Options of `gan`."""

    hidden: int = option(256, "width of the generator's and the critic's layers")
    steps: int = option(2000, "updates of the generator, after the encoder is trained")
    batch: int = option(256, "latents of an update")

    def __post_init__(self) -> None:
        for name in ("hidden", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes 1 or more")


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


class Gan(Gaussian):
    """A Gaussian where rates are asked for, a generator where samples are."""

    Options: ClassVar[type[Any]] = Options

    def build_network(self, latents: int) -> ResidualGenerator:
        """The generator."""
        return ResidualGenerator(latents, self.options.hidden)

    def fit_latents(
        self, network: ResidualGenerator, latents: torch.Tensor, *, seed: int = 0, progress: Progress
    ) -> None:
        """Train the generator against a critic on latents [n, k]. Raises CorecompressError where that diverges."""
        options, generator = self.options, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critic = _critic(latents.shape[1], options.hidden)
        network.mean.copy_(latents.mean(0))
        network.deviation.copy_(latents.std(0).clamp_min(1e-6))
        trained = copy.deepcopy(network)
        players = [torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS) for net in (trained, critic)]
        progress.start("training the prior's generator", options.steps, "steps")

        def noise() -> torch.Tensor:
            return torch.randn(options.batch, latents.shape[1], generator=generator)

        for step in range(options.steps):
            for _ in range(CRITIC_STEPS):
                real = latents[torch.randint(len(latents), (options.batch,), generator=generator)]
                _descend(players[1], _critic_loss(critic, real, trained(noise()).detach(), generator))
            loss = -critic(trained(noise())).mean()
            _descend(players[0], loss)
            if not torch.isfinite(loss):
                raise CorecompressError(f"gan: the generator's loss is no number at step {step + 1}; another --seed")
            with torch.no_grad():
                for mean, new in zip(network.parameters(), trained.parameters(), strict=True):
                    mean.lerp_(new, 1 - AVERAGE)
            progress.advance(1)

    def sample_latents(self, network: ResidualGenerator, n: int, seed: int = 0) -> torch.Tensor:
        """n draws, float32 [n, k]."""
        z = torch.randn(n, len(network.mean), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            found: torch.Tensor = network(z.to(network.mean))
        return found


def _critic(latents: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latents, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
    )


def _critic_loss(critic: nn.Module, real: torch.Tensor, made: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Wasserstein distance, negated, and the penalty for slopes other than 1 between real and made."""
    share = torch.rand(len(real), 1, generator=generator)
    between = (share * real + (1 - share) * made).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (slope.norm(dim=1) - 1).square().mean()
    found: torch.Tensor = critic(made).mean() - critic(real).mean() + PENALTY * penalty
    return found


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
