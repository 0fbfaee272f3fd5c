"""A `Prior` component as a density of real latents: what a variational bound and a generator need of it.

Priors give masses of unit intervals. Latents are multiplied by STEPS and looked at in the scale class of that
deviation, so that an interval is 1 / STEPS wide: the mass divided by that width is the density, to second order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.components import CLASS_OF_ONE, CLASSES_PER_OCTAVE, Prior

STEPS = 16
CLASS = CLASS_OF_ONE + CLASSES_PER_OCTAVE * round(math.log2(STEPS))


def log_density(prior: Prior, z: torch.Tensor) -> torch.Tensor:
    """ln p(z) of latents [n, k], in nats each."""
    rate = prior.rate(z * STEPS, torch.full(z.shape, CLASS, device=z.device))
    return math.log(STEPS) - math.log(2) * torch.as_tensor(rate).to(z)


def draw(prior: Prior, n: int, latents: int, seed: int, network: Any = None) -> torch.Tensor:
    """n draws of k latents, float32 [n, k]; network: of a prior that has one, where it is trained already."""
    if network is not None and hasattr(prior, "sample_latents"):
        found: torch.Tensor = prior.sample_latents(network, n, seed)
        return found
    values: NDArray[Any] = np.asarray(prior.sample(n * latents, seed), np.float32)
    return torch.from_numpy(values.reshape(n, latents).copy())


def divergence(prior: Prior, mean: torch.Tensor, log_deviation: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, deviation²) ‖ prior) in nats, each latent [n, k]: in closed form where the prior has one, else
    estimated at z, a draw of the posterior."""
    if hasattr(prior, "divergence"):
        found: torch.Tensor = prior.divergence(mean, log_deviation.exp())
        return found
    return log_normal(z, mean, log_deviation) - log_density(prior, z)


def log_normal(z: torch.Tensor, mean: torch.Tensor, log_deviation: torch.Tensor) -> torch.Tensor:
    """ln N(z; mean, deviation²), each."""
    return -0.5 * ((z - mean) / log_deviation.exp()).square() - log_deviation - 0.5 * math.log(2 * math.pi)
