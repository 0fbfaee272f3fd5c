"""A run that was started as several processes, by torchrun or accelerate launch: rank 0 leads and does all that a
single process would do; the others join it where models are trained, and wait for the outcome.

The ranks share a file system. The leader holds the target's lock; beside its journal it leaves a note that the others
wait for.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

NOTE = "leader.json"
FRESH = 600.0
"""Seconds before this process came here that a leader may have written its note; an older one is another run's."""
PAUSE = 0.1


def is_follower() -> bool:
    """Whether this is another rank than 0 of several processes."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and int(os.environ.get("RANK", 0)) > 0


def announce(folder: Path, done: int) -> None:
    """Let the other ranks know that `folder` is ready, and how many stages are done already."""
    note = folder / NOTE
    note.with_suffix(".tmp").write_text(json.dumps({"run": _run(), "done": done}))
    os.replace(note.with_suffix(".tmp"), note)


def await_leader(folder: Path) -> int:
    """Wait until the leader has announced `folder` (torchrun ends us when it fails); how many stages are done."""
    begun, note = time.time(), folder / NOTE
    while True:
        try:
            said = json.loads(note.read_text())
            if said["run"] == _run() and note.stat().st_mtime > begun - FRESH:
                return int(said["done"])
        except (OSError, ValueError):
            pass
        time.sleep(PAUSE)


def await_end(lock: Path) -> None:
    """Wait until the leader has let go of the target."""
    while lock.exists():
        time.sleep(PAUSE)


def _run() -> list[str]:
    """What is the same for all ranks of one launch, and another for the next one on the same machine."""
    return [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")]
