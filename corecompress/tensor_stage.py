"""The last stage of a run: every tensor is read, coded, decoded again, compared, and written in order."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import corecompress
from corecompress.artifact import (
    FORMAT,
    NUMBER_BYTES,
    ORIGINAL_CARD,
    PAYLOAD_INDEX,
    STATE,
    SUFFIX,
    FileRecord,
    Manifest,
    Record,
    compressed_config,
)
from corecompress.checkpoint import MANIFEST, Checkpoint
from corecompress.components import Job, Progress, Tensor
from corecompress.engines.budget import memory_budget
from corecompress.engines.local import run_in_order
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_bytes, hash_dense, hash_file
from corecompress.journal import Journal
from corecompress.provenance import used_inside, used_stage
from corecompress.report.card import write_card
from corecompress.routing import Routing, Stage, route
from corecompress.run import Run
from corecompress.safetensors_file import Stored
from corecompress.twins import twins_of
from corecompress.writer import PayloadWriter, carry_files, file_record

ROW, TWIN, FILE, REST = 345, 323, 110, 3000
"""Bytes, about: of a tensor's line in the manifest and its entry in the payload file's header, but for its name (there
twice) and shape; the same of a tensor that is another's twin, but for its name, too; of a file's line in the manifest;
of the manifest's other lines and the card."""


@dataclass(frozen=True)
class Coded:
    """A tensor's outcome. payload: bytes or uint8 [n]; xxh3_128: of what it decodes to."""

    payload: Any
    xxh3_128: str


def code_tensors(run: Run, checkpoint: Checkpoint) -> None:
    """Code the whole checkpoint into run.partial, manifest, card and other files included."""
    routing = route(run.resolved, checkpoint.tensors, run.registry)
    stored = [s for s in checkpoint.stored() if s.info.name in routing.number_of]
    infos = [s.info for s in stored]
    memory_budget(routing, infos, run.settings)  # what can't be done is said before it takes time
    source = describe_source(checkpoint, run.progress)
    twins = twins_of(stored, routing.number_of)
    known = identity(run, source, (*run.resolved.model_stages, *routing.stages))
    journal = Journal.resume(run.partial, known) if run.settings.resume else Journal(run.partial, known)
    keys = [STATE.format(n) for n in range(len(routing.stages))] + [s.info.name + SUFFIX for s in stored]
    writer = PayloadWriter(run.partial, keys, 2 * checkpoint.nbytes, journal, run.settings.shard_bytes)
    states = _prepare(run, checkpoint, routing, twins, writer)
    _code_each(run, routing, twins, stored, writer, memory_budget(routing, infos, run.settings))
    payloads = writer.finish()
    components = [used_stage(s, state) for s, state in zip(routing.stages, states, strict=True)]
    components += map(used_stage, run.resolved.model_stages)
    components += used_inside((*routing.stages, *run.resolved.model_stages), run.registry)
    manifest = Manifest(
        format=FORMAT,
        corecompress=corecompress.__version__,
        source=source,
        recipe=str(run.resolved.recipe),
        seed=run.settings.seed,
        data=run.data.fingerprint() if run.data else None,
        components=tuple(components),
        tensors=tuple(_records(journal, checkpoint)),
        payloads=tuple(payloads),
        files=(),
        dropped=routing.dropped,
    )
    check_complete(manifest, checkpoint)
    exact = all(stage.component.exact for stage in routing.stages) and not run.resolved.model_stages
    _write_rest(run, checkpoint, manifest, exact)
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
    return {
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "config_sha256": hash_bytes(json.dumps(checkpoint.config, sort_keys=True).encode()),
        "index_metadata": checkpoint.index_metadata,
        "left_behind": list(checkpoint.left),
        "shards": shards,
    }


def identity(run: Run, source: dict[str, Any], stages: tuple[Stage, ...]) -> dict[str, Any]:
    """What must be the same for a killed run to go on."""
    used = (*map(used_stage, stages), *used_inside(stages, run.registry))
    return {
        "corecompress": corecompress.__version__,
        "format": FORMAT,
        "source": hash_bytes(json.dumps(source, sort_keys=True).encode()),
        "recipe": str(run.resolved.recipe),
        "components": [dataclasses.asdict(component) for component in used],
        "seed": run.settings.seed,
        "data": run.data.fingerprint() if run.data else None,
        "shard size": run.settings.shard_bytes,
    }


def _prepare(
    run: Run, checkpoint: Checkpoint, routing: Routing, twins: Mapping[str, str], writer: PayloadWriter
) -> list[str]:
    """Let every tensor component see the checkpoint; write its state. Returns the states' hashes."""
    written = {entry["key"]: entry["stored_sha256"] for entry in writer.journal.entries}
    digests = []
    for number, stage in enumerate(routing.stages):
        state = stage.component.prepare(job_of_tensors(run, checkpoint, routing, twins, number))
        digest, key = hash_bytes(state), STATE.format(number)
        if written.get(key, digest) != digest:
            raise CorecompressError(f"{run.partial}: {stage.spec.name} was prepared otherwise before; add --force")
        if state and key not in written:
            writer.add(key, [state], {})
        stage.component.restore(state)
        digests.append(digest)
    return digests


