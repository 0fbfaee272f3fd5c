"""Checkpoints of a training: the last one and the best one, each whole or not there at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from corecompress.errors import CorecompressError
from corecompress.journal import sync
from corecompress.training.quiet import quiet

STATE = "training.json"


@dataclass
class State:
    """Where a training is. step: updates that are done; losses, evaluations: (step, value) so far; best: the step with
    the lowest value on the evaluation split; seconds: spent so far; parts: each objective at the last evaluation."""

    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: int = 0
    stopped: str = ""

    @property
    def best(self) -> int | None:
        """The step with the lowest value on the evaluation split."""
        return min(self.evaluations, key=lambda found: (found[1], found[0]))[0] if self.evaluations else None


class Checkpoints:
    """Folders `step-N` in `folder`, written by accelerate (model, optimizer, schedule, random numbers)."""

    def __init__(self, folder: Path, accelerator: Any):
        self.folder, self.accelerator = folder, accelerator

    def last(self) -> Path | None:
        """The newest whole one."""
        found = [path for path in self.folder.glob("step-*") if (path / STATE).exists()]
        return max(found, key=lambda path: int(path.name[5:]), default=None)

    def save(self, state: State) -> None:
        """Write one, then drop those that are neither the last nor the best.

        Raises CorecompressError when it can't be written (a full disk); the earlier ones stay.
        """
        target, scratch = self.folder / f"step-{state.step:07d}", self.folder / "writing"
        main = self.accelerator.is_main_process
        if main:
            shutil.rmtree(scratch, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            with quiet():
                self.accelerator.save_state(str(scratch))
            if main:
                (scratch / STATE).write_text(json.dumps(vars(state)))
                for path in scratch.rglob("*"):
                    sync(path)
        except (OSError, RuntimeError, SafetensorError) as problem:
            shutil.rmtree(scratch, ignore_errors=True)
            raise CorecompressError(self._not_saved(problem)) from None
        self.accelerator.wait_for_everyone()
        if main:
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
            self._drop(state)
        self.accelerator.wait_for_everyone()

    def _not_saved(self, problem: Exception) -> str:
        last, reason = self.last(), " ".join(str(problem).split())[:160]
        kept = f"the last good one, {last.name}, stays there: make room and add --resume" if last else "make room"
        return f"{self.folder}: the checkpoint could not be written ({reason}); {kept}"

    def _drop(self, state: State) -> None:
        kept = {f"step-{step:07d}" for step in (state.step, state.best) if step is not None}
        for path in self.folder.glob("step-*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def load(self, path: Path) -> State:
        """Make model, optimizer and all that what they were. Raises CorecompressError for a damaged one."""
        try:
            with quiet():
                self.accelerator.load_state(str(path))
            found = json.loads((path / STATE).read_text())
        except Exception as problem:
            reason = " ".join(str(problem).split())[:160]
            raise CorecompressError(f"{path}: can't be gone on from ({reason}); start again with --force") from None
        for name in ("losses", "evaluations"):
            found[name] = [(int(step), float(value)) for step, value in found[name]]
        return State(**found)

    def best(self, state: State) -> Path | None:
        """The best one, if that isn't the last."""
        path = self.folder / f"step-{state.best or 0:07d}"
        return path if state.best not in (None, state.step) and (path / STATE).exists() else None
