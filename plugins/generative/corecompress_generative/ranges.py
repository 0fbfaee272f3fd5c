"""What the options of the encoders may be, by their names, which mean the same everywhere."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

COUNTS = {"latents", "embedding", "hidden", "channels", "maps", "groups", "cells", "layers", "heads", "words"}
COUNTS |= {"steps", "batch"}
SHARES = {"climb", "pretrain", "word_dropout", "begin"}
WEIGHTS = {"free_bits", "features", "adversary", "penalty", "spectral", "window", "nearest"}


def check(options: Any) -> None:
    """Raises ValueError, which names the option, for a value that makes no sense."""
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        if name in COUNTS and value < 1:
            raise ValueError(f"{name} is {value}; it takes 1 or more")
        if name in SHARES and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it takes 0 up to less than 1")
        if name in WEIGHTS and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}; it takes 0 or more")
        if name == "learning_rate" and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}; it takes a number above 0")
