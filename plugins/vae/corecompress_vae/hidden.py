"""Hidden states of all pieces of the data, in memory or in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class Hidden:
    """One array float32 a piece; path: a file for those that are too many for memory, or None."""

    def __init__(self, path: Path | None):
        self.path, self.shapes = path, list[torch.Size]()
        self.held: list[torch.Tensor] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    def append(self, h: torch.Tensor) -> None:
        self.shapes.append(h.shape)
        if self.path is None:
            self.held.append(h.cpu())
            return
        with open(self.path, "ab") as file:
            h.cpu().contiguous().numpy().tofile(file)

    def read(self, number: int) -> torch.Tensor:
        if self.path is None:
            return self.held[number].detach().clone()  # there are blocks that write into what they are given
        values = np.fromfile(self.path, np.float32, self.shapes[number].numel(), offset=self._offset(number))
        return torch.from_numpy(values).reshape(self.shapes[number])

    def write(self, number: int, h: torch.Tensor) -> None:
        """In place of what has the same shape."""
        if self.path is None:
            self.held[number] = h.cpu()
            return
        with open(self.path, "r+b") as file:
            file.seek(self._offset(number))
            h.cpu().contiguous().numpy().tofile(file)

    def clear(self) -> None:
        """Forget all of them."""
        self.held.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _offset(self, number: int) -> int:
        return 4 * sum(shape.numel() for shape in self.shapes[:number])
