"""Tables for a person (rich) and the same as JSON."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from corecompress.components import DataReport
from corecompress.fitting import Fitted
from corecompress.generation import Written
from corecompress.measure.benchmark import Benchmark
from corecompress.measure.evaluate import Evaluation
from corecompress.plugins import Plugin, Provided
from corecompress.recipe import describe_type
from corecompress.report.units import human_bytes, human_figure, human_seconds
from corecompress.summary import Plan, Row, Summary, Verified


def as_json(value: Any) -> Any:
    """Dataclasses and their properties as plain JSON values; what is not a finite number becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        for name in ("bits_per_weight", "ok"):
            if hasattr(type(value), name):
                shown[name] = as_json(getattr(value, name))
        return shown
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def compressed_table(summary: Summary, seconds: float | None = None) -> RenderableType:
    """Before and after of a compressed folder."""
    table = _table("", ("", "left"), ("before", "right"), ("after", "right"), ("saved", "right"))
    others = summary.bytes - summary.weight_bytes
    source_others = summary.source_bytes - summary.source_weight_bytes
    for what, before, after in (
        ("weights", summary.source_weight_bytes, summary.weight_bytes),
        ("other files", source_others, others),
        ("all", summary.source_bytes, summary.bytes),
    ):
        table.add_row(
            what, human_bytes(before), human_bytes(after), _saved(before, after), style="bold" if what == "all" else ""
        )
    parameters = summary.source_parameters or summary.parameters
    if parameters != summary.parameters:
        table.add_row(
            "parameters", f"{parameters:,}", f"{summary.parameters:,}", _saved(parameters, summary.parameters)
        )
    before_bits = 8 * summary.source_bytes / parameters if parameters else math.nan
    table.add_row("bits per weight", f"{before_bits:.2f}", f"{summary.bits_per_weight:.2f}", "")
    took = f" in {human_seconds(seconds)}" if seconds is not None else ""
    count = len(summary.tensors)
    lines = [f"{summary.path}: {count} tensors, {summary.parameters:,} parameters, recipe {summary.recipe}{took}"]
    if seconds is not None and summary.kind == "compressed":
        lines.append("Every tensor was decoded again and checked.")
    if summary.source and summary.source.get("left_behind"):
        lines.append("Left behind (other copies of the weights): " + ", ".join(summary.source["left_behind"]))
    parts: list[RenderableType] = [table, *(Text(line) for line in lines)]
    if summary.search:
        parts += [Text(""), _search_table(summary.search)]
    if summary.evaluation is not None:
        parts += [Text(""), evaluation_table(summary.evaluation)]
    return Group(*parts)


def _search_table(steps: tuple[dict[str, Any], ...]) -> Table:
    """The steps of --max-size or --max-kl."""
    by_kl = any(step["kl"] is not None for step in steps)
    columns = [("step", "right"), ("bits per weight", "right"), ("all files", "right"), *[("KL", "right")] * by_kl]
    table = _table("search", *columns)
    for number, step in enumerate(steps, 1):
        kl = "" if step["kl"] is None else human_figure(step["kl"], 3)
        table.add_row(str(number), f"{step['bits']:.3f}", human_bytes(step["bytes"]), *[kl] * by_kl)
    return table


def decompressed_line(summary: Summary) -> RenderableType:
    """What was written."""
    size = human_bytes(summary.bytes)
    return Text(
        f"{summary.path}: {len(summary.tensors)} tensors, {size}, an ordinary checkpoint; every tensor was checked"
    )


