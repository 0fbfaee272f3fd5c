"""The second player: a discriminator, whose features also say how near two images are.

Sources: A. Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", arXiv:1512.09300; T. Miyato
et al., arXiv:1802.05957 (spectral normalisation) and 1802.05637 (projection of the condition); L. Mescheder et al.,
arXiv:1801.04406 (R1 penalty); S. Reed et al., arXiv:1605.05396 (real images under others' captions are false, too).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from corecompress.components import Prior
from corecompress_generative.density import draw
from corecompress_generative.images.model import SHRINK, ImageVae
from corecompress_generative.model import Inputs
from corecompress_generative.objective import bits_a_value
from corecompress_generative.training import Player

SURE = 0.15
"""The discriminator waits while its loss is below: Larsen's equilibrium."""


@dataclass(frozen=True)
class Game:
    """loss: of both players; features, adversary: weights against the likelihood in nats; penalty: weight of R1; begin:
    share of the training with the likelihood alone."""

    loss: Literal["hinge", "non-saturating"]
    features: float
    adversary: float
    penalty: float
    begin: float


class Discriminator(nn.Module):
    """Images [n, c, h, w], what their captions say [n, width] -> (scores [n], features [n, 2 · channels, h/4, w/4])."""

    def __init__(self, model: ImageVae):
        super().__init__()
        config = model.config
        channels = config.options["channels"]
        height, width = (extent // SHRINK for extent in config.image_size)
        self.body = nn.Sequential(
            spectral_norm(nn.Conv2d(config.num_channels, channels, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(channels, 2 * channels, 4, 2, 1)),
            nn.LeakyReLU(0.2),
        )
        inner = 2 * channels * height * width
        self.score = spectral_norm(nn.Linear(inner, 1))
        self.match = spectral_norm(nn.Linear(config.caption_width, inner)) if config.caption_width else None

    def forward(self, images: torch.Tensor, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(images)
        flat = features.flatten(1)
        score = self.score(flat)[:, 0]
        if self.match is not None:
            score = score + (self.match(told) * flat).sum(1) / flat.shape[1] ** 0.5
        return score, features


class Refined(Player):
    """The VAE: −ELBO, and from `begin` on nearness in the discriminator's features and what the discriminator says of
    reconstructions and of new images."""

    betas = (0.5, 0.999)

    def __init__(self, model: ImageVae, prior: Prior, judge: Discriminator, game: Game):
        super().__init__()
        self.model, self.prior, self.game = model, prior, game
        self._judge = [judge]  # in a list: it is not this player's to move

    def forward(self, batch: Inputs, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rate, distortion, z, image = self.model.painted(batch, self.prior)
        parts = bits_a_value(rate.sum(1), distortion, self.model.values(batch))
        loss = parts["rate"] + parts["distortion"]
        if share < self.game.begin:
            return loss, parts
        judge, pixels = self._judge[0], batch["pixel_values"]
        told = self.model.told(batch, len(z))
        with _still(judge):
            _, real = judge(pixels, told.detach())
            fooled, made = judge(image, told.detach())
            score, _ = judge(self.model.paint(_new(self.prior, z), batch), told.detach())
        near = (made - real).square().flatten(1).sum(1).mean()
        adversary = -(fooled.mean() + score.mean())
        if self.game.loss == "non-saturating":
            adversary = functional.softplus(-fooled).mean() + functional.softplus(-score).mean()
        loss = loss + self.game.features * near + self.game.adversary * adversary
        return loss, {**parts, "features": near}


class Judge(Player):
    """The discriminator: tells images from reconstructions, from new ones and from those under another's caption; waits
    when it is too sure."""

    betas = (0.5, 0.999)

    def __init__(self, judge: Discriminator, model: ImageVae, prior: Prior, game: Game):
        super().__init__()
        self.judge, self.game, self.prior = judge, game, prior
        self._model = [model]

    def forward(self, batch: Inputs, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if share < self.game.begin:
            idle = 0.0 * sum(p.sum() for p in self.parameters())
            return idle, {}
        model = self._model[0]
        with torch.no_grad():
            told = model.told(batch, len(batch["pixel_values"]))
            mean, log_deviation = model.posterior(batch)
            z = mean + log_deviation.exp() * torch.randn_like(mean)
            made = torch.cat([model.paint(z, batch), model.paint(_new(self.prior, z), batch)])
        real = batch["pixel_values"].requires_grad_(True)
        good, _ = self.judge(real, told)
        bad, _ = self.judge(made, told.repeat(2, 1))
        if "caption_ids" in batch:
            ids = batch["caption_ids"]
            wrong, _ = self.judge(real, told.roll(1, 0))
            bad = torch.cat([bad, wrong[(ids != ids.roll(1, 0)).any(1)]])
        if self.game.loss == "hinge":
            loss = functional.relu(1 - good).mean() + functional.relu(1 + bad).mean()
        else:
            loss = functional.softplus(-good).mean() + functional.softplus(bad).mean()
        waits = (loss.detach() < SURE).to(loss)
        if self.game.penalty:
            (slope,) = torch.autograd.grad(good.sum(), real, create_graph=True)
            loss = loss + self.game.penalty / 2 * slope.square().flatten(1).sum(1).mean()
        return loss * (1 - waits), {"discriminator": loss}


@contextmanager
def _still(judge: Discriminator) -> Iterator[None]:
    """No gradients of its weights, which would be half of the way back."""
    judge.requires_grad_(False)
    try:
        yield
    finally:
        judge.requires_grad_(True)


def _new(prior: Prior, z: torch.Tensor) -> torch.Tensor:
    """As many new latents as there are, of the prior; the seed goes on with torch's."""
    seed = int(torch.randint(1 << 30, ()))
    return draw(prior, len(z), z.shape[1], seed).to(z)
