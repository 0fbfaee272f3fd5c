"""Products of a matrix with itself."""

from __future__ import annotations

import torch

WIDTH = 384
"""Columns of a part of the product; what lies below the diagonal is mirrored, not multiplied."""


def add_gram(h: torch.Tensor, a: torch.Tensor, scale: float = 1.0) -> None:
    """h float32 [n, n] += scale · aᵀ a, of a [t, n]."""
    parts = [slice(start, start + WIDTH) for start in range(0, a.shape[1], WIDTH)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            found = (a[:, rows].T @ a[:, columns]).float()
            h[rows, columns].add_(found, alpha=scale)
            if columns is not rows:
                h[columns, rows].add_(found.T, alpha=scale)
