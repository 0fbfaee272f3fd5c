"""Elements of 1, 2, 4 or 8 bytes as byte planes, each plane of each chunk a block of its own.

Of a float the upper 16 bits are rotated left by one, so that the sign leaves the exponent's byte: the top plane of
BF16, F32 and C64 is then exactly the exponent, and the plane below it the sign and seven bits of the mantissa.
"""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit, uint8, uint16, uint32, uint64
from numpy.typing import NDArray

from corecompress.coding.blocks import STORED, encode_block, read_block
from corecompress.coding.chunks import Part, join_chunks, map_chunks, split_chunks
from corecompress.errors import CorruptData

CHUNK = 1 << 19
"""Bytes of a chunk: small enough for its planes to stay in cache and its tables to follow the weights."""


def encode_planes(
    data: NDArray[np.uint8], width: int, rotate: bool, *, exponents_only: bool = False, before: bytes = b""
) -> NDArray[np.uint8]:
    """Code bytes uint8 [n · width], elements of `width` bytes, as uint8 [m] that begins with `before`.

    rotate: whether they are floats whose sign shall leave the exponent's byte; exponents_only: store all planes but
    the top one, unless constant.
    """
    blocks = []
    for start in range(0, data.size, CHUNK):
        planes = _split(data[start : start + CHUNK], width, rotate)
        for number, plane in enumerate(planes):
            raw = exponents_only and number < width - 1 and bool((plane[:64] != plane[0]).any())
            block: list[Part] = [bytes([STORED]), plane] if raw else encode_block(plane)
            blocks.append(block)
    return join_chunks(blocks, before)


