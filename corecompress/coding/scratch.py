"""Working memory that a thread keeps: a chunk's arrays would otherwise cost a page fault for every 4 KB, every time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}


_kept = _Scratch()


def scratch(name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array [size] that is valid until this thread asks for the same name again."""
    array = _kept.arrays.get(name)
    if array is None or array.size < size or array.dtype != np.dtype(dtype):
        array = _kept.arrays[name] = np.empty(size, dtype)
    return array[:size]
