"""What each part of `vae` is worth: one change at a time, at the same size of the whole folder.

    python tests/benchmarks/vae_ablation.py CHECKPOINT TEXT -o DIR [--bits 3] [--base RECIPE] [--only GROUP…]
        [--samples N] [--jobs N] [--cache DIR]

Groups: quantizer, prior, encoder, rotation, calibration. Writes DIR/ablation.json and ablation.md after every row; rows
that DIR has are not measured again. --cache keeps calibrations and may be shared with rate_quality.py. Every row is
restored from disk and evaluated in a fresh process, on the last 20 % of the text's documents; calibration reads the
first 80 %. Bytes count every file, decoders and tables included; seconds are processor seconds of the whole command
(calibration is in those of the first row that needs it); decoding is one core's, in millions of weights a second.
"""

import argparse
import json
import sys
from pathlib import Path

from decode_speed import speeds
from measuring import Bench, Row, axis_label, badness, markdown, with_options

from corecompress.errors import CorecompressError
from corecompress.measure.compare import machine
from corecompress.measure.task import LABELS
from corecompress.recipe import parse_spec
from corecompress.report.units import human_figure

GROUPS: dict[str, tuple[str, list[str]]] = {
    "quantizer": ("quantizer", ["scalar", *(f"trellis(states={n})" for n in (4, 8, 16, 32, 64))]),
    "prior": ("prior", ["gaussian", "laplace", "logistic-mixture", "factorized", "hierarchical", "hadamard"]),
    "encoder": ("encoder", ["identity", "scale-hyperprior", "mlp-vae"]),
    "rotation": ("rotation", ["none", "hadamard"]),
    "calibration": ("calibration", ["gradients", "layers", "no data"]),
}
"""Option and its values, by group."""
NO_DATA = ("encoder",)
"""Groups that are shown without data as well: learned transforms know nothing of calibration."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--bits", type=float, default=3.0)
    parser.add_argument("--base", default="vae", help="the recipe that is changed in one part")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--samples", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    base = with_options(given.base, bits=given.bits)
    try:
        with Bench(given.checkpoint, given.text, given.out, given.samples, given.jobs, given.cache) as bench:
            rows: list[Row] = []
            for group, value, recipe, calibrated in variants(base, given.only):
                about = {"group": group, "value": value, "calibrated": calibrated}
                rows.append(bench.recipe_row(recipe, calibrated, decoding, about))
                write(bench, base, rows)
    except CorecompressError as problem:
        sys.exit(f"vae_ablation: {problem}")


def variants(base: str, groups: list[str]) -> list[tuple[str, str, str, bool]]:
    """(group, value, recipe, calibrated) of every row; the base itself comes first."""
    found = [("base", "as it is", base, True)]
    for group in groups:
        option, values = GROUPS[group]
        for value in values:
            if value == "no data":
                found.append((group, value, base, False))
                continue
            recipe = with_options(base, **{option: parse_spec(value)})
            found += [(group, value, recipe, True)] + [(group, value, recipe, False)] * (group in NO_DATA)
    return found


def decoding(folder: Path) -> Row:
    """Millions of weights a second that one core decodes."""
    return {"decode_speed": speeds([folder], 3)[0]}


def write(bench: Bench, base: str, rows: list[Row]) -> None:
    (bench.out / "ablation.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    good = [row for row in rows if row["status"] == "ok"]
    metric = bench.axis
    others = [name for name in dict.fromkeys(n for row in good for n in row["metrics"]) if name != metric]
    head = ["part", "bytes", "bits/weight", axis_label(metric), *(LABELS[name][0] for name in others)]
    head += ["encode, cpu s", "decode, M/s"]
    lines = [f"# {bench.checkpoint.name}: what each part of `{base}` is worth", ""]
    group = ""
    cells = []
    for row in good:
        if row["group"] != group:
            group = row["group"]
            cells.append([f"**{group}**", *[""] * (len(head) - 1)])
        cells.append(line(row, metric, others))
    lines += markdown(head, cells)
    lines += ["", *(f"- failed: `{row['name']}`: {row['why']}" for row in rows if row["status"] != "ok")]
    lines += [f"- {bench.spec}, machine: {machine(bench.jobs)}"]
    (bench.out / "ablation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def line(row: Row, metric: str, others: list[str]) -> list[str]:
    name = row["value"] + ("" if row["calibrated"] or row["value"] == "no data" else ", no data")
    error = row["metrics"][metric]["stderr"] or 0
    figures = [f"{human_figure(badness(row, metric))} ± {human_figure(error, 2)}"]
    figures += [human_figure(row["metrics"][other]["value"]) for other in others]
    times = [f"{row['compress_cpu']:.0f}", f"{row['decode_speed']:.0f}"]
    return [name, f"{row['bytes']:,}", f"{row['bits']:.3f}", *figures, *times]


if __name__ == "__main__":
    main()
