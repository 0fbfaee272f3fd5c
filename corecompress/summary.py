"""What can be said of a folder or a run without changing anything: inspect, plan, verify."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.artifact import Artifact, Record, is_compressed
from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Data, Progress, Tensor, TensorInfo
from corecompress.engines.budget import memory_besides, memory_budget
from corecompress.engines.local import run_in_order
from corecompress.errors import CorecompressError, CorruptArtifact
from corecompress.model_stage import job_of
from corecompress.plugins import Registry
from corecompress.progress import Silent
from corecompress.recipe import Recipe
from corecompress.routing import Stage, resolve, route
from corecompress.run import Run, Settings
from corecompress.safetensors_file import Stored, read_range
from corecompress.tensor_stage import job_of_tensors
from corecompress.twins import twins_of

if TYPE_CHECKING:
    import numpy as np

    from corecompress.measure.evaluate import Evaluation

SAMPLE_BYTES, SLICES = 1 << 20, 8


@dataclass(frozen=True)
class Row:
    """A tensor in a table. bytes: stored (an estimate in a plan), 0 where it shares another's (same_as)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    dense_bytes: int
    bytes: int
    component: str
    same_as: str | None = None

    @property
    def bits_per_weight(self) -> float:
        """8 · bytes / elements; nan for an empty tensor."""
        return 8 * self.bytes / math.prod(self.shape) if math.prod(self.shape) else math.nan


@dataclass(frozen=True)
class Summary:
    """What is in a folder. kind: "compressed" or "checkpoint"; bytes: every file that restoring needs;
    source_bytes: the same of the original (weights and the files that go along); parameters: elements of all
    tensors, tied ones once; recipe and components only for a compressed one."""

    path: str
    kind: str
    bytes: int
    weight_bytes: int
    source_bytes: int
    source_weight_bytes: int
    parameters: int
    tensors: tuple[Row, ...]
    files: tuple[tuple[str, int], ...]
    recipe: str | None = None
    seed: int | None = None
    source: dict[str, Any] | None = None
    components: tuple[dict[str, Any], ...] = ()
    search: tuple[dict[str, Any], ...] = ()
    """Steps of --max-size or --max-kl: bits, bytes, kl."""
    source_parameters: int | None = None
    """The original's, where a stage of the recipe made another model of it."""
    evaluation: Evaluation | None = None
    """Measured right after compressing, where there were data and the recipe is lossy."""

    @property
    def bits_per_weight(self) -> float:
        """8 · bytes of all files / parameters."""
        return 8 * self.bytes / self.parameters if self.parameters else math.nan


@dataclass(frozen=True)
class Plan:
    """A dry run. tensors' bytes and `seconds` are estimates from samples; memory: bytes that the run will need at
    most; rules: text of each rule, number of its tensors, their dense bytes and estimated bytes."""

    source: str
    recipe: str
    tensors: tuple[Row, ...]
    rules: tuple[tuple[str, int, int, int], ...]
    dropped: tuple[str, ...]
    left_behind: tuple[str, ...]
    bytes: int
    source_bytes: int
    seconds: float
    memory: int
    model_stages: tuple[str, ...] = ()
    first_stage: Mapping[str, Any] = field(default_factory=dict)
    """What the first model stage says that it would make and cost, by name."""
    calibrated: bool = False
    """Whether a component would be calibrated on data, which seconds and memory are without."""


