"""The data component `weights:DIR`: a checkpoint's matrices as a stream of chunks, to fit a codec on.

A document is a block of neighbouring rows of one tensor; splits are cut by document, so that no row is in two of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Batch, DataReport, TensorInfo, option
from corecompress.errors import CorecompressError
from corecompress.floats import to_float32
from corecompress.hashing import hash_file
from corecompress_vae.chunks import fit_codes, to_chunks
from corecompress_vae.layout import layout_of

ROWS = 64
"""Rows of a document."""
SPLITS = ("calibration", "training", "evaluation")
SHARES = (0.1, 0.9)
"""Where the splits end, as shares of a document's hash."""


@dataclass(frozen=True)
class Options:
    """Options of `weights`."""

    chunk: int = option(16, "weights of a chunk")
    batch: int = option(4096, "chunks of a batch")

    def __post_init__(self) -> None:
        for name in ("chunk", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes 1 or more")


class Weights:
    """Chunks `x` float32 [n, chunk] of variance about one, their `scale` float32 [n] and `document` int64 [n]."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, source: str, options: Options):
        self.name, self.options = source, options
        self.source = open_checkpoint(source)
        self.matrices = [info for info in self.source.tensors if layout_of(info) is not None]
        if not self.matrices:
            raise CorecompressError(f"{source}: holds no matrix of floats that chunks could be made of")

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """The checkpoint that chunks are for does not matter."""

    def fingerprint(self) -> str:
        """Digest of the files, the chunk and the batch."""
        shards = [hash_file(shard.path) for shard in self.source.shards]
        return hashlib.sha256(repr((shards, self.options)).encode()).hexdigest()

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterator[Batch]:
        """x, scale and document, tensor by tensor in an order of the seed's; one tensor in memory at a time."""
        if split not in SPLITS:
            raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
        rest: dict[str, NDArray[Any]] = {}
        number = 0
        order = np.random.default_rng([seed, 1]).permutation(len(self.matrices))
        for place in order:
            info = self.matrices[int(place)]
            part = self._chunks(info, int(place), split)
            shuffled = np.random.default_rng([seed, 2, int(place)]).permutation(len(part["x"]))
            part = {key: value[shuffled] for key, value in part.items()}
            rest = part if not rest else {key: np.concatenate([rest[key], part[key]]) for key in part}
            whole = len(rest["x"]) // self.options.batch
            for at in range(whole):
                if number >= start:
                    piece = slice(at * self.options.batch, (at + 1) * self.options.batch)
                    yield {key: value[piece] for key, value in rest.items()}
                number += 1
            rest = {key: value[whole * self.options.batch :] for key, value in rest.items()}
        if rest and len(rest["x"]) and number >= start:
            yield rest

    def _chunks(self, info: TensorInfo, place: int, split: str) -> dict[str, NDArray[Any]]:
        """All chunks of a tensor that are in the split."""
        weights = to_float32(self.source.read(info.name).data, info.dtype)
        layout = layout_of(info)
        assert layout is not None
        matrix = weights.reshape(layout.count * layout.rows, -1) if not layout.turned else weights.reshape(
            layout.columns, layout.rows
        )  # fmt: skip
        if not np.isfinite(np.abs(weights).max()) or not weights.any():
            matrix = matrix[:0]
        documents = place * (1 << 32) + np.arange(len(matrix)) // ROWS
        mine = np.flatnonzero(_split_of(documents) == SPLITS.index(split))
        if not mine.size:
            return {
                "x": np.zeros((0, self.options.chunk), np.float32),
                "scale": np.zeros(0, np.float32),
                "document": np.zeros(0, np.int64),
            }
        rows, columns = fit_codes(matrix)
        x = to_chunks(matrix[mine], rows[mine], columns, self.options.chunk)
        each = len(x) // mine.size
        scale = np.sqrt(np.mean(np.square(matrix[mine], dtype=np.float64), 1)).astype(np.float32)
        return {"x": x, "scale": np.repeat(scale, each), "document": np.repeat(documents[mine], each)}

    def report(self) -> DataReport:
        """What there is."""
        weights = sum(info.size for info in self.matrices)
        figures = {
            "source": self.name,
            "tensors": len(self.matrices),
            "weights": weights,
            "chunks": weights // self.options.chunk,
        }
        counts = dict.fromkeys(SPLITS, 0)
        for place, info in enumerate(self.matrices):
            layout = layout_of(info)
            assert layout is not None
            count = layout.columns if layout.turned else layout.count * layout.rows
            documents = place * (1 << 32) + np.arange(count) // ROWS
            for number, split in enumerate(SPLITS):
                counts[split] += len(np.unique(documents[_split_of(documents) == number]))
        rows: list[tuple[Any, ...]] = list(counts.items())
        first = next(iter(self.batches(0, "training")), None)
        samples = [] if first is None else [" ".join(f"{v:.2f}" for v in x) for x in first["x"][:3]]
        return DataReport(figures, {"splits": (("split", "blocks of rows"), rows)}, samples)


def _split_of(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1 or 2 for each document [n], by a hash of its number (the finaliser of splitmix64)."""
    x = documents.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share = (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
    return np.asarray(np.searchsorted(SHARES, share, side="right"), np.int64)
