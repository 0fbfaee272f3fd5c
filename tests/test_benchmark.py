"""corecompress benchmark: figures of every kind of model, from fresh processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import corecompress


@pytest.mark.parametrize(
    ("kind", "figures"),
    [
        ("causal", ["load", "first", "throughput1", "throughput8", "peak", "size"]),
        ("seq2seq", ["load", "first", "throughput1", "throughput8", "peak", "size"]),
        ("encoder", ["load", "latency", "throughput1", "throughput8", "peak", "size"]),
        ("vision", ["load", "latency", "throughput1", "throughput8", "peak", "size"]),
    ],
)
def test_every_kind_has_its_figures(cli: Callable[..., Any], tmp_path: Path, kind: str, figures: list[str]) -> None:
    model = tiny.model(tmp_path / "model", kind)
    corecompress.compress(model, tmp_path / "small", "lossless")
    done = cli("benchmark", model, tmp_path / "small", "--runs", 1, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["figures"]) == figures
    assert found["threads"] == 1
    for name, figure in found["figures"].items():
        assert figure["original"] > 0, name
        assert figure["ratio"] == pytest.approx(figure["compressed"] / figure["original"])
    size = found["figures"]["size"]
    assert size["compressed"] * 1e6 == pytest.approx(corecompress.inspect(tmp_path / "small").bytes)


def test_the_table_says_ratios_first_and_how_it_was_measured(cli: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny.model(tmp_path / "model", "encoder")
    done = cli("benchmark", model, model, "--runs", 2, "--threads", 1)
    head = done.stdout.splitlines()[0]
    assert head.index("compressed ÷ original") < head.index("original  ")
    assert "2 fresh processes each, alternating, on cpu with 1 thread:" in done.stdout


def test_a_folder_that_does_not_load_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    model = tiny.model(tmp_path / "model", "encoder")
    broken = tiny.model(tmp_path / "broken", "encoder")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_attention_heads": 7}))
    assert "broken" in refused("benchmark", model, broken, "--runs", 1, "-q")
