"""Plugins of strangers, installed by pip into an environment of their own: what the scaffold writes, and acme."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from stranger import Environment

from corecompress.testing.samples import MODEL

ACME = Path(__file__).parent / "plugins" / "acme"
KINDS = ("data", "encoder", "prior", "compressor")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One with acme in it, installed from its folder."""
    made = Environment(tmp_path_factory.mktemp("stranger") / "environment")
    made.install(ACME)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_scaffold_writes_passes_unedited(kind: str, environment: Environment, tmp_path: Path) -> None:
    name = f"acme-new-{kind}"
    done = environment.run("corecompress", "plugins", "new", name, "--kind", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert {"pyproject.toml", "README.md", "LICENSE", ".github/workflows/tests.yml", ".gitignore"} <= written
    assert not any("$" in (tmp_path / name / file).read_text() for file in written - {".github/workflows/tests.yml"})
    # the network is not what is tested here: setuptools is there already
    done = environment.run("pip", "install", "--no-deps", "--no-build-isolation", "-e", tmp_path / name)
    assert done.returncode == 0, done.stderr
    listed = json.loads(environment.run("corecompress", "plugins", "list", "--json").stdout)
    mine = next(plugin for plugin in listed if plugin["distribution"] == name)
    assert (mine["status"], mine["bundled"]) == ("ok", False)
    assert [component["name"] for component in mine["components"][kind]] == [name]
    done = environment.run("pytest", "-q", "-p", "no:cacheprovider", tmp_path / name)
    assert done.returncode == 0, done.stdout
    again = environment.run("corecompress", "plugins", "new", name, "--kind", kind, cwd=tmp_path)
    assert again.returncode == 2
    assert "choose another" in again.stderr


def test_acme_passes_its_own_tests(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("pytest", "-q", "-p", "no:cacheprovider", ACME / "tests", "--rootdir", tmp_path)
    assert done.returncode == 0, done.stdout


PAYING = """
import json, sys
from pathlib import Path
import numpy as np
import corecompress
from corecompress.artifact import Artifact
from corecompress.checkpoint import open_checkpoint
from corecompress.summary import as_float64

def measured(source, codec):
    corecompress.compress(source, "out", codec, force=True)
    artifact, checkpoint = Artifact("out"), open_checkpoint(source)
    rows = [r for r in artifact.manifest.tensors if len(r.shape) == 2 and "embed" not in r.name]
    pairs = [(as_float64(checkpoint.read(r.name)), as_float64(artifact.read(r.name))) for r in rows]
    error = sum(np.square(x - y).sum() for x, y in pairs) / sum(np.square(x).sum() for x, _ in pairs)
    return 8 * sum(r.bytes for r in rows) / sum(r.info.size for r in rows), error**0.5

found = {}
sources = {"dense": sys.argv[1], "unstructured": "unstructured", "2:4": "2-4"}
for name, folder in sources.items():
    if name != "dense":
        corecompress.compress(sys.argv[1], folder, f"acme-prune(pattern={name})")
    for codec in ("vae(step=0.25)", "vae(step=0.25, quantizer=scalar)"):
        found[f"{name} {codec}"] = measured(folder, codec)
print(json.dumps(found))
"""


def test_zeros_pay_in_bytes(environment: Environment, tmp_path: Path) -> None:
    """At the same step what was pruned takes fewer bits, and comes back no further from what it was made of."""
    done = environment.run("python", "-c", PAYING, MODEL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for codec in ("vae(step=0.25)", "vae(step=0.25, quantizer=scalar)"):
        bits, error = found[f"dense {codec}"]
        for pattern in ("unstructured", "2:4"):
            pruned_bits, pruned_error = found[f"{pattern} {codec}"]
            assert pruned_bits < 0.92 * bits, found
            assert pruned_error < 1.1 * error, found


def test_acme_in_a_recipe_with_the_bundled_ones(environment: Environment, tmp_path: Path) -> None:
    recipe = "acme-prune(sparsity=0.5) | vae(bits=3)"
    done = environment.run("corecompress", "compress", MODEL, "-o", tmp_path / "out", "-r", recipe, "-q")
    assert done.returncode == 0, done.stderr
    used = json.loads((tmp_path / "out" / "corecompress.json").read_text())["components"]
    assert {(u["kind"], u["name"], u["distribution"], u["version"]) for u in used} >= {
        ("compressor", "acme-prune", "acme-compress", "1.0.0"),
        ("compressor", "vae", "corecompress-vae", "0.1.0"),
    }
    assert environment.run("corecompress", "verify", tmp_path / "out").returncode == 0
    (tmp_path / "recipe.toml").write_text(
        '[[stage]]\nuse = "acme-prune"\noptions = { pattern = "2:4" }\n'
        '[[rule]]\nmatch = "*self_attn*"\nuse = "vae(step=0.2, prior=acme-spike)"\n'
        '[[rule]]\nmatch = "*"\nuse = "lossless"\n'
    )
    done = environment.run("corecompress", "compress", MODEL, "-o", "mixed", "-r", "recipe.toml", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used = json.loads((tmp_path / "mixed" / "corecompress.json").read_text())["components"]
    assert [u["name"] for u in used if u["distribution"] == "acme-compress"] == ["acme-prune", "acme-spike"]


def test_a_pruned_folder_loads_without_acme(environment: Environment, cli, tmp_path: Path) -> None:
    """Pruning is not needed for decoding: the folder loads where acme never was."""
    recipe = "acme-prune | lossless"
    assert (
        environment.run("corecompress", "compress", MODEL, "-o", tmp_path / "out", "-r", recipe, "-q").returncode == 0
    )
    done = cli("decompress", tmp_path / "out", "-o", tmp_path / "dense", "-q")
    assert done.returncode == 0, done.stderr


def test_check_and_pytest_say_the_same(environment: Environment, tmp_path: Path) -> None:
    checked = environment.run("corecompress", "plugins", "check", "acme-spike")
    tested = environment.run(
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--pyargs",
        "corecompress.testing",
        "--plugin",
        "acme-spike",
        cwd=tmp_path,
    )
    assert checked.returncode == tested.returncode == 0, (checked.stdout, tested.stdout)

    def lines(text: str) -> list[list[str]]:
        return [line.split()[:4] for line in text.splitlines() if re.match(r"(passed|FAILED|waived) ", line)]

    assert len(lines(checked.stdout)) > 12
    assert lines(checked.stdout) == lines(tested.stdout)


def test_a_check_that_finds_no_component_fails(environment: Environment, tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("from corecompress import hookimpl\n@hookimpl\ndef prior_components():\n    return []\n")
    done = environment.run("corecompress", "--plugin-file", empty, "plugins", "check", "empty")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "nothing to check" in done.stdout
    done = environment.run("corecompress", "plugins", "check", "acme-prun")
    assert done.returncode == 2
    assert "did you mean 'acme-prune'?" in done.stderr
    for more in (["--plugin", "acme-prun"], []):
        tested = environment.run("pytest", "--pyargs", "corecompress.testing", *more, cwd=tmp_path)
        assert tested.returncode != 0
        assert "--plugin NAME" in tested.stdout + tested.stderr or "acme-prune" in tested.stdout + tested.stderr


def test_a_waiver_is_printed_with_its_reason(environment: Environment, tmp_path: Path) -> None:
    plugin = tmp_path / "waiving.py"
    plugin.write_text(
        "from corecompress import Component, hookimpl\n"
        "@hookimpl\ndef prior_components():\n"
        "    waivers = {'context': 'it has one width', **{c: 'slow' for c in ('code-length', 'example')}}\n"
        "    return [Component('flat', 'waiving:Flat', 'all alike', waivers=waivers)]\n"
        "class Flat: pass\n"
    )
    done = environment.run("corecompress", "--plugin-file", plugin, "plugins", "check", "flat")
    assert re.search(r"^waived  prior flat +context .* — it has one width$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"3 waived", done.stdout)
    assert done.returncode == 1, "the rest fails"
