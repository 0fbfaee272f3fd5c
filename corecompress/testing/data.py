"""Checks of data components."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from typing import Any

from corecompress.components import DataReport
from corecompress.errors import CorecompressError
from corecompress.recipe import parse_data
from corecompress.testing import fresh
from corecompress.testing.kit import CheckFailed, Subject, check, need, rebuild
from corecompress.testing.samples import SPLITS

MOST = 40
"""Batches of a split that are looked at."""


def opened(subject: Subject) -> Any:
    """A fresh component, prepared without a checkpoint."""
    component = subject.build(parse_data(subject.example)[1])
    component.prepare(None)
    return component


def filled(component: Any, seed: int = 0) -> list[str]:
    """The splits that hold anything. The kit needs two at least."""
    found = []
    for split in SPLITS:
        try:
            if next(iter(component.batches(seed, split)), None) is not None:
                found.append(split)
        except CorecompressError:
            continue  # a split without a share
    return found


def arrays(batch: Any) -> dict[str, Any]:
    """A batch as numpy arrays."""
    import numpy as np

    return {str(name): np.asarray(value) for name, value in batch.items()}


def digests(component: Any, split: str, seed: int = 0, start: int = 0) -> list[str]:
    """A digest of each of the first batches."""
    found = []
    for batch in itertools.islice(component.batches(seed, split, start), MOST):
        digest = hashlib.sha256()
        for name, value in sorted(arrays(batch).items()):
            shown = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
            digest.update(f"{name} {value.dtype} {value.shape}".encode() + shown)
        found.append(digest.hexdigest())
    return found


@check("batches", "batches are named arrays of one length, and say which document a sample is from", "data")
def batches(subject: Subject) -> str:
    component = opened(subject)
    splits = filled(component)
    need(
        {"calibration", "evaluation"} <= set(splits),
        f"only {splits or 'no split'} holds anything; both sides need data",
    )
    for split in splits:
        for batch in itertools.islice(component.batches(0, split), MOST):
            made = arrays(batch)
            need(len(made) > 1, f"a batch holds {list(made)}; besides `document` there must be something")
            lengths = {name: value.shape[0] if value.ndim else None for name, value in made.items()}
            need(len(set(lengths.values())) == 1, f"first dimensions differ: {lengths}")
            need("document" in made, "no array `document` says which document each sample is from")
            need(made["document"].dtype.kind in "iu", f"`document` is {made['document'].dtype}, not whole numbers")
    return ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in made.items())


@check("restarts", "batches can be asked for again, and from any number on", "data")
def restarts(subject: Subject) -> None:
    component = opened(subject)
    for split in filled(component):
        first = digests(component, split)
        need(digests(component, split) == first, f"{split}: the second pass differs from the first")
        interrupted = iter(component.batches(0, split))
        next(interrupted)
        need(digests(component, split) == first, f"{split}: a pass differs while another is under way")
        middle = len(first) // 2
        rest = digests(component, split, start=middle)[: len(first) - middle]
        need(rest == first[middle:], f"{split}: batches from {middle} on are others than those of a whole pass")


@check("deterministic", "the same seed gives the same batches in another process", "data")
def deterministic(subject: Subject) -> str:
    component = opened(subject)
    spec, source = parse_data(subject.example)
    there = fresh.call("corecompress.testing.data:all_digests", spec=str(spec), source=source)
    here = {split: digests(component, split, seed=7) for split in filled(component, 7)}
    for split in here | there:
        need(here.get(split) == there.get(split), f"{split}: another process gives other batches for the same seed")
    return f"{sum(map(len, here.values()))} batches"


def all_digests(spec: str, source: str) -> dict[str, list[str]]:
    """In another process: the batches of each split for seed 7."""
    component = rebuild("data", spec, source)
    component.prepare(None)
    return {split: digests(component, split, seed=7) for split in filled(component, 7)}


@check("splits", "splits are disjoint, by document and by content; an unknown one is refused", "data")
def splits(subject: Subject) -> str:
    import numpy as np

    component = opened(subject)
    documents: dict[str, set[int]] = {}
    rows: dict[str, set[bytes]] = {}
    for split in filled(component):
        documents[split], rows[split] = set(), set()
        for batch in itertools.islice(component.batches(0, split), MOST):
            made = arrays(batch)
            documents[split] |= {int(number) for number in np.unique(made.pop("document")) if number >= 0}
            for number in range(len(next(iter(made.values())))):
                shown = repr([value[number].tolist() for _, value in sorted(made.items())])
                rows[split].add(hashlib.sha256(shown.encode()).digest())
    for one, other in itertools.combinations(documents, 2):
        common = documents[one] & documents[other]
        need(not common, f"{one} and {other} share {len(common)} documents, {min(common, default=0)} for one")
        same = len(rows[one] & rows[other]) / max(min(len(rows[one]), len(rows[other])), 1)
        need(same < 0.5, f"{same:.0%} of the samples of {one} and {other} are the same")
    try:
        next(iter(component.batches(0, "no-such-split")), None)
    except CorecompressError:
        return ", ".join(f"{split} {len(found)} documents" for split, found in documents.items())
    except Exception as problem:
        raise CheckFailed(f"split 'no-such-split' raised {type(problem).__name__}, not CorecompressError") from None
    raise CheckFailed("split 'no-such-split' was not refused; raise CorecompressError")


@check("fingerprint", "the fingerprint is hexadecimal, and the same in another process", "data")
def fingerprint(subject: Subject) -> str:
    here = opened(subject).fingerprint()
    need(isinstance(here, str) and re.fullmatch(r"[0-9a-f]{16,128}", here), f"it is {here!r}; give a hex digest")
    spec, source = parse_data(subject.example)
    there = fresh.call("corecompress.testing.data:fingerprint_of", spec=str(spec), source=source)
    need(here == there, f"it is {here}, and {there} in another process")
    return str(here)


def fingerprint_of(spec: str, source: str) -> str:
    """In another process: the fingerprint."""
    component = rebuild("data", spec, source)
    component.prepare(None)
    return str(component.fingerprint())


@check("report", "the report is a DataReport that can be printed", "data")
def report(subject: Subject) -> None:
    from corecompress.report.tables import as_json, data_table

    made = opened(subject).report()
    need(isinstance(made, DataReport), f"report gives {type(made).__name__}, not corecompress.components.DataReport")
    try:
        json.dumps(as_json(made))
        data_table(made, "")
    except (TypeError, ValueError, AttributeError) as problem:
        raise CheckFailed(f"it can't be printed ({problem}); use numbers and text") from None
