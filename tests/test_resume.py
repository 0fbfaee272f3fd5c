"""A killed run goes on, and ends in the same bytes; what does not fit is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import pytest
from conftest import Cli

import corecompress

SLOW = """
import time
from corecompress import Component, hookimpl
from corecompress.components import TensorCompressor

@hookimpl
def compressor_components():
    return [Component("slow", "slow:Slow", "stores, and takes its time")]

class Slow(TensorCompressor):
    def __init__(self, options): pass
    def prepare(self, job): return b"state of the run"
    def encode(self, tensor):
        time.sleep(0.05)
        return tensor.data.tobytes()
    def decode(self, payload, info, threads=1):
        import numpy as np
        return np.frombuffer(payload, np.uint8).copy()
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    entries = [(f"layer.{n}.weight", "F32", (40, 30)) for n in range(60)]
    tensors = checkpoints.weights(*entries)
    tensors["tied.weight"] = tensors["layer.3.weight"]
    return checkpoints.write_checkpoint(tmp_path / "many", [tensors])


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path / "slow.py"


def kill_after(lines: int, how: int, slow: Path, source: Path, out: Path, *more: str) -> int:
    """Start a run, send a signal when its journal has so many lines, return its exit code."""
    command = [Path(sys.executable).with_name("corecompress"), "--plugin-file", slow, "compress", source, "-o", out]
    heeds = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 (nohup's children don't)
    process = subprocess.Popen(
        [*map(str, command), "-r", "slow", "-j", "2", *more], stderr=subprocess.DEVNULL, preexec_fn=heeds
    )
    journal = out.with_name(out.name + ".partial") / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(how)
    return process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("shard", ["5GB", "40kB"])
def test_resume_ends_in_the_same_bytes(how: int, shard: str, many: Path, slow: Path, cli: Cli, tmp_path: Path) -> None:
    out, straight = tmp_path / "out", tmp_path / "straight"
    size = ("--shard-size", shard)
    assert kill_after(9, how, slow, many, out, *size) != 0
    assert not out.exists()
    assert kill_after(25, how, slow, many, out, "--resume", *size) != 0
    with open(out.with_name("out.partial") / "journal.jsonl", "a") as journal:
        journal.write('{"half a li')  # what a power cut leaves
    begun = cli("--plugin-file", slow, "compress", many, "-o", out, "-r", "slow", "--resume", *size)
    assert begun.returncode == 0, begun.stderr
    assert cli("--plugin-file", slow, "compress", many, "-o", straight, "-r", "slow", "-q", *size).returncode == 0
    assert subprocess.run(["diff", "-r", out, straight], check=False).returncode == 0
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.lock"))


def test_lost_bytes_are_written_again(many: Path, slow: Path, cli: Cli, tmp_path: Path) -> None:
    out, straight = tmp_path / "out", tmp_path / "straight"
    kill_after(30, signal.SIGKILL, slow, many, out)
    payload = out.with_name("out.partial") / "payload-1"
    os.truncate(payload, payload.stat().st_size // 2)
    assert cli("--plugin-file", slow, "compress", many, "-o", out, "-r", "slow", "--resume", "-q").returncode == 0
    assert cli("--plugin-file", slow, "compress", many, "-o", straight, "-r", "slow", "-q").returncode == 0
    assert subprocess.run(["diff", "-r", out, straight], check=False).returncode == 0


def test_what_does_not_fit_is_refused(many: Path, slow: Path, cli: Cli, refused, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_after(9, signal.SIGKILL, slow, many, out)
    run = ("--plugin-file", slow, "compress", many, "-o", out)
    assert "add --resume" in refused(*run, "-r", "slow")
    assert "another recipe" in refused(*run, "-r", "lossless", "--resume")
    assert "another seed" in refused(*run, "-r", "slow", "--seed", 7, "--resume")
    weights = bytearray((many / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (many / "model.safetensors").write_bytes(weights)
    assert "another source" in refused(*run, "-r", "slow", "--resume")
    assert cli(*run, "-r", "slow", "--force", "-q").returncode == 0
    assert corecompress.inspect(out).seed == 0


def test_another_plugin_version_is_refused(many: Path, slow: Path, refused, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_after(9, signal.SIGKILL, slow, many, out)
    journal = out.with_name("out.partial") / "journal.jsonl"
    first, _, rest = journal.read_text().partition("\n")
    identity = json.loads(first)
    identity["components"][0]["version"] = "0.0.1"
    journal.write_text(json.dumps(identity) + "\n" + rest)
    run = ("--plugin-file", slow, "compress", many, "-o", out)
    assert "another components" in refused(*run, "-r", "slow", "--resume")
