"""corecompress compare: the report, going on, failing rows; and the arithmetic of fronts and savings."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from corecompress.measure.frontier import pareto, savings
from corecompress.writer import lock_of

STEP = """
import numpy as np
from dataclasses import dataclass
from corecompress import Component, hookimpl, option
from corecompress.components import TensorCompressor

@hookimpl
def compressor_components():
    return [Component("step", "step:Step", "float32 to 16 bits with some bits cut off")]

@dataclass(frozen=True)
class Options:
    bits: int = option(8, "bits of the mantissa that stay")
    wait: float = option(0.0, "seconds that a tensor takes besides")

class Step(TensorCompressor):
    Options = Options
    def __init__(self, options): self.drop, self.wait = 23 - options.bits, options.wait
    def accepts(self, info): return info.dtype == "F32"
    def encode(self, tensor):
        import time, zlib
        time.sleep(self.wait)
        return zlib.compress((tensor.data.view("<u4") >> self.drop << self.drop).tobytes(), 1)
    def decode(self, payload, info, threads=1):
        import zlib
        return np.frombuffer(zlib.decompress(payload), np.uint8)
"""


def report(points: dict[str, list[tuple[float, float]]], better: str = "lower") -> dict[str, Any]:
    """A report of families with points (bytes, quality)."""
    rows = [
        {"family": family, "status": "ok", "bytes": size, "metrics": {"q": {"value": quality}}}
        for family, found in points.items()
        for size, quality in found
    ]
    return {"axis": "q", "metrics": {"q": {"better": better}}, "rows": rows}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    front = pareto([(float(a), float(b)) for a, b in points])
    for i, (size, bad) in enumerate(points):
        beaten = any(s <= size and b <= bad and (s, b) != (size, bad) for s, b in points)
        if i in front:
            assert not beaten
        else:
            assert beaten or points.index((size, bad)) != i


def test_savings_are_interpolated_in_logarithms_and_never_outside() -> None:
    found = savings(report({"ours": [(100, 0.1), (400, 0.001)], "theirs": [(400, 0.01), (50, 0.5), (900, 0.0001)]}))
    (saving,) = [s for s in found if s.family == "ours"]
    assert saving.quality == 0.01
    assert saving.bytes == pytest.approx(200)
    assert saving.percent == pytest.approx(50)
    back = [s for s in found if s.family == "theirs"]
    assert all(0.0001 <= s.quality <= 0.5 for s in back)


def test_higher_is_better_is_turned_around_and_zero_is_left_out() -> None:
    found = savings(report({"a": [(100, 0.9), (200, 0.99), (800, 1.0)], "b": [(400, 0.99), (1000, 1.0)]}, "higher"))
    assert [(s.family, s.against, s.bytes) for s in found] == [("a", "b", pytest.approx(200))]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1e-9, 10)), min_size=2, max_size=9), st.floats(1e-9, 10))
def test_an_interpolated_size_lies_between_measured_ones(curve: list[tuple[float, float]], quality: float) -> None:
    for s in savings(report({"a": curve, "b": [(1000.0, quality)]})):
        if s.family == "a":
            assert min(size for size, _ in curve) * (1 - 1e-9) <= s.bytes <= max(size for size, _ in curve) * (1 + 1e-9)
            assert math.isfinite(s.percent)


def test_a_comparison_goes_on_and_shows_what_failed(cli: Callable[..., Any], tmp_path: Path) -> None:
    plugin = tmp_path / "step.py"
    plugin.write_text(STEP)
    model = tiny.model(tmp_path / "model", "causal")
    other = shutil.copytree(model, tmp_path / "other")
    data = f"text(length=32):{tiny.corpus(tmp_path / 'corpus.txt')}"
    out = tmp_path / "out"
    recipes = ["-r", "lossless", "-r", "step(bits=2)", "-r", "step(bits=4)", "-r", "step(bits=30)"]
    command = [
        "--plugin-file",
        plugin,
        "compare",
        model,
        *recipes,
        "--against",
        f"copy={other}",
        "--against",
        f"gone={tmp_path}/gone",
    ]
    done = cli(*command, "--data", data, "-o", out, "--samples", 8)
    assert done.returncode == 0, done.stderr
    for name in ("report.json", "report.md", "report.html", "rate_quality.png", "tensors.png", "cost.png"):
        assert (out / name).stat().st_size > 500, name
    found = json.loads((out / "report.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["lossless"]["metrics"]["kl"]["value"] == 0
    assert rows["copy"]["metrics"]["kl"]["value"] == 0
    assert rows["copy"]["family"] == "copy"
    assert rows["step(bits=2)"]["metrics"]["kl"]["value"] > rows["step(bits=4)"]["metrics"]["kl"]["value"] > 0
    assert rows["step(bits=2)"]["bytes"] < rows["step(bits=4)"]["bytes"] < found["source"]["bytes"]
    assert rows["step(bits=2)"]["family"] == rows["step(bits=4)"]["family"] == "step"
    assert rows["step(bits=30)"]["status"] == "failed"
    assert "no such folder" in rows["gone"]["why"]
    assert all(t["error"] == 0 for t in rows["lossless"]["tensors"])
    assert any(t["error"] > 0.01 for t in rows["step(bits=2)"]["tensors"])
    assert "failed: step(bits=30)" in done.stdout
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "data:image/png;base64," in page
    again = cli(*command, "--data", data, "-o", out, "--samples", 8)
    assert "lossless: measured before" in again.stderr
    second = json.loads((out / "report.json").read_text())
    assert [row.get("metrics") for row in second["rows"]] == [row.get("metrics") for row in found["rows"]]
    assert second["original"] == found["original"]


def test_a_killed_comparison_goes_on(cli: Callable[..., Any], tmp_path: Path) -> None:
    plugin = tmp_path / "step.py"
    plugin.write_text(STEP)
    model, out = tiny.model(tmp_path / "model", "causal"), tmp_path / "out"
    data = f"text(length=32):{tiny.corpus(tmp_path / 'corpus.txt')}"
    compare = ["--plugin-file", plugin, "compare", model, "--data", data, "-o", out, "--samples", 2, "--jobs", 1]
    command = [Path(sys.executable).with_name("corecompress"), *compare, "-r", "lossless", "-r", "step(wait=0.3)"]
    killed = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if "compressing step" in line:
            break
    while not list(out.glob("runs/*/model.partial")):
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    killed.stderr.close()
    with FileLock(lock_of(next(out.glob("runs/*/model.partial")).with_name("model")), timeout=5):
        pass  # what it was waiting for has ended with it, and so is no other process that writes there
    done = cli(*compare, "-r", "lossless", "-r", "step(wait=0.3)")
    assert "lossless: measured before" in done.stderr
    assert [row["why"] for row in json.loads((out / "report.json").read_text())["rows"]] == [None, None]


def test_bad_input_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    data = ["--data", f"text:{tiny.corpus(tmp_path / 'corpus.txt')}", "-o", tmp_path / "out"]
    assert "nothing to compare" in refused("compare", "demo", *data)
    assert "named twice" in refused("compare", "demo", "-r", "lossless", "-r", "lossless", *data)
    assert "NAME=DIR" in refused("compare", "demo", "--against", "somewhere", *data)


def test_folders_that_differ_in_a_number_are_one_curve_and_one_alone_keeps_its_name() -> None:
    from corecompress.measure.compare import _of_folders

    names = ["gptq-3bit", "gptq-4bit", "fp16", "awq"]
    found = {row.name: row.family for row in _of_folders({name: Path(name) for name in names})}
    assert found == {"gptq-3bit": "gptq", "gptq-4bit": "gptq", "fp16": "fp16", "awq": "awq"}


def test_a_figure_that_is_nearly_one_is_not_printed_as_one() -> None:
    from corecompress.report.units import human_figure

    assert [human_figure(x) for x in (1, 0.9999996, 0.9994, 25.934)] == ["1", "1 − 4e-07", "0.9994", "25.93"]
