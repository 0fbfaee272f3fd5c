"""The teacher's outputs, computed anew or kept on disk: top-k logits or pooled embeddings, in shards of bounded size.

    FOLDER/outputs-RANK-NUMBER.safetensors    tensors "KEY.ids", "KEY.logs" or "KEY.embedding", KEY a hash of a sample

A sample is found by the bytes of its inputs, so epochs in another order, other runs and other cuts find it as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from corecompress.components import Progress
from corecompress.errors import CorecompressError
from corecompress_distill.inputs import IGNORED, Inputs
from corecompress_distill.objectives import Objectives
from corecompress_distill.objectives.logits import Logits, TopLogits
from corecompress_distill.outputs import Outputs, Reader

SHARD = 64 << 20
"""Bytes of a shard, about."""


@dataclass
class Cache:
    """Tensors by key. limit: bytes that all shards together may take; what comes after is not kept."""

    folder: Path
    limit: int
    rank: int
    progress: Progress
    _places: dict[str, Path] = field(default_factory=dict)
    _open: dict[Path, Any] = field(default_factory=dict)
    _waiting: dict[str, torch.Tensor] = field(default_factory=dict)
    _bytes: int = 0
    _full: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("outputs-*.safetensors")):
            self._note(path)

    def get(self, name: str) -> torch.Tensor | None:
        """A tensor by name, None where it isn't kept."""
        if name in self._waiting:
            return self._waiting[name]
        return self._open[self._places[name]].get_tensor(name) if name in self._places else None

    def put(self, name: str, value: torch.Tensor) -> None:
        """Keep a tensor, if there is room for it."""
        size = value.nbytes
        if self._full or self._bytes + size > self.limit:
            self._fill("teacher_cache has reached its size")
            return
        self._waiting[name] = value.contiguous()
        self._bytes += size
        if sum(tensor.nbytes for tensor in self._waiting.values()) >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting into a shard of its own."""
        if not self._waiting:
            return
        number = len(list(self.folder.glob(f"outputs-{self.rank}-*.safetensors")))
        path = self.folder / f"outputs-{self.rank}-{number:05d}.safetensors"
        scratch = path.with_suffix(".tmp")
        try:
            save_file(self._waiting, scratch)
            scratch.replace(path)
        except (OSError, SafetensorError) as problem:
            scratch.unlink(missing_ok=True)
            self._fill(f"{path.parent}: {problem}")
        else:
            self._bytes -= sum(tensor.nbytes for tensor in self._waiting.values())
            self._note(path)
        self._waiting = {}

    def _fill(self, why: str) -> None:
        if not self._full:
            self.progress.note(f"{why}; the teacher computes the other outputs in every epoch")
        self._full = True

    def _note(self, path: Path) -> None:
        opened = safe_open(path, "pt")
        self._open[path] = opened
        self._places |= dict.fromkeys(opened.keys(), path)
        self._bytes += path.stat().st_size


class Teacher:
    """The teacher's outputs for inputs: (inputs) -> Outputs, without gradients."""

    def __init__(self, reader: Reader, objectives: Objectives, cache: Cache | None):
        self.reader, self.cache = reader, cache
        parts = [part for part in objectives.parts.values() if isinstance(part, Logits)]
        self.logits = parts[0] if parts else None

    def __call__(self, inputs: Inputs) -> Outputs:
        with torch.no_grad():
            if self.cache is None:
                return self.reader(inputs)
            names = keys(inputs)
            missing = [n for n, key in enumerate(names) if self.cache.get(f"{key}.{self._last}") is None]
            if missing:
                unknown = inputs.pick(missing)
                self._keep(unknown, self.reader(unknown))
            found = self._known(names, next(iter(inputs.model.values())).device)
            return self.reader(inputs) if found is None else found

    @property
    def _last(self) -> str:
        """What of a sample is written last, so that all of it is there with it."""
        return "logs" if self.logits else "embedding"

    def _known(self, names: list[str], device: Any) -> Outputs | None:
        """What is kept of the samples, None unless it is there for every one."""
        assert self.cache is not None
        columns = []
        for part in ("ids", "logs") if self.logits else ("embedding",):
            found = [self.cache.get(f"{key}.{part}") for key in names]
            values = [value for value in found if value is not None]
            if len(values) < len(found):
                return None
            # Whole numbers and float32: autocast does not know how to join float16 on a processor.
            columns.append(torch.cat([v.long() if part == "ids" else v.float() for v in values]).to(device))
        if self.logits:
            brief: Any = TopLogits(columns[0], columns[1])
            return Outputs(logits=brief)
        return Outputs(embedding=columns[0])

    def _keep(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self.cache is not None
        if self.logits is not None:
            assert outputs.logits is not None
            brief = self.logits.of_teacher(outputs.logits, inputs)
            counts = _rows_of(inputs)
            values = {"ids": brief.ids.int().cpu().split(counts), "logs": brief.logs.half().cpu().split(counts)}
        else:
            assert outputs.embedding is not None
            values = {"embedding": outputs.embedding.float().cpu().split(1)}
        for name, parts in values.items():
            for key, part in zip(keys(inputs), parts, strict=True):
                self.cache.put(f"{key}.{name}", part.clone())


def _rows_of(inputs: Inputs) -> list[int]:
    """Predicted positions of each sample."""
    if inputs.labels is None or inputs.labels.ndim == 1:
        return [1] * inputs.samples
    return [int(n) for n in (inputs.labels != IGNORED).sum(1)]


def keys(inputs: Inputs) -> list[str]:
    """A hash of each sample's inputs, padding left out."""
    ids, mask = inputs.model.get("input_ids"), inputs.model.get("attention_mask")
    if ids is None or mask is None:
        first = next(iter(inputs.model.values()))
        return [xxhash.xxh3_128_hexdigest(row.cpu().numpy().tobytes()) for row in first]
    more = inputs.model.get("decoder_input_ids")
    found = []
    for n in range(len(ids)):
        text = ids[n][mask[n].bool()].cpu().numpy().tobytes()
        if more is not None and inputs.mask is not None:
            text += b"|" + more[n][inputs.mask[n]].cpu().numpy().tobytes()
        found.append(xxhash.xxh3_128_hexdigest(text))
    return found


def open_cache(
    folder: Path, gigabytes: float, identity: Any, objectives: Objectives, task: str, rank: int, progress: Progress
) -> Cache | None:
    """The cache that the options ask for. Raises CorecompressError where the objectives can't live from it."""
    if gigabytes <= 0:
        return None
    logits = next((part for part in objectives.parts.values() if isinstance(part, Logits)), None)
    for name in ("hidden", "relations"):
        if name in objectives.needs:
            raise CorecompressError(f"distill(teacher_cache): keeps no states for the objective {name}; leave out one")
    if task == "masked-lm":
        raise CorecompressError("distill(teacher_cache): masked tokens are drawn anew in every epoch; leave it out")
    if logits is not None and not logits.options.top:
        raise CorecompressError("distill(teacher_cache): whole logits are too large; write logits(top=64)")
    settings = (logits.options.temperature, logits.options.top) if logits else "embedding"
    digest = hashlib.sha256(repr((identity, settings)).encode()).hexdigest()[:24]
    return Cache(folder / f"teacher-{digest}", int(gigabytes * 1e9), rank, progress)
