"""Checks of compressors that code one tensor at a time: what must hold when all goes well (else: robustness.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corecompress.artifact import SUFFIX, Artifact
from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Job, Tensor, TensorCompressor
from corecompress.progress import Silent
from corecompress.summary import as_float64
from corecompress.testing import fresh, samples
from corecompress.testing.kit import CheckFailed, Subject, check, need


@dataclass(frozen=True)
class Pair:
    """A component that was prepared and one that was only given its state, and the tensors that they take."""

    writer: TensorCompressor
    reader: TensorCompressor
    tensors: Mapping[str, Tensor]


def job_of(checkpoint: Checkpoint, tensors: Any, scratch: Path, data: Any = None) -> Job:
    """A job on these tensors, seed 0, two threads."""
    scratch.mkdir(parents=True, exist_ok=True)
    overhead, parameters = 5000 + 420 * len(tensors), sum(info.size for info in checkpoint.tensors)
    return Job(checkpoint, tuple(tensors), data, 0, 2, scratch, Silent(), scratch, overhead, parameters=parameters)


def pair(subject: Subject, folder: Path, key: str) -> Pair:
    """Prepared on a checkpoint, once for each key."""

    def make() -> Pair:
        from corecompress.api import open_data

        checkpoint = open_checkpoint(folder)
        writer, reader = subject.build(), subject.build()
        tensors = {s.info.name: s.read() for s in checkpoint.stored() if writer.accepts(s.info)}
        need(tensors, "it accepts no tensor of the checkpoint")
        data = None if subject.data is None else open_data(subject.data, folder)
        infos = [tensor.info for tensor in tensors.values()]
        state = writer.prepare(job_of(checkpoint, infos, subject.place("scratch"), data))
        need(isinstance(state, bytes), f"prepare gives {type(state).__name__}, not bytes")
        for component in (writer, reader):
            component.restore(state)
        return Pair(writer, reader, tensors)

    return subject.once(key, make)


def model(subject: Subject) -> Path:
    """The small real model, in float32 for a component that takes nothing else."""

    def choose() -> Path:
        component = subject.build()
        if any(component.accepts(info) for info in open_checkpoint(samples.MODEL).tensors):
            return samples.MODEL
        return samples.float32_checkpoint(subject.place("float32"))

    return subject.once("model", choose)


def real(subject: Subject) -> Pair:
    """Prepared on the small real model."""
    return pair(subject, model(subject), "real")


def odd_folder(subject: Subject) -> Path:
    """The checkpoint of odd tensors."""
    return subject.once("odd folder", lambda: samples.odd_checkpoint(subject.place("odd")))


def compressed(subject: Subject) -> Path:
    """The small real model, compressed by the example's recipe on two threads."""
    return subject.once("compressed", lambda: compress(subject, jobs=2))


def compress(subject: Subject, jobs: int, source: Path | None = None) -> Path:
    """The folder that the example's recipe makes of `source` (the small real model)."""
    from corecompress import api

    out = subject.place("out")
    api.compress(source or model(subject), out, subject.recipe, data=subject.data, jobs=jobs, evaluated=False)
    return out


@check("round-trip", "a small real model comes back, tensor by tensor, and its promise of exactness holds", "tensor")
def round_trip(subject: Subject) -> str:
    from corecompress import api

    folder = compressed(subject)
    verified = api.verify(folder, model(subject))
    need(verified.ok, "; ".join(verified.problems))
    unknown = [name for name, error in verified.against if error is None]
    need(not unknown, f"tensor '{next(iter(unknown), '')}' comes back with values that are no numbers")
    worst = max(error for _, error in verified.against if error is not None)
    if getattr(subject.provided.load(), "exact", False) and len(subject.recipe.stages) == 1:
        need(worst == 0, f"it says exact, and the largest relative error is {worst:.3g}")
    need(worst < 1, f"the largest relative error is {worst:.3g}; zeros alone have 1")
    summary = api.inspect(folder)
    return f"{summary.source_weight_bytes:,} → {summary.weight_bytes:,} bytes, largest relative error {worst:.2g}"


@check("repeats", "another process writes the same bytes", "tensor")
def repeats(subject: Subject) -> None:
    out = subject.place("out")
    there = fresh.call("corecompress.testing.compressor:compress_there", out=str(out), **run_of(subject))
    need(there == samples.digest_of(compressed(subject)), differing(compressed(subject), out))


def run_of(subject: Subject) -> dict[str, str]:
    """What another process needs to compress the same."""
    return {"source": str(model(subject)), "example": subject.example}


