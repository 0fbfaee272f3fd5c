"""What rate_quality.py and vae_ablation.py share: a row is compressed, restored from disk, evaluated, and kept.

A row is known by its recipe (or the peer's options), the source's bytes, the code that made it and the data it was
evaluated on; DIR/rows/ holds one JSON file each, so that a killed or repeated run goes on where it was.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from peers.adapter import is_linear

from corecompress.api import open_data
from corecompress.artifact import STATE, Artifact
from corecompress.checkpoint import open_checkpoint
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_bytes, hash_file
from corecompress.measure.evaluate import Evaluator, Options
from corecompress.measure.process import run_command, run_process
from corecompress.measure.task import AXIS, LABELS
from corecompress.plugins import registry
from corecompress.progress import Lines
from corecompress.recipe import Recipe, Spec, parse
from corecompress.routing import resolve
from corecompress.summary import inspect_folder

SPEC = "text(split=order, calibration=0.8, length=512):{}"
"""Calibration on the first 80 % of the documents, evaluation on the last 20 %."""
WINDOWS = 64
"""Calibration windows that a peer is offered: 32,768 tokens, as many as `vae` takes by default."""
PEERS = Path(__file__).parent / "peers"
SCRIPTS: dict[str, str] = {
    "torchao": "torchao_rtn.py",
    "quanto": "quanto.py",
    "hqq": "hqq_rtn.py",
    "gptq": "gptq.py",
    "nncodec": "nncodec_tcq.py",
    "ecsq": "ecsq.py",
}
"""Adapters by the name that a peer has here."""
Row = dict[str, Any]


class Bench:
    """One checkpoint, one text, one folder of kept rows."""

    def __init__(
        self,
        source: str,
        text: Path,
        out: Path,
        samples: int | None,
        jobs: int,
        cache: Path | None = None,
        seed: int = 0,
    ):
        self.source, self.spec, self.out, self.jobs, self.seed = source, SPEC.format(text), out, jobs, seed
        self.cache = cache or out / "calibration"
        self.checkpoint = open_checkpoint(source)
        self.parameters = sum(info.size for info in self.checkpoint.tensors)
        linear = [info for info in self.checkpoint.tensors if is_linear(info.name, info.shape)]
        self.linear_names = {info.name for info in linear}
        self.linear_parameters = sum(info.size for info in linear)
        self.progress = Lines(sys.stderr)
        self.evaluator = Evaluator(source, open_data(self.spec), self.spec, Options(samples), self.progress)
        self.task = self.evaluator.task
        self.axis = AXIS[self.task]
        (out / "rows").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Bench:
        self.evaluator.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.evaluator.__exit__(*problem)

    def recipe_row(
        self, recipe: str, calibrated: bool, more: Callable[[Path], Row] | None = None, about: Row | None = None
    ) -> Row:
        """Compress with a recipe, with the calibration split or without data. more(compressed folder): further figures;
        about: what the row says besides. A row that fails says why, and is tried again the next time."""
        asked = ("recipe", *completed(recipe), calibrated, more.__name__ if more else "", self.seed)
        head = {"name": recipe + ("" if calibrated else ", no data"), "kind": "recipe", **(about or {})}

        def make(place: Path) -> Row:
            folder, taken = place / "compressed", place / "compress.json"
            if not (folder.exists() and taken.exists()):
                command = ["compress", self.source, "-o", str(folder), "-r", recipe, "--resume", "--no-evaluate", "-q"]
                command += ["--jobs", str(self.jobs), "--cache", str(self.cache), "--seed", str(self.seed)]
                ran = run_command([*command, *(["--data", self.spec] if calibrated else [])])
                _write(taken, {"seconds": ran.seconds, "cpu": ran.cpu, "peak": ran.peak})
            compress = json.loads(taken.read_text(encoding="utf-8"))
            size = inspect_folder(folder)
            restore = run_command(["decompress", str(folder), "-o", str(place / "dense"), "--force", "-q"])
            return {
                **(more(folder) if more else {}),
                **self._sizes(size.bytes, self._linear_bytes(folder)),
                **self._taken(compress, restore.seconds),
            }

        return self._row(head, asked, make)

    def peer_row(self, name: str, python: str, options: dict[str, str], versions: dict[str, str]) -> Row:
        """The same for a peer's adapter in its own interpreter."""
        script = PEERS / SCRIPTS[name]
        code = [hash_file(path) for path in (script, PEERS / "adapter.py")]
        written = [f"{key}={value}" for key, value in options.items()]
        asked = ("peer", name, written, sorted(versions.items()), code)
        head = {"name": f"{name}({', '.join(written)})", "kind": "peer", "family": name, "versions": versions}
        head["footing"] = "whole" if options.get("tables") == "coded" else "linear"
        head["family"] += ", tables too" if head["footing"] == "whole" else ""

        def make(place: Path) -> Row:
            source, packed, dense = self.checkpoint.folder, place / "packed", place / "dense"
            shutil.rmtree(packed, ignore_errors=True)
            shutil.rmtree(dense, ignore_errors=True)
            command = [python, str(script), "compress", str(source), str(packed), str(self.windows), *written]
            ran = run_process(command, name)
            said = json.loads(ran.said.splitlines()[-1])
            command = [python, str(script), "restore", str(source), str(packed), str(dense), *written]
            restored = run_process(command, name)
            whole = inspect_folder(source)
            # what goes along (config, tokenizer) is counted on both sides
            size = self._sizes(said["bytes"] + whole.bytes - whole.weight_bytes, said["linear_bytes"])
            return {**size, **self._taken({"seconds": ran.seconds, "cpu": ran.cpu, "peak": ran.peak}, restored.seconds)}

        return self._row(head, asked, make)

    @cached_property
    def rest_bytes(self) -> int:
        """About what a folder of ours takes without the linear layers, when all else is kept exactly."""
        path = self.out / f"rest-{self._digest(())}.json"
        if not path.exists():
            folder = self.out / "lossless"
            run_command(["compress", self.source, "-o", str(folder), "-r", "lossless", "--force", "-q"])
            _write(path, inspect_folder(folder).bytes - self._linear_bytes(folder))
            shutil.rmtree(folder)
        return int(json.loads(path.read_text(encoding="utf-8")))

    @cached_property
    def windows(self) -> Path:
        """Token ids out of the calibration split, for peers."""
        path, rows = self.out / f"windows-{self._digest(())}.npy", []
        if path.exists():
            return path
        data = open_data(self.spec, self.source)
        for batch in data.batches(0, "calibration"):
            if self.task != "causal-lm":
                break
            rows.append(np.asarray(batch["input_ids"]))
            if sum(map(len, rows)) >= WINDOWS:
                break
        scratch = path.with_name("tmp-" + path.name)
        np.save(scratch, np.concatenate(rows)[:WINDOWS] if rows else np.zeros((0, 0), np.int64))
        scratch.replace(path)
        return path

    def _row(self, head: Row, asked: tuple[object, ...], make: Callable[[Path], Row]) -> Row:
        key = self._digest(asked)
        kept, place = self.out / "rows" / f"{key}.json", self.out / "work" / key
        if kept.exists():
            return {**json.loads(kept.read_text(encoding="utf-8")), **head}
        place.mkdir(parents=True, exist_ok=True)
        self.progress.note(f"measuring {head['name']}")
        try:
            row = {**head, "status": "ok", **make(place)}
            row |= self._evaluated(place / "dense")
        except CorecompressError as problem:
            self.progress.note(f"{head['name']}: {problem}")
            return {**head, "status": "failed", "why": str(problem)}
        _write(kept, row)
        shutil.rmtree(place)
        return row

    def _evaluated(self, dense: Path) -> Row:
        found = self.evaluator.against(dense)
        metrics = {name: {"value": m.value, "stderr": m.stderr} for name, m in found.metrics.items()}
        own = {name: m.original for name, m in found.metrics.items() if m.original is not None}
        return {"metrics": metrics, "original": own, "data": found.data}

    def _sizes(self, size: int, linear: int) -> Row:
        whole = {"bytes": size, "bits": 8 * size / self.parameters}
        return {**whole, "linear_bytes": linear, "linear_bits": 8 * linear / max(self.linear_parameters, 1)}

    def _taken(self, compress: Row, restore: float) -> Row:
        return {"compress_seconds": compress["seconds"], "compress_cpu": compress["cpu"], "restore_seconds": restore,
                "peak_bytes": compress["peak"], "jobs": self.jobs}  # fmt: skip

    def _linear_bytes(self, folder: Path) -> int:
        """Payloads of the linear layers, and the components' states (tables, networks)."""
        payloads = sum(row.bytes for row in inspect_folder(folder).tensors if row.name in self.linear_names)
        stored = Artifact(folder).stored
        return payloads + sum(s.info.nbytes for name, s in stored.items() if name.startswith(STATE.format("")))

    @cached_property
    def _source_hashes(self) -> list[str]:
        return [hash_file(shard.path) for shard in self.checkpoint.shards]

    def _digest(self, asked: tuple[object, ...]) -> str:
        evaluated = (self.evaluator.described(), self.evaluator.options, self.evaluator.names)
        described = {key: value for key, value in evaluated[0].items() if key != "spec"}
        return hash_bytes(repr((asked, self._source_hashes, described, evaluated[1:])).encode())[:24]


