"""The Python API: what the command line does, as functions that return what it prints.

import corecompress
corecompress.compress("demo", "small", recipe="lossless")
model = corecompress.load("small")
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.artifact import Artifact, is_compressed
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Data, DataReport, Progress
from corecompress.errors import CorecompressError, UnfitData
from corecompress.pipeline import compress as _compress
from corecompress.plugins import registry
from corecompress.progress import Silent
from corecompress.ranks import is_follower
from corecompress.recipe import Recipe, build, parse, parse_data
from corecompress.run import Settings
from corecompress.summary import Plan, Summary, Verified, inspect_folder, make_plan, verify_artifact

if TYPE_CHECKING:
    from corecompress.fitting import Fitted
    from corecompress.generation import Written
    from corecompress.measure.benchmark import Benchmark
    from corecompress.measure.evaluate import Evaluation


def compress(
    source: str | Path,
    out: str | Path,
    recipe: str | Recipe = "lossless",
    *,
    data: str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    max_memory: int | None = None,
    force: bool = False,
    resume: bool = False,
    shard_bytes: int = 5_000_000_000,
    cache: str | Path | None = None,
    max_size: int | None = None,
    max_kl: float | None = None,
    target_loss: float | None = None,
    evaluated: bool = True,
    progress: Progress | None = None,
) -> Summary:
    """Compress a checkpoint (folder, hub id or "demo") into the folder `out`.

    recipe: text, a .toml file's path, or a parsed Recipe; data: a SPEC such as "text:corpus.txt"; jobs: threads
    (default: one a core); max_memory: bytes of peak resident memory (default: a few times what the largest tensor
    needs); force: replace `out`; resume: go on with a killed run; shard_bytes: largest payload file;
    cache: a folder for calibration that later runs on the same source and data use again;
    max_size: bytes that the folder may have, max_kl: nats of KL to the original on the evaluation split of the data:
    the recipe's option `bits` is searched for either; target_loss: where a stage that trains may stop;
    evaluated: with data and a lossy recipe, measure the quality as well and write it into the model card.
    Raises CorecompressError, and leaves nothing named `out`, when something is wrong.
    """
    settings = Settings(seed, jobs, max_memory, force, resume, shard_bytes, Path(cache) if cache else None, target_loss)
    out, shown, parsed = Path(out), progress or Silent(), _parsed(recipe)
    if max_size is not None or max_kl is not None:
        return _searched(source, out, parsed, data, settings, max_size, max_kl, evaluated, shown)
    component = open_data(data) if data is not None else None
    _compress(str(source), out, parsed, registry(), component, settings, shown)
    summary = _held_against(source, parsed, inspect_folder(out), seed)
    exact = is_compressed(out) and Artifact(out).is_exact()
    if component is None or data is None or not evaluated or exact or is_follower():
        return summary
    return replace(summary, evaluation=_with_quality(source, out, component, data, seed, shown).evaluation)


def _held_against(source: str | Path, recipe: Recipe, summary: Summary, seed: int) -> Summary:
    """The summary with the sizes of `source` itself, where model stages made another checkpoint of it first."""
    original = inspect_folder(str(source))
    if summary.kind == "compressed" and original.weight_bytes == summary.source_weight_bytes:
        return summary
    return replace(
        summary,
        recipe=str(recipe),
        seed=seed,
        source_bytes=original.bytes,
        source_weight_bytes=original.weight_bytes,
        source_parameters=original.parameters,
    )


def _with_quality(source: str | Path, out: Path, component: Data, data: str, seed: int, progress: Progress) -> Summary:
    """Measure what `out` lost, and write it into its card."""
    from corecompress.measure.evaluate import Evaluator, Options
    from corecompress.report.card import add_evaluation

    try:
        with Evaluator(source, component, data, Options(seed=seed), progress) as evaluator:
            found = evaluator.against(out)
    except UnfitData:  # which was said before it was compressed
        return inspect_folder(out)
    except CorecompressError as problem:
        progress.note(f"not evaluated: {problem}")
        return inspect_folder(out)
    if is_compressed(out):
        add_evaluation(out, found)
    return replace(inspect_folder(out), evaluation=found)


def _searched(
    source: str | Path,
    out: Path,
    recipe: Recipe,
    data: str | None,
    settings: Settings,
    max_size: int | None,
    max_kl: float | None,
    evaluated: bool,
    progress: Progress,
) -> Summary:
    """Search the recipe's bits for a size or a KL; each step a run of its own, calibration shared."""
    from corecompress import rate_search as search
    from corecompress.measure.evaluate import Evaluator, Options
    from corecompress.report.card import add_evaluation
    from corecompress.twins import twins_of
    from corecompress.writer import check_target

    if max_size is not None and max_kl is not None:
        raise CorecompressError("--max-size and --max-kl: write one of them")
    if settings.resume:
        raise CorecompressError("--resume: a search can't be gone on with; leave it out, and add --cache DIR")
    if max_kl is not None and data is None:
        raise CorecompressError("--max-kl: needs --data SPEC to measure on, for example text:corpus.txt")
    checkpoint = open_checkpoint(source)
    check_target(out, settings.force, checkpoint.folder, settings.resume)
    with tempfile.TemporaryDirectory(prefix="corecompress-") as scratch:
        each = replace(settings, force=True, cache=settings.cache or Path(scratch))

        def step(asked: Recipe, folder: Path) -> None:
            component = open_data(data) if data is not None else None
            _compress(str(source), folder, asked, registry(), component, each, progress)

        if max_size is not None:
            stored = checkpoint.stored()
            twins = twins_of(stored, dict.fromkeys((item.info.name for item in stored), 0))
            parameters = sum(item.info.size for item in stored if item.info.name not in twins)
            steps = search.search_size(recipe, max_size, parameters, out, step, progress)
            if data is None or not evaluated:
                return search.with_steps(inspect_folder(out), steps)
            summary = _with_quality(source, out, open_data(data), data, settings.seed, progress)
            return search.with_steps(summary, steps)
        assert max_kl is not None
        assert data is not None
        with Evaluator(source, open_data(data), data, Options(seed=settings.seed), progress) as evaluator:
            steps, found = search.search_kl(recipe, max_kl, 4.0, out, step, evaluator, progress)
    found = replace(found, compressed=str(out))
    add_evaluation(out, found)
    return search.with_steps(replace(inspect_folder(out), evaluation=found), steps)


