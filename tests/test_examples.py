"""Every component has an example that runs: the command line that `corecompress plugins show` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

from corecompress.examples import command_of, example_of
from corecompress.plugins import Provided, registry

ALL = [
    registry().get(kind, component.name)
    for plugin in registry().plugins
    if plugin.bundled
    for kind, listed in plugin.components.items()
    for component in listed
]


def run(command: str, folder: Path) -> None:
    """As a person would paste it."""
    bin_ = Path(sys.executable).parent
    done = subprocess.run(["sh", "-c", f'PATH="{bin_}:$PATH"; {command}'], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert done.stdout


@pytest.mark.parametrize("name", ["lossless", "text", "captioned"])
def test_the_command_that_is_shown_runs(name: str, cli: Cli, tmp_path: Path) -> None:
    shown = json.loads(cli("plugins", "show", name, "--json").stdout)[0]["command"]
    assert name in shown
    assert shown in cli("plugins", "show", name).stdout
    run(shown, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("provided", ALL, ids=lambda p: f"{p.kind}-{p.component.name}")
def test_every_command_runs(provided: Provided, tmp_path: Path) -> None:
    run(command_of(provided, registry()), tmp_path)


def test_every_component_has_one() -> None:
    for provided in ALL:
        assert provided.component.name in example_of(provided, registry())
        assert command_of(provided, registry()).startswith("corecompress ")
