"""What was once written loads, what was once built works, and what is to go is announced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

import corecompress
from corecompress import hookspecs, plugins
from corecompress.artifact import FORMAT
from corecompress.hashing import hash_file
from corecompress.plugins import Plugin

HERE = Path(__file__).parent / "compatibility"
FORMATS = sorted(HERE.glob("format-*"))


def test_every_format_has_its_folder() -> None:
    assert [path.name for path in FORMATS] == [f"format-{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_every_format_loads(folder: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("verify", folder).returncode == 0
    done = cli("decompress", folder, "-o", tmp_path / "dense", "-q")
    assert done.returncode == 0, done.stderr
    for shard in json.loads((folder / "corecompress.json").read_text())["source"]["shards"]:
        assert hash_file(tmp_path / "dense" / shard["file"]) == shard["sha256"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40_000


@pytest.fixture
def first_api(tmp_path: Path) -> dict[str, str]:
    """The environment in which that plugin is installed."""
    site = tmp_path / "site"
    shutil.copytree(HERE / "first_api", site / "first_api", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "first_api-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: first-api\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[corecompress]\nfirst = first_api\n")
    return {"PYTHONPATH": str(site)}


def test_a_plugin_of_the_first_api_works(first_api: dict[str, str], cli: Cli, small: Path, tmp_path: Path) -> None:
    listed = json.loads(cli("plugins", "list", "--json", **first_api).stdout)
    mine = next(plugin for plugin in listed if plugin["distribution"] == "first-api")
    assert mine["status"] == "ok", mine
    assert {kind: len(found) for kind, found in mine["components"].items()} == {
        "data": 1,
        "encoder": 1,
        "prior": 1,
        "compressor": 2,
    }
    out, dense = tmp_path / "out", tmp_path / "dense"
    done = cli("compress", small, "-o", out, "-r", "first-copy | first-store(note=hi)", "-q", **first_api)
    assert done.returncode == 0, done.stderr
    assert cli("decompress", out, "-o", dense, "-q", **first_api).returncode == 0
    assert (dense / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()
    shown = cli("data", "show", "first-numbers(parts=[3, 4]):300", "--json", **first_api)
    assert shown.returncode == 0, shown.stderr
    load = "from corecompress.plugins import registry; print([registry().find(n)[0].load() for n in ('first-same', 'first-flat')])"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env={**os.environ, **first_api})
    assert done.returncode == 0, done.stderr


def test_a_hook_that_is_to_go_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    def prior_components() -> list[corecompress.Component]: ...  # type: ignore[empty-body]

    future: Any = types.ModuleType("hookspecs")
    vars(future).update({name: value for name, value in vars(hookspecs).items() if not name.startswith("__")})
    message = "prior_components goes in 2.0: write density_components"
    future.prior_components = hookspecs.hookspec(warn_on_impl=DeprecationWarning(message))(prior_components)
    monkeypatch.setattr(plugins, "hookspecs", future)
    module: Any = types.ModuleType("acme_old")
    exec(
        "from corecompress import Component, hookimpl\n@hookimpl\ndef prior_components():\n"
        "    return [Component('old', 'acme_old:Old', 'x')]",
        vars(module),
    )
    plugin = Plugin("old", "acme-old", "1.0", "test")
    plugins._call_hooks(plugin, module)
    assert plugin.status == "ok"
    assert plugin.components["prior"][0].name == "old"
    assert message in " ".join(plugin.notes)
