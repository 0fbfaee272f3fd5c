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
from corecompress_generative.prior_network import ResidualGenerator
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


class Gan(Gaussian):
    """A Gaussian where rates are asked for, a generator where samples are."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options | None = None):
        super().__init__(options or Options())
        self.network: ResidualGenerator | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Of the generator, for a model's configuration."""
        return {"hidden": self.options.hidden}

    def fit_latents(self, latents: torch.Tensor, seed: int, progress: Progress) -> None:
        """Train the generator on latents [n, k], draws of the posterior. The encoder stays as it is."""
        options = self.options
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ResidualGenerator(latents.shape[1], options.hidden)
            critic = _critic(latents.shape[1], options.hidden)
        network.mean.copy_(latents.mean(0))
        network.deviation.copy_(latents.std(0).clamp_min(1e-6))
        averaged = copy.deepcopy(network)
        players = [torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS) for net in (network, critic)]
        progress.start("training the prior's generator", options.steps, "steps")

        def noise() -> torch.Tensor:
            return torch.randn(options.batch, latents.shape[1], generator=generator)

        for step in range(options.steps):
            for _ in range(CRITIC_STEPS):
                real = latents[torch.randint(len(latents), (options.batch,), generator=generator)]
                loss = _critic_loss(critic, real, network(noise()).detach(), generator)
                _descend(players[1], loss)
            loss = -critic(network(noise())).mean()
            _descend(players[0], loss)
            if not torch.isfinite(loss):
                raise CorecompressError(f"gan: the generator's loss is no number at step {step + 1}; another --seed")
            with torch.no_grad():
                for mean, new in zip(averaged.parameters(), network.parameters(), strict=True):
                    mean.lerp_(new, 1 - AVERAGE)
            progress.advance(1)
        self.network = averaged.eval()

    def sample_latents(self, n: int, seed: int = 0) -> torch.Tensor:
        """n draws, float32 [n, k]. Raises CorecompressError before it was fitted."""
        if self.network is None:
            raise CorecompressError("prior gan: was not fitted; corecompress fit trains it behind an encoder")
        latents = len(self.network.mean)
        with torch.no_grad():
            found: torch.Tensor = self.network(torch.randn(n, latents, generator=torch.Generator().manual_seed(seed)))
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
