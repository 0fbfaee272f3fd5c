"""The main job on real checkpoints, through the command line and the Python API."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli
from safetensors import safe_open

import corecompress

LOAD = """
import sys, torch
from transformers import AutoModel, AutoModelForCausalLM
kind, plain, packed = sys.argv[1:]
kind = {"AutoModel": AutoModel, "AutoModelForCausalLM": AutoModelForCausalLM}[kind]
a, b = kind.from_pretrained(plain), kind.from_pretrained(packed)
x, y = a.state_dict(), b.state_dict()
assert x.keys() == y.keys() and len(x) > 90
assert all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x)
assert not hasattr(b.config, "quantization_config")
print("same", len(x))
"""


def same_files(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-r", str(one), str(other)], capture_output=True, check=False).returncode == 0


def test_minilm_there_and_back(minilm: Path, cli: Cli, tmp_path: Path) -> None:
    out, dense = tmp_path / "out", tmp_path / "dense"
    done = cli("compress", "demo", "-o", out, "-r", "lossless", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["weight_bytes"] == (out / "corecompress.safetensors").stat().st_size
    assert said["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert sum(row["bytes"] for row in said["tensors"]) <= 74_435_285  # what ZipNN 0.5 needs
    assert said["parameters"] == 22_713_728  # position_ids among them
    with safe_open(out / "corecompress.safetensors", "np") as file:  # a legal safetensors file for anyone
        assert len(list(file.keys())) == len(said["tensors"])
    assert (out / "1_Pooling" / "config.json").read_bytes() == (minilm / "1_Pooling" / "config.json").read_bytes()
    assert cli("verify", out, "--against", "demo", "--quiet").returncode == 0
    assert cli("decompress", out, "-o", dense, "--quiet").stdout == ""
    assert same_files(minilm, dense)


def test_minilm_loads_without_an_import(minilm: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("compress", minilm, "-o", tmp_path / "out", "-q").returncode == 0
    command = [sys.executable, "-c", LOAD, "AutoModel", str(minilm), str(tmp_path / "out")]
    assert "same" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_smollm2(smollm2: Path, tmp_path: Path) -> None:
    summary = corecompress.compress(smollm2, tmp_path / "out", recipe="lossless")
    assert summary.weight_bytes < 0.67 * summary.source_weight_bytes
    command = [sys.executable, "-c", LOAD, "AutoModelForCausalLM", str(smollm2), str(tmp_path / "out")]
    assert "same" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    assert same_files(smollm2, tmp_path / "dense")


def test_python_api_does_what_the_command_line_does(minilm: Path, cli: Cli, tmp_path: Path) -> None:
    summary = corecompress.compress("demo", tmp_path / "api", recipe="lossless(level=1)", jobs=1)
    assert cli("compress", "demo", "-o", tmp_path / "cli", "-r", "lossless(level=1)", "-j", 2, "-q").returncode == 0
    assert same_files(tmp_path / "api", tmp_path / "cli"), "one thread and two, API and CLI: the same bytes"
    assert corecompress.inspect(tmp_path / "cli").bytes == summary.bytes
    verified = corecompress.verify(tmp_path / "api", against=minilm)
    assert verified.ok
    assert {error for _, error in verified.against} == {0.0}
    plan = corecompress.plan(minilm, "lossless")
    assert plan.bytes == pytest.approx(summary.weight_bytes, rel=0.05)
    assert sum(count for _, count, _, _ in plan.rules) == len(summary.tensors)


def test_threads_and_hub_variables_do_not_matter(small: Path, cli: Cli, tmp_path: Path) -> None:
    for number in (1, 2, 5):
        done = cli("compress", small, "-o", tmp_path / str(number), "-j", number, "-q", PYTHONHASHSEED=str(number))
        assert done.returncode == 0, done.stderr
    assert same_files(tmp_path / "1", tmp_path / "2")
    assert same_files(tmp_path / "1", tmp_path / "5")


def test_load_explicitly_where_the_entry_point_is_switched_off(minilm: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("compress", minilm, "-o", tmp_path / "out", "-q").returncode == 0
    code = f"import corecompress; print(type(corecompress.load({str(tmp_path / 'out')!r})).__name__)"
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "BertModel"
