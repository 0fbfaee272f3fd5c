"""The loop that trains an encoder and its prior: rate + λ · distortion, noise for rounding, resumable.

for every batch x:  y = analysis(x);  bits = prior.rate(y + noise);  error = (synthesis(y + noise) − x)²
                    loss = mean bits + λ · mean error  ─► Adam
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from corecompress.components import Batch, Data, Progress
from corecompress.errors import CorecompressError
from corecompress_vae.turns import one_thread

SAVE_EVERY = 250
"""Steps between two checkpoints."""
SMOOTH = 0.98
"""Of the running mean of the loss that the target is compared with."""
HELD_OUT = 8
"""Batches of the evaluation split that the figures are from."""
SETTLED = 50
"""Steps before the running mean says anything."""


@dataclass(frozen=True)
class Plan:
    """steps of a training, weights of a chunk, learning rate, λ, seed; target: the loss (bits a weight) at which it
    stops; scratch: a folder for checkpoints, None for none; seconds: time after which it stops, None for no limit."""

    steps: int
    chunk: int
    rate: float
    distortion: float
    seed: int
    target: float | None = None
    scratch: Path | None = None
    seconds: float | None = None


@dataclass
class _State:
    """What a training changes, and where it is."""

    net: Any
    prior: Any
    optimizer: torch.optim.Optimizer
    step: int = 0
    loss: float = 0.0


@one_thread()  # the same weights whatever the number of threads
def train(net: Any, prior: Any, data: Data, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Train net.analysis and net.synthesis and the prior; figures: steps, loss (its running mean), rate, distortion.

    Goes on from the last checkpoint in plan.scratch. Raises CorecompressError where data are missing or of another
    kind, the loss stops being a number, or the target was not reached.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = _begin(net, prior, plan, device)
    batches = _forever(data, plan, state.step)
    progress.start("training", plan.steps)
    progress.advance(state.step)
    ends = None if plan.seconds is None else time.monotonic() + plan.seconds
    while state.step < plan.steps and not _is_reached(state, plan):
        if ends is not None and time.monotonic() > ends:
            progress.note(f"stopped by time at step {state.step} of {plan.steps}")
            break
        x = next(batches).to(device)
        bits, error = _forward(net, prior, x, plan.seed * 1_000_003 + state.step)
        _descend(state, bits + plan.distortion * error, _rate(plan, state.step))
        progress.advance(1)
        if plan.scratch is not None and state.step % SAVE_EVERY == 0:
            _save(plan.scratch, state)
    _check_reached(state, plan)
    net.to("cpu").eval()
    prior.to("cpu")
    return {"steps": state.step, "loss": state.loss, **_held_out(net, prior, data, plan)}


@torch.no_grad()
def _held_out(net: Any, prior: Any, data: Data, plan: Plan) -> dict[str, Any]:
    """Rate and distortion on the first batches of the evaluation split, if there are any."""
    parts = []
    for number, batch in zip(range(HELD_OUT), data.batches(plan.seed, "evaluation"), strict=False):
        parts.append(torch.stack(_forward(net, prior, chunks_of(batch, plan.chunk), number)))
    if not parts:
        return {}
    bits, error = torch.stack(parts).mean(0).tolist()
    return {"held out: bits a weight": bits, "held out: squared error": error}


def chunks_of(batch: Batch, width: int) -> torch.Tensor:
    """The batch's chunks `x` float32 [n, width]. Raises CorecompressError for data of another kind or width."""
    if "x" not in batch:
        raise CorecompressError(
            f"--data: gives {', '.join(batch)}; this encoder learns from chunks of weights: write weights:DIR"
        )
    x = torch.from_numpy(np.ascontiguousarray(batch["x"], np.float32))
    if x.shape[1] != width:
        raise CorecompressError(
            f"--data: gives chunks of {x.shape[1]}, the encoder takes {width}; write weights(chunk={width}):DIR"
        )
    return x


