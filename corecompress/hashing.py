"""SHA-256 of bytes and files, in hex, as sha256sum prints it."""

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


def hash_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Hash of a file. `progress` gets the bytes of each block."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()
