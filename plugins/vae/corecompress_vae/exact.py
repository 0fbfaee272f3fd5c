"""Tensors that keep every bit: a plane a byte of their elements, each coded in its cheapest mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corecompress.coding import decode_bytes, encode_bytes
from corecompress.coding.tables import get_varint, put_varint
from corecompress.components import BITS, TensorInfo
from corecompress.errors import CorruptData


def encode_exact(data: NDArray[np.uint8], info: TensorInfo) -> bytes:
    """Code a tensor's bytes uint8 [nbytes]: for each plane a varint length and the plane."""
    out, width = bytearray(), _width(info)
    for plane in range(width):
        coded = encode_bytes(np.ascontiguousarray(data[plane::width]))
        put_varint(out, coded.size)
        out += coded.tobytes()
    return bytes(out)


def decode_exact(payload: memoryview, info: TensorInfo) -> NDArray[np.uint8]:
    """The bytes that `encode_exact` was given. Raises CorruptData for any other payload."""
    out, width, at = np.empty(info.nbytes, np.uint8), _width(info), 0
    for plane in range(width):
        length, start = get_varint(bytes(payload[at : at + 5]), 0)
        at += start
        if at + length > len(payload):
            raise CorruptData("a plane is cut off")
        out[plane::width] = decode_bytes(payload[at : at + length], info.nbytes // width)
        at += length
    if at != len(payload):
        raise CorruptData("planes are longer than they say")
    return out


def _width(info: TensorInfo) -> int:
    return max(BITS[info.dtype] // 8, 1)
