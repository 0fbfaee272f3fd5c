"""The base of all fitted models.

batch ─► posterior: mean, deviation [n, k] ─► z ─► log_likelihood(batch, z): nats [n]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from corecompress.components import Prior
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress_generative.config import GenerativeConfig
from corecompress_generative.density import divergence, log_density, log_normal

Inputs = Mapping[str, torch.Tensor]


@dataclass
class Reconstruction(ModelOutput):  # type: ignore[misc]
    """What a forward pass gives: logits [n, length, vocabulary] of a text, or means [n, c, h, w] of an image; the
    latents [n, k] that they come from; nll [n]: −ln p of each sample given them, in nats; loss: its mean."""

    logits: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    nll: torch.Tensor | None = None


class GenerativeModel(PreTrainedModel):  # type: ignore[misc]
    """A model with latents. Without gradients a forward pass goes through the posterior's mean."""

    config_class: ClassVar[type[GenerativeConfig]] = GenerativeConfig

    def posterior(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log deviation) of the latents, [n, k] each."""
        raise NotImplementedError

    def network_of_prior(self) -> Any:
        """The network of a prior that has one, else None."""
        prior = build(registry(), "prior", parse_spec(self.config.prior))
        return prior.build_network(self.config.latents) if hasattr(prior, "build_network") else None

    def terms(self, batch: Inputs, prior: Prior) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(rate [n, k], distortion [n], z [n, k]) in nats with one draw of the posterior: −ELBO is their sum."""
        rate, z = self.drawn(batch, prior)
        return rate, -self.log_likelihood(batch, z), z

    def drawn(self, batch: Inputs, prior: Prior) -> tuple[torch.Tensor, torch.Tensor]:
        """(rate in nats, one draw z of the posterior), [n, k] each."""
        mean, log_deviation = self.posterior(batch)
        z = mean + log_deviation.exp() * torch.randn_like(mean)
        return divergence(prior, mean, log_deviation, z), z

    def log_weights(self, batch: Inputs, prior: Prior, draws: int) -> torch.Tensor:
        """ln p(x | z) p(z) / q(z | x) in nats [draws, n], z being drawn from the posterior."""
        mean, log_deviation = self.posterior(batch)
        found = []
        for _ in range(draws):
            z = mean + log_deviation.exp() * torch.randn_like(mean)
            ratio = log_density(prior, z) - log_normal(z, mean, log_deviation)
            found.append(self.log_likelihood(batch, z) + ratio.sum(1))
        return torch.stack(found)

    def log_likelihood(self, batch: Inputs, z: torch.Tensor) -> torch.Tensor:
        """ln p(sample | z) in nats [n]."""
        raise NotImplementedError

    def values(self, batch: Inputs) -> torch.Tensor:
        """How many values of the data each sample has [n]: tokens, or pixels of all channels."""
        raise NotImplementedError

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The layers' own."""
