"""corecompress evaluate: each side in a fresh process, the original's outputs on disk in between."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.artifact import is_compressed
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Data, Progress
from corecompress.errors import CorecompressError
from corecompress.quality.task import METRICS, Task, check_metrics, check_vocabularies, read_config, task_of

if TYPE_CHECKING:
    from corecompress.quality.measures import Metric, Values

REFERENCE_BYTES = 8_000_000_000
"""Disk that the original's outputs may take, unless a number of samples was asked for."""

SAMPLES = {"sentence-encoder": 512, "other": 64, "image-classifier": 512}
WINDOWS = 32
"""Samples of the evaluation split that are used by default: sentences, images, or windows of a language model."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured. metrics: by name, in the order of the task's; data: SPEC, fingerprint, split and how many
    samples, rows (predicted tokens, sentences, images) and documents; seconds: of both sides together."""

    task: Task
    source: str
    compressed: str
    metrics: dict[str, Metric]
    data: dict[str, Any]
    seconds: float
    tasks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How to evaluate: the number of samples (None: a task's default), names of metrics (none: all of the task's),
    the dtype and device that both sides compute in."""

    samples: int | None = None
    metrics: tuple[str, ...] = ()
    seed: int = 0
    dtype: str = "float32"
    device: str | None = None


def evaluate(
    source: str | Path, out: str | Path, data: Data, spec: str, options: Options, progress: Progress
) -> Evaluation:
    """Hold `out` (compressed or plain) against `source` on the evaluation split of `data`.

    Raises CorecompressError for sides that don't load or don't compare, and for data that don't fit.
    """
    with Evaluator(source, data, spec, options, progress) as evaluator:
        return evaluator.against(out)


class Evaluator:
    """The original's outputs, made once, and any number of checkpoints held against them."""

    def __init__(self, source: str | Path, data: Data, spec: str, options: Options, progress: Progress):
        checkpoint = open_checkpoint(source)
        self.folder, self.name, self.config = checkpoint.folder, str(source), checkpoint.config
        self.options, self.progress, self.data, self.spec = options, progress, data, spec
        self.task = task_of(self.folder, self.config)
        self.names = check_metrics(self.task, options.metrics, self.name)
        data.prepare(checkpoint)
        self._original: Values | None = None
        self._described: dict[str, Any] = {}

    def __enter__(self) -> Evaluator:
        from corecompress.demo import cache_folder

        parent = cache_folder() / "evaluations"
        parent.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(tempfile.mkdtemp(dir=parent))
        (self.scratch / "batches").mkdir()
        (self.scratch / "reference").mkdir()
        return self

    def __exit__(self, *problem: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def against(self, out: str | Path) -> Evaluation:
        """Evaluate one checkpoint."""
        begun = time.perf_counter()
        folder = self._other(out)
        with _worker() as other:
            original = self.original()
            other.ask({"load": self._loading(folder)}, str(out))
            compressed = self._run(other, str(out), original=False)
        from corecompress.quality.measures import measure

        metrics = measure(original, compressed, self.names, self.options.seed)
        counts = {"rows": len(compressed["documents"]), "documents": len(set(compressed["documents"].tolist()))}
        seconds = round(time.perf_counter() - begun, 3)
        return Evaluation(self.task, self.name, str(out), metrics, {**self._described, **counts}, seconds)

    def _other(self, out: str | Path) -> Path:
        folder = Path(out).expanduser()
        if not is_compressed(folder):
            folder = open_checkpoint(out).folder
        check_vocabularies(self.config, read_config(folder), self.name, str(out))
        return folder

    def original(self) -> Values:
        """The original's own figures; its outputs are in the scratch folder afterwards."""
        if self._original is None:
            with _worker() as worker:
                worker.send({"load": self._loading(self.folder)})
                self._write_batches()
                worker.wait("loaded", self.name)
                self._original = self._run(worker, self.name, original=True)
        return self._original

    def _loading(self, folder: Path) -> dict[str, Any]:
        options = self.options
        how = {"dtype": options.dtype, "device": options.device, "seed": options.seed}
        return {"folder": str(folder), "original": str(self.folder), "task": self.task, **how}

    def _run(self, worker: _Worker, name: str, original: bool) -> Values:
        import numpy as np

        result = self.scratch / f"result-{'original' if original else 'other'}.npz"
        places = {"batches": str(self.scratch / "batches"), "reference": str(self.scratch / "reference")}
        worker.ask({"run": {**places, "result": str(result), "original": original}}, name, self.progress)
        with np.load(result) as archive:
            return dict(archive)

    def _write_batches(self) -> None:
        """The evaluation split's samples as files, so that both sides see the very same."""
        import numpy as np

        left = samples = self._samples()
        stream = iter(self.data.batches(self.options.seed, "evaluation"))
        for number, batch in enumerate(stream):
            arrays = {key: np.asarray(value)[:left] for key, value in batch.items() if _is_numeric(value)}
            if "document" not in arrays:
                first = len(next(iter(arrays.values())))
                arrays["document"] = np.arange(number * first, (number + 1) * first)
            np.savez(self.scratch / "batches" / f"{number:06d}.npz", **arrays)
            left -= len(arrays["document"])
            if left <= 0:
                break
        if left == samples:
            raise CorecompressError(f"--data {self.spec}: its evaluation split is empty; give more data")
        self._described = {
            "spec": self.spec,
            "fingerprint": self.data.fingerprint(),
            "split": "evaluation",
            "samples": samples - max(left, 0),
            "seed": self.options.seed,
        }

    def _samples(self) -> int:
        if self.options.samples is not None:
            return self.options.samples
        if self.task in SAMPLES:
            return SAMPLES[self.task]
        vocabulary = (self.config.get("text_config") or self.config).get("vocab_size") or 1
        return int(min(WINDOWS, max(4, REFERENCE_BYTES // (4 * 512 * int(vocabulary)))))


def _is_numeric(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "O") in "iufb"


class _Worker:
    """A process that loads one side. It starts importing at once, and gives an answer for every request."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "corecompress.quality.worker"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # wait() tells why

    def ask(self, request: dict[str, Any], name: str, progress: Progress | None = None) -> None:
        self.send(request)
        self.wait("loaded" if "load" in request else "done", name, progress)

    def wait(self, for_what: str, name: str, progress: Progress | None = None) -> None:
        """Read answers until the wanted one. Raises CorecompressError with what the worker says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                text = answer["error"]
                raise CorecompressError(text if name in text or text.startswith("--") else f"{name}: {text}")
            if "progress" in answer and progress is not None:
                if answer["progress"] == 1:
                    progress.start(f"evaluating {Path(name).name}", answer["of"])
                progress.advance(1)
            if for_what in answer:
                return
        code = self.process.wait()
        raise CorecompressError(f"{name}: the process that loads it died (exit code {code}); is there memory enough?")


@contextmanager
def _worker() -> Iterator[_Worker]:
    worker = _Worker()
    try:
        yield worker
    finally:
        assert worker.process.stdin is not None and worker.process.stdout is not None
        try:
            worker.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.process.stdout.close()


__all__ = ["METRICS", "Evaluation", "Evaluator", "Options", "evaluate"]
