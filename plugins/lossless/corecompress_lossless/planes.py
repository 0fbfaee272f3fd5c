"""Elements of 2, 4 or 8 bytes as byte planes, and back.

Of a float the upper 16 bits are rotated left by one, so that the sign leaves the exponent's byte: the top plane of
BF16, F32 and C64 is then exactly the exponent, and the plane below it the sign and seven bits of the mantissa.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint8, uint16, uint32, uint64


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
        low = uint64(p0[i]) | (uint64(p1[i]) << uint64(8)) | (uint64(p2[i]) << uint64(16)) | (uint64(p3[i]) << uint64(24))
        top = uint64(p6[i]) | (uint64(p7[i]) << uint64(8))
        if rotate:
            top = (top >> uint64(1)) | ((top & uint64(1)) << uint64(15))
        words[i] = low | (uint64(p4[i]) << uint64(32)) | (uint64(p5[i]) << uint64(40)) | (top << uint64(48))


SPLIT = {2: split16, 4: split32, 8: split64}
MERGE = {2: merge16, 4: merge32, 8: merge64}
WORD = {2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