def decode_planes(payload: memoryview, out: NDArray[np.uint8], width: int, rotate: bool, threads: int = 1) -> None:
    """Decode into out uint8 [n · width]. Raises CorruptData for bytes that `encode_planes` never wrote."""
    data = np.frombuffer(payload, np.uint8)
    lengths = [len(piece) for piece in split_chunks(payload, width * -(-out.size // CHUNK))]
    ends = data.size - sum(lengths) + np.cumsum([0, *lengths])
    count = len(lengths) // width
    cuts = [count * k // threads for k in range(threads + 1)]

    def work(share: tuple[int, int]) -> None:
        first, last = share
        pieces, target = ends[first * width : last * width + 1], out[first * CHUNK : last * CHUNK]
        if not decode_chunks(data, pieces, width, rotate, CHUNK, target):
            raise CorruptData("a chunk of planes is damaged")

    map_chunks(work, [share for share in itertools.pairwise(cuts) if share[0] < share[1]], threads)


def _split(data: NDArray[np.uint8], width: int, rotate: bool) -> NDArray[np.uint8]:
    """Bytes of elements [n · width] -> planes uint8 [width, n]."""
    if width == 1:
        return data.reshape(1, -1)
    planes = np.empty((width, data.size // width), np.uint8)
    SPLIT[width](data.view(f"<u{width}"), rotate, planes)
    return planes


@njit(cache=True, nogil=True)
def split16(words, rotate, planes):  # type: ignore[no-untyped-def]
    """uint16 [n] -> planes uint8 [2, n], lowest byte first."""
    turn = uint16(15) if rotate else uint16(0)
    for i in range(words.size):
        w = words[i]
        if rotate:
            w = uint16(uint16(w << uint16(1)) | (w >> turn))
        planes[0, i] = uint8(w)
        planes[1, i] = uint8(w >> uint16(8))


@njit(cache=True, nogil=True)
def merge16(p0, p1, rotate, words):  # type: ignore[no-untyped-def]
    """What split16 undid."""
    if rotate:
        for i in range(words.size):
            w = uint16(uint16(p0[i]) | uint16(uint16(p1[i]) << uint16(8)))
            words[i] = uint16((w >> uint16(1)) | uint16(w << uint16(15)))
    else:
        for i in range(words.size):
            words[i] = uint16(p0[i]) | uint16(uint16(p1[i]) << uint16(8))


@njit(cache=True, nogil=True)
def split32(words, rotate, planes):  # type: ignore[no-untyped-def]
    """uint32 [n] -> planes uint8 [4, n], lowest byte first."""
    for i in range(words.size):
        w = words[i]
        if rotate:
            w = (w & uint32(0xFFFF)) | ((w & uint32(0x7FFF0000)) << uint32(1)) | ((w >> uint32(15)) & uint32(0x10000))
        planes[0, i] = uint8(w)
        planes[1, i] = uint8(w >> uint32(8))
        planes[2, i] = uint8(w >> uint32(16))
        planes[3, i] = uint8(w >> uint32(24))


@njit(cache=True, nogil=True)
def merge32(p0, p1, p2, p3, rotate, words):  # type: ignore[no-untyped-def]
    """What split32 undid."""
    for i in range(words.size):
        low = uint32(p0[i]) | (uint32(p1[i]) << uint32(8))
        high = uint32(p2[i]) | (uint32(p3[i]) << uint32(8))
        if rotate:
            high = (high >> uint32(1)) | ((high & uint32(1)) << uint32(15))
        words[i] = low | (high << uint32(16))


@njit(cache=True, nogil=True)
def split64(words, rotate, planes):  # type: ignore[no-untyped-def]
    """uint64 [n] -> planes uint8 [8, n], lowest byte first."""
    for i in range(words.size):
        w = words[i]
        if rotate:
            top = w >> uint64(48)
            top = ((top << uint64(1)) | (top >> uint64(15))) & uint64(0xFFFF)
            w = (w & uint64(0xFFFFFFFFFFFF)) | (top << uint64(48))
        for k in range(8):
            planes[k, i] = uint8(w >> uint64(8 * k))


@njit(cache=True, nogil=True)
def merge64(p0, p1, p2, p3, p4, p5, p6, p7, rotate, words):  # type: ignore[no-untyped-def]
    """What split64 undid."""
    for i in range(words.size):
        low = uint64(p0[i]) | (uint64(p1[i]) << uint64(8))
        low |= (uint64(p2[i]) << uint64(16)) | (uint64(p3[i]) << uint64(24))
        top = uint64(p6[i]) | (uint64(p7[i]) << uint64(8))
        if rotate:
            top = (top >> uint64(1)) | ((top & uint64(1)) << uint64(15))
        words[i] = low | (uint64(p4[i]) << uint64(32)) | (uint64(p5[i]) << uint64(40)) | (top << uint64(48))


@njit(cache=True, nogil=True)
def _plane(data, start, end, out, table):  # type: ignore[no-untyped-def]
    """(whether the block is whole, its bytes): `out`, decoded, or of a stored block the payload's own."""
    if end - start == out.size + 1 and data[start] == STORED:
        return True, data[start + 1 : end]
    return read_block(data[start:end], out, table), out


@njit(cache=True, nogil=True)
def decode_chunks(data, ends, width, rotate, chunk, out):  # type: ignore[no-untyped-def]
    """Decode chunks of `chunk` bytes into out uint8 [n]; False for damage.

    data: uint8, where ends [chunks · width + 1] bound the blocks, plane by plane. One kernel for all of it, so that a
    thread that decodes needs Python's lock once a tensor.
    """
    table, scratch = np.empty(4096, np.uint32), np.empty((width, chunk // width), np.uint8)
    for number in range((ends.size - 1) // width):
        target = out[number * chunk : min((number + 1) * chunk, out.size)]
        at, n = number * width, target.size // width
        ok0, p0 = _plane(data, ends[at], ends[at + 1], target if width == 1 else scratch[0, :n], table)
        if not ok0:
            return False
        if width == 1:
            if p0.size and data[ends[at]] == STORED:
                target[:] = p0
            continue
        ok1, p1 = _plane(data, ends[at + 1], ends[at + 2], scratch[1, :n], table)
        if not ok1:
            return False
        if width == 2:
            merge16(p0, p1, rotate, target.view(np.uint16))
            continue
        ok2, p2 = _plane(data, ends[at + 2], ends[at + 3], scratch[2, :n], table)
        ok3, p3 = _plane(data, ends[at + 3], ends[at + 4], scratch[3, :n], table)
        if not (ok2 and ok3):
            return False
        if width == 4:
            merge32(p0, p1, p2, p3, rotate, target.view(np.uint32))
            continue
        ok4, p4 = _plane(data, ends[at + 4], ends[at + 5], scratch[4, :n], table)
        ok5, p5 = _plane(data, ends[at + 5], ends[at + 6], scratch[5, :n], table)
        ok6, p6 = _plane(data, ends[at + 6], ends[at + 7], scratch[6, :n], table)
        ok7, p7 = _plane(data, ends[at + 7], ends[at + 8], scratch[7, :n], table)
        if not (ok4 and ok5 and ok6 and ok7):
            return False
        merge64(p0, p1, p2, p3, p4, p5, p6, p7, rotate, target.view(np.uint64))
    return True


SPLIT = {2: split16, 4: split32, 8: split64}
