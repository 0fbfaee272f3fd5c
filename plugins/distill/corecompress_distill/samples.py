"""Samples of the data as batches of one's own size, the same at every start, from any update on.

Trained on are the training and the calibration split, in turns; the evaluation split is only looked at. Samples of
similar length go together, so that little of a batch is padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Data
from corecompress.errors import CorecompressError

Sample = dict[str, NDArray[Any]]
SPLITS = ("training", "calibration")
POOL = 1024
"""Samples that are looked at together for their lengths."""


class Samples:
    """data: prepared; micro: samples of one forward pass; pad: id of padding, as the model knows it."""

    def __init__(self, data: Data, seed: int, micro: int, pad: int):
        self.data, self.seed, self.micro, self.pad = data, seed, micro, pad

    @cached_property
    def size(self) -> tuple[int, int]:
        """(samples, tokens) of one epoch; an image counts as one token. Raises CorecompressError for no sample."""
        samples = tokens = 0
        for sample in self._epoch(0):
            samples += 1
            tokens += length_of(sample)
        return samples, tokens

    def batches(self, start: int = 0) -> Iterator[Sample]:
        """Micro-batches without end, epoch after epoch, from number `start` on."""
        return itertools.islice(self._batches(), start, None)

    def _batches(self) -> Iterator[Sample]:
        """Pools sorted by length and cut into batches, these in any order; what makes no whole batch waits for the
        next pool. No pool is of two epochs, else a batch would hold a sample twice."""
        waiting: list[Sample] = []
        numbers = itertools.count()
        for epoch in itertools.count():
            samples = self._epoch(epoch)
            while chunk := list(itertools.islice(samples, POOL)):
                pool = waiting + chunk
                whole = len(pool) // self.micro
                pool, waiting = sorted(pool[: whole * self.micro], key=length_of), pool[whole * self.micro :]
                for at in np.random.default_rng([self.seed, next(numbers)]).permutation(whole) * self.micro:
                    yield collate(pool[at : at + self.micro], self.pad)

    def _epoch(self, epoch: int) -> Iterator[Sample]:
        """Every sample once, the splits in turns."""
        sources = {split: iter(self.data.batches(self.seed + epoch, split)) for split in SPLITS}
        problem, count = None, 0
        while sources:
            for split in list(sources):
                try:
                    batch = next(sources[split])
                except (StopIteration, CorecompressError) as end:
                    problem = end if isinstance(end, CorecompressError) else problem
                    del sources[split]
                    continue
                for sample in rows(batch):
                    count += 1
                    yield sample
        if not count:
            raise problem or CorecompressError("--data: holds nothing to train on; give more")

    def evaluation(self, most: int) -> list[Sample]:
        """At most so many samples of the evaluation split, in micro-batches; [] where there is no such split."""
        found: list[Sample] = []
        try:
            for batch in self.data.batches(self.seed, "evaluation"):
                found += rows(batch)
                if len(found) >= most:
                    break
        except CorecompressError:
            return []
        found = sorted(found[:most], key=length_of)
        return [collate(found[at : at + self.micro], self.pad) for at in range(0, len(found), self.micro)]


def rows(batch: Any) -> list[Sample]:
    """The samples of a batch, padding cut off; without what says where they come from."""
    arrays = {key: np.asarray(value) for key, value in batch.items() if key not in ("document", "tags")}
    count = len(next(iter(arrays.values())))
    mask = arrays.get("attention_mask")
    if mask is None:
        return [{key: value[n] for key, value in arrays.items()} for n in range(count)]
    lengths = mask.sum(1)
    return [{key: value[n][: lengths[n]] for key, value in arrays.items()} for n in range(count)]


def length_of(sample: Sample) -> int:
    """Tokens of a sample; 1 for an image."""
    return len(sample["input_ids"]) if "input_ids" in sample else 1


def collate(samples: list[Sample], pad: int) -> Sample:
    """One batch, padded to the longest."""
    if "input_ids" not in samples[0]:
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    longest = max(map(length_of, samples))
    fill = {"input_ids": pad}
    return {
        key: np.stack([np.pad(s[key], (0, longest - len(s[key])), constant_values=fill.get(key, 0)) for s in samples])
        for key in samples[0]
    }
