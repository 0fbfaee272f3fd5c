"""What a fitted generative encoder does: new samples, and the data's samples as it sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from corecompress.artifact import is_compressed
from corecompress.checkpoint import Checkpoint
from corecompress.components import Data, GenerativeEncoder, Sample
from corecompress.errors import CorecompressError
from corecompress.fitting import FORMAT, RECORD
from corecompress.measure.task import read_config
from corecompress.plugins import registry
from corecompress.recipe import Spec, build


@dataclass(frozen=True)
class Written:
    """What `generate` or `reconstruct` wrote: how many samples, and the files."""

    model: str
    samples: int
    files: tuple[str, ...]


def open_fitted(folder: Path) -> GenerativeEncoder:
    """The encoder that `corecompress fit` wrote into `folder`, or its compressed folder.

    Raises CorecompressError for a folder of another kind, a newer format, or a component that isn't installed.
    """
    record = _record(folder)
    encoder = build(registry(), "encoder", Spec(record["encoder"], _options(record, "encoder")))
    if not hasattr(encoder, "generate"):
        raise CorecompressError(f"{folder}: its encoder {record['encoder']} codes weights and makes no samples")
    encoder.load(folder, build(registry(), "prior", Spec(record["prior"], _options(record, "prior"))))
    found: GenerativeEncoder = encoder
    return found


def generate(folder: Path, n: int, prompt: str | None, seed: int, out: Path) -> Written:
    """Write n new samples to `out`; see api.generate."""
    from corecompress.report.samples import write_samples

    samples = open_fitted(folder).generate(n, prompt=prompt, seed=seed)
    return Written(str(folder), len(samples), write_samples(samples, out))


def reconstruct(folder: Path, data: Data, n: int, seed: int, out: Path) -> Written:
    """Write n samples of the evaluation split beside their reconstructions; see api.reconstruct. data: not prepared."""
    from corecompress.report.samples import write_pairs

    encoder = open_fitted(folder)
    data.prepare(Checkpoint(folder, folder.name, None, read_config(folder), (), {}, (), ()))
    pairs: list[tuple[Sample, Sample]] = []
    for batch in data.batches(seed, "evaluation"):
        pairs += encoder.reconstruct(batch)
        if len(pairs) >= n:
            break
    pairs = list(islice(pairs, n))
    if not pairs:
        raise CorecompressError("--data: its evaluation split is empty; give more data")
    return Written(str(folder), len(pairs), write_pairs(pairs, out))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not folder.is_dir() or not path.exists():
        kind = "a compressed folder" if folder.is_dir() and is_compressed(folder) else "a folder"
        what = f"is {kind} without {RECORD}" if folder.is_dir() else "no such folder"
        raise CorecompressError(f"{folder}: {what}; give one that `corecompress fit` wrote, or its compressed folder")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = int(record["format"])
        str(record["encoder"]), str(record["prior"])
    except (ValueError, KeyError, TypeError):
        raise CorecompressError(f"{path}: is no record of a fitted encoder; fit it again") from None
    if version > FORMAT:
        raise CorecompressError(
            f"{path}: has format {version}, this corecompress reads up to {FORMAT}; pip install -U corecompress"
        )
    return dict(record)


def _options(record: dict[str, Any], kind: str) -> dict[str, Any]:
    found = record.get(f"{kind} options")
    return dict(found) if isinstance(found, dict) else {}
