"""The codec of encoders that only scale: levels of the weights, with error feedback, under scale classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Job
from corecompress.plugins import registry
from corecompress.recipe import Spec, build
from corecompress_vae.class_prior import ClassPrior
from corecompress_vae.matrix import decode_matrix, encode_matrix
from corecompress_vae.plan import HIT, Planned, Sensitivity, estimate, find_constant, typical_constant, weights_of
from corecompress_vae.tables import ClassTables
from corecompress_vae.trellis import trellis

SETTLING = 2
"""Passes in which tables and levels, each made for the other, come to terms."""


class _Pass(NamedTuple):
    """Bytes that were counted of levels quantised with `constant` and `prices`: coding with them makes the very same
    levels; and the tables for those."""

    size: float
    constant: float
    prices: ClassTables
    tables: ClassTables


def _nearest(passes: list[_Pass], target: float) -> _Pass:
    """The last one that hits the target, else the one that misses it least."""
    hits = [one for one in passes if abs(one.size / target - 1) < HIT]
    return hits[-1] if hits else min(passes, key=lambda one: abs(one.size - target))


class LevelCodec:
    """A quantiser, class tables, and the constant that all steps are multiples of."""

    def __init__(self, states: int, by_row: bool = True):
        self.trellis, self.by_row = trellis(states), by_row
        self.prior: ClassPrior | None = None
        self.tables: ClassTables | None = None
        """What levels are coded under."""
        self.prices: ClassTables | None = None
        """What symbols are taken to cost in quantising: those that do not occur as well."""
        self.constant = 0.0

    @classmethod
    def from_options(cls, states: int, prior: Spec, by_row: bool) -> LevelCodec:
        """One that is still to be prepared."""
        codec = cls(states, by_row)
        codec.prior = ClassPrior(build(registry(), "prior", prior))
        return codec

    @classmethod
    def from_bytes(cls, states: int, data: bytes) -> LevelCodec:
        """One that decodes. Raises CorruptData."""
        codec = cls(states)
        codec.tables = ClassTables.from_bytes(data)
        return codec

    def to_bytes(self) -> bytes:
        """The tables."""
        assert self.tables is not None
        return self.tables.to_bytes()

    def prepare(self, sample: list[Planned], target: float | None, step: float | None, job: Job) -> float:
        """See compressor.Codec."""
        prior = self.prior
        assert prior is not None
        passes: list[_Pass] = []
        prices, whole = prior.first(), all(planned.times == 1 for planned in sample)

        def attempt(constant: float) -> float:
            nonlocal prices
            found = estimate(sample, constant, prices, self.trellis, prior.fit, job.jobs, self.by_row)
            used, prices = prices, prior.spread(found.tables)
            # what the sample does not show may be of classes that it does not have, one class a matrix even more so
            tables = found.tables if whole and self.by_row else found.tables.filled(prices)
            passes.append(_Pass(found.size + len(tables.to_bytes()), constant, used, tables))
            return passes[-1].size

        constant = typical_constant(sample) if step is None else step
        attempt(constant)  # the first pass finds the tables' shape
        if target is not None:
            constant = find_constant(attempt, target, constant, weights_of(sample))
        for _ in range(SETTLING):
            attempt(constant)
        best = passes[-1] if target is None else _nearest(passes[1:], target)
        self.constant, self.prices, self.tables = best.constant, best.prices, best.tables
        return best.size

    def encode(self, weights: NDArray[np.float32], wanted: Sensitivity, bf16: bool) -> bytes:
        """See compressor.Codec."""
        assert self.tables is not None
        scales = wanted.scales(self.constant, *weights.shape)
        return encode_matrix(weights, scales, self.tables, self.trellis, bf16, self.by_row, self.prices)

    def decode(self, data: memoryview, out: NDArray[Any], threads: int) -> None:
        """See compressor.Codec."""
        assert self.tables is not None
        decode_matrix(data, out, self.tables, self.trellis, threads)