def decompress(
    folder: str | Path,
    out: str | Path,
    *,
    jobs: int | None = None,
    max_memory: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Write a compressed folder as an ordinary checkpoint: original names, dtypes, shards, metadata and other files.

    Raises CorruptArtifact that names the file or tensor when something in the folder is damaged.
    """
    from corecompress.restore import write_dense

    write_dense(
        Artifact(folder), Path(out), Settings(jobs=jobs, max_memory=max_memory, force=force), progress or Silent()
    )
    return inspect_folder(Path(out))


def inspect(path: str | Path) -> Summary:
    """What is in a compressed folder or a plain checkpoint, tensor by tensor; no tensor is read."""
    return inspect_folder(Path(path) if is_compressed(Path(path)) else str(path))


def verify(
    folder: str | Path, against: str | Path | None = None, *, jobs: int | None = None, progress: Progress | None = None
) -> Verified:
    """Check every file and tensor of a compressed folder, and compare it with the checkpoint `against`.

    Returns what held and what did not; raises CorecompressError only when there is nothing to check.
    """
    return verify_artifact(Path(folder), against, Settings(jobs=jobs), progress or Silent())


def plan(
    source: str | Path,
    recipe: str | Recipe = "lossless",
    *,
    data: str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """A dry run: which rule takes which tensor, and an estimate of bytes, memory and seconds from samples; what a
    stage that makes a model (on `data`) would make and cost."""
    component = open_data(data) if data is not None else None
    settings = Settings(seed, jobs, max_memory)
    return make_plan(str(source), _parsed(recipe), registry(), component, settings, progress or Silent())


def load(folder: str | Path, auto_class: str | None = None, **kwargs: Any) -> Any:
    """Load a compressed folder (or any checkpoint) as a model, with transformers.

    auto_class: "AutoModelForCausalLM", … (default: the architecture that config.json names, else AutoModel);
    kwargs go to its from_pretrained.
    """
    from corecompress.hf.load import load_model

    return load_model(folder, auto_class, **kwargs)


def evaluate(
    source: str | Path,
    out: str | Path,
    data: str,
    *,
    samples: int | None = None,
    metrics: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    card: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    device: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Hold `out`, compressed or not, against `source`, each in a fresh process, on the evaluation split of `data`.

    data: a SPEC such as "text:corpus.txt"; samples: windows, sentences or images; metrics: names, all by default;
    tasks: names of lm-evaluation-harness; card: write the figures into the model card of `out`; dtype, device: what
    both sides compute in, and where.
    Raises CorecompressError for sides that don't load or can't be compared, and for data that don't fit.
    """
    from corecompress.measure.evaluate import Evaluator, Options
    from corecompress.measure.harness import run_tasks

    options = Options(samples, metrics, seed, dtype, device)
    if card and not is_compressed(Path(out)):
        raise CorecompressError(f"{out}: is no compressed folder, so it has no card of ours; leave out --card")
    with Evaluator(source, open_data(data), data, options, progress or Silent()) as evaluator:
        found = evaluator.against(out)
        if card:
            from corecompress.report.card import add_evaluation

            add_evaluation(Path(out), found)
        return replace(found, tasks=run_tasks(evaluator.folder, Path(out), tasks, device)) if tasks else found


def benchmark(
    source: str | Path,
    out: str | Path,
    *,
    runs: int = 3,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Time `out` against `source` in fresh processes, alternating: loading, latency, throughput, memory, size."""
    from corecompress.measure.benchmark import benchmark as run

    return run(source, out, runs, threads, device, progress or Silent())


def compare(
    source: str | Path,
    recipes: tuple[str, ...] | list[str],
    out: str | Path,
    data: str,
    *,
    against: dict[str, str | Path] | None = None,
    samples: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    max_memory: int | None = None,
    dtype: str = "float32",
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run recipes on `source`, hold each (restored from disk) against it, and write report.json, report.md,
    report.html and pictures into the folder `out`. Returns the report.

    against: folders made elsewhere, by name. What was measured before in `out` is not measured again.
    """
    from corecompress.measure.compare import compare as run
    from corecompress.measure.evaluate import Options

    folders = {name: Path(folder) for name, folder in (against or {}).items()}
    options, settings = Options(samples, (), seed, dtype, device), Settings(seed, jobs, max_memory)
    return run(source, tuple(recipes), folders, data, Path(out), options, settings, progress or Silent())


def fit(
    data: str,
    encoder: str,
    prior: str,
    out: str | Path,
    *,
    target_loss: float | None = None,
    max_minutes: float | None = None,
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Train an encoder and its prior on the training split of `data`, and write both into the folder `out`.

    data: a SPEC such as "weights:DIR"; encoder, prior: components as a recipe writes them, "mlp-vae(bits=4)";
    target_loss: the loss at which training stops; max_minutes: the time after which it stops; resume: go on with a
    run that was killed or ran out of time.
    Raises CorecompressError, and leaves nothing named `out`, for data that the encoder can't learn from, and where the
    target was not reached.
    """
    from corecompress.fitting import fit as run

    for name, value in (("--target-loss", target_loss), ("--max-minutes", max_minutes)):
        if value is not None and not math.isfinite(value):
            raise CorecompressError(f"{name} is {value}; give a number")
    seconds = None if max_minutes is None else 60 * max_minutes
    settings = Settings(seed, force=force, resume=resume)
    return run(data, open_data(data), encoder, prior, Path(out), settings, target_loss, seconds, progress or Silent())


def generate(model: str | Path, out: str | Path, *, n: int = 16, prompt: str | None = None, seed: int = 0) -> Written:
    """Draw n new samples from a fitted model (a folder that `fit` wrote, compressed or not) and write them to `out`.

    Texts go to a file, one a line; images into a folder, with a contact sheet, or, where `out` ends in .png, the sheet
    alone. prompt: what they should show. Raises CorecompressError for a folder that can't generate, or such a prompt.
    """
    from corecompress.generation import generate as run

    return run(Path(model).expanduser(), n, prompt, seed, Path(out))


def reconstruct(model: str | Path, data: str, out: str | Path, *, n: int = 32, seed: int = 0) -> Written:
    """Write n samples of the data's evaluation split beside their reconstructions by a fitted model: a text file, or
    a PNG. Raises CorecompressError for a folder without an encoder, and for data of another kind."""
    from corecompress.generation import reconstruct as run

    name, source = parse_data(data)
    return run(Path(model).expanduser(), build(registry(), "data", name, source), n, seed, Path(out))


def open_data(spec: str, checkpoint: str | Path | None = None) -> Data:
    """The data component that a SPEC ("text:corpus.txt") names, prepared for a checkpoint if one is given."""
    name, source = parse_data(spec)
    component: Data = build(registry(), "data", name, source)
    component.prepare(None if checkpoint is None else open_checkpoint(checkpoint))
    return component


def describe_data(spec: str, checkpoint: str | Path | None = None) -> tuple[DataReport, str]:
    """(what the data hold, their fingerprint), as `corecompress data show` prints it."""
    component = open_data(spec, checkpoint)
    return component.report(), component.fingerprint()


def _parsed(recipe: str | Recipe) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else parse(recipe)


__all__ = [
    "CorecompressError",
    "benchmark",
    "compare",
    "compress",
    "decompress",
    "describe_data",
    "evaluate",
    "fit",
    "inspect",
    "load",
    "open_data",
    "plan",
    "verify",
]
