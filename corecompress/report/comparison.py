"""report.md and report.html of a comparison: the same table for a person, without and with pictures inside."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path
from typing import Any

from corecompress.measure.frontier import badness, measured, pareto, savings
from corecompress.report.plots import axis_label
from corecompress.report.units import human_bytes, human_figure

CAPTIONS = {
    "rate_quality": "Size against quality. Rings mark the Pareto front: nothing here is both smaller and better.",
    "tensors": "Where the bits went, and what error they left.",
    "cost": "Time and memory.",
}


def head(report: dict[str, Any]) -> list[str]:
    """The table's columns."""
    names = [metric["label"] for metric in report["metrics"].values()]
    return ["", "bytes", "bits/weight", "÷ original", *names, "compress", "restore"]


def body(report: dict[str, Any]) -> list[list[str]]:
    """The table's rows: the original, then those that have figures, the smallest first; ● marks the Pareto front."""
    source = report["source"]
    own = [report["original"].get(name) for name in report["metrics"]]
    first = [source["name"], f"{source['bytes']:,}", f"{source['bits_per_weight']:.2f}", "1"]
    lines = [[*first, *("" if figure is None else _with_error(figure) for figure in own), "", ""]]
    rows = measured(report)
    front = pareto([(row["bytes"], badness(report, row)) for row in rows])
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["bytes"]):
        row = rows[i]
        figures = [_with_error(row["metrics"][name]) for name in report["metrics"]]
        seconds = [_seconds(row["seconds"].get(part)) for part in ("compress", "restore")]
        share = f"{row['bytes'] / source['bytes']:.3f}"
        size = [f"{row['bytes']:,}", f"{row['bits_per_weight']:.2f}", share]
        lines.append([("● " if i in front else "") + row["name"], *size, *figures, *seconds])
    return lines


def _with_error(figure: dict[str, Any]) -> str:
    error = f" ± {human_figure(figure['stderr'], 2)}" if figure.get("stderr") else ""
    return human_figure(figure["value"]) + error


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def failures(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, why) of the rows that have no figures."""
    return [(row["name"], row["why"]) for row in report["rows"] if row["status"] != "ok"]


def saved(report: dict[str, Any]) -> list[str]:
    """A line each equal-quality saving."""
    label = axis_label(report)
    return [
        f"{s.family} needs {abs(s.percent):.1f} % {'fewer' if s.percent >= 0 else 'more'} bytes than {s.against} "
        f"at {label} {human_figure(s.quality, 3)} ({human_bytes(s.bytes)}, interpolated, "
        f"against {human_bytes(s.against_bytes)})"
        for s in savings(report)
    ]


def method(report: dict[str, Any]) -> list[str]:
    """How it was measured."""
    data = report["data"]
    return [
        f"Data: {data['spec']}, {data['samples']} samples, {data['rows']} rows, {data['documents']} documents of the "
        f"{data['split']} split (fingerprint {data['fingerprint']}).",
        "Every row was restored from disk and run in a fresh process. "
        "± is the standard error by bootstrap over documents.",
        "Bytes count every file that is needed to restore the model; savings are interpolated between measured points, "
        "never outside of them.",
        f"Machine: {report['machine']}; corecompress {report['corecompress']}; {report['date']}.",
    ]


def write_markdown(report: dict[str, Any], folder: Path) -> None:
    """report.md, with links to the pictures that are there."""
    columns = head(report)
    lines = [f"# {report['source']['name']}: size against quality", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body(report)]
    lines += ["", "● on the Pareto front", ""]
    for name in CAPTIONS:
        if (folder / f"{name}.png").exists():
            lines += [f"![{CAPTIONS[name]}]({name}.png)", ""]
    if saved(report):
        lines += ["## At equal quality", "", *(f"- {line}" for line in saved(report)), ""]
    if failures(report):
        lines += ["## Failed", "", *(f"- `{name}`: {why}" for name, why in failures(report)), ""]
    lines += ["## How it was measured", "", *(f"- {line}" for line in method(report)), ""]
    _write(folder / "report.md", "\n".join(lines))


def write_page(report: dict[str, Any], folder: Path) -> None:
    """report.html: one file, pictures inside, no network."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body(report))
    columns = "".join(f"<th>{html.escape(name)}</th>" for name in head(report))
    parts = [f"<div class=scroll><table><thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table></div>"]
    parts.append("<p class=note>● on the Pareto front. Click a column's head to sort.</p>")
    for name, caption in CAPTIONS.items():
        path = folder / f"{name}.png"
        if path.exists():
            picture = base64.b64encode(path.read_bytes()).decode()
            parts.append(
                f'<figure><img src="data:image/png;base64,{picture}" alt="{caption}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    sections = {
        "At equal quality": saved(report),
        "Failed": [f"{name}: {why}" for name, why in failures(report)],
        "How it was measured": method(report),
    }
    for title, lines in sections.items():
        if lines:
            parts.append(f"<h2>{title}</h2><ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")
    title = html.escape(f"{report['source']['name']}: size against quality")
    _write(folder / "report.html", PAGE.format(title=title, body="\n".join(parts)))


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(path.suffix + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --soft: #666; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --paper: #161616; --line: #3a3a3a; --soft: #a0a0a0; }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ cursor: pointer; color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }}
figure {{ margin: 2rem 0; }} img {{ max-width: 100%; background: #fff; border-radius: 6px; }}
figcaption, .note {{ color: var(--soft); font-size: .9rem; }} li {{ overflow-wrap: anywhere; }}
</style></head><body>
<h1>{title}</h1>
{body}
<script>
document.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {{
  const rows = [...document.querySelectorAll("tbody tr")];
  const up = head.dataset.up = head.dataset.up === "1" ? "0" : "1";
  const value = row => {{
    const text = row.cells[column].textContent.replace(/,/g, ""), n = parseFloat(text);
    return isNaN(n) ? text : n;
  }};
  const order = (a, b) => (value(a) > value(b) ? 1 : -1) * (up === "1" ? 1 : -1);
  rows.sort(order).forEach(row => row.parentNode.append(row));
}}));
</script>
</body></html>
"""
