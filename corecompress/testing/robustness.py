"""Checks of compressors that code one tensor at a time: damage, memory, a kill."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

from corecompress.artifact import SUFFIX, Artifact
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Tensor
from corecompress.errors import CorecompressError, CorruptData
from corecompress.testing import fresh, samples
from corecompress.testing.compressor import compress_there, compressed, differing, job_of, real, run_of
from corecompress.testing.kit import CheckFailed, Subject, check, need, rebuild

NOISE = 2 << 20
"""Bytes of memory that a measurement may be wrong by."""
KILLED = 77
"""Exit code of a process that ended itself without a word, as a kill would."""


@check(
    "damage", "damaged payloads are noticed: CorruptData, never another error, and verify names the tensor", "tensor"
)
def damage(subject: Subject) -> str:
    import numpy as np

    made, noticed, tried = real(subject), 0, 0
    rng = np.random.default_rng(0)
    for name in sorted(made.tensors, key=lambda n: made.tensors[n].info.nbytes)[:: max(1, len(made.tensors) // 3)]:
        info, whole = made.tensors[name].info, bytes(made.writer.encode(made.tensors[name]))
        bad = [whole[:length] for length in sorted({0, 1, len(whole) // 2, len(whole) - 1}) if length < len(whole)]
        bad += [samples.flipped(whole, rng) for _ in range(25 if whole else 0)]
        for payload in [*bad, whole + b"\0"]:
            tried += 1
            try:
                made.reader.decode(memoryview(payload), info)
            except CorruptData:
                noticed += 1
            except Exception as problem:
                what = f"'{name}', {len(payload)} bytes of {len(whole)}"
                raise CheckFailed(
                    f"{what}: damage raised {type(problem).__name__} ({problem}), not CorruptData"
                ) from None
    _damage_on_disk(subject)
    return f"{noticed} of {tried} by the component itself, the rest by their hash"


def _damage_on_disk(subject: Subject) -> None:
    from corecompress import api

    folder = subject.place("damaged")
    shutil.copytree(compressed(subject), folder)
    artifact = Artifact(folder)
    record = max(artifact.manifest.tensors, key=lambda record: record.bytes)
    place = artifact.stored[record.name + SUFFIX]
    with open(place.path, "r+b") as file:
        file.seek(place.start + place.info.nbytes // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 16]))
    problems = api.verify(folder).problems
    need(
        any(record.name in problem for problem in problems), f"a flipped bit in '{record.name}' on disk is not noticed"
    )


@check("memory", "coding and decoding a tensor takes no more memory than the component states", "tensor")
def memory(subject: Subject) -> str:
    folder = subject.once("large folder", lambda: samples.large_checkpoint(subject.place("large")))
    found = fresh.call(
        "corecompress.testing.robustness:memory_there",
        **subject.identity(),
        folder=str(folder),
        scratch=str(subject.place("memory")),
        data=subject.data,
    )
    if found is None:
        return "it declines a float32 matrix"
    stated, used = found
    need(used <= stated + NOISE, f"an 8 MB tensor takes {used / 1e6:.1f} MB, memory() states {stated / 1e6:.1f} MB")
    return f"an 8 MB tensor takes {used / 1e6:.1f} MB, stated are {stated / 1e6:.1f} MB"


def memory_there(kind: str, spec: str, folder: str, scratch: str, data: str | None) -> tuple[int, int] | None:
    """In another process: (bytes that memory() states for `large`, bytes that coding and checking it took)."""
    from corecompress.api import open_data

    checkpoint, component = open_checkpoint(folder), rebuild(kind, spec)
    infos = [info for info in checkpoint.tensors if component.accepts(info)]
    if "large" not in {info.name for info in infos}:
        return None
    opened = None if data is None else open_data(data, folder)
    component.restore(component.prepare(job_of(checkpoint, infos, Path(scratch), opened)))

    def work(name: str) -> Tensor:
        tensor = checkpoint.read(name)
        component.decode(memoryview(component.encode(tensor)), tensor.info)
        return tensor

    work("small" if "small" in {info.name for info in infos} else "large")  # imports, compiled code
    gc.collect()
    before = _reset_peak()
    info = work("large").info
    return int(component.memory(info)), _peak() - before


def _reset_peak() -> int:
    """Resident bytes now; on Linux the peak is counted from here on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@check("resume", "a run that was killed goes on, and ends in the same bytes", "tensor")
def resume(subject: Subject) -> str:
    straight = compressed(subject)
    entries = len(Artifact(straight).stored)
    out, after = subject.place("out"), max(1, entries // 2)
    done = fresh.start("corecompress.testing.robustness:killed_there", out=str(out), after=after, **run_of(subject))
    need(done.returncode == KILLED, f"a run to be killed ended by itself: {(done.stderr.splitlines() or [''])[-1]}")
    fresh.call("corecompress.testing.robustness:resumed_there", out=str(out), **run_of(subject))
    need(samples.digest_of(out) == samples.digest_of(straight), differing(straight, out))
    return f"killed after {after} of {entries} payloads"


def killed_there(source: str, example: str, out: str, after: int) -> None:
    """In another process: compress, and end all of a sudden when the journal has so many entries."""
    from corecompress.journal import Journal

    add = Journal.add

    def add_and_die(self: Journal, entry: dict[str, Any]) -> None:
        add(self, entry)
        if len(self.entries) >= after:
            os._exit(KILLED)

    Journal.add = add_and_die  # type: ignore[method-assign]
    compress_there(source, example, out)


def resumed_there(source: str, example: str, out: str) -> None:
    """In another process: go on with it."""
    from corecompress import api
    from corecompress.examples import split_example

    recipe, data = split_example(example)
    if not Path(out).with_name(Path(out).name + ".partial").exists():
        raise CorecompressError("the killed run left nothing to go on with")
    api.compress(source, out, recipe, data=data, jobs=2, resume=True, evaluated=False)
