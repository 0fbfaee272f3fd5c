"""A frozen prior: integer tables, and nothing that a float could change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corecompress.coding import Tables, decode, encode


@dataclass(frozen=True)
class TableCoder:
    """One table, or one for every scale class: the context of a symbol is then its class, a whole number."""

    tables: Tables

    def compress(self, symbols: NDArray[Any], context: NDArray[Any] | None = None) -> bytes:
        """Whole numbers [n] with their classes [n] -> coded bytes; symbols without a slot are escaped."""
        return encode(np.asarray(symbols), self.tables, context).tobytes()

    def decompress(self, data: bytes, n: int, context: NDArray[Any] | None = None) -> NDArray[np.int32]:
        """The n symbols, int32 [n]. Raises CorruptData on bytes that `compress` never wrote."""
        return decode(data, n, self.tables, context)

    def bits(self, symbols: NDArray[Any], context: NDArray[Any] | None = None) -> float:
        """Bits of symbols [n] under the tables, escapes included."""
        return self.tables.bits(np.asarray(symbols), context)

    def to_bytes(self) -> bytes:
        """The tables."""
        return self.tables.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> TableCoder:
        """Raises CorruptData for bytes that `to_bytes` never wrote."""
        return cls(Tables.from_bytes(data))
