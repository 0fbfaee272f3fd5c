"""The compressor `$distribution`: every group of weights on a grid of its own, the grid points entropy coded.

Payload of a tensor: step of each group (float32) · whole numbers, entropy coded with the table of the tensor.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from corecompress import option
from corecompress.coding import Tables, decode, encode
from corecompress.components import TensorCompressor
from corecompress.errors import CorruptData
from corecompress.floats import FLOATS, from_float32, to_float32


@dataclass(frozen=True)
class Options:
    """Options of `$distribution`."""

    bits: int = option(4, "a grid has 2^bits - 1 points for each group; entropy coding then takes less than that")
    group: int = option(64, "weights that share a step")

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits is {self.bits}; it takes 2 to 8")
        if not 8 <= self.group <= 65536:
            raise ValueError(f"group is {self.group}; it takes 8 to 65536")


class RoundToNearest(TensorCompressor):
    """Matrices of floats; all else goes to the recipe's next rule."""

    Options = Options

    def __init__(self, options):
        self.options = options

    def accepts(self, info):
        """Matrices of some size. What is declined goes to the next rule, at last to `lossless`."""
        return info.dtype in FLOATS and len(info.shape) >= 2 and info.size >= 1024

    def memory(self, info):
        """Bytes in and out, and about four arrays of float32 or int32 between."""
        return 2 * info.nbytes + 20 * info.size + (4 << 20)

    def encode(self, tensor):
        """Round to the nearest point. A group that holds no-numbers can't be rounded: its tensor is kept as it is."""
        values = to_float32(tensor.data, tensor.info.dtype)
        if not np.isfinite(values).all():
            return b"\0" + tensor.data.tobytes()
        groups = in_groups(values, self.options.group)
        most = 2 ** (self.options.bits - 1) - 1
        steps = np.abs(groups).max(1) / np.float32(most)
        safe = np.where(steps > 0, steps, np.float32(1))
        points = np.rint(groups / safe[:, None]).clip(-most, most).astype(np.int32).reshape(-1)
        tables = Tables.from_counts([np.bincount(points + most, minlength=2 * most + 1)], [-most])
        table = tables.to_bytes()
        head = b"\1" + struct.pack("<H", len(table)) + table + steps.astype("<f4").tobytes()
        return head + encode(points, tables).tobytes()

    def decode(self, payload, info, threads=1):
        """The same backwards. Whatever does not fit is damage."""
        data = bytes(payload)
        if data[:1] == b"\0" and len(data) == info.nbytes + 1:
            return np.frombuffer(data, np.uint8)[1:]
        count = -(-info.size // self.options.group)
        if data[:1] != b"\1" or len(data) < 3:
            raise CorruptData("a payload begins with no known byte")
        start = 3 + struct.unpack("<H", data[1:3])[0]
        end = start + 4 * count
        if len(data) < end:
            raise CorruptData("a payload is cut off")
        tables = Tables.from_bytes(data[3:start])
        steps = np.frombuffer(data[start:end], "<f4")
        points = decode(data[end:], count * self.options.group, tables, threads=threads)
        with np.errstate(all="ignore"):  # damaged steps give wrong values, which the recorded hash tells
            values = points.reshape(count, -1) * steps[:, None]
        return from_float32(values.reshape(-1)[: info.size].astype(np.float32), info.dtype)


def in_groups(values, group):
    """float32 [n] -> [ceil(n / group), group], zeros at the end."""
    padded = np.zeros(-(-values.size // group) * group, np.float32)
    padded[: values.size] = values
    return padded.reshape(-1, group)
