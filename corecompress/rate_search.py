"""--max-size and --max-kl: run a recipe again with other `bits` until the folder is what was asked for.

A component takes part by having an option `bits`: bits a weight of the whole folder. What it may keep in `job.cache`
(calibration) is made once for all steps.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from corecompress.components import Progress
from corecompress.errors import CorecompressError, OutOfReach
from corecompress.measure.evaluate import Evaluation, Evaluator
from corecompress.plugins import registry
from corecompress.recipe import Recipe, Spec
from corecompress.report.units import human_bytes, human_figure
from corecompress.routing import resolve
from corecompress.summary import Summary, inspect_folder

FILLED = 0.98
"""Share of --max-size that is used, at least."""
CLOSE = 0.02
"""Bits a weight between the last folder that stayed under --max-kl and the first that did not, at most."""
SURELY = 0.95
"""Of CLOSE, how far a try is from both ends, so that one that falls on the other side ends the search."""
STEPS = 9


@dataclass(frozen=True)
class Step:
    """One try: bits a weight asked for, bytes of the folder, KL where it was measured."""

    bits: float
    bytes: int
    kl: float | None = None

    def __str__(self) -> str:
        kl = "" if self.kl is None else f", KL {human_figure(self.kl, 3)}"
        return f"{self.bits:.3f} bits a weight: {human_bytes(self.bytes)}{kl}"


Compress = Callable[[Recipe, Path], None]
"""Runs a recipe into a folder."""


def with_bits(recipe: Recipe, bits: float, option: str) -> Recipe:
    """The recipe with that many bits in the one component that has the option. Raises CorecompressError for others."""
    resolved = resolve(recipe, registry())
    able = [stage.spec for _, stage in resolved.rules if hasattr(stage.options, "bits")]
    if len(able) != 1:
        found = "no component" if not able else f"{len(able)} components"
        raise CorecompressError(
            f"{option}: recipe '{recipe}' has {found} with an option 'bits'; it takes one, e.g. vae"
        )

    def changed(spec: Spec) -> Spec:
        kept = {key: value for key, value in spec.options.items() if key not in ("bits", "step")}
        return Spec(spec.name, {**kept, "bits": round(bits, 4)}) if spec is able[0] else spec

    rules = tuple(replace(rule, use=changed(rule.use)) for rule in recipe.rules)
    return replace(recipe, stages=tuple(map(changed, recipe.stages)), rules=rules)


@contextmanager
def _workbench(out: Path) -> Iterator[Path]:
    """A folder beside `out` that goes when all is done."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{out.name}.search-", dir=out.parent))
    except OSError as problem:
        raise CorecompressError(f"{out}: can't be written ({problem.strerror}); choose another -o") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(bench: Path, number: int) -> Path:
    """The folder of a step, which progress lines name as it is named here."""
    return bench / f"step-{number + 1}"


def _publish(folder: Path, out: Path) -> None:
    if out.exists():
        shutil.rmtree(out)
    folder.rename(out)


def search_size(
    recipe: Recipe, most: int, parameters: int, out: Path, compress: Compress, progress: Progress
) -> list[Step]:
    """The largest folder of at most `most` bytes; at least 98 % of it is used. Raises OutOfReach for too few bytes."""
    steps: list[Step] = []
    aim = (1 + FILLED) / 2 * most
    bits, ceiling = 8 * aim / parameters, math.inf
    with _workbench(out) as bench:
        while len(steps) < STEPS:
            progress.start(_headline(steps, f"{bits:.3f} bits a weight for {human_bytes(most)}"), 0)
            made = _place(bench, len(steps))
            try:
                compress(with_bits(recipe, bits, "--max-size"), made)
            except OutOfReach as problem:
                if problem.bits > bits:
                    raise _too_small(most, parameters, problem) from None
                if bits >= ceiling:  # the same answer twice
                    break
                bits = ceiling = 0.995 * problem.bits  # more than every weight can use: the finest there is
                continue
            steps.append(Step(bits, inspect_folder(made).bytes))
            if FILLED * most <= steps[-1].bytes <= most or (bits == ceiling and steps[-1].bytes <= most):
                break
            bits = min(bits * aim / steps[-1].bytes, ceiling)
        fitting = [n for n, step in enumerate(steps) if step.bytes <= most]
        if not fitting:
            nearest = human_bytes(min((step.bytes for step in steps), default=0))
            raise CorecompressError(f"--max-size {human_bytes(most)}: the smallest that came out is {nearest}")
        _publish(_place(bench, max(fitting, key=lambda n: steps[n].bytes)), out)
        return steps


