"""corecompress benchmark: two checkpoints in fresh processes, A B A B, what each takes and gives."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corecompress.artifact import is_compressed
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Progress
from corecompress.engines.local import cores
from corecompress.errors import CorecompressError
from corecompress.measure.task import task_of
from corecompress.plugins import environment
from corecompress.summary import inspect_folder

FIGURES: dict[str, tuple[str, str, Literal["lower", "higher"]]] = {
    "load": ("loading", "s", "lower"),
    "first": ("first token of a prompt of 128 tokens", "ms", "lower"),
    "latency": ("one sample", "ms", "lower"),
    "throughput1": ("throughput, batch 1", "/s", "higher"),
    "throughput8": ("throughput, batch 8", "/s", "higher"),
    "peak": ("peak memory", "MB", "lower"),
    "device_peak": ("peak memory on the device", "MB", "lower"),
    "size": ("size on disk", "MB", "lower"),
}
"""Label, unit and which way is better. Loading is from_pretrained in a process that has imported transformers."""

THINGS = {
    "causal-lm": "tokens",
    "seq2seq-lm": "tokens",
    "image-classifier": "images",
    "sentence-encoder": "sentences of 128 tokens",
    "masked-lm": "sentences of 128 tokens",
    "other": "samples",
}


@dataclass(frozen=True)
class Figure:
    """Medians of both sides, their smallest and largest values, and compressed ÷ original."""

    label: str
    unit: str
    better: Literal["lower", "higher"]
    ratio: float
    original: float
    compressed: float
    original_spread: tuple[float, float]
    compressed_spread: tuple[float, float]


@dataclass(frozen=True)
class Benchmark:
    """What was timed. things: what throughput counts; device and threads: of both sides."""

    source: str
    compressed: str
    task: str
    things: str
    device: str
    threads: int
    runs: int
    figures: dict[str, Figure]
    note: str = ""


def benchmark(
    source: str | Path, out: str | Path, runs: int, threads: int | None, device: str | None, progress: Progress
) -> Benchmark:
    """Time `out` against `source`. Raises CorecompressError that names a side that does not load."""
    checkpoint = open_checkpoint(source)
    other = Path(out).expanduser()
    folders = (checkpoint.folder, other if is_compressed(other) else open_checkpoint(out).folder)
    task = task_of(checkpoint.folder, checkpoint.config)
    count = threads or cores()
    sizes = [inspect_folder(folder).bytes / 1e6 for folder in folders]
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    progress.start("benchmarking", 2 * runs)
    for _ in range(runs):
        for side, folder in enumerate(folders):
            found[side].append(_measure(folder, str((source, out)[side]), task, count, device))
            progress.advance(1)
    for side in (0, 1):
        for run in found[side]:
            run["size"] = sizes[side]
    figures = {name: _figure(name, found) for name in FIGURES if all(name in run for side in found for run in side)}
    note = "" if "throughput1" in figures or "latency" in figures else found[0][0].get("note", "")
    where = found[0][0]["device"]
    return Benchmark(str(source), str(out), task, THINGS[task], where, count, runs, figures, note)


def _measure(folder: Path, name: str, task: str, threads: int, device: str | None) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "corecompress.measure.benchmark_worker",
        str(folder),
        task,
        str(threads),
        device or "",
    ]
    more = {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment() | more)
    if done.returncode or not done.stdout.strip():
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CorecompressError(f"{name}: does not load or run ({said[:300]})")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _figure(name: str, found: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> Figure:
    sides = [[float(run[name]) for run in side] for side in found]
    before, after = (statistics.median(side) for side in sides)
    spreads = [(min(side), max(side)) for side in sides]
    ratio = after / before if before else float("nan")
    return Figure(*FIGURES[name], ratio, before, after, spreads[0], spreads[1])
