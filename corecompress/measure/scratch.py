"""A folder for what an evaluation needs on disk. It goes with it, at the latest when the next one begins."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, locked while it is in use. Those that killed processes left are removed first."""
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent.with_name(f"{parent.name}.lock")):  # so that nobody sees a folder before it is locked
        for left in [path for path in parent.iterdir() if path.is_dir()]:
            _remove_if_left(left)
        folder = Path(tempfile.mkdtemp(dir=parent))
        lock = FileLock(folder / LOCK)
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # in use, or removed meanwhile
        return
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)