def _too_small(most: int, parameters: int, problem: OutOfReach) -> CorecompressError:
    least = human_bytes(problem.bits * parameters / 8)
    return CorecompressError(
        f"--max-size {human_bytes(most)}: can't be reached; about {least} is the least for this one"
    )


def search_kl(
    recipe: Recipe, most: float, start: float, out: Path, compress: Compress, evaluator: Evaluator, progress: Progress
) -> tuple[list[Step], Evaluation]:
    """The smallest folder whose KL to the original stays under `most` (nats), and what was measured of it.

    log2 KL falls by about two a bit; secant steps between the bits that were too few and those that were enough.
    """
    if "kl" not in evaluator.names:
        raise CorecompressError(f"--max-kl: {evaluator.name} has no KL to measure; --max-size works for every model")
    steps: list[Step] = []
    found: dict[int, Evaluation] = {}
    low, high, bits = 0.0, math.inf, start
    best: int | None = None
    with _workbench(out) as bench:
        while len(steps) < STEPS and high - low > CLOSE:
            progress.start(_headline(steps, f"{bits:.3f} bits a weight"), 0)
            made = _place(bench, len(steps))
            try:
                compress(with_bits(recipe, bits, "--max-kl"), made)
            except OutOfReach as problem:
                if problem.bits < bits:  # above what is needed to keep every weight
                    raise CorecompressError(f"--max-kl {most:g}: can't be reached ({problem})") from None
                low, bits = max(low, problem.bits), problem.bits * 1.01
                continue
            number = len(steps)
            found[number] = evaluator.against(made)
            kl = found[number].metrics["kl"].value
            steps.append(Step(bits, inspect_folder(made).bytes, kl))
            if kl <= most:
                high, best = (bits, number) if bits < high else (high, best)
            else:
                low = max(low, bits)
            _keep_only(bench, best)
            bits = _next_bits(steps, most, low, high)
        if best is None:
            least = min(step.kl for step in steps if step.kl is not None)
            raise CorecompressError(f"--max-kl {most:g}: the least that was measured is {human_figure(least, 3)}")
        _publish(_place(bench, best), out)
    return steps, found[best]


def _next_bits(steps: list[Step], most: float, low: float, high: float) -> float:
    """Where log KL, a line through the ends of the bracket (or what is nearest to the one), meets `most`, a little on
    the safe side."""
    known = [(step.bits, math.log2(max(step.kl or 0, 1e-9) / most)) for step in steps]
    ends = [point for point in known if point[0] in (low, high)] or known
    bits, log_kl = min(ends, key=lambda point: abs(point[1]))
    slope = -2.0
    others = [point for point in (ends if len(ends) > 1 else known) if point[0] != bits]
    if others:
        other = min(others, key=lambda point: abs(point[0] - bits))
        slope = min((other[1] - log_kl) / (other[0] - bits), -0.5)
    wanted = bits - log_kl / slope + CLOSE / 4
    away = SURELY * CLOSE
    wanted = (low + high) / 2 if high - low < 2 * away else min(max(wanted, low + away), high - away)
    return min(max(wanted, bits - 2, 0.5 * bits), bits + 3)


def _keep_only(bench: Path, best: int | None) -> None:
    for folder in bench.glob("step-*"):
        if best is None or folder != _place(bench, best):
            shutil.rmtree(folder, ignore_errors=True)


def _headline(steps: list[Step], now: str) -> str:
    before = f" (before: {steps[-1]})" if steps else ""
    return f"search, step {len(steps) + 1}: {now}{before}"


def with_steps(summary: Summary, steps: list[Step]) -> Summary:
    """The summary with the search's steps."""
    return replace(summary, search=tuple({"bits": s.bits, "bytes": s.bytes, "kl": s.kl} for s in steps))
