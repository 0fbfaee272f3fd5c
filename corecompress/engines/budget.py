"""How much memory tensors under way may hold."""

from __future__ import annotations

import ctypes
import gc
import sys

import psutil

from corecompress.components import TensorInfo
from corecompress.errors import CorecompressError
from corecompress.routing import Routing
from corecompress.run import Settings

CONSTANT_MEMORY = 400 << 20
"""Bytes that the process holds besides tensors, at least: Python, numba, compiled code, hub client."""
LARGE = 1 << 20
"""Bytes from which on blocks are mapped one by one."""
MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of mallopt(3)."""


def free_to_system() -> None:
    """From now on large blocks go back to the system when they are freed, in the whole process.

    Left alone, glibc keeps blocks of up to 32 MB for later, in every thread's arena: a third of what a process holds
    that runs a model. Costs page faults, a sixth of the processor time of calibrating layer by layer.
    """
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(MMAP_THRESHOLD, LARGE)


def resident_memory() -> int:
    """Bytes that the process holds once it has given back what was freed."""
    gc.collect()
    if sys.platform == "linux":  # what was freed can be half of what a process holds after it ran a model
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    return int(psutil.Process().memory_info().rss)


def memory_besides() -> int:
    """Bytes that the process holds besides tensors: what it holds now, and CONSTANT_MEMORY at least."""
    return max(CONSTANT_MEMORY, resident_memory())


def memory_budget(routing: Routing, infos: list[TensorInfo], settings: Settings) -> int:
    """Bytes that tensors under way may hold. Raises CorecompressError when the largest alone needs more."""
    needs = {info.name: int(routing.stage_of(info.name).component.memory(info)) for info in infos}
    largest = max(needs, key=lambda name: needs[name], default="")
    need = needs.get(largest, 0)
    if settings.max_memory is None:
        return max(2 * need, 256 << 20)
    besides = memory_besides()
    if need + besides > settings.max_memory:
        raise CorecompressError(
            f"--max-memory {settings.max_memory / 1e6:.0f} MB: tensor '{largest}' alone needs "
            f"{(need + besides) / 1e6:.0f} MB; allow that much"
        )
    return settings.max_memory - besides
