"""How tensors become matrices: rows are outputs, columns are what they are summed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from corecompress.components import TensorInfo
from corecompress.floats import FLOATS

CODED = (*FLOATS, "F64")
"""Dtypes of weights: what float32 holds, or comes so near to that a step is far coarser."""
SMALLEST = 1024
"""Weights below which a matrix's scales and tables would eat what coding saves: it stays exact."""
EXPERT = 64
"""A 3-D tensor whose last two extents reach this is a stack of matrices; otherwise its last one is a kernel's."""


@dataclass(frozen=True)
class Layout:
    """`count` matrices of `rows` × `columns`, one behind the other; turned: each stands transposed in the tensor."""

    count: int
    rows: int
    columns: int
    turned: bool = False

    def other_way(self) -> Layout:
        """The same tensor with rows and columns exchanged."""
        return Layout(self.count, self.columns, self.rows, not self.turned)

    def matrices(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The matrices [count, rows, columns] of a tensor's elements, as views."""
        if self.turned:
            return flat.reshape(self.count, self.columns, self.rows).transpose(0, 2, 1)
        return flat.reshape(self.count, self.rows, self.columns)


def layout_of(info: TensorInfo) -> Layout | None:
    """The matrices of a tensor; None for one that is coded exactly (norms, biases, whole numbers, tiny ones)."""
    if info.dtype not in CODED or len(info.shape) < 2 or info.size < SMALLEST:
        return None
    if len(info.shape) == 3 and min(info.shape[1:]) >= EXPERT:
        return Layout(info.shape[0], info.shape[1], info.shape[2])
    rows, columns = info.shape[0], info.size // info.shape[0]
    if rows < columns // 64:  # a trellis wants to run down something
        return Layout(1, columns, rows, turned=True)
    return Layout(1, rows, columns)
