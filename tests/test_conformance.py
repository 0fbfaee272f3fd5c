"""The conformance kit: what is broken on purpose is caught by name, what the scaffold writes passes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broken import BROKEN, GENERATIVE, GENERATIVE_HOOKS, Broken

from corecompress.plugins import Choice, choose
from corecompress.scaffold import write_plugin
from corecompress.testing.kit import CHECKS, Outcome
from corecompress.testing.runner import runs

ACME = Path(__file__).parent / "plugins" / "acme"
Install = Callable[[Broken], str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a broken plugin as if by pip: a package and its metadata in a folder on the path. Gives its component."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))

    def into(broken: Broken) -> str:
        if broken.kind == "model":
            name, package = "acme-prune", "acme_compress"
            shutil.copytree(ACME / package, site / package)
            file = "prune"
        elif broken.kind == "generative":
            name, package, file = "acme-generative", "acme_generative", "generative"
            (site / package).mkdir()
            (site / package / "__init__.py").write_text(GENERATIVE_HOOKS)
            (site / package / "generative.py").write_text(GENERATIVE)
        else:
            name = f"acme-{broken.kind}"
            package, file = name.replace("-", "_"), broken.kind
            write_plugin(name, broken.kind, tmp_path / "written")  # type: ignore[arg-type]
            shutil.move(tmp_path / "written" / package, site / package)
        path = site / package / ("__init__.py" if broken.hooks else f"{file}.py")
        text = path.read_text()
        old, new = (
            part.replace("{name}", name).replace("{{", "{").replace("}}", "}") for part in (broken.old, broken.new)
        )
        assert old in text, f"{old!r} is not in {path.name} any more"
        path.write_text(text.replace(old, new))
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}-dist\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[corecompress]\n{package} = {package}\n")
        choose(Choice())
        return name

    yield into
    for module in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[module]
    choose(Choice())


def outcome_of(component: str, check: str) -> Outcome:
    """That check alone."""
    return next(run.act() for run in runs(component) if run.id.endswith(f"{component}-{check}"))


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_what_is_broken_is_caught(broken: Broken, install: Install) -> None:
    outcome = outcome_of(install(broken), broken.check)
    assert outcome.status == "failed", outcome
    assert outcome.remark
    assert "\n" not in str(outcome)


def test_there_is_a_broken_plugin_for_every_check() -> None:
    scopes = {"compressor": "tensor"}
    caught = {(scopes.get(b.kind, b.kind), b.check) for b in BROKEN}
    for check in CHECKS:
        of_scope = {name for scope, name in caught if check.scope in ("any", scope)}
        assert check.name in of_scope, (check.scope, check.name)
    assert "waivers" in {b.check for b in BROKEN}
