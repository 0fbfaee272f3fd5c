"""Memory for decoded tensors. A model's tensors, allocated one by one, cost a page fault for every 4 KB of weights;
taken from large pieces, which the kernel backs with huge pages, they cost next to nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 64 << 20
ALIGNMENT = 64


class Arena:
    """Hands out parts of pieces of 64 MB; a piece is freed when nothing of it is used any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._piece, self._at = np.empty(0, np.uint8), 0

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Uninitialised uint8 [nbytes]."""
        if nbytes > PIECE // 2:
            return np.empty(nbytes, np.uint8)
        with self._lock:
            if self._at + nbytes > self._piece.size:
                self._piece, self._at = np.empty(PIECE, np.uint8), 0
            start, self._at = self._at, self._at + -(-nbytes // ALIGNMENT) * ALIGNMENT
            return self._piece[start : start + nbytes]


_current: Any = threading.local()


@contextmanager
def allocate_from(arena: Arena) -> Iterator[None]:
    """Let this thread's `dense` take from `arena`."""
    before = getattr(_current, "arena", None)
    _current.arena = arena
    try:
        yield
    finally:
        _current.arena = before


def dense(nbytes: int) -> NDArray[np.uint8]:
    """Uninitialised uint8 [nbytes] for a tensor that is being decoded."""
    arena: Arena | None = getattr(_current, "arena", None)
    return np.empty(nbytes, np.uint8) if arena is None else arena.take(nbytes)
