"""The compressor `lossless`.

A payload is a stream of chunks (see corecompress.coding): for each 2^17 elements one block a byte plane, every block
constant, stored or rANS-coded with a table of its own, whichever is smallest. A tensor that would not get smaller is
stored: one byte 0, then its bytes; otherwise the first byte is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from corecompress.coding import decode_block, encode_block, join_chunks, map_chunks, split_chunks
from corecompress.components import BITS, Tensor, TensorCompressor, TensorInfo, option
from corecompress.errors import CorruptData
from numpy.typing import NDArray

from corecompress_lossless.planes import MERGE, SPLIT, WORD

STORED, PLANES = b"\0", b"\1"
CHUNK = 1 << 17
"""Elements of a chunk: small enough for the planes to stay in cache and the tables to follow the weights."""

ROTATED = frozenset({"F16", "BF16", "F32", "F64", "C64"})


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

    def encode(self, tensor: Tensor) -> bytes:
        width, rotate = _layout(tensor.info)
        data = tensor.data

        def work(start: int) -> list[bytes]:
            planes = _split(data[start : start + CHUNK * width], width, rotate)
            return [self._block(plane, number == width - 1) for number, plane in enumerate(planes)]

        pieces = [piece for chunk in map(work, range(0, data.size, CHUNK * width)) for piece in chunk]
        coded = PLANES + join_chunks(pieces)
        return coded if len(coded) <= data.size else STORED + data.tobytes()

    def _block(self, plane: NDArray[np.uint8], is_top: bool) -> bytes:
        if self.options.level == 1 and not is_top:
            return encode_block(plane[:1]) if (plane == plane[0]).all() else b"\1" + plane.tobytes()
        return encode_block(plane)

    def decode(self, payload: memoryview, info: TensorInfo, threads: int = 1) -> NDArray[np.uint8]:
        out = np.empty(info.nbytes, np.uint8)
        mode, body = bytes(payload[:1]), payload[1:]
        if mode == STORED and len(body) == out.size:
            out[:] = np.frombuffer(body, np.uint8)
            return out
        if mode != PLANES:
            raise CorruptData("a payload is neither stored nor planes")
        width, rotate = _layout(info)
        starts = range(0, out.size, CHUNK * width)
        pieces = split_chunks(body, width * len(starts))

        def work(number: int) -> None:
            start = starts[number]
            target = out[start : start + CHUNK * width]
            planes = np.empty((width, target.size // width), np.uint8)
            for plane, piece in zip(planes, pieces[number * width : (number + 1) * width], strict=True):
                decode_block(piece, plane)
            _merge(planes, rotate, target)

        map_chunks(work, list(range(len(starts))), threads)
        return out


def _layout(info: TensorInfo) -> tuple[int, bool]:
    """(bytes of an element, whether its sign is rotated out of the exponent's byte)."""
    bits = BITS[info.dtype] // 2 if info.dtype == "C64" else BITS[info.dtype]
    return max(bits // 8, 1), info.dtype in ROTATED


def _split(data: NDArray[np.uint8], width: int, rotate: bool) -> NDArray[np.uint8]:
    """Bytes of elements [n · width] -> planes uint8 [width, n]."""
    if width == 1:
        return data.reshape(1, -1)
    planes = np.empty((width, data.size // width), np.uint8)
    SPLIT[width](data.view(WORD[width]), rotate, planes)
    return planes


def _merge(planes: NDArray[np.uint8], rotate: bool, out: NDArray[np.uint8]) -> None:
    if len(planes) == 1:
        out[:] = planes[0]
    else:
        MERGE[len(planes)](planes, rotate, out.view(WORD[len(planes)]))
