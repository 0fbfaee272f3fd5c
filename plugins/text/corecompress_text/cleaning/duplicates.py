"""Repeated documents: exact ones by hash, near ones by MinHash (Broder 1997) in bands (Leskovec et al., ch. 3.4).

The index is a database on disk with a bounded cache, so memory does not grow with the corpus. The first of several
stays. Hashes do not depend on the process.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numba import njit
from numpy.typing import NDArray

from corecompress_text.cleaning.document import Document

SHINGLE = 5
HASHES, BANDS = 128, 16
THRESHOLD = 0.8
_SPACE = re.compile(r"\s+")
_RNG = np.random.default_rng(20260101)
_MULTIPLIERS = (_RNG.integers(1, 1 << 32, HASHES, dtype=np.uint64) | 1).astype(np.uint32)
_OFFSETS = _RNG.integers(0, 1 << 32, HASHES, dtype=np.uint64).astype(np.uint32)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _minhash(codes: Any, multipliers: Any, offsets: Any) -> Any:
    """Smallest value of each hash function over the 5-grams of code points: uint32 [HASHES]."""
    signature = np.full(multipliers.size, 0xFFFFFFFF, np.uint32)
    for start in range(max(1, codes.size - SHINGLE + 1)):
        mixed = np.uint64(0x9E3779B97F4A7C15)
        for at in range(start, min(start + SHINGLE, codes.size)):
            mixed = (mixed ^ np.uint64(codes[at])) * np.uint64(0xFF51AFD7ED558CCD)
            mixed ^= mixed >> np.uint64(29)
        value = np.uint32(mixed >> np.uint64(32))
        for k in range(multipliers.size):
            hashed = np.uint32(value * multipliers[k] + offsets[k])
            signature[k] = min(signature[k], hashed)
    return signature


class Duplicates:
    """Drops documents that were seen before, exactly (but for blanks and case) or nearly."""

    def __init__(self, scratch: Path, near: bool):
        self.near = near
        self.number = 0
        self.base = sqlite3.connect(scratch / "duplicates.sqlite", isolation_level=None, check_same_thread=False)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "PRAGMA cache_size=-65536",
            "CREATE TABLE whole (key INTEGER PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE band (key INTEGER PRIMARY KEY, document INTEGER) WITHOUT ROWID",
            "CREATE TABLE signature (document INTEGER PRIMARY KEY, value BLOB)",
            "BEGIN",
        ):
            self.base.execute(statement)

    def __call__(self, batch: list[Document]) -> list[Document]:
        kept = [document for document in batch if not self._seen(document.text)]
        self.base.execute("COMMIT")
        self.base.execute("BEGIN")
        return kept

    def _seen(self, text: str) -> bool:
        plain = _SPACE.sub(" ", text).strip().lower()
        key = _signed(xxhash.xxh3_64_intdigest(plain.encode("utf-8", "surrogatepass")))
        if self.base.execute("INSERT OR IGNORE INTO whole VALUES (?)", (key,)).rowcount == 0:
            return True
        return self.near and self._nearly_seen(plain)

    def _nearly_seen(self, plain: str) -> bool:
        codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32)
        signature: NDArray[np.uint32] = _minhash(codes, _MULTIPLIERS, _OFFSETS)
        rows = signature.reshape(BANDS, -1)
        keys = [_signed(xxhash.xxh3_64_intdigest(row.tobytes(), band)) for band, row in enumerate(rows)]
        marks = ",".join("?" * BANDS)
        found = self.base.execute(
            f"SELECT DISTINCT value FROM band JOIN signature USING (document) WHERE key IN ({marks})", keys
        )
        for (value,) in found:
            if np.count_nonzero(np.frombuffer(value, np.uint32) == signature) >= THRESHOLD * HASHES:
                return True
        self.number += 1
        self.base.execute("INSERT INTO signature VALUES (?, ?)", (self.number, signature.tobytes()))
        self.base.executemany("INSERT OR IGNORE INTO band VALUES (?, ?)", [(key, self.number) for key in keys])
        return False


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
