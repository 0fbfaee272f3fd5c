"""The encoders `cnn` and `vae-gan`: images in, images out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from corecompress.components import Batch, Prior, Sample, option
from corecompress.errors import CorecompressError
from corecompress_generative import ranges
from corecompress_generative.config import ImageVaeConfig
from corecompress_generative.encoder import VaeEncoder
from corecompress_generative.images.adversary import Discriminator, Game, Judge, Refined
from corecompress_generative.images.likelihood import Kind
from corecompress_generative.images.model import SHRINK, ImageVae
from corecompress_generative.model import GenerativeModel, Inputs
from corecompress_generative.objective import Annealing, Variational
from corecompress_generative.training import Plan, Player


@dataclass(frozen=True)
class ImageOptions:
    """What all image encoders have."""

    latents: int = option(16, "numbers that an image is encoded in")
    channels: int = option(32, "feature maps of the first convolution; the second has twice as many")
    hidden: int = option(256, "width of the layer between feature maps and latents")
    likelihood: Kind = option("bernoulli", "of a pixel: black or white (border at one half), or one of 256 levels")
    steps: int = option(2000, "updates")
    batch: int = option(128, "images of an update")
    learning_rate: float = option(1e-3, "of Adam, at its highest")

    def __post_init__(self) -> None:
        ranges.check(self)


@dataclass(frozen=True)
class CnnOptions(ImageOptions):
    """Options of `cnn`."""

    annealing: Literal["linear", "cyclical", "none"] = option("none", "how the weight of the rate climbs")
    climb: float = option(0.25, "share of the training in which it climbs (linear)")
    free_bits: float = option(0.0, "nats of each latent that cost nothing")
    learning_rate: float = option(3e-3, "of Adam, at its highest")


@dataclass(frozen=True)
class VaeGanOptions(ImageOptions):
    """Options of `vae-gan`."""

    likelihood: Kind = option("gaussian", "of a pixel")
    loss: Literal["hinge", "non-saturating"] = option("hinge", "of generator and discriminator")
    features: float = option(1.0, "weight of nearness in the discriminator's features")
    adversary: float = option(10.0, "weight of what the discriminator says, against the likelihood in nats")
    penalty: float = option(1.0, "weight of the discriminator's gradient penalty (R1)")
    begin: float = option(0.3, "share of the training with the likelihood alone")
    learning_rate: float = option(5e-4, "of Adam, at its highest")


class ImageEncoder(VaeEncoder):
    """Images of the data component `captioned`."""

    def take(self, batch: Batch) -> Inputs:
        if "pixel_values" not in batch:
            raise CorecompressError(
                f"--data: gives {', '.join(batch)}; the encoder '{self.name}' sees images: write captioned:DIR"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(batch["pixel_values"], np.float32))
        if float(pixels.min()) < 0 or float(pixels.max()) > 1:
            raise CorecompressError("--data: its pixels are not 0 … 1; the images are to be given as they are")
        return {"pixel_values": pixels}

    def build(self, first: Inputs, preprocessing: Path, prior: Prior) -> GenerativeModel:
        channels, height, width = first["pixel_values"].shape[1:]
        check_size(self.name, height, width)
        return ImageVae(
            ImageVaeConfig(
                encoder=self.name,
                latents=self.options.latents,
                options=self.described(),
                prior=self.prior_spec,
                image_size=[height, width],
                num_channels=channels,
                **self.captioned(),
            )
        )

    def captioned(self) -> dict[str, Any]:
        """What the configuration says of captions."""
        return {}

    def make(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        assert isinstance(self.model, ImageVae)
        return self.model.paint(z, inputs)

    def show(self, made: torch.Tensor) -> list[Sample]:
        levels = (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return [Sample(image=image) for image in levels]

    def originals(self, inputs: Inputs) -> list[Sample]:
        return self.show(inputs["pixel_values"])

    @torch.no_grad()
    def figures(self, batches: list[Inputs]) -> dict[str, Any]:
        """How far the means of the pixels are from the images, on 0 … 1."""
        assert self.model is not None
        errors = [
            (self.make(self.model.posterior(b)[0], b) - b["pixel_values"]).square().flatten(1).mean(1) for b in batches
        ]
        return {"squared error of a pixel": float(torch.cat(errors).mean())}


def check_size(name: str, height: int, width: int) -> None:
    """Raises CorecompressError for images that the convolutions don't fit."""
    if height % SHRINK or width % SHRINK:
        near = max(SHRINK, round(height / SHRINK) * SHRINK)
        raise CorecompressError(
            f"--data: its images are {height} × {width}, the encoder '{name}' takes multiples of {SHRINK}: "
            f"write captioned(size={near}):…"
        )


class Cnn(ImageEncoder):
    """Convolutional VAE."""

    Options: ClassVar[type[Any]] = CnnOptions
    name = "cnn"

    def players(self, model: GenerativeModel, prior: Prior) -> list[Player]:
        return [Variational(model, prior, self._annealing)]

    @property
    def _annealing(self) -> Annealing:
        return Annealing(self.options.annealing, 0.0, self.options.climb, self.options.free_bits)

    def plan(self, target: float | None, seconds: float | None) -> Plan:
        options, settled = self.options, self._annealing.settled
        return Plan(options.steps, options.learning_rate, settled=settled, target=target, seconds=seconds)


class VaeGan(ImageEncoder):
    """VAE with a discriminator (Larsen et al.)."""

    Options: ClassVar[type[Any]] = VaeGanOptions
    name = "vae-gan"

    def players(self, model: GenerativeModel, prior: Prior) -> list[Player]:
        assert isinstance(model, ImageVae)
        options = self.options
        game = Game(options.loss, options.features, options.adversary, options.penalty, options.begin)
        discriminator = Discriminator(model)
        return [Refined(model, prior, discriminator, game), Judge(discriminator, model, prior, game)]

    def plan(self, target: float | None, seconds: float | None) -> Plan:
        # the likelihood gets worse for what the discriminator asks: the last step is the best
        return Plan(self.options.steps, self.options.learning_rate, best=False, target=target, seconds=seconds)
