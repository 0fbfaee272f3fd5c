"""Batches of any data as batches of one size, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch

from corecompress.components import Batch, Data
from corecompress.errors import CorecompressError
from corecompress_generative.model import Inputs

SPLITS = ("training", "calibration")
"""What is trained on; the evaluation split is only looked at."""


def forever(data: Data, seed: int, take: Callable[[Batch], Inputs], size: int) -> Iterator[Inputs]:
    """Passes over what is trained on, each in another order, in batches of `size` samples."""
    number = 0
    while True:
        count = 0
        for batch in regrouped(epoch(data, seed + number, take), size):
            count += 1
            yield batch
        if not count:
            raise CorecompressError("--data: has nothing to train on; give more data")
        number += 1


def epoch(data: Data, seed: int, take: Callable[[Batch], Inputs]) -> Iterator[Inputs]:
    """One pass over what is trained on. Raises CorecompressError where neither split holds a sample."""
    problems = []
    for split in SPLITS:
        batches = iter(data.batches(seed, split))
        try:
            first = next(batches)
        except StopIteration:
            continue
        except CorecompressError as problem:  # this split may be empty: the other one will do
            problems.append(problem)
            continue
        yield from map(take, chain([first], batches))
    if len(problems) == len(SPLITS):
        raise problems[0]


def regrouped(batches: Iterable[Inputs], size: int) -> Iterator[Inputs]:
    """Batches of `size` samples of whatever the data give; the last may have fewer. Sequences are padded with zeros."""
    pool: dict[str, torch.Tensor] = {}
    for batch in batches:
        pool = {key: _joined(pool[key], value) for key, value in batch.items()} if pool else dict(batch)
        while len(next(iter(pool.values()))) >= size:
            yield {key: value[:size] for key, value in pool.items()}
            pool = {key: value[size:] for key, value in pool.items()}
    if pool and len(next(iter(pool.values()))):
        yield pool


def _joined(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    if one.dim() == 2 and one.shape[1] != other.shape[1] and not one.is_floating_point():
        width = max(one.shape[1], other.shape[1])
        one, other = (torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in (one, other))
    return torch.cat([one, other])
