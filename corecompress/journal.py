"""What a run has done, line by line, so that a killed run goes on where it was and ends in the same bytes.

    OUT.partial/journal.jsonl    first line: the run's identity; then a line a finished tensor, in their order
    OUT.partial/payload-N        the payload files as they grow, room for a header in front

A line is written after its payload. On resume each journaled payload is hashed again: what a power cut lost is
noticed, and done once more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from corecompress.errors import CorecompressError

NAME = "journal.jsonl"


class Journal:
    """An append-only list of entries behind the run's identity."""

    def __init__(self, folder: Path, identity: dict[str, Any]):
        """Start afresh. Raises OSError when the folder can't be written."""
        self.path = folder / NAME
        self.entries: list[dict[str, Any]] = []
        self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115  (lives as long as the run)
        self._write(identity)

    @classmethod
    def resume(cls, folder: Path, identity: dict[str, Any]) -> Journal:
        """Go on with the journal in `folder`, or start one. Raises CorecompressError when it is another run's."""
        path = folder / NAME
        lines = _complete_lines(path) if path.exists() else []
        if not lines:
            return cls(folder, identity)
        for key in identity:
            if lines[0].get(key) != identity[key]:
                raise CorecompressError(
                    f"{folder}: was begun with another {key} ({lines[0].get(key)}, now {identity[key]}); "
                    "run it as it was begun, or start again with --force"
                )
        journal = cls.__new__(cls)
        journal.path, journal.entries = path, lines[1:]
        journal._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        journal.keep(len(journal.entries))
        return journal

    def keep(self, count: int) -> None:
        """Forget all but the first `count` entries (and a half-written line)."""
        lines = self.path.read_bytes().splitlines(keepends=True)[: count + 1]
        self._file.truncate(sum(map(len, lines)))
        self.entries = self.entries[:count]

    def add(self, entry: dict[str, Any]) -> None:
        """Append one entry; it is in the operating system's hands when this returns."""
        self._write(entry)
        self.entries.append(entry)

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    entries = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            entries.pop()
            break
    return entries


def sync(path: Path) -> None:
    """Make a file or folder durable. (Windows can't sync folders, and needs it less.)"""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
