"""What the tests of the data component share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm: Path) -> None:
    monkeypatch.setenv("CORECOMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def refused() -> Callable[..., str]:
    """Run the command, expect bad input, and return the one line that was said."""

    def run(*arguments: object, **environment: str) -> str:
        command = [str(Path(sys.executable).with_name("corecompress")), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        )
        lines = done.stderr.splitlines()
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert len(lines) == 1, done.stderr
        assert "a bug" not in lines[0], lines[0]
        return lines[0]

    return run


@pytest.fixture(scope="session")
def minilm() -> Path:
    from corecompress.demo import demo_folder

    return demo_folder()