@dataclass(frozen=True)
class Verified:
    """Result of a verification. problems: one line each, empty when all held; against: for every tensor the relative
    error √(Σ(x−y)²/Σx²) to the other checkpoint (0 where they are the same bytes), None where that isn't a number."""

    path: str
    files: int
    tensors: int
    problems: tuple[str, ...]
    against: tuple[tuple[str, float | None], ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def inspect_folder(path: str | Path) -> Summary:
    """Read manifest or headers. Raises CorecompressError when `path` is neither kind of checkpoint."""
    if isinstance(path, Path) and is_compressed(path):
        return _inspect_compressed(Artifact(path))
    checkpoint = open_checkpoint(path)
    rows = tuple(Row(i.name, i.dtype, i.shape, i.nbytes, i.nbytes, "") for i in checkpoint.tensors)
    files = _sizes(checkpoint.folder, ["config.json", *checkpoint.carried])
    total = checkpoint.nbytes + sum(size for _, size in files)
    parameters = sum(info.size for info in checkpoint.tensors)
    return Summary(
        str(path), "checkpoint", total, checkpoint.nbytes, total, checkpoint.nbytes, parameters, rows, tuple(files)
    )


def _inspect_compressed(artifact: Artifact) -> Summary:
    manifest = artifact.manifest
    uses = manifest.components
    rows = tuple(
        Row(r.name, r.dtype, r.shape, r.info.nbytes, r.bytes, uses[r.component].name, r.same_as)
        for r in manifest.tensors
    )
    files = _sizes(
        artifact.folder, [p.name for p in manifest.payloads] + [f.name for f in manifest.files] + ["corecompress.json"]
    )
    weights = sum(payload.bytes for payload in manifest.payloads)
    source_weights = sum(shard["bytes"] for shard in manifest.source["shards"])
    ours = {"README.md", "config.json"}
    carried = sum(f.bytes for f in manifest.files if f.name not in ours)
    config = len((artifact.folder / "config.json").read_bytes()) if (artifact.folder / "config.json").exists() else 0
    return Summary(
        str(artifact.folder),
        "compressed",
        sum(size for _, size in files),
        weights,
        source_weights + carried + config,
        source_weights,
        sum(r.info.size for r in manifest.tensors if r.same_as is None),
        rows,
        tuple(files),
        manifest.recipe,
        manifest.seed,
        manifest.source,
        tuple(dict(used.__dict__) for used in uses),
    )


def _sizes(folder: Path, names: list[str]) -> list[tuple[str, int]]:
    return [(name, (folder / name).stat().st_size) for name in names if (folder / name).exists()]


def make_plan(
    source: str, recipe: Recipe, registry: Registry, data: Data | None, settings: Settings, progress: Progress
) -> Plan:
    """Ask the first model stage, route, and code a sample of each tensor for the estimates; nothing is written."""
    resolved = resolve(recipe, registry)
    checkpoint = open_checkpoint(source)
    model_stages = tuple(str(stage.spec) for stage in resolved.model_stages)
    first = _plan_model(Run(resolved, registry, data, settings, progress, Path()), checkpoint)
    if not resolved.rules:
        nothing = (), (), (), checkpoint.left, 0, checkpoint.nbytes, math.nan, 0
        return Plan(source, str(recipe), *nothing, model_stages, first)
    routing = route(resolved, checkpoint.tensors, registry)
    stored = [s for s in checkpoint.stored() if s.info.name in routing.number_of]
    twins = twins_of(stored, routing.number_of)
    memory = memory_budget(routing, [s.info for s in stored], settings) + memory_besides()
    rows, seconds = [], 0.0
    with tempfile.TemporaryDirectory(prefix="corecompress-") as scratch:
        run = Run(resolved, registry, None, settings, Silent(), Path(scratch))  # calibration would take the run's time
        for number, stage in enumerate(routing.stages):
            stage.component.restore(stage.component.prepare(job_of_tensors(run, checkpoint, routing, twins, number)))
        for item in stored:  # in here, since coding may look into the scratch folder
            info, stage = item.info, routing.stage_of(item.info.name)
            same_as = twins.get(info.name)
            size, spent = (0, 0.0) if same_as else _estimate(item, stage)
            seconds += spent
            rows.append(Row(info.name, info.dtype, info.shape, info.nbytes, size, stage.spec.name, same_as))
    rules = []
    for number, rule in enumerate(routing.rules):
        mine = [row for row in rows if routing.number_of[row.name] == number]
        text = f"[{', '.join(rule.patterns)}] {rule.use}"
        rules.append((text, len(mine), sum(r.dense_bytes for r in mine), sum(r.bytes for r in mine)))
    return Plan(
        source,
        str(recipe),
        tuple(rows),
        tuple(rules),
        routing.dropped,
        checkpoint.left,
        sum(row.bytes for row in rows),
        checkpoint.nbytes,
        seconds / settings.threads,
        memory,
        model_stages,
        first,
        data is not None and not all(stage.component.exact for stage in routing.stages),
    )


def _plan_model(run: Run, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The first model stage's own figures; what comes after it would need its output."""
    stages = run.resolved.model_stages
    if not stages:
        return {}
    if run.data is not None:
        run.data.prepare(checkpoint)
    with tempfile.TemporaryDirectory(prefix="corecompress-") as scratch:
        run = replace(run, partial=Path(scratch))
        return dict(stages[0].component.plan(job_of(run, checkpoint, run.scratch("plan"))))


def _estimate(item: Stored, stage: Stage) -> tuple[int, float]:
    """(bytes, seconds of coding and checking) of a tensor, extrapolated from rows out of all its parts."""
    info = item.info
    if not info.nbytes:
        return 0, 0.0
    sample = _sample(item)
    begun = time.perf_counter()
    payload = stage.component.encode(sample)
    stage.component.decode(memoryview(payload), sample.info)
    share = info.nbytes / sample.info.nbytes
    return round(len(payload) * share), (time.perf_counter() - begun) * share


def _sample(item: Stored) -> Tensor:
    """About SAMPLE_BYTES of a tensor as one with fewer rows: eight slices, since the first rows may be special."""
    info = item.info
    if info.nbytes <= SAMPLE_BYTES or info.shape[0] < 2 * SLICES:
        return item.read()
    import numpy as np

    per_row = info.nbytes // info.shape[0]
    rows = max(1, SAMPLE_BYTES // per_row // SLICES)
    starts = [(info.shape[0] - rows) * k // (SLICES - 1) for k in range(SLICES)]
    parts = [read_range(item.path, item.start + start * per_row, rows * per_row) for start in starts]
    return Tensor(TensorInfo(info.name, info.dtype, (rows * SLICES, *info.shape[1:])), np.concatenate(parts))


def verify_artifact(folder: Path, against: str | Path | None, settings: Settings, progress: Progress) -> Verified:
    """Check everything that can be checked, and go on after what doesn't hold."""
    if not is_compressed(folder):
        raise CorecompressError(f"{folder}: no corecompress.json in it, so it is no compressed checkpoint")
    other = open_checkpoint(against) if against is not None else None
    try:
        artifact = Artifact(folder)
        problems = [f"{folder / name}: is missing or damaged; fetch it again" for name in artifact.damaged_files()]
        artifact.load_decoders()
    except CorruptArtifact as problem:
        return Verified(str(folder), 0, 0, (str(problem),))
    records = artifact.manifest.tensors
    originals, errors = _originals(other, records, problems)

    def work(record: Record) -> tuple[str | None, float | None]:
        try:
            artifact.check_payload(record.name)
            tensor = artifact.read(record.name)
        except CorruptArtifact as problem:
            return str(problem), None
        original = originals.get(record.name)
        return None, _relative_error(original.read(), tensor) if original else None

    def cost(record: Record) -> int:
        decoder = artifact.decoders[record.component]
        return 2 * int(decoder.memory(record.info)) if decoder else record.info.nbytes

    progress.start("verifying", sum(record.info.nbytes for record in records))
    budget = 2 * max(map(cost, records), default=0)
    for record, (found, error) in run_in_order(work, records, cost, settings.threads, budget):
        if found:
            problems.append(found)
        elif record.name in originals:
            errors.append((record.name, error))
        progress.advance(record.info.nbytes)
    return Verified(
        str(folder), len(artifact.manifest.files) + len(artifact.headers), len(records), tuple(problems), tuple(errors)
    )


def _originals(
    other: Checkpoint | None, records: tuple[Record, ...], problems: list[str]
) -> tuple[dict[str, Stored], list[tuple[str, float | None]]]:
    """Tensors to compare with; what is missing or of another shape goes to `problems`."""
    if other is None:
        return {}, []
    theirs = {stored.info.name: stored for stored in other.stored()}
    ours = {record.name: record for record in records}
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours or name not in theirs:
            problems.append(
                f"tensor '{name}': is only in {'the original' if name in theirs else 'the compressed folder'}"
            )
        elif ours[name].info != theirs[name].info:
            problems.append(f"tensor '{name}': has another dtype or shape than the original")
            del theirs[name]
    return {name: stored for name, stored in theirs.items() if name in ours}, []


def _relative_error(original: Tensor, decoded: Tensor) -> float | None:
    import numpy as np

    if np.array_equal(original.data, decoded.data):
        return 0.0
    x, y = as_float64(original), as_float64(decoded)
    if x is None or y is None:
        return None
    with np.errstate(all="ignore"):
        error = float(np.sqrt(np.square(x - y).sum() / np.square(x).sum()))
    return error if math.isfinite(error) else None


_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_NUMPY |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1"}


def as_float64(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """The tensor's values, flat; None for dtypes that numpy can't tell (8-bit floats and less)."""
    import numpy as np

    if tensor.info.dtype == "BF16":
        return (tensor.data.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    kind = _NUMPY.get(tensor.info.dtype)
    return tensor.data.view(kind).astype(np.float64) if kind else None
