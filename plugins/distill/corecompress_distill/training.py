"""The training, on one page: forward, backward, clip, step; now and then a look at the evaluation split."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from corecompress.components import Progress
from corecompress.errors import CorecompressError
from corecompress.training.checkpoints import Checkpoints, State
from corecompress_distill.inputs import Inputs


@dataclass(frozen=True)
class Schedule:
    """How long and how. steps: updates; passes: forward passes of this process in one of them; every: steps between
    evaluations; target: the evaluation loss to stop at."""

    steps: int
    passes: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    every: int
    patience: int
    target: float | None

    def rate(self, step: int) -> float:
        """The learning rate's share of its highest value: up in a line, then down as half a cosine."""
        climb = max(1, round(self.warmup * self.steps))
        if step < climb:
            return (step + 1) / climb
        return 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, self.steps - climb)))


def make_optimizer(model: torch.nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only (Loshchilov and Hutter, arXiv:1711.05101)."""
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def update(accelerator: Any, model: Any, optimizer: Any, schedule: Schedule, step: int, inputs: list[Inputs]) -> float:
    """Update number `step` on some forward passes; the mean loss. Raises CorecompressError where it is no number."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate * schedule.rate(step)
    total = 0.0
    for one in inputs:
        with accelerator.accumulate(model):
            loss = model(one)["loss"]
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss.detach()) / len(inputs)
    if not math.isfinite(total):
        raise CorecompressError(
            f"distill: the loss of update {step + 1} is {total}; start again (--force) with a lower learning_rate or "
            "precision=float32"
        )
    return total


def train(
    accelerator: Any,
    model: Any,
    optimizer: Any,
    feed: Iterator[Inputs],
    watched: list[Inputs],
    schedule: Schedule,
    state: State,
    checkpoints: Checkpoints,
    progress: Progress,
) -> State:
    """Train from `state` to the end, to the target, or until the evaluation split stops improving.

    Raises KeyboardInterrupt after an interrupt, when a checkpoint has been written.
    """
    progress.start("training", schedule.steps, "steps")
    progress.advance(state.step)
    while state.step < schedule.steps and not state.stopped:
        begun = time.perf_counter()
        inputs = [next(feed).to(accelerator.device) for _ in range(schedule.passes)]
        loss = update(accelerator, model, optimizer, schedule, state.step, inputs)
        state.step += 1
        state.tokens += sum(one.tokens for one in inputs) * accelerator.num_processes
        state.losses.append((state.step, loss))
        interrupted = accelerator.check_trigger()
        due = state.step % schedule.every == 0 or state.step == schedule.steps
        if due and watched:
            state.parts = evaluate(accelerator, model, watched)
            state.evaluations.append((state.step, state.parts["loss"]))
            state.stopped = _enough(state, schedule)
        state.seconds += time.perf_counter() - begun
        if interrupted or due:
            checkpoints.save(state)
        if interrupted:
            progress.note(f"interrupted; step {state.step} of {schedule.steps} is saved: go on with --resume")
            raise KeyboardInterrupt
        progress.describe(_told(state, loss))
        progress.advance(1)
    if (best := checkpoints.best(state)) is not None:
        progress.note(f"the best step on the evaluation split was {state.best}; its weights are taken")
        checkpoints.load(best)
    return state


def evaluate(accelerator: Any, model: Any, watched: list[Inputs]) -> dict[str, float]:
    """The objectives on the evaluation split, mean over the samples; the same on every process."""
    totals: dict[str, float] = {}
    samples = sum(one.samples for one in watched)
    with torch.no_grad():
        for one in watched:
            for name, value in model(one.to(accelerator.device)).items():
                totals[name] = totals.get(name, 0.0) + float(value) * one.samples / samples
    return totals


def _enough(state: State, schedule: Schedule) -> str:
    """Why training is over, "" where it isn't."""
    values = [value for _, value in state.evaluations]
    if schedule.target is not None and values[-1] <= schedule.target:
        return f"the evaluation loss is {values[-1]:.4g}, at most the target {schedule.target:g}"
    since = len(values) - 1 - values.index(min(values))
    if since >= schedule.patience:
        return f"no improvement on the evaluation split in {since} looks"
    return ""


def _told(state: State, loss: float) -> str:
    seen = f", {state.evaluations[-1][1]:.4g} on the evaluation split" if state.evaluations else ""
    return f"training: loss {loss:.4g}{seen}"