def inspect_table(summary: Summary) -> RenderableType:
    """A folder, tensor by tensor."""
    if summary.kind == "checkpoint":
        table = _table("", ("tensor", "left"), ("dtype", "left"), ("shape", "left"), ("bytes", "right"))
        for row in summary.tensors:
            table.add_row(row.name, row.dtype, _shape(row), f"{row.dense_bytes:,}")
        total = f"{summary.path}: {len(summary.tensors)} tensors, {summary.parameters:,} parameters, "
        return Group(
            table, Text(total + f"weights {human_bytes(summary.weight_bytes)}, all files {human_bytes(summary.bytes)}")
        )
    columns = [("tensor", "left"), ("dtype", "left"), ("shape", "left"), ("component", "left")]
    table = _table("", *columns, ("before", "right"), ("after", "right"), ("bits/weight", "right"))
    for row in summary.tensors:
        bits = "same as " + row.same_as if row.same_as else f"{row.bits_per_weight:.2f}"
        table.add_row(row.name, row.dtype, _shape(row), row.component, f"{row.dense_bytes:,}", f"{row.bytes:,}", bits)
    used = _table("", ("component", "left"), ("options", "left"), ("from", "left"))
    for component in summary.components:
        options = ", ".join(f"{key}={value}" for key, value in component["options"].items())
        used.add_row(component["name"], options, f"{component['distribution']} {component['version']}")
    return Group(table, used, compressed_table(summary))


def plan_table(plan: Plan) -> RenderableType:
    """What a recipe would do."""
    parts: list[RenderableType] = []
    if plan.tensors:
        table = _table(
            "",
            ("tensor", "left"),
            ("dtype", "left"),
            ("shape", "left"),
            ("rule", "left"),
            ("bytes", "right"),
            ("≈ after", "right"),
        )
        for row in plan.tensors:
            table.add_row(row.name, row.dtype, _shape(row), row.component, f"{row.dense_bytes:,}", f"{row.bytes:,}")
        rules = _table("", ("rule", "left"), ("tensors", "right"), ("before", "right"), ("≈ after", "right"))
        for text, count, before, after in plan.rules:
            rules.add_row(text, str(count), human_bytes(before), human_bytes(after))
        parts += [table, rules]
    if plan.first_stage:
        figures = _table(plan.model_stages[0], ("", "left"), ("", "right"))
        for name, value in plan.first_stage.items():
            figures.add_row(name, _planned(name, value))
        parts.append(figures)
    for stage in plan.model_stages if plan.tensors else ():
        parts.append(
            Text(f"first {stage} makes another checkpoint; what follows is shown for the tensors as they are now")
        )
    if plan.dropped:
        parts.append(Text("dropped, as the recipe says: " + ", ".join(plan.dropped)))
    if plan.left_behind:
        parts.append(Text("left behind (other copies of the weights): " + ", ".join(plan.left_behind)))
    if plan.tensors:
        size = f"weights {human_bytes(plan.source_bytes)} → about {human_bytes(plan.bytes)}"
        cost = f"about {human_seconds(plan.seconds)}, memory at most {human_bytes(plan.memory)}"
        without = ", without calibration" if plan.calibrated else ""
        parts.append(Text(f"{size}, {cost} (estimated from samples{without}; nothing was written)"))
    return Group(*parts)


def _planned(name: str, value: Any) -> str:
    """A model stage's figure as a person reads it."""
    if name.endswith("bytes"):
        return human_bytes(value)
    if name.endswith("seconds"):
        return human_seconds(value)
    if isinstance(value, float):
        return human_figure(value, 3)
    return f"{value:,}" if isinstance(value, int) else str(value)


def verified_table(verified: Verified) -> RenderableType:
    """What held and what did not."""
    lines = [Text(problem, style="red") for problem in verified.problems]
    if verified.against:
        same = sum(error == 0 for _, error in verified.against)
        lines.append(Text(f"against the original: {same} of {len(verified.against)} tensors are the same bit for bit"))
        known = [(error, name) for name, error in verified.against if error]
        if known:
            worst, name = max(known)
            lines.append(Text(f"largest relative error: {worst:.3g} in {name}"))
    if verified.ok:
        lines.append(
            Text(
                f"{verified.path}: {verified.tensors} tensors and {verified.files} files are as recorded", style="green"
            )
        )
    else:
        lines.append(Text(f"{verified.path}: {len(verified.problems)} checks did not hold", style="bold red"))
    return Group(*lines)


