"""Training an encoder and its prior on data, all through the hooks; what was learned becomes a folder.

    data ─► encoder.fit(data, prior) ─► OUT/encoder.json (who it is) and OUT/encoder.safetensors (what it knows)

The arrays are named encoder.* and prior.*, as the components' state dicts name them. A generative encoder writes a
Hugging Face checkpoint beside encoder.json instead.
"""

from __future__ import annotations

import inspect
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corecompress
from corecompress.components import Data, Kind, Progress
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_file
from corecompress.journal import Journal
from corecompress.plugins import registry
from corecompress.ranks import announce, await_end, await_leader, is_follower
from corecompress.recipe import Spec, build, parse_spec
from corecompress.run import Settings
from corecompress.safetensors_file import write_arrays
from corecompress.writer import STAGES, lock_of, partial_of, workplace

FORMAT = 1
RECORD, ARRAYS = "encoder.json", "encoder.safetensors"
SCRATCH = "training"
"""Folder of a training's checkpoints, beside what it will become."""


@dataclass(frozen=True)
class Fitted:
    """A folder with a fitted encoder: its specs, the figures that the encoder gave, bytes, seconds of training."""

    path: str
    encoder: str
    prior: str
    data: str
    figures: Mapping[str, Any]
    bytes: int
    seconds: float


def fit(
    data_spec: str,
    data: Data,
    encoder: str,
    prior: str,
    out: Path,
    settings: Settings,
    target_loss: float | None,
    seconds: float | None,
    progress: Progress,
) -> Fitted:
    """Train and write `out`; see api.fit."""
    encoder_spec, prior_spec = parse_spec(encoder), parse_spec(prior)
    learner, model = build(registry(), "encoder", encoder_spec), build(registry(), "prior", prior_spec)
    identity = {
        "corecompress": corecompress.__version__,
        **_who("encoder", encoder_spec),
        **_who("prior", prior_spec),
        "data": data.fingerprint(),
        "seed": settings.seed,
    }
    began = time.monotonic()

    def train(partial: Path) -> dict[str, Any]:
        more = _taken(learner, encoder_spec, {"scratch": partial / SCRATCH, "seconds": seconds})
        found = learner.fit(data, model, seed=settings.seed, target_loss=target_loss, progress=progress, **more)
        return dict(found or {})

    if is_follower():
        await_leader(partial_of(out) / STAGES)
        figures = train(partial_of(out))
        await_end(lock_of(out))
        return _found(out, encoder, prior, data_spec, figures, began)
    with workplace(out, force=settings.force, resume=settings.resume) as partial:
        Journal.resume(partial, identity).close()
        (partial / STAGES).mkdir(exist_ok=True)
        announce(partial / STAGES, 0)
        figures = train(partial)
        record = {"format": FORMAT, **identity, "figures": figures}
        if hasattr(learner, "save"):
            learner.save(partial)
        else:
            write_arrays(partial / ARRAYS, _arrays(encoder=learner, prior=model))
            record["sha256"] = hash_file(partial / ARRAYS)
        (partial / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (SCRATCH, STAGES):  # last, so that a run that is killed while it saves goes on from there
            shutil.rmtree(partial / name, ignore_errors=True)
    return _found(out, encoder, prior, data_spec, figures, began)


def _found(out: Path, encoder: str, prior: str, data: str, figures: Mapping[str, Any], began: float) -> Fitted:
    size = sum(path.stat().st_size for path in out.iterdir())
    return Fitted(str(out), encoder, prior, data, figures, size, time.monotonic() - began)


def _who(kind: Kind, spec: Spec) -> dict[str, Any]:
    """Name, options and distribution of a component, as they are recorded."""
    plugin = registry().get(kind, spec.name).plugin
    options = json.loads(json.dumps(spec.options, default=str))  # a Spec as a recipe writes it
    made = f"{plugin.distribution} {plugin.version}"
    return {kind: spec.name, f"{kind} options": options, f"{kind} from": made}


def _taken(learner: Any, spec: Spec, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those arguments that this encoder's fit has; raises CorecompressError for a time limit that it can't keep."""
    takes = inspect.signature(learner.fit).parameters
    if arguments["seconds"] is not None and "seconds" not in takes:
        raise CorecompressError(f"--max-minutes: encoder '{spec.name}' can't stop by time; leave it out")
    return {key: value for key, value in arguments.items() if key in takes}


def _arrays(**components: Any) -> dict[str, Any]:
    """What the components know, under their kinds; a prior need not know anything."""
    return {
        f"{kind}.{name}": value
        for kind, component in components.items()
        for name, value in (component.state_dict() if hasattr(component, "state_dict") else {}).items()
    }
