"""The encoder `mlp-vae`: analysis and synthesis networks on chunks of weights.

    x [n, 16] ─► 16 → 64 → 64 → 16 ─► y, + uniform noise in training, rounded in use ─► 16 → 64 → 64 → 16 ─► x̂

Trained on rate + λ · distortion, the posterior a unit interval about y, the prior any `Prior` component.
Source: J. Ryu, H. Kim, "Neural weight compression for language models", arXiv:2510.11234 (chunks of 16, there with a
far larger decoder); J. Ballé et al., arXiv:1611.01704, for the noise that stands for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.components import Data, Prior, Progress, option
from corecompress_vae.encoders.training import Plan, train


@dataclass(frozen=True)
class Options:
    """Options of `mlp-vae`."""

    bits: float = option(3.0, "rate to train for, in bits a weight: λ follows from it")
    chunk: int = option(16, "weights of a chunk")
    hidden: int = option(64, "width of the hidden layers")
    steps: int = option(1500, "steps of training")
    file: str | None = option(None, "a fitted encoder that `corecompress fit` wrote, used as it is")

    def __post_init__(self) -> None:
        if not 0.1 <= self.bits <= 12:
            raise ValueError(f"bits is {self.bits:g}; it takes 0.1 to 12")
        for name in ("chunk", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes 1 or more")


class MlpVae:
    """Two small networks."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options | None = None):
        self.options = options or Options()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = _Networks(self.options.chunk, self.options.hidden)

    @property
    def distortion_weight(self) -> float:
        """λ of rate + λ · squared error at which a Gaussian of variance one gets `bits`: dR/dD there, 4^bits / ln 4."""
        return 4.0**self.options.bits / math.log(4)

    def fit(
        self,
        data: Data,
        prior: Prior,
        *,
        seed: int = 0,
        target_loss: float | None = None,
        progress: Progress,
        scratch: Path | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Train both networks and the prior; loss in bits a weight, rate + λ · (squared error of unit-variance x)."""
        options, weight = self.options, self.distortion_weight
        plan = Plan(options.steps, options.chunk, 2e-3, weight, seed, target_loss, scratch, seconds)
        return train(self.net, prior, data, plan, progress)

    def encode(self, x: Any) -> NDArray[np.float32]:
        """x [n, chunk] -> latents float32 [n, chunk]."""
        return self._apply(self.net.analysis, x)

    def decode(self, latents: Any) -> NDArray[np.float32]:
        """latents [n, chunk] -> x float32 [n, chunk]."""
        return self._apply(self.net.synthesis, latents)

    def _apply(self, net: torch.nn.Module, x: Any) -> NDArray[np.float32]:
        rows = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        with torch.no_grad():
            # blocks of one size, so that the sums in a product are the same for every chunk
            parts = [net(block) for block in rows.split(1 << 15)]
            return np.asarray(torch.cat(parts).numpy() if parts else rows.numpy())

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """Weights of both networks, float32."""
        return {name: value.detach().cpu().numpy() for name, value in self.net.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the encoder that gave `state`."""
        self.net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})


class _Networks(torch.nn.Module):
    """Analysis and synthesis, both beside a scaled identity, so that training begins at scalar quantisation."""

    def __init__(self, chunk: int, hidden: int):
        super().__init__()
        self.analysis = _Residual(chunk, hidden)
        self.synthesis = _Residual(chunk, hidden)


class _Residual(torch.nn.Module):
    """gain · x + network(x)."""

    def __init__(self, chunk: int, hidden: int):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(chunk))
        layers = (torch.nn.Linear(chunk, hidden), torch.nn.Linear(hidden, hidden), torch.nn.Linear(hidden, chunk))
        self.layers = torch.nn.ModuleList(layers)
        torch.nn.init.normal_(layers[-1].weight, std=1e-3)
        torch.nn.init.zeros_(layers[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        silu = torch.nn.functional.silu
        return self.gain * x + last(silu(second(silu(first(x)))))

    def scale(self, gain: float) -> None:
        """Begin at `gain` · x."""
        self.gain.data.fill_(gain)
