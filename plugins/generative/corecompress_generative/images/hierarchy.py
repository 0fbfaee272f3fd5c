"""The encoder `nvae`, and what its training adds: balanced groups while the rate's weight climbs, spectral norms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from corecompress.components import Prior, option
from corecompress.plugins import registry
from corecompress.recipe import Spec, build
from corecompress_generative import ranges
from corecompress_generative.config import NvaeConfig
from corecompress_generative.images.encoders import ImageEncoder, check_size
from corecompress_generative.images.likelihood import Kind
from corecompress_generative.images.nvae import Nvae, groups_of
from corecompress_generative.model import GenerativeModel, Inputs
from corecompress_generative.objective import Annealing, Variational, bits_a_value
from corecompress_generative.training import Plan, Player


@dataclass(frozen=True)
class Options:
    """Options of `nvae`."""

    channels: int = option(24, "feature maps")
    maps: int = option(4, "feature maps of a group of latents")
    groups: int = option(2, "groups of latents at each of the two scales")
    cells: int = option(2, "residual cells on the way up at each scale")
    likelihood: Kind = option("bernoulli", "of a pixel: black or white (border at one half), or one of 256 levels")
    climb: float = option(0.3, "share of the training in which the rate's weight climbs and groups are balanced")
    spectral: float = option(1e-2, "weight of the sum of the convolutions' spectral norms")
    steps: int = option(2000, "updates")
    batch: int = option(64, "images of an update")
    learning_rate: float = option(4e-3, "of Adam, at its highest")

    def __post_init__(self) -> None:
        ranges.check(self)


class NvaeEncoder(ImageEncoder):
    """Deep hierarchical VAE."""

    Options: ClassVar[type[Any]] = Options
    name = "nvae"
    conditional = False

    def family(self, prior: Prior) -> Prior:
        """Normal where the groups' means and scales are learned, as in the paper."""
        self.conditional = bool(getattr(prior, "conditional", False))
        normal: Prior = build(registry(), "prior", Spec("gaussian"))
        return normal if self.conditional else prior

    def build(self, first: Inputs, preprocessing: Path, prior: Prior) -> GenerativeModel:
        channels, height, width = first["pixel_values"].shape[1:]
        check_size(self.name, height, width)
        options = {**self.described(), "conditional": self.conditional}
        latents = sum(c * h * w for c, h, w in groups_of(options, height, width))
        return Nvae(
            NvaeConfig(
                encoder=self.name,
                latents=latents,
                options=options,
                prior=self.prior_spec,
                image_size=[height, width],
                num_channels=channels,
            )
        )

    def players(self, model: GenerativeModel, prior: Prior) -> list[Player]:
        assert isinstance(model, Nvae)
        return [Balanced(model, prior, self._annealing, self.options.spectral)]

    @property
    def _annealing(self) -> Annealing:
        return Annealing("linear", 0.0, self.options.climb)

    def plan(self, target: float | None, seconds: float | None) -> Plan:
        options, settled = self.options, self._annealing.settled
        return Plan(options.steps, options.learning_rate, settled=settled, target=target, seconds=seconds)

    def make(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        assert isinstance(self.model, Nvae)
        return self.model.paint(z)


class Balanced(Variational):
    """−ELBO; while the rate's weight climbs, groups with a small rate pay less (NVAE, appendix A); a penalty on the
    largest singular value of every convolution, by one power iteration an update (section 3.2)."""

    def __init__(self, model: Nvae, prior: Prior, annealing: Annealing, spectral: float):
        super().__init__(model, prior, annealing)
        self.spectral = spectral
        self._counts = [c * h * w for c, h, w in model.sizes]
        for number, weight in enumerate(_convolutions(model)):
            self.register_buffer(f"direction_{number}", nn.functional.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, batch: Inputs, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rate, distortion, _ = self.model.terms(batch, self.prior)
        groups = torch.stack([part.sum(1).mean() for part in rate.split(self._counts, 1)])
        weight = self.annealing.weight(share)
        shares = torch.ones_like(groups)
        if weight < 1:
            shares = groups.detach() * groups.new_tensor(self._counts)
            shares = shares / shares.mean().clamp_min(1e-9)
        loss = distortion.mean() + weight * (shares * groups).sum() + self.spectral * self._norms()
        return loss, bits_a_value(rate.sum(1), distortion, self.model.values(batch))

    def _norms(self) -> torch.Tensor:
        total = torch.zeros((), device=self.model.device)
        for number, weight in enumerate(_convolutions(self.model)):
            direction = getattr(self, f"direction_{number}")
            flat = weight.flatten(1)
            with torch.no_grad():
                right = nn.functional.normalize(flat.T @ direction, dim=0)
                direction.copy_(nn.functional.normalize(flat @ right, dim=0))
            total = total + direction @ flat @ right
        return total


def _convolutions(model: nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
