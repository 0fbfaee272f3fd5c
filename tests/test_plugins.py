"""Plugins as they arrive: installed distributions of all sorts, seen through the command line."""

import json
from pathlib import Path

import pytest
from conftest import Cli

GOOD = """
from corecompress import Component, hookimpl

@hookimpl
def compressor_components():
    return [Component("{name}", "{module}.work:Store", "stores bytes as they are")]
"""
WORK = """
import numpy as np
from dataclasses import dataclass
from corecompress.components import TensorCompressor, option

@dataclass(frozen=True)
class Options:
    note: str = option("hello", "a text that does nothing")
    parts: tuple[int, ...] = option((1, 2), "numbers that do nothing")

class Store(TensorCompressor):
    Options = Options
    exact = True
    def __init__(self, options): self.options = options
    def encode(self, tensor): return tensor.data.tobytes()
    def decode(self, payload, info, threads=1): return np.frombuffer(payload, np.uint8).copy()
"""


class Site:
    """A folder of fake installed distributions, for PYTHONPATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"PYTHONPATH": str(folder)}

    def install(self, name: str, code: str, version: str = "1.2.3", work: str = WORK) -> None:
        module = name.replace("-", "_")
        package = self.folder / module
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        (package / "work.py").write_text(work)
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[corecompress]\n{module} = {module}\n")

    def good(self, name: str, component: str) -> None:
        self.install(name, GOOD.format(name=component, module=name.replace("-", "_")))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def listed(cli: Cli, site: Site, *options: str) -> dict[str, dict]:
    done = cli(*options, "plugins", "list", "--json", **site.environment)
    assert done.returncode == 0, done.stderr
    return {plugin["distribution"]: plugin for plugin in json.loads(done.stdout)}


BROKEN = {
    "raises-on-import": ("1 / 0", "ZeroDivisionError", "--block-plugin raises-on-import"),
    "lacks-a-module": ("import not_there_at_all", "not_there_at_all", "pip install not-there-at-all"),
    "exits-on-import": ("raise SystemExit(3)", "SystemExit: 3", "--block-plugin"),
    "syntax-error": ("def f(:", "SyntaxError", "--upgrade syntax-error"),
    "raises-in-hook": (
        "from corecompress import hookimpl\n@hookimpl\ndef prior_components():\n    raise RuntimeError('boo')",
        "hook prior_components raised RuntimeError: boo",
        "--block-plugin",
    ),
    "misspells": (
        "from corecompress import hookimpl\n@hookimpl\ndef compresor_components():\n    return []",
        "no hook 'compresor_components'",
        "call it compressor_components",
    ),
    "wrong-arguments": (
        "from corecompress import hookimpl\n@hookimpl\ndef compressor_components(model):\n    return []",
        "model",
        "CONTRIBUTING.md",
    ),
    "too-new": (
        "from corecompress import Component, hookimpl\n@hookimpl\ndef compressor_components():\n"
        "    return [Component('future', 'too_new.work:Store', 'x', api=99)]",
        "built for HOOK_API 99",
        "pip install --upgrade corecompress",
    ),
    "returns-junk": (
        "from corecompress import hookimpl\n@hookimpl\ndef compressor_components():\n    return ['lossless']",
        "'lossless'",
        "Component",
    ),
    "returns-none": (
        "from corecompress import hookimpl\n@hookimpl\ndef compressor_components():\n    return 3",
        "TypeError",
        "--block-plugin",
    ),
    "no-hooks": ("x = 1", "implements no hook", "hookimpl"),
    "no-class": (
        "from corecompress import Component, hookimpl\n@hookimpl\ndef compressor_components():\n"
        "    return [Component('bad-target', 'no_class', 'x')]",
        "target 'no_class'",
        "package.module:Class",
    ),
}


def test_nothing_that_is_broken_breaks_the_rest(site: Site, cli: Cli, small: Path, tmp_path: Path) -> None:
    for name, (code, _, _) in BROKEN.items():
        site.install(name, code)
    site.good("acme-store", "store")
    plugins = listed(cli, site)
    for name, (_, problem, mend) in BROKEN.items():
        assert plugins[name]["status"] == "failed", name
        text = " ".join(plugins[name]["problems"])
        assert problem in text, text
        assert mend in text, text
        assert plugins[name]["version"] == "1.2.3"
    assert plugins["acme-store"]["status"] == "ok"
    assert not plugins["acme-store"]["bundled"]
    assert plugins["corecompress-lossless"]["status"] == "ok"
    table = cli("plugins", **site.environment).stdout
    assert all(name in table for name in BROKEN)
    done = cli("compress", small, "-o", tmp_path / "out", "-r", "store(note=hi)", "-q", **site.environment)
    assert done.returncode == 0, done.stderr
    assert cli("compress", small, "-o", tmp_path / "other", "-q", **site.environment).returncode == 0


def test_a_component_that_does_not_load_says_what_to_install(site: Site, refused, small: Path, tmp_path: Path) -> None:
    site.install("acme-heavy", GOOD.format(name="heavy", module="acme_heavy"), work="import not_there_at_all")
    line = refused("compress", small, "-o", tmp_path / "out", "-r", "heavy", **site.environment)
    assert "acme-heavy 1.2.3" in line
    assert "pip install not-there-at-all" in line


def test_a_component_without_its_methods(site: Site, refused, small: Path, tmp_path: Path) -> None:
    work = "class Store:\n    scope = 'tensor'\n    from corecompress.components import NoOptions as Options\n    def __init__(self, o): pass"
    site.install("acme-half", GOOD.format(name="half", module="acme_half"), work=work)
    line = refused("compress", small, "-o", tmp_path / "out", "-r", "half", **site.environment)
    assert "lacks" in line
    assert "decode" in line


def test_two_give_one_name(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.good("acme-one", "store")
    site.good("acme-two", "store")
    site.good("acme-thief", "lossless")
    plugins = listed(cli, site)
    assert {plugins[name]["status"] for name in ("acme-one", "acme-two", "acme-thief")} == {"failed"}
    assert "also given by acme-two 1.2.3" in plugins["acme-one"]["problems"][0]
    assert plugins["corecompress-lossless"]["status"] == "ok", "a bundled name can't be taken"
    line = refused("compress", small, "-o", tmp_path / "out", "-r", "store", **site.environment)
    assert "acme-one 1.2.3 and acme-two 1.2.3" in line
    chosen = cli(
        "--block-plugin", "acme-two", "compress", small, "-o", tmp_path / "out", "-r", "store", "-q", **site.environment
    )
    assert chosen.returncode == 0, chosen.stderr
    assert (
        json.loads((tmp_path / "out" / "corecompress.json").read_text())["components"][0]["distribution"] == "acme-one"
    )


def test_allow_and_block(site: Site, cli: Cli, refused) -> None:
    site.good("acme-store", "store")
    blocked = listed(cli, site, "--block-plugin", "acme-store")
    assert blocked["acme-store"]["status"] == "blocked"
    assert not blocked["acme-store"]["components"]
    allowed = listed(cli, site, "--allow-plugin", "acme_store")
    assert allowed["corecompress-lossless"]["status"] == "blocked"
    assert allowed["acme-store"]["status"] == "ok"
    done = cli("plugins", "--json", **site.environment, CORECOMPRESS_BLOCK_PLUGINS="acme-store, corecompress-lossless")
    assert {plugin["status"] for plugin in json.loads(done.stdout) if "acme" in plugin["distribution"]} == {"blocked"}
    assert "no plugin is called 'acme-stor'" in refused("--block-plugin", "acme-stor", "plugins", **site.environment)


def test_unknown_name(site: Site, refused, small: Path, tmp_path: Path) -> None:
    site.install("raises-on-import", "1 / 0")
    line = refused("compress", small, "-o", tmp_path / "out", "-r", "lossles", **site.environment)
    assert "did you mean 'lossless'?" in line
    assert "Known: distill, lossless, vae" in line
    assert "Not fully loaded: raises-on-import" in line


def test_show(site: Site, cli: Cli, refused) -> None:
    site.good("acme-store", "store")
    text = cli("plugins", "show", "store", **site.environment).stdout
    assert "a text that does nothing" in text
    shown = json.loads(cli("plugins", "show", "store", "--json", **site.environment).stdout)[0]
    options = {option["name"]: option for option in shown["options"]}
    assert options["note"] == {"name": "note", "type": "text", "default": "hello", "help": "a text that does nothing"}
    assert options["parts"]["type"] == "a list, each a whole number"
    assert shown["distribution"] == "acme-store"
    assert "did you mean 'store'?" in refused("plugins", "show", "stor", **site.environment)
    assert "compressor lossless" in cli("plugins", "show", "corecompress-lossless", **site.environment).stdout


def test_one_file_plugin(cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "strategy.py"
    path.write_text(GOOD.format(name="mine", module="strategy").replace("strategy.work:", "strategy:") + WORK)
    out, dense = tmp_path / "out", tmp_path / "dense"
    assert cli("--plugin-file", path, "compress", small, "-o", out, "-r", "mine", "-q").returncode == 0
    line = refused("decompress", out, "-o", dense)
    assert "--plugin-file" in line
    assert cli("decompress", out, "-o", dense, "-q", CORECOMPRESS_PLUGIN_FILES=str(path)).returncode == 0
    assert (dense / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()
    assert "no such file" in refused("--plugin-file", tmp_path / "gone.py", "plugins")
    path.write_text("1 / 0")
    assert "ZeroDivisionError" in cli("--plugin-file", path, "plugins").stdout


def test_a_missing_plugin_says_what_to_install(site: Site, cli: Cli, refused, small: Path, tmp_path: Path) -> None:
    site.good("acme-store", "store")
    assert cli("compress", small, "-o", tmp_path / "out", "-r", "store", "-q", **site.environment).returncode == 0
    line = refused("decompress", tmp_path / "out", "-o", tmp_path / "dense")
    assert "mend: pip install 'acme-store>=1.2.3'" in line
    assert not (tmp_path / "dense").exists()


def test_a_liar_is_caught(site: Site, refused, small: Path, tmp_path: Path) -> None:
    lies = WORK.replace("np.uint8).copy()", "np.uint8).copy() ^ 1")
    site.install("acme-liar", GOOD.format(name="liar", module="acme_liar"), work=lies)
    line = refused("compress", small, "-o", tmp_path / "out", "-r", "liar", **site.environment)
    assert "other bits" in line
    assert not (tmp_path / "out").exists()


def test_no_module_takes_the_name_of_a_function() -> None:
    import importlib
    import pkgutil

    package = importlib.import_module("corecompress")
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__)
