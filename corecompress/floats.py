"""A tensor's bytes as float32, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FLOATS = ("F32", "F16", "BF16")
"""The dtypes that float32 holds without loss."""


def to_float32(data: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Values float32 [n] of a tensor's bytes uint8 [nbytes], in memory of their own; of F64 the nearest, infinity
    beyond. Raises KeyError for a dtype that is neither in FLOATS nor F64."""
    import numpy as np

    if dtype == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return data.view({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype(np.float32)


def from_float32(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A tensor's bytes uint8 [nbytes] of values float32, flattened; rounded to the nearest value of the dtype, ties to
    even, beyond its range to infinity. Raises KeyError for a dtype that is not in FLOATS."""
    import numpy as np

    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    if dtype == "BF16":
        bits = flat.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(flat), (bits >> 16) | 0x40, rounded).astype("<u2").view(np.uint8)
    with np.errstate(over="ignore"):
        return flat.astype({"F32": "<f4", "F16": "<f2"}[dtype]).view(np.uint8)
