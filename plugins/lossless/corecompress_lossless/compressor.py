"""The compressor `lossless`: a tensor's byte planes, entropy coded (see corecompress.coding.planes).

A payload's first byte is 1, planes follow; or 0, and the tensor's bytes follow, where planes would take more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corecompress.coding import decode_planes, encode_planes
from corecompress.components import BITS, Tensor, TensorCompressor, TensorInfo, option
from corecompress.errors import CorruptData
from corecompress.memory import dense

STORED, PLANES = b"\0", b"\1"

ROTATED = frozenset({"F16", "BF16", "F32", "F64", "C64"})
"""Floats whose sign is moved out of the exponent's byte."""


@dataclass(frozen=True)
class Options:
    """Options of `lossless`."""

    level: int = option(2, "1: code only the exponents, fastest; 2: code every byte plane that gets smaller")

    def __post_init__(self) -> None:
        if self.level not in (1, 2):
            raise ValueError(f"level is {self.level}; it takes 1 or 2")


class Lossless(TensorCompressor):
    """Bit-exact for every dtype, not-a-numbers and signed zeros included."""

    Options: ClassVar[type[Any]] = Options
    exact: ClassVar[bool] = True

    def __init__(self, options: Options):
        self.options = options

    def memory(self, info: TensorInfo) -> int:
        """The dense bytes read and decoded, the payload once in pieces and once joined, planes of a chunk."""
        return 4 * info.nbytes + (8 << 20)

    def encode(self, tensor: Tensor) -> NDArray[np.uint8]:
        width, rotate = _layout(tensor.info)
        coded = encode_planes(tensor.data, width, rotate, exponents_only=self.options.level == 1, before=PLANES)
        if coded.size <= tensor.data.size:
            return coded
        return np.concatenate([np.frombuffer(STORED, np.uint8), tensor.data])

    def decode(self, payload: memoryview, info: TensorInfo, threads: int = 1) -> NDArray[np.uint8]:
        out, mode = dense(info.nbytes), bytes(payload[:1])
        if mode == STORED and len(payload) == out.size + 1:
            out[:] = np.frombuffer(payload, np.uint8)[1:]
        elif mode == PLANES:
            decode_planes(payload[1:], out, *_layout(info), threads)
        else:
            raise CorruptData("a payload is neither stored nor planes")
        return out


def _layout(info: TensorInfo) -> tuple[int, bool]:
    """(bytes of an element, whether its sign is moved)."""
    bits = BITS[info.dtype] // 2 if info.dtype == "C64" else BITS[info.dtype]
    return max(bits // 8, 1), info.dtype in ROTATED
