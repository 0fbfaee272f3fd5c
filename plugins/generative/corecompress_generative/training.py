"""The training of every encoder here, on one page.

for every batch and player:  loss ─► backward ─► clip ─► Adam;  now and then a look at the evaluation split
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from corecompress.components import Progress
from corecompress.errors import CorecompressError
from corecompress.training.checkpoints import Checkpoints, State
from corecompress.training.processes import make_accelerator
from corecompress_generative.model import Inputs

OBJECTIVE = "objective"
LOOKS = 10
"""At the evaluation split, and checkpoints, in a training."""


@dataclass(frozen=True)
class Plan:
    """steps: updates; rate: Adam's highest learning rate; settled: share of the steps after which the loss on the
    evaluation split means something (annealing is over); best: whether the step with the lowest such loss is taken in
    the end, else the last; target: that loss, in bits a value, to stop at; seconds: time after which it stops."""

    steps: int
    rate: float
    clip: float = 5.0
    settled: float = 0.0
    best: bool = True
    target: float | None = None
    seconds: float | None = None

    @property
    def every(self) -> int:
        """Updates between two looks."""
        return max(1, self.steps // LOOKS)

    def rate_at(self, step: int) -> float:
        """Constant, then down to a twentieth along half a cosine in the last third."""
        late = max(0.0, 3 * step / self.steps - 2)
        return self.rate * (0.05 + 0.475 * (1 + math.cos(math.pi * late)))


class Player(torch.nn.Module):
    """What learns: a module whose forward pass is a loss. A GAN has two, which take turns."""

    betas = (0.9, 0.999)

    def trained(self) -> Sequence[torch.nn.Parameter]:
        """What its optimizer moves."""
        return [p for p in self.parameters() if p.requires_grad]

    def begin(self, share: float, before: float) -> None:
        """Called before the update at `share` of the training, the last one having been at `before`."""

    def forward(self, batch: Inputs, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(what is minimised, parts to show) of a batch, at `share` of the training (0 … 1). Of the first player the
        parts have the `loss` of the plot, in the unit of the looks."""
        raise NotImplementedError


