"""How much the loss feels of each weight: from calibration where there is data, else from the weights alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np

from corecompress.components import Job, TensorInfo
from corecompress_vae.layout import layout_of
from corecompress_vae.plan import Sensitivity
from corecompress_vae.rotation import rotate_factor
from corecompress_vae.values import to_float32

SHARE_OF_SIGMA = 0.5
"""Without data a matrix's step goes with its standard deviation to this power: see the README's table."""


class Source(Protocol):
    """Where `Vae` asks for steps."""

    def get(self, name: str) -> Sensitivity:
        """Of the tensor of that name, before the constant c."""
        ...


class Alike:
    """Data-free: one step for all weights of a matrix, steps [name] across matrices."""

    def __init__(self, steps: dict[str, float]):
        self.steps = steps

    def get(self, name: str) -> Sensitivity:
        return Sensitivity(np.full(1, self.steps[name], np.float32), np.ones(1, np.float32))


class Calibrated:
    """From Hessians in `folder`; what calibration could not look at gets the median ratio of step to width."""

    def __init__(self, folder: Path, widths: dict[str, float]):
        from corecompress_vae import calibrate

        self._load, self.folder = calibrate.load, folder
        ratios = []
        for name, width in widths.items():
            found = self._load(folder, name)
            if found is not None and width > 0:
                ratios.append(float(np.exp(np.log(found.steps.astype(np.float64)).mean())) / width)
        self.ratio = float(np.median(ratios)) if ratios else 1.0
        self.alike = Alike({name: self.ratio * width for name, width in widths.items()})

    def get(self, name: str) -> Sensitivity:
        found = self._load(self.folder, name)
        if found is None:
            return self.alike.get(name)
        return Sensitivity(found.steps, (1 / np.sqrt(found.rows)).astype(np.float32), found.unit, found.turned)


class Rotated:
    """Another source's, for matrices whose columns were rotated; factors are kept in `folder`."""

    def __init__(self, source: Source, folder: Path):
        self.source, self.folder = source, folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> Sensitivity:
        wanted = self.source.get(name)
        if wanted.unit is None:
            # every column of the rotated matrix mixes all columns
            return Sensitivity(np.full(1, np.exp(np.log(wanted.columns).mean()), np.float32), wanted.rows)
        path = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            unit, steps = rotate_factor(wanted.unit, wanted.columns, name)
            temporary = path.with_suffix(".tmp.npz")
            np.savez(temporary, unit=unit, steps=steps)
            temporary.replace(path)
        with np.load(path) as kept:
            return Sensitivity(kept["steps"], wanted.rows, kept["unit"], wanted.turned)


def of(job: Job, matrices: list[TensorInfo], way: str, tokens: int) -> Source:
    """Calibrated where the job has data (way: "gradients" or "layers"), alike otherwise."""
    widths = {info.name: _width(job, info) for info in matrices}
    if job.data is None:
        return _alike(widths)
    if way == "layers":
        from corecompress_vae.layerwise import calibrate
    else:
        from corecompress_vae.calibrate import calibrate
    folder = calibrate(job, tokens)
    return _alike(widths) if folder is None else Calibrated(folder, widths)


def _alike(widths: dict[str, float]) -> Alike:
    """Steps between equal for all tensors and proportional to each one's width."""
    logs = [np.log(width) for width in widths.values() if width > 0]
    middle = float(np.exp(np.mean(logs))) if logs else 1.0
    return Alike({n: middle * (w / middle) ** SHARE_OF_SIGMA if w > 0 else middle for n, w in widths.items()})


def _width(job: Job, info: TensorInfo) -> float:
    """Root mean square of a tensor's weights; 0 for one that holds no numbers."""
    assert layout_of(info) is not None
    weights = to_float32(job.source.read(info.name).data, info.dtype).astype(np.float64)
    width = float(np.sqrt(np.mean(weights * weights)))
    return width if np.isfinite(width) else 0.0
