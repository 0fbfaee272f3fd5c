"""Chunks: pieces of a stream that decode on their own, so that threads can share the work.

varint count · varint byte length of each chunk · the chunks
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.tables import get_varint, put_varint
from corecompress.errors import CorruptData

Part = bytes | NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


def join_chunks(chunks: list[list[Part]], before: bytes = b"") -> NDArray[np.uint8]:
    """`before`, the directory and the chunks, each a list of parts, as one stream uint8 [n]."""
    head = bytearray(before)
    put_varint(head, len(chunks))
    for chunk in chunks:
        put_varint(head, sum(map(len, chunk)))
    out = np.empty(len(head) + sum(len(part) for chunk in chunks for part in chunk), np.uint8)
    at = 0
    for part in [bytes(head), *(part for chunk in chunks for part in chunk)]:
        out[at : at + len(part)] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        at += len(part)
    return out


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


def map_chunks(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """[work(item) …], shared between this thread and `threads` − 1 others (the kernels release the lock)."""
    threads = min(threads, len(items))
    if threads <= 1:
        return [work(item) for item in items]
    cuts = [len(items) * k // threads for k in range(threads + 1)]

    def run(k: int) -> list[Result]:
        return [work(item) for item in items[cuts[k] : cuts[k + 1]]]

    others = [_helpers().submit(run, k) for k in range(1, threads)]
    results = run(0)
    for other in others:
        results += other.result()
    return results


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that are kept: starting them costs as much as decoding a small tensor. They never wait for each other."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="corecompress-chunks")