def plugins_table(plugins: list[Plugin]) -> RenderableType:
    """Every plugin, what it gives and what is wrong with it."""
    table = _table(
        "",
        ("plugin", "left"),
        ("version", "left"),
        ("status", "left"),
        ("API", "right"),
        ("provides", "left"),
        ("from", "left"),
    )
    notes = []
    for plugin in plugins:
        provides = [f"{kind} {c.name}" for kind, listed in plugin.components.items() for c in listed]
        apis = sorted({c.api for listed in plugin.components.values() for c in listed})
        colour = {"ok": "green", "blocked": "yellow"}.get(plugin.status, "red")
        name = plugin.distribution + ("" if plugin.bundled else " (not bundled)")
        table.add_row(
            name,
            plugin.version,
            Text(plugin.status, style=colour),
            ",".join(map(str, apis)),
            "\n".join(provides),
            plugin.source,
        )
        notes += [Text(f"{plugin.distribution} {plugin.version}: {line}") for line in plugin.problems + plugin.notes]
    if not plugins:
        notes.append(Text("no plugin is installed; pip install corecompress-lossless"))
    return Group(table, *notes)


def component_table(provided: Provided, target: type[Any], command: str) -> RenderableType:
    """One component: where it comes from, its options with type, default and meaning, and a command that uses it."""
    import typing

    component, plugin = provided.component, provided.plugin
    head = f"{provided.kind} {component.name}: {component.summary}"
    origin = f"from {plugin.distribution} {plugin.version} ({component.target}, API {component.api})"
    origin += "" if plugin.bundled else ", not bundled"
    usage = [Text(""), Text(command)] if command else []
    if waived := [Text(f"waives the check {name}: {reason}") for name, reason in component.waivers.items()]:
        usage = [*waived, *usage]
    if not dataclasses.fields(target.Options):
        return Group(Text(head, style="bold"), Text(origin), Text("It has no options."), *usage)
    table = _table("", ("option", "left"), ("type", "left"), ("default", "left"), ("meaning", "left"))
    types = typing.get_type_hints(target.Options)
    for field in dataclasses.fields(target.Options):
        table.add_row(
            field.name, describe_type(types[field.name]), str(_default(field)), field.metadata.get("help", "")
        )
    return Group(Text(head, style="bold"), Text(origin), table, *usage)


def component_json(provided: Provided, target: type[Any], command: str) -> dict[str, Any]:
    """The same as plain values."""
    import typing

    types = typing.get_type_hints(target.Options)
    options = [
        {
            "name": f.name,
            "type": describe_type(types[f.name]),
            "default": as_json(_default(f)),
            "help": f.metadata.get("help", ""),
        }
        for f in dataclasses.fields(target.Options)
    ]
    shown = {"kind": provided.kind, **dataclasses.asdict(provided.component), "options": options, "command": command}
    return {**shown, "distribution": provided.plugin.distribution, "version": provided.plugin.version}


def fitted_table(found: Fitted) -> RenderableType:
    """What a training made."""
    table = _table("", ("", "left"), ("", "right"))
    for name, value in found.figures.items():
        table.add_row(name, human_figure(value) if isinstance(value, float) else _figure(value))
    line = f"{found.path}: {found.encoder} with prior {found.prior}, {human_bytes(found.bytes)}"
    return Group(table, Text(f"{line}, in {human_seconds(found.seconds)}"))


def written_table(found: Written) -> RenderableType:
    """Which files hold the samples."""
    more = f" and {len(found.files) - 1} more files" if len(found.files) > 1 else ""
    return Text(f"{found.model}: {found.samples} samples in {found.files[-1]}{more}")


