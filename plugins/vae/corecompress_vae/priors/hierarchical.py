"""The hierarchical prior: hyper-latents say how wide each block of latents is, and are decoded first.

Hyper-latents are scale classes (whole numbers); their synthesis is a table look-up, so no float decides which table a
symbol is read with. The tables are those of a mixture of logistics, corrected by what was counted.
Source: J. Ballé et al., arXiv:1802.01436, section 4; integer synthesis after arXiv:1809.02736 (integer networks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.coding import Tables, decode, encode
from corecompress.coding.tables import get_varint, put_varint
from corecompress.components import option
from corecompress.errors import CorruptData
from corecompress_vae.classes import CLASSES, OCTAVE, ZERO
from corecompress_vae.priors.coder import TableCoder
from corecompress_vae.priors.families import LogisticMixture
from corecompress_vae.priors.shape import REACH

EVIDENCE = 64.0
"""Symbols that the shape counts as, beside those that were seen."""
SHORTEST = 1 << 16


@dataclass(frozen=True)
class Options:
    """Options of `hierarchical`."""

    components: int = option(3, "logistics of the shape")
    block: int = option(64, "latents that share a hyper-latent, where no scale classes are given")

    def __post_init__(self) -> None:
        if not 1 <= self.components <= 16:
            raise ValueError(f"components is {self.components}; it takes 1 to 16")
        if not 1 <= self.block <= SHORTEST:
            raise ValueError(f"block is {self.block}; it takes 1 to {SHORTEST}")


class Hierarchical(LogisticMixture):
    """A shape for every class, and the classes' own distribution."""

    Options: ClassVar[type[Any]] = Options
    counted: ClassVar[bool] = True
    conditional: ClassVar[bool] = True

    def __init__(self, options: Any = None):
        super().__init__(options)
        self.counts = np.zeros((CLASSES, 2 * REACH + 1))
        self.hyper = np.zeros(CLASSES)

    def rate(self, latents: Any, context: Any = None) -> torch.Tensor:
        """Bits of each latent; without context its share of its block's hyper-latent is in it."""
        if context is not None:
            return super().rate(latents, context)
        latents = torch.as_tensor(latents)
        latents = latents if latents.is_floating_point() else latents.float()
        flat = latents.reshape(-1)
        classes = block_classes(flat.detach().cpu().numpy(), self.options.block)
        each = torch.from_numpy(classes).repeat_interleave(self.options.block)[: flat.numel()].to(flat.device)
        share = (self.hyper + 1) / (self.hyper + 1).sum()
        hyper = torch.from_numpy(-np.log2(share[classes])).to(flat) / self.options.block
        spread = hyper.repeat_interleave(self.options.block)[: flat.numel()]
        return (super().rate(flat, each) + spread).reshape(latents.shape)

    def fit(self, symbols: Any, context: Any = None, weights: Any = None) -> None:
        """Fit the shape, count symbols by class; without context the classes are those of `block_classes`."""
        latents = np.asarray(symbols).reshape(-1)
        if context is None:
            blocks = block_classes(latents, self.options.block)
            self.hyper = np.bincount(blocks, minlength=CLASSES).astype(np.float64)
            context = np.repeat(blocks, self.options.block)[: latents.size]
        super().fit(latents, context, weights)
        whole = np.rint(latents).astype(np.int64)
        classes = np.asarray(context, np.int64).reshape(-1)
        near = (np.abs(whole) <= REACH) & (whole == latents) & (classes >= 0) & (classes < CLASSES)
        counts = np.ones(latents.size) if weights is None else np.asarray(weights, np.float64).reshape(-1)
        key = classes[near] * (2 * REACH + 1) + whole[near] + REACH
        self.counts = np.bincount(key, counts[near], CLASSES * (2 * REACH + 1)).reshape(CLASSES, -1)

    def sample(self, n: int, seed: int = 0, context: Any = None) -> NDArray[np.float32]:
        """n draws, float32 [n]; without context, hyper-latents are drawn first, one for each block."""
        if context is None and self.hyper.sum() > 0:
            draw = np.random.default_rng(seed)
            blocks = draw.choice(CLASSES, -(-n // self.options.block), p=self.hyper / self.hyper.sum())
            context = np.repeat(blocks, self.options.block)[:n]
        return super().sample(n, seed, context)

    def freeze(self, precision: int = 12) -> HierarchicalCoder:
        """Tables of the classes and of the hyper-latents."""
        with torch.no_grad():
            z = torch.arange(-REACH, REACH + 1).float()
            shape = np.stack([self._counts(z, row) for row in range(CLASSES)]).astype(np.float64)
        rows = (self.counts + EVIDENCE * shape / shape.sum(1, keepdims=True)) * 256
        tables = Tables.from_counts(np.rint(rows).astype(np.int64), [-REACH] * CLASSES, precision)
        hyper = Tables.from_counts([np.rint(self.hyper * 16).astype(np.int64) + 1], [0], precision)
        return HierarchicalCoder(TableCoder(tables), hyper, self.options.block)

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """The shape and the counts."""
        return {**super().state_dict(), "counts": self.counts, "hyper": self.hyper}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the prior that gave `state`."""
        super().load_state_dict(state)
        self.counts, self.hyper = np.array(state["counts"]), np.array(state["hyper"])


@dataclass(frozen=True)
class HierarchicalCoder:
    """Hyper-latents, then the symbols: varint of 2 · length (+ 1: they are a byte each, or one for all), hyper-latents,
    symbols."""

    coder: TableCoder
    hyper: Tables
    block: int

    def compress(self, symbols: NDArray[Any], context: NDArray[Any] | None = None) -> bytes:
        """Whole numbers [n] -> coded bytes; with context int [n] there are no hyper-latents to send."""
        if context is not None:
            return self.coder.compress(symbols, context)
        symbols = np.asarray(symbols)
        blocks = block_classes(symbols, self.block)
        head, packed = encode(blocks, self.hyper).tobytes(), blocks.astype(np.uint8).tobytes()
        if len(set(packed)) == 1:
            packed = packed[:1]
        plain, out = len(packed) <= len(head), bytearray()
        sent = packed if plain else head
        put_varint(out, 2 * len(sent) + plain)
        spread = np.repeat(blocks, self.block)[: symbols.size]
        return bytes(out) + sent + self.coder.compress(symbols, spread)

    def decompress(self, data: bytes, n: int, context: NDArray[Any] | None = None) -> NDArray[np.int32]:
        """The n symbols, int32 [n]. Raises CorruptData on bytes that `compress` never wrote."""
        if context is not None:
            return self.coder.decompress(data, n, context)
        length, at = get_varint(bytes(data[:5]), 0)
        plain, length, count = length & 1, length >> 1, -(-n // self.block)
        if at + length > len(data) or (plain and length not in (min(1, count), count)):
            raise CorruptData("hyper-latents are cut off")
        coded = data[at : at + length]
        blocks = np.resize(np.frombuffer(coded, np.uint8), count) if plain else decode(coded, count, self.hyper)
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < CLASSES:
            raise CorruptData("a hyper-latent names no class")
        return self.coder.decompress(data[at + length :], n, np.repeat(blocks, self.block)[:n])

    def bits(self, symbols: NDArray[Any], context: NDArray[Any] | None = None) -> float:
        """Bits of symbols [n], hyper-latents included."""
        if context is not None:
            return self.coder.bits(symbols, context)
        blocks = block_classes(np.asarray(symbols), self.block)
        spread = np.repeat(blocks, self.block)[: np.asarray(symbols).size]
        return self.hyper.bits(blocks) + self.coder.bits(symbols, spread)

    def to_bytes(self) -> bytes:
        """Block length and tables."""
        out, hyper = bytearray(), self.hyper.to_bytes()
        put_varint(out, self.block)
        put_varint(out, len(hyper))
        return bytes(out) + hyper + self.coder.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> HierarchicalCoder:
        """Raises CorruptData for bytes that `to_bytes` never wrote."""
        block, at = get_varint(data, 0)
        length, used = get_varint(data[at : at + 5], 0)
        at += used
        if not 1 <= block <= SHORTEST or at + length > len(data):
            raise CorruptData("a hierarchical prior's tables are damaged")
        coder = TableCoder.from_bytes(data[at + length :])
        if len(coder.tables.length) != CLASSES:
            raise CorruptData("a hierarchical prior has other classes")
        return cls(coder, Tables.from_bytes(data[at : at + length]), block)


def block_classes(latents: NDArray[Any], block: int) -> NDArray[np.int64]:
    """Scale class int64 [⌈n / block⌉] of each block of latents [n]: from its second moment."""
    values = np.asarray(latents, np.float64)
    starts = np.arange(0, values.size, block)
    if not starts.size:
        return np.zeros(0, np.int64)
    second = np.add.reduceat(values * values, starts) / np.diff(np.append(starts, values.size))
    codes = np.nan_to_num(np.rint(0.5 * OCTAVE * np.log2(second + 0.05)) + ZERO)  # what is no number in training
    return codes.clip(0, CLASSES - 1).astype(np.int64)
