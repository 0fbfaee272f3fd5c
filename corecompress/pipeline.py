"""How a run goes, on one page:

    open the source ─► model stages (each a checkpoint) ─► route tensors ─► prepare ─► code and check each ─► publish

Every tensor is read, coded, decoded again and compared before its payload is written; payloads are journaled in
their order; the folder gets its name only when every tensor of the source is accounted for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import corecompress
from corecompress.artifact import (
    FORMAT,
    NUMBER_BYTES,
    ORIGINAL_CARD,
    STATE,
    SUFFIX,
    FileRecord,
    Manifest,
    Record,
    Used,
    compressed_config,
)
from corecompress.checkpoint import MANIFEST, Checkpoint, hash_file, open_checkpoint
from corecompress.components import Data, Job, Progress, Tensor, TensorInfo
from corecompress.engines.local import run_in_order
from corecompress.errors import CorecompressError
from corecompress.journal import Journal
from corecompress.plugins import Registry
from corecompress.recipe import Recipe
from corecompress.report.card import write_card
from corecompress.routing import Resolved, Routing, Stage, resolve, route
from corecompress.safetensors_file import Stored
from corecompress.writer import SHARD_BYTES, PayloadWriter, carry_files, file_record, workplace

CONSTANT_MEMORY = 600 << 20
"""Bytes that the process holds besides tensors: Python, numba, compiled code, page tables."""


@dataclass(frozen=True)
class Settings:
    """What a run is told besides source, target and recipe. max_memory: bytes, None for what the default allows."""

    seed: int = 0
    jobs: int | None = None
    max_memory: int | None = None
    force: bool = False
    resume: bool = False
    shard_bytes: int = SHARD_BYTES

    @property
    def threads(self) -> int:
        return self.jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.jobs or os.cpu_count() or 1


@dataclass(frozen=True)
class Coded:
    """A tensor's outcome: its payload (bytes or uint8 [n]; None: the same as the earlier tensor `same_as`), and the hashes."""

    payload: Any
    source_sha256: str
    sha256: str


def run(
    source: str, target: Path, recipe: Recipe, registry: Registry, data: Data | None, settings: Settings, progress: Progress
) -> None:
    """Compress `source` into the folder `target`. Raises CorecompressError for all that a user can cause."""
    resolved = resolve(recipe, registry)
    checkpoint = open_checkpoint(source)
    if resolved.is_coded:
        route_if_known(resolved, checkpoint, registry)
    with workplace(target, force=settings.force, resume=settings.resume, source=checkpoint.folder) as partial:
        for number, stage in enumerate(resolved.model_stages):
            checkpoint = _run_model_stage(number, stage, checkpoint, partial, data, settings, progress)
        if resolved.is_coded:
            _code_tensors(checkpoint, resolved, registry, partial, data, settings, progress)
        else:
            shutil.copytree(checkpoint.folder, partial, dirs_exist_ok=True)
        shutil.rmtree(partial / "stages", ignore_errors=True)


def route_if_known(resolved: Resolved, checkpoint: Checkpoint, registry: Registry) -> Routing | None:
    """The routing, where no model stage changes the tensors first: mistakes in patterns show before the work."""
    return None if resolved.model_stages else route(resolved, checkpoint.tensors, registry)


def memory_budget(stages: dict[str, Stage], infos: list[TensorInfo], settings: Settings) -> int:
    """Bytes that tensors under way may hold. Raises CorecompressError when the largest alone needs more."""
    largest = max(infos, key=lambda info: stages[info.name].component.memory(info))
    need = int(stages[largest.name].component.memory(largest))
    if settings.max_memory is None:
        return max(2 * need, 256 << 20)
    if need + CONSTANT_MEMORY > settings.max_memory:
        raise CorecompressError(
            f"--max-memory {settings.max_memory / 1e6:.0f} MB: tensor '{largest.name}' alone needs "
            f"{(need + CONSTANT_MEMORY) / 1e6:.0f} MB; allow that much"
        )
    return settings.max_memory - CONSTANT_MEMORY


def _run_model_stage(
    number: int, stage: Stage, checkpoint: Checkpoint, partial: Path, data: Data | None, settings: Settings, progress: Progress
) -> Checkpoint:
    scratch, out = partial / "stages" / f"{number}-scratch", partial / "stages" / str(number)
    for folder in (scratch, out):
        folder.mkdir(parents=True, exist_ok=True)
    stage.component.compress(Job(checkpoint, checkpoint.tensors, data, settings.seed, settings.threads, scratch, progress), out)
    made = open_checkpoint(out)
    return Checkpoint(made.folder, checkpoint.name, checkpoint.revision, made.config, made.shards, made.carried, made.left)


