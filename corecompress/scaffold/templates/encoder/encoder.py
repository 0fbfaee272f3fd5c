"""The encoder `$distribution`: chunks of weights turned into their principal components (the Karhunen-Loeve transform).

The transform is orthogonal, so what quantisation costs the latents is what it costs the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corecompress import CorecompressError, option


@dataclass(frozen=True)
class Options:
    """Options of `$distribution`."""

    chunk: int = option(16, "weights of a chunk")

    def __post_init__(self) -> None:
        if not 2 <= self.chunk <= 256:
            raise ValueError(f"chunk is {self.chunk}; it takes 2 to 256")


class Principal:
    """y = x @ basis and x = y @ basis.T."""

    Options = Options

    def __init__(self, options):
        self.options = options
        self.basis = np.eye(options.chunk, dtype=np.float32)

    def fit(self, data, prior, *, seed=0, target_loss=None, progress, scratch=None):
        """Eigenvectors of the second moments of the training split; there is nothing that more steps would improve."""
        progress.start("principal components", 0)
        moments = np.zeros((self.options.chunk, self.options.chunk))
        for batch in data.batches(seed, "training"):
            x = np.asarray(batch["x"], np.float64)
            if x.shape[1] != self.options.chunk:
                raise CorecompressError(f"$distribution(chunk={self.options.chunk}): the data have chunks of {x.shape[1]}")
            moments += x.T @ x
        _, vectors = np.linalg.eigh(moments)
        vectors = vectors[:, ::-1]  # the largest component first
        largest = np.abs(vectors).argmax(0)
        signs = np.sign(vectors[largest, np.arange(len(largest))])  # eigenvectors have no sign of their own
        self.basis = np.ascontiguousarray(vectors * signs, np.float32)

    def encode(self, x):
        """x [n, chunk] -> latents float32 [n, chunk]."""
        return np.asarray(x, np.float32) @ self.basis

    def decode(self, latents):
        """latents [n, chunk] -> x float32 [n, chunk]."""
        return np.asarray(latents, np.float32) @ self.basis.T

    def state_dict(self):
        """The basis."""
        return {"basis": self.basis}

    def load_state_dict(self, state):
        """Become the encoder that gave `state`."""
        self.basis = np.ascontiguousarray(state["basis"], np.float32)
