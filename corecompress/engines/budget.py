"""How much memory tensors under way may hold."""

from __future__ import annotations

from corecompress.components import TensorInfo
from corecompress.errors import CorecompressError
from corecompress.routing import Routing
from corecompress.run import Settings

CONSTANT_MEMORY = 400 << 20
"""Bytes that the process holds besides tensors: Python, numba, compiled code, hub client."""


def memory_budget(routing: Routing, infos: list[TensorInfo], settings: Settings) -> int:
    """Bytes that tensors under way may hold. Raises CorecompressError when the largest alone needs more."""
    needs = {info.name: int(routing.stage_of(info.name).component.memory(info)) for info in infos}
    largest = max(needs, key=lambda name: needs[name], default="")
    need = needs.get(largest, 0)
    if settings.max_memory is None:
        return max(2 * need, 256 << 20)
    if need + CONSTANT_MEMORY > settings.max_memory:
        raise CorecompressError(
            f"--max-memory {settings.max_memory / 1e6:.0f} MB: tensor '{largest}' alone needs "
            f"{(need + CONSTANT_MEMORY) / 1e6:.0f} MB; allow that much"
        )
    return settings.max_memory - CONSTANT_MEMORY