def _code_tensors(
    checkpoint: Checkpoint,
    resolved: Resolved,
    registry: Registry,
    partial: Path,
    data: Data | None,
    settings: Settings,
    progress: Progress,
) -> None:
    routing = route(resolved, checkpoint.tensors, registry)
    stored = [s for s in checkpoint.stored() if s.info.name in routing.number_of]
    stage_of = {s.info.name: routing.stage_of(s.info.name) for s in stored}
    budget = memory_budget(stage_of, [s.info for s in stored], settings)
    source = describe_source(checkpoint, progress)
    identity = _identity(source, resolved, routing, data, settings)
    journal = Journal.resume(partial, identity) if settings.resume else Journal(partial, identity)
    keys = [STATE.format(n) for n in range(len(routing.stages))] + [s.info.name + SUFFIX for s in stored]
    writer = PayloadWriter(partial, keys, 2 * checkpoint.nbytes, journal, settings.shard_bytes)
    states = _prepare(checkpoint, routing, writer, partial, data, settings, progress)
    _code_each(stored, routing, writer, settings, budget, progress)
    records = tuple(_records(journal, checkpoint, routing))
    payloads = writer.finish()
    files = _other_files(checkpoint, partial, len(payloads))
    manifest = Manifest(
        format=FORMAT,
        corecompress=corecompress.__version__,
        source=source,
        recipe=str(resolved.recipe),
        seed=settings.seed,
        data=data.fingerprint() if data else None,
        components=tuple(_used(resolved.model_stages, routing, states)),
        tensors=records,
        payloads=tuple(payloads),
        files=(),
        dropped=routing.dropped,
    )
    check_complete(manifest, checkpoint)
    write_card(partial / "README.md", manifest, checkpoint)
    files.append(file_record(partial, "README.md"))
    manifest = Manifest(**{**manifest.__dict__, "files": tuple(sorted(files, key=lambda f: f.name))})
    (partial / MANIFEST).write_text(manifest.to_text(), encoding="utf-8")
    journal.close()


def describe_source(checkpoint: Checkpoint, progress: Progress) -> dict[str, Any]:
    """The source as the manifest records it: every shard with metadata, size and the SHA-256 of the whole file."""
    progress.start("hashing the source", checkpoint.nbytes)
    shards = [
        {
            "file": shard.path.name,
            "metadata": shard.metadata,
            "bytes": shard.path.stat().st_size,
            "sha256": hash_file(shard.path, progress.advance),
        }
        for shard in checkpoint.shards
    ]
    config = json.dumps(checkpoint.config, sort_keys=True).encode()
    return {
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "config_sha256": hashlib.sha256(config).hexdigest(),
        "left_behind": list(checkpoint.left),
        "shards": shards,
    }


def _identity(
    source: dict[str, Any], resolved: Resolved, routing: Routing, data: Data | None, settings: Settings
) -> dict[str, Any]:
    """What must be the same for a killed run to go on."""
    return {
        "corecompress": corecompress.__version__,
        "format": FORMAT,
        "source": hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest(),
        "recipe": str(resolved.recipe),
        "components": [_written(stage, None).__dict__ for stage in (*resolved.model_stages, *routing.stages)],
        "seed": settings.seed,
        "data": data.fingerprint() if data else None,
        "shard size": settings.shard_bytes,
    }


def _written(stage: Stage, state_sha256: str | None) -> Used:
    plugin = stage.provided.plugin
    options = json.loads(json.dumps(asdict(stage.options), default=str))
    return Used(
        stage.provided.kind,
        stage.provided.component.name,
        options,
        plugin.distribution,
        plugin.version,
        stage.provided.component.api,
        plugin.source,
        state_sha256,
    )


def _used(model_stages: tuple[Stage, ...], routing: Routing, states: list[str]) -> Iterator[Used]:
    """Tensor components first, so that their numbers are those of the routing."""
    yield from (_written(stage, state) for stage, state in zip(routing.stages, states, strict=True))
    yield from (_written(stage, None) for stage in model_stages)


def _prepare(
    checkpoint: Checkpoint,
    routing: Routing,
    writer: PayloadWriter,
    partial: Path,
    data: Data | None,
    settings: Settings,
    progress: Progress,
) -> list[str]:
    """Let every tensor component see the checkpoint; write its state. Returns the states' hashes."""
    written = {entry["key"]: entry for entry in writer.journal.entries}
    digests = []
    for number, stage in enumerate(routing.stages):
        mine = tuple(info for info in checkpoint.tensors if routing.number_of.get(info.name) == number)
        scratch = partial / "stages" / f"tensor-{number}"
        scratch.mkdir(parents=True, exist_ok=True)
        state = stage.component.prepare(Job(checkpoint, mine, data, settings.seed, settings.threads, scratch, progress))
        digest = hashlib.sha256(state).hexdigest()
        key = STATE.format(number)
        if key in written and written[key]["stored_sha256"] != digest:
            raise CorecompressError(f"{partial}: {stage.spec.name} was prepared otherwise before; start again with --force")
        if state and key not in written:
            writer.add(key, [state], {})
        stage.component.restore(state)
        digests.append(digest)
    return digests


