"""Model compressors as stages of a run: journaled, resumed, planned, and shared by several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

import corecompress

PLUGIN = """
import json, os
from dataclasses import dataclass
from pathlib import Path
from corecompress import Component, hookimpl, option
from corecompress.components import ModelCompressor

@hookimpl
def compressor_components():
    return [Component("halve", "halving:Halve", "drops a tensor and notes that it ran")]

@dataclass(frozen=True)
class Options:
    drop: str = option("", "tensor to leave out")
    diary: str = option("", "file that says how often it ran")
    fail: bool = option(False, "stop half way, the first time")

class Halve(ModelCompressor):
    Options = Options

    def __init__(self, options):
        self.options = options

    def plan(self, job):
        return {"tensors left": len(job.tensors) - 1, "student bytes": 1234, "seconds": 2.0, "seed": job.seed}

    def compress(self, job, out):
        with open(self.options.diary, "a") as diary:
            said = [self.options.drop, os.environ.get("RANK", "0"), job.target_loss, len(list(out.glob("*")))]
            diary.write(json.dumps(said) + "\\n")
        if self.options.fail and not (job.scratch / "half").exists():
            (job.scratch / "half").write_text("kept")
            (out / "rubbish").write_text("half written")
            raise KeyboardInterrupt
        if os.environ.get("RANK", "0") == "0":
            self.write(job, out)
        while not (out / "done").exists():
            pass

    def write(self, job, out):
        import numpy as np
        from corecompress.safetensors_file import header_bytes
        kept = [info for info in job.tensors if info.name != self.options.drop]
        data = b"".join(np.asarray(job.source.read(info.name).data).tobytes() for info in kept)
        (out / "model.safetensors").write_bytes(header_bytes(kept, {"format": "pt"}) + data)
        (out / "config.json").write_text((job.source.folder / "config.json").read_text())
        (out / "done").write_text("yes")
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "halving.py").write_text(PLUGIN)
    return tmp_path / "halving.py"


def diary(tmp_path: Path) -> list[list[object]]:
    path = tmp_path / "diary"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_interrupted_stage_goes_on_and_a_finished_one_is_not_run_again(
    small: Path, plugin: Path, cli: Cli, refused, tmp_path: Path
) -> None:
    note, out = f'diary="{tmp_path / "diary"}"', tmp_path / "out"
    recipe = f'halve(drop="a.bias", {note}) | halve(drop="a.weight", fail=true, {note}) | lossless'
    run = ("--plugin-file", plugin, "compress", small, "-o", out, "-r", recipe)
    stopped = cli(*run, "--target-loss", 0.5)
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert not out.exists()
    assert "add --resume" in refused(*run)
    assert "another recipe" in refused(*run[:-1], f'halve(drop="a.bias", {note})', "--resume")
    done = cli(*run, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert [entry[0] for entry in diary(tmp_path)] == ["a.bias", "a.weight", "a.weight"]
    assert [entry[2] for entry in diary(tmp_path)] == [0.5, 0.5, None]
    assert diary(tmp_path)[-1][3] == 0, "the folder of the second try holds what the first left"
    summary = json.loads(done.stdout)
    assert [row["name"] for row in summary["tensors"]] == ["b.weight"]
    assert summary["source_parameters"] == 64 * 300 + 300 + 256 * 256
    assert not list(tmp_path.glob("out.*"))


def test_a_checkpoint_may_be_the_outcome(small: Path, plugin: Path, cli: Cli, tmp_path: Path) -> None:
    recipe = f'halve(drop="a.bias", diary="{tmp_path / "diary"}")'
    done = cli("--plugin-file", plugin, "compress", small, "-o", tmp_path / "out", "-r", recipe)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    assert "decoded again" not in done.stdout
    assert corecompress.inspect(tmp_path / "out").kind == "checkpoint"


def test_plan_asks_the_first_stage(small: Path, plugin: Path, cli: Cli, tmp_path: Path) -> None:
    run = ("--plugin-file", plugin, "plan", small, "-r", "halve | lossless", "--seed", 3)
    figures = json.loads(cli(*run, "--json").stdout)["first_stage"]
    assert figures == {"tensors left": 2, "student bytes": 1234, "seconds": 2.0, "seed": 3}
    shown = cli(*run).stdout
    assert "1.23 kB" in shown
    assert "2.0 s" in shown


def test_a_target_that_nothing_is_trained_for_is_refused(small: Path, refused, tmp_path: Path) -> None:
    said = refused("compress", small, "-o", tmp_path / "out", "--target-loss", 0.5)
    assert "--target-loss" in said
    assert "leave it out" in said


def test_other_ranks_take_part_in_the_stages_only(small: Path, plugin: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("corecompress")
    recipe, out = f'halve(drop="a.bias", diary="{tmp_path / "diary"}") | lossless', tmp_path / "out"
    call = [command, "--plugin-file", plugin, "compress", small, "-o", out, "-r", recipe]
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    ranks = [
        subprocess.Popen(
            [*map(str, call)], env={**os.environ, **launch, "RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("1", "0")
    ]
    said = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[0] == ""
    assert "recipe halve" in said[1]
    assert sorted(str(entry[1]) for entry in diary(tmp_path)) == ["0", "1"]
    assert corecompress.verify(out).ok
