"""How much the loss feels of each weight: from calibration where there is data, else from the weights alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Job, TensorInfo
from corecompress.floats import to_float32
from corecompress_vae import kept
from corecompress_vae.classes import deviations
from corecompress_vae.layout import layout_of
from corecompress_vae.plan import Sensitivity
from corecompress_vae.rotation import rotate_factor
from corecompress_vae.values import HUGE, TINY
from corecompress_vae.vocabulary import table_steps

SHARE = 0.5
"""Without data a step goes with the standard deviation of its matrix, of its row and of its column to this power each:
weights are small where inputs are large. The README has what other powers lose."""
USUAL = 3.0
"""Octaves by which a matrix may differ from the others for that."""
WIDEST = 8.0
"""Octaves by which a row or column may differ from its matrix."""


class Source(Protocol):
    """Where `Vae` asks for steps."""

    def get(self, name: str, number: int = 0) -> Sensitivity:
        """Of matrix `number` of the tensor of that name, before the constant c."""
        ...


@dataclass(frozen=True)
class Widths:
    """Of a tensor: each [count], its matrices' root mean squares (0: no numbers); rows [o] and columns [n], factors
    about 1 that all of them share."""

    each: NDArray[np.float64]
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]

    @property
    def whole(self) -> float:
        """Root mean square of all of it."""
        return float(np.sqrt(np.mean(self.each**2)))


class Alike:
    """Data-free: steps between equal for all weights and proportional to their widths; `scale` for all of them,
    `factors` for some."""

    def __init__(
        self,
        widths: dict[str, Widths],
        share: float = SHARE,
        scale: float = 1.0,
        factors: Mapping[str, float] = MappingProxyType({}),
    ):
        self.widths, self.share, self.scale, self.factors = widths, share, scale, factors
        logs = [np.log(width.whole) for width in widths.values() if width.whole > 0]
        self.middle = float(np.exp(np.median(logs))) if logs else 1.0

    def get(self, name: str, number: int = 0) -> Sensitivity:
        width = self.widths[name]
        own = width.each[number % width.each.size] or self.middle
        octaves = np.log2(own / self.middle)
        near = np.clip(octaves, -USUAL, USUAL)  # what is far off keeps its relative error
        step = self.factors.get(name, 1.0) * self.scale * self.middle * np.exp2(self.share * near + (octaves - near))
        return Sensitivity((width.columns * step).astype(np.float32), width.rows)


class Calibrated:
    """From Hessians in `folder`; what calibration could not look at gets the median ratio of step to width, or, where
    it saw none of the matrices, what `alike` says. names: see names_of; a model may know a tensor by any of them."""

    def __init__(self, folder: Path, widths: dict[str, Widths], alike: Alike, names: Mapping[str, list[str]]):
        self.folder, self.names = folder, names
        self.unseen: list[str] = []
        """Tensors of matrices that calibration could not look at."""
        ratios = []
        for name, width in widths.items():
            for number, own in enumerate(width.each):
                found = self._load(name, number)
                if found is None:
                    self.unseen.append(name)
                elif own > 0:
                    ratios.append(float(np.exp(np.log(found.steps.astype(np.float64)).mean())) / own)
        self.alike = Alike(widths, 1.0, float(np.median(ratios))) if ratios else alike

    def get(self, name: str, number: int = 0) -> Sensitivity:
        found = self._load(name, number)
        if found is None:
            return self.alike.get(name, number)
        rows = (1 / np.sqrt(found.rows)).astype(np.float32)
        return Sensitivity(found.steps, rows, found.unit, found.turned, row_unit=found.row_unit)

    def _load(self, name: str, number: int) -> Any:
        """What calibration found, or None."""
        from corecompress_vae.calibrate import load

        return next(filter(None, (load(self.folder, alias, number) for alias in self.names[name])), None)


class Rotated:
    """Another source's, for matrices whose columns were rotated; factors are kept in `folder`."""

    def __init__(self, source: Source, folder: Path):
        self.source, self.folder = source, folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, number: int = 0) -> Sensitivity:
        wanted = self.source.get(name, number)
        if wanted.unit is None:
            # every column of the rotated matrix mixes all columns
            step = np.full(1, np.exp(np.log(wanted.columns).mean()), np.float32)
            return Sensitivity(step, wanted.rows)
        rotated = kept.load(self.folder, f"{name}#{number}")
        if rotated is None:
            unit, steps = rotate_factor(wanted.unit, wanted.columns, name)
            rotated = {"unit": unit, "steps": steps}
            kept.keep(self.folder, f"{name}#{number}", rotated)
        return replace(wanted, columns=rotated["steps"], unit=rotated["unit"])


