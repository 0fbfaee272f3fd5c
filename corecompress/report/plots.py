"""The pictures of a comparison: rate and quality, tensors, cost. matplotlib without a display or a global state."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.errors import CorecompressError
from corecompress.measure.frontier import badness, measured, pareto
from corecompress.report.units import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008): told apart with every common colour blindness."""
MARKERS = "osD^vP*Xhp"
MOST_TENSORS, MOST_ROWS, DPI = 40, 6, 160
GREY = "#666666"


def write_plots(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write the pictures that the report has data for (PNG). Raises CorecompressError where matplotlib is missing."""
    written = []
    for name, make in PLOTS.items():
        figure = make(report)
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path.with_suffix(".tmp"), format="png", dpi=DPI)
            os.replace(path.with_suffix(".tmp"), path)
            written.append(path)
    return written


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CorecompressError("plots need matplotlib: pip install 'corecompress[report]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=10)
        one.grid(True, color="#dddddd", linewidth=0.7)
        one.set_axisbelow(True)
    return figure, axes


def style(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """(colour, marker) of every family, in the order of the rows."""
    families = list(dict.fromkeys(row["family"] for row in report["rows"]))
    return {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(families)}


def short(text: str, length: int = 34) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def axis_label(report: dict[str, Any]) -> str:
    """The quality axis in words, with its unit."""
    metric: dict[str, str] = report["metrics"][report["axis"]]
    if metric["better"] == "higher":
        return f"1 − {metric['label']}"
    return metric["label"] + (f", {metric['unit']} a {report['per']}" if metric["unit"] else "")


def rate_quality(report: dict[str, Any]) -> Figure | None:
    """Bits a weight against quality on a log scale; the Pareto front as a line."""
    rows = measured(report)
    if not rows:
        return None
    figure, (axes,) = _figure(10, 6.25)
    bad = [badness(report, row) for row in rows]
    positive = [value for value in bad if value > 0]
    floor = 10 ** _floor_exponent(positive)
    height = [value if value > 0 else floor for value in bad]
    looks = style(report)
    for family, (colour, marker) in looks.items():
        mine = [i for i, row in enumerate(rows) if row["family"] == family]
        if not mine:
            continue
        mine.sort(key=lambda i: rows[i]["bits_per_weight"])
        x, y = [rows[i]["bits_per_weight"] for i in mine], [height[i] for i in mine]
        errors = [min(rows[i]["metrics"][report["axis"]]["stderr"] or 0, 0.9 * height[i]) for i in mine]
        axes.errorbar(
            x, y, errors, color=colour, marker=marker, markersize=8, linewidth=1.3, capsize=3, label=short(family, 28)
        )
    front = sorted(
        pareto([(row["bytes"], value) for row, value in zip(rows, bad, strict=True)]), key=lambda i: rows[i]["bytes"]
    )
    x, y = [rows[i]["bits_per_weight"] for i in front], [height[i] for i in front]
    axes.plot(x, y, color=GREY, linewidth=5, alpha=0.25, solid_capstyle="round", label="Pareto front", zorder=0)
    axes.plot(x, y, "o", markersize=17, markerfacecolor="none", markeredgecolor=GREY, markeredgewidth=1.2, zorder=0)
    axes.set_yscale("log")
    _zero_tick(axes, bad, floor, height)
    original = report["source"]["bits_per_weight"]
    widest = max(row["bits_per_weight"] for row in rows)
    axes.set_xlim(0, 1.12 * max(widest, original if original < 2.5 * widest else widest))
    if original < 2.5 * widest:
        axes.axvline(
            original,
            color=GREY,
            linestyle=":",
            linewidth=1.3,
            label=f"original, {human_bytes(report['source']['bytes'])}",
        )
    axes.set_xlabel("bits per weight (every file that is needed, over all parameters)", fontsize=11)
    axes.set_ylabel(axis_label(report) + "\n(log scale, lower is better)", fontsize=11)
    parameters = report["source"]["parameters"]
    to_megabytes = parameters / 8e6
    top = axes.secondary_xaxis("top", functions=(_times(to_megabytes), _times(1 / to_megabytes)))
    top.set_xlabel("MB on disk", fontsize=10, color=GREY)
    top.tick_params(labelsize=9, colors=GREY)
    axes.set_title(f"{report['source']['name']}: size against quality", fontsize=13, loc="left", pad=12)
    _label_points(
        figure, axes, [(r["bits_per_weight"], h, short(r["label"])) for r, h in zip(rows, height, strict=True)]
    )
    axes.legend(fontsize=10, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda value: value * factor


def _floor_exponent(positive: list[float]) -> int:
    import math

    return math.floor(math.log10(min(positive))) - 1 if positive else -6


def _zero_tick(axes: Axes, bad: list[float], floor: float, height: list[float]) -> None:
    """Room around the points, and a tick that says 0 where a point of exactly 0 is drawn."""
    low, high = min(height), max(height)
    axes.set_ylim(low / 2.2, high * 3 if high > low else low * 100)
    if 0 in bad:
        axes.axhspan(low / 10, floor * 2, color="#f2f2f2", zorder=-1)
        from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation

        usual = LogFormatterSciNotation()
        usual.set_axis(axes.yaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, at: "" if y < 2 * floor else usual(y, at)))
        axes.annotate(
            "0 exactly",
            (0, floor),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=9,
            color=GREY,
            va="center",
        )


def _label_points(figure: Figure, axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Name the points where there is room: each tries some places around itself and keeps the first that is free."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    spots = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [(px - 9, py - 9, px + 9, py + 9) for px, py in spots]
    inside = axes.get_window_extent(renderer)
    for x, y, text in sorted(points, key=lambda point: point[1]):
        for dx, dy, side in (
            (10, 9, "left"),
            (10, -17, "left"),
            (-10, 9, "right"),
            (-10, -17, "right"),
            (0, 19, "center"),
            (0, -27, "center"),
            (16, 27, "left"),
            (-16, 27, "right"),
        ):
            note = axes.annotate(
                text, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=9, ha=side, color="#333333"
            )
            box = note.get_window_extent(renderer)
            edges = (box.x0, box.y0, box.x1, box.y1)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if fits and not any(_overlap(edges, other) for other in taken):
                taken.append(edges)
                break
            note.remove()


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def tensors(report: dict[str, Any]) -> Figure | None:
    """Bits and errors a tensor, side by side; where there are many, tensors that differ in numbers only are one bar."""
    every = [row for row in measured(report) if row["tensors"]]
    rows = every[:MOST_ROWS]
    if not rows:
        return None
    grouped = [_groups(row["tensors"]) for row in rows]
    names = list(dict.fromkeys(name for groups in grouped for name in groups))[:MOST_TENSORS]
    figure, (left, right) = _figure(13, 2.2 + 0.17 * len(names) * max(2, len(rows)), 2)
    looks, many = style(report), len({row["family"] for row in rows}) < len(rows)
    thick = 0.82 / len(rows)
    for k, (row, groups) in enumerate(zip(rows, grouped, strict=True)):
        colour = COLOURS[k % len(COLOURS)] if many else looks[row["family"]][0]
        at = [i + (k - (len(rows) - 1) / 2) * thick for i in range(len(names))]
        for axes, part in ((left, 0), (right, 1)):
            values = [groups[name][part] if name in groups else 0 for name in names]
            axes.barh(at, values, thick * 0.92, color=colour, label=short(row["label"], 40))
    for axes, label in ((left, "bits a weight"), (right, "relative error  √(Σ(w − ŵ)² / Σw²)")):
        axes.set_yticks(range(len(names)), [short(name, 46) for name in names] if axes is left else [""] * len(names))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(label, fontsize=11)
        axes.grid(False, axis="y")
    shown = f"; the first {len(rows)} of {len(every)} recipes" if len(rows) < len(every) else ""
    about = f"* stands for any number; means weighted by size{shown}"
    figure.suptitle(f"{report['source']['name']}: tensors ({about})", fontsize=13)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=10, frameon=False, loc="outside lower center", ncols=min(3, len(rows)))
    return figure


def _groups(tensors: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """{name: (bits a weight, relative error)}, names with numbers replaced where there are too many; largest first."""
    many = len(tensors) > MOST_TENSORS
    sums: dict[str, list[float]] = {}
    for tensor in tensors:
        name = re.sub(r"\d+", "*", tensor["name"]) if many else tensor["name"]
        entry = sums.setdefault(name, [0.0, 0.0, 0.0])
        weight = tensor["parameters"]
        for i, value in enumerate((weight, weight * (tensor["bits"] or 0), weight * (tensor["error"] or 0))):
            entry[i] += value
    ordered = _largest(sorted(sums.items(), key=lambda item: -item[1][0]))
    return {name: (bits / max(size, 1), error / max(size, 1)) for name, (size, bits, error) in ordered}


def _largest(entries: list[tuple[str, list[float]]]) -> list[tuple[str, list[float]]]:
    """The entries that hold all but a hundredth of the parameters, and one for the rest."""
    total, seen = sum(sums[0] for _, sums in entries), 0.0
    kept: list[tuple[str, list[float]]] = []
    for name, sums in entries:
        if seen >= 0.99 * total and len(kept) + 1 < len(entries):
            break
        kept.append((name, sums))
        seen += sums[0]
    rest = [sums for _, sums in entries[len(kept) :]]
    return (
        [*kept, (f"all others ({100 * (1 - seen / total):.1f} %)", [sum(part) for part in zip(*rest, strict=True)])]
        if rest
        else kept
    )


def cost(report: dict[str, Any]) -> Figure | None:
    """Seconds and peak memory of every row."""
    rows = measured(report)
    if not rows:
        return None
    figure, (left, right) = _figure(13, 1.9 + 0.5 * len(rows), 2)
    places = list(range(len(rows)))
    begin = [0.0] * len(rows)
    for part, colour in (("compress", COLOURS[0]), ("restore", COLOURS[4]), ("evaluate", COLOURS[5])):
        values = [row["seconds"].get(part) or 0.0 for row in rows]
        left.barh(places, values, 0.6, left=begin, color=colour, label=part)
        begin = [a + b for a, b in zip(begin, values, strict=True)]
    for i, total in enumerate(begin):
        left.annotate(f"{total:.1f} s", (total, i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    peaks = [(row["peak_bytes"].get("compress") or 0) / 1e6 for row in rows]
    right.barh(places, peaks, 0.6, color=COLOURS[2])
    for i, peak in enumerate(peaks):
        right.annotate(
            f"{peak:.0f} MB" if peak else "not run here",
            (peak, i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    for axes, label, most in ((left, "seconds", max(begin)), (right, "peak memory of compressing, MB", max(peaks))):
        axes.set_yticks(places, [short(row["label"], 40) for row in rows] if axes is left else [""] * len(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.2 * most or 1)
        axes.set_xlabel(label, fontsize=11)
        axes.grid(False, axis="y")
    figure.suptitle(f"{report['source']['name']}: what it takes ({report['machine']})", fontsize=13)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=10, frameon=False, loc="outside lower center", ncols=3)
    return figure


PLOTS: dict[str, Callable[[dict[str, Any]], Any]] = {"rate_quality": rate_quality, "tensors": tensors, "cost": cost}
