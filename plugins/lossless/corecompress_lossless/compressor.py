"""The compressor `lossless`.

A payload is a stream of chunks (see corecompress.coding): for each 512 KB one block a byte plane, every block
constant, stored or rANS-coded with a table of its own, whichever is smallest. A tensor that would not get smaller is
stored: one byte 0, then its bytes; otherwise the first byte is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from corecompress.coding import Part, decode_block, encode_block, join_chunks, map_chunks, split_chunks, stored_bytes
from corecompress.components import BITS, Tensor, TensorCompressor, TensorInfo, option
from corecompress.errors import CorruptData
from numpy.typing import NDArray

from corecompress_lossless.planes import MERGE, SPLIT, WORD

STORED, PLANES = b"\0", b"\1"
CHUNK = 1 << 19
"""Bytes of a chunk: small enough for its planes to stay in cache and its tables to follow the weights."""

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

    def encode(self, tensor: Tensor) -> NDArray[np.uint8]:
        width, rotate = _layout(tensor.info)
        data, pieces = tensor.data, []
        for start in range(0, data.size, CHUNK):
            planes = _split(data[start : start + CHUNK], width, rotate)
            pieces += [self._block(plane, number == width - 1) for number, plane in enumerate(planes)]
        coded = join_chunks(pieces, before=PLANES)
        if coded.size <= data.size:
            return coded
        return np.concatenate([np.frombuffer(STORED, np.uint8), data])

    def _block(self, plane: NDArray[np.uint8], is_top: bool) -> list[Part]:
        if self.options.level == 1 and not is_top and (plane[:64] != plane[0]).any():
            return [b"\1", plane]
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
        starts = range(0, out.size, CHUNK)
        pieces = split_chunks(body, width * len(starts))

        def work(number: int) -> None:
            start = starts[number]
            target = out[start : start + CHUNK]
            mine = pieces[number * width : (number + 1) * width]
            _merge([_plane(piece, target.size // width) for piece in mine], rotate, target)

        map_chunks(work, range(len(starts)), threads)
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


def _plane(piece: memoryview, n: int) -> NDArray[np.uint8]:
    """A plane uint8 [n]; of a stored one the payload's own bytes."""
    plane = stored_bytes(piece)
    if plane is None:
        plane = np.empty(n, np.uint8)
        decode_block(piece, plane)
    elif plane.size != n:
        raise CorruptData("a stored plane has another length than its tensor")
    return plane


def _merge(planes: list[NDArray[np.uint8]], rotate: bool, out: NDArray[np.uint8]) -> None:
    if len(planes) == 1:
        out[:] = planes[0]
    else:
        MERGE[len(planes)](*planes, rotate, out.view(WORD[len(planes)]))
