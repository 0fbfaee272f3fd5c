"""The compressor `acme-prune`: magnitude pruning (S. Han et al., arXiv:1506.02626), also in the 2:4 pattern that tensor
cores know (A. Mishra et al., arXiv:2104.08378)."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from corecompress import Tensor, TensorInfo, option
from corecompress.components import Job, ModelCompressor
from corecompress.floats import FLOATS, from_float32, to_float32
from corecompress.rewrite import rewrite_checkpoint


@dataclass(frozen=True)
class Options:
    """Options of `acme-prune`."""

    sparsity: float = option(0.5, "share of a matrix that becomes zero")
    pattern: Literal["unstructured", "2:4"] = option(
        "unstructured", "the smallest of a matrix, or the two smallest of every four neighbours in a row"
    )
    keep: tuple[str, ...] = option(("*embed*", "lm_head*"), "patterns of tensors that stay as they are")

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity:g}; it takes a share between 0 and 1")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("pattern 2:4 has a sparsity of 0.5; leave sparsity out")


class Prune(ModelCompressor):
    """Another checkpoint of the same shapes, with zeros in its matrices."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options):
        self.options = options

    def compress(self, job: Job, out: Path) -> None:
        """Write job.source into `out`, its matrices pruned."""
        rewrite_checkpoint(job.source, out, self.prune, job.progress)

    def prune(self, tensor: Tensor) -> Tensor:
        """The tensor with zeros; what is no matrix of floats, or is kept by name, as it is."""
        if not self.wants(tensor.info):
            return tensor
        values = to_float32(tensor.data, tensor.info.dtype)
        values[self.smallest(np.abs(values), tensor.info)] = 0
        return Tensor(tensor.info, from_float32(values, tensor.info.dtype))

    def wants(self, info: TensorInfo) -> bool:
        """Matrices of floats whose name no pattern keeps."""
        kept = any(fnmatch.fnmatchcase(info.name, pattern) for pattern in self.options.keep)
        return info.dtype in FLOATS and len(info.shape) >= 2 and info.size > 0 and not kept

    def smallest(self, magnitudes: NDArray[np.float32], info: TensorInfo) -> NDArray[np.int64]:
        """Places of the weights that go, int64 [k]; of equal ones the first."""
        if self.options.pattern == "2:4":
            whole = magnitudes.size // 4 * 4
            if info.shape[-1] % 4:
                return np.zeros(0, np.int64)
            order = np.argsort(magnitudes[:whole].reshape(-1, 4), axis=1, kind="stable")[:, :2]
            return (order + 4 * np.arange(whole // 4)[:, None]).reshape(-1)
        count = round(self.options.sparsity * magnitudes.size)
        return np.argsort(magnitudes, kind="stable")[:count]
