"""Two hashes, in hex: SHA-256 for what is kept and shared (as sha256sum prints it), and XXH3 with 128 bits for decoded
tensors, which are checked at every load: it runs at the memory's speed, SHA-256 at less than 2 GB/s."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hash_bytes(*parts: Any) -> str:
    """Hash of anything with a buffer: bytes, memoryviews, contiguous arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def hash_dense(data: Any) -> str:
    """XXH3-128 of a tensor's dense bytes, a contiguous array or bytes."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


def hash_file(
    path: Path, progress: Callable[[int], None] = lambda _: None, start: int = 0, length: int | None = None
) -> str:
    """Hash of a file, or of `length` bytes of it from `start` on. `progress` gets the bytes of each block."""
    digest, left = hashlib.sha256(), path.stat().st_size - start if length is None else length
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while block := file.read(min(left, 1 << 22)):
            digest.update(block)
            progress(len(block))
            left -= len(block)
    return digest.hexdigest()
