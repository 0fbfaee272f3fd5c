"""Bits a weight against quality, for recipes of ours and for peers: table, equal-quality savings, picture.

    python tests/benchmarks/rate_quality.py CHECKPOINT TEXT -o DIR
        [--recipes RECIPE…] [--data-free RECIPE…] [--rates BITS…]
        [--peers NAME…] [--peer-python NAME=PYTHON…] [--qualities Q…] [--samples N] [--jobs N] [--cache DIR] [--seed N]

Writes DIR/results.json, table.md and rate_quality.png after every row; rows that DIR has are not measured again, so a
killed run goes on. CHECKPOINT: a folder or `demo`; TEXT: tests/benchmarks/handbook.py makes the project's. Calibration
reads the first 80 % of its documents, evaluation the last 20 %, in windows of 512 tokens. Every row is restored from
disk as a plain checkpoint and evaluated in a fresh process.

--recipes are calibrated on TEXT, --data-free ones see no data; each is run at every rate. Two races:

    whole    bits of every file that is needed, over all parameters; a rate is those bits
    linear   a recipe with `exact=` for the tables, as peers leave them: bits of the linear layers alone, over their
             weights; a rate is those bits (scales, tables of the coder and networks counted)

--peers names adapters in tests/benchmarks/peers, each with its default options (`gptq`) or some of its own
(`'gptq(bits=4, group=64)'`); each runs in the interpreter that --peer-python names for it, else in this one. Those that
are not installed are left out, and the table says so. Savings at equal quality are interpolated between measured
points, never outside of them.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from measuring import SCRIPTS, Bench, Row, about_peer, axis_label, badness, markdown, with_options
from rate_plot import draw

from corecompress.errors import CorecompressError
from corecompress.measure.compare import machine
from corecompress.measure.frontier import at_quality
from corecompress.measure.task import LABELS
from corecompress.recipe import parse, parse_spec
from corecompress.report.units import human_figure

RACES = {"linear": "linear_bits", "whole": "bits"}
TITLES = {
    "linear": "Linear layers alone (tables kept as they are)",
    "whole": "Whole folder (every file that is needed, over all parameters)",
}
RECIPES = ["vae", 'vae(exact="*embed*")']
QUALITIES = {"kl": (0.05, 0.15, 0.5)}
OTHER_QUALITIES = (0.01, 0.02, 0.05, 0.1)
"""Where equal-quality savings are read off, besides at each peer's own points."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--data-free", nargs="*", default=RECIPES)
    parser.add_argument("--rates", nargs="*", type=float, default=[2.0, 2.5, 3.0, 3.5, 4.0])
    parser.add_argument("--peers", nargs="*", default=list(SCRIPTS))
    parser.add_argument("--peer-python", nargs="*", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--qualities", nargs="*", type=float)
    parser.add_argument("--samples", type=int, help="windows or sentences of the evaluation (default: the task's)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="calibrations (default: DIR/calibration)")
    parser.add_argument("--seed", type=int, default=0, help="of what recipes draw, such as calibration's labels")
    given = parser.parse_args()
    try:
        with Bench(
            given.checkpoint, given.text, given.out, given.samples, given.jobs, given.cache, given.seed
        ) as bench:
            qualities = given.qualities or QUALITIES.get(bench.axis, OTHER_QUALITIES)
            run(bench, given, Report(bench, tuple(qualities)))
    except CorecompressError as problem:
        sys.exit(f"rate_quality: {problem}")


class Report:
    """Rows as they come, written after each."""

    def __init__(self, bench: Bench, qualities: tuple[float, ...]):
        self.bench, self.qualities = bench, qualities
        self.rows: list[Row] = []
        self.missing: dict[str, str] = {}

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        bench = self.bench
        sizes = {"parameters": bench.parameters, "linear": bench.linear_parameters}
        report = {
            "source": {"name": bench.checkpoint.name, **sizes},
            "task": bench.task,
            "axis": bench.axis,
            "data": bench.evaluator.described(),
            "machine": machine(bench.jobs),
            "rows": self.rows,
            "missing": self.missing,
        }
        write(bench.out / "results.json", json.dumps(report, indent=1, ensure_ascii=False))
        write(bench.out / "table.md", "\n".join(table(report, self.qualities)) + "\n")
        if good(report):
            draw(report, {name: curves(report, name) for name in RACES}, bench.out / "rate_quality.png")


def run(bench: Bench, given: argparse.Namespace, report: Report) -> None:
    for recipes, calibrated in ((given.recipes, True), (given.data_free, False)):
        for recipe in recipes:
            for rate in given.rates:
                report.add(recipe_row(bench, recipe, calibrated, rate))
    pythons = dict(entry.split("=", 1) for entry in given.peer_python)
    for text in given.peers:
        peer = parse_spec(text)
        if peer.name not in SCRIPTS:
            raise CorecompressError(f"--peers {text}: no such peer; there are {', '.join(SCRIPTS)}")
        python = pythons.get(peer.name, sys.executable)
        try:
            about = about_peer(peer.name, python, bench.checkpoint.folder)
        except CorecompressError as problem:
            report.missing[peer.name] = str(problem)
            continue
        own = {key: str(value) for key, value in peer.options.items()}
        for options in [own] if own else about["runs"]:
            report.add(bench.peer_row(peer.name, python, options, about["versions"]))
    report.write()


def recipe_row(bench: Bench, recipe: str, calibrated: bool, rate: float) -> Row:
    """A recipe at a rate of its race."""
    race = "linear" if "exact" in parse(recipe).stages[-1].options else "whole"
    bits = rate
    if race == "linear":
        bits = (rate * bench.linear_parameters + 8 * bench.rest_bytes) / bench.parameters
    family = with_options(recipe, exact=None) + ("" if calibrated else ", no data")
    about = {"family": family, "footing": race, "rate": rate}
    return bench.recipe_row(with_options(recipe, bits=round(bits, 4)), calibrated, about=about)


def good(report: Row) -> list[Row]:
    return [row for row in report["rows"] if row["status"] == "ok"]


def curves(report: Row, race: str) -> dict[str, list[tuple[float, float]]]:
    """{family: [(badness, bits)]} of a race, ours first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(good(report), key=lambda row: row["kind"] != "recipe"):
        if row["footing"] == race or race == "whole":
            name = row["family"] + (", tables exact" if race == "whole" and row["footing"] == "linear" else "")
            found.setdefault(name, []).append((badness(row, report["axis"]), row[RACES[race]]))
    return {name: sorted(points) for name, points in found.items()}


def table(report: Row, qualities: tuple[float, ...]) -> list[str]:
    """table.md."""
    lines = [f"# {report['source']['name']}: bits a weight against quality", ""]
    names = list(dict.fromkeys(name for row in good(report) for name in row["metrics"]))
    head = ["", "bits/weight, linear", "whole folder", *(LABELS[name][0] for name in names)]
    head += ["compress s (cpu)", "restore s"]
    rows = sorted(good(report), key=lambda row: (row["footing"], -row[RACES[row["footing"]]]))
    for race in RACES:
        mine = [line(row, names) for row in rows if row["footing"] == race]
        if mine:
            lines += [f"## {TITLES[race]}", "", *markdown(head, mine), "", *savings(report, race, qualities), ""]
    for row in report["rows"]:
        if row["status"] != "ok":
            lines.append(f"- failed: `{row['name']}`: {row['why']}")
    lines += [f"- not installed: {name} ({why})" for name, why in report["missing"].items()]
    data = report["data"]
    lines += [
        f"- Data: {data['spec']}, {data['samples']} samples of the {data['split']} split, fingerprint "
        f"{data['fingerprint']}. Machine: {report['machine']}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.",
        "- ± is the standard error by bootstrap over documents. ECSQ is a reference (ideal entropy), no product.",
    ]
    return lines


def line(row: Row, names: list[str]) -> list[str]:
    metrics = [row["metrics"][name] for name in names]
    figures = [f"{human_figure(m['value'])} ± {human_figure(m['stderr'] or 0, 2)}" for m in metrics]
    times = [f"{row['compress_seconds']:.0f} ({row['compress_cpu']:.0f})", f"{row['restore_seconds']:.1f}"]
    return [f"`{row['name']}`", f"{row['linear_bits']:.3f}", f"{row['bits']:.3f}", *figures, *times]


def savings(report: Row, race: str, qualities: tuple[float, ...]) -> list[str]:
    """Bits at equal quality, and what each of our recipes saves over each peer, at the peer's own points as well."""
    found = {name: points for name, points in curves(report, race).items() if race == "linear" or "exact" not in name}
    label = axis_label(report["axis"])
    head = [f"bits a weight at {label} of", *(f"{q:g}" for q in qualities)]
    rows = [[name, *(figure(at_quality(points, q)) for q in qualities)] for name, points in found.items()]
    lines = [*markdown(head, rows), ""]
    ours = {row["family"] for row in report["rows"] if row["kind"] == "recipe"}
    against = []
    for name in [name for name in found if name in ours]:
        for peer in [name for name in found if name not in ours]:
            at = [(q, at_quality(found[peer], q), "interpolated") for q in qualities]
            at += [(q, bits, "measured") for q, bits in found[peer]]
            for quality, theirs, how in at:
                mine = at_quality(found[name], quality)
                if mine is not None and theirs is not None:
                    saved = f"{100 * (1 - mine / theirs):+.1f} %"
                    bits = [f"{mine:.3f}", f"{theirs:.3f} ({how})"]
                    against.append([name, peer, human_figure(quality, 3), *bits, saved])
    if against:
        lines += markdown(["saved", "over", f"at {label}", "bits, interpolated", "its bits", "bytes saved"], against)
    return lines


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def write(path: Path, text: str) -> None:
    path.with_suffix(".tmp").write_text(text, encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)


if __name__ == "__main__":
    main()
