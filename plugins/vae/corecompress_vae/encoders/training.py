"""The loop that trains an encoder and its prior: rate + λ · distortion, noise for rounding, resumable.

for every batch x:  y = analysis(x);  bits = prior.rate(y + noise);  error = (synthesis(y + noise) − x)²
                    loss = mean bits + λ · mean error  ─► Adam
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from corecompress.components import Data, Progress
from corecompress.errors import CorecompressError

SAVE_EVERY = 250
"""Steps between two checkpoints."""
SMOOTH = 0.98
"""Of the running mean of the loss that the target is compared with."""


@dataclass(frozen=True)
class Plan:
    """steps and batch size of a training, its learning rate, λ, seed; target: the loss (bits a weight) at which it
    stops; scratch: a folder for checkpoints, None for none."""

    steps: int
    batch: int
    rate: float
    distortion: float
    seed: int
    target: float | None = None
    scratch: Path | None = None


def train(net: Any, prior: Any, data: Data, plan: Plan, progress: Progress) -> float:
    """Train net.analysis and net.synthesis and the prior; the running mean of the loss at the end.

    Goes on from the last checkpoint in plan.scratch. Raises CorecompressError where data are missing, the loss stops
    being a number, or the target was not reached in all steps.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).train()
    step_size = (12 / plan.distortion / 2.0) ** 0.5  # of uniform quantisation with about this distortion
    net.analysis.scale(1 / step_size)
    net.synthesis.scale(step_size)
    _ready_prior(prior, 1 / step_size, device)
    trained = [*net.parameters(), *prior.parameters()]
    optimizer = torch.optim.Adam(trained, lr=plan.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps, plan.rate / 50)
    begin, running = _resume(plan, net, prior, optimizer, schedule, device)
    batches = _forever(data, plan.seed, begin)
    progress.start("training", plan.steps)
    progress.advance(begin)
    for step in range(begin, plan.steps):
        x = next(batches).to(device)
        bits, error = _forward(net, prior, x, plan.seed * 1_000_003 + step)
        loss = bits + plan.distortion * error
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise CorecompressError(f"training: the loss is {value} at step {step}; lower the rate or look at the data")
        running = value if step == 0 else SMOOTH * running + (1 - SMOOTH) * value
        progress.advance(1)
        if plan.target is not None and step > 50 and running <= plan.target:
            progress.note(f"target loss {plan.target:g} reached at step {step + 1}")
            break
        if plan.scratch is not None and (step + 1) % SAVE_EVERY == 0:
            _save(plan.scratch, net, prior, optimizer, schedule, step + 1, running)
    else:
        if plan.target is not None:
            raise CorecompressError(
                f"training: target loss {plan.target:g} was not reached in {plan.steps} steps (it is {running:.4f})"
            )
    net.to("cpu").eval()
    prior.to("cpu")
    return running


def _forward(net: Any, prior: Any, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean bits a weight, mean squared error) of a batch."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x) - 0.5
    noisy = net.analysis(x) + noise
    return prior.rate(noisy).mean(), (net.synthesis(noisy) - x).square().mean()


def _ready_prior(prior: Any, deviation: float, device: torch.device) -> None:
    """Begin with the width that the latents have."""
    prior.to(device)
    prior.log_scale = torch.tensor(float(np.log(deviation)), device=device)
    for value in prior.parameters():
        value.requires_grad_(True)


def _forever(data: Data, seed: int, skip: int) -> Iterator[torch.Tensor]:
    """Batches of the training split, again and again, each time in another order; `skip` of them are left out."""
    epoch = 0
    while True:
        count = 0
        for batch in data.batches(seed + epoch, "training"):
            count += 1
            if count > skip:
                yield torch.from_numpy(np.ascontiguousarray(batch["x"], np.float32))
        if not count:
            raise CorecompressError("training: the data have no batch in their training part; give more data")
        epoch, skip = epoch + 1, max(skip - count, 0)


def _resume(plan: Plan, net: Any, prior: Any, optimizer: Any, schedule: Any, device: torch.device) -> tuple[int, float]:
    path = None if plan.scratch is None else plan.scratch / "training.safetensors"
    if path is None or not path.exists():
        return 0, 0.0
    state = load_file(path)
    names = dict(net.state_dict())
    net.load_state_dict({name: state[f"net.{name}"] for name in names})
    with torch.no_grad():
        for number, value in enumerate(prior.parameters()):
            value.copy_(state[f"prior.{number}"].to(device))
    slots = optimizer.state_dict()
    count = len(slots["param_groups"][0]["params"])
    slots["state"] = {
        n: {key: state[f"adam.{n}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")} for n in range(count)
    }
    optimizer.load_state_dict(slots)
    done = int(state["step"])
    for _ in range(done):
        schedule.step()
    return done, float(state["running"])


def _save(folder: Path, net: Any, prior: Any, optimizer: Any, schedule: Any, step: int, running: float) -> None:
    state = {f"net.{name}": value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    state |= {f"prior.{n}": value.detach().cpu().clone() for n, value in enumerate(prior.parameters())}
    for n, slot in optimizer.state_dict()["state"].items():
        state |= {f"adam.{n}.{key}": value.detach().cpu().clone() for key, value in slot.items()}
    state |= {"step": torch.tensor(step), "running": torch.tensor(running, dtype=torch.float64)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "training.tmp"
    save_file(state, temporary)
    temporary.replace(folder / "training.safetensors")
