"""An artifact says where every component came from, and loading says what is missing; it never runs what came along."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from conftest import Cli
from test_plugins import GOOD, Site

INNER = """
from dataclasses import dataclass
from corecompress import CorecompressError, option
from corecompress.components import TensorCompressor
from corecompress.plugins import registry
from corecompress.recipe import Spec, build

@dataclass(frozen=True)
class Options:
    encoder: Spec = option(Spec("same"), "what it hands bytes to")

class Store(TensorCompressor):
    Options = Options
    def __init__(self, options): self.options = options
    def prepare(self, job): return b"x"
    def restore(self, state): self.inner = build(registry(), "encoder", self.options.encoder)
    def encode(self, tensor): return tensor.data.tobytes()
    def decode(self, payload, info, threads=1):
        import numpy as np
        return np.frombuffer(payload, np.uint8).copy()
"""
ENCODER = """
from corecompress import Component, hookimpl

@hookimpl
def encoder_components():
    return [Component("same", "acme_same.work:Same", "latents are the data")]
"""
SAME = """
from dataclasses import dataclass
from corecompress import option

@dataclass(frozen=True)
class Options:
    depth: int = option(3, "a number that does nothing")

class Same:
    Options = Options
    def __init__(self, options): pass
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def components_of(folder: Path) -> list[dict]:
    return json.loads((folder / "corecompress.json").read_text())["components"]


def compressed(cli: Cli, site: Site, small: Path, out: Path, recipe: str) -> Path:
    done = cli("compress", small, "-o", out, "-r", recipe, "-q", **site.environment)
    assert done.returncode == 0, done.stderr
    return out


def test_components_inside_of_others_are_recorded(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.install("acme-store", GOOD.format(name="store", module="acme_store"), work=INNER)
    site.install("acme-same", ENCODER, version="2.5", work=SAME)
    out = compressed(cli, site, small, tmp_path / "out", "store(encoder=same)")
    inner = next(used for used in components_of(out) if used["kind"] == "encoder")
    assert inner["name"] == "same"
    assert inner["options"] == {"depth": 3}
    assert (inner["distribution"], inner["version"]) == ("acme-same", "2.5")
    assert inner["source"] == "entry point acme_same"
    line = refused(
        "decompress",
        out,
        "-o",
        tmp_path / "dense",
        "--force",
        CORECOMPRESS_BLOCK_PLUGINS="acme-same",
        **site.environment,
    )
    assert "mend: pip install 'acme-same>=2.5'" in line
    assert "encoder 'same'" in line


def test_an_older_plugin_is_refused(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.good("acme-store", "store")
    out = compressed(cli, site, small, tmp_path / "out", "store")
    (site.folder / "acme_store-1.2.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-store\nVersion: 1.2\n"
    )
    line = refused("decompress", out, "-o", tmp_path / "dense", **site.environment)
    assert "mend: pip install 'acme-store>=1.2.3'" in line
    assert "acme-store 1.2 is too old" in line
    (site.folder / "acme_store-1.2.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-store\nVersion: 1.10\n"
    )
    assert cli("decompress", out, "-o", tmp_path / "dense", "-q", **site.environment).returncode == 0


def test_anothers_component_of_that_name_is_refused(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.good("acme-one", "store")
    out = compressed(cli, site, small, tmp_path / "out", "store")
    site.good("acme-two", "store")
    blocked = {**site.environment, "CORECOMPRESS_BLOCK_PLUGINS": "acme-one"}
    line = refused("verify", out, **blocked)
    assert "mend: pip install 'acme-one>=1.2.3'" in line
    assert "comes from acme-two 1.2.3 here" in line


def test_where_a_repository_was_installed_from(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.good("acme-store", "store")
    url = {"url": "https://example.org/acme.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}
    (site.folder / "acme_store-1.2.3.dist-info" / "direct_url.json").write_text(json.dumps(url))
    out = compressed(cli, site, small, tmp_path / "out", "store")
    assert components_of(out)[0]["source"] == "entry point acme_store from git+https://example.org/acme.git@abc123"
    line = refused("decompress", out, "-o", tmp_path / "dense")
    assert "pip install 'acme-store @ git+https://example.org/acme.git@abc123'" in line


def test_folders_of_this_machine_are_not_told(site: Site, cli: Cli, small: Path, tmp_path: Path) -> None:
    site.good("acme-store", "store")
    url = {"url": "file:///home/somebody/acme", "dir_info": {"editable": True}}
    (site.folder / "acme_store-1.2.3.dist-info" / "direct_url.json").write_text(json.dumps(url))
    out = compressed(cli, site, small, tmp_path / "out", "store")
    assert "somebody" not in (out / "corecompress.json").read_text()


def test_the_mend_is_one_that_a_shell_understands(
    site: Site, cli: Cli, refused: Callable[..., str], small: Path, tmp_path: Path
) -> None:
    site.good("acme-store", "store")
    out = compressed(cli, site, small, tmp_path / "out", "store")
    line = refused("verify", out).partition("mend: pip ")[2].partition(" (")[0]
    done = subprocess.run(["sh", "-c", f'printf "%s|" {line}'], capture_output=True, text=True, check=True)
    assert done.stdout == "install|acme-store>=1.2.3|"


def test_loading_runs_nothing_that_came_along(cli: Cli, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    evil = f"open({str(mark)!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n"
    source = checkpoints.write_checkpoint(
        tmp_path / "source",
        [checkpoints.weights(("a.weight", "F32", (64, 300)))],
        {
            "model_type": "evil",
            "architectures": ["Evil"],
            "auto_map": {"AutoModel": "modeling_evil.Model", "AutoConfig": "modeling_evil.Config"},
        },
    )
    for name in ("modeling_evil.py", "corecompress_lossless.py", "sitecustomize.py", "setup.py", "conftest.py"):
        (source / name).write_text(evil)
    out = tmp_path / "out"
    assert cli("compress", source, "-o", out, "-q").returncode == 0
    assert (out / "modeling_evil.py").exists()
    manifest = out / "corecompress.json"
    for command in (("inspect", out), ("verify", out), ("decompress", out, "-o", tmp_path / "dense", "-q")):
        assert cli(*command).returncode == 0
    code = f"import corecompress\ntry:\n    corecompress.load({str(out)!r})\nexcept Exception as problem:\n    print(problem)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip(), "a model type that nobody knows can't load"
    # a manifest that names code instead of an installed component
    text = manifest.read_text().replace('"name": "lossless"', '"name": "modeling_evil:Model"')
    body = text.partition(",\n")[2]
    from corecompress.hashing import hash_bytes

    manifest.write_text('{\n "sha256": "' + hash_bytes(body.encode()) + '",\n' + body)
    assert cli("verify", out).returncode == 2
    assert not mark.exists()


def test_what_is_not_bundled_is_marked(site: Site, cli: Cli) -> None:
    site.good("acme-store", "store")
    lines = cli("plugins", **site.environment).stdout.splitlines()
    marked = {line.split()[0] for line in lines if "(not bundled)" in line}
    assert marked == {"acme-store"}, lines
    assert "not bundled" in cli("plugins", "show", "store", **site.environment).stdout
