"""The loss plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corecompress.report.plots import COLOURS, GREY
from corecompress.training.checkpoints import State

SMOOTH = 50
"""The line through the steps is a mean over about a fiftieth of them."""


def plot_losses(state: State, path: Path, unit: str | None = None) -> None:
    """Loss of every step, their running mean, and the evaluation split, as a PNG; `unit` of all of them."""
    from matplotlib.figure import Figure  # slow to import, and not wanted where a model is only drawn from

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    steps, losses = [step for step, _ in state.losses], [loss for _, loss in state.losses]
    axes.plot(steps, losses, color=GREY, alpha=0.35, linewidth=0.7)
    span = max(1, len(losses) // SMOOTH)
    means = [sum(losses[max(0, n - span) : n + 1]) / (n + 1 - max(0, n - span)) for n in range(len(losses))]
    axes.plot(steps, means, color=COLOURS[0], linewidth=1.8, label="training, running mean")
    if state.evaluations:
        axes.plot(*zip(*state.evaluations, strict=True), "o-", color=COLOURS[1], label="evaluation split")
    logarithmic = min(losses, default=0) > 0
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("updates")
    label = "loss" if unit is None else f"loss, {unit}"
    axes.set_ylabel(f"{label} (log scale)" if logarithmic else label)
    axes.legend(frameon=False)
    scratch = path.with_suffix(".tmp")
    figure.savefig(scratch, format="png", dpi=90)
    scratch.replace(path)
