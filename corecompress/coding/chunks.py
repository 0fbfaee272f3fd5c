"""Chunks: pieces of a stream that decode on their own, so that threads can share the work.

    varint count · varint byte length of each chunk · the chunks
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from corecompress.coding.tables import get_varint, put_varint
from corecompress.errors import CorruptData

Item = TypeVar("Item")
Result = TypeVar("Result")


def join_chunks(chunks: Iterable[bytes]) -> bytes:
    """Directory and chunks as one stream."""
    pieces = list(chunks)
    head = bytearray()
    put_varint(head, len(pieces))
    for piece in pieces:
        put_varint(head, len(piece))
    return b"".join([head, *pieces])


def split_chunks(data: memoryview, count: int) -> list[memoryview]:
    """The chunks of a stream that must have `count` of them and nothing else. Raises CorruptData."""
    head = bytes(data[: 5 * (count + 1)])
    said, at = get_varint(head, 0)
    if said != count:
        raise CorruptData(f"{said} chunks where {count} belong")
    lengths = []
    for _ in range(count):
        length, at = get_varint(head, at)
        lengths.append(length)
    if at + sum(lengths) != len(data):
        raise CorruptData("chunks are longer or shorter than their directory says")
    chunks = []
    for length in lengths:
        chunks.append(data[at : at + length])
        at += length
    return chunks


def map_chunks(work: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    """[work(item) …], in `threads` threads where there is more than one item (the kernels release the lock)."""
    if threads <= 1 or len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(work, items))
