"""Fixtures: checkpoints, and the installed command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # libraries' own threads would wait for cores that other tests have
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import checkpoints

from corecompress.demo import demo_folder

collect_ignore = ["plugins"]
"""Plugins of strangers bring tests of their own, which are for an environment that they are installed in."""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, float32. Fails where it can't be fetched: a test that needs it must not pass without."""
    return demo_folder()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M, bfloat16, tied embeddings."""
    return checkpoints.smollm2()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A synthetic checkpoint of a few tensors, 300 kB."""
    entries = [("a.weight", "F32", (64, 300)), ("a.bias", "F32", (300,)), ("b.weight", "BF16", (256, 256))]
    folder = checkpoints.write_checkpoint(tmp_path / "small", [checkpoints.weights(*entries)])
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    return folder


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the installed command `corecompress` in a process of its own."""
    command = Path(sys.executable).with_name("corecompress")

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment}
        )

    return run


@pytest.fixture(scope="session")
def refused(cli: Cli) -> Callable[..., str]:
    """Run the command, expect bad input, and return the one line that was said."""

    def run(*arguments: object, **environment: str) -> str:
        done = cli(*arguments, **environment)
        lines = [line for line in done.stderr.splitlines() if not line.endswith("…")]
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "a bug" not in lines[0], lines[0]
        return lines[0]

    return run


def pytest_configure(config: pytest.Config) -> None:
    """numba's cache looks at the file of a kernel only, not at those of the kernels that it calls: when any of them
    is newer than a cached one, start afresh."""
    root = Path(__file__).parent.parent
    folders = [root / "corecompress" / "coding", *root.glob("plugins/*/corecompress_*")]
    sources = [path.stat().st_mtime for folder in folders for path in folder.glob("*.py")]
    cached = [path for folder in folders for path in folder.glob("__pycache__/*.nb?")]
    if cached and max(sources) > min(path.stat().st_mtime for path in cached):
        for path in cached:
            path.unlink(missing_ok=True)
