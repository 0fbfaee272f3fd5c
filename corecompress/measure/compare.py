"""corecompress compare: several recipes on one checkpoint, each restored from disk and held against the original.

A row's folder and figures are kept under DIR/runs by recipe, source and data, so that a second run goes on.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corecompress
from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Progress
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_bytes, hash_file
from corecompress.measure.evaluate import Evaluator, Options
from corecompress.measure.process import run_command
from corecompress.measure.task import AXIS, LABELS
from corecompress.plugins import registry
from corecompress.recipe import Recipe, Spec, parse
from corecompress.routing import resolve
from corecompress.run import Settings
from corecompress.summary import Summary, inspect_folder, verify_artifact


@dataclass(frozen=True)
class Wanted:
    """One row to be: a recipe to run, or a folder that is there. label: its name in pictures."""

    name: str
    family: str
    label: str
    recipe: str | None = None
    folder: Path | None = None


def compare(
    source: str | Path,
    recipes: tuple[str, ...],
    against: dict[str, Path],
    data: str,
    out: Path,
    options: Options,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """Run and measure everything, write report.json, report.md, report.html and PNGs into `out`; the report.

    Rows that fail say why and stop nothing. Raises CorecompressError when the original or the data can't be used, or
    when there is nothing to compare.
    """
    from corecompress.api import open_data
    from corecompress.report.comparison import write_markdown, write_page
    from corecompress.report.plots import write_plots

    wanted = [*(_of_recipe(text) for text in recipes), *_of_folders(against)]
    if not wanted:
        raise CorecompressError("nothing to compare; name recipes with -r, or folders with --against NAME=DIR")
    twice = [row.name for row in wanted if [w.name for w in wanted].count(row.name) > 1]
    if twice:
        raise CorecompressError(f"'{twice[0]}' is named twice; leave one out")
    checkpoint = open_checkpoint(source)
    _make_folder(out)
    with Evaluator(source, open_data(data), data, options, progress) as evaluator:
        runner = _Runner(str(source), checkpoint, out, evaluator, settings, data, progress)
        rows = [runner.row(row) for row in wanted]
        report = _report(checkpoint, evaluator, rows, settings)
    for name in ("rate_quality", "tensors", "cost"):
        (out / f"{name}.png").unlink(missing_ok=True)
    write_plots(report, out)
    write_markdown(report, out)
    write_page(report, out)
    scratch = out / "report.json.tmp"
    scratch.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(scratch, out / "report.json")
    return report


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CorecompressError(f"{out}: is a file; name a folder with -o")
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CorecompressError(f"{out}: can't be written ({problem.strerror}); choose another -o") from None


def _of_recipe(text: str) -> Wanted:
    recipe = parse(text)
    return Wanted(text, family_of(recipe), text.strip(), recipe=text)


def _of_folders(against: dict[str, Path]) -> list[Wanted]:
    """Folders whose names differ in the number at their end (gptq-3, gptq-4) are one curve; others keep their names."""
    families = {name: re.sub(r"[\s_:,-]*\d+(\.\d+)?\s*-?(bits?|b)?$", "", name) or name for name in against}
    alone = {name for name, family in families.items() if list(families.values()).count(family) == 1}
    return [Wanted(n, n if n in alone else families[n], n, folder=path) for n, path in against.items()]


def family_of(recipe: Recipe) -> str:
    """What recipes that differ in numbers only have in common: one curve in a picture."""

    def plain(spec: Spec) -> str:
        kept = {k: v for k, v in spec.options.items() if isinstance(v, bool) or not isinstance(v, int | float)}
        return str(Spec(spec.name, kept))

    parts = [*map(plain, recipe.stages), *(plain(rule.use) for rule in recipe.rules)]
    return " | ".join(dict.fromkeys(parts))


@dataclass
class _Runner:
    """Makes one row after the other."""

    source: str
    checkpoint: Checkpoint
    out: Path
    evaluator: Evaluator
    settings: Settings
    data: str
    progress: Progress

    def row(self, wanted: Wanted) -> dict[str, Any]:
        """A row of the report; a failed one when something of it went wrong."""
        head = {"name": wanted.name, "family": wanted.family, "label": wanted.label}
        head["kind"] = "recipe" if wanted.recipe else "external"
        try:
            made = self._recipe_row(wanted.recipe) if wanted.recipe else self._folder_row(wanted.folder or Path())
        except CorecompressError as problem:
            self.progress.note(f"{wanted.name}: {problem}")
            return {**head, "status": "failed", "why": str(problem)}
        return {**head, "status": "ok", "why": None, **made}

    def _recipe_row(self, text: str) -> dict[str, Any]:
        place = self.out / "runs" / self._key(text)
        place.mkdir(exist_ok=True)
        kept = place / "row.json"
        measured = hash_bytes(repr((self.evaluator.described(), self.evaluator.options)).encode())
        if kept.exists():
            row: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            if row.pop("measured") == measured:
                self.progress.note(f"{text}: measured before")
                return row
        folder = place / "model"
        row = self._compress(text, folder)
        row = {**row, **self._restore(folder), **self._evaluate(folder, row["seconds"])}
        scratch = place / "row.tmp"
        scratch.write_text(json.dumps({**row, "measured": measured}), encoding="utf-8")
        os.replace(scratch, kept)
        return row

    def _key(self, text: str) -> str:
        """Recipe, versions of its components, source, seed and data: what a compressed folder depends on."""
        resolved = resolve(parse(text), registry())
        stages = [*resolved.model_stages, *(stage for _, stage in resolved.rules)]
        versions = sorted({f"{s.provided.plugin.distribution} {s.provided.plugin.version}" for s in stages})
        asked = (
            str(resolved.recipe),
            versions,
            self._source_hash(),
            self.settings.seed,
            self.evaluator.data.fingerprint(),
        )
        return hash_bytes(repr(asked).encode())[:24]

    def _source_hash(self) -> list[str]:
        if not hasattr(self, "_hashed"):
            self._hashed = [hash_file(shard.path) for shard in self.checkpoint.shards]
        return self._hashed

    def _compress(self, text: str, folder: Path) -> dict[str, Any]:
        times = folder.parent / "compress.json"
        if not folder.exists() or not times.exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.progress.start(f"compressing {text}", 0)
            more = ["--jobs", str(self.settings.threads), "--seed", str(self.settings.seed), "--data", self.data]
            more += ["--cache", str(self.out / "runs" / "calibration")]
            if self.settings.max_memory is not None:
                more += ["--max-memory", str(self.settings.max_memory)]
            command = ["compress", self.source, "-o", str(folder), "-r", text, "--resume", "--no-evaluate", "-q", *more]
            ran = run_command(command)
            times.write_text(json.dumps({"seconds": ran.seconds, "peak": ran.peak}), encoding="utf-8")
        kept = json.loads(times.read_text(encoding="utf-8"))
        summary = inspect_folder(folder)
        tensors = self._tensors(summary, folder)
        size = {"bytes": summary.bytes, "bits_per_weight": 8 * summary.bytes / self._parameters()}
        return {
            **size,
            "tensors": tensors,
            "seconds": {"compress": kept["seconds"]},
            "peak_bytes": {"compress": kept["peak"]},
        }

    def _parameters(self) -> int:
        return sum(info.size for info in self.checkpoint.tensors)

    def _tensors(self, summary: Summary, folder: Path) -> list[dict[str, Any]]:
        """Bits and relative error of every tensor that both have."""
        if summary.kind != "compressed":
            return []
        names = {info.name for info in self.checkpoint.tensors}
        same = names == {row.name for row in summary.tensors}
        against = self.checkpoint.folder if same else None
        errors = dict(verify_artifact(folder, against, self.settings, self.progress).against)
        return [
            {
                "name": r.name,
                "parameters": _size(r.shape),
                "bits": _finite(r.bits_per_weight),
                "error": errors.get(r.name),
            }
            for r in summary.tensors
        ]

    def _restore(self, folder: Path) -> dict[str, Any]:
        if inspect_folder(folder).kind != "compressed":
            return {}
        dense = folder.parent / "dense"
        self.progress.start(f"restoring {folder.parent.name}", 0)
        ran = run_command(["decompress", str(folder), "-o", str(dense), "--force", "-q"])
        shutil.rmtree(dense, ignore_errors=True)
        return {"restored": ran.seconds}

    def _evaluate(self, folder: Path, seconds: dict[str, float | None]) -> dict[str, Any]:
        begun = time.perf_counter()
        found = self.evaluator.against(folder)
        took = round(time.perf_counter() - begun, 3)
        metrics = {name: {"value": m.value, "stderr": m.stderr} for name, m in found.metrics.items()}
        own = {
            name: {"value": m.original, "stderr": m.original_stderr}
            for name, m in found.metrics.items()
            if m.original is not None
        }
        return {"metrics": metrics, "own": own, "seconds": {**seconds, "evaluate": took}, "data": found.data}

    def _folder_row(self, folder: Path) -> dict[str, Any]:
        if not folder.is_dir():
            raise CorecompressError(f"--against {folder}: no such folder")
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        made = self._evaluate(folder, {"compress": None, "restore": None})
        return {
            **made,
            "bytes": size,
            "bits_per_weight": 8 * size / self._parameters(),
            "tensors": [],
            "peak_bytes": {},
        }


def _size(shape: tuple[int, ...]) -> int:
    n = 1
    for extent in shape:
        n *= extent
    return n


def _finite(value: float) -> float | None:
    return value if value == value else None


def _report(
    checkpoint: Checkpoint, evaluator: Evaluator, rows: list[dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    good = [row for row in rows if row["status"] == "ok"]
    for row in good:
        row["seconds"]["restore"] = row.pop("restored", None)
    whole = inspect_folder(checkpoint.folder)
    parameters = sum(info.size for info in checkpoint.tensors)
    source = {"name": checkpoint.name, "bytes": whole.bytes, "parameters": parameters}
    described = dict(evaluator.described())
    for row in good:
        described |= row.pop("data")
    own: dict[str, Any] = next((row["own"] for row in good), {})
    for row in good:
        row.pop("own", None)
    labels = {name: dict(zip(("label", "unit", "better"), LABELS[name], strict=True)) for name in evaluator.names}
    return {
        "source": {**source, "bits_per_weight": 8 * whole.bytes / parameters},
        "data": {"rows": 0, "documents": 0, **described},
        "task": evaluator.task,
        "per": {"image-classifier": "image"}.get(evaluator.task, "token"),
        "axis": AXIS[evaluator.task] if AXIS[evaluator.task] in evaluator.names else evaluator.names[-1],
        "metrics": labels,
        "original": own,
        "rows": rows,
        "corecompress": corecompress.__version__,
        "date": datetime.date.today().isoformat(),
        "machine": machine(settings.threads),
    }


def machine(threads: int) -> str:
    """Threads, processor, and the graphics card where one is used."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8", errors="replace"))
        model = found[1].strip() if found else model
    return f"{threads} thread{'' if threads == 1 else 's'}, {model}"