def train(
    players: Sequence[Player],
    feed: Callable[[int], Iterator[Inputs]],
    look: Callable[[], dict[str, float]],
    plan: Plan,
    scratch: Path | None,
    progress: Progress,
) -> State:
    """Train; feed(step): batches from that update on; look(): {"loss": bits a value, "rate": …, "distortion": …}.

    Each of several processes takes a batch of every update. Goes on from the last checkpoint in `scratch`. A loss that
    is no number ends it at the last good checkpoint. Raises CorecompressError when there is none, and where the target
    was not reached.
    """
    accelerator = make_accelerator()
    world, rank = accelerator.num_processes, accelerator.process_index
    if world > 1:  # other latents are drawn for other samples
        torch.manual_seed(torch.initial_seed() + rank)
    # Players that share networks can't each be wrapped for several processes: gradients are averaged in _update.
    modules = [accelerator.prepare_model(player, evaluation_mode=True) for player in players]
    optimizers = [torch.optim.Adam(player.trained(), lr=plan.rate, betas=player.betas) for player in players]
    optimizers = [accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
    kept = None if scratch is None else Checkpoints(scratch, accelerator)
    last = None if kept is None else kept.last()
    state = kept.load(last) if kept is not None and last is not None else State()
    state.stopped = _reached(state, plan)
    progress.start("training", plan.steps, "steps")
    progress.advance(state.step)
    begun, first, warned = time.monotonic(), state.step, False
    ends = None if plan.seconds is None else begun + plan.seconds
    batches = islice(feed(state.step * world), rank, None, world)
    while state.step < plan.steps and not state.stopped:
        batch = {key: value.to(accelerator.device) for key, value in next(batches).items()}
        parts = _update(accelerator, modules, players, optimizers, batch, plan, state.step)
        if not all(math.isfinite(value) for value in parts.values()):
            return _recovered(kept, state.step, progress)
        state.step += 1
        state.losses.append((state.step, parts["loss"]))
        out_of_time = _agreed(accelerator, ends is not None and time.monotonic() > ends)
        due = state.step % plan.every == 0 or state.step == plan.steps or out_of_time
        if due and (state.step > plan.settled * plan.steps or out_of_time):
            _look(look, players, state, plan)
            left = _updates_left(state.step, plan, (time.monotonic() - begun) / (state.step - first), ends)
            if not warned and not out_of_time and (warned := _falls_short(state, plan, left)):
                reached = f"{state.parts['loss']:.4g} at step {state.step}"
                progress.note(f"at this pace --target-loss {plan.target:g} is not reached: {reached}")
        if due and not _sound(players, state):
            return _recovered(kept, state.step - 1, progress)
        if out_of_time:
            early = ", before the rate had its whole weight" if state.step < plan.settled * plan.steps else ""
            state.stopped = f"stopped by time at step {state.step} of {plan.steps}{early}"
        if kept is not None and due:
            kept.save(state)
        progress.describe(_told(parts, state))
        progress.advance(1)
    _check_target(state, plan, kept is not None)
    if state.stopped and state.step < plan.steps:
        progress.note(state.stopped)
    if kept is not None and plan.best and (best := kept.best(state)) is not None:
        progress.note(f"the best step on the evaluation split was {state.best}; its weights are taken")
        kept.load(best)
    accelerator.wait_for_everyone()
    return state


def _agreed(accelerator: Any, wish: bool) -> bool:
    """Whether any process wishes it."""
    if wish:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


def _update(
    accelerator: Any, modules: Any, players: Any, optimizers: Any, batch: Inputs, plan: Plan, step: int
) -> dict[str, float]:
    """One update of every player; the parts of all losses."""
    share, before = step / plan.steps, (step - 1) / plan.steps
    parts: dict[str, float] = {}
    for player in players:  # all of them: one looks at another's networks
        player.train()
    for module, player, optimizer in zip(modules, players, optimizers, strict=True):
        player.begin(share, before)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate_at(step)
        loss, found = module(batch, share)
        optimizer.zero_grad()
        accelerator.backward(loss)
        if accelerator.num_processes > 1:
            for weight in player.trained():
                weight.grad = None if weight.grad is None else accelerator.reduce(weight.grad, "mean")
        accelerator.clip_grad_norm_(player.trained(), plan.clip)
        optimizer.step()
        shown = accelerator.reduce({OBJECTIVE: loss.detach(), **{k: v.detach() for k, v in found.items()}}, "mean")
        parts = {**{name: float(value) for name, value in shown.items()}, **parts}
    return parts


def _look(look: Any, players: Any, state: State, plan: Plan) -> None:
    """At the evaluation split, where training may stop."""
    for player in players:
        player.eval()
    state.parts = look()
    state.evaluations.append((state.step, state.parts["loss"]))
    state.stopped = _reached(state, plan)


def _updates_left(step: int, plan: Plan, pace: float, ends: float | None) -> float:
    """Until the last one, or until time is up at `pace` seconds an update."""
    in_time = math.inf if ends is None else max(0.0, ends - time.monotonic()) / max(pace, 1e-9)
    return min(plan.steps - step, in_time)


def _falls_short(state: State, plan: Plan, left: float) -> bool:
    """Whether the target is out of reach in `left` updates, even if the loss goes on falling as between the last two
    of at least three looks."""
    values = [value for _, value in state.evaluations]
    if plan.target is None or state.stopped or len(values) < 3:
        return False
    return values[-1] - left / plan.every * max(0.0, values[-2] - values[-1]) > plan.target


def _reached(state: State, plan: Plan) -> str:
    """What to say where the last look is at the target; else nothing."""
    loss = state.evaluations[-1][1] if state.evaluations else math.inf
    if plan.target is None or loss > plan.target:
        return ""
    return f"the evaluation loss is {loss:.4g} bits a value, at most the target {plan.target:g}"


def _sound(players: Sequence[Player], state: State) -> bool:
    """Whether the last look and every weight are numbers: a gradient may spoil weights after a good loss."""
    weights = (weight for player in players for weight in player.parameters())
    return all(map(math.isfinite, state.parts.values())) and all(bool(weight.isfinite().all()) for weight in weights)


def _recovered(kept: Checkpoints | None, step: int, progress: Progress) -> State:
    """Back to the last good checkpoint."""
    last = None if kept is None else kept.last()
    if kept is None or last is None:
        raise CorecompressError(
            f"training: the loss is no number at step {step + 1}, before the first checkpoint; lower learning_rate"
        )
    state = kept.load(last)
    state.stopped = f"the loss was no number at step {step + 1}; what step {state.step} had is kept"
    progress.note(state.stopped)
    return state


def _check_target(state: State, plan: Plan, resumable: bool) -> None:
    if plan.target is None or _reached(state, plan):
        return
    reached = f"{state.evaluations[-1][1]:.4g} bits a value" if state.evaluations else "unknown"
    if state.step < plan.steps and resumable:
        mend = "add --resume and more --max-minutes to go on"
    else:
        mend = "the data may not allow it"
        mend += ": --resume without --target-loss keeps what was learned" if resumable else "; raise it, or the steps"
    raise CorecompressError(
        f"--target-loss: {plan.target:g} was not reached in {state.step} steps (the loss is {reached}); {mend}"
    )


def _told(parts: dict[str, float], state: State) -> str:
    """Loss in bits a value, the others in nats a sample."""
    seen = f" ({state.evaluations[-1][1]:.4g} on the evaluation split)" if state.evaluations else ""
    others = ", ".join(f"{name} {value:.4g}" for name, value in parts.items() if name not in ("loss", OBJECTIVE))
    return f"training: {parts['loss']:.4g} bits a value{seen}; {others} nats"
