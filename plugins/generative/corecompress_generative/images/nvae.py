"""The model of `nvae`: groups of latents from coarse to fine, each told what the ones before it drew.

    image ─► bottom-up cells ─► features at 1/4 and 1/2 ──────────┐
    constant ─► [group: prior of s; posterior of s and features ◄─┘ ─► z ─► cell] … ─► larger ─► … ─► pixels

A. Vahdat, J. Kautz, "NVAE: a deep hierarchical variational autoencoder", arXiv:2007.03898: residual cells with
depthwise convolutions and squeeze-and-excitation, the posterior relative to the prior (section 3.2). Here group
normalisation instead of batch normalisation, and two scales: it is to be trained in minutes. Latents are kept in units
of their group's prior, ε = (z − μ) / σ, flat [n, k], so that any prior's draws make an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from corecompress.components import Prior
from corecompress_generative.config import NvaeConfig
from corecompress_generative.density import divergence, log_density, log_normal
from corecompress_generative.images.likelihood import log_likelihood, means, outputs_of, seen
from corecompress_generative.model import GenerativeModel, Inputs, Reconstruction

WIDEST = 5.0
"""Of log deviations, softly: NVAE's clamp."""


def groups_of(options: dict[str, Any], height: int, width: int) -> list[tuple[int, int, int]]:
    """(channels, height, width) of every group of latents, coarse to fine."""
    each, maps = options["groups"], options["maps"]
    return [(maps, height // scale, width // scale) for scale in (4, 2) for _ in range(each)]


class Excite(nn.Module):
    """Squeeze and excitation: channels weighed by their means."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(4, channels // 8)
        self.weigh = nn.Sequential(nn.Linear(channels, inner), nn.SiLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x * self.weigh(x.mean((2, 3)))[:, :, None, None]
        return found


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(8, channels), channels)


class BottomUp(nn.Module):
    """x + 0.1 · (norm, swish, convolution, twice, excitation)."""

    def __init__(self, channels: int):
        super().__init__()
        parts = [
            part for _ in range(2) for part in (_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1))
        ]
        self.body = nn.Sequential(*parts, Excite(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + 0.1 * self.body(x)
        return found


class TopDown(nn.Module):
    """x + 0.1 · (wider, depthwise 5 × 5, narrower, excitation): figure 3a."""

    def __init__(self, channels: int):
        super().__init__()
        wide = 3 * channels
        self.body = nn.Sequential(
            _norm(channels),
            nn.Conv2d(channels, wide, 1),
            nn.SiLU(),
            nn.Conv2d(wide, wide, 5, 1, 2, groups=wide),
            nn.SiLU(),
            nn.Conv2d(wide, channels, 1),
            Excite(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + 0.1 * self.body(x)
        return found


class Group(nn.Module):
    """One group: its prior from what is known, its posterior from that and the image's features."""

    def __init__(self, channels: int, maps: int, conditional: bool):
        super().__init__()
        self.prior = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, 2 * maps, 1)) if conditional else None
        self.posterior = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, 1, 1), nn.SiLU(), nn.Conv2d(channels, 2 * maps, 1)
        )
        self.take = nn.Conv2d(channels + maps, channels, 1)
        self.cell = TopDown(channels)
        self.maps = maps

    def scale(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log deviation) of the group's prior."""
        if self.prior is None:
            zero = torch.zeros(len(s), self.maps, *s.shape[2:], device=s.device)
            return zero, zero
        mean, log_deviation = self.prior(s).chunk(2, 1)
        return mean, _soft(log_deviation)

    def beside(self, s: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log deviation) of the posterior in units of the prior."""
        mean, log_deviation = self.posterior(torch.cat([s, features], 1)).chunk(2, 1)
        return mean, _soft(log_deviation)

    def on(self, s: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        """What is known behind it, once its latents, in units of the prior, are."""
        mean, log_deviation = self.scale(s)
        found: torch.Tensor = self.cell(self.take(torch.cat([s, mean + log_deviation.exp() * unit], 1)))
        return found


class Nvae(GenerativeModel):
    """Two scales, some groups in each."""

    config_class = NvaeConfig
    main_input_name = "pixel_values"

    def __init__(self, config: NvaeConfig):
        super().__init__(config)
        options = config.options
        self.kind, channels = options["likelihood"], options["channels"]
        height, width = config.image_size
        self.sizes = groups_of(options, height, width)
        self.stem = nn.Conv2d(config.num_channels, channels, 4, 2, 1)
        self.fine = nn.Sequential(*(BottomUp(channels) for _ in range(options["cells"])))
        self.shrink = nn.Conv2d(channels, channels, 4, 2, 1)
        self.coarse = nn.Sequential(*(BottomUp(channels) for _ in range(options["cells"])))
        self.first = nn.Parameter(torch.zeros(1, channels, height // 4, width // 4))
        self.groups = nn.ModuleList(
            Group(channels, size[0], options["conditional"] and n > 0) for n, size in enumerate(self.sizes)
        )
        self.grow = nn.ConvTranspose2d(channels, channels, 4, 2, 1)
        self.last = nn.Sequential(
            TopDown(channels),
            nn.SiLU(),
            nn.ConvTranspose2d(channels, channels, 4, 2, 1),
            TopDown(channels),
            nn.SiLU(),
            nn.Conv2d(channels, outputs_of(self.kind) * config.num_channels, 3, 1, 1),
        )
        self.log_width = nn.Parameter(torch.tensor(-1.0)) if self.kind == "gaussian" else None
        self.prior_network = self.network_of_prior()
        self.post_init()
        self.to(memory_format=torch.channels_last)

    def _features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.fine(_interleaved(self.stem(seen(self.kind, pixels))))
        return self.coarse(self.shrink(fine)), fine

    def _begin(self, n: int) -> torch.Tensor:
        """What is known before the first group."""
        return _interleaved(self.first.expand(n, -1, -1, -1))

    def _larger(self, number: int, s: torch.Tensor) -> torch.Tensor:
        """What is known, twice as large where the finer scale begins."""
        found: torch.Tensor = self.grow(s) if 2 * number == len(self.groups) else s
        return found

    def _down(self, pixels: torch.Tensor, noise: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """From the image: means, log deviations, latents, all in units of the prior [n, k], and what the pixels get."""
        coarse, fine = self._features(pixels)
        s = self._begin(len(pixels))
        found: list[tuple[torch.Tensor, ...]] = []
        for number, group in enumerate(self.groups):
            s = self._larger(number, s)
            mean, log_deviation = group.beside(s, coarse if 2 * number < len(self.groups) else fine)
            unit = mean + log_deviation.exp() * torch.randn_like(mean) if noise else mean
            found.append((mean.flatten(1), log_deviation.flatten(1), unit.flatten(1)))
            s = group.on(s, unit)
        means_, logs, units = (torch.cat(part, 1) for part in zip(*found, strict=True))
        return means_, logs, units, self.last(s)

    def posterior(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Along the means of the groups before."""
        mean, log_deviation, _, _ = self._down(batch["pixel_values"], noise=False)
        return mean, log_deviation

    def terms(self, batch: Inputs, prior: Prior) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_deviation, unit, said = self._down(batch["pixel_values"], noise=True)
        likelihood = log_likelihood(self.kind, said, batch["pixel_values"], self.log_width)
        return divergence(prior, mean, log_deviation, unit), -likelihood, unit

    def log_weights(self, batch: Inputs, prior: Prior, draws: int) -> torch.Tensor:
        pixels, found = batch["pixel_values"], []
        for _ in range(draws):
            mean, log_deviation, unit, said = self._down(pixels, noise=True)
            ratio = log_density(prior, unit) - log_normal(unit, mean, log_deviation)
            found.append(log_likelihood(self.kind, said, pixels, self.log_width) + ratio.sum(1))
        return torch.stack(found)

    def said(self, z: torch.Tensor) -> torch.Tensor:
        """What the pixels get from latents in units of the prior [n, k]."""
        s, at = self._begin(len(z)), 0
        for number, (group, size) in enumerate(zip(self.groups, self.sizes, strict=True)):
            count = size[0] * size[1] * size[2]
            s = group.on(self._larger(number, s), _interleaved(z[:, at : at + count].view(-1, *size)))
            at += count
        found: torch.Tensor = self.last(s)
        return found

    def log_likelihood(self, batch: Inputs, z: torch.Tensor) -> torch.Tensor:
        return log_likelihood(self.kind, self.said(z), batch["pixel_values"], self.log_width)

    def paint(self, z: torch.Tensor, batch: Inputs | None = None) -> torch.Tensor:
        """Means of the pixels, 0 … 1."""
        return means(self.kind, self.said(z))

    def values(self, batch: Inputs) -> torch.Tensor:
        pixels = batch["pixel_values"]
        return torch.full((len(pixels),), pixels[0].numel(), device=pixels.device)

    def forward(self, pixel_values: torch.Tensor, **unused: Any) -> Reconstruction:
        """Through the posterior's means: logits, the means of the pixels [n, c, h, w]; loss in nats an image."""
        mean, _, _, said = self._down(pixel_values, noise=False)
        nll = -log_likelihood(self.kind, said, pixel_values, self.log_width)
        return Reconstruction(logits=means(self.kind, said), latents=mean, nll=nll, loss=nll.mean())


def _interleaved(x: torch.Tensor) -> torch.Tensor:
    """x [n, c, h, w] with channels last in memory, as the weights are and what is made of it will be: on a CPU
    gradients of depthwise convolutions take half the time."""
    return x.contiguous(memory_format=torch.channels_last)


def _soft(log_deviation: torch.Tensor) -> torch.Tensor:
    return WIDEST * torch.tanh(log_deviation / WIDEST)
