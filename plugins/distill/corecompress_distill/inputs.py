"""Batches of data as a model's inputs: what is fed, and which positions count."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corecompress.errors import CorecompressError
from corecompress.measure.outputs import MASKED, decoder_start, mask_id
from corecompress.measure.task import Task

IGNORED = -100
"""The label of a position that has none, as in transformers."""


@dataclass(frozen=True)
class Inputs:
    """model: arguments of forward, as tensors; mask: bool [n, length], positions that hold a token (of the decoder in
    an encoder-decoder), None for images; labels: int64 [n, length] or [n], the right token where one is predicted,
    IGNORED elsewhere, None where the data have none."""

    model: dict[str, torch.Tensor]
    mask: torch.Tensor | None
    labels: torch.Tensor | None

    @property
    def samples(self) -> int:
        return len(next(iter(self.model.values())))

    @property
    def tokens(self) -> int:
        """Tokens that the model reads, padding left out; samples where there are no tokens."""
        return self.samples if self.mask is None else int(self.mask.sum())

    def pick(self, samples: list[int]) -> Inputs:
        """Some of the samples."""

        def picked(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value[samples]

        return Inputs(
            {key: value[samples] for key, value in self.model.items()}, picked(self.mask), picked(self.labels)
        )

    def to(self, device: Any) -> Inputs:
        """The same on a device."""

        def moved(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value.to(device)

        model = {key: value.to(device) for key, value in self.model.items()}
        return Inputs(model, moved(self.mask), moved(self.labels))


class Feeder:
    """Turns batches into inputs for a task. Masked tokens are drawn anew for every batch, from its number."""

    def __init__(self, model: Any, folder: Path, task: Task, seed: int):
        self.task, self.seed = task, seed
        self.forward = inspect.signature(model.forward).parameters
        self.start = decoder_start(model)
        self.mask_token = mask_id(folder) if task == "masked-lm" else 0

    def __call__(self, batch: Mapping[str, Any], number: int) -> Inputs:
        """Inputs of batch `number`. Raises CorecompressError for data that the model takes nothing of."""
        if self.task == "image-classifier" or "input_ids" not in batch:
            return self._arrays(batch)
        ids, mask = torch.from_numpy(batch["input_ids"]), torch.from_numpy(batch["attention_mask"]).bool()
        if self.task == "causal-lm":
            labels = torch.full_like(ids, IGNORED)
            labels[:, :-1] = torch.where(mask[:, 1:] & mask[:, :-1], ids[:, 1:], IGNORED)
            return Inputs({"input_ids": ids, "attention_mask": mask.long()}, mask, labels)
        if self.task == "masked-lm":
            return self._masked(ids, mask, np.random.default_rng([self.seed, number]))
        if self.task == "seq2seq-lm":
            return self._halves(ids, mask)
        return Inputs({"input_ids": ids, "attention_mask": mask.long()}, mask, None)

    def _arrays(self, batch: Mapping[str, Any]) -> Inputs:
        taken = {k: torch.from_numpy(v) for k, v in batch.items() if k in self.forward and v.dtype != object}
        if not taken or (self.task != "other" and "pixel_values" not in taken):
            wants = "images; use captioned:DIR" if "pixel_values" in self.forward else "tokens; use text:FILE"
            raise CorecompressError(f"--data: holds {', '.join(batch)}, but the model needs {wants}")
        labels = taken.pop("labels", None)
        return Inputs(taken, None, labels)

    def _masked(self, ids: torch.Tensor, mask: torch.Tensor, random: np.random.Generator) -> Inputs:
        """A share of the tokens replaced by the mask token, at least one a sample (Devlin et al. 2019)."""
        guess = torch.from_numpy(random.random(ids.shape) < MASKED) & mask
        guess[torch.arange(len(ids)), mask.long().argmax(1)] |= ~guess.any(1)
        hidden = torch.where(guess, self.mask_token, ids)
        model = {"input_ids": hidden, "attention_mask": mask.long()}
        return Inputs(model, mask, torch.where(guess, ids, IGNORED))

    def _halves(self, ids: torch.Tensor, mask: torch.Tensor) -> Inputs:
        """The encoder reads the first half of each text, the decoder predicts the second, as `evaluate` does it."""
        half = max(1, ids.shape[1] // 2)
        if ids.shape[1] < 2 or not mask[:, half:].any():
            half = 1 if ids.shape[1] > 1 else 0
        rest, kept = ids[:, half:], mask[:, half:]
        first = torch.full((len(ids), 1), self.start, dtype=ids.dtype)
        model = {
            "input_ids": ids[:, : max(half, 1)],
            "attention_mask": mask[:, : max(half, 1)].long(),
            "decoder_input_ids": torch.cat([first, rest[:, :-1]], 1),
        }
        return Inputs(model, kept, torch.where(kept, rest, IGNORED))
