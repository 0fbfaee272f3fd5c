"""Rule 1: help and plugin discovery import nothing heavy."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "numpy", "numba", "huggingface_hub", "safetensors")


def imported_by(code: str) -> set[str]:
    ending = "\nimport sys, json; print('@@' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout.rpartition("@@")[2])}


def run_cli(*arguments: str) -> str:
    return f"""
from corecompress.cli import main
try:
    main({list(arguments)!r})
except SystemExit as done:
    assert not done.code, done.code
"""


@pytest.mark.parametrize(
    "arguments", [("--help",), ("compress", "--help"), ("plugins",), ("plugins", "list", "--json")]
)
def test_command_line_is_light(arguments: tuple[str, ...]) -> None:
    assert not imported_by(run_cli(*arguments)).intersection(HEAVY)


def test_help_does_not_import_rich() -> None:
    assert "rich" not in imported_by(run_cli("--help"))


def test_package_imports_nothing() -> None:
    assert not imported_by("import corecompress").intersection((*HEAVY, "click", "rich", "pluggy"))


def test_discovery_is_light() -> None:
    assert not imported_by("from corecompress.plugins import registry; registry()").intersection(HEAVY)