def about_peer(name: str, python: str, source: Path) -> Row:
    """{"versions": …, "runs": …} of a peer. Raises CorecompressError where that interpreter lacks it."""
    command = [python, str(PEERS / SCRIPTS[name]), "about", str(source)]
    answer: Row = json.loads(run_process(command, name).said.splitlines()[-1])
    return answer


def completed(recipe: str) -> tuple[str, str]:
    """What a recipe does: its stages with all their options, and a digest of the source of the packages that they come
    from and of the coder."""
    resolved = resolve(parse(recipe), registry())
    stages = [*resolved.model_stages, *(stage for _, stage in resolved.rules)]
    patterns = [(rule.patterns, stage.spec.name) for rule, stage in resolved.rules]
    names = {stage.provided.component.target.partition(":")[0].partition(".")[0] for stage in stages}
    files: list[Path] = []
    for name in sorted({"corecompress.coding", *names}):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        places = spec.submodule_search_locations or [str(spec.origin)]
        files += [path for place in places for path in sorted(Path(place).rglob("*.py"))]
    code = hash_bytes(*(path.read_bytes() for path in files))
    return repr(([(stage.spec.name, stage.options) for stage in stages], patterns)), code


def badness(row: Row, axis: str) -> float:
    """The row's figure on the quality axis, turned so that lower is better."""
    value = float(row["metrics"][axis]["value"])
    return max(1 - value, 0.0) if LABELS[axis][2] == "higher" else max(value, 0.0)


def axis_label(axis: str) -> str:
    label, unit, better = LABELS[axis]
    return f"1 − {label}" if better == "higher" else label + (f", {unit} a token" if unit else "")


def with_options(recipe: str, **options: object) -> str:
    """The recipe's text, its last stage with other options; None takes one away. Raises CorecompressError for a file."""
    stages = parse(recipe).stages
    if not stages:
        raise CorecompressError(f"{recipe}: write the recipe out, its last component's options are changed here")
    kept = {key: value for key, value in {**stages[-1].options, **options}.items() if value is not None}
    return str(Recipe((*stages[:-1], Spec(stages[-1].name, kept))))


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table's lines."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]


def _write(path: Path, value: object) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(scratch, path)