def _code_each(
    stored: list[Stored], routing: Routing, writer: PayloadWriter, settings: Settings, budget: int, progress: Progress
) -> None:
    done = {entry["key"] for entry in writer.journal.entries}
    first_with = {
        (e["component"], e["dtype"], tuple(e["shape"]), e["source_sha256"]): e["name"]
        for e in reversed(writer.journal.entries)
        if "name" in e
    }
    todo = [(number, s) for number, s in enumerate(stored) if s.info.name + SUFFIX not in done]
    progress.start("compressing", sum(s.info.nbytes for s in stored))
    progress.advance(sum(s.info.nbytes for s in stored) - sum(s.info.nbytes for _, s in todo))

    def identity(info: TensorInfo, source_sha256: str) -> tuple[Any, ...]:
        return routing.number_of[info.name], info.dtype, info.shape, source_sha256

    def work(task: tuple[int, Stored]) -> Coded:
        info = task[1].info
        tensor = task[1].read()
        source_sha256 = hashlib.sha256(tensor.data).hexdigest()
        if info.nbytes and identity(info, source_sha256) in first_with:
            return Coded(None, source_sha256, "")
        return code_tensor(tensor, routing.stage_of(info.name), source_sha256)

    def cost(task: tuple[int, Stored]) -> int:
        return int(routing.stage_of(task[1].info.name).component.memory(task[1].info))

    for (number, item), coded in run_in_order(work, todo, cost, settings.threads, budget):
        info = item.info
        entry = {"name": info.name, "dtype": info.dtype, "shape": list(info.shape), "component": routing.number_of[info.name]}
        twin = first_with.get(identity(info, coded.source_sha256)) if info.nbytes else None
        payload = b"" if twin or coded.payload is None else coded.payload
        entry |= {"source_sha256": coded.source_sha256, "sha256": coded.sha256, "same_as": twin}
        entry["payload_sha256"] = hashlib.sha256(payload).hexdigest()
        writer.add(info.name + SUFFIX, [number.to_bytes(NUMBER_BYTES, "little"), payload], entry)
        first_with.setdefault(identity(info, coded.source_sha256), info.name)
        progress.advance(info.nbytes)


def code_tensor(tensor: Tensor, stage: Stage, source_sha256: str) -> Coded:
    """Encode, decode again, compare. Raises CorecompressError when the component broke its promise."""
    component, info = stage.component, tensor.info
    payload = component.encode(tensor)
    decoded = component.decode(memoryview(payload), info)
    digest = hashlib.sha256(decoded).hexdigest()
    if decoded.nbytes != info.nbytes:
        raise CorecompressError(f"{stage.spec.name} gave back {decoded.nbytes} bytes of tensor '{info.name}', not {info.nbytes}")
    if getattr(component, "exact", False) and digest != source_sha256:
        raise CorecompressError(f"{stage.spec.name} did not restore tensor '{info.name}' bit for bit; report it to its author")
    return Coded(payload, source_sha256, digest)


def _records(journal: Journal, checkpoint: Checkpoint, routing: Routing) -> Iterator[Record]:
    shard_of = {s.info.name: number for number, shard in enumerate(checkpoint.shards) for s in shard.tensors}
    sha256_of: dict[str, str] = {}
    for entry in journal.entries:
        if "name" in entry:
            sha256_of[entry["name"]] = sha256_of[entry["same_as"]] if entry["same_as"] else entry["sha256"]
            yield Record(
                entry["name"],
                entry["dtype"],
                tuple(entry["shape"]),
                entry["component"],
                shard_of[entry["name"]],
                entry["bytes"] - NUMBER_BYTES,
                entry["payload_sha256"],
                sha256_of[entry["name"]],
                entry["same_as"],
            )


def _other_files(checkpoint: Checkpoint, partial: Path, payload_files: int) -> list[FileRecord]:
    names = {name: ORIGINAL_CARD if name == "README.md" else name for name in checkpoint.carried}
    files = carry_files(checkpoint.folder, names, partial)
    config = json.dumps(compressed_config(checkpoint.config), indent=2, ensure_ascii=False) + "\n"
    (partial / "config.json").write_text(config, encoding="utf-8")
    files.append(file_record(partial, "config.json"))
    if payload_files > 1:
        from corecompress.artifact import PAYLOAD_INDEX

        files.append(file_record(partial, PAYLOAD_INDEX))
    return files


def check_complete(manifest: Manifest, checkpoint: Checkpoint) -> None:
    """Compare input and output by name, dtype and shape: a tensor never disappears unless the recipe names it."""
    given = {info for info in checkpoint.tensors if info.name not in manifest.dropped}
    made = {record.info for record in manifest.tensors}
    if given != made or len(made) != len(manifest.tensors):
        wrong = sorted(info.name for info in given ^ made)
        raise CorecompressError(f"tensor '{wrong[0]}' differs between the source and the output; nothing was published")
