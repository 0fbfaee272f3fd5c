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
from corecompress.coding.rans import SLOTS
from corecompress.coding.scratch import scratch
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
    data = np.frombuffer(payload.toreadonly(), np.uint8)  # one form of array, or kernels would be compiled twice
    lengths = [len(piece) for piece in split_chunks(payload, width * -(-out.size // CHUNK))]
    ends = data.size - sum(lengths) + np.cumsum([0, *lengths])
    count = len(lengths) // width
    cuts = [count * k // threads for k in range(threads + 1)]

    def work(share: tuple[int, int]) -> None:
        first, last = share
        pieces, target = ends[first * width : last * width + 1], out[first * CHUNK : last * CHUNK]
        planes = scratch("planes", CHUNK, np.uint8).reshape(width, CHUNK // width)
        table = np.empty(SLOTS, np.uint32)
        whole = DECODE[width](data, pieces, rotate, planes, planes.view("<u2"), table, target.view(f"<u{width}"))
        if not whole:
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
def _plane(data, ends, at, n, scratch, pairs, table):  # type: ignore[no-untyped-def]
    """(whether the block data[ends[at] : ends[at + 1]] is whole, its n bytes): of a stored one the payload's own."""
    start, end = ends[at], ends[at + 1]
    if end - start == n + 1 and data[start] == STORED:
        return True, data[start + 1 : end]
    return read_block(data[start:end], scratch[:n], pairs[: n // 2], table), scratch[:n]


@njit(cache=True, nogil=True)
def decode8(data, ends, rotate, planes, pairs, table, out):  # type: ignore[no-untyped-def]
    """Decode chunks into out uint8 [n], elements of one byte; False for damage.

    data: uint8, in which ends [chunks · width + 1] bound the blocks, plane by plane; rotate: whether signs were moved;
    planes: uint8 [width, elements of a chunk] and pairs: the same memory as uint16; table: uint32 [4096], changed.
    One kernel for all of it, so that a thread that decodes needs Python's lock once a tensor.
    """
    chunk = planes.shape[1]
    for number in range(ends.size - 1):
        target = out[number * chunk : (number + 1) * chunk]
        ok, p0 = _plane(data, ends, number, target.size, planes[0], pairs[0], table)
        if not ok:
            return False
        for i in range(target.size):
            target[i] = p0[i]
    return True


@njit(cache=True, nogil=True)
def decode16(data, ends, rotate, planes, pairs, table, out):  # type: ignore[no-untyped-def]
    """The same for elements of two bytes, out uint16 [n]."""
    chunk = planes.shape[1]
    for number in range((ends.size - 1) // 2):
        target, at = out[number * chunk : (number + 1) * chunk], 2 * number
        ok0, p0 = _plane(data, ends, at, target.size, planes[0], pairs[0], table)
        ok1, p1 = _plane(data, ends, at + 1, target.size, planes[1], pairs[1], table)
        if not (ok0 and ok1):
            return False
        merge16(p0, p1, rotate, target)
    return True


@njit(cache=True, nogil=True)
def decode32(data, ends, rotate, planes, pairs, table, out):  # type: ignore[no-untyped-def]
    """The same for elements of four bytes, out uint32 [n]."""
    chunk = planes.shape[1]
    for number in range((ends.size - 1) // 4):
        target, at = out[number * chunk : (number + 1) * chunk], 4 * number
        ok0, p0 = _plane(data, ends, at, target.size, planes[0], pairs[0], table)
        ok1, p1 = _plane(data, ends, at + 1, target.size, planes[1], pairs[1], table)
        ok2, p2 = _plane(data, ends, at + 2, target.size, planes[2], pairs[2], table)
        ok3, p3 = _plane(data, ends, at + 3, target.size, planes[3], pairs[3], table)
        if not (ok0 and ok1 and ok2 and ok3):
            return False
        merge32(p0, p1, p2, p3, rotate, target)
    return True


@njit(cache=True, nogil=True)
def decode64(data, ends, rotate, planes, pairs, table, out):  # type: ignore[no-untyped-def]
    """The same for elements of eight bytes, out uint64 [n]."""
    chunk = planes.shape[1]
    for number in range((ends.size - 1) // 8):
        target, at = out[number * chunk : (number + 1) * chunk], 8 * number
        ok0, p0 = _plane(data, ends, at, target.size, planes[0], pairs[0], table)
        ok1, p1 = _plane(data, ends, at + 1, target.size, planes[1], pairs[1], table)
        ok2, p2 = _plane(data, ends, at + 2, target.size, planes[2], pairs[2], table)
        ok3, p3 = _plane(data, ends, at + 3, target.size, planes[3], pairs[3], table)
        ok4, p4 = _plane(data, ends, at + 4, target.size, planes[4], pairs[4], table)
        ok5, p5 = _plane(data, ends, at + 5, target.size, planes[5], pairs[5], table)
        ok6, p6 = _plane(data, ends, at + 6, target.size, planes[6], pairs[6], table)
        ok7, p7 = _plane(data, ends, at + 7, target.size, planes[7], pairs[7], table)
        if not (ok0 and ok1 and ok2 and ok3 and ok4 and ok5 and ok6 and ok7):
            return False
        merge64(p0, p1, p2, p3, p4, p5, p6, p7, rotate, target)
    return True


SPLIT = {2: split16, 4: split32, 8: split64}
DECODE = {1: decode8, 2: decode16, 4: decode32, 8: decode64}
