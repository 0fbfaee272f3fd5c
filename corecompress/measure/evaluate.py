"""corecompress evaluate: each side in a fresh process, the original's outputs on disk in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.checkpoint import open_checkpoint
from corecompress.components import Data, Progress
from corecompress.errors import CorecompressError
from corecompress.measure.scratch import scratch_folder
from corecompress.measure.task import Task, check_metrics, check_vocabularies, read_config, task_of
from corecompress.plugins import environment

if TYPE_CHECKING:
    from corecompress.measure.metrics import Metric, Values

REFERENCE_BYTES = 8_000_000_000
"""Disk that the original's outputs may take, unless a number of samples was asked for."""

REUSE = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
"""Lets glibc use the memory of a window's logits again for the next one, a tenth faster than returning it."""

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
        self._used = 0

    def __enter__(self) -> Evaluator:
        from corecompress.demo import cache_folder

        self._scratch = scratch_folder(cache_folder() / "evaluations")
        self.scratch = self._scratch.__enter__()
        (self.scratch / "batches").mkdir()
        (self.scratch / "reference").mkdir()
        self.worker = Worker((self.config.get("architectures") or [""])[0])
        return self

    def __exit__(self, *problem: object) -> None:
        self.worker.close()
        self._scratch.__exit__(None, None, None)

    def against(self, out: str | Path) -> Evaluation:
        """Evaluate one checkpoint."""
        begun = time.perf_counter()
        folder = self._other(out)
        original = self.original()
        compressed = self._run(folder, str(out), original=False)
        from corecompress.measure.metrics import measure

        metrics = measure(original, compressed, self.names, self.options.seed)
        counts = {
            "samples": self._used,
            "rows": len(compressed["documents"]),
            "documents": len(set(compressed["documents"].tolist())),
        }
        seconds = round(time.perf_counter() - begun, 3)
        return Evaluation(self.task, self.name, str(out), metrics, {**self.described(), **counts}, seconds)

    def _other(self, out: str | Path) -> Path:
        folder = Path(out).expanduser()
        if not folder.is_dir():  # a folder of any kind that transformers loads, also one that another tool quantised
            folder = open_checkpoint(out).folder
        check_vocabularies(self.config, read_config(folder), self.name, str(out))
        return folder

    def original(self) -> Values:
        """The original's own figures; its outputs are in the scratch folder afterwards."""
        if self._original is None:
            self._write_batches()
            self._original = self._run(self.folder, self.name, original=True)
            self._drop_what_it_does_not_say(self._original)
        return self._original

    def _drop_what_it_does_not_say(self, original: Values) -> None:
        if self.task != "other" or "nll" in original:
            return
        if "nll" in self.options.metrics:
            raise CorecompressError(f"{self.name}: its forward says no nll; its metric is relative_error")
        self.names = tuple(name for name in self.names if name != "nll")

    def _run(self, folder: Path, name: str, original: bool) -> Values:
        import numpy as np

        result = self.scratch / f"result-{'original' if original else 'other'}.npz"
        how = {"dtype": self.options.dtype, "device": self.options.device, "seed": self.options.seed}
        load = {"folder": str(folder), "original": str(self.folder), "task": self.task, **how}
        places = {"batches": str(self.scratch / "batches"), "reference": str(self.scratch / "reference")}
        run = {**places, "result": str(result), "original": original}
        self.worker.ask({"load": load, "run": run}, name, self.progress)
        with np.load(result) as archive:
            return dict(archive)

    def _write_batches(self) -> None:
        """The evaluation split's samples as files, so that both sides see the very same."""
        import numpy as np

        left = samples = self._samples()
        stream = iter(self.data.batches(self.options.seed, "evaluation"))
        for number, batch in enumerate(stream):
            arrays: dict[str, Any] = {
                key: np.asarray(value)[:left] for key, value in batch.items() if _is_numeric(value)
            }
            if "document" not in arrays:
                first = len(next(iter(arrays.values())))
                arrays["document"] = np.arange(number * first, (number + 1) * first)
            np.savez(self.scratch / "batches" / f"{number:06d}.npz", **arrays)
            left -= len(arrays["document"])
            if left <= 0:
                break
        if left == samples:
            raise CorecompressError(f"--data {self.spec}: its evaluation split is empty; give more data")
        self._used = samples - max(left, 0)

    def described(self) -> dict[str, Any]:
        """Which data: SPEC, fingerprint, split, seed, and how many samples are asked for."""
        asked = {"spec": self.spec, "fingerprint": self.data.fingerprint(), "split": "evaluation"}
        return {**asked, "seed": self.options.seed, "samples": self._samples()}

    def _samples(self) -> int:
        if self.options.samples is not None:
            return self.options.samples
        if self.task in SAMPLES:
            return SAMPLES[self.task]
        vocabulary = (self.config.get("text_config") or self.config).get("vocab_size") or 1
        return int(min(WINDOWS, max(4, REFERENCE_BYTES // (4 * 512 * int(vocabulary)))))


def _is_numeric(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "O") in "iufb"


class Worker:
    """The process that loads and runs models. It imports in the background from the beginning."""

    def __init__(self, architecture: str) -> None:
        command = [sys.executable, "-m", "corecompress.measure.worker", architecture]
        pipe = subprocess.PIPE
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=quiet,
            text=True,
            start_new_session=True,
            env=os.environ | environment() | REUSE,
        )

    def ask(self, request: dict[str, Any], name: str, progress: Progress) -> None:
        """Send a request and wait until it is done. Raises CorecompressError with what the worker says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # what it said before it ended tells more
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                text = answer["error"]
                known = text.startswith("--") or name in text or request["load"]["folder"] in text
                raise CorecompressError(text if known else f"{name}: {text}")
            if "progress" in answer:
                if answer["progress"] == 1:
                    progress.start(f"evaluating {Path(name).name}", answer["of"])
                progress.advance(1)
            if "done" in answer:
                return
        raise CorecompressError(f"{name}: the process that loads it ended (exit code {self.process.wait()})")

    def close(self) -> None:
        """End it, whatever it is doing."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the forked process as well
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
