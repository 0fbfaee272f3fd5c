"""The arithmetic of a comparison: the Pareto front, and bytes saved at equal quality. Pure functions of a report."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Saving:
    """At `against`'s measured quality (badness, lower is better) `family` needs `bytes` (interpolated), `against`
    `against_bytes`; percent: 100 · (1 − bytes / against_bytes), below 0 where `family` needs more."""

    family: str
    against: str
    quality: float
    bytes: float
    against_bytes: int
    percent: float


def badness(report: dict[str, Any], row: dict[str, Any]) -> float:
    """The row's figure on the quality axis, turned so that lower is better: 1 − value where higher is."""
    name = report["axis"]
    value = float(row["metrics"][name]["value"])
    return max(0.0, 1 - value) if report["metrics"][name]["better"] == "higher" else max(0.0, value)


def measured(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that have figures."""
    return [row for row in report["rows"] if row["status"] == "ok"]


def pareto(points: list[tuple[float, float]]) -> set[int]:
    """Indices of the points (bytes, badness) that no other point beats: none smaller that is as good or better."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    front, best = set(), math.inf
    for i in order:
        if points[i][1] < best:
            best = points[i][1]
            front.add(i)
    return front


def savings(report: dict[str, Any]) -> list[Saving]:
    """Every family against every other, at each quality of the other that lies between its own measured points.

    Interpolated between the points of the family's own Pareto front, never outside of them (at_quality).
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in measured(report):
        curves.setdefault(row["family"], []).append((badness(report, row), float(row["bytes"])))
    found = []
    for family, points in curves.items():
        for against, others in curves.items():
            for quality, size in sorted(others) if against != family else []:
                own = at_quality(points, quality)
                if own is not None:
                    found.append(Saving(family, against, quality, own, round(size), 100 * (1 - own / size)))
    return found


def at_quality(points: list[tuple[float, float]], quality: float) -> float | None:
    """The size at that badness on a curve of measured points (badness, size), None outside of them.

    Interpolated linearly in log size over log badness, between the points that no other of the curve beats.
    """
    curve = _front([point for point in points if point[0] > 0])
    if len(curve) < 2 or not curve[0][0] <= quality <= curve[-1][0]:
        return None
    return _interpolated(curve, quality)


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(badness, bytes) of a family's own front, by badness."""
    kept = pareto([(size, bad) for bad, size in points])
    return sorted(points[i] for i in kept)


def _interpolated(curve: list[tuple[float, float]], quality: float) -> float:
    at = bisect.bisect_left([bad for bad, _ in curve], quality)
    if curve[at][0] == quality:
        return curve[at][1]
    (low, low_size), (high, high_size) = curve[at - 1], curve[at]
    share = (math.log(quality) - math.log(low)) / (math.log(high) - math.log(low))
    return math.exp(math.log(low_size) + share * (math.log(high_size) - math.log(low_size)))
