"""Checks of compressors that make a checkpoint of a checkpoint."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from corecompress.api import open_data
from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Job
from corecompress.errors import CorecompressError
from corecompress.progress import Silent
from corecompress.summary import as_float64
from corecompress.testing import fresh, samples
from corecompress.testing.compressor import odd_folder
from corecompress.testing.kit import CheckFailed, Subject, check, need, rebuild
from corecompress.testing.robustness import KILLED


class Counting(Silent):
    """Counts what is reported, and ends the process at a number."""

    def __init__(self, last: int | None = None):
        self.count, self.last = 0, last

    def start(self, what: str, total: int, *more: Any, **named: Any) -> None:
        self.advance(0)

    def advance(self, amount: int) -> None:
        self.count += 1
        if self.count == self.last:
            os._exit(KILLED)


def run(component: Any, source: Path, out: Path, data: str | None, jobs: int = 2, progress: Any = None) -> Checkpoint:
    """Let it make `out` of `source`; scratch is beside it."""
    checkpoint = open_checkpoint(source)
    scratch = out.with_name(out.name + ".scratch")
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    opened = None if data is None else open_data(data, source)
    job = Job(checkpoint, checkpoint.tensors, opened, 0, jobs, scratch, progress or Silent(), scratch)
    component.compress(job, out)
    return open_checkpoint(out)


def weights_digest(folder: Path) -> str:
    """SHA-256 of weights and config. A log or a card that goes along may tell the seconds that it took."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors*")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def source(subject: Subject) -> Path:
    """The small real model, a copy: a strategy that writes into its source shall not spoil the kit's."""
    return subject.once("source", lambda: Path(shutil.copytree(samples.MODEL, subject.place("source"))))


def made(subject: Subject) -> Path:
    """What it makes of the small real model."""

    def make() -> Path:
        out = subject.place("made")
        counting = Counting()
        run(subject.build(), source(subject), out, subject.data, progress=counting)
        subject.kept["reports"] = counting.count
        return out

    return subject.once("made", make)


@check("checkpoint", "it writes an ordinary checkpoint, with the files that go along", "model")
def checkpoint(subject: Subject) -> str:
    import numpy as np

    try:
        written = open_checkpoint(made(subject))
    except CorecompressError as problem:
        raise CheckFailed(str(problem)) from None
    lost = set(open_checkpoint(samples.MODEL).carried) - set(written.carried)
    need(not lost, f"{', '.join(sorted(lost))} of the source did not go along; copy what job.source.carried names")
    for stored in written.stored():
        values = as_float64(stored.read())
        need(values is None or np.isfinite(values).all(), f"tensor '{stored.info.name}' has values that are no numbers")
    need(written.config.get("model_type"), "config.json names no model_type")
    return f"{len(written.tensors)} tensors, {written.nbytes:,} bytes, before {open_checkpoint(samples.MODEL).nbytes:,}"


@check("loads", "plain transformers loads what it writes, every weight from the file", "model")
def loads(subject: Subject) -> str | None:
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        return "transformers is not installed, so nothing was loaded"
    problems = fresh.call("corecompress.testing.model_compressor:load_there", folder=str(made(subject)))
    need(not problems, "; ".join(problems))
    return None


def load_there(folder: str) -> list[str]:
    """In another process: what from_pretrained misses or does not know."""
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(folder)
    auto = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    _, told = auto.from_pretrained(folder, output_loading_info=True)
    found = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return [f"{what}: {', '.join(map(str, sorted(told[what])))}" for what in found if told.get(what)]


@check("untouched", "the source stays as it is", "model")
def untouched(subject: Subject) -> None:
    run(subject.build(), source(subject), subject.place("made"), subject.data)
    need(samples.digest_of(source(subject)) == samples.digest_of(samples.MODEL), "files of the source were changed")


@check("repeats", "another process writes the same weights", "model")
def repeats(subject: Subject) -> None:
    there = fresh.call(
        "corecompress.testing.model_compressor:made_there",
        **subject.identity(),
        source=str(source(subject)),
        out=str(subject.place("made")),
        data=subject.data,
        jobs=2,
    )
    need(there == weights_digest(made(subject)), "the same source, seed and options give other weights there")


@check("threads", "the number of threads changes no weight", "model")
def threads(subject: Subject) -> None:
    out = subject.place("made")
    run(subject.build(), source(subject), out, subject.data, jobs=1)
    need(weights_digest(out) == weights_digest(made(subject)), "1 and 2 threads give other weights")


@check(
    "odd-tensors",
    "empty, scalar, tied, constant, 16-bit and integer tensors survive, or are refused in one line",
    "model",
)
def odd_tensors(subject: Subject) -> str | None:
    try:
        written = run(subject.build(), odd_folder(subject), subject.place("made"), subject.data)
    except CorecompressError as problem:
        return f"refused: {problem}"
    except Exception as problem:
        raise CheckFailed(f"raised {type(problem).__name__}: {problem}") from None
    before = open_checkpoint(odd_folder(subject))
    for info in before.tensors:
        if info in written.tensors and info.dtype in ("I64", "I8", "BOOL"):
            same = written.read(info.name).data.tobytes() == before.read(info.name).data.tobytes()
            need(same, f"'{info.name}' ({info.dtype}): whole numbers are changed")
    return f"{len(set(before.tensors) & set(written.tensors))} of {len(before.tensors)} keep name, dtype and shape"


@check("resume", "a run that was killed goes on, and ends in the same weights", "model")
def resume(subject: Subject) -> str:
    straight, out = made(subject), subject.place("out")
    reports = subject.kept["reports"]
    identity = {**subject.identity(), "source": str(source(subject)), "out": str(out), "data": subject.data, "jobs": 2}
    done = fresh.start("corecompress.testing.model_compressor:made_there", **identity, last=max(1, reports // 2))
    need(done.returncode in (KILLED, 0), (done.stderr.splitlines() or ["it failed"])[-1])
    need(done.returncode == KILLED or not reports, "a run to be killed ended by itself")
    for path in sorted(out.rglob("*"), reverse=True):  # as the pipeline does: `out` is empty, scratch is as it was
        path.rmdir() if path.is_dir() else path.unlink()
    fresh.call("corecompress.testing.model_compressor:made_there", **identity)
    need(
        weights_digest(out) == weights_digest(straight),
        "the weights differ from those of a run that was not killed",
    )
    return f"killed at report {max(1, reports // 2)} of {reports}" if reports else "run twice: it reports no progress"


def made_there(
    kind: str, spec: str, source: str, out: str, data: str | None, jobs: int, last: int | None = None
) -> str:
    """In another process: make `out` of the small real model, and end at report number `last`; its weights' digest."""
    run(rebuild(kind, spec), Path(source), Path(out), data, jobs, Counting(last))
    return weights_digest(Path(out))
