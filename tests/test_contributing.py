"""CONTRIBUTING.md is true: its tutorial runs as it stands, and its reference leaves nothing out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from stranger import Environment

from corecompress import components, hookspecs
from corecompress.testing.kit import CHECKS
from corecompress.testing.runner import FOUND, checks_of  # noqa: F401  (fills CHECKS)

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- (run|file: (\S+)) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROTOCOLS = (
    "Data",
    "Encoder",
    "GenerativeEncoder",
    "Prior",
    "GenerativePrior",
    "Coder",
    "TensorCompressor",
    "ModelCompressor",
)


def section(title: str, mark: str = "##") -> str:
    """What stands below a heading, up to the next one of its rank."""
    found = re.search(rf"^{mark} {re.escape(title)}\n(.*?)(?=^{mark} |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"CONTRIBUTING.md has lost '{title}'"
    return found[1]


def test_the_tutorial_runs(tmp_path: Path) -> None:
    environment, folder = Environment(tmp_path / "environment"), tmp_path / "work"
    folder.mkdir()
    said = ""
    for kind, name, text in BLOCK.findall(section("Write a plugin")):
        if kind == "run":
            done = environment.run("sh", "-ec", text, cwd=folder)
            assert done.returncode == 0, (text, done.stdout, done.stderr)
            said += done.stdout
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    assert "failed" not in said.lower()
    assert re.search(r"^passed  compressor acme-half +resume ", said, re.MULTILINE)
    assert environment.run("corecompress", "plugins", "show", "half", cwd=folder).returncode == 2
    flawed = environment.run("corecompress", "--plugin-file", "strategy.py", "plugins", "check", "half", cwd=folder)
    assert flawed.returncode == 1, flawed.stderr
    assert re.findall(r"^FAILED  compressor half +(\S+)", flawed.stdout, re.MULTILINE) == ["odd-tensors", "damage"]


def test_the_reference_names_every_hook() -> None:
    hooks = section("The hooks", "###")
    for hook in hookspecs.HOOKS.values():
        assert f"`{hook}`:" in hooks, hook
        assert f"def {hook}():" in hooks, f"{hook} has no example"
        assert "Component(" in inspect.getdoc(getattr(hookspecs, hook)), hook  # type: ignore[operator]
    assert set(hookspecs.HOOKS.values()) == {name for name in vars(hookspecs) if name.endswith("_components")}


def test_the_reference_names_every_method_of_a_protocol() -> None:
    for protocol in PROTOCOLS:
        of_protocol = section("Prior and Coder" if protocol in ("Prior", "Coder") else protocol, "###")
        for name, method in vars(getattr(components, protocol)).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                found = re.search(rf"`{name}\(([^)]*)\)", of_protocol)
                assert found, f"{protocol}.{name}"
                arguments = [a for a in inspect.signature(method).parameters if a != "self"]
                assert re.findall(r"\w+", found[1]) == arguments, f"{protocol}.{name}({', '.join(arguments)})"


def test_the_reference_names_every_check() -> None:
    kit = section("The conformance kit", "###")
    for name in {FOUND, "waivers", *(check.name for check in CHECKS)}:
        assert f"`{name}`" in kit, name


def test_acme_is_built_from_what_it_tells() -> None:
    for path in (Path(__file__).parent / "plugins" / "acme" / "acme_compress").glob("*.py"):
        for line in path.read_text().splitlines():
            found = re.match(r"from (corecompress[\w.]*) import (.*)", line)
            if found:
                assert found[1] == "corecompress" or f"`{found[1]}`" in TEXT or f"{found[1]}." in TEXT, line
                for name in re.findall(r"\w+", found[2]):
                    assert name in TEXT, f"{path.name}: {name}"
