"""The picture of rate_quality.py: bits a weight against quality, the linear race beside the whole folder's."""

import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from measuring import Row, axis_label

from corecompress.measure.frontier import at_quality
from corecompress.report.plots import COLOURS, DPI, GREY, MARKERS

Curves = dict[str, list[tuple[float, float]]]
LABELS = {
    "linear": "bits a weight of the linear layers\n(scales and the coder's tables counted; embeddings kept exactly)",
    "whole": "bits a weight of the whole folder\n(every file that is needed, over all parameters)",
}
REFERENCES = ("ecsq",)


def draw(report: Row, races: dict[str, Curves], path: Path) -> None:
    """races: {race: {family: [(badness, bits)]}}, ours first; writes a PNG."""
    shown = {race: curves for race, curves in races.items() if curves}
    shown["whole"] = {name: points for name, points in races["whole"].items() if "exact" not in name}
    shown = {race: curves for race, curves in shown.items() if curves}
    figure = Figure(figsize=(8.2 * len(shown), 6.2), layout="constrained")
    looks = styles(report, shown)
    for number, (race, curves) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(1, len(shown), number)
        panel(axes, curves, looks)
        saving(axes, curves, {row["family"] for row in report["rows"] if row["kind"] == "recipe"})
        axes.set_xlabel(LABELS[race], fontsize=12)
        if number == 1:
            axes.set_ylabel(f"{axis_label(report['axis'])}\n(log scale, lower is better)", fontsize=12)
    figure.suptitle(f"{report['source']['name']}: size against quality", fontsize=15)
    figure.savefig(path.with_suffix(".tmp"), format="png", dpi=DPI)
    os.replace(path.with_suffix(".tmp"), path)


def styles(report: Row, shown: dict[str, Curves]) -> dict[str, dict[str, Any]]:
    """Each family's colour, marker and line: ours thick, references grey and dashed."""
    ours = {row["family"] for row in report["rows"] if row["kind"] == "recipe"}
    names = list(dict.fromkeys(name for curves in shown.values() for name in curves))
    looks: dict[str, dict[str, Any]] = {}
    for name in names:
        if name in REFERENCES:
            looks[name] = {"color": GREY, "marker": ".", "linestyle": "--", "linewidth": 1.3}
            continue
        if name not in ours and (same := name.partition(",")[0]) in looks:
            looks[name] = looks[same]
            continue
        k = sum(look["color"] != GREY for look in looks.values())
        looks[name] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "markersize": 7}
        looks[name] |= {"linewidth": 3.0 if name in ours else 1.5}
    return looks


def panel(axes: Any, curves: Curves, looks: dict[str, dict[str, Any]]) -> None:
    for name, points in curves.items():
        kept = sorted((bits, bad) for bad, bits in points if bad > 0)
        axes.plot([x for x, _ in kept], [y for _, y in kept], label=name, **looks[name])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    axes.grid(True, which="both", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)
    axes.legend(fontsize=11, frameon=False, loc="best")


def saving(axes: Any, curves: Curves, ours: set[str]) -> None:
    """An arrow from the best peer to our first curve, at the geometric middle of the qualities that both have."""
    first = next((name for name in curves if name in ours), None)
    peers = [name for name in curves if name not in ours and name not in REFERENCES]
    best: tuple[float, float, float, str] | None = None
    for peer in peers if first else []:
        bads = [[bad for bad, _ in curves[name] if bad > 0] for name in (first, peer)]
        low, high = max(map(min, bads)), min(map(max, bads))
        quality = (low * high) ** 0.5
        mine, theirs = (at_quality(curves[name], quality) for name in (first, peer))
        if low < high and mine and theirs and (best is None or theirs < best[2]):
            best = (quality, mine, theirs, peer)
    if best is None:
        return
    quality, mine, theirs, _ = best
    axes.annotate("", (mine, quality), (theirs, quality), arrowprops={"arrowstyle": "->", "color": "black", "lw": 1.4})
    text = f"−{100 * (1 - mine / theirs):.0f} % bytes"
    place = {"xytext": (-10, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate(text, (mine, quality), **place, fontsize=12)
