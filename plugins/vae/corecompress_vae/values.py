"""Which values are weights, and float32 back to tensors' bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F16_MOST = np.float32(65504)
TINY = np.float32(1e-12)
"""Tensors whose values are all below that are kept exactly: steps end at 2^−60."""
HUGE = np.float32(1e30)
"""Values from here on are no weights: a step would not suit them and the rest."""


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 (ties to even) of finite values float32 [n]."""
    bits = values.view(np.uint32)
    return np.asarray((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, np.uint16)


def from_float32(values: NDArray[Any], dtype: str) -> NDArray[np.uint8]:
    """float32 [n], or uint16 [n] with the bits of BF16 already, -> the tensor's bytes uint8."""
    if dtype == "F16":
        values = np.clip(values, -F16_MOST, F16_MOST).astype("<f2")
    if dtype == "F64":
        values = values.astype("<f8")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
