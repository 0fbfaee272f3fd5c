"""A compressed folder back to an ordinary checkpoint: the same shards, names, dtypes and metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from corecompress.artifact import ORIGINAL_CARD, PAYLOAD_INDEX, Artifact, Record
from corecompress.checkpoint import INDEX
from corecompress.components import Progress, Tensor, TensorCompressor
from corecompress.engines.budget import CONSTANT_MEMORY
from corecompress.engines.local import run_in_order
from corecompress.errors import CorruptArtifact
from corecompress.hashing import hash_file
from corecompress.run import Settings
from corecompress.safetensors_file import header_bytes
from corecompress.writer import carry_files, workplace


@dataclass(frozen=True)
class _Decoding:
    """One tensor to decode, and what it holds in memory meanwhile."""

    record: Record
    memory: int


def write_dense(artifact: Artifact, target: Path, settings: Settings, progress: Progress) -> None:
    """Decode every tensor into the shards that the manifest describes, and publish them as `target`.

    Raises CorruptArtifact for damage anywhere, CorecompressError for a target that can't be written.
    """
    for name in artifact.damaged_files():
        raise CorruptArtifact(f"{artifact.folder / name}: is missing or damaged; fetch it again")
    progress.start("decompressing", sum(record.info.nbytes for record in artifact.manifest.tensors))
    with workplace(target, force=settings.force, resume=False, source=artifact.folder) as partial:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(artifact.manifest.source["shards"]):
            records = [record for record in artifact.manifest.tensors if record.shard == number]
            _write_shard(artifact, records, partial / shard["file"], shard, settings, progress)
            weight_map |= {record.name: shard["file"] for record in records}
        if len(artifact.manifest.source["shards"]) > 1:
            index = {"metadata": artifact.manifest.source["index_metadata"], "weight_map": weight_map}
            (partial / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        ours = {"README.md", "config.json", PAYLOAD_INDEX}
        names = {f.name: f.name for f in artifact.manifest.files if f.name not in ours}
        if ORIGINAL_CARD in names:
            names[ORIGINAL_CARD] = "README.md"
        carry_files(artifact.folder, names, partial)
        config = json.dumps(artifact.original_config(), indent=2, ensure_ascii=False) + "\n"
        (partial / "config.json").write_text(config, encoding="utf-8")


def _write_shard(
    artifact: Artifact,
    records: list[Record],
    path: Path,
    shard: dict[str, object],
    settings: Settings,
    progress: Progress,
) -> None:
    tasks = [_Decoding(record, _memory(artifact, record)) for record in records]
    budget = max((task.memory for task in tasks), default=0) * 2
    if settings.max_memory is not None:
        budget = max(settings.max_memory - CONSTANT_MEMORY, 0)

    def work(task: _Decoding) -> Tensor:
        return artifact.read(task.record.name)

    metadata = shard["metadata"]
    assert isinstance(metadata, dict)
    with open(path, "wb") as file:
        file.write(header_bytes([record.info for record in records], metadata))
        for task, tensor in run_in_order(work, tasks, lambda task: task.memory, settings.threads, budget):
            file.write(tensor.data.data)
            progress.advance(task.record.info.nbytes)
    exact = all(getattr(artifact.decoders[record.component], "exact", False) for record in records)
    same_header = path.stat().st_size == shard["bytes"]
    if exact and same_header and not artifact.manifest.dropped and hash_file(path) != shard["sha256"]:
        progress.note(
            f"{path.name}: every tensor is as it was, but the header is written otherwise than in the original"
        )


def _memory(artifact: Artifact, record: Record) -> int:
    decoder: TensorCompressor | None = artifact.decoders[record.component]
    return int(decoder.memory(record.info)) if decoder else record.info.nbytes