def evaluation_table(found: Evaluation) -> RenderableType:
    """One line a metric; the original's own column only where it has figures of its own."""
    own = any(metric.original is not None for metric in found.metrics.values())
    columns = [("original", "right")] if own else []
    table = _table("", ("", "left"), *columns, ("compressed", "right"), ("±", "right"), ("", "left"))
    for metric in found.metrics.values():
        before = [] if not own else ["" if metric.original is None else human_figure(metric.original)]
        error = "" if metric.stderr is None else human_figure(metric.stderr, 2)
        table.add_row(metric.label, *before, human_figure(metric.value), error, metric.unit)
    lines = []
    for task, figures in found.tasks.items():
        lines += [f"{task} {name}: {figure}" for name, figure in figures.items()]
    data = found.data
    kind = {"sentence-encoder": "sentences", "image-classifier": "images"}.get(found.task, "samples")
    rows = f", {data['rows']:,} tokens" if found.task.endswith("lm") else ""
    lines.append(
        f"{data['spec']}: {data['samples']:,} {kind}{rows} of {data['documents']:,} documents of the evaluation split, "
        f"in {human_seconds(found.seconds)}; fingerprint {data['fingerprint'][:16]}"
    )
    return Group(table, *(Text(line) for line in lines))


def benchmark_table(found: Benchmark) -> RenderableType:
    """Ratios first, then the medians of both sides with their spread."""
    columns = [("compressed ÷ original", "right"), ("original", "right"), ("compressed", "right"), ("", "left")]
    table = _table("", ("", "left"), *columns)
    for name, figure in found.figures.items():
        label, unit = figure.label, figure.unit
        if name.startswith("throughput"):
            unit = f"{found.things} a second"
        elif name == "latency":
            one = found.things.split()[0]
            label = f"one of the {one}, 32 tokens" if "tokens" in found.things else f"one {one.removesuffix('s')}"
        sides = [
            f"{human_figure(median, 3)} ({human_figure(low, 3)} … {human_figure(high, 3)})"
            for median, (low, high) in (
                (figure.original, figure.original_spread),
                (figure.compressed, figure.compressed_spread),
            )
        ]
        table.add_row(label, f"{figure.ratio:.2f}", *sides, unit)
    threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    how = f"{found.runs} fresh processes each, alternating, on {found.device} with {threads}"
    lines = [Text(f"{how}: medians (smallest … largest)")] + ([Text(found.note)] if found.note else [])
    return Group(table, *lines)


def comparison_table(report: dict[str, Any], out: str) -> RenderableType:
    """The rows of a comparison, smallest first, what failed, and what is saved at equal quality."""
    from corecompress.report.comparison import body, failures, head, saved

    columns = head(report)
    table = _table("", (columns[0], "left"), *((name, "right") for name in columns[1:]))
    for row in body(report):
        table.add_row(*row)
    lines = [Text("● on the Pareto front", style="dim")]
    lines += [Text(line) for line in saved(report)]
    lines += [Text(f"failed: {name}: {why}", style="red") for name, why in failures(report)]
    return Group(table, *lines, Text(f"{out}/report.html, report.md, report.json and pictures are written"))


def data_table(report: DataReport, fingerprint: str) -> RenderableType:
    """What a data component holds."""
    figures = _table("", ("", "left"), ("", "left"))
    figures.show_header = False
    for name, value in {**report.figures, "fingerprint": fingerprint}.items():
        figures.add_row(Text(name, style="dim"), _figure(value))
    parts: list[RenderableType] = [figures]
    for title, (columns, rows) in report.tables.items():
        table = _table("", (title, "left"), *((column, "right") for column in columns[1:]))
        for row in rows:
            table.add_row(*map(_figure, row))
        parts += [Text(""), table]
    if report.samples:
        parts += [Text(""), Text("samples", style="dim"), *(Text(sample) for sample in report.samples)]
    return Group(*parts)


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(renderable: RenderableType) -> None:
    """Print to standard output, as wide as the terminal; into a pipe or file without folding lines."""
    width = None if sys.stdout.isatty() else 400
    Console(highlight=False, markup=False, width=width).print(renderable)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _table(title: str, *columns: tuple[str, str]) -> Table:
    table = Table(title=title or None, box=None, pad_edge=False, header_style="dim")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table


def _shape(row: Row) -> str:
    return "×".join(map(str, row.shape)) or "scalar"


def _saved(before: int, after: int) -> str:
    """In per cent; nothing for what is several times larger now (the few kB of other files of a tiny model)."""
    return f"{100 * (1 - after / before):.1f} %" if before and after <= 3 * before else ""
