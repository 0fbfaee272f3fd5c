"""The base of all fitted models.

batch ─► posterior: mean, deviation [n, k] ─► z ─► log_likelihood(batch, z): nats [n]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from corecompress_generative.config import GenerativeConfig

Inputs = Mapping[str, torch.Tensor]


@dataclass
class Reconstruction(ModelOutput):  # type: ignore[misc]
    """What a forward pass gives: logits [n, length, vocabulary] of a text, or means [n, c, h, w] of an image; the
    latents [n, k] that they come from; loss: −ln p in nats a sample."""

    logits: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class GenerativeModel(PreTrainedModel):  # type: ignore[misc]
    """A model with latents. Without gradients a forward pass goes through the posterior's mean."""

    config_class: ClassVar[type[GenerativeConfig]] = GenerativeConfig

    def posterior(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log deviation) of the latents, [n, k] each."""
        raise NotImplementedError

    def log_likelihood(self, batch: Inputs, z: torch.Tensor) -> torch.Tensor:
        """ln p(sample | z) in nats [n]."""
        raise NotImplementedError

    def values(self, batch: Inputs) -> torch.Tensor:
        """How many values of the data each sample has [n]: tokens, or pixels of all channels."""
        raise NotImplementedError

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The layers' own."""