def job_of_tensors(run: Run, checkpoint: Checkpoint, routing: Routing, twins: Mapping[str, str], number: int) -> Job:
    """What the tensor compressor `number` may know. twins: see twins.twins_of."""
    files = sum((checkpoint.folder / name).stat().st_size for name in ("config.json", *checkpoint.carried))
    rows = sum(
        (TWIN + len(twins[info.name]) if info.name in twins else ROW) + 2 * len(info.name) + len(str(info.shape))
        for info in checkpoint.tensors
        if info.name in routing.number_of
    )
    overhead = files + rows + FILE * len(checkpoint.carried) + REST
    stored = [info for info in checkpoint.tensors if info.name in routing.number_of and info.name not in twins]
    mine = tuple(info for info in stored if routing.number_of[info.name] == number)
    scratch, settings = run.scratch(f"tensor-{number}"), run.settings
    return Job(
        checkpoint, mine, run.data, settings.seed, settings.threads, scratch, run.progress, run.cache, overhead,
        max_memory=settings.max_memory, parameters=sum(info.size for info in stored), twins=twins,
    )  # fmt: skip


def _code_each(
    run: Run, routing: Routing, twins: Mapping[str, str], stored: list[Stored], writer: PayloadWriter, budget: int
) -> None:
    """Code what the journal does not have, several at a time, and write in order."""
    done = {entry["key"] for entry in writer.journal.entries}
    todo = [(number, item) for number, item in enumerate(stored) if item.info.name + SUFFIX not in done]
    total = sum(item.info.nbytes for item in stored)
    run.progress.start("compressing", total)
    run.progress.advance(total - sum(item.info.nbytes for _, item in todo))

    def work(task: tuple[int, Stored]) -> Coded:
        item = task[1]
        if item.info.name in twins:
            return Coded(b"", "")
        return code_tensor(item.read(), routing.stage_of(item.info.name))

    def cost(task: tuple[int, Stored]) -> int:
        info = task[1].info
        return 0 if info.name in twins else int(routing.stage_of(info.name).component.memory(info))

    for (number, item), coded in run_in_order(work, todo, cost, run.settings.threads, budget):
        info = item.info
        entry = {
            "name": info.name,
            "dtype": info.dtype,
            "shape": list(info.shape),
            "component": routing.number_of[info.name],
            "xxh3_128": coded.xxh3_128,
            "same_as": twins.get(info.name),
            "payload_sha256": hash_bytes(coded.payload),
        }
        writer.add(info.name + SUFFIX, [number.to_bytes(NUMBER_BYTES, "little"), coded.payload], entry)
        run.progress.advance(info.nbytes)


def code_tensor(tensor: Tensor, stage: Stage) -> Coded:
    """Encode, decode again, compare. Raises CorecompressError when the component broke its promise."""
    component, info = stage.component, tensor.info
    payload = component.encode(tensor)
    decoded = component.decode(memoryview(payload), info)
    if decoded.nbytes != info.nbytes:
        raise CorecompressError(
            f"{stage.spec.name}: '{info.name}' came back with {decoded.nbytes} bytes, not {info.nbytes}"
        )
    digest = hash_dense(decoded)
    if component.exact and digest != hash_dense(tensor.data):
        raise CorecompressError(f"{stage.spec.name}: '{info.name}' came back with other bits; report it to its author")
    return Coded(payload, digest)


def _records(journal: Journal, checkpoint: Checkpoint) -> Iterator[Record]:
    shard_of = {s.info.name: number for number, shard in enumerate(checkpoint.shards) for s in shard.tensors}
    hash_of: dict[str, str] = {}
    for entry in journal.entries:
        if "name" in entry:
            name, same_as = entry["name"], entry["same_as"]
            hash_of[name] = hash_of[same_as] if same_as else entry["xxh3_128"]
            yield Record(
                name=name,
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                component=entry["component"],
                shard=shard_of[name],
                bytes=entry["bytes"] - NUMBER_BYTES,
                payload_sha256=entry["payload_sha256"],
                xxh3_128=hash_of[name],
                same_as=same_as,
            )


def check_complete(manifest: Manifest, checkpoint: Checkpoint) -> None:
    """Compare input and output by name, dtype and shape: a tensor never disappears unless the recipe names it."""
    given = {info for info in checkpoint.tensors if info.name not in manifest.dropped}
    made = {record.info for record in manifest.tensors}
    if given != made or len(made) != len(manifest.tensors):
        wrong = sorted(info.name for info in given ^ made)
        raise CorecompressError(f"tensor '{wrong[0]}' differs between the source and the output; nothing was published")


def _write_rest(run: Run, checkpoint: Checkpoint, manifest: Manifest, exact: bool) -> None:
    """The files beside the payloads: those that go along, config.json, the card, and last the manifest."""
    names = {name: ORIGINAL_CARD if name == "README.md" else name for name in checkpoint.carried}
    files: list[FileRecord] = carry_files(checkpoint.folder, names, run.partial)
    first_shard = [stored.info for stored in checkpoint.shards[0].tensors]
    config = compressed_config(checkpoint.config, first_shard, checkpoint.index_metadata, len(manifest.payloads))
    (run.partial / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_card(run.partial, manifest, exact)
    written = ["config.json", "README.md"] + ([PAYLOAD_INDEX] if len(manifest.payloads) > 1 else [])
    files += [file_record(run.partial, name) for name in written]
    complete = dataclasses.replace(manifest, files=tuple(sorted(files, key=lambda file: file.name)))
    (run.partial / MANIFEST).write_text(complete.to_text(), encoding="utf-8")