def of(job: Job, matrices: list[TensorInfo], way: str, tokens: int | None) -> Source:
    """Calibrated where the job has data (way: "gradients" or "layers"), alike otherwise."""
    widths = {info.name: _widths(job, info) for info in matrices}
    folder = None if job.data is None else _calibrated(job, way, tokens)
    names = names_of(widths, job.twins)
    alike = Alike(widths, factors=table_steps(job.source.config, matrices, names))
    if folder is None:
        return alike
    calibrated = Calibrated(folder, widths, alike, names)
    if unseen := sorted(set(calibrated.unseen)):
        job.progress.note(
            f"{job.source.name}: calibration says nothing of {len(unseen)} of {len(widths)} tensors ({unseen[0]}"
            f"{', …' if len(unseen) > 1 else ''}), so they are coded as without data"
        )
    return calibrated


def names_of(tensors: Iterable[str], twins: Mapping[str, str]) -> dict[str, list[str]]:
    """Of each tensor its name and those of its twins."""
    names = {name: [name] for name in tensors}
    for twin, name in twins.items():
        if name in names:
            names[name].append(twin)
    return names


def _calibrated(job: Job, way: str, tokens: int | None) -> Path | None:
    """The folder of Hessians; None for a model that data can't calibrate."""
    if way == "layers":
        from corecompress_vae.layerwise import calibrate
    else:
        from corecompress_vae.calibrate import calibrate
    return calibrate(job, tokens)


def _widths(job: Job, info: TensorInfo) -> Widths:
    layout = layout_of(info)
    assert layout is not None
    weights = to_float32(job.source.read(info.name).data, info.dtype)
    largest = np.abs(weights).max()
    if not (np.isfinite(largest) and TINY < largest < HUGE):
        return Widths(np.zeros(1), np.ones(1, np.float32), np.ones(1, np.float32))
    matrices = layout.matrices(weights)
    each = np.sqrt(np.mean(np.square(matrices, dtype=np.float64), (1, 2)))
    turned = np.ascontiguousarray(matrices.swapaxes(1, 2)).reshape(-1, layout.rows)
    rows, columns = deviations(turned, np.float64(0))
    columns = columns.reshape(layout.count, -1).mean(0)
    return Widths(each, _factors(rows, columns.size * layout.count), _factors(columns, rows.size * layout.count))


def _factors(logs: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """Factors for log2 deviations, each of `count` weights: less far apart by what is only the error of sampling."""
    noise = 1 / (math.log(2) * math.sqrt(2 * count))
    spread = float(np.var(logs))
    if spread < 2 * noise**2:
        return np.ones(logs.size, np.float32)
    away = (logs - _middle(logs)) * (1 - noise**2 / spread)
    return np.exp2(SHARE * np.clip(away, -WIDEST, WIDEST)).astype(np.float32)


def _middle(logs: NDArray[np.float64]) -> float:
    """Median of log2 deviations [n] without those that are as good as nothing (pruned rows): WIDEST octaves below that
    one up to which half of the energy lies."""
    order = np.sort(logs)
    energy = np.cumsum(np.exp2(2 * (order - order[-1])))
    loud = order[np.searchsorted(energy, energy[-1] / 2)]
    return float(np.median(order[order > loud - WIDEST]))
