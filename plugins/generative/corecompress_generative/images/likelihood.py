"""How likely an image is under what a synthesis says of its pixels: −ln p in nats, of 256 levels or of black and white.

Pixels are 0 … 1. `bernoulli` takes them as black or white, with the border at one half. `gaussian` is a density of
one width for all pixels, learned (O. Rybkin et al., "σ-VAE", arXiv:2006.13202), turned into the mass of one of 256
levels by the width of a level; `logistic` is that mass exactly, each pixel with its own width (T. Salimans et al.,
PixelCNN++, arXiv:1701.05517, section 2.1), so that both are comparable in bits a value. `logistic-mixture` is a
mixture of COMPONENTS of them for every value (the same section, without its ties between channels).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn import functional

Kind = Literal["bernoulli", "gaussian", "logistic", "logistic-mixture"]
COMPONENTS = 5
SPREAD = 2.0
"""Where the outermost components begin, in logits of a pixel."""
LEVELS = 256
NARROWEST = -5.0
"""Of the log scale of a pixel, in units of the range of pixels."""


def outputs_of(kind: Kind) -> int:
    """Numbers that a synthesis says of every pixel."""
    return {"logistic": 2, "logistic-mixture": 3 * COMPONENTS}.get(kind, 1)


def seen(kind: Kind, pixels: torch.Tensor) -> torch.Tensor:
    """The pixels as the likelihood takes them: an analysis that saw more would be told what can't be restored."""
    return (pixels > 0.5).to(pixels) if kind == "bernoulli" else pixels


def log_likelihood(
    kind: Kind, said: torch.Tensor, pixels: torch.Tensor, log_width: torch.Tensor | None = None
) -> torch.Tensor:
    """ln p(pixels) in nats [n]; said [n, outputs · c, h, w], pixels [n, c, h, w] in 0 … 1; log_width: of the
    gaussian, a scalar."""
    if kind == "bernoulli":
        each = -functional.binary_cross_entropy_with_logits(said, seen(kind, pixels).to(said), reduction="none")
        return each.flatten(1).sum(1)
    if kind == "gaussian":
        assert log_width is not None
        mean, log_scale = torch.sigmoid(said), log_width.clamp(NARROWEST, 2.0)
        each = -0.5 * ((pixels - mean) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
        return (each - math.log(LEVELS)).flatten(1).sum(1)
    if kind == "logistic-mixture":
        weights, mean, log_scale = _components(said)
        each = log_logistic(mean, log_scale.clamp(NARROWEST, 2.0), pixels[:, None]) + weights.log_softmax(1)
        return each.logsumexp(1).flatten(1).sum(1)
    logits, log_scale = said.chunk(2, 1)
    return log_logistic(torch.sigmoid(logits), log_scale.clamp(NARROWEST, 2.0), pixels).flatten(1).sum(1)


def _components(said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """said [n, 3 · COMPONENTS · c, h, w] -> (logits of the weights, means, log scales) [n, COMPONENTS, c, h, w]."""
    n, _, h, w = said.shape
    weights, logits, log_scale = said.view(n, 3, COMPONENTS, -1, h, w).unbind(1)
    apart = torch.linspace(-SPREAD, SPREAD, COMPONENTS, device=said.device).view(-1, 1, 1, 1)
    return weights, torch.sigmoid(logits + apart), log_scale


def log_logistic(mean: torch.Tensor, log_scale: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """ln of the mass of the level of each pixel under a logistic; the first and last level have the tails."""
    half, scale = 0.5 / (LEVELS - 1), log_scale.exp()
    above, below = (pixels + half - mean) / scale, (pixels - half - mean) / scale
    inside = (torch.sigmoid(above) - torch.sigmoid(below)).clamp_min(1e-12).log()
    first, last = functional.logsigmoid(above), functional.logsigmoid(-below)
    return torch.where(pixels < half, first, torch.where(pixels > 1 - half, last, inside))


def means(kind: Kind, said: torch.Tensor) -> torch.Tensor:
    """The mean of every pixel, 0 … 1, [n, c, h, w]."""
    if kind == "logistic-mixture":
        weights, mean, _ = _components(said)
        return (weights.softmax(1) * mean).sum(1)
    return torch.sigmoid(said.chunk(2, 1)[0] if kind == "logistic" else said)
