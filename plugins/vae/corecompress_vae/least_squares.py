"""What to add to a weight so that its outputs make up for an error: least squares, a ridge that unseen data choose.

    s ≈ s' + C x',   C = R (G + λ · tr G / n · I)⁻¹,   G = E[w x' x'ᵀ],   R = E[w (s − s') x'ᵀ]

An n × n system is soon fitted to its samples more than to what they have in common, above all when one such system
follows another. So some samples are held out of all of them: they say which λ is best, and how far to go.

Source of corrections from the inputs that a quantised model really has: E. Frantar et al., "GPTQ", arXiv:2210.17323
(solved in order); Y. Li et al., "GPTAQ", arXiv:2504.02692; Y. Arai, Y. Ichikawa, "Quantization Error Propagation",
arXiv:2504.09629 (how far to go).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from corecompress_vae.gram import add_gram
from corecompress_vae.turns import in_order

RIDGES = (0.1, 0.3, 1.0, 3.0)
"""λ, of which one is chosen."""


@dataclass
class Moments:
    """g float32 [n, n] = Σ w x xᵀ, r float32 [o, n] = Σ w e xᵀ, of inputs x and errors e."""

    g: torch.Tensor
    r: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, e: torch.Tensor, w: torch.Tensor, dtype: torch.dtype) -> Moments:
        """Of x [t, n], e [t, o] and weights w [t], multiplied in `dtype`."""
        root = w.sqrt()[:, None]
        x, e = (x * root).to(dtype), (e * root).to(dtype)
        g = torch.zeros(x.shape[1], x.shape[1], device=x.device)
        add_gram(g, x)
        return cls(g, (e.T @ x).float())

    def add(self, other: Moments) -> None:
        self.g += other.g
        self.r += other.r


def correction(fitted: Moments, held: Moments, threads: int) -> torch.Tensor | None:
    """C float32 [o, n] from moments to fit it to and others to choose λ and its length by; None where they gain
    nothing."""
    mean = fitted.g.diagonal().mean()

    def attempt(ridge: float) -> tuple[float, torch.Tensor | None]:
        damped = fitted.g.clone()
        damped.diagonal().add_(ridge * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            return 0.0, None
        found = torch.cholesky_solve(fitted.r.T, lower).T
        along = float((found * held.r).sum(dtype=torch.float64))
        across = float((found @ held.g * found).sum(dtype=torch.float64))
        share = max(0.0, min(1.0, along / across)) if across > 0 else 0.0
        return 2 * share * along - share**2 * across, share * found

    gain, best = max(in_order(attempt, ((ridge,) for ridge in RIDGES), threads), key=lambda pair: pair[0])
    return best if best is not None and 0 < gain < torch.inf else None