def _begin(net: Any, prior: Any, plan: Plan, device: torch.device) -> _State:
    """At scalar quantisation with about the distortion that λ asks for, or where plan.scratch says."""
    net.to(device).train()
    step_size = (12 / plan.distortion / 2.0) ** 0.5
    net.analysis.scale(1 / step_size)
    net.synthesis.scale(step_size)
    if not hasattr(prior, "log_scale"):
        raise CorecompressError(f"--prior: a {type(prior).__name__} has no parameters that this training could move")
    prior.to(device)
    prior.log_scale = torch.tensor(float(np.log(1 / step_size)), device=device)
    trained = [*net.parameters(), *(value.requires_grad_(True) for value in prior.parameters())]
    optimizer = torch.optim.Adam(trained, lr=plan.rate)
    state = _State(net, prior, optimizer)
    if plan.scratch is not None and (plan.scratch / CHECKPOINT).exists():
        _restore(state, load_file(plan.scratch / CHECKPOINT))
    return state


def _is_reached(state: _State, plan: Plan) -> bool:
    return plan.target is not None and state.step > SETTLED and state.loss <= plan.target


def _check_reached(state: _State, plan: Plan) -> None:
    if plan.target is None or _is_reached(state, plan):
        return
    mend = "give it more steps, or a higher target"
    if state.step < plan.steps and plan.scratch is not None:
        _save(plan.scratch, state)
        mend = "add --resume to go on"
    raise CorecompressError(
        f"--target-loss: {plan.target:g} was not reached in {state.step} steps (it is {state.loss:.4f}); {mend}"
    )


def _forward(net: Any, prior: Any, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean bits a weight, mean squared error) of a batch."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x) - 0.5
    noisy = net.analysis(x) + noise
    return prior.rate(noisy).mean(), (net.synthesis(noisy) - x).square().mean()


def _rate(plan: Plan, step: int) -> float:
    """The learning rate falls along half a cosine to a fiftieth."""
    return plan.rate * (0.02 + 0.49 * (1 + math.cos(math.pi * step / plan.steps)))


def _descend(state: _State, loss: torch.Tensor, rate: float) -> None:
    """One step of Adam."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    value = float(loss.detach())
    if not np.isfinite(value):
        raise CorecompressError(
            f"training: the loss is {value} at step {state.step}; look at the data, or ask for fewer bits"
        )
    state.loss = value if state.step == 0 else SMOOTH * state.loss + (1 - SMOOTH) * value
    state.step += 1


def _forever(data: Data, plan: Plan, skip: int) -> Iterator[torch.Tensor]:
    """Batches of the training split, again and again, each time in another order; `skip` of them are left out."""
    epoch = 0
    while True:
        count = 0
        for batch in data.batches(plan.seed + epoch, "training"):
            count += 1
            if count > skip:
                yield chunks_of(batch, plan.chunk)
        if not count:
            raise CorecompressError("training: the data have no batch in their training part; give more data")
        epoch, skip = epoch + 1, max(skip - count, 0)


CHECKPOINT = "training.safetensors"


def _restore(state: _State, saved: dict[str, torch.Tensor]) -> None:
    state.net.load_state_dict({name: saved[f"net.{name}"] for name in state.net.state_dict()})
    with torch.no_grad():
        for number, value in enumerate(state.prior.parameters()):
            value.copy_(saved[f"prior.{number}"].to(value.device))
    slots = state.optimizer.state_dict()
    count = len(slots["param_groups"][0]["params"])
    slots["state"] = {
        n: {key: saved[f"adam.{n}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")} for n in range(count)
    }
    state.optimizer.load_state_dict(slots)
    state.step, state.loss = int(saved["step"]), float(saved["loss"])


def _save(folder: Path, state: _State) -> None:
    saved = {f"net.{name}": value.detach().cpu().contiguous() for name, value in state.net.state_dict().items()}
    saved |= {f"prior.{n}": value.detach().cpu().clone() for n, value in enumerate(state.prior.parameters())}
    for n, slot in state.optimizer.state_dict()["state"].items():
        saved |= {f"adam.{n}.{key}": value.detach().cpu().clone() for key, value in slot.items()}
    saved |= {"step": torch.tensor(state.step), "loss": torch.tensor(state.loss, dtype=torch.float64)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "training.tmp"
    save_file(saved, temporary)
    temporary.replace(folder / CHECKPOINT)
