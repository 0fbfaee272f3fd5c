"""Options of the compressor `vae`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from corecompress.components import option
from corecompress.recipe import Spec
from corecompress_vae.trellis import POLYNOMIALS, SCALAR


@dataclass(frozen=True)
class Options:
    """Options of `vae`."""

    bits: float | None = option(
        None, "bits a weight of the whole folder: 8 × bytes of all files / all parameters (default: 3)"
    )
    step: float | None = option(None, "instead of bits: the constant c that all steps are multiples of")
    encoder: Spec = option(Spec("scale-hyperprior"), "identity, scale-hyperprior, mlp-vae, or an encoder plugin's")
    prior: Spec = option(Spec("hierarchical"), "what symbols are expected to be: the name of a prior component")
    quantizer: Spec = option(Spec("trellis", {"states": 64}), "scalar, or trellis(states=4|8|16|32|64)")
    rotation: Literal["none", "hadamard"] = option("none", "rotate the columns of every matrix before quantising")
    calibration: Literal["gradients", "layers"] = option(
        "gradients", "with --data: gradients of the loss (best), or layers, one after the other, for less memory"
    )
    calibration_tokens: int | None = option(
        None, "tokens of --data that the model is calibrated on (default: 65536, or what there is from 32768 on)"
    )
    exact: tuple[str, ...] = option((), "patterns of tensors that keep every bit")

    def __post_init__(self) -> None:
        states_of(self.quantizer)
        if self.bits is not None and self.step is not None:
            raise ValueError(f"bits is {self.bits:g} and step is {self.step:g}; write one of them")
        for name in ("bits", "step"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value:g}; it takes a number above 0")
        if self.calibration_tokens is not None and self.calibration_tokens < 1:
            raise ValueError(f"calibration_tokens is {self.calibration_tokens}; it takes 1 or more")

    @property
    def rate(self) -> float | None:
        """Bits a weight to aim at; None where a step is asked for."""
        return 3.0 if self.bits is None and self.step is None else self.bits


def states_of(quantizer: Spec) -> int:
    """States of the trellis that a quantizer's spec names, 1 for `scalar`. Raises ValueError."""
    if quantizer == Spec("scalar"):
        return SCALAR
    states = quantizer.options.get("states", 64)
    if quantizer.name != "trellis" or set(quantizer.options) - {"states"} or states not in POLYNOMIALS:
        known = "|".join(map(str, POLYNOMIALS))
        raise ValueError(f"quantizer is {quantizer}; it takes scalar or trellis(states={known})")
    return int(states)
