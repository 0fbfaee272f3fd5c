"""Tensors that are the same bytes as an earlier one, such as a head that was saved beside the table that it is tied to:
they are stored, counted and coded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial

from corecompress.hashing import hash_file
from corecompress.safetensors_file import Stored

PEEK = 1 << 12
"""Bytes by which most tensors of one shape can be told apart."""


def twins_of(stored: Iterable[Stored], number_of: Mapping[str, int]) -> dict[str, str]:
    """name -> the first tensor of the same component (number_of), dtype, shape and bytes, for all that are not that one
    themselves. A tensor without elements has no twin."""

    def kind(item: Stored) -> Hashable:
        return number_of[item.info.name], item.info.dtype, item.info.shape

    groups = [[item for item in stored if item.info.nbytes]]
    for key in (kind, partial(_digest, most=PEEK), _digest):  # the cheap ones first: few tensors are read whole
        groups = [alike for group in groups for alike in _alike(group, key)]
    return {item.info.name: first.info.name for first, *rest in groups for item in rest}


def _alike(items: list[Stored], key: Callable[[Stored], Hashable]) -> list[list[Stored]]:
    """Those that have a key in common with others, by key."""
    groups: dict[Hashable, list[Stored]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def _digest(item: Stored, most: int | None = None) -> str:
    """Of the tensor's bytes, or of the first `most` of them."""
    length = item.info.nbytes if most is None else min(most, item.info.nbytes)
    return hash_file(item.path, start=item.start, length=length)
