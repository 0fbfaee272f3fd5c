"""What a variational autoencoder is worth, on data that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from corecompress.components import Prior
from corecompress_generative.model import GenerativeModel, Inputs

ACTIVE = 0.01
"""Variance of a latent's posterior mean over the data from which on it is in use (arXiv:1509.00519, section 5)."""
COLLAPSED = 0.1
"""Share of the latents below which the posterior is called collapsed."""


def importance_bound(model: GenerativeModel, prior: Prior, batch: Inputs, draws: int) -> torch.Tensor:
    """−ln (1/K Σ p(x | z) p(z) / q(z | x)) in nats [n], K draws of the posterior (arXiv:1509.00519, eq. 8)."""
    return math.log(draws) - torch.logsumexp(model.log_weights(batch, prior, draws), 0)


@torch.no_grad()
def judge(model: GenerativeModel, prior: Prior, batches: Iterable[Inputs], draws: int, seed: int) -> dict[str, Any]:
    """Figures on the evaluation split: nats of rate and distortion a sample, the bound with importance weights in nats
    a sample and bits a value, active units."""
    totals = torch.zeros(4, dtype=torch.float64)
    means = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in batches:
            rate, distortion, _ = model.terms(batch, prior)
            bound = importance_bound(model, prior, batch, draws)
            sums = (rate.sum(), distortion.sum(), bound.sum(), model.values(batch).sum())
            totals += torch.stack([value.double().cpu() for value in sums])
            means.append(model.posterior(batch)[0].cpu())
    joined = torch.cat(means)
    active = int((joined.var(0) > ACTIVE).sum()) if len(joined) > 1 else 0
    rate, distortion, bound, values = totals.tolist()
    n = len(joined)
    return {
        "rate (nats a sample)": rate / n,
        "distortion (nats a sample)": distortion / n,
        "-ELBO (nats a sample)": (rate + distortion) / n,
        f"-log-likelihood, {draws} importance weights (nats a sample)": bound / n,
        "the same, bits a value": bound / values / math.log(2),
        "active units": f"{active} of {joined.shape[1]}",
    }


def is_collapsed(figures: dict[str, Any]) -> bool:
    """Whether hardly a latent is in use."""
    active, _, all_of_them = str(figures["active units"]).partition(" of ")
    return int(active) < COLLAPSED * int(all_of_them)