def compress_there(source: str, example: str, out: str) -> str:
    """In another process: compress the small real model; the folder's digest."""
    from corecompress import api
    from corecompress.examples import split_example

    recipe, data = split_example(example)
    api.compress(source, out, recipe, data=data, jobs=2, evaluated=False)
    return samples.digest_of(Path(out))


def differing(one: Path, other: Path) -> str:
    """The first file or tensor in which two compressed folders differ."""
    ours, theirs = Artifact(one), Artifact(other)
    for name in sorted(ours.stored.keys() | theirs.stored.keys()):
        found = [a.stored[name].read().data.tobytes() if name in a.stored else None for a in (ours, theirs)]
        if found[0] != found[1]:
            what = name.removesuffix(SUFFIX)
            return f"{'tensor' if what != name else 'state'} '{what}' is coded otherwise"
    return "the folders' files differ"


@check("elsewhere", "another process decodes to the same bytes, from state and payload alone", "tensor")
def elsewhere(subject: Subject) -> None:
    here = compressed(subject)
    problems = fresh.call("corecompress.testing.compressor:verify_there", folder=str(here))
    need(not problems, "; ".join(problems))


def verify_there(folder: str) -> list[str]:
    """In another process: what does not hold of a compressed folder."""
    from corecompress import api

    return list(api.verify(folder).problems)


@check("threads", "the number of threads changes no byte", "tensor")
def threads(subject: Subject) -> None:
    import numpy as np

    folder = compress(subject, jobs=1)
    for jobs in (2, 5):
        other = compressed(subject) if jobs == 2 else compress(subject, jobs=jobs)
        need(samples.digest_of(other) == samples.digest_of(folder), f"1 and {jobs} threads: {differing(folder, other)}")
    made = real(subject)
    for name, tensor in made.tensors.items():
        payload = memoryview(bytes(made.writer.encode(tensor)))
        one, four = (np.asarray(made.reader.decode(payload, tensor.info, n)) for n in (1, 4))
        need(np.array_equal(one, four), f"'{name}' decodes otherwise with 4 threads")


@check("order", "the order in which tensors are coded and decoded does not matter", "tensor")
def order(subject: Subject) -> None:
    import numpy as np

    made = real(subject)
    names = list(made.tensors)
    payloads = {name: bytes(made.writer.encode(made.tensors[name])) for name in names}
    for name in reversed(names):
        need(
            bytes(made.writer.encode(made.tensors[name])) == payloads[name], f"'{name}' is coded otherwise after others"
        )
    dense = {n: made.reader.decode(memoryview(payloads[n]), made.tensors[n].info).tobytes() for n in names}
    for name in reversed(names):
        again = np.asarray(made.reader.decode(memoryview(payloads[name]), made.tensors[name].info))
        need(again.tobytes() == dense[name], f"'{name}' is decoded otherwise after others")


@check(
    "odd-tensors",
    "empty, scalar, tied, constant, 16-bit, integer and non-finite tensors are coded or declined",
    "tensor",
)
def odd_tensors(subject: Subject) -> str:
    from corecompress import api

    made = pair(subject, odd_folder(subject), "odd pair")
    for name, tensor in made.tensors.items():
        try:
            dense = made.reader.decode(memoryview(bytes(made.writer.encode(tensor))), tensor.info)
        except Exception as problem:
            shown = f"{tensor.info.dtype} {list(tensor.info.shape)}"
            raise CheckFailed(
                f"'{name}', {shown}: {type(problem).__name__}: {problem}; decline it in accepts"
            ) from None
        _check_odd(tensor, dense)
    out = compress(subject, 2, odd_folder(subject))
    verified = api.verify(out, odd_folder(subject))
    need(verified.ok, "; ".join(verified.problems))
    odd = sum(name.startswith("odd.") for name in made.tensors)
    return f"{odd} of {len(samples.odd_tensors())} are coded"


def _check_odd(tensor: Tensor, dense: Any) -> None:
    import numpy as np

    info = tensor.info
    need(dense.nbytes == info.nbytes, f"'{info.name}' has {info.nbytes} bytes and comes back with {dense.nbytes}")
    if info.dtype in ("I64", "I8", "BOOL"):
        need(dense.tobytes() == tensor.data.tobytes(), f"'{info.name}' ({info.dtype}): whole numbers come back changed")
    before, after = as_float64(tensor), as_float64(Tensor(info, np.asarray(dense).view(np.uint8).reshape(-1)))
    assert before is not None
    assert after is not None
    if np.isfinite(before).all():
        need(np.isfinite(after).all(), f"'{info.name}' is finite, and comes back with values that are no numbers")
    else:
        same = np.array_equal(np.isfinite(before), np.isfinite(after))
        need(same, f"'{info.name}': infinities and not-a-numbers do not come back where they were")
