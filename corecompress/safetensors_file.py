"""The safetensors container: headers read without data, tensors read one by one with pread, files written in order.

Format: https://github.com/huggingface/safetensors#format. Reading maps nothing, so that a tensor's bytes count as
memory only while somebody holds them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.components import BITS, Tensor, TensorInfo
from corecompress.errors import CorecompressError

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER = 100_000_000
"""Bytes of JSON header that the format's own reader accepts at most."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor stands: its file, and the offset of its first byte in it."""

    info: TensorInfo
    path: Path
    start: int

    def read(self) -> Tensor:
        """The tensor's bytes, in memory of their own."""
        return Tensor(self.info, read_range(self.path, self.start, self.info.nbytes))


@dataclass(frozen=True)
class Header:
    """A safetensors file's header: its metadata and its tensors in the order of their bytes."""

    path: Path
    metadata: dict[str, str]
    tensors: tuple[Stored, ...]
    data_start: int


def read_range(path: Path, start: int, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`length` bytes from `start`, uint8. Raises CorecompressError when the file is shorter."""
    import numpy as np

    buffer = np.empty(length, np.uint8)
    view, got = memoryview(buffer.data), 0
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while got < length:
            n = file.readinto(view[got:])
            if not n:
                raise CorecompressError(
                    f"{path}: ends at byte {start + got}, {length - got} bytes too early; fetch it again"
                )
            got += n
    return buffer


def read_header(path: Path) -> Header:
    """Parse and check a header. Raises CorecompressError that names the file and what is wrong with it."""

    def bad(what: str) -> CorecompressError:
        return CorecompressError(f"{path}: {what}; the file is damaged, fetch or save it again")

    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise bad(f"no safetensors header fits into its {size} bytes (truncated?)")
        text = file.read(length)
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
        metadata = entries.pop("__metadata__", {})
        if not all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items()):
            raise ValueError("its metadata is not text")
        placed = sorted(
            ((_place(name, entry), name) for name, entry in entries.items()), key=lambda p: (p[0][1], p[0][2])
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise bad(f"its header can't be read ({problem})") from None
    tensors, position = [], 0
    for (info, start, end), name in placed:
        if start != position or end - start != (info.size * BITS[info.dtype] + 7) // 8:
            what = (
                "overlaps the one before it" if start < position else "leaves a gap or has another size than its shape"
            )
            raise bad(f"tensor '{name}' {what}")
        tensors.append(Stored(info, path, 8 + length + start))
        position = end
    if 8 + length + position != size:
        raise bad(f"its tensors need {8 + length + position} bytes, the file has {size} (truncated?)")
    return Header(path, metadata, tuple(tensors), 8 + length)


def header_bytes(infos: Iterable[TensorInfo], metadata: dict[str, str], room: int = 0) -> bytes:
    """A file's first bytes for tensors that follow in this order, padded with spaces to at least `room` bytes."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for info in infos:
        nbytes = (info.size * BITS[info.dtype] + 7) // 8
        entries[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [position, position + nbytes],
        }
        position += nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    length = max(-(-len(text) // 8) * 8, room - 8)
    return length.to_bytes(8, "little") + text.ljust(length)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """A file of numpy arrays, in the order of their names."""
    import numpy as np

    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    kinds = {"f": "F", "i": "I", "u": "U"}
    infos = [
        TensorInfo(
            name,
            "BOOL" if value.dtype.kind == "b" else f"{kinds[value.dtype.kind]}{8 * value.dtype.itemsize}",
            np.shape(arrays[name]),
        )
        for name, value in ordered.items()
    ]
    with open(path, "wb") as file:
        file.write(header_bytes(infos, {}))
        for value in ordered.values():
            file.write(value.astype(value.dtype.newbyteorder("<")).tobytes())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands in it twice")
    return entries


def _place(name: str, entry: dict[str, Any]) -> tuple[TensorInfo, int, int]:
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, end]
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63 for n in numbers):
        raise ValueError(f"tensor '{name}' has an impossible shape or offset")
    if dtype not in BITS:
        raise ValueError(f"tensor '{name}' has the unknown dtype {dtype}")
    return TensorInfo(name, dtype, tuple(shape)), start, end
